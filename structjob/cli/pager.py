"""Sends long output on a terminal through a pager, as git does."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from structjob.cli import screen

_LESS = "FRX"
"""Options of ``less`` if $LESS is not set: exit at once if all fits on the screen, show colors, and
leave the text on the screen.
"""


@contextmanager
def paged(*, wanted: bool = True) -> Iterator[None]:
    """Send stdout to the user's pager: $PAGER, or else ``less``.

    Does nothing if stdout is not a terminal, or if $NO_PAGER is set.

    Args:
        wanted: Whether the user wants a pager.
    """
    command = _command() if wanted and screen.is_terminal(sys.stdout) else None
    if command is None:
        yield
        return
    env = {"LESS": _LESS, **os.environ}
    if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8":
        env.setdefault("LESSCHARSET", "utf-8")  # in the C locale less would show bytes
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=env)  # noqa: S603 -- the user's own command
    except OSError:
        yield
        return
    assert process.stdin is not None  # noqa: S101 -- Popen got PIPE
    sys.stdout.flush()
    descriptor = sys.stdout.fileno()
    terminal = os.dup(descriptor)
    os.dup2(process.stdin.fileno(), descriptor)
    process.stdin.close()
    screen.later = []
    try:
        yield
    except BrokenPipeError:
        pass  # the user left the pager before the end
    finally:
        _flush(descriptor)
        # the pager sees the end of the text, because this was the only writer of the pipe
        os.dup2(terminal, descriptor)
        os.close(terminal)
        _wait(process)
        messages, screen.later = screen.later, None
        for message in messages:
            screen.say(message)


def _flush(descriptor: int) -> None:
    """Write what stdout still buffers.

    If the pager no longer reads, drop the buffer, so that it does not reach the terminal later.
    """
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
        sys.stdout.flush()


def _command() -> list[str] | None:
    if os.environ.get("NO_PAGER"):
        return None
    given = os.environ.get("PAGER")
    if given is None:
        given = "less"
    try:
        words = shlex.split(given)
    except ValueError:
        return None
    if (
        not words
        or words == ["cat"]
        or shutil.which(words[0]) is None
        or os.environ.get("TERM") in (None, "dumb")
    ):
        return None
    return words


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait until the pager ends; until then, only the pager handles Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
