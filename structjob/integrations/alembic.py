"""For applications that share their database with structjob and use Alembic for their own
migrations.

It makes Alembic ignore structjob's tables. In the application's ``env.py``::

    from structjob.alembic import include_object

    context.configure(..., include_object=include_object)
"""

from __future__ import annotations

from typing import Any

from structjob.schema import is_own

__all__ = ["include_object"]


def include_object(
    object: Any, name: str | None, type_: str, reflected: bool, compare_to: Any
) -> bool:
    """Return whether Alembic's autogenerate compares this object: all but structjob's tables.

    Autogenerate would propose to drop those. A table of the application's own models is always
    compared, whatever its name is. An application that already has an ``include_object`` calls this
    one in it: ``return structjob.alembic.include_object(object, name, type_, reflected, compare_to)
    and ...``.

    Args:
        object: What Alembic found: a table, a column, an index, a constraint.
        name: Its name; ``None`` if it has no name.
        type_: Its kind, for example ``table``.
        reflected: Whether it was found in the database, and not in the application's models.
        compare_to: What it is compared to; ``None`` if only one side has it.
    """
    ours = type_ == "table" and reflected and compare_to is None and is_own(name or "")
    return not ours
