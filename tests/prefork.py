"""Processes that have imported everything before they begin: forks of one that does nothing else.

A test of the command line is a process for each command, and three quarters of its time go into
imports. Here each is a process of its own still, with its own streams, directory, threads and end,
but it is forked from one that waits with the modules loaded. What a command imports, and when, what
an interpreter looks at when it starts, and `sys.orig_argv` are not to be tested with it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import pty
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

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
import ast, fcntl, gc, importlib, select, signal, socket, termios, time
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
                try:
                    connection.sendall(b"%d\\n" % ended[1])
                except OSError:
                    pass  # whoever asked for it has gone
    if listener in ready:
        connection, _ = listener.accept()
        message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if (pid := os.fork()) == 0:
            break
        running[pid] = connection
        connection.sendall(b"%d\\n" % pid)
        for stream in streams:
            os.close(stream)
signal.set_wakeup_fd(-1)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
for one in (listener, woken, waker, connection, *running.values()):
    one.close()
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
    # What a text is written to decides how it is buffered, and is asked when the object is made.
    text = (sys.stdin, sys.stdout, sys.stderr)[number]
    buffer = open(number, "wb" if number else "rb", closefd=False)
    buffer.raw.name = text.name
    text.__init__(buffer, text.encoding, text.errors, "\\n", number == 2 or os.isatty(number))
given = ast.literal_eval(message.decode())
if given["terminal"]:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.chdir(given["directory"])
if given["environment"] is not None:
    os.environ.clear()
    os.environ.update(given["environment"])
    time.tzset()
sys.argv = ["-c", *given["words"]]
code = given["program"]
del ast, atexit, fcntl, gc, importlib, select, signal, socket, termios, time, listener, woken, waker, running, ready, pid, one, connection, message, streams, stream, number, text, buffer, given, name, _
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

_STAND_IN = '''
import _socket, array, os, sys
address, *words = sys.argv[1:]
program = ""
if words[:2] == ["-W", "error"]:
    program, words = "import warnings; warnings.simplefilter('error'); del warnings\\n", words[2:]
if "STRUCTJOB_OUTPUT" in os.environ:  # which is read when the library is imported
    program += """import structjob.sinks.marks
marks = structjob.sinks.marks.from_environment(os.environ)
for _ in list(sys.modules.values()):
    if _.__name__.startswith("structjob.") and "MARKS" in vars(_):
        _.MARKS = marks
