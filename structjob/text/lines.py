"""The output of a program as events, line by line, whatever it contains."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

PIECE = 16 * 1024
"""Maximum bytes of a line in one event. A longer line becomes several events, each with the number
of its part.
"""

AHEAD = 2 * 1024
"""Bytes before and after a cut in which a secret is looked for."""

_STEP = 64
"""Bytes between two places that are tried for a cut."""

OVERWRITTEN_EVERY = 0.25
"""Minimum seconds between two records of a line that overwrites itself (a progress bar, by
``\\r``). A job's own progress has the same interval.
"""

Redact = Callable[[str], str]
"""A function that returns a text without its secrets."""

Record = Callable[[list[str], dict[str, int]], None]
"""A function that takes lines that follow one another, and the attributes of each of them."""


class LineSplitter:
    r"""Splits a stream of bytes into lines.

    A line ends with ``\n``, ``\r\n``, or a ``\r`` that overwrites it. Of overwritten lines, at
    most 4 per second are recorded. The last one is always recorded, with the number of unrecorded
    lines before it as ``overwritten``.

    Args:
        record: Called with the lines as text, with as many at once as possible. Bytes that are not
            UTF-8 are written as ``\xff``. A line with attributes comes alone.
        redact: Removes the secrets from a text. A long line is not cut within a secret, because
            neither part would show it to be one.
    """

    def __init__(self, record: Record, redact: Redact) -> None:
        self._record = record
        self._redact = redact
        self._rest = b""
        self._plain: list[str] = []
        self._part = 0
        self._overwritten = 0
        self._recorded = 0.0
        self.lines = 0

    def feed(self, chunk: bytes) -> None:
        """Process a chunk that was read."""
        # Taken at once: a signal handler may print while its own thread is in here.
        rest, self._rest = self._rest, b""
        complete, newline, rest = (rest + chunk).rpartition(b"\n")
        self._rest += rest
        lines = complete.split(b"\n") if newline else []
        special = self._part or self._overwritten or b"\r" in complete
        if lines and not special and max(map(len, lines)) <= PIECE:
            # the usual case, in few steps
            self.lines += len(lines)
            plain = _text(complete).split("\n")
            self._plain += plain
            lines = []
        for line in lines:
            self._line(line[:-1] if line.endswith(b"\r") else line)
        if b"\r" in self._rest:
            # The last byte may be the first half of \r\n.
            done, _, self._rest = (
                self._rest[:-1].rpartition(b"\r")
                if self._rest.endswith(b"\r")
                else self._rest.rpartition(b"\r")
            )
            self._rest += b"\r" if chunk.endswith(b"\r") else b""
            if done:
                self._overwriting(done.split(b"\r"))
        while len(self._rest) > PIECE + AHEAD:
            self._rest = self._cut(self._rest)
        self._flush()

    def end(self) -> None:
        """Process the rest, which has no newline."""
        if self._rest or self._part:
            rest, self._rest = self._rest, b""
            self._line(rest.removesuffix(b"\r"))
            self._flush()

    def _line(self, line: bytes) -> None:
        if b"\r" in line:
            *overwritten, line = line.split(b"\r")
            if not line:
                line = overwritten.pop()
            self._overwriting(overwritten)
        self._last_piece(line)

    def _overwriting(self, segments: list[bytes]) -> None:
        for segment in segments:
            now = time.monotonic()
            if segment.strip() and now - self._recorded >= OVERWRITTEN_EVERY:
                self._recorded = now
                self._last_piece(segment)
            elif segment.strip():
                self._overwritten += 1

    def _last_piece(self, line: bytes) -> None:
        while len(line) > PIECE:
            line = self._cut(line)
        self._put(line, last=True)

    def _cut(self, line: bytes) -> bytes:
        """Record the first part of a long line, and return the rest."""
        size = self._place(line)
        self._put(line[:size], last=False)
        return line[size:]

    def _place(self, line: bytes) -> int:
        """Return where to cut a long line: at most at `PIECE`, and neither within a UTF-8 character
        nor within a secret.
        """
        around = line[PIECE - AHEAD : PIECE + AHEAD]
        clean = self._redact(_text(around))
        for size in range(PIECE, PIECE - AHEAD, -_STEP):
            while line[size] & 0xC0 == 0x80 and size > PIECE - AHEAD:
                size -= 1  # noqa: PLW2901 -- the beginning of this character
            at = size - (PIECE - AHEAD)
            if self._redact(_text(around[:at])) + self._redact(_text(around[at:])) == clean:
                return size
        return PIECE  # a secret as long as all of this

    def _put(self, line: bytes, *, last: bool) -> None:
        attrs: dict[str, int] = {}
        if self._part or not last:
            self._part += 1
            attrs["part"] = self._part
        if last:
            self._part = 0
            self.lines += 1
        if self._overwritten:
            attrs["overwritten"], self._overwritten = self._overwritten, 0
        if attrs:
            self._flush()
            self._record([_text(line)], attrs)
        else:
            text = _text(line)
            self._plain.append(text)

    def _flush(self) -> None:
        lines, self._plain = self._plain, []
        if lines:
            self._record(lines, {})


_SAYS_NOTHING = re.compile(r"[-+|=_*\s]*|\[job_id=.*\]")
"""A ruler, such as the end of an exception group's traceback, or the note with the ids of a job
that ends the traceback of a program that records jobs itself.
"""


def last_words(lines: Sequence[str]) -> str:
    """Return the last of *lines* that says something, without its margin: blanks, or the ``|`` of
    an exception group.
    """
    texts = (line.strip().removeprefix("| ").lstrip() for line in reversed(lines))
    return next((text for text in texts if not _SAYS_NOTHING.fullmatch(text)), "")


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")
