"""What a recorder keeps outside of its process, what it says of drops, and what it becomes in a
forked child; without forking.
"""

from __future__ import annotations

import faulthandler
import json
import os
import threading

import pytest
from test_capture import make_recorder

from structjob.diagnostics import faults
from structjob.spool.directory import SessionSpool, adopt
from structjob.spool.disk import DiskQueue
from structjob.spool.dropped import Dropped
from structjob.spool.fault_log import FAULT_LOG, FaultLog, read_fault
from structjob.spool.kept import KeptEvents
from structjob.spool.line import seal_event
from structjob.spool.recorder import Recorder
from structjob.spool.tally import Tally

BODY = b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"m","attrs":{}'


@pytest.fixture
def recorder(tmp_path):
    made = make_recorder(tmp_path)
    yield made
    made.close()
    if made.spool is not None:
        made.spool.close()


def refuse(line: bytes, number: int) -> None:
    raise OSError(28, "No space left on device")


def states_of(recorder: Recorder | SessionSpool) -> list[dict]:
    batch = recorder.states.read(1 << 20, 1000)
    return [json.loads(line) for line in batch.lines.splitlines()] if batch is not None else []


def test_what_is_below_the_level_takes_no_number(recorder):
    """faults H: an event below the level leaves nothing, and the engine is woken only if
    it sleeps.
    """
    woken: list[int] = []
    recorder.wake = lambda: woken.append(recorder.numbers.given)
    recorder.put(BODY, 9)
    assert recorder.numbers.given == 0
    recorder.put(BODY, 10)
    recorder.put_all([BODY] * 2, 10)
    assert recorder.put_state("job", lambda: {"id": "a"}) == 1
    assert woken == []
    recorder.idle = True
    recorder.put(BODY, 10)
    recorder.put_all([BODY] * 2, 10)
    assert recorder.put_state("job", lambda: {"id": "a"}) == 2
    assert woken == [4, 6, 6]
    assert faults.counts == {}


def test_how_many_numbers_can_be_in_hands(recorder):
    """faults H: the tally counts one number for each thread that has logged, and those that one
    call takes together.
    """
    tally = recorder.spool.tally
    assert tally.hands == 0
    for thread in [threading.Thread(target=recorder.put, args=(BODY, 10)) for _ in range(2)]:
        thread.start()
        thread.join()
    recorder.put(BODY, 10)
    recorder.put(BODY, 10)
    threads = tally.hands
    assert 2 <= threads <= 3  # an id of a thread that has ended may be another's
    together = threading.Thread(target=recorder.put_all, args=([BODY] * 2, 10))
    recorder._threads.clear()
    recorder._thread = 0
    together.start()
    together.join()
    assert tally.hands == 1
    memory = make_recorder()
    memory.secure()
    memory.close()


def test_what_is_known_in_memory_only_is_marked_until_it_is_not(recorder):
    """faults H: if the process is killed while the disk refuses events, its tally says up to which
    number they are lost; once all is on disk, nothing is.
    """
    tally, append = recorder.spool.tally, recorder._append
    recorder.put(BODY, 10)
    assert tally.at_risk == 0
    recorder._append = refuse
    recorder.put(BODY, 10)
    recorder.put(BODY, 10)
    assert tally.at_risk == 3
    recorder._append = append
    recorder.secure()
    assert tally.at_risk == 3
    assert recorder.leave() == 0
    recorder.secure()
    assert tally.at_risk == 0
    recorder.secure()
    assert tally.at_risk == 0
    batch = recorder.events.read(1 << 20, 10)
    assert [json.loads(line)["seq"] for line in batch.lines.splitlines()] == [1, 2, 3]


def test_drops_become_as_few_rows_as_there_are_runs(recorder):
    """faults H: numbers side by side are one row, with how many of each job's lines it stands for;
    reasons are kept apart.
    """
    recorder.lost.extend([
        Dropped(1, 1, "queue_full", "a"), Dropped(4, 5, "queue_full", "b"), Dropped(2, 2, "queue_full", "a"),
        Dropped(3, 3, "interrupted"), Dropped(7, 7, "queue_full"),
    ])  # fmt: skip
    assert sorted(recorder.account()) == [(1, 2, "queue_full", None), (3, 3, "interrupted", None), (4, 5, "queue_full", None),
                                          (7, 7, "queue_full", None)]  # fmt: skip
    rows = {
        (row["first_seq"], row["last_seq"]): row.get("jobs")
        for row in (state["row"] for state in states_of(recorder))
    }
    assert rows == {(1, 2): {"a": 2}, (4, 5): {"b": 2}, (3, 3): None, (7, 7): None}
    assert recorder.account() == []


