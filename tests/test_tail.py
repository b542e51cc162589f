"""Following the log: each event once, none missed, whichever process stores it and in whatever
order it is committed.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import pytest
import structlog
from database_support import fresh
from log_support import T0, LogDatabase

import structjob
from structjob.cli import follow
from structjob.exceptions import InvalidFilter, StoreUnavailable
from structjob.filters import LogFilter
from structjob.models import EventRecord, Gap
from structjob.queries import paging
from structjob.queries import tail as tailing
from structjob.queries import tail_position as positions
from structjob.queries import tail_reader as reading
from structjob.queries import tail_sessions as finding
from structjob.queries.jobs import Jobs
from structjob.queries.logs import Logs

log = structlog.get_logger("tests.tail")


def gap(session_id, first, last, reason):
    """Return a gap of a session."""
    return Gap(session_id=session_id, first_seq=first, last_seq=last, reason=reason)


@pytest.fixture
async def database(database):
    if database.kind == "mariadb":
        # Where rows with the same numbers were deleted a moment ago, InnoDB locks the gaps: one
        # writer would wait for the other.
        await database.execute("TRUNCATE structjob_logs")
    return LogDatabase(database.engine)


@pytest.fixture
async def sqlite(tmp_path):
    async with fresh("sqlite", tmp_path) as opened:
        yield LogDatabase(opened.engine)


@pytest.fixture
def patience(monkeypatch):
    """Sets how long a missing number is waited for, and how long a session that has ended is not
    examined.
    """

    def patience(seconds):
        monkeypatch.setattr(tailing, "MISSING_TIMEOUT", seconds)
        monkeypatch.setattr(finding, "ROUND", seconds)

    return patience


async def come(tail):
    """Return what has come, as far as it can be returned."""
    found = []
    while some := await tail.poll(0):
        found += some
    return found


async def messages(tail):
    return [event.message if not isinstance(event, Gap) else event for event in await come(tail)]


# -- exactly once
# --------------------------------------------------------------------------


async def test_what_is_stored_comes_first_then_what_comes(database):
    """A tail begins with what is there, in the order of time, and goes on with what is stored
    later, each event once (R37).
    """
    await database.session(1, 2)
    await database.add(1, [1, 2])
    await database.add(2, [1])
    tail = database.logs.tail()
    assert await messages(tail) == ["1:1", "1:2", "2:1"]
    assert await messages(tail) == []
    await database.add(2, [2])
    await database.add(1, [3])
    assert await messages(tail) == ["2:2", "1:3"]
    await database.session(3)
    await database.add(3, [1])
    assert await messages(tail) == ["3:1"]


async def test_it_can_begin_at_the_end(database):
    """`last` says how many of the stored events that match come first; 0 is from now on (R37)."""
    await database.session(1)
    await database.add(1, [1, 2, 3], level="error")
    await database.add(1, [4, 5])
    assert await messages(database.logs.tail(last=2)) == ["1:4", "1:5"]
    assert await messages(database.logs.tail(last=2, level="error")) == ["1:2", "1:3"]
    assert await messages(database.logs.tail(last=9)) == ["1:1", "1:2", "1:3", "1:4", "1:5"]
    tail = database.logs.tail(last=0)
    assert await messages(tail) == []
    await database.add(1, [6])
    assert await messages(tail) == ["1:6"]


@pytest.mark.parametrize("matching", [range(1, 9), (1, 3, 4, 6), (5,), ()])
async def test_it_begins_that_many_matches_back(sqlite, monkeypatch, matching):
    """`last` counts the events that match a search, however many looks that takes (R37)."""
    monkeypatch.setattr(paging, "SCAN_LIMIT", 3)
    await sqlite.session(1)
    for number in range(1, 9):
        await sqlite.add(1, [number], message=f"{'hit' if number in matching else 'no'} {number}")
    hits = [f"hit {number}" for number in matching]
    for last in range(1, len(hits) + 2):
        assert await messages(sqlite.logs.tail(last=last, text="hit")) == hits[-last:]


async def test_two_writers_commit_out_of_order(database):
    """What is committed late, though it was numbered first, is waited for, and comes once, in the
    order of its session (R37).
    """
    await database.session(1, 2)
    await database.add(1, [1])
    tail = database.logs.tail()
    assert await messages(tail) == ["1:1"]
    async with database.slow(1, [2, 3]):
        await database.add(1, [4, 5])
        await database.add(2, [1])
        assert await messages(tail) == ["2:1"]
        await database.add(1, [6])
        assert await messages(tail) == []
    assert await messages(tail) == ["1:2", "1:3", "1:4", "1:5", "1:6"]
    assert await messages(tail) == []


async def test_following_a_job_to_its_last_line(database, monkeypatch):
    """What is stored is shown, though the job has ended and a line before it is committed late;
    that is waited for no longer then (R37).
    """
    monkeypatch.setattr(follow, "LOOK_EVERY", 0)
    await database.session(1)
    await database.job("mine")
    looked = asyncio.Event()

    async def look():
        looked.set()

    reader = SimpleNamespace(
        logs=database.logs, jobs=Jobs(database.fetch, look), deliver_now_and_then=look
    )
    following = aiter(follow._follow(reader, {"job_id": "mine"}, "mine", None))
    await database.add(1, [1], job_id="mine")
    assert (await anext(following)).message == "1:1"
    async with database.slow(1, [2, 3], job_id="mine"):
        await database.add(1, [4, 5], job_id="mine")
        await database.complete("mine")
        rest = asyncio.create_task(_all(following))
        for _ in range(5):
            looked.clear()
            await asyncio.wait(
                {rest, asyncio.create_task(looked.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
        assert not rest.done()
    async with asyncio.timeout(30):
        assert await rest == ["1:2", "1:3", "1:4", "1:5"]


async def _all(events):
    return [event.message async for event in events]


async def test_a_session_whose_only_events_are_committed_late(database):
    """A late commit is seen though no later number of its session hints at it, and though its ids
    were passed long ago (R37).
    """
    await database.session(1, 2)
    tail = database.logs.tail()
    assert await messages(tail) == []
    async with database.slow(2, [1, 2]):
        await database.add(1, [1])
        assert await messages(tail) == ["1:1"]
    assert await messages(tail) == ["2:1", "2:2"]


async def test_a_tail_that_begins_between_two_commits(database):
    """What is not committed yet when a tail begins comes all the same, and the filter has no part
    in it (R37).
    """
    await database.session(1)
    await database.add(1, [1])
    async with database.slow(1, [2], level="error"):
        await database.add(1, [3, 4])
        everything, from_now, errors = (
            database.logs.tail(),
            database.logs.tail(last=0),
            database.logs.tail(level="error"),
        )
        assert await messages(everything) == ["1:1", "1:3", "1:4"]
        assert await messages(from_now) == await messages(errors) == []
    assert (
        await messages(everything) == await messages(from_now) == await messages(errors) == ["1:2"]
    )
    await database.add(1, [5])
    assert await messages(everything) == await messages(from_now) == ["1:5"]
    assert await messages(errors) == []


async def test_events_that_do_not_match_are_passed(database):
    """A filter leaves out, and holds nothing up: neither a hole that is filled by other events, nor
    a page full of them (R37).
    """
    await database.session(1)
    tail = database.logs.tail(level="error", text="disk", attrs={"vm.name": "a"})
    assert await messages(tail) == []
    async with database.slow(1, [1, 2]):
        await database.add(1, [3], level="error", message="the disk", attrs={"vm": {"name": "a"}})
        assert await messages(tail) == []
    assert await messages(tail) == ["the disk"]
    await database.add(1, range(4, 1500))
    await database.add(1, [1500], level="error", message="Disk", attrs={"vm.name": "a"})
    assert await messages(tail) == ["Disk"]


async def test_children_that_begin_later(database):
    """A job's tail holds its children's events, those of children that begin later, and whose row
    comes after their events (R37).
    """
    await database.session(1)
    await database.job("parent")
    tail = database.logs.tail(job_id="parent", children=True)
    await database.add(1, [1], job_id="parent")
    assert await messages(tail) == ["1:1"]
    await database.add(1, [2], job_id="child")
    await database.add(1, [3], job_id="other")
    assert await messages(tail) == []
    await database.job("child", "parent")
    assert await messages(tail) == ["1:2"]
    await database.job("other")
    await database.add(1, [4], job_id="parent")
    assert await messages(tail) == ["1:4"]


async def test_a_job_of_another_database_holds_nothing_up(sqlite, monkeypatch):
    """A job whose row never comes is waited for once (R37)."""
    await sqlite.session(1)
    await sqlite.job("parent")
    tail = sqlite.logs.tail(job_id="parent", children=True)
    assert await messages(tail) == []
    await sqlite.add(1, [1, 2, 3], job_id="elsewhere")
    await sqlite.add(1, [4], job_id="parent")
    assert await messages(tail) == []
    monkeypatch.setattr(reading, "JOB_PATIENCE", 0.0)
    assert await messages(tail) == ["1:4"]


@pytest.mark.parametrize("resumed", [False, True])
async def test_ids_that_fall(database, resumed, patience):
    """Where ids fall as events are stored, a tail misses none and repeats none, whichever session
    they are of (faults 0.7).
    """
    database.backward = True
    await database.session(1, 2, 3)
    await database.add(1, range(1, 4))
    await database.add(2, [1])
    await database.add(3, [1, 2])
    await database.end(2, 1, ago=timedelta(hours=2))
    await database.end(3, 4, ago=timedelta(hours=2), reason="vanished")
    tail = database.logs.tail()
    assert await messages(tail) == ["1:1", "1:2", "1:3", "2:1", "3:1", "3:2"]
    if resumed:
        tail = database.logs.tail(after=tail.cursor)
    for number in range(4, 54):
        await database.add(1, [number])
    await database.session(4)
    await database.add(4, [1])
    await database.add(3, [3, 4, 5])
    patience(0)  # the resumed tail examines all sessions at once, the other one at intervals
    found = await messages(tail)
    assert sorted(found) == sorted(
        [*(f"1:{number}" for number in range(4, 54)), "4:1", "3:3", "3:4", "3:5"]
    )
    assert await messages(tail) == []


async def test_ids_that_fall_while_history_is_read(database):
    """A session that begins while what was stored is still being returned comes once, whatever its
    ids are (faults 0.7).
    """
    await database.session(1)
    await database.add(1, range(1, 251))
    tail = database.logs.tail(last=220)
    found = [(await anext(tail)).message]
    database.backward = True
    await database.session(2)
    await database.add(2, [1, 2], ts=T0)
    await database.add(1, [251])
    await database.end(2, 2)
    found += await messages(tail)
    assert sorted(found) == sorted([*(f"1:{number}" for number in range(31, 252)), "2:1", "2:2"])


async def test_reading_all_that_is_stored_where_ids_fall(database):
    """Every event that is stored is read once, and what is added meanwhile does not keep the
    reading going (faults 0.7).
    """
    database.backward = True
    await database.session(1)
    await database.add(1, range(1, 31))
    found = []
    async for event in database.logs.iterate(limit=10):
        found.append(event.seq)
        await database.add(1, [100 + len(found)])
    assert found == list(range(1, 31))


# -- many sessions
# --------------------------------------------------------------------------


@pytest.fixture
def many(monkeypatch):
    """Twelve living sessions, of which a look examines three and those of the newest events."""
    monkeypatch.setattr(finding, "FEW", 3)
    monkeypatch.setattr(finding, "NEWEST", 20)
    monkeypatch.setattr(finding, "IN_FLIGHT", 0)
    return range(1, 13)


@pytest.mark.slow
async def test_many_sessions_are_examined_in_parts(database, many, monkeypatch):
    """Beside many living sessions, what is stored in any of them comes with the next look, and no
    look examines all of them (R37).
    """
    await database.session(*many)
    for number in many:
        await database.add(number, [1])
    tail = database.logs.tail(last=0)
    assert await messages(tail) == []
    examined = []
    original = tail._finder.look

    async def look(*args):
        found = await original(*args)
        examined.append(len(found.rows))
        return found

    monkeypatch.setattr(tail._finder, "look", look)
    for seq, interval in ((2, 0.0), (3, 600.0)):  # each look with a part of the others, or none
        monkeypatch.setattr(finding, "INTERVAL", interval)
        for number in reversed(many):
            await database.add(number, [seq])
            assert await messages(tail) == [f"{number}:{seq}"]
        await database.session(20 + seq)
        await database.add(20 + seq, [1])
        assert await messages(tail) == [f"{20 + seq}:1"]
    assert max(examined) <= 8


async def test_many_sessions_whose_ids_fall(database, many, monkeypatch):
    """Beside many living sessions, events whose ids are lower than those of events that were read
    come, too, with the part that their session belongs to (R37, faults 0.7).
    """
    monkeypatch.setattr(finding, "INTERVAL", 0.0)
    database.backward = True
    await database.session(*many)
    tail = database.logs.tail(last=0)
    assert await messages(tail) == []
    await database.add(12, range(1, 31))
    assert len(await messages(tail)) == 30
    found = []
    for number in many:
        await database.add(number, [31 if number == 12 else 1])
    await database.session(13)
    await database.add(13, [1])
    for _ in range(2 * len(many)):
        found += await messages(tail)
    assert sorted(found) == sorted([*(f"{number}:1" for number in many[:-1]), "12:31", "13:1"])


async def test_more_events_than_a_look_examines(database, many, monkeypatch):
    """If more was stored since the last look than it reads the sessions of, every session is read
    at once (R37).
    """
    monkeypatch.setattr(finding, "INTERVAL", 600.0)
    await database.session(*many)
    tail = database.logs.tail(last=0)
    assert await messages(tail) == []
    await database.add(1, [1])
    assert await messages(tail) == ["1:1"]
    for number in many[1:]:
        await database.add(number, range(1, 11))
    assert len(await messages(tail)) == 110


async def test_resuming_with_many_sessions(database, many, monkeypatch):
    """A cursor is continued at once, in whichever session events were stored meanwhile (R37)."""
    monkeypatch.setattr(finding, "INTERVAL", 600.0)
    await database.session(*many)
    tail = database.logs.tail(last=0)
    assert await messages(tail) == []
    for number in many:
        await database.add(number, [1])
    await database.end(5, 1)
    await database.end(6, 1, ago=timedelta(hours=2))
    found = await messages(database.logs.tail(after=tail.cursor))
    assert sorted(found) == sorted(f"{number}:1" for number in many)
    assert sorted(await messages(tail)) == sorted(found)


# -- gaps
# --------------------------------------------------------------------------


async def test_gaps_explain_what_does_not_come(database):
    """A number that was dropped or pruned is not waited for; with `gaps=True` a gap is returned in
    its place (R37).
    """
    await database.session(1)
    plain, telling = database.logs.tail(), database.logs.tail(gaps=True)
    assert await messages(plain) == await messages(telling) == []
    await database.add(1, [1, 2, 3, 7])
    assert await messages(plain) == ["1:1", "1:2", "1:3"]
    await database.prune(1, 2, 3)
    await database.gap(1, 4, 5)
    await database.gap(1, 6, 6, "dead_lettered")
    assert await messages(plain) == ["1:7"]
    told = [gap(1, 2, 3, "pruned"), gap(1, 4, 5, "queue_full"), gap(1, 6, 6, "dead_lettered")]
    assert await messages(telling) == ["1:1", *told, "1:7"]
    await database.gap(1, 8, 9, "in_flight")
    await database.end(1, 9)
    assert await messages(telling) == [gap(1, 8, 9, "in_flight")]
    assert await messages(telling) == []


async def test_many_explanations(sqlite, monkeypatch):
    """A log that was thinned on purpose has as many gaps as events: all are passed (R37)."""
    monkeypatch.setattr(reading, "EXPLANATIONS", 3)
    await sqlite.session(1)
    tail = sqlite.logs.tail(last=0)
    assert await messages(tail) == []
    for seq in range(1, 41):
        await sqlite.gap(1, seq, seq, "pruned")
    await sqlite.add(1, [41])
    assert await messages(tail) == ["1:41"]


async def test_a_number_that_never_comes_is_given_up_and_taken_later(database, patience):
    """After a time what follows a missing number goes on, and the gap is told; if the event comes
    after all, it is returned (R37).
    """
    await database.session(1)
    tail = database.logs.tail(gaps=True)
    assert await messages(tail) == []
    await database.add(1, [1, 4, 6])
    assert await messages(tail) == ["1:1"]
    patience(0)
    assert await messages(tail) == [gap(1, 2, 3, "missing"), "1:4", gap(1, 5, 5, "missing"), "1:6"]
    cursor = tail.cursor
    await database.add(1, [3])
    assert await messages(tail) == ["1:3"]
    assert await messages(tail) == []
    resumed = database.logs.tail(gaps=True, after=cursor)
    assert await messages(resumed) == ["1:3"]
    await database.add(1, [2])
    assert await messages(resumed) == await messages(tail) == ["1:2"]


async def test_the_spool_of_a_session_that_ended_long_ago(database, patience):
    """A process that was taken for dead, and whose gap was explained, delivers hours later: each of
    its events comes, once (R37).
    """
    await database.session(1, 2)
    await database.add(1, [1, 2])
    await database.gap(1, 3, 4, "in_flight")
    await database.end(1, 4, ago=timedelta(hours=5), reason="lease_expired")
    tail = database.logs.tail()
    assert await messages(tail) == ["1:1", "1:2"]
    await database.add(2, [1])
    assert await messages(tail) == ["2:1"]
    cursor = tail.cursor
    async with database.slow(1, [3, 4, 5]):
        await database.add(2, [2])
        assert await messages(tail) == ["2:2"]
    patience(0)
    for one in (tail, database.logs.tail(after=cursor)):
        found = await messages(one)
        assert sorted(found) == ["1:3", "1:4", "1:5"] + (["2:2"] if one is not tail else [])


# -- cursors
# --------------------------------------------------------------------------


async def test_reconnecting_at_every_event(database):
    """A tail that continues with the cursor behind any event returns exactly the rest, whatever was
    stored meanwhile (R37).
    """
    await database.session(1, 2)
    await database.add(1, [1, 2, 3])
    await database.add(2, [1, 2])
    tail = database.logs.tail()
    seen, cursors = [], []

    async def read(number):
        for _ in range(number):
            seen.append((await anext(tail)).message)
            cursors.append(tail.cursor)

    await read(5)
    async with database.slow(1, [4, 5]):
        await database.add(2, [3])
        await database.add(1, [6])
        await read(1)
    await database.session(3)
    await database.add(3, [1, 2])
    await read(5)
    assert len(set(seen)) == len(seen) == await database.count()
    for index, cursor in enumerate(cursors):
        rest = await messages(database.logs.tail(after=cursor))
        assert sorted(rest) == sorted(seen[index + 1 :]), index


async def test_reconnecting_after_the_sessions_have_ended(database):
    """A session that began and ended between two reads is not missed; one that was over before is
    not returned again (R37).
    """
    await database.session(1, 2)
    await database.add(1, [1])
    await database.end(1, 1)
    await database.add(2, [1])
    tail = database.logs.tail()
    assert await messages(tail) == ["1:1", "2:1"]
    await database.add(2, [2])
    cursor = tail.cursor
    await database.end(2, 2)
    await database.session(3)
    await database.add(3, [1])
    await database.end(3, 1)
    assert sorted(await messages(database.logs.tail(after=cursor))) == ["2:2", "3:1"]


async def test_a_tail_that_begins_before_everything(database):
    """In an empty database, a session that is over before the next look is not missed; an unread
    tail's cursor begins anew (R37).
    """
    tail = database.logs.tail(last=0)
    unread = tail.cursor
    assert await messages(tail) == []
    cursor = tail.cursor
    await database.session(1)
    await database.add(1, [1, 2])
    await database.end(1, 2)
    assert await messages(tail) == ["1:1", "1:2"]
    assert await messages(database.logs.tail(after=cursor)) == ["1:1", "1:2"]
    assert await messages(database.logs.tail(after=unread)) == []
    assert await messages(tail) == []


async def test_a_cursor_of_another_filter_is_refused(sqlite):
    """A cursor belongs to its filter; a text that is no cursor gets another error (R36, R37)."""
    cursor = sqlite.logs.tail(level="error").cursor
    sqlite.logs.tail(level="error", after=cursor)
    with pytest.raises(InvalidFilter, match="another filter"):
        sqlite.logs.tail(after=cursor)
    for wrong in ("", "x", "é", cursor[:-4], 3):
        with pytest.raises(InvalidFilter, match="cursor"):
            sqlite.logs.tail(after=wrong)
    refused = (
        {"order": "desc"},
        {"until": timedelta(hours=1)},
        {"last": -1},
        {"last": 1, "after": cursor},
        {"children": True},
    )
    for filters in refused:
        with pytest.raises(InvalidFilter):
            sqlite.logs.tail(**filters)
    assert sqlite.asked == []


# -- manners
# --------------------------------------------------------------------------


async def test_an_idle_tail_asks_once_a_second(sqlite, monkeypatch):
    """While nothing comes, one query a second is sent, and it uses its indexes (R37)."""
    monkeypatch.setattr(tailing, "POLL", 0.01)
    await sqlite.session(1, 2)
    await sqlite.add(1, range(1, 50))
    tail = sqlite.logs.tail(last=0)
    assert await messages(tail) == []
    sqlite.asked.clear()
    looks = 0
    original = tail._read_new

    async def look():
        nonlocal looks
        looks += 1
        return await original()

    monkeypatch.setattr(tail, "_read_new", look)
    while looks < 2:  # on a busy machine one takes long
        assert await tail.poll(0.2) == []
    assert len(sqlite.asked) == looks
    statement = sqlite.asked[-1].compile(
        dialect=sqlite.engine.dialect, compile_kwargs={"literal_binds": True}
    )
    async with sqlite.engine.connect() as connection:
        plan = [
            row[3] for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")
        ]
    assert not [step for step in plan if step.startswith("SCAN structjob_")], plan


async def test_waiting_with_a_timeout_loses_nothing(sqlite, monkeypatch):
    """A tail that was cancelled while it waited or read goes on where it was (R37)."""
    monkeypatch.setattr(tailing, "POLL", 0.001)
    await sqlite.session(1)
    # The driver's own connection does not survive being cancelled; a tracker's does.
    tail = Logs(lambda statement: asyncio.shield(sqlite.fetch(statement)), sqlite._nothing).tail()
    found = []
    for seq in range(1, 60):
        await sqlite.add(1, [seq])
        try:
            async with asyncio.timeout(0.0005 * (seq % 7)):
                found.append((await anext(tail)).seq)
        except TimeoutError:
            pass
    found += [event.seq for event in await come(tail)]
    assert found == list(range(1, 60))


async def test_memory_is_bounded(sqlite):
    """A consumer that is slow has a hundred events in memory at most, however many there
    are (R37).
    """
    await sqlite.session(1)
    tail = sqlite.logs.tail()
    assert await messages(tail) == []
    await sqlite.add(1, range(1, 3001))
    assert (await anext(tail)).seq == 1
    assert len(tail._chunk) < tailing.CHUNK
    assert len(tail._pending) < reading.PAGE
    assert [event.seq async for event in limited(tail, 2999)] == list(range(2, 3001))


@pytest.mark.parametrize("wanted", [{}, {"level": "error"}, {"job_id": "parent"}], ids=str)
async def test_a_tail_of_large_batches_returns_the_same(database, wanted):
    """It reads whole rows with their numbers, in one statement, as long as most of them match; its
    events, gaps and cursors are those of a tail that reads numbers first (R37, R47).
    """
    await database.session(1, 2, 3)
    await database.job("parent")
    await database.job("child", "parent")
    large, small = (database.logs.tail(gaps=True, batch=batch, **wanted) for batch in (1_000, 100))
    assert await come(large) == await come(small) == []
    at = large.cursor
    for first in (1, 101, 201):
        await database.add(1, range(first, first + 50), job_id="child", level="error")
        await database.gap(1, first + 50, first + 99)
        await database.add(2, range(first, first + 100), level="info")
        await database.add(3, range(first, first + 90), job_id="parent", level="error")
        async with database.slow(3, range(first + 90, first + 95), level="critical"):
            await database.add(3, range(first + 95, first + 100), level="error")
            assert await come(large) == await come(small) != []
    assert await come(large) == await come(small)
    assert await come(database.logs.tail(after=large.cursor, **wanted)) == []
    again = await come(database.logs.tail(after=at, **wanted))
    encoded = await come(database.logs.tail(after=at, encoded=True, batch=1_000, **wanted))
    assert [msgspec.json.decode(one.json, type=EventRecord) for one in encoded] == again != []


async def limited(tail, number):
    async for event in tail:
        yield event
        number -= 1
        if not number:
            return


async def test_an_outage_is_waited_out(sqlite, monkeypatch):
    """A database that does not answer at first is an error; one that goes away later is waited for
    (R29, R37).
    """
    monkeypatch.setattr(tailing, "POLL", 0.001)
    away = True

    async def fetch(statement):
        if away:
            raise StoreUnavailable("away")
        return await sqlite.fetch(statement)

    tail = Logs(fetch, sqlite._nothing).tail()
    with pytest.raises(StoreUnavailable):
        await anext(tail)
    away = False
    await sqlite.session(1)
    await sqlite.add(1, [1])
    assert await messages(tail) == ["1:1"]
    away = True
    assert await tail.poll(0.01) == []
    await sqlite.add(1, [2])
    away = False
    assert (await anext(tail)).message == "1:2"


# -- in a program
# --------------------------------------------------------------------------


async def test_a_commit_of_this_process_is_seen_at_once(tracker, monkeypatch):
    """A commit of this process wakes its tails, without waiting for the next query (R37)."""
    monkeypatch.setattr(tailing, "POLL", 600.0)
    async with tracker.job("copy") as job:
        tail = tracker.logs.tail(job_id=job.id)
        assert [event.kind for event in await tail.poll()] == ["operation_start"]
        for number in range(3):
            log.info("line", n=number)
            assert (await anext(tail)).attrs["n"] == number


async def test_events_of_another_program_are_seen_soon_while_more_come(sqlite, monkeypatch):
    """Who follows a log that is being written does not wait a second for each line, also where only
    the tables tell that there are more (R37).
    """
    monkeypatch.setattr(tailing, "POLL", 600.0)
    await sqlite.session(1)
    await sqlite.add(1, [1])
    tail = sqlite.logs.tail()
    assert await messages(tail) == ["1:1"]
    async with asyncio.timeout(30):
        for seq in range(2, 5):
            waiting = asyncio.create_task(anext(tail))
            await asyncio.sleep(0)  # it waits before the event is stored
            await sqlite.add(1, [seq])
            assert (await waiting).message == f"1:{seq}"


async def test_the_first_event_after_a_pause_is_seen_soon_in_a_file(
    tracker, db_path, tmp_path, monkeypatch
):
    """A tail sees in the database's file that any process has committed, and through which link the
    file was opened makes no difference (R37).
    """
    monkeypatch.setattr(tailing, "POLL", 600.0)
    link = tmp_path / "link.db"
    link.symlink_to(db_path)
    async with asyncio.timeout(30), structjob.Reader(f"sqlite:///{link}") as reader:
        tail = reader.logs.tail(last=0)
        assert await tail.poll(0) == []
        waiting = asyncio.create_task(anext(tail))
        await asyncio.sleep(0)  # it waits before the event is logged
        log.info("at last")
        assert (await waiting).message == "at last"


async def test_it_ends_with_the_tracker(db_url):
    """Closing the tracker, or the tail, ends the iteration without an error (R34, R37)."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url) as tracker:
        tails = [tracker.logs.tail(last=0) for _ in range(2)]
        waiting = [asyncio.create_task(anext(tail, None)) for tail in tails]
        assert await tracker.logs.tail(last=0).poll(0) == []
        await tails[0].aclose()
        assert await waiting[0] is None
        assert not waiting[1].done()
    assert await waiting[1] is None
    assert await tails[1].poll() == []


