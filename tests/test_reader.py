"""A reader: reads of one database without a tracker, on each kind of database."""

import asyncio
import contextlib
import os
import pickle
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

import structjob
from structjob.exceptions import (
    InvalidArgument,
    InvalidURL,
    NotOpen,
    QueryTimeout,
    SchemaMismatch,
    StoreUnavailable,
)
from structjob.queries.jobs import lookups_of
from structjob.store import database_file


async def filled(url, tmp_path):
    """Store a job with a line and an error, and return its id."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(url, spool=tmp_path / "spool") as tracker:
        with contextlib.suppress(ZeroDivisionError):
            async with tracker.job("divide") as job, job.step("load"):
                raise ZeroDivisionError("by nothing")
    return job.id


async def test_all_reads_without_a_tracker(database, tmp_path):
    """Jobs, lines, sessions, errors, statistics and the proof of completeness are read from a
    database that no tracker has open (R47).
    """
    job_id = await filled(database.url, tmp_path)
    async with structjob.Reader(database.url) as reader:
        assert (await reader.jobs.list(status="failed"))[0].id == job_id
        assert [step.name for step in await reader.jobs.steps(job_id)] == ["load"]
        assert [event.kind for event in await reader.logs.list(job=job_id)][-1] == "operation_end"
        assert len(await reader.sessions.list()) == 1
        (group,) = await reader.errors.list()
        assert group.count >= 1
        assert (await reader.errors.resolve(group.fingerprint)).status == "resolved"
        assert (await reader.stats.operations())[0].operation == "divide"
        assert (await reader.verify()).ok
    with pytest.raises(NotOpen):
        await reader.jobs.list()
    await reader.aclose()


async def test_a_reader_leaves_no_trace(database, tmp_path):
    """Reading enters no session and makes no spool (R47)."""
    await filled(database.url, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    async with structjob.Reader(database.url) as reader:
        await reader.jobs.list()
        assert len(await reader.sessions.list()) == 1
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


async def test_what_is_absent_is_not_made(bare_database, tmp_path):
    """A database without structjob's tables is refused, and left as it is; once there are tables,
    the same reader opens (R47).
    """
    reader = structjob.Reader(bare_database.url)
    with pytest.raises((SchemaMismatch, StoreUnavailable)):
        await reader.open()
    assert (await reader.health()).ok is False
    async with bare_database.engine.connect() as connection:
        found = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    assert found == []
    job_id = await filled(bare_database.url, tmp_path)
    assert (await reader.jobs.list())[0].id == job_id
    await reader.aclose()


async def test_a_file_that_is_not_there(tmp_path):
    """It is not created; the message names it."""
    with pytest.raises(StoreUnavailable, match=r"absent\.db"):
        async with structjob.Reader(tmp_path / "absent.db"):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_a_file_that_another_user_put_there(tmp_path, suffix):
    """In a directory that all users may write to, a database of another user, or a file that SQLite
    reads beside it, is refused (R33).
    """
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    await filled(shared / "jobs.db", tmp_path)
    planted = shared / f"jobs.db{suffix}"
    planted.touch()
    os.chown(planted, 65534, 65534)
    with pytest.raises(InvalidURL, match="user nobody"):
        await structjob.Reader(shared / "jobs.db").open()


async def test_a_database_on_a_read_only_file_system(tmp_path, monkeypatch):
    """A database on a read-only file system, such as a mounted snapshot, is read, though SQLite can
    make no file beside it. If a program of another host begins to write, its data are read, too
    (R47).
    """
    path = tmp_path / "jobs.db"
    job_id = await filled(path, tmp_path)
    found = os.statvfs(path)
    read_only = SimpleNamespace(f_flag=found.f_flag | os.ST_RDONLY)
    monkeypatch.setattr(database_file.os, "statvfs", lambda _: read_only)
    async with structjob.Reader(path) as reader:
        assert (await reader.jobs.get(job_id)).status == "failed"
        assert sorted(tmp_path.glob("jobs.db-*")) == []
        async with structjob.Tracker(path, spool=tmp_path / "spool") as tracker:
            async with tracker.job("late"):
                pass
            assert (await reader.jobs.list())[0].operation == "late"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_user_who_may_only_read(tmp_path):
    """A database of another user, in a directory in which this one can make no files, is read,
    though SQLite needs a file beside it; what that user writes later is read, too (R47).
    """
    path = tmp_path / "jobs.db"
    job_id = await filled(path, tmp_path)
    path.chmod(0o644)
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(0o711)
    async with structjob.Reader(path) as imported:
        await imported.jobs.list()
    os.seteuid(65534)
    try:
        async with structjob.Reader(path) as reader:
            assert (await reader.jobs.get(job_id)).status == "failed"
            for name in ("late", "later"):  # with a closed, and with an open program
                os.seteuid(0)
                tracker = await structjob.Tracker(path, spool=tmp_path / "spool").open()
                async with tracker.job(name):
                    pass
                await tracker.flush()
                if name == "late":
                    await tracker.aclose()
                os.seteuid(65534)
                assert (await reader.jobs.list())[0].operation == name
            os.seteuid(0)
            await tracker.aclose()
    finally:
        os.seteuid(0)


async def test_somebody_elses_file_is_left_as_it_is(tmp_path):
    """Neither tables nor a write-ahead log are put into a database of another program."""
    path = tmp_path / "other.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER)")
    engine.dispose()
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="holds no jobs or logs"):
        await structjob.Reader(path).open()
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["other.db"]


async def test_in_memory(tmp_path):
    """Only the tracker that made a database in memory can read it; the message says how."""
    with pytest.raises(InvalidURL, match=r"its tracker's reader\(\)"):
        await structjob.Reader(":memory:").open()
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker("sqlite://") as tracker:
        async with tracker.job("brief"):
            pass
        async with tracker.reader(timeout=1.0) as reader:
            assert (await reader.jobs.list())[0].operation == "brief"
            assert (await reader.health()).ok
        assert len(await tracker.jobs.list()) == 1


async def test_a_trackers_reader_sees_what_it_logged(any_tracker):
    """`tracker.reader()` delivers first what is pending, as the tracker's own reads do (R20)."""
    async with any_tracker.job("nightly") as job:
        async with any_tracker.reader(timeout=10) as reader:
            assert (await reader.jobs.find(job)).status == "running"
            assert [event.kind for event in await reader.logs.list(job=job)] == ["operation_start"]


