"""The routes of the live streams: server-sent events, WebSocket, polling."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field, ValidationError
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from structjob.decoding import NOT_JSON
from structjob.exceptions import InvalidFilter, StructjobError
from structjob.filters import LogFilter, make_filter
from structjob.models import EventRecord, Gap
from structjob.web.answers import Writes, problems_of, reads
from structjob.web.auth import Doors, Identity
from structjob.web.body import MAX_BODY, json_of
from structjob.web.frames import Frame, frame
from structjob.web.hub import CHANNELS, Hub, Selection
from structjob.web.params import Asked, LogMatch, NoQuery, Several
from structjob.web.problems import Refused, describe, refusal
from structjob.web.sse import HEARTBEAT, SEND_TIMEOUT, EventStream
from structjob.web.subscription import Subscription
from structjob.web.version import VERSION
from structjob.web.watch import rows_since

router = APIRouter(prefix="/stream", tags=["streams"])

PROTOCOL = 1
MAX_LAST = 10_000
BOOT = secrets.token_hex(8)
"""An id that differs after each start of the server."""

AUTH_TIMEOUT = 5.0
"""Seconds within which a WebSocket must send its token."""


class StreamQuery(LogMatch):
    """Parameters of a stream."""

    channels: Several = Field(
        default=["logs"], description=f"Some of {', '.join(CHANNELS)}.", examples=[["logs", "tree"]]
    )
    last: int = Field(default=0, ge=0, le=MAX_LAST, description="Begin with the last lines.")
    after: str | None = Field(default=None, description="Go on after this cursor.")

    def selection(self) -> Selection:
        """Return what the stream sends.

        Raises:
            InvalidFilter: if a value of the filter is refused.
            Refused: if another one is.
        """
        for channel in self.channels:
            if channel not in CHANNELS:
                raise Refused(
                    400,
                    f"channels must be some of {', '.join(CHANNELS)}, not {channel!r}",
                    parameter="channels",
                )
        wanted = make_filter(LogFilter, **self.values("channels", "last", "after", "wait", "state"))
        if self.until is not None:
            refused = "a stream has no end: leave out `until`, or use /logs"
            raise Refused(400, refused, parameter="until")
        job = self.job[0] if self.job else None
        if "tree" in self.channels and (job is None or len(self.job or ()) > 1):
            raise Refused(400, "the channel tree needs one job: give job", parameter="job")
        shown = {**self.given("after"), **(self.model_extra or {})}
        return Selection(
            tuple(dict.fromkeys(self.channels)), wanted, job, self.after, self.last, shown
        )


class PollQuery(StreamQuery):
    """Parameters of a poll."""

    wait: float = Field(default=0.0, ge=0, le=20, description="Seconds to wait for something.")
    state: str | None = Field(default=None, description="`state_tag` of the answer before.")


class _Auth(msgspec.Struct):
    op: Literal["auth"]
    token: str


class Poll(msgspec.Struct, omit_defaults=True):
    """What has happened since the cursor."""

    lines: list[EventRecord]
    gaps: list[Gap]
    cursor: str | None
    state: Any = None
    state_tag: str | None = None
    reset: str | None = None
    hello: Any = None


def hello(transport: str, cursor: str | None) -> Frame:
    """Return the first frame of a stream."""
    said = {
        "protocol": PROTOCOL,
        "version": VERSION,
        "boot": BOOT,
        "heartbeat_ms": round(1000 * HEARTBEAT),
        "cursor": cursor,
        "transport": transport,
    }
    return frame("hello", said)


def ping_of(hub: Hub, subscription: Subscription) -> Callable[[], Frame]:
    """Return a function that makes the pings of a subscription."""

    def ping() -> Frame:
        cursor = hub.cursor_of(subscription)
        said = {
            "time": datetime.now(UTC),
            "cursor": cursor,
            "behind_ms": hub.behind_ms(subscription),
        }
        return frame("ping", said, cursor)

    return ping


async def subscribed(
    hub: Hub, transport: str, selection: Selection, owner: str | None
) -> tuple[Subscription, Frame]:
    """Return a new subscription and its first frame.

    A cursor that does not belong to the filter causes a reset frame and a new start.
    """
    try:
        subscription = await hub.open(transport, selection, owner)
    except InvalidFilter as exc:
        if selection.after is None:
            raise
        anew = msgspec.structs.replace(selection, after=None)
        subscription = await hub.open(transport, anew, owner)
        subscription.put(frame("reset", {"reason": str(exc)}))
    return subscription, hello(transport, subscription.cursor)


async def _stream(request: Request, query: StreamQuery) -> Response:
    hub: Hub = request.app.state.hub
    selection = query.selection()
    resumed = request.headers.get("last-event-id")
    if resumed and selection.after is None:
        selection = msgspec.structs.replace(selection, after=resumed)
    subscription, first = await subscribed(hub, "sse", selection, owner_of(request.scope))
    return EventStream(hub, subscription, first, ping_of(hub, subscription))


def owner_of(scope: Any) -> str | None:
    """Return the id of the request's token."""
    identity: Identity | None = scope.get("structjob.identity")
    return None if identity is None else identity.id


