"""Which job an event belongs to, wherever it is logged; and how that travels to other services
(R22, R23).
"""

import asyncio
import concurrent.futures
import contextvars
import uuid

import httpx
import pytest
import requests
import structlog
from each import each
from hypothesis import given
from hypothesis import strategies as st

import structjob
from structjob.context import propagation, scope
from structjob.spool import routing

log = structlog.get_logger("app")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = f"00-{TRACE}-{SPAN}-01"


async def where(tracker, message):
    """Return the one stored event with this message."""
    (event,) = await tracker.logs.list(text=message)
    return event


async def test_an_event_knows_its_job_step_and_correlation_id(tracker):
    """R22: what is logged within a job and a step carries both, without being told."""
    async with tracker.job("migrate") as job, job.step("copy") as step:
        log.info("copied", n=1)
    event = await where(tracker, "copied")
    assert (event.job_id, event.attempt, event.operation, event.step_id, event.step) == (
        job.id,
        1,
        "migrate",
        step.id,
        "copy",
    )
    assert event.correlation_id == job.correlation_id
    assert event.type == "task"


async def test_type_follows_from_where_the_event_is_logged(tracker):
    """R4: system without a job, job without a step, task with both."""
    log.info("outside")
    async with tracker.job("a") as job:
        log.info("in the job")
        async with job.step("s"):
            log.info("in the step")
    assert [(await where(tracker, m)).type for m in ("outside", "in the job", "in the step")] == [
        "system",
        "job",
        "task",
    ]


async def test_tasks_groups_and_threads_inherit_the_job(tracker):
    """R22: tasks, task groups, `to_thread`, and structlog's async methods belong to the job they
    were begun in.
    """

    async def work(message):
        await asyncio.sleep(0)
        log.info(message)

    async with tracker.job("a") as job:
        await asyncio.create_task(work("from a task"))
        async with asyncio.TaskGroup() as group:
            group.create_task(work("from a group"))
        await asyncio.to_thread(log.info, "from a thread")
        await log.ainfo("from ainfo")
        await asyncio.gather(work("from gather"))
        asyncio.get_running_loop().call_soon(log.info, "from a callback")
        await asyncio.sleep(0)
    for message in (
        "from a task",
        "from a group",
        "from a thread",
        "from ainfo",
        "from gather",
        "from a callback",
    ):
        assert (await where(tracker, message)).job_id == job.id, message


async def test_an_executor_inherits_by_a_copied_context(tracker):
    """R22: a bare executor knows no context; `contextvars.copy_context().run` hands the
    job over.
    """
    async with tracker.job("a") as job:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, log.info, "handed over").result()
            pool.submit(log.info, "on its own").result()
    assert (await where(tracker, "handed over")).job_id == job.id
    assert (await where(tracker, "on its own")).type == "system"


async def test_a_task_keeps_its_own_step_while_others_run_theirs(tracker):
    """R22: steps in parallel tasks do not see each other."""

    async def part(job, name):
        async with job.step(name):
            for _ in range(3):
                log.info("working", part=name)
                await asyncio.sleep(0)

    async with tracker.job("a") as job, asyncio.TaskGroup() as group:
        for name in ("one", "two", "three"):
            group.create_task(part(job, name))
    events = await tracker.logs.list(text="working")
    assert len(events) == 9
    assert all(event.step == event.attrs["part"] for event in events)


async def test_a_child_inherits_the_correlation_id_and_tells_its_parent(tracker):
    """R22, R23: a child's events carry its own id, its parent's, and the correlation id of the
    whole.
    """
    async with tracker.job("parent", correlation_id="order-7") as job, job.step("s"):
        async with job.child("child") as child:
            log.info("deep")
        async with tracker.job("nested") as nested:
            pass
    event = await where(tracker, "deep")
    assert event.job_id == child.id != job.id
    assert event.step_id is None
    assert event.correlation_id == "order-7" == nested.correlation_id
    assert event.attrs["parent_job_id"] == job.id == nested.parent_job_id
    assert (await tracker.jobs.get(child.id)).root_job_id == job.id


