"""The size of structjob's tables: counted rows, and the bytes that the database reports.

Each database measures bytes differently.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Executable, func, literal, select, union_all
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

from structjob.statistics import Storage, TableStorage
from structjob.store.contract import Fetch
from structjob.store.tables import metadata


class _Sizes(Executable, ClauseElement):
    """The query for ``name`` and ``bytes`` of the database's tables."""

    inherit_cache = True


class _KnowsSizes(Executable, ClauseElement):
    """The query for whether `_Sizes` is supported. SQLite may have been built without it."""

    inherit_cache = True


@compiles(_Sizes, "sqlite")
def _sqlite_sizes(element: _Sizes, compiler: SQLCompiler, **kw: Any) -> str:
    return (
        "SELECT m.tbl_name AS name, sum(s.pgsize) AS bytes FROM dbstat s JOIN sqlite_master m ON m.name = s.name "
        "WHERE s.aggregate = 1 GROUP BY m.tbl_name"
    )


@compiles(_Sizes, "mysql")
@compiles(_Sizes, "mariadb")
def _mysql_sizes(element: _Sizes, compiler: SQLCompiler, **kw: Any) -> str:
    return (
        "SELECT table_name AS name, data_length + index_length AS bytes FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
    )


@compiles(_Sizes, "postgresql")
def _postgresql_sizes(element: _Sizes, compiler: SQLCompiler, **kw: Any) -> str:
    # The tables that unqualified names refer to here, including TOAST and indexes.
    return "SELECT relname AS name, pg_total_relation_size(oid) AS bytes FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)"


@compiles(_KnowsSizes, "sqlite")
def _sqlite_knows(element: _KnowsSizes, compiler: SQLCompiler, **kw: Any) -> str:
    return "SELECT count(*) AS yes FROM pragma_module_list WHERE name = 'dbstat'"


@compiles(_KnowsSizes)
def _others_know(element: _KnowsSizes, compiler: SQLCompiler, **kw: Any) -> str:
    return "SELECT 1 AS yes"


class _FileSize(Executable, ClauseElement):
    """The query for the ``bytes`` of an SQLite file."""

    inherit_cache = True


@compiles(_FileSize, "sqlite")
def _sqlite_file_size(element: _FileSize, compiler: SQLCompiler, **kw: Any) -> str:
    return "SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size"


@compiles(_FileSize)
def _no_file(element: _FileSize, compiler: SQLCompiler, **kw: Any) -> str:
    return "SELECT NULL AS bytes"


async def measure_whole(fetch: Fetch) -> Storage:
    """Return only the total size. SQLite reports the size of the file, other databases that of each
    table.
    """
    (file,) = await fetch(_FileSize())
    if file["bytes"] is not None:
        return Storage(bytes=int(file["bytes"]), tables=())
    ours = {str(table.name) for table in metadata.sorted_tables}
    return Storage(
        bytes=sum(int(row["bytes"]) for row in await fetch(_Sizes()) if row["name"] in ours),
        tables=(),
    )


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
