"""Every kind of secret in every field: none is found in what is shown, spooled or stored (faults
34, 35).
"""

import contextlib
import logging
import types
from pathlib import Path

import pytest
import structlog
from database_support import Database
from secrets_support import canary, secrets

import structjob
from structjob.store.tables import metadata

SECRETS = secrets()


def leaked(where: str, what: str) -> list[str]:
    """Return where and which secrets stand in *what*."""
    assert len(what) > 100, where
    return [
        f"{where}: {what[max(at - 90, 0) : at + 40]!r}"
        for secret in SECRETS.values()
        if (at := what.find(secret)) >= 0
    ]


async def everything_in(database: Database) -> str:
    """Return all that the tables of a database hold."""
    return "\n".join(
        [
            str(await database.rows(f"SELECT * FROM {table.name}"))
            for table in metadata.sorted_tables
        ]
    )


async def log_all(tracker: structjob.Tracker) -> None:
    """Log and record each secret in each field that a program can fill."""
    log, standard = structlog.get_logger("app"), logging.getLogger("standard")
    standard.setLevel(logging.INFO)
    async with tracker.job(
        "all", metadata={str(n): given for n, given in enumerate(SECRETS)}
    ) as job:
        for number, given in enumerate(SECRETS):
            log.info(given)
            log.info("attribute", value=given, **{given: number})
            log.info(
                "nested",
                deep=[{"a": (given, {given: 1})}, types.SimpleNamespace(note=given)],
                category=given[:64],
                project=given[:128],
            )
            log.info("object", it=given.encode(), error=ValueError(given), path=Path(given))
            standard.info("with %s and %r", given, {"note": given}, extra={"note": given})
            structlog.get_logger(given).info("from a logger of that name")
        job.result = {"notes": list(SECRETS), **dict.fromkeys(SECRETS, 1)}
        job.update(current_step="password=" + canary(0), description="\n".join(SECRETS))
    for number, given in enumerate(list(SECRETS)[::6]):
        try:
            raise RuntimeError(given)
        except RuntimeError:
            log.exception("raised", note=given)
        with contextlib.suppress(LookupError):
            async with (
                tracker.job(
                    given,
                    job_type=given[:128],
                    owner=given[:128],
                    project=given[:128],
                    category=given[:64],
                    description=given,
                    external_job_id=given,
                    correlation_id=given[:128],
                    context_id=given[:64],
                    idempotency_key=given,
                    metadata={"note": given, given: 1},
                ) as job,
                job.step(given, description=given, metadata={"note": given}) as step,
            ):
                step.update(description=given)
                job.update(current_step=given)
                with structjob.extract({"X-Correlation-ID": given}).as_current():
                    log.info("from elsewhere")
                raise (
                    structjob.enrich(LookupError(given), note=given)
                    if number % 2
                    else LookupError("no answer")
                ) from KeyError(given)
        pending = await tracker.create_job(given)
        await tracker.cancel(pending.id, reason=given, by=given[:128])


async def test_a_label_as_long_as_its_column_is_stored_without_its_secret(database):
    """R33: the mark is longer than the secret: the label is cut, and the database takes the job."""

    def longest(limit: int) -> str:
        return "x" * (limit - 11) + "password=y7"

    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(
        database.url, service=longest(128), project=longest(128)
    ) as tracker:
        async with (
            tracker.job(
                longest(255), job_type=longest(128), owner=longest(128), category=longest(64)
            ) as job,
            job.step(longest(200)),
        ):
            job.update(current_step=longest(200))
        await tracker.flush()
        await tracker.cancel((await tracker.create_job("later")).id, by=longest(128))
    stored = await everything_in(database)
    assert "y7" not in stored
    assert stored.count("xxpassword=[re") > 5


