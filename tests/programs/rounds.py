"""Opens a tracker on each database that its standard input names, logs inside a job, and says how
it went.

Argument: the directory for its spools. A line of the input is JSON: ``url``, ``events``, and
``rate``, events a second (0: no pause). Its answer is a line of JSON: ``opened``, the seconds until
its tracker was open; ``seconds`` until all was stored; ``lateness`` at worst where there is a rate;
what the library ``said``.
"""

import asyncio
import json
import logging
import sys
import time

import structlog
from said import Said

import structjob
from structjob.exceptions import StoreUnavailable

PATIENCE = 60.0


async def flushed(tracker: structjob.Tracker, deadline: float) -> None:
    while True:
        try:
            return await tracker.flush()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def work(url: str, events: int, rate: float, said: Said) -> dict[str, object]:
    log = structlog.get_logger()
    began = time.monotonic()
    said.messages.clear()
    answer: dict[str, object] = {"said": said.messages}
    try:
        async with structjob.Tracker(url, spool=sys.argv[1]) as tracker:
            answer["opened"] = time.monotonic() - began
            late = 0.0
            async with tracker.job("round") as job:
                if rate:
                    print(json.dumps({"open": answer["opened"]}), flush=True)
                for number in range(events):
                    log.info("event", number=number)
                    if rate:
                        await asyncio.sleep(1 / rate)
                        ledger = tracker.ledger()
                        late = max(late, (ledger.accepted - ledger.stored) / rate)
            await flushed(tracker, time.monotonic() + PATIENCE)
            answer["seconds"] = time.monotonic() - began
            answer["lateness"] = late
            answer["job"] = job.id
            answer["stored"] = await tracker.logs.count(job_id=job.id, kind="log")
            answer["status"] = str((await tracker.jobs.get(job.id)).status)
            answer["complete"] = (await tracker.verify()).ok
    except BaseException as exc:
        answer["fault"] = f"{type(exc).__name__}: {exc}"
    return answer


async def main() -> None:
    structjob.configure(console=False)
    said = Said()
    logging.getLogger("structjob").addHandler(said)
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        print(
            json.dumps(await work(order["url"], order["events"], order["rate"], said)), flush=True
        )


asyncio.run(main())
