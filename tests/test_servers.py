"""Databases on servers: what a newcomer's mistake says, and what a fault costs."""

import asyncio
import contextlib
import subprocess
import sys
import traceback

import pytest
import sqlalchemy as sa
import structlog
from breakable_servers import ServerMissing
from database_support import bare
from fault_proxy import FaultProxy
from faults import EVENTS
from servers import absent, remove, start_private
from stopwatch import Stopwatch
from store_support import event, events, job, opened, read

import structjob
from structjob.exceptions import InvalidURL, StoreUnavailable
from structjob.spool.session import Session
from structjob.store import batch_sizer, server
from structjob.store.contract import Write
from structjob.store.factory import make_store
from structjob.store.tables import logs
from structjob.urls.url import parse

log = structlog.get_logger()
SERVERS = pytest.mark.parametrize("database", ["mariadb", "postgresql"], indirect=True)
SECRET = "s3cr3t/p@ss"


async def refusal(url, **options):
    """Return what opening a store at *url* says, having looked for the password in every place that
    it could show.
    """
    store = make_store(url, options)
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await store.open()
    finally:
        await store.close()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(store)
    assert "s3cr3t" not in shown
    assert "hex" not in shown
    return caught.value


def changed(given, **parts):
    return parse(given.url).set(**parts)


@SERVERS
async def test_a_wrong_user_or_password(database):
    """The message says that the login is refused, and what to correct; waiting will not
    help (R29).
    """
    exc = await refusal(changed(database, username="nobody_of_ours", password=SECRET))
    assert "refuses the login" in str(exc)
    assert "correct the user and the password" in str(exc)
    assert exc.permanent


@SERVERS
async def test_a_missing_database(database):
    """The message says what to type to create it (R29)."""
    exc = await refusal(changed(database, database="not_there"))
    assert "no database 'not_there'" in str(exc)
    assert "CREATE DATABASE" in str(exc)
    assert exc.permanent


@pytest.mark.parametrize("scheme", ["mariadb", "mysql", "postgresql"])
@pytest.mark.parametrize("where", ["127.0.0.1:1", "nowhere.invalid"])
async def test_nobody_there(scheme, where):
    """A wrong host or port, or a server that is down, is named with its address; it may come back
    (R29).
    """
    exc = await refusal(f"{scheme}://me:s3cr3t@{where}/test")
    assert f"cannot connect to {scheme}://me:***@{where}/test" in str(exc)
    assert "is the server running" in str(exc)
    assert not exc.permanent


@pytest.mark.parametrize(
    ("scheme", "extra", "driver"),
    [("mysql", "mysql", "asyncmy"), ("postgresql", "postgres", "asyncpg")],
)
async def test_a_missing_driver(scheme, extra, driver, monkeypatch):
    """The message says what to install (R29)."""
    monkeypatch.setitem(sys.modules, driver, None)
    exc = await refusal(f"{scheme}://me:s3cr3t@127.0.0.1/test")
    assert f"pip install 'structjob[{extra}]'" in str(exc)
    assert exc.permanent


@SERVERS
async def test_a_missing_table(database, tmp_path):
    """Tables that were dropped while a tracker writes: the message says what to run; nothing goes
    to the dead letters (R29).
    """
    async with bare(database.kind, tmp_path) as own, opened(own) as store:
        await own.execute(
            "DROP TABLE structjob_logs" + (" CASCADE" if own.kind == "postgresql" else "")
        )
        with pytest.raises(StoreUnavailable, match="structjob migrate") as caught:
            await store.write(Write(1, events(1)))
        assert caught.value.permanent
        assert await own.rows("SELECT count(*) FROM structjob_dead_letters") == [(0,)]


