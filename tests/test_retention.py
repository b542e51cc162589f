"""Retention: what is old enough goes, in its order, and what is left can be proved
complete (R41).
"""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from database_support import inserted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retention_support import age, age_job, log, rows_of, work
from sqlalchemy import create_engine, func, select

import structjob
from structjob import InvalidArgument, PruneInProgress, PruneResult, Retention
from structjob.retention import finding, pace, removal
from structjob.retention.due import Due
from structjob.retention.policy import retention_of
from structjob.retention.prune import LOCK
from structjob.store.gaps import DEAD_LETTERED, PRUNED, TAKEN, put_down
from structjob.store.locks import Lock
from structjob.store.tables import cancellations, dead_letters, gaps, jobs, locks, logs, sessions


@pytest.fixture
def tracker(any_tracker):
    return any_tracker


async def ids(tracker):
    return {job.id for job in await tracker.jobs.list(limit=1000)}


def counted(pruned):
    return {
        name: getattr(pruned, name)
        for name in ("events", "jobs", "attempts", "steps", "dead_letters", "sessions")
    }


async def test_old_jobs_go_with_all_that_belongs_to_them(tracker, database):
    """A job that is old enough goes with its attempts, steps and events; one that is not stays
    whole, and so do its figures (R41).
    """
    old = await work(tracker, lines=5)
    log.info("by itself")
    await tracker.flush()
    await age(database, 40)
    new = await work(tracker, lines=2)
    before = await tracker.stats.operations(since=timedelta(days=1))
    kept = [event async for event in tracker.logs.iterate(job_id=new)]
    pruned = await tracker.prune(Retention(days=30))
    assert counted(pruned) == {
        "events": 10,
        "jobs": 1,
        "attempts": 1,
        "steps": 1,
        "dead_letters": 0,
        "sessions": 0,
    }
    assert await ids(tracker) == {new}
    assert [event async for event in tracker.logs.iterate(job_id=new)] == kept
    assert pruned.oldest == kept[0].ts
    assert await tracker.stats.operations(since=timedelta(days=1)) == before
    assert (await rows_of(database))["steps"] == 1
    with pytest.raises(structjob.JobNotFound):
        await tracker.jobs.get(old)
    assert not await tracker.prune(timedelta(days=30))


async def test_a_dry_run_counts_exactly_what_goes(tracker, database):
    """What a dry run says is what is deleted then, whatever rules overlap; it changes nothing
    itself (R41).
    """
    await work(tracker, fail=True, lines=4, children=2)
    await work(tracker, lines=7)
    log.warning("by itself")
    log.info("by itself")
    await tracker.flush()
    await age(database, 40)
    await work(tracker, fail=True)
    await tracker.flush()
    await age(database, 3)
    retention = Retention(days=30, levels={"info": 2, "warning": None}, statuses={"failed": 365})
    before = await rows_of(database)
    foreseen = await tracker.prune(retention, dry_run=True)
    assert await rows_of(database) == before
    done = await tracker.prune(retention)
    assert foreseen.dry_run
    assert not done.dry_run
    assert counted(foreseen) == counted(done)
    after = await rows_of(database)
    assert {name: before[name] - after[name] for name in ("jobs", "attempts", "steps")} == {
        "jobs": 1,
        "attempts": 1,
        "steps": 1,
    }
    assert done.events == before["logs"] - after["logs"] > 10
    (left,) = await tracker.logs.list(type="system")
    assert left.level == "warning"
    assert (await tracker.verify()).ok


async def test_what_has_not_ended_never_goes(tracker, database):
    """A job that is pending or running stays with its events, however old it is; only a rule for a
    level takes lines from it (R41).
    """
    pending = await tracker.create_job("later")
    async with tracker.job("now") as running:
        async with running.step("long"):
            log.info("an old line")
            log.warning("an old warning")
            async with running.child("part"):
                pass
            await tracker.flush()
            await age(database, 400)
            # the part, above which nothing is that has ended
            assert (await tracker.prune(timedelta(days=0))).jobs == 1
            assert await ids(tracker) == {pending.id, running.id}
            assert {"an old line", "an old warning"} <= {
                event.message async for event in tracker.logs.iterate(job_id=running.id)
            }
            assert (await tracker.prune(Retention(levels={"warning": 1}))).events == 1
            assert len(await tracker.jobs.steps(running.id)) == 1
    assert (await tracker.jobs.get(running.id)).status == "completed"
    assert (await tracker.verify()).ok


