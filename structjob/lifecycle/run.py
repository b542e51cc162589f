"""One run of a job: its times, and the resources that it used."""

from __future__ import annotations

import time
from dataclasses import dataclass

from structjob.lifecycle.arguments import check_units
from structjob.machine.clock import time_text
from structjob.machine.memory import own_peak

_MOST_KB = 1 << 62
"""Maximum kilobytes that the column can hold, more than any machine has."""


@dataclass(slots=True, eq=False)
class Run:
    """When a job ran, and what it used.

    Attributes:
        session_id: The session in which it began; 0 before.
        started: When it began, as the text of its column.
        ended: When it ended, in the same form.
        cancelled: The same as *ended*, if it was cancelled.
        duration_ms: Milliseconds from its start to its end.
        cpu_ms: Milliseconds of CPU time that were used.
        max_rss_kb: Peak memory, in kilobytes.
    """

    session_id: int = 0
    started: str | None = None
    ended: str | None = None
    cancelled: str | None = None
    duration_ms: float | None = None
    cpu_ms: float | None = None
    max_rss_kb: int | None = None
    _cpu: float | None = None
    """CPU seconds of this process when the job began."""

    def begin(self, session_id: int, started: str) -> None:
        """Record that the job begins now in this process."""
        self.session_id, self.started = session_id, started
        self._cpu = time.process_time()

    def end(self, seconds: float, *, cancelled: bool) -> None:
        """Record that the job ends now, after *seconds*."""
        self.ended = time_text()
        if cancelled:
            self.cancelled = self.ended
        self.duration_ms = round(seconds * 1000, 3)

    def used(self, cpu_ms: float | None, max_rss_kb: int | None) -> None:
        """Keep the resources that were used elsewhere; see `structjob.Job.end`.

        Raises:
            InvalidArgument: if a number is invalid.
        """
        self.cpu_ms = None if cpu_ms is None else check_units("cpu_ms", cpu_ms)
        self.max_rss_kb = (
            None
            if max_rss_kb is None
            else int(check_units("max_rss_kb", max_rss_kb, most=_MOST_KB))
        )

    def measure(self) -> None:
        """Measure the resources of this process, unless they are known or the job has not begun."""
        if self._cpu is None or self.cpu_ms is not None or self.max_rss_kb is not None:
            return
        self.cpu_ms = round((time.process_time() - self._cpu) * 1000, 3)
        self.max_rss_kb = own_peak()
