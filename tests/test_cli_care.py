"""``structjob verify`` and ``structjob migrate``: proof that nothing is lost, and tables that fit
(R6, R28, R49).
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from cli_support import Shell, environment

TABLES = (
    "SELECT count(*) FROM sqlite_master WHERE name LIKE 'structjob_%' AND type IN ('table', 'view')"
)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """An empty directory."""
    return Shell(tmp_path)


def execute(shell: Shell, statement: str) -> list[tuple[object, ...]]:
    """Run a statement on the database, behind structjob's back."""
    with closing(sqlite3.connect(shell.directory / "structjob.db")) as connection:
        found = connection.execute(statement).fetchall()
        connection.commit()
        return found


def test_verify_says_complete(shell: Shell) -> None:
    """Each session is shown with what it gave out and what is stored; nothing missing is exit code
    0 (R28, R49).
    """
    shell.sample()
    done = shell.run("verify")
    assert done.returncode == 0
    assert "✓ complete" in done.stdout.decode()
    assert "sample" in done.stdout.decode()
    assert "every line is accounted for" in done.stderr.decode()
    verified = shell.json("verify")
    assert (verified["ok"], verified["missing"]) == (True, 0)
    assert verified["sessions"][0]["stored"] == verified["sessions"][0]["last_seq"]


def test_verify_finds_what_was_lost(shell: Shell) -> None:
    """A line that is gone without an explanation is named by its number, and the exit code is 1, as
    JSON too (R28, R49).
    """
    shell.sample()
    execute(shell, "DELETE FROM structjob_logs WHERE seq IN (3, 4, 7)")
    done = shell.run("verify")
    assert done.returncode == 1
    assert "✗ incomplete" in done.stdout.decode()
    assert "missing numbers 3–4, 7" in done.stderr.decode()
    assert "3 lines are missing" in done.stderr.decode()
    as_json = shell.run("verify", "--json")
    assert as_json.returncode == 1
    found = json.loads(as_json.stdout)
    assert (found["missing"], found["sessions"][0]["holes"]) == (3, [[3, 4], [7, 7]])


def test_verify_says_which_lines_were_dropped_and_why(shell: Shell) -> None:
    """Lines with a recorded reason are no success to be silent about: their number and the reason
    are shown (R11, R28).
    """
    shell.sample()
    execute(shell, "DELETE FROM structjob_logs WHERE seq IN (3, 4)")
    execute(shell, "UPDATE structjob_sessions SET confirmed = confirmed - 2")
    execute(
        shell,
        "INSERT INTO structjob_gaps (session_id, first_seq, last_seq, reason) "
        "SELECT session_id, 3, 4, 'disk_refused' FROM structjob_sessions",
    )
    done = shell.run("verify")
    assert done.returncode == 0, done.stderr
    assert "2 lines are not stored (disk_refused 2)" in done.stderr.decode()


