"""An oracle: knows what a program promised, looks at what the database holds, and says what became
of each event.

The program writes down each event, with a hash of its payload and its job, *before* the log call,
and marks it after the call returned. The notes survive what the program does not: a note is one
``write()``, with ``fsync`` if asked for. `check` reads the database with SQL of its own, so that a
fault in the library's queries cannot hide a fault in what it stored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "mysql": "mysql+asyncmy",
    "mariadb": "mysql+asyncmy",
    "postgresql": "postgresql+asyncpg",
}


def payload(number: int) -> dict[str, Any]:
    """Return what event *number* carries: text that wants escaping, of different lengths, and each
    kind of JSON value.
    """
    return {
        "text": f"{number}:é\u2028\U0001f680\"\\'\t" + "x" * (number * 7919 % 400),
        "nested": {"list": [number, -number / 8, None, True, ""], "empty": {}, "ключ": "ß"},
    }


def digest(value: Any) -> str:
    """Return a hash of a JSON value that does not depend on the order of keys; the databases have
    theirs.
    """
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


class Notes:
    """What one program writes down.

    Args:
        path: Where; its name begins the ids of the events.
        sync: Whether each offer is safe against a power cut before the log call is made.
    """

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = False) -> None:
        self._prefix = Path(path).name
        self._sync = sync
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _note(self, *words: object) -> None:
        os.write(self._fd, " ".join(map(str, words)).encode() + b"\n")

    def session(self, session_id: int) -> None:
        self._note("session", session_id)

    def job(self, job_id: str) -> None:
        self._note("job", job_id)

    def ended(self, job_id: str) -> None:
        self._note("ended", job_id)

    def step(self, step_id: str) -> None:
        self._note("step", step_id)

    def offer(self, number: int, job_id: str | None) -> dict[str, Any]:
        """Note the event that is logged next, and return its attributes."""
        attrs = {"id": f"{self._prefix}-{number}", **payload(number)}
        self._note("offer", attrs["id"], job_id or "-", digest(attrs))
        if self._sync:
            os.fsync(self._fd)
        return attrs

    def returned(self, event_id: str) -> None:
        self._note("returned", event_id)


@dataclass(slots=True)
class Promises:
    """What programs wrote down, all of them together."""

    sessions: set[int] = field(default_factory=set)
    offered: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    """Job and hash of each event."""
    returned: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    steps: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Promises:
        promises = cls()
        for path in paths:
            for words in _lines(path):
                match words:
                    case ["session", number]:
                        promises.sessions.add(int(number))
                    case ["offer", event_id, job_id, hashed]:
                        promises.offered[event_id] = (None if job_id == "-" else job_id, hashed)
                    case ["returned", event_id]:
                        promises.returned.add(event_id)
                    case ["job" | "ended" | "step" as what, identity]:
                        {"job": promises.jobs, "ended": promises.ended, "step": promises.steps}[
                            what
                        ].add(identity)
                    case _:
                        raise ValueError(f"{path} holds a note that is none: {words}")
        return promises


def _lines(path: Path) -> Iterator[list[str]]:
    if path.exists():
        text = path.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            yield line.split(" ")


@dataclass(slots=True)
class Verdict:
    """What became of what was promised. But for the first four and ``crashes``, each
    should be 0.
    """

    offered: int = 0
    """Events that were about to be logged."""
    returned: int = 0
    """Those whose log call returned: they must be stored."""
    stored: int = 0
    """Those that are there, once and unchanged; whether their call returned or not."""
    crashes: int = 0
    """Jobs that are marked as crashed."""
    lost: int = 0
    """The call returned, and the event is not there."""
    duplicated: int = 0
    """Rows beyond the first of an event."""
    corrupted: int = 0
    """Events whose payload or job is not what was logged."""
    unexpected: int = 0
    """Rows that no program noted as logged."""
    disordered: int = 0
    """Events that a session's numbers put before an earlier one of the same program."""
    jobs_lost: int = 0
    """Jobs that are not there, and those that ended and are not completed."""
    steps_lost: int = 0
    crashes_untold: int = 0
    """Crashed jobs without exactly one event that says so, with the last lines and the open steps.
    """
    left_running: int = 0
    """Jobs, attempts and steps that still look alive."""

    def faults(self) -> dict[str, int]:
        """Return what should be 0 and is not."""
        return {
            name: number
            for name, number in asdict(self).items()
            if number and name not in ("offered", "returned", "stored", "crashes")
        }

    def __iadd__(self, other: Verdict) -> Verdict:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self


