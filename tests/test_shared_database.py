"""A database that belongs to an application, and has structjob's tables among its own: neither
harms the other.
"""

import asyncio
import secrets

import pytest
import sqlalchemy as sa
import structlog
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cli_support import typed
from database_support import Database, bare, create, drop

import structjob
from structjob.alembic import include_object
from structjob.exceptions import InvalidURL, StoreUnavailable
from structjob.store.factory import make_store
from structjob.store.migration_sql import render
from structjob.urls.url import parse

log = structlog.get_logger()


async def proposed(database, models, **options):
    """Return what Alembic would do to the database of an application with these *models*."""

    def compare(connection):
        return compare_metadata(MigrationContext.configure(connection, opts=options), models)

    async with database.engine.connect() as connection:
        return await connection.run_sync(compare)


async def test_autogenerate_leaves_our_tables_alone(database):
    """faults 39: with `include_object` Alembic proposes nothing for our tables, and all that it
    should for the application's.
    """
    models = sa.MetaData()
    dropped = {
        each[1].name for each in await proposed(database, models) if each[0] == "remove_table"
    }
    # what it is about
    assert {"structjob_jobs", "structjob_logs", "structjob_alembic_version"} <= dropped
    assert await proposed(database, models, include_object=include_object) == []

    sa.Table("structjob_of_the_application", models, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "customers",
        models,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(20), index=True),
    )
    found = await proposed(database, models, include_object=include_object)
    assert sorted(each[0] for each in found) == ["add_index", "add_table", "add_table"]


async def schemas(own):
    """Return how many tables and views of ours each schema has."""
    found = "SELECT table_schema, count(*) FROM information_schema.tables WHERE table_name LIKE 'structjob%' GROUP BY 1"
    return dict(await own.rows(found))


async def test_a_schema_of_ones_own(tmp_path):
    """faults 39: tables, views, reads, verify, commands and migrations are all in the schema;
    another tracker's tables are beside it.
    """
    async with bare("postgresql", tmp_path) as own:
        structjob.configure(console=False, strict=True)
        for schema, name in ((None, "usual"), ("Logs_1", "apart")):
            async with structjob.Tracker(own.url, schema=schema, spool=tmp_path / name) as tracker:
                async with tracker.job(name, job_id=name), structjob.step("s"):
                    log.info(name)
                assert [one.id for one in await tracker.jobs.list()] == [name]
                assert (await tracker.jobs.progress(name)).percent == 100
                assert (await tracker.verify()).ok
        found = await schemas(own)
        assert found.keys() == {"public", "Logs_1"}
        assert found["public"] == found["Logs_1"]
        assert (
            await proposed(own, sa.MetaData(), include_schemas=True, include_object=include_object)
            == []
        )
        assert await own.rows('SELECT job_id FROM "Logs_1".structjob_job_progress') == [("apart",)]


def test_commands_in_a_schema(tmp_path):
    """faults 39: a command finds the schema in the URL; `migrate` creates the tables in it, drops
    them, and prints the SQL.
    """

    async def run(call):
        database = Database("postgresql", made)
        try:
            return await call(database)
        finally:
            await database.engine.dispose()

    made = asyncio.run(create("postgresql"))
    url = f"{made.set(drivername='postgresql').render_as_string()}?schema=Logs_1"
    try:
        assert "tables created" in typed(url, "migrate")
        assert asyncio.run(run(schemas)).keys() == {"Logs_1"}
        assert "0001" in typed(url, "doctor")
        assert "no jobs" in typed(url, "jobs")
        assert "tables dropped" in typed(url, "migrate", "--down", "base", "--yes")
        assert asyncio.run(run(schemas)) == {}
        script = typed(url, "migrate", "--sql")
        assert (
            script.index("BEGIN;")
            < script.index('CREATE SCHEMA IF NOT EXISTS "Logs_1";')
            < script.index("CREATE TABLE")
        )
        assert 'SET LOCAL search_path TO "Logs_1";' in script
    finally:
        asyncio.run(drop(made))


async def test_the_script_for_a_schema(tmp_path):
    """faults 39: what `migrate --sql` prints for a schema makes the tables in it, and nothing
    elsewhere.
    """
    async with bare("postgresql", tmp_path) as own:
        async with own.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.execute(render("postgresql", schema="logs"))
        assert (await schemas(own)).keys() == {"logs"}
        store = make_store(f"{own.url}?schema=logs", {})
        await store.open()
        await store.close()
        assert (await schemas(own)).keys() == {"logs"}


async def test_a_schema_without_the_right_to_create_one(tmp_path):
    """faults 39: a schema that an administrator made is enough; where the search path names none,
    the message says what to do.
    """
    name = f"weak_{secrets.token_hex(4)}"
    async with bare("postgresql", tmp_path) as own:
        await own.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD 'pw'", f"CREATE SCHEMA logs AUTHORIZATION {name}"
        )
        url = parse(own.url).set(username=name, password="pw")
        try:
            store = make_store(url.update_query_dict({"schema": "logs"}), {})
            await store.open()
            await store.close()
            assert (await schemas(own)).keys() == {"logs"}
            await own.execute(f"ALTER ROLE {name} SET search_path = nowhere")
            store = make_store(url, {})
            with pytest.raises(StoreUnavailable, match="add schema=NAME to the URL") as caught:
                await store.open()
            await store.close()
            assert caught.value.permanent
        finally:
            await own.execute(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def test_a_schema_elsewhere_than_on_postgresql(tmp_path):
    """faults 39: the option is refused on a database that has no such schemas."""
    for url in (f"sqlite:///{tmp_path / 'jobs.db'}", "mariadb://h/d"):
        with pytest.raises(InvalidURL, match="is for PostgreSQL"):
            await structjob.Tracker(url, schema="logs").open()
