"""`configure()` sets structlog up: console, file, levels, sinks; nothing a sink does is ever felt
by the program (R26, R27).
"""

import asyncio
import copy
import io
import json
import logging
import pickle
import re
import threading
import types

import pytest
import structlog

import structjob
from structjob.diagnostics import faults

log = structlog.get_logger("app")


class Collected:
    """A sink that keeps what it is given."""

    def __init__(self, level=None):
        if level is not None:
            self.level = level
        self.records = []

    def emit(self, record):
        self.records.append(record)

    @property
    def messages(self):
        return [record.message for record in self.records]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def no_handlers():
    """Take pytest's handlers off the root logger."""
    logging.getLogger().handlers.clear()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# -- what is printed
# --------------------------------------------------------------------------


def test_a_json_line_has_the_keys_people_expect():
    """Fitting in: timestamp (RFC 3339, µs, UTC), level, event and logger, then what was told."""
    stream = io.StringIO()
    structjob.configure(console=stream, strict=True)
    log.info("copied", n=3)
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "logger", "n"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {"level": "info", "event": "copied", "logger": "app", "n": 3}


async def test_a_json_line_within_a_job_has_its_ids():
    """Fitting in: job_id, step_id and correlation_id as the database has them."""
    stream = io.StringIO()
    structjob.configure(console=stream, strict=True)
    async with (
        structjob.Tracker("sqlite://") as tracker,
        tracker.job("a") as job,
        job.step("s") as step,
    ):
        log.info("in it", a=1)
    (line,) = [line for line in lines(stream) if line["event"] == "in it"]
    assert (line["job_id"], line["step_id"], line["correlation_id"]) == (
        job.id,
        step.id,
        job.correlation_id,
    )


def test_auto_is_pretty_on_a_terminal_and_json_otherwise():
    """R27: people get columns and colours, programs get JSON lines."""
    terminal, pipe = Terminal(), io.StringIO()
    structjob.configure(console=terminal, strict=True)
    log.warning("hello", n=1)
    structjob.configure(console=pipe, strict=True)
    log.warning("hello", n=1)
    assert "\x1b[" in terminal.getvalue()
    assert "hello" in terminal.getvalue()
    assert lines(pipe)[0]["event"] == "hello"


def test_no_color_and_force_color_are_obeyed(monkeypatch):
    """Terminal: NO_COLOR takes colours away, FORCE_COLOR brings them."""
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    structjob.configure(console=structjob.ConsoleSink(terminal), strict=True)
    log.info("plain")
    assert "\x1b" not in terminal.getvalue()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    structjob.configure(console=structjob.ConsoleSink(stream, format="pretty"), strict=True)
    log.info("coloured")
    assert "\x1b[" in stream.getvalue()


def test_the_pretty_console_reads_well():
    """R27: time, level, event, logger, attributes, one line each."""
    stream = io.StringIO()
    structjob.configure(
        console=structjob.ConsoleSink(stream, format="pretty", color=False), strict=True
    )
    log.info("copied", n=3, path="/tmp/x y", nothing=None, nested={"a": [1]})
    log.success("done")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} info     copied +n=3 path=\"/tmp/x y\" nothing=null nested=\{\"a\":\[1\]\} · app",
        first,
    ), first
    assert "success  done · app" in second


def test_nothing_reaches_a_terminal_raw():
    """Traps: escape sequences, newlines and characters that turn text around are made visible, in
    events, keys, values and names.
    """
    stream = io.StringIO()
    structjob.configure(
        console=structjob.ConsoleSink(stream, format="pretty", color=False), strict=True
    )
    evil = "a\x1b[2J\nb\r\x07\x9b\u2028\u202e\u2066\x7f"
    structlog.get_logger(evil).info(evil, **{evil: evil, "list": [evil], "dict": {evil: evil}})
    try:
        raise ValueError(evil)
    except ValueError:
        log.exception(evil)
    text = stream.getvalue()
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", text
    )
    assert "\\x1b[2J\\nb" in text
    assert len(text.splitlines()[0]) > 100


def test_local_variables_are_never_printed():
    """Traps: Rich's tracebacks would show them, passwords among them."""
    stream = Terminal()
    structjob.configure(console=structjob.ConsoleSink(stream, format="pretty"), strict=True)
    private = "".join(["loc", "al-", "value"])
    try:
        raise ValueError(len(private))
    except ValueError:
        log.exception("oops")
    assert "ValueError: 11" in stream.getvalue()
    assert "Traceback (most recent call last)" in stream.getvalue()
    assert private not in stream.getvalue()


