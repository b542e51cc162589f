"""``structjob show`` of large and small jobs: what stands on the page, and how it fits the screen
(R49).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from cli_support import Shell, environment, typed

from structjob.cli import tables

T0 = 1_767_225_600


def job(
    id_: str, number: int = 0, parent: str | None = "root", **values: object
) -> dict[str, object]:
    """A job's line in an export; *number* orders it among the others."""
    times = {"created_at": T0 + number, "started_at": T0 + number, "duration_ms": 5.0}
    return {
        "record": "job",
        "id": id_,
        "operation": "copy",
        "status": "completed",
        "parent_job_id": parent,
        "attempt": 1,
        **times,
        **values,
    }


def step(number: int, job_id: str = "root", **values: object) -> dict[str, object]:
    """A step's line in an export."""
    about = {
        "name": f"step {number}",
        "status": "completed",
        "started_at": T0 + number,
        "duration_ms": 5.0,
    }
    return {
        "record": "step",
        "id": f"{job_id}-s{number}",
        "job_id": job_id,
        "attempt": 1,
        "seq": number,
        **about,
        **values,
    }


def error(message: str, kind: str = "ValueError") -> dict[str, object]:
    """The columns of an error."""
    return {"status": "failed", "error": {"type": kind, "message": message, "traceback": None}}