@dataclass(frozen=True, slots=True)
class Found:
    """What the database holds."""

    events: Sequence[tuple[int, int, str | None, Any]]
    """Session, number, job and attributes of each event of the programs."""
    jobs: dict[str, str]
    """Status by id."""
    steps: set[str]
    running: int
    told: Sequence[tuple[str, Any]]
    """Job and attributes of each event that tells of a crash."""


def judge(promises: Promises, found: Found) -> Verdict:
    """Compare what was promised with what is there."""
    rows: Counter[str] = Counter()
    corrupted: set[str] = set()
    verdict = Verdict(offered=len(promises.offered), returned=len(promises.returned))
    latest: dict[int, int] = {}
    for session_id, _, job_id, attrs in sorted(found.events, key=lambda event: event[:2]):
        event_id = str(attrs.get("id"))
        if event_id not in promises.offered:
            verdict.unexpected += 1
            continue
        rows[event_id] += 1
        if (job_id, digest(attrs)) != promises.offered[event_id]:
            corrupted.add(event_id)
        number = int(event_id.rpartition("-")[2])
        verdict.disordered += number < latest.get(session_id, 0)
        latest[session_id] = max(number, latest.get(session_id, 0))
    verdict.lost = len(promises.returned - rows.keys())
    verdict.duplicated = rows.total() - len(rows)
    verdict.corrupted = len(corrupted)
    verdict.stored = sum(
        count == 1 and event_id not in corrupted for event_id, count in rows.items()
    )
    verdict.jobs_lost = len(promises.jobs - found.jobs.keys()) + sum(
        found.jobs.get(job, "completed") != "completed" for job in promises.ended
    )
    verdict.steps_lost = len(promises.steps - found.steps)
    verdict.left_running = found.running
    crashed = {job for job, status in found.jobs.items() if status == "crashed"}
    told = Counter(job for job, attrs in found.told if attrs.keys() >= {"last_lines", "open_steps"})
    verdict.crashes = len(crashed)
    verdict.crashes_untold = sum(told[job] != 1 for job in crashed) + len(told.keys() - crashed)
    return verdict


async def find(url: str) -> Found:
    """Read what the database holds, by SQL of its own."""
    from sqlalchemy import make_url, text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    parsed = make_url(url)
    engine = create_async_engine(
        parsed.set(drivername=DRIVERS[parsed.get_backend_name()]), poolclass=NullPool
    )
    async with engine.connect() as connection:

        async def rows(sql: str) -> list[Any]:
            return [tuple(row) for row in await connection.execute(text(sql))]

        events = await rows(
            "SELECT session_id, seq, job_id, attrs FROM structjob_logs WHERE message = 'offered' AND kind = 'log'"
        )
        jobs = await rows("SELECT id, status FROM structjob_jobs WHERE operation = 'produce'")
        steps = await rows("SELECT id FROM structjob_steps")
        running = [
            await rows(f"SELECT count(*) FROM structjob_{table} WHERE status = 'running'")
            for table in ("jobs", "attempts", "steps")
        ]
        told = await rows(
            "SELECT job_id, attrs FROM structjob_logs WHERE kind = 'operation_crashed'"
        )
    await engine.dispose()
    return Found(
        events=[(session, seq, job, _decoded(attrs)) for session, seq, job, attrs in events],
        jobs=dict(jobs),
        steps={row[0] for row in steps},
        running=sum(count for ((count,),) in running),
        told=[(job, _decoded(attrs)) for job, attrs in told],
    )


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, (str, bytes)) else value


async def check(url: str, notes: Iterable[Path]) -> Verdict:
    """Say what became of the events that are noted in *notes*, in the database at *url*."""
    return judge(Promises.read(notes), await find(url))
