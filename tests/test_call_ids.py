"""Decorated functions whose ids follow from the arguments of each call (faults 47)."""

import re

import pytest
import structlog

import structjob
from structjob import InvalidArgument

log = structlog.get_logger()


@structjob.job(
    "import",
    external_job_id=lambda call: f"order-{call['order']}",
    correlation_id=lambda call: f"{call['source']}-{call['order']}",
)
def import_order(order, source="web"):
    log.info("imported", order=order)
    return order


@structjob.job("import", external_job_id=lambda call: f"order-{call['order']}")
async def import_later(order, *, source="web"):
    return order


class Shop:
    name = "shop"

    @structjob.job("sell", context_id=lambda call: f"{call['self'].name}-{call['items'][0]}")
    def sell(self, *items):
        return len(items)


async def test_each_call_has_the_ids_of_its_arguments(tracker):
    """Faults 47: positional, keyword and default arguments, functions and coroutine functions."""
    import_order(7)
    import_order(order=8, source="desk")
    await import_later(9)
    Shop().sell("pen", "ink")

    found = {job.external_job_id or job.context_id: job for job in await tracker.jobs.list()}
    assert set(found) == {"order-7", "order-8", "order-9", "shop-pen"}
    assert found["order-7"].correlation_id == "web-7"
    assert found["order-8"].correlation_id == "desk-8"
    assert (found["order-9"].result, found["shop-pen"].result) == (9, 2)


async def test_the_same_id_is_the_next_attempt(tracker):
    """Faults 47: with `job_id`, a repeated call is the next attempt of the same job."""

    @tracker.job("nightly", job_id=lambda call: f"day-{call['day']}")
    async def nightly(day):
        return structjob.current_job().attempt

    assert [await nightly(1), await nightly(1), await nightly(2)] == [1, 2, 1]


async def test_no_id_for_one_call(tracker):
    """Faults 47: a function that returns None leaves the id out."""

    @tracker.job("a", external_job_id=lambda call: call["id_"])
    def work(id_):
        pass

    work("x")
    work(None)
    assert {job.external_job_id for job in await tracker.jobs.list()} == {"x", None}


def test_without_a_tracker_the_function_runs():
    """Faults 47: decorated code can be tested without a tracker."""
    assert import_order(7) == 7


async def test_mistakes_are_named(tracker):
    """Faults 47, bad input: an invalid id, wrong arguments, a block, a forgotten parenthesis."""

    @tracker.job("a", job_id=lambda call: call["number"])
    def work(number):
        pass

    with pytest.raises(InvalidArgument, match="job_id must be text, not int"):
        work(7)
    with pytest.raises(TypeError, match="too many positional arguments"):
        work(7, 8)
    block = tracker.job("a", job_id=lambda call: "x")
    with pytest.raises(InvalidArgument, match="job_id is a function, which works for a decorated"):
        async with block:
            pass
    assert list(await tracker.jobs.list()) == []
    for decorator in (structjob.job, tracker.job, structjob.step):
        says = "not the function 'work'; a decorator takes it in parentheses"
        with pytest.raises(InvalidArgument, match=re.escape(says)):
            decorator(work)