def test_a_listener_has_each_line_until_it_is_removed(recorder):
    """faults H: of two listeners, one goes on when the other is removed."""
    first, second = [], []
    take = first.append
    recorder.add_listener(take)
    recorder.add_listener(second.append)
    recorder.put(BODY, 10)
    recorder.remove_listener(take)
    recorder.put(BODY, 10)
    assert (len(first), len(second)) == (1, 2)
    assert recorder.numbers.given == 2


def test_a_forked_child_has_a_session_of_its_own(recorder, tmp_path, caplog):
    """faults H: the first line of a child makes its directory; its drops are recorded under its own
    numbers, not its parent's.
    """
    recorder.put(BODY, 10)
    parent, before, heard = recorder.session.session_id, recorder.spool, []
    recorder._max_bytes, recorder._overflow = 65_536, "drop_newest"
    recorder.after_fork()
    recorder.add_listener(heard.append)
    assert recorder.session.session_id != parent
    assert (recorder.spool, recorder.numbers.given, recorder.idle, recorder.forked) == (
        None,
        0,
        False,
        True,
    )
    # the descriptors are shared with the parent, and with them its locks
    assert before.events.closed
    recorder.put(BODY, 10)
    assert recorder.spool.tally.hands == 1
    recorder.put(BODY, 10)
    assert len(heard) == 2
    while not recorder.lost and not recorder.events.dropped and recorder.numbers.given < 2000:
        recorder.put(BODY, 10)
    recorder._accounted = 0.0
    recorder.put(BODY, 10)
    assert not recorder.events.dropped
    assert recorder.spool.tally.at_risk == 0
    recorder.close()
    recorder.put(BODY, 10)
    assert not [text for text in caplog.messages if "this is a forked process" in text]
    (child,) = [
        spool
        for spool in adopt(tmp_path, {parent})
        if spool.session.session_id == recorder.session.session_id
    ]
    (line, *_) = child.states.read(1 << 20, 100).lines.splitlines()
    assert json.loads(line)["kind"] == "gap"
    assert json.loads(line)["row"]["reason"] == "spool_full"
    child.close()


def test_a_living_child_is_delivered_by_its_parent_meanwhile(recorder, tmp_path):
    """faults H: what a forked child records does not wait for the child's end: its parent can
    deliver it at once, and knows that the child lives.
    """
    parent = recorder.session.session_id
    recorder.after_fork()
    late = recorder.events
    recorder.put(BODY, 10)
    (child,) = adopt(tmp_path, {parent})
    assert child.alive
    assert numbers_of(child) == [1]
    # another thread, or a signal handler, was about to create the directory too
    late.append(seal_event(BODY, 2), 2)
    recorder.take_late(recorder.fallback, seal_event(BODY, 3), 3)
    assert numbers_of(child) == [2, 3]
    descriptors = recorder.spool
    recorder.close()
    assert descriptors.events.closed
    assert child.try_finish()
    child.close()


def test_a_child_that_drops_much_explains_it_in_few_rows(recorder, monkeypatch):
    """faults H: no engine runs in a forked child: it records its drops itself, at most four times a
    second.
    """
    clock = [1000.0]
    monkeypatch.setattr("structjob.spool.recorder.time.monotonic", lambda: clock[0])
    recorder._max_bytes, recorder._overflow = 65_536, "drop_newest"
    recorder.after_fork()
    for _ in range(2000):
        recorder.put(BODY, 10)
    clock[0] += 1
    recorder.put(BODY, 10)
    rows = [state["row"] for state in states_of(recorder)]
    assert len(rows) == 2  # what was dropped at first, and the rest
    assert rows[0]["last_seq"] + 1 == rows[1]["first_seq"]
    assert rows[1]["last_seq"] == 2001


