"""Record the output of a block of code as events of its job: `capture_output`.

``sys.stdout`` and ``sys.stderr`` belong to the process, but jobs run concurrently. So a proxy
replaces each stream while any block captures, and a context variable says which block an output
belongs to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import threading
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any, Self

from structjob.capture.emit import emit_lines, showing, without_secrets
from structjob.capture.uncaught import is_shown
from structjob.context.scope import Scope, current_scope
from structjob.diagnostics import fault_types, faults, suppress_faults
from structjob.exceptions import InvalidArgument, InvalidState
from structjob.lifecycle.both import WithOrAsyncWith
from structjob.machine.frames import frame_at
from structjob.machine.loops import running_loop
from structjob.process import on_reset
from structjob.sinks.console import stand_ins
from structjob.sinks.marks import MARKS
from structjob.text.lines import LineSplitter

_capturing: ContextVar[_Capture | None] = ContextVar("structjob_output", default=None)
_lock = threading.Lock()
_blocks = 0
"""The number of blocks that capture now."""
_descriptors: list[_Descriptor] = []

_LOOK = 0.25
"""Seconds between two checks for output written to a descriptor."""
_CHUNK = 1024 * 1024
_LEVEL = "info"
"""The level of captured lines."""
_NUMBERS = {"stdout": 1, "stderr": 2}
_LOGGING = ("structlog._output", "logging")
"""Modules whose output is already recorded as events."""


class CapturedOutput(WithOrAsyncWith["CapturedOutput"]):
    """A block whose output is recorded, created by `capture_output`, for ``with`` and ``async
    with``.

    Args:
        scope: The scope of lines printed without a current job. With ``None`` they are system
            events.
        stdout: Whether to capture stdout.
        stderr: Whether to capture stderr.
        echo: Whether to print the output, too.
        fd: Whether to capture the output of C code and child processes as well.
    """

    def __init__(
        self, scope: Scope | None, *, stdout: bool, stderr: bool, echo: bool, fd: bool
    ) -> None:
        wanted = tuple(name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted)
        if not wanted:
            raise InvalidArgument("capture_output captures stdout, stderr or both, not neither")
        self._capture = _Capture(scope, wanted, echo=echo, fd=fd)
        self._outer: _Capture | None = None
        self._entered = False

    def __enter__(self) -> Self:
        if self._entered:
            raise InvalidState(
                "the output is captured already; call capture_output() for each block"
            )
        self._capture.begin()
        self._entered = True
        _put_proxies()
        self._outer = _capturing.get()
        _capturing.set(self._capture)
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        # Not `Token.reset`, because the block may be left in another context.
        if _capturing.get() is self._capture:
            _capturing.set(self._outer)
        try:
            self._capture.end()
        except fault_types() as fault:  # an internal fault must never reach the user's program
            faults.add("capturing output", fault)
        finally:
            self._entered = False
            _take_proxies()


class _Capture:
    """What one block captures, and where it goes.

    Attributes:
        scope: The scope of what is printed without a current job.
        streams: The streams that are captured in Python, and not through their descriptor.
        echo: Whether to print the output, too.
    """

    def __init__(
        self, scope: Scope | None, wanted: tuple[str, ...], *, echo: bool, fd: bool
    ) -> None:
        self.scope = scope
        self.streams = self._wanted = wanted
        self.echo = echo
        self._fd = fd
        self._splitters: dict[tuple[str, int], LineSplitter] = {}
        self._open_descriptors: list[_Descriptor] = []

    def begin(self) -> None:
        self.scope = self.scope or current_scope()
        if self._fd:
            self._open_descriptors = _take_descriptors(self, self._wanted)
            self.streams = tuple(name for name in self._wanted if not _leads_to_descriptor(name))

    def feed(self, stream: str, text: bytes, writer: int = 0) -> None:
        """Process text written to *stream*. The lines of each *writer* are assembled separately."""
        key = stream, writer
        splitter = self._splitters.get(key)
        if splitter is None:
            splitter = self._splitters[key] = LineSplitter(
                partial(self._lines, stream), without_secrets
            )
        splitter.feed(text)

    def end(self) -> None:
        """Process what is left, and release the descriptors."""
        try:
            for descriptor in self._open_descriptors:
                descriptor.close()
            for splitter in list(self._splitters.values()):
                splitter.end()
        finally:
            self._splitters.clear()

    def _lines(self, stream: str, lines: list[str], attrs: dict[str, int]) -> None:
        former = _capturing.get()
        _capturing.set(None)  # a sink may print
        try:
            scope = current_scope() or self.scope
            emit_lines(scope, _LEVEL, lines, attrs, stream=stream, printed=self.echo)
        finally:
            _capturing.set(former)


def capture_output(
    *, stdout: bool = True, stderr: bool = True, echo: bool = True, fd: bool = False
) -> CapturedOutput:
    """Record the output of a block, line by line, as events of kind ``output``.

    The events belong to the job and step that are current at the print. Without a job they are
    system events. Use it with ``with`` or ``async with``. The output of concurrent jobs is kept
    apart in tasks, in ``asyncio.to_thread``, and in executors that carry the context. Output of
    other threads, C code and child processes is not captured; see *fd*.

    Args:
        stdout: Capture stdout, True by default.
        stderr: Capture stderr, True by default.
        echo: Also print the output, True by default.
        fd: Also capture the descriptors 1 and 2, which includes the output of C code and child
            processes. False by default. Only one block at a time can do this, because the
            descriptors belong to the process. The lines belong to the job of that block.

    Raises:
        InvalidArgument: if neither stream is captured.
        InvalidState: on entering with *fd*, if another block captures the descriptors.
    """
    return CapturedOutput(None, stdout=stdout, stderr=stderr, echo=echo, fd=fd)


# -- replacements for sys.stdout and sys.stderr
# ------------------------------------------------------------------------------


class Proxy:
    """A replacement for a stream while any block captures.

    Args:
        name: ``stdout`` or ``stderr``.
        stream: The replaced stream; ``None`` in a process without a console.
    """

    def __init__(self, name: str, stream: Any) -> None:
        self.name = name
        self.stream = stream
        self._pass_on: Any = len if stream is None else stream.write
        stand_ins[id(self)] = Uncaptured(stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> Any:
        capture = _capturing.get()
        if capture is None:  # the usual case in a process where only some blocks capture
            return self._pass_on(text)
        if self.name not in capture.streams or _is_logged():
            return self._through(text)
        return self._captured(capture, text, text.encode("utf-8", "backslashreplace"))

    def _captured(self, capture: _Capture, given: Any, text: bytes) -> int:
        try:
            capture.feed(self.name, text, _writer())
        except fault_types() as exc:  # see above
            faults.add("capturing output", exc)
        if not capture.echo:
            return len(given)
        with _showing(capture):
            # A block around this one that captures the descriptor would record the text again.
            for descriptor in _descriptors:
                if descriptor.takes(self.name):
                    descriptor.show(text)
                    return len(given)
            if MARKS is None:
                return self._through(given)
            marks = MARKS.on if isinstance(given, bytes) else MARKS.on_text
            self._through(marks(given, self.stream))
            return len(given)

    def _through(self, text: Any) -> int:
        if self.stream is None:
            return len(text)
        written = self.stream.write(text)
        return written if isinstance(written, int) else len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.stream is not None:
            self.stream.flush()

    def isatty(self) -> bool:
        return self.stream is not None and bool(self.stream.isatty())

    @property
    def buffer(self) -> Any:
        return BinaryProxy(self.name, self.stream.buffer)

    def __iter__(self) -> Any:
        return iter(self.stream)


class BinaryProxy(Proxy):
    """The replacement for ``sys.stdout.buffer``."""

    def __init__(self, name: str, stream: Any) -> None:
        self.name = name
        self.stream = stream

    def write(self, text: Any) -> Any:
        capture = _capturing.get()
        if capture is None or self.name not in capture.streams:
            return self._through(text)
        return self._captured(capture, text, bytes(text))


class Uncaptured:
    """The output of a console sink whose stream is captured. Its lines are already events."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        if self._stream is not None:
            stand_in = stand_ins.get(id(self._stream), self._stream)
            stand_in.write(line)
            if stand_in is self._stream:
                self._stream.flush()


