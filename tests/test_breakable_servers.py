"""A server that a test starts does what the test believes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from breakable_servers import Server

class Endless(Server):
    backend = "endless"
    def _serve(self): return ["sh", "-c", "echo; exec sleep 1000"]
    def _answers(self): return (self.directory / "log").read_text() != ""
    def _as_account(self): return {}

server = Endless(Path(sys.argv[1]))
(server.directory / "data").mkdir(parents=True)
server.start()
if sys.argv[2] == "restarts":
    server.stop()
    server.start()
print(server._process.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the servers are ended by /proc")
@pytest.mark.parametrize("restarts", ["", "restarts"])
def test_it_ends_with_the_test_run_that_started_it(tmp_path: Path, restarts: str) -> None:
    """Also where that is killed and tidies up nothing, such as a worker after Ctrl-C."""
    command = [sys.executable, "-c", PROGRAM, tmp_path / "server", restarts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent) as run:
        assert run.stdout is not None
        server = os.pidfd_open(int(run.stdout.readline()))
        try:
            run.send_signal(signal.SIGKILL)
            assert select.select([server], [], [], 20)[
                0
            ]  # its descriptor is readable when it has ended
        finally:
            os.close(server)
