"""The ids of the current job in records of `logging`, for formatters of your own."""

from __future__ import annotations

import logging
import warnings

from structjob.context.scope import current_scope

IDS = ("job_id", "step_id", "correlation_id")
"""The attributes that `IdFilter` sets."""


class Id(str):
    """An id that `IdFilter` has set; it is no attribute of the event, which has a column for it."""

    __slots__ = ()


class IdFilter(logging.Filter):
    """A filter of `logging` that gives each record its ``job_id``, ``step_id``, ``correlation_id``.

    It passes every record. A record that has such an attribute, by ``extra=``, keeps it. ::

        handler.addFilter(structjob.IdFilter())
        handler.setFormatter(logging.Formatter("%(levelname)s %(correlation_id)s %(message)s"))

    With ``dictConfig``: ``"filters": {"ids": {"()": "structjob.IdFilter"}}``, and
    ``"filters": ["ids"]`` in the handler.

    Args:
        default: The text for an id that does not exist, by default ``-``.
    """

    def __init__(self, default: str = "-") -> None:
        super().__init__()
        self._default = Id(default)

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the ids of *record*, and pass it."""
        scope = current_scope()
        ids = scope.ids if scope is not None else {}
        for name in IDS:
            if not hasattr(record, name):
                setattr(record, name, Id(ids[name]) if name in ids else self._default)
        return True


def add_ids_to_logging(*handlers: logging.Handler) -> IdFilter:
    """Give the records of `logging` their ids, for formatters that the program has.

    A handler that has an `IdFilter` gets no second one. Without arguments, and without a handler at
    the root logger, it warns (`RuntimeWarning`). ::

        logging.basicConfig(format="%(levelname)s %(job_id)s %(message)s")
        structjob.add_ids_to_logging()

    Args:
        handlers: The handlers that show the ids; by default those that the root logger has now.

    Returns:
        The filter that was added, for the handlers that are made later.
    """
    added = IdFilter()
    handlers = handlers or tuple(logging.getLogger().handlers)
    if not handlers:
        warnings.warn(
            "add_ids_to_logging() found no handler at the root logger: call logging.basicConfig() "
            "before it, or give it the handlers",
            RuntimeWarning,
            stacklevel=2,
        )
    for handler in handlers:
        if not any(isinstance(present, IdFilter) for present in handler.filters):
            handler.addFilter(added)
    return added
