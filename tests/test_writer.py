"""The writers alone: whose turn it is, what a batch holds, and when they rest; with a database that
only keeps what it is given.
"""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest
from engine_support import sites
from test_capture import make_recorder

from structjob.engine import delivery, writer
from structjob.engine.accounts import Accounts
from structjob.engine.delivery import Delivery
from structjob.engine.reentry import Reentry
from structjob.engine.source import AdoptedSource, Reached, Source
from structjob.engine.waiters import Flush, Waiters
from structjob.engine.writer import Writers
from structjob.spool.queue import MemoryQueue
from structjob.spool.session import Session
from structjob.store.contract import Written

BODY = b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"m","attrs":{}'


class Link:
    """A database link, and its store."""

    def __init__(self) -> None:
        self.store = self
        self.fault: BaseException | None = None
        self.waiting = int
        self.entered: list[int] = []
        self.written: list[tuple[int, int, int, int]] = []
        """Session, changes of state, events and last number of each write."""

    async def until_answered(self, call):
        return await call()

    async def begin_session(self, session):
        self.entered.append(session.session_id)

    async def write(self, batch):
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        counts = batch.states.count(b"\n"), batch.events.count(b"\n")
        self.written.append((batch.session_id, *counts, batch.last_seq))
        return Written(states=list(range(1, 1 + counts[0])))


class Adopted(list[Source]):
    """Adopted spools."""

    def __init__(self) -> None:
        super().__init__()
        self.over: list[Source] = []
        self.ended: list[Source] = []
        self.abandoned: list[Source] = []
        self.refused = False

    def next_over(self):
        return self.over.pop() if self.over else None

    async def end(self, source):
        self.ended.append(source)

    def abandon(self, source, exc):
        self.abandoned.append(source)

    async def attempt(self, source, call):
        return None if self.refused else await call()


class Site:
    """Writers, and all that they work with."""

    def __init__(self, root=None, *, batch_size=10, count=1, flush_interval=3600.0, queue_size=40):
        self.recorder = make_recorder(root, queue_size=queue_size)
        self.own = Source(
            self.recorder.session, self.recorder.queues, given=lambda: self.recorder.numbers.given
        )
        self.link, self.adopted, self.waiters = Link(), Adopted(), Waiters()
        reentry = Reentry(self.link, lambda: iter([self.own]), set())
        self.delivery = Delivery(self.own, self.adopted, self.link, reentry, batch_size)
        accounts = Accounts(self.own, self.recorder)
        self.link.waiting = accounts.waiting
        self.writers = Writers(
            self.own, self.recorder, self.delivery, accounts, self.waiters,
            flush_interval=flush_interval, count=count,
        )  # fmt: skip
        self.recorder.wake = self.writers.wake
        self.writers._looked_at = asyncio.get_running_loop().time()

    def log(self, count: int) -> None:
        for _ in range(count):
            self.recorder.put(BODY, 10)

    def change(self) -> None:
        self.recorder.put_state("job", lambda: {"id": "a"})

    def adopt(self, number: int, count: int) -> AdoptedSource:
        """Adopt a spool with so many events."""
        events = MemoryQueue()
        for seq in range(1, count + 1):
            events.append(b"{}\n", seq)
        session = Session(number, "h", None, 7)
        source = AdoptedSource(
            SimpleNamespace(
                session=session, states=MemoryQueue(), events=events, tally=None, alive=True
            )
        )
        self.adopted.append(source)
        return source

    def read(self, index: int = 0):
        """Return the session and the number of lines of the next batch: (states, events)."""
        work = self.delivery.next_batch(states=index == 0)
        if work is None:
            return None
        source, *batches = work
        return (
            source.session.session_id if source is not self.own else "own",
            *(batch.count if batch is not None else None for batch in batches),
        )

    async def rests(self, index: int = 0) -> asyncio.Task[None]:
        """Begin to rest, and go as far as that is possible now."""
        resting = asyncio.create_task(self.writers._rest(index))
        for _ in range(10):
            await asyncio.sleep(0)
        return resting

    async def wakes(self, resting: asyncio.Task[None]) -> bool:
        """Return whether the rest is over."""
        for _ in range(10):
            await asyncio.sleep(0)
        if resting.done():
            await resting
            return True
        return False


@pytest.fixture
async def make(tmp_path):
    """Make writers; in memory, or on disk if a name is given."""
    with sites(Site, tmp_path) as new:
        yield new


