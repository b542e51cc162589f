"""The command line as a whole: help, exit codes, colours, closed pipes, ids, and databases that are
not there (R49).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from cli_support import COMMAND, Shell, environment, typed
from each import each

from structjob.cli import app

MANY = """
import asyncio, sys, structjob, structlog

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1]):
        for n in range(5000):
            structlog.get_logger().info("many", n=n, text="x" * 80)

asyncio.run(main())
"""

COMMANDS = (
    "demo",
    "run",
    "jobs",
    "show",
    "logs",
    "tail",
    "stats",
    "errors",
    "cancel",
    "delete",
    "sessions",
    "export",
    "import",
    "prune",
    "verify",
    "doctor",
    "migrate",
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A directory with the sample in its ./structjob.db."""
    shell = Shell(tmp_path_factory.mktemp("cli"))
    shell.sample()
    return shell


@each("command", COMMANDS)
def test_each_command_has_help_with_an_example(shell: Shell, command: str) -> None:
    """``structjob COMMAND --help`` says what it does, and shows how it is typed; each can say it as
    JSON (R49).
    """
    shown = shell.ok(command, "--help")
    assert "--json" in shown
    assert "Examples:" in shown
    assert f"structjob {command}" in shown


def test_the_list_of_commands_says_what_each_help_says() -> None:
    """The list is written down, so that `structjob --help` imports no command (B12); it is that of
    the commands themselves.
    """
    context = click.Context(app.cli)
    written = {name: text for name, (_, text) in app.COMMANDS.items()}
    commands = {name: app.cli.get_command(context, name) for name in written}
    assert written == {
        name: command.get_short_help_str(1_000) for name, command in commands.items() if command
    }


def test_help_names_every_command(shell: Shell) -> None:
    """``structjob --help`` lists the commands, and says which database they take (R49)."""
    shown = shell.ok("--help")
    assert all(command in shown for command in COMMANDS)
    assert "structjob.db" in shown


def test_help_is_fast() -> None:
    """Importing the command line costs click and about as much again: no database layer, no Rich,
    no event loop (B12).
    """
    program = (
        "import sys, resource\n"
        "def cpu():\n u = resource.getrusage(resource.RUSAGE_SELF); return u.ru_utime + u.ru_stime\n"
        "before = cpu()\n"
        "import click\n"
        "between = cpu()\n"
        "import structjob.cli\n"
        "heavy = {'rich', 'sqlalchemy', 'alembic', 'asyncio', 'structlog', 'structjob.tracker'}\n"
        "print((cpu() - between) / (between - before), *sorted(heavy & set(sys.modules)))"
    )
    costs = []
    for _ in range(5):
        cost, *loaded = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(),
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        assert not loaded
        costs.append(float(cost))
    assert min(costs) < 2.0


def test_it_is_a_module_too(shell: Shell) -> None:
    """``python -m structjob --version`` works where no script is installed (R49)."""
    assert shell.ok("--version").startswith("structjob ")


@each(
    ("words", "code", "told"),
    [
        (("show", "nope"), 3, "job not found: nope"),
        (("logs", "nope"), 3, "job not found: nope"),
        (("jbos",), 2, "did you mean 'jobs'?"),
        (("jobs", "--status", "odd"), 2, "'odd' is not one of"),
        (("jobs", "--since", "whenever"), 2, "is not a time"),
        (("jobs", "--limit", "0"), 2, "0"),
        (("logs", "--last", "3", "--limit", "3"), 2, "--last"),
        (("logs", "-f", "--limit", "3"), 2, "--follow"),
        (("logs", "-w", "novalue"), 2, "key=value"),
        (("logs", "--since", "1h", "--until", "2h"), 2, "swap them"),
        (("show",), 2, "Missing argument"),
        (("run",), 2, "Missing argument"),
        (("migrate", "--down", "0815"), 2, "unknown revision"),
        (("migrate", "--dialect", "sqlite"), 2, "--dialect"),
        (("--db", "oracle://host/x", "jobs"), 2, "no store for 'oracle'"),
        (("--db", "not a:url://", "jobs"), 2, "not a database URL"),
        (("--db", "sqlite://", "jobs"), 1, "in memory"),
        (
            ("--db", "\udcff.db", "run", "true"),
            2,
            "the URL of the database '\\udcff.db' is not UTF-8",
        ),
        (("logs", "--around", f"{'9' * 5000}:1"), 2, "does not name a line"),
        (("--db", "sqlite://", "run", "true"), 2, "in memory"),
    ],
)
def test_an_error_is_one_clear_message_and_an_exit_code(
    shell: Shell, words: tuple[str, ...], code: int, told: str
) -> None:
    """Nothing on stdout, what is wrong on stderr, never a traceback; 2 is usage, 3 is not found
    (R49).
    """
    done = shell.run(*words)
    assert done.returncode == code
    assert done.stdout == b""
    assert told in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.parametrize(
    ("words", "code", "following"),
    [
        (("show", "nope"), 3, "jobs"),
        (("logs", "--around", "1:1"), 3, "logs --last 20"),
        (("errors", "show", "zzz"), 3, "errors --all"),
        (("cancel", "{done}"), 1, "show {done}"),
    ],
)
def test_an_error_names_the_command_that_helps_for_the_same_database(
    shell: Shell, words: tuple[str, ...], code: int, following: str
) -> None:
    """What is typed next looks where the failed command looked, wherever `--db` stood (R49)."""
    done = shell.json("jobs", "--status", "completed")[0]["id"]
    shutil.copy(shell.directory / "structjob.db", shell.directory / "other.db")
    told = [word.format(done=done) for word in words]
    for line in (["--db", "other.db", *told], [*told, "--db", "other.db"]):
        ended = shell.run(*line)
        assert ended.returncode == code
        (hint,) = (line for line in ended.stderr.decode().splitlines() if line.startswith("next:"))
        wanted, _, shortened = f"next:  structjob --db other.db {following}".partition("{")
        assert hint.startswith(wanted)
        assert done.endswith(hint.removeprefix(wanted)) if shortened else hint == wanted


