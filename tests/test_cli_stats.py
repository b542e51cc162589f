"""``structjob stats`` and ``structjob errors``: what one asks of many jobs at once (R38, R39, R40,
R49).
"""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_support import SAMPLE, Shell, typed
from click.testing import CliRunner

from structjob.cli.app import cli
from structjob.cli.stats import percentage
from structjob.text.amounts import in_bytes


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A directory with the sample in its ./structjob.db."""
    shell = Shell(tmp_path_factory.mktemp("stats"))
    shell.sample()
    return shell


def test_stats_are_of_operations_by_default(shell: Shell) -> None:
    """Counts, success rate and percentiles of each operation, aligned, and the command that shows
    what failed (R38, R49).
    """
    done = shell.run("stats")
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == [
        "TOTAL",
        "COMPLETED",
        "FAILED",
        "CRASHED",
        "SUCCESS",
        "AVG",
        "P50",
        "P95",
        "P99",
        "OPERATION",
    ]
    (nightly,) = [line for line in lines if line.endswith("nightly")]
    assert nightly.split() == ["1", "0", "1", "0", "0.0%", "nightly"]
    assert (
        len({line.index(word) for line, word in ((lines[0], "OPERATION"), (nightly, "nightly"))})
        == 1
    )
    assert done.stderr.decode() == "next:  structjob jobs --status failed --operation nightly\n"
    assert "evil\\x1b[2Jname" in done.stdout.decode()
    assert b"\x1b" not in done.stdout


def test_the_next_command_is_no_escape_sequence(shell: Shell) -> None:
    """A name that holds one is shown as a shell takes it, and a terminal does not obey it (R49)."""
    done = shell.run("stats", "--operation", "evil\x1b[2Jname")
    assert (
        done.stderr.decode()
        == "next:  structjob stats steps --operation $'evil\\U0000001b[2Jname'\n"
    )


def test_stats_as_json(shell: Shell) -> None:
    """``--json`` has every figure of each group; a window without any is an empty array
    (R38, R49).
    """
    (one,) = shell.json("stats", "--operation", "vm-migrate", "--project", "moon", "--since", "1h")
    assert (one["operation"], one["total"], one["completed"], one["success_rate"]) == (
        "vm-migrate",
        1,
        1,
        100.0,
    )
    assert 0 < one["p50_ms"] == one["p99_ms"]
    assert shell.json("stats", "--until", "2020-01-01") == []
    # faults 26: a window is about what ended in it, unless --by says otherwise.
    assert shell.json("stats", "--since", "1h") == shell.json(
        "stats", "--since", "1h", "--by", "ended"
    )
    assert (
        "nothing to count with --by created --until 2020-01-01"
        in shell.run("stats", "--by", "created", "--until", "2020-01-01").stderr.decode()
    )
    assert "does not take --by" in shell.run("stats", "errors", "--by", "ended").stderr.decode()
    (step,) = shell.json("stats", "steps", "--operation", "nightly")
    assert (step["step"], step["failed"], step["p50_ms"]) == ("load", 1, None)
    assert {one["project"]: one["total"] for one in shell.json("stats", "projects")} == {
        None: 3,
        "moon": 2,
    }


def test_throughput_begins_at_a_round_time(shell: Shell) -> None:
    """By default 24 hours by the hour, each stretch from one full hour to the next; all jobs are in
    one of them (R38, R49).
    """
    found = shell.json("stats", "throughput")
    assert len(found) == 25
    starts = [datetime.fromisoformat(one["start"]) for one in found]
    assert all((start.minute, start.second, start.microsecond) == (0, 0, 0) for start in starts)
    assert sum(one["total"] for one in found) == 5
    asked = [
        datetime.fromisoformat(one["start"])
        for one in shell.json("stats", "throughput", "--since", "30m", "--bucket", "10m")
    ]
    assert all(start.minute % 10 == start.second == start.microsecond == 0 for start in asked)
    assert timedelta(minutes=30) <= datetime.now(UTC) - asked[0] < timedelta(minutes=42)


def test_jobs_volume_and_storage(shell: Shell) -> None:
    """Error rate by job, lines by type, level and category, bytes by table; each as a table with
    its sum (R40, R49).
    """
    done = shell.run("stats", "errors-by-job")
    (line,) = done.stdout.decode().splitlines()[1:]
    assert line.split()[2:] == ["40.0%", line.split()[3], "failed", "nightly"]
    assert done.stderr.decode() == f"next:  structjob logs {line.split()[3]} -l error\n"
    lines = shell.ok("stats", "volume").splitlines()
    assert lines[-1].split() == ["28", "in", "all"]
    assert sum(int(line.split()[0]) for line in lines if " level " in line) == 28
    found = shell.json("stats", "storage")
    assert {one["table"]: one["rows"] for one in found["tables"]}["structjob_logs"] == 28
    assert shell.ok("stats", "storage").splitlines()[-1].endswith("in all")


def test_nothing_to_count_says_why(shell: Shell, tmp_path: Path) -> None:
    """Which filter left nothing; exit code 0. A database that is not there is a failure (R49)."""
    done = shell.run("stats", "--operation", "it's")
    assert (done.returncode, done.stdout) == (0, b"")
    assert (
        done.stderr.decode()
        == "nothing to count with --operation 'it'\"'\"'s'\nnext:  structjob stats operations\n"
    )
    assert Shell(tmp_path).run("stats").returncode == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("stats", "storage", "--owner", "ada"), "stats storage does not take --owner"),
        (("stats", "weather"), "weather"),
        (("stats", "throughput", "--bucket", "often"), "'often' is not a duration"),
        (("stats", "throughput", "--bucket", "0s"), "bucket must be at least 1 second"),
        (("stats", "--since", "1h", "--until", "2h"), "is after until"),
    ],
)
def test_misuse_is_exit_code_2(shell: Shell, words: tuple[str, ...], says: str) -> None:
    """What is wrong is named (R49)."""
    done = shell.run(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr.decode()


def test_a_rate_is_not_rounded_to_all_or_nothing() -> None:
    """One failure in ten thousand is not 100 % success (R38)."""
    assert [percentage(value) for value in (0.0, 0.01, 50, 99.94, 99.99, 100.0)] == [
        "0.0%",
        "<0.1%",
        "50.0%",
        "99.9%",
        ">99.9%",
        "100.0%",
    ]
    assert [in_bytes(value) for value in (None, 0, 998, 1000, 999_960, 12_345_678)] == [
        "?",
        "0 B",
        "998 B",
        "1.0 kB",
        "1.0 MB",
        "12.3 MB",
    ]


# -- errors
# --------------------------------------------------------------------------


def test_errors_are_listed_shown_resolved_and_reopened(tmp_path: Path) -> None:
    """Each error once, then all about one, then that it is dealt with; each with the next useful
    command (R39, R49).
    """
    shell = Shell(tmp_path)
    shell.python(SAMPLE, "sqlite:///structjob.db")
    shell.python(SAMPLE, "sqlite:///structjob.db")
    done = shell.run("errors")
    heading, line = done.stdout.decode().splitlines()
    assert heading.split() == [
        "ID",
        "STATUS",
        "OUTCOME",
        "COUNT",
        "JOBS",
        "FIRST",
        "SEEN",
        "LAST",
        "SEEN",
        "WHERE",
        "ERROR",
    ]
    id_ = line.split()[0]
    assert line.split()[1:5] == ["open", "final", "2", "2"]
    assert line.endswith("nightly › load  ValueError: the source is empty")
    assert done.stderr.decode() == f"next:  structjob errors show {id_[:8]}\n"
    assert [one["fingerprint"] for one in shell.json("errors", "--final")] == [id_]  # faults 25
    shown = shell.ok("errors", "show", id_[:5])
    assert "2 times, in 2 jobs" in shown
    assert "final: it ended a job" in shown
    assert 'File "<string>"' in shown
    assert shown.count("nightly › load  ") == 2
    about = shell.json("errors", "show", id_)
    assert (
        about["group"]["count"],
        len(about["occurrences"]),
        about["group"]["error"]["message"],
    ) == (
        2,
        2,
        "the source is empty",
    )
    assert (
        shell.run("errors", "resolve", id_, "--by", "ada")
        .stderr.decode()
        .startswith(f"{id_} is resolved: ValueError")
    )
    assert shell.json("errors") == []
    (resolved,) = shell.json("errors", "list", "--all", "--operation", "nightly", "--since", "1h")
    assert (resolved["status"], resolved["resolved_by"]) == ("resolved", "ada")
    assert shell.json("errors", "reopen", id_)["status"] == "open"
    assert shell.json("stats", "errors")[0]["type"] == "ValueError"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (
            ("errors", "show", "zzz"),
            3,
            "error: no error has the fingerprint zzz\nnext:  structjob errors --all\n",
        ),
        (("errors", "resolve", "'; DROP"), 3, "no error has the fingerprint '; DROP"),
        (("errors", "lst"), 2, "Unknown command 'lst'; did you mean 'list'?"),
        (("errors", "--all", "--status", "open"), 2, "--all shows every status"),
        (("errors", "--since", "1h", "--until", "2h"), 2, "is after until"),
        (("errors", "--step", "nothing"), 0, "no unresolved errors match --step nothing"),
        (
            ("errors", "list", "--status", "open,resolved", "--until", "2020-01-01"),
            0,
            "no errors match --status open,resolved --until 2020-01-01\n",
        ),
    ],
)
def test_errors_that_are_not_there(
    shell: Shell, words: tuple[str, ...], code: int, says: str
) -> None:
    """Not found is 3, misuse 2, nothing to list 0; what is wrong is named (R39, R49)."""
    done = shell.run(*words)
    assert (done.returncode, done.stdout) == (code, b"")
    assert says in done.stderr.decode()


CRASH = """
import asyncio, os, signal, sys
import structjob

