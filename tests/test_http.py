"""HTTP clients that carry the ids of a job to other services (R22)."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
from asgi_support import NO_TLS, served
from cli_support import python
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

import structjob
from structjob.diagnostics import faults
from structjob.exceptions import InvalidArgument

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OURS = {"x-correlation-id", "x-job-id", "baggage", "traceparent", "tracestate"}


def app():
    """Answer with the headers that came; ``/to?url=`` redirects, ``/500`` fails, ``/hangs`` does
    not answer.
    """

    async def said(request):
        return JSONResponse(dict(request.headers))

    async def elsewhere(request):
        return RedirectResponse(request.query_params["url"], 307)

    async def fails(request):
        return Response(json.dumps(dict(request.headers)), 500)

    async def hangs(request):
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return Starlette(
        routes=[
            Route("/", said, methods=["GET", "POST"]),
            Route("/to", elsewhere),
            Route("/500", fails),
            Route("/hangs", hangs),
        ]
    )


@pytest.fixture
async def service():
    async with served(app(), timeout_graceful_shutdown=1) as running:
        yield running


class Asking:
    """The four clients, asked in the same way: `get` returns the headers that arrived."""

    def __init__(self, kind, hosts, headers=None):
        self.kind, self.hosts, self.headers = kind, hosts, headers

    async def get(self, url, timeout=10):
        text = await getattr(self, f"_{self.kind}")(url, timeout)
        return {name: value for name, value in json.loads(text).items() if name in OURS}

    async def _httpx(self, url, timeout):
        def ask():
            with structjob.http.propagate(httpx.Client(verify=NO_TLS), hosts=self.hosts) as client:
                return client.get(
                    url, headers=self.headers, timeout=timeout, follow_redirects=True
                ).text

        return await asyncio.to_thread(ask)

    async def _async_httpx(self, url, timeout):
        async with structjob.http.propagate(
            httpx.AsyncClient(verify=NO_TLS), hosts=self.hosts
        ) as client:
            return (
                await client.get(url, headers=self.headers, timeout=timeout, follow_redirects=True)
            ).text

    async def _requests(self, url, timeout):
        def ask():
            with structjob.http.propagate(requests.Session(), hosts=self.hosts) as client:
                return client.get(url, headers=self.headers, timeout=timeout).text

        return await asyncio.to_thread(ask)

    async def _aiohttp(self, url, timeout):
        middleware = structjob.http.aiohttp_middleware(self.hosts)
        async with (
            aiohttp.ClientSession(middlewares=[middleware]) as client,
            client.get(
                url, headers=self.headers, timeout=aiohttp.ClientTimeout(timeout)
            ) as response,
        ):
            return await response.text()


KINDS = ["httpx", "async_httpx", "requests", "aiohttp"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_carries_the_ids(tracker, service, kind):
    """R22: job, step, correlation and trace arrive; outside a job nothing is sent."""
    url = f"http://127.0.0.1:{service.port}/"
    assert await Asking(kind, None).get(url) == {}
    incoming = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "a=1"}
    with structjob.extract(incoming).as_current():
        async with tracker.job("caller") as job, job.step("s") as step:
            arrived = await Asking(kind, None).get(url)
    remote = structjob.extract(arrived)
    assert (remote.job_id, remote.step_id) == (job.id, step.id)
    assert remote.correlation_id == job.correlation_id
    assert (arrived["traceparent"], arrived["tracestate"]) == (f"00-{TRACE}-{SPAN}-00", "a=1")


@pytest.mark.parametrize("kind", KINDS)
async def test_each_answer_is_a_debug_event(db_url, service, kind):
    """R22: what another service answered, and how long it took, is a debug event of the job, for
    each hop; without the path and the query, which may hold secrets. Outside a job no event is
    written.
    """
    structjob.configure(console=False, strict=True)
    url = f"http://127.0.0.1:{service.port}"
    async with structjob.Tracker(db_url, level="debug") as tracker:
        asking = Asking(kind, ["elsewhere.example"])
        await asking.get(f"{url}/")
        async with tracker.job("orders") as job:
            await asking.get(f"{url}/to?url={url}/500?token=secret-token")
        calls = await tracker.logs.list(logger="structjob.http", order="asc")
    assert {(call.level, call.message, call.job_id) for call in calls} == {
        ("debug", "http_call", job.id)
    }
    assert [{**call.attrs, "duration_ms": 0} for call in calls] == [
        {"method": "GET", "host": "127.0.0.1", "status": status, "duration_ms": 0}
        for status in (307, 500)
    ]
    assert all(0 < call.attrs["duration_ms"] < 10_000 for call in calls)


@pytest.mark.parametrize("kind", KINDS)
async def test_headers_of_the_caller_are_kept(tracker, service, kind):
    """R22: a header that the caller set goes before ours; baggage is shared."""
    given = {"X-Job-Id": "mine", "traceparent": f"00-{TRACE}-{SPAN}-01", "Baggage": "user=ada"}
    with structjob.extract(
        {"traceparent": f"00-{TRACE}-{'1' * 16}-00", "tracestate": "a=1"}
    ).as_current():
        async with tracker.job("caller") as job:
            arrived = await Asking(kind, None, given).get(f"http://127.0.0.1:{service.port}/")
    assert (arrived["x-job-id"], arrived["traceparent"]) == ("mine", given["traceparent"])
    assert "tracestate" not in arrived
    assert arrived["baggage"] == f"structjob.job_id={job.id},user=ada"


@pytest.mark.parametrize("kind", KINDS)
async def test_only_chosen_hosts_get_the_ids(tracker, service, kind):
    """R22: ids reveal something of a system, so only the chosen hosts get them."""
    for hosts, sent in (
        (["127.0.0.1"], True),
        (["localhost"], False),
        ([".0.0.1"], True),
        ([".example.com", "127.0.0.1.example.com"], False),
        ([], False),
    ):
        async with tracker.job("caller"):
            arrived = await Asking(kind, hosts).get(f"http://127.0.0.1:{service.port}/")
        assert bool(arrived) is sent, hosts


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_to_another_host_takes_them_off(tracker, service, kind):
    """R22: the host of each hop is asked for, there and back again; what the caller set remains."""
    here, there = (f"http://{host}:{service.port}" for host in ("127.0.0.1", "localhost"))
    asking = Asking(kind, ["127.0.0.1"], {"baggage": "user=ada"})
    async with tracker.job("caller") as job:
        abroad = await asking.get(f"{here}/to?url={there}/")
        back = await asking.get(f"{there}/to?url={here}/")
        within = await asking.get(f"{here}/to?url={here}/")
    assert abroad == {"baggage": "user=ada"}
    assert back == within
    assert back["x-job-id"] == job.id
    assert back["baggage"] == f"structjob.job_id={job.id},user=ada"


async def test_a_client_that_is_used_again_sends_what_is_current(tracker, service):
    """R22: nothing of one job sticks to the client, or to a request that is sent once more."""
    url = f"http://127.0.0.1:{service.port}/"
    client = structjob.http.propagate(httpx.Client(verify=NO_TLS))
    request = client.build_request("GET", url)
    found = []
    for _ in range(2):
        async with tracker.job("caller") as job:
            arrived = await asyncio.to_thread(lambda: client.send(request).json())
            found.append((arrived["x-job-id"], job.id))
    assert await asyncio.to_thread(lambda: OURS & client.send(request).json().keys()) == set()
    client.close()
    assert [one for one, _ in found] == [other for _, other in found]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_that_fails_is_the_callers_affair(tracker, service, kind):
    """R22: an answer of 500 and a timeout reach the caller as ever, and are no fault of ours."""
    base = f"http://127.0.0.1:{service.port}"
    async with tracker.job("caller") as job:
        assert (await Asking(kind, None).get(f"{base}/500"))["x-job-id"] == job.id
        with pytest.raises((TimeoutError, httpx.TimeoutException, requests.Timeout)):
            await Asking(kind, None).get(f"{base}/hangs", timeout=0.2)
    assert faults.counts == {}


def test_propagating_twice_replaces_the_hosts():
    """R22: the last call counts; hooks and adapters of the program stay."""

    def mine(request):
        return None

    client = httpx.Client(event_hooks={"request": [mine]})
    assert structjob.http.propagate(client, hosts=["a"]) is client
    structjob.http.propagate(client, hosts=["b"])
    first, second = client.event_hooks["request"]
    assert first is mine
    assert ("a" in second._hosts, "b" in second._hosts) == (False, True)
    session = requests.Session()
    adapter = session.get_adapter("http://x")
    structjob.http.propagate(structjob.http.propagate(session), hosts=["b"])
    assert session.get_adapter("http://x") is adapter
    assert not isinstance(adapter.add_headers.before, type(adapter.add_headers))


async def test_an_answer_is_recorded_with_its_milliseconds_whatever_other_hooks_do(db_url):
    """R22: a hook of the program that raises, such as ``raise_for_status``, comes after ours."""
    structjob.configure(console=False, level="debug")
    session = requests.Session()
    session.hooks["response"] = [requests.Response.raise_for_status]
    structjob.http.propagate(session)
    answer = requests.Response()
    answer.status_code, answer.elapsed = 503, timedelta(seconds=0.25)
    answer.request = requests.Request("GET", "http://service.example/path?q=1").prepare()
    async with structjob.Tracker(db_url, level="debug") as tracker:
        async with tracker.job("caller") as job:
            with pytest.raises(requests.HTTPError):
                for hook in session.hooks["response"]:
                    hook(answer)
        (event,) = await tracker.logs.list(job=job, text="http_call")
    assert event.attrs == {
        "method": "GET", "host": "service.example", "status": 503, "duration_ms": 250.0
    }  # fmt: skip


async def test_what_it_cannot_work_with_is_refused():
    """R22: the message says what to do instead."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(InvalidArgument, match="aiohttp_middleware"):
            structjob.http.propagate(session)
    with pytest.raises(InvalidArgument, match="inject"):
        structjob.http.propagate(object())
    for hosts in ("a", ["http://a"], [""], [1], ["."]):
        with pytest.raises(InvalidArgument, match="hosts"):
            structjob.http.propagate(httpx.Client(verify=NO_TLS), hosts=hosts)


