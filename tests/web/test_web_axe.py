"""What axe finds in the pages: nothing serious, in both themes (R47)."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

VERSION = "4.14.1"
PAGES = {
    "overview": "",
    "jobs": "jobs",
    "job": "jobs/gui-17",
    "tree": "jobs/gui-17?view=tree",
    "flat": "jobs/gui-17?view=flat",
    "logs": "logs?since=-24h",
    "logs-empty": "logs?level=error&logger=migrate.nosuch",
    "errors": "errors",
    "error": "errors",  # the first of them is opened
    "sessions": "sessions",
    "storage": "storage",
    "not-found": "jobs/nosuch",
}


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """The script of axe, as npm has it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: axe comes from there")
    directory: Path = tmp_path_factory.mktemp("axe")
    subprocess.run(
        [npm, "pack", f"axe-core@{VERSION}"], cwd=directory, check=True, capture_output=True
    )
    (tarball,) = directory.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def serious(page, axe: str) -> list[str]:
    """Return what axe finds in each theme, each with where it is."""
    page.evaluate(axe)
    found = []
    # A theme is colors alone, so the other rules find the same in both.
    for theme, rules in (
        ("light", ""),
        ("dark", "runOnly: ['color-contrast', 'link-in-text-block'], "),
    ):
        page.emulate_media(color_scheme=theme)
        how = f"{{{rules}resultTypes: ['violations']}}"
        violations = page.evaluate(f"axe.run(document, {how})")["violations"]
        found += [
            f"{theme}: {one['impact']} {one['id']}: {node['target']} {node['failureSummary']}"
            for one in violations
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_serious_finding(site, watched, axe, name):
    """(R47)"""
    watched.expected = ("404",)  # of the job that there is not
    page = watched.page(bypass_csp=True, shared=True)
    page.goto(site + PAGES[name])
    page.wait_for_load_state("networkidle")
    if name == "error":
        page.locator("main a[href*='/errors/']").first.click()
        page.wait_for_load_state("networkidle")
    until(page, "document.querySelector('main')?.innerText.trim()")
    assert serious(page, axe) == []


@pytest.mark.parametrize("key", ["?", "/"])
def test_a_dialog_has_no_serious_finding(site, watched, axe, key):
    """(R47)"""
    page = watched.page(bypass_csp=True, shared=True)
    page.goto(site)
    page.wait_for_load_state("networkidle")
    page.keyboard.press(key)
    page.get_by_role("dialog").wait_for()
    assert serious(page, axe) == []
