"""The faults: what is done to a database, or to the way to it, while a program logs.

Each is an asynchronous context manager over a `Site`: entering breaks something, and
leaving repairs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from breakable_servers import SERVERS, ClientFailed, Server, filled
from fault_proxy import FaultProxy
from oracle import DRIVERS
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

USER, PASSWORD = "joe", "secret-of-joe"


@dataclass(frozen=True, slots=True)
class Site:
    """A database, and the way of a program to it.

    Args:
        directory: For spools, notes, consoles; on SQLite for the database file, too.
        server: The server, if it is one; no other test uses it.
        proxy: Stands between the program and the server.
        database_directory: Where the file of an SQLite database lies, `directory` unless told.
        own_spool: The directory of the spools, unless it is in `directory`.
    """

    directory: Path
    server: Server | None = None
    proxy: FaultProxy | None = None
    database_directory: Path | None = None
    own_spool: Path | None = None

    @property
    def backend(self) -> str:
        return "sqlite" if self.server is None else self.server.backend

    @property
    def file(self) -> Path:
        """The file of an SQLite database."""
        return (self.database_directory or self.directory) / "jobs.db"

    @property
    def url(self) -> str:
        """What the program is told: through the proxy, as a user without rights over the server."""
        if self.server is None:
            return f"sqlite:///{self.file}"
        assert self.proxy is not None
        return self.server.url(port=self.proxy.port, user=USER, password=PASSWORD)

    @property
    def direct_url(self) -> str:
        """What the oracle is told: no proxy, no limits."""
        return self.server.url() if self.server is not None else self.url

    @property
    def spool(self) -> Path:
        return self.own_spool or self.directory / "spool"

    def engine(self, url: str | None = None) -> AsyncEngine:
        """Return the engine of another program that uses the same database."""
        parsed = make_url(url or self.direct_url)
        return create_async_engine(
            parsed.set(drivername=DRIVERS[parsed.get_backend_name()]), poolclass=NullPool
        )

    def stored(self) -> int:
        """Return how many of the program's events are stored by now; 0 while there is no table."""
        return self._number("SELECT count(*) FROM structjob_logs WHERE message = 'offered'")

    def confirmed(self) -> int:
        """Return how many events the database has confirmed to the program by its latest heartbeat;
        0 while there is no table.
        """
        return self._number("SELECT coalesce(max(confirmed), 0) FROM structjob_sessions")

    def _number(self, query: str) -> int:
        try:
            if self.server is not None:
                return int(self.server.ask(query))
            with contextlib.closing(
                sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)
            ) as connection:
                return int(connection.execute(query).fetchone()[0])
        except (sqlite3.OperationalError, subprocess.CalledProcessError):
            return 0


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which things break.

    Args:
        name: What happens, in words.
        breaks: Breaks it, and repairs it.
        backends: Where it can happen.
        stalls: Whether nothing gets through while it lasts.
        noticed: Whether deliveries fail by it, so that the library has something to say.
        rate: Events a second that the program logs.
        lasts: Events that it logs before the fault is repaired.
        disk: Megabytes of a small disk that the database (``database``) or the spool (``spool``) is
            put on.
    """

    name: str
    breaks: Callable[[Site], AbstractAsyncContextManager[None]]
    backends: tuple[str, ...]
    stalls: bool = True
    noticed: bool = True
    rate: int = 400
    lasts: int = 600
    disk: tuple[str, int] | None = None

    def __str__(self) -> str:
        return self.name


# -- the network
# --------------------------------------------------------------------------


def _on_proxy(
    breaks: Callable[[FaultProxy], object],
) -> Callable[[Site], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def fault(site: Site) -> AsyncIterator[None]:
        assert site.proxy is not None
        breaks(site.proxy)
        try:
            yield
        finally:
            site.proxy.go()

    return fault


@contextlib.asynccontextmanager
async def _resets(site: Site) -> AsyncIterator[None]:
    """Cut every connection, again and again: about every 20 ms."""
    proxy = site.proxy
    assert proxy is not None

    async def reset() -> None:
        while True:
            proxy.reset()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(reset())
    try:
        yield
    finally:
        task.cancel()


@contextlib.asynccontextmanager
async def _refused(site: Site) -> AsyncIterator[None]:
    assert site.proxy is not None
    await site.proxy.refuse()
    try:
        yield
    finally:
        await site.proxy.accept()


_COMMIT = {"mariadb": b"COMMIT", "postgresql": b"COMMIT"}
EVENTS = {"mariadb": b"INSERT INTO structjob_logs", "postgresql": b'[{"ts":'}
"""What stands in a statement that stores events; PostgreSQL gets its text once only, and then
what to store.
"""


def _cut(
    patterns: dict[str, bytes], *, after: bool
) -> Callable[[Site], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def fault(site: Site) -> AsyncIterator[None]:
        proxy, pattern = site.proxy, patterns[site.backend]
        assert proxy is not None
        (proxy.cut_after if after else proxy.cut_before)(pattern)
        try:
            yield
            assert proxy.cuts, (
                f"no {pattern!r} came by: the store sends another word for it, and the fault was none"
            )
        finally:
            proxy.go()

    return fault


# -- the server
# --------------------------------------------------------------------------


def _on_server(
    breaks: Callable[[Server], object], mends: Callable[[Server], object]
) -> Callable[[Site], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def fault(site: Site) -> AsyncIterator[None]:
        assert site.server is not None
        await asyncio.to_thread(breaks, site.server)
        try:
            yield
        finally:
            await asyncio.to_thread(mends, site.server)

    return fault


def _read_only(server: Server) -> None:
    server.read_only(True)
    server.disconnect(USER)  # PostgreSQL: an open transaction keeps what it began with


def _another_password(server: Server) -> None:
    server.set_password(USER, "another")
    server.disconnect(USER)


@contextlib.asynccontextmanager
async def _crowded(site: Site) -> AsyncIterator[None]:
    """Take every connection that the server has to give."""
    server = site.server
    assert server is not None
    engine = site.engine(server.url(user=USER, password=PASSWORD))
    taken: list[AsyncConnection] = []
    own: set[int] = set()
    try:
        calm = 0
        # a connection that has just ended may hold its place for a moment, and free it for the
        # first that asks
        while calm < 3:
            held = len(taken)
            others = await _fill(engine, server, taken, own)
            for number in others:  # the program's: they are ours when it comes back for them
                await asyncio.to_thread(server.end, number)
            calm = calm + 1 if not others and len(taken) == held else 0
        yield
    finally:
        await _parted(taken)
        await engine.dispose()


async def _fill(
    engine: AsyncEngine, server: Server, taken: list[AsyncConnection], own: set[int]
) -> set[int]:
    """Take what can be had; return which connections of the same user are not ours, by their
    numbers.
    """
    number = text(
        "SELECT connection_id()" if server.backend == "mariadb" else "SELECT pg_backend_pid()"
    )
    with contextlib.suppress(DBAPIError, OSError):
        while True:
            connection = await engine.connect()
            taken.append(connection)
            own.add((await connection.execute(number)).scalar_one())
    while True:
        # the administrator's own connection may be in use for a moment
        with contextlib.suppress(subprocess.CalledProcessError):
            return await asyncio.to_thread(server.connections, USER) - own


async def _parted(connections: list[AsyncConnection]) -> None:
    for connection in connections:
        with contextlib.suppress(DBAPIError, OSError):
            await connection.invalidate()
        with contextlib.suppress(DBAPIError, OSError):
            await connection.close()


@contextlib.asynccontextmanager
async def _locked_table(site: Site) -> AsyncIterator[None]:
    """Another program's transaction holds the table of the events."""
    engine = site.engine()
    async with engine.connect() as connection:
        if site.backend == "mariadb":
            await connection.execute(text("LOCK TABLES structjob_logs WRITE"))
        else:
            await connection.execute(text("LOCK TABLE structjob_logs IN ACCESS EXCLUSIVE MODE"))
        yield
        if site.backend == "mariadb":
            await connection.execute(text("UNLOCK TABLES"))
        await connection.rollback()
    await engine.dispose()


