"""The functions that readers and writers use to reach a store.

They are functions, so that readers and writers do not depend on the database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import RowMapping

T = TypeVar("T")

Fetch = Callable[[Executable], Awaitable[Sequence[RowMapping]]]
"""A function that runs a statement on the store and returns its rows."""

Flush = Callable[[], Awaitable[object]]
"""A function that delivers pending events to the store."""


class Transact(Protocol):
    """A function that runs a call in its own transaction.

    See `structjob.store.ingest.Store.transact`.
    """

    def __call__(self, call: Callable[[Connection], T]) -> Awaitable[T]: ...