async def test_a_family_goes_as_a_whole(tracker, database):
    """A parent waits for its children's time and they for its; each by the age of its own status
    (R41).
    """
    async with tracker.job("parent") as parent:
        async with parent.child("first") as first:
            async with first.child("deep") as deep:
                pass
        async with parent.child("second") as second:
            log.info("in the second")
    await tracker.flush()
    family = {parent.id, first.id, deep.id, second.id}
    for one in (parent, first, second):
        await age_job(database, one.id, 40)
    assert not await tracker.prune(timedelta(days=30))
    assert await ids(tracker) == family
    await age_job(database, deep.id, 40)
    assert not await tracker.prune(Retention(days=30, statuses={"completed": 50}))
    assert (await tracker.prune(timedelta(days=30))).jobs == 4
    assert await ids(tracker) == set()
    assert (await tracker.verify()).ok


async def test_what_ended_keeps_all_below_it(tracker, database):
    """A job waits for whatever above it has ended, though what is between them still runs (R41)."""
    async with tracker.job("parent") as parent:
        pass
    async with tracker.job("between", parent=parent.id) as between:
        async with between.child("old") as old:
            pass
        await tracker.flush()
        await age_job(database, old.id, 40)
        assert not await tracker.prune(timedelta(days=30))
        assert await ids(tracker) == {parent.id, between.id, old.id}
        await age_job(database, parent.id, 40)
        assert not await tracker.prune(timedelta(days=30))  # which would be of the parent's family
    await tracker.flush()
    await age_job(database, between.id, 40)
    assert (await tracker.prune(timedelta(days=30))).jobs == 3


async def test_jobs_that_are_each_others_parents_end_no_prune(tracker, database):
    """Jobs that are each other's parents, one of which never began, stay, and do not stop the prune
    (R41).
    """
    await tracker.create_job("later", job_id="a", parent="b")
    async with tracker.job("now", job_id="b", parent="a"):
        log.info("in a circle")
    other = await work(tracker)
    await tracker.flush()
    await age(database, 2)
    async with asyncio.timeout(30):
        assert (await tracker.prune(timedelta(days=1), dry_run=True)).jobs == 1
        assert (await tracker.prune(timedelta(days=1))).jobs == 1
    assert await ids(tracker) == {"a", "b"}
    assert other not in await ids(tracker)


async def test_a_failed_parent_keeps_its_children(tracker, database):
    """What failed is kept with everything below it: that is what one looks at (R41)."""
    parent = await work(tracker, fail=True, children=2)
    await tracker.flush()
    await age(database, 40)
    assert not await tracker.prune(Retention(days=30, statuses={"failed": None}))
    assert len((await tracker.jobs.tree(parent)).children) == 2


async def test_a_family_of_any_size(tracker, database, monkeypatch):
    """A family that is larger than a page, and deeper than a few, goes in steps, children first
    (R41).
    """
    monkeypatch.setattr(finding, "PAGE", 4)
    monkeypatch.setattr(pace, "LEAST", 3)
    async with tracker.job("root") as root:
        for _ in range(6):
            async with root.child("child") as child, child.child("grandchild") as grandchild:
                log.info("deep", of=grandchild.id)
    await tracker.flush()
    await age(database, 2)
    foreseen = await tracker.prune(timedelta(days=1), dry_run=True)
    done = await tracker.prune(timedelta(days=1))
    assert (counted(done), done.jobs) == (counted(foreseen), 13)
    assert (await rows_of(database))["logs"] == 0


async def test_levels_and_statuses_have_ages_of_their_own(tracker, database):
    """A level's age takes its lines while their job stays; a status's age is that of such jobs
    (R41).
    """
    good, bad = await work(tracker), await work(tracker, fail=True)
    log.error("by itself")
    await tracker.flush()
    await age(database, 10)
    pruned = await tracker.prune(
        Retention(
            days=5, levels={"info": 2, "error": None}, statuses={"failed": timedelta(days=20)}
        )
    )
    assert await ids(tracker) == {bad}
    levels = {event.level async for event in tracker.logs.iterate(job_id=bad)}
    assert levels == {"error"}
    assert [event.message for event in await tracker.logs.list(type="system")] == ["by itself"]
    assert (pruned.jobs, good in await ids(tracker)) == (1, False)
    assert (await tracker.verify()).ok


