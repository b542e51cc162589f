"""The recorded data of an exception: type, message, traceback, and the fields that identify
errors.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from structjob.context.scope import Scope, current_scope
from structjob.context.tracebacks import cause_of, format_traceback, message_of, parts_of
from structjob.diagnostics import fault_types, suppress_faults
from structjob.exceptions import InvalidArgument
from structjob.process import on_reset
from structjob.text.wording import count_of
from structjob.values.encoding import encode_text
from structjob.values.objects import type_name

if TYPE_CHECKING:
    from structjob.models import ErrorInfo

E = TypeVar("E", bound=BaseException)


MAX_PARTS = 32
"""Maximum number of exceptions of a group that are recorded at each level."""
_REMOTE = ("RemoteTraceback", "_RemoteTraceback")
"""Not causes: pools of processes attach the traceback of the worker in this form."""
_MAX_DEPTH = 4
"""Maximum number of nested levels of exception groups that are recorded."""

Classifier = Callable[[BaseException], Mapping[str, Any]]
"""Takes an exception and returns ``error_type``, ``retry_possible``, ``error_code`` or further
fields.

Omitted fields are derived.
"""

REGISTERED: dict[type[BaseException], dict[str, Any]] = {}
"""The fields that `classify` registered, by type of exception."""


def _isolate() -> Callable[[], None]:
    registered = dict(REGISTERED)

    def restore() -> None:
        REGISTERED.clear()
        REGISTERED.update(registered)

    return restore


on_reset(REGISTERED.clear, _isolate)


def classify(kind: type[BaseException], /, **fields: Any) -> None:
    """Register the recorded fields for a type of exception and its subclasses.

    ::

        structjob.classify(QuotaExceeded, error_type="quota", retry_possible=False)

    This is for libraries, in addition to the one classifier of `configure`, whose fields take
    precedence.

    Args:
        kind: The type. If several types fit an exception, the first one in its method resolution
            order is used.
        fields: ``error_type``, ``error_code``, ``retry_possible``, or others. Without fields, the
            registration of *kind* is removed.

    Raises:
        InvalidArgument: if *kind* is not a type of exception.
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


# An exception's class may replace every attribute, and the replacement may raise. CPython's own
# accessors of these attributes cannot be replaced.
_dict: Any = BaseException.__dict__["__dict__"]
_exit_code: Any = SystemExit.__dict__["code"]


def describe(exc: BaseException) -> ErrorInfo:
    """Return the stored data of *exc*.

    Errors raised by its own methods, such as ``__str__``, are ignored.
    """
    # imported late: creating the record classes takes time that a program that only logs need not
    # spend
    from structjob.models import ErrorInfo

    return ErrorInfo(type=type_name(exc), message=message_of(exc), traceback=format_traceback(exc))


_EXITS = (("click.exceptions", "Exit"), ("typer", "Exit"))


def imported(names: Sequence[tuple[str, str]]) -> tuple[type[BaseException], ...]:
    """Return those of the exceptions *names* whose module is imported; each is module and name."""
    found = []
    for module, name in names:
        with suppress_faults():  # a module may load its attributes late, and fail
            kind = getattr(sys.modules.get(module), name, None)
            if isinstance(kind, type):
                found.append(kind)
    return tuple(found)


def exits_cleanly(exc: BaseException) -> bool:
    """Return whether *exc* is a `SystemExit`, or the ``Exit`` of click or Typer, and reports
    success.
    """
    code: object = 1
    if issubclass(type(exc), SystemExit):
        code = _exit_code.__get__(exc)
    elif issubclass(type(exc), imported(_EXITS)):
        with suppress_faults():
            code = getattr(exc, "exit_code", 1)
    return code is None or (type(code) in (int, bool) and code == 0)


