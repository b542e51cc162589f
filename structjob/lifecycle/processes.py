"""Run a program within a job: what it prints becomes events, and it never outlives its job unless
it wants to.

Not on asyncio's subprocesses: their ``wait`` does not return while a process left behind holds a
pipe, ``kill`` misses grandchildren, and on Python 3.11 a thread tells of the exit, which starves
when the loop is saturated. Here a descriptor of the process tells (Linux).
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from structjob.capture.emit import emit
from structjob.context.propagation import environment
from structjob.context.scope import Scope, current_scope
from structjob.exceptions import InvalidArgument, StructjobError
from structjob.levels import level_name
from structjob.lifecycle.handle import redacted
from structjob.text.lines import LineSplitter
from structjob.text.programs import operation_of

if TYPE_CHECKING:
    from structjob.lifecycle.jobs import Job

TAIL = 100
"""Lines of the output that a result keeps."""

LINGER = 0.2
"""Seconds that the output may go on after the exit, in the hands of processes that it left."""

_CHUNK = 64 * 1024
_SLICE = 512
"""Bytes that are recorded between two looks at the clock: a hundred short lines."""
_TURN = 0.001
"""Seconds that recording takes of one turn of the loop."""
_LOOK = 0.01
_PIPE = 1024 * 1024
"""Bytes that a pipe may hold when its program exits; what comes later is of processes it left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResult:
    """How a program ended.

    Attributes:
        returncode: Its exit code; ``-N`` if signal N ended it.
        signal: Name of the signal that ended it, ``SIGKILL`` say.
        seconds: How long it ran.
        cpu_seconds: CPU time of it and of what it waited for, in seconds.
        max_rss_kb: Memory at its peak in kilobytes; ``None`` where the system does not tell.
        timed_out: Whether it was ended because its time was up.
        left: Whether processes that it left behind hold its output. They go on, and what they
            print later is not recorded.
        lines: Lines that were recorded.
        tail: The last 100 lines of both streams, without secrets.
    """

    returncode: int
    signal: str | None
    seconds: float
    cpu_seconds: float
    max_rss_kb: int | None
    timed_out: bool
    left: bool
    lines: int
    tail: tuple[str, ...]


class CommandFailed(StructjobError):
    """A program that `Job.run_process` ran ended with another exit code than 0.

    Attributes:
        result: How it ended, a `ProcessResult`; *returncode*, *signal* and *tail* are those of it.
    """

    def __init__(self, name: str, result: ProcessResult) -> None:
        super().__init__(f"{name} {self._how(result)}{_last_line(result.tail)}")
        self.result = result

    def _how(self, result: ProcessResult) -> str:
        if result.signal is not None:
            return f"was ended by {result.signal}"
        return f"ended with exit code {result.returncode}"

    @property
    def returncode(self) -> int:
        """Its exit code; ``-N`` if signal N ended it."""
        return self.result.returncode

    @property
    def signal(self) -> str | None:
        """Name of the signal that ended it."""
        return self.result.signal

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines that it printed."""
        return self.result.tail


class CommandTimeout(CommandFailed, TimeoutError):
    """A program that `Job.run_process` ran was ended because its time was up."""

    def __init__(self, name: str, result: ProcessResult, seconds: float | None) -> None:
        self._seconds = seconds
        super().__init__(name, result)

    def _how(self, result: ProcessResult) -> str:
        return f"took longer than {self._seconds:g} s and was ended"


def _last_line(tail: tuple[str, ...]) -> str:
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    return f": {last[:200]}" if last else ""


class ProcessKeywords(TypedDict, total=False):
    """What `Job.run_process` takes besides the command."""

    timeout: float | None
    check: bool
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    input: str | bytes | None
    echo: bool
    grace: float
    step: bool | str
    levels: Mapping[str, str]


async def run_process(
    job: Job,
    command: Sequence[str | os.PathLike[str]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 -- the program is ended gently, and the result tells
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
    given = input.encode() if isinstance(input, str) else input
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
    words = [os.fspath(word) for word in command]
    if not words or not all(isinstance(word, str) for word in words):
        raise InvalidArgument(f"command must be a program and its arguments, not {command!r}")
    return words


def shown_command(words: Sequence[str]) -> str:
    """Return a command line as one text, without the secrets in it."""
    import shlex

    from structjob.values.redaction import Redactor

    return shlex.join(Redactor().command(words))


def _about(result: ProcessResult) -> dict[str, Any]:
    """Return what the last event of a step tells of its program."""
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
    """Records what a program prints, line by line.

    Args:
        scope: Where the lines belong.
        levels: The level for ``stdout`` and for ``stderr``.
        echo: Whether the lines go on to this program's own streams, too.
    """

    def __init__(self, scope: Scope | None, levels: Mapping[str, str], *, echo: bool) -> None:
        self._scope = scope
        self._levels = levels
        self._echo = echo
        self._tail: deque[str] = deque(maxlen=TAIL)
        self.lines = 0

    def record(self, stream: str, line: str, attrs: dict[str, int]) -> None:
        """Record one line, or a part of a long one."""
        self.lines += 1
        self._tail.append(line)
        emit(self._scope, self._levels[stream], line, {**attrs}, kind="output", stream=stream)
        if self._echo:
            with contextlib.suppress(Exception):  # it is closed, or full
                print(line, file=getattr(sys, stream), flush=True)

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, without secrets."""
        return tuple(redacted(line) or "" for line in self._tail)


