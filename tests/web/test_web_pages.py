"""Every page in a browser: both themes, two widths, its keys, links, live lines, hostile text."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cli_support import preforked, python
from conftest import (
    AT_END,
    TOP_ROW,
    VIEWER,
    ask,
    pages_of,
    running_job,
    scroll_up,
    serve,
    stop,
    until,
)

from structjob.text.amounts import fraction
from structjob.web.tokens import TokenFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PAGES = {
    "overview": "",
    "jobs": "jobs",
    "job": "jobs/gui-17",
    "tree": "jobs/gui-17?view=tree",
    "flat": "jobs/gui-17?view=flat",
    "logs": "logs?since=-24h",
    "logs-empty": "logs?level=error&logger=migrate.nosuch",
    "errors": "errors",
    "sessions": "sessions",
    "storage": "storage",
}


def settled(page) -> None:
    """Wait until the page has asked for all that it shows."""
    page.locator("main > *").first.wait_for()
    page.wait_for_load_state("networkidle")


@contextmanager
def pages_of_program(program: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A program that runs in another process, and the pages of its database.

    It prints a line when it is ready, and reads one wherever it waits.

    Yields:
        The address of the pages, and a function that has the program go on.
    """
    url = f"sqlite:///{program.with_suffix('.db')}"
    runs = preforked.start(
        program.read_text(), [url], program.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert runs.stdin is not None
    assert runs.stdout is not None

    def go_on() -> None:
        assert runs.stdin is not None
        runs.stdin.write(b"\n")
        runs.stdin.flush()

    try:
        assert runs.stdout.readline()
        with pages_of(url) as address:
            yield address, go_on
        go_on()
        assert runs.wait(30) == 0
    finally:
        runs.close()


@pytest.mark.parametrize("name", PAGES)
def test_each_page_shows_its_content_without_an_error_and_without_sideways_scroll(
    site, watched, name
):
    """In both themes, and loaded in two widths (R47)."""
    page = watched.page(shared=True)
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(site + PAGES[name])
        settled(page)
        for theme, color in (("light", "rgb(251, 251, 249)"), ("dark", "rgb(15, 17, 19)")):
            page.emulate_media(color_scheme=theme)
            assert page.locator("main").inner_text().strip()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == color
        page.emulate_media(color_scheme="light")


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> bytes:
    """The database that `structjob demo` leaves."""
    path = tmp_path_factory.mktemp("demo") / "demo.db"
    python(
        "-m",
        "structjob",
        "--db",
        f"sqlite:///{path}",
        "demo",
        "--once",
        cwd=path.parent,
        check=True,
    )
    assert not path.with_name("demo.db-wal").exists()
    return path.read_bytes()


def test_a_newcomer_finds_by_keyboard_what_failed_in_the_demo_and_why(watched, demo, tmp_path):
    """The overview lists failed jobs at any depth and follows by the WebSocket; from there the keys
    lead to the failed part, its first error, how often it happened, and the lines around it (R47).
    """
    (tmp_path / "demo.db").write_bytes(demo)
    server, address = serve(f"sqlite:///{tmp_path}/demo.db")
    try:
        page = watched.page(shared=True)
        page.goto(address)
        failed = ask(address, "jobs?status=failed")["items"]
        assert failed
        assert all(job["parent_job_id"] for job in failed)
        section = page.locator("section", has=page.get_by_role("heading", name="Needs attention"))
        listed = section.locator("a.line-item")
        listed.first.wait_for()
        assert listed.count() == len(failed)
        assert failed[0]["operation"] in listed.first.inner_text()
        until(page, "document.querySelector('header .live').innerText === 'live · ws'")
        # The hour of the demo is the last one, and not over.
        chart = page.locator(".through svg.chart")
        assert chart.locator("g").count() == 24
        assert chart.locator("g").last.locator(".open-hour").count() == 1

        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/jobs/{failed[0]['id']}")
        row = page.locator("structjob-logs .row.cursor")
        row.wait_for()
        assert "ChecksumMismatch" in row.inner_text()
        assert "job_id=" not in row.inner_text()
        page.get_by_role("link", name="1× in 1 job").wait_for()
        page.keyboard.press("x")
        page.wait_for_url("**/errors/*")
        assert page.locator(".errsum dd").first.inner_text() == "1"
        row.wait_for()
        assert "ChecksumMismatch" in row.inner_text()
        page.get_by_text("file verified").first.wait_for()
        page.close()
    finally:
        stop(server)


def test_the_page_of_a_session_counts_what_is_stored(watched, demo, tmp_path):
    """A line that is gone without a reason is missing, as `structjob verify` says (R47)."""
    path = tmp_path / "demo.db"
    path.write_bytes(demo)
    with closing(sqlite3.connect(path)) as connection, connection:
        session, seqs = connection.execute("SELECT session_id, last_seq FROM structjob_sessions").fetchone()  # fmt: skip
        connection.execute("DELETE FROM structjob_logs WHERE seq = 7")
    server, address = serve(f"sqlite:///{path}")
    try:
        page = watched.page(shared=True)
        page.goto(f"{address}sessions/{session}")
        page.locator(".figures .fig").first.wait_for()
        figures = page.locator(".figures .fig").all_inner_texts()
        assert [figure.split() for figure in figures[:4]] == [
            [f"{seqs}", "lines", "accepted"],
            [f"{seqs - 1}", "stored"],
            ["0", "not", "stored,", "with", "a", "reason"],
            ["1", "missing"],
        ]
        settled(page)
        page.close()
    finally:
        stop(server)


def test_an_opened_line_has_each_value_beside_its_name(site, watched):
    """Whether or not a row has buttons (R47)."""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs/gui-17")
    page.locator("structjob-logs .row.cursor").wait_for()
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    names = page.locator("structjob-logs .kv > span:not(.do)")
    names.first.wait_for()
    values = page.locator("structjob-logs .kv > div")
    assert names.count() == values.count() >= 5
    for name, value in zip(names.all(), values.all(), strict=True):
        left, right = name.bounding_box(), value.bounding_box()
        assert abs(left["y"] - right["y"]) < 2, name.inner_text()
        assert left["x"] < right["x"], name.inner_text()


def test_every_key_does_what_the_help_says(site, watched):
    """(R47)"""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs/gui-17")
    row = page.locator("structjob-logs .row.cursor")
    row.wait_for()
    first = row.get_attribute("data-key")
    page.keyboard.press("j")
    until(page, f"{VIEWER}.cursor !== {first!r}")
    page.keyboard.press("k")
    until(page, f"{VIEWER}.cursor === {first!r}")
    page.keyboard.press("E")
    until(page, f"{VIEWER}.cursor !== {first!r}")
    page.keyboard.press("e")
    until(page, f"{VIEWER}.cursor === {first!r}")
    page.keyboard.press("w")
    until(page, f"{VIEWER}.hasAttribute('wrap')")
    page.keyboard.press("c")
    page.get_by_text("in context, all filters off").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("in context, all filters off").wait_for(state="detached")
    page.keyboard.press("S")
    page.wait_for_url("**step=**")
    page.keyboard.press("Escape")
    until(page, "!location.search.includes('step=')")
    page.keyboard.press("2")
    page.wait_for_url("**view=tree**")
    page.keyboard.press("u")
    page.get_by_role("button", name="UTC").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog", name="Keys").wait_for(state="detached")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.hasAttribute('data-find')")
    page.keyboard.type("jJ")  # no key of the page while one types
    assert "/jobs/gui-17" in page.url
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    until(page, "document.documentElement.dataset.theme")
    for key, address in (("o", ""), ("L", "logs"), ("R", "errors"), ("J", "jobs")):
        page.keyboard.press(key)
        page.wait_for_url(site + address)
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("gui-17")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/gui-17")


