"""Routing of events: to the recorder of the job, or else to the first open one.

Without an open recorder, an event waits until one opens.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Protocol

from structjob.context.scope import ENVIRONMENT, Recording, Scope
from structjob.diagnostics import diagnostics
from structjob.process import at_fork, on_reset
from structjob.spool.line import names_job, with_project
from structjob.text.wording import count_of


class OpenRecorder(Recording, Protocol):
    """The recorder of an open tracker, which also takes events that belong to no job."""

    forked: bool
    project: str | None


WAITING = 1000
"""Number of events that are kept in memory until the first tracker opens."""

_open: list[OpenRecorder] = []
_default: OpenRecorder | None = None
_waiting: deque[tuple[bytes, int]] = deque()
_lost: dict[int, Callable[[], int]] = {}
"""Counters by level: called for each event that is lost because no tracker opened in time.

A counter returns how many events were lost before.
"""
_closed_level: int | None = None
"""Lowest level that the last closed tracker recorded; ``None`` while no tracker was closed."""
_registry = threading.Lock()
_warned = False
_reported = False
"""Whether the interpreter exits, and the unrecorded events were reported."""


def add(recorder: OpenRecorder) -> None:
    """Add *recorder*.

    The first open one records the waiting events and all events without a job.
    """
    global _default
    with _registry:
        _open.append(recorder)
        _default = _first()
    if recorder is not _default:
        return
    while True:
        try:
            body, level = _waiting.popleft()
        except IndexError:
            break
        _give(recorder, body, level)
    if lost := _forget_lost(recorder.level):
        diagnostics.warning(
            "%s lost: logged while no tracker was open; memory keeps the last %d; open the tracker earlier",
            count_of(lost, "log event", "is", "are"),
            WAITING,
        )


def remove(recorder: OpenRecorder) -> None:
    """Remove *recorder*."""
    global _default, _closed_level
    with _registry:
        if recorder in _open:
            _open.remove(recorder)
            _closed_level = recorder.level
        _default = _first()


def _first() -> OpenRecorder | None:
    # In a forked child, its own tracker precedes those that it inherited.
    return next(
        (recorder for recorder in _open if not recorder.forked), _open[0] if _open else None
    )


def waits_for_tracker() -> bool:
    """Return whether an event without a job is recorded, immediately or by the first tracker.

    This is false once all trackers are closed.
    """
    return _default is not None or _closed_level is None


def tracked_before() -> bool:
    """Return whether a tracker is open in this process, or was."""
    return _default is not None or _closed_level is not None


def dispatch(scope: Scope | None, body: bytes, level: int) -> None:
    """Pass an event to the recorder that it belongs to, or keep it until a tracker opens."""
    recorder = scope.recorder if scope is not None else None
    if recorder is not None:
        recorder.put(body, level)
    else:
        hand_over(body, level)


def dispatch_all(scope: Scope | None, bodies: list[bytes], level: int) -> None:
    """Do the same for events that were logged together."""
    recorder = scope.recorder if scope is not None else None
    if recorder is not None:
        recorder.put_all(bodies, level)
    else:
        for body in bodies:
            hand_over(body, level)


def records(scope: Scope | None, level: int) -> bool:
    """Return whether an event of *level* reaches the recorder that it belongs to, or waits for
    one.
    """
    recorder = (scope.recorder if scope is not None else None) or _default
    return recorder is None or level >= recorder.level


def recorded_in(scope: Scope | None, level: int) -> str | None:
    """Return the identity of the database that an event of *level* is recorded for; None if no open
    recorder takes it.
    """
    recorder = (scope.recorder if scope is not None else None) or _default
    if recorder is None or recorder.closed or level < recorder.level:
        return None
    database: str = recorder.session.database
    return database


def hand_over(body: bytes, level: int) -> None:
    """Pass an event without an open recorder of its own to the first open one, or keep it."""
    recorder = _default
    if recorder is not None and not recorder.closed:
        _give(recorder, body, level)
    else:
        _waiting.append((body, level))
        if len(_waiting) > WAITING:
            _lose_oldest()
        if not _warned and (names_job(body) or _works_for_a_job()):
            _warn_homeless()
        if _reported:
            _report_late(level)


def _give(recorder: OpenRecorder, body: bytes, level: int) -> None:
    """Pass an event to *recorder* that does not belong to one of its jobs."""
    project = recorder.project
    recorder.put(body if project is None else with_project(body, project), level)


def _warn_homeless() -> None:
    global _warned
    if not _warned and not _open:
        _warned = True
        diagnostics.warning(
            "what is logged here belongs to a job, and no tracker is open in this process (%d): it waits in memory for one, and is lost if "
            "none is opened; open a Tracker on the job's database, in the workers of a process pool, too, unless they are forked",
            os.getpid(),
        )


def _works_for_a_job() -> bool:
    """Return whether this is a worker of a process that is within a job, by its environment.

    Any other program in such an environment may open its tracker after its first event.
    """
    if ENVIRONMENT + "JOB_ID" not in os.environ:
        return False
    # every worker of multiprocessing has loaded it
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def _lose_oldest() -> None:
    """Count the oldest waiting event by its level, and remove it."""
    try:
        _, level = _waiting.popleft()
    except IndexError:  # a tracker has opened meanwhile and takes them
        return
    (_lost.get(level) or _lost.setdefault(level, count().__next__))()


def _forget_lost(least: int) -> int:
    """Return how many events of level *least* or above were lost so far, and reset the counters."""
    global _lost
    lost, _lost = _lost, {}
    return sum(already() for level, already in lost.items() if level >= least)


@atexit.register
def _report_unrecorded() -> None:
    """Warn about the events that were logged after the last tracker was closed.

    A program without trackers gets no warning.
    """
    global _reported
    if _closed_level is None or _open:
        return
    _reported = True
    unrecorded = _forget_lost(_closed_level) + sum(level >= _closed_level for _, level in _waiting)
    if unrecorded:
        diagnostics.warning(
            "%s in no database: logged after the tracker was closed; close it after the last log call",
            count_of(unrecorded, "log event", "is", "are"),
        )


def _report_late(level: int) -> None:
    """Warn about an event that is logged after the others were reported: by an exit handler that
    was registered earlier than ours, or a thread that is still running.
    """
    global _reported
    if _closed_level is not None and level >= _closed_level:
        _reported = False
        diagnostics.warning(
            "a log event at the exit of the interpreter is in no database, and all that follow: logged after the tracker was closed"
        )


def _after_fork() -> None:
    global _registry
    _registry = threading.Lock()
    _lost.clear()
    _waiting.clear()  # the parent records them; otherwise each process would store them again


def _reset() -> None:
    global _default, _closed_level, _warned, _reported
    with _registry:
        _open.clear()
        _default = _closed_level = None
        _warned = _reported = False
        _lost.clear()
        _waiting.clear()


def _isolate() -> Callable[[], None]:
    """Forget recorders and waiting events; return a function that remembers them again."""
    opened, waiting, lost = list(_open), list(_waiting), dict(_lost)
    closed_level, warned = _closed_level, _warned
    _reset()

    def restore() -> None:
        global _default, _closed_level, _warned
        _reset()
        with _registry:
            _open.extend(opened)
            _default, _closed_level, _warned = _first(), closed_level, warned
            _waiting.extend(waiting)
            _lost.update(lost)

    return restore


at_fork("routing", in_child=_after_fork)
on_reset(_reset, _isolate)