def test_false_prints_nothing_and_a_missing_console_is_survived(capsys, monkeypatch):
    """R27: `console=False` is silent; so is a process without a standard output."""
    structjob.configure(console=False, strict=True)
    log.info("x")
    assert capsys.readouterr() == ("", "")
    structjob.configure(console="json", strict=True)
    monkeypatch.setattr("sys.stdout", None)
    log.info("y")


def test_the_console_follows_sys_stdout(capsys, monkeypatch):
    """R27: whatever `sys.stdout` is when an event is logged gets it, after what `print`
    left there.
    """
    structjob.configure(console="json", strict=True)
    other = io.StringIO()
    monkeypatch.setattr("sys.stdout", other)
    print("first")
    log.info("second")
    assert other.getvalue().startswith('first\n{"timestamp"')
    assert capsys.readouterr().out == ""


def test_binary_streams_are_written_to():
    """R27: a stream of bytes gets UTF-8."""
    stream = io.BytesIO()
    structjob.configure(console=stream, strict=True)
    log.info("caf\xe9")
    assert json.loads(stream.getvalue())["event"] == "café"


# -- levels
# --------------------------------------------------------------------------


def test_levels_in_their_order():
    """R26: debug, info, success, warning, error, critical; each level lets those above it
    through.
    """
    names = ["debug", "info", "success", "warning", "error", "critical"]
    for at, level in enumerate(names):
        sink = Collected()
        structjob.configure(console=False, sinks=[sink], level=level, strict=True)
        for name in names:
            getattr(log, name)(name)
        assert sink.messages == names[at:]
        assert [record.level for record in sink.records] == names[at:]


def test_every_way_of_naming_a_level():
    """R26: `warn` is warning, `fatal` is critical, `exception` is error, `log(25)` is success,
    `msg` is info; between two is the lower.
    """
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], level="debug", strict=True)
    log.warn("a")
    log.fatal("b")
    log.exception("c")
    log.log(25, "d")
    log.msg("e")
    log.log(logging.ERROR, "f")
    log.log(35, "g")
    assert [record.level for record in sink.records] == [
        "warning",
        "critical",
        "error",
        "success",
        "info",
        "error",
        "warning",
    ]


async def test_the_async_methods_have_success_too():
    """R26: `await log.asuccess(…)` and `await log.alog(25, …)`."""
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], level="success", strict=True)
    await log.asuccess("a %d", 1)
    await log.alog(25, "b")
    await log.ainfo("too low")
    await log.aerror("c")
    assert [(record.level, record.message) for record in sink.records] == [
        ("success", "a 1"),
        ("success", "b"),
        ("error", "c"),
    ]


def test_each_sink_has_its_level(tmp_path):
    """R27: the console may show less than the file."""
    stream, sink = io.StringIO(), Collected("error")
    structjob.configure(
        console=structjob.ConsoleSink(stream, level="warning"),
        file=structjob.FileSink(tmp_path / "a.jsonl", level="info"),
        sinks=[sink],
        level="debug",
        strict=True,
    )
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)(name)
    assert [line["event"] for line in lines(stream)] == ["warning", "error"]
    assert [
        json.loads(line)["event"] for line in (tmp_path / "a.jsonl").read_text().splitlines()
    ] == ["info", "warning", "error"]
    assert sink.messages == ["error"]


async def test_the_database_has_its_own_level(db_url):
    """R28: info and above by default; `Tracker(level=)` sets another."""
    structjob.configure(console=False, level="debug", strict=True)
    async with structjob.Tracker(db_url) as tracker:
        log.debug("detail")
        log.info("fact")
        assert [event.message for event in await tracker.logs.list()] == ["fact"]
    async with structjob.Tracker(db_url, level="debug") as tracker:
        log.debug("detail")
        assert [event.message for event in await tracker.logs.list(levels="debug")] == ["detail"]


def test_structjob_success_works_with_any_logger(capsys):
    """R26: `structjob.success(log, …)` where the logger has no such level says info, and records
    success.
    """
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(),
    )
    structjob.success(structlog.get_logger(), "done", n=1)
    assert json.loads(capsys.readouterr().out) == {"event": "done", "n": 1, "level": "info"}
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], strict=True)
    structjob.success(log, "done")
    assert sink.records[0].level == "success"


