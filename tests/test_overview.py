"""What is read of a job of many steps and children: counts, and the few that are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from structjob.models import JobTree
from structjob.queries import rows
from structjob.queries.families import families
from structjob.queries.overview import overview
from structjob.store.tables import jobs, steps

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def job(id_, number=0, parent="root", **values):
    """A row of a job; *number* orders it among the others."""
    began = T0 + timedelta(seconds=number)
    return {
        "id": id_, "operation": "copy", "status": "completed", "created_at": began, "started_at": began, "attempt": 1,
        "duration_ms": 5.0, "parent_job_id": parent, "root_job_id": "root", **values,
    }  # fmt: skip


def step(number, job_id="root", **values):
    """A row of a step."""
    began = T0 + timedelta(seconds=number)
    return {
        "id": f"{job_id}-s{number}", "job_id": job_id, "attempt": 1, "seq": number, "name": f"step {number}", "status": "completed",
        "started_at": began, "duration_ms": 5.0, **values,
    }  # fmt: skip


class Family:
    """A database with the job ``root``, and how many rows were read of it."""

    def __init__(self, database):
        self.database = database
        self.read = 0

    async def add(self, table, *some):
        async with self.database.engine.begin() as connection:
            await connection.execute(table.insert(), list(some))

    async def fetch(self, statement):
        found = await self.database.fetch(statement)
        self.read += len(found)
        return found

    async def overview(self, **options):
        (row,) = await self.database.fetch(jobs.select().where(jobs.c.id == "root"))
        return await overview(self.fetch, rows.job(row), **{"room": 6, **options})


def names(tree: JobTree):
    """Return the ids of a tree's jobs and how many steps each has."""
    return (tree.job.id, len(tree.steps), [names(child) for child in tree.children])


async def test_many_children_are_counted_and_few_are_read(database):
    """faults 42: of 120 children the two that failed, the one that runs and the slowest are read;
    the others are counted only.
    """
    family = Family(database)
    unlike = {
        40: {"status": "failed"},
        70: {"status": "crashed"},
        90: {"status": "running", "duration_ms": None},
    }
    children = [
        job(
            f"c{number:03}",
            number,
            **{"duration_ms": float(number % 100), **unlike.get(number, {})},
        )
        for number in range(120)
    ]
    await family.add(jobs, job("root", parent=None), *children)
    found = await family.overview()
    assert found.jobs == {"completed": 117, "failed": 1, "crashed": 1, "running": 1}
    assert [one.job.id for one in found.picked] == ["c040", "c070", "c090", "c097", "c098", "c099"]
    assert found.folded
    assert found.tree.children == ()
    assert family.read < 25
    failed = await family.overview(failed=True)
    assert [one.job.id for one in failed.picked] == ["c040", "c070"]
    assert len(names((await family.overview(room=None)).tree)[2]) == 120


async def test_many_steps_are_counted_and_few_are_read(database):
    """faults 42: of 200 steps the failed, the running and the slowest are read, with the steps that
    they are parts of.
    """
    family = Family(database)
    await family.add(jobs, job("root", parent=None))
    unlike = {
        50: {"status": "failed", "parent_step_id": "root-s10"}, 60: {"status": "running", "duration_ms": None},
        100: {"duration_ms": 900.0}, 101: {"duration_ms": 800.0}, 102: {"duration_ms": 700.0}, 103: {"duration_ms": 600.0},
    }  # fmt: skip
    await family.add(
        steps,
        *(
            step(number, **{"parent_step_id": None, **unlike.get(number, {})})
            for number in range(200)
        ),
    )
    found = await family.overview()
    assert found.steps == {"completed": 198, "failed": 1, "running": 1}
    assert [one.seq for one in found.tree.steps] == [10, 50, 60, 100, 101, 102]
    assert found.folded
    assert family.read < 15
    assert [one.seq for one in (await family.overview(failed=True)).tree.steps] == [10, 50]
    assert len((await family.overview(room=None)).tree.steps) == 200


