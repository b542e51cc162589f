"""Fill a database with a generated history: ``python -m benchmarks.generate URL [--jobs N]
[--events N]``.

The lines are stored as those of a spool are: in batches of one transaction each, by
`structjob.store.contract.Store.write`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta
from time import perf_counter

from benchmarks.history import UNTIL, Batch, History
from structjob.store.contract import Ending, Store, Written
from structjob.store.factory import make_store


async def fill(
    url: str, history: History, tell: Callable[[int], object] = lambda stored: None
) -> int:
    """Store a whole history and end its sessions; a repetition with the same history changes
    nothing.

    Args:
        url: The database; missing tables are created.
        history: The history to store.
        tell: Called regularly with the number of stored events.

    Returns:
        The number of events.

    Raises:
        StoreUnavailable: if the database does not answer, or refuses a statement.
    """
    store = make_store(url, {})
    await store.open()
    try:
        stored = 0
        batches = iter(history)
        batch = next(batches, None)
        while batch is not None:
            # The next batch is generated while this one is stored.
            _, following = await asyncio.gather(
                deliver(store, batch), asyncio.to_thread(next, batches, None)
            )
            stored += batch.events
            tell(stored)
            batch = following
        for session, last_seq in history.sessions:
            await store.end_session(session, Ending(reason="closed", last_seq=last_seq))
        return stored
    finally:
        await store.close()


async def deliver(store: Store, batch: Batch) -> Written:
    """Store one batch."""
    for session in batch.begun:
        await store.begin_session(session)
    written = Written()
    for write in batch.writes:
        written.add(await store.write(write))
    return written


def main(arguments: list[str] | None = None) -> int:
    """Fill the database, and print the speed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generate", description="Fill a database with a made-up history."
    )
    parser.add_argument("url", metavar="URL", help="database, such as sqlite:///history.db")
    parser.add_argument("--jobs", type=int, default=100_000, help="how many jobs (default 100,000)")
    parser.add_argument(
        "--events",
        type=int,
        default=10_000_000,
        help="how many events (default 10,000,000: 6 GB in SQLite)",
    )
    parser.add_argument(
        "--days",
        type=float,
        help="how many days they are spread over (default: one for 1,111 jobs)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="another seed, another history (default 1)"
    )
    options = parser.parse_args(arguments)
    history = History(options.jobs, options.events, seed=options.seed, days=options.days)
    began = perf_counter()
    told = 0.0

    def tell(stored: int) -> None:
        nonlocal told
        now = perf_counter()
        if sys.stderr.isatty() and now - told > 0.5:
            told = now
            print(
                f"\r\x1b[K{stored:,} events, {stored / (now - began):,.0f} /s",
                end="",
                file=sys.stderr,
                flush=True,
            )

    stored = asyncio.run(fill(options.url, history, tell))
    seconds = perf_counter() - began
    took = timedelta(seconds=round(seconds))
    print(
        f"{options.jobs:,} jobs and {stored:,} events until {UNTIL:%Y-%m-%d} in {took}, {stored / seconds:,.0f} /s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
