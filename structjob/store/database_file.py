"""The file of an SQLite database: who may use it, and whether its path still leads to it.

SQLite continues to write to a file that was deleted, moved or replaced while it was open. No call
fails, and the written data cannot be found.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from structjob.exceptions import InvalidURL, StoreUnavailable
from structjob.machine.files import UnsafeFile, belongs, check_file, ensure_file, follow, is_special

Identity = tuple[int, int]
"""Device and inode."""

_LOGS = ("-wal", "-shm")
"""Suffixes of the files that belong to an open database."""

_COMPANIONS = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite opens beside a database and trusts."""


@dataclass(frozen=True, slots=True)
class DatabaseFile:
    """A file that is open as a database.

    Attributes:
        path: The path as the user gave it: a link in it may lead elsewhere later.
        real: The path without links, as it was when the file was opened.
        identity: The file's device and inode.
        device: The device of its directory.
        logs: The write-ahead log and its index, if they existed, with their identities.
    """

    path: Path
    real: Path
    identity: Identity
    device: int
    logs: tuple[tuple[Path, Identity], ...] = ()

    @classmethod
    def at(cls, path: Path, real: Path) -> DatabaseFile:
        """Return the file at *path* as it is now.

        Raises:
            StoreUnavailable: if it is absent.
        """
        try:
            found, directory = os.stat(path), os.stat(real.parent)
        except OSError as exc:
            raise StoreUnavailable(
                f"the database file {path} is gone: {exc.strerror}", gone=True
            ) from None
        return cls(path, real, (found.st_dev, found.st_ino), directory.st_dev)

    def with_logs(self) -> DatabaseFile:
        """Return the same file with the files that belong to it.

        Call this as soon as the database is open.
        """
        names = [self.real.with_name(self.real.name + suffix) for suffix in _LOGS]
        logs = tuple((name, found) for name in names if (found := _identity(name)) is not None)
        return DatabaseFile(self.path, self.real, self.identity, self.device, logs)

    def replaced(self) -> bool:
        """Return whether the path leads to another file, to no file, or to one that was emptied.

        This takes about a microsecond.
        """
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # the state is unknown
        return (found.st_dev, found.st_ino) != self.identity or not found.st_size

    def remove_empty(self) -> None:
        """Delete the file if it was emptied.

        Otherwise SQLite would write its cached pages of the former content back into it.
        """
        with _alone(self.real.parent), contextlib.suppress(OSError):
            found = os.lstat(self.real)
            if (found.st_dev, found.st_ino) == self.identity and not found.st_size:
                self.real.unlink()

    def check_place(self) -> None:
        """Raise an error if a new file would be on another file system than the old one.

        Raises:
            StoreUnavailable: if so; the old file system is probably not mounted.
        """
        if (
            self.real.exists()
            or not self.real.parent.exists()
            or os.stat(self.real.parent).st_dev == self.device
        ):
            return
        raise StoreUnavailable(
            f"the database file {self.path} is gone, and its directory is on another file system than before: mount it again, or restart "
            "the program to have a new file there"
        )

    def remove_logs(self) -> None:
        """Delete the write-ahead log of a file that is gone.

        The next file of this name must not be read with that log. Other programs that have the old
        file open do the same. A log that one of them has made for the new file is kept.
        """
        with _alone(self.real.parent):
            for name, identity in self.logs:
                if _identity(name) == identity:
                    with contextlib.suppress(OSError):
                        name.unlink()


def is_unchanging(path: Path) -> bool:
    """Return whether no program changes the database *path* now, and this one cannot either.

    This program cannot make files beside it, because of its rights or a read-only file system. The
    database has no write-ahead log, so no program has it open, on another host or in another
    container either.

    SQLite reads such a file only as an immutable one, because it cannot create the log's index. A
    program with more rights may change it later: compare its `stamp`.
    """
    real = os.path.realpath(path)
    try:
        read_only = os.statvfs(real).f_flag & os.ST_RDONLY or not os.access(
            os.path.dirname(real), os.W_OK, effective_ids=os.access in os.supports_effective_ids
        )
        return bool(read_only) and not any(os.path.exists(real + suffix) for suffix in _LOGS)
    except OSError:
        return False


def stamp(path: Path | None) -> object:
    """Return a value that changes when any process commits a transaction on the database *path*.

    It is ``None`` without a path. This takes about 10 microseconds. A commit may go unnoticed if it
    follows another one within the resolution of the file system's times, a few milliseconds.
    """
    if path is None:
        return None
    real = os.path.realpath(path)
    return _times(real), _times(f"{real}-wal")


