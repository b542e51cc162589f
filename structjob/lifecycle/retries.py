"""Work that is retried. Each attempt is a step ``attempt-N`` within a step, or an attempt at a
whole job.

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
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, cast

import msgspec

from structjob.capture.emit import emit
from structjob.capture.setup import SETUP
from structjob.context.errors import Classifier, message_of, restore_traceback, traceback_of
from structjob.exceptions import InvalidState
from structjob.lifecycle.arguments import check_text, decorates_coroutines
from structjob.lifecycle.contexts import parent_scope, running_job, warn_untracked
from structjob.lifecycle.current import current_core
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.options import JobOptions
from structjob.lifecycle.outcome import outcome
from structjob.lifecycle.policy import (
    DEFAULTS,
    RetryOptions,
    can_be_judged,
    failed,
    limit_of,
    policy_maker,
)
from structjob.lifecycle.steps import Step
from structjob.lifecycle.untracked import untracked_job
from structjob.models import StepStatus
from structjob.values.encoding import type_name

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from structjob.lifecycle.host import JobHost
    from structjob.lifecycle.policy import Policy

_SLICE = 0.2
"""Maximum seconds of one sleep during a pause in code without a loop, so that a cancellation is
noticed.
"""

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H")


def retrying(
    name: str, policy: Policy | None = None, **options: Unpack[RetryOptions]
) -> Retrying[Step]:
    """Return attempts at one piece of work in the current job.

    Use it with ``async for``, with ``for`` in code without a loop, or as a decorator of functions
    and coroutine functions.

    ::

        async for attempt in structjob.retrying("download", max_attempts=5, on=OSError):
            async with attempt:
                await download()

    The work is a step *name*. Each attempt is a step ``attempt-N`` within it. An attempt that is
    followed by a retry ends ``retrying``, with ``retry_delay`` (seconds) in its metadata and
    events. The last attempt, and with it the step *name*, ends as the work does. The last exception
    is re-raised unchanged. Outside a job the work is retried in the same way, but untracked.

    Args:
        name: At most 200 characters.
        policy: A ``tenacity.AsyncRetrying`` or ``tenacity.Retrying`` that decides when to retry,
            instead of *options*. It also decides what is raised in the end: a
            ``tenacity.RetryError`` unless it has ``reraise=True``.
        options: The retry options:

            - ``max_attempts``: total number of attempts, 3 by default.
            - ``delay``: seconds before the second attempt, 1 by default.
            - ``backoff``: factor for each further delay, 2 by default.
            - ``max_delay``: maximum seconds of a delay, 60 by default.
            - ``jitter``: maximum random seconds added to each delay, 0 by default.
            - ``on``: the exceptions to retry: a type, a tuple of types, or a function that takes an
              exception and returns whether to retry. By default these are the exceptions for which
              the tracker's *classifier* returns ``retry_possible``. Without a classifier, these are
              timeouts and lost connections.

    Raises:
        InvalidArgument: if an argument is invalid.
    """
    return retrying_in(None, name, policy, options)


def retrying_in(
    job: Job | None, name: str, policy: Policy | None, options: Mapping[str, Any]
) -> Retrying[Any]:
    """Return the attempts at a piece of work of *job*. None stands for the job that is current when
    they start.
    """
    check_text("the name of a step", name, 200)
    make_policy = policy_maker(policy, options)

    def begin() -> _StepTries:
        return _StepTries(make_policy, name, job)

    return Retrying("retrying()", begin)


def retrying_job(
    host: Callable[[], JobHost], operation: str, policy: Policy | None, given: Mapping[str, Any]
) -> Retrying[Job]:
    """Return the attempts at a whole job. *host* is called when they start. *given* contains the
    retry options and the job's options.
    """
    retries = {name: value for name, value in given.items() if name in DEFAULTS}
    options = JobOptions.of({name: value for name, value in given.items() if name not in DEFAULTS})
    # raise errors in the arguments here, where the caller made the mistake
    JobCore(host(), operation, parent=None, options=options)
    make_policy = policy_maker(policy, retries)

    def begin() -> _JobTries:
        current = host()
        return _JobTries(make_policy(current.classifier), current, operation, options)

    return Retrying("tracker.retrying()", begin)


class Retrying(Generic[H]):
    """The return value of ``retrying(…)``. ``async for`` and ``for`` return one `Try` after
    another.

    Each use starts again from the first attempt.
    """

    def __init__(self, what: str, begin: Callable[[], _Tries[H]]) -> None:
        self._what = what
        self._begin = begin

    def __aiter__(self) -> AsyncIterator[Try[H]]:
        return self._begin()

    def __iter__(self) -> Iterator[Try[H]]:
        return _InThread(self._begin())

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
                        _keep(attempt, handle, await work(*args, **kwargs))
                return tries.returned
        else:

            @functools.wraps(function)
            def run(*args: P.args, **kwargs: P.kwargs) -> Any:
                tries = self._begin()
                for attempt in _InThread(tries):
                    with attempt as handle:
                        _keep(attempt, handle, function(*args, **kwargs))
                return tries.returned

        return cast(Callable[P, T], run)


class _InThread(Generic[H]):
    """Attempts in code without an event loop. Only the delays wait, and they sleep."""

    def __init__(self, tries: _Tries[H]) -> None:
        self._tries = tries
        tries.blocking = True

    def __iter__(self) -> Iterator[Try[H]]:
        return self

    def __next__(self) -> Try[H]:
        try:
            return _driven(self._tries.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


def _driven(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of *work*, which must not wait for anything.

    Raises:
        InvalidState: if it waits, because a callback of the policy is a coroutine function that
            awaits.
    """
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

    def __init__(self, tries: _Tries[H]) -> None:
        self._tries = tries
        self.number: int = tries.state.attempt_number
        self.retry_state = tries.state

    def __repr__(self) -> str:
        return f"<Try {self.number}>"

    async def __aenter__(self) -> H:
        return await self._tries.enter(self.number)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return await self._tries.leave(exc)

    def __enter__(self) -> H:
        return _driven(self._tries.enter(self.number))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return _driven(self._tries.leave(exc))


