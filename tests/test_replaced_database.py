"""The database is deleted, moved, replaced or made anew while a program uses it: nothing that is
logged from then on is lost.
"""

import asyncio
import contextlib
import dataclasses
import logging
import shutil
import sqlite3
import stat

import pytest
import sqlalchemy as sa
import structlog
from database_support import Database, drop, on_server
from losses import copy_file
from replacements import (
    DROPPED,
    deleted,
    deleted_alone,
    emptied,
    moved,
    moved_alone,
    replaced_by_an_empty_file,
    replaced_by_an_older_copy,
)
from store_support import opened

import structjob
from structjob.queries.verify import SessionState, verify
from structjob.store import migrations
from structjob.store.database_file import DatabaseFile
from structjob.store.sqlite import SQLiteStore
from structjob.store.tables import logs, sessions
from structjob.text.wording import count_of
from structjob.urls.url import parse

log = structlog.get_logger("replaced")


@pytest.fixture(autouse=True)
def _quiet():
    structjob.configure(console=False)


async def verified(database, session_id):
    """Return what is found of a session by another program, as ``structjob verify`` finds it."""
    async with opened(database) as store:
        return {found.session_id: found for found in (await verify(store.fetch)).sessions}[
            session_id
        ]


def lines(path, session_id):
    """Return the numbered messages in a file, as another program reads them."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return dict(
            connection.execute(
                "SELECT seq, message FROM structjob_logs WHERE session_id = ?", (session_id,)
            )
        )


HOW = [
    deleted,
    deleted_alone,
    moved,
    moved_alone,
    replaced_by_an_empty_file,
    replaced_by_an_older_copy,
    emptied,
]


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("how", HOW)
async def test_the_file_is_taken_away_from_a_running_program(how, db_path, tmp_path, caplog):
    """faults 13: the file is deleted, moved or replaced while a program logs: one warning; what is
    logged from then on, and the job that runs, are in the file that is there now; what had been
    stored and is in that file no more is reported as missing, not as complete.
    """
    database = Database("sqlite", parse(f"sqlite:///{db_path}"))
    async with structjob.Tracker(database.url, spool=False) as tracker:
        number = tracker.session_id
        async with tracker.job("sync") as job:
            log.info("before 1")
            await tracker.flush()
            copy_file(db_path, tmp_path / "copy.db")
            log.info("before 2")
            await tracker.flush()
            before = tracker.ledger()
            assert before.stored == before.accepted
            how(db_path, tmp_path)
            for n in range(50):
                log.info("after", n=n)
            await tracker.flush()
            assert list(lines(db_path, number).values()).count("after") == 50
            assert (await tracker.jobs.get(job.id)).status == "running"
        assert (await tracker.jobs.get(job.id)).status == "completed"
        ledger = tracker.ledger()
        assert (ledger.stored, ledger.dropped, ledger.in_memory) == (ledger.accepted, {}, 0)
    found = await verified(database, number)
    lost = ledger.accepted - len(lines(db_path, number))
    assert 0 < lost <= before.stored
    assert (found.status, found.missing, found.fewer) == (SessionState.INCOMPLETE, lost, lost)
    assert ("before 1" in lines(db_path, number).values()) == (how is replaced_by_an_older_copy)
    warnings = warnings_of(caplog)
    assert len(warnings) == 2
    assert warnings[0].startswith(
        f"the database file {db_path} was deleted, moved or replaced while this program had it open; "
    )
    assert (
        f"{count_of(before.stored, 'event')} of this program (session {number}) had been stored before"
        in warnings[0]
    )
    assert f"lost {count_of(lost, 'event')}: " in warnings[1]
    if how in (moved, moved_alone):
        assert list(lines(tmp_path / "old.db", number).values())[1:3] == ["before 1", "before 2"]


async def until(condition, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def entered(database, number):
    """Return whether a session is in the database, which may be absent."""
    try:
        return bool(
            await database.fetch(
                sa.select(sessions.c.session_id).where(sessions.c.session_id == number)
            )
        )
    except sa.exc.DBAPIError:
        return False


async def drop_tables(database):
    for tries_left in (5, 4, 3, 2, 1, 0):
        try:
            await database.execute(*DROPPED)
        except sa.exc.DBAPIError as exc:  # who drops them by hand would try again, too
            if "deadlock" not in str(exc) or not tries_left:
                raise
        else:
            return


async def create_tables(database):
    async with database.engine.connect() as connection:
        await connection.run_sync(migrations.prepare)


@pytest.mark.parametrize("again", [True, False], ids=["made again", "gone"])
async def test_the_tables_are_dropped_under_a_running_program(
    again, bare_database, tmp_path, caplog, monkeypatch
):
    """faults 13: the tables are dropped, and made again by another program or by this one: the
    session is entered again though the program logs nothing, what it logs then is stored, and what
    had been stored is reported as missing.
    """
    monkeypatch.setattr("structjob.engine.database.PERMANENT_WAIT", 0.05)
    database = bare_database
    async with structjob.Tracker(database.url, spool=False, heartbeat_interval=0.05) as tracker:
        number = tracker.session_id
        async with tracker.job("sync") as job:
            log.info("before")
            await tracker.flush()
            before = tracker.ledger().stored
            await drop_tables(database)
            if again:
                await create_tables(database)
            else:
                log.info("meanwhile")
            await until(lambda: entered(database, number))
            log.info("after")
            await tracker.flush()
        await tracker.flush()
        assert (await tracker.jobs.get(job.id)).status == "completed"
        ledger = tracker.ledger()
        assert (ledger.stored, ledger.dropped, ledger.in_memory) == (ledger.accepted, {}, 0)
    there = {
        row["message"]
        for row in await database.fetch(
            sa.select(logs.c.message).where(logs.c.session_id == number)
        )
    }
    assert "before" not in there
    assert "after" in there
    assert again or "meanwhile" in there
    found = await verified(database, number)
    assert (found.status, found.missing, found.fewer) == (SessionState.INCOMPLETE, before, before)
    said = " | ".join(warnings_of(caplog))
    assert (
        f"{count_of(before, 'event')} of this program (session {number}) had been stored before"
        in said
    )
    assert f"lost {count_of(before, 'event')}: " in said


@pytest.mark.parametrize("bare_database", ["mariadb", "postgresql"], indirect=True)
async def test_the_database_is_dropped_under_a_running_program(bare_database, caplog, monkeypatch):
    """faults 13: the whole database is dropped, and an empty one of this name made: delivery waits,
    creates the tables, and goes on.
    """
    monkeypatch.setattr("structjob.engine.database.PERMANENT_WAIT", 0.05)
    database = bare_database
    async with structjob.Tracker(database.url, spool=False, heartbeat_interval=0.05) as tracker:
        number = tracker.session_id
        log.info("before")
        await tracker.flush()
        before = tracker.ledger().stored
        await database.engine.dispose()
        url = parse(database.url)
        await drop(url)
        log.info("meanwhile")
        with pytest.raises(structjob.StoreUnavailable):
            await tracker.flush()
        await on_server(url, f"CREATE DATABASE {url.database}")
        await until(lambda: entered(database, number))
        log.info("after")
        await tracker.flush()
        ledger = tracker.ledger()
        assert (ledger.stored, ledger.dropped, ledger.in_memory) == (ledger.accepted, {}, 0)
    there = {
        row["message"]
        for row in await database.fetch(
            sa.select(logs.c.message).where(logs.c.session_id == number)
        )
    }
    assert there == {"meanwhile", "after"}
    found = await verified(database, number)
    assert (found.status, found.missing, found.fewer) == (SessionState.INCOMPLETE, before, before)
    assert (
        f"{count_of(before, 'event')} of this program (session {number}) had been stored before"
        in " | ".join(warnings_of(caplog))
    )


async def test_a_program_that_logs_nothing_notices(db_path, caplog):
    """faults 13: a program that is idle notices with its next heartbeat that the file was deleted:
    its session is in the new file, and another program that verifies finds what is missing while it
    still runs.
    """
    database = Database("sqlite", parse(f"sqlite:///{db_path}"))
    async with structjob.Tracker(database.url, heartbeat_interval=0.05) as tracker:
        number = tracker.session_id
        log.info("before")
        await tracker.flush()
        deleted(db_path, None)

        async def known():
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(
                    sqlite3.connect(f"file:{db_path}?mode=ro", uri=True)
                ) as connection,
            ):
                return bool(
                    connection.execute(
                        "SELECT 1 FROM structjob_sessions WHERE confirmed = 1"
                    ).fetchall()
                )
            return False

        await until(known)
        found = await verified(database, number)
        assert (found.status, found.live, found.missing, found.fewer) == (
            SessionState.INCOMPLETE,
            True,
            1,
            1,
        )
        assert stat.S_IMODE(db_path.stat().st_mode) == 0o600
    assert len(warnings_of(caplog)) == 2


async def test_a_read_finds_the_file_that_is_there(db_path, tmp_path):
    """faults 13: a read asks the file that its path leads to, not one that was moved away, though
    nothing was written since.
    """
    async with structjob.Tracker(f"sqlite:///{db_path}", heartbeat_interval=60.0) as tracker:
        async with tracker.job("old"):
            pass
        assert len(await tracker.jobs.list()) == 1
        moved(db_path, tmp_path)
        assert len(await tracker.jobs.list()) == 0
        async with tracker.job("new"):
            assert [job.operation for job in await tracker.jobs.list()] == ["new"]


async def test_the_file_is_deleted_while_a_batch_is_stored(db_path, monkeypatch):
    """faults 13: a batch that goes to a file which was deleted a moment ago is not confirmed, but
    stored in the new file.
    """
    monkeypatch.setattr(SQLiteStore, "_write", taking_away(SQLiteStore._write, db_path))
    async with structjob.Tracker(f"sqlite:///{db_path}", heartbeat_interval=60.0) as tracker:
        number = tracker.session_id
        log.info("with it")
        await tracker.flush()
        assert (tracker.ledger().stored, list(lines(db_path, number).values())) == (1, ["with it"])
    assert list(lines(db_path, number).values()) == ["with it"]


def taking_away(write, path):
    left = [True]

    def wrapped(self, connection, core, given):
        written = write(self, connection, core, given)
        if left and given.events:
            left.pop()
            deleted(path, None)
        return written

    return wrapped


async def test_a_directory_that_is_deleted_is_waited_for(tmp_path, caplog, monkeypatch):
    """faults 13: the directory is deleted with the file: the events wait in the spool, a warning
    says what to do, and delivery goes on when the directory is there again.
    """
    monkeypatch.setattr("structjob.engine.database.PERMANENT_WAIT", 0.05)
    path = tmp_path / "data" / "jobs.db"
    path.parent.mkdir()
    async with structjob.Tracker(f"sqlite:///{path}", spool=tmp_path / "spool") as tracker:
        await tracker.flush()
        shutil.rmtree(path.parent)
        log.info("meanwhile")
        with pytest.raises(structjob.StoreUnavailable, match="mkdir -p"):
            await tracker.flush()
        assert (tracker.ledger().stored, tracker.ledger().spilled + tracker.ledger().in_memory) == (
            0,
            1,
        )
        path.parent.mkdir()
        await until(lambda: asyncio.sleep(0, tracker.ledger().stored == 1))
        assert list(lines(path, tracker.session_id).values()) == ["meanwhile"]
    assert any(f"mkdir -p {path.parent}" in text for text in warnings_of(caplog))


async def test_a_damaged_file_is_replaced_by_a_good_one(db_path, tmp_path, caplog):
    """faults 13: what is in the file turns out to be damaged: the events wait, and are stored when
    a good copy takes its place.
    """
    async with structjob.Tracker(
        f"sqlite:///{db_path}", spool=tmp_path / "spool", heartbeat_interval=60.0
    ) as tracker:
        number = tracker.session_id
        log.info("before")
        await tracker.flush()
        copy_file(db_path, tmp_path / "copy.db")
        with contextlib.closing(sqlite3.connect(db_path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db_path.write_bytes(b"damaged" * 10_000)
        log.info("meanwhile")
        with pytest.raises(structjob.StoreUnavailable):
            await tracker.flush()
        (tmp_path / "copy.db").rename(db_path)
        log.info("after")
        await tracker.aclose()
        assert tracker.ledger().stored == 3
    assert list(lines(db_path, number).values()) == ["before", "meanwhile", "after"]
    assert any("was deleted, moved or replaced" in text for text in warnings_of(caplog))


async def test_a_file_that_is_overwritten_in_place(db_path, tmp_path, caplog):
    """faults 13: `cp backup.db jobs.db` below a running program: one warning says what happened and
    what to do, not many tracebacks.
    """
    async with structjob.Tracker(
        f"sqlite:///{db_path}", spool=tmp_path / "spool", heartbeat_interval=0.02
    ) as tracker:
        log.info("before")
        await tracker.flush()
        with contextlib.closing(sqlite3.connect(db_path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db_path.write_bytes(b"another" * 10_000)
        log.info("meanwhile")
        beats = []
        beat = tracker._store.heartbeat
        tracker._store.heartbeat = lambda *args: beats.append(args) or beat(*args)
        while len(beats) < 3:
            await asyncio.sleep(0.01)
        with pytest.raises(
            structjob.StoreUnavailable,
            match=f"{db_path} is damaged.* as by `cp backup.db .* with mv",
        ):
            await tracker.flush()
        assert [record for record in caplog.records if record.exc_info] == []
        (warning,) = [text for text in warnings_of(caplog) if "is damaged" in text]
        assert f"delete {db_path}-wal" in warning
        with pytest.raises(structjob.StoreUnavailable, match=f"{db_path} is damaged"):
            await tracker._store.open()  # as when it is tried again
        await tracker.aclose(timeout=0.1)


async def test_what_goes_wrong_at_each_heartbeat_is_logged_once(
    db_path, tmp_path, caplog, monkeypatch
):
    """faults 13: an unforeseen error, such as a damaged row, is logged once, with its traceback."""
    async with structjob.Tracker(
        f"sqlite:///{db_path}", spool=tmp_path / "spool", heartbeat_interval=0.02
    ) as tracker:
        beats = []

        async def beat(*args):
            beats.append(args)
            raise ValueError("Invalid isoformat string")

        monkeypatch.setattr(tracker._store, "heartbeat", beat)
        while len(beats) < 3:
            await asyncio.sleep(0.01)
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_a_file_is_not_made_where_its_file_system_is_not_mounted(tmp_path):
    """faults 13: where the directory is on another file system than before, it is waited for: a new
    file there would be hidden later.
    """
    path = tmp_path / "jobs.db"
    path.write_bytes(b"content")
    file = DatabaseFile.at(path, path)
    file.check_place()
    elsewhere = dataclasses.replace(file, device=file.device + 1)
    elsewhere.check_place()
    path.unlink()
    file.check_place()
    with pytest.raises(structjob.StoreUnavailable, match="mount it again"):
        elsewhere.check_place()


PROGRAM = """
import asyncio, sys, pathlib
import structlog, structjob
structjob.configure(console=False)
async def main(url, name, directory):
    here = pathlib.Path(directory)
    async with structjob.Tracker(url, heartbeat_interval=0.2, service=name) as tracker:
        log = structlog.get_logger()
        n = late = 0
        while late < 200:
            for _ in range(20):
                taken = (here / "taken").exists()
                log.info("late" if taken else "early", n=n)
                n, late = n + 1, late + taken
            await tracker.flush()
            (here / name).touch()
        print(tracker.ledger().accepted, tracker.ledger().stored)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [deleted, deleted_alone, moved, moved_alone])
