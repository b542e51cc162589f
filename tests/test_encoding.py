"""Whatever is logged is stored: normalized, or cut with a mark that says how much. The log call
never raises.
"""

import asyncio
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import inspect
import json
import pathlib
import sys
import time
import tracemalloc
import uuid

import msgspec
import pytest
import structlog
from each import each
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import structjob
from structjob.values import bounds, encoding, normalizer
from structjob.values.secret_rules import SecretRules

log = structlog.get_logger("app")


def encoded(attrs):
    """Return attributes as JSON, as those of an event become it."""
    return encoding.encode_plain(attrs, (), []) or encoding.encode_value(attrs)


def decoded(value):
    """Return *value* as any JSON parser would read it back."""
    out = encoding.encode_value(value)
    text = out.decode()
    # `json` takes NaN and lone surrogates, which databases refuse.
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def depth_of(value):
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


class Raising:
    """Every question it is asked, it answers with an exception."""

    def _no(self, *args):
        raise RuntimeError("no")

    __repr__ = __str__ = __len__ = __iter__ = __hash__ = __eq__ = __bool__ = __getattr__ = (
        __format__
    ) = _no
    __class__ = property(_no)


class LyingMapping(dict):
    """Has keys without end, and values that are itself."""

    def __iter__(self):
        n = 0
        while True:
            n += 1
            yield n

    def __getitem__(self, key):
        return self

    def __len__(self):
        return 10**9

    def items(self):
        raise RuntimeError("no")

    keys = values = items


class RaisingLength(dict):
    def __len__(self):
        raise RuntimeError("no")


class NegativeLength(list):
    def __len__(self):
        return -5  # noqa: PLE0303 -- that is the point


class HostileText(str):
    def _no(self, *args):
        raise RuntimeError("no")

    __str__ = __repr__ = encode = __len__ = __contains__ = __format__ = _no


class HostileInt(int):
    def _no(self, *args):
        raise RuntimeError("no")

    __int__ = __index__ = __repr__ = bit_length = _no


class NoText:
    def __repr__(self):
        return 5


class Endless:
    def __repr__(self):
        return repr(self)


class HostileMeta(type):
    def __getattribute__(cls, name):
        raise RuntimeError("no")

    def __repr__(cls):
        raise RuntimeError("no")

    def __hash__(cls):
        raise RuntimeError("no")


class OfHostileMeta(metaclass=HostileMeta):
    def __repr__(self):
        raise RuntimeError("no")


def nested(depth, kind=list):
    value = inner = kind()
    for _ in range(depth):
        fresh = kind()
        if kind is list:
            inner.append(fresh)
        else:
            inner["down"] = fresh
        inner = fresh
    return value


def cycle():
    value = {"n": 1}
    value["self"] = value
    return value


HOSTILE = {
    "nan": float("nan"),
    "infinity": float("inf"),
    "big int": 2**70,
    "huge int": 10**5000,
    "lone surrogate": "a\ud800b",
    "nul": "a\x00b",
    "control characters": "".join(map(chr, range(32))) * 1000,
    "bytes": b"\x00\xff",
    "memoryview": memoryview(b"abc"),
    "set": {1, "a", None},
    "cycle": cycle(),
    "deep list": nested(5000),
    "deep dict": nested(5000, dict),
    "raising": Raising(),
    "raising class": OfHostileMeta(),
    "lying mapping": LyingMapping(),
    "raising length": RaisingLength(a=1),
    "negative length": NegativeLength([1, 2]),
    "hostile text": HostileText("text"),
    "hostile int": HostileInt(5),
    "no text": NoText(),
    "endless": Endless(),
    "tuple keys": {(1, 2): "a", "(1, 2)": "b"},
    "equal keys": {1: "a", "1": "b"},
    "hostile keys": {
        HostileText("k"): 1,
        10**5000: 2,
        float("nan"): 3,
        b"b": 4,
        None: 5,
        "a\ud800": 6,
        "\x00": 7,
    },
    "long text": "x" * 1_000_000,
    "many keys": {f"k{n}": n for n in range(10_000)},
    "many items": list(range(100_000)),
    "wide and deep": [[[["x" * 1000] * 50] * 50] * 50] * 50,
    "generator": (n for n in range(3)),
    "type": HostileMeta,
    "deque": collections.deque([1, 2]),
}


