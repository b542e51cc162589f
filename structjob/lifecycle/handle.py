"""The handles that users have: `structjob.Job` and `structjob.Step`, and what both can do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from structjob.context.scope import Binding
from structjob.exceptions import InvalidState
from structjob.lifecycle.attributes import Absent, ReadOnly
from structjob.lifecycle.core import Core

if TYPE_CHECKING:
    from structjob.lifecycle.printed import CapturedOutput

C = TypeVar("C", bound=Core)


class Handle(Generic[C]):
    """A live job or step, as users see it. It has nothing but its core, which the library uses.

    Args:
        core: What the library knows and does about the job or step.
    """

    __slots__ = ("__weakref__", "_core")
    duration_ms: ReadOnly[float | None] = ReadOnly("it is measured")
    """Milliseconds from its start to its end; ``None`` until it has ended."""

    def __init__(self, core: C) -> None:
        self._core = core
        core.handle = self

    def __dir__(self) -> list[str]:
        return [
            name
            for name in super().__dir__()
            if not isinstance(inspect.getattr_static(type(self), name, None), Absent)
        ]

    def as_current(self) -> Binding[Self]:
        """Make this job or step the current one within the ``with`` block.

        Events logged in the block belong to it, and jobs and steps started there become its
        children. Use it in code that starts and ends the job or step manually, and in functions
        that run in executor threads, which inherit no context. The block neither starts nor ends
        it.

        Raises:
            InvalidState: if it has not started. A job from `Tracker.create_job` is allowed.
        """
        if self._core.scope is None:
            raise InvalidState(
                f"{self._core.named()} has not begun; begin it with start() or async with"
            )
        return Binding(self._core.scope, self)

    def capture_output(
        self, *, stdout: bool = True, stderr: bool = True, echo: bool = True, fd: bool = False
    ) -> CapturedOutput:
        """Record the output of the block as events of this job or step, line by line.

        See `structjob.capture_output`.

        Args:
            stdout: Capture stdout, True by default.
            stderr: Capture stderr, True by default.
            echo: Also print the output, True by default.
            fd: Also capture the output of C code and child processes, False by default.

        Raises:
            InvalidArgument: if neither stream is captured.
        """
        from structjob.lifecycle.printed import CapturedOutput

        return CapturedOutput(self._core.scope, stdout=stdout, stderr=stderr, echo=echo, fd=fd)

    def guard(self) -> Guard[Self]:
        """End this job or step if an exception leaves the ``with`` block, as ``async with`` would.

        The exception is re-raised. Use it in code that starts the job or step manually. Without an
        exception the job or step continues, and ``end()`` ends it.
        """
        return Guard(self, self._core.fail)

    @property
    def ended(self) -> bool:
        """Whether it has started and ended. Always False for an *existing* job, which another start
        ends.
        """
        return self._core.ended

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        # It is unique, as a lock or a task is: an object that holds it stays copyable.
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} belongs to its process and cannot be pickled: pass structjob.inject({{}}) to the other "
            "process and work there in `with structjob.extract(headers).as_current():`, or submit to a structjob.ContextExecutor"
        )


def core_of(handle: Handle[C]) -> C:
    """Return the core of *handle*, for the rooms of the library that get a handle from users."""
    return handle._core  # noqa: SLF001 -- the one way from what users have to what the library uses


G = TypeVar("G", bound="Handle[Any]")


class Guard(Generic[G]):
    """The context manager that `Handle.guard` returns.

    It is not a generator with `contextlib.contextmanager`, for the reason in
    `structjob.context.Binding`.
    """

    def __init__(self, handle: G, fail: Callable[[BaseException], None]) -> None:
        self._handle = handle
        self._fail = fail

    def __enter__(self) -> G:
        return self._handle

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is not None:
            self._fail(exc)
