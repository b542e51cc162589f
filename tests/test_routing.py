"""Which recorder an event reaches: its job's, the first open one, or the next one that opens; and
what is said of events that reach none.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from test_capture import lines_of, make_recorder

from structjob.context.scope import ENVIRONMENT
from structjob.spool import routing
from structjob.spool.recorder import Recorder
from structjob.spool.session import Session

BODY = b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"m","attrs":{}'
OF_A_JOB = BODY + b',"job_id":"a"'
INFO = 20


@pytest.fixture
def opened():
    """A function that opens a recorder in memory."""
    recorders: list[Recorder] = []

    def open_one(**options) -> Recorder:
        recorders.append(make_recorder(**options))
        routing.add(recorders[-1])
        return recorders[-1]

    yield open_one
    for recorder in recorders:
        recorder.close()


def scope_of(recorder: Recorder | None) -> SimpleNamespace:
    return SimpleNamespace(recorder=recorder)


def test_an_event_goes_to_the_recorder_of_its_job(opened):
    """faults H: of two trackers, a job's events are recorded by its own; all others by the first
    one.
    """
    first, second = opened(), opened(level=40)
    for scope in (scope_of(second), scope_of(None), None):
        routing.dispatch(scope, OF_A_JOB, 50)
        routing.dispatch_all(scope, [OF_A_JOB, OF_A_JOB], 50)
    assert (len(lines_of(first)), len(lines_of(second))) == (6, 3)
    assert [routing.records(scope_of(second), level) for level in (39, 40)] == [False, True]
    assert [routing.records(None, level) for level in (9, 10)] == [False, True]
    first.close()
    assert not routing.records(None, 39)
    second.close()
    assert routing.records(None, 9)  # it waits


def test_the_database_that_an_event_is_recorded_for(opened):
    """faults 46: only a console line that is recorded there bears the mark of ``structjob run``: an
    event of a lower level, or of a closed tracker, is recorded nowhere.
    """
    assert routing.recorded_in(None, 50) is None
    first, second = (
        opened(session=Session(database="a")),
        opened(session=Session(database="b"), level=40),
    )
    for scope, least, database in (
        (None, 10, "a"),
        (scope_of(None), 10, "a"),
        (scope_of(first), 10, "a"),
        (scope_of(second), 40, "b"),
    ):
        assert routing.recorded_in(scope, least) == database
        assert routing.recorded_in(scope, least - 1) is None
    second.close()
    assert routing.recorded_in(scope_of(second), 50) is None


def test_what_was_logged_too_early_goes_to_the_first_tracker(opened, caplog):
    """faults H: as many events as memory holds wait for a tracker; one warning says how many of its
    levels are lost.
    """
    for level in (10, 20, 30):
        routing.hand_over(BODY, level)
    for _ in range(routing.WAITING):
        routing.hand_over(BODY, INFO)
    recorder = opened(level=20)
    assert len(lines_of(recorder)) == routing.WAITING
    (said,) = caplog.messages
    assert said.startswith("2 log events are lost: logged while no tracker was open")
    caplog.clear()
    opened()
    assert caplog.messages == []


def test_a_tracker_of_a_forked_process_precedes_those_that_it_inherited(opened):
    """faults H: what belongs to no job is recorded by the child's own tracker, if it has one, and
    before that by the inherited one.
    """
    inherited = make_recorder()
    inherited.forked = True
    routing.add(inherited)
    routing.hand_over(BODY, INFO)
    own = opened()
    routing.hand_over(BODY, INFO)
    routing.hand_over(BODY, INFO)
    assert (len(lines_of(inherited)), len(lines_of(own))) == (1, 2)
    inherited.close()


@pytest.mark.parametrize("project", [None, "apollo"])
def test_an_event_without_a_job_has_the_project_of_its_tracker(opened, project):
    """faults H: the project of the tracker is that of events that belong to none of its jobs."""
    routing.hand_over(BODY, INFO)
    recorder = opened(project=project)
    routing.hand_over(BODY, INFO)
    given = {} if project is None else {"project": project}
    for line in lines_of(recorder):
        told = json.loads(line)
        assert {name: told[name] for name in ("project",) if name in told} == given


@pytest.mark.parametrize(
    ("body", "inside", "parent", "warns"),
    [
        (OF_A_JOB, False, None, True),
        (BODY, True, object(), True),
        (BODY, True, None, False),
        (BODY, False, object(), False),
    ],
)
def test_an_event_of_a_job_without_a_tracker_is_announced(
    caplog, monkeypatch, body, inside, parent, warns
):
    """faults H: the worker of a process pool that opens no tracker gets one warning: its events
    wait and may be lost. A program that logs before it opens its tracker gets none.
    """
    monkeypatch.delenv(ENVIRONMENT + "JOB_ID", raising=False)
    if inside:
        monkeypatch.setenv(ENVIRONMENT + "JOB_ID", "a")
    pool = SimpleNamespace(parent_process=lambda: parent)
    monkeypatch.setitem(sys.modules, "multiprocessing.process", pool)
    routing.hand_over(body, INFO)
    routing.hand_over(body, INFO)
    assert ["no tracker is open in this process" in said for said in caplog.messages] == [
        True
    ] * warns


def test_events_of_a_job_of_a_closed_tracker_go_to_an_open_one_without_a_word(opened, caplog):
    """faults H: while any tracker is open, nothing waits."""
    closed, other = make_recorder(), opened()
    closed.close()
    routing.dispatch(scope_of(closed), OF_A_JOB, INFO)
    assert len(lines_of(other)) == 1
    assert caplog.messages == []


def test_what_is_logged_after_the_last_tracker_is_counted_at_the_exit(opened, caplog):
    """faults H: at the exit a program hears how many events are in no database, and once that more
    came after that; of levels that its tracker recorded.
    """
    routing._report_unrecorded()  # it had no tracker
    opened(level=20).close()
    for level in (10, 20, 30):
        routing.hand_over(BODY, level)
    assert caplog.messages == []
    routing._report_unrecorded()
    (said,) = caplog.messages
    assert said.startswith("2 log events are in no database")
    routing.hand_over(BODY, 10)
    assert len(caplog.messages) == 1
    routing.hand_over(BODY, 20)
    routing.hand_over(BODY, 20)
    assert len(caplog.messages) == 2
    assert caplog.messages[1].startswith("a log event at the exit of the interpreter")


def test_nothing_is_said_at_the_exit_if_nothing_is_missing(opened, caplog):
    """faults H: events below the tracker's level, and a program whose tracker is still open."""
    recorder = opened(level=20)
    routing._report_unrecorded()
    recorder.close()
    routing.hand_over(BODY, 10)
    routing._report_unrecorded()
    assert caplog.messages == []


def test_whether_an_event_waits_for_a_tracker(opened):
    """faults H: before the first tracker an event waits; after the last one it is in vain."""
    found = [(routing.waits_for_tracker(), routing.tracked_before())]
    recorder = opened()
    found.append((routing.waits_for_tracker(), routing.tracked_before()))
    recorder.close()
    found.append((routing.waits_for_tracker(), routing.tracked_before()))
    assert found == [(True, False), (True, True), (False, True)]


def test_a_test_of_a_users_program_leaves_no_trace(opened):
    """R50: recorders and waiting events are there again after an isolated test."""
    routing.hand_over(BODY, INFO)
    restore = routing._isolate()
    opened().close()
    routing.hand_over(BODY, INFO)
    restore()
    assert not routing.tracked_before()
    recorder = opened()
    assert len(lines_of(recorder)) == 1
    restore = routing._isolate()
    assert not routing.tracked_before()
    restore()
    routing.dispatch(None, BODY, INFO)
    assert len(lines_of(recorder)) == 1
