"""Database URLs: select the database of a tracker, and show its URL without the password.

SQLAlchemy is imported inside the functions, because it takes longer to import than the whole rest
of structjob.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from structjob.exceptions import InvalidURL
from structjob.spool.places import Places, for_file, for_server

if TYPE_CHECKING:
    from sqlalchemy import URL as URL  # noqa: PLC0414 -- callers name it in annotations

DEFAULT = "sqlite:///structjob.db"
"""The database of a tracker without a URL: a file in the working directory."""

ENVIRONMENT = ("STRUCTJOB_DATABASE_URL", "DATABASE_URL")
"""The environment variables for the database URL, in order of precedence."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_EXAMPLES = "sqlite:///jobs.db, mariadb://user:password@host/database or postgresql://user:password@host/database"
_LIKE_URL = re.compile(r"(sqlite|mysql|mariadb|postgres(ql)?)(\+\w+)?:|.*://|.*:.*@")
"""Text that is meant as a URL, even if a slash or the scheme is missing."""
_SECRETS = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)


def parse(url: str | os.PathLike[str] | URL | None = None) -> URL:
    """Return *url* as a SQLAlchemy URL with the driver that structjob uses for that database.

    Any other driver (``mysql+pymysql://``) is replaced, so that an application can pass its own URL
    unchanged. The options are checked later, when a store is created
    (`structjob.urls.driver_options`, `structjob.urls.tls`).

    Args:
        url: A URL as text or from SQLAlchemy; the path of an SQLite file, as text or a path object;
            or ``:memory:``. ``None`` means ``$STRUCTJOB_DATABASE_URL``, else ``$DATABASE_URL``,
            else ``sqlite:///structjob.db``.

    Raises:
        InvalidURL: if it is not a URL, or structjob has no store for its database.
    """
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if url is None:
        url = next((os.environ[name] for name in ENVIRONMENT if os.environ.get(name)), DEFAULT)
    if isinstance(url, os.PathLike):
        url = URL.create("sqlite", database=os.fspath(url))
    elif url == ":memory:":
        url = "sqlite://"
    elif isinstance(url, str) and url.strip() and not is_url(url):
        url = f"sqlite:///{url.strip()}"
    if not isinstance(url, str | URL):
        raise InvalidURL(
            f"a database URL is text or a sqlalchemy.URL, not {type(url).__name__}: for example {_EXAMPLES}"
        )
    try:
        parsed = make_url(_hosts_as_option(url.strip()) if isinstance(url, str) else url)
        parsed.render_as_string()
    except UnicodeEncodeError:
        raise InvalidURL(
            f"the URL of the database {parsed.database!r} is not UTF-8: rename it"
        ) from None
    except (ArgumentError, ValueError) as exc:
        raise InvalidURL(
            f"{masked(url)!r} is not a database URL{_fault_in(url, exc)}: write for example {_EXAMPLES}"
        ) from None
    scheme = parsed.drivername.partition("+")[0]
    if scheme not in _DRIVERS:
        raise InvalidURL(
            f"structjob has no store for {scheme!r} ({masked(parsed)}): use one of {', '.join(_DRIVERS)}, for example {_EXAMPLES}"
        )
    if scheme == "sqlite" and isinstance(url, str):
        _check_file_options(url.strip())
    if scheme == "sqlite" and parsed.host:
        raise InvalidURL(
            f"{masked(parsed)} names a host, but an SQLite database has none: write three slashes, sqlite:///{parsed.host}, for a file"
        )
    if "@" in (parsed.host or ""):
        raise InvalidURL(
            f"the password in {masked(parsed)} holds an @, where its host seems to begin: write %40 in its place"
        )
    return parsed.set(drivername=_DRIVERS[scheme])


def _fault_in(url: object, exc: Exception) -> str:
    """Return what is wrong with a URL that SQLAlchemy cannot parse, if that is known."""
    if isinstance(url, str) and url.strip()[:1] in ("'", '"'):
        return ", because it begins with a quotation mark (Docker's --env-file keeps them)"
    return ", because its port is not a number" if type(exc) is ValueError else ""


_SEVERAL_HOSTS = re.compile(
    r"(\w+(?:\+\w+)?://(?:[^/?#]*@)?)([^/?#@]*,[^/?#@]*)(/[^?#]*)?(?:\?(.*))?", re.DOTALL
)


def _hosts_as_option(url: str) -> str:
    """Convert several hosts in a URL from libpq's form to SQLAlchemy's ``host`` options.

    libpq's form is ``h1:5432,h2:5433``.
    """
    found = _SEVERAL_HOSTS.fullmatch(url)
    if found is None:
        return url
    begin, hosts, database, query = found.groups()
    return f"{begin}{database or '/'}?{'&'.join([f'host={host}' for host in hosts.split(',')] + ([query] if query else []))}"


_FILE_OPTIONS = frozenset({
    "cache", "cached_statements", "check_same_thread", "detect_types", "immutable", "isolation_level", "mode", "nolock", "psow", "timeout",
    "uri", "vfs",
})  # fmt: skip
"""The URL options for SQLite that SQLAlchemy or SQLite know."""


