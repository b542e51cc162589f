"""The parts of an event as pieces of JSON, which form the lines for database, console and files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import msgspec

from structjob.context import logged
from structjob.context.errors import Classifier, exception_attrs
from structjob.context.scope import Scope, json_fields
from structjob.exceptions import InvalidArgument
from structjob.levels import LEVEL_ALIASES, LEVELS
from structjob.machine.frames import frame_at
from structjob.spool.line import level_field
from structjob.values.bounds import MAX_KEY, MAX_STRING, OF_EVENT, ROOM
from structjob.values.credentials import MARK, is_plain
from structjob.values.encoding import encode_plain, encode_text, encode_value
from structjob.values.normalizer import normalize, redacted_text, with_text_keys
from structjob.values.redaction import Redactor, rules_of
from structjob.values.registered import registered
from structjob.values.secret_rules import SecretRules


class Kind(str):
    """A kind that the library gives to an event that passes structlog's processors.

    Attributes:
        given: The user's attribute named ``kind``, which is an ordinary attribute.
    """

    given: Any = None

    def beside(self, given: Any) -> Kind:
        """Return the same kind, with the user's attribute *given*."""
        kind = Kind(self)
        kind.given = given
        return kind


@dataclass(frozen=True, slots=True)
class Level:
    """A level, and the bytes between the time and the message in a line.

    Attributes:
        number: The number of the level.
        name: The name of the level.
        stored: The bytes in a line of the spool.
        shown: The bytes in a line that is shown.
    """

    number: int
    name: str
    stored: bytes
    shown: bytes


BY_NAME = {
    name: Level(n, name, level_field(name), b'Z","level":"%b","event":' % name.encode())
    for name, n in LEVELS.items()
}
BY_NAME |= {alias: BY_NAME[name] for alias, name in LEVEL_ALIASES.items()}

# Keys with a meaning for this library, or that other code sets for the renderer.
_COLUMNS = {name: name for name in ("category", "project", "trace_id", "span_id")}
_COLUMNS["error_fingerprint"] = "fingerprint"
_OWN = frozenset({"timestamp", "level", "event", "logger"})
ARGUMENTS = frozenset({"self", "method_name", "event"})
"""Names of arguments of structlog's methods.

Attributes with these names are passed as ``attrs.self`` and so on.
"""
_APART = {f"attrs.{name}": name for name in ARGUMENTS}
_SPECIAL = frozenset(
    {
        *_COLUMNS,
        *_OWN,
        *_APART,
        "kind",
        "exc_info",
        "stack_info",
        "job_id",
        "step_id",
        "correlation_id",
        "parent_job_id",
    }
)
_LIMITS = {
    "logger": 255,
    "category": 64,
    "project": 128,
    "trace_id": 32,
    "span_id": 16,
    "fingerprint": 64,
}
"""Maximum characters of the columns, see ``structjob.store.tables``."""
_ERROR = LEVELS["error"]
_REMEMBERED = 4096
"""Maximum number of remembered keys, and of messages, that need no further check."""
_TEXTS = 1024
"""The same of texts."""
_SHORT = 1024
"""A message, and the texts of attributes, are remembered if their JSON is shorter."""
_WORDS = 2_000
"""Maximum characters of the stored text of our own events; the error is also in the attributes."""
_TOKEN = 16
"""Minimum characters of a token."""
_encode_lines = msgspec.json.Encoder().encode_lines
_is_word = re.compile(r"[A-Za-z0-9_.-]+").fullmatch
_is_hex = re.compile(r"[0-9A-Fa-f]+").fullmatch


