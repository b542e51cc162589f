"""Files that archive pruned data before it is deleted, in the form of `structjob.transfer.export`.

A file is written under a hidden name and made safe against a power failure. Then it gets its name
with the suffix ``.pending``. Only then is its content deleted from the database, and the suffix
removed. So a ``.pending`` file means that a process died in between, unless a prune is running. The
file contains everything, and some of that may not be deleted yet (`Archive.pending`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from structjob.exceptions import ImportRefused, InvalidArgument
from structjob.machine.files import UnsafeFile, check_file, make_directory, open_directly
from structjob.models import AttemptRecord, EventRecord, JobRecord, StepRecord
from structjob.transfer.export import FORMAT, as_line, gzipped, plain
from structjob.transfer.records import read_records

PENDING = ".pending"
"""The suffix of a file whose content is being deleted."""

SinkEvent = JobRecord | AttemptRecord | StepRecord | EventRecord


class Archive:
    """A directory of archive files, for one database.

    Args:
        directory: The directory; created with access for its owner only, if it is absent.
        database: A text that distinguishes this database's files from another's in the same
            directory.

    Raises:
        InvalidArgument: if it is not a directory, or not writable.
    """

    def __init__(self, directory: Path, database: str) -> None:
        self._prefix = f"structjob-{blake2b(database.encode(), digest_size=4).hexdigest()}-"
        try:
            self._directory = make_directory(directory)
        except UnsafeFile as exc:
            raise InvalidArgument(
                f"the archive {directory} cannot be used: {exc.strerror}"
            ) from exc
        except OSError as exc:
            raise InvalidArgument(
                f"the archive {directory} cannot be made: {exc.strerror}; name another directory"
            ) from exc
        if not os.access(directory, os.W_OK | os.X_OK):
            raise InvalidArgument(
                f"the archive {directory} cannot be written to; change its permissions, or name another directory"
            )

    def pending(self) -> list[Path]:
        """Return files whose content may not be fully deleted, oldest first.

        Incomplete files are removed.
        """
        for part in self._directory.glob(f".{self._prefix}*.part"):
            part.unlink(missing_ok=True)
        found = sorted(self._directory.glob(f"{self._prefix}*{PENDING}"))
        for path in found:
            check_file(path)  # otherwise another user's file could cause deletions
        return found

    def new(self, what: str) -> ArchiveFile:
        """Begin a file; *what* is part of its name."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        number = 1
        while any(
            self._directory.glob(
                f"*{(name := f'{self._prefix}{stamp}-{number:03}-{what}.jsonl.gz')}*"
            )
        ):
            number += 1
        return ArchiveFile(self._directory / name)


class ArchiveFile:
    """A file that is being written. Its methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """The file's final name."""
        self.lines = 0
        self._part = path.with_name(f".{path.name}.part")
        descriptor = open_directly(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._raw: IO[bytes] = os.fdopen(descriptor, "wb")
        self._file = gzipped(self._raw)
        self._file.write(as_line("export", {"format": FORMAT, "pruned_at": datetime.now(UTC)}))

    def add(self, kind: str, records: Sequence[SinkEvent]) -> None:
        """Write *records* of one *kind*."""
        self._write(b"".join(as_line(kind, plain(record)) for record in records), len(records))

    def add_rows(self, kind: str, rows: Sequence[Any]) -> None:
        """Write rows that are not records: dead letters.

        They are for people; an import ignores them.
        """
        self._write(b"".join(as_line(kind, dict(row)) for row in rows), len(rows))

    def _write(self, encoded: bytes, number: int) -> None:
        self._file.write(encoded)
        self.lines += number

    def close(self) -> Path:
        """Complete the file and make it safe against a power failure.

        Return its name with the suffix ``.pending``, because its content is not deleted yet.
        """
        self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        pending = self.path.with_name(self.path.name + PENDING)
        self._part.rename(pending)
        _sync(self.path.parent)
        return pending

    def discard(self) -> None:
        """Remove a file that was not closed."""
        with suppress(OSError, ValueError):
            self._file.close()
        with suppress(OSError):
            self._raw.close()
        self._part.unlink(missing_ok=True)


def finish(pending: Path) -> Path:
    """Mark a file as finished, because its content is deleted; return its final name."""
    path = pending.with_name(pending.name.removesuffix(PENDING))
    pending.rename(path)
    _sync(path.parent)
    return path


@dataclass(slots=True)
class Keys:
    """The keys of a file's content.

    Attributes:
        attempts: Job id → the job's number of attempts, parents first.
        events: Session id and number of each event.
        dead_letters: The ids of the dead letters.
    """

    attempts: dict[str, int] = field(default_factory=dict)
    events: list[tuple[int, int]] = field(default_factory=list)
    dead_letters: list[int] = field(default_factory=list)


def keys(pending: Path) -> Keys:
    """Return the keys of a file's content.

    Raises:
        ImportRefused: if the file was not written by this module.
    """
    found = Keys()
    for number, kind, record in read_records(pending):
        try:
            if kind == "job":
                found.attempts[record["id"]] = record["attempt"]
            elif kind == "event":
                found.events.append((record["session_id"], record["seq"]))
            elif kind == "dead_letter":
                found.dead_letters.append(record["id"])
        except KeyError as exc:
            raise ImportRefused(
                f"line {number} of {pending} has no {exc}: it is not what structjob wrote"
            ) from exc
    return found


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
