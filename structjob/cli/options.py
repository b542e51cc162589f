"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from structjob.cli.completion import jobs_and_operations
from structjob.cli.database import Database
from structjob.cli.screen import command_line, in_shell
from structjob.cli.times import moment

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


def _database(ctx: click.Context, param: click.Parameter, value: str | None) -> Database:
    # The option may come before or after the command; the one after it has precedence.
    root = ctx.find_root()
    if value is not None or not isinstance(root.obj, Database):
        root.obj = Database(value)  # a later error message reads it here
    return root.obj


def database(function: F) -> F:
    """Add ``--db``; the command receives a `Database`."""
    return click.option(
        "--db",
        metavar="URL",
        callback=_database,
        help="URL of the database, such as sqlite:///jobs.db, or the path of an SQLite file.",
    )(function)


def json_and_db(function: F, *, form: str = "JSON") -> F:
    """Add ``--json`` and ``--db``; the command receives the former as *as_json*."""
    as_json = click.option("--json", "as_json", is_flag=True, help=f"Write {form} to stdout.")
    return as_json(database(function))


def json_lines_and_db(function: F) -> F:
    """Add them to a command that writes one JSON object for each line."""
    return json_and_db(function, form="JSON lines")


def job(function: F) -> F:
    """Add the argument ID, any id of a job or the name of its operation, as *id_*."""
    return click.argument("id_", metavar="ID", shell_complete=jobs_and_operations)(function)


def optional_job(function: F) -> F:
    """Add the same, which may be left out."""
    named = click.argument(
        "id_", metavar="[ID]", required=False, shell_complete=jobs_and_operations
    )
    return named(function)


def db_option(ctx: click.Context) -> str:
    """Return what ``--db`` needs in a command to type."""
    given = ctx.find_root().obj
    return given.option if isinstance(given, Database) else ""


_TYPED = "structjob.typed"
_OF_FORM = frozenset({
    "db", "utc", "as_json", "json_form", "pager", "limit", "last", "context", "flat", "sort", "watch", "attempts", "bucket", "every",
})  # fmt: skip
"""The options that select nothing."""


def keep_typed(ctx: click.Context) -> None:
    """Keep the arguments of the command that *ctx* is about to invoke, for `none_found`."""
    ctx.meta[_TYPED] = tuple(ctx.args)


def selection() -> str:
    """Return the options of the running command that select something, with their long names and
    the values as typed: ``--owner ada --since 3h``.
    """
    ctx = click.get_current_context()
    values, _, order = ctx.command.make_parser(ctx).parse_args(list(ctx.meta[_TYPED]))
    words: list[str] = []
    for param in dict.fromkeys(order):
        if not isinstance(param, click.Option) or param.name in _OF_FORM:
            continue
        given = values[param.name or ""]
        if param.is_flag:
            words.append((param.opts if given else param.secondary_opts)[0])
            continue
        name = next(one for one in param.opts if one.startswith("--"))
        for value in given if param.multiple else (given,):
            words += (name, str(value))
    return in_shell(*words)


def none_found(what: str, db: Database) -> str:
    """Return a text that says that nothing was found: with the selecting options, or at all.

    Args:
        what: What was searched, in the plural.
        db: The database.
    """
    selected = selection()
    return f"no {what} match {selected}" if selected else f"no {what} in {db.shown} yet"


class WithoutArguments(click.Command):
    """A command that takes only options. An argument gets the commands that take it.

    Args:
        instead: What to type for an argument: the words of a command, and what it shows. ``{}`` is
            the argument.
    """

    def __init__(self, *args: Any, instead: Sequence[tuple[tuple[str, ...], str]], **extra: Any):
        super().__init__(*args, **extra)
        self._instead = instead

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            ctx.fail(misplaced(ctx, rest[0], self._instead))
        return rest


def misplaced(
    ctx: click.Context, given: str, instead: Sequence[tuple[tuple[str, ...], str]]
) -> str:
    """Return the message for the argument *given* of a command that does not take it.

    Args:
        ctx: The context of the command.
        given: The argument.
        instead: See `WithoutArguments`.
    """
    typed = [
        f"{command_line(*(given if word == '{}' else word for word in words), db=db_option(ctx))} ({what})"
        for words, what in instead
    ]
    advice = f"; type {', or '.join(typed)}" if typed else ""
    return f"{ctx.command_path} does not take {given!r}{advice}"


class JsonForms(click.Command):
    """A command whose ``--json`` has two forms: lines, or one array with ``--json=array``.

    Click's own optional values would consume the argument that follows.
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
    """Add ``--json`` to a `JsonForms` command, which receives *json_form*: ``None``, ``lines`` or
    ``array``.
    """
    lines = click.option(
        "--json",
        "json_form",
        flag_value="lines",
        default=None,
        help="Write JSON lines to stdout; --json=array: one JSON array.",
    )
    return lines(click.option(_ARRAY, "json_form", flag_value="array", hidden=True)(function))


def parts(values: Iterable[str]) -> tuple[str, ...]:
    """Return the values of an option that takes several, repeated or separated by commas."""
    return tuple(part.strip() for value in values for part in value.split(","))


def separated(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Split the values of an option at commas, as its callback."""
    return parts(values)


class OneOrMore(click.Choice[str]):
    """One of the choices, or several separated by commas; its value is still one text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        one = super().convert
        return ",".join(one(part, param, ctx) for part in parts([value]))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        found = super().shell_complete(ctx, param, last)
        for item in found:
            item.value = f"{before}{comma}{item.value}"
        return found


def several(*names: str, choices: Sequence[str], help: str) -> Callable[[F], F]:
    """Add an option that takes some of *choices*: repeated, or separated by commas."""
    return click.option(
        *names,
        multiple=True,
        type=OneOrMore(choices),
        callback=separated,
        help=f"{help}; may be repeated, or take several: {choices[0]},{choices[1]}.",
    )


def limit(help: str) -> Callable[[F], F]:
    """Add ``--limit``, 25 by default; *help* says which ones are shown."""
    return click.option(
        "-n", "--limit", type=click.IntRange(1, 10_000), default=25, show_default=True, help=help
    )


def time(name: str, help: str) -> Callable[[F], F]:
    """Add an option that takes a time, such as ``--since``; see `structjob.cli.times.moment`."""
    return click.option(name, metavar="TIME", callback=moment, help=help)


def utc(function: F) -> F:
    """Add ``--utc``."""
    # Eager, because the parsing of times on the command line depends on it.
    return click.option(
        "--utc",
        is_flag=True,
        is_eager=True,
        help="Show and read times in UTC instead of local time.",
    )(function)


def pager(function: F) -> F:
    """Add ``--no-pager``; the command receives *pager*."""
    return click.option(
        "--no-pager",
        "pager",
        flag_value=False,
        default=True,
        type=bool,
        help="Write directly to the terminal, not through $PAGER or less.",
    )(function)
