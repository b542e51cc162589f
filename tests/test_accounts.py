"""Where each event of a session is at any moment, as its ledger says (guarantee 2)."""

import pytest
from engine_support import sites
from test_capture import make_recorder

from structjob.engine.accounts import Accounts
from structjob.engine.source import Source

BODY = b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"m","attrs":{}'


class Site:
    """A recorder and its accounts."""

    def __init__(self, root=None, **options):
        self.recorder = make_recorder(root, **options)
        self.own = Source(self.recorder.session, self.recorder.queues)
        self.accounts = Accounts(self.own, self.recorder)

    def log(self, count):
        for _ in range(count):
            self.recorder.put(BODY, 10)


@pytest.fixture
def make(tmp_path):
    with sites(Site, tmp_path) as new:
        yield new


def refuse(line, number):
    raise OSError(28, "No space left on device")


def test_without_a_spool_every_event_that_is_not_stored_is_in_memory(make):
    """Guarantee 2: also one that a call has not handed over yet."""
    site = make()
    site.log(7)
    site.own.stored, site.own.dead = 2, 1
    site.recorder.events.read(1000, 3)
    ledger = site.accounts.ledger()
    assert (ledger.accepted, ledger.stored, ledger.dead_lettered) == (7, 2, 1)
    assert (ledger.in_memory, ledger.spilled) == (4, 0)
    assert site.accounts.waiting() == 4


@pytest.mark.parametrize("delivers", [True, False])
def test_with_a_spool_memory_holds_what_the_disk_refused_and_what_writers_have(make, delivers):
    """Guarantee 2: the rest is on disk; if another process delivers it, it may be stored."""
    site = make("spool")
    site.log(5)
    append, site.recorder._append = site.recorder._append, refuse
    site.log(2)
    site.recorder._append = append
    site.own.in_flight = 1
    site.recorder.delivers = delivers
    ledger = site.accounts.ledger()
    assert (ledger.accepted, ledger.in_memory, ledger.spilled) == (7, 3, 4)
    assert site.accounts.waiting() == (7 if delivers else 3)


def test_a_forked_child_counts_its_own_events_only(make, monkeypatch):
    """R22: what the parent has stored is no part of the child's session."""
    site = make()
    site.log(3)
    site.own.stored, site.own.in_flight, site.own.dropped["cleared"] = 2, 1, 1
    monkeypatch.setattr(site.recorder, "forked", True)
    ledger = site.accounts.ledger()
    assert (ledger.accepted, ledger.stored, ledger.in_memory, ledger.dropped) == (3, 0, 3, {})


def test_what_is_dropped_is_counted_and_reported(make, caplog):
    """Guarantee 2: before it is recorded as a gap, and after that only once."""
    site = make(queue_size=4)
    site.log(9)
    assert site.accounts.ledger().dropped == {"queue_full": 5}
    site.accounts.record_drops()
    site.accounts.record_drops()
    assert site.accounts.ledger().dropped == {"queue_full": 5}
    assert site.accounts.ledger().in_memory == 4
    (said,) = [text for text in caplog.messages if "see structjob_gaps" in text]
    assert said.startswith("5 events were dropped so far ({'queue_full': 5})")


def test_a_change_of_state_that_is_lost_keeps_nobody_waiting(make):
    """R8: the start of a job waits for its commit, and a flush for all changes."""
    site = make()
    site.recorder.lost_states.extend([1, 2])
    site.accounts.record_drops()
    assert 1 in site.own.states
    assert 2 in site.own.states
    assert not site.recorder.lost_states
