"""A session is one running process (and one tracker in it). On disk it is a directory with its lanes and two lock files.

``alive`` is locked (``flock``) by the process that writes, until it ends in whatever way; ``deliver`` by the one that delivers: the
writer's own engine, or whoever adopted the directory. A forked child has no engine: it holds ``alive`` only, and its parent delivers.
A lock is closed, never unlocked: a fork may share it. While a directory is made or deleted its name begins with a dot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import socket
import stat
import time
import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from structjob.diagnostics import diagnostics
from structjob.exceptions import SpoolError
from structjob.host import boot_id, is_network
from structjob.lane import Overflow
from structjob.spool import FileLane
from structjob.tally import Tally

_META = "session.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNFINISHED = 60.0
"""Seconds after which a directory that is still being made, or deleted, was left so."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who writes: drawn at random, 53 bits, so that JavaScript can hold it."""

    session_id: int = field(default_factory=lambda: secrets.randbits(53) | 1)
    host: str = field(default_factory=socket.gethostname)
    boot_id: str | None = field(default_factory=boot_id)
    pid: int = field(default_factory=os.getpid)
    service: str | None = None
    version: str | None = None
    started_at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"))
    database: str | None = None
    """Which database its events are for (see `structjob.store.url.identity`), where the place of its spool does not say so."""

    def successor(self) -> Session:
        """Return the session of a process that was forked from this one's."""
        return Session(service=self.service, version=self.version, database=self.database)


def spool_root(spool: bool | str | os.PathLike[str], database: Path | None, masked_url: str) -> Path:
    """Return the directory that holds the sessions' directories of one database.

    Args:
        spool: The tracker's option: a path, or ``True`` for the usual place.
        database: The file of an SQLite database: its spool stands beside it.
        masked_url: URL of a server database, without password: names the place below ``./.structjob``.
    """
    if not isinstance(spool, bool):
        return Path(spool).absolute()  # a program may change its directory later on
    if database is not None:
        return database.with_name(database.name + ".spool")
    return Path(".structjob").absolute() / hashlib.sha256(masked_url.encode()).hexdigest()[:16]


def _check_directory(path: Path) -> None:
    """Make *path* ours alone: a directory, no link, of this user, 0700."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = os.lstat(path)
    except OSError as exc:
        raise SpoolError(
            f"cannot create the spool directory {path}: {exc.strerror}; choose another with Tracker(spool=PATH), or spool=False"
        ) from exc
    if not stat.S_ISDIR(info.st_mode):
        raise SpoolError(f"the spool directory {path} is not a directory; move it away, or choose another with Tracker(spool=PATH)")
    if info.st_uid != os.geteuid():
        raise SpoolError(f"the spool directory {path} belongs to another user (uid {info.st_uid}); choose another with Tracker(spool=PATH)")
    if info.st_mode & 0o077:
        os.chmod(path, 0o700)
    if not os.access(path, os.W_OK | os.X_OK):
        raise SpoolError(
            f"the spool directory {path} cannot be written to; check its permissions, or choose another with Tracker(spool=PATH)"
        )


def _lock(path: Path, *, create: bool) -> int | None:
    """Return a descriptor that holds the lock on *path*, or ``None`` if another holds it (or it is gone, or no file of ours)."""
    try:
        # Non-blocking: what lies there by this name may be a pipe.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0), 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The file may have been deleted with its directory meanwhile.
        if os.stat(path).st_ino == os.fstat(fd).st_ino:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


class SessionSpool:
    """A session's directory with its lanes.

    Attributes:
        session: Whose it is.
        events: The lane of the log events.
        states: The lane of the changes of state; no flood of logs fills it.
        tally: What is known of its numbers; ``None`` if that was lost.
        alive: Whether its process may still write.
    """

    def __init__(
        self, directory: Path, session: Session, events: FileLane, states: FileLane, locks: dict[str, int], tally: Tally | None
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
        cls, root: Path, session: Session, *, max_bytes: int | None = None, overflow: Overflow = "drop_oldest", deliver: bool = True
    ) -> SessionSpool:
        """Make the directory of *session* below *root*.

        It appears under its name only with its locks held: nobody can take it for an orphan's before.

        Raises:
            SpoolError: if it cannot be made.
        """
        _check_directory(root)
        directory = root / str(session.session_id)
        unfinished = _hidden(directory)
        locks: dict[str, int] = {}
        lanes: list[FileLane] = []
        tally: Tally | None = None
        try:
            unfinished.mkdir(mode=0o700)
            for name in ("alive", "deliver") if deliver else ("alive",):
                fd = _lock(unfinished / name, create=True)
                if fd is None:
                    raise OSError("its new lock file is locked already")
                locks[name] = fd
            if not deliver:
                (unfinished / "deliver").touch(0o600)
            fd = os.open(unfinished / _META, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(session))
            # The lanes too: a directory that has its name is whole.
            tally = Tally.create(unfinished)
            shared = not deliver
            lanes.append(
                FileLane(unfinished, "events", writable=True, max_bytes=max_bytes, overflow=overflow, shared=shared, tally=tally)
            )
            lanes.append(FileLane(unfinished, "states", writable=True, shared=shared))
            unfinished.rename(directory)
        except OSError as exc:
            shutil.rmtree(unfinished, ignore_errors=True)
            for lane in lanes:
                lane.close()
            if tally is not None:
                tally.close()
            while locks:
                os.close(locks.popitem()[1])
            raise SpoolError(
                f"cannot write to the spool directory {root}: {exc.strerror or exc}; "
                f"{'make room on its disk, or ' if exc.errno in _FULL else ''}choose another with Tracker(spool=PATH), or spool=False"
            ) from exc
        for lane in lanes:
            lane.moved(directory)
        return cls(directory, session, lanes[0], lanes[1], locks, tally)

    @property
    def alive(self) -> bool:
        return "alive" not in self._locks

    def try_finish(self) -> bool:
        """Return whether the writer has ended; from then on the lanes are final, and no-one else can think so too."""
        if self.alive and (fd := _lock(self.directory / "alive", create=True)) is not None:
            self._locks["alive"] = fd
            self.events.final = self.states.final = True
            if self.tally is not None:
                self.tally.reread()
        return not self.alive

    def close(self) -> None:
        """Let go of the files and locks: what waits is now up to the next process."""
        self.events.close()
        self.states.close()
        self._close_others()

    def _close_others(self) -> None:
        if self.tally is not None:
            self.tally.close()
        while self._locks:
            os.close(self._locks.popitem()[1])

    def remove(self) -> None:
        """Delete the directory: all of it is stored."""
        # In one step out of everybody's sight: what has its name is whole, whatever happens meanwhile.
        gone = _hidden(self.directory)
        with contextlib.suppress(OSError):
            self.directory.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        self.close()

    def forget(self) -> None:
        """Let go of the files in a forked child; the parent's locks stay its own."""
        self.events.forget()
        self.states.forget()
        self._close_others()


