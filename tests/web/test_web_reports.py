"""What users reported of other programs that show logs in a browser, tried here.

The reports are public; each test names one or two of those that it was written after.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cli_support import python
from conftest import AT_END, VIEWER, ask, pages_of, running_job, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LONG = 9_000
MANY = 2_000
TEXTS = f"""
import sys, structlog, structjob

structjob.configure(console=False)
log = structlog.get_logger("texts")
with structjob.Tracker(sys.argv[1]) as tracker:
    with tracker.job("texts", external_job_id="texts") as job:
        log.info("\\x1b[1mbold\\x1b[22m plain \\x1b[38;5;9mred\\x1b[39m plain \\x1b[38:2:9:9:9mgray\\x1b[m\\x1b[2K end")
        log.info("İİİ a needle here", city="İİ")
        log.info("שלום 5", name="שלום", n=7)
        log.info("😀" * 3_000, many={{}}, **{{f"a{{n:02}}": n for n in range(30)}}, face="😀" * 300)
        log.info("y" * {LONG} + " far away")
        log.info("short", n=1)
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("it failed", n=3)
    with tracker.job("many", external_job_id="many"):
        for n in range({MANY}):
            log.info(f"number {{n}}", n=n)
        for n in range(40):
            log.info("the same", n=n)
        log.info("after")
"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Iterator[str]:
    """The address of the pages of jobs with all kinds of text."""
    url = f"sqlite:///{tmp_path_factory.mktemp('texts')}/texts.db"
    python("-c", TEXTS, url, check=True)
    with pages_of(url) as site:
        yield site


def reading(watched, address: str, lines: int, **options):
    """A page with the log of a job, once so many of its lines are loaded."""
    page = watched.page(shared=True, **options)
    page.goto(address)
    until(page, f"{VIEWER}?.lines.length >= {lines} && {VIEWER}.tall.children.length > 5")
    page.wait_for_load_state("networkidle")  # what comes above the lines moves them
    return page


def row_of(page, text: str):
    """The row of the first line with a text."""
    return page.locator("structjob-logs .row", has_text=text).first


def drag(page, first, last, *, release: bool = True, scroll: int = 0) -> None:
    """Select text by the mouse, from the message of one row to that of another."""
    box = first.bounding_box()
    page.mouse.move(box["x"] + 240, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 270, box["y"] + 12, steps=3)
    for _ in range(scroll):
        page.mouse.wheel(0, 2_000)
        page.wait_for_timeout(100)
    if last:
        box = last.bounding_box()
        page.mouse.move(box["x"] + 260, box["y"] + 10, steps=3)
    if release:
        page.mouse.up()


def copied(page) -> list[str]:
    """The lines that Ctrl-C puts on the clipboard."""
    page.evaluate("navigator.clipboard.writeText('')")
    page.keyboard.press("Control+c")
    until(page, "navigator.clipboard.readText().then(Boolean)", 5)
    return page.evaluate("navigator.clipboard.readText()").split("\n")


CLIPBOARD = ["clipboard-read", "clipboard-write"]


def test_text_stays_selected_while_its_row_is_out_of_view_and_is_copied_with_all_between(
    texts, watched
):
    """What is drawn is what is in view; a selection does not end there (Airflow 56448, 68846)."""
    page = reading(watched, f"{texts}jobs/many", 500, permissions=CLIPBOARD)
    drag(page, row_of(page, "number 5"), None, release=False, scroll=9)
    page.mouse.move(400, 700, steps=3)
    page.mouse.up()
    last = page.evaluate("(() => { const { endContainer } = document.getSelection().getComposedRanges({ shadowRoots: [document.querySelector('structjob-logs').shadowRoot] })[0]; return Number(endContainer.parentElement.closest('.row').item.line.attrs.n); })()")  # fmt: skip
    assert last > 500
    for _ in range(2):
        lines = copied(page)
        assert [int(line.rpartition("=")[2]) for line in lines] == list(range(5, last + 1))
        assert all(f" info     number {n} n={n}" in line for n, line in enumerate(lines, 5))
        page.evaluate(f"{VIEWER}.box.scrollTop = 0")
        page.wait_for_timeout(300)
    page.close()


