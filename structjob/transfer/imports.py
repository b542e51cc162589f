"""Import jobs that were exported, or that an older tracker wrote.

The format is lines of JSON, as `structjob.transfer.export` describes.

A file is read twice. First all of it is checked, so that a file with a faulty line stores nothing.
Then it is stored in the usual way, under its own session. The session's number is derived from the
file's content. So the same file is stored only once, and an interrupted import continues when it is
repeated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import msgspec
from sqlalchemy import URL, Connection, func, select, update

from structjob.exceptions import ImportRefused
from structjob.spool.line import event_body, level_field, seal_event, seal_state, state_body
from structjob.spool.session import Session
from structjob.store import tables
from structjob.store.contract import Ending, StateStore, Store, Write
from structjob.store.expressions import utc_now
from structjob.store.factory import make_store
from structjob.store.gaps import PRUNED
from structjob.store.history import count_restored
from structjob.store.ingest import JSON_COLUMNS
from structjob.store.portions import portions
from structjob.store.sessions import CLOSED
from structjob.transfer.records import NOTES, read_records, row_of
from structjob.urls.url import sqlite_path
from structjob.values.bounds import OF_VALUE
from structjob.values.encoding import encode_text, encode_value
from structjob.values.fingerprint import of_words

Ids = Literal["keep", "new"]

_BATCH = 500
_AT_ONCE = 200
_BEAT = 5.0
"""Seconds between two heartbeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """The result of an import: what it stored, or in a dry run would store.

    Args:
        session_id: The session under which it is stored.
        jobs: Number of jobs.
        attempts: Number of attempts.
        steps: Number of steps.
        events: Number of events.
        refused: Number of events that the database refused; they are in the dead letters.
        job_ids: Old id → new id of each job.
        step_ids: Old id → new id of each step.
        known: Whether the file had been imported before; if so, nothing is stored.
    """

    session_id: int
    jobs: int
    attempts: int
    steps: int
    events: int
    refused: int = 0
    job_ids: dict[str, str] = field(default_factory=dict)
    step_ids: dict[str, str] = field(default_factory=dict)
    known: bool = False


async def import_file(
    store: Store, path: Path, *, ids: Ids = "keep", dry_run: bool = False
) -> ImportResult:
    """Import the jobs of a file.

    Args:
        store: The target database.
        path: The file; gzip is detected by its first bytes and decompressed.
        ids: ``keep`` the jobs' ids, or give the jobs ``new`` ids. Default: ``keep``.
        dry_run: Whether to check everything and store nothing. Default: false.

    Raises:
        ImportRefused: if a line is invalid, or a job with the same id exists already; nothing is
            stored then. Also if the file was changed while it was read.
        StoreUnavailable: if the database does not answer; importing the same file again continues.
    """
    with ExitStack() as stack:
        file = await asyncio.to_thread(stack.enter_context, to_be_read_twice(path))
        return await _import(store, file, ids, dry_run=dry_run)


async def import_into(
    url: URL, path: Path, *, ids: Ids = "keep", dry_run: bool = False
) -> ImportResult:
    """Open a database and import a file; see `import_file`.

    Args:
        url: The URL of the database. Absent tables are created, except for a dry run in an SQLite
            file that does not exist.
        path: See `import_file`.
        ids: See `import_file`.
        dry_run: See `import_file`.
    """
    store = make_store("sqlite://" if dry_run and _is_absent(url) else url, {})
    try:
        await store.open()
        return await import_file(store, path, ids=ids, dry_run=dry_run)
    finally:
        await store.close()


def _is_absent(url: URL) -> bool:
    file = sqlite_path(url)
    try:
        if file is not None:
            file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # opening it reports this
        pass
    return False


@contextmanager
def to_be_read_twice(path: Path) -> Iterator[Path]:
    """Yield *path*, or a copy if it can be read only once, such as a pipe. This function blocks.

    Raises:
        ImportRefused: if it cannot be read.
    """
    if os.path.isfile(path) or not os.path.exists(path):  # reading reports an absent file
        yield path
        return
    with tempfile.NamedTemporaryFile(
        prefix="structjob-import-"
    ) as copy:  # accessible only to its owner
        try:
            with open(path, "rb") as given:
                shutil.copyfileobj(given, copy)
            copy.flush()
        except OSError as exc:
            raise ImportRefused(f"cannot read {path}: {exc.strerror or exc}") from exc
        yield Path(copy.name)


