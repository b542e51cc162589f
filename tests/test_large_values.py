"""Results and metadata have limits of their own: large ones are stored whole; what is cut is
marked, and warned about once.
"""

from __future__ import annotations

import json
import signal
import subprocess

import msgspec
import pytest
import structlog
from cli_support import Shell
from hypothesis import given
from hypothesis import strategies as st
from store_support import job, opened
from test_encoding import HOSTILE

import structjob
from structjob.store.contract import Write
from structjob.values import bounds, encoding, normalizer
from structjob.values.redaction import Redactor, rules_of
from structjob.values.secret_rules import SecretRules

LARGE = {
    "rows": [
        {"id": number, "name": f"row {number}", "tags": ["a", None, 0.5], "ok": True}
        for number in range(12_500)
    ],
    "keys": {f"k{number}": number for number in range(5000)},
    "text": "é" * 80_000,
}
"""Of about 950 KiB of JSON, and beyond each limit of an event's attributes."""


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "is cut" in record.getMessage()]


@pytest.mark.slow
async def test_large_results_and_metadata_are_stored_whole(any_tracker, caplog):
    """faults 14: a result that is a text of 1 MiB, and metadata of nearly 1 MiB of a job and a
    step, come back equal on each database, without a warning.
    """
    text = {"text": "x" * (1 << 20)}
    assert 900_000 < len(msgspec.json.encode(LARGE)) < bounds.MAX_VALUE
    async with (
        any_tracker.job("large", metadata=LARGE) as running,
        running.step("s", metadata=LARGE),
    ):
        running.result = text
    found = await any_tracker.jobs.get(running.id)
    (step,) = await any_tracker.jobs.steps(running.id)
    (attempt,) = await any_tracker.jobs.history(running.id)
    assert found.metadata == step.metadata == LARGE
    assert found.result == attempt.result == text
    assert complaints(caplog) == []


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


CUTS = {
    "values": (
        lambda: [1] * 300_000,
        "the number of values is more than 262,144",
        "…[cut: 37,856 more of 300,000 items]",
    ),
    "text": (
        lambda: "x" * 1_100_000,
        "a text of 1,100,000 characters is more than 1,048,576 bytes",
        "…[cut: the first 1,048,496 of 1,100,000 kept]",
    ),
    "bytes": (
        lambda: b"x" * 1_100_000,
        "1,100,000 bytes is more than 1,048,576 bytes",
        "…[cut: the first 1,048,496 of 1,100,000 kept]",
    ),
    "depth": (
        lambda: deep(30),
        "the depth of nesting is more than 24",
        "…[cut: list nested deeper than 24 levels]",
    ),
    "key": (
        lambda: {"k" * 300: 1},
        "a key of 300 characters is more than 256 bytes",
        "…[cut: the first 176 of 300 kept]",
    ),
    "digits": (
        lambda: 1 << 9000,
        "a number of 9,001 bits is more than 8,192",
        "<int of 9,001 bits>",
    ),
    "room": (
        lambda: ["x" * 500] * 10_000,
        "5,030,001 bytes of JSON are more than 1,114,112",
        "…[cut: 7,952 more of 10,000 items]",
    ),
}


@pytest.mark.parametrize("name", CUTS)
def test_each_cut_is_marked_with_what_there_was_and_reported(name):
    """faults 14: the mark counts what the value itself holds, however often it had to be cut; the
    report names the limit.
    """
    make, why, mark = CUTS[name]
    told: list[str] = []
    out = encoding.encode_value(make(), bounds.OF_VALUE, warn=told.append)
    assert len(out) <= bounds.MAX_VALUE
    assert mark in out.decode()
    assert told == [why]


async def test_a_cut_is_warned_about_once_per_job(tracker, caplog, monkeypatch):
    """faults 14: on the library's own logger, with the job, the field and the limit; the steps of
    the job count as the job.
    """
    monkeypatch.setattr("structjob.lifecycle.core.OF_VALUE", bounds.OF_EVENT)  # is quicker to fill
    large = ["x" * 1000] * 300
    async with (
        tracker.job("reads", metadata={"rows": large}) as first,
        first.step("s", metadata={"rows": large}),
    ):
        first.result = large
    async with tracker.job("writes") as second:
        async with second.step("s", metadata={"rows": large}):
            pass
        second.result = large
    start = "is cut, and marked where: 30"
    one, two = complaints(caplog)
    assert one.startswith(f"the metadata of job {first.id} (reads) {start}")
    assert two.startswith(f"the metadata of step 's' of job {second.id} {start}")
    assert f"bytes of JSON are more than {bounds.ROOM:,}" in one
    assert {record.name for record in caplog.records if "is cut" in record.getMessage()} == {
        "structjob"
    }


