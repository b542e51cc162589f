"""The end of the process, while trackers are open: by SIGTERM, or by the interpreter's exit.

By default SIGTERM ends a process in the middle of whatever it does; its jobs are found crashed. A
tracker that opens in the main thread, where nobody handles the signal, sees to it that the running
jobs are cancelled and everything is stored first. The process then dies of the signal all the same,
so that whoever sent it sees what is expected. A handler that somebody else sets, sooner or later,
has precedence.
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

# No class of `threading` is used in a signal handler: it may have interrupted one that holds the
# lock of all threads.
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Never

from structjob.diagnostics import diagnostics
from structjob.exceptions import Terminated
from structjob.process import at_fork, on_reset

if TYPE_CHECKING:
    from structjob.engine.hosting import Host

GRACE = 5.0
"""Seconds that the tasks of running jobs have to end after SIGTERM."""

CLOSING = 3.0
"""Seconds that trackers have to store what waits, after that. With `GRACE` it is less than the 10
that containers are given.
"""

_WATCH = GRACE + CLOSING + 1.0
"""Seconds after which the process ends, though its loop is blocked."""

_LOOK = 0.01
"""Seconds between two looks at what is waited for."""

_LAST = -100
"""Priority among the exit handlers of `multiprocessing`: after those of the program."""

_REASON = "SIGTERM"

_INTERPRETER_EXIT = "interpreter exit"

_PROCESS_ENDED = "its process ended while it ran, and its tracker was not closed"

_open: weakref.WeakSet[Host] = weakref.WeakSet()
_inherited: weakref.WeakSet[Host] = weakref.WeakSet()
"""In a forked child: the trackers that were open when it was forked."""
_ending: asyncio.Task[None] | bool = False


def enter(tracker: Host, *, signals: bool) -> None:
    """Note that *tracker* is open; with *signals* SIGTERM is handled from here on, unless somebody
    does already.
    """
    _open.add(tracker)
    if signals:
        handle_signals()


def handle_signals() -> None:
    """Handle SIGTERM from here on, in the main thread, unless it is handled already."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, _terminate)


def leave(tracker: Host) -> None:
    """Note that *tracker* is closed; after the last one SIGTERM is as it was."""
    _open.discard(tracker)
    _inherited.discard(tracker)
    if not _open and not _ending:
        _restore()


def open_hosts() -> list[Host]:
    """Return the trackers that are open in this process, in no order."""
    return list(_open)


def under_way() -> bool:
    """Return whether SIGTERM came."""
    return bool(_ending)


def cancel(tracker: Host, reason: str = _REASON) -> None:
    """Record as cancelled, for *reason*, what still runs; it is in the spool when this returns."""
    for job in list(tracker.live):
        with suppress(Exception):
            job.abandon(reason)


def finish() -> None:
    """Let the process die of the signal that came, once its last tracker is closed."""
    if _ending is True and not _open:
        _flush_streams()
        _die()


def _restore() -> None:
    if signal.getsignal(signal.SIGTERM) is _terminate:
        # not the main thread; with nothing open it does what the default does
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM: in an orderly way the first time, at once when asked again."""
    global _ending
    loops = [tracker.engine.loop for tracker in list(_open) if tracker.engine.loop.is_running()]
    if _ending or not loops:
        _cancel_rest()
        _die()
    _ending = True
    with suppress(RuntimeError):  # the interpreter is at its end: nothing will last
        start_new_thread(_watch, ())
    here = asyncio._get_running_loop()
    loop = here or next((loop for loop in loops if not _of_thread(loop)), None)
    if loop is not None:
        loop.call_soon_threadsafe(_begin, context=contextvars.Context())
        return
    _ask_to_stop()
    raise Terminated


def _of_thread(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether only trackers without a loop of their caller's run in *loop*."""
    return all(tracker.threaded for tracker in list(_open) if tracker.engine.loop is loop)


def _ask_to_stop() -> None:
    """Let the jobs end that run in ``with`` blocks."""
    for tracker in list(_open):
        for job in list(tracker.live):
            job.ask_to_stop(_REASON)


def _begin() -> None:
    global _ending
    _ending = asyncio.get_running_loop().create_task(
        _end(), name="structjob-termination", context=contextvars.Context()
    )


