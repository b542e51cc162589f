"""The server of ``structjob serve``."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp


class Server(uvicorn.Server):
    """uvicorn, which ends the live streams before it waits for them."""


def serve(app: ASGIApp, *, host: str, port: int) -> None:
    """Serve *app* until a signal ends it."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        server_header=False,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_level="warning",
    )
    Server(config).run()
