"""Statistics: exact on every database, beside the same counted in plain Python."""

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from statistics_support import (
    STEP_STATUSES,
    T0,
    History,
    Store,
    events_of_large_jobs,
    grouped,
    job_summary,
    summary,
    within,
)

import structjob
from structjob.exceptions import InvalidArgument, InvalidFilter, JobNotFound
from structjob.queries import event_counts, volume
from structjob.queries.jobs import Jobs
from structjob.queries.statistics import Statistics
from structjob.store.tables import jobs, logs, metadata, steps

H = timedelta(hours=1)
NOW = T0 + 40 * H


@pytest.fixture
def store(database):
    return Store(database)


@pytest.fixture
def stats(store, reader):
    return Statistics(store.fetch, store.flush, now=lambda: NOW)


@pytest.fixture
def reader(store):
    return Jobs(store.fetch, store.flush, now=lambda: NOW)


def plain(record, *without):
    return {name: pytest.approx(value) if name.startswith("avg") and value is not None else value for name, value in asdict(record).items()
            if name not in without}  # fmt: skip


def windows():
    return [
        {},
        {"since": T0 + 5 * H},
        {"until": T0 + 7 * H},
        {"since": T0 + 5 * H, "until": T0 + 6 * H},
    ]


# -- outcomes of jobs
# --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_operations_are_what_counting_by_hand_says(store, stats, seed):
    """Counts, success rate, average and p50/p95/p99 of each operation over a window (R38)."""
    history = await store.keep(History(seed))
    for window in [
        *windows(),
        {"project": "moon"},
        {"owner": "ada", "category": "batch", "job_type": "migration"},
        {"operation": "copy"},
    ]:
        found = await stats.operations(**window)
        expected = grouped(within(history.jobs, "created_at", **window), "operation")
        assert [plain(one, "operation") for one in found] == [
            job_summary(expected[one.operation,]) for one in found
        ]
        assert {one.operation for one in found} == {name for (name,) in expected}
        assert [one.total for one in found] == sorted(
            (len(rows) for rows in expected.values()), reverse=True
        )
    assert store.flushed == 7


async def test_projects_are_what_counting_by_hand_says(store, stats):
    """Job statistics per project; those without one are together under None (R38)."""
    history = await store.keep(History(4))
    expected = grouped(history.jobs, "project")
    found = {one.project: plain(one, "project") for one in await stats.projects()}
    assert found == {name: job_summary(rows) for (name,), rows in expected.items()}


@pytest.mark.parametrize("seed", range(2))
async def test_steps_are_what_counting_by_hand_says(store, stats, seed):
    """The same by the name of a step within an operation (R38)."""
    history = await store.keep(History(seed))
    job = {one["id"]: one for one in history.jobs}
    rows = [
        {
            **step,
            "operation": job[step["job_id"]]["operation"],
            "project": job[step["job_id"]]["project"],
        }
        for step in history.steps
    ]
    for window in [*windows(), {"project": "mars"}, {"operation": "copy"}]:
        found = await stats.steps(**window)
        expected = grouped(within(rows, "started_at", **window), "operation", "name")
        got = {(one.operation, one.step): plain(one, "operation", "step") for one in found}
        assert got == {key: summary(rows, STEP_STATUSES) for key, rows in expected.items()}


@pytest.mark.parametrize(
    "width", [timedelta(hours=1), timedelta(minutes=7, microseconds=1), timedelta(days=1)]
)
async def test_throughput_is_what_counting_by_hand_says(store, stats, width):
    """Every stretch of time has its jobs, to the microsecond; those without any are there, too
    (R38).
    """
    history = await store.keep(History(5))
    since, until = T0 + timedelta(minutes=13, microseconds=1), T0 + 29 * H
    found = await stats.throughput(width, since=since, until=until)
    assert (found[0].start, found[-1].end) == (since, until)
    assert all(before.end == after.start for before, after in pairwise(found))
    assert {one.end - one.start for one in found[:-1]} <= {width}
    for one in found:
        assert plain(one, "start", "end") == job_summary(
            within(history.jobs, "created_at", one.start, one.end)
        )
    assert sum(one.total for one in found) == sum(
        one.total for one in await stats.operations(since=since, until=until)
    )


