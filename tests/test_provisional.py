"""Jobs that are started while the database is away: what they did is stored as the attempt that it
was, whatever others did meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
import structlog
from cli_support import python
from faulty_store import FaultyStore, faulty
from sqlalchemy.util import await_only

import structjob
from structjob.context import propagation, scope
from structjob.exceptions import StoreUnavailable
from structjob.lifecycle.handle import core_of
from structjob.store.contract import Write

__all__ = ["faulty"]

log = structlog.get_logger("settling")


@pytest.fixture
async def cut_off(database, tmp_path, faulty: FaultyStore):
    """An open tracker on each kind of database, whose database is away from then on."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        faulty.before = StoreUnavailable("the server is gone")
        yield tracker
        faulty.before = None


@pytest.fixture
async def other(cut_off, database):
    """A tracker of another process, which reaches the database."""
    async with structjob.Tracker(database.url, spool=False) as tracker:
        yield tracker


async def until(condition, seconds: float = 60.0) -> None:
    """Wait for what the engine does without being asked."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def reconnect(tracker: structjob.Tracker, faulty: FaultyStore) -> None:
    """Let the database answer again, and wait until everything is stored."""
    faulty.before = None

    async def stored():
        with contextlib.suppress(StoreUnavailable):
            await tracker.flush()
            return True
        return False

    await until(stored)


async def attempts(tracker, job_id: str) -> list[tuple]:
    return [
        (found.attempt, found.status, found.result) for found in await tracker.jobs.history(job_id)
    ]


async def told(database, job_id: str) -> dict[str, set]:
    """Return which attempts the steps and the events, by message or kind, belong to."""
    sql = f"SELECT {{}}, attempt FROM structjob_{{}} WHERE job_id = '{job_id}'"
    name = "CASE WHEN kind = 'log' THEN message ELSE kind END"
    rows = await database.rows(sql.format("name", "steps")) + await database.rows(
        sql.format(name, "logs")
    )
    found: dict[str, set] = {}
    for name, attempt in rows:
        found.setdefault(name, set()).add(attempt)
    return found


async def finish(tracker, job_id: str, word: str, **options) -> structjob.Job:
    async with tracker.job("a", job_id=job_id, **options) as job, job.step(f"step {word}"):
        log.info(f"said {word}")
        job.result = word
    if not options.get("offline"):
        await tracker.flush()
    return job


async def test_what_began_offline_is_the_next_attempt(
    cut_off, other, database, faulty: FaultyStore
):
    """It is stored with its result, its steps and its events, and the job keeps its earlier values
    (R2, R29).
    """
    await finish(
        other, "j", "first", owner="ada", category="nightly", metadata={"vm": 1, "disk": 2}
    )
    created = (await other.jobs.get("j")).created_at
    job = await finish(cut_off, "j", "second", offline=True, metadata={"disk": 3})
    assert job.attempt == 1
    await reconnect(cut_off, faulty)
    assert await attempts(cut_off, "j") == [(1, "completed", "first"), (2, "completed", "second")]
    found = await cut_off.jobs.get("j")
    assert (found.attempt, found.status, found.result, found.session_id) == (
        2,
        "completed",
        "second",
        cut_off.session_id,
    )
    assert (found.owner, found.category, found.metadata, found.created_at) == (
        "ada",
        "nightly",
        {"vm": 1, "disk": 3},
        created,
    )
    by_name = await told(database, "j")
    assert (by_name["step first"], by_name["said first"]) == ({1}, {1})
    assert (by_name["step second"], by_name["said second"]) == ({2}, {2})
    assert by_name["operation_end"] == by_name["step_end"] == {1, 2}
    ends = [
        (event.session_id, event.attempt)
        for event in await cut_off.logs.list(structjob.LogFilter(job_id="j", kind="operation_end"))
    ]
    assert sorted(ends) == sorted([(other.session_id, 1), (cut_off.session_id, 2)])
    assert (await cut_off.verify()).ok


async def test_steps_of_other_processes_are_of_the_attempt_that_began_offline(
    cut_off, other, database, faulty: FaultyStore
):
    """faults 46: a program below the job gets the job from its environment, whose attempt has no
    number yet.
    """
    await finish(other, "j", "first")
    async with cut_off.job("a", job_id="j", offline=True):
        environ = structjob.environment({})
        with propagation.from_environment(environ).as_current(), structjob.step("elsewhere"):
            pass
    await reconnect(cut_off, faulty)
    assert (await told(database, "j"))["elsewhere"] == {2}


async def test_each_start_offline_is_an_attempt(cut_off, other, database, faulty: FaultyStore):
    """Two starts of one job in one process, one within the other or after it, are two attempts
    (R2).
    """
    await finish(other, "j", "first")
    async with cut_off.job("a", job_id="j", offline=True) as outer:
        outer.result = "second"
        log.info("said second")
        inner = await finish(cut_off, "j", "third", offline=True)
    last = await finish(cut_off, "j", "fourth", offline=True)
    assert [outer.attempt, inner.attempt, last.attempt] == [1, 2, 3]
    await reconnect(cut_off, faulty)
    assert await attempts(cut_off, "j") == [
        (number + 1, "completed", word)
        for number, word in enumerate(("first", "second", "third", "fourth"))
    ]
    by_name = await told(database, "j")
    assert [by_name[f"said {word}"] for word in ("second", "third", "fourth")] == [{2}, {3}, {4}]
    assert (await cut_off.jobs.get("j")).result == "fourth"
    begun = await cut_off.logs.list(structjob.LogFilter(job_id="j", kind="operation_start"))
    # it was not known then
    assert not any(
        "attempt" in event.attrs for event in begun if event.session_id == cut_off.session_id
    )
    assert (await cut_off.verify()).ok
    assert (await finish(cut_off, "j", "fifth")).attempt == 5


async def test_a_job_that_nobody_knows_begins_with_attempt_1(
    cut_off, database, faulty: FaultyStore
):
    """Offline or not (R2)."""
    job = await finish(cut_off, "j", "first", offline=True, metadata={"provisional": "no"})
    await reconnect(cut_off, faulty)
    assert (
        await attempts(cut_off, "j")
        == [(job.attempt, "completed", "first")]
        == [(1, "completed", "first")]
    )
    assert (await cut_off.jobs.get("j")).metadata == {"provisional": "no"}
    assert set().union(*(await told(database, "j")).values()) == {1}


async def test_after_what_this_process_knows(cut_off, faulty: FaultyStore):
    """Its own former attempts count, of which the database has heard or not."""
    faulty.before = None
    await finish(cut_off, "j", "first")
    await cut_off.flush()
    faulty.before = StoreUnavailable("the server is gone")
    assert (await finish(cut_off, "j", "second", offline=True)).attempt == 2
    async with cut_off.job("a") as made:
        pass
    await finish(cut_off, made.id, "again", offline=True)
    await reconnect(cut_off, faulty)
    assert await attempts(cut_off, "j") == [(1, "completed", "first"), (2, "completed", "second")]
    assert await attempts(cut_off, made.id) == [(1, "completed", None), (2, "completed", "again")]


@pytest.mark.parametrize("way", ["headers", "environment"])
async def test_what_others_log_for_it_goes_along(
    cut_off, other, database, faulty: FaultyStore, way
):
    """An event of another process that was logged for the attempt before its number was known
    belongs to the same attempt (R4, R22).
    """
    await finish(other, "j", "theirs")
    async with cut_off.job("a", job_id="j", offline=True) as job:
        environment = propagation.to_environment(scope.current_scope())
        remote = (
            structjob.extract(structjob.inject({}))
            if way == "headers"
            else propagation.from_environment(environment)
        )
        assert (job.attempt, remote.attempt) == (1, 1)
        with remote.as_current():
            log.info("said elsewhere")
    await reconnect(cut_off, faulty)
    assert (await told(database, "j"))["said elsewhere"] == {2}
    assert (
        structjob.extract(
            {"baggage": "structjob.job_id=j,structjob.attempt=1,structjob.provisional=soon"}
        ).provisional
        is None
    )


async def test_what_others_do_meanwhile_keeps_its_number(
    cut_off, other, database, faulty: FaultyStore
):
    """The attempt comes after all that others made until it was stored; theirs that come later are
    the later ones (R2).
    """
    async with cut_off.job("a", job_id="j", offline=True) as job:
        await finish(other, "j", "theirs")
        log.info("said before")
        await reconnect(cut_off, faulty)
        assert [(number, status) for number, status, _ in await attempts(cut_off, "j")] == [
            (1, "completed"),
            (2, "running"),
        ]
        assert (await finish(other, "j", "theirs again")).attempt == 3
        await cut_off.flush()
        log.info("said after")
        async with job.step("late"):
            job.result = "ours"
    with job.as_current():
        log.info("said at last")
    await cut_off.flush()
    assert await attempts(cut_off, "j") == [
        (1, "completed", "theirs"),
        (2, "completed", "ours"),
        (3, "completed", "theirs again"),
    ]
    found = await cut_off.jobs.get("j")
    assert (found.attempt, found.result) == (3, "theirs again")
    by_name = await told(database, "j")
    assert (
        by_name["late"]
        == by_name["said before"]
        == by_name["said after"]
        == by_name["said at last"]
        == {2}
    )
    assert (await cut_off.verify()).ok


async def test_two_that_begin_a_job_at_once(cut_off, other, database, faulty: FaultyStore):
    """If an offline attempt is stored while another process starts the same job, each is an attempt
    of its own (R2).
    """
    for number in range(5):
        faulty.before = StoreUnavailable("the server is gone")
        await finish(cut_off, f"j{number}", "ours", offline=True)
        await asyncio.gather(reconnect(cut_off, faulty), finish(other, f"j{number}", "theirs"))
        found = await attempts(cut_off, f"j{number}")
        assert [attempt for attempt, _, _ in found] == [1, 2]
        assert sorted(result for _, _, result in found) == ["ours", "theirs"]
        ours = next(attempt for attempt, _, result in found if result == "ours")
        assert (await told(database, f"j{number}"))["said ours"] == {ours}


@pytest.mark.parametrize("first", ["events", "states", "neither"])
async def test_events_find_their_attempt_whichever_comes_first(
    cut_off, other, database, faulty: FaultyStore, monkeypatch, first
):
    """On servers a second writer stores events at the same time as the first one the changes of
    state.
    """
    await finish(other, "j", "first")
    write = faulty.store.write

    async def parted(whole: Write):
        events, states = (
            Write(whole.session_id, whole.events, b"", whole.last_seq),
            Write(whole.session_id, states=whole.states),
        )
        if first == "neither":
            written, more = await asyncio.gather(write(events), write(states))
        else:
            written, more = [
                await write(part)
                for part in ((events, states) if first == "events" else (states, events))
            ]
        written.add(more)
        return written

    monkeypatch.setattr(faulty.store, "write", parted)
    for word in ("second", "third"):
        await finish(cut_off, "j", word, offline=True)
    await reconnect(cut_off, faulty)
    by_name = await told(database, "j")
    assert [by_name[f"said {word}"] for word in ("first", "second", "third")] == [{1}, {2}, {3}]
    assert by_name["operation_end"] == {1, 2, 3}


@pytest.mark.parametrize("database", ["mariadb", "postgresql"], indirect=True)
async def test_what_is_stored_at_the_same_moment_waits(
    cut_off, other, database, faulty: FaultyStore, monkeypatch
):
    """The attempt is settled after the events that a second writer has inserted and not committed:
    it would miss them.
    """
    await finish(other, "j", "first")
    write, insert = faulty.store.write, faulty.store.ingest.events
    inserted, settling = asyncio.Event(), asyncio.Event()

    def insert_and_linger(*args):
        insert(*args)
        inserted.set()
        # Were it not to wait, it would be through by then, most likely; as it waits, this is how
        # long.
        await_only(asyncio.wait({asyncio.ensure_future(settling.wait())}, timeout=0.3))

    async def settle(states):
        written = await write(states)
        settling.set()
        return written

    async def parted(whole: Write):
        if not (whole.states and whole.events):
            return await write(whole)
        monkeypatch.setattr(faulty.store, "write", write)
        monkeypatch.setattr(faulty.store.ingest, "events", insert_and_linger)
        events = asyncio.create_task(
            write(Write(whole.session_id, whole.events, b"", whole.last_seq))
        )
        await inserted.wait()
        monkeypatch.setattr(faulty.store.ingest, "events", insert)
        more = await settle(Write(whole.session_id, states=whole.states))
        written = await events
        written.add(more)
        return written

    monkeypatch.setattr(faulty.store, "write", parted)
    await finish(cut_off, "j", "second", offline=True)
    await reconnect(cut_off, faulty)
    assert settling.is_set()
    assert (await told(database, "j"))["operation_start"] == {1, 2}


async def test_a_start_whose_answer_was_lost_is_the_attempt_that_was_entered(
    cut_off, other, database, faulty: FaultyStore
):
    """The database heard it, and it goes on offline: there is no other attempt beside it (R2)."""
    await finish(other, "j", "first")
    await reconnect(cut_off, faulty)
    faulty.unanswered, faulty.after = "claim", StoreUnavailable("the connection broke")
    await finish(cut_off, "j", "second", offline=True)
    assert faulty.after is None
    await reconnect(cut_off, faulty)
    assert await attempts(cut_off, "j") == [(1, "completed", "first"), (2, "completed", "second")]
    assert (await told(database, "j"))["said second"] == {2}


async def test_a_job_that_was_cancelled_meanwhile_did_run(cut_off, other, faulty: FaultyStore):
    """A pending job that was cancelled while an offline process ran it shows the outcome of that
    run (R13).
    """
    await other.create_job("a", job_id="j", owner="ada")
    await other.flush()
    await other.cancel("j", "no longer wanted")
    await finish(cut_off, "j", "done", offline=True)
    await reconnect(cut_off, faulty)
    found = await cut_off.jobs.get("j")
    assert (found.attempt, found.status, found.result, found.owner, found.error) == (
        1,
        "completed",
        "done",
        "ada",
        None,
    )


async def test_a_taken_idempotency_key_is_left_out(cut_off, other, faulty: FaultyStore, caplog):
    """Both jobs ran: the second one is stored without the key, and says whose it is; nothing is put
    aside (R14).
    """
    async with other.job("pay", idempotency_key="k") as first:
        pass
    async with cut_off.job("pay", idempotency_key="k", offline=True, metadata={"sum": 7}) as second:
        assert not second.existing
        second.result = "paid twice"
    await reconnect(cut_off, faulty)
    found = await cut_off.jobs.get(second.id)
    assert (found.status, found.result, found.attempt, found.idempotency_key) == (
        "completed",
        "paid twice",
        1,
        None,
    )
    assert found.metadata == {"sum": 7, "idempotency_key": "k", "idempotency_key_held_by": first.id}
    assert (await cut_off.jobs.get(first.id)).idempotency_key == "k"
    assert cut_off.ledger().dead_lettered == 0
    assert any(
        first.id in record.getMessage() and second.id in record.getMessage()
        for record in caplog.records
    )
    assert (await cut_off.verify()).ok


async def test_two_starts_offline_with_one_key(cut_off, faulty: FaultyStore):
    """The first one has the key (R14)."""
    jobs = []
    for _ in range(2):
        async with cut_off.job("pay", idempotency_key="k", offline=True) as job:
            jobs.append(job)
    await reconnect(cut_off, faulty)
    assert [(await cut_off.jobs.get(job.id)).idempotency_key for job in jobs] == ["k", None]
    assert (await cut_off.jobs.get(jobs[1].id)).metadata["idempotency_key_held_by"] == jobs[0].id


async def test_a_request_to_cancel_reaches_what_began_offline(cut_off, other, faulty: FaultyStore):
    """Whatever its number was when it began (R9)."""
    await finish(other, "j", "first")
    begun = asyncio.Event()

    async def work():
        async with cut_off.job("a", job_id="j", offline=True):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    await reconnect(cut_off, faulty)
    await other.cancel("j", "enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        async with asyncio.timeout(60):
            await task
    await cut_off.flush()
    assert [(number, status) for number, status, _ in await attempts(cut_off, "j")] == [
        (1, "completed"),
        (2, "cancelled"),
    ]


async def test_what_the_database_refuses_leaves_its_neighbours(
    cut_off, other, database, faulty: FaultyStore, monkeypatch
):
    """A change of state that cannot be stored becomes a dead letter; the others of its batch are
    stored (guarantee 7).
    """
    await finish(other, "j", "first")
    bad = cut_off.job("a", job_id="bad", offline=True)
    async with bad as job:
        monkeypatch.setattr(core_of(job).columns, "operation", None)
    await finish(cut_off, "j", "second", offline=True)
    await reconnect(cut_off, faulty)
    assert await attempts(cut_off, "j") == [(1, "completed", "first"), (2, "completed", "second")]
    assert (await database.rows("SELECT count(*) FROM structjob_dead_letters"))[0][0] == 1


KILLED = """
import asyncio, os, signal, sys
import structlog
from faulty_store import FaultyStore
import structjob
from structjob.exceptions import StoreUnavailable
from structjob.store import factory
from structjob.lifecycle.handle import core_of

