"""The conditions and queries for what is due by a retention; an index serves each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    case,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)

from structjob.levels import LEVELS
from structjob.retention.policy import Retention, age_of_level, age_of_rest, age_of_status
from structjob.statuses import JOB_TERMINAL
from structjob.store.gaps import PRUNED
from structjob.store.tables import USUAL, dead_letters, gaps, jobs, logs, sessions, unusual

_JOB_MAY_FOLLOW = timedelta(hours=1)
"""How much later than an event the row of its job may arrive."""

_ended = func.coalesce(
    jobs.c.completed_at,
    jobs.c.cancelled_at,
    jobs.c.started_at,
    jobs.c.created_at,
    type_=jobs.c.created_at.type,
)
_TERMINAL = tuple(sorted(status.value for status in JOB_TERMINAL))


@dataclass(frozen=True, slots=True)
class Plan:
    """A job that is due, as it was when it was found. If it has changed since, it is kept.

    Attributes:
        top: The job from which its family was found. In a circle of parents, it is also the child
            of the last job. As such it does not keep that job from being deleted.
    """

    id: str
    attempt: int
    session_id: int | None
    state_seq: int
    top: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Due:
    """A retention at one moment.

    Args:
        retention: What is kept for how long.
        now: The moment, by the database's clock.
    """

    retention: Retention
    now: datetime

    @property
    def before(self) -> datetime | None:
        """The moment before which everything without its own age is due; ``None`` for never."""
        return self._before(age_of_rest(self.retention))

    def _before(self, age: timedelta | None) -> datetime | None:
        return None if age is None else self.now - age

    @property
    def statuses(self) -> dict[str, datetime]:
        """Status → the moment before which a job with this status must have ended to be due."""
        found = {
            status: self._before(age_of_status(self.retention, status)) for status in _TERMINAL
        }
        return {status: before for status, before in found.items() if before is not None}

    @property
    def _levels(self) -> dict[str, datetime]:
        found = {
            level: self._before(age_of_level(self.retention, level))
            for level in self.retention.levels
        }
        return {level: before for level, before in found.items() if before is not None}

    @property
    def _rest(self) -> tuple[str, ...]:
        """The levels that have no age of their own."""
        return tuple(level for level in LEVELS if level not in self.retention.levels)

    # -- events that are deleted independently of their job
    # --------------------------------------------------------------------------

    def events(self) -> list[ColumnElement[bool]]:
        """Return the conditions of events that are due by their own time.

        Each condition is for a separate query; no event meets two of them.
        """
        found = [
            and_(
                logs.c.level == level,
                logs.c.ts < before,
                true() if level == USUAL["level"] else unusual("level"),
            )
            for level, before in self._levels.items()
        ]
        if self.before is not None:
            found.append(
                and_(
                    logs.c.type == "system",
                    unusual("type"),
                    logs.c.ts < self.before,
                    logs.c.level.in_(self._rest),
                )
            )
        return found

    def not_by_level(self) -> ColumnElement[bool]:
        """Return the condition that an event is not due by its level."""
        return and_(
            true(),
            *(
                not_(and_(logs.c.level == level, logs.c.ts < before))
                for level, before in self._levels.items()
            ),
        )

    def of_strays(self, job_ids: Sequence[str]) -> ColumnElement[bool] | None:
        """Return the condition that an event is due and its job, one of *job_ids*, has no row.

        Such a job was pruned, and an event arrived late. Return ``None`` if such events are never
        due.
        """
        if self.before is None:
            return None
        long_stored = func.coalesce(logs.c.stored_at, logs.c.ts, type_=logs.c.ts.type) < (
            self.now - _JOB_MAY_FOLLOW
        )
        mine = and_(
            logs.c.job_id.in_(job_ids), logs.c.ts < self.before, logs.c.level.in_(self._rest)
        )
        return and_(mine, long_stored, ~exists().where(jobs.c.id == logs.c.job_id))

    # -- jobs
    # --------------------------------------------------------------------------

    def tops(self, status: str, after: tuple[datetime, str] | None, limit: int) -> Select[Any]:
        """Return the query for due jobs whose parent does not hold them, ordered by time.

        A parent holds a job if it has ended and was created earlier. A job whose parent was created
        later may be in a circle of parents, which older versions imported; `held` detects this.
        """
        before = self.statuses[status]
        above = jobs.alias("above")
        held = exists().where(
            above.c.id == jobs.c.parent_job_id, _earlier(above, jobs), above.c.status.in_(_TERMINAL)
        )
        statement = select(jobs.c.id, jobs.c.created_at).where(
            jobs.c.status == status, jobs.c.created_at < before, _ended < before, ~held
        )
        if after is not None:
            moment, id_ = after
            statement = statement.where(
                jobs.c.created_at >= moment, or_(jobs.c.created_at > moment, jobs.c.id > id_)
            )
        return statement.order_by(jobs.c.created_at, jobs.c.id).limit(limit)

    def held(self, tops: Sequence[str]) -> Select[Any]:
        """Return the query for those of *tops* that have an ended ancestor at any distance.

        Its column is ``top``. In a circle of parents, the earliest job is not held: the whole
        circle is found below it.
        """
        begin = select(jobs.c.parent_job_id.label("id"), jobs.c.id.label("top")).where(
            jobs.c.id.in_(tops)
        )
        found = begin.where(jobs.c.parent_job_id.is_not(None)).cte("above", recursive=True)
        parent = jobs.alias("parent")
        higher = select(parent.c.parent_job_id, found.c.top).join(found, parent.c.id == found.c.id)
        # UNION ends even in a circle
        found = found.union(higher.where(parent.c.parent_job_id.is_not(None)))
        top, again = jobs.alias("top_job"), found.alias("above_again")
        in_circle = top.c.id.in_(select(again.c.top).where(again.c.top == again.c.id))
        statement = (
            select(found.c.top)
            .distinct()
            .join(jobs, jobs.c.id == found.c.id)
            .join(top, top.c.id == found.c.top)
        )
        return statement.where(
            jobs.c.status.in_(_TERMINAL), or_(not_(in_circle), _earlier(jobs, top))
        )

    def family(self, tops: Sequence[str], after: tuple[int, str] | None, limit: int) -> Select[Any]:
        """Return the query for the jobs *tops* and all their descendants, parents first.

        Its columns are those of `family_of`, and ``due``: whether the job is due.
        """
        due = case((self.job(), 1), else_=0).label("due")
        return family_of(tops, after, limit, due)

    def job(self) -> ColumnElement[bool]:
        """Return the condition that a job is due, without regard to its relatives."""
        return or_(
            false(),
            *(
                and_(jobs.c.status == status, _ended < before)
                for status, before in self.statuses.items()
            ),
        )

    # -- dead letters and sessions
    # --------------------------------------------------------------------------

    def dead_letters(self) -> ColumnElement[bool] | None:
        """Return the condition that a dead letter is due; ``None`` if dead letters are never
        due.
        """
        return None if self.before is None else dead_letters.c.ts < self.before

    def sessions(self) -> ColumnElement[bool] | None:
        """Return the condition that an empty session without losses is due; ``None`` for never.

        A session that lost events is kept, as the proof of the loss.
        """
        if self.before is None:
            return None
        mine = gaps.c.session_id == sessions.c.session_id
        more = exists().where(mine, or_(gaps.c.first_seq != 1, gaps.c.reason != PRUNED))
        # without `more` its only row says which numbers were pruned, from 1 on
        whole = exists().where(mine, gaps.c.last_seq >= sessions.c.last_seq)
        return and_(
            sessions.c.ended_at < self.before,
            ~exists().where(logs.c.session_id == sessions.c.session_id),
            ~exists().where(jobs.c.session_id == sessions.c.session_id),
            ~exists().where(dead_letters.c.session_id == sessions.c.session_id),
            ~more,
            or_(sessions.c.last_seq == 0, whole),
        )


def family_of(
    tops: Sequence[str], after: tuple[int, str] | None, limit: int, *more: ColumnElement[Any]
) -> Select[Any]:
    """Return the query for the jobs *tops* and all their descendants, parents first.

    Its columns are those of a `Plan`, ``top``, ``depth``, and *more*. The next page begins *after*
    a depth and an id.
    """
    begin = select(jobs.c.id, jobs.c.id.label("top"), literal(0).label("depth")).where(
        jobs.c.id.in_(tops)
    )
    found = begin.cte("family", recursive=True)
    child = jobs.alias("child")
    # A job has one parent, so every circle that is reached contains the top.
    below = select(child.c.id, found.c.top, found.c.depth + 1).join(
        found, child.c.parent_job_id == found.c.id
    )
    found = found.union_all(below.where(child.c.id != found.c.top))
    columns = (
        jobs.c.id,
        jobs.c.attempt,
        jobs.c.session_id,
        jobs.c.state_seq,
        found.c.top,
        found.c.depth,
    )
    statement = select(*columns, *more).join(found, found.c.id == jobs.c.id)
    if after is not None:
        statement = statement.where(
            or_(found.c.depth > after[0], and_(found.c.depth == after[0], jobs.c.id > after[1]))
        )
    return statement.order_by(found.c.depth, jobs.c.id).limit(limit)


def _earlier(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the condition that *one* job was created before the *other*.

    If both were created at the same time, their ids decide.
    """
    same = and_(one.c.created_at == other.c.created_at, one.c.id < other.c.id)
    return or_(one.c.created_at < other.c.created_at, same)


def plan_of(row: Mapping[Any, Any]) -> Plan:
    """Return the plan to delete the job in a row of `Due.family`."""
    return Plan(row["id"], row["attempt"], row["session_id"], row["state_seq"], row["top"])


def planned(rows: Sequence[Mapping[Any, Any]]) -> list[Plan]:
    """Return the jobs of `Due.family` whose whole family is due, in the same order."""
    held = {row["top"] for row in rows if not row["due"]}
    return [plan_of(row) for row in rows if row["top"] not in held]
