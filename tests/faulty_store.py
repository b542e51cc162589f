"""A store whose database goes away when it is told to."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from typing import Any

import pytest

from structjob.store import opening
from structjob.store.ingest import Store


class FaultyStore:
    """Stands between a tracker and its store.

    Attributes:
        before: Raised in place of every call, while it is set.
        after: Raised when a call of *unanswered* has done its work, once: whoever called cannot know that it has.
        unanswered: Name of the method that *after* is about.
        frozen: While it is set no call returns.
        calls: How often each method was called.
    """

    def __init__(self) -> None:
        self.store: Store | None = None
        self.before: Exception | None = None
        self.after: Exception | None = None
        self.unanswered = "write"
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
            result = await found(*args, **kwargs)
            if self.after is not None and name == self.unanswered:
                fault, self.after = self.after, None
                raise fault
            return result

        return call


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    """The store of the next tracker that is opened."""
    faulty = FaultyStore()
    make_store = opening.make_store

    def make(*args: Any) -> Any:
        if faulty.store is None:
            faulty.store = make_store(*args)
            return faulty
        return make_store(*args)

    monkeypatch.setattr(opening, "make_store", make)
    return faulty