_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: hello, lines, gap, state, lag, ping, reset, bye.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **problems_of(404, 429),
}


@router.get("", response_model=None, responses=_DOCUMENTED)
async def stream(request: Request, query: Asked[StreamQuery]) -> Response:
    """Follow the log, and the state of jobs, as server-sent events."""
    return await _stream(request, query)


@router.post(
    "",
    response_model=None,
    responses=_DOCUMENTED | problems_of(413, 415),
    openapi_extra={
        "requestBody": {
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {"channels": ["logs"], "level": "warning", "last": 200},
                }
            }
        }
    },
)
async def post_stream(request: Request) -> Response:
    """Do the same as GET, with the parameters as JSON, because a cursor may be too long for an
    address.
    """
    return await _stream(request, of_json(await json_of(request)))


SOCKET: dict[int | str, dict[str, Any]] = {
    101: {"description": "The WebSocket is open."},
    **problems_of(404, 426),
}
"""The documentation of the answers at a WebSocket's path."""


def no_socket() -> Refused:
    """Return the answer to a plain request at a WebSocket's path."""
    return Refused(
        426,
        "only a WebSocket is answered here; if the client opened one, forward the headers Upgrade "
        "and Connection in the proxy",
    )


@router.get("/ws", response_model=None, status_code=101, responses=SOCKET)
async def stream_ws(query: Asked[NoQuery]) -> None:
    """Follow any number of filters over one WebSocket, named in its messages."""
    raise no_socket()


@reads(router, "/poll", Poll, problems=(404,))
async def poll(request: Request, source: Writes, query: Asked[PollQuery]) -> Any:
    """Return what has happened since a cursor, for networks that block streams."""
    selection = query.selection()
    answer = Poll([], [], None)
    if "logs" in selection.channels:
        try:
            await _poll_logs(source, selection, query.wait, answer)
        except InvalidFilter as exc:
            if selection.after is None:
                raise
            answer.reset = str(exc)
            selection = msgspec.structs.replace(selection, after=None)
            await _poll_logs(source, selection, 0.0, answer)
    if "tree" in selection.channels and selection.job is not None:
        rows, answer.state_tag = await rows_since(source, selection.job, query.state)
        answer.state = {kind: list(found.values()) for kind, found in rows.items()}
        answer.state["progress"] = await source.reader.jobs.progress(selection.job)
    if selection.after is None:
        answer.hello = msgspec.Raw(hello("poll", answer.cursor).data)
    return answer


async def _poll_logs(source: Writes, selection: Selection, wait: float, answer: Poll) -> None:
    after = selection.after
    last = selection.last if after is None else None
    async with source.tail(selection.wanted, after=after, last=last) as tail:
        found = await tail.poll(0 if after is None else wait)
        while found:
            for one in found:
                if isinstance(one, Gap):
                    answer.gaps.append(one)
                else:
                    answer.lines.append(msgspec.Raw(one.json))  # type: ignore[arg-type]  # its JSON
            if len(answer.lines) >= 1_000:
                break
            found = await tail.poll(0)
        answer.cursor = tail.cursor


def of_json(given: Any) -> StreamQuery:
    """Return the parameters in a JSON object.

    Raises:
        Refused: if one of them is refused.
    """
    if not isinstance(given, dict):
        raise Refused(400, "the parameters must be a JSON object")
    try:
        return StreamQuery.model_validate(given)
    except ValidationError as exc:
        errors = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
        raise describe(errors) from None


