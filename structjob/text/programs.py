"""The name of a program that is run."""

from __future__ import annotations

import os
from collections.abc import Sequence

_INTERPRETERS = ("python", "pypy", "bash", "sh", "zsh", "node", "ruby", "perl", "php", "java")
_OPTION_WITH_VALUE = ("-W", "-X")


def operation_of(command: Sequence[str]) -> str:
    """Return the operation for *command*: the program, or for an interpreter, what it runs.

    Statistics are grouped by operation.
    """
    program = os.path.basename(command[0]) or command[0]
    if program.rstrip("0123456789.") not in _INTERPRETERS:
        return program[:255]
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            return f"{program} -m {next(words, '')}".strip()[:255]
        if word in _OPTION_WITH_VALUE:
            next(words, None)
        elif word == "-c":
            return program
        elif not word.startswith("-"):
            return f"{program} {os.path.basename(word)}"[:255]
    return program
