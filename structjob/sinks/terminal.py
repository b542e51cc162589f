"""A shared terminal: rows at the bottom, and logged or printed text above them.

Written text is collected, and reaches the terminal at most ten times a second, in its original
order. The cursor rests where text continues, and the rows are below it. What is typed, and what
other code writes directly, appears at the cursor, and no row is drawn into it. `Terminal.close` and
the exit of the interpreter restore the terminal. A process that dies immediately (by SIGKILL,
``os._exit``, or a signal without a handler) loses the text of the last frame.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import IO, Any

from structjob.diagnostics import diagnostics
from structjob.machine.descriptor import Descriptor, descriptor_of, written_descriptor
from structjob.process import at_fork, on_reset
from structjob.sinks.console import stand_ins
from structjob.text.wording import count_of

FRAME = 0.1
"""Minimum seconds between two frames."""

_LEFT_FREE = 3
"""Lines of the screen that are reserved for logged text."""

_CHUNKS_LIMIT = 10_000
"""Maximum number of texts that wait for a terminal that accepts none. A thread that writes more
then waits for the terminal, as it would without this library. If the terminal is non-blocking, the
texts are dropped with a warning.
"""

_WAIT = 1.0
"""Maximum seconds to wait for another thread that is drawing."""

_open: list[Terminal] = []


def is_terminal(stream: Any) -> bool:
    """Return whether rows can be shown on *stream*: a terminal that can move its cursor."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def share(stream: IO[str]) -> Terminal:
    """Return the terminal of *stream*; reuse an open one if it is the same terminal.

    Each call needs a `Terminal.close`.
    """
    true = stream.stream if isinstance(stream, StandIn) else stream
    for terminal in _open:
        if terminal.shows(true):
            terminal.users += 1
            return terminal
    return Terminal(true)


