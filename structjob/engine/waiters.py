"""Those who wait: for everything recorded so far to be stored, or for one change of state to be
committed. From any thread.
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
    """Somebody waits until everything up to a position of each lane is stored, and the sessions of
    dead processes are ended.
    """

    targets: Sequence[tuple[Source, RecordQueue, Any]]
    ending: Sequence[Source]
    future: Future

    @classmethod
    def of(cls, feeds: Sequence[Source]) -> Flush:
        """Return a wait for all that *feeds* hold now."""
        targets: list[tuple[Source, RecordQueue, Any]] = []
        for feed in feeds:
            # An orphan that cannot be read is set aside by the engine at its turn: it is waited for
            # until then.
            with (
                contextlib.suppress(OSError) if feed.spool is not None else contextlib.nullcontext()
            ):
                targets += [(feed, lane, lane.position()) for lane in feed.lanes()]
        ending = [feed for feed in feeds if feed.spool is not None and not feed.spool.alive]
        return cls(targets, ending, concurrent.futures.Future())

    def settle(self) -> bool:
        """Let go whoever waits if it is so; return whether nobody waits any longer."""
        if self.future.done():
            return True
        if all(
            feed.ended or lane.reached(position) for feed, lane, position in self.targets
        ) and all(feed.ended for feed in self.ending):
            _set(self.future, None)
            return True
        return False


class Waiters:
    """Everybody who waits for one tracker's database."""

    def __init__(self) -> None:
        # Anybody adds to these from any thread: they are changed in place only, by what cannot be
        # interrupted.
        self._flushes: list[Flush] = []
        self._commits: list[tuple[int, Future]] = []

    def __bool__(self) -> bool:
        return bool(self._flushes or self._commits)

    def add_flush(self, flush: Flush) -> None:
        """Let go *flush* when it is so."""
        self._flushes.append(flush)

    def add_commit(self, state_seq: int) -> Future:
        """Return a future to be let go when the change of state *state_seq* is committed."""
        future: Future = concurrent.futures.Future()
        self._commits.append((state_seq, future))
        return future

    def settle(self, states: Reached) -> None:
        """Let go whoever has what he waits for; *states* is what is committed."""
        for flush in list(self._flushes):
            if flush.settle():
                with contextlib.suppress(ValueError):
                    self._flushes.remove(flush)
        for commit in list(self._commits):
            if commit[0] in states or commit[1].done():
                _set(commit[1], None)
                with contextlib.suppress(ValueError):
                    self._commits.remove(commit)

    def fail(self, exc: StoreUnavailable) -> None:
        """Let nobody wait any longer."""
        while self._flushes:
            _set(self._flushes.pop().future, exc)
        while self._commits:
            _set(self._commits.pop()[1], exc)


def _set(future: Future, exc: Exception | None) -> None:
    # Whoever waits may give up at the same moment, in another thread.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        if exc is None:
            future.set_result(None)
        else:
            future.set_exception(exc)
