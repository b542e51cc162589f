"""The pages in a browser, in a few seconds: see ``test_web_pages.py`` for all of them."""

from __future__ import annotations


def test_a_failed_job_opens_at_the_error_of_its_failed_step(site, watched):
    """From the list of jobs a click leads to the job, and there to the line that matters (R47)."""
    page = watched.page(shared=True)
    page.goto(f"{site}jobs?q=pg-07")
    page.get_by_role("link", name="vm-migrate").first.click()
    row = page.locator("structjob-logs .row.cursor")
    row.wait_for()
    assert "checksum mismatch" in row.inner_text()
    assert "migrate/verify.py:88 in verify_part" in row.inner_text()
    assert page.get_by_role("heading", level=1).inner_text().split("\n")[-1] == "failed in verify"
    assert page.url.endswith("/jobs/gui-17")