async def test_an_attribute_that_names_a_parent_does_not_hide_the_events_own(tracker):
    """R23: nor does one of the user's own, on the first level, appear twice."""
    async with tracker.job("parent") as job, job.child("child"):
        log.info("nested", order={"parent_job_id": "of the order"})
        log.info("by hand", parent_job_id="mine")
    nested, by_hand = await where(tracker, "nested"), await where(tracker, "by hand")
    assert nested.attrs == {"order": {"parent_job_id": "of the order"}, "parent_job_id": job.id}
    assert by_hand.attrs == {"parent_job_id": "mine"}


async def test_leaving_puts_back_what_was_there_before():
    """R22: after a job or step the surroundings are as they were; outside there is nothing."""
    assert structjob.current_job() is None
    assert structjob.current_step() is None
    async with structjob.Tracker("sqlite://") as tracker:
        async with tracker.job("a") as job:
            assert structjob.current_job() is job
            async with job.step("s") as step:
                assert structjob.current_step() is step
                async with job.child("c") as child:
                    assert (structjob.current_job(), structjob.current_step()) == (child, None)
                assert (structjob.current_job(), structjob.current_step()) == (job, step)
            assert structjob.current_step() is None
        assert structjob.current_job() is None


async def test_a_job_may_be_left_in_another_context(tracker):
    """R22: an async generator (or fixture) is resumed in its caller's context; leaving a job there
    raises nothing.
    """

    async def numbers():
        async with tracker.job("generator"), structjob.step("s"):
            yield 1

    generator = numbers()
    await contextvars.Context().run(asyncio.create_task, generator.__anext__())
    await contextvars.Context().run(asyncio.create_task, generator.aclose())
    assert structjob.current_job() is None
    (job,) = await tracker.jobs.list(operation="generator")
    assert job.status == "cancelled"


async def test_clear_contextvars_does_not_take_the_job_away(tracker):
    """R22: frameworks call `clear_contextvars()` for each request; the job stays, what was bound
    goes.
    """
    structlog.contextvars.bind_contextvars(request="r-1")
    async with tracker.job("a") as job:
        log.info("bound")
        structlog.contextvars.clear_contextvars()
        log.info("cleared")
    bound, cleared = await where(tracker, "bound"), await where(tracker, "cleared")
    assert bound.attrs == {"request": "r-1"}
    assert cleared.attrs == {}
    assert cleared.job_id == job.id


async def test_an_id_given_by_hand_shows_but_does_not_reroute(tracker, capsys):
    """R22: ``job_id=42`` in a log call is the user's business: printed as said; the event stays
    with the job that runs.
    """
    structjob.configure(console="json", strict=True)
    async with tracker.job("a") as job:
        log.info("mine", job_id=42)
    event = await where(tracker, "mine")
    assert event.job_id == job.id
    assert event.attrs == {"job_id": 42}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if '"mine"' in line]
    assert line.count('"job_id"') == 1
    assert '"job_id":42' in line


async def test_a_missing_correlation_can_be_detected(tracker):
    """R22: a system event has no correlation id; one that a request brought is kept."""
    log.info("alone")
    with structjob.extract({"X-Correlation-ID": "req-9"}).as_current():
        log.info("from a request")
        async with tracker.job("a") as job:
            pass
    assert (await where(tracker, "alone")).correlation_id is None
    assert (await where(tracker, "from a request")).correlation_id == "req-9" == job.correlation_id


# -- to other services and back
# --------------------------------------------------------------------------


async def test_inject_and_extract_carry_a_job_to_another_service(tracker):
    """R22: what `inject` writes into headers, `extract` reads; a job begun there becomes
    a child.
    """
    headers: dict[str, str] = {}
    async with tracker.job("caller", correlation_id="c-1") as job, job.step("call") as step:
        assert structjob.inject(headers) is headers
    assert headers["X-Correlation-ID"] == "c-1"
    assert headers["X-Job-ID"] == job.id
    remote = structjob.extract(
        {key.lower().encode(): value.encode() for key, value in headers.items()}
    )
    assert (remote.correlation_id, remote.job_id, remote.step_id) == ("c-1", job.id, step.id)
    async with tracker.job("called", parent=remote) as called:
        pass
    assert (called.parent_job_id, called.correlation_id) == (job.id, "c-1")


