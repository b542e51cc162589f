"""Drop the views while a migration alters the tables that they use.

A view that uses a table prevents SQLite's batch ALTER, and on PostgreSQL the ALTER and DROP of the
table's columns. So a migration that alters ``structjob_jobs`` or ``structjob_steps`` does it inside
`replaced`, and passes the new definitions of the views. The definitions are in the migrations,
which never change; this module contains none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alembic.operations import Operations


@contextmanager
def replaced(op: Operations, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[None]:
    """Drop the views *old*, run the block, and create the views *new*.

    Args:
        op: Alembic's operations (the module ``alembic.op`` also works).
        old: Name → SELECT statement of the views that exist now; a view may use those before it.
        new: Name → SELECT statement of the views that exist afterwards.
    """
    drop(op, old)
    yield
    create(op, new)


def create(op: Operations, views: Mapping[str, str]) -> None:
    """Create *views* (name → SELECT statement) in the given order."""
    for name, select in views.items():
        op.execute(f"CREATE VIEW {name} AS\n{select.strip()}")


def drop(op: Operations, views: Mapping[str, str]) -> None:
    """Drop *views* in reverse order."""
    for name in reversed(tuple(views)):
        op.execute(f"DROP VIEW {name}")
