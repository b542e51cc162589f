"""`structjob.reset` puts the process back to the state of import (R50)."""

from __future__ import annotations

import collections
import contextvars
import gc
import logging
import pkgutil
import signal
import subprocess
import sys
import weakref
from importlib import import_module

import pytest
import structlog

import structjob
from structjob import Tracker, process
from structjob.diagnostics import faults


class Listing:
    """A sink that remembers what it is given."""

    def __init__(self):
        self.records, self.closed = [], False

    def emit(self, record):
        self.records.append(record)

    def close(self):
        self.closed = True


class Unclosable(Listing):
    """A sink that cannot be closed."""

    def close(self):
        super().close()
        raise OSError("stuck")


def state():
    """Return what the modules of the library hold that a program can change."""
    for module in pkgutil.walk_packages(structjob.__path__, "structjob."):
        if not module.name.endswith("__main__") and ".migrations" not in module.name:
            import_module(module.name)
    gc.collect()
    found = {}
    for name, module in list(sys.modules.items()):
        if not name.startswith("structjob."):
            continue
        for key, value in vars(module).items():
            if key.startswith("__"):
                continue
            found[f"{name}.{key}"] = shown(value)
            if type(value).__module__ == name and not isinstance(value, type):
                fields = getattr(value, "__dict__", None) or {
                    slot: getattr(value, slot) for slot in getattr(value, "__slots__", ())
                }
                for field, content in fields.items():
                    found[f"{name}.{key}.{field}"] = shown(content)
    return found


def shown(value):
    if isinstance(value, contextvars.ContextVar):
        return repr(value.get(None))
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        return repr(value)
    if isinstance(value, (list, dict, set, collections.deque, weakref.WeakSet, tuple)):
        return f"{len(value)}"
    return type(value).__name__


STAYS = {
    "structjob.machine.clock._second",  # the text of the second asked for last
    "structjob.capture.setup.SETUP.processors",  # loggers in use print by them
    "structjob.spool.recorder._recorders",  # of trackers that are alive: each fork concerns them
    "structjob.store.forking.within_sqlite._inside",  # threads that are in SQLite right now
    "structjob.spool.directory._held",
}


async def test_nothing_that_a_program_did_is_left(tmp_path, db_url, capsys):
    """R50: a test that uses all of it leaves nothing to the next one."""
    before = state()
    handlers = logging.Logger.callHandlers
    terminating = signal.getsignal(signal.SIGTERM)
    sink = Listing()
    structlog.get_logger().info("before everything")
    structjob.configure(console="json", file=tmp_path / "log", level="warning", sinks=[sink])
    structjob.secret("hunter2-hunter2")
    log = structlog.get_logger()
    log.error("waits for a tracker", exc_info=ValueError("x"))
    async with structjob.step("outside a job"):
        logging.getLogger("other").error("by logging")
    async with Tracker(db_url, strict=True) as tracker, tracker.job("a") as job, job.step("s"):
        structjob.success(log, "yes")
    faults.strict = False
    faults.add("something", ValueError("x"))
    forgotten = await Tracker(f"sqlite:///{tmp_path}/forgotten.db", strict=True).open()
    assert logging.Logger.callHandlers is not handlers
    structjob.reset()
    changed = {key: (before[key], value) for key, value in state().items() if before[key] != value}
    assert {key: value for key, value in changed.items() if key not in STAYS} == {}
    assert logging.Logger.callHandlers is handlers
    assert signal.getsignal(signal.SIGTERM) is terminating
    assert sink.closed
    assert not structlog.is_configured()
    await forgotten.aclose()
    assert not faults.strict_trackers


@pytest.mark.parametrize("reset", [False, True])
async def test_a_block_for_a_test_leaves_everything_as_it_was(tmp_path, db_url, capsys, reset):
    """R50: in the block no tracker is open, and the setup of the program is in effect; after it
    all is as before, whatever the block has set up.
    """
    sink, heard = Listing(), []
    structjob.configure(console="json", level="warning", sinks=[sink])
    structjob.secret("hunter2-hunter2")
    structjob.add_hook(heard.append)
    structjob.classify(KeyError, error_type="absent")
    log = structlog.get_logger()
    async with Tracker(db_url) as tracker:
        log.warning("hunter2-hunter2 before")
        before, config = state(), structlog.get_config()
        with process.isolated():
            log.warning("waits in the block")
            async with Tracker(f"sqlite:///{tmp_path}/test.db") as other, other.job("test"):
                log.warning("in the block")
            assert (sink.records[-2].message, len(heard)) == ("in the block", 2)
            structjob.configure(console=False, level="debug", file=tmp_path / "log")
            structjob.classify(OSError, error_type="disk")
            structjob.secret("swordfish-1")
            structjob.add_hook(print)
            structjob.capture_uncaught()
            faults.strict = True
            if reset:
                structjob.reset()
        changed = {
            key: (before[key], value) for key, value in state().items() if before[key] != value
        }
        assert changed.keys() <= STAYS | {"structjob.machine.clock._latest"}, changed
        assert structlog.get_config() == config
        assert not sink.closed
        log.info("below the level")
        log.warning("hunter2-hunter2 swordfish-1 after")
        shown = [record.message for record in sink.records if "after" in record.message]
        assert shown == ["[redacted] swordfish-1 after"]
        found = [event.message for event in await tracker.logs.list(kind="log")]
    assert found == ["[redacted] before", "[redacted] swordfish-1 after"]
    assert "below the level" not in capsys.readouterr().out


