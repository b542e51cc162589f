"""What is recorded of an exception: its type, message, traceback, and the fields by which errors are counted."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from structjob.encoding import encode_text

if TYPE_CHECKING:
    from structjob.context import Scope
    from structjob.models import ErrorInfo

MAX_TRACEBACK = 32 * 1024
"""Characters of a traceback at most; the middle is cut, since the ends say where it began and what it was."""

E = TypeVar("E", bound=BaseException)

Classifier = Callable[[BaseException], Mapping[str, Any]]
"""Given an exception, returns ``error_type``, ``retry_possible``, ``error_code`` or further fields; what it leaves out is derived."""

_RETRY_POSSIBLE = (TimeoutError, asyncio.TimeoutError, ConnectionError, InterruptedError, BlockingIOError)


def describe(exc: BaseException) -> ErrorInfo:
    """Return what is stored of *exc*; its own faults (a raising ``__str__``) are survived."""
    from structjob.models import ErrorInfo  # making the records takes time, which a program that only logs need not spend

    return ErrorInfo(type(exc).__qualname__, message_of(exc), format_traceback(exc))


def message_of(exc: BaseException) -> str:
    """Return ``str(exc)``, whatever it does."""
    try:
        return str(exc)
    except Exception as fault:  # noqa: BLE001 -- a raising __str__ must not hide the exception itself
        return f"<its text raised {type(fault).__name__}>"


def format_traceback(exc: BaseException) -> str:
    """Return the traceback as Python prints it: causes, notes and every part of an exception group; never local variables."""
    try:
        text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    except Exception as fault:  # noqa: BLE001 -- see message_of
        text = f"{type(exc).__qualname__}: <its traceback raised {type(fault).__name__}>"
    if len(text) > MAX_TRACEBACK:
        cut = len(text) - MAX_TRACEBACK
        text = f"{text[: MAX_TRACEBACK // 4]}\n…[cut: {cut:,} characters]\n{text[-MAX_TRACEBACK * 3 // 4 :]}"
    return text


def error_fields(exc: BaseException, classifier: Classifier | None = None) -> dict[str, Any]:
    """Return the standard fields of a failure (S1): type, message, code, whether a retry may help, and the cause.

    Args:
        exc: The exception.
        classifier: What it returns goes before what is derived here; if it raises, it is ignored.
    """
    fields: dict[str, Any] = {
        "error_type": type(exc).__qualname__,
        "error_message": message_of(exc),
        "retry_possible": issubclass(type(exc), _RETRY_POSSIBLE),
    }
    for name in ("errno", "code", "status_code"):
        with contextlib.suppress(Exception):  # an exception may be made of anything: properties, `__getattr__`
            code = getattr(exc, name, None)
            if isinstance(code, (int, str)) and code:
                fields["error_code"] = code
                break
    with contextlib.suppress(Exception):
        cause = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
        if cause is not None:
            fields["underlying_error"] = f"{type(cause).__qualname__}: {message_of(cause)}"
    if classifier is not None:
        with contextlib.suppress(Exception):  # a fault of the classifier must not hide the failure
            fields.update(classifier(exc))
    return fields


def exception_attrs(
    exc: BaseException, classifier: Classifier | None = None, scope: Scope | None = None, *, counts: bool = True
) -> dict[str, Any]:
    """Return the attributes of an event that carries *exc*: the standard fields, and ``exception`` with its structure.

    The first event that tells of an exception is its occurrence, and carries ``error_fingerprint``, by which errors are counted. Those
    that tell of it again, while it passes on through steps and jobs, do not.

    Args:
        exc: The exception.
        classifier: See `error_fields`.
        scope: Where the event belongs. One exception that fails several jobs, none of which began another, is an occurrence in each.
        counts: Whether the event is recorded; if not, it is no occurrence.
    """
    attrs = {**error_fields(exc, classifier), "exception": _structure(exc, 0)}
    if counts and not is_told(exc, scope):
        attrs["error_fingerprint"] = _tell(exc, scope)
    return attrs


_TOLD = "__structjob_told__"
"""Where an exception itself keeps its fingerprint and the trees of jobs that were told of it: there it lives as long as it matters, and
comes along from a worker process."""


def is_told(exc: BaseException, scope: Scope | None) -> bool:
    """Return whether an event has told of *exc* already, in this tree of jobs."""
    return _root(scope) in _kept(exc)[1]


def _tell(exc: BaseException, scope: Scope | None) -> str:
    from structjob.fingerprint import fingerprint, of_words  # its patterns take time to compile: a program without errors need not

    found, told = _kept(exc)
    # Once and for all: whoever awaits the same task later on gets the exception without the traceback it had.
    try:
        found = found or fingerprint(exc, scope.operation if scope is not None else None)
    except Exception:  # noqa: BLE001 -- what it is made of raises
        found = of_words(type(exc).__qualname__, message_of(exc))
    with contextlib.suppress(Exception):
        exc.__dict__[_TOLD] = (found, (*told, _root(scope)))
    return found


def _kept(exc: BaseException) -> tuple[str, tuple[str | None, ...]]:
    try:
        kept: tuple[str, tuple[str | None, ...]] = exc.__dict__.get(_TOLD, ("", ()))
    except Exception:  # noqa: BLE001 -- an exception that cannot even be looked at is still one
        return "", ()
    return kept


def _root(scope: Scope | None) -> str | None:
    return None if scope is None else scope.root_job_id or scope.job_id


def _structure(exc: BaseException, depth: int) -> dict[str, Any]:
    info: dict[str, Any] = {"type": type(exc).__qualname__, "module": type(exc).__module__, "message": message_of(exc)}
    if depth == 0:
        info["traceback"] = format_traceback(exc)
    if issubclass(type(exc), BaseExceptionGroup) and depth < 4:
        with contextlib.suppress(Exception):  # of a group, too, anything can be overridden
            parts = cast("BaseExceptionGroup[BaseException]", exc).exceptions[:32]
            info["exceptions"] = [_structure(part, depth + 1) for part in parts]
    return info


def enrich(exc: E, **fields: Any) -> E:
    """Attach ``[key=value, …]`` to *exc* as a note, so that it tells its context wherever it is printed.

    Args:
        exc: The exception that is on its way.
        fields: What to attach; the ids of the current job and step are attached by themselves where they pass.

    Returns:
        The same exception, for ``raise enrich(exc, vm=name)``.
    """
    # Encoded as JSON text and back-to-back: a value with a newline or an escape sequence must not forge lines.
    parts = ", ".join(f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)
    note = f"[{parts}]"
    try:
        if note not in getattr(exc, "__notes__", ()):
            exc.add_note(note)
    except Exception:  # noqa: BLE001, S110 -- an exception that takes no notes is still an exception
        pass
    return exc


def is_noted(exc: BaseException, *ids: str) -> bool:
    """Return whether a note of *exc* tells one of *ids*."""
    try:
        return any(one in note for note in exc.__notes__ for one in ids)
    except Exception:  # noqa: BLE001 -- there are none, or somebody put something else in their place
        return False


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if text.isprintable() else encode_text(text).decode()
