"""When work is tried again: a policy of tenacity's, the user's own or one made of a few figures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from structjob.context.errors import Classifier, error_fields, traceback_of
from structjob.exceptions import InvalidArgument

if TYPE_CHECKING:
    from tenacity import AsyncRetrying, Future, RetryCallState, Retrying

    Policy = AsyncRetrying | Retrying
    """What says when to try again."""

On = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


class Figures(TypedDict, total=False):
    """A policy in figures; see `structjob.retrying`."""

    max_attempts: int
    delay: float
    backoff: float
    max_delay: float
    jitter: float
    on: On | None


DEFAULTS: Figures = {
    "max_attempts": 3,
    "delay": 1.0,
    "backoff": 2.0,
    "max_delay": 60.0,
    "jitter": 0.0,
    "on": None,
}


def failed(state: RetryCallState, exc: BaseException) -> None:
    """Tell the policy that this try ended by *exc*."""
    state.set_exception((type(exc), exc, traceback_of(exc)))
    state.outcome = _outcome_type().construct(state.attempt_number, exc, has_exception=True)


def can_be_judged(exc: BaseException) -> bool:
    """Return whether tenacity can ask *exc* for its class; where that raises, it would raise this
    in place of *exc*.
    """
    try:
        isinstance(exc, _Unlikely)
    except Exception:  # noqa: BLE001 -- this is the question
        return False
    return True


class _Unlikely:
    """A class that no exception is of."""


@functools.cache
def _outcome_type() -> type[Future]:
    from tenacity import Future

    class Outcome(Future):
        def result(self, timeout: float | None = None) -> Any:
            # The method of the standard library asks whether the exception is true: one of length 0
            # would be swallowed.
            exc = self.exception()
            if exc is None:
                return super().result()
            try:
                raise exc
            finally:
                del exc  # else the exception refers to this frame, and this frame to the exception

    return Outcome


def limit_of(stop: Any) -> int | None:
    """Return after how many tries *stop* stops, if it says so."""
    from tenacity import stop_any

    limits = [limit_of(one) for one in stop.stops] if isinstance(stop, stop_any) else []
    known = [
        limit for limit in [getattr(stop, "max_attempt_number", None), *limits] if limit is not None
    ]
    return min(known, default=None)


def policy_maker(
    policy: Policy | None, figures: Mapping[str, Any]
) -> Callable[[Classifier | None], Policy]:
    """Return what makes the policy of a run, given the tracker's classifier; what is wrong is said
    now.
    """
    if policy is not None:
        from tenacity import AsyncRetrying, Retrying

        if not isinstance(policy, AsyncRetrying | Retrying):
            raise InvalidArgument(
                f"policy must be a tenacity.AsyncRetrying or tenacity.Retrying, not {type(policy).__name__}; what `@tenacity.retry` decorates has it in `.retry`"
            )
        if figures:
            raise InvalidArgument(
                f"a policy says all of it: leave out {', '.join(sorted(figures))}"
            )
        return lambda classifier: policy
    for name in figures:
        if name not in DEFAULTS:
            raise InvalidArgument(
                f"unknown retry option {name!r}: use one of {', '.join(DEFAULTS)}"
            )
    wanted: dict[str, Any] = {**DEFAULTS, **figures}
    max_attempts = wanted["max_attempts"]
    if not isinstance(max_attempts, int) or isinstance(max_attempts, bool) or max_attempts < 1:
        raise InvalidArgument(
            f"max_attempts must be a whole number of at least 1, not {max_attempts!r}"
        )
    for name, least in (("delay", 0), ("backoff", 1), ("max_delay", 0), ("jitter", 0)):
        value = wanted[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or value < least
        ):
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
        # As `except` does; `isinstance` would ask the exception for its class.
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
