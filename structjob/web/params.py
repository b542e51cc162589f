"""Query parameters, and the filters built from them.

An unknown parameter is refused: a misspelled filter must not show everything.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

import msgspec
from fastapi import Query as Parameters
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import QueryParams
from starlette.requests import Request

from structjob.decoding import NOT_JSON
from structjob.filters import AttemptFilter, JobFilter, LogFilter, make_filter
from structjob.text.spans import span
from structjob.text.wording import did_you_mean
from structjob.web.problems import Refused


def _moment(text: str) -> datetime:
    """Parse a time: RFC 3339 with its zone, or an age."""
    try:
        ago = span(text)
        if ago is not None:
            return datetime.now(UTC) - ago
        read = datetime.fromisoformat(text.replace(" ", "+") if text.count(" ") == 1 else text)
        if read.tzinfo is not None:
            return read.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"{text!r} is not a time: write RFC 3339 with a zone (2026-11-28T12:03:22.184Z), or how long ago (-3h)"
    )


def _span(text: str) -> timedelta:
    found = span(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration: write 15m, 1h or 7d")
    return found


def _flag(text: Any) -> Any:
    return {"1": True, "0": False, "true": True, "false": False}.get(text, text)


def _separate(values: Any) -> Any:
    """Split values at commas."""
    given = values if isinstance(values, list) else [values]
    return [part for value in given if isinstance(value, str) for part in value.split(",")]


Moment = Annotated[str, AfterValidator(_moment)]
Span = Annotated[str, AfterValidator(_span)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Several = Annotated[list[str], BeforeValidator(_separate)]

SINCE = Field(
    default=None,
    description="From this moment on: RFC 3339, or how long ago.",
    examples=["-3h", "2026-11-28T12:03:22.184Z"],
)
UNTIL = Field(default=None, description="Before this moment: RFC 3339, or how long ago.")
CURSOR = Field(default=None, description="`next_cursor` or `previous_cursor` of a page of the same query.")  # fmt: skip
LIMIT = Field(default=100, ge=1, le=10_000, description="Rows a page.")
BUCKET = Field(default="1h", validate_default=True, description="How long a stretch is.", examples=["15m"])  # fmt: skip
ORDER = Field(description="`asc` oldest first, `desc` newest first.")


T = TypeVar("T")

Asked = Annotated[T, Parameters()]
"""The parameters of a route, for its argument ``query``."""

UNKNOWN = "unknown_parameter"
"""The error type of an unknown parameter, for models that accept extra ones."""


class Query(BaseModel):
    """Parameters of one route."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if not cls.knows(name):
                raise PydanticCustomError(
                    UNKNOWN,
                    "there is no parameter {parameter} here{hint}",
                    {"parameter": name, "hint": cls._hint(name)},
                )
        return given

    @classmethod
    def knows(cls, name: str) -> bool:
        """Return whether there is such a parameter."""
        return name in cls.model_fields

    @classmethod
    def _hint(cls, name: str) -> str:
        return did_you_mean(name, cls.model_fields)

    @classmethod
    def check_once(cls, given: QueryParams) -> None:
        """Refuse a parameter of one value that is given twice, because one of them would not count.

        Raises:
            Refused: with 400.
        """
        for name, number in Counter(name for name, _ in given.multi_items()).items():
            field = cls.model_fields.get(name)
            several = field is not None and "list[str]" in str(field.annotation)
            if number > 1 and not several and cls.knows(name):
                raise Refused(400, f"{name} is given more than once: give it once", parameter=name)

    def given(self, *leave_out: str) -> dict[str, Any]:
        """Return the given parameters, by name."""
        return {
            name: getattr(self, name)
            for name in self.model_fields_set
            if name not in leave_out and getattr(self, name) is not None
        }


async def once(request: Request) -> None:
    """Refuse a repeated parameter, before any route is called; see `Query.check_once`."""
    if (query := _query_of(request.scope["route"].endpoint)) is not None:
        query.check_once(request.query_params)


@cache
def _query_of(endpoint: Callable[..., Any]) -> type[Query] | None:
    """Return the model of a route's parameters."""
    query = inspect.signature(endpoint, eval_str=True).parameters.get("query")
    return None if query is None else get_args(query.annotation)[0]


class NoQuery(Query):
    """No parameters."""


class PathQuery(Query):
    """Parameters that include paths of one JSON column, as ``PREFIX.PATH=VALUE``."""

    model_config = ConfigDict(extra="allow")

    prefix: ClassVar[str]

    @classmethod
    def knows(cls, name: str) -> bool:
        return super().knows(name) or (name.startswith(cls.prefix) and name != cls.prefix)

    @classmethod
    def _hint(cls, name: str) -> str:
        return super()._hint(name) or f"; {cls.prefix}NAME=VALUE looks into the JSON"

    def given(self, *leave_out: str) -> dict[str, Any]:
        return super().given(*leave_out, *(self.model_extra or {}))

    def paths(self) -> dict[str, Any]:
        """Return the given parameters of the JSON column: path → value."""
        return {
            name.removeprefix(self.prefix): _value(one[-1] if isinstance(one, list) else one)
            for name, one in (self.model_extra or {}).items()
        }