def test_the_waterfall_of_a_running_job_grows_without_being_asked_for_again(tmp_path, watched):
    """Steps, their ends and child jobs arrive as rows; the tree is asked for at the start and when
    the job has ended (R44, R47).
    """
    program = tmp_path / "grows.py"
    program.write_text(
        "import sys, structjob\n"
        "def told():\n"
        "    print('ready', flush=True)\n"
        "    return sys.stdin.readline()\n"
        "with structjob.Tracker(sys.argv[1]) as tracker:\n"
        "    with tracker.job('grows', external_job_id='grows') as job:\n"
        "        with job.step('first'):\n"
        "            told()\n"
        "        with job.step('second'):\n"
        "            with job.step('inner'): pass\n"
        "            with tracker.job('child', parent=job) as child, child.step('below'):\n"
        "                told()\n"
        "        told()\n"
        "    print('ended', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with pages_of_program(program) as (site, go_on):
        page = watched.page(shared=True)
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url) if "/tree?" in one.url else None)

        def rows():
            # In one look, because a row may come between two.
            return dict(
                page.locator(".wf [role=row]").evaluate_all(
                    """all => all.filter((row) => row.querySelector(".nm")).map((row) => [
                        row.querySelector(".nm").innerText,
                        row.querySelector(".step svg.g").getAttribute("aria-label"),
                    ])"""
                )
            )

        def shown(**wanted):
            end = time.monotonic() + 20
            while rows() != wanted:
                assert time.monotonic() < end, rows()
                page.wait_for_timeout(100)

        page.goto(f"{site}jobs/grows")
        until(page, f"{VIEWER}?.state === 'live'")
        shown(first="running")
        at_start = len(asked)
        go_on()
        shown(first="completed", second="running", inner="completed", child="running", below="running")  # fmt: skip
        go_on()
        shown(first="completed", second="completed", inner="completed", child="completed", below="completed")  # fmt: skip
        page.wait_for_timeout(2_500)  # longer than it waits for rows before it asks
        assert len(asked) == at_start
        go_on()
        page.get_by_role("heading", level=1).get_by_text("completed").last.wait_for()
        until(page, f"{VIEWER}.state === 'ended'")
        assert len(asked) > at_start
        page.close()


def test_a_step_that_begins_does_not_scroll_the_waterfall_back(tmp_path, watched):
    """The chosen step is brought into view once, when it is chosen; a waterfall that was scrolled
    to other steps stays there while rows of a running job arrive (R44).
    """
    program = tmp_path / "long.py"
    program.write_text(
        "import sys, structjob\n"
        "with structjob.Tracker(sys.argv[1]) as tracker:\n"
        "    with tracker.job('long', external_job_id='long') as job:\n"
        "        for number in range(60):\n"
        "            with job.step(chr(97 + number % 26) * (number // 26 + 1)): pass\n"
        "        print('ready', flush=True)\n"
        "        sys.stdin.readline()\n"
        "        with job.step('later'):\n"
        "            sys.stdin.readline()\n"
    )
    with pages_of_program(program) as (site, go_on):
        page = watched.page(shared=True)
        page.goto(f"{site}jobs/long")
        wf = page.locator(".wf")
        wf.get_by_text("aa", exact=True).wait_for()
        page.keyboard.press("]")
        page.locator(".wf [aria-selected=true]").wait_for()
        wf.evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
        assert wf.evaluate("(box) => box.scrollTop") > 100
        go_on()
        wf.get_by_text("later").wait_for()
        assert wf.evaluate("(box) => box.scrollTop") > 100
        page.close()


def test_a_link_to_a_line_opens_on_that_line_with_its_filters_after_a_reload_and_back(
    site, watched
):
    """(R47)"""
    lines = ask(site, "logs?level=warning&limit=200")["items"]
    line = lines[60]
    name = f"{line['session_id']}:{line['seq']}"
    page = watched.page(shared=True)
    page.goto(f"{site}logs?level=warning&at={name}")
    row = page.locator("structjob-logs .row.cursor")
    row.wait_for()
    assert row.get_attribute("data-key") == name
    # again and again, because lines that come meanwhile are drawn anew
    until(page, f"((box) => box && 200 < box.y && box.y < 860)({VIEWER}.box.querySelector('.row.cursor')?.getBoundingClientRect())")  # fmt: skip
    page.reload()
    row.wait_for()
    assert row.get_attribute("data-key") == name
    page.keyboard.press("J")
    page.wait_for_url(f"{site}jobs")
    page.go_back()
    row.wait_for()
    assert "level=warning" in page.url
    shown = page.evaluate(f"{VIEWER}.lines.map((one) => one.level)")
    assert set(shown) <= {"warning", "error", "critical"}


def test_scrolling_to_the_top_shows_every_line_that_the_database_has(site, watched):
    """(R47)"""
    page = watched.page(shared=True)
    page.goto(f"{site}logs")
    until(page, f"{VIEWER}?.lines.length > 100")
    for _ in range(200):
        done = page.evaluate(
            f"(() => {{ const v = {VIEWER}; v.box.scrollTop = 0; return v.lines.length; }})()"
        )
        page.wait_for_timeout(30)
        if done == ask_count(site):
            break
    wanted = [f"{one['session_id']}:{one['seq']}" for one in ask(site, "logs?limit=10000")["items"]]
    assert page.evaluate(f"{VIEWER}.lines.map((v) => v.session_id + ':' + v.seq)") == wanted


