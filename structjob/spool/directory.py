"""The directory of a session: its queues on disk and two lock files.

The process that writes holds a lock (``flock``) on ``alive`` until it ends in any way. The process
that delivers holds ``deliver``: the writer's own engine, or a process that adopted the directory. A
forked child has no engine: it holds ``alive`` only, and its parent delivers. So does a tracker with
``deliver=False``, whose spool any other process delivers. A lock file is closed,
never unlocked, because a fork may share the lock. While a directory is created or deleted, its name
begins with a dot.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from structjob.diagnostics import diagnostics
from structjob.exceptions import SpoolError
from structjob.machine.files import (
    UnsafeFile,
    close_apart,
    is_open,
    lock_file,
    make_directory,
    open_directly,
    read_start,
    replace_descriptor,
)
from structjob.machine.host import is_network
from structjob.process import at_fork, on_reset
from structjob.spool.disk import DiskQueue
from structjob.spool.places import Places
from structjob.spool.queue import Overflow
from structjob.spool.session import Session
from structjob.spool.session_file import read_session, write_session
from structjob.spool.tally import Tally

_SET_ASIDE = "set-aside"
"""File in a session's directory with the reason why it was set aside."""
_CLOSED = "closed"
"""File in a session's directory: its tracker was closed, or its process exited normally."""
RETRY_AFTER = 600.0
"""Seconds after which a directory that was set aside is tried again."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNFINISHED = 60.0
"""Seconds after which a directory that is still being created or deleted counts as left behind."""


def _check_directory(path: Path) -> None:
    """Create *path* if needed and check that it is private to this user.

    It must be a directory and not a link, belong to this user and have mode 0700. It must not be
    inside a directory that another user created in a shared one.

    Raises:
        SpoolError: if it cannot be used.
    """
    try:
        with contextlib.suppress(FileExistsError):
            make_directory(path)
        info = os.lstat(path)
    except UnsafeFile as exc:
        raise SpoolError(
            f"cannot use the spool directory {path}: {exc.strerror} with Tracker(spool=PATH)"
        ) from exc
    except OSError as exc:
        raise SpoolError(
            f"cannot create the spool directory {path}: {exc.strerror}; choose another with Tracker(spool=PATH), or spool=False"
        ) from exc
    if not stat.S_ISDIR(info.st_mode):
        raise SpoolError(
            f"the spool directory {path} is not a directory; move it away, or choose another with Tracker(spool=PATH)"
        )
    if info.st_uid != os.geteuid():
        raise SpoolError(
            f"the spool directory {path} belongs to another user (uid {info.st_uid}); choose another with Tracker(spool=PATH)"
        )
    if info.st_mode & 0o077:
        os.chmod(path, 0o700)
    if not os.access(path, os.W_OK | os.X_OK):
        raise SpoolError(
            f"the spool directory {path} cannot be written to; check its permissions, or choose another with Tracker(spool=PATH)"
        )


class SessionSpool:
    """A session's directory with its queues.

    Attributes:
        session: The session that it belongs to.
        events: The queue of the events.
        states: The queue of the changes of state; separate, so that many events cannot fill it.
        tally: The session's numbers; ``None`` if they were lost.
        alive: Whether the session's process may still write.
    """

    def __init__(
        self,
        directory: Path,
        session: Session,
        events: DiskQueue,
        states: DiskQueue,
        locks: dict[str, int],
        tally: Tally | None,
    ) -> None:
        self.directory = directory
        self.session = session
        self.events = events
        self.states = states
        self.tally = tally
        self._locks = locks
        _held.add(self)

    @classmethod
    def create(
        cls,
        root: Path,
        session: Session,
        *,
        max_bytes: int | None = None,
        overflow: Overflow = "drop_oldest",
        deliver: bool = True,
    ) -> SessionSpool:
        """Create the directory of *session* below *root*.

        It gets its name only when its locks are held, so that no process can adopt it before.

        Args:
            root: The directory of spools.
            session: The session.
            max_bytes: Maximum bytes of the event queue; default: no limit.
            overflow: What happens beyond that; default: drop the oldest events.
            deliver: Whether this process also delivers; True by default. Otherwise its parent does,
                or another process.

        Raises:
            SpoolError: if the directory cannot be created.
        """
        _check_directory(root)
        directory = root / str(session.session_id)
        unfinished = _hidden(directory)
        locks: dict[str, int] = {}
        queues: list[DiskQueue] = []
        tally: Tally | None = None
        try:
            unfinished.mkdir(mode=0o700)
            for name in ("alive", "deliver") if deliver else ("alive",):
                fd = lock_file(unfinished / name, create=True)
                if fd is None:
                    raise OSError("its new lock file is locked already")
                locks[name] = fd
            if not deliver:
                os.close(open_directly(unfinished / "deliver", _NEW))
            write_session(unfinished, session)
            # The queues are created first too: a directory with its final name is complete.
            tally = Tally.create(unfinished)
            shared = not deliver
            queues.append(
                DiskQueue(
                    unfinished,
                    "events",
                    writable=True,
                    max_bytes=max_bytes,
                    overflow=overflow,
                    shared=shared,
                    tally=tally,
                )
            )
            queues.append(DiskQueue(unfinished, "states", writable=True, shared=shared))
            unfinished.rename(directory)
        except OSError as exc:
            shutil.rmtree(unfinished, ignore_errors=True)
            for queue in queues:
                queue.close()
            if tally is not None:
                tally.close()
            while locks:
                os.close(locks.popitem()[1])
            raise SpoolError(
                f"cannot write to the spool directory {root}: {exc.strerror or exc}; "
                f"{'make room on its disk, or ' if exc.errno in _FULL else ''}choose another with Tracker(spool=PATH), or spool=False"
            ) from exc
        for queue in queues:
            queue.moved(directory)
        return cls(directory, session, queues[0], queues[1], locks, tally)

    @classmethod
    def create_first(
        cls,
        places: Places,
        session: Session,
        *,
        max_bytes: int | None = None,
        overflow: Overflow = "drop_oldest",
        fallbacks: bool = False,
        deliver: bool = True,
    ) -> SessionSpool:
        """Create the directory of *session* in the first of the *places* that works.

        Args:
            places: See `structjob.spool.places`.
            session: The session.
            max_bytes: See `create`.
            overflow: See `create`.
            deliver: See `create`.
            fallbacks: Whether to try the places' fallbacks after every error. They are always tried
                if the disk is full: a full disk must not prevent a program from starting.

        Raises:
            SpoolError: if none of them works; the error of the first one.
        """
        first: SpoolError | None = None
        for root in (*places.candidates, *places.fallbacks):
            if root not in places.candidates and not (fallbacks or _is_full(first)):
                break
            try:
                if root.parent in places.shelves and root.parent != places.shared:
                    _check_directory(root.parent)
                spool = cls.create(
                    root, session, max_bytes=max_bytes, overflow=overflow, deliver=deliver
                )
            except SpoolError as exc:
                first = first or exc
                continue
            if first is not None:
                diagnostics.warning("%s; what is logged waits in %s instead", first, root)
            return spool
        assert first is not None  # noqa: S101 -- there is at least one candidate
        raise first

    @property
    def alive(self) -> bool:
        return "alive" not in self._locks

    def try_finish(self) -> bool:
        """Return whether the writer has ended.

        If so, this process locks ``alive``: the queues are final, and no other process gets the
        same result.
        """
        if self.alive and (fd := lock_file(self.directory / "alive", create=True)) is not None:
            self._locks["alive"] = fd
            self.events.final = self.states.final = True
            if self.tally is not None:
                self.tally.reread()
        return not self.alive

    def mark_closed(self) -> None:
        """Note that the session ends in the normal way. What is still written is delivered, too."""
        with contextlib.suppress(OSError):
            os.close(open_directly(self.directory / _CLOSED, _NEW))

    @property
    def was_closed(self) -> bool:
        """Whether the session has ended in the normal way."""
        return os.path.lexists(self.directory / _CLOSED)

    def reopen(self) -> bool:
        """Open the files again that the program has closed, for example to become a daemon.

        Returns:
            Whether they are open. If not, another process has taken over the directory, because
            the locks were released too.
        """
        try:
            for name, held in self._locks.items():
                if not is_open(held):
                    fd = lock_file(self.directory / name, create=False)
                    if fd is None:
                        return False
                    replace_descriptor(held, fd)
            if self.tally is not None:
                self.tally.reopen(self.directory)
            self.events.reopen()
            self.states.reopen()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the files and locks; the next process delivers what still waits."""
        self.events.close()
        self.states.close()
        self._close_others()

    def _close_others(self) -> None:
        if self.tally is not None:
            self.tally.close()
        while self._locks:
            close_apart(self._locks.popitem()[1])

    def set_aside(self, reason: str) -> bool:
        """Keep the directory unchanged and write a note with the *reason* why it cannot be
        delivered.

        Returns:
            Whether the note could be written.
        """
        note = self.directory / _SET_ASIDE
        try:
            with contextlib.suppress(FileNotFoundError):
                note.unlink()
            with open(open_directly(note, _NEW), "wb") as file:
                file.write(reason.encode("utf-8", "replace")[:4096] + b"\n")
        except OSError:
            return False
        finally:
            self.close()
        return True

    def remove(self) -> None:
        """Delete the directory, of which everything is stored."""
        # First rename it, in one atomic step: a directory with its final name is always complete,
        # even if this process ends now.
        gone = _hidden(self.directory)
        with contextlib.suppress(OSError):
            self.directory.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        self.close()

    def forget(self) -> None:
        """Close the files in a forked child; the parent keeps its locks."""
        self.events.forget()
        self.states.forget()
        self._close_others()