def test_what_is_copied_are_lines_and_not_columns_below_each_other(texts, watched):
    """Of one line the columns with spaces between, of several lines all of each, with the traceback
    (Kibana 179731).
    """
    page = reading(watched, f"{texts}jobs/texts", 9, permissions=CLIPBOARD)
    box = row_of(page, "short").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 700, box["y"] + 10, steps=4)
    page.mouse.up()
    (line,) = copied(page)
    assert line.endswith(" I texts short  n=1")
    page.mouse.click(box["x"] + 700, box["y"] + 10)
    drag(page, row_of(page, "short"), row_of(page, "it failed"))
    short, failed, *traceback = copied(page)
    assert short.endswith("Z info     short n=1")
    assert "Z error    it failed n=3 error_type=ValueError " in failed
    assert [traceback[0], traceback[-1]] == ["    Traceback (most recent call last):", "    ValueError: broken"]  # fmt: skip
    page.close()


def test_selected_lines_include_those_of_folds_and_say_how_many_they_are(texts, watched):
    """Ctrl-A selects the lines, not the page; what is not loaded is not promised."""
    page = reading(watched, f"{texts}logs?job=many", 500, permissions=CLIPBOARD)
    until(page, AT_END)
    page.keyboard.press("Control+a")
    loaded = page.evaluate(f"{VIEWER}.lines.length")
    assert 500 <= loaded < MANY
    pill = page.locator("structjob-logs .pill")
    assert pill.inner_text().startswith(f"{loaded} loaded lines selected")
    pill.click()
    assert pill.inner_text().startswith(f"{loaded} loaded lines copied")
    assert len(page.evaluate("navigator.clipboard.readText()").split("\n")) == loaded
    page.keyboard.press("Escape")
    page.locator("structjob-logs .pill").wait_for(state="hidden")
    row_of(page, f"number {MANY - 1}").click()
    for key in "vjjj":  # the line before the fold, the fold, the line after it
        page.keyboard.press(key)
    assert pill.inner_text().startswith("42 lines selected")
    lines = copied(page)
    assert [line.rpartition("=")[2] for line in lines[:-1]] == [str(MANY - 1), *map(str, range(40))]
    assert lines[-1].endswith(" after")
    page.close()


def test_copying_needs_no_encrypted_connection(texts, watched):
    """A browser gives pages of http://… no clipboard to write to (Dozzle 5102)."""
    page = watched.page(shared=True, permissions=CLIPBOARD)
    page.add_init_script("window.board = navigator.clipboard; Object.defineProperty(navigator, 'clipboard', { value: undefined });")  # fmt: skip
    page.goto(f"{texts}jobs/texts")
    row_of(page, "short").click()
    said = []
    page.keyboard.press("v")
    page.keyboard.press("j")
    page.keyboard.press("Control+c")
    said.append(page.evaluate("board.readText()"))
    page.keyboard.press("Escape")
    page.keyboard.press("y")
    said.append(page.evaluate("board.readText()"))
    page.get_by_title("more", exact=True).click()
    page.get_by_role("button", name="Copy as curl").click()
    said.append(page.evaluate("board.readText()"))
    assert [" info     short n=1" in said[0], "&at=" in said[1] or "?at=" in said[1]] == [True, True]  # fmt: skip
    assert said[2].startswith(f"curl -s '{texts}api/v1/jobs/")
    page.close()


def test_the_lines_stand_still_as_soon_as_text_is_being_selected(tmp_path, watched):
    """Not only when the mouse is released: until then they would run away under it (DockTUI 33,
    Airflow 26912).
    """
    url = f"sqlite:///{tmp_path}/own.db"
    python("-m", "structjob", "--db", url, "migrate", check=True)
    with pages_of(url) as site, running_job(url, "pours") as write:
        write(300)
        page = watched.page(shared=True, permissions=CLIPBOARD)
        page.goto(f"{site}jobs/pours")
        until(page, f"{VIEWER}?.state === 'live' && {VIEWER}.lines.length >= 300")
        until(page, AT_END)
        drag(page, row_of(page, "n=000290"), None, release=False)
        write(500)
        until(page, f"{VIEWER}.missed.lines === 500")
        drawn = row_of(page, "n=000290").bounding_box()
        page.mouse.move(drawn["x"] + 280, drawn["y"] + 52, steps=3)
        page.mouse.up()
        assert [line[-6:] for line in copied(page)] == ["000290", "000291", "000292"]
        page.close()


