"""What users complain of in other tools' log viewers, and may not complain of in these pages.

The numbers are those of the complaints in the specification of the pages; 1, 5 and 6 are tested in
``test_web_budgets.py`` and ``test_web_proxies.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import serve, stop, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

VIEWER = "document.querySelector('structjob-logs')"
LIVE = Path(__file__).with_name("live.py")
AT_END = f"{VIEWER}.box.scrollTop + {VIEWER}.box.clientHeight > {VIEWER}.tall.offsetHeight - 2"
TOP_ROW = f"(() => {{ const v = {VIEWER}, y = v.box.getBoundingClientRect().top; return [...v.tall.children].map((one) => [one.getBoundingClientRect().top - y, one.dataset.key]).filter(([at]) => at >= 0).sort((a, b) => a[0] - b[0])[0]; }})()"  # fmt: skip
"""Where the first whole row stands below the viewer's edge, and its line."""


def ask(site: str, path: str):
    """The API's answer."""
    with urllib.request.urlopen(f"{site}api/v1/{path}") as answer:
        return json.load(answer)


def ids(lines) -> list[str]:
    return [f"{one['session_id']}:{one['seq']}" for one in lines]


@contextmanager
def running_job(url: str, name: str) -> Iterator[Callable[[int], None]]:
    """A job that runs in another process; the function has it log so many lines."""
    writer = subprocess.Popen(
        [sys.executable, str(LIVE), url, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None

    def write(lines: int) -> None:
        print(lines, file=writer.stdin, flush=True)
        assert writer.stdout is not None
        assert writer.stdout.readline()

    try:
        assert writer.stdout.readline()
        yield write
    finally:
        writer.stdin.close()
        writer.wait(30)
        writer.stdout.close()


@pytest.fixture
def empty(tmp_path) -> str:
    """The URL of a database of its own."""
    url = f"sqlite:///{tmp_path}/own.db"
    subprocess.run([sys.executable, "-m", "structjob", "--db", url, "migrate"], check=True, capture_output=True)  # fmt: skip
    return url


@contextmanager
def pages_of(url: str, *options: str) -> Iterator[str]:
    server, address = serve(url, *options)
    try:
        yield address
    finally:
        stop(server)


# -- 3. It jumps while I read


def test_3_the_end_of_a_job_moves_nothing_and_brings_its_last_lines(empty, watched):
    """Whether its page is followed or read, the lines stay, and the last ones are there (R44)."""
    with pages_of(empty) as site:
        for read in (False, True):
            with running_job(empty, f"ends-{read}") as write:
                write(300)
                page = watched.page()
                page.goto(f"{site}jobs/ends-{read}")
                until(page, f"{VIEWER}?.state === 'live' && {VIEWER}.lines.length >= 300")
                until(page, AT_END)
                if read:
                    page.locator("structjob-logs").hover()
                    page.mouse.wheel(0, -900)
                    page.get_by_role("button", name="Paused").wait_for()
                    page.wait_for_timeout(300)  # until the wheel has come to rest
                    stood = page.evaluate(TOP_ROW)
                write(50)
            until(page, f"{VIEWER}.state === 'ended'")
            assert page.evaluate(f"{VIEWER}.lines.at(-1).message").startswith("follow-me completed")
            assert page.evaluate(f"{VIEWER}.lines.map((v) => v.session_id + ':' + v.seq)") == ids(
                ask(site, f"logs?job=ends-{read}&limit=1000")["items"]
            )
            if read:
                assert page.evaluate(TOP_ROW) == stood
                page.keyboard.press("r")
            until(page, AT_END)
            page.close()


def test_3_a_job_that_is_tried_again_is_followed_again(empty, watched, tmp_path):
    """The page of a failed job does not say "failed" while its next attempt runs (R44)."""
    program = tmp_path / "again.py"
    program.write_text(
        "import sys, structjob\n"
        "with structjob.Tracker(sys.argv[1]) as tracker:\n"
        "    for attempt in range(2):\n"
        "        try:\n"
        "            with tracker.job('again', job_id='01890000-0000-7000-8000-000000000001', external_job_id='again'):\n"
        "                print('begun', flush=True)\n"
        "                sys.stdin.readline()\n"
        "                raise ValueError(attempt)\n"
        "        except ValueError:\n"
        "            sys.stdin.readline()\n"
    )
    runs = subprocess.Popen(
        [sys.executable, str(program), empty], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert runs.stdin is not None
    assert runs.stdout is not None
    try:
        assert runs.stdout.readline()
        with pages_of(empty) as site:
            page = watched.page()
            page.goto(f"{site}jobs/again")
            until(page, f"{VIEWER}?.state === 'live'")
            print(file=runs.stdin, flush=True)
            page.get_by_role("heading", level=1).get_by_text("failed").last.wait_for()
            print(file=runs.stdin, flush=True)
            page.get_by_role("button", name="Attempt 2").wait_for(timeout=20_000)
            until(page, f"{VIEWER}.state === 'live'")
            print(file=runs.stdin, flush=True)
            page.get_by_role("heading", level=1).get_by_text("failed").last.wait_for()
            page.close()
    finally:
        runs.stdin.close()
        runs.wait(20)
        runs.stdout.close()


# -- 4. Scrolling, search and download do not show everything


def test_4_repeats_that_fold_to_few_rows_do_not_hide_what_is_before_them(empty, watched, tmp_path):
    """A wheel loads older lines although nothing can be scrolled (R47)."""
    program = tmp_path / "same.py"
    program.write_text(
        "import sys, structlog, structjob\n"
        "structjob.configure(console=False)\n"
        "log = structlog.get_logger()\n"
        "with structjob.Tracker(sys.argv[1]):\n"
        "    log.info('the first line')\n"
        "    for number in range(12_000): log.info('the same', n=number)\n"
    )
    subprocess.run([sys.executable, str(program), empty], check=True)
    with pages_of(empty) as site:
        page = watched.page()
        page.goto(f"{site}logs")
        until(page, f"{VIEWER}?.lines.length > 5000")  # by itself
        page.locator("structjob-logs").hover()
        for _ in range(100):
            page.mouse.wheel(0, -500)
            page.wait_for_timeout(50)
            if page.get_by_text("the first line").count():
                break
        assert page.evaluate(f"{VIEWER}.lines.length") == 12_001
        page.close()
