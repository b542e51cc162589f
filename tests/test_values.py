"""Values come back as they were given, on every database."""

from __future__ import annotations

import math
from typing import Any

import structlog
from store_support import event, no_flush, opened

import structjob
from structjob.queries.logs import Logs
from structjob.store.contract import Write

NUMBERS = {
    "large float": 1e20,
    "larger float": 1.7976931348623157e308,
    "smallest float": 5e-324,
    "float that is whole": 3.0,
    "float beyond 2**53": 1e16,
    "negative zero": -0.0,
    "many digits": 0.1 + 0.2,
    "negative exponent": 1.5e-10,
    "zero": 0,
    "integer beyond 2**53": 2**53 + 1,
    "integer of 64 bits": 2**63 - 1,
    "negative integer of 64 bits": -(2**63),
    "unsigned integer of 64 bits": 2**64 - 1,
    "truth": True,
}
NESTED = {
    **NUMBERS,
    "in a list": list(NUMBERS.values()),
    "deeper": {"z first": [[-0.0, 1e20, {"a": 1e16}]], "a last": None},
    "texts": ["", " ", "ä😀", "1e20", "true", "null", "a\nb\t\"\\", "\u2028"],
    "empty": [[], {}, [[]], [{}]],
}  # fmt: skip


def exactly(value: Any) -> Any:
    """Return *value* in a form that is equal only if types, signs and the order of keys are, at any
    depth.
    """
    if isinstance(value, dict):
        return [(key, exactly(each)) for key, each in value.items()]
    if isinstance(value, list):
        return [exactly(each) for each in value]
    return type(value), math.copysign(1, value) if isinstance(value, float) else None, value


async def test_values_come_back_equal_at_any_depth(any_tracker: structjob.Tracker) -> None:
    """faults 16: attributes, metadata and results keep numbers, signs, types and the order of keys,
    on each database.
    """
    log = structlog.get_logger()
    async with any_tracker.job("values", metadata=NESTED) as job, job.step("one", metadata=NESTED):
        log.info("all of them", **NESTED)
        job.result = NESTED
    found = await any_tracker.jobs.get(job.id)
    (step,) = await any_tracker.jobs.steps(job.id)
    (logged,) = [one for one in await any_tracker.logs.list(job_id=job.id) if one.kind == "log"]
    for stored in (found.metadata, found.result, step.metadata, logged.attrs):
        assert exactly(stored) == exactly(NESTED)


async def test_a_result_that_is_one_value_comes_back_equal(any_tracker: structjob.Tracker) -> None:
    """A number, a text or a truth alone, also in the job's attempt."""
    given = [*NUMBERS.values(), 10**30, *NESTED["texts"], False, [], {}]
    for value in given:
        async with any_tracker.job("one", wait=False) as job:
            job.result = value
    found = await any_tracker.jobs.list(operation="one", order="asc", limit=100)
    assert [exactly(one.result) for one in found] == [exactly(value) for value in given]
    (attempt,) = await any_tracker.jobs.history(found[6])
    assert exactly(attempt.result) == exactly(0.1 + 0.2)


async def test_a_number_that_is_stored_is_found_by_its_value(
    any_tracker: structjob.Tracker,
) -> None:
    """faults 16: ``attrs={path: value}`` finds the event that has the value, whatever the database
    makes of numbers.
    """
    log = structlog.get_logger()
    for name, value in NUMBERS.items():
        log.info(name, value={"n": value})
    found = {
        name: [one.message for one in await any_tracker.logs.list(attrs={"value.n": NUMBERS[name]})]
        for name in NUMBERS
    }
    equal = {
        name: [other for other in NUMBERS if _same(NUMBERS[name], NUMBERS[other])]
        for name in NUMBERS
    }
    assert found == equal


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


async def test_a_text_that_no_query_could_look_into_is_put_aside(database) -> None:
    """faults 16, guarantee 7: an escaped NUL or half a surrogate pair from elsewhere hides no other
    event from a search.
    """
    async with opened(database) as store:
        texts = (rb"\u0000", rb"\ud800")
        odd = [
            event(number, attrs={"a": 1}).replace(b'"a":1', b'"a":"%s"' % text)
            for number, text in enumerate(texts, 2)
        ]
        await store.write(
            Write(1, event(1, attrs={"a": 1}) + b"".join(odd) + event(4, attrs={"a": 1}))
        )
        found = await Logs(store.fetch, no_flush).list(attrs={"a": 1})
        assert [one.seq for one in found] == [1, 4]
