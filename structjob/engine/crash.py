"""Crash notices: one ``operation_crashed`` event for each job that a dead process left running.

Each event says what the job was doing. The events are created before the transaction that marks the
jobs as crashed. That transaction stores them, as a session of their own, and they are shown after
it. If a job had not crashed after all, an ``operation_crash_withdrawn`` event corrects the notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from structjob.capture.emit import body_of, show
from structjob.capture.setup import SETUP
from structjob.context.scope import Scope
from structjob.engine.database import DatabaseLink
from structjob.machine import clock
from structjob.spool.fault_log import Fault
from structjob.spool.session import Session
from structjob.store.contract import LeftRunning, Notices
from structjob.store.sessions import left_running
from structjob.values.fingerprint import of_words

_Kind = tuple[str, str]
"""The kind and the level of an event."""

_CRASHED = "operation_crashed", "error"
_WITHDRAWN = "operation_crash_withdrawn", "warning"


@dataclass(frozen=True, slots=True)
class _Notice:
    kind: str
    level: str
    scope: Scope
    attrs: dict[str, Any]
    ns: int

    @classmethod
    def about(
        cls, job: Mapping[str, Any] | RowMapping, kind: _Kind, attrs: dict[str, Any]
    ) -> _Notice:
        scope = Scope(
            job_id=job["id"], attempt=job["attempt"], operation=job["operation"],
            correlation_id=job["correlation_id"], parent_job_id=job["parent_job_id"], category=job["category"], project=job["project"],
        )  # fmt: skip
        return cls(*kind, scope, {"operation": job["operation"], **attrs}, clock.now())

    def body(self) -> bytes:
        return body_of(self.scope, self.level, dict(self.attrs), kind=self.kind, ns=self.ns)

    def show(self) -> None:
        show(self.scope, self.level, self.attrs, kind=self.kind, ns=self.ns)


class CrashNotices:
    """The events about the jobs of one session whose process is found dead, or alive after all.

    Args:
        session: The session.
        finder: Says which process has found it.
        fault: Why its process died, if that is known.
        withdrawn: Why a job that was presumed crashed has not crashed.
    """

    def __init__(
        self, session: Session, finder: Session, *, fault: Fault | None = None, withdrawn: str = ""
    ) -> None:
        self._session = session
        self._report = finder.successor()
        redactor = SETUP.redactor
        self._reason: str = "" if fault is None else fault.reason
        self._stack: str | None = None if fault is None else fault.stack
        self._log: str | None = None if fault is None else fault.log
        if redactor is not None and self._stack is not None:
            self._reason, self._stack = redactor.text(self._reason), redactor.text(self._stack)
        self._withdrawn = withdrawn
        self._made: dict[tuple[str, _Kind, int], _Notice] = {}

    async def prepare(self, link: DatabaseLink) -> Notices:
        """Return the events about the jobs that the session has running now."""
        bodies = {}
        for found in await left_running(link.store.fetch, self._session.session_id):
            notice = self._made.setdefault(_key(found.job, _CRASHED), self._crash(found))
            bodies[found.job["id"]] = notice.body()
        return Notices(self._report, bodies, self._reason, self._stack, self.correction)

    def corrections(self) -> Notices:
        """Return only what corrects earlier events."""
        return Notices(self._report, {}, correction=self.correction)

    def correction(self, job: RowMapping) -> bytes:
        """Return the event that *job* has not crashed, although an earlier event says so."""
        notice = self._made[_key(job, _WITHDRAWN)] = _Notice.about(
            job, _WITHDRAWN, {"reason": self._withdrawn}
        )
        return notice.body()

    def _crash(self, found: LeftRunning) -> _Notice:
        job, session = found.job, self._session
        attrs: dict[str, Any] = {
            "status": "crashed", "host": session.host, "pid": session.pid,
            "open_steps": list(found.steps), "last_lines": list(found.last_lines),
            "error_type": "Crashed",
            "error_message": f"its process ended without finishing it{self._reason and f': {self._reason}'}",
            "error_fingerprint": of_words("Crashed", self._reason, job["operation"]),
        }  # fmt: skip
        if self._log is not None:
            attrs["fault_log"] = self._log
        return _Notice.about(job, _CRASHED, attrs)

    async def show(self, link: DatabaseLink) -> None:
        """Show the events that are stored.

        A transaction may have failed, or only seem to have failed, and a job may have ended before
        it.
        """
        if not self._made:
            return
        stored = await link.store.jobs_of(self._report.session_id)
        made, self._made = self._made, {}
        for (job_id, *_), notice in made.items():
            if job_id in stored:
                notice.show()


def _key(job: Mapping[str, Any] | RowMapping, kind: _Kind) -> tuple[str, _Kind, int]:
    return job["id"], kind, job["attempt"]
