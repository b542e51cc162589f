"""The database that a command reads: found, never made; and what dead programs left undelivered is
delivered first.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from structjob.cli.screen import Failure, command_line, say
from structjob.exceptions import InvalidURL, SpoolError

if TYPE_CHECKING:
    from sqlalchemy import URL

    from structjob.spool.places import Places
    from structjob.store.ingest import Store

T = TypeVar("T")

TERMINATED = 143

LOOK_EVERY = 2.0
"""Seconds between two looks for what dead programs left, while a command goes on reading."""

_MUCH = 16 * 1024 * 1024
_PATIENCE = 10.0


def execute(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end. SIGTERM cancels it, so that what it opened is closed; the exit code is
    143 then.
    """
    import asyncio
    import signal

    import click

    terminated = False

    async def main() -> T:
        nonlocal terminated
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine runs in one

        def stop() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if terminated:
            raise click.exceptions.Exit(TERMINATED) from None
        raise


def working_directory() -> Path:
    """Return the working directory; one that was deleted, as it was called."""
    try:
        return Path.cwd()
    except OSError:
        with suppress(OSError):
            return Path(os.readlink("/proc/self/cwd").removesuffix(" (deleted)"))
        return Path(os.environ.get("PWD") or "/")


class Database:
    """What ``--db`` or the environment names.

    Args:
        given: A URL, or the path of an SQLite file; ``None`` for what the environment says.
    """

    def __init__(self, given: str | None = None) -> None:
        self._given = given

    @cached_property
    def url(self) -> URL:
        """The URL, a file's path made absolute: it holds wherever a child process goes.

        Raises:
            Failure: with exit code 2, if it is none.
        """
        from structjob.store.url import parse, sqlite_path

        try:
            parsed = parse(self._given)
            name = parsed.database or ""
            if (
                parsed.get_backend_name() != "sqlite"
                or name in ("", ":memory:")
                or name.startswith("file:")
            ):
                return parsed
            return parse(
                parsed.set(
                    database=str(
                        sqlite_path(parsed.set(database=os.path.join(working_directory(), name)))
                    )
                )
            )
        except InvalidURL as exc:
            raise Failure(str(exc), code=2) from exc

    @property
    def typed(self) -> bool:
        """Whether it stands on the command line."""
        return self._given is not None

    @property
    def path(self) -> Path | None:
        """The file, if it is one."""
        from structjob.store.url import sqlite_path

        return sqlite_path(self.url)

    def exists(self) -> bool:
        """Return whether the file is there.

        Raises:
            Failure: if this user may not look.
        """
        assert self.path is not None  # noqa: S101 -- asked of files only
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            raise Failure(
                f"cannot look at the database file {self.path}: {exc.strerror}; run this as a user who may read it"
            ) from exc
        return True

    @property
    def in_memory(self) -> bool:
        """Whether it is an SQLite database in memory, which nobody but its own process sees."""
        return self.url.get_backend_name() == "sqlite" and self.path is None

    @property
    def text(self) -> str:
        """The URL as it is handed on to a child process, its password included."""
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(
            hide_password=False
        )

    @property
    def shown(self) -> str:
        """What to call it: a file's path as people write it, or the URL without its password."""
        from structjob.store.url import masked

        path = self.path
        if path is None:
            return masked(self.url.set(drivername=self.url.get_backend_name()))
        try:
            return f".{os.sep}{path.relative_to(working_directory())}"
        except ValueError:
            return str(path)

    @property
    def option(self) -> str:
        """What ``--db`` needs in a command to type next; empty where the command finds the database
        without it. Never a password.
        """
        from structjob.store.url import is_url, masked

        if self._given is None:
            return ""
        with suppress(Failure):  # of what the environment says
            if self.url == Database().url:
                return ""
        return (
            masked(self._given).replace("***", "PASSWORD") if is_url(self._given) else self._given
        )


class Reader:
    """Reads a database.

    Attributes:
        jobs: See `structjob.queries.jobs.Jobs`.
        logs: See `structjob.queries.logs.Logs`.
        sessions: See `structjob.queries.session_status.Sessions`.
        errors: See `structjob.queries.errors.Errors`.
        stats: See `structjob.queries.statistics.Statistics`.
        fetch: Runs a statement and returns its rows.
    """

    def __init__(self, database: Database, store: Store) -> None:
        from structjob.reader import Reader as Reads

        self.fetch = store.fetch
        reads = Reads.over(database.url, fetch=store.fetch, transact=store.transact)
        self.jobs, self.logs, self.sessions = reads.jobs, reads.logs, reads.sessions
        self.errors, self.stats, self.verify = reads.errors, reads.stats, reads.verify
        self._database = database
        self._places = places_of(database)
        self._looked = 0.0

    async def deliver(self) -> list[int]:
        """Deliver what dead programs left in their spools, and mark their jobs as crashed.

        Returns:
            The sessions it was about; most often none.
        """
        self._looked = time.monotonic()
        return [] if self._places is None else await deliver_from(self._database, self._places)

    async def deliver_now_and_then(self) -> list[int]:
        """Do as `deliver` does, but not more often than makes sense."""
        return await self.deliver() if time.monotonic() - self._looked >= LOOK_EVERY else []


