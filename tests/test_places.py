"""One database, one spool: where it is, and what is found that was left elsewhere."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import structlog
from breakable_servers import filled, small_disk

import structjob
from structjob.exceptions import SpoolError
from structjob.spool import directory as spool_directory
from structjob.spool import places as all_places
from structjob.spool.directory import SessionSpool
from structjob.spool.line import seal
from structjob.spool.session import Session
from structjob.urls.url import identity, parse, places

LINE = seal(
    b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"left","attrs":{}', b',"seq":1'
)


def left_behind(root: Path, database: str | None) -> Path:
    """Make the directory of a session whose process is gone."""
    root.parent.mkdir(parents=True, exist_ok=True)
    spool = SessionSpool.create(root, Session(database=database))
    spool.events.append(LINE, 1)
    spool.close()
    return spool.directory


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A user's state directory, another temporary directory, and a working directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("tmp", "releases/1", "releases/2"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "releases" / "1")
    return tmp_path


def root_of(url: str) -> Path:
    found = places(parse(url))
    assert found is not None
    return found.candidates[0]


def test_a_servers_spool_is_where_a_deployment_does_not_move_it(home, monkeypatch):
    """faults 57: below the user's state directory, whatever the working directory, by a name that
    people can read.
    """
    root = root_of("postgresql://ada:x@db.internal/jobs")
    assert root.parent == home / "state" / "structjob"
    assert root.name.startswith("postgresql-db.internal-5432-jobs-")
    monkeypatch.chdir(home / "releases" / "2")
    assert root_of("postgresql://ada:x@db.internal/jobs") == root
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(home))
    assert (
        root_of("postgresql://db.internal/jobs").parent == home / ".local" / "state" / "structjob"
    )
    monkeypatch.setenv("STRUCTJOB_SPOOL", str(home / "spools"))
    assert root_of("postgresql://db.internal/jobs").parent == home / "spools"
    assert root_of("sqlite:///jobs.db").parent == home / "spools"


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://127.0.0.1:5432/jobs",
        "postgresql+psycopg2://bob:secret@localhost/jobs",
        "postgres://localhost/jobs?sslmode=verify-full&sslrootcert=/etc/ssl/new-ca.pem",
        "postgresql://LOCALHOST./jobs?application_name=new",
    ],
)
def test_one_database_has_one_spool_however_its_url_is_written(home, other):
    """faults 57: the default port, a name of this host, a corrected CA path, an added option,
    another user or driver.
    """
    assert root_of(other) == root_of("postgresql://localhost/jobs")
    assert root_of(other) != root_of("postgresql://localhost/other")
    assert root_of(other) != root_of("postgresql://localhost:5433/jobs")
    assert root_of(other) != root_of("postgresql://db.internal/jobs")


def test_where_the_user_has_no_home_the_spool_is_beside_the_program_or_private(home, monkeypatch):
    """faults 57: then `./.structjob`, then a directory of this user's alone below the temporary
    directory.
    """
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/")
    found = places(parse("mysql://h/jobs"))
    assert [place.parent for place in found.candidates] == [
        home / "releases" / "1" / ".structjob",
        home / "tmp" / f"structjob-{os.geteuid()}",
    ]
    (home / "releases" / "1" / ".structjob").write_text("in the way")
    spool = SessionSpool.create_first(found, Session())
    assert spool.directory.is_relative_to(home / "tmp")
    assert stat.S_IMODE((home / "tmp" / f"structjob-{os.geteuid()}").stat().st_mode) == 0o700
    spool.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a directory away")
def test_a_directory_that_another_user_planted_is_not_used(home, monkeypatch):
    """faults 57: neither below the temporary directory nor beside the program; if none is left, the
    first one's reason is raised.
    """
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/")
    found = places(parse("mysql://h/jobs"))
    for place in found.candidates:
        place.parent.mkdir()
        os.chown(place.parent, 12345, 12345)
    with pytest.raises(SpoolError, match=r"\.structjob belongs to another user \(uid 12345\)"):
        SessionSpool.create_first(found, Session())


def test_a_place_that_does_not_work_is_named_and_the_next_is_used(home, caplog):
    """faults 57: a warning names both."""
    (home / "state").write_text("a file is in the way")
    found = places(parse("mysql://h/jobs"))
    spool = SessionSpool.create_first(found, Session())
    assert spool.directory.is_relative_to(home / "releases" / "1" / ".structjob")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert str(found.candidates[0]) in warning or str(found.candidates[0].parent) in warning
    assert warning.endswith(f"what is logged waits in {spool.directory.parent} instead")
    spool.remove()


def test_a_spool_directory_that_is_open_to_others_is_closed(tmp_path):
    """faults H: only the owner can read waiting events, even if the directory was created for all
    users.
    """
    root = tmp_path / "spool"
    root.mkdir()
    root.chmod(0o777)
    SessionSpool.create(root, Session()).remove()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_spool_that_cannot_be_read_hides_no_other(home, monkeypatch):
    """faults 57: what was left is listed, also beside a spool of another user's, and the own place
    is listed without a look into each spool.
    """
    database = parse("postgresql://db.internal/jobs")
    found = places(database)
    own = left_behind(found.candidates[0], identity(database))
    shared = found.shelves[0] / "under-another-name"
    closed, ours = left_behind(shared, "x"), left_behind(shared, identity(database))
    read = spool_directory.read_session

    def refused(directory):
        if directory in (own, closed):
            raise PermissionError(13, "Permission denied", str(directory))
        return read(directory)

    monkeypatch.setattr(spool_directory, "read_session", refused)
    assert set(spool_directory.left_in(found)) == {own, ours}


async def test_what_was_left_under_other_names_is_delivered(bare_database, home):
    """faults 57: by an earlier version's name, in a former release's directory that one is in, in
    the temporary directory, in another `$STRUCTJOB_SPOOL`; what is for another database stays where
    it is, and `doctor` names it.
    """
    url = parse(bare_database.url)
    ours, found = identity(url), places(url)
    assert found is not None
    mine = [left_behind(place, None) for place in found.own()]
    mine += [left_behind(shelf / "under-another-name", ours) for shelf in found.shelves]
    other = [
        left_behind(shelf / "for-another", "postgresql://h:5432/other") for shelf in found.shelves
    ]
    unknown = [left_behind(shelf / "nobody-knows", None) for shelf in found.shelves]
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(bare_database.url) as tracker:
        structlog.get_logger().info("own")
        await tracker.flush()
        assert len(await tracker.logs.list(text="left")) == len(mine)
        assert (await tracker.verify()).ok
    assert not [directory for directory in mine if directory.exists()]
    assert all(directory.exists() for directory in other + unknown)


async def test_a_spool_beside_a_link_is_found_by_the_files_own_name(home):
    """faults 38: the spool is beside the file itself, and one that is left beside the link is
    delivered by the programs that use the link.
    """
    (home / "link.db").symlink_to(home / "real.db")
    linked, real = (f"sqlite:///{home}/{name}.db" for name in ("link", "real"))
    assert root_of(linked) == root_of(real) == home / "real.db.spool"
    old = left_behind(home / "link.db.spool", None)
    beside = left_behind(home / "real.db.spool", None)
    async with structjob.Tracker(linked) as tracker:
        await tracker.flush()
        assert len(await tracker.logs.list(text="left")) == 2
    assert not old.exists()
    assert not beside.exists()


async def test_a_file_that_was_moved_with_its_spool_is_delivered_without_a_word(home, caplog):
    """faults 57: a spool beside the file is the file's, whatever the file was called when it was
    written.
    """
    directory = left_behind(home / "new.db.spool", f"sqlite:{home}/old.db")
    async with structjob.Tracker(f"sqlite:///{home}/new.db") as tracker:
        await tracker.flush()
        assert len(await tracker.logs.list(text="left")) == 1
    assert not directory.exists()
    assert not caplog.records


@pytest.mark.slow
def test_reading_commands_find_what_is_left_elsewhere(live, monkeypatch):
    """faults 57: `verify` and `doctor` look at every place, and what is for the database is
    delivered by the commands that read.
    """
    monkeypatch.setenv("STRUCTJOB_SPOOL", str(live.directory / "spools"))
    live.python(
        "import asyncio, structjob\nasync def main():\n    async with structjob.Tracker(): pass\nasyncio.run(main())"
    )
    path = live.directory / "structjob.db"
    directory = left_behind(live.directory / "spools" / "old", f"sqlite:{path}")
    environment = {**os.environ, "STRUCTJOB_SPOOL": str(live.directory / "spools")}
    (lag,) = [
        one
        for one in json.loads(live.ok("doctor", "--json", env=environment))["findings"]
        if one["check"] == "spools of dead programs"
    ]
    assert lag["details"]["sessions"] == [int(directory.name)]
    assert json.loads(live.ok("verify", "--json", env=environment))["ok"]
    assert not directory.exists()


def test_every_place_of_a_database_is_looked_at_once(home):
    """faults 57: a directory that is own is not a neighbour, and none is taken twice."""
    found = places(parse("mysql://h/jobs"))
    for place in found.own():
        place.mkdir(parents=True)
    assert not list(found.neighbours())
    assert len(set(found.own())) == len(found.own())
    assert all_places.temporary() in found.shelves
    left_behind(found.candidates[0], None)
    taken = spool_directory.adopt_elsewhere(found, None, set())
    assert len(taken) == 1
    taken[0].close()
    assert spool_directory.adopt_elsewhere(found, found.candidates[0], set()) == []


async def test_a_full_disk_keeps_no_program_from_starting(home, caplog):
    """The disk of the database is full when the program starts: it runs, and the next program
    stores what it logged.
    """
    try:
        with small_disk(home / "small", 8) as disk:
            url = f"sqlite:///{disk}/jobs.db"
            structjob.configure(console=False)
            with filled(disk):
                tracker = await structjob.Tracker(url).open()
                async with tracker.job("nightly", external_job_id="n-1"):
                    structlog.get_logger().info("done without room")
                await tracker.aclose(timeout=1)
            assert f"what is logged waits in {home / 'state' / 'structjob'}" in caplog.text
            async with structjob.Tracker(url) as tracker:
                found = await tracker.jobs.find("n-1")
                assert found.status == "completed"
                assert [event.message for event in await tracker.logs.list(kind="log")] == [
                    "done without room"
                ]
                assert (await tracker.verify()).ok
    except PermissionError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("name", ["missing/jobs.db", "tmp"])
def test_a_file_that_cannot_be_created_gets_no_directory_beside_it(home, name):
    """faults 57: a mistyped path makes no directories; what an earlier program left there is found
    all the same.
    """
    found = all_places.for_file(home / name, "db")
    assert found.candidates[0].parent == home / "state" / "structjob"
    assert found.former == ((home / name).with_name((home / name).name + ".spool"),)
    assert home / "state" / "structjob" in found.shelves


def test_the_places_of_a_file_are_beside_it_first_and_where_it_is_linked_too(home):
    """faults 57: a program that must not fail may use others; a spool beside a link is found."""
    (home / "link.db").symlink_to(home / "tmp" / "jobs.db")
    found = all_places.for_file(home / "link.db", "db")
    assert found.candidates == (home / "tmp" / "jobs.db.spool",)
    assert found.former == (home / "link.db.spool",)
    assert [path.parent for path in found.fallbacks] == list(found.shelves)
    assert all_places.for_file(home / "tmp" / "jobs.db", "db").former == ()


def test_what_the_environment_names_is_used_first_and_looked_at(home, monkeypatch):
    """faults 57: `STRUCTJOB_SPOOL` names a directory for all databases; what the program itself
    names precedes it. Spools that lie directly in it are found, links in it are not followed.
    """
    shared = home / "shared"
    (shared / "other-db").mkdir(parents=True)
    (shared / "planted").symlink_to(home / "tmp")
    (shared / "file").touch()
    monkeypatch.setenv(all_places.VARIABLE, str(shared))
    found = all_places.for_server("db", "db")
    (first,) = found.candidates
    assert (first.parent, found.shared, found.asked) == (shared, shared, False)
    assert first not in found.fallbacks
    assert len(found.fallbacks) == 3
    monkeypatch.delenv(all_places.VARIABLE)
    assert all_places.for_server("db", "db").fallbacks == ()
    monkeypatch.setenv(all_places.VARIABLE, str(shared))
    first.mkdir()
    assert list(found.neighbours()) == [shared, shared / "other-db"]
    asked = all_places.for_server("db", "db", home / "mine")
    assert (asked.candidates, asked.asked) == ((home / "mine",), True)
    assert list(asked.neighbours()) == [shared, first, shared / "other-db"]
    itself = all_places.for_server("db", "db", shared)
    assert list(itself.neighbours()) == [first, shared / "other-db"]


def test_a_working_directory_that_was_deleted_is_no_place(home, monkeypatch):
    """faults 52: a program whose working directory is gone still has a spool."""
    (home / "gone").mkdir()
    monkeypatch.chdir(home / "gone")
    (home / "gone").rmdir()
    found = all_places.for_server("db", "db")
    assert found.candidates[0].parent == home / "state" / "structjob"
    assert found.former == ()
    monkeypatch.chdir(home / "tmp")
    earlier = all_places.for_server("db", "mysql://ada:***@db/jobs").former
    assert earlier == (home / "tmp" / ".structjob" / "31005bc51bd1ecd2",)
