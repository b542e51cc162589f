"""Reading events back: every filter, pages both ways, all of them, and how many."""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

import pytest
import structlog
from database_support import inserted
from each import each
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import structjob
from structjob.exceptions import InvalidFilter
from structjob.filters import LogFilter
from structjob.models import EventRecord
from structjob.queries.logs import Logs
from structjob.store.tables import jobs, logs

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Store:
    """A database with what the queries need, and a list of what they asked for."""

    def __init__(self, database):
        self.engine, self.plan, self.kind = database.engine, database.plan, database.kind
        self._database = database
        self.flushed = 0
        self.asked = []
        self.seq = 0

    async def fetch(self, statement):
        self.asked.append(statement)
        return await self._database.fetch(statement)

    async def flush(self):
        self.flushed += 1

    async def log(self, *messages, **values):
        async with self.engine.begin() as connection:
            for message in messages:
                self.seq += 1
                row = {
                    "session_id": 1,
                    "seq": self.seq,
                    "ts": T0 + timedelta(seconds=self.seq),
                    "level": "info",
                    "type": "system",
                }
                await connection.execute(*inserted(connection, row | {"message": message} | values))

    async def job(self, id_, parent=None):
        async with self.engine.begin() as connection:
            values = {
                "id": id_,
                "parent_job_id": parent,
                "operation": "o",
                "status": "running",
                "created_at": T0,
            }
            await connection.execute(jobs.insert().values(values))


@pytest.fixture
def store(database):
    return Store(database)


@pytest.fixture
def found(store):
    return Logs(store.fetch, store.flush)


def messages(events):
    return [event.message for event in events]


async def test_an_event_comes_back_whole(store, found):
    """All fields of an event, typed; attributes as they were logged (R4)."""
    values = {
        "session_id": 2**53 - 1,
        "seq": 9,
        "ts": T0 + timedelta(microseconds=1),
        "stored_at": T0 + timedelta(seconds=1),
        "level": "warning",
        "attrs": {"n": 3, "deep": {"a": [None]}},
        "type": "task",
        "kind": "step_info",
        "job_id": "j",
        "attempt": 2,
        "step_id": "s",
        "operation": "copy",
        "step": "first",
        "correlation_id": "co",
        "trace_id": "0" * 32,
        "span_id": "0" * 16,
        "stream": "stdout",
        "logger": "app.db",
        "category": "c",
        "project": "p",
    }
    await store.log("hello", **values)
    (event,) = await found.list()
    assert event == EventRecord(id=1, message="hello", **values)
    assert event.ts.tzinfo is UTC


async def test_an_event_without_attributes_has_an_empty_mapping(store, found):
    """`event.attrs` can be read without looking first; what is no object stands under
    `value` (R4).
    """
    await store.log("a")
    await store.log("b", attrs=[1])
    assert [event.attrs for event in await found.list()] == [{}, {"value": [1]}]


async def test_filters_narrow_and_combine(store, found):
    """Every column filter keeps what equals it, and all that are set must hold (R36)."""
    columns = {
        "attempt": 2,
        "step_id": "s",
        "step": "copy",
        "operation": "o",
        "type": "task",
        "kind": "progress",
        "stream": "stderr",
        "logger": "app",
        "category": "c",
        "project": "p",
        "correlation_id": "co",
        "session_id": 7,
        "job_id": "j",
    }
    await store.log("other")
    for name, value in columns.items():
        ids = {"job_id": "t", "step_id": "t"} if name == "type" else {}
        await store.log(name, **{name: value}, **ids)
    for name, value in columns.items():
        assert messages(await found.list(**{name: value})) == [name]
        assert await found.count(**{name: value}) == 1
    await store.log("both", job_id="j", attempt=2)
    assert messages(await found.list(job_id="j", attempt=2)) == ["both"]
    assert len(await found.list()) == len(columns) + 2


async def test_level_means_at_least_unless_exact(store, found):
    """`level="error"` shows what is as bad or worse; `levels` those levels only; `success` lies
    between info and warning (R26, R36).
    """
    for level in ("critical", "debug", "error", "info", "success", "warning"):
        await store.log(level, level=level, job_id="j")
    for filters in ({}, {"job_id": "j"}):
        assert messages(await found.list(level="error", **filters)) == ["critical", "error"]
        assert messages(await found.list(level="success", **filters)) == [
            "critical",
            "error",
            "success",
            "warning",
        ]
        assert messages(await found.list(levels="WARN", **filters)) == ["warning"]
        assert await found.count(level="warning", **filters) == 3
        assert await found.count(level="debug", **filters) == 6


