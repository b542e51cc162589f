"""The scope in threads and worker processes, which do not inherit it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from structjob.context.errors import keep_scope
from structjob.context.propagation import RemoteContext, remote_of, remote_scope
from structjob.context.scope import SCOPE, current_scope, enter_scope
from structjob.context.tracebacks import leave_out_caller
from structjob.exceptions import InvalidArgument
from structjob.machine.loops import is_coroutine_function

P = ParamSpec("P")
T = TypeVar("T")


def in_context(function: Callable[P, T], /) -> Callable[P, T]:
    """Return *function* so that it runs in the current context.

    This includes the current job, step, and every other `contextvars.ContextVar`. Use it for code
    that is called elsewhere: ``Thread(target=structjob.in_context(work))``, callbacks,
    ``loop.run_in_executor(None, structjob.in_context(work))``. The result may be called many times,
    from several threads at once. An exception that ends such a thread is recorded with the job, see
    `capture_uncaught`.

    Args:
        function: A plain function. A coroutine runs in the context of its task:
            ``loop.create_task(coroutine, context=…)``.

    Raises:
        InvalidArgument: if *function* is a coroutine function, or not callable.
    """
    _check(function, "in_context()")
    context = copy_context()

    @functools.wraps(function, updated=())
    def within(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            # A context cannot be entered twice at the same time.
            return context.copy().run(function, *args, **kwargs)
        except BaseException as exc:
            keep_scope(exc, context.get(SCOPE))
            leave_out_caller(exc)
            raise

    return within


class ContextExecutor(Executor):
    """An executor whose calls belong to the job and step in which they are submitted.

    ``with structjob.ContextExecutor(ThreadPoolExecutor()) as pool: pool.submit(work)``. Threads get
    a copy of the whole context. Worker processes get the ids, in the same way as other services:
    events logged there are recorded if the process has a tracker, see `worker_initializer`.

    Args:
        executor: Any executor of `concurrent.futures`.
        processes: Whether its workers are other processes. Default: true for a
            `concurrent.futures.ProcessPoolExecutor`, otherwise false.
    """

    def __init__(self, executor: Executor, *, processes: bool | None = None) -> None:
        if not callable(getattr(executor, "submit", None)):
            raise InvalidArgument(
                f"ContextExecutor takes an executor of concurrent.futures, not {executor!r}"
            )
        self._executor = executor
        # By name, because `concurrent.futures.process` is not imported if only threads are used.
        self._processes = (
            any(kind.__name__ == "ProcessPoolExecutor" for kind in type(executor).__mro__)
            if processes is None
            else processes
        )

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; see `concurrent.futures.Executor.submit`."""
        return self._executor.submit(self._carried(fn), *args, **kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[T]:
        """Call *fn* with the items of *iterables*; see `concurrent.futures.Executor.map`."""
        return self._executor.map(
            self._carried(fn), *iterables, timeout=timeout, chunksize=chunksize, **options
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down the executor."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)

    def _carried(self, function: Callable[P, T]) -> Callable[P, T]:
        if not self._processes:
            return in_context(function)
        _check(function, "ContextExecutor")
        scope = current_scope()
        return _Carried(function, None if scope is None else remote_of(scope))


class _Carried:
    """A call that carries its scope with it when it is pickled."""

    def __init__(self, function: Callable[..., Any], remote: RemoteContext | None) -> None:
        self._function = function
        self._remote = remote

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        context = copy_context()
        # A forked worker has the scope from the moment of the fork, which does not belong to this
        # call.
        context.run(enter_scope, None if self._remote is None else remote_scope(self._remote))
        return context.run(self._function, *args, **kwargs)


def _check(function: Any, taker: str) -> None:
    if not callable(function):
        raise InvalidArgument(f"{taker} takes a function, not {function!r}")
    if is_coroutine_function(function):
        raise InvalidArgument(
            f"{taker} takes a plain function, and {getattr(function, '__name__', function)!r} is a "
            "coroutine function: await it, or use loop.create_task(…, context=contextvars.copy_context())"
        )
