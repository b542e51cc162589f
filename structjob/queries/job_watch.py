"""Watching a job: the rows of it and of what is below it that changed since they were last
returned.

A row is changed by its session, which numbers its changes (``state_seq``), or by whoever finds that
session dead or settles an attempt's number, which is seen by the status and the number. So an idle
job costs one query of narrow rows a look, and only the rows that changed are read whole.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

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
from structjob.queries import rows
from structjob.queries.tree import family
from structjob.store.contract import Fetch, Flush
from structjob.store.tables import attempts, jobs, steps

R = TypeVar("R")

OVERLAP = 1_000
"""Changes of one session that are looked at once more: two writers commit in their own order."""

THOROUGH = 15.0
"""Seconds between two looks at all rows: of what a writer was held up with for longer."""

MOST = 10_000
"""Rows that one look returns at most."""

_AT_ONCE = 500
_SESSIONS = 50
"""Sessions that have a condition of their own; with more, all rows are looked at."""

_BY_OTHERS = ("crashed", "cancelled")
"""Statuses that a row is given though its session changed nothing."""

_now = time.monotonic

_Version = tuple[int | None, int, str, int]
"""Session, number of the change, status, attempt."""

_Key = tuple[str, str, int]
"""Kind, id, and the attempt if it is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanges:
    """Rows that changed, whole; any of them may come once more. The row with the greater
    ``(attempt, session_id, state_seq)``, or else the later one, is the newer.

    Args:
        jobs: The job, and its descendants.
        attempts: At any of these.
        steps: Of any of these, in all attempts.
        state: What to go on from, in another process even; see `Jobs.watch`.
        more: Whether there are more, which the next look returns.
    """

    jobs: tuple[JobRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    steps: tuple[StepRecord, ...]
    state: str
    more: bool = False

    def __bool__(self) -> bool:
        return bool(self.jobs or self.attempts or self.steps)


class _State(msgspec.Struct, array_like=True, frozen=True):
    """As text, `JobChanges.state`: of each session, the number of its last change that is known."""

    mark: str
    seen: dict[int, int]


class JobWatch:
    """What `Jobs.watch` returns; for one task at a time.

    Args:
        fetch: Runs a statement on the store and returns its rows.
        flush: Delivers what is pending.
        find: Returns the id of the job.
        children: Whether its descendants are watched, too.
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
        """Of each session, the number of its last change that is known."""
        self._versions: dict[_Key, _Version] = {}
        self._thorough_at = 0.0

    async def poll(self) -> JobChanges:
        """Return what has changed since the last call; at first everything, or what changed since
        the state that was given.

        Raises:
            JobNotFound: if there is no such job, or it was deleted meanwhile.
            InvalidFilter: if the state that was given is another job's.
            StoreUnavailable: if the database does not answer.
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
            self._forget_what_is_gone(found)
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
        changes = await self._whole(changed, more=more)
        self._versions |= changed
        if not more:  # what is left is found without a mark
            for session_id, number, _, _ in changed.values():
                if session_id is not None:
                    self._seen[session_id] = max(number, self._seen.get(session_id, 0))
        return changes

    def _forget_what_is_gone(self, found: Sequence[rows.Row]) -> None:
        there = {(row["kind"], row["id"], row["number"]) for row in found}
        assert self._job_id is not None  # noqa: S101 -- it was found before
        if ("job", self._job_id, 0) not in there:
            raise JobNotFound(self._job_id)
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
        """Return whether a row may have changed."""
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

    async def _whole(self, changed: Iterable[_Key], *, more: bool) -> JobChanges:
        ids: dict[str, list[str]] = {"job": [], "attempt": [], "step": []}
        numbers = set()
        for kind, id_, number in changed:
            ids[kind].append(id_)
            numbers.add((id_, number))
        found_attempts = [
            one
            for one in await self._read(attempts, attempts.c.job_id, ids["attempt"], rows.attempt)
            if (one.job_id, one.attempt) in numbers
        ]
        found_jobs = await self._read(jobs, jobs.c.id, ids["job"], rows.job)
        found_steps = await self._read(steps, steps.c.id, ids["step"], rows.step)
        assert self._job_id is not None  # noqa: S101 -- it was found before
        seen = dict(self._seen)
        if not more:  # what is left out would be missed by another watch that goes on from here
            every: list[JobRecord | AttemptRecord | StepRecord]
            every = [*found_jobs, *found_attempts, *found_steps]
            for row in every:
                if row.session_id is not None:
                    seen[row.session_id] = max(row.state_seq, seen.get(row.session_id, 0))
        return JobChanges(
            jobs=tuple(sorted(found_jobs, key=lambda job: (job.created_at, job.id))),
            attempts=tuple(sorted(found_attempts, key=lambda one: (one.job_id, one.attempt))),
            steps=tuple(sorted(found_steps, key=lambda step: (step.job_id, step.seq, step.id))),
            state=_encoded(_State(_mark(self._job_id, children=self._children), seen)),
            more=more,
        )

    async def _read(
        self,
        table: Table,
        column: ColumnElement[str],
        ids: Sequence[str],
        build: Callable[[rows.Row], R],
    ) -> list[R]:
        wanted = sorted(set(ids))
        found: list[R] = []
        for first in range(0, len(wanted), _AT_ONCE):
            some = select(table).where(column.in_(wanted[first : first + _AT_ONCE]))
            found += [build(row) for row in await self._fetch(some)]
        return found


def _mark(job_id: str, *, children: bool) -> str:
    return blake2b(f"{job_id}\0{children}".encode(), digest_size=6).hexdigest()


def _encoded(state: _State) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(state)).rstrip(b"=").decode()


def _decoded(text: str) -> _State:
    """Return the state that *text* stands for.

    Raises:
        InvalidFilter: if it is none.
    """
    wrong = "the state is none that a watch gave: use `changes.state` as it is"
    if not isinstance(text, str) or not text.isascii():
        raise InvalidFilter(wrong)
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        state = msgspec.msgpack.decode(packed, type=_State)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise InvalidFilter(wrong) from None
    # what anybody can forge must not reach a driver that refuses it
    if not all(0 <= number < 2**63 for pair in state.seen.items() for number in pair):
        raise InvalidFilter(wrong)
    return state