def _check_file_options(url: str) -> None:
    """Refuse a question mark that is part of the file's name instead of the start of options.

    Raises:
        InvalidURL: if there is such a question mark.
    """
    path, mark, options = url.partition("?")
    unknown = [
        option
        for option in options.split("&")
        if option.partition("=")[0] not in _FILE_OPTIONS or "=" not in option
    ]
    if mark and unknown:
        raise InvalidURL(
            f"{unknown[0]!r} in {url!r} is not an option of SQLite: for a file with a question mark in its name write %3F, "
            f"as in {path}%3F{options}"
        )


def with_schema(url: str | os.PathLike[str] | URL | None, schema: str) -> URL:
    """Return *url* as `parse` does, with the *schema* of the tables on PostgreSQL.

    Raises:
        InvalidURL: if the database is not PostgreSQL, or the name is not valid for a schema.
    """
    from structjob.urls.driver_options import SCHEMA, schema_of

    parsed = parse(url)
    if parsed.get_backend_name() != "postgresql":
        raise InvalidURL(
            f"schema={schema!r} is for PostgreSQL, and {masked(parsed)} is another database: leave it out"
        )
    if not isinstance(schema, str):
        raise InvalidURL(
            f"schema must be text, not {type(schema).__name__}: for example schema='structjob'"
        )
    named = parsed.update_query_dict({SCHEMA: schema})
    schema_of(named)
    return named


def is_url(given: str) -> bool:
    """Return whether *given* is meant as a URL; otherwise it is the path of an SQLite file."""
    return _LIKE_URL.match(given.strip()) is not None


def masked(url: str | os.PathLike[str] | URL) -> str:
    """Return *url* as text, with ``***`` in place of the password and of secrets in its query."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)  # type: ignore[arg-type]  # a path raises ArgumentError
        if "@" in (parsed.host or ""):  # the rest of a password that contains @
            raise ValueError
    except (ArgumentError, ValueError):
        # This is not a URL, but may contain a password: remove all text between the scheme (or the
        # user) and the last @.
        return re.sub(r"^([^:/@]*://)?([^:@/]*)[:/]?.*@", r"\1\2:***@", str(url), flags=re.DOTALL)
    secret = [name for name in parsed.query if _SECRETS.search(name)]
    if secret:
        parsed = parsed.update_query_dict(dict.fromkeys(secret, "***"))
    return parsed.render_as_string(hide_password=True)


_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})


def identity(url: URL) -> str:
    """Return a text that identifies a database, whatever the form of its URL.

    For a file it is the real path. On a server it is the kind, host, port and name, and the schema
    if there is one. The user, the password and the other options are not part of it. The default
    port is the same as no port, and all names of this host are the same.
    """
    from structjob.urls.driver_options import hosts_of, search_path

    path = sqlite_path(url)
    if path is not None:
        return f"sqlite:{os.path.realpath(path)}"
    backend = url.get_backend_name()
    if backend == "sqlite":
        return "sqlite://"
    backend = "mysql" if backend == "mariadb" else backend
    hosts = sorted({f"{_one_spelling(host)}:{port}" for host, port in hosts_of(url)})
    schema = search_path(url)
    return f"{backend}://{','.join(hosts)}/{url.database or url.username or ''}{f'?schema={schema}' if schema else ''}"


def _one_spelling(host: str) -> str:
    """Return one name for all spellings of a host; a socket means this host."""
    name = host.strip("[]").rstrip(".").lower()
    return "localhost" if name in _LOCAL or name.startswith("/") else name


def places(url: URL, spool: bool | str | os.PathLike[str] = True) -> Places | None:
    """Return the directories of a database's spools.

    Args:
        url: See `parse`.
        spool: The tracker's option: a path, ``True`` for the default place, or ``False`` for no
            spool.

    Returns:
        The places; ``None`` if *spool* is ``False``, or for a database in memory unless *spool* is
        a path.
    """
    asked = None if isinstance(spool, bool) else spool
    path = sqlite_path(url)
    if spool is False or (url.get_backend_name() == "sqlite" and path is None and asked is None):
        return None
    if path is not None:
        return for_file(path, identity(url), asked)
    if url.get_backend_name() == "sqlite":
        return Places(None, (Path(asked or "").absolute(),))
    return for_server(identity(url), masked(url.set(drivername=url.get_backend_name())), asked)


def sqlite_path(url: URL) -> Path | None:
    """Return the absolute path of the file in a SQLite URL.

    Return ``None`` for a database in memory, and for other databases.
    """
    if url.get_backend_name() != "sqlite":
        return None
    database = url.database or ""
    if database.startswith("file:"):
        database, _, query = database.removeprefix("file:").partition("?")
        if url.query.get("mode") == "memory" or "mode=memory" in query.split("&"):
            return None
        if database.startswith("//"):
            database = "/" + database.removeprefix("//").partition("/")[2]
        database = unquote(database)
    if database in ("", ":memory:"):
        return None
    return Path(database).absolute()
