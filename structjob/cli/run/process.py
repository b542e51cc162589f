"""A child program: its output is copied byte for byte, signals are passed on, and its end and
resource usage are returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from signal import Signals

from structjob.cli.run.foreground import Foreground
from structjob.cli.run.inherited import replace_with_null
from structjob.cli.run.output import Output
from structjob.cli.run.program import Program
from structjob.machine.memory import FIRST_LOOK, LAST_LOOK
from structjob.sinks.marks import MARKS, MarkedOutput, new_mark, to_environment

CHUNK = 64 * 1024
GRACE = 0.2
"""Seconds during which output is still read after the program's end, if processes that it left
behind hold its pipes.
"""

RELEASE = 1.0
"""Seconds after which a stream that the running program closed is closed here, too.

Its reader waits for that.
"""

STUCK = 5.0
"""Seconds after SIGTERM and the program's end in which its output is still copied, if the reader of
ours does not read. The process that sent SIGTERM waits for the end, and sends SIGKILL next.
"""

STOP_GRACE = 3.0
"""Seconds within which a program ends after SIGINT, SIGHUP or SIGQUIT. One that runs for longer has
handled the signal.
"""

TERM_GRACE = 30.0
"""The same for SIGTERM, which has no other meaning. An orderly end may be slow."""

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

# These are not passed on: the program itself causes them, or they cannot be caught.
_NOT_PASSED_ON = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGSEGV, signal.SIGFPE, signal.SIGILL,
    signal.SIGBUS, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip
PASSED_ON = tuple(sorted(signal.valid_signals() - _NOT_PASSED_ON))

_DRAIN = ("/bin/cat", "/usr/bin/cat")
_DRAIN_IN_PYTHON = (
    "import os\nwhile chunk := os.read(0, 65536):\n while chunk: chunk = chunk[os.write(1, chunk):]"
)
_DRAIN_WITHOUT_MARKS = (
    "import os, sys\n"
    "for line in open(0, 'rb'):\n"
    " for mark in sys.argv[1:]: line = line.replace(bytes.fromhex(mark), b'')\n"
    " while line: line = line[os.write(1, line):]"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and which resources it used.

    Args:
        status: Its wait status.
        code: Its exit code; 128 plus the signal's number if a signal ended it, as in shells.
        signal: The signal that ended it.
        asked: The signal that requested its end; ``None`` if there was no such signal, or if the
            program ran for long after it.
        unread: Whether the reader of our output stopped reading.
        left: The streams that are still held open by processes which the program left behind.
        stuck: The streams whose rest was neither recorded nor copied, because the reader of our
            output does not read.
        unrecorded: Why some of its output was not recorded, if so.
        unwritten: For each stream whose target refused a part of it, the reason.
        seconds: How long it ran.
        cpu_seconds: CPU time of the program and of the children that it waited for.
        max_rss_kb: Its peak memory in KB, if known.
    """

    status: int
    code: int
    signal: Signals | None
    asked: Signals | None
    unread: bool
    left: tuple[str, ...]
    stuck: tuple[str, ...]
    unrecorded: str
    unwritten: Mapping[str, str]
    seconds: float
    cpu_seconds: float
    max_rss_kb: int | None


@dataclass(slots=True)
class _Stream:
    """A stream of the program, and the target that it is copied to.

    Attributes:
        done: Done when all of it is copied.
        recorded: Whether it is recorded, which ends with the first fault.
        left: Whether it is still held open by processes which the program left behind.
    """

    name: str
    pipe: int
    target: int
    marked: MarkedOutput
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    recorded: bool = True
    left: bool = False


