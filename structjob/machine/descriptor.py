"""A file descriptor to which several threads, signal handlers and sinks write lines: each line is
there whole, or not at all.

`print` and a plain `os.write` do not see to that. On a pipe, lines above 4 KiB are torn as soon as
two threads write, and a descriptor that somebody made non-blocking (an event loop at the other end
of a terminal, a parent that is written in Node) takes a part of a line, or refuses it with EAGAIN.

Several *processes* that share a pipe are not coordinated, since no lock exists that forked
processes would not share: there, lines of up to ``PIPE_BUF`` bytes (4,096 on Linux) are whole. A
file that is opened for appending has no such limit.
"""

from __future__ import annotations

import errno
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
"""Seconds to wait for the reader of a non-blocking descriptor. Once it has taken nothing for so
long, lines are dropped until it reads on; a blocking one is waited for, as `print` does.
"""

_ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes whole or not at all."""

_write = os.write

# By device and inode: stdout and stderr are often the same pipe.
_known: WeakValueDictionary[tuple[int, int], Descriptor] = WeakValueDictionary()


class Descriptor:
    """Where lines go; `of` returns the one for a number.

    The lock is re-entrant, so that a signal handler or a ``__del__`` that logs while its own thread
    writes does not wait for itself. Its line is written right after the one that is under way.
    """

    __slots__ = ("__weakref__", "_counts", "_late", "_lock", "_rest", "_stuck", "_writing")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child: a thread that is not there may hold the lock, and the rest
        of a line is the parent's to write.
        """
        self._lock = threading.RLock()
        self._writing = False
        self._late: deque[bytes] = deque()
        """Lines that came while their own thread was writing."""
        self._rest = b""
        """What is still to be written of a line that was begun."""
        self._counts: deque[int] = deque()
        """How much of the rest was written, until it is taken off."""
        self._stuck = False

    @staticmethod
    def of(fd: int) -> Descriptor:
        """Return the one for descriptor *fd*: the same for all that lead to the same pipe or
        terminal.
        """
        info = os.fstat(fd)
        key = (info.st_dev, info.st_ino)
        return _known.get(key) or _known.setdefault(key, Descriptor())

    def write(self, fd: int, line: bytes, stream: Any = None) -> None:
        """Write *line*, after what the text *stream* over the same descriptor has kept back.

        Raises:
            BlockingIOError: if the descriptor is non-blocking and its reader takes nothing; nothing
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
                # None is left if a signal handler came in right before, which takes those before
                # its own along.
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
            except RuntimeError:  # a signal handler came while its own thread was in the stream
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
            # nothing of it is there: it must not come after the error
            if len(self._rest) == len(line):
                self._rest = b""
                written = -1
        if written < 0:
            self._give_up()

    def _finish(self, fd: int) -> None:
        """Write the rest of a line, as far as the reader takes it in time."""
        while self._rest:
            try:
                # By these two, the count is kept even if a signal handler raises right after the
                # write.
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
        """Return whether *fd* takes something again, after waiting for that once."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        self._stuck = not poll.poll(0 if self._stuck else STUCK_TIMEOUT * 1000)
        return not self._stuck

    def _give_up(self) -> NoReturn:
        raise BlockingIOError(
            errno.EAGAIN,
            f"the reader takes nothing for {STUCK_TIMEOUT:.0f} s: lines are dropped until it reads on",
        )


def takes_lines_whole(fd: int) -> bool:
    """Return whether each single write to *fd* is whole by itself: true of files and of
    ``/dev/null``.
    """
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(fd))


def _reset() -> None:
    for known in list(_known.values()):
        known.reset()


at_fork("output", in_child=_reset)
