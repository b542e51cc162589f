"""The setup by `configure` and `install`: one object per process."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from structjob.capture.event import Encoder
from structjob.capture.fanout import FanOut
from structjob.context.errors import Classifier
from structjob.process import on_reset
from structjob.sinks.sink import Sink
from structjob.values.secret_rules import SecretRules


class Setup:
    """The logging setup of this process.

    Attributes:
        fan_out: The fan-out of `configure`; ``None`` if structlog is set up in another way.
        processors: The list that `configure` gave structlog. Cached loggers hold it, so it is
            changed in place.
        renamer: The processor that renames the message before `record_event` sees it; set by
            `install`.
        inserted: The processors that `install` inserted, each with its list.
        watched: Whether structlog's processors are expected to record, since `configure` or
            `install` was called.
        warned: Whether they do not record, and a warning was logged.
        overlooked: Whether a program that tracks jobs may have forgotten `configure` and `install`.
            False once a warning was logged, and on the command line of structjob.
    """

    __slots__ = (
        "_installed",
        "_kept",
        "fan_out",
        "inserted",
        "overlooked",
        "processors",
        "renamer",
        "warned",
        "watched",
    )

    def __init__(self) -> None:
        self.processors: list[Any] = []
        self._kept: list[FanOut] = []
        self._begin()

    def _begin(self) -> None:
        self.fan_out: FanOut | None = None
        self._installed = Encoder(SecretRules())
        self.renamer: structlog.processors.EventRenamer | None = None
        self.inserted: list[tuple[list[Any], Any]] = []
        self.watched = self.warned = False
        self.overlooked = True

    def watch(self) -> None:
        """Expect structlog's processors to record from now on."""
        self.watched, self.warned, self.overlooked = True, False, False

    @property
    def encoder(self) -> Encoder:
        """The encoder of events that are recorded without a structlog processor."""
        return self.fan_out.encoder if self.fan_out is not None else self._installed

    @encoder.setter
    def encoder(self, encoder: Encoder) -> None:
        self._installed = encoder

    @property
    def redactor(self) -> SecretRules | None:
        """The redactor of `configure`, or else of `install`.

        It is ``None`` if secrets are not removed.
        """
        return self.encoder.redactor

    @property
    def classifier(self) -> Classifier | None:
        """The classifier of an error's fields, from `configure` or else from `install`."""
        return self.encoder.classifier

    def reset(self) -> None:
        """Undo the changes of `configure` and `install` to structlog, and close the sinks."""
        for processors, processor in self.inserted:
            if processor in processors:
                processors.remove(processor)
        ours = structlog.get_config()["processors"] is self.processors
        if ours:
            structlog.reset_defaults()
        # Cached loggers hold the list: they now print in the same way as structlog does by default.
        self.processors[:] = structlog.get_config()["processors"] if ours else ()
        former = self.fan_out
        self._begin()
        if former is not None:
            self.close(former)

    def close(self, fan_out: FanOut, *, but: Sequence[Sink] = ()) -> None:
        """Close a fan-out that is replaced, unless it is put back at the end of a test.

        Args:
            fan_out: The fan-out.
            but: Sinks that stay open.
        """
        if fan_out not in self._kept:
            fan_out.close(but=but)

    def isolate(self) -> Callable[[], None]:
        """Return a function that puts back the present setup of structlog and of this library."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "_kept"}
        fields |= {"inserted": list(self.inserted)}
        configured, config = structlog.is_configured(), structlog.get_config()
        # Cached loggers hold these lists, so they are changed in place.
        lists = [self.processors, *(processors for processors, _ in self.inserted)]
        if isinstance(config["processors"], list):
            lists.append(config["processors"])
        contents = [(processors, list(processors)) for processors in lists]
        if self.fan_out is not None:
            self._kept.append(self.fan_out)

        def restore() -> None:
            if self.fan_out is not fields["fan_out"]:
                self.reset()
            for processors, content in contents:
                processors[:] = content
            for name, value in fields.items():
                setattr(self, name, value)
            if self.fan_out is not None:
                self._kept.remove(self.fan_out)
            if configured:
                structlog.configure(**config)
            else:
                structlog.reset_defaults()
            if not self.processors:  # loggers of the test print as structlog does by default
                self.processors[:] = structlog.get_config()["processors"]

        return restore


SETUP = Setup()
on_reset(SETUP.reset, SETUP.isolate)


def _fan_out() -> FanOut:
    return SETUP.fan_out or FanOut()


# A pickled bound logger includes its processors. Sinks hold files, so the process that unpickles it
# uses its own fan-out.
copyreg.pickle(FanOut, lambda _: (_fan_out, ()))
