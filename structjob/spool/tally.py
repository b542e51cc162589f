"""What a session's directory must still say when neither the database nor the disk takes anything
any more, nor the process lives.

Five numbers in a small file that is written whole when the directory is made, and overwritten in
place from then on: that needs no room on the disk, where file systems do not copy on write, and
survives ``kill -9``.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

from structjob.machine.files import open_directly

_NAME = "tally"
_CONFIRMED = struct.Struct("<QQQ")
_NUMBER = struct.Struct("<Q")
_AT_RISK = _CONFIRMED.size
_HANDS = _AT_RISK + _NUMBER.size
_SIZE = _HANDS + _NUMBER.size


class Tally:
    """The numbers of one session.

    Whoever delivers the session's lines writes `confirmed`, its own process the rest.

    Args:
        fd: The open file.
        directory: Where the session's segments are.

    Attributes:
        confirmed: Events that the database has confirmed, and whose lines are not on disk any more.
        at_risk: The greatest number whose event, or what became of it, is known in memory only; 0
            if there is none. If the process ends now, those events are lost, and nothing else says
            so.
        hands: How many numbers can be given out and not written yet: one for each thread that has
            ever logged, and those that the engine has taken.
    """

    def __init__(self, fd: int, confirmed: int = 0, at_risk: int = 0, hands: int = 0) -> None:
        self._fd = fd
        self.confirmed = confirmed
        self.at_risk = at_risk
        self.hands = hands

    @classmethod
    def create(cls, directory: Path) -> Tally:
        """Make the file of a new session. Raises `OSError` if it cannot be written."""
        fd = open_directly(directory / _NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            if os.write(fd, bytes(_SIZE)) != _SIZE:
                raise OSError("the disk took a part of a file only")
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    @classmethod
    def open(cls, directory: Path) -> Tally | None:
        """Return the numbers in the directory of another process; ``None`` where they cannot be
        read: then nothing is known.
        """
        try:
            fd = os.open(
                directory / _NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )
        except OSError:
            return None
        try:
            before, after, segment = _CONFIRMED.unpack(os.pread(fd, _CONFIRMED.size, 0))
            # The process that deleted a segment may have ended in the middle of it.
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

    def reread(self) -> None:
        """Read what the session's own process has written."""
        found = os.pread(self._fd, _SIZE, 0)
        (self.at_risk,), (self.hands,) = (
            _NUMBER.unpack_from(found, _AT_RISK),
            _NUMBER.unpack_from(found, _HANDS),
        )

    def confirm(self, count: int, segment: int = 0) -> None:
        """Add *count* confirmed events. With *segment*, their lines are on disk until that file,
        which is about to be deleted, is gone.
        """
        before, self.confirmed = self.confirmed, self.confirmed + count
        self._put(
            _CONFIRMED.pack(before if segment else self.confirmed, self.confirmed, segment), 0
        )

    def risk(self, number: int) -> None:
        """Note that the event *number*, or what became of it, is known in memory only."""
        if number > self.at_risk:
            self.mark(number)

    def mark(self, number: int) -> None:
        """Set `at_risk`; 0 says that all that was known in memory only is on disk, or stored."""
        self.at_risk = number
        self._put(_NUMBER.pack(number), _AT_RISK)

    def hold(self, hands: int) -> None:
        """Note how many numbers can be given out and not written yet."""
        self.hands = hands
        self._put(_NUMBER.pack(hands), _HANDS)

    def _put(self, value: bytes, at: int) -> None:
        # Where even this is refused nothing can be done, and nobody who logs must hear of it.
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, value, at)

    def close(self) -> None:
        """Let go of the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
