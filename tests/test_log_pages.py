"""Pages of events that begin at an event or behind a number of them, and counts by time, on each
kind of database.
"""

import contextlib
import itertools
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from log_support import T0, LogDatabase

from structjob.exceptions import EventNotFound, InvalidFilter
from structjob.queries import histograms, paging


@pytest.fixture
def database(database):
    return LogDatabase(database.engine)


def told(page):
    return [event.message for event in page]


async def test_a_page_that_begins_at_a_line(database):
    """A link to a line opens the page that begins with it; the lines before it are one cursor away,
    and so are those after the page (R36).
    """
    await database.add(1, range(1, 10), job_id="a")
    await database.add(2, [1], job_id="b")
    page = await database.logs.list(start=(1, 4), limit=3)
    assert told(page) == ["1:4", "1:5", "1:6"]
    after = await database.logs.list(cursor=page.next_cursor, limit=3)
    assert told(after) == ["1:7", "1:8", "1:9"]
    before = await database.logs.list(cursor=page.previous_cursor, limit=3)
    assert told(before) == ["1:1", "1:2", "1:3"]
    assert before.previous_cursor is None
    again = await database.logs.list(cursor=before.next_cursor, limit=3)
    assert told(again) == ["1:4", "1:5", "1:6"]
    assert told(await database.logs.list(start=page[1], limit=2)) == ["1:5", "1:6"]


async def test_a_page_that_begins_at_a_line_and_goes_back(database):
    """In descending order the page goes from the line to the past."""
    await database.add(1, range(1, 10), job_id="a")
    page = await database.logs.list(start=(1, 4), limit=3, order="desc")
    assert told(page) == ["1:4", "1:3", "1:2"]
    newer = await database.logs.list(cursor=page.previous_cursor, limit=2, order="desc")
    assert told(newer) == ["1:6", "1:5"]


async def test_a_page_that_begins_where_a_line_would_be(database):
    """A line that the filter leaves out still says where to begin, in searches, too; one that is
    not stored is an error that says why.
    """
    await database.add(1, range(1, 10), job_id="a")
    await database.add(2, range(1, 10), job_id="b", step="s")
    assert told(await database.logs.list(start=(1, 9), job_id="b", limit=2)) == ["2:1", "2:2"]
    assert told(await database.logs.list(start=(1, 9), text="2:5", limit=2)) == ["2:5"]
    assert told(await database.logs.list(start=(2, 4), text="1:", limit=2)) == []
    await database.gap(1, 10, 12, "queue_full")
    with pytest.raises(EventNotFound, match=r"1:11.*queue_full"):
        await database.logs.list(start=(1, 11))


async def test_a_page_behind_a_number_of_lines(database):
    """`offset` leaves out lines, of one job, of a tree of jobs or of all, as paths with limit and
    offset want it.
    """
    await database.job("a")
    await database.job("c", parent="a")
    await database.add(1, range(1, 6), job_id="a")
    await database.add(2, range(1, 6), job_id="c")
    assert told(await database.logs.list(job_id="a", offset=4, limit=3)) == ["1:5", "2:1", "2:2"]
    page = await database.logs.list(job_id="a", children=False, offset=3, limit=1)
    assert told(page) == ["1:4"]
    assert told(await database.logs.list(cursor=page.next_cursor, job_id="a", children=False)) == [
        "1:5"
    ]
    assert told(await database.logs.list(offset=9)) == ["2:5"]
    assert told(await database.logs.list(offset=1, limit=2, order="desc")) == ["2:4", "2:3"]
    assert told(await database.logs.list(offset=10)) == []
    beyond = await database.logs.list(offset=11)
    assert (told(beyond), beyond.next_cursor, beyond.previous_cursor) == ([], None, None)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"start": 5}, r"start must be an event, or its \(session_id, seq\), not 5"),
        ({"start": (1, "2")}, "start must be an event"),
        ({"start": (1, 2), "offset": 3}, "give start or offset, not both"),
        ({"start": (1, 2), "cursor": "x"}, "give cursor or start, not both"),
        ({"offset": -1}, "from 0 to 100,000, not -1"),
        ({"offset": 100_001}, "go further with a page's next_cursor"),
        ({"offset": True}, "from 0 to 100,000"),
        ({"offset": 1, "text": "x"}, "leave the other filters out"),
    ],
)
async def test_where_a_page_cannot_begin(database, wrong, says):
    """The message says what to give."""
    with pytest.raises(InvalidFilter, match=says):
        await database.logs.list(**wrong)


# -- histograms


def bars(found):
    return [(bar.since, dict(bar.counts)) for bar in found.bars]


