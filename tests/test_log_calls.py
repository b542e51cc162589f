"""A log call takes attributes of every name, and each is stored and shown."""

import asyncio
import inspect
import io
import json

import pytest
import structlog
from cli_support import typed

import structjob
from structjob.capture.logger import BoundLogger

NAMES = (
    "event",
    "self",
    "level",
    "method_name",
    "name",
    "args",
    "kw",
    "logger_",
    "message",
    "timestamp",
    "kind",
    "logger",
    "stream",
    "trace_id",
    "span_id",
    "exc_info",
    "log",
    "cls",
)
GIVEN = {name: f"given {name}" for name in NAMES}
METHODS = (
    "debug",
    "info",
    "success",
    "warning",
    "warn",
    "error",
    "critical",
    "fatal",
    "exception",
    "msg",
)


@pytest.mark.parametrize(
    "chain", ["alone", "behind processors", "async", "async behind processors"]
)
async def test_every_method_takes_every_key(db_url, chain):
    """faults A.7: `event=`, `self=`, `level=` and the names of other arguments are attributes like
    any other.
    """
    own = [lambda logger, name, event_dict: event_dict] if "behind" in chain else []
    structjob.configure(console=False, processors=own, level="debug", strict=True)
    log = structlog.get_logger("app").bind()
    async with structjob.Tracker(db_url, level="debug") as tracker:
        for method in METHODS:
            if "async" in chain:
                await getattr(log, f"a{method}")(method, **GIVEN)
            else:
                getattr(log, method)(method, **GIVEN)
        if "async" in chain:
            await log.alog(20, "log", **GIVEN)
        else:
            log.log(20, "log", **GIVEN)
            structjob.success(log, "helper", **GIVEN)
        events = await tracker.logs.list()
    assert len(events) >= len(METHODS) + 1
    for event in events:
        assert event.message in (*METHODS, "log", "helper")
        assert event.attrs == GIVEN
        assert event.kind == "log"


@pytest.mark.parametrize(
    "own", [[], [lambda logger, name, event_dict: event_dict]], ids=["alone", "behind processors"]
)
async def test_bound_values_of_every_name_are_kept(db_url, own):
    """faults A.7: `bind` and `new` take every key, too."""
    structjob.configure(console=False, processors=own, strict=True)
    log = structlog.get_logger("app").bind()
    async with structjob.Tracker(db_url) as tracker:
        log.bind(**GIVEN).info("bound")
        log.bind(n=1).new(**GIVEN).info("new")
        log.bind(n=1, event=1).info("both", event=2)
        bound, new, both = await tracker.logs.list()
    assert (bound.attrs, new.attrs) == (GIVEN, GIVEN)
    assert both.attrs == {"n": 1, "event": 2}


def test_no_method_has_a_keyword_of_its_own():
    """faults A.7: a name that a later version gives to an argument must not be taken from the
    users.
    """
    methods = [*METHODS, *(f"a{name}" for name in METHODS), "log", "alog", "bind", "new"]
    for method in methods:
        kinds = [
            parameter.kind
            for parameter in inspect.signature(getattr(BoundLogger, method)).parameters.values()
        ]
        assert not {
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        }.intersection(kinds), method


async def test_a_message_by_its_name_is_the_message(tracker):
    """faults A.7: `log.info(event="x")` says what it always said."""
    log = structlog.get_logger().bind()
    log.info(event="x", n=1)
    log.log(level=20, event="y")
    structjob.success(log, event="z")
    assert [(event.message, event.level) for event in await tracker.logs.list()] == [
        ("x", "info"),
        ("y", "info"),
        ("z", "success"),
    ]