def test_an_existing_setup_is_as_it_was(capsys):
    """`install` puts processors into the user's list; they are taken out of it."""
    processors = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    was = list(processors)
    structlog.configure(processors=processors)
    structjob.install()
    assert len(processors) > len(was)
    structjob.reset()
    assert processors == was
    assert structlog.get_config()["processors"] is processors
    structlog.get_logger().info("printed")
    assert '"event": "printed"' in capsys.readouterr().out


def test_a_logger_in_use_prints_as_structlog_does(capsys):
    """A logger that was used while logging was set up prints afterwards, and follows the next
    set-up.
    """
    structjob.configure(console=False, level="error")
    log = structlog.get_logger()
    log.error("silent")
    structjob.reset()
    log.info("printed again")
    assert "printed again" in capsys.readouterr().out
    sink = Listing()
    structjob.configure(console=False, sinks=[sink])
    log.info("taken")
    assert [record.message for record in sink.records] == ["taken"]
    assert capsys.readouterr().out == ""


async def test_what_waits_for_a_tracker_is_forgotten(db_url):
    """An event that was logged before the reset is not stored by a tracker that opens later."""
    structjob.configure(console=False)
    structlog.get_logger().info("before")
    structjob.reset()
    structjob.configure(console=False)
    structlog.get_logger().info("after")
    async with Tracker(db_url) as tracker:
        assert [event.message for event in await tracker.logs.list()] == ["after"]


async def test_a_tracker_that_is_open_keeps_its_own_jobs(db_url):
    """What a job logs after the reset is recorded; what belongs to no job is not."""
    structjob.configure(console=False)
    async with Tracker(db_url, strict=True) as tracker, tracker.job("a") as job:
        structjob.reset()
        structjob.configure(console=False)
        structlog.get_logger().info("of no job")
        job.update(percent=50)
        async with job.step("s"):
            structlog.get_logger().info("of the step")
    assert faults.counts == {}
    async with Tracker(db_url) as tracker:
        (record,) = (await tracker.jobs.list()).items
        assert record.status == "completed"
        own = [event.message for event in await tracker.logs.list(job_id=record.id)]
        own = [message for message in own if "of" in message.split()]
        assert own == ["of the step"]


def test_a_secret_is_none_any_more():
    """Values given to `secret` are forgotten, also where they were found harmless before."""
    sink = Listing()
    structjob.configure(console=False, sinks=[sink])
    structjob.secret("hunter2-hunter2")
    structlog.get_logger().info("hunter2-hunter2")
    structjob.reset()
    structjob.configure(console=False, sinks=[sink])
    structlog.get_logger().info("hunter2-hunter2")
    assert [record.message for record in sink.records] == ["[redacted]", "hunter2-hunter2"]


def test_a_sink_that_cannot_be_closed_keeps_nothing_else_from_it():
    """In strict mode the error is raised, and everything is reset all the same."""
    other = Listing()
    structjob.configure(console=False, sinks=[Unclosable(), other], strict=True)
    with pytest.raises(OSError, match="stuck"):
        structjob.reset()
    assert other.closed
    assert not faults.strict
    assert not structlog.is_configured()


def test_it_may_be_called_at_any_time():
    """Before anything was set up, and twice."""
    structjob.reset()
    structjob.reset()
    assert not structlog.is_configured()


_FORK = """
import os, sys
from structjob import process
def say(what):
    os.write(1, (what + chr(10)).encode())
def fails():
    say("child 2"); raise ValueError("x")
sys.unraisablehook = lambda given: say(f"unraisable {given.exc_value}")
process.FORK_ORDER = ("a", "b", "c")
process.at_fork("c", before=lambda: say("before c"), in_parent=lambda: say("parent c"), in_child=lambda: say("child 3"))
process.at_fork("b", in_child=fails)
process.at_fork("a", before=lambda: say("before a"), in_parent=lambda: say("parent a"), in_child=lambda: say("child 1"))
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
else:
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs fork")
def test_hooks_of_a_fork_run_in_their_order():
    """It does not matter which module was imported first, and one that fails does not keep the
    others from running.
    """
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORK], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [line for line in printed if line.startswith("before")] == ["before c", "before a"]
    assert [line for line in printed if line.startswith("parent")] == ["parent a", "parent c"]
    assert [line for line in printed if not line.startswith(("before", "parent"))] == [
        "child 1",
        "child 2",
        "child 3",
        "unraisable x",
    ]


def test_a_place_is_taken_once():
    """Two hooks at one place would have no order."""
    import_module("structjob.spool.directory")  # which takes it
    with pytest.raises(ValueError, match="spools"):
        process.at_fork("spools", before=lambda: None)
    with pytest.raises(ValueError, match="nowhere"):
        process.at_fork("nowhere")
