"""The queue on disk, and its twin in memory: what goes in comes out once and in order, whatever
happens to the files.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from structjob.spool import disk as spool_module
from structjob.spool.disk import DiskQueue
from structjob.spool.dropped import ranges
from structjob.spool.line import number_of, owner_of, rescue, seal, verify_line
from structjob.spool.queue import Batch, MemoryQueue, may_block
from structjob.spool.tally import Tally


def line(number: int, text: str = "x") -> bytes:
    return seal(
        b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":%s,"attrs":{}'
        % json.dumps(text).encode(),
        b',"seq":%d' % number,
    )


def numbers(batch: Batch | None) -> list[int]:
    return (
        [number_of(each + b"\n") for each in batch.lines.split(b"\n")[:-1]]
        if batch is not None
        else []
    )


def read_all(queue, limit: int = 1 << 20, most: int = 1000) -> list[int]:
    found: list[int] = []
    while (batch := queue.read(limit, most)) is not None:
        assert batch.count == len(numbers(batch)) <= most
        found += numbers(batch)
        queue.ack(batch)
    return found


def orphan(directory: Path, name: str = "events") -> DiskQueue:
    queue = DiskQueue(directory, name, writable=False)
    queue.final = True
    return queue


@pytest.fixture
def queue(tmp_path):
    queue = DiskQueue(tmp_path, "events", writable=True)
    yield queue
    queue.close()


def test_a_line_shows_whether_it_is_whole():
    """Any change to any byte of a line shows (guarantee 1)."""
    whole = line(17, "copied é")
    assert verify_line(whole)
    assert verify_line(whole.rstrip(b"\n"))
    assert number_of(whole) == 17
    for at in range(len(whole) - 1):
        for bits in (0x01, 0xFF):
            assert not verify_line(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])


def test_two_records_in_one_line_are_told_apart():
    """When the newline between two records is hit, both are found (guarantee 1)."""
    first, second = line(1).rstrip(b"\n"), line(2)
    assert rescue(first + b"\x0b" + second) == [first + b"\n", second]
    assert rescue(first[:30] + second) == [second]
    assert rescue(first.replace(b'"x"', b'"y"') + second) == [second]
    assert rescue(first.replace(b'"x"', b'"y"')) == rescue(b"") == []


def test_the_number_and_the_job_of_a_line():
    """faults H: a record says its number and its job; where it has none, or is damaged, so much is
    known as can still be read.
    """
    event = seal(
        b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"copied","attrs":{},"job_id":"j-1"',
        b',"seq":123',
    )
    state = seal(b'{"kind":"job","row":{}', b',"state_seq":45')
    assert [number_of(line) for line in (event, event.rstrip(b"\n"), state)] == [123, 123, 45]
    assert [number_of(line) for line in (b"", b"no record", seal(b'{"ts":"', b""))] == [0, 0, 0]
    assert owner_of(event) == (123, "j-1")
    assert owner_of(seal(b'{"ts":"2026-01-31 12:00:00.000001"', b"")) == (0, None)
    assert owner_of(event[1:]) == (123, None)
    assert owner_of(event[:-10]) == (0, None)


def test_ranges_of_numbers():
    """Numbers in any order become runs."""
    assert list(ranges([5, 1, 2, 7, 3])) == [(1, 3), (5, 5), (7, 7)]
    assert list(ranges([])) == []


def test_every_truncation_gives_the_exact_prefix(tmp_path):
    """A file that ends anywhere yields every record before that place, and counts a piece of one
    (guarantee 1).
    """
    records = [line(number, "é" * number) for number in range(1, 8)]
    data = b"".join(records)
    path = tmp_path / "events-000001.jsonl"
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        queue = orphan(tmp_path)
        whole = sum(size >= len(b"".join(records[: n + 1])) - 1 for n in range(len(records)))
        assert read_all(queue) == list(range(1, whole + 1)), size
        torn = size - len(b"".join(records[:whole]))
        assert queue.damaged == (torn > 0), size
        assert (queue.damaged_most > 0) == (torn > 0), size
        assert queue.last_seen == (whole + 1 if torn > 0 else 0), size
        assert queue.done()
        queue.close()


@pytest.mark.parametrize("bits", [0x01, 0xFF])
def test_every_flipped_byte_costs_its_own_record_at_most(tmp_path, bits):
    """Whichever byte is hit, every other record is delivered, and the damage is counted (guarantee
    1).
    """
    records = [line(number) for number in range(1, 6)]
    data = b"".join(records)
    owner = [number for number, record in enumerate(records, 1) for _ in record]
    path = tmp_path / "events-000001.jsonl"
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :])
        queue = orphan(tmp_path)
        found = read_all(queue, limit=200, most=2)
        is_newline = data[at : at + 1] == b"\n"
        assert found == [number for number in range(1, 6) if is_newline or number != owner[at]], at
        assert queue.damaged, at
        if owner[at] == 5 and not is_newline:
            assert queue.last_seen == 5, at
        queue.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\n",
        b"\n\n\n",
        b"\x00" * 5000,
        os.urandom(20_000),
        b"{" * 3000,
        b"x\n" * 3000,
        b'{"ts":"' * 500,
        b',"crc":"00000000"}' * 500,
    ],
)
def test_garbage_yields_nothing_and_no_fault(tmp_path, garbage):
    """A file of anything else yields no record and no exception; what follows it in other files is
    delivered (guarantee 7).
    """
    (tmp_path / "events-000001.jsonl").write_bytes(garbage)
    (tmp_path / "events-000002.jsonl").write_bytes(line(1) + garbage + b"\n" + line(2))
    queue = orphan(tmp_path)
    assert read_all(queue) == [1, 2]
    assert queue.done()
    queue.close()


def test_endless_garbage_does_not_fill_the_memory(tmp_path, monkeypatch):
    """A large file without a newline is skipped in pieces (guarantee 7)."""
    monkeypatch.setattr(spool_module, "_LONGEST", 4096)
    (tmp_path / "events-000001.jsonl").write_bytes(b"x" * 50_000 + b"\n" + line(1))
    queue = orphan(tmp_path)
    sizes = []
    found = []
    while (batch := queue.read(1024, 10)) is not None:
        sizes.append(batch.end - batch.start)
        found += numbers(batch)
        queue.ack(batch)
    assert max(sizes) <= 8192
    assert found == [1]
    queue.close()


def test_a_line_longer_than_a_batch_is_read_whole(queue, tmp_path, monkeypatch):
    """A record larger than what is asked for at a time comes alone and whole (guarantee 7)."""
    pread, reads = os.pread, []
    queue.append(line(1, "x" * 100_000), 1)
    queue.append(line(2), 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
        batch = queue.read(1000, 10)
    assert numbers(batch) == [1]
    assert len(reads) < 10  # the loop does not wait for a hundred thousand
    assert read_all(queue) == [2]
    dead = orphan(tmp_path)
    assert read_all(dead, limit=1000) == [1, 2]
    assert dead.damaged == 0
    dead.close()


def test_rotation_loses_and_doubles_nothing_while_threads_write(tmp_path):
    """Threads write while segments are rotated, read and deleted: each record comes out once
    (guarantee 1).
    """
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=2000)
    numbering = iter(range(1, 20_001))
    lock = threading.Lock()

    def write() -> None:
        while True:
            with lock:
                number = next(numbering, None)
            if number is None:
                return
            queue.append(line(number), number)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    found: list[int] = []
    while any(thread.is_alive() for thread in threads):
        found += read_all(queue, limit=5000, most=20)
    found += read_all(queue)
    assert sorted(found) == list(range(1, 20_001))
    # the reader holds the lock nearly all the time, and writers never wait for it
    assert max(queue._segments) > 1
    queue.close()


def test_what_lands_late_in_a_segment_that_was_left_is_delivered(tmp_path, monkeypatch):
    """A ``write()`` that began before a rotation and ends after it is not forgotten
    (guarantee 1).
    """
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=100)
    late = os.dup(queue._fd)
    queue.append(line(1), 1)
    queue.check_space()
    queue.append(line(2), 2)
    assert read_all(queue) == [1, 2]
    os.write(late, line(3))
    os.close(late)
    assert read_all(queue) == [3]
    assert (tmp_path / "events-000001.jsonl").exists()
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    queue.append(line(4), 4)
    assert read_all(queue) == [4]
    assert not (tmp_path / "events-000001.jsonl").exists()
    queue.close()


def test_a_segment_stays_until_it_is_stored(tmp_path, monkeypatch):
    """Nothing that was not stored is deleted, in whichever order batches are stored
    (guarantee 1).
    """
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=200)
    for number in range(1, 4):
        queue.append(line(number), number)
    queue.check_space()
    batches = [queue.read(1 << 20, 1) for _ in range(3)]
    queue.ack(batches[2])
    queue.ack(batches[1])
    assert (tmp_path / "events-000001.jsonl").exists()
    assert not queue.reached(queue.position())
    queue.ack(batches[0])
    assert not (tmp_path / "events-000001.jsonl").exists()
    assert queue.reached(queue.position())
    queue.close()


def test_descriptors_are_given_back(tmp_path, monkeypatch):
    """However many segments a queue has gone through, it holds two descriptors, and none once
    closed.
    """
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    before = set(os.listdir("/proc/self/fd"))
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=100)
    for number in range(1, 200):
        queue.append(line(number), number)
        queue.check_space()
        if number % 3 == 0:
            read_all(queue)
    assert len(os.listdir("/proc/self/fd")) - len(before) <= 2
    assert not os.get_inheritable(queue._fd)
    queue.close()
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="descriptor"):
        queue.append(line(200), 200)


@pytest.mark.parametrize("step", ["open_directly", "dup2"])
def test_a_failing_rotation_does_not_reach_the_caller(tmp_path, monkeypatch, step):
    """Where there is no room for another segment the present one grows: the record is written, so
    its caller must not write it again.
    """
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=200)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(spool_module if step == "open_directly" else os, step, refuse)
        for number in range(1, 10):
            queue.append(line(number), number)
        assert [path.name for path in tmp_path.iterdir()] == ["events-000001.jsonl"]
    for number in range(10, 20):
        queue.append(line(number), number)
    assert read_all(queue) == list(range(1, 20))
    assert len(list(tmp_path.iterdir())) > 1
    queue.close()


def test_a_lane_outlives_its_directory(tmp_path):
    """The directory of a live program is deleted: its events are still delivered while it lives."""
    directory = tmp_path / "spool"
    directory.mkdir()
    queue = DiskQueue(directory, "events", writable=True)
    queue.append(line(1), 1)
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    queue.append(line(2), 2)
    assert not queue.reached(queue.position())
    assert read_all(queue) == [1, 2]
    assert queue.reached(queue.position())
    queue.close()


def test_a_position_includes_what_was_written_just_before(tmp_path):
    """What a thread wrote is within the position that it asks for next, also while segments are
    rotated: a flush waits for it.
    """
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=2000)
    missing: list[int] = []

    def write(start: int) -> None:
        for number in range(start, start + 400):
            queue.append(line(number), number)
            if queue.reached(queue.position()):
                missing.append(number)

    threads = [threading.Thread(target=write, args=(start,)) for start in (1, 10_001, 20_001)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missing
    queue.close()


def test_a_record_that_is_still_being_written_is_not_damage(tmp_path):
    """faults H: what a living process has written in part is read when it is whole; of a dead
    process it is damage.
    """
    path = tmp_path / "events-000001.jsonl"
    path.write_bytes(line(1) + line(2)[:40])
    living, dead = DiskQueue(tmp_path, "events", writable=False), orphan(tmp_path)
    assert read_all(dead) == [1]
    assert (dead.damaged, dead.last_seen) == (1, 2)
    assert read_all(living) == [1]
    path.write_bytes(line(1) + line(2))
    assert read_all(living) == [2]
    assert (living.damaged, living.damaged_most) == (0, 0)
    for queue in (living, dead):
        queue.close()


def test_how_many_records_damage_can_have_cost(tmp_path):
    """faults H: where newlines were damaged, too, one line was several records: no fewer are
    counted, and no more than would fit.
    """
    first, *rest = [line(number) for number in range(1, 6)]
    damaged = b"".join(rest).replace(b"\n", b"\x0b").replace(b'"x"', b'"y"')
    (tmp_path / "events-000001.jsonl").write_bytes(first + damaged)
    queue = orphan(tmp_path)
    assert read_all(queue) == [1]
    assert queue.damaged == 1
    assert len(rest) <= queue.damaged_most <= len(damaged) // 64 + 1
    queue.close()


def test_a_damaged_newline_hides_no_record_and_none_is_missed(tmp_path):
    """faults H: both records of a line are found: `verify` shall not look for a third."""
    (tmp_path / "events-000001.jsonl").write_bytes(line(1).replace(b"\n", b"\x0b") + line(2))
    queue = orphan(tmp_path)
    assert read_all(queue) == [1, 2]
    assert queue.last_seen == 0
    queue.close()


def test_the_numbers_of_damaged_records_are_believed_if_they_can_be_true(tmp_path):
    """faults H: two damaged records at the end count, and a number that was damaged itself makes no
    thousands of events missing.
    """
    path = tmp_path / "events-000001.jsonl"
    second, third = (line(number).replace(b'"x"', b'"y"') for number in (2, 3))
    wild = second.replace(b":2,", b":9000,")
    for content, last in ((line(1) + second + third, 3), (line(1) + wild, 2), (wild, 1)):
        path.write_bytes(content)
        queue = orphan(tmp_path)
        assert read_all(queue) == ([1] if line(1) in content else [])
        assert queue.last_seen == last
        queue.close()


def test_a_file_that_somebody_deleted_keeps_nobody_from_the_next(tmp_path):
    """faults H: an orphan of which a file is gone is delivered for the rest."""
    for number in (1, 2):
        (tmp_path / f"events-{number:06}.jsonl").write_bytes(line(number))
    queue = orphan(tmp_path)
    queue.position()
    (tmp_path / "events-000001.jsonl").unlink()
    assert read_all(queue) == [2]
    assert queue.done()
    queue.close()


@pytest.mark.parametrize("when", ["before", "later"])
def test_a_link_among_the_files_is_not_followed(tmp_path, when):
    """faults 0: what another file contains does not come into the database because a link to it
    lies in a spool.
    """
    spool, elsewhere = tmp_path / "spool", tmp_path / "elsewhere"
    spool.mkdir()
    elsewhere.write_bytes(line(7))
    (spool / "events-000002.jsonl").write_bytes(line(2))
    if when == "before":
        (spool / "events-000001.jsonl").symlink_to(elsewhere)
        queue = orphan(spool)
        assert read_all(queue) == [2]
        assert queue.done()
    else:
        queue = orphan(spool)
        queue.position()
        (spool / "events-000002.jsonl").unlink()
        (spool / "events-000002.jsonl").symlink_to(elsewhere)
        with pytest.raises(OSError, match="symbolic links"):
            queue.read(1 << 20, 10)
    queue.close()


def test_a_flush_does_not_wait_for_a_file_that_somebody_deleted(tmp_path):
    """faults H: what was in a file that is gone cannot be delivered; what comes after it can, and a
    flush ends.
    """
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=150)
    for number in (1, 2, 3):
        queue.append(line(number), number)
    (tmp_path / "events-000001.jsonl").unlink()
    assert read_all(queue) == [3]
    assert queue.reached(queue.position())
    queue.close()


def test_a_part_of_a_record_costs_no_other_record(queue, tmp_path, monkeypatch):
    """faults H: a full disk takes a part of a record: the caller is told, and the next record is
    whole.
    """
    write = os.write
    queue.append(line(1), 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        with pytest.raises(OSError, match="accepted only a part of a record"):
            queue.append(line(2), 2)
    queue.append(line(3), 3)
    dead = orphan(tmp_path)
    assert read_all(dead) == [1, 3]
    assert dead.damaged == 1
    dead.close()


@pytest.mark.parametrize("taken", [2, 2.5])
def test_a_part_of_several_records_costs_no_other_record(queue, tmp_path, monkeypatch, taken):
    """faults H: of records that are written together a full disk takes some, and a part of one: it
    is a line of its own, and the next record is whole.
    """
    write, texts = os.write, [line(number) for number in range(1, 5)]
    size = int(len(texts[0]) * taken)
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "write", lambda fd, data: write(fd, data[:size] if size < len(data) else data)
        )
        assert queue.append_all(texts) == 2
    queue.append(line(5), 5)
    part = texts[2][: size - 2 * len(texts[0])]
    content = b"".join([*texts[:2], part + b"\n" if part else b"", line(5)])
    assert (tmp_path / "events-000001.jsonl").read_bytes() == content


@pytest.mark.parametrize("newline", ["taken", "refused"])
@pytest.mark.parametrize("together", [False, True])
def test_a_record_without_its_newline_is_a_record(queue, tmp_path, monkeypatch, newline, together):
    """faults H: a full disk takes a whole record but for its newline: it is in the queue, once, and
    a flush waits for it.
    """
    write = os.write

    def take_some(fd: int, data: bytes) -> int:
        if data != b"\n":
            return write(fd, data[:-1])
        if newline == "refused":
            raise OSError(errno.ENOSPC, "no space left")
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", take_some)
        if together:
            assert queue.append_all([line(1), line(2)]) == 2
        else:
            queue.append(line(1), 1)
            assert not queue.reached(queue.position())
            queue.append(line(2), 2)
    dead = orphan(tmp_path)
    assert read_all(dead) == [1, 2]
    dead.close()
    position = queue.position()
    found = b""
    while (batch := queue.read(1 << 20, 10)) is not None:
        assert not queue.reached(position)
        found += batch.lines
        queue.ack(batch)
    assert [number_of(record) for record in rescue(found)] == [1, 2]
    assert queue.reached(position)


def test_what_follows_a_record_without_its_newline_is_not_read_in_parts(queue, monkeypatch):
    """faults H: another record may still be being written: it is read when it is there."""
    write = os.write

    def take_some(fd: int, data: bytes) -> int:
        return write(fd, data[:-1]) if data != b"\n" else refuse()

    def refuse() -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", take_some)
        queue.append(line(1), 1)
    write(queue._fd, line(2)[:30])
    assert queue.read(1 << 20, 10) is None
    assert not queue.reached(queue.position())
    write(queue._fd, line(2)[30:])
    found = queue.read(1 << 20, 10)
    assert [number_of(record) for record in rescue(found.lines)] == [1, 2]


def test_records_in_one_line_are_cleared_as_two(queue, monkeypatch):
    """faults H: the newline between two records is missing: both are named when dropped."""
    write = os.write
    queue.append(line(1), 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:-1]))
        queue.append(line(2), 2)
    queue.append(line(3), 3)
    assert queue.clear("cleared") == 3
    assert [each[:2] for each in queue.dropped] == [(1, 3)]


def test_a_flush_does_not_wait_for_a_part_of_a_record(queue, monkeypatch):
    """faults H: where the disk does not even take the newline after a part, a flush ends when what
    is before it is stored.
    """
    write = os.write

    def take_some(fd: int, data: bytes) -> int:
        return write(fd, data[:20]) if data != b"\n" else refuse()

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    queue.append(line(1), 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", take_some)
        with pytest.raises(OSError, match="accepted only a part of a record"):
            queue.append(line(2), 2)
    position = queue.position()
    assert not queue.reached(position)
    assert read_all(queue, most=1) == [1]
    with monkeypatch.context() as patch:  # no descriptor is left to look at it
        patch.setattr(spool_module, "open", refuse, raising=False)
        assert not queue.reached(position)
    assert queue.reached(position)
    queue.append(line(3), 3)
    assert queue.reached(position)
    assert not queue.reached(queue.position())


def test_what_is_cleared_is_counted_and_never_comes_back(tmp_path):
    """faults H: records that are given up are named with their reason; a batch in hand is not among
    them, and a successor finds none.
    """
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=400)
    for number in range(1, 12):
        queue.append(line(number), number)
    assert len(list(tmp_path.iterdir())) > 2
    queue.ack(queue.read(1 << 20, 2))
    in_hand = queue.read(1 << 20, 1)
    assert queue.clear("cleared") == 8
    assert {
        number for first, last, *_ in queue.dropped for number in range(first, last + 1)
    } == set(range(4, 12))
    assert {(reason, job_id) for _, _, reason, job_id in queue.dropped} == {("cleared", None)}
    assert queue.read(1 << 20, 10) is None
    queue.ack(in_hand)
    assert queue.reached(queue.position())
    queue.append(line(12), 12)
    queue.close()
    dead = orphan(tmp_path)
    assert read_all(dead) == [1, 2, 3, 12]
    assert dead.damaged == 0
    dead.close()


def test_clearing_ends_although_another_thread_writes_on(queue, monkeypatch):
    """faults H: what waits is given up, not what comes meanwhile: a thread that logs as fast as it
    is cleared does not keep the program from closing.
    """
    read, later = queue.read, iter(range(4, 10))
    for number in (1, 2, 3):
        queue.append(line(number), number)

    def read_and_write(limit: int, most: int) -> Batch | None:
        batch = read(limit, most)
        for number in later:
            queue.append(line(number), number)
            break
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(queue, "read", read_and_write)
        assert queue.clear("cleared") == 3
    assert read_all(queue) == [4]


def test_clearing_while_another_thread_begins_a_file_raises_nothing(tmp_path, monkeypatch):
    """faults H: `Queue.clear` looks at the sizes of the files while another thread logs, and begins
    the next file: it clears what waits, and the user gets no error.
    """
    stat = os.stat
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=400)
    for number in range(1, 4):
        queue.append(line(number), number)
    files, later = len(list(tmp_path.iterdir())), iter(range(4, 12))

    def log_and_stat(path: Path) -> os.stat_result:
        for number in later:
            queue.append(line(number), number)
        return stat(path)

    with monkeypatch.context() as patch:
        patch.setattr(spool_module.os, "stat", log_and_stat)
        cleared = queue.clear("cleared")
    rest = read_all(queue)
    assert cleared >= 3
    assert rest == list(range(cleared + 1, 12))
    queue.check_space()
    assert len(list(tmp_path.iterdir())) > files
    queue.close()


def test_how_full_a_queue_is(queue, tmp_path):
    """faults H: the warning of a spool that fills up knows how much of the limit is used; without a
    limit nothing fills.
    """
    queue.append(line(1), 1)
    assert queue.filled() == 0.0
    (tmp_path / "limited").mkdir()
    limited = DiskQueue(tmp_path / "limited", "events", writable=True, max_bytes=10_000)
    for number in range(1, 21):
        limited.append(line(number), number)
    whole = limited.filled()
    assert whole == sum(len(line(number)) for number in range(1, 21)) / 10_000
    limited.ack(limited.read(1 << 20, 10))
    assert 0 < limited.filled() < whole
    limited.close()


def test_a_position_in_an_orphan_includes_what_was_not_read_yet(tmp_path):
    """faults H: waiting for the delivery of an adopted spool means waiting for all of its files."""
    for number in (1, 2):
        (tmp_path / f"events-{number:06}.jsonl").write_bytes(line(number))
    queue = orphan(tmp_path)
    position = queue.position()
    assert not queue.reached(position)
    assert not queue.done()
    assert read_all(queue) == [1, 2]
    assert queue.reached(position)
    queue.close()


def test_a_sync_reaches_every_file_and_the_directory(tmp_path, monkeypatch):
    """faults H: the power may go after a sync: each file's content and name are on disk, also if
    the directory was deleted meanwhile.
    """
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    directory = tmp_path / "spool"
    directory.mkdir()
    queue = DiskQueue(directory, "events", writable=True, segment_bytes=100)
    for number in (1, 2):
        queue.append(line(number), number)
    queue.append(line(3), 3)
    queue.sync()
    files = sorted(directory.iterdir())
    assert len(files) > 1
    assert {path.stat().st_ino for path in [*files, directory]} == set(synced)
    present = files[-1].stat().st_ino
    for path in files:
        path.unlink()
    directory.rmdir()
    synced.clear()
    queue.sync()
    assert synced == [present]
    queue.close()
    queue.sync()  # nothing is left to be synced, and nothing fails


def test_a_deleted_segment_is_closed(tmp_path, monkeypatch):
    """faults H: the disk space of what is stored is free as soon as its file is deleted."""
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=100)
    for number in range(1, 3):
        queue.append(line(number), number)
        queue.check_space()
    assert read_all(queue, most=1) == [1, 2]
    open_files = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    ]
    assert not [
        name for name in open_files if name.startswith(str(tmp_path)) and name.endswith("(deleted)")
    ]
    queue.close()


class Noted:
    """Stands for the session's tally: keeps what it is told."""

    def __init__(self) -> None:
        self.risked: list[int] = []
        self.confirmed: list[tuple[int, int]] = []

    def risk(self, number: int) -> None:
        self.risked.append(number)

    def confirm(self, count: int, segment: int) -> None:
        self.confirmed.append((count, segment))


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_the_tally_knows_of_what_is_dropped(tmp_path, overflow):
    """faults H: if the process is killed before its drops are recorded, its tally still says up to
    which number events may be missing.
    """
    noted = Noted()
    queue = DiskQueue(
        tmp_path, "events", writable=True, max_bytes=20_000, overflow=overflow, tally=noted
    )
    for number in range(1, 501):
        queue.append(line(number), number)
        for segment in queue._segments.values():
            segment.retired -= 1.0 if segment.retired else 0.0
    queue.check_space()
    assert queue.dropped
    assert max(noted.risked) == max(last for _, last, *_ in queue.dropped)
    queue.close()


