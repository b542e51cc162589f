"""The statements of the page on SQL run on every database, and find what the page says (R51)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

PAGE = Path(__file__).parent.parent / "docs" / "sql.md"
BLOCK = re.compile(r"^```sql\n(?:-- ([^\n]*)\n)?(.*?)^```", re.DOTALL | re.MULTILINE)
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB", "mysql": "MySQL"}


def statements(kind: str) -> list[str]:
    """Return the statements of the page for this kind of database, from top to bottom."""
    return [
        sql
        for kinds, sql in BLOCK.findall(PAGE.read_text("utf-8"))
        if not kinds or NAMES[kind] in kinds.split(", ")
    ]


async def test_each_statement_finds_what_the_page_says(any_tracker, database):
    """R51: each statement runs as it stands on the page, and finds what was recorded."""
    log = structlog.get_logger()
    async with any_tracker.job("backup", external_job_id="gui-17") as job, job.step("copy"):
        log.info("copied", vm="pg-01")
        async with any_tracker.job("verify"):
            log.info("verified", vm="pg-02")
    with suppress(OSError):
        async with any_tracker.job("restore"):
            raise OSError("disk full")
    waiting = await any_tracker.create_job("report")
    await any_tracker.flush()

    percent = "%" if database.kind in ("sqlite", "postgresql") else "%%"  # for the driver
    found = [await database.rows(sql.replace("%", percent)) for sql in statements(database.kind)]
    active, failed, operations, steps, log_of_tree, by_attribute, by_hour = found
    assert [(row[0], row[1]) for row in active] == [(waiting.id, "report")]
    assert [(row[1], row[3], row[4]) for row in failed] == [("restore", "OSError", "disk full")]
    assert {row[0]: (row[1], float(row[2])) for row in operations} == {
        "backup": (1, 100),
        "verify": (1, 100),
        "restore": (1, 0),
    }
    assert [row[:3] for row in steps] == [("backup", "copy", 1)]
    assert [row[4] for row in log_of_tree if row[4] in ("copied", "verified")] == [
        "copied",
        "verified",
    ]
    assert [row[1] for row in by_attribute] == ["copied"]
    assert [row[1] for row in by_hour] == [1]


async def test_the_page_names_the_tables_and_views_that_exist(database):
    """R51: the page names each view, and no table that does not exist."""
    from structjob.store.tables import metadata

    named = set(re.findall(r"^\| `(structjob_\w+)`", PAGE.read_text("utf-8"), re.MULTILINE))
    views = {"structjob_job_progress", "structjob_active_jobs"}
    assert named - views <= set(metadata.tables)
    assert views <= named
    for view in views:
        await database.rows(f"SELECT * FROM {view}")


@pytest.mark.parametrize("kind", NAMES)
def test_each_question_has_a_statement_for_each_database(kind):
    """R51: a statement that is written for one database has one for each of the others."""
    assert len(statements(kind)) == 7