def test_a_child_whose_first_record_is_a_change_of_state(recorder, tmp_path):
    """faults H: its directory exists when the call returns, and the change is in it."""
    parent = recorder.session.session_id
    recorder.after_fork()
    recorder.put_state("job", lambda: {"id": "a"})
    (child,) = adopt(tmp_path, {parent})
    assert [state["row"] for state in states_of(child)] == [{"id": "a"}]
    child.close()


def test_a_forked_child_of_a_tracker_in_memory_records_nothing(caplog):
    """faults H: there is nothing by which its parent could take what it records: it says
    so, once.
    """
    memory = make_recorder()
    memory.after_fork()
    assert memory.closed
    memory.put(BODY, 10)
    memory.put(BODY, 10)
    assert memory.put_state("job", lambda: {"id": "a"}) == 0
    assert memory.rejected.given == 3
    (said,) = [text for text in caplog.messages if not text.startswith("forked:")]
    assert "this is a forked process" in said
    memory.close()


def test_a_tracker_in_memory_that_was_closed_says_nothing_of_forks(caplog):
    """faults H: an event that comes too late is counted, as with a spool."""
    memory = make_recorder()
    memory.close()
    memory.put(BODY, 10)
    assert memory.rejected.given == 1
    assert caplog.messages == []


def test_a_recorder_that_was_closed_stays_so_in_a_child(recorder):
    """faults H: a fork after the end of a tracker begins no session, and says nothing of forks."""
    recorder.close()
    session = recorder.session
    recorder.after_fork()
    assert recorder.session is session
    assert not recorder.forked


def test_what_comes_while_a_child_makes_its_directory_is_written_then(recorder, tmp_path):
    """faults H: a thread that logs while another makes the directory, or a signal handler in the
    middle of it, loses nothing.
    """
    recorder.after_fork()
    with recorder._opening:
        recorder.put(BODY, 10)
        recorder.put_state("job", lambda: {"id": "a"})
        assert recorder.spool is None
    recorder.put(BODY, 10)
    recorder.close()
    (child,) = [
        spool
        for spool in adopt(tmp_path, set())
        if spool.session.session_id == recorder.session.session_id
    ]
    assert [
        json.loads(line)["seq"] for line in child.events.read(1 << 20, 100).lines.splitlines()
    ] == [1, 2]
    assert [
        json.loads(line)["row"] for line in child.states.read(1 << 20, 100).lines.splitlines()
    ] == [{"id": "a"}]
    child.close()


def test_a_child_whose_disk_refuses_its_first_line_says_so(recorder, monkeypatch, caplog):
    """faults H: the directory could be made, and its disk is full then: a warning says so, and if
    the child is killed, its tally says up to which number the events are lost.
    """
    recorder.after_fork()
    with monkeypatch.context() as patch:
        patch.setattr(DiskQueue, "append", lambda self, line, number: refuse(line, number))
        recorder.put(BODY, 10)
    assert recorder.spool.tally.at_risk == 1
    assert "No space left on device; events wait in memory" in caplog.text
    recorder.put(BODY, 10)
    assert numbers_of(recorder) == [2, 1]
    assert recorder.spool.tally.at_risk == 0


def test_what_the_disk_refuses_to_the_end_is_given_up_by_its_numbers(recorder, monkeypatch):
    """faults H: what memory holds when the tracker closes is named, one by one, if the disk still
    takes nothing.
    """
    recorder._append = refuse
    for _ in range(3):
        recorder.put(BODY, 10)
    monkeypatch.setattr(recorder.events, "append", refuse)
    assert recorder.leave() == 3
    assert sorted(recorder.fallback.dropped) == [
        (number, number, "disk_refused", None) for number in (1, 2, 3)
    ]


def test_an_event_that_memory_does_not_suffice_for_is_accounted_for(recorder, monkeypatch):
    """faults H: a number that was given out and not used is explained, and the tally knows of it
    until then.
    """

    def fail(_: bytes) -> int:
        raise MemoryError

    memory = make_recorder()
    with monkeypatch.context() as patch:
        patch.setattr("structjob.spool.recorder.crc32", fail)
        patch.setattr("structjob.spool.line.crc32", fail)
        recorder.put(BODY, 10)
        recorder.put_all([BODY] * 3, 10)
        memory.put(BODY, 10)  # it has no tally
    assert list(recorder.lost) == [(1, 1, "interrupted", None), (2, 4, "interrupted", None)]
    assert list(memory.lost) == [(1, 1, "interrupted", None)]
    assert recorder.broken_off.given == 0
    assert recorder.spool.tally.at_risk == 4
    memory.close()