def test_the_tally_knows_how_many_events_of_a_deleted_segment_are_confirmed(tmp_path, monkeypatch):
    """faults H: what the database has confirmed is counted once, when its file goes, and only if it
    is confirmed at all.
    """
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    noted = Noted()
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=400, tally=noted)
    for number in range(1, 10):
        queue.append(line(number), number)
    queue.check_space()
    while (batch := queue.read(1 << 20, 1)) is not None:
        if batch.segment == 2:
            queue.ack(batch)
        else:
            queue.ack(batch, 1)
    gone = {number for number in (1, 2, 3) if not (tmp_path / f"events-{number:06}.jsonl").exists()}
    assert {1, 2} <= gone
    assert noted.confirmed[0][1] == 1
    assert noted.confirmed[0][0] > 1
    assert 2 not in [segment for _, segment in noted.confirmed]
    queue.close()


def test_a_deletion_that_failed_confirms_its_events_once(tmp_path, monkeypatch):
    """faults H: a stored file that cannot be deleted at first is deleted later; its events count as
    confirmed once, or `verify` would not find as many that are lost.
    """
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    tally = Tally.create(tmp_path)
    queue = DiskQueue(tmp_path, "events", writable=True, segment_bytes=100, tally=tally)
    queue.append(line(1), 1)
    queue.append(line(2), 2)

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EBUSY, "device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        queue.ack(queue.read(1 << 20, 10), 1)
        assert (tmp_path / "events-000001.jsonl").exists()
    queue.ack(queue.read(1 << 20, 10), 1)
    assert not (tmp_path / "events-000001.jsonl").exists()
    queue.close()
    tally.close()
    after = Tally.open(tmp_path)
    assert after.confirmed == 1
    after.close()