faulty, make_store = FaultyStore(), factory.make_store
faulty.before = StoreUnavailable("the server is gone")

def make(*args):
    faulty.store = make_store(*args)
    return faulty

factory.make_store = make
log = structlog.get_logger()

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1], spool=sys.argv[2]) as tracker:
        for word in ("second", "third"):
            async with tracker.job("a", job_id="j", offline=True) as job:
                job.result = word
                log.info(f"said {word}")
        async with tracker.job("a", job_id="j", offline=True) as job, job.step("left open"):
            log.info("said fourth")
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_a_dead_process_did_offline_is_stored_by_the_next(database, tmp_path):
    """After kill -9, too: what it finished is there, and what it left running has crashed
    (guarantees 1 and 5, R11).
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=False) as before:
        await finish(before, "j", "first", owner="ada")
    killed = await asyncio.to_thread(
        python, "-c", KILLED, database.url, str(tmp_path / "spool"), cwd=Path(__file__).parent
    )
    assert killed.returncode == -9, killed.stderr
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        await tracker.flush()
        assert await attempts(tracker, "j") == [
            (1, "completed", "first"), (2, "completed", "second"), (3, "completed", "third"), (4, "crashed", None),
        ]  # fmt: skip
        found = await tracker.jobs.get("j")
        assert (found.attempt, found.status, found.owner) == (4, "crashed", "ada")
        by_name = await told(database, "j")
        assert [by_name[f"said {word}"] for word in ("second", "third", "fourth")] == [
            {2},
            {3},
            {4},
        ]
        assert by_name["left open"] == by_name["operation_crashed"] == {4}
        assert await database.rows(
            "SELECT status FROM structjob_steps WHERE name = 'left open'"
        ) == [("crashed",)]
        assert (await tracker.verify()).ok
        assert (await finish(tracker, "j", "fifth")).attempt == 5