def ask_count(site: str) -> int:
    return int(ask(site, "logs/count")["count"])


def test_each_status_of_the_jobs_page_says_how_many_jobs_it_lists(site, watched):
    """The number on the button is that of the list behind it, also with another filter (R47)."""
    page = watched.page(shared=True)
    for more in ("", "operation=vm-migrate"):
        page.goto(f"{site}jobs?{more}")
        button = page.get_by_role("group", name="status").get_by_role("button", name="Failed")
        button.locator("b").wait_for()
        number = int(button.locator("b").inner_text())
        listed = ask(site, f"jobs?status=failed&limit=1000&{more}")["items"]
        assert number == len(listed) > 0


def headings(page):
    """The first words of the titles of the columns, once there are rows."""
    page.get_by_role("row").nth(1).wait_for()
    titles = page.locator("table.jobs th").filter(visible=True)
    return [one.split()[0] for one in titles.all_inner_texts()]


def test_the_list_of_jobs_says_how_many_lines_warnings_and_errors_each_has(site, watched):
    """With those of its child jobs, as its log has them; each number leads to its lines (R47)."""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs?owner=ada")
    row = page.get_by_role("row").filter(has_text="gui-17")
    for title, query in (("lines", ""), ("errors", "&level=error"), ("warnings", "&levels=warning")):  # fmt: skip
        number = ask(site, f"logs/count?job=gui-17{query}")["count"]
        assert number > 1
        link = row.get_by_title(re.compile(f"^{number} {title}$"))
        link.wait_for()
        assert link.inner_text() == str(number)
    page.get_by_role("button", name="child jobs of vm-migrate").first.click()
    kid = page.locator("tr.kid", has_text="part-2")
    link = kid.get_by_title("1 error", exact=True)
    link.click()
    page.wait_for_url("**/jobs/*?level=error")
    page.locator("structjob-logs .row .error").wait_for()
    page.set_viewport_size({"width": 900, "height": 900})  # no room for all of them
    page.go_back()
    usual = ["Job", "Family", "Detail", "Started", "Took", "vs", "E", "Owner", "Host", "Id"]
    assert headings(page) == usual


def test_jobs_of_a_status_are_listed_by_keyboard(site, watched):
    """The filter offers the status and its values: without a mouse its buttons are far (R47)."""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs")
    page.get_by_role("row").nth(1).wait_for()
    page.keyboard.press("f")
    page.get_by_label("field", exact=True).and_(page.locator(":focus")).wait_for()
    offered = "[...document.querySelectorAll('#filter-names option')].map((one) => one.value)"
    assert "status" in page.evaluate(offered)
    page.keyboard.type("status")
    page.keyboard.press("Tab")
    until(page, "document.querySelector('#filter-values option[value=failed]')")
    page.keyboard.type("failed")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs?status=failed")
    page.get_by_role("button", name="Failed", pressed=True).wait_for()


def test_a_job_that_ends_has_its_lines_counted_again_until_the_last_ones_are_stored(
    tmp_path, watched
):
    """A job may have ended before its last events are stored. The numbers of one that ended long
    ago stay (R47).
    """
    program = tmp_path / "ends.py"
    program.write_text(
        "import sys, structjob\n"
        "structjob.configure(console=False)\n"
        "with structjob.Tracker(sys.argv[1]) as tracker:\n"
        "    with tracker.job('ended', job_id='ended') as job: job.log.error('it failed')\n"
        "    with tracker.job('runs', job_id='runs') as job:\n"
        "        print('ready', flush=True)\n"
        "        sys.stdin.readline()\n"
        "        job.log.error('it failed')\n"
        "    job.log.error('it failed, as is known now')\n"
        "    print('ended', flush=True)\n"
        "    sys.stdin.readline()\n"
    )

    def late(route):
        """The database has one error, as long as it has not stored the last one."""
        found = route.fetch().json()
        if len(asked) < 4:
            found = [one | {"errors": min(one["errors"], 1)} for one in found]
        route.fulfill(json=found)

    with pages_of_program(program) as (site, go_on):
        page = watched.page()
        page.clock.install()
        asked: list[list[str]] = []
        page.on(
            "request",
            lambda one: (
                "/events-by-job?" in one.url and asked.append(re.findall(r"[?&]job=(\w+)", one.url))
            ),
        )
        page.route("**/events-by-job?*", late)
        page.goto(f"{site}jobs")
        page.get_by_role("row").filter(has_text="ended").get_by_title("1 error").wait_for()
        until(page, "document.querySelector('header .live').innerText.startsWith('live')")
        page.clock.fast_forward(120_000)  # the first job ended long ago
        go_on()
        runs = page.get_by_role("row").filter(has_text="runs")
        runs.get_by_title("1 error").wait_for()
        before = len(asked)
        for _ in range(5):
            page.clock.run_for(10_000)
            if runs.get_by_title("2 errors").count():
                break
        runs.get_by_title("2 errors").wait_for()
        assert {id_ for ids in asked[before:] for id_ in ids} == {"runs"}
        page.clock.run_for(120_000)
        settled = len(asked)
        page.clock.run_for(120_000)
        assert len(asked) == settled
        page.unroute_all(behavior="wait")
        page.close()


def test_the_key_for_columns_opens_nothing_where_there_is_no_button(site, watched):
    """On a small screen the columns are not chosen, and the next Esc is that of the page (R47)."""
    page = watched.page(shared=True)
    page.set_viewport_size({"width": 700, "height": 900})
    page.goto(f"{site}jobs?owner=ada")
    headings(page)
    page.keyboard.press("c")
    page.keyboard.press("Escape")  # removes the filter
    page.wait_for_url(lambda url: "owner" not in url)
    assert page.locator(".choice").count() == 0


