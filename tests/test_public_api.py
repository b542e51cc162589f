"""What other people's code imports: complete, documented, light (R51)."""

import ast
import asyncio
import builtins
import collections.abc
import dataclasses
import enum
import inspect
import pathlib
import re
import subprocess
import sys
import typing

import msgspec
import pytest
from cli_support import environment
from database_support import make_file
from each import each
from prefork import Preforked

import structjob
import structjob.typing

ROOT = pathlib.Path(structjob.__file__).parent


def test_all_is_sorted_and_importable():
    """Style: `__init__` holds imports and a sorted `__all__`; each name is there, in `dir()`, and
    has its home.
    """
    assert structjob.__all__ == sorted(structjob.__all__)
    assert len(set(structjob.__all__)) == len(structjob.__all__)
    assert set(structjob._HOME) == set(structjob.__all__)
    for name in structjob.__all__:
        assert getattr(structjob, name) is not None
        assert name in dir(structjob)


OTHERS = Preforked(
    environment(), modules=("hypothesis", "pytest", "starlette.applications"), ours=False
)
"""Processes in which nothing of the library is imported yet."""


@pytest.mark.parametrize("name", [*structjob._MODULES, "testing", "web"])
def test_public_modules_are_imported_as_any_module(name, tmp_path):
    """R51: ``import structjob.asgi`` and ``from structjob.asgi import JobMiddleware`` work in a
    fresh process, and find what the attribute ``structjob.asgi`` is.
    """
    program = f"""if True:
        import structjob.{name} as module
        import structjob
        assert module is structjob.{name}
        from structjob.{name} import *
        assert module.__doc__ and all(name in globals() for name in getattr(module, "__all__", ()))
    """
    child = OTHERS.run(program, (), tmp_path)
    assert (child.returncode, child.stderr) == (0, b"")


def test_the_pages_need_no_import_of_their_own():
    """`structjob.web.app(tracker)` works after `import structjob` alone."""
    child = subprocess.run(
        [sys.executable, "-c", "import structjob; structjob.web.app"],
        capture_output=True,
        timeout=60,
    )
    assert (child.returncode, child.stderr) == (0, b"")


def test_type_checkers_see_the_same_names():
    """The lazy names are imported under TYPE_CHECKING, each from where it is found."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    declared = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {declared.pop(name) for name in structjob._MODULES} == {"structjob"}
    assert declared == {name: f"structjob.{module}" for name, module in structjob._HOME.items()}


PROMISED = [
    "Tracker", "configure", "install", "current_job", "current_step", "step", "inject", "extract", "success", "LogFilter",
    "JobFilter", "StructjobError", "JobNotFound", "InvalidState", "InvalidArgument", "InvalidFilter", "InvalidURL", "NotOpen",
    "SchemaMismatch", "SpoolError", "StoreUnavailable", "Job", "Step", "JobRecord", "StepRecord", "AttemptRecord", "SessionRecord",
    "EventRecord", "JobProgress", "Page", "Ledger", "JobStatus", "StepStatus", "ErrorInfo", "add_context",
    "Redactor", "ConsoleSink", "FileSink", "Sink", "SinkEvent", "enrich",
]  # fmt: skip


def test_what_the_design_promises_is_public():
    """Design: public API that issues and outside checks rely on."""
    assert set(PROMISED) <= set(structjob.__all__)


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name says so at once."""
    with pytest.raises(AttributeError, match="module 'structjob' has no attribute 'Trakcer'"):
        _ = structjob.Trakcer


@each("name", structjob.__all__)
def test_every_public_name_is_documented(name):
    """Style: a docstring; functions and classes name each of their parameters in it."""
    value = getattr(structjob, name)
    doc = inspect.getdoc(value)
    assert doc
    assert doc[0].isupper() or doc[0] in "`*R"
    if inspect.isclass(value) and (
        issubclass(value, (BaseException, enum.Enum)) or dataclasses.is_dataclass(value)
    ):
        return
    # given by structlog, or made by the library
    if name in ("add_context", "Try", "Job", "Step", "SinkEvent", "Sink", "Hook"):
        return
    for parameter in inspect.signature(value).parameters.values():
        if parameter.name != "self":
            assert parameter.name in doc, f"{name} does not tell what {parameter.name} is"


