"""The options of a database URL except TLS: libpq's and each driver's own.

They are converted to the arguments that the driver takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sqlalchemy import URL

from structjob.exceptions import InvalidURL

SCHEMA = "schema"
"""The option that names the schema of the tables, on PostgreSQL."""


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """The meaning of the options in a URL.

    Args:
        arguments: Arguments of the driver's ``connect``.
        settings: Server parameters of the session (PostgreSQL).
        schema: The schema of the tables; ``None`` for the default one (PostgreSQL).
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    schema: str | None = None


def taken(url: URL, shown: str) -> tuple[DriverOptions, URL]:
    """Return the options of *url*, and the URL without them.

    The options of TLS must have been removed before.

    Args:
        url: The URL of a database on a server.
        shown: The same URL for messages, without passwords.

    Raises:
        InvalidURL: if an option is unknown, has an invalid value, or needs something that the
            driver cannot do.
    """
    postgresql = url.get_backend_name() == "postgresql"
    found = DriverOptions(schema=schema_of(url))
    for name, given in url.query.items():
        value = given if isinstance(given, str) else given[-1]
        if name in ("host", "port"):
            continue
        try:
            (_postgresql if postgresql else _mysql)(found, name, value)
        except _Refused as exc:
            raise InvalidURL(f"the option {name} in {shown} {exc}") from None
        except ValueError:
            raise InvalidURL(f"the option {name} in {shown} must be a number") from None
    hosts = hosts_of(url)
    if len(hosts) > 1 and not postgresql:
        raise InvalidURL(
            f"{shown} names several hosts: the driver for MariaDB and MySQL takes one; name a proxy, or one of them"
        )
    if {"host", "port"} & url.query.keys():
        names, ports = [name for name, _ in hosts], [port for _, port in hosts]
        found.arguments.update(host=names, port=ports) if len(
            hosts
        ) > 1 else found.arguments.update(host=names[0], port=ports[0])
    return found, url.difference_update_query(list(url.query))


def hosts_of(url: URL) -> list[tuple[str, int]]:
    """Return the hosts in *url* with their ports.

    PostgreSQL may have several hosts, which are tried in order.

    Raises:
        InvalidURL: if a port is not a number.
    """
    usual = _PORTS[url.get_backend_name()]
    named = url.query.get("host", ())
    hosts = [url.host] if url.host else [named] if isinstance(named, str) else list(named)
    hosts = [one for each in hosts for one in each.split(",")] or ["localhost"]
    given = url.query.get("port", "")
    ports = (given if isinstance(given, str) else given[-1]).split(",")
    if url.port is not None:
        ports = [str(url.port)]
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    found = []
    for host, port in zip(hosts, ports, strict=True):
        name, own = _name_and_port(host)
        own = own or port or str(usual)
        if not own.isdecimal():
            raise InvalidURL(f"the port {own!r} in a database URL must be a number")
        found.append((name, int(own)))
    return found


def _name_and_port(host: str) -> tuple[str, str]:
    if host.startswith("["):  # IPv6
        name, _, port = host[1:].partition("]")
        return name, port.removeprefix(":")
    # a socket's directory, a name, or IPv6 without its brackets
    if host.startswith("/") or host.count(":") != 1:
        return host, ""
    name, _, port = host.partition(":")
    return name, port


_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


def search_path(url: URL) -> str | None:
    """Return the schemas in which tables are searched, on PostgreSQL.

    Return ``None`` if *url* does not set them, so that the server's default applies.
    """
    if (schema := schema_of(url)) is not None:
        return schema
    options = url.query.get("options", "") if url.get_backend_name() == "postgresql" else ""
    try:
        return dict(_session_settings(options if isinstance(options, str) else options[-1])).get(
            "search_path"
        )
    except _Refused:
        return None


def schema_of(url: URL) -> str | None:
    """Return the schema of the tables in *url*, on PostgreSQL; ``None`` if it names no schema.

    Raises:
        InvalidURL: if the name is not valid for a schema.
    """
    given = url.query.get(SCHEMA)
    if given is None or url.get_backend_name() != "postgresql":
        return None
    if (
        not isinstance(given, str)
        or not re.fullmatch(r"[^\W\d]\w{0,62}", given, re.ASCII)
        or given.lower().startswith("pg_")
    ):
        raise InvalidURL(
            f"{given!r} is not the name of a schema for structjob's tables: use up to 63 letters, digits and underscores, "
            "beginning with a letter and not with pg_, for example schema=structjob"
        )
    return given


class _Refused(Exception):
    """An option cannot be used; the text gives the reason and follows the option's name."""


def _yes(value: str) -> bool:
    return value.lower() in ("true", "1", "on", "yes")


def _seconds(value: str) -> float | None:
    seconds = float(value)
    return seconds if seconds > 0 else None  # libpq: no limit


# -- PostgreSQL
# --------------------------------------------------------------------------

