"""Redaction: secrets are replaced before anything is written.

`structjob.values.secret_rules` finds them. Values that a program registers (`secret`) are replaced
wherever they occur.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from structjob.diagnostics import fault_types, faults
from structjob.exceptions import InvalidArgument
from structjob.values.credentials import MARK
from structjob.values.registered import SHORTEST_VALUE, registered
from structjob.values.secret_rules import Rule, SecretRules

T = TypeVar("T", str, bytes)

_ID_MARK = f"{MARK[:-1]}:"
_is_new_id = re.compile(
    r"0[0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
).fullmatch
_ID_LENGTH = 64
"""Minimum characters that a column of ids can hold."""

_usual = SecretRules()


class Redactor:
    """Replaces secrets by ``[redacted]``.

    Args:
        keys: Further words that make a key secret, in structures and in texts.
        text: Whether to also search texts for credentials, default True.
        rules: Regular expressions for further secrets in texts: the match is replaced, or its group
            ``secret`` if there is such a group.
        allow: Keys that are never secret, in any style of writing.
        disable: Rules for texts that are not used: ``keys`` (``password=…``), ``names``
            (``name="password" value="…"``), ``urls``, ``schemes`` (``Bearer …``), ``tokens``
            (``ghp_…``), ``cards``, ``commands`` (``mysql -p…``), ``statements`` (SQL, ``.netrc``),
            ``private_keys``.
        values: Secret values of at least 6 characters, in the same way as in `secret`, but for this
            redactor only.
        pii: Whether to also replace e-mail and IP addresses in texts, default False.

    Raises:
        InvalidArgument: if an argument is no list of texts, a rule to disable is unknown, a rule is
            no regular expression, or a value is too short.

    A subclass may have its own ``is_secret``, ``text`` and ``redact``. Where one of them raises, or
    ``text`` returns no text, ``[redacted]`` is recorded, and a warning says why.
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
    ) -> None:
        self._rules = SecretRules(
            keys, text=text, rules=rules, allow=allow, disable=disable, values=values, pii=pii,
            overrides=_overrides_of(self),
        )  # fmt: skip

    def is_secret(self, key: str) -> bool:
        """Return whether *key* names a secret."""
        return SecretRules.is_secret(rules_of(self), key)

    def text(self, text: str) -> str:
        """Return *text* without its credentials."""
        return SecretRules.text(rules_of(self), text)

    def redact(self, value: Any, key: str | None = None) -> Any:
        """Return plain *value* without secrets, at any depth; *key* is its own key.

        A plain value is a result of `structjob.values.normalizer.normalize`.
        """
        return SecretRules.redact(rules_of(self), value, key)


_HIDDEN: dict[str, Any] = {"is_secret": True, "text": MARK, "redact": MARK}
"""The methods that a subclass may have, and what counts as their result if they fail."""


def _overrides_of(redactor: Redactor) -> dict[str, Any]:
    return {
        name: _guarded(redactor, name)
        for name in _HIDDEN
        if getattr(type(redactor), name) is not getattr(Redactor, name)
    }


def _guarded(redactor: Redactor, name: str) -> Callable[..., Any]:
    """Return the method *name* of a subclass, which never raises, and returns text for a text.

    Otherwise its mistake would lose the event, or the state of a job. What it could not check is
    not shown.
    """
    method = getattr(redactor, name)

    def guarded(*args: Any) -> Any:
        try:
            result = method(*args)
            if name == "text" and not isinstance(result, str):
                raise TypeError(f"it must return text, not {type(result).__name__}")
        except fault_types() as exc:
            faults.add(f"{type(redactor).__name__}.{name}()", exc)
            return _HIDDEN[name]
        return result

    return guarded


def rules_of(redactor: Redactor) -> SecretRules:
    """Return the rules of *redactor*, by which the library checks and redacts.

    A subclass that does not call ``Redactor.__init__`` has the usual ones.
    """
    rules: SecretRules | None = redactor.__dict__.get("_rules")
    if rules is None:
        rules = redactor.__dict__["_rules"] = SecretRules(overrides=_overrides_of(redactor))
    return rules


def secret(value: T) -> T:
    """Register a secret value.

    This process replaces it by ``[redacted]`` in everything that it records.

    It is also found URL-quoted and in Base64.

    Args:
        value: At least 6 characters.

    Returns:
        The same *value*: ``password = structjob.secret(load_password())``.

    Raises:
        InvalidArgument: if *value* is neither text nor bytes, or is shorter, because it would be
            replaced within other words.
    """
    if not isinstance(value, (str, bytes)):
        raise InvalidArgument(f"secret() takes text or bytes, not {type(value).__name__}")
    text = value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
    if len(text) < SHORTEST_VALUE:
        raise InvalidArgument(
            f"secret() takes at least {SHORTEST_VALUE} characters: a shorter one would also be replaced inside other words"
        )
    registered.add([text])
    return value


def secrets_from_environment(environ: Mapping[str, str] | None = None) -> list[str]:
    """Register the values of environment variables with secret names, in the same way as `secret`.

    Examples of such names are ``DB_PASSWORD`` and ``API_KEY``.

    Args:
        environ: The environment; default: ``os.environ``.

    Returns:
        The names of the variables. Values of fewer than 6 characters, numbers, and paths of
        existing files are skipped, because they would be replaced where they mean something else.
    """
    given = os.environ if environ is None else environ
    found = [
        name
        for name, value in given.items()
        if _usual.is_secret(name)
        and len(value) >= SHORTEST_VALUE
        and not value.isdecimal()
        and not (value.startswith("/") and os.path.exists(value))
    ]
    if found:
        registered.add([given[name] for name in found])
    return sorted(found)


def is_own_id(text: str) -> bool:
    """Return whether *text* is an id as the library makes them, and certainly without credentials.

    Most ids are.
    """
    return _is_new_id(text) is not None and registered.pattern is None


def identified(text: str) -> str:
    """Return an id without its credentials.

    Different ids stay different: the mark in them has digits that depend on the whole id. The
    result is the same in every process, because only the default rules and the registered values
    are used here. Therefore a job can be found by the id that it was given.
    """
    if is_own_id(text):
        return text
    if _ID_MARK in text:
        return text
    hidden = _usual.text(text)
    if hidden == text:
        return text
    mark = f"{_ID_MARK}{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}]"
    shown = hidden.replace(MARK, mark)
    return shown if len(shown) <= max(len(text), _ID_LENGTH) else mark


def labelled(text: str) -> str:
    """Return a label, such as the name of an operation, without credentials, by the default
    rules.
    """
    return _usual.text(text)


def stored_forms(text: str) -> tuple[str, ...]:
    """Return *text*, an id or a label, in the forms in which it may be stored.

    These are: unchanged, and without its credentials.
    """
    return tuple(dict.fromkeys((text, identified(text), labelled(text))))
