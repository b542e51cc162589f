"""An event loop in a thread of its own, for a tracker in code without a loop."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from structjob.diagnostics import diagnostics
from structjob.exceptions import StoreUnavailable
from structjob.machine.loops import require_early_patches
from structjob.machine.promise import run_on

T = TypeVar("T")

_CLOSED_FILES = (errno.EBADF, errno.EINVAL)
"""Errors of a loop whose descriptors were closed, or belong to other files now."""

_KEPT: list[object] = []
"""Such loops and their tasks: they would close these descriptors when they are deleted."""

_CANNOT_RUN = (
    "the tracker's event loop cannot run: %s (has the program closed files that are not its own?); "
    "what is logged waits in the spool, and the next tracker delivers it"
)

_LOST = "the program has closed files that are not its own, and the tracker's event loop needs them"

_RETRY_INTERVAL = 1.0
"""Seconds until a loop that failed itself is run again."""


class LoopThread:
    """A running event loop. Its thread is a daemon and never keeps a process from ending.

    Raises:
        InvalidState: if gevent's patches came too late.
    """

    def __init__(self) -> None:
        require_early_patches()
        self._runner = asyncio.Runner()
        self.loop = self._runner.get_loop()
        self._stopped = False
        self.lost = False
        """Whether its files were closed by the program."""
        self._thread = threading.Thread(target=self._serve, name="structjob-loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        warned = False
        while not self._stopped:
            try:
                self.loop.run_forever()
            except Exception as exc:  # noqa: BLE001 -- not of a callback: the loop itself fails
                if self._give_up(exc):
                    diagnostics.error(_CANNOT_RUN, exc)
                    return
                if not warned:
                    warned = True
                    diagnostics.error(_CANNOT_RUN, exc)
                time.sleep(_RETRY_INTERVAL)
            except BaseException:  # noqa: BLE001 -- for example `sys.exit()` in a listener: delivery continues
                diagnostics.exception("structjob: a callback ended the tracker's loop; it goes on")
        with suppress(Exception):
            self._runner.close()

    def _give_up(self, exc: Exception) -> bool:
        """Leave the loop if *exc* says that the program has closed its files: it can never run
        again. Return whether it was left.

        They are not closed here, because their numbers may be files of the program by now.
        """
        if not isinstance(exc, OSError) or exc.errno not in _CLOSED_FILES:
            return False
        if not isinstance(self.loop, asyncio.BaseEventLoop):  # uvloop's closes its files itself
            return False
        _KEPT.extend((self.loop, asyncio.all_tasks(self.loop)))
        self.lost = True
        asyncio.BaseEventLoop.close(self.loop)
        return True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what *work* returns. It runs in the caller's context.

        Raises:
            StoreUnavailable: if the loop has lost its files.
        """
        return run_on(self.loop, work, fault=lambda: StoreUnavailable(_LOST) if self.lost else None)

    def stop(self, seconds: float) -> None:
        """Stop the loop and close it; wait *seconds* at most for that."""
        self._stopped = True
        with suppress(RuntimeError):  # it is closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)
