"""Where an SQLite database is kept: on machines with little to write to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cli_support import environment

PROGRAM = """
import asyncio, sys, structlog, structjob

async def main():
    structjob.configure(console=False)
    log = structlog.get_logger()
    async with structjob.Tracker(sys.argv[1]) as tracker:
        async with tracker.job("many"):
            for number in range(3000):
                log.info("line", number=number, text="x" * 50)
        print(len(await tracker.logs.list(limit=1000, text="line")), (await tracker.verify()).ok)

asyncio.run(main())
"""

READ_ONLY = """
set -e
for place in /tmp /var/tmp /usr/tmp; do
    if [ -d "$place" ]; then mount --bind "$place" "$place"; mount -o remount,bind,ro "$place"; fi
done
mount -t tmpfs none /mnt
cd /proc
exec "$@"
"""
"""Runs a command where it can write to ``/mnt`` only, in a mount namespace of its own."""


@pytest.mark.slow
def test_a_database_needs_no_temporary_directory() -> None:
    """faults 54: with one writable volume and nothing else, thousands of lines are stored at once,
    and read.
    """
    unshare = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    )
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not allowed here")
    environ = environment()
    environ.pop("TMPDIR", None)
    command = [
        *unshare,
        "sh",
        "-c",
        READ_ONLY,
        "sh",
        sys.executable,
        "-c",
        PROGRAM,
        "sqlite:////mnt/jobs.db",
    ]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000 True\n", "")