def test_a_server_that_does_not_answer_is_looked_at_by_doctor(tmp_path: Path) -> None:
    """faults 45: the next useful command has a word to replace where the password stood: never the
    password, and no stars (R49).
    """
    done = Shell(tmp_path).run("--db", "postgresql://ada:hunter2@127.0.0.1:1/x", "jobs")
    assert done.returncode == 1
    assert done.stderr.decode().endswith(
        "next:  structjob --db postgresql://ada:PASSWORD@127.0.0.1:1/x doctor\n"
    )


@pytest.mark.parametrize(
    "words", [("jobs",), ("show", "x"), ("logs",), ("verify",), ("logs", "-f")]
)
def test_a_database_that_is_not_there_is_not_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Reading where nothing is says so, names the next command, and creates nothing (R49)."""
    done = Shell(tmp_path).run(*words)
    assert done.returncode == 1
    assert b"there is no database ./structjob.db" in done.stderr
    assert b"next:" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_hint_leaves_out_what_the_environment_says(tmp_path: Path) -> None:
    """faults 45: where the environment names the same database, the command to type next needs no
    --db.
    """
    url = "postgresql://ada:hunter2@127.0.0.1:1/x"
    done = Shell(tmp_path).run("--db", url, "jobs", env=environment(STRUCTJOB_DATABASE_URL=url))
    assert done.stderr.decode().endswith("next:  structjob doctor\n")


def test_an_empty_database_suggests_to_run_a_program(tmp_path: Path) -> None:
    """faults 45: where nothing is recorded yet, the next command records something of one's own."""
    assert b"structjob run -- echo hello" in Shell(tmp_path).run("jobs").stderr
    structjob_db = f"sqlite:///{tmp_path / 'jobs.db'}"
    typed(structjob_db, "migrate")
    for command in ("jobs", "logs"):
        assert typed(structjob_db, command).endswith("run -- echo hello\n")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """Reading a database without structjob's tables does not put them there (R49)."""
    import sqlite3

    path = tmp_path / "theirs.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    done = Shell(tmp_path).run("--db", "theirs.db", "jobs")
    assert done.returncode == 1
    assert b"holds no jobs" in done.stderr
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """A file of something else ends in one line that names it (R49)."""
    (tmp_path / "notes.txt").write_text(
        "these are notes, and they are longer than a header of a database would be\n" * 30
    )
    done = Shell(tmp_path).run("--db", "notes.txt", "jobs")
    assert done.returncode == 1
    assert b"not an SQLite database" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_database_may_be_named_anywhere(shell: Shell, tmp_path: Path) -> None:
    """``--db`` works before and behind the command, as a URL or a path; the environment is asked
    without it (R49).
    """
    path = shell.directory / "structjob.db"
    elsewhere = Shell(tmp_path)
    expected = len(shell.json("jobs"))
    assert len(elsewhere.json("--db", f"sqlite:///{path}", "jobs")) == expected
    assert len(elsewhere.json("jobs", "--db", str(path))) == expected
    for name in ("STRUCTJOB_DATABASE_URL", "DATABASE_URL"):
        assert (
            len(
                json.loads(
                    elsewhere.ok("jobs", "--json", env=environment(**{name: f"sqlite:///{path}"}))
                )
            )
            == expected
        )


