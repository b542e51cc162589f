"""A job's page: all about one job as text that fits on one or two screens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from structjob.cli.failures import in_full, traceback_lines, what_failed
from structjob.cli.screen import put_rows, width_of
from structjob.cli.tables import no_sign, spent, took
from structjob.cli.times import full
from structjob.text.amounts import units, whole_percent
from structjob.text.appearance import (
    Piece,
    bar,
    colour_of,
    counted,
    interval,
    lasting,
    speaks_unicode,
    symbol,
    wrapped,
)
from structjob.text.escaping import escape
from structjob.text.rendering import Lines, retried, short, value_text
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from rich.console import Console

    from structjob.models import (
        AttemptRecord,
        ErrorInfo,
        EventRecord,
        JobRecord,
        JobTree,
        StepRecord,
    )
    from structjob.queries.overview import Descendant, Overview
    from structjob.queries.session_status import Silence
    from structjob.statistics import ErrorGroup, Estimate, Expectation

MOST = 60
"""Maximum number of lines of a page, unless all are requested."""

ROOM = 20
"""Number of steps, and of descendants with their steps, that are shown in full. If there are more,
the most important ones are selected.
"""


_NAME = 26
_INTERVAL = 18
"""Columns for the time at which something ran."""

_LONGER = 2.0
"""How many times the usual duration is remarked on."""

_DURATION = 7
"""Columns for a duration."""

_LABEL = 14
_LONGEST = 24
"""Maximum width of the names in metadata and results; longer names are followed by one space."""

Row = Sequence[Piece]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a page shows of a job besides its steps and children.

    Args:
        attempts: All its attempts.
        last: Its last lines, where they are useful.
        missing: How many of its lines were dropped, by reason.
        estimate: The expected duration of the job and its steps.
        silence: Set if its process gives no sign of life; says since when.
        group: The error that ended it, with all its occurrences.
    """

    attempts: Sequence[AttemptRecord]
    last: Sequence[EventRecord]
    missing: Mapping[str, int]
    estimate: Estimate
    silence: Silence | None
    group: ErrorGroup | None


@dataclass(frozen=True, slots=True)
class _Section:
    """Lines below a title.

    Args:
        title: The title.
        rows: The lines.
        weight: Its share of the available lines, relative to other sections.
        end: Whether the end of the section is more important than its beginning.
    """

    title: Row
    rows: Sequence[Row]
    weight: int = 1
    end: bool = False

    def cut(self, room: int) -> Sequence[Row]:
        """Return at most *room* of the lines, but at least one."""
        if len(self.rows) <= room:
            return self.rows
        left = len(self.rows) - max(room - 1, 0)
        note: Row = [
            (
                f"  … {left:,} {'earlier' if self.end else 'more'} {'line' if left == 1 else 'lines'} (--all)",
                "dim",
            )
        ]
        return (
            [note, *self.rows[left:]] if self.end else [*self.rows[: len(self.rows) - left], note]
        )