@pytest.mark.parametrize("kept", [True, False])
def test_the_columns_of_the_list_of_jobs_are_chosen_by_keyboard_and_stay(site, watched, kept):
    """The choice stays in the browser, or as long as the page if it keeps nothing (R47)."""
    page = watched.page(shared=True)
    if not kept:
        page.add_init_script(
            "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('refused', 'SecurityError'); } });"
        )
    page.goto(f"{site}jobs")
    usual = headings(page)
    assert usual == ["Job", "Family", "Detail", "Started", "Took", "vs", "Lines", "E", "W", "Owner", "Host", "Id"]  # fmt: skip
    page.keyboard.press("c")
    page.get_by_role("checkbox", name="Family").and_(page.locator(":focus")).wait_for()
    for key in ("Space", "ArrowDown", "ArrowDown", "ArrowDown", "Space"):
        page.keyboard.press(key)
    chosen = ["Job", "Detail", "Started", "Ended", *usual[4:]]
    assert headings(page) == chosen
    page.keyboard.press("Escape")
    page.get_by_role("checkbox", name="Family").wait_for(state="detached")
    page.keyboard.press("j")  # a key of the page again
    page.locator("tr.cur").wait_for()
    page.keyboard.press("L")
    page.wait_for_url("**/logs")
    page.keyboard.press("J")
    assert headings(page) == chosen
    page.reload()
    assert headings(page) == (chosen if kept else usual)
    page.get_by_role("button", name="Columns").click()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Reset").wait_for(state="detached")
    assert headings(page) == usual
    page.reload()
    assert headings(page) == usual


def test_a_job_that_was_slower_than_all_before_it_and_the_list_of_such_jobs(tmp_path, watched):
    """Its sign is as high as its text, and the address's filter is shown beside the list: without
    it, the list looked like that of all jobs, and an empty one like an empty database.
    """
    records = [
        {
            "record": "job", "id": f"n-{number}", "operation": "nightly", "started_at": f"2026-05-0{number}T02:00:00Z",
            "completed_at": f"2026-05-0{number}T02:{59 if number == 7 else 20 - number}:00Z",
        }
        for number in range(1, 8)
    ]  # fmt: skip
    file, url = tmp_path / "jobs.jsonl", f"sqlite:///{tmp_path}/slow.db"
    file.write_text("\n".join(map(json.dumps, records)))
    python("-m", "structjob", "--db", url, "import", file, check=True)
    page = watched.page(shared=True)
    with pages_of(url) as site:
        page.goto(f"{site}jobs/n-7")
        compared = page.locator(".rug")
        compared.get_by_text("slower than all").wait_for()
        assert compared.locator("svg.g").bounding_box()["height"] < 16
        page.goto(f"{site}jobs?sort=duration")
        page.get_by_role("columnheader", name="Took ↓").wait_for()
        page.goto(f"{site}jobs?slower=true")
        page.get_by_role("row").get_by_text("nightly").wait_for()
        assert page.locator("tbody tr").count() == 1
        page.locator(".chip", has_text="slower").get_by_role("button").last.click()
        until(page, "document.querySelectorAll('tbody tr').length === 7")
        page.goto(f"{site}jobs?parent_job_id=n-1")
        page.get_by_text("No job matches").wait_for()


def test_lines_of_several_jobs_name_their_job_where_there_is_no_room_for_columns(site, watched):
    """Also in a page of another site; a log of one job does not repeat its name (R47)."""
    page = watched.page(shared=True, width=400)

    def named(message, job):
        """Wait for a line that stands beside the name of a job, or beside none."""
        beside = "getComputedStyle(row.querySelector('.attrs'), '::before').content"
        until(page, f"[...{VIEWER}?.tall.querySelectorAll('.row:has(.attrs)') ?? []].some((row) => row.textContent.includes({message!r}) && {beside} === {json.dumps(job)})")  # fmt: skip
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(f"{VIEWER}.box.scrollWidth <= {VIEWER}.box.clientWidth")

    page.goto(f"{site}logs?q=snapshot+restored")
    named("snapshot restored", '"vm-migrate  "')
    page.goto(f"{site}logs?q=work+failed")
    named("work failed", '"– system  "')
    page.goto(f"{site}jobs/gui-17?q=slow+read")  # with its child jobs
    named("volume=pg-07-disk-1", '"copy-part  "')
    page.goto(f"{site}jobs?operation=inject-virtio&limit=1")
    page.locator("a.name").first.click()
    named("inject-virtio begins", "none")
    page.evaluate(
        f"document.body.replaceChildren(); const one = document.createElement('structjob-logs'); one.setAttribute('src', '{site}'); one.setAttribute('q', 'begins'); document.body.append(one);"
    )
    named("inject-virtio begins", '"inject-virtio  "')
    page.set_viewport_size({"width": 1280, "height": 900})
    named("inject-virtio begins", "none")


def test_find_counts_what_the_database_has_and_goes_from_hit_to_hit(site, watched):
    """The count is that of the database, not of the lines that are loaded (R47)."""
    page = watched.page(shared=True)
    page.goto(f"{site}logs?job=gui-17")
    until(page, f"{VIEWER}?.lines.length > 20")
    count = ask(site, "logs/count?text=slow%20read&job=gui-17")["count"]
    assert count > 0
    page.keyboard.press("/")
    page.keyboard.type("slow read")
    page.locator("label.field .n", has_text=re.compile(rf"^{count:,}$")).wait_for()
    page.keyboard.press("Enter")
    page.locator("structjob-logs .row.cursor mark").first.wait_for()


def test_lines_arrive_while_a_job_runs_and_reading_is_not_disturbed(story_url, site, watched):
    """Following pauses when one scrolls up: the first visible line stays where it is, and the pill
    counts what came meanwhile; ``r`` goes to the newest line (R44, R47).
    """
    with running_job(story_url, "gui-99") as write:
        write(300)
        page = watched.page(shared=True)
        page.goto(f"{site}jobs/gui-99")
        until(page, f"{VIEWER}?.state === 'live' && {VIEWER}.lines.length >= 300")
        before = page.evaluate(f"{VIEWER}.lines.length")
        write(100)
        until(page, f"{VIEWER}.lines.length === {before + 100}")
        until(page, AT_END)
        stood = scroll_up(page)
        write(1000)
        until(page, f"{VIEWER}.missed.lines === 1000")
        assert page.evaluate(TOP_ROW) == stood
        assert page.get_by_role("button", name="Paused").inner_text().startswith("Paused — 1,000 new, 10 errors")  # fmt: skip
        page.keyboard.press("r")
        page.get_by_role("button", name="Paused").wait_for(state="hidden")
        until(page, AT_END)
        names = page.evaluate(f"{VIEWER}.lines.map((one) => one.seq)")
        assert len(names) == len(set(names))
    page.get_by_role("heading", level=1).get_by_text("completed").last.wait_for()


