"""A stream as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from structjob.web.frames import Frame
from structjob.web.hub import Hub
from structjob.web.subscription import Subscription

SEND_TIMEOUT = 30.0
"""Maximum number of seconds for a send; a slower connection is closed."""

HEARTBEAT = 15.0
"""Seconds without another frame after which a ping is sent."""

EARLY = 1.0
"""Seconds after which the first ping is sent. It is small, so a proxy that buffers holds it back,
even if it passed on what came before.
"""

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """An ASGI response that sends frames until either side ends it.

    Args:
        hub: The hub of the subscription.
        subscription: The queue of frames to send.
        first: The frame that is sent first.
        ping: Makes the frame that shows that the connection is alive.
        form: Converts a frame to bytes.
    """

    def __init__(
        self,
        hub: Hub,
        subscription: Subscription,
        first: Frame | None,
        ping: Callable[[], Frame],
        form: Callable[[Frame], bytes] = Frame.as_sse,
    ) -> None:
        super().__init__()
        self._hub = hub
        self._subscription = subscription
        self._first = first
        self._ping = ping
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; see ASGI."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if scope.get("structjob.head"):
                await send({"type": "http.response.body", "body": b""})
                return
            sending = asyncio.create_task(self._send_all(send))
            gone = asyncio.create_task(_disconnected(receive))
            try:
                await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, gone):
                    task.cancel()
                    with suppress(asyncio.CancelledError, OSError, TimeoutError):
                        await task
        finally:
            self._hub.leave(self._subscription)

    async def _send_all(self, send: Send) -> None:
        async def put(one: Frame) -> None:
            async with asyncio.timeout(SEND_TIMEOUT):
                await send(
                    {"type": "http.response.body", "body": self._form(one), "more_body": True}
                )

        if self._first is not None:
            await put(self._first)
        loop = asyncio.get_running_loop()
        early: float | None = loop.time() + EARLY
        while True:
            wait = HEARTBEAT if early is None else max(0.0, early - loop.time())
            one = await self._subscription.next(wait)
            if one is None and self._subscription.ended:
                break
            if one is None:
                early = None
            await put(one or self._ping())
        await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
