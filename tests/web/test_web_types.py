"""The types of the JavaScript client: what the tools make of the scripts and of OpenAPI."""

from __future__ import annotations

import shutil

import declarations
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROGRAM = """
import { LogStreamingService, Structjob } from "./client.js";
import type { components } from "./openapi.js";

const api = new Structjob({ base: "https://ops.example/jobs/", token: "sj_x" });
const { items, next_cursor: cursor } = await api.listJobs({ status: "failed", since: "-24h" });
const first: components["schemas"]["JobRecord"] = items[0];
const { events, progress } = await api.getJob(first.id);
const errors: number | null = events === null || events.partial ? null : (events.by_level["error"] ?? 0);
console.log(cursor?.length, first.operation, errors, progress.total_steps);
const accepted: string = (await api.cancelJob(first.id, { reason: "the disk is needed" })).status;
const messages = await new LogStreamingService({ token: "sj_x" }).getJobRunLogs(first.id, 10);
console.log(accepted, messages[0].message);

// @ts-expect-error: a misspelt field of a record
console.log(first.operatoin);
// @ts-expect-error: one of an answer
console.log((await api.getJob(first.id)).event);
// @ts-expect-error: one of a message
console.log(messages[0].jobRunId);
// @ts-expect-error: a method that does not exist
await api.jobs();
export {};
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """TypeScript and openapi-typescript."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: TypeScript comes from there")
    return declarations.Tools(tmp_path_factory.mktemp("types"))


def test_the_types_are_those_of_the_scripts_and_of_the_openapi_document(tools):
    """The scripts have no type error, and the installed files are what the tools make now (R46)."""
    for name, text in tools.made().items():
        assert text == (declarations.STATIC / name).read_text(), (
            f"{name} is not up to date: run tests/web/declarations.py"
        )


def test_a_typescript_program_finds_misspelt_fields(tools):
    """A program needs nothing but the files in the package (R46)."""
    assert tools.check(PROGRAM) == ""
