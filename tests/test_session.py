"""Sessions on disk: who may deliver them, how the living are told from the dead, and what is no
session at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_store import faulty
from sink_support import Looking
from sqlalchemy import select

import structjob
from structjob.exceptions import SpoolError, StoreUnavailable
from structjob.spool import directory as spool_directory
from structjob.spool.directory import SessionSpool, adopt
from structjob.spool.line import seal, seal_state
from structjob.spool.places import Places
from structjob.spool.session import Session
from structjob.store.tables import gaps

__all__ = ["faulty"]

LINE = seal(
    b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"left","attrs":{}', b',"seq":1'
)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def left_behind(root: Path, session: Session | None = None) -> Path:
    """Make the directory of a session whose process is gone."""
    spool = SessionSpool.create(root, session or Session())
    spool.events.append(LINE, 1)
    spool.close()
    return spool.directory


def close_all(spools: list[SessionSpool]) -> list[int]:
    for spool in spools:
        spool.close()
    return [spool.session.session_id for spool in spools]


def test_a_session_id_is_one_that_javascript_can_hold():
    """Ids are positive, distinct, and below 2**53 (tables)."""
    ids = {Session().session_id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(0 < number < 2**53 for number in ids)


def test_a_living_session_is_not_taken_over(root):
    """As long as its process delivers it, nobody else does; afterwards anybody, once
    (guarantee 1).
    """
    spool = SessionSpool.create(root, Session())
    assert adopt(root, set()) == []
    spool.close()
    (adopted,) = adopt(root, set())
    assert not adopted.alive
    assert adopt(root, set()) == []
    adopted.remove()
    assert not list(root.iterdir())


def test_what_a_living_writer_left_to_others_is_delivered_and_not_ended(root):
    """A session without a deliverer whose writer lives (a forked child) is delivered; it ends with
    the writer (guarantee 1).
    """
    spool = SessionSpool.create(root, Session(), deliver=False)
    (adopted,) = adopt(root, set())
    assert adopted.alive
    assert not adopted.try_finish()
    spool.close()
    assert adopted.try_finish()
    adopted.close()


def test_known_sessions_are_left_alone(root):
    """A process does not take over what it took over before."""
    directory = left_behind(root)
    assert adopt(root, {int(directory.name)}) == []


def test_what_is_no_session_is_ignored(root, tmp_path):
    """Foreign files, links, pipes and directories in the spool are neither followed nor fatal, and
    the session beside them is found.
    """
    directory = left_behind(root)
    elsewhere = tmp_path / "elsewhere"
    outside = left_behind(elsewhere)
    (root / "README").write_text("hello")
    (root / "123").write_text("a file with a number for its name")
    (root / "empty").mkdir()
    (root / "456").mkdir()
    (root / "0789").mkdir()
    (root / str(2**60)).mkdir()
    (root / ("9" * 200)).mkdir()
    (root / outside.name).symlink_to(outside)
    (root / "77").symlink_to(root / "77")
    for number, name in (
        (1001, "session.json"),
        (1002, "deliver"),
        (1003, "alive"),
        (1004, "events-000001.jsonl"),
    ):
        (root / str(number)).mkdir()
        os.mkfifo(root / str(number) / name)
    (root / "1005").mkdir()
    (root / "1005" / "session.json").symlink_to(outside / "session.json")
    (root / "1006").mkdir()
    (root / "1006" / "events-000001.jsonl").symlink_to(outside / "events-000001.jsonl")
    (root / "1007").mkdir()
    (root / "1007" / "events-000001.jsonl").mkdir()
    assert close_all(adopt(root, set())) == [int(directory.name)]
    assert (outside / "events-000001.jsonl").read_bytes() == LINE


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"session_id": 5}', os.urandom(100_000)]
)
def test_events_without_a_readable_session_file_are_still_delivered(root, content):
    """The directory's name says whose the events are: a file that a power cut emptied costs the
    name of the host only (guarantee 1).
    """
    directory = left_behind(root)
    (directory / "session.json").write_bytes(content)
    (adopted,) = adopt(root, set())
    assert adopted.session.session_id == int(directory.name)
    assert adopted.session.host == "unknown"
    adopted.close()
    (directory / "session.json").unlink()
    assert close_all(adopt(root, set())) == [int(directory.name)]


def test_a_copied_directory_keeps_to_its_name(root):
    """A session file that names another session is not believed: two directories would fill one
    session.
    """
    directory = left_behind(root)
    content = json.loads((directory / "session.json").read_bytes()) | {"session_id": 12345}
    (directory / "session.json").write_text(json.dumps(content))
    assert close_all(adopt(root, set())) == [int(directory.name)]


def test_a_restored_directory_without_lock_files_is_delivered(root):
    """Backups may leave empty files out; nobody holds a lock that is not there."""
    directory = left_behind(root)
    (directory / "alive").unlink()
    (directory / "deliver").unlink()
    (adopted,) = adopt(root, set())
    assert not adopted.alive
    adopted.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a directory away")
def test_another_users_directory_is_left_alone(root):
    """What another user put there is not delivered in one's own name."""
    directory = left_behind(root)
    os.chown(directory, 12345, 12345)
    assert adopt(root, set()) == []