def error_fields(
    exc: BaseException, classifier: Classifier | None = None, message: str | None = None
) -> dict[str, Any]:
    """Return the standard fields of a failure (S1).

    These are type, message, code, whether a retry may help, and the cause.

    Args:
        exc: The exception.
        classifier: Its result takes precedence over the derived fields; it is ignored if it raises.
        message: Its `message_of`, if the caller has it.
    """
    fields: dict[str, Any] = {
        "error_type": type_name(exc),
        "error_message": message_of(exc) if message is None else message,
        "retry_possible": issubclass(type(exc), _RETRY_POSSIBLE),
    }
    for name in ("errno", "code", "status_code"):
        # attributes of an exception may be properties or come from `__getattr__`, and may raise
        with suppress_faults():
            code = getattr(exc, name, None)
            if issubclass(type(code), (int, str)) and code:
                fields["error_code"] = code
                break
    cause = cause_of(exc)
    if cause is not None and type_name(cause) not in _REMOTE:
        fields["underlying_error"] = f"{type_name(cause)}: {message_of(cause)}"
    if REGISTERED:
        found = next((REGISTERED[kind] for kind in type(exc).__mro__ if kind in REGISTERED), {})
        fields.update(found)
    if classifier is not None:
        # an error in the classifier must not hide the failure
        with suppress_faults():
            fields.update(classifier(exc))
    return fields


def exception_attrs(
    exc: BaseException,
    classifier: Classifier | None = None,
    scope: Scope | None = None,
    *,
    counts: bool = True,
) -> dict[str, Any]:
    """Return the attributes of an event with *exc*: the standard fields, and ``exception``.

    ``exception`` contains the structure of the exception. The first event with an exception is its
    occurrence, and has ``error_fingerprint``, by which errors are counted. Later events with the
    same exception, as it passes through steps and jobs, do not have it.

    Args:
        exc: The exception.
        classifier: See `error_fields`.
        scope: The scope that the event belongs to. If one exception fails several jobs, and none of
            them began another, it is an occurrence in each.
        counts: Whether the event is recorded; if not, it is not an occurrence.
    """
    message = message_of(exc)
    attrs = {**error_fields(exc, classifier, message), "exception": _structure(exc, 0, message)}
    if counts and not is_recorded(exc, scope):
        attrs["error_fingerprint"] = _mark_recorded(exc, scope)
    return attrs


def attrs_at_end(
    exc: BaseException, classifier: Classifier | None, scope: Scope | None
) -> dict[str, Any]:
    """Return the attributes of the event that says that a job or step ended with *exc*.

    The first report of the exception, usually by the innermost step, contains its traceback.
    """
    if is_recorded(exc, scope):
        return error_fields(exc, classifier)
    return exception_attrs(exc, classifier, scope)


class _Marked(dict[str, Any]):
    """The ``__dict__`` of a recorded exception, with a mark that ``vars(exc)`` does not show.

    Few exceptions can be weakly referenced. A strong reference would keep the frames of the
    traceback alive, with all their objects. Therefore the mark lives in the exception. A pickled or
    copied exception has a plain ``dict`` again, without the mark.

    Attributes:
        mark: The fingerprint, and the roots of the job trees in which the exception was recorded.
        correlation_id: The correlation id of the code that raised the exception, if it is known.
        scope: The scope of the function that it left, if that ran in a context of its own.
    """

    __slots__ = ("correlation_id", "mark", "scope")
    mark: tuple[str, tuple[str | None, ...]]
    correlation_id: str | None
    scope: Scope | None

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return dict, (dict(self),)


def is_recorded(exc: BaseException, scope: Scope | None) -> bool:
    """Return whether an event has recorded *exc* already: in this tree of jobs.

    If the event belongs to no job, an event in any tree counts.
    """
    root, recorded = _root(scope), _mark(exc)[1]
    return root in recorded or (root is None and bool(recorded))


def _mark_recorded(exc: BaseException, scope: Scope | None) -> str:
    # imported late: compiling its patterns takes time that a program without errors need not spend
    from structjob.values.fingerprint import fingerprint, of_words

    found, recorded = _mark(exc)
    # Computed once: code that awaits the same task later gets the exception without its former
    # traceback.
    try:
        found = found or fingerprint(exc, scope.operation if scope is not None else None)
    except fault_types():  # its parts may raise
        found = of_words(type_name(exc), message_of(exc))
    _marked(exc).mark = (found, (*recorded, _root(scope)))
    return found