_held: weakref.WeakSet[SessionSpool] = weakref.WeakSet()


def _after_fork() -> None:
    """A lock is shared with a forked child, which would keep it for as long as it lives: its own and those of adopted directories."""
    for spool in list(_held):
        spool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def adopt(root: Path, known: set[int], database: str | None = None) -> list[SessionSpool]:
    """Take over the directories below *root* that nobody delivers.

    Args:
        root: See `spool_root`.
        known: Sessions not to look at: one's own, and those taken over before.
        database: Which database one delivers to, as it stands in `Session.database`: what was for another one is told of.

    Returns:
        Those whose lock was free. On a network file system none is: there a
        free lock proves nothing, and the heartbeat decides.
    """
    if is_network(root):
        return []
    adopted = []
    for name in _names(root):
        directory = root / name
        if int(name) in known or not _ours(directory):
            continue
        fd = _lock(directory / "deliver", create=False)
        if fd is None and (directory / "deliver").exists():
            continue  # somebody delivers it
        session = _read_session(directory)
        if session is not None and fd is None:
            # Whoever restored the directory from a backup left the lock files out: nobody holds them.
            fd = _lock(directory / "deliver", create=True)
        if session is None or fd is None:
            if fd is not None:
                os.close(fd)
            continue
        if database is not None and session.database not in (None, database):
            diagnostics.warning(
                "the spool %s was left by a program that logged to %s; it is delivered to %s, which has the same spool=PATH",
                directory,
                session.database,
                database,
            )
        tally = Tally.open(directory)
        spool = SessionSpool(
            directory,
            session,
            FileLane(directory, "events", writable=False, tally=tally),
            FileLane(directory, "states", writable=False),
            {"deliver": fd},
            tally,
        )
        spool.try_finish()
        adopted.append(spool)
    return adopted


def _ours(directory: Path) -> bool:
    """Return whether *directory* is one, no link, and this user's."""
    try:
        info = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def _read_session(directory: Path) -> Session | None:
    """Return whose *directory* is; ``None`` if it is no session's."""
    number = int(directory.name)
    if not 0 < number < 1 << 53 or directory.name != str(number):
        return None
    try:
        fd = os.open(directory / _META, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            session = msgspec.json.decode(file.read(65_536), type=Session)
        if session.session_id == number:
            return session
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        pass
    # A power cut may leave the file empty. The events are worth more than knowing whose they are.
    lanes = FileLane(directory, "events", writable=False), FileLane(directory, "states", writable=False)
    return Session(number, "unknown", None, 0) if any(lane.position() for lane in lanes) else None


def sweep(root: Path) -> None:
    """Delete below *root* what a process left that ended while it made a session's directory, or deleted one."""
    with contextlib.suppress(OSError):
        for name in os.listdir(root):
            hidden = root / name
            if not (name.startswith(".") and name[1:].isascii() and name[1:].isdigit() and _ours(hidden)):
                continue
            with contextlib.suppress(OSError):
                if time.time() - os.lstat(hidden).st_mtime > _UNFINISHED and (fd := _lock(hidden / "alive", create=True)) is not None:
                    shutil.rmtree(hidden, ignore_errors=True)
                    os.close(fd)


def _hidden(directory: Path) -> Path:
    """Return the name of *directory* while it is made, or deleted."""
    return directory.with_name("." + directory.name)


def _names(root: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root) if name.isascii() and name.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []


def waiting(root: Path) -> list[tuple[str, int]]:
    """Return name and bytes of each session's directory below *root*; for messages."""
    found = []
    for name in _names(root):
        with contextlib.suppress(OSError):
            found.append((name, sum(entry.stat().st_size for entry in os.scandir(root / name) if entry.name.endswith(".jsonl"))))
    return found


def is_alive(directory: Path) -> bool:
    """Return whether somebody writes to a session's *directory*, or delivers what is in it."""
    for name in ("alive", "deliver"):
        fd = _lock(directory / name, create=False)
        if fd is None and (directory / name).exists():
            return True
        if fd is not None:
            os.close(fd)
    return False