def _showing(capture: _Capture) -> AbstractContextManager[None]:
    """Return a block in which this thread shows what *capture* records."""
    return showing(current_scope() or capture.scope, _LEVEL)


def _is_logged() -> bool:
    """Return whether the text that is printed is already recorded as an event."""
    return is_shown() or frame_at(2).f_globals.get("__name__") in _LOGGING


def _writer() -> int:
    """Return a number that distinguishes the tasks and threads that print."""
    if running_loop() is not None and (task := asyncio.current_task()) is not None:
        return id(task)
    return threading.get_ident()


def _put_proxies() -> None:
    global _blocks
    with _lock:
        _blocks += 1
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if type(stream) is not Proxy:
                setattr(sys, name, Proxy(name, stream))


def _take_proxies() -> None:
    global _blocks
    with _lock:
        _blocks = max(0, _blocks - 1)
        if not _blocks:
            _restore()


def _restore() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is Proxy:  # otherwise another object has replaced the proxy
            stand_ins.pop(id(stream), None)
            setattr(sys, name, stream.stream)


def _reset() -> None:
    global _blocks
    _blocks = 0
    _restore()
    for descriptor in _descriptors[:]:
        descriptor.close()


on_reset(_reset)


# -- replacements for descriptors 1 and 2
# ------------------------------------------------------------------------------


