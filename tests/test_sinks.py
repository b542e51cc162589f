"""The file sink: JSON lines, safe, private, rotated; also if another program rotates the file
(R32).
"""

import gzip
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import structlog
from cli_support import preforked

import structjob
from structjob import FileSink, InvalidArgument

log = structlog.get_logger("app")


def events(path):
    """Return the events in a file; each line must be whole."""
    return [json.loads(line)["event"] for line in path.read_bytes().splitlines()]


def line(text):
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    return json.dumps({"timestamp": stamp, "level": "info", "event": text}).encode() + b"\n"


def test_lines_are_there_when_the_call_returns(tmp_path):
    """R32: appended at once, after what the file held before, for its owner alone."""
    path = tmp_path / "app.jsonl"
    structjob.configure(console=False, file=path, strict=True)
    log.info("one")
    assert events(path) == ["one"]
    assert path.stat().st_mode & 0o777 == 0o600
    structjob.configure(console=False, file=path, strict=True)
    log.info("two")
    assert events(path) == ["one", "two"]


def test_rotation_by_size_keeps_the_newest(tmp_path):
    """R32: `max_bytes` begins a new file, `keep` says how many old ones stay; the newest line is in
    the file itself.
    """
    path = tmp_path / "app.jsonl"
    sink = FileSink(path, max_bytes=1000, keep=2)
    for n in range(100):
        sink.write(line(f"event {n:03}"))
    sink.close()
    assert sorted(os.listdir(tmp_path)) == ["app.jsonl", "app.jsonl.1", "app.jsonl.2"]
    found = [
        event
        for name in ("app.jsonl.2", "app.jsonl.1", "app.jsonl")
        for event in events(tmp_path / name)
    ]
    assert found == [f"event {n:03}" for n in range(100 - len(found), 100)]
    assert all((tmp_path / name).stat().st_size <= 1100 for name in os.listdir(tmp_path))
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in os.listdir(tmp_path))


def test_keep_nothing(tmp_path):
    """R32: with `keep=0` the old file is deleted."""
    sink = FileSink(tmp_path / "app.jsonl", max_bytes=500, keep=0)
    for n in range(50):
        sink.write(line(str(n)))
    sink.close()
    assert os.listdir(tmp_path) == ["app.jsonl"]


def test_rotation_by_age(tmp_path, monkeypatch):
    """R32: `max_age` counts from the file's first event, also after a restart."""
    path = tmp_path / "app.jsonl"
    sink = FileSink(path, max_age=3600)
    sink.write(line("old"))
    sink.close()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3000)
    sink = FileSink(path, max_age=3600)
    sink.write(line("still the same file"))
    monkeypatch.setattr(time, "time", lambda: now() + 4000)
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 1000)
    sink.write(line("new"))
    sink.close()
    assert events(tmp_path / "app.jsonl.1") == ["old", "still the same file"]
    assert events(path) == ["new"]


@pytest.mark.parametrize("how", ["renamed", "deleted"])
def test_a_file_that_somebody_else_rotates_is_begun_anew(tmp_path, monkeypatch, how):
    """R32: logrotate renames or deletes it; within a second events go to the new file, and none is
    lost.
    """
    path = tmp_path / "app.jsonl"
    sink = FileSink(path)
    sink.write(line("before"))
    if how == "renamed":
        path.rename(tmp_path / "elsewhere.jsonl")
    else:
        path.unlink()
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 2)
    sink.write(line("after"))
    sink.close()
    assert events(path) == ["after"]
    assert path.stat().st_mode & 0o777 == 0o600
    if how == "renamed":
        assert events(tmp_path / "elsewhere.jsonl") == ["before"]