# -- messages
# --------------------------------------------------------------------------


def test_positional_arguments_are_filled_in():
    """As `logging` does it: `%` with arguments; without arguments a percent sign is a
    percent sign.
    """
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], strict=True)
    log.info("x %s %d", "a", 1)
    log.info("x %(a)s", {"a": 1})
    log.log(20, "x %(a)s", {"a": 1})
    log.success("x %s", 2)
    log.info("100% of %s")
    assert sink.messages == ["x a 1", "x 1", "x 1", "x 2", "100% of %s"]


def test_arguments_that_do_not_fit_are_kept_and_raise_nothing():
    """Guarantee 7: a mistake in a format string is no reason to fail, nor to lose the event."""
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], strict=True)
    log.info("%d items", "many")
    log.info("none", 1)  # noqa: PLE1205 -- that is the point
    log.info(None, 2)
    assert sink.messages == ["%d items", "none", "None"]
    assert [record.attrs["positional_args"] for record in sink.records] == [["many"], [1], [2]]


def test_bound_values_and_names_like_ours_are_kept():
    """R4: attributes that are named like arguments of our own functions harm nothing."""
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], strict=True)
    log.bind(
        level="mine", number=1, scope=2, given=3, columns=4, ns=5, attrs=6, message=7, self_=8
    ).info("x", name=9, method_name=10, args=11)
    attrs = sink.records[0].attrs
    assert {
        "number": 1,
        "scope": 2,
        "given": 3,
        "columns": 4,
        "ns": 5,
        "attrs": 6,
        "message": 7,
        "name": 9,
        "args": 11,
    }.items() <= attrs.items()


# -- faults
# --------------------------------------------------------------------------


class Broken:
    def emit(self, record):
        raise OSError("disk on fire")


def test_a_raising_sink_is_counted_reported_once_and_never_felt(caplog):
    """R27, guarantee 3: the others get every event, the caller notices nothing, the log says so
    once a minute.
    """
    before, after = Collected(), Collected()
    structjob.configure(console=False, sinks=[before, Broken(), after])
    with caplog.at_level("WARNING", "structjob"):
        for n in range(100):
            log.info("x", n=n)
    assert len(before.records) == len(after.records) == 100
    assert faults.counts == {"the sink Broken": 100}
    assert [record.getMessage() for record in caplog.records] == [
        "the sink Broken failed (1 time so far): OSError: disk on fire"
    ]


def test_a_report_of_ours_is_seen_on_stderr(capfd):
    """Guarantee 3: with nothing else set up, what the library has to say comes out on the standard
    error, as `logging` does it.
    """
    logging.getLogger().handlers[:] = []
    structjob.configure(console=False, sinks=[type("Unseen", (Broken,), {})()])
    log.info("x")
    assert "the sink Unseen failed" in capfd.readouterr().err


def test_a_closed_stream_is_never_felt():
    """Guarantee 3: the console goes away, the program goes on, and the other sinks get what there
    is.
    """
    stream, sink = io.StringIO(), Collected()
    structjob.configure(console=stream, sinks=[sink])
    stream.close()
    log.info("x")
    assert sink.messages == ["x"]


# -- being called twice
# --------------------------------------------------------------------------


def test_loggers_in_use_follow_a_second_configure(tmp_path):
    """Loggers that were bound, cached and used before: sinks and level are the new ones, in both
    directions.
    """
    first, second = Collected(), Collected()
    structjob.configure(console=False, sinks=[first], level="warning", strict=True)
    cached = structlog.get_logger("cached")
    bound = cached.bind(a=1)
    cached.info("too low")
    structjob.configure(console=False, sinks=[second], level="debug", strict=True)
    cached.debug("one")
    bound.debug("two")
    structjob.configure(console=False, sinks=[second], level="error", strict=True)
    cached.warning("three")
    bound.warning("four")
    assert first.messages == []
    assert second.messages == ["one", "two"]


