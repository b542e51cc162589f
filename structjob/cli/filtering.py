"""The options that select log lines, and the `LogFilter` fields that they become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from structjob.cli.times import moment
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
        except msgspec.MsgspecError:
            found[key] = value
    return found


_OPTIONS = (
    click.option(
        "--since",
        metavar="TIME",
        callback=moment,
        help="Since: -3h, 2d, 1h30m, today, 2026-05-04T13:30.",
    ),
    click.option("--until", metavar="TIME", callback=moment, help="Before."),
    click.option(
        "-l",
        "--level",
        type=click.Choice(LEVELS, case_sensitive=False),
        metavar="LEVEL",
        help="This level and above: debug, info, success, warning, error, critical.",
    ),
    click.option("--exact", is_flag=True, help="With --level: this level only."),
    click.option(
        "-w",
        "--where",
        "attrs",
        multiple=True,
        metavar="KEY=VALUE",
        callback=attributes,
        help="Only where an attribute has this value; may be repeated.",
    ),
    click.option("--grep", "text", metavar="TEXT", help="Only where the message holds this."),
    click.option("--operation", metavar="TEXT", help="Only lines of jobs of this operation."),
    click.option("--step", metavar="NAME", help="Only lines of this step."),
    click.option(
        "--attempt", type=click.IntRange(1), metavar="N", help="Only lines of this attempt."
    ),
    click.option(
        "--stream",
        type=click.Choice(STREAMS),
        help="Only what came by this stream; system is what was logged.",
    ),
    click.option(
        "--scope",
        "type",
        type=click.Choice(("system", "job", "task")),
        help="Only lines of no job, of a job, or of a step.",
    ),
    click.option("--system", is_flag=True, hidden=True),
    click.option(
        "--kind",
        metavar="NAME",
        help="Only this kind: log, output, step_end, operation_end, progress …",
    ),
    click.option("--logger", metavar="NAME", help="Only lines of this logger."),
    click.option("--source", hidden=True),
    click.option("--category", metavar="NAME", help="Only this category."),
    click.option("--project", metavar="NAME", help="Only this project."),
    click.option(
        "--correlation-id",
        "--correlation",
        "correlation_id",
        metavar="ID",
        help="Only lines with this correlation id.",
    ),
    click.option(
        "--correlated/--uncorrelated",
        default=None,
        help="Only lines with a correlation id, or without one.",
    ),
    click.option(
        "--trace-id", "--trace", "trace_id", metavar="ID", help="Only lines with this trace id."
    ),
    click.option(
        "--fingerprint",
        "--error",
        "fingerprint",
        metavar="ID",
        help="Only occurrences of this error, its id in full as `errors show` has it.",
    ),
    click.option("--no-children", is_flag=True, help="Without the lines of child jobs."),
)


def filtered(function: F) -> F:
    """Add the options that select lines; `chosen` converts them."""
    for option in reversed(_OPTIONS):
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
    from structjob.filters import LogFilter

    if given["system"]:
        if id_ is not None:
            raise click.UsageError("--system shows lines of no job: leave the id out.")
        given = {**given, "type": "system"}
    if given["exact"]:
        if given["level"] is None:
            raise click.UsageError("--exact goes with --level.")
        given = {**given, "level": None, "levels": given["level"]}
    found = {
        name: given[name]
        for name in _NAMES
        if given.get(name) not in (None, {}, (), False)
        or (name == "correlated" and given[name] is False)
    }
    LogFilter.of(**found)  # reports invalid values before anything is opened
    return found
