"""Breaks things on purpose and counts what is lost.

A program (``programs/producer.py``) logs while something is done to its database, or to itself; then the oracle compares what it was
promised with what is stored. The tests run each scenario once; as a command it runs all of them on each database, with as many kills
as it is told, prints what it found, and puts the table into ``docs/reliability.md``::

    python tests/reliability.py --kills 200 --write
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
if __name__ == "__main__":
    sys.path.insert(1, str(TESTS.parent))

from breakable_servers import SERVERS, Server, ServerMissing, small_disk  # noqa: E402
from fault_proxy import FaultProxy  # noqa: E402
from faults import FAULTS, PASSWORD, USER, Fault, Site, frozen_writer  # noqa: E402
from oracle import Promises, Verdict, find, judge  # noqa: E402

import structjob  # noqa: E402
from structjob.store.verify import Verification  # noqa: E402

BACKENDS = ("sqlite", *SERVERS)

LONGEST = 1.0
"""Seconds that a log call may take while things are broken. Each fault lasts longer, so a call that waits for its end is found out; the
rest is for a machine that is busy otherwise."""

PATIENCE = 60.0
"""Seconds to wait for another process; longer than the library waits between two attempts."""

CLOSING = 2.0
"""Seconds that a program gives its tracker for closing, where the database is frozen."""


@dataclass(slots=True)
class Outcome:
    """What came of one scenario.

    Attributes:
        tried: How often it was broken.
        resumed: Seconds from when it was mended until the next event was stored; ``None`` where that is not the question.
        longest: Seconds of the longest log call.
        said: What the library said on its own logger.
        problems: What is not as promised.
    """

    scenario: str
    backend: str
    tried: int
    verdict: Verdict
    resumed: float | None = None
    longest: float = 0.0
    said: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.problems += [f"{number} {name.replace('_', ' ')}" for name, number in self.verdict.faults().items()]
        if self.longest > LONGEST:
            self.problems.append(f"a log call took {self.longest:.2f} s")
        if any(PASSWORD in message for message in self.said):
            self.problems.append("a message tells the password")


async def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for what another process does; there is nothing to await."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain until {what}")
        await asyncio.sleep(0.02)


class Program:
    """A producer, running."""

    def __init__(self, site: Site, name: str) -> None:
        self.notes = site.directory / name
        self.console = site.directory / f"{name}.console"
        self._process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, site: Site, name: str, *options: str) -> Program:
        program = cls(site, name)
        paths = os.pathsep.join(filter(None, [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH")]))
        with open(program.console, "wb") as console:
            program._process = await asyncio.create_subprocess_exec(
                sys.executable, str(TESTS / "programs" / "producer.py"), site.url, str(program.notes), "--spool", str(site.spool), *options,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console, env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
        return program

    def logged(self) -> int:
        """Return how many of its log calls have returned."""
        return self.notes.read_bytes().count(b"\nreturned ") if self.notes.exists() else 0

    async def has_logged(self, count: int) -> None:
        """Wait until so many of its log calls have returned.

        Raises:
            RuntimeError: if it ends before.
        """
        await until(lambda: self._process.returncode is not None or self.logged() >= count, f"a program had logged {count} events")
        if self.logged() < count:
            raise RuntimeError(f"a program ended too early: {self.console.read_text()[-3000:]}")

    async def finish(self) -> dict[str, Any]:
        """Let it come to its end, and return what it felt."""
        out, _ = await self._process.communicate(b"")  # the end of its standard input
        if self._process.returncode:
            raise RuntimeError(f"a program failed: {self.console.read_text()[-3000:]}")
        felt: dict[str, Any] = json.loads(out)
        return felt

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    def shown(self) -> set[str]:
        """Return the ids of the events that are on its console."""
        lines = (json.loads(line) for line in self.console.read_bytes().splitlines() if line.startswith(b"{"))
        return {line["id"] for line in lines if "id" in line}


@contextlib.asynccontextmanager
async def place(backend: str, directory: Path, server: Server | None, disk: tuple[str, int] | None = None) -> AsyncIterator[Site]:
    """Make a site with an empty database.

    Args:
        backend: Which database.
        directory: Where it may write.
        server: A server that is there already; otherwise one is started where it is needed.
        disk: See `Fault`.
    """
    async with contextlib.AsyncExitStack() as stack:
        directory.mkdir(parents=True, exist_ok=True)
        mounted: Path | None = None
        if disk is not None:
            mounted = stack.enter_context(small_disk(directory / ("spool" if disk[0] == "spool" else "disk"), disk[1]))
            mounted.chmod(0o700 if disk[0] == "spool" else 0o755)
        if backend == "sqlite":
            yield Site(directory, database_directory=mounted if disk is not None and disk[0] == "database" else None)
            return
        if mounted is not None or server is None:
            server = stack.enter_context(SERVERS[backend]((mounted or directory) / "server"))
        await asyncio.to_thread(server.clear, USER, PASSWORD)
        site = Site(directory, server, await stack.enter_async_context(FaultProxy("127.0.0.1", server.port)), mounted)
        async with structjob.Tracker(site.url, spool=False) as tracker:
            await _proved(tracker)  # the tables are there: to create them is not what is tried here
        yield site


async def recover(site: Site) -> list[str]:
    """Deliver what dead programs left behind, and let the library prove that nothing is missing; return what it complains of."""
    async with structjob.Tracker(site.direct_url, spool=site.spool) as tracker:
        verification = await _proved(tracker)
    problems = [] if verification.ok else [f"verify complains: {verification}"]
    if site.server is None:
        with contextlib.closing(sqlite3.connect(site.file)) as connection:
            ((found,),) = connection.execute("PRAGMA integrity_check")
        problems += [f"the file is damaged: {found}"] if found != "ok" else []
    left = [path.name for path in site.spool.iterdir() if path.name.isdigit()]
    return problems + ([f"spools are left: {left}"] if left else [])


async def _proved(tracker: structjob.Tracker) -> Verification:
    """Flush and verify, though the database may have to find its feet after what was done to it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(structjob.StoreUnavailable):
                return await tracker.verify()
            await asyncio.sleep(0.1)


