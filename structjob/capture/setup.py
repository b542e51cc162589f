"""What `configure` and `install` have set up: one object for the process."""

from __future__ import annotations

import copyreg
from typing import Any

import structlog

from structjob.capture.event import Encoder
from structjob.capture.fanout import FanOut
from structjob.context.errors import Classifier
from structjob.process import on_reset
from structjob.values.redaction import Redactor


class Setup:
    """How logging is set up in this process.

    Attributes:
        fan_out: What `configure` has set up; ``None`` where structlog is set up in another way.
        processors: The list that `configure` gave structlog. Loggers that are cached hold it, so
            it is changed in place.
        renamer: What gives the message another name before `record_event` sees it; `install` finds
            out.
        inserted: What `install` put into which list of processors.
        watched: Whether structlog's processors are expected to record, since `configure` or
            `install` was called.
        warned: Whether they do not, and a warning has said so.
    """

    __slots__ = (
        "_installed",
        "fan_out",
        "inserted",
        "processors",
        "renamer",
        "warned",
        "watched",
    )

    def __init__(self) -> None:
        self.processors: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        self.fan_out: FanOut | None = None
        self._installed = Encoder(Redactor())
        self.renamer: structlog.processors.EventRenamer | None = None
        self.inserted: list[tuple[list[Any], Any]] = []
        self.watched = self.warned = False

    def watch(self) -> None:
        """Expect structlog's processors to record from now on."""
        self.watched, self.warned = True, False

    @property
    def encoder(self) -> Encoder:
        """What events pass that are recorded without a processor of structlog's."""
        return self.fan_out.encoder if self.fan_out is not None else self._installed

    @encoder.setter
    def encoder(self, encoder: Encoder) -> None:
        self._installed = encoder

    @property
    def redactor(self) -> Redactor | None:
        """What takes secrets out, as `configure` or else `install` was told; ``None``: nothing
        does.
        """
        return self.encoder.redactor

    @property
    def classifier(self) -> Classifier | None:
        """What derives the fields of an error, as `configure` or else `install` was told."""
        return self.encoder.classifier

    def reset(self) -> None:
        """Undo what `configure` and `install` did to structlog, and close the sinks."""
        for processors, processor in self.inserted:
            if processor in processors:
                processors.remove(processor)
        ours = structlog.get_config()["processors"] is self.processors
        if ours:
            structlog.reset_defaults()
        # Loggers that are cached hold the list: they print as structlog does by default.
        self.processors[:] = structlog.get_config()["processors"] if ours else ()
        former = self.fan_out
        self._begin()
        if former is not None:
            former.close()


SETUP = Setup()
on_reset(SETUP.reset)


def _fan_out() -> FanOut:
    return SETUP.fan_out or FanOut()


# A bound logger that is pickled takes its processors along. Sinks hold files: where it arrives, it
# uses those of that process.
copyreg.pickle(FanOut, lambda _: (_fan_out, ()))
