"""The tables: made by the first process, once; the same in whichever way they are made; never
touched if they are not structjob's.
"""

import concurrent.futures
import multiprocessing
import sqlite3
import subprocess
import sys
import threading
import zipfile
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from cli_support import typed
from database_support import create_tables
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from structjob.exceptions import InvalidArgument, SchemaMismatch, StoreUnavailable
from structjob.store import migration_sql, migrations, views
from structjob.store.tables import errors, jobs, logs, metadata

SCHEMA = Path(__file__).parent.parent / "schema"
TABLES = {
    "jobs",
    "attempts",
    "steps",
    "logs",
    "sessions",
    "gaps",
    "cancellations",
    "dead_letters",
    "errors",
    "locks",
}


@pytest.fixture
def engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'jobs.db'}", poolclass=NullPool)
    yield engine
    engine.dispose()


def prepared(engine):
    with engine.connect() as connection:
        migrations.prepare(connection)
    return engine


def described(connection):
    """Everything about the tables that a program can rely on."""
    inspector = sa.inspect(connection)
    found = {}
    for table in sorted(metadata.tables):
        columns = [
            (c["name"], str(c["type"]), c["nullable"], c["default"], c["primary_key"])
            for c in inspector.get_columns(table)
        ]
        indexes = sorted(
            (
                i["name"] or "",
                tuple(i["column_names"]),
                bool(i["unique"]),
                str(i["dialect_options"].get("sqlite_where")),
            )
            for i in inspector.get_indexes(table)
        )
        unique = sorted(
            (u["name"], tuple(u["column_names"])) for u in inspector.get_unique_constraints(table)
        )
        found[table] = (
            columns,
            indexes,
            unique,
            inspector.get_pk_constraint(table)["constrained_columns"],
        )
    autoincrement = (
        connection.exec_driver_sql(
            "SELECT name FROM sqlite_schema WHERE sql LIKE '%AUTOINCREMENT%'"
        )
        .scalars()
        .all()
    )
    return found, autoincrement


def create_in_process(path, barrier):
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=NullPool)
    barrier.wait(30)
    with engine.connect() as connection:
        migrations.prepare(connection)
        return migrations.current(connection)


def test_the_first_tracker_makes_the_tables(engine):
    """A new database file has all eight tables and both views after one call, with nothing to
    install or run (R5, R6).
    """
    prepared(engine)
    inspector = sa.inspect(engine)
    assert set(inspector.get_table_names()) == {f"structjob_{name}" for name in TABLES} | {
        migrations.VERSION_TABLE
    }
    assert set(inspector.get_view_names()) == {"structjob_active_jobs", "structjob_job_progress"}


def test_the_tables_in_code_are_the_tables_in_the_database(engine):
    """What the queries believe about columns, types, defaults, keys and indexes is what the
    migrations make (R5, R6).
    """
    other = sa.create_engine("sqlite://")
    with other.connect() as created:
        create_tables(created)
        with prepared(engine).connect() as migrated:
            assert described(migrated) == described(created)
    other.dispose()


@pytest.mark.parametrize("dialect", migration_sql.DIALECTS)
def test_the_sql_for_a_dba_is_what_the_migrations_render(dialect):
    """The file that a DBA reads is never behind the code; to renew it, write `render(dialect)` into
    it (R6).
    """
    assert (SCHEMA / f"{dialect}.sql").read_text() == migrations.render(dialect)


def test_every_revision_is_known_without_alembic():
    """The list in the code, read at every start, and the migrations on disk are the same."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(SCHEMA))
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(revisions)) == migrations.REVISIONS


def test_a_dba_can_apply_the_script_by_hand(tmp_path, engine):
    """The printed SQL makes a database that a tracker then takes as its own, and the printed way
    back empties it (R6).
    """
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as raw, raw:
        raw.executescript(migrations.render("sqlite"))
    with prepared(engine).connect() as connection:
        assert migrations.current(connection) == migrations.head()
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as raw, raw:
        raw.executescript(migrations.render("sqlite", "down"))
        assert (
            raw.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'structjob%'").fetchall()
            == []
        )


def test_down_and_up_again(engine):
    """Migrations go down and up and down, any number of times; going where one is does nothing
    (R6).
    """
    with engine.connect() as connection:
        for _ in range(2):
            migrations.upgrade(connection)
            migrations.upgrade(connection)
            assert migrations.current(connection) == migrations.head()
            migrations.downgrade(connection, "base")
            migrations.downgrade(connection, "base")
            assert migrations.current(connection) is None
            assert sa.inspect(connection).get_table_names() == []
            connection.rollback()


def test_what_an_application_keeps_beside_ours_is_left_alone(engine):
    """structjob can live in an application's own database: its tables survive our creation and our
    removal (R6).
    """
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('theirs')")
    with prepared(engine).connect() as connection:
        migrations.downgrade(connection, "base")
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]


@pytest.mark.slow
def test_eight_processes_open_one_new_file_at_once(tmp_path):
    """The second process waits for the first and finds the tables ready; none fails (R6)."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        concurrent.futures.ProcessPoolExecutor(8, mp_context=context) as pool,
    ):
        barrier = manager.Barrier(8)
        found = list(pool.map(create_in_process, [str(tmp_path / "jobs.db")] * 8, [barrier] * 8))
    assert found == [migrations.head()] * 8


