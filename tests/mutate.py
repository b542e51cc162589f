"""Changes one thing at a time in a module, and looks whether a test notices. What no test notices
is printed: a test is missing there.

    python tests/mutate.py spool/disk recorder --sample 40    40 changes of each
    python tests/mutate.py gaps --only _neighbours            what is in this function
    python tests/mutate.py                                    the whole library, every change
    python tests/mutate.py --map                              measure which tests reach which lines

The tests are the files that reach the module and little else, on SQLite: the first run measures
this for the whole library and keeps it in ``.mutation.json``. The chosen tests run once without a
change, to learn which lines of the module each of them reaches. Then, for each change, a fork of
the process that has collected them gives the functions their changed code, and runs those that
reach the changed line, the quickest first, up to the first that fails. A test that starts a process
is taken to reach every line; it runs last. All of this happens in a copy of the package: the tree
is never touched.

Changes that make no difference are listed in ``equivalent_changes.toml`` with the reason; they are
not tried.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import gc
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, TextIO

import pytest
from stopwatch import Stopwatch

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "equivalent_changes.toml"

REACHED = ROOT / ".mutation.json"
"""Which lines of which module each file of tests reaches, as ``--map`` has measured it: the only
place that says which tests belong to a module. Not in the repository.
"""

_FILES_FOR_A_LINE = 3
"""Of how many files tests are run for a line, if so many reach it."""

PYTEST = [
    "-q",
    "-n",
    "0",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:hypothesispytest",
    "--assert=plain",
    "-k",
    "not mariadb and not postgresql",
]

_MARK = "_reached_by_a_test"

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip

_LEFT_OUT = ast.parse("__import__('sqlalchemy').true()", mode="eval").body


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield *node* with one thing changed, for each that can be."""
    if isinstance(node, ast.Compare):
        if isinstance(node.left, ast.Attribute) and getattr(node.left.value, "attr", "") == "c":
            yield copy.deepcopy(_LEFT_OUT)  # of a query: rows of others, too
        for index, operator in enumerate(node.ops):
            if other := _COMPARE.get(type(operator)):
                changing = copy.deepcopy(node)
                changing.ops[index] = other()
                yield changing
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and (
        operation := _ARITHMETIC.get(type(node.op))
    ):
        changing = copy.deepcopy(node)
        changing.op = operation()
        yield changing
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        for value in (True, False):
            if not (value and isinstance(node, ast.While)):  # it would never end
                changing = copy.copy(node)
                changing.test = ast.Constant(value)
                yield changing
    elif isinstance(node, ast.Return) and not (
        isinstance(node.value, ast.Constant | None) and not getattr(node.value, "value", None)
    ):
        yield ast.Return(ast.Constant(None))


@dataclass(frozen=True)
class Change:
    """One change: where it is, what it says, and how to make it: the node's place in `ast.walk`,
    and which of the node's changes.
    """

    line: int
    name: str
    node: int
    variant: int
    reach: range | None
    """Lines of the statement; ``None`` if it runs when the module is imported."""

    def __str__(self) -> str:
        return f"{self.line}  {self.name}"


