"""Methods of jobs and steps that describe their work: loggers, named steps, durations and
summaries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any, NoReturn, Self

import structlog

from structjob.capture.event import Kind
from structjob.capture.logger import ABSENT, as_structlog, success
from structjob.capture.setup import SETUP
from structjob.context.scope import Scope, current_scope, enter_scope
from structjob.exceptions import InvalidArgument
from structjob.lifecycle.handle import Handle
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.open_hosts import OPEN_HOSTS
from structjob.lifecycle.outcome import duration_fields
from structjob.lifecycle.step_core import StepCore
from structjob.numeric import is_number

INFO, ERROR = Kind("step_info"), Kind("step_error")
"""The kinds of these events."""

_CLOCK = 1e9
"""A larger number is a time in seconds since 1970, not a value of `time.monotonic`."""


def is_used() -> bool:
    """Return whether this program uses structjob.

    A library may use it in a program that does not. Then its events are the library's words only.
    """
    return SETUP.watched or OPEN_HOSTS.first is not None


def _method(level: str) -> Any:
    kind = ERROR if level in ("error", "critical", "exception") else INFO

    @as_structlog(
        ABSENT=ABSENT, kind=kind, level=level, success=success, enter_scope=enter_scope, current_scope=current_scope, is_used=is_used,
    )  # fmt: skip
    def method(self: Any, event: Any = ABSENT, /, *args: Any, **fields: Any) -> None:
        if event is ABSENT:
            event = fields.pop("event", None)
        fields = {**self._about(), **fields}
        if is_used():
            fields["kind"] = kind if "kind" not in fields else kind.beside(fields["kind"])
        former = current_scope()
        enter_scope(self._scope() or former)
        try:
            if level == "success":
                success(self._logger, event % args if args else event, **fields)
            else:
                getattr(self._logger, level)(event, *args, **fields)
        finally:
            enter_scope(former)

    method.__name__ = level
    method.__doc__ = f"Log an event of level {level}."
    return method


class HandleLogger:
    """The type of ``job.log`` and ``step.log``: a logger whose events belong to that job or step.

    The running code may belong to another job. The logger has structlog's methods and ``success``,
    and uses structlog's processors.

    Args:
        scope: A function that returns the scope of the events.
        about: A function that returns attributes for each event. The attributes of a call replace
            them.
        bound: The underlying structlog logger.
    """

    __slots__ = ("_about", "_logger", "_scope")

    def __init__(
        self,
        scope: Callable[[], Scope | None],
        about: Callable[[], Mapping[str, Any]] = dict,
        bound: Any = None,
    ) -> None:
        self._scope = scope
        self._about = about
        self._logger = structlog.get_logger() if bound is None else bound

    debug = _method("debug")
    info = _method("info")
    success = _method("success")
    warning = warn = _method("warning")
    error = _method("error")
    critical = fatal = _method("critical")
    exception = _method("exception")

    def bind(self, **fields: Any) -> HandleLogger:
        """Return a logger that adds *fields* to each of its events; see also `Job.bind`."""
        return HandleLogger(self._scope, self._about, self._logger.bind(**fields))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self  # like its job

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "the logger of a job or step belongs to its process and cannot be pickled: use structlog.get_logger() in the "
            "other process, and call it by a structjob.ContextExecutor"
        )


class JobVocabulary(Handle[JobCore]):
    """The logging methods of a job. They replace the operation loggers of other libraries."""

    __slots__ = ()

    @property
    def log(self) -> HandleLogger:
        """A logger whose events belong to this job, even if the running code belongs to another
        one.

        It also works after the job's end.
        """
        return HandleLogger(self._core.own_scope)

    def bind(self, **fields: Any) -> None:
        """Add *fields* to all later events of this job and its steps, in every task and thread.

        The events of its child jobs do not get them. The value ``None`` removes a field.
        """
        bound = self._core.bound
        bound.update(fields)
        for name in [name for name, value in bound.items() if value is None]:
            bound.pop(name, None)

    def log_step(self, step: str, message: str, /, **fields: Any) -> None:
        """Log progress under the name of a *step*, without starting a step.

        Args:
            step: The name, for the column ``step``.
            message: What happened.
            fields: Attributes. No name is reserved.
        """
        self._log_of(step).info(message, **fields)

    def log_success(self, step: str, message: str, /, **fields: Any) -> None:
        """Log as `log_step` does, with level ``success``."""
        self._log_of(step).success(message, **fields)

    def log_error(
        self, step: str, message: str, exc: BaseException | None = None, /, **fields: Any
    ) -> None:
        """Log as `log_step` does, with level ``error``. The job continues.

        Args:
            step: See `log_step`.
            message: What went wrong.
            exc: The exception, if there is one. Its type, message, code and traceback are recorded.
                Without an exception, ``error_type=`` and ``error_code=`` define how the error is
                grouped.
            fields: Attributes.
        """
        if exc is not None:
            fields = {"exc_info": exc, **fields}
        self._log_of(step).error(message, **fields)

    def log_duration(self, step: str, start: float | datetime, /, **fields: Any) -> None:
        """Log how long a *step* has taken: ``duration_ms`` and ``duration_str``.

        Args:
            step: See `log_step`.
            start: The start time: a value of `time.monotonic` or `time.time`, or an aware datetime.
            fields: Further attributes.

        Raises:
            InvalidArgument: if *start* is not one of these.
        """
        lasted = duration_fields(seconds_since(start))
        self._log_of(step).info(f"{step} took {lasted['duration_str']}", **{**lasted, **fields})

    def summarize(self, **fields: Any) -> None:
        """Add *fields* to the summary. They become attributes of the job's last event."""
        self._core.summary.update(fields)

    @property
    def summary(self) -> dict[str, Any]:
        """A copy of the fields given to `summarize` and ``end(summary=…)``."""
        return dict(self._core.summary)

    def _log_of(self, step: str) -> HandleLogger:
        def scope() -> Scope | None:
            own = self._core.own_scope()
            return own if own is None else own.within(step)

        return HandleLogger(scope)