def test_a_found_text_is_marked_where_it_is_and_shown_where_the_row_hides_it(texts, watched):
    """Letters that are longer in lower case move no mark; a hit beyond the edge of its row, or the
    first 4,096 characters, is opened (GitHub's logs, as Squid 1965 tells).
    """
    page = reading(watched, f"{texts}jobs/texts", 9)
    page.keyboard.press("/")
    page.keyboard.type("Needle")
    until(page, f"{VIEWER}.shadowRoot.querySelector('mark')")
    assert page.evaluate(f"[...{VIEWER}.shadowRoot.querySelectorAll('mark')].map((one) => one.textContent)") == ["needle"]  # fmt: skip
    page.keyboard.press("Control+a")
    page.keyboard.type("far away")
    page.locator("label.field .n", has_text="1").wait_for()
    page.keyboard.press("Enter")
    until(page, f"(() => {{ const found = {VIEWER}.shadowRoot.querySelector('mark')?.getBoundingClientRect(), view = {VIEWER}.getBoundingClientRect(); return found && found.top > view.top && found.bottom < view.bottom && found.right < view.right; }})()")  # fmt: skip
    page.close()


def test_nothing_of_a_line_is_left_out_without_a_sign(texts, watched):
    """A row says that it is cut, never within a character; opened, it has its whole message (Dozzle
    1135).
    """
    page = reading(watched, f"{texts}jobs/texts", 9)
    row = row_of(page, "😀")
    shown = row.inner_text()
    assert "\ufffd" not in shown.encode("utf-8", "replace").decode()
    assert shown.isascii() is False
    assert "… 1,904 more characters" in shown
    assert "… 7 more attributes" in shown
    row.click()
    until(page, f"[...{VIEWER}.tall.children].some((one) => one.textContent.includes('{'😀' * 3_000}'))")  # fmt: skip
    assert "… " not in row_of(page, "😀").locator(".msg").inner_text()
    page.keyboard.press("Enter")
    row_of(page, "yyyy").click()
    message = page.locator("structjob-logs .row", has_text="far away").locator(".msg")
    assert message.inner_text() == "y" * LONG + " far away"
    assert message.evaluate("(one) => one.getBoundingClientRect().right <= document.querySelector('structjob-logs').getBoundingClientRect().right")  # fmt: skip
    page.close()


def test_colors_of_a_terminal_end_where_they_end(texts, watched):
    """Bold ends at its own end, a palette's first colors are colors, other commands are one quiet
    word each (OpenShift 7606, Polyaxon 451).
    """
    page = reading(watched, f"{texts}jobs/texts", 9)
    message = row_of(page, "bold").locator(".msg")
    parts = message.evaluate("(one) => [...one.childNodes].map((part) => [part.className ?? '', part.textContent])")  # fmt: skip
    assert [[name.strip(), text] for name, text in parts] == [
        ["a-bold", "bold"],
        ["", " plain "],
        ["a-c-red", "red"],
        ["", " plain "],
        ["", "gray"],
        ["ctl", "␛[2K"],
        ["", " end"],
    ]
    page.close()


def test_a_key_that_chooses_a_character_of_an_input_method_does_nothing_else(site, watched):
    """Enter ends a Japanese word there, and opens no job (HyperDX 3118, Hister 641)."""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs")
    page.get_by_role("row").nth(1).wait_for()
    page.keyboard.press("Control+k")
    page.keyboard.type("gui-17")
    page.get_by_role("option").first.wait_for()
    page.evaluate("() => { const key = { key: 'Enter', bubbles: true, cancelable: true, composed: true }; document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { ...key, isComposing: true })); document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { ...key, keyCode: 229 })); }")  # fmt: skip
    assert page.url == f"{site}jobs"
    assert page.get_by_role("dialog").count() == 1
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1).get_by_text("failed").last.wait_for()
    page.close()


@pytest.mark.parametrize(
    ("key", "place"), [({"key": "k", "ctrlKey": True}, "dialog"), ({"key": "f"}, "form")]
)
def test_what_is_typed_at_once_after_a_key_that_opens_a_field_is_in_it(site, watched, key, place):
    """The field has the focus before the next key, not before the next frame: on a busy machine
    the first letter was lost, or was a key of the page.
    """
    page = watched.page(shared=True)
    page.goto(f"{site}jobs")
    page.get_by_role("row").nth(1).wait_for()
    page.keyboard.press("Control+k" if "ctrlKey" in key else "f")
    page.locator(f"{place} input:focus").wait_for()  # its script is loaded now
    page.keyboard.press("Escape")
    page.locator(f"{place} input:focus").wait_for(state="detached")
    focused = page.evaluate(
        """async (key) => {
            document.body.dispatchEvent(new KeyboardEvent("keydown", { ...key, bubbles: true, cancelable: true }));
            const { port1, port2 } = new MessageChannel();
            await new Promise((next) => { port1.onmessage = next; port2.postMessage(0); });
            return [document.activeElement.localName, document.activeElement.closest("dialog, form")?.localName];
        }""",
        key,
    )
    assert focused == ["input", place]
    page.close()


