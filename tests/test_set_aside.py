"""A directory that cannot be delivered does not prevent the delivery of others, nor storing and
reading.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import structlog
from cli_support import python

import structjob
from structjob.spool import directory as spool_directory
from structjob.spool.directory import SessionSpool
from structjob.spool.line import seal
from structjob.spool.session import Session

LONGER_THAN_64_BITS = 2**70


def event(number: int, message: str = "left") -> bytes:
    return seal(
        b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":%s,"attrs":{}'
        % json.dumps(message).encode(),
        b',"seq":%d' % number,
    )


def left_behind(
    root: Path, *lines: bytes, states: bytes = b"", about: dict[str, object] | bytes | None = None
) -> Path:
    """Make the directory of a session whose process is gone."""
    spool = SessionSpool.create(root, Session())
    spool.close()
    (spool.directory / "events-000001.jsonl").write_bytes(b"".join(lines))
    (spool.directory / "states-000001.jsonl").write_bytes(states)
    meta = spool.directory / "session.json"
    if isinstance(about, bytes):
        meta.write_bytes(about)
    elif about is not None:
        meta.write_bytes(
            json.dumps(json.loads(meta.read_bytes()) | about).encode("utf-8", "surrogatepass")
        )
    return spool.directory


ODD = {
    "bad time": {"started_at": "yesterday"},
    "time of no calendar": {"started_at": "2026-02-31 12:00:00"},
    "end of time": {"started_at": "9999-12-31 23:59:59.999999+00:00"},
    "begin of time": {"started_at": "0001-01-01 00:00:00+14:00"},
    "time with a zone": {"started_at": "2026-01-31T12:00:00+05:00"},
    "over-long texts": {"host": "h" * 60_000},
    "every text over-long": dict.fromkeys(
        ("host", "boot_id", "service", "version", "database"), "é" * 5_000
    ),
    "NUL": dict.fromkeys(("host", "boot_id", "service", "version"), "a\x00b"),
    "lone surrogate": {"host": "\ud800"},
    "numbers over 64 bits": {"pid": LONGER_THAN_64_BITS},
    "negative": {"pid": -1},
    "number over 31 bits": {"pid": 2**62},
    "fraction": {"pid": 1.5},
    "other types": {"host": None, "pid": "1", "started_at": 5},
    "empty host": {"host": ""},
    "no JSON": b"\x00" * 4_000,
    "nothing": b"",
}


@pytest.mark.parametrize("about", ODD.values(), ids=ODD)
def test_what_is_read_from_a_session_file_is_checked(tmp_path, about):
    """faults 0.3: values that no database takes are clipped or replaced, and the events keep their
    session.
    """
    directory = left_behind(tmp_path / "spool", event(1), about=about)
    (adopted,) = spool_directory.adopt(tmp_path / "spool", set())
    session = adopted.session
    adopted.close()
    assert session.session_id == int(directory.name)
    assert 0 < len(session.host) <= 255
    assert max(len(text or "") for text in (session.boot_id, session.version)) <= 64
    assert len(session.service or "") <= 128
    assert 0 <= session.pid < 2**31
    assert not any(
        "\x00" in text
        for text in (
            session.host,
            session.boot_id or "",
            session.service or "",
            session.version or "",
        )
    )
    session.host.encode()
    assert len(session.started_at) == len("2026-01-31 12:00:00.000001")
    if about == ODD["time with a zone"]:
        assert session.started_at == "2026-01-31 07:00:00.000000"


async def test_every_odd_session_file_is_delivered(database, tmp_path):
    """faults 0.3: whatever stands in `session.json`, its events are stored, on every database, and
    the session ends.
    """
    root = tmp_path / "spool"
    directories = [left_behind(root, event(1), about=about) for about in ODD.values()]
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=root) as tracker:
        await tracker.flush()
        assert len(await tracker.logs.list(text="left")) == len(ODD)
        ended = {
            one.session_id for one in await tracker.sessions.list() if one.ended_at is not None
        }
        assert ended == {int(directory.name) for directory in directories}
    assert not list(root.iterdir())


JOB = (
    b'{"kind":"job","row":{"id":"%s","operation":"odd","status":"running","attempt":1,"category":"system","root_job_id":"odd",'
    b'"created_at":"2026-01-31 12:00:00.000001","started_at":"2026-01-31 12:00:00.000001"%s}'
)
STATES = {
    "another version's kind": b'{"kind":"workflow","row":{"id":"1"}',
    "columns of another version": JOB % (b"new", b',"colour":"red"'),
    "a row without its key": b'{"kind":"job","row":{"operation":"odd"}',
    "a time that is none": JOB.replace(
        b'"started_at":"2026-01-31 12:00:00.000001"', b'"started_at":"soon"'
    )
    % (b"late", b""),
    "text that is too long": JOB % (b"j" * 500, b""),
    "a NUL": JOB % (b"a\\u0000b", b""),
    "a number over 64 bits": JOB % (b"big", b',"max_rss_kb":%d' % LONGER_THAN_64_BITS),
    "an attempt over 64 bits": JOB.replace(b'"attempt":1', b'"attempt":%d' % LONGER_THAN_64_BITS)
    % (b"far", b""),
    "a gap without an end": b'{"kind":"gap","row":{"first_seq":1,"reason":"odd"}',
    "a gap over 64 bits": b'{"kind":"gap","row":{"first_seq":%d,"last_seq":%d,"reason":"odd"}'
    % (LONGER_THAN_64_BITS, LONGER_THAN_64_BITS),
    "no row": b'{"kind":"job","row":[]',
    "a mark that is none": JOB % (b"marked", b',"provisional":"never"'),
}
EVENTS = {
    "garbage": os.urandom(3_000) + b"\n" + b"\x00" * 5_000 + b"\n",
    "no object": seal(b"[1", b',"seq":2'),
    "no number": b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"m","attrs":{}}\n',
    "a number over 64 bits": event(LONGER_THAN_64_BITS),
    "a level that is too long": event(2).replace(b'"info"', b'"%s"' % (b"x" * 500)),
    "a line of 500 KB": event(2, "m" * 500_000),
    "a time that is none": seal(
        b'{"ts":"soon","level":"info","message":"m","attrs":{}', b',"seq":2'
    ),
    "no message": seal(
        b'{"ts":"2026-01-31 12:00:00.000001","level":"info","attrs":{}', b',"seq":2'
    ),
    "text that is no UTF-8": seal(
        b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"\xff","attrs":{}',
        b',"seq":2',
    ),
    "a raw NUL": seal(
        b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"\x00","attrs":{}',
        b',"seq":2',
    ),
}


async def test_odd_lines_keep_nobody_from_the_rest(database, tmp_path, caplog):
    """faults 0.3: whatever stands in the lines of a dead session, with a valid checksum even,
    flush, reads, and closing work, its other events are stored, and so are the tracker's own.
    """
    root = tmp_path / "spool"
    for number, line in enumerate(STATES.values(), 1):
        left_behind(root, event(1), states=seal(line, b',"state_seq":%d' % number))
    left_behind(
        root,
        event(1),
        states=seal(JOB % (b"counted", b""), b',"state_seq":%d' % LONGER_THAN_64_BITS),
    )
    for lines in EVENTS.values():
        left_behind(root, event(1), lines, event(3))
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=root) as tracker:
        async with tracker.job("own"):
            structlog.get_logger().info("own")
        await tracker.flush()
        assert len(await tracker.logs.list(text="own", kind="log")) == 1
        assert len(await tracker.logs.list(text="left", limit=1000)) >= len(STATES) + 1 + 2 * len(
            EVENTS
        )
        (job,) = await tracker.jobs.list(operation="own")
        assert job.status == "completed"
        assert await tracker.aclose()
    assert not [record for record in caplog.records if record.exc_info]


class Refusing:
    """Refuses what is of one session, as a database does that cannot take it."""

    def __init__(self, store: object, session_id: int, fault: Exception) -> None:
        self._store, self._session_id, self._fault = store, session_id, fault
        self.asked = 0
        for name in ("write", "begin_session", "end_session"):
            setattr(store, name, self._guarded(getattr(store, name)))

    def _guarded(self, call):
        async def guarded(given, *args, **kwargs):
            if given.session_id == self._session_id:
                self.asked += 1
                raise self._fault
            return await call(given, *args, **kwargs)

        return guarded


@pytest.mark.parametrize(
    "fault",
    [
        structjob.exceptions.StoreUnavailable("refused (error 22001)", refused=True),
        OverflowError("int too large"),
        RuntimeError("a bug"),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_a_directory_that_the_database_refuses_is_set_aside(
    db_path, db_url, caplog, monkeypatch, fault
):
    """faults 0.3: it stays on disk with the reason, one warning says so, it is not tried again at
    once, and everything else goes on.
    """
    from structjob import tracker as trackers
    from structjob.store import factory

    root = db_path.with_name(db_path.name + ".spool")
    refused, fine = left_behind(root, event(1, "refused")), left_behind(root, event(1, "fine"))
    made: list[Refusing] = []

    def make_store(*args):
        store = make(*args)
        made.append(Refusing(store, int(refused.name), fault))
        return store

    make = factory.make_store
    monkeypatch.setattr(factory, "make_store", make_store)
    structjob.configure(console=False)
    for _ in range(2):
        async with trackers.Tracker(db_url) as tracker:
            structlog.get_logger().info("own")
            await tracker.flush()
            assert {event.message for event in await tracker.logs.list(kind="log")} == {
                "fine",
                "own",
            }
            assert await tracker.aclose()
    assert not fine.exists()
    assert (refused / "events-000001.jsonl").read_bytes() == event(1, "refused")
    note = spool_directory.set_aside(refused)
    assert str(fault) in note.reason
    assert oct(note.note.stat().st_mode & 0o777) == "0o600"
    (warning,) = [
        record.getMessage() for record in caplog.records if "set aside" in record.getMessage()
    ]
    assert str(refused) in warning
    assert "structjob doctor" in warning
    assert sum(one.asked for one in made) <= 3
    # Ten minutes later, or without its note, it is tried again, and delivered where the database
    # takes it by now.
    monkeypatch.setattr(factory, "make_store", make)
    os.utime(note.note, (note.note.stat().st_mtime - 2 * spool_directory.RETRY_AFTER,) * 2)
    async with trackers.Tracker(db_url) as tracker:
        await tracker.flush()
        assert len(await tracker.logs.list(text="refused", kind="log")) == 1
    assert not refused.exists()


async def test_a_directory_that_cannot_be_read_is_set_aside(db_path, db_url, caplog, monkeypatch):
    """faults 0.3: an error of the disk (EIO) in one directory: it is left, flush and closing do not
    wait for it, the others are stored.
    """
    root = db_path.with_name(db_path.name + ".spool")
    broken, fine = left_behind(root, event(1, "broken")), left_behind(root, event(1, "fine"))
    pread = os.pread

    def pread_(fd, *args):
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.parent == broken and path.suffix == ".jsonl":
            raise OSError(5, "Input/output error")
        return pread(fd, *args)

    monkeypatch.setattr(os, "pread", pread_)
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        assert [event.message for event in await tracker.logs.list(kind="log")] == ["fine"]
        assert await tracker.aclose()
    assert not fine.exists()
    assert "Input/output error" in spool_directory.set_aside(broken).reason
    assert len([record for record in caplog.records if "set aside" in record.getMessage()]) == 1


UNREADABLE = """
import asyncio, os, sys, pathlib
import structjob, structlog
url, root = sys.argv[1:]

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(f"{url}.first", spool=f"{root}.first") as tracker:  # imports what a user may not be able to read
        await tracker.logs.list()
        await tracker.jobs.list()
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    async with structjob.Tracker(url, spool=root) as tracker:
        structlog.get_logger().info("own")
        while True:
            try:
                await asyncio.wait_for(tracker.flush(), 60)
                break
            except structjob.StoreUnavailable:  # a machine with much to do
                await asyncio.sleep(0.1)
        print(sorted(event.message for event in await tracker.logs.list(kind="log")))
        print(await tracker.aclose())

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become a user for whom permissions hold")
def test_directories_and_files_without_permissions_keep_nobody_from_the_rest(request):
    """faults 0.3: a directory or a file in it that may not be read or written: the rest is
    delivered, and closing works.
    """
    # Not below pytest's directories, which another user may not enter.
    directory = Path(tempfile.mkdtemp())
    request.addfinalizer(lambda: shutil.rmtree(directory))
    os.chmod(directory, 0o777)
    root = directory / "spool"
    left_behind(root, event(1, "fine"))
    closed = [left_behind(root, event(1, "closed")) for _ in range(7)]
    subprocess.run(["chown", "-R", "65534:65534", root], check=True)
    names = ("", "events-000001.jsonl", "deliver", "alive", "session.json", "states-000001.jsonl")
    for name, session in zip(names, closed, strict=False):
        os.chmod(session / name, 0)
    os.chmod(closed[6], 0o500)
    done = python("-c", UNREADABLE, f"sqlite:///{directory}/jobs.db", str(root))
    assert not done.returncode, done.stderr
    messages, complete = done.stdout.splitlines()
    assert "'fine'" in messages
    assert "'own'" in messages
    assert complete == "True"


@pytest.mark.slow
def test_doctor_names_what_was_set_aside(live):
    """faults 0.3: and says how to have it tried again; a command that reads does not wait
    for it.
    """
    root = live.directory / "structjob.db.spool"
    live.python(
        "import asyncio, structjob\nasync def main():\n    async with structjob.Tracker(): pass\nasyncio.run(main())"
    )
    directory = left_behind(root, event(1))
    (spool,) = spool_directory.adopt(root, set())
    assert spool.set_aside("the database does not take it")
    spool.close()
    found = live.json("doctor")["findings"]
    (finding,) = [one for one in found if one["check"] == "set aside"]
    assert str(directory) in finding["found"]
    assert "the database does not take it" in finding["found"]
    assert finding["advice"].endswith(f"rm {directory}/set-aside")
    live.ok("verify", code=1)
    assert directory.exists()
