"""Sessions on disk: which process may deliver them, how live ones are distinguished from dead ones,
and what is no session at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cli_support import python
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
    """While its process delivers it, no other does; afterwards one other process does, once
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
    """Backups may leave empty files out; a lock file that does not exist is not locked."""
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
        patch.setattr("msgspec.json.encode", refuse)
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


def test_what_is_left_for_a_database_is_found_wherever_it_is(tmp_path, caplog):
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
    assert caplog.messages == []  # a former place was for this database, whatever its spools say
    assert [spool_directory.database_of(left[name]) for name in ("own", "beside")] == [None, "here"]
    (tmp_path / "link").symlink_to(left["beside"])
    assert spool_directory.database_of(tmp_path / "link") is None


@pytest.mark.parametrize("place", ["own", "beside"])
@pytest.mark.parametrize("bad", ["nested", "directory", "unreadable"])
def test_a_bad_description_stops_no_other_spool(tmp_path, monkeypatch, place, bad):
    """faults 0.3: `session.json` has any content, is a directory, or its directory cannot be read;
    the other spools are found, shown and adopted, and no file stays open.
    """
    own, shelf = tmp_path / "own", tmp_path / "shelf"
    shelf.mkdir(mode=0o700)
    root = own if place == "own" else shelf / "a"
    directory, *others = (left_behind(root, Session(database="here")) for _ in range(3))
    described = directory / "session.json"
    if bad == "nested":
        described.write_bytes(b'{"x":' + b"[" * 50_000)
    elif bad == "directory":
        described.unlink()
        described.mkdir()
    else:  # its mode is 000, and the test is not run by root
        scandir = os.scandir

        def refused(path):
            if os.fspath(path) == str(directory):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return scandir(path)

        described.unlink()
        monkeypatch.setattr(os, "scandir", refused)
    places = Places("here", (own,), shelves=(shelf,))
    before = set(os.listdir("/proc/self/fd"))
    assert {*others} <= {*spool_directory.left_in(places)}
    assert spool_directory.database_of(directory) is None
    taken = close_all(spool_directory.adopt_elsewhere(places, None, set()))
    assert {int(other.name) for other in others} <= {*taken}
    assert set(os.listdir("/proc/self/fd")) == before


def test_which_directories_are_in_use(root):
    """faults H: a directory is in use if its process lives or another process delivers it; a
    directory of spools that is absent, or a file, has none.
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
    for name in (".4711", ".cache", ".47x11", "4711x", ".x4711", ".²4711"):
        (root / name).mkdir()
        os.utime(root / name, (0, 0))
    spool_directory.sweep(root)
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [".47x11", ".cache", "4711x", ".x4711", ".²4711"]
    )


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
async def test_crash_notices_are_stored_and_shown_once(
    db_path, db_url, faulty, what, caplog, monkeypatch
):
    """faults H: whatever becomes of the transaction that ends a dead session, each crash is told
    once, in a session that has nothing else.
    """
    shown = []

    def show(scope, level, attrs, *, kind, ns):
        shown.append((scope.job_id, kind))

    monkeypatch.setattr("structjob.engine.crash.show", show)
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
        told = await tracker.logs.list(kind="operation_crashed")
        crashed = ["one"] if what == "one job ended meanwhile" else ["one", "two"]
        assert sorted(event.job_id for event in told) == crashed
        assert sorted(shown) == [(job_id, "operation_crashed") for job_id in crashed]
        assert len(tried) == (1 if what == "answered" else 2)
        (number,) = {event.session_id for event in told}
        report = await tracker.sessions.get(number)
        assert (report.last_seq, report.confirmed, report.status) == (
            len(crashed),
            len(crashed),
            "closed",
        )
        assert report.pid == os.getpid()
        assert tracker.ledger().accepted == 0
        assert (await tracker.verify()).ok
    assert not spool.directory.exists()
    assert "damaged records" not in caplog.text
    with contextlib.closing(sqlite3.connect(db_path)) as connection:
        assert connection.execute("SELECT reason FROM structjob_gaps").fetchall() == []


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
    python("-c", DYING, wrong, str(root), check=True)
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


# -- one thing at a time
# ------------------------------------------------------------------------------


def test_a_directory_that_cannot_be_written_to_is_refused_as_it_is(tmp_path, monkeypatch):
    """faults H: a private directory keeps its mode, and so does the one that it is in."""
    root = tmp_path / "above" / "spool"
    root.mkdir(parents=True)
    root.parent.chmod(0o755)
    root.chmod(0o500)
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(spool_directory.os, "access", lambda path, mode: asked.append(mode))
        with pytest.raises(SpoolError, match="cannot be written to; check its permissions"):
            SessionSpool.create_first(Places("here", (root,)), Session())
    assert asked == [os.W_OK | os.X_OK]
    assert [path.stat().st_mode & 0o777 for path in (root, root.parent)] == [0o500, 0o755]


def test_what_is_in_a_new_directory_is_for_its_owner_alone(root):
    """faults H: a forked child's directory has the lock file that its parent takes."""
    for deliver in (True, False):
        spool = SessionSpool.create(root, Session(), deliver=deliver)
        assert spool.directory.stat().st_mode & 0o777 == 0o700
        modes = {file.name: file.stat().st_mode & 0o777 for file in spool.directory.iterdir()}
        assert set(modes.values()) == {0o600}
        assert {"alive", "deliver", "session.json", "tally"} <= modes.keys()
        spool.close()


