"""B23: the pages while lines arrive, and what their server takes."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.b20_pages import CHROMIUM, FOLLOWERS, URL, cpu, free_port, served
from benchmarks.registry import Benchmark, Case, Row

_WRITER = """
import asyncio, json, sys, time, structlog, structjob
url, port, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
structjob.configure(console=False)
log = structlog.get_logger("live")
number = 0
async def write(tracker, lines):
    global number
    for _ in range(lines):
        number += 1
        (log.error if number % 100 == 0 else log.info)("line", n=str(number))  # as text: lines that differ in a number fold
    await tracker.flush()
    return time.time()
async def run(job, number):
    async with job.step(f"part {number}"):
        await asyncio.Event().wait()
async def main():
    async with structjob.Tracker(url, queue_size=100_000) as tracker:
        server = None
        if port:
            from structjob.web import app
            from structjob.web.server import Server
            server = Server(app(tracker), host="127.0.0.1", port=port)
            server.install_signal_handlers = lambda: None
            serving = asyncio.create_task(server.serve())
        async with tracker.job("live", external_job_id="live") as job:
            running = [asyncio.create_task(run(job, n)) for n in range(steps)]
            await tracker.flush()
            print("begun", flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                lines, times = map(int, line.split())
                stored = []
                for _ in range(times):
                    stored.append([number + lines, await write(tracker, lines)])
                    if times > 1:
                        await asyncio.sleep(0.05)
                print(json.dumps(stored), flush=True)
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if server is not None:
            server.should_exit = True
            await serving
asyncio.run(main())
"""
"""A process whose job logs *lines* lines *times* times for each line of its stdin, and says when
each of them was committed. With a port it serves the pages itself; with steps, so many run.
"""

_WATCH = """
() => {
  const viewer = document.querySelector("structjob-logs"), seen = window.seen = new Map();
  let waiting = [], last = performance.now();
  window.longest = 0;
  viewer.addEventListener("structjob-line", ({ detail }) => waiting.push(...detail.lines.slice(-50)));
  const look = (now) => {
    window.longest = Math.max(window.longest, now - last);
    last = now;
    waiting = waiting.slice(-100).filter((one) => {
      if (!viewer.shadowRoot.getElementById(`r${one.session_id}:${one.seq}`)) return true;
      seen.set(Number(one.attrs.n), Date.now());
      return false;
    });
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
"""
"""Notes when each line is drawn, and the longest time between two frames."""

_LIVE = "document.querySelector('structjob-logs')?.state === 'live'"
_NODES = "document.querySelector('structjob-logs').shadowRoot.querySelectorAll('*').length + document.querySelectorAll('*').length"


@contextmanager
def followed(*, own: bool = False, steps: int = 0) -> Iterator[tuple[Any, Any, Any, int]]:
    """A page of a running job: its writer, the page, its CPU seconds, and the server's process.

    With *own*, the pages are served by the process of the job.
    """
    from playwright.sync_api import sync_playwright

    port = free_port() if own else 0
    command = [sys.executable, "-c", _WRITER, URL, str(port), str(steps)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    assert writer.stdout is not None

    def write(lines: int, times: int = 1) -> list[tuple[int, float]]:
        print(lines, times, file=writer.stdin, flush=True)
        assert writer.stdout is not None
        found: list[tuple[int, float]] = json.loads(writer.stdout.readline())
        return found

    @contextmanager
    def serving() -> Iterator[tuple[int, int]]:
        if own:
            yield writer.pid, port
        else:
            with served() as (server, its_port):
                yield server.pid, its_port

    try:
        writer.stdout.readline()
        with serving() as (pid, at), sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

            def used() -> float:
                found = devtools.send("Performance.getMetrics")["metrics"]
                return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

            page.goto(f"http://127.0.0.1:{at}/jobs/live")
            while not page.evaluate(_LIVE):
                page.wait_for_timeout(20)
            page.wait_for_timeout(1_500)  # the strip and what else comes later
            page.evaluate(_WATCH)
            yield write, page, used, pid
            browser.close()
    finally:
        writer.stdin.close()
        writer.wait(30)
        writer.stdout.close()


def _until_seen(page: Any, number: int) -> None:
    while not page.evaluate(f"window.seen.has({number})"):
        page.wait_for_timeout(20)


def burst(*, lines: int, **_: int) -> dict[str, float]:
    """Log *lines* in one burst in another process, and return when the last one was drawn."""
    with followed() as (write, page, used, pid):
        server, browser = cpu(pid), used()
        ((last, stored),) = write(lines)
        _until_seen(page, last)
        return {
            "late_ms": page.evaluate(f"window.seen.get({last})") - 1000 * stored,
            "frame_ms": page.evaluate("window.longest"),
            "nodes": page.evaluate(_NODES),
            "server_ms": 1000 * (cpu(pid) - server),
            "browser_ms": 1000 * (used() - browser),
        }


def latency(*, own: bool, singles: int, **_: int) -> dict[str, float]:
    """Log single lines, and return the time from their commits until they were drawn."""
    with followed(own=own) as (write, page, _used, _pid):
        stored = write(1, singles)
        _until_seen(page, stored[-1][0])
        late = [page.evaluate(f"window.seen.get({n})") - 1000 * at for n, at in stored]
        return {"p95_ms": statistics.quantiles(late, n=20)[-1], "p50_ms": statistics.median(late)}


def running(*, steps: int, seconds: int, **_: int) -> dict[str, float]:
    """Return what the page of a job with *steps* running steps takes of a core at rest."""
    with followed(steps=steps) as (_write, page, used, pid):
        server, browser = cpu(pid), used()
        page.wait_for_timeout(1_000 * seconds)
        return {
            "page_percent": 100 * (used() - browser) / seconds,
            "server_percent": 100 * (cpu(pid) - server) / seconds,
        }


def server(*, idle: int, pages: int, **_: int) -> dict[str, float]:
    """Return what pages of 1,000 lines, the import and the end with *idle* streams take."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    program = "import time; began = time.process_time(); import structjob.web; print(1000 * (time.process_time() - began))"
    imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    command = [sys.executable, "-c", _WRITER, URL, "0", "0"]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdout.readline()
    print(1_000, 1, file=writer.stdin, flush=True)
    writer.stdout.readline()
    try:
        with served() as (process, port):
            address = f"http://127.0.0.1:{port}/api/v1/logs?job=live&limit=1000"
            urllib.request.urlopen(address).close()
            before = cpu(process.pid)
            for _ in range(pages):
                with urllib.request.urlopen(address) as answer:
                    answer.read()
            page_ms = 1000 * (cpu(process.pid) - before) / pages
            following = [sys.executable, "-c", FOLLOWERS, str(port), str(idle), "0", "live"]
            followers = subprocess.Popen(following, stdout=subprocess.PIPE)
            assert followers.stdout is not None
            followers.stdout.readline()
            began = time.perf_counter()
            process.terminate()
            process.wait(30)
            ended_ms = 1000 * (time.perf_counter() - began)
            followers.kill()
            followers.wait()
            followers.stdout.close()
    finally:
        writer.stdin.close()
        writer.wait(30)
        writer.stdout.close()
    return {"page_ms": page_ms, "ended_ms": ended_ms, "import_ms": float(imported.stdout)}


_BROWSER = ("playwright",)

BENCHMARK = Benchmark(
    name="b23",
    title="the pages while lines arrive, and their server, SQLite",
    cases=(
        Case("burst", burst, needs=_BROWSER),
        Case("same process", latency, needs=_BROWSER, options={"own": True}),
        Case("another process", latency, needs=_BROWSER, options={"own": False}),
        Case("running steps", running, needs=_BROWSER),
        Case("server", server, needs=("fastapi",)),
    ),
    rows=(
        Row("B23", "40,000 lines in a burst: the last one drawn after its commit", "late_ms", "ms", "burst", at_most=1_000),
        Row("B23", "the longest frame meanwhile", "frame_ms", "ms", "burst", at_most=100),
        Row("B23", "elements of the page after it", "nodes", "", "burst", at_most=1_500),
        Row("B23", "CPU time of the server for it", "server_ms", "ms", "burst"),
        Row("B23", "CPU time of the page for it", "browser_ms", "ms", "burst"),
        Row("B23", "a line on screen after its commit in the same process, p95", "p95_ms", "ms", "same process", at_most=300),
        Row("B23", "the same, of another process", "p95_ms", "ms", "another process", at_most=1_500),
        Row("B23", "the page of a job with 100 running steps, of a core", "page_percent", "%", "running steps", at_most=10),
        Row("B23", "its server, of a core", "server_percent", "%", "running steps"),
        Row("B23", "a page of 1,000 lines, CPU time of the server", "page_ms", "ms", "server", at_most=150),
        Row("B23", "the end of a server with 1,000 streams", "ended_ms", "ms", "server", at_most=1_000),
        Row("B23", "CPU time of `import structjob.web`", "import_ms", "ms", "server", at_most=1_500),
    ),
    size={"lines": 40_000, "singles": 100, "steps": 100, "seconds": 10, "idle": 1_000, "pages": 20},
    smoke={"lines": 1_000, "singles": 3, "steps": 3, "seconds": 1, "idle": 5, "pages": 2},
    rounds=1,
)  # fmt: skip
