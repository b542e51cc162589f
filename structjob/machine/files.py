"""Open the files that structjob writes, safely even if other users can write to the directory.

Another user can place a link, a file or a pipe under the name that a program is about to write to.
Writing through it changes the wrong file, or gives the written data to the other user. Linux can
prevent a part of this (``fs.protected_symlinks``, ``protected_hardlinks``, ``protected_regular``
and ``protected_fifos``, see Documentation/admin-guide/sysctl/fs.rst in its sources and
proc_sys_fs(5)), but these settings are often off in containers and on other systems. So each file
is opened here, by the same rules:

- **A symbolic link is followed if the current user or root owns it.** Another user's link is
  followed only outside shared directories, if that user also owns the link's directory. It must
  then lead into a directory of the same user. So root can work on the files of a service whose
  owner keeps ``current -> releases/5``, and no link leads root to ``/etc``.
- **An existing file must be a regular file with one name.** With a second hard link, another user
  could make us write to one of our own files. (SQLite also loses data in a database that has two
  names, https://www.sqlite.org/howtocorrupt.html.)
- **The file must belong to the current user or to root, or be in a directory that is not shared.**
  In such a directory, the owner chooses who can create files, as with a log directory for a group
  of users. Another user's file that everyone may write to is always refused.
- **A pipe or a device is opened only if the caller accepts one**, and by the same rules:
  ``/dev/null`` and the user's own pipe are accepted, another user's pipe in ``/tmp`` is not.
  ``/dev/stdout`` and similar names mean the open descriptor itself.
- **A new file is accessible only to its owner** (mode 0600).

A directory is *shared* if everyone may write to it, or if it is sticky and a group may write to it:
``/tmp``, for example. Content of another user's directory below a shared one is treated as if it
were in the shared one. A file of the current user keeps its mode, because only that user or root
can have chosen it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_DESCRIPTOR = re.compile(
    r"/dev/(?:fd/(?P<fd>\d+)|(?P<name>stdout|stderr))|/proc/(?P<pid>\d+|self|thread-self)/fd/(?P<number>\d+)"
)
_NAMED = {"stdout": 1, "stderr": 2}
_APART = 512
"""Lowest number of a file that is set apart: programs seldom have more files open."""
_LINKS_LIMIT = 40
"""Maximum number of links in one path, as in Linux."""


class UnsafeFile(PermissionError):
    """A file that another user may have placed where structjob writes.

    It was neither opened nor changed.
    """


@dataclass(frozen=True, slots=True)
class _Place:
    """The target of a path.

    Attributes:
        path: The path without links.
        planted: Whether it is in a directory that another user created in a shared one.
        shared: Whether other users may have placed the file there.
    """

    path: Path
    planted: bool = False
    shared: bool = False


def open_file(path: str | os.PathLike[str], flags: int, *, special: bool = False) -> int:
    """Open a file for writing, and return its descriptor.

    Args:
        path: The file; links in it are followed by the rules of this module.
        flags: Flags of `os.open`. With ``O_CREAT``, an absent file is created with mode 0600.
        special: Whether to accept a pipe or a device. Default: false.

    Raises:
        UnsafeFile: if another user may have placed the file there.
        OSError: if the file cannot be opened.
    """
    if special and (number := _descriptor(path)) is not None:
        return os.dup(number)
    return _open(_followed(path), flags, special=special)


def ensure_file(path: str | os.PathLike[str]) -> Path:
    """Create a file that other code opens by its name, if it is absent; return its path without
    links.

    SQLite is such code. An existing file is checked but not opened. Closing a file releases every
    lock that this process has on it (fcntl(2)), including those of another connection to the same
    database.

    Raises:
        UnsafeFile: if another user may have placed the file there.
        OSError: if the file cannot be created, read or written.
    """
    place = _followed(path)
    try:
        os.close(_open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, special=False))
    except FileExistsError:
        _check(place, os.lstat(place.path), special=False)
        if not os.access(
            place.path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids
        ):
            raise PermissionError(
                errno.EACCES, os.strerror(errno.EACCES), str(place.path)
            ) from None
    return place.path


def open_directly(path: Path, flags: int) -> int:
    """Open a file in a directory that `make_directory` returned; faster than `open_file`."""
    return _open(_Place(path), flags, special=False)


def read_start(path: Path, most: int) -> tuple[bytes, float]:
    """Return the first *most* bytes of a small file, and when it was last written (Unix time).

    This never blocks, although the path may name a pipe, and it follows no link.

    Raises:
        OSError: if it cannot be read, for example because it is a directory.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(fd, most), os.fstat(fd).st_mtime
    finally:
        os.close(fd)


