"""Errors: each counted once, in groups, with what was made of them; on every database."""

import asyncio
import contextlib
import logging
import random
from collections import Counter, defaultdict
from datetime import timedelta

import pytest
import structlog
from statistics_support import T0, Store

from structjob import ErrorFilter, install
from structjob.exceptions import ErrorGroupNotFound, InvalidArgument, InvalidFilter
from structjob.queries.errors import Errors
from structjob.queries.jobs import Jobs, lookups_of
from structjob.queries.statistics import Statistics
from structjob.store.tables import errors, logs

H = timedelta(hours=1)
NOW = T0 + 40 * H
log = structlog.get_logger()


@pytest.fixture
def store(database):
    return Store(database)


@pytest.fixture
def found(store):
    return Errors(store.fetch, store.flush, store.transact, now=lambda: NOW)


def occurrence(
    seq,
    fingerprint,
    ts,
    job_id=None,
    *,
    error_type="ValueError",
    message="bad",
    operation=None,
    step=None,
    **columns,
):
    return {
        "session_id": 1, "seq": seq, "ts": ts, "level": "error", "message": "step_error", "type": "system" if job_id is None else "task",
        "job_id": job_id, "operation": operation, "step": step, "fingerprint": fingerprint, "project": columns.get("project"),
        "attrs": {"error_type": error_type, "error_message": message, "exception": {"traceback": f"Traceback … {seq}"}},
    }  # fmt: skip


def history(seed):
    """Return occurrences of some errors, and events that are no errors."""
    chance = random.Random(seed)
    rows = []
    for seq in range(1, 300):
        moment = T0 + timedelta(
            seconds=chance.randint(0, 3600 * 20), microseconds=chance.choice((0, 1, 999_999))
        )
        job, project = chance.choice((None, "a", "b", "c")), chance.choice((None, "moon"))
        if chance.random() < 0.5:
            rows.append({**occurrence(seq, None, moment, job), "level": "info", "attrs": None})
            continue
        fingerprint = chance.choice(("f1", "f2", "f3"))
        where = {
            "operation": None if job is None else chance.choice(("copy", "verify")),
            "step": chance.choice((None, "load")),
        }
        kind = {"f1": "ValueError", "f2": "KeyError", "f3": chance.choice(("KeyError", "Timeout"))}[
            fingerprint
        ]
        rows.append(
            occurrence(
                seq,
                fingerprint,
                moment,
                job,
                error_type=kind,
                message=f"m{seq}",
                project=project,
                **where,
            )
        )
    return rows


def seen(rows, since=None, until=None, **equal):
    return [
        row
        for row in rows
        if row["fingerprint"] is not None
        and (since is None or row["ts"] >= since)
        and (until is None or row["ts"] < until)
        and all(row[name] == value for name, value in equal.items())
    ]


# -- groups
# --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
async def test_groups_are_what_counting_by_hand_says(store, found, seed):
    """Count, jobs touched, first and last seen of each error; the latest occurrence is its example
    (R39).
    """
    rows = history(seed)
    await store.add(logs, *rows)
    groups = await found.list()
    assert [group.last_seen for group in groups] == sorted(
        (group.last_seen for group in groups), reverse=True
    )
    assert {group.fingerprint for group in groups} == {"f1", "f2", "f3"}
    for group in groups:
        mine = seen(rows, fingerprint=group.fingerprint)
        last = max(mine, key=lambda row: (row["ts"], row["seq"]))
        assert (group.count, group.jobs) == (
            len(mine),
            len({row["job_id"] for row in mine} - {None}),
        )
        assert (group.first_seen, group.last_seen) == (min(row["ts"] for row in mine), last["ts"])
        assert (group.error.message, group.job_id, group.operation, group.step) == (
            last["attrs"]["error_message"], last["job_id"], last["operation"], last["step"],
        )  # fmt: skip
        assert (group.error.type, group.status) == (last["attrs"]["error_type"], "open")
        assert group.error.traceback == f"Traceback … {last['seq']}"