def test_an_event_refused_while_the_mark_is_cleared_is_marked(recorder, monkeypatch):
    """faults H: another thread keeps an event in memory at the moment in which the tally says that
    nothing is there: the tally says in the end that it is.
    """
    tally, mark = recorder.spool.tally, Tally.mark
    tally.risk(1)

    def cleared(self: Tally, number: int) -> None:
        if number == 0:
            recorder._append = refuse
            recorder.put(BODY, 10)
        mark(self, number)

    monkeypatch.setattr(Tally, "mark", cleared)
    recorder.secure()
    assert tally.at_risk == 1


def test_what_waited_in_memory_counts_as_confirmed_too(recorder):
    """faults H: events that the disk refused are stored from memory: the tally of a process that is
    killed afterwards says that the database has them.
    """
    recorder._append = refuse
    recorder.put(BODY, 10)
    batch = recorder.fallback.read(1 << 20, 10)
    recorder.fallback.ack(batch, batch.count)
    assert recorder.spool.tally.confirmed == 1


def test_a_full_disk_is_named_once(recorder, caplog):
    """faults H: the warning says which directory, why, and what happens to the events."""
    recorder._append = refuse
    recorder.put(BODY, 10)
    recorder.put(BODY, 10)
    assert caplog.messages == [
        f"cannot write to the spool {recorder.root}: No space left on device; events wait in memory (at most 10000)"
    ]


def test_what_leaves_memory_late_is_dropped_under_its_own_number(tmp_path):
    """faults H: the disk takes writes again at the end, and the limit is reached: the gap names the
    events, and the order stays.
    """
    recorder = make_recorder(tmp_path, max_bytes=4096, overflow="drop_newest")
    while not recorder.events.dropped:
        recorder.put(BODY, 10)
    last = recorder.numbers.given
    recorder._append = refuse
    recorder.put(BODY, 10)
    recorder.put(BODY, 10)
    assert recorder.leave() == 0
    assert [drop.first for drop in recorder.events.dropped] == [last, last + 1, last + 2]
    recorder.close()
    recorder.spool.close()


def test_a_disk_that_refuses_again_gets_no_change_of_state_before_the_events(recorder, monkeypatch):
    """faults H: the events of a child that wait in memory are written before the changes of state:
    while the disk refuses the one, the other waits.
    """
    recorder.after_fork()
    recorder.put(BODY, 10)
    recorder.fallback.append(seal_event(BODY, 2), 2)
    recorder.fallback_states.append(b"{}\n", 1)
    with monkeypatch.context() as patch:
        patch.setattr(recorder.events, "append", refuse)
        recorder.catch_up()
        assert recorder.states.read(1 << 20, 10) is None
    recorder.catch_up()
    assert recorder.states.read(1 << 20, 10).lines == b"{}\n"


def test_debug_events_of_a_job_that_succeeded_are_discarded(recorder):
    """R33: only a failure records what was kept below the level."""
    recorder.kept = KeptEvents(10)
    body = BODY + b',"job_id":"a"'
    for failed in (False, True):
        recorder.kept.begin("a")
        recorder.put(body, 5)
        recorder.end_kept("a", failed=failed)
        assert recorder.numbers.given == failed


def test_only_jobs_that_run_here_have_kept_events(recorder):
    """R33: an event of a job of another tracker, or of none, is not kept, and that is no fault."""
    recorder.kept = KeptEvents(10)
    recorder.kept.begin("a")
    for owner in (b"", b',"job_id":"b"'):
        recorder.put(BODY + owner, 5)
    recorder.end_kept("b", failed=True)
    recorder.end_kept("a", failed=True)
    assert recorder.numbers.given == 0
    assert faults.counts == {}


