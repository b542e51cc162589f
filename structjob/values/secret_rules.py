"""The rules by which secrets are found, in structures and in texts.

They are found by the names of their keys, and by the form of credentials (`credentials`). One list
of keys applies to structures and to texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from structjob.exceptions import InvalidArgument
from structjob.values import credentials
from structjob.values.commands import masked, may_be_command, without_secrets
from structjob.values.credentials import MARK, may_hold_card, may_hold_token
from structjob.values.lists import items, texts
from structjob.values.registered import SHORTEST_VALUE, any_of, forms_of, registered
from structjob.values.words import any_word

Rule = str | re.Pattern[str]

SECRET_KEYS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "api_key", "accesskey", "access_key", "privatekey",
    "private_key", "authorization", "cookie", "credential", "credentials", "sessionid", "csrf", "xsrf", "jwt", "dsn", "otp", "totp", "cvv",
    "cvc", "ssn", "card_number", "secret_key", "account_key", "auth_key", "shared_key", "signing_key", "encryption_key", "master_key",
    "storage_key", "consumer_key", "app_key", "license_key", "sas_key", "set_cookie", "connection_string", "amz_signature",
    "amz_credential", "amz_security_token", "goog_signature", "rediscli_auth", "sshpass", "requirepass", "userpass", "passcode",
    "client_assertion", "refresh_token", "webhook_url", "mnemonic", "seed_phrase", "recovery_phrase", "bind_pw",
    "userpw", "dbpw", "phpsessid", "jsessionid", "connect_sid", "passwort", "kennwort", "contrasena", "contraseña", "senha", "mot_de_passe",
    "motdepasse", "mysql_pwd",
)  # fmt: skip
"""Words that make a key secret: it equals one, ends in one, or contains one as a separate word.

Words are separated by ``_``, ``-``, ``.`` or a change of letter case (``dbPassword``).
"""

WEAK_KEYS = ("pass", "sig", "signature", "auth", "pin", "sas")
"""Words that make a key secret only if its value looks like a secret.

In texts, they count only before ``=``.
"""

CARD_KEYS = (
    "card",
    "pan",
    "cc",
    "ccnum",
    "card_no",
    "card_num",
    "credit_card",
    "creditcard",
    "cc_number",
    "card_number",
)
"""Keys under which the digits of a payment card are replaced even without separators."""

_NAMES = frozenset(
    {"name", "key", "header", "variable", "env", "field", "parameter", "option", "attribute"}
)
_VALUES = frozenset({"value", "val", "content", "data", "default"})
"""Keys of mappings that hold a name and a value: ``{"name": "password", "value": …}``."""
_CONCERNING = _VALUES | {"netloc", "auth"}

_SECRET, _WEAK, _CARD, _OTHER = 1, 2, 4, 8
"""What a key says about its value: secret; secret if it looks like it; a card number if it is one;
something that `SecretRules.redact` decides.
"""
_NUMBERS = frozenset({int, float, bool, type(None)})
_REMEMBERED = 10_000
"""Maximum number of keys whose meaning is remembered."""

_is_word = re.compile(r"[\w.\-]*").fullmatch
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where one word of a key ends and the next begins: ``dbPassword``, ``CSRFToken``."""

_GAPS = re.compile(r"\W+")
"""Other separators between words, for example in the text of a tuple that is a key."""

