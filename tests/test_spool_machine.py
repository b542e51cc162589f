"""The spool against a list: whatever a process, its successor or the power does, what was promised
comes out, once and unchanged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from structjob.spool.disk import DiskQueue
from structjob.spool.line import number_of, seal
from structjob.spool.queue import Batch


def line(number: int, size: int) -> bytes:
    text = (b'"\\u00e9' + b"x" * size)[:size] + b'"' if size > 8 else b'"x"'
    return seal(
        b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":%s,"attrs":{}' % text,
        b',"seq":%d' % number,
    )


class SpoolMachine(RuleBasedStateMachine):
    """One session's queue: written by its process, delivered by it or, when it is dead, by one
    successor after the other.

    A record may be lost only where a byte of it was changed, where the file was cut before its end,
    or where the power went before it was synced. What is delivered again by a successor the
    database knows by its number, so that is no fault; from one and the same reader it would be one.
    """

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.lines: dict[int, bytes] = {}
        """What each append that returned was given: the list."""
        self.database: dict[int, bytes] = {}
        self.held: list[Batch] = []
        self.given_out: set[int] = set()
        """Numbers that the present reader has given out."""
        self.may_lose: set[int] = set()
        self.safe: set[int] = set()
        """Numbers that are synced."""
        self.sizes: dict[int, int] = {}
        """Bytes of each file that are synced, by inode."""
        self.alive = True
        self.queue = DiskQueue(self.directory, "events", writable=True)
        self.queue._segment_bytes, self.queue._check_bytes = 700, 200

    # -- the process
    # --------------------------------------------------------------------------

    @precondition(lambda self: self.alive)
    @rule(count=st.integers(1, 8), size=st.integers(0, 300))
    def append(self, count: int, size: int) -> None:
        for _ in range(count):
            number = len(self.lines) + 1
            self.lines[number] = line(number, size)
            self.queue.append(self.lines[number], number)

    @precondition(lambda self: self.alive)
    @rule()
    def rotate(self) -> None:
        self.queue.check_space()

    @precondition(lambda self: self.alive)
    @rule()
    def sync(self) -> None:
        with mock.patch("os.fsync", self._fsync):
            self.queue.sync()
        self.safe |= self.lines.keys()

    def _fsync(self, fd: int) -> None:
        info = os.fstat(fd)
        self.sizes[info.st_ino] = info.st_size

    # -- delivery, by the process or by its successor
    # --------------------------------------------------------------------------

    @rule(limit=st.integers(1, 2000), most=st.integers(1, 6))
    def read(self, limit: int, most: int) -> None:
        batch = self.queue.read(limit, most)
        if batch is not None:
            found = self._numbers(batch)
            assert not found & self.given_out, "given out twice"
            self.given_out |= found
            self.held.append(batch)

    def _numbers(self, batch: Batch) -> set[int]:
        lines = [each + b"\n" for each in batch.lines.split(b"\n")[:-1]]
        assert batch.count == len(lines)
        return {number_of(each) for each in lines}

    @precondition(lambda self: self.held)
    @rule(data=st.data(), acknowledged=st.booleans())
    def store(self, data: st.DataObject, acknowledged: bool) -> None:
        """Commit a batch; the answer may get lost."""
        batch = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self._commit(batch)
        if acknowledged:
            self.queue.ack(batch)
        else:
            self.held.append(batch)

    def _commit(self, batch: Batch) -> None:
        for each in batch.lines.split(b"\n")[:-1]:
            self.database.setdefault(number_of(each + b"\n"), each + b"\n")

    @rule()
    def time_passes(self) -> None:
        for segment in self.queue._segments.values():
            if segment.retired:
                segment.retired -= 10.0

    def ripe(self) -> bool:
        """Return whether enough was written, in more than one file, that its end is of interest."""
        return not self.alive or len(self.queue._segments) > 1

    # -- the end of a process
    # --------------------------------------------------------------------------

    @precondition(lambda self: self.ripe())
    @rule()
    def crash(self) -> None:
        """The process that delivers is killed: what it knew is forgotten."""
        self.queue.close()
        self._succeed()

    @precondition(lambda self: self.alive and self.ripe())
    @rule(part=st.floats(0.01, 0.99), size=st.integers(0, 300))
    def crash_in_a_write(self, part: float, size: int) -> None:
        """It is killed while a record is half written: a promise that was not made."""
        whole = line(len(self.lines) + 1, size)
        os.write(self.queue._fd, whole[: max(1, int(len(whole) * part))])
        self.crash()

    @precondition(lambda self: self.alive and self.ripe())
    @rule(data=st.data())
    def power_cut(self, data: st.DataObject) -> None:
        """Of each file, what was not synced may be missing, from some place on."""
        self.queue.close()
        self.held.clear()
        for path in self._files():
            synced = self.sizes.get(path.stat().st_ino, 0)
            self._cut(
                path, data.draw(st.integers(min(synced, path.stat().st_size), path.stat().st_size))
            )
        assert not self.may_lose & self.safe, "what was synced is gone"
        self._succeed()

    @precondition(lambda self: not self.alive and self._files())
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        self.queue.close()
        path = data.draw(st.sampled_from(self._files()))
        self._cut(path, data.draw(st.integers(0, path.stat().st_size)))
        self._succeed()

    @precondition(
        lambda self: not self.alive and any(path.stat().st_size for path in self._files())
    )
    @rule(data=st.data(), bits=st.integers(1, 255))
    def damage(self, data: st.DataObject, bits: int) -> None:
        """A byte is not what was written: it costs its own record at most, and the newline after
        one costs none.
        """
        self.queue.close()
        path = data.draw(st.sampled_from([path for path in self._files() if path.stat().st_size]))
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        for number, start in self._places(bytes(content)):
            if start <= at < start + len(self.lines[number]) - 1:
                self.may_lose.add(number)
        content[at] ^= bits
        path.write_bytes(content)
        self._succeed()

    def _cut(self, path: Path, size: int) -> None:
        for number, start in self._places(path.read_bytes()):
            if start + len(self.lines[number]) - 1 > size:
                self.may_lose.add(number)
        os.truncate(path, size)

    def _places(self, content: bytes) -> list[tuple[int, int]]:
        """Return the records that are whole in *content*, and where; but for their newline."""
        found = [(number, content.find(each[:-1])) for number, each in self.lines.items()]
        return [(number, start) for number, start in found if start >= 0]

    def _files(self) -> list[Path]:
        return sorted(self.directory.iterdir())

    def _succeed(self) -> None:
        self.alive = False
        self.held.clear()
        self.given_out.clear()
        self.queue = DiskQueue(self.directory, "events", writable=False)
        self.queue.final = True

    # -- what must hold
    # --------------------------------------------------------------------------

    @invariant()
    def nothing_is_invented(self) -> None:
        for number, each in getattr(self, "database", {}).items():
            assert self.lines.get(number) == each, (
                "a record that nobody wrote, or not as it was written"
            )

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.directory)
            stack.callback(self.queue.close)
            for batch in self.held:
                self._commit(batch)
                self.queue.ack(batch)
            position = self.queue.position()
            while (batch := self.queue.read(1000, 5)) is not None:
                self._commit(batch)
                self.queue.ack(batch)
            self.nothing_is_invented()
            missing = self.lines.keys() - self.database.keys()
            assert missing <= self.may_lose, f"lost: {missing - self.may_lose}"
            assert self.queue.reached(position)
            assert self.queue.done()


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(
    max_examples=settings().max_examples * 3 // 5,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