KILLED = """
import asyncio, os, signal, sys, structlog, structjob
async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1], flush_interval=1.0):
        structlog.get_logger().info("on its way")
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_verify_proves_nothing_of_what_is_not_delivered(shell: Shell) -> None:
    """Lines of a dead program in a spool that cannot be delivered are reported, and are no proof of
    completeness (R11, R28, R49).
    """
    with pytest.raises(subprocess.CalledProcessError):
        shell.python(KILLED, "sqlite:///structjob.db")
    (spool,) = (
        path for path in (shell.directory / "structjob.db.spool").iterdir() if path.name.isdigit()
    )
    elsewhere = spool.rename(shell.directory / "elsewhere")
    spool.symlink_to(elsewhere)  # and links are not followed: another user may have put one there
    done = shell.run("verify")
    assert done.returncode == 1
    assert "? undelivered" in done.stdout.decode()
    assert (
        "of 1 program that ended wait in the spool and cannot be stored now: whether they are complete is unknown"
        in done.stderr.decode()
    )
    assert "spool was not found" not in done.stderr.decode()  # it was: see "undelivered"
    as_json = json.loads(shell.run("verify", "--json").stdout)
    assert (as_json["ok"], as_json["undelivered"]) == (False, [int(spool.name)])
    spool.unlink()
    elsewhere.rename(spool)
    assert (
        shell.json("verify")["ok"],
        shell.ok("logs", "--grep", "on its way").count("on its way"),
    ) == (True, 1)


def test_verify_does_not_call_complete_what_nobody_knows(shell: Shell) -> None:
    """If the spool of a program was not seen, it says that there may be more events (R11, R28)."""
    shell.sample()
    with closing(sqlite3.connect(shell.directory / "structjob.db")) as connection:
        connection.execute("UPDATE structjob_sessions SET end_reason = 'lease_expired'")
        connection.commit()
    done = shell.run("verify")
    assert done.returncode == 1
    assert "? unknown tail" in done.stdout.decode()
    assert "every known line is accounted for" in done.stderr.decode()
    assert "1 session: the process has ended and its spool was not found" in done.stderr.decode()
    as_json = shell.run("verify", "--json")
    assert (json.loads(as_json.stdout)["ok"], as_json.returncode) == (False, 1)


def test_what_was_given_up_on_purpose_is_not_missing(shell: Shell) -> None:
    """A number that structjob_gaps explains is no loss (R28)."""
    shell.sample()
    gap = "INSERT INTO structjob_gaps (session_id, first_seq, last_seq, reason)"
    execute(shell, f"{gap} SELECT session_id, 3, 3, 'pruned' FROM structjob_sessions")
    execute(shell, "DELETE FROM structjob_logs WHERE seq = 3")
    verified = shell.json("verify")
    assert (verified["missing"], verified["sessions"][0]["explained"]) == (0, 1)


def test_migrate_creates_the_tables_and_says_so(shell: Shell) -> None:
    """On a new file the tables are made, with rights for their owner alone; a second time there is
    nothing to do (R6, R49).
    """
    done = shell.run("migrate")
    assert done.returncode == 0
    assert "./structjob.db: tables created, revision 0001" in done.stderr.decode()
    assert (shell.directory / "structjob.db").stat().st_mode & 0o077 == 0
    assert execute(shell, TABLES)[0][0]
    assert shell.json("migrate") == {
        "database": "./structjob.db",
        "before": "0001",
        "after": "0001",
        "changed": False,
    }
    assert "nothing to do" in shell.run("migrate").stderr.decode()
    assert shell.ok("jobs") == ""


def test_migrate_down_asks_first(shell: Shell) -> None:
    """Dropping the tables needs a yes, typed or as ``--yes`` (R6, R49)."""
    shell.sample()
    refused = shell.run("migrate", "--down", "base")
    assert refused.returncode == 2
    assert "with everything in them" in refused.stderr.decode()
    assert len(shell.json("jobs")) > 0
    assert "tables dropped" in shell.run("migrate", "--down", "base", "--yes").stderr.decode()
    assert execute(shell, TABLES) == [(0,)]
    assert "nothing to do" in shell.run("migrate", "--down", "base", "--yes").stderr.decode()


def test_migrate_down_makes_no_database(shell: Shell) -> None:
    """There is nothing to take back where nothing is, and nothing is made (R49)."""
    done = shell.run("migrate", "--down", "base", "--yes")
    assert done.returncode == 1
    assert list(shell.directory.iterdir()) == []


@pytest.mark.parametrize("dialect", ["sqlite", "mysql", "postgresql"])
def test_migrate_prints_the_sql(shell: Shell, dialect: str) -> None:
    """``--sql`` prints the script for a DBA, up and down, and touches nothing (R6, R49)."""
    up = shell.ok("migrate", "--sql", "--dialect", dialect)
    assert "CREATE TABLE structjob_jobs" in up
    assert shell.ok("migrate", "--sql", "up", "--dialect", dialect) == up
    assert "DROP TABLE structjob_jobs" in shell.ok("migrate", "--sql", "down", "--dialect", dialect)
    assert list(shell.directory.iterdir()) == []


def test_the_printed_sql_makes_the_same_tables(shell: Shell) -> None:
    """A database made by hand from the printed SQL is one that structjob works with (R6)."""
    with closing(
        sqlite3.connect(shell.directory / "structjob.db", isolation_level=None)
    ) as connection:
        connection.executescript(shell.ok("migrate", "--sql"))
    assert shell.json("migrate")["changed"] is False
    shell.ok("run", "--", "true")
    assert shell.json("jobs")[0]["status"] == "completed"


ELSEWHERE = """
import asyncio, os, signal, sys, structlog, structjob
async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1], spool="elsewhere") as tracker:
        await tracker.flush()
        structlog.get_logger().info("on its way")
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["option", "environment"])
def test_verify_delivers_from_the_spool_that_is_named(shell: Shell, how: str) -> None:
    """faults 0.1: a killed program is not live, however fresh its heartbeat; its spool in another
    place is looked at when it is named, and the message says which places were looked at.
    """
    with pytest.raises(subprocess.CalledProcessError):
        shell.python(ELSEWHERE, "sqlite:///structjob.db")
    done = shell.run("verify")
    assert done.returncode == 1
    assert "? unknown tail" in done.stdout.decode()
    assert (
        f"spool directories searched: {shell.directory}/structjob.db.spool\n"
        in done.stderr.decode()
    )
    assert "an unknown tail: there may be lines that are not stored" in done.stderr.decode()
    words, env = (
        (("--spool", "elsewhere"), None)
        if how == "option"
        else ((), environment(STRUCTJOB_SPOOL="elsewhere"))
    )
    done = shell.run("verify", *words, env=env)
    assert done.returncode == 0, done.stderr.decode()
    assert "✓ complete" in done.stdout.decode()
    usual = "structjob.db.spool" if how == "option" else "elsewhere/sqlite-structjob-[0-9a-f]{8}"
    assert re.search(
        f"spool directories searched: {shell.directory}/{usual}, {shell.directory}/elsewhere\n",
        done.stderr.decode(),
    )