async def test_it_ends_at_once_where_the_tracker_is_closed(db_url, monkeypatch):
    """A tail of a closed tracker has no event to wait for, and ends without a pause (R34, R37)."""
    monkeypatch.setattr(tailing, "POLL", 600.0)
    async with structjob.Tracker(db_url) as tracker:
        pass
    async with asyncio.timeout(30):
        assert [event async for event in tracker.logs.tail()] == []
        assert await tracker.logs.tail().poll() == []


async def test_a_tail_in_another_loop(tracker):
    """A tail may be followed in a thread with a loop of its own (R37)."""

    def follow():
        async def first():
            return (await anext(tracker.logs.tail(text="hello"))).message

        return asyncio.run(first())

    following = asyncio.create_task(asyncio.to_thread(follow))
    log.info("hello")
    assert await following == "hello"


async def test_events_as_json(database):
    """`encoded=True` returns what a record is as JSON bytes, with what identifies it and its level;
    of history and of what comes later, with the gaps where they are wanted (R46).
    """
    await database.session(1)
    attrs = {"vm": "pg-07", "n": 2**53 + 1, "text": "ä\n\u2028</script>", "deep": {"a": [1, None]}}
    await database.add(1, [1, 2], attrs=attrs, level="error", job_id="a")
    await database.add(1, [3])
    tail = database.logs.tail(encoded=True, gaps=True)
    found = await tail.poll(0)
    await database.gap(1, 4, 5)
    await database.add(1, [6], attrs={})
    found += await tail.poll(5)
    assert [one for one in found if isinstance(one, Gap)] == [gap(1, 4, 5, "queue_full")]
    events = [one for one in found if not isinstance(one, Gap)]
    assert [(one.session_id, one.seq, one.level) for one in events] == [
        (1, 1, "error"),
        (1, 2, "error"),
        (1, 3, "info"),
        (1, 6, "info"),
    ]
    records = list((await database.logs.list()).items)
    assert msgspec.json.decode(events[0].json)["attrs"] == attrs
    assert [msgspec.json.decode(one.json, type=EventRecord) for one in events] == records


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ('{"a": 1}', {"a": 1}),
        ("[1]", {"value": [1]}),
        ('  "text"', {"value": "text"}),
        ('{"a": ', {"value": '{"a": '}),
        ("no JSON", {"value": "no JSON"}),
        (None, {}),
    ],
)
async def test_attributes_of_another_program(database, stored, shown):
    """Whatever another program has put into the column, a record and its JSON are whole."""
    await database.add(1, [1, 2], attempt="theirs")
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE structjob_logs SET attrs = ? WHERE seq = 1", (stored,)
        )
    (first, second) = await database.logs.list()
    assert (first.attrs, second.seq, first.attempt) == (shown, 2, "theirs")
    assert first.ts.utcoffset() == timedelta()
    (line, _) = await database.logs.tail(encoded=True).poll(0)
    assert msgspec.json.decode(line.json)["attrs"] == shown


