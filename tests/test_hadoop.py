"""Real input: 2,000 lines of a Hadoop cluster become jobs, steps and events, and every line is
found again (R4, R8, R20, R36).

The data are the Hadoop sample of Loghub (https://github.com/logpai/loghub).
"""

import re

import loghub
import pytest
import structlog

import structjob
from structjob import JobFilter, LogFilter
from structjob.lifecycle.handle import core_of

LEVELS = {"INFO": "info", "WARN": "warning", "ERROR": "error", "FATAL": "critical"}
ATTEMPT = re.compile(r"attempt_\d+_(\d+)_([mr])_(\d+)_\d+")


LINES = loghub.sample("Hadoop")
pytestmark = pytest.mark.skipif(
    LINES is None,
    reason="the samples of Loghub are not there: set STRUCTJOB_LOGHUB to the directory that holds them",
)


async def replay(tracker):
    """Log each line where it belongs: an application is a job, a task attempt is a step of it; what
    names neither is a system event.

    Applications and attempts overlap in the file, so that jobs and steps are begun and ended by
    hand.
    """
    jobs: dict[str, structjob.Job] = {}
    steps: dict[str, structjob.Step] = {}
    expected = []
    current = None
    for number, line in enumerate(LINES):
        content, level = line["Content"], LEVELS[line["Level"]]
        if found := re.search(r"application_\d+_\d+|appattempt_(\d+_\d+)_\d+", content):
            current = "application_" + found[1] if found[1] else found[0]
            if current not in jobs:
                jobs[current] = await (
                    await tracker.create_job(
                        "mapreduce", external_job_id=current, job_type="hadoop"
                    )
                ).start()
        step = None
        if current is not None and (found := ATTEMPT.search(content)):
            step = steps.get(found[0])
            if step is None:
                step = steps[found[0]] = await jobs[current].step(found[0]).start()
        handle = step or (jobs[current] if current is not None else None)
        previous = structjob.context.scope.current_scope()
        structjob.context.scope.enter_scope(core_of(handle).scope if handle is not None else None)
        try:
            getattr(structlog.get_logger(line["Component"]), level)(
                content, line_id=number, process=line["Process"]
            )
        finally:
            structjob.context.scope.enter_scope(previous)
        job = step.job if step is not None else jobs[current] if current is not None else None
        expected.append(
            (
                number,
                level,
                line["Component"],
                content,
                job.id if job else None,
                step.id if step else None,
            )
        )
    for job in jobs.values():
        await job.end()
    return jobs, steps, expected


def told(event):
    return (
        event.attrs["line_id"],
        event.level,
        event.logger,
        event.message,
        event.job_id,
        event.step_id,
    )


async def test_every_line_of_a_real_cluster_is_found_again(tracker):
    """R36: in order, by job, by step, by level and by text; with level, component, process and
    message as they were.
    """
    jobs, steps, expected = await replay(tracker)
    everything = [event async for event in tracker.logs.iterate(LogFilter(kind="log"))]
    assert [told(event) for event in everything] == expected
    assert [event.attrs["process"] for event in everything] == [line["Process"] for line in LINES]
    assert len(everything) == 2000
    assert len(jobs) >= 1
    assert len(steps) > 10

    for application, job in jobs.items():
        assert (await tracker.jobs.by_external_id(application)).status == "completed"
        found = [
            told(event)
            async for event in tracker.logs.iterate(LogFilter(job_id=job.id, kind="log"))
        ]
        assert found == [line for line in expected if line[4] == job.id]
    for step in steps.values():
        found = [
            told(event)
            async for event in tracker.logs.iterate(LogFilter(step_id=step.id, kind="log"))
        ]
        assert found == [line for line in expected if line[5] == step.id]
    for level in LEVELS.values():
        found = [
            told(event) async for event in tracker.logs.iterate(LogFilter(levels=level, kind="log"))
        ]
        assert found == [line for line in expected if line[1] == level]
    at_least = [
        told(event) async for event in tracker.logs.iterate(LogFilter(level="error", kind="log"))
    ]
    assert at_least == [line for line in expected if line[1] in ("error", "critical")]
    for text in (
        "Failed to renew lease",
        "TaskAttempt Transitioned",
        "100%",
        "_",
        "Kind: YARN_AM_RM_TOKEN",
    ):
        found = [
            told(event) async for event in tracker.logs.iterate(LogFilter(text=text, kind="log"))
        ]
        assert found == [line for line in expected if text.lower() in line[3].lower()], text

    component = LINES[0]["Component"]
    found = [told(event) async for event in tracker.logs.iterate(LogFilter(logger=component))]
    assert found == [line for line in expected if line[2] == component]


async def test_its_jobs_and_steps_are_listed(tracker):
    """R16, R20: each application once, with its attempts as steps in the order they began; all are
    accounted for.
    """
    jobs, steps, _ = await replay(tracker)
    listed = await tracker.jobs.list(JobFilter(job_type="hadoop", order="asc", limit=1000))
    assert [job.external_job_id for job in listed] == list(jobs)
    for job in jobs.values():
        records = await tracker.jobs.steps(job.id)
        assert [record.name for record in records] == [
            name for name, step in steps.items() if step.job is job
        ]
    assert (await tracker.verify()).ok
    ledger = tracker.ledger()
    assert ledger.stored == ledger.accepted >= 2000