def changes(source: str) -> list[Change]:
    """Return what can be changed in *source*, but for annotations and the module's constants: a
    test would only repeat their numbers.
    """
    tree = ast.parse(source)
    tops = [
        getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")
    ]
    tops += [node for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    tops += [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg in {"slots", "frozen", "kw_only", "eq"}
    ]
    # What checks the program itself, or is there for a type checker.
    tops += [node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    tops += [
        word
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip"
        for word in node.keywords
    ]
    tops += [
        node
        for node in tree.body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    left_out = {id(part) for top in tops if top is not None for part in ast.walk(top)}
    places = dict(_places(tree, "", None))
    found = [
        Change(
            node.lineno,
            f"{places[node][0]}: {_short(node)} -> {_short(new)}",
            index,
            variant,
            places[node][1],
        )  # type: ignore[attr-defined]
        for index, node in enumerate(ast.walk(tree))
        if id(node) not in left_out
        for variant, new in enumerate(changed(node))
    ]
    return sorted(found, key=lambda change: change.line)


def _places(
    node: ast.AST, within: str, reach: range | None
) -> Iterator[tuple[ast.AST, tuple[str, range | None]]]:
    """Yield each node below *node* with the name of the function that it is in, and the lines of
    its statement.
    """
    inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    if inside or isinstance(node, ast.ClassDef):
        within = f"{within}.{node.name}".lstrip(".")  # type: ignore[attr-defined]
    for child in ast.iter_child_nodes(node):
        lines = reach
        if isinstance(child, ast.stmt) and (reach is not None or (inside and child in node.body)):  # type: ignore[attr-defined]
            body = getattr(child, "body", None)
            lines = range(
                child.lineno,
                max(child.lineno + 1, body[0].lineno)
                if body
                else (child.end_lineno or child.lineno) + 1,
            )
        # The text around a number distinguishes it from others.
        yield (
            child,
            (f"{within}: {_short(node)}" if isinstance(child, ast.Constant) else within, lines),
        )
        yield from _places(child, within, lines)


def apply(source: str, change: Change) -> ast.Module:
    """Return *source* with one thing changed."""
    tree = ast.parse(source)
    target = list(ast.walk(tree))[change.node]
    new = ast.copy_location(list(changed(target))[change.variant], target)
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if item is target else item for item in value]
    return ast.fix_missing_locations(tree)


def _marked(source: str) -> ast.Module:
    """Return *source* with a call before each statement that says that it is reached."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for block in [
            getattr(node, name, None)
            for name in ("body", "orelse", "finalbody")
            if not isinstance(node, ast.Module)
        ]:
            if isinstance(block, list):
                block[:] = [
                    each
                    for statement in block
                    for each in (ast.parse(f"{_MARK}({statement.lineno})").body[0], statement)
                ]
    return ast.fix_missing_locations(tree)


def _short(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split("\n", 1)[0][:100]


class Module:
    """A module, what can be changed in it, and which of that is tried.

    Args:
        name: Its path in the package, without the suffix.
        directory: The copy of the tree.
        options: Of the command line.
    """

    def __init__(self, name: str, directory: Path, options: argparse.Namespace) -> None:
        self.name = name
        self.file = f"{name}.py"
        self.path = directory / "structjob" / self.file
        self.source = self.path.read_text()
        self.functions: list[FunctionType] = []
        self.marked = compile(_marked(self.source), str(self.path), "exec", dont_inherit=True)
        """Its code, with a call before each statement."""
        found = changes(self.source)
        equivalent = (
            tomllib.loads(EQUIVALENT.read_text()).get(name, {}) if EQUIVALENT.exists() else {}
        )
        self.stale = sorted(equivalent.keys() - {change.name for change in found})
        self.explained = sum(change.name in equivalent for change in found)
        self.changes = [
            each
            for each in found
            if each.name not in equivalent
            and any(text in str(each) for text in options.only or [""])
        ]
        if options.again:
            self.changes = [
                change
                for change in self.changes
                if f"  {change.name}\n" in options.again.read_text()
            ]
        if options.sample and options.sample < len(self.changes):
            self.changes = sorted(
                random.Random(options.seed).sample(self.changes, options.sample),
                key=lambda change: change.line,
            )

    def write(self, source: str) -> None:
        """Replace the file; its bytecode goes, too: it is taken for that of another text of the
        same second and length.
        """
        self.path.write_text(source)
        for compiled in (self.path.parent / "__pycache__").glob(f"{self.path.stem}.*"):
            compiled.unlink()

    def replace(self, code: CodeType) -> bool:
        """Give the functions their code in the module's *code*; return whether that can be done."""
        new = {(one.co_qualname, one.co_firstlineno): one for one in _codes(code)}
        try:
            for function in self.functions:
                function.__code__ = new[
                    function.__code__.co_qualname, function.__code__.co_firstlineno
                ]
        except (KeyError, ValueError):  # it has other variables of the functions around it
            return False
        return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


_Measured = dict[pytest.Item, tuple[float, dict[str, list[int]] | None]]
"""Of each test: its seconds, and the lines of each module that it reaches; ``None`` if it starts a
process.
"""


class Mutator:
    """A plugin of pytest that, in place of running the tests once, runs them for each change of
    some modules; or, with ``--map``, notes which lines of the modules each file of tests reaches.

    Args:
        modules: The modules.
        noted: A file, in which forks tell what they found.
        out: Where to print.
        options: Of the command line.
    """

    def __init__(
        self, modules: list[Module], noted: Path, out: TextIO, options: argparse.Namespace
    ) -> None:
        self.modules = {str(module.path): module for module in modules}
        self.noted = noted
        self.out = out
        self.options = options
        self.left = -1
        """How many changes survived; negative if something failed."""
        self.tests: _Measured = {}
        """The tests that are quick enough."""
        self.kills: Counter[pytest.Item] = Counter()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for one in self.modules.values():  # some are imported only when they are needed
            importlib.import_module("structjob." + one.file.replace("/", ".")[:-3])
        gc.unfreeze()  # what the collection has set aside is not listed
        gc.collect()
        for each in gc.get_objects():
            if type(each) is FunctionType and (
                module := self.modules.get(each.__code__.co_filename)
            ):
                module.functions.append(each)
        gc.freeze()
        files = groupby(session.items, key=lambda item: item.path.name)
        if self.options.map:
            self._keep_map((name, self._measured(list(items))) for name, items in files)
            self.left = 0
            return True
        for _, items in files:
            self.tests |= {
                item: found
                for item, found in self._measured(list(items)).items()
                if found[0] <= self.options.slowest
            }
        for item, (seconds, _) in self.tests.items():
            item.add_marker(pytest.mark.timeout(15 + 10 * seconds))
        self.left = sum([self._examine(module) for module in self.modules.values()])
        return True

    def _keep_map(self, measured: Iterable[tuple[str, _Measured]]) -> None:
        """Write the map after each file of tests: what ends the run leaves what was measured."""
        reached = json.loads(REACHED.read_text()) if REACHED.exists() else {}
        for name, found in measured:
            lines: dict[str, set[int]] = {}
            for seconds, of_test in found.values():
                for path, some in (of_test or {}).items():
                    if some and seconds <= self.options.slowest:
                        lines.setdefault(self.modules[path].name, set()).update(some)
            reached[f"tests/{name}"] = {module: sorted(some) for module, some in lines.items()}
            REACHED.write_text(json.dumps(reached))

    def _examine(self, module: Module) -> int:
        """Print the changes of *module* that no test notices; return how many there are."""
        survivors = [change for change in module.changes if not self._killed(module, change)]
        tried = len(module.changes)
        print(
            f"{module.name}: {tried - len(survivors)} of {tried} killed, {module.explained} more make no difference",
            file=self.out,
        )
        for change in survivors:
            print(f"  structjob/{module.file}:{change}", file=self.out)
        for name in module.stale:
            print(f"  {EQUIVALENT.name}: there is no such change: {name}", file=self.out)
        self.out.flush()
        return len(survivors) + len(module.stale)

    def _fork(self, call: Callable[[], int], seconds: float) -> tuple[int, list[Any]]:
        """Return what *call* returns in a fork, and what it noted."""
        self.noted.write_text("")
        if (pid := os.fork()) == 0:
            code = 3
            try:
                os.setsid()
                code = call()
            finally:
                os._exit(code)
        end = time.monotonic() + seconds
        while (found := os.waitpid(pid, os.WNOHANG))[0] == 0:
            time.sleep(0.002)
            if time.monotonic() > end:
                os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what a test has left running
        noted = self.noted.read_text().splitlines(keepends=True)
        return os.waitstatus_to_exitcode(found[1]), [
            json.loads(line) for line in noted if line.endswith("\n")
        ]

    def _note(self, found: object) -> None:
        with self.noted.open("a") as file:
            file.write(f"{json.dumps(found)}\n")

    def _run(self, items: list[pytest.Item]) -> Iterator[bool]:
        """Run *items*; yield for each one whether it failed."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            before = item.session.testsfailed
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            yield item.session.testsfailed > before

    def _measured(self, items: list[pytest.Item]) -> _Measured:
        """Return what was measured of *items*, in a fork of their own. Those after a test that ends
        the process are measured in another.
        """
        found: _Measured = {}
        while left := items[len(found) :]:
            code, noted = self._fork(lambda: self._measure(left), 3600)
            found |= {
                item: (seconds, lines) for item, (seconds, lines) in zip(left, noted, strict=False)
            }
            if len(noted) < len(left):
                died = left[len(noted)]
                found[died] = (float("inf"), None)
                why = f"it ends its process (exit code {code})"
                print(f"left out, because {why}: {died.nodeid}", file=self.out, flush=True)
        return found

    def _measure(self, items: list[pytest.Item]) -> int:
        """Note for each test how long it takes and which lines of the modules it reaches; ``None``
        if another process may reach others.
        """
        lines: dict[str, set[int]] = {file: set() for file in self.modules}
        elsewhere = False

        def audit(event: str, _: object) -> None:
            nonlocal elsewhere
            if event in {"subprocess.Popen", "os.fork", "os.posix_spawn"}:
                elsewhere = True
                if self.options.map:  # what it reaches after that in this process is not worth it
                    raise RuntimeError("a test of which no more is measured starts a process")

        for module in self.modules.values():
            for function in module.functions:
                function.__globals__[_MARK] = lines[str(module.path)].add
            module.replace(module.marked)
        sys.addaudithook(audit)
        limit = (10 if self.options.map else 30) * self.options.slowest
        for item in items:
            item.add_marker(pytest.mark.timeout(limit))
        running = self._run(items)
        for item in items:
            for of_file in lines.values():
                of_file.clear()
            elsewhere, watch = False, Stopwatch()
            left_out = next(running) and not self.options.map
            reached = (
                None
                if elsewhere and not self.options.map
                else {file: sorted(some) for file, some in lines.items() if some}
            )
            self._note((float("inf") if left_out else watch.seconds, reached))
            if left_out:
                print(f"left out, because it fails without a change: {item.nodeid}", file=self.out)
        self.out.flush()
        return 0

    def _killed(self, module: Module, change: Change) -> bool:
        """Return whether a test notices *change*."""
        tree, file = apply(module.source, change), str(module.path)
        items = [
            item
            for item, (_, lines) in self.tests.items()
            if lines is None or _meet(change.reach, lines.get(file, []))
        ]
        items.sort(
            key=lambda item: (
                self.tests[item][1] is None,
                self.tests[item][0] / (1 + self.kills[item]),
            )
        )
        ends = accumulate(self.tests[item][0] for item in items)
        items = [item for item, end in zip(items, ends, strict=True) if end <= self.options.longest]
        if not items:
            return False  # no test reaches it
        if written := change.reach is None or any(self.tests[item][1] is None for item in items):
            module.write(ast.unparse(tree))

        def check() -> int:
            if change.reach is None or not module.replace(
                compile(tree, file, "exec", dont_inherit=True)
            ):
                module.write(ast.unparse(tree))
                names = [item.nodeid for item in items]
                return subprocess.call(
                    [sys.executable, "-m", "pytest", "-x", "--timeout=15", *PYTEST, *names],
                    stdout=subprocess.DEVNULL,
                )
            for number, failed in enumerate(self._run(items)):
                if failed:
                    self._note(number)
                    return 1
            return 0

        code, failed = self._fork(check, 60 + 5 * self.options.longest)
        if self.options.verbose:
            by = items[failed[0]].nodeid if failed else f"exit code {code}"
            print(f"{module.name}:{change} :: {by}", file=sys.__stderr__, flush=True)
        if failed:
            self.kills[items[failed[0]]] += 1
        if written or code != 1:
            module.write(module.source)
        return code != 0


def modules() -> list[str]:
    """Return the name of each module of the package."""
    package = ROOT / "structjob"
    found = (path.relative_to(package).with_suffix("") for path in package.rglob("*.py"))
    return sorted(str(path) for path in found if path.name not in {"__init__", "__main__"})


def named(text: str) -> str:
    """Return the module that *text* means: a path, or the end of one."""
    wanted = text.removeprefix("structjob/").removesuffix(".py")
    names = modules()
    found = [name for name in names if name == wanted] or [
        name for name in names if f"/{name}".endswith(f"/{wanted}")
    ]
    if len(found) != 1:
        raise argparse.ArgumentTypeError(
            f"{text} is one of {', '.join(found)}" if found else f"there is no module {text}"
        )
    return found[0]


def tests_of(name: str, reached: dict[str, dict[str, list[int]]]) -> list[str]:
    """Return the files of tests of a module: for each line, those that reach it and not much else.

    Args:
        name: Of the module.
        reached: Per file of tests and module, the lines.
    """
    shares = {
        test: len(lines[name]) / sum(map(len, lines.values()))
        for test, lines in reached.items()
        if lines.get(name) and (ROOT / test).exists()
    }
    chosen: list[str] = []
    times: Counter[int] = Counter()

    def gain(test: str) -> float:
        lacking = sum(times[line] < _FILES_FOR_A_LINE for line in reached[test][name])
        return lacking * shares[test]

    while left := shares.keys() - set(chosen):
        best = max(sorted(left), key=gain)
        if not gain(best):
            break
        chosen.append(best)
        times.update(reached[best][name])
    return chosen


def _meet(reach: range | None, lines: list[int]) -> bool:
    return bool(lines) if reach is None else any(line in reach for line in lines)


def run(names: list[str], tests: list[str], directory: Path, options: argparse.Namespace) -> int:
    """Run a `Mutator` of the modules *names*, with *tests*, in a copy of the tree; return how many
    changes survived.
    """
    for name in ("structjob", "tests", "schema", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, directory)
    out = os.fdopen(os.dup(1), "w")
    mutator = Mutator(
        [Module(name, directory, options) for name in names], directory / "noted.json", out, options
    )
    os.chdir(directory)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(2):
        os.dup2(null, fd)
    os.environ.update(PYTHONPATH=str(directory), CI="1", STRUCTJOB_TEST_EXAMPLES="100")
    sys.path[:] = [
        str(directory),
        *(path for path in sys.path if Path(path or ".").resolve() != ROOT / "tests"),
    ]
    pytest.main([*PYTEST, f"--basetemp={directory / 'tmp'}", *tests], plugins=[mutator])
    return mutator.left


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "modules",
        nargs="*",
        type=named,
        metavar="MODULE",
        help="its path in the package, or the end of it; the whole library by default",
    )
    parser.add_argument(
        "--map",
        action="store_true",
        help="measure which tests reach which lines, again, and end",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="TEXT",
        help="try the changes whose line, function or text contains this",
    )
    parser.add_argument(
        "--again",
        type=Path,
        metavar="FILE",
        help="try those that an earlier run printed into this file",
    )
    parser.add_argument(
        "--tests",
        default="",
        metavar="NAMES",
        help="run these tests in place of those that reach the module",
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="try N changes of each module, in place of all"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="which N; the same ones each time by default"
    )
    parser.add_argument(
        "--slowest",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="leave tests out that take longer; 1 by default",
    )
    parser.add_argument(
        "--longest",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="run tests of so many seconds for a change; 5 by default",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print each change to stderr, with the test that notices it",
    )
    options = parser.parse_args()
    if options.map or not (options.tests or REACHED.exists()):
        print("measuring which tests reach which lines: some minutes", file=sys.stderr)
        everything = sorted(f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*.py"))
        measuring = argparse.Namespace(**vars(options) | {"map": True})
        if not _apart(modules(), everything, measuring) or options.map:
            sys.exit(not options.map)
    names = options.modules or modules()
    if options.tests:
        tests = [f"tests/{name}.py" for name in options.tests.split()]
        runs = [(names, tests)]
    else:
        reached = json.loads(REACHED.read_text())
        runs = [([name], tests_of(name, reached)) for name in names]
    noticed = [_apart(these, tests, options) for these, tests in runs]
    sys.exit(not all(noticed))


def _apart(names: list[str], tests: list[str], options: argparse.Namespace) -> bool:
    """Run a `Mutator` in a process of its own; return whether nothing survived."""
    if not tests:
        print(f"{', '.join(names)}: no quick test reaches it, or it is newer than the map (--map)")
        return False
    if (pid := os.fork()) == 0:
        left = -1
        try:
            with tempfile.TemporaryDirectory(prefix="mutate-", ignore_cleanup_errors=True) as home:
                left = run(names, tests, Path(home), options)
        finally:
            os._exit(left != 0)
    return os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main()