del marks, structjob
"""
how, *words = words
if how == "-c":
    program += words.pop(0)
elif [how, *words[:1]] == ["-m", "structjob"]:
    program, words = program + "from structjob.cli import main; main()", words[1:]
else:
    path = os.path.abspath(how)
    program += f"sys.path.insert(0, {os.path.dirname(path)!r}); sys.argv[0] = {how!r}; __file__ = {path!r}\\n"
    program += "with open(__file__, 'rb') as _: _ = compile(_.read(), __file__, 'exec')\\nexec(_)"
message = {"program": program, "words": words, "directory": os.getcwd(), "environment": dict(os.environ), "terminal": False}
connection = _socket.socket(_socket.AF_UNIX)
connection.connect(address)
connection.sendmsg([repr(message).encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", (0, 1, 2)))])
said = b""
while said.count(b"\\n") < 2:
    if not (more := connection.recv(64)):
        os._exit(70)  # what it is forked from is gone
    said += more
code = os.waitstatus_to_exitcode(int(said.split()[1]))
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
'''

_MODULES = (
    "alembic.command", "alembic.config", "asyncio", "concurrent.futures.thread", "email.parser", "encodings.ascii", "getpass", "gzip", "msgspec.json", "rich.console", "rich.progress", "rich.table", "rich._unicode_data.unicode17-0-0",
    "sqlalchemy.dialects.mysql", "sqlalchemy.dialects.sqlite", "sqlalchemy.ext.asyncio", "structlog", "tenacity", "zoneinfo",
    "structjob.cli.app", "structjob.cli.cancel", "structjob.cli.doctor", "structjob.cli.errors", "structjob.cli.export", "structjob.cli.import_", "structjob.cli.jobs", "structjob.cli.logs",
    "structjob.cli.migrate", "structjob.cli.prune", "structjob.cli.run.command", "structjob.cli.run.process", "structjob.cli.sessions", "structjob.cli.show", "structjob.cli.stats",
    "structjob.cli.tail", "structjob.cli.verify", "structjob.capture.configure", "structjob.capture.record_ids", "structjob.capture.stdlib", "structjob.checkup.checks", "structjob.checkup.trial",
    "structjob.engine.engine", "structjob.reader", "structjob.schema", "structjob.sinks.file", "structjob.text.lines", "structjob.tracker", "structjob.transfer",
    "structjob.retention.prune", "structjob.store.charset", "structjob.store.connection", "structjob.store.factory", "structjob.store.sqlite", "structjob.store.views", "structjob.queries.jobs",
    "structjob.queries.health", "structjob.queries.logs", "structjob.queries.session_status", "structjob.queries.errors", "structjob.queries.statistics", "structjob.queries.verify",
)  # fmt: skip


class Forked:
    """A program that runs in a fork, as `subprocess.Popen` has one.

    Attributes:
        pid: Its process id. Its parent is the process that was forked.
        stdin: A pipe to it, or the keyboard of its terminal, if it was to have one.
        stdout: A pipe from it, or the screen of its terminal, if it was to have one.
        stderr: A pipe from it, if it was to have one.
        returncode: Its exit code, once it is known; negative where a signal ended it.
    """

    def __init__(self, connection: socket.socket, *pipes: IO[bytes] | None) -> None:
        self._connection = connection
        self._said = connection.makefile("rb")
        self.stdin, self.stdout, self.stderr = pipes
        self.pid = self._number()
        self.returncode: int | None = None

    def _number(self) -> int:
        return int(self._said.readline())

    def poll(self) -> int | None:
        """Return the exit code; ``None`` while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; return the exit code."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(self._number())
            self._said.close()
            self._connection.close()
        return self.returncode

    def communicate(
        self, input: bytes | None = None, timeout: float = 100
    ) -> tuple[bytes | None, bytes | None]:
        """Write *input* and close the pipe; return what it writes until it has ended."""
        got: list[bytes | None] = [None, None]

        def read(number: int, pipe: IO[bytes]) -> None:
            with pipe:
                got[number] = pipe.read()

        readers = [
            threading.Thread(target=read, args=(number, pipe), daemon=True)
            for number, pipe in enumerate((self.stdout, self.stderr))
            if pipe is not None and not pipe.closed
        ]
        for reader in readers:
            reader.start()
        if self.stdin is not None and not self.stdin.closed:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(input or b"")
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"the pipes of process {self.pid}", timeout)
        return got[0], got[1]

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End it where it still runs, and close its pipes."""
        self.kill()
        self.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class _Screen(io.RawIOBase):
    """What a terminal shows: the system has an error where a pipe has its end."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return os.readv(self._terminal, [buffer])
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return 0

    def close(self) -> None:
        if not self.closed:
            os.close(self._terminal)
        super().close()


