"""What the library says of itself: when a queue fills, and, if it is asked, what its
engine does.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import structlog

import structjob
from structjob import Tracker

log = structlog.get_logger()


@pytest.mark.parametrize("spool", [True, False])
async def test_a_queue_that_fills_is_warned_about(db_url, caplog, spool):
    """faults 29: at half and when it is full, once each, with what happens then and what to do; and
    anew after it was empty.
    """
    structjob.configure(console=False)
    async with Tracker(db_url, spool=spool, queue_size=20, spool_max_bytes=65_536) as tracker:
        maintenance = tracker._engine._maintenance
        line = "x" * (3_300 if spool else 1)
        for _ in range(2):
            caplog.clear()
            for number in range(1, 21):
                log.info(line, n=number)
                maintenance._check_room()
            told = [
                record.getMessage()
                for record in caplog.records
                if "queue of events" in record.getMessage()
            ]
            assert ["half full" in one for one in told] == [True, False]
            assert all(
                ("spool_max_bytes" if spool else "queue_size") in one and "structjob doctor" in one
                for one in told
            )
            assert "the oldest are dropped" in told[1]
            await tracker.flush()
            maintenance._check_room()


PROGRAM = """
import asyncio, structjob, structlog
structjob.configure(console=False)
async def main():
    async with structjob.Tracker("sqlite:///jobs.db") as tracker:
        async with tracker.job("copy"):
            structlog.get_logger().info("hello", password="hunter2")
asyncio.run(main())
"""


@pytest.mark.slow
def test_the_engine_says_what_it_does_if_asked(tmp_path):
    """faults 30: STRUCTJOB_DEBUG=1 tells of opening, batches with counts and times, and closing;
    nothing of the events themselves.
    """
    environment = {**os.environ, "STRUCTJOB_DEBUG": "1"}
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    for words in (
        "DEBUG opened sqlite:///",
        "stored ",
        " and ",
        " in ",
        " ms",
        "DEBUG closing session",
        "everything stored",
    ):
        assert words in said
    assert "hunter2" not in said
    assert "hello" not in said
    assert len(said.splitlines()) < 15
    quiet = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stderr
    assert quiet == ""


async def test_the_logger_at_debug_says_the_same(db_url, caplog):
    """faults 30: a program that has a logging of its own sets the level of the logger
    `structjob`.
    """
    structjob.configure(console=False)
    with caplog.at_level(logging.DEBUG, logger="structjob"):
        async with Tracker(db_url):
            log.info("x")
    said = [record.getMessage() for record in caplog.records]
    assert any(one.startswith("stored 1 event and ") for one in said)
    assert said[-1].startswith("closed session")
