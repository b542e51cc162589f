"""Authentication of clients, and their permissions."""

from __future__ import annotations

import inspect
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import itsdangerous
from starlette.datastructures import Headers
from starlette.types import Scope

from structjob.exceptions import InvalidArgument
from structjob.web.problems import Refused
from structjob.web.tokens import Token, TokenFile

Authorize = Callable[[Any], "Awaitable[frozenset[str] | None] | frozenset[str] | None"]
"""Takes an ASGI scope and returns what its user may do: ``read``, ``write``; ``None``: nothing."""

COOKIE = "structjob"
COOKIE_SECONDS = 30 * 86_400
"""Seconds until a login expires."""

FAILURES = 5
"""Wrong tokens per address and minute that are answered by 401; further ones by 429."""

_MINUTE = 60.0
_MOST_PEERS = 10_000
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_LOCAL_NAMES = ("localhost", "ip6-localhost")


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a client.

    Args:
        id: The id of its token; ``None`` without a token.
        scopes: What the client may do.
        ambient: Whether a browser sends the credentials automatically. Then a page of another site
            may have caused the request.
        cookie: Whether the client logged in here.
    """

    id: str | None
    scopes: frozenset[str]
    ambient: bool = True
    cookie: bool = False


class Doors:
    """Decides which clients get access.

    Args:
        tokens: The file of tokens; ``None``: there are no tokens.
        authorize: The host application's own rule.
        read_only: Never permit ``write``.
        hosts: Accepted names in the ``Host`` header; ``None``: any name.
    """

    def __init__(
        self,
        tokens: TokenFile | None = None,
        authorize: Authorize | None = None,
        *,
        read_only: bool = False,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._tokens = tokens
        self._authorize = authorize
        self._read_only = read_only
        self._hosts = hosts
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    @property
    def has_tokens(self) -> bool:
        """Whether clients log in with tokens."""
        return self._tokens is not None

    def knows(self, id: str) -> bool:
        """Return whether the token with this id is valid: not revoked, and not expired."""
        try:
            return self._tokens is not None and self._tokens.by_id(id) is not None
        except InvalidArgument:  # the file cannot be read
            return False

    def check_host(self, headers: Headers) -> None:
        """Refuse a name that is not this server's, because a foreign site's name may point to it.

        Raises:
            Refused: with 421.
        """
        if self._authorize is not None and self._hosts is None:
            return
        name = _host_name(headers.get("host", ""))
        if is_local(name) or name in (self._hosts or ()):
            return
        if self._tokens is not None and self._hosts is None:
            return
        cure = (
            "if it is this one, give structjob.web.app(…, authorize=…)"
            if self._hosts is None
            else f"if it is this one, start it with --allowed-host {name[:200] or 'NAME'}"
        )
        raise Refused(421, f"the Host header names another server, {name[:200]!r}; {cure}")

    async def identify(self, scope: Scope, headers: Headers) -> Identity:
        """Return the identity of the client.

        Raises:
            Refused: with 401, 403 or 429, if the client has no permission.
        """
        if self._authorize is not None:
            found = self._authorize(scope)
            scopes = await found if inspect.isawaitable(found) else found
            if not scopes:
                raise Refused(401, "the host application does not let you in")
            return Identity(None, self._of(frozenset(scopes)))
        if self._tokens is not None:
            return self._by_token(self._tokens, scope, headers)
        if not is_local(_peer(scope)) or any(name in headers for name in _FORWARDED):
            raise Refused(
                403,
                "only requests from this machine, through no proxy, are answered without authorize "
                "or tokens; give structjob.web.app(…, authorize=…), or use structjob serve --token-file",
            )
        return Identity(None, self._of(frozenset({"read", "write"})))

    def log_in(self, scope: Scope, text: str) -> tuple[Token, str]:
        """Return the token with the text *text*, and the value of a cookie that represents it.

        Raises:
            Refused: with 401, 404 or 429.
        """
        if self._tokens is None:
            raise Refused(404, "there is no login: this server has no tokens")
        token = self._checked(self._tokens, _peer(scope), text)
        return token, _signer(token).sign(token.id).decode()

    def token_of(self, text: str, scope: Scope) -> Identity:
        """Return the identity for the token *text*.

        Raises:
            Refused: with 401 or 429.
        """
        if self._tokens is None:
            raise Refused(401, "this server has no tokens")
        token = self._checked(self._tokens, _peer(scope), text)
        return Identity(token.id, self._of(token.scopes), ambient=False)

    def _by_token(self, tokens: TokenFile, scope: Scope, headers: Headers) -> Identity:
        kind, _, text = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.token_of(text.strip(), scope)
        for value in _cookies(headers):
            id_ = value.partition(".")[0]
            token = tokens.by_id(id_)
            if token is not None and _signed(token, value):
                return Identity(token.id, self._of(token.scopes), cookie=True)
        raise Refused(
            401, "a token is needed: Authorization: Bearer TOKEN, or log in", headers=_CHALLENGE
        )

    def _checked(self, tokens: TokenFile, peer: str, text: str) -> Token:
        # A valid token is never refused: it is random and cannot be guessed, and behind a proxy all
        # users may have one address.
        token = tokens.find(text)
        if token is not None:
            return token
        now = time.monotonic()
        failures = self._recent_failures(peer)
        if len(failures) >= FAILURES:
            seconds = round(_MINUTE - (now - failures[0])) + 1
            raise Refused(
                429,
                f"{FAILURES} wrong tokens came from this address within a minute: send a valid one, or wait {seconds} s",
                headers={"Retry-After": str(seconds)},
            )
        failures.append(now)
        self._failures[peer] = failures
        self._failures.move_to_end(peer)
        while len(self._failures) > _MOST_PEERS:
            self._failures.popitem(last=False)
        raise Refused(401, "the token is unknown, or has expired", headers=_CHALLENGE)

    def _recent_failures(self, peer: str) -> deque[float]:
        failures = self._failures.get(peer, deque())
        while failures and failures[0] <= time.monotonic() - _MINUTE:
            failures.popleft()
        return failures

    def _of(self, scopes: frozenset[str]) -> frozenset[str]:
        return scopes - {"write"} if self._read_only else scopes


def may_write(identity: Identity, headers: Headers) -> None:
    """Refuse a change that *identity* may not make, or that another site's page may have caused.

    Raises:
        Refused: with 403.
    """
    if "write" not in identity.scopes:
        raise Refused(403, "this needs the scope write; the token, or the server, is read-only")
    if not identity.ambient:
        return
    known = same_origin(headers)
    if known is False or (identity.cookie and known is None):
        raise Refused(403, "the request comes from a page of another origin")
    if headers.get("x-structjob") != "1":
        raise Refused(403, "a change needs the header X-Structjob: 1")


def same_origin(headers: Headers) -> bool | None:
    """Return whether a page of this origin made the request; ``None`` if no header says so."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host", "")
    return None


def is_local(host: str) -> bool:
    """Return whether *host* is a name of this machine that no other machine can reach."""
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """Return the name in a ``Host`` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return "127.0.0.1" if client is None else str(client[0])  # no address: a UNIX socket


def _cookies(headers: Headers) -> list[str]:
    """Return all values of the login's cookie.

    Applications that are mounted below one another have one each. Cookies of other applications on
    the host may have any form, so this does not use `http.cookies`, which then finds none.
    """
    parts = (part for line in headers.getlist("cookie") for part in line.split(";"))
    pairs = (part.strip().partition("=") for part in parts)
    return [value.strip('"') for name, _, value in pairs if name == COOKIE]


def _signer(token: Token) -> itsdangerous.TimestampSigner:
    return itsdangerous.TimestampSigner(token.key(b"structjob cookie"))


def _signed(token: Token, value: str) -> bool:
    try:
        _signer(token).unsign(value, max_age=COOKIE_SECONDS)
    except itsdangerous.BadSignature:
        return False
    return True
