"""SIGTERM and the interpreter's exit in one process, whose end is noted and does not take place
(R34, guarantee 6). Whole programs are ended in `test_termination` and `test_ending_without_loop`.
"""

import asyncio
import contextlib
import math
import os
import signal
import sys
import threading
import types

import pytest
import structlog

import structjob
from structjob.engine import shutdown
from structjob.lifecycle.handle import core_of

log = structlog.get_logger("app")

DIED = [("SIGTERM", "default"), 143]
"""The process dies of the signal; 143 is for the first process of a container, which does not."""


class Death(BaseException):
    """The end of the process."""


class Ends:
    """Notes what would end the process, in order.

    Attributes:
        done: The signals that it was sent, each with its handler, and its exit code.
        watches: What was started in a thread.
        slept: The pauses of threads.
    """

    def __init__(self) -> None:
        self.done, self.watches, self.slept = [], [], []

    def kill(self, pid, number):
        if number != signal.SIGTERM:
            return os_kill(pid, number)
        assert pid == os.getpid()
        ours = signal.getsignal(signal.SIGTERM) is shutdown._terminate
        self.done.append(("SIGTERM", "ours" if ours else "default"))
        return None

    def exit(self, code):
        self.done.append(code)
        raise Death

    def start(self, function, arguments):
        assert arguments == ()
        self.watches.append(function)


os_kill = os.kill


class Stream:
    """A stream that knows how the process had ended when it was flushed."""

    def __init__(self, ends):
        self.ends, self.flushed = ends, []

    def flush(self):
        self.flushed.append(list(self.ends.done))
        raise BrokenPipeError


@pytest.fixture
def ends(monkeypatch):
    noted = Ends()
    monkeypatch.setattr(os, "kill", noted.kill)
    monkeypatch.setattr(os, "_exit", noted.exit)
    monkeypatch.setattr(shutdown, "start_new_thread", noted.start)
    monkeypatch.setattr(
        shutdown, "time", types.SimpleNamespace(monotonic=shutdown.time.monotonic, sleep=noted.slept.append)
    )  # fmt: skip
    structjob.configure(console=False, strict=True)
    return noted


class Looks:
    """Stands for `asyncio`: the second look comes when it may."""

    def __init__(self):
        self.go_on = asyncio.Event()

    def __getattr__(self, name):
        return getattr(asyncio, name)

    async def sleep(self, seconds):
        await self.go_on.wait()
        await asyncio.sleep(seconds)


def sigterm():
    """Do what Python does when SIGTERM has come."""
    signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)


async def died():
    """Wait until the process has ended."""
    while not isinstance(shutdown._ending, asyncio.Task):
        await asyncio.sleep(0)
    await asyncio.wait({shutdown._ending})
    with pytest.raises(Death):
        shutdown._ending.result()


async def read(url):
    """Return messages, jobs by operation as status and error message, and whether all is accounted
    for.
    """
    async with structjob.Reader(url) as reader:
        jobs = {
            job.operation: (job.status.value, job.error and job.error.message)
            for job in await reader.jobs.list()
        }
        return [event.message for event in await reader.logs.list(kind="log")], jobs


CANCELLED = ("cancelled", "SIGTERM")


# -- SIGTERM in a loop
# --------------------------------------------------------------------------


