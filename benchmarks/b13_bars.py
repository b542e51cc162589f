"""B13: the cost of bars on a terminal for a program that logs, compared with no bars."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Iterator
from time import perf_counter, process_time

from benchmarks import payload
from benchmarks.registry import Benchmark, Case, Row


@contextlib.contextmanager
def on_a_terminal() -> Iterator[None]:
    """Connect this process's output to a terminal of 120 × 40.

    Another process reads the output, as a terminal's window does.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    reader = os.fork()
    if reader == 0:
        os.close(slave)
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while os.read(master, 65_536):
                pass
        os._exit(0)
    os.close(master)
    before = sys.stdout, sys.stderr, os.dup(1), os.dup(2)
    for number in (1, 2):
        os.dup2(slave, number)
    os.close(slave)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        sys.stdout, sys.stderr = before[:2]
        for number, former in zip((1, 2), before[2:], strict=True):
            os.dup2(former, number)
            os.close(former)
        os.waitpid(reader, 0)


def logged(*, workers: int, lines: int, pause: float, bars: bool) -> dict[str, float]:
    """Log *lines* lines from *workers* tasks, each in a step whose bar grows with every line.

    Each task waits *pause* seconds after a line.
    """
    import structjob.lifecycle.bars  # noqa: F401 -- the import of bars must not be measured
    from benchmarks import ours

    async def work(log: object, job: object, number: int) -> None:
        async with job.step(
            "copy", description=f"copy disk-{number}.qcow2", total=lines // workers
        ) as step:  # type: ignore[attr-defined]
            for _ in range(lines // workers):
                ours.burst(log, 1)
                step.advance()
                await asyncio.sleep(pause)

    async def measure() -> dict[str, float]:
        async with ours.tracker(console="json") as (tracker, log):
            ours.burst(log, 100)
            await tracker.flush()
            start, cpu = perf_counter(), process_time()
            async with (
                tracker.progress_bars() if bars else contextlib.nullcontext(),
                tracker.job(payload.JOB) as job,
                asyncio.TaskGroup() as group,
            ):
                for number in range(workers):
                    group.create_task(work(log, job, number))
            return {
                "ms": 1_000 * (perf_counter() - start),
                "cpu_ms": 1_000 * (process_time() - cpu),
            }

    with on_a_terminal():
        return asyncio.run(measure())


BARS, NONE = "bars", "no bars"
BARS_PACED, NONE_PACED = "bars, paced", "no bars, paced"

BENCHMARK = Benchmark(
    name="b13",
    title="a program on a terminal with bars, beside the same without",
    cases=(
        Case(BARS, logged, options={"bars": True, "pause": 0.0}),
        Case(NONE, logged, options={"bars": False, "pause": 0.0}),
        Case(BARS_PACED, logged, options={"bars": True, "pause": 0.02}),
        Case(NONE_PACED, logged, options={"bars": False, "pause": 0.02}),
    ),
    rows=(
        Row(
            "B13",
            "20 workers with a bar each log 2,000 lines",
            "ms",
            "ms",
            BARS,
            (NONE,),
            at_most=1.1,
        ),
        Row(
            "B13",
            "the same, a line each 20 ms from each worker",
            "ms",
            "ms",
            BARS_PACED,
            (NONE_PACED,),
            at_most=1.1,
        ),
        Row("B13", "the former in CPU time", "cpu_ms", "ms", BARS, (NONE,)),
        Row("B13", "the latter in CPU time", "cpu_ms", "ms", BARS_PACED, (NONE_PACED,)),
    ),
    size={"workers": 20, "lines": 2_000},
    smoke={"workers": 4, "lines": 40},
    rounds=9,
)
