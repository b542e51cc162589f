"""Which part of the application a request's path names."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from structjob.web.accept import wants_page

API = "/api/v1"

PAGES = {
    "": "overview",
    "jobs": "jobs",
    "jobs/": "job",
    "logs": "logs",
    "errors": "errors",
    "errors/": "error",
    "sessions": "sessions",
    "sessions/": "sessions",
    "storage": "storage",
}
"""The script below ``pages/`` of each page, by the page's address relative to the root. The address
of one thing's page ends with a slash; the thing's id follows.
"""

DIRECTORIES = (f"{API}/", "/static/")
"""What is for programs: all other paths are of pages."""


def below(scope: Scope) -> str:
    """Return the path relative to the application's root, with its leading slash."""
    return "/" + str(scope["path"]).removeprefix(str(scope.get("root_path", ""))).lstrip("/")


def shows_page(scope: Scope, headers: Headers) -> bool:
    """Return whether a browser shows the answer to a person: it asks for a page, not for data."""
    return wants_page(headers) and not below(scope).startswith(DIRECTORIES)