def set_apart(fd: int) -> int:
    """Give a file that stays open a high number, and return it.

    Some programs close descriptors that they have not opened, for example to become a daemon, and
    then open files of their own, which get the lowest free numbers. What is written to a closed
    descriptor must fail, and must not be written to such a file.
    """
    try:
        apart = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _APART)
    except OSError:  # the limit of open files is lower
        return fd
    os.close(fd)
    return apart


def is_open(fd: int) -> bool:
    """Return whether *fd* is an open descriptor."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def close_apart(fd: int) -> None:
    """Close a file that was set apart, if the program has not closed it."""
    with suppress(OSError):
        os.close(fd)


def replace_descriptor(fd: int, by: int) -> None:
    """Let *fd* be the open file *by*, whose own number is closed."""
    if fd == by:
        return
    try:
        os.dup2(by, fd, inheritable=False)
    finally:
        os.close(by)


def lock_file(path: Path, *, create: bool) -> int | None:
    """Return a descriptor that holds the lock on *path*, or ``None`` if it cannot be locked.

    This is the case if another process holds the lock, or if the file is missing or cannot be
    opened.
    """
    try:
        # Non-blocking, because the path may name a pipe.
        fd = os.open(
            path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0), 0o600
        )
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The file may have been deleted with its directory meanwhile.
        if os.stat(path).st_ino == os.fstat(fd).st_ino:
            return set_apart(fd)
    except OSError:
        pass
    os.close(fd)
    return None


def follow(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path that *path* leads to, without links.

    The file may be absent, its directory must exist.

    Raises:
        UnsafeFile: if a link in the path may be another user's.
        OSError: if a directory in the path is absent.
    """
    return _followed(path).path


