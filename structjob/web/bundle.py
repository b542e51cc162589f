"""Joins the scripts of the pages, so that a first visit asks for few files.

The scripts stay small modules, each with its own names. A bundle holds a script with the modules
that it imports, each as a function that returns its exports:

    $modules["format.js"] ??= (() => { …; return { count, duration }; })();

``app.js`` has what all pages need. The bundle of a script that is loaded later, such as
``pages/job.js``, imports ``$modules`` from it, and holds the rest. A module that two such bundles
have runs once. Vendored modules stay files of their own.

A bundle takes the place of its script. Every other script is also served as it is, for the pages
of other applications.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

_FIRST = "app.js"

_IMPORT = re.compile(r'^import (?:(\{[^}]*\}|\w+) from )?"([^"]+)";\n', re.MULTILINE)
_REEXPORT = re.compile(r'^export (\{[^}]*\}) from "([^"]+)";\n', re.MULTILINE)
_LIST = re.compile(r"^export \{([^}]*)\};\n", re.MULTILINE)
_DEFAULT = re.compile(r"^export default (?=(?:async )?(?:function|class) (\w+))", re.MULTILINE)
_DECLARATION = re.compile(
    r"^export (?=(?:const|(?:async )?function|class) (\w+))", re.MULTILINE
)  # no `let`: its later values would not arrive
_LATER = re.compile(r'\bimport\("(\.[^"]+)"\)')


def bundles(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the bundle of each script that a page begins with or loads later.

    Args:
        files: The content of each file, by its path.

    Raises:
        ValueError: if a script exports in a way that this module does not know.
    """
    texts = {path: content.decode() for path, content in files.items() if path.endswith(".js")}
    later = {_below(path, found) for path, text in texts.items() for found in _LATER.findall(text)}
    core = _with_imports(texts, _FIRST)
    out = {_FIRST: _bundle(texts, _FIRST, core, ["export const $modules = {};\n"])}
    for entry in sorted(later):
        begin = [f'import {{ $modules }} from "{_relative(_FIRST, entry)}";\n']
        rest = [path for path in _with_imports(texts, entry) if path not in core]
        out[entry] = _bundle(texts, entry, rest, begin)
    return {path: text.encode() for path, text in out.items()}


def _bundle(texts: Mapping[str, str], entry: str, paths: list[str], begin: list[str]) -> str:
    vendored: dict[str, str] = {}
    body = [_as_function(texts[path], path, entry, vendored) for path in paths]
    names = _exports(texts[entry], entry)
    end = []
    if "default" in names:
        end.append(f'export default $modules["{entry}"].default;\n')
    if rest := [name for name in names if name != "default"]:
        end.append(f'export const {{ {", ".join(rest)} }} = $modules["{entry}"];\n')
    imports = [f'import * as {name} from "{source}";\n' for source, name in vendored.items()]
    return "".join([*imports, *begin, *body, *end])


def _as_function(text: str, path: str, entry: str, vendored: dict[str, str]) -> str:
    names = _exports(text, path)
    exported = ", ".join(f"default: {name}" if key == "default" else name for key, name in names.items())  # fmt: skip

    def source(found: str) -> str:
        if found.startswith("."):
            return f'$modules["{_below(path, found)}"]'
        return vendored.setdefault(found, f"$vendored{len(vendored)}")

    def taken(match: re.Match[str]) -> str:
        what, found = match.groups()
        if what is None:
            return ""
        if not what.startswith("{"):
            return f"const {what} = {source(found)}.default;\n"
        return f"const {what.replace(' as ', ': ')} = {source(found)};\n"

    text = _REEXPORT.sub(taken, _IMPORT.sub(taken, text))
    for pattern in (_LIST, _DEFAULT, _DECLARATION):
        text = pattern.sub("", text)
    text = _LATER.sub(lambda one: f'import("{_relative(_below(path, one[1]), entry)}")', text)
    return f'$modules["{path}"] ??= (() => {{\n{text}return {{ {exported} }};\n}})();\n'


def _exports(text: str, path: str) -> dict[str, str]:
    """Return the names that a module exports; the value of ``default`` is its name inside."""
    found = {name: name for name in _DECLARATION.findall(text)}
    for names in [*_LIST.findall(text), *(names[1:-1] for names, _ in _REEXPORT.findall(text))]:
        found |= {name.strip(): name.strip() for name in names.split(",")}
    for name in _DEFAULT.findall(text):
        found["default"] = name
    known = sum(len(one.findall(text)) for one in (_DECLARATION, _LIST, _REEXPORT, _DEFAULT))
    if known != len(re.findall(r"^export\b", text, re.MULTILINE)):
        raise ValueError(f"{path} has an export that a bundle cannot hold")
    return found


def _with_imports(texts: Mapping[str, str], path: str) -> list[str]:
    """Return a module and those that it imports, each after its own imports."""
    found: dict[str, None] = {}

    def visit(path: str) -> None:
        for imported in _imports(texts[path]):
            if (below := _below(path, imported)) not in found:
                visit(below)
        found[path] = None

    visit(path)
    return list(found)


def _imports(text: str) -> Iterator[str]:
    for pattern in (_IMPORT, _REEXPORT):
        yield from (found for _, found in pattern.findall(text) if found.startswith("."))


def _below(path: str, imported: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), imported))


def _relative(path: str, entry: str) -> str:
    found = posixpath.relpath(path, posixpath.dirname(entry) or ".")
    return found if found.startswith("..") else f"./{found}"
