"""The pytest plugin: ``tracked``, a tracker in memory, with assertions about the recorded data.

It imports none of structjob's other modules until a test uses a fixture.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from structjob.models import EventRecord, JobRecord, StepRecord
    from structjob.tracker import Tracker

__all__ = ["Database", "Events", "Tracked"]

_MOST = 10_000
_LAST = 20
_ANY: Any = object()
_KEY: pytest.StashKey[Tracked] = pytest.StashKey()


class Events(list["EventRecord"]):
    """Events in the order in which they were logged.

    ``events >= [...]`` asserts that these occur in this order, with any others between them. An
    event is given as its message, or as a mapping with ``message``, ``level``, ``job`` (the
    operation) and attributes; it may have more attributes. ::

        assert tracked.events >= ["opened", {"message": "row", "n": 7}, "closed"]
    """

    def __ge__(self, expected: Any) -> bool:
        return self.unmet(expected) is None

    def unmet(self, expected: Sequence[str | Mapping[str, Any]]) -> list[str] | None:
        """Return lines that describe the first of *expected* that does not occur in its place, or
        ``None`` if all occur.
        """
        following = list(self)
        for number, one in enumerate(expected, 1):
            wanted = {"message": one} if isinstance(one, str) else dict(one)
            at = next((i for i, event in enumerate(following) if not _wrong(event, wanted)), None)
            if at is None:
                after = f" after the {number - 1} before it" if number > 1 else ""
                return [
                    f"expected event {number} of {len(expected)} does not occur{after}",
                    f"  expected: {one!r}",
                    *_nearest(following, wanted),
                ]
            del following[: at + 1]
        return None


def _wrong(event: EventRecord, expected: Mapping[str, Any]) -> list[str]:
    """Return the differences of *event* from what is expected, one a line."""
    wrong = []
    for name, value in expected.items():
        if name in ("message", "level", "job"):
            found = getattr(event, "operation" if name == "job" else name)
        elif name in event.attrs:
            found = event.attrs[name]
        else:
            wrong.append(f"  {name}: missing, expected {value!r}")
            continue
        if found != value:
            wrong.append(f"  {name}: {found!r}, expected {value!r}")
    return wrong


def _nearest(events: Sequence[EventRecord], expected: Mapping[str, Any]) -> list[str]:
    """Return the event that is most similar to what is expected, with its differences."""
    if not events:
        return []

    def distance(event: EventRecord) -> int:
        # an equal message counts more than all other differences
        other = "message" in expected and event.message != expected["message"]
        return len(_wrong(event, expected)) + 100 * other

    nearest = min(events, key=distance)
    return [f"the nearest: {nearest.message!r}", *_wrong(nearest, expected)]


class Database:
    """The database of a test, which can become unavailable or slow.

    ::

        with tracked.database.down():
            await order()  # must work without it
        tracked.assert_job("order")
    """

    def __init__(self) -> None:
        self._down = False
        self._delay = 0.0
        self._tracker: Tracker | None = None

    def down(self) -> Database:
        """Make it unavailable: events wait, and reads raise `structjob.StoreUnavailable`.

        Returns:
            Itself, as the context of a ``with`` block that ends with `up`.
        """
        self._down = True
        return self

    def slow(self, seconds: float) -> Database:
        """Let each access take *seconds* longer.

        Returns:
            Itself, as the context of a ``with`` block that ends with `up`.
        """
        self._delay = seconds
        return self

    def up(self) -> None:
        """Make it available and fast again. What has waited is stored before the next read."""
        self._down, self._delay = False, 0.0
        if self._tracker is not None:
            from structjob.tracker import reach

            self._tracker.run(reach(self._tracker, 5.0))

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exc: object) -> None:
        self.up()

    def used_by(self, tracker: Tracker) -> None:
        """Let `up` try to reach the database of *tracker*."""
        self._tracker = tracker

    def stand_between(self, make_store: Any) -> Any:
        """Return a function that makes stores which obey this object."""
        return lambda *args, **options: _Store(make_store(*args, **options), self._obey)

    async def _obey(self) -> None:
        from structjob.exceptions import StoreUnavailable

        if self._delay:
            await asyncio.sleep(self._delay)
        if self._down:
            raise StoreUnavailable("the test has made the database unavailable")


class _Store:
    """A store whose accesses begin with a call of *obey*."""

    def __init__(self, store: Any, obey: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._obey = obey

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not inspect.iscoroutinefunction(found) or name == "close":
            return found

        async def call(*args: Any, **options: Any) -> Any:
            await self._obey()
            return await found(*args, **options)

        return call


class Tracked:
    """The data that a test recorded; the fixture ``tracked`` returns it.

    Every read includes everything that was logged before.

    Attributes:
        tracker: An open tracker for this test only, with its own database. Use it with ``with`` or
            ``async with``.
        database: The database of the tracker, which can become unavailable or slow.
    """

    def __init__(self, tracker: Tracker, database: Database) -> None:
        self.tracker = tracker
        self.database = database

    # -- recorded data
    # --------------------------------------------------------------------------

    @property
    def jobs(self) -> list[JobRecord]:
        """The jobs, in the order of their creation."""
        return list(self.tracker.run(self.tracker.jobs.list(limit=_MOST)))[::-1]

    @property
    def steps(self) -> list[StepRecord]:
        """The steps of each job's latest attempt, in the order of the jobs."""
        return [step for job in self.jobs for step in self._steps(job)]

    def _steps(self, job: JobRecord) -> list[StepRecord]:
        return self.tracker.run(self.tracker.jobs.steps(job.id))

    @property
    def events(self) -> Events:
        """The events in the order in which they were logged, including the library's own events."""
        return Events(self.tracker.run(self.tracker.logs.list(limit=_MOST, order="asc")))

    def job(self, operation: str) -> JobRecord:
        """Return the only job of *operation*.

        Raises:
            AssertionError: if there is no such job, or more than one. The message lists the jobs.
        """
        __tracebackhide__ = True
        found = [job for job in self.jobs if job.operation == operation]
        if len(found) != 1:
            from structjob.text.wording import count_of

            number = count_of(len(found), "job")
            recorded = f"{number} {operation!r} were" if found else f"no job {operation!r} was"
            raise AssertionError(f"{recorded} recorded, expected one\n\n{self.tree()}")
        return found[0]

    # -- assertions
    # --------------------------------------------------------------------------

    def assert_job(
        self,
        operation: str,
        *,
        status: str = "completed",
        steps: Sequence[str] | None = None,
        result: Any = _ANY,
        **fields: Any,
    ) -> JobRecord:
        """Assert that exactly one job of *operation* exists and has the given values, and return
        it.

        Args:
            operation: The job's operation.
            status: The job's status, ``completed`` by default.
            steps: The names of the job's steps, in order.
            result: The job's result.
            fields: Further fields of the `structjob.JobRecord`: owner, metadata, parent_job_id, …

        Raises:
            AssertionError: if the assertion fails. The message shows the differences.
        """
        __tracebackhide__ = True
        job = self.job(operation)
        expected = {"status": status, **fields}
        known = [field.name for field in dataclasses.fields(job)]
        if unknown := [name for name in fields if name not in known]:
            raise TypeError(
                f"a job has no field {unknown[0]!r}; it has {', '.join(known)}. "
                "Of an error, assert `tracked.job(…).error.type`, `.message` or `.traceback`"
            )
        if result is not _ANY:
            expected["result"] = result
        wrong = [
            f"  {name}: {getattr(job, name)!r}, expected {value!r}"
            for name, value in expected.items()
            if getattr(job, name) != value
        ]
        if steps is not None and (names := [step.name for step in self._steps(job)]) != list(steps):
            wrong.append(f"  steps: {names!r}, expected {list(steps)!r}")
        if wrong:
            raise AssertionError(
                "\n".join([f"the job {operation!r} differs from what is expected", *wrong])
            )
        return job

    def assert_event(
        self, message: str, *, level: str | None = None, job: str | None = None, **attrs: Any
    ) -> EventRecord:
        """Assert that an event with *message* was logged, and return the first that matches.

        Args:
            message: The event's message.
            level: The event's level.
            job: The operation of the event's job.
            attrs: Attributes that the event must have. It may have more.

        Raises:
            AssertionError: if no event matches. The message shows the differences from the most
                similar event.
        """
        __tracebackhide__ = True
        events = self.events
        given = {"message": message, "level": level, "job": job}
        expected = {name: value for name, value in given.items() if value is not None} | attrs
        for event in events:
            if not _wrong(event, expected):
                return event
        said = [f"no event {message!r} as expected", *_nearest(events, expected)]
        raise AssertionError("\n".join(said))

    def assert_no_errors(self) -> None:
        """Assert that no event has level error or critical, and that no job failed or crashed.

        Raises:
            AssertionError: if there is such an event or job.
        """
        __tracebackhide__ = True
        wrong = [
            f"  {event.level}: {event.message}"
            for event in self.events
            if event.level in ("error", "critical")
        ]
        wrong += [
            f"  job {job.operation!r} is {job.status.value}"
            for job in self.jobs
            if job.status in ("failed", "crashed")
        ]
        if wrong:
            raise AssertionError("\n".join(["there are errors", *wrong]))

    # -- reports
    # --------------------------------------------------------------------------

    def tree(self) -> str:
        """Return the jobs with their children and steps as text, one per line."""
        jobs = self.jobs
        ids = {job.id for job in jobs}
        lines: list[str] = []

        def put(job: JobRecord, depth: int) -> None:
            error = f"  {job.error.type}: {job.error.message}" if job.error is not None else ""
            lines.append(f"{'  ' * depth}{job.operation} {job.status.value}{error}")
            lines.extend(
                f"{'  ' * depth}  - {step.name} {step.status.value}" for step in self._steps(job)
            )
            for child in jobs:
                if child.parent_job_id == job.id:
                    put(child, depth + 1)

        for job in jobs:
            if job.parent_job_id not in ids:
                put(job, 0)
        return "\n".join(lines) or "no jobs"

    def report(self) -> str:
        """Return the tree and the last log lines, as shown when a test fails."""
        lines = [
            f"{event.level:<8} {event.message}{_shown(event.attrs)}"
            for event in self.events
            if event.kind in ("log", "output", "uncaught")
        ]
        return "\n".join([self.tree(), *(["", *lines[-_LAST:]] if lines else [])])


