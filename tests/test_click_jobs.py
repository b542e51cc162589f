"""Commands of click and Typer as jobs, in processes of their own (R48)."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer
from cli_support import environment, preforked, python

import structjob
from structjob.exceptions import InvalidArgument

TOOL = """
import asyncio, signal, sys, os
import click, structlog, structjob
structjob.configure(console=False)
log = structlog.get_logger()

@click.group(invoke_without_command=True)
@click.option("--verbose", is_flag=True)
def cli(verbose):
    click.echo("group")

@cli.command()
@click.argument("name")
@click.option("--count", default=3)
@click.option("--password")
@click.option("--pin", prompt=True, hide_input=True)
def add(name, count, password, pin):
    log.info("adding", name=name)
    click.echo(f"added {name}")

@cli.command()
@click.argument("how")
def leave(how):
    click.echo("leaving")
    if how == "exit": sys.exit(3)
    if how == "exit0": sys.exit(0)
    if how == "text": sys.exit("words")
    if how == "ctx": click.get_current_context().exit(4)
    if how == "ctx0": click.get_current_context().exit(0)
    if how == "abort": raise click.Abort()
    if how == "interrupt": raise KeyboardInterrupt
    if how == "term": os.kill(os.getpid(), signal.SIGTERM)
    if how == "message": raise click.ClickException("no such user")
    if how == "usage": raise click.BadParameter("not good")
    if how == "error": raise ValueError("broken")

@cli.command("async")
def run_async():
    async def main():
        async with structjob.step("think"):
            log.info("in a loop")
    asyncio.run(main())

if __name__ == "__main__":
    if os.environ.get("TRACKED"):
        structjob.click.tracked(cli, "sqlite:///jobs.db")
    cli(prog_name="tool")
