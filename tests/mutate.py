"""Changes one thing at a time in a module, and looks whether a test notices. What no test notices is printed: a test is missing there.

    python tests/mutate.py spool recorder --sample 40 -n 2
    python tests/mutate.py                                    all modules, every change

Each change is made in a copy of the package: the tree is never touched. The tests are those that MODULES names.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import copy
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MODULES = {
    "spool": ("spool.py", "test_spool test_spool_machine test_overflow"),
    "recorder": ("recorder.py", "test_ledger test_overflow test_spool_machine test_capture"),
    "line": ("line.py", "test_spool test_session test_encoding"),
    "session": ("session.py", "test_session test_host"),
    "ingest": ("store/ingest.py", "test_store_contract"),
    "sessions": ("store/sessions.py", "test_store_contract test_reaping test_verify"),
    "verify": ("store/verify.py", "test_verify"),
    "gaps": ("store/gaps.py", "test_retention test_verify test_ledger test_overflow"),
    "removal": ("store/retention/removal.py", "test_retention"),
    "due": ("store/retention/due.py", "test_retention test_retention_engine"),
    "delivery": ("engine/delivery.py", "test_engine test_overflow test_outage"),
    "orphans": ("engine/orphans.py", "test_engine test_reaping test_session test_set_aside"),
}
"""Per module, its file in the package and the tests that shall notice changes in it."""

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield *node* with one thing changed, for each that can be."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            if other := _COMPARE.get(type(operator)):
                changing = copy.deepcopy(node)
                changing.ops[index] = other()
                yield changing
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and (operation := _ARITHMETIC.get(type(node.op))):
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
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))


@dataclass(frozen=True)
class Change:
    """One change: the line, what it says, and where it is: the node's place in `ast.walk`, and which of the node's changes."""

    line: int
    text: str
    node: int
    variant: int


def changes(source: str) -> list[Change]:
    """Return what can be changed in *source*, but for annotations and docstrings."""
    tree = ast.parse(source)
    annotated = [getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")]
    left_out = {id(part) for top in annotated if top is not None for part in ast.walk(top)}
    return [
        Change(node.lineno, f"{_short(node)}  ->  {_short(new)}", index, variant)  # type: ignore[attr-defined]
        for index, node in enumerate(ast.walk(tree))
        if id(node) not in left_out
        for variant, new in enumerate(changed(node))
    ]


def apply(source: str, change: Change) -> str:
    """Return *source* with one thing changed."""
    tree = ast.parse(source)
    target = list(ast.walk(tree))[change.node]
    new = list(changed(target))[change.variant]
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if item is target else item for item in value]
    return ast.unparse(ast.fix_missing_locations(tree))


def _short(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split("\n", 1)[0][:100]


class Copy:
    """A copy of the tree, in which one module is changed at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("structjob", "tests", "schema", "docs", "benchmarks"):
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, directory)

    def passes(self, tests: list[str], seconds: float, servers: bool) -> bool:
        """Return whether the tests pass here, in time."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        command += [] if servers else ["-k", "not mariadb and not postgresql"]
        env = {**os.environ, "PYTHONPATH": str(self.directory), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
        process = subprocess.Popen(
            [*command, *(f"tests/{name}.py" for name in tests)],
            cwd=self.directory, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what a test has left running
            process.wait()


def examine(module: str, copies: queue.SimpleQueue[Copy], options: argparse.Namespace) -> int:
    """Print the changes of *module* that no test notices; return how many there are."""
    file, names = MODULES[module]
    path, tests = Path("structjob") / file, names.split()
    source = (ROOT / path).read_text()
    found = changes(source)
    if options.sample and options.sample < len(found):
        found = sorted(random.Random(options.seed).sample(found, options.sample), key=lambda change: change.line)
    unchanged = copies.get()
    began = time.monotonic()
    passing = unchanged.passes(tests, 3600, options.servers)
    limit = 10 + 3 * (time.monotonic() - began) * options.n
    copies.put(unchanged)
    if not passing:
        sys.exit(f"{module}: the tests fail without any change: {names}")

    def survives(change: Change) -> bool:
        tree = copies.get()
        try:
            (tree.directory / path).write_text(apply(source, change))
            return tree.passes(tests, limit, options.servers)
        finally:
            (tree.directory / path).write_text(source)
            copies.put(tree)

    with concurrent.futures.ThreadPoolExecutor(options.n) as pool:
        survivors = [change for change, survived in zip(found, pool.map(survives, found), strict=True) if survived]
    print(f"{module}: {len(found) - len(survivors)} killed, {len(survivors)} survived")
    for change in survivors:
        print(f"  {path}:{change.line}  {change.text}", flush=True)
    return len(survivors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--sample", type=int, metavar="N", help="try N changes of each module, in place of all")
    parser.add_argument("--seed", type=int, default=0, help="which N; the same ones each time by default")
    parser.add_argument("--servers", action="store_true", help="run the tests on MariaDB and PostgreSQL, too")
    parser.add_argument("-n", type=int, default=os.cpu_count() or 1, help="how many at once; as many as there are cores by default")
    options = parser.parse_args()
    if unknown := set(options.modules) - set(MODULES):
        parser.error(f"no such module: {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    with tempfile.TemporaryDirectory(prefix="structjob-mutate-") as home:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(options.n):
            copies.put(Copy(Path(home) / str(number)))
        sys.exit(1 if sum([examine(module, copies, options) for module in options.modules or MODULES]) else 0)


if __name__ == "__main__":
    main()