async def check(site: Site, programs: Sequence[Program]) -> Verdict:
    promises = Promises.read(program.notes for program in programs)
    return judge(promises, await find(site.direct_url))


# -- scenarios --------------------------------------------------------------------------------------------------------------


async def endure(site: Site, fault: Fault) -> Outcome:
    """Break something while a program logs, mend it, and let the program go on and end."""
    program = await Program.start(site, "program", "--rate", str(fault.rate), "--console", "--timeout", "30")
    try:
        await until(lambda: site.stored() > 100, "the first events were stored")
        async with fault.breaks(site):
            await program.has_logged(program.logged() + fault.lasts)
        mended, before, waiting = time.monotonic(), await asyncio.to_thread(site.stored), program.logged()
        await until(lambda: site.stored() > before, "delivery had resumed")
        resumed = time.monotonic() - mended
        await until(lambda: site.stored() >= waiting, "what had waited was delivered")
        felt = await program.finish()
    finally:
        await program.kill()
    problems = await recover(site)
    if not felt["complete"]:
        problems.append("the program could not store everything before its end")
    if fault.stalls and felt["behind"] < fault.lasts // 2:
        problems.append(f"at most {felt['behind']} events waited: nothing broke")
    if fault.noticed and not felt["said"]:
        problems.append("the library said nothing: either nothing broke, or it is silent about it")
    if len(felt["said"]) > 8:
        problems.append(f"the library said {len(felt['said'])} things about one fault")
    problems += _unshown(program)
    return Outcome(fault.name, site.backend, 1, await check(site, [program]), resumed, felt["longest"], felt["said"], problems)


def _unshown(program: Program) -> list[str]:
    missing = Promises.read([program.notes]).returned - program.shown()
    return [f"{len(missing)} events are not on the console"] if missing else []


async def start_without(site: Site) -> Outcome:
    """Start a program while its server is down, and the server later."""
    assert site.server is not None
    await asyncio.to_thread(site.server.stop)
    try:
        program = await Program.start(site, "program", "--rate", "400", "--console")
        try:
            await program.has_logged(600)
            await asyncio.to_thread(site.server.start)
            mended = time.monotonic()
            await until(lambda: site.stored() > 0, "delivery had begun")
            resumed = time.monotonic() - mended
            felt = await program.finish()
        finally:
            await program.kill()
    finally:
        if not site.server.running():
            site.server.start()
    problems = await recover(site) + _unshown(program)
    return Outcome(
        "the server is started after the program",
        site.backend,
        1,
        await check(site, [program]),
        resumed,
        felt["longest"],
        felt["said"],
        problems,
    )


