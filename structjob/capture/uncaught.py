"""`capture_uncaught`: uncaught exceptions and warnings become events.

Python and event loops pass them to hooks. Our hook records them and then calls the previous hook,
so the output stays the same. asyncio reports errors through `logging`, too: these records are not
recorded a second time.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings as python_warnings
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from structjob.capture.emit import emit, show
from structjob.capture.event import exception_of
from structjob.context.errors import scope_of
from structjob.context.scope import SCOPE, Scope, current_scope
from structjob.diagnostics import fault_types, faults
from structjob.levels import LEVELS
from structjob.machine import clock
from structjob.machine.loops import running_loop
from structjob.process import on_reset
from structjob.sinks.marks import MARKS
from structjob.spool.fault_log import FAULT_LOG
from structjob.spool.routing import recorded_in, waits_for_tracker

KIND = "uncaught"

_MOST_WARNINGS = 1_000
"""Maximum number of places whose warnings are recorded, in case a program generates ever new
places.
"""

_OWN = ("sys", "_thread", "threading", "warnings")
"""Modules of Python's own hooks, which only show what our hooks record."""
_CURRENT: Any = object()
_hooks_loops = False
_here = threading.local()
_undo: dict[str, Callable[[], None]] = {}
"""By kind: removes our hook, unless another hook was installed after it."""


def capture_uncaught(
    *,
    warnings: bool = True,
    excepthook: bool = True,
    threads: bool = True,
    unraisable: bool = True,
    asyncio: bool = True,
    faulthandler: bool = True,
) -> None:
    """Record what Python would only print to stderr, as events of kind ``uncaught`` with the
    traceback.

    The output stays the same. Calling it again changes nothing. All options are on by default.

    Args:
        warnings: Warnings of the module `warnings`, at level warning, once for each place.
        excepthook: The exception that ends the program, at level critical.
        threads: Exceptions that end a thread, at level error.
        unraisable: Exceptions that cannot be raised, for example in ``__del__``, at level error.
        asyncio: Errors that an event loop reports, such as a task whose exception is never
            retrieved, at level error, with the job of the task. It applies to loops that run while
            a tracker opens in them, and to loops that start later with a tracker.
        faulthandler: Why the process dies of a signal such as a segmentation fault: the stacks of
            its threads. The next process that finds its jobs crashed records them with the crash.
            Nothing changes if the program itself has enabled `faulthandler`.
    """
    for name, wanted, install in (
        ("warnings", warnings, _hook_warnings),
        ("excepthook", excepthook, _hook_exceptions),
        ("threads", threads, _hook_threads),
        ("unraisable", unraisable, _hook_unraisable),
        ("asyncio", asyncio, _hook_loops),
        ("faulthandler", faulthandler, _log_faults),
    ):
        if wanted and name not in _undo:
            _undo[name] = install()


def is_shown() -> bool:
    """Return whether the previous hook shows here what is already recorded as an event."""
    return getattr(_here, "shown", False)


def _record(
    level: str,
    message: str,
    attrs: dict[str, Any],
    logger: str | None = None,
    *,
    scope: Scope | None = _CURRENT,
) -> bool:
    """Record an event, and return whether it is recorded."""
    if getattr(_here, "within", False):  # caused by one of our sinks
        return False
    _here.within = True
    exc = exception_of(attrs.get("exc_info"))
    if exc is not None and (own := scope_of(exc)) is not None:
        scope = own
    elif scope is _CURRENT:
        scope = current_scope()
    _here.recorded_in = recorded_in(scope, LEVELS[level])
    try:
        if waits_for_tracker():
            emit(scope, level, message, attrs, kind=KIND, logger=logger)
        else:  # the trackers are closed: the event would wait for a tracker in vain
            show(scope, level, {"what": message, **attrs}, kind=KIND, ns=clock.now())  # type: ignore[arg-type]
    except fault_types() as exc:  # an internal error must never reach the user's program
        faults.add("recording an uncaught exception", exc)
        return False
    finally:
        _here.within = False
    return True


def _install(owner: Any, name: str, note: Callable[..., bool]) -> Callable[[], None]:
    """Replace the hook *name* of *owner* by one that first calls *note*, with the same arguments.

    *note* returns whether it has recorded them.

    Returns:
        A function that puts the previous hook back, unless another one was installed since.
    """
    former = getattr(owner, name)
    only_shows = getattr(former, "__module__", None) in _OWN

    def hook(*args: Any, **keywords: Any) -> None:
        _here.shown = note(*args, **keywords) and only_shows
        try:
            if MARKS is None or not _here.shown:
                former(*args, **keywords)
                return
            with MARKS.showing(_here.recorded_in), MARKS.on_stderr():
                former(*args, **keywords)
        finally:
            _here.shown = False

    def undo() -> None:
        if getattr(owner, name) is hook:
            setattr(owner, name, former)

    setattr(owner, name, hook)
    return undo


