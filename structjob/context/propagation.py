"""The scope across processes and services: written to and read from headers and environments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, overload
from urllib.parse import quote, unquote

from structjob.context.scope import ENVIRONMENT, Binding, Scope, current_scope
from structjob.context.tracing import is_span_id, is_trace_id, passed_on
from structjob.diagnostics import faults
from structjob.machine.clock import moment
from structjob.values.normalizer import normalize
from structjob.values.redaction import identified, labelled

Carrier = TypeVar("Carrier", bound=MutableMapping[str, str])

# W3C Trace Context: all zeros and version ff are invalid. A version above 00 may have further
# fields, which are ignored.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{54})([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_SAMPLED = "01"
_MAX_BAGGAGE, _MAX_MEMBERS = 8192, 64
"""Maximum bytes and members of a ``baggage`` that is passed on (W3C Baggage, 3.3.2)."""
_OWN = "structjob."
"""Prefix of our members of a ``baggage``."""
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteContext:
    """The remote context: what headers or an environment say about work for another process or
    service.

    Every field may be ``None``.
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
    step: str | None = None
    database: str | None = None
    trace_flags: str | None = None
    tracestate: str | None = None

    def as_current(self) -> Binding[Scope]:
        """Make it the scope of a ``with`` block.

        Jobs that begin in the block become children and inherit the correlation id.
        """
        scope = remote_scope(self)
        return Binding(scope, scope)


_VARIABLES = {
    field.name: ENVIRONMENT + field.name.upper()
    for field in fields(RemoteContext)
    if field.name not in ("trace_id", "span_id", "trace_flags", "tracestate")
}
"""The environment variables that describe the scope of a process, by field."""


def remote_scope(remote: RemoteContext) -> Scope:
    """Return the scope that *remote* describes."""
    return Scope(
        job_id=_hidden(remote.job_id),
        attempt=remote.attempt or (1 if remote.job_id else None),
        operation=_shown(remote.operation),
        step_id=_hidden(remote.step_id) if remote.job_id else None,
        step_name=_shown(remote.step) if remote.job_id else None,
        correlation_id=_hidden(remote.correlation_id),
        trace_id=remote.trace_id,
        span_id=remote.span_id,
        trace_flags=remote.trace_flags,
        tracestate=remote.tracestate,
        root_job_id=_hidden(remote.root_job_id) if remote.job_id else None,
        provisional=remote.provisional if remote.job_id and remote.attempt else None,
        project=_shown(remote.project) if remote.job_id else None,
        owner=_shown(remote.owner) if remote.job_id else None,
        database=remote.database if remote.job_id else None,
    )


