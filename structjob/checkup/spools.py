"""The spools of a database on this host: where they are, and what waits in them."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from structjob.checkup import trial
from structjob.checkup.files import forbidden, network, space
from structjob.checkup.finding import Finding, ok, problem, warning
from structjob.spool import directory as spool_directory
from structjob.spool.line import number_of, time_of, verify_line
from structjob.spool.places import Places
from structjob.store.database_file import OTHER_USER
from structjob.text.amounts import in_bytes
from structjob.text.wording import count_of

_TAIL = 1 << 20


@dataclass(frozen=True, slots=True)
class Waiting:
    """A spool on this host.

    Args:
        session_id: The session that wrote it.
        size: Its bytes, including delivered ones that are not deleted yet.
        last_seq: The number of its newest line.
        alive: Whether a process writes to it or delivers it.
        delivered: Whether a process delivers it.
        directory: Its directory.
    """

    session_id: int
    size: int
    last_seq: int
    alive: bool
    delivered: bool
    directory: Path


def place(places: Places | None, path: Path | None) -> Iterator[Finding]:
    """Report the directory in which a tracker of the database at *path* would spool."""
    if places is None:
        yield ok("spool", "none: the database is in memory")
        return
    # As a tracker does: use the first usable directory, or else create one.
    root = next((one for one in places.candidates if _can_be_made(one)), places.candidates[0])
    if path is None:
        yield from _neighbours(places)
    if not os.path.exists(root):
        if _can_be_made(root):
            above = next(one for one in root.parents if os.path.isdir(one))
            if (refused := trial.write_to_directory(above)) is not None:
                yield problem(
                    "spool",
                    f"{above} takes no writes: {refused}",
                    "check the disk, its quota and how it is mounted",
                )
            else:
                yield ok("spool", f"{root} does not exist yet; the first tracker creates it")
        else:
            yield problem(
                "spool",
                f"{root} cannot be created",
                f"{OTHER_USER}; or name another with $STRUCTJOB_SPOOL",
            )
        return
    info = os.lstat(root)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        what = forbidden(root) if stat.S_ISDIR(info.st_mode) else f"{root} is not a directory"
        yield problem("spool", what, f"{OTHER_USER}; or name another with Tracker(spool=PATH)")
    elif (refused := trial.write_to_directory(root)) is not None:
        yield problem(
            "spool",
            f"{root} takes no writes: {refused}",
            "check the disk, its quota and how it is mounted",
        )
    elif info.st_mode & 0o077:
        yield warning(
            "spool",
            f"others may look into {root} ({stat.filemode(info.st_mode)})",
            f"chmod 700 {root}",
        )
    else:
        yield ok("spool", f"{root}, {stat.filemode(info.st_mode)}")
    yield from network(root, "the spool")
    if path is None or root.parent.stat().st_dev != path.parent.stat().st_dev:
        yield from space(root, "spool's disk")


def _can_be_made(wanted: Path) -> bool:
    """Return whether the directory *wanted* exists, or this user may create it."""
    there = next((path for path in (wanted, *wanted.parents) if os.path.lexists(path)), wanted)
    return there == wanted or os.access(there, os.W_OK | os.X_OK)


def set_aside(spools: list[Waiting]) -> Iterator[Finding]:
    """Report the spools that a tracker could not deliver, and why."""
    for spool in spools:
        left = spool_directory.set_aside(spool.directory)
        if left is not None:
            found = f"{in_bytes(spool.size)} in {spool.directory} were set aside: {left.reason}"
            later = f"{spool_directory.RETRY_AFTER / 60:.0f} minutes later"
            advice = f"a tracker tries it again {later}, or at once without its note: rm {shlex.quote(str(left.note))}"
            yield warning(
                "set aside", found, advice, {"session": spool.session_id, "reason": left.reason}
            )


def _neighbours(places: Places) -> Iterator[Finding]:
    """Report what waits in other spool directories.

    The spools of this database are delivered from there; those of another database are only named.
    """
    for beside in places.neighbours():
        left = {
            directory: size
            for directory, size in spool_directory.waiting(spool_directory.directories(beside))
            if size
            and not spool_directory.is_alive(directory)
            and spool_directory.database_of(directory) != places.database
        }
        if left:
            others = sorted(
                {
                    spool_directory.database_of(directory) or "an unknown database"
                    for directory in left
                }
            )
            found = f"{in_bytes(sum(left.values()))} of {count_of(len(left), 'program')} that logged to {', '.join(others)} wait in {beside}"
            advice = f"a tracker on that URL delivers them; if it was wrong, or its database has moved to this URL, move the directories in it to {places.candidates[0]}"
            details = {
                "directory": str(beside),
                "sessions": {directory.name: size for directory, size in left.items()},
            }
            yield warning("spools of other URLs", found, advice, details)


def waiting_spools(places: Places | None) -> Iterator[Waiting]:
    """Yield the non-empty spools of a database on this host, from all of its *places*."""
    if places is None:
        return
    for directory, size in spool_directory.waiting(spool_directory.left_in(places)):
        yield Waiting(
            int(directory.name),
            size,
            _last_seq(directory),
            spool_directory.is_alive(directory),
            spool_directory.is_delivered(directory),
            directory,
        )


def undelivered(spools: list[Waiting]) -> Iterator[Finding]:
    """Report living programs whose spools no process delivers."""
    found = [one for one in spools if one.alive and not one.delivered]
    if found:
        writes = count_of(len(found), "running program", "records", "record")
        yield warning(
            "spools without a deliverer",
            f"{writes} with deliver=False, and no process delivers: {in_bytes(sum(one.size for one in found))} wait in "
            f"{found[0].directory.parent}",
            "open a structjob.Deliverer, or any tracker, for this database on this host, with the spool= of the program",
            {"sessions": [one.session_id for one in found]},
        )


def waiting_since(directory: Path, stored: int) -> datetime | None:
    """Return when the first line of *directory* after the number *stored* was logged.

    ``None`` if there is no such line.
    """
    for path in _segments(directory):
        with suppress(OSError), path.open("rb") as file:  # it may have been delivered meanwhile
            for line in file:
                if verify_line(line) and number_of(line) > stored:
                    return time_of(line)
    return None


def _last_seq(directory: Path) -> int:
    """Return the number of the last complete line, from the newest segment that has one."""
    for path in reversed(_segments(directory)):
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL))
                lines = file.read().split(b"\n")
        except OSError:  # it was delivered and deleted in the meantime
            continue
        found = [number_of(line) for line in lines if verify_line(line)]
        if found:
            return max(found)
    return 0


def _segments(directory: Path) -> list[Path]:
    """Return the files with a session's events, oldest first; to open a pipe would block."""
    return sorted(path for path in directory.glob("events-*.jsonl") if path.is_file())
