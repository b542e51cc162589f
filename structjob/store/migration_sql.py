"""The migrations as SQL: rendered by Alembic from ``schema/``, for one database at a time."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from structjob.exceptions import InvalidArgument, StructjobError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

VERSION_TABLE = "structjob_alembic_version"
REVISIONS = ("0001",)
"""The revisions in ``schema/versions``, oldest first. The list is here because importing Alembic
takes longer than a whole start.
"""

DIALECTS = ("sqlite", "mariadb", "mysql", "postgresql")

_rendering = threading.Lock()


def head() -> str:
    """Return the newest revision that this version of structjob knows."""
    return REVISIONS[-1]


def render(
    dialect: str,
    direction: Literal["up", "down"] = "up",
    *,
    start: str | None = None,
    end: str | None = None,
    schema: str | None = None,
) -> str:
    """Return the SQL script that a DBA can apply instead of `structjob migrate`.

    Args:
        dialect: ``sqlite``, ``mariadb``, ``mysql`` or ``postgresql``.
        direction: ``up`` or ``down``.
        start: The first revision. Default: ``base`` (no tables) for ``up``, ``head`` for ``down``.
        end: The last revision. Default: ``head`` for ``up``, ``base`` for ``down``.
        schema: The schema of the tables, on PostgreSQL. Default: the first of the user's search
            path.

    Raises:
        InvalidArgument: if an argument has another value.
    """
    if dialect not in DIALECTS:
        raise InvalidArgument(f"unknown database {dialect!r}: use one of {', '.join(DIALECTS)}")
    if direction not in ("up", "down"):
        raise InvalidArgument(f"direction must be 'up' or 'down', not {direction!r}")
    first, last = ("base", "head") if direction == "up" else ("head", "base")
    begin, finish = known(start or first), known(end or last)
    if (order(finish) - order(begin)) * (1 if direction == "up" else -1) < 0:
        raise InvalidArgument(
            f"revision {begin} does not lead {direction} to {finish}: swap them, or change the direction"
        )
    body = [f"{statement};\n" for statement in statements(dialect, begin, finish)]
    if schema is not None:
        create = [f'CREATE SCHEMA IF NOT EXISTS "{schema}";\n'] if direction == "up" else []
        body = [*create, f'SET LOCAL search_path TO "{schema}";\n', *body]
    # Elsewhere every CREATE and DROP is committed automatically.
    if dialect in ("sqlite", "postgresql"):
        body = ["BEGIN;\n", *body, "COMMIT;\n"]
    return "\n".join(
        [f"-- structjob's tables on {dialect}: from revision {begin} to {finish}.\n", *body]
    )


def known(revision: str) -> str:
    """Return *revision* with ``head`` resolved.

    Raises:
        InvalidArgument: if there is no such revision.
    """
    if revision == "head":
        return head()
    if revision == "base" or revision in REVISIONS:
        return revision
    raise InvalidArgument(
        f"unknown revision {revision!r}: use one of base, {', '.join(REVISIONS)}, head"
    )


def order(revision: str) -> int:
    """Return the place of *revision* in the order of revisions.

    ``base`` comes before the first revision and is -1.
    """
    return -1 if revision == "base" else REVISIONS.index(revision)


class _Statements:
    """A collector of Alembic's output: each write is one statement or one comment."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def write(self, rendered: str) -> None:
        statement = rendered.strip().removesuffix(";")
        if statement and not statement.startswith("--"):
            statement = re.sub(r"[ \t]+$", "", statement, flags=re.MULTILINE)
            # MariaDB and MySQL warn, through the driver's logger, that they ignore the name of a
            # primary key.
            statement = statement.replace(f"CONSTRAINT {VERSION_TABLE}_pkc ", "")
            # Alembic's own INSERT returns a value that is not used, in a form that some servers do
            # not know.
            self.found.append(
                re.sub(rf"^(INSERT INTO {VERSION_TABLE} .*) RETURNING .*$", r"\1", statement)
            )

    def flush(self) -> None:
        """Do nothing: output is not buffered."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Alembic's log lines of this thread, except warnings."""
    thread = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or threading.get_ident() != thread

    loggers = [
        logging.getLogger(f"alembic.runtime.{name}")
        for name in ("plugins", "environment", "migration")
    ]
    for logger in loggers:
        logger.addFilter(others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(others)


@cache
def statements(dialect: str, start: str, end: str) -> tuple[str, ...]:
    """Return the SQL statements that lead from revision *start* to *end*, without semicolons."""
    with _quiet():
        return _rendered(dialect, start, end)


def _rendered(dialect: str, start: str, end: str) -> tuple[str, ...]:
    from alembic import command
    from alembic.config import Config

    found: Any = _Statements()
    config = Config(output_buffer=found)
    config.attributes.update(dialect_name=dialect, version_table=VERSION_TABLE)
    down = order(end) < order(start)
    # Alembic keeps its context in module globals. This code does not await, so tasks do not
    # interleave. The lock makes threads take turns.
    with _rendering, _location() as directory:
        config.set_main_option("script_location", str(directory).replace("%", "%%"))
        (command.downgrade if down else command.upgrade)(config, f"{start}:{end}", sql=True)
    if end == "base":
        found.write(f"DROP TABLE {VERSION_TABLE};")
    return tuple(_with_indexes(found.found) if dialect in ("mariadb", "mysql") else found.found)


def _with_indexes(found: list[str]) -> list[str]:
    """Return the statements with each index as a part of the creation of its table.

    On MariaDB and MySQL each statement is committed separately, and a cluster runs each one on all
    nodes before the next. A quarter of the statements takes a quarter of the time.
    """
    together: list[str] = []
    places: dict[str, int] = {}
    for statement in found:
        if table := re.match(r"CREATE TABLE (\w+) ", statement):
            places[table[1]] = len(together)
        index = re.fullmatch(r"CREATE (UNIQUE )?INDEX (\w+) ON (\w+) (\(.*\))", statement)
        if index and index[3] in places:
            head_, end, tail = together[places[index[3]]].rpartition("\n)")
            together[places[index[3]]] = (
                f"{head_},\n    {index[1] or ''}INDEX {index[2]} {index[4]}{end}{tail}"
            )
        else:
            together.append(statement)
    return together


@contextmanager
def _location() -> Iterator[Path]:
    """Yield the directory of the migrations; it is a temporary copy if structjob is in a zip
    file.
    """
    package = Path(__file__).resolve().parent.parent
    # in the package if installed from a wheel; beside the package in a checkout
    for directory in (package / "_schema", package.parent / "schema"):
        if (directory / "env.py").is_file():
            yield directory
            return
    # imported late: few programs need it
    from importlib import resources
    from tempfile import TemporaryDirectory

    packed = resources.files("structjob") / "_schema"
    if not (packed / "env.py").is_file():
        raise StructjobError(
            f"structjob's migrations are missing from {package}: install structjob again"
        )
    with TemporaryDirectory(prefix="structjob-") as place:
        _unpack(packed, Path(place))
        yield Path(place)


def _unpack(packed: Traversable, directory: Path) -> None:
    """Copy the files in *packed*; `resources.as_file` does this with directories since Python
    3.12.
    """
    for one in packed.iterdir():
        target = directory / one.name
        if one.is_dir():
            target.mkdir()
            _unpack(one, target)
        else:
            target.write_bytes(one.read_bytes())