async def _end() -> None:
    """Cancel the jobs, close the trackers, and die."""
    deadline = time.monotonic() + GRACE
    try:
        await _cancel_jobs(deadline)
    except asyncio.CancelledError:
        # The main coroutine has ended, and whoever ran it cancels what else there is: that may take
        # its time, too.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=max(0.0, deadline - time.monotonic()))
    _cancel_rest()
    with suppress(asyncio.CancelledError):
        await _close()
    _flush_streams()
    _die()


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


async def _cancel_jobs(deadline: float) -> None:
    """Cancel the tasks of the jobs that run, and of those that begin meanwhile; wait until they
    have ended, till *deadline* at most.
    """
    asked: set[asyncio.Task[Any]] = set()
    _ask_to_stop()
    while time.monotonic() < deadline:
        # Each task once, however many jobs it is in, and none that is being cancelled: a second
        # cancellation would interrupt its cleanup.
        running = [job for tracker in list(_open) for job in list(tracker.live)]
        found = {job._task for job in running if job._task is not None} - asked
        for task in found - {job._task for job in running if job.cancel_requested}:
            task.get_loop().call_soon_threadsafe(task.cancel, _REASON)
        asked |= found
        if all(task.done() for task in asked):
            return
        await asyncio.sleep(_LOOK)


def _cancel_rest() -> None:
    for tracker in list(_open):
        cancel(tracker)


async def _close() -> None:
    deadline = time.monotonic() + CLOSING
    # One that is being closed already is waited for.
    for outcome in await asyncio.gather(
        *(tracker.aclose(CLOSING) for tracker in list(_open)), return_exceptions=True
    ):
        if isinstance(outcome, Exception):
            diagnostics.error(
                "structjob: closing a tracker on SIGTERM failed; what is left stays in the spool",
                exc_info=outcome,
            )
    while _open and time.monotonic() < deadline:  # noqa: ASYNC110 -- a few looks, once in the life of a process
        await asyncio.sleep(_LOOK)


def _watch() -> None:
    """End the process where its loop does not: it is blocked, or something does not let itself be
    cancelled. In a thread of its own.
    """
    time.sleep(_WATCH)
    _cancel_rest()
    os._exit(128 + signal.SIGTERM)


def _die() -> Never:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    # The first process of a container cannot be ended by a signal that it does not handle.
    os._exit(128 + signal.SIGTERM)


# What is open in a forked child is its parent's, and a signal ends it as ever. The signal is
# blocked meanwhile: Python forgets what comes before it is done with the fork, and whoever starts a
# process and terminates it at once would wait for its end for ever.


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
    # A process of `multiprocessing` runs its own exit handlers, and none of `atexit`; and it
    # forgets those that were there before the fork.
    if _inherited and (multiprocessing := sys.modules.get("multiprocessing.util")) is not None:
        multiprocessing.register_after_fork(_cancel_inherited, _at_exit_of_worker)


_fork = threading.local()

at_fork("signals", before=_before_fork, in_parent=_after_fork, in_child=_after_fork_in_child)


def _reset() -> None:
    global _ending
    _ending = False
    _open.clear()
    _inherited.clear()
    _restore()


on_reset(_reset)


def _cancel_inherited() -> None:
    """Record as cancelled, in a forked child that ends, the jobs that it began with its parent's
    trackers.
    """
    for tracker in list(_inherited):
        cancel(tracker, _PROCESS_ENDED)


def _at_exit_of_worker(call: Callable[[], None]) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, call, exitpriority=_LAST)


async def _closed(tracker: Host) -> bool:
    return await tracker.aclose(CLOSING)


@atexit.register
def _at_exit() -> None:
    """Deliver what forgotten trackers hold; what does not get through in time stays in
    the spool.
    """
    _cancel_inherited()
    for tracker in list(_open):
        if tracker.threaded:
            cancel(tracker, _INTERPRETER_EXIT)
            with suppress(Exception):
                tracker.run(_closed(tracker), CLOSING + 1.0)
        cancel(tracker, _PROCESS_ENDED)
        tracker.engine.drain(3.0)
    if _ending:  # a loop that was stopped under way
        _cancel_rest()
        _die()
