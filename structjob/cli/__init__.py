"""The command line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; see `structjob.cli.app`."""
    # PYTHONWARNINGS is meant for the programs that structjob runs. Without this filter, a
    # deprecation in one of our imports could end the command.
    warnings.simplefilter("ignore")
    try:
        from structjob.cli.app import main as begin
    except Exception as exc:
        _run_without_us(sys.argv[1:] if args is None else args, exc)
        raise
    begin(args)


def _run_without_us(args: Sequence[str], exc: Exception) -> None:
    """Run the program of ``structjob run … -- PROGRAM`` without structjob, because the installation
    is broken.
    """
    if "run" not in args or "--" not in args[args.index("run") :]:
        return
    command = list(args[args.index("--", args.index("run")) + 1 :])
    if not command:
        return
    text = f"structjob: warning: structjob cannot be loaded ({type(exc).__name__}: {exc}). The program runs; nothing is recorded\n"
    import signal

    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 -- this command runs what the user names
    except OSError as fault:
        os._exit(127 if isinstance(fault, FileNotFoundError) else 126)
