"""Tokens: random texts that permit access to the API. A file stores only their hashes."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from structjob.decoding import NOT_JSON
from structjob.exceptions import InvalidArgument

Scope = Literal["read", "write"]

_PREFIX = "sj_"
_BYTES = 32


class Token(msgspec.Struct, frozen=True):
    """A stored token.

    Args:
        id: Its name in logs and lists.
        scope: What it permits; ``write`` includes ``read``.
        sha256: The hash of its text.
        created_at: When it was created.
        expires_at: When it expires; ``None``: never.
    """

    id: str
    scope: Scope
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether it has expired."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)

    @property
    def scopes(self) -> frozenset[str]:
        """What it permits."""
        return frozenset({"read", "write"} if self.scope == "write" else {"read"})

    def key(self, purpose: bytes) -> bytes:
        """Return a key for signing, which becomes invalid when the token is removed from the
        file.
        """
        return hmac.digest(bytes.fromhex(self.sha256), purpose, "sha256")


class _File(msgspec.Struct):
    tokens: list[Token]


class TokenFile:
    """The file with the tokens, which is read again when it changes.

    Args:
        path: Its path; the first token creates the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._stamp: tuple[int, ...] | None = None
        self._tokens: Sequence[Token] = ()

    def tokens(self) -> Sequence[Token]:
        """Return the tokens; an empty sequence if the file does not exist.

        Raises:
            InvalidArgument: if the file cannot be read, or other users may read it.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._tokens = None, ()
            return ()
        except OSError as exc:
            raise InvalidArgument(f"cannot read the tokens in {self.path}: {exc.strerror}") from exc
        if found.st_mode & 0o077:
            raise InvalidArgument(
                f"others may read the tokens in {self.path}: type `chmod 600 {self.path}`"
            )
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
        if stamp != self._stamp:
            try:
                self._tokens = msgspec.json.decode(self.path.read_bytes(), type=_File).tokens
            except (OSError, *NOT_JSON) as exc:
                raise InvalidArgument(f"cannot read the tokens in {self.path}: {exc}") from exc
            self._stamp = stamp
        return self._tokens

    def find(self, text: str) -> Token | None:
        """Return the token with the text *text*; ``None`` if there is no such token, or it has
        expired.
        """
        given = sha256(text.encode(errors="replace")).hexdigest()
        found = None
        # compare with all of them, so that the duration reveals nothing
        for token in self.tokens():
            if hmac.compare_digest(token.sha256, given):
                found = token
        return None if found is None or found.expired else found

    def by_id(self, id: str) -> Token | None:
        """Return the token with that id; ``None`` if there is no such token, or it has expired."""
        return next((one for one in self.tokens() if one.id == id and not one.expired), None)

    def create(self, scope: Scope, expires: timedelta | None = None) -> tuple[str, Token]:
        """Add a token; return its text, which is not stored, and its record in the file.

        Raises:
            InvalidArgument: if the file cannot be read or written.
        """
        text = _PREFIX + secrets.token_urlsafe(_BYTES)
        now = datetime.now(UTC)
        token = Token(
            id=secrets.token_hex(4),
            scope=scope,
            sha256=sha256(text.encode()).hexdigest(),
            created_at=now,
            expires_at=None if expires is None else now + expires,
        )
        self._write([*self.tokens(), token])
        return text, token

    def revoke(self, id: str) -> bool:
        """Remove the token with that id; return whether there was one."""
        tokens = self.tokens()
        kept = [one for one in tokens if one.id != id]
        if len(kept) == len(tokens):
            return False
        self._write(kept)
        return True

    def _write(self, tokens: list[Token]) -> None:
        content = msgspec.json.format(msgspec.json.encode(_File(tokens)), indent=1) + b"\n"
        other = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            other.replace(self.path)
        except OSError as exc:
            other.unlink(missing_ok=True)
            raise InvalidArgument(
                f"cannot write the tokens to {self.path}: {exc.strerror}"
            ) from exc
