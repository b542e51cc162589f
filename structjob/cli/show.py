"""``structjob show``: all about one job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from structjob.amounts import units, whole_percent
from structjob.cli import options
from structjob.cli.completion import job_ids
from structjob.cli.ids import tail
from structjob.cli.jobs import OURS, no_sign, took, what_failed
from structjob.cli.lines import retried
from structjob.cli.moments import full, lasting
from structjob.cli.screen import Failure, Piece, command_line, console, put_json, put_rows, suggest
from structjob.cli.status import bar, colour_of, span, symbol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from structjob.cli.database import Database, Reader
    from structjob.models import AttemptRecord, ErrorInfo, Event, JobRecord, JobTree, StepRecord
    from structjob.statistics import Expectation, Outlook
    from structjob.store.presence import Silence

TRACEBACK = 12
"""Lines of a traceback that are shown: its end, where the error is."""

LAST = 5
"""Lines of the log that are shown of a job that went wrong."""

_NAME = 34


@click.command(
    epilog="""\b
Examples:
  structjob show 019a3f7c              the beginning of an id will do
  structjob show gui-17                so will your own external or context id
  structjob show 019a3f7c --json"""
)
@click.argument("id_", metavar="ID", shell_complete=job_ids)
@options.utc
@options.json_output
@options.database
def show(id_: str, db: Database, *, as_json: bool, utc: bool) -> None:
    """Show one job: its steps, attempts, children, result and first error."""
    from structjob.cli.database import execute

    execute(_show(id_, db, as_json=as_json, utc=utc))


async def _show(given: str, db: Database, *, as_json: bool, utc: bool) -> None:
    from structjob.cli.database import reading
    from structjob.cli.ids import prefixes, resolve
    from structjob.store import presence
    from structjob.store.outlook import look

    async with reading(db) as reader:
        job = await resolve(reader, given)
        tree = await reader.jobs.tree(job.id)
        attempts = await reader.jobs.history(job.id)
        missing = await reader.jobs.missing(job.id)
        outlook = await look(reader.fetch, tree.job, tree.steps, datetime.now(UTC))
        silences = await presence.silences(reader.fetch, {job.session_id} if job.status == "running" and job.session_id is not None else ())
        if as_json:
            about = {"attempts": attempts, "steps": tree.steps, "children": tree.children, "missing": missing, "outlook": outlook}
            try:
                put_json({"job": tree.job, **about})
            except RecursionError:
                why = f"the children of {job.id} are nested too deeply for one JSON value"
                raise Failure(why, hint=command_line("export", job.id, db=db.option)) from None
            return
        short = (await prefixes(reader, [job.id]))[job.id]
        page = Page(tree, attempts, await _last_lines(reader, job), missing, outlook, next(iter(silences.values()), None), utc=utc)
        page.print(console())
        suggest(command_line("logs", short, *_narrowed(job), db=db.option))


def _narrowed(job: JobRecord) -> tuple[str, ...]:
    """Return the options of ``structjob logs`` that lead to what one wants to see of *job*."""
    if job.status == "running":
        return ("-f",)
    if job.status == "crashed":
        return ("--tail", "50")
    # What a command prints has no levels.
    return ("-l", "warning") if job.status == "failed" and job.job_type != "command" else ()


async def _last_lines(reader: Reader, job: JobRecord) -> list[Event]:
    """Return the last lines before the end of a job that went wrong, where no traceback says more."""
    if job.status not in ("failed", "crashed") or (job.error is not None and _raised(job.error.traceback)):
        return []
    page = await reader.logs.list(job_id=job.id, children=True, order="desc", limit=4 * LAST)
    return [event for event in page if event.kind in ("log", "output")][:LAST][::-1]


class Page:
    """One job as text.

    Args:
        tree: The job with its steps and children.
        attempts: All attempts at it.
        last: Its last lines, where they are of use.
        missing: How many of its lines were given up, by reason.
        outlook: What it and its steps were to be expected to take.
        silence: Since when its process gives no sign of life, if it gives none.
        utc: Times in UTC, not in local time.
    """

    def __init__(
        self,
        tree: JobTree,
        attempts: list[AttemptRecord],
        last: list[Event],
        missing: Mapping[str, int],
        outlook: Outlook,
        silence: Silence | None,
        *,
        utc: bool,
    ) -> None:
        self._tree = tree
        self._job = tree.job
        self._attempts = attempts
        self._last = last
        self._missing = missing
        self._outlook = outlook
        self._silence = silence
        self._slow = {step.step_id: step for step in outlook.steps if step.slower}
        self._utc = utc
        self._now = datetime.now(UTC)
        self._whole = max(took(tree.job, self._now) or 0.0, 1e-6)

    def print(self, screen: Console) -> None:
        """Print it."""
        self._head(screen)
        if len(self._attempts) > 1:
            each = zip(self._attempts, [None, *self._attempts], strict=False)
            self._section(screen, "Attempts", (self._attempt(attempt, former) for attempt, former in each))
        if self._tree.steps or self._tree.children:
            self._title(screen, "Steps")
            put_rows(self._steps(self._tree), screen)
        for title, value in (("Metadata", self._job.metadata), ("Result", self._job.result)):
            if value is not None:
                self._section(screen, title, _values(value))
        self._error(screen)

    def _head(self, screen: Console) -> None:
        from rich.text import Text

        from structjob.sinks import escape

        job = self._job
        lasted = took(job, self._now)
        title = Text("? " if self._silence else f"{symbol(job.status)} ", style="yellow" if self._silence else colour_of(job.status))
        title.append(escape(job.operation), style="bold")
        title.append(f"  {job.status}", style=colour_of(job.status))
        if lasted is not None:
            title.append(f" {'for' if job.status == 'running' else 'after'} {lasting(lasted)}", style="dim")
        if job.status == "running" and job.percent_complete is not None:
            title.append(f"  {bar(job.percent_complete)} {whole_percent(job.percent_complete)}%", style="blue")
        screen.print(title, soft_wrap=True)
        facts = {
            "id": job.id, "description": job.description, "type": job.job_type, "owner": job.owner, "project": job.project,
            "category": job.category if job.category != "system" else None,
            "external id": job.external_job_id, "context id": job.context_id,
            "process": no_sign(self._silence) if self._silence is not None else None,
            "parent": job.parent_job_id, "now": job.current_step if job.status == "running" else None,
            "started": full(job.started_at, utc=self._utc), "ended": full(job.completed_at, utc=self._utc), "usual": usual(self._outlook),
            "used": self._used(),
            "missing": ", ".join(f"{count:,} lines ({reason})" for reason, count in self._missing.items()),
        }  # fmt: skip
        for name, value in facts.items():
            if value:
                screen.print(Text(f"  {name:<12}", style="dim") + Text(escape(value)), soft_wrap=True)

    def _used(self) -> str:
        job = self._job
        parts = []
        if job.cpu_ms is not None:
            parts.append(f"{lasting(job.cpu_ms / 1000)} CPU")
        if job.max_rss_kb is not None:
            parts.append(f"{job.max_rss_kb / 1024:,.0f} MB memory at most")
        return ", ".join(parts)

    @staticmethod
    def _title(screen: Console, title: str) -> None:
        from rich.text import Text

        screen.print()
        screen.print(Text(title, style="bold"))

    def _section(self, screen: Console, title: str, lines: Iterable[Text]) -> None:
        self._title(screen, title)
        for line in lines:
            screen.print(line, soft_wrap=True)

    def _attempt(self, attempt: AttemptRecord, former: AttemptRecord | None) -> Text:
        from rich.text import Text

        from structjob.sinks import escape

        line = Text(f"  {symbol(attempt.status)} ", style=colour_of(attempt.status))
        line.append(f"{attempt.attempt:<3}", style="default")
        line.append(f"{attempt.status:<11}")
        line.append(f"{lasting(took(attempt, self._now)):>8}  ", style="default")
        line.append(full(attempt.started_at, utc=self._utc), style="dim")
        if former is not None and former.completed_at is not None and attempt.started_at is not None:
            line.append(f"  {lasting(max(0.0, (attempt.started_at - former.completed_at).total_seconds()))} later", style="dim")
        if attempt.error is not None:
            line.append(f"  {escape(what_failed(attempt.error))}")
        return line

    def _steps(self, root: JobTree) -> Iterator[Sequence[Piece]]:
        from structjob.sinks import escape

        # Without recursion: a chain of children may be longer than Python's stack.
        waiting = [(root, "")]
        while waiting:
            tree, indent = waiting.pop()
            if tree is not root:
                # The children of one parent are many and alike: what tells them apart stands in their description.
                name = escape(tree.job.description or tree.job.operation)
                yield self._bar(f"{indent[:-4]}└ ", name, tree.job, f"  {tail(tree.job.id)}")
            depth: dict[str | None, int] = {None: 0}
            for step in tree.steps:
                depth[step.id] = depth.get(step.parent_step_id, 0) + 1
                yield self._bar(f"{indent}{'  ' * (depth[step.id] - 1)}", escape(step.name), step, _done(step))
            waiting += [(child, f"{indent}    ") for child in reversed(tree.children)]

    def _bar(self, indent: str, name: str, what: StepRecord | JobRecord, done: str) -> Sequence[Piece]:
        from structjob.sinks import escape

        status = what.status.value
        colour = colour_of(status)
        lasted = took(what, self._now)
        line: list[Piece] = [
            (f"  {indent}", ""), (f"{symbol(status)} ", colour), (f"{name:<{max(_NAME - len(indent), 1)}} {lasting(lasted):>8}  ", ""),
        ]  # fmt: skip
        start = self._job.started_at
        if what.started_at is not None and start is not None and lasted is not None:
            first = (what.started_at - start).total_seconds() / self._whole
            before, within, after = span(first, first + lasted / self._whole)
            line += ((before, "dim"), (within, colour), (after, "dim"))
        if done:
            line.append((done, "dim"))
        if (slow := self._slow.get(what.id)) is not None and slow.median_ms is not None:
            line.append((f"  slow: usually {lasting(slow.median_ms / 1000)}", "yellow"))
        if status == "retrying":
            line.append((f"  {retried(what.metadata if isinstance(what.metadata, Mapping) else {})}", colour))
        elif status not in ("completed", "running"):
            line.append((f"  {status}", colour))
        # A job's error is that of one of its steps, most often: it is told there.
        if what.error is not None and hasattr(what, "name"):
            line.append((f": {escape((what.error.message or what.error.type).splitlines()[0])}", colour))
        return line

    def _error(self, screen: Console) -> None:
        from rich.text import Text

        from structjob.cli.lines import Lines, today
        from structjob.cli.screen import coloured
        from structjob.sinks import escape

        error = self._job.error or next((step.error for step in self._tree.steps if step.status == "failed"), None)
        if error is not None:
            screen.print()
            screen.print(Text("Error", style="bold"))
            screen.print(
                Text(
                    f"  {escape(_in_full(error))}",
                    style=colour_of(self._job.status),
                ),
                soft_wrap=True,
            )
            if _raised(error.traceback):
                traceback = (error.traceback or "").rstrip("\n").split("\n")
                if len(traceback) > TRACEBACK:
                    traceback = [f"… {len(traceback) - TRACEBACK} lines before", *traceback[-TRACEBACK:]]
                for line in traceback:
                    screen.print(Text(f"    {escape(line)}", style="dim"), soft_wrap=True)
        if self._last:
            import sys

            screen.print()
            screen.print(Text("Last lines", style="bold"))
            lines = Lines(colour=coloured(sys.stdout), utc=self._utc, about=self._job.id, terminal=True, dated=today(utc=self._utc))
            for event in self._last:
                for part in lines.render(event).split("\n"):
                    screen.print(Text.from_ansi(f"  {part}"), soft_wrap=True)


def _done(step: StepRecord) -> str:
    """Return how many units of a step are done, of how many."""
    if step.total:
        return f"  {units(step.done or 0)}/{units(step.total)}"
    return f"  {units(step.done)}" if step.done else ""


def usual(expected: Expectation) -> str:
    """Return what a duration is beside the former ones; nothing while those are too few to judge by."""
    if not expected.judged or expected.median_ms is None:
        return ""
    parts = [f"{lasting(expected.median_ms / 1000)} as a rule"]
    if expected.remaining_ms is not None:
        parts.append(f"about {lasting(expected.remaining_ms / 1000)} left")
    if expected.slower:
        parts.append(f"slower than 95 % of the {expected.samples} before it")
    return ", ".join(parts)


def _raised(traceback: str | None) -> bool:
    """Return whether *traceback* shows more than the error's message."""
    return traceback is not None and 'File "' in traceback


def _values(value: Any) -> Iterator[Text]:
    from rich.text import Text

    from structjob.cli.lines import value_text
    from structjob.sinks import escape

    if isinstance(value, Mapping):
        for key, item in value.items():
            yield Text(f"  {escape(str(key)):<14}", style="dim") + Text(
                f" {escape(item) if isinstance(item, str) else value_text(item)}", style="default"
            )
    else:
        yield Text(f"  {value_text(value)}")


def _in_full(error: ErrorInfo) -> str:
    """Return an error with all lines of its message; see `what_failed`."""
    if not error.message:
        return error.type
    return error.message if error.type in OURS else f"{error.type}: {error.message}"
