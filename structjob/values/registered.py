"""The values that a program has registered as secret, in the forms in which they may occur."""

from __future__ import annotations

import base64
import json
import re
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from urllib.parse import quote, quote_plus

from structjob.process import on_reset

SHORTEST_VALUE = 6
"""Minimum characters of a secret value: a shorter one would be replaced within other words."""


class _Forgets(Protocol):
    def forget(self) -> None: ...


class _Registered:
    """The values that are secret in this process, in the forms in which they may occur."""

    def __init__(self) -> None:
        self.pattern: re.Pattern[str] | None = None
        self._forms: set[str] = set()
        self._lock = threading.Lock()
        self._watching: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, values: Iterable[str]) -> None:
        with self._lock:
            self._forms.update(form for value in values for form in forms_of(value))
            if self._forms:
                self.pattern = any_of(self._forms)
        for watching in list(self._watching):
            watching.forget()

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._forms.clear()
            self.pattern = None

    def isolate(self) -> Callable[[], None]:
        """Return a function that removes the values that were added since."""
        forms = set(self._forms)

        def restore() -> None:
            with self._lock:
                self._forms = forms
                self.pattern = any_of(forms) if forms else None

        return restore

    def watch(self, watching: _Forgets) -> None:
        """Call *watching*'s ``forget()`` whenever a value is added, because its caches become
        invalid.
        """
        self._watching.add(watching)


registered = _Registered()
on_reset(registered.clear, registered.isolate)


def forms_of(value: str) -> set[str]:
    """Return *value* in the forms in which it may occur.

    These are: unchanged, quoted for URLs, in Base64, in JSON and in a ``repr``.
    """
    encoded = value.encode("utf-8", "backslashreplace")
    plain, urlsafe = (
        encode(encoded).decode().rstrip("=")
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    )
    # whether `repr` escapes an apostrophe depends on the whole text that contains the value
    shown = [[form(part)[1:-1] for part in value.split("'")] for form in (repr, ascii)]
    return {
        value,
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        plain,
        urlsafe,
        *(apostrophe.join(parts) for parts in shown for apostrophe in ("'", "\\'")),
        *(json.dumps(value, ensure_ascii=ensured)[1:-1] for ensured in (True, False)),
    }


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of all *texts*; the longest match wins."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))
