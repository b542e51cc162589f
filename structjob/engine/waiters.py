"""Waiters: callers in any thread that wait until events are stored or a change of state is
committed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from structjob.engine.source import AdoptedSource, Reached, Source
from structjob.exceptions import StoreUnavailable
from structjob.machine.promise import Promise
from structjob.spool.queue import RecordQueue


@dataclass(slots=True, eq=False)
class Flush:
    """A caller that waits for the records up to a position in each queue, and for sessions to end.

    The sessions are those of dead processes.
    """

    targets: Sequence[tuple[Source, RecordQueue, Any]]
    ending: Sequence[Source]
    promise: Promise[None]

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Flush:
        """Return a flush that waits for everything that *sources* hold now."""
        targets: list[tuple[Source, RecordQueue, Any]] = []
        for source in sources:
            # The engine sets an unreadable adopted spool aside at its turn: the flush waits for it
            # until then.
            adopted = isinstance(source, AdoptedSource)
            with contextlib.suppress(OSError) if adopted else contextlib.nullcontext():
                targets += [(source, queue, queue.position()) for queue in source.queues()]
        ending = [
            source
            for source in sources
            if isinstance(source, AdoptedSource) and not source.spool.alive
        ]
        return cls(targets, ending, Promise())

    def resolve(self) -> bool:
        """Keep the promise if everything is stored; return whether the flush is done."""
        if self.promise.done:
            return True
        if all(
            source.ended or queue.reached(position) for source, queue, position in self.targets
        ) and all(source.ended for source in self.ending):
            self.promise.keep(None)
            return True
        return False


class Waiters:
    """All callers that wait for one tracker's database."""

    def __init__(self) -> None:
        # Any thread adds to these lists. They are only changed in place, by operations that cannot
        # be interrupted.
        self._flushes: list[Flush] = []
        self._commits: list[tuple[int, Promise[None]]] = []

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

    def add_commit(self, state_seq: int) -> Promise[None]:
        """Return a promise that is kept when the change of state *state_seq* is committed."""
        promise: Promise[None] = Promise()
        self._commits.append((state_seq, promise))
        return promise

    def resolve(self, states: Reached) -> None:
        """Complete the flushes and commits that are reached.

        *states* holds the committed changes.
        """
        self.resolve_flushes()
        for commit in list(self._commits):
            if commit[0] in states or commit[1].done:
                commit[1].keep(None)
                with contextlib.suppress(ValueError):
                    self._commits.remove(commit)

    def fail(self, exc: StoreUnavailable) -> None:
        """Fail all waiting callers with *exc*."""
        while self._flushes:
            self._flushes.pop().promise.fail(exc)
        while self._commits:
            self._commits.pop()[1].fail(exc)
