"""What a database itself says: its tables, rights, clock and content."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Column, Connection, func, inspect, select, text
from sqlalchemy.schema import CreateColumn

from structjob.checkup import trial
from structjob.checkup.finding import Finding, Verdict, ok, problem, warning
from structjob.checkup.spools import Waiting, waiting_since
from structjob.exceptions import StructjobError
from structjob.queries.verify import STALE_AFTER
from structjob.store import charset, migrations, tables
from structjob.store.connection import Run, connected
from structjob.store.database_file import OTHER_USER
from structjob.store.expressions import utc_now
from structjob.text.amounts import in_bytes
from structjob.text.appearance import lasting
from structjob.text.wording import count_of

_RESTORE = "restore the database from a backup"

LATE = timedelta(minutes=1)
"""How long an event may wait in a spool before this is a warning."""

SKEW = timedelta(seconds=2)
"""Maximum difference between this machine's clock and the database's. Beyond it, times of jobs on
several machines cannot be compared.
"""


def in_database(
    url: URL, path: Path | None, shown: str, spools: list[Waiting], run: Run
) -> Iterator[Finding]:
    """Report what the database itself says.

    Args:
        url: Its URL.
        path: Its file, if it is one.
        shown: Its name in the findings.
        spools: What waits for it on this host.
        run: Runs a coroutine to its end; called for servers only.
    """
    if path is not None and not os.path.exists(path):
        yield from undelivered(spools)
        return
    if path is None and url.get_backend_name() == "sqlite":
        yield problem(
            "database",
            "a database in memory is seen by its own program only",
            "name a file, such as sqlite:///jobs.db",
        )
        return
    try:
        findings = connected(
            url,
            shown,
            lambda connection: list(_examine(connection, shown, spools)),
            run,
            read_only=True,
        )
    except ModuleNotFoundError:
        findings = [*undelivered(spools)]  # the driver's fault is reported already
    except StructjobError as exc:
        findings = [
            problem("database", str(exc), OTHER_USER if _is_forbidden(exc) else None),
            *undelivered(spools),
        ]
    yield from findings


def _is_forbidden(exc: StructjobError) -> bool:
    """Return whether SQLite may not open or change a file as this user."""
    code = getattr(getattr(exc.__cause__, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY)


def undelivered(spools: list[Waiting]) -> Iterator[Finding]:
    """Report the spools that wait for a database which cannot be asked how much is stored."""
    if size := sum(spool.size for spool in spools):
        yield warning(
            "lag",
            f"{in_bytes(size)} wait in {count_of(len(spools), 'spool')} for the database",
            "leave the spool where it is: it is delivered as soon as a tracker, or a command that reads, reaches the database",
            {"sessions": [spool.session_id for spool in spools], "bytes": size},
        )


def _examine(connection: Connection, shown: str, spools: list[Waiting]) -> Iterator[Finding]:
    on_server = connection.dialect.name != "sqlite"
    # the first statement also pays for the connection's setup, so it is not measured
    _clock(connection)
    began = time.monotonic()
    now = _clock(connection)
    answered = time.monotonic() - began
    number = ".".join(map(str, connection.dialect.server_version_info or ()))
    yield ok(
        "database",
        f"{shown} answers in {answered * 1000:.1f} ms ({connection.dialect.name} {number})",
        details={"milliseconds": round(answered * 1000, 3), "version": number},
    )
    if on_server:
        yield _skew(now, answered)
    try:
        found = migrations.current(connection)
    except StructjobError as exc:
        yield problem("tables", str(exc))
        return
    if found is None:
        yield _none_yet(connection)
        return
    if found != migrations.head():
        advice = (
            "structjob migrate"
            if on_server
            else "the next tracker upgrades them, or `structjob migrate`"
        )
        verdict: Verdict = "problem" if on_server else "warning"
        yield Finding(
            "tables",
            verdict,
            f"at revision {found}; this version of structjob needs {migrations.head()}",
            advice,
        )
        return
    if absent := _absent(connection):
        lacking = f"at revision {found}, yet there is no {', no '.join(absent)}"
        yield problem("tables", lacking, _RESTORE)
        return
    if lost := _absent_columns(connection):
        named = ", ".join(f"{column.table.name} has no column {column.name}" for column in lost)
        yield problem("tables", f"at revision {found}, yet {named}", _added(connection, lost))
        return
    yield ok("tables", f"at revision {found}")
    if on_server:
        for lacking, advice in charset.advice(connection):
            yield warning("characters", lacking, advice)
        yield from _rights(connection)
    yield from _contents(connection, spools)


def _none_yet(connection: Connection) -> Finding:
    """Return that there are no tables of structjob, and whether there are others."""
    others = inspect(connection).get_table_names()
    if not others:
        return ok("tables", "none yet; the first tracker creates them, or `structjob migrate`")
    named = f"{', '.join(others[:3])}{', …' if len(others) > 3 else ''}"
    return warning(
        "tables",
        f"none of structjob, but {count_of(len(others), 'table')} of another program: {named}",
        "structjob can share this database: the first tracker creates its tables, or `structjob migrate`; if it is the wrong one, name another",
    )


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
            yield problem(
                "write",
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
        yield problem("rights", found, _grants(connection))
        return
    yield ok("rights", "SELECT, INSERT, UPDATE and DELETE on each table")
    failed = trial.write_and_roll_back(connection)
    if failed is None:
        yield ok("write", "a large event was inserted and rolled back")
    else:
        yield problem(
            "write",
            f"the server takes no writes: {failed}",
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
    # in any schema of the search path, where every statement finds them
    if connection.dialect.name == "postgresql":
        found = text("SELECT to_regclass(:name) IS NOT NULL")
        return [
            name
            for name in tables.metadata.tables
            if not connection.execute(found, {"name": name}).scalar()
        ]
    there = set(inspect(connection).get_table_names())
    return [name for name in tables.metadata.tables if name not in there]


def _absent_columns(connection: Connection) -> list[Column[Any]]:
    """Return the columns of this version that do not exist, in the order of the tables.

    The catalogs are read, because the user may lack the right to read a table.
    """
    statement = {
        "sqlite": "SELECT name FROM pragma_table_xinfo(:name)",
        "postgresql": "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:name) AND NOT attisdropped",
    }.get(
        connection.dialect.name,
        "SELECT column_name FROM information_schema.columns WHERE table_schema = database() AND table_name = :name",
    )
    lost: list[Column[Any]] = []
    for table in tables.metadata.tables.values():
        there = set(connection.execute(text(statement), {"name": table.name}).scalars())
        # MariaDB and MySQL hide the columns of a table on which the user has no rights at all
        lost += [column for column in table.columns if there and column.name not in there]
    return lost


def _added(connection: Connection, lost: list[Column[Any]]) -> str:
    """Return the statements that add columns, or other advice if rows would lack their values."""
    if any(not column.nullable and column.server_default is None for column in lost):
        return _RESTORE
    return "; ".join(
        f"ALTER TABLE {column.table.name} ADD COLUMN {CreateColumn(column).compile(dialect=connection.dialect)}"
        for column in lost
    )


def _clock(connection: Connection) -> datetime:
    now: datetime = connection.execute(select(utc_now())).scalar_one()
    return now if now.tzinfo is not None else now.replace(tzinfo=UTC)


def _skew(now: datetime, answered: float) -> Finding:
    skew = datetime.now(UTC) - now - timedelta(seconds=answered / 2)
    details = {"seconds": round(skew.total_seconds(), 3)}
    if abs(skew) - timedelta(seconds=answered / 2) > SKEW:
        ahead = "ahead of" if skew > timedelta() else "behind"
        return warning(
            "clock",
            f"this machine's clock is {abs(skew.total_seconds()):.1f} s {ahead} the database's",
            "synchronise both (NTP): events are dated by the machine that logs them",
            details,
        )
    return ok("clock", f"{abs(skew.total_seconds()):.3f} s from the database's", details=details)


def _contents(connection: Connection, spools: list[Waiting]) -> Iterator[Finding]:
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
        yield warning(
            "spools of dead programs",
            f"{in_bytes(sum(spool.size for spool in orphaned))} of programs that died wait in {count_of(len(orphaned), 'spool')}",
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
        yield warning(
            "sessions",
            f"{count_of(len(silent), 'session', 'gives', 'give')} no sign of life, of {len(rows):,} that have not ended: {silent[0]}",
            "a tracker that is open for a while marks what they left running as crashed",
            {"sessions": silent},
        )
    else:
        yield ok("sessions", f"{len(rows)} open", details={"open": len(rows)})
    dead = connection.execute(select(func.count()).select_from(tables.dead_letters)).scalar_one()
    if dead:
        yield warning(
            "dead letters",
            f"{count_of(dead, 'record')} could not be stored; each is kept as a dead letter, with the reason",
            "SELECT reason, error, payload FROM structjob_dead_letters",
            {"count": dead},
        )
    else:
        yield ok("dead letters", "none", details={"count": 0})


def _lag(spools: list[Waiting], stored: dict[int, int]) -> Finding:
    behind = {
        spool.session_id: max(0, spool.last_seq - stored[spool.session_id]) for spool in spools
    }
    details: dict[str, Any] = {"sessions": behind, "events": sum(behind.values())}
    if not any(behind.values()):
        return ok(
            "lag",
            f"nothing waits in {count_of(len(spools), 'spool')}" if spools else "nothing waits",
            details=details,
        )
    worst = max(behind, key=lambda session: behind[session])
    many = count_of(sum(map(bool, behind.values())), "spool")
    found = f"{count_of(sum(behind.values()), 'event', 'waits', 'wait')} in {many}, {behind[worst]:,} of session {worst}"
    since = [
        waiting_since(spool.directory, stored[spool.session_id])
        for spool in spools
        if behind[spool.session_id]
    ]
    age = max((datetime.now(UTC) - one for one in since if one is not None), default=timedelta())
    details["oldest_seconds"] = round(age.total_seconds(), 3)
    if age < LATE:
        return ok("lag", found, details=details)
    return warning(
        "lag",
        f"{found}; the oldest for {lasting(age.total_seconds())}",
        "read what the program that delivers logs about the database; if no process delivers, open a tracker or a structjob.Deliverer for it",
        details,
    )
