"""The store for PostgreSQL: a batch is one statement with one parameter.

``json_to_recordset`` splits the batch into rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import URL, BigInteger, Column, Connection, Double, Integer, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from structjob.diagnostics import diagnostics
from structjob.exceptions import StoreUnavailable
from structjob.spool.line import EVENT_COLUMNS, EVENT_DEFAULTS, is_provisional
from structjob.store import charset, tables
from structjob.store.contract import Write, Written
from structjob.store.faults import Fault
from structjob.store.ingest import COLUMNS, LOG_COLUMNS, as_array, on_conflict
from structjob.store.server import READ_TIMEOUT, ServerStore
from structjob.store.types import JSONValue, UTCDateTime


def _type(column: Column[Any]) -> str:
    kind = column.type
    if isinstance(kind, JSONValue):
        return "json"
    if isinstance(kind, UTCDateTime):
        return "timestamp"
    if isinstance(kind, BigInteger):
        return "bigint"
    if isinstance(kind, Integer):
        return "integer"
    # Not the column's varchar(n), which would truncate a long text instead of refusing it.
    return "double precision" if isinstance(kind, Double) else "text"


def _records(table: str, names: tuple[str, ...], parameter: int) -> str:
    columns = ", ".join(f"{name} {_type(tables.metadata.tables[table].c[name])}" for name in names)
    # Bytes, which the driver does not have to encode. The conversion is needed because ``json``
    # cannot be read from bytes directly.
    return f"json_to_recordset(convert_from(${parameter}::bytea, 'UTF8')::json) AS line({columns})"


def _value(table: str, name: str) -> str:
    # The times in the lines are UTC, whatever the session's time zone is.
    return (
        f"line.{name} AT TIME ZONE 'UTC'"
        if isinstance(tables.metadata.tables[table].c[name].type, UTCDateTime)
        else f"line.{name}"
    )


_LOGS = "structjob_logs"
_DEFAULTED = ", ".join(
    f"coalesce(line.{name}, '{value}')" for name, value in EVENT_DEFAULTS.items()
)
_INSERT_EVENTS = f"""
INSERT INTO structjob_logs (session_id, seq, {", ".join(LOG_COLUMNS)}, attrs, {", ".join(EVENT_DEFAULTS)}, type, stored_at)
SELECT $1::bigint, line.seq, {", ".join(_value(_LOGS, name) for name in LOG_COLUMNS)}, line.attrs, {_DEFAULTED},
  CASE WHEN line.job_id IS NULL THEN 'system' WHEN line.step_id IS NULL THEN 'job' ELSE 'task' END, clock_timestamp()
