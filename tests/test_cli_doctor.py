"""``structjob doctor``: finds what is wrong, says what to do, changes nothing (R49)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import breakable_servers
import pytest
from breakable_servers import ServerMissing, filled, small_disk
from cli_support import SAMPLE, WRITER, Shell
from click.testing import CliRunner

import structjob
from structjob.checkup import checks, files, trial
from structjob.checkup.finding import Finding
from structjob.cli.app import cli
from structjob.cli.database import Database, reading
from structjob.cli.screen import Failure
from structjob.exceptions import InvalidURL, StoreUnavailable
from structjob.schema import Schema
from structjob.store import server
from structjob.urls.url import parse


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A directory with a database in it."""
    with closing(Shell(tmp_path)) as shell:
        shell.sample()
        yield shell


def execute(shell: Shell, *statements: str) -> None:
    with closing(sqlite3.connect(shell.directory / "structjob.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def findings(
    shell: Shell, *, code: int = 0, db: str = "sqlite:///structjob.db"
) -> dict[str, dict[str, Any]]:
    done = shell.run("doctor", "--json", "--db", db)
    assert done.returncode == code, done.stderr.decode()
    return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


def checkup_of(path: Path) -> Iterator[Finding]:
    database = Database(str(path))
    return checks.checkup(database.url, database.shown)


def test_a_healthy_database(shell: Shell) -> None:
    """Every check says what it found, none is a problem, and the next command is named (R49)."""
    done = shell.run("doctor")
    assert done.returncode == 0
    shown = done.stdout.decode()
    for check in (
        "version",
        "driver",
        "file",
        "write",
        "damage",
        "disk",
        "spool",
        "database",
        "tables",
        "lag",
        "sessions",
        "dead letters",
    ):
        assert f"✓ {check}" in shown
    assert "at revision 0001" in shown
    assert "next:  structjob verify" in done.stderr.decode()


def test_where_nothing_is_yet_nothing_is_made(tmp_path: Path) -> None:
    """faults 55: a database that is not there is a problem, for the path may be wrong; looking
    creates neither it nor a spool (R49).
    """
    shell = Shell(tmp_path)
    found = findings(shell, code=1)["file"]
    assert found["found"] == "there is no database ./structjob.db"
    assert (
        found["advice"]
        == "check the path; if it is right, the first tracker creates the file, or `structjob migrate` does"
    )
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_it(shell: Shell) -> None:
    """Rights that let others look into the database or the spool are warned of, with the command
    that takes them away.
    """
    (shell.directory / "structjob.db").chmod(0o644)
    (shell.directory / "structjob.db.spool").chmod(0o755)
    found = findings(shell)
    assert (found["file"]["verdict"], found["spool"]["verdict"]) == ("warning", "warning")
    assert found["file"]["advice"].startswith("chmod 600 ")
    assert found["spool"]["advice"].startswith("chmod 700 ")


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("9999", "upgrade structjob"),
        ("strange", "which is not structjob's"),
        (None, "names no revision"),
    ],
)
def test_tables_of_another_version(shell: Shell, revision: str | None, said: str) -> None:
    """Tables that this version cannot work with are a problem: exit code 1 (R6, R49)."""
    change = f"UPDATE structjob_alembic_version SET version_num = '{revision}'"
    execute(shell, change if revision else "DELETE FROM structjob_alembic_version")
    found = findings(shell, code=1)["tables"]["found"]
    assert said in found
    assert "mode=ro" not in found  # the file, not how doctor came to it


def test_a_table_that_is_gone(shell: Shell) -> None:
    """Whatever the revision says: a table that is not there is a problem (R6, R49)."""
    execute(
        shell,
        "DROP VIEW structjob_active_jobs",
        "DROP VIEW structjob_job_progress",
        "DROP TABLE structjob_steps",
    )
    assert "there is no structjob_steps" in findings(shell, code=1)["tables"]["found"]


