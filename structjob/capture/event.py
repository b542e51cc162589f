"""An event's parts as pieces of JSON, of which the lines for database, console and files
are made.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgspec

from structjob.context.errors import Classifier, exception_attrs
from structjob.context.scope import Scope, json_fields
from structjob.exceptions import InvalidArgument
from structjob.levels import LEVEL_ALIASES, LEVELS
from structjob.machine.clock import second_text
from structjob.spool.line import event_body, level_field
from structjob.values.bounds import MAX_STRING, OF_EVENT, ROOM
from structjob.values.credentials import MARK
from structjob.values.encoding import (
    encode_plain,
    encode_text,
    encode_value,
    normalise,
    with_text_keys,
)
from structjob.values.redaction import Redactor, registered


class Kind(str):
    """A kind that the library gives to an event that passes structlog's processors.

    Attributes:
        given: What the user has called ``kind``: an attribute like any other.
    """

    given: Any = None

    def beside(self, given: Any) -> Kind:
        """Return the same kind, with what the user has given."""
        kind = Kind(self)
        kind.given = given
        return kind


class Level(NamedTuple):
    """A level, and what stands in the lines from the time's last digit to the message: in the
    spool, and where it is shown.
    """

    number: int
    name: str
    stored: bytes
    shown: bytes


BY_NAME = {
    name: Level(
        n,
        name,
        level_field(name),
        b'Z","level":"%b","event":' % name.encode(),
    )
    for name, n in LEVELS.items()
}
BY_NAME |= {alias: BY_NAME[name] for alias, name in LEVEL_ALIASES.items()}

# Keys that mean something to us, or that others put there for the renderer.
_COLUMNS = {name: name for name in ("category", "project", "trace_id", "span_id")}
_COLUMNS["error_fingerprint"] = "fingerprint"
_OWN = frozenset({"timestamp", "level", "event", "logger"})
ARGUMENTS = frozenset({"self", "method_name", "event"})
"""Names of the arguments of structlog's methods: where an attribute is called so, they are given
``attrs.self`` and so on.
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
"""Characters that the columns hold, see ``structjob.store.tables``."""
_ERROR = LEVELS["error"]
_TOKEN = 16
"""Characters of a token at least."""
_is_word = re.compile(r"[A-Za-z0-9_.-]+").fullmatch
_is_hex = re.compile(r"[0-9A-Fa-f]+").fullmatch


