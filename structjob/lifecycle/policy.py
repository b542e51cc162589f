"""Retry policies: a tenacity policy, either the user's own or built from the retry options."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from structjob.context.errors import Classifier, error_fields
from structjob.context.tracebacks import traceback_of
from structjob.exceptions import InvalidArgument
from structjob.numeric import is_number, is_whole

if TYPE_CHECKING:
    from tenacity import AsyncRetrying, Future, RetryCallState, Retrying

    Policy = AsyncRetrying | Retrying
    """A policy that decides when to retry."""

On = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


class RetryOptions(TypedDict, total=False):
    """The retry options; see `structjob.retrying`."""

    max_attempts: int
    delay: float
    backoff: float
    max_delay: float
    jitter: float
    on: On | None


DEFAULTS: RetryOptions = {
    "max_attempts": 3,
    "delay": 1.0,
    "backoff": 2.0,
    "max_delay": 60.0,
    "jitter": 0.0,
    "on": None,
}


def failed(state: RetryCallState, exc: BaseException) -> None:
    """Report to the policy that this attempt ended with *exc*."""
    state.set_exception((type(exc), exc, traceback_of(exc)))
    state.outcome = _outcome_type().construct(state.attempt_number, exc, has_exception=True)


def can_be_judged(exc: BaseException) -> bool:
    """Return whether tenacity can read the class of *exc*.

    If that raises, tenacity would raise this error instead of *exc*.
    """
    try:
        isinstance(exc, _Unlikely)
    except Exception:  # noqa: BLE001 -- the error is the answer
        return False
    return True


class _Unlikely:
    """A class that no exception is an instance of."""


@functools.cache
def _outcome_type() -> type[Future]:
    from tenacity import Future

    class Outcome(Future):
        def result(self, timeout: float | None = None) -> Any:
            # The method of the standard library tests the exception for truth. It would swallow an
            # exception of length 0.
            exc = self.exception()
            if exc is None:
                return super().result()
            try:
                raise exc
            finally:
                del exc  # otherwise the exception and this frame would refer to each other

    return Outcome


def limit_of(stop: Any) -> int | None:
    """Return the number of attempts after which *stop* stops; None if it has no such limit."""
    from tenacity import stop_any

    limits = [limit_of(one) for one in stop.stops] if isinstance(stop, stop_any) else []
    known = [
        limit for limit in [getattr(stop, "max_attempt_number", None), *limits] if limit is not None
    ]
    return min(known, default=None)


def policy_maker(
    policy: Policy | None, options: Mapping[str, Any]
) -> Callable[[Classifier | None], Policy]:
    """Return a function that takes the tracker's classifier and returns the policy of a run.

    Invalid arguments raise here, not at the run.
    """
    if policy is not None:
        from tenacity import AsyncRetrying, Retrying

        if not isinstance(policy, AsyncRetrying | Retrying):
            raise InvalidArgument(
                f"policy must be a tenacity.AsyncRetrying or tenacity.Retrying, not {type(policy).__name__}; what `@tenacity.retry` decorates has it in `.retry`"
            )
        if options:
            raise InvalidArgument(
                f"a policy replaces the retry options: leave out {', '.join(sorted(options))}"
            )
        return lambda classifier: policy
    for name in options:
        if name not in DEFAULTS:
            raise InvalidArgument(
                f"unknown retry option {name!r}: use one of {', '.join(DEFAULTS)}"
            )
    wanted: dict[str, Any] = {**DEFAULTS, **options}
    max_attempts = wanted["max_attempts"]
    if not is_whole(max_attempts) or max_attempts < 1:
        raise InvalidArgument(
            f"max_attempts must be a whole number of at least 1, not {max_attempts!r}"
        )
    for name, least in (("delay", 0), ("backoff", 1), ("max_delay", 0), ("jitter", 0)):
        value = wanted[name]
        if not is_number(value) or not math.isfinite(value) or value < least:
            raise InvalidArgument(f"{name} must be a number of at least {least}, not {value!r}")
    again = wanted["on"]
    types = again if isinstance(again, tuple) else (again,)
    of_types = all(isinstance(one, type) for one in types)
    if again is not None and not (
        all(issubclass(one, Exception) for one in types) if of_types else callable(again)
    ):
        raise InvalidArgument(
            f"on must be a type of exception, several in a tuple, or a function, not {again!r}; a cancellation is never tried again"
        )
    return functools.partial(_policy_of, wanted, types if of_types else again)


def _policy_of(wanted: Mapping[str, Any], again: Any, classifier: Classifier | None) -> Policy:
    import tenacity

    def try_again(exc: BaseException) -> bool:
        if not issubclass(type(exc), Exception):
            return False
        if again is None:
            return bool(error_fields(exc, classifier)["retry_possible"])
        # As `except` does. `isinstance` would read an attribute of the exception.
        return issubclass(type(exc), again) if isinstance(again, tuple) else bool(again(exc))

    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(wanted["max_attempts"]),
        wait=tenacity.wait_exponential(
            wanted["delay"], max=wanted["max_delay"], exp_base=wanted["backoff"]
        )
        + tenacity.wait_random(0, wanted["jitter"]),
        retry=tenacity.retry_if_exception(try_again),
        reraise=True,
    )