@SERVERS
async def test_a_user_without_rights(database, tmp_path):
    """The error of a user who may not create tables says who has to, and which rights a tracker
    needs (R29).
    """
    name = f"weak_{database.url.rpartition('_')[2][:12]}"
    async with bare(database.kind, tmp_path) as own:
        schema = parse(own.url).database
        if own.kind == "mariadb":
            await own.execute(
                f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'pw'",
                f"GRANT SELECT ON {schema}.* TO {name}@'127.0.0.1'",
            )
        else:
            await own.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
        try:
            exc = await refusal(changed(own, username=name, password="pw"))
            assert "lacks a right" in str(exc)
            assert "structjob migrate" in str(exc)
            assert exc.permanent
        finally:
            await own.execute(
                f"DROP USER {name}" + ("@'127.0.0.1'" if own.kind == "mariadb" else "")
            )


@SERVERS
async def test_the_least_rights_suffice(database, tmp_path):
    """Once the tables are there, SELECT, INSERT, UPDATE and DELETE on them are all that a tracker
    needs (docs/databases).
    """
    name = f"least_{database.url.rpartition('_')[2][:12]}"
    async with bare(database.kind, tmp_path) as own:
        async with opened(own):
            pass
        schema = parse(own.url).database
        if own.kind == "mariadb":
            user = f"{name}@'127.0.0.1'"
            await own.execute(
                f"CREATE USER {user} IDENTIFIED BY 'pw'",
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.* TO {user}",
            )
        else:
            user = name
            await own.execute(
                f"CREATE ROLE {user} LOGIN PASSWORD 'pw'",
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}",
                f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}",
            )
        structjob.configure(console=False, strict=True)
        try:
            async with structjob.Tracker(
                changed(own, username=name, password="pw"), spool=tmp_path / "spool"
            ) as tracker:
                async with tracker.job("o", job_id="j"), structjob.step("s"):
                    log.info("hello")
                assert (await tracker.verify()).ok
                assert len(await tracker.logs.list(job_id="j")) == 5
        finally:
            if own.kind == "postgresql":
                await own.execute(f"DROP OWNED BY {user}")
            await own.execute(f"DROP USER {user}")


async def test_an_option_that_is_none():
    """A misspelt engine option is refused with its name, not ignored."""
    store = make_store("postgresql://me:s3cr3t@127.0.0.1/test", {"pool_sise": 3})
    with pytest.raises(InvalidURL, match="pool_sise") as caught:
        await store.open()
    assert "s3cr3t" not in str(caught.value)
    await store.close()


@SERVERS
async def test_engine_options_reach_the_engine(database):
    """The pool's size and the driver's own options (TLS among them) are handed through, beside
    ours.
    """
    options = {
        "pool_size": 1,
        "max_overflow": 0,
        "connect_args": {"ssl": False if database.kind == "postgresql" else None},
    }
    store = make_store(database.url, options)
    await store.open()
    try:
        await asyncio.gather(*(store.write(Write(n, events(1))) for n in range(1, 9)))
        assert store._engine.pool.size() == 1
        settings = "SHOW application_name" if database.kind == "postgresql" else "SELECT @@sql_mode"
        (row,) = await store.fetch(sa.text(settings))
        assert ("structjob" if database.kind == "postgresql" else "STRICT_ALL_TABLES") in next(
            iter(row.values())
        )
    finally:
        await store.close()


@SERVERS
async def test_tls_is_asked_for(database):
    """Where TLS is wanted and there is no way to verify it, nothing is sent in the clear; the
    message names what is missing (Security).
    """
    authority = "/nowhere/ca.pem"
    option = {"sslrootcert": authority} if database.kind == "postgresql" else {"ssl_ca": authority}
    store = make_store(changed(database, password=SECRET).update_query_dict(option), {})
    with pytest.raises((StoreUnavailable, InvalidURL), match=r"nowhere.*No such file") as caught:
        await store.open()
    assert "s3cr3t" not in str(caught.value)
    await store.close()


def test_a_url_without_a_database():
    """MySQL and MariaDB have no database of a user's own to fall back on: the URL must name one."""
    with pytest.raises(
        InvalidURL,
        match=r"names no database: add its name, such as mariadb://me:\*\*\*@host/structjob",
    ):
        make_store("mariadb://me:s3cr3t@host", {})


