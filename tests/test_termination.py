"""Signals: what they end is recorded as cancelled, everything is stored, and the process ends as
its sender expects.

R9, R34, guarantee 6.
"""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import pytest
from cli_support import in_development

import structjob
from structjob.engine import shutdown

HEAD = """
import asyncio, contextlib, os, signal, sys, threading, time
os.setsid()
import structlog, structjob
from structjob.engine import shutdown
structjob.configure(console=False)
log = structlog.get_logger("app")
url = sys.argv[1]

def ready():
    print("ready", flush=True)

def sleep():
    while True:  # Python handles a signal that comes just before a sleep after it
        time.sleep(0.1)
"""


class Program:
    """A Python program in a process of its own, which says when it is to be sent a signal."""

    def __init__(self, text, *arguments):
        self.process = in_development.start(
            HEAD + textwrap.dedent(text),
            arguments,
            Path.cwd(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def await_word(self, word="ready"):
        said = self.process.stdout.readline().decode().strip()
        assert said == word, self.process.stderr.read().decode()

    def send(self, number):
        self.sent = time.monotonic()
        self.process.send_signal(number)

    def insist(self, number):
        """Send a signal until it ends: what asyncio was about to do when Ctrl-C came may be lost,
        and what waits for it waits for ever.
        """
        self.send(number)
        while True:
            try:
                self.process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                self.send(number)
            else:
                return

    def end(self, expect, within):
        """Wait for its end; return what it printed since, and what it complained of."""
        out, err = self.process.communicate(timeout=60)
        assert time.monotonic() - self.sent < within
        assert self.process.returncode == expect, err
        return out.decode().split(), err.decode()


def end_by_sigterm(text, *arguments, code=-signal.SIGTERM, within=20):
    """Send SIGTERM to a program that is ready, and return what `Program.end` returns."""
    with Program(text, *arguments) as program:
        program.await_word()
        program.send(signal.SIGTERM)
        return program.end(code, within)


async def look(url):
    """Return messages, jobs by operation as (status, error message), steps' statuses, and whether
    all is accounted for.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(url) as tracker:
        await tracker.flush()
        messages = [event.message async for event in tracker.logs.iterate(logger="app")]
        jobs, steps = {}, []
        for job in await tracker.jobs.list(limit=1000):
            jobs[job.operation] = (job.status.value, job.error and job.error.message)
            steps += [step.status.value for step in await tracker.jobs.steps(job.id)]
        return messages, jobs, steps, (await tracker.verify()).ok


# -- SIGTERM
# --------------------------------------------------------------------------


async def test_sigterm_leaves_a_cleanup_alone(db_url):
    """faults 23: a job that is being cancelled when SIGTERM comes cleans up to its end, and keeps
    its reason.
    """
    text = """
        async def main():
            async with structjob.Tracker(url) as tracker:
                async with tracker.job("nightly") as job:
                    job.cancel("enough")
                    try:
                        await asyncio.sleep(60)
                    finally:
                        loop, came = asyncio.get_running_loop(), asyncio.Event()
                        begin = shutdown._begin
                        def begun():
                            begin()
                            loop.call_later(0.1, came.set)
                        shutdown._begin = begun
                        ready()
                        await came.wait()
                        log.info("cleaned")
        asyncio.run(main())
        """
    end_by_sigterm(text, db_url)
    messages, jobs, _, ok = await look(db_url)
    assert (messages, jobs, ok) == (["cleaned"], {"nightly": ("cancelled", "enough")}, True)


async def test_sigterm_cancels_the_job_and_its_steps(db_url):
    """R9, R34: the job says by what it was cancelled, code that cleans up is run to its end, and
    the process dies of the signal.
    """
    text = """
        async def main():
            async with structjob.Tracker(url) as tracker:
                async with tracker.job("nightly") as job, job.step("first"), job.step("second"):
                    try:
                        ready()
                        await asyncio.sleep(60)
                    finally:
                        log.info("cleaning")
                        await asyncio.sleep(0.1)
                        log.info("cleaned")
            await asyncio.sleep(0.1)
            print("left")
        try:
            asyncio.run(main())
        finally:
            print("not reached")
        """
    assert end_by_sigterm(text, db_url) == ([], "")
    assert await look(db_url) == (
        ["cleaning", "cleaned"],
        {"nightly": ("cancelled", "SIGTERM")},
        ["cancelled", "cancelled"],
        True,
    )


async def test_sigterm_ends_a_worker_with_many_jobs(db_url):
    """R34: jobs in tasks, nested ones, one by hand and one that begins too late are all cancelled;
    the main coroutine need not end.
    """
    text = """
        async def work(tracker, n):
            async with tracker.job(f"outer {n}") as job, job.child(f"inner {n}"):
                await asyncio.sleep(60)

        async def main():
            async with structjob.Tracker(url) as tracker:
                tasks = [asyncio.create_task(work(tracker, n)) for n in range(3)]
                by_hand = await (await tracker.create_job("by hand")).start()
                while len(tracker._host.live) < 7:
                    await asyncio.sleep(0.001)
                ready()
                await asyncio.wait(tasks)
                tasks = [asyncio.create_task(work(tracker, "late"))]
                await asyncio.sleep(60)
        asyncio.run(main())
        """
    assert end_by_sigterm(text, db_url)[1] == ""
    _, jobs, _, ok = await look(db_url)
    cancelled = ("cancelled", "SIGTERM")
    assert {name: jobs[name] for name in jobs if "late" not in name} == {
        **{f"{which} {n}": cancelled for which in ("outer", "inner") for n in range(3)},
        "by hand": cancelled,
    }
    assert all(outcome == cancelled for outcome in jobs.values())
    assert ok


async def test_sigterm_where_a_job_does_not_let_itself_be_cancelled(db_url):
    """R34: it has a bounded time; then it is recorded as cancelled all the same."""
    text = """
        shutdown.GRACE = 0.3
        async def main():
            async with structjob.Tracker(url) as tracker, tracker.job("stubborn"):
                ready()
                while True:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(60)
                        break
                    log.info("no")
        asyncio.run(main())
        """
    end_by_sigterm(text, db_url)
    messages, jobs, _, ok = await look(db_url)
    assert (messages, jobs, ok) == (["no"], {"stubborn": ("cancelled", "SIGTERM")}, True)


async def test_sigterm_in_a_blocked_loop(db_url):
    """R34: a loop that is blocked cannot wind anything up; the process ends nevertheless, and the
    job's end is in the spool.
    """
    text = """
        shutdown._WATCH = 0.3
        async def main():
            async with structjob.Tracker(url) as tracker, tracker.job("blocked"):
                log.info("in it")
                ready()
                while True:  # a signal just before a sleep would be handled only after it
                    time.sleep(0.1)
        asyncio.run(main())
        """
    end_by_sigterm(text, db_url, code=128 + signal.SIGTERM)
    messages, jobs, _, ok = await look(db_url)
    assert (messages, jobs, ok) == (["in it"], {"blocked": ("cancelled", "SIGTERM")}, True)


async def test_sigterm_twice_ends_at_once(db_url):
    """R34: who asks twice does not want to wait."""
    text = """
        shutdown.GRACE = shutdown._WATCH = 60.0
        async def main():
            async with structjob.Tracker(url) as tracker, tracker.job("slow to end"):
                try:
                    ready()
                    await asyncio.sleep(60)
                finally:
                    ready()
                    await asyncio.sleep(60)
        asyncio.run(main())
        """
    with Program(text, db_url) as program:
        program.await_word()
        program.send(signal.SIGTERM)
        program.await_word()
        program.send(signal.SIGTERM)
        program.end(-signal.SIGTERM, within=20)
    assert (await look(db_url))[1:] == ({"slow to end": ("cancelled", "SIGTERM")}, [], True)


@pytest.mark.slow
async def test_sigterm_with_a_locked_database(db_url, db_path):
    """Guarantee 6: the process ends within the time that containers are given; what could not be
    stored waits in the spool.
    """
    text = """
        shutdown.CLOSING = 1.0
        async def main():
            async with structjob.Tracker(url) as tracker, tracker.job("a"):
                ready()
                await asyncio.to_thread(open(sys.argv[2]).read)
                log.info("while it is locked")
                ready()
                await asyncio.sleep(60)
        asyncio.run(main())
        """
    fifo = db_path.with_name("go")
    os.mkfifo(fifo)
    with Program(text, db_url, str(fifo)) as program:
        program.await_word()
        with contextlib.closing(sqlite3.connect(db_path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            fifo.write_text("go")
            program.await_word()
            program.send(signal.SIGTERM)
            program.end(-signal.SIGTERM, within=10)
    messages, jobs, _, ok = await look(db_url)
    assert (messages, jobs, ok) == (["while it is locked"], {"a": ("cancelled", "SIGTERM")}, True)


async def test_sigterm_where_no_loop_runs_any_more(db_url):
    """R34: a tracker that was forgotten does not keep the signal from ending the process."""
    text = """
        shutdown.GRACE = shutdown._WATCH = 60.0
        async def main():
            global tracker
            tracker = await structjob.Tracker(url).open()
            await (await tracker.create_job("left")).start()
        asyncio.run(main())
        ready()
        while True:  # a signal just before a sleep would be handled only after it
            time.sleep(0.1)
        """
    end_by_sigterm(text, db_url)
    assert (await look(db_url))[1:] == ({"left": ("cancelled", "SIGTERM")}, [], True)


async def test_a_child_process_is_terminated_as_ever(db_url):
    """R22: `Process.terminate()` ends a forked child at once, and touches no job of its
    parent's.
    """
    text = """
        async def main():
            async with structjob.Tracker(url) as tracker, tracker.job("parent"):
                child = os.fork()
                if child == 0:
                    time.sleep(60)
                os.kill(child, signal.SIGTERM)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        asyncio.run(main())
        """
    with Program(
        "import warnings; warnings.simplefilter('ignore')\n" + textwrap.dedent(text), db_url
    ) as program:
        program.send(0)
        program.await_word(str(-signal.SIGTERM))
        program.end(0, within=20)
    assert (await look(db_url))[1] == {"parent": ("completed", None)}


# -- whose the handler is
# --------------------------------------------------------------------------


async def test_the_handler_is_there_while_a_tracker_is_open(db_url):
    """R34: it comes with the first tracker, goes with the last, and `handle_signals=False` does
    without.
    """
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    async with structjob.Tracker(db_url, handle_signals=False):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        async with structjob.Tracker("sqlite://"):
            assert signal.getsignal(signal.SIGTERM) is shutdown._terminate
            async with structjob.Tracker("sqlite://"):
                pass
            assert signal.getsignal(signal.SIGTERM) is shutdown._terminate
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("when", ["before", "after"])
async def test_anothers_handler_has_precedence(db_url, when):
    """R34: a handler of SIGTERM that was set before or is set later stays in charge, and structjob
    does nothing.
    """
    called = []

    def handler(number, frame):
        called.append(number)

    try:
        if when == "before":
            signal.signal(signal.SIGTERM, handler)
        async with structjob.Tracker(db_url) as tracker, tracker.job("a") as job:
            signal.signal(signal.SIGTERM, handler)
            os.kill(os.getpid(), signal.SIGTERM)
            await tracker.flush()
            assert job.status == "running"
        assert called == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


async def test_a_loops_own_handler_has_precedence(db_url):
    """R34: the same of `loop.add_signal_handler`."""
    called = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with structjob.Tracker(db_url) as tracker, tracker.job("a") as job:
        loop.add_signal_handler(signal.SIGTERM, called.set)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(called.wait(), 20)
        await tracker.flush()
        assert job.status == "running"
    assert loop.remove_signal_handler(signal.SIGTERM)


async def test_a_tracker_in_a_thread_leaves_signals_alone(db_url):
    """R34: handlers are the main thread's."""
    seen = []

    async def opens():
        async with structjob.Tracker(db_url):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: asyncio.run(opens()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert seen == [signal.SIG_DFL]


# -- SIGINT
# --------------------------------------------------------------------------

INTERRUPTED = """
    async def main():
        async with structjob.Tracker(url) as tracker, tracker.job("long") as job, job.step("s"):
            try:
                log.info("started")
                ready()
                await asyncio.sleep(60)
            finally:
                ready()
                await asyncio.sleep({cleanup})
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
    """


async def test_ctrl_c_twice_ends_at_once(db_url):
    """R34: the second one does not wait for what the first one set going, and the truth can be
    found afterwards.
    """
    with Program(INTERRUPTED.format(cleanup=60), db_url) as program:
        program.await_word()
        program.send(signal.SIGINT)
        program.await_word()
        program.insist(signal.SIGINT)
        program.end(130, within=6)
    messages, jobs, steps, ok = await look(db_url)
    assert (messages, steps, ok) == (["started"], ["cancelled"], True)
    assert jobs["long"][0] == "cancelled"


async def test_ctrl_c_twice_with_a_locked_database(db_url, db_path):
    """R34: nor does it wait for the database, from which the first one would take its leave; what
    is left waits in the spool.
    """
    with (
        Program(INTERRUPTED.format(cleanup=0), db_url) as program,
        contextlib.closing(sqlite3.connect(db_path, isolation_level=None, timeout=10)) as other,
    ):
        program.await_word()
        other.execute("BEGIN EXCLUSIVE")
        program.send(signal.SIGINT)
        program.await_word()
        while (
            not (
                spool := b"".join(file.read_bytes() for file in db_path.parent.rglob("states-*"))
            ).count(b'"status":"cancelled"')
            >= 2
        ):
            assert spool
            await asyncio.sleep(0.01)
        program.insist(signal.SIGINT)
        program.end(130, within=6)
        other.execute("ROLLBACK")
        messages, jobs, steps, ok = await look(db_url)
    assert (messages, steps, ok) == (["started"], ["cancelled"], True)
    assert jobs["long"][0] == "cancelled"


async def test_ctrl_c_once(db_url):
    """R34: the job is cancelled, what cleans up is run to its end, everything is stored."""
    with Program(INTERRUPTED.format(cleanup=0.1), db_url) as program:
        program.await_word()
        program.send(signal.SIGINT)
        program.end(130, within=20)
    messages, jobs, steps, ok = await look(db_url)
    assert (messages, steps, ok) == (["started"], ["cancelled"], True)
    assert jobs["long"][0] == "cancelled"


# -- a server that handles signals itself
# --------------------------------------------------------------------------

SERVER = """
    import contextlib, fastapi, uvicorn
    from fastapi.responses import StreamingResponse

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with structjob.Tracker(url) as app.state.tracker:
            yield
        print("closed", flush=True)

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.get("/")
    async def long():
        async def parts():
            async with app.state.tracker.job("response") as job, job.step("part"):
                log.info("begun")
                yield b"begun\\n"
                await asyncio.sleep(60)
        return StreamingResponse(parts())

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(self.servers[0].sockets[0].getsockname()[1], flush=True)

    Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown={graceful})).run()
    """


@pytest.mark.slow
async def test_sigterm_under_uvicorn_with_a_long_response_open(db_url):
    """R34: the server's own way to end is not hindered: it cancels the request and its job, and the
    lifespan closes the tracker.
    """
    with Program(SERVER.format(graceful=1), db_url) as program:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(program.process.stdout.readline())
        )
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"begun\n"), 20)
        program.send(signal.SIGTERM)
        out, _ = await asyncio.to_thread(program.end, -signal.SIGTERM, 10)
        writer.close()
    assert out == ["closed"]
    messages, jobs, steps, ok = await look(db_url)
    assert (messages, steps, ok) == (["begun"], ["cancelled"], True)
    assert jobs["response"][0] == "cancelled"
