"""What is said of jobs that a dead process left running: an ``operation_crashed`` event each, with
what was going on.

Of those that had not crashed after all, an ``operation_crash_withdrawn`` event says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import RowMapping, select

from structjob.capture.emit import emit
from structjob.context.scope import Scope
from structjob.engine.database import DatabaseLink
from structjob.engine.source import Source
from structjob.spool.line import number_of, seal_event
from structjob.spool.queue import Dropped
from structjob.spool.recorder import Recorder
from structjob.spool.session import Session
from structjob.store.ingest import Crashed
from structjob.store.tables import logs
from structjob.values.fingerprint import of_words


class _Catcher:
    """Stands for a recorder, and keeps the event in place of recording it."""

    closed = False

    def __init__(self) -> None:
        self.body = b""

    def put(self, body: bytes, level: int) -> None:
        self.body = body


def notices(
    told: dict[str, bytes], crashed: list[Crashed], session: Session, number: Callable[[], int]
) -> bytes:
    """Return the events' lines for the transaction in which *crashed* become so.

    Args:
        told: Lines of earlier attempts at the same transaction, by job: each is told of once, under
            one number.
        crashed: The jobs.
        session: Whose they were.
        number: Gives a number of the session that tells.
    """
    for job in crashed:
        if job.job["id"] not in told and (body := _notice(job, session)):
            told[job.job["id"]] = seal_event(body, number())
    return b"".join(told.get(job.job["id"], b"") for job in crashed)


async def account(
    told: dict[str, bytes], own: Source, recorder: Recorder, link: DatabaseLink
) -> None:
    """Account for the numbers of notices, whatever became of the transactions they were made for:
    some failed, some only seemed to.
    """
    numbers = {number_of(line) for line in told.values()}
    if not numbers:
        return
    there = select(logs.c.seq).where(
        logs.c.session_id == own.session.session_id, logs.c.seq.in_(numbers)
    )
    stored = {row["seq"] for row in await link.store.fetch(there)}
    told.clear()
    own.stored += len(stored)
    recorder.lost.extend(Dropped(number, number, "interrupted") for number in numbers - stored)
    recorder.settle_numbers(numbers, len(stored))


def correct(withdrawn: Iterable[RowMapping], recorder: Recorder, why: str) -> None:
    """Record for each of the jobs *withdrawn* that it had not crashed, and *why*."""
    for row in withdrawn:
        scope = Scope(
            recorder=recorder, job_id=row["id"], attempt=row["attempt"], operation=row["operation"],
            correlation_id=row["correlation_id"], parent_job_id=row["parent_job_id"], category=row["category"], project=row["project"],
        )  # fmt: skip
        kind = "operation_crash_withdrawn"
        emit(scope, "warning", kind, {"operation": row["operation"], "reason": why}, kind=kind)


def _notice(crashed: Crashed, session: Session) -> bytes:
    job, catcher = crashed.job, _Catcher()
    scope = Scope(
        recorder=catcher, job_id=job["id"], attempt=job["attempt"], operation=job["operation"],  # type: ignore[arg-type]  # that much of one
        correlation_id=job["correlation_id"], parent_job_id=job["parent_job_id"], category=job["category"], project=job["project"],
    )  # fmt: skip
    attrs: dict[str, Any] = {
        "operation": job["operation"], "status": "crashed", "host": session.host, "pid": session.pid,
        "open_steps": list(crashed.steps), "last_lines": list(crashed.last_lines),
    }  # fmt: skip
    attrs |= {
        "error_type": "Crashed", "error_message": "its process ended without finishing it",
        "error_fingerprint": of_words("Crashed", "", job["operation"]),
    }  # fmt: skip
    emit(scope, "error", "operation_crashed", attrs, kind="operation_crashed")
    return catcher.body
