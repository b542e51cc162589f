"""The recorded data of an exception: type, message, traceback, and the fields that identify
errors.
"""

from __future__ import annotations

import asyncio
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from structjob.context.scope import Scope, current_scope
from structjob.diagnostics import fault_types, suppress_faults
from structjob.exceptions import InvalidArgument
from structjob.machine.frames import frame_at
from structjob.process import on_reset
from structjob.text.wording import count_of
from structjob.values.encoding import encode_text
from structjob.values.objects import type_name

if TYPE_CHECKING:
    from structjob.models import ErrorInfo

E = TypeVar("E", bound=BaseException)

MAX_TRACEBACK = 32 * 1024
"""Maximum characters of a traceback. The middle is cut, because the ends show where it began and
what the error was.
"""

_FIRST_FRAMES, _LAST_FRAMES = 100, 300
"""Maximum numbers of frames of one traceback that are formatted, and of exceptions of one chain: at
its start and at its end. Their text is about as long as `MAX_TRACEBACK`.
"""
_LONGEST_WORD = 1024
"""Maximum characters that are cut in addition, so that no part of a line or word stays."""
_REMEMBERED_FRAMES = 1000
"""Maximum number of frames whose text is remembered."""

_SHOWN_PARTS, _SHOWN_DEPTH = 15, 10
"""Number of exceptions of a group, and of nested groups, that `traceback` prints."""

MAX_PARTS = 32
"""Maximum number of exceptions of a group that are recorded at each level."""
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
_traceback: Any = BaseException.__dict__["__traceback__"]
_cause: Any = BaseException.__dict__["__cause__"]
_context: Any = BaseException.__dict__["__context__"]
_suppress_context: Any = BaseException.__dict__["__suppress_context__"]
_parts: Any = BaseExceptionGroup.__dict__["exceptions"]
_exit_code: Any = SystemExit.__dict__["code"]


def describe(exc: BaseException) -> ErrorInfo:
    """Return the stored data of *exc*.

    Errors raised by its own methods, such as ``__str__``, are ignored.
    """
    # imported late: creating the record classes takes time that a program that only logs need not
    # spend
    from structjob.models import ErrorInfo

    return ErrorInfo(type=type_name(exc), message=message_of(exc), traceback=format_traceback(exc))


def message_of(exc: BaseException) -> str:
    """Return ``str(exc)`` as a plain `str`, or a text that says why this failed."""
    try:
        return str.__str__(str(exc))
    except fault_types() as fault:  # a raising __str__ must not hide the exception
        return f"<its text raised {type_name(fault)}>"


