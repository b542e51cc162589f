"""Forked children log under sessions of their own; the parent delivers what they write, and shares
nothing else with them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from cli_support import environment
from prefork import Preforked

import structjob

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

HEAD = """
import asyncio, atexit, multiprocessing, os, sys, threading, time
import structlog, structjob
structjob.configure(console=False)
log = structlog.get_logger()
URL = sys.argv[1]
"""

# Python 3.12 and newer warn of every fork beside threads, which is what is tested here.
_programs = Preforked(
    environment(), "-W", "ignore:This process:DeprecationWarning", whole_end=False
)


def run(code: str, db_path: Path, *, check: bool = True, stderr: str = "") -> str:
    done = _programs.run(HEAD + code, [f"sqlite:///{db_path}"], db_path.parent)
    if check:
        assert (done.returncode, done.stderr.decode()) == (0, stderr)
    return done.stdout.decode()


def rows(db_path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(db_path)) as connection, connection:
        return connection.execute(query).fetchall()


def spool_of(db_path: Path) -> Path:
    return db_path.with_name(db_path.name + ".spool")


async def check(db_path: Path) -> None:
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        verification = await tracker.verify()
        assert verification.ok, verification
    assert rows(db_path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
async def test_forked_children_log_in_sessions_of_their_own(db_path):
    """Four forked children and their parent log at once: each event is stored once, and each
    process numbers its own from 1 (fork).
    """
    run(
        """
def child(index):
    for n in range(500):
        log.info("child", index=index, n=n)
async def main():
    async with structjob.Tracker(URL) as tracker:
        async with tracker.job("fork"):
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=child, args=(index,)) for index in range(4)]
            for process in children: process.start()
            for n in range(500):
                log.info("parent", n=n)
                if n % 50 == 0: await asyncio.sleep(0)
            for process in children: await asyncio.to_thread(process.join)
            await tracker.flush()
            assert len(await tracker.logs.list(structjob.LogFilter(text="child", limit=1000))) == 1000
asyncio.run(main())
""",
        db_path,
    )
    found = rows(
        db_path,
        "SELECT message, count(*), min(seq), max(seq) FROM structjob_logs WHERE kind = 'log' GROUP BY session_id ORDER BY 1",
    )
    assert found[:4] == [("child", 500, 1, 500)] * 4
    assert found[4][:2] == ("parent", 500)
    # A child belongs to the job of its parent.
    assert rows(db_path, "SELECT count(DISTINCT job_id) FROM structjob_logs") == [(1,)]
    await check(db_path)
    assert not list(spool_of(db_path).iterdir())


@pytest.mark.slow
async def test_a_living_childs_events_are_delivered(db_path):
    """The parent delivers what a child logs while the child goes on (fork)."""
    out = run(
        """
async def main():
    async with structjob.Tracker(URL) as tracker:
        log.info("from the parent")
        seen, done = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            log.info("first")
            os.write(seen[1], b"x")
            os.read(done[0], 1)
            log.info("second")
            os._exit(0)
        await asyncio.to_thread(os.read, seen[0], 1)
        await tracker.flush()
        assert [event.message for event in await tracker.logs.list(structjob.LogFilter(text="first"))] == ["first"]
        assert (await tracker.verify()).ok
        os.write(done[1], b"x")
        os.waitpid(pid, 0)
        await tracker.flush()
        assert [event.message for event in await tracker.logs.list(structjob.LogFilter(text="second"))] == ["second"]
        print("delivered")
asyncio.run(main())
""",
        db_path,
    )
    assert out == "delivered\n"
    await check(db_path)


async def test_a_child_that_never_logs_leaves_nothing(db_path):
    """A child that does not log makes no directory, and its end does not touch the parent's files
    (fork).
    """
    out = run(
        """
async def main():
    async with structjob.Tracker(URL) as tracker:
        log.info("before")
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        log.info("after")
        await tracker.flush()
        print(len(os.listdir(tracker._recorder.root)), (await tracker.verify()).ok, len(await tracker.logs.list()))
asyncio.run(main())
""",
        db_path,
    )
    assert out == "1 True 2\n"


async def test_a_child_that_ends_like_a_program_does_not_touch_the_parents_database(db_path):
    """A child that runs its exit handlers stores nothing by the parent's connection or in its name
    (fork).
    """
    run(
        """