class JobPage:
    """One job as text.

    Args:
        overview: The job, and those of its steps and descendants that are shown.
        about: The other facts to show.
        screen: The output.
        utc: Times in UTC, not in local time.
        whole: Show all lines, without a limit.
    """

    def __init__(
        self, overview: Overview, about: About, screen: Console, *, utc: bool, whole: bool
    ) -> None:
        self._overview = overview
        self._job = overview.tree.job
        self._about = about
        self._slow = {step.step_id: step for step in about.estimate.steps if step.slower}
        self._screen = screen
        self._width = width_of(screen)
        self._utc = utc
        self._whole = whole
        self._now = datetime.now(UTC)
        self._lasted = max(took(self._job, self._now) or 0.0, 1e-6)

    def print(self) -> None:
        """Print the page."""
        head = [*wrapped(self._title(), self._width, 2), *self._facts()]
        put_rows(head, self._screen)
        if self._whole:
            attempts, others = (
                [(section.title, section.rows) for section in some]
                for some in (self._attempts(), self._sections())
            )
            for title, rows in (*attempts, *self._streams(), *others):
                put_rows(chain(([], title), rows), self._screen)
            return
        sections = [_Section(title, list(rows), 3) for title, rows in self._streams()]
        sections = [
            section for section in (*self._attempts(), *sections, *self._sections()) if section.rows
        ]
        room = MOST - len(head) - 2 * len(sections)
        for section, share in zip(sections, _shares(sections, room), strict=True):
            put_rows(([], section.title, *section.cut(share)), self._screen)

    # -- the head
    # --------------------------------------------------------------------------

    def _title(self) -> Row:
        job, silence = self._job, self._about.silence
        lasted = took(job, self._now)
        row: list[Piece] = [
            (
                "? " if silence else f"{symbol(job.status)} ",
                "yellow" if silence else colour_of(job.status),
            ),
            (escape(job.operation), "bold"),
            (f"  {job.status}", colour_of(job.status)),
        ]
        if lasted or (lasted is not None and job.status != "crashed"):
            # When a process was killed is unknown: its job ended after the last sign of life.
            how = {"running": " for", "crashed": ", last sign of life after"}
            row.append((f"{how.get(job.status, ' after')} {lasting(lasted)}", "dim"))
        if job.status == "running" and job.percent_complete is not None:
            row.append(
                (f"  {bar(job.percent_complete)} {whole_percent(job.percent_complete)}%", "blue")
            )
        below = self._overview.jobs
        if bad := sum(below.get(status, 0) for status in ("failed", "crashed")):
            row.append((f"  {bad:,} of {count_of(sum(below.values()), 'child job')} failed", "red"))
        return row

    def _facts(self) -> Iterator[Row]:
        job, silence = self._job, self._about.silence
        facts = {
            "id": job.id, "description": job.description, "type": job.job_type, "owner": job.owner, "project": job.project,
            "category": job.category if job.category != "system" else None,
            "external id": job.external_job_id, "context id": job.context_id,
            "process": no_sign(silence) if silence is not None else None,
            "parent": job.parent_job_id, "now": job.current_step if job.status == "running" else None,
            "started": full(job.started_at, utc=self._utc), "ended": full(job.completed_at, utc=self._utc),
            "usual": usual(self._about.estimate), "used": self._used(),
            "missing": ", ".join(f"{count_of(count, 'line')} ({reason})" for reason, count in self._about.missing.items()),
        }  # fmt: skip
        for name, value in facts.items():
            if value:
                yield from wrapped(
                    [(f"  {name:<{_LABEL - 2}}", "dim"), (escape(value), "")], self._width, _LABEL
                )

    def _used(self) -> str:
        job = self._job
        parts = []
        if job.cpu_ms is not None:
            parts.append(f"{lasting(job.cpu_ms / 1000)} CPU")
        if job.max_rss_kb is not None:
            parts.append(f"peak memory {job.max_rss_kb * 1024 / 1e6:,.0f} MB")
        return ", ".join(parts)

    # -- steps and children
    # --------------------------------------------------------------------------

    def _streams(self) -> Iterator[tuple[Row, Iterator[Row]]]:
        """Yield the section of the steps and that of the children: each a title and its rows.

        There may be 100,000 rows.
        """
        overview = self._overview
        root = overview.tree
        if overview.steps:
            hidden = Counter(overview.steps) - Counter(step.status.value for step in root.steps)
            yield (
                self._axis("Steps", overview.steps),
                chain(self._steps(root, "", picked=bool(hidden)), _hidden(hidden)),
            )
        if overview.jobs:
            title = self._axis("Child jobs", overview.jobs)
            if root.children:
                yield title, self._tree(root)
            else:
                hidden = Counter(overview.jobs) - Counter(
                    child.job.status.value for child in overview.picked
                )
                yield (
                    title,
                    chain(self._picked(overview.picked, partly=bool(hidden)), _hidden(hidden)),
                )

    def _axis(self, name: str, counts: Mapping[str, int]) -> Row:
        row: list[Piece] = [(name, "bold"), ("  ", ""), *counted(counts)]
        used = sum(len(text) for text, _ in row)
        column = _NAME + _LABEL
        if self._job.started_at is not None and used < column:
            row += [
                (" " * (column - used), ""),
                (f"0{lasting(self._lasted):>{_INTERVAL - 1}}", "dim"),
            ]
        return row

    def _steps(self, tree: JobTree, indent: str, *, picked: bool = False) -> Iterator[Row]:
        depth: dict[str | None, int] = {None: 0}
        for step in tree.steps:
            depth[step.id] = depth.get(step.parent_step_id, 0) + 1
            within = f"{indent}{'  ' * (depth[step.id] - 1)}"
            yield self._row(
                within,
                escape(step.name),
                step,
                _done(step),
                slowest=picked and step.status == "completed",
            )
            if step.error is not None:
                yield _failure(within, step.error, step.status.value)

    def _tree(self, root: JobTree) -> Iterator[Row]:
        # Without recursion: a chain of children may be longer than Python's stack.
        waiting = [(child, "") for child in reversed(root.children)]
        while waiting:
            tree, indent = waiting.pop()
            yield self._row(indent, _name(tree.job), tree.job, short(tree.job.id))
            # The error that ended a job is usually that of a step, which shows it already.
            error = tree.job.error
            if error is not None and error.message not in [
                step.error.message for step in tree.steps if step.error is not None
            ]:
                yield _failure(indent, error, tree.job.status.value)
            yield from self._steps(tree, f"{indent}  ")
            waiting += [(child, f"{indent}  ") for child in reversed(tree.children)]

    def _picked(self, picked: Sequence[Descendant], *, partly: bool) -> Iterator[Row]:
        for one in picked:
            job, parent = one.job, one.parent
            between = (
                f"{_name(parent)} › " if parent is not None and parent.id != self._job.id else ""
            )
            yield self._row(
                "",
                f"{between}{_name(job)}",
                job,
                short(job.id),
                slowest=partly and job.status == "completed",
            )
            if job.error is not None:
                yield _failure("", job.error, job.status.value)

    def _row(
        self,
        indent: str,
        name: str,
        what: StepRecord | JobRecord,
        beside: str,
        *,
        slowest: bool = False,
    ) -> Row:
        status = what.status.value
        colour = colour_of(status)
        lasted = took(what, self._now)
        room = max(_NAME - len(indent), 8)
        if self._screen.is_terminal and len(name) > room:
            name = f"{name[: room - 1]}…" if speaks_unicode() else name[:room]
        row: list[Piece] = [
            (f"  {indent}", ""),
            (f"{symbol(status)} ", colour),
            (_beside(f"{name:<{room}} ", spent(what, self._now)) + "  ", ""),
        ]
        start = self._job.started_at
        if what.started_at is not None and start is not None and lasted is not None:
            first = (what.started_at - start).total_seconds() / self._lasted
            row.append(
                (
                    interval(
                        first, first + lasted / self._lasted, _INTERVAL, still=status == "running"
                    ),
                    colour,
                )
            )
        else:
            row.append((" " * _INTERVAL, ""))
        if beside:
            row.append((f"  {beside}", "dim"))
        slow = self._slow.get(what.id)
        usual = lasting(slow.median_ms / 1000) if slow and slow.median_ms is not None else ""
        if usual and usual != lasting(lasted):
            row.append((f"  slow: usually {usual}", "yellow"))
        elif slowest:
            row.append(("  slowest", "dim"))
        if status == "retrying":
            metadata = getattr(what, "metadata", None)
            row.append((f"  {retried(metadata if isinstance(metadata, Mapping) else {})}", colour))
        elif status not in ("completed", "running"):
            row.append((f"  {status}", colour))
        return row

    # -- what stands below
    # --------------------------------------------------------------------------

    def _attempts(self) -> Iterator[_Section]:
        attempts = self._about.attempts
        if len(attempts) > 1:
            each = zip(attempts, [None, *attempts], strict=False)
            rows = [row for attempt, former in each for row in self._attempt(attempt, former)]
            yield _Section([("Attempts", "bold")], rows, end=True)

    def _attempt(self, attempt: AttemptRecord, former: AttemptRecord | None) -> Iterator[Row]:
        row: list[Piece] = [
            (f"  {symbol(attempt.status)} ", colour_of(attempt.status)), (f"{attempt.attempt:<3}", ""),
            (f"{attempt.status:<11}", colour_of(attempt.status)), (f"{spent(attempt, self._now):>8}  ", ""),
            (full(attempt.started_at, utc=self._utc), "dim"),
        ]  # fmt: skip
        if (
            former is not None
            and former.completed_at is not None
            and attempt.started_at is not None
        ):
            pause = (attempt.started_at - former.completed_at).total_seconds()
            when = (
                f"{lasting(pause)} later" if pause >= 0 else f"while attempt {former.attempt} ran"
            )
            row.append((f"  {when}", "dim"))
        yield row
        if attempt.error is not None:
            yield _failure("", attempt.error, attempt.status.value)

    def _sections(self) -> Iterator[_Section]:
        for title, value in (("Metadata", self._job.metadata), ("Result", self._job.result)):
            if value is not None:
                yield _Section([(title, "bold")], list(self._values(value)))
        yield from self._error()
        if self._about.last:
            yield _Section([("Last lines", "bold")], list(self._last_lines()), 2, end=True)

    def _values(self, value: Any) -> Iterator[Row]:
        if not isinstance(value, Mapping):
            yield from wrapped([("  ", ""), (value_text(value), "")], self._width, 4)
            return
        longest = max((len(escape(str(key))) for key in value), default=0)
        room = max(min(longest + 1, _LONGEST), _LABEL - 2)
        for key, item in value.items():
            label = f"  {escape(str(key)):<{room - 1}} "
            yield from wrapped(
                [(label, "dim"), (escape(item) if isinstance(item, str) else value_text(item), "")],
                self._width,
                min(len(label), room + 2),
            )

    def _error(self) -> Iterator[_Section]:
        error = self._job.error  # not that of a step, which the job may have recovered from
        if error is None:
            return
        rows = list(
            wrapped(
                [("  ", ""), (escape(in_full(error)), colour_of(self._job.status))], self._width, 4
            )
        )
        for line in traceback_lines(error.traceback, whole=self._whole):
            rows += wrapped([(f"    {escape(line)}", "dim")], self._width, 8)
        title: list[Piece] = [("Error", "bold")]
        group = self._about.group
        if group is not None and group.count > 1:
            title.append(
                (
                    f"  {count_of(group.count, 'time')} in {count_of(group.jobs, 'job')} since {full(group.first_seen, utc=self._utc)}",
                    "dim",
                )
            )
        yield _Section(title, rows, 2)

    def _last_lines(self) -> Iterator[Row]:
        lines = Lines(
            color=False,
            utc=self._utc,
            about=self._job.id,
            clock_only=True,
        )
        for event in self._about.last:
            for part in lines.render(event).split("\n"):
                yield from wrapped(
                    [("  ", ""), (part, "red" if event.stream == "stderr" else "")], self._width, 4
                )


