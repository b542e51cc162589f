"""What is said of sessions whose process is gone: which of their events are missing, why, and what
it looks like.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_store import faulty

import structjob
from structjob.engine.adopted import AdoptedSpools
from structjob.exceptions import SpoolError, StoreUnavailable
from structjob.spool.directory import SessionSpool, adopt, set_aside
from structjob.spool.line import seal
from structjob.spool.places import Places
from structjob.spool.session import Session

__all__ = ["faulty"]


def event(number: int, message: str = "left") -> bytes:
    return seal(
        b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"%s","attrs":{}'
        % message.encode(),
        b',"seq":%d' % number,
    )


def died(
    root: Path, *numbers: int, before: Callable[[SessionSpool], object] = lambda spool: None
) -> int:
    """Leave the spool of a process that was killed after it wrote these events; return
    its session.
    """
    spool = SessionSpool.create(root, Session(host="mars", pid=4711))
    for number in numbers:
        spool.events.append(event(number), number)
    before(spool)
    spool.close()
    return spool.session.session_id


def damage(spool: SessionSpool) -> None:
    """Change a byte of the second event, and add a state that cannot be read."""
    (spool.directory / "states-000001.jsonl").write_bytes(b"no state\n")
    path = spool.directory / "events-000001.jsonl"
    path.write_bytes(
        path.read_bytes().replace(b'"left"', b'"lost"', 2).replace(b'"lost"', b'"left"', 1)
    )


CASES = {
    # What is left, and before the death: last number, explained (reason), missing; what is said of
    # it.
    "complete": ((1, 2, 3), lambda spool: spool.tally.hold(1), 3, {}, 0, ""),
    "in the hands of a thread": ((1, 2, 4, 6), lambda spool: spool.tally.hold(2), 6, {"in_flight": 2}, 0, ""),
    "more than in the hands of threads": ((1, 2, 4, 6), lambda spool: spool.tally.hold(1), 6, {}, 2, "a part of the spool was lost"),
    "known in memory only": (
        (1, 2, 3), lambda spool: (spool.tally.hold(9), spool.tally.risk(5)), 5, {}, 2, "the process ended while its disk refused",
    ),
    "no tally": ((1, 3), lambda spool: (spool.directory / "tally").unlink(), 3, {}, 1, "a part of the spool was lost"),
    "nothing, and no tally": ((), lambda spool: (spool.directory / "tally").unlink(), 0, {}, 0, ""),
    "damaged": ((1, 2, 3), damage, 3, {"damaged": 1}, 0, ""),
    "damaged once": ((1,), lambda spool: (spool.directory / "states-000001.jsonl").write_bytes(b"no state\n"), 1, {}, 0, ""),
    "restored": ((4,), lambda spool: spool.tally.confirm(3), 4, {}, 3, "the database holds 3 events fewer than it had confirmed"),
    "confirmed, and there is no hole": ((1, 2), lambda spool: spool.tally.confirm(7), 2, {}, 0, ""),
}  # fmt: skip


async def test_what_became_of_the_events_of_a_dead_process(db_path, db_url, caplog):
    """faults H: what was in the hands of threads or damaged is explained; what is lost is counted,
    and what it looks like is said.
    """
    root = db_path.with_name(db_path.name + ".spool")
    root.mkdir(mode=0o700)
    left = {
        died(root, *numbers, before=before): name for name, (numbers, before, *_) in CASES.items()
    }
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url, spool=root) as tracker:
        await tracker.flush()
        verified = {left.get(one.session_id): one for one in (await tracker.verify()).sessions}
    with contextlib.closing(sqlite3.connect(db_path)) as connection:
        gaps = connection.execute(
            "SELECT session_id, reason, SUM(last_seq - first_seq + 1) FROM structjob_gaps GROUP BY 1, 2"
        ).fetchall()
    warned = [record.getMessage() for record in caplog.records]
    for number, name in left.items():
        _, _, last, explained, missing, said = CASES[name]
        assert verified[name].last_seq == last, name
        assert verified[name].missing == missing, name
        assert {
            reason: count for session, reason, count in gaps if session == number
        } == explained, name
        mine = [text for text in warned if f"session {number} (pid 4711 on mars)" in text]
        assert [f"lost {missing} event" in text and said in text for text in mine] == [True] * bool(
            said
        ), name
    said = [text.split(";")[0] for text in warned if "damaged" in text]
    held = {"damaged": "2 damaged records", "damaged once": "1 damaged record"}
    assert sorted(said) == sorted(
        f"the spool of session {number} held {held[name]}"
        for number, name in left.items()
        if name in held
    )
    assert not list(root.iterdir())


@pytest.mark.parametrize(
    ("before", "reason"), [(SessionSpool.mark_closed, "closed"), (lambda spool: None, "died")]
)
async def test_a_process_that_exited_in_the_normal_way_has_not_died(
    db_path, db_url, before, reason
):
    """faults H: what it could not deliver is delivered, and its session says how it ended."""
    root = db_path.with_name(db_path.name + ".spool")
    number = died(root, 1, 2, before=before)
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        session = await tracker.sessions.get(number)
        assert (session.end_reason, session.last_seq) == (reason, 2)
        assert len(await tracker.logs.list(text="left")) == 2


async def test_a_session_whose_end_the_database_refuses_is_set_aside(
    db_path, db_url, faulty, caplog
):
    """faults H: its events are stored, its directory stays with the reason, and the tracker goes
    on.
    """
    number = died(db_path.with_name(db_path.name + ".spool"), 1, 2)

    async def end_session(session, ending, *notices):
        if session.session_id == number:
            raise StoreUnavailable("an odd session", refused=True)
        return await faulty.store.end_session(session, ending, *notices)

    faulty.end_session = end_session
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        assert len(await tracker.logs.list(text="left")) == 2
        async with asyncio.timeout(30):
            while number in tracker._engine._adopted:
                await asyncio.sleep(0.01)
    assert (
        "an odd session"
        in set_aside(db_path.with_name(db_path.name + ".spool") / str(number)).reason
    )
    assert len([text for text in caplog.messages if "set aside" in text]) == 1
    assert "delivering events failed" not in caplog.text


class Answers:
    """Stands for the link to a database, and for the tracker's own feed and recorder: keeps what is
    asked of it.
    """

    def __init__(self, root: Path, *answers: object) -> None:
        self.answers = list(answers)
        self.beats: list[tuple[int, int]] = []
        self.found = 0
        self.pauses: list[float] = []
        self.session = Session()
        self.masked_url = "sqlite:there.db"
        self.store = self
        self.root, self.places = root, Places("there", (root,))

    async def until_answered(self, call):
        return await call()

    async def heartbeat(self, number: int, given: int) -> None:
        self.beats.append((number, given))

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def call(self) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def orphans(self) -> AdoptedSpools:
        def found() -> None:
            self.found += 1

        return AdoptedSpools(self.session, self.places, self.root, self, found)


@pytest.mark.parametrize(
    ("answers", "result", "reason"),
    [
        ((5,), 5, None),
        ((RuntimeError("once"), RuntimeError("twice"), 5), 5, None),
        (
            (RuntimeError("once"), RuntimeError("twice"), RuntimeError("a bug")),
            None,
            "RuntimeError: a bug",
        ),
        ((RuntimeError("once"), SpoolError("no form")), None, "no form"),
        (
            (StoreUnavailable("too long for its column", refused=True),),
            None,
            "too long for its column",
        ),
    ],
)
async def test_how_often_a_directory_is_tried(
    tmp_path, monkeypatch, caplog, answers, result, reason
):
    """faults H: what the database refuses in so many words is set aside at once, anything else
    after three attempts; in between the connection is tried, and the tracker's own session beats.
    """
    number = died(tmp_path, 1)
    given = Answers(tmp_path, *answers, *[SpoolError("no form")] * (3 - len(answers)))
    monkeypatch.setattr("structjob.engine.adopted.asyncio", given)
    orphans = given.orphans()
    orphans.look()
    (feed,) = orphans
    assert given.found == 1
    assert await orphans.attempt(feed, given.call) == result
    tried = 3 - len(given.answers)
    assert tried == (1 if len(answers) == 1 else 3)
    assert given.beats == [(given.session.session_id, 0)] * (tried - 1)
    assert given.pauses == [0.1, 0.2][: tried - 1]
    assert (number in orphans) == (len(orphans) == 1) == (not feed.ended) == (result == 5)
    note = set_aside(tmp_path / str(number))
    if reason is None:
        assert note is None
        assert not caplog.messages
    else:
        assert note.reason == f"sqlite:there.db does not take what is in it: {reason}"
        assert note.reason in caplog.text
        assert given.found == 2
    orphans.close()
    adopted = adopt(tmp_path, set())
    assert len(adopted) == (reason is None)
    for spool in adopted:
        spool.close()


async def test_while_the_database_is_away_a_directory_waits(tmp_path):
    """faults H: a database that does not answer is no reason to set anything aside."""
    number = died(tmp_path, 1)
    given = Answers(tmp_path, StoreUnavailable("away"))
    orphans = given.orphans()
    orphans.look()
    (feed,) = orphans
    with pytest.raises(StoreUnavailable):
        await orphans.attempt(feed, given.call)
    assert number in orphans
    assert set_aside(tmp_path / str(number)) is None
    orphans.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE])
def test_a_directory_that_cannot_be_read_is_left_to_others(tmp_path, monkeypatch, caplog, code):
    """faults H: where the disk is at fault a note keeps every process from it for a while; where
    only this one has no descriptor left, the next process takes it at once, and this one leaves it
    alone.
    """
    number = died(tmp_path, 1)
    given = Answers(tmp_path)
    orphans = given.orphans()
    orphans.look()
    (feed,) = orphans

    def fail() -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(feed.spool.events, "done", fail)
    assert orphans.next_over() is None
    assert len(orphans) == 0
    assert feed.ended
    note = set_aside(feed.spool.directory)
    assert (note is not None) == (code == errno.EIO)
    assert note is None or note.reason == f"it cannot be read: {os.strerror(code)}"
    orphans.set_aside(feed, "by the other writer, at the same moment")
    (said,) = caplog.messages
    assert f"{tmp_path}/{number}" in said
    assert os.strerror(code) in said
    orphans.look()
    assert len(orphans) == 0
    if code == errno.EIO:
        # as `structjob doctor` advises once the disk works
        set_aside(feed.spool.directory).note.unlink()
        orphans.look()
        assert number in orphans
        orphans.set_aside(*orphans, "once more")
        assert caplog.messages == [said]
    else:
        (taken,) = adopt(tmp_path, set())
        taken.close()
    orphans.close()


def test_a_process_that_ends_is_seen(tmp_path):
    """faults H: a forked child's directory is over when the child has ended and all it wrote is
    stored, and not before.
    """
    child = SessionSpool.create(tmp_path, Session(), deliver=False)
    child.events.append(event(1), 1)
    given = Answers(tmp_path)
    orphans = given.orphans()
    orphans.look()
    (feed,) = orphans
    _, batch = feed.read(10, states=True)
    batch.queue.ack(batch)
    assert orphans.next_over() is None
    child.close()
    assert orphans.next_over() is None  # it has not looked yet
    orphans.look()
    assert orphans.next_over() is feed
    orphans.close()


def test_nothing_is_looked_for_without_a_spool(tmp_path, monkeypatch):
    """faults H: a tracker in memory takes nothing over, wherever it runs, and a forked child leaves
    everything to its parent.
    """
    died(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    memory, child = Answers(tmp_path), Answers(tmp_path)
    memory.root = memory.places = None
    for given in (memory, child):
        orphans = given.orphans()
        if given is child:
            orphans._pid = os.getppid()
        orphans.look()
        orphans.search()
        assert len(orphans) == given.found == 0


def test_what_a_process_left_unfinished_is_swept_away(tmp_path):
    """faults H: the directory of a process that ended while it made it goes."""
    given = Answers(tmp_path)
    unfinished = tmp_path / ".4711"
    unfinished.mkdir()
    os.utime(unfinished, (0, 0))
    given.orphans().search()
    assert not unfinished.exists()


def test_what_is_elsewhere_is_taken_over(tmp_path):
    """faults H: the spool of an earlier version under another name is delivered; if nothing is
    left, no writer is woken.
    """
    number = died(tmp_path / "former", 1)
    (tmp_path / "present").mkdir(mode=0o700)
    given = Answers(tmp_path / "present")
    given.places = Places("there", (tmp_path / "present",), former=(tmp_path / "former",))
    orphans = given.orphans()
    orphans.look()
    assert len(orphans) == given.found == 0
    orphans.search()
    assert [feed.session.session_id for feed in orphans] == [number]
    assert given.found == 1
    orphans.close()


@pytest.mark.parametrize("asked", [True, False])
def test_what_was_for_another_database_is_told_of_where_it_can_be_there(tmp_path, caplog, asked):
    """faults H: in a directory that several programs were given, a spool may be for another
    database; one's own is for one only.
    """
    spool = SessionSpool.create(tmp_path, Session(database="sqlite:elsewhere.db"))
    spool.close()
    given = Answers(tmp_path)
    given.places = Places("sqlite:here.db", (tmp_path,), asked=asked)
    orphans = given.orphans()
    orphans.look()
    assert len(orphans) == 1
    assert [
        "logged to sqlite:elsewhere.db; it is delivered to sqlite:here.db" in text
        for text in caplog.messages
    ] == [True] * asked
    orphans.close()
