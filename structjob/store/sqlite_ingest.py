"""The statements by which SQLite stores a batch, which it reads as JSON."""

from __future__ import annotations

from sqlalchemy import Connection

from structjob.spool.line import EVENT_DEFAULTS
from structjob.store.ingest import COLUMNS, LOG_COLUMNS, as_array, on_conflict

_NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
"""The time in milliseconds: SQLite's clock has no microseconds, and zeros would take space."""


def _field(name: str, default: str | None = None) -> str:
    value = f"json_extract(value, '$.{name}')"
    return value if default is None else f"coalesce({value}, '{default}')"


def _value(name: str) -> str:
    if name != "result":  # the other JSON columns hold objects
        return _field(name)
    # With one path, `json_extract` returns an SQL value: a text loses its quotes, a boolean becomes
    # a number, and a number keeps 15 digits. With two it returns a JSON array, which holds the
    # value as it was written. The operator `->`, which does the same, needs SQLite 3.38.
    pair = f"json_extract(value, '$.{name}', '$.absent')"
    return (
        f"CASE WHEN json_type(value, '$.{name}') <> 'null'"
        f" THEN substr({pair}, 2, length({pair}) - length('[,null]')) END"
    )


# Materialized: otherwise json_each serializes each line again for every column that reads it, which
# doubles the cost of an event.
_LINES = "WITH lines AS MATERIALIZED (SELECT value FROM json_each(CAST(:batch AS TEXT)))"

INSERT_EVENTS = f"""{_LINES}
INSERT INTO structjob_logs (session_id, seq, {", ".join(LOG_COLUMNS)}, attrs, {", ".join(EVENT_DEFAULTS)}, stored_at)
SELECT :session, {_field("seq")}, {", ".join(map(_field, LOG_COLUMNS))}, {_field("attrs")},
  {", ".join(_field(name, default) for name, default in EVENT_DEFAULTS.items())}, {_NOW}
FROM lines WHERE true
ON CONFLICT (session_id, seq) DO NOTHING
"""  # noqa: S608 -- contains only column names

_INSERTS = {
    table: f"{_LINES} INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(map(_value, columns))} FROM lines WHERE true"  # noqa: S608 -- see above
    for table, columns in COLUMNS.items()
}
UPSERTS = {table: f"{statement} {on_conflict(table)}" for table, statement in _INSERTS.items()}


class SQLiteIngest:
    """How SQLite stores a batch; see `structjob.store.contract.Ingest`."""

    most = 256 * 1024 * 1024

    def events(self, connection: Connection, session_id: int, lines: bytes) -> None:
        connection.exec_driver_sql(INSERT_EVENTS, {"session": session_id, "batch": as_array(lines)})

    def upsert(self, connection: Connection, table: str, rows: bytes) -> None:
        connection.exec_driver_sql(UPSERTS[table], {"batch": rows})

    def insert(self, connection: Connection, table: str, rows: bytes) -> None:
        connection.exec_driver_sql(_INSERTS[table], {"batch": rows})