def test_reading_leaves_no_trace(shell: Shell) -> None:
    """A command that reads is no session of the database, and leaves no spool behind (R49)."""
    before = len(shell.json("verify")["sessions"])
    shell.ok("jobs")
    assert len(shell.json("verify")["sessions"]) == before
    assert list((shell.directory / "structjob.db.spool").iterdir()) == []


def test_a_closed_pipe_is_no_error(shell: Shell) -> None:
    """``structjob logs | head -1`` shows one line and no traceback (R49)."""
    line = f"{' '.join(COMMAND)} logs --last 5000 | head -1"
    shell.python(MANY, "sqlite:///many.db")
    env = environment(STRUCTJOB_DATABASE_URL="sqlite:///many.db")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=shell.directory,
        env=env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("jobs",), ("logs",), ("stats", "--json"), ("verify",), ("--help",)], ids=" ".join
)
def test_output_that_nobody_takes(shell: Shell, words: tuple[str, ...]) -> None:
    """If the reader of the output has gone, the exit code is 141, as a shell shows SIGPIPE. A full
    disk gives one line. A closed stdout is no error (R49).
    """
    command = [*COMMAND, *words]

    def run(**how: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            cwd=shell.directory,
            env=environment(),
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            **how,
        )

    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as unread, open("/dev/full", "wb") as full:
        gone, no_room = run(stdout=unread), run(stdout=full)
    assert (gone.returncode, gone.stderr) == (141, b"")
    assert no_room.returncode == 1
    assert no_room.stderr.splitlines() == [b"error: cannot write: No space left on device"]
    closed = run(preexec_fn=partial(os.close, 1))
    assert closed.returncode == 0
    assert b"Traceback" not in closed.stderr


@pytest.mark.slow
def test_colours_follow_the_terminal_and_the_environment(shell: Shell) -> None:
    """A terminal gets colours unless ``NO_COLOR`` is set, a pipe none unless ``FORCE_COLOR`` is
    (R49).
    """
    for words in (("jobs",), ("show", "gui-17"), ("logs",), ("verify",)):
        assert "\x1b[" in shell.in_a_terminal(*words)[1]
        assert "\x1b[" not in shell.in_a_terminal(*words, env=environment(NO_COLOR="1"))[1]
        assert "\x1b[" not in shell.ok(*words)
        assert "\x1b[" in shell.ok(*words, env=environment(FORCE_COLOR="1"))


def test_what_is_stored_cannot_steer_the_terminal(shell: Shell) -> None:
    """Escape sequences and newlines in names, messages and attributes are shown, not
    obeyed (R49).
    """
    evil = next(job for job in shell.json("jobs") if job["operation"].startswith("evil"))
    for words in (("jobs",), ("show", evil["id"]), ("logs", evil["id"])):
        shown = shell.ok(*words, env=environment(FORCE_COLOR="1"))
        assert "\x1b[2J" not in shown
        assert "\x1b]0;" not in shown
        assert "\\x1b[2J" in shown
    assert "[red]markup[/red]" in shell.ok("show", evil["id"])


def test_a_stream_cannot_steer_the_terminal(shell: Shell) -> None:
    """A control character in an event's stream is shown as text and not obeyed (R49)."""
    import sqlite3

    shutil.copy(shell.directory / "structjob.db", shell.directory / "odd.db")
    with closing(sqlite3.connect(shell.directory / "odd.db")) as connection, connection:
        connection.execute("UPDATE structjob_logs SET stream = ?", ("\x1b]0;title\x07",))
    shown = shell.ok("--db", "odd.db", "logs")
    assert "\x1b" not in shown
    assert "\\x1b]0;title\\x07" in shown


def test_an_ascii_terminal_gets_ascii_symbols(shell: Shell) -> None:
    """Where UTF-8 cannot be shown, symbols are letters and nothing fails (R49)."""
    shown = shell.ok("jobs", env=environment(PYTHONIOENCODING="ascii"))
    assert "+ completed" in shown
    assert "x failed" in shown


def test_the_help_of_each_command_fits_a_terminal_of_80_columns() -> None:
    """Examples and lists too: an explanation that does not fit continues below itself. Commands to
    copy stay on one line.
    """

    def helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
        ctx = command.context_class(command, info_name=name, terminal_width=80)
        yield name, command.get_help(ctx)
        if isinstance(command, click.Group):
            for one in command.list_commands(ctx):
                found = command.get_command(ctx, one)
                assert found is not None
                yield from helps(found, f"{name} {one}")

    found = list(helps(app.cli, "structjob"))
    assert len(found) > 25
    for name, text in found:
        long = [line for line in text.splitlines() if len(line) > 80]
        assert [line for line in long if not line.startswith("    structjob ")] == [], name
        assert not re.search(r"^  \w.*\.\.\.$", text, re.MULTILINE), name