@SERVERS
async def test_connections_that_were_cut(database, tmp_path):
    """An idle connection that the server, or a firewall, has ended is replaced unnoticed (R29)."""
    async with opened(database) as store:
        await store.write(Write(1, events(1)))
        assert await kill_all(database) >= 1
        await store.write(Write(1, events(2)))
        assert await kill_all(database) >= 1
        assert [e.seq for e in await read(store)] == [1, 2]
        assert await kill_all(database) >= 1
        await store.heartbeat(1, 2)


@contextlib.asynccontextmanager
async def behind_proxy(database):
    """A proxy, and a store that is reached through it alone, by one connection."""
    url = parse(database.url)
    async with FaultProxy(url.host, url.port) as proxy:
        async with opened(
            database, url.set(host="127.0.0.1", port=proxy.port), pool_size=1, max_overflow=0
        ) as store:
            yield proxy, store


@SERVERS
async def test_a_batch_of_events_asks_little(database):
    """On a loop that never rests each answer that is waited for takes two turns: PostgreSQL is
    asked once; MariaDB to insert, to note how far the session is, to commit, and by the pool to
    roll back; neither whether the connection lives (B4).
    """
    async with behind_proxy(database) as (proxy, store):
        await store.begin_session(Session())
        await store.write(Write(1, events(1), last_seq=1))  # PostgreSQL gets the statement once
        before = proxy.asked
        await store.write(Write(1, events(2), last_seq=2))
        assert proxy.asked - before == {"postgresql": 1, "mariadb": 4}[database.kind]


@SERVERS
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
async def test_a_connection_that_is_cut_once_in_a_batch(database, answered):
    """The batch is repeated at once, whether the server stored it or not: no warning is logged, and
    it is stored once (R29).
    """
    async with behind_proxy(database) as (proxy, store):
        await store.write(Write(1, events(1)))
        (proxy.cut_after if answered else proxy.cut_before)(EVENTS[database.kind])
        writing = asyncio.create_task(store.write(Write(1, events(2))))
        while not proxy.cuts:
            await asyncio.sleep(0)
        proxy.go()
        await writing
        assert proxy.cuts == 1
        assert await database.rows("SELECT seq FROM structjob_logs ORDER BY seq") == [(1,), (2,)]


@SERVERS
async def test_a_server_that_ends_a_connection_while_it_is_set_up(database):
    """The driver's own exception does not reach the program: the first question on a new connection
    counts as any other (R29).
    """
    async with behind_proxy(database) as (proxy, store):
        proxy.cut_before({"postgresql": b"pg_settings", "mariadb": b"sql_mode"}[database.kind])
        assert await kill_all(database) >= 1
        with pytest.raises(StoreUnavailable, match="cannot connect"):
            await read(store)
        proxy.go()
        assert await read(store) == []


def insert(connection, number):
    connection.execute(
        logs.insert().values(
            session_id=1, seq=number, ts=sa.func.now(), level="info", message="m", type="system"
        )
    )


READ_UNCOMMITTED = {
    "connect_args": {"server_settings": {"default_transaction_isolation": "read uncommitted"}}
}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"isolation_level": "REPEATABLE_READ"},
        {"isolation_level": "SERIALIZABLE"},
        READ_UNCOMMITTED,
    ],
)
async def test_a_batch_leaves_its_connection_as_it_was(database, given):
    """Whatever isolation the user or the server sets, batches do not use up the pool, and what
    fails afterwards is undone.
    """
    async with opened(database, pool_size=1, max_overflow=0, **given) as store:

        def level(connection):
            return connection.exec_driver_sql("SHOW transaction_isolation").scalar_one()

        before = await store.transact(level)
        for number in (1, 2, 3):
            await store.write(Write(1, events(number)))

        def fails(connection):
            insert(connection, 4)
            raise LookupError

        with pytest.raises(LookupError):
            await store.transact(fails)
        assert await store.transact(level) == before
        assert await database.rows("SELECT count(*) FROM structjob_logs") == [(3,)]