def test_a_directory_that_was_being_made_is_swept_away_later(root):
    """A process killed while it made or deleted a directory leaves nothing for ever; one that is at
    it now is not disturbed.
    """
    spool = SessionSpool.create(root, Session())
    for name, age in ((".111", 3600), (".222", 0)):
        (root / name).mkdir()
        (root / name / "events-000001.jsonl").write_bytes(LINE)
        os.utime(root / name, (os.stat(root).st_mtime - age,) * 2)
    spool_directory.sweep(root)
    assert sorted(entry.name for entry in root.iterdir()) == sorted(
        [".222", str(spool.session.session_id)]
    )
    spool.close()


def test_a_directory_that_cannot_be_made_leaves_nothing_and_can_be_tried_again(root, monkeypatch):
    """A full disk at the start is a clear error, leaks no descriptor and no directory, and the next
    attempt works.
    """
    session = Session()
    before = os.listdir("/proc/self/fd")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool_directory.msgspec.json, "encode", refuse)
        with pytest.raises(
            SpoolError,
            match=r"cannot write to the spool directory .*No space left on device; make room on its disk, or choose another",
        ):
            SessionSpool.create(root, session)
    assert os.listdir("/proc/self/fd") == before
    assert not list(root.iterdir())
    SessionSpool.create(root, session).remove()


def test_a_lock_that_is_free_on_a_network_file_system_proves_nothing(root, monkeypatch):
    """Another host's lock may be invisible there: nothing is taken over, the heartbeat decides."""
    left_behind(root)
    monkeypatch.setattr(spool_directory, "is_network", lambda path: True)
    assert adopt(root, set()) == []


def test_what_is_left_for_a_database_is_found_wherever_it_is(tmp_path):
    """faults H: all of its own directories, and of those beside them what says that it is for this
    database; not what is for others.
    """
    own, former, shelf = tmp_path / "own", tmp_path / "former", tmp_path / "shelf"
    shelf.mkdir(mode=0o700)
    left = {
        name: left_behind(root, Session(database=database))
        for name, root, database in (
            ("own", own, None), ("former", former, "there"), ("beside", shelf / "a", "here"), ("other", shelf / "b", "there"),
            ("unknown", shelf / "c", None),
        )
    }  # fmt: skip
    places = Places("here", (own,), former=(former,), shelves=(shelf,))
    assert sorted(spool_directory.left_in(places)) == sorted(
        left[name] for name in ("own", "former", "beside")
    )
    assert [
        (path, size > 0) for path, size in spool_directory.waiting([left["own"], tmp_path / "gone"])
    ] == [(left["own"], True)]
    taken = spool_directory.adopt_elsewhere(places, own, {int(left["former"].name)})
    assert close_all(taken) == [int(left["beside"].name)]
    assert sorted(close_all(spool_directory.adopt_elsewhere(places, None, set()))) == sorted(
        int(left[name].name) for name in ("own", "former", "beside")
    )
    assert [spool_directory.database_of(left[name]) for name in ("own", "beside")] == [None, "here"]
    (tmp_path / "link").symlink_to(left["beside"])
    assert spool_directory.database_of(tmp_path / "link") is None


def test_which_directories_are_in_use(root):
    """faults H: one whose process lives, or that somebody delivers; a directory of spools that is
    absent or a file has none.
    """
    living = SessionSpool.create(root, Session())
    dead = left_behind(root)
    assert spool_directory.directories(root) == sorted((living.directory, dead))
    assert (spool_directory.is_alive(living.directory), spool_directory.is_alive(dead)) == (
        True,
        False,
    )
    (delivered,) = adopt(root, set())
    assert spool_directory.is_alive(dead)
    delivered.close()
    assert not spool_directory.is_alive(dead)
    living.close()
    assert not spool_directory.is_alive(living.directory)
    (root / "file").touch()
    assert (
        spool_directory.directories(root / "absent")
        == spool_directory.directories(root / "file")
        == []
    )
    assert adopt(root / "absent", set()) == []


