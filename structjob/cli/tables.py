"""The tables of jobs and of attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from structjob.cli.estimates import estimates_of
from structjob.cli.failures import what_failed
from structjob.cli.screen import columns
from structjob.cli.times import brief
from structjob.text.amounts import units, whole_percent
from structjob.text.appearance import bar, colour_of, counted, lasting, speaks_unicode, symbol
from structjob.text.escaping import escape
from structjob.text.rendering import short
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from structjob.cli.database import Reader
    from structjob.models import AttemptRecord, JobRecord, StepRecord
    from structjob.queries.families import Family
    from structjob.queries.session_status import Silence
    from structjob.queries.step_progress import StepProgress
    from structjob.statistics import Expectation

FAILED = ("failed", "crashed")
_HEADINGS = ("ID", "OPERATION", "STATUS", "DONE", "STARTED", "TOOK", "LEFT", "DETAIL")
_ATTEMPT_HEADINGS = ("ID", "ATTEMPT", "OPERATION", "STATUS", "STARTED", "TOOK", "DETAIL")
_OPERATION = 32
"""Maximum number of columns for an operation's name on a terminal."""


async def table(
    reader: Reader,
    jobs: Sequence[JobRecord],
    screen: Console,
    *,
    utc: bool,
    dated: bool = True,
    roots: bool = False,
    below: Mapping[str, Family] | None = None,
    compared: Mapping[str, Expectation] | None = None,
) -> list[Text]:
    """Return the headings and *jobs* as lines of a table; running jobs with their estimates.

    Args:
        reader: Reads the progress and the time left of running jobs.
        jobs: The jobs to show.
        screen: The output.
        utc: Times in UTC.
        dated: Include the times at which the jobs started.
        roots: The jobs are roots. A root that has a parent is named with it: the parent is in
            another database.
        below: The families of the jobs, which then are roots, too.
        compared: Jobs that are shown with their usual duration, and how it compares with it.
    """
    from rich.text import Text

    now = datetime.now(UTC)
    listed = list(jobs)
    if below is not None:
        listed = [
            one for job in jobs for one in (job, *(below[job.id].picked if job.id in below else ()))
        ]
    estimates = await estimates_of(reader, listed)
    # A pipe gets the whole id; on a terminal, its end is enough to type.
    rows = []
    for job in listed:
        operation = Text("└ " if job.parent_job_id is not None else "", style="dim").append(
            escape(job.operation), style="default"
        )
        if screen.is_terminal:
            operation.truncate(_OPERATION, overflow="ellipsis")
        expected = estimates.expected.get(job.id)
        details = [_detail(job, estimates.underway.get(job.id), estimates.silent.get(job.id))]
        if compared and job.id in compared:
            details.insert(0, Text(_times_longer(compared[job.id]), style="yellow"))
        family = below.get(job.id) if below is not None else None
        if family is not None and len(family.picked) < family.counts.total():
            details.insert(0, _children(family))
        if (roots or (below is not None and job in jobs)) and job.parent_job_id is not None:
            elsewhere = f"child of {escape(job.parent_job_id)}, which is not in this database"
            details.insert(0, Text(elsewhere, style="dim"))
        rows.append({
            "ID": Text(escape(short(job.id) if screen.is_terminal else job.id), style="cyan"),
            "OPERATION": operation,
            "STATUS": status_of(job.status, estimates.silent.get(job.id)),
            "DONE": Text(_done(job, estimates.underway.get(job.id))),
            "STARTED": Text(brief(job.started_at or job.created_at, utc=utc, now=now), style="dim"),
            "TOOK": Text(spent(job, now)),
            "LEFT": _left(expected) if expected is not None else Text(),
            "DETAIL": Text("; ").join(detail for detail in details if detail),
        })  # fmt: skip
    used = {"STARTED": dated, "LEFT": any(row["LEFT"] for row in rows)}
    headings = [heading for heading in _HEADINGS if used.get(heading, True)]
    spare = ("STARTED",) if any(job.status == "running" for job in listed) else ("DONE", "STARTED")
    cells = [[row[heading] for heading in headings] for row in rows]
    return columns(headings, cells, screen.width, right=("DONE", "TOOK", "LEFT"), spare=spare)


_ALMOST = 99.0
"""Maximum percentage of a running job by its steps, because it may start another step."""


def _done(job: JobRecord, underway: StepProgress | None) -> str:
    share = job.percent_complete
    if share is None and underway is not None:
        share = min(underway.percent, _ALMOST)
    if share is None:
        return ""
    percent = f"{whole_percent(share)}%"
    return f"{bar(share, 8)} {percent:>4}" if job.status == "running" else percent


