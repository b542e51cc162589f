"""Finds the prefix of the application's address behind a proxy.

A proxy may keep the prefix below which it offers the application, for example ``/ops/jobs``. The
paths of the application are known, so the prefix is everything before them, and needs no option.
"""

from __future__ import annotations

from structjob.web.paths import DIRECTORIES, PAGES

_FILES = ("login", "logout", "metrics")


def prefix_of(path: str) -> str:
    """Return the part of *path* before the application's own path.

    The result is empty if there is no such part, if the path is unknown, or if the whole path is
    one of the application's own paths.
    """
    for directory in DIRECTORIES:
        if (at := path.rfind(directory)) >= 0:
            return path[:at]
    parts = path[1:].split("/")
    if _is_own(parts if parts[-1] else parts[:-1]):
        return ""
    if not parts[-1]:
        return path[:-1]
    for length in (1, 2):
        if _is_own(parts[-length:]):
            return "".join(f"/{part}" for part in parts[:-length])
    return ""


def _is_own(parts: list[str]) -> bool:
    match parts:
        case []:
            return True
        case [page]:
            return page in PAGES or page in _FILES
        case [page, _]:
            return f"{page}/" in PAGES
        case _:
            return False