_held: weakref.WeakSet[SessionSpool] = weakref.WeakSet()


def _after_fork() -> None:
    """Close the files of all spools in a forked child.

    The child shares the locks of its parent's own and adopted directories, and would hold them as
    long as it lives.
    """
    for spool in list(_held):
        spool.forget()


at_fork("spools", in_child=_after_fork)


_left_alone: set[Path] = set()
"""Spools of living programs that log to another database, each reported once."""
on_reset(_left_alone.clear)


def adopt(
    root: Path, known: set[int], database: str | None = None, *, exactly: bool = False
) -> list[SessionSpool]:
    """Adopt the directories below *root* that no process delivers.

    Args:
        root: A directory of spools; see `structjob.spool.places`.
        known: Sessions to skip: the caller's own, and those adopted before.
        database: The database that the caller delivers to, as in `Session.database`. A spool for
            another database is adopted with a warning.
        exactly: Whether to adopt only spools that are known to be for that database.

    Returns:
        The spools whose lock was free. On a network file system the list is empty: a free lock
        proves nothing there, and the heartbeat decides.
    """
    names = [name for name in _names(root) if int(name) not in known]
    if not names or is_network(root):
        return []
    adopted = []
    for name in names:
        directory = root / name
        if not _ours(directory) or (exactly and not _is_of(directory, database)):
            continue
        # A directory that cannot be read is left to the report of `structjob doctor`; it must not
        # block the others.
        with contextlib.suppress(OSError):
            if (spool := _adopt(directory, database)) is not None:
                adopted.append(spool)
    return adopted


