"""Recording may be interrupted anywhere, by anything that records: no number is given twice, none
is missing.
"""

from __future__ import annotations

import gc
import signal
import sqlite3
import sys
import threading
from collections import Counter
from contextlib import closing

import pytest
import structlog

import structjob
from structjob.spool import routing
from structjob.spool.line import number_of
from structjob.spool.queue import MemoryQueue
from structjob.spool.recorder import Numbers, Recorder
from structjob.spool.session import Session


def make_recorder(root=None, session=None, **options) -> Recorder:
    settings = {
        "level": 10,
        "queue_size": 10_000,
        "max_bytes": None,
        "overflow": "drop_oldest",
        "fallbacks": False,
    }
    return Recorder(session or Session(), root, **(settings | options))


def lines_of(recorder: Recorder) -> list[bytes]:
    found: list[bytes] = []
    while (batch := recorder.events.read(1 << 20, 10_000)) is not None:
        found += batch.lines.split(b"\n")[:-1]
        recorder.events.ack(batch)
    return found


@pytest.fixture
def interrupting():
    """Let a signal come in every 50 µs; the handler is set with the returned function."""

    def every(handler) -> None:
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 50e-6, 50e-6)

    previous = signal.getsignal(signal.SIGALRM)
    yield every
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def run_interrupted(log, interrupting, least: int) -> int:
    """Log in a loop until handlers and finalizers have logged *least* times each; return how many
    events there were.
    """
    # a counter that is added to would itself be interrupted
    signals, finalised, looped = Numbers(), Numbers(), Numbers()

    class Finalised:
        def __init__(self) -> None:
            self.itself = self  # so that the collector finds it, in the middle of anything

        def __del__(self) -> None:
            log.info("from __del__", n=next(finalised.counter))

    gc.set_threshold(50)
    depth = 0

    def handler() -> None:
        # Handlers interrupt handlers; without an end to that the stack overflows on a slow machine.
        nonlocal depth
        depth += 1
        if depth < 20:
            log.info("from a signal", n=next(signals.counter))
        depth -= 1

    interrupting(handler)
    try:
        while signals.given < least or finalised.given < least:
            if signals.given >= least:
                # Where a handler takes longer than the pause between two signals, they leave the
                # loop one of a hundred log calls; the finalizers are the loop's.
                signal.setitimer(signal.ITIMER_REAL, 0)
            Finalised()
            log.info("from the loop", n=next(looped.counter))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.set_threshold(700, 10, 10)
    gc.collect()
    return signals.given + finalised.given + looped.given


async def interrupted(db_path, interrupting, least: int) -> None:
    structjob.configure(console=False, strict=True)
    log = structlog.get_logger("capture")
    # Room for all: the loop does not rest, and where the machine has other things to do as well,
    # the signals are a long time in coming.
    async with structjob.Tracker(f"sqlite:///{db_path}", spool_max_bytes=64 * 1024**3) as tracker:
        async with tracker.job("interrupted"):
            logged = run_interrupted(log, interrupting, least)
        await tracker.flush()
        ledger = tracker.ledger()
        assert ledger.accepted == ledger.stored == logged + 2  # and the job's own
        assert (await tracker.verify()).ok
        session = tracker.session_id
    with closing(sqlite3.connect(db_path)) as connection, connection:
        count, distinct, last = connection.execute(
            "SELECT count(*), count(DISTINCT seq), max(seq) FROM structjob_logs WHERE session_id = ?",
            (session,),
        ).fetchone()
        for message in ("from a signal", "from __del__", "from the loop"):
            rows, kinds = connection.execute(
                "SELECT count(*), count(DISTINCT json_extract(attrs, '$.n')) FROM structjob_logs WHERE message = ?",
                (message,),
            ).fetchone()
            assert rows == kinds >= 1
    assert count == distinct == last == logged + 2


async def test_signal_handlers_and_finalisers_may_log_anywhere(db_path, interrupting):
    """Handlers and ``__del__`` that log into a loop that logs: every event is stored, under a
    number of its own (capture).
    """
    await interrupted(db_path, interrupting, 1000)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_fifty_thousand_interruptions(db_path, interrupting):
    """The same 50,000 times over (capture)."""
    await interrupted(db_path, interrupting, 50_000)


async def test_kept_events_may_be_interrupted_anywhere(db_path, interrupting):
    """Handlers and ``__del__`` that log while their own thread keeps an event in memory
    (`debug_on_failure`): nothing waits for itself, and the last events are recorded (R33).
    """
    structjob.configure(console=False, strict=True)
    log = structlog.get_logger("capture")
    url = f"sqlite:///{db_path}"
    async with structjob.Tracker(url, level="warning", debug_on_failure=200) as tracker:
        with pytest.raises(ValueError, match="broken"):
            async with tracker.job("interrupted") as job:
                run_interrupted(log, interrupting, 1000)
                raise ValueError("broken")
        kept = await tracker.logs.list(job=job, levels="info", limit=1000)
        assert sum(event.attrs.get("late", False) for event in kept) == 200


