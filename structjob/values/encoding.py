"""Encoding of any loggable object as bounded JSON bytes that every supported database takes.

It never raises. The fast path is one pass over flat, plain values and one call to msgspec; for
large values it is a few passes in C, level by level. Other values go through `normalise`, which
converts any object into plain values within the limits. A part that is cut is replaced by a mark
with its size.

These are normalized: NaN and infinities (to their names), NUL (to U+2400, because SQLite and
PostgreSQL cannot hold it in text), lone surrogates (to their escape), bytes (to text), sets,
deques, ranges, views of mappings and arrays (to lists), NumPy's scalars (to Python values), keys
that are not text, cycles, and objects (to their ``repr``).
"""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import math
import pathlib
import types
import uuid
from collections.abc import Callable, Container, Iterable, Mapping, MappingView, ValuesView
from itertools import chain, islice
from typing import Any, Protocol

import msgspec

from structjob.diagnostics import fault_types
from structjob.values.bounds import (
    MAX_BITS,
    MAX_DEPTH,
    MAX_KEY,
    MAX_KEYS,
    MAX_STRING,
    OF_EVENT,
    SHORT_STRING,
    Bounds,
    Limits,
)


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


_INFINITY = float("inf")
# An integer: `92 in bytes` is one memchr, while `b"\\\\" in bytes` is much slower.
_BACKSLASH = ord("\\")

_NUMBERS = frozenset({int, bool, float, type(None)})
_TEXTS = frozenset({str})
_SIMPLE = _NUMBERS | {str, list, dict}
_SHORT_KEY = MAX_KEY // 4
"""Maximum characters of a key that needs no further check."""
_FEW = 64
"""Maximum number of members, and characters of their keys, that `_flat` takes."""
_SHORT_TEXT = 1024
"""Maximum characters of a text that `_flat` takes."""
_SMALL = 10**12
_SMALL_OBJECT = 4 * MAX_KEYS
"""An object of no more bytes has fewer than `MAX_KEYS` keys: each takes more than four."""
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
_ARRAY_MODULES = frozenset({"numpy", "pandas", "torch", "cupy", "jax", "jaxlib"})
"""Libraries whose arrays and scalars are recorded as numbers.

They have ``shape``, ``tolist`` and slices in the same way as NumPy.
"""

