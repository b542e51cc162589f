"""One record of the spool: a line of JSON that ends in its number and a checksum.

The checksum is of what stands before it::

{"ts":"2026-01-31
12:00:00.000001","level":"info","message":"copied","attrs":{"n":3},…,"seq":17,"crc":"0a1b2c3d"}
"""

from __future__ import annotations

import re
from zlib import crc32

import msgspec

_OPENING = re.compile(rb'\{"(?:ts|kind)":"')
_CRC = re.compile(rb',"crc":"([0-9a-f]{8})"}')
_NUMBER = re.compile(rb',"(?:state_)?seq":(\d+),"crc":"[0-9a-f]{8}"}\n?$')


def seal(body: bytes, number: bytes) -> bytes:
    """Return the line for *body* (JSON without its closing brace), with its *number* field and a
    checksum.
    """
    line = body + number
    return b'%s,"crc":"%08x"}\n' % (line, crc32(line))


def verify_line(line: bytes) -> bool:
    """Return whether *line*, with or without its newline, is whole and unchanged."""
    if line[-1:] == b"\n":
        line = line[:-1]
    # To seal it once more is the quickest way to tell.
    return line[-18:] == b',"crc":"%08x"}' % crc32(line[:-18])


def number_of(line: bytes) -> int:
    """Return the number of a *line*, 0 if it has none."""
    match = _NUMBER.search(line, max(0, len(line) - 64))
    return int(match[1]) if match else 0


class _Owned(msgspec.Struct):
    seq: int = 0
    job_id: str | None = None


_decode = msgspec.json.Decoder(_Owned).decode


def owner_of(line: bytes) -> tuple[int, str | None]:
    """Return the number of an event's *line*, 0 if it has none, and the job it belongs to."""
    try:
        found = _decode(line)
    except msgspec.MsgspecError:
        return number_of(line), None
    return found.seq, found.job_id


def rescue(line: bytes) -> list[bytes]:
    """Return the whole records in a damaged *line*: it is two when the newline between them was
    hit.
    """
    found: list[bytes] = []
    for opening in _OPENING.finditer(line):
        for closing in _CRC.finditer(line, opening.end()):
            record = line[opening.start() : closing.end()]
            if verify_line(record):
                found.append(record + b"\n")
                break
    return found
