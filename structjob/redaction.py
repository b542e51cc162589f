"""Secrets, taken out before anything is written anywhere.

Two rules: a value is replaced when its key names a secret; and inside any text, what looks like a credential is replaced:
the password of a URL, ``Bearer …`` and ``Basic …`` tokens, ``password=…`` pairs, private keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MARK = "[redacted]"
"""What stands in a secret's place."""

SECRET_KEYS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "api_key", "accesskey", "access_key", "privatekey",
    "private_key", "authorization", "cookie", "credential", "credentials", "sessionid", "csrf", "jwt", "dsn", "otp", "cvv", "ssn",
    "card_number",
)  # fmt: skip
"""Words that make a key secret when it is one of them, ends in one, or holds one between ``_``, ``-`` or ``.`` or camel humps."""

_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where one word of a key ends and the next begins: ``dbPassword``, ``CSRFToken``."""

_GAPS = re.compile(r"\W+")
"""What stands between words otherwise, of the text of a tuple that is a key, say."""

# What never is a secret although it ends like one; counters and limits of language models' tokens, mostly.
_INNOCENT = re.compile(r"(?:^|_)(?:max|min|num|n|total|input|output|prompt|completion|cached)_tokens?$|_tokens$|token_count$|^tokens$")

# Looked for first, since most events hold no credential. Each rule below needs one of these needles, or a URL with an `@`.
_NEEDLES = ("passw", "passphrase", "token", "secret", "bearer", "basic", "private key", "apikey", "api_key", "api-key")

# Each begins with a literal, so that a long text costs one pass: what may come before it needs no matching.
_TEXT_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?P<keep>://[^\s/:@?#]*:)[^\s/?#]+(?=@)"), rf"\g<keep>{MARK}"),
    (
        re.compile(
            r"(?P<keep>\b(?:bearer|basic)\s{1,8})(?=[A-Za-z0-9._~+/-]{0,64}(?:[0-9=._-]|(?-i:[a-z][A-Z])))[A-Za-z0-9._~+/-]{8,}=*",
            re.IGNORECASE,
        ),
        rf"\g<keep>{MARK}",
    ),
    (
        re.compile(
            r"(?P<keep>(?<!/)(?:password|passwd|passphrase|secret|token|api[_-]?key)\\?[\"']?\s{0,8}[=:]\s{0,8}\\?(?:(?P<double>\")|(?P<single>'))?)"
            r"(?!(?:none|null|true|false|token)(?:[\s\"',;&)}\]]|$))"
            r"(?(double)(?:[^\"\\]|\\[^\"])+|(?(single)(?:[^'\\]|\\[^'])+|[^\s\"',;&]+))",
            re.IGNORECASE,
        ),
        rf"\g<keep>{MARK}",
    ),
    # A token in a user's place, and options of a command.
    (re.compile(r"(?P<keep>://)(?=[^\s/:@?#]{0,80}\d)[^\s/:@?#]{20,}(?=@)"), rf"\g<keep>{MARK}"),
    (
        re.compile(
            r"(?P<keep>(?<!-)--[a-z_-]{0,32}(?:password|passwd|passphrase|secret|token|api[_-]?key)\s{1,8})(?!-)[^\s\"',;]+", re.IGNORECASE
        ),
        rf"\g<keep>{MARK}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL), MARK),
)


class Redactor:
    """Replaces secrets by `MARK`.

    Args:
        keys: Further words that make a key secret, besides `SECRET_KEYS`.
        text: Whether to look for credentials inside texts, too.
    """

    def __init__(self, keys: Iterable[str] = (), *, text: bool = True) -> None:
        given = list(keys)
        found = {*SECRET_KEYS, *map(_snake, given), *(_snake(word.lower()) for word in given)} - {""}
        words = sorted(map(re.escape, found), key=len, reverse=True)
        self._secret = re.compile(rf"(?:^|_)(?:{'|'.join(words)})s?\d*(?:$|_)|(?:{'|'.join(w for w in words if len(w) > 4)})\d*$")
        self._verdicts: dict[str, bool] = {}
        self._text = text

    def is_secret(self, key: str) -> bool:
        """Return whether *key* names a secret."""
        verdict = self._verdicts.get(key)
        if verdict is None:
            snake = _snake(key)
            verdict = self._secret.search(snake) is not None and _INNOCENT.search(snake) is None
            if len(self._verdicts) < 10_000 and len(key) < 256:
                self._verdicts[key] = verdict
        return verdict

    def suspects(self, encoded: bytes) -> bool:
        """Return whether a text in *encoded* JSON may hold a credential; cheap, and wrong only on the careful side."""
        if not self._text:
            return False
        # As text: `in` goes a long way round for bytes.
        return _suspicious(encoded.decode())

    def clears(self, names: set[str], encoded: bytes) -> bool:
        """Return whether `value` surely leaves a plain value as it is.

        Args:
            names: The keys in it, and the texts that stand before another value in a list.
            encoded: The value as JSON.
        """
        # One of somebody's own may do more. An option of a command is known by how it begins.
        return type(self) is Redactor and not any(map(self.is_secret, names)) and b'"--' not in encoded and not self.suspects(encoded)

    def text(self, text: str) -> str:
        """Return *text* without the credentials in it."""
        if self._text and _suspicious(text):
            for pattern, replacement in _TEXT_RULES:
                text = pattern.sub(replacement, text)
        return text

    def value(self, value: Any, key: str | None = None) -> Any:
        """Return plain *value* (as `structjob.encoding.normalise` makes it) without secrets, at any depth; *key* is its own."""
        if key is not None and value is not None and self.is_secret(key):
            return MARK
        if type(value) is str:
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.value(item, str(name)) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            if value and all(map(_is_pair, value)):  # headers, and the items of a mapping
                return [[self.value(name), self.value(item, name)] for name, item in value]
            # An option of a command stands before its value, unless that is the next option.
            options = [item.lstrip("-") if _is_option(item) else None for item in value]
            return [self.value(item, None if _is_option(item) else option) for option, item in zip([None, *options], value, strict=False)]
        return value


def _suspicious(text: str) -> bool:
    """Return whether a rule may match in *text*: a hundred times as quick as the rules, which take 10 ms for 64 KiB."""
    lower = text.lower()
    return ("@" in lower and "://" in lower) or any(needle in lower for needle in _NEEDLES)


def _snake(key: str) -> str:
    """Return the words of *key* in small letters, with ``_`` between them."""
    return _GAPS.sub("_", _HUMPS.sub("_", key)).strip("_").lower()


def _is_pair(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2 and type(item[0]) is str


def _is_option(item: Any) -> bool:
    return type(item) is str and item[:2] == "--"
