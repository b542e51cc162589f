"""Which errors are the same: a fingerprint of an exception's type, its message without what varies,
and where in one's own code it arose.

The same fault has the same fingerprint on every host, in every process and on every version of
Python: line numbers and absolute paths have no part in it, nor has library code, which changes with
its versions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from types import CodeType
from typing import Any

from structjob.values.encoding import encode_text, type_name

FRAMES = 3
"""Functions of one's own code that count, from where the exception was raised outwards. Further
out, callers differ.
"""

MAX_MESSAGE = 500
"""Characters of a message that count, once what varies is out of it."""

_LOOKED_AT = 1000
"""Characters of a message that are looked at. More than count: where a message is cut depends on
how long its numbers are.
"""

_MAX_PARTS = 32
_MAX_DEPTH = 4
_OURS = os.path.dirname(__file__) + os.sep
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]")

# CPython's own accessors: an exception's class may replace these attributes, and raise.
_parts: Any = BaseExceptionGroup.__dict__["exceptions"]
_traceback: Any = BaseException.__dict__["__traceback__"]

# IPv6, also `fe80::1`. It has a figure in it: `a::b` is a name in some languages.
_GROUPS = r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4})"
_ADDRESS = re.compile(
    rf"(?<![\w:])(?=[0-9a-f:]*\d)(?:{_GROUPS}{{7}}|(?:{_GROUPS}*)?::(?:{_GROUPS}*)?)(?![\w:])",
    re.IGNORECASE,
)
# The end of a Kubernetes pod's name, "-7d9f8b6c5-x2x4z": its alphabet has no vowels, so that it
# makes no words. It has a figure in it.
_POD = re.compile(
    r"(?<=[a-z0-9])-(?=[a-z0-9-]*\d)[bcdf-hj-np-tv-xz2456789]{8,10}-[bcdf-hj-np-tv-xz2456789]{5}\b"
)

# In this order: what is quoted may hold anything, and a path may hold numbers.
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
    # A word of hexadecimal digits that is none of a language: it has figures among its letters.
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{6,}\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "<n>"),
    (re.compile(r"\s+"), " "),
)


def fingerprint(exc: BaseException, where: str | None = None) -> str:
    """Return the fingerprint of *exc*: 16 hexadecimal digits.

    Args:
        exc: The exception; of a group its parts count, too.
        where: The operation, which counts if the traceback leads through no code of one's own.
    """
    return _digest(_pieces(exc, where, 0))


def of_words(kind: str, message: str, *where: str) -> str:
    """Return the fingerprint of an error that came as no exception: a process that crashed, a line
    of another program's log.
    """
    return _digest((kind, normalised(message), *where))


def of_event(message: object, logger: str | None, error_type: object = None) -> str:
    """Return the fingerprint of an error that was logged without an exception.

    Args:
        message: The message, where it has arguments as it was before they were filled in.
        logger: The logger's name.
        error_type: The type that the call gave, if it gave one.
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


@lru_cache(maxsize=1024)  # programs say the same things over and over
def _of_event(kind: str, text: str, logger: str) -> str:
    return of_words(kind, text, logger)


def normalised(message: str) -> str:
    """Return *message* without what varies from one occurrence to the next: numbers, ids, paths,
    URLs, quoted text.
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
        yield normalised(str(exc))
    except Exception as fault:  # noqa: BLE001 -- a raising __str__ must not hide the exception itself
        yield f"<{type(fault).__name__}>"
    frames = _frames(exc)
    yield from frames or [where or ""]
    if issubclass(type(exc), BaseExceptionGroup) and depth < _MAX_DEPTH:
        # How many tasks failed alike, and in which order, is chance.
        yield from sorted(
            {_digest(_pieces(part, where, depth + 1)) for part in _parts.__get__(exc)[:_MAX_PARTS]}
        )


def _frames(exc: BaseException) -> list[str]:
    """Return the functions of one's own code that *exc* passed, from where it was raised outwards,
    each once.
    """
    passed = []
    traceback = _traceback.__get__(exc)
    while traceback is not None:
        if (function := _function(traceback.tb_frame.f_code)) is not None:
            passed.append(function)
        traceback = traceback.tb_next
    # A recursion goes deeper at one time than at another: each function counts once, at its
    # innermost place.
    return list(dict.fromkeys(reversed(passed)))[:FRAMES]


@lru_cache(maxsize=4096)
def _function(code: CodeType) -> str | None:
    """Return the name of a function with its module's, or None if it is not one's own."""
    file = code.co_filename
    if file.startswith((_OURS, _LIBRARY, "<frozen ")) or _INSTALLED.search(file):
        return None
    if code.co_name in ("<listcomp>", "<dictcomp>", "<setcomp>"):
        return None  # since Python 3.12 these are no functions of their own
    if file.startswith("<"):  # `python -c`, a prompt, a notebook's cell: their names are numbered
        return f"<input>:{code.co_qualname}"
    *_, package, module = ["", *file.removesuffix(".py").replace("\\", "/").split("/")]
    return f"{package if module == '__init__' else module}:{code.co_qualname}"