class Encoder:
    """Turns what a processor sees into the pieces of which lines are made; shared by `FanOut` and
    `record_event`.

    Args:
        redactor: Takes the secrets out; ``None`` leaves them in.
        classifier: Derives ``error_type`` and the like from an exception.
    """

    def __init__(
        self, redactor: Redactor | None = None, classifier: Classifier | None = None
    ) -> None:
        self.redactor = redactor
        self.classifier = classifier
        # Keys that were looked at and are neither special nor secret: an event made of these alone
        # needs no second look.
        self.plain: set[str] = set()
        self.messages: dict[str, bytes] = {}
        registered.watch(self)

    def forget(self) -> None:
        """Look again at what was found harmless: another value is secret from now on."""
        self.plain.clear()
        self.messages.clear()
        logger_name.cache_clear()

    def attrs(
        self,
        given: MutableMapping[str, Any],
        columns: dict[str, Any],
        scope: Scope | None = None,
        *,
        recorded: bool = True,
    ) -> dict[str, Any]:
        """Return the attributes in *given*; what belongs into a column of its own goes into
        *columns*.

        An exception is told by the first event of *scope* that is *recorded*; see
        `structjob.context.errors.exception_attrs`.
        """
        if any(type(key) is not str for key in given):
            given = with_text_keys(given)
        attrs = dict(given)
        for key in given:
            if key in self.plain:
                continue
            if key in _SPECIAL:
                self._special(key, attrs, columns, scope, recorded)
            elif self._concerns(key):
                self._hide(key, attrs)
            elif len(self.plain) < 10_000:
                self.plain.add(key)
        return attrs

    def _concerns(self, key: str) -> bool:
        return self.redactor is not None and (
            self.redactor.reads_all or self.redactor.concerns(key)
        )

    def _hide(self, key: str, attrs: dict[str, Any]) -> None:
        """Take out of *attrs* what is secret under *key*: the value, the key itself, or a value
        that another attribute names.
        """
        redactor = self.redactor
        assert redactor is not None  # noqa: S101 -- `_concerns` has asked it
        hidden = redactor.named(attrs)
        value = redactor.value(normalise(attrs[key]), key)
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
            # an event of our own: what it is, no summary of a job says
            if column in columns and column != "fingerprint":
                return
            # most are short words, which need no closer look
            if type(value) is not str or len(value) >= _TOKEN or _is_word(value) is None:
                value = normalise(value)
                value = value if self.redactor is None else self.redactor.value(value)
            text = str(value) if type(value) is int else value
            if column == "fingerprint" and type(text) is str:
                # a longer one is counted by how it begins, not left out
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
                # else it is none of what structlog knows by this name, and an attribute like any
                # other
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

                attrs["stack"] = "".join(traceback.format_stack(sys._getframe(4)))
        # The ids stay: what the user says about ids is an attribute like any other; where the event
        # belongs, the scope says. So do ``level``, ``timestamp``, ``event``, ``logger``, ``kind``
        # and ``stream``: the event's own are columns.

    def encode(self, message: Any, attrs: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return message and attributes as JSON, redacted and within the size of an event."""
        message_json = self.message(message)
        return message_json, self.check(encode_plain(attrs), attrs, message_json)

    def check(self, attrs_json: bytes | None, attrs: dict[str, Any], message_json: bytes) -> bytes:
        """Return *attrs* as JSON, given what `encode_plain` made of them: with a closer look where
        that is called for.
        """
        if attrs_json is None or self._suspects(attrs):
            return encode_value(
                attrs, OF_EVENT._replace(room=ROOM - len(message_json)), self.redactor
            )
        return attrs_json

    def once(self, message: Any) -> bytes:
        """Return *message* as JSON, redacted; it is not remembered, since it will hardly be said
        again.
        """
        encoded = encode_text(message)
        if self.redactor is not None:
            text = (
                message
                if type(message) is str and len(encoded) < MAX_STRING
                else msgspec.json.decode(encoded)
            )
            if self.redactor.suspects(text):
                encoded = encode_text(self.redactor.text(text))
        return encoded

    def message(self, message: Any) -> bytes:
        """Return *message* as JSON, redacted."""
        encoded = self.once(message)
        # Programs say the same things over and over.
        if type(message) is str and len(encoded) < 256 and len(self.messages) < 4096:
            self.messages[message] = encoded
        return encoded

    def _suspects(self, attrs: dict[str, Any]) -> bool:
        """Return whether a text in *attrs*, whose values are plain, may hold a credential."""
        if self.redactor is None:
            return False
        suspects = self.redactor.suspects
        return any(type(value) is str and suspects(value) for value in attrs.values())


def _fits(column: str, value: Any) -> bool:
    """Return whether *column* can hold *value*. What it cannot stays an attribute: half an id is
    another one.
    """
    return (
        type(value) is str
        and 0 < len(value) <= _LIMITS[column]
        and (column not in ("trace_id", "span_id") or _is_hex(value) is not None)
    )


@lru_cache(maxsize=4096)
def logger_name(name: str, redactor: Redactor | None) -> str:
    """Return *name* as the column ``logger`` takes it."""
    text = str(normalise(name))
    text = text if redactor is None else redactor.text(text)
    return (
        text
        if len(text) <= _LIMITS["logger"]
        else f"{text[:200]}…[cut: the first 200 of {len(text):,} kept]"
    )


def exception_of(exc_info: Any) -> BaseException | None:
    """Return the exception that a log call's ``exc_info`` means."""
    # `isinstance` would ask the object, which may raise
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
    """Return *columns* with the fingerprint by which an error is counted that is logged without an
    exception.

    Events of our own, which have a kind or a stream, are none: what they tell of is counted where
    it occurred, or was printed.

    Args:
        level: How grave.
        message: Its message, before arguments are filled in.
        given: Its attributes.
        logger: Its logger's name.
        columns: What is known of its columns.
    """
    if level.number < _ERROR or (
        columns and not columns.keys().isdisjoint(("kind", "stream", "fingerprint"))
    ):
        return columns
    if "error_fingerprint" in given or (
        "exc_info" in given and exception_of(given["exc_info"]) is not None
    ):
        return columns
    # its patterns take time to compile: a program without errors need not
    from structjob.values.fingerprint import of_event

    return {**(columns or {}), "fingerprint": of_event(message, logger, given.get("error_type"))}


def columns_json(scope: Scope | None, columns: dict[str, Any] | None) -> bytes:
    """Return what stands behind the attributes in an event's line."""
    if not columns:
        return scope.columns if scope is not None else b""
    if scope is None:
        return json_fields(columns)
    if columns.keys().isdisjoint(scope.column_values):
        return scope.columns + json_fields(columns)
    # What the call says goes before what the job says.
    return json_fields({**scope.column_values, **columns})


def shown_json(scope: Scope | None, columns: dict[str, Any], attrs: Mapping[str, Any]) -> bytes:
    """Return what stands before the attributes where an event is shown; an attribute of the same
    name goes before it.
    """
    if "fingerprint" in columns:  # which says nothing to people
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
    """Return *attrs_json* as it stands in a line that is shown: beside the event's own time, level,
    message and logger, which have these names.
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
    """Undo what `shown_attrs` does to the names."""
    if not any(key.startswith("attrs.") for key in shown):
        return shown
    return {
        key[6:] if key.startswith("attrs.") and key[6:] in _OWN else key: value
        for key, value in shown.items()
    }


def with_parent(attrs_json: bytes, scope: Scope) -> bytes:
    """A child's events tell its parent, too: in an attribute, since few events need it."""
    if scope.parent_job_id is None:
        return attrs_json
    # and not deeper in it
    if attrs_json.find(b'"parent_job_id":') > 0 and "parent_job_id" in msgspec.json.decode(
        attrs_json
    ):
        return attrs_json
    tail = field_json("parent_job_id", scope.parent_job_id)
    return attrs_json[:-1] + (tail if len(attrs_json) > 2 else tail[1:]) + b"}"


@lru_cache(256)
def field_json(key: str, value: str) -> bytes:
    """Return ``,"key":value``; the few that there are come with every event."""
    return json_fields({key: value})


def make_redactor(redact: bool | Iterable[str] | Redactor) -> Redactor | None:
    if isinstance(redact, Redactor):
        return redact
    if isinstance(redact, bool):
        return Redactor() if redact else None
    keys = None if isinstance(redact, str) or not isinstance(redact, Iterable) else list(redact)
    if keys is None or not all(isinstance(key, str) for key in keys):
        raise InvalidArgument(
            f"redact must be True, False, a list of further secret keys, or a Redactor, not {redact!r}"
        )
    return Redactor(keys)


def stored_line(ns: int, level: Level, message: bytes, attrs: bytes, columns: bytes) -> bytes:
    """Return the body of an event's line for the database.

    Args:
        ns: When, in nanoseconds since the epoch.
        level: How grave.
        message: JSON string.
        attrs: JSON object.
        columns: Further fields, ``,"key":value…`` or empty.
    """
    second, rest = divmod(ns, 1_000_000_000)
    return event_body(
        second_text(second)[1], b"%06d" % (rest // 1000), level.stored, message, attrs, columns
    )