class JobMatch(PathQuery):
    """Filter of jobs: the fields of `structjob.JobFilter`, without page and order.

    Also accepts ``metadata.PATH=VALUE``.
    """

    prefix = "metadata."

    status: Several | None = Field(default=None, examples=[["failed", "crashed"]])
    job_type: Several | None = None
    operation: Several | None = Field(default=None, examples=[["vm-migrate"]])
    owner: Several | None = None
    category: Several | None = None
    project: Several | None = None
    context_id: str | None = None
    external_job_id: str | None = None
    correlation_id: str | None = None
    parent_job_id: str | None = Field(default=None, description="Any id of the parent.")
    root_job_id: str | None = Field(default=None, description="Any id of the job at the top.")
    session_id: int | None = Field(default=None, ge=0, le=2**63 - 1)
    root_only: Flag | None = Field(default=None, description="Only jobs without a parent.")
    root: Flag | None = Field(default=None, description="Short for `root_only`.")
    text: str | None = Field(default=None, description="Part of the operation or description.")
    q: str | None = Field(default=None, description="Short for `text`.")
    by: Literal["created", "ended"] | None = Field(
        default=None,
        description="Whether `since` and `until` are about the creation (the default) or the end.",
    )
    since: Moment | None = SINCE
    until: Moment | None = UNTIL

    def filter(self) -> JobFilter:
        """Return the filter.

        Raises:
            InvalidFilter: if a value is refused.
        """
        values = self.given("cursor", "q", "root")
        if self.q is not None:
            values.setdefault("text", self.q)
        if self.root is not None:
            values.setdefault("root_only", self.root)
        if paths := self.paths():
            values["metadata"] = paths
        return make_filter(JobFilter, **values)


class JobQuery(JobMatch):
    """Parameters of a list of jobs."""

    sort: Literal["created", "duration"] | None = None
    slower: Flag | None = Field(default=None, description="Only jobs slower than usual.")
    order: Literal["asc", "desc"] = Field(default="desc", description=ORDER.description)
    limit: int = LIMIT
    cursor: str | None = CURSOR


class AttemptQuery(Query):
    """Parameters of a list of attempts; see `structjob.AttemptFilter`."""

    status: Several | None = None
    operation: Several | None = None
    project: Several | None = None
    since: Moment | None = SINCE
    until: Moment | None = UNTIL
    order: Literal["asc", "desc"] = Field(default="desc", description=ORDER.description)
    limit: int = LIMIT
    cursor: str | None = CURSOR

    def filter(self) -> AttemptFilter:
        """Return the filter.

        Raises:
            InvalidFilter: if a value is refused.
        """
        return make_filter(AttemptFilter, **self.given("cursor"))


class LogMatch(PathQuery):
    """Filter of events: the fields of `structjob.LogFilter`, without page and order.

    Also accepts ``attr.PATH=VALUE``.
    """

    prefix = "attr."

    job: Several | None = Field(default=None, description="Any id of a job, or several.")
    job_id: Several | None = Field(default=None, description="The id of a job, or several.")
    children: Flag | None = Field(default=None, description="With the jobs below `job` (default).")
    attempt: int | None = Field(default=None, ge=0, le=2**31 - 1)
    step_id: str | None = None
    step: Several | None = None
    operation: Several | None = None
    type: Several | None = Field(default=None, description="`system`, `job`, `task`.")
    kind: Several | None = None
    level: str | None = Field(
        default=None, description="This level or above.", examples=["warning"]
    )
    levels: Several | None = Field(
        default=None, description="These levels only.", examples=[["info", "error"]]
    )
    stream: Several | None = Field(default=None, description="`stdout`, `stderr`, `system`.")
    logger: Several | None = None
    source: Several | None = Field(default=None, description="Another name of `logger`.")
    category: Several | None = None
    project: Several | None = None
    correlation_id: str | None = None
    correlated: Flag | None = Field(
        default=None, description="Only with a correlation id, or only without."
    )
    trace_id: str | None = None
    session_id: int | None = Field(default=None, ge=0, le=2**63 - 1)
    fingerprint: str | None = None
    text: str | None = Field(default=None, description="Part of the message.")
    q: str | None = Field(default=None, description="Short for `text`.")
    since: Moment | None = SINCE
    until: Moment | None = UNTIL

    def values(self, *leave_out: str) -> dict[str, Any]:
        """Return the given fields of a `LogFilter`."""
        found = self.given("q", *leave_out)
        if self.q is not None:
            found.setdefault("text", self.q)
        if paths := self.paths():
            found["attrs"] = paths
        return found


class LogQuery(LogMatch):
    """Parameters of a page of events."""

    order: Literal["asc", "desc"] = Field(default="asc", description=ORDER.description)
    limit: int = LIMIT
    cursor: str | None = CURSOR
    start: str | None = Field(
        default=None, description="Begin with this event, SESSION:SEQ.", examples=["4711:12"]
    )

    def filter(self) -> LogFilter:
        """Return the filter.

        Raises:
            InvalidFilter: if a value is refused.
        """
        return make_filter(LogFilter, **self.values("cursor", "start"))


def _value(text: str) -> Any:
    """Return *text* as a JSON value if it is one, or else as text.

    ``attr.n=3`` finds the number, ``attr.n="3"`` the text.
    """
    try:
        found = msgspec.json.decode(text)
    except NOT_JSON:
        return text
    return text if isinstance(found, dict | list) else found