class Terminal:
    """Rows at the bottom of a terminal; created by `share`.

    Args:
        stream: A stream of the terminal.

    Attributes:
        users: Number of callers that share it.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.users = 1
        self._stream = stream
        self._fd = descriptor_of(stream)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._chunks: deque[str] = deque()
        self._rows: dict[object, Sequence[str]] = {}
        self._drawn: list[str] = []
        self._dirty = False
        self._last = 0.0
        self._drawing = threading.Lock()
        self._drawer = 0
        self.closed = threading.Event()
        self._stand_ins: list[StandIn] = []
        self._replaced: dict[str, StandIn] = {}
        self._handlers: list[tuple[logging.StreamHandler[Any], StandIn]] = []
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        self._redirect()
        _open.append(self)
        atexit.register(self.leave)
        threading.Thread(target=self._keep_flushing, name="structjob-terminal", daemon=True).start()

    @property
    def unicode(self) -> bool:
        """Whether it can show more than ASCII."""
        try:
            "━─×…".encode(self._encoding)
        except (UnicodeError, LookupError):
            return False
        return True

    def encodable(self, text: str) -> str:
        """Return *text* with escapes for characters that the terminal's encoding lacks."""
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding)

    @property
    def size(self) -> os.terminal_size:
        """The size in columns and lines.

        ``$COLUMNS`` and ``$LINES`` take precedence over the terminal's own values.
        """
        columns, lines = (
            int(value) if (value := os.environ.get(name, "")).isdecimal() else 0
            for name in ("COLUMNS", "LINES")
        )
        if columns < 1 or lines < 1:
            try:
                own = os.get_terminal_size(self._fd)
            except OSError:
                own = os.terminal_size((80, 24))
            columns, lines = columns or own.columns or 80, lines or own.lines or 24
        return os.terminal_size((columns, lines))

    @property
    def room(self) -> int:
        """Maximum number of rows that fit."""
        return max(self.size.lines - _LEFT_FREE, 1)

    def shows(self, stream: Any) -> bool:
        """Return whether *stream* is a stream of this terminal."""
        try:
            if stream is self._stream:
                return True
            if not stream.isatty():
                return False
            mine, other = self._fd, descriptor_of(stream)
            return mine < 0 or other < 0 or os.fstat(mine).st_rdev == os.fstat(other).st_rdev
        except (AttributeError, OSError, ValueError):
            return False

    def show(self, owner: object, rows: Sequence[str]) -> None:
        """Replace the rows of *owner* by *rows*, and show collected text above them.

        No row may be wider than the terminal.
        """
        self._rows[owner] = rows
        self.frame()

    def close(self, owner: object) -> None:
        """Remove the rows of *owner*.

        The last user restores the terminal. Never raises `OSError`.
        """
        self.users -= 1
        self._rows.pop(owner, None)
        if self.users <= 0:
            self.leave()
        else:
            self.frame()

    # -- text
    # --------------------------------------------------------------------------

    def take(self, text: str) -> None:
        """Show *text* with the next frame.

        Called in any thread, also in a signal handler, which may interrupt it at any point.
        """
        self._chunks.append(text)
        if self.closed.is_set():  # it was closed after the caller's check
            self._write_rest()
        elif time.monotonic() - self._last >= FRAME:
            self.frame()
        elif len(self._chunks) > _CHUNKS_LIMIT:
            self.frame(wait=True)

    def make_way(self) -> None:
        """Clear the lines below the cursor, because other code is about to write there."""
        if self._drawn or self._chunks:
            self.frame(wait=True, erase=True)

    def frame(self, *, wait: bool = False, erase: bool = False) -> None:
        """Write the collected text, and draw the rows that changed.

        Args:
            wait: Wait for another thread that is drawing. Otherwise text collected meanwhile is
                left to the next frame. Default: False.
            erase: Draw no rows. Default: False.
        """
        if self._drawer == threading.get_ident():
            return  # a signal handler that interrupted this method
        # Not without limit: a signal handler may have interrupted this thread directly after it got
        # the lock.
        if not self._drawing.acquire(timeout=_WAIT if wait else 0):
            return
        self._drawer = threading.get_ident()
        fault: Exception | None = None
        dropped = 0
        try:
            if not self.closed.is_set():
                self._draw(erase)
        except BlockingIOError:  # it is non-blocking and accepts nothing at the moment
            self._last = time.monotonic()
            if len(self._chunks) > _CHUNKS_LIMIT:
                dropped = len(self._collected())
        except (OSError, ValueError) as exc:  # it is disconnected or closed
            fault = exc
            self.closed.set()
        finally:
            self._drawer = 0
            self._drawing.release()
        if fault is not None:
            self._restore()
            diagnostics.warning("progress bars are switched off after an error: %r", fault)
        if dropped:
            diagnostics.warning(
                "the terminal takes nothing: %s of console output dropped",
                count_of(dropped, "character", "was", "were"),
            )

    def _draw(self, erase: bool) -> None:
        text = ""
        try:
            text = self._collected()
            rows = (
                []
                if erase
                else [row for rows in list(self._rows.values()) for row in rows][: self.room]
            )
            if rows == self._drawn and not self._dirty:
                if not text:
                    return
                # a prompt, or one dot of a progress line: it is above the rows, unless it is long
                if "\n" not in text:
                    self._write(text)
                    self._dirty = True
                    return
            parts = ["\x1b[J" if self._drawn else "", text]
            if rows:
                # Make room first, which may scroll the screen; then save the cursor position.
                parts += [
                    "\x1bD" * len(rows),
                    f"\x1b[{len(rows)}A\x1b7",
                    *(f"\r\n{row}" for row in rows),
                    "\x1b8",
                ]
            self._write("".join(parts))
            self._drawn, self._dirty = rows, False
        # including Ctrl-C, which may come at any point: the text must not be lost
        except BaseException:
            self._chunks.appendleft(text)
            raise

    def _collected(self) -> str:
        parts: list[str] = []
        try:
            while self._chunks:
                parts.append(self._chunks.popleft())
        except BaseException:
            self._chunks.extendleft(reversed(parts))
            raise
        return "".join(parts)

    def _write(self, text: str) -> None:
        if written_descriptor(self._stream) < 0:
            self._stream.write(self.encodable(text))
            self._stream.flush()
        else:
            Descriptor.of(self._fd).write(self._fd, text.encode(self._encoding, "backslashreplace"))
        self._last = time.monotonic()

    def _keep_flushing(self) -> None:
        """Show text that was written before the event loop was blocked.

        Rows are drawn by the loop, which does not wait for threads.
        """
        while not self.closed.wait(2 * FRAME):
            if self._chunks and time.monotonic() - self._last >= FRAME:
                self.frame()

    # -- streams
    # --------------------------------------------------------------------------

    def _redirect(self) -> None:
        for name in ("stdout", "stderr"):
            if self.shows(stream := getattr(sys, name)):
                self._replaced[name] = self._stand_in(stream)
                setattr(sys, name, self._replaced[name])
        if not any(each.stream is self._stream for each in self._stand_ins):
            self._stand_in(self._stream)
        by_stream = {id(each.stream): each for each in self._stand_ins}
        for handler in [reference() for reference in getattr(logging, "_handlerList", ())]:
            if (
                isinstance(handler, logging.StreamHandler)
                and (stand_in := by_stream.get(id(handler.stream))) is not None
            ):
                # Not with `setStream`, which takes the handler's lock: another thread may hold it
                # and wait for this one.
                handler.stream = stand_in
                self._handlers.append((handler, stand_in))

    def _stand_in(self, stream: Any) -> StandIn:
        stand_in = next((each for each in self._stand_ins if each.stream is stream), None)
        if stand_in is None:
            stand_in = StandIn(self, stream)
            self._stand_ins.append(stand_in)
            for each in (stand_in, stream, getattr(stream, "buffer", stream)):
                stand_ins[id(each)] = stand_in
        return stand_in

    def _restore(self) -> None:
        """Let all code write to the original streams.

        A stand-in that other code has kept passes its text on.
        """
        self.closed.set()
        if self in _open:
            _open.remove(self)
        atexit.unregister(self.leave)
        for key in [key for key, stand_in in stand_ins.items() if stand_in in self._stand_ins]:
            del stand_ins[key]
        for name, stand_in in self._replaced.items():
            if getattr(sys, name) is stand_in:
                setattr(sys, name, stand_in.stream)
        for handler, stand_in in self._handlers:
            if handler.stream is stand_in:
                handler.stream = stand_in.stream

    def leave(self) -> None:
        if self.closed.is_set():
            return
        for stand_in in self._stand_ins:
            stand_in.hand_over()
        self._rows.clear()
        self.frame(wait=True, erase=True)
        self._restore()
        self._write_rest()

    def _write_rest(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if text := self._collected():
                self._write(text)

    def forget(self) -> None:
        """Pass text on directly in a forked child.

        The rows and the collected text belong to the parent.
        """
        self.closed.set()
        self._chunks.clear()
        for stand_in in self._stand_ins:
            stand_in.forget()


class StandIn(io.TextIOBase):
    """A stand-in for a stream of a shared terminal.

    Like the stream of a terminal, it keeps a line until it is complete or flushed.

    Args:
        terminal: The terminal that gets the lines.
        stream: The stream that it replaces.
    """

    def __init__(self, terminal: Terminal, stream: Any) -> None:
        self.stream = stream
        self._terminal = terminal
        self._parts: deque[str] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        return getattr(self.stream, "encoding", None)

    @property
    def errors(self) -> Any:  # type: ignore[override]
        return getattr(self.stream, "errors", None)

    @property
    def buffer(self) -> Any:
        """The stream's own buffer; earlier text is written first."""
        self._show()
        return self.stream.buffer

    def fileno(self) -> int:
        self._show()
        return int(self.stream.fileno())

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._terminal.closed.is_set():
            return int(self.stream.write(text))
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        whole = "\n" in text or "\r" in text
        if whole and not self._parts:
            self._terminal.take(text)
            return len(text)
        self._parts.append(text)
        if whole:
            self.hand_over()
        elif getattr(self.stream, "write_through", False):
            self._show()
        return len(text)

    def flush(self) -> None:
        if self._terminal.closed.is_set():
            self.stream.flush()
        elif not self.hand_over().endswith("\n"):
            self._terminal.frame(wait=True)

    def hand_over(self) -> str:
        """Pass the kept text to the terminal, and return its last part."""
        text = "\n"
        while self._parts:
            try:
                text = self._parts.popleft()
            except IndexError:  # another thread was faster
                break
            self._terminal.take(text)
        return text

    def make_way(self) -> None:
        """Clear the lines below the cursor, because other code is about to write there."""
        self.hand_over()
        self._terminal.make_way()

    def forget(self) -> None:
        """Drop the kept text."""
        self._parts.clear()

    def close(self) -> None:
        self._show()

    def _show(self) -> None:
        if not self._terminal.closed.is_set():
            self.hand_over()
            self._terminal.frame(wait=True)


def _forget_all() -> None:
    for terminal in _open:
        terminal.forget()
    _open.clear()
    stand_ins.clear()


def _restore_all() -> None:
    for terminal in _open:
        terminal.leave()


at_fork("terminals", in_child=_forget_all)
on_reset(_restore_all)