async def kill_all(database):
    if database.kind == "postgresql":
        sql = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'structjob' AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        return len(await database.rows(sql))
    found = await database.rows(
        "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    )
    await database.execute(*(f"KILL {number}" for (number,) in found))
    return len(found)


@SERVERS
async def test_a_connection_that_is_cut_in_a_transaction(database):
    """What was not committed is undone, the caller hears that the database is away, and trying
    again stores it once.
    """
    async with opened(database) as store:

        def cut(connection):
            insert(connection, 1)
            if database.kind == "postgresql":
                connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
            else:
                connection.exec_driver_sql("KILL CONNECTION_ID()")

        with pytest.raises(StoreUnavailable) as caught:
            await store.transact(cut)
        assert not caught.value.permanent
        await store.write(Write(1, events(1)))
        assert await database.rows("SELECT count(*) FROM structjob_logs") == [(1,)]


@SERVERS
async def test_a_locked_table_is_given_up_in_time(database, monkeypatch):
    """The long transaction of another program holds a row: the store says so after its time limit
    and works when the row is free (R29).
    """
    monkeypatch.setattr(server, "WRITE_TIMEOUT", 1.0)
    async with opened(database) as store:
        await store.write(Write(1, b"", job(1)))
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("UPDATE structjob_jobs SET owner = 'me'")
            watch = Stopwatch()
            with pytest.raises(StoreUnavailable, match="has not answered for 1 s"):
                await store.write(Write(1, events(1), job(2, status="completed")))
            assert watch.seconds < 5
        await store.write(Write(1, events(1), job(2, status="completed")))
        assert await database.rows("SELECT status, owner FROM structjob_jobs") == [
            ("completed", None)
        ]


@pytest.mark.slow
@SERVERS
async def test_a_slow_server_is_given_less_at_a_time(database, tmp_path, monkeypatch):
    """A server that would take longer for a batch than a transaction may take gets it in parts,
    small at first, and larger ones when it turns out faster; no warning is logged, and all is
    stored, once and in order (R29).
    """
    monkeypatch.setattr(server, "WRITE_TIMEOUT", 2.0)
    monkeypatch.setattr(batch_sizer, "LONG", 0.1)
    slow = [_SLOW_ROWS[database.kind][0], "CREATE TRIGGER slow " + _SLOW_ROWS[database.kind][1]]
    async with bare(database.kind, tmp_path) as own, opened(own) as store:
        await own.execute(*filter(None, slow))
        lines = events(*range(1, 2501))
        await store.write(Write(1, lines, job(1), last_seq=2500))
        assert await own.rows("SELECT count(*), min(seq), max(seq) FROM structjob_logs") == [
            (2500, 1, 2500)
        ]
        assert await own.rows("SELECT id FROM structjob_jobs") == [("j",)]
        few = store._sizer.most
        assert few < len(lines) / 4
        await own.execute(
            "DROP TRIGGER slow" + (" ON structjob_logs" if own.kind == "postgresql" else "")
        )
        monkeypatch.setattr(batch_sizer, "LONG", 4.0)
        for session in range(2, 8):
            await store.write(Write(session, lines))
        assert store._sizer.most >= len(lines)
        assert await own.rows("SELECT count(*) FROM structjob_logs") == [(7 * 2500,)]


_SLOW_ROWS = {
    "mariadb": ("", "BEFORE INSERT ON structjob_logs FOR EACH ROW DO SLEEP(0.001)"),
    "postgresql": (
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.0005); RETURN NEW; END $$",
        "BEFORE INSERT ON structjob_logs FOR EACH ROW EXECUTE FUNCTION slow()",
    ),
}
"""What makes a server take about a millisecond for each event: a function, and a trigger."""


def test_parts_of_a_batch():
    """Each part is of whole lines, together they are the batch; a line that is longer than a part
    goes alone, and a part that failed is tried in smaller ones.
    """
    lines = [event(n, message="x" * (100_000 if n % 7 == 0 else 500)) for n in range(1, 60)]
    write = Write(1, b"".join(lines), b"states", 59)
    own = batch_sizer.BatchSizer()
    own.most = 20_000
    parts = list(own.of(write))
    assert b"".join(part.events for part in parts) == write.events
    assert all(len(part.events) <= 20_000 or part.events in lines for part in parts)
    assert [part.states for part in parts] == [b"states"] + [b""] * (len(parts) - 1)
    assert [part.last_seq for part in parts] == [0] * (len(parts) - 1) + [59]
    own.most = 10_000_000
    assert list(own.of(write)) == [write]
    with pytest.raises(StoreUnavailable), own.watch(write):
        raise StoreUnavailable("no answer")
    assert own.most == len(write.events) // 8


