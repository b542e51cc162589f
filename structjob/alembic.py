"""An application that uses Alembic: its migrations leave structjob's tables alone."""

from structjob.integrations.alembic import include_object

__all__ = ["include_object"]