_LONG = {
    "lying mapping",
    "deep dict",
    "deep list",
    "wide and deep",
    "long text",
    "many keys",
    "endless",
}
"""Those that are walked through, up to the limits, several times."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in _LONG else name for name in HOSTILE],
)
def test_whatever_a_result_is_it_is_stored_within_its_limits(name):
    """Guarantee 7: the last resort works, too, whatever the value does when it is asked."""
    value = HOSTILE[name]
    # larger than a value may be by a little, and by more; many of them
    larger = [{"value": value, "more": ["\x01" * 100_000] * count} for count in (2, 3)]
    for given_ in (value, *larger, [[value] * 30] * 30):
        out = encoding.encode_value(given_, bounds.OF_VALUE, SecretRules())
        assert len(out) <= bounds.MAX_VALUE
        json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_marks_of_a_large_event_count_what_was_given():
    """faults 14: an event that is too large even after a first cut; with its secrets taken out."""
    attrs = {
        "rows": [{"n": number, "text": "x" * 2000} for number in range(5064)],
        "at": "password=hunter2",
    }
    out = json.loads(encoding.encode_value(attrs, redactor=SecretRules()))
    assert out["rows"][-1] == "…[cut: 5,000 more of 5,064 items]"
    assert out["at"] == "password=[redacted]"


async def test_keys_that_are_no_text_leave_the_marks_true(tracker):
    """faults 14: such attributes, which only a processor can make, are looked at once as all others
    are.
    """
    structjob.configure(
        console=False,
        strict=True,
        processors=[lambda logger, name, event: {**event, 7: list(range(2000)), "7": 1}],
    )
    structlog.get_logger().info("seven", secret="s")
    (event,) = await tracker.logs.list(text="seven")
    assert event.attrs["7"][-1] == "…[cut: 976 more of 2,000 items]"
    assert event.attrs["7~2"] == 1
    assert event.attrs["secret"] == "[redacted]"


SECRETS = [
    "password",
    "token",
    "--token",
    "x --password y",
    "https://u:p@host",
    "plain",
    "a",
    "authorization",
    "Bearer abc123def4",
    "\x00",
]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(SECRETS)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(SECRETS) | st.integers(0, 2), inner, max_size=3)
        ),
        max_leaves=20,
    )
)
def test_the_short_way_comes_to_the_same_as_the_careful_one(value):
    """faults 14: plain values are not walked through; what is stored is what the walk would have
    made, without the same secrets.
    """
    assert json.loads(
        encoding.encode_value(value, bounds.OF_VALUE, SecretRules())
    ) == Redactor().redact(normalizer.normalize(value))


async def test_the_newer_of_two_large_results_stays(database):
    """faults 14: whichever is stored first; a large value belongs to its own change of state."""
    old, new = ({"text": letter * 300_000} for letter in "on")
    async with opened(database) as store:
        await store.write(Write(1, states=job(2, result=new, metadata=new)))
        await store.write(Write(1, states=job(1, result=old, metadata=old)))
        await store.write(Write(2, states=job(9, result=old, metadata=old)))
        await store.write(
            Write(
                1,
                states=job(3, "k", result=old)
                + job(4, "l", metadata=old, result=[1])
                + job(5, "k", result=new),
            )
        )
    for id_, metadata, result in (("j", new, new), ("k", None, new), ("l", old, [1])):
        ((stored_metadata, stored_result),) = await database.rows(
            f"SELECT metadata, result FROM structjob_jobs WHERE id = '{id_}'"
        )
        assert [plain(stored_metadata), plain(stored_result)] == [metadata, result]


def plain(value):
    return json.loads(value) if isinstance(value, str) else value


KILLED = """
import asyncio, os, signal, sys
import structjob

async def main(url):
    tracker = structjob.Tracker(url)
    await tracker.open()
    async with tracker.job("large", job_id="large-1") as job:
        job.metadata = {"text": "m" * 900_000}
        job.result = {"text": "r" * 900_000}
    os.kill(os.getpid(), signal.SIGKILL)