def adopt_elsewhere(places: Places, root: Path | None, known: set[int]) -> list[SessionSpool]:
    """Adopt the spools of a database in its other places.

    These are all spools in the places that belong to this database, and spools in other places that
    name this database.

    Args:
        places: The database's places.
        root: The place to skip.
        known: See `adopt`.
    """
    adopted: list[SessionSpool] = []
    for place, exactly in _in_order(places):
        if place != root and _ours(place):
            with contextlib.suppress(OSError):
                seen = known | {spool.session.session_id for spool in adopted}
                adopted += adopt(place, seen, places.database if exactly else None, exactly=exactly)
    return adopted


def left_in(places: Places) -> list[Path]:
    """Return the session directories of one database on this host, in all its places."""
    found: dict[str, Path] = {}
    for place, exactly in _in_order(places):
        for directory in directories(place):
            if not exactly or _is_of(directory, places.database):
                found.setdefault(os.path.realpath(directory), directory)
    return list(found.values())


def _is_of(directory: Path, database: str | None) -> bool:
    return database is not None and database_of(directory) == database


def _in_order(places: Places) -> Iterator[tuple[Path, bool]]:
    """Yield a database's places, and whether only some of the spools there are for it."""
    for place in places.own():
        yield place, False
    for place in places.neighbours():
        yield place, True


