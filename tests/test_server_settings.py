"""Servers whose defaults are not the usual ones: each connection sets what our statements need, or
the message says what to change.
"""

import asyncio

import pytest
import structlog
from breakable_servers import ServerMissing
from database_support import bare
from servers import absent, remove, start_private

import structjob
from structjob.exceptions import StoreUnavailable
from structjob.store.factory import make_store
from structjob.urls.url import parse

log = structlog.get_logger()
QUOTES = 'it\'s a "b" \\ c'

MARIADB = {
    "ANSI": "sql_mode = 'ANSI'",
    "ANSI_QUOTES": "sql_mode = 'ANSI_QUOTES'",
    "ORACLE": "sql_mode = 'ORACLE'",
    "no backslash": "sql_mode = 'NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE'",
    "not strict": "sql_mode = ''",
    "full group by": "sql_mode = 'ONLY_FULL_GROUP_BY,PAD_CHAR_TO_FULL_LENGTH,EMPTY_STRING_IS_NULL'",
    "time": "time_zone = '+05:30', max_statement_time = 0.002",
    "transactions": "tx_isolation = 'SERIALIZABLE', autocommit = 0, completion_type = 'CHAIN', innodb_strict_mode = 0",
    "limits": "sql_safe_updates = 1, sql_select_limit = 3, max_join_size = 10, max_recursive_iterations = 1",
}
POSTGRESQL = {
    "serializable": {"default_transaction_isolation": "serializable"},
    "impatient": {
        "statement_timeout": "50ms",
        "lock_timeout": "5ms",
        "idle_in_transaction_session_timeout": "5ms",
    },
    "strings": {
        "standard_conforming_strings": "off",
        "backslash_quote": "off",
        "bytea_output": "escape",
        "quote_all_identifiers": "on",
    },
    "times": {
        "DateStyle": "SQL, DMY",
        "IntervalStyle": "sql_standard",
        "TimeZone": "Asia/Kolkata",
        "extra_float_digits": "-15",
    },
}


def usually(cases, *always):
    """Parametrize with *cases*: in each run with those that are named, with the rest in the slow
    tier.
    """
    return pytest.mark.parametrize(
        "setting",
        [case if case in always else pytest.param(case, marks=pytest.mark.slow) for case in cases],
    )


async def log_and_read(url, spool, **options):
    """Let a program of usual kind run: all of it is stored, found and proved."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(url, spool=spool, **options) as tracker:
        async with (
            tracker.job("copy", job_id=QUOTES, metadata={"of": QUOTES}) as job,
            job.step("load", total=4),
        ):
            for number in range(20):
                log.info(QUOTES, number=number)
        with pytest.raises(ValueError, match="b"):
            async with tracker.job("fail"):
                raise ValueError(QUOTES)
        assert (await tracker.jobs.get(QUOTES)).metadata == {"of": QUOTES}
        assert {one.status for one in await tracker.jobs.list()} == {"completed", "failed"}
        assert len([one async for one in tracker.logs.iterate(text='"b" \\')]) >= 20
        assert [one.attrs["number"] for one in await tracker.logs.list(attrs={"number": 7})] == [7]
        assert {one.operation for one in await tracker.stats.operations()} == {"copy", "fail"}
        assert (await tracker.errors.list())[0].error.message == QUOTES
        verified = await tracker.verify()
        assert verified.ok, verified


@usually(MARIADB, "ANSI", "limits")
async def test_a_mariadb_with_other_defaults(setting, tmp_path):
    """faults 36: whatever sql_mode, time zone, isolation and limits a connection begins with, all
    works as with the usual ones.
    """
    async with bare("mariadb", tmp_path) as own:
        begins = {"connect_args": {"init_command": f"SET SESSION {MARIADB[setting]}"}}
        await log_and_read(own.url, tmp_path / "spool", engine_options=begins)


@usually(POSTGRESQL, "serializable", "impatient")
async def test_a_postgresql_with_other_defaults(setting, tmp_path):
    """faults 36: whatever isolation, time limits and formats the role or the database has, all
    works as with the usual ones.
    """
    async with bare("postgresql", tmp_path) as own:
        name = parse(own.url).database
        await own.execute(
            *(
                f"ALTER DATABASE {name} SET {what} = '{value}'"
                for what, value in POSTGRESQL[setting].items()
            )
        )
        await log_and_read(own.url, tmp_path / "spool")


@pytest.mark.parametrize(
    ("kind", "setting", "lift"),
    [
        ("mariadb", "tx_read_only = 1", "SET GLOBAL transaction_read_only = OFF"),
        (
            "postgresql",
            "default_transaction_read_only = on",
            "SET default_transaction_read_only = off",
        ),
    ],
)
async def test_transactions_that_are_read_only_by_default(kind, setting, lift, tmp_path):
    """faults 36: this protects a database, so it is left as it is; the message says what to do if
    that is not meant.
    """
    async with bare(kind, tmp_path) as own:
        options = {}
        if kind == "mariadb":
            options = {"connect_args": {"init_command": f"SET SESSION {setting}"}}
        else:
            await own.execute(f"ALTER DATABASE {parse(own.url).database} SET {setting}")
        store = make_store(own.url, options)
        with pytest.raises(StoreUnavailable, match="is read-only") as caught:
            await store.open()
        await store.close()
        assert lift in str(caught.value)


@pytest.fixture(scope="module")
def mariadb():
    """A MariaDB of this module's own, whose defaults can be changed."""
    try:
        server = start_private("mariadb")
    except ServerMissing as exc:
        absent("mariadb", str(exc))
    yield server
    remove(server)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [128, 64])
