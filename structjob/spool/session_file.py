"""The file in a session's directory that describes the session, as any process may have left it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from structjob.decoding import NOT_JSON
from structjob.machine.files import open_directly, read_start
from structjob.spool.disk import DiskQueue
from structjob.spool.session import TIME_FORMAT, Session

_NAME = "session.json"
_EARLIEST, _LATEST = 1970, 9998
"""Years that every database and every time zone can represent."""


def write_session(directory: Path, session: Session) -> None:
    """Describe *session* in its new *directory*. Raise `OSError` if the file cannot be written."""
    fd = open_directly(directory / _NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(session))


def read_session(directory: Path) -> Session | None:
    """Return the session of *directory*; ``None`` if it is not a session's directory."""
    number = int(directory.name)
    if not 0 < number < 1 << 53 or directory.name != str(number):
        return None
    try:
        content, written = read_start(directory / _NAME, 65_536)
        session = msgspec.json.decode(content, type=Session)
        if session.session_id == number:
            return _clipped(session, written)
    except (OSError, *NOT_JSON):
        pass
    # A power failure may leave the file empty. The events are kept even if their session is
    # unknown.
    queues = (
        DiskQueue(directory, "events", writable=False),
        DiskQueue(directory, "states", writable=False),
    )
    return (
        Session(number, "unknown", None, 0) if any(queue.position() for queue in queues) else None
    )


def _clipped(session: Session, written: float) -> Session:
    """Return *session* with values that every database accepts.

    *written* is the modification time of the file that it was read from; it replaces an invalid
    start.
    """
    try:
        moment = datetime.fromisoformat(session.started_at)
        started = moment if _EARLIEST <= moment.year <= _LATEST else None
    except ValueError:
        started = None
    if started is None or started.tzinfo is not None:
        latest = datetime(_LATEST, 12, 31, tzinfo=UTC).timestamp()
        started = started or datetime.fromtimestamp(min(max(written, 0.0), latest), UTC)
        started = started.astimezone(UTC)
    return replace(
        session,
        host=_text(session.host, 255) or "unknown",
        boot_id=_text(session.boot_id, 64),
        pid=session.pid if 0 <= session.pid < 1 << 31 else 0,
        service=_text(session.service, 128),
        version=_text(session.version, 64),
        started_at=started.strftime(TIME_FORMAT),
        database=_text(session.database, 500),
    )


def _text(value: str | None, longest: int) -> str | None:
    return (
        value
        if value is None
        else value[:longest].replace("\x00", "␀").encode("utf-8", "replace").decode()
    )
