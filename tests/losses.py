"""Losses that nothing can prevent, and that ``structjob verify`` must find: each of them, with the
right number, and nothing else.

Each number of a program's session here is an event that it noted (``producer.py --plain``), so that
`verify` and the oracle count the same things.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli_support import environment, python
from faults import PASSWORD, USER, Site, full_database
from oracle import Verdict
from trials import (
    BACKENDS,
    Outcome,
    Program,
    Scenario,
    Section,
    check,
    frozen,
    on_site,
    until,
)

_SEGMENT = 65_536
_RATE = "1000"
_FILL = 600
"""Events that fill a segment and more: what has been stored of the first is then deleted from the
spool.
"""


@dataclass
class Found(Outcome):
    """What `verify` found where the oracle knows what was lost.

    Attributes:
        tried: How often it was done.
        verdict: The oracle's.
        missing: What `verify` says.
        code: Its exit code.
        loses: Whether something must be lost, or nothing may be.
    """

    tried: int
    verdict: Verdict
    missing: int
    code: int
    loses: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        lost, interrupted = self.verdict.lost, self.verdict.offered - self.verdict.returned
        if not lost <= self.missing <= lost + (interrupted if lost else 0):
            self.problems.append(
                f"verify found {self.missing} events missing where {lost} were lost"
            )
        if self.code != int(self.missing > 0):
            self.problems.append(f"verify ended with exit code {self.code}")
        if self.loses and not lost:
            self.problems.append("nothing was lost: nothing broke")
        others = {name: number for name, number in self.verdict.faults().items() if name != "lost"}
        if not self.loses and lost:
            others["lost"] = lost
        self.problems += [f"{number} {name.replace('_', ' ')}" for name, number in others.items()]

    def cells(self) -> tuple[str, ...]:
        numbers = (self.tried, self.verdict.returned, self.verdict.lost, self.missing, self.code)
        return self.scenario, self.backend, *(f"{number:,}" for number in numbers)


def _summary(outcomes: Sequence[Found]) -> str:
    lossy = [outcome for outcome in outcomes if outcome.loses]
    return (
        f"{len(lossy):,} scenarios with losses: {sum(outcome.verdict.lost for outcome in lossy):,} events lost, "
        f"{sum(outcome.missing for outcome in lossy):,} found by `verify`. {len(outcomes) - len(lossy):,} without: "
        f"{sum(outcome.missing for outcome in outcomes if not outcome.loses):,} found."
    )


SECTION = Section(
    "losses",
    ("What happens", "Database", "Tried", "Call had returned", "Lost", "Found", "Exit code"),
    2,
    _summary,
)


async def structjob(site: Site, *words: str) -> tuple[int, Any]:
    """Run the command ``structjob *words --json`` as a user does; return its exit code and what it
    says.
    """
    done = await asyncio.to_thread(
        python,
        "-m", "structjob", "--db", site.direct_url, *words, "--json",
        cwd=site.directory, env=environment(XDG_STATE_HOME=str(site.directory / "state")),
    )  # fmt: skip
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(
            f"structjob {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}"
        ) from None


async def verify(site: Site) -> tuple[int, int]:
    """Return how many events `verify` finds missing, and its exit code; it delivers first what dead
    programs left.
    """
    code, found = await structjob(site, "verify", "--spool", str(site.spool))
    if found["ok"] != (code == 0):
        raise RuntimeError(f"verify ended with {code} and says ok: {found['ok']}")
    return found["missing"], code


async def _start(site: Site, name: str = "program", *options: str) -> Program:
    return await Program.start(
        site, name, "--plain", "--segment", str(_SEGMENT), "--rate", _RATE, *options
    )


async def _stored(site: Site, program: Program, more: int) -> None:
    """Wait until a program has logged so many *more* events, and the database holds them."""
    await program.has_logged(wanted := program.logged() + more)
    await until(lambda: site.stored() >= wanted, f"{wanted} events were stored")


# -- what happens
# --------------------------------------------------------------------------

Happens = Callable[[Site, Program], Awaitable[None]]
"""Takes something away from a program, which it kills first if that is what happens."""


async def _delete_rows(site: Site, program: Program) -> None:
    """Delete the oldest rows, some in the middle, and some that the spool still holds: these come
    back.
    """
    await _stored(site, program, 2 * _FILL)
    await program.kill()
    statement = (
        "DELETE FROM structjob_logs WHERE seq <= 100 OR seq BETWEEN 201 AND 203 OR seq > 1190"
    )
    if site.server is not None:
        await asyncio.to_thread(site.server.sql, statement)
        return
    with contextlib.closing(sqlite3.connect(site.file, timeout=30.0)) as connection, connection:
        connection.execute(statement)


async def _restore(site: Site, program: Program) -> None:
    await _stored(site, program, _FILL)
    copy = site.directory / "copy.db"
    dump = "" if site.server is None else await asyncio.to_thread(site.server.dump)
    if site.server is None:
        copy_file(site.file, copy)
    await _stored(site, program, 2 * _FILL)
    await program.kill()
    if site.server is None:
        for path in site.file.parent.glob(f"{site.file.name}*"):
            path.unlink()
        copy.rename(site.file)
    else:
        await asyncio.to_thread(site.server.clear, USER, PASSWORD)
        await asyncio.to_thread(site.server.restore, dump)


def copy_file(path: Path, copy: Path) -> None:
    """Make a backup of an SQLite database that is in use."""
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


async def _fail_over(site: Site, program: Program, *, alive: bool) -> None:
    assert site.server is not None
    await _stored(site, program, _FILL)
    copy = await asyncio.to_thread(site.server.copy)
    await _stored(site, program, 2 * _FILL)
    if not alive:
        await program.kill()
    await asyncio.to_thread(site.server.fail_over, copy)


async def _replace_file(site: Site, program: Program) -> None:
    await _stored(site, program, _FILL)
    copy = site.directory / "copy.db"
    copy_file(site.file, copy)
    await _stored(site, program, 2 * _FILL)
    copy.rename(site.file)


async def _waiting(site: Site, program: Program) -> list[Path]:
    """Let a program die while several segments of its spool wait; return them, oldest first."""
    await _stored(site, program, _FILL)
    async with frozen(site):
        await program.has_logged(program.logged() + _FILL)
        await program.kill()
    # The last one may be empty. What is cut off before it would be the end of the spool, of which
    # nothing is left that could be missing.
    segments = [path for path in sorted(site.spool.glob("*/events-*")) if path.stat().st_size]
    if len(segments) < 4:
        raise RuntimeError(f"only {len(segments)} segments wait")
    return segments


async def _delete_segment(site: Site, program: Program) -> None:
    segments = await _waiting(site, program)
    segments[-2].unlink()


async def _cut_segment(site: Site, program: Program) -> None:
    path = (await _waiting(site, program))[-2]
    os.truncate(path, path.stat().st_size // 2)


async def _fill_disk(site: Site, program: Program) -> None:
    await _stored(site, program, _FILL)
    async with full_database(site):
        await program.has_logged(program.logged() + 2 * _FILL)
        await program.kill()


async def find(site: Site, name: str, happens: Happens, options: Sequence[str] = ()) -> Found:
    """Let a loss happen to a program; end it, if it lives; compare what `verify` finds with what
    the oracle does.
    """
    program = await _start(site, "program", *options)
    said: list[str] = []
    try:
        await happens(site, program)
        if program.running():
            await program.has_logged(program.logged() + _FILL)
            said = (await program.finish())["said"]
    finally:
        await program.kill()
    missing, code = await verify(site)
    return Found(name, site.backend, 1, await check(site, [program]), missing, code, said=said)


# -- controls
# --------------------------------------------------------------------------


async def kill_threads(site: Site, times: int) -> Found:
    """Kill programs in which eight threads log: their numbers that were not written yet are no
    loss.
    """
    programs = []
    for number in range(times):
        programs.append(program := await _start(site, f"program{number}", "--threads", "8"))
        try:
            await program.has_logged(200 * (number + 1))
        finally:
            await program.kill()
    missing, code = await verify(site)
    verdict = await check(site, programs)
    verdict.disordered = 0  # between threads there is no order
    return Found(
        "control: killed while 8 threads log", site.backend, times, verdict, missing, code, False
    )


async def prune(site: Site) -> Found:
    """Prune a program's events: what was deleted because its time was over is no loss."""
    program = await _start(site)
    try:
        await _stored(site, program, _FILL)
        await program.finish()
    finally:
        await program.kill()
    verdict = await check(site, [program])
    stored = site.stored()
    await structjob(site, "prune", "--older-than", "0s", "--yes")
    missing, code = await verify(site)
    problems = [] if not site.stored() else [f"{site.stored()} events of {stored} were not pruned"]
    return Found(
        "control: everything is pruned",
        site.backend,
        1,
        verdict,
        missing,
        code,
        False,
        problems=problems,
    )


