"""What another user may have put where structjob writes is refused; what is the user's
own is used.
"""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import structlog
from cli_support import environment, typed

import structjob
from structjob import FileSink, InvalidArgument, InvalidURL, JobFileSink, SpoolError
from structjob.machine.files import UnsafeFile, ensure_file, follow, make_directory, open_file
from structjob.retention.archive import Archive
from structjob.spool.directory import SessionSpool
from structjob.spool.session import Session
from structjob.transfer.export import write_lines

NOBODY = 65534

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can put files of another user's somewhere"
)


@pytest.fixture
def shared(tmp_path):
    """A directory as /tmp is."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


@pytest.fixture
def victim(tmp_path):
    """A file that must not be written to."""
    path = tmp_path / "victim"
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"


def plant(how, path, victim):
    """Put at *path* what another user may put there."""
    if how == "link":
        path.symlink_to(victim)
        os.lchown(path, NOBODY, NOBODY)
    elif how == "dangling link":
        path.symlink_to(victim.with_name("new"))
        os.lchown(path, NOBODY, NOBODY)
    elif how == "hard link":
        os.link(victim, path)
    elif how == "pipe":
        os.mkfifo(path)
        os.chown(path, NOBODY, NOBODY)
    else:
        path.touch()
        path.chmod(0o666 if how == "file for everybody" else 0o600)
        os.chown(path, NOBODY, NOBODY)
    return path


TRAPS = ["link", "dangling link", "hard link", "pipe", "file", "file for everybody"]


@pytest.mark.parametrize("how", TRAPS)
def test_no_log_file_is_opened_that_another_user_put_there(shared, victim, how):
    """faults 0.4: the message names the file, whose it is, and what to do."""
    path = plant(how, shared / "app.jsonl", victim)
    with pytest.raises(
        InvalidArgument,
        match=r"cannot write the log file .*app\.jsonl .*(nobody|root|2 names).*; .*another path",
    ):
        FileSink(path)
    assert not victim.with_name("new").exists()


@pytest.mark.parametrize("how", TRAPS)
@pytest.mark.parametrize("name", ["jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db-journal"])
async def test_no_database_is_opened_that_another_user_put_there(shared, victim, how, name):
    """faults 0.4: nor one beside which another user has put the write-ahead log that SQLite would
    believe.
    """
    plant(how, shared / name, victim)
    with pytest.raises(
        InvalidURL,
        match=r"cannot use the database file .*jobs\.db: .*(nobody|root|2 names).*; .*another path",
    ):
        await structjob.Tracker(f"sqlite:///{shared / 'jobs.db'}").open()
    assert not victim.with_name("new").exists()


@pytest.mark.parametrize("how", TRAPS)
def test_no_command_makes_its_database_where_another_user_has_one(shared, victim, how):
    """faults 0.4: `structjob migrate` opens a bare connection."""
    plant(how, shared / "jobs.db", victim)
    said = typed(f"sqlite:///{shared / 'jobs.db'}", "migrate", code=1)
    assert "jobs.db" in said
    assert not victim.with_name("new").exists()


@pytest.mark.parametrize("how", TRAPS)
async def test_a_job_file_of_another_user_is_a_counted_fault(tracker, shared, victim, how):
    """faults 0.4: what is found while the program runs never reaches its code."""
    sink = JobFileSink(shared)
    structjob.configure(console=False, sinks=[sink], strict=False, stdlib=False)
    structjob.diagnostics.faults.strict_trackers.clear()
    plant(how, sink.path("j"), victim)
    async with tracker.job("a", job_id="j"):
        structlog.get_logger().info("x")
    assert structjob.diagnostics.faults.counts["the sink JobFileSink"] >= 3
    assert not victim.with_name("new").exists()
    plant("link", shared / "old.1.jsonl", victim)
    os.utime(shared / "old.1.jsonl", (0, 0), follow_symlinks=False)
    assert sink.archive(age=0) == []


@pytest.mark.parametrize(
    "make", [JobFileSink, lambda path: Archive(path, "db")], ids=["job files", "archive"]
)
@pytest.mark.parametrize("how", ["link", "directory"])
def test_no_directory_is_used_that_another_user_put_there(shared, tmp_path, make, how):
    """faults 0.4: in /tmp the first one to make it has it."""
    if how == "link":
        (tmp_path / "private").mkdir()
        (shared / "logs").symlink_to(tmp_path / "private")
        os.lchown(shared / "logs", NOBODY, NOBODY)
    else:
        (shared / "logs").mkdir()
        os.chown(shared / "logs", NOBODY, NOBODY)
    with pytest.raises(
        InvalidArgument,
        match=r"logs.*(user nobody \(uid 65534\)|in a directory that another user made).*another path",
    ):
        make(shared / "logs" / "deeper")
    assert not list(tmp_path.glob("*/deeper"))


@pytest.mark.parametrize("how", ["link above", "directory above", "directory", "link"])
def test_no_spool_is_made_where_another_user_may_have_put_its_directory(shared, tmp_path, how):
    """faults 0.4: the owner of the directory above a spool could replace it at any time, so it is
    refused.
    """
    (tmp_path / "private").mkdir()
    planted = shared / ".structjob"
    if how.startswith("link"):
        planted.symlink_to(tmp_path / "private")
        os.lchown(planted, NOBODY, NOBODY)
    else:
        planted.mkdir()
        os.chown(planted, NOBODY, NOBODY)
    says = r"\.structjob.*(user nobody \(uid 65534\)|that another user made).*another path with Tracker\(spool=PATH\)"
    with pytest.raises(SpoolError, match=says):
        SessionSpool.create(planted / "jobs" if "above" in how else planted, Session())
    assert not list(tmp_path.glob("private/*"))
    if not how.startswith("link"):
        assert not list(planted.iterdir())


@pytest.mark.parametrize("how", ["link", "dangling link", "hard link", "pipe"])
def test_no_segment_is_written_into_a_file_that_was_put_there(tmp_path, victim, how):
    """faults 0.4: what is logged stays in the segment before, and none of it goes into the file of
    another.
    """
    spool = SessionSpool.create(tmp_path / "spool", Session())
    plant(how, spool.directory / "events-000002.jsonl", victim)
    spool.events._segment_bytes = 10
    for number in range(1, 4):
        spool.events.append(b"a line of the log\n", number)
        spool.events.check_space()
    assert (spool.directory / "events-000001.jsonl").read_bytes() == b"a line of the log\n" * 3
    assert not victim.with_name("new").exists()
    spool.close()


async def one_line():
    yield b"{}\n"


@pytest.mark.parametrize("how", ["link", "dangling link", "pipe"])
async def test_no_export_goes_where_another_user_leads_it(shared, victim, how):
    """faults 0.4: what is a file there is replaced; what leads elsewhere is refused."""
    path = plant(how, shared / "out.jsonl", victim)
    with pytest.raises(UnsafeFile, match="user nobody"):
        await write_lines(one_line(), path)
    assert not victim.with_name("new").exists()
    assert os.listdir(shared) == ["out.jsonl"]


def test_an_archive_of_another_user_deletes_nothing(shared):
    """faults 0.4: a file that says what was archived, put into a shared directory."""
    archive = Archive(shared, "db")
    file = archive.new("x")
    file.discard()
    plant("file", shared / f"{file.path.name}.pending", None)
    with pytest.raises(UnsafeFile, match="user nobody"):
        archive.pending()


async def test_a_database_that_is_made_anew_is_for_its_owner_alone(tmp_path):
    """faults 0.4, 13: a file that was deleted under a program is made again with mode 0600, by its
    next read or by another program.
    """
    path = tmp_path / "jobs.db"
    old = os.umask(0)
    try:
        tracker = structjob.Tracker(f"sqlite:///{path}")
        await tracker.open()
        path.unlink()
        for name in ("-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)
        assert list(await tracker.jobs.list()) == []
        async with structjob.Tracker(f"sqlite:///{path}") as second:
            await second.jobs.list()
            assert {
                file.stat().st_mode & 0o777 for file in tmp_path.glob("jobs.db*") if file.is_file()
            } == {0o600}
        await tracker.aclose(timeout=5)
    finally:
        os.umask(old)


@pytest.mark.parametrize("name", ["jobs.db", "a b?c#d%41.db"])
async def test_a_database_is_opened_by_whatever_name_it_has(tmp_path, name):
    """faults 0.4: SQLite is given the path as a URI, in which some characters mean more."""
    from sqlalchemy import URL

    async with (
        structjob.Tracker(URL.create("sqlite", database=str(tmp_path / name))) as tracker,
        tracker.job("a"),
    ):
        pass
    assert (tmp_path / name).is_file()


# -- what is meant
# --------------------------------------------------------------------------


def test_links_of_ones_own_are_followed(tmp_path, shared):
    """faults 0.4: a log file on another disk, in a shared directory too; what is rotated stands
    beside the file itself.
    """
    (tmp_path / "disk").mkdir()
    (shared / "app.jsonl").symlink_to("../disk/app.jsonl")
    sink = FileSink(shared / "app.jsonl", max_bytes=10, keep=3)
    for n in range(4):
        sink.write(b"line number %d\n" % n)
    sink.close()
    assert sorted(os.listdir(tmp_path / "disk")) == [
        "app.jsonl",
        "app.jsonl.1",
        "app.jsonl.2",
        "app.jsonl.3",
    ]
    assert (shared / "app.jsonl").is_symlink()


async def test_a_database_behind_a_link_of_ones_own_is_used(tmp_path):
    """faults 0.4: the link leads to a file that is made there."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "jobs.db").symlink_to("disk/jobs.db")
    async with structjob.Tracker(f"sqlite:///{tmp_path / 'jobs.db'}") as tracker, tracker.job("a"):
        pass
    assert stat.S_IMODE((tmp_path / "disk" / "jobs.db").stat().st_mode) == 0o600


