"""What every trial has in common: a site, programs that log there, what the library and the oracle
say at the end, and what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from breakable_servers import SERVERS, Server, small_disk
from cli_support import preforked
from fault_proxy import FaultProxy
from faults import PASSWORD, USER, Site, frozen_writer
from oracle import Promises, Verdict, find, judge
from prefork import Forked

import structjob
from structjob.queries.verify import VerifyResult

TESTS = Path(__file__).parent
BACKENDS = ("sqlite", *SERVERS)

PATIENCE = 60.0
"""Seconds to wait for another process; longer than the library waits between two attempts."""


PATIENT = re.compile("has not answered within|answers again")
"""What a program says that is kept waiting for the database when it starts; on a busy machine some
do.
"""


@dataclass
class Outcome:
    """What came of one scenario; each kind of scenario adds its figures.

    Attributes:
        said: What the library said on its own logger.
        problems: What is not as promised.
    """

    scenario: str
    backend: str
    said: list[str] = field(default_factory=list, kw_only=True)
    problems: list[str] = field(default_factory=list, kw_only=True)

    def __post_init__(self) -> None:
        if any(PASSWORD in message for message in self.said):
            self.problems.append("a message contains the password")

    def cells(self) -> tuple[str, ...]:
        """Return its row of the table; a short row is filled up."""
        return self.scenario, self.backend


@dataclass(frozen=True, slots=True)
class Section:
    """Scenarios whose outcomes are in one table.

    Attributes:
        name: Part of the marks around its place in the document, and of what ``--only`` looks at.
        head: The columns.
        left: How many of them are text.
        summary: Returns the sentence above the table.
    """

    name: str
    head: tuple[str, ...]
    left: int
    summary: Callable[[Sequence[Any]], str]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is tried.

    Attributes:
        lane: Scenarios of a lane run one after the other, lanes at the same time: a database,
            mostly.
        run: Tries it in a directory, which is there; on the lane's server, where it has one.
    """

    section: Section
    name: str
    lane: str
    run: Callable[[Path, Server | None], Awaitable[Outcome]]

    @property
    def title(self) -> str:
        return f"{self.section.name}: {self.name}"


def on_site(
    section: Section,
    name: str,
    backend: str,
    run: Callable[[Site], Awaitable[Outcome]],
    disk: tuple[str, int] | None = None,
) -> Scenario:
    """Return a scenario that wants a site with an empty database."""

    async def placed(directory: Path, server: Server | None) -> Outcome:
        async with place(backend, directory, server, disk) as site:
            return await run(site)

    return Scenario(section, name, backend, placed)


async def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for what another process does; there is nothing to await."""
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if await asyncio.to_thread(condition):
            return
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain until {what}")
        # Most of the time is for the programs.
        await asyncio.sleep(min(max(0.02, 10 * (now - asked)), 0.2))


def start_program(name: str, *words: object, stderr: IO[bytes] | int) -> Forked:
    """Start a program of the directory `programs`, stdin and stdout as pipes."""
    path = TESTS / "programs" / f"{name}.py"
    return preforked.start(
        f"import runpy, sys\n"
        f"sys.path[:0] = {[str(path.parent), str(TESTS)]}\n"
        f"runpy.run_path({str(path)!r}, run_name='__main__')",
        [str(word) for word in words],
        TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


class Program:
    """A producer, running."""

    def __init__(self, site: Site, name: str) -> None:
        self.notes = site.directory / name
        self.console = site.directory / f"{name}.console"
        self._process: Forked

    @classmethod
    async def start(cls, site: Site, name: str, *options: str) -> Program:
        program = cls(site, name)
        with open(program.console, "wb") as console:
            program._process = await asyncio.to_thread(
                start_program,
                "producer",
                site.url,
                program.notes,
                "--spool",
                site.spool,
                *options,
                stderr=console,
            )
        return program

    def logged(self) -> int:
        """Return how many of its log calls have returned."""
        return self.notes.read_bytes().count(b"\nreturned ") if self.notes.exists() else 0

    async def has_logged(self, count: int) -> None:
        """Wait until so many of its log calls have returned.

        Raises:
            RuntimeError: if it ends before.
        """
        await until(
            lambda: not self.running() or self.logged() >= count,
            f"a program had logged {count} events",
        )
        if self.logged() < count:
            raise RuntimeError(f"a program ended too early: {self.console.read_text()[-3000:]}")

    def running(self) -> bool:
        """Return whether it has neither ended nor been killed."""
        return self._process.poll() is None

    async def finish(self) -> dict[str, Any]:
        """Let it come to its end, and return what it felt."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        await until(lambda: not self.running(), "a program had ended", 300)
        if self._process.returncode:
            raise RuntimeError(f"a program failed: {self.console.read_text()[-3000:]}")
        felt: dict[str, Any] = json.loads(self._process.stdout.read())
        return felt

    async def kill(self) -> None:
        await asyncio.to_thread(self._process.close)

    def shown(self) -> set[str]:
        """Return the ids of the events that are on its console."""
        lines = (
            json.loads(line)
            for line in self.console.read_bytes().splitlines()
            if line.startswith(b"{")
        )
        return {line["id"] for line in lines if "id" in line}


