"""Equal events, too many of them (R33)."""

import pytest
import structlog

import structjob
from structjob import InvalidArgument, InvalidFilter
from structjob.processors import RateLimit, Sampler

log = structlog.get_logger("app")


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which stands still until it is set."""
    now = [1_000.0]
    monkeypatch.setattr("structjob.capture.noise.monotonic", lambda: now[0])
    return now


def configured(*given, **options):
    found = []
    structjob.configure(
        console=False,
        sinks=[found.append],
        processors=[RateLimit(*given, **options)],
        strict=True,
    )
    return found


def shown(found):
    return [(event.message, event.attrs.get("suppressed", 0)) for event in found]


def test_so_many_pass_a_second(clock):
    """R33: and the next one says how many did not; every event is shown or counted, once."""
    found = configured(2)
    for _ in range(10):
        log.info("tick")
    log.info("other")
    clock[0] += 0.5
    log.info("tick")
    log.info("tick")
    clock[0] += 100
    for _ in range(3):
        log.info("tick")
    assert shown(found) == [
        ("tick", 0), ("tick", 0), ("other", 0), ("tick", 8), ("suppressed", 0), ("tick", 0), ("tick", 0)
    ]  # fmt: skip
    assert found[4].attrs == {"count": 1, "messages": {"tick": 1}}


def test_warnings_and_other_messages_pass(clock):
    """R33: what is grave is never left out, nor what was not named."""
    found = configured(1, events=["tick"], level_below="error")
    for _ in range(3):
        log.warning("tick")
        log.error("tick")
        log.info("other")
    messages = [(event.level, event.message) for event in found]
    assert messages.count(("warning", "tick")) == 1
    assert messages.count(("error", "tick")) == messages.count(("info", "other")) == 3


async def test_each_job_has_a_rate_of_its_own(tracker, clock):
    """R33: one job that says much does not silence the others."""
    found = configured(1, burst=2)
    for _ in range(2):
        async with tracker.job("a"):
            for _ in range(5):
                log.info("tick")
    assert [event.message for event in found if event.message == "tick"] == ["tick"] * 4


def test_what_is_told_late_is_told(clock):
    """R33: once a minute, with whatever is logged next."""
    found = configured(1)
    for message in ("a", "a", "a", "b", "b"):
        log.info(message)
    clock[0] += 59
    log.warning("early")
    clock[0] += 2
    log.warning("late")
    (told,) = [event for event in found if event.message == "suppressed"]
    assert told.attrs == {"count": 3, "messages": {"a": 2, "b": 1}}
    clock[0] += 100
    log.warning("nothing more")
    assert len([event for event in found if event.message == "suppressed"]) == 1
    log.info("b")
    log.info("b")
    clock[0] += 59
    log.warning("early again")
    assert len([event for event in found if event.message == "suppressed"]) == 1


def test_as_many_at_once_as_are_allowed(clock):
    """R33: one at least, however many a second."""
    found = configured(5, burst=1)
    for _ in range(3):
        log.info("tick")
    clock[0] += 0.2
    log.info("tick")
    assert shown(found) == [("tick", 0), ("tick", 2)]


def test_what_it_remembers_is_bounded(clock):
    """R33: a message that is another each time takes no more memory, and every one is counted."""
    found = configured(1)
    for number in range(3_000):
        log.info(f"event {number}")
        log.info(f"event {number}")
    clock[0] += 61
    log.warning("later")
    (told,) = [event for event in found if event.message == "suppressed"]
    assert told.attrs["count"] == 3_000
    assert len(found) == 3_002


@pytest.mark.parametrize("odd", [None, 5, b"x", {"a": 1}, object()])
def test_any_message_has_a_rate(clock, odd):
    """R33: anything can be logged."""
    found = configured(1)
    log.info(odd)
    log.info(odd)
    assert len(found) == 1


def test_wrong_arguments_are_refused():
    """R33: the message names them."""
    for given, options in (
        ((0,), {}),
        ((-1,), {}),
        ((float("nan"),), {}),
        ((1,), {"burst": 0}),
        (("3",), {}),
        ((1,), {"burst": "3"}),
    ):
        with pytest.raises(InvalidArgument, match="per_second"):
            RateLimit(*given, **options)
    with pytest.raises(InvalidFilter, match="loud"):
        RateLimit(1, level_below="loud")
    with pytest.raises(InvalidArgument, match="events must be a list, not str"):
        RateLimit(1, events="polled")
    with pytest.raises(InvalidArgument, match="events must list texts only, not int"):
        Sampler(10, events=[7])
    for every in (0, "3", 1.5):
        with pytest.raises(InvalidArgument, match="every must be a whole number of at least 1"):
            Sampler(every)


@pytest.mark.parametrize("log_again", [False, True])
def test_what_a_short_job_suppressed_is_in_its_last_event(db_url, log_again):
    """R33: a script that ends within a minute reports every number once: with the next event that
    passes, at the end of the job, and outside jobs when the tracker closes.
    """
    structjob.configure(console=False, processors=[RateLimit(1, events=["row", "system"])])
    with structjob.Tracker(db_url) as tracker:
        for _ in range(4):
            log.info("system")
        with tracker.job("nightly") as job:
            for _ in range(6):
                log.info("row")
            if log_again:
                structjob.current_job()
                with job.child("kid"):
                    for _ in range(3):
                        log.info("row")
    with structjob.Tracker(db_url) as tracker:
        events = tracker.run(tracker.logs.list(order="asc"))
    ends = {
        event.operation: event.attrs.get("suppressed")
        for event in events
        if event.kind == "operation_end"
    }
    assert ends == {"nightly": {"row": 5}} | ({"kid": {"row": 2}} if log_again else {})
    (told,) = [event.attrs for event in events if event.message == "suppressed"]
    assert told == {"count": 3, "messages": {"system": 3}}