def _adopt(directory: Path, database: str | None) -> SessionSpool | None:
    if (left := set_aside(directory)) is not None and left.age < RETRY_AFTER:
        return None
    fd = lock_file(directory / "deliver", create=False)
    if fd is None and (directory / "deliver").exists():
        return None  # another process delivers it
    try:
        session = read_session(directory)
        if session is not None and fd is None:
            # A backup may have omitted the lock files when the directory was restored: no process
            # holds them.
            fd = lock_file(directory / "deliver", create=True)
        if session is None or fd is None:
            return None
        tally = Tally.open(directory)
        queues = (
            DiskQueue(directory, "events", writable=False, tally=tally),
            DiskQueue(directory, "states", writable=False),
        )
        spool, fd = SessionSpool(directory, session, *queues, {"deliver": fd}, tally), None
    finally:
        if fd is not None:
            os.close(fd)
    spool.try_finish()
    if database is not None and session.database not in (None, database):
        if spool.alive:  # its database is not this one, and a deliverer for it may start soon
            spool.close()
            if directory not in _left_alone:
                _left_alone.add(directory)
                diagnostics.warning(
                    "the spool %s is not delivered to %s: its program runs and logs to %s; a deliverer, or a tracker, of that database delivers it",
                    directory, database, session.database,
                )  # fmt: skip
            return None
        diagnostics.warning(
            "the spool %s was left by a program that logged to %s; it is delivered to %s, which has the same spool=PATH",
            directory,
            session.database,
            database,
        )
    return spool


class SetAside(NamedTuple):
    """Why a directory was set aside, its age in seconds, and the file with the note."""

    reason: str
    age: float
    note: Path


def set_aside(directory: Path) -> SetAside | None:
    """Return why *directory* was set aside by `SessionSpool.set_aside`; ``None`` if it was not."""
    note = directory / _SET_ASIDE
    with contextlib.suppress(OSError):
        content, written = read_start(note, 4096)
        return SetAside(content.decode("utf-8", "replace").strip(), time.time() - written, note)
    return None


def _ours(directory: Path) -> bool:
    """Return whether *directory* is a directory (not a link) and belongs to this user."""
    try:
        info = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def database_of(directory: Path) -> str | None:
    """Return which database a session's *directory* is for, if it can be read and names one."""
    with contextlib.suppress(OSError):
        session = read_session(directory) if _ours(directory) else None
        return session.database if session is not None else None
    return None


def sweep(root: Path) -> None:
    """Delete directories below *root* that were left while a process created or deleted them."""
    with contextlib.suppress(OSError):
        for name in os.listdir(root):
            hidden = root / name
            if not (
                name.startswith(".") and name[1:].isascii() and name[1:].isdigit() and _ours(hidden)
            ):
                continue
            with contextlib.suppress(OSError):
                if (
                    time.time() - os.lstat(hidden).st_mtime > _UNFINISHED
                    and (fd := lock_file(hidden / "alive", create=True)) is not None
                ):
                    shutil.rmtree(hidden, ignore_errors=True)
                    os.close(fd)


def _hidden(directory: Path) -> Path:
    """Return the name of *directory* while it is created or deleted."""
    return directory.with_name("." + directory.name)


def _names(root: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root) if name.isascii() and name.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []


def waiting(directories: Iterable[Path]) -> list[tuple[Path, int]]:
    """Return the bytes that wait in each of the sessions' *directories*; for messages."""
    found = []
    for directory in directories:
        with contextlib.suppress(OSError):
            entries = [entry for entry in os.scandir(directory) if entry.name.endswith(".jsonl")]
            found.append((directory, sum(entry.stat().st_size for entry in entries)))
    return found


def directories(root: Path) -> list[Path]:
    """Return the session directories below *root*; an empty list if it cannot be read."""
    try:
        return [root / name for name in _names(root)]
    except OSError:
        return []


def is_alive(directory: Path) -> bool:
    """Return whether a process writes to a session's *directory* or delivers it."""
    return _is_locked(directory / "alive") or is_delivered(directory)


def is_delivered(directory: Path) -> bool:
    """Return whether a process delivers a session's *directory*."""
    return _is_locked(directory / "deliver")


def _is_locked(path: Path) -> bool:
    fd = lock_file(path, create=False)
    if fd is not None:
        os.close(fd)
        return False
    return path.exists()


def _is_full(fault: SpoolError | None) -> bool:
    return (
        fault is not None
        and isinstance(fault.__cause__, OSError)
        and fault.__cause__.errno in _FULL
    )