async def test_a_fault_of_ours_does_not_stop_a_request(tracker, service, monkeypatch):
    """R22: the request is sent without our headers, and the fault is counted."""
    structjob.configure(console=False)
    monkeypatch.setattr("structjob.integrations.http.headers", lambda *_: 1 / 0)
    async with tracker.job("caller"):
        for kind in KINDS:
            assert await Asking(kind, None).get(f"http://127.0.0.1:{service.port}/") == {}
    assert faults.counts == {"adding the ids to a request": 4}


PAGE = Path(__file__).parent.parent / "docs" / "integrations" / "http.md"


def free_port():
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextlib.asynccontextmanager
async def services(directory, ports):
    """Serve programs of *directory* by their names; yield a client when all ports answer."""
    started = []
    try:
        for name, port in ports.items():
            command = [sys.executable, "-m", "uvicorn", f"{name}:app", f"--port={port}"]
            with (directory / f"{name}.log").open("w") as output:
                started.append(
                    subprocess.Popen(command, cwd=directory, stdout=output, stderr=output)
                )
        async with httpx.AsyncClient(timeout=30, verify=NO_TLS) as client:
            for port in ports.values():
                async with asyncio.timeout(60):
                    while True:
                        try:
                            await client.get(f"http://127.0.0.1:{port}/health")
                            break
                        except httpx.TransportError:
                            await asyncio.sleep(0.05)
            yield client
    finally:
        for each in started:
            each.terminate()
        for each in started:
            each.wait(30)