async def main():
    async with structjob.Tracker(URL) as tracker:
        for n in range(100): log.info("parent", n=n)
        pid = os.fork()
        if pid == 0:
            for n in range(300): log.info("child", n=n)
            atexit._run_exitfuncs()  # not sys.exit: the loop's own clean-up would take the parent's loop down
            os._exit(0)
        for n in range(100): log.info("parent", n=n)
        assert await asyncio.to_thread(os.waitpid, pid, 0) == (pid, 0)
        for n in range(100): log.info("parent", n=n)
        await tracker.flush()
asyncio.run(main())
""",
        db_path,
    )
    assert sorted(
        rows(
            db_path,
            "SELECT message, count(*), max(seq) FROM structjob_logs GROUP BY session_id, message",
        )
    ) == [
        ("child", 300, 300),
        ("parent", 300, 300),
    ]
    await check(db_path)


async def test_a_child_is_told_to_open_a_tracker_of_its_own(db_path):
    """Waiting for the database in a forked child ends at once and says why; a tracker opened there
    works (fork).
    """
    out = run(
        """
tracker = structjob.Tracker(URL)
def child():
    async def work():
        log.info("child")
        try:
            await tracker.flush()
        except structjob.StructjobError as exc:
            print(type(exc).__name__, "open a tracker here" in str(exc), flush=True)
        ledger = tracker.ledger()
        print(ledger.accepted, ledger.stored, flush=True)
        began = time.monotonic()
        async with tracker.job("in the child"):
            log.info("in it")
        async with structjob.Tracker(URL) as own:
            async with own.job("with its own"):
                pass
        print(time.monotonic() - began < 5, flush=True)
    asyncio.run(work())
async def main():
    await tracker.open()
    log.info("parent")
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    await asyncio.to_thread(process.join)
    await tracker.flush()
    for job in await tracker.jobs.list(): print(job.operation, job.status.value, flush=True)
    await tracker.aclose()
asyncio.run(main())
""",
        db_path,
    )
    lines = out.splitlines()
    assert lines[:3] == ["StoreUnavailable True", "1 0", "True"]
    assert sorted(lines[3:]) == ["in the child completed", "with its own completed"]
    await check(db_path)


async def test_a_child_outlives_its_parent(tmp_path, db_path):
    """When the parent is killed, another process delivers what the living child logs, and ends
    neither its session nor its work before the child itself has ended; the parent's own session is
    ended, though the child lives (fork).
    """
    ready = tmp_path / "ready"
    code = (
        HEAD
        + """
async def child(tracker):
    async with tracker.job("child"):
        log.info("from the child")
        open(sys.argv[2], "w").write(str(os.getpid()))
        for _ in range(6000):
            if os.path.exists(sys.argv[2] + ".go"): break
            time.sleep(0.005)
        log.info("its last words")
async def main():
    async with structjob.Tracker(URL) as tracker:
        async with tracker.job("parent"):
            log.info("from the parent")
            if os.fork() == 0:
                asyncio.run(child(tracker))
                os._exit(0)
            await asyncio.sleep(60)
