"""The outcome of a program, and the exceptions that report one that is not a success."""

from __future__ import annotations

from dataclasses import dataclass

from structjob.exceptions import StructjobError
from structjob.text.lines import last_words


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResult:
    """The outcome of a program.

    Attributes:
        returncode: The exit code; ``-N`` if signal N ended the program.
        signal: The name of the signal that ended it, such as ``SIGKILL``.
        seconds: The running time in seconds.
        cpu_seconds: The CPU time of the program and of the children that it waited for, in seconds.
        max_rss_kb: The peak memory in kilobytes; ``None`` if it is not known, as of a program that
            ended at once and needed less than this process.
        timed_out: Whether it was ended because of the timeout.
        left: Whether processes that it left behind hold its output. They continue to run, and their
            later output is not recorded.
        lines: The number of recorded lines.
        tail: The last 100 lines of both streams, without secrets.
    """

    returncode: int
    signal: str | None
    seconds: float
    cpu_seconds: float
    max_rss_kb: int | None
    timed_out: bool
    left: bool
    lines: int
    tail: tuple[str, ...]


class CommandFailed(StructjobError):
    """A program run by `Job.run_process` ended with an exit code other than 0.

    Attributes:
        result: The outcome, a `ProcessResult`. *returncode*, *signal* and *tail* are its fields.
    """

    __module__ = "structjob"  # tracebacks show the name that programs import

    def __init__(self, name: str, result: ProcessResult) -> None:
        super().__init__(f"{name} {self._how(result)}{_last_line(result.tail)}")
        self.result = result

    def _how(self, result: ProcessResult) -> str:
        if result.signal is not None:
            return f"was ended by {result.signal}"
        return f"ended with exit code {result.returncode}"

    @property
    def returncode(self) -> int:
        """The exit code; ``-N`` if signal N ended the program."""
        return self.result.returncode

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended the program."""
        return self.result.signal

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of the output."""
        return self.result.tail


class CommandTimeout(CommandFailed, TimeoutError):
    """A program run by `Job.run_process` was ended because of the timeout."""

    __module__ = "structjob"

    def __init__(self, name: str, result: ProcessResult, seconds: float | None) -> None:
        self._seconds = seconds
        super().__init__(name, result)

    def _how(self, result: ProcessResult) -> str:
        return f"took longer than {self._seconds:g} s and was ended"


def _last_line(tail: tuple[str, ...]) -> str:
    last = last_words(tail)
    return f": {last[:200]}" if last else ""
