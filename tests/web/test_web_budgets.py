"""What a page costs: bytes, requests, time to the first line, a burst of lines."""

from __future__ import annotations

import time

import pytest
from conftest import VIEWER, mark, pages_of, running_job, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("path", ["", "jobs", "jobs/gui-17", "logs?since=-3h"])
def test_a_first_visit_loads_little_and_nothing_from_elsewhere(
    site, watched, path, record_property
):
    """At most 60 kB of scripts, 12 kB of style and 25 requests (R47)."""
    page = watched.page()
    answers: list = []
    page.on("response", lambda answer: answers.append(answer))
    page.goto(site + path)
    page.wait_for_load_state("networkidle")
    assert all(answer.url.startswith(site) for answer in answers)
    sizes = {"script": 0, "stylesheet": 0}
    for answer in answers:
        kind = answer.request.resource_type
        if kind in sizes:
            sizes[kind] += answer.request.sizes()["responseBodySize"]
    print(f"/{path}: {sizes['script'] / 1000:.1f} kB of scripts, {sizes['stylesheet'] / 1000:.1f} kB of style, {len(answers)} requests")  # fmt: skip
    record_property("script_bytes", sizes["script"])
    record_property("requests", len(answers))
    assert len(answers) <= 25
    assert sizes["script"] <= 60_000
    assert sizes["stylesheet"] <= 12_000


def test_a_page_of_a_job_asks_for_it_once_before_its_scripts_have_started(site, watched):
    """The answers that the document asks for are those that the scripts take (R47)."""
    page = watched.page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    for address in ("jobs/gui-17", "jobs/gui-17/", "jobs/gui%2D17?level=error"):
        page.goto(site + address)
        page.locator("structjob-logs .row").first.wait_for()
        asked = page.evaluate("performance.getEntriesByType('resource').filter((one) => one.name.includes('/api/v1/jobs/gui-17')).map((one) => [new URL(one.name).pathname.split('/gui-17')[1], one.initiatorType])")  # fmt: skip
        assert sorted(asked) == [["", "link"], ["/attempts", "link"], ["/tree", "link"]]
    assert [one for one in said if "preload" in one] == []


def test_a_burst_of_40000_lines_is_drawn_soon_after_its_end(tmp_path, watched, record_property):
    """The page shows each line once, and stays small, while another process logs 40,000 lines (R44,
    R47). The mark is 1 s after the commit, and frames of 100 ms; the bound holds on a busy machine.
    """
    url = f"sqlite:///{tmp_path}/burst.db"
    with running_job(url, "burst-1") as write, pages_of(url) as site:
        page = watched.page()
        page.goto(f"{site}jobs/burst-1")
        until(page, f"{VIEWER}?.state === 'live'")
        page.evaluate(
            "() => { window.longest = 0; let last = performance.now(); const next = (now) => { window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(next); }; requestAnimationFrame(next); }"
        )
        write(40_000)
        stored = time.monotonic()
        until(page, f"{VIEWER}.lines.length >= 40000", 60)
        late = time.monotonic() - stored
        longest = page.evaluate("window.longest")
        nodes = page.evaluate(f"{VIEWER}.shadowRoot.querySelectorAll('*').length + document.querySelectorAll('*').length")  # fmt: skip
        print(f"last line {late:.2f} s after its commit, longest frame {longest:.0f} ms, {nodes} nodes")  # fmt: skip
        record_property("seconds_after_commit", late)
        record_property("longest_frame_ms", longest)
        numbers = page.evaluate(f"{VIEWER}.lines.map((one) => one.seq)")
        assert len(numbers) == len(set(numbers))
        assert nodes <= 1_500
        assert late <= mark(1, 6)
        assert longest <= mark(100, 500)
        page.close()
