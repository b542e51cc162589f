"""A day of a migration service as a file for ``structjob import``: what the pages are looked at
with, and what their screenshots show.

    python tests/web/story.py story.jsonl && structjob --db story.db import story.jsonl
"""

from __future__ import annotations

import json
import random
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

# fmt: off
LIBRARY = "/usr/lib/python3.13/asyncio/"


def traceback(kind: str, message: str, *frames: tuple[str, int, str, str]) -> str:
    """Return a traceback: the frames of the program with some of libraries between them."""
    lines = ["Traceback (most recent call last):"]
    for number, (path, line, name, code) in enumerate(frames):
        if number == 1:
            for at in ("tasks.py", "runners.py", "base_events.py"):
                lines += [f'  File "{LIBRARY}{at}", line 187, in run', "    return await coro"]
        lines += [f'  File "{path}", line {line}, in {name}', f"    {code}"]
    return "\n".join([*lines, f"{kind}: {message}", ""])


CHECKSUM = (
    "ChecksumMismatch",
    "part-3: sent 9f2c51d08a4e…, read back 77ab0e93c1f2…",
    (
        (
            "/srv/migrate/run.py",
            61,
            "migrate_vm",
            "await verify(vm, parts, limit=settings.verify_parallel)",
        ),
        (
            "/srv/migrate/verify.py",
            112,
            "verify",
            "await asyncio.gather(*(verify_part(vm, part) for part in parts))",
        ),
        (
            "/srv/migrate/verify.py",
            88,
            "verify_part",
            "raise ChecksumMismatch(part, want=sent.sha256, got=read.sha256)",
        ),
    ),
)
TIMEOUT = (
    "VolumeTimeout",
    "the volume of part-2 did not answer within 2 s",
    (
        ("/srv/migrate/copy.py", 57, "copy_part", "block = await volume.read(offset, size)"),
        ("/srv/migrate/volume.py", 203, "read", "raise VolumeTimeout(self, after=2.0) from error"),
    ),
)
QUOTA = (
    "QuotaExceeded",
    "primary storage zone-1: 4,812 of 4,800 GB used",
    (
        ("/srv/migrate/create.py", 40, "create_volume", "await cloud.allocate(size)"),
        ("/srv/migrate/cloud.py", 118, "allocate", "raise QuotaExceeded(zone, used, limit)"),
    ),
)


