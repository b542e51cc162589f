"""Worker processes that are started afresh: they inherit no tracker, and say so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

import structjob, structlog


def prepare():
    structjob.configure(console=False)


def work(headers, number):
    with structjob.extract(headers).as_current():
        structlog.get_logger().info("in a worker", number=number)


def work_by_environment(number):
    structlog.get_logger().info("in a worker", number=number)


async def main(how, url):
    prepare()
    if how == "environment":
        structlog.get_logger().info("before the tracker, which takes it")
    async with structjob.Tracker(url) as tracker, tracker.job("parent"):
        headers = structjob.inject({})
        if how == "environment":
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=prepare) as pool:
                await asyncio.gather(*(asyncio.wrap_future(pool.submit(work_by_environment, number)) for number in range(3)))
            return
        if how == "process":
            process = multiprocessing.get_context("spawn").Process(target=first, args=(headers,))
            process.start()
            await asyncio.to_thread(process.join)
            return
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(how), initializer=prepare) as pool:
            for number in range(3):
                await asyncio.wrap_future(pool.submit(work, headers, number))


def first(headers):
    prepare()
    work(headers, 1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["spawn", "forkserver", "process", "environment"])
def test_a_worker_without_a_tracker_says_once_that_nothing_is_stored(tmp_path, db_url, how):
    """faults 0.5: one warning, at the first event that belongs to a job, in each kind of process
    that inherits no tracker. A worker that has its job from its environment alone warns, too; the
    program itself, which logs before its tracker opens, does not.
    """
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    env = {**os.environ, **({"STRUCTJOB_JOB_ID": "outer"} if how == "environment" else {})}
    done = subprocess.run(
        [sys.executable, program, how, db_url],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stderr.count("no tracker is open in this process") == 1, done.stderr
