"""Events as log lines for people, the same on the console, in ``structjob logs`` and elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from structjob.text.amounts import fraction, whole_percent
from structjob.text.appearance import (
    LEVELS,
    Piece,
    colour_of,
    fits,
    lasting,
    local,
    paint,
    speaks_unicode,
    symbol,
    wrapped,
)
from structjob.text.escaping import escape

_MESSAGE = 30
"""Width of a message before its attributes, so that the attributes of short messages line up."""

_INDENT = 22
"""Indentation of the continuation of a line that is wider than the terminal: below its message."""

_UUID = 36
_SHORT = 8

_OWN = frozenset((
    "operation_created", "operation_start", "operation_end", "operation_crashed", "operation_crash_withdrawn", "step_start", "step_end",
    "step_error", "progress",
))  # fmt: skip
"""Kinds of events that report the state or the progress of a job or step."""

# Attributes that the line of such an event shows in another place or in other words.
_SAID = frozenset(
    (
        "step", "step_number", "operation", "status", "duration_ms", "duration_str", "total_duration_ms", "parent_job_id", "error_type",
        "error_message", "last_lines", "attempt_number", "max_attempts", "retry_delay", "total_steps", "total_steps_completed",
        "retry_possible",
    )
)  # fmt: skip


def short(id_: str) -> str:
    """Return an id as shown to people, who may type it: the end of our own ids, other ids in full.

    Our own ids are UUIDv7. Those begin alike: jobs of the same minute share eight characters and
    more.
    """
    return id_[-_SHORT:] if len(id_) == _UUID else id_


class Shown(Protocol):
    """The interface of an event to show. `structjob.EventRecord` and `structjob.SinkEvent` have
    it.
    """

    @property
    def ts(self) -> datetime: ...
    @property
    def level(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def attrs(self) -> dict[str, Any]: ...
    @property
    def kind(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def operation(self) -> str | None: ...
    @property
    def step(self) -> str | None: ...
    @property
    def job_id(self) -> str | None: ...
    @property
    def logger(self) -> str | None: ...


class Lines:
    """Renders events as log lines.

    Args:
        color: Whether to color the lines.
        utc: Show times in UTC instead of local time. False by default.
        about: The id of the job that the lines are about. It is then not named in each line.
        places: Whether each line shows the step, the job and the logger of its event. True by
            default.
        clock_only: Show only the time in each line, and the day in a line between days. This is
            meant for live output. False by default.
        width: A function that returns the maximum number of columns of a line; None: no limit. A
            longer line is continued below its message.
        unicode: Whether more than ASCII can be shown; by default what stdout can show.
    """

    def __init__(
        self,
        *,
        color: bool,
        utc: bool = False,
        about: str | None = None,
        places: bool = True,
        clock_only: bool = False,
        width: Callable[[], int] | None = None,
        unicode: bool | None = None,
    ) -> None:
        self._color = color
        self._utc = utc
        self._about = about
        self._places = places
        self._clock_only = clock_only
        self._day = local(datetime.now(UTC), utc=utc).date()
        self._width = width
        self._unicode = speaks_unicode() if unicode is None else unicode
        self._dot = "·" if self._unicode else "|"

    def render(self, event: Shown, *, mark: bool = False) -> str:
        """Return *event* as text without a final newline. *mark* highlights it among the lines
        around it.
        """
        moment = local(event.ts, utc=self._utc)
        rows: list[list[Piece]] = []
        if not self._clock_only:
            when = moment.isoformat(timespec="milliseconds")
        else:
            when = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
            if moment.date() != self._day:
                self._day = moment.date()
                rule = "──" if self._unicode else "--"
                rows.append([(f"{rule} {moment:%A %Y-%m-%d} {rule}", "dim")])
        style, text = self._text(event)
        attrs, traceback = _split(event.attrs, event.kind)
        head: list[Piece] = [
            (when, "bold" if mark else "dim"),
            (" ", ""),
            self._label(event),
            (" ", ""),
        ]
        pairs: list[Piece] = []
        for key, value in attrs.items():
            pairs += ((" ", ""), (f"{escape(str(key))}=", "cyan"), (_attribute(value), ""))
        width = self._width() if self._width is not None else 0
        # If space is short, first leave out the job's name, then the padding that lines up
        # attributes.
        fitting = False
        for place in self._places_of(event, short_form=width > 0):
            row = [*head, (text.ljust(_MESSAGE) if attrs else text, style), *pairs, *place]
            if not width or (fitting := fits(row, width)):
                break
        else:
            row = [*head, (text, style), *pairs, *place]
        rows.append(row)
        if fitting and not traceback and len(rows) == 1:
            return self._painted(row)
        if traceback:
            lines = traceback.rstrip("\n").split("\n")
            # The last line may be the note of `structjob.enrich`. The event itself already shows
            # its place.
            rows += (
                [(f"    {escape(line)}", "dim")]
                for line in (lines[:-1] if lines[-1].startswith("[job_id=") else lines)
            )
        if not width:
            return "\n".join(map(self._painted, rows))
        return "\n".join(
            self._painted(line)
            for one in rows
            for line in wrapped(one, width, _INDENT if one is row else 8)
        )

    def _painted(self, row: Any) -> str:
        return "".join([paint(text, style, self._color) for text, style in row]).rstrip()

    @staticmethod
    def _label(event: Shown) -> Piece:
        if event.stream != "system":
            return f"{escape(event.stream):<8}", "yellow" if event.stream == "stderr" else "dim"
        return f"{event.level:<8}", LEVELS.get(event.level, "") or "dim"

    def _text(self, event: Shown) -> tuple[str, str]:
        """Return the style and the text of the message."""
        if event.kind in _OWN:
            status, words = words_of(
                event.kind, event.level, event.attrs, event.operation, event.step
            )
            if words:
                if event.message != event.kind:
                    words = event.message  # the stored message, or a text that was logged manually
                if event.kind == "progress" or status == "pending":
                    style = ""
                else:
                    style = "bold" if status == "running" else colour_of(status)
                return style, f"{symbol(status, unicode=self._unicode)} {escape(words)}"
        style = "" if event.level in ("info", "debug") else LEVELS.get(event.level, "")
        return style, escape(event.message.rstrip())  # uvicorn's messages end with a newline

    def _places_of(self, event: Shown, *, short_form: bool) -> Iterator[list[Piece]]:
        """Yield the place of *event*: step and job, or its logger.

        In *short_form*, also yield the place without the job's name.
        """
        if not self._places:
            yield []
            return
        # what the message names is not repeated
        of_step = event.kind.startswith("step_") or event.kind == "progress"
        of_job = event.kind.startswith("operation_") or (
            event.kind == "progress" and event.step is None
        )
        parts = [event.step] if event.step is not None and not of_step else []
        job = None
        if event.job_id is not None and event.job_id != self._about:
            job = short(event.job_id)
        elif event.job_id is None and event.logger:
            parts.append(event.logger)
        if job is not None and event.operation is not None and not of_job:
            yield self._place([*parts, f"{event.operation} {job}"])
            if not short_form:
                return
        yield self._place([*parts, job] if job is not None else parts)

    def _place(self, parts: list[str]) -> list[Piece]:
        return (
            [(" ", ""), (f"{self._dot} {f' {self._dot} '.join(map(escape, parts))}", "dim")]
            if parts
            else []
        )


def words_of(
    kind: str, level: str, attrs: Mapping[str, Any], operation: str | None, step: str | None
) -> tuple[str, str]:
    """Return what an event reports about a job or step: the displayed status and the text.

    The text is empty if the event reports nothing known.

    Args:
        kind: The event's kind.
        level: The event's level.
        attrs: The event's attributes.
        operation: The operation of the event's job.
        step: The name of the event's step.
    """
    name = str(attrs.get("step") or step or "step")
    operation = str(attrs.get("operation") or operation or "job")
    status = str(attrs.get("status", ""))
    lasted = f" in {attrs['duration_str']}" if "duration_str" in attrs else ""
    match kind:  # the most frequent ones first
        case "step_start":
            return "pending", name
        case "step_end" if status == "retrying":
            return status, f"{name} failed{lasted}, {retried(attrs)}"
        case "step_end" if status:
            return status, f"{name}{'' if status == 'completed' else f' {status}'}{lasted}"
        case "operation_created":
            return "pending", f"{operation} created"
        case "operation_start":
            return "running", f"{operation} started"
        case "operation_end" if status:
            failure = f": {_error(attrs)}" if attrs.get("error_message") else ""
            again = f", {retried(attrs)}" if "retry_delay" in attrs else ""
            return status, f"{operation} {status}{lasted}{again}{failure}"
        case "operation_crashed":
            why = attrs.get("error_message") or "its process ended without finishing it"
            return "crashed", f"{operation} crashed: {why}"
        case "cancel_requested":
            return "cancelled", f"cancellation of {operation} requested"
        case "operation_crash_withdrawn":
            return "running", f"{operation} has not crashed"
        case "step_error":
            return "failed" if level == "error" else "retrying", f"{name}: {_error(attrs)}"
        case "progress":
            percent = attrs.get("percent")
            far = f" {whole_percent(percent)}%" if isinstance(percent, int | float) else ""
            return "running", f"{name if 'step' in attrs else operation}{far}"
    return "", ""


def _split(attrs: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], str]:
    """Return the attributes to show, and the traceback among them."""
    shown = dict(attrs)
    traceback = ""
    exception = shown.pop("exception", None)
    if isinstance(exception, Mapping):
        traceback = str(exception.get("traceback") or "")
        if 'File "' not in traceback:
            traceback = ""  # the exception was not raised; its message is in the line
    elif exception is not None:
        traceback = str(exception)
    if kind in _OWN:
        said = _SAID if kind != "progress" else _SAID | {"percent"}
        shown = {key: value for key, value in shown.items() if key not in said}
    elif traceback:
        shown = {
            key: value
            for key, value in shown.items()
            if key not in ("error_type", "error_message", "retry_possible")
        }
    shown.pop("parent_job_id", None)
    return shown, traceback


def _error(attrs: Mapping[str, Any]) -> str:
    exception = attrs.get("exception")
    kind, message = attrs.get("error_type"), attrs.get("error_message")
    if not message and isinstance(exception, Mapping):
        message = exception.get("message")
    return ": ".join(str(part) for part in (kind, message) if part and part != "CommandFailed")


def retried(about: Mapping[str, Any]) -> str:
    """Return a text about the retry after an attempt.

    *about* is the metadata of its step, or the attributes of an event.
    """
    delay = about.get("retry_delay")
    return (
        f"retrying after {lasting(delay)}"
        if isinstance(delay, int | float) and delay > 0
        else "retrying"
    )


def _attribute(value: Any) -> str:
    """Return an attribute's value as shown in a line, without needless decimals."""
    return fraction(value) if isinstance(value, float) else value_text(value)


def value_text(value: Any) -> str:
    """Return an attribute's value as shown: without quotes if it is unambiguous, otherwise as
    JSON.
    """
    if isinstance(value, str):
        if value and value.isprintable() and not any(char in value for char in " \"'="):
            return escape(value)
        if not any(char in value for char in '"\\'):
            return f'"{escape(value)}"'
    import msgspec

    return escape(msgspec.json.encode(value).decode())
