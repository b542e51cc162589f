"""Versions: of structjob and its driver, and of SQLite."""

from __future__ import annotations

import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version

from sqlalchemy import URL

from structjob.checkup.finding import Finding, ok, problem, warning

DRIVERS = {
    "mysql": ("asyncmy", "mysql"),
    "mariadb": ("asyncmy", "mysql"),
    "postgresql": ("asyncpg", "postgres"),
}
"""The driver's package and the extra that installs it, by database."""

SAFE_WAL = (3, 51, 3)
"""The first SQLite version whose WAL is safe to reset while several processes write; see
https://sqlite.org/wal.html.
"""


def program() -> Finding:
    about = {
        "structjob": version("structjob"),
        "python": platform.python_version(),
        "structlog": version("structlog"),
    }
    found = [*(f"{name} {number}" for name, number in about.items()), platform.platform()]
    return ok("version", ", ".join(found), details=about)


def driver(url: URL) -> Finding:
    name = url.get_backend_name()
    if name not in DRIVERS:
        return ok("driver", f"sqlite3 of the standard library, SQLAlchemy {version('SQLAlchemy')}")
    package, extra = DRIVERS[name]
    try:
        return ok("driver", f"{package} {version(package)}, SQLAlchemy {version('SQLAlchemy')}")
    except PackageNotFoundError:
        return problem("driver", f"{package} is not installed", f"pip install 'structjob[{extra}]'")


def sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= SAFE_WAL:
        return ok("sqlite", sqlite3.sqlite_version)
    return warning(
        "sqlite",
        f"{sqlite3.sqlite_version} has a fault that may, very rarely, damage a file that several processes write to at once",
        f"use a Python with SQLite {'.'.join(map(str, SAFE_WAL))} or newer, or write to each file from one process only",
    )