def test_lines_that_the_server_will_not_give_end_the_following(site, watched):
    """More came than a stream begins with, and what lies between is refused: the viewer says so and
    asks no more; lines without those before them would hide a loss (R44, R47).
    """
    page = watched.page(shared=True)
    page.goto(site + "sessions")
    page.evaluate(
        "() => import(document.querySelector('link[rel=modulepreload][href$=\"app.js\"]').href.replace('app.js', 'logs.js'))"
    )
    page.evaluate("""() => {
      const line = (seq) => ({ session_id: 1, seq, ts: new Date().toISOString(), level: "info", message: `line ${seq}`, type: "system", kind: "log", stream: "system", attrs: {} });
      const refused = Object.assign(new Error("the token was revoked"), { status: 401, final: true });
      window.asked = 0;
      const viewer = document.createElement("structjob-logs");
      viewer.setAttribute("follow", "");
      viewer.client = {
        listLogs: async ({ start }) => { if (!start) return { items: [line(1)], next_cursor: null, previous_cursor: null, partial: false }; window.asked += 1; throw refused; },
        countLogsByTime: async () => ({ bars: [] }), countLogs: async () => ({ count: 1 }), listGaps: async () => [],
        stream: (wanted, handlers) => { setTimeout(() => { handlers.onState("live", "ws"); handlers.onLines([line(1000)], true); }); return { close() { window.left = true; } }; },
      };
      window.viewer = viewer;
      document.querySelector("main").replaceChildren(viewer);
    }""")
    until(page, "window.viewer.state === 'ended'")
    assert page.evaluate("[window.asked, window.left, window.viewer.lines.length]") == [
        1,
        True,
        1,
    ]
    assert "the token was revoked" in page.evaluate("window.viewer.shadowRoot.textContent")


def test_a_stream_cut_before_its_first_lines_says_that_others_may_be_before_them(site, watched):
    """The greeting has a cursor. A connection that goes on from there gets the lines that the first
    one was to begin with, and the viewer must read what lies before them: 100 lines were not shown
    (R44, R47).
    """
    page = watched.page(shared=True)
    page.goto(site + "sessions")
    page.evaluate("""async () => {
      window.asked = []; window.got = [];
      globalThis.WebSocket = class {
        constructor() { setTimeout(() => this.onopen()); }
        send(text) {
          const { after, last } = JSON.parse(text);
          if (!after && last !== 500) return; // the page's own
          window.asked.push(after ?? null);
          const say = (event, data) => this.onmessage({ data: JSON.stringify({ event, id: "1", data }) });
          const lines = [{ session_id: 1, seq: 113 }];
          say("hello", { cursor: "c1", heartbeat_ms: 15_000 });
          if (window.asked.length > 1) { say("lines", { lines, cursor: "c2" }); say("lines", { lines, cursor: "c3" }); }
          if (window.asked.length < 3) setTimeout(() => this.onclose({ code: 1006 }));
        }
        close() {}
      };
      const { Api } = await import(document.querySelector('link[rel=modulepreload][href$="app.js"]').href.replace('app.js', 'api.js'));
      new Api().stream({ last: 500 }, { onLines: (lines, begins) => window.got.push(begins) });
    }""")
    until(page, "window.got.length === 4")
    assert page.evaluate("window.asked") == [None, "c1", "c3"]
    assert page.evaluate("window.got") == [True, False, False, False]
    page.close()


def test_the_active_line_is_there_until_the_rows_are_drawn_anew(site, watched):
    """The active row was one that had been taken out, for a frame (R47)."""
    (line,) = ask(site, "logs?level=warning&limit=1")["items"]
    page = watched.page(shared=True)
    page.goto(f"{site}logs?level=warning&at={line['session_id']}:{line['seq']}")
    page.locator("structjob-logs .row.cursor").wait_for()
    active = "(v) => v.shadowRoot.getElementById(v.box.getAttribute('aria-activedescendant'))"
    until(page, f"({active})({VIEWER})")
    assert page.evaluate(f"() => {{ {VIEWER}.redraw(); return Boolean(({active})({VIEWER})); }}")
    page.evaluate(f"() => {{ window.old = ({active})({VIEWER}); }}")
    until(page, f"window.old !== ({active})({VIEWER})")  # and it is built anew
    page.close()


def test_rows_stay_in_their_order_while_lines_come_and_go(site, watched):
    """The rows of a viewer have the order of their lines, so that a selection and a screen reader
    take them one after the other; of lines beyond the most that are held, the oldest go, with their
    days, and repeats that are folded stay folded (R44, R47).
    """
    page = watched.page(shared=True, timezone_id="Asia/Kolkata")
    page.goto(site + "sessions")
    page.evaluate(
        "() => import(document.querySelector('link[rel=modulepreload][href$=\"app.js\"]').href.replace('app.js', 'logs.js'))"
    )
    page.evaluate("""() => {
      const start = Date.UTC(2026, 0, 1), day = 86_400_000;
      const line = (seq) => ({ session_id: 1, seq, ts: new Date(start + seq * day / 20_000).toISOString(), level: "info", message: seq % 10 ? "again" : `line ${seq}`, type: "system", kind: "log", stream: "system", attrs: {} });
      const viewer = document.createElement("structjob-logs");
      viewer.setAttribute("follow", "");
      viewer.client = {
        listLogs: async () => ({ items: [], next_cursor: null, previous_cursor: null, partial: false }),
        countLogsByTime: async () => ({ bars: [] }), countLogs: async () => ({ count: 0 }), listGaps: async () => [],
        stream: (wanted, handlers) => { window.come = (from, to) => handlers.onLines(Array.from({ length: to - from }, (_, i) => line(from + i)), false); setTimeout(() => handlers.onState("live", "ws")); return { close() {} }; },
      };
      window.viewer = viewer;
      document.querySelector("main").replaceChildren(viewer);
    }""")
    rows = "[...window.viewer.tall.children].map((row) => [row.getBoundingClientRect().top, row.item.line?.message ?? row.innerText])"
    until(page, "window.come && window.viewer.state === 'live'")
    for first in range(1, 60_001, 4_000):
        page.evaluate(f"window.come({first}, {first + 4_000})")
    until(
        page,
        "window.viewer.tall.lastChild?.item.line.message === 'again' && window.viewer.tall.lastChild.item.until.seq === 60_000 - 1 || window.viewer.tall.lastChild?.item.line.seq === 60_000",
    )
    assert page.evaluate("window.viewer.lines.length") <= 50_000
    at_end = page.evaluate(rows)
    assert [top for top, _ in at_end] == sorted(top for top, _ in at_end)
    page.evaluate("window.viewer.box.scrollTop -= 3_000")
    until(page, "window.viewer.paused")
    page.evaluate("window.viewer.box.scrollTop -= 150")
    until(page, f"{rows}.every(([top], i, all) => !i || all[i - 1][0] < top)")
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")  # fmt: skip
    # More rows are there above and below the view, and how many depends on their heights.
    seen = "(() => { const view = window.viewer.box.getBoundingClientRect(); return [...window.viewer.tall.children].filter((row) => { const at = row.getBoundingClientRect(), middle = (at.top + at.bottom) / 2; return middle > view.top && middle < view.bottom; }).map((row) => row.innerText).join('\\n'); })()"
    before = page.evaluate(seen)
    for _ in range(2):  # wrapped and back again, with its rows built anew
        page.evaluate("window.viewer.toggleAttribute('wrap')")
        page.evaluate("window.viewer.rezone()")
    until(page, f"{seen} === {json.dumps(before)}")
    page.close()


