"""How each database runs the questions of the public API, on a history of some size: by which
index, and without sorting a table.
"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from statistics_support import events_of_large_jobs

from benchmarks.generate import fill
from benchmarks.history import UNTIL, History
from structjob.queries.errors import Errors
from structjob.queries.jobs import Jobs, lookups_of
from structjob.queries.logs import Logs
from structjob.queries.session_status import Sessions
from structjob.queries.statistics import Statistics
from structjob.store.tables import logs

HOUR = {"since": UNTIL - timedelta(hours=5), "until": UNTIL - timedelta(hours=4)}
PAGE = {"limit": 5}

# Name → the question, and a part of the name of every index that it may go by, on whichever
# database; "key" is a primary key.
OF_A_SESSION = "logs_by_session|autoindex_structjob_logs"
PAGES_OF_EVENTS = {
    "all, oldest first": (lambda a: a.logs.list(**PAGE), "logs_by_time"),
    "all, newest first": (lambda a: a.logs.list(order="desc", **PAGE), "logs_by_time"),
    "of an hour": (lambda a: a.logs.list(**HOUR, **PAGE), "logs_by_time"),
    "old ones": (lambda a: a.logs.list(until=HOUR["until"], **PAGE), "logs_by_time"),
    "of a job": (lambda a: a.logs.list(job_id=a.job, **PAGE), "logs_by_job"),
    "of a job, newest first": (
        lambda a: a.logs.list(job_id=a.job, order="desc", **PAGE),
        "logs_by_job",
    ),
    "of a step": (lambda a: a.logs.list(step_id=a.step, **PAGE), "logs_by_step"),
    "of a correlation": (
        lambda a: a.logs.list(correlation_id=a.correlation, **PAGE),
        "attempts_by_correlation.*logs_by_correlation",
    ),
    "of a job, further on": (lambda a: a.further(a.logs, job_id=a.job), "logs_by_job"),
    "errors": (lambda a: a.logs.list(level="error", order="desc", **PAGE), "logs_by_level"),
    "errors, further on": (
        lambda a: a.further(a.logs, level="error", order="desc"),
        "logs_by_level",
    ),
    "old errors": (
        lambda a: a.logs.list(level="error", until=HOUR["until"], **PAGE),
        "logs_by_level",
    ),
    "of many levels": (lambda a: a.logs.list(level="info", order="desc", **PAGE), "logs_by_time"),
    "of the usual level": (
        lambda a: a.logs.list(levels="info", **PAGE),
        "logs_by_time",
    ),
    "of a rare level": (
        lambda a: a.logs.list(levels="debug", **PAGE),
        "logs_by_level|logs_by_time",
    ),
    "of a type": (lambda a: a.logs.list(type="system", **PAGE), "logs_by_type|logs_by_time"),
    "of a category": (
        lambda a: a.logs.list(category="billing", **PAGE),
        "logs_by_category|logs_by_time",
    ),
    "of two levels": (lambda a: a.logs.list(levels=("warning", "error"), **PAGE), "logs_by_level"),
    "of two levels, one of them usual": (
        lambda a: a.logs.list(levels=("info", "error"), **PAGE),
        "logs_by_time",
    ),
    "of the usual type": (lambda a: a.logs.list(type="task", **PAGE), "logs_by_time"),
    "of the usual category": (lambda a: a.logs.list(category="system", **PAGE), "logs_by_time"),
    "of two types": (
        lambda a: a.logs.list(type=("system", "task"), order="desc", **PAGE),
        "logs_by_type|logs_by_time",
    ),
    "of two categories": (
        lambda a: a.logs.list(category=("billing", "export"), **PAGE),
        "logs_by_category|logs_by_time",
    ),
    "of two jobs": (
        lambda a: a.logs.list(job_id=(a.job, a.other_job), children=False, **PAGE),
        "logs_by_job",
    ),
    "of a trace": (lambda a: a.logs.list(trace_id="nothing", **PAGE), "logs_by_time"),
    "by an item of a list": (
        lambda a: a.logs.list(attrs={"disks.name": "sda"}, **PAGE),
        "logs_by_time",
    ),
    "of two operations": (
        lambda a: a.logs.list(operation=("nothing", "never"), **PAGE),
        "logs_by_time",
    ),
    "by text": (lambda a: a.logs.list(text="nothing", **PAGE), "logs_by_time"),
    "by an attribute": (lambda a: a.logs.list(attrs={"nothing": 1}, **PAGE), "logs_by_time"),
    "of an operation": (lambda a: a.logs.list(operation="nothing", **PAGE), "logs_by_time"),
    "of a project, errors": (
        lambda a: a.logs.list(project="nothing", level="error", **PAGE),
        "logs_by_level",
    ),
}
OTHER_EVENTS = {
    "errors of a job": (lambda a: a.logs.list(job_id=a.job, level="error", **PAGE), "logs_by_job"),
    "of a job's tree": (lambda a: a.logs.list(job_id=a.job, children=True, **PAGE), "logs_by_job"),
    "of an error": (
        lambda a: a.logs.list(fingerprint=a.fingerprint, **PAGE),
        "logs_by_fingerprint",
    ),
    "of a session": (
        lambda a: a.logs.list(session_id=a.session, **PAGE),
        f"{OF_A_SESSION}|logs_by_time",
    ),
    "number of a job's": (lambda a: a.logs.count(job_id=a.job), "logs_by_job"),
    "number of an hour's errors": (lambda a: a.logs.count(level="error", **HOUR), "logs_by_level"),
    "around one, in its job": (lambda a: a.logs.around((a.session, a.seq)), "logs_by_job"),
    "around one, in its session": (
        lambda a: a.logs.around((a.session, a.seq), within="session"),
        OF_A_SESSION,
    ),
    "tail of a job": (lambda a: a.follow(job_id=a.job, last=2), "logs_by_job"),
    "tail": (lambda a: a.follow(last=2), OF_A_SESSION),
}
PAGES_OF_JOBS = {
    "all": (lambda a: a.jobs.list(**PAGE), "jobs_by_time"),
    "of an hour": (lambda a: a.jobs.list(**HOUR, **PAGE), "jobs_by_time"),
    "old ones that failed": (
        lambda a: a.jobs.list(status="failed", until=HOUR["until"], order="asc", **PAGE),
        "jobs_by_status",
    ),
    "of two statuses": (
        lambda a: a.jobs.list(status=("failed", "crashed"), **PAGE),
        "jobs_by_status",
    ),
    "of an operation": (
        lambda a: a.jobs.list(operation="user-export", **PAGE),
        "jobs_by_operation",
    ),
    "of a type": (lambda a: a.jobs.list(job_type="export", **PAGE), "jobs_by_type"),
    "of two operations": (
        lambda a: a.jobs.list(operation=("user-export", "vm-migrate"), **PAGE),
        "jobs_by_operation",
    ),
    "of two operations and statuses": (
        lambda a: a.jobs.list(
            operation=("user-export", "vm-migrate"), status=("failed", "crashed"), **PAGE
        ),
        "jobs_by_operation|jobs_by_status",
    ),
    "by metadata": (lambda a: a.jobs.list(metadata={"nothing": 1}, **PAGE), "jobs_by_time"),
    "slower than usual": (
        lambda a: a.jobs.list(slower=True, **HOUR, **PAGE),
        "jobs_by_time.*jobs_by_operation",
    ),
    "of an owner": (lambda a: a.jobs.list(owner="frances", **PAGE), "jobs_by_owner"),
    "of a project": (lambda a: a.jobs.list(project="venus", **PAGE), "jobs_by_project"),
    "of a category": (lambda a: a.jobs.list(category="export", **PAGE), "jobs_by_category"),
    "all, further on": (lambda a: a.further(a.jobs), "jobs_by_time"),
    "roots": (lambda a: a.jobs.list(root_only=True, **PAGE), "jobs_by_time.*key|key.*jobs_by_time"),
}
PAGES_OF_ATTEMPTS = {
    "all": (lambda a: a.jobs.history(**PAGE), "attempts_by_time"),
    "of an hour": (lambda a: a.jobs.history(**HOUR, **PAGE), "attempts_by_time"),
    "old ones, oldest first": (
        lambda a: a.jobs.history(until=HOUR["until"], order="asc", **PAGE),
        "attempts_by_time",
    ),
    "of two statuses": (
        lambda a: a.jobs.history(status=("failed", "crashed"), **PAGE),
        "attempts_by_time",
    ),
    "of an operation": (lambda a: a.jobs.history(operation="nothing", **PAGE), "attempts_by_time"),
    "of a project": (lambda a: a.jobs.history(project="nothing", **PAGE), "attempts_by_time"),
    "all, further on": (lambda a: a.further_attempts(), "attempts_by_time"),
}
OTHER_JOBS = {
    "one": (lambda a: a.jobs.get(a.job), "key"),
    "by any id": (lambda a: a.jobs.find(a.job), "key.*jobs_by_external_id.*jobs_by_context"),
    "by the beginning of an id": (lambda a: lookups_of(a.jobs).by_prefix(a.job[:-1]), "key"),
    "by external id": (lambda a: a.jobs.list(external_job_id="x", **PAGE), "jobs_by_external_id"),
    "those that took longest": (lambda a: a.jobs.list(sort="duration", **PAGE), "jobs_by_time"),
    "those of an operation": (
        lambda a: a.jobs.list(sort="duration", operation="vm-migrate", **PAGE),
        "jobs_by_operation",
    ),
    "by context id": (lambda a: a.jobs.by_context_id("x"), "jobs_by_context"),
    "of a correlation": (lambda a: a.jobs.list(correlation_id="x", **PAGE), "jobs_by_correlation"),
    "of a session": (lambda a: a.jobs.list(session_id=5, **PAGE), "jobs_by_session"),
    "children": (lambda a: a.jobs.list(parent_job_id=a.job, **PAGE), "jobs_by_parent"),
    "of a root": (lambda a: a.jobs.list(root_job_id=a.job, **PAGE), "jobs_by_root"),
    "tree": (lambda a: a.jobs.tree(a.job), "jobs_by_parent"),
    "history": (lambda a: a.jobs.history(a.job), "key"),
    "steps": (lambda a: a.jobs.steps(a.job), "steps_by_job"),
    "progress": (lambda a: a.jobs.progress(a.job), "steps_by_job"),
}
STATISTICS = {
    "operations of an hour": (lambda a: a.stats.operations(**HOUR), "jobs_by_time"),
    "what ended in an hour": (lambda a: a.stats.operations(by="ended", **HOUR), "jobs_by_end"),
    "throughput of what ended in an hour": (
        lambda a: a.stats.throughput(timedelta(minutes=5), by="ended", **HOUR),
        "jobs_by_end",
    ),
    "steps that ended in an hour": (lambda a: a.stats.steps(by="ended", **HOUR), "steps_by_end"),
    "an operation in an hour": (
        lambda a: a.stats.operations(operation="vm-migrate", **HOUR),
        "jobs_by_operation",
    ),
    "projects of an hour": (lambda a: a.stats.projects(**HOUR), "jobs_by_time"),
    "throughput of an hour": (
        lambda a: a.stats.throughput(timedelta(minutes=5), **HOUR),
        "jobs_by_time",
    ),
    "steps of an hour": (lambda a: a.stats.steps(**HOUR), "steps_by_time"),
    "errors of an hour": (lambda a: a.stats.errors(**HOUR), "logs_by_fingerprint|logs_by_time"),
    "jobs with errors in an hour": (lambda a: a.stats.errors_by_job(**HOUR), "logs_by_level"),
    "errors of a job": (lambda a: a.stats.errors_by_job(job=a.job), "logs_by_job"),
    "events of jobs": (lambda a: a.stats.events_by_job([a.job]), "logs_by_job"),
    "events of large jobs": (
        lambda a: events_of_large_jobs(a.stats, a.job, a.other_job),
        "logs_by_job.*logs_by_level.*logs_by_level",
    ),
    "volume of an hour": (lambda a: a.stats.volume(**HOUR), "logs_by_level|logs_by_time"),
    "volume of a project in an hour": (
        lambda a: a.stats.volume(project="venus", **HOUR),
        "logs_by_time",
    ),
    "estimate": (lambda a: a.jobs.estimate(a.job), "jobs_by_operation"),
    "error groups of an hour": (
        lambda a: a.errors.list(**HOUR),
        "logs_by_fingerprint|logs_by_time",
    ),
    "error groups of a job": (
        lambda a: a.errors.list(job=a.job),
        "logs_by_fingerprint|logs_by_job",
    ),
    "error groups of an hour that ended jobs": (
        lambda a: a.errors.list(outcome="final", **HOUR),
        "logs_by_fingerprint|logs_by_time",
    ),
    "error group": (lambda a: a.errors.get(a.fingerprint), "logs_by_fingerprint"),
    "sessions": (lambda a: a.sessions.list(), "jobs_by_session|jobs_by_status"),
}

READS_A_TABLE = {
    "sqlite": re.compile(
        r"SCAN (?:structjob_(?:logs|jobs|steps|attempts)|every|same|child|parent)\b(?! USING)"
    ),
    "postgresql": re.compile(r"Seq Scan on structjob_(?:logs|jobs|steps|attempts)"),
    "mariadb": re.compile(
        r"^(?:structjob_(?:logs|jobs|steps|attempts)|every|same|child|parent) ALL", re.MULTILINE
    ),
}
# What is asked for is compared with the newest of some branches, each of a page's size, and with
# rows of the same microsecond.
SORTS_MANY = {
    "sqlite": re.compile(r"structjob_\w+ USING [^/]* / USE TEMP B-TREE FOR ORDER BY"),
    "postgresql": re.compile(
        r"(?<!Incremental )Sort  \(.*\n(?:.*\n){0,4}?.* rows=\d{3,} .*structjob_(?:logs|jobs|attempts)"
    ),
    "mariadb": re.compile(r"^structjob_\w+ .*filesort", re.MULTILINE),
}


class Asked:
    """A database with a history, and all that it is asked."""

    def __init__(self, database):
        self._database = database
        self.statements = []
        self.logs, self.jobs, self.errors, self.sessions = (
            kind(self.fetch, self.flush)
            for kind in (Logs, Jobs, lambda fetch, flush: Errors(fetch, flush, None), Sessions)
        )
        self.stats = Statistics(self.fetch, self.flush)

    async def know(self):
        """Find something to ask for."""
        (job,) = await self.jobs.list(operation="vm-migrate", status="failed", limit=1)
        event = (await self.logs.list(job_id=job.id))[-1]
        (self.other_job,) = (
            one.id for one in await self.jobs.list(operation="user-export", limit=1)
        )
        self.job, self.correlation, self.session, self.seq = (
            job.id,
            job.correlation_id,
            event.session_id,
            event.seq,
        )
        self.step = (await self.jobs.steps(job.id))[0].id
        self.fingerprint = (await self.errors.list(limit=1))[0].fingerprint

    async def fetch(self, statement):
        self.statements.append(statement)
        return await self._database.fetch(statement)

    async def flush(self):
        """Nothing is pending."""

    async def further(self, what, **filters):
        """Ask for the second page."""
        page = await what.list(**filters, **PAGE)
        self.statements.clear()
        await what.list(**filters, cursor=page.next_cursor, **PAGE)

    async def further_attempts(self):
        """Ask for the second page of attempts."""
        page = await self.jobs.history(**PAGE)
        self.statements.clear()
        await self.jobs.history(cursor=page.next_cursor, **PAGE)

    async def follow(self, **how):
        """Look into a tail, and once more when the beginning is over."""
        tail = self.logs.tail(**how)
        while await tail.poll(0):
            pass

    async def plans(self, question):
        """Return how the database runs what the *question* is made of."""
        self.statements.clear()
        await question(self)
        return "\n".join(
            [await self._database.plan(statement) for statement in list(self.statements)]
        )


@pytest.mark.slow
async def test_every_question_is_answered_by_an_index(database):
    """No read of the public API that is about a part of the history reads all of a table; no page
    sorts more than it shows (R5).
    """
    await fill(database.url, History(600, 12_000))
    await database.know_itself()
    asked = Asked(database)
    await asked.know()
    faults = []
    for group in (
        PAGES_OF_EVENTS,
        OTHER_EVENTS,
        PAGES_OF_JOBS,
        PAGES_OF_ATTEMPTS,
        OTHER_JOBS,
        STATISTICS,
    ):
        for name, (question, index) in group.items():
            plans = await asked.plans(question)
            wrong = []
            if not re.search(
                index.replace("key", "(?:PRIMARY|_pkey|sqlite_autoindex_\\w+)"), plans, re.DOTALL
            ):
                wrong.append(f"does not use {index}")
            if READS_A_TABLE[database.kind].search(plans):
                wrong.append("reads a table")
            if group in (PAGES_OF_EVENTS, PAGES_OF_JOBS, PAGES_OF_ATTEMPTS) and SORTS_MANY[
                database.kind
            ].search(plans):
                wrong.append("sorts")
            if wrong:
                faults.append(f"{name}: {', '.join(wrong)}\n{plans}")
    assert not faults, "\n\n".join(faults)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # others do not choose so
async def test_events_of_a_large_job_are_not_searched_for_among_all(database):
    """The page of a job with most of the events, all of them recent, does not read the older events
    of other jobs: not the first events of the job, its step or its error, nor an event's neighbors.
    """
    mine = {"job_id": "large", "step_id": "its-step", "fingerprint": "its-error"}
    rows = [
        {
            **(mine if number > 3_000 else dict.fromkeys(mine)),
            "session_id": 1,
            "seq": number,
            "ts": UNTIL + timedelta(milliseconds=number),
            "level": "error" if number > 3_000 else "info",
            "message": "copied a block of the disk",
            "type": "task",
        }
        for number in range(1, 8_001)
    ]
    async with database.engine.begin() as connection:
        await connection.execute(logs.insert(), rows)
    await database.know_itself()
    asked = Asked(database)
    for question in (
        lambda a: a.logs.list(job_id="large"),
        lambda a: a.logs.list(job_id="large", start=(1, 7_000), order="desc"),
        lambda a: a.logs.list(step_id="its-step"),
        lambda a: a.logs.list(fingerprint="its-error"),
        lambda a: a.logs.list(level="error"),
        lambda a: a.logs.around((1, 7_000)),
    ):
        plans = await asked.plans(question)
        assert "logs_by_time" not in plans
