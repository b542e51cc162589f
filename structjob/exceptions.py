"""The exceptions that structjob raises: one root, one class per situation a caller can act upon."""

from __future__ import annotations

from typing import Any, TypeVar


class StructjobError(Exception):
    """Root of every exception that structjob raises on purpose.

    The message names the thing, says what is wrong with it and what to do; passwords in it are
    masked. Copied or pickled, it is the same.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by its constructor, whose arguments are not those of `BaseException`.
        return _restored, (type(self), self.args, dict(self.__dict__))


E = TypeVar("E", bound=StructjobError)


def _restored(kind: type[E], args: tuple[Any, ...], attributes: dict[str, Any]) -> E:
    exc = kind.__new__(kind, *args)
    exc.args = args
    exc.__dict__.update(attributes)
    return exc


class InvalidArgument(StructjobError, ValueError):
    """An argument is outside what the called function accepts; nothing was changed."""


class InvalidFilter(InvalidArgument):
    """A filter of a query is unknown, or its value is not one the filter accepts."""


class InvalidURL(InvalidArgument):
    """A database URL cannot be understood, or names a database structjob has no store for."""


class JobNotFound(StructjobError, LookupError):
    """No job has this id, external id or context id.

    Args:
        any_id: The id.
        hint: What to call instead, for the message.
    """

    def __init__(self, any_id: str, hint: str | None = None) -> None:
        super().__init__(f"job not found: {any_id}{f'; {hint}' if hint else ''}")
        self.any_id = any_id


class EventNotFound(StructjobError, LookupError):
    """No event with the given session and number is stored."""

    def __init__(self, session_id: int, seq: int, reason: str | None = None) -> None:
        why = (
            f"its number is put down as {reason}"
            if reason is not None
            else "an event is named by its `session_id` and `seq`"
        )
        super().__init__(f"event not found: {session_id}:{seq}; {why}")
        self.session_id = session_id
        self.seq = seq
        self.reason = reason


class SessionNotFound(StructjobError, LookupError):
    """No session has the given number."""

    def __init__(self, session_id: int) -> None:
        super().__init__(f"session not found: {session_id}")
        self.session_id = session_id


class ErrorGroupNotFound(StructjobError, LookupError):
    """No error has the given fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(f"no error has the fingerprint {fingerprint}")
        self.fingerprint = fingerprint


class ImportRefused(StructjobError, ValueError):
    """A file cannot be imported; the message names the line. Nothing of it is stored."""


class InvalidState(StructjobError):
    """A job or step was told to enter a status that its present status does not lead to."""


class NotOpen(StructjobError, RuntimeError):
    """The tracker is not open: it was not entered yet, or is closed already."""


class StoreUnavailable(StructjobError):
    """The database does not answer now; what was accepted stays in the spool and is delivered
    later.

    Args:
        message: What is wrong, and what to do.
        permanent: Whether only somebody's hand changes it (a wrong password, a table that is
            missing), and not time.
        refused: Whether the database answers, and refuses the content that it was given.
        gone: Whether the database that was opened, or a table in it, is not there any more: it must
            be opened anew.
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
        seconds: How long it was allowed to take.
    """

    def __init__(self, masked_url: str, seconds: float) -> None:
        super().__init__(
            f"a query of {masked_url} was stopped after {seconds:g} s: ask for less, such as a shorter span of time, or give the reader "
            "a longer timeout"
        )
        self.seconds = seconds


class PruneInProgress(StructjobError):
    """Another process deletes what is due at the moment; one at a time does."""


class SchemaMismatch(StructjobError):
    """The database is not structjob's, or its tables belong to another version of structjob."""


class SpoolError(StructjobError, OSError):
    """The spool directory cannot be used: not writable, not ours, or not a directory."""


class JobCancelled(StructjobError):
    """A pending job was cancelled, and does not start; the reason is in the message."""


class Cancelled(BaseException):
    """A job that runs without a task (``with tracker.job(…)``) was asked to stop; the reason is the
    message.

    Not an `Exception`, so that ``except Exception`` does not swallow the request.
    """


class Terminated(SystemExit):
    """SIGTERM came while the main thread worked in ``with structjob.Tracker(…)``; raised there.

    Blocks are left in order, jobs are recorded as cancelled, and the process then dies of the
    signal. The exit code is 143 where it does not.
    """

    def __init__(self, code: int = 143) -> None:
        super().__init__(code)

    def __str__(self) -> str:
        return "SIGTERM"
