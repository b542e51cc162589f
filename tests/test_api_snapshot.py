"""Every public name with its signature, as `api.txt` has it: a change of the API is a change of
that file, which a reader of the change sees. To renew it:
``python tests/test_api_snapshot.py --write``.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import sys
import typing
from pathlib import Path

import pytest

import structjob
from structjob.lifecycle.handle import Handle

SNAPSHOT = Path(__file__).parent / "api.txt"
MODULES = (
    "structjob",
    *(f"structjob.{name}" for name in structjob._MODULES if name != "exceptions"),
    "structjob.testing",
    "structjob.web",
)


def described() -> str:
    """Return the public names, one a line, with what they take and return."""
    lines: list[str] = []
    for module in MODULES:
        home = importlib.import_module(module)
        for name in home.__all__:
            lines += _about(f"{module}.{name}", getattr(home, name))
    return "\n".join(lines) + "\n"


def _about(name: str, value: object) -> list[str]:
    if not inspect.isclass(value):
        return [f"{name}{_signature(value)}" if inspect.isroutine(value) else f"{name} = {value}"]
    if issubclass(value, enum.Enum):
        return [f"{name}: {', '.join(str(one.value) for one in value)}"]
    if typing.is_typeddict(value):
        return [f"{name}: {', '.join(value.__annotations__)}"]
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    lines = [f"class {name}({bases}){_signature(value)}"]
    fields = (
        {one.name for one in dataclasses.fields(value)}
        if dataclasses.is_dataclass(value)
        else set()
    )
    for member in sorted(dir(value)):
        if member.startswith("_") or member in fields or hasattr(OSError, member):
            continue
        if issubclass(value, Handle) and not hasattr(value, member):
            continue  # only there for a hint
        found = inspect.getattr_static(value, member)
        found = found.__func__ if isinstance(found, staticmethod | classmethod) else found
        if inspect.isfunction(found):
            kind = "async " if inspect.iscoroutinefunction(found) else ""
            lines.append(f"    {kind}{member}{_signature(found)}")
        else:
            lines.append(f"    {member}")
    return lines


def _signature(value: object) -> str:
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    # what is only a mark, or a function, has no name of its own
    return re.sub(r"<(?:object object|function \S+) at 0x\w+>", "…", str(signature)).replace(
        "'", ""
    )


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.11 wrote the signatures")
def test_the_api_is_the_one_that_was_agreed_on():
    """Ruling 11: no name, parameter, default or field changes unnoticed. If this change is meant,
    write it down: ``python tests/test_api_snapshot.py --write``.
    """
    assert described().splitlines() == SNAPSHOT.read_text("utf-8").splitlines()


if __name__ == "__main__" and "--write" in sys.argv:
    SNAPSHOT.write_text(described(), "utf-8")
