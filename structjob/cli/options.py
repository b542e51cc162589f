"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from structjob.cli.database import Database

F = TypeVar("F", bound=Callable[..., Any])


def _database(ctx: click.Context, param: click.Parameter, value: str | None) -> Database:
    # Before the command or behind it: what stands nearer wins.
    root = ctx.find_root()
    if value is not None or not isinstance(root.obj, Database):
        root.obj = Database(value)  # where an error that comes later finds it
    return root.obj


def database(function: F) -> F:
    """Add ``--db``, handed over as a `Database`."""
    return click.option(
        "--db",
        metavar="URL",
        callback=_database,
        help="Database, such as sqlite:///jobs.db; a file's path will do.",
    )(function)


def json_output(function: F) -> F:
    """Add ``--json``, handed over as *as_json*."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")(function)


class JsonForms(click.Command):
    """A command whose ``--json`` has two forms: lines, and with ``--json=array`` one array. Click's
    own optional values would take the argument that follows.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        forms = {"--json=lines": "--json", "--json=array": _ARRAY}
        end = args.index("--") if "--" in args else len(args)
        for given in args[:end]:
            if given.startswith("--json=") and given not in forms:
                raise click.UsageError(
                    f"{given}: use --json (or --json=lines) for JSON lines, --json=array for one array.",
                    ctx,
                )
        return super().parse_args(
            ctx, [forms.get(given, given) for given in args[:end]] + args[end:]
        )


_ARRAY = "--json-array"


def json_forms(function: F) -> F:
    """Add ``--json`` of a command that is a `JsonForms`, handed over as *json_form*: None,
    ``lines`` or ``array``.
    """
    lines = click.option(
        "--json",
        "json_form",
        flag_value="lines",
        default=None,
        help="JSON lines on stdout; --json=array: one array.",
    )
    return lines(click.option(_ARRAY, "json_form", flag_value="array", hidden=True)(function))


def utc(function: F) -> F:
    """Add ``--utc``."""
    # Eager, since times on the command line are read by it.
    return click.option(
        "--utc", is_flag=True, is_eager=True, help="Times in UTC, not in local time."
    )(function)


def pager(function: F) -> F:
    """Add ``--no-pager``, handed over as *pager*."""
    return click.option(
        "--no-pager",
        "pager",
        flag_value=False,
        default=True,
        type=bool,
        help="Write to the terminal at once, without $PAGER or less.",
    )(function)
