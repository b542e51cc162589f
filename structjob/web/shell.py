"""The pages: one document for every address, and the files that it refers to.

All references are relative to the depth of the address, so that the pages work below any prefix. In
``static/index.html``, ``{{root}}`` becomes ``./`` or ``../``, ``{{static}}`` the directory of the
files, ``{{build}}`` their version, and ``{{name}}`` the escaped name of the application.
``{{preload}}`` names all scripts of the page, so that a browser loads them at once; it would find
them one import after the other. ``{{data}}`` names what the page asks the API for first, so that
the answers arrive while its scripts start.
"""

from __future__ import annotations

import base64
import gzip
import html
import posixpath
import re
from functools import cache
from hashlib import blake2b, sha256
from importlib import resources
from importlib.resources.abc import Traversable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from structjob.web.accept import takes_gzip
from structjob.web.answers import SLASH
from structjob.web.bundle import bundles
from structjob.web.login import local_address
from structjob.web.paths import API, PAGES, below
from structjob.web.problems import Refused, answer

LATEST = "latest"
"""In place of the version in a file's address: the newest version, for other applications'
pages.
"""

_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "ico": "image/x-icon",
    "js": "text/javascript",
    "json": "application/json",
    "mjs": "text/javascript",
    "png": "image/png",
    "svg": "image/svg+xml",
    "ts": "text/plain",
    "woff2": "font/woff2",
}

_DATA = {"jobs/": ("?events=0", "/tree?depth=4&limit=20000", "/attempts")}
"""What the page of one thing asks the API for first: the same addresses as in its script, after
that of the thing itself.
"""

_AS_WRITTEN = "!'()*"
"""Characters that ``encodeURIComponent`` leaves as they are, and `quote` does not."""

_IMPORT = re.compile(r'(?:\bfrom|^import)\s*"([\w@./-]+)"', re.MULTILINE)
"""Static imports, of our scripts and of the vendored ones."""

_INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
_READABLE = re.compile(
    rb"^[ \t]*(?://[^\n]*|/\*\*(?:(?!\*/).)*\*/[ \t]*)\n|/\*\*(?:(?!\*/).)*\*/ ?|[ \t]+// [^\n]*|^[ \t]+",
    re.DOTALL | re.MULTILINE,
)
"""Comments, and indentation: an eighth of what a visitor would load."""

_PLACE = re.compile(r"\{\{(\w+)\}\}")

_NAMED = re.compile(r'"([^"]+)": "\{\{static\}\}([^"]+)"')
"""The names of the import map in ``index.html``, and their files."""

_COMPRESSED = ("css", "html", "js", "json", "mjs", "svg", "ts")

_MESSAGES = {
    "401": "Unknown or expired token.",
    "429": "Unknown or expired token. Too many wrong ones came from your address; the right one is still accepted.",
}


class _Static:
    """The files as they are served: the same for every application in the process."""

    def __init__(self) -> None:
        self.files = dict(_files(resources.files("structjob.web") / "static", ""))
        self.files |= bundles(self.files)
        digest = blake2b(digest_size=6)
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + b"\0" + content)
        self.build = digest.hexdigest()
        self.squeezed: dict[str, bytes] = {}


_static = cache(_Static)


