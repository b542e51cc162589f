"""Live streams: every line once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from random import Random

import httpx
import pytest
import structlog
import websockets
from asgi_support import NO_TLS
from stopwatch import Stopwatch
from web_support import client, events, served

import structjob
from structjob.web import app
from structjob.web.subscription import MAX_WAITING, Subscription

log = structlog.get_logger("app")


@pytest.fixture
async def address(tracker):
    """A server of an application that is mounted with the tracker."""
    async with served(app(tracker)) as found:
        yield found


def identities(lines):
    return [(line["session_id"], line["seq"]) for line in lines]


async def stored(tracker):
    return [(one.session_id, one.seq) async for one in tracker.logs.iterate()]


async def test_hello_comes_first_then_the_last_lines_then_what_is_logged(tracker, address):
    """(R37, R44)"""
    for number in range(5):
        log.info("before", n=number)
    async with events(address, "last=2") as stream:
        name, hello = await stream.next()
        assert (name, hello["transport"], hello["protocol"]) == ("hello", "sse", 1)
        assert [line["attrs"]["n"] for line in await stream.lines(2)] == [3, 4]
        log.info("after", n=5)
        assert [line["attrs"]["n"] for line in await stream.lines(1)] == [5]


async def test_a_filter_holds_for_what_is_stored_and_for_what_comes(tracker, address):
    """(R37, R44)"""
    log.info("quiet")
    log.error("loud", n=1)
    async with events(address, "last=10&level=error") as stream:
        assert [line["message"] for line in await stream.lines(1)] == ["loud"]
        log.info("quiet")
        log.error("louder")
        assert [line["message"] for line in await stream.lines(1)] == ["louder"]


async def test_a_stream_goes_on_after_the_id_that_a_browser_repeats(tracker, address):
    """(R37, R44)"""
    async with events(address, "last=0") as stream:
        await stream.next()
        log.info("seen")
        await stream.lines(1)
        last = stream.last_id
    log.info("missed")
    async with events(address, "last=0", headers={"Last-Event-ID": last}) as stream:
        assert [line["message"] for line in await stream.lines(1)] == ["missed"]


async def test_a_cursor_of_another_filter_begins_anew_and_says_so(tracker, address):
    """(R37, R44)"""
    async with events(address) as stream:
        await stream.next()
        log.info("seen")
        await stream.lines(1)
        last = stream.last_id
    async with events(address, f"level=error&after={last}") as stream:
        assert "another filter" in (await stream.until("reset"))["reason"]


async def test_a_cursor_may_be_sent_in_the_body(tracker, address):
    """(R37, R44)"""
    async with events(address, "last=0") as stream:
        await stream.next()
        log.info("seen")
        cursor = (await stream.until("lines"))["cursor"]
    log.info("missed")
    async with events(address, method="POST", json={"after": cursor}) as stream:
        assert [line["message"] for line in await stream.lines(1)] == ["missed"]


async def test_a_stream_that_cannot_be_is_refused_before_it_begins(tracker):
    """(R44)"""
    async with client(tracker) as web:
        for query, status in (
            ("levle=error", 400),
            ("channels=lgos", 400),
            ("channels=tree", 400),
            ("channels=tree&job=a&job=b", 400),
            ("until=-1h", 400),
            ("job=nothing", 404),
            ("last=-1", 400),
        ):
            answer = await web.get(f"stream?{query}")
            assert (answer.status_code, answer.headers["content-type"]) == (
                status,
                "application/problem+json",
            ), query


async def test_head_of_a_stream_has_its_headers_and_ends(tracker, address):
    """(R44)"""
    async with client(tracker) as web:
        answer = await web.head("stream")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_all_who_follow_the_same_get_the_same_lines_once(tracker, address):
    """Those who come later, too; they go over to one shared tail. (R37)"""
    for number in range(150):
        log.info("before", n=number)

    async def follow(seconds):
        await asyncio.sleep(seconds)
        async with events(address, "last=1000&kind=log") as stream:
            found = []
            while not found or found[-1]["attrs"]["n"] < 299:
                found += (await stream.until("lines"))["lines"]
            return [line["attrs"]["n"] for line in found]

    followers = [asyncio.create_task(follow(delay / 10)) for delay in range(8)]
    for number in range(150, 300):
        log.info("later", n=number)
        await asyncio.sleep(0.01)
    for found in await asyncio.gather(*followers):
        assert found == list(range(300))


async def test_lines_come_once_though_the_connection_is_cut_again_and_again(tracker, address):
    """(R37)"""
    found = []
    cursor = None
    done = asyncio.Event()

    async def write():
        for number in range(600):
            log.info("line", n=number)
            await asyncio.sleep(0.002)
        done.set()

    writing = asyncio.create_task(write())
    while len(found) < 600:
        query = "last=1000&kind=log" if cursor is None else f"kind=log&after={cursor}"
        async with events(address, query) as stream:
            for _ in range(3):
                batch = await stream.until("lines")
                found += batch["lines"]
                cursor = batch["cursor"] or cursor
                if len(found) >= 600:
                    break
    await writing
    assert [line["attrs"]["n"] for line in found] == list(range(600))


async def test_a_websocket_carries_several_subscriptions(tracker, address):
    """(R37, R44)"""
    log.info("before")
    async with websockets.connect(
        f"{address.replace('http', 'ws')}/api/v1/stream/ws", origin=address
    ) as socket:
        assert json.loads(await socket.recv())["event"] == "hello"
        await socket.send(json.dumps({"op": "subscribe", "id": "a", "last": 1}))
        await socket.send(json.dumps({"op": "subscribe", "id": "b", "level": "error"}))
        seen = {"a": [], "b": []}
        begun = set()
        while begun != {"a", "b"}:
            message = json.loads(await socket.recv())
            if message["event"] == "hello":
                begun.add(message["id"])
            else:
                seen["a"] += [line["message"] for line in message["data"].get("lines", ())]
        log.error("loud")
        while len(seen["a"]) < 2 or len(seen["b"]) < 1:
            message = json.loads(await socket.recv())
            if message["event"] == "lines":
                seen[message["id"]] += [line["message"] for line in message["data"]["lines"]]
        assert seen == {"a": ["before", "loud"], "b": ["loud"]}
        await socket.send(json.dumps({"op": "unsubscribe", "id": "a"}))
        while (message := json.loads(await socket.recv()))["event"] != "unsubscribed":
            pass
        log.error("louder")
        message = json.loads(await socket.recv())
        assert (message["id"], message["data"]["lines"][0]["message"]) == ("b", "louder")


async def test_a_websocket_says_what_it_does_not_understand(tracker, address):
    """(R44)"""
    for said, detail in (
        ("{", "no JSON"),
        ("[]", "object"),
        ('{"op":"dance","id":"a"}', "op must be"),
        ('{"op":"subscribe"}', "id must be"),
        ('{"op":"subscribe","id":"%s"}' % ("a" * 65), "id must be"),
        ('{"op":"subscribe","id":"%s","levle":"x"}' % ("a" * 64), "levle"),
        ('{"op":"subscribe","id":"a","levle":"x"}', "levle"),
        ('{"op":"subscribe","id":"a","job":"nothing"}', "job not found"),
    ):
        async with websockets.connect(
            f"{address.replace('http', 'ws')}/api/v1/stream/ws", origin=address
        ) as socket:
            await socket.recv()
            await socket.send(said)
            message = json.loads(await socket.recv())
            assert message["event"] == "error", said
            assert detail in message["data"]["detail"]


async def test_polling_returns_what_came_since_the_cursor(tracker):
    """(R37)"""
    log.info("before")
    async with client(tracker) as web:
        first = (await web.get("stream/poll?last=1")).json()
        assert [line["message"] for line in first["lines"]] == ["before"]
        assert first["hello"]["transport"] == "poll"
        assert first.keys() == {"lines", "gaps", "cursor", "hello"}
        log.info("after")
        second = (await web.get(f"stream/poll?wait=5&after={first['cursor']}")).json()
        assert "lines" in second, second
        assert [line["message"] for line in second["lines"]] == ["after"]
        third = (await web.get(f"stream/poll?after={second['cursor']}")).json()
        assert third["lines"] == []
        waiting = asyncio.create_task(
            web.get(f"stream/poll?wait=20&after={third['cursor']}", timeout=60)
        )
        asyncio.get_running_loop().call_later(0.3, log.info, "meanwhile")
        assert [line["message"] for line in (await waiting).json()["lines"]] == ["meanwhile"]


async def test_a_poll_after_a_long_time_is_answered_in_parts(tracker):
    """(R37) Neither server nor page holds all that came since; nothing is left out."""
    async with client(tracker) as web:
        cursor = (await web.get("stream/poll")).json()["cursor"]
        for number in range(2_500):
            log.info("missed", n=number)
        await tracker.flush()
        found: list[list[int]] = []
        while not found or found[-1]:
            answer = (await web.get("stream/poll", params={"after": cursor}, timeout=60)).json()
            found.append([line["attrs"]["n"] for line in answer["lines"]])
            cursor = answer["cursor"]
    assert max(map(len, found)) < 2_500
    assert [number for part in found for number in part] == list(range(2_500))


async def test_polling_a_job_returns_its_rows(tracker):
    """(R37) For networks that block streams, the page of a job is as current as elsewhere."""
    async with tracker.job("import") as job, client(tracker) as web:
        where = f"stream/poll?channels=tree&job={job.id}"
        first = (await web.get(where)).json()
        assert [row["id"] for row in first["state"]["jobs"]] == [job.id]
        async with job.step("copy"):
            pass
        await tracker.flush()
        again = (await web.get(f"{where}&state={first['state_tag']}")).json()
        assert [row["name"] for row in again["state"]["steps"]] == ["copy"]


async def test_the_rows_of_a_job_are_sent_and_then_those_that_change(tracker, address):
    """(R45)"""
    async with tracker.job("outer") as job:
        async with events(address, f"channels=tree&job={job.id}") as stream:
            first = await stream.until("state")
            assert [row["status"] for row in first["jobs"]] == ["running"]
            async with job.step("load"):
                changed = await stream.until("state")
                while not changed["steps"]:
                    changed = await stream.until("state")
                assert changed["steps"][0]["name"] == "load"
                assert changed["progress"]["total_steps"] == 1


async def test_a_slow_reader_loses_its_own_lines_and_is_told_how_many(tracker):
    """(R37)"""
    from structjob.web.frames import Frame

    subscription = Subscription("sse", {})
    for number in range(20):
        subscription.put(
            Frame("lines", b"x" * (MAX_WAITING // 10), f"c{number + 1}", f"c{number}", 3, 1)
        )
    events_ = []
    while (one := await subscription.next(0)) is not None:
        events_.append(one)
    assert events_[0].event == "lag"
    lag = json.loads(events_[0].data)
    kept = [one for one in events_ if one.event == "lines"]
    assert lag["skipped"] + sum(one.lines for one in kept) == 60
    assert (lag["from"], lag["to"]) == ("c0", kept[0].before)
    assert subscription.skipped == lag["skipped"]
    assert lag["errors"] == lag["skipped"] // 3


async def test_streams_say_goodbye_when_the_server_ends(tracker):
    """(R44)"""
    async with asyncio.timeout(60):
        async with served(app(tracker)) as address:
            opened = [events(address) for _ in range(10)]
            streams = [await one.__aenter__() for one in opened]
            for stream in streams:
                await stream.next()
            watch = Stopwatch()
        assert watch.seconds < 4  # after five seconds uvicorn cuts the streams off
        for stream in streams:
            assert (await stream.until("bye"))["reason"] == "shutdown"
            assert await stream.next() is None
        for one in opened:
            await one.__aexit__(None, None, None)


async def test_a_goodbye_that_comes_when_a_heartbeat_is_due_is_sent():
    """(R44)"""
    subscription = Subscription("sse", {})
    waits = asyncio.create_task(subscription.next(0))
    await asyncio.sleep(0)  # it waits, and its time is over
    subscription.end("shutdown")
    assert (await waits).event == "bye"


async def test_nothing_is_left_of_those_who_went(tracker):
    """(R44)"""
    made = app(tracker)
    async with served(made) as address:
        for _ in range(30):
            async with events(address, "last=5") as stream:
                await stream.next()
        async with asyncio.timeout(60):
            while made.hub.subscriptions or made.hub.tails:
                await asyncio.sleep(0.01)


async def over_sse(address, query, cursor):
    async with events(address, query) as stream:
        batch = await stream.until("lines")
        while batch["cursor"] is None:
            more = await stream.until("lines")
            batch = {"lines": batch["lines"] + more["lines"], "cursor": more["cursor"]}
        return batch["lines"], batch["cursor"]


async def over_ws(address, query, cursor):
    socket = f"{address.replace('http', 'ws')}/api/v1/stream/ws"
    async with websockets.connect(socket, origin=address) as opened:
        wanted = dict(part.split("=") for part in query.split("&"))
        if "last" in wanted:
            wanted["last"] = int(wanted["last"])
        await opened.send(json.dumps({"op": "subscribe", "id": "a", **wanted}))
        lines = []
        while True:
            message = json.loads(await opened.recv())
            if message["event"] == "lines":
                lines += message["data"]["lines"]
                if message["data"]["cursor"] is not None:
                    return lines, message["data"]["cursor"]


async def over_poll(address, query, cursor):
    async with httpx.AsyncClient(timeout=60, verify=NO_TLS) as web:  # however busy it is
        found = (await web.get(f"{address}/api/v1/stream/poll?wait=1&{query}")).json()
        return found["lines"], found["cursor"]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_lines_come_once_through_any_transport_and_any_worker(tracker, db_url, seed):
    """One reads with the tracker, the other the database alone, and both are started anew. (R37)"""
    random = Random(seed)
    found, cursor, written = [], None, 0
    workers = [app(tracker), app(db_url)]
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(served(one)) for one in workers]
        for turn in range(40):
            for _ in range(random.randint(1, 15)):
                log.info("line", n=written)
                written += 1
            await tracker.flush()
            if turn % 10 == 9:
                addresses[turn // 10 % 2] = await stack.enter_async_context(
                    served(app([tracker, db_url][turn // 10 % 2]))
                )
            query = "kind=log&last=1000" if cursor is None else f"kind=log&after={cursor}"
            over = random.choice([over_sse, over_ws, over_poll])
            lines, cursor = await over(random.choice(addresses), query, cursor)
            found += lines
        while len(found) < written:
            lines, cursor = await over_poll(addresses[1], f"kind=log&after={cursor}", cursor)
            found += lines
    assert [line["attrs"]["n"] for line in found] == list(range(written))
    assert set(identities(found)) <= set(await stored(tracker))


async def test_numbers_that_were_given_up_are_a_gap(db_url):
    """(R37)"""
    structjob.configure(console=False)
    async with structjob.Tracker(db_url, spool=False, queue_size=10) as tracker:
        async with served(app(tracker)) as address, events(address) as stream:
            await stream.next()
            for number in range(200):
                log.info("too many", n=number)
            gap = await stream.until("gap")
            assert gap["session_id"] == tracker.session_id
            assert gap["count"] == gap["last_seq"] - gap["first_seq"] + 1
            assert gap["reason"]


async def test_all_who_filter_the_same_share_one_tail(tracker):
    """(R37)"""
    made = app(tracker)
    async with served(made) as address:
        opened = [events(address, f"level=error&text=x{number % 3}") for number in range(12)]
        streams = [await one.__aenter__() for one in opened]
        assert made.hub.tails == 3
        log.error("x1")
        for number, stream in enumerate(streams):
            if number % 3 == 1:
                assert [line["message"] for line in await stream.lines(1)] == ["x1"]
        for one in opened:
            await one.__aexit__(None, None, None)


async def test_no_stream_is_left_of_a_websocket_that_is_cut_while_it_subscribes(tracker, address):
    """A page that is left as soon as it has loaded does not count as a stream for ever (R44)."""
    for _ in range(10):
        socket = await websockets.connect(f"{address.replace('http', 'ws')}/api/v1/stream/ws")
        await socket.send(json.dumps({"op": "subscribe", "id": "a", "last": 3}))
        socket.transport.abort()
    async with (
        httpx.AsyncClient(base_url=address, verify=NO_TLS) as web,
        asyncio.timeout(60),
    ):
        while (await web.get("/api/v1/logs/stream/status")).json()["websocket"]:
            await asyncio.sleep(0.01)


async def test_a_binary_message_closes_the_websocket_with_the_reason(tracker, address):
    """1003 is "unsupported data" (R44)."""
    async with websockets.connect(f"{address.replace('http', 'ws')}/api/v1/stream/ws") as socket:
        await socket.recv()
        await socket.send(b"\x00")
        await socket.wait_closed()
    assert socket.close_code == 1003
