"""Faults that must cost nothing: something is broken while programs log, and repaired; then
everything is stored, once and unchanged.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from faults import FAULTS, Fault, Site
from oracle import Promises, Verdict
from trials import (
    BACKENDS,
    PATIENT,
    Outcome,
    Program,
    Scenario,
    Section,
    check,
    frozen,
    on_site,
    recover,
    until,
)

LONGEST = 1.0
"""Seconds that a log call may take while things are broken. Each fault lasts longer, so a call that
waits for its end is found out; the rest is for a machine that is busy otherwise.
"""

CLOSING = 2.0
"""Seconds that a program gives its tracker for closing, where the database is frozen."""


@dataclass
class Endured(Outcome):
    """What came of a fault that must cost nothing.

    Attributes:
        tried: How often it was broken.
        resumed: Seconds from its repair until the next event was stored; ``None`` where
            that is not the question.
        longest: Seconds of the longest log call.
    """

    tried: int
    verdict: Verdict
    resumed: float | None = None
    longest: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.problems += [
            f"{number} {name.replace('_', ' ')}" for name, number in self.verdict.faults().items()
        ]
        if self.longest > LONGEST:
            self.problems.append(f"a log call took {self.longest:.2f} s")

    def cells(self) -> tuple[str, ...]:
        verdict = self.verdict
        numbers = (
            self.tried,
            verdict.offered,
            verdict.stored,
            verdict.lost,
            verdict.duplicated,
            verdict.corrupted,
        )
        resumed = f"{self.resumed:.1f} s" if self.resumed is not None else "–"
        longest = f"{self.longest * 1000:.0f} ms" if self.longest else "–"
        return self.scenario, self.backend, *(f"{number:,}" for number in numbers), resumed, longest


def _summary(outcomes: Sequence[Endured]) -> str:
    total = Verdict()
    for outcome in outcomes:
        total += outcome.verdict
    return (
        f"{sum(outcome.tried for outcome in outcomes):,} faults, {total.offered:,} events offered, {total.lost:,} lost, "
        f"{total.duplicated:,} stored twice, {total.corrupted:,} corrupted; {total.jobs_lost:,} jobs and {total.steps_lost:,} steps lost, "
        f"{total.disordered:,} events out of order, {total.left_running:,} left running, {total.crashes:,} crashes recorded."
    )


SECTION = Section(
    "faults",
    (
        "What happens",
        "Database",
        "Tried",
        "Offered",
        "Stored",
        "Lost",
        "Duplicated",
        "Corrupted",
        "Resumed after",
        "Longest log call",
    ),
    2,
    _summary,
)


async def endure(site: Site, fault: Fault) -> Endured:
    """Break something while a program logs, repair it, and let the program go on and end."""
    program = await Program.start(
        site, "program", "--rate", str(fault.rate), "--console", "--timeout", "30"
    )
    try:
        await until(lambda: site.stored() > 100, "the first events were stored")
        async with fault.breaks(site):
            await program.has_logged(program.logged() + fault.lasts)
        mended, before, waiting = (
            time.monotonic(),
            await asyncio.to_thread(site.stored),
            program.logged(),
        )
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
    verdict = await check(site, [program])
    return Endured(
        fault.name,
        site.backend,
        1,
        verdict,
        resumed,
        felt["longest"],
        said=felt["said"],
        problems=problems,
    )


def _unshown(program: Program) -> list[str]:
    missing = Promises.read([program.notes]).returned - program.shown()
    return [f"{len(missing)} events are not on the console"] if missing else []


async def start_without(site: Site) -> Endured:
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
    return Endured(
        "the server is started after the program",
        site.backend,
        1,
        await check(site, [program]),
        resumed,
        felt["longest"],
        said=felt["said"],
        problems=problems,
    )


async def close_frozen(site: Site) -> Endured:
    """End a program while its database is frozen: in time, and what is left is delivered by the
    next.
    """
    program = await Program.start(site, "program", "--rate", "400", "--timeout", str(CLOSING))
    try:
        await until(lambda: site.stored() > 100, "the first events were stored")
        async with frozen(site):
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
    verdict = await check(site, [program])
    name = "closed while the database is frozen"
    return Endured(
        name,
        site.backend,
        1,
        verdict,
        longest=felt["longest"],
        said=felt["said"],
        problems=problems,
    )


async def kill(site: Site, times: int, seed: int) -> Endured:
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
    return Endured(
        "the program is killed (kill -9)",
        site.backend,
        times,
        await check(site, programs),
        problems=problems,
    )


async def crowd(site: Site, processes: int, count: int) -> Endured:
    """Let several programs log into one new database at once."""
    programs = [
        await Program.start(site, f"program{number}", "--count", str(count), "--timeout", "60")
        for number in range(processes)
    ]
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
    faults = [message for message in said if not PATIENT.search(message)]
    problems += [f"somebody heard: {message}" for message in faults]
    return Endured(
        f"{processes} programs log at once", site.backend, 1, verdict, said=said, problems=problems
    )


def scenarios(kills: int, events: int) -> list[Scenario]:
    """Return everything that is tried: each fault, on each database where it can happen."""
    found: list[Scenario] = []
    for backend in BACKENDS:
        found.append(on_site(SECTION, "kill", backend, lambda site: kill(site, kills, seed=kills)))
        found.append(on_site(SECTION, "crowd", backend, lambda site: crowd(site, 8, events)))
        found.append(on_site(SECTION, "close_frozen", backend, close_frozen))
        if backend != "sqlite":
            found.append(on_site(SECTION, "start_without", backend, start_without))
        for fault in FAULTS:
            if backend in fault.backends:
                found.append(
                    on_site(
                        SECTION,
                        fault.name,
                        backend,
                        functools.partial(endure, fault=fault),
                        fault.disk,
                    )
                )
    return found
