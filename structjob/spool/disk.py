"""The crash-safe queue on disk.

A session (one running process) writes into two queues, ``events`` and ``states``. A queue on disk
is a sequence of segment files of JSON lines. One record is one ``write()`` to a file opened with
``O_APPEND``. It survives ``kill -9`` when the call returns, and needs no lock, so that a signal
handler, ``__del__`` or another thread may interrupt at any point.

The lines are passed to the database unchanged: reading a batch is one ``pread`` up to the last
newline. Nothing is parsed, except in the queues of dead processes, whose checksums are verified
first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from structjob.machine.files import (
    close_apart,
    is_open,
    open_directly,
    replace_descriptor,
    set_apart,
)
from structjob.spool.dropped import Dropped, ranges
from structjob.spool.line import number_of, owner_of, rescue, verify_line
from structjob.spool.queue import BLOCK_POLL, Batch, Overflow, may_block
from structjob.spool.tally import Tally

SEGMENT_BYTES = 4 * 1024 * 1024
"""Size at which a queue continues in a new file, so that delivered files can be deleted.

Deleting one takes half a millisecond, on the loop.
"""

DELETE_AFTER = 2.0
"""Seconds after a rotation before the old segment may be deleted. A ``write()`` that began before
the rotation may reach it late.
"""

_FULL = "spool_full"
_SEGMENT = re.compile(r"(events|states)-(\d{6,})\.jsonl")
_CLEARED = 1024 * 1024
"""Number of bytes that are cleared at once."""
_LONGEST = 64 * 1024 * 1024

_SHORTEST = 64
"""Minimum size of a record in bytes."""

_THREADS = 64
"""Number of last lines of a batch that are searched for its greatest number."""


@dataclass(slots=True, eq=False)
class _Segment:
    """One file of a queue: how far it is read and stored.

    ``retired`` is when the queue continued in the next file (monotonic seconds; 0: not yet).
    """

    number: int
    read: int = 0
    acked: int = 0
    retired: float = 0.0
    confirmed: int = 0
    done: dict[int, int] = field(default_factory=dict)

    def ack(self, start: int, end: int) -> None:
        """Record that the bytes from *start* to *end* are stored.

        Two writers may finish in any order.
        """
        self.done[start] = end
        while self.acked in self.done:
            self.acked = self.done.pop(self.acked)


def _first_lines(chunk: bytes, most: int) -> tuple[int, int]:
    """Return where the first *most* lines of *chunk* end, and their number.

    The lines are not copied, because this runs on the loop.
    """
    end = count = 0
    while count < most and (found := chunk.find(b"\n", end) + 1):
        end, count = found, count + 1
    return end, count


def _last_number(lines: bytes) -> int:
    """Return approximately the greatest number in *lines*.

    Lines are out of order by at most the number of threads that wrote concurrently.
    """
    return max(map(number_of, lines.rstrip(b"\n").rsplit(b"\n", _THREADS)))


class DiskQueue:
    """A queue on disk.

    Args:
        directory: The session's directory.
        name: ``events`` or ``states``.
        writable: Whether this process writes it. If not, the queue belongs to another process and
            its checksums are verified.
        segment_bytes: Size of a segment in bytes at which the next one begins.
        max_bytes: Maximum number of bytes that may wait; ``None`` means no limit.
        overflow: What happens beyond that.
        shared: Whether another process delivers what this one writes. That process deletes what it
            has delivered, and what it currently holds is unknown here. Therefore the newest events
            are dropped instead of the oldest.
        tally: The session's tally, for the queue of its events.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        writable: bool,
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int | None = None,
        overflow: Overflow = "drop_oldest",
        shared: bool = False,
        tally: Tally | None = None,
    ) -> None:
        self.dropped: deque[Dropped] = deque()
        self.closed = False
        self.room_comes = may_block
        self.damaged = 0
        """Number of lines omitted because their checksum was wrong."""
        self.damaged_most = 0
        """Maximum number of records that these lines can have been.

        If newlines were damaged too, one line was several records.
        """
        self.last_seen = 0
        """Greatest number of the damaged lines, as far as it is known."""
        self.final = False
        """Whether no process writes any more: then the end of the file is the end of its last
        line.
        """
        self._directory = directory
        self._name = name
        self._writable = writable
        self.overflow: Overflow = (
            "drop_newest" if shared and overflow == "drop_oldest" else overflow
        )
        self._shared = shared
        self._tally = tally
        self._max_bytes = max_bytes
        self._segment_bytes = (
            segment_bytes if max_bytes is None else max(min(segment_bytes, max_bytes // 8), 4096)
        )
        self._check_bytes = (
            self._segment_bytes
            if max_bytes is None
            else min(self._segment_bytes, max(max_bytes // 64, 1024))
        )
        self._lock = threading.Lock()
        self._segments: dict[int, _Segment] = {}
        self._reader: tuple[int, int] | None = None
        self._full = False
        self._torn = False
        self._greatest = 0
        # Concurrent additions of threads may be lost; this is accurate enough to decide when to
        # check the file.
        self._since_check = 0
        self._fd = -1
        if writable:
            self._segments[1] = _Segment(1)
            self._fd = set_apart(self._create(1))

    # -- writing
    # --------------------------------------------------------------------------

    def append(self, line: bytes, number: int) -> None:
        if self._full and not self._admit(line, number):
            return
        written = os.write(self._fd, line)
        if written != len(line):
            # A full disk took only a part of the line. The rest must not follow, because another
            # record may already be in between.
            self._end_fragment()
            if written < len(line) - 1:  # otherwise only the newline is missing
                raise OSError(errno.ENOSPC, "the disk accepted only a part of a record")
        self._since_check += written
        if self._since_check > self._check_bytes:
            self.check_space()

    def append_all(self, lines: list[bytes]) -> int:
        if self._full:
            return 0
        text = b"".join(lines)
        try:
            written = os.write(self._fd, text)
        except OSError:
            return 0
        taken = len(lines)
        if written != len(text):
            taken = text.count(b"\n", 0, written)
            if text[written - 1 : written] != b"\n":
                self._end_fragment()
                taken += text[written : written + 1] == b"\n"  # only the newline is missing
        self._since_check += written
        if self._since_check > self._check_bytes:
            self.check_space()
        return taken

    def _end_fragment(self) -> None:
        """End a part of a line with a newline, so that its checksum exposes it.

        The caller keeps the line elsewhere, unless it is whole without its newline.
        """
        with contextlib.suppress(OSError):
            os.write(self._fd, b"\n")
        self._torn = True

    def _admit(self, line: bytes, number: int) -> bool:
        """Return whether the queue takes the record although it is full.

        This is for the policies that do not drop the oldest events.
        """
        if self.overflow == "block" and self.room_comes():
            while self._full and not self.closed and self.room_comes():
                time.sleep(BLOCK_POLL)
                self.check_space()
            return True
        if self._shared:
            # no batch is acknowledged in this process: only the disk shows what was deleted
            self.check_space()
            if not self._full:
                return True
        self.dropped.append(Dropped(number, number, _FULL, owner_of(line)[1]))
        self._risk(number)
        return False

    def check_space(self) -> None:
        """Begin a new segment if the current one is long enough, and enforce the limit.

        This is cheap and may be called from anywhere.
        """
        # Never wait for the lock: a signal handler may have interrupted its own thread, which holds
        # it.
        if self._fd < 0 or not self._lock.acquire(blocking=False):
            return
        try:
            self._since_check = 0
            last = max(self._segments)
            if os.fstat(self._fd).st_size >= self._segment_bytes:
                self._rotate(last)
            if self._max_bytes is not None:
                while (
                    over := self._backlog() > self._max_bytes
                ) and self.overflow == "drop_oldest":
                    if not self._drop_oldest():
                        break
                self._full = over and self.overflow != "drop_oldest"
        except OSError:
            # There is no space or no descriptor for another segment. The record that caused this
            # check is written, so its caller must not get an error and write it again. The current
            # segment grows until the next attempt.
            pass
        finally:
            self._lock.release()

    def _rotate(self, last: int) -> None:
        fresh = self._create(last + 1)
        try:
            # Registered before any thread can write to it: the next call of `position` must find
            # it.
            self._segments[last + 1] = _Segment(last + 1)
            # The descriptor keeps its number. A thread that is about to write then writes to one of
            # the two files, and never to another file that got the number meanwhile.
            os.dup2(fresh, self._fd, inheritable=False)
        except OSError:
            self._delete(self._segments[last + 1])
            raise
        finally:
            os.close(fresh)
        self._segments[last].retired = time.monotonic()

    def _drop_oldest(self) -> bool:
        """Drop the oldest segment that no thread writes and that no pending batch comes from."""
        for segment in sorted(self._segments.values(), key=lambda segment: segment.number):
            if (
                segment.retired
                and time.monotonic() - segment.retired >= 0.05
                and segment.read == segment.acked
                and not segment.done
            ):
                # Record the risk and delete the file first: if the process ends in between, the
                # numbers are missing, instead of both dropped and delivered.
                left = b""
                with contextlib.suppress(FileNotFoundError):
                    left = self._path(segment.number).read_bytes()[segment.acked :]
                self._risk(_last_number(left))
                self._delete(segment)
                self._drop(left, _FULL)
                return True
        return False

    def _drop(self, lines: bytes, reason: str) -> int:
        """Record that *lines* were dropped, and their jobs; return the number of lines."""
        owners: dict[str | None, list[int]] = {}
        for line in lines.split(b"\n"):
            # where a newline is missing, a line is several records
            for number, job_id in map(owner_of, rescue(line) if self._torn else [line]):
                if not number:
                    continue
                owners.setdefault(job_id, []).append(number)
        for job_id, numbers in owners.items():
            self.dropped.extend(
                Dropped(first, last, reason, job_id) for first, last in ranges(numbers)
            )
            self._risk(max(numbers))
        return sum(map(len, owners.values()))

    def _risk(self, number: int) -> None:
        """Record that events up to *number* were dropped, and that only memory knows this.

        This is so until `Recorder.account` has written it.
        """
        if self._tally is not None:
            self._tally.risk(number)

    def _delete(self, segment: _Segment) -> None:
        if self._tally is not None and segment.confirmed:
            confirmed, segment.confirmed = segment.confirmed, 0
            self._tally.confirm(confirmed, segment.number)
        self._path(segment.number).unlink(missing_ok=True)
        if self._reader is not None and self._reader[0] == segment.number:
            self._close_reader()
        del self._segments[segment.number]

    def sync(self) -> None:
        # Sync the earlier segments too, then their directory, and the current segment last. If it
        # is rotated meanwhile, the former one is in the list.
        for path in [*map(self._path, sorted(self._segments)), self._directory]:
            with contextlib.suppress(FileNotFoundError):  # stored and deleted
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        if self._fd >= 0:
            os.fsync(self._fd)

    # -- reading
    # --------------------------------------------------------------------------

    def read(self, limit: int, most: int) -> Batch | None:
        with self._lock:
            if not self._writable:
                self._find_segments()
            # Start from the oldest segment each time: a record may have reached an earlier segment
            # late.
            for segment in sorted(self._segments.values(), key=lambda segment: segment.number):
                chunk, count = self._chunk(segment, limit, most)
                if chunk:
                    start, segment.read = segment.read, segment.read + len(chunk)
                    if not self._writable:
                        chunk = self._verified(chunk)
                        count = chunk.count(b"\n")
                    elif chunk[-1:] != b"\n":
                        chunk, count = chunk + b"\n", 1
                    return Batch(chunk, count, self, segment.number, start, segment.read)
        return None

    def _chunk(self, segment: _Segment, limit: int, most: int) -> tuple[bytes, int]:
        """Return whole lines of *segment* from the current read position, and their number."""
        try:
            fd = self._open(segment.number)
        except FileNotFoundError:
            return b"", 0
        size = limit
        while True:
            chunk = os.pread(fd, size, segment.read)
            end, count = _first_lines(chunk, most if size == limit else 1)
            if count:
                return chunk[:end], count
            if len(chunk) < size:
                return chunk if self.final or self._ends_whole(chunk) else b"", 0
            if size >= _LONGEST and not self._writable:
                return chunk, 0  # no record is this long: it is damage, and memory is limited
            size *= 2  # a single line is longer than the limit

    def _ends_whole(self, tail: bytes) -> bool:
        """Return whether *tail* ends in a record of which the disk took all but the newline.

        What is still being written is left alone.
        """
        return self._torn and any(tail.endswith(record[:-1]) for record in rescue(tail))

    def _verified(self, chunk: bytes) -> bytes:
        """Return the lines of *chunk* that are complete and unchanged."""
        lines = chunk.split(b"\n")
        if not lines[-1] and all(map(verify_line, lines[:-1])):
            # The usual case. Lines are out of order by at most the number of threads that wrote
            # concurrently.
            self._greatest = max([self._greatest, *map(number_of, lines[-_THREADS:])])
            return chunk
        good: list[bytes] = []
        for line in lines:
            if verify_line(line):
                found = [line + b"\n"]
            elif line:
                self.damaged += 1
                self.damaged_most += len(line) // _SHORTEST + 1
                found = rescue(line)
                if not found:
                    self.last_seen = max(
                        self.last_seen, self._greatest + 1, self._believed(number_of(line))
                    )
            else:
                continue
            good += found
            self._greatest = max([self._greatest, *map(number_of, found)])
        return b"".join(good)

    def _believed(self, number: int) -> int:
        """Return the *number* of a damaged line if it is plausible, otherwise 0.

        Without gaps, it cannot be far from the greatest number so far, unless the number itself is
        damaged.
        """
        return number if number <= self._greatest + self.damaged else 0

    def ack(self, batch: Batch, confirmed: int = 0) -> None:
        with self._lock:
            segment = self._segments.get(batch.segment)
            if segment is None:
                return
            segment.ack(batch.start, batch.end)
            segment.confirmed += confirmed
            with contextlib.suppress(OSError):  # it is tried again with the next batch
                self._delete_stored()
        if self._full:
            self.check_space()

    def clear(self, reason: str) -> int:
        with self._lock:  # another thread may begin a segment
            cleared, left = 0, self._backlog()
        while left > 0 and (batch := self.read(_CLEARED, sys.maxsize)) is not None:
            # Clear the file first: if the process ends in between, the numbers are missing, instead
            # of both dropped and delivered.
            self._risk(_last_number(batch.lines))
            with (
                contextlib.suppress(OSError),
                open(self._path(batch.segment), "r+b", buffering=0) as file,
            ):
                os.pwrite(file.fileno(), b"\n" * (batch.end - batch.start), batch.start)
            cleared += self._drop(batch.lines, reason)
            self.ack(batch)
            left -= batch.end - batch.start
        return cleared

    def _delete_stored(self) -> None:
        """Delete one segment that is stored completely.

        One at a time is enough, because one segment takes many batches.
        """
        for segment in list(self._segments.values()):
            old = segment.retired and time.monotonic() - segment.retired >= DELETE_AFTER
            if old and segment.acked and segment.acked == self._size(segment.number):
                # if the deletion fails, its lines are still stored only once
                self._delete(segment)
                break

    def position(self) -> dict[int, int]:
        if not self._writable:
            self._find_segments()
        return {number: self._size(number) for number in list(self._segments)}

    def reached(self, position: dict[int, int]) -> bool:
        return all(
            self._reached(self._segments.get(number), size) for number, size in position.items()
        )

    def _reached(self, segment: _Segment | None, size: int) -> bool:
        if segment is None or segment.acked >= size:
            return True
        if not self._torn:
            return False
        # The disk took a part of a line, without its newline. There is nothing to wait for unless
        # it contains a whole record: the caller kept the line elsewhere.
        with contextlib.suppress(OSError), open(self._path(segment.number), "rb") as file:
            file.seek(segment.acked)
            rest = file.read(size - segment.acked)
            return b"\n" not in rest and not rescue(rest)
        return False

    def done(self) -> bool:
        """Return whether everything in the queue is stored."""
        with self._lock:
            self._find_segments()
            return all(
                segment.acked >= self._size(segment.number) for segment in self._segments.values()
            )

    def filled(self) -> float:
        if self._max_bytes is None:
            return 0.0
        with self._lock:
            return self._backlog() / self._max_bytes

    def _backlog(self) -> int:
        sizes = {number: self._size(number) for number in self._segments}
        if self._shared:
            last = max(sizes)
            for number in [number for number, size in sizes.items() if not size and number < last]:
                del self._segments[number], sizes[number]
        return sum(size - self._segments[number].acked for number, size in sizes.items())

    # -- files
    # --------------------------------------------------------------------------

    def moved(self, directory: Path) -> None:
        """Set the new name of the directory."""
        self._directory = directory

    def reopen(self) -> None:
        """Open the files again that the program has closed. Raise `OSError` if they are gone."""
        if self._reader is not None and not is_open(self._reader[1]):
            self._reader = None
        if self._fd >= 0 and not is_open(self._fd):
            current = self._path(max(list(self._segments)))
            replace_descriptor(self._fd, open_directly(current, os.O_RDWR | os.O_APPEND))

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._name}-{number:06}.jsonl"

    def _create(self, number: int) -> int:
        return open_directly(self._path(number), os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def _size(self, number: int) -> int:
        try:
            return os.stat(self._path(number)).st_size
        except FileNotFoundError:
            # The directory was deleted. The current segment can still be read through its
            # descriptor.
            return (
                os.fstat(self._fd).st_size if self._fd >= 0 and number == max(self._segments) else 0
            )

    def _find_segments(self) -> None:
        try:
            with os.scandir(self._directory) as entries:
                names = [
                    _SEGMENT.fullmatch(entry.name)
                    for entry in entries
                    if entry.is_file(follow_symlinks=False)
                ]
        except FileNotFoundError:
            return
        found = sorted(int(match[2]) for match in names if match and match[1] == self._name)
        for number in found:
            segment = self._segments.setdefault(number, _Segment(number))
            if number != found[-1] and not segment.retired:
                segment.retired = time.monotonic()

    def _open(self, number: int) -> int:
        if self._fd >= 0 and number == max(self._segments):
            return self._fd
        if self._reader is None or self._reader[0] != number:
            self._close_reader()
            fd = os.open(self._path(number), os.O_RDONLY | os.O_NOFOLLOW)
            self._reader = (number, set_apart(fd))
        return self._reader[1]

    def _close_reader(self) -> None:
        if self._reader is not None:
            close_apart(self._reader[1])
            self._reader = None

    def close(self) -> None:
        self.closed = True
        with self._lock:
            self._close_reader()
            if self._fd >= 0:
                fd, self._fd = self._fd, -1
                close_apart(fd)

    def forget(self) -> None:
        """Close the files in a forked child, where a thread that does not exist there may hold the
        lock.
        """
        self._lock = threading.Lock()
        self.close()
