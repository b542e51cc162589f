"""Lines without a correlation id can be found (R22)."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from cli_support import typed

import structjob
from structjob import InvalidArgument, InvalidFilter, InvalidState, LogFilter
from structjob.diagnostics import faults

log = structlog.get_logger("app")


async def write(tracker):
    log.info("alone")
    structlog.get_logger("other").error("alone, too")
    with structjob.extract({"X-Correlation-ID": "web-42"}).as_current():
        log.info("of a request")
    async with tracker.job("a") as job, job.step("s"):
        log.info("of a step")
        log.warning("of a step, too")
    await tracker.flush()


async def test_events_without_a_correlation_id_are_found(any_tracker):
    """R22: and those with one, on each database; a listener decides alike."""
    await write(any_tracker)

    async def found(**more):
        events = await any_tracker.logs.list(kind="log", **more)
        return [event.message for event in events]

    every = await found()
    assert await found(correlated=False) == ["alone", "alone, too"]
    assert await found(correlated=True) == [
        "of a request",
        "of a step",
        "of a step, too",
    ]
    assert await found(correlated=False, level="error") == ["alone, too"]
    assert await found(correlated=False, since=datetime.now(UTC) + timedelta(1)) == []
    assert await any_tracker.logs.count(kind="log", correlated=False) == 2
    for correlated in (True, False):
        matches = LogFilter(kind="log", correlated=correlated).matches
        assert [
            event.message for event in await any_tracker.logs.list(kind="log") if matches(event)
        ] == await found(correlated=correlated)
    assert len(every) == 5


@pytest.mark.parametrize(
    "given", [{"correlated": "no"}, {"correlated": False, "correlation_id": "x"}]
)
def test_a_filter_that_makes_no_sense_is_refused(given):
    """R22: the message names the field."""
    with pytest.raises(InvalidFilter, match="correlat"):
        LogFilter(**given)


def test_doctor_lists_where_they_come_from(db_url):
    """R22: by logger and operation; exit code 1 if there are any, 0 if not."""

    async def program():
        structjob.configure(console=False)
        async with structjob.Tracker(db_url) as tracker:
            await write(tracker)

    asyncio.run(program())
    said = typed(db_url, "doctor", "--correlation", code=1)
    assert "2 lines without a correlation id" in said
    assert [line.split()[0] for line in said.splitlines() if "alone" in line] == ["app", "other"]
    found = json.loads(typed(db_url, "doctor", "--correlation", "--json", code=1).splitlines()[0])
    assert found["found"][0] == {"logger": "app", "operation": "", "message": "alone", "lines": 1}
    assert "every line has" in typed(db_url, "doctor", "--correlation", "--since", "2200-01-01")
    assert "--correlation" in typed(db_url, "doctor", "--since", "1d", code=2)
    assert "alone" in typed(db_url, "logs", "--uncorrelated")


def configured(action, **more):
    found = []
    structjob.configure(
        console=False,
        sinks=[found.append],
        processors=[structjob.processors.RequireCorrelation(action)],
        **more,
    )
    return found


async def test_a_processor_marks_them(tracker):
    """R22: what has none is marked, and nothing else; a call may bring one of its own."""
    found = configured("mark")
    log.info("alone")
    log.info("brings its own", correlation_id="c-1")
    async with tracker.job("a"):
        log.info("of a job")
    marked = {event.message: event.attrs.get("uncorrelated") for event in found}
    assert marked["alone"] is True
    assert marked["brings its own"] is None
    assert marked["of a job"] is None
    assert faults.counts == {}


def test_a_processor_warns_once_a_minute(caplog):
    """R22: each is counted; strict mode changes nothing of it."""
    configured("warn", strict=True)
    for _ in range(3):
        log.info("alone")
    assert faults.counts == {"correlating an event": 3}
    (record,) = caplog.records
    assert "'alone' is logged without a correlation id" in record.getMessage()


def test_a_processor_raises_in_strict_mode_only():
    """R22: a test finds what is missing; production goes on."""
    found = configured("raise")
    log.info("alone")
    assert [event.message for event in found] == ["alone"]
    configured("raise", strict=True)
    with pytest.raises(InvalidState, match="without a correlation id"):
        log.info("alone")
    with pytest.raises(InvalidArgument, match="mark, warn or raise"):
        structjob.processors.RequireCorrelation("shout")
