"""The user's exception comes out of everything it passes as it is, and what it ended is
recorded.
"""

import copy
import dataclasses
import pickle
import re
import traceback

import pytest
import structlog
from each import each

import structjob
from structjob.context import tracebacks
from structjob.context.errors import describe
from structjob.context.tracebacks import format_traceback


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    n: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):
    n: int = 1


class Slots(Exception):
    __slots__ = ("n",)


def refuse(self, *args):
    raise RuntimeError("no")


class Unsettable(Exception):
    __setattr__ = __delattr__ = refuse


class Unreadable(Exception):
    __getattribute__ = refuse


class Textless(Exception):
    __str__ = __repr__ = refuse


class Unnotable(Exception):
    add_note = refuse


class Incomparable(Exception):
    __eq__ = __bool__ = refuse
    __hash__ = None


class Falsy(Exception):
    def __len__(self):
        return 0


class Liar(Exception):
    __class__ = int


class Nameless(type):
    def __getattribute__(cls, name):
        if name in ("__qualname__", "__name__", "__module__"):
            raise RuntimeError("no")
        return super().__getattribute__(name)


class OfNamelessClass(Exception, metaclass=Nameless):
    pass


class Timeless(TimeoutError):
    """A retry may help after it, and nothing can be changed in it."""

    __setattr__ = refuse


class UnreadableExit(SystemExit):
    def __init__(self):
        super().__init__(3)

    __getattribute__ = refuse


CIVIL = [
    Frozen,
    FrozenSlots,
    Slots,
    Unsettable,
    Textless,
    Unnotable,
    Incomparable,
    Falsy,
    Liar,
    OfNamelessClass,
    Timeless,
]
KINDS = [*CIVIL, Unreadable, UnreadableExit]  # the last two are refused by exception groups


async def outcome_of(work):
    """Return the exception that comes out of *work*."""
    try:
        await work()
    except BaseException as exc:  # not `pytest.raises`, which sets attributes
        return exc
    return None


@each("kind", KINDS)
async def test_it_comes_out_of_jobs_steps_and_retries_as_it_is(tracker, kind):
    """faults A.5: jobs and steps end failed, tries are recorded, and the user gets the very
    exception that was raised.
    """
    await passes_everything(tracker, kind())


async def test_a_group_of_such_exceptions_comes_out_as_it_is(any_tracker):
    """faults A.5: the same for a group of them, on each database."""
    await passes_everything(any_tracker, BaseExceptionGroup("several", [kind() for kind in CIVIL]))


async def passes_everything(any_tracker, given):
    log = structlog.get_logger()
    ids = []

    async def fail():
        job = structjob.current_job()
        if job is not None and job.id not in ids:
            ids.append(job.id)
        raise given

    async def in_a_step():
        async with any_tracker.job("a"), structjob.step("s"):
            await fail()

    async def in_a_bound_step():
        async with any_tracker.job("a") as job:
            step = await job.step("s").start()
            with job.as_current(), step.as_current():
                try:
                    await fail()
                except BaseException:
                    log.exception("seen")
                    raise

    async def in_a_remote_scope():
        with structjob.extract({"x-correlation-id": "c-1"}).as_current():
            await fail()

    async def tries():
        async with any_tracker.job("a"):
            async for attempt in structjob.retrying(
                "t", max_attempts=2, delay=0, on=(Timeless, Frozen)
            ):
                async with attempt:
                    await fail()

    ways = [
        in_a_step,
        in_a_bound_step,
        in_a_remote_scope,
        tries,
        any_tracker.job("a")(structjob.step("s")(fail)),
        any_tracker.retrying("a", max_attempts=2, delay=0)(fail),
        any_tracker.job("a")(structjob.retrying("t", max_attempts=2, delay=0)(fail)),
    ]
    for way in ways:
        # pytest would look at an exception that cannot be looked at
        same = await outcome_of(way) is given
        assert same
    assert [(await any_tracker.jobs.get(one)).status for one in ids] == ["failed"] * 6
    for one in ids:
        assert {step.status for step in await any_tracker.jobs.steps(one)} <= {
            "failed",
            "cancelled",
            "retrying",
        }
    assert (await any_tracker.verify()).ok


async def test_nothing_of_ours_is_in_it(tracker):
    """faults A.5: an exception that was recorded has its own attributes and the notes of R10, and
    is counted once.
    """
    exc = ValueError("x")
    exc.own = 1

    async def work():
        async with tracker.job("a"), structjob.step("s"):
            try:
                raise exc
            except ValueError:
                structlog.get_logger().exception("seen")
                raise

    assert await outcome_of(work) is exc
    assert vars(exc).keys() == {"own", "__notes__"}
    assert [line.count for line in await tracker.errors.list()] == [1]
    for other in (pickle.loads(pickle.dumps(exc)), copy.copy(exc), copy.deepcopy(exc)):
        assert type(vars(other)) is dict
        assert vars(other) == vars(exc)


