"""The scope: which job, step and correlation id the running code belongs to. One `ContextVar`
carries it.

A scope renders its ids once, when a job or step is entered; a log call only copies bytes. It
changes only when its job or step was left in another context than it was entered in, see `Entry`.
"""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Iterable, Mapping, MutableMapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from structjob.context.errors import annotate, is_noted
from structjob.machine.clock import moment
from structjob.process import on_reset
from structjob.values.encoding import encode_attrs, normalise
from structjob.values.redaction import identified, labelled

if TYPE_CHECKING:
    from structjob.lifecycle import Job, Step
    from structjob.spool.recorder import Recorder

Carrier = TypeVar("Carrier", bound=MutableMapping[str, str])
Bound = TypeVar("Bound")
E = TypeVar("E", bound=BaseException)

ENVIRONMENT = "STRUCTJOB_"
"""What the names of the environment variables begin with that carry a scope to a child process."""

# W3C Trace Context: all zeros and version ff are invalid; of a version above 00, what follows is
# for those who know it.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_MAX_TRACESTATE, _MAX_MEMBERS = 512, 32
"""Characters and members of a ``tracestate`` that are passed on; one that has more is left out as a
whole.
"""
_FIELDS = (
    "JOB_ID",
    "STEP_ID",
    "ATTEMPT",
    "OPERATION",
    "CORRELATION_ID",
    "ROOT_JOB_ID",
    "PROVISIONAL",
    "PROJECT",
    "OWNER",
)
_OF_SCOPE = frozenset({*(ENVIRONMENT + name for name in _FIELDS), "TRACEPARENT", "TRACESTATE"})
"""Environment variables that say which scope a process belongs to."""
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Scope:
    """Where the running code belongs; made by jobs and steps.

    Attributes:
        recorder: Where its events go.
        job: The live job handle, ``None`` in a scope that came from outside (another process, a
            request).
        step: The live step handle, if any.
        root_job_id: The job at the top of the tree that *job_id* belongs to; ``None`` where nobody
            has told.
        owner: The owner of a job in another process, where that told it.
        outer: The scope that was current when this one was entered.
        ids: What the console and files show of it.
        columns: The same for the database, as a piece of JSON that begins with a comma (or is
            empty).
        shown: *ids* as a piece of JSON that begins with a comma (or is empty).
    """

    __slots__ = (
        "__weakref__",
        "_followers",
        "attempt",
        "column_values",
        "columns",
        "correlation_id",
        "ids",
        "job",
        "job_id",
        "operation",
        "outer",
        "owner",
        "parent_job_id",
        "recorder",
        "root_job_id",
        "shown",
        "step",
        "step_id",
        "trace_flags",
        "tracestate",
    )

    def __init__(
        self,
        *,
        recorder: Recorder | None = None,
        job: Job | None = None,
        step: Step | None = None,
        job_id: str | None = None,
        attempt: int | None = None,
        operation: str | None = None,
        parent_job_id: str | None = None,
        step_id: str | None = None,
        step_name: str | None = None,
        correlation_id: str | None = None,
        trace_id: str | None = None,
        span_id: str | None = None,
        trace_flags: str | None = None,
        tracestate: str | None = None,
        category: str | None = None,
        project: str | None = None,
        provisional: str | None = None,
        root_job_id: str | None = None,
        owner: str | None = None,
    ) -> None:
        self.recorder = recorder
        self.job = job
        self.step = step
        self.outer: Scope | None = None
        self._followers: weakref.WeakSet[Scope] | None = None
        self.job_id = job_id
        self.attempt = attempt
        self.operation = operation
        self.parent_job_id = parent_job_id
        self.root_job_id = root_job_id
        self.owner = owner
        self.step_id = step_id
        self.correlation_id = correlation_id
        self.trace_flags = trace_flags
        self.tracestate = tracestate
        shown = {
            "job_id": job_id,
            "parent_job_id": parent_job_id,
            "step_id": step_id,
            "correlation_id": correlation_id,
            "trace_id": trace_id,
            "span_id": span_id,
        }
        self.ids: dict[str, str] = {key: value for key, value in shown.items() if value is not None}
        self.shown = json_fields(self.ids)
        columns = {
            "job_id": job_id,
            "attempt": attempt,
            "step_id": step_id,
            "operation": operation,
            "step": step_name,
            "correlation_id": correlation_id,
            "trace_id": trace_id,
            "span_id": span_id,
            "category": category,
            "project": project,
            "provisional": provisional,  # no column: see `structjob.store.settling`
        }
        self.column_values: dict[str, str | int] = {
            key: value for key, value in columns.items() if value is not None
        }
        self.columns = json_fields(self.column_values)

    @property
    def labels(self) -> dict[str, str | None]:
        """What a job below it inherits: its owner and its project."""
        if self.job is not None:
            return {"owner": self.job.owner, "project": self.job.project}
        project = self.column_values.get("project")
        return {"owner": self.owner, "project": None if project is None else str(project)}

    @property
    def ended(self) -> bool:
        """Whether its job or step has ended."""
        handle = self.step or self.job
        return handle is not None and handle.ended

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
        copy._become(self)
        return copy

    def give_up(self, outer: Scope | None) -> Scope:
        """Be like *outer* from now on, and like what that becomes, wherever this scope is current
        still; return what it was.
        """
        former, outer = self.copied(), Scope() if outer is None else outer
        followers = [self, *(self._followers or ())]
        for scope in followers:
            scope._become(outer)
        outer._followers = outer._followers or weakref.WeakSet()
        outer._followers.update(followers)
        return former

    def _become(self, other: Scope) -> None:
        for name in _COPIED:
            setattr(self, name, getattr(other, name))
        self._followers = None