def _keep(attempt: Try[H], handle: H, returned: Any) -> None:
    """Store the return value of a decorated function."""
    attempt.retry_state.set_result(returned)
    if isinstance(handle, Job) and handle.result is None and not handle.existing:
        handle.result = returned


class _Verdict(msgspec.Struct, frozen=True):
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


class _Tries(Generic[H]):
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
        self._over = False
        self._begun = False

    def __aiter__(self) -> AsyncIterator[Try[H]]:
        return self

    async def __anext__(self) -> Try[H]:
        if self._over:
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
                self._over = True
                self._given_up(exc)
                raise
        await self._before()
        return Try(self)

    async def _before(self) -> None:
        if self._policy.enabled:
            await self._ask()  # this calls the policy's own callback

    async def _ask(self) -> Any:
        answer: Any = self._policy.iter(self.state)
        return await answer if inspect.isawaitable(answer) else answer

    async def _pause(self, delay: float) -> None:
        """Wait before the next attempt."""
        if self.blocking:
            self._sleep(delay)
        else:
            pause: Any = asyncio.sleep if self._in_thread_only() else self._policy.sleep
            await pause(delay)

    def _sleep(self, delay: float) -> None:
        until = time.monotonic() + delay
        while (left := until - time.monotonic()) > 0:
            self._stop_if_asked()
            time.sleep(min(left, _SLICE))
        self._stop_if_asked()

    def _in_thread_only(self) -> bool:
        from tenacity import AsyncRetrying

        return not isinstance(self._policy, AsyncRetrying)

    def _stop_if_asked(self) -> None:
        """Raise `Cancelled` if the job of this work was asked to stop."""
        if (job := current_core()) is not None:
            job.cancellation.stop_if_asked()

    async def _judge(self, exc: BaseException | None) -> _Verdict:
        """Ask the policy for its decision.

        Only the policy's own callbacks are awaited. An exception that they raise is also a
        decision.
        """
        if exc is not None and not (issubclass(type(exc), Exception) and can_be_judged(exc)):
            # A policy must not swallow a cancellation. Some would, for example
            # `retry_if_not_exception_type`.
            self._over = True
            return _Verdict(exc, None, exc)
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
                self._over = True
                if raised is exc:
                    # remove the frames that tenacity adds: they do not help to find the fault
                    restore_traceback(exc, trace)
                return _Verdict(exc if exc is not None else raised, None, raised)
        else:
            answer = None if exc is not None else self.state.outcome.result()  # type: ignore[union-attr]  # it was set above
        if isinstance(answer, DoSleep):
            self._delay = float(answer)
            return _Verdict(exc, self._delay, None)
        self._over = True
        self.returned = answer
        return _Verdict(exc, None, None if self._policy.enabled else exc)

    def _numbers(self) -> dict[str, int]:
        limit = limit_of(self._policy.stop)
        return {
            "attempt_number": self.state.attempt_number,
            **({} if limit is None else {"max_attempts": limit}),
        }

    async def enter(self, number: int) -> H:
        """Start an attempt."""
        raise NotImplementedError

    async def leave(self, exc: BaseException | None) -> bool:
        """End the attempt, and return whether *exc* is swallowed."""
        raise NotImplementedError

    def _given_up(self, exc: BaseException) -> None:
        """Record that *exc* was raised instead of the next attempt."""
        raise NotImplementedError