def is_special(path: str | os.PathLike[str]) -> bool:
    """Return whether *path* leads to a pipe, a device, or an open descriptor."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_file(path: Path) -> None:
    """Raise an error if another user may have placed the file or link at *path*.

    The file may be absent.

    Raises:
        UnsafeFile: if another user may have placed it.
    """
    with suppress(FileNotFoundError):
        _check(_Place(path), os.lstat(path), special=False)


def belongs(path: Path) -> str:
    """Return whom *path* belongs to, and with which permissions, beside the current user."""
    info = path.stat()
    return f"{path} belongs to {_user(info.st_uid)} ({stat.filemode(info.st_mode)}), and you are {_user(os.geteuid())}"


def make_directory(path: str | os.PathLike[str]) -> Path:
    """Return the directory that *path* leads to, without links; create it if it is absent.

    Absent parents are created, too. New directories have the mode 0700.

    Raises:
        UnsafeFile: if another user may have placed the directory, or a link in the path.
        OSError: if it cannot be created.
    """
    wanted = Path(path).absolute()
    try:
        place = _followed(wanted)
    except FileNotFoundError:
        place = _Place(make_directory(wanted.parent) / wanted.name)
    # the creator of the directory can replace its content by a link at any time
    if place.planted:
        raise _unsafe(
            place.path,
            "is in a directory that another user made and every user may write to",
            "choose another path",
        )
    try:
        os.mkdir(place.path, 0o700)
    except FileExistsError:
        info = os.lstat(place.path)
        if not stat.S_ISDIR(info.st_mode):
            raise
        _check_owner(place, info)
    return place.path


# -- links
# --------------------------------------------------------------------------


def _followed(path: str | os.PathLike[str]) -> _Place:
    waiting = list(reversed(Path(path).absolute().parts[1:]))
    found, above = Path("/"), os.lstat("/")
    planted = False
    owner: int | None = None
    links = 0
    while waiting:
        part = waiting.pop()
        here = found.parent if part == ".." else found / part
        try:
            info = os.lstat(here)
        except FileNotFoundError:
            if waiting:
                raise
            found = here
            break
        if not stat.S_ISLNK(info.st_mode):
            if waiting:
                # Another user's directory in a shared one may have been planted, like a file.
                planted = planted or (_is_shared(above) and not _is_trusted(info.st_uid))
                above = info
            found = here
            continue
        links += 1
        if links > _LINKS_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        if not _is_trusted(info.st_uid):
            if (
                planted
                or _is_shared(above)
                or above.st_uid != info.st_uid
                or owner not in (None, info.st_uid)
            ):
                raise _unsafe(
                    here,
                    f"is a link that belongs to {_user(info.st_uid)}",
                    f"remove it (rm {here}), or choose another path",
                )
            owner = info.st_uid
        target = os.readlink(here)
        if target.startswith("/"):
            found, above = Path("/"), os.lstat("/")
        waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    if owner is not None and os.lstat(found.parent).st_uid != owner:
        raise _unsafe(
            found,
            f"is where a link of {_user(owner)} leads, in a directory of another user's",
            "choose another path",
        )
    return _Place(found, planted, planted or _is_shared(above))


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """Return the open descriptor of this process that *path* means; ``None`` if it means a file."""
    match = _DESCRIPTOR.fullmatch(os.path.abspath(path))
    if match is None or match["pid"] not in (None, "self", "thread-self", str(os.getpid())):
        return None
    return _NAMED[match["name"]] if match["name"] else int(match["fd"] or match["number"])


# -- files
# --------------------------------------------------------------------------


def _open(place: _Place, flags: int, *, special: bool) -> int:
    path = place.path
    # Without blocking, because it may be a pipe. Without truncating, because it is not checked yet.
    opening = flags & ~os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    if special and is_special(path):
        _check(place, os.lstat(path), special=True)
        # opening the user's own pipe blocks until it has a reader
        opening &= ~(os.O_CREAT | os.O_EXCL | os.O_NONBLOCK)
    try:
        fd = os.open(path, opening, 0o600)
    except FileExistsError:
        raise
    except OSError as exc:
        check_file(path)  # gives a more specific error for a link or a pipe
        raise exc from None
    try:
        info = os.fstat(fd)
        _check(place, info, special=special)
        if flags & os.O_TRUNC and stat.S_ISREG(info.st_mode):
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(place: _Place, info: os.stat_result, *, special: bool) -> None:
    """Raise an error if the file's attributes make it unsafe.

    For the current user's own file no other file is examined, because job files are opened for each
    line.
    """
    path = place.path
    if stat.S_ISREG(info.st_mode):
        if info.st_nlink > 1:
            hint = f"find the others (find DIRECTORY -samefile {path}) and remove them, or choose another path"
            raise _unsafe(
                path,
                f"belongs to {_user(info.st_uid)} and has {info.st_nlink} names (hard links)",
                hint,
            )
    elif stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    elif stat.S_ISLNK(info.st_mode) or not special:
        what = "a link" if stat.S_ISLNK(info.st_mode) else "a pipe, a socket or a device"
        raise _unsafe(
            path,
            f"is {what} that belongs to {_user(info.st_uid)}",
            f"remove it (rm {path}), or choose another path",
        )
    if info.st_uid != os.geteuid():
        _check_owner(place, info)


def _check_owner(place: _Place, info: os.stat_result) -> None:
    path = place.path
    whose = f"belongs to {_user(info.st_uid)}"
    hint = f"remove it (rm {path}), or choose another path"
    if _is_trusted(info.st_uid):
        return
    if stat.S_ISREG(info.st_mode) and info.st_mode & stat.S_IWOTH:
        raise _unsafe(
            path,
            f"{whose}, and every user may write to it",
            f"change that (chmod o-w {path}), or {hint}",
        )
    if place.shared or _is_shared(os.lstat(path.parent)):
        raise _unsafe(path, f"{whose}, in a directory that other users can write to", hint)


def _is_trusted(uid: int) -> bool:
    return uid in (os.geteuid(), 0)


def _is_shared(directory: os.stat_result) -> bool:
    mode = directory.st_mode
    return bool(mode & stat.S_IWOTH or (mode & stat.S_ISVTX and mode & stat.S_IWGRP))


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _unsafe(path: Path, what: str, hint: str) -> UnsafeFile:
    return UnsafeFile(errno.EPERM, f"{path} {what}: structjob does not write to it; {hint}")
