"""Worker processes of `multiprocessing` and `concurrent.futures` that record what they log.

A worker that is spawned inherits no tracker, and what it logs would be lost. With
`worker_initializer` each worker has a tracker of its own on the same database. Which job a call
belongs to, `structjob.ContextExecutor` tells it.
"""

from __future__ import annotations

from typing import Any

from structjob.capture.configure import configure
from structjob.capture.setup import SETUP
from structjob.store.url import parse
from structjob.tracker import Tracker

_CLOSES = 5
"""Priority among the exit handlers of `multiprocessing`: before those of queues, which the
program's own may use still.
"""


def worker_initializer(url: str | None = None, **options: Any) -> WorkerInitializer:
    """Return an initializer for worker processes: it opens a tracker, which is closed when the
    worker ends.

    ``ProcessPoolExecutor(initializer=structjob.worker_initializer(url))``, or
    ``multiprocessing.Pool(initializer=…)``, with any start method. It calls
    ``structjob.configure(console=False)``, unless logging is set up in the worker already.

    Args:
        url: The database, as `Tracker` takes it.
        options: Those of `Tracker`; they are pickled.

    Raises:
        InvalidArgument: if `Tracker` would not take an option.
        InvalidURL: if *url* is invalid.
    """
    # Now, so that what is wrong is said here, and not by a broken pool.
    parse(url)
    Tracker(url, **options)
    return WorkerInitializer(url, options)


class WorkerInitializer:
    """What `worker_initializer` returns."""

    def __init__(self, url: str | None, options: dict[str, Any]) -> None:
        self._url = url
        self._options = options

    def __call__(self) -> None:
        """Open the tracker of this process."""
        from multiprocessing.util import Finalize

        if not SETUP.watched:
            configure(console=False)
        tracker = Tracker(self._url, **self._options).__enter__()
        # Workers end without the interpreter's own exit handlers.
        Finalize(None, tracker.close, exitpriority=_CLOSES)
