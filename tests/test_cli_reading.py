"""``structjob jobs``, ``show`` and ``logs``: finding what happened (R49), with the filters of R20
and R36.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import pytest
from cli_support import WRITER, Shell, environment, typed
from prefork import Forked
from rich.text import Text

import structjob
from structjob.cli.screen import columns


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A directory with the sample in its ./structjob.db."""
    shell = Shell(tmp_path_factory.mktemp("reading"))
    shell.sample()
    return shell


@pytest.fixture
def writer(live: Shell) -> Forked:
    """A program that runs the job watched-1 in live.db, and logs each line of its stdin."""
    process = live.start_python(WRITER, "sqlite:///live.db")
    assert process.stdout is not None
    process.stdout.readline()
    return process


def tell(writer: Forked, line: str) -> None:
    """Let the writer log *line*; return when it has."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(f"{line}\n".encode())
    writer.stdin.flush()
    assert writer.stdout.readline() == b"logged\n"


def told(stream: IO[bytes] | None, message: str) -> dict[str, object]:
    """Read JSON lines until the one with *message*; return it."""
    assert stream is not None
    for line in stream:
        event: dict[str, object] = json.loads(line)
        if event["message"] == message:
            return event
    raise AssertionError(f"{message!r} never came")


# -- jobs
# --------------------------------------------------------------------------


def test_jobs_lists_the_newest_first(shell: Shell) -> None:
    """The table has operation, status, percent, duration, and what went wrong; the whole ids in a
    pipe (R20, R49).
    """
    lines = shell.ok("jobs").splitlines()
    assert lines[0].split() == ["ID", "OPERATION", "STATUS", "DONE", "STARTED", "TOOK", "DETAIL"]
    assert "nightly" in lines[2]
    assert "✗ failed" in lines[2]
    assert "ValueError: the source is empty" in lines[2]
    assert "✓ completed  100%" in lines[3]
    assert lines[3].startswith("import-17 ")
    assert "└ verify-checksums" in lines[5]
    assert [len(line.split()[0]) for line in lines[4:6]] == [36, 36]


def test_jobs_as_json_is_an_array(shell: Shell) -> None:
    """``--json`` is an array of whole jobs (R49)."""
    jobs = shell.json("jobs", "--operation", "vm-migrate")
    assert [job["external_job_id"] for job in jobs] == ["gui-17"]
    assert jobs[0]["metadata"] == {"vm": "pg-01", "password": "[redacted]"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--status", "failed"), ["nightly"]),
        (("--status", "failed", "--status", "running"), ["nightly"]),
        (("--status", "failed,crashed"), ["nightly"]),
        (("--type", "migration"), ["vm-migrate"]),
        (("--owner", "bob"), ["import"]),
        (("--category", "batch"), ["nightly"]),
        (("--project", "moon"), ["verify-checksums", "vm-migrate"]),
        (("--grep", "pg-01"), ["verify-checksums"]),
        (("--roots", "--owner", "ada"), ["vm-migrate"]),
        (("--context-id", "vm-9"), ["vm-migrate"]),
        (("--since", "-1h", "--operation", "import"), ["import"]),
        (("--until", "-1h"), []),
        (("--since", "2100-01-01"), []),
        (("--limit", "1", "--operation", "import"), ["import"]),
    ],
)
def test_jobs_filters(shell: Shell, options: tuple[str, ...], expected: list[str]) -> None:
    """Each filter leaves what it names (R20, R49)."""
    assert [job["operation"] for job in shell.json("jobs", *options)] == expected


def test_a_root_whose_parent_is_in_another_database(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Faults 60: ``--roots`` shows a job whose parent another service recorded, and names the
    parent (R20, R49).
    """
    shell = Shell(tmp_path_factory.mktemp("parents"))
    shell.python(
        "import asyncio, sys, structjob\n"
        "async def main():\n"
        "    async with structjob.Tracker(sys.argv[1]) as tracker:\n"
        "        async with tracker.job('called', parent='other-service-1') as job, tracker.job('inner'): pass\n"
        "asyncio.run(main())\n",
        "sqlite:///structjob.db",
    )
    assert [(job["operation"], job["parent_job_id"]) for job in shell.json("jobs", "--roots")] == [
        ("called", "other-service-1")
    ]
    (_, line) = shell.ok("jobs", "--roots").splitlines()
    assert "└ called" in line
    assert "child of other-service-1, which is not in this database" in line