async def test_the_number_of_events_to_begin_with_is_checked(sqlite):
    """A number that no database takes is refused; it was an OverflowError of the driver."""
    for wrong in (-1, 1_000_000_001, 2**63, "7", True):
        with pytest.raises(InvalidFilter, match="last must be a whole number from 0"):
            sqlite.logs.tail(last=wrong)
    assert await sqlite.logs.tail(text="a", last=1_000_000_000).poll(0) == []


@pytest.mark.parametrize(
    "forged",
    [
        {"last": 2**63 - 1},
        {"begun": True},
        {"begun": True, "looked_at": datetime.min.replace(tzinfo=UTC)},
        {"begun": True, "looked_at": datetime(2026, 1, 1)},
    ],
)
async def test_a_forged_cursor_is_refused(sqlite, forged):
    """What no tail gave out gets the error of a wrong cursor, not one of a driver (R36)."""
    position = positions.Position(paging.fingerprint("tail", LogFilter(text="a")), **forged)
    with pytest.raises(InvalidFilter, match="does not come from a tail"):
        sqlite.logs.tail(text="a", after=position.encoded())


async def test_polls_of_a_thousand(database):
    """`batch` is how many events a poll returns at most; a cursor taken between two polls, or
    within what one holds, goes on exactly there.
    """
    await database.add(1, range(1, 251))
    tail = database.logs.tail(batch=200)
    assert len(await tail.poll(0)) == 200
    assert len(await database.logs.tail(after=tail.cursor, batch=1_000).poll(0)) == 50
    one_by_one = database.logs.tail(batch=200)
    for _ in range(7):
        event = await anext(one_by_one)
    assert event.seq == 7
    assert (await database.logs.tail(after=one_by_one.cursor, batch=9).poll(0))[0].seq == 8
    for wrong in (0, 1_001, "7", True):
        with pytest.raises(InvalidFilter, match="batch must be a whole number from 1 to 1,000"):
            database.logs.tail(batch=wrong)
