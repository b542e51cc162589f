"""The size of structjob's tables: counted rows, and the bytes that the database reports.

Each database measures bytes differently.
"""

from __future__ import annotations

from sqlalchemy import func, literal, select, union_all

from structjob.statistics import Storage, TableStorage
from structjob.store.contract import Fetch
from structjob.store.expressions import NativeStatement
from structjob.store.tables import metadata


class _Sizes(NativeStatement):
    """The query for ``name`` and ``bytes`` of the database's tables."""

    sqlite = (
        "SELECT m.tbl_name AS name, sum(s.pgsize) AS bytes FROM dbstat s JOIN sqlite_master m ON m.name = s.name "
        "WHERE s.aggregate = 1 GROUP BY m.tbl_name"
    )
    mysql = (
        "SELECT table_name AS name, data_length + index_length AS bytes FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
    )
    # The tables that unqualified names refer to here, including TOAST and indexes.
    postgresql = (
        "SELECT relname AS name, pg_total_relation_size(oid) AS bytes FROM pg_class "
        "WHERE relkind = 'r' AND pg_table_is_visible(oid)"
    )


class _KnowsSizes(NativeStatement):
    """The query for whether `_Sizes` is supported. SQLite may have been built without it."""

    sqlite = "SELECT count(*) AS yes FROM pragma_module_list WHERE name = 'dbstat'"
    mysql = postgresql = "SELECT 1 AS yes"


class _FileSize(NativeStatement):
    """The query for the ``bytes`` of an SQLite file."""

    sqlite = "SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size"
    mysql = postgresql = "SELECT NULL AS bytes"


async def measure_whole(fetch: Fetch) -> Storage:
    """Return only the total size. SQLite reports the size of the file, other databases that of each
    table.
    """
    (file,) = await fetch(_FileSize())
    total = file["bytes"]
    if total is None:
        ours = {str(table.name) for table in metadata.sorted_tables}
        total = sum(int(row["bytes"]) for row in await fetch(_Sizes()) if row["name"] in ours)
    return Storage(bytes=int(total), tables=())


async def measure(fetch: Fetch) -> Storage:
    """Count the rows of every table, and query the sizes from the database."""
    tables = metadata.sorted_tables
    counts = union_all(
        *(
            select(literal(table.name).label("name"), func.count().label("n")).select_from(table)
            for table in tables
        )
    )
    rows = {row["name"]: row["n"] for row in await fetch(counts)}
    (able,) = await fetch(_KnowsSizes())
    sizes = {row["name"]: int(row["bytes"]) for row in await fetch(_Sizes())} if able["yes"] else {}
    found = [
        TableStorage(table=str(table.name), rows=rows[table.name], bytes=sizes.get(table.name))
        for table in tables
    ]
    found.sort(key=lambda table: (-(table.bytes or 0), -table.rows, table.table))
    known = [table.bytes for table in found if table.bytes is not None]
    return Storage(bytes=sum(known) if known else None, tables=tuple(found))
