"""The line of the spool: its fields are the columns of the log, and one module knows its bytes."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import structjob
from structjob.filters import LOG_EQUALS, LogFilter
from structjob.models import EventRecord
from structjob.spool import line
from structjob.spool.line import (
    EVENT_COLUMNS,
    EVENT_DEFAULTS,
    event_bodies,
    event_body,
    field_mark,
    job_of,
    level_field,
    marked_late,
    names_job,
    read_event,
    read_state,
    seal_event,
    seal_state,
    state_body,
    subject_of,
    with_attempt,
    with_project,
)
from structjob.store import tables

NOT_IN_A_LINE = {"id", "session_id", "stored_at", "type"}


def an_event(columns: bytes = b"", number: int = 7) -> bytes:
    """Return an event's line with these further *columns*."""
    body = event_body(
        b"2026-01-31 12:00:00.", b"000001", level_field("info"), b'"copied"', b'{"n":1}', columns
    )
    return seal_event(body, number)


def test_the_fields_of_a_line_are_the_columns_of_the_log():
    """An event in the spool, a row of the log and a listened event have the same fields (R10)."""
    columns = {column.name for column in tables.logs.columns}
    assert set(EVENT_COLUMNS) == columns - NOT_IN_A_LINE
    assert {field.name for field in fields(EventRecord)} == columns


def test_what_a_line_leaves_out_has_the_default_of_its_column():
    """An event without a kind, a stream or a category is stored as the tables have it (R10)."""
    defaults = {
        column.name: column.server_default.arg  # type: ignore[union-attr]  # a text of ours
        for column in tables.logs.columns
        if column.server_default is not None
    }
    assert defaults == EVENT_DEFAULTS


def test_every_field_that_selects_events_by_equality_is_a_column():
    """The listener and the database compare the same fields (R36)."""
    assert set(LOG_EQUALS) <= {column.name for column in tables.logs.columns}
    taken = {field.name for field in fields(LogFilter)} & {
        field.name for field in fields(EventRecord)
    }
    assert taken - {"level", "attrs"} == set(LOG_EQUALS)


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (b"", "system"),
        (b',"job_id":"j"', "job"),
        (b',"job_id":"j","step_id":"s"', "task"),
    ],
)
def test_an_event_is_read_as_it_was_written(columns: bytes, kind: str):
    """What is given comes back, and the type follows from the ids (R10)."""
    event = read_event(an_event(columns))
    assert (event.ts, event.level, event.message, event.attrs, event.seq, event.type) == (
        "2026-01-31 12:00:00.000001", "info", "copied", {"n": 1}, 7, kind,
    )  # fmt: skip
    assert names_job(an_event(columns)) is (kind != "system")


def test_another_attempt():
    """A provisional number gives way to the true one, and nothing else changes."""
    before = an_event(b',"job_id":"j","attempt":1,"provisional":"2026-01-31 12:00:00.000000"')
    after = read_event(with_attempt(before, 3))
    assert after.attempt == 3
    assert line.is_provisional(before)
    after.attempt = 1
    assert after == read_event(before)


class _Step(msgspec.Struct, omit_defaults=True):
    id: str
    done: int
    provisional: str | None = None


@pytest.mark.parametrize("row", [_Step("s-1", 2), msgspec.structs.asdict(_Step("s-1", 2))])
def test_a_change_of_state_is_read_as_it_was_written(row):
    """A row of a job or a step comes back, with its number, and without what is null (R10)."""
    written = seal_state(state_body("step", row), 9)
    state = read_state(written)
    assert (state.kind, state.state_seq) == ("step", 9)
    assert {name: bytes(value) for name, value in state.row.items()} == {
        "id": b'"s-1"',
        "done": b"2",
    }
    assert subject_of(written.decode()) == '{"kind":"step","row":{"id":"s-1"'
    assert not subject_of(an_event().decode())


def test_what_is_read_of_a_line_without_decoding_it():
    """Its number, its time and its job, of a line of any kind, and of a damaged one."""
    event, state = an_event(b',"job_id":"a"'), seal_state(state_body("step", {"id": "s"}), 9)
    assert list(map(line.number_of, (event, state, b"damaged\n"))) == [7, 9, 0]
    assert line.time_of(event) == datetime(2026, 1, 31, 12, 0, 0, 1, UTC)
    assert line.time_of(state) is None
    assert line.owner_of(event) == (7, "a")
    assert line.owner_of(event.replace(b'"job_id":"a"', b'"job_id":"a')) == (7, None)
    assert line.owner_of(b"{}") == (0, None)


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_a_line_is_verified_with_and_without_its_newline(ending):
    """A changed byte, at either end too, shows."""
    whole = an_event()[:-1]
    assert line.verify_line(whole + ending)
    assert not line.verify_line(whole + b"\n" + b"\n")
    for at in (0, len(whole) // 2, len(whole) - 1):
        damaged = whole[:at] + b"~" + whole[at + 1 :]
        assert not line.verify_line(damaged + ending)


def test_no_other_module_knows_the_bytes_of_a_line():
    """The bytes of a line have one home: elsewhere they would drift."""
    root = Path(structjob.__file__).parent
    knowing = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(
            mark in path.read_text() for mark in ('"crc":"', ',"seq":', ',"state_seq":', '{"ts":')
        )
    ]
    assert knowing == ["spool/line.py"]


def test_events_that_differ_in_their_message_have_the_same_bodies_as_alone():
    """faults H: the lines of a program's output."""
    parts = b"2026-01-31 12:00:00.", b"000001", level_field("info")
    messages, rest = [b'"one"', b'"two"'], (b"{}", b',"job_id":"a"')
    assert event_bodies(*parts, messages, *rest) == [
        event_body(*parts, message, *rest) for message in messages
    ]


def test_what_is_changed_in_a_body_is_read_from_the_line():
    """faults H: a mark of lateness and a project, each in its place, whatever the attributes are
    called.
    """
    body = event_body(
        b"2026-01-31 12:00:00.", b"000001", level_field("info"), b'"m"',
        b'{"project":"an attribute","n":1}', b',"job_id":"a"',
    )  # fmt: skip
    late = read_event(seal_event(marked_late(body), 1))
    assert late.attrs == {"late": True, "project": "an attribute", "n": 1}
    assert (late.message, late.job_id, late.project) == ("m", "a", None)
    apollo = with_project(body, "apollo")
    assert read_event(seal_event(apollo, 1)).project == "apollo"
    assert with_project(apollo, "gemini") == apollo
    plain = event_body(b"2026-01-31 12:00:00.", b"1", level_field("info"), b'"m"', b"{}", b"")
    assert with_project(plain, "apollo") == plain + b',"project":"apollo"'
    assert (job_of(body), job_of(plain)) == ("a", None)


@pytest.mark.parametrize(
    ("columns", "type_"),
    [(b"", "system"), (b',"job_id":"a"', "job"), (b',"job_id":"a","step_id":"s"', "task")],
)
def test_the_type_of_an_event_is_known_by_its_ids(columns, type_):
    """faults H: as the table has it."""
    assert read_event(an_event(columns)).type == type_


def test_a_field_is_found_by_its_mark():
    """faults H: in a line that has it, and in no other."""
    assert field_mark("job_id") in an_event(b',"job_id":"a"')
    assert field_mark("job_id") not in an_event(b',"step_id":"a"')
