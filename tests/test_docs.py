"""The examples of the documentation run as they stand (R51)."""

import ast
import asyncio
import contextlib
import csv
import inspect
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import preforked

import structjob

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^(?:<!-- (\S[^>]*) -->\n)?```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = ("guide", "jobs", "logging", "reading", "retention", "tasks", "vocabulary")
"""The pages whose examples continue each other, from top to bottom."""

PROGRAMS = ("README", "databases", "delivery", "http", "integrations/")
"""Where each example is a program with a name, which a test here or one of its subject runs."""

TASKS = 20


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text("utf-8")


def program(page: str, name: str) -> str:
    """The program of this name on a page."""
    (found,) = (block for named, block in BLOCK.findall(text_of(page)) if named == name)
    return found


async def _run(page: str, block: str, names: dict[str, object]) -> list[str]:
    """Run a block, whose statements may await, and return what it prints."""
    code = compile(block, f"docs/{page}.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        done = eval(code, names)
        if inspect.isawaitable(done):
            await done
    return [line for line in printed.getvalue().splitlines() if not line.startswith('{"')]


def _run_program(path: Path, text: str) -> str:
    """Run a whole program, which must not warn, and return what it prints."""
    path.write_text(text, "utf-8")
    command = [sys.executable, "-W", "error", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
async def test_the_examples_of_a_page_run_from_top_to_bottom(tmp_path, monkeypatch, page):
    """Each ``print`` prints its comment; no example needs more than those above it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    blocks = BLOCK.findall(text_of(page))
    assert blocks
    try:
        for name, block in blocks:
            if name:
                await asyncio.to_thread(_run_program, tmp_path / name, block)
                continue
            expected = re.findall(
                r"(?:print\(.*\)  # |the sink prints: )(.*)$", block, re.MULTILINE
            )
            printed = await _run(page, block, names)
            assert " ".join(printed) == " ".join(expected), block
    finally:
        if (tracker := names.get("tracker")) is not None:
            await tracker.aclose()  # type: ignore[attr-defined]  # the page made it
    if page == "tasks":
        with open("gui-17.csv", encoding="utf-8", newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["kind"] in ("log", "step_info")]
        assert [row["message"] for row in kept] == ["started", "copied"]


def test_no_example_is_left_out():
    """Each example in Python is on a page that is run here, or is a program with a name."""
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")):
        page = str(path.relative_to(ROOT)).removeprefix("docs/").removesuffix(".md")
        if page not in PAGES:
            for name, block in BLOCK.findall(path.read_text("utf-8")):
                assert page.startswith(PROGRAMS), page
                assert name, f"{path.name}: {block}"


def test_the_program_without_a_loop_runs(tmp_path):
    """The second program of the README records a job with its step and its line."""
    printed = _run_program(tmp_path / "nightly.py", program("../README", "nightly.py"))
    assert "rows loaded" in printed
    with structjob.Tracker(tmp_path / "jobs.db") as tracker:
        (job,) = tracker.run(tracker.jobs.list())
    assert (job.operation, job.status) == ("nightly", "completed")


def test_threads_and_processes_of_pools_log_into_the_job(tmp_path):
    """The program of the page on clients and workers: its three lines belong to the job."""
    _run_program(tmp_path / "workers.py", program("integrations/http", "workers.py"))
    with structjob.Tracker(tmp_path / "jobs.db") as tracker:
        lines = tracker.run(tracker.logs.list(job=tracker.run(tracker.jobs.list())[0], kind="log"))
    assert sorted(line.attrs["part"] for line in lines) == [1, 2, 3]


def test_a_subprocess_gets_the_ids(tmp_path):
    """The program of the page on clients and workers runs a command below its job."""
    printed = _run_program(tmp_path / "build.py", program("integrations/http", "build.py"))
    assert "built\n" in printed


@pytest.mark.parametrize(
    ("name", "pages"),
    [
        ("fastapi_app", "program.app.routes[-1].app"),
        pytest.param("django_app", "program.pages", marks=pytest.mark.slow),
        pytest.param("litestar_app", "program.jobs", marks=pytest.mark.slow),
    ],
)
def test_the_pages_are_mounted_in_an_application(tmp_path, name, pages):
    """Each program of the page on HTTP answers with the pages, below its own prefix. It ends as the
    page says: with `aclose`, as no lifespan runs.
    """
    pytest.importorskip(name.removesuffix("_app"))
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "settings.py").write_text("SECRET_KEY = 'x'\nROOT_URLCONF = []\n")
    (tmp_path / f"{name}.py").write_text(program("http", f"{name}.py"), "utf-8")
    asked = (
        "import asyncio, httpx, structjob\n"
        "structjob.configure(console=False, stdlib=False)\n"
        "with structjob.Tracker('sqlite:///jobs.db') as tracker:\n"
        "    with tracker.job('nightly'): pass\n"
        f"import {name} as program\n"
        "app = getattr(program, 'application', None) or program.app\n"
        "import logging; logging.getLogger('httpx').disabled = True\n"  # Litestar shows its lines
        "async def main():\n"
        "    transport = httpx.ASGITransport(app, client=('127.0.0.1', 1))\n"
        "    async with httpx.AsyncClient(transport=transport, base_url='http://localhost') as client:\n"
        "        answer = await client.get('/jobs/api/v1/jobs')\n"
        "        print(answer.status_code, [job['operation'] for job in answer.json()['items']])\n"
        f"    await {pages}.aclose()\n"
        "asyncio.run(main())\n"
    )
    assert _run_program(tmp_path / "ask.py", asked) == "200 ['nightly']\n"


@pytest.mark.slow
def test_a_request_of_litestar_is_a_job(tmp_path):
    """The Litestar program of the page on ASGI: a tracker that its lifespan opens, a job with the
    template of its route, and for a failed one the exception.
    """
    pytest.importorskip("litestar")
    asked = program("integrations/asgi", "litestar_app.py") + (
        "from starlette.testclient import TestClient\n"
        "with TestClient(app) as client:\n"
        "    codes = [client.get(f'/orders/{n}').status_code for n in (7, 0)]\n"
        "assert codes == [200, 500], codes\n"
    )
    (tmp_path / "ask.py").write_text(asked, "utf-8")
    command = [preforked.stand_in(), "ask.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with structjob.Tracker(tmp_path / "jobs.db") as tracker:
        failed, completed = tracker.run(tracker.jobs.list())
    assert (completed.operation, completed.status) == ("GET /orders/{number}", "completed")
    assert (failed.status, failed.error.type) == ("failed", "ZeroDivisionError")


def test_a_message_of_a_queue_is_a_child_job_and_its_next_delivery_an_attempt(tmp_path):
    """The worker of the page on clients: one correlation id, one tree, two attempts."""
    _run_program(tmp_path / "messages.py", program("integrations/http", "messages.py"))
    with structjob.Tracker(tmp_path / "jobs.db") as tracker:
        resize, upload = tracker.run(tracker.jobs.list())
        attempts = tracker.run(tracker.jobs.history(operation="resize"))
    assert (upload.operation, resize.operation, resize.id) == ("upload", "resize", "msg-1")
    assert resize.parent_job_id == upload.id
    assert resize.correlation_id == upload.correlation_id
    assert {one.attempt: one.status for one in attempts} == {1: "failed", 2: "completed"}


def test_alembic_of_an_application_leaves_the_tables_alone(tmp_path):
    """The `env.py` of the page on databases proposes the application's table, and nothing else."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "models.py").write_text(
        "from sqlalchemy import Column, Integer, MetaData, Table\n"
        "metadata = MetaData()\n"
        "Table('orders', metadata, Column('id', Integer, primary_key=True))\n"
    )
    with structjob.Tracker(tmp_path / "jobs.db"):
        pass
    made = (
        "from alembic import command\n"
        "from alembic.config import Config\n"
        "config = Config('alembic.ini')\n"
        "config.set_main_option('script_location', 'migrations')\n"
        "config.set_main_option('sqlalchemy.url', 'sqlite:///jobs.db')\n"
        "command.init(config, 'migrations')\n"
        "with open('migrations/env.py', 'w') as file:\n"
        f"    file.write({program('databases', 'env.py')!r})\n"
        "command.revision(config, 'orders', autogenerate=True)\n"
    )
    _run_program(tmp_path / "make.py", made)
    (revision,) = (tmp_path / "migrations" / "versions").glob("*.py")
    text = revision.read_text("utf-8")
    assert "op.create_table('orders'" in text
    assert "structjob_" not in text


def test_every_task_has_a_heading_that_the_table_links_to():
    """The page has one section a task."""
    page = text_of("tasks")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert len(headings) == len(re.findall(r"\]\(#", page)) == TASKS
    assert len(BLOCK.findall(page)) == TASKS + 1
    assert structjob.__all__
