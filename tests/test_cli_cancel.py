"""``structjob cancel`` (R9, R49)."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Shell

PENDING = """
import asyncio, sys, structjob

async def main():
    async with structjob.Tracker(sys.argv[1]) as tracker:
        await tracker.create_job("later", job_id="j")

asyncio.run(main())
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.mark.slow
def test_a_program_under_run_is_cancelled(shell: Shell) -> None:
    """The program gets SIGTERM, its job is cancelled with the reason, and the command that asked
    sees it end, after how long and why (R9, R48, faults 50).
    """
    process = shell.start(
        "run", "--external-id", "gui-17", "--", "sh", "-c", "echo ready; exec sleep 60"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    said = shell.run("cancel", "gui-17", "--reason", "the disk is needed")
    assert (said.returncode, said.stdout) == (0, b"")
    assert re.match(rb"sh cancelled after \d+(\.\d+)?s: the disk is needed: sh was ", said.stderr)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM  # by the signal itself, as a bare start would end
    job = shell.json("show", "gui-17")["job"]
    assert job["status"] == "cancelled"
    assert (
        job["error"]["message"]
        == "the disk is needed: sh was ended by SIGTERM after SIGTERM was passed on to it"
    )


def test_what_became_of_it_as_json(shell: Shell) -> None:
    """A pending job is cancelled at once; ``--json`` says so for programs (R9, R49)."""
    shell.python(PENDING, "sqlite:///structjob.db")
    assert shell.json("cancel", "j") == {"id": "j", "operation": "later", "status": "cancelled"}


def test_names_do_nothing_to_the_terminal(shell: Shell) -> None:
    """Neither when a job is cancelled nor when verify names one (R9, R49)."""
    shell.python(
        PENDING.replace('"later", job_id="j"', '"la\\x1b[2Jter", job_id="j\\x1b[2J"'),
        "sqlite:///structjob.db",
    )
    assert (
        shell.run("cancel", "j\x1b[2J").stderr
        == b"la\\x1b[2Jter cancelled\nnext:  structjob show $'j\\U0000001b[2J'\n"
    )
    with (
        contextlib.closing(sqlite3.connect(shell.directory / "structjob.db")) as connection,
        connection,
    ):
        connection.execute("UPDATE structjob_jobs SET status = 'running'")
    said = shell.run("verify").stderr
    assert b"such as j\\x1b[2J" in said
    assert b"\x1b" not in said


def test_what_cannot_be_cancelled(shell: Shell) -> None:
    """A job that has ended is an error, one that is not there is not found (R9, R49)."""
    shell.sample()
    (job, *_) = shell.json("jobs", "--status", "completed")
    done = shell.run("cancel", job["id"])
    assert done.returncode == 1
    assert b"has already ended: completed" in done.stderr
    assert shell.run("cancel", "nobody").returncode == 3


JOBS = """
import asyncio, sys, structjob

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1]) as tracker:
        for number in range(6):
            async with tracker.job("nightly"):
                pass
        await tracker.create_job("nightly", job_id="n1")
        await tracker.create_job("nightly", job_id="n2")
        await tracker.create_job("once", job_id="o")

asyncio.run(main())
"""


def test_a_job_is_cancelled_and_deleted_by_its_name(shell: Shell) -> None:
    """R49: as every command takes it, if the name means one job; of several none is changed, and
    the message lists them.
    """
    shell.python(JOBS, "sqlite:///structjob.db")
    refused = shell.run("cancel", "nightly")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert (
        b"'nightly' is the operation of several jobs: n2 (pending), n1 (pending); write the id"
        in refused.stderr
    )
    shell.ok("cancel", "n2")
    shell.ok("cancel", "nightly")  # the only one that has not ended
    assert {one["status"] for one in shell.json("jobs", "--operation", "nightly")} == {
        "completed",
        "cancelled",
    }
    assert b"has already ended" in shell.run("cancel", "nightly").stderr
    refused = shell.run("delete", "nightly", "--yes")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"n2 (cancelled), n1 (cancelled), " in refused.stderr
    assert b", \xe2\x80\xa6; write the id of the one you mean" in refused.stderr
    assert len(shell.json("jobs", "--operation", "nightly")) == 8
    shell.ok("cancel", "once")
    shell.ok("delete", "once", "--yes")
    assert shell.json("jobs", "--operation", "once") == []


def test_show_tells_what_is_missing(shell: Shell) -> None:
    """``structjob show`` says how many lines of the job were given up, and why (R28, R49)."""
    shell.sample()
    (job, *_) = shell.json("jobs", "--status", "completed")
    with contextlib.closing(
        sqlite3.connect(shell.directory / "structjob.db", isolation_level=None)
    ) as connection:
        for first, last, jobs in (
            (9001, 9010, {job["id"]: 7, "another": 3}),
            (9021, 9030, {job["id"]: 10}),
            (9041, 9050, None),
        ):
            connection.execute(
                "INSERT INTO structjob_gaps (session_id, first_seq, last_seq, reason, jobs) VALUES (1, ?, ?, 'spool_full', ?)",
                (first, last, jobs and json.dumps(jobs)),
            )
    assert "missing     17 lines (spool_full)" in shell.ok("show", job["id"])
    assert shell.json("show", job["id"])["missing"] == {"spool_full": 17}
