"""The size limits of recorded data: of values, an event's attributes, a result and metadata."""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT = 256 * 1024
"""Maximum bytes of one encoded event."""
MAX_STRING = 64 * 1024
"""Maximum bytes of one string, in UTF-8."""
MAX_DEPTH = 24
"""Maximum levels of nesting: MariaDB refuses JSON deeper than 32 levels, and a batch adds some."""
MAX_KEYS = 256
"""Maximum keys of one mapping."""
MAX_ITEMS = 1024
"""Maximum items of one list, tuple or set."""
MAX_NODES = 16_384
"""Maximum values in one event; each 64 bytes of a text count as one value."""
MAX_KEY = 256
"""Maximum bytes of one key, in UTF-8."""
MAX_BITS = 8192
"""Maximum bits of an integer: Python refuses to print far longer ones."""

ROOM = MAX_EVENT - 16 * 1024
"""Bytes that the message and the attributes of one event share; the rest is for the ids."""

MAX_VALUE_STRING = 1024 * 1024
"""Maximum bytes of one string in the result of a job, or the metadata of a job or step, in
UTF-8.
"""
MAX_VALUE = MAX_VALUE_STRING + 64 * 1024
"""Maximum bytes of it as JSON."""
MAX_VALUE_NODES = 262_144
"""Maximum values in it, and so also keys of one mapping and items of one list.

Each 64 bytes of a text count as one value.
"""


class Limits(NamedTuple):
    """The limits of a value; a part that is cut is replaced by a mark.

    Attributes:
        string: Maximum bytes of one text, in UTF-8.
        items: Maximum items of one list, tuple or set.
        keys: Maximum keys of one mapping.
        nodes: Maximum values in total; each 64 bytes of a text count as one value.
    """

    string: int
    items: int
    keys: int
    nodes: int


class Bounds(NamedTuple):
    """The maximum size of the JSON of a value.

    Attributes:
        room: Maximum bytes (at least 64 KiB).
        limits: The limits of a value, followed by stricter limits that are tried in order if the
            value is too large: a little of each part is more useful than one complete part.
    """

    room: int
    limits: tuple[Limits, ...]


SHORT_STRING = 4 * 1024
"""Maximum bytes of a text if the value is too large otherwise."""
OF_EVENT = Bounds(
    ROOM,
    (
        Limits(MAX_STRING, MAX_ITEMS, MAX_KEYS, MAX_NODES),
        Limits(SHORT_STRING, 64, 64, MAX_NODES),
        Limits(256, 64, 64, MAX_NODES),
    ),
)
"""Bounds of the attributes of an event."""
OF_VALUE = Bounds(
    MAX_VALUE,
    (
        Limits(MAX_VALUE_STRING, MAX_VALUE_NODES, MAX_VALUE_NODES, MAX_VALUE_NODES),
        Limits(256 * 1024, 32_768, 32_768, 65_536),
        Limits(32 * 1024, 4096, 4096, 16_384),
        Limits(SHORT_STRING, 512, 512, 8192),
        Limits(256, 64, 64, 4096),
    ),
)
"""Bounds of a result, and of the metadata of a job or a step."""
