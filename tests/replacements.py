"""A database that is deleted, moved, replaced or made anew while a program uses it.

What was stored in the former one is gone with it, and ``structjob verify`` must say how much; what
is logged from then on must be stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from breakable_servers import SERVERS, ClientFailed
from faults import PASSWORD, USER, Site
from losses import verify
from oracle import Promises, Verdict, find, judge
from trials import BACKENDS, Outcome, Program, Scenario, Section, on_site, until

import structjob
from structjob.store.tables import metadata


def deleted(path: Path, elsewhere: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()


def deleted_alone(path: Path, elsewhere: Path) -> None:
    path.unlink()


def moved(path: Path, elsewhere: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).rename(elsewhere / f"old.db{suffix}")


def moved_alone(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere / "old.db")


def replaced_by_an_empty_file(path: Path, elsewhere: Path) -> None:
    (elsewhere / "new.db").touch()
    (elsewhere / "new.db").rename(path)


def replaced_by_an_older_copy(path: Path, elsewhere: Path) -> None:
    (elsewhere / "copy.db").rename(path)


def emptied(path: Path, elsewhere: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, 0)


FILES = {
    "the file is deleted, with its log": deleted,
    "the file is deleted, without its log": deleted_alone,
    "the file is moved, with its log": moved,
    "the file is moved, without its log": moved_alone,
    "the file is replaced by an empty one": replaced_by_an_empty_file,
}
"""What is done to an SQLite file while a program writes to it. An older copy is among the `losses`.
"""

DROPPED = (
    *(f"DROP VIEW {view}" for view in ("structjob_active_jobs", "structjob_job_progress")),
    *(f"DROP TABLE {table}" for table in ("structjob_alembic_version", *metadata.tables)),
)
"""Statements that take away everything that is structjob's."""


async def _file(site: Site, change: Callable[[Path, Path], None]) -> None:
    change(site.file, site.directory)


async def _tables(site: Site, *, again: bool) -> None:
    await _run(site, DROPPED)
    if again:
        async with structjob.Tracker(site.url, spool=False):  # another program, which comes first
            pass


async def _run(site: Site, statements: Sequence[str]) -> None:
    """Run *statements* in one transaction, where the database can."""
    if site.server is None:
        with contextlib.closing(
            sqlite3.connect(site.file, timeout=30.0, isolation_level=None)
        ) as connection:
            for statement in ("BEGIN IMMEDIATE", *statements, "COMMIT"):
                connection.execute(statement)
        return
    for tries_left in (5, 4, 3, 2, 1, 0):
        try:
            await asyncio.to_thread(site.server.sql, "; ".join(("BEGIN", *statements, "COMMIT")))
        except ClientFailed:  # a deadlock with the program
            if not tries_left:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def _table(site: Site) -> None:
    await _run(site, ("DROP TABLE structjob_logs",))


async def _database(site: Site) -> None:
    assert site.server is not None
    await asyncio.to_thread(site.server.clear, USER, PASSWORD)


@dataclass
class Replaced(Outcome):
    """What came of a program whose database was replaced.

    Attributes:
        verdict: The oracle's, of the database that is there at the end.
        later: How many events were logged after the database was replaced.
        later_lost: How many of them are lost.
        missing: How many events `verify` reports as missing.
        code: Its exit code.
    """

    verdict: Verdict
    later: int
    later_lost: int
    missing: int
    code: int

    def __post_init__(self) -> None:
        super().__post_init__()
        lost = self.verdict.lost
        if self.later_lost:
            self.problems.append(f"{self.later_lost} events are lost that were logged later")
        if self.missing != lost:
            self.problems.append(
                f"verify found {self.missing} events missing where {lost} were lost"
            )
        if self.code != int(lost > 0):
            self.problems.append(f"verify ended with exit code {self.code}")
        if not lost:
            self.problems.append("nothing was lost: nothing was replaced")
        told = [
            int(found[1].replace(",", ""))
            for message in self.said
            if (found := _TOLD.search(message))
        ]
        if not told:
            self.problems.append("no warning says that the database was replaced")
        elif lost > max(told):
            self.problems.append(f"{lost} events are lost where {max(told)} had been stored before")
        self.problems += [
            f"{number} {name.replace('_', ' ')}"
            for name, number in self.verdict.faults().items()
            if name != "lost"
        ]

    def cells(self) -> tuple[str, ...]:
        numbers = (
            self.verdict.returned,
            self.verdict.stored,
            self.verdict.lost,
            self.missing,
            self.later,
            self.later_lost,
        )
        return self.scenario, self.backend, *(f"{number:,}" for number in numbers)


_TOLD = re.compile(r"([\d,]+) events? of this program \(session \d+\) had been stored before")


def _summary(outcomes: Sequence[Replaced]) -> str:
    return (
        f"{len(outcomes):,} databases replaced: {sum(outcome.verdict.lost for outcome in outcomes):,} events had been stored in the former "
        f"ones only, {sum(outcome.missing for outcome in outcomes):,} reported as missing. "
        f"{sum(outcome.later for outcome in outcomes):,} events logged later, {sum(outcome.later_lost for outcome in outcomes):,} lost."
    )


SECTION = Section(
    "replacements",
    (
        "What happens",
        "Database",
        "Call had returned",
        "Stored now",
        "Gone",
        "Reported missing",
        "Logged later",
        "Lost of these",
    ),
    2,
    _summary,
)


async def replace(site: Site, name: str, happens: Callable[[Site], Awaitable[None]]) -> Replaced:
    """Replace a database while a program logs, which goes on and ends."""
    program = await Program.start(
        site, "program", "--plain", "--rate", "400", "--timeout", "60", "--again", "2"
    )
    try:
        await until(
            lambda: site.confirmed() > 300, "the first events were stored, and the program knew it"
        )
        await happens(site)
        earlier = set(Promises.read([program.notes]).offered)
        await program.has_logged(len(earlier) + 300)
        waiting = program.logged() - len(earlier)
        await until(lambda: site.stored() >= waiting, "what was logged later was stored")
        felt = await program.finish()
    finally:
        await program.kill()
    missing, code = await verify(site)
    promises, found = Promises.read([program.notes]), await find(site.direct_url)
    later = promises.returned - earlier
    there = {attrs["id"] for _, _, _, attrs in found.events}
    problems = [] if felt["complete"] else ["the program could not store everything before its end"]
    verdict = judge(promises, found)
    return Replaced(
        name,
        site.backend,
        verdict,
        len(later),
        len(later - there),
        missing,
        code,
        said=felt["said"],
        problems=problems,
    )


def scenarios() -> list[Scenario]:
    """Return everything that is tried, on each database where it can happen."""
    found: list[Scenario] = []

    def add(backend: str, name: str, happens: Callable[[Site], Awaitable[None]]) -> None:
        found.append(
            on_site(SECTION, name, backend, functools.partial(replace, name=name, happens=happens))
        )

    for name, change in FILES.items():
        add("sqlite", name, functools.partial(_file, change=change))
    for backend in BACKENDS:
        add(backend, "the tables are dropped", functools.partial(_tables, again=False))
        add(
            backend,
            "the tables are dropped, and another program makes them again",
            functools.partial(_tables, again=True),
        )
        add(backend, "the table of the events is dropped", _table)
        if backend in SERVERS:
            add(backend, "the database is dropped and made again", _database)
    return found
