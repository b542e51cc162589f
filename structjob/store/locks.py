"""Locks for work that only one process at a time does.

A lock is a row that expires by the database's clock, and with its holder's session. The lock is
checked again in each transaction that depends on it, so a process that was suspended too long
changes nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from structjob.store.expressions import utc_now
from structjob.store.tables import locks, sessions

TERM = timedelta(seconds=60)
"""How long a lock is valid without renewal."""


class LockLost(Exception):
    """Another holder has the lock now."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock, as seen by one of the holders that compete for it.

    Args:
        name: The name of the work that the lock protects.
        session_id: The holder's session; once it has ended, the lock is void.
        holder: A random number that distinguishes two holders of one session.
    """

    name: str
    session_id: int
    holder: int = field(default_factory=lambda: secrets.randbits(53))

    def take(self, connection: Connection, not_within: timedelta | None = None) -> bool:
        """Take the lock, and return whether it is held now.

        Args:
            connection: A connection in a transaction.
            not_within: Do not take the lock if any holder finished the work less than this time
                ago.
        """
        now = connection.execute(select(utc_now())).scalar_one()
        mine = locks.c.name == self.name
        row = connection.execute(select(locks).where(mine).with_for_update()).mappings().first()
        values = {"holder": self.holder, "session_id": self.session_id, "expires_at": now + TERM}
        if row is None:
            # If two transactions do this at once, the database refuses the second one's row. That
            # transaction is tried again.
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
        """Ensure that the lock is held until the end of the transaction, and for a `TERM` from now.

        Raises:
            LockLost: if another holder has it.
        """
        now = connection.execute(select(utc_now())).scalar_one()
        # Always write, not only read: a Galera cluster compares what transactions of several nodes
        # write, not what they lock.
        if not connection.execute(
            update(locks).where(*self._held()).values(expires_at=now + TERM)
        ).rowcount:
            raise LockLost(self.name)

    def release(self, connection: Connection, *, done: bool) -> None:
        """Release the lock if it is still held; *done* means that the work is finished."""
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
    """Make transactions that call this with the same *name* run one after the other.

    The row that does this exists only within the transaction. ``SELECT … FOR UPDATE`` is not
    enough, because each node of a Galera cluster locks separately.
    """
    connection.execute(insert(locks).values(name=name))
    connection.execute(delete(locks).where(locks.c.name == name))
