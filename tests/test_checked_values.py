"""Every value is checked when it is given, and no value keeps a job's or step's final state from
the database.
"""

import logging
import types

import pytest
from msgspec.structs import replace
from sqlalchemy import select

import structjob
from structjob import InvalidArgument
from structjob.lifecycle.attributes import Checked
from structjob.lifecycle.described_job import DescribedJob
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.rows import JobRow, StepRow
from structjob.lifecycle.step_core import StepCore
from structjob.store import tables

TEXTS = {
    "owner": 128, "project": 128, "category": 64, "job_type": 128, "external_job_id": 255, "context_id": 64, "operation": 255,
    "correlation_id": 128, "description": 65_536, "idempotency_key": 255, "parent_job_id": 64, "root_job_id": 64,
}  # fmt: skip


OPTIONS = [name for name in TEXTS if name not in ("operation", "parent_job_id", "root_job_id")]


async def test_a_wrong_value_raises_where_it_is_given(any_tracker):
    """faults 33c: `owner="x" * 300` raises where the job is made, and `job.metadata = [1]` where it
    is written; the job ends as it ends.
    """
    async with any_tracker.job("a", owner="ada") as job, job.step("s"):
        for name in OPTIONS:
            for wrong in ("x" * (TEXTS[name] + 1), 5, "", b"x"):
                with pytest.raises(InvalidArgument, match=f"{name} must "):
                    any_tracker.job("b", **{name: wrong}).begin()
        for wrong in ("seven", -1, float("nan"), 10**400, True):
            with pytest.raises(InvalidArgument, match="total must be a number"):
                job.step("b", total=wrong)
            with pytest.raises(InvalidArgument, match="total_steps must be a number"):
                job.total_steps = wrong
        with pytest.raises(InvalidArgument, match="metadata must be a mapping"):
            job.metadata = [1]
        job.metadata = {"n": 1}
    (record,) = await any_tracker.jobs.list()
    assert (record.status, record.owner, record.metadata) == ("completed", "ada", {"n": 1})
    assert any_tracker.ledger().dead_lettered == 0


def test_each_text_column_has_its_limit():
    """faults 33c: the limits are those of the columns."""
    checked = {
        name
        for kind in (DescribedJob, StepCore)
        for name, value in vars(kind).items()
        if isinstance(value, Checked)
    }
    assert checked >= set(TEXTS) | {"id", "name", "total", "metadata"}
    for name, limit in TEXTS.items():
        if name != "description":
            assert tables.jobs.c[name].type.length == limit


async def test_what_json_does_not_know_ends_no_work(db_url):
    """faults 33c: whatever a program does to a handle, leaving the block raises nothing, and the
    final status is stored.
    """
    structjob.configure(console=False)
    async with structjob.Tracker(db_url) as tracker:
        async with tracker.job("a") as job, job.step("s") as step:
            inner, within = core_of(job), core_of(step)
            inner.error, within.completed, within.seq, inner.claim.attempt = (
                "broken",
                types.SimpleNamespace(a=1),
                1,
                1,
            )
        assert [record.status for record in await tracker.jobs.list()] == ["completed"]
        assert [record.status for record in await tracker.jobs.steps(job.id)] == ["completed"]


@pytest.mark.parametrize(("row", "table"), [(JobRow, tables.jobs), (StepRow, tables.steps)])
def test_a_recorded_row_has_the_columns_of_its_table(row, table):
    """R2, R3: a change of state records each column; the delivery adds its session and number."""
    recorded = {*row.__struct_fields__} - {"provisional"} | {"session_id", "state_seq"}
    assert recorded == {column.name for column in table.columns}


BAD = {
    "owner": "x" * 300,
    "project": ["p"],
    "duration_ms": "long",
    "max_rss_kb": 2**70,
    "percent_complete": "half",
    "error_type": "\x00" * 300,
    "current_step": 5,
    "description": "\x00",
}


@pytest.mark.parametrize("name", BAD)
async def test_a_record_that_a_database_refuses_is_stored_without_what_does_not_fit(
    any_tracker, caplog, monkeypatch, name
):
    """faults 33c: the final status never depends on another value of the row; what was refused is
    among the dead letters.
    """
    row = JobCore._row
    async with any_tracker.job("a", owner="ada", metadata={"n": 1}) as job, job.step("s"):
        bad = {name: BAD[name]}
        monkeypatch.setattr(JobCore, "_row", lambda self: replace(row(self), **bad))
    record = await any_tracker.jobs.get(job.id)
    assert (record.status, record.metadata) == ("completed", {"n": 1})
    assert [step.status for step in await any_tracker.jobs.steps(job.id)] == ["completed"]
    letters = await any_tracker._store.fetch(select(tables.dead_letters.c.payload))
    told = [
        line
        for line in caplog.records
        if line.levelno == logging.WARNING and "refuses a value of job" in line.getMessage()
    ]
    assert len(told) == len(letters)
    # SQLite takes what is of another type
    if name in ("owner", "duration_ms", "max_rss_kb", "percent_complete", "error_type"):
        assert letters or any_tracker._store.masked_url.startswith("sqlite")
