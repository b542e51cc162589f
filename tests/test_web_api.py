"""The HTTP API: what each path answers, and how it refuses."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
import structlog
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from web_support import client, served, some_work

import structjob
from structjob.queries import histograms, paging
from structjob.queries.logs import Logs
from structjob.web import app as structjob_app
from structjob.web import metrics, params
from structjob.web.api.statistics import StatsQuery


@pytest.fixture
async def work(tracker):
    """A job with a step, a child, an error and a line outside of jobs."""
    return await some_work(tracker)


@pytest.fixture
async def web(tracker, work):
    """A client of the application that is mounted with the tracker."""
    async with client(tracker) as opened:
        yield opened


async def ask(web, path, status=200, **options):
    answer = await web.get(path, **options)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_jobs_are_listed_newest_first_with_the_fields_of_the_record(web, work):
    """(R20, R46)"""
    page = await ask(web, "jobs")
    assert [job["operation"] for job in page["items"]] == ["verify", "vm-migrate"]
    assert page["next_cursor"] is None
    assert page["partial"] is False
    assert page["items"][1]["error"]["message"] == "checksum mismatch"


async def test_pages_of_jobs_lead_to_one_another(web):
    """(R20, R46)"""
    first = await ask(web, "jobs?limit=1")
    second = await ask(web, f"jobs?limit=1&cursor={first['next_cursor']}")
    assert [first["items"][0]["operation"], second["items"][0]["operation"]] == [
        "verify",
        "vm-migrate",
    ]
    assert (await ask(web, f"jobs?limit=1&cursor={second['previous_cursor']}"))["items"] == first[
        "items"
    ]


async def test_filters_of_jobs_are_parameters(web):
    """(R20, R46)"""
    for query, operations in (
        ("status=failed", ["vm-migrate"]),
        ("status=failed,completed", ["verify", "vm-migrate"]),
        ("status=failed&status=completed", ["verify", "vm-migrate"]),
        ("root=1", ["vm-migrate"]),
        ("q=igrat", ["vm-migrate"]),
        ("metadata.vm=pg-01", ["vm-migrate"]),
        ("since=-1h", ["verify", "vm-migrate"]),
        ("until=-1h", []),
    ):
        found = await ask(web, f"jobs?{query}")
        assert [job["operation"] for job in found["items"]] == operations, query


async def test_a_job_is_found_by_any_id(web, work):
    """(R19, R45)"""
    for any_id in ("gui%2F17", "vm-9"):
        found = await ask(web, f"jobs/{any_id}")
        assert found["job"]["id"] == work.id, any_id
        assert found["progress"]["total_steps"] == 1
        assert found["lost_events"] == {}
        assert (await ask(web, f"jobs/{any_id}/progress"))["job_id"] == work.id


async def test_a_job_tells_how_many_events_it_has_by_level(any_tracker, monkeypatch):
    """Those of all attempts and steps, each once; a child job has its own. Of very many events the
    newest are counted, and the answer says so (R46).
    """
    log = structlog.get_logger()
    async with any_tracker.job("outer", external_job_id="gui-1") as outer:
        log.debug("began")
        async with outer.step("load"):
            for number in range(20):
                log.info("loaded", n=number)
            log.warning("slow")
        async with any_tracker.job("inner", parent=outer):
            log.error("of the child")
    await any_tracker.flush()
    listed = await any_tracker.logs.list(job_id=outer.id, children=False)
    wanted = Counter(event.level for event in listed)
    assert wanted["info"] > 20
    async with client(any_tracker) as web:
        found = (await ask(web, "jobs/gui-1"))["events"]
        assert found == {
            "by_level": dict(sorted(wanted.items())),
            "partial": False,
            "looked_at": len(listed),
            "counted_since": None,
        }
        assert (await ask(web, "jobs/gui-1?events=0"))["events"] is None
        for module in (paging, histograms):
            monkeypatch.setattr(module, "SCAN_LIMIT", 10)
        monkeypatch.setattr(histograms, "_now", itertools.count().__next__)
        some = (await ask(web, "jobs/gui-1"))["events"]
    assert (some["partial"], some["looked_at"]) == (True, 10)
    assert some["by_level"] == Counter(event.level for event in listed[-10:])
    assert datetime.fromisoformat(some["counted_since"]) == listed[-10].ts


async def test_progress_tells_of_parent_children_and_running_steps(tracker):
    """(R45)"""
    async with client(tracker) as web, tracker.job("outer") as outer, outer.step("load"):
        async with tracker.job("inner", parent=outer) as inner:
            found = await ask(web, f"jobs/{outer.id}/progress")
            assert [step["name"] for step in found["running_steps"]] == ["load"]
            assert [child["id"] for child in found["children"]] == [inner.id]
            assert (await ask(web, f"jobs/{inner.id}/progress"))["parent"]["id"] == outer.id


async def test_a_tree_is_cut_at_its_depth_and_says_how_much_is_left_out(web, work):
    """(R45)"""
    whole = await ask(web, f"jobs/{work.id}/tree")
    assert [child["job"]["operation"] for child in whole["children"]] == ["verify"]
    assert [step["name"] for step in whole["steps"]] == ["copy"]
    cut = await ask(web, f"jobs/{work.id}/tree?depth=0")
    assert (cut["children"], cut["folded"]) == ([], 1)


async def test_an_answer_that_has_not_changed_is_not_sent_again(web, work):
    """(R46)"""
    first = await web.get(f"jobs/{work.id}")
    again = await web.get(f"jobs/{work.id}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_filters_of_logs_are_parameters(web):
    """(R36, R46)"""
    for query, messages in (
        ("type=system", ["server started"]),
        ("level=warning&kind=log", ["slow"]),
        ("levels=info&kind=log", ["server started", "copied"]),
        ("levels=info,warning&kind=log", ["server started", "copied", "slow"]),
        ("attr.vm.name=pg-01", ["copied"]),
        ("attr.ms=812", ["slow"]),
        ("attr.ms=%22812%22", []),
        ("job=vm-9&children=0&kind=log", ["copied"]),
        ("q=SLOW", ["slow"]),
        ("kind=log&order=desc&limit=1", ["slow"]),
    ):
        found = await ask(web, f"logs?{query}")
        assert [event["message"] for event in found["items"]] == messages, query


async def test_an_event_is_named_by_its_session_and_number(web):
    """(R36, R46)"""
    (slow,) = (await ask(web, "logs?attr.ms=812"))["items"]
    name = f"{slow['session_id']}:{slow['seq']}"
    assert await ask(web, f"logs/{name}") == slow
    around = await ask(web, f"logs/{name}/context?before=1&after=1")
    assert around["event"] == slow
    assert len(around["before"]) == 1


async def test_what_is_refused_is_a_problem_that_names_what_is_wrong(web):
    """(R46)"""
    for path, status, parameter in (
        ("jobs?statsu=failed", 400, "statsu"),
        ("jobs?metadata.=3", 400, "metadata."),
        ("jobs?limit=0", 400, "limit"),
        ("jobs?status=broken", 400, "status"),
        ("jobs?owner=broken&status=broken", 400, "status"),
        ("jobs?since=yesterday", 400, "since"),
        ("jobs?since=2026-11-28T12:00:00", 400, "since"),
        ("jobs?cursor=x", 400, "cursor"),
        ("jobs?status=failed&limit=5&cursor=x", 400, "cursor"),
        ("jobs?since=-1h&until=-2h&limit=5", 400, "since"),
        ("logs?levle=info", 400, "levle"),
        ("logs?level=loud", 400, "level"),
        ("logs?levels=loud,info&type=job", 400, "levels"),
        ("logs?type=job&stream=nowhere", 400, "stream"),
        ("logs?level=info&attr.a..b=1", 400, "attr.a..b"),
        ("logs?limit=5&q=%00", 400, "q"),
        ("errors?status=shut&limit=5", 400, "status"),
        ("statistics/errors?limit=5&job=%00", 400, "job"),
        ("stream/poll?channels=tree&level=info", 400, "job"),
        ("stream/poll?level=info&until=-1h", 400, "until"),
        ("logs?job=nothing", 404, None),
        ("health?x=1", 400, "x"),
        ("jobs/nothing", 404, None),
        ("jobs/a%2Fb%3F%23..%00", 404, None),
        ("jobs/" + "x" * 4_000, 404, None),
        ("jobs/nothing/tree", 404, None),
        ("logs/nothing", 404, None),
        ("logs/1:1", 404, None),
        ("nothing", 404, None),
    ):
        answer = await web.get(path)
        assert answer.status_code == status, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", path
        problem = answer.json()
        assert problem["status"] == status, path
        assert problem["detail"], path
        assert problem.get("parameter") == parameter, path


async def test_a_method_that_a_path_does_not_have_is_405(web):
    """(R46)"""
    answer = await web.delete("jobs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_long_answers_are_compressed_and_say_how_long_the_database_took(web):
    """(R46)"""
    answer = await web.get("logs")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["server-timing"].startswith("db;dur=")


async def test_head_has_the_headers_of_get_and_no_body(web):
    """(R46)"""
    answer = await web.head("jobs")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/json"


async def test_a_url_is_opened_for_reading_at_the_first_request(tracker, work, db_url):
    """(R46)"""
    async with client(db_url) as web:
        assert len((await ask(web, "jobs"))["items"]) == 2
    assert len(await tracker.sessions.list()) == 1


async def test_pages_refer_to_their_files_by_the_depth_of_their_address(tracker):
    """(R47)"""
    async with client(tracker, base="http://localhost/") as web:
        assert 'href="./static/' in (await web.get("jobs")).text
        for deep in ("jobs/a", "jobs/a%2Fb", "jobs/"):
            assert 'href="../static/' in (await web.get(deep)).text
        assert "default-src 'none'" in (await web.get("")).headers["content-security-policy"]


async def test_a_page_begins_at_a_line_in_either_direction(web):
    """With ``start`` a page begins at a line, forwards and backwards (R46)."""
    lines = (await ask(web, "logs"))["items"]
    middle = lines[len(lines) // 2]
    name = f"{middle['session_id']}:{middle['seq']}"
    forward = (await ask(web, f"logs?start={name}"))["items"]
    backward = (await ask(web, f"logs?start={name}&order=desc"))["items"]
    assert backward[::-1] + forward[1:] == lines
    assert (await web.get("logs?start=1:999")).status_code == 404


async def test_a_histogram_counts_what_the_list_has(web):
    """The bars of a histogram add up to the lines of the list, by level (R40)."""
    lines = (await ask(web, "logs"))["items"]
    found = await ask(web, "logs/histogram?buckets=10")
    assert sum(sum(bar["counts"].values()) for bar in found["bars"]) == len(lines)
    warnings = sum(bar["counts"].get("warning", 0) for bar in found["bars"])
    assert warnings == sum(line["level"] == "warning" for line in lines)
    assert len(found["bars"]) <= 10


async def test_statistics_are_those_of_the_tracker(web, tracker):
    """(R38, R39, R40, R46)"""
    since = datetime.now(UTC) - timedelta(hours=1)
    for path in ("operations", "projects", "steps", "errors", "errors-by-job", "volume"):
        found = await ask(web, f"statistics/{path}?since=-1h")
        own = await getattr(tracker.stats, path.replace("-", "_"))(since=since)
        assert found == json.loads(msgspec.json.encode(own)), path
    found = await ask(web, "statistics/throughput?since=-1h")
    own = await tracker.stats.throughput(since=since)
    assert sum(one["total"] for one in found) == sum(one.total for one in own)
    found = await ask(web, "statistics/errors-by-time?since=-1h")
    own = await tracker.stats.errors(since=since, bucket=timedelta(hours=1))
    assert sum(sum(one["counts"].values()) for one in found) == sum(one.total for one in own)


async def test_events_of_jobs_are_counted_with_those_of_their_children(web, tracker):
    """The list of jobs says how many lines, warnings and errors the log of each job has (R47)."""
    listed = (await ask(web, "jobs"))["items"]
    found = await ask(
        web, f"statistics/events-by-job?{'&'.join('job=' + one['id'] for one in listed)}"
    )
    assert [one["job_id"] for one in found] == [one["id"] for one in listed]
    for one in found:
        for name, level in (("total", ""), ("errors", "&level=error"), ("warnings", "&levels=warning")):  # fmt: skip
            count = await ask(web, f"logs/count?job={one['job_id']}{level}")
            assert one[name] == count["count"]
    await ask(web, f"statistics/events-by-job?{'&'.join(f'job={n}' for n in range(101))}", 400)
    await ask(web, "statistics/events-by-job", 400)


async def test_events_of_a_job_whose_id_contains_a_comma_are_counted(web, tracker):
    """Ids that name no job are left out, also external ids and an empty one (R47)."""
    async with tracker.job("import", job_id="disk,1", external_job_id="extern"):
        structlog.get_logger("app").error("it failed")
    await tracker.flush()
    others = "&".join(f"job={n}" for n in range(97))
    (one,) = await ask(web, f"statistics/events-by-job?job=disk,1&job=extern&job=&{others}")
    assert (one["job_id"], one["errors"]) == ("disk,1", 1)


async def test_trends_are_the_p95_of_each_operation_by_time(web, tracker):
    """The overview asks once for the lines of all its operations (R40, R46)."""
    operations = [one.operation for one in await tracker.stats.operations()]
    found = await ask(web, f"statistics/trends?operation={','.join(operations)}&since=-2h")
    assert [one["operation"] for one in found] == operations
    assert any(value is not None for one in found for value in one["p95_ms"])
    for one in found:
        own = await tracker.stats.throughput(
            since=datetime.now(UTC) - timedelta(hours=2), operation=one["operation"]
        )
        known = [each for each in one["p95_ms"] if each is not None]
        assert known == [each.p95_ms for each in own if each.p95_ms is not None]
    assert (await web.get("/api/v1/statistics/trends")).status_code == 400


async def test_errors_are_listed_with_their_first_and_newest_occurrences(web):
    """(R39, R46)"""
    (group,) = await ask(web, "errors?status=open")
    detail = await ask(web, f"errors/{group['fingerprint'][:6]}")
    assert detail["group"] == group
    assert detail["newest"][0]["fingerprint"] == group["fingerprint"]
    assert (await web.get("errors/nothing")).status_code == 404
    assert (await web.get("errors?status=broken")).status_code == 400


async def test_errors_are_counted_each_once(web, tracker):
    """The number beside "Errors" in the header is that of all errors, however many (R47)."""
    for kind in (OSError, KeyError, LookupError):
        for _ in range(2):
            structlog.get_logger("app").error("it failed", exc_info=kind("x"))
    await tracker.flush()
    listed = await ask(web, "errors?status=open,regressed&limit=10000")
    assert await ask(web, "errors/count?status=open,regressed") == {"count": len(listed)}
    assert len(listed) == 4  # with that of the job
    assert await ask(web, "errors/count?status=resolved") == {"count": 0}
    await ask(web, "errors/count?limit=1", 400)


async def test_a_long_answer_ends_when_its_client_has_gone(tracker, monkeypatch):
    """A histogram of a page that was closed does not run to its end (R47)."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def histogram(*_, **__):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    monkeypatch.setattr(Logs, "histogram", histogram)
    async with served(structjob_app(tracker)) as site, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", int(site.rpartition(":")[2]))
        writer.write(b"GET /api/v1/logs/histogram HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.wait()
        assert not cancelled.is_set()
        writer.close()
        await cancelled.wait()


async def test_sessions_are_listed_with_their_gaps(web, tracker):
    """(R46)"""
    (one,) = await ask(web, "sessions?live=1")
    number = one["session_id"]
    assert number == tracker.session_id
    assert (await ask(web, f"sessions/{number}"))["status"] == "live"
    assert await ask(web, f"sessions/{number}/gaps") == []
    assert (await ask(web, "verify"))["sessions"][0]["session_id"] == number
    for wrong in ("sessions/1", "sessions/x", "sessions/1/gaps"):
        assert (await web.get(wrong)).status_code == 404


async def test_storage_counts_the_rows_of_each_table(web):
    """(R40, R46)"""
    found = await ask(web, "storage")
    assert {"table": "structjob_jobs", "rows": 2}.items() <= {
        key: value
        for table in found["tables"]
        if table["table"] == "structjob_jobs"
        for key, value in table.items()
    }.items()


async def test_all_that_matches_is_downloaded_and_the_last_line_says_so(web, tracker):
    """(R36, R46)"""
    answer = await web.get("logs.jsonl?kind=log")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "content-length" not in answer.headers
    *lines, last = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["message"] for line in lines] == ["server started", "copied", "slow"]
    assert last == {"complete": True, "count": 3}
    text = (await web.get("logs.txt?kind=log")).text.splitlines()
    assert len(text) == 4
    assert "copied" in text[1]
    assert text[3] == "-- complete: 3 lines"
    assert (await web.get("logs.jsonl?job=nothing")).status_code == 404


