"""The pytest plugin: ``tracked``, a tracker in memory, with assertions about the recorded data.

It imports none of structjob's other modules until a test uses a fixture.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from structjob.models import EventRecord, JobRecord, StepRecord
    from structjob.tracker import Tracker

__all__ = ["Tracked"]

_MOST = 10_000
_LAST = 20
_ANY: Any = object()
_KEY: pytest.StashKey[Tracked] = pytest.StashKey()


class Tracked:
    """The data that a test recorded; the fixture ``tracked`` returns it.

    Every read includes everything that was logged before.

    Attributes:
        tracker: An open tracker for this test only, with its own database. Use it with ``with`` or
            ``async with``.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

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
    def events(self) -> list[EventRecord]:
        """The events in the order in which they were logged, including the library's own events."""
        return list(self.tracker.run(self.tracker.logs.list(limit=_MOST, order="asc")))

    def job(self, operation: str) -> JobRecord:
        """Return the only job of *operation*.

        Raises:
            AssertionError: if there is no such job, or more than one. The message lists the jobs.
        """
        __tracebackhide__ = True
        found = [job for job in self.jobs if job.operation == operation]
        if len(found) != 1:
            raise AssertionError(self._failure(f"{len(found) or 'no'} jobs {operation!r}, not one"))
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
            AssertionError: if the assertion fails. The message shows the jobs, their steps and the
                last log lines.
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
                self._failure(
                    "\n".join([f"the job {operation!r} is another than expected", *wrong])
                )
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
        expected = {"message": message, "level": level, "operation": job}
        expected = {name: value for name, value in expected.items() if value is not None}
        nearest: tuple[int, list[str]] | None = None
        for event in events:
            wrong = [
                f"  {name}: {getattr(event, name)!r}, expected {value!r}"
                for name, value in expected.items()
                if getattr(event, name) != value
            ]
            for name, value in attrs.items():
                if name not in event.attrs:
                    wrong.append(f"  {name}: missing, expected {value!r}")
                elif event.attrs[name] != value:
                    wrong.append(f"  {name}: {event.attrs[name]!r}, expected {value!r}")
            if not wrong:
                return event
            # an equal message counts more than all other differences
            distance = len(wrong) + 100 * (event.message != message)
            if nearest is None or distance < nearest[0]:
                nearest = distance, [f"the nearest: {event.message!r}", *wrong]
        said = [f"no event {message!r} as expected", *(nearest[1] if nearest is not None else [])]
        raise AssertionError(self._failure("\n".join(said)))

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
            raise AssertionError(self._failure("\n".join(["there are errors", *wrong])))

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

    def _failure(self, why: str) -> str:
        return f"{why}\n\n{self.report()}"


def _shown(attrs: Any) -> str:
    plain = {name: value for name, value in attrs.items() if name != "exception"}
    return "".join(f" {name}={value!r}" for name, value in plain.items())


# -- fixtures
# ------------------------------------------------------------------------------


@pytest.fixture
def tracked(request: pytest.FixtureRequest) -> Iterator[Tracked]:
    """Provide a tracker for this test only, with assertions about the recorded data.

    It works in plain tests, in unittest, and in asyncio tests of any plugin. At the end of the test
    no job may be running, and no other tracker may be open.
    """
    import structjob
    from structjob.tracker import Tracker

    structjob.reset()
    kept = _kept(request)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("STRUCTJOB_", "TRACE"))]:
            patch.delenv(name)  # they may come from a job that runs the tests
        structjob.configure(console=False, level="debug", strict=True)
        tracker = Tracker(
            "sqlite://" if kept is None else f"sqlite:///{kept}",
            level="debug",
            spool=False,
            strict=True,
            handle_signals=False,
        )
        try:
            with tracker:
                found = Tracked(tracker)
                request.node.stash[_KEY] = found
                if request.instance is not None and hasattr(request.instance, "assertEqual"):
                    # the test methods of a unittest.TestCase take no fixture arguments
                    request.instance.tracked = found
                if request.config.getini("structjob_autouse"):
                    _stand_in(patch, tracker)
                yield found
                left = _left(found)
        finally:
            structjob.reset()
    if kept is not None and not request.node.stash.get(_FAILED, False):
        kept.unlink(missing_ok=True)
    if left:
        pytest.fail(left, pytrace=False)


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

    running = [job.operation for job in tracked.jobs if job.status == "running"]
    if running:
        return tracked._failure(f"left running by the test: {', '.join(map(repr, running))}")  # noqa: SLF001 -- tests use the fixture; they need no such method
    if len(open_hosts()) > 1:
        return "a tracker was left open by the test: close it, or open it with a with block"
    return ""


def _stand_in(patch: pytest.MonkeyPatch, tracker: Tracker) -> None:
    """Make every other `Tracker` act as *tracker*, whatever its URL and options are."""
    from structjob.tracker import Tracker

    async def opened(self: Tracker, **_: Any) -> Tracker:
        return self

    async def closed(self: Tracker, timeout: float = 10.0) -> bool:  # noqa: ASYNC109 -- as in the real method
        await tracker.flush()
        return True

    def closed_here(self: Tracker, timeout: float = 10.0) -> bool:
        tracker.run(tracker.flush())
        return True

    own = dict.fromkeys(("open", "aclose", "close", "__enter__", "__exit__"))
    for name in own:
        own[name] = getattr(Tracker, name)

    def unless_own(name: str, double: Any) -> Any:
        def call(self: Tracker, *args: Any, **options: Any) -> Any:
            method = own[name] if self is tracker else double
            return method(self, *args, **options)  # type: ignore[misc]

        return call

    def made(self: Tracker, *_: Any, **__: Any) -> None:
        self.__dict__ = tracker.__dict__

    patch.setattr(Tracker, "__init__", made)
    patch.setattr(Tracker, "open", unless_own("open", opened))
    patch.setattr(Tracker, "aclose", unless_own("aclose", closed))
    patch.setattr(Tracker, "close", unless_own("close", closed_here))
    patch.setattr(Tracker, "__enter__", unless_own("__enter__", lambda self: self))
    patch.setattr(
        Tracker, "__exit__", unless_own("__exit__", lambda self, *exc: self.close() and None)
    )


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
            shown = tracked.report()
        except Exception as exc:  # noqa: BLE001 -- the report must still show the test's own failure
            shown = f"{type(exc).__name__}: {exc}"
        report.sections.append(("structjob", shown))
    return report
