"""Where the application stands behind a proxy that keeps its prefix (R45)."""

from __future__ import annotations

import pytest

from structjob.web.prefix import prefix_of


@pytest.mark.parametrize("prefix", ["/ops", "/ops/jobs", "/a b/api"])
@pytest.mark.parametrize(
    "path",
    ["/", "/jobs", "/jobs/gui-17", "/logs", "/errors/1f2e", "/sessions/7", "/storage", "/login",
     "/metrics", "/api/v1/jobs/jobs", "/api/v1/stream/ws", "/static/1f2e/pages/job.js"],
)  # fmt: skip
def test_a_prefix_is_what_stands_before_a_known_path(prefix, path):
    """Pages, files and the API are found below any prefix, and without one."""
    assert prefix_of(prefix + path) == prefix
    assert prefix_of(path) == ""


@pytest.mark.parametrize("path", ["/jobs/", "/jobs/gui-17/", "/jobs/logs", "/jobs/login"])
def test_what_is_a_page_without_a_prefix_has_none(path):
    """Ids that are named like a page are ids."""
    assert prefix_of(path) == ""


def test_an_unknown_path_has_none():
    """It is not found, as before."""
    assert prefix_of("/a/b/nothing") == ""