@pytest.mark.parametrize("seed", range(2))
async def test_errors_per_hour(store, seed):
    """Review 2, task 9: `stats.errors(bucket=…)` counts errors in each interval by type, also in
    intervals without errors.
    """
    rows = history(seed)
    await store.add(logs, *rows)
    stats = Statistics(store.fetch, store.flush)
    window = {"since": T0 - H, "until": T0 + 12 * H, "operation": ("copy", "verify")}
    found = await stats.errors(bucket=2 * H, **window)
    expected = defaultdict(Counter)
    for operation in window["operation"]:
        for row in seen(rows, **{**window, "operation": operation}):
            expected[(row["ts"] - window["since"]) // (2 * H)][row["attrs"]["error_type"]] += 1
    assert [one.counts for one in found] == [expected[number] for number in range(7)]
    assert [one.total for one in found] == [expected[number].total() for number in range(7)]
    assert (found[0].start, found[-1].start, found[-1].end) == (T0 - H, T0 + 11 * H, T0 + 12 * H)


async def test_errors_by_a_filter_object_and_several_values(any_tracker):
    """Review 1.6: errors have a filter like jobs and events, and several values of a field."""
    for operation in ("a", "b", "c"):
        with contextlib.suppress(ValueError):
            async with any_tracker.job(operation, project=operation.upper()):
                raise ValueError(operation)
    of_two = ErrorFilter(operation=("a", "b"))
    assert {group.operation for group in await any_tracker.errors.list(of_two)} == {"a", "b"}
    found = await any_tracker.errors.list(of_two, project=["B", "C"])
    assert [group.operation for group in found] == ["b"]
    assert {one.operation for one in await any_tracker.stats.errors(of_two)} == {"a", "b"}
    assert {one.operation for one in await any_tracker.stats.errors_by_job(of_two)} == {"a", "b"}
    several = {"project": ("A", "B")}
    assert {one.operation for one in await any_tracker.stats.operations(**several)} == {"a", "b"}
    assert (await any_tracker.stats.volume(**several)).total == 4
    assert len(await any_tracker.jobs.history(operation=("a", "b"), project=("B", "C"))) == 1
    with pytest.raises(InvalidFilter, match=r"errors\.list has both"):
        await any_tracker.stats.errors(outcome="final")
    with pytest.raises(InvalidFilter, match="unknown filter 'kind': use one of status, outcome"):
        await any_tracker.errors.list(kind="log")
    assert [job.status for job in await any_tracker.jobs.list(status="canceled")] == []


@pytest.mark.parametrize("seed", range(2))
async def test_errors_are_counted_by_type_step_and_operation(store, seed):
    """Errors by error_type × step × operation over a window (R39)."""
    rows = history(seed)
    await store.add(logs, *rows)
    stats = Statistics(store.fetch, store.flush)
    for window in [
        {},
        {"since": T0 + 5 * H, "until": T0 + 12 * H},
        {"operation": "copy"},
        {"step": "load", "since": T0 + H},
        {"project": "moon"},
    ]:
        expected = defaultdict(list)
        for row in seen(rows, **window):
            expected[row["attrs"]["error_type"], row["operation"], row["step"]].append(row)
        found = await stats.errors(**window)
        got = {
            (one.type, one.operation, one.step): (
                one.count,
                one.jobs,
                one.first_seen,
                one.last_seen,
            )
            for one in found
        }
        assert got == {
            key: (
                len(mine),
                len({row["job_id"] for row in mine} - {None}),
                min(row["ts"] for row in mine),
                max(row["ts"] for row in mine),
            )
            for key, mine in expected.items()
        }


async def test_a_type_that_is_no_text_is_none(store, found):
    """An error whose `error_type` is a number or null is counted under its level, wherever it is
    stored (R39).
    """
    kinds = ("timeout", "Timeout", "Timeout ", None, 5, True, {"a": 1}, "")
    await store.add(
        logs, *(occurrence(seq, "f1", T0, error_type=kind) for seq, kind in enumerate(kinds, 1))
    )
    await store.add(logs, occurrence(9, "f1", T0, "j", error_type="Timeout", operation="copy"))
    counted = [
        (one.type, one.operation, one.count)
        for one in await Statistics(store.fetch, store.flush).errors()
    ]
    assert counted == [
        ("error", None, 5), ("Timeout", None, 1), ("Timeout", "copy", 1), ("Timeout ", None, 1), ("timeout", None, 1),
    ]  # fmt: skip
    await store.add(logs, occurrence(10, "f2", T0, error_type=5))
    assert (await found.get("f2")).error.type == "error"


async def test_which_errors_are_listed(store, found):
    """By when, where and in which job an error was seen; its numbers are of all its occurrences
    (R39).
    """
    await store.add(
        logs,
        occurrence(1, "f1", T0, "a", operation="copy", step="load", project="moon"),
        occurrence(2, "f1", T0 + 5 * H, "b", operation="verify"),
        occurrence(3, "f2", T0 + 2 * H),
    )

    async def listed(**filters):
        groups = [(group.fingerprint, group.count) for group in await found.list(**filters)]
        if "limit" not in filters:
            assert await found.count(**filters) == len(groups)
        return groups

    assert await listed() == [("f1", 2), ("f2", 1)]
    assert await listed(limit=1) == [("f1", 2)]
    assert await listed(since=T0 + H, until=T0 + 3 * H) == [("f2", 1)]
    for filters in (
        {"operation": "copy"},
        {"step": "load"},
        {"job": "a"},
        {"project": "moon"},
        {"until": T0 + H},
        {"since": T0 + 5 * H},
    ):
        assert await listed(**filters) == [("f1", 2)]
    assert await listed(operation="nothing") == []
    assert await found.count(limit=1) == 2
    await found.resolve("f1", by="me")
    assert await listed(status="resolved") == [("f1", 2)]
    assert await listed(status=("open", "regressed")) == [("f2", 1)]


# -- resolved, and seen again
# --------------------------------------------------------------------------


async def test_an_error_is_resolved_and_seen_again(store, found):
    """Resolved until it occurs once more; then it has regressed, until it is resolved again or
    reopened (R39).
    """
    await store.add(logs, occurrence(1, "f1", NOW - H), occurrence(2, "f2", NOW - H))

    async def listed(status):
        return [group.fingerprint for group in await found.list(status=status)]

    group = await found.resolve("f1", by="ada")
    assert (group.status, group.resolved_at, group.resolved_by) == ("resolved", NOW, "ada")
    assert (await listed("open"), await listed("resolved"), await listed("regressed")) == (
        ["f2"],
        ["f1"],
        [],
    )
    await store.add(logs, occurrence(3, "f1", NOW + H))
    assert (await found.get("f1")).status == "regressed"
    assert (
        await listed("open"),
        await listed("resolved"),
        await listed(("regressed", "open")),
    ) == (["f2"], [], ["f1", "f2"])
    later = Errors(store.fetch, store.flush, store.transact, now=lambda: NOW + 2 * H)
    group = await later.resolve("f1")
    assert (group.status, group.count, group.resolved_by) == ("resolved", 2, None)
    group = await found.reopen("f1")
    assert (group.status, group.resolved_at) == ("open", None)


async def test_what_was_pruned_still_counts(store, found):
    """An error that was first seen before the oldest event that is kept says so (R39)."""
    await store.add(logs, occurrence(1, "f1", NOW))
    await store.add(
        errors,
        {
            "fingerprint": "f1",
            "error_type": "ValueError",
            "message": "bad",
            "pruned": 7,
            "first_seen": T0,
            "last_seen": T0 + H,
        },
    )
    group = await found.get("f1")
    assert (group.count, group.first_seen, group.last_seen, group.status) == (8, T0, NOW, "open")


async def test_an_error_that_regressed_does_not_look_resolved_once_that_was_pruned(store, found):
    """What is left of an error may be from before it was resolved: when it was seen last does not
    go back with it (R39, R41).
    """
    await store.add(logs, occurrence(1, "f1", T0), occurrence(2, "f2", T0 + 4 * H))
    pruned = {
        "error_type": "ValueError",
        "message": "bad",
        "pruned": 1,
        "first_seen": T0 + 5 * H,
        "last_seen": T0 + 5 * H,
    }
    await store.add(errors, {"fingerprint": "f1", "resolved_at": T0 + 2 * H, **pruned})
    group = await found.get("f1")
    assert (group.status, group.count, group.first_seen, group.last_seen) == (
        "regressed",
        2,
        T0,
        T0 + 5 * H,
    )
    assert [one.fingerprint for one in await found.list()] == ["f1", "f2"]
    assert [one.fingerprint for one in await found.list(status="regressed")] == ["f1"]
    assert await found.list(status="resolved") == []


async def test_the_beginning_of_a_fingerprint_will_do(store, found):
    """As a person types it; several that begin so are told (R39)."""
    await store.add(
        logs, occurrence(1, "abc1", T0), occurrence(2, "abd2", T0), occurrence(3, "ab", T0 - H)
    )
    assert (await found.get("abc")).fingerprint == "abc1"
    assert (await found.get("ab")).fingerprint == "ab"
    with pytest.raises(
        InvalidArgument, match=r"'a' begins several fingerprints: abc1 \(ValueError\), abd2"
    ):
        await found.resolve("a")
    for nothing in ("abcd", "", "ABC1", "%", "'; DROP TABLE structjob_errors; --", "a\0"):
        with pytest.raises(ErrorGroupNotFound):
            await found.get(nothing)
    assert not any("DROP" in sent for sent in store.sent)

    async def completions(prefix, limit=50):
        lookups = lookups_of(Jobs(store.fetch, store.flush))
        return [group.fingerprint for group in await lookups.errors(prefix, limit=limit)]

    assert await completions("ab") == ["abc1", "abd2", "ab"]
    assert await completions("abd2") == ["abd2"]
    assert await completions("", limit=1) == ["abc1"]
    assert await completions("%") == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (
            lambda e: e.list(status="gone"),
            InvalidFilter,
            "unknown status 'gone': use one of open, resolved, regressed",
        ),
        (lambda e: e.list(since=NOW, until=T0), InvalidFilter, "is after until"),
        (lambda e: e.list(limit=0), InvalidFilter, "limit must be"),
        (lambda e: e.list(operation=7), InvalidFilter, "operation must be a string"),
        (lambda e: e.get(7), InvalidArgument, "a fingerprint is a string, not int"),
        (
            lambda e: e.resolve("f1", by="a" * 129),
            InvalidArgument,
            "by must be text of 1 to 128 characters",
        ),
    ],
)
async def test_bad_input_is_told(store, found, ask, error, says):
    """An error that names the thing, before anything is asked of the database (R39)."""
    with pytest.raises(error, match=says):
        await ask(found)
    assert store.asked == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_occurrences_are_found_by_their_index(store, found):
    """What errors cost grows with the errors, not with the events (R5, R39)."""
    await store.add(logs, occurrence(1, "f1", T0))
    await found.list(since=T0, operation="copy")
    await found.get("f")
    await Statistics(store.fetch, store.flush).errors(since=T0, until=NOW)
    for statement in store.asked:
        plan = await store.plan(statement)
        assert "structjob_logs_by_fingerprint" in plan
        assert "structjob_logs_by_time" not in plan
        assert (
            "SCAN structjob_logs USING INDEX structjob_logs_by_fingerprint" in plan
            or "SCAN structjob_logs" not in plan
        ), plan


