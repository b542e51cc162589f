"""Marks on console lines below ``structjob run``: lines that are recorded as events already.

That command records each line that its program prints. A program that itself records events in the
same database also shows them on its console. Such a line begins with a mark, which is an escape
sequence with a random number. The command removes the marks from what it shows, and does not record
the marked lines a second time.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

VARIABLE = "STRUCTJOB_OUTPUT"
"""The environment variable with the mark and the pipes that ``structjob run`` reads."""


def new_mark() -> bytes:
    """Return a mark, which no output contains by accident.

    It is an application program command (ECMA-48, 8.3.2), which terminals do not show.
    """
    return b"\x1b_structjob-%s\x1b\\" % secrets.token_hex(8).encode()


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
        self._mark = mark
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

    def reaches(self, stream: Any) -> bool:
        """Return whether *stream* leads to a pipe of the command, and marks nothing itself."""
        if type(stream) is MarkedStream:
            return False
        try:
            place = os.fstat(stream.fileno())
        except (AttributeError, OSError, ValueError, TypeError):
            return False
        return (place.st_dev, place.st_ino) in self._places

    def on(self, line: bytes, stream: Any) -> bytes:
        """Return *line*, for *stream*, with a mark if it is recorded already."""
        if not getattr(self._here, "recorded", False) or not self.reaches(stream):
            return line
        return self._mark + line[:-1].replace(b"\n", b"\n" + self._mark) + line[-1:]


class MarkedStream:
    """The stream of a handler of `logging`: what is recorded already is written with marks.

    Args:
        stream: The stream.
        marks: The marks.
    """

    def __init__(self, stream: Any, marks: Marks) -> None:
        self._stream = stream
        self._marks = marks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        """Write *text*, one or more whole lines."""
        line = self._marks.on(text.encode("utf-8", "surrogatepass"), self._stream)
        return self._stream.write(line.decode("utf-8", "surrogatepass"))


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
    """Removes the marks from the output of a program, and separates the marked lines.

    Args:
        mark: The mark.

    Attributes:
        lines: The number of marked lines.
        last: The last marked line that is not blank.
    """

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._held = b""
        """The end of the output, if a mark may begin there."""
        self._marked: bytes | None = None
        """The beginning of a marked line whose end was not read yet."""
        self._seen = False
        self.lines = 0
        self.last = b""

    @property
    def mark(self) -> bytes | None:
        """The mark; None if the program has not used it."""
        return self._mark if self._seen else None

    def split(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Return what to show of *chunk*, and what to record of it. An empty chunk is the end."""
        if not self._held and self._marked is None and b"\x1b" not in chunk:
            return chunk, chunk
        data = self._held + chunk
        kept = self._begun(data) if chunk else 0
        self._held = data[len(data) - kept :]
        pieces = data[: len(data) - kept].split(self._mark)
        self._seen = self._seen or len(pieces) > 1
        plain = []
        for number, piece in enumerate(pieces):
            if number == 0 and self._marked is None:
                plain.append(piece)
                continue
            line, newline, rest = piece.partition(b"\n")
            self._marked = (self._marked or b"") + line
            if newline:
                self.lines += 1
                self.last = self._marked.strip() or self.last
                self._marked = None
                plain.append(rest)
        return b"".join(pieces), b"".join(plain)

    def _begun(self, data: bytes) -> int:
        """Return how many bytes at the end of *data* may be the beginning of a mark."""
        at = data.rfind(b"\x1b", -len(self._mark) + 1)
        # the mark holds two escape characters, its first and its last but one
        for start in (data.rfind(b"\x1b", -len(self._mark) + 1, max(at, 0)), at):
            if start >= 0 and self._mark.startswith(data[start:]):
                return len(data) - start
        return 0