class _StepTries(_Tries[Step]):
    """Attempts that are steps within a step. That step lasts from the first attempt to the last,
    including the delays.
    """

    def __init__(
        self, make_policy: Callable[[Classifier | None], Policy], name: str, job: Job | None
    ) -> None:
        job = job or running_job()
        super().__init__(
            make_policy(core_of(job).classifier if job is not None else SETUP.classifier)
        )
        self._name = name
        self._whole = job.step(name) if job is not None else None
        self._step: Step | None = None

    async def _before(self) -> None:
        if self._whole is None:
            warn_untracked(self._name)
        elif self._whole.status is None:
            self._whole.start()
        self._enter_whole()
        try:
            await super()._before()
        except BaseException as exc:
            self._over = True
            self._given_up(exc)
            raise
        finally:
            self._leave_whole()

    def _enter_whole(self) -> None:
        if self._whole is not None:
            core_of(self._whole).enter_scope()

    def _leave_whole(self) -> None:
        if self._whole is not None:
            core_of(self._whole).leave_scope()

    async def enter(self, number: int) -> Step:
        if self._whole is None:
            step = untracked_job(self._name).step(f"attempt-{number}")
            step.start()
            return step
        self._enter_whole()
        self._step = self._whole.job.step(f"attempt-{number}", metadata=self._numbers())
        try:
            return await self._step.__aenter__()
        except BaseException:
            self._leave_whole()
            raise

    async def leave(self, exc: BaseException | None) -> bool:
        if self._step is not None:
            # events from the policy's callbacks belong to the enclosing step
            core_of(self._step).leave_scope()
        verdict = await self._judge(exc)
        if self._whole is not None:
            self._record(verdict)
            self._leave_whole()
        return verdict.swallows(exc)

    def _record(self, verdict: _Verdict) -> None:
        whole, step, failure = self._whole, self._step, verdict.failure
        assert whole is not None  # noqa: S101 -- the caller has checked it
        assert step is not None  # noqa: S101 -- it was entered
        if verdict.delay is not None:
            step.metadata["retry_delay"] = verdict.delay
            status = "retrying"
        else:
            status = "completed" if failure is None else outcome(failure)
        _end(step, status, failure)
        if verdict.delay is None:
            _end(whole, status, failure if verdict.raised is None else verdict.raised)

    def _given_up(self, exc: BaseException) -> None:
        if self._whole is not None:
            _end(self._whole, outcome(exc), exc)


def _end(step: Step, status: Any, exc: BaseException | None) -> None:
    if step.status is StepStatus.RUNNING:  # not if it was ended manually or together with its job
        step.end(status, error=exc)


class _JobTries(_Tries[Job]):
    """Attempts at one job. Each attempt except the last ends ``failed``, because a job has no
    status ``retrying``.
    """

    def __init__(self, policy: Policy, host: JobHost, operation: str, options: JobOptions) -> None:
        super().__init__(policy)
        self._host = host
        self._operation = operation
        self._options = options
        self._job: Job | None = None

    async def enter(self, number: int) -> Job:
        core = JobCore(
            self._host,
            self._operation,
            parent=parent_scope(self._options.parent),
            options=self._options,
        )
        job = Job(core)
        if self._job is not None and not self._job.existing:
            core.follow(core_of(self._job))
        if self.blocking:
            job.__enter__()
        else:
            await job.__aenter__()
        self._job = job
        return job

    async def leave(self, exc: BaseException | None) -> bool:
        job = self._job
        assert job is not None  # noqa: S101 -- it was entered
        late = await core_of(job).cancellation.overdue(exc)
        exc = late or exc
        verdict = await self._judge(exc)
        summary: dict[str, Any] = self._numbers()
        if verdict.delay is not None:
            status, failure = "failed", exc
            summary["retry_delay"] = verdict.delay
        else:
            failure = verdict.failure
            status = "completed" if failure is None else outcome(failure)
        core_of(job).leave(status, failure, summary)
        swallowed = verdict.swallows(exc)
        if late is not None:
            raise late
        return swallowed

    def _given_up(self, exc: BaseException) -> None:
        if self._job is not None and not self._job.existing:
            attrs = {"reason": message_of(exc) or type_name(exc), **self._numbers()}
            emit(
                core_of(self._job).scope, "warning", "retry_given_up", attrs, kind="retry_given_up"
            )
