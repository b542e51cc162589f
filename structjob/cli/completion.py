"""Shell completion of job ids, names of operations and fingerprints of errors.

Every function here returns an empty list after any error, because a prompt must not show error
messages. Words that a shell would not read as exactly one word are left out: bash inserts them
unquoted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click

from structjob.cli.failures import what_failed

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from structjob.cli.database import Database
    from structjob.queries.lookups import Lookups

OFFERED = 50
"""Maximum number of offered words of each kind."""

ABOUT = 60
"""Maximum characters of the text beside an offered word in bash."""

# Bash lists what would be inserted. Only when it lists without inserting (COMP_TYPE, see the manual
# of bash), each word can have a text beside it: of several words, it inserts their common beginning
# at most.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion kind word about
    local -a words=() shown=()
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete $1)
    for completion in $response; do
        kind=${completion%%%%,*} word=${completion#*,}
        about=${word#*$'\\t'} word=${word%%%%$'\\t'*}
        case $kind in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) words+=("$word"); shown+=("$word${about:+  $about}") ;;
        esac
    done
    if [[ ${#words[@]} -gt 1 && $COMP_TYPE =~ ^(33|63|64)$ ]]; then
        COMPREPLY+=("${shown[@]}")
    else
        COMPREPLY+=("${words[@]}")
    fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


def register() -> None:
    """Make completion in bash show a text beside each word, as the other shells do."""
    from click.shell_completion import BashComplete, add_completion_class

    class Bash(BashComplete):
        source_template = _BASH

        def format_completion(self, item: CompletionItem) -> str:
            about = " ".join((item.help or "").split())
            about = about if len(about) <= ABOUT else f"{about[:ABOUT]}…"
            return f"{item.type},{item.value}\t{about}"

    add_completion_class(Bash)


def job_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of the newest jobs that begin with *incomplete*."""
    return _offered(ctx, _newest, incomplete)


def jobs_and_operations(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return names of operations, and the ids of the newest jobs, that begin with *incomplete*."""
    return [*operations(ctx, param, incomplete), *job_ids(ctx, param, incomplete)]


def operations(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of operations that begin with *incomplete*."""
    return _offered(ctx, _operations, incomplete)


def fingerprints(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the fingerprints of the latest errors that begin with *incomplete*."""
    return _offered(ctx, _fingerprints, incomplete)


def _offered(
    ctx: click.Context,
    search: Callable[[Lookups, str], Awaitable[Sequence[tuple[str, str]]]],
    incomplete: str,
) -> list[CompletionItem]:
    """Return the words that *search* finds, each with a text about it."""
    try:
        import shlex

        from click.shell_completion import CompletionItem

        from structjob.cli.database import Database, execute
        from structjob.text.escaping import escape

        given = ctx.params.get("db") or ctx.find_root().params.get("db")
        db = given if isinstance(given, Database) else Database()
        return [
            CompletionItem(word, help=escape(about))
            for word, about in execute(_searched(db, search, incomplete))
            if shlex.quote(word) == word
        ]
    except Exception:  # noqa: BLE001 -- see above
        return []


async def _searched(
    db: Database,
    search: Callable[[Lookups, str], Awaitable[Sequence[tuple[str, str]]]],
    prefix: str,
) -> Sequence[tuple[str, str]]:
    from structjob.queries.jobs import lookups_of
    from structjob.reader import Reader

    async with Reader(db.url) as reader:
        return await search(lookups_of(reader.jobs), prefix)


async def _newest(lookups: Lookups, prefix: str) -> Sequence[tuple[str, str]]:
    found = await lookups.ids(prefix, limit=OFFERED)
    return [(id_, f"{operation} {status}") for id_, operation, status in found]


async def _operations(lookups: Lookups, prefix: str) -> Sequence[tuple[str, str]]:
    found = await lookups.operations(prefix, limit=OFFERED)
    return [(name, "operation") for name in found]


async def _fingerprints(lookups: Lookups, prefix: str) -> Sequence[tuple[str, str]]:
    return [
        (group.fingerprint, what_failed(group.error))
        for group in await lookups.errors(prefix, limit=OFFERED)
    ]
