"""The console: any stream that shows events as lines for people or as lines of JSON."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import IO, Any, Literal

from structjob.exceptions import InvalidArgument
from structjob.levels import Level, level_name
from structjob.machine.descriptor import (
    Descriptor,
    descriptor_of,
    takes_lines_whole,
    written_descriptor,
)
from structjob.sinks.marks import MARKS
from structjob.sinks.sink import Guarded, SinkEvent, logs_nothing

_write = os.write

Console = Literal["auto", "pretty", "json"]
"""The format in which a console shows events."""

stand_ins: dict[int, Any] = {}
"""The stand-ins of streams while their terminal is shared, by the ids of the streams.

See `structjob.sinks.terminal`.
"""


_MEASURE_EVERY = 0.5
"""Seconds during which the width of a terminal is not read again. Reading it takes a fifth of the
time of a line.
"""


@logs_nothing
class ConsoleSink:
    """Shows events on a stream: pretty on a terminal, as lines of JSON otherwise.

    Args:
        stream: Text or binary stream; default: the current ``sys.stdout`` at each event.
        format: ``pretty``, ``json``, or ``auto`` (the default): pretty if the stream is a terminal.
        level: Lowest level shown, default ``debug``.
        color: Whether to use colors. ``None`` (the default): on a terminal, unless ``NO_COLOR`` is
            set, or if ``FORCE_COLOR`` is set.
        utc: Show times in UTC instead of local time (pretty only). Default: False.
    """

    # What `_put` reads. Python reads an attribute slowly once `vars` was called for its object, as
    # `writer_of` does.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_descriptor",
        "_fd",
        "_known",
        "_stream",
    )

    def __init__(
        self,
        stream: IO[Any] | None = None,
        *,
        format: Console = "auto",
        level: Level | int = "debug",
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
            color = bool(os.environ.get("FORCE_COLOR")) or (
                terminal and not os.environ.get("NO_COLOR")
            )
        self._color = color
        self._lines: Any = None
        self._columns, self._measure_at = 80, 0.0
        self._known: Any = self
        self._write_through = Guarded(_write_through)
        self._fd = -1
        self._descriptor: Descriptor | None = None
        """Keeps lines whole on a pipe or a terminal; a file needs no help."""

    @property
    def place(self) -> tuple[int, int] | None:
        """The file or device that it writes to at present, see `place_of`."""
        return place_of(self._stream if self._stream is not None else sys.stdout)

    def emit(self, event: SinkEvent) -> None:
        """Show *event*."""
        self._put(self._render(event) if self.pretty else event.line)

    @property
    def write(self) -> Callable[[bytes], None] | None:
        """The function that writes one line of JSON.

        It is ``None`` if events are shown in another form.
        """
        return None if self.pretty else self._put

    def _put(self, line: bytes) -> None:
        """Write one line immediately."""
        stream = self._stream if self._stream is not None else sys.stdout
        if MARKS is not None:
            line = MARKS.on(line, stream)
        if stand_ins and (stand_in := stand_ins.get(id(stream))) is not None:
            stand_in.write(line.decode())
            return
        if stream is not self._known:
            self._learn(stream)
        if self._fd < 0:
            # it may log what is written to it, as Celery's stdout does
            self._write_through(stream, line)
            return
        if self._descriptor is not None:
            self._descriptor.write(self._fd, line, stream)
            return
        # This bypasses the stream's buffer, which refuses a signal handler that interrupts a write
        # of its own thread. The text that print() left in the buffer is written first.
        try:  # noqa: SIM105 -- `suppress` costs as much as the write
            stream.flush()
        except RuntimeError:
            pass
        try:
            written = _write(self._fd, line)
        except BlockingIOError:
            written = 0
        # the disk is full: from now on the rest of a line is kept until there is space
        if written != len(line):
            self._descriptor = Descriptor.of(self._fd)
            self._descriptor.write(self._fd, line[written:])

    def _learn(self, stream: Any) -> None:
        """Determine how to write to *stream*, which is a new stream."""
        self._fd = written_descriptor(stream)
        self._descriptor = (
            None if self._fd < 0 or takes_lines_whole(self._fd) else Descriptor.of(self._fd)
        )
        self._known = stream

    def _render(self, event: SinkEvent) -> bytes:
        if self._lines is None:
            from structjob.text.rendering import Lines

            stream = self._stream if self._stream is not None else sys.stdout
            self._lines = Lines(
                color=self._color,
                utc=self._utc,
                clock_only=True,
                unicode=_is_unicode(stream),
                width=self._width if _is_terminal(stream) else None,
            )
        return f"{self._lines.render(event)}\n".encode("utf-8", "backslashreplace")

    def _width(self) -> int:
        now = time.monotonic()
        if now >= self._measure_at:
            self._measure_at, self._columns = (
                now + _MEASURE_EVERY,
                shutil.get_terminal_size().columns,
            )
        return self._columns


def place_of(stream: Any) -> tuple[int, int] | None:
    """Return device and inode, which are equal for streams to the same terminal, file or pipe.

    Return None if the stream has no descriptor.
    """
    try:
        info = os.fstat(descriptor_of(stream))
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _write_through(stream: Any, line: bytes) -> None:
    if stream is None:  # a process without a console
        return
    if isinstance(stream, io.TextIOBase) or not isinstance(
        stream, (io.RawIOBase, io.BufferedIOBase)
    ):
        text = line.decode()
        try:
            stream.write(text)
        except UnicodeEncodeError as exc:
            # the error of some codecs does not name them
            encoding = getattr(stream, "encoding", None) or exc.encoding
            stream.write(text.encode(encoding, _ESCAPES).decode(encoding))
    else:
        stream.write(line)
    if hasattr(stream, "flush"):  # an object that only writes serves `print`, too
        stream.flush()


_ESCAPES = "structjob.escapes"
r"""Handles characters that an encoding lacks: escapes such as ``\u00e9``, which JSON knows."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 -- used only for encoding
    units = error.object[error.start : error.end].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), error.end


codecs.register_error(_ESCAPES, _escape)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _is_unicode(stream: Any) -> bool:
    """Return whether *stream* can show more than ASCII.

    A stream that takes bytes, or has no encoding, gets UTF-8.
    """
    encoding = getattr(stream, "encoding", None)
    return encoding is None or str(encoding).lower().replace("-", "").startswith("utf")
