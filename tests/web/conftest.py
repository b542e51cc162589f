"""A browser, a database with a day of work in it, and a server of its pages."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import story
from cli_support import MAIN, environment, preforked, python
from prefork import Forked, Preforked

CHROMIUM = Path("/usr/bin/chromium")
UNUSED = (
    "WebUIOmniboxPopup,WebUIOmniboxAimPopup,WebUIOmniboxFullPopup,SpareRendererForSitePerProcess"
)
"""What Chromium does for each window and page that no test needs: it loads the list of suggestions
below the address bar, which takes as long as a page of ours, and starts a process in advance.
"""
ROOT = Path(__file__).parents[2]
LIVE = Path(__file__).with_name("live.py")

VIEWER = "document.querySelector('structjob-logs')"
AT_END = f"{VIEWER}.box.scrollTop + {VIEWER}.box.clientHeight > {VIEWER}.tall.offsetHeight - 2"
TOP_ROW = f"(() => {{ const v = {VIEWER}, y = v.box.getBoundingClientRect().top; return [...v.tall.children].map((one) => [one.getBoundingClientRect().top - y, one.dataset.key]).filter(([at]) => at >= 0).sort((a, b) => a[0] - b[0])[0]; }})()"  # fmt: skip
"""Where the first whole row stands below the viewer's edge, and its line."""


FULL = os.environ.get("STRUCTJOB_TEST_FULL") == "1"
"""Whether to take the full time and number of lines of the specification, which are minutes."""

_IDLE = os.environ.get("STRUCTJOB_TEST_IDLE") == "1"


def mark(exact: float, busy: float) -> float:
    """Return the bound of the specification on a machine that does nothing else, and one that a
    busy machine keeps otherwise.
    """
    return exact if _IDLE else busy


_servers = Preforked(
    environment(), modules=("fastapi", "uvicorn", "structjob.web.app"), whole_end=False
)


def serve(url: str, *options: str, cwd: Path = ROOT) -> tuple[Forked, str]:
    """Start a server of the pages of a database; return it with its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = _servers.start(
        MAIN,
        ["--db", url, "serve", "--port", str(port), *options],
        cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}/"
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}api/v1/health", timeout=5):
                return server, address
        except OSError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.05)  # a process starts: there is nothing to wait on but its port
    stop(server)
    raise AssertionError("the server did not start")


def stop(server: Forked) -> None:
    """End a server."""
    server.terminate()
    server.wait(10)


@contextmanager
def pages_of(url: str, *options: str) -> Iterator[str]:
    """A server of the pages of a database; yields its address."""
    server, address = serve(url, *options)
    try:
        yield address
    finally:
        stop(server)


@contextmanager
def running_job(url: str, name: str) -> Iterator[Callable[[int], None]]:
    """A job that runs in another process; the function has it log so many lines."""
    writer = preforked.start(
        LIVE.read_text(), [url, name], ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None

    def write(lines: int) -> None:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(b"%d\n" % lines)
        writer.stdin.flush()
        assert writer.stdout.readline()

    try:
        assert writer.stdout.readline()
        yield write
    finally:
        writer.stdin.close()
        writer.wait(30)
        writer.stdout.close()


def ask(site: str, path: str):
    """The API's answer."""
    with urllib.request.urlopen(f"{site}api/v1/{path}") as answer:
        return json.load(answer)


@pytest.fixture(scope="session")
def story_url(tmp_path_factory) -> str:
    """A database with a day of jobs of a migration service."""
    directory = tmp_path_factory.mktemp("story")
    story.write(directory / "story.jsonl")
    url = f"sqlite:///{directory}/story.db"
    python("-m", "structjob", "--db", url, "import", directory / "story.jsonl", check=True)
    return url


@pytest.fixture(scope="session")
def site(story_url) -> Iterator[str]:
    """The address of the pages of the story."""
    with pages_of(story_url) as address:
        yield address