def test_eight_threads_create_eight_files_at_once(tmp_path):
    """Trackers that open in several threads do not meet in Alembic's global state (R6)."""
    migration_sql.statements.cache_clear()
    barrier = threading.Barrier(8)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(create_in_process, [tmp_path / f"{n}.db" for n in range(8)], [barrier] * 8)
        )
    assert found == [migrations.head()] * 8


async def test_from_asyncio(tmp_path):
    """The same functions serve the async engine through run_sync."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    async with engine.connect() as connection:
        await connection.run_sync(migrations.prepare)
        await connection.run_sync(migrations.prepare)
        assert await connection.run_sync(migrations.current) == migrations.head()
    await engine.dispose()


def test_the_second_start_asks_one_question_and_needs_no_alembic(tmp_path, engine):
    """A start on a database that is ready costs one small SELECT; Alembic is not even imported."""
    prepared(engine)
    program = f"""
import sys, sqlalchemy as sa
from structjob.store import migrations
engine = sa.create_engine("sqlite:///{tmp_path / "jobs.db"}")
seen = []
sa.event.listen(engine, "before_cursor_execute", lambda conn, cursor, statement, *rest: seen.append(statement))
with engine.connect() as connection:
    migrations.prepare(connection)
print(seen, "alembic" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == f"{['SELECT version_num FROM structjob_alembic_version']} False"


def test_a_newer_database_is_refused(engine):
    """An old program stops before it writes into tables it does not understand, and says to upgrade
    structjob.
    """
    with prepared(engine).begin() as connection:
        connection.exec_driver_sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    for step in (migrations.prepare, migrations.current, migrations.upgrade):
        with (
            engine.connect() as connection,
            pytest.raises(SchemaMismatch, match=r"^[^+]*9999.*upgrade structjob"),
        ):
            step(connection)


def test_a_revision_that_is_not_ours_is_refused(engine):
    """A version table of another program is not upgraded."""
    with prepared(engine).begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE {migrations.VERSION_TABLE} SET version_num = 'ae1027a6acf'"
        )
    with engine.connect() as connection, pytest.raises(SchemaMismatch, match="not structjob's"):
        migrations.prepare(connection)


def test_tables_that_are_not_ours_are_refused_and_kept(engine):
    """Tables named like ours that structjob did not make are named in the message and stay as they
    are.
    """
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE structjob_jobs (x INTEGER)")
    with engine.connect() as connection, pytest.raises(SchemaMismatch, match="structjob_jobs"):
        migrations.prepare(connection)
    assert [c["name"] for c in sa.inspect(engine).get_columns("structjob_jobs")] == ["x"]


async def test_a_creation_that_was_interrupted_is_finished(bare_database, monkeypatch):
    """Where CREATE commits on its own, a crash leaves some tables: the next start makes the rest,
    and drops nothing (faults 0.7).
    """
    monkeypatch.setattr(migrations, "STALLED", 0.0)
    engine = bare_database.engine
    async with engine.connect() as connection:
        await connection.run_sync(migrations.prepare)
    await bare_database.execute(
        f"DELETE FROM {migrations.VERSION_TABLE}", "DROP VIEW structjob_active_jobs", "DROP VIEW structjob_job_progress",
        "DROP TABLE structjob_logs", "ALTER TABLE structjob_jobs ADD COLUMN kept INTEGER",
    )  # fmt: skip
    async with engine.connect() as connection:
        await connection.run_sync(migrations.prepare)
        assert await connection.run_sync(migrations.current) == migrations.head()
    assert await bare_database.rows("SELECT kept FROM structjob_jobs") == []
    assert await bare_database.rows("SELECT id FROM structjob_logs") == []
    assert await bare_database.rows("SELECT job_id FROM structjob_active_jobs") == []


