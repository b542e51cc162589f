"""The store for MariaDB and MySQL: a batch is a few statements in one transaction.

Each statement has one hexadecimal literal, which ``JSON_TABLE`` splits into rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from structjob.exceptions import InvalidURL, StoreUnavailable
from structjob.spool.line import EVENT_DEFAULTS, field_mark
from structjob.store.batch_sizer import fitting
from structjob.store.faults import Fault
from structjob.store.ingest import (
    COLUMNS,
    JSON_COLUMNS,
    KEEP_NEWER,
    KEYS,
    LOG_COLUMNS,
    as_array,
    changes,
)
from structjob.store.server import READ_TIMEOUT, ServerStore

_LEAST_PACKET = 64 * 1024
"""Minimum of ``max_allowed_packet``, in bytes. The queries need a part of it; a job's row needs
the most.
"""

_STATEMENT = 64 * 1024
"""Maximum size of the lines in a statement with several lines, in bytes. Formatting such a
statement takes half a millisecond on the event loop.
"""

_LARGE = 16 * 1024
"""Size of JSON, in bytes, from which a value gets its own statement. The server parses a row
again for every column, including the large value.
"""

_DEEPEST = 2**32 - 1
"""Maximum depth of a tree of jobs. For a deeper tree, MariaDB would silently return the first
1,000 levels, and MySQL only an error.
"""

# Our own settings, because the server's defaults may differ. Strict mode, so that no value is
# truncated silently. Backslashes as the driver escapes them. No limit on rows or joins.
_SETTINGS = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', "
    "time_zone = '+00:00', innodb_lock_wait_timeout = 5, completion_type = 0, sql_safe_updates = 0, "
    "sql_select_limit = 18446744073709551615, sql_big_selects = 1"
)


def _limits(variable: str, unit: int, depth: str) -> str:
    """Return the statement that raises server limits below our own.

    Args:
        variable: The name of the variable that limits the time of a query.
        unit: The value of *variable* that means one second.
        depth: The name of the variable that limits the depth of recursion.
    """
    least = int(READ_TIMEOUT) * unit
    return f"SET SESSION {depth} = {_DEEPEST}, {variable} = IF(@@SESSION.{variable} > 0, GREATEST(@@SESSION.{variable}, {least}), 0)"


_LIMITS = {
    "MariaDB": _limits("max_statement_time", 1, "max_recursive_iterations"),
    "MySQL": _limits("max_execution_time", 1000, "cte_max_recursion_depth"),
}


def _records(names: tuple[str, ...]) -> str:
    # Long text even for numbers: any other type silently truncates a text or clamps a number. The
    # character set is explicit: otherwise the database's applies, which replaces unknown characters
    # by question marks.
    types = {
        name: "JSON" if name in JSON_COLUMNS else "LONGTEXT CHARACTER SET utf8mb4" for name in names
    }
    columns = ", ".join(f"{name} {type_} PATH '$.{name}'" for name, type_ in types.items())
    return f"JSON_TABLE(CONVERT(0x%s USING utf8mb4), '$[*]' COLUMNS ({columns})) AS excluded"


def _value(name: str) -> str:
    # A null inside JSON is the text "null" if the column is JSON.
    return (
        f"IF(JSON_TYPE(excluded.{name}) = 'NULL', NULL, excluded.{name})"
        if name in JSON_COLUMNS
        else f"excluded.{name}"
    )


_ALWAYS = ("ts", "level", "message")
_OFTEN_ABSENT = {
    name: field_mark(name) for name in (*LOG_COLUMNS, *EVENT_DEFAULTS) if name not in _ALWAYS
}


@cache
def _insert_events(absent: frozenset[str]) -> str:
    """Return the statement for events that have none of the *absent* columns.

    The server parses a line again for every column in the statement, and reads to the line's end if
    the column is absent. Leaving out these columns saves a quarter of the work.
    """
    names = tuple(name for name in (*LOG_COLUMNS, *EVENT_DEFAULTS) if name not in absent)
    values = (
        f"coalesce(excluded.{name}, '{EVENT_DEFAULTS[name]}')"
        if name in EVENT_DEFAULTS
        else f"excluded.{name}"
        for name in names
    )
    kind = "'job'" if "step_id" in absent else "IF(excluded.step_id IS NULL, 'job', 'task')"
    type_ = "'system'" if "job_id" in absent else f"IF(excluded.job_id IS NULL, 'system', {kind})"
    return f"""