async def test_a_later_attempts_number_goes_along(any_tracker):
    """R4, R22: what another service logs for a job's second attempt belongs to the second
    attempt.
    """
    headers: dict[str, str] = {}
    for _ in range(2):
        async with any_tracker.job("caller", job_id="again"):
            headers = structjob.inject({})
    assert structjob.extract(headers).attempt == 2
    with structjob.extract(headers).as_current():
        log.info("elsewhere")
    (event,) = await any_tracker.logs.list(job_id="again", attempt=2, kind="log")
    assert event.message == "elsewhere"
    assert (
        structjob.extract({"baggage": f"structjob.attempt={'9' * 20}"})
        == propagation.RemoteContext()
    )


@pytest.mark.parametrize("way", ["headers", "environment", "id"])
async def test_the_root_of_a_tree_goes_along(any_tracker, way):
    """R1, R20, R22: a job below a child belongs to the tree of the child's root, also where it is
    begun elsewhere, or told only the id of a child that lives in this process.
    """
    async with any_tracker.job("root") as root:
        child = await root.child("child").__aenter__()
        headers, environment = (
            structjob.inject({}),
            propagation.to_environment(scope.current_scope()),
        )
        if way == "id":
            below = await any_tracker.job("below", parent=child.id).__aenter__()
            await below.end()
        await child.end()
    if way != "id":  # this process does not know the child any more, as another process
        remote = (
            structjob.extract(headers)
            if way == "headers"
            else propagation.from_environment(environment)
        )
        async with any_tracker.job("below", parent=remote) as below:
            pass
    record = await any_tracker.jobs.get(below.id)
    assert (record.parent_job_id, record.root_job_id) == (child.id, root.id)
    assert {job.operation for job in await any_tracker.jobs.list(root_job_id=root.id)} == {
        "root",
        "child",
        "below",
    }


async def test_an_environment_of_any_size_loses_no_event(database, tmp_path, monkeypatch):
    """R22, guarantee 7: what stands in the environment is made to fit."""
    monkeypatch.setenv("STRUCTJOB_JOB_ID", "outer")
    monkeypatch.setenv("STRUCTJOB_OPERATION", "o\udcff" * 300)
    monkeypatch.setenv("STRUCTJOB_ATTEMPT", "9" * 20)
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        log.info("joined")
        event = await where(tracker, "joined")
    assert (event.job_id, event.attempt, len(event.operation)) == ("outer", 1, 255)


def test_inject_outside_a_job_writes_nothing():
    """R22: without a scope there is nothing to tell."""
    assert structjob.inject() == {}
    assert structjob.inject({"a": "b"}) == {"a": "b"}


async def test_inject_keeps_the_baggage_of_others(tracker):
    """R22: W3C baggage is shared by several systems; ours is replaced, not added once more."""
    async with tracker.job("a") as job:
        headers = structjob.inject({"baggage": "user=ada , structjob.job_id=old,plan=a;p=1"})
        assert headers["baggage"] == f"structjob.job_id={job.id},user=ada,plan=a;p=1"
        async with job.step("s") as step:
            structjob.inject(headers)
        assert (
            headers["baggage"]
            == f"structjob.job_id={job.id},structjob.step_id={step.id},user=ada,plan=a;p=1"
        )


