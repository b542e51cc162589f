"""A log file for each job."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import time
from contextlib import suppress
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path

from structjob.diagnostics import faults
from structjob.exceptions import InvalidArgument
from structjob.levels import Level, level_name
from structjob.machine.files import UnsafeFile, check_file, make_directory, open_directly
from structjob.sinks.file import append_line
from structjob.sinks.sink import SinkEvent, logs_nothing

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")


@logs_nothing
class JobFileSink:
    """Appends the events of each job to a file of its own, ``<job id>.jsonl``, as lines of JSON.

    Events without a job are not written. A file is open only while a line is written, so that the
    number of jobs and processes is not limited. This takes about 10 µs per event. A file that
    another user may have put into the directory is refused, see `structjob.machine.files`.

    Args:
        directory: The directory of the files, which have mode 0600; it is created with mode 0700 if
            it is missing. A relative path starts at the current directory at this moment. An id
            with other characters than letters, digits, ``-`` and ``_`` is replaced by its hash.
        level: Lowest level written, default ``debug``.
        max_bytes: Size in bytes at which a job's file is moved to ``<job id>.<time>.jsonl`` and a
            new one begins; ``None``: never. Default: 100 MiB.
        keep: Number of old files of each job to keep, default 5.

    Raises:
        InvalidArgument: if the directory cannot be created, another user may have put it there, or
            a number is out of range.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        level: Level | int = "debug",
        max_bytes: int | None = 100 * 1024 * 1024,
        keep: int = 5,
    ) -> None:
        if (max_bytes is not None and max_bytes < 1) or keep < 0:
            raise InvalidArgument(
                f"rotation in {directory}: max_bytes must be positive, and keep must not be negative"
            )
        self.level = level_name(level)
        self._max_bytes = max_bytes
        self._keep = keep
        try:
            self.directory = make_directory(directory)
        except UnsafeFile as exc:
            raise InvalidArgument(f"cannot write log files to {directory}: {exc.strerror}") from exc
        except OSError as exc:
            raise InvalidArgument(
                f"cannot make the directory {directory}: {exc.strerror}; choose another one"
            ) from exc

    def emit(self, event: SinkEvent) -> None:
        """Append *event* to the file of its job."""
        job_id = event.job_id
        if job_id is None:
            return
        path = self.path(job_id)
        # Repeat if another process rotated and deleted the file between opening and writing.
        while not (after := _appended(path, event.line)).st_nlink:
            pass
        if self._max_bytes is not None and after.st_size >= self._max_bytes:
            _aside(path)
            old = sorted(self.directory.glob(f"{path.stem}.*.jsonl"))
            for file in old[: len(old) - self._keep]:
                file.unlink(missing_ok=True)

    def path(self, job_id: str) -> Path:
        """Return the file for the events of this job."""
        # The file is always in the directory, whatever characters the caller's id contains.
        name = (
            job_id
            if _PLAIN.fullmatch(job_id)
            else f"job-{blake2b(job_id.encode(), digest_size=16).hexdigest()}"
        )
        return self.directory / f"{name}.jsonl"

    def archive(self, age: float | timedelta = timedelta(days=1)) -> list[Path]:
        """Compress the files that were last written at least *age* ago.

        Running jobs begin a new file.

        This is slow and should run in a thread: ``await asyncio.to_thread(sink.archive)``. If it is
        interrupted, the next call continues.

        Args:
            age: Seconds, or a `timedelta`. Default: one day.

        Returns:
            The compressed files, ``<job id>.<time>.jsonl.gz``.
        """
        before = time.time() - (age.total_seconds() if isinstance(age, timedelta) else age)
        made = []
        for path in sorted(self.directory.glob("*.jsonl")):
            try:
                if path.lstat().st_mtime <= before:
                    check_file(path)
                    made.append(_compressed(path if "." in path.stem else _aside(path)))
            except FileNotFoundError:  # another process is also archiving it
                pass
            except UnsafeFile as exc:
                faults.add(f"archiving {path}", exc)
        return made


def _appended(path: Path, line: bytes) -> os.stat_result:
    """Append *line* to a job's file; return the file's status after that."""
    fd = open_directly(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        append_line(fd, line, path)
        return os.fstat(fd)
    finally:
        os.close(fd)


def _aside(path: Path) -> Path:
    """Rename *path* to a unique name, so that concurrent calls overwrite nothing."""
    moved = path.with_name(f"{path.stem}.{time.time_ns()}.jsonl")
    with suppress(FileNotFoundError):  # another process was faster
        path.rename(moved)
    return moved


def _compressed(path: Path) -> Path:
    target = path.with_name(f"{path.name}.gz")
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    size = -1
    # repeated if a line was being written while the file was renamed
    while size != path.lstat().st_size:
        with (
            open(open_directly(path, os.O_RDONLY), "rb") as source,
            open(open_directly(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as raw,
            gzip.open(raw, "wb") as packed,
        ):
            shutil.copyfileobj(source, packed)
            size = source.tell()
    unfinished.replace(target)
    path.unlink()
    return target