INSERT INTO structjob_logs (session_id, seq, {", ".join(names)}, attrs, type, stored_at)
SELECT %d, excluded.seq, {", ".join(values)}, excluded.attrs, {type_}, UTC_TIMESTAMP(6)
FROM {_records(("seq", *names, "attrs"))}
ON DUPLICATE KEY UPDATE id = structjob_logs.id
"""  # noqa: S608 -- contains only column names; IGNORE would hide other errors as well


def _insert(table: str) -> str:
    names = COLUMNS[table]
    return f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(map(_value, names))} FROM {_records(names)}"  # noqa: S608 -- see above


def _same(table: str) -> str:
    return " AND ".join(f"{table}.{key} = excluded.{key}" for key in KEYS[table])


def _upsert(table: str) -> tuple[str, ...]:
    if table not in KEEP_NEWER:
        key = KEYS[table][0]
        return (f"{_insert(table)} ON DUPLICATE KEY UPDATE {key} = {table}.{key}",)
    # Not ON DUPLICATE KEY: it has no WHERE, and it treats a row with the same idempotency key as
    # the same job.
    assignments = ", ".join(f"{table}.{name} = {_value(name)}" for name in changes(table))
    # The join order is fixed: from the few new rows to the many stored ones.
    update = (
        f"UPDATE {_records(COLUMNS[table])} STRAIGHT_JOIN {table} ON {_same(table)} "  # noqa: S608 -- see above
        f"SET {assignments} WHERE {KEEP_NEWER[table]}"
    )
    insert = f"{_insert(table)} WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {_same(table)})"  # noqa: S608 -- see above
    return update, insert


_INSERTS = {table: _insert(table) for table in COLUMNS}
_UPSERTS = {table: _upsert(table) for table in COLUMNS}

_RESERVE = 1024 + max(
    map(len, (_insert_events(frozenset()), *_INSERTS.values(), *sum(_UPSERTS.values(), ())))
)
"""Bytes of a packet that are reserved for the statement around the data."""

# On a Galera cluster, 1213 can also come at the commit, when another node committed first. 1180
# comes when the node was lost meanwhile.
_CONFLICTS = frozenset({1020, 1180, 1205, 1213})
_DUPLICATES = frozenset({1062, 1586})
# Data errors that the SQLSTATE does not show: values that do not fit, checks, JSON (MySQL
# 3140–3158, MariaDB 4035–4044), and data that is too large.
_DATA = frozenset(
    {1153, 1265, 1301, 1366, 1411, 3819, 4025, *range(3140, 3159), *range(4035, 4045)}
)
_NO_DEFAULT = 1364
"""A column has no default. All columns of ours are given, so that it is one that was added."""
_LOGINS = frozenset({1045, 1698, 1251, 2059, 1524, 1862})
_INSECURE = 3159
_RIGHTS = frozenset({1044, 1142, 1143, 1227, 1370})
# 1046: the database was dropped under an open connection. That connection has no database then,
# even if the database is created again.
_NO_DATABASE = frozenset({1049, 1046})
_NOT_OURS = frozenset({1146, 1054})
_PREVENTED = 1290
"""An option of the server prevents the statement: mostly `--read-only`."""
_READ_ONLY = frozenset({_PREVENTED, 1792, 1836})
_TOO_MANY = frozenset({1040, 1203})
_USED_UP = 1226
_UNREACHABLE = frozenset({2002, 2003, 2005, 2006, 2013})
_TOO_LONG = frozenset({1969, 3024})
"""Error numbers for a query that was stopped by its time limit: MariaDB's and MySQL's."""


class _TooLarge(Exception):
    """The data does not fit into one packet of the server."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(
            f"{what} and the server's max_allowed_packet permits {most:,}: raise it, for example SET GLOBAL max_allowed_packet = 67108864"
        )