def test_a_sink_that_is_used_again_stays_open(tmp_path):
    """Configuring anew with the same file or sink must not close it."""
    sink = structjob.FileSink(tmp_path / "a.jsonl")
    for _ in range(2):
        structjob.configure(console=False, file=sink, strict=True)
        log.info("x")
    structjob.configure(console=False, file=tmp_path / "a.jsonl", strict=True)
    log.info("y")
    assert [
        json.loads(line)["event"] for line in (tmp_path / "a.jsonl").read_text().splitlines()
    ] == ["x", "x", "y"]


# -- structlog's own ways
# --------------------------------------------------------------------------


def test_bound_loggers_can_be_pickled(tmp_path):
    """Process pools pickle what they are given: a bound logger with a file sink arrives, and logs
    where it arrives.
    """
    sink = Collected()
    structjob.configure(
        console=False,
        file=tmp_path / "a.jsonl",
        sinks=[sink],
        processors=[structlog.processors.add_log_level],
        strict=True,
    )
    log.info("used")
    bound = pickle.loads(pickle.dumps(structlog.get_logger("app").bind(a=1)))
    bound.info("arrived")
    assert (sink.messages, sink.records[-1].attrs["a"]) == (["used", "arrived"], 1)


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])
def test_an_object_whose_logger_was_used_can_be_pickled(copied):
    """R22: as before `configure`. Objects that a process pool gets often hold a logger."""
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], strict=True)
    worker = types.SimpleNamespace(log=structlog.get_logger("app", a=1))
    worker.log.info("used")
    copied(worker).log.info("arrived")
    assert sink.messages == ["used", "arrived"]
    assert [record.attrs["a"] for record in sink.records] == [1, 1]
    assert {record.logger for record in sink.records} == {"app"}


async def test_the_callers_frame_is_the_users_own():
    """CallsiteParameterAdder in `processors=` reports where the user's code logged, for every
    method.
    """
    sink = Collected()
    adder = structlog.processors.CallsiteParameterAdder(
        {
            structlog.processors.CallsiteParameter.FUNC_NAME,
            structlog.processors.CallsiteParameter.MODULE,
        }
    )
    structjob.configure(console=False, sinks=[sink], processors=[adder], level="debug", strict=True)
    log.info("a")
    log.success("b")
    log.log(25, "c")
    log.exception("d")
    structjob.success(log, "e")
    await log.ainfo("f")
    await log.asuccess("g")
    await log.alog(25, "h")
    assert [(record.attrs["module"], record.attrs["func_name"]) for record in sink.records] == [
        ("test_configure", "test_the_callers_frame_is_the_users_own")
    ] * 8


def test_capture_logs_works():
    """structlog's testing helper sees events of loggers in use, and leaves the setup as it was."""
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], strict=True)
    log.info("before")
    with structlog.testing.capture_logs() as captured:
        log.info("within", a=1)
        log.success("better")
    log.info("after")
    assert captured == [
        {"event": "within", "a": 1, "log_level": "info"},
        {"event": "better", "log_level": "success"},
    ]
    assert sink.messages == ["before", "after"]


def test_own_processors_run_before_ours_and_may_drop():
    """`processors=` can add, change and drop."""

    def mine(logger, method, event):
        if event["event"] == "drop me":
            raise structlog.DropEvent
        return {**event, "method": method}

    sink = Collected()
    structjob.configure(console=False, sinks=[sink], processors=[mine], strict=True)
    log.info("drop me")
    log.success("keep me")
    assert [(record.message, record.attrs) for record in sink.records] == [
        ("keep me", {"method": "success"})
    ]


def test_sampling_lets_the_first_and_each_nth_through():
    """R33: noisy events are thinned out, warnings never."""
    sink = Collected()
    structjob.configure(
        console=False,
        sinks=[sink],
        processors=[structjob.processors.Sampler(10, events=["tick"])],
        strict=True,
    )
    for n in range(25):
        log.info("tick", n=n)
        log.warning("tick", n=n)
        log.info("other", n=n)
    assert [
        record.attrs["n"]
        for record in sink.records
        if record.level == "info" and record.message == "tick"
    ] == [0, 10, 20]
    assert all(
        record.attrs["sampled"] == 10
        for record in sink.records
        if record.level == "info" and record.message == "tick"
    )
    assert sum(record.level == "warning" for record in sink.records) == 25
    assert sink.messages.count("other") == 25


def test_anything_can_be_sampled():
    """R33: an event that is no text is sampled like any other."""
    sink = Collected()
    structjob.configure(
        console=False, sinks=[sink], processors=[structjob.processors.Sampler(3)], strict=True
    )
    for n in range(6):
        log.info({"a": 1})
        log.info(["b"], n=n)
    assert [record.attrs.get("n") for record in sink.records] == [None, 0, None, 3]