# Never a secret although it contains such a word: counters and limits of language model tokens, and
# properties of a secret.
_INNOCENT = re.compile(
    r"(?:^|_)(?:max|min|num|n|total|input|output|prompt|completion|cached)_tokens?$|_tokens$|token_count$|^tokens$"
    r"|_(?:type|types|url|uri|endpoint|file|path|dir|directory|name|arn|length|len|policy|policies|required|enabled|disabled|valid|expired"
    r"|expires|expires_in|expires_at|expiry|expiration|ttl|age|max_age|at|on|limit|count|version|strength|field|fields|stdin|rotation|manager"
    r"|provider|protection|pattern|regex|re|cls|usage|used|budget|changed|reset|algorithm|format|prefix|domain|samesite|secure|httponly|jar|exists|rules?|hint|class|bucket|consent|per_second|per_minute)$"
    r"|^(?:has|is|no|needs|requires|require|use|uses|ask|prompt|with|without|show|hide|forgot|missing"
    r"|invalid|bad|wrong)_(?!cookie)"
)
_COUNTS = re.compile(
    r"(?:^|_)(?:secrets|passwords|credentials|tokens|cookies)"
    r"_(?:found|seen|left|read|sent|checked|removed|replaced|redacted|created|deleted|rotated|generated)$"
    r"|(?:^|_)next_token$"
)
"""Keys whose value is harmless if it is a number: it counts secrets, or is the number of a language
model's token.
"""
_NAMED = ("</", "val", "content", "data", "name=")
"""Marks of texts that may have separate names and values; every such text contains one."""
_ALWAYS = re.compile(r"^(?:webhook_url|set_cookie2?)$")

_PERSONAL = (
    r"(?<![\w.+-])[\w.+-]{1,64}+@[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,8}+",
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\.?\d)",
    # must contain a digit: `a::b` is a name in C++
    r"(?<![\w:.])(?=[A-Fa-f:]{0,39}\d)(?:(?:[\dA-Fa-f]{1,4}:){7}[\dA-Fa-f]{1,4}"
    r"|(?:[\dA-Fa-f]{1,4}(?::[\dA-Fa-f]{1,4}){0,6})?::(?:[\dA-Fa-f]{1,4}(?::[\dA-Fa-f]{1,4}){0,6})?)(?![\w:])",
)
"""E-mail addresses, IPv4, IPv6."""

_WORD = re.compile(r"[^\W_]+")
_RULES: tuple[str, ...] = (
    "keys",
    "names",
    "urls",
    "schemes",
    "tokens",
    "cards",
    "commands",
    "statements",
    "private_keys",
)