@each("name", HOSTILE)
def test_any_value_becomes_json_within_the_limits(name):
    """Guarantee 7: whatever it is, it comes out as JSON that every database takes, at most an
    event's size, 24 deep.
    """
    out = encoded({"value": HOSTILE[name], "neighbour": 1})
    assert len(out) <= bounds.ROOM
    assert b"\\u0000" not in out
    back = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert depth_of(back) <= bounds.MAX_DEPTH
    assert msgspec.json.decode(out) == back


@each("name", HOSTILE)
def test_any_message_becomes_text(name):
    """Guarantee 7: `log.info(None)`, `log.info(object())`, anything: the message is a text of at
    most 64 KiB, cut with a mark.
    """
    out = encoding.encode_text(HOSTILE[name])
    assert isinstance(json.loads(out), str)
    assert len(json.loads(out).encode()) <= bounds.MAX_STRING


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(st.characters(codec=None), max_size=50)
        | st.binary(max_size=50)
        | st.datetimes()
        | st.decimals()
        | st.uuids(),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(
                st.text(st.characters(codec=None))
                | st.integers()
                | st.floats()
                | st.tuples(st.integers()),
                inner,
                max_size=5,
            )
            | st.frozensets(st.integers() | st.text())
        ),
        max_leaves=30,
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_normalized_values_survive_the_round_trip(value):
    """Guarantee 7: what comes out is plain JSON, and reads back as itself."""
    plain = normalizer.normalize(value)
    assert decoded(value) == plain
    assert normalizer.normalize(plain) == plain


@given(
    st.dictionaries(
        st.text(max_size=60),
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=100),
    )
)
def test_plain_values_are_stored_as_they_are(attrs):
    """R4: numbers, texts, booleans and None come back equal; only NUL and lone surrogates are
    replaced.
    """
    expected = {
        key.replace("\0", "␀"): value.replace("\0", "␀") if isinstance(value, str) else value
        for key, value in attrs.items()
    }
    if len(expected) == len(attrs):
        assert json.loads(encoded(attrs)) == expected


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: object
    hidden: str = dataclasses.field(default="h", repr=False)


class Struct(msgspec.Struct):
    a: int


@each(
    ("value", "expected"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (2**70, 2**70),
        (10**5000, "<int of 16,610 bits>"),
        (-(10**5000), "<negative int of 16,610 bits>"),
        ("a\x00b", "a␀b"),
        ("a\ud800", "a\\ud800"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff", "\\xff"),
        ((1, 2), [1, 2]),
        (frozenset({1}), [1]),
        ({1: "a", "1": "b"}, {"1": "a", "1~2": "b"}),
        ({(1, 2): "a"}, {"(1, 2)": "a"}),
        ({None: 1, 1.5: 2}, {"None": 1, "1.5": 2}),
        ({Colour.RED: 1}, {"red": 1}),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-01-02T03:04:05+00:00"),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/tmp/x"), "/tmp/x"),
        (Colour.RED, "red"),
        (Point(1, (2,)), {"x": 1, "y": [2]}),
        (Struct(1), {"a": 1}),
        (HostileInt(5), 5),
        (HostileText("text"), "text"),
    ],
)
def test_what_json_has_not_is_told_in_its_terms(value, expected):
    """Guarantee 7: each kind of value has one way in which it is stored."""
    assert decoded({"v": value}) == {"v": expected}


def test_what_is_cut_carries_a_mark_that_says_how_much():
    """Guarantee 7: nothing is shortened silently."""
    assert decoded("x" * 100_000).endswith("…[cut: the first 65,456 of 100,000 kept]")
    assert decoded({f"k{n}": n for n in range(300)})["…"] == "[cut: 44 more of 300 keys]"
    assert decoded(list(range(2000)))[-1] == "…[cut: 976 more of 2,000 items]"
    assert decoded(b"x" * 100_000).endswith("of 100,000 kept]")
    assert "contains itself" in decoded(cycle())["self"]
    assert "nested deeper than 24 levels" in json.dumps(decoded(nested(30)), ensure_ascii=False)
    assert decoded(Raising()) == "<Raising: its repr raised RuntimeError>"


