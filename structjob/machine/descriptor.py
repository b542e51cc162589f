"""Write lines to a file descriptor from several threads, signal handlers and sinks.

Each line is written as a whole, or not at all.

`print` and a plain `os.write` do not guarantee this. On a pipe, lines above 4 KiB are split as soon
as two threads write. A non-blocking descriptor takes a part of a line, or refuses it with EAGAIN.
Descriptors become non-blocking through other programs: an event loop at the other end of a
terminal, or a parent process that is written in Node.

Several *processes* that share a pipe are not coordinated, because forked processes share no lock.
There, lines of up to ``PIPE_BUF`` bytes (4,096 on Linux) stay whole. A file that is opened for
appending has no such limit.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import threading
from collections import deque
from contextlib import suppress
from typing import Any, NoReturn
from weakref import WeakValueDictionary

from structjob.process import at_fork

STUCK_TIMEOUT = 5.0
"""Seconds to wait for the reader of a non-blocking descriptor. If it has read nothing for this
long, lines are dropped until it reads again. A blocking descriptor is waited for without limit,
as `print` does.
"""

_ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes as a whole or not at all."""

_write = os.write

# The keys are device and inode, because stdout and stderr are often the same pipe.
_known: WeakValueDictionary[tuple[int, int], Descriptor] = WeakValueDictionary()


class Descriptor:
    """The target of lines; `of` returns the one for a descriptor number.

    The lock is re-entrant. So a signal handler or a ``__del__`` that logs while its own thread is
    writing does not deadlock. Its line is written directly after the current one.
    """

    __slots__ = ("__weakref__", "_counts", "_late", "_lock", "_rest", "_stuck", "_writing")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset the state in a forked child.

        A thread that does not exist there may hold the lock, and the parent writes the rest of its
        line.
        """
        self._lock = threading.RLock()
        self._writing = False
        self._late: deque[bytes] = deque()
        """Lines that arrived while their own thread was writing."""
        self._rest = b""
        """The unwritten rest of a line that was begun."""
        self._counts: deque[int] = deque()
        """Number of written bytes, until they are removed from the rest."""
        self._stuck = False

    @staticmethod
    def of(fd: int) -> Descriptor:
        """Return the object for descriptor *fd*.

        Descriptors that lead to the same pipe or terminal share one object.
        """
        info = os.fstat(fd)
        key = (info.st_dev, info.st_ino)
        return _known.get(key) or _known.setdefault(key, Descriptor())

    def write(self, fd: int, line: bytes, stream: Any = None) -> None:
        """Write *line*, after the text that *stream* has buffered for the same descriptor.

        Raises:
            BlockingIOError: if the descriptor is non-blocking and its reader does not read; no part
                of the line is written.
            OSError: if the descriptor cannot be written to.
        """
        with self._lock:
            if self._writing:
                self._late.append(line)
                return
            self._writing = True
            try:
                if stream is not None:
                    self._flush(fd, stream)
                self._put(fd, line)
            finally:
                self._writing = False
                if self._late:
                    self._put_late(fd)

    def _put_late(self, fd: int) -> None:
        while self._late:
            self._writing = True
            try:
                # The queue is empty if a signal handler interrupted here: it writes the lines
                # before its own.
                with suppress(IndexError):
                    self._put(fd, self._late.popleft())
            finally:
                self._writing = False

    def _flush(self, fd: int, stream: Any) -> None:
        while True:
            try:
                stream.flush()
            except BlockingIOError:
                if not self._wait(fd):
                    self._give_up()
            except RuntimeError:  # a signal handler interrupted its own thread inside the stream
                return
            else:
                return

    def _put(self, fd: int, line: bytes) -> None:
        if self._rest:
            self._finish(fd)
            if self._rest:
                self._give_up()
        if len(line) <= _ATOMIC:
            try:
                written = _write(fd, line)
            except BlockingIOError:
                written = 0
            if written == len(line):
                self._stuck = False
                return
            self._rest = line[written:]
        else:
            written = 0
            self._rest = line
        try:
            self._finish(fd)
        finally:
            # nothing of the line was written, and it must not appear after the error
            if len(self._rest) == len(line):
                self._rest = b""
                written = -1
        if written < 0:
            self._give_up()

    def _finish(self, fd: int) -> None:
        """Write the rest of a line, unless the reader does not read within the timeout."""
        while self._rest:
            try:
                # `extend` and `map` record the count even if a signal handler raises directly after
                # the write.
                self._counts.extend(map(_write, (fd,), (self._rest,)))
            except BlockingIOError:
                if not self._wait(fd):
                    return
            finally:
                if self._counts:
                    self._rest = self._rest[self._counts[0] :]
                    self._counts.clear()
        self._stuck = False

    def _wait(self, fd: int) -> bool:
        """Wait once until *fd* is writable, and return whether it is."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        self._stuck = not poll.poll(0 if self._stuck else STUCK_TIMEOUT * 1000)
        return not self._stuck

    def _give_up(self) -> NoReturn:
        raise BlockingIOError(
            errno.EAGAIN,
            f"the reader takes nothing for {STUCK_TIMEOUT:.0f} s: lines are dropped until it reads on",
        )


def descriptor_of(stream: Any) -> int:
    """Return the descriptor of *stream*, or -1 if it has no descriptor, such as a buffer in a
    test.
    """
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError, TypeError):
        return -1


def written_descriptor(stream: Any) -> int:
    """Return the descriptor to which *stream* only writes what it gets, or -1 if it may do more.

    A class of another library, such as a notebook's, or one that copies its text to a file, may
    name the descriptor of the stream that it has replaced.
    """
    return descriptor_of(stream) if getattr(type(stream), "write", None) in _WRITES else -1


_WRITES = (
    io.TextIOWrapper.write,
    io.BufferedWriter.write,
    io.BufferedRandom.write,
    io.FileIO.write,
)


def takes_lines_whole(fd: int) -> bool:
    """Return whether each single write to *fd* is whole without a lock.

    This is true of files and of ``/dev/null``.
    """
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(fd))


def _reset() -> None:
    for known in list(_known.values()):
        known.reset()


at_fork("output", in_child=_reset)
