"""``structjob serve``: the HTTP API, the live streams and the pages."""

from __future__ import annotations

import importlib.util
import ipaddress
from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.screen import Failure, say

if TYPE_CHECKING:
    from structjob.cli.database import Database

_NEEDED = ("fastapi", "uvicorn", "websockets", "itsdangerous")


@click.command(
    epilog="""\b
Examples:
  structjob serve
  structjob serve --port 8321 --read-only"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8321, show_default=True, help="Port; 0: a free one.")  # fmt: skip
@click.option("--read-only", is_flag=True, help="Refuse to cancel, resolve and prune.")
@options.database
def serve(db: Database, *, host: str, port: int, read_only: bool) -> None:
    """Serve the HTTP API and the web pages."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Failure(
            f"{', '.join(missing)} is not installed", hint="pip install 'structjob[serve]'"
        )
    if not is_loopback(host):
        raise Failure(
            f"--host {host} would let other machines read everything: serve on 127.0.0.1, behind a proxy of yours",
            code=2,
        )
    from structjob.web.app import app
    from structjob.web.server import Server

    made = app(db.url, read_only=read_only, name=db.shown)
    say(f"structjob serves {db.shown} at http://{host}:{port}/")
    Server(made, host=host, port=port).run()


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach *host*."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
