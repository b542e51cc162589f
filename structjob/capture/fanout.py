"""The fan-out of events to the sinks and the database; structlog calls it last."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from typing import Any

import msgspec
from structlog import DropEvent
from structlog.typing import EventDict, WrappedLogger

from structjob.capture.event import (
    BY_NAME,
    Encoder,
    Level,
    columns_json,
    error_columns,
    field_json,
    logger_name,
    make_redactor,
    note_logged,
    own_names,
    shown_attrs,
    shown_json,
    with_parent,
)
from structjob.capture.thresholds import Thresholds
from structjob.context.errors import Classifier
from structjob.context.scope import Scope, current_scope
from structjob.diagnostics import fault_types, faults, suppress_faults
from structjob.levels import LEVELS
from structjob.machine import clock
from structjob.sinks.marks import MARKS
from structjob.sinks.sink import (
    AnySink,
    Sink,
    SinkEvent,
    as_sink,
    guarded,
    name_of_sink,
    sink_level,
    writer_of,
)
from structjob.spool.line import ATTRS, OPENING
from structjob.spool.routing import hand_over, recorded_in, records
from structjob.values.credentials import GROUPS, HEX, PLAIN
from structjob.values.encoding import encode_plain
from structjob.values.redaction import Redactor

# Looked up once, because the hot path needs them for each event.
_now, _stamp, _join = clock.now, clock.stamp, b"".join

_ERROR = LEVELS["error"]
_SELDOM = 0x7000
"""Bits of the time, all 0 in every eighth 4 µs."""
_STAMPED = 60
"""Maximum seconds between an event and the time that a processor added to it.

