"""Events as lines for people: one form on the console, in ``structjob logs`` and in the demo."""

from __future__ import annotations

import io
import json
import logging
import re
import time

import pytest
import structlog

import structjob
from structjob.lifecycle import core, job_core
from structjob.lifecycle.handle import core_of
from structjob.text.appearance import cells, lasting, wrapped
from structjob.text.rendering import Lines

log = structlog.get_logger("app")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def console(monkeypatch: pytest.MonkeyPatch, columns: int = 120) -> Terminal:
    """Log to a terminal of so many columns, without color."""
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    structjob.configure(console=structjob.ConsoleSink(stream, color=False), strict=True)
    return stream


async def work(tracker: structjob.Tracker) -> None:
    """One job with a step that is completed and one that fails."""
    async with tracker.job("import-orders") as job:
        log.info("begun", n=3)
        async with job.step("copy", total=3) as step:
            log.info("chunk copied")
            step.advance(3)
        try:
            async with job.step("load"):
                raise ValueError("the source is empty")
        except ValueError:
            pass


def anonymous(text: str) -> list[str]:
    """Return the lines of *text* without times and ids; attributes stand two blanks after the
    message, however long that is.
    """
    lines = [
        re.sub(r"^[\d:.]{12} |<?\d+(?=ms)|[0-9a-f]{8}$", "", line).rstrip()
        for line in text.splitlines()
    ]
    return [re.sub(r"(?<=\S) {2,}(?=\w+=)", "  ", line) for line in lines]


async def test_the_console_shows_jobs_and_steps_in_words(tracker, monkeypatch):
    """faults 41: the first output of one's own program says what became of jobs and steps, as the
    demo does.
    """
    stream = console(monkeypatch)
    await work(tracker)
    assert [line for line in anonymous(stream.getvalue()) if not line.startswith("    ")] == [
        "info     ● import-orders started ·",
        "info     begun  n=3 · import-orders",
        "info     ○ copy  total=3 · import-orders",
        "info     chunk copied · copy · import-orders",
        "info     ✓ copy in ms  completed=3 · import-orders",
        "info     ○ load · import-orders",
        "error    ✗ load: ValueError: the source is empty · import-orders",
        "info     ✗ load failed in ms · import-orders",
        "info     ✓ import-orders completed in ms ·",
    ]
    assert "[job_id=" not in stream.getvalue()


async def test_progress_is_shown_in_words(tracker, monkeypatch):
    """R16: a line of progress said `progress step=copy completed=2 total=4 percent=50`, and one
    came after the end of its step.
    """
    monkeypatch.setattr(core, "PROGRESS_EVENT_EVERY", 0.0)
    monkeypatch.setattr(job_core, "PROGRESS_EVENT_EVERY", 0.0)
    stream = console(monkeypatch)
    async with tracker.job("import-orders") as job:
        async with job.step("copy", total=8) as step:
            step.advance(4)
            core_of(step).flush_progress()
            step.advance(4)
        job.update(percent=40, current_step="verify")
        core_of(job).flush_progress()
    shown = anonymous(stream.getvalue())
    assert shown[2:] == [
        "info     ● copy 50%  completed=4 total=8 · import-orders",
        "info     ✓ copy in ms  completed=8 · import-orders",
        "info     ● import-orders 40%  current_step=verify ·",
        "info     ✓ import-orders completed in ms ·",
    ]
    kept = await tracker.logs.list(kind="progress")
    assert [event.message for event in kept] == ["copy 50%", "import-orders 40%"]


async def test_a_newline_at_the_end_of_a_message_is_not_shown(tracker, monkeypatch):
    """faults 41: uvicorn ends a message with a newline, which is not written out as ``\\n``."""
    stream = console(monkeypatch)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n")
    assert re.search(
        r"error +Exception in ASGI application · uvicorn.error$", stream.getvalue(), re.MULTILINE
    )


async def test_console_and_logs_show_the_same_line(tracker, monkeypatch):
    """faults 41: an event that is read from the database looks as it did on the console."""
    stream = console(monkeypatch)
    await work(tracker)
    shown = stream.getvalue()
    lines = Lines(color=False, clock_only=True, width=lambda: 120, unicode=True)
    assert "".join([f"{lines.render(event)}\n" async for event in tracker.logs.iterate()]) == shown


