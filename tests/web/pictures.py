"""Takes the pictures of the documentation: each page with the story, in both themes.

PYTHONPATH=tests python tests/web/pictures.py docs/images
PYTHONPATH=tests python tests/web/pictures.py docs/images jobs overview
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import story
from conftest import AT_END, CHROMIUM, ROOT, ask, serve, stop, until
from playwright.sync_api import Page, Playwright, sync_playwright

STRIP = "structjob-logs .strip svg"
PAGES = {
    "running": ("jobs/gui-21", ".overall b", STRIP),
    "overview": ("", ".through svg.chart g", ".ops tbody svg"),
    "jobs": ("jobs", ".segs b", "td a[title$=' lines']"),
    "job": ("jobs/gui-17", ".side a[href*='errors/']", STRIP),
    "logs": ("logs?since=-3h&hl=slow", ".histo svg", "structjob-logs mark", STRIP),
    "errors": ("errors", "tbody svg"),
    "error": ("errors/{error}", ".errsum svg", "structjob-logs .row.cursor"),
    "sessions": ("sessions", "tbody td"),
    "storage": ("storage", "tbody td"),
}
"""The address of each page, and what comes later than its frame: its numbers, charts and lines."""
RUNNING = """
import random, sys, time, structlog, structjob

structjob.configure(console=False)
log = structlog.get_logger("migrate.copy")
with structjob.Tracker(sys.argv[1], service="migrate") as tracker:
    vm = {"vm": {"name": "pg-01", "id": "vm-1121"}, "disks": 3}
    with tracker.job(
        "vm-migrate", external_job_id="gui-21", description="pg-01", owner="ada", metadata=vm
    ) as job:
        with job.step("discover"):
            time.sleep(4.1)
        with job.step("linstor-snapshot"):
            time.sleep(9.6)
        with job.step("copy", total=1200) as step:
            for number in range(1200):
                step.advance()
                log.info("block copied", part=number % 3 + 1, mib=64, ms=random.randint(40, 77))
                if number % 40 == 39:
                    log.warning("slow read", ms=random.randint(400, 900), volume="pg-01-disk-2")
                time.sleep(0.13)
"""
"""A job that runs for three minutes: its picture is taken when it is half done."""
HALF = 45
"""How many percent of its long step are done in the picture."""


def taken(page: Page, site: str, path: str, later: list[str]) -> bytes:
    """Return the picture of one page, once all of it is there."""
    page.goto(site + path)
    for selector in (*later, "header nav small:not(:empty)"):
        page.locator(selector).first.wait_for(state="attached")
    page.wait_for_load_state("networkidle")
    if path.startswith("logs"):
        until(page, AT_END)
    return page.screenshot()


def smaller(png: bytes) -> bytes:
    """Return a picture with a palette of its most frequent colors: a third of the size."""
    width, height, pixels = decoded(png)
    size = len(pixels) // (width * height)
    colors = [pixels[at : at + 3] for at in range(0, len(pixels), size)]
    chosen: list[bytes] = []
    for color, _ in Counter(colors).most_common():
        if len(chosen) < 256 and all(apart(color, one) > ALIKE for one in chosen):
            chosen.append(color)
    index = {one: min(range(len(chosen)), key=lambda n: apart(one, chosen[n])) for one in set(colors)}  # fmt: skip
    rows = b"".join(
        b"\0" + bytes(index[one] for one in colors[y * width : (y + 1) * width])
        for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = {
        b"IHDR": head,
        b"PLTE": b"".join(chosen),
        b"IDAT": zlib.compress(rows, 9),
        b"IEND": b"",
    }
    return png[:8] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )


ALIKE = 40
"""Colors whose squared distance is at most this share a place in the palette."""


def apart(one: bytes, other: bytes) -> int:
    """Return the squared distance of two colors."""
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2 + (one[2] - other[2]) ** 2


def decoded(png: bytes) -> tuple[int, int, bytes]:
    """Return width, height and pixels of a picture with 8 bits a channel."""
    width, height, _, kind = struct.unpack(">IIBB", png[16:26])
    size = {2: 3, 6: 4}[kind]
    packed, at = b"", 8
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        packed += png[at + 8 : at + 8 + length] if name == b"IDAT" else b""
        at += length + 12
    raw, before, out = zlib.decompress(packed), bytes(width * size), bytearray()
    for y in range(height):
        start = y * (width * size + 1)
        method, row = raw[start], bytearray(raw[start + 1 : start + 1 + width * size])
        for x in range(len(row)) if method else ():
            left = row[x - size] if x >= size else 0
            above, corner = before[x], before[x - size] if x >= size else 0
            near = left + above - corner
            nearest = min((left, above, corner), key=lambda one: abs(near - one))
            row[x] = (row[x] + (0, left, above, (left + above) // 2, nearest)[method]) & 255
        before = bytes(row)
        out += row
    return width, height, bytes(out)


def main(target: Path, *wanted: str) -> None:
    """Take the pictures of these pages, by default of all."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        story.write(directory / "story.jsonl")
        url = f"sqlite:///{directory}/prod.db"
        command = [sys.executable, "-m", "structjob", "--db", url, "import"]
        subprocess.run([*command, str(directory / "story.jsonl")], cwd=ROOT, check=True)
        running = subprocess.Popen([sys.executable, "-c", RUNNING, url], cwd=ROOT)
        server, site = serve(url, cwd=directory)  # the header shows ./prod.db
        try:
            with sync_playwright() as driver:
                found = take_all(driver, site, wanted or tuple(PAGES))
        finally:
            stop(server)
            stop(running)
    for name, picture in found.items():
        file = target / name
        file.write_bytes(smaller(picture))
        print(file, file.stat().st_size)


def take_all(driver: Playwright, site: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Take the pictures of these pages, in both themes; return them by the names of their files."""
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    error = next(
        one["fingerprint"]
        for one in ask(site, "errors")
        if one["error"]["type"] == story.CHECKSUM[0]
    )
    pages = {
        theme: browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=theme)
        for theme in ("light", "dark")
    }
    while done(ask(site, "jobs/gui-21/progress")) < HALF:
        time.sleep(1)
    found = {}
    for name in wanted:
        path, *later = PAGES[name]
        for theme, page in pages.items():
            picture = taken(page, site, path.format(error=error), later)
            found[f"web-{name}-{theme}.png"] = picture
    browser.close()
    return found


def done(progress: dict[str, Any]) -> float:
    """Return how many percent of its long step the running job has done."""
    return max((one["percent_complete"] or 0 for one in progress["running_steps"]), default=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