def _shown(attrs: Any) -> str:
    plain = {name: value for name, value in attrs.items() if name != "exception"}
    return "".join(f" {name}={value!r}" for name, value in plain.items())


# -- fixtures
# ------------------------------------------------------------------------------


@pytest.fixture
def tracked(request: pytest.FixtureRequest) -> Iterator[Tracked]:
    """Provide a tracker for this test only, with assertions about the recorded data.

    It works in plain tests, in unittest, and in asyncio tests of any plugin. The program's setup of
    logging stays in effect, and trackers that are open are out of use meanwhile. At the end of the
    test no job may be running, and no other tracker may be open.
    """
    import structjob.reader  # noqa: F401 -- it keeps `make_store`, which is replaced below
    from structjob.process import isolated
    from structjob.store import factory
    from structjob.tracker import Tracker

    kept = _kept(request)
    with isolated(), pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("STRUCTJOB_", "TRACE"))]:
            patch.delenv(name)  # they may come from a job that runs the tests
        _set_up()
        database = Database()
        tracker = Tracker(
            "sqlite://" if kept is None else f"sqlite:///{kept}",
            level="debug",
            spool=False,
            strict=True,
            handle_signals=False,
        )
        with ExitStack() as stack:
            with pytest.MonkeyPatch.context() as opening:
                opening.setattr(factory, "make_store", database.stand_between(factory.make_store))
                stack.enter_context(tracker)
            database.used_by(tracker)
            found = Tracked(tracker, database)
            request.node.stash[_KEY] = found
            if request.instance is not None and hasattr(request.instance, "assertEqual"):
                # the test methods of a unittest.TestCase take no fixture arguments
                request.instance.tracked = found
            if request.config.getini("structjob_autouse"):
                _stand_in(patch, tracker)
            yield found
            database.up()
            left = _left(found)
    if kept is not None and not request.node.stash.get(_FAILED, False):
        kept.unlink(missing_ok=True)
    if left:
        pytest.fail(left, pytrace=False)