# -- what is an occurrence
# --------------------------------------------------------------------------


async def only(tracker):
    (group,) = await tracker.errors.list()
    return group


async def test_an_exception_that_passes_through_is_one_occurrence(any_tracker):
    """An exception that is logged and passes through two steps, a child job and its parent counts
    once, at its first report (R39).
    """
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            async with (
                any_tracker.job("nightly") as job,
                job.step("outer"),
                job.child("part") as child,
                child.step("load"),
            ):
                try:
                    raise ValueError("bad")
                except ValueError:
                    log.exception("it is bad")
                    raise
    group = await only(any_tracker)
    assert (group.count, group.jobs, group.operation, group.step, group.job_id) == (
        2,
        2,
        "part",
        "load",
        child.id,
    )
    assert [
        event.message for event in await any_tracker.logs.list(fingerprint=group.fingerprint)
    ] == ["it is bad"] * 2
    (one,) = await any_tracker.stats.errors()
    assert (one.type, one.operation, one.step, one.count, one.jobs) == (
        "ValueError",
        "part",
        "load",
        2,
        2,
    )


async def test_what_is_not_recorded_is_no_occurrence(tracker):
    """An exception that was first logged below the database's level is counted where it fails the
    step (R39).
    """
    with pytest.raises(ValueError, match="bad"):
        async with tracker.job("nightly") as job, job.step("load"):
            try:
                raise ValueError("bad")
            except ValueError:
                log.debug("it is bad", exc_info=True)
                raise
    group = await only(tracker)
    (event,) = await tracker.logs.list(fingerprint=group.fingerprint)
    assert (group.count, event.kind) == (1, "step_error")