def test_the_first_place_that_works_is_taken(tmp_path, caplog):
    """faults H: what keeps a program from the first place is said, and raised if no place works;
    nothing stays open.
    """
    before = set(os.listdir("/proc/self/fd"))
    for name in ("first", "second"):
        (tmp_path / name).touch()
    files = tmp_path / "first", tmp_path / "second"
    with pytest.raises(SpoolError, match="first is not a directory"):
        SessionSpool.create_first(Places("here", files), Session())
    spool = SessionSpool.create_first(Places("here", (*files, tmp_path / "third")), Session())
    assert spool.directory.parent == tmp_path / "third"
    (said,) = caplog.messages
    assert "first is not a directory" in said
    assert f"waits in {tmp_path}/third" in said
    with pytest.raises(SpoolError, match="first is not a directory"):
        SessionSpool.create_first(Places("here", files, fallbacks=(tmp_path / "third",)), Session())
    spool.close()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("written", "read"), [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, 0), (-1, 0)])
def test_the_greatest_pid_that_a_database_holds(root, written, read):
    """faults H: a number that no database takes is replaced; every other one is kept, and so are
    the texts beside it.
    """
    left_behind(root, Session(pid=written, service="shop"))
    (spool,) = adopt(root, set())
    assert (spool.session.pid, spool.session.service) == (read, "shop")
    spool.close()


@pytest.mark.parametrize("name", ["0", "007", str(2**53)])
def test_a_name_that_is_no_session_id(root, name):
    """faults H: a directory that no session can have made is not taken over, though there are
    events in it.
    """
    directory = left_behind(root)
    directory.rename(root / name)
    assert adopt(root, set()) == []


def test_only_what_a_process_left_half_made_is_swept_away(root):
    """faults H: hidden directories of other programs stay, however old they are."""
    root.mkdir(mode=0o700)
    for name in (".4711", ".cache", ".47x11", "4711x"):
        (root / name).mkdir()
        os.utime(root / name, (0, 0))
    spool_directory.sweep(root)
    assert sorted(path.name for path in root.iterdir()) == [".47x11", ".cache", "4711x"]


def test_two_processes_take_over_each_session_once(root):
    """However many look at the same moment, each orphan has one taker (guarantee 1)."""
    expected = sorted(int(left_behind(root).name) for _ in range(20))
    code = (
        "import sys, pathlib\nfrom structjob.spool.directory import adopt\nsys.stdin.readline()\n"
        f"taken = adopt(pathlib.Path({str(root)!r}), set())\n"
        "print(*[spool.session.session_id for spool in taken], flush=True)\nsys.stdin.readline()\n"
    )
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for taker in takers:
        taker.stdin.write("go\n")
        taker.stdin.flush()
    taken = [int(word) for taker in takers for word in taker.stdout.readline().split()]
    for taker in takers:
        taker.communicate("done\n")
    assert sorted(taken) == expected


async def test_foreign_things_in_the_spool_do_not_keep_a_tracker_from_starting(db_path, db_url):
    """A tracker starts, delivers and closes beside garbage, and leaves the garbage alone (guarantee
    1).
    """
    root = db_path.with_name(db_path.name + ".spool")
    directory = left_behind(root)
    (root / "456").mkdir()
    os.mkfifo(root / "456" / "session.json")
    (root / "notes.txt").write_text("mine")
    (root / "77").symlink_to("/etc")
    bad = root / "1007"
    bad.mkdir()
    (bad / "events-000001.jsonl").write_bytes(os.urandom(10_000))
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        (event,) = await tracker.logs.list()
        assert event.message == "left"
        assert (await tracker.verify()).ok
    assert not directory.exists()
    assert sorted(entry.name for entry in root.iterdir()) == ["456", "77", "notes.txt"]


async def test_damage_in_a_spool_is_explained_in_the_database(db_path, db_url, caplog):
    """A record that was hit is missing, a row of structjob_gaps says so, its neighbours are there,
    and verify is content (guarantee 2).
    """
    root = db_path.with_name(db_path.name + ".spool")
    directory = left_behind(root)
    lines = [
        seal(
            b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"left","attrs":{}',
            b',"seq":%d' % number,
        )
        for number in range(1, 7)
    ]
    lines[2] = lines[2].replace(b"left", b"lost")
    lines[5] = lines[5][:40]
    (directory / "events-000001.jsonl").write_bytes(b"".join(lines))
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        assert [event.seq for event in await tracker.logs.list()] in ([1, 2, 4, 5], [5, 4, 2, 1])
        verification = await tracker.verify()
        reasons = [
            row["reason"]
            for row in await tracker._store.fetch(select(gaps.c.reason).order_by(gaps.c.first_seq))
        ]
    (found,) = [each for each in verification.sessions if each.session_id == int(directory.name)]
    assert verification.ok
    assert (found.last_seq, found.stored, found.explained) == (6, 4, 2)
    assert reasons == ["damaged", "damaged"]
    said = [
        record.getMessage() for record in caplog.records if "damaged records" in record.getMessage()
    ]
    assert said == [
        f"the spool of session {directory.name} held 2 damaged records; the lost events are counted in structjob_gaps"
    ]