async def deliver_from(
    database: Database, places: Places, *, spool: bool | Path = True
) -> list[int]:
    """Deliver to *database* what dead programs left in its *places*, and mark their jobs as
    crashed; return the sessions it was about.

    Args:
        database: Where to.
        places: Where the spools of its programs may be.
        spool: What a tracker is told of it.
    """
    import asyncio

    from structjob.spool import directory as spool_directory

    # Whose lock is free has nobody to deliver it. Looked at only: taken over by the tracker below,
    # which knows how.
    orphans = spool_directory.adopt_elsewhere(places, None, set())
    for orphan in orphans:
        orphan.close()
    if not orphans:
        return []
    directories = [orphan.directory for orphan in orphans]
    size = sum(
        entry.stat().st_size for directory in directories for entry in directory.glob("*.jsonl")
    )
    if size > _MUCH:
        say(f"delivering {size / 1e6:,.0f} MB of lines that a program left behind when it died …")
    from structjob.tracker import Tracker

    tracker = Tracker(database.url, service="structjob-cli", spool=spool)
    try:
        await tracker.open()
    except SpoolError as exc:  # a full disk: whoever looks into it needs to read more than ever
        left = ", ".join(sorted({str(directory.parent) for directory in directories}))
        say(
            f"what programs that died left in {left} is not delivered: {exc}; what is stored is shown"
        )
        return []
    try:
        await tracker.flush()
        deadline = time.monotonic() + _PATIENCE
        # A directory goes away when its jobs are marked, a moment after its last line is stored.
        while time.monotonic() < deadline and any(  # noqa: ASYNC110 -- another's task does it
            directory.exists() and spool_directory.set_aside(directory) is None
            for directory in directories
        ):
            await asyncio.sleep(0.01)
    finally:
        await tracker.aclose()
    return [orphan.session.session_id for orphan in orphans]


def places_of(database: Database) -> Places | None:
    """Return where programs that log to *database* keep their spools by default; ``None`` if it is
    in memory.
    """
    from structjob.store.url import places

    return places(database.url)


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[Reader]:
    """Open *database* for reading, with everything in it that dead programs left.

    Raises:
        Failure: if there is no such database; it is not made.
    """
    _require(database)
    from structjob.store.factory import make_store

    store = make_store(database.url, {})
    try:
        await _require_tables(database, store)
        await store.open()
        reader = Reader(database, store)
        await reader.deliver()
        yield reader
    finally:
        await store.close()


def _require(database: Database) -> None:
    """Refuse what would have to be made first."""
    if database.in_memory:
        raise Failure(
            f"{database.shown} is in memory: nobody but the program that made it can read it; name a file, such as sqlite:///jobs.db"
        )
    path = database.path
    if path is None:
        return
    if not database.exists():
        missing = f"there is no database {database.shown}"
        left = _left_for(database)
        if left:
            raise Failure(
                f"{missing}, but {left:,} bytes of programs that died wait for it in {_where(database)}: restore it from a backup, or have "
                "`structjob migrate` make a new one; then they are delivered",
                hint=command_line("migrate", db=database.option),
            )
        raise Failure(missing, hint=_another(database))
    if path.is_file() and not _has_tables(path):
        raise _holds_nothing(database)


def _left_for(database: Database) -> int:
    """Return how many bytes wait for a database file that is not there."""
    from structjob.spool import directory as spool_directory

    found = places_of(database)
    return (
        sum(size for _, size in spool_directory.waiting(spool_directory.left_in(found)))
        if found is not None
        else 0
    )


def _where(database: Database) -> str:
    from structjob.spool import directory as spool_directory

    found = places_of(database)
    return (
        ", ".join(sorted({str(directory.parent) for directory in spool_directory.left_in(found)}))
        if found is not None
        else ""
    )


async def _require_tables(database: Database, store: Store) -> None:
    """Refuse a server's database without structjob's tables, unless a program that could not reach
    it left lines for it.
    """
    if database.url.get_backend_name() == "sqlite":
        return  # before the import, which takes a tenth of a second
    from structjob.spool import directory as spool_directory
    from structjob.store import migrations
    from structjob.store.server import ServerStore

    assert isinstance(store, ServerStore)  # noqa: S101 -- all others are servers
    await store.knock()
    found = places_of(database)
    if await store.administer(migrations.current) is None and (
        found is None or not spool_directory.left_in(found)
    ):
        raise _holds_nothing(database)


def _holds_nothing(database: Database) -> Failure:
    return Failure(f"{database.shown} holds no jobs or logs of structjob", hint=_another(database))


def _another(database: Database) -> str:
    return f"{command_line('run', '--', 'echo', 'hello', db=database.option)}, or name another database with --db"


def _has_tables(path: Path) -> bool:
    """Return whether structjob's tables are there: reading must not put them into somebody else's
    database.
    """
    import sqlite3
    from contextlib import closing

    from structjob.store.migrations import VERSION_TABLE

    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = ?", (VERSION_TABLE,)
            ).fetchone()
    except sqlite3.Error:
        return True  # whatever it is, opening says it better
    return found is not None