async def test_the_numbers_of_what_is_gone_are_explained(tracker, database):
    """`verify` says complete, and how much was pruned; the explanation does not grow by the event
    (R41, R28).
    """
    for number in range(300):
        (log.info if number % 3 else log.warning)("line", number=number)
    await tracker.flush()
    await age(database, 10)
    log.info("young")
    await tracker.prune(Retention(levels={"warning": 1}))
    (session,) = [
        one for one in (await tracker.verify()).sessions if one.session_id == tracker.session_id
    ]
    assert (session.explained, session.pruned, session.holes) == (100, 100, ())
    assert (await rows_of(database))["gaps"] == 100  # one for each run: every third line is gone
    await tracker.prune(Retention(days=1))
    assert (await rows_of(database))["gaps"] == 1
    verified = await tracker.verify()
    assert verified.ok
    assert await database.rows("SELECT first_seq, last_seq, reason FROM structjob_gaps") == [
        (1, 300, "pruned")
    ]
    (event,) = await tracker.logs.list()
    with pytest.raises(structjob.EventNotFound, match="pruned"):
        await tracker.logs.around((event.session_id, 17))


numbers_of_sessions = st.dictionaries(
    st.integers(1, 4), st.sets(st.integers(1, 12), min_size=1), min_size=1
)