def scenarios() -> list[Scenario]:
    """Return everything that is tried, on each database where it can happen."""
    found: list[Scenario] = []

    def add(backend: str, name: str, happens: Happens, disk: tuple[str, int] | None = None) -> None:
        found.append(
            on_site(
                SECTION, name, backend, functools.partial(find, name=name, happens=happens), disk
            )
        )

    for backend in BACKENDS:
        add(backend, "rows are deleted, the program is dead", _delete_rows)
        add(backend, "restored from a backup, the program is dead", _restore)
        if backend == "sqlite":
            add(backend, "an older copy takes its place, the program is alive", _replace_file)
        else:
            add(
                backend,
                "failover to an older copy, the program is dead",
                functools.partial(_fail_over, alive=False),
            )
            add(
                backend,
                "failover to an older copy, the program is alive",
                functools.partial(_fail_over, alive=True),
            )
        add(backend, "a segment of the spool is deleted, the program is dead", _delete_segment)
        add(backend, "a segment of the spool is cut, the program is dead", _cut_segment)
        # The spool is on it, too.
        add(backend, "the disk is full, and the program is killed", _fill_disk, ("both", 96))
        found.append(
            on_site(
                SECTION,
                "control: killed while 8 threads log",
                backend,
                functools.partial(kill_threads, times=5),
            )
        )
        found.append(on_site(SECTION, "control: everything is pruned", backend, prune))
    return found