async def _import(store: Store, path: Path, ids: Ids, *, dry_run: bool) -> ImportResult:
    checked = await asyncio.to_thread(_check, path, ids)  # a large file takes long
    checked.session_id = await _unpruned(store, checked.session_id)
    session = Session(session_id=checked.session_id, service="import")
    sessions = tables.sessions
    its = (sessions.c.session_id == session.session_id) & (sessions.c.end_reason == CLOSED)
    known = bool(await store.fetch(select(sessions.c.session_id).where(its)))
    counts = checked.counts
    result = ImportResult(
        session_id=session.session_id,
        jobs=counts["job"],
        attempts=counts["attempt"],
        steps=counts["step"],
        events=counts["event"],
        job_ids=checked.job_ids,
        step_ids=checked.step_ids,
    )
    if known:
        return replace(result, jobs=0, attempts=0, steps=0, events=0, known=True)
    await _refuse_known(store, checked)
    if dry_run:
        return result
    await store.begin_session(session)
    dead, last, beat = 0, 0, time.monotonic()
    batches = _batches(path, checked)
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        states, events, last = batch
        dead += (await store.write(Write(session.session_id, events, states, last))).dead
        if time.monotonic() - beat >= _BEAT:
            beat = time.monotonic()
            await store.heartbeat(session.session_id, last)
    if checked.pruned:
        await store.transact(
            lambda connection: _restored(connection, session.session_id, checked.occurrences)
        )
    ending = Ending(reason=CLOSED, last_seq=last, confirmed=result.events)
    await store.end_session(session, ending)
    return replace(result, events=result.events - dead, refused=dead)


@dataclass(slots=True)
class _Checked:
    """The result of the first reading."""

    ids: Ids
    session_id: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    job_ids: dict[str, str] = field(default_factory=dict)
    step_ids: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    """Job id → number of its attempts that have their own lines in the file."""
    parents: dict[str, str | None] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """Idempotency key → old id of its job."""
    pruned: bool = False
    """Whether the file is an archive of pruned data. It may contain events of jobs that were
    kept.
    """
    elsewhere: dict[str, int] = field(default_factory=dict)
    """Id of such a job → the first line that names it."""
    occurrences: Counter[str] = field(default_factory=Counter)
    """Fingerprint → number of events in the file."""
    last: dict[tuple[str, str], str] = field(default_factory=dict)
    """``("job" or "step", old id)`` → time of its last event."""


def _check(path: Path, ids: Ids) -> _Checked:
    """Check the whole file, and raise an error if anything is invalid."""
    checked = _Checked(ids)
    content = blake2b(digest_size=8, person=b"structjob-import", salt=ids.encode())
    try:
        for number, kind, record in read_records(path):
            if kind in NOTES:
                checked.pruned = checked.pruned or (
                    kind == "export" and "pruned_at" in record and ids == "keep"
                )
                continue
            content.update(msgspec.json.encode([kind, record]))
            try:
                _check_record(checked, number, kind, row_of(kind, record))
            except ValueError as exc:
                raise ImportRefused(f"line {number} ({kind}): {exc}") from exc
            checked.counts[kind] += 1
    except OSError as exc:
        raise ImportRefused(f"cannot read {path}: {exc.strerror or exc}") from exc
    _refuse_circles(checked.parents)
    checked.session_id = _session_of(content.digest())
    if ids == "new":
        seed = content.digest()
        checked.job_ids = {old: _new_id(seed, old) for old in checked.job_ids}
        checked.step_ids = {old: _new_id(seed, old) for old in checked.step_ids}
    return checked