asyncio.run(main())
"""
    )
    parent = subprocess.Popen([sys.executable, "-c", code, f"sqlite:///{db_path}", str(ready)])
    while not ready.exists() or not ready.read_text():
        assert parent.poll() is None
        time.sleep(0.005)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    child = int(ready.read_text())
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        await tracker.flush()
        messages = {
            event.message if event.kind == "log" else event.kind
            for event in await tracker.logs.list()
        }
        assert {"from the parent", "from the child", "operation_crashed"} <= messages
        assert "its last words" not in messages
        statuses = {job.operation: job.status.value for job in await tracker.jobs.list()}
        assert statuses == {"parent": "crashed", "child": "running"}
        assert (await tracker.verify()).ok
        (ready.parent / "ready.go").touch()
        while (
            Path(f"/proc/{child}").exists()
            and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z"
        ):
            await asyncio.sleep(0.005)
        await tracker.flush()
        assert {job.operation: job.status.value for job in await tracker.jobs.list()} == {
            "parent": "crashed",
            "child": "completed",
        }
        assert "its last words" in {event.message for event in await tracker.logs.list()}
        assert (await tracker.verify()).ok
    assert not list(spool_of(db_path).iterdir())


async def test_a_child_does_not_keep_what_its_parent_took_over(tmp_path, db_path):
    """A child forked while its parent holds an orphan keeps no lock of it: the next process
    delivers it though the child lives (fork).
    """
    from structjob.spool.directory import SessionSpool, adopt
    from structjob.spool.line import seal
    from structjob.spool.session import Session

    root = tmp_path / "spool"
    spool = SessionSpool.create(root, Session())
    spool.events.append(
        seal(
            b'{"ts":"2026-01-31 12:00:00","level":"info","message":"left","attrs":{}', b',"seq":1'
        ),
        1,
    )
    spool.close()
    code = (
        f"import os, pathlib, time\nfrom structjob.spool.directory import adopt\ntaken = adopt(pathlib.Path({str(root)!r}), set())\n"
        "if os.fork() == 0:\n    print(os.getpid(), len(taken), flush=True)\n    time.sleep(60)\nos._exit(0)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid, taken = map(int, process.stdout.readline().split())
    process.wait()
    try:
        assert taken == 1
        (again,) = adopt(root, set())
        assert not again.alive
        again.close()
    finally:
        os.kill(pid, signal.SIGKILL)
        process.stdout.close()


async def test_threads_of_a_child_begin_its_session_once(db_path):
    """When the first events of a child come from several threads at once, none is lost (fork)."""
    run(
        """
sys.setswitchinterval(1e-6)
def child():
    barrier = threading.Barrier(8)
    def work():
        barrier.wait()
        for n in range(100): log.info("child", n=n)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
async def main():
    async with structjob.Tracker(URL) as tracker:
        for _ in range(3):
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            await asyncio.to_thread(process.join)
asyncio.run(main())
""",
        db_path,
    )
    assert (
        rows(
            db_path,
            "SELECT count(*), count(DISTINCT seq), max(seq) FROM structjob_logs GROUP BY session_id",
        )
        == [(800, 800, 800)] * 3
    )
    await check(db_path)


@pytest.mark.slow
async def test_what_a_child_drops_is_reported(db_path):
    """A child whose spool is full reports what it dropped: stored and dropped are all there was
    (guarantee 2).
    """
    run(
        """
async def main():
    async with structjob.Tracker(URL, spool_max_bytes=65_536) as tracker:
        if (pid := os.fork()) == 0:
            for n in range(3000): log.info("child", n=n, text="x" * 100)
            time.sleep(0.3)
            log.info("the end")
            os._exit(0)
        os.waitpid(pid, 0)
        await tracker.flush()
asyncio.run(main())
""",
        db_path,
    )
    ((session, stored),) = rows(
        db_path,
        "SELECT session_id, count(*) FROM structjob_logs WHERE message = 'child' GROUP BY session_id",
    )
    gaps = rows(
        db_path,
        f"SELECT reason, sum(last_seq - first_seq + 1) FROM structjob_gaps WHERE session_id = {session} GROUP BY reason",
    )
    told = sum(count for _, count in gaps)
    assert 0 < stored < 3000
    assert [reason for reason, _ in gaps] == ["spool_full"]
    assert stored + told in (3000, 3001)
    assert rows(
        db_path,
        "SELECT count(*) FROM structjob_logs AS l JOIN structjob_gaps AS g ON l.session_id = g.session_id "
        "AND l.seq BETWEEN g.first_seq AND g.last_seq",
    ) == [(0,)]
    await check(db_path)


@pytest.mark.slow
async def test_a_child_can_use_sqlite_whenever_it_was_forked(db_path):
    """A child forked while its parent writes and reads as fast as it can finds none of SQLite's own
    locks held (fork).
    """
    out = run(
        """
import sqlite3
async def load(tracker):
    while True:
        for _ in range(200): log.info("load", text="x" * 200)
        await asyncio.gather(tracker.flush(), tracker.logs.list(structjob.LogFilter(text="no such text", limit=100)))
def fork():
    if (pid := os.fork()) == 0:
        connection = sqlite3.connect(URL.removeprefix("sqlite:///") + ".other", timeout=30)
        connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
        connection.execute("SELECT * FROM t, sqlite_master ORDER BY 1").fetchall()
        os._exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.001)
    return True
