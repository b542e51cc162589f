"""The pytest plugin, in real runs of pytest: which tests pass, fail, and what they show (R50)."""

import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from unittest.mock import ANY

import pytest
import structlog
from cli_support import environment, python
from prefork import Preforked

import structjob
import structjob.testing

ROOT = Path(__file__).parent.parent
pytest_plugins = ["pytester"]

WORK = """
import asyncio, structlog, structjob
log = structlog.get_logger()

async def work(tracker):
    async with tracker.job("import", owner="ada") as job:
        async with job.step("read"):
            log.info("row", n=7)
        async with job.child("check"):
            await asyncio.to_thread(log.warning, "odd row")
        job.result = {"rows": 1}

def check(tracked):
    job = tracked.assert_job("import", steps=["read"], result={"rows": 1}, owner="ada")
    assert tracked.assert_job("check").parent_job_id == job.id
    assert tracked.assert_event("row", level="info", job="import", n=7).step == "read"
    tracked.assert_event("odd row", job="check")
    tracked.assert_no_errors()
    assert tracked.tree() == "import completed\\n  - read completed\\n  check completed"
    assert len(tracked.jobs) == 2 and [step.name for step in tracked.steps] == ["read"]
"""


# A plugin that these tests do not need takes as long to import as everything else.
PLUGINS = ("-p", "no:schemathesis", "-p", "no:structjob", "-p", "structjob.testing")


RUN = "import pytest, sys; sys.exit(pytest.main())"
PYTEST = Preforked(environment(), modules=("anyio", "faker", "hypothesis", "pytest"))


@pytest.fixture
def run(pytester):
    """Run pytest in a process of its own on a file of tests, with the plugin."""

    def run(tests, *options):
        pytester.makepyfile(test_it=WORK + tests)
        options = (*PLUGINS, "-p", "no:cacheprovider", "--basetemp=temporary", *options)
        return pytester.run(PYTEST.stand_in(), "-c", RUN, *options)

    return run


PLAIN = """
def test_plain(tracked):
    with tracked.tracker.job("sync") as job, job.step("one"):
        log.info("hello")
    tracked.assert_job("sync", steps=["one"])
    tracked.assert_event("hello", job="sync")

def test_alone(tracked):
    assert tracked.jobs == [] and tracked.events == []
    asyncio.run(work(tracked.tracker))
    check(tracked)
"""

ASYNC = """
import pytest
{mark}
async def test_async(tracked):
    await work(tracked.tracker)
    check(tracked)

{mark}
async def test_again(tracked):
    await work(tracked.tracker)
    check(tracked)
"""

UNITTEST = """
import unittest, pytest

@pytest.mark.usefixtures("tracked")
class TestIt(unittest.TestCase):
    def test_one(self):
        asyncio.run(work(self.tracked.tracker))
        check(self.tracked)

@pytest.mark.usefixtures("tracked")
class TestAsync(unittest.IsolatedAsyncioTestCase):
    async def test_two(self):
        await work(self.tracked.tracker)
        check(self.tracked)
"""


ANYIO = ASYNC.format(
    mark="@pytest.mark.parametrize('anyio_backend', ['asyncio'])\n@pytest.mark.anyio"
)


def slow(tests, setting, *, id):
    return pytest.param(tests, ("-o", setting), id=id, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("tests", "options"),
    [
        pytest.param(PLAIN, (), id="plain"),
        slow(ASYNC.format(mark="@pytest.mark.asyncio"), "asyncio_mode=strict", id="asyncio strict"),
        slow(ASYNC.format(mark=""), "asyncio_mode=auto", id="asyncio auto"),
        slow(ANYIO, "asyncio_mode=strict", id="anyio"),
        pytest.param(PLAIN, ("-n", "2"), id="xdist", marks=pytest.mark.slow),
        slow(UNITTEST, "asyncio_mode=strict", id="unittest"),
    ],
)
def test_it_works_with_every_kind_of_test(run, tests, options):
    """Acceptance test 10. R50: the same fixture, in plain, asyncio, anyio and unittest tests, alone
    and in parallel; no test sees what another recorded.
    """
    run(tests, *options).assert_outcomes(passed=2)