async def main():
    async with structjob.Tracker(sys.argv[1]) as tracker:
        async with tracker.job("nightly"):
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_crashes_are_errors_too(tmp_path: Path) -> None:
    """A process that was killed twice in the same operation: one error, two occurrences
    (R11, R39).
    """
    shell = Shell(tmp_path)
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            shell.python(CRASH, "sqlite:///structjob.db")
    (error,) = shell.json("errors")
    assert (error["error"]["type"], error["operation"], error["count"], error["jobs"]) == (
        "Crashed",
        "nightly",
        2,
        2,
    )
    assert shell.json("stats")[0]["crashed"] == 2


def test_lines_of_another_program_are_grouped_by_what_they_say(tmp_path: Path) -> None:
    """Imported error lines are the same error if they differ in numbers, ids and paths only (R21,
    R39).
    """
    shell = Shell(tmp_path)
    shell.sample()
    job = {
        "record": "job",
        "id": "app-1",
        "operation": "wordcount",
        "status": "failed",
        "created_at": "2026-01-01T00:00:00Z",
    }
    said = [
        ("error", "Lost node msra-7:4533 after 12 s"),
        ("error", "Lost node msra-9:1201 after 3 s"),
        ("info", "Lost node 3"),
        ("error", "Out of disk"),
    ]
    lines = [
        {
            "record": "event",
            "job_id": "app-1",
            "timestamp": f"2026-01-01T00:00:0{n}Z",
            "level": level,
            "event": text,
            "fingerprint": "SHA256:x",
        }
        for n, (level, text) in enumerate(said)
    ]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (job, *lines)))
    shell.ok("import", "old.jsonl")
    found = {
        error["error"]["message"]: (error["error"]["type"], error["count"])
        for error in shell.json("errors", "--until", "2026-02-01")
    }
    assert found == {"Lost node msra-9:1201 after 3 s": ("error", 2), "Out of disk": ("error", 1)}


