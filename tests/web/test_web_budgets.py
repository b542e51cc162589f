"""What a page costs: bytes and requests."""

from __future__ import annotations

import pytest

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