def remote_of(scope: Scope) -> RemoteContext:
    """Return the remote context of *scope* for another process."""
    labels, columns = scope.labels, scope.column_values
    provisional, step = columns.get("provisional"), columns.get("step")
    return RemoteContext(
        correlation_id=scope.correlation_id,
        job_id=scope.job_id,
        step_id=scope.step_id,
        attempt=scope.attempt,
        operation=scope.operation,
        trace_id=scope.trace_id,
        span_id=scope.span_id,
        root_job_id=scope.root_job_id,
        provisional=None if provisional is None else str(provisional),
        project=labels["project"],
        owner=labels["owner"],
        step=None if step is None else str(step),
        database=scope.database,
        trace_flags=scope.trace_flags,
        tracestate=scope.tracestate,
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
        carrier: Headers to fill; default: a new ``dict``. Existing names are matched in any letter
            case.

    Returns:
        The carrier with ``X-Correlation-ID``, ``X-Job-ID``, ``baggage``, ``traceparent`` and
        ``tracestate``, if the scope has these values. Outside a scope it is unchanged. Calling it
        twice has no further effect. Other members of ``baggage`` are kept, up to 8,192 bytes and 64
        members.

        A trace from a request is passed on unchanged, with its parent id and flags: the library
        exports no spans, and with an id that is never exported, the spans of the called service
        would have no parent. Without a trace, ``traceparent`` is omitted, so that the service makes
        its own sampling decision. `structjob.otel` creates spans, which are then passed on.
    """
    carrier = {} if carrier is None else carrier
    scope = current_scope()
    if scope is None:
        return carrier
    names = {name.lower(): name for name in carrier}
    written = headers(scope, carrier.get(names.get("baggage", "baggage"), ""))
    stale = {"baggage"} | ({"tracestate"} if "traceparent" in written else set())
    for name in (stale - written.keys()) & names.keys():
        del carrier[names[name]]
    for name, value in written.items():
        carrier[names.get(name.lower(), name)] = value
    return carrier


def headers(scope: Scope, baggage: str = "") -> dict[str, str]:
    """Return the headers that `inject` writes.

    Args:
        scope: The current scope.
        baggage: The existing ``baggage`` of the carrier; default: empty.
    """
    found = {
        name: value
        for name, value in (("X-Correlation-ID", scope.correlation_id), ("X-Job-ID", scope.job_id))
        if value is not None and _SAFE_ID.fullmatch(value)
    }
    # the owner is omitted, because it may be a person, and the service may belong to others
    if members := _joined(_members(scope), baggage):
        found["baggage"] = members
    return found | trace_of(scope)


def trace_of(scope: Scope) -> dict[str, str]:
    """Return ``traceparent`` and ``tracestate`` for calls from *scope*; empty outside a trace."""
    if not is_trace_id(scope.trace_id) or not is_span_id(scope.span_id):
        return {}
    found = {"traceparent": f"00-{scope.trace_id}-{scope.span_id}-{scope.trace_flags or _SAMPLED}"}
    if scope.tracestate is not None:
        found["tracestate"] = scope.tracestate
    return found


def _members(scope: Scope) -> Iterator[str]:
    """Yield our members of a ``baggage``."""
    if scope.job_id is None or not _SAFE_ID.fullmatch(scope.job_id):
        return
    provisional = scope.column_values.get("provisional")
    for name, value in (
        ("job_id", scope.job_id),
        ("step_id", scope.step_id),
        ("attempt", scope.attempt if scope.attempt != 1 or provisional is not None else None),
        ("provisional", provisional),
        ("project", scope.labels["project"]),
        ("root_job_id", scope.root_job_id if scope.root_job_id != scope.job_id else None),
    ):
        if value is not None:
            yield f"{_OWN}{name}={quote(str(value), safe='')}"


def _joined(own: Iterable[str], others: str) -> str:
    """Return our members of a ``baggage``, followed by as many *others* as fit.

    Our earlier members are replaced.
    """
    members: list[str] = []
    size = -1  # there is one comma less than there are members
    kept = (other.strip() for other in others.split(","))
    for member in (*own, *(other for other in kept if not other.startswith(_OWN))):
        room = len(member.encode("utf-8", "replace")) + 1
        if member and len(members) < _MAX_MEMBERS and size + room <= _MAX_BAGGAGE:
            members.append(member)
            size += room
    return ",".join(members)


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a subprocess that belongs to the current job and step.

    Args:
        environ: The base environment; default: ``os.environ``.

    Returns:
        A copy with ``STRUCTJOB_*``, ``BAGGAGE``, ``TRACEPARENT`` and ``TRACESTATE``, if the scope
        has these values: ``subprocess.run(command, env=structjob.environment())``. A program that
        opens a tracker in this environment belongs to the job.
    """
    found = dict(os.environ if environ is None else environ)
    scope = current_scope()
    if scope is not None:
        for name in _VARIABLES.values():  # from a job around this one
            found.pop(name, None)
        if trace_of(scope):
            found.pop("TRACESTATE", None)
        found |= to_environment(scope, found.pop("BAGGAGE", ""))
    return found


def to_environment(scope: Scope, baggage: str = "") -> dict[str, str]:
    """Return the environment variables with which a child process joins *scope*.

    Args:
        scope: The scope that the child belongs to.
        baggage: The current value of ``BAGGAGE``; default: empty.
    """
    remote = remote_of(scope)
    if remote.root_job_id == remote.job_id:
        remote = replace(remote, root_job_id=None)
    values = {variable: getattr(remote, name) for name, variable in _VARIABLES.items()}
    found = {variable: str(value) for variable, value in values.items() if value is not None}
    if members := _joined(_members(scope), baggage):
        found["BAGGAGE"] = members
    return found | {name.upper(): value for name, value in trace_of(scope).items()}


def extract(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> RemoteContext:
    """Read what `inject` wrote, from headers in any letter case, as text or bytes.

    Args:
        carrier: Headers or message attributes, as a mapping or as pairs (ASGI, Kafka).

    Returns:
        The remote context. The correlation id comes from ``X-Correlation-ID``, or else
        ``X-Request-ID``, or else the id of the trace. An id that is empty, longer than 128
        characters (64 for jobs and steps) or not printable ASCII counts as missing.
    """
    found: dict[str, str] = {}
    for key, value in carrier.items() if isinstance(carrier, Mapping) else carrier:
        name, text = _header(key).lower(), _header(value)
        # ``baggage`` and ``tracestate`` may come in several headers that form one list (W3C
        # Baggage, 3.3.2; Trace Context, 3.3.1). Several ``traceparent`` headers are invalid, and so
        # is their list.
        found[name] = (
            f"{found[name]},{text}"
            if name in ("baggage", "tracestate", "traceparent") and name in found
            else text
        )
    baggage = _own_members(found.get("baggage", ""))
    trace = _trace(found.get("traceparent", ""), found.get("tracestate"))
    return RemoteContext(
        correlation_id=_from_outside("X-Correlation-ID", found)
        or _from_outside("X-Request-ID", found)
        or trace.get("trace_id"),
        job_id=_from_outside("X-Job-ID", found, 64) or _safe(baggage.get("job_id"), 64),
        step_id=_safe(baggage.get("step_id"), 64),
        attempt=_number(baggage.get("attempt", "")),
        root_job_id=_safe(baggage.get("root_job_id"), 64),
        provisional=_moment(baggage.get("provisional", "")),
        project=_label(baggage.get("project", "")),
        **trace,
    )


def from_environment(environ: Mapping[str, str]) -> RemoteContext:
    """Read what `environment` wrote; missing fields are ``None``."""

    def given(name: str) -> str:
        return environ.get(ENVIRONMENT + name, "")

    trace = _trace(environ.get("TRACEPARENT", ""), environ.get("TRACESTATE"))
    return RemoteContext(
        correlation_id=_safe(given("CORRELATION_ID")) or trace.get("trace_id"),
        job_id=_safe(given("JOB_ID"), 64),
        step_id=_safe(given("STEP_ID"), 64),
        attempt=_number(given("ATTEMPT")),
        operation=_label(given("OPERATION"), 255),
        root_job_id=_safe(given("ROOT_JOB_ID"), 64),
        provisional=_moment(given("PROVISIONAL")),
        project=_label(given("PROJECT")),
        owner=_label(given("OWNER")),
        step=_label(given("STEP"), 200),
        database=given("DATABASE") or None,
        **trace,
    )


def _trace(parent: str, state: str | None) -> dict[str, Any]:
    """Return the fields of a `RemoteContext` that a valid ``traceparent`` contains."""
    found = _TRACEPARENT.fullmatch(parent.strip())
    if found is None:
        return {}
    version, trace_id, span_id, flags = found.groups()
    if version != "00":  # only this flag is known for other versions
        flags = f"{int(flags, 16) & 1:02x}"
    return {
        "trace_id": trace_id,
        "span_id": span_id,
        "trace_flags": flags,
        "tracestate": passed_on(state),
    }


def _own_members(baggage: str) -> dict[str, str]:
    """Return our members of a ``baggage``."""
    members = (part.partition(";")[0].partition("=") for part in baggage.split(","))
    return {
        key.strip().removeprefix(_OWN): unquote(value.strip())
        for key, _, value in members
        if key.strip().startswith(_OWN)
    }


def _from_outside(name: str, found: Mapping[str, str], limit: int = 128) -> str | None:
    """Return the id in the header *name*; count a refused id, and never repeat its text."""
    value = found.get(name.lower())
    id_ = _safe(value, limit)
    if value and id_ is None:
        faults.count(f"refusing the id in {name}")
    return id_


def _header(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _safe(value: str | None, limit: int = 128) -> str | None:
    return value if value and len(value) <= limit and _SAFE_ID.fullmatch(value) else None


def _label(text: str, limit: int = 128) -> str | None:
    return str(normalize(text))[:limit] or None


def _number(text: str) -> int | None:
    """Return the number of an attempt, if *text* is a number that the column can hold."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _moment(text: str) -> str | None:
    """Return when an attempt with a provisional number began.

    Return None if *text* does not have the format in which jobs record times.
    """
    try:
        return text if text == f"{moment(text):%Y-%m-%d %H:%M:%S.%f}" else None
    except ValueError:
        return None
