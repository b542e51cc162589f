"""What this process inherited: descriptors, signals and limits. A program of ``structjob run`` gets
exactly the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import sys
from dataclasses import dataclass

STANDARD = (0, 1, 2)

_LIMITS = (
    "RLIMIT_NOFILE",
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_AS",
    "RLIMIT_DATA",
    "RLIMIT_NPROC",
)
"""Soft limits that may stop this process where they would not have stopped the program alone."""

_PASSED_DOWN = frozenset(
    {"sh", "bash", "dash", "ash", "ksh", "zsh", "busybox", "systemd", "(systemd)"}
)
"""Programs that pass on the ignored signals which they inherited to those that they start."""


def open_missing() -> None:
    """Open the null device for those of stdin, stdout and stderr that are closed.

    Otherwise the next opened file would get their number. A program that is started later still
    inherits them closed, because ``exec`` closes what is opened here.
    """
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            try:
                os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                os.pipe()  # no /dev: one end of the pipe takes the number, which is enough
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 -- until the end


@dataclass(frozen=True, slots=True)
class Inherited:
    """What this process inherited from its starter.

    Attributes:
        closed: Those of the descriptors 0, 1 and 2 that were closed.
        descriptors: The open ones above 2.
        mask: The blocked signals.
        ignored: The ignored signals.
        limits: Soft and hard limit by resource.
    """

    closed: frozenset[int]
    descriptors: tuple[int, ...]
    mask: frozenset[int]
    ignored: frozenset[int]
    limits: dict[int, tuple[int, int]]

    @classmethod
    def now(cls) -> Inherited:
        """Return what was inherited. Call this before any signal or limit of this process is
        changed.
        """
        # Python opens each file with close-on-exec. So a descriptor without that flag was inherited
        # through our own exec, and one with the flag was not.
        inherited = [number for number in _open_descriptors() if not _closed_by_exec(number)]
        ignored = {
            number
            for number in signal.valid_signals()
            if signal.getsignal(number) is signal.SIG_IGN
        }
        # Python itself ignores these two when it starts.
        ignored -= {signal.SIGPIPE, signal.SIGXFSZ} - _ignored_by_starter()
        limits = {}
        for name in _LIMITS:
            kind = getattr(resource, name, None)
            if kind is not None:
                limits[kind] = resource.getrlimit(kind)
        return cls(
            frozenset(STANDARD) - {*inherited},
            tuple(number for number in inherited if number > 2),
            frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            frozenset(ignored),
            limits,
        )

    def relax(self) -> None:
        """Raise the soft limits of this process to the hard ones, and receive SIGCHLD."""
        for kind, (soft, hard) in self.limits.items():
            if soft != hard:
                with contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(kind, (hard, hard))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def restore(self) -> None:
        """Undo all changes to this process; the last action before it becomes another program."""
        for number in signal.valid_signals():
            # SIGKILL, SIGSTOP, and those of the C library
            with contextlib.suppress(OSError, ValueError):
                if number in self.ignored:
                    signal.signal(number, signal.SIG_IGN)
                elif signal.getsignal(number) is not signal.SIG_DFL:
                    signal.signal(number, signal.SIG_DFL)
        for kind, limits in self.limits.items():
            if resource.getrlimit(kind) != limits:
                with contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(kind, limits)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def let_go(self) -> None:
        """Close the descriptors that only the running program needs.

        The reader at the other end waits until the last holder closes them.
        """
        for number in self.descriptors:
            with contextlib.suppress(OSError):
                os.close(number)
        replace_with_null(0)


def replace_with_null(number: int) -> None:
    """Close descriptor *number*, and keep the number in use."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, number, inheritable=False)
        os.close(null)


def original_environment() -> dict[str, str]:
    """Return the environment as it was before Python started.

    In the C locale Python adds ``LC_CTYPE`` (PEP 538); this removes it.
    """
    environment = dict(os.environ)
    if "LC_CTYPE" in environment:
        with contextlib.suppress(OSError), open("/proc/self/environ", "rb") as file:
            given = file.read()
            if not any(variable.startswith(b"LC_CTYPE=") for variable in given.split(b"\0")):
                del environment["LC_CTYPE"]
    return environment


def _open_descriptors() -> list[int]:
    for directory in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError, ValueError):
            return sorted(int(name) for name in os.listdir(directory))
    return list(range(256))


def _closed_by_exec(number: int) -> bool:
    try:
        return bool(fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
    except OSError:  # it is not open, or belonged to the directory listing
        return True


def _ignored_by_starter() -> set[signal.Signals]:
    """Return which of the signals that Python ignores were already ignored before.

    A process can no longer see that of itself. A shell and systemd pass on what they ignore. For
    any other starter the default is assumed, which is what Python's own `subprocess` sets.
    """
    parent = os.getppid()
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open(f"/proc/{parent}/comm", encoding="utf-8", errors="replace") as file:
            if file.read().strip() not in _PASSED_DOWN:
                return set()
        with open(f"/proc/{parent}/status", encoding="ascii", errors="replace") as file:
            bits = int(next(line for line in file if line.startswith("SigIgn:")).split()[1], 16)
        return {number for number in (signal.SIGPIPE, signal.SIGXFSZ) if bits >> (number - 1) & 1}
    return set()