@pytest.mark.parametrize("make", [dict, httpx.Headers, requests.structures.CaseInsensitiveDict])
async def test_injecting_twice_changes_nothing(tracker, make):
    """R22: in any letter case of the names, of a dict or of a client's headers."""
    remote = structjob.extract({"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "a=1"})
    with remote.as_current():
        async with tracker.job("a", correlation_id="c-1"):
            carrier = make({"BAGGAGE": "user=ada", "x-correlation-id": "other", "A": "b"})
            once = dict(structjob.inject(carrier))
            assert dict(structjob.inject(carrier)) == once
    lower = {name.lower(): value for name, value in once.items()}
    assert len(lower) == len(once) == 6
    assert (lower["x-correlation-id"], lower["traceparent"]) == ("c-1", f"00-{TRACE}-{SPAN}-00")
    assert lower["baggage"].endswith(",user=ada")


@pytest.mark.parametrize(
    ("others", "kept"),
    [
        (",".join(f"k{n}=1" for n in range(100)), 63),
        (f"large={'x' * 8000},small=1,larger={'x' * 8192}", 2),
        (f"large={'é' * 4096},small=1", 1),
        (",,, ,", 0),
    ],
)
async def test_baggage_has_limits(tracker, others, kept):
    """R22: W3C Baggage: 64 members and 8,192 bytes; ours come first, and what does not fit is left
    out.
    """
    async with tracker.job("a") as job:
        baggage = structjob.inject({"baggage": others})["baggage"]
        there = structjob.environment({"BAGGAGE": others})["BAGGAGE"]
    members = baggage.split(",")
    assert members[0] == f"structjob.job_id={job.id}"
    assert len(members) - 1 == kept
    assert len(baggage.encode()) <= 8192
    assert there == baggage


async def test_the_trace_of_a_request_goes_on(tracker):
    """R22: the ids of an incoming ``traceparent`` are on the events, and on what is called next."""
    with structjob.extract({"traceparent": f"00-{TRACE}-{SPAN}-01"}).as_current():
        async with tracker.job("a"), structjob.step("s"):
            log.info("traced")
            headers = structjob.inject()
    event = await where(tracker, "traced")
    assert (event.trace_id, event.span_id) == (TRACE, SPAN)
    assert headers["traceparent"] == f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("flags", ["00", "01", "03", "ff"])
async def test_a_trace_is_passed_on_as_it_came(tracker, flags):
    """Acceptance test 5. R22: W3C Trace Context, 3.4: a service that changes nothing forwards
    parent id, flags and state, in headers and to subprocesses. A span id that is never exported
    would orphan the spans of the service that is called.
    """
    incoming = [
        ("Traceparent", f"00-{TRACE}-{SPAN}-{flags}"),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
    ]
    with structjob.extract(incoming).as_current():
        async with tracker.job("a") as job, job.step("s"), job.child("below"):
            hops = [structjob.inject() for _ in range(2)]
            there = structjob.environment(
                {"PATH": "/bin", "TRACESTATE": "old=1", "STRUCTJOB_STEP_ID": "old"}
            )
    assert {hop["traceparent"] for hop in hops} == {f"00-{TRACE}-{SPAN}-{flags}"}
    assert there["TRACEPARENT"] == f"00-{TRACE}-{SPAN}-{flags}"
    assert [hop["tracestate"] for hop in hops] == ["a=1,b=2", "a=1,b=2"]
    assert (there["TRACESTATE"], there["PATH"], "STRUCTJOB_STEP_ID" in there) == (
        "a=1,b=2",
        "/bin",
        False,
    )
    remote = propagation.from_environment(there)
    assert (remote.trace_id, remote.trace_flags, remote.tracestate) == (TRACE, flags, "a=1,b=2")


async def test_a_state_without_its_trace_is_taken_away(tracker):
    """R22: ``tracestate`` belongs to the ``traceparent`` that is replaced."""
    with structjob.extract({"traceparent": f"00-{TRACE}-{SPAN}-01"}).as_current():
        async with tracker.job("a"):
            assert "TraceState" not in structjob.inject({"TraceState": "old=1"})
            assert "TRACESTATE" not in structjob.environment({"TRACESTATE": "old=1"})


async def test_without_a_trace_none_is_begun(tracker):
    """R22: the service that is called decides itself whether it samples; the trace of a process
    that has one stays.
    """
    async with tracker.job("a") as job, job.child("b"):
        assert not {"traceparent", "tracestate"} & structjob.inject().keys()
        assert not {"TRACEPARENT", "TRACESTATE"} & structjob.environment({}).keys()
        given = {"TRACEPARENT": f"00-{TRACE}-{SPAN}-01", "TRACESTATE": "a=1"}
        assert given.items() <= structjob.environment(given).items()
    assert structjob.environment({"A": "b"}) == {"A": "b"}


@pytest.mark.parametrize(
    "state", ["", " ", "x=" + "y" * 511, ",".join(f"k{n}=1" for n in range(33)), "a=\x1b[2J", "a=é"]
)
def test_a_tracestate_that_must_not_be_passed_on(state):
    """Acceptance test 5. faults 31: too long, too many members or unprintable: left out as a whole,
    and without an effect on the trace.
    """
    remote = structjob.extract(
        {
            "traceparent": f"00-{TRACE}-{SPAN}-00",
            "tracestate": state,
        }
    )
    assert (remote.tracestate, remote.trace_flags) == (None, "00")
    assert structjob.extract({"tracestate": "a=1"}).tracestate is None


@each(
    "value",
    [
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        "00-short-b7ad6b7169203331-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0G",
        f"00-{TRACE}-{SPAN}-1",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\x00",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-00",
        f"00-{'é' * 32}-{SPAN}-01",
        "",
        "x" * 100_000,
    ],
)
def test_an_invalid_traceparent_counts_as_missing(value):
    """Acceptance test 5. R22: W3C Trace Context: all-zero ids, version ff and capitals are invalid;
    the header is ignored then.
    """
    remote = structjob.extract({"traceparent": value})
    assert (remote.trace_id, remote.span_id) == (None, None)


def test_a_later_version_of_traceparent_is_understood():
    """R22: W3C Trace Context: of a higher version, what is known of it is read, whatever
    follows.
    """
    remote = structjob.extract({"traceparent": f"cc-{TRACE}-{SPAN}-0b-what-the-future-holds"})
    assert (remote.trace_id, remote.span_id, remote.trace_flags) == (TRACE, SPAN, "01")
    assert structjob.extract({"traceparent": f" cc-{TRACE}-{SPAN}-02\t"}).trace_flags == "00"


def test_two_headers_of_a_trace_are_none():
    """R22: W3C Trace Context, 3.2: several ``traceparent`` are invalid."""
    pairs = [("traceparent", f"00-{TRACE}-{SPAN}-01"), ("Traceparent", f"00-{TRACE}-{SPAN}-00")]
    assert structjob.extract(pairs) == propagation.RemoteContext()


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"X-Correlation-ID": "a", "X-Request-ID": "b", "traceparent": TRACED}, "a"),
        ({"X-Request-ID": "b", "traceparent": TRACED}, "b"),
        ({"X-Correlation-ID": "not one", "X-Request-ID": "b"}, "b"),
        ({"X-Correlation-ID": "é", "X-Request-ID": "x" * 129, "traceparent": TRACED}, TRACE),
        ({"traceparent": TRACED}, TRACE),
        ({"traceparent": f"00-{TRACE}"}, None),
        ({}, None),
    ],
)
def test_where_a_correlation_id_comes_from(headers, found):
    """R22: its own header, else the request's id, else the trace; one that is refused counts as
    missing.
    """
    assert structjob.extract(headers).correlation_id == found