_BEYOND = 4 * 1024
"""Maximum characters after a cut that are searched for secrets.

Otherwise the beginning of a secret at the cut would stay, because the rest shows that it is one.
"""

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
    out = _encode(_text(value, MAX_STRING))
    # Control characters take six bytes each in JSON.
    return out if len(out) <= 2 * MAX_STRING else _encode(_text(value, MAX_STRING // 6))


def redacted_text(value: object, redact: Callable[[str], object], limit: int = MAX_STRING) -> str:
    """Return *value* as text of at most *limit* bytes in UTF-8, without secrets.

    Little of what is cut is looked through, and the mark contains the original size.
    """
    text, size = _clean_text(value, limit + _beyond(limit), redact)
    return _cut_redacted(text, size, redact, limit)


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
                if value not in known:
                    # checked before encoding, because the text may have 100 MB
                    if len(value) > MAX_STRING:
                        return None
                    unknown.append(value)
            elif kind is float:
                # `x - x` is 0.0 only if x is finite
                if value - value != 0.0:
                    return None
            elif kind is not int and kind is not bool and value is not None:
                return None
        out = _encode(attrs)
    except Exception:  # noqa: BLE001 -- any error (half a surrogate pair, a long integer) is handled by the slow path
        return None
    if len(out) > _SMALL_OBJECT and (len(out) > MAX_STRING or len(attrs) > MAX_KEYS):
        return None
    return None if _BACKSLASH in out and out.find(b"\\u0000") > 0 else out


def encode_attrs(attrs: dict[str, Any]) -> bytes:
    """Return *attrs* as a JSON object of at most `ROOM` bytes."""
    out = encode_plain(attrs, (), []) if _TEXTS.issuperset(map(type, attrs)) else None
    return encode_value(attrs) if out is None else out


def encode_fields(fields: Mapping[str, str | int]) -> bytes:
    """Return *fields*, a few short values such as ids, as `encode_attrs` does, in less time."""
    try:
        out = _encode(fields)
    except Exception:  # noqa: BLE001 -- half a surrogate pair, in an id from the environment
        out = b""
    if not out or len(out) > MAX_STRING or _BACKSLASH in out:
        return encode_attrs(dict(fields))
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
        normaliser = _Normaliser(limits)
        plain = normaliser.plain(value, 0)
        if limits is bounds.limits[0]:
            cut = normaliser.cut
        if redactor is not None:
            if limits is not tried[-1] and (length := len(_encode(plain))) > hopeless:
                size = size or length
                continue
            if normaliser.cut_text:
                plain = _Normaliser(limits, redactor.redact).plain(value, 0)
            plain = redactor.redact(plain)
        if type(value) is dict and type(plain) is not dict:
            # Too little stack was left for the walk, or a custom redactor returned another object.
            # An object stays one: ids are appended to the JSON of attributes.
            plain = {"…": plain}
        try:
            out = _encode(plain)
        except Exception:  # noqa: BLE001 -- a custom redactor may have returned any object
            plain = normalise(plain, limits)
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
    except Exception:  # noqa: BLE001 -- any error is handled by the slow path
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
            elif kind not in _NUMBERS or (
                each is not None and not -_SMALL < each < _SMALL  # also false for NaN
            ):
                return None
        out = _encode(value)
    except Exception:  # noqa: BLE001 -- a class that cannot be hashed, half a surrogate pair
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
        if (int in kinds or float in kinds) and not _are_plain(
            [each for each in level if type(each) in _NUMBERS]
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


def normalise(
    value: Any,
    limits: Limits = OF_EVENT.limits[0],
    redact: Callable[[str], object] | None = None,
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
    return _Normaliser(limits, redact).plain(value, 0)


def with_text_keys(
    given: Mapping[Any, Any], redact: Callable[[str], object] | None = None
) -> dict[str, Any]:
    """Return *given* with keys that are text, and unchanged values.

    Different keys such as 1 and "1" stay different. *redact* removes the secrets from a key that
    is cut.
    """
    out: dict[str, Any] = {}
    normaliser = _Normaliser(OF_EVENT.limits[0], redact)
    for key, value in given.items():
        out[_fresh(normaliser.key(key), out)] = value
    return out


class _Normaliser:
    """One walk through a value.

    Args:
        limits: The limits.
        redact: See `normalise`.

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
        members: Any = _fields_of(value, kind)
        if members is None:
            if not issubclass(kind, _CONTAINERS):
                return self._array(value, depth) if _is_array(kind) else self._text(value)
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

    def _note(self, what: str, limit: int) -> None:
        """Record that something exceeds a *limit*."""
        self.cut = self.cut or f"{what} is more than {limit:,}"

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
        self._note(what, limit)
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
        if len(items) > 64 and self._nodes + len(items) <= self._max_nodes and _are_plain(items):
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
            return self.plain(_scalar(value), depth + 1)
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
        return self._items((first.astype(str) if _of_times(value) else first).tolist(), depth, size)


def _fields_of(value: Any, kind: type) -> Any:
    """Return *value* as a mapping if it is an object with named fields, or a view of a mapping's
    values.

    Otherwise return ``None``. The names are needed to find secrets. A field that its class omits
    from the ``repr`` is omitted. No library is imported.
    """
    if dataclasses.is_dataclass(kind):
        return {
            field.name: getattr(value, field.name, None)
            for field in dataclasses.fields(kind)
            if field.repr
        }
    if issubclass(kind, msgspec.Struct):
        return {name: getattr(value, name, None) for name in kind.__struct_fields__}
    if issubclass(kind, tuple) and isinstance(fields := getattr(kind, "_fields", None), tuple):
        return dict(zip(fields, value, strict=False))
    if issubclass(kind, ValuesView):
        return getattr(value, "mapping", None) or getattr(value, "_mapping", None)
    if issubclass(kind, types.SimpleNamespace):
        return dict(vars(value))
    # Looked up in the classes' own dicts, because a metaclass may override attribute access.
    for base in kind.__mro__[:-1]:
        names = vars(base)
        if (attributes := names.get("__attrs_attrs__")) is not None:
            return {
                each.name: getattr(value, each.name, None)
                for each in attributes
                if each.repr is not False
            }
        # In pydantic 2 and pydantic 1.
        model = names.get("__pydantic_fields__", names.get("model_fields", names.get("__fields__")))
        if isinstance(model, dict) and (
            hasattr(kind, "__pydantic_fields_set__") or hasattr(kind, "__fields_set__")
        ):
            return _of_model(value, model)
        if names.get("__module__") == "argparse" and base.__name__ == "Namespace":
            return dict(vars(value))
    return None


def _of_model(value: Any, fields: dict[str, Any]) -> dict[str, Any]:
    hidden = {
        name
        for name, field in fields.items()
        if getattr(getattr(field, "field_info", field), "repr", True) is False
    }
    members = {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
    return {name: member for name, member in members.items() if name not in hidden}


def _is_array(kind: type) -> bool:
    """Return whether *kind* is an array, a scalar or a series of NumPy, or of a similar library.

    No library is imported.
    """
    if not (hasattr(kind, "tolist") and hasattr(kind, "shape")):
        return False
    return not _ARRAY_MODULES.isdisjoint(
        str(base.__module__).partition(".")[0] for base in kind.__mro__
    )


def _of_times(value: Any) -> bool:
    """Return whether an array or a scalar contains times.

    These may be finer than Python's times, and would then become numbers.
    """
    return getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m")


def _scalar(value: Any) -> Any:
    """Return a scalar of NumPy, or of a similar library, as a Python value."""
    item: Any = str(value) if _of_times(value) else value.tolist()
    if type(item) is not type(value):
        return item
    # it has a higher precision than Python's types
    return complex(item) if item.dtype.kind == "c" else float(item)


def _are_plain(items: list[Any]) -> bool:
    """Return whether *items* need no further check: only numbers, bools and None."""
    kinds = set(map(type, items))
    if not kinds <= _NUMBERS:
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
    elif _is_array(type(key)) and not key.shape:
        key = _scalar(key)
    return key


def _fresh(key: str, taken: dict[str, Any]) -> str:
    """Return *key*, with a number appended if another key has the same text."""
    if key not in taken:
        return key
    number = 2
    while (candidate := f"{key}~{number}") in taken:
        number += 1
    return candidate


def _text(value: Any, limit: int) -> str:
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
        normaliser = _Normaliser(OF_EVENT.limits[0]._replace(string=SHORT_STRING), redact)
        plain = normaliser.plain(value, 0)
        if normaliser.full:
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


def _outline(plain: Any, size: int, room: int) -> dict[str, Any]:
    """Return a summary if even the shortened values, which *plain* holds, are too large."""
    keys = list(islice(plain, 64)) if type(plain) is dict else []
    return {"…": f"[cut: {size:,} bytes of values, the limit is {room:,}]", "keys": keys}


def type_name(value: Any) -> str:
    """Return the qualified name of the type of *value*."""
    # Not `type(value).__qualname__`, because a metaclass may override it.
    return str(_qualname(type(value)))


_qualname = type.__dict__["__qualname__"].__get__
