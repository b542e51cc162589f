"""The HTTP API: what each path answers, and how it refuses."""

from __future__ import annotations

import pytest
from web_support import client, some_work


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


@pytest.mark.parametrize(
    ("query", "operations"),
    [
        ("status=failed", ["vm-migrate"]),
        ("status=failed,completed", ["verify", "vm-migrate"]),
        ("status=failed&status=completed", ["verify", "vm-migrate"]),
        ("root=1", ["vm-migrate"]),
        ("q=igrat", ["vm-migrate"]),
        ("metadata.vm=pg-01", ["vm-migrate"]),
        ("since=-1h", ["verify", "vm-migrate"]),
        ("until=-1h", []),
    ],
)
async def test_filters_of_jobs_are_parameters(web, query, operations):
    """(R20, R46)"""
    found = await ask(web, f"jobs?{query}")
    assert [job["operation"] for job in found["items"]] == operations


@pytest.mark.parametrize("any_id", ["gui%2F17", "vm-9"])
async def test_a_job_is_found_by_any_id(web, work, any_id):
    """(R19, R45)"""
    found = await ask(web, f"jobs/{any_id}")
    assert found["job"]["id"] == work.id
    assert found["progress"]["total_steps"] == 1
    assert found["lost_events"] == {}
    assert (await ask(web, f"jobs/{any_id}/progress"))["job_id"] == work.id


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


@pytest.mark.parametrize(
    ("query", "messages"),
    [
        ("type=system", ["server started"]),
        ("level=warning&kind=log", ["slow"]),
        ("level=info&level_exact=1&kind=log", ["server started", "copied"]),
        ("level=info,warning&kind=log", ["server started", "copied", "slow"]),
        ("attr.vm.name=pg-01", ["copied"]),
        ("attr.ms=812", ["slow"]),
        ("attr.ms=%22812%22", []),
        ("job=vm-9&children=0&kind=log", ["copied"]),
        ("q=SLOW", ["slow"]),
        ("kind=log&order=desc&limit=1", ["slow"]),
    ],
)
async def test_filters_of_logs_are_parameters(web, query, messages):
    """(R36, R46)"""
    found = await ask(web, f"logs?{query}")
    assert [event["message"] for event in found["items"]] == messages


async def test_an_event_is_named_by_its_session_and_number(web):
    """(R36, R46)"""
    (slow,) = (await ask(web, "logs?attr.ms=812"))["items"]
    name = f"{slow['session_id']}:{slow['seq']}"
    assert await ask(web, f"logs/{name}") == slow
    around = await ask(web, f"logs/{name}/context?before=1&after=1")
    assert around["event"] == slow
    assert len(around["before"]) == 1


@pytest.mark.parametrize(
    ("path", "status", "parameter"),
    [
        ("jobs?statsu=failed", 400, "statsu"),
        ("jobs?metadata.=3", 400, "metadata."),
        ("jobs?limit=0", 400, "limit"),
        ("jobs?status=broken", 400, None),
        ("jobs?since=yesterday", 400, "since"),
        ("jobs?since=2026-11-28T12:00:00", 400, "since"),
        ("jobs?cursor=x", 400, None),
        ("logs?levle=info", 400, "levle"),
        ("logs?level=loud", 400, None),
        ("logs?job=nothing", 404, None),
        ("health?x=1", 400, "x"),
        ("jobs/nothing", 404, None),
        ("jobs/a%2Fb%3F%23..%00", 404, None),
        ("jobs/" + "x" * 4_000, 404, None),
        ("jobs/nothing/tree", 404, None),
        ("logs/nothing", 404, None),
        ("logs/1:1", 404, None),
        ("nothing", 404, None),
    ],
)
async def test_what_is_refused_is_a_problem_that_names_what_is_wrong(web, path, status, parameter):
    """(R46)"""
    answer = await web.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem.get("parameter") == parameter


async def test_a_method_that_a_path_does_not_have_is_405(web):
    """(R46)"""
    answer = await web.delete("jobs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


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