class Shell:
    """The document and the files.

    Args:
        name: The name of the application.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        static = _static()
        self._files, self.build, self._squeezed = static.files, static.build, static.squeezed
        self._documents: dict[tuple[str, str], tuple[bytes, str]] = {}

    def page(self, request: Request) -> Response:
        """Return the document for the requested address."""
        path = below(request.scope)[1:]
        page, one = path.partition("/")[::2]
        kind, root = f"{page}/" if one else page, "../" * path.count("/") or "./"
        document, scripts = self._document(root, PAGES.get(kind, ""))
        id_ = quote(one.rstrip("/").replace(SLASH, "/"), safe=_AS_WRITTEN)
        thing = f"{root}{API[1:]}/{page}/{id_}"
        data = (
            f'<link rel="preload" as="fetch" crossorigin href="{html.escape(thing + more)}">'
            for more in _DATA.get(kind, ())
        )
        request.state.scripts = scripts  # for the Content-Security-Policy
        body = document.replace(b"{{data}}", "\n".join(data).encode())
        return Response(body, 200, {"Cache-Control": "no-cache"}, "text/html")

    def login(self, request: Request) -> Response:
        """Return the login page, which asks for a token and has no scripts.

        Args:
            request: The request; its parameter ``next`` is the page that its user came from.
        """
        message = _MESSAGES.get(request.query_params.get("failed", ""), "")
        wanted = local_address(request.query_params.get("next", ""))
        values = {
            "root": "./",
            "name": self._name,
            "message": message,
            "invalid": "true" if message else "false",
            "next": f"You will return to /{wanted}" if wanted else "",
        }
        text = self._files["login.html"].decode()
        text = _PLACE.sub(lambda found: html.escape(values[found[1]]), text)
        return Response(text, 200, {"Cache-Control": "no-store"}, "text/html")

    async def login_style(self, request: Request) -> Response:
        """Return the style of the login page."""
        headers = {"Cache-Control": "no-cache"}
        return Response(self._files["login.css"], 200, headers, "text/css")

    def file(self, request: Request, build: str, path: str) -> Response:
        """Return a file of the version *build*."""
        content = self._files.get(path)
        if content is None or build not in (self.build, LATEST):
            return answer(
                Refused(404, "there is no such file; after an upgrade, load the page again")
            )
        kind = path.rpartition(".")[2]
        kept = "public, max-age=31536000, immutable" if build == self.build else "no-cache"
        headers = {"Cache-Control": kept, "Vary": "Accept-Encoding"}
        if kind in _COMPRESSED and takes_gzip(request.headers):
            headers["Content-Encoding"] = "gzip"
            if path not in self._squeezed:
                self._squeezed[path] = gzip.compress(content, 9, mtime=0)
            content = self._squeezed[path]
        return Response(content, 200, headers, _TYPES.get(kind, "application/octet-stream"))

    def _scripts(self, page: str) -> list[str]:
        """Return the scripts that a page needs, without those that it may load later."""
        named = dict(_NAMED.findall(self._files["index.html"].decode()))
        found: list[str] = []
        wanted = ["app.js", *([f"pages/{page}.js"] if page else [])]
        while wanted:
            path = wanted.pop()
            if path in found:
                continue
            found.append(path)
            text = self._files[path].decode()
            for imported in _IMPORT.findall(text):
                below = posixpath.join(posixpath.dirname(path), imported)
                wanted.append(named.get(imported) or posixpath.normpath(below))
        return sorted(found)

    def _document(self, root: str, page: str) -> tuple[bytes, str]:
        if (root, page) not in self._documents:
            text = self._files["index.html"].decode()
            preload = (
                f'<link rel="modulepreload" href="{{{{static}}}}{path}">'
                for path in self._scripts(page)
            )
            for key, value in (
                ("preload", "\n".join(preload)),
                ("root", root),
                ("static", f"{root}static/{self.build}/"),
                ("build", self.build),
                ("name", html.escape(self._name)),
            ):
                text = text.replace("{{" + key + "}}", value)
            hashes = (
                base64.b64encode(sha256(script.encode()).digest()).decode()
                for script in _INLINE.findall(text)
            )
            self._documents[root, page] = (
                text.encode(),
                " ".join(f"'sha256-{one}'" for one in hashes),
            )
        return self._documents[root, page]


def _files(directory: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in directory.iterdir():
        if entry.is_dir():
            found += _files(entry, f"{prefix}{entry.name}/")
        elif not entry.name.startswith("."):
            content = entry.read_bytes()
            # only structjob's scripts; vendored ones (.mjs) stay unchanged
            if entry.name.endswith(".js"):
                content = _READABLE.sub(b"", content)
            found.append((prefix + entry.name, content))
    return found