def _times(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _identity(path: Path) -> Identity | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Exclude other programs that do the same in *directory*, if its file system supports locks."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


_MAGIC = b"SQLite format 3\0"
_GZIP = b"\x1f\x8b"
OTHER_USER = "run this and the program as the user that owns it, or change its owner"


def foreign(path: Path) -> tuple[str, str] | None:
    """Return what the existing file at *path* is instead of an SQLite database, and what to do;
    ``None`` if it begins as a database, or is empty, as one without tables.

    Not for a process that has this database open: to close a file gives up its locks, SQLite's too.

    Raises:
        OSError: if it cannot be read.
    """
    if os.path.isdir(path):
        return _DIRECTORY, _in_it(path)
    if is_special(path):
        return "is not a regular file", "name another file"
    with open(path, "rb") as file:
        start = file.read(1024)
    if not start or (start.startswith(_MAGIC) and len(start) > len(_MAGIC)):
        return None
    if start.startswith(_MAGIC):
        return (
            "is an SQLite database of which only the beginning is there",
            "restore it from a backup, or name another file",
        )
    if start.startswith(_GZIP):
        what, advice = (
            "a compressed file (gzip)",
            f"unpack it (gunzip -c < {shlex.quote(str(path))} > unpacked.db), or name another file",
        )
    elif b"\0" not in start and start.isascii():
        what, advice = "a text file", "name another file"
    else:
        what = "a file of another program, or an encrypted database"
        advice = "name another file; structjob reads no encrypted databases"
    return f"is not an SQLite database, but {what}", advice


def not_a_database(path: Path) -> str:
    """Return the message for a file that SQLite has just refused as no database."""
    try:
        what, advice = foreign(path) or ("is damaged", "restore it from a backup")
    except OSError:
        what, advice = "is not an SQLite database", "name another file"
    return f"the database path {path} {what}: {advice}"


def _refuse_directory(path: Path) -> None:
    if os.path.isdir(path):  # `path.is_dir()` raises if the parent directory is not accessible
        raise InvalidURL(f"the database path {path} {_DIRECTORY}: {_in_it(path)}")


_DIRECTORY = "is a directory"


def _in_it(path: Path) -> str:
    return f"name a file in it, such as sqlite:///{path}/jobs.db"


def existing(path: Path) -> Path:
    """Return the path of an existing database file, without links.

    Refuse a file that is absent, or if another user may have placed it or a file beside it.
    """
    if not os.path.exists(path):
        raise StoreUnavailable(
            f"there is no database file {path}: `structjob migrate` creates it, and so does the first tracker",
            gone=True,
        )
    _refuse_directory(path)
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InvalidURL(f"cannot read the database file: {belongs(path)}; {OTHER_USER}")
    try:
        file = follow(path)
        for name in (file.name, *(file.name + suffix for suffix in _COMPANIONS)):
            check_file(file.with_name(name))
    except OSError as exc:
        raise InvalidURL(f"cannot use the database file {path}: {exc.strerror}") from exc
    return file


def ensure_private(path: Path) -> Path:
    """Create the file with access for its owner only, and return its path without links.

    Refuse it if another user may have placed it or a file beside it.
    """
    _refuse_directory(path)
    try:
        file = follow(path)
        # First, because the name may be too long for these: then no empty file is left.
        for suffix in _COMPANIONS:
            check_file(file.with_name(file.name + suffix))
        return ensure_file(file)
    except UnsafeFile as exc:
        raise InvalidURL(f"cannot use the database file {path}: {exc.strerror}") from exc
    except FileNotFoundError as exc:
        raise InvalidURL(
            f"cannot create the database file {path}: its directory does not exist; create it first: mkdir -p {path.parent}"
        ) from exc
    except OSError as exc:
        raise InvalidURL(
            f"cannot create or write the database file {path}: {exc.strerror}; check its permissions, or choose another path"
        ) from exc


def has_temporary_directory() -> bool:
    """Return whether SQLite finds a directory for temporary files.

    The order of search is the one in https://www.sqlite.org/tempfiles.html, section 5.
    """
    given = (os.environ.get(name) for name in ("SQLITE_TMPDIR", "TMPDIR"))
    places = (*given, "/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108 -- SQLite looks there
    return any(
        place and os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK) for place in places
    )