def took(what: JobRecord | AttemptRecord | StepRecord, now: datetime) -> float | None:
    """Return how many seconds a job, an attempt or a step has taken; ``None`` if that is unknown.

    If it is still running, the time is counted until *now*.
    """
    if what.duration_ms is not None:
        return what.duration_ms / 1000
    end = what.completed_at if what.status.terminal else now
    if what.started_at is None or end is None:
        return None
    return max(0.0, (end - what.started_at).total_seconds())


def spent(what: JobRecord | AttemptRecord | StepRecord, now: datetime) -> str:
    """Return how long a job, an attempt or a step has taken, as text; empty if that is unknown.

    When a process was killed is unknown. So of what crashed, the time until its last sign of life
    is shown as a minimum: ``≥ 10.3s``.
    """
    seconds = took(what, now)
    if what.status != "crashed":
        return lasting(seconds)
    return f"{'≥' if speaks_unicode() else '>='} {lasting(seconds)}" if seconds else ""


def _left(expected: Expectation) -> Text:
    """Return the time left of a running job, or the usual duration if it is slower than usual.

    Returns an empty text if there is too little history to judge.
    """
    from rich.text import Text

    if not expected.judged or expected.median_ms is None:
        return Text()
    if expected.slower:
        return Text(f"usual {lasting(expected.median_ms / 1000)}", style="yellow")
    left = expected.remaining_ms
    return Text(f"~{lasting(left / 1000)}" if left is not None else "")


def _times_longer(expected: Expectation) -> str:
    """Return the usual duration, and how many times as long this one is."""
    if not expected.median_ms:
        return ""
    return f"{expected.elapsed_ms / expected.median_ms:.1f} times the usual {lasting(expected.median_ms / 1000)}"


def status_of(status: str, silence: Silence | None) -> Text:
    """Return a job's status as it is shown.

    A job that is recorded as running, but whose process gives no sign of life, gets a question
    mark.
    """
    from rich.text import Text

    if silence is not None:
        return Text("? running", style="yellow")
    return Text(f"{symbol(status)} {status}", style=colour_of(status))


def no_sign(silence: Silence) -> str:
    """Return a text which says that a process seems to be dead."""
    return f"no sign of life for {lasting(silence.seconds)} ({silence.process})"


def _children(family: Family) -> Text:
    """Return how many descendants a job has, and how many of them failed.

    The counts are by status if not all of them ended well.
    """
    from rich.text import Text

    total = family.counts.total()
    number = f"{total:,}+ child jobs" if family.partial else count_of(total, "child job")
    if failed := sum(family.counts[status] for status in FAILED):
        return Text(f"{failed:,} of {number} failed", style="red")
    if family.counts.keys() <= {"completed"}:
        return Text(number, style="dim")
    return Text(f"{number}: ", style="dim").append_text(Text.assemble(*counted(family.counts)))


def _detail(job: JobRecord, underway: StepProgress | None, silence: Silence | None) -> Text:
    """Return the most useful detail of a job: its error, its current step or its description."""
    from rich.text import Text

    if job.error is not None:
        return Text(escape(what_failed(job.error)), style=colour_of(job.status))
    if silence is not None:
        return Text(escape(no_sign(silence)), style="yellow")
    if job.status == "running" and underway is not None and underway.step is not None:
        return Text(
            f"{escape(underway.step)} {units(underway.completed or 0)}/{units(underway.total or 0)}"
        )
    if job.status == "running" and job.current_step:
        return Text(escape(job.current_step))
    return Text(escape(job.description or ""), style="dim")


async def attempt_table(
    reader: Reader, found: Sequence[AttemptRecord], screen: Console, *, utc: bool
) -> list[Text]:
    """Return the headings and the attempts as lines of a table."""
    from rich.text import Text

    now = datetime.now(UTC)
    ids = {attempt.job_id for attempt in found}
    named = await reader.lookups.operations_of(ids)
    rows = []
    for attempt in found:
        operation = Text(escape(named.get(attempt.job_id, "")))
        if screen.is_terminal:
            operation.truncate(_OPERATION, overflow="ellipsis")
        rows.append([
            Text(escape(short(attempt.job_id) if screen.is_terminal else attempt.job_id), style="cyan"),
            Text(str(attempt.attempt)),
            operation,
            status_of(attempt.status, None),
            Text(brief(attempt.started_at, utc=utc, now=now) if attempt.started_at is not None else "", style="dim"),
            Text(spent(attempt, now)),
            Text(escape(what_failed(attempt.error)), style=colour_of(attempt.status)) if attempt.error is not None else Text(),
        ])  # fmt: skip
    return columns(_ATTEMPT_HEADINGS, rows, screen.width, right=("ATTEMPT", "TOOK"))
