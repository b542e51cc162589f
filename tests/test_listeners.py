"""Listeners: live events of this process, which never slow down or break logging."""

import asyncio
import threading

import pytest
import structlog

import structjob
from structjob.exceptions import InvalidArgument, InvalidFilter, NotOpen
from structjob.filters import LOG_EQUALS, LogFilter

log = structlog.get_logger("tests.listeners")


async def test_a_callback_gets_live_events(tracker):
    """A callback is given each event, as it will be stored, until it is removed (R30)."""
    heard = []
    listener = tracker.listen(heard.append)
    async with (
        tracker.job("copy", job_id="j", category="c", correlation_id="co") as job,
        job.step("first"),
    ):
        log.info("in a step", n=1, deep={"a": [None]})
    log.warning("outside")
    listener.close()
    log.info("too late")
    await tracker.flush()
    async with asyncio.timeout(20):
        await listener._task
    stored = list(await tracker.logs.list())
    assert stored[-1].message == "too late"
    assert [(event.session_id, event.seq) for event in heard] == [
        (event.session_id, event.seq) for event in stored[:-1]
    ]
    for event, row in zip(heard, stored, strict=False):
        names = [name for name in event.__dataclass_fields__ if name not in ("id", "stored_at")]
        assert [getattr(event, name) for name in names] == [getattr(row, name) for name in names]
        assert (event.id, event.stored_at) == (None, None)


async def test_an_async_callback_and_an_iterator(tracker):
    """A coroutine function is awaited; without a callback the events are iterated, until the
    tracker closes (R30).
    """
    heard = []

    async def hear(event):
        await asyncio.sleep(0)
        heard.append(event.message)

    tracker.listen(hear, LogFilter(text="A"))
    iterator = tracker.listen(level="warning")
    log.info("a")
    log.warning("b")
    log.error("a again")
    assert [(await anext(iterator)).message for _ in range(2)] == ["b", "a again"]
    waiting = asyncio.create_task(anext(iterator, None))
    await tracker.aclose()
    assert await waiting is None
    assert [event async for event in iterator] == []
    assert heard == ["a", "a again"]
    with pytest.raises(NotOpen):
        tracker.listen(print)


FILTERS = [
    ({}, "abcd"),
    ({"level": "error"}, "bd"),
    ({"levels": "warning"}, "c"),
    ({"job_id": "j"}, "b"),
    ({"type": "system"}, "acd"),
    ({"logger": "tests.listeners"}, "abcd"),
    ({"text": "B"}, "b"),
    ({"attrs": {"n": 1}}, "a"),
    ({"attrs": {"n": True}}, "b"),
    ({"attrs": {"vm.name": "x"}}, "cd"),
    ({"attrs": {"none": None}}, "a"),
    ({"attrs": {"vm": "x"}}, ""),
]


async def test_filters_mean_what_they_mean_in_queries(tracker):
    """A listener is given what `logs.list` would find with the same filter (R30, R36)."""
    heard = [[] for _ in FILTERS]
    for to, (filters, _) in zip(heard, FILTERS, strict=True):
        tracker.listen(lambda event, to=to: to.append(event.message), kind="log", **filters)
    log.info("a", n=1.0, none=None)
    async with tracker.job("copy", job_id="j"):
        log.error("b", n=True)
    log.warning("c", vm={"name": "x"})
    log.critical("d", **{"vm.name": "x"})
    for filters, expected in FILTERS:
        found = await tracker.logs.list(kind="log", **filters)
        assert [event.message for event in found] == list(expected), filters
    await tracker.aclose()
    async with asyncio.timeout(20):
        while sum(map(len, heard)) < sum(len(expected) for _, expected in FILTERS):
            await asyncio.sleep(0)
    assert heard == [list(expected) for _, expected in FILTERS]


@pytest.mark.parametrize("size", [1, 10])
async def test_a_slow_listener_costs_itself_only(tracker, size):
    """What comes while the queue is full is counted and not waited for; everything is stored all
    the same (R30).
    """
    listener = tracker.listen(queue_size=size)
    for number in range(25):
        log.info("line", n=number)
    assert listener.dropped == 25 - size
    assert [(await anext(listener)).attrs["n"] for _ in range(size)] == list(range(size))
    log.info("line", n=25)
    assert (await anext(listener)).attrs["n"] == 25
    assert await tracker.logs.count() == 26


async def test_a_listener_that_fails(tracker, caplog):
    """A callback's exception reaches neither who logs nor other listeners; it is counted, and told
    once (R30).
    """
    heard = []

    def broken(event):
        raise ValueError("no")

    failing, listening = tracker.listen(broken), tracker.listen(heard.append)
    log.info("a")
    log.info("b")
    failing.close()
    listening.close()
    await asyncio.gather(failing._task, listening._task)
    assert (failing.failed, len(heard)) == (2, 2)
    assert [
        record.getMessage() for record in caplog.records if record.name.startswith("structjob")
    ] == ["the listener test_a_listener_that_fails.<locals>.broken failed: ValueError: no"]


