"""What is deleted in one transaction, and what its pace learns of it (R41)."""

import types

import pytest

from structjob.retention import deleter as deleters
from structjob.retention.deleter import Deleter


class Database:
    """Notes the transactions: what each of them deletes, and whether the lock was proved first."""

    def __init__(self, newest=7):
        self.newest, self.done, self.proved = newest, [], 0
        self.dialect = types.SimpleNamespace(name="sqlite")

    async def transact(self, work):
        before = self.proved
        found = work(self)
        assert self.proved == before + 1
        return found

    def prove(self, connection):
        assert connection is self
        self.proved += 1

    def execute(self, statement):
        assert str(statement).startswith("SELECT max(structjob_logs.id)")
        return types.SimpleNamespace(scalar_one=lambda: self.newest)


class Pace:
    """A pace that takes *rows* in each transaction."""

    def __init__(self, rows):
        self.rows, self.learned = rows, []

    def took(self, seconds, rows, newest, dialect):
        assert 0 <= seconds < 60
        self.learned.append((rows, newest, dialect))
        return 0.0


@pytest.fixture
def make(monkeypatch):
    """Make a deleter of a database, with so many rows in each transaction."""

    def new(rows, newest=7):
        database = Database(newest)
        monkeypatch.setattr(deleters, "Pace", lambda: Pace(rows))

        def remove(what):
            def work(connection, *, ids, **more):
                assert connection is database
                database.done.append((what, list(ids), *map(list, filter(None, more.values()))))
                return len(ids)

            return work

        def remove_jobs(connection, *, plans):
            database.done.append(("jobs", list(plans)))
            return len(plans), sum(plan.attempt for plan in plans.values())

        for what in ("events", "dead_letters", "sessions", "steps"):
            monkeypatch.setattr(deleters.removal, f"remove_{what}", remove(what))
        monkeypatch.setattr(deleters.removal, "remove_jobs", remove_jobs)
        return Deleter(None, database.transact, database), database

    return new


def plans(**attempts):
    return [types.SimpleNamespace(id=id_, attempt=attempt) for id_, attempt in attempts.items()]


@pytest.mark.parametrize(("newest", "learned"), [(7, 7), (None, 0)])
async def test_rows_are_deleted_in_small_transactions(make, newest, learned):
    """R41: each has as many rows as the pace allows, and says how many and which is the newest
    event.
    """
    deleter, database = make(2, newest)
    assert deleter.whole is False
    await deleter.events([{"id": number} for number in (1, 2, 3)])
    await deleter.dead_letters([{"id": 4}, {"id": 5}])
    await deleter.sessions([{"session_id": 6}], [True])
    assert database.done == [
        ("events", [1, 2]), ("events", [3]), ("dead_letters", [4, 5]), ("sessions", [6], [True]),
    ]  # fmt: skip
    assert deleter._pace.learned == [(rows, learned, "sqlite") for rows in (2, 1, 2, 1)]
    assert deleter.counts == {"events": 3, "dead_letters": 2, "sessions": 1}


async def test_nothing_to_delete_is_no_transaction(make):
    """R41: a prune that finds nothing writes nothing."""
    deleter, database = make(2)
    await deleter.events([])
    await deleter.jobs([])
    assert database.proved == 0


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        (1, [["a"], ["b"], ["c"], ["d"], ["e"]]),
        (4, [["a", "b"], ["c"], ["d", "e"]]),
        (5, [["a", "b"], ["c"], ["d", "e"]]),
        (9, [["a", "b", "c"], ["d", "e"]]),
        (12, [["a", "b", "c", "d"], ["e"]]),
        (99, [["a", "b", "c", "d", "e"]]),
    ],
)
async def test_jobs_are_deleted_with_their_attempts(make, monkeypatch, rows, groups):
    """R41: these are rows, too; a job with more attempts than the pace allows is deleted alone."""

    async def none(*_):
        for page in ():
            yield page

    monkeypatch.setattr(deleters, "belonging", none)
    deleter, database = make(rows)
    jobs = plans(a=1, b=1, c=4, d=2, e=0)
    await deleter.remove_jobs(jobs)
    assert database.done == [("jobs", group) for group in groups]
    attempts = {plan.id: plan.attempt for plan in jobs}
    assert [size for size, *_ in deleter._pace.learned] == [
        sum(1 + attempts[id_] for id_ in group) for group in groups
    ]
    assert deleter.counts == {"jobs": 5, "attempts": 8}


async def test_children_are_deleted_before_their_parents(make, monkeypatch):
    """R41: with their events and steps, before these; events of many jobs share transactions, but
    never more than a page of them is held.
    """
    monkeypatch.setattr(deleters, "_GROUP", 2)
    monkeypatch.setattr(deleters, "PAGE", 3)
    found = {
        ("structjob_logs", ("c", "b")): [[1], [2, 3], [4]],
        ("structjob_logs", ("a",)): [[5, 6]],
        ("structjob_steps", ("c", "b")): [["s"], ["t"]],
        ("structjob_steps", ("a",)): [],
    }

    async def belonging(fetch, table, ids, *order):
        assert order[-1] is table.c.id
        for page in found[table.name, tuple(ids)]:
            yield [{"id": id_} for id_ in page]

    monkeypatch.setattr(deleters, "belonging", belonging)
    deleter, database = make(99)
    await deleter.jobs(plans(a=1, b=1, c=1))
    assert database.done == [
        ("events", [1, 2, 3], ["c", "b"]), ("events", [4], ["c", "b"]),
        ("steps", ["s"], ["c", "b"]), ("steps", ["t"], ["c", "b"]), ("jobs", ["c", "b"]),
        ("events", [5, 6], ["a"]), ("jobs", ["a"]),
    ]  # fmt: skip
    assert deleter.counts == {"events": 6, "steps": 2, "jobs": 3, "attempts": 3}
    await deleter.end()
    assert len(database.done) == 7