async def test_throughput_is_of_the_last_day_by_default(store, stats):
    """Without a window: 24 hours, by the hour (R38)."""
    await store.keep(History(5))
    found = await stats.throughput()
    assert len(found) == 24
    assert (found[0].start, found[-1].end) == (NOW - timedelta(days=1), NOW)


async def test_nothing_has_no_rate(store, stats):
    """Where there is nothing, counts are zero, and rates and durations are None, never NaN or 0 %
    (R38, R40).
    """
    assert (
        await stats.operations()
        == await stats.steps()
        == await stats.projects()
        == await stats.errors_by_job()
        == []
    )
    nothing = await stats.volume()
    assert (nothing.total, nothing.by_type, nothing.by_level, nothing.by_category) == (
        0,
        {},
        {},
        {},
    )
    (hour,) = await stats.throughput(since=NOW - H, until=NOW)
    assert plain(hour, "start", "end") == job_summary([])
    assert await stats.throughput(since=NOW, until=NOW) == []
    await store.add(jobs, {"id": "j", "operation": "copy", "status": "running", "created_at": T0})
    (copy,) = await stats.operations()
    assert (copy.total, copy.running, copy.success_rate, copy.avg_ms, copy.p99_ms) == (
        1,
        1,
        None,
        None,
        None,
    )


async def test_only_the_greatest_groups_are_listed(store, stats):
    """`limit` is of groups; the rest of the groups are left out, and none of a group's own jobs
    (R38).
    """
    await store.keep(History(1))
    every = await stats.operations()
    assert await stats.operations(limit=2) == every[:2]


async def test_groups_of_equal_size_have_the_same_order_everywhere(store, stats):
    """What has no project comes before what has one, so that `limit` leaves out the same on each
    database (R38).
    """
    rows = History(1).jobs[:4]
    await store.add(
        jobs,
        *(
            {**row, "project": project}
            for row, project in zip(rows, ("b", None, "B", "a"), strict=True)
        ),
    )
    assert [one.project for one in await stats.projects()] == [None, "B", "a", "b"]
    assert [one.project for one in await stats.projects(limit=2)] == [None, "B"]


# -- events
# --------------------------------------------------------------------------


def counted(rows, name):
    return {value: len(found) for (value,), found in grouped(rows, name).items()}


@pytest.mark.parametrize("many", [2, 50])
async def test_volume_is_what_counting_by_hand_says(store, stats, monkeypatch, many):
    """Events by type, level and category over a window, also where there are more categories than
    are counted one by one (R40).
    """
    monkeypatch.setattr(volume, "MANY", many)
    history = await store.keep(History(6))
    for window in [*windows(), {"project": "moon"}, {"project": "mars", "since": T0 + 9 * H}]:
        found = await stats.volume(**window)
        rows = within(history.logs, "ts", **window)
        assert found.total == len(rows)
        for name in ("type", "level", "category"):
            got = asdict(found)[f"by_{name}"]
            assert got == counted(rows, name)
            assert list(got.values()) == sorted(got.values(), reverse=True)


async def test_jobs_are_what_counting_by_hand_says(store, stats):
    """Errors, events and error rate of each job that has an error, over a window (R40)."""
    history = await store.keep(History(7))
    about = {job["id"]: job for job in history.jobs}
    for window in [*windows(), {"project": "moon"}, {"operation": "copy"}]:
        found = await stats.errors_by_job(**window)
        expected = {}
        for (job,), rows in grouped(within(history.logs, "ts", **window), "job_id").items():
            errors = sum(row["level"] in ("error", "critical") for row in rows)
            if job is not None and errors:
                expected[job] = (
                    about[job]["operation"],
                    about[job]["status"],
                    errors,
                    len(rows),
                    100 * errors / len(rows),
                )
        assert {
            one.job_id: (one.operation, one.status, one.errors, one.total, one.error_rate)
            for one in found
        } == expected
        assert [one.errors for one in found] == sorted((one.errors for one in found), reverse=True)
    (one,) = await stats.errors_by_job(job="job-0003", until=T0 + 9 * H)
    rows = within(history.logs, "ts", until=T0 + 9 * H, job_id="job-0003")
    assert one.total == len(rows)


