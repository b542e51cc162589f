"""How much of a batch one transaction takes: as much as the server stores within a second.

A server that is slow, or busy with others, would not store a whole batch before a transaction's
time is over, however often it was tried.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from structjob.exceptions import StoreUnavailable
from structjob.store.ingest import Write

_LEAST = 16 * 1024
"""Bytes of events that a transaction takes in any case."""

_FIRST = 64 * 1024
"""Bytes of events that the first transaction takes at most: nobody knows yet what the server can
do.
"""

LONG = 1.0
"""Seconds that a transaction should take at most; a tenth of what it may take before it is given
up.
"""


def fitting(lines: bytes, start: int, most: int) -> int:
    """Return where those of the *lines* end that fit into *most* bytes, from *start* on; or the
    first of them, if that is longer.
    """
    if len(lines) - start <= most:
        return len(lines)
    return (
        (lines.rfind(b"\n", start, start + most) + 1)
        or (lines.find(b"\n", start) + 1)
        or len(lines)
    )


class BatchSizer:
    """Divides what is to be stored, by how long the transactions before took.

    Attributes:
        most: Bytes of events that the next transaction takes at most, or a single line.
    """

    def __init__(self) -> None:
        self.most = _FIRST

    def of(self, write: Write) -> Iterator[Write]:
        """Yield *write* in parts: its changes of state come with the first, the last number that
        was given out with the last.
        """
        lines, states, start = write.events, write.states, 0
        while (end := fitting(lines, start, self.most)) < len(lines):
            yield Write(write.session_id, lines[start:end], states)
            start, states = end, b""
        yield Write(write.session_id, lines[start:], states, write.last_seq)

    @contextmanager
    def watch(self, portion: Write) -> Iterator[None]:
        """Learn from how long it takes to store *portion*."""
        size, began = len(portion.events), time.monotonic()
        try:
            yield
        except StoreUnavailable:
            self.most = max(_LEAST, min(self.most, size) // 8)
            raise
        seconds = time.monotonic() - began
        if seconds > LONG:
            self.most = max(_LEAST, min(self.most, size // 2))
        elif seconds < LONG / 4:
            self.most = max(self.most, 2 * size)
