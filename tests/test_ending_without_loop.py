"""The end of a process whose main thread works in ``with structjob.Tracker(…)``: what runs is
recorded as cancelled, everything is stored, and the process ends as expected (R9, R34).
"""

import asyncio
import os
import signal
import sys
import threading
import time

import pytest
from test_termination import Program, end_by_sigterm, look

import structjob
from structjob.engine import shutdown

pytestmark = pytest.mark.slow


def test_sigterm_unwinds_the_blocks(db_url):
    """R9, R34: cleanup runs, job and step are cancelled by the signal, the process dies of it."""
    text = """
        with structjob.Tracker(url) as tracker:
            with tracker.job("nightly") as job, job.step("load"):
                try:
                    ready()
                    sleep()
                except Exception:
                    log.info("not reached")
                finally:
                    log.info("cleaned")
        print("not reached")
        """
    assert end_by_sigterm(text, db_url, within=10) == ([], "")
    assert asyncio.run(look(db_url)) == (
        ["cleaned"],
        {"nightly": ("cancelled", "SIGTERM")},
        ["cancelled"],
        True,
    )


def test_sigterm_ends_the_jobs_of_other_threads_and_of_loops(db_url):
    """R9, R34: threads notice it at their next step; one that does not is recorded all the same."""
    text = """
        def works(tracker):
            with tracker.job("works") as job:
                begun.acquire()
                while True:
                    with job.step("s"):
                        time.sleep(0.01)
        def hangs(tracker):
            with tracker.job("hangs"):
                begun.acquire()
                threading.Event().wait()
        async def task(tracker):
            async with tracker.job("task"):
                begun.acquire()
                await asyncio.sleep(60)
        begun = threading.Semaphore(3)
        with structjob.Tracker(url) as tracker:
            for work in (works, hangs):
                threading.Thread(target=work, args=(tracker,), daemon=True).start()
            threading.Thread(target=asyncio.run, args=(task(tracker),), daemon=True).start()
            while begun._value:
                time.sleep(0.001)
            ready()
            while True:
                time.sleep(1)
        """
    end_by_sigterm(text, db_url, within=12)
    _, jobs, _, ok = asyncio.run(look(db_url))
    assert {name: status for name, (status, _) in jobs.items()} == dict.fromkeys(
        ("works", "hangs", "task"), "cancelled"
    )
    assert ok


@pytest.mark.parametrize(
    "main",
    [
        """
        with structjob.Tracker(url) as tracker:
            start(tracker)
            ready()
            while True:
                time.sleep(1)
        """,
        """
        async def main():
            async with structjob.Tracker(url) as tracker:
                start(tracker)
                ready()
                await asyncio.sleep(60)
        asyncio.run(main())
        """,
        """
        async def main():
            async with structjob.Tracker(url) as tracker:
                await asyncio.to_thread(start, tracker)
                async with tracker.job("main"):
                    ready()
                    await asyncio.sleep(60)
        asyncio.run(main())
        """,
        """
        async def main():
            tracker = await structjob.Tracker(url).open()
            try:
                await asyncio.to_thread(start, tracker)
                async with tracker.job("main"):
                    ready()
                    await asyncio.sleep(60)
            finally:
                await tracker.aclose()
        asyncio.run(main())
        """,
        """
        tracker = structjob.init(url)
        try:
            start(tracker)
            with tracker.job("main"):
                ready()
                sleep()
        finally:
            tracker.close()
        """,
    ],
    ids=["with", "async with", "async with, and a job", "aclose", "close"],
)
def test_the_job_of_a_thread_has_time_to_clean_up(db_url, main):
    """R9: also if no task runs, and if the task that runs ends first."""
    text = """
        def work(tracker):
            with contextlib.suppress(structjob.Cancelled), tracker.job("works") as job:
                try:
                    begun.set()
                    while True:
                        with job.step("s"):
                            time.sleep(0.01)
                finally:
                    time.sleep(1)
                    log.info("cleaned")
        def start(tracker):
            threading.Thread(target=work, args=(tracker,), daemon=True).start()
            begun.wait()
        begun = threading.Event()
        """
    assert end_by_sigterm(text + main, db_url, within=12) == ([], "")
    lines, jobs, _, ok = asyncio.run(look(db_url))
    assert (lines, ok) == (["cleaned"], True)
    assert jobs == dict.fromkeys(jobs, ("cancelled", "SIGTERM"))
    assert "works" in jobs


async def test_close_is_refused_on_the_trackers_own_loop_before_it_waits(db_url, monkeypatch):
    """R9: after SIGTERM this loop has tasks to end, which a wait for a thread would hold up."""
    begun, end = threading.Event(), threading.Event()

    def work():
        with tracker.job("works"):
            begun.set()
            end.wait(60)

    async with structjob.Tracker(db_url) as tracker:
        working = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.to_thread(begun.wait)
        with monkeypatch.context() as signalled:
            signalled.setattr(shutdown, "_ending", True)
            signalled.setattr(shutdown, "_grace_ends", time.monotonic() + 30)
            began = time.monotonic()
            with pytest.raises(structjob.InvalidState, match="cannot wait for itself"):
                tracker.close(timeout=60)
            took = time.monotonic() - began
        end.set()
        await working
    assert took < 20