@pytest.fixture
def rows_of_gaps():
    """A connection to a database with the table, whose content is not kept."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        gaps.create(connection)
        connection.commit()
        yield connection
    engine.dispose()


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(numbers_of_sessions, min_size=1, max_size=4),
    numbers_of_sessions,
    st.sampled_from(["in_flight", DEAD_LETTERED]),
)
def test_pruned_numbers_are_kept_as_few_ranges(rows_of_gaps, batches, others, reason):
    """faults H: whatever is pruned of whichever sessions, in any order, each number is explained,
    no other is, and ranges that touch are one, though some numbers were explained by another reason
    before.
    """
    connection = rows_of_gaps
    gone: set[tuple[int, int]] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("structjob.store.gaps._SESSIONS_AT_ONCE", 2)
        connection.rollback()
        before = {
            (session, first, min(first + 1, 12))
            for session, several in others.items()
            for first in several
            if first % 3 == 1
        }
        columns = ("session_id", "first_seq", "last_seq")
        for row in before:
            connection.execute(
                gaps.insert().values(**dict(zip(columns, row, strict=True)), reason=reason)
            )
        for batch in batches:
            new = {(session, seq) for session, several in batch.items() for seq in several} - gone
            put_down(connection, new)
            gone |= new
        pruned = (
            select(*(gaps.c[name] for name in columns))
            .where(gaps.c.reason == PRUNED)
            .order_by(gaps.c.session_id, gaps.c.first_seq)
        )
        ranges = [tuple(row) for row in connection.execute(pruned)]
        rest = {
            tuple(row)
            for row in connection.execute(
                select(*(gaps.c[name] for name in columns)).where(gaps.c.reason != PRUNED)
            )
        }
        taken = connection.scalar(select(func.coalesce(func.sum(TAKEN), 0)))
    assert rest == before
    by_us, by_others = (
        [(session, seq) for session, first, last in some for seq in range(first, last + 1)]
        for some in (ranges, before)
    )
    assert gone - set(by_others) <= set(by_us) <= gone | set(by_others)
    assert all(first <= last for _, first, last in ranges)
    assert all(one[0] != other[0] or one[2] + 1 < other[1] for one, other in pairwise(ranges))
    assert taken == len(by_us) + (len(by_others) if reason == DEAD_LETTERED else 0)


@pytest.mark.parametrize(
    ("before", "gone", "after"),
    [
        ([(1, 5, 5, "queue_full")], [(1, 5)], [(1, 5, 5, "queue_full")]),
        ([(1, 5, 6, "queue_full")], [(1, 5), (1, 6)], [(1, 5, 6, "queue_full")]),
        ([(1, 3, 4, "queue_full")], [(1, 5)], [(1, 3, 4, "queue_full"), (1, 5, 5, PRUNED)]),
        ([], [(1, 5), (1, 3)], [(1, 3, 3, PRUNED), (1, 5, 5, PRUNED)]),
        ([(1, 4, 4, PRUNED), (2, 4, 4, PRUNED)], [(1, 5)], [(1, 4, 5, PRUNED), (2, 4, 4, PRUNED)]),
        (
            [(1, 2, 2, PRUNED), (2, 2, 2, PRUNED), (2, 6, 6, "queue_full")],
            [(1, 3), (1, 4), (1, 5), (2, 7)],
            [(1, 2, 5, PRUNED), (2, 2, 2, PRUNED), (2, 6, 6, "queue_full"), (2, 7, 7, PRUNED)],
        ),
    ],
    ids=["explained", "both explained", "before", "apart", "of another session", "of two sessions"],
)
def test_pruned_numbers_join_ranges_of_their_own_session(rows_of_gaps, before, gone, after):
    """faults H: what was explained otherwise stays, and what another session gave up is its own."""
    columns = ("session_id", "first_seq", "last_seq", "reason")
    for row in before:
        rows_of_gaps.execute(gaps.insert().values(**dict(zip(columns, row, strict=True))))
    put_down(rows_of_gaps, gone)
    found = select(*(gaps.c[name] for name in columns)).order_by(*gaps.primary_key)
    assert [tuple(row) for row in rows_of_gaps.execute(found)] == after


async def test_numbers_that_were_explained_before_they_came(tracker, database):
    """A session taken for dead twice has explanations side by side for events that came after all:
    they can be pruned (R41, R37).
    """
    for _ in range(10):
        log.info("line")
    await tracker.flush()
    mine = tracker.session_id
    ranges = [(1, 1), (2, 4), (5, 6)]
    rows = (
        {"session_id": mine, "first_seq": first, "last_seq": last, "reason": "in_flight"}
        for first, last in ranges
    )
    await database.add(gaps, *rows)
    await age(database, 10)
    assert (await tracker.prune(timedelta(days=1))).events == 10
    assert await database.rows(
        "SELECT first_seq, last_seq FROM structjob_gaps ORDER BY first_seq"
    ) == [*ranges, (7, 10)]
    assert (await tracker.verify()).missing == 0


async def test_errors_keep_their_history(tracker, database):
    """An error's count and first occurrence outlast its events, pruned at once or bit by bit (R41,
    R39).
    """
    for _ in range(4):
        await work(tracker, fail=True)
    (before,) = await tracker.errors.list()
    await age(database, 10)
    for _ in range(2):
        await work(tracker, fail=True)
    await tracker.prune(Retention(days=5))
    (after,) = await tracker.errors.list()
    assert (after.count, after.jobs) == (6, 2)
    assert after.first_seen == before.first_seen - timedelta(days=10)
    await age(database, 10)
    await tracker.prune(timedelta(days=5))
    assert await tracker.errors.list() == []
    await work(tracker, fail=True)
    (again,) = await tracker.errors.list()
    assert (again.count, again.fingerprint, again.error.type) == (
        7,
        before.fingerprint,
        "ValueError",
    )
    assert again.first_seen == before.first_seen - timedelta(days=10)
    ((kind, said),) = await database.rows("SELECT error_type, message FROM structjob_errors")
    assert (kind, said) == ("ValueError", "the source is empty")


@pytest.mark.parametrize(("ended", "archived"), [(False, False), (True, False), (True, True)])
async def test_a_job_that_begins_again_stays(tracker, database, tmp_path, ended, archived):
    """A job whose next attempt begins, or ends even, while it is about to be deleted stays, with
    its events, also if they are archived already (R41).
    """
    async with tracker.job("again", job_id="again"):
        log.info("first attempt")
    await tracker.flush()
    await age(database, 10)
    again = tracker.job("again", job_id="again")
    original, begun = tracker._store.transact, []

    async def transact(call):
        if (await rows_of(database))["locks"] and not begun:
            begun.append(True)
            await again.__aenter__()
            if ended:
                await again.__aexit__(None, None, None)
                await tracker.flush()
        return await original(call)

    tracker._store.transact = transact
    await tracker.prune(Retention(days=5, archive=tmp_path / "archive" if archived else None))
    tracker._store.transact = original
    assert begun
    if not ended:
        await again.__aexit__(None, None, None)
    assert len(await tracker.jobs.history("again")) == 2
    assert "first attempt" in {
        event.message async for event in tracker.logs.iterate(job_id="again")
    }


async def test_an_event_that_comes_late_is_not_left_alone(tracker, database, monkeypatch):
    """A job to which an event was delivered while its others were deleted goes with the next prune;
    no event is without its job (R41).
    """
    await work(tracker)
    await tracker.flush()
    await age(database, 10)
    original = removal.remove_jobs

    def late(connection, plans):
        (job_id,) = plans
        values = {
            "session_id": tracker.session_id,
            "seq": 8,
            "ts": datetime(2020, 1, 1, tzinfo=UTC),
            "level": "info",
            "type": "job",
        }
        event = values | {"message": "late", "job_id": job_id}
        connection.execute(*inserted(connection, event))
        return original(connection, plans)

    with monkeypatch.context() as patch:
        patch.setattr(removal, "remove_jobs", late)
        assert (await tracker.prune(timedelta(days=5))).jobs == 0
    assert (await tracker.verify()).ok
    rest = await tracker.prune(timedelta(days=5))
    assert (rest.jobs, rest.events) == (1, 1)
    assert await ids(tracker) == set()


async def test_late_events_of_pruned_jobs_go_by_their_time(tracker, database, monkeypatch):
    """An event that was delivered after its job was pruned is one without a job, and goes as such
    (R41).
    """
    monkeypatch.setattr(finding, "_NARROW", 1)
    gone = await work(tracker)
    for _ in range(2):
        await work(tracker, fail=True)
    await tracker.flush()
    await age(database, 10)
    await database.execute(f"DELETE FROM structjob_jobs WHERE id = '{gone}'")
    retention = Retention(days=5, statuses={"failed": None})
    assert (await tracker.prune(retention, dry_run=True)).events == 7
    assert (await tracker.prune(retention)).events == 7
    assert gone not in {event.job_id async for event in tracker.logs.iterate()}
    assert len(await ids(tracker)) == 2


async def test_sessions_and_dead_letters_go_too(tracker, database, tmp_path):
    """A session goes when all of it was pruned and nothing was lost; one that lost events stays as
    the proof (R41).
    """
    for lossy in (False, True):
        async with structjob.Tracker(database.url, spool=tmp_path / f"other-{lossy}") as other:
            async with other.job("elsewhere"):
                log.info("there")
        if lossy:
            lost = other.ledger().accepted + 1
            await database.add(
                gaps,
                {
                    "session_id": other.session_id,
                    "first_seq": lost,
                    "last_seq": lost,
                    "reason": "queue_full",
                },
            )
        else:
            whole = other.session_id
    await database.execute(
        "INSERT INTO structjob_dead_letters (session_id, seq, reason, ts) VALUES (1, 1, 'refused', '2020-01-01 00:00:00')"
    )
    await age(database, 40)
    first = await tracker.prune(timedelta(days=30))
    assert (first.jobs, first.dead_letters, first.sessions) == (2, 1, 0)
    foreseen = await tracker.prune(timedelta(days=30), dry_run=True)
    assert (await tracker.prune(timedelta(days=30))).sessions == foreseen.sessions == 1
    left = {session.session_id for session in await tracker.sessions.list()}
    assert whole not in left
    assert len(left) == 2
    assert (await tracker.verify()).ok


OLD, RECENT = (datetime.now(UTC).replace(microsecond=0) - timedelta(days=days) for days in (40, 20))
KEPT_FOR = Retention(days=30, levels={"error": None}, statuses={"failed": None})


async def ended_session(database, number, *pruned, last_seq=3, ended_at=OLD):
    """Insert a session that has ended, with the ranges of its numbers that were *pruned*."""
    row = {
        "session_id": number,
        "host": "h",
        "pid": 1,
        "started_at": OLD,
        "ended_at": ended_at,
        "last_seq": last_seq,
    }
    await database.add(sessions, row)
    await database.add(
        gaps,
        *(
            {"session_id": number, "first_seq": first, "last_seq": last, "reason": "pruned"}
            for first, last in pruned
        ),
    )


async def test_a_session_is_pruned_only_if_every_number_of_it_was_pruned(tracker, database):
    """faults H: one session for each reason to keep a session, beside others that can go; a loss
    without an explanation stays as well.
    """
    await ended_session(database, 1, (1, 3))
    await ended_session(database, 2, last_seq=0)
    await ended_session(database, 3, (1, 4))  # its last event came after it was ended
    await ended_session(database, 11)  # all lost, without an explanation
    await ended_session(database, 12, (1, 2))  # the last one
    await ended_session(database, 13, (2, 3))  # the first one
    await ended_session(database, 14, (1, 1), (3, 3))  # one between
    await ended_session(database, 15)
    await database.add(
        gaps, {"session_id": 15, "first_seq": 1, "last_seq": 3, "reason": "in_flight"}
    )
    await ended_session(database, 16, (1, 3))
    await database.add(
        gaps, {"session_id": 16, "first_seq": 4, "last_seq": 4, "reason": "queue_full"}
    )
    await ended_session(database, 17, (1, 3))
    event = {
        "session_id": 17,
        "seq": 3,
        "ts": OLD,
        "level": "error",
        "type": "system",
        "message": "kept",
    }
    await database.add(logs, event)
    await ended_session(database, 18, (1, 3))
    job = {
        "id": "kept",
        "root_job_id": "kept",
        "operation": "copy",
        "category": "system",
        "status": "failed",
        "attempt": 1,
    }
    await database.add(
        jobs,
        job
        | {
            "session_id": 18,
            "state_seq": 1,
            "created_at": OLD,
            "started_at": OLD,
            "completed_at": OLD,
        },
    )
    await ended_session(database, 19, (1, 3))
    await database.add(
        dead_letters, {"session_id": 19, "seq": 2, "reason": "refused", "ts": RECENT}
    )
    await ended_session(database, 20, (1, 3), ended_at=RECENT)
    await ended_session(database, 21, (1, 3), ended_at=None)
    await ended_session(database, 22, last_seq=0)
    await database.add(
        gaps, {"session_id": 22, "first_seq": 1, "last_seq": 1, "reason": "interrupted"}
    )
    kept = {*range(11, 23), tracker.session_id}
    assert (await tracker.prune(KEPT_FOR, dry_run=True)).sessions == 3
    assert (await tracker.prune(KEPT_FOR)).sessions == 3
    assert {
        row["session_id"] for row in await database.fetch(select(sessions.c.session_id))
    } == kept
    assert {
        row["session_id"] for row in await database.fetch(select(gaps.c.session_id))
    } == kept - {11, tracker.session_id}
    lost = {one.session_id for one in (await tracker.verify()).sessions if one.missing}
    assert lost == {11, 12, 13, 14}


async def test_a_session_that_is_no_longer_due_is_not_deleted(tracker, database, monkeypatch):
    """faults H: an event that is stored between the search and the deletion keeps its session, and
    that session only.
    """
    await ended_session(database, 1, (1, 3))
    await ended_session(database, 2, (1, 3))
    original, seen = removal.remove_sessions, []

    def late(connection, ids, due):
        seen.extend(ids)
        event = {"session_id": 1, "seq": 4, "ts": OLD, "level": "error", "message": "late"}
        connection.execute(*inserted(connection, event | {"type": "system"}))
        return original(connection, ids, due)

    monkeypatch.setattr(removal, "remove_sessions", late)
    assert (await tracker.prune(KEPT_FOR)).sessions == 1
    assert seen == [1, 2]
    assert {row["session_id"] for row in await database.fetch(select(sessions.c.session_id))} == {
        1,
        tracker.session_id,
    }
    assert await database.rows("SELECT session_id FROM structjob_gaps") == [(1,)]


async def test_only_the_cancel_requests_of_deleted_jobs_go(tracker, database):
    """faults H: the request to cancel a running job outlasts the pruning of another job that also
    had one.
    """
    gone = await work(tracker)
    await tracker.flush()
    await age(database, 40)
    request = {"attempt": 1, "session_id": 7, "reason": "r", "forced": False, "requested_at": OLD}
    requests = ({"job_id": id_, **request} for id_ in (gone, "running elsewhere"))
    await database.add(cancellations, *requests)
    assert (await tracker.prune(timedelta(days=30))).jobs == 1
    assert await database.rows("SELECT job_id FROM structjob_cancellations") == [
        ("running elsewhere",)
    ]


@pytest.mark.parametrize("together", [True, False])
async def test_more_families_than_are_looked_at_at_once(tracker, database, monkeypatch, together):
    """faults H: every due family is found once, whether the families began at the same moment or
    not, and whatever stays between them.
    """
    monkeypatch.setattr(finding, "_TOPS", 2)
    states = {
        f"job {8 - number}": "failed" if number in (2, 3, 6) else "completed" for number in range(9)
    }
    for number, (id_, status) in enumerate(states.items()):
        created = OLD if together else OLD + timedelta(minutes=number)
        job = {
            "operation": "copy",
            "category": "system",
            "attempt": 1,
            "session_id": 1,
            "state_seq": 1,
            "completed_at": created,
        }
        await database.add(
            jobs,
            job | {"id": id_, "root_job_id": id_, "status": "completed", "created_at": created},
        )
        # A child that is kept keeps its family, which is found all the same.
        below = {
            "id": f"below {number}",
            "root_job_id": id_,
            "parent_job_id": id_,
            "status": status,
            "created_at": created,
        }
        await database.add(jobs, job | below)
    async with asyncio.timeout(30):
        assert (await tracker.prune(KEPT_FOR, dry_run=True)).jobs == 12
        assert (await tracker.prune(KEPT_FOR)).jobs == 12
    assert {name for name in await ids(tracker) if name.startswith("job")} == {
        id_ for id_, status in states.items() if status == "failed"
    }


async def test_an_error_whose_exception_has_no_text_keeps_its_message(tracker, database):
    """faults H: after all of its events are pruned, an error has the message of the event where its
    exception has none.
    """
    log.error("the import failed", exc_info=KeyError())
    await tracker.flush()
    (before,) = await tracker.errors.list()
    await age(database, 40)
    assert (await tracker.prune(timedelta(days=30))).events == 1
    found = await database.rows("SELECT fingerprint, error_type, message FROM structjob_errors")
    assert found == [(before.fingerprint, "KeyError", "the import failed")]


async def test_two_that_prune_at_once(tracker, database, tmp_path, monkeypatch):
    """One waits for the other; together they delete everything once, and count it once (R41)."""
    monkeypatch.setattr("structjob.retention.prune._LOOK_AGAIN", 0.01)
    for _ in range(5):
        await work(tracker, fail=True, lines=20)
    await tracker.flush()
    await age(database, 10)
    before = await rows_of(database)
    async with structjob.Tracker(database.url, spool=tmp_path / "other") as other:
        both = await asyncio.gather(
            tracker.prune(timedelta(days=5)), other.prune(timedelta(days=5))
        )
    assert sum(one.events for one in both) == before["logs"]
    assert sum(one.jobs for one in both) == 5
    assert (await tracker.verify()).ok
    assert await database.rows("SELECT pruned FROM structjob_errors") == [(5,)]


async def test_one_that_waits_in_vain_says_so(tracker, database):
    """A prune that cannot wait for another process raises, and nothing is deleted twice (R41)."""
    await work(tracker)
    await tracker.flush()
    holder = Lock(LOCK, tracker.session_id)
    assert await tracker._host.transact(holder.take)
    with pytest.raises(PruneInProgress, match="another process is pruning"):
        await tracker.prune(timedelta(days=0), patience=0)
    await tracker._host.transact(lambda connection: holder.release(connection, done=False))
    assert (await tracker.prune(timedelta(days=0), patience=0)).jobs == 1


async def test_a_lock_dies_with_its_holder(tracker, database):
    """The lock of a process that was killed is void once its session has ended, or its time is
    over, whatever it said last (R41).
    """
    dead = Lock(LOCK, 4711)
    assert await tracker._host.transact(dead.take)
    assert not await tracker.prune(timedelta(days=1))  # no such session lives
    alive = Lock(LOCK, tracker.session_id)
    assert await tracker._host.transact(alive.take)
    await database.execute("UPDATE structjob_locks SET expires_at = '2020-01-01 00:00:00'")
    assert not await tracker.prune(timedelta(days=1))
    (row,) = await database.fetch(select(locks))
    assert row["holder"] is None
    assert row["done_at"] is not None


async def test_nobody_deletes_without_the_lock(tracker, database):
    """One that slept through its time finds another pruning in its place, and stops at
    once (R41).
    """
    for _ in range(2):
        await work(tracker)
    await tracker.flush()
    await age(database, 10)
    original = tracker._store.transact

    async def transact(call):
        result = await original(call)
        if (await rows_of(database))["locks"]:
            await database.execute("UPDATE structjob_locks SET holder = 1")
        return result

    tracker._store.transact = transact
    try:
        with pytest.raises(PruneInProgress, match="stood still"):
            await tracker.prune(timedelta(days=5))
    finally:
        tracker._store.transact = original
    assert len(await ids(tracker)) == 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_lock_is_renewed_in_time(tracker, database):
    """A prune that takes long keeps its lock (R41)."""
    lock = Lock(LOCK, tracker.session_id)
    await tracker._host.transact(lock.take)
    (first,) = await database.fetch(select(locks.c.expires_at))
    await tracker._host.transact(lock.prove)
    assert (await database.fetch(select(locks.c.expires_at)))[0]["expires_at"] >= first[
        "expires_at"
    ]
    almost = first["expires_at"] - timedelta(seconds=40)
    async with database.engine.begin() as connection:
        await connection.execute(locks.update().values(expires_at=almost))
    await tracker._host.transact(lock.prove)
    (later,) = await database.fetch(select(locks.c.expires_at))
    assert later["expires_at"] >= first["expires_at"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "keeps everything for ever: give days"),
        ({"days": -1}, "days must be 0 to 36,500 days"),
        ({"days": "30"}, r"days must be 0 to 36,500 days .*, not '30'"),
        ({"days": True}, "days must be"),
        ({"days": float("nan")}, "days must be"),
        ({"days": 1e9}, "days must be"),
        (
            {"levels": {"loud": 3}},
            "no level 'loud' .* use one of debug, info, success, warning, error, critical",
        ),
        ({"levels": {"debug": timedelta(days=-2)}}, r"levels\['debug'\] must be"),
        ({"levels": ["debug"]}, "levels must be a mapping"),
        (
            {"statuses": {"running": 3}},
            "no status 'running' .* use one of completed, failed, cancelled, crashed",
        ),
        ({"statuses": {"failed": None}}, "keeps everything for ever"),
        ({"days": 1, "archive": 3}, "archive must be the path"),
    ],
)
def test_a_retention_that_makes_no_sense_is_refused(given, said):
    """The message names what is wrong, and what is accepted (R41)."""
    with pytest.raises(InvalidArgument, match=said):
        Retention(**given)


def test_a_retention_takes_what_people_write():
    """Ages are days or lengths of time; levels and statuses may go by their other names (R41)."""
    retention = Retention(days=timedelta(hours=12), levels={"WARN": 2}, statuses={"canceled": 1})
    assert (retention.days, retention.levels, retention.statuses) == (
        0.5,
        {"warning": 2},
        {"cancelled": 1},
    )
    with pytest.raises(InvalidArgument, match=r"not 30: write timedelta\(days=30\)"):
        retention_of(30)
    assert retention_of(timedelta(days=1)) == Retention(days=1)
    assert retention_of(None) is None
    assert not PruneResult()
    with pytest.raises(InvalidArgument):
        structjob.Tracker("sqlite://", retention="30d")


async def test_a_database_in_memory():
    """It works where there is no file, too (R41, R50)."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker("sqlite://") as tracker:
        await work(tracker)
        assert (await tracker.prune(timedelta(days=0))).jobs == 1
        assert (await tracker.verify()).ok


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_without_a_retention_nothing_is_deleted(tracker, database):
    """A tracker without a retention asks what to keep; a wrong value deletes nothing (R41)."""
    await work(tracker)
    with pytest.raises(InvalidArgument, match="give a Retention"):
        await tracker.prune()
    with pytest.raises(InvalidArgument, match="patience"):
        await tracker.prune(timedelta(days=0), patience=-1)
    assert len(await ids(tracker)) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_the_queries_are_served_by_indexes(database):
    """What is due is found without reading through the tables (R41, R5)."""
    (now,) = await database.fetch(select(func.max(jobs.c.created_at).label("now")))
    due = Due(Retention(days=30, levels={"debug": 2}), now["now"] or datetime.now(UTC))
    by_level, by_type = [
        await database.plan(select(logs.c.id).where(condition).order_by(logs.c.ts))
        for condition in due.events()
    ]
    assert "structjob_logs_by_level" in by_level
    assert "structjob_logs_by_type" in by_type
    assert "structjob_jobs_by_status" in await database.plan(due.tops("completed", None, 100))
    assert "SCAN" not in (await database.plan(due.family(["a"], None, 100))).replace(
        "SCAN family", ""
    )
    assert "SCAN" not in (await database.plan(due.held(["a"]))).replace("SCAN above", "")
    assert "structjob_sessions_by_end" in await database.plan(
        select(sessions.c.session_id).where(due.sessions())
    )