def _set_up() -> None:
    """Record what is logged, through the program's setup of structlog if it has one."""
    import structlog

    import structjob
    from structjob.capture.processors import is_recording
    from structjob.diagnostics import faults

    if not structlog.is_configured():
        structjob.configure(console=False, level="debug")
    elif not is_recording(structlog.get_config()["processors"]):
        structjob.install(stdlib=True)
    faults.strict = True


class _Autouse:
    """The plugin that is used if ``structjob_autouse`` is set. Other test suites do not pay for the
    fixture.
    """

    @pytest.fixture(autouse=True)
    def _structjob_autouse(self, tracked: Tracked) -> None:
        """Use ``tracked`` in every test."""


def _left(tracked: Tracked) -> str:
    """Return a message about jobs or trackers that the test left open, or an empty text."""
    from structjob.engine.shutdown import open_hosts

    running = [job for job in tracked.jobs if job.status == "running"]
    if running:
        names = ", ".join(repr(job.operation) for job in running)
        hint = ""
        if any("path" in job.metadata for job in running):
            hint = (
                "\na request ends when its response is closed; with Flask's client: "
                "client.get(path, buffered=True)"
            )
        return f"left running by the test: {names}{hint}\n\n{tracked.report()}"
    if len(open_hosts()) > 1:
        return "a tracker was left open by the test: close it, or open it with a with block"
    return ""