def test_a_job_whose_thread_has_ended_is_not_waited_for(db_url):
    """R34: a generator that nothing continues holds its job open."""
    text = """
        shutdown.GRACE = shutdown._WATCH = 3600.0
        def steps(tracker):
            with tracker.job("left"):
                yield
        def work(tracker):
            left.append(steps(tracker))
            next(left[0])
        left = []
        with structjob.Tracker(url) as tracker:
            thread = threading.Thread(target=work, args=(tracker,))
            thread.start()
            thread.join()
            ready()
            while True:
                time.sleep(1)
        """
    end_by_sigterm(text, db_url, within=60)
    _, jobs, _, ok = asyncio.run(look(db_url))
    assert (jobs, ok) == ({"left": ("cancelled", "SIGTERM")}, True)


def test_sigterm_with_a_loop_in_the_main_thread(db_url):
    """R9: `with Tracker` around `asyncio.run`: tasks are cancelled as ever."""
    text = """
        async def main(tracker):
            async with tracker.job("task"):
                try:
                    ready()
                    await asyncio.sleep(60)
                finally:
                    await asyncio.sleep(0.01)
                    log.info("cleaned")
        with structjob.Tracker(url) as tracker:
            asyncio.run(main(tracker))
        """
    end_by_sigterm(text, db_url, within=12)
    assert asyncio.run(look(db_url)) == (["cleaned"], {"task": ("cancelled", "SIGTERM")}, [], True)


def test_sigterm_with_a_loop_in_another_thread(db_url, tmp_path):
    """R34: of a tracker of its own. The process dies of the signal; it once ended with exit code
    143 after 9 seconds.
    """
    text = """
        async def main():
            async with structjob.Tracker(sys.argv[2]) as tracker, tracker.job("thread"):
                begun.set()
                await asyncio.sleep(60)
        begun = threading.Event()
        with structjob.Tracker(url) as tracker, tracker.job("main"):
            threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
            begun.wait()
            ready()
            while True:
                time.sleep(1)
        """
    other = f"sqlite:///{tmp_path}/other.db"
    end_by_sigterm(text, db_url, other, within=8)
    ended = ("cancelled", "SIGTERM")
    assert asyncio.run(look(db_url)) == ([], {"main": ended}, [], True)
    assert asyncio.run(look(other)) == ([], {"thread": ended}, [], True)


@pytest.mark.parametrize("opens", ["with", "init"])
@pytest.mark.parametrize(
    ("ends", "code", "outcome"),
    [
        ("sys.exit(3)", 3, ("failed", "3")),
        ("sys.exit()", 0, ("completed", None)),
        ("raise ValueError('bad')", 1, ("failed", "bad")),
        ("raise KeyboardInterrupt", -signal.SIGINT, ("cancelled", "")),
    ],
)
def test_an_exception_ends_the_program(db_url, opens, ends, code, outcome):
    """R9: exit code and outcome are what they should be, and everything is stored."""
    head = {
        "with": "with structjob.Tracker(url) as tracker:",
        "init": "tracker = structjob.init(url)\nif True:",
    }[opens]
    text = f"""
{head}
    with tracker.job("a") as job:
        log.info("line")
        ready()
        {ends}
"""
    with Program(text, db_url) as program:
        program.await_word()
        program.sent = float("inf")
        program.process.wait(20)
        assert program.process.returncode == code
    assert asyncio.run(look(db_url)) == (["line"], {"a": outcome}, [], True)


def test_a_job_left_open_by_init_is_cancelled_at_the_exit(db_url):
    """R9, R34: handles that were begun by hand."""
    text = """
        tracker = structjob.init(url)
        job = tracker.job("open").__enter__()
        log.info("line")
        ready()
        """
    with Program(text, db_url) as program:
        program.await_word()
        program.process.wait(20)
        assert program.process.returncode == 0, program.process.stderr.read()
    messages, jobs, _, ok = asyncio.run(look(db_url))
    assert (messages, jobs, ok) == (["line"], {"open": ("cancelled", "interpreter exit")}, True)


def test_sigterm_with_a_tracker_of_init(db_url):
    """R9, R34: nothing but the interpreter's exit closes it, and the process dies of the signal."""
    text = """
        tracker = structjob.init(url)
        tracker.job("of a thread").begin()
        with tracker.job("a"):
            ready()
            sleep()
        """
    end_by_sigterm(text, db_url, within=10)
    _, jobs, _, ok = asyncio.run(look(db_url))
    ended = ("cancelled", "SIGTERM")
    assert (jobs, ok) == ({"a": ended, "of a thread": ended}, True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_goes_on_and_opens_its_own(db_url):
    """R34: the child records into its parent's spool; `init` in it opens a tracker of its own."""
    text = """
        tracker = structjob.init(url)
        with tracker.job("parent"):
            child = os.fork()
            if not child:
                with tracker.job("of the child"):
                    pass
                own = structjob.init(url)
                assert own is not tracker
                with own.job("own"):
                    pass
                own.close()
                tracker.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        ready()
        """
    with Program(text, db_url) as program:
        program.await_word()
        program.process.wait(20)
        assert program.process.returncode == 0, program.process.stderr.read()
    _, jobs, _, ok = asyncio.run(look(db_url))
    assert jobs == dict.fromkeys(("parent", "of the child", "own"), ("completed", None))
    assert ok


def test_the_loop_survives_a_listener_that_ends_it(db_url, caplog):
    """R34: `sys.exit()` in a callback ends a loop; the tracker's goes on, and nothing is lost."""
    structjob.configure(console=False)
    with structjob.Tracker(db_url) as tracker:

        def ends(event):
            sys.exit(5)

        async def listen():
            return tracker.listen(ends)

        tracker.run(listen())
        with tracker.job("a") as job:
            pass
        assert tracker.run(tracker.jobs.get(job.id), timeout=10).status == "completed"
        assert tracker.run(tracker.verify()).ok
