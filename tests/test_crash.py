"""A process that is killed loses nothing that it was promised, and leaves nothing that
looks alive.
"""

from __future__ import annotations

import asyncio
import random
import subprocess

import pytest
from cli_support import python
from endurance import kill
from faults import Site
from prefork import Forked
from trials import Program, check, recover, start_program

import structjob


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


async def test_nothing_that_was_promised_is_lost_to_kill_9(site):
    """A program that is killed has stored every event whose log call returned, once and unchanged,
    with its jobs and steps; what it left running is crashed, and says so (guarantees 1 and 5, R11).
    """
    outcome = await kill(site, 5, seed=1)
    assert not outcome.problems, outcome
    assert outcome.verdict.returned > 100
    assert outcome.verdict.crashes


def deliver(site: Site) -> Forked:
    return start_program("deliverer", site.url, site.spool, stderr=subprocess.PIPE)


async def kill_some(site: Site, rng: random.Random) -> list[Program]:
    """Kill three programs, none of which recovers what another left."""
    programs = [
        await Program.start(site, f"program{number}", "--sync", "--batch", "200")
        for number in range(3)
    ]
    for program in programs:
        await program.has_logged(rng.randint(1, 300))
        await program.kill()
    return programs


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_recovery_that_is_killed_is_taken_up_by_the_next(site):
    """Killing the process that recovers a spool, thirty times over, loses nothing, doubles nothing,
    and tells of each crash once (guarantee 1).
    """
    rng = random.Random(4)
    programs = await kill_some(site, rng)
    for _ in range(30):
        adopter = deliver(site)
        await asyncio.to_thread(adopter.stdout.readline)
        await asyncio.sleep(rng.random() * 0.03)
        adopter.close()
    assert not await recover(site)
    verdict = await check(site, programs)
    assert not verdict.faults(), verdict


@pytest.mark.slow
async def test_two_recoveries_at_once_share_the_work(site):
    """Two programs that start at the same moment recover the same spools once (guarantee 1)."""
    programs = await kill_some(site, random.Random(5))
    adopters = [deliver(site) for _ in range(2)]
    for adopter in adopters:
        out, err = await asyncio.to_thread(adopter.communicate)
        assert (out.split(), err) == ([b"open", b"flushed"], b"")
    verdict = await check(site, programs)
    assert not verdict.faults(), verdict
    assert not await recover(site)


@pytest.mark.slow
async def test_a_crash_is_told_with_what_was_going_on(db_path):
    """The event about a crash names the steps that were open and the last lines that the job had
    logged (R11).
    """
    code = (
        "import asyncio, os, structlog, structjob\n"
        "structjob.configure(console=False)\n"
        "async def main():\n"
        f"    async with structjob.Tracker('sqlite:///{db_path}') as tracker:\n"
        "        async with tracker.job('nightly') as job:\n"
        "            async with job.step('copy'):\n"
        "                for n in range(7): structlog.get_logger().info(f'line {n}')\n"
        "                os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    await asyncio.to_thread(python, "-c", code)
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        (job,) = await tracker.jobs.list()
        assert job.status == "crashed"
        (event,) = await tracker.logs.list(
            structjob.LogFilter(job_id=job.id, kind="operation_crashed")
        )
    assert event.attrs["open_steps"] == ["copy"]
    assert event.attrs["last_lines"] == [f"line {n}" for n in range(2, 7)]
    assert event.level == "error"
