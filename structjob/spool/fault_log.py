"""The log of Python's `faulthandler` in a session's directory: why a process died of a signal.

The process that finds the session's jobs crashed reads it; see `structjob.engine.crash`.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from structjob.diagnostics import faults
from structjob.machine.files import open_directly, set_apart
from structjob.process import on_reset

_NAME = "fault.log"
_MOST = 16 * 1024
"""Maximum bytes that are read of it, the last ones."""
_TITLE, _THREAD = "Fatal Python error: ", "Current thread "


@dataclass(frozen=True, slots=True)
class Fault:
    """What the log of a dead process says.

    Attributes:
        reason: Why it died, such as ``Segmentation fault``.
        stack: The reason, and the stack of the thread in which it happened.
        log: Everything, with the stacks of the other threads.
    """

    reason: str
    stack: str
    log: str


class FaultLog:
    """Lets the `faulthandler` of this process write to the directory of an open session."""

    def __init__(self) -> None:
        self._wanted = False
        self._directories: list[Path] = []
        self._file: IO[bytes] | None = None

    def start(self) -> None:
        """Write to the first session that is open, now or later.

        Does nothing while the program itself has enabled the `faulthandler`.
        """
        self._wanted = True
        self._enable()

    def stop(self) -> None:
        """Undo `start`."""
        self._wanted = False
        self._disable()

    def add(self, directory: Path) -> None:
        """Add the directory of a session that opens."""
        self._directories.append(directory)
        self._enable()

    def remove(self, directory: Path) -> None:
        """Remove the directory of a session that closes."""
        if directory in self._directories:
            written = self._directories.index(directory) == 0
            self._directories.remove(directory)
            if written:
                self._disable()
                self._enable()

    def forget(self) -> None:
        """Forget all sessions. In a forked child: if it dies, that says nothing about its
        parent.
        """
        self._directories.clear()
        self._disable()

    def reset(self) -> None:
        """Return to the state after import."""
        self.forget()
        self.stop()

    def isolate(self) -> Callable[[], None]:
        """Forget all sessions; return a function that puts them back."""
        wanted, directories = self._wanted, list(self._directories)
        self.forget()

        def restore() -> None:
            self.forget()
            self._wanted, self._directories = wanted, directories
            self._enable()

        return restore

    def _enable(self) -> None:
        if (
            not self._wanted
            or self._file is not None
            or not self._directories
            or faulthandler.is_enabled()
        ):
            return
        try:
            path = self._directories[0] / _NAME
            self._file = open(  # noqa: SIM115 -- open while the session is
                set_apart(open_directly(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)),
                "ab",
                buffering=0,
            )
            faulthandler.enable(self._file)
        except OSError as exc:
            faults.add("opening the log of the faulthandler", exc)

    def _disable(self) -> None:
        if self._file is not None:
            faulthandler.disable()
            with suppress(OSError):  # the program may have closed it
                self._file.close()
            self._file = None


FAULT_LOG = FaultLog()
on_reset(FAULT_LOG.reset, FAULT_LOG.isolate)


def read_fault(directory: Path) -> Fault | None:
    """Return what the log in the *directory* of a dead session says, or None."""
    try:
        with open(open_directly(directory / _NAME, os.O_RDONLY), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST))
            text = file.read(_MOST).decode("utf-8", "replace").strip()
    except OSError:
        return None
    if not text:
        return None
    # The last dump counts, if there are several.
    title = next((line for line in reversed(text.splitlines()) if line.startswith(_TITLE)), "")
    at = text.rfind(_THREAD)
    thread = text[at:].partition("\n\n")[0]
    stack = f"{title}\n\n{thread}".lstrip() if at >= 0 else text
    return Fault(title.removeprefix(_TITLE), stack, text)
