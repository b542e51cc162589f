"""The command line that follows, points at, and hands over lines: tail, sessions, logs --around,
export, import, completion (R49).
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess

import pytest
from cli_support import COMMAND, WRITER, Shell, environment
from click.testing import CliRunner

from structjob.cli.tail import tail


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A directory with the sample in its ./structjob.db."""
    shell = Shell(tmp_path_factory.mktemp("tail"))
    shell.sample()
    return shell


def test_tail_shows_the_last_lines_and_what_comes(live: Shell) -> None:
    """``tail -n 2 --json`` begins with the last two lines, shows each that comes once, and ends by
    Ctrl-C with 130 (R37, R49).
    """
    writer = live.start_python(WRITER, "sqlite:///live.db")
    assert writer.stdin is not None
    assert writer.stdout is not None

    def tell(*lines: str) -> None:
        writer.stdin.write("".join(f"{line}\n" for line in lines).encode())  # type: ignore[union-attr]  # see above
        writer.stdin.flush()  # type: ignore[union-attr]
        for _ in lines:
            assert writer.stdout.readline() == b"logged\n"  # type: ignore[union-attr]

    writer.stdout.readline()
    tell("one", "two", "three")
    # The follower begins with what is stored.
    while len(live.json("--db", "live.db", "logs", "--grep", "three")) < 1:
        pass
    follower = live.start("--db", "live.db", "tail", "-n", "2", "--json")
    assert follower.stdout is not None
    assert [json.loads(follower.stdout.readline())["message"] for _ in range(2)] == ["two", "three"]
    many = [f"line {number}" for number in range(300)]
    tell(*many)
    assert [json.loads(follower.stdout.readline())["message"] for _ in many] == many
    follower.send_signal(signal.SIGINT)
    rest, errors = follower.communicate(timeout=30)
    assert (follower.returncode, rest, b"Traceback" in errors) == (130, b"", False)
    (session,) = live.json("--db", "live.db", "sessions", "--live")
    assert (session["status"], session["running_jobs"], session["service"]) == (
        "live",
        1,
        "writer",
    )


@pytest.mark.slow
def test_a_reader_that_goes_away(live: Shell) -> None:
    """A closed pipe ends following quietly (R49)."""
    writer = live.start_python(WRITER, "sqlite:///live.db")
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdout.readline()
    follower = live.start("--db", "live.db", "tail", "watched-1", "--json")
    assert follower.stdout is not None
    assert follower.stderr is not None
    follower.stdout.readline()
    follower.stdout.close()
    for number in range(2):
        writer.stdin.write(f"{number}\n".encode())
        writer.stdin.flush()
        writer.stdout.readline()
    assert follower.wait(30) == 141
    assert follower.stderr.read() == b""


def test_sessions_lists_the_processes(shell: Shell) -> None:
    """Each process has a row with its status, its lines, its host; as JSON all of it (R46, R49)."""
    (session,) = shell.json("sessions")
    assert (session["status"], session["running_jobs"]) == ("closed", 0)
    assert session["last_seq"] == len(shell.json("logs"))
    lines = shell.ok("sessions").splitlines()
    assert lines[0].split() == [
        "SESSION",
        "STATUS",
        "LINES",
        "RUNNING",
        "STARTED",
        "HEARTBEAT",
        "ENDED",
        "PROCESS",
    ]
    assert "✓ closed" in lines[1]
    assert f"sample {session['pid']} on" in lines[1]
    assert "no live sessions" in shell.run("sessions", "--live").stderr.decode()
    for command in ("sessions", "verify"):  # a narrow terminal leaves out times, not the program
        env = environment(COLUMNS="80", LINES="24", NO_COLOR="1")
        assert f"sample {session['pid']} on" in shell.in_a_terminal(command, env=env)[1]


