"""The pytest plugin: ``tracked``, a tracker in memory, with assertions about what was recorded.

It imports nothing of structjob's machinery until a test uses a fixture.
"""

from __future__ import annotations

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
    """What a test recorded: given by the fixture ``tracked``.

    Everything that was logged before is there when it is read.

    Attributes:
        tracker: An open tracker, for ``with`` and ``async with``, on a database of this test alone.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    # -- what there is
    # --------------------------------------------------------------------------

    @property
    def jobs(self) -> list[JobRecord]:
        """The jobs, in the order they were made."""
        return list(self.tracker.run(self.tracker.jobs.list(limit=_MOST)))[::-1]

    @property
    def steps(self) -> list[StepRecord]:
        """The steps of the latest attempt at each job, job by job."""
        return [step for job in self.jobs for step in self._steps(job)]

    def _steps(self, job: JobRecord) -> list[StepRecord]:
        return self.tracker.run(self.tracker.jobs.steps(job.id))

    @property
    def events(self) -> list[EventRecord]:
        """The events, in the order they were logged, those of the library among them."""
        return list(self.tracker.run(self.tracker.logs.list(limit=_MOST, order="asc")))

    def job(self, operation: str) -> JobRecord:
        """Return the only job of *operation*.

        Raises:
            AssertionError: if there is none, or more than one; it shows which there are.
        """
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
        """Assert that there is one job of *operation*, and what became of it; return it.

        Args:
            operation: Its operation.
            status: Its status.
            steps: The names of its steps, in their order.
            result: Its result.
            fields: Further fields of the `structjob.JobRecord`: owner, metadata, parent_job_id, …

        Raises:
            AssertionError: if it is not so; it shows the jobs, their steps and the last lines.
        """
        job = self.job(operation)
        expected = {"status": status, **fields}
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
        """Assert that an event with *message* was logged; return the first that fits.

        Args:
            message: Its message.
            level: Its level.
            job: The operation of its job.
            attrs: Attributes that it has, among others.

        Raises:
            AssertionError: if there is none; it shows what is different in the nearest one.
        """
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
            # the same message counts for more than everything else
            distance = len(wrong) + 100 * (event.message != message)
            if nearest is None or distance < nearest[0]:
                nearest = distance, [f"the nearest: {event.message!r}", *wrong]
        said = [f"no event {message!r} as expected", *(nearest[1] if nearest is not None else [])]
        raise AssertionError(self._failure("\n".join(said)))

    def assert_no_errors(self) -> None:
        """Assert that no event has level error or critical, and no job failed or crashed.

        Raises:
            AssertionError: if there is one.
        """
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

    # -- to be read
    # --------------------------------------------------------------------------

    def tree(self) -> str:
        """Return the jobs with their children and steps as text, one a line."""
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
        """Return the tree and the last lines of the log, as they are shown when a test fails."""
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
    """A tracker for this test alone, and assertions about what was recorded.

    Works in plain tests, unittest and asyncio tests of any plugin. At the end of the test no job
    may be left running, and no other tracker open.
    """
    import structjob
    from structjob.tracker import Tracker

    structjob.reset()
    kept = _kept(request)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("STRUCTJOB_", "TRACE"))]:
            patch.delenv(name)  # of a job around the tests
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
                    request.instance.tracked = found  # a unittest.TestCase has no arguments
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
    """The plugin where ``structjob_autouse`` is set: other suites have no fixture to pay for."""

    @pytest.fixture(autouse=True)
    def _structjob_autouse(self, tracked: Tracked) -> None:
        """Use ``tracked`` in every test."""


def _left(tracked: Tracked) -> str:
    """Return what the code under test left open, as a message."""
    from structjob.engine.shutdown import open_hosts

    running = [job.operation for job in tracked.jobs if job.status == "running"]
    if running:
        return tracked._failure(f"left running by the test: {', '.join(map(repr, running))}")
    if len(open_hosts()) > 1:
        return "a tracker was left open by the test: close it, or open it with a with block"
    return ""


def _stand_in(patch: pytest.MonkeyPatch, tracker: Tracker) -> None:
    """Let every other tracker be this one, whatever its URL and options."""
    from structjob.tracker import Tracker

    async def opened(self: Tracker, **_: Any) -> Tracker:
        return self

    async def closed(self: Tracker, timeout: float = 10.0) -> bool:  # noqa: ASYNC109 -- as the real one
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
    """Add the options of this plugin."""
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
    """Let every test use ``tracked`` where that is set."""
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
    """Show what was recorded with a test that fails."""
    report = yield
    tracked = item.stash.get(_KEY, None)
    if tracked is not None and report.when == "call" and report.failed:
        item.stash[_FAILED] = True
        try:
            shown = tracked.report()
        except Exception as exc:  # noqa: BLE001 -- the test's own failure is what counts
            shown = f"{type(exc).__name__}: {exc}"
        report.sections.append(("structjob", shown))
    return report
