"""Events as lines for people, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from structjob.cli.ids import short
from structjob.cli.moments import lasting, local
from structjob.cli.screen import coloured, is_terminal, paint, put_json_line, say
from structjob.cli.status import LEVELS, colour_of, speaks_unicode, symbol
from structjob.models import Event, Gap
from structjob.sinks import escape

_MESSAGE = 30
"""Columns of a message before its attributes: short messages line up."""

# What the line says in another place or in other words.
_SAID = frozenset(
    {
        "step",
        "step_number",
        "operation",
        "status",
        "duration_ms",
        "duration_str",
        "total_duration_ms",
        "parent_job_id",
        "error_type",
        "error_message",
        "last_lines",
        "attempt_number",
        "max_retries",
        "retry_delay",
    }
)


class Lines:
    """Makes lines of events.

    Args:
        colour: Whether to colour them.
        utc: Times in UTC, not in local time.
        about: The job they are about, which is not named in each line then.
        terminal: Whether a person looks at them as they come: lines of one day show the time only, and the day stands between them.
        dated: The day that is understood at first.
    """

    def __init__(
        self, *, colour: bool, utc: bool = False, about: str | None = None, terminal: bool = False, dated: date | None = None
    ) -> None:
        self._colour = colour
        self._utc = utc
        self._about = about
        self._terminal = terminal
        self._day = dated
        self._dot = "·" if speaks_unicode() else "|"

    def render(self, event: Event, *, mark: bool = False) -> str:
        """Return *event* as text without a final newline; *mark* it among the lines around it."""
        moment = local(event.ts, utc=self._utc)
        when = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
        head = ""
        if not self._terminal:
            when = moment.isoformat(timespec="milliseconds")
        elif moment.date() != self._day:
            self._day = moment.date()
            head = self._paint(f"── {moment:%A %Y-%m-%d} ──" if speaks_unicode() else f"-- {moment:%A %Y-%m-%d} --", "dim") + "\n"
        style, text = self._text(event)
        attrs, traceback = self._attrs(event.attrs, event.kind)
        padded = text.ljust(_MESSAGE) if attrs else text
        parts = [
            self._paint(when, "bold" if mark else "dim"),
            self._label(event),
            self._paint(padded, style),
            self._shown(attrs),
            self._where(event),
        ]
        line = " ".join(part for part in parts if part).rstrip()
        if traceback:
            line += "".join(f"\n    {self._paint(escape(part), 'dim')}" for part in traceback.rstrip("\n").split("\n"))
        return head + line

    def _paint(self, text: str, style: str) -> str:
        return paint(text, style, self._colour)

    def _label(self, event: Event) -> str:
        if event.stream != "system":
            return self._paint(f"{escape(event.stream):<8}", "yellow" if event.stream == "stderr" else "dim")
        return self._paint(f"{event.level:<8}", LEVELS.get(event.level, "") or "dim")

    def _text(self, event: Event) -> tuple[str, str]:
        """Return style and words of the message."""
        attrs = event.attrs
        name = escape(str(attrs.get("step") or event.step or "step"))
        operation = escape(str(attrs.get("operation") or event.operation or "job"))
        status = str(attrs.get("status", ""))
        lasted = f" in {attrs['duration_str']}" if "duration_str" in attrs else ""
        if event.kind == "operation_created":
            return "", f"{symbol('pending')} {operation} created"
        if event.kind == "operation_start":
            return "bold", f"{symbol('running')} {operation} started"
        if event.kind == "operation_end" and status:
            failure = f": {_error(attrs)}" if attrs.get("error_message") else ""
            again = f", {retried(attrs)}" if "retry_delay" in attrs else ""
            return colour_of(status), f"{symbol(status)} {operation} {escape(status)}{escape(lasted)}{again}{failure}"
        if event.kind == "operation_crashed":
            return colour_of("crashed"), f"{symbol('crashed')} {operation} crashed: its process ended without finishing it"
        if event.kind == "step_start":
            return "", f"{symbol('pending')} {name}"
        if event.kind == "step_end" and status == "retrying":
            return colour_of(status), f"{symbol(status)} {name} failed{escape(lasted)}, {retried(attrs)}"
        if event.kind == "step_end" and status:
            word = "" if status == "completed" else f" {escape(status)}"
            return colour_of(status), f"{symbol(status)} {name}{word}{escape(lasted)}"
        if event.kind == "step_error":
            status = "failed" if event.level == "error" else "retrying"
            return colour_of(status), f"{symbol(status)} {name}: {_error(attrs)}"
        return "" if event.level in ("info", "debug") else LEVELS.get(event.level, ""), escape(event.message)

    def _attrs(self, attrs: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], str]:
        shown = dict(attrs)
        traceback = ""
        exception = shown.pop("exception", None)
        if isinstance(exception, Mapping):
            traceback = str(exception.get("traceback") or "")
            if 'File "' not in traceback:
                traceback = ""  # of an exception that was not raised; its message is in the line
        elif exception is not None:
            traceback = str(exception)
        if kind in ("operation_created", "operation_start", "operation_end", "operation_crashed", "step_start", "step_end", "step_error"):
            shown = {
                key: value
                for key, value in shown.items()
                if key not in _SAID and key not in ("total_steps", "total_steps_completed", "retry_possible")
            }
        elif traceback:
            shown = {key: value for key, value in shown.items() if key not in ("error_type", "error_message", "retry_possible")}
        shown.pop("parent_job_id", None)
        return shown, traceback

    def _shown(self, attrs: Mapping[str, Any]) -> str:
        return " ".join(f"{self._paint(f'{escape(str(key))}=', 'cyan')}{value_text(value)}" for key, value in attrs.items())

    def _where(self, event: Event) -> str:
        parts = []
        if event.step is not None and not event.kind.startswith("step_"):
            parts.append(event.step)
        if event.job_id is not None and event.job_id != self._about:
            parts.append(
                short(event.job_id)
                if event.kind.startswith("operation_") or event.operation is None
                else f"{event.operation} {short(event.job_id)}"
            )
        elif event.job_id is None and event.logger:
            parts.append(event.logger)
        return self._paint(f"{self._dot} {f' {self._dot} '.join(map(escape, parts))}", "dim") if parts else ""


def _error(attrs: Mapping[str, Any]) -> str:
    kind, message = attrs.get("error_type"), attrs.get("error_message")
    return escape(": ".join(str(part) for part in (kind, message) if part and part != "CommandFailed"))


def retried(about: Mapping[str, Any]) -> str:
    """Return how a try went on that was tried again, given the metadata of its step or the attributes of an event."""
    delay = about.get("retry_delay")
    return f"retrying after {lasting(delay)}" if isinstance(delay, int | float) and delay > 0 else "retrying"


def value_text(value: Any) -> str:
    """Return an attribute's value as it is shown: bare where that cannot be misread, as JSON otherwise."""
    if isinstance(value, str):
        if value and value.isprintable() and not any(char in value for char in " \"'="):
            return escape(value)
        if not any(char in value for char in '"\\'):
            return f'"{escape(value)}"'
    import msgspec

    return escape(msgspec.json.encode(value).decode())