def test_a_failure_shows_what_was_recorded(run):
    """R50: a failing assertion says what is different, and every failing test shows the jobs, their
    steps and the last lines.
    """
    shown = run("""
def test_status(tracked):
    asyncio.run(work(tracked.tracker))
    tracked.assert_job("import", status="failed", steps=["write"])

def test_event(tracked):
    asyncio.run(work(tracked.tracker))
    tracked.assert_event("row", n=8, vm="pg-01")

def test_missing(tracked):
    tracked.job("nothing")

def test_errors(tracked):
    try:
        with tracked.tracker.job("bad"):
            raise ValueError("broken")
    except ValueError:
        pass
    tracked.assert_no_errors()

def test_of_its_own(tracked):
    asyncio.run(work(tracked.tracker))
    assert 1 == 2
""")
    shown.assert_outcomes(failed=5)
    text = shown.stdout.str()
    for said in (
        r"status: <JobStatus.COMPLETED: 'completed'>, expected 'failed'",
        r"steps: \['read'\], expected \['write'\]",
        r"the nearest: 'row'",
        r"n: 7, expected 8",
        r"vm: missing, expected 'pg-01'",
        r"no job 'nothing' was recorded, expected one",
        r"job 'bad' is failed",
        r"bad failed  ValueError: broken",
        r"-+ structjob -+\nimport completed\n  - read completed\n  check completed\n\ninfo     row n=7\nwarning  odd row",
    ):
        assert re.search(said, text), said


def test_the_database_of_a_test_may_be_away_or_slow(tracked):
    """R50: the code under test meets an unavailable database; what waits is stored afterwards, and
    is asserted as ever.
    """
    with tracked.database.down():
        with tracked.tracker.job("away", wait=False):
            structlog.get_logger().info("meanwhile")
        with pytest.raises(structjob.StoreUnavailable, match="the test has made"):
            print(tracked.jobs)
    tracked.assert_job("away")
    tracked.assert_event("meanwhile", job="away")
    began = time.monotonic()
    with tracked.database.slow(0.05):
        assert len(tracked.jobs) == 1
    assert time.monotonic() - began > 0.05
    tracked.database.down()  # it is up again at the end of the test


def test_events_in_their_order(tracked):
    """R50: a part of the events, in their order, with any others between them; a failure says
    which one is missing, and what is most similar.
    """
    log = structlog.get_logger()
    with tracked.tracker.job("import"):
        log.info("opened")
        log.info("row", n=7)
        log.warning("row", n=8)
        log.info("closed")
    assert tracked.events >= ["opened", {"message": "row", "n": 8, "level": "warning"}, "closed"]
    assert tracked.events >= [{"job": "import", "n": 7}, {"n": 8}]
    wrong = ["opened", {"message": "row", "n": 8}, {"message": "row", "n": 7, "vm": "pg"}, "closed"]
    events = tracked.events
    assert not events >= wrong
    assert structjob.testing.pytest_assertrepr_compare(">=", events, wrong) == [
        "tracked.events >= [...]",
        "expected event 3 of 4 does not occur after the 2 before it",
        "  expected: {'message': 'row', 'n': 7, 'vm': 'pg'}",
        "the nearest: 'closed'",
        "  message: 'closed', expected 'row'",
        "  n: missing, expected 7",
        "  vm: missing, expected 'pg'",
    ]
    assert structjob.testing.pytest_assertrepr_compare("==", events, wrong) is None
    assert structjob.testing.pytest_assertrepr_compare(
        "==", events[2], {"message": "row", "n": 8}
    ) == [
        "event == {...}: an event is a record, not a dictionary",
        "write tracked.events >= [{...}], or call tracked.assert_event(message, ...)",
        "  n: 7, expected 8",
    ]


def test_a_class_of_the_program_may_have_the_name_of_ours():
    """R50: pytest explains its comparisons itself."""
    own = type("EventRecord", (), {})()
    assert structjob.testing.pytest_assertrepr_compare("==", own, {"n": 8}) is None


SET_UP = """
import logging
import pytest
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.add_log_level, structlog.processors.JSONRenderer()],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
{install}
logging.getLogger().setLevel("INFO")
log = structlog.get_logger("shop")
log.info("used before the first test")
structjob.classify(KeyError, error_type="absent")
as_set_up = list(structlog.get_config()["processors"])

@pytest.fixture(autouse=True)
def nothing_changed():
    yield
    assert structlog.get_config()["processors"] == as_set_up

def test_before(caplog):
    log.info("hello", n=1)
    assert '"n": 1' in caplog.text

def test_tracked(tracked, caplog):
    with tracked.tracker.job("a"):
        log.info("hello", n=2)
        structlog.get_logger().error("fresh", exc_info=KeyError("x"))
        logging.getLogger("old").info("by logging")
    assert '"n": 2' in caplog.text and "job_id" in caplog.text
    tracked.assert_event("hello", n=2, job="a")
    tracked.assert_event("fresh", error_type="absent")
    tracked.assert_event("by logging", job="a")
    structlog.configure(processors=[structlog.processors.JSONRenderer()])

def test_after(caplog):
    log.info("hello", n=3)
    structlog.get_logger("new").info("fresh", n=4)
    assert '"n": 3' in caplog.text and '"n": 4' in caplog.text and "job_id" not in caplog.text

def test_again(tracked):
    log.info("hello", n=5)
    tracked.assert_event("hello", n=5)
"""


