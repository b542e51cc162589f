"""A session: one tracker in one running process.

`structjob.spool.directory` describes where it writes.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime

from structjob.machine.host import boot_id

TIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f"
"""Format of `Session.started_at`, in UTC."""


@dataclass(frozen=True, slots=True)
class Session:
    """The writer of events.

    Its id is random and has 53 bits, so that JavaScript can represent it.
    """

    session_id: int = field(default_factory=lambda: secrets.randbits(53) | 1)
    host: str = field(default_factory=socket.gethostname)
    boot_id: str | None = field(default_factory=boot_id)
    pid: int = field(default_factory=os.getpid)
    service: str | None = None
    version: str | None = None
    started_at: str = field(default_factory=lambda: datetime.now(UTC).strftime(TIME_FORMAT))
    database: str | None = None
    """The database that its events are for (see `structjob.urls.url.identity`)."""

    def successor(self) -> Session:
        """Return the session of a process that was forked from this session's process."""
        return Session(service=self.service, version=self.version, database=self.database)
