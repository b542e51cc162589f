"""``structjob stats``: outcomes, durations and amounts of jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.database import execute, reading
from structjob.cli.filtering import job_labels
from structjob.cli.screen import command_line, console, put_json, put_table, say, suggest
from structjob.cli.times import full, midnight, moment, stretch
from structjob.text.amounts import in_bytes
from structjob.text.appearance import bar, lasting
from structjob.text.escaping import escape

if TYPE_CHECKING:
    from rich.text import Text

    from structjob.cli.database import Database
    from structjob.statistics import (
        ErrorInterval,
        ErrorStatistics,
        JobErrors,
        Storage,
        Summary,
        Throughput,
        Volume,
    )

_STRETCHES = tuple(
    timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 6 * 60, 24 * 60, 7 * 24 * 60)
)
_ROWS = 48
"""Number of time intervals that a person can take in at once."""

_TYPED = "structjob.stats"
_WINDOW = frozenset({"since", "until"})
_OF_JOBS = _WINDOW | {"by", "operation", "project", "job_type", "owner", "category"}
_OF_WINDOWS = frozenset({"operations", "steps", "projects", "throughput"})
_ACCEPTED: Mapping[str, frozenset[str]] = {
    "operations": _OF_JOBS | {"limit"},
    "steps": _OF_JOBS | {"limit"},
    "projects": _OF_JOBS | {"limit"},
    "throughput": _OF_JOBS | {"bucket"},
    "errors": _WINDOW | {"operation", "project", "limit", "bucket"},
    "errors-by-job": _WINDOW | {"operation", "project", "limit"},
    "volume": _WINDOW | {"project"},
    "storage": frozenset(),
}
"""The statistics, and the options that each takes."""


class _Stats(click.Command):
    """The command. A name in place of a statistic, or after it, gets what to type."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        what: str = ctx.params.get("what", "")
        if what in _ACCEPTED and rest and not ctx.resilient_parsing:
            ctx.fail(options.misplaced(ctx, rest[0], _instead(what)))
        return rest


def _instead(what: str) -> Sequence[tuple[tuple[str, ...], str]]:
    words = () if what == "operations" else (what,)
    if "operation" not in _ACCEPTED[what]:
        return []
    return [(("stats", *words, "--operation", "{}"), "only this operation")]


