"""Frames of a stream, encoded once for all subscribers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from structjob.models import EncodedEvent, Gap

MAX_LINES = 1_000
"""Maximum number of lines in one frame."""

MAX_BYTES = 256 * 1024
"""Approximate maximum of bytes of the lines in one frame; a longer line gets its own frame."""

MAX_ID = 4 * 1024
"""Maximum number of characters of a cursor that is sent as the ``id`` of an event. A browser
repeats it in a header, and proxies limit headers to 8 KiB.
"""

_PADDING = b":" + b" " * 2047 + b"\n"
"""Sent with the first event, to fill small buffers of proxies: if the event still does not arrive,
a proxy buffers the stream.
"""

_ERRORS = ("error", "critical")

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream.

    Args:
        event: Its name.
        data: Its JSON.
        cursor: The cursor after this frame; ``None`` if the next frame belongs to the same group.
        before: The cursor before this frame.
        lines: How many log lines it contains.
        errors: How many of them are errors.
    """

    event: str
    data: bytes
    cursor: str | None = None
    before: str | None = None
    lines: int = 0
    errors: int = 0

    @property
    def size(self) -> int:
        """Approximate number of bytes of the frame."""
        return len(self.data) + 100

    def as_sse(self) -> bytes:
        """Return the frame as a server-sent event."""
        id_ = (
            b"id: " + self.cursor.encode() + b"\n"
            if self.cursor is not None and len(self.cursor) <= MAX_ID
            else b""
        )
        padding = _PADDING if self.event == "hello" else b""
        return b"%sevent: %s\n%sdata: %s\n\n" % (padding, self.event.encode(), id_, self.data)

    def as_text(self, subscription: str | None) -> str:
        """Return the frame as a WebSocket message for the given subscription id."""
        head = {"event": self.event, "id": subscription}
        return (encode(head)[:-1] + b',"data":' + self.data + b"}").decode()


def frame(event: str, data: Mapping[str, Any], cursor: str | None = None) -> Frame:
    """Return a frame with *data*; the log continues after it at *cursor*."""
    return Frame(event, encode(data), cursor)


def of_items(items: Sequence[EncodedEvent | Gap], before: str, cursor: str) -> Iterator[Frame]:
    """Yield what a tail returned as frames, in its order; the last one has the cursor."""
    frames = list(_grouped(items))
    for index, (event, data, lines, errors) in enumerate(frames):
        last = index == len(frames) - 1
        at = cursor if last else None
        body = (
            b'{"lines":[' + b",".join(data) + b'],"cursor":' + encode(at) + b"}"
            if event == "lines"
            else data[0]
        )
        yield Frame(event, body, at, before, lines, errors)


def _grouped(items: Sequence[EncodedEvent | Gap]) -> Iterator[tuple[str, list[bytes], int, int]]:
    lines: list[bytes] = []
    size = errors = 0
    for item in items:
        encoded = (
            encode({**asdict(item), "count": item.last_seq - item.first_seq + 1})
            if isinstance(item, Gap)
            else item.json
        )
        full = len(lines) == MAX_LINES or size + len(encoded) > MAX_BYTES
        if lines and (full or isinstance(item, Gap)):
            yield "lines", lines, len(lines), errors
            lines, size, errors = [], 0, 0
        if isinstance(item, Gap):
            yield "gap", [encoded], 0, 0
            continue
        lines.append(encoded)
        size += len(encoded)
        errors += item.level in _ERRORS
    if lines:
        yield "lines", lines, len(lines), errors