def test_of_an_event_that_is_too_large_a_little_of_everything_is_kept():
    """Guarantee 7: many large values are shortened each, rather than some kept and the
    others gone.
    """
    attrs = {f"k{n}": "y" * 60_000 for n in range(30)}
    out = json.loads(encoded(attrs))
    assert list(out) == list(attrs)
    assert all(value.startswith("yyy") and "of 60,000 kept" in value for value in out.values())


def test_the_same_value_twice_is_no_cycle():
    """Guarantee 7: only what contains itself is a cycle."""
    shared = {"a": 1}
    assert decoded([shared, shared]) == [{"a": 1}, {"a": 1}]


def test_a_hundred_megabytes_take_little_time_and_memory():
    """Guarantee 7: a value of 100 MB holds the caller up for a moment only, and is not copied many
    times.
    """
    huge, raw = "é" * 50_000_000, b"x" * 100_000_000
    tracemalloc.start()
    try:
        began = time.process_time()
        encoding.encode_text(huge)
        encoding.encode_value(
            {"text": huge, "bytes": raw, "many": [huge] * 1000, "deep": [[huge] * 100] * 100}
        )
        seconds = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 2
    assert peak < 50_000_000


# -- the whole way, into the database
# --------------------------------------------------------------------------


async def test_hostile_events_and_their_neighbours_are_stored(tracker):
    """Guarantee 7: whatever is logged, as message, attribute or bound context, is in the database,
    and so is what was logged around it.
    """
    async with tracker.job("a") as job:
        for n, value in enumerate(HOSTILE.values()):
            log.info("before", n=n)
            log.info("value", n=n, value=value)
            log.bind(bound=value).info("bound", n=n)
            log.info(value, n=n)
            log.info("after", n=n)
    events = await tracker.logs.list(job_id=job.id, kind="log", limit=1000)
    by_message = collections.Counter(event.message for event in events)
    assert all(
        by_message[message] >= len(HOSTILE) for message in ("before", "value", "bound", "after")
    )
    assert len(events) == 5 * len(HOSTILE)
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    assert tracker.ledger().lost == tracker.ledger().rejected == 0


@pytest.mark.slow
async def test_hostile_values_of_jobs_and_steps_are_stored(tracker):
    """Guarantee 7, R1: metadata and results may be anything JSON-like; what is not, is stored in
    its nearest form.
    """
    # A step's metadata is encoded as its job's is; keys without end take the longest of all.
    of_step = {name: value for name, value in HOSTILE.items() if name != "lying mapping"}
    async with (
        tracker.job("a", metadata=dict(HOSTILE)) as job,
        job.step("s", metadata=of_step),
    ):
        job.result = HOSTILE["cycle"]
    record = await tracker.jobs.get(job.id)
    assert record.metadata["nan"] == "NaN"
    assert record.metadata["nul"] == "a␀b"
    assert record.result["n"] == 1
    (step,) = await tracker.jobs.steps(job.id)
    assert step.metadata["nan"] == "NaN"
    for name, value in HOSTILE.items():
        async with tracker.job("one") as job:
            job.result = value
        assert (await tracker.jobs.get(job.id)).status == "completed", name


async def test_hostile_names_are_cleaned(tracker):
    """Guarantee 7: names and ids with NUL or lone surrogates are stored in a form every database
    holds, and found by it.
    """
    async with (
        tracker.job("op\x00\ud800", external_job_id="e\x00", owner="o\ud800") as job,
        job.step("st\x00ep\ud800"),
    ):
        log.info("in it")
    record = await tracker.jobs.get(job.id)
    assert (record.operation, record.owner, record.external_job_id) == (
        "op␀\\ud800",
        "o\\ud800",
        "e␀",
    )
    (event,) = await tracker.logs.list(text="in it")
    assert (event.operation, event.step) == ("op␀\\ud800", "st␀ep\\ud800")