async def main():
    async with structjob.Tracker(URL) as tracker:
        task = asyncio.create_task(load(tracker))
        for _ in range(60):
            if not await asyncio.to_thread(fork):
                print("a child hangs")
                break
        task.cancel()
asyncio.run(main())
""",
        db_path,
    )
    assert out == ""


async def test_a_child_that_is_listened_to_records_as_ever(db_path):
    """R30: a listener in a forked child hears its events, and its parent delivers them (guarantee
    1).
    """
    said = run(
        """
async def child(tracker):
    listener = tracker.listen()
    log.info("heard")
    heard = [event.message async for event in closed(listener)]
    log.info("after")
    os.write(1, str(heard).encode() + bytes([10]))  # at once: there are two of us

async def closed(listener):
    listener.close()
    async for event in listener:
        yield event

async def main():
    async with structjob.Tracker(URL) as tracker:
        pids = []
        for first in (True, False):
            pids.append(os.fork())
            if not pids[-1]:
                asyncio.events._set_running_loop(None)
                if first:
                    log.info("sooner")
                asyncio.run(child(tracker))
                os._exit(0)
        for pid in pids:
            await asyncio.to_thread(os.waitpid, pid, 0)

asyncio.run(main())
""",
        db_path,
    )
    assert said == "['heard']\n" * 2
    await check(db_path)
    assert rows(db_path, "SELECT message, count(*) FROM structjob_logs GROUP BY message ORDER BY 1") == [
        ("after", 2), ("heard", 2), ("sooner", 1)
    ]  # fmt: skip


async def test_what_waits_for_a_first_tracker_is_recorded_once(db_path):
    """What was logged before any tracker is its own process's to record, not each child's
    (fork).
    """
    run(
        """
async def work(who):
    async with structjob.Tracker(URL):
        log.info("up", who=who)
log.info("service starts")
for n in range(3):
    if (pid := os.fork()) == 0:
        asyncio.run(work(n))
        os._exit(0)
    os.waitpid(pid, 0)
asyncio.run(work("parent"))
""",
        db_path,
    )
    assert rows(
        db_path, "SELECT message, count(*) FROM structjob_logs GROUP BY message ORDER BY 1"
    ) == [("service starts", 1), ("up", 4)]
    await check(db_path)


async def test_requests_in_forked_workers_are_jobs(db_path):
    """`gunicorn --preload` opens the tracker before the fork: a worker's requests are jobs, stored
    by the parent; a worker that has opened a tracker of its own uses that (R48, fork).
    """
    out = run(
        """
def app(environ, start_response):
    log.info("asked")
    start_response("200 OK", [])
    return [b"ok"]
def ask(path):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
    response = middleware(environ, lambda status, headers: print(sorted(dict(headers))))
    list(response)
    response.close()
middleware = structjob.wsgi.JobMiddleware(app, operation=lambda environ: environ["PATH_INFO"])
structjob.init(URL)
if (pid := os.fork()) == 0:
    ask("/inherited")
    structjob.init(URL)
    ask("/own")
    sys.exit()
os.waitpid(pid, 0)
""",
        db_path,
    )
    assert out.splitlines() == ["['x-correlation-id', 'x-job-id']"] * 2
    jobs = "SELECT operation, status, (SELECT count(*) FROM structjob_logs l WHERE l.job_id = j.id AND message = 'asked') FROM structjob_jobs j ORDER BY 1"
    assert rows(db_path, jobs) == [("GET /inherited", "completed", 1), ("GET /own", "completed", 1)]
    assert rows(db_path, "SELECT count(DISTINCT session_id) FROM structjob_logs") == [(2,)]
    await check(db_path)


@pytest.mark.parametrize(
    "options", ["", ", spool=False, overflow='block', queue_size=1000"], ids=["spool", "memory"]
)
async def test_a_childs_own_tracker_takes_its_events(db_path, options):
    """Events without a job of a child go to the tracker that the child opens. Earlier ones wait for
    it if the parent's tracker has no spool, and never for room in a queue that no task empties
    (R28, fork).
    """
    lost = "logged while no tracker was open; memory keeps the last 1000; open the tracker earlier"
    out = run(
        f"""
async def own():
    async with structjob.Tracker(URL + ".own") as tracker:
        log.info("late")
        async with tracker.job("own"):
            log.info("in a job")