# -- reading
# --------------------------------------------------------------------------


def test_what_is_known_of_stored_changes_takes_no_memory_once_all_before_are_stored():
    """A program that changes the state of jobs for months remembers only what came out of order."""
    reached = Reached()
    for number in range(1, 1001):
        reached.add([number])
    reached.add([1002, 1003])
    assert [number in reached for number in (1, 1000, 1001, 1002, 1003, 1004)] == [
        True, True, False, True, True, False,
    ]  # fmt: skip
    assert len(reached._beyond) == 2
    reached.add([1001])
    assert 1003 in reached
    assert not reached._beyond


def test_a_dead_letter_and_a_torn_line_are_counted_once(tmp_path):
    """faults H: the ledger: of four lines two are stored, one is dead, and one was none."""
    recorder = make_recorder(tmp_path)
    source = Source(recorder.session, recorder.queues)
    for _ in range(4):
        recorder.put(BODY, 10)
    _, events = source.read(10, states=True)
    assert (source.in_flight, source.accounted()) == (4, 4)
    source.acknowledge(None, events, Written(dead=1, torn=1))
    source.dropped["cleared"] += 5
    assert (source.stored, source.dead, source.in_flight) == (2, 1, 0)
    assert source.confirmed == 3
    assert source.accounted() == 8
    recorder.close()
    recorder.spool.close()


async def test_sources_take_turns(make, monkeypatch):
    """faults H: a busy program delivers what it has adopted, and of that a bounded number of lines
    at once; a source without lines is passed over.
    """
    monkeypatch.setattr(delivery, "_VERIFIED", 4)
    site = make()
    site.log(25)
    site.adopt(1, 9)
    site.adopt(2, 0)
    site.adopt(3, 5)
    assert [site.read() for _ in range(9)] == [
        ("own", None, 10), (1, None, 4), (3, None, 4), ("own", None, 10), (1, None, 4),
        (3, None, 1), ("own", None, 5), (1, None, 1), None,
    ]  # fmt: skip
    few = make(batch_size=3)
    few.adopt(1, 9)
    assert few.read() == (1, None, 3)


async def test_a_deliverer_has_no_session_to_enter(make):
    """R29: it delivers for others, and a tracker enters its own session first."""
    site = make()
    entered = []

    class Entering:
        async def enter(self, source):
            entered.append(source)

    for own in (None, site.own):
        delivery = Delivery(own, site.adopted, site.link, Entering(), 10)
        await delivery.begin()
        assert entered == ([] if own is None else [own])
        assert delivery.next_batch() is None
    other = site.adopt(1, 5)
    found, *_ = Delivery(None, site.adopted, site.link, Entering(), 10).next_batch()
    assert found is other


async def test_only_the_first_writer_takes_changes_of_state(make):
    """faults H: two that took them could store an older one later."""
    site = make()
    site.change()
    site.log(1)
    assert site.read(1) == ("own", None, 1)
    assert site.read(1) is None
    assert site.read(0) == ("own", 1, None)


async def test_an_adopted_spool_that_cannot_be_read_is_set_aside(make):
    """faults H: the next one is read in its place; what this program cannot read of its own is an
    error.
    """
    site = make()

    def refuse(*_):
        raise OSError("gone")

    broken = site.adopt(1, 5)
    site.adopt(2, 5)
    broken.queues()[2].read = refuse
    assert site.read() == (2, None, 5)
    assert site.adopted.abandoned == [broken]
    site.log(1)
    site.recorder.events.read = refuse
    with pytest.raises(OSError, match="gone"):
        while True:
            site.read()


@pytest.mark.parametrize(
    ("count", "index", "events", "woken"),
    [(2, 0, 14, False), (2, 0, 15, True), (1, 0, 15, False), (2, 1, 15, False)],
)
async def test_a_backlog_wakes_a_second_writer(make, count, index, events, woken):
    """faults H: as soon as half of a batch is left, and not for less."""
    site = make(count=count)
    site.log(events)
    await site.writers._turn(index)
    assert site.writers._woken.is_set() is woken