@pytest.mark.parametrize("install", ["structjob.install()", ""], ids=["installed", "structlog"])
def test_the_programs_setup_of_logging_stays_in_effect(run, install):
    """R50: a program sets up logging where it is imported: its output is the same in a test that
    uses the fixture, loggers that are in use are recorded, and the next test finds all as it was.
    """
    run(SET_UP.replace("{install}", install)).assert_outcomes(passed=4)


@pytest.mark.slow
def test_what_is_left_open_fails_the_test(run):
    """R50: a job that still runs, or a tracker that is still open, is named at the test's end, and
    does not disturb the next one.
    """
    shown = run("""
def test_job(tracked):
    async def forget():
        await (await tracked.tracker.create_job("forgotten")).start()
    asyncio.run(forget())

def test_tracker(tracked, tmp_path):
    structjob.Tracker(f"sqlite:///{tmp_path}/other.db").__enter__()

def test_next(tracked):
    structjob.configure(console=False, level="error")  # of the code under test
    asyncio.run(work(tracked.tracker))
    assert len(tracked.jobs) == 2
""")
    shown.assert_outcomes(passed=3, errors=2)
    shown.stdout.fnmatch_lines(["*left running by the test: 'forgotten'*"])
    shown.stdout.fnmatch_lines(["*a tracker was left open by the test*"])


@pytest.mark.slow
def test_a_test_that_is_interrupted(run):
    """Bad day: a task is cancelled, the loop is closed early, a child is forked: the next test has
    a tracker.
    """
    run("""
import os

def test_cancelled(tracked):
    async def main():
        async def endless():
            async with tracked.tracker.job("endless"):
                await asyncio.Event().wait()
        task = asyncio.create_task(endless())
        while not tracked.jobs:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    asyncio.run(main())
    tracked.assert_job("endless", status="cancelled")

def test_forked(tracked):
    with tracked.tracker.job("parent"):
        if not (pid := os.fork()):
            log.info("in the child")
            os._exit(0)
        os.waitpid(pid, 0)
    tracked.assert_job("parent")

def test_next(tracked):
    asyncio.run(work(tracked.tracker))
    check(tracked)
""").assert_outcomes(passed=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [
        pytest.param('structjob.Tracker("sqlite:///prod.db")', id="made"),
        pytest.param('structjob.init("sqlite:///prod.db")', id="opened"),
    ],
)
def test_a_tracker_of_the_module_may_be_replaced(run, pytester, made):
    """R50: with `structjob_autouse`, a tracker that the program made when it was imported is the
    test's, too: for `with`, for jobs, for decorators and for middlewares that were given it.
    """
    run(f"""
import httpx, starlette.applications, starlette.responses, starlette.routing

shop = {made}

@shop.job("decorated")
def decorated():
    return 3

async def home(request):
    async with structjob.step("answer"):
        return starlette.responses.PlainTextResponse("hello")

app = starlette.applications.Starlette(routes=[starlette.routing.Route("/", home)])
structjob.asgi.install(app, shop)

async def get():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        await client.get("/")

def test_it(tracked):
    with shop, shop.job("block"):
        pass
    assert decorated() == 3 and shop.is_open
    tracked.tracker.run(get())
    tracked.assert_job("block")
    tracked.assert_job("decorated", result=3)
    tracked.assert_job("GET /", steps=["answer"])
    assert len(shop.run(shop.jobs.list())) == 3
""", "-o", "structjob_autouse=true").assert_outcomes(passed=1)  # fmt: skip
    assert pytester.path.joinpath("prod.db").exists() == ("init" in made)


