"""The proxy does what a test believes it does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from fault_proxy import FaultProxy


@pytest.fixture
def heard():
    """What reached the server."""
    return []


@pytest.fixture
async def proxy(heard):
    """A proxy before a server that says "done" to each line."""
    conversations = set()

    async def answer(reader, writer):
        conversations.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                heard.append(line)
                writer.write(b"done " + line)
                await writer.drain()
        writer.transport.abort()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, limit=1 << 20) as server:
        async with FaultProxy(*server.sockets[0].getsockname()) as proxy:
            yield proxy
        await asyncio.gather(*conversations)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, line: bytes) -> bytes:
        self.writer.write(line)
        return await self.reader.readline()


@pytest.fixture
async def connect(proxy):
    clients = []

    async def connect() -> Client:
        clients.append(
            Client(*await asyncio.open_connection("127.0.0.1", proxy.port, limit=1 << 20))
        )
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await client.writer.wait_closed()


async def test_it_passes_on_what_it_is_not_told_to_break(proxy, connect, heard):
    """Without a fault it is not there."""
    client = await connect()
    assert await client.ask(b"BEGIN\n") == b"done BEGIN\n"
    big = b"x" * 300_000 + b"\n"
    assert await client.ask(big) == b"done " + big
    assert heard == [b"BEGIN\n", big]
    assert proxy.passed == 2 * (len(big) + 6) + 10


async def test_a_reset_cuts_what_is_open_only(proxy, connect):
    """After a reset the next connection works."""
    client = await connect()
    await client.ask(b"BEGIN\n")
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await client.reader.readline()
    assert await (await connect()).ask(b"BEGIN\n") == b"done BEGIN\n"


async def test_refused_until_it_accepts_again(proxy, connect):
    """While it refuses no client can connect; afterwards it accepts at the same port."""
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect()
    await proxy.accept()
    assert await (await connect()).ask(b"BEGIN\n") == b"done BEGIN\n"


async def test_a_black_hole_answers_nothing_until_it_lets_go(proxy, connect, heard):
    """What is said into the hole arrives when it opens, and not before."""
    client = await connect()
    await client.ask(b"BEGIN\n")
    proxy.stop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.ask(b"COMMIT\n")
    assert heard == [b"BEGIN\n"]
    proxy.go()
    assert await client.reader.readline() == b"done COMMIT\n"


async def test_a_trickle_passes_pieces(proxy, connect):
    """What comes through a trickle comes whole, in pieces of a twentieth of a second."""
    client = await connect()
    proxy.trickle(20_000)
    began = asyncio.get_running_loop().time()
    assert await client.ask(b"x" * 4_000 + b"\n") == b"done " + b"x" * 4_000 + b"\n"
    assert asyncio.get_running_loop().time() - began > 0.15


@pytest.mark.parametrize("after", [False, True])
async def test_it_cuts_at_a_pattern(proxy, connect, heard, after):
    """Before: the server never gets the request. After: the server has done it, and the client gets
    no answer. The pattern is found across packets.
    """
    client = await connect()
    await client.ask(b"BEGIN\n")
    (proxy.cut_after if after else proxy.cut_before)(b"COMMIT")
    client.writer.write(b"COM")
    await client.writer.drain()
    while proxy.passed < 6 + 11 + 3:
        await asyncio.sleep(0)
    client.writer.write(b"MIT\n")
    with pytest.raises(ConnectionResetError):
        await client.reader.readline()
    assert proxy.cuts == 1
    assert heard == ([b"BEGIN\n", b"COMMIT\n"] if after else [b"BEGIN\n"])
    proxy.go()
    assert await (await connect()).ask(b"COMMIT\n") == b"done COMMIT\n"
