"""A program that closes descriptors of others, as on becoming a daemon (faults 2, 3)."""

import asyncio
import errno
import fcntl
import json
import os
from contextlib import suppress

import pytest
from test_capture import make_recorder
from test_fork import check, rows, run
from test_recorder import BODY

from structjob.engine.loop_thread import LoopThread
from structjob.machine import files
from structjob.spool.directory import adopt, is_alive
from structjob.spool.tally import Tally

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

DAEMON = """
def become_a_daemon():
    os.closerange(3, 4096)
    own = [open(f"own-{number}.txt", "wb", buffering=0) for number in range(40)]
    for file in own:
        file.write(b"own")
    return [file.name for file in own]

def changed(names):
    return [name for name in names if open(name, "rb").read() != b"own"]
"""


async def test_a_child_that_closes_the_spool_of_others_loses_nothing(db_path):
    """faults 2, 3: a forked child logs, closes all descriptors, and opens files of its own: these
    are unchanged, and each event and job of the child is stored.
    """
    out = run(
        DAEMON
        + """
with structjob.Tracker(URL) as tracker:
    log.info("parent")
    pid = os.fork()
    if not pid:
        log.info("before")
        names = become_a_daemon()
        for number in range(100):
            log.info("after", number=number)
        with tracker.job("daemon"):
            log.info("in its job")
        print(changed(names), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
""",
        db_path,
        check=False,
    )
    assert out == "[]\n"
    await check(db_path)
    stored = rows(db_path, "SELECT message, count(*) FROM structjob_logs WHERE kind = 'log' GROUP BY message")  # fmt: skip
    assert sorted(stored) == [("after", 100), ("before", 1), ("in its job", 1), ("parent", 1)]
    assert rows(db_path, "SELECT status FROM structjob_jobs") == [("completed",)]


def descriptors_of(directory):
    """Return the descriptors of this process that are files in *directory*."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(f"{directory}/"):
                found.append(int(name))
    return found


def test_a_spool_that_is_closed_is_opened_again(tmp_path):
    """faults 2, 3: all files of a spool are closed: its records go on in it, no other process can
    lock it, and its tally goes on.
    """
    recorder = make_recorder(tmp_path)
    try:
        spool = recorder.spool
        recorder.put(BODY, 10)
        closed = descriptors_of(spool.directory)
        assert len(closed) == 5  # events, states, tally, two locks
        assert min(closed) >= 512
        for fd in closed:
            os.close(fd)
        recorder.put(BODY, 10)
        recorder.put_all([BODY] * 2, 10)
        assert recorder.put_state("job", lambda: {"id": "a"}) == 1
        assert sorted(descriptors_of(spool.directory)) == sorted(closed)
        assert recorder.fallback.take() is None
        lines = spool.events.read(1 << 20, 1000).lines.splitlines()
        assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3, 4]
        assert is_alive(spool.directory)
        other = Tally.open(spool.directory)
        assert other.hands == 1
        other.close()
    finally:
        recorder.close()
        spool.close()


def test_a_change_of_state_opens_a_closed_spool_again(tmp_path, caplog):
    """faults 2: a change of state is the first record after the files were closed: it is in the
    spool once, without a warning.
    """
    recorder = make_recorder(tmp_path)
    spool = recorder.spool
    for fd in descriptors_of(spool.directory):
        os.close(fd)
    assert recorder.put_state("job", lambda: {"id": "a"}) == 1
    assert spool.states.read(1 << 20, 1000).count == 1
    assert recorder.fallback_states.take() is None
    assert not recorder.lost_states
    assert caplog.text == ""
    recorder.close()
    spool.close()


def test_a_spool_that_another_process_has_taken_over_is_left_to_it(tmp_path, caplog):
    """faults 2: with the files the locks are released: if another process has them, what is
    recorded waits in memory, with a warning.
    """
    recorder = make_recorder(tmp_path)
    spool = recorder.spool
    for fd in descriptors_of(spool.directory):
        os.close(fd)
    with open(spool.directory / "alive", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        recorder.put(BODY, 10)
        assert recorder.put_state("job", lambda: {"id": "a"}) == 1
    assert recorder.fallback.take()[0] == 1
    assert recorder.fallback_states.take()[0] == 1
    assert "events wait in memory" in caplog.text
    recorder.close()
    assert spool.reopen()
    spool.close()


def test_what_a_full_disk_refuses_after_the_files_are_open_again_waits_in_memory(tmp_path, caplog):
    """faults 2: neither an event nor a change of state is lost then, nor raises an error."""
    recorder = make_recorder(tmp_path)
    spool = recorder.spool
    for fd in descriptors_of(spool.directory):
        os.close(fd)
    with open("/dev/full", "wb") as full:
        reopen = spool.reopen

        def onto_a_full_disk():
            opened = reopen()
            for queue in (spool.events, spool.states):
                os.dup2(full.fileno(), queue._fd, inheritable=False)
            return opened

        spool.reopen = onto_a_full_disk
        recorder.put(BODY, 10)
        for fd in (spool.events._fd, spool.states._fd):
            os.close(fd)
        assert recorder.put_state("job", lambda: {"id": "a"}) == 1
    assert recorder.fallback.take()[0] == 1
    assert recorder.fallback_states.take()[0] == 1
    assert not recorder.lost_states
    assert "No space left" in caplog.text
    recorder.close()
    spool.close()


def test_a_child_that_has_closed_all_files_closes_its_tracker_without_an_error(db_path):
    """faults 2: a forked child closes all descriptors and does not log after that: closing its
    tracker raises nothing, and what it had logged is stored.
    """
    out = run(
        DAEMON
        + """