def imported(directory: Path, *records: dict[str, object]) -> str:
    """Return the URL of a database that holds *records*."""
    (directory / "old.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    url = f"sqlite:///{directory / 'jobs.db'}"
    typed(url, "import", str(directory / "old.jsonl"))
    return url


@pytest.fixture
def nightly(tmp_path: Path) -> str:
    """A job that is completed and has 300 children, of which two failed."""
    bad = {100: error("checksum mismatch"), 200: error("no space left", "OSError")}
    children = (job(f"c{n:03}", n, description=f"part {n}", **bad.get(n, {})) for n in range(300))
    return imported(
        tmp_path, job("root", parent=None, operation="nightly", duration_ms=300_000.0), *children
    )


def test_many_children_are_folded(nightly: str) -> None:
    """faults 42: counts by status come first, what failed is shown with its error's type, and all
    of it fits on a page.
    """
    shown = typed(nightly, "show", "nightly")
    assert "✓ nightly  completed after 5m 00s  2 of 300 child jobs failed\n" in shown
    assert "\nChild jobs  2 failed, 298 completed" in shown
    assert re.search(r"✗ part 100 .*c100  failed\n      ValueError: checksum mismatch\n", shown)
    assert re.search(r"✗ part 200 .*c200  failed\n      OSError: no space left\n", shown)
    assert "  … 295 more completed  (--all)\n" in shown
    assert shown.count("\n") <= 60
    assert shown.endswith("next:  structjob --db " + nightly + " show c100\n")


def test_all_failed_and_depth(nightly: str) -> None:
    """faults 42: ``--all`` unfolds, ``--failed`` leaves what failed, ``--depth 0`` leaves the
    children out.
    """
    assert typed(nightly, "show", "root", "--all").count("✓ part ") == 298
    failed = typed(nightly, "show", "root", "--failed")
    assert (failed.count("✗ part "), failed.count("✓ part ")) == (2, 0)
    assert "part" not in typed(nightly, "show", "root", "--depth", "0")


def test_more_failures_than_there_is_room_for(tmp_path: Path) -> None:
    """faults 42: the first failures are shown, the others counted, and the next command shows more
    of them.
    """
    children = (job(f"c{n:03}", n, **error("no space left")) for n in range(100))
    url = imported(tmp_path, job("root", parent=None), *children)
    shown = typed(url, "show", "root")
    assert "100 of 100 child jobs failed" in shown
    assert re.search(r"  … \d\d more failed  \(--all\)\n", shown)
    assert shown.endswith(" show root --failed\n")
    assert shown.count("\n") <= 61


def test_a_page_has_at_most_sixty_lines(tmp_path: Path) -> None:
    """faults 42: whatever a job holds, its page is short; each section shows something, and says
    what it leaves out.
    """
    crowded = {
        "metadata": {f"key {n}": n for n in range(90)}, "result": {f"key {n}": n for n in range(90)}, "attempt": 40,
        "error": {"type": "ValueError", "message": "m\n" * 50, "traceback": 'File "a.py"\n' * 80},
    }  # fmt: skip
    attempts = [
        {
            "record": "attempt",
            "job_id": "root",
            "attempt": n,
            "status": "failed",
            "started_at": T0 + n,
        }
        for n in range(1, 41)
    ]
    attempts[-1] |= {name: crowded[name] for name in ("result", "error")}
    steps = [step(n, attempt=40, **error("no")) for n in range(90)]
    children = [job(f"c{n:03}", n, **error("no")) for n in range(90)]
    url = imported(
        tmp_path, job("root", parent=None, status="failed", **crowded), *attempts, *steps, *children
    )
    shown = typed(url, "show", "root")
    assert shown.count("\n") <= 61  # and the hint
    for title in ("Attempts", "Steps", "Child jobs", "Metadata", "Result", "Error"):
        assert re.search(rf"^{title}\b.*\n  +\S", shown, re.MULTILINE), title
    assert typed(url, "show", "root", "--all").count("\n") > 590


def test_a_step_tells_its_errors_type_below_it(tmp_path: Path) -> None:
    """faults 42: the type and the message of a step's error stand below the step, whose line shows
    when it ran.
    """
    url = imported(
        tmp_path,
        job("root", parent=None, duration_ms=10_000.0),
        step(0, duration_ms=5_000.0),
        step(5, duration_ms=1.0, **error("no")),
    )
    lines = typed(url, "show", "root").splitlines()
    title = next(index for index, line in enumerate(lines) if line.startswith("Steps"))
    assert re.fullmatch(r"Steps  1 failed, 1 completed +0 +10\.0s", lines[title])
    assert lines[title + 1].rstrip() == "  ✓ step 0                       5.00s  ├───────┤"
    assert (
        lines[title + 2].rstrip()
        == "  ✗ step 5                         1ms           │          failed"
    )
    assert lines[title + 3] == "      ValueError: no"


@pytest.mark.parametrize("columns", ["80", "120"])
def test_no_line_is_wider_than_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """faults 41: on a terminal long values are wrapped between words and indented, and rows of a
    table are cut.
    """
    words = "the source was there in the morning and is not there now " * 4
    url = imported(
        tmp_path,
        job(
            "root",
            parent=None,
            status="failed",
            description=words,
            metadata={"note": words},
            error={"type": "ValueError", "message": words},
        ),
        step(1, name=words[:150], **error(words)),
    )
    monkeypatch.setattr("structjob.cli.screen.is_terminal", lambda _: True)
    for name, value in (("COLUMNS", columns), ("NO_COLOR", "1"), ("NO_PAGER", "1")):
        monkeypatch.setenv(name, value)
    lines = typed(url, "show", "root").splitlines()[:-1]  # without the hint, which is to be copied
    assert max(map(len, lines)) <= int(columns)
    assert not any(re.match(r"\S", line) for line in lines if "morning" in line)
    assert {word for line in lines for word in line.split() if "…" not in word} <= {
        *" ".join(lines).split()
    }
    assert " ".join(" ".join(lines).split()).count(words.strip()) >= 3


PAGER = "import sys; text = sys.stdin.read(); print('paged', text.count(chr(10)), chr(27) in text)"


def test_a_terminal_gets_a_pager(tmp_path: Path) -> None:
    """faults 42: on a terminal $PAGER gets the page, in colour, and messages come after it;
    ``--no-pager`` does without.
    """
    url = imported(tmp_path, job("root", parent=None))
    shell = Shell(tmp_path)
    env = environment(PAGER=f'{sys.executable} -c "{PAGER}"')
    del env["NO_PAGER"]
    code, shown = shell.in_a_terminal("--db", url, "show", "root", env=env)
    lines = shown.splitlines()
    assert (code, lines[0].split()[0], lines[0].split()[2]) == (0, "paged", "True")
    assert lines[1].startswith("\x1b[2mnext:")
    assert "paged" not in shell.in_a_terminal("--db", url, "show", "root", "--no-pager", env=env)[1]


def test_a_pager_that_is_left_early_ends_the_command(tmp_path: Path) -> None:
    """faults 42: leaving the pager before the end is no error, and nothing of the rest reaches the
    terminal.
    """
    url = imported(tmp_path, job("root", parent=None), *(step(n) for n in range(3_000)))
    env = environment(PAGER="head -n 1")
    del env["NO_PAGER"]
    code, shown = Shell(tmp_path).in_a_terminal("--db", url, "show", "root", "--all", env=env)
    assert code == 0
    assert len(shown.splitlines()) == 1


# -- jobs
# --------------------------------------------------------------------------


def test_a_family_is_listed_below_its_root(nightly: str) -> None:
    """faults 43: a job with many children is one line, which says how many failed, and a few lines
    of those; ``--flat`` has each.
    """
    heading, root, *below = typed(nightly, "jobs").splitlines()
    assert heading.startswith("ID ")
    assert root.startswith("root ")
    assert root.endswith("2 of 300 child jobs failed")
    assert [re.split(r"  +", line)[:3] for line in below] == [
        ["c200", "└ copy", "✗ failed"],
        ["c100", "└ copy", "✗ failed"],
    ]
    assert below[0].endswith("OSError: no space left")
    flat = typed(nightly, "jobs", "--flat", "-n", "5").splitlines()
    assert [line.split()[0] for line in flat[1:6]] == ["c299", "c298", "c297", "c296", "c295"]
    assert flat[6] == "Showing the newest 5 (more exist)"
    assert len(json.loads(typed(nightly, "jobs", "--json", "-n", "400"))) == 301


def test_a_job_is_found_by_its_name_and_by_the_end_of_its_id(tmp_path: Path) -> None:
    """faults 43: an operation's name means its newest job; the short id that is shown is taken by
    every command and option.
    """
    id_ = "01a22514-19f6-790a-be10-54bb2803a2f4"
    line = {
        "record": "event",
        "job_id": id_,
        "seq": 1,
        "ts": T0,
        "message": "copied",
        "level": "info",
    }
    url = imported(
        tmp_path,
        job("old", parent=None, operation="backup"),
        job(id_, 5, parent=None, operation="backup", correlation_id="web-42"),
        job("c", 6, parent=id_),
        line,
    )
    assert typed(url, "show", "backup").splitlines()[1].split() == ["id", id_]
    assert "next:  structjob" in typed(url, "show", "2803a2f4")
    assert typed(url, "show", "2803a2f4").endswith(" logs 2803a2f4\n")
    assert [
        one["id"] for one in json.loads(typed(url, "jobs", "--parent-id", "2803a2f4", "--json"))
    ] == ["c"]
    assert "copied" in typed(url, "logs", "backup")
    assert "job not found: backups" in typed(url, "show", "backups", code=3)
    said = typed(url, "show", "web-42", code=3)
    assert "it is a correlation id: structjob jobs, or structjob logs, with --correlation-id web-42" in said  # fmt: skip


def test_a_failed_job_says_how_often_its_error_occurred_and_how_much_longer_it_took(
    tmp_path: Path,
) -> None:
    """R49: what an operator asks first: is this new, and was it slower than usual."""
    usual = (
        job(f"b{n}", n, parent=None, operation="backup", duration_ms=60_000.0 + 60_000 * (n > 3))
        for n in range(6)
    )
    failed = [
        item
        for n in (10, 20)
        for item in (
            job(
                f"bad{n}",
                n,
                parent=None,
                operation="backup",
                **error(f"no space left on disk {n}") | {"duration_ms": 120_000.0},
            ),
            {
                "record": "event",
                "job_id": f"bad{n}",
                "ts": T0 + n,
                "level": "error",
                "message": f"no space left on disk {n}",
                "error_message": f"no space left on disk {n}",
            },
        )
    ]
    url = imported(tmp_path, *usual, *failed, job("new", 30, parent=None, **error("no route")))
    shown = typed(url, "show", "bad20")
    since = "2026-01-01 00:00:10 UTC"
    assert f"\nError  2 times in 2 jobs since {since}\n" in shown
    assert "usual       1m 00s, this is 2.0 times as long\n" in shown
    fingerprint = json.loads(typed(url, "errors", "--json"))[0]["fingerprint"]
    assert shown.endswith(f" errors show {fingerprint[:8]}\n")
    assert "\nError\n" in typed(url, "show", "new")
    listed = typed(url, "jobs", "--status", "failed", "--operation", "backup")
    assert listed.endswith(" show bad20\n")


def test_the_beginning_of_an_errors_id_selects_its_lines(tmp_path: Path) -> None:
    """R49: `structjob errors` prints eight digits of it on a terminal; an unknown one is an error,
    not an empty log.
    """
    line = {"record": "event", "job_id": "root", "ts": T0, "message": "disk full", "level": "error"}
    url = imported(tmp_path, job("root", parent=None, operation="backup"), line)
    id_ = json.loads(typed(url, "errors", "--json"))[0]["fingerprint"]
    for command in ("logs", "logs root -f", "tail root", "export --logs", "export root --csv"):
        assert "disk full" in typed(url, *command.split(), "--error", id_[:6]), command
        said = typed(url, *command.split(), "--error", "zzz", code=3)
        assert "no error has the fingerprint zzz" in said, command


def test_the_id_of_an_error_names_the_command_that_shows_it(tmp_path: Path) -> None:
    """R49: an id that `structjob errors` prints is not taken for the id of a job."""
    line = {"record": "event", "job_id": "root", "ts": T0, "message": "disk full", "level": "error"}
    url = imported(tmp_path, job("root", parent=None, operation="backup"), line)
    error = json.loads(typed(url, "errors", "--json"))[0]["fingerprint"]
    said = typed(url, "show", error[:8], code=3)
    assert f"job not found: {error[:8]}; it is an error: structjob errors show {error}" in said


# -- logs
# --------------------------------------------------------------------------


def test_json_has_one_form_with_and_without_follow(tmp_path: Path) -> None:
    """faults 44: ``logs --json`` is JSON lines, as it is with ``-f``; ``--json=array`` is one
    array, and another form is refused.
    """
    lines = [
        {
            "record": "event",
            "job_id": "j",
            "seq": n,
            "ts": T0 + n,
            "message": f"m{n}",
            "level": "info",
        }
        for n in range(3)
    ]
    url = imported(tmp_path, job("j", parent=None), *lines)
    printed = typed(url, "logs", "--json").splitlines()
    assert [json.loads(line)["message"] for line in printed] == ["m0", "m1", "m2"]
    assert (
        typed(url, "logs", "j", "-f", "--json").splitlines()
        == printed
        == typed(url, "logs", "--json=lines").splitlines()
    )
    assert json.loads(typed(url, "logs", "--json=array")) == [json.loads(line) for line in printed]
    assert "use --json (or --json=lines)" in typed(url, "logs", "--json=yaml", code=2)
    assert "cannot be used with --json=array" in typed(url, "logs", "-f", "--json=array", code=2)


def test_logs_without_a_pager_name_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """faults 44: where a terminal without a pager has shown more lines than it has room for, it is
    said how to see the last ones.
    """
    lines = [
        {
            "record": "event",
            "job_id": "j",
            "seq": n,
            "ts": T0 + n,
            "message": f"m{n}",
            "level": "info",
        }
        for n in range(40)
    ]
    url = imported(tmp_path, job("j", parent=None), *lines)
    monkeypatch.setattr("structjob.cli.screen.is_terminal", lambda _: True)
    monkeypatch.setattr("structjob.cli.lines.is_terminal", lambda _: True)
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("NO_PAGER", "1"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    assert typed(url, "logs", "j").endswith(" logs j --last 50\n")
    assert "next:" not in typed(url, "logs", "j", "--last", "5")


@pytest.mark.parametrize(("unicode", "sign"), [(True, "≥"), (False, ">=")])
def test_what_crashed_shows_at_least_how_long_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unicode: bool, sign: str
) -> None:
    """When a process was killed is unknown: its duration until the last sign of life is a minimum,
    and without a sign of life there is none (R49).
    """
    monkeypatch.setattr(tables, "speaks_unicode", lambda: unicode)
    began = {"status": "running", "duration_ms": None}
    db = imported(
        tmp_path,
        job("killed", parent=None, operation="killed", **began),
        job("at-once", parent=None, operation="at-once", **began),
        step(2, "killed", **began),
        {"record": "event", "ts": T0 + 10.3, "message": "last", "job_id": "killed"},
    )
    rows = {line.split(" ", 1)[0]: line for line in typed(db, "jobs").splitlines()}
    assert f" {sign} 10.3s " in rows["killed"]
    assert "0ms" not in rows["at-once"]
    for words in (("jobs", "--attempts"), ("show", "at-once")):
        assert "0ms" not in typed(db, *words)
    assert f"{sign} 10.3s" in typed(db, "jobs", "--attempts")
    assert f"{sign} 8.30s" in typed(db, "show", "killed")


def test_the_error_of_a_job_is_what_ended_it(tmp_path: Path) -> None:
    """A step that the job recovered from shows its error on its own line. It was shown as the error
    of the job, and a child's own error was hidden behind it.
    """
    url = imported(
        tmp_path,
        job("root", parent=None, operation="nightly"),
        step(1, **error("no route to host", "OSError")),
        step(2),
        job("child", 1, description="the child", **error("checksum mismatch")),
        step(3, "child", **error("too slow", "TimeoutError")),
    )
    shown = typed(url, "show", "root")
    assert shown.count("OSError: no route to host") == 1
    assert "\nError" not in shown
    assert "ValueError: checksum mismatch" in shown
    assert "TimeoutError: too slow" in shown