async def test_an_exported_job_can_be_imported_elsewhere(web, work, tmp_path):
    """(R21, R46)"""
    answer = await web.get(f"jobs/{work.id}/export")
    assert answer.headers["content-type"] == "application/gzip"
    path = tmp_path / "job.jsonl.gz"
    path.write_bytes(answer.content)
    async with structjob.Tracker(f"sqlite:///{tmp_path}/other.db") as other:
        result = await other.import_(path)
        assert result.jobs == 2
        assert (await other.jobs.get(work.id)).operation == "vm-migrate"


async def test_an_id_may_end_with_a_slash(tracker):
    """(R19, R45)"""
    for external_id in ("nightly", "nightly/", "nightly//"):
        async with tracker.job("nightly", external_job_id=external_id):
            pass
    await tracker.flush()
    for base in ("http://localhost/", "http://localhost/ops/"):
        async with client(tracker, base=base) as web:
            for external_id in ("nightly", "nightly/", "nightly//"):
                address = external_id.replace("/", "%2F")
                found = (await web.get(f"api/v1/jobs/{address}")).json()
                assert found["job"]["external_job_id"] == external_id
                assert (await web.get(f"jobs/{address}")).status_code == 200


async def test_a_browser_gets_a_page_where_people_look_and_json_where_programs_do(tracker):
    """Whatever the prefix is called (R45, R46)."""
    async with client(tracker, base="http://localhost/") as web:
        for path, kind in (
            ("nothing", "text/html"), ("api/nothing", "text/html"), ("api/v1/nothing", "application/problem+json"),
            ("static/nothing", "application/problem+json"),
        ):  # fmt: skip
            answer = await web.get(path, headers={"Accept": "text/html"})
            assert answer.status_code == 404
            assert answer.headers["content-type"].partition(";")[0] == kind, path


