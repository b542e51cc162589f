"""Crash notices: one ``operation_crashed`` event for each job that a dead process left running.

Each event says what the job was doing. The events are created before the transaction that marks the
jobs as crashed. That transaction stores them, and they are shown after it. If a job had not crashed
after all, an ``operation_crash_withdrawn`` event corrects the notice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from structjob.capture.emit import body_of, emit, show
from structjob.capture.setup import SETUP
from structjob.context.scope import Scope
from structjob.engine.database import DatabaseLink
from structjob.engine.source import Source
from structjob.machine import clock
from structjob.spool.fault_log import Fault
from structjob.spool.line import seal_event
from structjob.spool.queue import Dropped
from structjob.spool.recorder import Recorder
from structjob.spool.session import Session
from structjob.store.contract import LeftRunning, LogStore, Notices
from structjob.store.sessions import left_running
from structjob.values.fingerprint import of_words

_KIND, _LEVEL = "operation_crashed", "error"


@dataclass(frozen=True, slots=True)
class _Notice:
    scope: Scope
    attrs: dict[str, Any]
    ns: int
    number: int
    line: bytes


class CrashNotices:
    """The events about the jobs that one dead session left running.

    They keep their numbers when the transaction must be retried, because it may have been
    committed.

    Args:
        session: The dead session.
        recorder: The recorder of this process, which owns the events.
        fault: Why its process died, if that is known.
    """

    def __init__(self, session: Session, recorder: Recorder, fault: Fault | None = None) -> None:
        self._session = session
        self._recorder = recorder
        redactor = SETUP.redactor
        self._reason: str = "" if fault is None else fault.reason
        self._stack: str | None = None if fault is None else fault.stack
        self._log: str | None = None if fault is None else fault.log
        if redactor is not None and self._stack is not None:
            self._reason, self._stack = redactor.text(self._reason), redactor.text(self._stack)
        self._made: dict[str, _Notice] = {}

    async def prepare(self, link: DatabaseLink) -> Notices:
        """Return the events about the jobs that the session has running now."""
        for job in await left_running(link.store.fetch, self._session.session_id):
            if job.job["id"] not in self._made:
                self._made[job.job["id"]] = self._notice(job)
        lines = {job_id: notice.line for job_id, notice in self._made.items()}
        return Notices(self._recorder.session.session_id, lines, self._reason, self._stack)

    def _notice(self, found: LeftRunning) -> _Notice:
        job, session, ns = found.job, self._session, clock.now()
        scope = Scope(
            job_id=job["id"], attempt=job["attempt"], operation=job["operation"],
            correlation_id=job["correlation_id"], parent_job_id=job["parent_job_id"], category=job["category"], project=job["project"],
        )  # fmt: skip
        attrs: dict[str, Any] = {
            "operation": job["operation"], "status": "crashed", "host": session.host, "pid": session.pid,
            "open_steps": list(found.steps), "last_lines": list(found.last_lines),
            "error_type": "Crashed",
            "error_message": f"its process ended without finishing it{self._reason and f': {self._reason}'}",
            "error_fingerprint": of_words("Crashed", self._reason, job["operation"]),
        }  # fmt: skip
        if self._log is not None:
            attrs["fault_log"] = self._log
        body = body_of(scope, _LEVEL, dict(attrs), kind=_KIND, ns=ns)
        number = self._recorder.take_number()
        return _Notice(scope, attrs, ns, number, seal_event(body, number))

    async def account(self, own: Source, store: LogStore) -> None:
        """Show the events that are stored, and account for the numbers of all events.

        Every number is accounted for, because a transaction may have failed, or only seem to have
        failed.
        """
        if not self._made:
            return
        numbers = {notice.number for notice in self._made.values()}
        stored = await store.stored(own.session.session_id, numbers)
        made, self._made = self._made, {}
        own.stored += len(stored)
        lost = (Dropped(number, number, "interrupted") for number in numbers - stored)
        self._recorder.lost.extend(lost)
        self._recorder.confirm_numbers(numbers, len(stored))
        for notice in made.values():
            if notice.number in stored:
                show(notice.scope, _LEVEL, notice.attrs, kind=_KIND, ns=notice.ns)


def correct(withdrawn: Iterable[RowMapping], recorder: Recorder, why: str) -> None:
    """Record for each job in *withdrawn* that it had not crashed, and *why*."""
    for row in withdrawn:
        scope = Scope(
            recorder=recorder, job_id=row["id"], attempt=row["attempt"], operation=row["operation"],
            correlation_id=row["correlation_id"], parent_job_id=row["parent_job_id"], category=row["category"], project=row["project"],
        )  # fmt: skip
        kind = "operation_crash_withdrawn"
        emit(scope, "warning", kind, {"operation": row["operation"], "reason": why}, kind=kind)