def test_a_signal_handler_that_logs_waits_for_nothing(queue):
    """faults H: a handler that interrupts its own thread in the middle of a read finds the lock
    taken: its record is written, and the look at the file is left to the next one.
    """
    with queue._lock:
        queue._since_check = 1 << 30
        queue.append(line(1), 1)
    assert read_all(queue) == [1]


# -- overflow
# --------------------------------------------------------------------------


def test_the_oldest_segment_is_dropped_with_all_its_numbers(tmp_path, monkeypatch):
    """When the bound is reached the oldest go; every record is delivered or reported, none both
    (guarantee 2).
    """
    queue = DiskQueue(tmp_path, "events", writable=True, max_bytes=20_000, overflow="drop_oldest")
    for number in range(1, 2001):
        queue.append(line(number), number)
        if number % 500 == 0:
            for segment in queue._segments.values():
                segment.retired -= 1.0 if segment.retired else 0.0  # as if time had passed
            queue.check_space()
    dropped = {n for first, last, *_ in queue.dropped for n in range(first, last + 1)}
    assert {event.reason for event in queue.dropped} == {"spool_full"}
    found = read_all(queue)
    assert dropped
    assert sorted([*found, *dropped]) == list(range(1, 2001))
    queue.close()


def test_a_bound_is_kept_to_a_sixty_fourth_and_files_have_their_size(tmp_path):
    """faults H: what waits exceeds `spool_max_bytes` by a sixty-fourth and one record at most, in
    files of an eighth each.
    """
    bound, record = 262_144, len(line(1, "x" * 200))
    queue = DiskQueue(tmp_path, "events", writable=True, max_bytes=bound, overflow="drop_newest")
    number = 0
    while not queue.dropped:
        number += 1
        queue.append(line(number, "x" * 200), number)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert bound < sum(sizes) <= bound + bound // 64 + 2 * record
    assert len(sizes) == 8
    queue.close()


