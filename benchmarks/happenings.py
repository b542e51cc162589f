"""The content of one generated job: its changes of state and its events, as bodies of spool
lines.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from benchmarks.operations import ANYWHERE_FAILS, ANYWHERE_SAYS, Fails, Operation, Says
from structjob.values.fingerprint import of_words

SECOND = 1_000_000
"""Moments are whole microseconds since 1970."""

_HANDLED = 0.0004
"""The share of a job's own lines that report a handled exception."""
_CANCELLED = 0.01
_CRASHED = 0.004
_TRIED_AGAIN = 0.3
"""The share of failures with a second attempt; most of these succeed."""
_OWNERS = (
    "ada",
    "grace",
    "alan",
    "edsger",
    "barbara",
    "donald",
    "margaret",
    "ken",
    "dennis",
    "radia",
    "leslie",
    "frances",
)
_MACHINES = 400


class Happening(NamedTuple):
    """One spool line.

    Attributes:
        moment: Its time.
        event: Whether it is an event; otherwise it is a change of state.
        body: JSON without the closing brace, and without its number.
    """

    moment: int
    event: bool
    body: bytes


class Lines:
    """Random lines from the same source.

    Args:
        chance: The random generator.
        says: The possible lines.
    """

    def __init__(self, chance: random.Random, says: Sequence[Says]) -> None:
        self._random = chance
        # Without the closing brace of the attributes, because the caller may add more attributes.
        self._templates = [
            f'","level":"{one.level}","message":{json.dumps(one.message)},"attrs":{one.attrs[:-1]}'
            for one in says
        ]
        self._edges = list(itertools.accumulate(one.share for one in says))
        self._n = 0

    def draw(self, moment: int, values: dict[str, Any], rest: bytes) -> bytes:
        """Return a body.

        Args:
            moment: Its time.
            values: Values for the attributes; the random numbers are added.
            rest: The end of the attributes, and what follows them.
        """
        self._n += 1
        chance = self._random.random()
        values["n"], values["ratio"], values["big"] = self._n, chance, int(chance * 9e11) + 10**11
        template = self._templates[bisect.bisect(self._edges, chance * self._edges[-1])]
        return b'{"ts":"%b%b%b' % (moment_text(moment), (template % values).encode(), rest)


class Service:
    """The service that runs jobs.

    Args:
        chance: The random generator for everything.
        until: The time of its end; every job ends before.
    """

    def __init__(self, chance: random.Random, until: int) -> None:
        self.chance = chance
        self.until = until
        self.machines = [new_id(chance, 0) for _ in range(_MACHINES)]
        self._lines: dict[str, Lines] = {}

    def lines(self, operation: Operation) -> Lines:
        """Return the lines that jobs of *operation* log."""
        if operation.name not in self._lines:
            self._lines[operation.name] = Lines(self.chance, (*operation.says, *ANYWHERE_SAYS))
        return self._lines[operation.name]

    def skewed(self, count: int) -> int:
        """Return a number below *count*; small numbers are far more frequent than large ones."""
        return int(count ** self.chance.random()) - 1