@pytest.mark.slow
@given(
    attrs=st.dictionaries(
        st.text(st.characters(codec=None), min_size=1),
        st.text(st.characters(codec=None)) | st.floats() | st.integers() | st.binary(),
        max_size=5,
    ),
    message=st.text(st.characters(codec=None)),
)
@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_text_can_be_logged(attrs, message):
    """Guarantee 7: arbitrary messages, keys and values are accepted, stored and read back, on a
    database in memory.
    """
    structjob.configure(console=False, strict=True)

    async def main():
        async with structjob.Tracker("sqlite://") as tracker:
            log.bind(**{"self_" + key: value for key, value in attrs.items()}).info(message)
            (event,) = await tracker.logs.list()
            assert event.message == normalizer.normalize(message)
            assert tracker.ledger().stored == 1

    asyncio.run(main())


async def test_a_storm_of_huge_events_is_stored_whole(tracker):
    """Guarantee 7: events of the largest size neither break a batch nor each other."""
    for n in range(50):
        log.info("huge", n=n, **{f"k{m}": chr(0x4E00 + m) * 20_000 for m in range(4)})
    events = await tracker.logs.list(text="huge")
    assert [event.attrs["n"] for event in events] == list(range(50))


async def test_what_the_mark_in_the_database_says_is_true(any_tracker):
    """Guarantee 7: of 300 keys 44 were cut, in an event; the mark itself is never what is cut. What
    is stored of a job has more room.
    """
    many = {"keys": {f"k{n}": n for n in range(300)}, "items": list(range(2000))}
    async with any_tracker.job("a", metadata=many) as job:
        log.info("many", **many)
        job.result = many
    (event,) = await any_tracker.logs.list(job_id=job.id, kind="log")
    stored = await any_tracker.jobs.get(job.id)
    assert event.attrs["keys"]["…"] == "[cut: 44 more of 300 keys]"
    assert event.attrs["items"][-1] == "…[cut: 976 more of 2,000 items]"
    assert stored.metadata == stored.result == many


class _Strange(structjob.Redactor):
    """A redactor that returns what no JSON can hold."""

    def redact(self, value, key=None):
        return {"strange": "\ud800", "nan": float("nan"), "set": {1}}


async def test_a_redactor_of_ones_own_may_return_anything(tracker):
    """Guarantee 7: what it makes is stored all the same."""
    structjob.configure(console=False, redact=_Strange(), strict=True)
    log.info("seen", at="password=hunter2")
    (event,) = await tracker.logs.list(text="seen")
    assert event.attrs == {"strange": "\\ud800", "nan": "NaN", "set": [1]}


async def test_an_event_is_at_most_256_kib(tracker, tmp_path):
    """Sizes: an event's line, ids included, takes at most 256 KiB, whatever combination of message
    and attributes it has.
    """
    structjob.configure(console=False, file=tmp_path / "app.jsonl", strict=True)
    async with tracker.job("o" * 255, project="p" * 128) as job, job.step("s" * 200):
        log.info("\x01" * 100_000, **{f"k{n}": "\x01" * 60_000 for n in range(300)})
        log.info(
            "x" * 65_536,
            a="y" * 65_536,
            b=["z" * 65_536] * 10,
            c={str(n): "w" * 5000 for n in range(256)},
        )
    lines = (tmp_path / "app.jsonl").read_bytes().splitlines()
    assert max(map(len, lines)) <= bounds.MAX_EVENT
    assert tracker.ledger().lost == 0


