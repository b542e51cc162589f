"""How large what is recorded may be: the limits of values, of the attributes of an event, and of a
result or metadata.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT = 256 * 1024
"""Bytes of one encoded event at most."""
MAX_STRING = 64 * 1024
"""Bytes of one string at most, in UTF-8."""
MAX_DEPTH = 24
"""Levels of nesting at most: MariaDB refuses JSON deeper than 32, and a batch adds some."""
MAX_KEYS = 256
"""Keys of one mapping at most."""
MAX_ITEMS = 1024
"""Items of one list, tuple or set at most."""
MAX_NODES = 16_384
"""Values in one event at most; a text counts as one for every 64 bytes of it."""
MAX_KEY = 256
"""Bytes of one key at most, in UTF-8."""
MAX_BITS = 8192
"""Bits of an integer at most: Python refuses to print far longer ones."""

ROOM = MAX_EVENT - 16 * 1024
"""Bytes that the message and the attributes of one event share; the rest is for the ids."""

MAX_VALUE = 1024 * 1024
"""Bytes of JSON that the result of a job, or the metadata of a job or step, has at most."""
MAX_VALUE_STRING = 960 * 1024
"""Bytes of one string in it at most, in UTF-8."""
MAX_VALUE_NODES = 262_144
"""Values in it at most, and so keys of one mapping and items of one list; a text counts as one for
every 64 bytes of it.
"""


class Limits(NamedTuple):
    """What is kept of a value; what is cut carries a mark.

    Attributes:
        string: Bytes of one text at most, in UTF-8.
        items: Items of one list, tuple or set at most.
        keys: Keys of one mapping at most.
        nodes: Values in all at most; a text counts as one for every 64 bytes of it.
    """

    string: int
    items: int
    keys: int
    nodes: int


class Bounds(NamedTuple):
    """How large the JSON of a value may be.

    Attributes:
        room: Bytes of it at most (at least 64 KiB).
        limits: The limits of a value; then those that are tried, one after the other, where it
            takes more room: a little of everything tells more than all of a part.
    """

    room: int
    limits: tuple[Limits, ...]


SHORT_STRING = 4 * 1024
"""Bytes of a text where a value is too large otherwise."""
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