def test_a_child_whose_spool_is_full_drops_what_is_newest(root):
    """faults H: what it wrote before may be in its parent's hands."""
    spool = SessionSpool.create(root, Session(), deliver=False, max_bytes=65_536)
    number = 0
    while not spool.events.dropped:
        number += 1
        spool.events.append(LINE, number)
    assert spool.events.dropped[0].first == number
    spool.close()


@pytest.mark.parametrize("refused", ["lock", "directory", "queue"])
def test_a_directory_that_cannot_be_made_says_why(root, monkeypatch, refused):
    """faults H: there is no talk of room on the disk where that is not the reason, and nothing
    stays open or is left.
    """
    before = set(os.listdir("/proc/self/fd"))
    root.mkdir(mode=0o700)

    def refuse(*args, **kwargs):
        raise OSError(13, "Permission denied")

    with monkeypatch.context() as patch:
        if refused == "lock":
            patch.setattr(spool_directory, "lock_file", lambda path, create: None)
        elif refused == "directory":
            patch.setattr(Path, "mkdir", refuse)
        else:
            patch.setattr(spool_directory, "DiskQueue", refuse)
        with pytest.raises(SpoolError) as caught:
            SessionSpool.create(root, Session())
    why = "its new lock file is locked already" if refused == "lock" else "Permission denied"
    assert str(caught.value).endswith(
        f"{root}: {why}; choose another with Tracker(spool=PATH), or spool=False"
    )
    assert set(os.listdir("/proc/self/fd")) == before
    assert list(root.iterdir()) == []


def test_a_fallback_is_used_if_that_is_allowed(tmp_path):
    """faults H: whatever the reason is for which the first place does not work."""
    (tmp_path / "file").touch()
    places = Places("here", (tmp_path / "file",), fallbacks=(tmp_path / "second",))
    spool = SessionSpool.create_first(places, Session(), fallbacks=True)
    assert spool.directory.parent == tmp_path / "second"
    spool.remove()


def test_a_lock_on_a_file_that_was_deleted_meanwhile_is_none(root, monkeypatch):
    """faults H: the process that deleted the directory held its lock. What is there now belongs to
    another process.
    """
    directory = left_behind(root)
    before = set(os.listdir("/proc/self/fd"))
    flock = fcntl.flock

    def late(fd, operation):
        flock(fd, operation)
        (directory / "deliver").unlink()
        (directory / "other").touch()  # so that the new file is not given the old one's number
        (directory / "deliver").touch()

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        assert adopt(root, set()) == []
    assert set(os.listdir("/proc/self/fd")) == before
    assert close_all(adopt(root, set())) == [int(directory.name)]


def test_a_link_in_place_of_a_file_is_not_followed(root, tmp_path):
    """faults 0.4: neither a lock, nor who the session is, nor that it was set aside."""
    directory, other = left_behind(root, Session(host="mine")), left_behind(tmp_path / "other")
    (tmp_path / "reason").write_text("planted")
    (directory / "set-aside").symlink_to(tmp_path / "reason")
    assert spool_directory.set_aside(directory) is None
    (directory / "session.json").rename(tmp_path / "session.json")
    (directory / "session.json").symlink_to(tmp_path / "session.json")
    (adopted,) = adopt(root, set())
    assert (adopted.session.host, adopted.session.pid) == ("unknown", 0)
    adopted.close()
    (directory / "deliver").unlink()
    (directory / "deliver").symlink_to(other / "deliver")
    assert adopt(root, set()) == []
    assert spool_directory.is_alive(directory)  # as far as anybody can tell


def test_a_pipe_in_place_of_a_note_holds_nobody_up(root):
    """faults H: it is read as a note that says nothing."""
    directory = left_behind(root)
    os.mkfifo(directory / "set-aside")
    assert spool_directory.set_aside(directory).reason == ""