@pytest.mark.parametrize(("theme", "color"), [("light", "251, 251, 249"), ("dark", "15, 17, 19")])
def test_the_first_frame_has_the_chosen_theme(site, watched, theme, color):
    """Before any script has loaded: no white flash in a dark room (Airflow 39355)."""
    other = "dark" if theme == "light" else "light"
    page = watched.page(shared=True, theme=other)
    page.goto(f"{site}storage")
    page.evaluate(f"localStorage.setItem('structjob-theme', '{theme}')")
    page.route("**/*.js", lambda asked: None)  # no answer
    page.goto(f"{site}jobs", wait_until="commit")
    page.locator("#app").wait_for(state="attached")
    until(page, "document.querySelector('link[rel=stylesheet]')?.sheet")  # nothing is drawn before
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == f"rgb({color})"
    page.unroute("**/*.js")
    page.close()


def test_a_printed_page_is_whole_and_dark_on_white(site, watched):
    """Also in the dark theme, and below what the window shows (MediKeep 1038)."""
    page = watched.page(shared=True, theme="dark", width=800, height=400)
    page.goto(f"{site}jobs")
    page.get_by_role("row").nth(20).wait_for()
    page.evaluate("localStorage.setItem('structjob-theme', 'dark')")
    page.reload()
    page.get_by_role("row").nth(20).wait_for()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 26, 23)"
    assert page.evaluate("document.documentElement.scrollHeight") > 20 * 28
    assert not page.get_by_role("button", name="Search jobs").is_visible()
    page.close()


def test_what_is_chosen_is_seen_in_forced_colors(site, watched):
    """The system's colors leave no backgrounds: the chosen view and row have others or a frame."""
    page = watched.page(shared=True, forced_colors="active")
    page.goto(f"{site}jobs/gui-17")
    page.locator(".wf .row.cur").wait_for()
    chosen, rest = (
        page.locator(f".views [aria-pressed={which}]").first.evaluate("(one) => getComputedStyle(one).backgroundColor")
        for which in ("true", "false")
    )  # fmt: skip
    assert chosen != rest
    assert page.locator(".wf .row.cur").evaluate("(one) => getComputedStyle(one).outlineStyle") == "solid"  # fmt: skip
    check = page.locator(".wf .g path").first.evaluate("(one) => getComputedStyle(one).fill")
    assert check == "none"
    page.close()


@pytest.mark.parametrize("path", ["storage", "logs", "jobs/gui-17?at={line}", "jobs/nosuch"])
def test_a_page_that_could_not_be_read_is_read_again_without_a_hand(site, watched, path):
    """Where its link leads to; until then it claims nothing that it cannot know."""
    watched.expected = ("503", "404")
    lines = ask(site, "logs?job=gui-17&children=0&limit=20")["items"]
    line = f"{lines[15]['session_id']}:{lines[15]['seq']}"
    page = watched.page(shared=True)
    page.goto(f"{site}jobs")
    page.get_by_role("row").nth(1).wait_for()
    gone = json.dumps(
        {"title": "Service Unavailable", "status": 503, "detail": "connection refused"}
    )
    page.route("**/api/v1/**", lambda asked: asked.fulfill(status=503, content_type="application/problem+json", body=gone))  # fmt: skip
    page.goto(site + path.format(line=line))
    page.get_by_role("alert").get_by_text("The database is unavailable").wait_for()
    page.get_by_text("Connection refused.").wait_for()
    told = page.locator("body").inner_text()
    assert "from before" not in told
    assert "0 lines" not in told
    page.unroute("**/api/v1/**")
    page.get_by_role("alert").wait_for(state="hidden", timeout=30_000)
    page.get_by_text("Connection refused.").wait_for(state="hidden")
    if "{line}" in path:
        until(page, f"{VIEWER}?.cursor === '{line}'", 30)
    page.close()


def test_a_server_that_is_gone_is_named_in_words(texts, watched):
    """Not "Failed to fetch"; when it is back, the page is (Dozzle 2416)."""
    watched.expected = ("Failed to fetch", "ERR_")
    page = watched.page(shared=True)
    page.goto(f"{texts}jobs")
    page.get_by_role("row").nth(1).wait_for()
    page.route("**/api/v1/**", lambda asked: asked.abort())
    page.keyboard.press("Enter")
    page.get_by_text("The server does not answer. It is read again every 5 seconds.").wait_for()
    page.unroute("**/api/v1/**")
    until(page, f"{VIEWER}?.lines.length > 5", 30)
    page.close()
