"""Values of other types and libraries are stored as what they are, and events that no tracker took
are counted.
"""

import array
import collections
import datetime
import fractions
import ipaddress
import json
import types

import numpy
import pytest
import structlog
from cli_support import Shell
from each import each

import structjob
from structjob.spool import routing
from structjob.values import bounds, encoding

VALUES = [
    (numpy.int64(3), 3),
    (numpy.uint8(3), 3),
    (numpy.float32(0.5), 0.5),
    (numpy.float64("nan"), "NaN"),
    (numpy.bool_(True), True),
    (numpy.str_("x"), "x"),
    (numpy.datetime64("2020-01-01"), "2020-01-01"),
    (numpy.datetime64("2020-01-01T00:00:00.000000001"), "2020-01-01T00:00:00.000000001"),
    (numpy.timedelta64(3, "s"), "3 seconds"),
    (numpy.array([1, 2]), [1, 2]),
    (numpy.array([[1.5, float("inf")], [3, 4]]), [[1.5, "Infinity"], [3.0, 4.0]]),
    (numpy.array(7), 7),
    (numpy.array([]), []),
    (numpy.array(["2020-01-01"], dtype="datetime64[ns]"), ["2020-01-01T00:00:00.000000000"]),
    (numpy.array([{"a": 1}], dtype=object), [{"a": 1}]),
    (numpy.array([["2020-01-01"], ["NaT"]], dtype="datetime64[D]"), [["2020-01-01"], ["NaT"]]),
    (numpy.ma.masked_array([1, 2], mask=[True, False]), [None, 2]),
    (numpy.ma.masked, None),
    (numpy.array([[1, 2], [3, 4]]).view(numpy.matrix), [[1, 2], [3, 4]]),
    (numpy.longdouble("0.5"), 0.5),
    (numpy.clongdouble(1 + 2j), "(1+2j)"),
    (numpy.array((1, 2.5), dtype=[("n", "i4"), ("x", "f8")])[()], [1, 2.5]),
    (numpy.zeros((0, 5)), []),
    ({numpy.datetime64("2020-01-01"): 1, numpy.float64(0.5): 2}, {"2020-01-01": 1, "0.5": 2}),
    ({numpy.int64(4): numpy.int64(5)}, {"4": 5}),
    (collections.deque([1, 2], maxlen=2), [1, 2]),
    (range(3), [0, 1, 2]),
    ({"a": 1}.keys(), ["a"]),
    ({"a": 1}.values(), {"a": 1}),  # with the keys, by which secrets are known
    ({"a": 1}.items(), [["a", 1]]),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
    (collections.UserDict(a=1), {"a": 1}),
    (collections.UserList([1]), [1]),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (array.array("d", [1, 2]), [1.0, 2.0]),
    (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
    (ipaddress.ip_network("fd00::/8"), "fd00::/8"),
    ({ipaddress.ip_address("::1"): 1, datetime.date(2020, 1, 2): 2}, {"::1": 1, "2020-01-02": 2}),
    (fractions.Fraction(1, 3), "1/3"),
    (1 + 2j, "(1+2j)"),
    (collections.UserString("x"), "x"),
    (bytearray(b"x"), "x"),
    (memoryview(b"x"), "x"),
]


@each(("given", "stored"), VALUES)
def test_values_are_stored_as_what_they_are(given, stored):
    """faults 17: no ``repr`` of what JSON has a form for."""
    for value, expected in ((given, stored), ({"in": [given]}, {"in": [stored]})):
        found = json.loads(encoding.encode_value(value))
        assert found == expected
        assert type(found) is type(expected)


async def test_they_are_stored_so_on_every_database(any_tracker):
    """faults 17: in events, results and metadata."""
    given = {
        "n": numpy.int64(3),
        "a": numpy.array([[1, 2]]),
        "q": collections.deque([1]),
        "ip": ipaddress.ip_address("::1"),
    }
    stored = {"n": 3, "a": [[1, 2]], "q": [1], "ip": "::1"}
    async with any_tracker.job("a", metadata=given) as job:
        structlog.get_logger().info("x", **given)
        job.result = given
    (event,) = await any_tracker.logs.list(job_id=job.id, kind="log")
    record = await any_tracker.jobs.get(job.id)
    assert (event.attrs, record.result, record.metadata) == (stored, stored, stored)


def test_huge_arrays_are_cut_before_they_are_looked_at():
    """faults 17: an array of a gigabyte costs what its first rows cost."""
    huge = numpy.broadcast_to(numpy.int8(1), (10**5, 10**5))
    found = json.loads(encoding.encode_value(huge))
    assert found[-1].endswith("more of 100,000 items]")
    assert found[0][-1] == "…[cut: 98,976 more of 100,000 items]"
    flat = json.loads(encoding.encode_value(huge[0]))
    assert flat == [1] * bounds.MAX_ITEMS + ["…[cut: 98,976 more of 100,000 items]"]
    assert json.loads(encoding.encode_value(range(10**12)))[: bounds.MAX_ITEMS] == list(
        range(bounds.MAX_ITEMS)
    )


async def test_events_that_no_tracker_came_for_are_counted(db_url, caplog):
    """faults 15: the tracker that opens says how many were lost; the last 1,000 are recorded."""
    structjob.configure(console=False, strict=True, level="debug")
    log = structlog.get_logger()
    for n in range(routing.WAITING + 5):
        log.info("early", n=n)
        if n < 3:
            log.debug("not recorded at the tracker's level")
    async with structjob.Tracker(db_url) as tracker:
        early = await tracker.logs.list(order="asc", limit=routing.WAITING + 10)
    assert [event.attrs["n"] for event in early] == list(range(5, routing.WAITING + 5))
    (told,) = [line.getMessage() for line in caplog.records if "are lost" in line.getMessage()]
    assert told.startswith("5 log events are lost: logged while no tracker was open")
    caplog.clear()
    async with structjob.Tracker(db_url):
        pass
    assert "are lost" not in caplog.text


AFTER = """
import asyncio, sys
import structjob, structlog

structjob.configure(console=False, level="debug")
log = structlog.get_logger()

async def main(url):
    async with structjob.Tracker(url):
        log.info("while it was open")

times, reopen = int(sys.argv[2]), sys.argv[3:] == ["reopen"]
if sys.argv[1] != "none":
    asyncio.run(main(sys.argv[1]))
for n in range(times):
    log.info("late", n=n)
    log.debug("not recorded at the tracker's level")
if reopen:
    asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["3"],
            "3 log events are in no database: logged after the tracker was closed; close it after the last log call\n",
        ),
        (
            ["1200"],
            "1,200 log events are in no database: logged after the tracker was closed; close it after the last log call\n",
        ),
        (["0"], ""),
        (["3", "reopen"], ""),
    ],
    ids=["few", "more than wait", "none", "another tracker takes them"],
)
def test_events_after_the_tracker_closed_are_counted_once(tmp_path, db_url, arguments, said):
    """faults 15: the program's end says how many events are in no database."""
    assert Shell(tmp_path).python(AFTER, db_url, *arguments) == said


def test_events_of_an_exit_handler_after_ours_are_warned_about(db_url, caplog):
    """A handler that was registered earlier is called after the others were counted."""
    structjob.configure(console=False, level="debug")
    with structjob.Tracker(db_url):
        pass
    routing._report_unrecorded()  # called by the exit of the interpreter
    assert not caplog.records
    log = structlog.get_logger()
    log.debug("not recorded at the tracker's level")
    log.info("at exit")
    log.info("once more")
    (told,) = [line.getMessage() for line in caplog.records]
    assert told.startswith("a log event at the exit of the interpreter is in no database")


def test_a_program_without_a_tracker_hears_nothing(tmp_path):
    """faults 15: who uses the library for its log lines alone has lost nothing."""
    assert Shell(tmp_path).python(AFTER, "none", "3") == ""