def test_jobs_of_one_family(shell: Shell) -> None:
    """The children of a job, and whatever shares its correlation id (R20, R49)."""
    (parent,) = shell.json("jobs", "--operation", "vm-migrate")
    assert [job["operation"] for job in shell.json("jobs", "--parent-id", parent["id"])] == [
        "verify-checksums"
    ]
    related = shell.json("jobs", "--correlation-id", parent["correlation_id"])
    assert [job["operation"] for job in related] == ["verify-checksums", "vm-migrate"]


def test_jobs_says_when_there_is_more_or_nothing(shell: Shell) -> None:
    """A list that was cut, and an empty one, name the next useful command on stderr (R49)."""
    cut = shell.run("jobs", "--limit", "2").stderr.decode()
    assert "Showing the newest 2 (more exist)" in cut
    assert "structjob jobs --limit 8" in cut
    unread = ("jobs", "--roots", "-w", "vm=no one", "-n", "9", "--since", "3h", "--by", "ended")
    assert (
        "no jobs match --roots --where 'vm=no one' --since 3h --by ended\n"
        in shell.run(*unread).stderr.decode()
    )
    assert (
        "no attempts match --status crashed\n"
        in shell.run("jobs", "--attempts", "--status", "crashed").stderr.decode()
    )


def test_ids_on_a_terminal_can_be_typed(shell: Shell) -> None:
    """Each short id of the table, the end of a longer one, leads to its own job, and to no other
    (R49).
    """
    shown = re.sub(r"\x1b\[[0-9;]*m", "", shell.in_a_terminal("jobs")[1])
    rows = [line.split() for line in shown.splitlines() if "completed" in line or "failed" in line]
    jobs = {job["id"]: job["operation"] for job in shell.json("jobs")}
    short = [row[0] for row in rows]
    assert len(set(short)) == len(jobs)
    assert all(sum(id_.endswith(end) for id_ in jobs) == 1 for end in short)
    # below its parent
    assert shell.json("show", short[-1])["job"]["operation"] == "verify-checksums"


def history(shell: Shell, milliseconds: float) -> None:
    """Let live.db know of jobs that took so long."""
    job = {
        "record": "job",
        "operation": "watched",
        "status": "completed",
        "created_at": "2026-01-01",
        "duration_ms": milliseconds,
    }
    (shell.directory / "history.jsonl").write_text(
        "".join(json.dumps({**job, "id": f"old-{n}"}) + "\n" for n in range(5))
    )
    shell.ok("--db", "live.db", "import", "history.jsonl")


@pytest.mark.slow
def test_a_job_whose_process_is_silent_is_not_said_to_run(live: Shell) -> None:
    """`jobs` and `show` tell that a running job's process gives no sign of life, and which process
    it is (R11, R49).
    """
    live.sample()
    with closing(sqlite3.connect(live.directory / "structjob.db")) as connection:
        connection.execute(
            "INSERT INTO structjob_sessions (session_id, host, pid, started_at, heartbeat_at, last_seq) "
            "VALUES (9, 'vm-9', 7, '2026-01-01 00:00:00.000000', '2026-01-01 01:00:00.000000', 0)"
        )
        connection.execute(
            "UPDATE structjob_jobs SET status = 'running', completed_at = NULL, duration_ms = NULL, session_id = 9"
        )
        connection.commit()
    (job, *_) = live.json("jobs")
    for command in (("jobs",), ("show", job["id"])):
        shown = live.ok(*command)
        assert re.search(r"no sign of life for \d+d .*\(pid 7 on vm-9\)", shown), shown
        assert "● running" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("usual", "said"), [(3_600_000, r"~(1h 00m|59m \d\ds)"), (1, r"usual 1ms")]
)
def test_watch_shows_how_far_a_running_job_is_and_how_much_is_left(
    live: Shell, writer: Forked, usual: float, said: str
) -> None:
    """``jobs --watch`` has what runs on top, with its units, and what is left by its operation's
    history, until Ctrl-C (R17, R38, R49).
    """
    history(live, usual)
    tell(writer, "units")
    watch = live.start_in_a_terminal(
        "--db", "live.db", "jobs", "--watch", env=environment(COLUMNS="120")
    )
    assert watch.stdout is not None
    shown = ""
    while "work 40/100" not in shown:
        shown += watch.stdout.read1(4096).decode()
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).splitlines()
    assert re.search(r"● 1 running  ✓ 5 completed  Ctrl-C ends", lines[0])
    assert re.search(
        rf"watched +● running +━{{3}}─{{5}} +40% +<?[\d.]+m?s +{said}  work 40/100", lines[2]
    )
    assert watch.communicate(b"\x03", timeout=30)[0].count(b"Traceback") == 0
    assert watch.returncode == 130


