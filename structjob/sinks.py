"""Where events are shown: console and file. The database is reached another way, see `structjob.recorder`.

A sink is any object with ``emit(record)``; ``level`` (the least it takes, ``"debug"`` if absent) and ``close()`` are optional. What
it raises is counted and reported once in a while, and felt by nobody.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, Protocol, runtime_checkable

import msgspec

from structjob.exceptions import InvalidArgument
from structjob.levels import LEVELS, level_name

_write = os.write

Format = Literal["auto", "pretty", "json"]

# C0 (newlines and tabs too: a line is a line), DEL and C1, the Unicode line and paragraph separators, and what turns the
# direction of text around.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """Return *text* with everything made visible that a terminal would obey."""
    return _UNSAFE.sub(lambda match: repr(match[0])[1:-1], text)


def escape_json(encoded: bytes) -> bytes:
    r"""Return *encoded* JSON on one line with the same in its texts written as ``\uXXXX``: it is equal, and a terminal obeys none of it."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()).encode()


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

    def emit(self, record: Record) -> None:
        self.write(self._render(record) if self.pretty else record.line)

    def write(self, line: bytes) -> None:
        """Write one line at once."""
        stream = self._stream if self._stream is not None else sys.stdout
        if stream is not self._known:
            self._fd = _descriptor(stream)
            self._known = stream
        if self._fd < 0:
            _write_through(stream, line)
            return
        # Past the stream's buffer, which refuses a signal handler that comes in while its own thread writes; but what
        # print() left there comes first.
        try:  # noqa: SIM105 -- `suppress` costs as much as the write
            stream.flush()
        except RuntimeError:
            pass
        written = _write(self._fd, line)
        while written < len(line):  # a pipe took a part
            written += _write(self._fd, line[written:])

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


def append_line(fd: int, line: bytes, path: Path) -> None:
    """Append *line* to the open file *path*. Raises `OSError` if the disk took a part of it only; the next line is whole all the same."""
    if os.write(fd, line) != len(line):
        os.write(fd, b"\n")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class FileSink:
    """Appends events to a file as lines of JSON.

    Args:
        path: The file; it is created with mode 0600, its directory must exist.
        level: Least level written.
        max_bytes: Size at which the file is moved to ``path.1`` (and so on) and a new one begun; ``None``: never.
        max_age: Age in seconds at which the same happens; ``None``: never.
        keep: How many old files stay.

    Raises:
        InvalidArgument: if the file cannot be written to.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        level: str = "debug",
        max_bytes: int | None = 100 * 1024 * 1024,
        max_age: float | None = None,
        keep: int = 5,
    ) -> None:
        if (max_bytes is not None and max_bytes < 1) or (max_age is not None and max_age <= 0) or keep < 0:
            raise InvalidArgument(f"rotation of {path}: max_bytes and max_age must be positive, keep not negative")
        self.level = level_name(level)
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._keep = keep
        self._lock = threading.Lock()
        self._fd = -1
        self._checked = 0.0
        self._written = 0
        self._began = 0.0
        try:
            self._open()
        except OSError as exc:
            raise InvalidArgument(
                f"cannot write the log file {self.path}: {exc.strerror}; create its directory, or choose another path"
            ) from exc

    def emit(self, record: Record) -> None:
        self.write(record.line)

    def write(self, line: bytes) -> None:
        """Append one line at once."""
        self._written += len(line)
        now = time.monotonic()
        try:
            if now - self._checked > 1.0 or (self._max_bytes is not None and self._written > self._max_bytes):
                self._check(now)
        finally:  # a file that cannot be moved away, in somebody else's directory, grows; it is told, and tried again
            append_line(self._fd, line, self.path)

    def _open(self) -> None:
        fresh = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._fd < 0:
            self._fd = fresh
        else:
            # The descriptor keeps its number, see `structjob.spool.FileLane`.
            os.dup2(fresh, self._fd, inheritable=False)
            os.close(fresh)
        self._written = os.fstat(self._fd).st_size
        self._began = self._first_time() or time.time()

    def _first_time(self) -> float | None:
        """Return when the file's first event happened: a file system need not know when it was made."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError), open(self.path, "rb") as file:
            return datetime.fromisoformat(msgspec.json.decode(file.readline())["timestamp"]).timestamp()
        return None

    def _check(self, now: float) -> None:
        if not self._lock.acquire(blocking=False):
            return  # another thread is at it, or this very one was interrupted there
        try:
            self._checked = now
            try:
                there = os.stat(self.path)
            except FileNotFoundError:
                self._open()
                return
            here = os.fstat(self._fd)
            if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                self._open()  # somebody else has rotated it
                return
            self._written = here.st_size
            too_large = self._max_bytes is not None and here.st_size >= self._max_bytes
            too_old = self._max_age is not None and here.st_size > 0 and time.time() - self._began >= self._max_age
            if too_large or too_old:
                self._written = 0  # should it fail, it is not tried again with each line
                self._rotate()
        finally:
            self._lock.release()

    def _rotate(self) -> None:
        name = str(self.path)
        if self._keep == 0:
            os.unlink(name)
        else:
            # Only as far as there are any: others write into the old file meanwhile.
            free = 1
            while free < self._keep and os.path.lexists(f"{name}.{free}"):
                free += 1
            for number in range(free - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{name}.{number}", f"{name}.{number + 1}")
            os.replace(name, f"{name}.1")
        self._open()

    def close(self) -> None:
        """Close the file; later events are counted as faults."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