def test_the_lines_around_one(shell: Shell) -> None:
    """``logs --around SESSION:NUMBER`` shows a line with its neighbours in its job; an unknown one
    ends with 3 (R36, R49).
    """
    (event,) = shell.json("logs", "-w", "n=2")
    name = f"{event['session_id']}:{event['seq']}"
    around = shell.json("logs", "--around", name, "--context", "1")
    assert [one["attrs"].get("n") for one in around] == [1, 2, 3]
    assert len(shell.ok("logs", "--around", name).splitlines()) >= 6
    assert (
        "event not found"
        in shell.run("logs", "--around", f"{event['session_id']}:9999").stderr.decode()
    )
    shell.ok("logs", "--around", "1:1", code=3)
    for wrong in (
        ("--around", "x"),
        ("--around", "1:1", "-l", "error"),
        ("--exact",),
        ("-l", "info,error"),
    ):
        shell.ok("logs", *wrong, code=2)


def test_every_filter_has_an_option(shell: Shell) -> None:
    """Type, exact level, kind, category, project, attempt and correlation narrow what is shown
    (R36, R49).
    """
    for options, expected in (
        (("-l", "success", "--exact"), {"checksums match"}),
        (("-l", "success,warning", "--exact"), {"checksums match", "disk is slow"}),
        (("--category", "batch", "--kind", "step_start,retry"), {"load"}),
        (("--category", "batch", "--stream", "stdout,stderr"), set()),
        (("--scope", "task", "--kind", "log"), {"chunk copied"}),
        (("--category", "batch", "--kind", "step_start"), {"load"}),
        (
            ("--project", "moon", "--kind", "log"),
            {"chunk copied", "disk is slow", "checksums match"},
        ),
        (("import-17", "--attempt", "2", "--kind", "log"), {"rows imported"}),
    ):
        assert {event["message"] for event in shell.json("logs", *options)} == expected, options
    correlation = shell.json("logs", "--grep", "disk is slow")[0]["correlation_id"]
    assert {
        event["correlation_id"] for event in shell.json("logs", "--correlation-id", correlation)
    } == {correlation}


@pytest.mark.slow
def test_a_job_travels_as_a_file(shell: Shell, live: Shell) -> None:
    """``export`` and ``import`` carry a job to another database; a dry run makes none; the map
    tells the new ids (R21, R36, R49).
    """
    path = str(live.directory / "job.jsonl.gz")
    assert "structjob import" in shell.run("export", "gui-17", "-o", path).stderr.decode()
    assert "would store 2 jobs" in live.run("import", path, "--dry-run").stderr.decode()
    assert not (live.directory / "structjob.db").exists()
    found = live.json("import", path, "--new-ids", "--map", "map.json")
    ids = json.loads((live.directory / "map.json").read_text())["jobs"]
    assert found["job_ids"] == ids
    job = shell.json("show", "gui-17")["job"]
    assert live.json("show", "gui-17")["job"]["id"] == ids[job["id"]]
    assert [e["message"] for e in live.json("logs", "gui-17")] == [
        e["message"] for e in shell.json("logs", "gui-17")
    ]
    assert "nothing was stored" in live.run("import", path, "--new-ids").stderr.decode()
    (live.directory / "bad.jsonl").write_text('{"record": "job", "id": 1}\n')
    done = live.run("import", "bad.jsonl")
    assert (done.returncode, "line 1 (job): operation is missing" in done.stderr.decode()) == (
        1,
        True,
    )
    assert live.json("verify")["ok"]


def test_a_pipe_is_imported(shell: Shell, live: Shell) -> None:
    """``import -`` and ``import /dev/stdin`` take what comes down a pipe, blank lines of a program
    and all (R21, R36, R49).
    """
    live.ok("run", "--job-id", "mine", "--", "sh", "-c", "echo one; echo; echo two")
    exported = live.ok("export", "mine").encode()
    for number, name in enumerate(("-", "/dev/stdin")):
        db = ("--db", f"{number}.db")
        assert (
            "stored 1 job, "
            in live.run(*db, "import", name, input=exported, env=environment()).stderr.decode()
        )
        assert [
            event["message"] for event in live.json(*db, "logs", "mine", "--stream", "stdout")
        ] == ["one", "", "two"]
        assert (
            "nothing was stored"
            in live.run(*db, "import", name, input=exported, env=environment()).stderr.decode()
        )


