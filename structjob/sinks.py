"""What a sink is, and the console. The database is reached another way, see `structjob.recorder`.

A sink is any object with ``emit(record)``; ``level`` (the least it takes, ``"debug"`` if absent) and ``close()`` are optional. What
it raises is counted and reported once in a while, and felt by nobody.
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
from typing import IO, Any, Literal, Protocol, runtime_checkable

from structjob.descriptor import Descriptor, takes_lines_whole
from structjob.exceptions import InvalidArgument
from structjob.levels import LEVELS, level_name

_write = os.write

Format = Literal["auto", "pretty", "json"]

# What a terminal obeys: C0 (newlines and tabs too: a line is a line), DEL, C1, and the Unicode line and paragraph separators.
_OBEYED = "\x00-\x1f\x7f-\x9f\u2028\u2029"
# What turns the direction of text around, and what is not seen at all: two names that look alike would not be the same. These are the
# characters that Unicode calls default ignorable (DerivedCoreProperties.txt), but for those below, and the interlinear marks. The tags
# (U+E0000 …) carry whole hidden texts; the flags of England, Scotland and Wales, which are made of them, are shown escaped for that.
_UNSEEN = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
# Joiners and variation selectors shape the character before them, in emoji, Persian, Indic and CJK text. They are left where they follow
# such a one, each kind once, and after the digits of keycap emoji.
_JOINERS = "\u200c\u200d"
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_UNSAFE = re.compile(
    f"[{_OBEYED}{_UNSEEN}]"
    f"|(?<![^\x00-\x7f{_JOINERS}])[{_JOINERS}]"
    f"|(?!(?<=[0-9#*])\ufe0f\u20e3)(?<![^\x00-\x7f{_JOINERS}{_SELECTORS}])[{_SELECTORS}]"
)


def escape(text: str) -> str:
    """Return *text* with everything made visible that a terminal would obey, or not show."""
    return _UNSAFE.sub(lambda match: _spelled(match[0]), text)


def _spelled(char: str) -> str:
    if ord(char) < 0x100:
        return repr(char)[1:-1]  # \n, \x1b
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def escape_json(encoded: bytes) -> bytes:
    r"""Return *encoded* JSON on one line with the same in its texts written as ``\uXXXX``: it is equal, and a terminal obeys none of it."""
    return _UNSAFE.sub(lambda match: _spelled_in_json(match[0]), encoded.decode()).encode()


def _spelled_in_json(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[first : first + 4]}" for first in range(0, len(units), 4))


stand_ins: dict[int, Any] = {}
"""By the ids of streams: what stands for them while their terminal is shared, see `structjob.terminal`."""


class Record:
    """One event on its way to the sinks.

    Attributes:
        level: Canonical name of its level.
        message: What happened; redacted.
        attrs: Its attributes as the caller gave them; redacted where a key names a secret.
        ids: ``job_id``, ``step_id``, ``correlation_id``, … as far as they are known.
        logger: Name of the logger, if it has one.
        ns: When, in nanoseconds since the epoch.
        line: The event as one line of JSON (bytes, with newline), as files and consoles show it.
    """

    __slots__ = ("attrs", "ids", "level", "line", "logger", "message", "ns")

    def __init__(
        self, ns: int, level: str, message: str, attrs: dict[str, Any], ids: dict[str, str], logger: str | None, line: bytes
    ) -> None:
        self.ns = ns
        self.level = level
        self.message = message
        self.attrs = attrs
        self.ids = ids
        self.logger = logger
        self.line = line


@runtime_checkable
class Sink(Protocol):
    """What can be given to `structjob.configure` and `structjob.FanOut`."""

    def emit(self, record: Record) -> None:
        """Show *record*. May raise; must not log, must not wait."""


def sink_level(sink: Any) -> int:
    """Return the number of the least level that *sink* takes."""
    return LEVELS[level_name(getattr(sink, "level", "debug"))]


class ConsoleSink:
    """Shows events on a stream: pretty on a terminal, as lines of JSON otherwise.

    Args:
        stream: Text or binary stream; by default whatever ``sys.stdout`` is at the time.
        format: ``pretty``, ``json``, or ``auto``: pretty if the stream is a terminal.
        level: Least level shown.
        color: ``None``: on a terminal, unless ``NO_COLOR`` is set, or if ``FORCE_COLOR`` is.
        utc: Show times in UTC, not in local time (pretty only).
    """

    def __init__(
        self,
        stream: IO[Any] | None = None,
        *,
        format: Format = "auto",  # noqa: A002 -- the word that everybody looks for
        level: str = "debug",
        color: bool | None = None,
        utc: bool = False,
    ) -> None:
        if format not in ("auto", "pretty", "json"):
            raise InvalidArgument(f"unknown console format {format!r}: use auto, pretty or json")
        self.level = level_name(level)
        self._stream = stream
        self._utc = utc
        terminal = _is_terminal(stream if stream is not None else sys.stdout)
        self.pretty = format == "pretty" or (format == "auto" and terminal)
        if color is None:
            color = bool(os.environ.get("FORCE_COLOR")) or (terminal and not os.environ.get("NO_COLOR"))
        self._color = color
        self._renderer: Any = None
        self._known: Any = self
        self._fd = -1
        self._descriptor: Descriptor | None = None
        """What keeps lines whole on a pipe or a terminal; a file does so alone."""

    def emit(self, record: Record) -> None:
        self.write(self._render(record) if self.pretty else record.line)

    def write(self, line: bytes) -> None:
        """Write one line at once."""
        stream = self._stream if self._stream is not None else sys.stdout
        if stand_ins and (stand_in := stand_ins.get(id(stream))) is not None:
            stand_in.write(line.decode())
            return
        if stream is not self._known:
            self._learn(stream)
        if self._fd < 0:
            _write_through(stream, line)
            return
        if self._descriptor is not None:
            self._descriptor.write(self._fd, line, stream)
            return
        # Past the stream's buffer, which refuses a signal handler that comes in while its own thread writes; but what
        # print() left there comes first.
        try:  # noqa: SIM105 -- `suppress` costs as much as the write
            stream.flush()
        except RuntimeError:
            pass
        try:
            written = _write(self._fd, line)
        except BlockingIOError:
            written = 0
        if written != len(line):  # the disk is full: from now on the rest of a line is kept until there is room
            self._descriptor = Descriptor.of(self._fd)
            self._descriptor.write(self._fd, line[written:])

    def _learn(self, stream: Any) -> None:
        """Find out how to write to *stream*, which is a new one."""
        self._fd = _descriptor(stream)
        self._descriptor = None if self._fd < 0 or takes_lines_whole(self._fd) else Descriptor.of(self._fd)
        self._known = stream

    def _render(self, record: Record) -> bytes:
        if self._renderer is None:
            from structlog.dev import ConsoleRenderer, plain_traceback

            # Never Rich's tracebacks: they print local variables, passwords among them.
            self._renderer = ConsoleRenderer(colors=self._color, exception_formatter=plain_traceback, pad_event_to=30, sort_keys=False)
        moment = time.gmtime(record.ns // 10**9) if self._utc else time.localtime(record.ns // 10**9)
        shown: dict[str, Any] = {
            "timestamp": f"{time.strftime('%H:%M:%S', moment)}.{record.ns // 10**6 % 1000:03}",
            "level": record.level,
            "event": escape(record.message),
        }
        if record.logger:
            shown["logger"] = escape(record.logger)
        attrs = dict(record.attrs)
        traceback = None
        exception = attrs.pop("exception", None)
        if isinstance(exception, dict):
            traceback = exception.get("traceback")
            attrs.pop("error_message", None)
        elif isinstance(exception, str):
            traceback = exception
        ids = {key: value for key, value in _short(record.ids).items() if key not in attrs}
        for key, value in {**attrs, **ids}.items():
            shown.setdefault(escape(str(key)), escape(value) if type(value) is str else _Shown(escape(repr(value))))
        text = self._renderer(None, "", shown)
        if traceback:
            text += "\n" + "\n".join(escape(line) for line in str(traceback).rstrip("\n").split("\n"))
        return f"{text}\n".encode("utf-8", "backslashreplace")


class _Shown:
    """A value that is text already, and shown without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _short(ids: dict[str, str]) -> dict[str, str]:
    """On a terminal the tail of an id tells jobs apart well enough; UUIDv7 begin alike."""
    return {key: value[-6:] if len(value) == 36 else value for key, value in ids.items() if key in ("job_id", "step_id")}


def _descriptor(stream: Any) -> int:
    """Return the descriptor below *stream*, -1 if it has none, as where a test has put a buffer in its place."""
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError, TypeError):
        return -1


def _write_through(stream: Any, line: bytes) -> None:
    if stream is None:  # a process without a console
        return
    if isinstance(stream, io.TextIOBase) or not isinstance(stream, (io.RawIOBase, io.BufferedIOBase)):
        stream.write(line.decode())
    else:
        stream.write(line)
    stream.flush()


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False
