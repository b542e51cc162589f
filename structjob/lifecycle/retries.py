"""Work that is retried. Each attempt is a step ``attempt-N`` within a step. Attempts at a whole job
are in `structjob.lifecycle.retrying`.

`tenacity` decides whether, when and how often to retry, with the user's policy or with a policy
built from the retry options. This module records it. It asks the policy as soon as an attempt ends.
So one record contains both the outcome of the attempt and the delay before the next one.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast

import msgspec

from structjob.context.errors import Classifier
from structjob.context.tracebacks import leave_out_caller, restore_traceback, traceback_of
from structjob.exceptions import InvalidState
from structjob.lifecycle.arguments import check_text, decorates_coroutines
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.job_core import current_core
from structjob.lifecycle.outcome import outcome
from structjob.lifecycle.policy import can_be_judged, failed, limit_of, policy_maker
from structjob.lifecycle.steps import StepHandle
from structjob.statuses import StepStatus

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from structjob.lifecycle.policy import Policy

_SLICE = 0.2
"""Maximum seconds of one sleep during a pause in code without a loop, so that a cancellation is
noticed.
"""

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H")
S = TypeVar("S", bound=StepHandle)
S_co = TypeVar("S_co", bound=StepHandle, covariant=True)


class MakeStep(Protocol[S_co]):
    """The method ``step`` of a job."""

    def __call__(self, name: str, *, metadata: Mapping[str, Any] | None = None) -> S_co:
        """Return a new step."""


class Retrying(Generic[H]):
    """The return value of ``retrying(…)``. ``async for`` and ``for`` return one `Try` after
    another.

    Each use starts again from the first attempt.
    """

    def __init__(self, what: str, begin: Callable[[], Tries[H]]) -> None:
        self._what = what
        self._begin = begin

    def __aiter__(self) -> AsyncIterator[Try[H]]:
        return self._begin()

    def __iter__(self) -> Iterator[Try[H]]:
        return _in_thread(self._begin())

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function or coroutine function, so that each call is retried as often as
        necessary.

        For a whole job, the return value becomes the job's result.

        Raises:
            InvalidArgument: if *function* is a generator function, or not a function.
        """
        run: Any
        if decorates_coroutines(function, self._what):
            work: Callable[P, Coroutine[Any, Any, Any]] = cast(Any, function)

            @functools.wraps(function)
            async def run(*args: P.args, **kwargs: P.kwargs) -> Any:
                tries = self._begin()
                async for attempt in tries:
                    async with attempt as handle:
                        try:
                            returned = await work(*args, **kwargs)
                        except BaseException as exc:
                            leave_out_caller(exc)
                            raise
                        tries.keep(handle, returned)
                return tries.returned
        else:

            @functools.wraps(function)
            def run(*args: P.args, **kwargs: P.kwargs) -> Any:
                tries = self._begin()
                for attempt in _in_thread(tries):
                    with attempt as handle:
                        try:
                            returned = function(*args, **kwargs)
                        except BaseException as exc:
                            leave_out_caller(exc)
                            raise
                        tries.keep(handle, returned)
                return tries.returned

        return cast(Callable[P, T], run)


def _in_thread(tries: Tries[H]) -> Iterator[Try[H]]:
    """Yield the attempts in code without an event loop. Only the delays wait, and they sleep."""
    tries.blocking = True
    while True:
        try:
            attempt = _driven(tries.__anext__)
        except StopAsyncIteration:
            return
        yield attempt


