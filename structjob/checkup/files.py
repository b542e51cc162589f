"""The file of an SQLite database, and what its disk and this user allow."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from structjob.checkup import trial
from structjob.checkup.finding import Finding, Verdict, ok, problem, warning
from structjob.machine.files import belongs
from structjob.machine.host import is_network
from structjob.store.database_file import OTHER_USER, foreign, has_temporary_directory
from structjob.text.amounts import in_bytes

LITTLE_SPACE = 1 << 30
NO_SPACE = 1 << 20
"""Bytes of free space below which neither the database nor the spool can take another batch."""

LARGE_WAL = 256 << 20


def wrong(path: Path, shown: str) -> Finding | None:
    """Return why SQLite cannot open the file at *path*; ``None`` if it can, or without a file."""
    if not os.path.exists(path):
        return None
    try:
        found = foreign(path)
    except OSError:
        return problem("file", f"{shown} cannot be read: {forbidden(path)}", OTHER_USER)
    return None if found is None else problem("file", f"{shown} {found[0]}", found[1])


def file(path: Path, shown: str) -> Iterator[Finding]:
    try:
        info = path.stat()
    except PermissionError as exc:
        yield problem("file", f"{shown} cannot be accessed: {exc.strerror}", OTHER_USER)
        return
    except OSError:
        if not path.parent.is_dir():
            yield problem(
                "file",
                f"{shown} cannot be created: its directory does not exist",
                f"mkdir -p {shlex.quote(str(path.parent))}",
            )
        elif not os.access(path.parent, os.W_OK):
            yield problem(
                "file", f"{shown} cannot be created: {forbidden(path.parent)}", OTHER_USER
            )
        else:
            advice = "check the path; if it is right, the first tracker creates the file, or `structjob migrate` does"
            yield problem("file", f"there is no database {shown}", advice)
        yield from space(path.parent, "disk")
        return
    refused = next((one for one in (path, path.parent) if not os.access(one, os.W_OK)), None)
    if refused is not None:
        yield problem("file", f"{shown} cannot be written to: {forbidden(refused)}", OTHER_USER)
    elif info.st_mode & 0o077:
        yield warning(
            "file",
            f"others may read or write {shown} ({stat.filemode(info.st_mode)})",
            f"chmod 600 {path}",
        )
    else:
        yield ok(
            "file",
            f"{shown}, {in_bytes(info.st_size)}, {stat.filemode(info.st_mode)}",
            details={"bytes": info.st_size},
        )
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and (size := wal.stat().st_size) > LARGE_WAL:
        yield warning(
            "wal",
            f"{wal.name} has {in_bytes(size)}: a reader keeps SQLite from copying it back",
            "end what reads for hours",
        )
    if refused is None:
        yield from _writing(path)
    yield from _damage(path)
    if not has_temporary_directory():
        found = "SQLite finds no directory for temporary files that can be written to: large queries sort in memory"
        yield warning(
            "temporary files", found, "set SQLITE_TMPDIR to a directory that can be written to"
        )
    yield from network(path.parent, "the database")
    yield from space(path.parent, "disk")


def _writing(path: Path) -> Iterator[Finding]:
    """Report a file that cannot be written; it may still be readable."""
    try:
        refused = trial.write_to_file(path)
    except trial.Locked:
        found = f"another program has held the write lock for {trial.LONG_LOCK:g} s; no other program can write"
        yield problem(
            "lock", found, f"find it, and end its transaction: fuser -v {shlex.quote(str(path))}"
        )
        return
    if refused is None:
        yield ok("write", "a large event was inserted and rolled back")
    else:
        yield problem(
            "write",
            f"{path} takes no writes: {refused}",
            "check the disk, its quota and how it is mounted",
        )


def _damage(path: Path) -> Iterator[Finding]:
    try:
        found, whole = trial.damage(path)
    except trial.Locked:
        yield warning(
            "damage",
            f"{path} is locked and cannot be read to look for damage",
            "end the transaction that holds the lock, and run this again",
        )
        return
    except trial.Unreadable as exc:
        yield warning(
            "damage",
            f"{path} cannot be read to look for damage: {exc}",
            "run this as the user that owns the file",
        )
        return
    if found is not None:
        restore = f"restore it from a backup, or save what can be read: sqlite3 {shlex.quote(str(path))} .recover | sqlite3 new.db"
        yield problem("damage", f"the file is damaged: {found}", restore)
    elif whole:
        yield ok("damage", "none found by SQLite's quick check")
    else:
        yield ok(
            "damage", f"none found in {trial.QUICK_CHECK:g} s; the rest of the file was not checked"
        )


def forbidden(path: Path) -> str:
    """Return why *path* cannot be written to: its file system, or its owner and permissions beside
    the current user.
    """
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is on a file system that is mounted read-only"
    return belongs(path)


def network(path: Path, what: str) -> Iterator[Finding]:
    if is_network(path):
        yield warning(
            "network",
            f"{what} is on a network file system, where locks prove little",
            "keep it on a disk of this machine",
        )


def space(path: Path, check: str) -> Iterator[Finding]:
    if not os.path.isdir(path):
        return
    free = shutil.disk_usage(path).free
    if free < LITTLE_SPACE:
        verdict: Verdict = "warning" if free >= NO_SPACE else "problem"
        yield Finding(
            check,
            verdict,
            f"{in_bytes(free)} free at {path}",
            "free disk space: events are dropped when the disk is full",
        )
    else:
        yield ok(check, f"{in_bytes(free)} free", details={"free": free})