def test_watch_in_a_pipe_is_a_line_for_each_change(live: Shell, writer: Forked) -> None:
    """In a pipe, one line says what changed, with whole ids, until the command is ended (R49)."""
    watch = live.start("--db", "live.db", "jobs", "--watch")
    assert watch.stdout is not None
    assert watch.stdout.readline().split()[:3] == [b"ID", b"OPERATION", b"STATUS"]
    began = watch.stdout.readline().decode()
    assert re.match(r"[0-9a-f-]{36}  watched    ● running .* work$", began.rstrip())
    writer.communicate(timeout=30)
    ended = watch.stdout.readline().decode()
    assert "✓ completed  100%" in ended
    assert ended.split()[0] == began.split()[0]
    watch.send_signal(signal.SIGTERM)
    assert watch.wait(timeout=30) == 143


def test_watch_as_json_is_a_record_for_each_change(live: Shell, writer: Forked) -> None:
    """``--json`` tells each change as a line, for programs (R49)."""
    watch = live.start("--db", "live.db", "jobs", "--watch", "--json", "--status", "running")
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["status"] == "running"
    writer.communicate(timeout=30)
    assert json.loads(watch.stdout.readline())["status"] == "completed"
    watch.send_signal(signal.SIGINT)
    assert watch.wait(timeout=30) == 130


# -- show
# --------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["gui-17", "vm-9"])
def test_show_takes_any_id(shell: Shell, given: str) -> None:
    """The external and the context id lead to the job; so do the beginning and the end of its own
    (R19, R49).
    """
    job = shell.json("show", given)["job"]
    assert job["operation"] == "vm-migrate"
    assert shell.json("show", job["id"][:-1])["job"]["id"] == job["id"]
    assert shell.json("show", job["id"][-6:])["job"]["id"] == job["id"]


def test_show_tells_all_of_a_job(shell: Shell) -> None:
    """Head, steps with durations and bars, children, metadata without its secret, result, and the
    next command (R1, R3, R33, R49).
    """
    done = shell.run("show", "gui-17")
    shown = done.stdout.decode()
    assert shown.startswith("✓ vm-migrate  completed after")
    for part in (
        "owner       ada",
        "external id gui-17",
        "✓ copy",
        "5/5",
        "✓ of pg-01",
        "[redacted]",
        "1048576",
    ):
        assert part in shown
    assert re.search("✓ of pg-01 .*[├│]", shown)  # a bar of what took almost no time is one line
    assert "hunter2" not in shown
    assert "next:  structjob logs" in done.stderr.decode()


@pytest.mark.slow
def test_show_a_chain_of_any_length(live: Shell) -> None:
    """1,500 jobs, each the parent of the next, are shown; as JSON they are too deep, and it is said
    what to do (R20, R49).
    """
    job = {"record": "job", "operation": "copy", "created_at": 1}
    family = (
        job | {"id": f"g{n}", "parent_job_id": f"g{n - 1}" if n else None} for n in range(1_500)
    )
    (live.directory / "old.jsonl").write_text("".join(json.dumps(one) + "\n" for one in family))
    live.ok("import", "old.jsonl")
    shown = re.findall(r"^ +✓ copy +(g\d+)$", live.ok("show", "g0", "--all"), re.MULTILINE)
    assert shown == [f"g{n}" for n in range(1, 1_500)]
    assert "1,499 completed" in live.ok("show", "g0")
    done = live.run("show", "g0", "--json")
    assert (done.returncode, done.stdout) == (1, b"")
    said = "error: the children of g0 are nested too deeply for one JSON value\nnext:  structjob export g0\n"
    assert done.stderr.decode() == said
    assert live.ok("export", "g0").count('"record":"job"') == 1_500