class Encoder:
    """Turns the data of a processor into the pieces of lines.

    `FanOut` and `record_event` share it.

    Args:
        redactor: Removes secrets; ``None`` leaves them in.
        classifier: Derives ``error_type`` and similar fields from an exception.
    """

    def __init__(
        self, redactor: SecretRules | None = None, classifier: Classifier | None = None
    ) -> None:
        self.redactor = redactor
        self.classifier = classifier
        self.plain: set[str] = set()
        """Keys that are known to be neither special nor secret.

        An event with only such keys needs no further check of them.
        """
        self.harmless: set[str] = set()
        """Short texts that are known to contain no credential."""
        self.messages: dict[str, bytes] = {}
        registered.watch(self)

    def forget(self) -> None:
        """Forget the harmless texts and keys, because another value is secret from now on.

        The caches are new objects: a check that is still running adds its result to the old ones.
        """
        self.plain, self.harmless, self.messages = set(), set(), {}
        logger_name.cache_clear()

    def attrs(
        self,
        given: MutableMapping[str, Any],
        columns: dict[str, Any],
        scope: Scope | None = None,
        *,
        recorded: bool = True,
    ) -> dict[str, Any]:
        """Return the attributes in *given*; move values with a column of their own into *columns*.

        The first event of *scope* that is *recorded* reports an exception; see
        `structjob.context.errors.exception_attrs`.
        """
        if any(type(key) is not str or len(key) > MAX_KEY for key in given):
            given = with_text_keys(given, self._redact)
        attrs, plain = dict(given), self.plain
        for key in given:
            if key in plain:
                continue
            if key in _SPECIAL:
                self._special(key, attrs, columns, scope, recorded)
            elif self._concerns(key):
                self._hide(key, attrs)
            else:
                # begun anew when full: the keys of one event must not keep out all later ones
                if len(plain) >= _REMEMBERED:
                    plain.clear()
                plain.add(key)
        return attrs

    @property
    def _redact(self) -> Callable[[str], object] | None:
        return None if self.redactor is None else self.redactor.redact

    def _concerns(self, key: str) -> bool:
        return self.redactor is not None and (
            self.redactor.reads_all or self.redactor.concerns(key)
        )

    def _hide(self, key: str, attrs: dict[str, Any]) -> None:
        """Remove from *attrs* what is secret under *key*.

        This can be the value, the key itself, or a value that another attribute names.
        """
        redactor = self.redactor
        assert redactor is not None  # noqa: S101 -- `_concerns` has checked it
        hidden = redactor.named(attrs)
        value = redactor.redact(normalize(attrs[key], redact=redactor.redact), key)
        if (shown := redactor.text(key)) != key:
            del attrs[key]
        attrs[shown] = value
        attrs.update(dict.fromkeys(hidden, MARK))

    def _special(
        self,
        key: str,
        attrs: dict[str, Any],
        columns: dict[str, Any],
        scope: Scope | None,
        recorded: bool,
    ) -> None:
        if key in _COLUMNS:
            column, value = _COLUMNS[key], attrs[key]
            # our own event: a job's summary must not change its columns
            if column in columns and column != "fingerprint":
                return
            # most values are short words, which need no further check
            if type(value) is not str or len(value) >= _TOKEN or _is_word(value) is None:
                value = normalize(value, redact=self._redact)
                value = value if self.redactor is None else self.redactor.redact(value)
            text = str(value) if type(value) is int else value
            if column == "fingerprint" and type(text) is str:
                # a longer value is truncated and not omitted, so that the error is still counted
                text = text[: _LIMITS[column]]
            if text is None or _fits(column, text):
                del attrs[key]
                if text is not None:
                    columns[column] = text
        elif key in _APART:
            attrs.setdefault(_APART[key], attrs.pop(key))
        elif key == "exc_info":
            exc = exception_of(attrs[key])
            if exc is not None or attrs[key] is None or type(attrs[key]) in (bool, int, tuple):
                # otherwise it is not an `exc_info` that structlog knows, and an ordinary attribute
                del attrs[key]
            if exc is not None:
                job = scope.job if scope is not None else None
                found = exception_attrs(
                    exc, self.classifier if job is None else job.classifier, scope, counts=recorded
                )
                if (fingerprint := found.pop("error_fingerprint", None)) is not None:
                    columns.setdefault("fingerprint", fingerprint)
                for name, value in found.items():
                    attrs.setdefault(name, value)
        elif key == "kind" and type(attrs[key]) is Kind:
            kind = attrs.pop(key)
            columns["kind"] = str(kind)
            if kind.given is not None:
                attrs[key] = kind.given
        elif key == "stack_info":
            given = attrs.pop(key)
            if type(given) is str:  # as in a record of `logging`
                attrs.setdefault("stack", given)
            elif given is not None and given is not False:
                import traceback

                attrs["stack"] = "".join(traceback.format_stack(frame_at(4)))
        # The ids stay: ids given by the user are ordinary attributes, and the scope determines
        # where the event belongs. The same holds for ``level``, ``timestamp``, ``event``,
        # ``logger``, ``kind`` and ``stream``: the event's own values are columns.

    def encode(self, message: Any, attrs: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return message and attributes as JSON, redacted and within the size limit of an event."""
        message_json = self.message(message)
        return message_json, self.attributes(attrs, message_json)

    def attributes(self, attrs: dict[str, Any], message_json: bytes) -> bytes:
        """Return *attrs* as JSON, redacted and within the size limit of an event."""
        unknown: list[str] = []
        attrs_json = encode_plain(attrs, self.harmless, unknown)
        return self.check(attrs_json, unknown, attrs, message_json)

    def check(
        self,
        attrs_json: bytes | None,
        unknown: list[str],
        attrs: dict[str, Any],
        message_json: bytes,
    ) -> bytes:
        """Return *attrs* as `attributes` does, after `encode_plain` with its results.

        The attributes are encoded again, with all checks, if this is needed.
        """
        harmless, redactor = self.harmless, self.redactor
        if attrs_json is not None:
            if redactor is None:
                return attrs_json
            if (redactor.reads_all or not is_plain(attrs_json, len(attrs))) and any(
                map(redactor.suspects, unknown)
            ):
                attrs_json = None
        if attrs_json is None:
            return encode_value(attrs, OF_EVENT._replace(room=ROOM - len(message_json)), redactor)
        if len(attrs_json) < _SHORT:
            harmless.update(unknown)
            if len(harmless) > _TEXTS:
                harmless.clear()
        return attrs_json

    def once(self, message: Any) -> bytes:
        """Return *message* as JSON, redacted, without caching it, because it will rarely occur
        again.
        """
        if self.redactor is None or (
            type(message) is str
            and len(message) <= MAX_STRING // 4
            and not self.redactor.suspects(message)
        ):
            return encode_text(message)
        return encode_text(redacted_text(message, self.redactor.text))

    def words(self, text: str) -> bytes:
        """Return the readable text of one of our own events as JSON, redacted and shortened."""
        if len(text) < _SHORT // 4:  # most of them recur: a step's name, and the time that it took
            return self.messages.get(text) or self.message(text)
        text = text[: 2 * _WORDS]  # a secret at the end of the stored part is seen whole
        if self.redactor is not None:
            text = self.redactor.text(text)
        return encode_text(text[:_WORDS])

    def lines(self, lines: list[str]) -> list[bytes]:
        """Return each of *lines* as `once` does, in a fraction of the time."""
        together = "\n".join(lines)
        if "\x00" not in together and not (self.redactor and self.redactor.suspects(together)):
            with suppress(UnicodeEncodeError):
                encoded = _encode_lines(lines).split(b"\n")[:-1]
                if max(map(len, encoded)) <= MAX_STRING:
                    return encoded
        return list(map(self.once, lines))

    def message(self, message: Any) -> bytes:
        """Return *message* as JSON, redacted."""
        messages, encoded = self.messages, self.once(message)
        # Cached, because programs repeat the same messages.
        if type(message) is str and len(encoded) < _SHORT // 4:
            if len(messages) >= _REMEMBERED:
                messages.clear()
            messages[message] = encoded
        return encoded


def _fits(column: str, value: Any) -> bool:
    """Return whether *column* can hold *value*.

    A value that does not fit stays an attribute, because half an id is a different id.
    """
    return (
        type(value) is str
        and 0 < len(value) <= _LIMITS[column]
        and (column not in ("trace_id", "span_id") or _is_hex(value) is not None)
    )


@lru_cache(maxsize=4096)
def logger_name(name: str, redactor: SecretRules | None) -> str:
    """Return *name* in the form for the column ``logger``."""
    text = str(normalize(name))
    text = text if redactor is None else redactor.text(text)
    return (
        text
        if len(text) <= _LIMITS["logger"]
        else f"{text[:200]}…[cut: the first 200 of {len(text):,} kept]"
    )


def exception_of(exc_info: Any) -> BaseException | None:
    """Return the exception that the ``exc_info`` of a log call means."""
    # `isinstance` would call the object, which may raise
    if issubclass(type(exc_info), BaseException):
        return cast("BaseException", exc_info)
    if isinstance(exc_info, tuple):
        return (
            exc_info[1]
            if len(exc_info) > 1 and issubclass(type(exc_info[1]), BaseException)
            else None
        )
    return sys.exc_info()[1] if exc_info else None


def error_columns(
    level: Level,
    message: Any,
    given: Mapping[str, Any],
    logger: str | None,
    columns: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Return *columns* with a fingerprint that counts an error logged without an exception.

    Our own events, which have a kind or a stream, get no fingerprint: their errors are counted
    where they occurred, or their text was printed.

    Args:
        level: The level.
        message: The message, before its arguments are filled in.
        given: The attributes.
        logger: Name of the logger.
        columns: The columns that are already known.
    """
    if level.number < _ERROR or (
        columns and not columns.keys().isdisjoint(("kind", "stream", "fingerprint"))
    ):
        return columns
    if "error_fingerprint" in given or (
        "exc_info" in given and exception_of(given["exc_info"]) is not None
    ):
        return columns
    # imported late: compiling its patterns takes time that a program without errors need not spend
    try:
        from structjob.values.fingerprint import of_event
    except ImportError:  # the interpreter is ending, and has no modules any more
        return columns
    return {**(columns or {}), "fingerprint": of_event(message, logger, given.get("error_type"))}


def note_logged(scope: Scope | None, given: Mapping[str, Any]) -> None:
    """Keep the exception of an event of level error, if it belongs to a request."""
    if scope is None or scope.job_id is None or "exc_info" not in given:
        return
    if (exc := exception_of(given["exc_info"])) is not None:
        logged.note(scope.job_id, exc)


def columns_json(scope: Scope | None, columns: dict[str, Any] | None) -> bytes:
    """Return the fields after the attributes in an event's line."""
    if not columns:
        return scope.columns if scope is not None else b""
    if scope is None:
        return json_fields(columns)
    if len(columns) == 1:  # the kind of one of our own events
        for key, value in columns.items():
            if key not in scope.column_values:
                return scope.columns + field_json(key, value)
    elif columns.keys().isdisjoint(scope.column_values):
        return scope.columns + json_fields(columns)
    # Columns from the log call take precedence over columns from the job.
    return json_fields({**scope.column_values, **columns})


def shown_json(scope: Scope | None, columns: dict[str, Any], attrs: Mapping[str, Any]) -> bytes:
    """Return the fields before the attributes where an event is shown.

    An attribute with the same name takes precedence.
    """
    if "fingerprint" in columns:  # people do not need the fingerprint
        columns = {name: value for name, value in columns.items() if name != "fingerprint"}
    if (
        scope is not None
        and columns.keys().isdisjoint(scope.ids)
        and not attrs.keys() & (scope.ids.keys() | columns.keys() - _OWN)
    ):
        return scope.shown + json_fields(columns)
    fields = {"logger": columns["logger"]} if "logger" in columns else {}
    if scope is not None:
        fields |= scope.ids
    fields |= columns
    return json_fields(
        {key: value for key, value in fields.items() if key in _OWN or key not in attrs}
    )


def shown_attrs(attrs_json: bytes, attrs: Mapping[str, Any]) -> bytes:
    """Return *attrs_json* as it is written in a shown line.

    The line also contains the event's own time, level, message and logger, so attributes with these
    names are renamed.
    """
    if attrs.keys().isdisjoint(_OWN):
        return attrs_json
    return msgspec.json.encode(
        {
            f"attrs.{key}" if key in _OWN else key: value
            for key, value in msgspec.json.decode(attrs_json).items()
        }
    )


def own_names(shown: dict[str, Any]) -> dict[str, Any]:
    """Undo the renaming by `shown_attrs`."""
    if not any(key.startswith("attrs.") for key in shown):
        return shown
    return {
        key[6:] if key.startswith("attrs.") and key[6:] in _OWN else key: value
        for key, value in shown.items()
    }


def with_parent(attrs_json: bytes, scope: Scope) -> bytes:
    """Add the parent's id to the attributes of a child job's event.

    It is an attribute and not a column, because few events need it.
    """
    if scope.parent_job_id is None:
        return attrs_json
    # only at the top level, and not deeper in the attributes
    if attrs_json.find(b'"parent_job_id":') > 0 and "parent_job_id" in msgspec.json.decode(
        attrs_json
    ):
        return attrs_json
    tail = field_json("parent_job_id", scope.parent_job_id)
    return attrs_json[:-1] + (tail if len(attrs_json) > 2 else tail[1:]) + b"}"


@lru_cache(256)
def field_json(key: str, value: str) -> bytes:
    """Return ``,"key":value``; cached, because few different values come with every event."""
    return json_fields({key: value})


def make_redactor(redact: bool | Iterable[str] | Redactor) -> SecretRules | None:
    if isinstance(redact, Redactor):
        return rules_of(redact)
    if isinstance(redact, bool):
        return SecretRules() if redact else None
    keys = None if isinstance(redact, str) or not isinstance(redact, Iterable) else list(redact)
    if keys is None or not all(isinstance(key, str) for key in keys):
        raise InvalidArgument(
            f"redact must be True, False, a list of further secret keys, or a Redactor, not {redact!r}"
        )
    return SecretRules(keys)