async def test_a_column_that_is_gone(bare_database) -> None:
    """A column that this version needs is named, with the statement that adds it; without it every
    command fails (R6, R49).
    """
    given = parse(bare_database.url)

    await asyncio.to_thread(Schema(given).upgrade)

    async def tables() -> Finding:
        found = await asyncio.to_thread(lambda: list(checks.checkup(given, "jobs")))
        return next(one for one in found if one.check == "tables")

    await bare_database.execute("ALTER TABLE structjob_dead_letters DROP COLUMN error")
    lacking = await tables()
    assert lacking.verdict == "problem"
    assert lacking.found.endswith("yet structjob_dead_letters has no column error")
    assert lacking.advice is not None
    await bare_database.execute(lacking.advice)
    assert (await tables()).verdict == "ok"
    await bare_database.execute("ALTER TABLE structjob_dead_letters DROP COLUMN reason")
    assert (await tables()).advice == "restore the database from a backup"


def test_no_database_at_all(shell: Shell) -> None:
    """A file that is something else is a problem, in one line without a traceback (R49)."""
    (shell.directory / "structjob.db").write_bytes(b"something else " * 100)
    for left in ("structjob.db-wal", "structjob.db-shm"):
        (shell.directory / left).unlink(missing_ok=True)
    done = shell.run("doctor")
    assert done.returncode == 1
    assert "not an SQLite database" in done.stdout.decode()
    assert "Traceback" not in done.stderr.decode()
    assert (shell.directory / "structjob.db").read_bytes().startswith(b"something else")


def test_dead_letters_are_counted(shell: Shell) -> None:
    """Dead letters are counted, and their table is named (R49)."""
    execute(
        shell,
        "INSERT INTO structjob_dead_letters (session_id, seq, reason, error, payload, ts) "
        "VALUES (1, 1, 'refused', 'DataError', '{}', '2026-01-01 00:00:00.000000')",
    )
    assert findings(shell)["dead letters"]["details"] == {"count": 1}


def test_a_session_that_never_gave_a_sign_of_life(shell: Shell) -> None:
    """Without a heartbeat, since when it is silent is known from when it began (R49)."""
    execute(
        shell,
        "INSERT INTO structjob_sessions (session_id, host, pid, started_at) VALUES (7, 'h', 1, '2026-01-01 00:00:00.000000')",
    )
    assert findings(shell)["sessions"]["details"] == {"sessions": [7]}


def test_spools_of_the_living_and_the_dead(shell: Shell) -> None:
    """A killed program's spool is found with how many events wait in it, is left alone, and is gone
    once it was delivered (R11, R49).
    """
    process = shell.start_python(WRITER, "sqlite:///structjob.db")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    assert "spools of dead programs" not in findings(shell)
    # The database is held, so that what is logged now is in the spool only.
    with closing(
        sqlite3.connect(shell.directory / "structjob.db", isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        assert (process.stdout.readline(), process.stdout.readline()) == (b"logged\n", b"logged\n")
        process.kill()
        process.wait()
        connection.execute("ROLLBACK")
    found = findings(shell)
    assert found["spools of dead programs"]["verdict"] == "warning"
    assert found["lag"]["details"]["events"] >= 2
    assert findings(shell)["spools of dead programs"] == found["spools of dead programs"]
    shell.ok("jobs")
    found = findings(shell)
    assert "spools of dead programs" not in found
    assert found["lag"]["details"]["events"] == 0


def left_behind(shell: Shell) -> None:
    """Let a program die with lines in its spool."""
    process = shell.start_python(WRITER, "sqlite:///structjob.db")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()


def test_a_deleted_database_leaves_what_waits_for_it(shell: Shell) -> None:
    """Of a database that is gone, its spool is named by every command, and delivered once there is
    one again (R29, R49).
    """
    left_behind(shell)
    for path in shell.directory.glob("structjob.db*"):
        if path.is_file():
            path.unlink()
    assert findings(shell, code=1)["lag"]["details"]["bytes"] > 0
    refused = shell.run("jobs")
    assert refused.returncode == 1
    said = refused.stderr.decode()
    assert "structjob.db.spool" in said
    assert "next:  structjob migrate" in said
    shell.ok("migrate")
    assert b"crashed" in shell.run("jobs").stdout


def test_what_was_logged_under_a_wrong_url_is_found(shell: Shell) -> None:
    """Lines that wait for a server under another URL are named, and where to move them: no tracker
    on this one takes them (R29, R49).
    """
    other = shell.directory / ".structjob" / "0123456789abcdef" / "77"
    other.mkdir(parents=True)
    (other / "events-000001.jsonl").write_bytes(b"x" * 100)
    found = findings(shell, code=1, db="postgresql://u@127.0.0.1:1/jobs")["spools of other URLs"]
    assert found["found"].startswith(
        "100 B of 1 program that logged to an unknown database wait in "
    )
    assert "move the directories in it to " in found["advice"]


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ((structjob.Deliverer, "open"), InvalidURL("cannot write the database file")),
        ((structjob.Deliverer, "flush"), StoreUnavailable("database or disk is full")),
    ],
)
async def test_reading_continues_where_nothing_can_be_delivered(
    shell: Shell, monkeypatch, capsys, place: tuple[Any, str], fault: Exception
) -> None:
    """A full disk takes no lines, and a user may only read the file: what is stored is shown all
    the same, with a warning about the rest (R29, R49).
    """
    left_behind(shell)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise fault

    monkeypatch.setattr(*place, refuse)
    async with reading(Database(f"sqlite:///{shell.directory / 'structjob.db'}")) as reader:
        assert (await reader.jobs.find("gui-17")).operation == "vm-migrate"
        assert f"cannot be stored now: {fault}" in capsys.readouterr().err
        assert await reader.deliver() == []  # as `tail` does, again and again
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_a_problem(shell: Shell, monkeypatch) -> None:
    """Little room is a warning, none is a problem (R49)."""
    database = Database(str(shell.directory / "structjob.db"))
    verdicts = []
    for free in (files.NO_SPACE - 1, files.NO_SPACE, files.LITTLE_SPACE):
        monkeypatch.setattr(
            files.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free)
        )
        verdicts += [
            found.verdict
            for found in checks.checkup(database.url, database.shown)
            if found.check == "disk"
        ]
    assert verdicts == ["problem", "warning", "ok"]