@pytest.mark.parametrize(
    "cls",
    [
        structjob.Tracker,
        structjob.Job,
        structjob.Step,
        structjob.ConsoleSink,
        structjob.FileSink,
        structjob.Redactor,
    ],
)
def test_every_public_method_is_documented(cls):
    """Style: `help()` says what each method does."""
    for name, member in inspect.getmembers(cls):
        if (
            not name.startswith("_")
            and (inspect.isfunction(member) or isinstance(member, property))
            and name != "emit"
        ):
            assert inspect.getdoc(member), f"{cls.__name__}.{name}"


def test_a_docstring_explains_parameters_that_exist() -> None:
    """Issue 11, point 6: what follows ``Args:`` are parameters, under their present names."""
    stale = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            _, args, rest = (ast.get_docstring(node) or "").partition("Args:\n")
            entries = re.match(r"(?:    .*\n|\n)*", f"{rest}\n" if args else "")
            named = re.findall(r"^    \**(\w[\w, ]*):", entries[0] if entries else "", re.MULTILINE)
            given = node.args
            known = {
                one.arg
                for one in (
                    *given.posonlyargs,
                    *given.args,
                    *given.kwonlyargs,
                    given.vararg,
                    given.kwarg,
                )
                if one is not None
            }
            told = {name.strip() for entry in named for name in entry.split(",")}
            stale += [f"{path.name}:{node.lineno} {node.name}: {name}" for name in told - known]
    assert stale == []


def test_the_fields_of_records_are_the_columns():
    """Design: records' fields are the columns' names; the three `error_*` columns come as one."""
    from structjob.store import tables

    for record, table in (
        (structjob.JobRecord, tables.jobs),
        (structjob.AttemptRecord, tables.attempts),
        (structjob.StepRecord, tables.steps),
        (structjob.EventRecord, tables.logs),
    ):
        columns = {column.name for column in table.columns}
        fields = {field.name for field in dataclasses.fields(record)}
        plain = {"error" if column.startswith("error_") else column for column in columns}
        assert fields == plain, record.__name__
        assert record.__dataclass_params__.frozen
        assert hasattr(record, "__slots__")


def test_exceptions_have_one_root():
    """Style: one root; what is also a ValueError, LookupError, … can be caught as that. What ends
    work on request is no error, and passes `except Exception` (R9).
    """
    requests = (structjob.Cancelled, structjob.Terminated)
    assert not any(issubclass(one, Exception) for one in requests)
    for name in structjob.__all__:
        value = getattr(structjob, name)
        if inspect.isclass(value) and issubclass(value, BaseException):
            assert value in requests or issubclass(value, structjob.StructjobError)
    assert issubclass(structjob.InvalidArgument, ValueError)
    assert issubclass(structjob.JobNotFound, LookupError)
    assert issubclass(structjob.SpoolError, OSError)


def test_statuses_are_texts():
    """Design: `job.status` is a `str` enum, on the live handle and in records."""
    assert structjob.JobStatus.RUNNING == "running"
    assert f"{structjob.StepStatus.SKIPPED}" == "skipped"
    assert {status.value for status in structjob.JobStatus} == {
        "pending",
        "running",
        "completed",
        "failed",
        "cancelled",
        "crashed",
    }
    assert {status.value for status in structjob.StepStatus} == {
        "running",
        "completed",
        "failed",
        "skipped",
        "cancelled",
        "crashed",
        "retrying",
    }
    assert [status for status in structjob.JobStatus if not status.terminal] == [
        "pending",
        "running",
    ]


@pytest.mark.parametrize(
    ("does", "never"),
    [
        (
            "import structjob",
            [
                "sqlalchemy",
                "alembic",
                "rich",
                "click",
                "tenacity",
                "aiosqlite",
                "fastapi",
                "msgspec",
            ],
        ),
        (
            "import structjob; structjob.configure(console='json'); structjob.Tracker",
            ["sqlalchemy", "alembic", "click", "tenacity", "aiosqlite"],
        ),
        (
            "import structjob, structlog; structjob.configure(console='json'); structlog.get_logger().info('x')",
            ["sqlalchemy", "alembic", "click"],
        ),
        (
            "import structjob\nwith structjob.Tracker('sqlite:///jobs.db') as tracker:\n    tracker.run(tracker.jobs.list())",
            ["sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.mysql", "asyncpg", "asyncmy"],
        ),
    ],
)
def test_nothing_heavy_is_imported(does, never, tmp_path):
    """Performance: what a command line that prints its help pays is not a database layer."""
    asyncio.run(make_file(tmp_path / "jobs.db"))
    program = f"{does}\nimport sys\nprint([name for name in {never!r} if name in sys.modules], file=sys.stderr)"
    child = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (child.returncode, child.stderr.strip()) == (0, "[]")