class Preforked:
    """Runs Python programs in forks of one process; started when it is needed first, and ended with
    this one.

    Args:
        environment: Of the process, and so of all the programs.
        options: The interpreter's.
        modules: Further modules that are imported before.
        ours: Whether the library's modules are among them.
        whole_end: Whether the interpreter also takes its modules apart when a program has ended:
            it does what is registered for the end and flushes in any case. The rest takes more time
            than most programs, because it writes to all the memory of the process that was forked.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *options: str,
        modules: Sequence[str] = (),
        ours: bool = True,
        whole_end: bool = True,
    ) -> None:
        self._environment = environment
        self._options = options
        self._modules = (
            *(name for name in _MODULES if ours or not name.startswith("structjob")),
            *modules,
        )
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
            process = self.start(
                program, words, directory, env, stdin=given, stdout=out, stderr=err
            )
            code = process.wait(100)
            for stream in (out, err):
                stream.seek(0)
            return subprocess.CompletedProcess(["python", *words], code, out.read(), err.read())

    def start(
        self,
        program: str,
        words: Sequence[str],
        directory: Path,
        env: Mapping[str, str] | None = None,
        *,
        stdin: IO[bytes] | int | None = None,
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
    ) -> Forked:
        """Start *program*; its streams are given as to `subprocess.Popen`."""
        pipes: list[IO[bytes] | None] = [None, None, None]
        with contextlib.ExitStack() as opened:

            def stream(number: int, given: IO[bytes] | int | None) -> int:
                if given is None:
                    return number
                if given == subprocess.DEVNULL:
                    ours = os.open(os.devnull, os.O_RDWR)
                elif given == subprocess.PIPE:
                    reading, writing = os.pipe()
                    ours, theirs = (writing, reading) if number else (reading, writing)
                    pipes[number] = os.fdopen(theirs, "rb" if number else "wb")
                elif given == subprocess.STDOUT:
                    return streams[1]
                else:
                    return given if isinstance(given, int) else given.fileno()
                opened.callback(os.close, ours)
                return ours

            streams: list[int] = []
            for number, given in enumerate((stdin, stdout, stderr)):
                streams.append(stream(number, given))
            return self._start(program, words, directory, env, streams, pipes)

    def start_in_a_terminal(
        self,
        program: str,
        words: Sequence[str],
        directory: Path,
        env: Mapping[str, str] | None = None,
    ) -> Forked:
        """Start *program* in a terminal of its own, whose keyboard is its stdin and whose screen
        its stdout.
        """
        ours, theirs = pty.openpty()
        try:
            pipes = (
                os.fdopen(os.dup(ours), "wb"),
                io.BufferedReader(_Screen(ours)),
                None,
            )
            return self._start(program, words, directory, env, [theirs] * 3, pipes, terminal=True)
        finally:
            os.close(theirs)

    def _start(
        self,
        program: str,
        words: Sequence[str],
        directory: Path,
        env: Mapping[str, str] | None,
        streams: Sequence[int],
        pipes: Sequence[IO[bytes] | None],
        *,
        terminal: bool = False,
    ) -> Forked:
        message = {
            "program": program,
            "words": list(words),
            "directory": str(directory),
            "environment": env and dict(env),
            "terminal": terminal,
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.prepare())
        socket.send_fds(connection, [repr(message).encode()], streams)
        return Forked(connection, *pipes)

    def stand_in(self) -> str:
        """Return the path of a command that takes the place of ``python`` where another program
        starts one: it runs ``-c PROGRAM``, ``-m structjob`` or a file (also with ``-W error``) in a
        fork, with its own streams, and ends as that ends.

        The fork is no child of the process that starts the command, and gets no signal that is
        sent to the command.
        """
        address = self.prepare()
        command = Path(address).with_name("python")
        if not command.exists():
            program = command.with_name("stand_in.py")
            program.write_text(_STAND_IN)
            words = shlex.join([sys.executable, "-I", "-S", str(program), address])
            command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            command.chmod(0o700)
        return str(command)

    def prepare(self) -> str:
        """Start the process that is forked, unless it runs; return its address."""
        with self._lock:
            if self._address is None:
                directory = tempfile.mkdtemp(prefix="prefork-")
                address = os.path.join(directory, "socket")
                end = "whole end" if self._whole_end else "short end"
                command = [
                    sys.executable,
                    *self._options,
                    "-c",
                    _SERVER,
                    address,
                    end,
                    *self._modules,
                ]
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
