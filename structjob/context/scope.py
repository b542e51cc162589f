"""The scope: the job, step and correlation id of the running code, in one `ContextVar`.

A scope renders its ids once, when a job or step is entered; a log call only copies bytes. A scope
changes only if its job or step was left in a different context from the one where it was entered,
see `Entry`.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import InitVar, dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from structjob.process import on_reset
from structjob.values.encoding import encode_fields

Bound = TypeVar("Bound")

ENVIRONMENT = "STRUCTJOB_"
"""Prefix of the environment variables that carry a scope to a child process."""


class Recording(Protocol):
    """The interface of a recorder, which takes the events of a scope."""

    level: int
    closed: bool

    @property
    def session(self) -> Any:
        """The session that its events belong to."""

    def put(self, body: bytes, level: int) -> object:
        """Number an event and record it."""

    def put_all(self, bodies: list[bytes], level: int) -> object:
        """Number events and record them together."""


class LiveStep(Protocol):
    """What a scope needs from its step."""

    @property
    def id(self) -> str: ...
    @property
    def ended(self) -> bool: ...


class LiveJob(Protocol):
    """What a scope needs from its job."""

    @property
    def id(self) -> str: ...
    @property
    def ended(self) -> bool: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def project(self) -> str | None: ...
    @property
    def classifier(self) -> Callable[[BaseException], Mapping[str, Any]] | None: ...


@dataclass(slots=True, weakref_slot=True, kw_only=True, eq=False, repr=False)
class Scope:
    """The job, step and ids that the running code belongs to; created by jobs and steps.

    Attributes:
        recorder: The recorder of its events.
        job: The live job handle; ``None`` in a scope from outside (another process, a request).
        step: The live step handle, if any.
        root_job_id: The job at the top of the tree that *job_id* belongs to; ``None`` if it is
            unknown.
        owner: The owner of a job in another process, if it is known.
        database: The identity of the database that has the job, if it is known.
        outer: The scope that was current when this one was entered.
        followers: The scopes that became equal to this one.
        ids: The ids that console and files show. They and *shown* are made when they are read
            first, because many programs show nothing.
        columns: The columns for the database, as a piece of JSON that begins with a comma (or is
            empty).
        shown: *ids* as a piece of JSON that begins with a comma (or is empty).
        rendered: A cache of *shown*, ``None`` until that is first read; a log call reads it faster
            than the property.
        bound: Fields that every event of the job gets; the same `dict` in all of its scopes.
    """

    recorder: Recording | None = None
    job: LiveJob | None = None
    step: LiveStep | None = None
    job_id: str | None = None
    attempt: int | None = None
    operation: str | None = None
    parent_job_id: str | None = None
    step_id: str | None = None
    step_name: InitVar[str | None] = None
    correlation_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    trace_flags: str | None = None
    tracestate: str | None = None
    category: InitVar[str | None] = None
    project: InitVar[str | None] = None
    provisional: InitVar[str | None] = None
    root_job_id: str | None = None
    owner: str | None = None
    database: str | None = None
    bound: dict[str, Any] | None = None
    outer: Scope | None = field(init=False)
    followers: weakref.WeakSet[Scope] | None = field(init=False)
    column_values: dict[str, str | int] = field(init=False)
    columns: bytes = field(init=False)
    _ids: dict[str, str] | None = field(init=False)
    rendered: bytes | None = field(init=False)

    def __post_init__(
        self,
        step_name: str | None,
        category: str | None,
        project: str | None,
        provisional: str | None,
    ) -> None:
        self.outer = self.followers = self._ids = self.rendered = None
        columns = {
            "job_id": self.job_id,
            "attempt": self.attempt,
            "step_id": self.step_id,
            "operation": self.operation,
            "step": step_name,
            "correlation_id": self.correlation_id,
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "category": category,
            "project": project,
            "provisional": provisional,  # not a column: see `structjob.store.provisional`
        }
        self.column_values = {key: value for key, value in columns.items() if value is not None}
        self.columns = json_fields(self.column_values)

    @property
    def ids(self) -> dict[str, str]:
        """The ids that console and files show."""
        # Not made by `__getattr__`: with it, Python reads each attribute of a class in a slow way.
        if self._ids is None:
            ids = {key: getattr(self, key) for key in _SHOWN}
            self._ids = {key: value for key, value in ids.items() if value is not None}
        return self._ids

    @property
    def shown(self) -> bytes:
        """*ids* as a piece of JSON that begins with a comma (or is empty)."""
        if self.rendered is None:
            self.rendered = json_fields(self.ids)
        return self.rendered

    @property
    def labels(self) -> dict[str, str | None]:
        """The owner and project that a child job inherits."""
        if self.job is not None:
            return {"owner": self.job.owner, "project": self.job.project}
        project = self.column_values.get("project")
        return {"owner": self.owner, "project": None if project is None else str(project)}

    @property
    def ended(self) -> bool:
        """Whether its job or step has ended."""
        handle = self.step or self.job
        return handle is not None and handle.ended

    def end_step(self) -> None:
        """Refer to its step, which has ended, no longer."""
        self.step = _ENDED

    def belongs_to(self, other: Scope) -> bool:
        """Whether it is the scope of the same job or step as *other*, or of a step of that job."""
        return (
            self.job is not None
            and self.job is other.job
            and (other.step is None or self.step is other.step)
        )

    def copied(self) -> Scope:
        """Return an equal scope."""
        copy = Scope.__new__(Scope)
        copy.become(self)
        return copy

    def correlated(self, correlation_id: str) -> Scope:
        """Return an equal scope with another correlation id."""
        copy = self.copied()
        copy.correlation_id = correlation_id
        copy.column_values = {**self.column_values, "correlation_id": correlation_id}
        copy.columns = json_fields(copy.column_values)
        return copy

    def within(self, step: str) -> Scope:
        """Return an equal scope whose events name a *step* that has no row of its own."""
        copy = self.copied()
        copy.column_values = {**self.column_values, "step": step}
        copy.columns = json_fields(copy.column_values)
        return copy

    def elsewhere(self) -> Scope:
        """Return an equal scope for a database that does not have the job.

        Events there carry the correlation id and the trace. Rows that name a missing job would look
        like a loss.
        """
        copy = self.copied()
        copy.column_values = {
            name: value for name, value in self.column_values.items() if name not in _OF_JOB
        }
        copy.columns = json_fields(copy.column_values)
        return copy

    def give_up(self, outer: Scope | None) -> Scope:
        """Become equal to *outer*, and follow its later changes, wherever this scope is still
        current.

        Returns:
            A copy of the former scope.
        """
        former, outer = self.copied(), Scope() if outer is None else outer
        followers = [self, *(self.followers or ())]
        for scope in followers:
            scope.become(outer)
        outer.followers = outer.followers or weakref.WeakSet()
        outer.followers.update(followers)
        return former

    def become(self, other: Scope) -> None:
        """Take the values of *other*."""
        for name in _COPIED:
            setattr(self, name, getattr(other, name))
        self._ids = self.rendered = self.followers = None


class _Ended:
    """What a scope has in place of a step that has ended."""

    id = ""
    ended = True


_ENDED = _Ended()

_OF_JOB = ("job_id", "attempt", "step_id", "operation", "step", "provisional")
"""The columns of an event that name its job and step."""

_SHOWN = ("job_id", "parent_job_id", "step_id", "correlation_id", "trace_id", "span_id")
"""The ids that are shown, in their order."""

_COPIED = [
    name for name in Scope.__slots__ if name not in ("__weakref__", "_ids", "followers", "rendered")
]


def json_fields(values: Mapping[str, str | int]) -> bytes:
    """Return ``,"key":value`` for each of *values*."""
    return b"," + encode_fields(values)[1:-1] if values else b""


SCOPE: ContextVar[Scope | None] = ContextVar("structjob_scope", default=None)
"""The variable itself, to read it in the context of another task."""

current_scope = SCOPE.get
"""Return the `Scope` of the running code, or ``None``."""
enter_scope = SCOPE.set
"""Make a `Scope` (or ``None``) the current one.