@pytest.mark.parametrize("taken", [0, 3])
async def test_what_is_worth_another_writer(make, taken):
    """faults H: half of a batch that no writer holds, or an adopted spool, needs another writer."""
    site = make()
    site.own.dropped["queue_full"] = taken
    site.log(4 + taken)
    assert not site.writers._worth_another()
    assert not site.writers._has_more(1)
    site.log(1)
    assert site.writers._worth_another()
    assert site.writers._has_more(1)
    site.read()
    assert not site.writers._has_more(1)
    assert not site.writers._worth_another()
    site.adopt(1, 1)
    assert site.writers._worth_another()


# -- a turn
# --------------------------------------------------------------------------


async def test_a_turn_stores_what_waits_and_goes_on_while_more_does(make):
    """faults H: own events are written with the greatest number given out, those of others without
    one; callers that wait for them go on.
    """
    site = make(batch_size=100)
    stored = []
    site.delivery.on_stored = lambda: stored.append(site.own.stored)
    site.log(5)
    site.change()
    flush = Flush.of([site.own])
    site.waiters.add_flush(flush)
    assert await site.writers._turn(0) is False
    assert flush.promise.done
    assert (site.own.stored, site.own.in_flight, stored) == (5, 0, [5])
    assert await site.writers._turn(0) is False  # nothing waits
    adopted = site.adopt(1, 2)
    assert await site.writers._turn(0) is True
    assert adopted.stored == 2
    mine = site.recorder.session.session_id
    assert site.link.written == [(mine, 1, 5, 5), (1, 0, 2, 0)]
    assert site.link.entered == [mine, 1]


async def test_a_turn_that_leaves_something_is_followed_by_another(make):
    """faults H: a batch is bounded in bytes, and what did not fit has waited already."""
    site = make(batch_size=100)
    site.log(1)
    read = site.recorder.events.read
    site.recorder.events.read = lambda limit, most: read(limit, 1)
    assert await site.writers._turn(0) is False
    site.log(2)
    assert await site.writers._turn(0) is True
    assert await site.writers._turn(0) is False
    assert site.own.stored == 3


async def test_a_finished_session_is_ended_by_the_first_writer(make):
    """faults H: it ends one session in each turn. A writer that stores the last of a session wakes
    the first one.
    """
    site = make()
    source = site.adopt(1, 0)
    site.adopted.over = [source]
    assert await site.writers._turn(1) is False
    assert site.adopted.ended == []
    assert await site.writers._turn(0) is True
    assert site.adopted.ended == [source]
    for index, own, urgent in ((0, False, False), (1, True, False), (1, False, True)):
        site = make(batch_size=4)
        if own:
            site.log(4)
        else:
            site.adopt(1, 2)
        await site.writers._turn(index)
        assert len(site.link.written) == 1
        assert site.writers._urgent is urgent


async def test_a_second_writer_works_for_a_backlog_only(make):
    """faults H: many small transactions are slower than one. The next writer stores a batch that
    was read and not stored.
    """
    site = make()
    site.log(4)
    assert await site.writers._turn(1) is False
    assert site.link.written == []
    site.link.fault = RuntimeError("cut off")
    with pytest.raises(RuntimeError, match="cut off"):
        await site.writers._turn(0)
    assert (site.own.stored, site.own.in_flight, len(site.delivery.returned)) == (0, 4, 1)
    await site.writers._turn(1)
    assert (site.own.stored, site.own.in_flight, len(site.delivery.returned)) == (4, 0, 0)
    site.log(5)
    looked = site.writers._looked_at
    assert await site.writers._turn(1) is False
    assert site.own.stored == 9
    assert site.writers._looked_at == looked  # what it did not look for may wait still


async def test_an_adopted_batch_that_the_database_refuses_is_not_acknowledged(make):
    """faults H: it stays in its directory, which is set aside. The program's own batch is tried
    again until it is stored.
    """
    site = make()
    stored = []
    site.delivery.on_stored = lambda: stored.append(1)
    source = site.adopt(1, 2)
    site.adopted.refused = True
    await site.writers._turn(0)
    assert (source.stored, stored) == (0, [])
    site.log(1)
    await site.writers._turn(0)
    assert (site.own.stored, stored) == (1, [1])


async def test_the_end_of_the_interpreter_stores_what_a_writer_returned_first(make):
    """faults H: then what waits, changes of state with it."""
    site = make()
    site.log(1)
    site.delivery.returned.append(site.delivery.next_batch())
    site.log(2)
    site.change()
    works = [site.delivery.next_batch(), site.delivery.next_batch()]
    assert [source.as_write(*batches).last_seq for source, *batches in works] == [3, 3]
    assert [(states and states.count, events.count) for _, states, events in works] == [
        (None, 1), (1, 2),
    ]  # fmt: skip
    assert site.delivery.next_batch() is None