@contextlib.asynccontextmanager
async def _renamed_table(site: Site) -> AsyncIterator[None]:
    """The table of the events is gone: a backup is being restored, or a migration of another
    version runs.
    """

    async def rename(old: str, new: str) -> None:
        if site.server is None:
            with contextlib.closing(sqlite3.connect(site.file, timeout=30.0)) as connection:
                connection.execute("PRAGMA legacy_alter_table=1")
                connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
            return
        for tries_left in (3, 2, 1, 0):
            try:
                await asyncio.to_thread(site.server.sql, f"ALTER TABLE {old} RENAME TO {new}")
            except (
                ClientFailed
            ):  # the server may be counting the table's rows at this moment, and then refuses
                if not tries_left:
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    await rename("structjob_logs", "somebody_elses")
    try:
        yield
    finally:
        await rename("somebody_elses", "structjob_logs")


@contextlib.asynccontextmanager
async def _deadlocks(site: Site) -> AsyncIterator[None]:
    """Another transaction locks, over and over, the rows of the jobs and events that are being
    written, in the opposite order.

    It takes a number that the program's session is about to reach. The program's insert must wait
    for it, and holds the rows of its jobs and of its session meanwhile, for which the other then
    asks: the server ends one of the two, and both see to it that it is the program.
    """
    server = site.server
    assert server is not None
    engine = site.engine()
    await asyncio.to_thread(server.sql, "CREATE TABLE heavy (n int)")
    before = await asyncio.to_thread(server.deadlocks)
    stopped = asyncio.Event()
    task = asyncio.create_task(_collide(engine, stopped))
    try:
        yield
        await _until(lambda: server.deadlocks() > before)
    finally:
        stopped.set()
        await task
        await engine.dispose()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30.0):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def _collide(engine: AsyncEngine, stopped: asyncio.Event) -> None:
    heavy = (  # MariaDB ends the transaction that has changed less
        "INSERT INTO heavy WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000) "
        "SELECT n FROM numbers"
    )
    in_the_way = (
        "INSERT INTO structjob_logs (session_id, seq, ts, stored_at, level, message, attrs, type, kind, stream, category) "
        "SELECT session_id, max(seq) + 20, max(ts), max(stored_at), 'info', 'in the way', '{}', 'system', 'log', 'system', 'system' "
        "FROM structjob_logs GROUP BY session_id"
    )
    wanted = (
        "UPDATE structjob_jobs SET description = 'x'",
        "UPDATE structjob_sessions SET version = 'x'",
    )
    async with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # PostgreSQL ends the one that notices first
            await connection.execute(text("SET deadlock_timeout = '10s'"))
            await connection.commit()
        while not stopped.is_set():
            with contextlib.suppress(DBAPIError):
                await connection.execute(text(heavy))
                await connection.execute(text(in_the_way))
                await asyncio.sleep(0.1)  # for the program to come to the number
                for statement in wanted:
                    await connection.execute(text(statement))
            await connection.rollback()
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def full_database(site: Site) -> AsyncIterator[None]:
    """The disk of the database has no room."""
    directory = site.server.directory if site.server is not None else site.database_directory
    assert directory is not None
    with filled(directory):
        yield
    if site.server is not None and not await asyncio.to_thread(site.server.running):
        # it may give up over a full disk; its operator starts it again
        await asyncio.to_thread(site.server.start)


