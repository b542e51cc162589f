"""The route's template of a request: ``/items/{id}`` in place of ``/items/7``.

The number of different paths is unlimited, and statistics are by operation. So a job is named after
its route's template. The routes of Starlette, FastAPI and Litestar are read without importing these
libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any, NamedTuple

_FULL, _PARTIAL = 2, 1
"""Values of Starlette's ``Match``; partial means that the route has the path but not the method."""

_MOST = 200
"""Maximum number of characters of a template in an operation's name, which may have 255."""


class Route(NamedTuple):
    """The route of a request.

    Attributes:
        template: Its path as the application declares it, including the mounts around it.
        static: Whether it serves static files.
    """

    template: str
    static: bool = False


def find_route(routes: Iterable[Any], scope: MutableMapping[str, Any]) -> Route | None:
    """Return the route that handles a request, without calling it; ``None`` if there is no such
    route.

    Args:
        routes: The routes of a Starlette or FastAPI application, in their order.
        scope: A copy of the request's scope, because FastAPI's routes write into it.
    """
    partial: Route | None = None
    for route in routes:
        match, child = route.matches(scope)
        if match.value == _FULL:
            return _resolved(route, {**scope, **child})
        if match.value == _PARTIAL and partial is None:
            partial = _resolved(route, {**scope, **child})
    return partial


def _resolved(route: Any, scope: MutableMapping[str, Any]) -> Route:
    # A router that FastAPI includes keeps its routes with their prefix.
    contexts = getattr(route, "effective_route_contexts", None)
    if contexts is not None:
        return find_route(contexts(), scope) or Route("")
    route = getattr(route, "starlette_route", None) or route
    path = getattr(route, "path", "")
    inner = getattr(route, "routes", None)
    if inner is None:
        return Route(path[:_MOST])
    if not inner:  # a mounted application without visible routes
        return Route(f"{path}/{{path}}"[:_MOST], static=_serves_files(route))
    found = find_route(inner, scope)
    below = found.template if found is not None else "/<unmatched>"
    return Route((path + below)[:_MOST], static=found is not None and found.static)


def _serves_files(route: Any) -> bool:
    return any(base.__name__ == "StaticFiles" for base in type(route.app).__mro__)


def taken_route(scope: MutableMapping[str, Any]) -> Route | None:
    """Return the route that a framework stored in *scope* after it handled the request."""
    template = scope.get("path_template") or getattr(scope.get("route"), "path", None)
    return Route(template[:_MOST]) if isinstance(template, str) and template else None
