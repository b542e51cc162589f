"""What can be changed over HTTP: cancelling, resolving, pruning."""

from __future__ import annotations

import asyncio

import pytest
from web_support import client, some_work

WRITE = {"X-Structjob": "1"}


@pytest.fixture(params=["tracker", "url"])
async def web(tracker, db_url, request):
    """A client of an application with the tracker, and of one that was given its database."""
    given = tracker if request.param == "tracker" else db_url
    async with client(given) as opened:
        opened.headers.update(WRITE)
        yield opened


async def test_a_running_job_is_cancelled_with_the_reason(web, tracker):
    """(R9, R46)"""
    started = asyncio.Event()

    async def work():
        async with tracker.job("long", external_job_id="gui-1"):
            started.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await started.wait()
    answer = await web.post("jobs/gui-1/cancel", json={"reason": "the disk is needed"})
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] in ("running", "cancelled")
    with pytest.raises(asyncio.CancelledError):
        await task
    job = await tracker.jobs.find("gui-1")
    assert (job.status, job.error.message) == ("cancelled", "the disk is needed")
    answer = await web.post("jobs/gui-1/cancel", json={})
    assert (answer.status_code, answer.json()["status"]) == (409, 409)


async def test_a_body_that_is_not_understood_changes_nothing(web, tracker):
    """(R46)"""
    job = await tracker.create_job("later")
    for options, status in (
        ({"content": b"{"}, 415),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"json": {"raeson": "x"}}, 400),
        ({"json": {"reason": "x" * 70_000}}, 413),
        ({"json": {"reason": "x" * 3_000}}, 400),
        ({"json": []}, 400),
    ):
        answer = await web.post(f"jobs/{job.id}/cancel", **options)
        assert answer.status_code == status, answer.text
        assert (await tracker.jobs.get(job.id)).status == "pending"


async def test_an_error_is_resolved_and_reopened(web, tracker):
    """(R39, R46)"""
    await some_work(tracker)
    (group,) = (await web.get("errors")).json()
    address = f"errors/{group['fingerprint']}"
    resolved = await web.post(f"{address}/resolve", json={"by": "ada"})
    assert (resolved.json()["status"], resolved.json()["resolved_by"]) == ("resolved", "ada")
    assert (await web.get("errors?status=open,regressed")).json() == []
    assert (await web.post(f"{address}/reopen")).json()["status"] == "open"
    assert (await web.post("errors/nothing/resolve")).status_code == 404
    detail = (await web.get(address)).json()
    assert detail["first"]["fingerprint"] == group["fingerprint"]


async def test_pruning_counts_before_it_deletes(web, tracker):
    """(R41, R46)"""
    await some_work(tracker)
    preview = (await web.get("retention?days=0")).json()
    assert preview["dry_run"]
    assert preview["jobs"] == 2
    answer = await web.post("retention/prune", json={"days": 0})
    assert (answer.json()["dry_run"], answer.json()["jobs"]) == (True, 2)
    answer = await web.post("retention/prune", json={"days": 0, "dry_run": False})
    assert (answer.json()["dry_run"], answer.json()["jobs"]) == (False, 2)
    assert (await web.get("jobs")).json()["items"] == []
    assert (await web.post("retention/prune", json={})).status_code == 400


async def test_a_server_that_only_reads_refuses_and_says_why(tracker):
    """(R46)"""
    async with client(tracker, read_only=True) as web:
        answer = await web.post("retention/prune", json={"days": 0}, headers=WRITE)
        assert (answer.status_code, "read-only" in answer.json()["detail"]) == (403, True)
