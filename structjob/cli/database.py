"""The database that a command reads. The command never creates it, and first delivers what dead
processes left.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from structjob.cli.screen import Failure, command_line, say
from structjob.exceptions import InvalidURL, SchemaMismatch, StoreUnavailable
from structjob.text.amounts import in_bytes

if TYPE_CHECKING:
    from structjob.reader import Reader as Reads
    from structjob.spool.places import Places
    from structjob.tracker import Tracker
    from structjob.urls.url import URL

P = ParamSpec("P")
T = TypeVar("T")

TERMINATED = 143

LOOK_EVERY = 2.0
"""Seconds between two searches for spools of dead processes, while a command keeps reading."""

_MUCH = 16 * 1024 * 1024


def execute(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end and return its result.

    SIGTERM cancels *work*, so that it closes what it opened. The exit code is 143 then.
    """
    import asyncio
    import signal

    import click

    terminated = False

    async def main() -> T:
        nonlocal terminated
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine runs in a task

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


def running(command: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Return a coroutine function as a function that runs it to its end; see `execute`."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return execute(command(*args, **kwargs))

    return run


def working_directory() -> Path:
    """Return the working directory; if it was deleted, the path that it had."""
    try:
        return Path.cwd()
    except OSError:
        with suppress(OSError):
            return Path(os.readlink("/proc/self/cwd").removesuffix(" (deleted)"))
        return Path(os.environ.get("PWD") or "/")


class Database:
    """The database that ``--db`` or the environment names.

    Args:
        given: A URL, or the path of an SQLite file; ``None`` for the environment's database.
    """

    def __init__(self, given: str | None = None) -> None:
        self._given = given

    @cached_property
    def url(self) -> URL:
        """The URL with an absolute file path, so that it is valid in any child process.

        Raises:
            Failure: with exit code 2, if the URL is invalid.
        """
        from structjob.urls.url import parse, sqlite_path

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
        """Whether the command line names the database."""
        return self._given is not None

    @property
    def path(self) -> Path | None:
        """The path of the SQLite file; ``None`` for any other database."""
        from structjob.urls.url import sqlite_path

        return sqlite_path(self.url)

    def exists(self) -> bool:
        """Return whether the file exists.

        Raises:
            Failure: if this user may not access it.
        """
        assert self.path is not None  # noqa: S101 -- called for files only
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            raise Failure(
                f"cannot access the database file {self.path}: {exc.strerror}; run this as a user who may read it"
            ) from exc
        return True

    @property
    def in_memory(self) -> bool:
        """Whether this is an SQLite database in memory, which only its own process can read."""
        return self.url.get_backend_name() == "sqlite" and self.path is None

    def refuse_memory(self, why: str) -> None:
        """Refuse a database in memory; *why* ends the message after "is in memory".

        Raises:
            Failure: with exit code 2.
        """
        if self.in_memory:
            raise Failure(f"{self.shown} is in memory{why}", code=2)

    @property
    def places(self) -> Places | None:
        """Its default spool directories; ``None`` if it is in memory."""
        from structjob.urls.url import places

        return places(self.url)

    @property
    def text(self) -> str:
        """The URL for a child process, including its password."""
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(
            hide_password=False
        )

    @property
    def shown(self) -> str:
        """The name for messages: a file's path as people write it, or the URL without its
        password.
        """
        from structjob.urls.url import masked

        path = self.path
        if path is None:
            return masked(self.url.set(drivername=self.url.get_backend_name()))
        try:
            return f".{os.sep}{path.relative_to(working_directory())}"
        except ValueError:
            return str(path)

    @property
    def option(self) -> str:
        """The value of ``--db`` for a suggested command; empty if the command finds the database
        without it.

        It never contains a password.
        """
        from structjob.urls.url import is_url, masked

        if self._given is None:
            return ""
        with suppress(Failure):  # from an invalid URL in the environment
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
        lookups: See `structjob.queries.lookups.Lookups`.
        verify: See `structjob.Reader.verify`.
        preview_prune: See `structjob.Reader.preview_prune`.
    """

    def __init__(self, database: Database, reads: Reads) -> None:
        from structjob.queries.jobs import lookups_of

        self.jobs, self.logs, self.sessions = reads.jobs, reads.logs, reads.sessions
        self.lookups = lookups_of(reads.jobs)
        self.errors, self.stats, self.verify = reads.errors, reads.stats, reads.verify
        self.preview_prune = reads.preview_prune
        self._database = database
        self._places = database.places
        self._looked = 0.0
        self._said: set[str] = set()

    async def deliver(self) -> list[int]:
        """Deliver the spools of dead processes, and mark their jobs as crashed.

        Returns:
            The affected sessions; usually empty.
        """
        self._looked = time.monotonic()
        if self._places is None:
            return []
        return await deliver_from(self._database, self._places, said=self._said)

    async def deliver_now_and_then(self) -> list[int]:
        """Call `deliver`, but at most every `LOOK_EVERY` seconds."""
        return await self.deliver() if time.monotonic() - self._looked >= LOOK_EVERY else []


async def deliver_from(
    database: Database, places: Places, *, spool: Path | None = None, said: set[str] | None = None
) -> list[int]:
    """Deliver the spools of dead processes to *database*, and mark their jobs as crashed.

    Args:
        database: The target.
        places: Directories that may contain the spools of its sessions.
        spool: The directory of the spools, if the programs name one.
        said: The warnings that were printed before, which are not repeated.

    Returns:
        The affected sessions.
    """
    from structjob.deliverer import Deliverer
    from structjob.spool import directory as spool_directory

    # A spool whose lock is free has no process that delivers it. This only looks for such spools;
    # the deliverer below adopts them.
    left = spool_directory.adopt_elsewhere(places, None, set())
    for one in left:
        one.close()
    if not left:
        return []
    directories = [one.directory for one in left]
    if (size := sum(size for _, size in spool_directory.waiting(directories))) > _MUCH:
        say(
            f"delivering {in_bytes(size)} of lines that a program did not deliver before it ended …"
        )
    try:
        async with Deliverer(database.url, spool=spool) as deliverer:
            await deliverer.flush()
    except (StoreUnavailable, InvalidURL) as exc:
        # A full disk, or a user that may only read: reading must still work, because it is needed
        # now to find the cause.
        where = ", ".join(sorted({str(directory.parent) for directory in directories}))
        text = f"structjob: warning: lines of programs that have ended wait in {where} and cannot be stored now: {exc}; only what is stored is shown"
        said = set() if said is None else said
        if text not in said:
            say(text)
        said.add(text)
        return []
    return [one.session.session_id for one in left]


def writing(database: Database, *, spool: bool | Path = True) -> Tracker:
    """Return a tracker with which a command changes *database*.

    It does not open if the database refuses what a command needs, such as the right to write:
    nothing then waits in a spool.
    """
    from structjob.tracker import Tracker

    return Tracker(database.url, service="structjob-cli", spool=spool, strict=True)


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[Reader]:
    """Open *database* for reading, after the spools of dead processes are delivered.

    Raises:
        Failure: if the database does not exist; it is not created.
    """
    require(database)
    from structjob.reader import Reader as Reads

    reads = Reads(database.url)
    try:
        await _open(database, reads)
        reader = Reader(database, reads)
        await reader.deliver()
        yield reader
    finally:
        await reads.aclose()


def require(database: Database) -> None:
    """Refuse a database that does not exist yet."""
    if database.in_memory:
        raise Failure(
            f"{database.shown} is in memory: only the program that made it can read it; name a file, such as sqlite:///jobs.db"
        )
    path = database.path
    if path is None:
        return
    if not database.exists():
        missing = f"there is no database {database.shown}"
        left, where = _left_for(database)
        if left:
            raise Failure(
                f"{missing}, but {in_bytes(left)} of programs that died wait for it in {where}: restore it from a backup, or have "
                "`structjob migrate` make a new one; then they are delivered",
                hint=command_line("migrate", db=database.option),
            )
        if not path.parent.is_dir():
            raise Failure(
                f"{missing}, and no directory {path.parent}", hint="name another database with --db"
            )
        raise Failure(missing, hint=_another(database))


def _left_for(database: Database) -> tuple[int, str]:
    """Return how many bytes wait for a database file that does not exist, and where."""
    from structjob.spool import directory as spool_directory

    places = database.places
    left = spool_directory.left_in(places) if places is not None else []
    size = sum(size for _, size in spool_directory.waiting(left))
    return size, ", ".join(sorted({str(directory.parent) for directory in left}))


async def _open(database: Database, reads: Reads) -> None:
    """Open *reads*. Refuse a database without structjob's tables; upgrade an older file.

    If a program left a spool because it could not reach the server, deliver it: that creates the
    tables.
    """
    try:
        await reads.open()
    except SchemaMismatch as exc:
        if exc.older and database.path is not None:
            from structjob.schema import Schema

            Schema(database.url, shown=database.shown).upgrade()
            await reads.open()
            return
        if not exc.absent:
            raise
        places = database.places if database.path is None else None
        if places is None or not await deliver_from(database, places):
            raise Failure(
                f"{database.shown} holds no jobs or logs of structjob", hint=_another(database)
            ) from None
        await reads.open()


def _another(database: Database) -> str:
    return f"{command_line('run', '--', 'echo', 'hello', db=database.option)}, or name another database with --db"
