"""Lends the terminal to a child program when it wants to read from it, and takes it back."""

from __future__ import annotations

import contextlib
import os
import signal


class Foreground:
    """Decides which process group may use the controlling terminal.

    The program runs in its own process group, so that a signal reaches all of its processes. For
    the terminal this is a background group: reading stops it. Only then it becomes the foreground
    group, because a pager after us in a pipeline needs the terminal as well.
    """

    def __init__(self) -> None:
        self.lent = False
        try:
            self._fd: int | None = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self._fd = None

    @property
    def ours(self) -> bool:
        """Whether this process is in the foreground, and so can lend the terminal."""
        try:
            return self._fd is not None and os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return False

    @property
    def present(self) -> bool:
        """Whether there is a terminal."""
        return self._fd is not None

    def lend(self, group: int) -> bool:
        """Make the process group *group* the foreground group, if this process is in the
        foreground.
        """
        if self.ours and self._fd is not None:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._fd, group)
                self.lent = True
                return True
        return False

    def take_back(self) -> None:
        """Become the foreground group again."""
        if self.lent and self._fd is not None:
            self.lent = False
            # Setting the foreground group stops a background group, unless it ignores SIGTTOU.
            previous = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            try:
                with contextlib.suppress(OSError):
                    os.tcsetpgrp(self._fd, os.getpgrp())
            finally:
                signal.signal(signal.SIGTTOU, previous)

    def close(self) -> None:
        """Take the terminal back and close it."""
        self.take_back()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