def test_verify_proves_nothing_with_a_directory_that_does_not_exist(shell: Shell) -> None:
    """A mistyped spool directory is wrong usage. It was said to be searched, and all was well."""
    shell.sample()
    done = shell.run("verify", "--spool", "elsewhere")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "Directory 'elsewhere' does not exist." in done.stderr.decode()
    assert not (shell.directory / "elsewhere").exists()


def test_verify_says_that_the_directory_of_the_environment_does_not_exist(shell: Shell) -> None:
    """The variable may name a directory that the first tracker makes, as for `doctor`."""
    shell.sample()
    done = shell.run("verify", env=environment(STRUCTJOB_SPOOL="elsewhere"))
    assert done.returncode == 0
    assert f", {shell.directory}/elsewhere (does not exist)\n" in done.stderr.decode()
    assert not (shell.directory / "elsewhere").exists()


def test_a_named_file_that_does_not_exist_is_named(shell: Shell) -> None:
    """An import does not begin if its map of ids has nowhere to go; a file of tokens that is not
    there is not a file without tokens.
    """
    shell.sample()
    path = str(shell.directory / "job.jsonl")
    shell.ok("export", "gui-17", "-o", path)
    done = shell.run("import", path, "--new-ids", "--map", "nowhere/map.json")
    assert done.returncode == 2
    assert f"there is no directory {shell.directory}/nowhere" in done.stderr.decode()
    assert len(shell.json("jobs", "--operation", "vm-migrate")) == 1
    done = shell.run("token", "list", "--token-file", "nowhere.json")
    assert (done.returncode, done.stderr.decode()) == (
        1,
        "error: there is no file nowhere.json\nnext:  structjob token create --token-file nowhere.json\n",
    )
    assert shell.run("token", "list").returncode == 0


def test_the_exit_code_of_verify_says_what_ok_says(shell: Shell) -> None:
    """faults 0.1: exit code 1 exactly where ``ok`` is false: also for a job marked running whose
    program has ended.
    """
    shell.sample()
    assert shell.json("verify")["ok"]
    execute(shell, "UPDATE structjob_jobs SET status = 'running' WHERE id = 'import-17'")
    done = shell.run("verify", "--json")
    assert (json.loads(done.stdout)["ok"], done.returncode) == (False, 1)
    done = shell.run("verify")
    assert done.returncode == 1
    assert "no line is missing, but some rows contradict each other" in done.stderr.decode()