HABIT = """
import asyncio, sys
import structjob

async def main():
    async with structjob.Tracker(sys.argv[1]) as tracker:
        for seconds in (0, 0, 0, 0, 0, 0.3):
            async with tracker.job("nightly", external_job_id=f"after-{seconds}") as job, job.step("load"):
                await asyncio.sleep(seconds)

asyncio.run(main())
"""


def test_show_says_what_is_usual(tmp_path: Path) -> None:
    """A job that took longer than those before it is called so, and the step that did is marked
    (R38, R49).
    """
    shell = Shell(tmp_path)
    shell.python(HABIT, "sqlite:///structjob.db")
    shown = shell.ok("show", "after-0.3")
    assert re.search(r"this is \d+\.\d times as long, slower than all 5 previous runs", shown)
    assert re.search(r"\d+\.\d times the usual <?\d+ms", shell.ok("jobs", "--slower"))
    narrowed = shell.run("jobs", "--since", "1h", "-n", "2").stderr.decode()
    assert "(more exist; add --limit 8)" in narrowed  # and no command that forgets --since
    assert "slow: usually" in shown
    estimate = shell.json("show", "after-0.3")["estimate"]
    assert (estimate["samples"], estimate["slower"], estimate["remaining_ms"]) == (5, True, None)
    assert estimate["steps"][0]["slower"] is True


