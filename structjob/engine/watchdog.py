"""The watchdog: a thread that beats the heart while the loop does not get to it, because one
callback takes very long.

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
    """Beats in the loop's place.

    Args:
        beat: Says that the session lives; called in the thread, may block and raise.
        heartbeat: Seconds between two beats.
    """

    def __init__(self, beat: Callable[[], None], heartbeat: float) -> None:
        self._beat = beat
        self._heartbeat = heartbeat
        self._fed = _now()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch; harmless if it does already."""
        if self._thread is None:
            # It must not keep the program alive, and has nothing to lose.
            self._thread = threading.Thread(
                target=self._watch, name="structjob-watchdog", daemon=True
            )
            self._thread.start()

    def feed(self) -> None:
        """Say, in the loop, that the loop gets to it."""
        self._fed = _now()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._heartbeat):
            if _now() - self._fed >= 2 * self._heartbeat:
                try:
                    self._beat()
                except Exception as exc:  # noqa: BLE001 -- it tries again; the loop tells what is wrong with the database
                    diagnostics.debug("the watchdog could not say that the session lives: %s", exc)