async def test_success_through_another_logger_takes_every_key(db_url):
    """faults A.7: structlog's own loggers take no `event=`; the helper passes it on all
    the same.
    """
    structlog.configure(
        processors=[lambda logger, name, event_dict: ""],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    structjob.install()
    async with structjob.Tracker(db_url, strict=True) as tracker:
        structjob.success(structlog.get_logger(), "done", **GIVEN)
        (event,) = await tracker.logs.list()
    assert (event.level, event.message, event.attrs) == ("success", "done", GIVEN)


async def test_an_exception_that_is_being_handled_comes_along_to_the_executor(tracker):
    """faults A.7: `await log.ainfo(…, exc_info=True)` records the exception."""
    log = structlog.get_logger()
    try:
        raise KeyError("k")
    except KeyError:
        await log.ainfo("seen", exc_info=True)
    (event,) = await tracker.logs.list()
    assert event.attrs["error_type"] == "KeyError"


async def test_attributes_named_as_an_events_own_fields_stay(any_tracker):
    """faults 33d: `level=80` is the tank's; the event's own level, time and kind stay, and the
    value is found.
    """
    log = structlog.get_logger()
    given = {"level": 80, "timestamp": "2020-01-01", "kind": "snapshot"}
    log.info("tank", **given)
    log.info("other", level=81)
    (event,) = await any_tracker.logs.list(attrs={"level": 80})
    assert (event.message, event.level, event.kind, event.attrs) == ("tank", "info", "log", given)
    assert [each.message for each in await any_tracker.logs.list(kind="log")] == ["tank", "other"]


async def test_they_stay_behind_processors_that_stamp_events(db_url):
    """faults 33d: only the level and the time that structlog's processors put in are taken out
    again.
    """
    stamps = [
        [],
        [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso")],
        [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        ],
        [structlog.stdlib.add_log_level, structlog.processors.TimeStamper()],
        [structlog.processors.TimeStamper(fmt="%H:%M")],
        [lambda logger, name, event_dict: event_dict],
    ]
    async with structjob.Tracker(db_url) as tracker:
        for processors in stamps:
            structjob.configure(console=False, processors=processors, strict=True)
            structlog.get_logger().warn("plain", n=1)
        structlog.get_logger().info("kept", level="low", timestamp="2020-01-01T00:00:00Z")
        structlog.get_logger().info("kept", level="error", timestamp=5)
        *plain, kept, also = await tracker.logs.list()
    assert [event.attrs for event in plain] == [{"n": 1}] * len(stamps)
    assert kept.attrs == {"level": "low", "timestamp": "2020-01-01T00:00:00Z"}
    assert also.attrs == {"level": "error", "timestamp": 5}


def test_they_are_shown_beside_the_events_own():
    """faults 33d: a JSON line has each key once, and a sink of one's own gets the attributes by
    their names.
    """
    records, stream = [], io.StringIO()

    class Sink:
        def emit(self, record):
            records.append(record)

    structjob.configure(
        console=structjob.ConsoleSink(stream, format="json"), sinks=[Sink()], strict=True
    )
    structlog.get_logger().info("tank", level=80, event="e", kind="k", **{"attrs.x": 1})
    line = json.loads(stream.getvalue(), object_pairs_hook=list)
    assert line[1:] == [
        ("level", "info"),
        ("event", "tank"),
        ("attrs.level", 80),
        ("attrs.event", "e"),
        ("kind", "k"),
        ("attrs.x", 1),
    ]
    assert (records[0].level, records[0].message, records[0].attrs) == (
        "info",
        "tank",
        {"level": 80, "event": "e", "kind": "k", "attrs.x": 1},
    )


async def test_an_id_of_the_call_hides_no_other_id(tracker):
    """faults 33d: an attribute with the name of an id of the job is shown in its place; the other
    ids are shown, too.
    """
    stream, found = io.StringIO(), []
    console = structjob.ConsoleSink(stream, format="json")
    structjob.configure(console=console, sinks=[found.append], strict=True)
    async with tracker.job("a") as job:
        structlog.get_logger().info("tank", job_id="mine")
    (line,) = [
        one for one in map(json.loads, stream.getvalue().splitlines()) if one["event"] == "tank"
    ]
    assert (line["job_id"], line["correlation_id"]) == ("mine", job.correlation_id)
    (event,) = [one for one in found if one.message == "tank"]
    assert (event.attrs, event.ids["job_id"]) == ({"job_id": "mine"}, job.id)


def test_they_are_found_on_the_command_line(db_url):
    """faults 33d: `structjob logs -w level=80` shows the event."""

    async def program():
        async with structjob.Tracker(db_url):
            structlog.get_logger().info("tank", level=80)
            structlog.get_logger().info("other", level=81)

    structjob.configure(console=False, strict=True)
    asyncio.run(program())
    shown = typed(db_url, "logs", "-w", "level=80")
    assert "tank" in shown
    assert "other" not in shown


async def test_what_is_no_exception_stays_an_attribute(tracker):
    """faults A.7: `exc_info` and `stack_info` mean what they mean in structlog; another value is
    not lost.
    """
    log = structlog.get_logger()
    log.info("text", exc_info="boom")
    log.info("none", exc_info=None, stack_info=False)
    log.info("stack", stack_info="File x")
    text, none, stack = await tracker.logs.list()
    assert (text.attrs, none.attrs, stack.attrs) == ({"exc_info": "boom"}, {}, {"stack": "File x"})
