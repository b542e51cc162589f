"""A job that logs so many lines for each number on its stdin, and says when they are stored."""

from __future__ import annotations

import asyncio
import sys

import structlog

import structjob


async def main(url: str, external_id: str) -> None:
    structjob.configure(console=False)
    log = structlog.get_logger("live")
    async with structjob.Tracker(url) as tracker:
        async with tracker.job("follow-me", external_job_id=external_id) as job, job.step("write"):
            print("begun", flush=True)
            number = 0
            while line := await asyncio.to_thread(sys.stdin.readline):
                for _ in range(int(line)):
                    number += 1
                    (log.error if number % 100 == 0 else log.info)("line", n=f"{number:06}")
                await tracker.flush()
                print("stored", flush=True)


asyncio.run(main(*sys.argv[1:3]))
