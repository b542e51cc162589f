"""Logs inside jobs and steps, and writes down what it is about to promise and what it has promised;
see `oracle`.

It logs until it is killed, or its standard input ends, or it has logged ``--count`` events. Then it
closes its tracker and prints, as one line of JSON, what it felt: the longest log call, how many
events waited at most, what the library said on its own logger. Its console is standard error.
"""

import argparse
import asyncio
import itertools
import json
import logging
import os
import sys
import threading
import time

import structlog
from oracle import Notes
from said import Said

import structjob
import structjob.engine.database
import structjob.spool.disk

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("notes", help="file for the notes; its name begins the ids of the events")
parser.add_argument("--spool", default=True, help="directory of the spools")
parser.add_argument("--undelivered", action="store_true", help="another process delivers")
parser.add_argument("--count", type=int, help="events to log")
parser.add_argument("--rate", type=float, help="events a second")
parser.add_argument("--sync", action="store_true", help="fsync each note")
parser.add_argument("--console", action="store_true", help="JSON lines on standard error")
parser.add_argument("--batch", type=int, default=2_000, help="events of one transaction at most")
parser.add_argument("--timeout", type=float, default=10.0, help="seconds for closing")
parser.add_argument(
    "--plain",
    action="store_true",
    help="no jobs and steps: each number of the session is an event that is noted",
)
parser.add_argument(
    "--threads", type=int, default=0, help="threads that log without a pause beside the loop"
)
parser.add_argument(
    "--segment",
    type=int,
    help="bytes of a segment of the spool; it is deleted as soon as all of it is stored",
)
parser.add_argument(
    "--again",
    type=float,
    help="seconds between attempts where the database needs a person; 30 is the library's own",
)
options = parser.parse_args()


said = Said()
logging.getLogger("structjob").addHandler(said)
logging.getLogger("structjob").propagate = False
structjob.configure(
    console=structjob.ConsoleSink(sys.stderr, format="json") if options.console else False
)
log = structlog.get_logger("producer")
notes = Notes(options.notes, sync=options.sync)


class Producer:
    def __init__(self) -> None:
        self.number = 0
        self.longest = 0.0
        self.behind = 0
        self.began = time.monotonic()
        self.over = False

    def more(self) -> bool:
        return not self.over and (options.count is None or self.number < options.count)

    def listen(self) -> None:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._heard)

    def _heard(self) -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.over = True

    def offer(self, job_id: str | None) -> None:
        self.number += 1
        attrs = notes.offer(self.number, job_id)
        began = time.perf_counter()
        log.info("offered", **attrs)
        self.longest = max(self.longest, time.perf_counter() - began)
        notes.returned(attrs["id"])

    async def pause(self) -> None:
        due = self.began + self.number / options.rate if options.rate else 0.0
        await asyncio.sleep(max(0.0, due - time.monotonic()))

    def log_in_threads(self) -> None:
        """Log in threads that end with the process; each has numbers of its own, so that none waits
        for another.
        """

        def work(first: int) -> None:
            for number in itertools.count(first, options.threads):
                attrs = notes.offer(number, None)
                log.info("offered", **attrs)
                notes.returned(attrs["id"])

        for index in range(options.threads):
            threading.Thread(target=work, args=(1_000_000 + index,), daemon=True).start()

    async def run(self, tracker: structjob.Tracker) -> None:
        while options.plain and self.more():
            self.offer(None)
            await self.pause()
        while self.more():
            self.offer(None)
            async with tracker.job("produce", wait=self.number % 3 == 0) as job:
                notes.job(job.id)
                for _ in range(3):
                    async with job.step("step") as step:
                        notes.step(step.id)
                        for turn in range(60):
                            if self.more():
                                self.offer(job.id)
                                if options.rate or turn % 20 == 0:
                                    self.behind = max(self.behind, tracker.queue.waiting)
                                    await self.pause()
            notes.ended(job.id)


async def main() -> None:
    producer = Producer()
    if options.segment:
        structjob.spool.disk.DELETE_AFTER = 0.0
        structjob.spool.disk.DiskQueue.__init__.__kwdefaults__["segment_bytes"] = options.segment
    if options.again:
        structjob.engine.database.PERMANENT_WAIT = options.again
    tracker = structjob.Tracker(
        options.url,
        spool=options.spool,
        flush_interval=0.01,
        batch_size=options.batch,
        deliver=not options.undelivered,
    )
    await tracker.open()
    notes.session(tracker.session_id)
    if options.count is None:
        producer.listen()
    producer.log_in_threads()
    await producer.run(tracker)
    began = time.monotonic()
    complete = await tracker.aclose(options.timeout)
    felt = {
        "complete": complete,
        "closing": time.monotonic() - began,
        "longest": producer.longest,
        "behind": producer.behind,
        "said": said.messages,
        "dropped": tracker.ledger().dropped,
        "dead_lettered": tracker.ledger().dead_lettered,
    }
    print(json.dumps(felt), flush=True)


asyncio.run(main())