"""


@pytest.fixture
def tool(tmp_path):
    """Run the tool, with the jobs or without; return its exit code and what it printed."""

    def run(*words, tracked=True, **environ):
        env = {**environment(), "TRACKED": "yes" if tracked else "", **environ}
        done = python("-c", TOOL, *words, cwd=tmp_path, env=env, input="1234\n")
        return done.returncode, done.stdout, done.stderr

    run.jobs = lambda: jobs_of(tmp_path)
    return run


def jobs_of(directory):
    if not (directory / "jobs.db").exists():
        return []
    with structjob.Tracker(f"sqlite:///{directory}/jobs.db") as tracker:
        return list(tracker.run(tracker.jobs.list()))


def test_a_command_is_a_job(tool):
    """R48: named as it is typed, with its parameters, but no secrets and hidden input; what it logs
    belongs to it, and the correlation id comes from the environment.
    """
    words = ("add", "ada", "--password", "hunter2secret")
    plain = tool(*words, tracked=False)
    assert tool(*words, STRUCTJOB_CORRELATION_ID="web-42") == plain
    assert plain[0] == 0
    (job,) = tool.jobs()
    assert (job.operation, job.status, job.correlation_id) == ("tool add", "completed", "web-42")
    assert job.metadata == {"name": "ada", "count": 3, "password": "[redacted]"}
    assert job.result == {"exit_code": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code", "status"),
    [
        ("exit", 3, "failed"),
        ("exit0", 0, "completed"),
        ("text", 1, "failed"),
        ("ctx", 4, "failed"),
        ("ctx0", 0, "completed"),
        ("abort", 1, "cancelled"),
        ("interrupt", 1, "cancelled"),
        ("term", -15, "cancelled"),
        ("message", 1, "failed"),
        ("usage", 2, "failed"),
        ("error", 1, "failed"),
        ("nothing", 0, "completed"),
    ],
)
def test_how_a_command_ends(tool, how, code, status):
    """R48: exit code, stdout and messages are as without; the job says how it ended."""
    plain, tracked = tool("leave", how, tracked=False), tool("leave", how)
    assert tracked[:2] == plain[:2]
    assert plain[0] == code
    if how == "error":  # whose traceback has the ids, too
        assert "ValueError: broken" in tracked[2]
    else:
        assert tracked[2] == plain[2]
    (job,) = tool.jobs()
    assert job.status == status
    if status == "failed":
        assert job.result == {"exit_code": code}


def test_what_is_no_run_of_a_command_is_no_job(tool):
    """R48: help, wrong usage, completion and a group alone."""
    for words, environ in (
        (("--help",), {}),
        (("add", "--help"), {}),
        (("add",), {}),
        (("nothing",), {}),
        ((), {}),
        ((), {"_TOOL_COMPLETE": "bash_source"}),
    ):
        assert tool(*words, **environ) == tool(*words, tracked=False, **environ)
    assert tool.jobs() == []


@pytest.mark.slow
def test_a_command_with_a_loop_of_its_own(tool):
    """R48: what `asyncio.run` runs in a command belongs to its job."""
    assert tool("async")[0] == 0
    (job,) = tool.jobs()
    assert (job.operation, job.status) == ("tool async", "completed")


@pytest.mark.slow
def test_a_database_that_cannot_be_used(tool, tmp_path):
    """Bad day: the command runs as ever."""
    (tmp_path / "jobs.db").mkdir()
    code, stdout, _ = tool("add", "ada")
    assert (code, stdout.splitlines()[-1]) == (0, "added ada")


async def test_within_a_program_that_has_a_tracker(tracker):
    """R48: the tracker that is open is used, and the job around is the parent."""

    @click.command()
    @click.option("--n", type=int)
    def inner(n):
        structjob.current_job().result = {"n": n}

    command = structjob.click.tracked(structjob.click.tracked(inner))
    async with tracker.job("outer") as outer:
        command(["--n", "7"], standalone_mode=False)
    (job,) = await tracker.jobs.list(parent_job_id=outer.id)
    assert (job.status, job.result, job.metadata) == ("completed", {"n": 7}, {"n": 7})


def test_a_function_is_refused():
    """The message says where to write it."""
    with pytest.raises(InvalidArgument, match="above @click"):
        structjob.click.tracked(print)


@pytest.mark.parametrize("words", [["greet", "ada"], ["--help"]])
def test_typer(tmp_path, words):
    """R48: a Typer application, whose commands are no objects of click's own."""
    program = """
import structjob, typer
structjob.configure(console=False)
app = typer.Typer()

@app.command()
def greet(name: str, times: int = 2):
    print("hello", name)

@app.command()
def other(): ...

structjob.click.tracked(app, "sqlite:///jobs.db")(prog_name="tool")
"""
    done = python("-c", program, *words, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    if words == ["--help"]:
        assert jobs_of(tmp_path) == []
        return
    assert done.stdout == "hello ada\n"
    (job,) = jobs_of(tmp_path)
    assert (job.operation, job.metadata) == ("tool greet", {"name": "ada", "times": 2})


@pytest.mark.parametrize("options", ["", "pretty_exceptions_enable=False"])
def test_an_exception_looks_as_typer_shows_it(tmp_path, options):
    """The frames of Typer are left out, and what the application sets has effect (R48)."""
    program = f"""
import sys, structjob, typer
structjob.configure(console=False)
app = typer.Typer({options})

@app.command()
def fail():
    raise ValueError("no such name")

tracked = sys.argv.pop() == "tracked"
(structjob.click.tracked(app, "sqlite:///jobs.db") if tracked else app)()
"""
    (tmp_path / "tool.py").write_text(program)
    plain, recorded = (
        subprocess.run(
            [preforked.stand_in(), "tool.py", word], cwd=tmp_path, capture_output=True, text=True
        )
        for word in ("plain", "tracked")
    )
    assert (plain.returncode, recorded.returncode) == (1, 1)
    assert "ValueError: no such name" in recorded.stderr
    if not options:
        first, *_ = recorded.stderr.splitlines()
        assert first == plain.stderr.splitlines()[0]
        assert "invoke" not in recorded.stderr
    else:
        assert recorded.stderr.startswith("Traceback (most recent call last):")


def test_an_exception_that_the_caller_expects_leaves_the_hook_of_the_program(tmp_path, monkeypatch):
    """R48: another one, later, is reported as the program wants it."""
    app = typer.Typer()

    @app.command()
    def fail():
        raise ValueError("no such name")

    def report(*exception):
        pass

    monkeypatch.setattr(sys, "excepthook", report)
    command = structjob.click.tracked(app, f"sqlite:///{tmp_path / 'jobs.db'}")
    with pytest.raises(ValueError, match="no such name"):
        command([], standalone_mode=False)
    assert sys.excepthook is report


@pytest.mark.slow
def test_the_program_of_the_documentation_runs(tmp_path):
    """R51: the page's program runs as it stands, and its command finds the job."""
    page = (Path(__file__).parent.parent / "docs/integrations/click.md").read_text("utf-8")
    (program,) = re.findall(r"<!-- users.py -->\n```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "users.py").write_text(program)
    command = [sys.executable, "users.py", "add", "ada"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "added ada\n"), done.stderr
    assert [job.operation for job in jobs_of(tmp_path)] == ["users.py add"]


def test_values_of_parameters_keep_their_form(tmp_path, monkeypatch):
    """R48: lists stay lists, files are their names and are not opened, dates are ISO texts."""
    monkeypatch.chdir(tmp_path)

    @click.command()
    @click.option("--num", type=int, multiple=True)
    @click.option("--when", type=click.DateTime())
    @click.option("--read", type=click.File())
    @click.option("--write", type=click.File("w", lazy=True))
    def tool(**given):
        pass

    Path("in.csv").touch()
    words = [
        "--num",
        "1",
        "--num",
        "2",
        "--when",
        "2026-01-02",
        "--read",
        "in.csv",
        "--write",
        "out.csv",
    ]
    structjob.click.tracked(tool, "sqlite:///jobs.db")(words, standalone_mode=False)
    assert not Path("out.csv").exists()
    with structjob.Tracker("sqlite:///jobs.db") as tracker:
        (job,) = tracker.run(tracker.jobs.list(metadata={"num": 2}))
    assert job.metadata == {
        "num": [1, 2],
        "when": "2026-01-02T00:00:00",
        "read": "in.csv",
        "write": "out.csv",
    }


@pytest.mark.parametrize(
    ("raised", "status", "error"),
    [
        (typer.Exit(), "completed", None),
        (click.exceptions.Exit(0), "completed", None),
        (typer.Exit(4), "failed", "4"),
        (click.exceptions.Exit(4), "failed", "4"),
        (typer.Abort(), "cancelled", ""),
        (click.Abort(), "cancelled", ""),
    ],
    ids=repr,
)
def test_an_exit_of_click_or_typer_ends_a_job_as_its_code_says(
    db_url, monkeypatch, raised, status, error
):
    """R9: as `sys.exit` does, in jobs and steps that are no commands."""
    # Typer 0.27 has its own elsewhere
    monkeypatch.delitem(sys.modules, "typer.exceptions", raising=False)
    with structjob.Tracker(db_url) as tracker:
        with pytest.raises(type(raised)), tracker.job("work") as job, job.step("load"):
            raise raised
        record = tracker.run(tracker.jobs.get(job.id))
        (step,) = tracker.run(tracker.jobs.steps(job.id))
    assert (record.status, record.error and record.error.message) == (status, error)
    assert step.status == status


def test_a_module_that_cannot_be_read_does_not_hide_an_error(db_url, monkeypatch):
    """R9: `typer` stands for modules that load their attributes late, and fail."""

    class Lazy(ModuleType):
        def __getattr__(self, name):
            raise ImportError("it is broken")

    monkeypatch.setitem(sys.modules, "typer", Lazy("typer"))
    with structjob.Tracker(db_url) as tracker:
        with pytest.raises(ValueError, match="mine"), tracker.job("work") as job:
            raise ValueError("mine")
        assert structjob.current_job() is None
        record = tracker.run(tracker.jobs.get(job.id))
    assert (record.status, record.error.message) == ("failed", "mine")
