"""B20: the pages in a browser, and writers beside those who follow a log."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from benchmarks.registry import Benchmark, Case, Row

CHROMIUM = "/usr/bin/chromium"
URL = "sqlite:///bench.db"

FOLLOWERS = """
import asyncio, sys
port, idle, busy = map(int, sys.argv[1:4])
async def follow(job):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/v1/stream?job={job} HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n".encode())
    await reader.read(1)
    return reader
async def drain(reader):
    while await reader.read(1 << 18): pass
async def main():
    quiet = (sys.argv[4:] or ["idle"])[0]
    readers = [await follow(quiet) for _ in range(idle)] + [await follow("busy") for _ in range(busy)]
    print("following", flush=True)
    await asyncio.gather(*map(drain, readers))
asyncio.run(main())
"""
"""A process that follows a job *idle* times and another one *busy* times, and reads no content. The
first job is called ``idle``, or as the last argument says.
"""

_ROW = "document.querySelector('structjob-logs')?.shadowRoot.querySelector('.row .line')"
_STRIP = "document.querySelector('structjob-logs')?.shadowRoot.querySelector('.strip svg')"
_WATCH = f"const look = () => {{ if ({_ROW}) window.drawn ??= performance.now(); if ({_STRIP}) window.counted = performance.now(); else requestAnimationFrame(look); }}; look();"
"""Notes when the first line and the strip beside the lines are drawn."""


def write(
    *, lines: int, idle: int, busy: int, rest: float, page: int, steps: int, visits: int
) -> dict[str, float]:
    """Store *lines* events as fast as possible, beside *idle* and *busy* streams of a server."""
    from benchmarks import ours

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    async def work() -> dict[str, float]:
        async with ours.tracker(url=URL, queue_size=2 * lines) as (tracker, log):
            async with tracker.job("idle", external_job_id="idle"):
                pass  # as a parent of the other job, it would show the lines of both
            async with tracker.job("busy", external_job_id="busy"):
                await tracker.flush()
                return (
                    await beside_streams(tracker, log) if idle + busy else await burst(tracker, log)
                )

    async def beside_streams(tracker: Any, log: Any) -> dict[str, float]:
        with served() as (server, port):
            command = [sys.executable, "-c", FOLLOWERS, str(port), str(idle), str(busy)]
            followers = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert followers.stdout is not None
            await asyncio.to_thread(followers.stdout.readline)
            before = cpu(server.pid)
            await asyncio.sleep(rest)
            resting = cpu(server.pid) - before
            found = await burst(tracker, log)
            followers.kill()
            followers.wait()
            return {**found, "idle_percent": 100 * resting / rest, "server_mib": rss(server.pid)}

    async def burst(tracker: Any, log: Any) -> dict[str, float]:
        began, used = perf_counter(), time.process_time()
        for _ in range(0, lines, 1_000):
            ours.burst(log, 1_000)
            await tracker.flush()
        took = perf_counter() - began
        return {"per_second": lines / took, "cpu_us": 1e6 * (time.process_time() - used) / lines}

    return asyncio.run(work())


def visit(
    *, lines: int, idle: int, busy: int, rest: float, page: int, steps: int, visits: int
) -> dict[str, float]:
    """Open the page of a failed job of *page* lines, or of *steps* steps; return the best of the
    *visits* after a first one: milliseconds to the first line, CPU time of the server and of the
    page's main thread.
    """
    from benchmarks import ours

    async def fill() -> None:
        async with ours.tracker(url=URL, queue_size=100_000) as (tracker, log):
            try:
                async with tracker.job("long", external_job_id="long") as job:
                    for _ in range(steps):
                        async with job.step("a step"):
                            pass
                    async with job.step("last"):
                        for number in range(0, page, 1_000):
                            if number == page - 1_000:
                                log.error("the first error")
                            ours.burst(log, 1_000)
                            await tracker.flush()
                        raise ValueError("it fails")
            except ValueError:
                pass

    asyncio.run(fill())
    from playwright.sync_api import sync_playwright

    found_at: list[dict[str, float]] = []
    with served() as (server, port), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_init_script(_WATCH)
        for _ in range(1 + visits):
            opened = context.new_page()
            devtools = context.new_cdp_session(opened)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
            before = cpu(server.pid)
            opened.goto(f"http://127.0.0.1:{port}/jobs/long")
            while not opened.evaluate("window.drawn"):
                opened.wait_for_timeout(20)
            used = cpu(server.pid) - before
            found = devtools.send("Performance.getMetrics")["metrics"]
            busy_for = next(one["value"] for one in found if one["name"] == "TaskDuration")
            while not opened.evaluate("window.counted"):  # the next visit does not wait for it
                opened.wait_for_timeout(50)
            found_at.append(
                {
                    "ms": opened.evaluate("window.drawn"),
                    "server_ms": 1000 * used,
                    "browser_ms": 1000 * busy_for,
                    "strip_ms": opened.evaluate("window.counted"),
                }
            )
            opened.close()
        browser.close()
    warm = {name: min(one[name] for one in found_at[1:]) for name in found_at[0]}
    return {**warm, "cold_ms": found_at[0]["ms"]}


@contextmanager
def served() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server of the pages of the database, and its port."""
    port = free_port()
    command = [sys.executable, "-m", "structjob", "--db", URL, "serve", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/health", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise
                time.sleep(0.05)
        yield server, port
    finally:
        server.terminate()
        server.wait(30)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> float:
    """Return the peak memory of a process in MiB."""
    with open(f"/proc/{pid}/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024


_BROWSER = ("playwright",)

BENCHMARK = Benchmark(
    name="b20",
    title="the pages in a browser, and writers beside those who follow a log, SQLite",
    cases=(
        Case("alone", write, options={"idle": 0, "busy": 0}),
        Case("beside streams", write, needs=("fastapi",)),
        Case("1,000 lines", visit, needs=_BROWSER, options={"page": 1_000, "steps": 0}),
        Case("1,000,000 lines", visit, needs=_BROWSER, options={"steps": 0}),
        Case("5,000 steps", visit, needs=_BROWSER, options={"page": 1_000}),
    ),
    rows=(
        Row(
            "B20",
            "events stored beside 1,000 idle and 100 busy streams",
            "per_second",
            "/s",
            "beside streams",
            peers=("alone",),
            better="higher",
            at_least=0.9,
        ),
        Row(
            "B20",
            "the same, CPU time of the writer for each",
            "cpu_us",
            "µs",
            "beside streams",
            peers=("alone",),
            at_most=1.1,
        ),
        Row("B20", "the server at rest, of a core", "idle_percent", "%", "beside streams"),
        Row("B20", "the server's peak memory", "server_mib", "MiB", "beside streams", at_most=300),
        *(
            Row("B20", f"{work}, job of {name}", metric, "ms", name, at_most=mark)
            for name, first in (
                ("1,000 lines", 500),
                ("1,000,000 lines", 1_000),
                ("5,000 steps", 1_000),
            )
            for work, metric, mark in (
                ("first line drawn", "ms", first),
                ("first line drawn, cold", "cold_ms", 1_000 if name == "1,000 lines" else None),
                ("strip of the volume drawn", "strip_ms", 3_000),
                ("CPU time of the server until then", "server_ms", None),
                ("CPU time of the page until then", "browser_ms", None),
            )
        ),
    ),
    size={
        "lines": 50_000,
        "idle": 1_000,
        "busy": 100,
        "rest": 5.0,
        "page": 1_000_000,
        "steps": 5_000,
        "visits": 5,
    },
    smoke={
        "lines": 1_000,
        "idle": 20,
        "busy": 3,
        "rest": 0.5,
        "page": 1_000,
        "steps": 20,
        "visits": 1,
    },
    rounds=1,
    timeout=600,
)
