"""The start of a job whose answer is lost: it is stored, and the caller got an error."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from faulty_store import FaultyStore, faulty

import structjob
from structjob.engine.claiming import Claiming
from structjob.exceptions import StoreUnavailable

__all__ = ["faulty"]


@pytest.fixture
async def unanswered(database, tmp_path, faulty: FaultyStore):
    """An open tracker on each kind of database; `lose` has the answer to its next claim lost."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        yield tracker


def lose(faulty: FaultyStore) -> None:
    faulty.unanswered, faulty.after = "claim", StoreUnavailable("the connection broke")


async def until(condition, seconds: float = 60.0) -> None:
    """Wait for what the engine does without being asked."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def entered(database) -> list[tuple]:
    """Return every attempt as it is in the database."""
    return [
        tuple(row)
        for row in await database.rows(
            "SELECT job_id, attempt, status FROM structjob_attempts ORDER BY job_id, attempt"
        )
    ]


async def test_the_same_start_again_is_the_first(unanswered, database, faulty: FaultyStore):
    """A start that was not answered and is repeated with its idempotency key runs the job; the lost
    first start does not block it (R14).
    """
    lose(faulty)
    with pytest.raises(StoreUnavailable):
        await unanswered.job("pay", idempotency_key="k").__aenter__()
    assert faulty.after is None
    async with unanswered.job("pay", idempotency_key="k") as job:
        assert (job.existing, job.attempt) == (False, 1)
    assert [(found.id, found.status) for found in await unanswered.jobs.list()] == [
        (job.id, "completed")
    ]
    assert await entered(database) == [(job.id, 1, "completed")]


async def test_what_never_began_is_taken_back(unanswered, database, faulty: FaultyStore):
    """If the start is not repeated, the stored job is removed as soon as the database answers
    (R11).
    """
    lose(faulty)
    with pytest.raises(StoreUnavailable):
        await unanswered.job("pay", job_id="j").__aenter__()

    async def gone():
        return not await unanswered.jobs.list()

    await until(gone)
    assert await entered(database) == []


async def test_what_is_carried_out_late_is_taken_back(
    unanswered, database, faulty: FaultyStore, monkeypatch
):
    """If the server carries out the start later, after we have looked for it in vain, the job is
    removed as well (R11).
    """
    faulty.late = True
    lose(faulty)
    with pytest.raises(StoreUnavailable):
        await unanswered.job("pay", job_id="j").__aenter__()
    await unanswered._engine.claiming.withdraw()
    assert await faulty.carry_out() == [(None, 1)]
    monkeypatch.setattr("structjob.engine.claiming._ANSWER_TIMEOUT", 0.0)

    async def gone():
        return not await unanswered.jobs.list()

    await until(gone)
    assert await entered(database) == []


async def test_a_key_that_is_entered_late_is_in_nobodys_way(
    unanswered, database, faulty: FaultyStore
):
    """The same start again is the first, also where what the database had received of it is carried
    out only then (R14).
    """
    faulty.late = True
    lose(faulty)
    with pytest.raises(StoreUnavailable):
        await unanswered.job("pay", idempotency_key="k").__aenter__()
    claim = faulty.store.claim

    async def as_late_as_can_be(row):
        await faulty.carry_out()
        return await claim(row)

    faulty.store.claim = as_late_as_can_be
    async with unanswered.job("pay", idempotency_key="k") as job:
        assert (job.existing, job.attempt) == (False, 1)
    assert [(found.id, found.status) for found in await unanswered.jobs.list()] == [
        (job.id, "completed")
    ]
    assert await entered(database) == [(job.id, 1, "completed")]


async def test_what_did_not_come_is_forgotten(unanswered, faulty: FaultyStore, monkeypatch):
    """It is looked for twice: at once, and when it cannot come any more. Many starts of a long
    outage are no load afterwards.
    """
    faulty.late = True
    lose(faulty)
    with pytest.raises(StoreUnavailable):
        await unanswered.job("pay", job_id="j").__aenter__()
    claiming = unanswered._engine.claiming
    await claiming.withdraw()
    asked = faulty.calls["transact"]
    await claiming.withdraw()
    assert faulty.calls["transact"] == asked
    assert claiming._unanswered
    monkeypatch.setattr("structjob.engine.claiming._ANSWER_TIMEOUT", 0.0)
    await claiming.withdraw()
    assert not claiming._unanswered


async def test_many_are_looked_for_by_and_by(unanswered, faulty: FaultyStore, monkeypatch):
    """So many in a turn at most: between the turns the heart beats (R28)."""
    monkeypatch.setattr("structjob.engine.maintenance._CLAIMS", 0)
    faulty.late = True
    for number in range(3):
        lose(faulty)
        with pytest.raises(StoreUnavailable):
            await unanswered.job("pay", job_id=f"j{number}").__aenter__()
    claiming = unanswered._engine.claiming
    await claiming.withdraw(2)
    assert [each.missed is None for each in claiming._unanswered] == [False, False, True]


async def test_closing_takes_back_what_never_began(database, tmp_path, faulty: FaultyStore):
    """A tracker that is closed at once leaves no job that looks as if it had crashed (R11)."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        lose(faulty)
        with pytest.raises(StoreUnavailable):
            await tracker.job("pay", job_id="j").__aenter__()
    assert await entered(database) == []
    assert await database.rows("SELECT id FROM structjob_jobs") == []


