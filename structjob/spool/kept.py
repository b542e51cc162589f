"""Events below the database's level, kept in memory until their job ends: ``debug_on_failure``.

If the job fails, they are recorded with their own time and ``late=true``. Otherwise they are
discarded. They are not in the spool: a process that is killed loses them.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from structjob.diagnostics import fault_types, faults
from structjob.process import at_fork
from structjob.spool.line import job_of

KEPT_BYTES = 512 * 1024
"""Maximum bytes of the events that are kept for one job."""

_lock = threading.RLock()
"""Re-entrant, because a signal handler or a ``__del__`` may log while its own thread keeps an
event.
"""


@dataclass(slots=True, eq=False)
class _Ring:
    """The last events of one job."""

    bodies: deque[bytes] = field(default_factory=deque)
    size: int = 0


class KeptEvents:
    """The kept events of the running jobs of a tracker.

    Args:
        most: Maximum number of events for each job.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rings: dict[str, _Ring] = {}

    def begin(self, job_id: str) -> None:
        """Keep the events of a job that starts, or of its next attempt."""
        with _lock:
            self._rings[job_id] = _Ring()

    def keep(self, body: bytes) -> None:
        """Keep an event, if it belongs to a job that runs here. The oldest ones make room.

        Never raise an `Exception`.
        """
        try:
            self._keep(body)
        except fault_types() as exc:  # an internal error must never reach the user's program
            faults.add("keeping an event", exc)

    def _keep(self, body: bytes) -> None:
        job_id = job_of(body) if self._rings else None
        if job_id is None:
            return
        with _lock:
            ring = self._rings.get(job_id)
            if ring is None:
                return
            bodies = ring.bodies
            bodies.append(body)
            ring.size += len(body)
            while len(bodies) > self._most or (ring.size > KEPT_BYTES and bodies):
                # Two statements: an interruption in `popleft` changes the size, too.
                removed = len(bodies.popleft())
                ring.size -= removed

    def end(self, job_id: str) -> list[bytes]:
        """Keep nothing more of a job. Return the events that were kept."""
        with _lock:
            ring = self._rings.pop(job_id, None)
        return [] if ring is None else list(ring.bodies)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it


at_fork("kept", in_child=_after_fork)
