"""The bound logger that `structjob.configure` gives structlog: its level can change, it knows ``success``, and its way is short."""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import structlog
from structlog.contextvars import _CONTEXT_VARS, merge_contextvars

from structjob.context import current_scope
from structjob.event import BY_NAME
from structjob.levels import LEVEL_ALIASES, LEVELS
from structjob.pipeline import FanOut, SilentLogger, name_of

override: ContextVar[str | None] = ContextVar("structjob_level", default=None)


F = TypeVar("F", bound=Callable[..., Any])


def _as_structlog(**names: Any) -> Callable[[F], F]:
    """Decorate a function whose frame counts as structlog's: it tells the caller's by the modules' names, and skips its own only.

    The function sees builtins, its closure and *names*, and nothing else.
    """

    def decorate(function: Any) -> Any:
        namespace = {"__name__": "structlog.structjob", "__builtins__": builtins, **names}
        made = types.FunctionType(function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__)
        return functools.update_wrapper(made, function)

    return decorate


def _make_bound_logger() -> Any:
    """Return structlog's filtering bound logger with ``success`` and its level 25, and a shorter way to our `FanOut`."""
    base: Any = structlog.make_filtering_bound_logger(LEVELS["debug"])

    def method(name: str) -> Any:
        level = BY_NAME[name]

        @_as_structlog(
            FanOut=FanOut, SilentLogger=SilentLogger, name_of=name_of,
            _CONTEXT_VARS=_CONTEXT_VARS, merge_contextvars=merge_contextvars, current_scope=current_scope,
        )  # fmt: skip
        def log(self: Any, event: Any, *args: Any, **kw: Any) -> None:
            if args:
                try:
                    event = event % (args[0] if len(args) == 1 and isinstance(args[0], dict) and args[0] else args)
                except Exception:  # noqa: BLE001 -- arguments that do not fit are worth keeping, and no reason to fail
                    kw["positional_args"] = args
            processors = self._processors
            if len(processors) == 1 and type(processors[0]) is FanOut:
                if self._context:
                    kw = {**self._context, **kw}
                if _CONTEXT_VARS:  # somebody has bound something
                    merge_contextvars(None, name, kw)
                logger = self._logger  # another one where somebody wraps his own, see `structlog.wrap_logger`
                processors[0].take(level, event, kw, current_scope(), logger.name if type(logger) is SilentLogger else name_of(logger))
            else:
                self._proxy_to_logger(name, event, **kw)

        return log

    by_number = sorted(((number, name) for name, number in LEVELS.items()), reverse=True)

    @_as_structlog()
    def log(self: Any, level: int, event: Any, *args: Any, **kw: Any) -> None:
        for number, name in by_number:
            if level >= number:
                getattr(self, name)(event, *args, **kw)
                return

    @_as_structlog()
    def alog(self: Any, level: int, event: Any, *args: Any, **kw: Any) -> Any:
        # No coroutine function: a frame between the caller and structlog's own would be suspended, and lead nowhere.
        name = next((name for number, name in by_number if level >= number), "debug")
        return getattr(self, f"a{name}")(event, *args, **kw)

    # structlog makes its own out of the level's name alone, too.
    asuccess = types.FunctionType(base.ainfo.__code__, base.ainfo.__globals__, "asuccess", None, (types.CellType("success"),))
    made: Any = type("BoundLogger", (base,), {"__module__": __name__, "log": log, "alog": alog, "asuccess": asuccess})
    made.is_enabled_for = lambda self, level: level >= made.least
    made.get_effective_level = lambda self: made.least
    made.enabled = {name: (method(name), getattr(made, f"a{name}")) for name in LEVELS}
    return made


def log_from(least: int) -> None:
    """Let the bound loggers take what reaches *least*. The class is changed, not chosen, so that loggers already in use follow."""
    BoundLogger.least = least
    for name, number in LEVELS.items():
        methods = BoundLogger.enabled[name] if number >= least else (_nothing_logged, _nothing_logged_async)
        for alias in (name, *(alias for alias in ("warn", "fatal", "msg") if LEVEL_ALIASES[alias] == name)):
            setattr(BoundLogger, alias, methods[0])
            setattr(BoundLogger, f"a{alias}", methods[1])


def _nothing_logged(self: Any, event: Any, *args: Any, **kw: Any) -> None:
    return None


async def _nothing_logged_async(self: Any, event: Any, *args: Any, **kw: Any) -> None:
    return None


BoundLogger = _make_bound_logger()
log_from(LEVELS["debug"])


@_as_structlog(override=override)
def success(log: Any, event: str, **kw: Any) -> Any:
    """Log *event* with level ``success`` (25) through any structlog logger; where it has no such level, its output says ``info``.

    Args:
        log: A logger as ``structlog.get_logger()`` returns it.
        event: What succeeded.
        kw: Attributes.
    """
    if hasattr(log, "success"):
        return log.success(event, **kw)
    previous = override.get()
    override.set("success")
    try:
        return log.info(event, **kw)
    finally:
        override.set(previous)
