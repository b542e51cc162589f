"""What many changes of state come to: the last of each row, in whatever order their lines stand."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
from each import each

from structjob.spool.line import seal
from structjob.store.contract import Ended, Ending, Write, Written
from structjob.store.ingest import as_array, attempt_of, changes, fold, on_conflict


def state(kind: str, number: int, **row: object) -> bytes:
    return seal(
        b'{"kind":"%s","row":%s' % (kind.encode(), json.dumps(row).encode()),
        b',"state_seq":%d' % number,
    )


def rows_of(tables: dict[str, bytes]) -> dict[str, list[dict]]:
    return {table.removeprefix("structjob_"): json.loads(rows) for table, rows in tables.items()}


LINES = (
    state("job", 1, id="a", status="pending", attempt=0),
    state("job", 2, id="a", status="running", attempt=1),
    state("job", 4, id="a", status="failed", attempt=1),
    state("job", 3, id="a", status="running", attempt=2),  # another thread took its number sooner
)


@each("lines", list(permutations(LINES)))
def test_the_last_change_of_each_row_is_kept(lines):
    """faults H: the later attempt decides about the job, and the number about each attempt,
    wherever their lines stand.
    """
    found = fold(b"".join(lines), 7)
    assert not found.provisional
    assert sorted(found.numbers) == [1, 2, 3, 4]
    mine = {"id": "a", "session_id": 7}
    rows = rows_of(found.tables)
    assert rows["jobs"] == [mine | {"status": "running", "attempt": 2, "state_seq": 3}]
    tried = {"job_id": "a", "session_id": 7}  # and none of the job's other columns
    assert sorted(rows["attempts"], key=attempt_of) == [
        tried | {"status": "failed", "attempt": 1, "state_seq": 4},
        tried | {"status": "running", "attempt": 2, "state_seq": 3},
    ]


def test_rows_are_told_apart_by_their_keys():
    """faults H: a pending job has no attempt; steps and gaps are rows of their own; another
    version's kind is passed over, and counted.
    """
    lines = (
        state("step", 1, id="s", status="running"),
        state("step", 3, id="s", status="completed"),
        state("step", 2, id="t", status="running"),
        state("gap", 4, first_seq=1, last_seq=2),
        state("gap", 5, first_seq=5, last_seq=5),
        state("workflow", 6, id="w"),
        state("job", 7, id="p", status="pending"),
    )
    found = fold(b"\n".join(lines), 7)
    assert found.numbers == [1, 3, 2, 4, 5, 6, 7]
    assert rows_of(found.tables) == {
        "jobs": [{"id": "p", "status": "pending", "session_id": 7, "state_seq": 7}],
        "steps": [
            {"id": "s", "status": "completed", "session_id": 7, "state_seq": 3},
            {"id": "t", "status": "running", "session_id": 7, "state_seq": 2},
        ],
        "gaps": [
            {"first_seq": 1, "last_seq": 2, "session_id": 7, "state_seq": 4},
            {"first_seq": 5, "last_seq": 5, "session_id": 7, "state_seq": 5},
        ],
    }
    assert rows_of(fold(b"", 7).tables) == {}


def test_attempts_with_a_provisional_number_are_kept_apart():
    """faults H: each attempt that began offline is one, in the order of the numbers, with its
    steps; other rows are not touched.
    """
    lines = (
        state("job", 1, id="a", attempt=2, status="running", provisional="noon"),
        state("job", 2, id="a", attempt=1, status="failed", provisional="morning"),
        state("step", 3, id="s", job_id="a", attempt=2, status="running", provisional="noon"),
        state("job", 4, id="b", attempt=1, status="running"),
    )
    found = fold(b"".join(lines), 7)
    assert [job["id"] for job in rows_of(found.tables)["jobs"]] == ["b"]
    assert [(one.job_id, one.began, one.attempt) for one in found.provisional] == [
        ("a", "morning", 1),
        ("a", "noon", 2),
    ]
    assert [
        {table: len(rows) for table, rows in one.tables.items()} for one in found.provisional
    ] == [
        {"structjob_jobs": 1, "structjob_attempts": 1},
        {"structjob_jobs": 1, "structjob_attempts": 1, "structjob_steps": 1},
    ]
    assert all(
        "provisional" not in row
        for one in found.provisional
        for rows in one.tables.values()
        for row in rows
    )


@pytest.mark.parametrize("row", [{}, {"id": "a", "attempt": []}, {"id": "a", "attempt": None}])
def test_what_is_no_change_of_state_says_so(row):
    """faults H: a row without its key, or with an attempt that is no number, is refused as a whole;
    which one it is the store finds out.
    """
    with pytest.raises(ValueError):
        fold(state("job", 1, **row), 7)


def test_small_parts():
    """faults H: lines become one array; what became of the parts of a batch is added up; what never
    changes is not written again.
    """
    assert json.loads(as_array(b'{"a":1}\n{"b":2}\n')) == [{"a": 1}, {"b": 2}]
    whole = Written(1, 2, [3])
    whole.add(Written(10, 20, [4]))
    assert whole == Written(11, 22, [3, 4])
    assert (Write(1).last_seq, Written().torn, Written().dead) == (0, 0, 0)
    ending, ended = Ending(reason="died"), Ended(left=[])
    assert (
        ending.last_seq,
        ending.confirmed,
        ending.most,
        ended.explained,
        ended.missing,
        ended.fewer,
    ) == (0,) * 6
    assert not {"id", "created_at"} & set(changes("structjob_jobs"))
    assert {"status", "attempt", "session_id", "state_seq"} <= set(changes("structjob_jobs"))
    assert on_conflict("structjob_gaps") == "ON CONFLICT (session_id, first_seq) DO NOTHING"
    assert on_conflict("structjob_steps").startswith("ON CONFLICT (id) DO UPDATE SET ")