class _Stream:
    """The reading end of a pipe from the program.

    Attributes:
        closed: Done when nobody writes to it any more.
        read: Bytes that came.
    """

    def __init__(self, descriptor: int, record: Callable[[str, dict[str, int]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._splitter = LineSplitter(record)
        self._chunk = b""
        self._at = 0
        self._finished = False
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.read = 0
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def has_more(self) -> bool:
        """Return whether something that was printed is not recorded yet."""
        if self._chunk:
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
        # A chunk of short lines takes a hundred milliseconds: nothing more is read meanwhile.
        self._loop.remove_reader(self._descriptor)
        self._chunk, self._at = chunk, 0
        self._record()

    def _record(self) -> None:
        until = time.perf_counter() + _TURN
        while self._at < len(self._chunk) and not self._finished:
            self._splitter.feed(self._chunk[self._at : self._at + _SLICE])
            self._at += _SLICE
            if time.perf_counter() >= until:
                self._loop.call_soon(self._record)
                return
        self._chunk = b""
        self._loop.add_reader(self._descriptor, self._readable)

    def finish(self) -> None:
        """Record what has no newline behind it. A stream that is still open is read on, so that
        those who write to it are not ended by it, and forgotten.
        """
        self._finished = True
        self._splitter.end()


class Process:
    """A running program, in a process group of its own.

    Args:
        words: The program and its arguments.
        output: Takes what it prints.
        cwd: Its working directory.
        environ: Its environment.
        input: What it reads on stdin, which is empty by default.

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
        self._process = subprocess.Popen(  # noqa: S603 -- what the caller asked for
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

    # -- its exit
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
        if not self._exited.done():
            self._exited.set_result(None)

    def _reap(self, options: int) -> None:
        """Take its status and what it used. Until then its group's id cannot be another's."""
        if self._reaped is not None:
            return
        try:
            pid, status, usage = os.wait4(self._process.pid, options)
        except ChildProcessError:  # the program ignores SIGCHLD, or has waited for all children
            pid, status, usage = self._process.pid, 255 << 8, None
        if pid:
            self._reaped = status, usage
            self._process.returncode = os.waitstatus_to_exitcode(status)

    # -- its input
    # --------------------------------------------------------------------------

    def _feed(self, given: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 -- it has one
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
        except OSError:  # it reads no more
            self._input = None
        if not self._input:
            self._close_input()

    def _close_input(self) -> None:
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            self._loop.remove_writer(pipe.fileno())
            pipe.close()

    # -- its end
    # --------------------------------------------------------------------------

    async def wait(self, seconds: float | None, grace: float) -> ProcessResult:
        """Return how it ended; after *seconds*, or when this is cancelled, its group is ended."""
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
            max_rss_kb=_kilobytes(usage),
            timed_out=timed_out,
            left=left,
            lines=self._output.lines,
            tail=self._output.tail(),
        )

    async def _stop(self, grace: float) -> None:
        """Ask its group to end, and end it after *grace* seconds."""
        deadline = time.monotonic() + grace
        self._signal(signal.SIGTERM)
        open_streams = [stream.closed for stream in self._streams]
        for waited in ({self._exited}, set(open_streams)):
            left = deadline - time.monotonic()
            if left > 0:
                await asyncio.wait(waited, timeout=left, return_when=asyncio.ALL_COMPLETED)
        # Its children may have no part in its output; its unreaped process keeps the group's id.
        self._signal(signal.SIGKILL)
        await asyncio.wait({self._exited})

    async def _read_rest(self) -> None:
        """Wait until all that it printed is recorded."""
        before = [stream.read for stream in self._streams]
        pending = {stream.closed for stream in self._streams}
        while pending:
            _, pending = await asyncio.wait(pending, timeout=LINGER)
            # Not by the time alone: a loop that was busy all the while has read nothing either.
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
        while self._reaped is None:  # the exit is told a moment before the status is there
            await asyncio.sleep(_LOOK)
            self._reap(os.WNOHANG)

    def _release(self) -> bool:
        """Forget its streams; return whether other processes hold them."""
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


def _kilobytes(usage: Any) -> int | None:
    if usage is None:
        return None
    return int(usage.ru_maxrss // 1024 if sys.platform == "darwin" else usage.ru_maxrss)