HOSTILE = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "</script><script>alert(1)</script>",
    "javascript:alert(1)", "\"><svg onload=alert(1)>", "${alert(1)}", "{{constructor.constructor('alert(1)')()}}",
    "__proto__", "\u202egpj.exe", "\x1b[31mred\x1b[0m\x1b]8;;http://evil\x07link\x1b]8;;\x07", "\ud7ff\uffff", "a" * 65_536,
]  # fmt: skip


def test_hostile_text_is_text_on_every_page(tmp_path, watched):
    """Markup, scripts, control and bidi characters appear as what they are: a name does not turn
    the direction of the text after it, and a long one does not widen the page (R47).
    """

    def tame() -> None:
        text = page.evaluate("document.body.innerText")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280

    url = f"sqlite:///{tmp_path}/hostile.db"
    program = (
        "import asyncio, json, sys, structlog, structjob\n"
        "structjob.configure(console=False)\n"
        "async def main():\n"
        "    async with structjob.Tracker(sys.argv[1]) as tracker:\n"
        "        log = structlog.get_logger('x')\n"
        "        for n, text in enumerate(json.load(sys.stdin)):\n"
        "            try:\n"
        "                async with tracker.job(text[:200], description=text[:200], owner=text[:60], external_job_id=f'h-{n}', metadata={text[:50]: text}, project=text[:60]) as job:\n"
        "                    async with job.step(text[:200]):\n"
        "                        log.error(text, **{'k ' + text[:40]: text})\n"
        "                        raise ValueError(text)\n"
        "            except ValueError: pass\n"
        "asyncio.run(main())\n"
    )
    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    python("-c", program, url, input=json.dumps(texts), check=True)
    server, site = serve(url)
    try:
        page = watched.page(shared=True)
        for path in ("", "jobs?root=0", "logs", "errors", "sessions", "storage"):
            page.goto(site + path)
            settled(page)
            tame()
        for number, text in enumerate(texts):
            page.goto(f"{site}jobs/h-{number}")
            page.locator("structjob-logs .row.cursor").wait_for()
            found = page.evaluate(f"{VIEWER}.lines.map((one) => one.message)")
            assert text in found
            assert page.locator("main script, main img, structjob-logs img").count() == 0
            tame()
        for text in texts[:8]:
            for path in ("jobs", "logs", "errors"):
                page.goto(f"{site}{path}?{'operation' if path != 'logs' else 'hl'}={urllib.parse.quote(text[:60])}")  # fmt: skip
                settled(page)
        page.close()
    finally:
        stop(server)


@pytest.mark.parametrize("back", ["Escape", "the back button"])
def test_the_way_back_to_a_list_finds_its_place(site, watched, back):
    """What was unfolded is unfolded, and the cursor stands on the job that was opened (R47)."""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs?root=1&operation=vm-migrate")
    page.locator("tr.cur").wait_for()
    for key in ("ArrowRight", "j", "j"):
        page.keyboard.press(key)
    stood = page.locator("tr.kid.cur .name").get_attribute("href")
    page.keyboard.press("Enter")
    page.locator("main h1", has_text="copy-part").wait_for()
    if back == "Escape":
        page.keyboard.press("Escape")
    else:
        page.go_back()
    page.locator("tr.kid.cur").wait_for()
    assert page.locator("tr.kid.cur .name").get_attribute("href") == stood
    assert page.url.endswith("/jobs?root=1&operation=vm-migrate")


def test_the_help_has_no_button_under_the_enter_key(site, watched):
    """Enter after ``?`` does not turn the keys off (R47)."""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs")
    page.locator("tr.cur").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Enter")
    assert "off while you type" in page.get_by_role("dialog").inner_text()


@pytest.mark.parametrize("width", [1280, 400])
def test_the_logs_open_with_their_newest_line_in_view(site, watched, width):
    """The histogram and the counts come later, and push no line out of view; the strip's frame
    reaches the end, as the lines do (R47).
    """
    page = watched.page(shared=True, width=width)
    page.goto(f"{site}logs?since=-24h")
    settled(page)
    until(page, "document.querySelector('.histo .axis-row span')")
    until(page, AT_END)
    if width == 1280:
        frame = page.locator("structjob-logs .frame").bounding_box()
        strip = page.locator("structjob-logs .strip").bounding_box()
        assert frame["y"] + frame["height"] == pytest.approx(strip["y"] + strip["height"], abs=1)


@pytest.mark.parametrize(("width", "row"), [(1280, 24), (400, 28)])
def test_the_waterfall_cuts_no_row_in_half(site, watched, width, row):
    """Its height is that of whole rows, at its top and its end (R47)."""
    page = watched.page(shared=True, width=width, height=560)
    page.goto(f"{site}jobs/gui-17")
    page.locator("structjob-logs .row").first.wait_for()
    box = "document.querySelector('.wf')"
    head = page.evaluate(f"{box}.querySelector('.wf-head').offsetHeight")
    assert page.evaluate(f"{box}.scrollHeight > {box}.clientHeight + {row}")
    for top in (0, 10_000):
        page.evaluate(f"{box}.scrollTop = {top}")
        assert page.evaluate(f"{box}.scrollTop % {row}") == 0
        assert page.evaluate(f"({box}.clientHeight - {head}) % {row}") == 0
    page.close()


