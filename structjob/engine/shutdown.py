"""The end of the process while trackers are open: by SIGTERM, or by the interpreter's exit.

By default SIGTERM ends a process at any point, and its jobs are later found crashed. If SIGTERM has
no handler when a tracker opens in the main thread, the tracker installs one. The handler first
cancels the running jobs and stores everything. The process then still dies of the signal, so that
its sender sees the expected exit status. A handler of the program takes precedence, whether it is
installed earlier or later.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import signal
import sys
import threading
import time
import weakref

# A signal handler must not use a class of `threading`: it may have interrupted one that holds the
# lock of all threads.
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Never

from structjob.diagnostics import diagnostics
from structjob.exceptions import Terminated
from structjob.machine.loops import running_loop, threads_are_greenlets
from structjob.process import at_fork, on_reset

if TYPE_CHECKING:
    from structjob.engine.hosting import Host

GRACE = 5.0
"""Seconds that the tasks of running jobs have to end after SIGTERM."""

CLOSING = 3.0
"""Seconds that trackers then have to store pending events. `GRACE` and this together are less than
the 10 seconds that containers are given.
"""

_CLOSED = CLOSING + 1.0
"""Seconds after which the exit does not wait for the loop of a tracker that closes."""

_WATCH = GRACE + CLOSING + 1.0
"""Seconds after which the process ends even if its loop is blocked."""

_DEATH = 1.0
"""Seconds that the main thread has to die of the signal that another thread sends."""

_LOOK = 0.01
"""Seconds between two checks of a condition that is waited for."""

_LAST = -100
"""Priority among the exit handlers of `multiprocessing`: after those of the program."""

_REASON = "SIGTERM"

_INTERPRETER_EXIT = "interpreter exit"

_PROCESS_ENDED = "its process ended while it ran, and its tracker was not closed"

_open: weakref.WeakSet[Host] = weakref.WeakSet()
_inherited: weakref.WeakSet[Host] = weakref.WeakSet()
"""In a forked child: the trackers that were open when it was forked."""
_ending: asyncio.Task[None] | bool = False
_grace_ends = 0.0
"""When the jobs must have ended after SIGTERM (monotonic seconds)."""


def enter(tracker: Host, *, signals: bool) -> None:
    """Register *tracker* as open.

    With *signals*, handle SIGTERM unless it already has a handler.
    """
    _open.add(tracker)
    if signals:
        handle_signals()


def handle_signals() -> None:
    """Handle SIGTERM from now on, in the main thread, unless it already has a handler."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, _terminate)


def leave(tracker: Host) -> None:
    """Unregister *tracker*; after the last one, restore the default for SIGTERM."""
    _open.discard(tracker)
    _inherited.discard(tracker)
    leave_signals()


def leave_signals() -> None:
    """Restore the default for SIGTERM if no tracker is open. Only the main thread can do that."""
    if not _open and not _ending:
        _restore()


def open_hosts() -> list[Host]:
    """Return the trackers that are open in this process, in no order."""
    return list(_open)


def under_way() -> bool:
    """Return whether SIGTERM was received."""
    return bool(_ending)


def cancel(tracker: Host, reason: str = _REASON) -> None:
    """Record the running jobs as cancelled for *reason*.

    They are in the spool when this returns.
    """
    for job in list(tracker.live):
        with suppress(Exception):
            job.abandon(reason)


def finish() -> None:
    """Let the process die of the received signal, once its last tracker is closed."""
    if _ending is True and not _open:
        _flush_streams()
        _die()