async def test_a_job_without_errors_has_a_rate_of_none_of_them(store, stats):
    """Asked for by its id, a job is there with 0 %; one whose own row is late is there,
    too (R40).
    """
    await store.add(
        logs,
        {
            "session_id": 1,
            "seq": 1,
            "ts": T0,
            "level": "info",
            "message": "m",
            "type": "job",
            "job_id": "j",
        },
    )
    (one,) = await stats.errors_by_job(job="j")
    assert asdict(one) == {
        "job_id": "j",
        "operation": None,
        "status": None,
        "errors": 0,
        "total": 1,
        "error_rate": 0.0,
    }
    assert await stats.errors_by_job(job="k") == []


@pytest.mark.parametrize(
    ("bounds", "partly"),
    [
        ({}, set()),
        ({"ROWS": 250}, set()),
        ({"ROWS": 30}, {"warnings", "errors"}),
        ({"ENTRIES": 60}, {"total"}),
        ({"DESCENDANTS": 3}, {"total", "warnings", "errors"}),
    ],
)
async def test_events_of_jobs_are_what_counting_by_hand_says_or_unknown(
    store, stats, monkeypatch, bounds, partly
):
    """A job's events include those of its descendants. Beyond a bound the numbers in *partly* are
    None for some jobs, not for small ones, and never too small (R40).
    """
    for name, bound in bounds.items():
        monkeypatch.setattr(event_counts, name, bound)
    history = History(9)
    ids = [job["id"] for job in history.jobs]
    parents = {ids[n]: ids[n // 3] for n in range(1, 30)} | {ids[31]: ids[32], ids[32]: ids[31]}
    for job in history.jobs:
        job["parent_job_id"] = parents.get(job["id"])
    await store.keep(history)
    members = {job["id"]: {job["id"]} for job in history.jobs}
    for _ in range(10):
        for child, parent in parents.items():
            members[parent] |= members[child]
    asked = [*ids[:60], "not there"]
    found = await stats.events_by_job(asked)
    assert [one.job_id for one in found] == ids[:60]
    unknown = set()
    for one in found:
        rows = [row for row in history.logs if row["job_id"] in members.get(one.job_id, ())]
        levels = [row["level"] for row in rows]
        expected = {
            "total": len(rows),
            "warnings": levels.count("warning"),
            "errors": levels.count("error") + levels.count("critical"),
        }
        for name, number in expected.items():
            if (counted := getattr(one, name)) is None:
                unknown.add(name)
                assert rows or one.job_id in parents.values()
            else:
                assert counted == number, (one, name)
    assert unknown == partly
    assert await stats.events_by_job([]) == []


async def keep_jobs(store, **levels):
    """Insert a job of each name, with an event of each of these levels, a second apart."""
    await store.add(
        jobs,
        *(
            {"id": name, "operation": "copy", "status": "running", "created_at": T0}
            for name in levels
        ),
    )
    events = [(name, level) for name, given in levels.items() for level in given]
    await store.add(
        logs,
        *(
            {
                "session_id": 1,
                "seq": seq,
                "ts": T0 + timedelta(seconds=seq),
                "level": level,
                "message": "m",
                "type": "task",
                "job_id": name,
                "category": "system",
            }
            for seq, (name, level) in enumerate(events, 1)
        ),
    )


async def numbers(stats, *names):
    return [(one.total, one.warnings, one.errors) for one in await stats.events_by_job(names)]


async def test_a_large_job_has_its_errors_counted_and_hides_no_other_job(store, stats, monkeypatch):
    """Only the total of the job that is too large is unknown (R40)."""
    monkeypatch.setattr(event_counts, "ENTRIES", 100)
    monkeypatch.setattr(event_counts, "ROWS", 10)
    await keep_jobs(
        store,
        large=["info"] * 200 + ["error", "warning", "critical", "error"],
        medium=["info"] * 39 + ["warning"],
        small=["error"] * 2,
        smaller=["info"],
    )
    found = await numbers(stats, "large", "medium", "small", "smaller")
    assert found == [(None, 1, 3), (40, 1, 0), (2, 0, 2), (1, 0, 0)]


async def test_many_warnings_of_another_job_do_not_hide_few_errors(store, stats, monkeypatch):
    """Each level has its own bound, and only events after a job's first one count for it (R40)."""
    monkeypatch.setattr(event_counts, "ROWS", 10)
    await keep_jobs(
        store,
        early=["info"] * 20 + ["error", "critical"],
        other=["warning"] * 12,
        late=["info"] * 20 + ["warning"],
    )
    assert await numbers(stats, "early", "late") == [(22, None, 2), (21, 1, 0)]


async def test_levels_of_a_job_that_is_pruned_meanwhile_are_unknown(store, monkeypatch):
    """A prune between two queries of a count is no error (R40)."""
    monkeypatch.setattr(event_counts, "ROWS", 0)
    await keep_jobs(store, pruned=["error"] * 3)

    async def fetch(statement):
        found = await store.fetch(statement)
        if "count(" in str(statement):
            await store.transact(lambda connection: connection.execute(logs.delete()))
        return found

    found = await numbers(Statistics(fetch, store.flush, now=lambda: NOW), "pruned")
    assert found == [(3, None, None)]


async def test_storage_has_every_table(store, stats):
    """Rows are counted; bytes are the database's own, of each table and of all (R40)."""
    history = await store.keep(History(8))
    found = await stats.storage()
    rows = {one.table: one.rows for one in found.tables}
    assert set(rows) == set(metadata.tables)
    assert rows["structjob_logs"] == len(history.logs)
    assert rows["structjob_gaps"] == 0
    assert all(one.bytes is not None and one.bytes > 0 for one in found.tables)
    assert found.bytes == sum(one.bytes for one in found.tables)


async def test_the_size_of_all_is_told_at_once(store, stats):
    """Without looking through a large file, or counting rows (R40)."""
    await store.keep(History(1))
    store.asked.clear()
    quick = await stats.storage(quick=True)
    assert quick.tables == ()
    assert not [
        statement for statement in store.sent if "dbstat" in statement or "count(" in statement
    ]
    thorough = await stats.storage()
    assert (
        quick.bytes >= thorough.bytes if store.kind == "sqlite" else quick.bytes == thorough.bytes
    )


# -- what is to be expected
# --------------------------------------------------------------------------


async def past(store, *durations, operation="copy"):
    for n, ms in enumerate(durations):
        created = T0 + timedelta(minutes=n)
        values = {
            "id": f"{operation}-{n}",
            "operation": operation,
            "status": "completed",
            "attempt": 1,
            "created_at": created,
        }
        await store.add(jobs, {**values, "duration_ms": ms})
        step = {
            "id": f"{operation}-{n}-1",
            "job_id": values["id"],
            "attempt": 1,
            "seq": 1,
            "name": "load",
            "status": "completed",
        }
        await store.add(steps, {**step, "started_at": created, "duration_ms": ms / 2})


async def running(store, elapsed_ms):
    began = NOW - timedelta(milliseconds=elapsed_ms)
    await store.add(
        jobs,
        {
            "id": "now",
            "operation": "copy",
            "status": "running",
            "attempt": 1,
            "created_at": began,
            "started_at": began,
        },
    )
    step = {
        "id": "now-1",
        "job_id": "now",
        "attempt": 1,
        "seq": 1,
        "name": "load",
        "status": "running",
        "started_at": began,
    }
    await store.add(steps, step, {**step, "id": "now-2", "seq": 2, "name": "never seen"})


async def test_a_running_job_is_expected_to_take_what_it_took_before(store, reader):
    """Median and p95 of its operation's completed jobs, and of the steps of that name; others' do
    not count (R38).
    """
    await past(store, 100.0, 200.0, 300.0, 400.0, 500.0)
    await past(store, 9e9, operation="verify")
    await store.add(
        jobs,
        {
            "id": "bad",
            "operation": "copy",
            "status": "failed",
            "attempt": 1,
            "created_at": T0,
            "duration_ms": 9e9,
        },
    )
    await running(store, 150)
    found = await reader.estimate("now")
    assert (found.job_id, found.operation, found.elapsed_ms, found.samples) == (
        "now",
        "copy",
        150.0,
        5,
    )
    assert (found.median_ms, found.p95_ms, found.remaining_ms, found.slower) == (
        300.0,
        500.0,
        150.0,
        False,
    )
    load, unknown = found.steps
    assert (load.step, load.samples, load.median_ms, load.p95_ms, load.remaining_ms) == (
        "load",
        5,
        150.0,
        250.0,
        50.0,
    )
    assert (
        unknown.samples,
        unknown.median_ms,
        unknown.p95_ms,
        unknown.remaining_ms,
        unknown.slower,
    ) == (0, None, None, None, False)


async def test_what_takes_longer_than_ever_is_slower_and_has_no_end_in_sight(store, reader):
    """Beyond the 95th percentile a job is slower than usual; beyond all of them nothing is said of
    its end (R38).
    """
    await past(store, 100.0, 200.0, 300.0, 400.0, 500.0)
    await running(store, 260)
    found = await reader.estimate("now")
    assert (found.slower, found.remaining_ms) == (False, 140.0)
    assert (found.steps[0].slower, found.steps[0].remaining_ms) == (True, None)


async def test_four_are_too_few_to_call_anything_slow(store, reader):
    """Nothing is called slower than usual before there is a usual (R38)."""
    await past(store, 1.0, 1.0, 1.0, 1.0)
    await running(store, 5000)
    assert not (await reader.estimate("now")).slower


async def test_an_ended_job_is_judged_by_those_before_it(store, reader):
    """What came later does not change the verdict on it, and only the last hundred count (R38)."""
    await past(store, *[1e6] * 10, *[10.0] * 100, 50.0, *[1e6] * 5)
    found = await reader.estimate("copy-110")
    assert (found.elapsed_ms, found.samples, found.median_ms, found.slower, found.remaining_ms) == (
        50.0,
        100,
        10.0,
        True,
        None,
    )
    with pytest.raises(JobNotFound):
        await reader.estimate("nobody")


# -- what is refused, what is sent
# --------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda s: s.operations(since=NOW, until=T0), "since .* is after until"),
        (lambda s: s.volume(since=NOW, until=T0), "since .* is after until"),
        (lambda s: s.errors_by_job(since="yesterday"), "since must be a datetime or a timedelta"),
        (
            lambda s: s.steps(step="load"),
            "unknown filter 'step': use one of by, since, until, operation",
        ),
        (lambda s: s.operations(operation=3), "operation must be a string, not int"),
        (lambda s: s.volume(project="a\0"), "project contains a NUL"),
        (lambda s: s.projects(limit=0), "limit must be a whole number from 1"),
        (lambda s: s.errors_by_job(limit=1_000_000), "limit must be a whole number from 1"),
    ],
)
async def test_bad_input_is_told(store, stats, ask, says):
    """An error that names the thing, before anything is asked of the database (R38, R40)."""
    with pytest.raises(InvalidFilter, match=says):
        await ask(stats)
    assert store.asked == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("bucket", "says"),
    [
        (timedelta(0), "bucket must be at least 1 second, not 0 s"),
        (timedelta(hours=-1), "bucket must be at least 1 second"),
        (60, "bucket must be a timedelta, not int"),
        (timedelta(seconds=1), "more than 10,000"),
    ],
)
async def test_a_bad_bucket_is_told(store, stats, bucket, says):
    """A bucket of nothing, or more of them than anybody can look at, is an error (R38)."""
    with pytest.raises(InvalidArgument, match=says):
        await stats.throughput(bucket)
    assert store.asked == []


