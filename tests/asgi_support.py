"""Real web servers and raw HTTP for tests of what runs in them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import uvicorn

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For the clients of `httpx`, which ask servers of the test: each would read the certificates of
all authorities, which takes longer than the test.
"""


class Response(NamedTuple):
    """What a server answered; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """An ASGI application behind a real uvicorn, on this loop."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def request(
        self, path: str, method: str = "GET", body: bytes = b"", **headers: str
    ) -> Response:
        """Ask once; ``x_job_id="…"`` is the header ``x-job-id``."""
        reader, writer = await self.connect()
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]  # fmt: skip
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        raw = await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *others = head.decode("latin-1").split("\r\n")
        fields = (line.split(": ", 1) for line in others)
        return Response(int(first.split()[1]), {key.lower(): value for key, value in fields}, rest)


@contextlib.asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[Served]:
    """Serve *app* with uvicorn; it stops at the end."""
    options = {"log_config": None, "log_level": "critical", "ws": "websockets-sansio", **options}
    server = uvicorn.Server(uvicorn.Config(app, port=0, **options))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(20):
            while not server.started:
                assert not serving.done(), serving
                await asyncio.sleep(0.005)
        yield Served(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await serving
