"""What the page about the architecture says of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from each import each

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROOMS, ARROWS = 25, 110
"""The most that the page allows."""
PLACES = sorted(set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)(?::([A-Za-z_.]+))?`", PAGE)))


def names_of(path: Path) -> set[str]:
    """Return the functions, classes and methods of a module, as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


@each(("file", "name"), PLACES)
def test_each_place_that_the_page_names_exists(file: str, name: str) -> None:
    """A reader who opens the file finds the function."""
    roots = [ROOT / "structjob" / file, ROOT / file]
    path = next((path for path in roots if path.exists()), None)
    assert path is not None, f"docs/architecture.md names {file}, which does not exist"
    assert not name or name in names_of(path), f"docs/architecture.md names {file}:{name}"


def test_the_page_names_each_room() -> None:
    """No package of the library is missing in the table of rooms."""
    rooms = {path.parent.name for path in (ROOT / "structjob").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"`([a-z]+)/`", PAGE))


@cache
def imports_of(package: Path) -> dict[str, set[str]]:
    """Return which modules of *package* each of its modules imports, wherever the import stands: in
    a function, or below `if TYPE_CHECKING`, too.
    """
    paths = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {}
    for module, path in paths.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module, f"{module} has a relative import"
                for alias in node.names:
                    below = f"{node.module}.{alias.name}"
                    named.add(below if below in paths else node.module)
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        found[module] = named & paths.keys() - {module}
    return found


def rooms_of(modules: Iterable[str]) -> dict[str, str]:
    """Return the room of each module: its top-level package, or the package itself."""
    packages = {module.rpartition(".")[0] for module in modules}
    top = {module: ".".join(module.split(".")[:2]) for module in modules}
    return {
        module: room if room in packages else room.partition(".")[0] for module, room in top.items()
    }


def circle_in(imports: dict[str, set[str]]) -> list[str]:
    """Return one circle of modules; an empty list if there is no circle."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def test_there_are_few_rooms_and_few_arrows_between_them() -> None:
    """house F8: a new arrow replaces another one, or the limit is discussed."""
    imports = imports_of(ROOT / "structjob")
    room = rooms_of(imports)
    arrows = {
        (room[module], room[other])
        for module, others in imports.items()
        for other in others
        if room[module] != room[other]
    }
    assert len(set(room.values())) <= ROOMS, sorted(set(room.values()))
    assert len(arrows) <= ARROWS, sorted(arrows)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """house F8: not even for types. The page says how such a circle is broken."""
    assert circle_in(imports_of(ROOT / "structjob")) == []


def test_every_kind_of_import_counts(tmp_path: Path) -> None:
    """An import for types, and one in a function, close a circle and are arrows."""
    package = tmp_path / "house"
    for file, text in {
        "__init__.py": "",
        "door.py": "from house.hall import coats",
        "hall/__init__.py": "",
        "hall/coats.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.cellar.wine",
        "cellar/__init__.py": "",
        "cellar/wine.py": "def open():\n    from house.hall.coats import Coat",
    }.items():
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text(text, "utf-8")
    imports = imports_of(package)
    assert imports["house.door"] == {"house.hall.coats"}
    assert set(circle_in(imports)) == {"house.hall.coats", "house.cellar.wine"}
    room = rooms_of(imports)
    assert (room["house.door"], room["house.cellar.wine"]) == ("house", "house.cellar")