_COPIED = [name for name in Scope.__slots__ if not name.startswith("_")]


def json_fields(values: Mapping[str, str | int]) -> bytes:
    """Return ``,"key":value`` for each of *values*."""
    return b"," + encode_attrs(dict(values))[1:-1] if values else b""


_scope: ContextVar[Scope | None] = ContextVar("structjob_scope", default=None)

current_scope = _scope.get
"""Return the `Scope` of the running code, or ``None``."""
enter_scope = _scope.set
"""Make a `Scope` (or ``None``) the current one. Whoever enters puts the former one back: a token
may belong to another context.
"""

on_reset(lambda: enter_scope(None))


def current_job() -> Job | None:
    """Return the live job that the running code belongs to, or ``None``."""
    scope = _scope.get()
    return scope.job if scope is not None else None


def current_step() -> Step | None:
    """Return the live step that the running code belongs to, or ``None``."""
    scope = _scope.get()
    return scope.step if scope is not None else None


def new_id() -> str:
    """Return a fresh UUIDv7: ids that sort by time keep the indexes compact."""
    # RFC 9562, section 5.7: 48 bits of Unix milliseconds, then version, variant and randomness.
    random = int.from_bytes(os.urandom(10))
    text = f"{time.time_ns() // 1_000_000:012x}7{random >> 68:03x}{random >> 4 & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Entry:
    """A scope that is current until it is left.

    It is left where it was entered, most often: then the former one is current again. An async
    generator that is left early (by ``break``) is closed later on, by a task of its own: the scope
    of a job or step in it would remain that of its caller, for ever. And one that its caller closes
    may have been entered before another job or step that still runs. Then the scope itself becomes
    like the nearest one around it that has not ended. So log calls need not ask whether their scope
    has ended.

    Args:
        scope: The scope to make current.
    """

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        scope.outer = _scope.get()
        self._scope = scope
        self._token: Token[Scope | None] = _scope.set(scope)

    def leave(self) -> Scope:
        """Make the former scope current; return the scope as it was entered. To be called when the
        job or step has ended.
        """
        own, current, outer = self._scope, _scope.get(), _running(self._scope.outer)
        if current is own:
            try:
                _scope.reset(self._token)
            except ValueError:  # another context
                _scope.set(outer)
            else:
                if outer is not own.outer:
                    _scope.set(outer)
                return own
        # What belongs to it is left with it. Else what runs stays current.
        elif current is not None and (current.ended or current.belongs_to(own)):
            _scope.set(outer)
        return own.give_up(outer)