def test_a_segment_is_not_dropped_while_a_write_to_it_may_be_under_way(tmp_path, monkeypatch):
    """faults H: a file that was just left is not given up, for another thread may be writing to it;
    a moment later as many go as must.
    """
    clock = time.monotonic()
    monkeypatch.setattr(spool_module, "time", SimpleNamespace(monotonic=lambda: clock))
    queue = DiskQueue(tmp_path, "events", writable=True, max_bytes=20_000, overflow="drop_oldest")
    for number in range(1, 501):
        queue.append(line(number), number)
    clock += 0.04
    queue.check_space()
    assert not queue.dropped
    clock += 0.02
    queue.check_space()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    (dropped,) = {reason for _, _, reason, _ in queue.dropped}
    assert dropped == "spool_full"
    assert min(queue.dropped).first == 1
    gone = max(last for _, last, *_ in queue.dropped)
    assert read_all(queue) == list(range(gone + 1, 501))
    queue.close()


def test_a_file_that_somebody_deleted_does_not_lift_the_limit(tmp_path):
    """faults H: the oldest file is gone, read in part: what was read of it is no room for others,
    and the next ones are dropped as before.
    """
    queue = DiskQueue(tmp_path, "events", writable=True, max_bytes=20_000, overflow="drop_oldest")
    number = 0
    while len(queue._segments) < 3:
        number += 1
        queue.append(line(number), number)
    queue.ack(queue.read(1 << 20, 10))
    (tmp_path / "events-000001.jsonl").unlink()
    for later in range(number + 1, 1001):
        queue.append(line(later), later)
        for segment in queue._segments.values():
            segment.retired -= 1.0 if segment.retired else 0.0  # as if time had passed
    queue.check_space()
    assert queue.dropped
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    queue.close()


