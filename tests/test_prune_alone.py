"""Who may prune, and for how long it is waited for; without a database (R41)."""

import asyncio
import types

import pytest

from structjob.exceptions import InvalidState, JobNotFound, PruneInProgress, StoreUnavailable
from structjob.retention import prune as pruning
from structjob.retention.prune import Access, delete_family
from structjob.store.locks import LockLost


class Database:
    """A database with one lock, which is taken at try number *free*, and a clock that only pauses
    move.
    """

    def __init__(self, free=1):
        self.free, self.taken, self.released, self.now = free, [], [], 100.0
        self.hangs = None

    async def transact(self, call):
        return await call(self)

    async def take(self, connection, not_within):
        self.taken.append(not_within)
        return len(self.taken) >= self.free

    async def release(self, connection, *, done):
        self.released.append(done)
        if self.hangs == "away":
            raise StoreUnavailable("away")
        if self.hangs:
            await asyncio.Event().wait()

    async def sleep(self, seconds):
        self.now += seconds

    def access(self):
        return Access(None, self.transact, 7, "jobs")


@pytest.fixture
def make(monkeypatch):
    def new(free=1):
        database = Database(free)

        class Times:
            sleep, timeout = database.sleep, asyncio.timeout

        monkeypatch.setattr(pruning, "asyncio", Times)
        monkeypatch.setattr(pruning, "time", types.SimpleNamespace(monotonic=lambda: database.now))
        monkeypatch.setattr(pruning, "Lock", lambda name, session_id: database)
        return database

    return new


@pytest.mark.parametrize(
    ("patience", "free", "tries", "held"),
    [
        (0.0, 1, 1, True), (0.0, 2, 1, False), (0.5, 3, 3, True), (0.5, 4, 4, True),
        (0.5, 5, 4, False), (0.4, 4, 3, False),
    ],
)  # fmt: skip
async def test_another_prune_is_waited_for_as_long_as_was_asked(make, patience, free, tries, held):
    """R41: then the caller learns that it is in progress. Nothing is released that was not held."""
    database = make(free)
    if held:
        async with pruning._locked(database.access(), patience, "an hour") as lock:
            assert lock is database
            assert database.released == []
    else:
        with pytest.raises(PruneInProgress, match="another process is pruning this database"):
            async with pruning._locked(database.access(), patience, "an hour"):
                pass
    assert database.taken == ["an hour"] * tries
    assert database.released == ([True] if held else [])


@pytest.mark.parametrize("hangs", [None, "away", "for ever"])
async def test_a_lock_is_released_whatever_happens(make, monkeypatch, hangs):
    """R41: a prune that failed, or was overtaken, does not count as one of this hour; a database
    that does not answer delays nothing, and the lock expires.
    """
    monkeypatch.setattr(pruning, "_RELEASING", 0.01)
    database = make()
    database.hangs = hangs
    with pytest.raises(ZeroDivisionError):
        async with pruning._locked(database.access(), 0.0):
            raise ZeroDivisionError
    with pytest.raises(PruneInProgress, match="this process stood still for so long"):
        async with pruning._locked(database.access(), 0.0):
            raise LockLost
    async with pruning._locked(database.access(), 0.0, prunes=False):
        pass
    async with pruning._locked(database.access(), 0.0):
        pass
    assert database.released == [False, False, False, True]


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 4])
async def test_a_job_is_deleted_until_nothing_of_it_is_left(make, monkeypatch, rounds):
    """R41: events may arrive meanwhile, but not forever; this is no prune of the database."""
    database, deleted = make(), []
    left = [["a", "b"]] * rounds

    async def family(fetch, job_id):
        assert job_id == "a"
        return left.pop() if left else []

    class Deleter:
        def __init__(self, fetch, transact, lock):
            assert lock is database

        def deleted(self):
            return "everything"

        async def jobs(self, plans):
            deleted.append(plans)

    monkeypatch.setattr(pruning, "family_to_delete", family)
    monkeypatch.setattr(pruning, "Deleter", Deleter)
    if rounds == 0:
        with pytest.raises(JobNotFound):
            await delete_family(database.access(), "a", patience=0.0)
    elif rounds == 4:
        with pytest.raises(InvalidState, match="gets events while it is being deleted"):
            await delete_family(database.access(), "a", patience=0.0)
    else:
        assert await delete_family(database.access(), "a", patience=0.0) == "everything"
    assert deleted == [["a", "b"]] * min(rounds, 3)
    assert database.released == [False] * bool(rounds)