async def test_since_is_included_and_until_is_not(store, found):
    """Adjoining windows show every event once (R36)."""
    await store.log("a", "b", "c")
    middle = T0 + timedelta(seconds=2)
    assert messages(await found.list(since=middle)) == ["b", "c"]
    assert messages(await found.list(until=middle)) == ["a"]
    assert messages(await found.list(since=middle, until=middle + timedelta(microseconds=1))) == [
        "b"
    ]


async def test_text_is_taken_literally(store, found):
    """A search for `50%` or `a_b` finds those characters, whatever letter case the message has
    (R36).
    """
    await store.log("50% done", "500 done", "a_b", "axb", "it's \\ !", "50!")
    assert messages(await found.list(text="50%")) == ["50% done"]
    assert messages(await found.list(text="A_B")) == ["a_b"]
    assert messages(await found.list(text="'s \\ !")) == ["it's \\ !"]
    assert messages(await found.list(text="0!")) == ["50!"]
    assert messages(await found.list(text="DONE")) == ["50% done", "500 done"]
    await store.log("resume", "résumé")
    assert messages(await found.list(text="resum")) == ["resume"]
    assert messages(await found.list(text="RéSUM")) == ["résumé"]


class Colour(StrEnum):
    RED = "red"


COMPARED = [
    (1, ["int", "float", "list"]),
    (1.0, ["int", "float", "list"]),
    (True, ["true"]),
    (False, ["false"]),
    (0, ["zero"]),
    (None, ["null"]),
    ("1", ["text"]),
    ("", ["empty"]),
    ("true", ["true-text"]),
    ("null", ["null-text"]),
    ("Ünï ' \" \\ %", ["odd"]),
    (Colour.RED, ["red"]),
    (10**30, ["huge"]),
    (-(2**63), ["small"]),
    (1.5, ["half"]),
]
"""Values that are looked for, and the events that have them."""


async def test_attributes_compare_by_value_and_type(store, found):
    """`n=1` matches 1 and 1.0 but neither "1" nor true; None matches a null that was logged, not an
    absent key (R36).
    """
    stored = {
        "int": 1,
        "float": 1.0,
        "true": True,
        "false": False,
        "zero": 0,
        "null": None,
        "text": "1",
        "empty": "",
        "true-text": "true",
        "null-text": "null",
        "odd": "Ünï ' \" \\ %",
        "red": "red",
        "huge": 10**30,
        "small": -(2**63),
        "half": 1.5,
        "list": [1],
        "object": {"x": 1},
    }
    for message, one in stored.items():
        await store.log(message, attrs={"x": one})
    await store.log("absent", attrs={})
    await store.log("none")
    for value, matching in COMPARED:
        assert messages(await found.list(attrs={"x": value})) == matching, repr(value)


async def test_a_large_id_is_not_its_neighbour(store, found):
    """Whole numbers of 64 bits compare exactly, though a double cannot tell them apart (R36)."""
    ids = [
        2**53,
        2**53 + 1,
        1234567890123456788,
        1234567890123456789,
        -(2**63),
        -(2**63) + 1,
        2**63 - 1,
    ]
    for one in ids:
        await store.log(str(one), attrs={"tweet": one})
    await store.log("float", attrs={"tweet": 1e18})
    for one in ids:
        assert messages(await found.list(attrs={"tweet": one})) == [str(one)]
    assert messages(await found.list(attrs={"tweet": 10**18})) == ["float"]


async def test_a_number_beyond_64_bits_is_not_its_neighbour(store, found):
    """Whole numbers that a database's own do not hold compare by their digits, and with a float by
    its value (R36).
    """
    numbers = [2**63, 2**63 + 1, 2**64 - 1, 2**64, 10**26 + 1, -(2**63) - 1, 2**63 - 1]
    for one in numbers:
        await store.log(str(one), attrs={"n": one, "in": {"n": one}})
    await store.log("float", attrs={"n": 1e25})
    for one in numbers:
        assert messages(await found.list(attrs={"n": one})) == [str(one)]
        assert messages(await found.list(attrs={"in.n": one})) == [str(one)]
    assert messages(await found.list(attrs={"n": 10**25})) == ["float"]