def test_the_newest_are_refused_until_there_is_room(tmp_path):
    """With ``drop_newest`` what waits stays, what comes is reported, and room lets it in again
    (guarantee 2).
    """
    queue = DiskQueue(tmp_path, "events", writable=True, max_bytes=20_000, overflow="drop_newest")
    for number in range(1, 1001):
        queue.append(line(number), number)
    dropped = [first for first, *_ in queue.dropped]
    found = read_all(queue)
    assert dropped
    assert found + dropped == list(range(1, 1001))
    queue.append(line(1001), 1001)
    assert read_all(queue) == [1001]
    queue.close()


def test_a_queue_that_another_process_delivers_has_room_when_that_one_deletes(tmp_path):
    """A forked child cannot know what its parent has in hand: it drops the newest, until the parent
    has deleted something.
    """
    queue = DiskQueue(
        tmp_path, "events", writable=True, max_bytes=20_000, overflow="drop_oldest", shared=True
    )
    for number in range(1, 1001):
        queue.append(line(number), number)
    assert queue.dropped
    before = len(queue.dropped)
    reader = DiskQueue(tmp_path, "events", writable=False)
    found = read_all(reader)
    for segment in reader._segments.values():
        segment.retired -= 10.0 if segment.retired else 0.0
    queue._full = False
    queue.append(line(1001), 1001)
    found += read_all(reader)  # deletes what was left
    for number in range(1002, 1011):
        queue.append(line(number), number)
    assert len(queue.dropped) == before
    found += read_all(reader)
    assert sorted(found + [first for first, *_ in queue.dropped]) == list(range(1, 1011))
    queue.close()
    reader.close()


