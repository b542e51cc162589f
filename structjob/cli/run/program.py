"""The program of ``structjob run``: forked immediately, and run later, when it can be watched.

The fork comes first because this process is then still as its starter made it. After any fault in
between, the program can still run in place of this process, as if it had been started without
structjob.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

from structjob.cli.run.inherited import Inherited, original_environment
from structjob.machine.memory import PeakMemory

NOT_FOUND = 127
NOT_EXECUTABLE = 126

_SHELL = "/bin/sh"


class CannotFork(Exception):
    """The system allows no further process or descriptor."""


class Program:
    """A forked program that has not been run yet.

    Args:
        command: Program and arguments.
        merged: Whether its stdout goes to the same place as its stderr.

    Attributes:
        tried: Whether `start` was called.
        started: Whether it was run.
        pid: The id of its process.
        stdout: Descriptor from which its stdout can be read.
        stderr: The same for its stderr.
        peak: Its peak memory.
    """

    def __init__(self, command: Sequence[str], *, merged: bool = False) -> None:
        self.command = list(command)
        self.tried = self.started = False
        self.pid = 0
        self.peak = PeakMemory()
        self._merged = merged
        self.inherited = Inherited.now()
        self._opened: list[int] = []

    def fork(self) -> None:
        """Fork the program's process.

        Raises:
            CannotFork: if the system does not allow it.
        """
        # No signal may reach the new process before it is ready; signals are delivered after that.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.inherited.relax()
            try:
                self.stdout, out = self._pipe()
                self.stderr, err = self._pipe()
                go, self._go = self._pipe()
                self._status, status = self._pipe()
                self.pid = os.fork()
            except (OSError, MemoryError) as exc:
                self._close(*self._opened)
                raise CannotFork(str(exc)) from exc
            if self.pid == 0:
                try:
                    os.close(self._go)
                    self._become(go, status, {1: out, 2: err})
                finally:
                    os._exit(NOT_FOUND)
            with contextlib.suppress(OSError):
                os.setpgid(self.pid, self.pid)
            self._close(out, err, go, status)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def start(self, environment: Mapping[str, str]) -> None:
        """Run the program, with *environment* added to its own.

        Raises:
            OSError: if it cannot be run.
        """
        self.tried = True
        self._close_after(
            self._go,
            b"\0".join(
                b"%s=%s" % (os.fsencode(name), os.fsencode(text))
                for name, text in environment.items()
            ),
        )
        failed = os.read(self._status, 16)
        self._close(self._status)
        if failed:
            self._reap()
            number = int(failed)
            raise OSError(number, os.strerror(number), self.command[0])
        self.started = True

    def abandon(self) -> None:
        """Discard the program, which never ran."""
        if self.pid:
            self._close(self._go)
            self._reap()

    def instead_of_us(self) -> NoReturn:
        """Run the program in place of this process, as if it had been started without structjob."""
        self.abandon()
        if self._merged:
            os.dup2(2, 1)
        environment = original_environment()
        try:
            self.inherited.restore()
            _execute(self.command, environment)
        except OSError as exc:
            code = exit_code(exc)
            why = "command not found" if code == NOT_FOUND else f"cannot be run: {exc.strerror}"
            with contextlib.suppress(OSError):
                os.write(2, os.fsencode(f"error: {self.command[0]}: {why}\n"))
            os._exit(code)

    def wait(self) -> int:
        """Wait for the end of the running program, and pass signals on to it; return its wait
        status.
        """

        def pass_on(number: int, frame: object) -> None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, pass_on)
        return os.waitpid(self.pid, 0)[1]

    def _become(self, go: int, status: int, outputs: Mapping[int, int]) -> None:
        """Wait in the new process for the command to start, and become the program.

        Every signal is blocked until then.
        """
        os.setpgid(0, 0)
        said = b""
        while chunk := os.read(go, 65_536):
            said += chunk
        if not said:  # the watching process is gone
            return
        environment = original_environment()
        for name, _, text in (
            os.fsdecode(variable).partition("=") for variable in said.split(b"\0")
        ):
            environment[name] = text
        # Socket activation is for the process that was started by systemd; its place is this
        # process now.
        for name in ("LISTEN_PID", "WATCHDOG_PID"):
            if environment.get(name) == str(os.getppid()):
                environment[name] = str(os.getpid())
                environment.pop("LISTEN_PIDFDID", None)
        for number, pipe in outputs.items():
            if number not in self.inherited.closed:
                os.dup2(pipe, number)
        try:
            self.inherited.restore()
            _execute(self.command, environment)
        except OSError as exc:
            os.write(status, b"%d" % (exc.errno or errno.ENOEXEC))

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._opened += ends
        return ends

    def _close(self, *descriptors: int) -> None:
        for number in descriptors:
            if number in self._opened:
                self._opened.remove(number)
                os.close(number)

    def _close_after(self, number: int, words: bytes) -> None:
        view = memoryview(words)
        with contextlib.suppress(BrokenPipeError):  # it was killed already; its wait status says so
            while view:
                view = view[os.write(number, view) :]
        self._close(number)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def exit_code(exc: OSError) -> int:
    """Return the exit code that shells use for a program that cannot be run."""
    return NOT_FOUND if exc.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE


def end_as(status: int) -> NoReturn:
    """End this process as the program ended: with its exit code, or by the same signal.

    Args:
        status: The wait status of the program.
    """
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        import resource

        number = -code
        # The program's core dump is enough. With a limit of 1 byte the kernel writes no second one,
        # neither to a file nor to a program.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(
                resource.RLIMIT_CORE, (1, resource.getrlimit(resource.RLIMIT_CORE)[1])
            )
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        time.sleep(0.1)  # a signal cannot end the first process of a container
        code = 128 + number
    os._exit(code)


def _execute(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Do what ``execvp`` does: search the program, and run a script without an interpreter by the
    shell.
    """
    name = command[0]
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    paths = (
        [name]
        if "/" in name
        else [os.path.join(directory, name) for directory in os.get_exec_path(environment)]
    )
    fault: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    for path in paths:
        try:
            os.execve(path, command, environment)  # noqa: S606 -- this command runs what the user names
        except OSError as exc:
            if exc.errno == errno.ENOEXEC and os.path.exists(_SHELL):
                os.execve(_SHELL, [_SHELL, path, *command[1:]], environment)  # noqa: S606 -- see above
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
                fault = exc
                if exc.errno != errno.EACCES:
                    break
    raise fault