A time format may omit the seconds.
"""

_NOTHING: tuple[tuple[()], dict[str, Any]] = ((), {})


class SilentLogger:
    """The logger that bound loggers wrap after `configure`.

    All work is done before it is called.
    """

    def __init__(self, name: str | None = None, *_: Any) -> None:
        self.name = str(name) if name else None

    def msg(self, *rendered: Any, **_: Any) -> None:
        """Do nothing, unless other processors rendered something: then print that.

        This happens if a later ``structlog.configure()`` omitted our processors.
        """
        if rendered:
            print(*rendered)  # noqa: T201 -- as structlog's own logger does

    log = debug = info = success = warn = warning = error = err = failure = fatal = critical = (
        exception
    ) = msg


class FanOut:
    """The last processor: records each event and shows it on every sink whose level it reaches.

    Its errors never reach the caller.

    Args:
        sinks: See `structjob.Sink`.
        redact: ``True`` (the default) removes secrets. Also possible: a list of further secret
            keys, a `Redactor`, or ``False``.
        classifier: Derives ``error_type`` and similar fields from an exception.
    """

    def __init__(
        self,
        *sinks: AnySink,
        redact: bool | Iterable[str] | Redactor = True,
        classifier: Classifier | None = None,
    ) -> None:
        self.sinks = tuple(map(as_sink, sinks))
        self.encoder = Encoder(make_redactor(redact), classifier)
        # A sink that writes finished lines needs no `SinkEvent`.
        self._lines: list[tuple[int, Any, Sink]] = [
            (sink_level(sink), guarded(sink, write), sink)
            for sink in self.sinks
            if (write := writer_of(sink)) is not None
        ]
        self._records: list[tuple[int, Any, Sink]] = [
            (sink_level(sink), guarded(sink, sink.emit), sink)
            for sink in self.sinks
            if writer_of(sink) is None
        ]
        self._least = min(map(sink_level, self.sinks), default=1_000_000)
        self._without: dict[tuple[int, ...], FanOut] = {}
        self.thresholds: Thresholds | None = None
        """The lowest levels of single loggers, if `configure` was given any."""

    def without(self, sinks: Sequence[Sink]) -> FanOut:
        """Return a fan-out that does the same, but does not show events on *sinks*, some of its
        own.
        """
        left_out = tuple(map(id, sinks))
        found = self._without.get(left_out)
        if found is None:
            found = FanOut(*(sink for sink in self.sinks if id(sink) not in left_out))
            found.encoder, found.thresholds = self.encoder, self.thresholds
            # with our guards: a sink that logs gets it back through neither
            found._lines = [one for one in self._lines if id(one[2]) not in left_out]
            found._records = [one for one in self._records if id(one[2]) not in left_out]
            self._without[left_out] = found
        return found

    def __call__(
        self, logger: WrappedLogger, method_name: str, event_dict: EventDict
    ) -> tuple[tuple[()], dict[str, Any]]:
        message = event_dict.pop("event", "")
        level = BY_NAME.get(method_name) or BY_NAME["info"]
        name = name_of(logger)
        drop_rendered(event_dict, level, name)
        self.take(level, message, event_dict, current_scope(), name)
        if type(logger) is SilentLogger:
            return _NOTHING
        raise DropEvent  # any other logger would show it again, or reject an empty call

    def take(
        self,
        level: Level,
        message: Any,
        given: MutableMapping[str, Any],
        scope: Scope | None,
        logger: str | None = None,
        columns: dict[str, Any] | None = None,
        ns: int = 0,
        words: str | None = None,
        stored_before: bool = False,
    ) -> None:
        """Record one event and show it; never raise an `Exception`.

        This is the hot path, where tenths of a microsecond matter. What most events do not need is
        checked with one cheap condition and done elsewhere.

        Args:
            level: The level.
            message: The message.
            given: The attributes, including special keys such as ``exc_info``.
            scope: The scope that the event belongs to.
            logger: Name of the logger, if it has a name.
            columns: Values for further columns, such as ``kind``.
            ns: The time, in nanoseconds since the epoch; default: now.
            words: The text to store as its message, if it differs from the shown text: see `emit`.
            stored_before: The event is already in the database and is only shown.
        """
        try:
            # An event with a kind is about a job or step, and belongs to no logger.
            if (
                self.thresholds is not None
                and (columns is None or "kind" not in columns)
                and not self.thresholds.passes(logger, level.number)
            ):
                return
            ns, stored_second, shown_second, micros = _stamp(ns)
            encoder = self.encoder
            if scope is not None and scope.bound:
                given = {**scope.bound, **given}
            number = level.number
            if number >= _ERROR:
                columns = error_columns(level, message, given, logger, columns)
                note_logged(scope, given)
            if encoder.plain.issuperset(given):
                attrs: dict[str, Any] = given  # type: ignore[assignment]  # structlog's event dict is a dict
            else:
                columns = columns if columns is not None else {}
                attrs = encoder.attrs(
                    given,
                    columns,
                    scope,
                    recorded="exc_info" not in given or records(scope, level.number),
                )
            message_json = encoder.messages.get(message) if type(message) is str else None
            if message_json is None:
                message_json = encoder.message(message)
            unknown: list[str] = []
            attrs_json = encode_plain(attrs, encoder.harmless, unknown)
            # The same as `is_plain`, without a call. Texts that pass are remembered of one event in
            # eight, as the clock has it: those that never recur are not worth more.
            if attrs_json is None or (
                unknown
                and (
                    not ns & _SELDOM
                    or (folded := attrs_json.translate(PLAIN)).count(b"!") > len(attrs)
                    or folded.find(HEX) >= 0
                    or folded.find(GROUPS) >= 0
                )
            ):
                attrs_json = encoder.check(attrs_json, unknown, attrs, message_json)
            name = b""
            if columns is None:  # plain keys never conflict with keys of the scope
                stored = scope.columns if scope is not None else b""
                if logger is not None:
                    name = field_json("logger", logger_name(logger, encoder.redactor))
                    stored += name
            else:
                if logger is not None:
                    columns.setdefault("logger", logger_name(logger, encoder.redactor))
                stored = columns_json(scope, columns)
            body = _join(  # the same as `event_body`
                (
                    OPENING,
                    stored_second,
                    micros,
                    level.stored,
                    message_json if words is None else encoder.words(words),
                    ATTRS,
                    attrs_json
                    if scope is None or scope.parent_job_id is None
                    else with_parent(attrs_json, scope),
                    stored,
                )
            )
            if stored_before:
                pass
            elif scope is not None and (recorder := scope.recorder) is not None:
                recorder.put(body, number)
            else:
                hand_over(body, number)
            if number < self._least:
                return
            attrs_shown = attrs_json
            if columns is None:
                shown = b"" if scope is None else scope.rendered or scope.shown
            else:
                shown = shown_json(scope, columns, attrs)
                attrs_shown = shown_attrs(attrs_json, attrs)
            line = _join(
                (
                    b'{"timestamp":"',
                    shown_second,
                    micros,
                    level.shown,
                    message_json,
                    shown,
                    name,
                    b"," if attrs else b"",
                    attrs_shown[1:],
                    b"\n",
                )
            )
        except fault_types() as exc:  # an internal error must never reach the user's program
            faults.add("logging an event", exc)
            return
        if MARKS is not None:
            with MARKS.showing(recorded_in(scope, number)):
                self._show(ns, level, line, scope, columns)
            return
        for least, write, sink in self._lines:  # the same as `_show`, without a call
            if number >= least:
                try:
                    write(line)
                except fault_types() as exc:  # an error of a sink must not reach it, either
                    faults.add(f"the sink {name_of_sink(sink)}", exc)
        if self._records:
            self._show_record(ns, level, line, scope, columns)

    def show_lines(
        self,
        ns: int,
        level: Level,
        messages: Iterable[bytes],
        attrs: Mapping[str, Any],
        attrs_json: bytes,
        scope: Scope | None,
        columns: dict[str, Any],
    ) -> None:
        """Show recorded events that differ in their message only.

        Args:
            ns: Their time, in nanoseconds since the epoch.
            level: The level.
            messages: The message of each event as JSON.
            attrs: The attributes.
            attrs_json: The attributes as JSON.
            scope: The scope that the events belong to.
            columns: Values for further columns, such as ``kind``.
        """
        if level.number < self._least:
            return
        _, _, second, micros = _stamp(ns)
        text = b'{"timestamp":"%b%b%b' % (second, micros, level.shown)
        shown = shown_attrs(attrs_json, attrs)[1:]
        after = shown_json(scope, columns, attrs) + (b"," if attrs else b"") + shown + b"\n"
        with nullcontext() if MARKS is None else MARKS.showing(recorded_in(scope, level.number)):
            for message in messages:
                self._show(ns, level, text + message + after, scope, columns)

    def _show(
        self,
        ns: int,
        level: Level,
        line: bytes,
        scope: Scope | None,
        columns: dict[str, Any] | None,
    ) -> None:
        for least, write, sink in self._lines:
            if level.number >= least:
                try:
                    write(line)
                except fault_types() as exc:  # an error of a sink must not reach it, either
                    faults.add(f"the sink {name_of_sink(sink)}", exc)
        if self._records:
            self._show_record(ns, level, line, scope, columns)

    def _show_record(
        self,
        ns: int,
        level: Level,
        line: bytes,
        scope: Scope | None,
        columns: dict[str, Any] | None,
    ) -> None:
        record: SinkEvent | None = None
        for least, emit, sink in self._records:
            if level.number < least:
                continue
            try:
                if record is None:
                    # Taken from the line, so that a sink sees what is written: redacted, bounded,
                    # and without access to the caller's objects.
                    attrs = msgspec.json.decode(line)
                    message, logger = attrs.pop("event"), attrs.pop("logger", None)
                    del attrs["timestamp"], attrs["level"]
                    attrs = own_names(attrs)
                    ids = dict(scope.ids) if scope is not None else {}
                    for key, value in ids.items():
                        # otherwise the caller gave it: it says nothing about where the event
                        # belongs
                        if attrs.get(key) == value:
                            del attrs[key]
                    about: dict[str, Any] = {}
                    if scope is not None:
                        about = {
                            "operation": scope.operation,
                            "step": scope.column_values.get("step"),
                            "attempt": scope.attempt,
                        }
                    for name in ("kind", "stream"):
                        if columns is not None and name in columns:
                            about[name] = columns[name]
                            if attrs.get(name) == columns[name]:
                                del attrs[name]
                    record = SinkEvent(ns, level.name, message, attrs, ids, logger, line, **about)
                emit(record)
            except fault_types() as exc:  # see `take`
                faults.add(f"the sink {name_of_sink(sink)}", exc)

    def close(self, *, but: Sequence[Sink] = ()) -> None:
        """Close the sinks, except those in *but*; count the errors that they raise."""
        with ExitStack() as stack:  # in strict mode an error is raised after all are closed
            for sink in reversed(self.sinks):
                if not any(sink is other for other in but):
                    stack.callback(_close, sink)


def _close(sink: Sink) -> None:
    try:
        if (close := getattr(sink, "close", None)) is not None:
            close()
    except fault_types() as exc:  # see FanOut.take
        faults.add(f"closing the sink {name_of_sink(sink)}", exc)


def drop_rendered(event_dict: MutableMapping[str, Any], level: Level, logger: str | None) -> None:
    """Remove from *event_dict* what structlog's own processors added for a renderer.

    These are the time, the level's name, and the name of the *logger*. Attributes of the user with
    these names stay: another level, another time, another name.
    """
    if logger is not None and event_dict.get("logger") == logger:
        del event_dict["logger"]
    if "timestamp" in event_dict and _is_present(event_dict["timestamp"], _now() // 1_000_000_000):
        del event_dict["timestamp"]
    if type(shown := event_dict.get("level")) is str and BY_NAME.get(shown.lower()) is level:
        del event_dict["level"]


def _is_present(value: Any, second: int) -> bool:
    """Return whether *value* is the time of an event that is logged at *second*.

    The common formats for event times are recognized.
    """
    with suppress_faults():  # for example a number that is out of range
        if type(value) in (int, float):
            return bool(abs(value - second) <= _STAMPED)
        if type(value) is str:
            try:
                value = datetime.fromisoformat(value)
            except ValueError:  # a custom format, for example "%H:%M:%S"
                clocks = [
                    at(each)
                    for each in (second, second - 1)
                    for at in (time.gmtime, time.localtime)
                ]
                return any(time.strftime("%H:%M", clock) in value for clock in clocks)
        if isinstance(value, datetime):
            times = (
                [value]
                if value.tzinfo is not None
                else [value.astimezone(), value.replace(tzinfo=UTC)]
            )
            return any(abs(each.timestamp() - second) <= _STAMPED for each in times)
    return False


def name_of(logger: Any) -> str | None:
    """Return the name of a wrapped logger, if it has a name."""
    try:
        name = getattr(logger, "name", None)
        return str(name) if name else None
    except fault_types():  # an error in a logger must not lose the event
        return None