JOB = (
    b'{"kind":"job","row":{"id":"%s","operation":"nightly","status":"running","attempt":1,"category":"system","root_job_id":"%s",'
    b'"created_at":"2026-01-31 12:00:00.000001","started_at":"2026-01-31 12:00:00.000001"}'
)


@pytest.mark.parametrize(
    "what",
    ["answered", "lost before the commit", "lost after the commit", "one job ended meanwhile"],
)
async def test_the_numbers_of_crash_notices_are_accounted_for(
    db_path, db_url, faulty, what, caplog
):
    """faults H: whatever becomes of the transaction that ends a dead session, each number is stored
    once or explained, and counted once.
    """
    spool = SessionSpool.create(db_path.with_name(db_path.name + ".spool"), Session())
    for number, name in enumerate((b"one", b"two"), 1):
        spool.states.append(seal(JOB % (name, name), b',"state_seq":%d' % number), number)
    spool.close()
    tried = []

    async def end_session(session, ending, *notices):
        tried.append(what)
        if len(tried) > 1 or what == "answered":
            return await faulty.store.end_session(session, ending, *notices)
        if what == "lost after the commit":
            await faulty.store.end_session(session, ending, *notices)
        if what == "one job ended meanwhile":
            with contextlib.closing(sqlite3.connect(db_path)) as connection, connection:
                connection.execute(
                    "UPDATE structjob_jobs SET status = 'completed' WHERE id = 'two'"
                )
        raise StoreUnavailable("the connection is lost")

    faulty.end_session = end_session
    async with structjob.Tracker(db_url) as tracker:
        async with asyncio.timeout(30):
            while spool.directory.exists():
                await asyncio.sleep(0.01)
        await tracker.flush()
        crashed = {event.job_id for event in await tracker.logs.list(kind="operation_crashed")}
        lost = 1 if what == "one job ended meanwhile" else 0
        assert crashed == ({"one"} if lost else {"one", "two"})
        assert len(tried) == (1 if what == "answered" else 2)
        ledger, tally = tracker.ledger(), tracker._recorder.spool.tally
        assert (ledger.accepted, ledger.stored, ledger.dropped) == (
            2,
            2 - lost,
            {"interrupted": lost} if lost else {},
        )
        assert (ledger.in_memory, ledger.spilled) == (0, 0)
        assert (tally.confirmed, tally.hands) == (2 - lost, 0)
        assert (await tracker.verify()).ok
    assert not spool.directory.exists()
    assert "damaged records" not in caplog.text
    with contextlib.closing(sqlite3.connect(db_path)) as connection:
        assert (
            connection.execute("SELECT reason FROM structjob_gaps").fetchall()
            == [("interrupted",)] * lost
        )


DYING = """
import asyncio, os, sys
import structjob, structlog

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1], spool=sys.argv[2]) as tracker, tracker.job("payroll"):
        await tracker.flush()
        structlog.get_logger().info("the last word")
        os._exit(0)

asyncio.run(main())
"""


async def test_whoever_has_its_path_delivers_a_spool(tmp_path, root, caplog):
    """Guarantee 1, R11: what was logged under a wrong URL is delivered once it is corrected; that
    it was for another database is told.
    """
    wrong, right = (f"sqlite:///{tmp_path}/{name}.db" for name in ("wrong", "right"))
    subprocess.run([sys.executable, "-c", DYING, wrong, str(root)], check=True, timeout=60)
    async with structjob.Tracker(right, spool=root) as tracker:
        await tracker.flush()
        assert [job.status for job in await tracker.jobs.list()] == ["crashed"]
        assert [event.message for event in await tracker.logs.list(kind="log")] == ["the last word"]
    (said,) = [
        record.getMessage()
        for record in caplog.records
        if "was left by a program" in record.getMessage()
    ]
    assert (
        f"logged to sqlite:{tmp_path}/wrong.db; it is delivered to sqlite:{tmp_path}/right.db"
        in said
    )
    assert not list(root.iterdir())


async def test_a_sink_is_shown_a_crash_when_it_is_committed(db_path, db_url):
    """A slow sink, or a terminal that is held, keeps no other program from the database: events
    about crashes are shown after the transaction (faults F2.1).
    """
    sink = Looking(db_path)
    spool = SessionSpool.create(db_path.with_name(db_path.name + ".spool"), Session())
    for number, name in enumerate((b"one", b"two"), 1):
        spool.states.append(seal_state(JOB % (name, name), number), number)
    spool.close()
    structjob.configure(console=False, sinks=[sink], strict=True)
    async with structjob.Tracker(db_url) as tracker:
        async with asyncio.timeout(30):
            while spool.directory.exists():
                await asyncio.sleep(0.01)
        stored = {event.job_id for event in await tracker.logs.list(kind="operation_crashed")}
    assert sorted(sink.shown) == [("one", True, "crashed"), ("two", True, "crashed")]
    assert stored == {"one", "two"}