def today(*, utc: bool) -> date:
    """Return the day that a line's time belongs to when nothing else is said."""
    from datetime import UTC

    return local(datetime.now(UTC), utc=utc).date()


class Screen:
    """Puts events on stdout.

    Args:
        as_json: As lines of JSON.
        utc: Times in UTC.
        about: The job they are about.
        at_once: Each as it comes: somebody is waiting for it.
    """

    def __init__(self, *, as_json: bool, utc: bool, about: str | None, at_once: bool = False) -> None:
        colour = coloured(sys.stdout)
        self._json_lines = as_json
        self._at_once = at_once
        self._lines = Lines(colour=colour, utc=utc, about=about, terminal=is_terminal(sys.stdout), dated=today(utc=utc))
        self._separator = paint("──" if colour else "--", "dim", colour)
        self.marked: set[int] | None = None
        self.shown = 0

    def put(self, event: Event) -> None:
        """Show one event."""
        if self._json_lines:
            put_json_line(event)
            return
        self.shown += 1
        sys.stdout.write(self._lines.render(event, mark=self.marked is not None and event.id in self.marked) + "\n")
        if self._at_once:
            sys.stdout.flush()

    def separate(self) -> None:
        """Show that lines are left out here."""
        if not self._json_lines and self.shown:
            sys.stdout.write(self._separator + "\n")

    @staticmethod
    def tell(gap: Gap) -> None:
        """Say that lines are missing here."""
        number = gap.last_seq - gap.first_seq + 1
        lines = "1 line is" if number == 1 else f"{number:,} lines are"
        say(f"{lines} missing here: {escape(gap.reason)} (session {gap.session_id}, {gap.first_seq}–{gap.last_seq})")
