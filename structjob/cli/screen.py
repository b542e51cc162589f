"""Output on the screen: data on stdout, messages on stderr, with optional colors and JSON."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterable, Collection, Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from structjob.text.appearance import Piece, paint, speaks_unicode

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

UNBOUNDED = 10_000
"""Columns where the output is not a terminal: a reader of a pipe needs the complete text."""


class Failure(click.ClickException):
    """Ends the command with one line on stderr.

    Args:
        message: What is wrong, and how to fix it.
        code: The exit code.
        hint: The next useful command.
    """

    def __init__(self, message: str, *, code: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click's own subclasses set it on the class; it reads it from the instance
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        from structjob.text.escaping import escape

        # A typed id or path may contain any characters; a database's message may, too.
        say(f"{paint('error:', 'red', coloured(sys.stderr))} {escape(self.message)}")
        if self.hint is not None:
            suggest(self.hint)


later: list[str] | None = None
"""Messages that are held back while stdout goes through a pager. They are written when it has
ended; see `structjob.cli.pager`.
"""


def is_terminal(stream: IO[Any]) -> bool:
    """Return whether *stream* is a terminal, directly or through a pager."""
    if later is not None and stream is sys.stdout:
        return True
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def coloured(stream: IO[Any]) -> bool:
    """Return whether output to *stream* is colored.

    That is so on a terminal unless ``NO_COLOR`` is set, and always if ``FORCE_COLOR`` is set.
    """
    if os.environ.get("FORCE_COLOR"):
        return True
    return (
        is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def console(stream: IO[str] | None = None) -> Console:
    """Return a Rich console on *stream* (default: stdout) that prints text unchanged.

    It interprets no markup and highlights no numbers.
    """
    from rich.console import Console as Rich

    class Console(Rich):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 -- within its handler; Rich's own would end the command with exit code 1

    stream = stream if stream is not None else sys.stdout
    terminal = is_terminal(stream)
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system="standard" if coloured(stream) else None,
        markup=False,
        highlight=False,
        emoji=False,
        width=None if terminal else UNBOUNDED,
        legacy_windows=False,
    )


def say(message: str) -> None:
    """Print *message* on stderr; while a pager has the terminal, after the pager has ended."""
    if later is not None:
        later.append(message)
        return
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)


def require_confirmation(hint: str) -> None:
    """Refuse to delete if stdin is not a terminal, where a person can confirm it."""
    if not is_terminal(sys.stdin):
        raise Failure("refusing to delete without confirmation (not a terminal)", code=2, hint=hint)


def suggest(command: str) -> None:
    """Suggest the next useful *command*."""
    say(f"{paint('next:', 'dim', coloured(sys.stderr))}  {command}")


def command_line(*words: str, db: str = "") -> str:
    """Return a command to type, quoted for a shell, with ``--db`` unless the database is the
    default.
    """
    return " ".join([_program(), *([f"--db {_quoted(db)}"] if db else []), in_shell(*words)])


def in_shell(*words: str) -> str:
    """Return *words* as a shell takes them, quoted where needed."""
    return " ".join(map(_quoted, words))


def _program() -> str:
    """Return what to type for this command: its name, or its path if a shell does not find the
    name.
    """
    called = sys.argv[0]
    if os.path.basename(called) != "structjob" or shutil.which("structjob") is not None:
        return "structjob"
    return shlex.quote(called)


def _quoted(word: str) -> str:
    """Return *word* quoted for a shell, and escaped for a terminal, because a name may hold any
    character.
    """
    from structjob.text.escaping import escape

    if escape(word) == word:
        return shlex.quote(word)
    spelled = (
        char if escape(char) == char else f"\\U{ord(char):08x}"
        for char in word.replace("\\", r"\\").replace("'", r"\'")
    )
    return f"$'{''.join(spelled)}'"


LAST = 24
"""Minimum number of cells of the last column, which is the most important one; others give way to
it.
"""


def columns(
    headings: Sequence[str],
    rows: Sequence[Sequence[Text]],
    width: int,
    *,
    right: Collection[str] = (),
    spare: Sequence[str] = (),
) -> list[Text]:
    """Return *rows* below *headings* as lines of at most *width* columns.

    The last column gets the rest of the width, and is cut to it.

    Args:
        headings: One for each column.
        rows: The cells.
        width: The available width.
        right: Headings of the right-aligned columns.
        spare: Headings of columns that are left out, in this order, where the last column would
            otherwise have less than `LAST` cells.
    """
    from rich.text import Text

    table = [
        [Text(heading, style="dim") for heading in headings],
        *([cell.copy() for cell in row] for row in rows),
    ]
    widths = [max(row[index].cell_len for row in table) for index in range(len(headings) - 1)]
    wanted = min(LAST, max(row[-1].cell_len for row in table))
    headings = list(headings)
    for heading in spare:
        if heading in headings[:-1] and sum(widths) + 2 * len(widths) + wanted > width:
            index = headings.index(heading)
            headings.pop(index)
            widths.pop(index)
            for row in table:
                row.pop(index)
    lines = []
    for row in table:
        line = Text()
        for heading, cell, room in zip(headings, row, widths, strict=False):
            cell.align("right" if heading in right else "left", room)
            line.append_text(cell).append("  ")
        line.append_text(row[-1])
        line.rstrip()
        line.truncate(width, overflow="ellipsis" if speaks_unicode() else "crop")
        lines.append(line)
    return lines


def put_table(
    screen: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Text]],
    *,
    right: Collection[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print a table that fits the screen; see `columns`."""
    put_lines(columns(headings, rows, screen.width, right=right, spare=spare), screen)


