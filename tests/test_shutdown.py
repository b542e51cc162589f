"""Programs that end in every way: promptly, with nothing lost that the ledger does not show (R34,
guarantees 1, 2 and 6).
"""

import asyncio
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from cli_support import in_development

import structjob

HEAD = """
import asyncio, atexit, os, signal, sys, threading, time
import structlog, structjob
structjob.configure(console=False)
log = structlog.get_logger("app")
url = sys.argv[1]
"""


def run(program, url, *more, expect=0, within=20.0):
    """Run *program* in a process of its own; return its output."""
    in_development.prepare()  # which is not to be timed
    began = time.monotonic()
    done = in_development.run(HEAD + textwrap.dedent(program), [url, *more], Path.cwd())
    assert time.monotonic() - began < within
    child = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
    assert child.returncode == expect, child.stderr
    return child


async def stored(url):
    """Return what programs logged themselves, the statuses of jobs by operation, and whether all is
    accounted for.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(url) as tracker:
        await tracker.flush()
        messages = [event.message async for event in tracker.logs.iterate(logger="app")]
        jobs = {job.operation: job.status.value for job in await tracker.jobs.list(limit=1000)}
        return messages, jobs, (await tracker.verify()).ok


async def test_forgetting_to_close_loses_nothing(db_url):
    """Guarantee 1: a program that opens a tracker and just ends, ends at once; what it logged is
    delivered.
    """
    child = run(
        """
        async def main():
            tracker = await structjob.Tracker(url).open()
            async with tracker.job("done"):
                for n in range(500):
                    log.info(f"event {n}")
        asyncio.run(main())
        log.info("after the loop")
        """,
        db_url,
    )
    assert "Traceback" not in child.stderr
    messages, jobs, ok = await stored(db_url)
    assert messages == [*(f"event {n}" for n in range(500)), "after the loop"]
    assert jobs == {"done": "completed"}
    assert ok


async def test_forgetting_to_leave_a_job_shows_it_cancelled(db_url):
    """R11, faults 56: the interpreter ended in an orderly way, so the job has not crashed."""
    run(
        """
        async def main():
            tracker = await structjob.Tracker(url).open()
            job = await tracker.job("left").__aenter__()
            log.info("in it")
        asyncio.run(main())
        """,
        db_url,
    )
    messages, jobs, ok = await stored(db_url)
    assert (messages, jobs, ok) == (["in it"], {"left": "cancelled"}, True)


async def test_events_before_open_and_after_close(db_url):
    """Rules of the surface: before any tracker the last 1,000 wait for it; after the last has
    closed they wait for the next.
    """
    run(
        """
        log.info("before")
        async def main():
            async with structjob.Tracker(url):
                log.info("within")
            log.info("between")
            async with structjob.Tracker(url):
                log.info("again")
        asyncio.run(main())
        log.info("after")
        """,
        db_url,
    )
    messages, _, ok = await stored(db_url)
    assert (messages, ok) == (["before", "within", "between", "again"], True)


async def test_logging_from_everywhere(db_url):
    """Capture: from `__del__`, a signal handler, `atexit`, a daemon thread and the interpreter's
    shutdown: no hang, no loss.
    """
    run(
        """
        class Loud:
            def __init__(self, name): self.name = name
            def __del__(self): log.info(f"del {self.name}")

        signal.signal(signal.SIGUSR1, lambda *_: log.info("handler"))
        atexit.register(log.info, "atexit")

        async def main():
            tracker = await structjob.Tracker(url).open()
            cycle = Loud("in a cycle"); cycle.me = cycle
            del cycle
            for n in range(20):
                os.kill(os.getpid(), signal.SIGUSR1)
                log.info("main")
            import gc; gc.collect()
            thread = threading.Thread(target=lambda: [log.info("thread") for _ in range(100)])
            thread.start(); thread.join()
            await tracker.flush()
        asyncio.run(main())
        last = Loud("at the end")
        """,
        db_url,
    )
    messages, _, ok = await stored(db_url)
    assert messages.count("handler") == 20
    assert messages.count("main") == 20
    assert messages.count("thread") == 100
    assert "del in a cycle" in messages
    assert "atexit" in messages
    assert ok


async def test_ctrl_c_marks_cancelled_and_closes(db_url):
    """R9, R34: `asyncio.run` turns SIGINT into a cancellation; the job says so, and everything is
    stored.
    """
    run(
        """
        async def main():
            async with structjob.Tracker(url) as tracker, tracker.job("long") as job, job.step("s"):
                log.info("started")
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(60)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            sys.exit(130)
        """,
        db_url,
        expect=130,
    )
    assert await stored(db_url) == (["started"], {"long": "cancelled"}, True)


async def test_sys_exit_in_a_job(db_url):
    """R9: the exit code is the program's, the job is completed or failed by it."""
    for code, status in ((0, "completed"), (3, "failed")):
        run(
            f"""
            async def main():
                async with structjob.Tracker(url) as tracker, tracker.job("exits {code}"):
                    sys.exit({code})
            asyncio.run(main())
            """,
            db_url,
            expect=code,
        )
        assert (await stored(db_url))[1][f"exits {code}"] == status