def _marked(exc: BaseException) -> _Marked:
    marked = _dict.__get__(exc)
    if type(marked) is not _Marked:
        marked = _Marked(marked)
        marked.mark = ("", ())
        marked.correlation_id = marked.scope = None
        _dict.__set__(exc, marked)
    return marked


def correlate_exception(exc: BaseException, correlation_id: str | None) -> None:
    """Keep the correlation id of the code that *exc* leaves, for `correlation_of`."""
    _marked(exc).correlation_id = correlation_id


def correlation_of(exc: BaseException) -> str | None:
    """Return the correlation id of the code that raised *exc*, if it is known.

    A server logs the exception of a request after the request's code has ended.
    """
    kept = _dict.__get__(exc)
    return kept.correlation_id if type(kept) is _Marked else None


def keep_scope(exc: BaseException, scope: Scope | None) -> None:
    """Keep the scope of the function that *exc* leaves, for `scope_of`."""
    if scope is not None:
        _marked(exc).scope = scope


def scope_of(exc: BaseException) -> Scope | None:
    """Return the scope of the function of `structjob.in_context` that *exc* has left, if any.

    An exception that nothing catches is reported outside the context in which it was raised.
    """
    kept = _dict.__get__(exc)
    return kept.scope if type(kept) is _Marked else None


def _mark(exc: BaseException) -> tuple[str, tuple[str | None, ...]]:
    kept = _dict.__get__(exc)
    return kept.mark if type(kept) is _Marked else ("", ())


def _root(scope: Scope | None) -> str | None:
    return None if scope is None else scope.root_job_id or scope.job_id


def _structure(exc: BaseException, depth: int, message: str) -> dict[str, Any]:
    info: dict[str, Any] = {"type": type_name(exc), "module": _module(exc), "message": message}
    if depth == 0:
        info["traceback"] = format_traceback(exc)
    if issubclass(type(exc), BaseExceptionGroup):
        parts = parts_of(exc)
        kept = parts[:MAX_PARTS] if depth < _MAX_DEPTH else ()
        shown: list[Any] = [_structure(part, depth + 1, message_of(part)) for part in kept]
        if (left := len(parts) - len(kept)) > 0:
            shown.append(f"…[cut: {left:,} more of {count_of(len(parts), 'exception')}]")
        info["exceptions"] = shown
    return info


def _module(exc: BaseException) -> str:
    try:
        return str(type(exc).__module__)
    except fault_types():  # a metaclass may override it
        return "?"


def enrich(exc: E, /, **fields: Any) -> E:
    """Attach ``[key=value, …]`` to *exc* as a note, so that its context is printed with the
    exception.

    The ids of the current job and step, and the operation, come first, unless a note of *exc*
    already contains them.

    Args:
        exc: The exception that is being raised.
        fields: The fields to attach.

    Returns:
        The same exception, for ``raise enrich(exc, vm=name)``. An exception that cannot take notes
        is returned unchanged.
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
    """Attach ``[key=value, …]`` to *exc* as a note, once.

    An exception that cannot take notes is unchanged.
    """
    try:
        # Encoded as JSON text: a value with a newline or an escape sequence must not forge lines.
        note = f"[{', '.join(f'{key}={_shown(value)}' for key, value in fields.items() if value is not None)}]"
        if note not in getattr(exc, "__notes__", ()):
            exc.add_note(note)
    except fault_types():  # an exception that cannot take notes is still an exception
        pass


def is_noted(exc: BaseException, *ids: str) -> bool:
    """Return whether a note of *exc* contains one of *ids*."""
    try:
        return any(one in note for note in exc.__notes__ for one in ids)
    except fault_types():  # it has no notes, or another object in their place
        return False


def _shown(value: Any) -> str:
    try:
        text = value if type(value) is str else str(value)
        if text.isprintable():
            return text
    except fault_types():  # the encoder describes what is wrong with it
        text = value
    return encode_text(text).decode()