class SecretRules:
    """The rules of a `structjob.values.redaction.Redactor`, and fast checks of what they cannot
    change.

    Args:
        keys: See `structjob.values.redaction.Redactor`, also for the other arguments.
        text: See there.
        rules: See there.
        allow: See there.
        disable: See there.
        values: See there.
        pii: See there.
        overrides: The methods ``is_secret``, ``text`` and ``redact`` of a subclass of `Redactor`
            that has its own. They are called instead of those here, at any depth.

    Raises:
        InvalidArgument: if an argument is no list of texts, a rule to disable is unknown, a rule is
            no regular expression, or a value is too short.
    """

    def __init__(
        self,
        keys: Iterable[str] = (),
        *,
        text: bool = True,
        rules: Iterable[Rule] = (),
        allow: Iterable[str] = (),
        disable: Iterable[str] = (),
        values: Iterable[str] = (),
        pii: bool = False,
        overrides: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
    ) -> None:
        self._overrides = overrides
        # not `__dict__.update`: Python reads attributes more slowly once an object's dict was used
        for name, method in overrides.items():
            setattr(self, name, method)
        self._secret, self._given, self._roots = _patterns(tuple(texts("keys", keys)))
        self._allowed = frozenset(
            form for word in texts("allow", allow) for form in (snake(word), snake(word.lower()))
        )
        self._kinds: dict[str, int] = {}
        # Keys and short texts that were checked, such as names of operations: programs repeat them.
        self._innocent: set[str] = set()
        self._harmless: set[str] = set()
        disabled = set(texts("disable", disable))
        for name in sorted(disabled - {*_RULES}):
            raise InvalidArgument(
                f"unknown rule {name!r} to disable: use some of {', '.join(_RULES)}"
            )
        self._on = frozenset() if not text else frozenset(_RULES) - disabled
        own_rules = items("rules", rules)
        self._rules = [_compiled(rule) for rule in (*own_rules, *(_PERSONAL if pii else ()))]
        own = texts("values", values)
        for value in own:
            if len(value) < SHORTEST_VALUE:
                raise InvalidArgument(
                    f"values need at least {SHORTEST_VALUE} characters each: a shorter one would also be replaced inside other words"
                )
        self._values = any_of({form for value in own for form in forms_of(value)}) if own else None
        self._is_usual = not overrides and self._values is None and not self._rules

    @property
    def reads_all(self) -> bool:
        """Whether every text must be checked completely.

        The fast checks do not know custom values and rules, nor the methods of a subclass.
        """
        return not self._is_usual or registered.pattern is not None

    def is_secret(self, key: str) -> bool:
        """Return whether *key* names a secret."""
        return bool(self._kind(key) & _SECRET)

    def concerns(self, key: str) -> bool:
        """Return whether a value under *key*, or the key itself, needs more than a check of its
        text.
        """
        if key in self._innocent:
            return False
        concerned = (
            self._kind(key) != 0
            or ("is_secret" in self._overrides and self.is_secret(key))
            or self._holds_one(key)
        )
        if not concerned and _has_room(self._innocent, key):
            self._innocent.add(key)
        return concerned

    def _holds_one(self, key: str) -> bool:
        """Return whether *key* itself contains a credential.

        A word can only be a token or a card number: the other rules look for a sign between two
        words.
        """
        harmless = _is_word(key) and not may_hold_token(key) and not may_hold_card(key)
        return (self.reads_all or not harmless) and self.text(key) != key

    def _kind(self, key: str) -> int:
        """Return what *key* says about its value: a sum of the constants, 0 for nothing."""
        kind = self._kinds.get(key)
        if kind is None:
            words = snake(key)
            kind = _OTHER if words in _CONCERNING else 0
            if words not in self._allowed:
                if self._secret.search(words) is not None and (
                    _INNOCENT.search(words) is None
                    or _ALWAYS.search(words) is not None
                    or (self._given is not None and self._given.search(words) is not None)
                ):
                    kind |= _SECRET
                if words.rpartition("_")[2] in WEAK_KEYS:
                    kind |= _WEAK
                if words in CARD_KEYS or words.endswith(("_card", "_pan")):
                    kind |= _CARD
            if _has_room(self._kinds, key):
                self._kinds[key] = kind
        return kind

    def _counts(self, key: str) -> bool:
        """Return whether a number under *key* is harmless, though a text is secret."""
        words = snake(key)
        return (
            _COUNTS.search(words) is not None
            and (self._given is None or self._given.search(words) is None)
            and "is_secret" not in self._overrides  # it may have decided otherwise
        )

    def _is_weak(self, key: str) -> bool:
        return bool(self._kind(key) & _WEAK)

    def _is_card(self, key: str) -> bool:
        return bool(self._kind(key) & _CARD)

    def suspects(self, text: str) -> bool:
        """Return whether *text* may contain a credential.

        This is fast; it may be wrongly true, but never wrongly false.
        """
        if self.reads_all:
            return True
        if not self._on or text in self._harmless:
            return False
        found = len(text) >= 5 and (
            may_hold_token(text) or self._may_name_secret(text) or may_hold_card(text)
        )
        if not found and _has_room(self._harmless, text):
            self._harmless.add(text)
        return found

    def _may_name_secret(self, text: str) -> bool:
        """Return whether *text* may name a secret, or contain a URL with a password.

        It must contain both such a word and the characters that go with it.
        """
        pair = "=" in text or ":" in text
        if not (
            pair
            or "-" in text
            or "'" in text
            or '"' in text
            or "earer" in text
            or "asic" in text
            or "login" in text
            or "</" in text
        ):
            return "%3" in text or "AUTH " in text or "BASIC" in text or "BEARER" in text
        lower = text.lower()
        return (
            self._roots.search(lower) is not None
            or (pair and ("@" in text or _SHORT_ROOTS.search(f" {lower}") is not None))
            or ("-" in text and may_be_command(text))
        )

    def passes(self, names: Iterable[str], texts: Iterable[str]) -> bool:
        """Return whether a mapping with these *names*, and *texts* among its values, certainly has
        no secret.
        """
        # Most were checked before, and a set is compared in C.
        return (
            not self.reads_all
            and (self._innocent.issuperset(names) or not any(map(self.concerns, names)))
            and (self._harmless.issuperset(texts) or not any(map(self.suspects, texts)))
        )

    def clears(self, names: set[str], encoded: bytes) -> bool:
        """Return whether `redact` certainly leaves a plain value unchanged.

        Args:
            names: The keys in it, and the texts that precede another value in a list.
            encoded: The value as JSON.
        """
        # An option of a command is recognized by its first character.
        return (
            not self.reads_all
            and b'"-' not in encoded
            and not self.suspects(encoded.decode())
            and not any(map(self.concerns, names))
        )

    def text(self, text: str) -> str:
        """Return *text* without its credentials."""
        if not self.suspects(text):
            return text
        for pattern in (registered.pattern, self._values):
            if pattern is not None:
                text = pattern.sub(MARK, text)
        if self._on:
            text = self._by_rules(text)
        for rule in self._rules:
            text = rule.sub(_marked, text)
        return text

    def _by_rules(self, text: str) -> str:
        on = self._on
        if self._may_name_secret(text):
            lower = text.lower()
            if "private_keys" in on and "private key" in lower:
                text = credentials.private_keys(text)
            if "urls" in on and "@" in text:
                text = credentials.urls(text)
            if "schemes" in on and ("earer" in lower or "asic" in lower):
                text = credentials.schemes(text)
            if "keys" in on:
                text = credentials.pairs(text, self.is_secret, self._is_weak, self._is_card)
            if "names" in on and any(sign in lower for sign in _NAMED):
                text = credentials.named(text, self.is_secret)
            if "commands" in on and "-" in text:
                text = without_secrets(text, self.is_secret)
            if "statements" in on and (
                "'" in text or '"' in text or "login" in lower or "AUTH " in text
            ):
                text = credentials.statements(text)
        if "tokens" in on and may_hold_token(text):
            text = credentials.tokens(text)
        if "cards" in on and may_hold_card(text):
            text = credentials.cards(text)
        return text

    def redact(self, value: Any, key: str | None = None) -> Any:
        """Return plain *value* without secrets, at any depth; *key* is its own key.

        A plain value is a result of `structjob.values.normalizer.normalize`.
        """
        if key is not None and value is not None and type(value) is not bool:
            if self.is_secret(key):
                return value if type(value) in (int, float) and self._counts(key) else MARK
            if self._is_weak(key) and type(value) is str and credentials.is_likely_secret(value):
                return MARK
            if (
                self._is_card(key)
                and type(value) in (str, int)
                and credentials.is_card_number(value)
            ):
                return MARK
            if key.lower() == "netloc" and type(value) is str and "@" in value:
                return self.text(f"://{value}")[3:]
        if type(value) is str:
            return self.text(value)
        if type(value) in _NUMBERS:
            return value
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, (list, tuple)):
            if value and all(map(_is_pair, value)):  # headers, or the items of a mapping
                return [[self.redact(name), self.redact(item, name)] for name, item in value]
            if (
                key is not None
                and snake(key) == "auth"
                and _is_pair(value)
                and type(value[1]) is str
            ):
                return [self.redact(value[0]), MARK]
            if any(type(item) is str and item[:1] == "-" for item in value):
                return [
                    item if type(item) is str else self.redact(item) for item in self.command(value)
                ]
            return [self.redact(item) for item in value]
        return value

    def _mapping(self, value: Mapping[Any, Any]) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        hidden = self.named(value)
        plain_keys = not self._overrides  # a subclass may decide by the key in `value`
        for name, item in value.items():
            if name in hidden:
                out[name] = MARK
                continue
            if plain_keys and type(name) is str and not self.concerns(name):
                out[name] = self.redact(item)
                continue
            plain = self.text(name) if type(name) is str else name
            while plain != name and plain in out:
                plain += "~"
            out[plain] = self.redact(item, str(name))
        return out

    def named(self, value: Mapping[Any, Any]) -> list[Any]:
        """Return the keys of *value* whose items are secret because another item names them.

        Example: ``{"name": "password", "value": …}``.
        """
        names = {str(key).lower(): key for key in value}
        if names.keys().isdisjoint(_VALUES) or not any(
            type(value[names[name]]) is str and self.is_secret(value[names[name]])
            for name in names.keys() & _NAMES
        ):
            return []
        return [key for name, key in names.items() if name in _VALUES and value[key] is not None]

    def command(self, words: Sequence[Any]) -> list[Any]:
        """Return the words of a command line without secrets.

        Items that are not text stay unchanged.
        """
        return masked(words, self.is_secret, self.text)