def test_refused_ids_are_counted_and_never_repeated(caplog):
    """R22: how many ids from outside were refused can be seen; what they were can not."""
    caplog.set_level("DEBUG")
    hostile = {"X-Correlation-ID": "evil\r\nvalue", "X-Job-ID": "x" * 65, "X-Request-ID": ""}
    for _ in range(3):
        structjob.extract(hostile)
    assert structjob.diagnostics.faults.counts == {
        "refusing the id in X-Correlation-ID": 3,
        "refusing the id in X-Job-ID": 3,
    }
    assert "evil" not in caplog.text


@pytest.mark.parametrize(
    "hostile", ["", " ", "a b", "x\r\nSet-Cookie: a=b", "\x00", "é", "x" * 129, "\x1b[2J"]
)
def test_a_hostile_id_counts_as_missing(hostile):
    """R22: an id from outside that is too long or not printable ASCII counts as missing: it would
    end up in headers, logs and terminals.
    """
    assert (
        structjob.extract(
            {
                "X-Correlation-ID": hostile,
                "X-Job-ID": hostile,
                "baggage": f"structjob.step_id={hostile}",
            }
        )
        == propagation.RemoteContext()
    )


@given(st.dictionaries(st.text() | st.binary(), st.text() | st.binary()))
def test_extract_survives_any_headers(headers):
    """R22: whatever a client sends, reading it raises nothing, and what comes out is safe to pass
    on.
    """
    remote = structjob.extract(headers)
    assert all(
        value is None or value.isascii()
        for value in (remote.correlation_id, remote.job_id, remote.step_id)
    )


