"""The options of a job, in addition to its operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from structjob.context.propagation import RemoteContext
from structjob.exceptions import InvalidArgument
from structjob.lifecycle.policy import RetryOptions

if TYPE_CHECKING:
    from structjob.lifecycle.jobs import Job


IdOfCall = Callable[[Mapping[str, Any]], str | None]
"""A function that returns an id for one call of a decorated function.

It gets the arguments of the call by name, defaults included.
"""

IDS = ("external_job_id", "context_id", "correlation_id", "job_id", "idempotency_key")
"""The options that may be an `IdOfCall` of a decorator."""


class JobKeywords(TypedDict, total=False):
    """The fields of `JobOptions` as keywords, for type checkers and code completion."""

    job_type: str | None
    description: str | None
    owner: str | None
    project: str | None
    category: str | None
    metadata: Mapping[str, Any] | None
    total_steps: int | None
    external_job_id: str | IdOfCall | None
    context_id: str | IdOfCall | None
    correlation_id: str | IdOfCall | None
    job_id: str | IdOfCall | None
    idempotency_key: str | IdOfCall | None
    parent: Job | RemoteContext | str | None
    offline: bool
    wait: bool


class RetryKeywords(JobKeywords, RetryOptions):
    """The keywords of `Tracker.retrying`, in addition to the operation and a policy."""


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `Tracker.job`, in addition to the operation."""

    job_type: str | None = None
    description: str | None = None
    owner: str | None = None
    project: str | None = None
    category: str | None = None
    metadata: Mapping[str, Any] | None = None
    total_steps: int | None = None
    external_job_id: str | None = None
    context_id: str | None = None
    correlation_id: str | None = None
    job_id: str | None = None
    idempotency_key: str | None = None
    parent: Job | RemoteContext | str | None = None
    offline: bool = False
    wait: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> JobOptions:
        """Check the names in *options* and return the options.

        Raises:
            InvalidArgument: if a name is unknown.
        """
        for name in options:
            if name not in cls.__struct_fields__:
                raise InvalidArgument(
                    f"unknown option {name!r} of a job: use one of {', '.join(cls.__struct_fields__)}"
                )
        return cls(**options)
