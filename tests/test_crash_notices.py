"""The events about the jobs of a dead process: what they say, and that each is shown once, if it is
stored (R11).
"""

import types

import msgspec
import pytest

from structjob.engine import crash
from structjob.engine.crash import CrashNotices
from structjob.spool.fault_log import Fault
from structjob.spool.session import Session
from structjob.store.contract import LeftRunning
from structjob.values.redaction import Redactor

DEAD = Session(3, "elsewhere", None, 77)


def job(id_, attempt=1):
    return dict.fromkeys(("correlation_id", "parent_job_id", "project")) | {
        "id": id_, "attempt": attempt, "operation": f"copy {id_}", "category": "system",
    }  # fmt: skip


class Link:
    """A database link, and its store."""

    def __init__(self):
        self.store, self.stored, self.asked = self, set(), []

    def fetch(self, statement):
        raise NotImplementedError

    async def jobs_of(self, session_id):
        self.asked.append(session_id)
        return self.stored


@pytest.fixture
def left(monkeypatch):
    """The jobs that the dead session has running, and the events that are shown."""
    running, shown = [], []

    async def left_running(fetch, session_id):
        assert session_id == DEAD.session_id
        return [LeftRunning(each, ["open"], ["last"]) for each in running]

    def show(scope, level, attrs, *, kind, ns):
        shown.append((scope.job_id, scope.attempt, level, kind, attrs["operation"], ns))

    monkeypatch.setattr(crash, "left_running", left_running)
    monkeypatch.setattr(crash, "show", show)
    return types.SimpleNamespace(running=running, shown=shown)


def read(body):
    return msgspec.json.decode(body + b"}")


@pytest.mark.parametrize(
    ("fault", "message", "log"),
    [
        (None, "its process ended without finishing it", None),
        (
            Fault("Aborted", "stack", "all"),
            "its process ended without finishing it: Aborted",
            "all",
        ),
        (Fault("", "stack", "all"), "its process ended without finishing it", "all"),
    ],
)
async def test_what_a_crash_says(left, fault, message, log):
    """R11: where the process ran, what was open, the last lines, and why it died, if that is
    known.
    """
    finder = Session(service="finds")
    notices = CrashNotices(DEAD, finder, fault=fault)
    left.running[:] = [job("a")]
    prepared = await notices.prepare(Link())
    event = read(prepared.bodies["a"])
    attrs = event["attrs"]
    assert (event["kind"], event["level"]) == ("operation_crashed", "error")
    assert (attrs["operation"], attrs["status"]) == ("copy a", "crashed")
    assert (attrs["host"], attrs["pid"]) == ("elsewhere", 77)
    assert (attrs["open_steps"], attrs["last_lines"]) == (["open"], ["last"])
    assert (attrs["error_message"], attrs.get("fault_log")) == (message, log)
    assert ("fault_log" in attrs) is (log is not None)
    assert (prepared.reason, prepared.stack) == (
        (fault.reason, fault.stack) if fault else ("", None)
    )
    assert prepared.session.session_id not in (DEAD.session_id, finder.session_id)
    assert prepared.session.service == "finds"


async def test_secrets_in_what_a_process_died_of_are_redacted(left, monkeypatch):
    """R33: in the columns of the job, too, which no encoder writes."""
    monkeypatch.setattr(crash, "SETUP", types.SimpleNamespace(redactor=Redactor()))
    notices = CrashNotices(
        DEAD, Session(), fault=Fault("token=hunter22x", "password=hunter22x", "x")
    )
    left.running[:] = [job("a")]
    prepared = await notices.prepare(Link())
    assert "hunter22x" not in f"{prepared.reason}{prepared.stack}{prepared.bodies}"
    assert "[redacted]" in prepared.reason
    assert "[redacted]" in prepared.stack
    assert CrashNotices(DEAD, Session())._stack is None


async def test_each_event_is_shown_once_if_it_is_stored(left):
    """R11: whether a transaction failed or only seemed to; a job may have ended before it."""
    notices, link = CrashNotices(DEAD, Session()), Link()
    await notices.show(link)
    assert link.asked == []
    left.running[:] = [job("a"), job("b")]
    first = await notices.prepare(link)
    left.running[:] = [job("b"), job("b", attempt=2)]
    again = await notices.prepare(link)
    link.stored = {"b"}
    await notices.show(link)
    assert link.asked == [first.session.session_id]
    assert [each[:5] for each in left.shown] == [
        ("b", 1, "error", "operation_crashed", "copy b"),
        ("b", 2, "error", "operation_crashed", "copy b"),
    ]
    assert again.session == first.session
    await notices.show(link)
    assert (len(left.shown), len(link.asked)) == (2, 1)


async def test_a_crash_that_was_assumed_by_mistake_is_withdrawn(left):
    """R11: by an event of its own, with the reason."""
    notices, link = CrashNotices(DEAD, Session(), withdrawn="it lives"), Link()
    prepared = notices.corrections()
    assert (prepared.bodies, prepared.reason, prepared.stack) == ({}, "", None)
    event = read(prepared.correction(job("a")))
    assert (event["kind"], event["level"]) == ("operation_crash_withdrawn", "warning")
    assert event["attrs"] == {"operation": "copy a", "reason": "it lives"}
    link.stored = {"a"}
    await notices.show(link)
    assert [each[:4] for each in left.shown] == [("a", 1, "warning", "operation_crash_withdrawn")]
    assert await CrashNotices(DEAD, Session()).prepare(link)