The caller must restore the former one: a token may belong to another context.
"""


def _isolate() -> Callable[[], object]:
    scope = current_scope()
    enter_scope(None)
    return lambda: enter_scope(scope)


on_reset(lambda: enter_scope(None), _isolate)


def new_id() -> str:
    """Return a new UUIDv7: ids that sort by time keep the indexes compact."""
    # RFC 9562, section 5.7: 48 bits of Unix milliseconds, then version, variant and randomness.
    ms, random = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10).hex()
    return f"{ms[:8]}-{ms[8:]}-7{random[:3]}-{_VARIANTS[random[3]]}{random[4:7]}-{random[7:19]}"


_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The digit with the variant of a UUID and two random bits, by a random digit."""


class Entry:
    """A scope that is current until it is left.

    Usually it is left in the context where it was entered, and the former scope becomes current
    again. There are two other cases. An async generator that is left early (by ``break``) is closed
    later, by a task of its own: the scope of a job or step in it would remain the scope of its
    caller permanently. A generator that its caller closes may have been entered before another job
    or step that still runs. In these cases the scope itself becomes equal to the nearest outer
    scope that has not ended. Therefore log calls need not check whether their scope has ended.

    A signal handler may raise an exception anywhere, so keep the entry before you call `enter`.

    Args:
        scope: The scope that `enter` makes current.
    """

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        scope.outer = SCOPE.get()
        self._scope = scope
        self._token: Token[Scope | None] | None = None

    def enter(self) -> None:
        """Make the scope current."""
        self._token = SCOPE.set(self._scope)

    def leave(self) -> Scope:
        """Make the former scope current; return the scope as it was entered.

        Call this when the job or step has ended.
        """
        own, current, outer = self._scope, SCOPE.get(), _running(self._scope.outer)
        if current is own:
            try:
                if self._token is not None:  # otherwise `enter` was interrupted
                    SCOPE.reset(self._token)
            except ValueError:  # another context
                SCOPE.set(outer)
            else:
                if self._token is None or outer is not own.outer:
                    SCOPE.set(outer)
                return own
        # A current scope that has ended, or belongs to this one, is left too. Any other one stays
        # current.
        elif current is not None and (current.ended or current.belongs_to(own)):
            SCOPE.set(outer)
        return own.give_up(outer)


def _running(scope: Scope | None) -> Scope | None:
    """Return *scope*, or the nearest outer scope that has not ended."""
    while scope is not None and scope.ended:
        scope = scope.outer
    return scope


class Binding(Generic[Bound]):
    """A scope for a ``with`` block.

    This is not a generator with `contextlib.contextmanager`: that assigns ``__traceback__``, which
    fails for an exception that is a frozen dataclass, and so replaces the exception of the block.

    Args:
        scope: The scope of the block; ``None`` keeps the current scope.
        value: The value for ``as``.
    """

    __slots__ = ("_entries", "_scope", "_value")

    def __init__(self, scope: Scope | None, value: Bound) -> None:
        self._scope = scope
        self._value = value
        self._entries: list[Entry | None] = []

    def __enter__(self) -> Bound:
        # A copy, which ends with the block; the original scope continues.
        entry = None if self._scope is None else Entry(self._scope.copied())
        self._entries.append(entry)
        if entry is not None:
            try:  # a signal handler may raise where a call begins or ends
                entry.enter()
            except BaseException as exc:
                self.__exit__(type(exc), exc, None)
                raise
        return self._value

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        entry = self._entries.pop()
        if entry is not None:
            entry.leave()
