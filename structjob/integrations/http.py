"""HTTP clients that send the ids of the current job to other services.

Each request gets the headers that `structjob.inject` writes: ``X-Correlation-ID``, ``X-Job-ID``,
``baggage``, and within a trace ``traceparent`` and ``tracestate``. No request becomes a job or a
step. Each answer is a debug event ``http_call`` with ``method``, ``host``, ``status`` and
``duration_ms``, the time until its headers came. It never contains the path or the query. Without a
job or a correlation id, no header is sent and nothing is recorded.

==========  =====================================================================
httpx       ``propagate(httpx.Client())``, ``propagate(httpx.AsyncClient())``
requests    ``propagate(requests.Session())``
aiohttp     ``aiohttp.ClientSession(middlewares=[aiohttp_middleware()])``
==========  =====================================================================

With ``hosts=``, only these hosts get the ids. The host is checked for each request and each
redirect: a redirect to another host loses the headers. A header that the caller set is kept.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeVar

from structjob.capture.emit import emit
from structjob.context.propagation import headers
from structjob.context.scope import current_scope
from structjob.diagnostics import fault_types, faults
from structjob.exceptions import InvalidArgument

Client = TypeVar("Client")

_FORMER = "structjob"
"""The key under which a request of httpx keeps its original headers."""
_BEGAN = "structjob.began"
"""The key under which it keeps the monotonic time in seconds at which it was sent."""


class Hosts:
    """The hosts that get the ids.

    Args:
        hosts: Names, and ``.suffix`` for all names with that suffix; ``None``: all hosts.

    Raises:
        InvalidArgument: if *hosts* is not a list of such names.
    """

    def __init__(self, hosts: Iterable[str] | None) -> None:
        if isinstance(hosts, str):
            raise InvalidArgument(f"hosts is a list of names: hosts=[{hosts!r}]")
        names = None if hosts is None else list(hosts)
        for name in names or ():
            if not isinstance(name, str) or not name.strip(".") or "/" in name:
                raise InvalidArgument(
                    f"hosts are names without scheme and path, such as 'api.example.com' or '.example.com', not {name!r}"
                )
        self._names = None if names is None else frozenset(name.lower() for name in names)

    def __contains__(self, host: str | None) -> bool:
        if self._names is None:
            return True
        name = (host or "").lower().rstrip(".")
        return name in self._names or any(
            name.endswith(suffix) for suffix in self._names if suffix.startswith(".")
        )

    def added(self, host: str | None, given: Mapping[str, str]) -> dict[str, str]:
        """Return the headers to add to a request to *host*, which already has the headers
        *given*.
        """
        scope = current_scope()
        if scope is None or host not in self:
            return {}
        added = headers(scope, given.get("baggage", ""))
        if "traceparent" in given:  # it has its own state, or no state
            added.pop("tracestate", None)
        return {
            name: value
            for name, value in added.items()
            # in any letter case, because clients accept any
            if name == "baggage" or name not in given
        }


def propagate(client: Client, *, hosts: Iterable[str] | None = None) -> Client:
    """Make *client* send the ids of the current job with each request.

    Args:
        client: A `httpx.Client`, `httpx.AsyncClient` or `requests.Session`.
        hosts: Names of hosts that get the ids, ``.example.com`` for all below it; default: all
            hosts. Set it if the client also calls services of other owners, because the ids reveal
            information about your system.

    Returns:
        The same client: ``client = structjob.http.propagate(httpx.AsyncClient())``. A second call
            replaces the hosts.

    Raises:
        InvalidArgument: if it is another kind of client, or *hosts* is not a list of names.
    """
    chosen = Hosts(hosts)
    known: Any = client
    if isinstance(getattr(client, "event_hooks", None), dict):  # httpx, httpx2
        hook = _AsyncHook(chosen) if hasattr(client, "aclose") else _Hook(chosen)
        hooks = {
            name: [other for other in others if not isinstance(other, (_Hook, _Answered))]
            for name, others in known.event_hooks.items()
        }
        hooks["request"] = [*hooks.get("request", ()), hook]
        answered = _AsyncAnswered() if hasattr(client, "aclose") else _Answered()
        hooks["response"] = [answered, *hooks.get("response", ())]
        known.event_hooks = hooks
    elif isinstance(getattr(client, "adapters", None), MutableMapping):  # requests
        for adapter in known.adapters.values():
            adapter.add_headers = _AddHeaders(chosen, adapter)
        if _answered not in known.hooks["response"]:
            known.hooks["response"].insert(0, _answered)
    elif type(client).__module__.partition(".")[0] == "aiohttp":
        raise InvalidArgument(
            "a session of aiohttp is given middlewares when it is made: ClientSession(middlewares=[structjob.http.aiohttp_middleware()])"
        )
    else:
        raise InvalidArgument(
            f"propagate() takes a client of httpx or a session of requests, not {type(client).__name__}; "
            "for others, pass structjob.inject({}) as headers"
        )
    return client


def aiohttp_middleware(
    hosts: Iterable[str] | None = None,
) -> Callable[[Any, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]:
    """Return a middleware for `aiohttp.ClientSession` that sends the ids of the current job.

    It needs aiohttp 3.12 or newer, and adds the ids to each request.

    Args:
        hosts: See `propagate`.
    """
    chosen = Hosts(hosts)

    async def middleware(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        # A redirect is a new request that has only the caller's headers.
        _guarded(lambda: request.headers.update(chosen.added(request.url.host, request.headers)))
        began = time.monotonic()
        response = await handler(request)
        _guarded(
            lambda: _log(
                request.method, request.url.host, response.status, time.monotonic() - began
            ),
            _LOGGING,
        )
        return response

    return middleware


class _Hook:
    """Called by httpx for each request and each redirect; a redirect has the headers of the request
    before it.
    """

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def __call__(self, request: Any) -> Any:
        _guarded(lambda: self._set(request))

    def _set(self, request: Any) -> None:
        request.extensions[_BEGAN] = time.monotonic()
        for name, former in request.extensions.pop(_FORMER, {}).items():
            _put(request.headers, name, former)
        added = self._hosts.added(request.url.host, request.headers)
        request.extensions[_FORMER] = {name: request.headers.get(name) for name in added}
        request.headers.update(added)


class _AsyncHook(_Hook):
    async def __call__(self, request: Any) -> None:
        super().__call__(request)


class _Answered:
    """Called by httpx for each response."""

    def __call__(self, response: Any) -> Any:
        _guarded(lambda: self._log(response), _LOGGING)

    def _log(self, response: Any) -> None:
        request = response.request
        seconds = time.monotonic() - request.extensions.get(_BEGAN, time.monotonic())
        _log(request.method, request.url.host, response.status_code, seconds)


class _AsyncAnswered(_Answered):
    async def __call__(self, response: Any) -> None:
        super().__call__(response)


def _answered(response: Any, **_: Any) -> None:
    """Called by requests for each response."""
    from urllib.parse import urlsplit

    _guarded(
        lambda: _log(
            response.request.method,
            urlsplit(response.request.url).hostname,
            response.status_code,
            response.elapsed.total_seconds(),
        ),
        _LOGGING,
    )


def _log(method: str, host: str | None, status: int, seconds: float) -> None:
    scope = current_scope()
    if scope is not None:
        attrs = {
            "method": method,
            "host": host,
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
        }
        emit(scope, "debug", "http_call", attrs, logger="structjob.http")


_LOGGING = "logging a request"


class _Ours(str):
    """A header added by structjob; redirects copy it.

    Attributes:
        former: Its previous value.
    """

    __slots__ = ("former",)
    former: str | None


class _AddHeaders:
    """Replaces `requests.adapters.HTTPAdapter.add_headers`, which exists for this purpose."""

    def __init__(self, hosts: Hosts, adapter: Any) -> None:
        before: Callable[..., object] = adapter.add_headers
        self.before: Callable[..., object] = (
            before.before if isinstance(before, _AddHeaders) else before
        )
        self._hosts = hosts

    def __call__(self, request: Any, **options: Any) -> None:
        self.before(request, **options)
        _guarded(lambda: self._set(request))

    def _set(self, request: Any) -> None:
        from urllib.parse import urlsplit

        for name, value in list(request.headers.items()):
            if isinstance(value, _Ours):
                _put(request.headers, name, value.former)
        for name, value in self._hosts.added(
            urlsplit(request.url).hostname, request.headers
        ).items():
            ours = _Ours(value)
            ours.former = request.headers.get(name)
            request.headers[name] = ours


def _put(found: MutableMapping[str, str], name: str, value: str | None) -> None:
    if value is not None:
        found[name] = value
    elif name in found:
        del found[name]


def _guarded(work: Callable[[], None], what: str = "adding the ids to a request") -> None:
    try:
        work()
    except fault_types() as exc:  # the request is sent, and its response returned, in any case
        faults.add(what, exc)