async def test_jobs_clean_up_before_everything_is_stored(ends, db_url, monkeypatch):
    """R9, R34: each task is cancelled once, also one with several jobs; one that is being cancelled
    is left alone, one that begins meanwhile is not; then the process dies of the signal.
    """
    monkeypatch.setattr(shutdown, "GRACE", math.inf)
    monkeypatch.setattr(sys, "stdout", out := Stream(ends))
    monkeypatch.setattr(sys, "stderr", err := Stream(ends))
    tracker = await structjob.Tracker(db_url).open()
    told, close, ready = [], shutdown._close, asyncio.Semaphore(0)

    async def closing():
        told.append("closing")
        await close()

    monkeypatch.setattr(shutdown, "_close", closing)
    monkeypatch.setattr(shutdown, "asyncio", looks := Looks())

    async def work(name, begins=None):
        async with tracker.job(name), tracker.job(f"within {name}"):
            ready.release()
            if name == "late":
                looks.go_on.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as exc:
                told.append((name, *exc.args))
                if begins is not None:
                    tasks.append(asyncio.create_task(work(begins)))
                await looks.go_on.wait()
                log.info(f"{name} cleaned up")
                raise

    tasks = [asyncio.create_task(work("a", begins="late"))]
    asked = asyncio.create_task(work("asked"))
    by_hand = await (await tracker.create_job("by hand")).start()
    for _ in range(2):
        await ready.acquire()
    next(job for job in tracker._host.live if job.operation == "within asked").cancel(
        "enough", force=False
    )
    tasks.append(asked)
    sigterm()
    assert shutdown.under_way()
    await died()
    assert told == [("asked", "enough"), ("a", "SIGTERM"), ("late", "SIGTERM"), "closing"]
    assert ends.watches == [shutdown._watch]
    assert ends.done == DIED
    assert out.flushed == err.flushed == [[]]
    assert by_hand.status == "cancelled"
    messages, jobs = await read(db_url)
    assert sorted(messages) == ["a cleaned up", "asked cleaned up", "late cleaned up"]
    assert jobs.pop("within asked") == jobs.pop("asked") == ("cancelled", "enough")
    assert jobs == dict.fromkeys(("a", "within a", "late", "within late", "by hand"), CANCELLED)
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("blocked", [False, True])
async def test_a_job_that_ignores_it_is_not_waited_for_longer(ends, db_url, monkeypatch, blocked):
    """R34: it is asked to stop, and recorded as cancelled all the same. Its time begins with the
    signal, also if the loop was blocked then.
    """
    monkeypatch.setattr(shutdown, "GRACE", 3600.0 if blocked else 0.02)
    tracker = await structjob.Tracker(db_url).open()
    over, begun, asked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def ignores():
        async with tracker.job("ignores"):
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()
            asked.set()
            await over.wait()

    task = asyncio.create_task(ignores())
    await begun.wait()
    sigterm()
    if blocked:
        clock = shutdown.time.monotonic
        monkeypatch.setattr(shutdown.time, "monotonic", lambda: clock() + 3600.0)
    await died()
    assert asked.is_set()
    assert (await read(db_url))[1] == {"ignores": CANCELLED}
    over.set()
    await task


async def test_a_job_whose_loop_is_closed_is_not_waited_for(ends, db_url, monkeypatch):
    """R34: its task never ends. The process once died 9 seconds later, with nothing stored, because
    a task of a closed loop cannot be cancelled.
    """
    monkeypatch.setattr(shutdown, "GRACE", math.inf)
    tracker = await structjob.Tracker(db_url).open()
    kept = []

    def leave():
        loop = asyncio.new_event_loop()

        async def work(begun):
            async with tracker.job("left") as job:
                kept.append(job)
                begun.set()
                await asyncio.Event().wait()

        async def begin():
            begun = asyncio.Event()
            kept.append(asyncio.ensure_future(work(begun)))
            await begun.wait()

        loop.run_until_complete(begin())
        loop.close()

    await asyncio.to_thread(leave)
    task, job = kept
    with pytest.raises(structjob.InvalidState, match="has no running task to cancel"):
        job.cancel("enough")
    with pytest.raises(structjob.InvalidState, match="has no running task to cancel"):
        await tracker.cancel(job, "enough")
    sigterm()
    await died()
    assert ends.done == DIED
    assert (await read(db_url))[1] == {"left": CANCELLED}
    task._log_destroy_pending = False


async def test_what_the_runner_cancels_has_its_time(ends, db_url, monkeypatch, caplog):
    """R34: the main coroutine has ended, and `asyncio.run` cancels all tasks, this one, too: the
    others clean up nevertheless, for as long as they may.
    """
    monkeypatch.setattr(shutdown, "GRACE", 0.3)
    tracker = await structjob.Tracker(db_url).open()
    turns, begun, over = [], asyncio.Event(), asyncio.Event()

    async def work():
        async with tracker.job("work"):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(100):
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(0)
                        turns.append(shutdown.open_hosts() == [tracker._host])

    async def ignores():
        with contextlib.suppress(asyncio.CancelledError):
            await over.wait()
        await over.wait()

    tasks = [asyncio.create_task(work()), asyncio.create_task(ignores())]
    await begun.wait()
    sigterm()
    while not tasks[0].cancelling():
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    monkeypatch.setattr(asyncio, "all_tasks", lambda: {*tasks, shutdown._ending})
    await died()
    assert turns == [True] * len(turns)
    assert len(turns) > 90
    assert ends.done == DIED
    assert (await read(db_url))[1] == {"work": CANCELLED}
    over.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_who_is_alone_is_cancelled(ends, db_url, monkeypatch):
    """R34: there is no other task to wait for."""
    tracker = await structjob.Tracker(db_url).open()
    monkeypatch.setattr(asyncio, "all_tasks", lambda: {shutdown._ending})
    by_hand = await (await tracker.create_job("by hand")).start()

    async def cancelled():
        raise asyncio.CancelledError

    monkeypatch.setattr(shutdown, "_cancel_jobs", cancelled)
    sigterm()
    await died()
    assert by_hand.status == "cancelled"
    assert ends.done == DIED