class MadeUpJob:
    """A job from its beginning to its end.

    Args:
        service: The service that runs it.
        operation: Its operation.
        events: Its number of events; at least 4.
        start: The time of its start.
        parent: Its parent job.
    """

    def __init__(
        self,
        service: Service,
        operation: Operation,
        events: int,
        start: int,
        parent: MadeUpJob | None,
    ) -> None:
        chance = service.chance
        self.operation = operation
        self.start = start
        self.id = new_id(chance, start)
        self._service = service
        self._chance = chance
        self._lines = service.lines(operation)
        self._events = events
        self._correlation = parent._correlation if parent else new_id(chance, start)
        self._row = self._common_row(parent)
        self._parent = f',"parent_job_id":"{parent.id}"' if parent else ""
        machine = service.skewed(_MACHINES)
        self._values: dict[str, Any] = {
            "vm": service.machines[machine],
            "host": f"compute-{machine % 23:02}",
            "path": f"/srv/images/vm-{machine:03}/disk-{machine % 3}.qcow2",
        }

    def _common_row(self, parent: MadeUpJob | None) -> dict[str, Any]:
        operation, chance = self.operation, self._chance
        row: dict[str, Any] = {
            "id": self.id, "operation": operation.name, "job_type": operation.job_type, "category": operation.category,
            "project": operation.project, "owner": _OWNERS[self._service.skewed(len(_OWNERS))], "correlation_id": self._correlation,
            "root_job_id": parent._row["root_job_id"] if parent else self.id, "created_at": moment_text(self.start).decode(),
        }  # fmt: skip
        if parent:
            row["parent_job_id"] = parent.id
        elif chance.random() < 0.5:
            row["external_job_id"] = f"gui-{chance.getrandbits(40):x}"
        if chance.random() < 0.6:
            row["context_id"] = self._service.machines[self._service.skewed(_MACHINES)]
        if chance.random() < 0.05:
            row["idempotency_key"] = f"{operation.name}:{self.id}"
        row["metadata"] = {
            "cluster": f"c{chance.randrange(5)}",
            "priority": chance.randrange(10),
            "flags": {"dry_run": False},
        }
        return {name: value for name, value in row.items() if value is not None}

    def happenings(self) -> Iterator[Happening]:
        """Yield all changes of state and events, not exactly in the order of time."""
        chance, operation = self._chance, self.operation
        drawn = chance.random()
        status = "completed"
        if drawn < operation.failing:
            status = "failed"
        elif drawn < operation.failing + _CANCELLED:
            status = "cancelled"
        elif drawn < operation.failing + _CANCELLED + _CRASHED:
            status = "crashed"
        takes = int(operation.seconds * math.exp(chance.gauss(0, operation.spread)) * SECOND)
        end = self.start + max(1, min(takes, self._service.until - self.start - 1))
        if status != "failed" or chance.random() > _TRIED_AGAIN:
            yield from self._attempt(1, self.start, end, self._events, status)
            return
        middle = (self.start + end) // 2
        yield from self._attempt(1, self.start, middle, self._events // 2, "failed")
        outcome = "failed" if chance.random() < 0.3 else "completed"
        yield from self._attempt(2, middle, end, self._events - self._events // 2, outcome)

    def _attempt(
        self, number: int, start: int, end: int, events: int, status: str
    ) -> Iterator[Happening]:
        """Yield an attempt with *events* events."""
        chance, operation = self._chance, self.operation
        job = f'"job_id":"{self.id}","attempt":{number}'
        common = f'"operation":"{operation.name}","correlation_id":"{self._correlation}","category":"{operation.category}"'
        if operation.project is not None:
            common += f',"project":"{operation.project}"'
        own = f"{self._parent}}},{job},{common}"
        # Each step has two events of its own. A failed job does not reach the later steps.
        names = operation.steps[: (events - 2) // 2]
        if status != "completed":
            names = names[: chance.randrange(len(names)) + 1] if names else ()
        lines = events - 2 - 2 * len(names)
        error = _Error(chance, operation) if status == "failed" else None
        # the step reports it, or else the job's last event does
        told = bool(error and names and lines)
        # the last step has a line for its error
        cuts = [0, *sorted(chance.randrange(lines + (not told)) for _ in names[1:]), lines]
        moments = iter(
            sorted(start + int(chance.random() * (end - start)) for _ in range(events - 2))
        )

        began = moment_text(start).decode()
        yield self._state(start, number, "running", {"started_at": began})
        attrs = {"operation": operation.name, "owner": self._row["owner"]}
        yield _event(start, "info", "operation_start", attrs, own, "operation_start")
        for seq, name in enumerate(names, 1):
            last = seq == len(names)
            outcome = status if last else "completed"
            at = next(moments)
            step = {
                "id": new_id(chance, at),
                "job_id": self.id,
                "attempt": number,
                "seq": seq,
                "name": name,
            }
            inside = f'{self._parent}}},{job},"step_id":"{step["id"]}","step":"{name}",{common}'
            yield _step(at, step, "running", at)
            yield _event(
                at, "info", "step_start", {"step": name, "step_number": seq}, inside, "step_start"
            )
            failing = last and told
            yield from self._own_lines(cuts[seq] - cuts[seq - 1] - failing, moments, inside, name)
            if failing and error:
                yield _event(
                    next(moments),
                    "error",
                    "step_error",
                    {"step": name, **error.attrs},
                    inside,
                    "step_error",
                    error.fingerprint,
                )
            ended = next(moments)
            yield _step(at, step, outcome, ended, error if last else None)
            attrs = {
                "step": name,
                "step_number": seq,
                "status": outcome,
                "duration_ms": (ended - at) / 1000,
            }
            yield _event(ended, "info", "step_end", attrs, inside, "step_end")
        if not names:
            yield from self._own_lines(lines, moments, own, operation.name)
        attrs = {
            "operation": operation.name,
            "status": status,
            "total_steps": len(names),
            "total_duration_ms": (end - start) / 1000,
        }
        level = {"completed": "info", "failed": "error", "crashed": "error"}.get(status, "warning")
        kind = "operation_crashed" if status == "crashed" else "operation_end"
        fingerprint = None
        if error:
            attrs |= error.fields if told else error.attrs
            fingerprint = None if told else error.fingerprint
        yield _event(end, level, kind, attrs, own, kind, fingerprint)
        yield self._state(end, number, status, self._ending(start, end, status, error, names))

    def _own_lines(
        self, count: int, moments: Iterator[int], rest: str, source: str
    ) -> Iterator[Happening]:
        encoded = f'{rest},"logger":"app.{source}"'.encode()
        draw, values, chance = self._lines.draw, self._values, self._chance.random
        for moment in itertools.islice(moments, count):
            if chance() < _HANDLED:
                error = _Error(self._chance, self.operation)
                yield _event(
                    moment, "error", "request failed", error.attrs, rest, None, error.fingerprint
                )
            else:
                yield Happening(moment, True, draw(moment, values, encoded))

    def _ending(
        self, start: int, end: int, status: str, error: _Error | None, names: Sequence[str]
    ) -> dict[str, Any]:
        seconds = (end - start) / SECOND
        ended = moment_text(end).decode()
        row: dict[str, Any] = {
            "started_at": moment_text(start).decode(), "completed_at": ended, "duration_ms": seconds * 1000,
            "cpu_ms": round(seconds * 1000 * self._chance.random() * 0.3, 3), "max_rss_kb": 60_000 + self._chance.getrandbits(17),
        }  # fmt: skip
        if names:
            row["current_step"] = names[-1]
        if status == "completed":
            row |= {"percent_complete": 100.0, "result": {"lines": self._events, "ok": True}}
        elif status == "cancelled":
            row["cancelled_at"] = ended
        elif status == "crashed":
            row |= {
                "error_type": "Crashed",
                "error_message": "the process ended without finishing it",
            }
        if error:
            row |= error.columns
        return row

    def _state(self, moment: int, attempt: int, status: str, more: Mapping[str, Any]) -> Happening:
        return _state(moment, "job", {**self._row, "attempt": attempt, "status": status, **more})


class _Error:
    """An error of an operation."""

    def __init__(self, chance: random.Random, operation: Operation) -> None:
        fails = (*operation.fails, *ANYWHERE_FAILS)
        (one,) = chance.choices(fails, [each.share for each in fails])
        message = one.message % chance.randrange(10, 99_999)
        module = one.where[0].partition(":")[0]
        self.traceback = _traceback(one, message)
        self.fingerprint = _fingerprint(one)
        self.fields = {
            "error_type": one.kind,
            "error_message": message,
            "retry_possible": one.kind.endswith(("Timeout", "TimeoutError")),
        }
        structure = {
            "type": one.kind,
            "module": module,
            "message": message,
            "traceback": self.traceback,
        }
        self.attrs = {**self.fields, "exception": structure}
        self.columns = {
            "error_type": one.kind,
            "error_message": message,
            "error_traceback": self.traceback,
        }


@lru_cache
def _fingerprint(fails: Fails) -> str:
    return of_words(fails.kind, fails.message % 12, *fails.where)


def _traceback(fails: Fails, message: str) -> str:
    frames = "".join(
        f'  File "/srv/app/{where.replace(":", "/")}.py", line {40 + 7 * depth}, in {where.partition(":")[2]}\n'
        f"    return await self._{where.partition(':')[2].lower().replace('.', '_')}(request, timeout=30.0)\n"
        for depth, where in enumerate(("main:serve", "runner:Runner.work", *fails.where))
    )
    return f"Traceback (most recent call last):\n{frames}{fails.kind}: {message}\n"


def _event(
    moment: int,
    level: str,
    message: str,
    attrs: Mapping[str, Any],
    rest: str,
    kind: str | None,
    fingerprint: str | None = None,
) -> Happening:
    body = f'","level":"{level}","message":"{message}","attrs":{json.dumps(attrs)[:-1]}{rest}'
    if kind is not None:
        body += f',"kind":"{kind}"'
    if fingerprint is not None:
        body += f',"fingerprint":"{fingerprint}"'
    return Happening(moment, True, b'{"ts":"%b%b' % (moment_text(moment), body.encode()))


def _step(
    start: int, row: Mapping[str, Any], status: str, moment: int, error: _Error | None = None
) -> Happening:
    row = {**row, "status": status, "started_at": moment_text(start).decode()}
    if status != "running":
        row |= {
            "completed_at": moment_text(moment).decode(),
            "duration_ms": (moment - start) / 1000,
        }
    if status == "completed":
        row["percent_complete"] = 100.0
    return _state(moment, "step", {**row, **(error.columns if error else {})})


def _state(moment: int, kind: str, row: Mapping[str, Any]) -> Happening:
    return Happening(
        moment, False, b'{"kind":"%b","row":%b' % (kind.encode(), json.dumps(row).encode())
    )


def new_id(chance: random.Random, moment: int) -> str:
    """Return a UUIDv7 of *moment*."""
    drawn = chance.getrandbits(74)
    text = f"{moment // 1000:012x}7{drawn >> 62:03x}{drawn & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def moment_text(moment: int) -> bytes:
    """Return *moment* as a text that the databases accept."""
    minute, rest = divmod(moment, 60 * SECOND)
    return b"%b%02d.%06d" % (_minute_text(minute), *divmod(rest, SECOND))


@lru_cache(4096)
def _minute_text(minute: int) -> bytes:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%d %H:%M:").encode()
