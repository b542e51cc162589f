"""Events that are put into a database by hand, in the order and at the moment that a test wants."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta

from database_support import inserted
from sqlalchemy import Executable, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from structjob.queries.logs import Logs
from structjob.store.expressions import utc_now
from structjob.store.tables import gaps, jobs, logs, sessions

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class LogDatabase:
    """A database, and the events in it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.asked: list[Executable] = []
        self.logs = Logs(self.fetch, self._nothing)
        self._id = 0
        self.backward = False
        """Whether ids fall as events are stored, as far as a cluster's or a sequence's may."""

    @staticmethod
    async def _nothing() -> None:
        """Nothing is pending here."""

    async def fetch(self, statement):
        self.asked.append(statement)
        async with self.engine.connect() as connection:
            return (await connection.execute(statement)).mappings().all()

    async def session(self, *ids: int) -> None:
        async with self.engine.begin() as connection:
            for number in ids:
                values = {"session_id": number, "host": "h", "pid": 1, "started_at": T0}
                await connection.execute(sessions.insert().values(values))

    async def end(
        self,
        session_id: int,
        last_seq: int,
        *,
        ago: timedelta = timedelta(),
        reason: str = "closed",
    ) -> None:
        """End a session, some time ago, as the database's clock has it."""
        (row,) = await self.fetch(select(utc_now().label("now")))
        async with self.engine.begin() as connection:
            values = {"ended_at": row["now"] - ago, "last_seq": last_seq, "end_reason": reason}
            await connection.execute(
                update(sessions).where(sessions.c.session_id == session_id).values(values)
            )

    async def job(self, id_: str, parent: str | None = None) -> None:
        async with self.engine.begin() as connection:
            values = {
                "id": id_,
                "parent_job_id": parent,
                "operation": "o",
                "status": "running",
                "created_at": T0,
            }
            await connection.execute(jobs.insert().values(values))

    async def complete(self, id_: str) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(
                update(jobs)
                .where(jobs.c.id == id_)
                .values({"status": "completed", "completed_at": T0})
            )

    async def add(self, session_id: int, numbers: Iterable[int], **values) -> None:
        """Store events; the message of each is ``session:number``."""
        async with self.engine.begin() as connection:
            await connection.execute(
                *inserted(connection, *self._rows(session_id, numbers, values))
            )

    @contextlib.asynccontextmanager
    async def slow(self, session_id: int, numbers: Iterable[int], **values) -> AsyncIterator[None]:
        """Store events in a transaction that is committed in the end: their ids are lower than of
        what is stored meanwhile.
        """
        rows = self._rows(session_id, numbers, values)
        if self.engine.dialect.name == "sqlite":  # where one transaction waits for the other
            yield
            async with self.engine.begin() as connection:
                await connection.execute(*inserted(connection, *rows))
            return
        async with self.engine.connect() as connection:
            await connection.execute(*inserted(connection, *rows))
            yield
            await connection.commit()

    def _rows(self, session_id: int, numbers: Iterable[int], values: dict) -> list[dict]:
        rows = []
        for seq in numbers:
            self._id += 1
            ts = T0 + timedelta(milliseconds=self._id)
            row = {
                "session_id": session_id,
                "seq": seq,
                "ts": ts,
                "level": "info",
                "type": "system",
                "message": f"{session_id}:{seq}",
            }
            chosen = (
                {"id": 1_000_000 - self._id}
                if self.backward
                else {"id": self._id}
                if self.engine.dialect.name == "sqlite"
                else {}
            )
            rows.append(row | values | chosen)
        return rows

    async def gap(self, session_id: int, first: int, last: int, reason: str = "queue_full") -> None:
        async with self.engine.begin() as connection:
            values = {
                "session_id": session_id,
                "first_seq": first,
                "last_seq": last,
                "reason": reason,
            }
            await connection.execute(gaps.insert().values(values))

    async def prune(self, session_id: int, first: int, last: int) -> None:
        """Delete events, as retention does."""
        async with self.engine.begin() as connection:
            await connection.execute(
                delete(logs).where(logs.c.session_id == session_id, logs.c.seq.between(first, last))
            )
        await self.gap(session_id, first, last, "pruned")

    async def count(self) -> int:
        (row,) = await self.fetch(select(func.count().label("n")).select_from(logs))
        return row["n"]