async def test_logging_it_keeps_nothing_alive(tracker):
    """faults A.5: the variables in the frames of a logged exception are freed as soon as the user
    drops it.
    """

    class Held:
        freed = False

        def __del__(self):
            Held.freed = True

    def fail():
        held = Held()
        raise ValueError(len([held]))

    async with tracker.job("a"):
        try:
            fail()
        except ValueError:
            structlog.get_logger().exception("seen")
        assert Held.freed


def test_an_exception_that_is_hard_to_read_still_says_where_it_was_raised():
    """faults A.5: only what its class hides is missing."""
    try:
        raise Unreadable
    except Unreadable as exc:
        found = structjob.context.errors.describe(exc)
    assert found.type == "Unreadable"
    assert (
        "in test_an_exception_that_is_hard_to_read_still_says_where_it_was_raised"
        in found.traceback
    )


def test_enrich_never_replaces_the_exception():
    """faults A.5, A.7: `raise enrich(exc, …)` raises that exception, whatever the fields are."""

    class Bad:
        __str__ = __repr__ = refuse

    exc = ValueError("x")
    assert structjob.enrich(exc, exc=1, bad=Bad()) is exc
    assert len(exc.__notes__) == 1
    assert exc.__notes__[0].startswith("[exc=1, bad=")


async def test_parts_of_a_group_that_are_left_out_are_counted(any_tracker):
    """faults 18: an exception group of 40 parts is recorded with 32, and a mark says that 8 more
    were there.
    """
    nested = ValueError("deep")
    for _ in range(6):
        nested = ExceptionGroup("nested", [nested])
    given = ExceptionGroup("many", [nested, *(ValueError(n) for n in range(39))])
    async with any_tracker.job("a") as job:
        structlog.get_logger().error("seen", exc_info=given)
    (event,) = await any_tracker.logs.list(job_id=job.id, level="error")
    parts = event.attrs["exception"]["exceptions"]
    assert (len(parts), parts[-1]) == (33, "…[cut: 8 more of 40 exceptions]")
    deepest = parts[0]
    while isinstance(deepest["exceptions"][0], dict):
        deepest = deepest["exceptions"][0]
    assert deepest["exceptions"] == ["…[cut: 1 more of 1 exception]"]


def _raise_from(depth, kind=ValueError):
    # two functions in turn: Python shows a function that only calls itself as one line
    if depth:
        _raise_below(depth - 1, kind)
    raise kind("deep")


def _raise_below(depth, kind):
    if depth:
        _raise_from(depth - 1, kind)
    raise kind("deep")


def _raised(depth, cause=None):
    try:
        try:
            _raise_from(depth)
        except ValueError as exc:
            raise exc from cause
    except ValueError as exc:
        return exc


def test_a_traceback_is_as_python_prints_it():
    one = _raised(20, cause=_raised(10))
    for exc in (one, ExceptionGroup("several", [one, _raised(3), OSError("not raised")])):
        assert format_traceback(exc) == "".join(traceback.format_exception(exc))


def test_of_a_long_traceback_only_the_ends_are_formatted(monkeypatch):
    monkeypatch.setattr("structjob.context.tracebacks.MAX_TRACEBACK", 1_000_000)
    exc = _raised(800, cause=_raised(450))
    more = [len(traceback.extract_tb(one.__traceback__)) - 400 for one in (exc, exc.__cause__)]
    text = format_traceback(exc)
    cause, _, last = text.partition("\nThe above exception was the direct cause")
    assert last.count("  File ") == 400
    assert f"\n  [{more[0]} frames left out]\n" in last
    assert f"\n  [{more[1]} frames left out]\n" in cause
    everything = "".join(traceback.format_exception(exc))
    assert everything.startswith(text[: text.index(f"  [{more[1]} frames")])
    assert everything.endswith(text[text.rindex(" left out]\n") + 11 :])


def test_a_cut_traceback_tells_how_many_frames_were_left_out():
    exc = _raised(800)
    text = format_traceback(exc)
    more = len(traceback.extract_tb(exc.__traceback__)) - 400
    assert re.search(rf"\n…\[cut: [\d,]+ characters and {more} more frames\]\n", text)
    assert text.endswith("ValueError: deep\n")


def test_a_frame_is_formatted_once_however_many_steps_its_exception_leaves(monkeypatch):
    format_frame, formatted = traceback.StackSummary.format_frame_summary, []

    def count(self, frame, **how):
        formatted.append(frame)
        return format_frame(self, frame, **how)

    monkeypatch.setattr(traceback.StackSummary, "format_frame_summary", count)
    exc = _raised(60)
    for _ in range(50):
        describe(exc)
    assert len(formatted) < 70


def _texts_of(exc):
    """Return the text that is stored, and what Python prints, cut in the same way."""
    python = "".join(traceback.format_exception(exc))
    at = tracebacks.MAX_TRACEBACK // 4, len(python) - tracebacks.MAX_TRACEBACK * 3 // 4
    start, end = tracebacks._between_words(python, *at)
    cut = f"{python[:start]}\n…[cut: {end - start:,} characters]\n{python[end:]}"
    return format_traceback(exc), python if len(python) <= tracebacks.MAX_TRACEBACK else cut