_ROWS = 500
"""Number of rows per write."""


def width_of(screen: Console) -> int:
    """Return how many columns a line on *screen* may have."""
    return screen.width if screen.is_terminal else UNBOUNDED


def put_rows(rows: Iterable[Sequence[Piece]], screen: Console) -> None:
    """Print *rows*, each on one line; on a terminal they are cut to its width.

    There may be 100,000 rows, for which Rich is too slow.
    """
    from rich.cells import cell_len
    from rich.text import Text

    colour = screen.color_system is not None
    waiting: list[str] = []
    for row in rows:
        plain = "".join(text for text, _ in row)
        if screen.is_terminal and len(plain) * 2 > screen.width and cell_len(plain) > screen.width:
            line = Text.assemble(*row)
            # a tree that wraps is hard to read
            line.truncate(screen.width, overflow="ellipsis" if speaks_unicode() else "crop")
            with screen.capture() as captured:
                screen.print(line, soft_wrap=True)
            waiting.append(captured.get())
        else:
            waiting.append(
                ("".join(paint(text, style, colour) for text, style in row) if colour else plain)
                + "\n"
            )
        if len(waiting) >= _ROWS:
            screen.file.write("".join(waiting))
            waiting.clear()
    screen.file.write("".join(waiting))


def put_lines(lines: Iterable[Text], screen: Console) -> None:
    """Print *lines* unchanged."""
    for line in lines:
        screen.print(line, soft_wrap=True)


def as_json(value: object) -> bytes:
    """Return *value* as one line of JSON without characters that a terminal would interpret."""
    import msgspec

    from structjob.text.escaping import escape_json

    return escape_json(msgspec.json.encode(value))


def put_json(value: object) -> None:
    """Write *value* as JSON to stdout; indented for people."""
    import msgspec

    encoded = as_json(value)
    _put(msgspec.json.format(encoded, indent=2) if is_terminal(sys.stdout) else encoded)


def put_json_line(value: object, *, at_once: bool = True) -> None:
    """Write *value* as one line of JSON to stdout; *at_once*: flush, because a reader waits for
    it.
    """
    _put(as_json(value))
    if at_once:
        sys.stdout.flush()


async def put_json_array(values: AsyncIterable[object]) -> None:
    """Write *values* as one JSON array to stdout, one per line, each as soon as it is available."""
    before = b"["
    async for value in values:
        sys.stdout.buffer.write(before + b"\n" + as_json(value))
        before = b","
    _put(b"[]" if before == b"[" else b"\n]")


def _put(encoded: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(encoded + b"\n")
