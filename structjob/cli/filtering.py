"""The options that select jobs or log lines, and the `LogFilter` fields that the latter become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from structjob.cli import options
from structjob.cli.completion import operations
from structjob.decoding import NOT_JSON
from structjob.models import STREAMS

F = TypeVar("F", bound=Callable[..., Any])

LEVELS = ("debug", "info", "success", "warning", "error", "critical", "warn", "fatal")

_NAMES = (
    "since", "until", "level", "levels", "attrs", "text", "step", "stream", "type", "kind", "logger", "source", "category", "project",
    "correlation_id", "correlated", "trace_id", "attempt", "operation", "fingerprint",
)  # fmt: skip


def attributes(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Parse ``key=value`` options. A value that is valid JSON is parsed; any other value is stored
    as text.
    """
    found: dict[str, Any] = {}
    if not values:
        # before the import: `structjob run` must work even in a broken installation
        return found
    import msgspec

    for given in values:
        key, equals, value = given.encode("utf-8", "backslashreplace").decode().partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{given!r} is not key=value", ctx, param)
        try:
            found[key] = msgspec.json.decode(value)
        except NOT_JSON:
            found[key] = value
    return found


def operation(help: str) -> Callable[[F], F]:
    """Add ``--operation``."""
    return click.option("--operation", shell_complete=operations, metavar="TEXT", help=help)


def correlation_id(help: str) -> Callable[[F], F]:
    """Add ``--correlation-id``."""
    return click.option(
        "--correlation-id", "--correlation", "correlation_id", metavar="ID", help=help
    )


def where(name: str, help: str) -> Callable[[F], F]:
    """Add ``--where``; the command receives it as *name*."""
    return click.option(
        "-w", "--where", name, multiple=True, metavar="KEY=VALUE", callback=attributes, help=help
    )


_LABELS = (
    click.option("--type", "job_type", metavar="TEXT", help="Only jobs of this type."),
    operation("Only jobs with this operation (the name of the job)."),
    click.option("--owner", metavar="TEXT", help="Only jobs of this owner."),
    click.option("--category", metavar="TEXT", help="Only jobs of this category."),
    click.option("--project", metavar="TEXT", help="Only jobs of this project."),
)


def job_labels(function: F) -> F:
    """Add the options that select jobs by the labels that programs give them."""
    return _with(function, _LABELS)


_SINCE, _UNTIL = (
    options.time("--since", "Only lines from this time on: an age (3h, 2d, 1h30m), today, yesterday, or a time (13:30, 2026-05-04T13:30)."),
    options.time("--until", "Only lines before this time."),
)  # fmt: skip
_REFUSED_UNTIL = click.option("--until", hidden=True)

_OPTIONS = (
    click.option(
        "-l",
        "--level",
        type=options.OneOrMore(LEVELS, case_sensitive=False),
        metavar="LEVEL",
        help="Only lines of this level and above: debug, info, success, warning, error, critical.",
    ),
    click.option(
        "--exact",
        is_flag=True,
        help="With --level: only lines of exactly this level, or of several: -l info,error.",
    ),
    where("attrs", "Only lines whose attribute has this value; may be repeated."),
    click.option(
        "--grep", "text", metavar="TEXT", help="Only lines whose message contains this text."
    ),
    operation("Only lines of jobs with this operation."),
    click.option("--step", metavar="NAME", help="Only lines of this step."),
    click.option(
        "--attempt", type=click.IntRange(1), metavar="N", help="Only lines of this attempt."
    ),
    options.several(
        "--stream",
        choices=STREAMS,
        help="Only lines of this stream: output of a program (stdout, stderr), or log calls (system)",
    ),
    options.several(
        "--scope",
        "type",
        choices=("system", "job", "task"),
        help="Only lines outside jobs (system), of a job but no step (job), or of a step (task)",
    ),
    click.option("--system", is_flag=True, hidden=True),
    click.option(
        "--kind",
        metavar="NAME",
        multiple=True,
        callback=options.separated,
        help="Only lines of this kind: log, output, step_start, step_end, operation_end, progress and others; may be repeated, or take several with commas.",
    ),
    click.option("--logger", metavar="NAME", help="Only lines of this logger."),
    click.option("--source", hidden=True),
    click.option("--category", metavar="NAME", help="Only lines of this category."),
    click.option("--project", metavar="NAME", help="Only lines of this project."),
    correlation_id("Only lines with this correlation id."),
    click.option(
        "--correlated/--uncorrelated",
        default=None,
        help="Only lines that have a correlation id, or only lines that have none.",
    ),
    click.option(
        "--trace-id", "--trace", "trace_id", metavar="ID", help="Only lines with this trace id."
    ),
    click.option(
        "--fingerprint",
        "--error",
        "fingerprint",
        metavar="ID",
        help="Only lines that report this error: its id, or the beginning of it.",
    ),
    click.option("--no-children", is_flag=True, help="Leave out the lines of child jobs."),
)


def filtered(function: F) -> F:
    """Add the options that select lines; `chosen` converts them."""
    return _with(function, (_SINCE, _UNTIL, *_OPTIONS))


def followed(function: F) -> F:
    """Add the options that select lines of a tail, which has no end: ``--until`` is not shown."""
    return _with(function, (_SINCE, _REFUSED_UNTIL, *_OPTIONS))


def _with(function: F, added: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(added):
        function = option(function)
    return function


def chosen(given: dict[str, Any], id_: str | None) -> dict[str, Any]:
    """Return the fields of `LogFilter` for the given options.

    Args:
        given: The options of `filtered`.
        id_: The job, if one is named.

    Raises:
        click.UsageError: if the options exclude each other.
    """
    from structjob.filters import LogFilter, make_filter

    if given["system"]:
        if id_ is not None:
            raise click.UsageError("--system selects lines outside jobs: do not name a job.")
        given = {**given, "type": "system"}
    if given["exact"]:
        if given["level"] is None:
            raise click.UsageError("--exact needs --level.")
        given = {**given, "level": None, "levels": options.parts([given["level"]])}
    elif given["level"] is not None and "," in given["level"]:
        raise click.UsageError(
            f"--level means this level and above: give one, or add --exact for {given['level']}."
        )
    found = {
        name: given[name]
        for name in _NAMES
        if given.get(name) not in (None, {}, (), False)
        or (name == "correlated" and given[name] is False)
    }
    make_filter(LogFilter, **found)  # reports invalid values before anything is opened
    return found