class Socket:
    """One WebSocket with any number of subscriptions; the client names each of them.

    Args:
        socket: The accepted connection.
        hub: The hub of the subscriptions.
        owner: The id of the token that it belongs to.
    """

    def __init__(self, socket: WebSocket, hub: Hub, owner: str | None) -> None:
        self._socket = socket
        self._hub = hub
        self._owner = owner
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            await self._put(hello("ws", None), None)
            while True:
                text = await text_of(self._socket)
                if len(text) > MAX_BODY:
                    await self._socket.close(1009)
                    return
                await self._obey(text)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            pass
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _obey(self, text: str) -> None:
        name: str | None = None
        try:
            given = msgspec.json.decode(text)
            if not isinstance(given, dict):
                raise Refused(400, "a message is a JSON object with op")
            op, name = given.pop("op", None), given.pop("id", None)
            if op == "auth":
                return
            if not isinstance(name, str) or len(name) > 64:
                raise Refused(400, "id must be text of at most 64 characters")
            if op == "subscribe":
                await self._drop(name)
                selection = of_json(given).selection()
                subscription, first = await subscribed(self._hub, "ws", selection, self._owner)
                task = asyncio.create_task(self._send(name, subscription, first))
                # Not in the task: one that is cancelled before its first step runs nothing.
                task.add_done_callback(lambda _: self._hub.leave(subscription))
                self._tasks[name] = task
            elif op == "unsubscribe":
                await self._drop(name)
                await self._put(frame("unsubscribed", {}), name)
            else:
                raise Refused(400, "op must be auth, subscribe or unsubscribe")
        except NOT_JSON as exc:
            await self._refuse(Refused(400, f"the message is no JSON: {exc}"), name)
        except Refused as exc:
            await self._refuse(exc, name)
        except StructjobError as exc:
            await self._refuse(refusal(exc), name)

    async def _refuse(self, refused: Refused, name: str | None) -> None:
        await self._put(frame("error", {"status": refused.status, "detail": refused.detail}), name)

    async def _drop(self, name: str) -> None:
        """End a subscription; nothing of it is sent after this."""
        if (task := self._tasks.pop(name, None)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _send(self, name: str, subscription: Subscription, first: Frame) -> None:
        ping = ping_of(self._hub, subscription)
        try:
            await self._put(first, name)
            while True:
                one = await subscription.next(HEARTBEAT)
                if one is None and subscription.ended:
                    break
                await self._put(one or ping(), name)
            if subscription.close_code is not None:
                await self._socket.close(subscription.close_code)
        except (TimeoutError, RuntimeError, WebSocketDisconnect):
            await _abandon(self._socket)

    async def _put(self, one: Frame, name: str | None) -> None:
        async with asyncio.timeout(SEND_TIMEOUT), self._sending:
            await self._socket.send_text(one.as_text(name))


async def text_of(socket: WebSocket) -> str:
    """Return the next message.

    Raises:
        WebSocketDisconnect: if the connection has ended; a message that is no text ends it.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    text: str | None = message.get("text")
    if text is None:
        await socket.close(1003)
        raise WebSocketDisconnect(1003)
    return text


async def _abandon(socket: WebSocket) -> None:
    try:
        async with asyncio.timeout(1):
            await socket.close(1008)
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        pass


async def websocket(socket: WebSocket) -> None:
    """Serve ``/stream/ws``."""
    await socket.accept()
    if (owner := await admitted(socket)) is not False:
        await Socket(socket, socket.app.state.hub, owner).run()


async def close(socket: WebSocket, refused: Refused) -> None:
    """Close a WebSocket with a problem; the reason may have 123 bytes."""
    reason = refused.detail.encode()[:123].decode(errors="ignore")
    await socket.close(4000 + refused.status, reason)


async def admitted(socket: WebSocket) -> str | Literal[False] | None:
    """Return the owner of a WebSocket, after it has sent its token if it needs one.

    Returns ``False`` if the connection was closed.
    """
    identity: Identity | None = socket.scope["structjob.identity"]
    if identity is not None:
        return identity.id
    doors: Doors = socket.app.state.doors
    try:
        async with asyncio.timeout(AUTH_TIMEOUT):
            said = msgspec.json.decode(await text_of(socket), type=_Auth)
        return doors.token_of(said.token, socket.scope).id
    except TimeoutError:
        await socket.close(4408, f"no token came within {AUTH_TIMEOUT:.0f} s")
    except NOT_JSON:
        await socket.close(4401, 'the first message must be {"op": "auth", "token": "…"}')
    except Refused as exc:
        await close(socket, exc)
    except (WebSocketDisconnect, RuntimeError):
        pass
    return False