@pytest.mark.parametrize(
    "processors", [(), (structlog.contextvars.merge_contextvars,)], ids=["alone", "with others"]
)
def test_a_logger_of_ones_own_can_be_wrapped(processors, capsys):
    """R27: `structlog.wrap_logger` gives any logger the same way; what it wraps is not asked to
    show the event once more.
    """
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], processors=processors, strict=True)
    structlog.wrap_logger(structlog.PrintLogger()).info("a")
    structlog.wrap_logger(logging.getLogger("named")).info("b")
    assert [(record.message, record.logger) for record in sink.records] == [
        ("a", None),
        ("b", "named"),
    ]
    assert capsys.readouterr().out == ""


def test_a_fan_out_is_the_last_processor_of_any_setup(capsys):
    """R27: with structlog's own loggers and classes, too, and nothing is printed beside it."""
    sink = Collected()
    structlog.configure(processors=[structjob.processors.FanOut(sink)])
    structlog.get_logger().info("a", n=1)
    structlog.configure(
        processors=[structjob.processors.FanOut(sink)],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    structlog.get_logger("b").warning("b")
    assert [(record.message, record.attrs) for record in sink.records] == [
        ("a", {"n": 1}),
        ("b", {}),
    ]
    assert capsys.readouterr() == ("", "")


# -- what has a column of its own
# --------------------------------------------------------------------------


async def test_an_event_says_its_category_project_and_trace(any_tracker):
    """R4, R35: these keys of a log call are found by the filter of their name, and go before what
    the job says. Where an event came by, and from which logger, only structjob says (ruling 6).
    """
    told = {
        "category": "network",
        "project": "apollo",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
    }
    kept = {"stream": "stderr", "logger": "mine", "kind": "snapshot"}
    async with any_tracker.job("a", category="system", project="gemini"):
        log.info("seen", **told, **kept, n=1)
    (event,) = await any_tracker.logs.list(category="network", project="apollo", kind="log")
    assert {key: getattr(event, key) for key in told} == told
    assert event.attrs == {**kept, "n": 1}
    assert (event.stream, event.kind) == ("system", "log")


class Sullen:
    """Refuses to be shown."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


NO_ROOM = {
    "category": "c" * 65,
    "project": "p" * 129,
    "stream": "orders",
    "trace_id": "not hexadecimal",
    "span_id": "b" * 17,
    "logger": "l" * 256,
}


async def test_what_its_column_cannot_hold_stays_an_attribute(any_tracker):
    """R4, guarantee 7: on every database the event is stored, nothing of it is cut, and its
    neighbours are stored with it.
    """
    log.info("before")
    for key, value in NO_ROOM.items():
        log.info("no room", **{key: value})
    log.info("surrogates", category="\ud800" * 64)  # each takes six characters when it is written
    log.info("no text", category={"a": 1}, kind=True, project="")
    log.info("sullen", category=Sullen())
    log.info("number", project=7)
    structlog.get_logger("\ud800" * 300).info("long name")
    log.info("after")
    events = await any_tracker.logs.list()
    assert any_tracker.ledger().dead_lettered == 0
    assert [event.message for event in events] == [
        "before", *["no room"] * len(NO_ROOM), "surrogates", "no text", "sullen", "number", "long name", "after",
    ]  # fmt: skip
    stayed = [event.attrs for event in events if event.message == "no room"]
    assert stayed == [{key: value} for key, value in NO_ROOM.items()]
    by_message = {event.message: event for event in events}
    assert by_message["surrogates"].attrs["category"] == "\\ud800" * 64
    assert by_message["no text"].attrs == {"category": {"a": 1}, "kind": True, "project": ""}
    assert by_message.pop("sullen").category == "<Sullen: its repr raised RuntimeError>"
    assert (by_message["number"].project, by_message["number"].attrs) == ("7", {})
    assert by_message["long name"].logger.endswith("…[cut: the first 200 of 1,800 kept]")
    assert {(event.category, event.kind, event.stream) for event in by_message.values()} == {
        ("system", "log", "system")
    }


async def test_long_error_fingerprints_still_group(any_tracker):
    """R39: a fingerprint of one's own that is too long counts by how it begins."""
    for _ in range(2):
        log.error("disk full", error_fingerprint="disk-full:" + "x" * 100)
    (group,) = await any_tracker.errors.list()
    assert (group.count, group.fingerprint) == (2, "disk-full:" + "x" * 54)


# -- logging
# --------------------------------------------------------------------------


async def test_records_of_logging_join(tracker):
    """R31: libraries that use `logging` are part of the stream: level, logger, message, extra,
    exception, and the job.
    """
    structjob.configure(console=False, strict=True)
    no_handlers()
    logger = logging.getLogger("some.library")
    async with tracker.job("a") as job:
        logger.warning("retry %d", 3, extra={"host": "h"})
        try:
            1 / 0
        except ZeroDivisionError:
            logger.exception("failed")
    first, second = await tracker.logs.list(logger="some.library")
    assert (first.level, first.message, first.attrs, first.job_id) == (
        "warning",
        "retry 3",
        {"host": "h"},
        job.id,
    )
    assert second.attrs["exception"]["type"] == "ZeroDivisionError"


def test_loggings_debug_joins_when_asked_for_even_by_a_second_configure():
    """R31: `level=` applies to `logging`, too, whatever an earlier call said; leaving it out puts
    the root logger back.
    """
    root = logging.getLogger()
    root.handlers[:], root.level = [], logging.WARNING
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], level="error", strict=True)
    logging.getLogger("lib").info("no")
    structjob.configure(console=False, sinks=[sink], level="debug", strict=True)
    logging.getLogger("lib").debug("yes")
    structjob.configure(console=False, sinks=[sink], stdlib=False, strict=True)
    logging.getLogger("lib").error("no")
    assert sink.messages == ["yes"]
    assert (root.level, root.handlers) == (logging.WARNING, [])


