"""A log file for each job: its own lines, rotated, archived (R32)."""

import asyncio
import contextvars
import gzip
import json
import os
import threading

import pytest
import structlog

import structjob
from structjob import InvalidArgument, JobFileSink

log = structlog.get_logger("app")


def events(*paths):
    """Return the events in files; each line must be whole."""
    read = (
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in paths
    )
    return [json.loads(line)["event"] for text in read for line in text.splitlines()]


def made(directory, **options):
    """Set logging up with a sink in *directory*, and return it."""
    sink = JobFileSink(directory, **options)
    structjob.configure(console=False, sinks=[sink], strict=True)
    return sink


@pytest.fixture
def logs(tmp_path):
    """Where the files are."""
    return tmp_path / "logs" / "jobs"


async def test_each_job_has_its_file(tracker, logs):
    """R32: the file has the job's own events from beginning to end and those of its steps; a child
    has its own file. Only the owner can read them.
    """
    sink = made(logs)
    log.info("of no job")
    async with tracker.job("a") as job, job.step("s"):
        log.info("in a step", job_id=42)
        async with job.child("b") as child:
            log.info("in a child")
    assert events(sink.path(job.id)) == [
        "operation_start",
        "step_start",
        "in a step",
        "step_end",
        "operation_end",
    ]
    assert events(sink.path(child.id)) == ["operation_start", "in a child", "operation_end"]
    assert sorted(os.listdir(logs)) == sorted([f"{job.id}.jsonl", f"{child.id}.jsonl"])
    assert {(logs / name).stat().st_mode & 0o777 for name in os.listdir(logs)} == {0o600}
    assert logs.stat().st_mode & 0o777 == 0o700


async def test_a_line_that_the_disk_took_a_part_of_spoils_no_other(tracker, logs, monkeypatch):
    """R32: what a full disk leaves of a line stands alone, as in any log file."""
    sink = JobFileSink(logs)
    structjob.configure(console=False, sinks=[sink])
    write = os.write
    async with tracker.job("a", wait=False) as job:
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "write", lambda fd, data: write(fd, data if b'"seq"' in data else data[:20])
            )
            log.info("cut")
        log.info("after")
    lines = sink.path(job.id).read_bytes().splitlines()
    assert [json.loads(lines[0])["event"], len(lines[1]), json.loads(lines[2])["event"]] == [
        "operation_start",
        20,
        "after",
    ]
    assert structjob.diagnostics.faults.counts == {"the sink JobFileSink": 1}


async def test_the_levels_of_a_sink_hold(tracker, logs):
    """R27: it has a level of its own."""
    sink = made(logs, level="warning")
    async with tracker.job("a") as job:
        log.info("fine")
        log.warning("hot")
    assert events(sink.path(job.id)) == ["hot"]


@pytest.mark.parametrize("id_", ["../../etc/passwd", "a/b", ".", "..", "a.1", "a b", "ü", "x" * 64])
async def test_an_id_never_leads_out_of_the_directory(tracker, logs, id_):
    """R32: a caller's id may hold anything; its file is in the directory, and another id's is
    another one.
    """
    sink = made(logs)
    async with tracker.job("a", job_id=id_):
        log.info("seen")
    (file,) = logs.iterdir()
    assert file == sink.path(id_) != sink.path(id_ + "x")
    assert file.parent == logs
    assert file.name.endswith(".jsonl")
    assert "seen" in events(file)


async def test_a_file_is_rotated(tracker, logs):
    """R32: at `max_bytes` a new one begins, of the old ones `keep` stay, and the newest line is in
    the file itself.
    """
    sink = made(logs, max_bytes=2_000, keep=2)
    async with tracker.job("a") as job:
        for n in range(100):
            log.info("event", n=n)
        log.info("newest")
    files = sorted(logs.glob(f"{job.id}.*.jsonl"))
    assert len(files) == 2
    assert all(2_000 <= file.stat().st_size < 2_500 for file in files)
    assert "newest" in events(sink.path(job.id)) or "newest" in events(files[-1])


def test_rotation_by_many_threads_loses_nothing(logs):
    """R32: threads that rotate at the same time overwrite nothing."""
    sink = made(logs, max_bytes=500, keep=10_000)

    def work(name):
        for n in range(100):
            log.info(f"{name}-{n}")

    with structjob.extract({"X-Job-ID": "j"}).as_current():
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(work, name))
            for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(events(*logs.glob("j*.jsonl"))) == sorted(
        f"{name}-{n}" for name in "abcd" for n in range(100)
    )
    assert sink.path("j").parent == logs


async def test_what_is_done_is_archived(tracker, logs):
    """R32: files without a new line for that long are compressed, readable by the owner only;
    recent ones stay; a job that continues gets a new file.
    """
    sink = made(logs, max_bytes=1_000, keep=100)
    async with tracker.job("old", job_id="old"):
        for n in range(20):
            log.info(f"event {n}")
    async with tracker.job("fresh", job_id="fresh"):
        pass
    for path in logs.glob("old*"):
        os.utime(path, (1, 1))
    packed = await asyncio.to_thread(sink.archive)
    assert packed == sorted(logs.glob("old*"))
    assert all(
        path.name.endswith(".jsonl.gz") and path.stat().st_mode & 0o777 == 0o600 for path in packed
    )
    assert sorted(events(*packed)) == sorted(
        ["operation_start", *(f"event {n}" for n in range(20)), "operation_end"]
    )
    assert events(sink.path("fresh")) == ["operation_start", "operation_end"]
    assert sink.archive() == []
    async with tracker.job("old", job_id="old"):
        log.info("again")
    assert events(sink.path("old")) == ["operation_start", "again", "operation_end"]
    assert all(path.exists() for path in packed)


def test_an_archive_that_was_interrupted_goes_on(logs, monkeypatch):
    """R32: a file is there until its compressed form is whole."""
    sink = JobFileSink(logs)
    sink.path("a").write_bytes(b'{"event": "kept"}\n')
    with monkeypatch.context() as patched:
        patched.setattr(
            "shutil.copyfileobj", lambda *_: (_ for _ in ()).throw(OSError(28, "no space left"))
        )
        with pytest.raises(OSError, match="no space"):
            sink.archive(0)
    (packed,) = sink.archive(0)
    assert events(packed) == ["kept"]
    assert list(logs.glob("*.jsonl")) == []


def test_bad_arguments(tmp_path):
    """Bad input: a directory that cannot be made, values that are not numbers."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="cannot make the directory"):
        JobFileSink(tmp_path / "file" / "logs")
    for options in ({"max_bytes": 0}, {"keep": -1}):
        with pytest.raises(
            InvalidArgument, match="max_bytes must be positive, and keep must not be negative"
        ):
            JobFileSink(tmp_path, **options)