def _restore() -> None:
    if signal.getsignal(signal.SIGTERM) is _terminate:
        # Not the main thread. With no open tracker, our handler does the same as the default.
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM.

    The first signal closes everything before the process ends. The second ends it immediately.
    """
    global _ending, _grace_ends
    loops = [tracker.engine.loop for tracker in list(_open) if tracker.engine.loop.is_running()]
    if _ending or not loops:
        _cancel_rest()
        _die()
    _ending, _grace_ends = True, time.monotonic() + GRACE
    with suppress(RuntimeError):  # the interpreter is exiting: no further wait can be long
        start_new_thread(_watch, ())
    here = running_loop()
    loop = here or next((loop for loop in loops if not _of_thread(loop)), None)
    if loop is not None:
        loop.call_soon_threadsafe(_begin, context=contextvars.Context())
        return
    _ask_to_stop()
    raise Terminated


def _of_thread(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether every tracker in *loop* runs in a loop thread of its own."""
    return all(tracker.threaded for tracker in list(_open) if tracker.engine.loop is loop)


def _ask_to_stop() -> None:
    """Ask the jobs in ``with`` blocks to end."""
    for tracker in list(_open):
        for job in list(tracker.live):
            job.ask_to_stop(_REASON)


def _in_threads() -> bool:
    """Whether a job runs in a ``with`` block of another thread that has not ended.

    A job in a generator that nothing continues can outlive its thread.
    """
    elsewhere = {job.cancellation.thread for tracker in list(_open) for job in list(tracker.live)}
    elsewhere -= {None, threading.get_ident()}
    if not elsewhere or threads_are_greenlets():
        return bool(elsewhere)
    return not elsewhere.isdisjoint(sys._current_frames())  # noqa: SLF001 -- `threading` does not know all threads


def _threads_have_time(until: float) -> bool:
    return bool(_ending) and time.monotonic() < min(until, _grace_ends) and _in_threads()


def await_threads_here(seconds: float = GRACE) -> None:
    """After SIGTERM, wait until the jobs in ``with`` blocks of other threads have ended.

    Args:
        seconds: Maximum time in seconds.
    """
    until = time.monotonic() + seconds
    while _threads_have_time(until):
        time.sleep(_LOOK)


async def await_threads(seconds: float = GRACE) -> None:
    """Do the same on an event loop."""
    until = time.monotonic() + seconds
    while _threads_have_time(until):  # noqa: ASYNC110 -- a few checks, once in the life of a process
        await asyncio.sleep(_LOOK)


def _begin() -> None:
    global _ending
    _ending = asyncio.get_running_loop().create_task(
        _end(), name="structjob-termination", context=contextvars.Context()
    )


async def _end() -> None:
    """Cancel the jobs, close the trackers, and end the process."""
    try:
        await _cancel_jobs()
    except asyncio.CancelledError:
        # The main coroutine has ended, and its runner cancels all other tasks. These may need time,
        # too.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_grace_ends - time.monotonic())
        await await_threads()
    _cancel_rest()
    with suppress(asyncio.CancelledError):
        await _close()
    _flush_streams()
    _die()


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


async def _cancel_jobs() -> None:
    """Cancel the tasks of running jobs, including jobs that begin meanwhile.

    Wait until they have ended, or until their time is over.
    """
    asked: set[asyncio.Task[Any]] = set()
    _ask_to_stop()
    while True:
        # Cancel each task once, even if it belongs to several jobs, and skip tasks that are being
        # cancelled: a second cancellation would interrupt their cleanup.
        running = [job for tracker in list(_open) for job in list(tracker.live)]
        found = {
            job.cancellation.task for job in running if job.cancellation.task is not None
        } - asked
        for task in found - {
            job.cancellation.task for job in running if job.cancellation.requested
        }:
            with suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel, _REASON)
        asked |= found
        ended = all(task.done() or task.get_loop().is_closed() for task in asked)
        if ended and not _in_threads():
            return
        await asyncio.sleep(_LOOK)  # a turn for each task, also if the loop was blocked until now
        if time.monotonic() >= _grace_ends:
            return


def _cancel_rest() -> None:
    for tracker in list(_open):
        cancel(tracker)


