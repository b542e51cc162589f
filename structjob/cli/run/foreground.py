"""The terminal, lent to a program below us when it wants to read from it, and taken back."""

from __future__ import annotations

import contextlib
import os
import signal


class Foreground:
    """Who may use the controlling terminal.

    The program runs in a process group of its own, so that a signal reaches all of it. To the
    terminal that is a background group: reading stops it. Then, and not before, it becomes the
    foreground group: a pager behind us in a pipeline needs the terminal as well.
    """

    def __init__(self) -> None:
        self.lent = False
        try:
            self._fd: int | None = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self._fd = None

    @property
    def ours(self) -> bool:
        """Whether we are in the foreground ourselves, and may lend it."""
        try:
            return self._fd is not None and os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return False

    @property
    def present(self) -> bool:
        """Whether there is a terminal."""
        return self._fd is not None

    def lend(self, group: int) -> bool:
        """Make the process group *group* the foreground's, if it is ours to give."""
        if self.ours and self._fd is not None:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._fd, group)
                self.lent = True
                return True
        return False

    def take_back(self) -> None:
        """Be the foreground group again."""
        if self.lent and self._fd is not None:
            self.lent = False
            # A background group that sets the foreground group is stopped for it, unless it ignores
            # that.
            previous = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            try:
                with contextlib.suppress(OSError):
                    os.tcsetpgrp(self._fd, os.getpgrp())
            finally:
                signal.signal(signal.SIGTTOU, previous)

    def close(self) -> None:
        """Let go of the terminal."""
        self.take_back()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