class Story:
    """Writes records; times are seconds before *now*."""

    def __init__(self, now: datetime, seed: int = 17) -> None:
        self.now = now
        self.random = random.Random(seed)
        self.records: list[dict[str, Any]] = []

    def at(self, before: float) -> str:
        return (self.now - timedelta(seconds=before)).astimezone(UTC).isoformat(timespec="milliseconds")

    def id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def job(self, operation: str, start: float, took: float, **more: Any) -> str:
        """Write a job that began *start* seconds ago; return its id."""
        id_ = self.id()
        status = more.pop("status", "completed")
        end = {} if status == "running" else {"completed_at": self.at(start - took), "duration_ms": took * 1000}
        self.records.append(
            {
                "record": "job",
                "id": id_,
                "operation": operation,
                "status": status,
                "attempt": 1,
                "created_at": self.at(start + 0.2),
                "started_at": self.at(start),
                **end,
                **more,
            }
        )
        return id_

    def step(self, job: str, seq: int, name: str, start: float, took: float, **more: Any) -> str:
        """Write a step; return its id."""
        id_ = self.id()
        self.records.append(
            {
                "record": "step",
                "id": id_,
                "job_id": job,
                "attempt": 1,
                "seq": seq,
                "name": name,
                "status": "completed",
                "started_at": self.at(start),
                "completed_at": self.at(start - took),
                "duration_ms": took * 1000,
                **more,
            }
        )
        return id_

    def line(self, before: float, level: str, message: str, **more: Any) -> None:
        """Write a log line."""
        attrs = {key: more.pop(key) for key in list(more) if key not in _COLUMNS}
        self.records.append(
            {
                "record": "event",
                "ts": self.at(before),
                "level": level,
                "message": message,
                "attrs": attrs,
                **more,
            }
        )

    def error(self, before: float, message: str, what: Any, **more: Any) -> dict[str, Any]:
        """Write an error line; return what a job keeps of it."""
        kind, text, frames = what
        trace = traceback(kind, text, *frames)
        self.line(
            before, "error", message, error_type=kind, error_message=text,
            exception={"type": kind, "message": text, "traceback": trace}, **more,
        )
        return {"error_type": kind, "error_message": text, "error_traceback": trace}

    def migration(self, start: float, vm: str, gui: str, scale: float = 1.0, **more: Any) -> None:
        """Write a job of five steps with three child jobs, one of them tried twice, and its log."""
        fails = more.pop("fails", None)
        took = 252 * scale
        at = start
        error: dict[str, Any] = {}
        own = {"owner": more.pop("owner", "ada"), "project": "migratekit"}
        job = self.job(
            "vm-migrate", start, took, description=vm, external_job_id=gui, context_id=f"vm-{gui[4:]}8",
            status="failed" if fails else "completed", current_step="verify" if fails else None,
            metadata={"vm": {"name": vm, "id": f"vm-11{gui[4:]}"}, "source": "vcenter-a / esx-04", "target": "cloudstack / zone-1", "disks": 3, "password": "[redacted]"},
            result=None if fails else {"parts": 3, "gb": round(118 * scale, 1)},
            max_rss_kb=421_888, cpu_ms=81_000 * scale, correlation_id=self.id(), **own,
        )
        here = self.records[-1]
        mine = {"job_id": job, "operation": "vm-migrate"}
        self.line(at, "info", "migration accepted", logger="migrate.api", external_job_id=gui, vm=vm, **mine)
        for seq, (name, length) in enumerate((("discover", 4.1), ("linstor-snapshot", 9.6)), 1):
            step = self.step(job, seq, name, at, length * scale)
            self.line(at - 0.3, "info", f"{name} begins", logger=name, step=name, step_id=step, **mine)
            at -= length * scale
            self.line(at + 0.1, "success", f"{name} done", logger=name, step=name, step_id=step, ms=int(length * 1000), **mine)
        self.step(job, 3, "copy", at, 196 * scale, completed=3, total=3)
        for part, (begin, length, lines) in enumerate(((2, 58, 26), (2, 77, 40), (2, 192, 90)), 1):
            kid = self.job(
                "copy-part", at - begin * scale, length * scale, parent_job_id=job, description=f"part-{part}", root_job_id=job,
                metadata={"part": part}, result={"gb": round(31.2 * part * scale, 1)}, **own,
            )
            where = {"job_id": kid, "operation": "copy-part", "logger": "migrate.copy"}
            began = at - begin * scale
            if part == 2:
                bad = self.step(
                    kid, 1, "attempt-1", began, 12 * scale, status="retrying",
                    error_type=TIMEOUT[0], error_message=TIMEOUT[1],
                )
                self.error(began - 12 * scale, "read timed out", TIMEOUT, step="attempt-1", step_id=bad, part=2, after_s=2.0, **where)
                good = self.step(kid, 2, "attempt-2", began - 16 * scale, 61 * scale)
            else:
                good = self.step(kid, 1, "read-disk", began, (length - 10) * scale)
                self.step(kid, 2, "hash", began - (length - 10) * scale, 9.8 * scale)
            for number in range(lines):
                moment = began - (18 if part == 2 else 1) * scale - number * (length - 20) * scale / lines
                slow = self.random.random() < 0.06
                self.line(
                    moment, "warning" if slow else "info", "slow read" if slow else "block copied",
                    step="attempt-2" if part == 2 else "read-disk", step_id=good, part=part,
                    **({"ms": self.random.randint(400, 950), "volume": f"{vm}-disk-{part}"} if slow else {"file": f"base/16384/{self.random.randint(1000, 99999)}", "mib": 64, "ms": self.random.randint(41, 77)}), **where,
                )
        at -= 196 * scale
        verify = self.step(
            job, 4, "verify", at, 41 * scale, completed=3, total=4, status="failed" if fails else "completed",
            **({"error_type": fails[0], "error_message": fails[1]} if fails else {}),
        )
        in_verify = {"step": "verify", "step_id": verify, **mine}
        for part in (1, 2, 3):
            self.line(at - 9 * scale * part, "info", "hashing what was written", logger="migrate.verify", part=part, files=2310 * part, **in_verify)
        for number in range(6):
            self.line(at - (30 + number) * scale, "debug", "waiting for the volume", logger="migrate.volume", try_number=number, **in_verify)
        self.line(at - 38 * scale, "warning", "slow read", logger="migrate.volume", ms=812, volume=f"{vm}-disk-3", **in_verify)
        at -= 41 * scale
        if fails:
            error = self.error(at + 0.2, "checksum mismatch", fails, logger="migrate.verify", part=3, want="9f2c51d08a4e", got="77ab0e93c1f2", **in_verify)
            self.step(job, 5, "rollback", at, 0.4)
            self.line(at - 0.1, "info", "snapshot restored", logger="migrate.rollback", snapshot=f"{vm}-pre", ms=402, step="rollback", **mine)
            here.update(error)
        else:
            self.step(job, 5, "vm-startup", at, 1.3 * scale)
        self.line(start - took, "info", "operation_end", kind="operation_end", status=here["status"], **mine)

    def day(self) -> None:
        """Write a day of jobs, and four weeks of some errors."""
        hour = 3600.0
        self.migration(420, "pg-07", "gui-17", fails=CHECKSUM)
        for number, (before, vm, scale) in enumerate(
            ((900, "mail-02", 0.71), (2400, "pg-06", 1.1), (3800, "web-11", 0.7), (5200, "web-10", 0.75), (9000, "web-09", 0.68), (14000, "web-08", 0.72), (21000, "mail-01", 0.74)), 1,
        ):
            self.migration(before, vm, f"gui-{17 - number}", scale, owner="ben" if number % 3 else "ada")
        for before in range(24):
            n = int(6 + 5 * (1 + self.random.random()) * (1.4 if 6 < before < 16 else 0.5))
            for _ in range(n):
                start = before * hour + self.random.random() * hour + 60
                operation, usual = self.random.choice((("verify-checksums", 1.2), ("expire-snapshots", 0.31), ("tag-inventory", 2.2), ("inject-virtio", 21.0)))
                took = usual * self.random.lognormvariate(0, 0.35)
                chance = self.random.random()
                status = "failed" if chance < 0.02 else "cancelled" if chance < 0.03 else "completed"
                more: dict[str, Any] = {"owner": "cron", "project": "migratekit", "status": status}
                if status == "failed":
                    more |= {"error_type": QUOTA[0], "error_message": QUOTA[1]}
                job = self.job(operation, start, took, result={"items": self.random.randint(3, 90)} if status == "completed" else None, **more)
                if status == "failed":
                    self.error(start - took, "volume refused", QUOTA, logger="migrate.cloud", job_id=job, operation=operation)
                self.line(start, "info", f"{operation} begins", logger="cron", job_id=job, operation=operation)
        for what, days in ((TIMEOUT, (3, 4, 9, 12, 13, 20)), (QUOTA, (2, 6, 7)), (CHECKSUM, (3, 5))):
            for ago in days:
                for _ in range(self.random.randint(1, 4)):
                    self.error(ago * 86400 + self.random.random() * 40000, "work failed", what, logger="migrate")
        for number in range(38):
            self.line(700 - 2 * number, "warning", "pool exhausted", logger="sqlalchemy.pool", size=5, waiting=31)

    def lines(self) -> Iterator[str]:
        """Return the records, jobs first, as lines."""
        order = {"job": 0, "attempt": 1, "step": 2, "event": 3}
        # A parent stands before its children, events in the order of their time.
        for record in sorted(self.records, key=lambda one: (order[one["record"]], one.get("parent_job_id") is not None, one.get("ts", ""))):
            yield json.dumps(record)


_COLUMNS = {"logger", "step", "step_id", "job_id", "operation", "kind", "attempt", "stream", "type", "correlation_id"}


def write(path: Path, now: datetime | None = None) -> None:
    """Write the story to *path*."""
    story = Story(now or datetime.now(UTC))
    story.day()
    path.write_text("\n".join(story.lines()) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
