"""Finding jobs: by every id they have, in pages, with their steps, attempts and children."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from itertools import chain

import msgspec
import pytest
import sqlalchemy as sa
from database_support import inserted
from each import each

from structjob.exceptions import InvalidArgument, InvalidFilter, JobNotFound
from structjob.filters import AttemptFilter, JobFilter
from structjob.models import ErrorInfo, JobRecord
from structjob.queries.job_finder import JobFinder
from structjob.queries.jobs import Jobs, lookups_of
from structjob.statuses import JobStatus, StepStatus
from structjob.store.tables import attempts, jobs, steps

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Store:
    """A database with what the queries need, and a list of what they asked for."""

    def __init__(self, database):
        self.engine, self.add, self.plan = database.engine, database.add, database.plan
        self._database = database
        self.flushed = 0
        self.asked = []

    async def fetch(self, statement):
        self.asked.append(statement)
        return await self._database.fetch(statement)

    async def flush(self):
        self.flushed += 1

    async def job(self, *ids, **values):
        for n, id_ in enumerate(ids):
            row = {
                "id": id_,
                "operation": "copy",
                "status": "running",
                "created_at": T0 + timedelta(seconds=n),
                "attempt": 1,
            }
            await self.add(jobs, row | values)


@pytest.fixture
def store(database):
    return Store(database)


@pytest.fixture
def found(store):
    return Jobs(store.fetch, store.flush, now=lambda: T0 + timedelta(seconds=90))


async def test_get_returns_every_column(store, found):
    """A job comes back with all its fields, typed: status, times, JSON, and the error as one (R1,
    R19).
    """
    values = {
        "id": "j",
        "parent_job_id": "p",
        "root_job_id": "r",
        "job_type": "migration",
        "operation": "copy",
        "description": "d",
        "status": "failed",
        "percent_complete": 50.0,
        "current_step": "verify",
        "owner": "ada",
        "project": "x",
        "category": "c",
        "metadata": {"vm": {"name": "pg"}},
        "result": [1, None],
        "correlation_id": "co",
        "external_job_id": "e",
        "context_id": "cx",
        "idempotency_key": "k",
        "attempt": 2,
        "session_id": 2**53 - 1,
        "state_seq": 7,
        "created_at": T0,
        "started_at": T0,
        "completed_at": T0 + timedelta(microseconds=1),
        "cancelled_at": None,
        "duration_ms": 0.001,
        "cpu_ms": 1.5,
        "max_rss_kb": 4096,
    }
    await store.add(
        jobs, values | {"error_type": "ValueError", "error_message": "no", "error_traceback": "tb"}
    )
    job = await found.get("j")
    assert job == JobRecord(
        **values | {"status": JobStatus.FAILED},
        error=ErrorInfo(type="ValueError", message="no", traceback="tb"),
    )
    assert job.created_at.tzinfo is UTC


async def test_reads_deliver_what_is_pending_first(store, found):
    """A program finds the job it has just begun: every read flushes once (R19)."""
    await store.job("j", context_id="c", external_job_id="e")
    calls = [
        found.get("j"),
        found.find("c"),
        found.by_external_id("e"),
        found.by_context_id("c"),
        found.list(),
        found.progress("j"),
        found.tree("j"),
        found.history("j"),
        found.steps("j"),
    ]
    for count, call in enumerate(calls, 1):
        await call
        assert store.flushed == count


async def test_an_absent_job_is_named(store, found):
    """`job not found: X` for every way of asking (R19)."""
    for ask in (
        found.get,
        found.find,
        lookups_of(found).by_prefix,
        found.by_external_id,
        found.progress,
        found.tree,
        found.history,
        found.steps,
    ):
        with pytest.raises(JobNotFound, match=r"^job not found: nope$"):
            await ask("nope")
    assert await found.by_context_id("nope") == []


@pytest.mark.parametrize("odd", ["", "a\x00b", "\ud800", "x" * 5000, "%", "' OR 1=1 --"])
async def test_odd_ids_are_not_found_and_break_nothing(store, found, odd):
    """Whatever text stands in a URL or on a command line, the answer is "not found", never a
    database error (R19).
    """
    await store.job("a", "b")
    for ask in (found.get, found.find, found.by_external_id):
        with pytest.raises(JobNotFound):
            await ask(odd)
    assert await found.by_context_id(odd) == []


async def test_find_takes_any_id_in_this_order(store, found):
    """An id means the job's own id before an external id before a context id, and of several jobs
    the newest (R19).
    """
    await store.job("x", created_at=T0)
    await store.job("external", external_job_id="x", created_at=T0 + timedelta(hours=1))
    await store.job("old", external_job_id="e", context_id="x", created_at=T0)
    await store.job("new", external_job_id="e", context_id="e", created_at=T0 + timedelta(hours=2))
    await store.job("in-context", context_id="cx", created_at=T0)
    await store.job("in-context-newer", context_id="cx", created_at=T0 + timedelta(hours=1))
    assert (await found.find("x")).id == "x"
    assert (await found.find("e")).id == "new"
    assert (await found.find("cx")).id == "in-context-newer"
    assert (await found.by_external_id("e")).id == "new"
    assert [job.id for job in await found.by_context_id("cx")] == ["in-context-newer", "in-context"]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_find_uses_the_index_of_each_column(store, found):
    """Finding a job among millions reads a few rows, by whichever id (R5)."""
    with pytest.raises(JobNotFound):
        await found.find("x")
    plan = await store.plan(store.asked[-1])
    for index in (
        "sqlite_autoindex_structjob_jobs",
        "structjob_jobs_by_external_id",
        "structjob_jobs_by_context",
    ):
        assert index in plan
    assert "SCAN structjob_jobs" not in plan


@pytest.mark.parametrize("kind", ["record", "id", "coroutine"])
async def test_a_resolve_id_is_asked_last(store, kind):
    """Ids of an older system lead to jobs, through a function of the application's, before "not
    found" (R19, R21).
    """
    await store.job("j", "known")
    asked = []

    def record(old):
        asked.append(old)
        return (
            JobRecord(id="elsewhere", operation="o", status=JobStatus.COMPLETED, created_at=T0)
            if old == "old-1"
            else None
        )

    def by_id(old):
        asked.append(old)
        return "j" if old == "old-1" else None

    async def coroutine(old):
        await asyncio.sleep(0)
        return by_id(old)

    found = Jobs(
        store.fetch,
        store.flush,
        finder=JobFinder(
            store.fetch, {"record": record, "id": by_id, "coroutine": coroutine}[kind]
        ),
    )
    assert (await found.find("known")).id == "known"
    assert asked == []
    assert (await found.find("old-1")).id == ("elsewhere" if kind == "record" else "j")
    with pytest.raises(JobNotFound, match="old-2"):
        await found.find("old-2")
    assert asked == ["old-1", "old-2"]


async def test_resolve_takes_the_beginning_of_an_id(store, found):
    """On the command line the first letters suffice while they are unique; if not, the candidates
    are listed (R49).
    """
    await store.job("0192-aa", "0192-ab", "0193-x", "0194_")
    await store.job("other", external_job_id="0193")
    lookups = lookups_of(found)
    assert (await lookups.by_prefix("0192-aa")).id == "0192-aa"
    assert (await lookups.by_prefix("0193-")).id == "0193-x"
    assert (await lookups.by_prefix("0193")).id == "other"  # a whole external id is no beginning
    with pytest.raises(InvalidArgument, match=r"0192-aa.*0192-ab"):
        await lookups.by_prefix("0192")
    with pytest.raises(JobNotFound):
        await lookups.by_prefix("0194%")
    with pytest.raises(JobNotFound):
        await lookups.by_prefix("0192-A")  # letter case counts


async def test_a_job_whose_parent_is_in_another_database_is_a_root(store, found):
    """Faults 60: it is listed, with the id of its parent; a child of a job that is here is not
    (R20).
    """
    await store.job("a")
    await store.job("b", created_at=T0 + timedelta(hours=1), parent_job_id="a", root_job_id="a")
    await store.job(
        "c", created_at=T0 + timedelta(hours=2), parent_job_id="elsewhere", root_job_id="elsewhere"
    )
    await store.job(
        "d", created_at=T0 + timedelta(hours=3), parent_job_id="c", root_job_id="elsewhere"
    )
    assert [(job.id, job.parent_job_id) for job in await found.list(root_only=True)] == [
        ("c", "elsewhere"),
        ("a", None),
    ]
    first = await found.list(root_only=True, limit=1)
    assert [
        job.id for job in await found.list(root_only=True, limit=1, cursor=first.next_cursor)
    ] == ["a"]


async def test_list_is_newest_first_and_filters(store, found):
    """Jobs can be listed by status, type, operation, owner, category, project, ids, text and time,
    in any combination (R20).
    """
    await store.job(
        "a",
        owner="ada",
        status="completed",
        project="p",
        category="c",
        job_type="t",
        correlation_id="co",
        session_id=5,
    )
    await store.job(
        "b",
        created_at=T0 + timedelta(hours=1),
        operation="load_50%",
        parent_job_id="a",
        root_job_id="a",
        context_id="cx",
    )
    await store.job(
        "c",
        created_at=T0 + timedelta(hours=2),
        description="Loads 50 files",
        status="failed",
        external_job_id="e",
    )

    async def listed(**filters):
        return [job.id for job in await found.list(**filters)]

    assert await listed() == ["c", "b", "a"]
    assert await listed(order="asc") == ["a", "b", "c"]
    assert await listed(status="running") == ["b"]
    assert await listed(status=["failed", "completed"]) == ["c", "a"]
    assert await listed(status=["failed", "failed"]) == ["c"]
    assert (
        await listed(owner="ada")
        == await listed(project="p")
        == await listed(category="c")
        == await listed(job_type="t")
        == ["a"]
    )
    assert await listed(correlation_id="co") == await listed(session_id=5) == ["a"]
    assert (
        await listed(parent_job_id="a")
        == await listed(root_job_id="a")
        == await listed(context_id="cx")
        == ["b"]
    )
    assert await listed(external_job_id="e") == ["c"]
    assert await listed(operation="copy", root_only=True) == ["c", "a"]
    assert await listed(text="LOAD") == ["c", "b"]
    assert await listed(text="50%") == ["b"]
    assert await listed(text="load_") == ["b"]
    assert await listed(since=T0 + timedelta(hours=1)) == ["c", "b"]
    assert await listed(until=T0 + timedelta(hours=1)) == ["a"]
    assert await listed(owner="ada", status="failed") == []
    assert [job.id for job in await found.list(JobFilter(order="asc"), limit=1)] == ["a"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"ownr": "ada"}, "unknown filter 'ownr'.*owner"),
        ({"status": "runing"}, "unknown status 'runing'.*running"),
        ({"status": 5}, "status must be a status, or several, not 5"),
        ({"owner": 5}, "owner must be a string, not int"),
        ({"session_id": "5"}, "session_id must be a whole number"),
        ({"session_id": 2**63}, "session_id must be a whole number of 64 bits"),
        ({"text": "a\x00"}, "NUL"),
        ({"text": "a" * 5000}, "5,000 characters"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
    ],
)
async def test_a_wrong_filter_is_named_before_anything_is_asked(store, found, filters, message):
    """The message says which filter, what is wrong with it and what it takes (R20)."""
    with pytest.raises(InvalidFilter, match=message):
        await found.list(**filters)
    assert store.asked == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_lead_forward_and_back(store, found, order):
    """Following `next_cursor` shows every job once, following `previous_cursor` the same pages
    backwards, also where many share a time (R20).
    """
    names = [f"j{n:02}" for n in range(10)]
    for name in names:
        await store.job(name, created_at=T0)
    expected = names if order == "asc" else names[::-1]
    forward, cursor = [], None
    while True:
        page = await found.list(order=order, limit=3, cursor=cursor)
        forward.append(page)
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert [[job.id for job in page] for page in forward] == [
        expected[0:3],
        expected[3:6],
        expected[6:9],
        expected[9:],
    ]
    assert forward[0].previous_cursor is None
    backward = [forward[-1]]
    while backward[-1].previous_cursor is not None:
        backward.append(await found.list(order=order, limit=3, cursor=backward[-1].previous_cursor))
    assert [[job.id for job in page] for page in backward] == [
        expected[9:],
        expected[6:9],
        expected[3:6],
        expected[0:3],
    ]
    assert all(page.next_cursor is not None for page in backward[1:])


async def test_pages_are_stable_while_jobs_come_and_go(store, found):
    """New jobs shift nothing: the next page begins where this one ended, and `previous_cursor`
    leads to what is new (R20).
    """
    await store.job("a", "b", "c", "d")
    first = await found.list(limit=2)
    assert [job.id for job in first] == ["d", "c"]
    await store.job("new", created_at=T0 + timedelta(hours=1))
    second = await found.list(limit=2, cursor=first.next_cursor)
    assert [job.id for job in second] == ["b", "a"]
    back = await found.list(limit=2, cursor=second.previous_cursor)
    assert [job.id for job in back] == ["d", "c"]
    assert [job.id for job in await found.list(limit=2, cursor=back.previous_cursor)] == ["new"]


async def test_an_emptied_page_leads_back(store, found):
    """If all that followed was deleted, the empty page's `previous_cursor` still leads to the
    rows before it (R20, R41).
    """
    await store.job("a", "b", "c", "d")
    first = await found.list(limit=2, order="asc")
    async with store.engine.begin() as connection:
        await connection.execute(jobs.delete().where(jobs.c.id.in_(("c", "d"))))
    empty = await found.list(limit=2, order="asc", cursor=first.next_cursor)
    assert (empty.items, empty.next_cursor) == ((), None)
    assert [
        job.id for job in await found.list(limit=2, order="asc", cursor=empty.previous_cursor)
    ] == [
        "a",
        "b",
    ]


async def test_a_cursor_belongs_to_its_query(store, found):
    """A cursor used with another filter is refused instead of showing something arbitrary; another
    limit is fine (R20).
    """
    await store.job("a", "b", "c")
    page = await found.list(owner=None, limit=1, since=timedelta(days=36500))
    for other in ({"owner": "ada"}, {"order": "asc"}, {"status": "running"}, {}):
        since = {} if other == {} else {"since": timedelta(days=36500)}
        with pytest.raises(InvalidFilter, match="another query"):
            await found.list(cursor=page.next_cursor, **other, **since)
    assert len(await found.list(cursor=page.next_cursor, limit=2, since=timedelta(days=36500))) == 2
    assert (
        page.next_cursor.replace("-", "").replace("_", "").isalnum()
    )  # goes into a URL as it stands


async def test_a_cursor_of_ones_own_making(store, found):
    """What no driver would take in place of an id or a number is no cursor, on each
    database (R20).
    """

    async def refused(listing, genuine, key):
        cursor = msgspec.json.decode(
            base64.b64decode(genuine + "=" * (-len(genuine) % 4), altchars=b"-_")
        )
        cursor[-1] = key
        with pytest.raises(InvalidFilter, match="not one that structjob gave out"):
            await listing(
                limit=1, cursor=base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode()
            )

    await store.job("a", "b")
    await store.add(
        attempts,
        *(
            {"job_id": "a", "attempt": number, "status": "failed", "started_at": T0}
            for number in (1, 2)
        ),
    )
    await refused(found.list, (await found.list(limit=1)).next_cursor, "a\x00")
    for number in (2**31, -(2**31) - 1, 2**70):
        await refused(found.history, (await found.history(limit=1)).next_cursor, ["a", number])


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_page_of_several_statuses_reads_only_its_size(store, found):
    """The newest failed or crashed jobs come from the index on status, however many jobs there are
    (R5, R20).
    """
    await found.list(status=["failed", "crashed"])
    plan = await store.plan(store.asked[-1])
    assert plan.count("SEARCH structjob_jobs USING INDEX structjob_jobs_by_status (status=?)") == 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@each(
    "name",
    [
        "job_type",
        "operation",
        "owner",
        "category",
        "project",
        "context_id",
        "external_job_id",
        "correlation_id",
        "parent_job_id",
        "root_job_id",
        "session_id",
        "status",
    ],
)
async def test_every_filter_of_a_column_has_an_index(store, found, name):
    """No list of jobs by one of these reads all jobs (R5)."""
    await found.list(**{name: 5 if name == "session_id" else "running"})
    assert f"({name}=?" in await store.plan(store.asked[-1])


async def test_progress_says_how_far(store, found):
    """Steps done and begun, percent, run time, ids, parent and children, by any id (R16, R45)."""
    await store.job(
        "j",
        external_job_id="gui-17",
        context_id="vm-9",
        parent_job_id="p",
        started_at=T0,
        attempt=2,
        current_step="copy",
    )
    await store.job("k1", "k2", parent_job_id="j")
    step = {"name": "s", "job_id": "j"}
    await store.add(
        steps,
        step | {"id": "old", "attempt": 1, "seq": 1, "status": "completed"},
        step | {"id": "s1", "attempt": 2, "seq": 1, "status": "completed"},
        step | {"id": "s2", "attempt": 2, "seq": 2, "status": "running"},
    )
    for any_id in ("j", "gui-17", "vm-9"):
        progress = await found.progress(any_id)
        assert (progress.job_id, progress.status, progress.operation, progress.attempt) == (
            "j",
            JobStatus.RUNNING,
            "copy",
            2,
        )
        assert (
            progress.completed_steps,
            progress.total_steps,
            progress.step_completion,
            progress.percent,
        ) == (1, 2, 50.0, 50.0)
        assert progress.runtime_seconds == 90.0
        assert (progress.current_step, progress.parent_job_id, progress.child_ids) == (
            "copy",
            "p",
            ("k1", "k2"),
        )
        assert (progress.external_job_id, progress.context_id) == ("gui-17", "vm-9")


@pytest.mark.parametrize(
    ("values", "percent", "runtime"),
    [
        ({"status": "running", "percent_complete": 75.0, "started_at": T0}, 75.0, 90.0),
        (
            {"status": "running", "percent_complete": 0.0, "started_at": T0 + timedelta(hours=1)},
            0.0,
            0.0,
        ),
        ({"status": "pending", "attempt": 0}, 0.0, 0.0),
        (
            {
                "status": "completed",
                "percent_complete": 75.0,
                "started_at": T0,
                "duration_ms": 1500.0,
            },
            100.0,
            1.5,
        ),
        (
            {
                "status": "failed",
                "percent_complete": 75.0,
                "started_at": T0,
                "completed_at": T0 + timedelta(seconds=3),
            },
            75.0,
            3.0,
        ),
        (
            {"status": "cancelled", "started_at": T0, "cancelled_at": T0 + timedelta(seconds=4)},
            0.0,
            4.0,
        ),
        ({"status": "crashed", "started_at": T0}, 0.0, 0.0),
    ],
)
async def test_percent_and_run_time_of_each_status(store, found, values, percent, runtime):
    """A reported percentage counts before a derived one; a completed job is at 100; the run time
    ends with the job (R15, R16).
    """
    await store.job("j", **values)
    progress = await found.progress("j")
    assert (progress.percent, progress.runtime_seconds) == (percent, runtime)


async def test_history_and_steps(store, found):
    """The attempts at a job, oldest first, and the steps of the latest or of any attempt, in their
    order (R2, R3, R20).
    """
    await store.job("j", attempt=2)
    await store.job("waiting", status="pending", attempt=0)
    error = {"error_type": "E", "error_message": "m"}
    await store.add(
        attempts,
        {"job_id": "j", "attempt": 2, "status": "running", "session_id": 1, "started_at": T0},
        {"job_id": "j", "attempt": 1, "status": "failed", "session_id": 1, "result": {"n": 1}}
        | error,
    )
    step = {"job_id": "j", "attempt": 2}
    await store.add(
        steps,
        step
        | {
            "id": "s2",
            "seq": 2,
            "name": "second",
            "status": "retrying",
            "metadata": {"attempt_number": 1},
            "parent_step_id": "s1",
        }
        | error,
        step
        | {
            "id": "s1",
            "seq": 1,
            "name": "first",
            "status": "running",
            "completed": 5.0,
            "total": 100.0,
        },
        {"job_id": "j", "id": "s0", "seq": 1, "name": "before", "status": "failed", "attempt": 1},
    )
    history = await found.history("j")
    assert [(one.attempt, one.status) for one in history] == [
        (1, JobStatus.FAILED),
        (2, JobStatus.RUNNING),
    ]
    assert (history[0].error, history[0].result, history[1].error) == (
        ErrorInfo(type="E", message="m"),
        {"n": 1},
        None,
    )
    assert await found.history("waiting") == await found.steps("waiting") == []
    latest = await found.steps("j")
    assert [(one.id, one.name, one.status) for one in latest] == [
        ("s1", "first", StepStatus.RUNNING),
        ("s2", "second", StepStatus.RETRYING),
    ]
    assert (latest[0].completed, latest[0].total) == (5.0, 100.0)
    assert (latest[1].parent_step_id, latest[1].metadata, latest[1].error) == (
        "s1",
        {"attempt_number": 1},
        ErrorInfo(type="E", message="m"),
    )
    assert [one.id for one in await found.steps("j", attempt=1)] == ["s0"]
    assert await found.steps("j", attempt=3) == []


async def test_the_tree_of_a_job(store, found):
    """A job with its steps, its children oldest first, and theirs (R20)."""
    await store.job("root", "other")
    await store.job("second", parent_job_id="root", created_at=T0 + timedelta(hours=2))
    await store.job("first", parent_job_id="root", created_at=T0 + timedelta(hours=1))
    await store.job("grandchild", parent_job_id="first")
    step = {"name": "s", "status": "running", "attempt": 1}
    await store.add(
        steps,
        step | {"id": "s2", "job_id": "first", "seq": 2},
        step | {"id": "s1", "job_id": "first", "seq": 1},
    )
    await store.add(steps, step | {"id": "s3", "job_id": "grandchild", "seq": 1, "attempt": 7})
    tree = await found.tree("root")
    assert (tree.job.id, tree.steps, [child.job.id for child in tree.children]) == (
        "root",
        (),
        ["first", "second"],
    )
    first = tree.children[0]
    assert [one.id for one in first.steps] == ["s1", "s2"]
    assert [child.job.id for child in first.children] == ["grandchild"]
    assert first.children[0].steps == ()  # another attempt's
    assert [child.job.id for child in (await found.tree("first")).children] == ["grandchild"]


async def test_a_long_chain_and_a_circle_of_jobs(store, found):
    """Neither 990 generations nor wrong data that goes in a circle end in an error (R20)."""
    async with store.engine.begin() as connection:
        row = {"operation": "o", "status": "running", "created_at": T0}
        await connection.execute(
            jobs.insert(), [row | {"id": f"g{n}", "parent_job_id": f"g{n - 1}"} for n in range(990)]
        )
        await connection.execute(
            sa.update(jobs).where(jobs.c.id == "g0").values(parent_job_id="g989")
        )
    tree = await found.tree("g5")
    depth = 0
    while tree.children:
        tree, depth = tree.children[0], depth + 1
    assert depth == 989


async def test_a_tree_may_be_deeper_than_a_server_thinks(any_tracker, database):
    """MariaDB ends at 1,000 levels without a word, unless told otherwise: trees, lines and
    retention know all (R20, R36, R41).
    """
    row = {"operation": "o", "status": "completed", "created_at": T0, "completed_at": T0}
    family = [
        row | {"id": f"g{n}", "parent_job_id": f"g{n - 1}" if n else None} for n in range(1_200)
    ]
    event = {
        "session_id": 5,
        "seq": 1,
        "ts": T0,
        "level": "info",
        "message": "deep",
        "type": "job",
        "job_id": "g1199",
    }
    async with database.engine.begin() as connection:
        await connection.execute(jobs.insert(), family)
        await connection.execute(*inserted(connection, event))
    tree, depth = await any_tracker.jobs.tree("g0"), 0
    while tree.children:
        tree, depth = tree.children[0], depth + 1
    assert depth == 1_199
    assert [one.message for one in await any_tracker.logs.list(job_id="g0", children=True)] == [
        "deep"
    ]
    assert (await any_tracker.prune(timedelta(days=30), dry_run=True)).jobs == 1_200


async def history_of(found, **filters):
    """Return the attempts on each page, and check that going back leads over the same pages."""
    pages, cursor = [], None
    while True:
        page = await found.history(**filters, cursor=cursor)
        pages.append(page)
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    back = pages[-1]
    for page in reversed(pages[:-1]):
        back = await found.history(**filters, cursor=back.previous_cursor)
        assert back.items == page.items
    assert back.previous_cursor is None
    return [[(attempt.job_id, attempt.attempt) for attempt in page] for page in pages]


async def test_the_history_of_all_jobs(store, found):
    """The attempts at all jobs in pages, both ways, by when they began; of the same moment, by job
    and number (R20).
    """
    times = {("a", 1): 0, ("b", 1): 5, ("a", 2): 5, ("a", 10): 5, ("c", 1): 5, ("b", 2): 9}
    status = {("a", 1): "failed", ("a", 2): "crashed", ("b", 1): "failed"}
    await store.add(
        attempts,
        *(
            {
                "job_id": job,
                "attempt": n,
                "status": status.get((job, n), "completed"),
                "started_at": T0 + timedelta(seconds=s),
            }
            for (job, n), s in times.items()
        ),
        {"job_id": "imported", "attempt": 1, "status": "completed"},
    )
    newest = [("b", 2), ("c", 1), ("b", 1), ("a", 10), ("a", 2), ("a", 1)]
    for limit in (1, 2, 4, 6, 100):
        assert list(chain.from_iterable(await history_of(found, limit=limit))) == newest
        assert (
            list(chain.from_iterable(await history_of(found, limit=limit, order="asc")))
            == newest[::-1]
        )
    assert await history_of(found, status=["failed", "crashed"], limit=2) == [
        [("b", 1), ("a", 2)],
        [("a", 1)],
    ]
    assert await history_of(
        found, since=T0 + timedelta(seconds=1), until=T0 + timedelta(seconds=9)
    ) == [newest[1:5]]
    page = await found.history(filter=AttemptFilter(limit=1))
    for wrong in (
        {"cursor": page.next_cursor, "order": "asc"},
        {"cursor": "x"},
        {"owner": "ada"},
        {"status": "done"},
        {"limit": 0},
    ):
        with pytest.raises(InvalidFilter):
            await found.history(**wrong)
    with pytest.raises(InvalidFilter, match="one job"):
        await found.history("a", limit=5)


async def test_jobs_by_their_end(any_tracker):
    """What failed last night includes a job that began the evening before; one that still runs
    has not ended (R17).
    """
    jobs = [await any_tracker.create_job(f"night-{number}") for number in range(3)]
    for job in jobs:
        await job.start()
    evening = datetime.now(UTC)
    await jobs[0].end(error=ValueError("disk full"))
    await jobs[1].end()
    assert list(await any_tracker.jobs.list(since=evening)) == []
    found = await any_tracker.jobs.list(since=evening, by="ended")
    assert [job.operation for job in found] == ["night-1", "night-0"]
    assert await any_tracker.jobs.count(since=evening, by="ended", status="failed") == 1
    assert list(await any_tracker.jobs.list(until=evening, by="ended")) == []
    assert await any_tracker.jobs.count(by="ended") == 2
    with pytest.raises(InvalidFilter, match="by must be"):
        await any_tracker.jobs.list(by="death")