class StepVocabulary(Handle[StepCore]):
    """The logging methods of a step."""

    __slots__ = ()

    @property
    def log(self) -> HandleLogger:
        """A logger whose events belong to this step, even if the running code belongs to another
        one.

        The events have ``step_number`` (the step's ``seq``), and ``total_steps`` if it is known.
        """
        return HandleLogger(self._core.own_scope, self._core.numbers)

    def log_duration(self, start: float | datetime | None = None, /, **fields: Any) -> None:
        """Log how long the step has taken: ``duration_ms`` and ``duration_str``.

        Args:
            start: The start time: a value of `time.monotonic` or `time.time`, or an aware datetime.
                By default the start of the step.
            fields: Further attributes.

        Raises:
            InvalidArgument: if *start* is not one of these.
        """
        lasted = duration_fields(seconds_since(self._core.began if start is None else start))
        self.log.info(f"{self._core.name} took {lasted['duration_str']}", **{**lasted, **fields})

    def summarize(self, **fields: Any) -> None:
        """Add *fields* to the attributes of the step's last event."""
        self._core.summary.update(fields)


def seconds_since(start: float | datetime) -> float:
    """Return the seconds from *start* to now; 0 if *start* is later, by another clock.

    Raises:
        InvalidArgument: if *start* is not a time.
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise InvalidArgument(
                f"start must be an aware datetime, {start} has no time zone: datetime.now(UTC)"
            )
        return max(0.0, (datetime.now(UTC) - start).total_seconds())
    if not is_number(start) or not 0 <= start < inf:
        raise InvalidArgument(
            f"start must be time.monotonic(), time.time() or an aware datetime, not {start!r}"
        )
    return max(0.0, (time.time() if start > _CLOCK else time.monotonic()) - start)
