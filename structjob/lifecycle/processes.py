"""Run a program within a job: its output becomes events, and it is ended together with its job.

This does not use asyncio's subprocesses. Their ``wait`` does not return while a process left behind
holds a pipe, and ``kill`` misses grandchildren. On Python 3.11 a thread reports the exit, and it
starves when the loop is saturated. Here a descriptor of the process reports the exit (Linux).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypedDict

from structjob.capture.emit import emit_lines, showing, without_secrets
from structjob.capture.setup import SETUP
from structjob.context.propagation import environment
from structjob.context.scope import Binding, Scope, current_scope
from structjob.diagnostics import suppress_faults
from structjob.exceptions import InvalidArgument
from structjob.levels import level_name
from structjob.lifecycle.arguments import redacted
from structjob.lifecycle.process_result import CommandFailed, CommandTimeout, ProcessResult
from structjob.lifecycle.steps import StepHandle
from structjob.machine.memory import FIRST_LOOK, LAST_LOOK, PeakMemory
from structjob.sinks.marks import MARKS
from structjob.text.lines import LineSplitter, Record
from structjob.text.programs import operation_of

TAIL = 100
"""Number of lines of output that a result keeps."""

LINGER = 0.2
"""Seconds to wait for further output after the exit, from processes that the program left
behind.
"""

_CHUNK = 64 * 1024
_TOGETHER = 200
"""Maximum number of lines that are recorded together."""
_TURN = 0.0005
"""Maximum seconds that recording takes of one iteration of the loop."""
_LOOK = 0.01
_PIPE = 1024 * 1024
"""Maximum bytes in a pipe when its program exits. Later data comes from processes that it left
behind.
"""


class ProcessKeywords(TypedDict, total=False):
    """The options of `Job.run_process`, in addition to the command."""

    timeout: float | None
    check: bool
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    input: str | bytes | None
    echo: bool
    grace: float
    step: bool | str
    levels: Mapping[str, str]


class RunsPrograms(Protocol):
    """A job, as far as a program in it needs it."""

    def as_current(self) -> Binding[Any]:
        """Make the job current within the ``with`` block."""

    def step(self, name: str, *, metadata: Mapping[str, Any] | None = None) -> StepHandle:
        """Return a new step."""


async def run_process(
    job: RunsPrograms,
    command: Sequence[str | os.PathLike[str]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 -- the program is ended gently, and the result reports it
    check: bool = True,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,
    echo: bool = False,
    grace: float = 5.0,
    step: bool | str = True,
    levels: Mapping[str, str] | None = None,
) -> ProcessResult:
    """Run *command*; see `Job.run_process`."""
    words = _words(command)
    for name, seconds in (("timeout", timeout), ("grace", grace)):
        if seconds is not None and (not isinstance(seconds, (int, float)) or not seconds >= 0):
            raise InvalidArgument(f"{name} must be seconds of at least 0, not {seconds!r}")
    chosen = {"stdout": "info", "stderr": "info", **(levels or {})}
    if unknown := [name for name in chosen if name not in ("stdout", "stderr")]:
        raise InvalidArgument(f"levels are of 'stdout' and 'stderr', not of {unknown[0]!r}")
    chosen = {name: level_name(level) for name, level in chosen.items()}
    _check_environment(env)
    given = input.encode() if isinstance(input, str) else input
    if given is not None and not isinstance(given, bytes):
        raise InvalidArgument(
            f"input must be text or bytes, not {type(given).__name__}: read a file first"
        )
    name = step if isinstance(step, str) else operation_of(words)

    async def run() -> ProcessResult:
        scope = current_scope()
        environ = environment(env)
        environ.setdefault("PYTHONUNBUFFERED", "1")
        output = Output(scope, chosen, echo=echo)
        process = Process(words, output, cwd=cwd, environ=environ, input=given)
        result = await process.wait(timeout, grace)
        if result.timed_out:
            raise CommandTimeout(name, result, timeout)
        if check and result.returncode:
            raise CommandFailed(name, result)
        return result

    if step is False:
        with job.as_current():
            return await run()
    tracked = job.step(name[:200], metadata={"command": shown_command(words)})
    async with tracked:
        try:
            result = await run()
        except CommandFailed as exc:
            await tracked.end(error=exc, **_about(exc.result))
            raise
        await tracked.end(**_about(result))
        return result


def _words(command: Any) -> list[str]:
    if isinstance(command, (str, bytes)):
        raise InvalidArgument(
            "command must be a list of words, not one text: ['make', '-j4'], or for a shell "
            "['sh', '-c', text]"
        )
    words = list(command)
    if not words:
        raise InvalidArgument(f"command must be a program and its arguments, not {command!r}")
    for number, word in enumerate(words):
        path = os.fspath(word) if isinstance(word, os.PathLike) else word
        if not isinstance(path, str):
            raise InvalidArgument(
                f"command[{number}] must be text or a path, not {type(word).__name__}: {word!r}"
            )
        words[number] = path
    return words


def _check_environment(env: Mapping[str, str] | None) -> None:
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgument(
                f"env must be texts by name, not {type(value).__name__} for {name!r}: leave out a "
                "variable that is not set, and write str(…) for others"
            )


def shown_command(words: Sequence[str]) -> str:
    """Return a command line as one text, without secrets."""
    import shlex

    redactor = SETUP.redactor
    return shlex.join(words if redactor is None else redactor.command(words))


def _about(result: ProcessResult) -> dict[str, Any]:
    """Return the attributes of a step's last event that describe its program."""
    found = {
        "returncode": result.returncode,
        "signal": result.signal,
        "lines": result.lines,
        "cpu_seconds": result.cpu_seconds,
        "max_rss_kb": result.max_rss_kb,
        "timed_out": result.timed_out or None,
        "left": result.left or None,
    }
    return {name: value for name, value in found.items() if value is not None}