def test_lines_for_other_programs(shell: Shell) -> None:
    """``export --logs`` gives JSON lines and ``--csv`` a table, both with the filters of ``logs``;
    formulas are defused (R36, R49).
    """
    lines = [
        json.loads(line) for line in shell.ok("export", "--logs", "-w", "vm=pg-01").splitlines()
    ]
    assert [line["attrs"]["n"] for line in lines] == [0, 1, 2, 3, 4]
    rows = list(csv.DictReader(shell.ok("export", "--csv", "gui-17", "--kind", "log").splitlines()))
    assert [row["message"] for row in rows][:1] == ["chunk copied"]
    assert json.loads(rows[0]["attrs"]) == {"n": 0, "vm": "pg-01"}
    assert shell.ok("export", "--logs", "-w", "vm=pg-01", "--json") == shell.ok(
        "export", "--logs", "-w", "vm=pg-01"
    )
    assert shell.json("export", "--logs", "-w", "vm=pg-01", "-o", "lines.jsonl") == {
        "file": "lines.jsonl",
        "lines": len(lines),
    }
    shell.ok("export", "--csv", "--json", code=2)
    shell.ok("export", code=2)
    shell.ok("export", "gui-17", "-l", "error", code=2)
    from structjob.transfer.event_lines import _cell

    assert [_cell(value) for value in ("=1+1", "@x", "fine", None, 3)] == [
        "'=1+1",
        "'@x",
        "fine",
        "",
        "3",
    ]


def test_what_is_exported_cannot_steer_the_terminal(live: Shell) -> None:
    """On a terminal nothing of a job, of lines or of CSV is obeyed; JSON is equal to what was
    stored, CSV elsewhere as it is (R36, R49).
    """
    evil = "clear \x1b[2J, \x9b2J and \u202e turn"
    job = {"record": "job", "id": "mine", "operation": evil, "created_at": 1}
    event = {"record": "event", "ts": 1, "message": evil, "job_id": "mine"}
    (live.directory / "old.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in (job, event))
    )
    live.ok("import", "old.jsonl")
    for words in (("export", "mine"), ("export", "--logs"), ("export", "--csv")):
        _, shown = live.in_a_terminal(*words)
        assert not set("\x1b\x9b\u202e") & set(shown)
        assert "2J" in shown
    lines = [json.loads(line) for line in live.ok("export", "mine", "-o", "-").splitlines()]
    assert (lines[1]["operation"], lines[-1]["message"]) == (evil, evil)
    (row,) = csv.DictReader(live.ok("export", "--csv").splitlines())
    assert row["message"] == evil