def test_rows_are_never_cleared_up(engine):
    """If the revision is gone but there are rows, nothing is dropped; the message says how to
    repair it.
    """
    with prepared(engine).begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {migrations.VERSION_TABLE}")
        connection.execute(
            jobs.insert().values(
                id="j", operation="o", status="running", created_at=datetime.now(UTC)
            )
        )
    with (
        engine.connect() as connection,
        pytest.raises(SchemaMismatch, match="structjob_jobs has rows"),
    ):
        migrations.prepare(connection)
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar() == 1


def test_a_migration_that_fails_leaves_nothing(engine, monkeypatch):
    """On SQLite a creation happens wholly or not at all, although the driver would commit each
    CREATE (R6).
    """
    with monkeypatch.context() as patch:
        patch.setattr(
            migrations,
            "statements",
            lambda *_: ("CREATE TABLE structjob_half (x INTEGER)", "CREATE NONSENSE"),
        )
        with engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
            migrations.prepare(connection)
    assert sa.inspect(engine).get_table_names() == []
    prepared(engine)


def a_further_revision(monkeypatch) -> None:
    """Let there be a revision 0002, which adds a column."""
    monkeypatch.setattr(migration_sql, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(migrations, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(
        migrations,
        "statements",
        lambda dialect, start, end: (
            "ALTER TABLE structjob_jobs ADD COLUMN extra TEXT",
            f"UPDATE {migrations.VERSION_TABLE} SET version_num = '{end}' WHERE version_num = '{start}'",
        ),
    )


def test_an_older_sqlite_file_is_upgraded_by_a_command_that_reads(tmp_path, engine, monkeypatch):
    """After an upgrade of structjob a file works on, whichever program or command is first (R6)."""
    prepared(engine)
    a_further_revision(monkeypatch)
    assert "no jobs in" in typed(str(tmp_path / "jobs.db"), "jobs")
    with engine.connect() as connection:
        assert migrations.current(connection) == "0002"


def test_an_older_sqlite_file_is_upgraded_where_it_stands(engine, monkeypatch):
    """On SQLite the next start upgrades the tables automatically, and old rows stay (R6)."""
    with prepared(engine).begin() as connection:
        connection.execute(
            jobs.insert().values(
                id="j", operation="o", status="running", created_at=datetime.now(UTC)
            )
        )
    a_further_revision(monkeypatch)
    with engine.connect() as connection:
        migrations.prepare(connection)
        assert migrations.current(connection) == "0002"
        assert connection.exec_driver_sql("SELECT id, extra FROM structjob_jobs").all() == [
            ("j", None)
        ]


def test_an_older_server_waits_for_its_operator(engine, monkeypatch):
    """Tables that other programs share are not altered by whichever program starts first:
    `structjob migrate` does it (R6).
    """
    prepared(engine)
    monkeypatch.setattr(migration_sql, "REVISIONS", ("0001", "0002"))
    with engine.connect() as connection:
        monkeypatch.setattr(connection.dialect, "name", "postgresql")
        monkeypatch.setattr(migrations, "_postgresql_lock", migrations._sqlite_lock)
        with pytest.raises(SchemaMismatch, match="structjob migrate"):
            migrations.prepare(connection)


def test_the_lock_is_waited_for_only_so_long(tmp_path, engine, monkeypatch):
    """If another process holds the file for a minute, the start fails with a message that says what
    it waited for.
    """
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", 0)
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as holder, holder:
        holder.execute("BEGIN IMMEDIATE")
        with engine.connect() as connection, pytest.raises(StoreUnavailable, match=r"jobs\.db"):
            migrations.prepare(connection)
        holder.execute("ROLLBACK")
    holder.close()
    prepared(engine)


def test_a_transaction_of_the_caller_is_not_ended_for_him(engine):
    """prepare commits; inside the caller's transaction it refuses instead."""
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1")
        with pytest.raises(InvalidArgument, match="transaction"):
            migrations.prepare(connection)


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda: migrations.render("oracle"), "oracle"),
        (lambda: migrations.render("sqlite", "sideways"), "sideways"),
        (lambda: migrations.render("sqlite", start="9999"), "9999"),
        (lambda: migrations.render("sqlite", start="head", end="base"), "0001"),
    ],
)
def test_wrong_arguments_are_named(call, wrong):
    """The message repeats what was wrong and lists what there is."""
    with pytest.raises(InvalidArgument, match=wrong):
        call()