class Output:
    """Records the output of a program, line by line.

    Args:
        scope: The scope of the lines.
        levels: The level for ``stdout`` and for ``stderr``.
        echo: Whether to write the lines to this program's own streams, too.
    """

    def __init__(self, scope: Scope | None, levels: Mapping[str, str], *, echo: bool) -> None:
        self._scope = scope
        self._levels = levels
        self._echo = echo
        self._tail: deque[str] = deque(maxlen=TAIL)
        self.lines = 0

    def record(self, stream: str, lines: list[str], attrs: dict[str, int]) -> None:
        """Record lines, or a part of a long line."""
        self.lines += len(lines)
        self._tail.extend(lines)
        emit_lines(self._scope, self._levels[stream], lines, attrs, stream=stream)
        if self._echo:
            level = self._levels[stream]
            # the stream may be closed or full
            with suppress_faults(), showing(self._scope, level):
                text, target = "\n".join(lines) + "\n", getattr(sys, stream)
                target.write(text if MARKS is None else MARKS.on_text(text, target))
                target.flush()

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, without secrets."""
        return tuple(redacted(line) or "" for line in self._tail)


class _Stream:
    """The reading end of a pipe from the program.

    Attributes:
        closed: Done when no process can write to the pipe any more.
        read: Number of bytes received.
    """

    def __init__(self, descriptor: int, record: Record) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._record_lines = record
        self._splitter = LineSplitter(self._split, without_secrets)
        self._waiting: deque[tuple[list[str], dict[str, int]]] = deque()
        self._paused = False
        self._finished = False
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.read = 0
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def has_more(self) -> bool:
        """Return whether some output is not recorded yet."""
        if self._waiting:
            return True
        if self.closed.done():
            return False
        asked = select.poll()
        asked.register(self._descriptor, select.POLLIN)
        return any(event & select.POLLIN for _, event in asked.poll(0))

    def _readable(self) -> None:
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            if not self.closed.done():
                self.closed.set_result(None)
            return
        self.read += len(chunk)
        if self._finished:
            return
        self._splitter.feed(chunk)
        self._record()

    def _split(self, lines: list[str], attrs: dict[str, int]) -> None:
        for at in range(0, len(lines), _TOGETHER):
            self._waiting.append((lines[at : at + _TOGETHER], attrs))

    def _record(self) -> None:
        """Record the lines that wait, for a bounded time. Until all are recorded, read nothing."""
        until = time.perf_counter() + _TURN
        while self._waiting and not self._finished:
            self._record_lines(*self._waiting.popleft())
            if self._waiting and time.perf_counter() >= until:
                if not self._paused:
                    self._paused = True
                    self._loop.remove_reader(self._descriptor)
                self._loop.call_soon(self._record)
                return
        if self._paused:
            self._paused = False
            self._loop.add_reader(self._descriptor, self._readable)

    def finish(self) -> None:
        """Record the rest of a line without a newline, and stop recording.

        If the stream is still open, its data is read and discarded, so that its writers are not
        ended.
        """
        self._finished = True
        self._waiting.clear()
        self._splitter.end()
        for lines, attrs in self._waiting:
            self._record_lines(lines, attrs)
        self._waiting.clear()


class Process:
    """A running program, in its own process group.

    Args:
        words: The program and its arguments.
        output: Records the output.
        cwd: The working directory.
        environ: The environment.
        input: The data for stdin, which is empty by default.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(
        self,
        words: Sequence[str],
        output: Output,
        *,
        cwd: str | os.PathLike[str] | None,
        environ: Mapping[str, str],
        input: bytes | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._output = output
        self._began = time.monotonic()
        self._peak = PeakMemory()
        self._process = subprocess.Popen(  # noqa: S603 -- the caller requested it
            words,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environ,
            bufsize=0,
            process_group=0,
        )
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._reaped: tuple[int, Any] | None = None
        self._seconds = 0.0
        self._streams: list[_Stream] = []
        for name in ("stdout", "stderr"):
            pipe = getattr(self._process, name)
            self._streams.append(_Stream(os.dup(pipe.fileno()), partial(output.record, name)))
            pipe.close()
        self._input: memoryview | None = None
        if input is not None:
            self._feed(input)
        self._watch()
        self._looking = self._loop.call_later(FIRST_LOOK, self._look, FIRST_LOOK)

    def _look(self, pause: float) -> None:
        """Read the peak memory of the program so far, again and again."""
        if not self._exited.done():
            self._peak.look(self._process.pid)
            self._looking = self._loop.call_later(pause, self._look, min(2 * pause, LAST_LOOK))

    # -- exit of the program
    # --------------------------------------------------------------------------

    def _watch(self) -> None:
        pid = self._process.pid
        try:
            descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not Linux, or forbidden in a container
            threading.Thread(target=self._wait_in_thread, daemon=True).start()
            return

        def ended() -> None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
            self._exit()

        self._loop.add_reader(descriptor, ended)

    def _wait_in_thread(self) -> None:
        self._reap(0)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._exit)

    def _exit(self) -> None:
        self._seconds = time.monotonic() - self._began
        self._looking.cancel()
        if not self._exited.done():
            self._exited.set_result(None)

    def _reap(self, options: int) -> None:
        """Read the exit status and the resources used. Before that, no other process group can get
        its id.
        """
        if self._reaped is not None:
            return
        try:
            pid, status, usage = os.wait4(self._process.pid, options)
        except ChildProcessError:  # the program ignores SIGCHLD, or has waited for all children
            pid, status, usage = self._process.pid, 255 << 8, None
        if pid:
            self._reaped = status, usage
            self._process.returncode = os.waitstatus_to_exitcode(status)

    # -- input of the program
    # --------------------------------------------------------------------------

    def _feed(self, given: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 -- it was created with a pipe
        descriptor = self._process.stdin.fileno()
        os.set_blocking(descriptor, False)
        self._input = memoryview(given)
        self._loop.add_writer(descriptor, self._writable)

    def _writable(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 -- see above
        try:
            if self._input:
                self._input = self._input[os.write(pipe.fileno(), self._input[:_CHUNK]) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the program no longer reads
            self._input = None
        if not self._input:
            self._close_input()

    def _close_input(self) -> None:
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            self._loop.remove_writer(pipe.fileno())
            pipe.close()

    # -- waiting and ending
    # --------------------------------------------------------------------------

    async def wait(self, seconds: float | None, grace: float) -> ProcessResult:
        """Wait for the program and return its outcome.

        Its process group is ended after *seconds*, or if this is cancelled.
        """
        timed_out = False
        try:
            done, _ = await asyncio.wait({self._exited}, timeout=seconds)
            if not done:
                timed_out = True
                await self._stop(grace)
            await self._read_rest()
        except BaseException:  # it is cancelled, or the interpreter ends
            try:
                await self._stop(grace)
                await self._read_rest()
            finally:
                self._signal(signal.SIGKILL)
                await self._finished()
            raise
        finally:
            self._close_input()
            left = self._release()
        await self._finished()
        assert self._reaped is not None  # noqa: S101 -- it has exited
        status, usage = self._reaped
        code = os.waitstatus_to_exitcode(status)
        return ProcessResult(
            returncode=code,
            signal=_signal_name(-code) if code < 0 else None,
            seconds=round(self._seconds, 6),
            cpu_seconds=0.0 if usage is None else round(usage.ru_utime + usage.ru_stime, 6),
            max_rss_kb=self._peak.of(usage),
            timed_out=timed_out,
            left=left,
            lines=self._output.lines,
            tail=self._output.tail(),
        )

    async def _stop(self, grace: float) -> None:
        """Send SIGTERM to the process group, and SIGKILL after *grace* seconds."""
        deadline = time.monotonic() + grace
        self._signal(signal.SIGTERM)
        open_streams = [stream.closed for stream in self._streams]
        for waited in ({self._exited}, set(open_streams)):
            left = deadline - time.monotonic()
            if left > 0:
                await asyncio.wait(waited, timeout=left, return_when=asyncio.ALL_COMPLETED)
        # Its children may not hold its output. Its own process, which is not reaped yet, keeps the
        # group's id.
        self._signal(signal.SIGKILL)
        await asyncio.wait({self._exited})

    async def _read_rest(self) -> None:
        """Wait until all of the output is recorded."""
        before = [stream.read for stream in self._streams]
        pending = {stream.closed for stream in self._streams}
        while pending:
            _, pending = await asyncio.wait(pending, timeout=LINGER)
            # Do not rely on the time alone: a loop that was busy all the time has not read anything
            # either.
            more = any(
                stream.has_more() and stream.read - first < _PIPE
                for stream, first in zip(self._streams, before, strict=True)
            )
            if not more:
                return

    async def _finished(self) -> None:
        if not self._exited.done():
            await asyncio.wait({self._exited})
        self._reap(os.WNOHANG)
        while self._reaped is None:  # the exit is reported slightly before the status is available
            await asyncio.sleep(_LOOK)
            self._reap(os.WNOHANG)

    def _release(self) -> bool:
        """Stop recording its streams, and return whether other processes still hold them."""
        for stream in self._streams:
            stream.finish()
        return not all(stream.closed.done() for stream in self._streams)

    def _signal(self, number: int) -> None:
        if self._reaped is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
