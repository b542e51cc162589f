"""Events below the level, which are recorded if their job fails: `debug_on_failure` (R33)."""

import asyncio
import os
import threading
import time

import pytest
import structlog

import structjob
from structjob import InvalidArgument
from structjob.spool import kept

log = structlog.get_logger("app")


@pytest.fixture
def opened(db_url):
    """Return a tracker that keeps 500 events a job; what is below info reaches no console."""
    structjob.configure(console=False, level="debug", strict=True)
    with structjob.Tracker(db_url, debug_on_failure=500) as tracker:
        yield tracker


def debug_events(tracker, **filters):
    found = tracker.run(tracker.logs.list(levels="debug", limit=1_000, order="asc", **filters))
    return [(event.message, event.attrs) for event in found]


def test_debug_events_of_a_failed_job_are_recorded(opened):
    """R33: with their own time, their step, and without secrets; the job's end comes last."""
    with pytest.raises(ValueError), opened.job("nightly") as job:
        log.debug("opened", password="swordfish")
        with job.step("load"):
            log.debug("row", number=1)
            log.info("loaded")
            raise ValueError("broken")
    events = opened.run(opened.logs.list(job=job, order="asc"))
    assert [(event.message, event.step, event.attrs.get("late")) for event in events] == [
        ("nightly started", None, None),
        ("opened", None, True),
        ("load", "load", None),
        ("row", "load", True),
        ("loaded", "load", None),
        ("load: ValueError: broken", "load", None),
        (events[6].message, "load", None),
        (events[-1].message, None, None),
    ]
    assert events[1].attrs["password"] == "[redacted]"
    assert events[-1].kind == "operation_end"
    assert events[3].step_id == events[4].step_id
    assert opened.run(opened.verify()).ok


@pytest.mark.parametrize("how", ["completed", "cancelled", "closed"])
def test_those_of_other_jobs_are_not(opened, db_url, how):
    """R33: nothing is left of them, in the database or in memory."""
    job = opened.job("nightly").begin()
    with job.as_current():
        log.debug("row")
    if how == "closed":
        opened.close()
        with structjob.Tracker(db_url) as reader:
            assert debug_events(reader) == []
        return
    job.end(how)
    log.debug("afterwards")
    assert debug_events(opened) == []


def test_an_attempt_that_is_retried_has_not_failed(opened):
    """R33: only the attempt that ends the job as failed tells what went on in it."""
    with pytest.raises(OSError):
        for attempt in opened.retrying("nightly", max_attempts=2, delay=0, on=OSError):
            with attempt as job:
                log.debug("try", number=job.attempt)
                raise OSError("broken")
    assert debug_events(opened) == [("try", {"number": 2, "late": True})]


def test_a_child_that_fails_tells_its_own_events_only(opened):
    """R33: its parent's events are kept on, and told if the parent fails, too."""
    with opened.job("parent") as job:
        log.debug("of the parent")
        with pytest.raises(ValueError), job.child("kid"):
            log.debug("of the kid")
            raise ValueError("broken")
    assert debug_events(opened) == [("of the kid", {"late": True, "parent_job_id": job.id})]


def test_a_job_that_ran_tells_nothing_afterwards(opened):
    """R33: what is logged into an ended job is dropped as before; so are events outside jobs."""
    log.debug("outside")
    job = opened.job("nightly").begin()
    job.log.debug("within", job_id="other", text=',"job_id":"another"')
    log.debug("outside", job_id=job.id)
    job.end(error=ValueError("broken"))
    job.log.debug("later")
    log.debug("outside")
    assert [message for message, _ in debug_events(opened)] == ["within"]


def test_a_kept_event_takes_no_longer_than_a_recorded_one(opened):
    """R33: a debug event that is kept in memory takes no more CPU time than an info event."""
    took = {"debug": [], "info": []}
    with opened.job("nightly"):
        for _ in range(30):
            for level, times in took.items():
                method, began = getattr(log, level), time.thread_time()
                for number in range(300):
                    method("a line of the program", number=number, path="/var/data/x")
                times.append(time.thread_time() - began)
    # the least of many: whatever else runs on this machine only adds
    print(f"{min(took['debug']) / min(took['info']):.2f} of an info event")
    assert min(took["debug"]) <= 1.05 * min(took["info"])


def test_what_is_kept_is_bounded(db_url, monkeypatch):
    """R33: by number and by bytes, for each job; the last ones are kept."""
    structjob.configure(console=False, level="debug")
    with structjob.Tracker(db_url, debug_on_failure=3) as tracker:
        job = tracker.job("many").begin()
        for number in range(10):
            job.log.debug("row", number=number)
        job.end("failed")
        assert [attrs["number"] for _, attrs in debug_events(tracker, job=job)] == [7, 8, 9]
        monkeypatch.setattr(kept, "KEPT_BYTES", 2_500)
        job = tracker.job("large").begin()
        for number in range(3):
            job.log.debug("row", number=number, text="x" * 800)
        job.end("failed")
        assert [attrs["number"] for _, attrs in debug_events(tracker, job=job)] == [1, 2]


def test_threads_tell_all_of_their_events(opened):
    """R33: several threads log into one job, while others end."""
    job = opened.job("nightly").begin()

    def work(name):
        for number in range(50):
            job.log.debug("row", name=name, number=number)
            opened.job("other").begin().end()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job.end("failed")
    found = {(attrs["name"], attrs["number"]) for _, attrs in debug_events(opened, job=job)}
    assert len(found) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_tells_what_it_kept_itself(opened, db_url):
    """R33: the parent's kept events stay with the parent."""
    job = opened.job("parent").begin()
    job.log.debug("of the parent")
    if not (child := os.fork()):
        one = opened.job("kid").begin()
        one.log.debug("of the kid")
        one.end("failed")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    job.end("failed")
    opened.close()
    with structjob.Tracker(db_url) as tracker:
        assert sorted(message for message, _ in debug_events(tracker)) == [
            "of the kid",
            "of the parent",
        ]


def test_async_jobs_keep_theirs_apart(opened):
    """R33: tasks that run at once; an attribute called `late` stays the caller's."""

    async def one(name):
        async with opened.job(name) as job:
            log.debug(name, late="mine")
            await asyncio.sleep(0)
            if name == "bad":
                job.end("failed")

    async def main():
        await asyncio.gather(one("good"), one("bad"))

    opened.run(main())
    assert debug_events(opened) == [("bad", {"late": "mine"})]


def test_a_setup_that_drops_them_earlier_is_named(db_url, caplog):
    """R33: the usual level is info, so nothing would be kept; the message says what to type."""
    for level, said in (("info", 1), ("debug", 0)):
        structjob.configure(console=False, level=level)
        caplog.clear()
        with structjob.Tracker(db_url, debug_on_failure=500):
            pass
        assert len([one for one in caplog.records if "debug_on_failure" in one.message]) == said


@pytest.mark.parametrize("wrong", [-1, 10_001, "many", None])
def test_a_wrong_number_is_refused(db_url, wrong):
    with pytest.raises(InvalidArgument, match="debug_on_failure must be"):
        structjob.Tracker(db_url, debug_on_failure=wrong)
