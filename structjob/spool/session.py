"""A session: one running process, and one tracker in it; `structjob.spool.directory` says where it
writes.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime

from structjob.machine.host import boot_id

TIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f"
"""How `Session.started_at` is written, in UTC."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who writes: drawn at random, 53 bits, so that JavaScript can hold it."""

    session_id: int = field(default_factory=lambda: secrets.randbits(53) | 1)
    host: str = field(default_factory=socket.gethostname)
    boot_id: str | None = field(default_factory=boot_id)
    pid: int = field(default_factory=os.getpid)
    service: str | None = None
    version: str | None = None
    started_at: str = field(default_factory=lambda: datetime.now(UTC).strftime(TIME_FORMAT))
    database: str | None = None
    """Which database its events are for (see `structjob.store.url.identity`)."""

    def successor(self) -> Session:
        """Return the session of a process that was forked from this one's."""
        return Session(service=self.service, version=self.version, database=self.database)