def test_show_a_failure(shell: Shell) -> None:
    """A failed job shows the step it failed in, the error and the end of its traceback, and leads
    to its warnings (R9, R49).
    """
    failed = shell.json("jobs", "--status", "failed")[0]
    done = shell.run("show", failed["id"])
    shown = done.stdout.decode()
    for part in (
        "✗ nightly  failed after",
        "✗ load",
        "ValueError: the source is empty",
        "Traceback (most recent call last)",
        "in main",
    ):
        assert part in shown
    assert "-l warning" in done.stderr.decode()


def test_jobs_attempts_is_the_history_of_all_jobs(shell: Shell) -> None:
    """``jobs --attempts`` has every attempt, the newest first, with what its job does; as JSON too
    (R20, R49).
    """
    lines = shell.ok("jobs", "--attempts").splitlines()
    assert lines[0].split() == ["ID", "ATTEMPT", "OPERATION", "STATUS", "STARTED", "TOOK", "DETAIL"]
    assert "✗ failed" in lines[2]
    assert "ValueError: the source is empty" in lines[2]
    assert [line.split()[:3] for line in lines[3:5]] == [
        ["import-17", "2", "import"],
        ["import-17", "1", "import"],
    ]
    (failed,) = shell.json("jobs", "--attempts", "--status", "failed", "--since", "-1h")
    assert (failed["attempt"], failed["error"]["type"]) == (1, "ValueError")
    assert len(shell.json("jobs", "--attempts", "-n", "2")) == 2
    assert b"works only with --status" in shell.run("jobs", "--attempts", "--owner", "ada").stderr


def test_show_attempts(shell: Shell) -> None:
    """A job that was begun twice shows both attempts; as JSON too (R2, R49)."""
    assert re.search(r"Attempts\n +✓ 1 .*\n +✓ 2 ", shell.ok("show", "import-17"))
    assert [attempt["attempt"] for attempt in shell.json("show", "import-17")["attempts"]] == [1, 2]


RETRIES = """
import asyncio, sys
import structjob

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1]) as tracker:
        async with tracker.job("backup", external_job_id="backup-1") as job:
            async for attempt in job.retrying("upload", max_attempts=3, delay=0.01, on=OSError):
                async with attempt:
                    if attempt.number < 3:
                        raise OSError("the volume does not answer")
        async for attempt in tracker.retrying("nightly", delay=0.01, on=OSError, external_job_id="nightly-1"):
            async with attempt:
                if attempt.number == 1:
                    raise OSError("no source yet")

asyncio.run(main())
"""


def test_show_and_logs_tell_what_was_tried_again(live: Shell) -> None:
    """Each try stands below its step with what it failed by and how long the next one waited; so do
    the attempts at a job (R12, R49).
    """
    live.python(RETRIES, "sqlite:///structjob.db")
    steps = re.split(r"\nSteps.*\n", live.ok("show", "backup-1"))[1].splitlines()
    assert [re.sub(r" +<?[\d.]+m?s +[├─┤│]+ *", " … ", line).rstrip() for line in steps[:6]] == [
        "  ✓ upload …",
        "    ↻ attempt-1 … retrying after 10ms",
        "        OSError: the volume does not answer",
        "    ↻ attempt-2 … retrying after 20ms",
        "        OSError: the volume does not answer",
        "    ✓ attempt-3 …",
    ]
    first, why, second = live.ok("show", "nightly-1").partition("Attempts\n")[2].splitlines()[:3]
    assert re.match(r"  ✗ 1 +failed .* UTC$", first)
    assert why == "      OSError: no source yet"
    assert re.match(r"  ✓ 2 +completed .* <?\d+ms later$", second)
    lines = live.ok("logs", "backup-1")
    assert re.search(
        r"warning  ↻ attempt-2: OSError: the volume does not answer\n +Traceback", lines
    )
    assert re.search(
        r"info +↻ attempt-2 failed in <?\d+ms, retrying after 20ms$", lines, re.MULTILINE
    )
    lines = live.ok("logs", "nightly-1")
    assert re.search(
        r"warning  ✗ nightly failed in <?\d+ms, retrying after 10ms: OSError: no source yet$",
        lines,
        re.MULTILINE,
    )