async def test_buckets_at_the_ends_of_time(store, stats):
    """A bucket longer than any window is the window, and windows at the first and the last moment
    that there are end there (R38).
    """
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    history = await store.keep(History(3))
    for bucket in (timedelta(days=3_000_000), timedelta.max):
        (one,) = await stats.throughput(bucket, since=T0)
        assert (one.start, one.end, one.total) == (
            T0,
            NOW,
            len(within(history.jobs, "created_at", since=T0, until=NOW)),
        )
    (one,) = await stats.throughput(timedelta(hours=2), since=last - timedelta(hours=1), until=last)
    assert one.end == last
    (one,) = await stats.throughput(until=first + timedelta(minutes=1))
    assert one.start == first


EVIL = "'; DROP TABLE structjob_jobs; -- \" %s :x {y}"


async def test_input_is_only_ever_bound(store, stats, reader):
    """No statement holds a word of what was asked for, whatever is in it (R38, R40)."""
    await store.keep(History(2))
    for name in ("operation", "job_type", "owner", "category", "project"):
        assert (
            await stats.operations(**{name: EVIL})
            == await stats.steps(**{name: EVIL})
            == await stats.projects(**{name: EVIL})
            == []
        )
        assert sum(one.total for one in await stats.throughput(**{name: EVIL})) == 0
    assert (await stats.volume(project=EVIL)).total == 0
    assert await stats.errors_by_job(operation=EVIL, project=EVIL, job=EVIL) == []
    assert await stats.events_by_job([EVIL]) == []
    with pytest.raises(JobNotFound):
        await reader.estimate(EVIL)
    assert len(store.sent) >= 20
    assert not any("DROP" in sent or "{y}" in sent for sent in store.sent)


