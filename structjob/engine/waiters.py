"""Waiters: callers in any thread that wait until events are stored or a change of state is
committed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from structjob.engine.source import Reached, Source
from structjob.exceptions import StoreUnavailable
from structjob.spool.queue import RecordQueue

Future = concurrent.futures.Future[None]


@dataclass(slots=True, eq=False)
class Flush:
    """A caller that waits for the records up to a position in each queue, and for sessions to end.

    The sessions are those of dead processes.
    """

    targets: Sequence[tuple[Source, RecordQueue, Any]]
    ending: Sequence[Source]
    future: Future

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Flush:
        """Return a flush that waits for everything that *sources* hold now."""
        targets: list[tuple[Source, RecordQueue, Any]] = []
        for source in sources:
            # The engine sets an unreadable adopted spool aside at its turn: the flush waits for it
            # until then.
            with (
                contextlib.suppress(OSError)
                if source.spool is not None
                else contextlib.nullcontext()
            ):
                targets += [(source, queue, queue.position()) for queue in source.queues()]
        ending = [
            source for source in sources if source.spool is not None and not source.spool.alive
        ]
        return cls(targets, ending, concurrent.futures.Future())

    def resolve(self) -> bool:
        """Complete the future if everything is stored; return whether the flush is done."""
        if self.future.done():
            return True
        if all(
            source.ended or queue.reached(position) for source, queue, position in self.targets
        ) and all(source.ended for source in self.ending):
            _set(self.future, None)
            return True
        return False


class Waiters:
    """All callers that wait for one tracker's database."""

    def __init__(self) -> None:
        # Any thread adds to these lists. They are only changed in place, by operations that cannot
        # be interrupted.
        self._flushes: list[Flush] = []
        self._commits: list[tuple[int, Future]] = []

    def __bool__(self) -> bool:
        return bool(self._flushes or self._commits)

    def add_flush(self, flush: Flush) -> None:
        """Complete *flush* when everything that it waits for is stored."""
        self._flushes.append(flush)

    def resolve_flushes(self) -> None:
        """Complete the flushes that are reached."""
        for flush in list(self._flushes):
            if flush.resolve():
                with contextlib.suppress(ValueError):
                    self._flushes.remove(flush)

    def add_commit(self, state_seq: int) -> Future:
        """Return a future that is done when the change of state *state_seq* is committed."""
        future: Future = concurrent.futures.Future()
        self._commits.append((state_seq, future))
        return future

    def resolve(self, states: Reached) -> None:
        """Complete the flushes and commits that are reached.

        *states* holds the committed changes.
        """
        self.resolve_flushes()
        for commit in list(self._commits):
            if commit[0] in states or commit[1].done():
                _set(commit[1], None)
                with contextlib.suppress(ValueError):
                    self._commits.remove(commit)

    def fail(self, exc: StoreUnavailable) -> None:
        """Fail all waiting callers with *exc*."""
        while self._flushes:
            _set(self._flushes.pop().future, exc)
        while self._commits:
            _set(self._commits.pop()[1], exc)


def _set(future: Future, exc: Exception | None) -> None:
    # The waiting caller may give up at the same moment, in another thread.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        if exc is None:
            future.set_result(None)
        else:
            future.set_exception(exc)