@pytest.mark.parametrize(("last_ms", "shown"), [(0.4, ""), (40, "  slow: usually <1ms")])
def test_a_step_is_slow_only_if_that_can_be_seen(
    tmp_path: Path, last_ms: float, shown: str
) -> None:
    """R38, R49: no step that took <1ms is called slow because it usually takes <1ms."""
    lines = []
    for number in range(7):
        moment = f"2026-05-04T13:{number:02}:00Z"
        ids = {"job_id": f"job-{number}", "id": f"step-{number}"}
        job = {"record": "job", "id": f"job-{number}", "operation": "o", "status": "completed"}
        step = {"record": "step", **ids, "name": "s", "status": "completed"}
        times = {"started_at": moment, "completed_at": moment}
        lines.append({**job, **times, "created_at": moment, "duration_ms": 50})
        lines.append({**step, **times, "duration_ms": 0.1 if number < 6 else last_ms})
    (tmp_path / "o.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shell = Shell(tmp_path)
    shell.ok("import", "o.jsonl")
    (row,) = re.findall(r"^  ✓ s  .*", shell.ok("show", "job-6"), re.MULTILINE)
    assert ("slow" in row) == bool(shown)
    assert row.rstrip().endswith(shown)


def test_errors_per_hour(tmp_path: Path) -> None:
    """Review 2, task 9: with ``--bucket`` errors are counted in each stretch of time, by type."""
    shell = Shell(tmp_path)
    shell.run("run", "--", "false")
    printed = shell.ok("stats", "errors", "--bucket", "1h", "--since", "2h")
    assert printed.split("\n")[0].split() == ["FROM", "COUNT", "MOST", "FREQUENT"]
    assert "CommandFailed 1" in printed
    found = shell.json("stats", "errors", "--bucket", "1h")
    assert sum(sum(one["counts"].values()) for one in found) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("jobs nightly", "structjob show nightly (one job, or the newest of this name), or structjob jobs --operation nightly"),
        ("errors nightly", "structjob errors --operation nightly"),
        ("errors list nightly", "structjob errors show nightly"),
        ("stats nightly", "structjob stats --operation nightly"),
        ("stats steps nightly", "structjob stats steps --operation nightly"),
        ("stats storage nightly", "stats does not take 'nightly'"),
        ("sessions nightly", "structjob sessions"),
    ],
)  # fmt: skip
def test_a_name_where_none_is_taken_gets_what_to_type(words: str, said: str) -> None:
    """A job's or an operation's name after a command that takes only options (R49)."""
    done = CliRunner().invoke(cli, words.split(), prog_name="structjob")
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("words", "following"),
    [
        ("stats --since 6h", "jobs --status failed --operation nightly --since 6h --by ended"),
        (
            "stats --since 6h --by created --category batch --utc",
            "jobs --status failed --operation nightly --since 6h --by created --category batch --utc",
        ),
        ("stats errors --since today --operation nightly", "errors --since today --operation nightly"),
        ("stats volume --until 2100-01-01", "logs -l error --last 20 --until 2100-01-01"),
    ],
)  # fmt: skip
def test_the_next_command_selects_the_same_window(shell: Shell, words: str, following: str) -> None:
    """The command below the statistics lists the jobs, errors or lines that were counted (R49)."""
    db = f"sqlite:///{shell.directory / 'structjob.db'}"
    said = typed(db, *words.split())
    assert f"next:  structjob --db {db} {following}\n" in said
    typed(db, *following.split())
