"""Correlation ids: one id for related work across jobs and services."""

from __future__ import annotations

from structjob.context.scope import Binding, Scope, current_scope, new_id
from structjob.lifecycle.arguments import check_text
from structjob.values.redaction import identified


def current_correlation_id() -> str | None:
    """Return the correlation id of the running code; ``None`` if it has no correlation id."""
    scope = current_scope()
    return scope.correlation_id if scope is not None else None


def correlate(id: str | None = None) -> Binding[str]:
    """Set the correlation id of the events logged and the jobs started in the ``with`` block.

    ::

        with structjob.correlate(request.headers.get("X-Request-ID")) as id:
            ...

    Args:
        id: At most 128 characters; a new id by default.

    Raises:
        InvalidArgument: if it is not text, or too long.
    """
    given = check_text("the correlation id", id, 128)
    own = new_id() if given is None else identified(given)
    scope = current_scope()
    return Binding(Scope(correlation_id=own) if scope is None else scope.correlated(own), own)


def detached() -> Binding[None]:
    """Detach the ``with`` block from the current job, for a system's own events in the middle of a
    job.

    Events logged there belong to no job, and jobs started there have no parent.
    """
    return Binding(Scope(), None)