async def test_another_exception_is_another_occurrence(tracker):
    """A job that fails by something else than its step did has two errors (R39)."""
    with pytest.raises(KeyError):
        async with tracker.job("nightly") as job:
            try:
                async with job.step("load"):
                    raise ValueError("bad")
            except ValueError:
                raise KeyError("worse") from None
    groups = await tracker.errors.list()
    assert {(group.error.type, group.step, group.count) for group in groups} == {
        ("ValueError", "load", 1),
        ("KeyError", None, 1),
    }


async def test_one_exception_that_fails_several_jobs_is_an_occurrence_in_each(tracker):
    """Ten jobs that wait for one task all fail by the one exception it raised (R39)."""

    async def connect():
        raise OSError("refused")

    async def work(connection):
        async with tracker.job("import"):
            await connection

    connection = asyncio.ensure_future(connect())
    await asyncio.gather(*(work(connection) for _ in range(10)), return_exceptions=True)
    group = await only(tracker)
    assert (group.count, group.jobs) == (10, 10)


async def test_an_exception_that_failed_a_job_and_is_logged_outside_it_is_one_occurrence(
    any_tracker,
):
    """A server logs what its request raised, after the request's job has failed of it: that is the
    same occurrence, in the job.
    """
    with pytest.raises(ValueError, match="bad number") as caught:
        async with any_tracker.job("order") as job:
            raise ValueError("bad number")
    log.error("request failed", exc_info=caught.value)
    (error,) = await any_tracker.errors.list()
    assert (error.count, error.jobs, error.operation) == (1, 1, "order")
    (event,) = await any_tracker.logs.list(fingerprint=error.fingerprint)
    assert event.job_id == job.id