def forked(directory: Path, *, overflow: str = "drop_newest") -> tuple[DiskQueue, DiskQueue]:
    """Return the queue of a forked child, and its parent's view of it."""
    child = DiskQueue(
        directory, "events", writable=True, max_bytes=65_536, overflow=overflow, shared=True
    )
    return child, DiskQueue(directory, "events", writable=False)


def test_a_forked_child_whose_spool_was_full_goes_on_when_its_parent_has_stored_it(
    tmp_path, monkeypatch
):
    """faults H: a child acknowledges nothing; it sees on disk that there is room again, and drops
    nothing from then on.
    """
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    child, parent = forked(tmp_path)
    number = 0
    while not child.dropped:
        number += 1
        child.append(line(number, "x" * 200), number)
    kept = number - 1
    assert len(read_all(parent, limit=4096)) == kept
    for later in range(kept + 2, kept + 12):
        child.append(line(later), later)
    assert len(child.dropped) == 1
    assert read_all(parent) == list(range(kept + 2, kept + 12))
    child.close()
    parent.close()


def test_a_forked_child_that_blocks_goes_on_when_its_parent_has_stored_it(tmp_path, monkeypatch):
    """faults H: with `overflow="block"` a thread of the child waits for room, and not for ever."""
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    child, parent = forked(tmp_path, overflow="block")
    waited = threading.Event()

    def room_comes() -> bool:
        waited.set()
        return True

    child.room_comes = room_comes
    end = 1_000

    def write() -> None:
        for number in range(1, end + 1):
            child.append(line(number, "x" * 200), number)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert waited.wait(30)
    found: list[int] = []
    deadline = time.monotonic() + 60
    while thread.is_alive() and time.monotonic() < deadline:
        found += read_all(parent, limit=4096)
    assert not thread.is_alive()
    found += read_all(parent)
    assert sorted(found) == list(range(1, end + 1))
    assert not child.dropped
    child.check_space()
    # it wrote three times as many, and forgets those that its parent deleted
    assert len(child._segments) < 12
    child.close()
    parent.close()


def test_a_living_childs_disk_space_is_freed_and_its_present_segment_stays(tmp_path, monkeypatch):
    """faults H: what a living writer left behind is deleted as soon as it is stored, and never the
    file that it writes to.
    """
    monkeypatch.setattr(spool_module, "DELETE_AFTER", 0.0)
    child = DiskQueue(tmp_path, "events", writable=True, segment_bytes=4096, shared=True)
    parent = DiskQueue(tmp_path, "events", writable=False)
    for number in range(1, 101):
        child.append(line(number, "x" * 200), number)
    assert len(list(tmp_path.iterdir())) > 3
    assert read_all(parent, limit=2048) == list(range(1, 101))
    present = max(tmp_path.iterdir())
    while (batch := parent.read(4096, 10)) is not None:
        parent.ack(batch)
    assert max(tmp_path.iterdir()) == present
    assert len(list(tmp_path.iterdir())) <= 2
    child.append(line(101), 101)
    assert read_all(parent) == [101]
    child.close()
    parent.close()


