"""The tally: facts about a session that must survive when database, disk and process all fail.

It is a small file of five numbers. It is written completely when the directory is created, and then
overwritten in place. This needs no space on the disk, unless the file system copies on write, and
survives ``kill -9``.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

from structjob.machine.files import (
    close_apart,
    is_open,
    open_directly,
    replace_descriptor,
    set_apart,
)

_NAME = "tally"
_CONFIRMED = struct.Struct("<QQQ")
_NUMBER = struct.Struct("<Q")
_AT_RISK = _CONFIRMED.size
_HANDS = _AT_RISK + _NUMBER.size
_SIZE = _HANDS + _NUMBER.size


class Tally:
    """The numbers of one session.

    The process that delivers the session's lines writes `confirmed`; the session's own process
    writes the rest.

    Args:
        fd: The open file.
        confirmed: See below.
        at_risk: See below.
        hands: See below.

    Attributes:
        confirmed: Events that the database has confirmed, and whose lines are no longer on disk.
        at_risk: The greatest number whose event, or its outcome, is in memory only; 0 if there is
            no such number. If the process ends now, those events are lost, and nothing else shows
            it.
        hands: How many numbers may be given out and not written yet: one for each thread that has
            ever logged, and those that one call takes together.
    """

    def __init__(self, fd: int, confirmed: int = 0, at_risk: int = 0, hands: int = 0) -> None:
        self._fd = fd
        self.confirmed = confirmed
        self.at_risk = at_risk
        self.hands = hands

    @classmethod
    def create(cls, directory: Path) -> Tally:
        """Create the file of a new session. Raise `OSError` if it cannot be written."""
        fd = open_directly(directory / _NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            if os.write(fd, bytes(_SIZE)) != _SIZE:
                raise OSError("the disk accepted only a part of a file")
        except BaseException:
            os.close(fd)
            raise
        return cls(set_apart(fd))

    @classmethod
    def open(cls, directory: Path) -> Tally | None:
        """Return the numbers in the directory of another process.

        Return ``None`` if they cannot be read: then nothing is known.
        """
        try:
            fd = set_apart(os.open(directory / _NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK))
        except OSError:
            return None
        try:
            before, after, segment = _CONFIRMED.unpack(os.pread(fd, _CONFIRMED.size, 0))
            # The process that deleted a segment may have ended during the deletion.
            tally = cls(
                fd,
                before
                if segment and os.path.lexists(directory / f"events-{segment:06}.jsonl")
                else after,
            )
            tally.reread()
        except (OSError, struct.error):
            os.close(fd)
            return None
        return tally

    def reopen(self, directory: Path) -> None:
        """Open the file again if the program has closed it. Raise `OSError` if it is gone."""
        if not is_open(self._fd):
            replace_descriptor(self._fd, open_directly(directory / _NAME, os.O_RDWR))

    def reread(self) -> None:
        """Read what the session's own process has written."""
        found = os.pread(self._fd, _SIZE, 0)
        (self.at_risk,), (self.hands,) = (
            _NUMBER.unpack_from(found, _AT_RISK),
            _NUMBER.unpack_from(found, _HANDS),
        )

    def confirm(self, count: int, segment: int = 0) -> None:
        """Add *count* confirmed events.

        With *segment*, their lines count as on disk until that file, which is about to be deleted,
        is gone.
        """
        before, self.confirmed = self.confirmed, self.confirmed + count
        self._put(
            _CONFIRMED.pack(before if segment else self.confirmed, self.confirmed, segment), 0
        )

    def risk(self, number: int) -> None:
        """Record that the event *number*, or its outcome, is in memory only."""
        if number > self.at_risk:
            self.mark(number)

    def mark(self, number: int) -> None:
        """Set `at_risk`.

        0 says that everything that was in memory only is now on disk or stored.
        """
        self.at_risk = number
        self._put(_NUMBER.pack(number), _AT_RISK)

    def hold(self, hands: int) -> None:
        """Record how many numbers may be given out and not written yet."""
        self.hands = hands
        self._put(_NUMBER.pack(hands), _HANDS)

    def _put(self, value: bytes, at: int) -> None:
        # If even this fails, nothing can be done, and the logging code must not get an error.
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, value, at)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close_apart(fd)