def _marked(found: re.Match[str]) -> str:
    if "secret" not in found.re.groupindex:
        return MARK
    if found["secret"] is None:
        return found[0]
    at, end = found.span("secret")
    return f"{found.string[found.start() : at]}{MARK}{found.string[end : found.end()]}"


def _compiled(rule: Rule) -> re.Pattern[str]:
    try:
        return re.compile(rule)
    except (re.error, TypeError) as exc:
        raise InvalidArgument(
            f"rules must be regular expressions, and {rule!r} is not one: {exc}"
        ) from None


@lru_cache(16)
def _patterns(
    given: tuple[str, ...],
) -> tuple[re.Pattern[str], re.Pattern[str] | None, re.Pattern[str]]:
    """Return the patterns of secret keys, of the *given* keys alone, and of texts with a pair.

    Cached, because each setup of logging creates several redactors with the same keys, and most of
    its time goes into these patterns.
    """
    found = {*SECRET_KEYS, *map(snake, given), *(snake(word.lower()) for word in given)} - {""}
    words = sorted(map(re.escape, found), key=len, reverse=True)
    long = [word for word in words if len(word) > 4]
    secret = re.compile(rf"(?:^|_)(?:{'|'.join(words)})s?\d*(?:$|_)|(?:{'|'.join(long)})\d*$")
    own = (
        re.compile("|".join(rf"(?:^|_){re.escape(snake(word))}$" for word in given))
        if given
        else None
    )
    # A text contains a pair only if it contains a part of its key.
    roots = {max(_WORD.findall(snake(word)), key=len, default="") for word in given} - {""}
    return secret, own, any_word([*_ROOTS, *sorted(roots)])


def _has_room(known: set[str] | dict[str, int], text: str) -> bool:
    """Return whether *known* may remember *text*.

    It is begun anew when full, so that new texts are remembered, too.
    """
    if len(known) >= _REMEMBERED:
        known.clear()
    return len(text) < 256


def snake(key: str) -> str:
    """Return the words of *key* in lower case, with ``_`` between them."""
    return _GAPS.sub("_", _HUMPS.sub("_", key)).strip("_").lower()


def _is_pair(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2 and type(item[0]) is str


_ROOTS = (
    "ken", "key", "kie", "pass", "pwd", "phras", "cret", "cred", "card", "cvv", "cvc", "uth", "jwt", "gnatu", "basic", "beare", "bhook",
    "bind", "identi", "xsrf", "csrf", "jsess", "sessid", "ct.sid", "contrase", "senha", "monic", "dbpw", "userpw", "login", "nection",
    "sessionid",
)  # fmt: skip
"""Parts of the secret keys that the rules for texts look for."""
_SHORT_ROOTS = re.compile(
    r"[=:\"'](?<=otp.|pan.|pin.|sas.|sig.|dsn.|ssn.|cvv.|cvc.|_cc.|\Wcc.|_pw.)"
)
