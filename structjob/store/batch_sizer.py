"""Limit a transaction to what the server stores within a second.

A server that is slow or busy could not store a whole batch within a transaction's timeout, however
often it was tried.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from structjob.exceptions import StoreUnavailable
from structjob.store.contract import Write

_LEAST = 16 * 1024
"""Bytes of events that a transaction may always contain."""

_FIRST = 64 * 1024
"""Maximum size of the events in the first transaction, in bytes: the server's speed is not known
yet.
"""

LONG = 1.0
"""Seconds that a transaction should take at most: a tenth of its timeout."""


def fitting(lines: bytes, start: int, most: int) -> int:
    """Return the end of the *lines* that fit into *most* bytes from *start* on.

    If the first line is longer, return its end.
    """
    if len(lines) - start <= most:
        return len(lines)
    return (
        (lines.rfind(b"\n", start, start + most) + 1)
        or (lines.find(b"\n", start) + 1)
        or len(lines)
    )


class BatchSizer:
    """The size of the next transaction, by how long the previous ones took.

    Attributes:
        most: Maximum size of the events in the next transaction, in bytes. A single longer line is
            also allowed.
    """

    def __init__(self) -> None:
        self.most = _FIRST

    def of(self, write: Write) -> Iterator[Write]:
        """Yield *write* in parts.

        The first part contains the changes of state, the last part the greatest number that was
        assigned.
        """
        lines, states, start = write.events, write.states, 0
        while (end := fitting(lines, start, self.most)) < len(lines):
            yield Write(write.session_id, lines[start:end], states)
            start, states = end, b""
        yield Write(write.session_id, lines[start:], states, write.last_seq)

    @contextmanager
    def watch(self, write: Write) -> Iterator[None]:
        """Adapt the size to the time that it takes to store *write*."""
        size, began = len(write.events), time.monotonic()
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
