"""A connection of SQLAlchemy over one of `sqlite3`, and a query on it that can be stopped."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import sqlite3
import threading
from typing import Any

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from structjob.exceptions import StoreUnavailable
from structjob.store.quiet import NAMES, quiet

_STOP_EVERY = 0.05
"""Seconds between two interruptions of a query that must stop."""


class Query:
    """A query that another thread can stop, on a timeout or when its caller was cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._stopped = False

    def begin(self, connection: Connection) -> None:
        """Record the connection that the query runs on."""
        with self._lock:
            if self._stopped:
                raise StoreUnavailable("the query was stopped before it began")
            self._connection = connection.connection.dbapi_connection

    def end(self) -> None:
        """Record that the query has ended: the next query on the connection is a different one."""
        with self._lock:
            self._connection = None

    def stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Interrupt the query repeatedly until it has ended; do nothing if it has."""
        with self._lock:
            self._stopped = True
            if self._connection is None:
                return
            self._connection.interrupt()
        # An interruption before the query starts has no effect, so it is repeated.
        loop.call_later(_STOP_EVERY, self.stop, loop, context=contextvars.Context())


def connection_over(raw: sqlite3.Connection, *statements: str) -> Connection:
    """Return a SQLAlchemy connection over *raw*; transactions are begun and ended explicitly."""
    for statement in statements:
        raw.execute(statement)
    _given.raw = raw
    try:
        return _engine(os.getpid()).connect()
    finally:
        del _given.raw


_given = threading.local()


@functools.lru_cache(maxsize=1)
def _engine(process: int) -> Engine:
    """Return the engine of every connection in the *process*.

    An engine keeps the statements that it has compiled. With one for each connection, compiling
    would take half of the CPU time in which a tracker opens and closes. A forked child makes its
    own, because a thread of its parent may hold the locks of this one.
    """
    engine = create_engine(
        "sqlite://",
        creator=lambda: _given.raw,
        poolclass=NullPool,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        **NAMES,
    )
    return quiet(engine)


def close_connection(connection: Connection) -> None:
    """Close *connection*, and the one of `sqlite3` below it."""
    raw = connection.connection.dbapi_connection
    connection.invalidate()
    connection.close()
    if raw is not None:
        raw.close()