async def test_lines_by_level_and_time(database):
    """The counts of each level in stretches of a round length cover what there is, with no hole
    between them.
    """
    for minute, level, number in ((0, "info", 3), (0, "error", 1), (2, "info", 2), (9, "debug", 1)):
        for _ in range(number):
            seq = await database.count() + 1
            await database.add(
                1, [seq], ts=T0 + timedelta(minutes=minute, seconds=seq), level=level, job_id="a"
            )
    found = await database.logs.histogram(buckets=10)
    assert found.width_seconds == 60
    assert bars(found)[0] == (T0, {"info": 3, "error": 1})
    assert bars(found)[2] == (T0 + timedelta(minutes=2), {"info": 2})
    assert bars(found)[9] == (T0 + timedelta(minutes=9), {"debug": 1})
    assert len(found.bars) == 10
    assert all(one.until == other.since for one, other in itertools.pairwise(found.bars))
    assert (found.total, found.looked_at, found.partial, found.counted_since) == (7, 7, False, None)
    coarse = await database.logs.histogram(buckets=3)
    assert bars(coarse) == [
        (T0, {"info": 5, "error": 1}),
        (T0 + timedelta(minutes=5), {"debug": 1}),
    ]
    (one,) = (await database.logs.histogram(buckets=1)).bars
    assert one.counts == {"info": 5, "error": 1, "debug": 1}


async def test_a_histogram_of_a_window(database):
    """It spans the window that was asked for, and counts only what is in it."""
    await database.add(1, range(1, 61))
    since, until = T0 + timedelta(milliseconds=11), T0 + timedelta(milliseconds=41)
    found = await database.logs.histogram(since=since, until=until, buckets=4)
    assert found.width_seconds == 0.01
    assert [bar.total for bar in found.bars] == [9, 10, 10, 1]
    assert found.total == await database.logs.count(since=since, until=until)
    empty = await database.logs.histogram(since=T0 + timedelta(days=1))
    assert (empty.bars, empty.total, empty.looked_at) == ((), 0, 0)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_histogram_of_all_time(database):
    """A window may be as long as there is time; everything is counted once."""
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    await database.add(1, range(1, 6))
    for since, until in (
        (first, last),
        (datetime(1, 1, 3, tzinfo=UTC), T0 + timedelta(days=1)),
        (T0 - timedelta(days=9), last),
    ):
        for buckets in (1, 7, 240):
            found = await database.logs.histogram(since=since, until=until, buckets=buckets)
            assert 1 <= len(found.bars) <= buckets
            assert found.total == 5


async def test_a_histogram_of_many_lines(database, monkeypatch):
    """Lines that are counted in several looks are counted once each; where the time is over, it
    says from when on all are counted, and the newest are.
    """
    monkeypatch.setattr(paging, "SCAN_LIMIT", 10)
    monkeypatch.setattr(histograms, "SCAN_LIMIT", 10)
    await database.add(1, range(1, 48))
    found = await database.logs.histogram(buckets=7)
    assert (found.total, found.looked_at, found.partial) == (47, 47, False)
    assert found.total == await database.logs.count()
    searched = await database.logs.histogram(buckets=7, text=":4")
    assert (searched.total, searched.looked_at) == (9, 47)
    assert searched.total == await database.logs.count(text=":4")

    moments = iter([0.0, 0.5, 0.9, 1.1])
    monkeypatch.setattr(histograms, "_now", lambda: next(moments))
    some = await database.logs.histogram(buckets=7, max_seconds=1.0)
    assert some.partial
    assert (some.total, some.looked_at) == (20, 20)
    assert some.counted_since == T0 + timedelta(milliseconds=28)
    assert sum(bar.total for bar in some.bars if bar.until <= some.counted_since) == 0


