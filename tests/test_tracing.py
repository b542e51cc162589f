"""A tracing system gives jobs and steps the ids of its spans (R22)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import structlog

import structjob
from structjob import Span, set_tracing
from structjob.diagnostics import faults

log = structlog.get_logger("app")

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Tracing:
    """Numbers its spans, and remembers what each is below and how it ended."""

    def __init__(self):
        self.begun, self.ended = [], []

    def begin(self, handle, parent):
        self.begun.append((handle, parent.span_id))
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
        async with job.child("b") as child, job.step("beside") as beside:
            pass
    assert headers["traceparent"] == f"00-{TRACE}-{1:016x}-00"
    assert headers["tracestate"] == "vendor=1"
    assert [(handle.id, above) for handle, above in tracing.begun] == [
        (job.id, None),
        (outer.id, f"{1:016x}"),
        (inner.id, f"{2:016x}"),
        (child.id, f"{1:016x}"),
        (beside.id, f"{1:016x}"),
    ]
    assert tracing.ended == [
        (inner.id, "completed"),
        (outer.id, "completed"),
        (beside.id, "completed"),
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

    set_tracing(fails)
    with structjob.extract({"traceparent": f"00-{TRACE}-{9:016x}-01"}).as_current():
        async with tracker.job("a") as job, job.step("s"):
            assert structjob.inject()["traceparent"] == f"00-{TRACE}-{9:016x}-01"
    set_tracing(Tracing().begin, fails)
    async with tracker.job("a"):
        pass
    assert faults.counts == {"beginning a span": 2, "ending a span": 1}


INVALID = [
    Span("1" * 40, "2" * 16),
    Span("0" * 32, "2" * 16),
    Span(TRACE.upper(), "2" * 16),
    Span(TRACE, "2" * 15),
    Span(TRACE, None),
    Span(TRACE, "2" * 16, "sampled"),
    (TRACE, "2" * 16),
    TRACE,
]


async def test_ids_that_are_not_valid_are_not_used(tracker):
    """R22: an id that no column can hold would lose the events. They are stored, and the mistake is
    counted.
    """
    structjob.configure(console=False)
    for mistakes, span in enumerate(INVALID, 1):
        set_tracing(lambda handle, parent, span=span: span)
        async with tracker.job("a") as job:
            log.info("stored")
            assert "traceparent" not in structjob.inject()
        events = await tracker.logs.list(job_id=job.id)
        assert [event.kind for event in events] == ["operation_start", "log", "operation_end"]
        assert all(event.trace_id is None for event in events)
        assert faults.counts == {"beginning a span": mistakes}
    await tracker.flush()
    assert tracker.ledger().dead_lettered == 0


async def test_a_tracestate_that_may_not_be_sent_is_left_out(tracker):
    """R22: a line break in it would become a header of its own."""
    set_tracing(lambda handle, parent: Span(TRACE, "2" * 16, None, "a=1\r\nX-Admin: 1"))
    async with tracker.job("a"):
        headers = structjob.inject()
    assert headers["traceparent"] == f"00-{TRACE}-{'2' * 16}-01"
    assert "tracestate" not in headers


async def test_a_job_or_step_without_a_span_does_not_end_one(tracker):
    """R22: `end` is called for each span that was begun, and for nothing else."""
    tracing = Tracing()
    async with tracker.job("before") as before:
        set_tracing(tracing.begin, tracing.end)
        pending = await tracker.create_job("pending")
        await tracker.cancel(pending.id)
    set_tracing(lambda handle, parent: None, tracing.end)
    async with tracker.job("none"):
        pass
    assert before.ended
    assert tracing.begun == tracing.ended == []


async def test_tracing_ends_with_reset_and_with_none(tracker):
    """R22: what begins afterwards has no span; what has one ends it, until `reset`."""
    tracing = Tracing()
    set_tracing(tracing.begin, tracing.end)
    async with tracker.job("a") as job:
        set_tracing(None, tracing.end)
        async with job.step("s"):
            assert structjob.inject()["traceparent"] == f"00-{TRACE}-{1:016x}-00"
    assert tracing.ended == [(job.id, "completed")]


@pytest.mark.parametrize("function", ["begin", 3])
def test_tracing_takes_functions(function):
    """A mistake is reported where it is made."""
    with pytest.raises(structjob.InvalidArgument, match="two functions"):
        set_tracing(function)


def test_tracing_takes_no_coroutine_functions():
    """A span from a coroutine would come too late."""

    async def begin(handle, parent):
        return None

    with pytest.raises(structjob.InvalidArgument, match="never awaited"):
        set_tracing(begin)
    with pytest.raises(structjob.InvalidArgument, match="never awaited"):
        set_tracing(None, begin)


async def test_a_step_may_belong_to_the_span_of_its_job(tracker):
    """R22: a system that makes spans of jobs only returns nothing for a step."""
    set_tracing(
        lambda handle, outer: Span(TRACE, "1" * 16) if isinstance(handle, structjob.Job) else None
    )
    async with tracker.job("a") as job, job.step("s"):
        assert structjob.inject()["traceparent"] == f"00-{TRACE}-{'1' * 16}-01"


def test_the_program_of_the_page_has_a_span_for_each_job_and_step(tmp_path, monkeypatch, capsys):
    """R22: with OpenTelemetry, one trace id is in the logs, in the spans and in the headers."""
    trace = pytest.importorskip("opentelemetry.trace")
    spans = []

    class Recorded(trace.NonRecordingSpan):
        def end(self, end_time=None):
            self.ended = True

    class Tracer(trace.NoOpTracer):
        def start_span(self, name, context=None, **_):
            above = trace.get_current_span(context).get_span_context()
            trace_id = above.trace_id or int(TRACE, 16)
            ids = trace.SpanContext(trace_id, len(spans) + 1, False, trace.TraceFlags(1))
            span = Recorded(ids)
            spans.append((name, above.span_id, span))
            return span

    monkeypatch.setattr(trace, "get_tracer", lambda name: Tracer())
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parent.parent / "docs" / "integrations" / "tracing.md"
    (program,) = re.findall(
        r"^<!-- traced.py -->\n```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    exec(compile(program, "traced.py", "exec"), {})
    assert capsys.readouterr().out == f"00-{TRACE}-{2:016x}-01\n"
    assert [(name, above) for name, above, _ in spans] == [("nightly", 0), ("load", 1)]
    assert all(span.ended for _, _, span in spans)
