"""The help of the commands: examples and lists fit the terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

import click

_LEAST = 24
"""Minimum width of an explanation beside its example; a narrower one begins on the next line."""
_EXPLAINED = re.compile(r"(\s*\S.*?)\s{2,}(?=\S)")


def wrapping(command: click.Command) -> click.Command:
    """Return *command*; its help, and that of its subcommands, fits the terminal."""
    command.context_class = _Context
    if isinstance(command, click.Group):
        for one in command.commands.values():
            wrapping(one)
    return command


class _Formatter(click.HelpFormatter):
    """Wraps also the paragraphs that click leaves as they are: those marked with a backspace."""

    def write_text(self, text: str) -> None:
        super().write_text("\n".join(_fitting(text, self.width - self.current_indent)))


class _Context(click.Context):
    formatter_class = _Formatter


def _fitting(text: str, room: int) -> Iterator[str]:
    verbatim = False
    for line in text.splitlines():
        verbatim = bool(line.strip()) and (verbatim or line.strip() == "\b")
        if verbatim and len(line) > room:
            yield from _parts(line, room)
        else:
            yield line


def _parts(line: str, room: int) -> Iterator[str]:
    margin = " " * (len(line) - len(line.lstrip()))
    found = _EXPLAINED.match(line)
    if found is None:
        # A command is one line, to be copied; prose is not.
        command = line.lstrip().startswith("structjob ")
        hanging = f"{margin}  " if margin else ""
        yield from [line] if command else textwrap.wrap(line, room, subsequent_indent=hanging)
        return
    what, why = found[1], line[found.end() :]
    if room - found.end() >= _LEAST:
        first, *rest = textwrap.wrap(why, room - found.end())
        yield line[: found.end()] + first
        yield from textwrap.indent("\n".join(rest), " " * found.end()).splitlines()
    else:
        yield what
        yield from textwrap.wrap(
            why, room, initial_indent=f"{margin}    ", subsequent_indent=f"{margin}    "
        )