FROM {_records(_LOGS, EVENT_COLUMNS, 2)}
ON CONFLICT (session_id, seq) DO NOTHING
"""  # noqa: S608 -- contains only column names

# Both changes are one statement, and so one transaction without BEGIN and COMMIT: on a saturated
# loop, each awaited answer costs two of its iterations. The query does not refer to the UPDATE, so
# PostgreSQL runs it last. The session's row is locked only briefly, and does not block the other
# writer.
_INSERT_AND_REACH = f"""
WITH reached AS (UPDATE structjob_sessions SET last_seq = $3::bigint WHERE session_id = $1::bigint AND last_seq < $3::bigint)
{_INSERT_EVENTS}
"""  # noqa: S608 -- see above


def _insert(table: str) -> str:
    names = COLUMNS[table]
    values = ", ".join(_value(table, name) for name in names)
    return (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {_records(table, names, 1)}"  # noqa: S608 -- see above
    )


_INSERTS = {table: _insert(table) for table in COLUMNS}
_UPSERTS = {table: f"{statement} {on_conflict(table)}" for table, statement in _INSERTS.items()}

# Settings that our statements need, if the defaults of the user or the database differ. A server
# timeout is raised to our own timeout. Only settings that differ are changed, because behind a
# pooler another program may get the same session. `default_transaction_read_only` is left
# unchanged, because it protects the database.
_SETTINGS = f"""
SELECT set_config(name, wanted, false) FROM (
  SELECT name, CASE
    WHEN name = 'default_transaction_isolation' THEN 'read committed'
    WHEN name = 'standard_conforming_strings' THEN 'on'
    WHEN setting::bigint BETWEEN 1 AND {int(READ_TIMEOUT * 1000)} THEN '{int(READ_TIMEOUT * 1000)}'
    ELSE setting END AS wanted, setting
  FROM pg_settings WHERE name IN ('default_transaction_isolation', 'standard_conforming_strings', 'statement_timeout', 'lock_timeout',
    'idle_in_transaction_session_timeout', 'transaction_timeout')
) AS ours WHERE wanted <> setting
"""  # noqa: S608 -- contains only numbers

_CONFLICTS = frozenset({"40001", "40P01", "55P03"})
_STATEMENT_NAMES = frozenset({"26000", "42P05"})
_NOT_OURS = frozenset({"42P01", "42703", "3F000"})


def _has_odd_escape(lines: bytes) -> bool:
    """Return whether *lines* may contain an escaped NUL or a lone surrogate.

    ``json`` stores such text, but queries that look into it fail.
    """
    return b"\\u0000" in lines or b"\\ud" in lines or b"\\uD" in lines


class _Ingest:
    """The statements for PostgreSQL; see `structjob.store.contract.Ingest`."""

    most = 256 * 1024 * 1024

    def events(self, connection: Connection, session_id: int, lines: bytes) -> None:
        array = as_array(lines)
        self._check(connection, array)
        connection.exec_driver_sql(_INSERT_EVENTS, (session_id, array))

    def upsert(self, connection: Connection, table: str, rows: bytes) -> None:
        self._check(connection, rows)
        connection.exec_driver_sql(_UPSERTS[table], (rows,))

    def insert(self, connection: Connection, table: str, rows: bytes) -> None:
        self._check(connection, rows)
        connection.exec_driver_sql(_INSERTS[table], (rows,))

    def _check(self, connection: Connection, array: bytes) -> None:
        """Make the server refuse content that queries could not read later.

        Queries convert to ``jsonb``, which accepts less than ``json``.
        """
        if _has_odd_escape(array):
            connection.exec_driver_sql(
                "SELECT convert_from($1::bytea, 'UTF8')::jsonb IS NULL", (array,)
            )


def _at_once(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> None:
    """Run *statement* without a transaction around it, so that one answer is awaited.

    Cutting the connection meanwhile does not undo the statement.
    """
    driver: Any = connection.connection.dbapi_connection
    # Not SQLAlchemy's isolation level "AUTOCOMMIT": resetting it fails for levels that only the
    # server knows.
    driver.autocommit = True
    try:
        connection.exec_driver_sql(statement, parameters)
    finally:
        driver.autocommit = False


def _is_foreign_column(error: BaseException) -> bool:
    """Return whether an *error* is about a column that was added to one of structjob's tables."""
    table = tables.metadata.tables.get(getattr(error.__cause__, "table_name", None) or "")
    return table is not None and getattr(error.__cause__, "column_name", "") not in set(
        table.c.keys()
    )


