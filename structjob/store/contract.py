"""What readers and writers are given to reach a store: functions, so that none of them knows which
database it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import RowMapping

T = TypeVar("T")

Fetch = Callable[[Executable], Awaitable[Sequence[RowMapping]]]
"""Runs a statement on the store and returns its rows."""

Flush = Callable[[], Awaitable[object]]
"""Delivers to the store what is pending."""


class Transact(Protocol):
    """Runs a call in a transaction of its own; see `structjob.store.ingest.Store.transact`."""

    def __call__(self, call: Callable[[Connection], T]) -> Awaitable[T]: ...
