"""A store whose database goes away when it is told to."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

import structjob.reader
import structjob.store.connection
import structjob.transfer.imports  # noqa: F401 -- what is imported later would keep the function that stands in for a test
from structjob.store import factory
from structjob.store.contract import Store


class FaultyStore:
    """Stands between a tracker and its store.

    Attributes:
        before: Raised in place of every call, while it is set.
        after: Raised when a call of *unanswered* has done its work, once: the caller cannot
            know that it has.
        unanswered: Name of the method that *after* is about.
        late: Whether such a call has not done its work yet when *after* is raised: `carry_out` does
            it.
        frozen: While it is set no call returns.
        calls: How often each method was called.
    """

    def __init__(self) -> None:
        self.store: Store | None = None
        self.before: Exception | None = None
        self.after: Exception | None = None
        self.unanswered = "write"
        self.late = False
        self._on_its_way: list[Callable[[], Awaitable[Any]]] = []
        self.frozen = False
        self.thawed = asyncio.Event()
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if not inspect.iscoroutinefunction(found) or name == "close":
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            if self.frozen:
                await self.thawed.wait()
            if self.before is not None:
                raise self.before
            if self.after is None or name != self.unanswered:
                return await found(*args, **kwargs)
            fault, self.after = self.after, None
            if self.late:
                self._on_its_way.append(partial(found, *args, **kwargs))
            else:
                await found(*args, **kwargs)
            raise fault

        return call

    async def carry_out(self) -> list[Any]:
        """Do what was on its way to the database when the caller was cut off; return the answers
        that it would have got.
        """
        waiting, self._on_its_way = self._on_its_way, []
        return [await call() for call in waiting]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    """The store of the next tracker that is opened."""
    faulty = FaultyStore()
    make_store = factory.make_store

    def make(*args: Any) -> Any:
        if faulty.store is None:
            faulty.store = make_store(*args)
            return faulty
        return make_store(*args)

    monkeypatch.setattr(factory, "make_store", make)
    return faulty
