"""Which rows to read: filters that are checked when they are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, TypedDict, get_args

from structjob.exceptions import InvalidArgument, InvalidFilter
from structjob.levels import LEVELS, Level, level_name
from structjob.models import STREAMS, AnyJob, EventRecord, JobStatus, JobStatusName, id_of

MAX_LIMIT = 10_000
"""The most rows one page of a listing may ask for."""

Moment = datetime | timedelta
"""A time: a datetime with a time zone; a `timedelta` is that long before now."""


class Filter:
    """What the filters share: built from keywords with an error that names the unknown one."""

    __slots__ = ()

    @classmethod
    def of(cls, **filters: Any) -> Self:
        """Build the filter from keywords.

        Raises:
            InvalidFilter: if a name is not one of the fields, or a value is not one that field
                accepts.
        """
        known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # every subclass is a dataclass
        for name in filters:
            if name not in known:
                raise InvalidFilter(f"unknown filter {name!r}: use one of {', '.join(known)}")
        return cls(**filters)


def as_utc(name: str, value: Moment | None) -> datetime | None:
    """Return the time *value* of the filter *name* in UTC.

    Raises:
        InvalidFilter: if it is no time, or has no time zone.
    """
    if value is None:
        return None
    try:
        if isinstance(value, timedelta):
            return datetime.now(UTC) - abs(value)
        if isinstance(value, datetime):
            if value.utcoffset() is None:
                raise InvalidFilter(
                    f"{name} has no time zone ({value.isoformat()}): write datetime.now(UTC) for the present, "
                    f"{name}.astimezone() for a local time, {name}.replace(tzinfo=UTC) for one in UTC"
                )
            return value.astimezone(UTC)
    except OverflowError:
        raise InvalidFilter(
            f"{name} is a time before the year 1 or after 9999 ({value}): leave it out"
        ) from None
    raise InvalidFilter(
        f"{name} must be a datetime or a timedelta before now, not {type(value).__name__}"
    )


def _as_statuses(status: object) -> tuple[str, ...] | None:
    if status is None:
        return None
    if not isinstance(status, Iterable):
        raise InvalidFilter(f"status must be a status, or several, not {status!r}")
    given = (status,) if isinstance(status, str) else tuple(status)
    known = [each.value for each in JobStatus]
    for each in given:
        if each not in known:
            raise InvalidFilter(f"unknown status {each!r}: use one of {', '.join(known)}")
    return tuple(dict.fromkeys(given))  # each is read by itself: none twice


def check_plain(given: object) -> None:
    """Refuse truth values that are none, and text that no database takes."""
    for field in fields(given):  # type: ignore[arg-type]  # every filter is a dataclass
        value = getattr(given, field.name)
        if (
            field.type in ("bool", "bool | None")
            and not isinstance(value, bool)
            and not (value is None and field.default is None)
        ):
            raise InvalidFilter(f"{field.name} must be True or False, not {value!r}")
        for text in _texts(value):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidFilter(
                    f"{field.name} holds half of a surrogate pair, which no database can store: {value!r}"
                ) from None


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


MAX_VALUES = 50
"""Values that one filter takes at most."""


def values_of(value: Any) -> tuple[Any, ...]:
    """Return the values that a field of a filter holds, as a tuple."""
    return () if value is None else value if isinstance(value, tuple) else (value,)


def _several(given: Filter, names: Iterable[str]) -> None:
    """Make tuples of the fields that hold several values, each once; of one value it is
    that value.
    """
    for name in names:
        value = getattr(given, name)
        if value is None or isinstance(value, str) or not isinstance(value, Iterable):
            continue
        values = tuple(dict.fromkeys(value))
        if not 1 <= len(values) <= MAX_VALUES or not all(isinstance(one, str) for one in values):
            raise InvalidFilter(f"{name} must be text, or 1 to {MAX_VALUES} of them, not {value!r}")
        object.__setattr__(given, name, values[0] if len(values) == 1 else values)


def _check_values(name: str, value: object, known: Iterable[str]) -> None:
    for one in values_of(value):
        if one not in known:
            raise InvalidFilter(f"{name} must be one of {', '.join(known)}, not {one!r}")


def _check_paths(name: str, given: object) -> None:
    if given is not None and not isinstance(given, Mapping):
        raise InvalidFilter(
            f"{name} must be a mapping of attribute to value, not {type(given).__name__}"
        )


def _named(job: AnyJob) -> str:
    try:
        return id_of(job)
    except InvalidArgument as exc:
        raise InvalidFilter(str(exc)) from None


def check_limit(limit: int) -> None:
    """Raise `InvalidFilter` unless *limit* is a number of rows that can be asked for."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter(
            f"limit must be a whole number from 1 to {MAX_LIMIT:,}, not {limit!r}; ask for more with the page's cursors"
        )