def test_a_line_without_an_exception_is_legible_on_a_small_screen(empty_url, watched):
    """Its values stood one letter below the other: hidden buttons took the width. A job without an
    error offers no next one (R47).
    """
    with running_job(empty_url, "small") as write, pages_of(empty_url) as address:
        write(5)
        page = watched.page(shared=True, width=400)
        page.goto(f"{address}jobs/small")
        page.locator("structjob-logs .row").first.wait_for()
        assert not page.get_by_role("button", name="Next error").is_visible()
        write(100)
        page.get_by_role("button", name="Next error").click()
        value = page.locator("structjob-logs .open .kv div").first
        value.wait_for()
        assert value.bounding_box()["width"] > 200
        page.close()


def test_the_name_of_many_steps_stands_beside_their_bars_on_a_small_screen(empty_url, watched):
    """Their counts hid the name and stood on the bars (R47)."""
    code = (
        "import sys, structjob\n"
        "structjob.configure(console=False)\n"
        "with structjob.Tracker(sys.argv[1]) as tracker, tracker.job('copy', external_job_id='many') as job:\n"
        "    for number in range(300):\n"
        "        with job.step(f'file-{number}'):\n"
        "            pass\n"
    )
    python("-c", code, empty_url, check=True)
    with pages_of(empty_url) as address:
        page = watched.page(shared=True, width=400)
        page.goto(f"{address}jobs/many")
        row = page.locator(".wf .row").first
        assert row.locator(".nm").inner_text() == "file"
        assert row.locator(".nm").bounding_box()["width"] > 15
        note = row.locator(".note").first.bounding_box()
        assert note["x"] + note["width"] <= row.locator(".plot").bounding_box()["x"]
        page.close()


def test_numbers_of_lines_are_shown_as_on_the_console(site, watched):
    """(R44, R47)"""
    chosen = random.Random(7)
    numbers = [round(chosen.uniform(-1, 1) * 10 ** chosen.randint(-5, 14), chosen.randint(1, 17)) for _ in range(500)]  # fmt: skip
    numbers = [67.41666666666667, 99.99999999999999, *(one for one in numbers if 1e-6 <= abs(one) < 1e15)]  # fmt: skip
    page = watched.page(shared=True)
    page.goto(site + "sessions")
    script = "(numbers) => import(document.querySelector('link[rel=modulepreload][href$=\"app.js\"]').href.replace('app.js', 'logs-text.js')).then(({ valueText }) => numbers.map(valueText))"  # fmt: skip
    assert page.evaluate(script, numbers) == [fraction(one) for one in numbers]
    page.close()


def test_the_viewer_stands_in_any_page(site, watched):
    """``<structjob-logs>`` works alone, with attributes only (R47)."""
    page = watched.page(shared=True)
    markup = (
        "<!doctype html><title>mine</title><link rel=icon href='data:,'>"
        "<script type=module src='static/latest/logs.js'></script>"
        "<structjob-logs job=gui-17 level=warning height=300px></structjob-logs>"
    )
    page.route(f"{site}mine", lambda route: route.fulfill(content_type="text/html", body=markup))
    page.goto(f"{site}mine")
    page.locator("structjob-logs .row").first.wait_for()
    levels = set(page.evaluate(f"{VIEWER}.lines.map((one) => one.level)"))
    assert levels == {"warning", "error"}
    assert page.locator("structjob-logs").bounding_box()["height"] == 300


def test_the_client_lists_and_streams_log_messages(site, watched):
    """`LogStreamingService` returns and streams messages of the documented shape (R46)."""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs")
    found = page.evaluate(
        "async () => { const { LogStreamingService } = await import(new URL('static/latest/client.js', document.baseURI.replace(/jobs$/, '')));"
        " const service = new LogStreamingService(); const lines = await service.getJobRunLogs('gui-17', 5, 2);"
        " const first = await new Promise((resolve) => { const all = []; const s = service.streamJobRunLogs('gui-17', { onMessage: (one) => all.push(one), onState: (state) => { if (state === 'live') { s.close(); resolve(s.state); } } }); });"
        " return { lines, first }; }"
    )  # fmt: skip
    assert len(found["lines"]) == 5
    assert found["first"] == "ended"
    assert set(found["lines"][0]) >= {"type", "job_run_id", "timestamp", "level", "stream", "message"}  # fmt: skip


def test_a_stream_that_the_server_refuses_ends_and_one_that_must_wait_is_tried_again(site, watched):
    """Over a WebSocket, too: an unknown job was reported again every 38 seconds, for ever, and
    after a database that was away for a moment nothing came for as long (R44, R46).
    """
    page = watched.page(shared=True)
    page.goto(f"{site}storage")
    follow = """async (id) => {
      const { LogStreamingService } = await import(new URL('static/latest/client.js', document.baseURI));
      window.seen = [];
      window.followed = new LogStreamingService().streamJobRunLogs(id, {
        onMessage: () => {},
        onState: (state, transport, wait) => seen.push([state, transport, ...(wait ? [wait < 2000] : [])]),
        onError: (error) => seen.push(['error', error.status, error.message]),
      });
    }"""
    page.evaluate(follow, "nothing")
    until(page, "window.seen.length === 2")
    assert page.evaluate("[...seen, followed.state]") == [
        ["error", 404, "job not found: nothing"],
        ["ended", "ws"],
        "ended",
    ]
    asked = []

    def away_at_first(socket):
        if not asked:
            away = {"event": "error", "id": "1", "data": {"status": 503, "detail": "it is away"}}
            socket.send(json.dumps({"event": "hello", "id": None, "data": {}}))
            socket.on_message(lambda _: socket.send(json.dumps(away)))
        else:
            socket.connect_to_server()
        asked.append(socket)

    page.route_web_socket("**/stream/ws", away_at_first)
    page.evaluate(follow, "gui-17")
    until(page, "window.seen.length === 2")
    assert page.evaluate("seen") == [["reconnecting", "ws", True], ["live", "ws"]]
    page.close()


