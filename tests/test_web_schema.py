"""Whatever is asked of the API, it answers as its document says: no 500, no other status."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json

import httpx
import hypothesis
import pytest
import structlog
from database_support import fresh
from hypothesis import HealthCheck
from web_support import some_work

import structjob
from structjob.filters import LogFilter
from structjob.web import app

pytestmark = [pytest.mark.slow]

STREAMS = ("/stream", "/logs/stream/sse", "/stream/poll")
"""They end when their client does."""


async def hostile_work(tracker):
    """Texts that break out of what they are put into."""
    log = structlog.get_logger("<script>alert(1)</script>")
    for text in ("</script>", "\x1b[31m", "\u202eabc", "a\u2028b", "'; DROP TABLE x; --", "%s{0}"):
        async with tracker.job(text, external_job_id=text[:64], metadata={text: text}) as job:
            async with job.step(text):
                log.error(text, k=text)


@functools.cache
def calls(document):
    """Some calls of each operation, as the document allows them: the same for each database, since
    to find them takes longer than to answer them.
    """
    import schemathesis

    operations = [
        one.ok()
        for one in schemathesis.openapi.from_dict(json.loads(document)).get_all_operations()
    ]
    return [
        (operation, examples(operation))
        for operation in operations
        if operation.path.removeprefix("/api/v1") not in STREAMS
    ]


def examples(operation):
    """Some calls of an operation."""
    found = []

    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=15,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    def collect(case):
        found.append(case)

    collect()
    return found


async def ask(transport, case):
    call = case.as_transport_kwargs(base_url="http://localhost")
    call.pop("cookies", None)
    headers = {**(call.pop("headers", None) or {}), "X-Structjob": "1"}
    for name in ("Host", "host"):
        headers.pop(name, None)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
        request = web.build_request(headers=headers, **call)
        return request, await web.send(request)


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
async def test_every_answer_is_documented(kind, tmp_path):
    """(R46)"""
    async with fresh(kind, tmp_path) as database, structjob.Tracker(database.url) as tracker:
        await some_work(tracker)
        await hostile_work(tracker)
        await tracker.flush()
        made = app(tracker)
        transport = httpx.ASGITransport(made, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
            document = (await web.get("/api/v1/openapi.json")).text
        asked = 0
        for operation, cases in await asyncio.to_thread(calls, document):
            for case in cases:
                try:
                    request, answer = await ask(transport, case)
                except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
                    continue  # what no client can send
                asked += 1
                known = operation.definition.raw["responses"].keys()
                assert answer.status_code < 500, (request.url, answer.text)
                # a path that an empty or odd id makes another one is no route of ours
                if answer.status_code not in (404, 405):
                    assert str(answer.status_code) in known, (request.url, answer.text)
                if answer.status_code >= 400:
                    assert answer.headers["content-type"] == "application/problem+json"
        assert asked > 200
        await made.aclose()


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
async def test_http_answers_what_the_library_does(kind, tmp_path):
    """(R36, R46)"""
    names = hypothesis.strategies.fixed_dictionaries(
        {},
        optional={
            "level": hypothesis.strategies.sampled_from(["debug", "info", "warning", "error"]),
            "type": hypothesis.strategies.sampled_from(["system", "job", "task"]),
            "kind": hypothesis.strategies.sampled_from(["log", "step_start", "operation_end"]),
            "text": hypothesis.strategies.sampled_from(["c", "slow", "%", "'", "</script>"]),
            "order": hypothesis.strategies.sampled_from(["asc", "desc"]),
            "limit": hypothesis.strategies.integers(1, 30),
            "job": hypothesis.strategies.sampled_from(["vm-9", "gui/17"]),
            "attempt": hypothesis.strategies.integers(0, 2),
        },
    )
    filters = []

    @hypothesis.given(names)
    @hypothesis.settings(max_examples=100, database=None, deadline=None)
    def collect(one):
        filters.append(one)

    collect()
    async with fresh(kind, tmp_path) as database, structjob.Tracker(database.url) as tracker:
        await some_work(tracker)
        await hostile_work(tracker)
        made = app(tracker)
        transport = httpx.ASGITransport(made, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
            for one in filters:
                answer = await web.get("/api/v1/logs", params=one)
                own = await tracker.logs.list(LogFilter(**one))
                got = [(line["session_id"], line["seq"]) for line in answer.json()["items"]]
                assert got == [(event.session_id, event.seq) for event in own], one
        with contextlib.suppress(Exception):
            await made.aclose()