async def test_every_tracker_is_closed_and_waited_for(ends, db_url, tmp_path, caplog):
    """R34: one that fails does not keep the others from it, and is reported; so is one that another
    call closes.
    """
    structjob.configure(console=False)
    good = await structjob.Tracker(db_url).open()
    bad = await structjob.Tracker(f"sqlite:///{tmp_path}/bad.db").open()
    closed_elsewhere = await structjob.Tracker(f"sqlite:///{tmp_path}/elsewhere.db").open()
    close, elsewhere = bad.aclose, closed_elsewhere._host
    asked = []

    async def fail(seconds):
        asked.append(seconds)
        await close(seconds)
        raise ZeroDivisionError

    async def waits(seconds):
        asked.append(seconds)
        asyncio.get_running_loop().call_later(0.5, shutdown.leave, elsewhere)
        return False

    bad._host.aclose, elsewhere.aclose = fail, waits
    sigterm()
    await died()
    assert asked == [shutdown.CLOSING] * 2
    assert shutdown.open_hosts() == []
    assert [text for text in caplog.messages if "closing a tracker on SIGTERM failed" in text] == [
        "structjob: closing a tracker on SIGTERM failed; what is left stays in the spool"
    ]
    assert caplog.records[-1].exc_info[0] is ZeroDivisionError
    assert good.ledger().stored == good.ledger().accepted
    await closed_elsewhere.aclose()


async def test_a_tracker_that_does_not_close_is_left(ends, db_url, monkeypatch):
    """Guarantee 6: after 3 seconds."""
    monkeypatch.setattr(shutdown, "CLOSING", 0.03)
    tracker = await structjob.Tracker(db_url).open()
    aclose = tracker._host.aclose

    async def fails(seconds):
        return False

    tracker._host.aclose = fails
    sigterm()
    await died()
    assert ends.done == DIED
    assert shutdown.open_hosts() == [tracker._host]
    await aclose(10)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# -- at once
# --------------------------------------------------------------------------


async def test_a_second_signal_ends_it_at_once(ends, db_url):
    """R34: who asks twice does not want to wait. What ran is recorded as cancelled."""
    async with structjob.Tracker(db_url) as tracker:
        job = await tracker.job("a").__aenter__()
        shutdown._ending = True
        with pytest.raises(Death):
            sigterm()
        assert ends.done == DIED
        assert ends.watches == ends.slept == []
        assert job.status == "cancelled"


def test_a_tracker_whose_loop_does_not_run_holds_nothing_up(ends, db_url):
    """R34: nothing could close it; jobs are in the spool, and the process dies of the signal."""
    loop = asyncio.new_event_loop()
    tracker = structjob.Tracker(db_url)
    loop.run_until_complete(tracker.open())
    job = loop.run_until_complete(tracker.job("a").__aenter__())
    with pytest.raises(Death):
        sigterm()
    assert ends.done == DIED
    assert job.status == "cancelled"
    loop.run_until_complete(tracker.aclose())
    loop.close()


def test_a_blocked_loop_does_not_keep_it_alive(ends, db_url):
    """R34: 9 seconds later a thread ends the process, which is less than containers are given."""
    with structjob.Tracker(db_url) as tracker:
        job = tracker.job("a").begin()
        with pytest.raises(Death):
            shutdown._watch()
        assert ends.slept == [9.0]
        assert ends.done == [143]
        assert job.status == "cancelled"


# -- without a loop
# --------------------------------------------------------------------------


def test_blocks_are_left_and_the_last_one_ends_the_process(ends, db_url, tmp_path, monkeypatch):
    """R9, R34: `Terminated` is raised in the main thread; blocks in others are asked to stop."""
    monkeypatch.setattr(sys, "stdout", out := Stream(ends))
    cleaned, begun, over = [], threading.Event(), threading.Event()

    def works(tracker):
        with contextlib.suppress(structjob.Cancelled), tracker.job("elsewhere") as job:
            begun.set()
            over.wait(10)
            job.check_cancelled()

    with pytest.raises(Death), structjob.Tracker(db_url) as outer:
        thread = threading.Thread(target=works, args=(outer,))
        thread.start()
        begun.wait(10)
        with (
            pytest.raises(structjob.Terminated),
            structjob.Tracker(f"sqlite:///{tmp_path}/inner.db") as inner,
            inner.job("inner"),
        ):
            try:
                sigterm()
            finally:
                cleaned.append(list(ends.done))
        assert shutdown.under_way()
        over.set()
        thread.join(10)
    assert cleaned == [[]]
    assert ends.done == DIED
    assert ends.watches == [shutdown._watch]
    assert out.flushed == [[]]
    assert asyncio.run(read(db_url))[1] == {"elsewhere": CANCELLED}
    assert asyncio.run(read(f"sqlite:///{tmp_path}/inner.db"))[1] == {"inner": CANCELLED}