def test_root_may_work_on_the_files_of_a_service(tmp_path):
    """faults 0.4: its directory, its links, its files; but not where its links lead to what is
    another's.
    """
    service = tmp_path / "service"
    (service / "releases").mkdir(parents=True)
    (service / "releases" / "jobs.db").touch(0o600)
    (service / "current").symlink_to("releases")
    (service / "etc").symlink_to(tmp_path)
    for path in (service, *service.glob("*"), *service.glob("releases/*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    assert ensure_file(service / "current" / "jobs.db") == service / "releases" / "jobs.db"
    for _ in range(2):
        os.close(open_file(service / "current" / "new", os.O_WRONLY | os.O_CREAT))
    with pytest.raises(UnsafeFile, match="is where a link of user nobody"):
        open_file(service / "etc" / "cron", os.O_WRONLY | os.O_CREAT)
    (tmp_path / "passwd").touch()
    with pytest.raises(UnsafeFile, match="is where a link of user nobody"):
        open_file(service / "etc" / "passwd", os.O_WRONLY)


def test_a_log_directory_of_a_group_is_used(tmp_path):
    """faults 0.4: its owner chose who may make files there."""
    directory = tmp_path / "logs"
    directory.mkdir()
    directory.chmod(0o2770)
    path = plant("file", directory / "app.jsonl", None)
    path.chmod(0o660)
    FileSink(path).close()
    path.chmod(0o666)
    with pytest.raises(
        InvalidArgument, match=r"every user may write to it: .*; change that \(chmod o-w"
    ):
        FileSink(path)


def test_pipes_and_devices_that_are_named_on_purpose_are_written_to(tmp_path):
    """faults 0.4: /dev/null, /dev/stderr and a pipe of one's own are no traps; nothing is rotated
    there.
    """
    program = """
import os, sys, threading
from structjob import FileSink
os.mkfifo("pipe")
reader = threading.Thread(target=lambda: sys.stdout.write(open("pipe").read()))
reader.start()
for name in ("/dev/stderr", "/proc/self/fd/2", "/dev/null", "pipe"):
    sink = FileSink(name, max_bytes=1)
    for n in range(3): sink.write(f"{name} {n}\\n".encode())
    sink.close()
reader.join()
"""
    with open(tmp_path / "err", "wb") as err:
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=err, timeout=60
        )
    assert (done.returncode, done.stdout) == (0, b"pipe 0\npipe 1\npipe 2\n")
    assert (tmp_path / "err").read_text() == "".join(
        f"{name} {n}\n" for name in ("/dev/stderr", "/proc/self/fd/2") for n in range(3)
    )
    assert sorted(os.listdir(tmp_path)) == ["err", "pipe"]


def test_another_user_in_tmp(victim):
    """faults 0.4: a program of an ordinary user: its own files and root's are fine, those of a
    third one are not.
    """
    program = """
import os, pwd, sys
from structjob.machine.files import UnsafeFile, open_file
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.chdir(sys.argv[1])
os.close(open_file("own", os.O_WRONLY | os.O_CREAT))
os.close(open_file("own", os.O_WRONLY | os.O_CREAT))
os.symlink("own", "link")
os.close(open_file("link", os.O_WRONLY | os.O_CREAT))
os.close(open_file("of-root", os.O_WRONLY))
for name in ("theirs", "their-link", "their-pipe", "their-directory/theirs"):
    for special in (False, True):
        try: open_file(name, os.O_WRONLY | os.O_CREAT, special=special)
        except UnsafeFile as exc: assert "uid 1234" in str(exc), exc
        else: sys.exit(name)
"""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o1777)
        (directory / "their-directory").mkdir()
        (directory / "their-link").symlink_to("own")
        os.mkfifo(directory / "their-pipe")
        for file in ("of-root", "theirs", "their-directory/theirs"):
            (directory / file).touch()
            (directory / file).chmod(0o622 if file == "of-root" else 0o620)
        for file in (
            "theirs",
            "their-link",
            "their-pipe",
            "their-directory",
            "their-directory/theirs",
        ):
            os.chown(directory / file, 1234, NOBODY, follow_symlinks=False)
        (directory / "their-directory").chmod(0o755)
        env = environment()
        env.pop("COVERAGE_PROCESS_START", None)  # that user cannot write the data
        done = subprocess.run(
            [sys.executable, "-c", program, name],
            env=env,
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_path_that_leads_round_in_a_circle_is_an_error(tmp_path):
    """Bad input: it ends, as in the kernel."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        follow(tmp_path / "a")


def test_directories_are_made_for_their_owner_alone(tmp_path):
    """faults 0.4: all that are absent."""
    made = make_directory(tmp_path / "a" / "b")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (made, made.parent)] == [0o700, 0o700]
    assert make_directory(tmp_path / "a" / ".." / "a" / "b") == made