def test_an_interruption_that_raises_is_accounted_for(tmp_path, interrupting):
    """A handler that raises (Ctrl-C) in the middle of recording: each number is in a line, or known
    as interrupted, or found missing at the end; none is both, and none is twice (guarantee 2).
    """
    recorder = make_recorder(tmp_path)
    raised = 0

    class Interrupt(BaseException):
        pass

    def handler() -> None:
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code is Recorder.put.__code__:
                raise Interrupt
            frame = frame.f_back
        # one at a time: handlers that interrupt each other overflow the stack on a slow machine
        once()

    def once() -> None:
        signal.setitimer(signal.ITIMER_REAL, 50e-6)

    interrupting(handler)
    while raised < 2000:
        try:
            once()
            while True:
                recorder.put(b'{"message":"x"', 20)
        except Interrupt:
            raised += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    written = Counter(map(number_of, lines_of(recorder)))
    lost = {
        number for dropped in recorder.lost for number in range(dropped.first, dropped.last + 1)
    }
    assert max(written.values()) == 1
    assert not lost & written.keys()
    assert recorder.numbers.given - len(written) <= raised
    recorder.close()
    recorder.spool.remove()


async def test_what_was_interrupted_is_explained_at_the_end(db_path):
    """An event whose recording was broken off is not stored, and not passed over in silence
    (guarantee 2).
    """
    structjob.configure(console=False)
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        structlog.get_logger().info("before")
        counter = tracker._recorder._counter

        def broken_off():
            next(counter)
            raise KeyboardInterrupt
            yield

        tracker._recorder._counter = broken_off()  # right after it took its number
        with pytest.raises(KeyboardInterrupt):
            structlog.get_logger().info("broken off")
        tracker._recorder._counter = counter
        structlog.get_logger().info("after")
        await tracker.flush()
        assert tracker.ledger().stored == 2
        session = tracker.session_id
    assert tracker.ledger().dropped == {"interrupted": 1}
    with closing(sqlite3.connect(db_path)) as connection, connection:
        assert connection.execute(
            "SELECT first_seq, last_seq, reason FROM structjob_gaps WHERE session_id = ?",
            (session,),
        ).fetchall() == [(2, 2, "interrupted")]
    assert not list(db_path.with_name(db_path.name + ".spool").iterdir())


@pytest.mark.parametrize("spool", [True, False])
def test_threads_get_numbers_of_their_own(tmp_path, spool):
    """Eight threads at the shortest switch interval: numbers 1…n, each once (capture)."""
    recorder = make_recorder(tmp_path if spool else None, queue_size=100_000)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(
                target=lambda: [recorder.put(b'{"message":"x"', 20) for _ in range(2000)]
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert sorted(map(number_of, lines_of(recorder))) == list(range(1, 16_001))
    recorder.close()


class TornQueue(MemoryQueue):
    """A disk that takes a part of each third record only."""

    def append(self, line: bytes, number: int) -> None:
        if number % 3 == 0:
            raise OSError(28, "No space left on device")
        super().append(line, number)


def test_what_the_disk_refuses_waits_in_memory():
    """A full disk costs no event while memory has room (R28)."""
    recorder = make_recorder()
    recorder.events = TornQueue()
    recorder._append = recorder.events.append
    for _ in range(9):
        recorder.put(b'{"message":"x"', 20)
    found = [
        number
        for queue in (recorder.events, recorder.fallback)
        for number in map(number_of, queue.read(1 << 20, 100).lines.split(b"\n")[:-1])
    ]
    assert sorted(found) == list(range(1, 10))
    recorder.close()


def test_a_closed_recorder_hands_over_to_the_next():
    """What comes after closing is counted as rejected, and recorded by the tracker that opens next
    (guarantee 2).
    """
    routing._waiting.clear()
    first = make_recorder()
    routing.add(first)
    first.close()
    first.put(b'{"message":"late"', 20)
    assert (first.rejected.given, first.numbers.given) == (1, 0)
    second = make_recorder()
    routing.add(second)
    assert [number_of(line) for line in lines_of(second)] == [1]
    second.close()


def test_quiet_is_when_nobody_is_in_the_middle():
    """Closing can tell whether another thread still has a number and has not written yet."""
    recorder = make_recorder()
    inside, go_on = threading.Event(), threading.Event()

    class Slow(MemoryQueue):
        def append(self, line: bytes, number: int) -> None:
            inside.set()
            go_on.wait()
            super().append(line, number)

    recorder._append = Slow().append
    thread = threading.Thread(target=recorder.put, args=(b'{"message":"x"', 20))
    assert recorder.quiet()
    thread.start()
    inside.wait()
    assert not recorder.quiet()
    assert make_recorder().quiet()
    go_on.set()
    thread.join()
    assert recorder.quiet()
