"""A fork waits until no thread is within SQLite: its library has locks of its own, and a child
would inherit them held, for ever.
"""

from __future__ import annotations

import threading
from types import TracebackType

from structjob.process import at_fork

_PATIENCE = 1.0
"""Seconds that a fork waits at most. A query that takes longer is forked through, as it would be
without us.
"""


class _Gate:
    """Lets calls in, unless a fork is about to happen; not to be entered twice by one thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._condition:
            while self._shut:
                self._condition.wait()
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._condition:
            self._inside -= 1
            self._condition.notify_all()

    def shut(self) -> None:
        """Keep everybody out; return when nobody is inside, or patience has ended."""
        with self._condition:
            self._shut = True
            self._condition.wait_for(lambda: not self._inside, _PATIENCE)

    def open(self) -> None:
        """Let them in again."""
        with self._condition:
            self._shut = False
            self._condition.notify_all()

    def renew(self) -> None:
        """Begin anew in a child, where none of the threads is that were at the gate."""
        self.__init__()  # type: ignore[misc]  # its lock may be held by one of them


within_sqlite = _Gate()
"""To be held during each call into SQLite."""

at_fork(
    "sqlite",
    before=within_sqlite.shut,
    in_parent=within_sqlite.open,
    in_child=within_sqlite.renew,
)
