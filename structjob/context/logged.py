"""The last exception that was logged in a request.

A web framework answers an exception of the program with a status such as 500 and logs the
exception. The job of the request has failed by that exception, although it never sees it.
"""

from __future__ import annotations

from structjob.process import on_reset

_watched: dict[str, BaseException | None] = {}
on_reset(_watched.clear)


def watch(job_id: str) -> None:
    """Keep the last exception that is logged as an error in this job, until `logged` is called."""
    _watched[job_id] = None


def note(job_id: str, exc: BaseException) -> None:
    """Keep an exception that was logged as an error in this job, if the job is watched."""
    if job_id in _watched:
        _watched[job_id] = exc


def logged(job_id: str) -> BaseException | None:
    """Return the last exception that was logged in a watched job, and end its watch."""
    return _watched.pop(job_id, None)