async def _close() -> None:
    deadline = time.monotonic() + CLOSING
    # A tracker that is already being closed is waited for.
    for outcome in await asyncio.gather(
        *(tracker.aclose(CLOSING) for tracker in list(_open)), return_exceptions=True
    ):
        if isinstance(outcome, Exception):
            diagnostics.error(
                "structjob: closing a tracker on SIGTERM failed; what is left stays in the spool",
                exc_info=outcome,
            )
    while _open and time.monotonic() < deadline:  # noqa: ASYNC110 -- a few checks, once in the life of a process
        await asyncio.sleep(_LOOK)


def _watch() -> None:
    """End the process if its loop does not: it is blocked, or a task ignores its cancellation.

    Runs in a thread of its own.
    """
    time.sleep(_WATCH)
    _cancel_rest()
    os._exit(128 + signal.SIGTERM)


def _die() -> Never:
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    if signal.getsignal(signal.SIGTERM) is _terminate:
        time.sleep(_DEATH)  # the main thread calls it again, and gets here
    # The first process of a container does not die of a signal that it does not handle.
    os._exit(128 + signal.SIGTERM)


# In a forked child, the open trackers belong to the parent, and a signal ends the child in the
# default way. The signal is blocked during the fork: Python forgets a signal that arrives before
# the fork is complete. A parent that starts a process and terminates it immediately would wait for
# its end forever.


def _before_fork() -> None:
    _fork.masked = signal.getsignal(signal.SIGTERM) is _terminate
    if _fork.masked:
        _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _after_fork() -> None:
    if _fork.masked:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _after_fork_in_child() -> None:
    global _ending
    _ending = False
    _inherited.update(_open)
    _open.clear()
    _restore()
    _after_fork()
    # A process of `multiprocessing` runs its own exit handlers and none of `atexit`. It also
    # forgets the handlers that were registered before the fork.
    if _inherited and (multiprocessing := sys.modules.get("multiprocessing.util")) is not None:
        multiprocessing.register_after_fork(_end_inherited, _at_exit_of_worker)


_fork = threading.local()

at_fork("signals", before=_before_fork, in_parent=_after_fork, in_child=_after_fork_in_child)


def _reset() -> None:
    global _ending
    _ending = False
    _open.clear()
    _inherited.clear()
    _restore()


def _isolate() -> Callable[[], None]:
    """Forget the open trackers; return a function that remembers them again."""
    opened, inherited = list(_open), list(_inherited)
    handled = signal.getsignal(signal.SIGTERM) is _terminate
    _reset()

    def restore() -> None:
        _reset()
        _open.update(opened)
        _inherited.update(inherited)
        if handled:
            handle_signals()

    return restore


on_reset(_reset, _isolate)


def _end_inherited() -> None:
    """End what a forked child began with its parent's trackers. Called when the child ends."""
    for tracker in list(_inherited):
        _end_at_exit(tracker)


def _end_at_exit(tracker: Host) -> None:
    """Record the running jobs as cancelled, and that the process ends in the normal way."""
    cancel(tracker, _PROCESS_ENDED)
    recorder = tracker.engine.recorder
    if recorder.spool is not None and not recorder.closed:
        recorder.spool.mark_closed()


def _at_exit_of_worker(call: Callable[[], None]) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, call, exitpriority=_LAST)


async def _closed(tracker: Host) -> None:
    await tracker.aclose(CLOSING)


# Python calls exit handlers in reverse order. That of `weakref.finalize`, which SQLAlchemy uses in
# our threads, must come after ours: it fails if a thread makes a finalizer meanwhile.
weakref.finalize(set(), int)


@atexit.register
def _at_exit() -> None:
    """Deliver what trackers hold that were not closed.

    What is not delivered in time stays in the spool.
    """
    _end_inherited()
    if _ending:  # its loop was stopped meanwhile, or the main thread has left its blocks
        _cancel_rest()
    for tracker in list(_open):
        if tracker.threaded:
            cancel(tracker, _INTERPRETER_EXIT)
            with suppress(Exception):
                tracker.run(_closed(tracker), _CLOSED)
        _end_at_exit(tracker)
        tracker.engine.drain(CLOSING)
    if _ending:
        _die()
