"""Whom the reaper watches, and when it presumes a process dead; without a database, and by a clock
of its own (R11).
"""

from __future__ import annotations

import types
from datetime import UTC, datetime, timedelta

import pytest

from structjob.engine import reaper as reapers
from structjob.engine.reaper import Reaper, take_back, take_back_presumed
from structjob.exceptions import StoreUnavailable
from structjob.spool.session import Session

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
HERE, BOOT = "here", "boot"


def row(number, *, host="elsewhere", boot=None, pid=1, ago=1.0):
    """The row of a session whose last heartbeat was so many seconds *ago*; None: it has none."""
    beat = None if ago is None else NOW - timedelta(seconds=ago)
    return {
        "session_id": number, "host": host, "boot_id": boot, "pid": pid,
        "started_at": NOW, "heartbeat_at": beat, "now": NOW,
    }  # fmt: skip


class Link:
    """A database link: its sessions, and what was asked of it."""

    def __init__(self):
        self.store, self.rows, self.asked, self.down = self, [], [], None

    async def once(self, call):
        if self.down is not None:
            raise self.down
        return await call()

    async def fetch(self, asked):
        self.asked.append(asked)
        return self.rows


class Adopted(dict):
    """The spools that the process has adopted, by session id."""

    def __iter__(self):
        return iter(self.values())

    def living(self):
        return [source for source in self if source.alive]


def source(number, *, entered=True, alive=True):
    session = Session(number, HERE, BOOT, 100)
    return types.SimpleNamespace(session=session, entered=entered, alive=alive)


class Site:
    """A reaper, and all that it works with."""

    def __init__(self, monkeypatch, root=None, heartbeat=10.0):
        self.link, self.adopted, self.now = Link(), Adopted(), 0.0
        self.revived, self.reaped, self.presumed, self.taken_back = [], [], set(), []
        self.own = source(1)
        self.reaper = Reaper(
            self.own, root, self.link, self.adopted, heartbeat, lambda: self.revived.append(1)
        )
        monkeypatch.setattr(reapers, "_now", lambda: self.now)
        monkeypatch.setattr(
            reapers.leases, "neighbors", lambda session, ids, size: (session, set(ids), size)
        )
        monkeypatch.setattr(reapers, "take_back", self.take_back)

    async def take_back(self, session, finder, link):
        assert (finder, link) == (self.own.session, self.link)
        self.taken_back.append(session.session_id)
        return session.session_id in self.presumed

    def notes_reaped(self):
        async def reap(lease, reason):
            self.reaped.append((lease.session.session_id, reason))
            del self.reaper._seen[lease.session.session_id]

        self.reaper._reap = reap

    async def look(self, after):
        self.now += after
        await self.reaper.look()


@pytest.fixture
def make(monkeypatch):
    return lambda *args, **options: Site(monkeypatch, *args, **options)


# -- for how long
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heartbeat", "lease", "gap"), [(1.0, 30.0, 10.0), (5.0, 30.0, 15.0), (100.0, 600.0, 300.0)]
)
def test_a_lease_is_six_heartbeats_and_half_a_minute(make, heartbeat, lease, gap):
    """R11: at least; a pause of three heartbeats, or a third of the lease, begins it anew."""
    reaper = make(heartbeat=heartbeat).reaper
    assert (reaper._lease, reaper._longest_gap) == (lease, gap)


async def test_a_heartbeat_that_stands_still_for_a_lease_ends_a_session(make):
    """R11: seen by the clock of the process that looks; one that beats is left alone, and so are
    the process's own sessions.
    """
    site = make()
    site.notes_reaped()
    site.adopted[2] = source(2)
    site.link.rows = [row(number, ago=9999) for number in (1, 2, 3, 4)]
    for turn in range(3):
        site.link.rows[3] = row(4, ago=turn)
        await site.look(20.0)
    assert site.reaped == []
    await site.look(19.9)
    assert site.reaped == []
    site.link.rows[3] = row(4, ago=77)
    await site.look(0.1)
    assert site.reaped == [(3, "lease_expired")]
    await site.look(20.0)
    assert site.reaped == [(3, "lease_expired")]


@pytest.mark.parametrize(("gap", "reaped"), [(30.0, [3]), (30.5, [])])
async def test_a_pause_of_its_own_proves_nothing(make, gap, reaped):
    """R11: after a pause the database may have been unavailable to the others, too."""
    site = make()
    site.notes_reaped()
    site.link.rows = [row(3)]
    for pause in (20.0, 20.0, 20.0, gap):
        await site.look(pause)
    assert [number for number, _ in site.reaped] == reaped


