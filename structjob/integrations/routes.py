"""The template of the route that a request takes: ``/items/{id}`` in place of ``/items/7``.

Paths are without number, and statistics are by operation: a job is named by its route's template.
Routes are read as Starlette, FastAPI and Litestar have them; none of these is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any, NamedTuple

_FULL, _PARTIAL = 2, 1
"""Values of Starlette's ``Match``: partial is a route that has the path and not the method."""

_MOST = 200
"""Characters of a template that name an operation, which has 255 at most."""


class Route(NamedTuple):
    """The route of a request.

    Attributes:
        template: Its path as the application declares it, with the mounts around it.
        static: Whether it serves files as they are.
    """

    template: str
    static: bool = False


def find_route(routes: Iterable[Any], scope: MutableMapping[str, Any]) -> Route | None:
    """Return the route that handles a request, without calling it; ``None`` if there is none.

    Args:
        routes: Those of a Starlette or FastAPI application, in their order.
        scope: The request's; FastAPI's routes use it as a notepad, so hand over a copy.
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
    # A router that FastAPI includes holds its routes with their prefix.
    contexts = getattr(route, "effective_route_contexts", None)
    if contexts is not None:
        return find_route(contexts(), scope) or Route("")
    route = getattr(route, "starlette_route", None) or route
    path = getattr(route, "path", "")
    inner = getattr(route, "routes", None)
    if inner is None:
        return Route(path[:_MOST])
    if not inner:  # a mounted application that has no routes to be seen
        return Route(f"{path}/{{path}}"[:_MOST], static=_serves_files(route))
    found = find_route(inner, scope)
    below = found.template if found is not None else "/<unmatched>"
    return Route((path + below)[:_MOST], static=found is not None and found.static)


def _serves_files(route: Any) -> bool:
    return any(base.__name__ == "StaticFiles" for base in type(route.app).__mro__)


def taken_route(scope: MutableMapping[str, Any]) -> Route | None:
    """Return the route that a framework noted in *scope* when it had handled the request."""
    template = scope.get("path_template") or getattr(scope.get("route"), "path", None)
    return Route(template[:_MOST]) if isinstance(template, str) and template else None