def _running(scope: Scope | None) -> Scope | None:
    """Return *scope*, or the nearest one around it that has not ended."""
    while scope is not None and scope.ended:
        scope = scope.outer
    return scope


class Binding(Generic[Bound]):
    """A scope for a ``with`` block.

    Not a generator with `contextlib.contextmanager`: that assigns ``__traceback__``, which fails
    for an exception that is a frozen dataclass, and so replaces the exception of the block.

    Args:
        scope: The scope of the block; ``None`` leaves it as it is.
        value: What ``as`` is given.
    """

    __slots__ = ("_entries", "_scope", "_value")

    def __init__(self, scope: Scope | None, value: Bound) -> None:
        self._scope = scope
        self._value = value
        self._entries: list[Entry | None] = []

    def __enter__(self) -> Bound:
        # A copy, which ends with the block: what it is a copy of goes on.
        self._entries.append(None if self._scope is None else Entry(self._scope.copied()))
        return self._value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        entry = self._entries.pop()
        if entry is not None:
            entry.leave()


class RemoteContext(NamedTuple):
    """What another process or service told about the work it asks for; every field may be
    ``None``.
    """

    correlation_id: str | None = None
    job_id: str | None = None
    step_id: str | None = None
    attempt: int | None = None
    operation: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    root_job_id: str | None = None
    provisional: str | None = None
    project: str | None = None
    owner: str | None = None
    trace_flags: str | None = None
    tracestate: str | None = None

    def as_current(self) -> Binding[Scope]:
        """Make it the scope of the ``with`` block: jobs begun there become children and inherit the
        correlation id.
        """
        scope = remote_scope(self)
        return Binding(scope, scope)


def remote_scope(remote: RemoteContext) -> Scope:
    """Return the scope that *remote* describes."""
    return Scope(
        job_id=_hidden(remote.job_id),
        attempt=remote.attempt or (1 if remote.job_id else None),
        operation=_shown(remote.operation),
        step_id=_hidden(remote.step_id) if remote.job_id else None,
        correlation_id=_hidden(remote.correlation_id),
        trace_id=remote.trace_id,
        span_id=remote.span_id,
        trace_flags=remote.trace_flags,
        tracestate=remote.tracestate,
        root_job_id=_hidden(remote.root_job_id) if remote.job_id else None,
        provisional=remote.provisional if remote.job_id and remote.attempt else None,
        project=_shown(remote.project) if remote.job_id else None,
        owner=_shown(remote.owner) if remote.job_id else None,
    )


def _hidden(id_: str | None) -> str | None:
    return None if id_ is None else identified(id_)


def _shown(label: str | None) -> str | None:
    return None if label is None else labelled(label)


@overload
def inject(carrier: None = None) -> dict[str, str]: ...


@overload
def inject(carrier: Carrier) -> Carrier: ...