def _beside(name: str, duration: str) -> str:
    """Return a padded name and a duration, right-aligned; a long one uses the name's padding."""
    longer = max(len(duration) - _DURATION, 0)
    if name.endswith(" " * (longer + 1)):
        name = name[: len(name) - longer]
    return f"{name}{duration:>{_DURATION}}"


def _failure(indent: str, error: ErrorInfo, status: str) -> Row:
    return [(f"  {indent}    ", ""), (escape(what_failed(error)), colour_of(status))]


def _name(job: JobRecord) -> str:
    """Return the name that distinguishes a job from its siblings, which often have the same
    operation.
    """
    return escape(job.description or job.operation).split("\n", 1)[0]


def _done(step: StepRecord) -> str:
    """Return the completed and the total units of a step."""
    if step.total:
        return f"{units(step.completed or 0)}/{units(step.total)}"
    return units(step.completed) if step.completed else ""


def _hidden(hidden: Counter[str]) -> Iterator[Row]:
    number = sum(hidden.values())
    if number:
        rest = counted(hidden) if len(hidden) > 1 else [(next(iter(hidden)), "dim")]
        yield [
            (f"  … {number:,} more{':' if len(hidden) > 1 else ''} ", "dim"),
            *rest,
            ("  (--all)", "dim"),
        ]