async def test_attribute_paths_go_deeper_with_dots(store, found):
    """`vm.name` means the name in vm, or a key that has the dot itself; several must all match
    (R36).
    """
    await store.log("deep", attrs={"vm": {"name": "pg", "n": 1}})
    await store.log("flat", attrs={"vm.name": "pg"})
    await store.log("other", attrs={"vm": {"name": "db"}, "name": "pg"})
    await store.log("unicode", attrs={"größe": {"in mm": 5}})
    await store.log("listed", attrs={"vm": [{"name": "db"}, {"name": "pg"}]})
    assert messages(await found.list(attrs={"vm.name": "pg"})) == ["deep", "flat", "listed"]
    assert messages(await found.list(attrs={"vm.name": "pg", "vm.n": 1})) == ["deep"]
    assert messages(await found.list(attrs={"größe.in mm": 5})) == ["unicode"]
    assert await found.count(attrs={"vm.0.name": "pg"}) == 0


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_one_broken_row_does_not_end_a_search(store, found):
    """Text in attrs that is no JSON, put there by someone else, hides nothing beside it (R36)."""
    await store.log("good", attrs={"x": 1})
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO structjob_logs (session_id, seq, ts, level, message, attrs) "
            "VALUES (9, 9, '2026-01-01 00:00:00.000000', 'info', 'bad', '{\"x\": NaN')"
        )
    assert messages(await found.list(attrs={"x": 1})) == ["good"]
    assert {event.message: event.attrs for event in await found.list()}["bad"] == {
        "value": '{"x": NaN'
    }


def forged(key, time="2026-01-01T00:00:00Z"):
    """Return a cursor of our own making."""
    return (
        base64.urlsafe_b64encode(json.dumps(["f", "after", time, key]).encode())
        .decode()
        .rstrip("=")
    )


@each(
    ("filters", "message"),
    [
        ({"jobs": "x"}, "unknown filter 'jobs'.*job_id"),
        ({"level": "loud"}, "unknown level 'loud'"),
        ({"job_id": 5}, "job_id must be a string"),
        ({"job_id": "a\x00"}, "job_id contains a NUL"),
        ({"logger": "\ud800"}, "logger contains"),
        ({"attempt": "1"}, "attempt must be a whole number"),
        ({"attempt": True}, "attempt must be a whole number"),
        ({"session_id": 2**63}, "64 bits"),
        ({"text": 5}, "text must be a string"),
        ({"text": "x" * 4097}, "4,097 characters"),
        ({"children": True}, "needs a job"),
        ({"since": timedelta.max}, "since is a time before the year 1"),
        ({"until": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, "after 9999"),
        ({"attrs": ["x"]}, "attrs must be a mapping"),
        ({"attrs": {"": 1}}, "empty part"),
        ({"attrs": {"a..b": 1}}, "empty part"),
        ({"attrs": {'a"b': 1}}, "quote"),
        ({"attrs": {"a\\b": 1}}, "quote"),
        ({"attrs": {".".join("a" * 25): 1}}, "25 keys deep"),
        ({"attrs": {5: 1}}, "is a string, not int"),
        ({"attrs": {"a": float("nan")}}, "nan"),
        ({"attrs": {"a": 10**400}}, "401 digits"),
        ({"attrs": {"a": 10**5000}}, "5,001 digits"),
        ({"attrs": {"a": [1]}}, "'a' is a list"),
        ({"attrs": {"a": "\x00"}}, "NUL"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"cursor": "W10"}, "cursor"),
        ({"cursor": forged(2**63)}, "not one that structjob gave out"),
        ({"cursor": forged(-(2**63) - 1)}, "not one that structjob gave out"),
        ({"cursor": forged("x")}, "not one that structjob gave out"),
        ({"cursor": forged(1, "0001-01-01T00:00:00+10:00")}, "not one that structjob gave out"),
        ({"cursor": forged(1)}, "another query"),
    ],
)
async def test_a_wrong_filter_is_named_before_anything_is_asked(store, found, filters, message):
    """The message says which filter, what is wrong with it and what it takes (R36)."""
    with pytest.raises(InvalidFilter, match=message):
        await found.list(**filters)
    assert store.asked == []


