"""The checks of ``structjob doctor``: each reports what it found, and how to fix it if it is
wrong.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from structjob.cli import trial
from structjob.cli.database import places_of
from structjob.exceptions import StructjobError
from structjob.store.sqlite import has_temporary_directory
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from structjob.cli.database import Database
    from structjob.spool.places import Places

Verdict = Literal["ok", "warning", "problem"]

DRIVERS = {
    "mysql": ("asyncmy", "mysql"),
    "mariadb": ("asyncmy", "mysql"),
    "postgresql": ("asyncpg", "postgres"),
}
"""The driver's package and the extra that installs it, by database."""

SAFE_WAL = (3, 51, 3)
"""The first SQLite version whose WAL is safe to reset while several processes write; see
https://sqlite.org/wal.html.
"""

LITTLE_SPACE = 1 << 30
NO_SPACE = 1 << 20
"""Bytes of free space below which neither the database nor the spool can take another batch."""
SKEW = timedelta(seconds=2)
"""Maximum difference between this machine's clock and the database's. Beyond it, times of jobs on
several machines cannot be compared.
"""

LARGE_WAL = 256 << 20
_TAIL = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check.

    Args:
        check: The name of the check.
        verdict: ``ok``, ``warning`` (it works now, but may soon fail) or ``problem``.
        found: What was found.
        advice: How to fix it.
        details: The same as numbers, for programs.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A spool on this host.

    Args:
        session_id: The session that wrote it.
        size: Its bytes, including delivered ones that are not deleted yet.
        last_seq: The number of its newest line.
        alive: Whether a process writes to it or delivers it.
        directory: Its directory.
    """

    session_id: int
    size: int
    last_seq: int
    alive: bool
    directory: Path


def checkup(db: Database) -> Iterator[Finding]:
    """Run all checks, and yield the findings of each as soon as it is done."""
    yield _program()
    yield _driver(db)
    if db.path is not None:
        yield _sqlite()
        yield from _file(db.path, db.shown)
    spools = list(waiting_spools(db))
    yield from _spool_directory(db)
    yield from _set_aside(spools)
    yield from _in_database(db, spools)


def _program() -> Finding:
    about = {
        "structjob": version("structjob"),
        "python": platform.python_version(),
        "structlog": version("structlog"),
    }
    found = [*(f"{name} {number}" for name, number in about.items()), platform.platform()]
    return Finding("version", "ok", ", ".join(found), details=about)


def _driver(db: Database) -> Finding:
    name = db.url.get_backend_name()
    if name not in DRIVERS:
        return Finding(
            "driver", "ok", f"sqlite3 of the standard library, SQLAlchemy {version('SQLAlchemy')}"
        )
    package, extra = DRIVERS[name]
    try:
        return Finding(
            "driver", "ok", f"{package} {version(package)}, SQLAlchemy {version('SQLAlchemy')}"
        )
    except PackageNotFoundError:
        return Finding(
            "driver", "problem", f"{package} is not installed", f"pip install 'structjob[{extra}]'"
        )


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= SAFE_WAL:
        return Finding("sqlite", "ok", sqlite3.sqlite_version)
    return Finding(
        "sqlite",
        "warning",
        f"{sqlite3.sqlite_version} has a fault that may, very rarely, damage a file that several processes write to at once",
        f"use a Python with SQLite {'.'.join(map(str, SAFE_WAL))} or newer, or one process a file",
    )


# -- files
# --------------------------------------------------------------------------


def _file(path: Path, shown: str) -> Iterator[Finding]:
    try:
        info = path.stat()
    except PermissionError as exc:
        yield Finding(
            "file", "problem", f"{shown} cannot be looked at: {exc.strerror}", _OTHER_USER
        )
        return
    except OSError:
        if not path.parent.is_dir():
            yield Finding(
                "file",
                "problem",
                f"{shown} cannot be created: its directory does not exist",
                f"mkdir -p {path.parent}",
            )
        elif not os.access(path.parent, os.W_OK):
            yield Finding(
                "file",
                "problem",
                f"{shown} cannot be created: {_forbidden(path.parent)}",
                _OTHER_USER,
            )
        else:
            advice = "check the path; if it is right, the first tracker creates the file, or `structjob migrate` does"
            yield Finding("file", "problem", f"there is no database {shown}", advice)
        yield from _space(path.parent, "disk")
        return
    refused = next((one for one in (path, path.parent) if not os.access(one, os.W_OK)), None)
    if refused is not None:
        yield Finding(
            "file", "problem", f"{shown} cannot be written to: {_forbidden(refused)}", _OTHER_USER
        )
    elif info.st_mode & 0o077:
        yield Finding(
            "file",
            "warning",
            f"others may read or write {shown} ({stat.filemode(info.st_mode)})",
            f"chmod 600 {path}",
        )
    else:
        yield Finding(
            "file",
            "ok",
            f"{shown}, {_bytes(info.st_size)}, {stat.filemode(info.st_mode)}",
            details={"bytes": info.st_size},
        )
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and (size := wal.stat().st_size) > LARGE_WAL:
        yield Finding(
            "wal",
            "warning",
            f"{wal.name} has {_bytes(size)}: a reader keeps SQLite from copying it back",
            "end what reads for hours",
        )
    if refused is None:
        yield from _writing(path)
    yield from _damage(path)
    if not has_temporary_directory():
        found = "SQLite finds no directory for temporary files that can be written to: large queries sort in memory"
        yield Finding(
            "temporary files",
            "warning",
            found,
            "set SQLITE_TMPDIR to a directory that can be written to",
        )
    yield from _network(path.parent, "the database")
    yield from _space(path.parent, "disk")


def _writing(path: Path) -> Iterator[Finding]:
    """Report a file that cannot be written; it may still be readable."""
    try:
        refused = trial.write_to_file(path)
    except trial.Locked:
        found = f"another program has held the write lock for {trial.LONG_LOCK:g} s; no other program can write"
        yield Finding(
            "lock",
            "problem",
            found,
            f"find it, and end its transaction: fuser -v {shlex.quote(str(path))}",
        )
        return
    if refused is None:
        yield Finding("write", "ok", "a large event was inserted and rolled back")
    elif "not a database" not in refused:  # reported below
        yield Finding(
            "write",
            "problem",
            f"{path} takes no writes: {refused}",
            "check the disk, its quota and how it is mounted",
        )


def _damage(path: Path) -> Iterator[Finding]:
    found, whole = trial.damage(path)
    if found is not None:
        if "not a database" in found:  # reported below
            return
        restore = f"restore it from a backup, or save what can be read: sqlite3 {shlex.quote(str(path))} .recover | sqlite3 new.db"
        yield Finding("damage", "problem", f"the file is damaged: {found}", restore)
    elif whole:
        yield Finding("damage", "ok", "none found by SQLite's quick check")
    else:
        yield Finding(
            "damage",
            "ok",
            f"none found in {trial.QUICK_CHECK:g} s; the rest of the file was not looked at",
        )


_OTHER_USER = "run this and the program as the user whose it is, or have its owner changed"


def _forbidden(path: Path) -> str:
    """Return the owner and the permissions of *path*, and the current user."""
    info = path.stat()
    return f"{path} belongs to {_user(info.st_uid)} ({stat.filemode(info.st_mode)}), and you are {_user(os.geteuid())}"


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def _spool_directory(db: Database) -> Iterator[Finding]:
    places = places_of(db)
    if places is None:
        yield Finding("spool", "ok", "none: the database is in memory")
        return
    # As a tracker does: use the first usable directory, or else create one.
    root = next((place for place in places.candidates if _can_be_made(place)), places.candidates[0])
    if db.path is None:
        yield from _neighbours(places)
    if not os.path.exists(root):
        if _can_be_made(root):
            above = next(path for path in root.parents if os.path.isdir(path))
            if (refused := trial.write_to_directory(above)) is not None:
                yield Finding(
                    "spool",
                    "problem",
                    f"{above} takes no writes: {refused}",
                    "check the disk, its quota and how it is mounted",
                )
            else:
                yield Finding(
                    "spool", "ok", f"{root} does not exist yet; the first tracker creates it"
                )
        else:
            yield Finding(
                "spool",
                "problem",
                f"{root} cannot be created",
                f"{_OTHER_USER}; or name another with $STRUCTJOB_SPOOL",
            )
        return
    info = os.lstat(root)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        what = _forbidden(root) if stat.S_ISDIR(info.st_mode) else f"{root} is no directory"
        yield Finding(
            "spool", "problem", what, f"{_OTHER_USER}; or name another with Tracker(spool=PATH)"
        )
    elif (refused := trial.write_to_directory(root)) is not None:
        yield Finding(
            "spool",
            "problem",
            f"{root} takes no writes: {refused}",
            "check the disk, its quota and how it is mounted",
        )
    elif info.st_mode & 0o077:
        yield Finding(
            "spool",
            "warning",
            f"others may look into {root} ({stat.filemode(info.st_mode)})",
            f"chmod 700 {root}",
        )
    else:
        yield Finding("spool", "ok", f"{root}, {stat.filemode(info.st_mode)}")
    yield from _network(root, "the spool")
    if db.path is None or root.parent.stat().st_dev != db.path.parent.stat().st_dev:
        yield from _space(root, "spool's disk")


def _can_be_made(place: Path) -> bool:
    """Return whether the directory *place* exists, or this user may create it."""
    there = next((path for path in (place, *place.parents) if os.path.lexists(path)), place)
    return there == place or os.access(there, os.W_OK | os.X_OK)


def _set_aside(spools: list[Waiting]) -> Iterator[Finding]:
    """Report the spools that a tracker could not deliver, and why."""
    from structjob.spool import directory as spool_directory

    for spool in spools:
        left = spool_directory.set_aside(spool.directory)
        if left is not None:
            found = f"{_bytes(spool.size)} in {spool.directory} were set aside: {left.reason}"
            later = f"{spool_directory.RETRY_AFTER / 60:.0f} minutes later"
            advice = f"a tracker tries it again {later}, or at once without its note: rm {shlex.quote(str(left.note))}"
            yield Finding(
                "set aside",
                "warning",
                found,
                advice,
                {"session": spool.session_id, "reason": left.reason},
            )


def _neighbours(places: Places) -> Iterator[Finding]:
    """Report what waits in other spool directories.

    The spools of this database are delivered from there; those of another database are only named.
    """
    from structjob.spool import directory as spool_directory

    for place in places.neighbours():
        left = {
            directory: size
            for directory, size in spool_directory.waiting(spool_directory.directories(place))
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
            found = f"{_bytes(sum(left.values()))} of {count_of(len(left), 'program')} that logged to {', '.join(others)} wait in {place}"
            advice = f"a tracker on that URL delivers them; if it was wrong, move the directories in it to {places.candidates[0]}"
            details = {
                "directory": str(place),
                "sessions": {directory.name: size for directory, size in left.items()},
            }
            yield Finding("spools of other URLs", "warning", found, advice, details)


def _network(path: Path, what: str) -> Iterator[Finding]:
    from structjob.machine.host import is_network

    if is_network(path):
        yield Finding(
            "network",
            "warning",
            f"{what} is on a network file system, where locks prove little",
            "keep it on a disk of this machine",
        )


def _space(path: Path, check: str) -> Iterator[Finding]:
    if not os.path.isdir(path):
        return
    free = shutil.disk_usage(path).free
    if free < LITTLE_SPACE:
        verdict: Verdict = "warning" if free >= NO_SPACE else "problem"
        yield Finding(
            check,
            verdict,
            f"{_bytes(free)} free at {path}",
            "make room: a full disk is where events begin to be dropped",
        )
    else:
        yield Finding(check, "ok", f"{_bytes(free)} free", details={"free": free})


def waiting_spools(db: Database) -> Iterator[Waiting]:
    """Yield the non-empty spools of *db* on this host, from all directories."""
    from structjob.spool import directory as spool_directory

    places = places_of(db)
    if places is None:
        return
    for directory, size in spool_directory.waiting(spool_directory.left_in(places)):
        yield Waiting(
            int(directory.name),
            size,
            _last_seq(directory),
            spool_directory.is_alive(directory),
            directory,
        )


def _last_seq(directory: Path) -> int:
    """Return the number of the last complete line, from the newest segment that has one."""
    from structjob.spool.line import number_of, verify_line

    for path in sorted(directory.glob("events-*.jsonl"), reverse=True):
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


# -- the database
# --------------------------------------------------------------------------


def _in_database(db: Database, spools: list[Waiting]) -> Iterator[Finding]:
    from structjob.cli.connection import connected

    if db.path is not None and not os.path.exists(db.path):
        yield from _undelivered(spools)
        return
    if db.in_memory:
        yield Finding(
            "database",
            "problem",
            "a database in memory is seen by its own program only",
            "name a file, such as sqlite:///jobs.db",
        )
        return
    try:
        findings = connected(
            db, lambda connection: list(_examine(connection, db, spools)), read_only=True
        )
    except ModuleNotFoundError:
        findings = [*_undelivered(spools)]  # the driver's fault is reported already
    except StructjobError as exc:
        findings = [Finding("database", "problem", str(exc)), *_undelivered(spools)]
    yield from findings


def _undelivered(spools: list[Waiting]) -> Iterator[Finding]:
    """Report the spools that wait for a database which cannot be asked how much is stored."""
    if size := sum(spool.size for spool in spools):
        yield Finding(
            "lag",
            "warning",
            f"{_bytes(size)} wait in {count_of(len(spools), 'spool')} for the database",
            "leave the spool where it is: it is delivered as soon as a tracker, or a command that reads, reaches the database",
            {"sessions": [spool.session_id for spool in spools], "bytes": size},
        )


def _examine(connection: Connection, db: Database, spools: list[Waiting]) -> Iterator[Finding]:
    from structjob.store import migrations

    # the first statement also pays for the connection's setup, so it is not measured
    _clock(connection)
    began = time.monotonic()
    now = _clock(connection)
    answered = time.monotonic() - began
    number = ".".join(map(str, connection.dialect.server_version_info or ()))
    yield Finding(
        "database",
        "ok",
        f"{db.shown} answers in {answered * 1000:.1f} ms ({connection.dialect.name} {number})",
        details={"milliseconds": round(answered * 1000, 3), "version": number},
    )
    if db.path is None:
        yield _skew(now, answered)
    try:
        found = migrations.current(connection)
    except StructjobError as exc:
        yield Finding("tables", "problem", str(exc))
        return
    if found is None:
        yield Finding(
            "tables", "ok", "none yet; the first tracker creates them, or `structjob migrate`"
        )
        return
    if found != migrations.head():
        advice = (
            "structjob migrate"
            if db.path is None
            else "the next tracker upgrades them, or `structjob migrate`"
        )
        verdict: Verdict = "problem" if db.path is None else "warning"
        yield Finding(
            "tables",
            verdict,
            f"at revision {found}; this version of structjob needs {migrations.head()}",
            advice,
        )
        return
    if absent := _absent(connection):
        lacking = f"at revision {found}, yet there is no {', no '.join(absent)}"
        yield Finding("tables", "problem", lacking, "restore the database from a backup")
        return
    yield Finding("tables", "ok", f"at revision {found}")
    if db.path is None:
        yield from _characters(connection)
        yield from _rights(connection)
    yield from _contents(connection, spools)


def _rights(connection: Connection) -> Iterator[Finding]:
    """Try each statement that a tracker needs on each table of a server."""
    refused = trial.missing_rights(connection)
    if refused:
        error = refused[0].error
        if {one.right for one in refused} == {
            "INSERT",
            "UPDATE",
            "DELETE",
        } and "denied" not in error:
            yield Finding(
                "write",
                "problem",
                f"the server takes no writes: {error}",
                "name the primary server in the URL",
            )
            return
        lacking: dict[str, list[str]] = {}
        for one in refused:
            lacking.setdefault(one.table, []).append(one.right)
        (table, rights), *more = lacking.items()
        others = f", and on {count_of(len(more), 'more table')}" if more else ""
        found = f"this user lacks {', '.join(rights)} on {table}{others}: {error}"
        yield Finding("rights", "problem", found, _grants(connection))
        return
    yield Finding("rights", "ok", "SELECT, INSERT, UPDATE and DELETE on each table")
    failed = trial.write_and_roll_back(connection)
    if failed is None:
        yield Finding("write", "ok", "a large event was inserted and rolled back")
    else:
        yield Finding(
            "write",
            "problem",
            f"the server takes no writes: {failed.error}",
            "check its disk, its quota and its log",
        )


def _grants(connection: Connection) -> str:
    """Return the statements that grant a user the rights that a tracker needs."""
    rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON"
    if connection.dialect.name == "postgresql":
        user, schema = connection.exec_driver_sql(
            "SELECT quote_ident(current_user), quote_ident(current_schema())"
        ).one()
        return f"{rights} ALL TABLES IN SCHEMA {schema} TO {user}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {user}"
    user, database = connection.exec_driver_sql("SELECT current_user(), database()").one()
    name, _, host = str(user).rpartition("@")
    return f"{rights} `{database}`.* TO '{name}'@'{host}'"


def _absent(connection: Connection) -> list[str]:
    """Return the tables of this version that do not exist."""
    from sqlalchemy import inspect, text

    from structjob.store.tables import metadata

    # in any schema of the search path, where every statement finds them
    if connection.dialect.name == "postgresql":
        found = text("SELECT to_regclass(:name) IS NOT NULL")
        return [
            name
            for name in metadata.tables
            if not connection.execute(found, {"name": name}).scalar()
        ]
    there = set(inspect(connection).get_table_names())
    return [name for name in metadata.tables if name not in there]


def _characters(connection: Connection) -> Iterator[Finding]:
    from structjob.store import charset

    for found, advice in charset.advice(connection):
        yield Finding("characters", "warning", found, advice)


def _clock(connection: Connection) -> datetime:
    from sqlalchemy import select

    from structjob.store.expressions import utc_now

    now: datetime = connection.execute(select(utc_now())).scalar_one()
    return now if now.tzinfo is not None else now.replace(tzinfo=UTC)


def _skew(now: datetime, answered: float) -> Finding:
    skew = datetime.now(UTC) - now - timedelta(seconds=answered / 2)
    details = {"seconds": round(skew.total_seconds(), 3)}
    if abs(skew) - timedelta(seconds=answered / 2) > SKEW:
        ahead = "ahead of" if skew > timedelta() else "behind"
        return Finding(
            "clock",
            "warning",
            f"this machine's clock is {abs(skew.total_seconds()):.1f} s {ahead} the database's",
            "synchronise both (NTP): events are dated by the machine that logs them",
            details,
        )
    return Finding(
        "clock", "ok", f"{abs(skew.total_seconds()):.3f} s from the database's", details=details
    )


def _contents(connection: Connection, spools: list[Waiting]) -> Iterator[Finding]:
    from sqlalchemy import func, select

    from structjob.queries.verify import STALE_AFTER
    from structjob.store import tables
    from structjob.store.expressions import utc_now

    logs, sessions = tables.logs.c, tables.sessions.c
    stored = {
        spool.session_id: connection.execute(
            select(func.max(logs.seq)).where(logs.session_id == spool.session_id)
        ).scalar()
        or 0
        for spool in spools
    }
    yield _lag(spools, stored)
    orphaned = [spool for spool in spools if not spool.alive]
    if orphaned:
        yield Finding(
            "orphans",
            "warning",
            f"{_bytes(sum(spool.size for spool in orphaned))} of programs that died wait in {count_of(len(orphaned), 'spool')}",
            "the next tracker delivers them, or any reading command, such as `structjob jobs`",
            {"sessions": [spool.session_id for spool in orphaned]},
        )
    seen = func.coalesce(sessions.heartbeat_at, sessions.started_at).label("seen")
    rows = connection.execute(
        select(sessions.session_id, seen, utc_now().label("now")).where(sessions.ended_at.is_(None))
    ).all()
    here = {spool.session_id for spool in spools}
    silent = [
        row.session_id
        for row in rows
        if row.now - row.seen > STALE_AFTER and row.session_id not in here
    ]
    if silent:
        yield Finding(
            "sessions",
            "warning",
            f"{count_of(len(silent), 'session', 'gives', 'give')} no sign of life, of {len(rows):,} that have not ended: {silent[0]}",
            "a tracker that is open for a while marks what they left running as crashed",
            {"sessions": silent},
        )
    else:
        yield Finding("sessions", "ok", f"{len(rows)} open", details={"open": len(rows)})
    dead = connection.execute(select(func.count()).select_from(tables.dead_letters)).scalar_one()
    if dead:
        yield Finding(
            "dead letters",
            "warning",
            f"{count_of(dead, 'record')} could not be stored, and {'was' if dead == 1 else 'were'} put aside with the reason",
            "SELECT reason, error, payload FROM structjob_dead_letters",
            {"count": dead},
        )
    else:
        yield Finding("dead letters", "ok", "none", details={"count": 0})


def _lag(spools: list[Waiting], stored: dict[int, int]) -> Finding:
    behind = {
        spool.session_id: max(0, spool.last_seq - stored[spool.session_id]) for spool in spools
    }
    details = {"sessions": behind, "events": sum(behind.values())}
    if not any(behind.values()):
        return Finding(
            "lag",
            "ok",
            f"nothing waits in {count_of(len(spools), 'spool')}" if spools else "nothing waits",
            details=details,
        )
    worst = max(behind, key=lambda session: behind[session])
    many = count_of(sum(map(bool, behind.values())), "spool")
    found = f"{count_of(sum(behind.values()), 'event', 'waits', 'wait')} in {many}, {behind[worst]:,} of session {worst}"
    return Finding("lag", "ok", found, details=details)


def _bytes(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"