async def test_health(any_tracker):
    """A database that answers says its version, that of its tables, and how many sessions live."""
    async with any_tracker.reader() as reader:
        found = await reader.health()
    assert found.ok
    assert found.problem is None
    assert found.kind in ("sqlite", "mariadb", "postgresql")
    assert found.version
    assert found.revision == "0001"
    assert (found.live_sessions, found.silent_sessions) == (1, 0)
    assert found.answered_ms > 0
    assert abs(found.clock_ahead_ms) < 5_000


_SLOW = (
    "CREATE VIEW structjob_sessions AS SELECT s.* FROM structjob_sessions_real s WHERE "
    "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n) > 0"
)


@contextlib.asynccontextmanager
async def slow_sessions(engine):
    """Have every read of the sessions take minutes."""

    async def run(*statements):
        async with engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    await run("ALTER TABLE structjob_sessions RENAME TO structjob_sessions_real", _SLOW)
    try:
        yield
    finally:
        await run(
            "DROP VIEW structjob_sessions",
            "ALTER TABLE structjob_sessions_real RENAME TO structjob_sessions",
        )


async def test_a_query_that_takes_too_long_is_stopped(database, tmp_path, monkeypatch):
    """After its timeout a query is stopped in the database, too, and the reader goes on reading
    (R47).
    """
    monkeypatch.setattr("structjob.store.server._GRACE", 100.0)
    job_id = await filled(database.url, tmp_path)
    async with slow_sessions(database.engine):
        async with structjob.Reader(database.url, timeout=0.5) as reader:
            began = time.monotonic()
            with pytest.raises(QueryTimeout, match=r"stopped after 0\.5 s") as caught:
                await reader.sessions.list()
            assert time.monotonic() - began < 60, "stopped by the database, not cut by us"
            assert isinstance(caught.value, TimeoutError)
            assert caught.value.seconds == 0.5
            assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
            assert (await reader.jobs.get(job_id)).id == job_id


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_query_that_nobody_waits_for_any_more_ends(database, tmp_path):
    """Where the task that reads is cancelled, SQLite's thread is free for the next read at once."""
    job_id = await filled(database.url, tmp_path)
    async with slow_sessions(database.engine):
        async with structjob.Reader(database.url) as reader:
            reading = asyncio.create_task(reader.sessions.list())
            await asyncio.wait({reading}, timeout=0.2)
            reading.cancel()
            async with asyncio.timeout(60):
                assert (await reader.jobs.get(job_id)).id == job_id


