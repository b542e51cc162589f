"""Marks on console lines below ``structjob run``: lines that are recorded as events already.

That command records each line that its program prints. A program that itself records events in the
same database also shows them on its console. Such a line begins with a mark, which is an escape
sequence with a random number. A text that does not end its line is followed by a second mark. The
command removes the marks from what it shows, and does not record the marked text a second time.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

VARIABLE = "STRUCTJOB_OUTPUT"
"""The environment variable with the mark and the pipes that ``structjob run`` reads."""


_TERMINATOR = b"\x1b\\"
_LAST = 4096
"""Maximum bytes of the last line that are kept."""


def new_mark() -> bytes:
    """Return a mark, which no output contains by accident.

    It is an application program command (ECMA-48, 8.3.2), which terminals do not show.
    """
    return b"\x1b_structjob-%s%s" % (secrets.token_hex(8).encode(), _TERMINATOR)


def _end_of(mark: bytes) -> bytes:
    """Return the mark after a text that does not end its line."""
    return mark.removesuffix(_TERMINATOR) + b"." + _TERMINATOR


def to_environment(mark: bytes, pipes: Iterable[int]) -> dict[str, str]:
    """Return the variable for a program whose output is read from the descriptors *pipes*."""
    places = (os.fstat(pipe) for pipe in pipes)
    return {
        VARIABLE: " ".join(
            [mark[2:-2].decode(), *(f"{place.st_dev}:{place.st_ino}" for place in places)]
        )
    }


class Marks:
    """The marks that ``structjob run`` expects of this process.

    Args:
        mark: The mark.
        places: Device and inode of the pipes that the command reads.
        database: The identity of the database in which it records.
    """

    def __init__(self, mark: bytes, places: frozenset[tuple[int, int]], database: str) -> None:
        self._mark, self._end = mark, _end_of(mark)
        self._places = places
        self._database = database
        self._here = threading.local()

    @contextmanager
    def showing(self, recorded_in: str | None) -> Iterator[None]:
        """Mark what this thread shows in the block, if it is recorded in the same database."""
        former = getattr(self._here, "recorded", False)
        self._here.recorded = recorded_in == self._database
        try:
            yield
        finally:
            self._here.recorded = former

    @contextmanager
    def on_stderr(self) -> Iterator[None]:
        """Mark what this thread writes to ``sys.stderr`` in the block, under the same condition."""
        stream = sys.stderr
        if not self.reaches(stream):
            yield
            return
        sys.stderr = marked = MarkedStream(stream, self)
        try:
            yield
        finally:
            if sys.stderr is marked:
                sys.stderr = stream

    def reaches(self, stream: Any) -> bool:
        """Return whether *stream*, an object or a descriptor, leads to a pipe of the command, and
        marks nothing itself.
        """
        if type(stream) is MarkedStream:
            return False
        try:
            place = os.fstat(stream if type(stream) is int else stream.fileno())
        except (AttributeError, OSError, ValueError, TypeError):
            return False
        return (place.st_dev, place.st_ino) in self._places

    def on(self, text: bytes, stream: Any) -> bytes:
        """Return *text*, for *stream*, with marks if it is recorded already."""
        if not text or not getattr(self._here, "recorded", False) or not self.reaches(stream):
            return text
        whole = text.endswith(b"\n")
        lines = (text[:-1] if whole else text).replace(b"\n", b"\n" + self._mark)
        return self._mark + lines + (b"\n" if whole else self._end)

    def on_text(self, text: str, stream: Any) -> str:
        """Do the same for a text."""
        given = text.encode("utf-8", "surrogatepass")
        marked = self.on(given, stream)
        return text if marked is given else marked.decode("utf-8", "surrogatepass")


class MarkedStream:
    """A stream on which what is recorded already is written with marks.

    Args:
        stream: The stream.
        marks: The marks.
    """

    def __init__(self, stream: Any, marks: Marks) -> None:
        self._stream = stream
        self._marks = marks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write *text*."""
        self._stream.write(self._marks.on_text(text, self._stream))
        return len(text)


def from_environment(environ: Mapping[str, str]) -> Marks | None:
    """Return the marks for a process with this environment; None if it is not below the command."""
    name, *places = environ.get(VARIABLE, "").split() or [""]
    database = environ.get("STRUCTJOB_DATABASE")
    if not (name.startswith("structjob-") and name.isascii() and places and database):
        return None
    try:
        pairs = [place.split(":") for place in places]
        found = frozenset((int(device), int(inode)) for device, inode in pairs)
    except ValueError:
        return None
    return Marks(b"\x1b_%s\x1b\\" % name.encode(), found, database)


MARKS = from_environment(os.environ)
"""The marks of this process; None if it does not run below ``structjob run``."""


class MarkedOutput:
    """Removes the marks from the output of a program, and separates the marked text.

    Args:
        mark: The mark.
    """

    def __init__(self, mark: bytes) -> None:
        self._marks = (mark, _end_of(mark))
        self._any = re.compile(b"(%s)" % b"|".join(map(re.escape, self._marks)))
        self._held = b""
        """The end of the output, if a mark may begin there."""
        self._marked = False
        """Whether the text that follows is marked."""
        self._line = b""
        """The beginning of a marked line whose end was not read yet."""
        self._seen = False
        self._last = b""
        self._lines = 0

    @property
    def marks(self) -> tuple[bytes, ...]:
        """The marks; empty if the program has not used them."""
        return self._marks if self._seen else ()

    @property
    def lines(self) -> int:
        """The number of marked lines, with one whose end was not read yet."""
        return self._lines + (1 if self._line else 0)

    @property
    def last(self) -> bytes:
        """The last marked line that is not blank, or its first bytes."""
        return self._line.strip() or self._last

    def split(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Return what to show of *chunk*, and what to record of it. An empty chunk is the end."""
        if not self._held and not self._marked and not self._line and b"\x1b" not in chunk:
            return chunk, chunk
        data = self._held + chunk
        kept = self._begun(data) if chunk else 0
        self._held = data[len(data) - kept :]
        shown, plain = [], []
        for piece in self._any.split(data[: len(data) - kept]):
            if piece in self._marks:
                self._seen = True
                self._marked = piece == self._marks[0]
                continue
            shown.append(piece)
            if not self._marked:
                plain.append(piece)
                if b"\n" in piece:  # it ends the line, and is counted where it is recorded
                    self._last, self._line = self.last, b""
                continue
            line, newline, rest = piece.partition(b"\n")
            self._line = (self._line + line)[:_LAST] if len(self._line) < _LAST else self._line
            if newline:
                self._lines += 1
                self._last, self._line, self._marked = self.last, b"", False
                plain.append(rest)
        return b"".join(shown), b"".join(plain)

    def _begun(self, data: bytes) -> int:
        """Return how many bytes at the end of *data* may be the beginning of a mark."""
        # a mark holds two escape characters, its first and its last but one
        most = len(self._marks[1]) - 1
        at = data.rfind(b"\x1b", -most)
        for start in (data.rfind(b"\x1b", -most, max(at, 0)), at):
            if start >= 0 and any(mark.startswith(data[start:]) for mark in self._marks):
                return len(data) - start
        return 0