def test_the_package_is_typed():
    """Fitting in: type checkers may rely on our annotations."""
    assert (ROOT / "py.typed").is_file()


def test_the_reference_names_everything_public():
    """Whatever can be imported from the package stands in the reference (R51)."""
    reference = (ROOT.parent / "docs" / "reference.md").read_text()
    names = [*structjob.__all__, *structjob.processors.__all__, *structjob.typing.__all__]
    assert [name for name in names if f"`{name}`" not in reference] == []
    for module in structjob._MODULES:
        assert f"`structjob.{module}" in reference


FROM_ELSEWHERE = {
    "EventDict",
    "Future",
    "Path",
    "Policy",
    "Processor",
    "T_co",
    "URL",
    "WrappedLogger",
}
"""Types of the standard library, structlog, SQLAlchemy and tenacity, and a type variable."""


def test_every_type_that_a_call_takes_or_returns_can_be_named():
    """Ruling 11: a function that forwards a value of the library can be annotated."""
    known = {*structjob.__all__, *structjob.typing.__all__, *FROM_ELSEWHERE}
    known |= {*dir(builtins), *typing.__all__, *collections.abc.__all__}
    known.add("Scope")  # internal: what `with remote.as_current() as scope` gives
    unknown, owner = {}, ""
    for line in (ROOT.parent / "tests" / "api.txt").read_text().splitlines():
        if not line.startswith("    "):
            owner = line.removeprefix("class ")
        if line.startswith("class ") or not re.match(r"structjob\.(typing\.)?[A-Za-z]\w*\(", owner):
            continue
        for name in re.findall(r"(?<![.\w])[A-Z]\w+", line.partition("(")[2]):
            if name not in known:
                unknown[name] = line.strip()
    assert not unknown


def _records() -> dict[str, set[str]]:
    """Return the fields and computed values of each public record, without filters and options."""
    given = ("Filter", "Retention", "Transition", "RemoteContext", "Queue", "EncodedEvent")
    found = {}
    for module in (structjob, structjob.typing):
        for name in module.__all__:
            kind = getattr(module, name)
            if isinstance(kind, type) and not name.endswith(given):
                if dataclasses.is_dataclass(kind):
                    fields = {field.name for field in dataclasses.fields(kind)}
                elif issubclass(kind, msgspec.Struct):
                    fields = set(kind.__struct_fields__)
                else:
                    continue
                values = {name for name in vars(kind) if isinstance(vars(kind)[name], property)}
                found[name] = {name for name in fields | values if not name.startswith("_")}
    return found


def test_the_reference_has_the_fields_of_every_record() -> None:
    """Faults 51: each record's row of the reference names all of its fields."""
    text = (ROOT.parent / "docs/reference.md").read_text(encoding="utf-8")
    section = text.partition("### Fields")[2].partition("\n## ")[0]
    rows: dict[str, set[str]] = {}
    for names, fields in re.findall(r"^\| (`.*?`) \| (.*?) \|$", section, re.MULTILINE):
        named = set(re.findall(r"`(\w+)`", fields))
        for base in named & rows.keys():
            named |= rows[base]
        for name in re.findall(r"`(\w+)`", names):
            rows[name] = named
    records = _records()
    assert set(records) <= set(rows)
    assert {name: fields - rows[name] for name, fields in records.items()} == {
        name: set() for name in records
    }


def test_the_table_of_options_has_every_option_of_a_tracker() -> None:
    """Faults 51: each option of `Tracker` has a row, with its default."""
    text = (ROOT.parent / "docs/delivery.md").read_text(encoding="utf-8")
    section = text.partition("## Options of `Tracker`")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    options = set(inspect.signature(structjob.Tracker).parameters) - {"url"}
    assert rows == options