def _stand_in(patch: pytest.MonkeyPatch, tracker: Tracker) -> None:
    """Make every other `Tracker` act as *tracker*, whatever its URL and options are.

    This includes those that were made before, as by a module of the program at its import.
    """
    from structjob.tracker import Tracker

    async def opened(self: Tracker, **_: Any) -> Tracker:
        return self

    async def closed(self: Tracker, timeout: float = 10.0) -> bool:  # noqa: ASYNC109 -- as in the real method
        await tracker.flush()
        return True

    def closed_here(self: Tracker, timeout: float = 10.0) -> bool:
        tracker.run(tracker.flush())
        return True

    doubles: dict[str, Any] = {
        "open": opened,
        "aclose": closed,
        "close": closed_here,
        "__enter__": lambda self: self,
        "__exit__": lambda self, *exc: self.close() and None,
    }
    own = {name: getattr(Tracker, name) for name in doubles}
    made = Tracker.__init__

    def make(self: Tracker, *args: Any, **options: Any) -> None:
        if self is tracker:
            made(self, *args, **options)

    def unless_own(name: str) -> Any:
        def call(self: Tracker, *args: Any, **options: Any) -> Any:
            return (own if self is tracker else doubles)[name](self, *args, **options)

        return call

    def attribute(self: Tracker, name: str) -> Any:
        return object.__getattribute__(self if name in doubles else tracker, name)

    patch.setattr(Tracker, "__init__", make)
    patch.setattr(Tracker, "__getattribute__", attribute)
    for name in doubles:
        patch.setattr(Tracker, name, unless_own(name))


# -- hooks
# ------------------------------------------------------------------------------

_FAILED: pytest.StashKey[bool] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line and ini options of this plugin."""
    group = parser.getgroup("structjob")
    group.addoption(
        "--structjob-keep",
        metavar="DIR",
        default=None,
        help="keep the database of each failed test that used `tracked`, as a file in DIR",
    )
    parser.addini(
        "structjob_autouse",
        "use `tracked` in every test, and let every structjob.Tracker be its tracker",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Use ``tracked`` in every test if ``structjob_autouse`` is set."""
    if config.getini("structjob_autouse"):
        config.pluginmanager.register(_Autouse(), "structjob-autouse")


def _kept(request: pytest.FixtureRequest) -> Path | None:
    directory = request.config.getoption("--structjob-keep")
    if directory is None:
        return None
    place = Path(directory).absolute()
    place.mkdir(parents=True, exist_ok=True)
    return place / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', request.node.nodeid)[-150:]}.db"


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain why ``tracked.events >= [...]`` is false, and why an event never equals a mapping."""
    if op == ">=" and isinstance(left, Events) and isinstance(right, Sequence):
        return ["tracked.events >= [...]", *(left.unmet(right) or ())]
    kind = type(left)
    is_event = (kind.__module__, kind.__name__) == ("structjob.models", "EventRecord")
    if op == "==" and is_event and isinstance(right, Mapping):
        return [
            "event == {...}: an event is a record, not a dictionary",
            "write tracked.events >= [{...}], or call tracked.assert_event(message, ...)",
            *_wrong(left, right),  # type: ignore[arg-type]  # its class is not imported yet
        ]
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the recorded data to the report of a failed test."""
    report = yield
    tracked = item.stash.get(_KEY, None)
    if tracked is not None and report.when == "call" and report.failed:
        item.stash[_FAILED] = True
        try:
            tracked.database.up()
            shown = tracked.report()
        except Exception as exc:  # noqa: BLE001 -- the report must still show the test's own failure
            shown = f"{type(exc).__name__}: {exc}"
        report.sections.append(("structjob", shown))
    return report