def test_a_thread_waits_for_room(tmp_path):
    """With ``block`` a thread is held up until there is room, and nothing is dropped
    (guarantee 2).
    """
    queue = DiskQueue(tmp_path, "events", writable=True, max_bytes=20_000, overflow="block")
    done, waiting = threading.Event(), threading.Event()
    sizes: list[int] = []

    def room_comes() -> bool:
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
        waiting.set()
        return True

    def write() -> None:
        for number in range(1, 1001):
            queue.append(line(number), number)
        done.set()

    queue.room_comes = room_comes
    thread = threading.Thread(target=write)
    thread.start()
    assert waiting.wait(30)
    assert not done.wait(0.05)
    assert max(sizes) < 20_000 + 2_000
    found: list[int] = []
    while not done.is_set():
        found += read_all(queue)
    thread.join()
    found += read_all(queue)
    assert found == list(range(1, 1001))
    assert not queue.dropped
    queue.close()


def test_a_thread_that_waits_for_room_waits_no_longer_once_the_queue_is_closed(tmp_path):
    """faults H: a program can end though a thread waits for room that will never come."""
    queue = DiskQueue(tmp_path, "events", writable=True, max_bytes=20_000, overflow="block")
    waiting = threading.Event()

    def room_comes() -> bool:
        waiting.set()
        return True

    def write() -> None:
        with contextlib.suppress(OSError):  # the descriptor is closed
            for number in range(1, 1001):
                queue.append(line(number), number)

    queue.room_comes = room_comes
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert waiting.wait(30)
    queue.close()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [4, 5, 6]), ("drop_newest", [1, 2, 3])]
)
def test_a_full_queue_in_memory_drops_by_its_policy(overflow, kept):
    """Without a spool the queue keeps the newest or the oldest, and reports the others (guarantee
    2).
    """
    queue = MemoryQueue(3, overflow)
    for number in range(1, 7):
        queue.append(line(number), number)
    assert read_all(queue) == kept
    assert sorted(first for first, *_ in queue.dropped) == sorted({1, 2, 3, 4, 5, 6} - set(kept))


async def test_block_never_holds_a_running_loop_up():
    """In a running loop ``block`` drops the newest instead of waiting: waiting there would be for
    ever.
    """
    queue = MemoryQueue(3, "block")
    for number in range(1, 7):
        queue.append(line(number), number)
    assert read_all(queue) == [1, 2, 3]
    assert [first for first, *_ in queue.dropped] == [4, 5, 6]
    assert not may_block()
    oldest = MemoryQueue(3)
    for number in range(1, 7):
        oldest.append(line(number), number)
    assert read_all(oldest) == [4, 5, 6]


def test_a_thread_waits_for_room_in_memory_until_the_queue_is_closed():
    """With ``block`` nothing is dropped while room can come; once the queue is closed, a thread
    waits no longer, and the oldest makes room (guarantee 2).
    """
    assert may_block()
    queue, taken, asked = MemoryQueue(2, "block"), [], []

    def room_comes() -> bool:
        asked.append(len(queue))
        if len(asked) == 3:
            taken.append(queue.take())
        return True

    queue.room_comes = room_comes
    for number in (1, 2, 3):
        queue.append(line(number), number)
    assert [number for number, _ in taken] == [1]
    assert not queue.dropped
    queue.close()
    queue.append(line(4), 4)
    assert [first for first, *_ in queue.dropped] == [2]
    assert read_all(queue) == [3, 4]


def test_a_batch_from_memory_is_as_long_as_asked_for():
    """faults H: at most so many bytes, but for the last line; what is given back comes again, in
    its order.
    """
    queue, size = MemoryQueue(), len(line(1))
    for number in (1, 2, 3):
        queue.append(line(number), number)
    batch = queue.read(size, 10)
    assert numbers(batch) == [1]
    queue.give_back(batch)
    batch = queue.read(size + 1, 10)
    assert numbers(batch) == [1, 2]
    queue.give_back(batch)
    assert read_all(queue) == [1, 2, 3]


def test_a_flush_waits_for_what_is_in_memory_and_for_no_more():
    """faults H: lines in a batch count as waiting until they are stored; what comes later is not
    waited for, and what was dropped cannot be.
    """
    queue = MemoryQueue()
    for number in (1, 2):
        queue.append(line(number), number)
    position = queue.position()
    queue.append(line(3), 3)
    first, second = queue.read(1 << 20, 1), queue.read(1 << 20, 1)
    assert not queue.reached(position)
    queue.ack(first)
    assert not queue.reached(position)
    queue.ack(second)
    assert queue.reached(position)
    later = queue.position()
    batch = queue.read(1 << 20, 1)
    assert not queue.reached(later)
    queue.give_back(batch)
    assert not queue.reached(later)
    queue.clear("cleared")
    assert queue.reached(later)


def test_how_full_the_memory_is():
    """faults H: the warning of a queue that fills up knows how much of its room is used."""
    limited, unlimited = MemoryQueue(4), MemoryQueue()
    for queue in (limited, unlimited):
        queue.append(line(1), 1)
    assert (limited.filled(), unlimited.filled()) == (0.25, 0.0)


# -- against a model
# --------------------------------------------------------------------------


