"""`capture_uncaught`: uncaught exceptions and warnings become events.

Python passes them to hooks. Our hook records them and then calls the previous hook, so the output
stays the same. Errors of an event loop's tasks need no hook: asyncio reports them through
`logging`, whose records are events already.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings as python_warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from structjob.capture.emit import emit, show
from structjob.context.scope import current_scope
from structjob.diagnostics import faults
from structjob.machine import clock
from structjob.process import on_reset
from structjob.spool.routing import waits_for_tracker

KIND = "uncaught"

_MOST_WARNINGS = 1_000
"""Maximum number of places whose warnings are recorded, in case a program generates ever new
places.
"""

_here = threading.local()
_undo: dict[str, Callable[[], None]] = {}
"""By kind: removes our hook, unless another hook was installed after it."""


def capture_uncaught(
    *,
    warnings: bool = True,
    excepthook: bool = True,
    threads: bool = True,
    unraisable: bool = True,
) -> None:
    """Record what Python would only print to stderr, as events of kind ``uncaught`` with the
    traceback.

    The output stays the same. Calling it again changes nothing. All options are on by default.

    Args:
        warnings: Warnings of the module `warnings`, at level warning, once for each place.
        excepthook: The exception that ends the program, at level critical.
        threads: Exceptions that end a thread, at level error.
        unraisable: Exceptions that cannot be raised, for example in ``__del__``, at level error.
    """
    for name, wanted, install in (
        ("warnings", warnings, _hook_warnings),
        ("excepthook", excepthook, _hook_exceptions),
        ("threads", threads, _hook_threads),
        ("unraisable", unraisable, _hook_unraisable),
    ):
        if wanted and name not in _undo:
            _undo[name] = install()


def is_shown() -> bool:
    """Return whether the previous hook shows here what is already recorded as an event."""
    return getattr(_here, "shown", False)


def _record(level: str, message: str, attrs: dict[str, Any], logger: str | None = None) -> bool:
    """Record an event, and return whether it is recorded."""
    if getattr(_here, "within", False):  # caused by one of our sinks
        return False
    _here.within = True
    try:
        if waits_for_tracker():
            emit(current_scope(), level, message, attrs, kind=KIND, logger=logger)
        else:  # the trackers are closed: the event would wait for a tracker in vain
            show(current_scope(), level, {"what": message, **attrs}, kind=KIND, ns=clock.now())  # type: ignore[arg-type]
    except Exception as exc:  # noqa: BLE001 -- an internal error must never reach the user's program
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

    def hook(*args: Any, **keywords: Any) -> None:
        _here.shown = note(*args, **keywords)
        try:
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