class PostgresStore(ServerStore):
    """A store on a PostgreSQL server, with asyncpg."""

    extra = "postgres"

    def __init__(
        self, url: URL, engine_options: Mapping[str, Any], *, read_timeout: float | None = None
    ) -> None:
        super().__init__(url, engine_options, _Ingest(), read_timeout=read_timeout)
        self._encoding = ""
        self._codec: str | None = None

    def options(self) -> dict[str, Any]:
        settings = {"application_name": "structjob", **self.driver_options.settings}
        given: dict[str, Any] = {**self.driver_options.arguments, "server_settings": settings}
        if self.read_timeout is not None:
            # The driver asks the server to stop the query. `statement_timeout` is not used: behind
            # a pooler, another program may get the same session with its settings.
            given["command_timeout"] = self.read_timeout
        if self.tls.wanted:
            given["ssl"] = self.tls.context()
        elif self.tls.mode is not None:
            given["ssl"] = self.tls.mode
        return {"json_deserializer": msgspec.json.decode, "connect_args": given}

    async def open(self) -> None:
        await super().open()
        if self._encoding not in ("", "UTF8"):
            diagnostics.warning(
                "the database %s has the encoding %s: %s; to keep all as it is: %s",
                self.masked_url,
                self._encoding,
                charset.consequence(self._encoding),
                charset.utf8_database(),
            )

    def _create_engine(self) -> AsyncEngine:
        engine = super()._create_engine()
        event.listen(
            engine.sync_engine, "before_cursor_execute", self._within_encoding, retval=True
        )
        return engine

    def prepare(self, connection: Any) -> None:
        connection.run_async(lambda driver: driver.execute(_SETTINGS))
        if (schema := self.driver_options.schema) is not None:
            found = connection.run_async(lambda driver: driver.fetchval("SHOW search_path"))
            if found != f'"{schema}"':
                raise StoreUnavailable(
                    f"the search path of {self.masked_url} is {found}, and not the schema {schema}: a pooler does not pass it on; "
                    f"name the server itself in the URL, or ALTER ROLE {self.url.username or 'name'} SET search_path = {schema}",
                    permanent=True,
                )
        self._encoding = connection.driver_connection.get_settings().server_encoding
        self._codec = charset.codec_of(self._encoding)

    def _within_encoding(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, *rest: Any
    ) -> tuple[str, Any]:
        """Replace characters that the database's encoding cannot store.

        Otherwise one such character would prevent the whole batch from being stored.
        """
        if self._codec is None:
            return statement, parameters
        if isinstance(parameters, list):
            return statement, [tuple(map(self._storable, row)) for row in parameters]
        return statement, tuple(map(self._storable, parameters))

    def _storable(self, value: Any) -> Any:
        assert self._codec is not None  # noqa: S101 -- checked by the caller
        if isinstance(value, str):
            return charset.within(self._codec, value)
        return charset.json_within(self._codec, value) if isinstance(value, bytes) else value

    def cut(self, connection: Any) -> None:
        connection.terminate()

    async def _put(self, write: Write) -> Written:
        if (
            write.states
            or not write.events
            or is_provisional(write.events)
            or _has_odd_escape(write.events)
        ):
            return await super()._put(write)
        parameters = (write.session_id, as_array(write.events), write.last_seq)
        await self._transact(
            lambda connection: _at_once(connection, _INSERT_AND_REACH, parameters), repeatable=True
        )
        return Written()

    def too_long(self, error: BaseException) -> bool:
        return isinstance(error, TimeoutError)

    def understood(self, error: Exception) -> Fault | None:
        # SQLAlchemy wraps the driver's errors, except those of `prepare`.
        if type(error).__module__.partition(".")[0] == "asyncpg":
            return self.fault(error)
        return super().understood(error)

    async def make_durable(self) -> None:
        # If the server commits asynchronously, one synchronous commit also makes all earlier
        # commits durable.
        await self.transact(
            lambda connection: connection.execute(
                text("SELECT set_config('synchronous_commit', 'on', true), txid_current()")
            )
        )

    def fault(self, error: BaseException) -> Fault:
        code = getattr(error, "sqlstate", None) or ""
        # The primary message. Quoted values are in the detail, except for errors of class 22.
        said = str(error.args[0]) if error.args else type(error).__name__
        if code in _CONFLICTS:
            return self.faults.conflict(said)
        if code == "23502" and _is_foreign_column(error):
            return self.faults.foreign_column(said)
        if code == "23505":
            return self.faults.refused("duplicate", code, f"{code}: {said}")
        if code[:2] in ("22", "23", "54"):
            return self.faults.refused("data", code, f"{code}: {said}")
        if "client certificate" in said:
            return self.faults.certificate_wanted(said)
        if code[:2] == "28" and ("no encryption" in said or "SSL off" in said):
            return self.faults.tls_wanted(said)
        if code[:2] == "28":
            return self.faults.wrong_login(said)
        if code == "3D000":
            return self.faults.no_database(
                f'createdb {self.url.database}, or CREATE DATABASE "{self.url.database}"'
            )
        if code == "3F000" and "to create in" in said:
            return Fault(
                "away",
                f"the search path of the user of {self.masked_url} names no schema that exists: {said}; "
                "add schema=NAME to the URL, and `structjob migrate` creates it",
                permanent=True,
                gone=True,
            )
        if code in _NOT_OURS:
            return self.faults.no_tables(said)
        if code == "42501":
            return self.faults.not_allowed(said)
        if code == "25006":
            name = self.url.username or "name"
            return self.faults.read_only(
                said, f'ALTER ROLE "{name}" SET default_transaction_read_only = off'
            )
        if code == "53300":
            return self.faults.too_many(said)
        if "startup parameter" in said:
            how = f"a pooler does not pass it on: name the server itself in the URL, or ALTER ROLE {self.url.username or 'name'} SET it"
            return Fault(
                "away",
                f"{self.masked_url} does not take an option of the connection: {said}; {how}",
                permanent=True,
            )
        if code in _STATEMENT_NAMES:
            how = "behind a pooler in transaction mode, add prepared_statement_cache_size=0&statement_cache_size=0 to the URL"
            return self.faults.not_working(f"{said}; {how}")
        if "another operation" in said or "connection is closed" in said:
            said = "the connection was lost"  # asyncpg's own message is unclear in this case
            return self.faults.unreachable(None, said)
        cause = error.__cause__
        return (
            self.faults.unreachable(cause, said)
            if code[:2] == "08" or isinstance(cause, OSError)
            else self.faults.not_working(said)
        )
