"""The tracker of a process: opened once, and closed when the interpreter exits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

from structjob.capture.configure import configure
from structjob.capture.setup import SETUP
from structjob.diagnostics import diagnostics
from structjob.process import on_reset
from structjob.tracker import Tracker, TrackerKeywords

if TYPE_CHECKING:
    from sqlalchemy import URL


class ProcessTrackers:
    """The trackers that `init` has opened, by URL."""

    def __init__(self) -> None:
        self._opened: dict[str, tuple[Tracker, TrackerKeywords]] = {}
        self.reset()

    def get(self, url: str | os.PathLike[str] | URL | None, options: TrackerKeywords) -> Tracker:
        """Return the open tracker of *url*. Open one if there is no open tracker."""
        from structjob.urls.url import parse

        key = parse(url).render_as_string(hide_password=False)
        if self._pid != os.getpid():  # another thread may have held the lock at the fork
            self.reset()
        with self._lock:
            tracker, former = self._opened.get(key, (None, {}))
            if tracker is not None and tracker.is_open:
                if options and options != former:
                    diagnostics.warning(
                        "structjob.init() was called before for %r, and its tracker is open: "
                        "options of this call are ignored",
                        tracker,
                    )
                return tracker
            tracker = Tracker(url, **options)
            if not SETUP.watched:
                configure()
            tracker.__enter__()  # it is closed when the interpreter exits
            self._opened[key] = tracker, options
            return tracker

    def reset(self) -> None:
        """Forget all trackers."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._opened.clear()

    def isolate(self) -> Callable[[], None]:
        """Forget all trackers; return a function that remembers them again."""
        opened = dict(self._opened)
        self.reset()

        def restore() -> None:
            self.reset()
            self._opened.update(opened)

        return restore


_trackers = ProcessTrackers()
on_reset(_trackers.reset, _trackers.isolate)


def init(
    url: str | os.PathLike[str] | URL | None = None, **options: Unpack[TrackerKeywords]
) -> Tracker:
    """Open a tracker for the rest of the process, in code without an event loop.

    It is meant for Django's ``AppConfig.ready``, the start of a worker, or a notebook. It calls
    `structjob.configure` unless that or `structjob.install` was called before. The tracker is
    closed when the interpreter exits. Jobs that are running then are recorded as cancelled.

    ::

        tracker = structjob.init("sqlite:///jobs.db")
        with tracker.job("nightly"):
            ...

    Args:
        url: See `Tracker`. A second call with the same URL returns the tracker of the first call,
            as long as that is open. A forked process gets its own tracker.
        options: See `Tracker`.

    Raises:
        InvalidArgument: if an option is invalid.
        SchemaMismatch: see `Tracker.open`, also for the other exceptions.
    """
    return _trackers.get(url, options)