def _statistic(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value not in _ACCEPTED:
        ctx.fail(
            f"{value!r} is not a statistic ({', '.join(_ACCEPTED)}); for one operation, type "
            + command_line("stats", "--operation", value, db=options.db_option(ctx))
        )
    return value


def _window(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Parse a time, and keep the text for the next command."""
    ctx.meta[f"{_TYPED}.{param.name}"] = value
    return moment(ctx, param, value)


@click.command(
    cls=_Stats,
    epilog="""\b
WHAT is one of
  operations     jobs of each operation: number by status, success rate, durations of the completed ones (the default)
  steps          the same for their steps
  projects       the same for the jobs of each project
  throughput     the same for the jobs that ended in each interval; by default each hour of the last 24 hours
  errors         number of errors of each type, by step and operation; with --bucket: in each interval
  errors-by-job  jobs with the most error lines
  volume         number of log lines by type, level and category
  storage        rows and bytes of each table, and of the file
\b
Examples:
  structjob stats --since 1h                        jobs that ended in the last hour
  structjob stats steps --operation nightly
  structjob stats errors --bucket 1h                errors per hour, by type
  structjob stats throughput --since 7d --bucket 1d
  structjob stats volume --json | jq .by_level

P50, P95 and P99 are percentiles by nearest rank: each is one of the measured durations.""",
)
@click.argument(
    "what",
    callback=_statistic,
    shell_complete=lambda ctx, param, typed: [one for one in _ACCEPTED if one.startswith(typed)],
    metavar="[WHAT]",
    default="operations",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=_window,
    help="Only jobs and steps that ended (see --by), and lines that were logged, from this time on: 3h, 2d, today, 2026-05-04.",
)
@click.option("--until", metavar="TIME", callback=_window, help="The same, before this time.")
@click.option(
    "--by",
    type=click.Choice(("created", "ended")),
    help="Whether --since and --until mean when jobs were created (steps: started) or when they ended.  [default: ended]",
)
@job_labels
@click.option(
    "--bucket",
    metavar="SPAN",
    callback=stretch,
    help="For throughput and errors: length of the intervals: 15m, 1h, 1d. They begin at round times; the first may begin before --since.",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Maximum number of rows, the largest first.  [default: 100]",
)
@options.utc
@options.json_and_db
def stats(what: str, db: Database, *, as_json: bool, utc: bool, **given: Any) -> None:
    """Show statistics of jobs, steps and lines."""
    wanted = {name: value for name, value in given.items() if value is not None}
    if odd := [name for name in wanted if name not in _ACCEPTED[what]]:
        named = ", ".join("--" + ("type" if name == "job_type" else name) for name in odd)
        raise click.UsageError(f"stats {what} does not take {named}.")
    if what in _OF_WINDOWS and (what == "throughput" or not _WINDOW.isdisjoint(wanted)):
        wanted.setdefault("by", "ended")
    typed = {name: click.get_current_context().meta[f"{_TYPED}.{name}"] for name in sorted(_WINDOW)}
    execute(_stats(_Question(what, db, wanted, typed, as_json=as_json, utc=utc)))


@dataclass(frozen=True, slots=True)
class _Question:
    what: str
    db: Database
    filters: dict[str, Any]
    typed: Mapping[str, str | None]
    as_json: bool
    utc: bool

    def same(self, *names: str) -> list[str]:
        """Return the options that select the same window, and the same values of the filters
        *names*, in the next command.
        """
        kept = {**self.typed, **{name: self.filters.get(name) for name in names}}
        words = [
            word
            for name, value in kept.items()
            if value is not None
            for word in (f"--{'type' if name == 'job_type' else name}", str(value))
        ]
        return [*words, "--utc"] if self.utc else words


async def _stats(asked: _Question) -> None:
    async with reading(asked.db) as reader:
        over_time = asked.what == "throughput" or "bucket" in asked.filters
        filters = _bucketed(asked) if over_time else asked.filters
        found: Any = await getattr(reader.stats, asked.what.replace("-", "_"))(**filters)
    if asked.as_json:
        put_json(found)
        return
    if found:  # only a list can be empty
        errors_over_time = over_time and asked.what == "errors"
        table = _errors_over_time if errors_over_time else _TABLES[asked.what]
        headings, rows = table(found, asked)
        put_table(console(), headings, rows, right=_NUMBERS, spare=("P50", "P99", "AVG"))
    _advise(found, asked)


def _bucketed(asked: _Question) -> dict[str, Any]:
    """Return the filters with a bucket, and with a window that starts at a round time.

    So whole intervals can be compared.
    """
    from structjob.queries.buckets import FIRST

    filters = dict(asked.filters)
    until = filters.setdefault("until", datetime.now(UTC))
    since = filters.get("since") or until - min(timedelta(days=1), until - FIRST)
    bucket = filters.setdefault(
        "bucket",
        next((one for one in _STRETCHES if (until - since) <= _ROWS * one), _STRETCHES[-1]),
    )
    if bucket:
        # the start would be in the year 0, which does not exist
        with suppress(OverflowError, ValueError):
            filters["since"] = since - (since - midnight(since, utc=asked.utc)) % bucket
    return filters


def _advise(found: Any, asked: _Question) -> None:
    """Report what is not on the screen, and suggest the next useful command."""
    option, filters = asked.db.option, asked.filters
    if isinstance(found, list) and not found:
        narrowed = options.selection()
        say(
            f"nothing to count with {narrowed}"
            if narrowed
            else f"nothing to count in {asked.db.shown} yet"
        )
        if narrowed:
            suggest(command_line("stats", asked.what, db=option))
        return
    if (
        isinstance(found, list)
        and len(found) == filters.get("limit", 100)
        and asked.what != "throughput"
        and "bucket" not in filters
    ):
        say(
            f"Showing the {len(found):,} largest (more may exist): --limit {min(10 * len(found), 10_000)}"
        )
    if asked.what == "operations":
        by = ("by",) if any(asked.typed.values()) else ()
        same = asked.same(*by, "project", "job_type", "owner", "category")
        worst = max(found, key=lambda one: one.failed + one.crashed)
        status = [name for name, n in (("failed", worst.failed), ("crashed", worst.crashed)) if n]
        if status:
            words: tuple[str, ...] = (
                "jobs",
                "--status",
                ",".join(status),
                "--operation",
                worst.operation,
            )
        else:
            words = ("stats", "steps", "--operation", found[0].operation)
        suggest(command_line(*words, *same, db=option))
    elif asked.what == "errors":
        suggest(command_line("errors", *asked.same("operation", "project"), db=option))
    elif asked.what == "errors-by-job":
        suggest(command_line("logs", found[0].job_id, "-l", "error", *asked.same(), db=option))
    elif asked.what == "volume" and any(
        found.by_level.get(level) for level in ("error", "critical")
    ):
        same = asked.same("project")
        suggest(command_line("logs", "-l", "error", "--last", "20", *same, db=option))


# -- tables: headings and rows
# --------------------------------------------------------------------------

_Table = tuple[tuple[str, ...], list[list["Text"]]]
_OUTCOMES = ("TOTAL", "COMPLETED", "FAILED", "CRASHED", "SUCCESS", "AVG", "P50", "P95", "P99")
_NUMBERS = frozenset(
    {*_OUTCOMES, "COUNT", "JOBS", "ERRORS", "LINES", "RATE", "SHARE", "ROWS", "SIZE"}
)


def _cells(*texts: str) -> list[Text]:
    from rich.text import Text

    return [Text(escape(text)) for text in texts]


def _outcomes(one: Summary) -> list[Text]:
    from rich.text import Text

    def count(number: int, style: str = "") -> Text:
        return Text(f"{number:,}", style=style if number else "dim")

    rate = "" if one.success_rate is None else percentage(one.success_rate)
    durations = (one.avg_ms, one.p50_ms, one.p95_ms, one.p99_ms)
    return [
        count(one.total),
        count(one.completed, "green"),
        count(one.failed, "red"),
        count(one.crashed, "magenta"),
        Text(rate),
        *(Text("" if ms is None else lasting(ms / 1000)) for ms in durations),
    ]


def percentage(value: float) -> str:
    """Return a percentage with one digit.

    It shows 0 % and 100 % only for exact values: values close to them become ``<0.1%`` and
    ``>99.9%``.
    """
    if 0 < value < 0.05:
        return "<0.1%"
    if 99.95 <= value < 100:
        return ">99.9%"
    return f"{value:.1f}%"


def _by(*names: str) -> Callable[[Sequence[Summary], _Question], _Table]:
    """Return the function for a table of outcomes, with the columns *names*."""

    def table(found: Sequence[Summary], asked: _Question) -> _Table:
        rows = []
        for one in found:
            values = [getattr(one, name) for name in names]
            texts = ("(none)" if value is None else value for value in values)
            rows.append([*_outcomes(one), *_cells(*texts)])
        return (*_OUTCOMES, *(name.upper() for name in names)), rows

    return table


def _throughput(found: Sequence[Throughput], asked: _Question) -> _Table:
    most = max(one.total for one in found) or 1
    rows = []
    for one in found:
        start = full(one.start, utc=asked.utc)[:16]
        rows.append(
            [
                *_cells(start),
                *_outcomes(one),
                *_cells(bar(100 * one.total / most, 20) if one.total else ""),
            ]
        )
    return ("FROM", *_OUTCOMES, ""), rows


def _errors_over_time(found: Sequence[ErrorInterval], asked: _Question) -> _Table:
    most = max(one.total for one in found) or 1
    rows = [
        _cells(
            full(one.start, utc=asked.utc)[:16],
            f"{one.total:,}",
            bar(100 * one.total / most, 20) if one.total else "",
            ", ".join(f"{kind} {count:,}" for kind, count in [*one.counts.items()][:_TYPES]),
        )
        for one in found
    ]
    return ("FROM", "COUNT", "", "MOST FREQUENT"), rows


_TYPES = 3
"""Number of types of errors that are named for each interval."""


def _errors(found: Sequence[ErrorStatistics], asked: _Question) -> _Table:
    rows = [
        _cells(
            f"{one.count:,}",
            f"{one.jobs:,}",
            full(one.last_seen, utc=asked.utc)[:16],
            one.operation or "(no job)",
            one.step or "",
            one.type,
        )
        for one in found
    ]
    return ("COUNT", "JOBS", "LAST SEEN", "OPERATION", "STEP", "ERROR"), rows


def _errors_by_job(found: Sequence[JobErrors], asked: _Question) -> _Table:
    rows = [
        _cells(
            f"{one.errors:,}",
            f"{one.total:,}",
            percentage(one.error_rate),
            one.job_id,
            one.status or "",
            one.operation or "",
        )
        for one in found
    ]
    return ("ERRORS", "LINES", "RATE", "ID", "STATUS", "OPERATION"), rows


def _volume(found: Volume, asked: _Question) -> _Table:
    rows = []
    for name, counts in (
        ("type", found.by_type),
        ("level", found.by_level),
        ("category", found.by_category),
    ):
        for value, n in counts.items():
            share = 100 * n / found.total
            rows.append(_cells(f"{n:,}", percentage(share), bar(share, 20), name, value))
    rows.append(_cells(f"{found.total:,}", "", "", "", "in all"))
    return ("LINES", "SHARE", "", "BY", "VALUE"), rows


def _storage(found: Storage, asked: _Question) -> _Table:
    rows = [_cells(f"{one.rows:,}", in_bytes(one.bytes), one.table) for one in found.tables]
    rows.append(
        _cells(f"{sum(one.rows for one in found.tables):,}", in_bytes(found.bytes), "in all")
    )
    return ("ROWS", "SIZE", "TABLE"), rows


_TABLES: Mapping[str, Callable[[Any, _Question], _Table]] = {
    "operations": _by("operation"),
    "steps": _by("operation", "step"),
    "projects": _by("project"),
    "throughput": _throughput,
    "errors": _errors,
    "errors-by-job": _errors_by_job,
    "volume": _volume,
    "storage": _storage,
}
