"""Watch a job: return the rows of the job and its descendants that changed since the last call.

The session of a row numbers its changes (``state_seq``). Other sessions change a row only when they
find its session dead, or when they assign the final number of an attempt. These changes are visible
in the status and the attempt number. So a poll of an idle job costs one query of narrow rows, and
only changed rows are read in full.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Select,
    String,
    Table,
    and_,
    literal,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.sql.selectable import CompoundSelect

from structjob.exceptions import InvalidFilter, JobNotFound
from structjob.models import AttemptRecord, JobRecord, StepRecord
from structjob.queries import opaque, rows
from structjob.queries.tree import family
from structjob.store.contract import Fetch, Flush
from structjob.store.tables import attempts, jobs, steps

OVERLAP = 1_000
"""Number of a session's changes that are read again, because two writers may commit in any
order.
"""

THOROUGH = 15.0
"""Seconds between two reads of all rows, which find changes that a writer committed even later."""

MOST = 10_000
"""Maximum number of rows that one poll returns."""

_SESSIONS = 50
"""Maximum number of sessions with a condition of their own. With more, all rows are read."""

_BY_OTHERS = ("crashed", "cancelled")
"""Statuses that another session may set."""

_now = time.monotonic

_Version = tuple[int | None, int, str, int]
"""Session, number of the change, status, attempt."""

_Key = tuple[str, str, int]
"""Kind, id, and the number if it is an attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanges:
    """The changed rows, in full. A row may be returned more than once.

    Of two versions, the one with the greater ``(attempt, session_id, state_seq)`` is newer; if they
    are equal, the later one.

    Args:
        jobs: The job and its descendants.
        attempts: The attempts at these jobs.
        steps: The steps of these jobs, in all attempts.
        state: The state to continue from, also in another process; see `Jobs.watch`.
        more: Whether there are more changes, which the next poll returns.
    """

    jobs: tuple[JobRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    steps: tuple[StepRecord, ...]
    state: str
    more: bool = False

    def __bool__(self) -> bool:
        return bool(self.jobs or self.attempts or self.steps)


class _State(msgspec.Struct, array_like=True, frozen=True):
    """The content of `JobChanges.state`: the number of the last known change of each session."""

    mark: str
    seen: dict[int, int]


class JobWatch:
    """The return value of `Jobs.watch`. Only one task at a time may use it.

    Args:
        find: Returns the id of the job.
        children: Whether to watch its descendants, too.
        since: The state of an earlier watch.
    """

    def __init__(
        self,
        fetch: Fetch,
        flush: Flush,
        find: Callable[[], Awaitable[str]],
        *,
        children: bool,
        since: str | None,
    ) -> None:
        self._fetch = fetch
        self._flush = flush
        self._find = find
        self._children = children
        self._job_id: str | None = None
        self._given = None if since is None else _decoded(since)
        self._seen: dict[int, int] = {}
        """The number of the last known change of each session."""
        self._versions: dict[_Key, _Version] = {}
        self._thorough_at = 0.0

    async def poll(self) -> JobChanges:
        """Return the changes since the last call.

        The first call returns everything, or the changes since the given state.

        Raises:
            JobNotFound: if there is no such job, or it was deleted in the meantime.
            InvalidFilter: if the given state belongs to another job.
            StoreUnavailable: if the database is unavailable.
        """
        await self._flush()
        if self._job_id is None:
            job_id = await self._find()
            if self._given is not None:
                if self._given.mark != _mark(job_id, children=self._children):
                    raise InvalidFilter(
                        "the state belongs to the watch of another job: begin without it"
                    )
                self._seen = dict(self._given.seen)
            self._job_id = job_id
        now = _now()
        narrow = bool(self._seen) and len(self._seen) <= _SESSIONS
        if narrow and self._versions and now - self._thorough_at >= THOROUGH:
            narrow = False
        found = await self._fetch(self._versions_query(self._job_id, narrow=narrow))
        if not narrow:
            self._thorough_at = now
            self._forget_what_is_gone(self._job_id, found)
        changed: dict[_Key, _Version] = {}
        for row in found:
            key = (row["kind"], row["id"], row["number"])
            version = (row["session_id"], row["state_seq"], row["status"], row["attempt"])
            if self._versions.get(key) != version:
                changed[key] = version
                if len(changed) > MOST:
                    break
        more = len(changed) > MOST
        if more:
            changed.popitem()
        seen = dict(self._seen)
        if not more:  # otherwise the next poll would not find the remaining rows
            for session_id, number, _, _ in changed.values():
                if session_id is not None:
                    seen[session_id] = max(number, seen.get(session_id, 0))
        changes = await self._whole(self._job_id, changed, seen, more=more)
        self._versions |= changed
        self._seen = seen
        return changes

    def _forget_what_is_gone(self, job_id: str, found: Sequence[rows.Row]) -> None:
        there = {(row["kind"], row["id"], row["number"]) for row in found}
        if ("job", job_id, 0) not in there:
            raise JobNotFound(job_id)
        self._versions = {key: one for key, one in self._versions.items() if key in there}

    def _versions_query(self, job_id: str, *, narrow: bool) -> CompoundSelect[Any]:
        ids = family(job_id) if self._children else None
        return union_all(
            *(
                self._of(table, kind, ids, job_id, narrow=narrow)
                for kind, table in (("job", jobs), ("attempt", attempts), ("step", steps))
            )
        )

    def _of(
        self, table: Table, kind: str, ids: CTE | None, job_id: str, *, narrow: bool
    ) -> Select[Any]:
        its = table.c.id if table is jobs else table.c.job_id
        number = table.c.attempt if table is attempts else literal(0, Integer())
        statement = select(
            literal(kind, String()).label("kind"),
            (its if table is attempts else table.c.id).label("id"),
            number.label("number"),
            table.c.session_id,
            table.c.state_seq,
            table.c.status,
            table.c.attempt,
        )
        statement = (
            statement.where(its == job_id) if ids is None else statement.join(ids, ids.c.id == its)
        )
        return statement.where(self._recent(table)) if narrow else statement

    def _recent(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row may have changed."""
        known = (
            and_(table.c.session_id == session_id, table.c.state_seq > number - OVERLAP)
            for session_id, number in self._seen.items()
        )
        return or_(
            *known,
            table.c.session_id.not_in(sorted(self._seen)),
            and_(table.c.session_id.is_not(null()), table.c.state_seq == 0),
            table.c.status.in_(_BY_OTHERS),
        )

    async def _whole(
        self, job_id: str, changed: Iterable[_Key], seen: dict[int, int], *, more: bool
    ) -> JobChanges:
        """Return the changed rows in full."""
        ids: dict[str, list[str]] = {"job": [], "attempt": [], "step": []}
        numbers = set()
        for kind, id_, number in changed:
            ids[kind].append(id_)
            numbers.add((id_, number))
        read = partial(rows.read_many, self._fetch)
        found_attempts = [
            rows.attempt(row)
            for row in await read(select(attempts), attempts.c.job_id, ids["attempt"])
            if (row["job_id"], row["attempt"]) in numbers
        ]
        found_jobs = [rows.job(row) for row in await read(select(jobs), jobs.c.id, ids["job"])]
        found_steps = [rows.step(row) for row in await read(select(steps), steps.c.id, ids["step"])]
        return JobChanges(
            jobs=tuple(sorted(found_jobs, key=lambda job: (job.created_at, job.id))),
            attempts=tuple(sorted(found_attempts, key=lambda one: (one.job_id, one.attempt))),
            steps=tuple(sorted(found_steps, key=lambda step: (step.job_id, step.seq, step.id))),
            state=opaque.as_text(
                msgspec.msgpack.encode(_State(_mark(job_id, children=self._children), seen))
            ),
            more=more,
        )


def _mark(job_id: str, *, children: bool) -> str:
    return blake2b(f"{job_id}\0{children}".encode(), digest_size=6).hexdigest()


def _decoded(text: str) -> _State:
    """Return the state that *text* contains.

    Raises:
        InvalidFilter: if it is not a valid state.
    """
    wrong = "this state does not come from a watch: use `changes.state` as it is"
    state = opaque.from_text(text, msgspec.msgpack.Decoder(_State).decode, wrong)
    opaque.check_numbers((*state.seen, *state.seen.values()), wrong)
    return state
