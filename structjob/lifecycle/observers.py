"""Who is informed when a job or step starts or ends."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, NamedTuple

from structjob.diagnostics import fault_types, faults
from structjob.process import on_reset
from structjob.statuses import JobStatus, StepStatus


class Change(NamedTuple):
    """The start or end of a job or step; see `structjob.Transition`.

    Its job and step are the handles that users have.
    """

    change: Literal["started", "ended"]
    status: JobStatus | StepStatus
    job: object
    step: object | None
    error: BaseException | None
    duration_ms: float | None
    ns: int
    entered: bool


Observer = Callable[[Change], object]
"""A function that is called with each change."""


class Observers:
    """The observers of this process, in the order in which they were added."""

    def __init__(self) -> None:
        self._all: tuple[Observer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, observer: Observer) -> Callable[[], None]:
        """Add an observer, which was not added before; return a function that removes it."""
        self._all = (*self._all, observer)

        def remove() -> None:
            self._all = tuple(one for one in self._all if one is not observer)

        return remove

    def clear(self) -> None:
        """Remove all observers."""
        self._all = ()

    def isolate(self) -> Callable[[], None]:
        """Return a function that puts back the present observers."""
        present = self._all

        def restore() -> None:
            self._all = present

        return restore

    def announce(self, change: Change) -> None:
        """Call each observer, except those whose work this is. An exception in one is counted, and
        the next one is called.
        """
        running = _running.get()
        for observer in self._all:
            if observer in running:
                continue
            token = _running.set(running | {observer})
            try:
                observer(change)
            except fault_types() as exc:  # an exception in a hook must not reach the user's work
                faults.add("calling a hook", exc)
            finally:
                _running.reset(token)


_running: ContextVar[frozenset[Observer]] = ContextVar("structjob_observers", default=frozenset())
"""The observers whose work the running code is: a hook that begins a job would otherwise be called
for it, and so on.
"""

OBSERVERS = Observers()
on_reset(OBSERVERS.clear, OBSERVERS.isolate)
