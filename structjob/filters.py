"""The filters for reads. A filter checks its values when it is created."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, TypeVar, get_args

from structjob.exceptions import InvalidArgument, InvalidFilter
from structjob.filter_checks import (
    Moment,
    as_statuses,
    check_limit,
    check_order,
    check_paths,
    check_plain,
    check_values,
    check_window,
    one_or_several,
    values_of,
)
from structjob.levels import LEVELS, Level, level_name
from structjob.models import STREAMS, AnyJob, EventRecord, id_of
from structjob.statuses import ErrorOutcome, ErrorStatus, ErrorStatusName, JobStatus, JobStatusName


class Filter:
    """The base class of all filters."""

    __slots__ = ()


F = TypeVar("F", bound=Filter)


def make_filter(cls: type[F], /, **filters: Any) -> F:
    """Build a filter of a class from keywords.

    Raises:
        InvalidFilter: if a name is not one of the fields, or a field does not accept its value.
    """
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # every subclass is a dataclass
    for name in filters:
        if name not in known:
            raise InvalidFilter(f"unknown filter {name!r}: use one of {', '.join(known)}")
    return cls(**filters)


def _several(given: Filter, names: Iterable[str]) -> None:
    """Replace fields that hold several values by a tuple without duplicates.

    If only one value remains, replace the field by that value.
    """
    for name in names:
        object.__setattr__(given, name, one_or_several(name, getattr(given, name)))


def _named(job: AnyJob) -> str:
    try:
        return id_of(job)
    except InvalidArgument as exc:
        raise InvalidFilter(str(exc)) from None


Status = JobStatus | JobStatusName
Order = Literal["asc", "desc"]
Sort = Literal["created", "duration"]
EventType = Literal["system", "job", "task"]
Stream = Literal["stdout", "stderr", "system"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
_SEVERAL_OF_LOGS = (
    "job", "job_id", "step", "operation", "type", "kind", "levels", "stream", "logger", "category", "project",
)  # fmt: skip
LOG_EQUALS = (
    "job_id", "attempt", "step_id", "step", "operation", "type", "kind", "stream", "logger", "category", "project",
    "correlation_id", "trace_id", "session_id", "fingerprint",
)  # fmt: skip
"""Fields of `LogFilter` that are columns of an event. The column must equal one of the values."""
_SEVERAL_OF_JOBS = ("job_type", "operation", "owner", "category", "project")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter(Filter):
    """Selects events; every field that is set must match.

    If a field has several values, one of them must match: ``levels=("info", "error")``,
    ``job=("gui-1", "gui-2")``. The maximum is 50. The fields *job*, *job_id*, *levels*, *type*,
    *step*, *operation*, *kind*, *stream*, *logger*, *category* and *project* accept several values.

    The database has indexes for a job, a step, a correlation id, a session and an error. It also
    has indexes for the time, and for a category, a type or levels other than the usual ones
    (category ``system``, type ``task``, level ``info``). A page by any other field, without one of
    the first five, looks at 100,000 events at most; see `Page.partial`.

    Args:
        job: A job: any of its ids, a `Job` or a `JobRecord`. If there is no such job, the read
            raises `JobNotFound`.
        job_id: Like *job*, for code that knows the id. If no job has it as an id of any kind, the
            read still returns the events with this job id.
        children: Whether to include the events of the job's descendants. True by default if a job
            is given.
        level: This level or above.
        levels: This level only, or one of these levels.
        type: ``system`` (no job), ``job`` (a job, no step) or ``task`` (a step).
        logger: The name passed to ``structlog.get_logger``.
        source: Another name for *logger*.
        correlated: ``True``: only events with a correlation id. ``False``: only events without one.
            There is no index for it: a page looks at 100,000 events at most.
        trace_id: The trace id of OpenTelemetry or another tracer. There is no index for it: a page
            looks at 100,000 events at most.
        since: From this time on: a datetime with a time zone, or a `timedelta` before now.
        until: Before this time.
        fingerprint: Occurrences of this error; see `structjob.queries.errors.Errors`.
        text: Part of the message, not a regular expression. Letter case is ignored (on SQLite, for
            ASCII letters only). There is no index for it: a page looks at 100,000 events at most,
            whatever other fields are set.
        attrs: A mapping of attribute paths (with dots for nested values) to the value that must be
            equal. In a list, one item must match: ``tags`` finds a tag, ``disks.name`` finds a
            disk. As for *text*, there is no index for it.
        order: ``asc`` oldest first (the default), ``desc`` newest first.
        limit: Rows per page, 1–10,000; 100 by default.

    Raises:
        InvalidFilter: if a field does not accept its value.
    """

    job: AnyJob | Sequence[AnyJob] | None = None
    job_id: str | Sequence[str] | None = None
    attempt: int | None = None
    step_id: str | None = None
    step: str | Sequence[str] | None = None
    operation: str | Sequence[str] | None = None
    type: EventType | Sequence[EventType] | None = None
    kind: str | Sequence[str] | None = None
    level: Level | int | None = None
    levels: Level | Sequence[Level] | None = None
    stream: Stream | Sequence[Stream] | None = None
    logger: str | Sequence[str] | None = None
    source: str | Sequence[str] | None = None
    category: str | Sequence[str] | None = None
    project: str | Sequence[str] | None = None
    correlation_id: str | None = None
    correlated: bool | None = None
    trace_id: str | None = None
    session_id: int | None = None
    fingerprint: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    text: str | None = None
    attrs: Mapping[str, Any] | None = None
    children: bool | None = None
    order: Order = "asc"
    limit: int = 100

    def __post_init__(self) -> None:
        check_plain(self)
        if self.job is not None:
            if self.job_id is not None:
                raise InvalidFilter("job and job_id both name a job: leave one of them out")
            named = (
                tuple(self.job)
                if isinstance(self.job, Iterable) and not isinstance(self.job, str)
                else (self.job,)
            )
            # a handle or a record contains its job id, so no query is necessary
            live = not any(isinstance(one, str) for one in named)
            object.__setattr__(self, "job_id" if live else "job", [_named(one) for one in named])
            if live:
                object.__setattr__(self, "job", None)
        elif self.job_id is None and self.children is not None:
            raise InvalidFilter("children needs a job: give job or job_id")
        if self.correlation_id is not None and self.correlated is False:
            raise InvalidFilter("an event without a correlation id has none: leave correlated out")
        if self.source is not None:
            if self.logger is not None:
                raise InvalidFilter("source is another name of logger: leave one of them out")
            object.__setattr__(self, "logger", self.source)
            object.__setattr__(self, "source", None)
        if self.level is not None:
            if not isinstance(self.level, str | int):
                raise InvalidFilter(
                    f"level is one level, and includes those above it, not {self.level!r}; for these "
                    "levels only write levels=…"
                )
            if self.levels is not None:
                raise InvalidFilter("level and levels both choose levels: leave one of them out")
            object.__setattr__(self, "level", level_name(self.level))
        elif self.levels is not None:
            given = (self.levels,) if isinstance(self.levels, str | int) else self.levels
            if not isinstance(given, Iterable):
                raise InvalidFilter(f"levels must be a level, or several, not {given!r}")
            object.__setattr__(self, "levels", tuple(level_name(one) for one in given))
        _several(self, _SEVERAL_OF_LOGS)
        check_values("type", self.type, EVENT_TYPES)
        check_values("stream", self.stream, STREAMS)
        check_paths("attrs", self.attrs)
        check_window(self)
        check_order(self.order)
        check_limit(self.limit)

    def matches(self, event: EventRecord) -> bool:
        """Return whether *event* matches, with the same rules as the databases.

        *job* and *children* are ignored, because only a database knows a job's other ids and its
        children.
        """
        if (levels := matching_levels(self)) and event.level not in levels:
            return False
        for name in LOG_EQUALS:
            value = getattr(self, name)
            if value is not None and getattr(event, name) not in values_of(value):
                return False
        if self.correlated is not None and self.correlated is (event.correlation_id is None):
            return False
        since, until = self.since, self.until
        if since is not None and event.ts < since:  # type: ignore[operator]  # already a datetime
            return False
        if until is not None and event.ts >= until:  # type: ignore[operator]  # already a datetime
            return False
        if self.text is not None and self.text.casefold() not in event.message.casefold():
            return False
        return all(_has(event.attrs, path, value) for path, value in (self.attrs or {}).items())


def matching_levels(wanted: LogFilter) -> tuple[str, ...]:
    """Return the levels that match; empty if every level matches."""
    if wanted.level is None:
        levels = values_of(wanted.levels)
    else:
        least = LEVELS[str(wanted.level)]
        levels = tuple(name for name, number in LEVELS.items() if number >= least)
    return () if len(levels) == len(LEVELS) else levels


def _has(attrs: Mapping[str, Any], path: str, value: Any) -> bool:
    return _leads_to(attrs, path.split("."), value) or _leads_to(attrs, [path], value)


def _leads_to(found: Any, keys: Sequence[str], value: Any, *, within: bool = False) -> bool:
    """Return whether the path *keys* leads from *found* to *value*.

    The path may cross one list. Then one of its items must match.
    """
    for number, key in enumerate(keys):
        if isinstance(found, list) and number and not within:
            return any(_leads_to(item, keys[number:], value, within=True) for item in found)
        if not isinstance(found, Mapping) or key not in found:
            return False
        found = found[key]
    if isinstance(found, list) and not within:
        return any(_same(item, value) for item in found)
    return _same(found, value)


def _same(found: Any, value: Any) -> bool:
    """Return whether two values are equal as JSON: 1 equals 1.0, but 1 does not equal true."""
    return isinstance(found, bool) == isinstance(value, bool) and bool(found == value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed(Filter):
    """The common fields of job and attempt filters: a status, and a time for the order."""

    status: Status | Sequence[Status] | None = None
    since: Moment | None = None
    until: Moment | None = None
    order: Order = "desc"
    limit: int = 100

    def __post_init__(self) -> None:
        check_plain(self)
        object.__setattr__(self, "status", as_statuses(self.status))
        check_window(self)
        check_order(self.order)
        check_limit(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFilter(_Listed):
    """Selects attempts, of all jobs; every field that is set must match.

    Args:
        status: One status, or several.
        operation: The operation of the attempt's job, or several of which one must match.
        project: The project of the attempt's job, or several. There is no index for *status*,
            *operation* and *project*: a page looks at 100,000 attempts at most; see `Page.partial`.
        since: Started from this time on: a datetime with a time zone, or a `timedelta` before now.
        until: Started before this time.
        order: ``desc`` newest first (the default), ``asc`` oldest first.
        limit: Rows per page, 1–10,000; 100 by default.

    Raises:
        InvalidFilter: if a field does not accept its value.
    """

    operation: str | Sequence[str] | None = None
    project: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        # `super()` fails here, because `dataclass(slots=True)` creates a new class
        _Listed.__post_init__(self)
        _several(self, ("operation", "project"))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter(_Listed):
    """Selects jobs; every field that is set must match.

    Args:
        status: One status, or several.
        job_type, operation, owner, category, project: One value, or several of which one must
            match. The product of the numbers of values of these fields must not exceed 50.
        metadata: A mapping of paths in the metadata to values; see ``attrs`` of `LogFilter`. There
            is no index for it: a page looks at 100,000 jobs at most.
        sort: ``created`` (the default), or ``duration``: the longest first (with ``order="asc"``
            the shortest first) of the newest 100,000 matching jobs that have a duration.
        slower: Only jobs that take, or took, longer than 95 % of the last 100 jobs of their
            operation that were completed before them; see `structjob.queries.jobs.Jobs.estimate`. A
            page looks at 1,000 jobs at most, and has no ``previous_cursor``.
        text: Part of the operation or of the description.
        since: Created (see *by*) from this time on: a datetime with a time zone, or a `timedelta`
            before now.
        until: Created before this time.
        by: Whether *since* and *until* are about the time of creation (``created``, the default),
            or about the end of the latest attempt (``ended``; then only ended jobs match). The
            order stays that of creation.
        parent_job_id, root_job_id: The parent job, or the job at the top: any of its ids, a `Job`
            or a `JobRecord`.
        root_only: Only jobs without a parent, or whose parent is not in this database.
        order: ``desc`` newest first (the default), ``asc`` oldest first.
        limit: Rows per page, 1–10,000; 100 by default.

    Raises:
        InvalidFilter: if a field does not accept its value.
    """

    job_type: str | Sequence[str] | None = None
    operation: str | Sequence[str] | None = None
    owner: str | Sequence[str] | None = None
    category: str | Sequence[str] | None = None
    project: str | Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = None
    by: Literal["created", "ended"] = "created"
    sort: Sort = "created"
    slower: bool = False
    context_id: str | None = None
    external_job_id: str | None = None
    correlation_id: str | None = None
    parent_job_id: AnyJob | None = None
    root_job_id: AnyJob | None = None
    root_only: bool = False
    session_id: int | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        _Listed.__post_init__(self)  # not `super()`, as above
        for name in ("parent_job_id", "root_job_id"):
            if (job := getattr(self, name)) is not None:
                object.__setattr__(self, name, _named(job))
        _several(self, _SEVERAL_OF_JOBS)
        check_paths("metadata", self.metadata)
        if self.sort not in ("created", "duration"):
            raise InvalidFilter(f"sort must be 'created' or 'duration', not {self.sort!r}")
        if self.by not in ("created", "ended"):
            raise InvalidFilter(f"by must be 'created' or 'ended', not {self.by!r}")
        if self.slower and self.sort != "created":
            raise InvalidFilter("slower jobs come in the order of their creation: leave sort out")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFilter(Filter):
    """Selects errors by their occurrences; every field that is set must match.

    *operation*, *step* and *project* take one value, or several of which one must match.

    Args:
        status: ``open``, ``resolved`` or ``regressed``, or several of them; all by default.
        outcome: ``final``: the error ended a job. ``recovered``: a job in which it occurred
            continued. This examines all occurrences that match the other fields, so set *since* if
            there are very many.
        since: Seen from this time on: a datetime with a time zone, or a `timedelta` before now.
        until: Seen before this time.
        operation: Seen in this operation.
        step: Seen in a step with this name.
        job: Seen in this job: any of its ids, a `Job` or a `JobRecord`. Nothing is found if there
            is no such job.
        project: Seen in this project.
        limit: Maximum number of results, 1–10,000; 100 by default.

    Raises:
        InvalidFilter: if a field does not accept its value.
    """

    status: ErrorStatus | ErrorStatusName | Sequence[ErrorStatus | ErrorStatusName] | None = None
    outcome: ErrorOutcome | None = None
    since: Moment | None = None
    until: Moment | None = None
    operation: str | Sequence[str] | None = None
    step: str | Sequence[str] | None = None
    job: AnyJob | None = None
    project: str | Sequence[str] | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        check_plain(self)
        object.__setattr__(self, "status", as_statuses(self.status, ErrorStatus))
        if self.outcome is not None and self.outcome not in get_args(ErrorOutcome):
            raise InvalidFilter(
                f"unknown outcome {self.outcome!r}: use one of {', '.join(get_args(ErrorOutcome))}"
            )
        if self.job is not None:
            object.__setattr__(self, "job", _named(self.job))
        _several(self, ("operation", "step", "project"))
        check_window(self)
        check_limit(self.limit)


class LogFilterKeywords(TypedDict, total=False):
    """The fields of `LogFilter` as keywords, for type checkers."""

    job: AnyJob | Sequence[AnyJob] | None
    job_id: str | Sequence[str] | None
    attempt: int | None
    step_id: str | None
    step: str | Sequence[str] | None
    operation: str | Sequence[str] | None
    type: EventType | Sequence[EventType] | None
    kind: str | Sequence[str] | None
    level: Level | int | None
    levels: Level | Sequence[Level] | None
    stream: Stream | Sequence[Stream] | None
    logger: str | Sequence[str] | None
    source: str | Sequence[str] | None
    category: str | Sequence[str] | None
    project: str | Sequence[str] | None
    correlation_id: str | None
    correlated: bool | None
    trace_id: str | None
    session_id: int | None
    fingerprint: str | None
    since: Moment | None
    until: Moment | None
    text: str | None
    attrs: Mapping[str, Any] | None
    children: bool | None
    order: Order
    limit: int


class AttemptFilterKeywords(TypedDict, total=False):
    """The fields of `AttemptFilter` as keywords, for type checkers."""

    status: Status | Sequence[Status] | None
    since: Moment | None
    until: Moment | None
    order: Order
    limit: int
    operation: str | Sequence[str] | None
    project: str | Sequence[str] | None


class ErrorFilterKeywords(TypedDict, total=False):
    """The fields of `ErrorFilter` as keywords, for type checkers."""

    status: ErrorStatus | ErrorStatusName | Sequence[ErrorStatus | ErrorStatusName] | None
    outcome: ErrorOutcome | None
    since: Moment | None
    until: Moment | None
    operation: str | Sequence[str] | None
    step: str | Sequence[str] | None
    job: AnyJob | None
    project: str | Sequence[str] | None
    limit: int


class JobFilterKeywords(AttemptFilterKeywords, total=False):
    """The fields of `JobFilter` as keywords, for type checkers."""

    job_type: str | Sequence[str] | None
    owner: str | Sequence[str] | None
    category: str | Sequence[str] | None
    metadata: Mapping[str, Any] | None
    by: Literal["created", "ended"]
    sort: Sort
    slower: bool
    context_id: str | None
    external_job_id: str | None
    correlation_id: str | None
    parent_job_id: AnyJob | None
    root_job_id: AnyJob | None
    root_only: bool
    session_id: int | None
    text: str | None