async def test_jobs_are_counted_by_status(web, work):
    """As the list of jobs selects them (R41, R46)."""
    counts = await ask(web, "statistics/jobs")
    assert counts == {
        "pending": 0, "running": 0, "completed": 1, "failed": 1, "cancelled": 0, "crashed": 0,
    }  # fmt: skip
    assert (await ask(web, "statistics/jobs?root=1"))["completed"] == 0
    assert (await ask(web, "statistics/jobs?metadata.vm=pg-01&status=failed"))["failed"] == 1
    assert (
        "there is no parameter limit" in (await ask(web, "statistics/jobs?limit=1", 400))["detail"]
    )


async def test_prometheus_reads_how_many_jobs_there_are(tracker, work):
    """(R38)"""
    async with client(tracker, base="http://localhost/") as web:
        text = (await web.get("metrics")).text
    assert "structjob_up 1\n" in text
    assert 'structjob_jobs{operation="vm-migrate",status="failed"} 1\n' in text
    assert 'structjob_sessions{status="live"} 1\n' in text


async def test_prometheus_counts_a_job_that_hangs_for_days(tmp_path):
    """A job that was created before the window is counted while it runs, and as failed when it
    fails; without sessions of a status their number is 0 (R38).
    """
    path = tmp_path / "jobs.db"
    async with structjob.Tracker(path) as tracker:
        job = await tracker.create_job("hangs")
        await job.start()
        await tracker.flush()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "UPDATE structjob_jobs SET created_at = '2026-01-01', started_at = '2026-01-01'"
            )
        async with client(tracker, base="http://localhost/") as web:
            text = (await web.get("metrics")).text
            assert 'structjob_jobs{operation="hangs",status="running"} 1\n' in text
            assert 'structjob_jobs{operation="hangs",status="failed"} 0\n' in text
            assert 'structjob_sessions{status="silent"} 0\n' in text
            await job.end(error=ValueError("too late"))
            await tracker.flush()
            listed = (await web.get("api/v1/jobs?since=-1h&by=ended")).json()["items"]
            assert [job["status"] for job in listed] == ["failed"]
            assert (await web.get("api/v1/jobs?since=-1h")).json()["items"] == []
            text = (await web.get("metrics")).text
            assert 'structjob_jobs{operation="hangs",status="running"} 0\n' in text
            assert 'structjob_jobs{operation="hangs",status="failed"} 1\n' in text