def test_several_threads_and_rotations_lose_and_break_nothing(tmp_path):
    """R32: lines of several threads stand whole, each once, while the file is rotated
    under them.
    """
    sink = FileSink(tmp_path / "app.jsonl", max_bytes=20_000, keep=1000)

    def write(name):
        for n in range(2000):
            sink.write(line(f"{name} {n}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    found = [event for name in os.listdir(tmp_path) for event in events(tmp_path / name)]
    assert sorted(found) == sorted(f"{name} {n}" for name in "abcd" for n in range(2000))
    assert len(os.listdir(tmp_path)) > 5


def test_several_processes_append_to_one_file(tmp_path):
    """R32: one `write()` a line: lines of several processes never mix."""
    program = (
        "import structjob, structlog, sys\n"
        f"structjob.configure(console=False, file={str(tmp_path / 'app.jsonl')!r})\n"
        "for n in range(500): structlog.get_logger().info(f'{sys.argv[1]} {n}', pad='x' * 2000)\n"
    )
    children = [preforked.start(program, [name], Path.cwd()) for name in "abc"]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert sorted(events(tmp_path / "app.jsonl")) == sorted(
        f"{name} {n}" for name in "abc" for n in range(500)
    )


WRITER = """
import json, os, sys
from structjob import FileSink
path, forked, options = sys.argv[1], sys.argv[2] == "forked", json.loads(sys.argv[3])
def work(sink, name):
    for n in range(3000):
        sink.write(json.dumps({"event": f"{name} {n}", "pad": "x" * 150}).encode() + b"\\n")
if forked:
    sink = FileSink(path, **options)  # the descriptor, and any lock on it, is shared
    children = []
    for name in "abcd":
        if (pid := os.fork()) == 0:
            work(sink, name)
            os._exit(0)
        children.append(pid)
    sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
work(FileSink(path, **options), sys.argv[4])
"""


def written_by_four_processes(path, forked, **options):
    """Return the files that four processes leave, the oldest first."""
    given = [str(path), "forked" if forked else "each", json.dumps(options)]
    children = [
        preforked.start(WRITER, [*given, name], Path.cwd()) for name in ("a" if forked else "abcd")
    ]
    assert [child.wait(100) for child in children] == [0] * len(children)
    return [*sorted(path.parent.glob("app.jsonl.*"), key=lambda file: -int(file.suffix[1:])), path]


@pytest.mark.parametrize("forked", [False, True], ids=["each its own sink", "forked"])
def test_rotation_by_several_processes_loses_no_file(tmp_path, forked):
    """faults 19b: every line is in exactly one file; up to 10,386 of 24,000 lines were in none."""
    files = written_by_four_processes(tmp_path / "app.jsonl", forked, max_bytes=20_000, keep=1000)
    found = [event for file in files for event in events(file)]
    assert sorted(found) == sorted(f"{name} {n}" for name in "abcd" for n in range(3000))
    assert len(files) > 50


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_with_few_old_files_only_the_oldest_vanish(tmp_path, keep):
    """faults 19b: what is there of each process is the end of what it wrote, without a hole."""
    files = written_by_four_processes(tmp_path / "app.jsonl", False, max_bytes=20_000, keep=keep)
    assert len(files) == keep + 1
    found = [event.split() for file in files for event in events(file)]
    for name in "abcd":
        numbers = [int(n) for writer, n in found if writer == name]
        assert numbers == list(range(3000 - len(numbers), 3000))
    assert len(found) >= 50 * keep


def test_a_line_that_another_process_deletes_with_its_file_is_written_again(tmp_path, monkeypatch):
    """faults 19b: the file is rotated away and deleted between the look at it and the line."""
    path = tmp_path / "app.jsonl"
    sink = FileSink(path, keep=0)
    sink.write(line("before"))
    write = os.write

    def late(fd, data):
        monkeypatch.undo()
        path.unlink()
        return write(fd, data)

    monkeypatch.setattr(os, "write", late)
    sink.write(line("late"))
    sink.close()
    assert events(path) == ["late"]


def test_compression_right_after_the_renaming_loses_no_line(tmp_path):
    """faults 40: logrotate without `delaycompress`, ten times while a thread logs. A line may be in
    two files that follow each other.
    """
    path = tmp_path / "app.jsonl"
    sink = FileSink(path, max_bytes=None)
    done = threading.Event()
    count = 0

    def work():
        nonlocal count
        while not done.is_set():
            sink.write(line(str(count)))
            count += 1

    thread = threading.Thread(target=work)
    thread.start()
    packed = b""
    for _ in range(10):
        while not path.exists() or path.stat().st_size < 5_000:
            time.sleep(0.001)
        path.rename(tmp_path / "app.jsonl.1")
        while not path.exists():  # compressing may be slow
            time.sleep(0.001)
        packed += (tmp_path / "app.jsonl.1").read_bytes()
        (tmp_path / "app.jsonl.1").unlink()
    done.set()
    thread.join()
    sink.close()
    found = [int(json.loads(text)["event"]) for text in (packed + path.read_bytes()).splitlines()]
    assert [number for number, _ in itertools.groupby(found)] == list(range(count))


@pytest.mark.parametrize("rotates", ["logrotate", "we"])
def test_a_line_that_comes_after_the_compression(tmp_path, monkeypatch, rotates):
    """faults 40: the line of a process that had to wait meanwhile is in the new file, too; not
    where we rotate ourselves.
    """
    path = tmp_path / "app.jsonl"
    sink = FileSink(path, max_bytes=None if rotates == "logrotate" else 1_000_000)
    sink.write(line("before"))
    write, monotonic = os.write, time.monotonic

    def late(fd, data):
        monkeypatch.setattr(os, "write", write)
        path.rename(tmp_path / "app.jsonl.1")
        subprocess.run(["gzip", "--keep", tmp_path / "app.jsonl.1"], check=True)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 1)
        return write(fd, data)

    monkeypatch.setattr(os, "write", late)
    sink.write(line("late"))
    sink.write(line("after"))
    sink.close()
    packed = gzip.decompress((tmp_path / "app.jsonl.1.gz").read_bytes())
    assert [json.loads(text)["event"] for text in packed.splitlines()] == ["before"]
    assert events(path) == (["late", "after"] if rotates == "logrotate" else ["after"])


def test_a_file_that_is_renamed_gets_no_further_line(tmp_path, monkeypatch):
    """faults 40: the first line after a look is in the new file, and looks are a millisecond apart,
    not a second.
    """
    monkeypatch.setattr("structjob.sinks.file._LOOK_INTERVAL", -1.0)
    path = tmp_path / "app.jsonl"
    sink = FileSink(path)
    for n in range(5):
        sink.write(line(f"old {n}"))
        path.rename(tmp_path / f"rotated-{n}")
        sink.write(line(f"new {n}"))
        assert events(path) == [f"new {n}"]
    sink.close()


def test_a_relative_path_is_where_the_program_was_at_the_start(tmp_path, monkeypatch):
    """faults 40: a program that changes its directory, as daemons do, goes on with the same file,
    rotated or not.
    """
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    sink = FileSink("app.jsonl", max_bytes=500, keep=1000)
    monkeypatch.chdir("elsewhere")
    for n in range(50):
        sink.write(line(str(n)))
    sink.close()
    assert os.listdir(tmp_path / "elsewhere") == []
    assert sorted(
        int(event) for file in tmp_path.glob("app.jsonl*") for event in events(file)
    ) == list(range(50))


@pytest.mark.parametrize(
    "options", [{"max_bytes": 0}, {"max_bytes": -1}, {"max_age": 0}, {"keep": -1}]
)
def test_wrong_rotation_is_refused(tmp_path, options):
    """Bad input: nothing is created."""
    with pytest.raises(InvalidArgument, match=r"rotation of .*app\.jsonl"):
        FileSink(tmp_path / "app.jsonl", **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["/dev/null/app.jsonl", "/dev/null/below/app.jsonl", "."])
def test_a_path_that_cannot_be_written_is_named(tmp_path, path):
    """Bad input: the message names the file and says what to do."""
    with pytest.raises(
        InvalidArgument,
        match=r"cannot write the log file .*; choose another path",
    ):
        FileSink(tmp_path / path)
    assert os.listdir(tmp_path) == []


def test_a_closed_sink_is_a_counted_fault(tmp_path):
    """Guarantee 3: writing after the end raises nothing, and never lands in another file."""
    sink = FileSink(tmp_path / "app.jsonl")
    structjob.configure(console=False, file=sink)
    sink.close()
    sink.close()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    log.info("x")
    os.close(other)
    assert (tmp_path / "other").read_bytes() == b""
    assert structjob.diagnostics.faults.counts == {"the sink FileSink": 1}


def test_a_signal_handler_may_log_while_its_thread_logs(tmp_path):
    """Capture may be interrupted anywhere: console and file take an event from a handler that comes
    in between.
    """
    program = f"""
import signal, structjob, structlog, time
structjob.configure(console="json", file={str(tmp_path / "app.jsonl")!r}, level="info", strict=True)
log = structlog.get_logger()
signal.signal(signal.SIGALRM, lambda *_: log.info("handler"))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for n in range(3000): log.info("main", n=n)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (child.returncode, child.stderr) == (0, b"")
    found = events(tmp_path / "app.jsonl")
    assert found.count("main") == 3000
    assert found.count("handler") > 0
    assert sorted(json.loads(line)["event"] for line in child.stdout.splitlines()) == sorted(found)


async def test_own_sinks_see_what_is_written(tracker):
    """R27: a sink's record holds level, message, attributes, ids, logger, time and the line,
    redacted; changing it has no effect elsewhere.
    """
    seen = []

    class Greedy:
        def emit(self, record):
            seen.append(
                (
                    record.level,
                    record.message,
                    dict(record.attrs),
                    dict(record.ids),
                    record.logger,
                    record.ns,
                    record.line,
                )
            )
            record.attrs.clear()
            record.message = "changed"

    structjob.configure(console=False, sinks=[Greedy(), Greedy()], strict=True)
    async with tracker.job("a") as job:
        log.info("x", n=1, token="secret", nested={"a": [1]})
    level, message, attrs, ids, logger, ns, line = next(one for one in seen if one[1] == "x")
    assert (level, message, attrs, logger) == (
        "info",
        "x",
        {"n": 1, "token": "[redacted]", "nested": {"a": [1]}},
        "app",
    )
    assert ids == {"job_id": job.id, "correlation_id": job.correlation_id}
    assert abs(ns / 1e9 - time.time()) < 60
    assert json.loads(line)["event"] == "x"
    (event,) = await tracker.logs.list(text="x", kind="log")
    assert event.attrs == {"n": 1, "token": "[redacted]", "nested": {"a": [1]}}


def test_a_file_that_cannot_be_moved_away_grows(tmp_path, monkeypatch):
    """R32: if the directory belongs to another user, a file that is due for rotation loses no line;
    the fault is counted.
    """
    structjob.configure(
        console=False, file=FileSink(tmp_path / "app.jsonl", max_bytes=500), stdlib=False
    )

    def refused(*args):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        for n in range(50):
            log.info(f"line {n}")
    assert events(tmp_path / "app.jsonl") == [f"line {n}" for n in range(50)]
    assert 0 < structjob.diagnostics.faults.counts["the sink FileSink"] < 50


def test_a_line_that_the_disk_took_a_part_of_spoils_no_other(tmp_path, monkeypatch):
    """R32: what a full disk leaves of a line stands alone."""
    structjob.configure(console=False, file=tmp_path / "app.jsonl", stdlib=False)
    write = os.write
    log.info("before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        log.info("cut")
    log.info("after")
    lines = (tmp_path / "app.jsonl").read_bytes().splitlines()
    assert [json.loads(lines[0])["event"], len(lines[1]), json.loads(lines[2])["event"]] == [
        "before",
        20,
        "after",
    ]
    assert structjob.diagnostics.faults.counts == {"the sink FileSink": 1}
