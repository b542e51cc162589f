"""Conversion of any object into plain values within the limits. It never raises.

A part that is cut is replaced by a mark with its size. These are normalized: NaN and infinities (to
their names), NUL (to U+2400, because SQLite and PostgreSQL cannot hold it in text), lone surrogates
(to their escape), bytes (to text), sets, deques, ranges, views of mappings and arrays (to lists),
NumPy's scalars (to Python values), keys that are not text, cycles, and objects (to their ``repr``).
"""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import ipaddress
import math
import pathlib
import uuid
from collections.abc import Callable, Mapping, MappingView
from itertools import islice
from typing import Any

from structjob.diagnostics import fault_types
from structjob.values.bounds import (
    MAX_BITS,
    MAX_DEPTH,
    MAX_KEY,
    MAX_STRING,
    OF_EVENT,
    SHORT_STRING,
    Limits,
)
from structjob.values.objects import fields_of, is_array, of_times, scalar, type_name

_INFINITY = float("inf")
NUMBERS = frozenset({int, bool, float, type(None)})
_LARGE = 1 << 63
"""Integers below this need no further check."""
_SHOWN = (
    datetime.timedelta, uuid.UUID, decimal.Decimal, fractions.Fraction, complex, pathlib.PurePath, collections.UserString,
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network,
    ipaddress.IPv4Interface, ipaddress.IPv6Interface,
)  # fmt: skip
"""Types of single values that are recorded as their ``str``."""
_CONTAINERS: tuple[Any, ...] = (
    Mapping, list, tuple, set, frozenset, range, collections.deque, collections.UserList, array.array, MappingView,
)  # fmt: skip
_BEYOND = 4 * 1024
"""Maximum characters after a cut that are searched for secrets.

Otherwise the beginning of a secret at the cut would stay, because the rest shows that it is one.
"""


def redacted_text(value: object, redact: Callable[[str], object]) -> str:
    """Return *value* as text of at most `MAX_STRING` bytes in UTF-8, without secrets.

    Little of what is cut is looked through, and the mark contains the original size.
    """
    text, size = _clean_text(value, MAX_STRING + _beyond(MAX_STRING), redact)
    return _cut_redacted(text, size, redact, MAX_STRING)


def normalize(
    value: Any, limits: Limits = OF_EVENT.limits[0], redact: Callable[[str], object] | None = None
) -> Any:
    """Return *value* converted to plain types within the limits.

    These are ``dict``, ``list``, ``str``, ``int``, finite ``float``, ``bool`` and ``None``.

    Args:
        value: Any object.
        limits: The limits; default: those of an event.
        redact: Removes the secrets from a text that is cut. The other texts keep theirs.
    """
    if type(value) is str and _is_short(value):
        return value
    return Normalizer(limits, redact).plain(value, 0)


def with_text_keys(
    given: Mapping[Any, Any], redact: Callable[[str], object] | None = None
) -> dict[str, Any]:
    """Return *given* with keys that are text, and unchanged values.

    Different keys such as 1 and "1" stay different. *redact* removes the secrets from a key that
    is cut.
    """
    out: dict[str, Any] = {}
    normalizer = Normalizer(OF_EVENT.limits[0], redact)
    for key, value in given.items():
        out[_fresh(normalizer.key(key), out)] = value
    return out


