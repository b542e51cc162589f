"""Which rows to read: filters that are checked when they are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from structjob.exceptions import InvalidArgument, InvalidFilter
from structjob.levels import level_name
from structjob.models import STREAMS, AnyJob, JobStatus, id_of

MAX_LIMIT = 10_000
"""The most rows one page of a listing may ask for."""


class _Filter:
    """What the filters share: built from keywords with an error that names the unknown one."""

    __slots__ = ()

    @classmethod
    def of(cls, **filters: Any) -> Self:
        """Build the filter from keywords.

        Raises:
            InvalidFilter: if a name is not one of the fields, or a value is not one that field accepts.
        """
        known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # every subclass is a dataclass
        for name in filters:
            if name not in known:
                raise InvalidFilter(f"unknown filter {name!r}: use one of {', '.join(known)}")
        return cls(**filters)


def _as_utc(name: str, value: datetime | timedelta | None) -> datetime | None:
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
        raise InvalidFilter(f"{name} is a time before the year 1 or after 9999 ({value}): leave it out") from None
    raise InvalidFilter(f"{name} must be a datetime or a timedelta before now, not {type(value).__name__}")


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


def _check_plain(given: object) -> None:
    """Refuse truth values that are none, and text that no database takes."""
    for field in fields(given):  # type: ignore[arg-type]  # every filter is a dataclass
        value = getattr(given, field.name)
        if field.type in ("bool", "bool | None") and not isinstance(value, bool) and not (value is None and field.default is None):
            raise InvalidFilter(f"{field.name} must be True or False, not {value!r}")
        for text in _texts(value):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidFilter(f"{field.name} holds half of a surrogate pair, which no database can store: {value!r}") from None


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


def _named(job: AnyJob) -> str:
    try:
        return id_of(job)
    except InvalidArgument as exc:
        raise InvalidFilter(str(exc)) from None


def _check_limit(limit: int) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter(f"limit must be a whole number from 1 to {MAX_LIMIT:,}, not {limit!r}; ask for more with the page's cursors")


def _check_order(order: str) -> None:
    if order not in ("asc", "desc"):
        raise InvalidFilter(f"order must be 'asc' (oldest first) or 'desc' (newest first), not {order!r}")


def _check_span(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since > until:
        raise InvalidFilter(f"since ({since.isoformat()}) is after until ({until.isoformat()}): swap them")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter(_Filter):
    """Which events to read; every field that is set must match.

    Indexes lead to the events of a job, a step, a correlation id, a session or an error, and to those of a category, a type, levels or a
    time. A page by anything else, without one of the first five, looks at 100,000 events at most; see `Page.partial`.

    Args:
        job: A job: any id of it, a `Job` or a `JobRecord`. If there is no such job, reading raises `JobNotFound`.
        job_id: The same for code that knows the id: where no job has it, as an id of any kind, events are looked for by it all the same.
        children: With the events of the job's descendants (the default where a job is given), or without.
        level: This level or above; with ``level_exact`` this level only.
        type: ``system`` (no job), ``job`` (a job, no step) or ``task`` (a step).
        logger: The name given to ``structlog.get_logger`` (the source).
        since: From this moment on; a datetime with a time zone; a `timedelta` is that long before now.
        until: Before this moment.
        fingerprint: Occurrences of this error; see `structjob.store.errors.Errors`.
        text: Part of the message, not a regular expression; letter case does not count (on SQLite: that of ASCII letters). No index
            leads to it: a page looks at 100,000 events at most, whatever else is asked for.
        attrs: Attribute path (dots go deeper) → value it must equal; as *text*, no index leads to it.
        order: ``asc`` oldest first, ``desc`` newest first.
        limit: Rows a page, 1–10,000.

    Raises:
        InvalidFilter: if a value is not one its field accepts.
    """

    job: AnyJob | None = None
    job_id: str | None = None
    attempt: int | None = None
    step_id: str | None = None
    step: str | None = None
    operation: str | None = None
    type: Literal["system", "job", "task"] | None = None
    kind: str | None = None
    level: str | None = None
    level_exact: bool = False
    stream: Literal["stdout", "stderr", "system"] | None = None
    logger: str | None = None
    category: str | None = None
    project: str | None = None
    correlation_id: str | None = None
    session_id: int | None = None
    fingerprint: str | None = None
    since: datetime | timedelta | None = None
    until: datetime | timedelta | None = None
    text: str | None = None
    attrs: Mapping[str, Any] | None = None
    children: bool | None = None
    order: Literal["asc", "desc"] = "asc"
    limit: int = 100

    def __post_init__(self) -> None:
        _check_plain(self)
        if self.job is not None:
            if self.job_id is not None:
                raise InvalidFilter("job and job_id both name a job: leave one of them out")
            if not isinstance(self.job, str):
                object.__setattr__(self, "job_id", _named(self.job))
                object.__setattr__(self, "job", None)
        elif self.job_id is None and self.children is not None:
            raise InvalidFilter("children needs a job: whose children?")
        if self.level is not None:
            object.__setattr__(self, "level", level_name(self.level))
        if self.type not in (None, "system", "job", "task"):
            raise InvalidFilter(f"type must be system, job or task, not {self.type!r}")
        if self.attrs is not None and not isinstance(self.attrs, Mapping):
            raise InvalidFilter(f"attrs must be a mapping of attribute to value, not {type(self.attrs).__name__}")
        if self.stream not in (None, *STREAMS):
            raise InvalidFilter(f"stream must be stdout, stderr or system, not {self.stream!r}")
        object.__setattr__(self, "since", _as_utc("since", self.since))
        object.__setattr__(self, "until", _as_utc("until", self.until))
        _check_span(self.since, self.until)  # type: ignore[arg-type]  # both are datetimes by now
        _check_order(self.order)
        _check_limit(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed(_Filter):
    """What jobs and attempts have in common: a status, and a time by which they are listed."""

    status: str | Sequence[str] | None = None
    since: datetime | timedelta | None = None
    until: datetime | timedelta | None = None
    order: Literal["asc", "desc"] = "desc"
    limit: int = 100

    def __post_init__(self) -> None:
        _check_plain(self)
        object.__setattr__(self, "status", _as_statuses(self.status))
        object.__setattr__(self, "since", _as_utc("since", self.since))
        object.__setattr__(self, "until", _as_utc("until", self.until))
        _check_span(self.since, self.until)  # type: ignore[arg-type]  # both are datetimes by now
        _check_order(self.order)
        _check_limit(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFilter(_Listed):
    """Which attempts to list, of all jobs; every field that is set must match.

    Args:
        status: One status, or several. No index leads to it: a page looks at 100,000 attempts at most; see `Page.partial`.
        since: Begun from this moment on; a datetime with a time zone; a `timedelta` is that long before now.
        until: Begun before this moment.
        order: ``desc`` newest first (the default), ``asc`` oldest first.
        limit: Rows a page, 1–10,000.

    Raises:
        InvalidFilter: if a value is not one its field accepts.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter(_Listed):
    """Which jobs to list; every field that is set must match.

    Args:
        status: One status, or several.
        text: Part of the operation or of the description.
        since: Created from this moment on; a datetime with a time zone; a `timedelta` is that long before now.
        until: Created before this moment.
        parent_job_id, root_job_id: Any id of the parent, or of the job at the top.
        root_only: Only jobs without a parent, or whose parent is not in this database.
        order: ``desc`` newest first (the default), ``asc`` oldest first.
        limit: Rows a page, 1–10,000.

    Raises:
        InvalidFilter: if a value is not one its field accepts.
    """

    job_type: str | None = None
    operation: str | None = None
    owner: str | None = None
    category: str | None = None
    project: str | None = None
    context_id: str | None = None
    external_job_id: str | None = None
    correlation_id: str | None = None
    parent_job_id: str | None = None
    root_job_id: str | None = None
    root_only: bool = False
    session_id: int | None = None
    text: str | None = None