def test_a_block_that_ends_in_the_normal_way_ends_no_process(ends, db_url, tmp_path):
    """R34: nor does one that is not the last; the handler stays until that has ended."""
    with structjob.Tracker(db_url):
        with structjob.Tracker(f"sqlite:///{tmp_path}/inner.db"):
            pass
        assert signal.getsignal(signal.SIGTERM) is shutdown._terminate
        shutdown._ending = True
        shutdown.finish()
        assert ends.done == []
        shutdown._ending = False
    assert ends.done == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_signal_that_is_handled_keeps_its_handler(ends, db_url):
    """R34: a second one must end the process at once, also when every tracker is closed."""
    async with structjob.Tracker(db_url):
        shutdown._ending = True
    assert signal.getsignal(signal.SIGTERM) is shutdown._terminate


async def test_the_programs_handler_is_left_alone(db_url, tmp_path):
    """R34: one that is installed before the tracker opens, or after that."""
    before = signal.signal(signal.SIGTERM, own := lambda *_: None)
    try:
        async with structjob.Tracker(db_url):
            assert signal.getsignal(signal.SIGTERM) is own
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            async with structjob.Tracker(f"sqlite:///{tmp_path}/inner.db"):
                signal.signal(signal.SIGTERM, own)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_loop_in_another_thread_ends_the_process(ends, db_url, tmp_path):
    """R34: the main thread has a tracker in a `with` block, and a thread runs a loop with another.
    Only the main thread may restore the default of a signal, so the process once died 9 seconds
    later, with another exit code.
    """
    ready, outcome = threading.Event(), []

    async def main():
        tracker = await structjob.Tracker(f"sqlite:///{tmp_path}/thread.db").open()
        await (await tracker.create_job("thread")).start()
        ready.set()
        await died()
        outcome.extend(ends.done)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    with structjob.Tracker(db_url) as tracker, tracker.job("main") as job:
        thread.start()
        ready.wait(10)
        sigterm()
        thread.join(10)
        assert outcome == [("SIGTERM", "ours"), 143]
        assert ends.slept == [1.0]
        assert (job.status, core_of(job).cancellation.requested) == ("cancelled", True)
        ends.done.clear()
        with pytest.raises(Death):
            sigterm()
        assert ends.done == DIED
    assert asyncio.run(read(db_url))[1] == {"main": CANCELLED}
    assert asyncio.run(read(f"sqlite:///{tmp_path}/thread.db"))[1] == {"thread": CANCELLED}


# -- at the interpreter's exit
# --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [False, True])
def test_the_exit_closes_what_has_a_thread_of_its_own(ends, db_url, ending):
    """R34: jobs that were left are cancelled by the exit, or by the signal that led to it."""
    tracker = structjob.init(db_url)
    job = tracker.job("left").begin()
    log.info("line")
    shutdown._ending = ending
    with pytest.raises(Death) if ending else contextlib.nullcontext():
        shutdown._at_exit()
    assert ends.done == (DIED if ending else [])
    assert shutdown.open_hosts() == []
    assert job.status == "cancelled"
    reason = "SIGTERM" if ending else "interpreter exit"
    assert asyncio.run(read(db_url)) == (["line"], {"left": ("cancelled", reason)})
    tracker.close()


@pytest.mark.parametrize("ending", [False, True])
def test_the_exit_stores_what_a_forgotten_tracker_holds(ends, db_url, ending):
    """Guarantee 1, R11: in the main thread, as its loop has ended; the next tracker sees by a file
    that the process has not crashed. The reason was another one if SIGTERM had come before.
    """
    loop = asyncio.new_event_loop()
    tracker = structjob.Tracker(db_url)
    loop.run_until_complete(tracker.open())
    job = loop.run_until_complete(tracker.job("left").__aenter__())
    log.info("line")
    drained, drain = [], tracker._engine.drain
    tracker._engine.drain = lambda seconds: drained.append(seconds) or drain(seconds)
    shutdown._ending = ending
    with pytest.raises(Death) if ending else contextlib.nullcontext():
        shutdown._at_exit()
    assert drained == [3.0]
    reason = (
        "SIGTERM" if ending else "its process ended while it ran, and its tracker was not closed"
    )
    assert asyncio.run(read(db_url)) == (["line"], {"left": ("cancelled", reason)})
    assert (tracker._recorder.spool.directory / "closed").exists()
    assert job.status == "cancelled"
    shutdown._ending = False
    loop.run_until_complete(tracker.aclose())
    loop.close()


