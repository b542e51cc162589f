"""Who gets in: tokens, logins, this machine; and what other sites' pages cannot do."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
import websockets
from web_support import client, events, served, some_work

import structjob
from structjob.web.app import build
from structjob.web.auth import FAILURES, Doors
from structjob.web.guard import OPEN
from structjob.web.shell import PAGES
from structjob.web.tokens import TokenFile

HTML = {"Accept": "text/html"}


@pytest.fixture
def tokens(tmp_path):
    """A file of tokens."""
    return TokenFile(tmp_path / "tokens.json")


@asynccontextmanager
async def behind(tracker, doors, *, peer="127.0.0.1", base="http://localhost", **options):
    made = build(tracker, doors, **options)
    transport = httpx.ASGITransport(made, client=(peer, 40_000))
    async with httpx.AsyncClient(transport=transport, base_url=base) as opened:
        yield opened
    await made.aclose()


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


async def every_path(web, headers):
    """Every route, page and file."""
    document = (await web.get("/api/v1/openapi.json", headers=headers)).json()
    job = "any"
    for path, operations in document["paths"].items():
        for method in operations:
            yield method.upper(), path.replace("{", "").replace("}", "") or job
    for page in PAGES:
        yield "GET", f"/{page.replace('{id}', 'x')}"
    for path in ("/static/latest/index.html", "/api/v1/openapi.json", "/nothing", "/metrics"):
        yield "GET", path


async def test_no_path_opens_without_a_token(tracker, tokens):
    """Without one, with a wrong one, and with an expired one (R46)."""
    text, _ = tokens.create("write")
    expired, _ = tokens.create("write", timedelta(seconds=-1))
    for headers in ({}, bearer("sj_x"), bearer(expired)):
        opened = 0
        async with behind(tracker, Doors(tokens)) as web:
            async for method, path in every_path(web, bearer(text)):
                answer = await web.request(method, path, headers=headers)
                if path in OPEN:
                    assert answer.status_code == 200, path
                    opened += 1
                else:
                    assert answer.status_code in (401, 429), (method, path, answer.text)
                    assert answer.headers["content-type"] == "application/problem+json"
                assert "default-src 'none'" in answer.headers["content-security-policy"]
                assert answer.headers["x-content-type-options"] == "nosniff"
        assert opened == 1


async def test_a_token_for_reading_changes_nothing(tracker, tokens):
    """(R46)"""
    await some_work(tracker)
    text, _ = tokens.create("read")
    written = 0
    async with behind(tracker, Doors(tokens)) as web:
        assert (await web.get("/api/v1/jobs", headers=bearer(text))).status_code == 200
        async for method, path in every_path(web, bearer(text)):
            if method == "POST" and path != "/api/v1/stream":
                answer = await web.post(path, headers=bearer(text), json={})
                assert (answer.status_code, "scope write" in answer.text) == (403, True), path
                written += 1
    assert written


async def test_what_a_token_allows_can_be_asked(tracker, tokens):
    """(R46)"""
    text, token = tokens.create("write")
    async with behind(tracker, Doors(tokens)) as web:
        found = (await web.get("/api/v1/whoami", headers=bearer(text))).json()
        assert found == {"token": token.id, "scopes": ["read", "write"], "login": False}
    async with behind(tracker, Doors(tokens, read_only=True)) as web:
        found = (await web.get("/api/v1/whoami", headers=bearer(text))).json()
        assert found["scopes"] == ["read"]


async def test_a_revoked_token_ends_its_logins(tracker, tokens):
    """(R46)"""
    text, token = tokens.create("read")
    async with behind(tracker, Doors(tokens)) as web:
        answer = await web.post("/login", json={"token": text})
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path" not in cookie
        value = {"Cookie": cookie.partition(";")[0]}
        assert (await web.get("/api/v1/jobs", headers=value)).status_code == 200
        forged = {"Cookie": value["Cookie"][:-2] + "xx"}
        assert (await web.get("/api/v1/jobs", headers=forged)).status_code == 401
        tokens.revoke(token.id)
        assert (await web.get("/api/v1/jobs", headers=value)).status_code == 401


async def test_a_login_outlives_a_restart_and_another_worker_knows_it(tracker, tokens):
    """(R46)"""
    text, _ = tokens.create("read")
    async with behind(tracker, Doors(tokens)) as web:
        cookie = (await web.post("/login", json={"token": text})).headers["set-cookie"]
    async with behind(tracker, Doors(TokenFile(tokens.path))) as web:
        value = {"Cookie": cookie.partition(";")[0]}
        assert (await web.get("/api/v1/jobs", headers=value)).status_code == 200


async def test_wrong_tokens_are_soon_refused_for_a_while(tracker, tokens):
    """(R46)"""
    tokens.create("read")
    async with behind(tracker, Doors(tokens)) as web:
        for _ in range(FAILURES):
            assert (await web.post("/login", json={"token": "sj_x"})).status_code == 401
        answer = await web.post("/login", json={"token": "sj_x"})
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 61


async def test_wrong_tokens_lock_out_no_valid_one(tracker, tokens):
    """Behind a proxy all users may have one address (R46)."""
    text, _ = tokens.create("read")
    async with behind(tracker, Doors(tokens)) as web:
        for _ in range(FAILURES + 1):
            answer = await web.get("/api/v1/jobs", headers=bearer("sj_x"))
        assert answer.status_code == 429
        assert (await web.get("/api/v1/jobs", headers=bearer(text))).status_code == 200
        assert (await web.post("/login", json={"token": text})).status_code == 200
        answer = await web.get("/api/v1/jobs", headers=bearer("sj_x"))
        assert answer.status_code == 429


async def test_a_browser_is_led_to_the_login_and_back(tracker, tokens):
    """(R46)"""
    text, _ = tokens.create("read")
    async with behind(tracker, Doors(tokens)) as web:
        answer = await web.get("/jobs/a%2Fb?level=info", headers=HTML)
        assert answer.status_code == 303
        assert answer.headers["location"] == "../login?next=jobs%2Fa%252Fb%3Flevel%3Dinfo"
        page = await web.get("/login?next=jobs%2Fa%252Fb%3Flevel%3Dinfo")
        assert "<script" not in page.text
        assert (await web.get("/static/login.css")).status_code == 200
        answer = await web.post(
            "/login?next=jobs%2Fa%252Fb%3Flevel%3Dinfo",
            data={"token": text},
            headers={"Sec-Fetch-Site": "same-origin"},
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "./jobs/a%2Fb?level=info")


async def test_the_login_says_where_it_leads_and_how_many_tries_are_left(tracker, tokens):
    """What stands under the field (R46)."""
    tokens.create("read")
    async with behind(tracker, Doors(tokens)) as web:
        page = (await web.get("/login?next=jobs%2Fa%3Fq%3D%3Cb%3E")).text
        assert "You will return to /jobs/a?q=&lt;b&gt;" in page
        assert 'aria-invalid="false"' in page
        assert "return to" not in (await web.get("/login?next=//evil.example")).text
        seen = []
        for _ in range(FAILURES + 1):
            answer = await web.post("/login", data={"token": "sj_x"})
            seen.append((await web.get("/" + answer.headers["location"])).text)
        assert all("Unknown or expired token." in one for one in seen)
        assert ["the right one is still accepted" in one for one in seen] == [False] * 5 + [True]
        assert all('aria-invalid="true"' in one for one in seen)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000], ids=["cut", "bytes", "nested"])
def test_a_damaged_file_of_tokens_is_named(tokens, content):
    """Not a traceback, whatever is in it (R46)."""
    tokens.create("read")
    tokens.path.write_bytes(content)
    with pytest.raises(structjob.InvalidArgument, match="cannot read the tokens in"):
        tokens.find("sj_x")


async def test_a_login_leads_nowhere_else(tracker, tokens):
    """(R46)"""
    text, _ = tokens.create("read")
    for wanted in (
        "//evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/x",
        "\\\\evil",
    ):
        async with behind(tracker, Doors(tokens)) as web:
            answer = await web.post("/login", params={"next": wanted}, data={"token": text})
            assert answer.headers["location"] == "./", wanted


async def test_a_link_in_a_chat_opens_though_its_cookie_is_not_sent_at_first(tracker, tokens):
    """(R46)"""
    tokens.create("read")
    async with behind(tracker, Doors(tokens)) as web:
        answer = await web.get("/jobs/x?at=1:2", headers=HTML | {"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 401
        assert 'content="0;url=x?at=1:2"' in answer.text


async def test_without_tokens_only_this_machine_is_let_in(tracker):
    """(R46)"""
    async with client(tracker) as web:
        assert (await web.get("jobs")).status_code == 200
        for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host"):
            assert (await web.get("jobs", headers={name: "for=10.0.0.1"})).status_code == 403
    async with client(tracker, peer="10.0.0.1") as web:
        assert (await web.get("jobs")).status_code == 403


async def test_a_name_that_leads_here_from_elsewhere_is_refused(tracker):
    """(R46)"""
    async with client(tracker) as web:
        for host, status in (
            ("localhost:8000", 200),
            ("127.0.0.1", 200),
            ("[::1]:8000", 200),
            ("evil.example", 421),
            ("", 421),
            ("127.0.0.1.evil.example", 421),
        ):
            answer = await web.get("jobs", headers={"Host": host})
            assert answer.status_code == status, host
            # an application that is mounted has no command line
            assert status == 200 or answer.json()["detail"].endswith(
                "structjob.web.app(…, authorize=…)"
            )


async def test_a_host_application_says_what_its_users_may(tracker):
    """(R46)"""
    await some_work(tracker)

    async def authorize(scope):
        user = dict(scope["headers"]).get(b"x-user", b"")
        return {b"ada": frozenset({"read", "write"}), b"bob": frozenset({"read"})}.get(user)

    async with client(tracker, peer="10.0.0.1", authorize=authorize) as web:
        assert (await web.get("jobs")).status_code == 401
        assert (await web.get("whoami", headers={"X-User": "bob"})).json()["scopes"] == ["read"]
        ada = {"X-User": "ada", "Host": "intern.example"}
        assert (await web.get("jobs", headers=ada)).status_code == 200


async def test_a_page_of_another_site_changes_nothing(tracker):
    """404: it was let in, and there is no such job. (R46)"""
    for headers, status in (
        ({}, 403),
        ({"X-Structjob": "1"}, 404),
        ({"X-Structjob": "1", "Sec-Fetch-Site": "same-origin"}, 404),
        ({"X-Structjob": "1", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"X-Structjob": "1", "Sec-Fetch-Site": "same-site"}, 403),
        ({"X-Structjob": "1", "Origin": "http://localhost"}, 404),
        ({"X-Structjob": "1", "Origin": "http://evil.example"}, 403),
        ({"X-Structjob": "1", "Origin": "null"}, 403),
    ):
        async with client(tracker) as web:
            answer = await web.post("jobs/nothing/cancel", headers=headers, json={})
            assert answer.status_code == status, (headers, answer.text)


async def test_a_login_says_where_its_page_is_from_and_a_token_need_not(tracker, tokens):
    """A browser sends the cookie of a login for any page; a token comes from a program. (R46)"""
    text, _ = tokens.create("write")
    async with behind(tracker, Doors(tokens)) as web:

        async def cancel(**headers):
            return (
                await web.post("/api/v1/jobs/nothing/cancel", headers=headers, json={})
            ).status_code

        assert await cancel(**bearer(text)) == 404
        cookie = (await web.post("/login", json={"token": text})).headers["set-cookie"]
        web.cookies.clear()
        login = {"Cookie": cookie.partition(";")[0], "X-Structjob": "1"}
        assert await cancel(**login) == 403
        assert await cancel(**login, **{"Sec-Fetch-Site": "same-origin"}) == 404


async def test_a_host_application_may_name_its_hosts(tracker):
    """Names are accepted as they are, unless they are listed. (R46)"""

    async def authorize(_):
        return {"read"}

    for hosts, status in ((None, 200), (frozenset({"intern.example"}), 421)):
        doors = Doors(authorize=authorize, hosts=hosts)
        async with behind(tracker, doors, base="http://other.example") as web:
            assert (await web.get("/api/v1/jobs")).status_code == status
    async with behind(tracker, doors, base="http://intern.example") as web:
        assert (await web.get("/api/v1/jobs")).status_code == 200


async def test_a_form_of_another_site_does_not_log_a_browser_in(tracker, tokens):
    """Not with a valid token either, which may be the one of the author of the form (R46)."""
    text, _ = tokens.create("read")
    for headers, status in (
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost"}, 303),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ):
        async with behind(tracker, Doors(tokens)) as web:
            answer = await web.post("/login", data={"token": text}, headers=headers)
        assert answer.status_code == status, headers
        assert ("set-cookie" in answer.headers) == (status == 303), headers


async def test_a_websocket_of_another_site_is_refused(tracker):
    """(R44)"""
    async with served(build(tracker, Doors())) as address:
        socket = f"{address.replace('http', 'ws')}/api/v1/stream/ws"
        with pytest.raises(websockets.exceptions.InvalidStatus):
            await websockets.connect(socket, origin="http://evil.example")
        async with websockets.connect(socket, origin=address) as opened:
            assert "hello" in await opened.recv()


async def test_a_websocket_says_its_token_first(tracker, tokens):
    """(R44)"""
    text, _ = tokens.create("read")
    async with served(build(tracker, Doors(tokens))) as address:
        socket = f"{address.replace('http', 'ws')}/api/v1/stream/ws"
        async with websockets.connect(socket) as opened:
            await opened.send(json.dumps({"op": "auth", "token": text}))
            assert "hello" in await opened.recv()
        async with websockets.connect(socket) as opened:
            await opened.send('{"op":"auth","token":"sj_x"}')
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                await opened.recv()
            assert closed.value.rcvd.code == 4401
        async with websockets.connect(socket, additional_headers=bearer(text)) as opened:
            assert "hello" in await opened.recv()


@pytest.mark.parametrize("path", ["stream/ws", "logs/stream/ws"])
async def test_a_revoked_token_ends_its_streams(tracker, tokens, path):
    """A connection that stays open sends nothing that a new request would not get (R45)."""
    text, token = tokens.create("read")
    async with served(build(tracker, Doors(tokens))) as address:
        socket = f"{address.replace('http', 'ws')}/api/v1/{path}"
        async with asyncio.timeout(10), websockets.connect(socket, additional_headers=bearer(text)) as opened:  # fmt: skip
            await opened.send('{"op":"subscribe","id":"a"}')
            async with events(address, headers=bearer(text)) as stream:
                await stream.next()
                tokens.revoke(token.id)
                assert (await stream.until("bye"))["reason"] == "revoked"
            await opened.wait_closed()
        assert opened.close_code == 4401


async def test_an_open_websocket_subscribes_to_nothing_with_a_revoked_token(tracker, tokens):
    """(R45)"""
    text, token = tokens.create("read")
    async with served(build(tracker, Doors(tokens))) as address:
        socket = f"{address.replace('http', 'ws')}/api/v1/stream/ws"
        async with websockets.connect(socket, additional_headers=bearer(text)) as opened:
            await opened.recv()
            tokens.revoke(token.id)
            await opened.send('{"op":"subscribe","id":"a"}')
            assert json.loads(await opened.recv())["data"]["status"] == 401


async def test_deep_json_is_refused(tracker, tokens):
    """faults 0.8: it was an internal error, also for a client without a token."""
    text, _ = tokens.create("write")
    deep = '{"x":' + "[" * 5000
    async with behind(tracker, Doors(tokens)) as web:
        json_of = {**bearer(text), "Content-Type": "application/json"}
        answer = await web.post("/api/v1/retention/prune", content=deep, headers=json_of)
        assert answer.status_code == 400
        found = await web.get(f"/api/v1/logs?attr.n={'[' * 5000}", headers=bearer(text))
        assert found.status_code == 200
    async with served(build(tracker, Doors(tokens))) as address:
        socket = f"{address.replace('http', 'ws')}/api/v1/stream/ws"
        async with websockets.connect(socket) as opened:
            await opened.send(deep)
            await opened.wait_closed()
            assert opened.close_code == 4401
        async with websockets.connect(socket, additional_headers=bearer(text)) as opened:
            await opened.recv()
            await opened.send(deep)
            assert json.loads(await opened.recv())["data"]["status"] == 400


async def test_pages_of_an_allowed_origin_may_read_with_a_token(tracker, tokens):
    """(R46)"""
    text, _ = tokens.create("read")
    async with behind(tracker, Doors(tokens), cors=("https://app.example",)) as web:
        allowed = {"Origin": "https://app.example"} | bearer(text)
        answer = await web.get("/api/v1/jobs", headers=allowed)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in answer.headers
        other = {"Origin": "https://evil.example"} | bearer(text)
        answer = await web.get("/api/v1/jobs", headers=other)
        assert "access-control-allow-origin" not in answer.headers


async def test_an_address_may_not_be_endless(tracker):
    """(R46)"""
    async with client(tracker) as web:
        assert (await web.get("logs?text=" + "x" * 20_000)).status_code == 414


def test_a_file_of_tokens_is_its_owners_alone(tokens):
    """(R46)"""
    text, token = tokens.create("read", timedelta(days=1))
    assert tokens.path.stat().st_mode & 0o777 == 0o600
    assert text not in tokens.path.read_text()
    assert tokens.find(text) == token
    os.chmod(tokens.path, 0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        tokens.find(text)


async def test_cookies_of_other_applications_do_not_hide_the_login(tracker, tokens):
    """A browser sends the cookies of all applications on the host, whatever their form, and those
    of applications that are mounted below one another (R45).
    """
    text, _ = tokens.create("read")
    async with behind(tracker, Doors(tokens)) as web:
        set_ = (await web.post("/login", json={"token": text})).headers["set-cookie"]
        web.cookies.clear()
        own = set_.partition(";")[0]
        for sent in (
            f'a[b]={{"c": 1}}; {own}',
            f"{own}; structjob=x.y.z",
            f"structjob=x.y.z; {own}",
        ):
            answer = await web.get("/api/v1/jobs", headers={"Cookie": sent})
            assert answer.status_code == 200, sent
