"""The watchdog: a thread that sends heartbeats while one very long callback blocks the loop.

The loop's own task and this thread cover each other: a loop that is busy with short callbacks
starves every thread, and one long callback starves every task.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from structjob.diagnostics import diagnostics

_now = time.monotonic


class Watchdog:
    """Sends heartbeats in place of the loop.

    Args:
        beat: Sends a heartbeat; called in the thread; may block and raise.
        heartbeat: Seconds between two heartbeats.
    """

    def __init__(self, beat: Callable[[], None], heartbeat: float) -> None:
        self._beat = beat
        self._heartbeat = heartbeat
        self._fed = _now()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to watch; do nothing if it is already watching."""
        if self._thread is None:
            # A daemon: it must not keep the program alive, and has no data to lose.
            self._thread = threading.Thread(
                target=self._watch, name="structjob-watchdog", daemon=True
            )
            self._thread.start()

    def feed(self) -> None:
        """Report, from the loop, that the loop is not blocked."""
        self._fed = _now()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._heartbeat):
            if _now() - self._fed >= 2 * self._heartbeat:
                try:
                    self._beat()
                except Exception as exc:  # noqa: BLE001 -- the next beat tries again; the loop reports what is wrong with the database
                    diagnostics.debug("the watchdog could not say that the session lives: %s", exc)
