"""Worker processes of `multiprocessing` and `concurrent.futures` that record what they log.

A spawned worker inherits no tracker, and what it logs would be lost. With `worker_initializer`,
each worker has its own tracker on the same database. `structjob.ContextExecutor` passes the job of
each call to the worker.
"""

from __future__ import annotations

from typing import Unpack

from structjob.capture.configure import configure
from structjob.capture.setup import SETUP
from structjob.tracker import Tracker, TrackerKeywords
from structjob.urls.url import parse

_CLOSES = 5
"""Priority among the exit handlers of `multiprocessing`: before those of queues, which the
program's own handlers may still use.
"""


def worker_initializer(
    url: str | None = None, **options: Unpack[TrackerKeywords]
) -> WorkerInitializer:
    """Return an initializer for worker processes, which opens a tracker.

    The tracker is closed when the worker ends. Use it as
    ``ProcessPoolExecutor(initializer=structjob.worker_initializer(url))`` or
    ``multiprocessing.Pool(initializer=…)``, with any start method. It calls
    ``structjob.configure(console=False)``, unless logging is already configured in the worker.

    Args:
        url: The database; see `Tracker`.
        options: Options of `Tracker`; they are pickled.

    Raises:
        InvalidArgument: if `Tracker` does not accept an option.
        InvalidURL: if *url* is invalid.
    """
    # Check now, so that the error is raised here, and not as a broken pool.
    parse(url)
    Tracker(url, **options)
    return WorkerInitializer(url, options)


class WorkerInitializer:
    """The initializer that `worker_initializer` returns."""

    def __init__(self, url: str | None, options: TrackerKeywords) -> None:
        self._url = url
        self._options = options

    def __call__(self) -> None:
        """Open the tracker of this process."""
        from multiprocessing.util import Finalize

        if not SETUP.watched:
            configure(console=False)
        tracker = Tracker(self._url, **self._options).__enter__()
        # Workers end without running the interpreter's own exit handlers.
        Finalize(None, tracker.close, exitpriority=_CLOSES)