async def test_a_histogram_counts_each_level(database, monkeypatch):
    """It has the numbers of the lines that are stored, whether a chunk's lines of unusual levels
    are few and found by their level, or many, also those of a level that is not the library's
    (R36).
    """
    monkeypatch.setattr(paging, "SCAN_LIMIT", 10)
    monkeypatch.setattr(histograms, "SCAN_LIMIT", 10)
    for session, job in ((1, "a"), (2, "b")):
        await database.job(job)
        for numbers, level in (
            (range(1, 10), "info"),
            ([10], "error"),
            (range(11, 15), "info"),
            (range(15, 19), "notice"),
            (range(19, 34), "info"),
            ([34], "warning"),
        ):
            step = {"step_id": "s"} if numbers[0] < 19 else {}
            await database.add(session, numbers, job_id=job, level=level, **step)
    for wanted in (
        {},
        {"job_id": "a"},
        {"job_id": ("a", "b")},
        {"step_id": "s"},
        {"job_id": "a", "step_id": "s"},
        {"job_id": "b", "since": T0 + timedelta(milliseconds=40, microseconds=1)},
        {"job_id": "a", "until": T0 + timedelta(milliseconds=30)},
        {"levels": ("info", "error"), "job_id": "a"},
    ):
        listed = await database.logs.list(**wanted, limit=1000)
        for buckets in (1, 9):
            found = await database.logs.histogram(**wanted, buckets=buckets)
            for bar in found.bars:
                inside = [one.level for one in listed if bar.since <= one.ts < bar.until]
                assert bar.counts == Counter(inside), (wanted, buckets, bar)
            assert found.total == len(listed)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_histogram_of_a_job_does_not_read_its_lines(database, monkeypatch):
    """The index has what it counts, but for the lines of unusual levels; and to find the end of a
    chunk, one row is fetched (R47: the strip of a million lines).
    """
    monkeypatch.setattr(paging, "SCAN_LIMIT", 20)
    monkeypatch.setattr(histograms, "SCAN_LIMIT", 20)
    await database.job("a")
    await database.add(1, range(1, 40), job_id="a")
    await database.add(1, range(40, 42), job_id="a", level="error")
    database.asked.clear()
    found = await database.logs.histogram(job_id="a", buckets=5)
    assert found.total == 41
    covered = []
    async with database.engine.connect() as connection:
        for statement in database.asked:
            assert len((await connection.execute(statement)).all()) < 20
            sql = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
            if "AS number" in sql:
                plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")
                read = [row[3] for row in plan if "INDEX structjob_logs_by_job" in row[3]]
                covered.append(bool(read) and all("COVERING" in one for one in read))
    assert covered == [True, True, False]  # what is left is less than a chunk


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_histogram_of_one_interval_reads_each_line_once(database, monkeypatch):
    """It takes as long as one of many intervals, though each chunk is a part of the interval (R47:
    the counts of a job of a million lines).
    """
    monkeypatch.setattr(paging, "SCAN_LIMIT", 100)
    monkeypatch.setattr(histograms, "SCAN_LIMIT", 100)
    await database.job("a")
    await database.add(1, range(1, 2_001), job_id="a")
    one, many = [await _effort(database, buckets) for buckets in (1, 100)]
    assert one < 2 * many


async def _effort(database, buckets):
    """Return how many hundreds of SQLite's instructions a histogram of the job takes to count."""
    database.asked.clear()
    assert (await database.logs.histogram(job_id="a", buckets=buckets)).total == 2_000
    steps = itertools.count()
    with contextlib.closing(sqlite3.connect(database.engine.url.database)) as connection:
        connection.set_progress_handler(lambda: next(steps) < 0, 100)
        for statement in database.asked:
            sql = str(statement.compile(database.engine, compile_kwargs={"literal_binds": True}))
            if "AS number" in sql:
                connection.execute(sql).fetchall()
    return next(steps)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_histogram_of_lines_at_one_time(database, monkeypatch):
    """They are counted once each, though several looks divide them, at the start of an interval."""
    monkeypatch.setattr(paging, "SCAN_LIMIT", 10)
    await database.add(1, range(1, 3), ts=T0 - timedelta(seconds=5))
    await database.add(1, range(3, 18), ts=T0)
    await database.add(1, range(18, 20), ts=T0 + timedelta(seconds=5))
    found = await database.logs.histogram(buckets=11)
    assert [bar.total for bar in found.bars if bar.total] == [2, 15, 2]


async def test_a_histogram_of_a_tree_of_jobs(database, monkeypatch):
    """A job's lines are counted with its children's, be they two or very many."""
    await database.job("a")
    for number in range(5):
        await database.job(f"c{number}", parent="a")
        await database.add(number, range(1, 4), job_id=f"c{number}")
    await database.add(9, range(1, 3), job_id="other")
    few = await database.logs.histogram(job_id="a", buckets=5)
    monkeypatch.setattr("structjob.queries.log_listing._MAX_BRANCHES", 3)
    many = await database.logs.histogram(job_id="a", buckets=5)
    assert few.total == 15
    assert many == few
    await database.add(1, [4], job_id="c1", ts=T0.replace(year=2040) + timedelta(microseconds=2))
    assert (await database.logs.histogram(job_id="a", buckets=3)).total == 16


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_histogram_that_cannot_be(database):
    """The message says what is accepted."""
    for wrong in ({"buckets": 0}, {"buckets": 241}, {"buckets": "7"}, {"max_seconds": 0}):
        with pytest.raises(InvalidFilter, match="must be a"):
            await database.logs.histogram(**wrong)