@pytest.mark.parametrize("columns", [60, 80, 120])
async def test_no_line_is_wider_than_the_terminal(tracker, monkeypatch, columns):
    """faults 41: a long line goes on below its message, broken between words; where there is little
    room, the job's name is left out.
    """
    stream = console(monkeypatch, columns)
    async with tracker.job("import-orders"):
        log.warning(
            "disk is slow",
            path="/var/lib/postgresql/data",
            user="ada lovelace",
            note="a word and another " * 9,
        )
        log.info("chunk copied", number=12345)
    lines = stream.getvalue().splitlines()
    assert max(map(cells, lines)) <= columns
    assert all(re.match(r"[\d:.]{12} \w|  {21}\S", line) for line in lines)
    assert "path=/var/lib/postgresql/data" in stream.getvalue()
    assert ("· import-orders" in lines[-2]) == (columns > 80)


def test_a_line_is_broken_between_words():
    """faults 41: no word is broken, be it of several colors; one that is longer than the
    line is.
    """
    row = [("head ", ""), ("key=", "cyan"), ("value", ""), (" ", ""), ("日本語", ""), (" end", "")]
    assert ["".join(text for text, _ in line).rstrip() for line in wrapped(row, 12, 2)] == [
        "head",
        "  key=value",
        "  日本語 end",
    ]
    assert ["".join(text for text, _ in line) for line in wrapped([("a" * 30, "")], 12, 2)] == [
        "a" * 12,
        "  " + "a" * 10,
        "  " + "a" * 8,
    ]


def test_a_stream_with_few_letters_gets_ascii(monkeypatch):
    """faults 41: where the stream cannot show the symbols, letters stand for them."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    structjob.configure(
        console=structjob.ConsoleSink(stream, format="pretty", color=False), strict=True
    )
    structjob.capture.emit.emit(
        None, "info", "operation_start", {"operation": "copy"}, kind="operation_start"
    )
    stream.flush()
    assert raw.getvalue().endswith(b"info     * copy started\n")


async def test_a_line_shows_few_decimals_and_the_database_keeps_all(tracker, monkeypatch):
    """A percentage of two thirds is no row of digits, on the console and in the logs (R44)."""
    shown = console(monkeypatch)
    log.info("copied", percent=67.41666666666667, whole=3.0, nested={"share": 2 / 3})
    await tracker.flush()
    (event,) = await tracker.logs.list(text="copied")
    assert event.attrs["percent"] == 67.41666666666667
    for line in (shown.getvalue(), Lines(color=False, utc=True).render(event)):
        assert "percent=67.4166 " in line
        assert 'nested={"share":0.6666666666666666}' in line


def test_what_the_user_calls_kind_is_an_attribute(monkeypatch):
    """faults 41: only structjob's own events are shown in structjob's words."""
    stream = console(monkeypatch)
    log.info("tank", kind="step_end", status="failed")
    assert anonymous(stream.getvalue()) == ["info     tank  kind=step_end status=failed · app"]


async def test_what_is_shown_of_jobs_and_steps_is_found(any_tracker):
    """faults 41: the words of a line are its message in the database, on each of them, so that a
    search finds what was seen.
    """
    await work(any_tracker)

    async def found(text: str) -> list[str]:
        return [event.kind for event in await any_tracker.logs.list(text=text)]

    assert await found("import-orders started") == ["operation_start"]
    assert await found("import-orders completed in") == ["operation_end"]
    assert await found("copy in") == ["step_end"]
    assert await found("load: ValueError: the source is empty") == ["step_error"]
    assert await found("load failed") == ["step_end"]
    assert await found("operation_start") == []


async def test_files_have_the_kind_in_place_of_the_words(tracker, tmp_path):
    """faults 41: programs that read a log file find the name of the event there, as ever; secrets
    are taken out of the words, too.
    """
    structjob.configure(console=False, file=tmp_path / "app.jsonl", strict=True)
    try:
        async with tracker.job("import-orders") as job:
            raise ValueError("no access with password=hunter2")
    except ValueError:
        pass
    events = [
        json.loads(line)["event"] for line in (tmp_path / "app.jsonl").read_text().splitlines()
    ]
    assert events == ["operation_start", "operation_end"]
    (ended,) = await tracker.logs.list(job_id=job.id, kind="operation_end")
    assert ended.message.endswith(": ValueError: no access with password=[redacted]")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (0, "<1ms"), (0.0004, "<1ms"), (0.02, "20ms"), (0.9996, "1.00s"), (4.482, "4.48s"), (59.96, "1m 00s"), (7_205, "2h 00m")],
)  # fmt: skip
def test_durations_are_shown_with_a_useful_precision(seconds, shown):
    """Two hours are not 7205.00s, and a second is not 1000ms (R5)."""
    assert lasting(seconds) == shown


async def test_a_message_has_the_duration_as_people_write_it(tracker):
    """The line of a step that ran for hours says hours, as `structjob show` does (R5, R25)."""
    async with tracker.job("copy") as job:
        job.log_duration("copy", time.time() - 7_205)
    (event,) = await tracker.logs.list(text="copy took")
    assert event.message == "copy took 2h 00m"
