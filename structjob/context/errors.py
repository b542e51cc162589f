"""What is recorded of an exception: its type, message, traceback, and the fields by which errors
are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from structjob.context.scope import Scope, current_scope
from structjob.exceptions import InvalidArgument
from structjob.process import on_reset
from structjob.text.wording import count_of
from structjob.values.encoding import encode_text, type_name

if TYPE_CHECKING:
    from structjob.models import ErrorInfo

E = TypeVar("E", bound=BaseException)

MAX_TRACEBACK = 32 * 1024
"""Characters of a traceback at most; the middle is cut, since the ends say where it began and what
it was.
"""

MAX_PARTS = 32
"""Parts of an exception group that are recorded, at each level."""
_MAX_DEPTH = 4
"""Levels of exception groups that are recorded."""

Classifier = Callable[[BaseException], Mapping[str, Any]]
"""Given an exception, returns ``error_type``, ``retry_possible``, ``error_code`` or further fields;
what it leaves out is derived.
"""

REGISTERED: dict[type[BaseException], dict[str, Any]] = {}
"""What `classify` was told of types of exceptions."""
on_reset(REGISTERED.clear)


def classify(kind: type[BaseException], /, **fields: Any) -> None:
    """Say what is recorded of exceptions of a type, and of its subclasses.

    ::

        structjob.classify(QuotaExceeded, error_type="quota", retry_possible=False)

    For libraries, beside the one classifier of `configure`, whose fields go before these.

    Args:
        kind: The type. Of several that fit an exception, the first in its order of inheritance
            counts.
        fields: ``error_type``, ``error_code``, ``retry_possible``, or others. Without any, what
            was said before is taken back.

    Raises:
        InvalidArgument: if *kind* is no type of exception.
    """
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        raise InvalidArgument(f"classify takes a type of exception, not {kind!r}")
    if fields:
        REGISTERED[kind] = fields
    else:
        REGISTERED.pop(kind, None)


_RETRY_POSSIBLE = (
    TimeoutError,
    asyncio.TimeoutError,
    ConnectionError,
    InterruptedError,
    BlockingIOError,
)


# An exception's class may replace every attribute and raise. CPython's own accessors of what every
# exception has cannot be replaced.
_dict: Any = BaseException.__dict__["__dict__"]
_traceback: Any = BaseException.__dict__["__traceback__"]
_cause: Any = BaseException.__dict__["__cause__"]
_context: Any = BaseException.__dict__["__context__"]
_suppress_context: Any = BaseException.__dict__["__suppress_context__"]
_parts: Any = BaseExceptionGroup.__dict__["exceptions"]
_exit_code: Any = SystemExit.__dict__["code"]


def describe(exc: BaseException) -> ErrorInfo:
    """Return what is stored of *exc*. Errors raised by its own methods (``__str__``, say) are
    survived.
    """
    # making the records takes time, which a program that only logs need not spend
    from structjob.models import ErrorInfo

    return ErrorInfo(type_name(exc), message_of(exc), format_traceback(exc))


def message_of(exc: BaseException) -> str:
    """Return ``str(exc)`` as a plain `str`, or a text that says why there is none."""
    try:
        return str.__str__(str(exc))
    except Exception as fault:  # noqa: BLE001 -- a raising __str__ must not hide the exception itself
        return f"<its text raised {type_name(fault)}>"


def format_traceback(exc: BaseException) -> str:
    """Return the traceback as Python prints it: causes, notes and every part of an exception group;
    never local variables.
    """
    trace = traceback_of(exc)
    try:
        text = "".join(traceback.format_exception(type(exc), exc, trace))
    except Exception:  # noqa: BLE001 -- see message_of
        # What Python asks for besides raised: the causes, the notes, the text. Where it was raised
        # is known all the same.
        lines = (
            ["Traceback (most recent call last):\n", *traceback.format_tb(trace)]
            if trace is not None
            else []
        )
        text = f"{''.join(lines)}{type_name(exc)}: {message_of(exc)}\n"
    if len(text) > MAX_TRACEBACK:
        cut = len(text) - MAX_TRACEBACK
        text = f"{text[: MAX_TRACEBACK // 4]}\n…[cut: {count_of(cut, 'character')}]\n{text[-MAX_TRACEBACK * 3 // 4 :]}"
    return text


def traceback_of(exc: BaseException) -> TracebackType | None:
    """Return the traceback of *exc*, whatever its class does to ``__traceback__``."""
    found: TracebackType | None = _traceback.__get__(exc)
    return found


def restore_traceback(exc: BaseException, trace: TracebackType | None) -> None:
    """Give *exc* the traceback *trace* again. An assignment would raise where the exception is a
    frozen dataclass.
    """
    BaseException.with_traceback(exc, trace)


def exits_cleanly(exc: BaseException) -> bool:
    """Return whether *exc* is a `SystemExit` that reports success."""
    if not issubclass(type(exc), SystemExit):
        return False
    code = _exit_code.__get__(exc)
    return code is None or (type(code) in (int, bool) and code == 0)


def error_fields(exc: BaseException, classifier: Classifier | None = None) -> dict[str, Any]:
    """Return the standard fields of a failure (S1): type, message, code, whether a retry may help,
    and the cause.

    Args:
        exc: The exception.
        classifier: What it returns goes before what is derived here; if it raises, it is ignored.
    """
    fields: dict[str, Any] = {
        "error_type": type_name(exc),
        "error_message": message_of(exc),
        "retry_possible": issubclass(type(exc), _RETRY_POSSIBLE),
    }
    for name in ("errno", "code", "status_code"):
        # an exception may be made of anything: properties, `__getattr__`
        with contextlib.suppress(Exception):
            code = getattr(exc, name, None)
            if issubclass(type(code), (int, str)) and code:
                fields["error_code"] = code
                break
    cause = _cause.__get__(exc)
    if cause is None and not _suppress_context.__get__(exc):
        cause = _context.__get__(exc)
    if cause is not None:
        fields["underlying_error"] = f"{type_name(cause)}: {message_of(cause)}"
    if REGISTERED:
        found = next((REGISTERED[kind] for kind in type(exc).__mro__ if kind in REGISTERED), {})
        fields.update(found)
    if classifier is not None:
        with contextlib.suppress(Exception):  # a fault of the classifier must not hide the failure
            fields.update(classifier(exc))
    return fields


def exception_attrs(
    exc: BaseException,
    classifier: Classifier | None = None,
    scope: Scope | None = None,
    *,
    counts: bool = True,
) -> dict[str, Any]:
    """Return the attributes of an event that carries *exc*: the standard fields, and ``exception``
    with its structure.

    The first event that carries an exception is its occurrence, and has ``error_fingerprint``, by
    which errors are counted. Later events that carry it again, while it passes on through steps and
    jobs, do not.

    Args:
        exc: The exception.
        classifier: See `error_fields`.
        scope: Where the event belongs. One exception that fails several jobs, none of which began
            another, is an occurrence in each.
        counts: Whether the event is recorded; if not, it is no occurrence.
    """
    attrs = {**error_fields(exc, classifier), "exception": _structure(exc, 0)}
    if counts and not is_told(exc, scope):
        attrs["error_fingerprint"] = _tell(exc, scope)
    return attrs


class _Marked(dict[str, Any]):
    """The ``__dict__`` of an exception that was recorded: the same items, and a mark beside them
    that ``vars(exc)`` does not show.

    Few exceptions can be referenced weakly, and a strong reference would keep the frames of its
    traceback alive, with all that is in them. So the mark lives with the exception. A pickled or
    copied exception has a plain ``dict`` again, without the mark.

    Attributes:
        mark: The fingerprint, and the roots of the trees of jobs in which the exception was
            recorded.
    """

    __slots__ = ("mark",)
    mark: tuple[str, tuple[str | None, ...]]

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return dict, (dict(self),)


def is_told(exc: BaseException, scope: Scope | None) -> bool:
    """Return whether an event has recorded *exc* already: in this tree of jobs, or in any if the
    event belongs to no job.
    """
    root, told = _root(scope), _mark(exc)[1]
    return root in told or (root is None and bool(told))


def _tell(exc: BaseException, scope: Scope | None) -> str:
    # its patterns take time to compile: a program without errors need not
    from structjob.values.fingerprint import fingerprint, of_words

    found, told = _mark(exc)
    # Once and for all: whoever awaits the same task later on gets the exception without the
    # traceback it had.
    try:
        found = found or fingerprint(exc, scope.operation if scope is not None else None)
    except Exception:  # noqa: BLE001 -- what it is made of raises
        found = of_words(type_name(exc), message_of(exc))
    marked = _dict.__get__(exc)
    if type(marked) is not _Marked:
        marked = _Marked(marked)
    marked.mark = (found, (*told, _root(scope)))
    _dict.__set__(exc, marked)
    return found


def _mark(exc: BaseException) -> tuple[str, tuple[str | None, ...]]:
    kept = _dict.__get__(exc)
    return kept.mark if type(kept) is _Marked else ("", ())


def _root(scope: Scope | None) -> str | None:
    return None if scope is None else scope.root_job_id or scope.job_id


def _structure(exc: BaseException, depth: int) -> dict[str, Any]:
    info: dict[str, Any] = {
        "type": type_name(exc),
        "module": _module(exc),
        "message": message_of(exc),
    }
    if depth == 0:
        info["traceback"] = format_traceback(exc)
    if issubclass(type(exc), BaseExceptionGroup):
        parts = _parts.__get__(exc)
        kept = parts[:MAX_PARTS] if depth < _MAX_DEPTH else ()
        shown: list[Any] = [_structure(part, depth + 1) for part in kept]
        if (left := len(parts) - len(kept)) > 0:
            shown.append(f"…[cut: {left:,} more of {count_of(len(parts), 'exception')}]")
        info["exceptions"] = shown
    return info


def _module(exc: BaseException) -> str:
    try:
        return str(type(exc).__module__)
    except Exception:  # noqa: BLE001 -- a metaclass may have its own idea of that
        return "?"


def enrich(exc: E, /, **fields: Any) -> E:
    """Attach ``[key=value, …]`` to *exc* as a note, so that its context is printed wherever the
    exception is.

    The ids of the current job and step, and the operation, come first, unless a note of *exc* has
    them already.

    Args:
        exc: The exception that is on its way.
        fields: What to attach.

    Returns:
        The same exception, for ``raise enrich(exc, vm=name)``. An exception that takes no notes is
        returned as it is.
    """
    scope = current_scope()
    own = scope.step_id or scope.job_id if scope is not None else None
    if scope is not None and own is not None and not is_noted(exc, own):
        fields = {
            "job_id": scope.job_id,
            "step_id": scope.step_id,
            "operation": scope.operation,
            **fields,
        }
    annotate(exc, **fields)
    return exc


def annotate(exc: BaseException, /, **fields: Any) -> None:
    """Attach ``[key=value, …]`` to *exc* as a note, once. An exception that takes no notes stays as
    it is.
    """
    try:
        # Encoded as JSON text and back-to-back: a value with a newline or an escape sequence must
        # not forge lines.
        note = f"[{', '.join(f'{key}={_shown(value)}' for key, value in fields.items() if value is not None)}]"
        if note not in getattr(exc, "__notes__", ()):
            exc.add_note(note)
    except Exception:  # noqa: BLE001, S110 -- an exception that takes no notes is still an exception
        pass


def is_noted(exc: BaseException, *ids: str) -> bool:
    """Return whether a note of *exc* has one of *ids* in it."""
    try:
        return any(one in note for note in exc.__notes__ for one in ids)
    except Exception:  # noqa: BLE001 -- there are none, or somebody put something else in their place
        return False


def _shown(value: Any) -> str:
    try:
        text = value if type(value) is str else str(value)
        if text.isprintable():
            return text
    except Exception:  # noqa: BLE001 -- the encoding says what is wrong with it
        text = value
    return encode_text(text).decode()