async def test_the_former_attempt_is_the_latest_again(unanswered, database, faulty: FaultyStore):
    """A further attempt that never began leaves the job as the former one ended (R2)."""
    async with unanswered.job("pay", job_id="j") as job:
        job.result = {"paid": 7}
    before = await unanswered.jobs.get("j")
    lose(faulty)
    with pytest.raises(StoreUnavailable):
        await unanswered.job("pay", job_id="j").__aenter__()

    async def former():
        return await unanswered.jobs.get("j") == before

    await until(former)
    assert await entered(database) == [("j", 1, "completed")]
    async with unanswered.job("pay", job_id="j") as again:
        assert again.attempt == 2
    assert [attempt.status for attempt in await unanswered.jobs.history("j")] == [
        "completed",
        "completed",
    ]


@pytest.mark.parametrize("own", [True, False])
async def test_a_pending_job_is_pending_again(unanswered, database, faulty: FaultyStore, own):
    """A pending job, of this process or another, stays pending and keeps its values until it is
    started (R13).
    """
    if own:
        made = await unanswered.create_job("pay", job_id="j", owner="ada")
    else:
        async with structjob.Tracker(database.url, spool=False) as other:
            await other.create_job("pay", job_id="j", owner="ada")
        made = unanswered.job("pay", job_id="j")
    lose(faulty)
    with pytest.raises(StoreUnavailable):
        await made.__aenter__()

    async def pending():
        return (await unanswered.jobs.get("j")).status == "pending"

    await until(pending)
    assert await entered(database) == []
    async with unanswered.job("pay", job_id="j") as job:
        assert job.attempt == 1
    found = await unanswered.jobs.get("j")
    assert (found.status, found.owner, found.attempt) == ("completed", "ada", 1)


async def test_what_goes_on_offline_stays(unanswered, database, faulty: FaultyStore):
    """With `offline=True` the job runs though its start was not answered: it is the attempt that
    was entered (R29).
    """
    lose(faulty)
    async with unanswered.job("pay", idempotency_key="k", offline=True) as job:
        await unanswered._engine.claiming.withdraw()
        assert await entered(database) == [(job.id, 1, "running")]
        assert (await unanswered.jobs.get(job.id)).status == "running"
    async with unanswered.job("pay", idempotency_key="k") as second:
        assert (second.existing, second.id) == (True, job.id)
    assert await entered(database) == [(job.id, 1, "completed")]


async def test_what_others_made_of_it_stays(unanswered, database, faulty: FaultyStore):
    """Another process that has begun the next attempt meanwhile keeps it; the one that never began
    is no part of the history (R2).
    """
    lose(faulty)
    with pytest.raises(StoreUnavailable):
        await unanswered.job("pay", job_id="j").__aenter__()
    async with (
        structjob.Tracker(database.url, spool=False) as other,
        other.job("pay", job_id="j") as job,
    ):

        async def alone():
            return await entered(database) == [("j", job.attempt, "running")]

        await until(alone)
    assert (await unanswered.jobs.get("j")).status == "completed"
    assert await entered(database) == [("j", job.attempt, "completed")]


async def test_a_job_that_is_made_with_a_key_needs_an_answer(
    unanswered, database, faulty: FaultyStore
):
    """While the database is unavailable it is unknown whether the key is taken: this raises, unless
    `offline=True` takes the risk (R14, R29).
    """
    faulty.before = StoreUnavailable("the connection broke")
    with pytest.raises(StoreUnavailable, match="the connection broke"):
        await unanswered.create_job("pay", idempotency_key="k")
    made = await unanswered.create_job("pay", idempotency_key="k", offline=True)
    faulty.before = None

    async def answered():
        with contextlib.suppress(StoreUnavailable):
            await unanswered.flush()
            return True

    await until(answered)
    (found,) = await unanswered.jobs.list()
    assert (found.id, found.status, found.idempotency_key) == (made.id, "pending", "k")
    assert (await unanswered.create_job("pay", idempotency_key="k")).id == made.id
    assert await database.rows("SELECT reason FROM structjob_dead_letters") == []


def test_the_last_attempts_of_only_so_many_jobs_are_remembered(monkeypatch):
    """A program that starts a job every second needs no more memory after a year; of the jobs that
    it started last, no two attempts get the same number (R2).
    """
    monkeypatch.setattr("structjob.engine.claiming._KNOWN", 2)
    claiming = Claiming(None)
    assert [claiming.provisional(job_id, 0) for job_id in "abcbc"] == [1, 1, 1, 2, 2]
    assert claiming.provisional("a", 0) == 1
    assert claiming.provisional("a", 4) == 5


async def test_a_start_that_is_refused_forgets_no_number():
    """A job that was started without an answer, and then is found to run elsewhere, keeps its
    number for itself (R2).
    """

    class Refusing:
        async def once(self, call):
            return {"id": "j"}, 0

    claiming = Claiming(Refusing())
    assert claiming.provisional("j", 0) == 1
    await claiming.claim({"id": "j", "idempotency_key": None}, None, pending=False)
    assert claiming.provisional("j", 0) == 2