def _refuse_circles(parents: Mapping[str, str | None]) -> None:
    """Refuse jobs that are their own ancestors, because a retention would find no top of such a
    family.
    """
    known: set[str] = set()
    for job_id in parents:
        way: dict[str, None] = {}
        above: str | None = job_id
        while above is not None and above in parents and above not in known:
            if above in way:
                raise ImportRefused(
                    f"the job {above!r} is its own parent{'' if parents[above] == above else ', through others'}"
                )
            way[above] = None
            above = parents[above]
        known.update(way)


def _check_record(checked: _Checked, number: int, kind: str, row: Mapping[str, Any]) -> None:
    if kind == "job":
        _enter(checked.job_ids, row["id"], "job")
        checked.parents[row["id"]] = row.get("parent_job_id")
        if (key := row.get("idempotency_key")) is not None:
            if key in checked.keys and checked.ids == "keep":
                raise ValueError(
                    f"the job {checked.keys[key]!r} has the idempotency key {key!r}, too"
                )
            checked.keys[key] = row["id"]
        return
    job_id = row.get("job_id")
    if job_id is not None and job_id not in checked.job_ids:
        if not checked.pruned or kind != "event":
            raise ValueError(f"its job {job_id!r} is not in the lines before it")
        checked.elsewhere.setdefault(job_id, number)
    if kind == "event" and row.get("fingerprint") is not None:
        checked.occurrences[row["fingerprint"]] += 1
    if kind == "attempt":
        checked.attempts[row["job_id"]] = checked.attempts.get(row["job_id"], 0) + 1
    elif kind == "step":
        _enter(checked.step_ids, row["id"], "step")
    elif row.get("step_id") is not None and job_id is None:
        raise ValueError("it has a step_id and no job_id")
    else:
        for owner in (("job", job_id or ""), ("step", row.get("step_id") or "")):
            checked.last[owner] = max(checked.last.get(owner, ""), row["ts"])


def _enter(known: dict[str, str], id_: str, kind: str) -> None:
    if id_ in known:
        raise ValueError(f"the {kind} {id_!r} is there twice")
    known[id_] = id_


def _new_id(seed: bytes, old: str) -> str:
    """Return the same new id for the same *old* id every time; a UUID of version 8."""
    text = blake2b(old.encode("utf-8", "surrogatepass"), key=seed, digest_size=16).hexdigest()
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-{int(text[16], 16) & 3 | 8:x}{text[17:20]}-{text[20:]}"


async def _refuse_known(store: StateStore, checked: _Checked) -> None:
    """Refuse jobs and steps that exist already, except those of the same file."""
    hint = "give its jobs new ids (ids='new', or --new-ids)"
    for table, known in ((tables.jobs, checked.job_ids), (tables.steps, checked.step_ids)):
        for some in portions(list(known.values()), _AT_ONCE):
            statement = select(table.c.id).where(
                table.c.id.in_(some), table.c.session_id != checked.session_id
            )
            for row in await store.fetch(statement.limit(1)):
                raise ImportRefused(
                    f"the {table.name.removeprefix('structjob_')[:-1]} {row['id']} is in the database already: {hint}"
                )
    keys = list(checked.keys) if checked.ids == "keep" else []
    jobs = tables.jobs
    for some in portions(keys, _AT_ONCE):
        held = jobs.c.idempotency_key.in_(some) & (jobs.c.session_id != checked.session_id)
        for row in await store.fetch(select(jobs.c.idempotency_key).where(held).limit(1)):
            raise ImportRefused(
                f"another job has the idempotency key {row['idempotency_key']!r} already: {hint}"
            )
    for some in portions(list(checked.elsewhere), _AT_ONCE):
        there = {
            row["id"] for row in await store.fetch(select(jobs.c.id).where(jobs.c.id.in_(some)))
        }
        for job_id in some:
            if job_id not in there:
                raise ImportRefused(
                    f"line {checked.elsewhere[job_id]} (event): its job {job_id!r} is neither in the lines before it nor in the database: "
                    "import the file that holds the job first"
                )