@contextlib.asynccontextmanager
async def _full_spool(site: Site) -> AsyncIterator[None]:
    with filled(site.spool):
        yield


# -- SQLite
# --------------------------------------------------------------------------

_HOLD = (
    "import sqlite3, sys, signal, os\n"
    "connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
    "connection.execute('BEGIN IMMEDIATE')\n"
    "print('held', flush=True)\n"
    "os.kill(os.getpid(), signal.SIGSTOP)\n"
)


@contextlib.asynccontextmanager
async def frozen_writer(site: Site) -> AsyncIterator[None]:
    """Another program is stopped in the middle of its transaction, and holds the file locked."""
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLD, site.file, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    try:
        await holder.stdout.readline()
        yield
    finally:
        holder.kill()
        await holder.communicate()


# -- all of them
# --------------------------------------------------------------------------

_SERVERS = tuple(SERVERS)

_TIMED_OUT = 4_800
"""Events until a transaction without an answer is given up, at 400 a second: after 10 seconds."""

FAULTS = (
    Fault("connections are reset", _resets, _SERVERS, stalls=False),
    Fault("connections are refused", _refused, _SERVERS),
    Fault(
        "the network swallows everything", _on_proxy(FaultProxy.stop), _SERVERS, lasts=_TIMED_OUT
    ),
    Fault(
        "the network is slow",
        _on_proxy(lambda proxy: proxy.trickle(40_000)),
        _SERVERS,
        stalls=False,
        noticed=False,
    ),
    Fault("cut before each COMMIT arrives", _cut(_COMMIT, after=False), ("mariadb",)),
    Fault("cut before each COMMIT is answered", _cut(_COMMIT, after=True), ("mariadb",)),
    # There a batch of events alone is one statement without a COMMIT, and gets through.
    Fault(
        "cut before each COMMIT arrives", _cut(_COMMIT, after=False), ("postgresql",), stalls=False
    ),
    Fault(
        "cut before each COMMIT is answered",
        _cut(_COMMIT, after=True),
        ("postgresql",),
        stalls=False,
    ),
    Fault("cut before each batch arrives", _cut(EVENTS, after=False), _SERVERS),
    Fault("cut before each batch is answered", _cut(EVENTS, after=True), _SERVERS),
    Fault(
        "the server is frozen", _on_server(Server.freeze, Server.thaw), _SERVERS, lasts=_TIMED_OUT
    ),
    Fault("the server is killed and started", _on_server(Server.kill, Server.start), _SERVERS),
    Fault("the server is stopped and started", _on_server(Server.stop, Server.start), _SERVERS),
    Fault(
        "the server is read-only",
        _on_server(_read_only, lambda server: server.read_only(False)),
        _SERVERS,
    ),
    Fault(
        "another password",
        _on_server(_another_password, lambda server: server.set_password(USER, PASSWORD)),
        _SERVERS,
    ),
    Fault("too many connections", _crowded, _SERVERS),
    Fault(
        "another transaction holds the table", _locked_table, _SERVERS, lasts=1_500, noticed=False
    ),
    Fault("deadlocks", _deadlocks, _SERVERS, stalls=False, noticed=False),
    Fault(
        "another program is frozen in its transaction", frozen_writer, ("sqlite",), noticed=False
    ),
    Fault("the table is missing", _renamed_table, ("sqlite", *_SERVERS)),
    Fault(
        "the disk of the database is full",
        full_database,
        ("sqlite", *_SERVERS),
        disk=("database", 96),
    ),
    Fault(
        "the disk of the spool is full", _full_spool, ("sqlite",), stalls=False, disk=("spool", 8)
    ),
)
