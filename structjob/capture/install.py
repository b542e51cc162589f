"""`install`: makes an existing structlog setup record into structjob."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import structlog

from structjob.capture.event import Encoder, make_redactor
from structjob.capture.processors import (
    is_recording,
    mark_last,
    note_exception,
    note_template,
    record_event,
)
from structjob.capture.setup import SETUP
from structjob.capture.stdlib import STDLIB
from structjob.context.errors import Classifier
from structjob.values.redaction import Redactor


def install(
    *,
    stdlib: bool | None = None,
    redact: bool | Iterable[str] | Redactor = True,
    classifier: Classifier | None = None,
) -> None:
    """Make an existing structlog setup record into structjob.

    Call it after ``structlog.configure()``.

    The output stays the same, with the ids of the job added. Loggers that are already cached
    follow, if their processors are a list (a tuple cannot be extended). Calling it again is
    harmless. A later ``structlog.configure()`` with a new list of processors requires another call
    (a warning says so). ``logging.basicConfig()``, ``dictConfig()`` and changes of handlers do not.

    Args:
        stdlib: Whether to also record the records of `logging`: ``True`` for all, ``False`` for
            none. By default all if structlog itself logs through `logging`, otherwise warnings and
            above. Loggers that do not propagate, such as uvicorn's, are recorded if a handler of
            their own shows the record. The output does not change.
        redact: ``True`` (the default) removes secrets from what is recorded. Also possible: a list
            of further secret keys, a `Redactor`, or ``False``.
        classifier: Takes an exception and returns ``error_type``, ``retry_possible``, …
    """
    SETUP.encoder = Encoder(make_redactor(redact), classifier)
    config = structlog.get_config()
    processors = config["processors"]
    if not isinstance(processors, list):
        processors = list(processors)
        structlog.configure(processors=processors)
    if SETUP.fan_out is not None and SETUP.fan_out not in processors:
        # The setup of an earlier `configure` has been replaced and shows nothing any more.
        SETUP.close(SETUP.fan_out)
        SETUP.fan_out = None
    if not is_recording(processors):
        # In place, because cached loggers hold this list.
        _insert(processors)
    mark_last(processors)
    SETUP.renamer = _earlier_renamer(processors)
    if stdlib is None:
        STDLIB.join(
            logging.NOTSET
            if isinstance(config["logger_factory"], structlog.stdlib.LoggerFactory)
            else logging.WARNING
        )
    else:
        STDLIB.join(logging.NOTSET if stdlib else None)
    SETUP.watch()


def _insert(processors: list[Any]) -> None:
    at = max(len(processors) - 1, 0)
    while at > 0 and (
        _renders_exceptions(processors[at - 1])
        or isinstance(processors[at - 1], structlog.processors.EventRenamer)
    ):
        at -= 1
    _put(processors, at, record_event)
    earlier = next(
        (
            index
            for index, processor in enumerate(processors[:at])
            if _renders_exceptions(processor)
        ),
        None,
    )
    if earlier is not None:
        _put(processors, earlier, note_exception)
    fills = structlog.stdlib.PositionalArgumentsFormatter
    formatting = next(
        (index for index, processor in enumerate(processors) if isinstance(processor, fills)), None
    )
    if formatting is not None and formatting < processors.index(record_event):
        _put(processors, formatting, note_template)


def _put(processors: list[Any], at: int, processor: Any) -> None:
    processors.insert(at, processor)
    SETUP.inserted.append((processors, processor))


def _earlier_renamer(processors: list[Any]) -> structlog.processors.EventRenamer | None:
    """Return the processor that renames the message before `record_event` sees it."""
    before = processors[: processors.index(record_event)] if record_event in processors else []
    return next(
        (
            processor
            for processor in before
            if isinstance(processor, structlog.processors.EventRenamer)
        ),
        None,
    )


def _renders_exceptions(processor: Any) -> bool:
    return (
        isinstance(processor, structlog.processors.ExceptionRenderer)
        or processor is structlog.processors.format_exc_info
    )