@pytest.fixture(scope="module")  # Playwright's loop runs as long: no other module may meet it
def browser(tmp_path_factory):
    """Debian's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    # Of two lists of disabled features the last one counts, and Playwright has one: add to that.
    starter = tmp_path_factory.mktemp("chromium") / "chromium"
    starter.write_text(
        "#!/bin/sh\n"
        "for word do\n"
        "  shift\n"
        f'  case $word in --disable-features=*) word="$word,{UNUSED}" ;; esac\n'
        '  set -- "$@" "$word"\n'
        "done\n"
        f'exec {CHROMIUM} "$@"\n'
    )
    starter.chmod(0o700)
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=str(starter),
            args=["--no-sandbox", "--disable-background-networking", "--process-per-site"],
        )
        yield opened
        opened.close()


def cancel_and_resolve(page, errors: str) -> None:
    """Cancel the job whose page is open; then resolve the first error on the page *errors*."""
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_placeholder("reason").fill("enough")
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("heading", level=1).get_by_text("cancelled").last.wait_for()
    page.goto(errors)
    page.get_by_role("row").nth(1).wait_for()
    page.keyboard.press("x")
    page.get_by_text("resolved", exact=False).first.wait_for()


_ASK = "(async (end) => { while (!(await (%s))) { if (performance.now() > end) return false; await new Promise((next) => setTimeout(next, 30)); } return true; })(performance.now() + %d)"


def until(page, expression: str, seconds: float = 15.0) -> None:
    """Wait until an expression is true, or the promise of something that is. The page itself asks
    again and again, for the content policy refuses the ``eval`` of Playwright's own waiting.
    """
    from playwright.sync_api import Error

    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            if page.evaluate(_ASK % (expression, 1_000 * left)):
                return
        except Error as exc:
            if "context was destroyed" not in str(exc):
                raise  # otherwise the page goes to another address meanwhile
    raise AssertionError(f"not true after {seconds:.0f} s: {expression}")


def scroll_up(page) -> list:
    """Scroll up by the wheel in lines that are followed, and return the `TOP_ROW` that is read."""
    page.locator("structjob-logs").hover()
    page.mouse.wheel(0, -900)
    page.get_by_role("button", name="Paused").wait_for()
    page.wait_for_timeout(300)  # until the wheel has come to rest
    return page.evaluate(TOP_ROW)


_FORGET = "try { if (!sessionStorage.begun) { localStorage.clear(); sessionStorage.begun = 1; } } catch { /* a page without a place to keep anything */ }"
"""Run before a page's scripts: in its first document of a site it removes what other tests kept."""


class Watched:
    """Makes pages, and remembers what went wrong in them."""

    def __init__(self, browser, shared: dict[str, Any]) -> None:
        self._browser = browser
        self._shared = shared
        self._opened: list = []
        self.wrong: list[str] = []
        self.expected: tuple[str, ...] = ()

    def page(self, *, width=1280, height=900, theme="light", shared=False, **options):
        """A new page in a context of its own; or, if *shared* is set, in one with the same options
        that tests of a module share: with the scripts in its cache, and in a process that runs
        already, a page loads in half of the time. For tests that leave nothing in their context:
        `page.clock` and what is set through `page.context` stay there.
        """
        options |= {"viewport": {"width": width, "height": height}, "color_scheme": theme}
        context = self._shared_context(options) if shared else self._context(options)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: message.type == "error" and self.wrong.append(f"console: {message.text} {message.location.get('url', '')}"),
        )  # fmt: skip
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        if shared:
            self._opened.append(page)
            page.add_init_script(_FORGET)
        return page

    def _context(self, options: dict[str, Any]):
        self._opened.append(context := self._browser.new_context(**options))
        return context

    def _shared_context(self, options: dict[str, Any]):
        kind = repr(options)
        if kind not in self._shared:
            self._shared[kind] = self._browser.new_context(**options)
            # A page that stays open keeps the process of the pages of this machine; no server has
            # to answer for it.
            kept = self._shared[kind].new_page()
            kept.route("**", lambda asked: asked.fulfill(content_type="text/html", body=""))
            kept.goto("http://127.0.0.1/")
            kept.unroute_all()
        self._shared[kind].clear_cookies()
        return self._shared[kind]

    def close(self) -> None:
        for opened in self._opened:
            opened.close()
        wrong = [one for one in self.wrong if not any(part in one for part in self.expected)]
        assert wrong == []


@pytest.fixture(scope="module")
def contexts(browser) -> dict[str, Any]:
    """The contexts that tests of a module share; they end with the browser."""
    return {}


@pytest.fixture
def watched(browser, contexts) -> Iterator[Watched]:
    """Pages in which a script's error, a refusal of the content policy or a failed request fails
    the test.
    """
    made = Watched(browser, contexts)
    yield made
    made.close()