def child():
    if {bool(options)}:
        early = threading.Thread(target=lambda: [log.info("early") for _ in range(3000)], daemon=True)
        early.start()
        early.join(20)
        if early.is_alive(): print("it hangs", flush=True)
    asyncio.run(own())
async def main():
    async with structjob.Tracker(URL{options}) as tracker:
        log.info("parent")
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        await asyncio.to_thread(process.join)
asyncio.run(main())
""",
        db_path,
        stderr=f"2,000 log events are lost: {lost}\n" if options else "",
    )
    assert out == ""
    counted = "SELECT message, count(*) FROM structjob_logs WHERE kind = 'log' GROUP BY message ORDER BY 1"
    own = db_path.with_name(db_path.name + ".own")
    assert rows(own, counted) == [
        *([("early", 1000)] if options else []),
        ("in a job", 1),
        ("late", 1),
    ]
    assert rows(db_path, counted) == [("parent", 1)]
    await check(db_path)
    await check(own)


async def test_progress_of_a_childs_step_is_seen_while_it_runs(db_path):
    """A child has no task that writes delayed progress later, so its next report writes it (R15,
    fork).
    """
    out = run(
        """
seen, done = os.pipe(), os.pipe()
def child():
    async def work():
        async with structjob.step("load", total=100) as step:
            step.advance()  # too soon to be recorded
            structjob.lifecycle.handle.core_of(step).recorded_at = 0.0
            step.advance()
            os.write(seen[1], b"x")
            os.read(done[0], 1)
    asyncio.run(work())
async def main():
    async with structjob.Tracker(URL) as tracker:
        async with tracker.job("fork") as job:
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            await asyncio.to_thread(os.read, seen[0], 1)
            await tracker.flush()
            print(*[(step.status.value, int(step.completed)) for step in await tracker.jobs.steps(job.id)])
            os.write(done[1], b"x")
            await asyncio.to_thread(process.join)
asyncio.run(main())
""",
        db_path,
    )
    assert out == "('running', 2)\n"
    await check(db_path)


@pytest.mark.parametrize(
    ("way", "status", "message"),
    [
        (
            "exit handlers",
            "cancelled",
            "its process ended while it ran, and its tracker was not closed",
        ),
        (
            "multiprocessing",
            "cancelled",
            "its process ended while it ran, and its tracker was not closed",
        ),
        (
            "grandchild",
            "cancelled",
            "its process ended while it ran, and its tracker was not closed",
        ),
        ("os._exit", "crashed", "ended without finishing it"),
    ],
)
async def test_jobs_that_a_child_leaves_are_cancelled(db_path, way, status, message):
    """faults 56: what a child began with its parent's tracker and leaves when it ends in an orderly
    way is cancelled with the reason, with its steps; its parent's own job is not touched. The
    child's session is closed, and has not died.
    """
    run(
        f"way, left = {way!r}, []"
        + """
def child(tracker):
    asyncio.run(begin(tracker))

async def begin(tracker):
    left.append(tracker.job("left"))
    job = await left[0].__aenter__()
    await job.step("open").start()

def fork(tracker):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    if way == "grandchild" and (pid := os.fork()):
        os.waitpid(pid, 0)
        os._exit(0)
    child(tracker)
    if way != "os._exit":
        atexit._run_exitfuncs()  # not sys.exit: the loop's own clean-up would take the parent's loop down
    os._exit(0)

async def main():
    tracker = structjob.Tracker(URL)
    await tracker.open()
    async with tracker.job("parent"):
        if way == "multiprocessing":
            process = multiprocessing.get_context("fork").Process(target=child, args=(tracker,))
            process.start()
            await asyncio.to_thread(process.join)
        else:
            fork(tracker)
    await tracker.aclose()

asyncio.run(main())
""",
        db_path,
    )
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        await tracker.flush()
        (left,) = await tracker.jobs.list(operation="left")
        (parent,) = await tracker.jobs.list(operation="parent")
        (step,) = await tracker.jobs.steps(left.id)
        sessions = {one.session_id: one.status for one in await tracker.sessions.list()}
    assert (left.status, parent.status, step.status) == (status, "completed", status)
    assert sessions[left.session_id] == {"cancelled": "closed", "crashed": "died"}[status]
    assert sessions[parent.session_id] == "closed"
    assert message in left.error.message
    await check(db_path)