def test_a_directory_in_place_of_a_note_is_no_note(root):
    """faults 0.3: the spool is delivered, and no file stays open."""
    directory = left_behind(root)
    (directory / "set-aside").mkdir()
    before = set(os.listdir("/proc/self/fd"))
    assert spool_directory.set_aside(directory) is None
    assert close_all(adopt(root, set())) == [int(directory.name)]
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_look_leaves_everything_as_it_was(root):
    """faults H: no file is made in a directory that is no session's, or in one that is looked at
    only, and none stays open.
    """
    directory = left_behind(root)
    (root / "1002").mkdir()
    (root / "1002" / "deliver").touch()
    (root / "1003").mkdir()
    before = set(os.listdir("/proc/self/fd"))
    names = set(os.listdir(directory))
    assert close_all(adopt(root, set())) == [int(directory.name)]
    assert set(os.listdir(directory)) == names
    assert [os.listdir(root / name) for name in ("1002", "1003")] == [["deliver"], []]
    (directory / "alive").unlink()
    (directory / "deliver").unlink()
    assert not spool_directory.is_alive(directory)
    assert set(os.listdir(directory)) == names - {"alive", "deliver"}
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_directory_without_its_tally_is_delivered(root):
    """faults H: nothing is known then of what was in memory only."""
    directory = left_behind(root)
    (directory / "tally").unlink()
    (adopted,) = adopt(root, set())
    assert adopted.tally is None
    assert not adopted.alive
    adopted.remove()
    assert not directory.exists()


def test_what_a_writer_says_of_itself_last_is_read_when_it_ends(root):
    """faults H: its spool may have been adopted long before."""
    spool = SessionSpool.create(root, Session(), deliver=False)
    (adopted,) = adopt(root, set())
    spool.tally.hold(5)
    assert not adopted.try_finish()
    assert adopted.tally.hands == 0
    spool.close()
    assert adopted.try_finish()
    assert adopted.tally.hands == 5
    adopted.close()


def test_a_directory_that_is_gone_can_be_removed_and_not_set_aside(root):
    """faults H: another program has deleted it."""
    for name in ("remove", "set_aside"):
        spool = SessionSpool.create(root, Session())
        shutil.rmtree(spool.directory)
        if name == "remove":
            spool.remove()
        else:
            assert not spool.set_aside("why")
        assert spool._locks == {}


def test_the_longest_texts_that_a_database_holds(root):
    """faults H: longer ones are cut."""
    left_behind(root, Session(1, "h" * 300, "b" * 70, 7, "s" * 130, "v" * 70, database="d" * 510))
    (spool,) = adopt(root, set())
    found = spool.session
    assert [
        len(text or "")
        for text in (found.host, found.boot_id, found.service, found.version, found.database)
    ] == [255, 64, 128, 64, 500]
    spool.close()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1970-01-01 00:00:00.000000", "1970-01-01 00:00:00.000000"),
        ("9998-12-31 23:59:59.000000", "9998-12-31 23:59:59.000000"),
        ("1969-12-31 23:59:59.000000", "2026-01-31 12:00:00.000000"),
        ("9999-01-01 00:00:00.000000", "2026-01-31 12:00:00.000000"),
        ("2026-01-31 21:00:00.000000+09:00", "2026-01-31 12:00:00.000000"),
    ],
)
def test_the_earliest_and_the_latest_start(root, monkeypatch, written, read):
    """faults H: whatever the time zone is; what no database holds is replaced by the file's
    time.
    """
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        directory = left_behind(root, Session(started_at=written))
        os.utime(directory / "session.json", (1_769_860_800,) * 2)
        (spool,) = adopt(root, set())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert spool.session.started_at == read
    spool.close()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no file system for such times")
def test_a_file_of_a_year_that_python_does_not_know():
    """faults H: a clock was wrong when the file was written."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        directory = left_behind(Path(home) / "spool", Session(started_at="in spring"))
        os.utime(directory / "session.json", (300_000_000_000,) * 2)
        (spool,) = adopt(Path(home) / "spool", set())
        assert spool.session.started_at.startswith("9998-12-31")
        spool.close()


def test_a_directory_of_spools_that_cannot_be_read_has_none(root, monkeypatch):
    """faults H: reading commands go on to the next."""

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(spool_directory.os, "listdir", refuse)
    assert spool_directory.directories(root) == []


def test_changes_of_state_of_another_process_are_verified(root):
    """faults H: a record that was hit is left out, as with events."""
    spool = SessionSpool.create(root, Session())
    for number in (1, 2):
        spool.states.append(seal_state(b'{"id":"a"', number), number)
    spool.close()
    (file,) = spool.directory.glob("states-*")
    file.write_bytes(file.read_bytes().replace(b'"a"', b'"b"', 1))
    (adopted,) = adopt(root, set())
    batch = adopted.states.read(1 << 20, 10)
    assert (batch.count, adopted.states.damaged) == (1, 1)
    adopted.close()


def test_what_cannot_be_swept_away_is_left_for_the_next_time(root, monkeypatch):
    """faults H: and nothing stays open."""
    (root / ".4711").mkdir(parents=True)
    os.utime(root / ".4711", (0, 0))
    before = set(os.listdir("/proc/self/fd"))

    def rmtree(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(39, "Directory not empty")

    monkeypatch.setattr(spool_directory.shutil, "rmtree", rmtree)
    spool_directory.sweep(root)
    assert set(os.listdir("/proc/self/fd")) == before