async def close_frozen(site: Site) -> Outcome:
    """End a program while its database is frozen: in time, and what is left is delivered by the next."""
    program = await Program.start(site, "program", "--rate", "400", "--timeout", str(CLOSING))
    try:
        await until(lambda: site.stored() > 100, "the first events were stored")
        async with _frozen(site):
            await program.has_logged(program.logged() + 200)
            began = time.monotonic()
            felt = await asyncio.wait_for(program.finish(), CLOSING + 20.0)
            ended = time.monotonic() - began
    finally:
        await program.kill()
    problems = await recover(site)
    if felt["closing"] > CLOSING + 1.5:
        problems.append(f"closing took {felt['closing']:.1f} s in place of {CLOSING:.0f} s")
    if ended > CLOSING + 10.0:
        problems.append(f"the program took {ended:.1f} s to end")
    if felt["complete"]:
        problems.append("everything was stored: the database was not frozen")
    return Outcome(
        "closed while the database is frozen", site.backend, 1, await check(site, [program]), None, felt["longest"], felt["said"], problems
    )


@contextlib.asynccontextmanager
async def _frozen(site: Site) -> AsyncIterator[None]:
    if site.server is None:
        async with frozen_writer(site):
            yield
        return
    site.server.freeze()
    try:
        yield
    finally:
        site.server.thaw()


async def kill(site: Site, times: int, seed: int) -> Outcome:
    """Kill programs at random moments; each recovers its predecessor while it logs itself."""
    rng = random.Random(seed)
    programs = []
    for number in range(times):
        program = await Program.start(site, f"program{number}", "--sync", "--batch", "200")
        programs.append(program)
        try:
            await program.has_logged(rng.randint(1, 300))
        finally:
            await program.kill()
    problems = await recover(site)
    return Outcome("the program is killed (kill -9)", site.backend, times, await check(site, programs), problems=problems)


async def crowd(site: Site, processes: int, count: int) -> Outcome:
    """Let several programs log into one new database at once."""
    programs = [await Program.start(site, f"program{number}", "--count", str(count), "--timeout", "60") for number in range(processes)]
    felt = []
    try:
        felt = await asyncio.gather(*(program.finish() for program in programs))
    finally:
        await asyncio.gather(*(program.kill() for program in programs))
    problems = await recover(site)
    verdict = await check(site, programs)
    if verdict.stored != processes * count:
        problems.append(f"{verdict.stored} events are stored of {processes * count}")
    said = [message for each in felt for message in each["said"]]
    faults = [message for message in said if not _PATIENT.search(message)]
    problems += [f"somebody heard: {message}" for message in faults]
    return Outcome(f"{processes} programs log at once", site.backend, 1, verdict, said=said, problems=problems)


_PATIENT = re.compile("has not answered within|answers again")
"""What a program says that is kept waiting for the database when it starts; on a busy machine some do."""


# -- the command ------------------------------------------------------------------------------------------------------------

Scenario = tuple[str, str, Callable[[Site], Awaitable[Outcome]], "tuple[str, int] | None"]
"""Name, backend, what to do, and a small disk if it wants one."""


def scenarios(kills: int, events: int) -> list[Scenario]:
    """Return everything that is tried: each fault, on each database where it can happen."""
    found: list[Scenario] = []
    for backend in BACKENDS:
        found.append(("kill", backend, lambda site: kill(site, kills, seed=kills), None))
        found.append(("crowd", backend, lambda site: crowd(site, 8, events), None))
        found.append(("close_frozen", backend, close_frozen, None))
        if backend != "sqlite":
            found.append(("start_without", backend, start_without, None))
        for fault in FAULTS:
            if backend in fault.backends:
                found.append((fault.name, backend, lambda site, fault=fault: endure(site, fault), fault.disk))  # type: ignore[misc]  # bound early
    return found


