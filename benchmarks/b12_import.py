"""B12: how long a program waits before its first line, measured as whole processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter

from benchmarks.registry import Benchmark, Case, Row


def process(*, times: int, code: str) -> dict[str, float]:
    """Run *code* in its own processes; the first one, which may have to compile, does not count."""
    command = [sys.executable, "-c", code]
    samples = []
    for number in range(times + 1):
        start = perf_counter()
        done = subprocess.run(
            command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        elapsed = perf_counter() - start
        if done.returncode:
            raise RuntimeError(done.stderr.decode().strip().splitlines()[-1])
        if number:
            samples.append(elapsed * 1_000)
    return {"ms": statistics.median(samples)}


OURS = (
    "import structjob, structlog; structjob.configure(); structlog.get_logger().info('ready', n=1)"
)
HELP = "import sys; sys.argv = ['structjob', '--help']; from structjob.cli import main; main()"
CASES = {
    "structjob, import + log": OURS,
    "structlog, import": "import structlog",
    "structlog, import + log": "import structlog; structlog.get_logger().info('ready', n=1)",
    "structjob --help": HELP,
    "click, import": "import click",
    "nothing": "pass",
}

BENCHMARK = Benchmark(
    name="b12",
    title="whole processes: import structjob and one log call beside import structlog; structjob --help beside import click",
    cases=tuple(Case(name, process, options={"code": code}) for name, code in CASES.items()),
    rows=(
        Row(
            *(
                "B12",
                "import structjob, configure, one log call",
                "ms",
                "ms",
                "structjob, import + log",
                ("structlog, import",),
            ),
            compare="difference",
            at_most=40,
        ),
        Row(
            "B12",
            "both with a log call",
            "ms",
            "ms",
            "structjob, import + log",
            ("structlog, import + log",),
            compare="difference",
        ),
        Row(
            "B12",
            "structjob --help",
            "ms",
            "ms",
            "structjob --help",
            ("click, import",),
            compare="difference",
            at_most=80,
        ),
        Row("B12", "a process that does nothing", "ms", "ms", "nothing"),
    ),
    size={"times": 2},
    smoke={"times": 1},
    rounds=15,
)
