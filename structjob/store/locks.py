"""Locks for what one process at a time does: rows that expire by the database's clock, and with the
session of whoever holds them.

A lock is proved anew in each transaction that is done under it, so that a process which slept
through its time changes nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from structjob.store.expressions import utc_now
from structjob.store.tables import locks, sessions

TERM = timedelta(seconds=60)
"""How long a lock holds that is not renewed."""


class LockLost(Exception):
    """Somebody else has the lock now."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock, as one of those see it who want it.

    Args:
        name: What it is for.
        session_id: Whose it is; once that session has ended, the lock is void.
        holder: Tells two of one session apart.
    """

    name: str
    session_id: int
    holder: int = field(default_factory=lambda: secrets.randbits(53))

    def take(self, connection: Connection, not_within: timedelta | None = None) -> bool:
        """Take the lock, and return whether it is held now.

        Args:
            connection: In a transaction.
            not_within: Leave it if what it is for was done by anybody this short a time ago.
        """
        now = connection.execute(select(utc_now())).scalar_one()
        mine = locks.c.name == self.name
        row = connection.execute(select(locks).where(mine).with_for_update()).mappings().first()
        values = {"holder": self.holder, "session_id": self.session_id, "expires_at": now + TERM}
        if row is None:
            # Of two who do this at once, the database refuses the second one's row; its transaction
            # is tried again.
            connection.execute(locks.insert().values(name=self.name, **values))
            return True
        if row["holder"] is not None and row["expires_at"] > now:
            alive = select(sessions.c.session_id).where(
                sessions.c.session_id == row["session_id"], sessions.c.ended_at.is_(None)
            )
            if connection.execute(alive).first() is not None:
                return False
        if (
            not_within is not None
            and row["done_at"] is not None
            and row["done_at"] > now - not_within
        ):
            return False
        connection.execute(update(locks).where(mine).values(values))
        return True

    def prove(self, connection: Connection) -> None:
        """Make sure that the lock is held until the end of the transaction, and for a `TERM` from
        now.

        Raises:
            LockLost: if it is another's.
        """
        now = connection.execute(select(utc_now())).scalar_one()
        # Written each time, not only read: a Galera cluster compares what transactions of several
        # nodes write, not what they lock.
        if not connection.execute(
            update(locks).where(*self._held()).values(expires_at=now + TERM)
        ).rowcount:
            raise LockLost(self.name)

    def release(self, connection: Connection, *, done: bool) -> None:
        """Let go of the lock, if it is still held; *done* says that what it is for is done."""
        values = {
            "holder": None,
            "session_id": None,
            "expires_at": None,
            **({"done_at": utc_now()} if done else {}),
        }
        connection.execute(update(locks).where(*self._held()).values(values))

    def _held(self) -> tuple[ColumnElement[bool], ...]:
        return locks.c.name == self.name, locks.c.holder == self.holder


def in_turn(connection: Connection, name: str) -> None:
    """Have the transactions that call this with the same *name* done one after the other.

    By a row that is there within the transaction only. Of two nodes of a Galera cluster, ``SELECT …
    FOR UPDATE`` would lock on its own.
    """
    connection.execute(insert(locks).values(name=name))
    connection.execute(delete(locks).where(locks.c.name == name))