async def test_no_kind_of_secret_is_found_anywhere(database, tmp_path, capfd):
    """Acceptance test 6. faults 34, 35: over a hundred kinds, in messages, attributes, objects,
    keys, names, ids, errors, results, reasons and log records.
    """
    structjob.configure(console="json", file=tmp_path / "app.jsonl", strict=True, level="debug")
    spool = tmp_path / "spool"
    async with structjob.Tracker(
        database.url, spool=spool, service="password=" + canary(0)
    ) as tracker:
        await log_all(tracker)
        spooled = "".join(path.read_text() for path in spool.rglob("*.jsonl"))
        await tracker.flush()
    shown = capfd.readouterr()
    stored = await everything_in(database)
    found = (
        leaked("console", shown.out)
        + leaked("stderr", shown.err + " " * 101)
        + leaked("file", (tmp_path / "app.jsonl").read_text())
    )
    assert found + leaked("spool", spooled) + leaked("database", stored) == []
    assert stored.count("[redacted") > 1000


@pytest.mark.parametrize("given", list(SECRETS)[::20])
async def test_a_job_is_found_by_the_ids_it_was_given(tracker, given):
    """faults 35: an id with a secret in it is stored without it, remains another than every other
    id, and finds its job all the same.
    """
    ids = {
        "external_job_id": given,
        "context_id": given[:64],
        "correlation_id": given[:128],
        "owner": given[:128],
        "project": given[:128],
    }
    async with tracker.job("a", idempotency_key=given, **ids) as job:
        structlog.get_logger().info("in it")
    async with tracker.job("a", idempotency_key=given) as again:
        assert again.existing
    async with tracker.job("a", external_job_id=f"{given}1", idempotency_key=f"{given}1") as other:
        assert not other.existing
    assert (await tracker.jobs.find(given)).id == job.id
    assert (await tracker.jobs.by_external_id(given)).id == job.id
    assert [each.id for each in await tracker.jobs.by_context_id(given[:64])] == [job.id]
    for name, value in ids.items():
        assert [each.id for each in await tracker.jobs.list(**{name: value})] == [job.id]
    assert len(await tracker.logs.list(correlation_id=given[:128], text="in it")) == 1


async def test_a_job_id_with_a_secret_in_it_opens_the_next_attempt(tracker):
    """faults 35: so does a job's own id, and its children and events belong to it."""
    given = "nightly token=Hunter2x9"
    for attempt in (1, 2):
        async with tracker.job("a", job_id=given) as job:
            assert job.attempt == attempt
            assert "Hunter2x9" not in job.id
            async with job.child("b") as child:
                assert child.parent_job_id == job.id
    assert (await tracker.jobs.get(given)).attempt == 2
    assert {
        event.job_id for event in await tracker.logs.list(job_id=given, kind="operation_start")
    } >= {job.id}


async def test_a_value_that_a_program_registers_is_found_nowhere(tracker, capsys, monkeypatch):
    """faults 35: `structjob.secret()` hides a value from then on: in messages that were logged
    before, as in keys and results.
    """
    monkeypatch.setattr(structjob.values.registered.registered, "pattern", None)
    monkeypatch.setattr(structjob.values.registered.registered, "_forms", set())
    structjob.configure(console="json", strict=True)
    log = structlog.get_logger()
    value = "plain lower words"
    log.info(f"before {value}", note=value)
    assert capsys.readouterr().out.count(value) == 2
    assert structjob.secret(value) is value
    async with tracker.job("a", owner=value) as job:
        log.info(
            f"before {value}",
            note=value,
            other="https://h/?q=plain%20lower%20words",
            deep=[{value: value}],
        )
        job.result = value
    await tracker.flush()
    record = await tracker.jobs.get(job.id)
    (event,) = await tracker.logs.list(text="before", job_id=job.id)
    for what in (capsys.readouterr().out, repr(record), repr(event)):
        assert "lower" not in what
        assert "[redacted]" in what
    for wrong in ("short", 5):
        with pytest.raises(structjob.InvalidArgument, match=r"secret\(\) takes"):
            structjob.secret(wrong)
