"""Shows events on stdout: as lines for people, or as JSON."""

from __future__ import annotations

import shutil
import sys

from structjob.cli import screen
from structjob.cli.screen import coloured, is_terminal, put_json_line, say
from structjob.models import EventRecord, Gap
from structjob.text.appearance import paint
from structjob.text.escaping import escape
from structjob.text.rendering import Lines
from structjob.text.wording import count_of


def width() -> int:
    """Return the number of columns of the terminal."""
    return shutil.get_terminal_size().columns


class Screen:
    """Shows events on stdout.

    Args:
        as_json: As lines of JSON.
        utc: Times in UTC.
        about: The job that all events belong to, if they do.
        at_once: Flush each event, because a reader is waiting for it.
    """

    def __init__(
        self, *, as_json: bool, utc: bool, about: str | None, at_once: bool = False
    ) -> None:
        colour = coloured(sys.stdout)
        self._json_lines = as_json
        self._at_once = at_once
        terminal = is_terminal(sys.stdout)
        room = width if terminal else None
        self._lines = Lines(
            color=colour,
            utc=utc,
            about=about,
            clock_only=terminal,
            width=room,
        )
        self._separator = paint("──" if colour else "--", "dim", colour)
        self.marked: set[int | None] | None = None
        self.shown = 0

    @property
    def overflown(self) -> bool:
        """Whether a terminal without a pager has shown more lines than it has room for."""
        return (
            is_terminal(sys.stdout)
            and screen.later is None
            and self.shown > shutil.get_terminal_size().lines
        )

    def put(self, event: EventRecord) -> None:
        """Show one event."""
        if self._json_lines:
            put_json_line(event, at_once=self._at_once)
            return
        self.shown += 1
        sys.stdout.write(
            self._lines.render(event, mark=self.marked is not None and event.id in self.marked)
            + "\n"
        )
        if self._at_once:
            sys.stdout.flush()

    def separate(self) -> None:
        """Show a separator where lines are left out."""
        if not self._json_lines and self.shown:
            sys.stdout.write(self._separator + "\n")

    @staticmethod
    def report(gap: Gap) -> None:
        """Report that lines are missing here."""
        number = gap.last_seq - gap.first_seq + 1
        lines = count_of(number, "line", "is", "are")
        say(
            f"{lines} missing here: {escape(gap.reason)} (session {gap.session_id}, {gap.first_seq}–{gap.last_seq})"
        )