def _shares(sections: Sequence[_Section], room: int) -> list[int]:
    """Return how many of *room* lines each section gets; short sections leave their rest to long
    ones.
    """
    shares = [0] * len(sections)
    while True:
        wanting = [
            index for index, section in enumerate(sections) if shares[index] < len(section.rows)
        ]
        if not wanting or sum(shares) >= room:
            return [max(share, 1) for share in shares]
        for index in wanting:
            more = min(
                sections[index].weight,
                len(sections[index].rows) - shares[index],
                max(room - sum(shares), 0),
            )
            shares[index] += more


def usual(expected: Expectation) -> str:
    """Return how a duration compares with the former ones; empty while there are too few to
    judge.
    """
    if not expected.judged or expected.median_ms is None:
        return ""
    parts = [f"{lasting(expected.median_ms / 1000)}"]
    if expected.remaining_ms is not None:
        parts.append(f"about {lasting(expected.remaining_ms / 1000)} left")
    factor = expected.elapsed_ms / expected.median_ms if expected.median_ms else 1.0
    if expected.slower:
        longest = expected.samples < 20  # the 95th percentile of these is the longest
        share = "all" if longest else "95 % of the"
        parts.append(
            f"this is {factor:.1f} times as long, slower than {share} {expected.samples} previous runs"
        )
    elif factor >= _LONGER:
        parts.append(f"this is {factor:.1f} times as long")
    return ", ".join(parts)