class Normalizer:
    """One walk through a value.

    Args:
        limits: The limits.
        redact: See `normalize`.

    Attributes:
        cut: The first thing that was too large, and the limit; empty if there was no such thing.
        cut_text: Whether a text was cut.
    """

    __slots__ = (
        "_above", "_max_items", "_max_keys", "_max_nodes", "_max_string", "_nodes", "_redact", "cut", "cut_text",
    )  # fmt: skip

    def __init__(self, limits: Limits, redact: Callable[[str], object] | None = None) -> None:
        self._redact = redact
        self._max_string = limits.string
        self._max_items = limits.items
        self._max_keys = limits.keys
        self._max_nodes = limits.nodes
        self._nodes = 0
        self._above: set[int] = set()
        self.cut = ""
        self.cut_text = False

    @property
    def full(self) -> bool:
        """Whether the rest must be omitted."""
        return self._nodes > self._max_nodes

    def plain(self, value: Any, depth: int) -> Any:
        self._nodes += 1
        kind = type(value)
        if (kind is str and _is_short(value)) or (kind is int and -_LARGE < value < _LARGE):
            return value
        try:
            return self._plain(value, type(value), depth)
        except fault_types() as exc:  # a hostile object must not lose the event
            return f"<{type_name(value)}: cannot be shown, {type(exc).__name__}>"

    def _plain(self, value: Any, kind: type, depth: int) -> Any:
        # `issubclass(type(x), …)` and never `isinstance`, because the latter calls the object,
        # which may lie or raise.
        if value is None or kind is bool:
            return value
        if issubclass(kind, str):
            text = self._text(value)
            self._nodes += len(text) >> 6
            return text
        if issubclass(kind, int):
            number = int.__int__(value)
            if (bits := number.bit_length()) <= MAX_BITS:
                return number
            self._note(f"a number of {bits:,} bits", MAX_BITS)
            return f"<{'negative ' if number < 0 else ''}int of {bits:,} bits>"
        if issubclass(kind, float):
            real = float.__float__(value)
            if real - real == 0.0:
                return real
            return "NaN" if real != real else "Infinity" if real == _INFINITY else "-Infinity"  # noqa: PLR0124 -- only NaN differs from itself
        if issubclass(kind, (bytes, bytearray, memoryview)):
            return self._bytes(value)
        if issubclass(kind, (datetime.datetime, datetime.date, datetime.time)):
            return value.isoformat()
        if issubclass(kind, _SHOWN):
            return self._text(str(value))
        if issubclass(kind, enum.Enum):
            return self.plain(value.value, depth + 1)
        return self._container(value, kind, depth)

    def _container(self, value: Any, kind: type, depth: int) -> Any:
        members: Any = fields_of(value, kind)
        if members is None:
            if not issubclass(kind, _CONTAINERS):
                return self._array(value, depth) if is_array(kind) else self._text(value)
            members = value
        if depth >= MAX_DEPTH:
            return self._too_deep(value)
        if id(value) in self._above:
            return f"…[cycle: this {type_name(value)} contains itself]"
        self._above.add(id(value))
        try:
            return (
                self._mapping(members, depth)
                if issubclass(type(members), Mapping)
                else self._items(members, depth)
            )
        finally:
            self._above.discard(id(value))

    def _note(self, what: str, limit: int, unit: str = "") -> None:
        """Record that something exceeds a *limit*."""
        self.cut = self.cut or f"{what} is more than {limit:,}{unit}"

    def key(self, key: Any) -> str:
        """Return *key* as text."""
        return self._text(_key(key), MAX_KEY)

    def _text(self, value: Any, limit: int = 0) -> str:
        most = limit or self._max_string
        text, size = _clean_text(value, most + self._beyond(most), self._redact)
        return self._kept(
            text, size, most, f"a {'key' if limit else 'text'} of {size:,} characters"
        )

    def _beyond(self, limit: int) -> int:
        return 0 if self._redact is None else _beyond(limit)

    def _kept(self, text: str, size: int, limit: int, what: str) -> str:
        """Return *text* cut to *limit* bytes; *size* is the original size of *what* it is."""
        kept = _cut(text, limit, size)
        if kept is text:
            return text
        self.cut_text = True
        self._note(what, limit, " bytes")
        return kept if self._redact is None else _cut_redacted(text, size, self._redact, limit)

    def _too_deep(self, value: Any) -> str:
        self._note("the depth of nesting", MAX_DEPTH)
        return f"…[cut: {type_name(value)} nested deeper than {MAX_DEPTH} levels]"

    def _left(self, left: int, size: int, what: str, limit: int) -> str:
        """Return the mark of a container of which *left* members are omitted."""
        if self.full:
            self._note("the number of values", self._max_nodes)
        else:
            self._note(f"the number of {size:,} {what}", limit)
        return f"[cut: {left:,} more of {size:,} {what}]"

    def _mapping(self, value: Any, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        kept = 0
        most = _most(len(value), self._max_keys)
        for key in islice(iter(value), most):
            if self.full:
                break
            name = (
                key
                if type(key) is str and _is_short(key) and key not in out
                else _fresh(self.key(key), out)
            )
            out[name] = self.plain(value[key], depth + 1)
            kept += 1
        if (left := len(value) - kept) > 0:
            out[_fresh("…", out)] = self._left(left, len(value), "keys", self._max_keys)
        return out

    def _items(self, value: Any, depth: int, size: int | None = None) -> list[Any]:
        # Copy at once: if another thread changes a deque or a view meanwhile, the iteration would
        # raise.
        size = len(value) if size is None else size
        items = list(islice(iter(value), _most(size, self._max_items)))
        if len(items) > 64 and self._nodes + len(items) <= self._max_nodes and are_plain(items):
            self._nodes += len(items)
            out: list[Any] = items
        else:
            out = []
            for item in items:
                if self.full:
                    break
                out.append(self.plain(item, depth + 1))
        if (left := size - len(out)) > 0:
            out.append(f"…{self._left(left, size, 'items', self._max_items)}")
        return out

    def _bytes(self, value: bytes | bytearray | memoryview) -> str:
        # Slice first: decoding 100 MB to keep 64 KiB would delay the caller.
        size, most = memoryview(value).nbytes, self._max_string
        first = memoryview(value).cast("B")[: most + self._beyond(most) + 1]
        text = _clean(bytes(first).decode("utf-8", "backslashreplace"))
        return self._kept(text, size, most, f"{size:,} bytes")

    def _array(self, value: Any, depth: int) -> Any:
        """Return an array or a series of NumPy, or of a similar library, as a list of its
        numbers.
        """
        shape = value.shape
        if not shape:
            return self.plain(scalar(value), depth + 1)
        if depth >= MAX_DEPTH:
            return self._too_deep(value)
        size = int(shape[0])
        # Slice first, and then convert row by row: a list of all items of a large array would need
        # much time and memory before it is cut.
        first = value[:most] if size > (most := _most(size, self._max_items)) else value
        if len(shape) > 1 and math.prod(shape) > self._max_nodes:
            return self._items(
                [first[index] for index in range(min(size, self._max_items))], depth, size
            )
        return self._items((first.astype(str) if of_times(value) else first).tolist(), depth, size)


def are_plain(items: list[Any]) -> bool:
    """Return whether *items* need no further check: only numbers, bools and None."""
    kinds = set(map(type, items))
    if not kinds <= NUMBERS:
        return False
    if float in kinds and not all(
        map(
            math.isfinite,
            items if kinds == {float} else [item for item in items if type(item) is float],
        )
    ):
        return False
    if int not in kinds:
        return True
    whole = items if kinds == {int} else [item for item in items if type(item) is int]
    return bool(min(whole) > -_LARGE and max(whole) < _LARGE)


def _is_short(text: str) -> bool:
    """Return whether *text* needs no further check, which is the usual case."""
    return len(text) < 64 and text.isascii() and "\x00" not in text


def _key(key: Any) -> Any:
    """Return *key* in the form that is converted to text."""
    if issubclass(type(key), (bytes, bytearray)):
        # the same as for a value; for example names of headers
        key = bytes(key[: MAX_KEY + _beyond(MAX_KEY) + 1]).decode("utf-8", "backslashreplace")
    elif issubclass(type(key), enum.Enum):
        key = key.value  # the same as for a value
    elif issubclass(type(key), _SHOWN):
        key = str(key)
    elif issubclass(type(key), (datetime.date, datetime.time)):
        key = key.isoformat()
    elif is_array(type(key)) and not key.shape:
        key = scalar(key)
    return key


def _fresh(key: str, taken: dict[str, Any]) -> str:
    """Return *key*, with a number appended if another key has the same text."""
    if key not in taken:
        return key
    number = 2
    while (candidate := f"{key}~{number}") in taken:
        number += 1
    return candidate


def text_of(value: Any, limit: int) -> str:
    """Return *value* as clean text of at most *limit* bytes in UTF-8."""
    text, size = _clean_text(value, limit)
    return _cut(text, limit, size)


def _beyond(limit: int) -> int:
    """Return how many characters after a cut at *limit* are searched for secrets."""
    return min(limit, _BEYOND)


def _cut_redacted(text: str, size: int, redact: Callable[[str], object], limit: int) -> str:
    """Return *text*, the beginning of a text of *size* characters, without secrets and cut to
    *limit* bytes.
    """
    hidden, shown = _clean_text(redact(text), limit)
    return _cut(hidden, limit, max(size, shown))


def _clean_text(
    value: Any, limit: int, redact: Callable[[str], object] | None = None
) -> tuple[str, int]:
    """Return *value* as clean text that is not much longer than *limit*, and its original length.

    The length is in characters. *redact* removes the secrets from texts within *value* that are
    cut.
    """
    if type(value) is not str:
        try:
            value = str.__str__(value if issubclass(type(value), str) else _repr(value, redact))
        except fault_types() as exc:  # a hostile __repr__ must not lose the event
            value = f"<{type_name(value)}: its repr raised {type(exc).__name__}>"
    return _clean(value[: limit + 1]), len(value)


def _most(size: Any, limit: int) -> int:
    """Return how many members of a container of *size* to keep.

    The mark takes the place of one member, so a single member is not cut.
    """
    return limit + 1 if size == limit + 1 else limit


def _repr(value: Any, redact: Callable[[str], object] | None) -> str:
    if issubclass(type(value), (list, tuple, dict, set, frozenset)):
        # Lists of lists of the same list can have a text of gigabytes.
        normalizer = Normalizer(OF_EVENT.limits[0]._replace(string=SHORT_STRING), redact)
        plain = normalizer.plain(value, 0)
        if normalizer.full:
            return repr(plain)
    return repr(value)


def _clean(text: str) -> str:
    if "\x00" in text:
        text = text.replace("\x00", "␀")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode()
    return text


def _cut(text: str, limit: int, size: int) -> str:
    """Cut *text* to *limit* bytes with a mark; *size* is its original length in its own units."""
    if size <= limit and (len(text) * 4 <= limit or len(text.encode()) <= limit):
        return text
    kept = text.encode()[: max(limit - 80, 0)].decode("utf-8", "ignore")
    return f"{kept}…[cut: the first {len(kept):,} of {max(size, len(text)):,} kept]"
