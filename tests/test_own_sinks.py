"""Sinks of a program's own: functions, objects, and those that take ready lines (R3)."""

import copy
import json
import logging
import pickle
import types

import pytest
import structlog

import structjob
from structjob import FileSink, InvalidArgument

log = structlog.get_logger("app")


def events(path):
    return [json.loads(line)["event"] for line in path.read_bytes().splitlines()]


class Lines:
    """A sink that takes ready lines."""

    level = "warning"

    def __init__(self):
        self.lines, self.closed = [], False

    def emit(self, event):
        raise AssertionError("no event is made for a sink that takes lines")

    def write(self, line):
        self.lines.append(line)

    def close(self):
        self.closed = True


def test_a_sink_may_take_ready_lines():
    """R3: the short way is open to every sink: `write(line)`, at its own level."""
    sink = Lines()
    structjob.configure(console=False, sinks=[sink])
    log.info("too little")
    log.warning("taken", n=1)
    (line,) = sink.lines
    assert json.loads(line)["event"] == "taken"
    assert line.endswith(b"\n")
    structjob.configure(console=False)
    assert sink.closed


class Filtered(FileSink):
    """A file of what is about disks."""

    def emit(self, event):
        if "disk" in event.attrs:
            super().emit(event)


def test_a_subclass_that_chooses_events_is_asked(tmp_path):
    """R3: an overridden method is called, though its base class has a shorter way."""
    structjob.configure(console=False, sinks=[Filtered(tmp_path / "app.jsonl")])
    log.info("other")
    log.info("disk full", disk="sda")
    assert events(tmp_path / "app.jsonl") == ["disk full"]


class Quicker(Filtered):
    """Takes lines again."""

    def write(self, line):
        super().write(line.replace(b"disk", b"DISK"))


class Plain(FileSink):
    """As its base class."""


@pytest.mark.parametrize(("kind", "shown"), [(Quicker, "DISK full"), (Plain, "disk full")])
def test_a_subclass_may_take_lines(tmp_path, kind, shown):
    """R3: the method that is overridden last is the one that counts."""
    structjob.configure(console=False, sinks=[kind(tmp_path / "app.jsonl")])
    log.info("disk full")
    assert events(tmp_path / "app.jsonl") == [shown]


def test_a_plain_function_is_a_sink():
    """R3: a function, a method, or anything else that can be called; its faults are named."""
    found = []
    structjob.configure(console=False, sinks=[found.append, lambda event: 1 / 0])
    log.info("x", n=1)
    assert [(event.message, event.attrs, event.level) for event in found] == [
        ("x", {"n": 1}, "info")
    ]
    (counted,) = structjob.diagnostics.faults.counts
    assert counted.endswith("test_a_plain_function_is_a_sink.<locals>.<lambda>")


async def test_an_event_says_where_it_belongs(tracker):
    """R3: what a sink needs to know is in fields of their own."""
    found = []
    structjob.configure(console=False, sinks=[found.append])
    async with tracker.job("a", job_id="j") as job:
        pass
    async with tracker.job("a", job_id="j") as job, job.step("s"):
        log.warning("here")
    log.info("of no job")
    (here,) = [event for event in found if event.message == "here"]
    assert (here.kind, here.operation, here.step, here.attempt) == ("log", "a", "s", 2)
    assert here.job_id == job.id
    assert abs(here.timestamp.timestamp() - here.ns / 1e9) < 0.001
    assert (found[-1].operation, found[-1].step, found[-1].attempt) == (None, None, None)
    assert [event.kind for event in found[:2]] == ["operation_start", "operation_end"]


async def test_a_printed_event_is_its_console_line(tracker):
    """`sinks=[print]` shows what happens, and not the address of an object (R3)."""
    shown = []
    structjob.configure(console=False, sinks=[lambda event: shown.append(str(event))])
    async with tracker.job("copy"):
        log.warning("disk is slow", ms=812)
    assert "disk is slow" in shown[1]
    assert shown[1].split()[1:5] == ["warning", "disk", "is", "slow"]
    assert "ms=812" in shown[1]
    stored = (await tracker.logs.list(text="disk is slow"))[0]
    assert shown[1] == str(stored)


async def _asynchronous(event):
    pass


@pytest.mark.parametrize(
    ("sink", "says"),
    [
        (Lines, r"is a class: Lines\(\)"),
        (_asynchronous, "coroutine function"),
        (3, "is neither"),
        ("console", "is neither"),
    ],
)
def test_what_is_no_sink_is_refused(sink, says):
    """R3: the message says what to write instead."""
    with pytest.raises(InvalidArgument, match=says):
        structjob.configure(sinks=[sink])


def test_the_directory_of_a_file_is_made(tmp_path):
    """R3: with those above it, for the user alone; one that is there stays as it is."""
    structjob.configure(console=False, file=tmp_path / "logs" / "today" / "app.jsonl")
    log.info("x")
    assert events(tmp_path / "logs" / "today" / "app.jsonl") == ["x"]
    assert {(tmp_path / "logs" / name).stat().st_mode & 0o777 for name in ("", "today")} == {0o700}
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    FileSink(tmp_path / "shared" / "app.jsonl").close()
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755


def _sent_by_http(calls, shown):
    """Return a sink that sends events by a client that logs its requests, as httpx does."""
    client = logging.getLogger("client")

    class Http:
        def emit(self, event):
            calls.append(event.message)
            client.warning("POST")

    class HttpLines(Http):
        def write(self, line):
            self.emit(types.SimpleNamespace(message=json.loads(line)["event"]))

    def send(event):
        Http().emit(event)

    return {"function": send, "events": Http(), "lines": HttpLines()}[shown]


@pytest.mark.parametrize("shown", ["function", "events", "lines"])
def test_a_sink_does_not_get_what_it_logs(shown):
    """The other sinks get it, once."""
    calls, others = [], []
    structjob.configure(
        console=False, sinks=[_sent_by_http(calls, shown), lambda event: others.append(event)]
    )
    log.info("one")
    assert calls == ["one"]
    assert sorted(event.message for event in others) == ["POST", "one"]
    log.info("two")
    assert calls == ["one", "two"]


def test_a_console_that_logs_what_is_written_to_it_ends():
    """As Celery's stdout does, and many a `StreamToLogger`."""
    written = []

    class Stream:
        def write(self, text):
            written.append(json.loads(text)["event"])
            log.info("from write")

        def flush(self):
            log.info("from flush")

    structjob.configure(console=Stream())
    log.info("one")
    assert written == ["one"]


def test_a_console_can_be_copied_to_another_process():
    sink = pickle.loads(pickle.dumps(structjob.ConsoleSink(format="json", level="error")))
    assert (sink.level, sink.pretty) == ("error", False)
    assert copy.deepcopy(sink).level == "error"