def test_only_the_database_of_the_fixture_is_down(run):
    """A reader of another database reads meanwhile, also in the first test of a run."""
    run("""
def test_it(tracked, tmp_path):
    with structjob.Tracker(tmp_path / "other.db") as other, other.job("elsewhere"):
        pass
    async def read():
        async with structjob.Reader(tmp_path / "other.db") as reader:
            return [job.operation for job in await reader.jobs.list()]
    with tracked.database.down():
        assert asyncio.run(read()) == ["elsewhere"]
""").assert_outcomes(passed=1)


@pytest.mark.slow
def test_every_tracker_may_be_replaced(run, pytester):
    """R50: with `structjob_autouse`, code that opens a tracker itself gets the test's, whatever its
    URL.
    """
    run("""
URL = "postgresql://nowhere.invalid/prod"

async def main():
    async with structjob.Tracker(URL, service="shop") as tracker:
        await work(tracker)
    tracker = structjob.Tracker(URL)
    await tracker.open()
    assert len(await tracker.jobs.list()) == 2
    await tracker.aclose()
    with structjob.Tracker(URL) as tracker, tracker.job("sync"):
        pass

def test_it(tracked):
    asyncio.run(main())
    tracked.assert_job("import")
    tracked.assert_job("sync")

def test_without_naming_it():
    asyncio.run(main())
""", "-o", "structjob_autouse=true").assert_outcomes(passed=2)  # fmt: skip


@pytest.mark.slow
def test_the_database_of_a_failed_test_is_kept(run, pytester):
    """R50: with `--structjob-keep DIR` it is a file to be read by the commands."""
    run("""
def test_good(tracked):
    asyncio.run(work(tracked.tracker))

def test_bad(tracked):
    asyncio.run(work(tracked.tracker))
    assert False
""", "--structjob-keep", "kept").assert_outcomes(passed=1, failed=1)  # fmt: skip
    (kept,) = (pytester.path / "kept").glob("*.db")
    assert "test_bad" in kept.name
    assert "import" in python("-m", "structjob", "jobs", "--db", str(kept)).stdout


@pytest.mark.slow
def test_other_suites_are_not_disturbed(run):
    """R50: where no fixture is used nothing of the library is loaded, and structlog stays as it
    was.
    """
    program = """
import sys

def test_nothing(request):
    names = [name for name in sys.modules if name.startswith(("structjob.", "sqlalchemy", "msgspec"))]
    assert names == ["structjob.testing"], names
    assert not [name for name in request.fixturenames if "structjob" in name]
"""
    command = [sys.executable, "-m", "pytest", "-q", *PLUGINS, "-p", "no:cacheprovider", "-c", "/dev/null"]  # fmt: skip
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "test_nothing.py")
        path.write_text(program)
        done = subprocess.run(
            [*command, str(path)], cwd=directory, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout


def test_pytest_finds_it():
    """R50: it is there once the package is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"structjob": "structjob.testing"}


@pytest.mark.slow
def test_the_program_of_the_documentation_runs(pytester):
    """R51: the page's tests pass as they stand."""
    page = (ROOT / "docs/integrations/pytest.md").read_text("utf-8")
    for name in ("orders.py", "test_orders.py"):
        (text,) = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", page, re.DOTALL)
        (pytester.path / name).write_text(text, "utf-8")
    pytester.syspathinsert()
    pytester.runpytest_subprocess(*PLUGINS, "-o", "asyncio_mode=auto").assert_outcomes(passed=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "passed"), [("fastapi.md", 5), ("http.md", 2)], ids=["a service", "two services"]
)
def test_the_services_to_copy_pass_their_tests(pytester, page, passed):
    """R51: programs, tests and settings of the page, as they stand; no file is made."""
    text = (ROOT / "docs/integrations" / page).read_text("utf-8")
    files = re.findall(r"<!-- ([\w.]+) -->\n```(?:python|ini)\n(.*?)```", text, re.DOTALL)
    for name, content in files:
        (pytester.path / name).write_text(content, "utf-8")
    pytester.syspathinsert()
    # Starlette's TestClient warns about httpx
    pytester.runpytest_subprocess(*PLUGINS, "-W", "default").assert_outcomes(
        passed=passed, warnings=ANY
    )
    assert not list(pytester.path.glob("*.db"))


def test_a_field_that_jobs_do_not_have_is_named_with_those_they_have(tracked):
    """R50: an assertion with a wrong name says which names there are."""
    with tracked.tracker.job("a"):
        pass
    with pytest.raises(
        TypeError, match=r"no field 'error_type'; it has id, operation, status.*error"
    ):
        tracked.assert_job("a", error_type="ValueError")