async def test_prometheus_counts_all_open_jobs_and_errors(tracker, db_path):
    """No page of a listing ends a count: more jobs run than a page has rows, and more errors are
    open. No number is rounded (R38).
    """
    async with tracker.job("waits"):
        for number in range(101):
            structlog.get_logger(chr(0x4E00 + number)).error("no route")
        await tracker.flush()
        with closing(sqlite3.connect(db_path)) as connection, connection:
            columns = [row[1] for row in connection.execute("PRAGMA table_info(structjob_jobs)")]
            others = ", ".join(name for name in columns if name not in ("id", "session_id"))
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
                f"INSERT INTO structjob_jobs (id, {others}) SELECT 'copy-' || i, {others} FROM n, structjob_jobs"
            )
        async with client(tracker, base="http://localhost/") as web:
            text = (await web.get("metrics")).text
    assert 'structjob_jobs{operation="waits",status="running"} 10001\n' in text
    assert "structjob_errors_open 101\n" in text


def test_prometheus_reads_a_number_in_full():
    """Seven digits are a day of a busy service (R38)."""
    shown = metrics.family("lines", "Lines.", iter([({"level": "info"}, 1_234_567), ({}, 0.25)]))
    assert shown.endswith('lines{level="info"} 1234567\nlines 0.25\n')


