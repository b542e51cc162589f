"""The programs of the page on scripts and notebooks run as they stand (R51)."""

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import preforked

import structjob

PAGE = (Path(__file__).parent.parent / "docs/integrations/scripts.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with the programs, in which the command `structjob` is found."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path


def jobs():
    with structjob.Tracker("sqlite:///jobs.db") as tracker:
        found = tracker.run(tracker.jobs.list())
        return [(job.operation, job.status.value, job.result) for job in found][::-1]


def test_the_cron_job_in_python(place):
    """It prints nothing, its exit code is 0, and everything is recorded."""
    done = subprocess.run([preforked.stand_in(), "nightly.py"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ((operation, status, result),) = jobs()
    assert (operation, status, result["rows"]) == ("nightly", "completed", 300)
    assert result["kilobytes"] > 0


@pytest.mark.slow
def test_the_cron_job_in_bash(place):
    """Each command is a job; the commands below it find them."""
    done = subprocess.run(["bash", "nightly.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dumping\n")
    assert [(operation, status) for operation, status, _ in jobs()] == [
        ("dump", "completed"),
        ("check", "completed"),
    ]
    for command in re.findall(r"^structjob (.*?)\s+#", PAGE, re.MULTILINE):
        found = subprocess.run(["structjob", *command.split()], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert "dump" in found.stdout


def test_the_cells_of_the_notebook(place, capsys):
    """They run one after the other in a running loop, as in Jupyter; the first one twice."""
    cells = PROGRAMS["notebook.py"].split("# %%")[1:]
    cells = [f"# {cell}" for cell in (cells[0], *cells)]
    names: dict[str, object] = {}

    async def run():
        for cell in cells:
            code = compile(cell, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            made = eval(code, names)
            if inspect.isawaitable(made):
                await made

    asyncio.run(run())
    shown = capsys.readouterr().out
    names["tracker"].close()
    assert "train completed None\nclean completed {'parts': 3}\n" in shown
    assert "loaded" in shown
    assert shown.count("epoch 1: loss 0.25") == 1
    assert jobs() == [("clean", "completed", {"parts": 3}), ("train", "completed", None)]
