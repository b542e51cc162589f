"""A program below us: its output goes on to ours byte for byte, signals go on to it, and its end is told with what it used."""

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from signal import Signals

from structjob.cli.foreground import Foreground

CHUNK = 64 * 1024
LOOK_FIRST, LOOK_LAST = 0.01, 1.0
"""Seconds between two looks at the memory of the program, at first and in the long run."""

GRACE = 0.2
"""Seconds that the output may go on after the program's end, in the hands of processes that it left behind."""

PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTSTP")
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

Heard = Callable[[bytes], None]
"""Takes what was read from a stream; ``b""`` at its end. Called in a thread of the stream's own."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it used.

    Args:
        code: Its exit code; 128 and the signal's number if a signal ended it, as shells have it.
        signal: The signal that ended it.
        asked: The last signal that asked it to end, and came by us.
        unread: Whether whoever read our output stopped reading.
        left: Whether it left processes behind that held its output.
        seconds: How long it ran.
        cpu_seconds: CPU time of it and of what it waited for.
        max_rss_kb: Memory at its peak, if it is known.
    """

    code: int
    signal: Signals | None
    asked: Signals | None
    unread: bool
    left: bool
    seconds: float
    cpu_seconds: float
    max_rss_kb: int | None


class Child:
    """A running program.

    Args:
        command: Program and arguments.
        environment: Its whole environment.
        heard: For ``stdout`` and ``stderr``, who takes what it prints.
        stdout: The descriptor that its stdout goes on to.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], heard: Mapping[str, Heard], *, stdout: int = 1) -> None:
        self._loop = asyncio.get_running_loop()
        self._foreground = Foreground()
        self._asked: Signals | None = None
        self._ended: asyncio.Future[tuple[int, object]] = self._loop.create_future()
        self._unread = False
        self._left = False
        self._heard = heard
        self._began = time.monotonic()
        self._handled: list[int] = []
        # A signal that comes before the program runs is for it all the same.
        self._early: list[Signals] = []
        self._popen: subprocess.Popen[bytes] | None = None
        for name in PASSED_ON:
            number = Signals[name]
            # What is ignored stays ignored, in the child as well: `nohup` means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._pass_on, number)
                self._handled.append(number)
        try:
            self._popen = subprocess.Popen(  # noqa: S603 -- to run what the user names is what this is for
                list(command), env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, process_group=0
            )
        except BaseException:
            self._release()
            raise
        self.pid = self._popen.pid
        self._floor = _own_peak()
        self._seen = 0
        self._look(LOOK_FIRST)
        self._stop, self._stopped = os.pipe()
        self._loop.add_signal_handler(signal.SIGCHLD, self._changed)
        self._handled.append(signal.SIGCHLD)
        self._readers = [self._listen("stdout", self._popen.stdout, stdout), self._listen("stderr", self._popen.stderr, 2)]
        for number in self._early:
            self._pass_on(number)
        self._changed()

    async def wait(self) -> Ended:
        """Return how it ended, once all of its output went its way."""
        status, usage = await asyncio.shield(self._ended)  # whoever waits may be cancelled, and wait again
        seconds = time.monotonic() - self._began
        reading = asyncio.gather(*self._readers)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await asyncio.shield(reading)
        os.close(self._stopped)  # what is in the pipes now is still read
        await reading
        os.close(self._stop)
        self._release()
        return self._told(status, usage, seconds)

    def terminate(self) -> None:
        """Ask it to end, as SIGTERM to us does."""
        self._pass_on(signal.SIGTERM)

    def _look(self, pause: float) -> None:
        """Read how much memory the program has had so far.

        The kernel's account of it at the end begins with what we had when we made it: a smaller program must be looked at while it runs.
        """
        if self._ended.done() or not sys.platform.startswith("linux"):
            return
        with (
            contextlib.suppress(OSError, ValueError, IndexError),
            open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as status,
        ):
            self._seen = max([self._seen, *(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))])
        self._loop.call_later(pause, self._look, min(2 * pause, LOOK_LAST))

    def _told(self, status: int, usage: object, seconds: float) -> Ended:
        code = os.waitstatus_to_exitcode(status)
        assert self._popen is not None  # noqa: S101 -- it has ended
        self._popen.returncode = code
        died_of = Signals(-code) if code < 0 and -code in {*Signals} else None
        asked = self._asked
        if asked is None and died_of in (signal.SIGINT, signal.SIGQUIT) and self._foreground.present:
            asked = died_of  # typed at the terminal while it was lent
        peak = int(getattr(usage, "ru_maxrss", 0)) // (1024 if sys.platform == "darwin" else 1)
        return Ended(
            code=128 - code if code < 0 else code,
            signal=died_of,
            asked=asked,
            unread=self._unread,
            left=self._left and not self._unread,
            seconds=seconds,
            cpu_seconds=getattr(usage, "ru_utime", 0.0) + getattr(usage, "ru_stime", 0.0),
            max_rss_kb=peak if peak > self._floor else self._seen or None,
        )

    def _release(self) -> None:
        for number in self._handled:
            self._loop.remove_signal_handler(number)
        self._handled.clear()
        self._foreground.close()

    # -- signals ------------------------------------------------------------------------------------------------------------

    def _pass_on(self, number: Signals) -> None:
        if number in ENDING:
            self._asked = number
        if self._popen is None:
            self._early.append(number)
        elif not self._ended.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _changed(self) -> None:
        """The program ended, stopped or went on."""
        while not self._ended.done():
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self._paused(os.WSTOPSIG(status))
            else:
                self._ended.set_result((status, usage))

    def _paused(self, number: int) -> None:
        """It wants the terminal, or was told to stop, by Ctrl-Z most likely."""
        wants_terminal = number in (signal.SIGTTIN, signal.SIGTTOU)
        if wants_terminal and self._foreground.lend(self.pid):
            os.killpg(self.pid, signal.SIGCONT)
        elif self._foreground.present and (wants_terminal or number == signal.SIGTSTP):
            # The shell must see us stopped to give its prompt; we go on here when it says `fg`.
            lent = self._foreground.lent
            self._foreground.take_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            if lent:
                self._foreground.lend(self.pid)
            os.killpg(self.pid, signal.SIGCONT)

    # -- output -------------------------------------------------------------------------------------------------------------

    def _listen(self, stream: str, pipe: object, target: int) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        # A thread may wait for whoever reads our output, and the loop goes on.
        threading.Thread(target=self._relay, args=(stream, pipe, target, done), name=f"structjob-{stream}", daemon=True).start()
        return done

    def _relay(self, stream: str, pipe: object, target: int, done: asyncio.Future[None]) -> None:
        assert hasattr(pipe, "fileno") and hasattr(pipe, "close")  # noqa: S101, PT018 -- a pipe of Popen's
        heard = self._heard[stream]
        fault: Exception | None = None
        try:
            poll = select.poll()
            poll.register(pipe.fileno(), select.POLLIN)
            poll.register(self._stop, 0)  # its hang-up says: only what is there
            while True:
                ready = dict(poll.poll())
                if not ready.get(pipe.fileno(), 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    self._left = True  # the program has ended, and yet its pipe is open
                    break
                chunk = os.read(pipe.fileno(), CHUNK)
                if not chunk:
                    break
                # First recorded, then shown: what was seen of a program that died is what the log has.
                heard(chunk)
                try:
                    _write(target, chunk)
                except OSError:
                    # Nobody reads on. The program learns it as it would without us: by a closed pipe of its own.
                    self._unread = True
                    break
            heard(b"")
        except Exception as exc:  # noqa: BLE001 -- it is raised where the program is waited for
            fault = exc
        finally:
            pipe.close()
            with contextlib.suppress(RuntimeError):  # the loop is gone, and nobody waits
                self._loop.call_soon_threadsafe(_settle, done, fault)


def _own_peak() -> int:
    """Return the memory that this process has had at its peak, in KB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def _settle(done: asyncio.Future[None], fault: Exception | None) -> None:
    if done.done():
        return
    if fault is None:
        done.set_result(None)
    else:
        done.set_exception(fault)


def _write(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:
            # Our output was made non-blocking by somebody we share it with.
            poll = select.poll()
            poll.register(target, select.POLLOUT)
            poll.poll()