_HEAD = ("What happens", "Database", "Tried", "Offered", "Stored", "Lost", "Duplicated", "Corrupted", "Resumed after", "Longest log call")


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the outcomes as a table of Markdown."""
    rows = [_HEAD]
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.scenario, BACKENDS.index(outcome.backend))):
        verdict = outcome.verdict
        numbers = (outcome.tried, verdict.offered, verdict.stored, verdict.lost, verdict.duplicated, verdict.corrupted)
        resumed = f"{outcome.resumed:.1f} s" if outcome.resumed is not None else "–"
        longest = f"{outcome.longest * 1000:.0f} ms" if outcome.longest else "–"
        rows.append((outcome.scenario, outcome.backend, *(f"{number:,}" for number in numbers), resumed, longest))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|---|" + "---:|" * (len(_HEAD) - 2), *lines[1:]])


def report(outcomes: Sequence[Outcome]) -> str:
    """Return what was found, as Markdown."""
    total = Verdict()
    for outcome in outcomes:
        total += outcome.verdict
    tried = sum(outcome.tried for outcome in outcomes)
    summary = (
        f"{tried:,} faults, {total.offered:,} events offered, {total.lost:,} lost, {total.duplicated:,} stored twice, "
        f"{total.corrupted:,} corrupted; {total.jobs_lost:,} jobs and {total.steps_lost:,} steps lost, {total.disordered:,} events out of "
        f"order, {total.left_running:,} left running, {total.crashes:,} crashes told of. "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}."
    )
    problems = [f"- {outcome.scenario}, {outcome.backend}: {problem}" for outcome in outcomes for problem in outcome.problems]
    return "\n\n".join([summary, table(outcomes), *(["Not as promised:", "\n".join(problems)] if problems else [])])


_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"


def write(path: Path, text: str) -> None:
    """Put *text* between the marks in the document at *path*."""
    before, begin, rest = path.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{path} has no place for the figures: it needs the lines {_BEGIN} and {_END}")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


async def _try_all(backend: str, wanted: Sequence[Scenario], home: Path, outcomes: list[Outcome]) -> None:
    home.mkdir(mode=0o711)
    with contextlib.ExitStack() as stack:
        server: Server | None = None
        for number, (name, _, run, disk) in enumerate(wanted):
            try:
                if backend in SERVERS and server is None:
                    server = stack.enter_context(SERVERS[backend](home / "server"))
                async with place(backend, home / f"site{number}", server, disk) as site:
                    outcome = await run(site)
            except (ServerMissing, PermissionError) as exc:
                print(f"{name}, {backend}: left out: {exc}", file=sys.stderr)
                continue
            except Exception as exc:
                outcome = Outcome(name, backend, 1, Verdict(), problems=[f"{type(exc).__name__}: {exc}"])
            outcomes.append(outcome)
            print(f"{outcome.scenario}, {backend}: {'; '.join(outcome.problems) or 'as promised'}", file=sys.stderr, flush=True)
            for message in outcome.said:
                print(f"    {message}", file=sys.stderr)
            if server is not None and not server.running():
                server.kill()
                server.start()


async def main() -> int:
    parser = argparse.ArgumentParser(description="Break things on purpose and count what is lost.")
    parser.add_argument("--kills", type=int, default=20, help="programs to kill on each database (default: 20)")
    parser.add_argument("--events", type=int, default=20_000, help="events of each of the programs that log at once (default: 20,000)")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="this database only; may be repeated")
    parser.add_argument("--only", default="", help="scenarios with this text in their name only")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="structjob-") as home:
        os.chmod(home, 0o711)  # the servers run as users of their own
        wanted = [scenario for scenario in scenarios(options.kills, options.events) if options.only in scenario[0]]
        # A database waits most of the time for its fault to be felt, so each has its turn at the same time.
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C: what was found so far is told
            await asyncio.gather(
                *(
                    _try_all(backend, [scenario for scenario in wanted if scenario[1] == backend], Path(home, backend), outcomes)
                    for backend in options.backend or BACKENDS
                )
            )
    text = report(outcomes)
    print(text)
    if options.write:
        write(TESTS.parent / "docs" / "reliability.md", text)
    return int(any(outcome.problems for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