async def _unpruned(store: StateStore, session_id: int) -> int:
    """Return the session for a file whose derived session is *session_id*.

    If the session's imported data has been pruned since, this is the next session number.
    """
    sessions, gaps = tables.sessions, tables.gaps
    gone = select(gaps.c.session_id).join(sessions, sessions.c.session_id == gaps.c.session_id)
    while await store.fetch(
        gone.where(
            gaps.c.session_id == session_id,
            gaps.c.reason == PRUNED,
            sessions.c.end_reason == CLOSED,
        ).limit(1)
    ):
        next_one = blake2b(b"%d" % session_id, digest_size=8, person=b"structjob-import")
        session_id = _session_of(next_one.digest())
    return session_id


def _session_of(digest: bytes) -> int:
    return int.from_bytes(digest) >> 11 | 1  # 53 bits, like every session number


def _restored(connection: Connection, session_id: int, occurrences: Mapping[str, int]) -> None:
    """Subtract restored events from the pruned counts, only once, and close the session.

    A repeated call finds the session closed and does nothing.
    """
    sessions = tables.sessions
    its = (sessions.c.session_id == session_id) & (
        func.coalesce(sessions.c.end_reason, "") != CLOSED
    )
    if connection.execute(
        update(sessions).where(its).values(ended_at=utc_now(), end_reason=CLOSED)
    ).rowcount:
        count_restored(connection, occurrences)


def _batches(path: Path, checked: _Checked) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield changes of state and events as lines of the spool, with the number of the last
    event.
    """
    rows = _Rows(checked)
    number = 0
    states: list[bytes] = []
    events: list[bytes] = []
    counts: Counter[str] = Counter()
    for _, kind, record in read_records(path):
        if kind in NOTES:
            continue
        counts[kind] += 1
        row = row_of(kind, record)
        if kind == "event":
            number += 1
            events.append(_event_line(rows.event(row), number))
        else:
            states += rows.states(kind, row)
        if len(events) + len(states) >= _BATCH:
            yield b"".join(states), b"".join(events), number
            states, events = [], []
    if counts != checked.counts:
        raise ImportRefused(
            f"{path} was changed while it was read: import it again when no program writes to it"
        )
    yield b"".join(states), b"".join(events), number


class _Rows:
    """The conversion of the file's rows to rows of the database, in the order of the file."""

    def __init__(self, checked: _Checked) -> None:
        self._checked = checked
        self._jobs: dict[str, dict[str, Any]] = {}
        """Jobs whose attempts have not all been read."""
        self._left: dict[str, int] = dict(checked.attempts)
        self._operations: dict[str, str] = {}
        """Old id of each job → its operation."""
        self._steps: dict[str, str] = {}
        """Old id of each step → its name."""
        self._number = 0

    def states(self, kind: str, row: dict[str, Any]) -> list[bytes]:
        owner = row["job_id"] if kind != "job" else row["id"]
        own = self._checked.last.get((kind, row.get("id", "")))
        row = _ended(
            row,
            own or self._checked.last.get(("job", owner)),
            own if owner not in self._checked.attempts else None,
        )
        if kind == "step":
            self._steps[row["id"]] = row["name"]
            row |= {
                "id": self._checked.step_ids[row["id"]],
                "job_id": self._checked.job_ids[row["job_id"]],
            }
            row["parent_step_id"] = self._checked.step_ids.get(row.get("parent_step_id", ""))
            return [self._line("step", {"attempt": 1, "seq": 0, **row})]
        if kind == "attempt":
            job = self._jobs[row["job_id"]]
            self._left[row["job_id"]] -= 1
            lines = [self._line("job", {**job, **{name: row.get(name) for name in _OF_ATTEMPT}})]
            if not self._left[row["job_id"]]:
                # the latest attempt may have no line except the job's
                if job["attempt"] > row["attempt"]:
                    lines.append(self._line("job", job))
                del self._jobs[row["job_id"]]
            return lines
        old = row["id"]
        self._operations[old] = row["operation"]
        job = self._job(row)
        if self._left.get(old):
            self._jobs[old] = job
            return []
        return [self._line("job", job)]

    def _job(self, row: dict[str, Any]) -> dict[str, Any]:
        ids, parents = self._checked.job_ids, self._checked.parents
        new = self._checked.ids == "new"
        root, seen = row["id"], set()
        while (
            (parent := parents.get(root)) in parents and parent is not None and parent not in seen
        ):
            seen.add(parent)
            root = parent
        above = row.get("parent_job_id")
        job = {
            "category": "system",
            "attempt": int(row["status"] != "pending"),
            **row,
            "id": ids[row["id"]],
        }
        job["parent_job_id"] = ids.get(above, None if new else above) if above is not None else None
        job["root_job_id"] = (
            ids[root] if new or parents[root] is None else row.get("root_job_id", ids[root])
        )
        if new:
            job["idempotency_key"] = None  # the key belongs to the original job
        return job

    def event(self, row: dict[str, Any]) -> dict[str, Any]:
        # Another program's events may have only the ids.
        names = {
            "operation": self._operations.get(row.get("job_id") or ""),
            "step": self._steps.get(row.get("step_id") or ""),
        }
        for name, ids in (("job_id", self._checked.job_ids), ("step_id", self._checked.step_ids)):
            if row.get(name) is not None:
                row[name] = ids.get(row[name], row[name])
        attrs = row.get("attrs") or {}
        if not isinstance(attrs, dict):
            attrs = {"value": attrs}
        if isinstance(parent := attrs.get("parent_job_id"), str):
            attrs = {**attrs, "parent_job_id": self._checked.job_ids.get(parent, parent)}
        for name, known in names.items():
            if row.get(name) is None and known is not None:
                row[name] = known
        # the event comes from another program, so the fingerprint must be computed here
        if "kind" not in row:
            if (theirs := row.pop("fingerprint", None)) is not None:
                attrs = {**attrs, "fingerprint": theirs}
            if row["level"] in ("error", "critical"):
                said = str(attrs.get("error_message") or row["message"])
                row["fingerprint"] = of_words(
                    str(attrs.get("error_type") or ""), said, row.get("operation") or ""
                )
        return {**row, "attrs": attrs}

    def _line(self, kind: str, row: dict[str, Any]) -> bytes:
        self._number += 1
        plain = {
            name: _raw(value) if name in JSON_COLUMNS else value for name, value in row.items()
        }
        return seal_state(state_body(kind, plain), self._number)


