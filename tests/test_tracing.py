"""A tracing system gives jobs and steps the ids of its spans (R22)."""

from __future__ import annotations

import pytest
import structlog

import structjob
from structjob.context.tracing import Span, set_tracing
from structjob.diagnostics import faults

log = structlog.get_logger("app")

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Tracing:
    """Numbers its spans, and remembers what each is below and how it ended."""

    def __init__(self):
        self.begun, self.ended = [], []

    def begin(self, handle, outer):
        self.begun.append((handle, outer.ids.get("span_id") if outer is not None else None))
        return Span(TRACE, f"{len(self.begun):016x}", "00", "vendor=1")

    def end(self, handle):
        self.ended.append((handle.id, str(handle.status)))


async def test_jobs_and_steps_are_spans(tracker):
    """R22: events carry the ids of the span they belong to, the first ones too, and what is called
    gets it as parent.
    """
    tracing = Tracing()
    set_tracing(tracing.begin, tracing.end)
    async with tracker.job("a") as job:
        headers = structjob.inject()
        async with job.step("outer") as outer, job.step("inner") as inner:
            log.info("innermost")
        async with job.child("b") as child:
            pass
    assert headers["traceparent"] == f"00-{TRACE}-{1:016x}-00"
    assert headers["tracestate"] == "vendor=1"
    assert [(handle.id, above) for handle, above in tracing.begun] == [
        (job.id, None),
        (outer.id, f"{1:016x}"),
        (inner.id, f"{2:016x}"),
        (child.id, f"{1:016x}"),
    ]
    assert tracing.ended == [
        (inner.id, "completed"),
        (outer.id, "completed"),
        (child.id, "completed"),
        (job.id, "completed"),
    ]
    events = await tracker.logs.list(job_id=job.id, children=True)
    spans = {(event.message, event.span_id) for event in events}
    assert ("innermost", f"{3:016x}") in spans
    assert {event.span_id for event in events if event.step == "outer"} == {f"{2:016x}"}
    assert {event.span_id for event in events if event.job_id == child.id} == {f"{4:016x}"}
    assert all(event.trace_id == TRACE for event in events)


async def test_a_failed_job_ends_its_spans(tracker):
    """R22: each span that was begun is ended, with the status of its job or step."""
    tracing = Tracing()
    set_tracing(tracing.begin, tracing.end)
    with pytest.raises(ValueError, match="x"):
        async with tracker.job("a") as job:
            step = job.step("by hand")
            await step.start()
            raise ValueError("x")
    assert tracing.ended == [(step.id, "cancelled"), (job.id, "failed")]


async def test_a_tracing_system_may_fail(tracker):
    """R22: what it raises is counted; the job runs, with the ids around it."""
    structjob.configure(console=False)

    def fails(*_):
        raise RuntimeError("no exporter")

    set_tracing(fails, fails)
    with structjob.extract({"traceparent": f"00-{TRACE}-{9:016x}-01"}).as_current():
        async with tracker.job("a") as job, job.step("s"):
            assert structjob.inject()["traceparent"] == f"00-{TRACE}-{9:016x}-01"
    assert faults.counts == {"beginning a span": 2, "ending a span": 2}


async def test_a_step_may_belong_to_the_span_of_its_job(tracker):
    """R22: a system that makes spans of jobs only returns nothing for a step."""
    set_tracing(
        lambda handle, outer: Span(TRACE, "1" * 16) if isinstance(handle, structjob.Job) else None
    )
    async with tracker.job("a") as job, job.step("s"):
        assert structjob.inject()["traceparent"] == f"00-{TRACE}-{'1' * 16}-01"
