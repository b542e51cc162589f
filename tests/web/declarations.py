"""Make the types of the JavaScript client again: ``python tests/web/declarations.py``.

``api.d.ts`` and ``client.d.ts`` are what TypeScript finds in the scripts. ``openapi.d.ts`` is what
openapi-typescript makes of the OpenAPI document. Both tools come by npm into a directory of their
own.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx

from structjob.web import app

STATIC = Path(__file__).parents[2] / "structjob" / "web" / "static"
NAMES = ("api.d.ts", "client.d.ts", "openapi.d.ts")
TOOLS = ("openapi-typescript@7.13.0", "typescript@5.9.3")
"""The tools; openapi-typescript needs TypeScript 5."""

_STRICT = ("--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2023,dom,dom.iterable")  # fmt: skip


class Tools:
    """The two tools, installed in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "package.json").write_text('{"private": true}')
        self._run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *TOOLS)

    def made(self) -> dict[str, str]:
        """Return the text of each file of types."""
        scripts = self._directory / "scripts"
        scripts.mkdir()
        for name in ("api.js", "client.js"):
            shutil.copy(STATIC / name, scripts)
        document = self._directory / "openapi.json"
        document.write_bytes(asyncio.run(_document()))
        self._tool("openapi-typescript", str(document), "-o", str(scripts / "openapi.d.ts"))
        emit = ("--allowJs", "--checkJs", "--declaration", "--emitDeclarationOnly")
        self._tool("tsc", *_STRICT, *emit, str(scripts / "client.js"))
        return {name: (scripts / name).read_text() for name in NAMES}

    def check(self, program: str) -> str:
        """Return what TypeScript reports about a program that imports the types as installed."""
        place = self._directory / "program"
        place.mkdir()
        for name in NAMES:
            shutil.copy(STATIC / name, place)
        (place / "program.ts").write_text(program)
        return self._tool("tsc", *_STRICT, "--noEmit", str(place / "program.ts"), check=False)

    def _tool(self, name: str, *arguments: str, check: bool = True) -> str:
        return self._run(f"node_modules/.bin/{name}", *arguments, check=check)

    def _run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, cwd=self._directory, capture_output=True, text=True)
        if check and done.returncode:
            raise SystemExit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


async def _document() -> bytes:
    """Return the OpenAPI document, for which no database is needed."""
    transport = httpx.ASGITransport(app("sqlite:///unused.db"), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
        answer = await web.get("/api/v1/openapi.json")
    return answer.raise_for_status().content


def main() -> None:
    """Write the files."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in Tools(Path(directory)).made().items():
            (STATIC / name).write_text(text)


if __name__ == "__main__":
    main()