async def test_a_small_packet(mariadb, kilobytes, tmp_path):
    """faults 36: batches are divided until they fit; a job whose row does not fit ends
    nevertheless; an event becomes a dead letter.
    """
    mariadb.sql(
        f"DROP DATABASE test; CREATE DATABASE test; SET GLOBAL max_allowed_packet = {kilobytes * 1024}"
    )
    large = kilobytes * 1024
    structjob.configure(console=False)
    async with structjob.Tracker(mariadb.url(), spool=tmp_path / "spool") as tracker:
        async with tracker.job("copy", job_id="j") as job:
            for number in range(400):
                log.info("x" * 1000, number=number)
            log.info("'" * large, large=True)
            job.result = {"rows": ["x" * 10_000] * (large // 10_000)}
        await asyncio.wait_for(tracker.flush(), 30)
        assert (await tracker.jobs.get("j")).status == "completed"
        assert len([one async for one in tracker.logs.iterate(text="x" * 1000)]) == 400
        ledger = tracker.ledger()
        assert (ledger.accepted, ledger.dead_lettered) == (ledger.stored + 1, 1)
        verified = await tracker.verify()
        assert verified.ok, verified
    room = (large - 8192) // 2
    said = mariadb.sql("SELECT error, payload FROM structjob_dead_letters WHERE seq IS NOT NULL")
    permitted = int(
        said.partition("max_allowed_packet permits ")[2].partition(":")[0].replace(",", "")
    )
    assert 0 <= permitted - room < 8192
    assert len(said) < large


async def test_an_option_of_the_server_that_is_not_read_only(tmp_path):
    """A MariaDB that refuses a statement because of another option is not called read-only: the
    server's words say which option it is.
    """
    async with bare("mariadb", tmp_path) as own:
        begins = {"connect_args": {"init_command": "SET SESSION max_session_mem_used = 8192"}}
        store = make_store(own.url, begins)
        with pytest.raises(StoreUnavailable, match="max-session-mem-used") as caught:
            await store.open()
        await store.close()
    assert "is read-only" not in str(caught.value)


@pytest.mark.slow
async def test_a_user_who_may_send_no_more_statements(tmp_path, caplog):
    """Bad day: the server limits a user's statements per hour. The message names the limit and its
    remedy, no traceback of SQLAlchemy appears, and all is delivered when the limit is raised.
    """
    structjob.configure(console=False)
    async with bare("mariadb", tmp_path) as own:
        url = parse(own.url)
        user = f"`limited_{url.database}`@`%%`"
        await own.execute(
            f"CREATE USER {user} IDENTIFIED BY 'p' WITH MAX_QUERIES_PER_HOUR 150",
            f"GRANT ALL ON `{url.database}`.* TO {user}",
        )
        limited = url.set(username=f"limited_{url.database}", password="p")
        try:
            async with structjob.Tracker(
                limited.render_as_string(hide_password=False), spool=tmp_path / "spool"
            ) as tracker:
                async with asyncio.timeout(60):
                    while tracker.unavailable is None:
                        log.info("one more")
                        await asyncio.sleep(0.02)
                assert "max_queries_per_hour" in str(tracker.unavailable)
                assert "raise this limit of the user there (ALTER USER)" in str(tracker.unavailable)
                await own.execute(
                    f"ALTER USER {user} WITH MAX_QUERIES_PER_HOUR 0", "FLUSH USER_RESOURCES"
                )
                async with asyncio.timeout(60):
                    while tracker.unavailable is not None:
                        await asyncio.sleep(0.1)
                    await tracker.flush()
                assert tracker.ledger().stored == tracker.ledger().accepted
        finally:
            await own.execute(f"DROP USER {user}")
    assert [one for one in caplog.records if one.name.startswith("sqlalchemy")] == []


@pytest.mark.slow
async def test_a_packet_that_is_too_small(mariadb):
    """faults 36: a server that takes no row of a job is refused, with the right number and what to
    type.
    """
    mariadb.sql("SET GLOBAL max_allowed_packet = 16384")
    store = make_store(mariadb.url(), {})
    with pytest.raises(
        StoreUnavailable, match=r"is 16,384 bytes; structjob needs 65,536"
    ) as caught:
        await store.open()
    assert "SET GLOBAL max_allowed_packet = 16777216" in str(caught.value)
    assert store._connections == {}
    await store.close()


@pytest.mark.slow
async def test_defaults_of_the_whole_server(mariadb, tmp_path):
    """faults 36: ANSI for every connection, and a row format in which our indexes would be too
    long.
    """
    mariadb.sql(
        "DROP DATABASE test; CREATE DATABASE test; SET GLOBAL max_allowed_packet = 16777216"
    )
    mariadb.sql(
        "SET GLOBAL sql_mode = 'ANSI,ORACLE'; SET GLOBAL innodb_default_row_format = 'compact'"
    )
    await log_and_read(mariadb.url(), tmp_path / "spool")


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
async def test_a_column_that_was_added_to_our_table(kind, tmp_path):
    """Events wait until the column has a default; they are no dead letters, because the fault is
    not in them.
    """
    async with bare(kind, tmp_path) as own:
        structjob.configure(console=False)
        async with structjob.Tracker(own.url, spool=tmp_path / "spool") as tracker:
            log.info("before")
            await tracker.flush()
            await own.execute(
                "ALTER TABLE structjob_logs ADD COLUMN mine integer NOT NULL DEFAULT 1"
            )
            await own.execute("ALTER TABLE structjob_logs ALTER COLUMN mine DROP DEFAULT")
            log.info("after")
            with pytest.raises(StoreUnavailable, match=r"mine.*the column is not structjob's"):
                await tracker.flush()
            await own.execute("ALTER TABLE structjob_logs ALTER COLUMN mine SET DEFAULT 1")
            async with asyncio.timeout(60):
                while tracker.unavailable is not None:
                    await asyncio.sleep(0.05)
                await tracker.flush()
            assert (tracker.ledger().stored, tracker.ledger().dead_lettered) == (2, 0)


async def test_a_right_to_a_sequence_is_named(tmp_path):
    """PostgreSQL's sequences need a right of their own: the message says which."""
    async with bare("postgresql", tmp_path) as own:
        url = parse(own.url)
        role = f"r_{url.database}"
        store = make_store(own.url, {})
        await store.open()
        await store.close()
        await own.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD 'p'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        )
        structjob.configure(console=False)
        limited = url.set(username=role, password="p").render_as_string(hide_password=False)
        try:
            async with structjob.Tracker(limited, spool=tmp_path / "spool") as tracker:
                log.info("one")
                with pytest.raises(StoreUnavailable, match="and USAGE on their sequences"):
                    await tracker.flush()
        finally:
            await own.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
