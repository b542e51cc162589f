"""The bound logger of `structjob.configure`.

Its level can change. It adds ``success()``, and calls `FanOut` directly, skipping the processor
loop.
"""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import functools
import sys
import threading
import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import structlog
from structlog.contextvars import (
    _ASYNC_CALLING_STACK,
    _ASYNC_CALLING_THREAD,
    _CONTEXT_VARS,
    merge_contextvars,
)

from structjob.capture.event import ARGUMENTS, BY_NAME, error_columns
from structjob.capture.fanout import FanOut, SilentLogger, name_of
from structjob.context.scope import current_scope
from structjob.diagnostics import fault_types
from structjob.levels import LEVEL_ALIASES, LEVELS
from structjob.machine.frames import frame_at
from structjob.process import on_reset

override: ContextVar[str | None] = ContextVar("structjob_level", default=None)


F = TypeVar("F", bound=Callable[..., Any])

ABSENT: Any = object()
"""Marks an argument that was not given. The arguments of our methods are positional, so that every
name is free for attributes.
"""


def as_structlog(**names: Any) -> Callable[[F], F]:
    """Decorate a function whose frame must count as one of structlog's.

    structlog finds the caller's frame by module names, and skips only its own. The function sees
    builtins, its closure and *names*, and nothing else.
    """

    def decorate(function: Any) -> Any:
        namespace = {"__name__": "structlog.structjob", "__builtins__": builtins, **names}
        made = types.FunctionType(
            function.__code__,
            namespace,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        return functools.update_wrapper(made, function)

    return decorate


def apart(given: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes *given*, with names of arguments of structlog's methods changed.

    These become ``attrs.event`` and so on.
    """
    for key in ARGUMENTS.intersection(given):
        given[f"attrs.{key}"] = given.pop(key)
    return given


def _make_bound_logger() -> Any:
    """Return structlog's filtering bound logger with ``success`` (level 25) and a direct call of
    `FanOut`.
    """
    base: Any = structlog.make_filtering_bound_logger(LEVELS["debug"])

    def method(name: str) -> Any:
        level = BY_NAME[name]

        @as_structlog(
            ABSENT=ABSENT, apart=apart, FanOut=FanOut, SilentLogger=SilentLogger, name_of=name_of,
            _CONTEXT_VARS=_CONTEXT_VARS, merge_contextvars=merge_contextvars, current_scope=current_scope, error_columns=error_columns,
            fault_types=fault_types,
        )  # fmt: skip
        def log(self: Any, event: Any = ABSENT, /, *args: Any, **kw: Any) -> None:
            if event is ABSENT:
                event = kw.pop("event", None)
            template = event
            if args:
                try:
                    event = event % (
                        args[0]
                        if len(args) == 1 and isinstance(args[0], dict) and args[0]
                        else args
                    )
                except fault_types():  # arguments that do not fit are kept
                    kw["positional_args"] = args
            processors = self._processors
            if len(processors) == 1 and type(processors[0]) is FanOut:
                if self._context:
                    kw = {**self._context, **kw}
                if _CONTEXT_VARS:  # something is bound
                    merge_contextvars(None, name, kw)
                # a different one if the program wraps its own logger, see `structlog.wrap_logger`
                logger = self._logger
                called = logger.name if type(logger) is SilentLogger else name_of(logger)
                processors[0].take(
                    level,
                    event,
                    kw,
                    current_scope(),
                    called,
                    error_columns(level, template, kw, called) if args else None,
                )
            else:
                if "event" in self._context:
                    kw = {"event": self._context["event"], **kw}
                self._proxy_to_logger(name, event, **apart(kw))

        return log

    def async_method(name: str) -> Any:
        log = method(name)

        @as_structlog(
            ABSENT=ABSENT, asyncio=asyncio, contextvars=contextvars, frame_at=frame_at, sys=sys, threading=threading,
            _ASYNC_CALLING_STACK=_ASYNC_CALLING_STACK, _ASYNC_CALLING_THREAD=_ASYNC_CALLING_THREAD,
        )  # fmt: skip
        async def alog(self: Any, event: Any = ABSENT, /, *args: Any, **kw: Any) -> None:
            if kw.get("exc_info") is True:  # the executor's thread is not handling an exception
                kw["exc_info"] = sys.exc_info()
            # The same as in structlog's own asynchronous methods.
            thread = _ASYNC_CALLING_THREAD.set(
                (threading.get_ident(), threading.current_thread().name)
            )
            stack = _ASYNC_CALLING_STACK.set(frame_at().f_back)  # type: ignore[arg-type]  # a running coroutine has a caller
            context = contextvars.copy_context()
            try:
                await asyncio.get_running_loop().run_in_executor(
                    None, lambda: context.run(lambda: log(self, event, *args, **kw))
                )
            finally:
                _ASYNC_CALLING_STACK.reset(stack)
                _ASYNC_CALLING_THREAD.reset(thread)

        return alog

    by_number = sorted(((number, name) for name, number in LEVELS.items()), reverse=True)

    @as_structlog(ABSENT=ABSENT)
    def log(self: Any, level: Any = ABSENT, /, *args: Any, **kw: Any) -> None:
        if level is ABSENT:
            level = kw.pop("level")
        for number, name in by_number:
            if level >= number:
                getattr(self, name)(*args, **kw)
                return

    @as_structlog(ABSENT=ABSENT)
    def alog(self: Any, level: Any = ABSENT, /, *args: Any, **kw: Any) -> Any:
        # Not a coroutine function: a frame between the caller and structlog's own would be
        # suspended, and would have no link to the caller.
        if level is ABSENT:
            level = kw.pop("level")
        name = next((name for number, name in by_number if level >= number), "debug")
        return getattr(self, f"a{name}")(*args, **kw)

    @as_structlog()
    def exception(self: Any, /, *args: Any, **kw: Any) -> Any:
        kw.setdefault("exc_info", True)
        return self.error(*args, **kw)

    @as_structlog()
    # not a coroutine function, see above
    def aexception(self: Any, /, *args: Any, **kw: Any) -> Any:
        kw.setdefault("exc_info", True)
        return self.aerror(*args, **kw)

    def bind(self: Any, /, **new_values: Any) -> Any:
        return self.__class__(
            self._logger, self._processors, self._context.__class__(self._context, **new_values)
        )

    def new(self: Any, /, **new_values: Any) -> Any:
        self._context.clear()
        return self.bind(**new_values)

    methods = {
        "log": log,
        "alog": alog,
        "exception": exception,
        "aexception": aexception,
        "bind": bind,
        "new": new,
    }
    made: Any = type("BoundLogger", (base,), {"__module__": __name__, **methods})
    made.is_enabled_for = lambda self, level: level >= made.least
    made.get_effective_level = lambda self: made.least
    made.enabled = {name: (method(name), async_method(name)) for name in LEVELS}
    return made


def log_from(least: int) -> None:
    """Let the bound loggers log events of level *least* or above.

    The class is changed instead of replaced, so that loggers already in use follow.
    """
    BoundLogger.least = least
    for name, number in LEVELS.items():
        methods = (
            BoundLogger.enabled[name]
            if number >= least
            else (_nothing_logged, _nothing_logged_async)
        )
        for alias in (
            name,
            *(alias for alias in ("warn", "fatal", "msg") if LEVEL_ALIASES[alias] == name),
        ):
            setattr(BoundLogger, alias, methods[0])
            setattr(BoundLogger, f"a{alias}", methods[1])


def _nothing_logged(self: Any, /, *args: Any, **kw: Any) -> None:
    return None


async def _nothing_logged_async(self: Any, /, *args: Any, **kw: Any) -> None:
    return None


BoundLogger = _make_bound_logger()


def _log_all() -> None:
    log_from(LEVELS["debug"])


_log_all()


def _isolate() -> Callable[[], None]:
    least: int = BoundLogger.least
    return lambda: log_from(least)


on_reset(_log_all, _isolate)


@as_structlog(ABSENT=ABSENT, apart=apart, override=override)
def success(log: Any, event: Any = ABSENT, /, **kw: Any) -> Any:
    """Log *event* with level ``success`` (25) through any structlog logger.

    If the logger does not have this level, its output says ``info``.

    Args:
        log: A logger as returned by ``structlog.get_logger()``.
        event: What succeeded.
        kw: Attributes.
    """
    if event is ABSENT:
        event = kw.pop("event", None)
    if hasattr(log, "success"):
        return log.success(event, **kw)
    previous = override.get()
    override.set("success")
    try:
        return log.info(event, **apart(kw))
    finally:
        override.set(previous)
