"""B18: what one look of a tail and one look of the reaper cost while many sessions are living."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import TYPE_CHECKING, Any

from benchmarks.databases import FILE, NEEDS, SERVERS, SQLITE, SYSTEM, connected, database
from benchmarks.registry import Benchmark, Case, Row

if TYPE_CHECKING:
    from structjob.store.contract import Fetch

FEW, MANY = 1_000, 5_000
"""The numbers of living sessions."""

BUSY = 10
"""Sessions that log between two looks."""

_BASE = 1_000_000
"""The id before the first session."""

_NOW = {
    "SQLite": "strftime('%Y-%m-%d %H:%M:%f000', 'now')",
    "PostgreSQL": "now()",
    "MariaDB": "utc_timestamp(6)",
}
_COUNTED = "WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {count}) "
_SESSIONS = (
    "INSERT INTO structjob_sessions (session_id, host, boot_id, pid, started_at, heartbeat_at) "
    + _COUNTED
    + "SELECT {base} + n, 'elsewhere', 'boot', n, {now}, {now} FROM counted"
)
_EVENTS = (
    "INSERT INTO structjob_logs (session_id, seq, ts, level, message{type}) "
    "SELECT session_id, {seq}, {now}, 'info', 'chunk copied'{system} FROM structjob_sessions "
    "WHERE session_id > {base} AND session_id % {each} = 0"
)


class _Recording:
    """A store's ``fetch`` that records the statements."""

    def __init__(self, fetch: Fetch) -> None:
        self.statements: list[Any] = []
        self._fetch = fetch

    async def __call__(self, statement: Any) -> Any:
        self.statements.append(statement)
        return await self._fetch(statement)

    async def waited(self, statement: Any, repeated: int) -> float:
        """Return the seconds that *statement* takes the database, besides the way there and back:
        the time by the clock without the loop's own CPU time, the best of *repeated* looks, and
        without that of a statement which does nothing. The machine may be busy with other work.
        """
        from sqlalchemy import select, text

        best = {False: float("inf"), True: float("inf")}
        for turn in range(2 * repeated):
            empty = turn % 2 == 0
            began, used = perf_counter(), thread_time()
            await self._fetch(select(text("1")) if empty else statement)
            best[empty] = min(best[empty], perf_counter() - began - (thread_time() - used))
        return best[False] - best[True]


async def _run(name: str, url: str, *statements: str) -> None:
    """Run statements as another program does.

    ``{now}``, ``{base}``, and the column ``{type}`` with its value ``{system}`` are filled in.
    """
    column, value = SYSTEM[name]
    filled = {"{now}": _NOW[name], "{base}": str(_BASE), "{type}": column, "{system}": value}
    ready = list(statements)
    for mark, text in filled.items():
        ready = [one.replace(mark, text) for one in ready]
    if name == SQLITE:
        with closing(sqlite3.connect(FILE, timeout=10)) as connection, connection:
            for statement in ready:
                connection.execute(statement)
        return
    async with connected(name, url) as execute:
        if name != "PostgreSQL":
            await execute("SET autocommit = 1, max_recursive_iterations = 100000")
        for statement in ready:
            await execute(statement)


async def _fill(name: str, url: str, sessions: int, events: int) -> None:
    each = [_EVENTS.replace("{seq}", str(seq)).replace("{each}", "1") for seq in range(1, events)]
    await _run(name, url, _SESSIONS.replace("{count}", str(sessions)), *each)
    if name == "PostgreSQL":
        # Its autovacuum does this within a minute. Before, it reads whole tables.
        await _run(name, url, "ANALYZE")


def tail(*, sessions: int, events: int, looks: int, repeated: int, name: str) -> dict[str, float]:
    """Measure the looks of a tail, one a second, while a few of the sessions log."""
    from structjob.queries.logs import Logs

    async def work(store: Any, url: str) -> dict[str, float]:
        await store.open()
        try:
            await _fill(name, url, sessions, events)
            fetch = _Recording(store.fetch)
            tail = Logs(fetch, _nothing).tail(last=0)
            began = perf_counter()
            await tail.poll(0)
            opened = perf_counter() - began
            found = []
            for seq in range(events, events + looks):
                busy = _EVENTS.replace("{seq}", str(seq))
                await _run(name, url, busy.replace("{each}", str(sessions // BUSY)))
                await asyncio.sleep(1.0)
                fetch.statements.clear()
                used, count = process_time(), 0
                while count < BUSY:
                    count += len(await tail.poll(0))
                used = process_time() - used
                found.append((await fetch.waited(fetch.statements[0], repeated), used))
        finally:
            await store.close()
        return {
            "look_ms": 1_000 * median(look for look, _ in found),
            "cpu_ms": 1_000 * median(used for _, used in found),
            "open_ms": 1_000 * opened,
        }

    return _with_store(name, work)


def reaper(*, sessions: int, events: int, looks: int, repeated: int, name: str) -> dict[str, float]:
    """Measure what a tracker computes for a heartbeat, the look at other sessions included."""
    import structjob

    heartbeat = 0.2

    async def work(store: Any, url: str) -> dict[str, float]:
        await store.open()
        await _fill(name, url, sessions, 1)
        await store.close()
        async with structjob.Tracker(url, heartbeat_interval=heartbeat) as tracker:
            await tracker.flush()
            await asyncio.sleep(2 * heartbeat)
            used = process_time()
            await asyncio.sleep(looks * heartbeat)
            used = process_time() - used
        return {"cpu_ms": 1_000 * used / looks}

    return _with_store(name, work)


def _with_store(name: str, work: Callable[..., Any]) -> dict[str, float]:
    from structjob.store.factory import make_store

    with database(name) as url:
        result: dict[str, float] = asyncio.run(work(make_store(url, {}), url))
    return result


async def _nothing() -> None:
    """Nothing is pending."""


BENCHMARK = Benchmark(
    name="b18",
    title=f"a look of a tail and of the reaper, with {FEW:,} and {MANY:,} living sessions",
    cases=tuple(
        Case(
            f"{what.__name__}, {sessions:,}, {name}",
            what,
            needs=needs,
            server=SERVERS.get(name),
            options={"name": name, "sessions": sessions},
        )
        for name, needs in NEEDS.items()
        for what in (tail, reaper)
        for sessions in (FEW, MANY)
    ),
    rows=tuple(
        row
        for name in NEEDS
        for row in (
            *(
                Row(
                    "B18",
                    f"a look of a tail at {sessions:,} sessions, in the database, {name}",
                    "look_ms",
                    "ms",
                    f"tail, {sessions:,}, {name}",
                    at_most=5.0,
                )
                for sessions in (FEW, MANY)
            ),
            Row(
                "B18",
                f"the look and reading {BUSY} new events, CPU time of the program, {name}",
                "cpu_ms",
                "ms",
                f"tail, {MANY:,}, {name}",
            ),
            Row(
                "B18",
                f"a heartbeat of a tracker beside {MANY:,} sessions, CPU time, {name}",
                "cpu_ms",
                "ms",
                f"reaper, {MANY:,}, {name}",
                peers=(f"reaper, {FEW:,}, {name}",),
                at_most=1.3,
            ),
        )
    ),
    size={"events": 20, "looks": 10, "repeated": 20},
    smoke={"events": 2, "looks": 1, "repeated": 1},
    rounds=3,
    timeout=600,
)