@pytest.mark.slow
async def test_two_services_are_one_timeline(database, tmp_path):
    """R22: the programs of the docs, in two processes: the job of the second is a child of the
    first's, with the same correlation id, and the events of both are one list.
    """
    programs = re.findall(
        r"<!-- (\w+\.py) -->\n```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    )[:2]
    assert [name for name, _ in programs] == ["orders.py", "stock.py"]
    ports = {"orders": free_port(), "stock": free_port()}
    for name, text in programs:
        (tmp_path / name).write_text(
            text.replace("sqlite:///jobs.db", database.url).replace(
                "http://127.0.0.1:8002", f"http://127.0.0.1:{ports['stock']}"
            )
        )
    async with services(tmp_path, ports) as client:
        answer = await client.post(
            f"http://127.0.0.1:{ports['orders']}/orders/3", headers={"X-Correlation-ID": "web-42"}
        )
        assert answer.status_code == 200, answer.text
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        events = [
            event
            for event in await tracker.logs.list(correlation_id="web-42", kind="log")
            if event.logger is None  # and not what the server and the client log themselves
        ]
        assert [event.message for event in events] == ["ordering", "taken from stock", "ordered"]
        jobs = {job.id: job for job in (await tracker.jobs.list(correlation_id="web-42")).items}
    first, second = (jobs[event.job_id] for event in events[:2])
    assert second.parent_job_id == first.id == answer.headers["x-job-id"]
    assert len({event.session_id for event in events}) == 2
    assert {job.status for job in jobs.values()} == {"completed"}


FRONT = """
import sys
import structjob
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from structjob import asgi
import structlog

structjob.configure(console=False)
log = structlog.get_logger()

async def order(request):
    log.info("ordering")
    await structjob.current_job().run_process([sys.executable, "packing.py"])
    log.info("ordered")
    return JSONResponse({})

app = Starlette(routes=[Route("/orders/{n}", order, methods=["POST"])], lifespan=asgi.lifespan("URL"))
asgi.install(app)
"""
PACKING = """
import httpx, structjob, structlog

structjob.configure(console=False)
with structjob.Tracker("URL") as tracker, tracker.job("packing"):
    structlog.get_logger().info("packing")
    print("a line that packing prints")
    with structjob.http.propagate(httpx.Client(timeout=20)) as client:
        client.post("http://127.0.0.1:PORT/take/3").raise_for_status()
"""
STOCK = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
import structjob, structlog
from structjob import asgi

structjob.configure(console=False)

async def take(request):
    structlog.get_logger().info("taken from stock")
    return JSONResponse({})

app = Starlette(routes=[Route("/take/{n}", take, methods=["POST"])], lifespan=asgi.lifespan("URL"))
asgi.install(app, trust="all")
"""


async def test_a_program_between_two_services_is_one_timeline(database, tmp_path):
    """Acceptance test 4, R22: a web service runs a program, which calls a second web service: three
    sessions, one correlation id, one tree of jobs in `structjob show`, and one list of lines.
    """
    ports = {"front": free_port(), "stock": free_port()}
    for name, text in (("front", FRONT), ("packing", PACKING), ("stock", STOCK)):
        (tmp_path / f"{name}.py").write_text(
            text.replace("URL", database.url).replace("PORT", str(ports["stock"]))
        )
    async with services(tmp_path, ports) as client:
        answer = await client.post(
            f"http://127.0.0.1:{ports['front']}/orders/3",
            headers={"X-Correlation-ID": "web-42"},
        )
        assert answer.status_code == 200, (tmp_path / "front.log").read_text()
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        jobs = (await tracker.jobs.list(correlation_id="web-42", order="asc")).items
        events = await tracker.logs.list(correlation_id="web-42", order="asc", limit=1000)
    told = [event.message for event in events if event.kind in ("log", "output")]
    ours = ("ordering", "packing", "taken from stock", "a line that packing prints", "ordered")
    assert [line for line in told if line in ours and "prints" not in line] == [
        line for line in ours if "prints" not in line
    ]
    assert "a line that packing prints" in told
    assert [job.operation for job in jobs] == ["POST /orders/{n}", "packing", "POST /take/{n}"]
    assert [job.parent_job_id for job in jobs] == [None, jobs[0].id, jobs[1].id]
    assert {job.root_job_id for job in jobs} == {jobs[0].id} == {answer.headers["x-job-id"]}
    assert len({event.session_id for event in events}) == 3

    def structjob_says(*words):
        return python(
            "-m", "structjob", *words, "--db", database.url, cwd=tmp_path, check=True
        ).stdout

    tree = structjob_says("show", jobs[0].id)
    places = [tree.index(job.operation) for job in jobs]
    assert places == sorted(places)
    lines = structjob_says("logs", "--correlation-id", "web-42")
    places = [lines.index(line) for line in ("ordering", "taken from stock", "ordered")]
    assert places == sorted(places)