def inject(carrier: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Write the current scope into *carrier*, for a request or message to another service.

    Args:
        carrier: Headers to fill, a new ``dict`` by default.

    Returns:
        The carrier with ``X-Correlation-ID``, ``X-Job-ID``, ``baggage``, ``traceparent`` and
        ``tracestate`` (W3C Trace Context, Level 1) as far as the scope knows them; untouched
        outside a scope. A trace that came in goes on with its own flags and state, and with a new
        parent id. Without one, a job begins a trace: its id is the same for the whole tree of jobs.
    """
    carrier = {} if carrier is None else carrier
    scope = _scope.get()
    if scope is None:
        return carrier
    if scope.correlation_id is not None and _SAFE_ID.fullmatch(scope.correlation_id):
        carrier["X-Correlation-ID"] = scope.correlation_id
    if scope.job_id is not None and _SAFE_ID.fullmatch(scope.job_id):
        carrier["X-Job-ID"] = scope.job_id
        baggage = f"structjob.job_id={_percent(scope.job_id)}"
        if scope.step_id is not None:
            baggage += f",structjob.step_id={_percent(scope.step_id)}"
        provisional = scope.column_values.get("provisional")
        if scope.attempt is not None and (scope.attempt != 1 or provisional is not None):
            baggage += f",structjob.attempt={scope.attempt}"
        if provisional is not None:
            baggage += f",structjob.provisional={_percent(str(provisional))}"
        # and not the owner: that may be a person, and the service anybody's
        if (project := scope.labels["project"]) is not None:
            baggage += f",structjob.project={_percent(project)}"
        if scope.root_job_id not in (None, scope.job_id):
            baggage += f",structjob.root_job_id={_percent(str(scope.root_job_id))}"
        carrier["baggage"] = (
            f"{carrier['baggage']},{baggage}" if carrier.get("baggage") else baggage
        )
    carrier.update(_trace_headers(scope))
    return carrier


def _trace_headers(scope: Scope) -> dict[str, str]:
    """Return ``traceparent`` and ``tracestate`` for what is called from *scope*; nothing outside
    jobs and traces.
    """
    trace_id = scope.ids.get("trace_id")
    if trace_id is None or not _TRACE_ID.fullmatch(trace_id):
        job_id = scope.root_job_id or scope.job_id
        if job_id is None:
            return {}
        from hashlib import blake2b  # a program that only logs never needs it

        # The same for all who know the tree of jobs, so that they need not hand it on.
        return {
            "traceparent": f"00-{blake2b(job_id.encode('utf-8', 'replace'), digest_size=16).hexdigest()}-{_new_span()}-01"
        }
    headers = {"traceparent": f"00-{trace_id}-{_new_span()}-{scope.trace_flags or '01'}"}
    if scope.tracestate is not None:
        headers["tracestate"] = scope.tracestate
    return headers


def _new_span() -> str:
    return f"{int.from_bytes(os.urandom(8)) or 1:016x}"


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a subprocess that shall belong to the current job and step.

    Args:
        environ: What it is based on; by default ``os.environ``.

    Returns:
        A copy, with ``STRUCTJOB_*``, ``TRACEPARENT`` and ``TRACESTATE`` as far as the scope knows
        them: ``subprocess.run(command, env=structjob.environment())``. A program that opens a
        tracker there belongs to the job.
    """
    found = dict(os.environ if environ is None else environ)
    scope = _scope.get()
    if scope is not None:
        for name in [name for name in found if name in _OF_SCOPE]:  # of a job around this one
            del found[name]
        found.update(to_environment(scope))
    return found


def extract(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> RemoteContext:
    """Read what `inject` wrote, from headers in any letter case; text or bytes.

    Args:
        carrier: Headers or message attributes, as a mapping or as pairs (ASGI).

    Returns:
        What was found; an id that is empty, longer than 128 characters (64 for those of jobs and
        steps) or not printable ASCII counts as missing.
    """
    headers: dict[str, str] = {}
    for key, value in carrier.items() if isinstance(carrier, Mapping) else carrier:
        name, text = _header(key).lower(), _header(value)
        # These may come in several headers, and are one list (W3C Baggage, 3.3.2; Trace Context,
        # 3.3.1).
        headers[name] = (
            f"{headers[name]},{text}"
            if name in ("baggage", "tracestate") and name in headers
            else text
        )
    trace = _TRACEPARENT.fullmatch(headers.get("traceparent", "").strip())
    members = (
        part.partition(";")[0].partition("=") for part in headers.get("baggage", "").split(",")
    )
    baggage = {key.strip(): value.strip() for key, _, value in members}
    return RemoteContext(
        correlation_id=_safe(headers.get("x-correlation-id") or headers.get("x-request-id")),
        job_id=_safe(headers.get("x-job-id"), 64)
        or _safe(_unpercent(baggage.get("structjob.job_id", "")), 64),
        step_id=_safe(_unpercent(baggage.get("structjob.step_id", "")), 64),
        attempt=_number(baggage.get("structjob.attempt", "")),
        trace_id=trace[1] if trace else None,
        span_id=trace[2] if trace else None,
        trace_flags=trace[3] if trace else None,
        tracestate=_state(headers.get("tracestate")) if trace else None,
        root_job_id=_safe(_unpercent(baggage.get("structjob.root_job_id", "")), 64),
        provisional=_moment(_unpercent(baggage.get("structjob.provisional", ""))),
        project=_label(_unpercent(baggage.get("structjob.project", ""))),
    )


def enrich(exc: E, /, **fields: Any) -> E:
    """Attach ``[key=value, …]`` to *exc* as a note, so that its context is printed wherever the
    exception is.

    The ids of the current job and step, and the operation, come first, unless a note of *exc* has
    them already.

    Args:
        exc: The exception that is on its way.
        fields: What to attach.

    Returns:
        The same exception, for ``raise enrich(exc, vm=name)``. An exception that takes no notes is
        returned as it is.
    """
    scope = _scope.get()
    own = scope.step_id or scope.job_id if scope is not None else None
    if scope is not None and own is not None and not is_noted(exc, own):
        fields = {
            "job_id": scope.job_id,
            "step_id": scope.step_id,
            "operation": scope.operation,
            **fields,
        }
    annotate(exc, **fields)
    return exc


def to_environment(scope: Scope) -> dict[str, str]:
    """Return the environment variables that let a child process join *scope*."""
    values = {
        "JOB_ID": scope.job_id,
        "STEP_ID": scope.step_id,
        "ATTEMPT": None if scope.attempt is None else str(scope.attempt),
        "OPERATION": scope.operation,
        "CORRELATION_ID": scope.correlation_id,
        "ROOT_JOB_ID": scope.root_job_id if scope.root_job_id != scope.job_id else None,
        "PROVISIONAL": scope.column_values.get("provisional"),
        "PROJECT": scope.labels["project"],
        "OWNER": scope.labels["owner"],
    }
    found = {ENVIRONMENT + key: str(value) for key, value in values.items() if value is not None}
    return found | {name.upper(): value for name, value in _trace_headers(scope).items()}


def from_environment(environ: Mapping[str, str]) -> RemoteContext:
    """Read what `to_environment` wrote; all fields are ``None`` where nothing was."""
    trace = _TRACEPARENT.fullmatch(environ.get("TRACEPARENT", ""))
    return RemoteContext(
        trace_id=trace[1] if trace else None,
        span_id=trace[2] if trace else None,
        trace_flags=trace[3] if trace else None,
        tracestate=_state(environ.get("TRACESTATE")) if trace else None,
        correlation_id=_safe(environ.get(ENVIRONMENT + "CORRELATION_ID")),
        job_id=_safe(environ.get(ENVIRONMENT + "JOB_ID"), 64),
        step_id=_safe(environ.get(ENVIRONMENT + "STEP_ID"), 64),
        attempt=_number(environ.get(ENVIRONMENT + "ATTEMPT", "")),
        operation=_label(environ.get(ENVIRONMENT + "OPERATION", ""), 255),
        root_job_id=_safe(environ.get(ENVIRONMENT + "ROOT_JOB_ID"), 64),
        provisional=_moment(environ.get(ENVIRONMENT + "PROVISIONAL", "")),
        project=_label(environ.get(ENVIRONMENT + "PROJECT", "")),
        owner=_label(environ.get(ENVIRONMENT + "OWNER", "")),
    )


def _state(text: str | None) -> str | None:
    """Return a ``tracestate`` that may be passed on, as it is."""
    text = text.strip() if text else ""
    members = text.count(",") + 1
    return (
        text
        if text
        and len(text) <= _MAX_TRACESTATE
        and members <= _MAX_MEMBERS
        and text.isascii()
        and text.isprintable()
        else None
    )


def _header(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _safe(value: str | None, limit: int = 128) -> str | None:
    return value if value and len(value) <= limit and _SAFE_ID.fullmatch(value) else None


def _label(text: str, limit: int = 128) -> str | None:
    return str(normalise(text))[:limit] or None


def _number(text: str) -> int | None:
    """Return the number of an attempt, if *text* is one that the column holds."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _moment(text: str) -> str | None:
    """Return when an attempt began that has a provisional number, if *text* is a moment as jobs
    record it.
    """
    try:
        return text if text == f"{moment(text):%Y-%m-%d %H:%M:%S.%f}" else None
    except ValueError:
        return None


def _percent(value: str) -> str:
    from urllib.parse import quote

    return quote(value, safe="")


def _unpercent(value: str) -> str:
    from urllib.parse import unquote

    return unquote(value)
