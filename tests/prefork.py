"""Processes that have imported everything before they begin: forks of one that does nothing else.

A test of the command line is a process for each command, and three quarters of its time go into
imports. Here each is a process of its own still, with its own streams, directory, threads and end,
but it is forked from one that waits with the modules loaded. What a command imports, and when, is
not to be tested with it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_SERVER = """
import atexit, os, sys
whole_end, ended_with = sys.argv[2] == "whole end", None
def leave():
    if whole_end or ended_with is None:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        return  # the interpreter says so
    os._exit(ended_with)
atexit.register(leave)  # before what the modules register, so it is called after all of that
import gc, importlib, json, select, signal, socket, time
for name in sys.argv[3:]:
    importlib.import_module(name)
gc.freeze()  # what is here is not looked at when a program ends
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
woken, waker = socket.socketpair()
waker.setblocking(False)
signal.set_wakeup_fd(waker.fileno())
signal.signal(signal.SIGCHLD, lambda *_: None)
print("ready", flush=True)
running = {}
while True:
    ready = select.select([0, listener, woken], [], [])[0]
    if 0 in ready:
        os._exit(0)  # whoever started it is gone
    if woken in ready:
        woken.recv(4096)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with running.pop(ended[0]) as connection:
                connection.sendall(str(ended[1]).encode())
    if listener in ready:
        connection, _ = listener.accept()
        message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if (pid := os.fork()) == 0:
            break
        running[pid] = connection
        for stream in streams:
            os.close(stream)
signal.set_wakeup_fd(-1)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
for one in (listener, woken, waker, connection, *running.values()):
    one.close()
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
given = json.loads(message)
os.chdir(given["directory"])
if given["environment"] is not None:
    os.environ.clear()
    os.environ.update(given["environment"])
    time.tzset()
sys.argv = ["-c", *given["words"]]
code = given["program"]
del atexit, gc, importlib, json, select, signal, socket, time, listener, woken, waker, running, ready, pid, one, connection, message, streams, stream, number, given, name, _
try:
    exec(compile(code, "<string>", "exec"))
    ended_with = 0
except SystemExit as exc:
    ended_with = exc.code & 255 if isinstance(exc.code, int) else int(exc.code is not None)
    raise
except Exception:
    ended_with = 1
    raise
"""

_MODULES = (
    "alembic.command", "asyncio", "email.parser", "getpass", "gzip", "msgspec.json", "rich.console", "rich.progress", "rich.table", "rich._unicode_data.unicode17-0-0",
    "sqlalchemy.dialects.mysql", "sqlalchemy.dialects.sqlite", "sqlalchemy.ext.asyncio", "structlog", "tenacity", "zoneinfo",
    "structjob.cli.app", "structjob.cli.cancel", "structjob.cli.doctor", "structjob.cli.errors", "structjob.cli.export", "structjob.cli.import_", "structjob.cli.jobs", "structjob.cli.logs",
    "structjob.cli.migrate", "structjob.cli.prune", "structjob.cli.run.command", "structjob.cli.run.process", "structjob.cli.sessions", "structjob.cli.show", "structjob.cli.stats",
    "structjob.cli.tail", "structjob.cli.verify", "structjob.checkup", "structjob.engine.engine", "structjob.reader", "structjob.schema", "structjob.tracker", "structjob.transfer",
    "structjob.retention.prune", "structjob.store.charset", "structjob.store.connection", "structjob.store.factory", "structjob.store.sqlite", "structjob.store.views", "structjob.queries.jobs",
    "structjob.queries.health", "structjob.queries.logs", "structjob.queries.session_status", "structjob.queries.errors", "structjob.queries.statistics", "structjob.queries.verify",
)  # fmt: skip


class Preforked:
    """Runs Python programs in forks of one process; started when it is needed first, and ended with
    this one.

    Args:
        environment: Of the process, and so of all the programs.
        options: The interpreter's.
        whole_end: Whether the interpreter also takes its modules apart when a program has ended:
            it does what is registered for the end and flushes in any case. The rest takes more time
            than most programs, because it writes to all the memory of the process that was forked.
    """

    def __init__(
        self, environment: Mapping[str, str], *options: str, whole_end: bool = True
    ) -> None:
        self._environment = environment
        self._options = options
        self._whole_end = whole_end
        self._lock = threading.Lock()
        self._address: str | None = None

    def run(
        self,
        program: str,
        words: Sequence[str],
        directory: Path,
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run *program* to its end, with *words* as its arguments; *env* is its environment, if it
        is to have another.
        """
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(input)
            given.seek(0)
            message = {
                "program": program,
                "words": list(words),
                "directory": str(directory),
                "environment": env and dict(env),
            }
            code = self._run(message, given, out, err)
            for stream in (out, err):
                stream.seek(0)
            return subprocess.CompletedProcess(["python", *words], code, out.read(), err.read())

    def _run(self, message: dict[str, object], *streams: IO[bytes]) -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(100)
            connection.connect(self.start())
            socket.send_fds(
                connection, [json.dumps(message).encode()], [stream.fileno() for stream in streams]
            )
            return os.waitstatus_to_exitcode(int(connection.recv(64)))

    def start(self) -> str:
        """Start the process that is forked, unless it runs; return its address."""
        with self._lock:
            if self._address is None:
                directory = tempfile.mkdtemp(prefix="prefork-")
                address = os.path.join(directory, "socket")
                end = "whole end" if self._whole_end else "short end"
                command = [sys.executable, *self._options, "-c", _SERVER, address, end, *_MODULES]
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=dict(self._environment),
                )
                atexit.register(_end, process, directory)
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                self._address = address
            return self._address


def _end(process: subprocess.Popen[bytes], directory: str) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            stream.close()  # type: ignore[union-attr]
    shutil.rmtree(directory)
