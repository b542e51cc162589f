"""The paths and the message of the unified log service that this API is compatible with."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest
import structlog
import websockets
from asgi_support import NO_TLS
from web_support import Events, client, events, served, some_work

import structjob
from structjob.web import app
from structjob.web.api import compat
from structjob.web.api.compat import MAX_OFFSET
from structjob.web.frames import Frame
from structjob.web.subscription import MAX_WAITING, Subscription

log = structlog.get_logger("app")

KEYS = {"type", "job_run_id", "task_run_id", "timestamp", "level", "stream", "message", "metadata"}


@pytest.fixture
async def work(tracker):
    """A job with a step, a child, an error and a line outside of jobs."""
    return await some_work(tracker)


@pytest.fixture
async def web(tracker, work):
    """A client of the application that is mounted with the tracker."""
    async with client(tracker) as opened:
        yield opened


async def messages(web, path):
    answer = await web.get(f"logs/{path}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    for message in found:
        assert set(message) <= KEYS
        assert KEYS - set(message) <= {"task_run_id", "metadata"}
        assert message["type"] in ("system", "job", "task")
        assert message["level"] in ("info", "error", "warn", "debug")
        assert message["stream"] in ("stdout", "stderr", "system")
        assert isinstance(message["job_run_id"], str)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", message["timestamp"])
    return found


async def test_all_lines_of_a_job_run_come_oldest_first(web, work):
    """(R43)"""
    for any_id in ("gui%2F17", "vm-9"):
        found = await messages(web, f"job-runs/{any_id}")
        assert {message["type"] for message in found} == {"job", "task"}
        assert [one["timestamp"] for one in found] == sorted(one["timestamp"] for one in found)
        copied = next(one for one in found if one["message"] == "copied")
        assert (copied["job_run_id"], copied["metadata"]["n"]) == (work.id, 3)


async def test_limit_and_offset_lead_through_a_job_run(web, work):
    """(R43)"""
    whole = await messages(web, f"job-runs/{work.id}")
    pages, offset = [], 0
    while page := await messages(web, f"job-runs/{work.id}?limit=2&offset={offset}"):
        pages += page
        offset += 2
    assert pages == whole
    answer = await web.get(f"logs/job-runs/{work.id}?limit=2")
    assert answer.headers["link"] == '<?limit=2&offset=2>; rel="next"'


async def test_the_lines_of_a_task_run_are_those_of_a_step(web, tracker, work):
    """(R43)"""
    (step,) = await tracker.jobs.steps(work.id)
    found = await messages(web, f"task-runs/{step.id}")
    assert {message["task_run_id"] for message in found} == {step.id}
    assert "copied" in [message["message"] for message in found]


async def test_system_lines_have_no_job(web):
    """(R43)"""
    found = await messages(web, "system?limit=100&offset=0")
    assert [(one["message"], one["job_run_id"]) for one in found] == [("server started", "")]
    assert await messages(web, "type/system") == found
    assert {one["type"] for one in await messages(web, "type/task")} == {"task"}


async def test_levels_that_the_service_has_not_keep_their_name(web, tracker):
    """(R43)"""
    log.critical("down")
    await tracker.flush()
    down = (await messages(web, "system"))[-1]
    assert (down["level"], down["metadata"]["structjob.level"]) == ("error", "critical")


async def test_what_is_refused_says_why(web):
    """(R43)"""
    for path, status in (
        ("job-runs/nothing", 404),
        ("task-runs/nothing", 404),
        ("type/nothing", 400),
        (f"system?offset={MAX_OFFSET + 1}", 400),
        ("system?offset=-1", 400),
        ("system?limit=0", 400),
        ("system?page=2", 400),
        ("stream/sse?job_run_id=nothing", 404),
        ("stream/sse?type=nothing", 400),
    ):
        answer = await web.get(f"logs/{path}")
        assert (answer.status_code, answer.headers["content-type"]) == (
            status,
            "application/problem+json",
        ), path
        if status == 400:
            assert answer.json()["parameter"] in path
        if "offset=100001" in path:
            assert "/api/v1/logs" in answer.json()["detail"]


async def test_server_sent_events_are_one_message_each_and_go_on_after_their_id(tracker):
    """(R44)"""
    async with served(app(tracker)) as address, tracker.job("work") as job:
        path = "/api/v1/logs/stream/sse"
        async with events(address, f"job_run_id={job.id}", api=path) as stream:
            log.info("first", n=1)
            first = await message_of(stream)
            assert (first["message"], first["job_run_id"]) == ("first", job.id)
            last = stream.last_id
        log.info("second")
        headers = {"Last-Event-ID": last}
        async with events(address, f"job_run_id={job.id}", api=path, headers=headers) as stream:
            assert (await message_of(stream))["message"] == "second"


async def message_of(stream: Events):
    async for line in stream._lines:
        if line.startswith("id: "):
            stream.last_id = line[4:]
        elif line.startswith("data: "):
            return json.loads(line[6:])
    raise AssertionError("the stream ended")


async def test_a_websocket_sends_one_message_each(tracker):
    """(R44)"""
    async with served(app(tracker)) as address, tracker.job("work") as job:
        base = address.replace("http", "ws") + "/api/v1/logs/stream/ws"
        async with websockets.connect(f"{base}?job_run_id={job.id}") as socket:
            while not (await status(address))["websocket"]:
                pass
            log.info("first")
            assert json.loads(await socket.recv())["message"] == "first"
        for query, code, reason in (
            ("job_run_id=nothing", 4404, "job not found: nothing"),
            ("type=nothing", 4400, "type: Input should be 'system', 'job' or 'task'"),
            ("type=job&type=task", 4400, "type is given more than once: give it once"),
            (
                "job_runid=x",
                4400,
                "there is no parameter job_runid here; did you mean 'job_run_id'?",
            ),
        ):
            async with websockets.connect(f"{base}?{query}") as socket:
                with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                    await socket.recv()
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)


async def test_a_plain_request_at_the_path_of_a_websocket_says_so(web):
    """As of a client whose proxy does not forward the upgrade: the answer was that nothing is there
    (R43, R46).
    """
    paths = (await web.get("openapi.json")).json()["paths"]
    for path in ("logs/stream/ws?job_run_id=gui%2F17", "stream/ws"):
        answer = await web.get(path)
        assert answer.status_code == 426, path
        # nginx would forward it to clients of HTTP/2, which then refuse the answer
        assert "upgrade" not in answer.headers
        assert "WebSocket" in answer.json()["detail"]
        assert "proxy" in answer.json()["detail"]
        assert "101" in paths[f"/api/v1/{path.partition('?')[0]}"]["get"]["responses"]


async def test_a_message_stands_in_the_place_of_lines_that_are_missing(db_url):
    """A client of the service knows messages only, so it would not see the loss (R37, R43)."""
    structjob.configure(console=False)
    async with structjob.Tracker(db_url, spool=False, queue_size=10) as tracker:
        path = "/api/v1/logs/stream/sse"
        async with served(app(tracker)) as address, events(address, api=path) as stream:
            for number in range(200):
                log.info("too many", n=number)
            while (message := await message_of(stream))["message"] == "too many":
                pass
            assert message["message"].startswith("missing lines: ")
            assert (message["type"], message["level"], message["stream"]) == ("system", "warn", "system")  # fmt: skip
            assert message["metadata"]["session_id"] == tracker.session_id


def test_a_message_stands_in_the_place_of_lines_that_a_slow_connection_misses():
    """(R37, R43)"""
    subscription = Subscription("ws", {})
    for number in range(20):
        subscription.put(Frame("lines", b"x" * (MAX_WAITING // 10), f"c{number + 1}", f"c{number}", 3, 1))  # fmt: skip
    first = asyncio.run(subscription.next(0))
    (message,) = [json.loads(one) for one in compat._messages(first)]
    assert message["message"] == f"skipped lines: {subscription.skipped}, because this connection is slow"  # fmt: skip
    assert message["metadata"]["skipped"] == subscription.skipped > 0


async def status(address):
    async with client_of(address) as web:
        return (await web.get("/api/v1/logs/stream/status")).json()


def client_of(address):
    return httpx.AsyncClient(base_url=address, verify=NO_TLS)


async def test_the_status_says_what_is_streamed(tracker):
    """(R44)"""
    async with served(app(tracker)) as address:
        async with events(address, "level=error&last=3") as stream:
            await stream.next()
            found = await status(address)
            assert (found["status"], found["sse"], found["websocket"]) == ("ok", 1, 0)
            (one,) = found["streams"]
            assert one["filter"] == {"level": "error", "last": 3}