# -- how they are found
# --------------------------------------------------------------------------


INDEXES = [
    (lambda s: s.operations(since=T0 + 5 * H, until=T0 + 6 * H), "jobs_by_time"),
    (
        lambda s: s.operations(operation="copy", since=T0 + 5 * H, until=T0 + 6 * H),
        "jobs_by_operation",
    ),
    (
        lambda s: s.projects(project="moon", since=T0 + 5 * H, until=T0 + 6 * H),
        "jobs_by_project",
    ),
    (lambda s: s.throughput(since=T0 + 5 * H, until=T0 + 6 * H), "jobs_by_time"),
    (lambda s: s.steps(since=T0 + 5 * H, until=T0 + 6 * H), "steps_by_time"),
    (lambda s: s.errors_by_job(since=T0 + 5 * H, until=T0 + 6 * H), "logs_by_level"),
    (lambda s: s.errors_by_job(since=T0 + 5 * H, until=T0 + 6 * H), "logs_by_job"),
    (lambda s: s.events_by_job(["job-0003"]), "logs_by_job"),
    (lambda s: events_of_large_jobs(s, "job-0003", "job-0004"), "logs_by_level"),
    (lambda s: s.volume(since=T0 + 5 * H, until=T0 + 6 * H), "logs_by_category"),
    (lambda s: s.volume(since=T0 + 5 * H, until=T0 + 6 * H), "logs_by_level"),
]
"""Queries, and the index that each uses."""


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_an_index_leads_to_the_rows(store, stats):
    """What a window costs does not grow with what lies outside it (R5, R38)."""
    await store.keep(History(1))
    for ask, index in INDEXES:
        await ask(stats)
        plan = await store.plan(store.asked[-1])
        assert f"structjob_{index}" in plan
        assert not re.search(r"SCAN structjob_(?!\w+ USING COVERING INDEX)", plan), plan


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_the_history_of_an_operation_is_found_by_its_index(store, reader):
    """The estimate looks back at a hundred jobs, not at all of them (R5, R38)."""
    await past(store, *[10.0] * 10)
    await running(store, 5)
    await reader.estimate("now")
    for statement in store.asked[-2:]:
        assert "structjob_jobs_by_operation" in await store.plan(statement)