class DiskQueueMachine(RuleBasedStateMachine):
    """A queue on disk, tiny segments, batches acknowledged in any order, reopened as an orphan:
    nothing is lost, nothing twice.

    Reopened it may give out again what was read before and not yet deleted: the database knows
    those by their numbers.
    """

    overflow: str | None = None

    @initialize(path=st.just(None))
    def begin(self, path) -> None:
        import tempfile

        self.directory = Path(tempfile.mkdtemp())
        bound = 4096 if self.overflow else None
        self.queue = DiskQueue(
            self.directory,
            "events",
            writable=True,
            max_bytes=bound,
            overflow=self.overflow or "drop_oldest",
        )
        self.queue._segment_bytes, self.queue._check_bytes = 600, 200
        self.next = 1
        self.waiting: list[int] = []  # written, not read
        self.held: list[Batch] = []
        self.stored: set[int] = set()
        self.dropped: set[int] = set()
        self.position = None
        self.before: set[int] = set()

    def account(self) -> None:
        while self.queue.dropped:
            first, last, reason, _ = self.queue.dropped.popleft()
            gone = set(range(first, last + 1))
            assert reason == "spool_full"
            assert not gone & (self.stored | self.dropped)
            assert not any(gone & set(numbers(batch)) for batch in self.held)
            self.dropped |= gone
            self.waiting = [number for number in self.waiting if number not in gone]

    @rule(count=st.integers(1, 12), size=st.integers(0, 400))
    def append(self, count: int, size: int) -> None:
        if not self.queue._writable:
            return
        for _ in range(count):
            self.waiting.append(self.next)
            self.queue.append(line(self.next, "x" * size), self.next)
            self.next += 1
        self.account()

    @rule(limit=st.integers(1, 2000), most=st.integers(1, 6))
    def read(self, limit: int, most: int) -> None:
        batch = self.queue.read(limit, most)
        found = numbers(batch)
        if batch is None:
            assert not self.waiting
            return
        assert found == self.waiting[: len(found)]
        assert 0 < len(found) == batch.count <= most
        assert len(batch.lines) <= limit or len(found) == 1
        del self.waiting[: len(found)]
        self.held.append(batch)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ack(self, data) -> None:
        batch = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.stored |= set(numbers(batch))
        self.queue.ack(batch)
        self.account()

    @rule()
    def rotate(self) -> None:
        if self.queue._writable:
            self.queue.check_space()
            self.account()

    @rule()
    def settle(self) -> None:
        for segment in self.queue._segments.values():
            if segment.retired:
                segment.retired -= 10.0

    @rule()
    def ask(self) -> None:
        self.position = self.queue.position()
        self.before = set(range(1, self.next))

    @rule()
    def reopen(self) -> None:
        self.queue.close()
        self.account()
        self.queue = orphan(self.directory)
        self.position = None
        self.held.clear()
        found = set(read_all(self.queue))
        assert found >= set(range(1, self.next)) - self.stored - self.dropped
        assert not found & self.dropped
        self.queue.close()
        self.queue = orphan(self.directory)
        self.waiting = sorted(found)

    @invariant()
    def reached_means_stored(self) -> None:
        if self.position is not None and self.queue.reached(self.position):
            assert self.before <= self.stored | self.dropped

    @invariant()
    def nothing_unstored_is_reached(self) -> None:
        if (self.waiting or self.held) and self.queue._writable:
            assert not self.queue.reached(self.queue.position())

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue.close()
            import shutil

            shutil.rmtree(self.directory)


class BoundedDiskQueueMachine(DiskQueueMachine):
    """The same with a bound: the oldest are dropped."""

    overflow = "drop_oldest"


class RefusingDiskQueueMachine(DiskQueueMachine):
    """The same with a bound: the newest are dropped."""

    overflow = "drop_newest"


class MemoryQueueMachine(RuleBasedStateMachine):
    """The queue in memory against a list."""

    @initialize(
        capacity=st.integers(1, 10), overflow=st.sampled_from(["drop_oldest", "drop_newest"])
    )
    def begin(self, capacity: int, overflow: str) -> None:
        self.capacity, self.overflow = capacity, overflow
        self.queue = MemoryQueue(capacity, overflow)
        self.next = 1
        self.waiting: list[int] = []
        self.held: list[Batch] = []
        self.gone: list[int] = []

    @rule(count=st.integers(1, 12))
    def append(self, count: int) -> None:
        for _ in range(count):
            self.queue.append(line(self.next), self.next)
            self.waiting.append(self.next)
            if len(self.waiting) > self.capacity:
                self.gone.append(self.waiting.pop(0 if self.overflow == "drop_oldest" else -1))
            self.next += 1
        assert [first for first, *_ in self.queue.dropped] == self.gone

    @rule(limit=st.integers(1, 2000), most=st.integers(1, 6))
    def read(self, limit: int, most: int) -> None:
        batch = self.queue.read(limit, most)
        found = numbers(batch)
        assert found == self.waiting[: len(found)]
        assert bool(found) == bool(self.waiting)
        del self.waiting[: len(found)]
        if batch is not None:
            self.held.append(batch)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ack(self, data) -> None:
        self.queue.ack(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def reached_when_nothing_waits(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.reached(self.queue.position()) == (not self.waiting and not self.held)


_SETTINGS = settings(
    max_examples=settings().max_examples * 3 // 5,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestFileLane = DiskQueueMachine.TestCase
TestBoundedFileLane = BoundedDiskQueueMachine.TestCase
TestRefusingFileLane = RefusingDiskQueueMachine.TestCase
TestMemoryLane = MemoryQueueMachine.TestCase
for case in (TestFileLane, TestBoundedFileLane, TestRefusingFileLane, TestMemoryLane):
    case.settings = _SETTINGS


def test_a_checksum_is_of_what_stands_before_it():
    """The format of a line is what the documentation says: anybody can check it."""
    whole = line(3)
    body, _, tail = whole.rpartition(b',"crc":"')
    assert int(tail[:8], 16) == crc32(body)


def test_the_end_of_a_dead_lane_is_known_though_its_last_whole_line_came_late(tmp_path):
    """Lines may stand out of order: a damaged record after them still counts from the greatest
    number (guarantee 2).
    """
    (tmp_path / "events-000001.jsonl").write_bytes(line(1) + line(4) + line(3) + line(2))
    queue = orphan(tmp_path)
    assert numbers(queue.read(1 << 20, 100)) == [1, 4, 3, 2]
    with open(tmp_path / "events-000001.jsonl", "ab") as file:
        file.write(b'{"ts":"2026-01-31 12:00:00.000001","level":"in\n')
    assert numbers(queue.read(1 << 20, 100)) == []
    assert (queue.damaged, queue.last_seen) == (1, 5)
    queue.close()