def _raw(value: Any) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(encode_value(value, OF_VALUE))


_OF_ATTEMPT = tuple(
    column.name
    for column in tables.attempts.c
    if column.name not in ("job_id", "session_id", "state_seq")
)


def _ended(row: dict[str, Any], last: str | None, own: str | None) -> dict[str, Any]:
    """Return *row*, marked as crashed if it was still running, because no job runs in an import.

    *last* is the time of its last event, or of its job's. It becomes the end of a running job or
    step. A job or step that completed or failed without an end gets the time of its *own* last
    event: statistics of what ended would leave it out. A missing duration is computed.
    """
    if row["status"] == "running":
        crashed = {"error_type": "Crashed", "error_message": "it was running when it was exported"}
        row = {
            **({} if row.get("error_type") else crashed),
            "completed_at": last,
            **row,
            "status": "crashed",
        }
    elif (
        row["status"] in ("completed", "failed")
        and row.get("completed_at") is None
        and own is not None
        and own >= (row.get("started_at") or own)  # else a clock was set back
    ):
        row = {**row, "completed_at": own}
    begun, ended = row.get("started_at"), row.get("completed_at")
    if (
        row.get("duration_ms") is None
        and begun is not None
        and ended is not None
        and begun <= ended
    ):
        seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()
        row = {**row, "duration_ms": round(seconds * 1000, 3)}
    return row


def _event_line(row: dict[str, Any], number: int) -> bytes:
    time, level, message, attrs = (row.pop(name) for name in ("ts", "level", "message", "attrs"))
    second, point, micros = time.encode().partition(b".")
    body = event_body(
        second + point,
        micros,
        level_field(level),
        encode_text(message),
        encode_value(attrs),
        b"," + msgspec.json.encode(row)[1:-1] if row else b"",
    )
    return seal_event(body, number)
