"""The peers of structjob, each configured as its documentation or an expert would do it.

There is one module per peer, imported only in the process that measures it. A peer logs the event
of `benchmarks.payload` in its own idiom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Peer(Protocol):
    """A logging configuration that is ready to be called."""

    def bind(self, context: Mapping[str, str]) -> None:
        """Bind the calling task's job, step and correlation id with contextvars."""

    def burst(self, count: int) -> None:
        """Log *count* events."""

    def settle(self) -> None:
        """Block until everything that was logged has reached its target."""


class StoringPeer(Peer, Protocol):
    """A peer whose target is a table."""

    @property
    def stored(self) -> int:
        """How many events its transactions have committed."""
