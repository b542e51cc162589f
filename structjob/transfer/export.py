"""Export a job as lines of JSON: the job, its children, their attempts, steps and events.

`structjob.transfer.imports` reads them.

Each line is an object with the key ``record``: ``export`` (the first line), ``job``, ``attempt``,
``step`` or ``event``. Its other keys are the fields of `JobRecord`, `AttemptRecord`, `StepRecord`
and `EventRecord`. Parents come before their children.
"""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import msgspec

from structjob.exceptions import InvalidArgument
from structjob.machine.files import follow, is_special, open_directly, open_file
from structjob.store.portions import portions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structjob.models import JobTree
    from structjob.queries.jobs import Jobs
    from structjob.queries.logs import Logs

FORMAT = 1
"""The version of the format, which the first line contains."""

_TOGETHER = 500
"""Lines per write."""

ExportFormat = Literal["jsonl", "csv", "text"]
"""``jsonl``: the job, for an import. ``csv``: its log lines as CSV. ``text``: its log lines."""

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
_SUFFIXES: dict[str, ExportFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".txt": "text",
    ".log": "text",
}
_OTHER_FORMS = (".tsv", ".xls", ".xlsx", ".parquet", ".html", ".xml", ".yaml", ".yml")

_AT_ONCE = 100
"""Number of jobs whose attempts and steps are held in memory."""

_encode = msgspec.json.Encoder().encode


async def job_lines(
    jobs: Jobs, logs: Logs, job_id: str, *, children: bool = True
) -> AsyncIterator[bytes]:
    """Yield a job as lines of JSON.

    Args:
        jobs: The query interface for jobs.
        logs: The query interface for events.
        job_id: The job's id.
        children: Whether to include its descendants. Default: true.

    Raises:
        JobNotFound: if there is no such job.
    """
    from structjob.queries.jobs import lookups_of

    lookups = lookups_of(jobs)
    found = _flat(await jobs.tree(job_id)) if children else [await jobs.get(job_id)]
    yield as_line(
        "export",
        {"format": FORMAT, "job_id": job_id, "exported_at": datetime.now(UTC), "jobs": len(found)},
    )
    for some in portions(found, _AT_ONCE):
        attempts, steps = await lookups.attempts_and_steps([job.id for job in some])
        for job in some:
            yield as_line("job", plain(job))
            for attempt in attempts.get(job.id, ()):
                yield as_line("attempt", plain(attempt))
                for step in steps.get((job.id, attempt.attempt), ()):
                    yield as_line("step", plain(step))
    async for event in logs.iterate(job_id=job_id, children=children, limit=1_000):
        yield as_line("event", plain(event))


def format_of(path: str | os.PathLike[str], wanted: ExportFormat | None = None) -> ExportFormat:
    """Return the format of an export to *path*: *wanted*, or the one of the file's extension.

    A file without a known extension is ``jsonl`` by default.

    Raises:
        InvalidArgument: if there is no such format, or the extension means another one.
    """
    if wanted is not None and wanted not in FORMATS:
        raise InvalidArgument(f"format must be one of {', '.join(FORMATS)}, not {wanted!r}")
    name = Path(path).name
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    named = _SUFFIXES.get(suffix)
    if suffix in _OTHER_FORMS or (wanted is not None and named not in (None, wanted)):
        raise InvalidArgument(
            f"a job is exported as {wanted or 'jsonl, csv or text'}, but the suffix of {name} says "
            "something else: use .jsonl for the job, which can be imported, .csv or .txt for its "
            "log lines; add .gz to compress it"
        )
    return wanted or named or "jsonl"


def _flat(tree: JobTree) -> list[Any]:
    """Return the jobs of a tree, parents before children."""
    waiting = [tree]
    for one in waiting:  # the list grows during the iteration
        waiting.extend(one.children)
    return [one.job for one in waiting]


def plain(record: Any) -> dict[str, Any]:
    """Return a record as a dictionary, without the fields that are ``None``."""
    return {
        field.name: value
        for field in fields(record)
        if (value := getattr(record, field.name)) is not None
    }


def as_line(kind: str, values: dict[str, Any]) -> bytes:
    """Return a record as a line of JSON."""
    return _encode({"record": kind, **values}) + b"\n"


async def write_lines(lines: AsyncIterator[bytes], path: str | os.PathLike[str]) -> int:
    """Write *lines* to a file, and return their number.

    The file is compressed if its name ends in ``.gz``. It appears under its name only when it is
    complete.
    """
    number = 0
    with _replaced(Path(path)) as file:
        waiting: list[bytes] = []
        async for line in lines:
            waiting.append(line)
            number += 1
            if len(waiting) >= _TOGETHER:
                await asyncio.to_thread(file.write, b"".join(waiting))
                waiting.clear()
        file.write(b"".join(waiting))
    return number


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces *path* on success.

    The file is accessible only to its owner. If *path* is a pipe or a device, it is written to
    directly.
    """
    opener: Callable[[IO[bytes]], AbstractContextManager[IO[bytes]]]
    opener = gzipped if path.suffix == ".gz" else nullcontext
    if is_special(path):  # a device or a pipe must not be replaced by a file
        with (
            os.fdopen(open_file(path, os.O_WRONLY, special=True), "wb") as raw,
            opener(raw) as file,
        ):
            yield file
        return
    path = follow(path)  # a link at the path stays, and its target is replaced
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = open_directly(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as raw, opener(raw) as file:
            yield file
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def gzipped(raw: IO[bytes]) -> IO[bytes]:
    """Return a file that writes compressed data to *raw*; closing it leaves *raw* open."""
    return gzip.GzipFile(fileobj=raw, mode="wb", mtime=0)  # type: ignore[return-value]  # it has all methods that are used
