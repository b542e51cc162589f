"""Fingerprints of errors: equal errors have equal fingerprints.

A fingerprint consists of an exception's type, its message without variable parts, and its place in
the program's own code. The same error has the same fingerprint on every host, in every process and
on every version of Python. Therefore it contains no line numbers, no absolute paths, and no library
code, which changes with its versions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from types import CodeType
from typing import Any

from structjob.diagnostics import fault_types
from structjob.values.encoding import encode_text
from structjob.values.objects import type_name

FRAMES = 3
"""Number of functions of the program's own code that are used, starting where the exception was
raised. Outer callers differ.
"""

MAX_MESSAGE = 500
"""Maximum characters of a message that are used, after its variable parts are replaced."""

_LOOKED_AT = 1000
"""Maximum characters of a message that are read. This is larger than `MAX_MESSAGE`, because the
length of the replaced text depends on its numbers.
"""

_MAX_PARTS = 32
_MAX_DEPTH = 4
_OURS = os.path.dirname(__file__) + os.sep
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]")

# CPython's own accessors: an exception's class may replace these attributes, and the replacement
# may raise.
_parts: Any = BaseExceptionGroup.__dict__["exceptions"]
_traceback: Any = BaseException.__dict__["__traceback__"]

# IPv6, also `fe80::1`. It must contain a digit: `a::b` is a name in some languages.
_GROUPS = r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4})"
_ADDRESS = re.compile(
    rf"(?<![\w:])(?=[0-9a-f:]*\d)(?:{_GROUPS}{{7}}|(?:{_GROUPS}*)?::(?:{_GROUPS}*)?)(?![\w:])",
    re.IGNORECASE,
)
# The end of a Kubernetes pod's name, "-7d9f8b6c5-x2x4z". Its alphabet has no vowels, so that it
# forms no words. It must contain a digit.
_POD = re.compile(
    r"(?<=[a-z0-9])-(?=[a-z0-9-]*\d)[bcdf-hj-np-tv-xz2456789]{8,10}-[bcdf-hj-np-tv-xz2456789]{5}\b"
)

# In this order, because quoted text may contain anything, and a path may contain numbers.
_VARIES = (
    (re.compile(r"(?<!\w)'[^'\n]*'(?!\w)|(?<!\w)\"[^\"\n]*\"(?!\w)|`[^`\n]*`"), "<text>"),
    (re.compile(r"\b[a-z][a-z0-9+.-]{0,30}://[^\s,;)\]}>]+", re.IGNORECASE), "<url>"),
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (_ADDRESS, "<n>"),
    (
        re.compile(
            r"(?<![\w<])(?:[A-Za-z]:)?(?:[\\/][\w.+@~-]+){2,}[\\/]?|(?<![\w<.])\.{0,2}/[\w.+@~-]+"
        ),
        "<path>",
    ),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<hex>"),
    (_POD, "<pod>"),
    # Hexadecimal digits that are not a word of a language: with both digits and letters.
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{6,}\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "<n>"),
    (re.compile(r"\s+"), " "),
)


def fingerprint(exc: BaseException, where: str | None = None) -> str:
    """Return the fingerprint of *exc*: 16 hexadecimal digits.

    Args:
        exc: The exception; for a group, its exceptions are also used.
        where: The operation, which is used if the traceback contains none of the program's own
            code.
    """
    return _digest(_pieces(exc, where, 0))


def of_words(kind: str, message: str, *where: str) -> str:
    """Return the fingerprint of an error without an exception object.

    Examples are a crashed process, or a line of another program's log.
    """
    return _digest((kind, normalized(message), *where))


def of_event(message: object, logger: str | None, error_type: object = None) -> str:
    """Return the fingerprint of an error that was logged without an exception.

    Args:
        message: The message; if it has arguments, the text before they are filled in.
        logger: The logger's name.
        error_type: The type that the call gave, if any.
    """
    kind = (
        error_type
        if type(error_type) is str
        else type_name(message)
        if isinstance(message, BaseException)
        else ""
    )
    text = message if type(message) is str else encode_text(message).decode()
    return _of_event(kind, text[:_LOOKED_AT], logger or "")


@lru_cache(maxsize=1024)  # programs repeat the same messages
def _of_event(kind: str, text: str, logger: str) -> str:
    return of_words(kind, text, logger)


def normalized(message: str) -> str:
    """Return *message* without the parts that vary from one occurrence to the next.

    These are numbers, ids, paths, URLs and quoted text.
    """
    text = message[:_LOOKED_AT]
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    return text[:MAX_MESSAGE].strip()


def _digest(pieces: Iterator[str] | tuple[str, ...]) -> str:
    return blake2b("\0".join(pieces).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def _pieces(exc: BaseException, where: str | None, depth: int) -> Iterator[str]:
    yield type_name(exc)
    try:
        yield normalized(str(exc))
    except fault_types() as fault:  # a raising __str__ must not hide the exception
        yield f"<{type(fault).__name__}>"
    frames = _frames(exc)
    yield from frames or [where or ""]
    if issubclass(type(exc), BaseExceptionGroup) and depth < _MAX_DEPTH:
        # The number and order of tasks that failed in the same way is random.
        yield from sorted(
            {_digest(_pieces(part, where, depth + 1)) for part in _parts.__get__(exc)[:_MAX_PARTS]}
        )


def _frames(exc: BaseException) -> list[str]:
    """Return the functions of the program's own code in the traceback of *exc*, each once.

    They begin with the one that raised it.
    """
    passed = []
    traceback = _traceback.__get__(exc)
    while traceback is not None:
        if (function := _function(traceback.tb_frame.f_code)) is not None:
            passed.append(function)
        traceback = traceback.tb_next
    # The depth of a recursion varies, so each function is used once, at its innermost place.
    return list(dict.fromkeys(reversed(passed)))[:FRAMES]


@lru_cache(maxsize=4096)
def _function(code: CodeType) -> str | None:
    """Return the name of a function with its module, or None if it is not the program's own
    code.
    """
    file = code.co_filename
    if file.startswith((_OURS, _LIBRARY, "<frozen ")) or _INSTALLED.search(file):
        return None
    if code.co_name in ("<listcomp>", "<dictcomp>", "<setcomp>"):
        return None  # since Python 3.12 these are not separate functions
    # `python -c`, a prompt, or a notebook cell: their names contain numbers
    if file.startswith("<"):
        return f"<input>:{code.co_qualname}"
    *_, package, module = ["", *file.removesuffix(".py").replace("\\", "/").split("/")]
    return f"{package if module == '__init__' else module}:{code.co_qualname}"
