"""Fetch the vendored JavaScript again: ``python tests/web/vendor.py``.

Each package of ``manifest.json`` comes by ``npm pack``; the tarball must have the integrity that
the manifest names. The file is taken out of it unchanged, and its SHA-384 is written down.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[2] / "structjob" / "web" / "static" / "vendor"


def manifest() -> list[dict[str, Any]]:
    """Return the packages, each with its files."""
    packages: list[dict[str, Any]] = json.loads((VENDOR / "manifest.json").read_text())["packages"]
    return packages


def sha384(content: bytes) -> str:
    """Return the hash of *content* as ``integrity`` has it."""
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


def pack(name: str, version: str, integrity: str | None, directory: Path) -> Path:
    """Download one package to *directory* and return its tarball, checked."""
    done = subprocess.run(
        ["npm", "pack", f"{name}@{version}", "--json"],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout)[0]
    tarball = directory / answer["filename"]
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if integrity is not None and found != integrity:
        raise SystemExit(f"{name}@{version} has integrity {found}, the manifest says {integrity}")
    return tarball


def content(tarball: Path, member: str) -> bytes:
    """Return the bytes of one file in the tarball."""
    with tarfile.open(tarball) as archive:
        file = archive.extractfile(f"package/{member}")
        assert file is not None, f"{tarball.name} has no file {member}"
        return file.read()


def main() -> None:
    packages = manifest()
    with tempfile.TemporaryDirectory() as directory:
        for package in packages:
            tarball = pack(
                package["name"], package["version"], package["integrity"], Path(directory)
            )
            for file in package["files"]:
                bytes_ = content(tarball, file["from"])
                (VENDOR / file["file"]).write_bytes(bytes_)
                file["sha384"] = sha384(bytes_)
    text = json.dumps({"packages": packages}, indent=2)
    (VENDOR / "manifest.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