def _check_order(order: str) -> None:
    if order not in ("asc", "desc"):
        raise InvalidFilter(
            f"order must be 'asc' (oldest first) or 'desc' (newest first), not {order!r}"
        )


def check_span(since: datetime | None, until: datetime | None) -> None:
    """Raise `InvalidFilter` if *since* is after *until*."""
    if since is not None and until is not None and since > until:
        raise InvalidFilter(
            f"since ({since.isoformat()}) is after until ({until.isoformat()}): swap them"
        )


Status = JobStatus | JobStatusName
Order = Literal["asc", "desc"]
Sort = Literal["created", "duration"]
EventType = Literal["system", "job", "task"]
Stream = Literal["stdout", "stderr", "system"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
_SEVERAL_OF_LOGS = (
    "job",
    "job_id",
    "step",
    "operation",
    "type",
    "kind",
    "level",
    "stream",
    "logger",
    "category",
    "project",
)
LOG_EQUALS = (
    "job_id",
    "attempt",
    "step_id",
    "step",
    "operation",
    "type",
    "kind",
    "stream",
    "logger",
    "category",
    "project",
    "correlation_id",
    "trace_id",
    "session_id",
    "fingerprint",
)
"""Fields of `LogFilter` that are columns of an event, which must equal one of their values."""
_SEVERAL_OF_JOBS = ("job_type", "operation", "owner", "category", "project")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter(Filter):
    """Which events to read; every field that is set must match.

    Where several values are given, one of them must match: ``level=("info", "error")``,
    ``job=("gui-1", "gui-2")``; at most 50. Several are taken by *job*, *job_id*, *level*, *type*,
    *step*, *operation*, *kind*, *stream*, *logger*, *category* and *project*.

    Indexes lead to the events of a job, a step, a correlation id, a session or an error, to those
    of a time, and to those of a category, a type or levels that are not the usual ones (category
    ``system``, type ``task``, level ``info``). A page by anything else, without one of the first
    five, looks at 100,000 events at most; see `Page.partial`.

    Args:
        job: A job: any id of it, a `Job` or a `JobRecord`. If there is no such job, reading raises
            `JobNotFound`.
        job_id: The same for code that knows the id: where no job has it, as an id of any kind,
            events are looked for by it all the same.
        children: With the events of the job's descendants (the default where a job is given), or
            without.
        level: This level or above; with ``level_exact`` this level only, and of several levels
            these only.
        type: ``system`` (no job), ``job`` (a job, no step) or ``task`` (a step).
        logger: The name given to ``structlog.get_logger``.
        source: Another name of *logger*.
        correlated: Only events with a correlation id, or (``False``) only those without one. No
            index leads to it: a page looks at 100,000 events at most.
        trace_id: The trace of OpenTelemetry or of another tracer. No index leads to it: a page
            looks at 100,000 events at most.
        since: From this moment on; a datetime with a time zone; a `timedelta` is that long before
            now.
        until: Before this moment.
        fingerprint: Occurrences of this error; see `structjob.queries.errors.Errors`.
        text: Part of the message, not a regular expression; letter case does not count (on SQLite:
            that of ASCII letters). No index leads to it: a page looks at 100,000 events at most,
            whatever else is asked for.
        attrs: Attribute path (dots go deeper) → value it must equal. Of a list, one of its items
            must: ``tags`` finds a tag, ``disks.name`` a disk. As to *text*, no index leads to it.
        order: ``asc`` oldest first, ``desc`` newest first.
        limit: Rows a page, 1–10,000.

    Raises:
        InvalidFilter: if a value is not one its field accepts.
    """

    job: AnyJob | Sequence[AnyJob] | None = None
    job_id: str | Sequence[str] | None = None
    attempt: int | None = None
    step_id: str | None = None
    step: str | Sequence[str] | None = None
    operation: str | Sequence[str] | None = None
    type: EventType | Sequence[EventType] | None = None
    kind: str | Sequence[str] | None = None
    level: Level | int | Sequence[Level] | None = None
    level_exact: bool = False
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
            given = (
                self.job
                if isinstance(self.job, Iterable) and not isinstance(self.job, str)
                else (self.job,)
            )
            # a handle or a record says which one it is, with no question asked
            live = not any(isinstance(one, str) for one in given)
            object.__setattr__(self, "job_id" if live else "job", [_named(one) for one in given])
            if live:
                object.__setattr__(self, "job", None)
        elif self.job_id is None and self.children is not None:
            raise InvalidFilter("children needs a job: whose children?")
        if self.correlation_id is not None and self.correlated is False:
            raise InvalidFilter("an event without a correlation id has none: leave correlated out")
        if self.source is not None:
            if self.logger is not None:
                raise InvalidFilter("source is another name of logger: leave one of them out")
            object.__setattr__(self, "logger", self.source)
            object.__setattr__(self, "source", None)
        if self.level is not None and not isinstance(self.level, str | int):
            object.__setattr__(self, "level", [level_name(one) for one in self.level])
            object.__setattr__(self, "level_exact", True)
        elif self.level is not None:
            object.__setattr__(self, "level", level_name(self.level))
        _several(self, _SEVERAL_OF_LOGS)
        _check_values("type", self.type, EVENT_TYPES)
        _check_values("stream", self.stream, STREAMS)
        _check_paths("attrs", self.attrs)
        object.__setattr__(self, "since", as_utc("since", self.since))
        object.__setattr__(self, "until", as_utc("until", self.until))
        check_span(self.since, self.until)  # type: ignore[arg-type]  # both are datetimes by now
        _check_order(self.order)
        check_limit(self.limit)

    def matches(self, event: EventRecord) -> bool:
        """Return whether *event* matches, as the databases decide it.

        *job* and *children* are not looked at: only a database knows the ids and the children of a
        job.
        """
        if (levels := self.levels) and event.level not in levels:
            return False
        for name in LOG_EQUALS:
            value = getattr(self, name)
            if value is not None and getattr(event, name) not in values_of(value):
                return False
        if self.correlated is not None and self.correlated is (event.correlation_id is None):
            return False
        since, until = self.since, self.until
        if since is not None and event.ts < since:  # type: ignore[operator]  # a datetime by now
            return False
        if until is not None and event.ts >= until:  # type: ignore[operator]  # a datetime by now
            return False
        if self.text is not None and self.text.casefold() not in event.message.casefold():
            return False
        return all(_has(event.attrs, path, value) for path, value in (self.attrs or {}).items())

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that match; empty where every level does."""
        if self.level is None:
            return ()
        if self.level_exact or not isinstance(self.level, str):
            return values_of(self.level)
        least = LEVELS[self.level]
        levels = tuple(name for name, number in LEVELS.items() if number >= least)
        return () if len(levels) == len(LEVELS) else levels


def _has(attrs: Mapping[str, Any], path: str, value: Any) -> bool:
    return _leads_to(attrs, path.split("."), value) or _leads_to(attrs, [path], value)


def _leads_to(found: Any, keys: Sequence[str], value: Any, *, within: bool = False) -> bool:
    """Return whether *keys* lead from *found* to *value*; one list on the way has it if one of its
    items does.
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
    """Return whether two values are equal as JSON: 1 is 1.0, but it is not true."""
    return isinstance(found, bool) == isinstance(value, bool) and bool(found == value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed(Filter):
    """What jobs and attempts have in common: a status, and a time by which they are listed."""

    status: Status | Sequence[Status] | None = None
    since: Moment | None = None
    until: Moment | None = None
    order: Order = "desc"
    limit: int = 100

    def __post_init__(self) -> None:
        check_plain(self)
        object.__setattr__(self, "status", _as_statuses(self.status))
        object.__setattr__(self, "since", as_utc("since", self.since))
        object.__setattr__(self, "until", as_utc("until", self.until))
        check_span(self.since, self.until)  # type: ignore[arg-type]  # both are datetimes by now
        _check_order(self.order)
        check_limit(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFilter(_Listed):
    """Which attempts to list, of all jobs; every field that is set must match.

    Args:
        status: One status, or several.
        operation: Of jobs of this operation.
        project: Of jobs of this project. No index leads to any of these three: a page looks at
            100,000 attempts at most; see `Page.partial`.
        since: Begun from this moment on; a datetime with a time zone; a `timedelta` is that long
            before now.
        until: Begun before this moment.
        order: ``desc`` newest first (the default), ``asc`` oldest first.
        limit: Rows a page, 1–10,000.

    Raises:
        InvalidFilter: if a value is not one its field accepts.
    """

    operation: str | None = None
    project: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter(_Listed):
    """Which jobs to list; every field that is set must match.

    Args:
        status: One status, or several.
        job_type, operation, owner, category, project: One, or several of which one must match. The
        numbers of values that are given of
            each, multiplied, may be 50 at most.
        metadata: Path in the metadata → value; see ``attrs`` of `LogFilter`. No index leads to it:
            a page looks at 100,000 jobs at most.
        sort: ``created``, the default, or ``duration``: the longest first (with ``order="asc"`` the
            shortest) of the newest 100,000 jobs that match and have a duration.
        slower: Only jobs that take, or took, longer than 95 % of the 100 jobs of their operation
            that were completed before them, as `structjob.queries.jobs.Jobs.estimate`
            says it. A page looks at 1,000 jobs at most; there is no ``previous_cursor``.
        text: Part of the operation or of the description.
        since: Created from this moment on; a datetime with a time zone; a `timedelta` is that long
            before now.
        until: Created before this moment.
        parent_job_id, root_job_id: The parent, or the job at the top: any id of it, a `Job` or a
            `JobRecord`.
        root_only: Only jobs without a parent, or whose parent is not in this database.
        order: ``desc`` newest first (the default), ``asc`` oldest first.
        limit: Rows a page, 1–10,000.

    Raises:
        InvalidFilter: if a value is not one its field accepts.
    """

    job_type: str | Sequence[str] | None = None
    operation: str | Sequence[str] | None = None
    owner: str | Sequence[str] | None = None
    category: str | Sequence[str] | None = None
    project: str | Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = None
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
        # `super()` knows no class that dataclasses made anew for its slots
        _Listed.__post_init__(self)
        for name in ("parent_job_id", "root_job_id"):
            if (job := getattr(self, name)) is not None:
                object.__setattr__(self, name, _named(job))
        _several(self, _SEVERAL_OF_JOBS)
        _check_paths("metadata", self.metadata)
        if self.sort not in ("created", "duration"):
            raise InvalidFilter(f"sort must be 'created' or 'duration', not {self.sort!r}")
        if self.slower and self.sort != "created":
            raise InvalidFilter("slower jobs come in the order of their creation: leave sort out")


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
    level: Level | int | Sequence[Level] | None
    level_exact: bool
    stream: Stream | Sequence[Stream] | None
    logger: str | Sequence[str] | None
    source: str | Sequence[str] | None
    category: str | Sequence[str] | None
    project: str | Sequence[str] | None
    correlation_id: str | None
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
    operation: str | None
    project: str | None


class JobFilterKeywords(TypedDict, total=False):
    """The fields of `JobFilter` as keywords, for type checkers."""

    status: Status | Sequence[Status] | None
    since: Moment | None
    until: Moment | None
    order: Order
    limit: int
    job_type: str | Sequence[str] | None
    operation: str | Sequence[str] | None
    owner: str | Sequence[str] | None
    category: str | Sequence[str] | None
    project: str | Sequence[str] | None
    metadata: Mapping[str, Any] | None
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
