"""The places of one database's spools.

These are the directories that a tracker may use, and those where earlier programs may have left
spools.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "STRUCTJOB_SPOOL"
"""The environment variable that names a directory for the spools of every database."""

_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Places:
    """The directories for the spools of one database; each holds session directories.

    Args:
        database: The normalized address of the database, as in
            `structjob.spool.session.Session.database`; ``None`` if it is not needed.
        candidates: Where a tracker creates its spool: the first directory that works.
        fallbacks: Where it can be created if no candidate works, by a program that must not fail
            (``structjob run``).
        former: Other directories where spools of this database may be: named after a link, or by an
            earlier version.
        shelves: Directories with one directory for each database. A directory there with another
            name is recognized by the database of its sessions.
        shared: The directory that `VARIABLE` names; it may belong to another user and be shared.
        asked: Whether the program named the directory (``spool=PATH``): it may contain spools of
            other databases.
    """

    database: str | None
    candidates: tuple[Path, ...]
    fallbacks: tuple[Path, ...] = ()
    former: tuple[Path, ...] = ()
    shelves: tuple[Path, ...] = ()
    shared: Path | None = None
    asked: bool = False

    def own(self) -> tuple[Path, ...]:
        """Return every directory that is only for this database; they need not exist."""
        return tuple(dict.fromkeys((*self.candidates, *self.fallbacks, *self.former)))

    def neighbours(self) -> Iterator[Path]:
        """Yield the directories beside the own ones; they may be for this database or others."""
        own = {os.path.realpath(path) for path in self.own()}
        if self.shared is not None and os.path.realpath(self.shared) not in own:
            yield self.shared  # programs may be configured to use it directly
        for shelf in self.shelves:
            with suppress(OSError), os.scandir(shelf) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if (
                        entry.is_dir(follow_symlinks=False)
                        and os.path.realpath(entry.path) not in own
                    ):
                        yield Path(entry.path)


def for_file(path: Path, database: str, spool: str | os.PathLike[str] | None = None) -> Places:
    """Return the places for an SQLite file: ``<file>.spool`` beside the real file.

    Links in the path are resolved.

    Args:
        path: The file, as it was named.
        database: See `Places`.
        spool: The directory that the program asks for; default: None.
    """
    real = Path(os.path.realpath(path))
    beside = real.with_name(real.name + ".spool")
    linked = path.absolute().with_name(path.name + ".spool")
    name = _name(f"sqlite-{real.stem}", database)
    # the file cannot be created here, and its directory must not be created as a side effect
    if os.path.isdir(real) or not os.path.isdir(real.parent):
        return _places(database, name, spool, None, former=(beside,))
    return _places(database, name, spool, beside, former=(linked,) if linked != beside else ())


def for_server(address: str, legacy: str, spool: str | os.PathLike[str] | None = None) -> Places:
    """Return the places for a database on a server, best first.

    These are the user's state directory, ``./.structjob`` and a temporary directory.

    Args:
        address: See `Places`.
        legacy: The masked URL; an earlier version derived the name of the directory below
            ``./.structjob`` from it.
        spool: The directory that the program asks for; default: None.
    """
    former = tuple(shelf / hashlib.sha256(legacy.encode()).hexdigest()[:16] for shelf in _here())
    return _places(address, _name(address.replace("://", "-"), address), spool, None, former=former)


def _places(
    database: str,
    name: str,
    spool: str | os.PathLike[str] | None,
    beside: Path | None,
    *,
    former: tuple[Path, ...],
) -> Places:
    shelves = tuple(shelf for shelf in (state_home(), *_here(), temporary()) if shelf is not None)
    usual = tuple(shelf / name for shelf in shelves) if beside is None else (beside,)
    fallbacks = tuple(shelf / name for shelf in shelves) if beside is not None else ()
    shared = None
    if given := os.environ.get(VARIABLE):
        shared = Path(given).absolute()
        shelves = (shared, *shelves)
    if spool is None and shared is not None:
        usual, fallbacks = (shared / name,), (*usual, *fallbacks)
    elif spool is not None:
        # a program may change its working directory later
        usual, fallbacks = (Path(spool).absolute(),), (*usual, *fallbacks)
    return Places(database, usual, fallbacks, former, shelves, shared, asked=spool is not None)


def _here() -> tuple[Path, ...]:
    """Return the spool directory in the working directory; empty if that was deleted."""
    with suppress(OSError):
        return (Path(".structjob").absolute(),)
    return ()


def state_home() -> Path | None:
    """Return the directory for spools below the user's state directory (XDG).

    Return ``None`` if the user has no home directory.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(given):  # as the XDG specification requires
        home = os.path.expanduser("~")
        if not os.path.isabs(home) or home == os.sep:
            return None
        given = os.path.join(home, ".local", "state")
    return Path(given) / "structjob"


def temporary() -> Path:
    """Return this user's private directory below the temporary directory: the last resort."""
    try:
        directory = tempfile.gettempdir()
    except FileNotFoundError:
        directory = "/tmp"  # noqa: S108 -- refused if it belongs to another user: see `structjob.spool.directory`
    return Path(directory) / f"structjob-{os.geteuid()}"


def _name(readable: str, exact: str) -> str:
    """Return a name for a directory: readable, safe in a path, and unique for each *exact* text."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", readable).strip("-.")[:_LONGEST]
    return f"{plain}-{hashlib.sha256(exact.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
