"""MariaDB and MySQL: a batch is a few statements in one transaction, each with one hex literal,
taken apart by ``JSON_TABLE``.
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
from structjob.store.ingest import (
    COLUMNS,
    JSON_COLUMNS,
    KEEP_NEWER,
    KEYS,
    LOG_COLUMNS,
    as_array,
    changes,
)
from structjob.store.server import READ_TIMEOUT, Fault, ServerStore

_LEAST_PACKET = 64 * 1024
"""Bytes that ``max_allowed_packet`` must be at least: the queries need some of them, and a row of a
job most.
"""

_STATEMENT = 64 * 1024
"""Bytes of lines that a statement takes, if it is more than one: to write that down is half a
millisecond of work, done on the loop.
"""

_LARGE = 16 * 1024
"""Bytes of JSON from which a value gets a statement of its own: the server reads a row anew for
every column, the value with it.
"""

_DEEPEST = 2**32 - 1
"""Levels of a tree of jobs: of a deeper one MariaDB would show the first 1,000 without a word, and
MySQL nothing but an error.
"""

# Our own, whatever the server's defaults are: strict, so that no value is cut silently; backslashes
# as the driver escapes them; and no limit on rows or joins.
_SETTINGS = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', "
    "time_zone = '+00:00', innodb_lock_wait_timeout = 5, completion_type = 0, sql_safe_updates = 0, "
    "sql_select_limit = 18446744073709551615, sql_big_selects = 1"
)


def _limits(variable: str, unit: int, depth: str) -> str:
    """Return the statement that lifts limits of the server below our own: the time of a query in
    *variable*, where *unit* is a second.
    """
    least = int(READ_TIMEOUT) * unit
    return f"SET SESSION {depth} = {_DEEPEST}, {variable} = IF(@@SESSION.{variable} > 0, GREATEST(@@SESSION.{variable}, {least}), 0)"


_LIMITS = {
    "MariaDB": _limits("max_statement_time", 1, "max_recursive_iterations"),
    "MySQL": _limits("max_execution_time", 1000, "cte_max_recursion_depth"),
}


def _records(names: tuple[str, ...]) -> str:
    # Long text even for numbers: any other type cuts a text, or clamps a number, without a word.
    # And without a character set of its own it has the database's, where a question mark takes the
    # place of what that does not know.
    types = {
        name: "JSON" if name in JSON_COLUMNS else "LONGTEXT CHARACTER SET utf8mb4" for name in names
    }
    columns = ", ".join(f"{name} {type_} PATH '$.{name}'" for name, type_ in types.items())
    return f"JSON_TABLE(CONVERT(0x%s USING utf8mb4), '$[*]' COLUMNS ({columns})) AS excluded"


def _value(name: str) -> str:
    # A null within JSON is the text "null" where the column is JSON.
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
    """Return the statement for events none of which has one of the *absent* columns.

    The server reads a line anew for every column that is asked for, to its end where the column is
    not there: a quarter of the work.
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
"""  # noqa: S608 -- made of column names alone; IGNORE would hide other errors as well


def _insert(table: str) -> str:
    names = COLUMNS[table]
    return f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(map(_value, names))} FROM {_records(names)}"  # noqa: S608 -- see above


def _same(table: str) -> str:
    return " AND ".join(f"{table}.{key} = excluded.{key}" for key in KEYS[table])


def _upsert(table: str) -> tuple[str, ...]:
    if table not in KEEP_NEWER:
        key = KEYS[table][0]
        return (f"{_insert(table)} ON DUPLICATE KEY UPDATE {key} = {table}.{key}",)
    # Not ON DUPLICATE KEY: it knows no WHERE, and takes a row with the same idempotency key for the
    # same job.
    assignments = ", ".join(f"{table}.{name} = {_value(name)}" for name in changes(table))
    # From the few rows to the many.
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
"""Bytes of a packet that are for the statement around the data."""

# On a Galera cluster 1213 comes at the commit, too (another node was first), and 1180 where the
# node was lost meanwhile.
_CONFLICTS = frozenset({1020, 1180, 1205, 1213})
_DUPLICATES = frozenset({1062, 1586})
# Those whose SQLSTATE does not say so: values that do not fit, checks, JSON (MySQL 3140–3158,
# MariaDB 4035–4044), and what is too large.
_DATA = frozenset(
    {1153, 1265, 1301, 1364, 1366, 1411, 3819, 4025, *range(3140, 3159), *range(4035, 4045)}
)
_LOGINS = frozenset({1045, 1698, 1251, 2059, 1524, 1862})
_INSECURE = 3159
_RIGHTS = frozenset({1044, 1142, 1143, 1227, 1370})
# 1046: it was dropped under an open connection, which names none then, even if it is made again.
_NO_DATABASE = frozenset({1049, 1046})
_NOT_OURS = frozenset({1146, 1054})
_READ_ONLY = frozenset({1290, 1792, 1836})
_TOO_MANY = frozenset({1040, 1203, 1226})
_UNREACHABLE = frozenset({2002, 2003, 2005, 2006, 2013})
_TOO_LONG = frozenset({1969, 3024})
"""A query was stopped after its time: MariaDB's number, and MySQL's."""


class _TooLarge(Exception):
    """What is to be stored does not fit into a packet of the server."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(
            f"{what} and the server's max_allowed_packet permits {most:,}: raise it, for example SET GLOBAL max_allowed_packet = 67108864"
        )