def test_an_exit_waits_for_a_busy_loop_no_longer_than_it_must(ends, db_url, monkeypatch):
    """R34: a callback that blocks the loop of the tracker, at the exit of the interpreter."""
    tracker = structjob.init(db_url)
    asked, run = [], tracker._host.run

    def runs(work, seconds):
        asked.append(seconds)
        work.close()
        raise TimeoutError

    tracker._host.run = runs
    shutdown._at_exit()
    assert asked == [4.0]
    tracker._host.run = run
    assert tracker.close()


@pytest.mark.parametrize("spool", [True, False])
async def test_a_closed_recorder_leaves_no_word(ends, db_url, spool):
    """R11: the directory of a tracker that was closed is gone or another's; in memory there is
    none.
    """
    tracker = await structjob.Tracker(db_url, spool=spool).open()
    marked = []
    if spool:
        tracker._recorder.spool.mark_closed = lambda: marked.append(1)
    shutdown._end_at_exit(tracker._host)
    assert marked == [1] * spool
    await tracker.aclose()
    marked.clear()
    shutdown._end_at_exit(tracker._host)
    assert marked == []


# -- forks
# --------------------------------------------------------------------------


def blocked():
    return signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("handled", [True, False])
async def test_no_signal_is_forgotten_by_a_fork(ends, db_url, handled):
    """R22: it waits until the fork is complete, if structjob handles it; else nothing changes."""
    async with structjob.Tracker(db_url, handle_signals=handled):
        shutdown._before_fork()
        try:
            assert blocked() is handled
        finally:
            shutdown._after_fork()
        assert not blocked()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            shutdown._before_fork()
            shutdown._after_fork()
            assert blocked()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


class Multiprocessing:
    """Stands for `multiprocessing.util`."""

    def __init__(self):
        self.registered, self.finalizers = [], []

    def register_after_fork(self, of, function):
        self.registered.append((of, function))

    def Finalize(self, of, call, *, exitpriority):
        self.finalizers.append((of, call, exitpriority))


@pytest.mark.parametrize("util", [Multiprocessing(), None])
async def test_a_child_ends_what_it_began_itself(ends, db_url, monkeypatch, util):
    """R22: the trackers are the parent's, and so is the signal; a worker of `multiprocessing` runs
    no handlers but its own.
    """
    monkeypatch.setitem(sys.modules, "multiprocessing.util", util)
    async with structjob.Tracker(db_url) as tracker:
        job = await tracker.job("of the child").__aenter__()
        shutdown._ending = True
        shutdown._before_fork()
        shutdown._after_fork_in_child()
        assert not blocked()
        assert not shutdown.under_way()
        assert shutdown.open_hosts() == []
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if util is not None:
            ((of, function),) = util.registered
            function(of)
            ((nothing, call, priority),) = util.finalizers
            assert nothing is None
            assert priority < 0
            call()
        else:
            shutdown._at_exit()
        assert job.status == "cancelled"
        assert (tracker._recorder.spool.directory / "closed").exists()
        shutdown.leave(tracker._host)
        shutdown._end_inherited()


async def test_a_child_without_a_tracker_registers_nothing(monkeypatch):
    """R22: an empty parent leaves nothing to end."""
    monkeypatch.setitem(sys.modules, "multiprocessing.util", util := Multiprocessing())
    shutdown._before_fork()
    shutdown._after_fork_in_child()
    assert util.registered == []


# -- the test kit
# --------------------------------------------------------------------------


@pytest.mark.parametrize("handled", [True, False])
async def test_a_test_of_a_program_leaves_the_programs_trackers_alone(db_url, tmp_path, handled):
    """R50: an isolated test sees no tracker, and they are handled as before afterwards."""
    async with structjob.Tracker(db_url, handle_signals=handled) as tracker:
        shutdown._inherited.add(tracker._host)
        handler = signal.getsignal(signal.SIGTERM)
        restore = shutdown._isolate()
        assert (shutdown.open_hosts(), list(shutdown._inherited)) == ([], [])
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        shutdown._ending = True
        restore()
        assert not shutdown.under_way()
        assert shutdown.open_hosts() == list(shutdown._inherited) == [tracker._host]
        assert signal.getsignal(signal.SIGTERM) is handler
        assert (handler is shutdown._terminate) is handled
    assert list(shutdown._inherited) == []