class _Ingest:
    """The statements for MariaDB and MySQL; see `structjob.store.contract.Ingest`.

    Attributes:
        most: Maximum size of the data in one statement, in bytes.
    """

    def __init__(self) -> None:
        self.most = 1024 * 1024

    def events(self, connection: Connection, session_id: int, lines: bytes) -> None:
        for chunk in self._chunks(lines):
            absent = frozenset(name for name, key in _OFTEN_ABSENT.items() if key not in chunk)
            _execute(connection, _insert_events(absent) % (session_id, _literal(as_array(chunk))))

    def _chunks(self, lines: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(lines):
            end = fitting(lines, start, min(_STATEMENT, self.most))
            if end - start > self.most:
                raise _TooLarge(f"the event holds {end - start:,} bytes,", self.most)
            yield lines[start:end]
            start = end

    def upsert(self, connection: Connection, table: str, rows: bytes) -> None:
        self._store(connection, table, _UPSERTS[table], rows)

    def insert(self, connection: Connection, table: str, rows: bytes) -> None:
        self._store(connection, table, (_INSERTS[table],), rows)

    def _store(
        self, connection: Connection, table: str, statements: tuple[str, ...], rows: bytes
    ) -> None:
        large: list[str] = []
        if len(rows) > _LARGE and table in KEEP_NEWER:
            kept = _decode_rows(rows)
            large = [
                self._set(table, row, name)
                for row in kept
                for name in _large(row)
                if name in COLUMNS[table]
            ]
            rows = msgspec.json.encode(
                [{**row, **dict.fromkeys(_large(row), _NULL)} for row in kept]
            )
        literal = self._fitting(rows)
        for statement in statements:
            _execute(connection, statement % literal)
        for statement in large:
            _execute(connection, statement)

    def _set(self, table: str, row: dict[str, msgspec.Raw], name: str) -> str:
        """Return the statement that sets column *name* of *row*.

        It changes the row only if this version of it is stored, not a newer one.
        """
        same = " AND ".join(
            f"{key} = {_scalar(row[key])}" for key in (*KEYS[table], *_VERSION) if key in row
        )
        return (
            f"UPDATE {table} SET {name} = _utf8mb4 0x{self._fitting(bytes(row[name]))} WHERE {same}"  # noqa: S608 -- see above
        )

    def _fitting(self, data: bytes) -> str:
        if len(data) > self.most:
            raise _TooLarge(f"the row holds {len(data):,} bytes of JSON,", self.most)
        return _literal(data)


_decode_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_VERSION = ("attempt", "session_id", "state_seq")
"""The columns that identify one change of a row."""
_NULL = msgspec.Raw(b"null")


def _large(row: dict[str, msgspec.Raw]) -> list[str]:
    """Return the JSON columns whose value in *row* is large."""
    return [name for name in JSON_COLUMNS & row.keys() if len(row[name]) > _LARGE]


def _scalar(value: msgspec.Raw) -> str:
    """Return a number or a text as SQL."""
    plain: int | str = msgspec.json.decode(value, type=int | str)
    return str(plain) if isinstance(plain, int) else f"_utf8mb4 0x{_literal(plain.encode())}"


def _literal(data: bytes) -> str:
    """Return *data* in hexadecimal digits, so that no part of it can act as SQL.

    Raises:
        ValueError: if it is not UTF-8; the server would store question marks instead.
    """
    data.decode()
    return data.hex()


def _execute(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


class MySQLStore(ServerStore):
    """A store on a MariaDB (10.6 or newer) or MySQL (8.0.17 or newer) server, with asyncmy."""

    extra = "mysql"
    ingest: _Ingest

    def __init__(
        self, url: URL, engine_options: Mapping[str, Any], *, read_timeout: float | None = None
    ) -> None:
        super().__init__(url, engine_options, _Ingest(), read_timeout=read_timeout)
        if not url.database:
            raise InvalidURL(
                f"{self.masked_url} names no database: add its name, such as {self.masked_url.rstrip('/')}/structjob"
            )

    def options(self) -> dict[str, Any]:
        # READ COMMITTED locks only the rows that are read, without the gaps between them: fewer
        # deadlocks.
        given: dict[str, Any] = {**self.driver_options.arguments, "charset": "utf8mb4"}
        if self.tls.wanted:
            given["ssl"] = self.tls.context()
        return {"isolation_level": "READ COMMITTED", "connect_args": given}

    def prepare(self, connection: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(_SETTINGS)
        cursor.execute("SELECT @@max_allowed_packet, VERSION()")
        packet, version = cursor.fetchone()
        if packet < _LEAST_PACKET:
            raise StoreUnavailable(
                f"max_allowed_packet of {self.masked_url} is {packet:,} bytes; structjob needs {_LEAST_PACKET:,}, and 16777216 is usual: "
                "SET GLOBAL max_allowed_packet = 16777216, and the same in the server's configuration file",
                permanent=True,
            )
        self.ingest.most = (packet - _RESERVE) // 2
        kind = "MariaDB" if "MariaDB" in version else "MySQL"
        cursor.execute(_LIMITS[kind])
        if self.read_timeout is not None:
            cursor.execute(
                f"SET SESSION max_statement_time = {self.read_timeout}"
                if kind == "MariaDB"
                else f"SET SESSION max_execution_time = {max(1, round(self.read_timeout * 1000))}"
            )
        cursor.execute("SHOW VARIABLES LIKE 'wsrep_sync_wait'")
        if (found := cursor.fetchone()) is not None:
            # A Galera node answers from what it has applied. With this setting it first waits for
            # what was committed on other nodes.
            cursor.execute(f"SET SESSION wsrep_sync_wait = {int(found[1]) | 1}")
        cursor.close()

    def cut(self, connection: Any) -> None:
        # The transport's close() would wait until all buffered data is sent.
        transport = getattr(connection, "_transport", None)
        if transport is not None:
            transport.abort()
        connection.close()

    def too_long(self, error: BaseException) -> bool:
        said = error.orig.args if isinstance(error, DBAPIError) and error.orig is not None else ()
        return bool(said) and said[0] in _TOO_LONG

    def understood(self, error: Exception) -> Fault | None:
        if isinstance(error, _TooLarge):
            return Fault("data", str(error), reason=str(error))
        if isinstance(error, InvalidRequestError) and "MariaDB" in str(error):
            return Fault(
                "away",
                f"the server of {self.masked_url} is MySQL, not MariaDB: write mysql:// in the URL",
                permanent=True,
            )
        return super().understood(error)

    def fault(self, error: BaseException) -> Fault:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        # A syntax error quotes the statement, and with it the data.
        said = str(error.args[-1]).partition(" near ")[0] if error.args else type(error).__name__
        state = getattr(error, "sqlstate", None) or ""
        if code in _CONFLICTS:
            return self.faults.conflict(said)
        if code == _NO_DEFAULT:
            return self.faults.foreign_column(said)
        if code in _DUPLICATES:
            return self.faults.refused("duplicate", code, f"{code}: {said}")
        if code in _DATA or state[:2] in ("22", "23"):
            return self.faults.refused("data", code, f"{code}: {said}")
        if code == _INSECURE:
            return self.faults.tls_wanted(said)
        if code in _LOGINS:
            # The server sends the same error if it requires TLS, or a certificate, of this user.
            return self.faults.wrong_login(said, self.faults.login_hint())
        if code in _NO_DATABASE:
            return self.faults.no_database(
                f"CREATE DATABASE `{self.url.database}` CHARACTER SET utf8mb4"
            )
        if code in _NOT_OURS:
            return self.faults.no_tables(said)
        if code in _RIGHTS:
            return self.faults.not_allowed(said)
        if code in _READ_ONLY and (code != _PREVENTED or "read-only" in said):
            return self.faults.read_only(
                said,
                "SET GLOBAL transaction_read_only = OFF"
                if code == 1792
                else "SET GLOBAL read_only = OFF",
            )
        if code in _TOO_MANY:
            return self.faults.too_many(said)
        if code == _USED_UP:
            return self.faults.used_up(said)
        if code == 1047:
            return self.faults.not_working(
                f"{said}: the node has lost its cluster, or has not joined it yet"
            )
        return (
            self.faults.unreachable(error.__cause__, said)
            if code in _UNREACHABLE
            else self.faults.not_working(said)
        )