def _driven(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of the coroutine *function*, which must not wait for anything.

    Raises:
        InvalidState: if it waits, because a callback of the policy is a coroutine function that
            awaits.
    """
    # Called here, because a signal handler may raise before the first line: no coroutine is lost.
    work = function(*args, **kwargs)
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise InvalidState("a callback of the policy awaits something: write `async for`")


class Try(Generic[H]):
    """One attempt, for ``async with`` or ``with``, which returns its `Step` (for a whole job, its
    `Job`).

    Attributes:
        number: The number of the attempt, from 1.
        retry_state: Tenacity's ``RetryCallState``. For a policy that looks at results, call
            ``retry_state.set_result(…)``.
    """

    def __init__(self, tries: Tries[H]) -> None:
        self._tries = tries
        self.number: int = tries.state.attempt_number
        self.retry_state = tries.state

    def __repr__(self) -> str:
        return f"<Try {self.number}>"

    async def __aenter__(self) -> H:
        return await self._tries.enter(self.number)

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> bool:
        try:
            return await self._tries.leave(exc)
        except BaseException as interruption:  # of a signal handler, or what the policy raises
            self._tries.interrupted(interruption)
            raise

    def __enter__(self) -> H:
        return _driven(self._tries.enter, self.number)

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> bool:
        try:
            return _driven(self._tries.leave, exc)
        except BaseException as interruption:  # see `__aexit__`
            self._tries.interrupted(interruption)
            raise


class Verdict(msgspec.Struct, frozen=True):
    """A policy's decision about an attempt."""

    failure: BaseException | None
    """The exception that ended the attempt."""
    delay: float | None
    """Seconds until the next attempt; None if this was the last one."""
    raised: BaseException | None
    """The exception that the caller gets in the end."""

    def swallows(self, exc: BaseException | None) -> bool:
        """Return whether *exc*, which left the attempt, is swallowed.

        If the policy raises another exception instead, raise that.
        """
        if self.raised is not None and self.raised is not exc:
            raise self.raised
        return self.raised is None


class Tries(Generic[H]):
    """One run of attempts, driven by a copy of a policy, because concurrent runs must not share its
    state.
    """

    blocking = False
    """Whether the attempts are made in code without an event loop."""

    def __init__(self, policy: Policy) -> None:
        from tenacity import RetryCallState

        self._policy = policy.copy()
        self._policy.begin()
        self.state: RetryCallState = RetryCallState(self._policy, None, (), {})
        self.returned: Any = None
        """The final return value, if no exception is raised."""
        self._delay: float | None = None
        self.over = False
        """Whether no attempt follows."""
        self._begun = False

    def __aiter__(self) -> AsyncIterator[Try[H]]:
        return self

    async def __anext__(self) -> Try[H]:
        if self.over:
            raise StopAsyncIteration
        # without this check the loop would never end
        if self._begun and self.state.outcome is None:
            raise InvalidState(
                f"try {self.state.attempt_number} was not made: write `with attempt:` or `async with attempt:` around the work"
            )
        self._begun = True
        if self._delay is not None:
            delay, self._delay = self._delay, None
            self.state.prepare_for_next_attempt()
            try:
                await self._pause(delay)
            except BaseException as exc:
                self.over = True
                self.given_up(exc)
                raise
        await self.before()
        return Try(self)

    async def before(self) -> None:
        """Prepare the next attempt."""
        if self._policy.enabled:
            await self._ask()  # this calls the policy's own callback

    async def _ask(self) -> Any:
        answer: Any = self._policy.iter(self.state)
        return await answer if inspect.isawaitable(answer) else answer

    async def _pause(self, delay: float) -> None:
        """Wait before the next attempt."""
        if self.blocking:
            self._sleep(delay)
            return
        from tenacity import AsyncRetrying

        waits = isinstance(self._policy, AsyncRetrying)
        pause: Any = self._policy.sleep if waits else asyncio.sleep
        await pause(delay)

    def _sleep(self, delay: float) -> None:
        until = time.monotonic() + delay
        while (left := until - time.monotonic()) > 0:
            self._stop_if_asked()
            time.sleep(min(left, _SLICE))
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Raise `Cancelled` if the job of this work was asked to stop."""
        if (job := current_core()) is not None:
            job.cancellation.stop_if_asked()

    async def judge(self, exc: BaseException | None) -> Verdict:
        """Ask the policy for its decision.

        Only the policy's own callbacks are awaited. An exception that they raise is also a
        decision.
        """
        if exc is not None and not (issubclass(type(exc), Exception) and can_be_judged(exc)):
            # A policy must not swallow a cancellation. Some would, for example
            # `retry_if_not_exception_type`.
            self.over = True
            return Verdict(exc, None, exc)
        trace = traceback_of(exc) if exc is not None else None
        if exc is not None:
            failed(self.state, exc)
        elif self.state.outcome is None:
            self.state.set_result(None)
        from tenacity import DoSleep

        if self._policy.enabled:
            try:
                answer = await self._ask()
            except BaseException as raised:  # noqa: BLE001 -- it is recorded, and then raised
                self.over = True
                if raised is exc:
                    # remove the frames that tenacity adds: they do not help to find the fault
                    restore_traceback(exc, trace)
                return Verdict(exc if exc is not None else raised, None, raised)
        else:
            answer = None if exc is not None else self.state.outcome.result()  # type: ignore[union-attr]  # it was set above
        if isinstance(answer, DoSleep):
            self._delay = float(answer)
            return Verdict(exc, self._delay, None)
        self.over = True
        self.returned = answer
        return Verdict(exc, None, None if self._policy.enabled else exc)

    def numbers(self) -> dict[str, int]:
        """Return the number of the attempt, and how many there are at most, as attributes."""
        limit = limit_of(self._policy.stop)
        return {
            "attempt_number": self.state.attempt_number,
            **({} if limit is None else {"max_attempts": limit}),
        }

    async def enter(self, number: int) -> H:
        """Start an attempt."""
        raise NotImplementedError

    def keep(self, handle: H, returned: Any) -> None:
        """Keep the return value of a decorated function."""
        self.state.set_result(returned)

    async def leave(self, exc: BaseException | None) -> bool:
        """End the attempt, and return whether *exc* is swallowed."""
        raise NotImplementedError

    def interrupted(self, exc: BaseException) -> None:
        """End the attempt, after *exc* of a signal handler has interrupted `leave`."""
        raise NotImplementedError

    def given_up(self, exc: BaseException) -> None:
        """Record that *exc* was raised instead of the next attempt."""
        raise NotImplementedError


class StepTries(Tries[S]):
    """Attempts that are steps within a step. That step lasts from the first attempt to the last,
    including the delays.

    Args:
        policy: Decides when to retry.
        name: The name of the step.
        make_step: Makes a step of the job: its method ``step``.
    """

    def __init__(self, policy: Policy, name: str, make_step: MakeStep[S]) -> None:
        super().__init__(policy)
        self._make_step = make_step
        self._whole = make_step(name)
        self._step: S | None = None

    async def before(self) -> None:
        if self._whole.status is None:
            self._whole.start()
        try:  # see `Job.__aenter__`
            core_of(self._whole).enter_scope()
            await super().before()
        except BaseException as exc:
            self.over = True
            self.given_up(exc)
            raise
        finally:
            core_of(self._whole).leave_scope()

    async def enter(self, number: int) -> S:
        try:  # see `Job.__aenter__`
            core_of(self._whole).enter_scope()
            self._step = self._make_step(f"attempt-{number}", metadata=self.numbers())
            return await self._step.__aenter__()
        except BaseException:
            core_of(self._whole).leave_scope()
            raise

    async def leave(self, exc: BaseException | None) -> bool:
        if self._step is not None:
            # events from the policy's callbacks belong to the enclosing step
            core_of(self._step).leave_scope()
        verdict = await self.judge(exc)
        self._record(verdict)
        core_of(self._whole).leave_scope()
        return verdict.swallows(exc)

    def _record(self, verdict: Verdict) -> None:
        step, failure = self._step, verdict.failure
        assert step is not None  # noqa: S101 -- it was entered
        if verdict.delay is not None:
            step.metadata["retry_delay"] = verdict.delay
            status = "retrying"
        else:
            status = "completed" if failure is None else outcome(failure)
        _end(step, status, failure)
        if verdict.delay is None:
            _end(self._whole, status, failure if verdict.raised is None else verdict.raised)

    def interrupted(self, exc: BaseException) -> None:
        if self._step is not None:
            core_of(self._step).interrupted(exc)
        if self._delay is None:  # no attempt follows
            core_of(self._whole).interrupted(exc)
        core_of(self._whole).leave_scope()

    def given_up(self, exc: BaseException) -> None:
        _end(self._whole, outcome(exc), exc)


def _end(step: StepHandle, status: Any, exc: BaseException | None) -> None:
    if step.status is StepStatus.RUNNING:  # not if it was ended manually or together with its job
        step.end(status, error=exc)


def retrying_in(
    job: Callable[[], tuple[Classifier | None, MakeStep[S]]],
    name: str,
    policy: Policy | None,
    options: Mapping[str, Any],
) -> Retrying[S]:
    """Return the attempts at a piece of work of a job.

    Args:
        job: Returns the job's classifier and its method ``step``, when the attempts start.
        name: See `structjob.retrying`; so do *policy* and *options*.
    """
    check_text("the name of a step", name, 200)
    make_policy = policy_maker(policy, options)

    def begin() -> StepTries[S]:
        classifier, make_step = job()
        return StepTries(make_policy(classifier), name, make_step)

    return Retrying("retrying()", begin)
