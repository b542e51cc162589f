"""Records what a program prints, line by line, as events of its job."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING

from structjob.capture.emit import emit_lines, showing, without_secrets
from structjob.exceptions import StructjobError
from structjob.text.lines import LineSplitter, last_words

if TYPE_CHECKING:
    from structjob.context.scope import Scope
    from structjob.tracker import Tracker

WAITING = 50_000
"""Number of lines that may wait for the database. Beyond it the program waits, too, because its
pipe is full.
"""

_LEVELS = {"stdout": "info", "stderr": "warning"}
"""After a failure, a user looks at stderr first."""


class Output:
    """The recorded output of a program.

    Args:
        tracker: Stores the lines.
        scope: The scope of the job.

    Attributes:
        last: The last line on stderr that is not empty.
    """

    def __init__(self, tracker: Tracker, scope: Scope) -> None:
        self._tracker, self._scope = tracker, scope
        self._loop = asyncio.get_running_loop()
        self._splitters = {
            stream: LineSplitter(partial(self._record, stream), without_secrets)
            for stream in _LEVELS
        }
        self.last = ""

    def hear(self, stream: str, chunk: bytes) -> None:
        """Record what was read from *stream*; ``b""`` at its end. Called in the stream's thread."""
        if not chunk:
            self._splitters[stream].end()
            return
        if self._tracker.queue.waiting > WAITING:
            # The program waits at its full pipe, and the queue does not grow further.
            with suppress(StructjobError):
                asyncio.run_coroutine_threadsafe(self._tracker.flush(), self._loop).result()
        self._splitters[stream].feed(chunk)

    def showing(self, stream: str) -> AbstractContextManager[None]:
        """Return a block in which a thread shows what was recorded of *stream*."""
        return showing(self._scope, _LEVELS[stream])

    def lines(self, stream: str) -> int:
        """Return the number of recorded lines."""
        return self._splitters[stream].lines

    def _record(self, stream: str, lines: list[str], attrs: dict[str, int]) -> None:
        if stream == "stderr":
            self.last = last_words(lines) or self.last
        emit_lines(self._scope, _LEVELS[stream], lines, attrs, stream=stream)