@contextlib.asynccontextmanager
async def place(
    backend: str, directory: Path, server: Server | None, disk: tuple[str, int] | None = None
) -> AsyncIterator[Site]:
    """Make a site with an empty database.

    Args:
        backend: Which database.
        directory: Where it may write.
        server: A server that is there already; otherwise one is started where it is needed.
        disk: See `Fault`; ``both`` puts the spool on the disk of the database.
    """
    async with contextlib.AsyncExitStack() as stack:
        directory.mkdir(parents=True, exist_ok=True)
        mounted: Path | None = None
        spool: Path | None = None
        if disk is not None:
            mounted = stack.enter_context(
                small_disk(directory / ("spool" if disk[0] == "spool" else "disk"), disk[1])
            )
            mounted.chmod(0o700 if disk[0] == "spool" else 0o755)
            spool = mounted / "spool" if disk[0] == "both" else None
        if backend == "sqlite":
            yield Site(
                directory,
                database_directory=mounted if disk is not None and disk[0] != "spool" else None,
                own_spool=spool,
            )
            return
        if mounted is not None or server is None:
            server = stack.enter_context(SERVERS[backend]((mounted or directory) / "server"))
        await asyncio.to_thread(server.clear, USER, PASSWORD)
        site = Site(
            directory,
            server,
            await stack.enter_async_context(FaultProxy("127.0.0.1", server.port)),
            mounted,
            spool,
        )
        async with structjob.Tracker(site.url, spool=False) as tracker:
            await _proved(tracker)  # the tables are there: to create them is not what is tried here
        yield site


async def recover(site: Site) -> list[str]:
    """Deliver what dead programs left behind, and let the library prove that nothing is missing;
    return what it complains of.
    """
    async with structjob.Tracker(site.direct_url, spool=site.spool) as tracker:
        verification = await _proved(tracker)
    problems = [] if verification.ok else [f"verify complains: {verification}"]
    if site.server is None:
        with contextlib.closing(sqlite3.connect(site.file)) as connection:
            ((found,),) = connection.execute("PRAGMA integrity_check")
        problems += [f"the file is damaged: {found}"] if found != "ok" else []
    left = [path.name for path in site.spool.iterdir() if path.name.isdigit()]
    return problems + ([f"spools are left: {left}"] if left else [])


async def _proved(tracker: structjob.Tracker) -> VerifyResult:
    """Flush and verify, though the database may have to find its feet after what was done to it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(structjob.StoreUnavailable):
                return await tracker.verify()
            await asyncio.sleep(0.1)


async def check(site: Site, programs: Sequence[Program]) -> Verdict:
    promises = Promises.read(program.notes for program in programs)
    return judge(promises, await find(site.direct_url))


@contextlib.asynccontextmanager
async def frozen(site: Site) -> AsyncIterator[None]:
    """Have the database give no answer for a while."""
    if site.server is None:
        async with frozen_writer(site):
            yield
        return
    site.server.freeze()
    try:
        yield
    finally:
        site.server.thaw()
