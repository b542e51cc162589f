"""The accounts of one session's events: where each event is at any moment."""

from __future__ import annotations

from collections import Counter

from structjob.engine.source import Source
from structjob.models import Ledger
from structjob.spool.queue import MemoryQueue
from structjob.spool.recorder import Recorder
from structjob.text.wording import count_of


class Accounts:
    """Counts the events that a recorder takes.

    Args:
        own: The source that delivers the recorder's queues.
        recorder: The recorder.
    """

    def __init__(self, own: Source, recorder: Recorder) -> None:
        self._own = own
        self._recorder = recorder

    def ledger(self) -> Ledger:
        """Return the ledger of this session's events."""
        recorder = self._recorder
        # In a forked child the engine belongs to the parent, so none of its counts applies to the
        # child.
        source = self._own if not recorder.forked else Source(recorder.session, recorder.queues)
        # Read the number of accepted events last: then no event can be counted as stored before it
        # is counted as accepted.
        stored, dead, in_flight = source.stored, source.dead, source.in_flight
        dropped = Counter(source.dropped)
        for drops in recorder.dropped_sources():
            for event in list(drops):
                dropped[event.reason] += event.last - event.first + 1
        memory = [
            queue
            for queue in (recorder.events, recorder.fallback)
            if isinstance(queue, MemoryQueue)
        ]
        accepted = recorder.numbers.given
        left = accepted - stored - dead - sum(dropped.values())
        # Without a spool, every other event is in memory: in the queue, or in a call that has not
        # finished.
        in_memory = left if recorder.spool is None else min(left, in_flight + sum(map(len, memory)))
        return Ledger(
            accepted=accepted,
            stored=stored,
            spilled=left - in_memory,
            in_memory=in_memory,
            dropped=dict(+dropped),
            dead_lettered=dead,
            rejected=recorder.rejected.given,
        )

    def waiting(self) -> int:
        """Return how many events wait for the database.

        If another process delivers, it is not known here which of those on disk still wait.
        """
        ledger = self.ledger()
        return ledger.in_memory + (ledger.spilled if self._recorder.delivers else 0)

    def record_drops(self) -> None:
        """Count the dropped events and record them in ``structjob_gaps`` through the spool."""
        recorder, dropped = self._recorder, self._own.dropped
        drops = recorder.account()
        for gap in drops:
            dropped[gap.reason] += gap.last - gap.first + 1
        while recorder.lost_states:
            self._own.states.add([recorder.lost_states.popleft()])
        recorder.secure()
        if drops:
            events = count_of(sum(dropped.values()), "event", "was", "were")
            recorder.warn(
                "dropped", "%s dropped so far (%s); see structjob_gaps", events, dict(dropped)
            )