structjob.configure(console=False, file="app.jsonl", uncaught=True)
with structjob.Tracker(URL) as tracker:
    pid = os.fork()
    if not pid:
        log.info("before")
        names = become_a_daemon()
        tracker.close()
        structjob.reset()
        print(changed(names), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
""",
        db_path,
    )
    assert out == "[]\n"
    stored = rows(db_path, "SELECT message FROM structjob_logs WHERE kind = 'log'")
    assert stored == [("before",)]


def test_the_files_of_an_adopted_spool_are_none_of_the_program(tmp_path):
    """faults 3: a program closes all descriptors and opens files of its own: those of a spool that
    its tracker has adopted are none of these, so closing the tracker closes none of them.
    """
    recorder = make_recorder(tmp_path)
    recorder.put(BODY, 10)
    recorder.put_state("job", lambda: {"id": "a"})
    recorder.close()
    directory = recorder.spool.directory
    recorder.spool.close()
    (adopted,) = adopt(tmp_path, set())
    assert adopted.events.read(1 << 20, 1000).count == 1
    assert adopted.states.read(1 << 20, 1000).count == 1
    open_files = descriptors_of(directory)
    assert len(open_files) == 5  # events, states, tally, two locks
    assert min(open_files) >= 512
    for fd in open_files:
        os.close(fd)
    adopted.close()
    assert is_alive(directory) is False


def test_a_file_that_is_read_is_opened_again(tmp_path):
    """faults 2: what was written before the files were closed is read on from the same place."""
    recorder = make_recorder(tmp_path, max_bytes=1 << 15)  # segments of 4 KiB
    spool = recorder.spool
    for _ in range(100):
        recorder.put(BODY, 10)
    assert len(list(spool.directory.glob("events-*"))) > 1
    first = spool.events.read(1 << 20, 1)
    for fd in descriptors_of(spool.directory):
        os.close(fd)
    recorder.put(BODY, 10)
    found = first.lines
    while (batch := spool.events.read(1 << 20, 1)) is not None:
        found += batch.lines
    assert [json.loads(line)["seq"] for line in found.splitlines()] == list(range(1, 102))
    recorder.close()
    spool.close()


def test_a_log_file_that_is_closed_is_opened_again(db_path):
    """faults 2, 3: lines go on in the log file, and not to a file of the program."""
    out = run(
        DAEMON
        + """
structjob.configure(console=False, file="app.jsonl")
log.info("before")
names = become_a_daemon()
log.info("after")
print(changed(names))
""",
        db_path,
    )
    assert out == "[]\n"
    lines = (db_path.parent / "app.jsonl").read_text().splitlines()
    assert [line.split('"event":"')[1].split('"')[0] for line in lines] == ["before", "after"]


def test_a_file_is_set_apart_unless_the_limit_is_low(monkeypatch):
    """faults 2: a low limit of open files must not keep the spool from being opened."""

    def refused(fd, what, number):
        raise OSError(errno.EINVAL, "too high")

    fd = files.set_apart(os.open(os.devnull, os.O_WRONLY))
    assert fd >= 512
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert not files.is_open(fd)
    monkeypatch.setattr(files.fcntl, "fcntl", refused)
    fd = os.open(os.devnull, os.O_WRONLY)
    assert files.set_apart(fd) == fd
    os.close(fd)


@pytest.mark.parametrize("work", ["pass", "time.sleep(0.5)", "tracker.run(tracker.flush())", "job()", "own()"])  # fmt: skip
async def test_a_program_that_closes_all_files_ends_as_without_a_tracker(db_path, work):
    """faults 2: the loop of its tracker never runs again. The program got InvalidState, or waited
    for 30 s. It ends without an error and soon, what it logged is stored, and its files are intact.
    """
    out = run(
        DAEMON
        + f"""
import time

def job():
    with tracker.job("second"):
        log.info("in its job")

def own():
    for number in range(100):
        log.info("after", number=number)

with structjob.Tracker(URL) as tracker:
    with tracker.job("first"):
        log.info("before")
        tracker.run(tracker.flush())  # what SQLite writes at that moment would reach a new file
        names = become_a_daemon()
    began = time.monotonic()
    try:
        {work}
    except structjob.StoreUnavailable as exc:
        assert "loop" in str(exc), exc
print(time.monotonic() - began < 15, changed(names), flush=True)
""",
        db_path,
        check=False,
    )
    assert out == "True []\n"
    await check(db_path)
    found = rows(db_path, "SELECT message, count(*) FROM structjob_logs WHERE kind = 'log' AND coalesce(logger, '') != 'asyncio' GROUP BY message")  # fmt: skip
    more = {"job()": [("in its job", 1)], "own()": [("after", 100)]}.get(work, [])
    assert sorted(found) == sorted([("before", 1), *more])
    jobs = rows(db_path, "SELECT operation, status FROM structjob_jobs ORDER BY operation")
    assert jobs == [("first", "completed"), ("second", "completed")][: 1 + (work == "job()")]


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("Cannot allocate memory")],
)
def test_a_loop_that_fails_itself_is_reported_once(fault, caplog, monkeypatch):
    """faults 2: a loop that fails for a while does not run in circles, and says so once."""
    tries = []

    class Loop(asyncio.SelectorEventLoop):
        def run_forever(self):
            tries.append(1)
            if len(tries) < 4:
                raise fault
            super().run_forever()

    paused = []
    monkeypatch.setattr("structjob.engine.loop_thread.time.sleep", paused.append)
    policy = asyncio.get_event_loop_policy()
    monkeypatch.setattr(policy, "new_event_loop", Loop)
    loop = LoopThread()
    try:
        assert loop.run(asyncio.sleep(0, 3)) == 3
    finally:
        loop.stop(5)
    assert len(paused) == 3
    assert all(seconds >= 1 for seconds in paused)
    said = [record.message for record in caplog.records if "cannot run" in record.message]
    assert len(said) == 1
    assert "Cannot allocate memory" in said[0]
