"""A TCP proxy between a program and its database that breaks what passes through it, on purpose."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Self

_CHUNK = 65_536


class _Connection:
    """One client's connection and the one to the server on its behalf."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = client, server
        self.answer_is_last = False
        """Whether what the server says next is to be withheld, and the connection cut."""

    def cut(self) -> None:
        """End both connections by RST, as a machine does that was restarted, without a farewell to
        either side.
        """
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class FaultProxy:
    """Passes everything on until a test stops it.

    Args:
        host: The server's.
        port: The server's.

    Attributes:
        port: Where the proxy listens, on 127.0.0.1.
        cuts: How often a connection was cut at a pattern.
        accepted: How many connections were made.
        passed: Bytes that were passed on, both ways.
        asked: How often a client said something.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server_at = host, port
        self._listener: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._bytes_per_second: float | None = None
        self._pattern: tuple[bytes, bool] | None = None
        self.port = 0
        self.cuts = 0
        self.accepted = 0
        self.passed = 0
        self.asked = 0

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        await self.refuse()
        self._flowing.set()
        await asyncio.gather(*self._tasks)

    # -- faults
    # --------------------------------------------------------------------------

    async def accept(self) -> None:
        """Listen (again)."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Listen no more and cut what is open: the server's machine is up, and nothing listens
        there.
        """
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self.reset()

    def reset(self) -> None:
        """Cut every open connection by RST; new ones are welcome."""
        for connection in list(self._connections):
            connection.cut()

    def stop(self) -> None:
        """Pass nothing on, both ways, without a word: a black hole. New connections are accepted
        and never answered.
        """
        self._flowing.clear()

    def go(self) -> None:
        """Pass everything on again, what was held back first, and as fast as it comes."""
        self._bytes_per_second = None
        self._pattern = None
        self._flowing.set()

    def trickle(self, bytes_per_second: float) -> None:
        """Pass on so many bytes a second and direction only."""
        self._bytes_per_second = bytes_per_second

    def cut_before(self, pattern: bytes) -> None:
        """Cut a connection in place of passing on what a client says with *pattern* (two bytes at
        least) in it.
        """
        self._pattern = pattern, False

    def cut_after(self, pattern: bytes) -> None:
        """Pass on what a client says with *pattern* in it, and cut the connection in place of the
        answer: it is done, unknown.
        """
        self._pattern = pattern, True

    # -- passing on
    # --------------------------------------------------------------------------

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await self._flowing.wait()
        try:
            if self._closing:
                raise ConnectionAbortedError
            server_reader, server_writer = await asyncio.open_connection(*self._server_at)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, server_writer)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    self._pass_on(connection, reader, server_writer, client_speaks=True)
                )
                tasks.create_task(
                    self._pass_on(connection, server_reader, writer, client_speaks=False)
                )
        except* OSError:
            pass
        finally:
            self._connections.discard(connection)
            for each in connection.writers:
                each.transport.abort()

    async def _pass_on(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client_speaks: bool,
    ) -> None:
        end = b""
        while chunk := await reader.read(_CHUNK):
            await self._flowing.wait()
            self.asked += client_speaks
            if not client_speaks and connection.answer_is_last:
                self.cuts += 1
                connection.cut()
                return
            if client_speaks and self._pattern is not None:
                pattern, after = self._pattern
                if pattern in end + chunk:
                    if not after:
                        self.cuts += 1
                        connection.cut()
                        return
                    connection.answer_is_last = True
                end = (end + chunk)[-len(pattern) + 1 :]
            for piece in self._pieces(chunk):
                writer.write(piece)
                await writer.drain()
                self.passed += len(piece)
                if self._bytes_per_second is not None:
                    await asyncio.sleep(len(piece) / self._bytes_per_second)
        if not writer.transport.is_closing():
            writer.write_eof()

    def _pieces(self, chunk: bytes) -> Iterable[bytes]:
        if self._bytes_per_second is None:
            return [chunk]
        size = max(1, int(self._bytes_per_second / 20))
        return [chunk[at : at + size] for at in range(0, len(chunk), size)]
