"""Jobs, their progress, steps, attempts and trees."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field

from structjob.exceptions import JobNotFound
from structjob.models import AttemptRecord, JobProgress, JobRecord, JobTree, StepRecord
from structjob.reader import Reader
from structjob.statistics import Estimate
from structjob.statuses import JobStatus, StepStatus
from structjob.web.answers import PageOf, Reads, Writes, by_of, page_of, reads
from structjob.web.body import body_as
from structjob.web.params import Asked, AttemptQuery, Flag, JobQuery, NoQuery, Query

router = APIRouter(tags=["jobs"])


_COUNTING = 0.1
"""Seconds after which no further 100,000 events of a job are counted."""


class EventCounts(msgspec.Struct):
    """How many events a job has, by level.

    ``partial``: the job has so many that there was time for the newest ``looked_at`` only; all
    from ``counted_since`` on are counted.
    """

    by_level: dict[str, int]
    partial: bool
    looked_at: int
    counted_since: datetime | None


class JobDetail(msgspec.Struct):
    """A job with its most important details, as a page about it needs them."""

    job: JobRecord
    progress: JobProgress
    estimate: Estimate
    """Of the whole job: those of its steps are at ``/jobs/{id}/estimate``."""
    lost_events: dict[str, int]
    """How many of its events were dropped, by reason."""
    events: EventCounts | None
    """Of the job and its steps, in all attempts; child jobs have their own. None with
    ``events=0``.
    """


class Related(msgspec.Struct):
    """A parent or a child of a job."""

    id: str
    operation: str
    status: JobStatus
    percent: float | None


class LiveProgress(msgspec.Struct):
    """The progress of a job, with its running steps, its parent and its children."""

    job_id: str
    status: JobStatus
    operation: str
    completed_steps: int
    total_steps: int
    step_completion: float
    runtime_seconds: float
    percent: float
    current_step: str | None
    attempt: int
    external_job_id: str | None
    context_id: str | None
    parent: Related | None
    children: list[Related]
    running_steps: list[StepRecord]


class DetailQuery(Query):
    """Parameters of a job."""

    events: Flag = Field(default=True, description="Count its events by level.")


class StepsQuery(Query):
    """Parameters of a list of steps."""

    attempt: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Of this attempt; by default of the latest."
    )


class TreeQuery(Query):
    """Parameters of a tree."""

    depth: int = Field(default=3, ge=0, le=100, description="Levels of child jobs.")
    limit: int = Field(default=5_000, ge=1, le=100_000, description="Jobs and steps in all.")


class TreeNode(msgspec.Struct):
    """A job, its steps and its child jobs; ``folded`` is the number of those left out."""

    job: JobRecord
    steps: list[StepRecord]
    children: list[TreeNode]
    folded: int = 0


@reads(router, "/jobs", PageOf[JobRecord])
async def list_jobs(reader: Reads, query: Asked[JobQuery]) -> Any:
    """List jobs, the newest first."""
    return page_of(await reader.jobs.list(query.filter(), cursor=query.cursor))


@reads(router, "/jobs/{id:id}", JobDetail, problems=(404,), etag=True)
async def get_job(reader: Reads, id: str, query: Asked[DetailQuery]) -> Any:
    """Return a job by any id: its id, external id or context id."""
    job = await reader.jobs.find(id)
    progress, estimate, lost, events = await asyncio.gather(
        reader.jobs.progress(job.id),
        reader.jobs.estimate(job.id, steps=False),
        reader.jobs.lost_events(job.id),
        _events_of(reader, job.id, query.events),
    )
    return JobDetail(job, progress, estimate, lost, events)


async def _events_of(reader: Reader, job_id: str, wanted: bool) -> EventCounts | None:
    if not wanted:
        return None
    found = await reader.logs.histogram(
        job_id=job_id, children=False, buckets=1, max_seconds=_COUNTING
    )
    by_level = {level: n for bar in found.bars for level, n in sorted(bar.counts.items())}
    return EventCounts(by_level, found.partial, found.looked_at, found.counted_since)


@reads(router, "/jobs/{id:id}/progress", LiveProgress, problems=(404,), etag=True)
async def get_progress(reader: Reads, id: str, query: Asked[NoQuery]) -> Any:
    """Return the progress of a job, by any id, with its running steps, its parent and its
    children.
    """
    progress = await reader.jobs.progress(id)
    steps = await reader.jobs.steps(progress.job_id)
    children = await reader.jobs.list(parent_job_id=progress.job_id, order="asc", limit=1_000)
    parent = None
    if progress.parent_job_id is not None:
        with suppress(JobNotFound):  # it is in another database, or was pruned
            parent = await reader.jobs.get(progress.parent_job_id)
    same = {field.name for field in fields(progress)}.intersection(LiveProgress.__struct_fields__)
    return LiveProgress(
        **{name: getattr(progress, name) for name in same},
        parent=None if parent is None else _related(parent),
        children=[_related(child) for child in children],
        running_steps=[step for step in steps if step.status is StepStatus.RUNNING],
    )


@reads(router, "/jobs/{id:id}/tree", TreeNode, problems=(404,), etag=True)
async def get_tree(reader: Reads, id: str, query: Asked[TreeQuery]) -> Any:
    """Return a job with its steps and child jobs, recursively."""
    tree = await reader.jobs.tree(id)
    return cut(tree, query.depth, query.limit)


@reads(router, "/jobs/{id:id}/steps", list[StepRecord], problems=(404,), etag=True)
async def list_steps(reader: Reads, id: str, query: Asked[StepsQuery]) -> Any:
    """List the steps of a job in their order."""
    return await reader.jobs.steps(id, query.attempt)


@reads(router, "/jobs/{id:id}/attempts", list[AttemptRecord], problems=(404,), etag=True)
async def list_attempts_of_job(reader: Reads, id: str, query: Asked[NoQuery]) -> Any:
    """List the attempts of a job, oldest first."""
    return await reader.jobs.history(id)


@reads(router, "/jobs/{id:id}/estimate", Estimate, problems=(404,), etag=True)
async def get_estimate(reader: Reads, id: str, query: Asked[NoQuery]) -> Any:
    """Return the expected durations of a job and its steps, based on earlier ones."""
    return await reader.jobs.estimate(id)


@reads(router, "/attempts", PageOf[AttemptRecord])
async def list_attempts(reader: Reads, query: Asked[AttemptQuery]) -> Any:
    """List attempts of all jobs, newest first."""
    return page_of(await reader.jobs.history(filter=query.filter(), cursor=query.cursor))


class CancelRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Why a job is cancelled."""

    reason: str | None = None
    force: bool = False
    """Cancel again a job that is being cancelled already: this interrupts its cleanup."""


