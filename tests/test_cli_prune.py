"""``structjob prune`` (R41, R49)."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from cli_support import Shell

from structjob.cli import prune
from structjob.models import PruneResult


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A directory with the sample in its ./structjob.db, of which nothing is deleted."""
    shell = Shell(tmp_path_factory.mktemp("prune"))
    shell.sample()
    return shell


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Nothing selected: give an age, such as --older-than 30d"),
        (
            ("--older-than", "0s"),
            "without confirmation (not a terminal)\nnext:  add --yes, or preview with --dry-run",
        ),
        (("--older-than", "30", "--yes"), "'30' is not an age: write 12h, 30d, 2w, 6mo or 1y"),
        (
            ("--older-than", "6m", "--yes"),
            "'6m' could mean months or minutes: write mo for months, min for minutes",
        ),
        (("--level", "debug=1h30m", "--yes"), "'1h30m' could mean months or minutes"),
        (("--level", "debug", "--yes"), "'debug' has no age: write debug=30d, or =forever"),
        (
            ("--level", "loud=1d", "--yes"),
            "no level 'loud' that could be kept for a time; use one of debug, info",
        ),
        (("--status", "running=0s", "--yes"), "no status 'running'"),
        (("--status", "failed=forever", "--yes"), "keeps everything for ever"),
        (("--older-than", "0s", "--archive", "structjob.db", "--yes"), "is a file"),
    ],
)
def test_what_makes_no_sense_deletes_nothing(
    sample: Shell, words: tuple[str, ...], said: str
) -> None:
    """The message says what is wrong and what to type, with exit code 2, and everything is there
    (R41, R49).
    """
    before = (sample.directory / "structjob.db").read_bytes()
    done = sample.run("prune", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()
    assert (sample.directory / "structjob.db").read_bytes() == before


def test_a_dry_run_says_what_would_go(sample: Shell) -> None:
    """For people in words, for programs as JSON; nothing is deleted (R41, R49)."""
    said = sample.run(
        "prune", "--older-than", "0s", "--status", "failed=forever", "--dry-run"
    ).stderr.decode()
    assert re.fullmatch(
        r"4 jobs, 5 attempts, 1 step and 23 lines would be deleted from \./structjob\.db: "
        r"what ended before \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+, failed jobs are kept\n",
        said,
    )
    found = sample.json("prune", "--level", "warning=0s", "--dry-run")
    assert (found["dry_run"], found["events"], found["jobs"]) == (True, 1, 0)
    nothing = sample.run("prune", "--older-than", "1d", "--dry-run").stderr.decode()
    assert "nothing to delete in ./structjob.db: what ended before 20" in nothing
    assert len(sample.json("jobs")) == 5


def test_it_is_archived_deleted_and_taken_back(live: Shell) -> None:
    """With --yes it is done, and told; the archive can be imported, and `verify` is content
    throughout (R41, R49).
    """
    live.sample()
    done = live.run("prune", "--older-than", "0s", "--archive", "old", "--yes", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["jobs"], found["attempts"], found["steps"], found["events"]) == (5, 6, 2, 28)
    said = done.stderr.decode()
    assert "deleted 5 jobs, 6 attempts, 2 steps and 28 lines from ./structjob.db" in said
    assert all(
        f"archived in {path}" in said and Path(path).parent == live.directory / "old"
        for path in found["archived"]
    )
    assert live.json("jobs") == []
    assert "0 lines are stored in 2 sessions, 28 were pruned" in live.run("verify").stderr.decode()
    for path in found["archived"]:
        live.ok("import", path)
    assert len(live.json("jobs")) == 5
    assert live.json("verify")["ok"]


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 130, 5), (b"y\n", 0, 1)])
def test_it_asks_on_a_terminal(live: Shell, answer: bytes, code: int, left: int) -> None:
    """It says how much would go, and does it if the answer is yes (R41, R49)."""
    live.sample()
    process = live.start_in_a_terminal("prune", "--older-than", "0s", "--status", "failed=forever")
    shown, _ = process.communicate(answer, timeout=60)
    assert (
        b"This deletes 4 jobs, 5 attempts, 1 step and 23 lines from ./structjob.db: what ended before 20"
        in shown
    )
    assert b" failed jobs are kept. Go on?" in shown
    assert process.returncode == code
    assert len(live.json("jobs")) == left


def test_a_terminal_sees_what_was_deleted_so_far(live: Shell) -> None:
    """A prune of minutes showed nothing. In a pipe it still says only what it did."""
    live.sample()
    code, shown = live.in_a_terminal("prune", "--older-than", "0s", "--yes")
    assert code == 0
    assert re.search(r"deleted \d\d rows in [\d.]+m?s …", shown), shown


def test_a_pipe_sees_only_what_was_deleted(live: Shell) -> None:
    """No line of progress: scripts read the last one."""
    live.sample()
    done = live.run("prune", "--older-than", "0s", "--yes")
    assert done.stderr.decode().count("\n") == 1
    assert done.stderr.decode().startswith("deleted 5 jobs, ")


def test_the_time_left_follows_from_the_speed() -> None:
    """It is shown only if it is known how much is due, and after enough of it."""
    shown: list[str] = []
    progress = prune.shown_progress(PruneResult(events=1_000), shown.append)
    with pytest.MonkeyPatch.context() as patch:
        began = time.monotonic()
        patch.setattr(prune.time, "monotonic", lambda: began)
        progress(PruneResult())
        patch.setattr(prune.time, "monotonic", lambda: began + 10)
        for events in (10, 250, 1_000, 1_200):
            progress(PruneResult(events=events))
        prune.shown_progress(None, shown.append)(PruneResult(jobs=3, steps=4))
    assert shown == [
        "deleted 0 of 1,000 rows in <1ms",
        "deleted 10 of 1,000 rows in 10.0s",
        "deleted 250 of 1,000 rows in 10.0s, about 30.0s left",
        "deleted 1,000 of 1,000 rows in 10.0s",
        "deleted 1,200 rows in 10.0s",
        "deleted 7 rows in <1ms",
    ]
