"""What people type, log and name their jobs is bound to statements, and never part of one (R36)."""

import contextlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
import structlog

import structjob
from structjob.queries.jobs import lookups_of

log = structlog.get_logger()

EVIL = "'; DROP TABLE structjob_jobs; -- \" \\ %s %(x)s :x ? {y} \N{PILE OF POO}"
WORDS = ("DROP TABLE", "{y}", "\N{PILE OF POO}")


@contextlib.contextmanager
def statements() -> Iterator[list[str]]:
    """Give every statement that SQLAlchemy sends."""
    sent: list[str] = []

    def hear(connection, cursor, statement, parameters, context, many) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", hear)
    try:
        yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", hear)


def texts(kind: type) -> list[str]:
    """Return the fields of a filter that take any text."""
    return [
        name
        for name, field in kind.__dataclass_fields__.items()
        if field.type == "str | None" and name != "level"
    ]


async def test_sql_in_every_field_of_every_read(any_tracker):
    """It finds nothing, or is refused with a clear error; no statement holds a word of it, and
    nothing else is touched (R36, R38, R39).
    """
    async with any_tracker.job("there"):
        log.info("is an event")
    await any_tracker.flush()
    with statements() as sent:
        for name in texts(structjob.LogFilter):
            assert not await any_tracker.logs.list(**{name: EVIL})
            assert await any_tracker.logs.count(**{name: EVIL}) == 0
        for name in texts(structjob.JobFilter):
            assert not await any_tracker.jobs.list(**{name: EVIL})
        for name in texts(structjob.StatsFilter):
            assert not await any_tracker.stats.operations(**{name: EVIL})
        for path in (EVIL, f"a.{EVIL}", "a'", 'a"b', "a.b.c"):
            with contextlib.suppress(structjob.InvalidFilter):
                assert not await any_tracker.logs.list(attrs={path: EVIL})
        # no regular expression, and no pattern of SQL's
        for text in (".*", "(?i)EVENT|x", "%", "_v_nt"):
            assert not await any_tracker.logs.list(text=text)
        for ask in (any_tracker.jobs.get, any_tracker.jobs.find, lookups_of(any_tracker.jobs).by_prefix, any_tracker.jobs.tree, any_tracker.jobs.progress,
                    any_tracker.jobs.by_external_id, any_tracker.jobs.estimate):  # fmt: skip
            with pytest.raises(structjob.JobNotFound):
                await ask(EVIL)
        assert await any_tracker.jobs.by_context_id(EVIL) == []
        for ask in (any_tracker.errors.get, any_tracker.errors.resolve, any_tracker.errors.reopen):
            with pytest.raises(structjob.ErrorGroupNotFound):
                await ask(EVIL)
        with pytest.raises(structjob.InvalidFilter):
            await any_tracker.logs.list(cursor=EVIL)
    assert len(sent) > 40
    assert not [statement for statement in sent if any(word in statement for word in WORDS)]
    assert (await any_tracker.verify()).ok
    assert [job.operation for job in await any_tracker.jobs.list()] == ["there"]


async def test_sql_in_everything_that_is_recorded(any_tracker):
    """It comes back as it was given; on MariaDB a batch is a literal of hexadecimal digits,
    elsewhere it is bound (R1, R4).
    """
    with statements() as sent:
        options = {
            "description": EVIL,
            "owner": EVIL,
            "project": EVIL,
            "job_type": EVIL,
            "category": EVIL[:60],
            "external_job_id": EVIL,
        }
        async with (
            any_tracker.job(EVIL, job_id=EVIL[:60], metadata={EVIL: EVIL}, **options) as job,
            job.step(EVIL),
        ):
            log.info(EVIL, **{EVIL: EVIL})
            job.result = EVIL
        await any_tracker.flush()
        record = await any_tracker.jobs.find(EVIL)
        (event,) = await any_tracker.logs.list(job_id=job.id, kind="log")
    assert (record.operation, record.metadata, record.result, record.owner) == (
        EVIL,
        {EVIL: EVIL},
        EVIL,
        EVIL,
    )
    assert (event.message, event.attrs, event.step) == (EVIL, {EVIL: EVIL}, EVIL)
    assert not [statement for statement in sent if any(word in statement for word in WORDS)]
