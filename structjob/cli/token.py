"""``structjob token``: manages the tokens that permit access to ``structjob serve``."""

from __future__ import annotations

import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from structjob.cli.screen import Failure, command_line, put_json, say, suggest
from structjob.cli.times import age, brief

if TYPE_CHECKING:
    from structjob.web.tokens import Token, TokenFile

NEEDED = ("fastapi", "uvicorn", "websockets", "itsdangerous")
"""The packages that the extra ``serve`` installs."""


def require_extra() -> None:
    """Refuse to continue without the extra ``serve``.

    Raises:
        Failure: if one of its packages is not installed.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Failure(f"not installed: {', '.join(missing)}", hint="pip install 'structjob[serve]'")


_USUAL = "structjob-tokens.json"


def file_of(given: str | None) -> Path:
    """Return the file of tokens: the given one, the environment's, or the default."""
    return Path(given or os.environ.get("STRUCTJOB_TOKEN_FILE") or _USUAL)


def _next(command: str, given: str | None) -> str:
    """Return a command to type for the same file of tokens."""
    return command_line("token", command, *(("--token-file", given) if given else ()))


def _tokens(given: str | None) -> TokenFile:
    require_extra()
    from structjob.web.tokens import TokenFile

    return TokenFile(file_of(given))


def _shown(one: Token) -> dict[str, object]:
    """Return a token for JSON, without its hash."""
    names = ("id", "scope", "created_at", "expires_at")
    return {name: getattr(one, name) for name in names}


_json = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
_file = click.option(
    "--token-file",
    metavar="FILE",
    help="File of the tokens; $STRUCTJOB_TOKEN_FILE, else ./structjob-tokens.json.",
)


@click.group(
    epilog="""\b
Examples:
  structjob token create --scope read --expires 90d
  structjob token list
  structjob token revoke 1f9a03c2"""
)
def token() -> None:
    """Create, list and revoke tokens for structjob serve."""


@token.command(
    epilog="""\b
Examples:
  structjob token create                       a token that may read, for ever
  structjob token create --scope write --expires 90d"""
)
@click.option("--scope", type=click.Choice(["read", "write"]), default="read", show_default=True, help="Rights of the token; write includes read.")  # fmt: skip
@click.option("--expires", metavar="AGE", callback=age, help="Lifetime of the token, such as 90d.  [default: unlimited]")  # fmt: skip
@_file
@_json
def create(scope: str, expires: timedelta | None, token_file: str | None, *, as_json: bool) -> None:
    """Create a token and show it once."""
    tokens = _tokens(token_file)
    text, made = tokens.create("write" if scope == "write" else "read", expires)
    if as_json:
        put_json({"token": text, **_shown(made)})
        return
    click.echo(text)
    ends = "never ends" if made.expires_at is None else f"ends {brief(made.expires_at, utc=False)}"
    say(
        f"token {made.id} for scope {scope} {ends}; {tokens.path} holds its hash. It is shown only once"
    )


@token.command("list")
@_file
@_json
def list_(token_file: str | None, *, as_json: bool) -> None:
    """List the tokens without their secret part."""
    tokens = _tokens(token_file)
    found = tokens.tokens()
    if as_json:
        put_json([_shown(one) for one in found])
        return
    for one in found:
        ends = (
            "never"
            if one.expires_at is None
            else "expired"
            if one.expired
            else brief(one.expires_at, utc=False)
        )
        click.echo(f"{one.id}  {one.scope:5}  made {brief(one.created_at, utc=False)}  ends {ends}")
    if not found:
        if not tokens.path.exists() and str(tokens.path) != _USUAL:
            raise Failure(f"there is no file {tokens.path}", hint=_next("create", token_file))
        say(f"no tokens in {tokens.path}")
        suggest(_next("create", token_file))


@token.command(
    epilog="""\b
Examples:
  structjob token revoke 1f9a03c2

ID is the one that `structjob token list` shows."""
)
@click.argument("id_", metavar="ID")
@_file
def revoke(id_: str, token_file: str | None) -> None:
    """Revoke a token and end its logins."""
    tokens = _tokens(token_file)
    if not tokens.revoke(id_):
        raise Failure(f"no token {id_} in {tokens.path}", code=3, hint=_next("list", token_file))
    say(f"token {id_} is revoked")
