"""Files into which what is pruned is written first, in the form of `structjob.transfer.export`.

A file is written under a hidden name, made safe against a power cut, and then given its name with
``.pending`` at its end. Only now is what it holds deleted, and then the ending is taken off. So a
file that ends in ``.pending`` while nobody prunes tells of a process that died in between: all that
it holds is in it, and some of that may not be deleted yet (`pending`).
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
"""The end of the name of a file whose content is being deleted."""

SinkEvent = JobRecord | AttemptRecord | StepRecord | EventRecord


class Archive:
    """A directory of such files, for one database.

    Args:
        directory: Made, for its owner alone, if it is absent.
        database: What tells this database's files from another's in the same directory.

    Raises:
        InvalidArgument: if it is no directory, or cannot be written to.
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
        """Return files of whose content some may not be deleted, the oldest first; and delete those
        that never were whole.
        """
        for part in self._directory.glob(f".{self._prefix}*.part"):
            part.unlink(missing_ok=True)
        found = sorted(self._directory.glob(f"{self._prefix}*{PENDING}"))
        for path in found:
            check_file(path)  # what another user says is archived would be deleted
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
        """Its name in the end."""
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
        """Write rows that are no records: dead letters, which are for people, and no import takes
        them.
        """
        self._write(b"".join(as_line(kind, dict(row)) for row in rows), len(rows))

    def _write(self, encoded: bytes, number: int) -> None:
        self._file.write(encoded)
        self.lines += number

    def close(self) -> Path:
        """Make the file whole and safe against a power cut, as one whose content is going to be
        deleted; return its name for now.
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
        """Leave nothing of a file that was not closed."""
        with suppress(OSError, ValueError):
            self._file.close()
        with suppress(OSError):
            self._raw.close()
        self._part.unlink(missing_ok=True)


def finish(pending: Path) -> Path:
    """Say that all that a file holds is deleted; return its name from now on."""
    path = pending.with_name(pending.name.removesuffix(PENDING))
    pending.rename(path)
    _sync(path.parent)
    return path


@dataclass(slots=True)
class Keys:
    """What a file holds, by its keys.

    Attributes:
        attempts: The number of attempts at each job, parents first.
        events: Session and number of each event.
        dead_letters: Ids.
    """

    attempts: dict[str, int] = field(default_factory=dict)
    events: list[tuple[int, int]] = field(default_factory=list)
    dead_letters: list[int] = field(default_factory=list)


def keys(pending: Path) -> Keys:
    """Return what a file holds.

    Raises:
        ImportRefused: if it is not one that was written here.
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
                f"line {number} of {pending} has no {exc}: it is not what was written there"
            ) from exc
    return found


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
