"""Taking the views away while a migration alters the tables under them.

A view that names a table stops SQLite's batch ALTER, and PostgreSQL's ALTER and DROP of its
columns. So a migration that alters ``structjob_jobs`` or ``structjob_steps`` does it within
`replaced`, and hands over the views' definitions as they are to be from then on. The definitions
stand in the migrations, which never change; this module holds none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alembic.operations import Operations


@contextmanager
def replaced(op: Operations, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[None]:
    """Drop the views *old*, run the block, create the views *new*.

    Args:
        op: Alembic's operations (the module ``alembic.op`` will do).
        old: Name → SELECT statement of the views that exist now; a view may name those before it.
        new: Name → SELECT statement of the views that exist afterwards.
    """
    drop(op, old)
    yield
    create(op, new)


def create(op: Operations, views: Mapping[str, str]) -> None:
    """Create *views* (name → SELECT statement) in the order given."""
    for name, select in views.items():
        op.execute(f"CREATE VIEW {name} AS\n{select.strip()}")


def drop(op: Operations, views: Mapping[str, str]) -> None:
    """Drop *views*, the last first."""
    for name in reversed(tuple(views)):
        op.execute(f"DROP VIEW {name}")
