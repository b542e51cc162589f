"""The oracle sees every kind of fault: else a row of zeros would prove nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3

import pytest
from oracle import Found, Notes, Promises, check, judge, payload

import structjob


@pytest.fixture
def promises(tmp_path) -> Promises:
    """Three events of a job that ended, the last of which may not have returned."""
    notes = Notes(tmp_path / "a", sync=True)
    notes.session(7)
    notes.job("j")
    notes.step("s")
    for number in (1, 2, 3):
        notes.offer(number, "j")
    notes.returned("a-1")
    notes.returned("a-2")
    notes.ended("j")
    return Promises.read([tmp_path / "a"])


def event(number: int, seq: int | None = None) -> tuple[int, int, str, dict]:
    return 7, seq or number, "j", {**payload(number), "id": f"a-{number}"}


WHOLE = Found(
    events=[event(1), event(2), event(3)], jobs={"j": "completed"}, steps={"s"}, running=0, told=[]
)


def test_what_is_whole_has_no_fault(promises):
    """All that returned is there: nothing to complain of, and what did not return may be there or
    not.
    """
    verdict = judge(promises, WHOLE)
    assert (verdict.offered, verdict.returned, verdict.stored, verdict.faults()) == (3, 2, 3, {})
    verdict = judge(promises, dataclasses.replace(WHOLE, events=WHOLE.events[:2]))
    assert (verdict.offered, verdict.returned, verdict.stored, verdict.faults()) == (3, 2, 2, {})


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"events": [event(1), event(3)]}, {"lost": 1}),
        ({"events": [event(1), event(2), event(2, 9)]}, {"duplicated": 1}),
        (
            {"events": [event(1), (7, 2, "j", {**payload(2), "id": "a-2", "text": "other"})]},
            {"corrupted": 1},
        ),
        ({"events": [event(1), (7, 2, "k", {**payload(2), "id": "a-2"})]}, {"corrupted": 1}),
        ({"events": [*WHOLE.events, event(4)]}, {"unexpected": 1}),
        ({"events": [event(1, 2), event(2, 1)]}, {"disordered": 1}),
        ({"jobs": {}}, {"jobs_lost": 1}),
        ({"jobs": {"j": "running"}, "running": 1}, {"jobs_lost": 1, "left_running": 1}),
        ({"jobs": {"j": "completed", "k": "crashed"}}, {"crashes_untold": 1}),
        ({"told": [("j", {"last_lines": [], "open_steps": []})]}, {"crashes_untold": 1}),
        ({"steps": set()}, {"steps_lost": 1}),
    ],
)
def test_each_fault_has_its_name(promises, change, faults):
    """If a database breaks a promise, the oracle finds it and names the fault."""
    assert judge(promises, dataclasses.replace(WHOLE, **change)).faults() == faults


def test_a_note_that_was_cut_is_no_promise(tmp_path):
    """A program killed in the middle of a note has promised nothing by it."""
    (tmp_path / "a").write_text("offer a-1 j 00\nreturned a-1\noffer a-2 j 0")
    assert Promises.read([tmp_path / "a", tmp_path / "absent"]).offered.keys() == {"a-1"}


async def test_it_reads_what_the_library_wrote(tmp_path, db_path, tracker):
    """Against a real database: what the library stored is whole, and a row that is changed, deleted
    or copied behind its back shows.
    """
    import structlog

    notes = Notes(tmp_path / "a")
    async with tracker.job("produce") as job:
        notes.job(job.id)
        for number in range(1, 21):
            attrs = notes.offer(number, job.id)
            structlog.get_logger().info("offered", **attrs)
            notes.returned(attrs["id"])
    notes.ended(job.id)
    await tracker.flush()
    url = f"sqlite:///{db_path}"
    assert isinstance(tracker, structjob.Tracker)
    verdict = await check(url, [tmp_path / "a"])
    assert (verdict.stored, verdict.faults()) == (20, {})
    with contextlib.closing(sqlite3.connect(db_path)) as connection, connection:
        numbers = [
            row[0]
            for row in connection.execute(
                "SELECT seq FROM structjob_logs WHERE message = 'offered' ORDER BY seq"
            )
        ]
        connection.execute("DELETE FROM structjob_logs WHERE seq = ?", (numbers[4],))
        connection.execute(
            "UPDATE structjob_logs SET attrs = json_set(attrs, '$.nested.list[0]', 0) WHERE seq = ?",
            (numbers[5],),
        )
        connection.execute(
            "INSERT INTO structjob_logs (session_id, seq, ts, stored_at, level, message, attrs, kind, stream, category) "
            "SELECT session_id + 1, seq, ts, stored_at, level, message, attrs, kind, stream, category FROM structjob_logs "
            "WHERE seq = ?",
            (numbers[6],),
        )
    # The copy has no job, so that it is not as it was logged either.
    verdict = await check(url, [tmp_path / "a"])
    assert (verdict.stored, verdict.faults()) == (17, {"lost": 1, "duplicated": 1, "corrupted": 2})
