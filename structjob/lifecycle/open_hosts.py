"""The trackers that are open in this process, as jobs and steps see them."""

from __future__ import annotations

from collections.abc import Callable

from structjob.lifecycle.host import JobHost
from structjob.lifecycle.job_core import JobCore
from structjob.process import on_reset


class OpenHosts:
    """The open trackers of this process, in the order in which they were opened."""

    def __init__(self) -> None:
        self._hosts: tuple[JobHost[JobCore], ...] = ()

    def add(self, host: JobHost[JobCore]) -> None:
        """Add an open tracker."""
        self._hosts = (*self._hosts, host)

    def remove(self, host: JobHost[JobCore]) -> None:
        """Remove a closed tracker."""
        self._hosts = tuple(one for one in self._hosts if one is not host)

    def clear(self) -> None:
        """Remove all trackers."""
        self._hosts = ()

    def isolate(self) -> Callable[[], None]:
        """Remove all trackers; return a function that adds them again."""
        hosts, self._hosts = self._hosts, ()

        def restore() -> None:
            self._hosts = hosts

        return restore

    def of_database(self, database: str) -> JobHost[JobCore] | None:
        """Return an open tracker that records in *database*; None if there is no such tracker."""
        found = [host for host in self._hosts if host.recorder.session.database == database]
        return next((host for host in found if not host.recorder.forked), None) or next(
            iter(found), None
        )

    @property
    def first(self) -> JobHost[JobCore] | None:
        """The tracker that was opened first; None if no tracker is open.

        In a forked child, its own trackers precede those that it inherited.
        """
        for host in self._hosts:
            if not host.recorder.forked:
                return host
        return self._hosts[0] if self._hosts else None


OPEN_HOSTS = OpenHosts()
on_reset(OPEN_HOSTS.clear, OPEN_HOSTS.isolate)
