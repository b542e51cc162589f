"""Where an event goes: to the recorder of its job, else to the first that is open, else it waits until one is."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from structjob.diagnostics import diagnostics

if TYPE_CHECKING:
    from structjob.context import Scope
    from structjob.recorder import Recorder

WAITING = 1000
"""Events that are kept in memory until the first tracker opens."""

_open: list[Recorder] = []
_default: Recorder | None = None
_waiting: deque[tuple[bytes, int]] = deque(maxlen=WAITING)
_registry = threading.Lock()
_warned = False


def add(recorder: Recorder) -> None:
    """Let *recorder* take part: the first open one records what belongs to no job, and what waited."""
    global _default
    with _registry:
        _open.append(recorder)
        _default = _first()
    if recorder is _default:
        while True:
            try:
                body, level = _waiting.popleft()
            except IndexError:
                break
            recorder.put(body, level)


def remove(recorder: Recorder) -> None:
    """Let *recorder* take no further part."""
    global _default
    with _registry:
        if recorder in _open:
            _open.remove(recorder)
        _default = _first()


def _first() -> Recorder | None:
    # In a forked child a tracker of its own goes before those that it was forked with.
    return next((recorder for recorder in _open if not recorder.forked), _open[0] if _open else None)


def default() -> Recorder | None:
    """Return the recorder of events without a job: of the first tracker opened that is still open."""
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
    """Give an event that belongs to no open recorder to the first one that is, or keep it until one opens."""
    recorder = _default
    if recorder is not None and not recorder.closed:
        recorder.put(body, level)
    else:
        _waiting.append((body, level))
        if b',"job_id":"' in body:
            _warn_homeless()


def _warn_homeless() -> None:
    global _warned
    if not _warned and not _open:
        _warned = True
        diagnostics.warning(
            "what is logged here belongs to a job, and no tracker is open in this process (%d): it waits in memory for one, and is lost if "
            "none is opened; open a Tracker on the job's database, in the workers of a process pool, too, unless they are forked",
            os.getpid(),
        )


def _after_fork() -> None:
    global _registry
    _registry = threading.Lock()
    _waiting.clear()  # its parent records it: else it would be stored once for each process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
