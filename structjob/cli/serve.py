"""``structjob serve``: the HTTP API, the live streams and the pages."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import execute, require
from structjob.cli.screen import Failure, say
from structjob.cli.token import file_of, require_extra
from structjob.exceptions import StoreUnavailable

if TYPE_CHECKING:
    from structjob.cli.database import Database


@click.command(
    epilog="""\b
Examples:
  structjob serve
  structjob serve --read-only --open
  structjob token create --scope read && structjob serve --host 0.0.0.0 --allowed-host logs.example

Without tokens, only requests from this machine are answered. With --token-file, or if ./structjob-tokens.json exists, each request needs a
token. For operation behind a proxy, see docs/http.md."""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8321, show_default=True, help="Port to listen on; 0 chooses a free one.")  # fmt: skip
@click.option(
    "--token-file",
    metavar="FILE",
    help="File with the tokens; create them with `structjob token create`.",
)
@click.option("--read-only", is_flag=True, help="Refuse requests to cancel, resolve and prune.")
@click.option("--allowed-host", multiple=True, callback=options.separated, metavar="NAME", help="Host name under which browsers reach this server; may be repeated.")  # fmt: skip
@click.option("--proxy", multiple=True, callback=options.separated, metavar="ADDRESS", help="Address of a proxy whose X-Forwarded-* headers are trusted; may be repeated.")  # fmt: skip
@click.option("--cors", multiple=True, callback=options.separated, metavar="ORIGIN", help="Origin, such as https://ops.example, whose scripts may read the API with a token; may be repeated.")  # fmt: skip
@click.option("--frame-ancestor", multiple=True, callback=options.separated, metavar="ORIGIN", help="Origin that may show these pages in a frame; may be repeated.")  # fmt: skip
@click.option("--open", "browser", is_flag=True, help="Open the pages in a browser.")
@options.database
def serve(
    db: Database,
    *,
    host: str,
    port: int,
    token_file: str | None,
    read_only: bool,
    allowed_host: tuple[str, ...],
    proxy: tuple[str, ...],
    cors: tuple[str, ...],
    frame_ancestor: tuple[str, ...],
    browser: bool,
) -> None:
    """Serve the HTTP API and the web pages."""
    require_extra()
    from structjob.web.app import build
    from structjob.web.auth import Doors, is_local
    from structjob.web.server import Server
    from structjob.web.tokens import TokenFile

    path = file_of(token_file)
    tokens = TokenFile(path) if token_file is not None or path.exists() else None
    if tokens is not None and not tokens.tokens():
        raise Failure(
            f"there are no tokens in {path}; type: structjob token create --scope read --token-file {path}",
            code=2,
        )
    if tokens is None and not is_local(host):
        raise Failure(
            f"--host {host} would let every machine read this without a token; "
            "create one: structjob token create --scope read",
            code=2,
        )
    db.refuse_memory(": only the program that made it can read it")
    execute(_look_at(db))
    wildcard = host in ("0.0.0.0", "::", "")  # noqa: S104 -- a comparison only
    names = frozenset(allowed_host) | (frozenset() if wildcard else {host.lower()})
    hosts = None if wildcard and not allowed_host else names
    doors = Doors(tokens, read_only=read_only, hosts=hosts)
    made = build(db.url, doors, name=db.shown, frame_ancestors=frame_ancestor, cors=cors)
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    say(f"structjob serves {db.shown} at {address}")
    if browser:
        click.launch(address)
    Server(made, host=host, port=port, proxies=proxy).run([listening])


async def _look_at(db: Database) -> None:
    """Open the database once, so that a fault is reported now and not to the first visitor.

    A database server that does not answer yet is a warning: after a reboot it may start later.
    """
    from structjob.reader import Reader

    require(db)
    try:
        async with Reader(db.url):
            pass
    except StoreUnavailable as exc:
        if exc.permanent or exc.gone:
            raise
        say(
            f"structjob: warning: {str(exc).rstrip('?.')}; requests get status 503 until the database answers"
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as exc:
        raise Failure(
            f"cannot listen on {host}:{port}: {exc.strerror}; choose another --port, or 0 for a free one"
        ) from exc
    return listening