async def test_an_outage_begins_every_lease_anew(make):
    """R11: no heartbeat could be stored meanwhile."""
    site = make()
    site.notes_reaped()
    site.link.rows = [row(3)]
    for _ in range(3):
        await site.look(20.0)
    site.link.down = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await site.look(10.0)
    site.link.down = None
    for _ in range(3):
        await site.look(20.0)
        assert site.reaped == []
    await site.look(20.0)
    assert site.reaped == [(3, "lease_expired")]


# -- on which evidence
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "exists", "verdicts"),
    [
        ({"host": "elsewhere", "boot": BOOT}, False, (None, "lease_expired")),
        ({"host": HERE, "boot": "earlier"}, False, (None, "lease_expired")),
        ({"host": HERE, "boot": None}, False, (None, "lease_expired")),
        ({"host": HERE, "boot": BOOT}, False, ("vanished", "vanished")),
        ({"host": HERE, "boot": BOOT}, True, (None, None)),
        ({"host": HERE, "boot": BOOT}, None, (None, "lease_expired")),
        ({"host": HERE, "boot": BOOT, "pid": 100}, True, (None, "lease_expired")),
        ({"host": HERE, "boot": BOOT, "spool": "local"}, False, (None, None)),
        ({"host": HERE, "boot": BOOT, "spool": "network"}, False, ("vanished", "vanished")),
    ],
)
def test_what_is_known_of_a_process(make, monkeypatch, tmp_path, about, exists, verdicts):
    """R11: a process of this host exists or not, if that can be asked; the lock in its spool
    directory says it best, but not on a network file system. Of others there is only the heartbeat.
    """
    spool = about.pop("spool", None)
    site = make(tmp_path if spool else None)
    monkeypatch.setattr(reapers, "is_network", lambda root: spool == "network")
    asked = []
    monkeypatch.setattr(reapers, "process_exists", lambda *of: asked.append(of) or exists)
    if spool:
        (tmp_path / "3").mkdir()
    lease = reapers.Lease.of(row(3, **about))
    verdict = site.reaper._verdict
    assert (verdict(lease, 59.9), verdict(lease, 60.0)) == verdicts
    assert {of[:3] for of in asked} <= {(HERE, BOOT, about.get("pid", 1))}
    if spool == "local":
        other = reapers.Lease.of(row(4, **about))  # its spool is not here
        assert verdict(other, 0.0) == "vanished"


# -- of whom
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        ([row(number) for number in range(10, 59)], [50]),
        ([row(number) for number in range(10, 60)], [50]),
        ([row(number, ago=60 - (number < 20)) for number in range(10, 60)], [50]),
        ([row(number, ago=60 - (number < 19)) for number in range(10, 60)], [50, 500]),
        ([row(number, ago=None) for number in range(10, 60)], [50, 500]),
        ([row(number, host=HERE, ago=99) for number in range(10, 99)], [50]),
    ],
)
async def test_more_are_watched_where_few_are_alive(make, rows, sizes):
    """R11: ten of the fifty next ones must have sent a heartbeat within a lease; otherwise those
    that are left look at ten times as many.
    """
    site = make()
    site.adopted[5] = source(5)
    site.reaper._notices[6] = None
    site.link.rows = rows
    found = await site.reaper._neighbors()
    assert site.link.asked == [(site.own.session, {1, 5, 6}, size) for size in sizes]
    assert {number: lease.heartbeat_at for number, lease in found.items()} == {
        each["session_id"]: each["heartbeat_at"] for each in rows
    }


# -- its own
# --------------------------------------------------------------------------


@pytest.mark.parametrize("entered", [True, False])
@pytest.mark.parametrize("presumed", [True, False])
async def test_who_lives_is_called_back(make, caplog, presumed, entered):
    """R11: a session of this process that is not among those that live was presumed dead; if it is
    the tracker's own, its jobs are recorded again.
    """
    site = make()
    site.own.entered = entered
    site.adopted[2], site.adopted[3] = source(2), source(3, alive=False)
    site.presumed = {1, 2} if presumed else set()
    await site.look(1.0)
    assert site.taken_back == ([1, 2] if entered else [2])
    assert site.revived == ([1] if presumed and entered else [])
    assert len(caplog.messages) == len(site.revived)
    site.taken_back.clear()
    site.link.rows = [row(1), row(2)]
    await site.look(1.0)
    assert site.taken_back == []