class _Ingest:
    """See `structjob.store.ingest.Ingest`.

    Attributes:
        most: Bytes of data that one statement can take.
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
        """Return the statement that gives a column of *row* its value, if the row is stored, and
        not a newer one in its place.
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
"""What tells one change of a row from every other one."""
_NULL = msgspec.Raw(b"null")


def _large(row: dict[str, msgspec.Raw]) -> list[str]:
    """Return the JSON columns whose value in *row* is large."""
    return [name for name in JSON_COLUMNS & row.keys() if len(row[name]) > _LARGE]


def _scalar(value: msgspec.Raw) -> str:
    """Return a number or a text as SQL."""
    plain: int | str = msgspec.json.decode(value, type=int | str)
    return str(plain) if isinstance(plain, int) else f"_utf8mb4 0x{_literal(plain.encode())}"


def _literal(data: bytes) -> str:
    """Return *data* in hexadecimal digits: nothing of it can be taken for SQL.

    Raises:
        ValueError: if it is not UTF-8; the server would put question marks in its place.
    """
    data.decode()
    return data.hex()


def _execute(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


class MySQLStore(ServerStore):
    """A store on a MariaDB (10.6 or newer) or MySQL (8.0.17 or newer) server, by asyncmy."""

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
        # What is read is locked, and nothing beside it: fewer deadlocks.
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
            # A Galera node answers from what it has applied: wait for what was committed on another
            # node before the question.
            cursor.execute(f"SET SESSION wsrep_sync_wait = {int(found[1]) | 1}")
        cursor.close()

    def cut(self, connection: Any) -> None:
        # Its own close() waits until what is not sent yet is sent.
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
            return self.conflict(said)
        if code in _DUPLICATES:
            return self.refused("duplicate", code, f"{code}: {said}")
        if code in _DATA or state[:2] in ("22", "23"):
            return self.refused("data", code, f"{code}: {said}")
        if code == _INSECURE:
            return self.tls_wanted(said)
        if code in _LOGINS:
            # The server says the same where it wants TLS, or a certificate, of this user.
            return self.wrong_login(said, self.login_hint())
        if code in _NO_DATABASE:
            return self.no_database(f"CREATE DATABASE `{self.url.database}` CHARACTER SET utf8mb4")
        if code in _NOT_OURS:
            return self.no_tables(said)
        if code in _RIGHTS:
            return self.not_allowed(said)
        if code in _READ_ONLY:
            return self.read_only(
                said,
                "SET GLOBAL transaction_read_only = OFF"
                if code == 1792
                else "SET GLOBAL read_only = OFF",
            )
        if code in _TOO_MANY:
            return self.too_many(said)
        if code == 1047:
            return self.not_working(
                f"{said}: the node has lost its cluster, or has not joined it yet"
            )
        return (
            self.unreachable(error.__cause__, said)
            if code in _UNREACHABLE
            else self.not_working(said)
        )