async def test_a_small_packet_takes_a_large_batch(tmp_path):
    """On a server that takes a megabyte a statement, a batch of four is stored in several
    (MariaDB's max_allowed_packet).
    """
    async with bare("mariadb", tmp_path) as own, opened(own) as store:
        await store.begin_session(structjob.spool.session.Session())
        store.ingest.most = 300_000
        written = await store.write(
            Write(1, b"".join(events(n, message="x" * 100_000) for n in range(1, 41)))
        )
        assert (written.dead, len(await read(store))) == (0, 40)
        # An event that no statement takes is put aside, and the reason says what to raise.
        store.ingest.most = 90_000
        assert (await store.write(Write(1, events(41, message="x" * 100_000)))).dead == 1
        assert (
            "max_allowed_packet"
            in (await own.rows("SELECT error FROM structjob_dead_letters"))[0][0]
        )


def test_importing_structjob_imports_no_driver():
    """Neither SQLAlchemy nor a driver is imported before a tracker opens (B12)."""
    program = "import structjob, sys; print({'sqlalchemy', 'asyncmy', 'asyncpg', 'alembic'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.fixture(params=["mariadb", "postgresql"])
def private(request):
    """A server of one's own, running."""
    try:
        given = start_private(request.param)
    except ServerMissing as exc:
        absent(request.param, str(exc))
    yield given
    remove(given)


@pytest.mark.slow
async def test_a_frozen_server(private, monkeypatch, tmp_path):
    """Every call ends within its time limit, closing too, and all goes on when the server does
    (guarantee 6).
    """
    store = make_store(private.url(), {})
    await store.open()
    await store.write(Write(1, events(1)))
    monkeypatch.setattr(server, "WRITE_TIMEOUT", 0.5)
    monkeypatch.setattr(server, "READ_TIMEOUT", 0.5)
    # more than the sockets' buffers hold
    large = b"".join(events(n, message="x" * 60_000) for n in range(2, 40))
    private.freeze()
    try:
        for call in (
            lambda: store.write(Write(1, large)),
            lambda: read(store),
            lambda: store.heartbeat(1, 5),
            lambda: store.write(Write(1, large)),
        ):
            watch = Stopwatch()
            with pytest.raises(StoreUnavailable, match="has not answered"):
                await call()
            assert watch.seconds < 1.5
        # A caller that gives up is free at once.
        task = asyncio.create_task(store.write(Write(1, large)))
        await asyncio.sleep(0.1)
        task.cancel()
        watch = Stopwatch()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watch.seconds < 0.3
    finally:
        private.thaw()
    monkeypatch.setattr(server, "WRITE_TIMEOUT", 20.0)
    monkeypatch.setattr(server, "READ_TIMEOUT", 20.0)
    await store.write(Write(1, large))
    assert len(await read(store)) == 39
    private.freeze()
    try:
        watch = Stopwatch()
        await store.close()
        assert watch.seconds < 3
    finally:
        private.thaw()


@pytest.mark.slow
async def test_a_restarted_server(private, tmp_path):
    """A tracker survives the restart of its server: events logged meanwhile are stored once, with
    one warning only (R29).
    """
    structjob.configure(console=False)
    async with structjob.Tracker(private.url(), spool=tmp_path / "spool") as tracker:
        log.info("before")
        await tracker.flush()
        private.kill()
        for n in range(500):
            log.info("meanwhile", n=n)
        with pytest.raises(StoreUnavailable):
            await tracker.flush()
        await asyncio.to_thread(private.start)
        async with asyncio.timeout(60):
            while tracker.ledger().stored < 501:
                await asyncio.sleep(0.05)
        assert (await tracker.verify()).ok
        assert await tracker.logs.count() == 501
