"""The server of ``structjob serve``."""

from __future__ import annotations

import socket

import uvicorn

from structjob.web.app import Application


class Server(uvicorn.Server):
    """A uvicorn server that ends the live streams before it waits for connections.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port; 0 is a free one.
        proxies: Addresses of proxies whose ``X-Forwarded-*`` headers are trusted.
    """

    def __init__(
        self, app: Application, *, host: str, port: int, proxies: tuple[str, ...] = ()
    ) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                lifespan="off",
                access_log=False,
                server_header=False,
                proxy_headers=bool(proxies),
                forwarded_allow_ips=list(proxies),
                ws="websockets-sansio",
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=5,
                log_level="warning",
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then the server, then close what the application opened."""
        self._app.end_streams()
        await super().shutdown(sockets)
        await self._app.aclose()