def test_duplicate_headers_as_pairs_are_read():
    """R22: ASGI gives headers as pairs of bytes, the same name more than once perhaps."""
    remote = structjob.extract(
        [(b"x-job-id", b"j-1"), (b"baggage", b"a=b"), (b"baggage", b"structjob.step_id=s-1")]
    )
    assert (remote.job_id, remote.step_id) == ("j-1", "s-1")


def test_several_baggage_headers_are_one_list():
    """faults H: each of several ``baggage`` headers is read, in any order and letter case; of any
    other header the last one counts.
    """
    pairs = [
        (b"baggage", b"structjob.job_id=j-1,user=ada"), (b"X-Correlation-ID", b"first"), (b"Baggage", b"structjob.step_id=s-1"),
        (b"x-correlation-id", b"last"), (b"baggage", b"structjob.attempt=2"),
    ]  # fmt: skip
    for carrier in (pairs, pairs[::-1]):
        remote = structjob.extract(carrier)
        assert (remote.job_id, remote.step_id, remote.attempt) == ("j-1", "s-1", 2)
        assert remote.correlation_id == ("last" if carrier is pairs else "first")


async def test_an_id_that_headers_cannot_carry_is_left_out(tracker):
    """R22: a job's id of the caller's own may hold anything; a header may not."""
    async with tracker.job("a", job_id="ünïcode", correlation_id="one\ntwo"):
        headers = structjob.inject()
    assert "X-Job-ID" not in headers
    assert "X-Correlation-ID" not in headers
    assert all(value.isascii() and value.isprintable() for value in headers.values())


async def test_the_environment_carries_a_job_to_a_child_process(tracker):
    """R22: what a subprocess finds in its environment is the job, step and correlation id it was
    begun in.
    """
    async with tracker.job("a", correlation_id="c-1") as job, job.step("s") as step:
        environment = propagation.to_environment(scope.current_scope())
    remote = propagation.from_environment(environment)
    assert (
        remote.job_id,
        remote.step_id,
        remote.attempt,
        remote.operation,
        remote.correlation_id,
    ) == (job.id, step.id, 1, "a", "c-1")
    assert (
        propagation.from_environment({"STRUCTJOB_ATTEMPT": "²", "STRUCTJOB_JOB_ID": "x" * 65})
        == propagation.RemoteContext()
    )
    assert (
        propagation.from_environment({"STRUCTJOB_ATTEMPT": "9" * 5000})
        == propagation.RemoteContext()
    )


async def test_below_a_job_of_the_environment_events_and_jobs_belong_to_it(db_url, monkeypatch):
    """R22: a program begun by ``structjob run`` logs into that job; when its tracker closes, that
    is over.
    """
    monkeypatch.setenv("STRUCTJOB_JOB_ID", "outer-job")
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url) as tracker:
        log.info("joined")
        async with tracker.job("inner") as inner:
            pass
        assert (await where(tracker, "joined")).job_id == "outer-job"
        assert inner.parent_job_id == "outer-job"
    assert scope.current_scope() is None


