"""The route's template of a request: ``/items/{id}`` in place of ``/items/7``.

The number of different paths is unlimited, and statistics are by operation. So a job is named after
its route's template. The routes of Starlette, FastAPI and Litestar are read without importing these
libraries.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from typing import Any, NamedTuple

_FULL, _PARTIAL = 2, 1
"""Values of Starlette's ``Match``; partial means that the route has the path but not the method."""

_MOST = 200
"""Maximum number of characters of a template in an operation's name, which may have 255."""

_STATIC = frozenset(("starlette.staticfiles.StaticFiles", "structjob.web.app.Application"))
"""Applications whose requests are no jobs. A page that shows jobs would otherwise make new ones."""


_SINGLE = frozenset(("starlette.routing.Route", "fastapi.routing.APIRoute"))
"""Kinds of routes that match a request whose path and method are theirs."""

_BY_PATH = _SINGLE | {"starlette.routing.Mount"}
"""Kinds of routes that match only if their regular expression matches the path."""


class Route(NamedTuple):
    """The route of a request.

    Attributes:
        template: Its path as the application declares it, including the mounts around it.
        static: Whether it serves static files, or structjob's own pages: no jobs.
    """

    template: str
    static: bool = False


UNMATCHED = Route("<unmatched>")
"""The route of a request that matches no route of the application."""


def routes_of(app: Any) -> Iterable[Any]:
    """Return the routes of a Starlette or FastAPI application; none for any other application."""
    routes = getattr(app, "routes", None) or ()
    # Litestar's routes do not tell whether they match: it stores the template in the scope. The
    # routes of an application are of one library, so the first one says which.
    first = next(iter(routes), None)
    return routes if first is None or hasattr(first, "matches") else ()


def find_route(routes: Iterable[Any], scope: MutableMapping[str, Any]) -> Route | None:
    """Return the route that handles a request, without calling it; ``None`` if there is no such
    route.

    Args:
        routes: The routes of a Starlette or FastAPI application, in their order.
        scope: The request's scope.
    """
    partial: Route | None = None
    path = _path_below(scope)
    copied: MutableMapping[str, Any] | None = None
    for route in routes:
        # This is how most routes find out whether they match, in a tenth of the time.
        kind: Any = type(route)
        if _is_one_of(kind, _BY_PATH) and route.path_regex.match(path) is None:
            continue
        if _is_one_of(kind, _SINGLE) and scope["type"] == "http":
            found = Route(route.path[:_MOST])
            if not route.methods or scope["method"] in route.methods:
                return found
            partial = partial or found
            continue
        if copied is None:
            copied = dict(scope)  # because FastAPI's routes write into it
        match, child = route.matches(copied)
        if match.value == _FULL:
            return _resolved(route, {**copied, **child})
        if match.value == _PARTIAL and partial is None:
            partial = _resolved(route, {**copied, **child})
    return partial


def _path_below(scope: MutableMapping[str, Any]) -> str:
    """Return the path of a request below its mount point, as Starlette's routes see it."""
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    below = path[len(root) :]
    return below if path.startswith(root) and below[:1] in ("", "/") else path


@lru_cache(maxsize=64)
def _is_one_of(kind: type, names: frozenset[str]) -> bool:
    """Return whether routes of this *kind* are among those that are named."""
    return f"{kind.__module__}.{kind.__name__}" in names


def _resolved(route: Any, scope: MutableMapping[str, Any]) -> Route:
    # A router that FastAPI includes keeps its routes with their prefix.
    contexts = getattr(route, "effective_route_contexts", None)
    if contexts is not None:
        return find_route(contexts(), scope) or Route("")
    route = getattr(route, "starlette_route", None) or route
    path = getattr(route, "path", "")
    if not hasattr(route, "routes"):
        return Route(path[:_MOST])
    inner = routes_of(route)
    if not inner:  # a mounted application without visible routes
        return Route(f"{path}/{{path}}"[:_MOST], static=_is_static(route))
    found = find_route(inner, scope)
    below = found.template if found is not None else "/<unmatched>"
    return Route((path + below)[:_MOST], static=found is not None and found.static)


def _is_static(route: Any) -> bool:
    kinds = {f"{base.__module__}.{base.__name__}" for base in type(route.app).__mro__}
    return not kinds.isdisjoint(_STATIC)


def route_of_django(path: str) -> Route | None:
    """Return the URL pattern of Django that *path* matches; ``None`` if they cannot be read."""
    urls = sys.modules["django.urls"]
    try:
        return Route(f"/{urls.resolve(path).route.lstrip('^/')}"[:_MOST])
    except urls.Resolver404:
        return UNMATCHED
    except Exception:  # noqa: BLE001 -- a fault in the program's URL patterns: Django reports it
        return None


def is_django(app: Any) -> bool:
    """Return whether *app* is an application that Django has made."""
    return type(app).__module__.startswith("django.")


def taken_route(scope: MutableMapping[str, Any]) -> Route | None:
    """Return the route that a framework stored in *scope* after it handled the request."""
    template = scope.get("path_template") or getattr(scope.get("route"), "path", None)
    return Route(template[:_MOST]) if isinstance(template, str) and template else None