class Cancelling(msgspec.Struct):
    """The status of a job after the cancellation was requested."""

    id: str
    status: JobStatus


@reads(
    router,
    "/jobs/{id:id}/cancel",
    Cancelling,
    body=CancelRequest,
    problems=(404, 409),
    write=True,
    status=202,
)
async def cancel_job(request: Request, source: Writes, id: str, query: Asked[NoQuery]) -> Any:
    """Request the cancellation of a job, wherever it runs."""
    wanted = await body_as(request, CancelRequest)
    job = await source.reader.jobs.find(id)
    async with source.writing() as tracker:
        await tracker.cancel(job.id, wanted.reason, by=by_of(request), force=wanted.force)
    return Cancelling(job.id, (await source.reader.jobs.get(job.id)).status)


def cut(tree: JobTree, depth: int, limit: int) -> TreeNode:
    """Return *tree* without the levels below *depth*, and with at most *limit* jobs and steps.

    The tree is cut breadth first. The jobs and steps left out are counted.
    """
    root = TreeNode(tree.job, [], [])
    left = limit - 1
    waiting = [(tree, root, 0)]
    for whole, node, level in waiting:  # it grows during the iteration
        node.steps = list(whole.steps[: max(0, left)])
        left -= len(node.steps)
        node.folded += len(whole.steps) - len(node.steps)
        for child in whole.children:
            if level == depth or left <= 0:
                node.folded += size(child)
                continue
            left -= 1
            below = TreeNode(child.job, [], [])
            node.children.append(below)
            waiting.append((child, below, level + 1))
    return root


def size(tree: JobTree) -> int:
    """Return how many jobs and steps a tree has."""
    total = 0
    waiting = [tree]
    for one in waiting:  # it grows during the iteration
        total += 1 + len(one.steps)
        waiting += one.children
    return total


def _related(job: JobRecord) -> Related:
    return Related(job.id, job.operation, job.status, job.percent_complete)