def test_times_are_utc_with_microseconds_and_sort_as_text(engine):
    """Any zone goes in, aware UTC comes out, and the text in the file sorts as time does (R1)."""
    moment = datetime(2026, 3, 1, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2)))
    with prepared(engine).begin() as connection:
        connection.execute(
            jobs.insert().values(id="j", operation="o", status="running", created_at=moment)
        )
        assert (
            connection.exec_driver_sql("SELECT created_at FROM structjob_jobs").scalar()
            == "2026-02-28 23:02:03.000004"
        )
        read = connection.execute(sa.select(jobs.c.created_at)).scalar_one()
    assert read == moment
    assert read.tzinfo is UTC


def test_json_comes_back_as_it_was_given(engine):
    """Nested values, huge integers and null survive; text that is no JSON is shown rather than
    hiding the row (R1, R4).
    """
    value = {"vm": ["a", None, True, 1.5, 10**30, "ü\u2028"]}
    with prepared(engine).begin() as connection:
        rows = [("a", value), ("b", None), ("c", [])]
        for name, one in rows:
            connection.execute(
                jobs.insert().values(
                    id=name,
                    operation="o",
                    status="running",
                    created_at=datetime.now(UTC),
                    metadata=one,
                )
            )
        connection.exec_driver_sql("UPDATE structjob_jobs SET metadata = '{oops' WHERE id = 'c'")
        read = connection.execute(sa.select(jobs.c.metadata).order_by(jobs.c.id)).scalars().all()
    assert read == [value, None, "{oops"]


def test_ids_differ_by_case_and_trailing_blanks(engine):
    """`a`, `A` and `a ` are three jobs (R1)."""
    with prepared(engine).begin() as connection:
        for name in ("a", "A", "a "):
            connection.execute(
                jobs.insert().values(
                    id=name, operation="o", status="running", created_at=datetime.now(UTC)
                )
            )
        assert connection.execute(sa.select(jobs.c.id).where(jobs.c.id == "a")).scalars().all() == [
            "a"
        ]


def test_log_ids_are_never_given_out_twice(engine):
    """A query for "id > last" misses nothing after the newest events were deleted (R4)."""
    row = {
        "session_id": 1,
        "ts": datetime.now(UTC),
        "level": "info",
        "message": "m",
    }
    with prepared(engine).begin() as connection:
        connection.execute(logs.insert(), [row | {"seq": 1}, row | {"seq": 2}])
        connection.execute(logs.delete().where(logs.c.seq == 2))
        connection.execute(logs.insert(), [row | {"seq": 3}])
        assert connection.execute(sa.select(logs.c.id).order_by(logs.c.id)).scalars().all() == [
            1,
            3,
        ]


def test_the_type_of_an_event_is_derived_from_its_ids(engine):
    """On SQLite the type takes no space in a row, and cannot contradict the ids: system is no job,
    job a job without a step, task both (R4).
    """
    row = {"session_id": 1, "ts": datetime.now(UTC), "level": "info", "message": "m"}
    ids = [{}, {"job_id": "j"}, {"job_id": "j", "step_id": "s"}]
    with prepared(engine).begin() as connection:
        for seq, mine in enumerate(ids):
            connection.execute(logs.insert(), [row | mine | {"seq": seq}])
        found = connection.execute(sa.select(logs.c.type).order_by(logs.c.seq)).scalars().all()
        assert found == ["system", "job", "task"]
        with pytest.raises(sa.exc.OperationalError, match="generated column"):
            connection.execute(logs.insert(), [row | {"seq": 9, "type": "task"}])


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_postgresql_fills_the_pages_of_the_indexes_to_which_events_are_appended(database):
    """An index in the order of time leaves no space free for rows that never come (R5)."""
    found = await database.rows(
        "SELECT relname FROM pg_class WHERE 'fillfactor=100' = ANY(reloptions) ORDER BY 1"
    )
    assert [name.removeprefix("structjob_logs_by_") for (name,) in found] == [
        "job",
        "session",
        "step",
        "time",
    ]


def test_one_event_is_stored_once(engine):
    """(session_id, seq) is unique, so a delivery that is repeated changes nothing (R4)."""
    row = {
        "session_id": 1,
        "seq": 1,
        "ts": datetime.now(UTC),
        "level": "info",
        "message": "m",
    }
    with prepared(engine).begin() as connection:
        connection.execute(logs.insert(), [row])
        with pytest.raises(sa.exc.IntegrityError):
            connection.execute(logs.insert(), [row])


