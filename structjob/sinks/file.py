"""A log file with lines of JSON, appended and rotated by any number of threads and processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from structjob.exceptions import InvalidArgument
from structjob.levels import Level, level_name
from structjob.machine.descriptor import Descriptor
from structjob.machine.files import (
    UnsafeFile,
    close_apart,
    follow,
    is_special,
    make_directory,
    open_file,
    replace_descriptor,
    set_apart,
)
from structjob.numeric import is_number, is_whole
from structjob.sinks.sink import SinkEvent, logs_nothing

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT

_LOOK_INTERVAL = 0.001
"""Seconds in which no program can move a file away, compress it and delete it. The path is checked
twice within this time.
"""

_RETRY_INTERVAL = 1.0
"""Seconds before a failed rotation is tried again."""

_DELETED_LIMIT = 100
"""Maximum number of times that a line is written again because its file was deleted meanwhile."""


def append_line(fd: int, line: bytes, path: Path) -> None:
    """Append *line* to the open file *path*; the next line is complete in any case.

    Raises:
        OSError: if the disk took only a part of the line.
    """
    if os.write(fd, line) != len(line):
        os.write(fd, b"\n")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@logs_nothing
class FileSink:
    """Appends events to a file as lines of JSON.

    Several processes may write to the same file, each with a sink of its own or with a forked one.
    One of them at a time rotates it. Other programs may move the file away or delete it: at most a
    millisecond later, lines go to a new file. For logrotate, use ``max_bytes=None``. Then no line
    is lost, even without ``delaycompress``; only ``copytruncate`` loses those that are written
    between its copy and its truncation. A line that is written at the moment of the renaming,
    when this process had to wait for the CPU, is also written to the new file, and may be in both.

    A link to the file is followed, and rotated files are placed beside the real file. A file that
    another user may have put there is refused, see `structjob.machine.files`. A pipe or a device,
    such as ``/dev/stderr``, is written to and never rotated.

    Args:
        path: The file; it is created with mode 0600, and its directory, if missing, with mode 0700.
            A relative path starts at the current directory at this moment.
        level: Lowest level written, default ``debug``.
        max_bytes: Size in bytes at which the file is moved to ``path.1`` (and so on) and a new one
            begins; ``None``: never. Default: 100 MiB.
        max_age: Age at which the same happens, in seconds or as a `timedelta`; ``None`` (the
            default): never.
        keep: Number of old files to keep, default 5.

    Raises:
        InvalidArgument: if the file cannot be written to, or another user may have put it there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        level: Level | int = "debug",
        max_bytes: int | None = 100 * 1024 * 1024,
        max_age: float | timedelta | None = None,
        keep: int = 5,
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise InvalidArgument(f"a file needs a path, not {path!r}")
        if isinstance(max_age, timedelta):
            max_age = max_age.total_seconds()
        given = [one for one in (max_bytes, max_age) if one is not None]
        if not all(is_number(one) and one > 0 for one in given) or not is_whole(keep) or keep < 0:
            raise InvalidArgument(
                f"rotation of {path}: max_bytes and max_age must be positive, and keep must not be negative"
            )
        self.level = level_name(level)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._keep = keep
        self._others_rotate = max_bytes is None and max_age is None
        self._fd = -1
        self._file = (-1, -1)
        """Device and inode of the open file."""
        self._began = 0.0
        self._looked = 0.0
        self._full = False
        """Whether to check the path even if the last check was a moment ago."""
        self._rotate_after = 0.0
        self._descriptor: Descriptor | None = None
        """Writes to a pipe or a device; ``None`` for a file."""
        try:
            self.path = Path(path).absolute()
            self._name = str(self.path)  # a `Path` would be converted to text on each call
            if is_special(self.path):
                self._fd = open_file(self.path, _APPEND, special=True)
                self._descriptor = Descriptor.of(self._fd)
            else:
                if not self.path.parent.exists():
                    make_directory(self.path.parent)
                self._open()
        except UnsafeFile as exc:
            raise InvalidArgument(f"cannot write the log file {path}: {exc.strerror}") from exc
        except OSError as exc:
            raise InvalidArgument(
                f"cannot write the log file {path}: {exc.strerror}; choose another path"
            ) from exc

    def emit(self, event: SinkEvent) -> None:
        """Append *event*."""
        self.write(event.line)

    def write(self, line: bytes) -> None:
        """Append one line immediately."""
        if self._descriptor is not None:
            self._descriptor.write(self._fd, line)
            return
        now = time.monotonic()
        try:
            if self._full or now - self._looked > _LOOK_INTERVAL / 2:
                self._look(now)
        # a file that cannot be moved away, in a directory of another user, grows; the error is
        # counted, and rotation is tried again
        finally:
            self._append(line)
        for _ in range(_DELETED_LIMIT):
            after = os.fstat(self._fd)
            if after.st_nlink:
                break
            # Since the check, another process has rotated the file so often that it is already
            # deleted.
            self._open()
            append_line(self._fd, line, self.path)
        if self._others_rotate and time.monotonic() - self._looked > _LOOK_INTERVAL:
            self._write_again_if_moved(line)
        self._full = self._max_bytes is not None and after.st_size >= self._max_bytes

    def _append(self, line: bytes) -> None:
        try:
            append_line(self._fd, line, self.path)
        except OSError as exc:
            if exc.errno != errno.EBADF or self._fd < 0:
                raise
            self._open()  # the program has closed the file, for example to become a daemon
            append_line(self._fd, line, self.path)

    def _write_again_if_moved(self, line: bytes) -> None:
        """Also write *line* to the new file, if there is one.

        This process may have been suspended since its check, and the other file may already be
        compressed.
        """
        file = self._file
        self._look(time.monotonic())
        if self._file != file:
            append_line(self._fd, line, self.path)

    def _look(self, now: float) -> None:
        """Reopen the file if the path leads to a different one, and rotate it if that is due."""
        self._looked = now
        try:
            there = os.stat(self._name)
        except FileNotFoundError:
            self._open()
            return
        if (there.st_dev, there.st_ino) != self._file:
            self._open()
        elif self._is_due(there):
            self._rotate(now)

    def _is_due(self, file: os.stat_result) -> bool:
        if self._max_bytes is not None and file.st_size >= self._max_bytes:
            return True
        return (
            self._max_age is not None
            and file.st_size > 0
            and time.time() - self._began >= self._max_age
        )

    def _open(self) -> None:
        if self._fd < 0 and self._file != (-1, -1):
            raise ValueError(f"the log file {self.path} is closed")
        fresh = open_file(self.path, _APPEND)
        info = os.fstat(fresh)
        if self._fd < 0:
            self._fd = set_apart(fresh)
        else:
            # The descriptor keeps its number, see `structjob.spool.disk.DiskQueue`.
            replace_descriptor(self._fd, fresh)
        if self._max_age is not None:
            self._began = self._first_time() or time.time()
        self._file = (info.st_dev, info.st_ino)

    def _first_time(self) -> float | None:
        """Return the time of the file's first event, because a file system may not store a creation
        time.
        """
        try:
            with open(open_file(self.path, os.O_RDONLY), "rb") as file:
                return datetime.fromisoformat(
                    msgspec.json.decode(file.readline())["timestamp"]
                ).timestamp()
        except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
            return None

    def _rotate(self, now: float) -> None:
        if now < self._rotate_after:
            return
        self._rotate_after = now + _RETRY_INTERVAL
        # The lock is on the file itself: after the renaming, a lock that a forked process still
        # holds by accident blocks no other process. It needs a new descriptor, because forked
        # processes share the other descriptor and with it the lock.
        try:
            fd = open_file(self.path, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:  # another process is rotating it
            self._rotate_after = 0.0
            return
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Another process or thread is rotating it, or this thread was interrupted there.
                self._rotate_after = 0.0
                return
            here = os.fstat(fd)
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(self.path)  # it may already be rotated
                if (there.st_dev, there.st_ino) == (
                    here.st_dev,
                    here.st_ino,
                ) == self._file and self._is_due(here):
                    self._move(str(follow(self.path)))
            fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)
        self._open()
        self._rotate_after = 0.0

    def _move(self, name: str) -> None:
        """Rename the file to the name of an old one.

        Only the holder of its lock does this, so no other process takes a name meanwhile.
        """
        if self._keep == 0:
            os.unlink(name)
            return
        free = 1
        while free < self._keep and os.path.lexists(f"{name}.{free}"):
            free += 1
        for number in range(free - 1, 0, -1):
            os.replace(f"{name}.{number}", f"{name}.{number + 1}")
        os.replace(name, f"{name}.1")

    def close(self) -> None:
        """Close the file; later events are counted as errors."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            close_apart(fd)
