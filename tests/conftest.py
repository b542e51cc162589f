"""What every test gets: a structlog of its own, and a tracker on a fresh database."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import database_support
import hypothesis
import pytest
import structlog
from cli_support import Shell

import structjob

# Hundreds of programs are started; where bytecode is not kept, each would compile the library anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A test run in the background of a script, or under nohup, ignores some signals, and so would each
# program that a test starts: no user's terminal does that.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# Where a change is judged it is judged by the same examples each time; new ones are sought
# everywhere else, fewer in a run than in `.ci/run`. How fast it is, the benchmarks say.
_ANY_SPEED = hypothesis.settings(
    max_examples=int(os.environ.get("STRUCTJOB_TEST_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("any speed", _ANY_SPEED)
hypothesis.settings.load_profile("any speed")
hypothesis.settings.register_profile("ci", _ANY_SPEED, derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _pristine_structlog() -> Iterator[None]:
    """Leave no configuration, sink, handler, waiting event or thread to the next test."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    _reset()
    before = _threads()
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    _reset()
    deadline = time.monotonic() + 10
    while (left := _threads() - before) and time.monotonic() < deadline:
        for thread in left:
            thread.join(0.1)  # most are just ending: that is cheaper than to look for garbage
        if _threads() - before:
            gc.collect()
    assert not left, f"the test leaves {sorted(thread.name for thread in left)}"


def _threads() -> set[threading.Thread]:
    """The library's threads that run: what a test did not close would be found by another's."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("structjob")}


def _reset() -> None:
    structjob.reset()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Shell]:
    """An empty directory, in which what was started ends with the test."""
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    """A database file that does not exist yet."""
    return tmp_path / "jobs.db"


@pytest.fixture
def db_url(db_path: Path) -> str:
    """Its URL."""
    return f"sqlite:///{db_path}"


@pytest.fixture
async def tracker(db_path: Path, db_url: str) -> AsyncIterator[structjob.Tracker]:
    """An open tracker; logging is set up, silent on the console, and strict: a fault of logging
    fails the test.
    """
    await database_support.make_file(db_path)
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url) as opened:
        yield opened


CONTRACTS = frozenset((
    "test_store_contract", "test_servers", "test_store_url", "test_store_leases", "test_schema", "test_galera",
))  # fmt: skip
"""Modules whose tests say what every store does: they run on each database in every run. Queries
run on SQLite then, and on the others where their file is named, and in `.ci/run`.
"""


def pytest_configure(config: pytest.Config) -> None:
    """Remember whether files were named on the command line; pytest-xdist's workers are told
    nothing of it.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ[_NAMED] = "" if config.args_source is config.ArgsSource.TESTPATHS else "yes"


_NAMED = "STRUCTJOB_TEST_NAMED"


def pytest_xdist_auto_num_workers() -> int | None:
    """Use two workers for each core: a test that starts programs or asks a server waits half of its
    time. pytest-xdist's own variable says another number.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage meanwhile, and leave what exists then out of later collections: they find
    nothing, and take a fifth of the time.
    """
    gc.disable()
    try:
        _import_in_turn()
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_in_turn() -> None:
    """Import the modules of tests, each worker another part of them first. Rewriting the assertions
    of all takes longer than the rest of the collection, and where no bytecode is kept yet, all
    workers would do it at the same time. A module that cannot be imported fails when it is
    collected.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not worker or os.environ[_NAMED]:
        return
    names = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))
    first = int(worker) * len(names) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for name in (*names[first:], *names[:first]):
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of the pages, and then with the files that have the longest tests. Mark
    with `databases` what repeats on a server what is tested on SQLite; unless files were named:
    then they are tested throughout.
    """
    # A browser needs a whole core, and most others wait: at the end, browsers would have only each
    # other beside them, and a long test nothing. pytest-xdist gives the first third to one worker,
    # and the others steal. A test that is long has a time limit of its own.
    longest: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0), limit.args[0] if limit else 0)
    items.sort(key=lambda item: ("web" not in item.path.parts, -longest[item.path]))
    if os.environ[_NAMED]:
        return
    for item in items:
        kind = (
            item.callspec.params.get("database", item.callspec.params.get("bare_database"))
            if hasattr(item, "callspec")
            else "sqlite"
        )
        if kind in database_support.SERVERS and Path(item.path).stem not in CONTRACTS:
            item.add_marker("databases")


def pytest_sessionfinish() -> None:
    """Leave no database behind."""
    database_support.drop_databases()


@pytest.fixture(params=database_support.KINDS)
async def database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[database_support.Database]:
    """A database with empty tables, on each kind in turn; ``@pytest.mark.parametrize("database",
    ["sqlite"], indirect=True)`` for some.
    """
    async with database_support.fresh(request.param, tmp_path) as given:
        yield given


@pytest.fixture(params=database_support.KINDS)
async def bare_database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[database_support.Database]:
    """A database without tables, on each kind in turn."""
    async with database_support.bare(request.param, tmp_path) as given:
        yield given


@pytest.fixture
async def any_tracker(
    database: database_support.Database, tmp_path: Path
) -> AsyncIterator[structjob.Tracker]:
    """An open tracker on each kind of database in turn; otherwise as `tracker`."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked database counts as away after a moment."""
    monkeypatch.setattr("structjob.store.sqlite.BUSY", 0.05)
    monkeypatch.setattr("structjob.store.sqlite._BUSY_SLICE", 0.02)