# -- from a tracker
# --------------------------------------------------------------------------


async def test_a_program_reads_what_it_just_did(any_tracker):
    """`tracker.stats` delivers what is pending first; a job's CPU time and peak memory are recorded
    (R38, R42).
    """
    tracker = any_tracker
    for n in range(3):
        try:
            async with tracker.job("import", project="moon") as job, job.step("load"):
                sum(range(200_000))
                if n == 2:
                    raise ValueError("bad row")
        except ValueError:
            pass
    (found,) = await tracker.stats.operations(since=timedelta(minutes=5))
    assert (found.operation, found.total, found.completed, found.failed, found.attempts) == (
        "import",
        3,
        2,
        1,
        3,
    )
    assert found.success_rate == pytest.approx(200 / 3)
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    assert found.avg_cpu_ms > 0
    assert found.max_rss_kb > 1000
    (one,) = await tracker.stats.errors_by_job()
    assert one.status == structjob.JobStatus.FAILED
    assert (await tracker.stats.volume()).by_type["task"] > 0
    assert (await tracker.jobs.estimate(job.id)).samples == 2


@pytest.mark.parametrize("seed", range(2))
async def test_what_ended_in_a_window_is_what_counting_by_hand_says(store, stats, seed):
    """faults 26: by="ended" counts what ended in the window, whenever it was created, and nothing
    that still runs.
    """
    history = History(seed)
    for row, begun in (
        (row, row.get("created_at", row.get("started_at")))
        for row in (*history.jobs, *history.steps)
    ):
        ended = row["status"] not in ("pending", "running", "retrying")
        row["completed_at"] = begun + 3 * H if ended else None
    await store.keep(history)
    job = {one["id"]: one for one in history.jobs}
    rows = [{**step, "operation": job[step["job_id"]]["operation"]} for step in history.steps]
    for window in windows():
        ended = [row for row in history.jobs if row["completed_at"] is not None]
        expected = grouped(within(ended, "completed_at", **window), "operation")
        found = await stats.operations(by="ended", **window)
        assert {one.operation: plain(one, "operation") for one in found} == {
            name: job_summary(rows) for (name,), rows in expected.items()
        }
        assert all(one.running == one.pending == 0 for one in found)
        ended = [row for row in rows if row["completed_at"] is not None]
        got = {
            (one.operation, one.step): one.total for one in await stats.steps(by="ended", **window)
        }
        assert got == {
            key: len(rows)
            for key, rows in grouped(
                within(ended, "completed_at", **window), "operation", "name"
            ).items()
        }
    per_hour = await stats.throughput(H, by="ended", since=T0, until=T0 + 40 * H)
    assert sum(one.total for one in per_hour) == sum(
        row["completed_at"] is not None for row in history.jobs
    )
    assert [one.total for one in per_hour[:3]] == [0, 0, 0]
    with pytest.raises(InvalidFilter, match="by must be 'created' or 'ended', not 'started'"):
        await stats.operations(by="started")


async def test_a_job_that_failed_an_hour_ago_and_was_created_last_week_is_in_the_last_hour(tracker):
    """faults 26: a job belongs to the window in which it ended, whatever it ended as."""
    with pytest.raises(OSError, match="gone"):
        async with tracker.job("copy"):
            raise OSError("gone")
    job = await tracker.create_job("waits")
    await tracker.cancel(job.id)
    moment = datetime.now(UTC)
    assert {
        one.operation: one.total for one in await tracker.stats.operations(by="ended", since=H)
    } == {"copy": 1, "waits": 1}
    assert await tracker.stats.operations(by="ended", since=moment + H, until=moment + 2 * H) == []
