"""What a job shares with its steps, its progress bars and its later attempts."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from structjob.capture.emit import emit
from structjob.context.scope import Scope
from structjob.machine.clock import time_text
from structjob.statuses import StepStatus


class Reported(Protocol):
    """A job or step, as far as an event about its progress needs it."""

    scope: Scope | None

    @property
    def ended(self) -> bool: ...
    def reported(self) -> dict[str, Any]: ...


class OpenStep(Reported, Protocol):
    """A running step, as its job and the progress bars see it."""

    began: float
    completed: float
    duration_ms: float | None

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def parent_step_id(self) -> str | None: ...
    @property
    def status(self) -> StepStatus | None: ...
    @property
    def total(self) -> float | None: ...
    @property
    def percent(self) -> float | None: ...
    def record(self) -> int: ...
    def restate(self) -> None: ...
    def may_end(self, status: str) -> bool: ...
    def finish(self, status: str, exc: BaseException | None) -> None: ...
    def abandon(self, reason: str) -> None: ...


@dataclass(slots=True, eq=False)
class Shared:
    """The counts of a job's steps, and what is known for all of them together.

    Attributes:
        created: When the job was created, as the text of its column.
        begun: Number of steps begun.
        numbers: The numbers of the next steps.
        open: The running steps by id, in the order of their starts.
        completed: Number of completed steps.
        retried: Number of steps that were followed by another try.
        failed: The name of the first step that failed.
        current: The name of the step that started last, or the text that was reported instead.
        unreported: The job or step whose latest progress is not yet in an event.
        reported_at: When the job started, or when its last progress event was written.
        cut_reported: Whether a warning about a truncated value was logged.
    """

    created: str = field(default_factory=time_text)
    begun: int = 0
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    open: dict[str, OpenStep] = field(default_factory=dict)
    completed: int = 0
    retried: int = 0
    failed: str | None = None
    current: str | None = None
    unreported: Reported | None = None
    reported_at: float = 0.0
    cut_reported: bool = False

    def write_progress_event(self) -> None:
        """Write an event with the latest progress report of the job or one of its steps.

        The last event of a step that has ended contains it already.
        """
        core, self.unreported = self.unreported, None
        self.reported_at = time.monotonic()
        if core is not None and not core.ended and (attrs := core.reported()):
            emit(core.scope, "info", "progress", attrs, kind="progress")