async def test_every_path_and_answer_is_documented(web):
    """(R46)"""
    document = await ask(web, "openapi.json")
    ids = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            ids.append(operation["operationId"])
            assert operation["summary"], path
            assert operation["tags"], path
            assert "422" not in operation["responses"]
            assert {"400", "401", "403", "503"} <= operation["responses"].keys(), (method, path)
    assert len(ids) == len(set(ids))
    assert {"listJobs", "getJobRunLogs", "listLogs", "cancelJob"} <= set(ids)
    references = re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document))
    assert set(references) <= document["components"]["schemas"].keys()
    # openapi-python-client refused the whole document for one schema that is `false`
    assert '"items": false' not in json.dumps(document)
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


_TRANSPORTS = {"stream", "postStream", "streamWs", "poll", "streamSse", "streamMessagesWs"}
"""Paths of one stream, among which the client's methods for streams choose."""


async def test_the_javascript_client_has_a_method_for_each_path_by_the_name_in_openapi(web):
    """A reader of the document knows the method, and one of the client finds its path (R46)."""
    document = await ask(web, "openapi.json")
    documented = {
        operation["operationId"]: (method, re.sub(r"\{\w+\}", "{}", path.removeprefix("/api/v1/")))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    static = Path(structjob.__file__).parent / "web" / "static"
    methods = {}
    for file, begin in (
        ("api.js", "class Api "),
        ("client.js", "class Structjob "),
        ("client.js", "class LogStreamingService "),
    ):
        text = (static / file).read_text().partition(begin)[2].partition("\n}\n")[0]
        for name, body in re.findall(r"^  (?:async )?(\w+)\(.*?\) \{(.*?(?:\}$|^  \}$))", text, re.MULTILINE | re.DOTALL):  # fmt: skip
            asked = re.search(
                r"""this\.(#get|#post|request|response|#api\.request)\([`"]([^`"]+)""", body
            )
            if asked:
                method = "post" if asked[1] == "#post" or '"POST"' in body else "get"
                methods[name] = method, re.sub(r"\$\{\w+\(\w+\)\}", "{}", asked[2])
    wanted = {name: path for name, path in documented.items() if name not in _TRANSPORTS}
    assert methods == wanted


async def test_a_database_that_does_not_answer_is_503_and_never_a_stale_answer(tmp_path):
    """(R46)"""
    async with client(f"sqlite:///{tmp_path}/absent.db") as web:
        answer = await web.get("jobs")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (await web.get("ready")).status_code == 503
        assert (await web.get("health")).status_code == 200
    assert not (tmp_path / "absent.db").exists()


@pytest.mark.parametrize("host", ["starlette", "fastapi"])
async def test_it_is_mounted_twice_in_an_application_without_a_lifespan(
    tracker, work, host, tmp_path
):
    """(R46)"""
    async with structjob.Tracker(f"sqlite:///{tmp_path}/other.db") as other:
        first, second = structjob_app(tracker), structjob_app(other, name="other")
        if host == "starlette":
            outer = Starlette(routes=[Mount("/a/b", first), Mount("/other", second)])
        else:
            outer = FastAPI()
            outer.mount("/a/b", first)
            outer.mount("/other", second)
        transport = httpx.ASGITransport(outer, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
            assert len((await web.get("/a/b/api/v1/jobs")).json()["items"]) == 2
            assert (await web.get("/other/api/v1/jobs")).json()["items"] == []
            assert (await web.get("/a/b/api/v1/jobs/gui%2F17")).json()["job"]["id"] == work.id
            assert 'href="../static/' in (await web.get("/a/b/jobs/gui%2F17")).text
            assert 'href="./static/' in (await web.get("/a/b/jobs")).text
            assert 'href="./static/' in (await web.get("/other/")).text
            assert (await web.get("/a/b/nothing")).status_code == 404
        await first.aclose()
        await second.aclose()


async def test_litestar_ends_the_path_of_a_mounted_application_with_a_slash(tracker, work):
    """Pages, files and the API are found nevertheless, also an id with a slash; the address of the
    mount itself leads to its directory (R46).
    """
    pages = structjob_app(tracker)

    async def litestar(scope, receive, send):
        below = scope["path"].removeprefix("/ops").strip("/")
        await pages({**scope, "path": f"/{below}/" if below else "/"}, receive, send)

    transport = httpx.ASGITransport(litestar, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
        assert len((await web.get("/ops/api/v1/jobs")).json()["items"]) == 2
        assert (await web.get("/ops/api/v1/jobs/gui%2F17")).json()["job"]["id"] == work.id
        assert (await web.get("/ops/static/latest/app.js")).status_code == 200
        assert 'href="./static/' in (await web.get("/ops/jobs")).text
        assert 'href="../static/' in (await web.get("/ops/jobs/")).text
        for query in ("", "?window=7d&project=a%20b"):
            moved = await web.get(f"/ops{query}")
            assert (moved.status_code, moved.headers["location"]) == (307, f"./ops/{query}")
        assert 'href="./static/' in (await web.get("/ops/")).text
    await pages.aclose()


@pytest.mark.parametrize(
    ("kind", "query", "more"),
    [
        (structjob.LogFilter, params.LogQuery, {"cursor", "start", "q"}),
        (structjob.JobFilter, params.JobQuery, {"cursor", "q", "root"}),
        (structjob.AttemptFilter, params.AttemptQuery, {"cursor"}),
        (structjob.StatsFilter, StatsQuery, set()),
    ],
)
def test_every_field_of_a_filter_is_a_parameter(kind, query, more):
    """Those that look into JSON are written attr.PATH and metadata.PATH. (R46)"""
    names = {field.name for field in dataclasses.fields(kind)} - {"attrs", "metadata"}
    assert names | more == set(query.model_fields)


async def test_every_documented_parameter_is_taken(web, work):
    """(R46)"""
    examples = {
        "string": "x",
        "integer": 1,
        "boolean": "1",
        "number": 1,
        "array": "x",
    }
    own = {
        "since": "-1h",
        "until": "-0s",
        "level": "info",
        "levels": "info",
        "type": "job",
        "stream": "system",
        "bucket": "1m",
        "job": work.id,
        "job_id": work.id,
        "start": None,
        "cursor": None,
        "after": None,
        "state": None,
        "order": "asc",
        "wait": 0,
        "channels": "logs",
        "sort": "created",
        "by": "created",
        "same": "job",
        "outcome": "final",
        "source": None,
    }
    document = await ask(web, "openapi.json")
    taken = 0
    for path, operations in document["paths"].items():
        operation = operations.get("get")
        if operation is None or "{" in path or path.endswith(("/stream", "/sse", "/ws")):
            continue
        together: dict[str, object] = {}
        alone: list[dict[str, object]] = []
        for parameter in operation.get("parameters", ()):
            name, schema = parameter["name"], parameter["schema"]
            kind = schema.get("type") or schema["anyOf"][0]["type"]
            value = own[name] if name in own else examples[kind]
            if name == "status":
                value = "open" if path.endswith(("/errors", "/errors/count")) else "failed"
            if name == "type" and "stream" in path:
                continue
            if value is None or (name == "until" and "stream" in path):
                continue
            if name in ("level", "job_id"):  # refused beside `levels` and `job`
                alone.append({name: value})
            else:
                together[name] = value
        for given in filter(None, (together, *alone)):
            asked = {"days": 1} if path.endswith("/retention") else {}
            asked |= {"operation": "x"} if path.endswith("/trends") else {}  # required
            answer = await web.get(path.removeprefix("/api/v1/"), params=asked | given)
            assert answer.status_code == 200, (path, given, answer.text)
            taken += len(given)
    assert taken > 100


async def test_a_parameter_that_would_not_count_is_refused_and_what_to_write_is_said(web):
    """(R46)"""
    for path, said in (
        ("jobs?status_=failed", "did you mean 'status'?"),
        ("logs?levle=error", "did you mean 'level'?"),
        ("errors?operation_=copy", "did you mean 'operation'?"),
        ("stream?channels_=logs", "did you mean 'channels'?"),
        ("logs?zzz=1", "attr.NAME=VALUE looks into the JSON"),
        ("jobs?limit=1&limit=2", "limit is given more than once: give it once"),
        (
            "jobs/gui%2F17/export?children=0&children=1",
            "children is given more than once: give it once",
        ),
        ("logs/stream/sse?type=job&type=task", "type is given more than once: give it once"),
        ("jobs?zzz=1&zzz=2", "there is no parameter zzz here"),
        ("logs.jsonl?q=a&q=b", "q is given more than once: give it once"),
        ("logs?attr.n=1&attr.n=2", "attr.n is given more than once: give it once"),
        ("logs?q=%FF", "percent-encode UTF-8"),
        ("jobs/%C3", "percent-encode UTF-8"),
    ):
        assert said in (await ask(web, path, 400))["detail"], path


async def test_a_parameter_of_several_values_may_be_repeated(web):
    """(R46)"""
    for path in ("jobs?status=failed&status=completed", "logs?level=error"):
        await ask(web, path)


async def test_an_answer_has_a_form_that_the_client_accepts(web):
    """(R46)"""
    for accepted, status in (
        ("application/json", 200),
        ("*/*", 200),
        ("text/html,application/*;q=0.1", 200),
        ("application/xml", 406),
        ("application/json;q=0, */*", 406),
    ):
        await ask(web, "jobs", status, headers={"Accept": accepted})


async def test_a_client_that_excludes_gzip_gets_none(web):
    """(R46)"""
    for accepted, got in (("gzip;q=0", None), ("br, gzip;q=0.5", "gzip"), ("*", "gzip")):
        answer = await web.get("jobs", headers={"Accept-Encoding": accepted})
        assert answer.headers.get("content-encoding") == got, accepted


async def test_a_browser_gets_a_page_where_there_is_nothing(tracker):
    """A person does not read JSON; a program does (R46, R47)."""
    async with client(tracker, base="http://localhost/") as web:
        page = await web.get("nothing", headers={"Accept": "text/html,*/*;q=0.8"})
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "there is nothing at /nothing</p>" in page.text
        page = await web.get("", headers={"Accept": "text/html", "Host": "<evil>.example"})
        assert (page.status_code, page.headers["content-type"]) == (421, "text/html; charset=utf-8")
        assert "another server, &#x27;&lt;evil&gt;.example&#x27;; if it is this one" in page.text
        other = await web.get("nothing")
        assert (other.status_code, other.headers["content-type"]) == (404, "application/problem+json")  # fmt: skip
        assert (await web.put("api/v1/jobs")).headers["allow"] == "GET, HEAD"


async def test_the_beginning_of_several_fingerprints_is_a_conflict(tracker):
    """(R46)"""
    log = structlog.get_logger("app")
    for number in range(20):
        log.error(f"kind {'abcdefghijklmnopqrst'[number]}")
    await tracker.flush()
    groups = await tracker.errors.list()
    first = next(
        one[0]
        for one in (group.fingerprint for group in groups)
        if sum(group.fingerprint[0] == one[0] for group in groups) > 1
    )
    async with client(tracker) as web:
        for method, path in (("GET", ""), ("POST", "/resolve"), ("POST", "/reopen")):
            answer = await web.request(method, f"errors/{first}{path}", json={} if path else None, headers={"X-Structjob": "1"})  # fmt: skip
            assert answer.status_code == 409
            assert "begins several fingerprints" in answer.json()["detail"]


async def test_the_preview_of_a_retention_is_that_of_the_tracker_by_default(tmp_path):
    """Without `days`, what the tracker would delete is counted; a server without one says so."""
    structjob.configure(console=False, strict=True)
    db_url = f"sqlite:///{tmp_path}/kept.db"
    async with structjob.Tracker(db_url, retention=timedelta(days=30)) as tracker:
        await some_work(tracker)
        async with client(tracker) as web:
            assert (await ask(web, "retention"))["events"] == 0
            assert (await ask(web, "retention?days=0"))["events"] > 0
    async with client(db_url) as web:
        assert "days" in (await ask(web, "retention", 400))["detail"]