async def test_an_error_outside_any_job_is_one(tracker):
    """What the program itself logs with an exception is grouped, too; what it calls a fingerprint
    stays an attribute (R35, R39).
    """
    for n in range(2):
        try:
            raise OSError(f"disk {n} is full")
        except OSError:
            log.exception("no room", fingerprint="SHA256:abc")
    log.warning("no exception")
    group = await only(tracker)
    assert (group.count, group.jobs, group.operation, group.error.message) == (
        2,
        0,
        None,
        "disk 1 is full",
    )
    (first, _) = await tracker.logs.list(fingerprint=group.fingerprint)
    assert first.attrs["fingerprint"] == "SHA256:abc"


async def test_errors_are_grouped_by_hand(tracker):
    """`error_fingerprint` says which error an event is an occurrence of, with or without an
    exception (R39).
    """
    log.error("disk is full", disk="a", error_fingerprint="disk-full")
    log.error("no room left", disk="b", error_fingerprint="disk-full", error_type="NoRoom")
    group = await only(tracker)
    assert (group.fingerprint, group.error.type, group.error.message, group.count) == (
        "disk-full",
        "NoRoom",
        "no room left",
        2,
    )


async def test_a_hostile_exception_is_an_occurrence(tracker):
    """One that refuses attributes, or to be looked at, fails its job as any other, and is counted
    (R9, R39).
    """

    class Frozen(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    class Closed(Exception):
        @property
        def __dict__(self):
            raise RuntimeError("no")

    for kind in (Frozen, Closed):
        with pytest.raises(kind):
            async with tracker.job("nightly"):
                raise kind("bad")
    assert {group.error.type.rpartition(".")[2] for group in await tracker.errors.list()} == {
        "Frozen",
        "Closed",
    }


# -- errors without an exception, and what became of their jobs
# --------------------------------------------------------------------------


async def test_errors_that_are_logged_without_an_exception_are_grouped(any_tracker):
    """faults 25: by logger, by the message before its arguments are filled in, and by the type that
    the call gives.
    """
    app, other = structlog.get_logger("app"), structlog.get_logger("other")
    async with any_tracker.job("copy"):
        app.error("no route to %s", "alpha")
        app.error("no route to %s", "beta")
        logging.getLogger("app").error("no route to %s", "gamma")
        other.error("no route to %s", "alpha")
        app.error("disk full", error_type="DiskFull")
        app.error("disk full", error_type="Quota")
        app.critical({"code": 7})
        app.warning("no error", error_type="Quota")
    groups = await any_tracker.errors.list()
    assert sorted((group.error.type, group.count) for group in groups) == [
        ("DiskFull", 1), ("Quota", 1), ("critical", 1), ("error", 1), ("error", 3),
    ]  # fmt: skip
    assert {(one.type, one.count) for one in await any_tracker.stats.errors()} == {
        ("DiskFull", 1), ("Quota", 1), ("critical", 1), ("error", 4),
    }  # fmt: skip


async def test_an_exception_is_counted_once_beside_errors_without_one(tracker):
    """faults 25: what carries an exception is grouped by it, and once, whatever is logged on its
    way.
    """
    with pytest.raises(OSError, match="full"):
        async with tracker.job("copy"):
            try:
                raise OSError("full")
            except OSError:
                log.exception("cannot write")
                log.error("cannot write", exc_info=True)
                raise
    (group,) = await tracker.errors.list()
    assert (group.error.type, group.count, group.outcome) == ("OSError", 1, "final")


async def test_a_setup_of_ones_own_has_the_same_groups(tracker):
    """faults 25: through `install`, too, the message counts as it was before its arguments were
    filled in.
    """
    structlog.configure(
        processors=[structlog.stdlib.PositionalArgumentsFormatter(), structlog.processors.JSONRenderer()],
        wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.ReturnLoggerFactory(),
    )  # fmt: skip
    install()
    for host in ("alpha", "beta"):
        structlog.get_logger().error("no route to %s", host)
    (group,) = await tracker.errors.list()
    assert (group.count, group.error.message) == (2, "no route to beta")


async def test_a_job_that_is_ended_as_failed_is_in_the_error_reports(any_tracker):
    """faults 25: a failure without an error is in the error reports, too."""
    job = await any_tracker.create_job("copy")
    await job.start()
    await job.end("failed")
    (group,) = await any_tracker.errors.list(outcome="final")
    assert (group.error.type, group.operation, group.job_id, group.outcome) == (
        "Failed",
        "copy",
        job.id,
        "final",
    )


async def test_errors_that_a_retry_overcame_are_told_from_those_that_ended_a_job(any_tracker):
    """faults 25: outcome of a step's retries, of a job's, of what is caught, of what is only
    logged; `outcome="final"` finds the others.
    """

    async def attempt(operation, fails, error, where="step"):
        left = [fails]

        def work():
            left[0] -= 1
            if left[0] >= 0:
                raise error("broken")

        with contextlib.suppress(error):
            if where == "step":
                async with any_tracker.job(operation) as job:
                    async for step in job.retrying("load", max_attempts=2, delay=0):
                        async with step:
                            work()
            else:
                async for job in any_tracker.retrying(operation, max_attempts=2, delay=0):
                    async with job:
                        work()

    await attempt("steps-recover", 1, TimeoutError)
    await attempt("steps-fail", 2, ConnectionError)
    await attempt("job-recovers", 1, InterruptedError, "job")
    await attempt("job-fails", 2, BlockingIOError, "job")
    async with any_tracker.job("caught") as job:
        with contextlib.suppress(KeyError):
            async with job.step("read"):
                raise KeyError("k")
        log.error("one row is bad", error_type="BadRow")
    with contextlib.suppress(ValueError):
        async with any_tracker.job("fails"):
            log.error("a row is bad", error_type="OtherRow")
            raise ValueError("no file")
    log.error("no job here", error_type="Nowhere")
    async with any_tracker.job("runs"):
        log.error("still running", error_type="Running")
        found = {group.error.type: group for group in await any_tracker.errors.list()}
        assert {name: group.outcome for name, group in found.items()} == {
            "TimeoutError": "recovered", "ConnectionError": "final", "InterruptedError": "recovered", "BlockingIOError": "final",
            "KeyError": "recovered", "BadRow": "recovered", "OtherRow": "recovered", "ValueError": "final",
            "Nowhere": None, "Running": None,
        }  # fmt: skip
        finals = {
            group.error.type
            for group in await any_tracker.errors.list(outcome="final", since=timedelta(hours=1))
        }
        assert finals == {"ConnectionError", "BlockingIOError", "ValueError"}
    with pytest.raises(InvalidFilter, match="use one of final, recovered"):
        await any_tracker.errors.list(outcome="ended")


async def test_the_sample_of_an_error_is_one_that_ended_a_job(any_tracker):
    """faults 25: an error on the hosts sftp-1 and sftp-3 is one; what is shown is where it ended a
    job, not its latest occurrence.
    """

    async def fetch(host, caught):
        with contextlib.suppress(ConnectionError):
            async with any_tracker.job("fetch", external_job_id=host) as job:
                with contextlib.suppress(ConnectionError) if caught else contextlib.nullcontext():
                    async with job.step("connect"):
                        raise ConnectionError(f"{host}.example.org refused")

    await fetch("sftp-1", caught=False)
    await fetch("sftp-3", caught=True)
    (group,) = await any_tracker.errors.list()
    assert (group.count, group.outcome, group.error.message) == (
        2,
        "final",
        "sftp-1.example.org refused",
    )
    assert group.job_id == (await any_tracker.jobs.find("sftp-1")).id
    assert group.last_seen == (await any_tracker.logs.list(fingerprint=group.fingerprint))[-1].ts


async def test_only_the_innermost_step_reports_the_traceback(tracker):
    """An exception that leaves a hundred steps is not written a hundred times; each step's row has
    it.
    """
    with pytest.raises(ValueError, match="deep"):
        async with tracker.job("deep") as job:
            async with job.step("outer"), job.step("middle"), job.step("inner"):
                raise ValueError("deep")
    found = await tracker.logs.list(job=job, kind="step_error")
    assert [(one.step, "exception" in one.attrs) for one in found] == [
        ("inner", True),
        ("middle", False),
        ("outer", False),
    ]
    assert {one.attrs["error_message"] for one in found} == {"deep"}
    assert all("deep" in step.error.traceback for step in await tracker.jobs.steps(job))
