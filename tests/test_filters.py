"""Filters with several values, lists in attributes, metadata, durations: the same on every
database, and for a listener.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import structlog
from each import each

from structjob import (
    AttemptFilter,
    ErrorFilter,
    EventRecord,
    JobFilter,
    JobRecord,
    JobStatus,
    LogFilter,
)
from structjob.exceptions import InvalidFilter
from structjob.queries.jobs import Jobs
from structjob.store.tables import jobs

log = structlog.get_logger()
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def _messages(events):
    return [event.message for event in events if event.kind == "log"]


async def _pages(read, **filters):
    """Return what all pages have, read forward, and check that reading back shows the same."""
    pages = [await read(**filters)]
    while pages[-1].next_cursor is not None:
        pages.append(await read(**filters, cursor=pages[-1].next_cursor))
    back = pages[-1]
    for page in reversed(pages[:-1]):
        back = await read(**filters, cursor=back.previous_cursor)
        assert back.items == page.items
    return [one for page in pages for one in page]


# -- several values
# --------------------------------------------------------------------------


async def test_one_filter_takes_several_levels_types_and_jobs(any_tracker):
    """faults 28: in pages, in counts and in a tail; each event once, in the order of time."""
    for name in ("a", "b", "c"):
        async with any_tracker.job(name, job_id=name) as job:
            log.info(f"{name} info")
            async with job.step("s"), job.child("below"):
                log.error(f"{name} error")
            log.warning(f"{name} warning")
    log.info("no job")
    logs = any_tracker.logs
    wanted = {
        ("a info", "b info", "c info", "no job", "a error", "b error", "c error"): {
            "levels": ("info", "error")
        },
        ("no job",): {"type": ("system",)},
        ("a error", "b error", "c error", "no job"): {
            "type": ("system", "task"),
            "operation": None,
        },
        ("a info", "a error", "a warning", "c info", "c error", "c warning"): {"job": ("a", "c")},
        ("a info", "a warning", "c info", "c warning"): {"job_id": ["a", "c"], "children": False},
        ("a error", "c error"): {"job_id": ("a", "c"), "level": "error"},
        ("a warning", "b warning"): {"operation": ("a", "b"), "levels": ("warning", "critical")},
        (
            "a error",
            "b error",
            "c error",
            "no job",
            "a info",
            "b info",
            "c info",
            "a warning",
            "b warning",
            "c warning",
        ): {"category": ("system", "none")},
    }
    for expected, filters in wanted.items():
        if filters.get("type") == ("system", "task"):
            expected = ("no job",)  # the child's event is of its own job, outside a step
        found = await _pages(logs.list, **filters, limit=3)
        assert sorted(_messages(found)) == sorted(expected)
        assert [event.ts for event in found] == sorted(event.ts for event in found)
        assert len({event.id for event in found}) == len(found) == await logs.count(**filters)
        async with logs.tail(**filters) as tail:
            told = []
            while events := await tail.poll(0):
                told += events
        assert sorted(event.id for event in told) == sorted(event.id for event in found)


async def test_several_values_find_what_one_finds_if_they_are_stored_without_a_password(
    any_tracker,
):
    """R33: a label with credentials is stored without them, and found by the label as it was given,
    also beside other values.
    """
    url = "https://ada:hunter2@host/x"
    async with any_tracker.job(f"copy {url}", owner=url, category=url):
        log.info("copied", category=url)
    for fields in ({"owner": url}, {"category": url}, {"operation": f"copy {url}"}):
        ((name, value),) = fields.items()
        assert await any_tracker.jobs.count(**fields) == 1
        assert await any_tracker.jobs.count(**{name: [value, "other"]}) == 1
    assert await any_tracker.logs.count(text="copied", category=url) == 1
    several = any_tracker.logs.tail(text="copied", category=[url, "other"])
    assert await any_tracker.logs.count(text="copied", category=[url, "other"]) == 1
    assert [event.message for event in await several.poll(0)] == ["copied"]


async def test_a_live_tail_of_several_jobs_sees_what_comes(any_tracker):
    """faults 28: the later events of each of them, and of children that begin after it."""
    async with (
        any_tracker.job("a", job_id="a"),
        any_tracker.job("b", job_id="b", parent="elsewhere") as job,
    ):
        async with any_tracker.logs.tail(job=("a", "b"), last=0, level="warning") as tail:
            assert await tail.poll(0) == []
            log.warning("of b")
            async with job.child("below"):
                log.warning("below b")
            log.info("not asked for")
            await any_tracker.flush()
            assert _messages([*(await tail.poll(0)), *(await tail.poll(0))]) == ["of b", "below b"]


async def test_source_and_trace_are_filters(any_tracker):
    """faults 28: `source` is the logger, `trace_id` the trace."""
    structlog.get_logger("db.pool").info("connected", trace_id="a" * 32)
    structlog.get_logger("http").info("asked", trace_id="b" * 32)
    assert _messages(await any_tracker.logs.list(source="db.pool")) == ["connected"]
    assert _messages(await any_tracker.logs.list(source=("db.pool", "http"))) == [
        "connected",
        "asked",
    ]
    assert _messages(await any_tracker.logs.list(trace_id="b" * 32)) == ["asked"]
    with pytest.raises(InvalidFilter, match="source is another name of logger"):
        LogFilter(source="a", logger="b")


@each(
    ("kind", "filters", "says"),
    [
        (LogFilter, {"levels": ("info", "loud")}, "loud"),
        (LogFilter, {"levels": ()}, "levels must be text, or 1 to 50"),
        (LogFilter, {"levels": 7.5}, "levels must be a level, or several"),
        (LogFilter, {"level": ("info", "error")}, "write levels="),
        (LogFilter, {"level": "info", "levels": "error"}, "leave one of them out"),
        (LogFilter, {"type": ("job", "step")}, "type must be one of system, job, task, not 'step'"),
        (LogFilter, {"operation": ()}, "operation must be text, or 1 to 50"),
        (
            LogFilter,
            {"operation": [f"o{n}" for n in range(51)]},
            "operation must be text, or 1 to 50",
        ),
        (LogFilter, {"kind": (1, 2)}, "kind must be text"),
        (JobFilter, {"status": []}, "status must be a status, or several, not"),
        (AttemptFilter, {"status": ()}, "status must be a status, or several, not"),
        (ErrorFilter, {"status": []}, "status must be a status, or several, not"),
        (ErrorFilter, {"outcome": ()}, "unknown outcome .*: use one of final, recovered"),
        (JobFilter, {"context_id": ()}, "context_id must be one text, not"),
        (LogFilter, {"correlation_id": ("a", "b")}, "correlation_id must be one text, not"),
        (JobFilter, {"metadata": "vm"}, "metadata must be a mapping"),
        (JobFilter, {"sort": "name"}, "sort must be 'created' or 'duration'"),
        (JobFilter, {"sort": "duration", "slower": True}, "leave sort out"),
        (JobFilter, {"by": "started"}, "by must be 'created' or 'ended'"),
        (JobFilter, {"status": ["done"]}, "unknown status 'done'"),
        (LogFilter, {"attrs": {"a": "\ud800"}}, "a lone surrogate"),
        (LogFilter, {"correlation_id": "c", "correlated": False}, "leave correlated out"),
    ],
)
def test_values_that_are_refused(kind, filters, says):
    """faults 28: each with the name of the field and what it takes."""
    with pytest.raises(InvalidFilter, match=says):
        kind(**filters)


# -- lists in attributes
# --------------------------------------------------------------------------

EVENTS = {
    "tags": {"tags": ["red", "blue"]},
    "numbers": {"tags": [1, 2.5, True, None, 10**17 + 1]},
    "one": {"tags": "red"},
    "disks": {"vm": {"disks": [{"name": "sda", "size": 5}, {"name": "sdb"}, "sdc"]}},
    "disk": {"vm": {"disks": {"name": "sda"}}},
    "dotted": {"vm.disks": ["sda"]},
    "object": {"tags": {"x": "red"}},
    "object of lists": {"a": {"tags": ["red"]}},
    "empty": {"tags": []},
}
SEARCHES = [
    ("tags", "red", ["tags", "one"]),
    ("tags", "re", []),
    ("tags", 1, ["numbers"]),
    ("tags", 2.5, ["numbers"]),
    ("tags", True, ["numbers"]),
    ("tags", None, ["numbers"]),
    ("tags", "1", []),
    ("tags", False, []),
    ("vm.disks.name", "sda", ["disks", "disk"]),
    ("vm.disks.name", "sdb", ["disks"]),
    ("vm.disks.size", 5.0, ["disks"]),
    ("vm.disks", "sdc", ["disks"]),
    ("vm.disks", "sda", ["dotted"]),
    ("a.tags", "red", ["object of lists"]),
]


async def test_attributes_reach_the_items_of_lists(any_tracker):
    """faults 28: any item may match, by value and type; a listener finds the same."""
    heard = []
    any_tracker.listen(heard.append)
    for name, attrs in EVENTS.items():
        log.info(name, **attrs)
    stored = await any_tracker.logs.list()
    for path, value, expected in SEARCHES:
        assert _messages(await any_tracker.logs.list(attrs={path: value})) == expected, (
            path,
            value,
        )
        assert [
            event.message for event in stored if LogFilter(attrs={path: value}).matches(event)
        ] == expected, (path, value)


# -- jobs
# --------------------------------------------------------------------------


async def test_jobs_by_metadata(any_tracker):
    """faults 28: paths, lists and types as in the attributes of events."""
    async with any_tracker.job("a", metadata={"vm": {"name": "pg-01"}, "disks": ["sda", "sdb"]}):
        pass
    async with any_tracker.job("b", metadata={"vm": {"name": "pg-02"}}):
        pass
    async with any_tracker.job("c"):
        pass
    find = any_tracker.jobs.list
    assert [job.operation for job in await find(metadata={"vm.name": "pg-01"})] == ["a"]
    assert [job.operation for job in await find(metadata={"disks": "sdb"})] == ["a"]
    assert [
        job.operation for job in await find(metadata={"vm.name": "pg-02", "disks": "sdb"})
    ] == []
    with pytest.raises(InvalidFilter, match="empty part"):
        await find(metadata={"vm..name": 1})


@pytest.fixture
async def history(database):
    """Twelve jobs of two operations, each a minute after the other, and what reads them."""
    rows = []
    for n in range(12):
        took = None if n == 11 else (50.0 if n == 10 else float(n % 4))
        rows.append({
            "id": f"j{n:02}", "operation": "copy" if n % 2 == 0 else "load", "status": "running" if took is None else "completed",
            "project": "moon" if n < 6 else None, "created_at": T0 + timedelta(minutes=n), "started_at": T0 + timedelta(minutes=n),
            "duration_ms": took, "attempt": 1,
        })  # fmt: skip
    async with database.engine.begin() as connection:
        await connection.execute(jobs.insert(), rows)

    async def flush():
        pass

    return Jobs(database.fetch, flush, now=lambda: T0 + timedelta(minutes=12))


async def test_jobs_by_duration(history):
    """faults 28: the longest first, or the shortest; jobs of equal duration in one order, page by
    page.
    """
    found = await _pages(history.list, sort="duration", limit=4)
    assert [job.duration_ms for job in found] == [
        50.0,
        3.0,
        3.0,
        2.0,
        2.0,
        1.0,
        1.0,
        1.0,
        0.0,
        0.0,
        0.0,
    ]
    assert len({job.id for job in found}) == 11
    assert [
        job.id for job in await _pages(history.list, sort="duration", order="asc", limit=4)
    ] == [job.id for job in reversed(found)]
    assert [
        job.id
        for job in await history.list(sort="duration", operation=("copy",), project="moon", limit=2)
    ] == ["j02", "j04"]
    with pytest.raises(InvalidFilter, match="belongs to another query"):
        await history.list(
            sort="created", cursor=(await history.list(sort="duration", limit=1)).next_cursor
        )


async def test_jobs_that_are_slower_than_usual(history, monkeypatch):
    """faults 28: those that took, or take, longer than 95 % of those completed before; five are
    needed; a page looks at so many only.
    """
    assert [job.id for job in await history.list(slower=True)] == ["j11", "j10"]
    assert [job.id for job in await history.list(slower=True, operation="copy")] == ["j10"]
    first = await history.list(slower=True, limit=1)
    assert [job.id for job in first] == ["j11"]
    assert not first.partial
    second = await history.list(slower=True, limit=1, cursor=first.next_cursor)
    assert [job.id for job in second] == ["j10"]
    assert list(await history.list(slower=True, limit=1, cursor=second.next_cursor)) == []
    monkeypatch.setattr("structjob.queries.job_listing.SLOWER_LIMIT", 1)
    page = await history.list(slower=True, order="asc")
    assert (list(page), page.partial, page.next_cursor is None) == ([], True, False)


async def test_jobs_are_compared_together_as_one_by_one(history):
    """R38: many jobs in few queries, and without those that have not started."""
    page = await history.list(limit=100)
    found = await history.expectations(page)
    assert found.keys() == {job.id for job in page if job.started_at is not None}
    for id_, one in found.items():
        alone = await history.estimate(id_)
        assert (one.samples, one.median_ms, one.p95_ms, one.slower) == (
            *(alone.samples, alone.median_ms),
            *(alone.p95_ms, alone.slower),
        )
    assert any(one.slower for one in found.values())


async def test_jobs_of_several_operations_and_projects(history):
    """faults 28: several of each, merged in the order of time; too many combinations are
    refused.
    """
    assert [job.id for job in await history.list(operation=("copy", "load"), limit=3)] == [
        "j11",
        "j10",
        "j09",
    ]
    assert [
        job.id
        for job in await history.list(
            operation=("copy", "none"), status=("completed", "failed"), limit=2
        )
    ] == ["j10", "j08"]
    with pytest.raises(
        InvalidFilter, match="operation × project are 64 combinations; at most 50 are allowed"
    ):
        await history.list(operation=[str(n) for n in range(8)], project=[str(n) for n in range(8)])


async def test_the_history_of_an_operation_or_project(any_tracker):
    """faults 28: attempts at all jobs of an operation, of a project, or of both."""
    for operation, project in (("copy", "moon"), ("copy", None), ("load", "moon")):
        async with any_tracker.job(operation, job_id=f"{operation}-{project}", project=project):
            pass
    history = any_tracker.jobs.history
    assert {one.job_id for one in await history(operation="copy")} == {"copy-moon", "copy-None"}
    assert {one.job_id for one in await history(project="moon")} == {"copy-moon", "load-moon"}
    assert [
        one.job_id for one in await history(project="moon", operation="load", status="completed")
    ] == ["load-moon"]


def _event(**given):
    names = [one.name for one in dataclasses.fields(EventRecord)]
    return SimpleNamespace(
        **dict.fromkeys(names) | {"ts": T0, "level": "info", "attrs": {}} | given
    )


@each(
    ("filters", "given", "matches"),
    [
        ({}, {}, True),
        ({"level": "info"}, {}, True),
        ({"level": "warning"}, {}, False),
        ({"levels": ["debug", "info"]}, {}, True),
        ({"levels": ["debug"]}, {}, False),
        ({"step_id": "s"}, {"step_id": "s"}, True),
        ({"step_id": "s"}, {"step_id": "t"}, False),
        ({"correlated": True}, {"correlation_id": "c"}, True),
        ({"correlated": True}, {}, False),
        ({"correlated": False}, {"correlation_id": "c"}, False),
        ({"correlated": False}, {}, True),
        ({"correlation_id": "c", "correlated": True}, {"correlation_id": "c"}, True),
        ({"since": T0}, {}, True),
        ({"since": T0 + timedelta(microseconds=1)}, {}, False),
        ({"until": T0}, {}, False),
        ({"until": T0 + timedelta(microseconds=1)}, {}, True),
        ({"text": "STRASSE"}, {"message": "in der Straße"}, True),
        ({"text": "strasse"}, {"message": "in der Stadt"}, False),
        ({"attrs": {"a.b": 1}}, {"attrs": {"a": {"b": 1}}}, True),
        ({"attrs": {"a.b": 1}}, {"attrs": {"a": {"b": 2}}}, False),
    ],
)
def test_what_a_listener_gets_by_its_filter(filters, given, matches):
    """R30: a listener gets the events that a query with the same filter finds, and no others."""
    assert LogFilter(**filters).matches(_event(**given)) is matches


def test_a_status_is_asked_for_once_and_in_either_spelling():
    """R20: `canceled` means `cancelled`."""
    assert JobFilter(status=["canceled", "failed", "cancelled"]).status == ("cancelled", "failed")


def test_jobs_are_named_by_any_id_by_a_handle_or_one_after_the_other():
    """R37: a text may be any id, which only the database knows; a record has the job's own."""
    record = JobRecord(
        id="a", operation="o", job_type="j", status=JobStatus.RUNNING, created_at=T0, attempt=1
    )
    assert (LogFilter(job="a").job, LogFilter(job="a").job_id) == ("a", None)
    assert (LogFilter(job=record).job, LogFilter(job=record).job_id) == (None, "a")
    assert LogFilter(job=(one for one in ("a", "b"))).job == ("a", "b")
    assert ErrorFilter(job=record).job == "a"


def test_what_a_filter_is_without_its_fields():
    """R37: a page of 100; one level, or several, and no level above them."""
    assert {kind().limit for kind in (LogFilter, JobFilter, AttemptFilter, ErrorFilter)} == {100}
    assert LogFilter(levels="warn").levels == "warning"
    assert LogFilter(levels=["warn", 40, "error"]).levels == ("warning", "error")