@each(
    "value",
    [
        {"rows": 100, "seconds": 1.5, "ok": True, "error": None, "balance": -0.0},
        {"password": 123456, "rows": 1},
        {"rows": {"password": 1}},
        {"card": 4111111111111111},
        {"ghp_0123456789abcdefghijABCDEFGHIJ0123456789": 1},
        {"big": 1 << 70, "nan": float("nan"), "far": float("inf")},
        {"back\\slash": 1, "zero\0": 2, "half\ud800": 3},
        {"x" * 300: 1},
        {7: 1},
        dict.fromkeys(map(str, range(200)), 1),
        {"method": "GET", "path": "/items/7", "client": "127.0.0.1", "bytes": 7},
        {"path": "/login?password=swordfish", "status": 200},
        {"password": "swordfish", "user": "ada"},
        {"name": "password", "value": "swordfish"},
        {"netloc": "ada:swordfish@db", "scheme": "https"},
        {"command": "mysql -pswordfish", "option": "--password"},
        {"token": "ghp_0123456789abcdefghijABCDEFGHIJ0123456789"},
        {"signature": "abcdef0123456789", "card": "4111 1111 1111 1111"},
        {"zero": "a\0b", "half": "\ud800", "quote": '"', "umlaut": "ä"},
        {"long": "x" * 70_000},
        {"at": pathlib.PurePosixPath("/srv"), "n": 1},
    ],
)
def test_a_few_numbers_and_texts_are_stored_as_any_other_value(value, monkeypatch):
    """Results and metadata are often a few numbers and short texts, for which there is a short
    way.
    """
    short = encoding.encode_value(value, bounds.OF_VALUE, SecretRules())
    assert b"swordfish" not in short
    monkeypatch.setattr("structjob.values.encoding._flat", lambda value: None)
    assert short == encoding.encode_value(value, bounds.OF_VALUE, SecretRules())


async def test_metadata_are_stored_as_they_are_at_the_end(tracker):
    """Each record of a job has its metadata as they are then."""
    async with tracker.job("a", metadata={"n": 1, "what": "swordfish-1"}) as changed:
        changed.metadata["n"] = True
    async with tracker.job("b", metadata={"deep": {"n": 1}}) as deep:
        deep.metadata["deep"]["n"] = 2
    async with tracker.job("c", metadata={"what": "swordfish-1"}) as secret:
        structjob.secret("swordfish-1")
    async with tracker.job("d", metadata={"n": 1}) as added:
        added.metadata["m"] = 1.0
    found = {job.operation: job.metadata for job in await tracker.jobs.list()}
    assert found == {
        "a": {"n": True, "what": "swordfish-1"},
        "b": {"deep": {"n": 2}},
        "c": {"what": "[redacted]"},
        "d": {"n": 1, "m": 1.0},
    }
    assert type(found["a"]["n"]) is bool
    assert (changed.metadata["n"], secret.metadata) == (True, {"what": "swordfish-1"})


@each("share", [0.01, 0.1, 0.2, 0.3, 0.5, 0.9, 1.2, 3])
def test_a_secret_in_a_value_of_any_size_is_removed(share):
    """R33: however large the value beside it is, and whether it must be cut or not; what fits is
    not cut.
    """
    beside = [{"n": "x" * 100}] * int(bounds.OF_VALUE.room * share / 110)
    value = {"password": "hunter2", "note": "token=hunter2", "rows": beside}
    out = encoding.encode_value(value, bounds.OF_VALUE, SecretRules())
    assert b"hunter2" not in out
    if share < 1:
        assert json.loads(out)["rows"] == beside


def test_a_mapping_that_cannot_be_read_costs_only_itself():
    """Guarantee 7: the attribute says why it is not shown, and the others are recorded; keys of
    bytes are their text, and keys that become equal stay apart.
    """

    class Broken(dict):
        def items(self):
            raise RuntimeError("no")

        __iter__ = items

    value = {"broken": Broken(a=1), b"name": "x", "numbers": {1: "a", "1": "b", b"1": "c"}}
    out = json.loads(encoding.encode_value(value, bounds.OF_VALUE))
    assert out["broken"].endswith("Broken: cannot be shown, RuntimeError>")
    assert out["name"] == "x"
    assert out["numbers"] == {"1": "a", "1~2": "b", "1~3": "c"}


def test_attributes_are_an_object_however_little_stack_is_left():
    """Guarantee 7: deep in a recursion the walk through a value may fail at its first step. Once
    the result was a text, the id of the parent job was written into it, and the event was lost.
    """
    fresh = iter(range(10**6))

    def encoded(frames):
        if frames:
            return encoded(frames - 1)
        return encoding.encode_value({"at": object(), "number": next(fresh)})

    left = sys.getrecursionlimit() - len(inspect.stack())
    seen = []
    for frames in range(left - 60, left):
        with contextlib.suppress(RecursionError):
            seen.append(json.loads(encoded(frames)))
    assert {type(value) for value in seen} == {dict}
    assert any("…" in value for value in seen)