def test_python_says_why_it_died_in_the_directory_of_an_open_session(recorder, tmp_path):
    """faults H: the log of the `faulthandler` is in the directory of the oldest session, and in the
    next one's when that one closes.
    """
    other = make_recorder(tmp_path)
    enabled = faulthandler.is_enabled()
    faulthandler.disable()
    try:
        assert not list(tmp_path.glob("*/fault.log"))  # it has not been asked for yet
        FAULT_LOG.start()
        restore = FAULT_LOG.isolate()
        assert not faulthandler.is_enabled()
        restore()
        assert faulthandler.is_enabled()
        assert [path.parent for path in tmp_path.glob("*/fault.log")] == [recorder.spool.directory]
        recorder.close()
        assert (other.spool.directory / "fault.log").exists()
        other.close()
        assert not faulthandler.is_enabled()
        FAULT_LOG.stop()
        FAULT_LOG.add(tmp_path)
        assert not faulthandler.is_enabled()
        FAULT_LOG.remove(tmp_path)
        unasked = FaultLog()
        unasked.add(tmp_path)
        assert not faulthandler.is_enabled()
    finally:
        FAULT_LOG.stop()
        if enabled:
            faulthandler.enable()
    other.spool.close()


def test_the_log_of_a_process_that_the_faulthandler_has_not_seen_die_says_nothing(tmp_path):
    """faults H: each session has an empty log; a crash by ``kill -9`` has no reason."""
    assert read_fault(tmp_path) is None
    (tmp_path / "fault.log").write_text("\n")
    assert read_fault(tmp_path) is None


def test_the_stack_of_a_crash_is_that_of_the_thread_that_died(tmp_path):
    """faults H: of the last dump, if there are several; the others are in the log only."""
    first = "Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n  old\n\n"
    others = "Thread 0x2 (most recent call first):\n  other\n\n"
    last = "Current thread 0x3 (most recent call first):\n  here"
    rest = "\n\nExtension modules: a, b (total: 2)"
    text = f"{first}Fatal Python error: Segmentation fault\n\n{others}{last}{rest}"
    (tmp_path / "fault.log").write_text(text)
    found = read_fault(tmp_path)
    assert found.reason == "Segmentation fault"
    assert found.stack == f"Fatal Python error: Segmentation fault\n\n{last}"
    assert found.log == text


def test_a_log_of_the_faulthandler_without_a_thread_is_shown_whole(tmp_path):
    """faults H: what cannot be told apart is not cut."""
    (tmp_path / "fault.log").write_text("Fatal Python error: Aborted\n\nsomething else\n")
    found = read_fault(tmp_path)
    assert (found.reason, found.stack) == ("Aborted", found.log)
    assert found.log.endswith("something else")


def test_the_policy_of_a_full_spool_can_be_asked_for(recorder):
    """faults H: the warning about drops names the policy."""
    assert recorder.overflow == "drop_oldest"


@pytest.mark.parametrize("row", [{"id": "job-4711"}, {"job_id": "job-4711"}])
def test_a_change_of_state_that_comes_too_late_is_named(recorder, caplog, row):
    """faults H: what is recorded after the tracker was closed is counted, and the warning says
    whose it was.
    """
    recorder.close()
    assert recorder.put_state("job", lambda: row) == 0
    assert recorder.rejected.given == 1
    assert "job job-4711" in caplog.text


def numbers_of(recorder: Recorder | SessionSpool) -> list[int]:
    batch = recorder.events.read(1 << 20, 1000)
    return [] if batch is None else [json.loads(line)["seq"] for line in batch.lines.splitlines()]


def test_events_recorded_together_take_one_write(recorder, monkeypatch):
    """R31: lines that were read together are on disk before the call returns, by one write; while
    it runs, the tally knows how many numbers are given out and not written.
    """
    recorder.put(BODY, 10)
    threads, writes, hands, heard = recorder.spool.tally.hands, [], [], []
    write = os.write

    def watched(fd: int, data: bytes) -> int:
        writes.append(data)
        hands.append(recorder.spool.tally.hands)
        return write(fd, data)

    recorder.add_listener(heard.append)
    with monkeypatch.context() as patch:
        patch.setattr("structjob.spool.disk.os.write", watched)
        recorder.put_all([BODY] * 5, 10)
        recorder.put_all([BODY] * 5, 9)  # below the level
    assert numbers_of(recorder) == [1, 2, 3, 4, 5, 6]
    assert len(writes) == 1
    assert hands == [threads + 5]
    assert recorder.spool.tally.hands == threads
    assert b"".join(heard) == writes[0]