def test_a_file_that_cannot_be_written_names_its_owner(shell: Shell, monkeypatch) -> None:
    """Whose the file is and who asks is told, before anything that only its owner could change
    (R49).
    """
    path = shell.directory / "structjob.db"
    path.chmod(0o644)
    monkeypatch.setattr(files.os, "access", lambda one, mode: one != path)
    found = next(found for found in checkup_of(path) if found.check == "file")
    assert found.verdict == "problem"
    user = f"user {path.owner()} (uid {os.geteuid()})"
    assert f"{path} belongs to {user} (-rw-r--r--), and you are {user}" in found.found


@pytest.mark.slow
def test_a_lock_that_is_not_let_go(shell: Shell) -> None:
    """A held lock is a finding: "database is locked", and how to find the program (R49)."""
    with closing(
        sqlite3.connect(shell.directory / "structjob.db", isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        found = findings(shell, code=1)["lock"]
        connection.execute("ROLLBACK")
    assert found["advice"].startswith("find it, and end its transaction: fuser -v ")
    assert "lock" not in findings(shell)


@pytest.mark.slow
def test_a_lock_that_keeps_readers_away_is_no_damage(shell: Shell) -> None:
    """faults 55: it was reported as damage, with the advice to restore a backup, and the user was
    told to become another user.
    """
    with closing(
        sqlite3.connect(shell.directory / "structjob.db", isolation_level=None)
    ) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        found = findings(shell, code=1)
    assert found["lock"]["advice"].startswith("find it, and end its transaction: fuser -v ")
    assert (found["damage"]["verdict"], "is locked" in found["damage"]["found"]) == (
        "warning",
        True,
    )
    assert "database is locked" in found["database"]["found"]
    assert found["database"]["advice"] is None


def test_a_file_that_takes_no_writes(shell: Shell, monkeypatch) -> None:
    """faults 55: doctor writes a row and rolls it back: what the file's mode does not show, such as
    a full disk, is a problem.
    """
    monkeypatch.setattr(trial, "_ROOM", 3_000_000)
    path = shell.directory / "structjob.db"
    with closing(sqlite3.connect(path)) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    before = path.read_bytes()
    limited = sqlite3.connect

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = limited(*args, **options)
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    monkeypatch.setattr(trial.sqlite3, "connect", connect)
    found = {one.check: one for one in checkup_of(path)}["write"]
    assert (found.verdict, "database or disk is full" in found.found) == ("problem", True)
    assert path.read_bytes() == before


def test_a_damaged_file(shell: Shell) -> None:
    """faults 55: a file with overwritten pages is a problem, with the command that saves what can
    be read; it is not "no problem found".
    """
    path = shell.directory / "structjob.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'structjob_logs_by_time'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    found = findings(shell, code=1)["damage"]
    assert found["verdict"] == "problem"
    assert "sqlite3 " in found["advice"]


def checks_of(path: Path) -> list[Finding]:
    return list(checkup_of(path))


async def test_a_program_whose_spool_no_process_delivers(tmp_path: Path, monkeypatch) -> None:
    """Its events wait, and its own log calls do not show it: doctor warns, and says what to open.
    While a deliverer runs, there is nothing to say.
    """
    path = tmp_path / "jobs.db"
    structjob.configure(console=False)

    def found() -> Finding | None:
        by_check = {one.check: one for one in checkup_of(path)}
        assert "spools of dead programs" not in by_check
        return by_check.get("spools without a deliverer")

    async with structjob.Tracker(path):
        assert await asyncio.to_thread(found) is None
    async with structjob.Tracker(path, deliver=False) as tracker:
        async with tracker.job("alone"):
            lacking = await asyncio.to_thread(found)
        (lag,) = [one for one in await asyncio.to_thread(checks_of, path) if one.check == "lag"]
        assert (lag.verdict, lag.details["events"]) == ("ok", 2)
        monkeypatch.setattr("structjob.checkup.database.LATE", timedelta(0))
        (lag,) = [one for one in await asyncio.to_thread(checks_of, path) if one.check == "lag"]
        assert lag.verdict == "warning"
        assert re.search(r"2 events wait in 1 spool, .*; the oldest for \d", lag.found)
        assert 0 < lag.details["oldest_seconds"] < 600
        assert "structjob.Deliverer" in (lag.advice or "")
        assert lacking is not None
        assert lacking.verdict == "warning"
        assert lacking.found.startswith("1 running program records with deliver=False")
        assert "structjob.Deliverer" in (lacking.advice or "")
        async with structjob.Deliverer(path) as deliverer:
            await deliverer.flush()
            async with tracker.job("delivered"):
                assert await asyncio.to_thread(found) is None


WRONG = {
    "text": (b"notes\n" * 500, "is not an SQLite database, but a text file", "name another file"),
    "gzip": (
        b"\x1f\x8b\x08\0" + bytes(600),
        "but a compressed file (gzip)",
        "unpack it (gunzip -c < ",
    ),
    "other": (bytes(range(256)) * 8, "or an encrypted database", "reads no encrypted databases"),
    "cut": (b"SQLite format 3\0", "only the beginning is there", "restore it from a backup"),
    "directory": (None, "is a directory", "name a file in it, such as sqlite:////"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_said_to_be_one(tmp_path: Path, what: str) -> None:
    """Doctor says what a file is that is no database, and what to do, and looks for nothing else in
    it. It said "file is not a database" without a cure. The other commands say the same.
    """
    content, found, advice = WRONG[what]
    path = tmp_path / "wrong"
    path.mkdir() if content is None else path.write_bytes(content)
    by_check = {one.check: one for one in checkup_of(path)}
    assert (by_check["file"].verdict, found in by_check["file"].found) == ("problem", True)
    assert advice in (by_check["file"].advice or "")
    assert not by_check.keys() & {"write", "damage", "database", "tables"}
    for words in (["jobs"], ["migrate"], ["prune", "--older-than", "1d", "--dry-run"], ["verify"]):
        done = CliRunner().invoke(cli, ["--db", str(path), *words])
        assert isinstance(done.exception, Failure) or done.exit_code == 1, done
        assert (found in done.output + str(done.exception), advice in done.output) == (True, True)
    assert path.is_dir() or path.read_bytes() == content


def test_a_database_of_another_program_is_said_to_be_one(tmp_path: Path) -> None:
    """It may be shared, or be the wrong one: a warning that names its tables."""
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE users (name)")
    tables = next(one for one in checkup_of(tmp_path / "other.db") if one.check == "tables")
    assert tables.verdict == "warning"
    assert "1 table of another program: users" in tables.found


def test_a_large_file_is_looked_at_for_a_while_only(shell: Shell, monkeypatch) -> None:
    """faults 55: the search for damage has a time limit, and doctor says that it did not
    see all.
    """
    path = shell.directory / "structjob.db"
    with closing(sqlite3.connect(path)) as connection:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n"
        connection.execute(
            f"INSERT INTO structjob_gaps (session_id, first_seq, last_seq, reason) SELECT 1, i, i, 'x' FROM ({numbers})"
        )
        connection.commit()
    assert trial.damage(path) == (None, True)
    assert trial.damage(path, -1.0) == (None, False)
    monkeypatch.setattr(trial, "damage", lambda path: (None, False))
    found = {one.check: one for one in checkup_of(path)}["damage"]
    assert found.found == "none found in 10 s; the rest of the file was not checked"


SERVERS = pytest.mark.parametrize("database", ["mariadb", "postgresql"], indirect=True)
POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@SERVERS
async def test_a_role_that_may_only_select(database, live: Shell) -> None:
    """faults 55: a user without the rights to write is a problem; the statement that grants them is
    given, and makes doctor content.
    """
    name = f"reader_{secrets.token_hex(4)}"
    user = f"{name}@'127.0.0.1'" if database.kind == "mariadb" else name
    url = parse(database.url).set(
        drivername=database.kind, username=name, password="pw", host="127.0.0.1"
    )
    if database.kind == "mariadb":
        await database.execute(
            f"CREATE USER {user} IDENTIFIED BY 'pw'", f"GRANT SELECT ON {url.database}.* TO {user}"
        )
    else:
        await database.execute(
            f"CREATE ROLE {user} LOGIN PASSWORD 'pw'",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}",
        )
    shown = url.render_as_string(hide_password=False)
    try:
        found = await asyncio.to_thread(findings, live, code=1, db=shown)
        assert (found["rights"]["verdict"], "write" in found) == ("problem", False)
        assert found["rights"]["found"].startswith(
            "this user lacks INSERT, UPDATE, DELETE on structjob_"
        )
        # A command that has to write says so once, and nothing of it waits for these rights.
        words = ("--db", shown, "prune", "--older-than", "1d", "--yes")
        done = await asyncio.to_thread(live.run, *words)
        assert done.returncode == 1
        assert done.stderr.decode().startswith("error: the user of ")
        assert "lacks a right" in done.stderr.decode()
        assert "wait" not in done.stderr.decode()
        found = await asyncio.to_thread(findings, live, code=1, db=shown)
        assert found["lag"]["found"] == "nothing waits"
        await database.execute(*found["rights"]["advice"].split("; "))
        found = await asyncio.to_thread(findings, live, db=shown)
        assert (found["rights"]["verdict"], found["write"]["verdict"]) == ("ok", "ok")
        assert await database.rows("SELECT * FROM structjob_locks") == []
    finally:
        drop = (
            [f"DROP USER {user}"]
            if database.kind == "mariadb"
            else [f"DROP OWNED BY {user}", f"DROP ROLE {user}"]
        )
        await database.execute(*drop)


@POSTGRESQL
async def test_a_sequence_that_may_not_be_used(database, live: Shell) -> None:
    """faults 55: rights on every table are not enough on PostgreSQL: the sequences that number the
    rows count, too.
    """
    name = f"writer_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'pw'",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}",
    )
    url = (
        parse(database.url)
        .set(drivername="postgresql", username=name, password="pw")
        .render_as_string(hide_password=False)
    )
    try:
        found = await asyncio.to_thread(findings, live, code=1, db=url)
    finally:
        await database.execute(f"DROP OWNED BY {name}", f"DROP ROLE {name}")
    assert found["rights"]["found"].startswith("this user lacks USAGE on structjob_logs_id_seq")


@POSTGRESQL
async def test_a_server_that_is_read_only(database, live: Shell) -> None:
    """faults 55: a server that takes no writes, such as a replica, is a problem that names the
    primary.
    """
    name = parse(database.url).database
    await database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        found = await asyncio.to_thread(findings, live, code=1, db=database.url)
    finally:
        await database.execute(
            "SET TRANSACTION READ WRITE",
            f"ALTER DATABASE {name} RESET default_transaction_read_only",
        )
    assert (found["write"]["verdict"], found["write"]["advice"]) == (
        "problem",
        "name the primary server in the URL",
    )
    assert "rights" not in found


@POSTGRESQL
async def test_tables_in_another_schema_of_the_search_path(database, live: Shell) -> None:
    """faults 55: tables are looked for where statements find them: in each schema of the search
    path.
    """
    name = parse(database.url).database
    await database.execute(
        'CREATE SCHEMA "first"', f'ALTER DATABASE {name} SET search_path = "first", public'
    )
    try:
        found = await asyncio.to_thread(findings, live, db=database.url)
    finally:
        await database.execute(f"ALTER DATABASE {name} RESET search_path", 'DROP SCHEMA "first"')
    assert found["tables"]["verdict"] == "ok"


def test_a_database_that_cannot_be_made(tmp_path: Path) -> None:
    """Where its directory is missing, no tracker would create the file: that is said, with the
    command that helps (R49).
    """
    found = findings(Shell(tmp_path), code=1, db=f"sqlite:///{tmp_path / 'missing' / 'jobs.db'}")[
        "file"
    ]
    assert found["advice"] == f"mkdir -p {tmp_path / 'missing'}"


def test_a_server_that_does_not_answer(shell: Shell) -> None:
    """A server that is down is a problem, told without the password that the URL has (R49)."""
    done = shell.run("doctor", "--db", "postgresql://ada:hunter2@127.0.0.1:1/jobs")
    assert done.returncode == 1
    assert "✗ database" in done.stdout.decode()
    assert "hunter2" not in done.stdout.decode() + done.stderr.decode()


@pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])
def test_a_server_that_says_nothing_is_soon_given_up(scheme: str, monkeypatch) -> None:
    """A server that accepts connections and never answers is given up after the time limit of a
    transaction, by doctor and by reading commands (R49).
    """

    async def read(database: Database) -> None:
        async with reading(database):
            pass

    monkeypatch.setattr(server, "WRITE_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        database = Database(f"{scheme}://ada@127.0.0.1:{mute.getsockname()[1]}/jobs")
        with pytest.raises(StoreUnavailable, match=r"has not answered for 0\.05 s"):
            asyncio.run(read(database))
        found = next(
            found
            for found in checks.checkup(database.url, database.shown)
            if found.check == "database"
        )
    assert (found.verdict, "has not answered for 0.05 s" in found.found) == ("problem", True)


def test_a_database_in_memory(shell: Shell) -> None:
    """There is nothing to look at in a database that only its own program sees (R49)."""
    assert "name a file" in shell.run("doctor", "--db", "sqlite://").stdout.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_that_may_not_be_entered(tmp_path: Path) -> None:
    """faults 50: a database in another user's directory: each command says so in one line, and none
    prints a traceback.
    """
    words = (["jobs"], ["doctor"], ["verify"], ["import", "--dry-run", "/dev/null"])
    for each in words:  # what they import is loaded before another user cannot read it
        CliRunner().invoke(cli, ["--db", str(tmp_path / "none.db"), *each])
    tmp_path.chmod(0o700)
    for each in words:
        os.seteuid(65534)
        try:
            done = CliRunner().invoke(cli, ["--db", str(tmp_path / "jobs.db"), *each])
        finally:
            os.seteuid(0)
        said = done.output + str(done.exception)
        assert (done.exit_code, "Permission denied" in said) == (1, True), (each, said)
        assert done.exception is None or isinstance(done.exception, (SystemExit, Failure)), (
            each,
            done.exception,
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_may_not_be_read(shell: Shell) -> None:
    """Another user's database is a finding, without a traceback (faults 50)."""
    path = shell.directory / "structjob.db"
    list(checkup_of(path))  # what it imports is loaded before another user cannot read it
    for directory in (shell.directory, *shell.directory.parents[:-2]):
        directory.chmod(0o711)

    def look() -> dict[str, Finding]:
        os.seteuid(65534)
        try:
            return {one.check: one for one in checkup_of(path)}
        finally:
            os.seteuid(0)

    path.chmod(0o600)
    found = look()
    assert "cannot be read: " in found["file"].found
    assert "as the user that owns it" in (found["file"].advice or "")
    assert not found.keys() & {"damage", "database"}
    # One that may be read in a directory that may not be written to is no damaged one.
    path.chmod(0o644)
    for suffix in ("-wal", "-shm"):  # of a connection that only read
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    found = look()
    assert {found[check].verdict for check in ("damage", "database", "tables")} == {"ok"}
    # A program that crashed left a log, without whose index SQLite cannot read.
    shell.directory.joinpath("structjob.db-wal").write_bytes(b"left")
    found = look()
    assert (found["damage"].verdict, found["database"].verdict) == ("warning", "problem")
    assert "as the user that owns it" in (found["database"].advice or "")


def test_a_file_on_a_read_only_file_system(shell: Shell, monkeypatch) -> None:
    """A mounted snapshot is read, though SQLite can make no file beside it; that it takes no writes
    is a finding (R49).
    """
    path = shell.directory / "structjob.db"
    found = os.statvfs(path)
    read_only = SimpleNamespace(
        f_flag=found.f_flag | os.ST_RDONLY,
        **{name: getattr(found, name) for name in ("f_bavail", "f_frsize", "f_blocks", "f_bfree")},
    )
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    monkeypatch.setattr(os, "access", lambda _, mode, **how: mode == os.R_OK)
    opened = []
    connect = sqlite3.connect
    for module in (sqlite3, sqlite3.dbapi2):
        monkeypatch.setattr(
            module, "connect", lambda name, **how: opened.append(name) or connect(name, **how)
        )
    by_check = {one.check: one for one in checkup_of(path)}
    assert "mounted read-only" in by_check["file"].found
    assert {by_check[name].verdict for name in ("database", "tables", "damage")} == {"ok"}
    assert len(opened) == 2
    assert all("immutable=1" in name for name in opened)


def test_a_full_disk(shell: Shell, tmp_path: Path) -> None:
    """faults 55: the trial of a write needs room as an event does, in the database and in the
    spool, though a page of the file is free.
    """
    try:
        with small_disk(tmp_path / "small", 8) as disk:
            shutil.copy(shell.directory / "structjob.db", disk)
            (disk / "structjob.db.spool").mkdir(0o700)
            url = f"sqlite:///{disk}/structjob.db"
            found = findings(shell, db=url)
            assert {found[check]["verdict"] for check in ("write", "spool")} == {"ok"}
            size = (disk / "structjob.db").stat().st_size
            with filled(disk):
                found = findings(shell, db=url, code=1)
                assert found["write"]["verdict"] == "problem"
                assert "full" in found["write"]["found"]
                assert "No space left" in found["spool"]["found"]
            assert findings(shell, db=url)["write"]["verdict"] == "ok"
            assert (disk / "structjob.db").stat().st_size == size
            assert list((disk / "structjob.db.spool").iterdir()) == []
    except PermissionError as exc:
        pytest.skip(str(exc))


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "megabytes"), [("mariadb", 200), ("postgresql", 120)])
def test_a_server_whose_disk_is_full(shell: Shell, kind: str, megabytes: int) -> None:
    """faults 55: a server that answers but has a full disk is a problem, in the server's words;
    with room again there is no problem.
    """
    directory = Path(tempfile.mkdtemp(prefix="structjob-"))
    directory.chmod(0o711)  # its own user must get through
    try:
        with small_disk(directory / "disk", megabytes) as disk:
            disk.chmod(0o711)
            with breakable_servers.SERVERS[kind](disk / "server") as server:
                server.sql("CREATE DATABASE test", database="")
                shell.python(SAMPLE, server.url())
                assert findings(shell, db=server.url())["write"]["verdict"] == "ok"
                with filled(disk):
                    full = findings(shell, db=server.url(), code=1)
                assert any(
                    "No space left" in found["found"]
                    for found in full.values()
                    if found["verdict"] == "problem"
                ), full
                assert findings(shell, db=server.url())["write"]["verdict"] == "ok"
    except (PermissionError, ServerMissing) as exc:
        pytest.skip(str(exc))
    finally:
        shutil.rmtree(directory)
