"""The files of the pages: what is vendored is what its manifest says, and all of it is small."""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import sys
from pathlib import Path

import pytest
from starlette.requests import Request

STATIC = Path(__file__).parents[1] / "structjob" / "web" / "static"
sys.path.insert(0, str(Path(__file__).parent / "web"))

import vendor  # noqa: E402  # it stands beside the browser tests

from structjob.web import shell  # noqa: E402
from structjob.web.bundle import bundles  # noqa: E402


def test_vendored_files_are_those_of_the_manifest():
    """Each vendored file has the hash in the manifest, which names all of them."""
    listed = {"manifest.json"}
    for package in vendor.manifest():
        assert package["license"]
        assert package["integrity"].startswith("sha512-")
        for file in package["files"]:
            listed.add(file["file"])
            assert vendor.sha384((vendor.VENDOR / file["file"]).read_bytes()) == file["sha384"], (
                f"{file['file']} is not the file of {package['name']} {package['version']}: "
                "run tests/web/vendor.py"
            )
    assert {path.name for path in vendor.VENDOR.iterdir()} == listed


def test_import_map_names_every_module_of_the_vendored_packages():
    """The page's import map leads to the vendored modules, each once, relative to the page."""
    page = (STATIC / "index.html").read_text()
    found = json.loads(re.search(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    wanted = {
        file["as"]: "{{static}}vendor/" + file["file"]
        for package in vendor.manifest()
        for file in package["files"]
        if "as" in file
    }
    assert found["imports"] == wanted


@pytest.mark.parametrize(
    ("path", "script"), [("", "overview"), ("jobs", "jobs"), ("jobs/gui-17", "job"), ("logs", "logs"), ("errors/3fa2", "error"), ("sessions/7", "sessions"), ("nothing", None)]
)  # fmt: skip
def test_a_page_names_all_scripts_that_it_imports_so_that_they_load_at_once(path, script):
    """Nothing is left that a browser would find only when it has read another script."""
    made = shell.Shell("x")
    page = document(made, path)
    named = set(re.findall(rf'modulepreload" href="[./]*static/{made.build}/([^"]+)"', page))
    assert named >= {"app.js", *([f"pages/{script}.js"] if script else [])}
    assert len(named) <= 7
    for one in named:
        for imported in re.findall(r'^import .* from "(\.[^"]+)";', text(made, one), re.MULTILINE):
            assert posixpath.normpath(posixpath.join(posixpath.dirname(one), imported)) in named


def test_the_page_of_a_job_names_what_it_asks_for_first():
    """The answers arrive while the scripts start; the address is the one that the script asks
    for, whatever the id contains (R47).
    """
    made = shell.Shell("x")
    asked = {
        path: re.findall(r'as="fetch" crossorigin href="([^"]+)"', document(made, path))
        for path in ("", "jobs", "jobs/gui-17", "jobs/(a b)'é&\"\ue02f", "logs")
    }
    job = "../api/v1/jobs/gui-17"
    assert asked["jobs/gui-17"] == [
        f"{job}?events=0",
        f"{job}/tree?depth=4&amp;limit=20000",
        f"{job}/attempts",
    ]
    # what encodeURIComponent returns for the id, which contains a slash, escaped for HTML
    assert (
        asked["jobs/(a b)'é&\"\ue02f"][0] == "../api/v1/jobs/(a%20b)&#x27;%C3%A9%26%22%2F?events=0"
    )
    assert [asked[path] for path in ("", "jobs", "logs")] == [[], [], []]


def document(made: shell.Shell, path: str) -> str:
    """Return the document of an address."""
    scope = {"type": "http", "path": f"/{path}", "root_path": "", "headers": [], "state": {}}
    return bytes(made.page(Request(scope)).body).decode()


def text(made: shell.Shell, path: str) -> str:
    """Return a script as it is served."""
    request = Request({"type": "http", "headers": []})
    return bytes(made.file(request, made.build, path).body).decode()


def test_a_bundle_has_each_module_that_its_script_imports_after_those_it_needs():
    """A page's bundle has what the bundle of all pages lacks, and each module once."""
    made = shell.Shell("x")
    own = r'^\$modules\["([^"]+)"\] \?\?= '
    core = re.findall(own, text(made, "app.js"), re.MULTILINE)
    job = re.findall(own, text(made, "pages/job.js"), re.MULTILINE)
    assert core[-1] == "app.js"
    assert job[-1] == "pages/job.js"
    assert {"logs.js", "logs-row.js", "waterfall.js"} < set(job)
    assert len({*core, *job}) == len(core) + len(job)
    for path, before in ((path, (core + job)[:number]) for number, path in enumerate(core + job)):
        for imported in re.findall(r'^import (?:.*? from )?"(\.[^"]+)";', (STATIC / path).read_text(), re.MULTILINE):  # fmt: skip
            assert (STATIC / path).parent.joinpath(imported).resolve().relative_to(STATIC).as_posix() in before  # fmt: skip
    # an application's own page loads the viewer as it is
    assert "$modules" not in text(made, "logs.js")


def test_a_bundle_refuses_an_export_that_it_cannot_hold():
    """A variable whose value changes later would keep its first value."""
    with pytest.raises(ValueError, match=r"a\.js has an export"):
        bundles({"app.js": b'import { a } from "./a.js";\n', "a.js": b"export let a = 1;\n"})


def test_style_fits_its_budget(record_property):
    """The style of the pages is at most 12 kB compressed; scripts are counted in the browser."""
    style = len(gzip.compress((STATIC / "app.css").read_bytes(), 9))
    record_property("css_bytes", style)
    print(f"CSS {style / 1000:.1f} kB compressed")
    assert style <= 12_000


def test_pages_hold_no_way_to_make_markup_of_text():
    """No script of ours turns text into markup, and no page has an inline style or script."""
    for path in [*STATIC.glob("*.js"), *STATIC.glob("pages/*.js")]:
        text = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):  # fmt: skip
            assert word not in text, f"{path.name} uses {word}"
    page = (STATIC / "index.html").read_text()
    assert " style=" not in page
    assert " onclick=" not in page


def test_served_scripts_lack_their_comments_and_indentation_and_nothing_else():
    """What is served of a script is its code, line by line."""
    files = dict(shell._files(STATIC, ""))
    for path in [*STATIC.glob("*.js"), *STATIC.glob("pages/*.js")]:
        inside, kept = False, []
        for whole in path.read_text().splitlines(keepends=True):
            code = re.sub(r"/\*\*.*?\*/ ", "", whole)
            before, comment, _ = code.partition(" // ")
            assert before.count('"') % 2 == 0 or not comment, (
                f"a text that looks like a comment: {code}"
            )
            line = f"{before.rstrip()}\n" if before.strip() and comment else code
            text = line.strip()
            if not inside and text.startswith("/**"):
                if text.endswith("*/"):
                    continue
                inside = "*/" not in text
                if not inside:
                    kept.append(line.lstrip(" "))
            elif inside:
                inside = not text.endswith("*/")
            elif not text.startswith("//"):
                kept.append(line.lstrip(" "))
        assert files[str(path.relative_to(STATIC))].decode() == "".join(kept), path.name
    for path in STATIC.glob("vendor/*.mjs"):
        assert files[f"vendor/{path.name}"] == path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "stem"), [("Api", "api"), ("Structjob", "client"), ("LogStreamingService", "client")]
)
def test_the_types_of_the_clients_have_their_methods(kind, stem):
    """`api.d.ts` and `client.d.ts` are what TypeScript makes of the scripts; the slow tier compares
    all of it (R46).
    """
    methods = [
        re.findall(rf"^ {{{indent}}}(?:async )?(\w+)\(", text.partition("\n}\n")[0], re.MULTILINE)
        for indent, suffix in ((2, "js"), (4, "d.ts"))
        for text in [(STATIC / f"{stem}.{suffix}").read_text().partition(f"class {kind} ")[2]]
    ]
    assert methods[0] == methods[1]
    assert len(methods[0]) > 6


def test_the_pages_call_only_methods_that_exist():
    """A misspelled method would be found only in a browser."""
    text = (STATIC / "api.js").read_text().partition("class Api ")[2].partition("\n}\n")[0]
    methods = set(re.findall(r"^  (?:async )?(\w+)\(", text, re.MULTILINE))
    for path in [*STATIC.glob("*.js"), *STATIC.glob("pages/*.js")]:
        called = set(re.findall(r"\b(?:api|this\.client)\.(\w+)\(", path.read_text()))
        assert called <= methods, path.name