def _leads_to_descriptor(name: str) -> bool:
    """Return whether Python output to a stream goes to its descriptor."""
    try:
        return int(getattr(sys, name).fileno()) == _NUMBERS[name]
    except (AttributeError, OSError, ValueError):  # a notebook's or a test's stream, or no stream
        return False


def _take_descriptors(capture: _Capture, names: tuple[str, ...]) -> list[_Descriptor]:
    with _lock:
        if _descriptors:
            raise InvalidState(
                "another block captures the descriptors of this process; one at a time can (fd=True)"
            )
        try:
            for name in names:
                _descriptors.append(_Descriptor(capture, name))  # noqa: PERF401 -- one by one: see below
        except OSError:
            for descriptor in _descriptors[:]:
                descriptor.close()
            raise
    return list(_descriptors)


class _Descriptor:
    """Replaces a descriptor by a file, and reads the data written to it.

    It is not a pipe, because C code that fills a pipe while it holds the GIL would wait forever.
    The file has no name. A new file replaces it before it grows large, because truncating it would
    lose data written at the same time.
    """

    def __init__(self, capture: _Capture, name: str) -> None:
        self._capture = capture
        self._name = name
        self._number = _NUMBERS[name]
        self._leads = _leads_to_descriptor(name)
        self._flush()
        self._saved = os.dup(self._number)
        self._stream = getattr(sys, name)
        while type(self._stream) is Proxy:
            self._stream = self._stream.stream
        self._ended = threading.Event()
        # Re-entrant, because a signal handler may print while its own thread reads the file.
        self._turn = threading.RLock()
        self._draining = False
        self._file = self._fresh()
        stand_ins[id(self._stream)] = self
        self._thread = threading.Thread(target=self._watch, name="structjob-output", daemon=True)
        self._thread.start()

    def _flush(self) -> None:
        with suppress_faults():  # no stream, or a closed one
            getattr(sys, self._name).flush()

    def _fresh(self) -> int:
        """Replace the descriptor by a new file, and return a descriptor for reading it."""
        reading, path = tempfile.mkstemp(prefix="structjob-")
        try:
            writing = os.open(path, os.O_WRONLY | os.O_APPEND)
        finally:
            os.unlink(path)
        os.dup2(writing, self._number)
        os.close(writing)
        return reading

    def takes(self, name: str) -> bool:
        """Return whether Python's output to the stream *name* goes to this descriptor."""
        return self._leads and name == self._name

    def show(self, text: bytes) -> None:
        """Print what a block of Python code has recorded, after what was written before it."""
        self._flush()
        self._drain()
        if self._capture.echo:
            self._pass_on(text)

    def write(self, line: str) -> None:
        """Print a line of a console sink whose descriptor is captured."""
        self._pass_on(line.encode("utf-8", "backslashreplace"))

    def _pass_on(self, text: bytes) -> None:
        if MARKS is not None:
            text = MARKS.on(text, self._saved)
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(self._saved, text) :]

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK):
            try:
                self._drain()
            except fault_types() as exc:  # see above
                faults.add("capturing output", exc)

    def _drain(self) -> None:
        with self._turn:
            if self._draining or self._ended.is_set() or not os.fstat(self._file).st_size:
                return
            self._draining = True
            try:
                former, self._file = self._file, self._fresh()
                self._read(former)
            finally:
                self._draining = False

    def _read(self, file: int) -> None:
        try:
            at = 0
            while chunk := os.pread(file, _CHUNK, at):
                at += len(chunk)
                self._capture.feed(self._name, chunk)
                if self._capture.echo:
                    with _showing(self._capture):
                        self._pass_on(chunk)
        finally:
            os.close(file)

    def close(self) -> None:
        """Restore the descriptor, and read the remaining data."""
        self._flush()
        with self._turn:
            if self._ended.is_set():
                return
            self._ended.set()
            os.dup2(self._saved, self._number)
            self._read(self._file)
            stand_ins.pop(id(self._stream), None)
            os.close(self._saved)
            if self in _descriptors:
                _descriptors.remove(self)
