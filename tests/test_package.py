"""The package as it is installed: a wheel in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_brings_its_migrations_and_its_types(tmp_path: Path) -> None:
    """Installed from a wheel, with no checkout at hand, structjob creates its tables and prints
    their SQL (R6).
    """
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    wheel = next(tmp_path.glob("structjob-*.whl"))
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    # To install another pip there and to compile all modules takes longer than the rest.
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run(
        [*pip, "install", "-q", "--no-compile", str(wheel)], check=True, capture_output=True
    )

    printed = subprocess.run(
        [tmp_path / "env/bin/structjob", "migrate", "--sql", "up"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert printed.stdout == (ROOT / "schema" / "sqlite.sql").read_text("utf-8")

    program = (
        "import asyncio, pathlib, structjob\n"
        "async def main():\n"
        "    async with structjob.Tracker('sqlite:///jobs.db') as tracker:\n"
        "        async with tracker.job('installed') as job: pass\n"
        "        print((await tracker.jobs.get(job.id)).status)\n"
        "asyncio.run(main())\n"
        "package = pathlib.Path(structjob.__file__).parent\n"
        "print((package / 'py.typed').exists())\n"
        "print(*sorted(one.name for one in (package / 'web/static').glob('*.d.ts')))\n"
    )
    done = subprocess.run(
        [python, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    types = ["api.d.ts", "client.d.ts", "openapi.d.ts"]
    assert done.stdout.split() == ["completed", "True", *types]
