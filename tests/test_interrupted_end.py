"""An exception of a signal handler, such as Ctrl-C or the timeout of a worker, that interrupts the
end of a step or a job: the state that is recorded last is true (R9, faults 5).
"""

import pytest

import structjob
from structjob.context.scope import SCOPE, Entry
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.run import Run
from structjob.lifecycle.step_core import StepCore


class Timeout(BaseException):
    pass


def interrupt(monkeypatch, owner, name, when=lambda self: True):
    """Let the first call of a method raise, as a signal handler does."""
    method = getattr(owner, name)
    left = [1]

    def raising(self, *args, **options):
        if left and when(self):
            left.clear()
            raise Timeout
        return method(self, *args, **options)

    monkeypatch.setattr(owner, name, raising)


def test_a_step_whose_end_is_interrupted_has_its_status(monkeypatch, db_url):
    """R9: the row of the step says how it ended when the row of its job does."""
    with structjob.Tracker(db_url) as tracker:
        with tracker.job("work") as job:
            interrupt(monkeypatch, StepCore, "record", lambda step: step.ended)
            with pytest.raises(Timeout), job.step("load"):
                pass
        steps = tracker.run(tracker.jobs.steps(job.id))
        assert [(step.name, step.status) for step in steps] == [("load", "completed")]


@pytest.mark.parametrize(
    ("owner", "name"), [(Run, "end"), (Run, "measure"), (JobCore, "record")], ids=str
)
def test_a_job_whose_end_is_interrupted_has_its_status(monkeypatch, db_url, owner, name):
    """R9: the row of the job says how it ended, at the latest when the tracker has closed, and no
    job is marked as running after it.
    """
    with structjob.Tracker(db_url) as tracker:
        job = tracker.job("work").begin()
        interrupt(monkeypatch, owner, name)
        with pytest.raises(Timeout):
            job.end()
    with structjob.Tracker(db_url) as tracker:
        assert tracker.run(tracker.jobs.get(job.id)).status == "completed"
        assert tracker.run(tracker.verify()).ok


def _after_its_scope(entry):
    SCOPE.set(entry._scope)
    raise Timeout


def _after_all(entry):
    entry._token = SCOPE.set(entry._scope)
    raise Timeout


@pytest.mark.parametrize("enter", [_after_its_scope, _after_all])
def test_a_job_whose_start_is_interrupted_is_not_current(monkeypatch, db_url, enter):
    """R14: what is logged after it does not belong to it."""
    with structjob.Tracker(db_url) as tracker:
        with monkeypatch.context() as patched, pytest.raises(Timeout):
            patched.setattr(Entry, "enter", enter)
            with tracker.job("work"):
                pytest.fail("its start was interrupted")
        assert structjob.current_job() is None
        assert SCOPE.get() is None
        assert [job.status for job in tracker.run(tracker.jobs.list())] == ["failed"]


@pytest.mark.parametrize("enter", [_after_its_scope, _after_all])
@pytest.mark.parametrize("what", ["as_current", "correlate", "retrying", "attempt"])
def test_a_block_whose_start_is_interrupted_is_left(monkeypatch, db_url, enter, what):
    """R14: what is logged after it belongs to the job around it."""
    with structjob.Tracker(db_url) as tracker, tracker.job("work") as job:
        own = SCOPE.get()
        other = job.step("other")
        other.start()
        blocks = {
            "as_current": lambda: [other.as_current()],
            "correlate": lambda: [structjob.correlate("other")],
        }.get(what, lambda: job.retrying("fetch"))
        with monkeypatch.context() as patched, pytest.raises(Timeout):
            if what == "retrying":
                patched.setattr(Entry, "enter", enter)
            for block in blocks():
                patched.setattr(Entry, "enter", enter)
                with block:
                    pytest.fail("its start was interrupted")
        assert SCOPE.get() is own


class Ends:
    """A value whose text ends the program."""

    def __repr__(self):
        raise SystemExit(3)


@pytest.mark.parametrize("how", ["result", "metadata", "step"])
def test_a_value_that_ends_the_program_when_it_is_read_leaves_no_job_running(db_url, how):
    """R9: the exception comes out of the block, and the job has ended when the block has."""
    with structjob.Tracker(db_url) as tracker:
        with pytest.raises(SystemExit), tracker.job("work", job_id="odd") as job:
            if how == "result":
                job.result = Ends()
            elif how == "metadata":
                job.metadata["odd"] = Ends()
            else:
                with job.step("load") as step:
                    step.metadata["odd"] = Ends()
        assert structjob.current_job() is None
        tracker.run(tracker.flush())
        found = tracker.run(tracker.jobs.get("odd"))
        assert found.status in {"completed", "failed"}
        value = {"result": found.result, "metadata": found.metadata.get("value")}
        assert how == "step" or "cannot be shown, SystemExit" in value[how]
        steps = tracker.run(tracker.jobs.steps("odd"))
        assert [one.status for one in steps] == (["completed"] if how == "step" else [])
