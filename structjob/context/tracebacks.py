"""The text of an exception: its message and its traceback, as Python prints them, but cut."""

from __future__ import annotations

import re
import sys
import traceback
from collections import Counter
from types import TracebackType
from typing import Any, ClassVar

from structjob.diagnostics import fault_types
from structjob.machine.frames import frame_at
from structjob.text.wording import count_of
from structjob.values.objects import type_name

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

# An exception's class may replace every attribute, and the replacement may raise. CPython's own
# accessors of these attributes cannot be replaced.
_traceback: Any = BaseException.__dict__["__traceback__"]
_cause: Any = BaseException.__dict__["__cause__"]
_context: Any = BaseException.__dict__["__context__"]
_suppress_context: Any = BaseException.__dict__["__suppress_context__"]
_parts: Any = BaseExceptionGroup.__dict__["exceptions"]


def message_of(exc: BaseException) -> str:
    """Return ``str(exc)`` as a plain `str`, or a text that says why this failed."""
    try:
        return str.__str__(str(exc))
    except fault_types() as fault:  # a raising __str__ must not hide the exception
        return f"<its text raised {type_name(fault)}>"


def cause_of(exc: BaseException) -> BaseException | None:
    """Return the exception that Python prints before *exc*, as its cause or its context."""
    cause: BaseException | None = _cause.__get__(exc)
    if cause is None and not _suppress_context.__get__(exc):
        cause = _context.__get__(exc)
    return cause


def parts_of(group: BaseException) -> tuple[BaseException, ...]:
    """Return the exceptions of a *group*."""
    found: tuple[BaseException, ...] = _parts.__get__(group)
    return found


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
        members = parts_of(exc)
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
    """Remove the frame of the calling function from the traceback of *exc*.

    The function has caught *exc* and raises it again with a bare ``raise``. The frame is one of
    structjob's and shows nothing.
    """
    trace = traceback_of(exc)
    if trace is not None and trace.tb_frame is frame_at(1):
        restore_traceback(exc, trace.tb_next)
