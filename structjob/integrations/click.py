"""Commands of click and Typer: a job for each run of a command.

======================  ==========================================================================
job                     one run of a command: its callback; not ``--help``, completion or a group
operation               the command as it is typed: ``tool users add``
attempt                 always the first
parent                  the job in the environment (``structjob run``, `Job.run_process`)
correlation id          that in the environment, else a new one
result                  ``{"exit_code": 0}``, unless the command sets another
======================  ==========================================================================
"""

from __future__ import annotations

import enum
import io
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import date, time
from typing import Any, TypeVar

from structjob.context.propagation import from_environment
from structjob.context.scope import current_scope
from structjob.diagnostics import fault_types, faults, suppress_faults
from structjob.exceptions import InvalidArgument
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.options import JobOptions
from structjob.tracker import Tracker, host_of

__all__ = ["tracked"]

C = TypeVar("C")

_TRACKED = "_structjob_tracked"


def tracked(command: C, url: Any = None, *, params: bool = True) -> C:
    """Run each command of a command line as a job.

    What the command prints, raises and exits with stays the same. The job uses the open tracker; if
    there is no open tracker, one is opened for the duration of the command.

    Args:
        command: A click command or group, or a Typer application. In a group, each command is a
            job; the group itself is not a job.
        url: See `structjob.Tracker`.
        params: Whether the parameters are recorded as metadata. Parameters with hidden input, or
            with the name of a secret, are never recorded.

    Returns:
        The same command or group; for a Typer application, the command to call in its place.

    Raises:
        InvalidArgument: if *command* is not one of these.
    """
    found: Any = command
    if hasattr(found, "registered_commands"):
        found = _of_typer(found)
    if not callable(getattr(found, "invoke", None)) or not hasattr(found, "params"):
        raise InvalidArgument(
            f"tracked() takes a click command or group, or a Typer application, not {command!r}: "
            "write it above @click.command()"
        )
    return _tracked(found, url, params)  # type: ignore[no-any-return]


def _of_typer(application: Any) -> Any:
    """Return the command of a Typer application.

    Its exceptions are printed as by the application itself, which marks them for its hook.
    """
    typer = sys.modules["typer.main"]
    command = typer.get_command(application)
    run = command.main

    def main(*args: Any, **options: Any) -> Any:
        try:
            return run(*args, **options)
        except Exception as exc:
            if not options.get("standalone_mode", True):  # the caller expects it
                raise
            with suppress_faults():  # the names belong to Typer, and may change
                look = typer.DeveloperExceptionConfig(
                    pretty_exceptions_enable=application.pretty_exceptions_enable,
                    pretty_exceptions_show_locals=application.pretty_exceptions_show_locals,
                    pretty_exceptions_short=application.pretty_exceptions_short,
                )
                setattr(exc, typer._typer_developer_exception_attr_name, look)  # noqa: SLF001
                if sys.excepthook is sys.__excepthook__:  # another hook records or shows it
                    sys.excepthook = typer.except_hook
            raise

    command.main = main
    return command


def _tracked(command: Any, url: Any, params: bool) -> Any:
    if command is None or getattr(command, _TRACKED, False):
        return command
    setattr(command, _TRACKED, True)
    if hasattr(command, "get_command"):  # a group; a lazy one creates its commands later
        get = command.get_command
        command.get_command = lambda *args, **options: _tracked(get(*args, **options), url, params)
    else:
        invoke = command.invoke
        command.invoke = lambda context: _run(invoke, context, url, params)
    return command


def _run(invoke: Callable[[Any], Any], context: Any, url: Any, params: bool) -> Any:
    with ExitStack() as stack:
        job = _started(context, url, params, stack)
        if job is None:
            return invoke(context)
        try:
            returned = invoke(context)
        except BaseException as exc:
            _end(job, exc)
            raise
        _end(job, None)
        return returned


def _started(context: Any, url: Any, params: bool, stack: ExitStack) -> Job | None:
    """Return the started job of a command; ``None`` if it cannot be tracked."""
    try:
        host = host_of()
        if host is None:
            host = host_of(stack.enter_context(Tracker(url)))
        assert host is not None  # noqa: S101 -- it is open
        scope = current_scope()
        parent = from_environment(os.environ)
        options = JobOptions(
            metadata=_parameters(context) if params else None,
            correlation_id=parent.correlation_id if scope is None else None,
        )
        job = JobCore(host, context.command_path[:255], parent=scope, options=options)
        return stack.enter_context(Job(job))
    except fault_types() as exc:  # the command runs even if it cannot be tracked
        faults.add("tracking a command", exc)
        return None


def _parameters(context: Any) -> Mapping[str, Any]:
    hidden = {param.name for param in context.command.params if getattr(param, "hide_input", False)}
    return {
        name: _plain(value)
        for name, value in context.params.items()
        if name not in hidden and value not in (None, ())
    }


def _plain(value: Any) -> Any:
    """Return the value of a parameter as metadata."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    # Of click's lazy file, any attribute but the name opens the file.
    if isinstance(value, io.IOBase) or type(value).__name__ in (
        "_LazyFile",
        "LazyFile",
        "KeepOpenFile",
    ):
        return str(getattr(value, "name", value))
    return value if isinstance(value, (str, int, float, dict, date, time)) else str(value)


def _end(job: Job, exc: BaseException | None) -> None:
    """End the job as the command ended; an exception that is not an exit is recorded by the job's
    block.
    """
    try:
        code = _exit_code(exc)
        if job.ended or code is None:
            return
        if type(exc).__name__ == "Abort":  # an unanswered prompt, or Ctrl-C in one
            job.end("cancelled", error=exc, summary={"exit_code": code})
            return
        if job.result is None:
            job.result = {"exit_code": code}
        error = exc if code else None
        job.end("failed" if code else "completed", error=error, summary={"exit_code": code})
    except fault_types() as fault:  # see above
        faults.add("ending the job of a command", fault)


def _exit_code(exc: BaseException | None) -> int | None:
    """Return the exit code that click or Python derives from *exc*; ``None`` for an
    interruption.
    """
    if exc is None:
        return 0
    code = getattr(exc, "exit_code", None)  # click's Exit and ClickException
    if isinstance(code, int):
        return code
    if isinstance(exc, SystemExit):
        if type(exc) is not SystemExit:  # SIGTERM
            return None
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    return 1 if isinstance(exc, Exception) else None
