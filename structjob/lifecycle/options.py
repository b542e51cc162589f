"""The options of a job, in addition to its operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from structjob.context.propagation import RemoteContext
from structjob.exceptions import InvalidArgument
from structjob.lifecycle.handle import Handle

IdOfCall = Callable[[Mapping[str, Any]], str | None]
"""A function that returns an id for one call of a decorated function.

It gets the arguments of the call by name, defaults included.
"""

IDS = ("external_job_id", "context_id", "correlation_id", "job_id", "idempotency_key")
"""The options that may be an `IdOfCall` of a decorator."""


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
    parent: Handle[Any] | RemoteContext | str | None = None
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