def test_not_found_and_an_empty_database_say_what_to_do(site, watched, tmp_path):
    """(R47)"""
    watched.expected = ("404",)
    page = watched.page(shared=True)
    page.goto(f"{site}jobs/gui-71")
    page.get_by_role("heading", name="No job has the id gui-71").wait_for()
    page.get_by_role("link", name="gui-17").first.click()
    page.wait_for_url("**/jobs/gui-17")
    python("-m", "structjob", "--db", f"sqlite:///{tmp_path}/empty.db", "migrate", check=True)
    server, empty = serve(f"sqlite:///{tmp_path}/empty.db")
    try:
        for path in ("", "jobs"):
            page.goto(empty + path)
            page.get_by_role("heading", name="No jobs in this database yet").wait_for()
        # What is to be typed fills the database that the page shows.
        typed = page.locator("pre.code").first.inner_text()
        assert typed == f"structjob --db {tmp_path}/empty.db demo"
        program = page.locator("pre.code").last.inner_text()
        compile(program, "first.py", "exec")  # its indentation was lost
        page.get_by_role("button", name="copy").first.wait_for()
        page.goto(f"{empty}logs")
        page.get_by_role("heading", name="No lines in this database yet").wait_for()
        page.goto(f"{empty}logs?level=error")
        page.get_by_text("Without the filters there is no line in this database").wait_for()
        page.close()
    finally:
        stop(server)


def test_a_running_job_shows_only_what_is_known_of_it(empty_url, watched):
    """Without a percentage there is no bar, and without a failed step or a second one no hint at
    keys that lead there (R47).
    """
    with running_job(empty_url, "bare") as write, pages_of(empty_url) as address:
        write(5)
        page = watched.page(shared=True)
        page.goto(f"{address}jobs/bare")
        page.locator("structjob-logs .row").first.wait_for()
        assert page.get_by_text("progress is not reported").is_visible()
        assert page.locator(".overall .progress").count() == 0
        assert page.locator(".bar-keys").inner_text().strip() == ""
        page.close()


def test_the_hints_at_failed_and_slowest_steps_lead_to_one(site, watched):
    """(R47)"""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs/gui-17")
    page.locator("structjob-logs .row").first.wait_for()
    assert page.locator(".bar-keys").inner_text().split() == ["failed", "F", "slowest", "S"]
    page.keyboard.press("S")
    page.wait_for_url("**step=*")


def test_statuses_are_chosen_in_one_line_on_a_small_screen(site, watched):
    """Their menu wrapped there (R47)."""
    page = watched.page(shared=True, width=400, theme="dark")
    page.goto(f"{site}jobs")
    page.locator("table.jobs tbody tr").first.wait_for()
    chosen = page.get_by_role("combobox", name="status")
    until(page, r"/Failed \d/.test(document.querySelector('select').innerText)")
    assert 24 <= chosen.bounding_box()["height"] <= 28
    assert not page.get_by_role("group", name="status").is_visible()
    chosen.select_option("failed")
    page.wait_for_url("**status=failed*")
    failed = ask(site, "jobs?status=failed&root=1&limit=1000")["items"]
    until(page, f"document.querySelectorAll('table.jobs tbody tr').length === {len(failed)}")
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("width", [1280, 400])
def test_the_login_names_the_page_it_leads_to_and_a_wrong_token(
    story_url, tmp_path, watched, width
):
    """Below the field, with a shape beside the color (R46, R47)."""
    file = tmp_path / "tokens.json"
    TokenFile(file).create("read")
    with pages_of(story_url, "--token-file", str(file)) as address:
        page = watched.page(shared=True, width=width)
        page.goto(f"{address}jobs?status=failed")
        assert page.get_by_text("You will return to /jobs?status=failed").is_visible()
        assert not page.locator("[role=alert] svg").is_visible()
        page.get_by_label("Token").fill("sj_wrong")
        page.keyboard.press("Enter")
        page.get_by_text("Unknown or expired token.").wait_for()
        assert page.locator("[role=alert] svg").is_visible()
        assert page.get_by_text("You will return to /jobs?status=failed").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()


def test_many_repeats_fold_and_what_is_before_them_fills_the_view(empty_url, watched, tmp_path):
    """12,000 equal lines are one row: what was logged before them is loaded without scrolling
    (R47).
    """
    code = (
        "import sys, structlog, structjob\n"
        "structjob.configure(console=False)\n"
        "log = structlog.get_logger()\n"
        "with structjob.Tracker(sys.argv[1], queue_size=20_000) as tracker:\n"
        "    with tracker.job('poller', external_job_id='poller'):\n"
        "        for number in range(100): log.info(f'before {number}')\n"
        "        for number in range(12_000): log.info('waiting', n=number)\n"
    )
    python("-c", code, empty_url, cwd=tmp_path, check=True)
    with pages_of(empty_url) as address:
        page = watched.page(shared=True)
        asked: list[str] = []
        page.on("request", lambda one: "api/v1/logs?" in one.url and asked.append(one.url))
        page.goto(f"{address}logs?job=poller")
        until(page, f"{VIEWER}?.lines.length > 12000")
        page.locator("structjob-logs .row", has_text="before 99").wait_for()
        until(page, f"{VIEWER}.tall.offsetHeight >= {VIEWER}.box.clientHeight")
        assert len(asked) < 12  # and not one for each 500 lines
        page.close()


@pytest.mark.parametrize("change", ["live", "column"])
def test_what_does_not_change_the_lines_leaves_them_where_they_are(empty_url, watched, change):
    """When Live is switched off, or a column added, nothing is read again (R47)."""
    with running_job(empty_url, "read-me") as write, pages_of(empty_url) as address:
        write(300)
        page = watched.page(shared=True)
        page.goto(f"{address}logs?job=read-me&live=1")
        until(page, f"{VIEWER}?.state === 'live' && {AT_END}")
        write(300)
        until(page, f"{VIEWER}.lines.length >= 600")
        page.locator("structjob-logs").hover()
        page.mouse.wheel(0, -500)
        until(page, f"{VIEWER}.paused")
        before = page.evaluate(TOP_ROW)
        asked: list[str] = []
        page.on("request", lambda one: "api/v1/logs?" in one.url and asked.append(one.url))
        if change == "live":
            page.locator("button.toggle", has_text="Live").click()
            until(page, f"{VIEWER}.state === 'ended'")
        else:
            page.evaluate("history.pushState(null, '', `${location.href}&cols=attr.n`); dispatchEvent(new PopStateEvent('popstate'))")  # fmt: skip
            until(page, f"{VIEWER}.getAttribute('columns').includes('attr.n')")
        page.wait_for_load_state("networkidle")
        assert page.evaluate(TOP_ROW) == before
        assert [one for one in asked if "order=desc" in one] == []
        page.close()


@pytest.fixture
def empty_url(tmp_path):
    """A database without a job."""
    return f"sqlite:///{tmp_path}/empty.db"
