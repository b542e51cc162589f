"""Encoding of any loggable object as bounded JSON bytes that every supported database takes.

It never raises. The fast path is one pass over flat, plain values and one call to msgspec; for
large values it is a few passes in C, level by level. Other values go through
`structjob.values.normalizer`, which converts any object into plain values within the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from itertools import chain, islice
from typing import Any, Protocol

import msgspec

from structjob.diagnostics import fault_types
from structjob.values.bounds import (
    MAX_DEPTH,
    MAX_KEY,
    MAX_KEYS,
    MAX_STRING,
    OF_EVENT,
    Bounds,
    Limits,
)
from structjob.values.normalizer import NUMBERS, Normalizer, are_plain, normalize, text_of


class Redacting(Protocol):
    """The interface of a redactor, which removes secrets from plain values."""

    def redact(self, value: Any, key: str | None = None) -> Any:
        """Return plain *value*, whose own key is *key*, without secrets."""

    def passes(self, names: Iterable[str], texts: Iterable[str]) -> bool:
        """Return whether a flat mapping certainly contains no secret.

        *names* are its keys, and *texts* the texts among its values.
        """

    def clears(self, names: set[str], encoded: bytes) -> bool:
        """Return whether a value certainly contains no secret.

        *names* are the names that could reveal one, and *encoded* is the value's JSON.
        """

    @property
    def reads_all(self) -> bool:
        """Whether every text must be checked completely, and the following two know too little."""

    def concerns(self, key: str) -> bool:
        """Return whether a value under *key*, or the key itself, may be changed."""

    def suspects(self, text: str) -> bool:
        """Return whether *text* may be changed."""


# An integer: `92 in bytes` is one memchr, while `b"\\\\" in bytes` is much slower.
_BACKSLASH = ord("\\")

_SIMPLE = NUMBERS | {str, list, dict}
_SHORT_KEY = MAX_KEY // 4
"""Maximum characters of a key that needs no further check."""
_FEW = 64
"""Maximum number of members, and characters of their keys, that `_flat` takes."""
_SHORT_TEXT = 1024
"""Maximum characters of a text that `_flat` takes."""
_SMALL = 10**12
_SMALL_OBJECT = 4 * MAX_KEYS
"""An object of no more bytes has fewer than `MAX_KEYS` keys: each takes more than four."""


_encode = msgspec.json.Encoder().encode


def encode_text(value: object) -> bytes:
    """Return *value* as a JSON string; a value that is not a `str` is converted first."""
    if type(value) is str and len(value) <= MAX_STRING:
        try:
            out = _encode(value)
        except UnicodeEncodeError:
            pass
        else:
            if len(out) <= MAX_STRING and (_BACKSLASH not in out or out.find(b"\\u0000") < 0):
                return out
    out = _encode(text_of(value, MAX_STRING))
    # Control characters take six bytes each in JSON.
    return out if len(out) <= 2 * MAX_STRING else _encode(text_of(value, MAX_STRING // 6))


def encode_plain(attrs: dict[str, Any], known: Container[str], unknown: list[str]) -> bytes | None:
    """Return *attrs*, whose keys are text, as a JSON object.

    Return ``None`` if a value is not plain, or something must be cut.

    Args:
        attrs: The attributes.
        known: Texts that are short.
        unknown: Gets the texts in *attrs* that are not among them.
    """
    try:
        for value in attrs.values():
            kind = type(value)
            if kind is str:
                # before its hash is computed, and it is encoded: the text may have 100 MB
                if len(value) > MAX_STRING:
                    return None
                if value not in known:
                    unknown.append(value)
            elif kind is int or kind is bool:
                pass
            elif kind is float:
                # `x - x` is 0.0 only if x is finite
                if value - value != 0.0:
                    return None
            elif value is not None:
                return None
        out = _encode(attrs)
    except fault_types():  # half a surrogate pair, a long integer: the slow path
        return None
    if len(out) > _SMALL_OBJECT and (len(out) > MAX_STRING or len(attrs) > MAX_KEYS):
        return None
    return None if _BACKSLASH in out and out.find(b"\\u0000") > 0 else out


def encode_fields(fields: Mapping[str, str | int]) -> bytes:
    """Return *fields*, a few short values such as ids, as `encode_value` does, in less time."""
    try:
        out = _encode(fields)
    except fault_types():  # half a surrogate pair, in an id from the environment
        out = b""
    if not out or len(out) > MAX_STRING or _BACKSLASH in out:
        return encode_value(dict(fields))
    return out


def encode_value(
    value: Any,
    bounds: Bounds = OF_EVENT,
    redactor: Redacting | None = None,
    warn: Callable[[str], object] | None = None,
) -> bytes:
    """Return any value as JSON within *bounds*, without secrets.

    If the result is too large, the value itself is cut again with stricter limits, so that the
    marks contain the original sizes.

    Args:
        value: Any object.
        bounds: The maximum size; default: that of an event's attributes.
        redactor: Removes the secrets; ``None`` (the default) leaves them in.
        warn: Called, if something is cut for its size, with what is too large and the limit.
    """
    tried, size, cut = bounds.limits, 0, ""
    # Most metadata and results are a few numbers and short texts.
    if (
        type(value) is dict
        and (flat := _flat(value)) is not None
        and (redactor is None or redactor.passes(value, flat[1]))
    ):
        return flat[0]
    # Nothing is redacted that must be cut for its size anyway: the search takes longer than all
    # the rest, and hardly ever makes a value much smaller.
    hopeless = bounds.room * 5 // 4
    if (simple := _simple(value, bounds.limits[0])) is not None:
        out, names = simple
        if len(out) > hopeless or redactor is None or redactor.clears(names, out):
            if len(out) <= bounds.room:
                return out
            tried, size = tried[1:], len(out)
    plain: Any = None
    for limits in tried:
        normalizer = Normalizer(limits)
        plain = normalizer.plain(value, 0)
        if limits is bounds.limits[0]:
            cut = normalizer.cut
        if redactor is not None:
            if limits is not tried[-1] and (length := len(_encode(plain))) > hopeless:
                size = size or length
                continue
            if normalizer.cut_text:
                plain = Normalizer(limits, redactor.redact).plain(value, 0)
            plain = redactor.redact(plain)
        if type(value) is dict and type(plain) is not dict:
            # Too little stack was left for the walk, or a custom redactor returned another object.
            # An object stays one: ids are appended to the JSON of attributes.
            plain = {"…": plain}
        try:
            out = _encode(plain)
        except fault_types():  # a custom redactor may have returned any object
            plain = normalize(plain, limits)
            out = _encode(plain)
        if len(out) <= bounds.room:
            break
        size = size or len(out)
    else:
        out = _encode(_outline(plain, size, bounds.room))
    if size > bounds.room and not cut:
        cut = f"{size:,} bytes of JSON are more than {bounds.room:,}"
    if cut and warn is not None:
        warn(cut)
    return out


def _simple(value: Any, limits: Limits) -> tuple[bytes, set[str]] | None:
    """Return *value* as JSON, and the names by which secrets in it could be found.

    Return ``None`` if it needs a further check. This makes a few passes over each level, all of
    them in C, which take a tenth of the time of a walk through a large value.
    """
    try:
        names = _survey(value, limits)
        out = b"" if names is None else _encode(value)
    except fault_types():  # any error is handled by the slow path
        return None
    if names is None or (_BACKSLASH in out and out.find(b"\\u0000") > 0):
        return None
    return out, names


def _flat(value: dict[Any, Any]) -> tuple[bytes, list[str]] | None:
    """Return a mapping of a few numbers and short texts as JSON, and the texts.

    Return ``None`` for any other mapping. The numbers are too small to be that of a payment card.
    """
    if len(value) > _FEW:
        return None
    texts: list[str] = []
    try:
        for key, each in value.items():
            if type(key) is not str or len(key) > _FEW:
                return None
            kind = type(each)
            if kind is str:
                if len(each) > _SHORT_TEXT:
                    return None
                texts.append(each)
            elif kind not in NUMBERS or (
                each is not None and not -_SMALL < each < _SMALL  # also false for NaN
            ):
                return None
        out = _encode(value)
    except fault_types():  # a class that cannot be hashed, half a surrogate pair
        return None
    return None if _BACKSLASH in out else (out, texts)


def _survey(value: Any, limits: Limits) -> set[str] | None:
    """Return the keys in *value*, and texts that may be keys in a list of pairs.

    Return ``None`` unless the value is simple and within the limits.
    """
    level, names, nodes = [value], set[str](), 1
    for _ in range(MAX_DEPTH):
        kinds = set(map(type, level))
        if not kinds <= _SIMPLE:
            return None
        if str in kinds:
            texts = [each for each in level if type(each) is str]
            nodes += sum(map(len, texts)) >> 6
            if any(
                len(text) > limits.string or len(text.encode()) > limits.string
                for text in texts
                if len(text) * 4 > limits.string
            ):
                return None
        if (int in kinds or float in kinds) and not are_plain(
            [each for each in level if type(each) in NUMBERS]
        ):
            return None
        lists = [each for each in level if type(each) is list] if list in kinds else []
        mappings = [each for each in level if type(each) is dict] if dict in kinds else []
        if not lists and not mappings:
            return names if nodes <= limits.nodes else None
        nodes += sum(map(len, lists)) + sum(map(len, mappings))
        # The number of nodes limits the size of the next level: with shared lists it could be
        # billions.
        if (
            nodes > limits.nodes
            or max(map(len, lists), default=0) > limits.items
            or max(map(len, mappings), default=0) > limits.keys
        ):
            return None
        if mappings:
            keys = set(chain.from_iterable(mappings))
            if keys and (set(map(type, keys)) != {str} or max(map(len, keys)) > _SHORT_KEY):
                return None
            names |= keys
        names.update([each[0] for each in lists if len(each) == 2 and type(each[0]) is str])
        level = [
            *chain.from_iterable(lists),
            *chain.from_iterable([each.values() for each in mappings]),
        ]
    return None


def _outline(plain: Any, size: int, room: int) -> dict[str, Any]:
    """Return a summary if even the shortened values, which *plain* holds, are too large."""
    keys = list(islice(plain, 64)) if type(plain) is dict else []
    return {"…": f"[cut: {size:,} bytes of values, the limit is {room:,}]", "keys": keys}
