"""The exceptions that structjob raises: one root, and one class per situation that a caller can
handle.
"""

from __future__ import annotations

from typing import Any, TypeVar


class StructjobError(Exception):
    """The root of all exceptions that structjob raises deliberately.

    The message names the thing, what is wrong with it, and what to do. Passwords in it are masked.
    The exception can be copied and pickled without loss.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling through the constructor would fail, because its arguments are not those of
        # `BaseException`.
        return _restored, (type(self), self.args, dict(self.__dict__))


E = TypeVar("E", bound=StructjobError)


def _restored(kind: type[E], args: tuple[Any, ...], attributes: dict[str, Any]) -> E:
    exc = kind.__new__(kind, *args)
    exc.args = args
    exc.__dict__.update(attributes)
    return exc


class InvalidArgument(StructjobError, ValueError):
    """An argument is outside the range that the called function accepts. Nothing was changed."""


class InvalidFilter(InvalidArgument):
    """A query's filter is unknown, or its value is not accepted."""


class InvalidURL(InvalidArgument):
    """A database URL is invalid, or names a database that structjob does not support."""


class AmbiguousId(InvalidArgument):
    """Several ids or fingerprints begin, or end, with the given text. The message lists them."""


class JobNotFound(StructjobError, LookupError):
    """No job has this id, external id or context id.

    Args:
        any_id: The id.
        hint: What to call instead, for the message.
    """

    def __init__(self, any_id: str, hint: str | None = None) -> None:
        super().__init__(
            f"job not found: {any_id or 'the id is empty'}{f'; {hint}' if hint else ''}"
        )
        self.any_id = any_id


class EventNotFound(StructjobError, LookupError):
    """No event with the given session id and number is stored."""

    def __init__(self, session_id: int, seq: int, reason: str | None = None) -> None:
        why = (
            f"its number is recorded as {reason}"
            if reason is not None
            else "an event is named by its `session_id` and `seq`"
        )
        super().__init__(f"event not found: {session_id}:{seq}; {why}")
        self.session_id = session_id
        self.seq = seq
        self.reason = reason


class SessionNotFound(StructjobError, LookupError):
    """No session has the given id."""

    def __init__(self, session_id: int) -> None:
        super().__init__(f"session not found: {session_id}")
        self.session_id = session_id


class ErrorGroupNotFound(StructjobError, LookupError):
    """No error has the given fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(f"no error has the fingerprint {fingerprint}")
        self.fingerprint = fingerprint


class ImportRefused(StructjobError, ValueError):
    """A file cannot be imported. The message names the line. Nothing from the file is stored."""


class InvalidState(StructjobError):
    """A job or step cannot change from its present status to the requested one."""


class NotOpen(StructjobError, RuntimeError):
    """The tracker is not open: it was not entered yet, or is already closed."""


class StoreUnavailable(StructjobError):
    """The database is unavailable. Accepted events stay in the spool and are delivered later.

    Args:
        message: What is wrong, and what to do.
        permanent: Whether someone has to fix it (a wrong password, a missing table); waiting does
            not help.
        refused: Whether the database answers but refuses the content that it was given.
        gone: Whether the opened database, or a table in it, no longer exists. It must be opened
            again.
    """

    def __init__(
        self, message: str, *, permanent: bool = False, refused: bool = False, gone: bool = False
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.refused = refused
        self.gone = gone


class QueryTimeout(StructjobError, TimeoutError):
    """A query took longer than its reader allows, and was stopped; see `structjob.Reader`.

    Args:
        masked_url: The database, without its password.
        seconds: The time limit of the query.
    """

    def __init__(self, masked_url: str, seconds: float) -> None:
        super().__init__(
            f"a query of {masked_url} was stopped after {seconds:g} s: ask for less, such as a shorter span of time, or give the reader "
            "a longer timeout"
        )
        self.seconds = seconds


class PruneInProgress(StructjobError):
    """Another process is pruning now. Only one process can prune at a time."""


class SchemaMismatch(StructjobError):
    """The database is not structjob's, or its tables belong to another version of structjob.

    Args:
        message: What is wrong, and what to do.
        absent: Whether there are no tables of structjob at all; the first tracker creates them.
        older: Whether the tables belong to an older version of structjob, and can be upgraded.
    """

    def __init__(self, message: str, *, absent: bool = False, older: bool = False) -> None:
        super().__init__(message)
        self.absent = absent
        self.older = older


class SpoolError(StructjobError, OSError):
    """The spool directory cannot be used: not writable, not ours, or not a directory."""


class JobCancelled(StructjobError):
    """A pending job was cancelled and does not start. The message contains the reason."""


class Cancelled(BaseException):
    """A job that runs without a task (``with tracker.job(…)``) was asked to stop.

    The message is the reason. The class is not an `Exception`, so that ``except Exception`` does
    not swallow the request.
    """


class Terminated(SystemExit):
    """SIGTERM arrived while the main thread was in ``with structjob.Tracker(…)``; it is raised
    there.

    The blocks are left in order and jobs are recorded as cancelled. The process then dies of the
    signal. If it does not, its exit code is 143.
    """

    def __init__(self, code: int = 143) -> None:
        super().__init__(code)

    def __str__(self) -> str:
        return "SIGTERM"


# Users import them from `structjob`, so tracebacks and pickles name that.
for _kind in [*globals().values()]:
    if isinstance(_kind, type) and issubclass(_kind, BaseException):
        _kind.__module__ = "structjob"
