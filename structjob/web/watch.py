"""Rows that change: of a job and its descendants, of the newest jobs, of the sessions.

The database is queried once a second for all subscribers of the same rows, and not at all without
subscribers.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from structjob.exceptions import JobNotFound, StructjobError
from structjob.models import SessionRecord
from structjob.web.frames import Frame, frame
from structjob.web.subscription import Subscription

if TYPE_CHECKING:
    from structjob.queries.job_watch import JobChanges, JobWatch
    from structjob.web.source import Source

POLL = 1.0
"""Seconds between two queries."""

_SHARE = 5
"""After a slow query, the pause is this many times as long as the query."""

_NEWEST = 100
_RUNNING = 200
_SESSIONS = 100

Rows = dict[str, dict[Any, Any]]
"""The records by kind, and then by key."""


class Watch:
    """The state that all subscribers of the same rows share.

    Args:
        source: The source to read.
        channel: ``tree``, ``jobs`` or ``sessions``.
        job: For the channel ``tree``, any id of its job.
    """

    def __init__(self, source: Source, channel: str, job: str | None) -> None:
        self._source = source
        self._channel = channel
        self._job = job
        self._subscribers: set[Subscription] = set()
        self._task: asyncio.Task[None] | None = None
        self._known: Rows | None = None
        self._extra: Mapping[str, Any] = {}
        self._watch: JobWatch | None = None

    @property
    def idle(self) -> bool:
        """Whether there are no subscribers."""
        return not self._subscribers

    def join(self, subscription: Subscription) -> None:
        """Send all rows to a subscriber, and then those that change."""
        self._subscribers.add(subscription)
        if self._known is not None:
            subscription.put(_frame(self._known, self._extra))
        if self._task is None:
            self._task = asyncio.create_task(self._look())

    def leave(self, subscription: Subscription) -> None:
        """Send nothing more to a subscriber."""
        self._subscribers.discard(subscription)
        if self.idle:
            self.close()

    def close(self) -> None:
        """Stop the queries."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._known = self._watch = None

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            found: Rows | None
            try:
                found, extra = await self._read()
            except JobNotFound:  # it was deleted
                for subscription in list(self._subscribers):
                    subscription.end("expired")
                return
            except StructjobError:  # the database does not answer
                found, self._watch = None, None
            if found is not None:
                changed = _changes(self._known or {}, found)
                if changed or self._known is None:
                    frame = _frame(changed, extra)
                    for subscription in list(self._subscribers):
                        subscription.put(frame)
                self._known, self._extra = found, extra
            await asyncio.sleep(max(POLL, _SHARE * (loop.time() - began)))

    async def _read(self) -> tuple[Rows, Mapping[str, Any]]:
        if self._channel == "sessions":
            sessions = await self._source.reader.sessions.list(limit=_SESSIONS)
            # ages change all the time, so the clients compute them
            return {"sessions": {one.session_id: one for one in sessions}}, {}
        if self._channel == "jobs":
            newest = await self._source.reader.jobs.list(limit=_NEWEST)
            running = await self._source.reader.jobs.list(status="running", limit=_RUNNING)
            return {"jobs": {job.id: job for job in (*newest, *running)}}, {}
        assert self._job is not None  # noqa: S101 -- a tree has a job
        if self._watch is None:
            self._watch = self._source.reader.jobs.watch(self._job)
        rows: Rows = {kind: dict(found) for kind, found in (self._known or {}).items()}
        changed = False
        while True:
            changes = await self._watch.poll()
            changed = changed or bool(changes)
            _merge(rows, changes)
            if not changes.more:
                break
        extra = self._extra
        if changed or not extra:
            extra = {"progress": await self._source.reader.jobs.progress(self._job)}
        return rows, extra


def _merge(rows: Rows, changes: JobChanges) -> None:
    rows.setdefault("jobs", {}).update({one.id: one for one in changes.jobs})
    rows.setdefault("attempts", {}).update(
        {(one.job_id, one.attempt): one for one in changes.attempts}
    )
    rows.setdefault("steps", {}).update({one.id: one for one in changes.steps})


async def rows_since(source: Source, job: str, state: str | None) -> tuple[Rows, str]:
    """Return the rows of a job and its descendants that changed since *state*, and the new state.

    Raises:
        JobNotFound: if there is no such job.
        InvalidFilter: if *state* is invalid.
    """
    watch = source.reader.jobs.watch(job, since=state)
    rows: Rows = {}
    while True:
        changes = await watch.poll()
        _merge(rows, changes)
        if not changes.more:
            return rows, changes.state


def _changes(known: Rows, found: Rows) -> Rows:
    changed = {
        kind: {
            key: row for key, row in rows.items() if not _same(known.get(kind, {}).get(key), row)
        }
        for kind, rows in found.items()
    }
    return changed if any(changed.values()) else {}


def _same(known: Any, row: Any) -> bool:
    if known is None or not isinstance(row, SessionRecord):
        return bool(known == row)
    same_age = dataclasses.replace(known, heartbeat_age_seconds=row.heartbeat_age_seconds)
    return bool(same_age == row)


def _frame(rows: Rows, extra: Mapping[str, Any]) -> Frame:
    return frame("state", {**{kind: list(found.values()) for kind, found in rows.items()}, **extra})