async def test_a_file_that_is_replaced_is_opened_anew(tmp_path):
    """A reader goes on with the file that takes the place of the one it had open."""
    path = tmp_path / "jobs.db"
    first = await filled(path, tmp_path)
    second = await filled(tmp_path / "new.db", tmp_path / "other")
    async with structjob.Reader(path) as reader:
        assert (await reader.jobs.list())[0].id == first
        path.unlink()
        with pytest.raises(StoreUnavailable):
            await reader.jobs.list()
        (tmp_path / "new.db").rename(path)
        assert (await reader.jobs.list())[0].id == second


@pytest.mark.parametrize("timeout", [0, -1, "10", True])
def test_a_timeout_that_is_none(timeout):
    """It is named, and said what it must be."""
    with pytest.raises(InvalidArgument, match="timeout must be a positive number of seconds"):
        structjob.Reader("sqlite:///jobs.db", timeout=timeout)


async def test_what_lists_of_jobs_ask_for(any_tracker):
    """Of many jobs at once: their operations, how far they are by their steps, what their
    operation took before, and which of their sessions seem dead; and a job by the end of its id.
    """
    async with any_tracker.job("load", job_id="job-1-abcd") as first:
        async with first.step("read"):
            pass
    async with any_tracker.job("load", job_id="job-2-abcd") as second:
        async with second.step("read", total=4) as step:
            step.update(completed=1)
            await any_tracker.flush()
            async with any_tracker.reader() as reader:
                ids = [first.id, second.id, "nothing"]
                lookups = lookups_of(reader.jobs)
                assert await lookups.operations_of(ids) == {first.id: "load", second.id: "load"}
                underway = await lookups.step_progress(ids)
                assert underway[first.id].percent == 100
                assert (underway[second.id].step, underway[second.id].total) == ("read", 4)
                running = await reader.jobs.get(second.id)
                assert (await reader.jobs.expectations([running]))[second.id].samples == 1
                assert await lookups.silences([any_tracker.session_id]) == {}
                assert (await lookups.by_suffix("1-abcd")).id == first.id
                assert await lookups.by_suffix("1-ABCD") is None
                assert await lookups.by_suffix("%") is None
                with pytest.raises(InvalidArgument, match=r"job-1-abcd \(load\), job-2-abcd"):
                    await lookups.by_suffix("abcd")


@pytest.mark.parametrize("limit", [-1, 0, 10_001, True, "2"])
async def test_a_limit_of_sessions_or_gaps_is_checked(any_tracker, limit):
    """A limit that is no number of rows is refused alike on all databases; of gaps, SQLite
    took -1 as no limit, and PostgreSQL refused it as if it were unavailable.
    """
    for read in (
        any_tracker.sessions.list(limit=limit),
        any_tracker.sessions.gaps(any_tracker.session_id, limit=limit),
    ):
        with pytest.raises(structjob.InvalidFilter, match="limit must be a whole number from 1"):
            await read


def test_a_reader_in_code_without_a_loop_names_what_reads_there(tmp_path):
    """A tracker has `with` and `async with`. The error of `with Reader` was that of any object."""
    with pytest.raises(structjob.InvalidState, match=r"async with.*tracker.run\(tracker.jobs"):
        with structjob.Reader(tmp_path / "jobs.db"):
            pytest.fail("unreachable")
