"""All checks of a database, in the order in which they are shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from sqlalchemy import URL

from structjob.checkup import database, files, program, spools
from structjob.checkup.finding import Finding
from structjob.store.connection import Run
from structjob.urls.url import places, sqlite_path


def checkup(url: URL, shown: str, *, run: Run = asyncio.run) -> Iterator[Finding]:
    """Run all checks, and yield the findings of each as soon as it is done.

    Nothing is created or changed. The function blocks, and can take 10 s for a large file.

    Args:
        url: The URL of the database.
        shown: Its name in the findings.
        run: Runs a coroutine to its end; called for servers only.
    """
    path, its = sqlite_path(url), places(url)
    yield program.program()
    yield program.driver(url)
    unusable = None if path is None else files.wrong(path, shown)
    if path is not None:
        yield program.sqlite()
        yield from files.file(path, shown) if unusable is None else (unusable,)
    waiting = list(spools.waiting_spools(its))
    yield from spools.place(its, path)
    yield from spools.set_aside(waiting)
    yield from spools.undelivered(waiting)
    if unusable is None:
        yield from database.in_database(url, path, shown, waiting, run)
    else:
        yield from database.undelivered(waiting)