async def test_our_drivers_never_join(tracker):
    """Guarantee 8: the library's own logs and its drivers' never re-enter the pipeline: it would
    feed itself.
    """
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], level="debug", strict=True)
    for name in (
        "structjob",
        "aiosqlite",
        "asyncmy",
        "asyncpg",
        "sqlalchemy.engine.Engine.structjob",
        "alembic.runtime",
    ):
        logging.getLogger(name).error("from a driver")
    assert sink.records == []
    assert len(await tracker.logs.list()) == 0


async def test_bad_arguments_of_logging_are_survived(tracker):
    """Guarantee 7: a record whose arguments do not fit, or cannot be shown, is worth keeping."""

    class Hostile:
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __str__

    no_handlers()
    logging.getLogger("lib").warning("%d items", "many")
    logging.getLogger("lib").warning("it is %s", Hostile())
    logging.getLogger("lib").warning(Hostile())
    first, second, third = await tracker.logs.list(logger="lib")
    assert "%d items" in first.message
    assert "many" in first.message
    assert second.message.startswith("it is %s")
    assert "RuntimeError" in second.message
    assert "RuntimeError" in third.message


async def test_a_console_that_leads_back_to_logging_has_an_end(tracker, monkeypatch):
    """R31: where `sys.stdout` was replaced by a logger, as many programs do it, an event is shown,
    and what comes out recorded, once.
    """

    class ToLogger(io.StringIO):
        def write(self, text):
            logging.getLogger("stdout").warning(text.strip())
            return len(text)

    sink = Collected()
    structjob.configure(sinks=[sink], redact=["badge"], strict=True)
    no_handlers()
    monkeypatch.setattr("sys.stdout", ToLogger())
    log.info("said", badge="s3cr3t")
    assert len(sink.records) == 2
    assert "said" in [record.message for record in sink.records]
    events = await tracker.logs.list()
    assert [event.logger for event in events] == ["app", "stdout"]
    assert "s3cr3t" not in repr(events)