def test_an_ambiguous_prefix_lists_what_it_could_mean(shell: Shell) -> None:
    """A beginning that several ids share is a usage error that names them (R49)."""
    job = shell.json("show", "gui-17")["job"]
    done = shell.run("show", job["id"][:5])
    assert done.returncode == 2
    assert "begins several ids" in done.stderr.decode()
    assert job["id"] in done.stderr.decode()


def test_times_are_local_unless_asked(shell: Shell) -> None:
    """Times are those of the zone one lives in; ``--utc`` switches (R49)."""
    started = datetime.fromisoformat(shell.json("show", "gui-17")["job"]["started_at"])
    away = environment(TZ="Asia/Tokyo")
    assert f"{started + timedelta(hours=9):%Y-%m-%d %H:%M:%S} JST" in shell.ok(
        "show", "gui-17", env=away
    )
    assert f"{started:%Y-%m-%d %H:%M:%S} UTC" in shell.ok("show", "gui-17", "--utc", env=away)
    assert "+09:00" in shell.ok("logs", "gui-17", env=away)
    # A time without a zone is read in the zone that is shown.
    before = f"{started + timedelta(hours=9) - timedelta(seconds=2):%Y-%m-%dT%H:%M:%S}"
    assert shell.ok("logs", "gui-17", "--until", before, env=away) == ""
    assert shell.ok("logs", "gui-17", "--since", before, env=away) != ""


# -- logs
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("gui-17", "-w", "n=3"), ["chunk copied"]),
        (("gui-17", "-w", "vm=pg-01", "--last", "2"), ["chunk copied"] * 2),
        (("gui-17", "-w", "vm=pg-01", "-n", "2"), ["chunk copied"] * 2),
        (("gui-17", "-w", "vm=pg-01", "--limit", "1"), ["chunk copied"]),
        (("gui-17", "-l", "warning"), ["disk is slow"]),
        (("gui-17", "-l", "WARN"), ["disk is slow"]),
        (("gui-17", "-l", "success"), ["checksums match", "disk is slow"]),
        (("gui-17", "-l", "success", "--no-children"), ["disk is slow"]),
        (("gui-17", "--grep", "slow"), ["disk is slow"]),
        (("--grep", "rows"), ["rows imported", "rows imported"]),
        (("--step", "copy", "-w", "n=0"), ["chunk copied"]),
        (("--system",), ["service started"]),
        (("--logger", "sample", "--grep", "service"), ["service started"]),
        (("--stream", "stdout"), []),
        (("--since", "-1h", "--grep", "service"), ["service started"]),
        (("--until", "yesterday"), []),
        (("--last", "0"), []),
    ],
)
def test_logs_filters(shell: Shell, options: tuple[str, ...], expected: list[str]) -> None:
    """Each filter leaves what it names; ``--json`` is an array, empty too (R36, R49)."""
    assert sorted(event["message"] for event in shell.json("logs", *options)) == sorted(expected)