async def test_a_filter_of_another_kind_is_refused(found):
    """A JobFilter given to logs is a mistake that is said at once."""
    with pytest.raises(InvalidFilter, match="LogFilter"):
        await found.list(5)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
    path=st.text(max_size=12),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    text=st.text(max_size=8),
)
async def test_no_value_can_break_a_query(found, path, value, text):
    """Whatever people type into a search, the answer is a result or InvalidFilter, never a database
    error (R36).
    """
    with suppress(InvalidFilter):
        assert await found.count(attrs={path: value}, text=text) == 0


@pytest.mark.parametrize("filters", [{}, {"level": "warning"}, {"job_id": "j", "children": True}])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_lead_forward_and_back(store, found, order, filters):
    """Following `next_cursor` shows every event once in order, following `previous_cursor` the same
    pages backwards; many share a time (R36).
    """
    await store.job("j")
    await store.job("k", "j")
    for n in range(10):
        await store.log(
            f"m{n}",
            ts=T0 + timedelta(seconds=n // 4),
            level="error" if n % 3 else "warning",
            job_id="k" if n % 2 else "j",
        )
    expected = [f"m{n}" for n in range(10)]
    if order == "desc":
        expected.reverse()
    pages, cursor = [], None
    while True:
        pages.append(await found.list(order=order, limit=4, cursor=cursor, **filters))
        cursor = pages[-1].next_cursor
        if cursor is None:
            break
    assert [messages(page) for page in pages] == [expected[:4], expected[4:8], expected[8:]]
    back = await found.list(order=order, limit=4, cursor=pages[2].previous_cursor, **filters)
    assert messages(back) == expected[4:8]
    first = await found.list(order=order, limit=4, cursor=back.previous_cursor, **filters)
    assert (messages(first), first.previous_cursor) == (expected[:4], None)
    assert (
        messages(await found.list(order=order, limit=4, cursor=first.next_cursor, **filters))
        == expected[4:8]
    )


async def test_pages_are_stable_while_events_arrive(store, found):
    """Events that arrive before and after a page neither repeat nor hide any other (R36)."""
    await store.log("a", "b", "c", "d")
    first = await found.list(limit=2)
    await store.log("late", ts=T0)
    await store.log("new")
    second = await found.list(limit=2, cursor=first.next_cursor)
    assert messages(second) == ["c", "d"]
    assert messages(await found.list(limit=2, cursor=second.next_cursor)) == ["new"]
    back = await found.list(limit=2, cursor=second.previous_cursor)
    assert messages(back) == ["a", "b"]
    assert messages(await found.list(limit=2, cursor=back.previous_cursor)) == ["late"]


async def test_a_page_that_emptied_while_paging_back_leads_forward(store, found):
    """If all that came before was pruned meanwhile, `next_cursor` leads on (R36, R41)."""
    await store.log("a", "b", "c", "d")
    second = await found.list(limit=2, cursor=(await found.list(limit=2)).next_cursor)
    async with store.engine.begin() as connection:
        await connection.execute(logs.delete().where(logs.c.message.in_(("a", "b"))))
    empty = await found.list(limit=2, cursor=second.previous_cursor)
    assert (empty.items, empty.previous_cursor) == ((), None)
    assert messages(await found.list(limit=2, cursor=empty.next_cursor)) == ["c", "d"]


async def test_a_window_that_moves_with_the_clock_can_be_paged(store, found):
    """`since=timedelta(hours=1)` is another moment at each call; its pages lead on all the same
    (R36).
    """
    now = datetime.now(UTC)
    for n in range(4):
        await store.log(f"m{n}", ts=now + timedelta(seconds=n))
    first = await found.list(since=timedelta(hours=1), limit=2)
    assert messages(
        await found.list(since=timedelta(hours=1), limit=2, cursor=first.next_cursor)
    ) == [
        "m2",
        "m3",
    ]
    for other in (
        {},
        {"since": timedelta(hours=1), "level": "info"},
        {"since": timedelta(hours=1), "attrs": {"a": 1}},
    ):
        with pytest.raises(InvalidFilter, match="another query"):
            await found.list(cursor=first.next_cursor, **other)


async def test_include_children_reads_the_whole_tree(store, found):
    """A job's page can show what its children did, in one order of time, even if the job's row is
    late (R23, R36).
    """
    await store.job("j")
    await store.job("k", "j")
    await store.job("l", "k")
    await store.job("x")
    for message, job in (("1", "j"), ("2", "l"), ("3", "x"), ("4", "k"), ("5", "j"), ("6", "late")):
        await store.log(message, job_id=job)
    assert messages(await found.list(job_id="j", children=True)) == ["1", "2", "4", "5"]
    assert messages(await found.list(job_id="k", children=True)) == ["2", "4"]
    assert messages(await found.list(job_id="late", children=True)) == ["6"]
    assert await found.count(job_id="j", children=True) == 4
    assert messages(await found.list(job_id="j", children=False)) == ["1", "5"]


@pytest.mark.slow
async def test_few_errors_of_a_long_job_are_found_by_level(store, found, monkeypatch):
    """A page of the errors of a job, of its tree or of a step is the same by whichever index, in
    both directions; that of the levels is taken where it finds fewer (R36).
    """
    await store.job("j")
    await store.job("k", parent="j")
    for number in range(4):
        for job_id, step_id in (("j", "s"), ("j", None), ("k", None), ("other", "s"), (None, None)):
            which = {"job_id": job_id, "step_id": step_id, "operation": "o"}
            await store.log(f"{job_id} {step_id} {number}", **which)
            if number % 2:
                level = ("warning", "error", "critical")[number % 3]
                await store.log(f"{level} {job_id} {step_id}", level=level, **which)
    wanted = [
        {"job_id": "j", "children": False},
        {"job_id": ("j", "other"), "children": False},
        {"job_id": "j"},
        {"step_id": "s"},
        {"job_id": "k", "operation": "o", "since": T0 + timedelta(seconds=12)},
        {"job_id": "j", "step_id": "s", "text": "other"},
    ]

    async def pages():
        result = []
        for filters in wanted:
            for level in (
                {"level": "warning"},
                {"level": "error"},
                {"levels": ("debug", "critical")},
            ):
                for order in ("asc", "desc"):
                    asked = {**filters, **level, "order": order, "limit": 2}
                    cursor, seen = None, []
                    while not seen or cursor:
                        page = await found.list(cursor=cursor, **asked)
                        seen.append(messages(page))
                        cursor = page.next_cursor
                    result.append((seen, await found.count(**filters, **level)))
        return result

    plain = await pages()
    assert any(len(seen) > 1 for seen, _ in plain)
    # with 10 errors in all, those who have as many events are long
    monkeypatch.setattr("structjob.queries.log_listing._MANY", (11,))
    await found.list(job_id="j", level="warning")
    if store.kind == "sqlite":
        assert "logs_by_level" in await store.plan(store.asked[-1])
    assert await pages() == plain


async def test_include_children_of_a_job_with_very_many(store, found):
    """A job with hundreds of children is read as well as one with few (R36)."""
    await store.job("j")
    for n in range(120):
        await store.job(f"k{n}", "j")
    await store.log("own", job_id="j")
    await store.log("first", job_id="k0")
    await store.log("last", job_id="k119")
    await store.log("other", job_id="z")
    page = await found.list(job_id="j", children=True, limit=2)
    assert messages(page) == ["own", "first"]
    assert messages(
        await found.list(job_id="j", children=True, limit=2, cursor=page.next_cursor)
    ) == ["last"]
    assert await found.count(job_id="j", children=True) == 3


async def test_iterate_yields_everything_that_was_there(store, found):
    """All events that match come, page by page, and the loop ends although its own body
    logs (R36).
    """
    await store.log(*(f"m{n}" for n in range(25)), level="error")
    seen = []
    async for event in found.iterate(LogFilter(level="error", limit=10)):
        seen.append(event.message)
        await store.log("saw it", level="error")
    assert seen == [f"m{n}" for n in range(25)]
    assert messages([event async for event in found.iterate(order="desc", text="m2")]) == [
        "m24",
        "m23",
        "m22",
        "m21",
        "m20",
        "m2",
    ]
    assert [event async for event in found.iterate(job_id="none")] == []


async def test_iterate_an_empty_store(found):
    """Nothing stored, nothing yielded (R36)."""
    assert [event async for event in found.iterate()] == []


async def test_reads_deliver_what_is_pending_first(store, found):
    """What was just logged is found: every read flushes once (R36)."""
    await found.list()
    await found.count()
    assert [event async for event in found.iterate()] == []
    assert store.flushed == 3


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@each(
    ("filters", "index"),
    [
        ({}, "structjob_logs_by_time"),
        ({"since": T0, "until": T0}, "structjob_logs_by_time (ts>? AND ts<?)"),
        ({"job_id": "j"}, "structjob_logs_by_job (job_id=?)"),
        ({"job_id": "j", "since": T0}, "structjob_logs_by_job (job_id=? AND ts>?)"),
        ({"job_id": "j", "level": "error"}, "structjob_logs_by_job (job_id=?)"),
        ({"step_id": "s"}, "structjob_logs_by_step (step_id=?)"),
        ({"step_id": "s", "until": T0}, "structjob_logs_by_step (step_id=? AND ts<?)"),
        ({"levels": "error"}, "structjob_logs_by_level (level=?)"),
        ({"level": "error", "since": T0}, "structjob_logs_by_level (level=? AND ts>?)"),
        ({"type": "system"}, "structjob_logs_by_type (type=?)"),
        ({"category": "c"}, "structjob_logs_by_category (category=?)"),
        ({"correlation_id": "c"}, "structjob_logs_by_correlation (correlation_id=?)"),
        ({"session_id": 5}, "structjob_logs"),
    ],
)
@each("order", ["asc", "desc"])
async def test_every_filter_is_served_by_an_index(store, found, filters, index, order):
    """A page of a log of any size is read from an index, in its order, without sorting the rest
    (R5).
    """
    await store.log(
        "a", "b", level="error", job_id="j", step_id="s", correlation_id="c", category="c"
    )
    first = await found.list(**filters, order=order, limit=1)
    plans = [await store.plan(store.asked[-1])]
    if first.next_cursor is not None:
        await found.list(**filters, order=order, limit=1, cursor=first.next_cursor)
        plans.append(await store.plan(store.asked[-1]))
        index = index.split(" ")[0]
    for plan in plans:
        assert f"USING INDEX {index}" in plan or filters == {"session_id": 5}
        if "level" not in filters and filters != {"session_id": 5}:
            assert "TEMP B-TREE" not in plan


async def test_a_correlation_finds_every_event_that_has_it(any_tracker, monkeypatch):
    """Whatever the event belongs to: nothing, a job, a step, an earlier attempt that had another
    correlation, or a job and a step of another program's (R36).
    """
    log = structlog.get_logger()
    structjob.configure(console=False, strict=True)
    for correlation_id in ("first", "second"):
        async with any_tracker.job("nightly", job_id="j", correlation_id=correlation_id) as job:
            log.info("in a job", of=correlation_id)
            async with job.step("load"):
                log.info("in a step", of=correlation_id)
                log.warning("in a step, rare", of=correlation_id)
    headers = {"x-correlation-id": "first", "x-job-id": "theirs", "baggage": "structjob.step_id=s"}
    with structjob.extract(headers).as_current():
        log.info("in a step elsewhere", of="first")
    with structjob.extract({"x-correlation-id": "first"}).as_current():
        log.info("in no job", of="first")

    async def found(correlation_id: str) -> set[tuple[str, str]]:
        page = await any_tracker.logs.list(correlation_id=correlation_id, kind="log")
        assert await any_tracker.logs.count(correlation_id=correlation_id, kind="log") == len(page)
        assert {event.correlation_id for event in page} == {correlation_id}
        return {(event.message, event.attrs["of"]) for event in page}

    for branches in (50, 1):
        monkeypatch.setattr("structjob.queries.log_listing._MAX_BRANCHES", branches)
        in_job = {"in a job", "in a step", "in a step, rare"}
        elsewhere = {"in a step elsewhere", "in no job"}
        assert await found("first") == {(message, "first") for message in in_job | elsewhere}
        assert await found("second") == {(message, "second") for message in in_job}
    steps = await any_tracker.logs.list(correlation_id="first", step="load", level="info", limit=1)
    assert [event.kind for event in steps] == ["step_start"]
    attempts = await any_tracker.jobs.history("j")
    assert [attempt.correlation_id for attempt in attempts] == ["first", "second"]