@pytest.mark.parametrize(
    "message",
    ["some words " * 40_000, "a line\n" * 40_000, "x" * 200_000, "ü" * 200_000],
    ids=["words", "lines", "one", "wide"],
)
def test_a_long_message_is_cut_before_work_is_done_on_it(message):
    """A message of 100 MB took 46 s in the log call. The text is the same as if all of it had been
    formatted; so are notes, and messages in the middle of a chain.
    """
    inner = ValueError(message)
    for exc in (inner, ExceptionGroup("g", [OSError("no"), inner])):
        for cause in (None, KeyError("k")):
            exc.__cause__ = cause
            stored, expected = _texts_of(exc)
            if "\n" in message and exc is not inner:  # the margin of a group is not counted
                stored, expected = (re.sub(r"cut: [\d,]+", "", text) for text in (stored, expected))
            assert stored == expected
    outer = ValueError("short")
    outer.add_note(message)
    outer.__context__ = inner
    stored, expected = _texts_of(outer)
    assert stored == expected


class Counted(Exception):
    asked = 0

    def __str__(self):
        Counted.asked += 1
        return "counted"


def test_only_some_of_many_exceptions_are_formatted(monkeypatch):
    """A group of 100,000 exceptions, or a chain of 10,000, costs what is kept of it."""
    monkeypatch.setattr(Counted, "asked", 0)
    text = format_traceback(ExceptionGroup("many", [Counted(n) for n in range(100_000)]))
    assert "and 99985 more exceptions\n" in text
    assert Counted.asked < 100
    chain = None
    for n in range(10_000):
        exc = Counted(n)
        if n % 2:
            exc.__cause__ = chain
        else:
            exc.__context__ = chain
        chain = exc
    text = format_traceback(chain)
    assert "characters and 9,600 more exceptions]" in text
    assert Counted.asked < 1_000


def test_a_chain_whose_middle_is_missing_says_so():
    """Also where its text is so short that nothing else is cut."""
    chain = None
    for _ in range(1_000):
        exc = ValueError()
        exc.__cause__, chain = chain, exc
    text = format_traceback(chain)
    assert text.count("ValueError\n") == 400
    assert text.count("\n[600 exceptions left out]\n") == 1


def test_notes_that_are_no_texts_hide_no_cause():
    """Python prints them, too."""
    exc = ValueError("left")
    exc.__cause__ = KeyError("first")
    exc.__notes__ = [1, "second"]
    assert format_traceback(exc).endswith("ValueError: left\n1\nsecond\n")
    assert "KeyError: 'first'" in format_traceback(exc)


def test_chains_are_printed_as_python_prints_them():
    """Causes, contexts, suppressed contexts, circles, and all of these within groups."""

    def chained(cause, context=None, *, suppressed=False):
        exc = ValueError("outer")
        exc.__cause__, exc.__context__ = cause, context
        exc.__suppress_context__ = suppressed or cause is not None
        return exc

    one, two = OSError("one"), KeyError("two")
    one.__context__, two.__context__ = two, one  # a circle
    own = ValueError("own")
    own.__cause__ = own
    for exc in (
        chained(OSError("cause"), KeyError("context")),
        chained(None, KeyError("context")),
        chained(None, KeyError("context"), suppressed=True),
        chained(chained(None, chained(one))),
        chained(own),
        own,
        one,
        ExceptionGroup(
            "g", [chained(OSError("x")), ExceptionGroup("h", [one, chained(None, two)])]
        ),
        chained(ExceptionGroup("g", [ValueError(n) for n in range(40)])),
    ):
        assert format_traceback(exc) == "".join(traceback.format_exception(exc))


OWN = re.compile(r'File "[^"]*/structjob/(?!tests/)[a-z_/]+\.py"')


async def test_a_decorator_leaves_no_frame_in_the_traceback(any_tracker):
    """Between the caller and the function, the user and the database saw a frame of structjob for
    each decorator, in which nothing of the program is.
    """

    @structjob.step("load")
    def load():
        raise ValueError("empty")

    @structjob.step("fetch")
    @structjob.retrying("fetch", max_attempts=1)
    async def fetch():
        structjob.in_context(
            structjob.retrying("again", max_attempts=2, delay=0, on=ValueError)(load)
        )()

    @any_tracker.job("nightly")
    async def nightly():
        await fetch()

    with pytest.raises(ValueError, match="empty") as caught:
        await nightly()
    assert not OWN.search("".join(traceback.format_exception(caught.value)))
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names == [
        "test_a_decorator_leaves_no_frame_in_the_traceback",
        "nightly",
        "fetch",
        "load",
    ]
    (job,) = await any_tracker.jobs.list(operation="nightly")
    assert "in fetch" in job.error.traceback
    assert not OWN.search(job.error.traceback)
    with pytest.raises(TypeError, match="argument") as caught:
        await nightly("one too many")
    assert not OWN.search("".join(traceback.format_exception(caught.value)))