async def test_a_small_family_is_read_as_a_tree(database):
    """faults 42: children and grandchildren with their steps, if there is room; to a depth, if one
    is given.
    """
    family = Family(database)
    await family.add(
        jobs, job("root", parent=None), job("child", 1), job("grandchild", 2, parent="child")
    )
    await family.add(steps, step(1), step(1, "child"), step(2, "grandchild"))
    found = await family.overview()
    assert names(found.tree) == ("root", 1, [("child", 1, [("grandchild", 1, [])])])
    assert not found.folded
    assert names((await family.overview(depth=1)).tree) == ("root", 1, [("child", 1, [])])
    shallow = await family.overview(depth=0)
    assert (names(shallow.tree), shallow.jobs) == (("root", 1, []), {})


async def test_descendants_in_a_circle_are_counted_once(database):
    """faults 42: a circle of parents ends, with a depth and without one."""
    family = Family(database)
    await family.add(jobs, job("root", parent="b"), job("a", 1), job("b", 2, parent="a"))
    for depth in (None, 50):
        found = await family.overview(depth=depth)
        assert (found.jobs, names(found.tree)) == (
            {"completed": 2},
            ("root", 0, [("a", 0, [("b", 0, [])])]),
        )


async def test_the_parent_of_a_picked_job_is_known(database):
    """faults 42: a failure several levels below is picked with the job that it is a child of."""
    family = Family(database)
    children = [job(f"c{number}", number) for number in range(20)]
    await family.add(
        jobs, job("root", parent=None), *children, job("deep", 30, parent="c7", status="failed")
    )
    found = await family.overview()
    (deep,) = (one for one in found.picked if one.job.id == "deep")
    assert deep.parent is not None
    assert deep.parent.id == "c7"


async def test_families_of_many_jobs_are_counted_at_once(database):
    """faults 43: the descendants of each root are counted by status; few are returned: all of a
    small family, else failed, then running.
    """
    family = Family(database)
    of_a = [job(f"a{n:02}", n, parent="a", root_job_id="a") for n in range(30)]
    of_a[3]["status"] = of_a[5]["status"] = "failed"
    of_a[7]["status"] = of_a[9]["status"] = "running"
    of_b = [job("b1", 1, parent="b", root_job_id="b"), job("b2", 2, parent="b1", root_job_id="b")]
    roots = [
        job("a", parent=None, root_job_id=None),
        job("b", parent=None, root_job_id="b"),
        job("c", parent=None, root_job_id=None),
    ]
    elsewhere = [
        job("d", parent="far", root_job_id="far"),
        job("d1", 1, parent="d", root_job_id="far"),
    ]
    elsewhere += [
        job("e", parent="far", root_job_id="far"),
        job("e1", 1, parent="e", root_job_id="far", status="failed"),
    ]
    await family.add(jobs, *roots, *of_a, *of_b, *elsewhere)
    given = [
        rows.job(row)
        for row in await database.fetch(
            jobs.select().where(jobs.c.id.in_(list("abcde"))).order_by(jobs.c.id)
        )
    ]
    found = await families(family.fetch, given)
    assert {id_: dict(one.counts) for id_, one in found.items()} == {
        "a": {"completed": 26, "failed": 2, "running": 2}, "b": {"completed": 2}, "d": {"completed": 1}, "e": {"failed": 1},
    }  # fmt: skip
    picked = {id_: [one.id for one in each.picked] for id_, each in found.items()}
    assert picked == {"a": ["a05", "a03", "a09"], "b": ["b1", "b2"], "d": ["d1"], "e": ["e1"]}
    assert not any(one.partial for one in found.values())
    assert family.read < 20


async def test_the_parents_of_many_failed_steps_are_found(database):
    """``show --failed --all`` of a job with as many failed tries as a statement has no room for
    values: PostgreSQL takes 32,767, so they are read in portions.
    """
    family = Family(database)
    tries = [step(n, status="failed", parent_step_id=f"root-s{n + 700}") for n in range(600)]
    tried = [step(n + 700) for n in range(600)]
    await family.add(jobs, job("root", parent=None))
    await family.add(steps, *tries, *({**one, "parent_step_id": None} for one in tried))
    values = []
    ask = family.fetch

    async def fetch(statement):
        params = statement.compile(dialect=database.engine.dialect).params.values()
        values.append(sum(len(one) if isinstance(one, list) else 1 for one in params))
        return await ask(statement)

    family.fetch = fetch
    found = await family.overview(room=None, failed=True)
    assert len(found.tree.steps) == 1200
    assert max(values) < 510