@pytest.mark.parametrize("entered", [True, False])
@pytest.mark.parametrize("found", [True, False])
async def test_its_own_death_is_taken_back_before_it_closes(make, entered, found):
    """R11: if it is not among the sessions that live, and was entered at all."""
    site = make()
    site.own.entered = entered
    site.link.rows = [row(1)] if found else []
    await site.reaper.take_back_own()
    assert site.taken_back == ([1] if entered and not found else [])


async def test_of_many_programs_those_presumed_dead_are_called_back(make):
    """R11: a deliverer knows which of the programs that it delivers for live."""
    site = make()
    await take_back_presumed([source(1, entered=False)], site.own.session, site.link)
    assert site.link.asked == []
    site.link.rows = [row(2)]
    living = [source(1, entered=False), source(2), source(3)]
    await take_back_presumed(living, site.own.session, site.link)
    assert len(site.link.asked) == 1
    assert site.taken_back == [3]


# -- what is said
# --------------------------------------------------------------------------


class Notices:
    """The events about the jobs of a session."""

    shown: list[int] = []

    def __init__(self, session, finder, *, withdrawn=""):
        self.session, self.withdrawn = session, withdrawn

    def corrections(self):
        return self.withdrawn

    async def prepare(self, link):
        return "prepared"

    async def show(self, link):
        self.shown.append(self.session.session_id)


@pytest.mark.parametrize(
    ("crashed", "said"),
    [
        (None, None),
        ([], None),
        ([{"id": "a"}], "it left 1 job running, now marked crashed"),
    ],
)
async def test_what_a_dead_process_left_is_said_once(make, monkeypatch, caplog, crashed, said):
    """R11: nothing if another process was faster, or if no job ran; the notices are shown in any
    case, because the transaction may only seem to have failed before.
    """
    site = make()
    monkeypatch.setattr(reapers, "CrashNotices", Notices)
    monkeypatch.setattr(Notices, "shown", [])
    failing = [StoreUnavailable("away")]

    async def transact(call):
        if failing:
            raise failing.pop()
        return call("connection")

    def reap(connection, ingest, lease, reason, prepared):
        assert (connection, reason, prepared) == ("connection", "lease_expired", "prepared")
        return crashed

    site.link.transact, site.link.ingest = transact, None
    monkeypatch.setattr(reapers.leases, "reap", reap)
    site.link.rows = [row(3)]
    for _ in range(3):
        await site.look(20.0)
    with pytest.raises(StoreUnavailable):
        await site.look(20.0)
    assert (Notices.shown, list(site.reaper._notices)) == ([], [3])
    await site.look(1.0)
    assert (Notices.shown, list(site.reaper._notices)) == ([3], [])
    warned = [text for text in caplog.messages if "presumed dead" in text]
    assert warned == ([f"process 1 on elsewhere (session 3) is presumed dead (lease_expired); {said}"] if said else [])  # fmt: skip
    assert 3 not in site.reaper._seen


async def test_a_session_that_has_ended_meanwhile_is_shown(make, monkeypatch):
    """R11: the transaction that seemed to fail has ended it."""
    site = make()
    monkeypatch.setattr(Notices, "shown", [])
    site.reaper._notices = {3: Notices(Session(3), None), 4: Notices(Session(4), None)}
    site.link.rows = [row(1), row(4)]
    await site.look(1.0)
    assert Notices.shown == [3]
    assert list(site.reaper._notices) == [4]


@pytest.mark.parametrize(("jobs", "presumed"), [(None, False), ([], True), (["a"], True)])
async def test_a_process_learns_whether_it_was_presumed_dead(make, monkeypatch, jobs, presumed):
    """R11: whether it had jobs or not; what it withdraws is shown."""
    site = make()
    monkeypatch.setattr(reapers, "CrashNotices", Notices)
    monkeypatch.setattr(Notices, "shown", [])

    async def transact(call):
        return call("connection")

    def revive(connection, ingest, number, corrections):
        assert (connection, number) == ("connection", 1)
        assert corrections == "its process was presumed dead, and is alive"
        return jobs

    site.link.transact, site.link.ingest = transact, None
    monkeypatch.setattr(reapers.leases, "revive", revive)
    assert await take_back(site.own.session, site.own.session, site.link) is presumed
    assert Notices.shown == [1]