_POSTGRESQL_ARGUMENTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "connect_timeout": ("timeout", _seconds),
    "timeout": ("timeout", _seconds),
    "command_timeout": ("command_timeout", _seconds),
    "statement_cache_size": ("statement_cache_size", int),
    "max_cached_statement_lifetime": ("max_cached_statement_lifetime", int),
    "max_cacheable_statement_size": ("max_cacheable_statement_size", int),
    "prepared_statement_cache_size": ("prepared_statement_cache_size", int),
    "direct_tls": ("direct_tls", _yes),
    "dbname": ("database", str),
    "port": ("port", int),
    **{
        name: (name, str)
        for name in (
            "user",
            "password",
            "passfile",
            "service",
            "servicefile",
            "target_session_attrs",
            "krbsrvname",
        )
    },
}

# Options without effect: they always apply, or a limit of ours replaces them. A connection that
# does not answer is cut.
_POSTGRESQL_WITHOUT_EFFECT = {
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslcompression", "sslsni",
}  # fmt: skip

_POSTGRESQL_ONLY = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "sslnegotiation": ("postgres",),
    "client_encoding": ("utf8", "utf-8", "unicode", "auto"),
}
"""Options of libpq that asyncpg lacks, with the values that need no support because they
describe what asyncpg does anyway.
"""

_CONTEXT = "is not possible in a URL: pass an ssl.SSLContext, Tracker(url, engine_options={'connect_args': {'ssl': context}})"
_INSTEAD = {
    "channel_binding": "is not possible with asyncpg: remove it, and verify the server with sslmode=verify-full",
    "gssencmode": "is not possible with asyncpg: remove it, and encrypt with sslmode=require",
    "hostaddr": "is not possible with asyncpg: write the address as the host",
    "sslcrl": _CONTEXT,
    "sslpassword": _CONTEXT,
    "ssl_min_protocol_version": _CONTEXT,
    "require_auth": "is not possible with asyncpg: remove it",
}


def _postgresql(found: DriverOptions, name: str, value: str) -> None:
    if name == SCHEMA:
        found.settings["search_path"] = f'"{value}"'
    elif name in ("application_name", "fallback_application_name"):
        if name == "application_name" or name not in found.settings:
            found.settings["application_name"] = value
    elif name == "options":
        for setting, wanted in _session_settings(value):
            found.settings.setdefault(setting, wanted)
    elif name in _POSTGRESQL_ARGUMENTS:
        argument, convert = _POSTGRESQL_ARGUMENTS[name]
        found.arguments[argument] = convert(value)
    elif name not in _POSTGRESQL_WITHOUT_EFFECT and value.lower() not in _POSTGRESQL_ONLY.get(
        name, ()
    ):
        ours = (
            SCHEMA,
            "application_name",
            "options",
            "sslmode",
            "sslrootcert",
            "sslcert",
            "sslkey",
        )
        _refuse(
            name, [*_POSTGRESQL_ARGUMENTS, *_POSTGRESQL_ONLY, *_POSTGRESQL_WITHOUT_EFFECT, *ours]
        )


def _session_settings(options: str) -> list[tuple[str, str]]:
    r"""Return the settings in libpq's ``options``: ``-c name=value`` or ``--name=value``.

    A backslash escapes a blank in a value.
    """
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", options)]
    found = []
    waiting = iter(words)
    for word in waiting:
        given = next(waiting, "") if word == "-c" else word[2:] if word[:2] in ("-c", "--") else ""
        name, equals, value = given.partition("=")
        if not equals or not name:
            raise _Refused(
                "is not understood: write options=-c name=value, percent-encoded: options=-c%20statement_timeout%3D30s"
            )
        found.append((name.replace("-", "_"), value))
    return found


# -- MariaDB and MySQL
# --------------------------------------------------------------------------

_MYSQL_ARGUMENTS: dict[str, Callable[[str], Any]] = {
    "connect_timeout": int, "read_timeout": float, "max_allowed_packet": int, "client_flag": int, "port": int,
    **dict.fromkeys(("user", "password", "host", "unix_socket", "init_command", "program_name", "read_default_file", "read_default_group",
                     "server_public_key"), str),
}  # fmt: skip

_MYSQL_WITHOUT_EFFECT = {
    "charset", "collation", "use_unicode", "autocommit", "sql_mode", "write_timeout", "compress", "binary_prefix", "local_infile",
    "use_pure", "buffered", "raise_on_warnings",
}  # fmt: skip
"""Options that each of our connections sets itself, or does not need."""


def _mysql(found: DriverOptions, name: str, value: str) -> None:
    if name == SCHEMA:
        raise _Refused(
            "is for PostgreSQL; a schema of MariaDB and MySQL is a database: write its name after the host"
        )
    if name in _MYSQL_ARGUMENTS:
        found.arguments[name] = _MYSQL_ARGUMENTS[name](value)
    elif name not in _MYSQL_WITHOUT_EFFECT:
        _refuse(name, [*_MYSQL_ARGUMENTS, *_MYSQL_WITHOUT_EFFECT, "ssl_mode", "ssl_ca"])


def _refuse(name: str, known: list[str]) -> NoReturn:
    raise _Refused(
        _INSTEAD.get(name) or f"is unknown: remove it, or use one of {', '.join(sorted(known))}"
    )


def merged(ours: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for ``connect``: *ours*, overridden by those that the program has
    *given*.

    The server settings of both are merged.
    """
    both = {**ours, **given}
    if isinstance(given.get("server_settings"), Mapping):
        both["server_settings"] = {**ours.get("server_settings", {}), **given["server_settings"]}
    return both
