"""Delay a fork until no thread is inside SQLite.

SQLite has internal locks. A child process would inherit held locks, which are never released.
"""

from __future__ import annotations

import threading

from structjob.process import at_fork

_FORK_TIMEOUT = 1.0
"""Maximum time that a fork waits, in seconds. Longer queries do not delay the fork further."""


class _Gate:
    """A gate that admits calls, except while a fork is about to happen.

    A thread must not enter it twice.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._condition:
            while self._shut:
                self._condition.wait()
            self._inside += 1

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        with self._condition:
            self._inside -= 1
            self._condition.notify_all()

    def shut(self) -> None:
        """Block new calls, and return when no call is inside or the timeout is over."""
        with self._condition:
            self._shut = True
            self._condition.wait_for(lambda: not self._inside, _FORK_TIMEOUT)

    def open(self) -> None:
        """Admit calls again."""
        with self._condition:
            self._shut = False
            self._condition.notify_all()

    def renew(self) -> None:
        """Reset the gate in a child process, where the threads that used it do not exist."""
        self.__init__()  # type: ignore[misc]  # a lost thread may hold its lock


within_sqlite = _Gate()
"""Held during each call into SQLite."""

at_fork(
    "sqlite", before=within_sqlite.shut, in_parent=within_sqlite.open, in_child=within_sqlite.renew
)