def format_traceback(exc: BaseException) -> str:
    """Return the traceback as Python prints it, never with local variables.

    It includes causes, notes and every exception of a group.
    """
    trace, left = traceback_of(exc), Counter[str]()
    try:
        text = _formatted(exc, trace, left)
    except fault_types():  # see message_of
        # The causes, the notes or the text raised an error. The place of the exception is still
        # known.
        lines = (
            ["Traceback (most recent call last):\n", *_Frames.of(trace).format()]
            if trace is not None
            else []
        )
        text = f"{''.join(lines)}{type_name(exc)}: {message_of(exc)}\n"
    if len(text) > MAX_TRACEBACK:
        start, end = _between_words(text, MAX_TRACEBACK // 4, len(text) - MAX_TRACEBACK * 3 // 4)
        left_out = count_of(end - start + left["character"], "character")
        # the lines that say how many frames and exceptions are missing are cut, too
        for one in _LEFT_OUT.finditer(text, start, end):
            left[one[2]] += int(one[1].replace(",", ""))
        for what in ("frame", "exception"):
            if left[what]:
                left_out += f" and {count_of(left[what], f'more {what}')}"
        text = f"{text[:start]}\n…[cut: {left_out}]\n{text[end:]}"
    return text


def _between_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Return where to cut *text* instead of from *start* to *end*: at the end of a line or a word.

    Half a secret could not be recognized any more.
    """
    before = [text.rfind(space, start - _LONGEST_WORD, start) for space in ("\n", " ")]
    after = [text.find(space, end, end + _LONGEST_WORD) + 1 for space in ("\n", " ")]
    return next((at for at in before if at >= 0), start), next(filter(None, after), end)


def _formatted(exc: BaseException, trace: TracebackType | None, left: Counter[str]) -> str:
    """Return the text of `traceback.format_exception`, without parts of it that `format_traceback`
    cuts anyway: the middle of long tracebacks, chains, messages and notes.

    *left* counts the characters that are left out.
    """
    shown = _chain(exc, set(), left)
    shown.stack = _Frames.of(trace)
    return "".join(shown.format())


def _chain(
    exc: BaseException, seen: set[int], left: Counter[str], depth: int = 0
) -> traceback.TracebackException:
    """Return *exc* and its causes, to be formatted, as `traceback.TracebackException` does.

    That one would prepare all causes and all exceptions of a group, whatever their number.
    """
    links: list[tuple[BaseException, bool]] = []  # with whether it is the cause of the one before
    one, is_cause = exc, False
    while one is not None:
        seen.add(id(one))
        links.append((one, is_cause))
        cause, context = _cause.__get__(one), _context.__get__(one)
        is_cause = cause is not None and id(cause) not in seen
        if not is_cause and (_suppress_context.__get__(one) or id(context) in seen):
            break
        one = cause if is_cause else context
    missing = max(0, len(links) - _FIRST_FRAMES - _LAST_FRAMES)
    del links[_LAST_FRAMES : _LAST_FRAMES + missing]  # the last ones are printed first
    after = first = _part(exc, seen, left, depth)
    for index, (link, is_cause) in enumerate(links[1:], 1):
        part = _part(link, seen, left, depth)
        if missing and index == _LAST_FRAMES:
            notes = part.__notes__ if type(part.__notes__) is list else []
            part.__notes__ = [*notes, f"[{count_of(missing, 'exception')} left out]"]
        if is_cause:
            after.__cause__ = part
        else:
            after.__context__, after.__suppress_context__ = part, False
        after = part
    return first


def _part(
    exc: BaseException, seen: set[int], left: Counter[str], depth: int
) -> traceback.TracebackException:
    """Return *exc* without its causes, to be formatted."""
    # A given `_seen` means: leave the causes to the caller.
    part = traceback.TracebackException(type(exc), exc, None, limit=0, compact=True, _seen=set())
    part.stack = _Frames.of(traceback_of(exc))
    part.__cause__ = part.__context__ = part.exceptions = None
    # The only way to shorten the message. A Python without this attribute formats all of it.
    vars(part)["_str"] = _ends(vars(part).get("_str", ""), left)
    notes = part.__notes__
    texts = [note for note in notes if type(note) is str] if type(notes) is list else []
    if sum(map(len, texts)) > 2 * MAX_TRACEBACK:
        part.__notes__ = _ends("\n".join(texts), left).split("\n")
    if issubclass(type(exc), BaseExceptionGroup):
        members = _parts.__get__(exc)
        shown = list(members[:_SHOWN_PARTS]) if depth <= _SHOWN_DEPTH else []
        seen.update(map(id, shown))
        # A cause that several have is printed with the last one, as `traceback` does.
        chains = [_chain(one, seen, left, depth + 1) for one in reversed(shown)][::-1]
        # Of the others, only the number is printed.
        part.exceptions = chains + chains[-1:] * (len(members) - len(chains))
    return part


def _ends(text: str, left: Counter[str]) -> str:
    """Return what `format_traceback` can show of *text*: its start and its end."""
    if len(text) <= 2 * MAX_TRACEBACK:
        return text
    left["character"] += len(text) - MAX_TRACEBACK
    return f"{text[: MAX_TRACEBACK // 4]}{text[-MAX_TRACEBACK * 3 // 4 :]}"


_LEFT_OUT = re.compile(r"^[ |]*\[([\d,]+) (frame|exception)s? left out\]$", re.MULTILINE)


class _Frames(traceback.StackSummary):
    """The frames of one traceback, of which the middle is left out if there are many.

    Every step that an exception leaves formats almost the same frames. Their texts are remembered,
    because Python parses the source of each frame to mark the place in the line.
    """

    left_out = 0
    """Number of frames that are left out after the first ones."""
    _texts: ClassVar[dict[tuple[Any, ...], str]] = {}

    @classmethod
    def of(cls, trace: TracebackType | None) -> _Frames:
        """Return the frames of *trace*."""
        count, one = 0, trace
        while one is not None:
            count, one = count + 1, one.tb_next
        left_out = count - _FIRST_FRAMES - _LAST_FRAMES
        if left_out <= 0 or hasattr(sys, "tracebacklimit"):
            return cls(traceback.extract_tb(trace))
        last = trace
        for _ in range(count - _LAST_FRAMES):
            assert last is not None  # noqa: S101 -- there are more frames
            last = last.tb_next
        found = cls(traceback.extract_tb(trace, _FIRST_FRAMES) + traceback.extract_tb(last))
        found.left_out = left_out
        return found

    def format(self, **how: Any) -> list[str]:
        if not self.left_out:
            return super().format(**how)
        return [
            *_Frames(self[:_FIRST_FRAMES]).format(**how),
            f"  [{count_of(self.left_out, 'frame')} left out]\n",
            *_Frames(self[_FIRST_FRAMES:]).format(**how),
        ]

    def format_frame_summary(self, frame_summary: traceback.FrameSummary, **how: Any) -> str:
        one = frame_summary
        key = (
            *(one.filename, one.lineno, one.name, one.line),
            *(one.end_lineno, one.colno, one.end_colno, *how.items()),
        )
        text = self._texts.get(key)
        if text is None:
            text = super().format_frame_summary(one, **how)
            if len(self._texts) >= _REMEMBERED_FRAMES:
                self._texts.clear()
            self._texts[key] = text
        return text


def traceback_of(exc: BaseException) -> TracebackType | None:
    """Return the traceback of *exc*, even if its class overrides ``__traceback__``."""
    found: TracebackType | None = _traceback.__get__(exc)
    return found


def restore_traceback(exc: BaseException, trace: TracebackType | None) -> None:
    """Set the traceback of *exc* to *trace*.

    An assignment would raise if the exception is a frozen dataclass.
    """
    BaseException.with_traceback(exc, trace)


def leave_out_caller(exc: BaseException) -> None:
    """Remove the frame of the calling function from the traceback of *exc*, which it has caught and
    raises again with a bare ``raise``. The frame is one of structjob's and shows nothing.
    """
    trace = traceback_of(exc)
    if trace is not None and trace.tb_frame is frame_at(1):
        restore_traceback(exc, trace.tb_next)


def exits_cleanly(exc: BaseException) -> bool:
    """Return whether *exc* is a `SystemExit` that reports success."""
    if not issubclass(type(exc), SystemExit):
        return False
    code = _exit_code.__get__(exc)
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
    cause = _cause.__get__(exc)
    if cause is None and not _suppress_context.__get__(exc):
        cause = _context.__get__(exc)
    if cause is not None:
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
    attrs = {
        **error_fields(exc, classifier, message),
        "exception": _structure(exc, 0, message),
    }
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
    info: dict[str, Any] = {
        "type": type_name(exc),
        "module": _module(exc),
        "message": message,
    }
    if depth == 0:
        info["traceback"] = format_traceback(exc)
    if issubclass(type(exc), BaseExceptionGroup):
        parts = _parts.__get__(exc)
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