async def test_three_event_loops_use_one_tracker(db_url):
    """Spool: any thread or loop may log, read, start and end jobs; the tracker's own loop delivers
    for all.
    """
    run(
        """
        async def work(tracker, name):
            for n in range(20):
                async with tracker.job(f"{name}-{n}", job_id=f"{name}-{n}" if n % 2 else None) as job, job.step("s") as step:
                    log.info(f"{name} {n}")
                    async for _ in step.track(range(3)):
                        pass
                if n % 5 == 0:
                    assert (await tracker.jobs.get(job.id)).status == "completed"
                    assert len(await tracker.logs.list(job_id=job.id, kind="log")) == 1
                    await tracker.flush()

        async def main():
            async with structjob.Tracker(url) as tracker:
                threads = [threading.Thread(target=lambda name=name: asyncio.run(work(tracker, name))) for name in "abc"]
                for thread in threads: thread.start()
                await work(tracker, "d")
                for thread in threads: await asyncio.to_thread(thread.join)
                ledger = tracker.ledger()
                assert ledger.lost == ledger.rejected == 0
        asyncio.run(main())
        """,
        db_url,
        within=40,
    )
    messages, jobs, ok = await stored(db_url)
    assert sorted(messages) == sorted(f"{name} {n}" for name in "abcd" for n in range(20))
    assert set(jobs.values()) == {"completed"}
    assert len(jobs) == 80
    assert ok


async def test_a_tracker_closed_from_another_loop(db_url):
    """Guarantee 6: from whichever loop it is closed, it ends within the timeout and stores what
    there is.
    """
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(db_url).open()
    async with tracker.job("a"):
        pass
    assert await asyncio.to_thread(lambda: asyncio.run(tracker.aclose())) is True
    assert (await stored(db_url))[1] == {"a": "completed"}


async def test_the_loop_of_a_tracker_is_gone(db_url):
    """Guarantee 2: a tracker left open on a loop that has ended takes events still; they are stored
    when the program ends.
    """
    child = run(
        """
        trackers = []
        async def opens():
            trackers.append(await structjob.Tracker(url).open())
            log.info("first loop")
        asyncio.run(opens())
        async def logs():
            log.info("second loop")
        asyncio.run(logs())
        ledger = trackers[0].ledger()
        print(ledger.rejected, ledger.lost)
        """,
        db_url,
    )
    assert child.stdout.strip() == "0 0"
    messages, _, ok = await stored(db_url)
    assert (messages, ok) == (["first loop", "second loop"], True)


async def test_a_tracker_whose_loop_is_closed_says_so(database, tmp_path):
    """R29, guarantee 6: calls that can no longer succeed return at once; closing stores what waits,
    or leaves it to the next tracker.
    """
    child = run(
        """
        tracker = structjob.Tracker(url, spool=sys.argv[2])
        asyncio.run(tracker.open())
        async def use():
            async with tracker.job("late"):
                log.info("waits")
            for ask in (tracker.flush, tracker.jobs.list, lambda: tracker.create_job("a", idempotency_key="k")):
                try:
                    print("answered", await ask())
                except structjob.StoreUnavailable as exc:
                    print(str(exc)[:61])
            print(await tracker.aclose())
        asyncio.run(use())
        """,
        database.url,
        str(tmp_path / "spool"),
    )
    says = "the event loop in which the tracker was opened is closed: what"
    assert child.stdout.splitlines() == [*[says[:61]] * 3, str(database.kind == "sqlite")]
    assert "Traceback" not in child.stderr
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        await tracker.flush()
        assert [event.message for event in await tracker.logs.list(logger="app")] == ["waits"]
        assert [job.status for job in await tracker.jobs.list()] == ["completed"]
        assert (await tracker.verify()).ok


def test_a_forgotten_tracker_ends_before_the_finalizers_are_called(db_url):
    """Python fails to call them while one of our threads, which use SQLAlchemy, makes another."""
    program = """
        import asyncio, sys, weakref, structjob
        from structjob.engine import shutdown
        end = shutdown._end_at_exit
        shutdown._end_at_exit = lambda tracker: (end(tracker), print("tracker"))
        async def main():
            await structjob.Tracker(sys.argv[1]).open()
            weakref.finalize(main, print, "finalizers")
        asyncio.run(main())
        """
    command = [sys.executable, "-c", textwrap.dedent(program), db_url]  # imports as usual
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["tracker", "finalizers"]


@pytest.mark.parametrize("closing", ["aclose", "forgotten"])
async def test_no_warning_is_printed_by_a_program_that_just_logs(db_url, closing):
    """First minutes: with Python's development mode on, nothing is left unclosed, never awaited or
    destroyed while pending.
    """
    child = run(
        f"""
        async def main():
            tracker = await structjob.Tracker(url).open()
            log.info("x")
            if {closing == "aclose"}:
                await tracker.aclose()
        asyncio.run(main())
        """,
        db_url,
    )
    assert child.stderr == ""