def test_the_views_answer_in_any_sql_client(engine):
    """Active jobs with progress, and progress by job, in plain SQL (R5, R16)."""
    now = datetime.now(UTC)
    job = {"operation": "o", "created_at": now, "attempt": 2, "percent_complete": None}
    step = {"name": "s", "seq": 1, "percent_complete": None}
    with prepared(engine).begin() as connection:
        connection.execute(
            jobs.insert(),
            [
                job | {"id": "running", "status": "running"},
                job | {"id": "told", "status": "running", "percent_complete": 30.0},
                job | {"id": "done", "status": "completed", "percent_complete": 30.0},
                job | {"id": "waiting", "status": "pending", "attempt": 0},
            ],
        )
        steps = metadata.tables["structjob_steps"]
        connection.execute(
            steps.insert(),
            [
                step | {"id": "old", "job_id": "running", "attempt": 1, "status": "failed"},
                step | {"id": "s1", "job_id": "running", "attempt": 2, "status": "completed"},
                step | {"id": "s2", "job_id": "running", "attempt": 2, "status": "failed"},
                step | {"id": "s3", "job_id": "running", "attempt": 2, "status": "running"},
                step
                | {
                    "id": "s4",
                    "job_id": "running",
                    "attempt": 2,
                    "status": "running",
                    "percent_complete": 50.0,
                },
            ],
        )
    with closing(sqlite3.connect(engine.url.database)) as raw, raw:
        assert raw.execute(
            "SELECT job_id, percent FROM structjob_active_jobs ORDER BY job_id"
        ).fetchall() == [
            ("running", 37.5),
            ("told", 30.0),
            ("waiting", 0.0),
        ]
        progress = "SELECT total_steps, completed_steps, failed_steps, step_completion FROM structjob_job_progress WHERE job_id = 'running'"
        assert raw.execute(progress).fetchone() == (4, 1, 1, 25.0)
        assert raw.execute(
            "SELECT percent FROM structjob_job_progress WHERE job_id = 'done'"
        ).fetchone() == (100.0,)
        plan = " ".join(row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + progress))
        assert "SCAN" not in plan.replace("SCAN CONSTANT ROW", "")
    raw.close()


def test_views_stand_aside_for_an_alteration(engine):
    """A later migration can drop a column under the views and bring them back changed (R6)."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    old = {"v_one": "SELECT id, owner FROM structjob_jobs", "v_two": "SELECT id FROM v_one"}
    with prepared(engine).begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        op.execute("CREATE TABLE t (id INTEGER, gone INTEGER)")
        views.create(op, {"v_one": "SELECT id, gone FROM t", "v_two": "SELECT id FROM v_one"})
        with views.replaced(op, old, {"v_one": "SELECT id FROM t"}):
            op.execute("ALTER TABLE t DROP COLUMN gone")
        assert connection.exec_driver_sql(
            "SELECT name FROM sqlite_schema WHERE type = 'view' AND name LIKE 'v%'"
        ).scalars().all() == ["v_one"]


def test_the_schema_is_found_in_a_wheel_and_in_a_checkout(tmp_path, monkeypatch):
    """An installed package carries the migrations inside, a checkout beside it; both work."""
    checkout = tmp_path / "checkout" / "structjob" / "store" / "migration_sql.py"
    wheel = tmp_path / "site" / "structjob" / "store" / "migration_sql.py"
    for module, schema in (
        (checkout, tmp_path / "checkout" / "schema"),
        (wheel, tmp_path / "site" / "structjob" / "_schema"),
    ):
        module.parent.mkdir(parents=True)
        schema.mkdir()
        (schema / "env.py").touch()
        monkeypatch.setattr(migration_sql, "__file__", str(module))
        with migration_sql._location() as found:
            assert found == schema


def test_the_schema_is_found_in_a_zip_file(tmp_path, monkeypatch):
    """A program in a zip file (zipapp) makes its tables: Alembic gets a copy for as long as it
    reads.
    """
    archive = tmp_path / "app.pyz"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in (SCHEMA / "env.py", *(SCHEMA / "versions").glob("*.py")):
            packed.write(path, Path("structjob", "_schema", path.relative_to(SCHEMA)))
    inside = str(archive / "structjob" / "store" / "migration_sql.py")
    monkeypatch.setattr(migration_sql, "__file__", inside)
    monkeypatch.setattr("importlib.resources.files", lambda name: zipfile.Path(archive, f"{name}/"))
    with migration_sql._location() as found:
        assert found.joinpath("versions").is_dir()
    assert not found.exists()
    given = ("sqlite", "base", migration_sql.head())
    assert migration_sql._rendered(*given) == migration_sql.statements(*given)


def test_what_is_made_of_an_error_outlives_its_events():
    """How often an error occurred is counted from the logs; that it is resolved, and what was
    pruned, is kept beside them (R39).
    """
    assert {
        "fingerprint",
        "error_type",
        "message",
        "resolved_at",
        "resolved_by",
        "pruned",
        "first_seen",
        "last_seen",
    } == set(errors.c.keys())
