"""``structjob demo``: the first thing one sees (R12, R17, R33, R49)."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from cli_support import Shell, environment

from structjob.cli.screen import command_line

OWN = ("--db", "structjob-demo.db")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A directory in which the demo has run once; what it printed is in the file ``printed``."""
    shell = Shell(tmp_path_factory.mktemp("demo"))
    (shell.directory / "printed").write_text(shell.ok("demo", "--once"))
    return shell


@pytest.fixture
def printed(shell: Shell) -> str:
    """What the demo printed."""
    return (shell.directory / "printed").read_text()


def test_it_names_its_database_first_and_ends_with_what_was_measured(printed: str) -> None:
    """The database is named at the start; at the end stand lines/s, dropped (0) and flush time,
    measured (R49).
    """
    assert printed.splitlines()[0].split() == ["database", "./structjob-demo.db"]
    assert re.search(r"^dropped +0$", printed, re.MULTILINE)
    assert re.search(r"^flush +[\d.]+ ms", printed, re.MULTILINE)
    assert re.search(
        r"^speed +[\d,]{5,} lines/s logged, [\d,]{4,} lines/s stored", printed, re.MULTILINE
    )
    counted = re.search(
        r"^lines +([\d,]+) logged, ([\d,]+) stored, 0 missing$", printed, re.MULTILINE
    )
    assert counted is not None
    assert counted[1] == counted[2]
    assert int(counted[1].replace(",", "")) > 250


def test_the_environments_database_is_left_alone(tmp_path: Path) -> None:
    """faults 45: the demo writes to a file of its own, whatever database the environment names."""
    shell = Shell(tmp_path)
    shell.ok(
        "demo",
        "--once",
        env=environment(
            DATABASE_URL="sqlite:///production.db", STRUCTJOB_DATABASE_URL="sqlite:///production.db"
        ),
    )
    assert [path.name for path in tmp_path.glob("*.db")] == ["structjob-demo.db"]


def test_what_it_says_to_type_next_works(shell: Shell, printed: str) -> None:
    """Each command at the end runs as it stands, with real ids (R49)."""
    *commands, serve = re.findall(r"^  structjob (.+?)   ?\S.*$", printed, re.MULTILINE)
    assert len(commands) == 5
    # a server does not end
    assert serve.split()[2:] == ["serve", "--open"]
    for command in commands:
        assert shell.ok(*command.split()), command


def test_it_did_real_work(shell: Shell) -> None:
    """One child job for each part, in parallel; all but the damaged part were moved (R1, R8)."""
    jobs = shell.json(*OWN, "jobs")
    root = next(job for job in jobs if job["parent_job_id"] is None)
    children = [job for job in jobs if job["parent_job_id"] == root["id"]]
    assert (root["operation"], root["status"], root["job_type"]) == (
        "migrate-tree",
        "completed",
        "migration",
    )
    assert sorted(job["description"] for job in children) == [
        f"copy {part}" for part in ("accounts", "documents", "invoices", "mail", "photos", "scans")
    ]
    assert len({job["started_at"][:19] for job in children}) <= 2
    assert root["result"]["files"] == 120
    assert root["result"]["failed_parts"] == ["scans"]


def test_one_part_is_retried(shell: Shell) -> None:
    """The first try is a step ``attempt-1`` that is retrying, with the numbers of a retry; the
    second succeeds (R12).
    """
    part = next(job for job in shell.json(*OWN, "jobs") if job["description"] == "copy documents")
    steps = {step["name"]: step for step in shell.json(*OWN, "show", part["id"])["steps"]}
    assert {name: step["status"] for name, step in steps.items()} == {
        "copy": "completed",
        "attempt-1": "retrying",
        "attempt-2": "completed",
        "verify": "completed",
    }
    assert steps["attempt-1"]["metadata"]["attempt_number"] == 1
    assert steps["attempt-1"]["metadata"]["max_attempts"] == 3
    assert steps["attempt-1"]["error"]["type"] == "VolumeTimeout"
    assert part["status"] == "completed"


def test_one_part_fails_each_time_and_the_demo_goes_on(shell: Shell, printed: str) -> None:
    """A copy that was damaged fails its part by its checksum; the exit code stays 0, and the last
    line says why (R9, R49).
    """
    failed = shell.json(*OWN, "jobs", "--status", "failed")
    assert [(job["description"], job["error"]["type"]) for job in failed] == [
        ("copy scans", "ChecksumMismatch")
    ]
    assert "Exit code 0" in printed.splitlines()[-1]