def test_logs_show_every_line(shell: Shell) -> None:
    """Without a filter every line comes, the oldest first, with time, level, message, attributes
    and where it belongs (R4, R49).
    """
    lines = shell.ok("logs").splitlines()
    events = shell.json("logs")
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    starts = [line for line in lines if re.match(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00 ", line)]
    assert len(starts) == len(events)
    assert re.search(
        r"info +chunk copied +n=0 vm=pg-01 · copy · vm-migrate [0-9a-f]{8}$",
        "\n".join(lines),
        re.MULTILINE,
    )
    assert "    ValueError: the source is empty" in lines


def test_context_shows_the_neighbours(shell: Shell) -> None:
    """``--context 1`` shows the lines before and after each match, and a mark between separate
    places (R36, R49).
    """
    around = shell.json("logs", "gui-17", "--no-children", "-w", "n=2", "--context", "1")
    assert [event["attrs"].get("n") for event in around] == [1, 2, 3]
    lines = shell.ok(
        "logs", "gui-17", "--no-children", "--grep", "disk is slow", "--context", "1"
    ).splitlines()
    assert [
        bool(re.search(part, line))
        for part, line in zip(
            ("✓ copy", "disk is slow", "vm-migrate completed"), lines, strict=True
        )
    ] == [True] * 3
    apart = shell.ok("logs", "gui-17", "--no-children", "-w", "n=0", "--context", "0")
    assert apart.count("\n") == 1
    both = shell.ok("logs", "--grep", "rows imported", "--context", "1").splitlines()
    assert both.count("--") == 0 or len(both) == 7


def test_json_holds_nothing_that_a_terminal_obeys(live: Shell) -> None:
    """R49: what turns the direction of text around, and the control characters beyond ASCII, are
    escaped in JSON, which stays equal.
    """
    evil = "\u202egpj.exe \x9b31m \x7f \u2028 \u2066 größe"
    program = f"""
import asyncio, sys
import structlog, structjob

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1], service={evil!r}) as tracker, tracker.job({evil!r}, job_id="j"):
        structlog.get_logger().info({evil!r})

asyncio.run(main())
"""
    live.python(program, "sqlite:///jobs.db")
    for words in (
        ("jobs",),
        ("show", "j"),
        ("logs", "j"),
        ("sessions",),
        ("verify",),
        ("export", "--logs"),
    ):
        said = live.ok("--db", "jobs.db", *words, "--json=array" if "logs" in words else "--json")
        assert not set(said) & set("\u202e\x9b\x7f\u2028\u2066"), words
        told = (
            [json.loads(line) for line in said.splitlines()]
            if words[0] == "export"
            else json.loads(said)
        )
        assert evil in json.dumps(told, ensure_ascii=False), words


def test_logs_that_match_nothing_say_so(shell: Shell) -> None:
    """Nothing on stdout, an explanation on stderr, exit code 0 (R49)."""
    done = shell.run("logs", "--grep", "no such thing")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"no lines match --grep 'no such thing'\n" in done.stderr
    done = shell.run("logs", "gui-17", "--exact", "-l", "critical", "--correlated", "--no-pager")
    assert b"no lines of gui-17 match --exact --level critical --correlated\n" in done.stderr


@pytest.mark.slow
def test_follow_shows_lines_as_they_come_and_ends_with_the_job(live: Shell, writer: Forked) -> None:
    """``logs ID -f --json`` is JSON lines, one for each event, each once, until the job ends (R37,
    R49).
    """
    assert writer.stdin is not None
    tell(writer, "before")
    follower = live.start("--db", "live.db", "logs", "watched-1", "-f", "--json")
    assert follower.stdout is not None
    told(follower.stdout, "before")
    for number in range(5):
        tell(writer, f"line {number}")
        told(follower.stdout, f"line {number}")
    writer.stdin.close()
    rest = [json.loads(line)["kind"] for line in follower.stdout]
    assert rest == ["step_end", "operation_end"]
    assert follower.wait(30) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_following_ends_by_a_signal(
    live: Shell, writer: Forked, number: signal.Signals, code: int
) -> None:
    """Ctrl-C ends it with 130, SIGTERM with 143, neither with a traceback (R49)."""
    tell(writer, "before")
    follower = live.start("--db", "live.db", "logs", "-f", "--json")
    told(follower.stdout, "before")
    follower.send_signal(number)
    _, errors = follower.communicate(timeout=30)
    assert follower.returncode == code
    assert b"Traceback" not in errors


@pytest.mark.slow
def test_a_program_killed_while_it_is_followed(live: Shell, writer: Forked) -> None:
    """Who follows a job whose process is killed sees its last line and the crash, and the following
    ends (R11, R37, R49).
    """
    tell(writer, "before")
    follower = live.start("--db", "live.db", "logs", "watched-1", "-f", "--json")
    told(follower.stdout, "before")
    tell(writer, "the last words")
    writer.kill()
    told(follower.stdout, "the last words")
    assert (
        told(follower.stdout, "watched crashed: its process ended without finishing it")["level"]
        == "error"
    )
    assert follower.wait(30) == 0


def test_a_killed_program_is_seen_as_crashed_with_every_line(live: Shell, writer: Forked) -> None:
    """After kill -9, whatever reading command comes first delivers every line and shows the job as
    crashed (R11, R49).
    """
    for number in range(50):
        tell(writer, f"line {number}")
    writer.kill()
    writer.wait()
    logged = [event["message"] for event in live.json("--db", "live.db", "logs", "watched-1")]
    assert [message for message in logged if message.startswith("line")] == [
        f"line {number}" for number in range(50)
    ]
    assert logged[-1] == "watched crashed: its process ended without finishing it"
    assert "✗ crashed" in live.ok("--db", "live.db", "jobs")
    shown = live.ok("--db", "live.db", "show", "watched-1")
    assert "✗ watched  crashed" in shown
    assert "line 49" in shown
    assert live.json("--db", "live.db", "verify")["missing"] == 0


def test_reading_does_not_disturb_a_live_program(live: Shell, writer: Forked) -> None:
    """A job whose process lives stays running while other processes read (R11)."""
    tell(writer, "alive")
    assert live.json("--db", "live.db", "jobs")[0]["status"] == "running"
    done = live.run("--db", "live.db", "show", "watched-1")
    assert "● watched  running for" in done.stdout.decode()
    assert done.stderr.decode().rstrip().endswith("-f")
    assert datetime.fromisoformat(
        live.json("--db", "live.db", "show", "watched-1")["job"]["started_at"]
    ) < datetime.now(UTC)


def test_what_one_came_for_is_seen_on_a_narrow_terminal() -> None:
    """The last column is cut last: columns that can be spared give way to it, and to nothing where
    there is room (R49).
    """
    headings = ("ID", "FIRST SEEN", "LAST SEEN", "ERROR")
    rows = [
        [
            Text("69549470"),
            Text("19:16:23"),
            Text("19:16:54"),
            Text("ConnectionError: host h77.example refused"),
        ]
    ]

    def shown(width: int) -> list[str]:
        return [
            line.plain for line in columns(headings, rows, width, spare=("FIRST SEEN", "LAST SEEN"))
        ]

    assert shown(60)[0].split() == ["ID", "FIRST", "SEEN", "LAST", "SEEN", "ERROR"]
    assert shown(50) == [
        "ID        LAST SEEN  ERROR",
        "69549470  19:16:54   ConnectionError: host h77.ex…",
    ]
    assert shown(36) == ["ID        ERROR", "69549470  ConnectionError: host h77…"]


def test_an_error_without_a_message_is_shown_by_its_type_alone(tmp_path: Path) -> None:
    """The error of a cancellation without a reason is `CancelledError`, without a colon that
    nothing follows.
    """

    async def cancelled() -> None:
        async with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
            with pytest.raises(asyncio.CancelledError):
                async with tracker.job("refresh", external_job_id="r-1"):
                    raise asyncio.CancelledError

    asyncio.run(cancelled())
    for words in (("jobs",), ("show", "r-1")):
        found = typed(f"sqlite:///{tmp_path}/jobs.db", *words)
        assert "CancelledError" in found
        assert "CancelledError:" not in found


def test_jobs_are_found_by_metadata_and_by_how_long_they_took(shell: Shell) -> None:
    """faults 28: --where, --sort, --slower and the history of an operation, as the library has
    them.
    """
    every = shell.json("jobs", "--sort", "duration")
    lasted = [job["duration_ms"] for job in every]
    assert lasted == sorted(lasted, reverse=True)
    assert len(lasted) > 1
    assert shell.json("jobs", "--where", "nothing=1") == shell.json("jobs", "--slower") == []
    ended = {job["id"] for job in shell.json("jobs", "--by", "ended", "--since", "1d")}
    assert ended == {job["id"] for job in shell.json("jobs") if job["completed_at"] is not None}
    operation = every[0]["operation"]
    assert {
        one["job_id"] for one in shell.json("jobs", "--attempts", "--operation", operation)
    } == {job["id"] for job in shell.json("jobs", "--operation", operation)}
    assert "do not use it with" in shell.run("jobs", "--watch", "--slower").stderr.decode()
    assert shell.json("logs", "--trace-id", "f" * 32) == []
