"""The pages behind nginx, below a sub-path, without any option: with the prefix kept or stripped,
without WebSockets, with its defaults, and where it holds back what is streamed.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import (
    VIEWER,
    ask,
    cancel_and_resolve,
    mark,
    pages_of,
    running_job,
    serve,
    stop,
    until,
)

from structjob.web.tokens import TokenFile

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

PREFIX = "/ops/tools/"

UPGRADE = """
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
"""
HOST = "proxy_set_header Host $http_host;"
WAYS = {
    "kept": ("", HOST + UPGRADE),
    "stripped": ("/", HOST + UPGRADE),
    "no-upgrade": ("/", HOST),
    # nginx obeys X-Accel-Buffering; a proxy that does not is like this one.
    "buffering": ("/", HOST + "proxy_ignore_headers X-Accel-Buffering;"),
    "defaults": ("/", ""),
    "blank": ("/", HOST + UPGRADE + "gzip on; gzip_proxied any; gzip_types *;", "/ops tools/jobs/"),
}
"""By name, what follows the address of the server, what else the location says, and its prefix."""

CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location "{prefix}" {{
      proxy_pass http://{upstream}{path};
      {more}
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def token(tmp_path_factory) -> tuple[Path, str]:
    """A file of tokens, and the one in it."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.json"
    text, _ = TokenFile(file).create("read")
    return file, text


@pytest.fixture(scope="module")
def upstream(story_url, token) -> Iterator[str]:
    """The address of the pages without a proxy; they need a token."""
    server, address = serve(story_url, "--token-file", str(token[0]))
    yield address
    stop(server)


@pytest.fixture
def proxied(upstream, tmp_path, request) -> Iterator[str]:
    """The address of the pages behind nginx."""
    path, more, *prefix = WAYS[request.param]
    with behind(upstream, tmp_path, path, more, *prefix) as address:
        yield address


@contextmanager
def behind(upstream: str, directory: Path, path: str, more: str, prefix: str = PREFIX) -> Iterator[str]:  # fmt: skip
    """The address of *upstream* behind nginx."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    host = upstream.removeprefix("http://").rstrip("/")
    file, errors = directory / "nginx.conf", directory / "error.log"
    file.write_text(
        CONFIGURATION.format(
            directory=directory, port=port, prefix=prefix, upstream=host, path=path, more=more
        )
    )
    assert NGINX is not None
    nginx = subprocess.Popen([NGINX, "-c", str(file), "-e", str(errors)])
    address = f"http://127.0.0.1:{port}{urllib.parse.quote(prefix)}"
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"{address}api/v1/health", timeout=5):
                break
        except urllib.error.HTTPError:  # it asks for a password
            break
        except OSError:
            assert nginx.poll() is None, errors.read_text()
            time.sleep(0.05)  # a process starts: there is nothing to wait on but its port
    try:
        yield address
    finally:
        nginx.terminate()
        nginx.wait(10)


def log_in(page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


PAGES = ["", "jobs", "jobs/gui-17", "logs?since=-24h", "errors", "sessions", "storage"]


@pytest.mark.parametrize("proxied", WAYS, indirect=True)
def test_pages_logins_and_downloads_work_below_a_sub_path(proxied, token, watched):
    """Each page, its files, the login, links and downloads stay below the prefix (R45, R47)."""
    watched.expected = ("stream/ws",)  # a refused WebSocket stands in the console
    page = watched.page(shared=True)
    answers: list[tuple[int, str]] = []
    page.on("response", lambda answer: answers.append((answer.status, answer.url)))
    page.goto(f"{proxied}jobs/gui-17?level=error")
    assert page.url.startswith(f"{proxied}login?next=")
    log_in(page, token[1])
    page.locator("structjob-logs .row").first.wait_for()
    assert page.url == f"{proxied}jobs/gui-17?level=error"
    for address in PAGES:
        page.goto(proxied + address)
        until(page, "document.querySelector('main')?.innerText.trim()")
        assert page.url == proxied + address
    page.goto(f"{proxied}jobs?q=pg-07")
    page.get_by_role("link", name="vm-migrate").first.click()
    page.wait_for_url(f"{proxied}jobs/gui-17")
    page.get_by_role("link", name="Errors", exact=False).first.click()
    page.wait_for_url(f"{proxied}errors")
    wrong = [one for one in answers if one[0] >= 400 or not one[1].startswith((proxied, "data:"))]
    assert wrong == []
    found = page.request.get(f"{proxied}api/v1/logs.txt?job=gui-17")
    assert found.text().splitlines()[-1].startswith("-- complete: ")
    assert found.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("proxied", "transport"),
    [("kept", "ws"), ("stripped", "ws"), ("blank", "ws"), ("no-upgrade", "sse"), ("defaults", "sse"), ("buffering", "polling")],
    indirect=["proxied"],
)  # fmt: skip
def test_lines_arrive_through_the_proxy_and_the_badge_says_how(
    story_url, proxied, transport, token, watched, request
):
    """Live lines come by what the proxy lets through, which the page names (R44, R47)."""
    watched.expected = ("stream/ws",)  # a refused WebSocket stands in the console
    name = f"behind-{request.node.callspec.id}"
    with running_job(story_url, name) as write:
        page = watched.page(shared=True)
        page.goto(f"{proxied}jobs/{name}")
        log_in(page, token[1])
        until(page, f"document.querySelector('header .live')?.innerText === 'live · {transport}'")
        before = page.evaluate(f"{VIEWER}.lines.length")
        write(300)
        stored = time.monotonic()
        until(page, f"{VIEWER}.lines.length === {before + 300}", mark(3, 15))
        print(f"{transport}: {time.monotonic() - stored:.1f} s after the commit")
        numbers = page.evaluate(f"{VIEWER}.lines.map((one) => one.seq)")
        assert len(numbers) == len(set(numbers))
        page.close()


def test_cancelling_and_resolving_work_behind_basic_auth(tmp_path, watched):
    """The proxy asks for a password and adds the token, also for the WebSocket; the page has no
    login of its own (R45, R47).
    """
    tokens, users = tmp_path / "tokens.json", tmp_path / "users"
    text, _ = TokenFile(tokens).create("write")
    users.write_text("ada:{PLAIN}secret\n")
    more = f"""{HOST}{UPGRADE}
      auth_basic "ops";
      auth_basic_user_file {users};
      proxy_set_header Authorization "Bearer {text}";
"""
    url = f"sqlite:///{tmp_path}/basic.db"
    with running_job(url, "basic") as write, pages_of(url, "--token-file", str(tokens)) as upstream:
        write(100)
        with behind(upstream, tmp_path, "/", more) as address:
            page = watched.page(
                shared=True, http_credentials={"username": "ada", "password": "secret"}
            )
            page.goto(f"{address}jobs/basic")
            until(page, "document.querySelector('header .live')?.innerText === 'live · ws'")
            cancel_and_resolve(page, f"{address}errors")
            page.close()
    with pages_of(url) as site:
        assert [one["status"] for one in ask(site, "errors")] == ["resolved"]


@pytest.mark.parametrize("proxied", ["kept", "stripped"], indirect=True)
def test_what_is_no_page_is_found_below_the_prefix_and_needs_the_token(proxied, token):
    """(R45)"""
    for path in ("jobs/gui-17", "jobs/gui-17/", "api/v1/jobs/gui-17", "metrics"):
        wanted = urllib.request.Request(proxied + path, headers={"Authorization": f"Bearer {token[1]}"})  # fmt: skip
        with urllib.request.urlopen(wanted) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{proxied}api/v1/jobs")