async def test_a_thread_that_waits_for_room_in_logging_does_not_hold_the_loop_up(db_url):
    """R28, R31: `block` holds foreign threads only, also where the loop's own thread logs through
    `logging`.
    """
    structjob.configure(console=False, strict=True)
    full = threading.Event()
    async with structjob.Tracker(db_url, spool=False, queue_size=10, overflow="block") as tracker:
        no_handlers()
        logger = logging.getLogger("lib")

        def work():
            for n in range(11):
                if n == 10:
                    full.set()
                logger.warning("from the thread")

        thread = threading.Thread(target=work)
        thread.start()
        assert full.wait(20)  # the loop does not run meanwhile, so the eleventh waits
        # In a thread of its own, so that the test fails and does not hang; there a running loop is
        # what it is in the loop's.
        asker = threading.Thread(target=asyncio.run, args=(said(logger),), daemon=True)
        asker.start()
        asker.join(20)
        stuck = asker.is_alive()
        await asyncio.to_thread(thread.join, 20)
        assert not stuck
        assert not thread.is_alive()
        assert len(await tracker.logs.list(text="from the thread")) == 11


async def said(logger):
    logger.warning("from a loop")


# -- bad input
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"level": "loud"}, "unknown level 'loud': use one of debug, info, success"),
        ({"console": "fancy"}, "unknown console format 'fancy': use auto, pretty or json"),
        ({"console": 5}, "console"),
        ({"sinks": [object()]}, "emit"),
        ({"sinks": [Collected("loud")]}, "unknown level 'loud'"),
        ({"sinks": Collected()}, "sinks must be a list, not Collected: sinks=[…]"),
        ({"sinks": "app.log"}, "sinks must be a list, not str"),
        ({"processors": ["x"]}, "processor"),
        ({"processors": print}, "processors must be a list, not builtin_function_or_method"),
        ({"file": 3}, "a file needs a path, not 3"),
        (
            {"file": "/dev/null/app.jsonl"},
            "cannot write the log file /dev/null/app.jsonl",
        ),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_changed(options, says, tmp_path):
    """Bad input: the message names the thing and what to do; the setup stays as it was, and no file
    is left behind.
    """
    sink = Collected()
    structjob.configure(console=False, sinks=[sink], strict=True)
    with pytest.raises(structjob.InvalidArgument, match=re.escape(says)):
        structjob.configure(**{"console": False, "file": tmp_path / "left.jsonl", **options})
    log.info("still here")
    assert sink.messages == ["still here"]
    assert list(tmp_path.iterdir()) == []


async def test_events_before_configure_cost_nothing_and_break_nothing():
    """Design: with no tracker open, logging is just structlog."""
    structjob.configure(console=False, strict=True)
    for n in range(2000):
        log.info("x", n=n)
    await asyncio.sleep(0)


async def test_the_loggers_name_is_a_column_and_shown_beside_an_attribute_of_that_name(
    tracker, capsys
):
    """R4: the name of the logger stands with each event, plain or not; what the call says is an
    attribute.
    """
    structjob.configure(console="json", strict=True)
    named = structlog.get_logger("a.b")
    async with tracker.job("work") as job:
        named.info("plain", n=1)
        named.info("special", kind="mine", n=1)
        named.info("own", logger="other", n=1)
    lines = {line["event"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    stored = {
        event.message: event
        for event in await tracker.logs.list(structjob.LogFilter(job_id=job.id))
    }
    assert [lines[each]["logger"] for each in ("plain", "special", "own")] == [
        "a.b",
        "a.b",
        "a.b",
    ]
    assert lines["own"]["attrs.logger"] == "other"
    assert [stored[each].logger for each in ("plain", "special", "own")] == ["a.b", "a.b", "a.b"]
    assert stored["own"].attrs == {"logger": "other", "n": 1}
    assert (stored["special"].kind, stored["special"].attrs) == ("log", {"kind": "mine", "n": 1})


@pytest.mark.parametrize("logs", [False, True])
def test_a_program_that_forgets_to_set_up_logging_is_told(db_url, caplog, logs):
    """R27: it tracks jobs, its log lines are in no database, and nothing else would say so."""
    with structjob.Tracker(db_url) as tracker:
        if logs:
            structjob.install()
        for _ in range(2):
            with tracker.job("nightly"):
                pass
    said = [record.getMessage() for record in caplog.records if record.name == "structjob"]
    assert len(said) == (not logs)
    assert all("call structjob.configure() when the program starts" in line for line in said)


def test_processors_may_come_from_a_generator(tmp_path):
    """All of them run, although each is looked at first."""
    sink = Collected()
    mark = lambda logger, name, event: {**event, "event": event["event"] + "!"}  # noqa: E731
    structjob.configure(
        console=False, sinks=[sink], strict=True, processors=(one for one in [mark])
    )
    log.info("marked")
    assert sink.messages == ["marked!"]
