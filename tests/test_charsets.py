"""Databases that are not UTF-8: nothing becomes question marks in silence, and no character stops
what comes after it.
"""

import asyncio
import contextlib

import pytest
import structlog
from cli_support import typed
from database_support import Database, create, drop
from store_support import event, events, job, opened, read

import structjob
from structjob.store import cancellations, charset
from structjob.store.contract import Write

log = structlog.get_logger("tests.charsets")

TEXT = "Привет, 日本 🎉 é"


@contextlib.asynccontextmanager
async def made(kind, options):
    """Give a database of the test's own, made with these *options* and empty."""
    url = await create(kind, options)
    database = Database(kind, url)
    try:
        yield database
    finally:
        await database.engine.dispose()
        await drop(url)


@pytest.fixture
async def latin1():
    """A MariaDB database whose character set is the compiled default."""
    async with made("mariadb", "CHARACTER SET latin1") as database:
        yield database


def postgresql(encoding):
    return made(
        "postgresql", f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )


async def record_everywhere(database, directory):
    """Have text in every column of every table that takes the user's."""
    structjob.configure(console=False)
    async with structjob.Tracker(database.url, service=TEXT, spool=directory) as tracker:
        about = {
            "description": TEXT,
            "owner": TEXT,
            "project": TEXT,
            "metadata": {TEXT: TEXT},
            "external_job_id": TEXT,
        }
        with pytest.raises(RuntimeError):
            async with tracker.job(TEXT, job_type=TEXT, **about) as one, one.step(TEXT) as step:
                log.info(TEXT, detail=[TEXT])
                step.update(description=TEXT)
                one.result = {TEXT: TEXT}
                raise RuntimeError(TEXT)
        await tracker.flush()
        (group,) = await tracker.errors.list()
        await tracker.errors.resolve(group.fingerprint, by=TEXT)
        async with tracker.job("waits") as other:
            pass
        await tracker.flush()
        return one.id, other.id


async def test_a_database_in_latin1_keeps_every_character(latin1, tmp_path):
    """On MariaDB a database's own character set has no part in what is stored, in any table (faults
    11).
    """
    await record_everywhere(latin1, tmp_path / "spool")
    async with opened(None, latin1.url) as store:
        await store.write(Write(7, event(1, TEXT, ts="no time")))
        await store.write(Write(7, b"", job(1, "j", operation=TEXT)))
        await store.transact(lambda connection: cancellations.request(connection, "j", TEXT, TEXT))
    for table, columns in {
        "jobs": "operation, job_type, description, owner, project, external_job_id, error_message, metadata, result",
        "attempts": "error_message, result",
        "steps": "name, description, error_message",
        "logs": "message, operation, step, project, attrs",
        "sessions": "service",
        "errors": "message, resolved_by",
        "dead_letters": "payload",
        "cancellations": "reason, requested_by",
    }.items():
        for column in columns.split(", "):
            found = [
                row[0]
                for row in await latin1.rows(
                    f"SELECT {column} FROM structjob_{table} WHERE {column} IS NOT NULL"
                )
            ]
            assert any(TEXT in value for value in found), (table, column, found)
            assert not any("??" in value for value in found), (table, column, found)


def test_doctor_and_migrate_name_a_column_that_cannot_hold_every_character():
    """A column with a smaller character set is named, with the statement that converts it; after
    the statement all is well again (faults 11).
    """
    url = asyncio.run(create("mariadb", "CHARACTER SET latin1"))

    async def execute(statement):
        database = Database("mariadb", url)
        await database.execute(statement)
        await database.engine.dispose()

    shown = url.set(drivername="mariadb").render_as_string(hide_password=False)
    try:
        assert "character set" not in typed(shown, "migrate")
        asyncio.run(
            execute(
                "ALTER TABLE structjob_logs MODIFY message LONGTEXT CHARACTER SET latin1 NOT NULL"
            )
        )
        told = typed(shown, "doctor")
        assert "structjob_logs.message has the character set latin1" in told
        (line,) = [line for line in told.splitlines() if "ALTER TABLE" in line]
        assert "structjob_logs.message" in typed(shown, "migrate")
        asyncio.run(execute(line[line.index("ALTER") :].strip()))
        assert "character set" not in typed(shown, "doctor")
    finally:
        asyncio.run(drop(url))


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("LATIN1", r"\u041f\u0440\u0438\u0432\u0435\u0442, \u65e5\u672c \U0001f389 é"),
        ("EUC_JP", r"Привет, 日本 \U0001f389 é"),
        ("SQL_ASCII", TEXT),
    ],
)
async def test_a_database_in_another_encoding_stores_all_the_same(
    encoding, shown, tmp_path, caplog
):
    """On PostgreSQL a character that the encoding lacks is stored as an escape: nothing is lost,
    nothing waits, one warning (faults 12).
    """
    async with postgresql(encoding) as database:
        await record_everywhere(database, tmp_path / "spool")
        assert f"has the encoding {encoding}" in caplog.text
        assert "CREATE DATABASE" in caplog.text
        assert "delivery goes on" not in caplog.text
        where = {
            "jobs": "operation",
            "logs": "message",
            "steps": "name",
            "sessions": "service",
            "errors": "resolved_by",
        }
        for table, column in where.items():
            assert shown in [
                row[0] for row in await database.rows(f"SELECT {column} FROM structjob_{table}")
            ], table
        assert await database.rows("SELECT count(*) FROM structjob_dead_letters") == [(0,)]
        async with structjob.Tracker(database.url, spool=False) as tracker:
            assert [
                found.message for found in await tracker.logs.list(text="Привет", kind="log")
            ] == [shown]
            assert (await tracker.jobs.by_external_id(TEXT)).operation == shown
            assert (await tracker.verify()).ok
        async with database.engine.connect() as connection:
            ((found, advice),) = await connection.run_sync(charset.advice)
        assert f"encoding is {encoding}" in found
        assert "ENCODING 'UTF8'" in advice


async def test_a_dead_letter_can_always_be_stored(tmp_path, monkeypatch):
    """What the database refuses with a character that it cannot hold is put aside, and its
    neighbours are stored (faults 12).
    """
    async with postgresql("LATIN1") as database, opened(None, database.url) as store:
        store._codec = None  # as where Python's idea of an encoding is not the server's
        written = await store.write(Write(1, events(1) + event(2, TEXT) + events(3)))
        assert written.dead == 1
        assert [found.seq for found in await read(store)] == [1, 3]
        ((payload, error),) = await database.rows(
            "SELECT payload, error FROM structjob_dead_letters"
        )
        assert r"\u041f\u0440" in payload
        assert "22P05" in error