def test_ids_and_names_complete(shell: Shell) -> None:
    """Tab offers the newest jobs' ids, names of operations and fingerprints, where a command takes
    them; without a database it offers nothing (R49).
    """

    def offered(words: str, number: int) -> list[str]:
        env = environment(
            _STRUCTJOB_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number)
        )
        done: subprocess.CompletedProcess[bytes] = shell.run(env=env)
        assert done.stderr == b""
        words = (line.partition("\t")[0] for line in done.stdout.decode().splitlines() if line)
        return [word.partition(",")[2] for word in words]

    assert offered("structjob show import", 2) == ["import", "import-17"]
    assert offered("structjob delete import", 2) == ["import", "import-17"]
    assert offered("structjob jobs --operation v", 3) == ["verify-checksums", "vm-migrate"]
    assert offered("structjob logs --operation verify", 3) == ["verify-checksums"]
    (error,) = shell.json("errors")
    fingerprint = error["fingerprint"]
    assert offered(f"structjob errors show {fingerprint[:4]}", 3) == [fingerprint]
    assert offered("structjob errors resolve ", 3) == [fingerprint]
    assert offered("structjob errors show no-such", 3) == []
    assert offered("structjob jobs --status failed,cr", 3) == ["failed,crashed"]
    assert {job["id"] for job in shell.json("jobs")} < set(offered("structjob delete ", 2))
    assert offered("structjob --db none.db show ", 4) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_lists_operation_and_status_beside_each_id(live: Shell) -> None:
    """Faults 50: where it only lists; what it inserts is the id alone."""
    jobs = (
        {"record": "job", "id": id_, "operation": f"copy of {id_}", "created_at": 1}
        for id_ in ("gui-1", "gui-2", "web-1")
    )
    (live.directory / "old.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    live.ok("import", "old.jsonl")
    done = live.run(env=environment(_STRUCTJOB_COMPLETE="bash_source"))
    script = live.directory / "complete.sh"
    script.write_bytes(done.stdout)
    (live.directory / "structjob").write_text(
        f'#!/bin/sh\nexec {" ".join(map(shlex.quote, COMMAND))} "$@"\n'
    )
    (live.directory / "structjob").chmod(0o755)

    def offered(word: str, how: str) -> list[str]:
        typed = f"""
            source complete.sh
            COMP_WORDS=(structjob delete "{word}"); COMP_CWORD=2; COMP_TYPE={how}
            _structjob_completion structjob 2>/dev/null
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        path = f"{live.directory}:{os.environ['PATH']}"
        shown = subprocess.run(
            ["bash", "--norc", "-c", typed], cwd=live.directory, env=environment(PATH=path),
            capture_output=True, check=True,
        )  # fmt: skip
        return sorted(shown.stdout.decode().splitlines())

    listed = ["gui-1  copy of gui-1 completed", "gui-2  copy of gui-2 completed"]
    assert offered("gui-", "63") == listed
    assert offered("gui-", "9") == offered("gui-", "37") == ["gui-1", "gui-2"]
    assert offered("web", "63") == ["web-1"]  # it is the only one, and inserted


def test_what_completes_is_a_word_and_no_command(live: Shell) -> None:
    """An id that a shell would not take as it stands is not offered, and what it stands beside is
    one line (R49).
    """
    ids = ("fine", "$(touch pwned)", "`id`", "a;b", "a b", "a\nb", "\x1b[2J")
    jobs = (
        {"record": "job", "id": id_, "operation": "copy\n\x1b[2J", "created_at": 1} for id_ in ids
    )
    (live.directory / "old.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    live.ok("import", "old.jsonl")
    for shell, expected in (
        ("bash", ["plain,fine\tcopy\\n\\x1b[2J completed"]),
        ("zsh", ["plain", "fine", "copy\\n\\x1b[2J completed"]),
    ):
        env = environment(
            _STRUCTJOB_COMPLETE=f"{shell}_complete", COMP_WORDS="structjob show ", COMP_CWORD="2"
        )
        assert live.run(env=env).stdout.decode().splitlines() == expected


def test_a_tail_takes_the_option_of_the_command_that_everybody_knows(shell: Shell) -> None:
    """R37: ``structjob tail -f ID`` is ``structjob tail ID``, which follows anyway."""
    (job,) = shell.json("jobs", "-n", "1")
    assert shell.ok("tail", "-f", job["id"]) == shell.ok("tail", job["id"])


def test_a_tail_does_not_offer_what_it_refuses() -> None:
    """Review 1.10: ``--until`` is not in the help, and says which command takes it."""
    helped = CliRunner().invoke(tail, ["--help"]).output
    assert "--since" in helped
    assert "--until" not in helped
    assert "Write JSON lines to stdout." in helped
    refused = CliRunner().invoke(tail, ["--until", "1h"])
    assert refused.exit_code == 2
    assert "use `structjob logs` with --until" in refused.output