def test_ids_are_uuid7_and_sort_by_time():
    """The ids structjob makes are UUIDv7 (RFC 9562): unique, and in the order of their
    milliseconds.
    """
    ids = [scope.new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {uuid.UUID(id_).version for id_ in ids} == {7}
    assert {uuid.UUID(id_).variant for id_ in ids} == {uuid.RFC_4122}
    assert [id_[:13] for id_ in ids] == sorted(id_[:13] for id_ in ids)


async def test_a_job_s_events_without_a_tracker_are_told_of(caplog, monkeypatch, db_url):
    """R22: a process that logs for a job and opens no tracker, a spawned worker say, hears once
    that nothing of it is stored.
    """
    monkeypatch.setattr(routing, "_warned", False)
    structjob.configure(console=False)
    log.info("of no job")
    assert caplog.records == []
    with structjob.extract({"X-Job-ID": "j"}).as_current():
        log.info("of a job")
        log.info("once more")
    (record,) = caplog.records
    assert "belongs to a job, and no tracker is open in this process" in record.getMessage()


async def ended(*handles):
    """Wait until the loop has closed the generators that hold these jobs and steps."""
    while not all(handle.ended for handle in handles):
        await asyncio.sleep(0)


def here():
    """Return the ids of the running code."""
    return structjob.inject()


@pytest.mark.parametrize("kind", ["step", "job", "bind", "retrying"])
@pytest.mark.parametrize("within", [False, True])
async def test_what_a_generator_held_is_not_the_scope_of_what_follows(tracker, kind, within):
    """faults 22: after `break`, events and jobs belong to what was around the loop, be it a job or
    nothing.
    """
    held = []

    async def rows():
        if kind == "step":
            async with structjob.step("read") as step:
                held.append(step)
                yield 1
        elif kind == "job":
            async with tracker.job("read") as job, job.step("rows") as step:
                held.extend((job, step))
                yield 1
        elif kind == "bind":
            step = await structjob.current_job().step("read").start()
            try:
                with step.as_current():
                    held.append(step)
                    yield 1
            finally:
                await step.end()
        else:
            async for attempt in structjob.retrying("read", max_attempts=2):
                async with attempt as step:
                    held.append(step)
                    yield 1

    async def follow():
        before = here()
        async for _ in rows():
            break
        assert here() != before
        await ended(*held)
        assert here() == before
        assert structjob.current_step() is None
        log.info("later")
        async with tracker.job("later") as later:
            pass
        await asyncio.create_task(tracker.job("by a task")(follow_on)())
        return later

    async def follow_on():
        pass

    if within or kind != "job":
        async with tracker.job("around") as around:
            later = await follow()
            assert structjob.current_job() is around
        parent = around.id
    else:
        later, parent = await follow(), None
    assert here() == {}
    (event,) = await tracker.logs.list(text="later", kind="log")
    assert (event.job_id, event.step_id) == (parent, None)
    assert (await tracker.jobs.get(later.id)).parent_job_id == parent
    assert [job.parent_job_id for job in await tracker.jobs.list(operation="by a task")] == [parent]
    # The generator's own last events are still its own.
    for event in await tracker.logs.list(kind="step_end"):
        assert event.step_id is not None


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_generator_that_is_closed_within_another_job_leaves_that_job_current(tracker, kind):
    """faults 22: what the generator entered first, and leaves first, is not what the
    caller is in.
    """
    held = []

    async def rows():
        async with tracker.job("read") if kind == "job" else structjob.step("read") as handle:
            held.append(handle)
            yield 1

    async with tracker.job("around") as around:
        reading = rows()
        await anext(reading)
        async with tracker.job("inner") as inner, inner.step("work") as work:
            await reading.aclose()
            assert held[0].ended
            assert structjob.current_step() is work
        assert (structjob.current_job(), structjob.current_step()) == (around, None)
    assert here() == {}


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_a_job_that_ends_before_a_generator_below_it_is_closed(tracker, kind):
    """faults 22: once the generator is closed, neither of the two is current."""
    held = []

    async def rows():
        async with tracker.job("read") if kind == "job" else structjob.step("read") as handle:
            held.append(handle)
            yield 1

    async with tracker.job("around"), structjob.step("s"):
        reading = rows()
        await anext(reading)
    if kind == "step":
        assert here() == {}  # it ended with its job
    await reading.aclose()
    assert here() == {}
    async with tracker.job("later") as later:
        assert later.parent_job_id is None