def test_secrets_are_visibly_redacted(shell: Shell, printed: str) -> None:
    """The mark stands where a password was, on the screen and in every row of the
    database (R33).
    """
    assert "postgresql://mover:[redacted]@catalog.internal/files" in printed
    assert "api_key=[redacted]" in printed
    with closing(sqlite3.connect(shell.directory / "structjob-demo.db")) as connection:
        everything = "\n".join(connection.iterdump())
    assert "hunter2" not in everything
    assert "sk-demo" not in everything


def test_nothing_is_left_behind(shell: Shell) -> None:
    """The files were in a temporary directory that is gone; here are the database and its empty
    spool (R49).
    """
    assert sorted(path.name for path in shell.directory.iterdir()) == [
        "printed",
        "structjob-demo.db",
        "structjob-demo.db.spool",
    ]
    root = next(job for job in shell.json(*OWN, "jobs") if job["parent_job_id"] is None)
    assert not Path(root["metadata"]["source"]).exists()
    assert shell.json(*OWN, "verify")["ok"]


@pytest.mark.slow
def test_a_directory_of_ones_own_is_only_read(tmp_path: Path) -> None:
    """``--source`` moves a copy of the files there, and leaves them as they are; another database
    is named in what to type (R49).
    """
    source = tmp_path / "mine"
    for name in ("one/a.txt", "one/b.txt", "two/c.txt", "d.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name * 100)
    before = {
        path: hashlib.sha256(path.read_bytes()).digest()
        for path in source.rglob("*")
        if path.is_file()
    }
    shell = Shell(tmp_path)
    printed = shell.ok("--db", "other.db", "demo", "--once", "--source", "mine")
    assert {
        path: hashlib.sha256(path.read_bytes()).digest()
        for path in source.rglob("*")
        if path.is_file()
    } == before
    assert "structjob --db other.db show" in printed
    assert (
        next(job for job in shell.json("--db", "other.db", "jobs", "--roots"))["result"]["files"]
        == 4
    )


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    """Nothing to move is said so, and nothing is made (R49)."""
    (tmp_path / "empty").mkdir()
    done = Shell(tmp_path).run("demo", "--source", "empty")
    assert done.returncode == 1
    assert b"holds no files" in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".db"]


@pytest.mark.slow
def test_bars_and_lines_share_a_terminal(tmp_path: Path) -> None:
    """On a terminal bars move below the log, no line is torn, and it ends within ten seconds (R17,
    R49).
    """
    began = time.monotonic()
    code, shown = Shell(tmp_path).in_a_terminal("demo", env=environment(COLUMNS="120", LINES="40"))
    assert code == 0
    assert time.monotonic() - began < 30  # ten, on a machine that is not busy with other tests
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "━" in plain
    assert "retry" in plain
    for line in re.split(r"[\r\n]+", plain):
        if "success" in line:
            assert re.fullmatch(
                r"\d\d:\d\d:\d\d\.\d{3} success  part moved +part=\w+ files=\d+ *", line
            ), line
    assert plain.count("part moved") == 5


def test_json_says_what_was_measured(tmp_path: Path) -> None:
    """--json: one document on stdout, what is shown meanwhile on stderr (R49)."""
    done = Shell(tmp_path).run("demo", "--once", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["moved"]["failed"] == ["scans"]
    assert (
        told["ledger"]["accepted"] == told["ledger"]["stored"] == told["verified"]["stored"] > 100
    )
    assert told["verified"]["holes"] == []
    assert told["speed"]["lost"] == 0 < told["speed"]["lines"]
    assert done.stderr.decode().startswith("database  ./structjob-demo.db\n")


def test_a_loss_is_a_failure() -> None:
    """Should lines not reach the database, the demo says how many and fails (R28)."""
    from structjob.cli.demo.command import lost
    from structjob.cli.demo.measure import Speed
    from structjob.models import Ledger
    from structjob.queries.verify import SessionState, SessionVerification

    checked = SessionVerification(
        session_id=1,
        status=SessionState.LIVE,
        last_seq=10,
        stored=10,
        explained=0,
        holes=(),
        duplicates=0,
    )

    def ledger(stored=10, **counts):
        return Ledger(accepted=10, stored=stored, spilled=0, in_memory=0, **counts)

    assert lost(ledger(), checked, Speed(5, 1.0, 1.0, 0)) == 0
    assert lost(ledger(stored=8, dropped={"disk_full": 2}), checked, Speed(5, 1.0, 1.0, 0)) == 2
    assert lost(ledger(rejected=3), checked, Speed(5, 1.0, 1.0, 1)) == 4


def test_what_to_type_next_is_found_by_the_shell(monkeypatch):
    """Called by its path, as the README does it, the command suggests itself by that path; found by
    name, by its name (R49, R51).
    """
    monkeypatch.setattr("sys.argv", [".venv/bin/structjob", "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_line("jobs") == ".venv/bin/structjob jobs"
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert command_line("jobs") == "structjob jobs"
