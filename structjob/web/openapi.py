"""The OpenAPI document: FastAPI's, with the schemas of the records in the answers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from structjob.web.answers import ANSWERS, SCHEMA
from structjob.web.auth import COOKIE
from structjob.web.problems import MEDIA_TYPE, Problem
from structjob.web.version import VERSION


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the document of *routes*."""
    made = get_openapi(
        title="structjob",
        version=VERSION,
        description="Jobs, logs, statistics and live streams of a structjob database.",
        routes=routes,
        servers=[{"url": "../..", "description": "Relative to this document."}],
    )
    contents = [
        content
        for path in made["paths"].values()
        for operation in path.values()
        for content in _contents(operation)
    ]
    references = sorted({content["schema"].get("$ref") for content in contents} & ANSWERS.keys())
    schemas, components = msgspec.json.schema_components(
        [Problem, *(ANSWERS[name] for name in references)], ref_template=SCHEMA
    )
    found = dict(zip(references, schemas[1:], strict=True))
    for content in contents:
        content["schema"] = found.get(content["schema"].get("$ref"), content["schema"])
    made.setdefault("components", {})["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "login": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    }
    made["security"] = [{"token": []}, {"login": []}, {}]
    known = made.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        known.pop(name, None)
    known |= _portable(components)
    made["components"]["responses"] = _share_problems(made["paths"])
    return made


def _portable(schema: Any) -> Any:
    """Return *schema* without the ``items: false`` of tuples, which generators of clients refuse.

    ``maxItems`` says the same. Descriptions lose the indentation of docstrings, which differs
    between versions of Python.
    """
    if isinstance(schema, list):
        return [_portable(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: inspect.cleandoc(value)
        if key == "description" and isinstance(value, str)
        else _portable(value)
        for key, value in schema.items()
        if (key, value) != ("items", False)
    }


def _share_problems(paths: dict[str, Any]) -> dict[str, Any]:
    """Replace the problems that paths answer by references, and return what these refer to.

    Most paths answer the same problems.
    """
    shared: dict[str, Any] = {}
    for operations in paths.values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if MEDIA_TYPE in response.get("content", {}):
                    shared[f"Problem{status}"] = response
                    operation["responses"][status] = {
                        "$ref": f"#/components/responses/Problem{status}"
                    }
    return shared


def _contents(operation: dict[str, Any]) -> list[dict[str, Any]]:
    responses = operation["responses"]
    responses.pop("422", None)  # structjob answers 400 instead
    return [
        content
        for response in (*responses.values(), operation.get("requestBody", {}))
        for content in response.get("content", {}).values()
        if "schema" in content
    ]