structjob.configure(console=False)
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
async def test_a_large_state_survives_kill_9(tmp_path, db_url):
    """faults 14, guarantee 1: a record of almost 2 MiB is in the spool when the block is left, and
    the next tracker stores it whole.
    """
    with pytest.raises(subprocess.CalledProcessError) as ended:
        Shell(tmp_path).python(KILLED, db_url)
    assert ended.value.returncode == -signal.SIGKILL
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        found = await tracker.jobs.get("large-1")
    assert (found.status, found.result, found.metadata) == (
        "completed",
        {"text": "r" * 900_000},
        {"text": "m" * 900_000},
    )


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
async def test_a_server_of_small_packets_gets_what_fits(database, caplog):
    """faults 14: a result that its max_allowed_packet does not allow is left out, with a word, and
    put aside as far as it fits; the rest of the row and its neighbors are stored.
    """
    large = {"text": "r" * 900_000}
    async with opened(database) as store:
        store.ingest.most = 400_000
        states = job(1, result=large, metadata={"kept": 1}, status="completed") + job(
            2, "k", result=[1]
        )
        written = await store.write(Write(1, states=states))
    assert sorted(written.states) == [1, 2]
    rows = await database.rows(
        "SELECT id, status, metadata, result FROM structjob_jobs ORDER BY id"
    )
    assert [(*row[:2], plain(row[2])) for row in rows] == [
        ("j", "completed", {"kept": 1}),
        ("k", "running", None),
    ]
    assert "left out" in rows[0][3]
    ((error, payload),) = await database.rows("SELECT error, payload FROM structjob_dead_letters")
    assert "max_allowed_packet permits 400,000" in error
    assert len(payload.encode()) <= 400_000
    assert "…[cut: the first " in payload[-60:]
    assert "the database refuses a value of job j" in caplog.text


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
async def test_a_job_of_a_given_id_begins_although_its_metadata_do_not_fit(
    any_tracker, database, monkeypatch
):
    """faults 14: where the start asks the database first, metadata that its max_allowed_packet does
    not allow raise nothing; and of all its records, each of which is refused, one is kept.
    """
    # whatever the packets of further connections
    monkeypatch.setattr(any_tracker._store, "prepare", lambda connection: None)
    any_tracker._store.ingest.most = 400_000
    large = {"text": "m" * 900_000}
    async with any_tracker.job("claimed", job_id="given-1", metadata=large) as running:
        await any_tracker.flush()
        running.update(percent=50)
    async with any_tracker.job("keyed", idempotency_key="k", metadata=large):
        pass
    found = await any_tracker.jobs.get("given-1")
    assert (found.status, found.attempt) == ("completed", 1)
    assert await database.rows("SELECT status FROM structjob_jobs WHERE idempotency_key = 'k'") == [
        ("completed",)
    ]
    letters = await database.rows("SELECT payload FROM structjob_dead_letters")
    assert sorted("given-1" in payload[:100] for (payload,) in letters) == [False, True]


def test_what_was_cut_is_not_cut_again():
    """faults 14: an event that is exported and imported keeps its marks: the mark takes the place
    of one item, or of one key.
    """
    given = {
        "items": list(range(5000)),
        "keys": {f"k{n}": n for n in range(300)},
        "text": "x" * 100_000,
        "deep": deep(30),
    }
    once = encoding.encode_value(given)
    assert encoding.encode_value(json.loads(once)) == once
    assert json.loads(once)["items"][-1] == "…[cut: 3,976 more of 5,000 items]"


def test_nothing_is_redacted_that_is_cut_anyway():
    """The search for secrets in 100,000 keys takes longer than all the rest; the loop waits."""

    class Counting(Redactor):
        def redact(self, value, key=None):
            if key is None and type(value) is dict:
                sizes.append(len(value))
            return super().redact(value, key)

    sizes: list[int] = []
    large = {f"key-{number}": f"value {number}" for number in range(100_000)}
    out = encoding.encode_value(large, bounds.OF_VALUE, rules_of(Counting()))
    assert len(out) <= bounds.OF_VALUE.room
    assert sizes == [bounds.OF_VALUE.limits[1].keys + 1]