def _hook_exceptions() -> Callable[[], None]:
    def note(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> bool:
        return not issubclass(kind, KeyboardInterrupt) and _record(
            "critical", "uncaught exception", {"exc_info": exc}
        )

    return _install(sys, "excepthook", note)


def _hook_threads() -> Callable[[], None]:
    def note(args: threading.ExceptHookArgs) -> bool:
        if args.exc_value is None or issubclass(args.exc_type, SystemExit):
            return False
        thread = args.thread.name if args.thread is not None else None
        return _record("error", "uncaught exception in a thread", {"exc_info": args.exc_value, "thread": thread})  # fmt: skip

    return _install(threading, "excepthook", note)


def _hook_unraisable() -> Callable[[], None]:
    def note(args: sys.UnraisableHookArgs) -> bool:
        if args.exc_value is None:
            return False
        # The object itself is not kept, because that would revive it.
        where = getattr(args.object, "__qualname__", None) or type(args.object).__qualname__
        message = args.err_msg or "exception ignored"
        return _record("error", message, {"exc_info": args.exc_value, "where": where})

    return _install(sys, "unraisablehook", note)


def _hook_warnings() -> Callable[[], None]:
    # `logging.captureWarnings` turns them into records, which are already events.
    taken = python_warnings.showwarning.__module__ == logging.__name__
    seen: set[tuple[type[Warning], str, int]] = set()

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> bool:
        place = category, filename, lineno
        if file is not None or taken or place in seen or len(seen) >= _MOST_WARNINGS:
            return False
        seen.add(place)
        attrs = {"category_name": category.__name__, "file": filename, "line": lineno}
        return _record("warning", str(message), attrs, "py.warnings")

    return _install(python_warnings, "showwarning", note)


class _LoopHandler:
    """The exception handler that records what a loop reports, and then calls the previous one.

    It belongs to its loop and does not refer to it: otherwise the loop would never be freed.

    Args:
        former: The previous handler; ``None`` stands for asyncio's own.
    """

    def __init__(
        self, former: Callable[[AbstractEventLoop, dict[str, Any]], object] | None
    ) -> None:
        self.former = former

    def __call__(self, loop: AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        message = str(context.get("message") or "error in an event loop")
        attrs = {} if exc is None else {"exc_info": exc}
        recorded = _record("error", message, attrs, "asyncio", scope=_scope_of(context))
        _here.shown = recorded and self.former is None
        try:
            if self.former is None:
                loop.default_exception_handler(context)
            else:
                self.former(loop, context)
        finally:
            _here.shown = False


_loops: weakref.WeakSet[AbstractEventLoop] = weakref.WeakSet()
"""The loops with our handler."""


def _hook_loops() -> Callable[[], None]:
    global _hooks_loops
    _hooks_loops = True
    if (loop := running_loop()) is not None:
        hook_loop(loop)

    def undo() -> None:
        global _hooks_loops
        _hooks_loops = False
        for loop in list(_loops):
            handler = loop.get_exception_handler()
            if isinstance(handler, _LoopHandler):
                loop.set_exception_handler(handler.former)
        _loops.clear()

    return undo


def hook_loop(loop: AbstractEventLoop) -> None:
    """Record the errors that *loop* reports, if `capture_uncaught` was called, and then call its
    previous handler.
    """
    if not _hooks_loops or loop in _loops:
        return
    loop.set_exception_handler(_LoopHandler(loop.get_exception_handler()))
    _loops.add(loop)


def _scope_of(context: dict[str, Any]) -> Scope | None:
    """Return the scope of the task or callback that failed.

    It is not the current one: a task is reported when it is deleted, anywhere.
    """
    task: Any = context.get("task") or context.get("future")
    if hasattr(task, "get_context"):  # Python 3.12 and newer
        return task.get_context().get(SCOPE)  # type: ignore[no-any-return]
    called_in = getattr(context.get("handle"), "_context", None)
    return None if called_in is None else called_in.get(SCOPE)


def _log_faults() -> Callable[[], None]:
    FAULT_LOG.start()
    return FAULT_LOG.stop


def _reset() -> None:
    for undo in _undo.values():
        undo()
    _undo.clear()


def _isolate() -> Callable[[], None]:
    hooked = set(_undo)

    def restore() -> None:
        for name in _undo.keys() - hooked:
            _undo.pop(name)()

    return restore


on_reset(_reset, _isolate)