async def test_a_fault_of_ours_does_not_stop_the_delivery(make, monkeypatch, caplog):
    """faults H: it is reported, and a second later the writer goes on; it ends when it is
    cancelled.
    """
    site = make(batch_size=2)
    slept = []
    real = asyncio.sleep

    async def sleep(seconds):
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr(writer.asyncio, "sleep", sleep)
    site.link.fault = RuntimeError("odd")
    site.log(5)
    running = asyncio.create_task(site.writers.run(0))
    while site.own.stored < 5:
        await real(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert 1.0 in slept
    assert "delivering events failed; it goes on in a second" in caplog.text
    assert site.link.entered == [site.recorder.session.session_id]


async def test_at_debug_a_batch_is_described(make, caplog):
    """faults 30: how many events and changes of state it held, and how many wait."""
    with caplog.at_level(logging.DEBUG, logger="structjob"):
        site = make(batch_size=3)
        site.change()
        await site.writers._turn(0)
        site.log(4)
        await site.writers._turn(0)
    session = site.recorder.session.session_id
    said = [text for text in caplog.messages if text.startswith("stored")]
    assert [text.split(" in ")[0] for text in said] == [
        f"stored 0 events and 1 state record of session {session}",
        f"stored 3 events and 0 state records of session {session}",
    ]
    took = [float(text.split(" in ")[1].split(" ms")[0]) for text in said]
    assert max(took) < 900
    assert said[1].endswith("1 event waits")


# -- resting
# --------------------------------------------------------------------------


@pytest.mark.parametrize("disk", [None, "spool"])
async def test_a_writer_sleeps_until_it_is_woken_and_then_waits_for_more(make, disk):
    """faults H: it is marked idle, so that the next event wakes it. Then it waits for the flush
    interval, or until a caller asks.
    """
    site = make(disk)
    resting = await site.rests()
    assert site.recorder.idle
    site.log(1)
    assert not site.recorder.idle
    assert not await site.wakes(resting)
    site.writers.flush_soon()
    assert await site.wakes(resting)
    site.writers.flush_interval = 0.0
    assert await site.wakes(await site.rests())
    site.change()
    assert await site.wakes(await site.rests())


async def test_the_interval_begins_when_the_first_event_may_have_come(make):
    """faults H: for an event that came while the writer worked, when it looked last; for one that
    wakes it, now.
    """
    site = make(flush_interval=3600.0)
    site.log(1)
    site.writers._looked_at = asyncio.get_running_loop().time()
    resting = await site.rests()
    assert not await site.wakes(resting)
    resting.cancel()
    site.writers._looked_at -= 3601.0
    assert await site.wakes(await site.rests())
    await site.writers._turn(0)
    site.writers._looked_at -= 3601.0
    resting = await site.rests()
    site.log(1)
    assert not await site.wakes(resting)
    resting.cancel()


@pytest.mark.parametrize("why", ["urgent", "waiters", "backlog"])
async def test_what_is_asked_for_does_not_wait(make, why):
    """faults H: a request holds for one turn. A backlog needs no request."""
    site = make()
    site.log(5 if why == "backlog" else 1)
    if why == "urgent":
        site.writers.flush_soon()
    if why == "waiters":
        site.waiters.add_flush(Flush.of([site.own]))
    assert await site.wakes(await site.rests())
    assert not site.recorder.idle
    assert not site.writers._urgent
    if why == "urgent":
        resting = await site.rests()
        assert not await site.wakes(resting)
        resting.cancel()


async def test_a_second_writer_leaves_requests_and_wakings_to_the_first(make):
    """faults H: it neither forgets a request nor says that the first writer is awake."""
    site = make(count=2)
    site.writers._urgent = True
    site.log(5)
    assert await site.wakes(await site.rests(1))
    assert site.writers._urgent
    assert site.recorder.idle
    held = Held()
    site.writers.hold_back(held)
    site.read()
    resting = await site.rests(1)
    assert not resting.done()
    assert held.recorded == 0
    resting.cancel()


async def test_a_queue_in_memory_is_emptied_before_it_is_full(make):
    """faults H: events in memory do not wake the writer one by one, so it looks at the queue, and
    stores it when a quarter is full.
    """
    site = make(batch_size=1000, queue_size=40)
    site.log(10)
    resting = await site.rests()
    assert not await site.wakes(resting)
    site.recorder.idle = False
    site.log(1)
    async with asyncio.timeout(60):
        await resting
    disk = make("spool", batch_size=1000, queue_size=40)
    disk.log(30)
    resting = await disk.rests()
    assert not await disk.wakes(resting)
    resting.cancel()


@pytest.mark.parametrize("disk", [None, "spool"])
async def test_only_a_queue_in_memory_is_looked_at_now_and_then(make, disk, monkeypatch):
    """faults H: an event on disk wakes the writer, which sleeps until its interval is over."""
    site = make(disk)
    until = []
    timeout_at = asyncio.timeout_at

    def noted(when):
        until.append(when)
        return timeout_at(when)

    monkeypatch.setattr(writer.asyncio, "timeout_at", noted)
    site.log(1)
    began = asyncio.get_running_loop().time()
    resting = await site.rests()
    resting.cancel()
    looked = site.writers._looked_at
    if disk:
        assert until == [looked + 3600.0]
    else:
        assert began < until[0] < looked + 3600.0


class Held:
    """A handle whose progress changes."""

    def __init__(self) -> None:
        self.recorded = 0

    def flush_progress(self):
        self.recorded += 1


async def test_progress_that_was_held_back_is_recorded_once(make):
    """faults H: at the next turn of a writer. It wakes an idle one."""
    site = make(flush_interval=0.0)
    held = [Held(), Held()]
    for each in held:
        site.writers.hold_back(each)
        site.writers.hold_back(each)
    assert not site.writers._woken.is_set()
    await asyncio.sleep(0)
    assert not site.writers._woken.is_set()
    resting = await site.rests()
    assert [each.recorded for each in held] == [1, 1]
    assert site.recorder.idle
    site.writers.hold_back(held[0])
    assert await site.wakes(resting)
    assert site.writers._has_more(0)
    site.writers.flush_progress()
    assert not site.writers._has_more(0)
    assert [each.recorded for each in held] == [2, 1]


async def test_what_the_first_writer_looks_for_before_it_sleeps(make):
    """faults H: events, changes of state, and drops that are not recorded; not what a writer
    holds.
    """
    site = make()
    assert not site.writers._has_more(0)
    site.log(1)
    assert site.writers._has_more(0)
    batch = site.recorder.events.read(1000, 10)
    site.own.in_flight = 1
    assert not site.writers._has_more(0)
    site.own.acknowledge(None, batch, Written())
    site.change()
    assert site.writers._has_more(0)
    batch = site.recorder.states.read(1000, 10)
    site.own.acknowledge(batch, None, Written(states=[1]))
    assert not site.writers._has_more(0)
    next(site.recorder.state_numbers.counter)  # a thread has it, and has not written yet
    assert not site.writers._has_more(0)
    site.log(1)
    site.read()
    assert not site.writers._has_more(0)
    full = make(queue_size=2)
    full.log(3)
    full.own.in_flight = 3
    assert full.writers._has_more(0)


async def test_only_a_task_wakes_without_the_pipe_of_the_loop(make, monkeypatch):
    """faults H: within a task the loop is awake; a signal handler may have come while it slept."""
    site = make()
    loop = asyncio.get_running_loop()
    used = []
    for name in ("call_soon", "call_soon_threadsafe"):
        monkeypatch.setattr(loop, name, lambda *_, name=name, **__: used.append(name))
    site.writers.wake()
    monkeypatch.setattr(writer.asyncio, "current_task", lambda: None)
    site.writers.wake()
    monkeypatch.undo()
    assert used == ["call_soon", "call_soon_threadsafe"]


async def test_a_wake_from_a_thread_or_without_a_loop(make):
    """faults H: it reaches a sleeping loop from another thread, and is no error where the loop is
    closed.
    """
    site = make(flush_interval=0.0)
    resting = await site.rests()
    await asyncio.to_thread(site.log, 1)
    async with asyncio.timeout(60):
        await resting
    asyncio.get_running_loop().call_soon(site.writers.wake)  # no task runs
    async with asyncio.timeout(60):
        await site.writers._woken.wait()
    closed = asyncio.new_event_loop()
    closed.close()
    site.writers._loop = closed
    site.writers.wake()