class Child:
    """A running program.

    Args:
        program: The forked program, which has not been run yet.
        environment: Variables that are added to its environment.
        output: Records the output.
        stdout: The descriptor that its stdout is copied to.

    Attributes:
        marked: For ``stdout`` and ``stderr``, the lines that the program has recorded itself.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(
        self,
        program: Program,
        environment: Mapping[str, str],
        output: Output,
        *,
        stdout: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._program = program
        self.pid = program.pid
        self._foreground = Foreground()
        self._passed_on: dict[int, float] = {}
        self._requested = False
        self._ended: asyncio.Future[tuple[int, object, float]] = self._loop.create_future()
        self._late: Callable[[], None] | None = None
        self._unread = False
        self._fault: BaseException | None = None
        self._unwritten: dict[str, str] = {}
        self._output = output
        self._handled: list[int] = []
        self._stop, self._stopped = os.pipe()
        mark = new_mark()
        self._streams = [
            _Stream("stdout", program.stdout, stdout, MarkedOutput(mark)),
            _Stream("stderr", program.stderr, 2, MarkedOutput(mark)),
        ]
        self.marked = {stream.name: stream.marked for stream in self._streams}
        marks = to_environment(mark, (program.stdout, program.stderr))
        try:
            # Start the threads before the program runs: if they cannot be started, the program can
            # still run without us.
            for stream in self._streams:
                threading.Thread(
                    target=self._relay, args=(stream,), name=f"structjob-{stream.name}", daemon=True
                ).start()
            handlers: dict[int, Callable[[], None]] = {
                **{number: partial(self._pass_on, number) for number in PASSED_ON},
                signal.SIGCHLD: self._changed,
            }
            for number, handler in handlers.items():
                with contextlib.suppress(RuntimeError, OSError):  # those of the C library
                    self._loop.add_signal_handler(number, handler)
                    self._handled.append(number)
            # Signals that were blocked, or that came before the program ran, are passed on now.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled)
            self._began = time.monotonic()
            program.start({**environment, **marks})
        except BaseException:
            self._release()
            raise
        program.inherited.let_go()
        self._loop.call_later(FIRST_LOOK, self._look, FIRST_LOOK)
        for stream in self._streams:
            stream.done.add_done_callback(lambda _, stream=stream: self._finished(stream))  # type: ignore[misc]
        self._changed()

    async def wait(self) -> Ended:
        """Return how the program ended, after all of its output was copied."""
        # a caller may be cancelled, and wait again
        status, usage, seconds = await asyncio.shield(self._ended)
        reading = asyncio.gather(*(stream.done for stream in self._streams))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await asyncio.shield(reading)
        os.close(self._stopped)  # the readers still read what is in the pipes now
        terminated = self._requested or signal.SIGTERM in self._passed_on
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STUCK if terminated else None):
                await asyncio.shield(reading)
        if not self._stuck():  # its thread uses the descriptors until this process ends
            os.close(self._stop)
            for stream in self._streams:
                if stream.left:
                    _drain(stream.pipe, stream.target, stream.marked.marks)
                os.close(stream.pipe)
        ended = self._outcome(status, usage, seconds)
        self._foreground.close()
        return ended

    def terminate(self) -> None:
        """Ask the program to end, as SIGTERM to this process does."""
        self._requested = True
        self._pass_on(signal.SIGTERM)

    def on_late_signal(self, call: Callable[[], None]) -> None:
        """Call *call* for each signal that requests the end and comes after the program has
        ended.
        """
        self._late = call

    def _stuck(self) -> tuple[str, ...]:
        return tuple(stream.name for stream in self._streams if not stream.done.done())

    def _look(self, pause: float) -> None:
        """Read the peak memory of the program so far, again and again."""
        if not self._ended.done():
            self._program.peak.look(self.pid)
            self._loop.call_later(pause, self._look, min(2 * pause, LAST_LOOK))

    def _outcome(self, status: int, usage: object, seconds: float) -> Ended:
        code = os.waitstatus_to_exitcode(status)
        died_of = _named(-code)
        code = 128 - code if code < 0 else code
        asked = (
            signal.SIGTERM
            if self._requested
            else asked_to_end(self._passed_on, code, self._began + seconds)
        )
        if (
            asked is None
            and code - 128 in (signal.SIGINT, signal.SIGQUIT)
            and self._foreground.present
        ):
            asked = Signals(code - 128)  # typed at the terminal while the program had it
        return Ended(
            status=status,
            code=code,
            signal=died_of,
            asked=asked,
            unread=self._unread,
            left=()
            if self._unread
            else tuple(stream.name for stream in self._streams if stream.left),
            stuck=self._stuck(),
            unrecorded=f"{type(self._fault).__name__}: {self._fault}"
            if self._fault is not None
            else "",
            unwritten=self._unwritten,
            seconds=seconds,
            cpu_seconds=getattr(usage, "ru_utime", 0.0) + getattr(usage, "ru_stime", 0.0),
            max_rss_kb=self._program.peak.of(usage),
        )

    def _release(self) -> None:
        for number in self._handled:
            self._loop.remove_signal_handler(number)
        self._handled.clear()
        self._foreground.close()

    # -- signals
    # --------------------------------------------------------------------------

    def _pass_on(self, number: int) -> None:
        if self._ended.done():
            if number in ENDING and self._late is not None:
                self._late()
            return
        self._passed_on[number] = time.monotonic()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _changed(self) -> None:
        """Handle that the program ended, stopped or continued.

        Also reap other children: the first process of a container inherits them.
        """
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid != self.pid:
                continue
            if os.WIFSTOPPED(status):
                self._paused(os.WSTOPSIG(status))
            elif not self._ended.done():
                self._ended.set_result((status, usage, time.monotonic() - self._began))

    def _paused(self, number: int) -> None:
        """Handle that the program stopped: it wants the terminal, or a signal stopped it, probably
        Ctrl-Z.
        """
        wants_terminal = number in (signal.SIGTTIN, signal.SIGTTOU)
        if wants_terminal and self._foreground.lend(self.pid):
            os.killpg(self.pid, signal.SIGCONT)
        elif self._foreground.present and (wants_terminal or number == signal.SIGTSTP):
            # The shell must see this process stopped to show its prompt; we continue here after
            # `fg`.
            lent = self._foreground.lent
            self._foreground.take_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            if lent:
                self._foreground.lend(self.pid)
            os.killpg(self.pid, signal.SIGCONT)

    # -- output
    # --------------------------------------------------------------------------

    def _finished(self, stream: _Stream) -> None:
        """Handle that the program has closed *stream*, or that its output has no reader any
        more.
        """
        if all(other.done.done() for other in self._streams if other.target == stream.target):
            self._loop.call_later(RELEASE, self._close_stdout, stream.target)

    def _close_stdout(self, target: int) -> None:
        if not self._ended.done() and not os.isatty(target):
            replace_with_null(target)

    def _relay(self, stream: _Stream) -> None:
        """Copy *stream* to its target, in its own thread.

        The thread may wait for the reader of our output without blocking the loop.
        """
        try:
            poll = select.poll()
            poll.register(stream.pipe, select.POLLIN)
            poll.register(self._stop, 0)  # its hang-up means: read only what is there
            if _is_pipe(stream.target):
                poll.register(stream.target, 0)  # its error means: there is no reader
            while True:
                ready = dict(poll.poll())
                if ready.get(stream.target, 0) & select.POLLERR:
                    self._unread = True
                    break
                chunk = b""
                if ready.get(stream.pipe, 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    chunk = os.read(stream.pipe, CHUNK)
                else:
                    stream.left = True  # the program has ended, but its pipe is still open
                shown, plain = stream.marked.split(chunk)
                # Record first, then show: the log has everything that was seen of a program that
                # died.
                if plain:
                    self._hear(stream, plain)
                if shown and not self._show(stream, self._marked(stream, shown)):
                    # Close the program's pipe, so that it sees what it would see without us.
                    self._unread = True
                    break
                if not chunk:
                    break
            self._hear(stream, b"")
        except BaseException as exc:  # noqa: BLE001 -- reported where the program is waited for
            self._fault = exc
        finally:
            if self._unread:
                # close the pipe, but keep its number in use
                os.dup2(self._stop, stream.pipe, inheritable=False)
            with contextlib.suppress(RuntimeError):  # the loop is closed, so no one waits
                self._loop.call_soon_threadsafe(_complete, stream.done)

    def _marked(self, stream: _Stream, chunk: bytes) -> bytes:
        """Return *chunk* with marks, for another ``structjob run`` that reads our output."""
        if MARKS is None or self._fault is not None:
            return chunk
        with self._output.showing(stream.name):
            return MARKS.on(chunk, stream.target)

    def _show(self, stream: _Stream, chunk: bytes) -> bool:
        """Copy *chunk* to the target of *stream*; return whether it still has a reader."""
        try:
            _write(stream.target, chunk)
        except OSError as exc:
            if _has_no_reader(stream.target, exc):
                return False
            # The disk is full, for example. The program goes on and its output is still recorded;
            # the command ends as failed.
            self._unwritten.setdefault(stream.name, exc.strerror or str(exc))
        return True

    def _hear(self, stream: _Stream, chunk: bytes) -> None:
        """Record *chunk*. If that fails, stop recording, and keep copying the output."""
        if stream.recorded:
            try:
                self._output.hear(stream.name, chunk)
            except Exception as exc:  # noqa: BLE001 -- reported where the program is waited for
                self._fault, stream.recorded = exc, False


def asked_to_end(passed_on: Mapping[int, float], code: int, ended: float) -> Signals | None:
    """Return the signal that requested the program's end, if the program ended because of it.

    It did if that signal ended it, or if it exited with 128 plus the signal's number, or with any
    other code soon after: within `TERM_GRACE` seconds of SIGTERM, within `STOP_GRACE` seconds of
    SIGINT, SIGHUP or SIGQUIT. A program that runs for longer has handled the signal in another way,
    and its later end is independent of the signal.

    Args:
        passed_on: When each signal was last passed on to it, by `time.monotonic`.
        code: Its exit code; 128 plus the number of the signal that ended it.
        ended: When it ended, by `time.monotonic`.
    """
    if code - 128 in passed_on:
        return _named(code - 128)
    for number, when in sorted(passed_on.items(), key=lambda item: -item[1]):
        grace = TERM_GRACE if number == signal.SIGTERM else STOP_GRACE
        if number in ENDING and ended - when <= grace:
            return Signals(number)
    return None


def _named(number: int) -> Signals | None:
    return Signals(number) if number in {*Signals} else None


def _drain(pipe: int, target: int, marks: Sequence[bytes]) -> None:
    """Start a process that copies from *pipe* to *target* until the last writer closes the pipe.

    Otherwise a process that the program left behind would die of SIGPIPE. The copier holds only
    these two descriptors. It ends with the last writer, or when its output has no reader any more.

    Args:
        pipe: The descriptor to read.
        target: The descriptor to write to.
        marks: What to remove from each line; empty if the program has used no marks.
    """
    # No Popen object is kept, because the copier is never waited for.
    python = [sys.executable, "-I", "-S", "-c"]
    if marks:
        copier = [*python, _DRAIN_WITHOUT_MARKS, *(mark.hex() for mark in marks)]
    else:
        copier = next(
            ([path] for path in _DRAIN if os.access(path, os.X_OK)), [*python, _DRAIN_IN_PYTHON]
        )
    with contextlib.suppress(OSError):
        started = subprocess.Popen(  # noqa: S603 -- the command is constant
            copier,
            stdin=pipe,
            stdout=target,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
        started.returncode = 0


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _has_no_reader(target: int, exc: OSError) -> bool:
    """Return whether *exc*, raised by a write to *target*, means that no one reads there."""
    return exc.errno == errno.EPIPE or (exc.errno == errno.EIO and os.isatty(target))


def _complete(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _write(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:
            # Another process that shares our output has made it non-blocking.
            poll = select.poll()
            poll.register(target, select.POLLOUT)
            poll.poll()