async def test_a_callback_that_logs(tracker):
    """What a callback logs is stored and not listened to: it would never end (R30)."""
    heard, called = [], asyncio.Event()

    def echo(event):
        heard.append(event.message)
        log.info(f"heard {event.message}")
        called.set()

    listener = tracker.listen(echo)
    log.info("a")
    await called.wait()
    listener.close()
    await listener._task
    assert heard == ["a"]
    assert [event.message for event in await tracker.logs.list()] == ["a", "heard a"]


async def test_events_of_threads(tracker):
    """What a thread logs is heard, too, without the loop having anything else to do (R30)."""
    listener = tracker.listen()
    waiting = asyncio.create_task(anext(listener))
    await asyncio.sleep(0)  # it is asleep

    def work():
        log.info("from a thread")

    thread = threading.Thread(target=work)
    thread.start()
    assert (await waiting).message == "from a thread"
    thread.join()


async def test_an_event_that_comes_while_a_listener_falls_asleep_is_heard(tracker):
    """Another thread may log between the look at the queue and the sleep (R30)."""
    listener = tracker.listen()

    class Woken(asyncio.Event):
        def clear(self):
            super().clear()
            log.info("in between")

    listener._woken = Woken()
    assert (await anext(listener)).message == "in between"


async def test_other_tasks_run_between_the_events_of_a_callback(tracker):
    """However many events wait, a callback holds the loop for 50 of them at most (R30)."""
    heard, turns = [], 0
    listener = tracker.listen(heard.append)
    for number in range(500):
        log.info("line", n=number)
    listener.close()
    while not listener._task.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(heard) == 500
    assert 10 <= turns <= 13


async def test_a_callback_that_waits_ends_with_its_program(tracker):
    """The end of `asyncio.run` cancels each task: that of a listener ends (R30)."""
    called = asyncio.Event()

    async def wait(event):
        called.set()
        await asyncio.Event().wait()

    with tracker.listen(wait) as listener:
        log.info("a")
        await called.wait()
        listener._task.cancel()
        await asyncio.wait({listener._task}, timeout=20)
        assert listener._task.cancelled()
        assert listener.failed == 0


async def test_misuse_is_refused(tracker):
    """A filter in the callback's place, a queue without room, children: each has its
    message (R30).
    """
    with pytest.raises(InvalidArgument, match="filter=…"):
        tracker.listen(LogFilter())
    with pytest.raises(InvalidArgument, match="queue_size"):
        tracker.listen(print, queue_size=0)
    with pytest.raises(InvalidFilter, match="child jobs"):
        tracker.listen(print, job_id="j", children=True)
    with pytest.raises(InvalidFilter, match="unknown filter"):
        tracker.listen(print, nme="x")
    with pytest.raises(InvalidArgument, match="callback"):
        aiter(tracker.listen(print))


async def test_without_listeners_nothing_is_paid(tracker):
    """When the last listener is gone, recording is what it was before (R30)."""
    before = tracker._recorder._append
    listener = structjob.Tracker.listen(tracker, print)
    assert tracker._recorder._append != before
    listener.close()
    assert tracker._recorder._append == before


async def test_each_column_filters(tracker):
    """The filters of a listener are those of reads: each finds its event (R30)."""
    async with tracker.job(
        "copy", job_id="j", category="c", project="p", correlation_id="co"
    ) as job:
        async with job.step("first"):
            log.error("here", trace_id="a" * 32)
            await tracker.flush()
            (stored,) = await tracker.logs.list(text="here")
            wanted = {
                name: getattr(stored, name)
                for name in LOG_EQUALS
                if getattr(stored, name) is not None
            }
            assert wanted.keys() >= {"correlation_id", "step_id", "trace_id", "fingerprint"}
            heard = []
            listeners = [
                tracker.listen(
                    lambda event, name=name: heard.append((name, event.message)), **{name: value}
                )
                for name, value in wanted.items()
            ]
            log.error("here", trace_id="a" * 32)
    for listener in listeners:
        listener.close()
        await listener._task
    assert {name for name, message in heard if message == "here"} == set(wanted)


async def test_a_filter_with_a_password_matches_what_is_redacted(tracker):
    """R30: as the filters of reads do."""
    place = "postgresql://me:hunter2@db/shop"
    heard = []
    with tracker.listen(lambda event: heard.append(event.message), category=place) as listener:
        async with tracker.job("copy", category=place):
            log.info("copied")
    await listener._task
    assert "copied" in heard
    assert len(heard) == await tracker.logs.count(category=place)
