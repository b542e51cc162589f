"""Database servers that the workers of a test run share: each is started when it is needed first,
and ends with the run.

They keep their files in memory where that is possible, and never wait for a disk: what they hold
need not survive a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from breakable_servers import SERVERS, ServerMissing

_MEMORY = Path("/dev/shm")
_ROOM = 2 << 30
_MISSING = 3

# pytest-xdist gives its workers the same one; a run without workers is a run of its own.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(8)
_RUNNING = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
"""The process that ends last."""


def shared_url(kind: str) -> str:
    """Return the URL of the empty database ``test`` on this run's server; start it where no other
    worker has.

    Raises:
        ServerMissing: if its programs are not installed.
    """
    directory = _place() / f"structjob-{_RUN}"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o711)  # the server's own user must get through
    started = directory / f"{kind}.url"
    with open(directory / f"{kind}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not started.exists():
            started.write_text(_start(kind, directory))
        return started.read_text()


def _start(kind: str, directory: Path) -> str:
    command = [sys.executable, __file__, kind, str(directory), str(_RUNNING)]
    keeper = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    with keeper.stdout, keeper.stderr:
        if url := keeper.stdout.readline().strip():
            keeper.returncode = 0  # it outlives this process, which need not wait for it
            return url
        why = keeper.stderr.read()
    if keeper.wait() == _MISSING:
        raise ServerMissing(why.strip())
    raise RuntimeError(f"a shared {kind} server did not start:\n{why}")


def _place() -> Path:
    with contextlib.suppress(OSError):
        if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM:
            return _MEMORY
    return Path(tempfile.gettempdir())


def keep(kind: str, directory: Path, running: int) -> None:
    """Start a server, print its URL, and remove it when the process *running* has ended."""
    server = SERVERS[kind](directory / kind, lasting=False)
    try:
        server.start()
        server.sql("CREATE DATABASE test", database="")
        print(server.url(), flush=True)
        for number in (1, 2):
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), number
            )  # the process that started it reads no more
        while _exists(running):
            time.sleep(0.5)
    finally:
        server.kill()
        shutil.rmtree(directory / kind)
        for name in (f"{kind}.url", f"{kind}.lock"):
            (directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            directory.rmdir()  # the last of them does


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    try:
        keep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    except ServerMissing as exc:
        print(exc, file=sys.stderr)
        sys.exit(_MISSING)