async def test_several_programs_go_on_in_one_new_file(how, db_path, tmp_path, live):
    """faults 13: several programs use the file that is deleted: they meet in one new file, which is
    whole, and holds what they logged from then on, each line once.
    """
    programs = [
        live.start_python(PROGRAM, f"sqlite:///{db_path}", name, str(tmp_path))
        for name in ("one", "two", "three")
    ]
    while not all((tmp_path / name).exists() for name in ("one", "two", "three")):
        await asyncio.sleep(0.02)
        assert all(program.poll() is None for program in programs)
    how(db_path, tmp_path)
    (tmp_path / "taken").touch()
    for program in programs:
        out, err = await asyncio.to_thread(program.communicate, timeout=120)
        assert program.returncode == 0, (out, err)
    with contextlib.closing(sqlite3.connect(db_path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute(
            "SELECT session_id, count(*), max(seq) FROM structjob_logs GROUP BY 1"
        ).fetchall()
        assert len(rows) == 3
        for number, count, last in rows:
            late = connection.execute(
                "SELECT count(*), min(seq) FROM structjob_logs WHERE session_id=? AND message='late'",
                (number,),
            )
            (stored, first) = late.fetchone()
            assert stored == last - first + 1
            assert count <= last


async def test_one_table_is_dropped_under_a_running_program(bare_database, monkeypatch):
    """faults 13: a single table is dropped: it is created again, and what was logged since is
    stored in it.
    """
    monkeypatch.setattr("structjob.engine.database.PERMANENT_WAIT", 0.05)
    async with structjob.Tracker(bare_database.url, spool=False) as tracker:
        log.info("before")
        await tracker.flush()
        await bare_database.execute("DROP TABLE structjob_logs")
        log.info("after")
        await until(lambda: asyncio.sleep(0, tracker.ledger().stored == 2))
        there = await bare_database.fetch(sa.select(logs.c.message))
        assert [row["message"] for row in there] == ["after"]
        number = tracker.session_id
    found = await verified(bare_database, number)
    assert (found.status, found.missing) == (SessionState.INCOMPLETE, 1)
