"""Where an event goes: to the recorder of its job, else to the first that is open, else it waits
until one is.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from structjob.context.scope import ENVIRONMENT
from structjob.diagnostics import diagnostics
from structjob.process import at_fork, on_reset
from structjob.spool.line import names_job, with_project
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.context.scope import Scope
    from structjob.spool.recorder import Recorder

WAITING = 1000
"""Events that are kept in memory until the first tracker opens."""

_open: list[Recorder] = []
_default: Recorder | None = None
_waiting: deque[tuple[bytes, int]] = deque()
_lost: dict[int, Callable[[], int]] = {}
"""By level: called for each event that is lost because no tracker opened in time, it returns how
many were lost before.
"""
_closed_level: int | None = None
"""Least level that the tracker closed last recorded; ``None`` while none was closed."""
_registry = threading.Lock()
_warned = False


def add(recorder: Recorder) -> None:
    """Let *recorder* take part: the first open one records what belongs to no job, and
    what waited.
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


def remove(recorder: Recorder) -> None:
    """Let *recorder* take no further part."""
    global _default, _closed_level
    with _registry:
        if recorder in _open:
            _open.remove(recorder)
            _closed_level = recorder.level
        _default = _first()


def _first() -> Recorder | None:
    # In a forked child a tracker of its own goes before those that it was forked with.
    return next(
        (recorder for recorder in _open if not recorder.forked), _open[0] if _open else None
    )


def waits_for_tracker() -> bool:
    """Return whether an event without a job is recorded, at once or by the first tracker; not once
    all trackers are closed.
    """
    return _default is not None or _closed_level is None


def default() -> Recorder | None:
    """Return the recorder of events without a job: of the first tracker opened that is
    still open.
    """
    return _default


def dispatch(scope: Scope | None, body: bytes, level: int) -> None:
    """Give an event to the recorder it belongs to, or keep it until a tracker opens."""
    recorder = scope.recorder if scope is not None else None
    if recorder is not None:
        recorder.put(body, level)
    else:
        hand_over(body, level)


def records(scope: Scope | None, level: int) -> bool:
    """Return whether an event of *level* reaches the recorder it belongs to, or waits for one."""
    recorder = (scope.recorder if scope is not None else None) or _default
    return recorder is None or level >= recorder.level


def hand_over(body: bytes, level: int) -> None:
    """Give an event that belongs to no open recorder to the first one that is, or keep it until one
    opens.
    """
    recorder = _default
    if recorder is not None and not recorder.closed:
        _give(recorder, body, level)
    else:
        _waiting.append((body, level))
        if len(_waiting) > WAITING:
            _lose_oldest()
        if not _warned and (names_job(body) or _works_for_a_job()):
            _warn_homeless()


def _give(recorder: Recorder, body: bytes, level: int) -> None:
    """Give an event that belongs to no job of the *recorder* to it."""
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
    """Return whether this is a worker of a process that is within a job, as its environment says.

    Any other program in such an environment may open its tracker after its first event.
    """
    if ENVIRONMENT + "JOB_ID" not in os.environ:
        return False
    # which each of its workers has loaded
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def _lose_oldest() -> None:
    """Count, by its level, the oldest event that waits, and forget it."""
    try:
        _, level = _waiting.popleft()
    except IndexError:  # a tracker has opened meanwhile, and takes them
        return
    (_lost.get(level) or _lost.setdefault(level, count().__next__))()


def _forget_lost(least: int) -> int:
    """Return how many events of level *least* or above were lost so far, and count from 0 again."""
    global _lost
    lost, _lost = _lost, {}
    return sum(already() for level, already in lost.items() if level >= least)


@atexit.register
def _report_unrecorded() -> None:
    """Warn about the events that were logged after the last tracker was closed. A program without
    trackers is not spoken to.
    """
    if _closed_level is None or _open:
        return
    unrecorded = _forget_lost(_closed_level) + sum(level >= _closed_level for _, level in _waiting)
    if unrecorded:
        diagnostics.warning(
            "%s in no database: logged after the tracker was closed; close it after the last log call",
            count_of(unrecorded, "log event", "is", "are"),
        )


def _after_fork() -> None:
    global _registry
    _registry = threading.Lock()
    _lost.clear()
    _waiting.clear()  # its parent records it: else it would be stored once for each process


def _reset() -> None:
    global _default, _closed_level, _warned
    with _registry:
        _open.clear()
        _default = _closed_level = None
        _warned = False
        _lost.clear()
        _waiting.clear()


at_fork("routing", in_child=_after_fork)
on_reset(_reset)