@pytest.mark.parametrize("taken", [0, 1, 2.5, 3])
def test_a_full_disk_takes_some_of_the_events_recorded_together(recorder, monkeypatch, taken):
    """faults H: of events that are written together, a full disk takes some whole, and one in part:
    what it did not take waits in memory, each event once.
    """
    write, refused = os.write, []

    def full(fd: int, data: bytes) -> int:
        if refused or not taken:
            refused.append(data)
            raise OSError(28, "No space left on device")
        refused.append(b"")
        return write(fd, data[: int(len(data) // 4 * taken)])

    with monkeypatch.context() as patch:
        patch.setattr("structjob.spool.disk.os.write", full)
        recorder.put_all([BODY] * 4, 10)
        on_disk = numbers_of(recorder)
    assert on_disk == list(range(1, int(taken) + 1))
    in_memory = [number for number, _ in iter(recorder.fallback.take, None)]
    assert on_disk + in_memory == [1, 2, 3, 4]
    assert recorder.broken_off.given == 0
    assert recorder.spool.tally.at_risk == 4


@pytest.mark.parametrize("way", ["closed", "memory", "no room"])
def test_events_recorded_together_follow_the_rules_of_single_ones(tmp_path, way):
    """faults H: without a spool, when closed, and beyond the limit, they are kept, refused and
    dropped one by one, and counted.
    """
    recorder = make_recorder(
        None if way == "memory" else tmp_path,
        queue_size=3,
        **({"max_bytes": 4096, "overflow": "drop_newest"} if way == "no room" else {}),
    )
    if way == "closed":
        recorder.close()
    for _ in range(100):
        recorder.put_all([BODY] * 2, 10)
    if way == "closed":
        assert (recorder.rejected.given, recorder.numbers.given) == (200, 0)
    else:
        kept = numbers_of(recorder)
        dropped = [
            number
            for event in recorder.events.dropped
            for number in range(event.first, event.last + 1)
        ]
        assert sorted(kept + dropped) == list(range(1, 201))
        assert kept
        assert dropped
    recorder.close()


@pytest.mark.parametrize("at", ["numbers", "seal_event", "write"])
def test_an_interruption_of_events_recorded_together_is_accounted_for(recorder, monkeypatch, at):
    """faults H: a signal handler that raises in between: the numbers given out are explained."""

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "numbers":
            patch.setattr(recorder.numbers, "several", interrupt)
        elif at == "write":
            patch.setattr(recorder.events, "append_all", interrupt)
        else:
            patch.setattr("structjob.spool.recorder.seal_event", interrupt)
        with pytest.raises(KeyboardInterrupt):
            recorder.put_all([BODY] * 3, 10)
    if at == "seal_event":
        assert list(recorder.lost) == [(1, 3, "interrupted", None)]
    else:
        assert recorder.broken_off.given == 3
    recorder.put_all([BODY] * 2, 10)
    assert numbers_of(recorder) == ([1, 2] if at == "numbers" else [4, 5])


def confirmed_in(directory) -> int:
    tally = Tally.open(directory)
    found = tally.confirmed
    tally.close()
    return found


def test_a_process_killed_while_it_deletes_has_confirmed_its_events_or_not(tmp_path):
    """faults 0.1: the events of a stored file are confirmed when the file is gone: a process that
    is killed in between leaves them to its successor, which finds and confirms them once.
    """
    tally, file = Tally.create(tmp_path), tmp_path / "events-000001.jsonl"
    tally.confirm(2)
    file.touch()
    tally.confirm(5, 1)
    assert confirmed_in(tmp_path) == 2
    file.unlink()
    assert confirmed_in(tmp_path) == 7
    tally.close()


def test_a_lower_number_takes_no_higher_one_back(tmp_path):
    """faults 0.1: threads record that their events are in memory only, in any order."""
    tally = Tally.create(tmp_path)
    tally.risk(5)
    tally.risk(3)
    assert tally.at_risk == 5
    before = len(os.listdir("/proc/self/fd"))
    tally.close()
    tally.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
