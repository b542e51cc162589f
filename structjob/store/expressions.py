"""SQL expressions that differ between databases, under one name each.

Callers' values are always bound parameters, never part of the SQL text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from operator import eq
from typing import Any, ClassVar, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger,
    BinaryExpression,
    BindParameter,
    Boolean,
    ColumnElement,
    Double,
    Executable,
    Integer,
    Select,
    String,
    bindparam,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import CompoundSelect

from structjob.exceptions import InvalidFilter
from structjob.numeric import is_whole
from structjob.store.types import UTCDateTime
from structjob.values.redaction import stored_forms

T = TypeVar("T")

MAX_TEXT = 4096
"""Maximum length of a text search, in characters; SQLite refuses patterns of more than 50,000
bytes.
"""

_MAX_DEPTH = 24
_SURROGATE = re.compile("[\ud800-\udfff]")
_ODD_KEY = re.compile(r'["\\\x00-\x1f\x7f]')


class Native(FunctionElement[T]):
    """An expression with its own SQL on each database; ``{0}`` there is its first argument.

    An argument that the SQL does not name is not sent: PostgreSQL could not determine its type.
    """

    sqlite: ClassVar[str]
    mysql: ClassVar[str]
    """Also MariaDB's."""
    postgresql: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.inherit_cache = True  # SQLAlchemy reads it from each class itself
        super().__init_subclass__()


class NativeStatement(Executable, ClauseElement):
    """A statement without arguments with its own SQL on each database, as a `Native`."""

    sqlite: ClassVar[str]
    mysql: ClassVar[str]
    postgresql: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.inherit_cache = True
        super().__init_subclass__()


@compiles(Native)
@compiles(NativeStatement)
def _compiled(element: Native[Any] | NativeStatement, compiler: SQLCompiler, **kw: Any) -> str:
    name = compiler.dialect.name
    template: str = getattr(element, "mysql" if name == "mariadb" else name)
    arguments = element.clauses if isinstance(element, Native) else ()
    return template.format(
        *(
            compiler.process(argument, **kw) if f"{{{index}}}" in template else ""
            for index, argument in enumerate(arguments)
        )
    )


def ascending(columns: Iterable[ColumnElement[Any]]) -> Iterator[ColumnElement[Any]]:
    """Yield the terms that order rows by *columns*, with NULL first.

    Without them, PostgreSQL puts NULL last and the other databases put it first.
    """
    for column in columns:
        yield column.is_not(None)
        yield column


class utc_now(Native[datetime]):  # noqa: N801  # reads like the SQL function it stands for
    """The database's own clock, with microseconds if it has them (SQLite: milliseconds)."""

    type = UTCDateTime()
    sqlite = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    mysql = "UTC_TIMESTAMP(6)"
    postgresql = "clock_timestamp()"


class apart(Native[Any]):  # noqa: N801  # reads like the SQL function it stands for
    """A column that SQLite compares row by row, without its index.

    SQLite knows nothing about the rows, so it may choose an index that finds a million of them.
    A server knows how many rows each of its indexes finds.
    """

    sqlite = "+{0}"
    mysql = postgresql = "{0}"

    def __init__(self, column: ColumnElement[Any]) -> None:
        self.type = column.type
        super().__init__(column)


class leading(Native[Any]):  # noqa: N801  # reads like the SQL function it stands for
    """The value in a condition of `leads`."""

    sqlite = mysql = "{0}"
    postgresql = "ANY (ARRAY[{0}])"

    def __init__(self, value: ColumnElement[Any]) -> None:
        self.type = value.type
        super().__init__(value)

    @property
    def value(self) -> ColumnElement[Any]:
        """The value itself."""
        return next(iter(self.clauses))


def leads(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return *condition*; if a column equals one value in it, rows are read by the column's index.

    They must be ordered by `ordering`. Otherwise PostgreSQL may read the rows by an index of their
    time until a page is full: where many rows have the value, it expects that soon, but they may
    all be at the other end.
    """
    if not isinstance(condition, BinaryExpression) or condition.operator is not eq:
        return condition
    return BinaryExpression(condition.left, leading(condition.right), eq, type_=Boolean())


class _rising(Native[Any]):  # noqa: N801  # reads like the SQL function it stands for
    """A time, and the column of `leads`.

    PostgreSQL ignores an order by a column that equals a value, but not by one that equals any
    value of an array. The other databases need none.
    """

    sqlite = mysql = "{0}"
    postgresql = "{1} ASC, {0}"


class _falling(Native[Any]):  # noqa: N801  # reads like the SQL function it stands for
    sqlite = mysql = "{0}"
    postgresql = "{1} DESC, {0}"


def ordering(
    conditions: Iterable[ColumnElement[bool]], *columns: ColumnElement[Any], ascending: bool = True
) -> list[ColumnElement[Any]]:
    """Return the terms that order rows by *columns*, the first of which is a time.

    On PostgreSQL, the column of the first of *conditions* that comes from `leads` precedes it.
    """
    time, *more = columns
    for one in conditions:
        if isinstance(one, BinaryExpression) and isinstance(one.right, leading):
            time = (_rising if ascending else _falling)(time, one.left)
            break
    return [column.asc() if ascending else column.desc() for column in (time, *more)]


def storable(name: str, value: str) -> str:
    """Return *value* if a database accepts it as a bound value.

    Args:
        name: The value's name in the error message.
        value: The text to check.

    Raises:
        InvalidFilter: if it contains a NUL or a lone surrogate.
    """
    if "\x00" in value or (not value.isascii() and _SURROGATE.search(value)):
        raise InvalidFilter(
            f"{name} contains a NUL or a lone surrogate, which no stored text contains: remove it"
        )
    return value


def equals(name: str, column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    """Return the condition that *column* equals *value*.

    Args:
        name: The filter's name in error messages.
        column: The column.
        value: The value to compare with.

    Raises:
        InvalidFilter: if *value* has another type than the column, or is not storable.
    """
    if isinstance(column.type, Integer):
        if not is_whole(value) or not -(2**63) <= value < 2**63:
            raise InvalidFilter(f"{name} must be a whole number of 64 bits, not {value!r}")
    elif not isinstance(value, str):
        raise InvalidFilter(f"{name} must be a string, not {type(value).__name__}")
    else:
        value = storable(name, str.__str__(value))
        return means(column, value)
    found: ColumnElement[bool] = column == value
    return found


def equals_any(name: str, column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    """Return the condition that *column* equals *value*, or one of its items if it is a tuple.

    See `equals`.
    """
    if not isinstance(value, tuple):
        return equals(name, column, value)
    for one in value:
        equals(name, column, one)
    return column.in_(stored_values(value))


def stored_values(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return *values* in all forms in which they may be stored, each once; see `means`."""
    forms = (stored_forms(one) if isinstance(one, str) else (one,) for one in values)
    return tuple(dict.fromkeys(chain.from_iterable(forms)))


def together(branches: Iterable[Select[Any]]) -> CompoundSelect[Any]:
    """Return one query for the rows of several, each with its own order and limit."""
    return union_all(*(select(branch.subquery()) for branch in branches))


def within(
    column: ColumnElement[Any], since: object | None, until: object | None
) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a time is not before *since*, and before *until*; None is no
    limit.
    """
    found: tuple[ColumnElement[bool], ...] = ()
    if since is not None:
        found += (column >= since,)
    if until is not None:
        found += (column < until,)
    return found


def begins(column: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    """Return the condition that *column*, whose order is binary, begins with *prefix*.

    It is a range: not every database could use an index for LIKE.
    """
    return (column >= prefix) & (column < prefix + "\U0010ffff")


def means(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the condition that *column* equals *text* as it is stored.

    That is *text* itself, or *text* with its credentials removed.
    """
    forms = stored_forms(text)
    return column == text if len(forms) == 1 else column.in_(forms)


def contains(columns: Sequence[ColumnElement[Any]], text: str) -> ColumnElement[bool]:
    """Return the condition that any of *columns* contains *text*, ignoring letter case.

    ``%`` and ``_`` in *text* are ordinary characters.

    Raises:
        InvalidFilter: if *text* is longer than `MAX_TEXT`, or not storable.
    """
    if not isinstance(text, str):
        raise InvalidFilter(f"text must be a string, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise InvalidFilter(f"text has {len(text):,} characters; search for {MAX_TEXT:,} at most")
    pattern = "%" + re.sub(r"([!%_])", r"!\1", storable("text", text)) + "%"
    return or_(*(_contains(column, _text(pattern)) for column in columns))


class _contains(Native[bool]):  # noqa: N801  # reads like the SQL function it stands for
    type = Boolean()
    sqlite = "{0} LIKE {1} ESCAPE '!'"
    # With the collation of messages, "resume" would match "résumé". The collation of names would
    # distinguish letter case.
    mysql = "LOWER({0}) COLLATE utf8mb4_bin LIKE LOWER({1}) ESCAPE '!'"
    postgresql = "{0} ILIKE {1} ESCAPE '!'"


def json_equals(column: ColumnElement[Any], path: str, value: Any) -> ColumnElement[bool]:
    """Return the condition that the JSON in *column* has *value* at *path*.

    ``a.b`` means the key ``b`` of the object at ``a``, or the key ``a.b`` itself. If there is a
    list on the path, or at its end, one of its items must have the value. Lists inside lists are
    not searched. Types matter: ``1`` equals ``1.0`` but neither ``"1"`` nor ``true``, and ``None``
    equals a stored ``null``, not an absent key.

    Raises:
        InvalidFilter: if the path is empty, too deep or contains quotes, backslashes or control
            characters, or the value is not a string, a finite number, a boolean or ``None``.
    """
    if not isinstance(path, str):
        raise InvalidFilter(f"an attribute path is a string, not {type(path).__name__}")
    keys = storable("the attribute path", path).split(".")
    if not all(keys):
        raise InvalidFilter(
            f"attribute path {path!r} has an empty part: write keys with dots between them, such as vm.name"
        )
    if len(keys) > _MAX_DEPTH:
        raise InvalidFilter(
            f"attribute path {path!r} is {len(keys)} keys deep; events are {_MAX_DEPTH} at most"
        )
    if _ODD_KEY.search(path):
        raise InvalidFilter(
            f"attribute path {path!r} holds a quote, a backslash or a control character: filter by another attribute"
        )
    test, bound = _test(path, value)
    # Keys with dots are common (http.status_code), and so are nested objects.
    quoted = [f'."{key}"' for key in keys]
    paths = {"$" + "".join(quoted), f'$."{path}"'}
    lists = {
        ("$" + "".join(quoted[:end]), "".join(quoted[end:])) for end in range(1, len(keys) + 1)
    } | {(f'$."{path}"', "")}
    return or_(
        *(test(column, _text(p), *bound) for p in sorted(paths)),
        *(
            _Within(test(column, _item(p, rest), *bound), column, _text(p), _text(rest), bound[1])
            for p, rest in sorted(lists)
        ),
    )


def _text(value: str | None) -> BindParameter[Any]:
    return bindparam(None, value, String())


def _item(list_: str, rest: str) -> ColumnElement[str]:
    """Return the path to test in an item of a list.

    Only SQLite tests the items one by one.
    """
    return (
        literal(list_) + literal("[") + literal_column("item.key", String()) + literal(f"]{rest}")
    )


class _Within(Native[bool]):
    """Whether any item of a list passes a test.

    The arguments are the test of one item, the column, the list's path, the path inside an item,
    and the value as JSON.
    """

    type = Boolean()
    # CASE, not AND: json_each must not read a value that is not a list.
    sqlite = (
        "(CASE WHEN NOT json_valid({1}) THEN 0 WHEN json_type({1}, {2}) = 'array' "
        "THEN EXISTS (SELECT 1 FROM json_each({1}, {2}) AS item WHERE {0}) ELSE 0 END)"
    )
    mysql = "COALESCE(JSON_CONTAINS(JSON_EXTRACT({1}, CONCAT({2}, '[*]', {3})), {4}), 0)"
    # The rest of the path is in the condition. An item without such a key would end the whole path
    # with an error; in the condition it does not match.
    postgresql = (
        "COALESCE(jsonb_path_exists(CAST({1} AS jsonb), "
        "CAST('strict ' || {2} || '[*] ? (@' || {3} || ' == $v)' AS jsonpath), "
        "jsonb_build_object('v', CAST({4} AS jsonb)), true), false)"
    )


class attribute(Native[str]):  # noqa: N801  # reads like the SQL function it stands for
    """The text of an attribute with a fixed name, in a column of JSON.

    It is NULL if the attribute is absent or is not a text.
    """

    type = String()
    sqlite = (
        "CASE WHEN json_valid({0}) THEN CASE WHEN json_type({0}, '$.' || {1}) = 'text' "
        "THEN json_extract({0}, '$.' || {1}) END END"
    )
    mysql = (
        "CASE WHEN JSON_TYPE(JSON_EXTRACT({0}, CONCAT('$.', {1}))) = 'STRING' "
        "THEN JSON_UNQUOTE(JSON_EXTRACT({0}, CONCAT('$.', {1}))) END"
    )
    postgresql = (
        "CASE WHEN json_typeof(json_extract_path({0}, {1})) = 'string' "
        'THEN json_extract_path_text({0}, {1}) END COLLATE "C"'
    )


def _on_sqlite(test: str) -> str:
    """Return the SQL for a *test* of a JSON value.

    Text that is not JSON would end the whole query with an error.
    """
    named = {"type": "json_type({0}, {1})", "value": "json_extract({0}, {1})"}
    return f"(CASE WHEN json_valid({{0}}) THEN {test.format('{0}', '{1}', '{2}', '{3}', **named)} ELSE 0 END)"


def _on_mysql(test: str) -> str:
    found = "JSON_EXTRACT({0}, {1})"
    named = {"type": f"JSON_TYPE({found})", "text": f"JSON_UNQUOTE({found})"}
    return f"({test.format('{0}', '{1}', '{2}', '{3}', **named)})"


class _JSONTest(Native[bool]):
    """A test of one JSON value: (column, path, the value as text, the value as JSON)."""

    type = Boolean()
    postgresql = (
        "(jsonb_path_query_first(CAST({0} AS jsonb), CAST('strict ' || {1} AS jsonpath), "
        "'{{}}', true) = CAST({3} AS jsonb))"
    )


class _IsNull(_JSONTest):
    sqlite = _on_sqlite("{type} = 'null'")
    mysql = _on_mysql("{type} = 'NULL'")


class _IsTrue(_JSONTest):
    sqlite = _on_sqlite("{type} = 'true'")
    mysql = _on_mysql("{type} = 'BOOLEAN' AND {text} = 'true'")


class _IsFalse(_JSONTest):
    sqlite = _on_sqlite("{type} = 'false'")
    mysql = _on_mysql("{type} = 'BOOLEAN' AND {text} = 'false'")


class _IsText(_JSONTest):
    sqlite = _on_sqlite("{type} = 'text' AND {value} = {2}")
    mysql = _on_mysql("{type} = 'STRING' AND CAST({text} AS BINARY) = CAST({2} AS BINARY)")


_NUMBER_ON_MYSQL = (
    "{type} NOT IN ('STRING', 'BOOLEAN', 'NULL', 'OBJECT', 'ARRAY') AND {text} + 0 = {2}"
)


class _IsNumber(_JSONTest):
    sqlite = _on_sqlite("{type} IN ('integer', 'real') AND {value} = {2}")
    mysql = _on_mysql(_NUMBER_ON_MYSQL)


class _IsLargeInteger(_JSONTest):
    """An integer of 2**53 or more, which a double cannot distinguish from its neighbors.

    MariaDB and MySQL convert text to a double, and SQLite converts a large integer to a double.
    """

    # SQLite reads a number beyond 64 bits as a double. Inside an extracted array it stays the
    # original text.
    sqlite = _on_sqlite(
        "(({type} = 'integer' AND json_extract({0}, {1}, {1}) = '[' || {3} || ',' || {3} || ']') "
        "OR ({type} = 'real' AND {value} = {2}))"
    )
    mysql = _on_mysql(
        f"{_NUMBER_ON_MYSQL} AND ({{text}} = {{3}} OR {{text}} NOT REGEXP '^-?[0-9]+$')"
    )


def _test(path: str, value: Any) -> tuple[type[_JSONTest], tuple[Any, Any]]:
    """Return the test for *value*, and the value as two bound parameters: plain, and as JSON
    text.
    """
    kind: type[_JSONTest]
    bound: BindParameter[Any]
    if value is None:
        kind, bound = _IsNull, _text(None)
    elif isinstance(value, bool):
        kind, bound = (_IsTrue if value else _IsFalse), _text(None)
    elif isinstance(value, str):
        # for a member of a string enum, its plain text
        value = storable(f"the value of {path}", str.__str__(value))
        kind, bound = _IsText, _text(value)
    elif isinstance(value, int):
        value = int(value)
        kind, bound = (_IsNumber if abs(value) < 2**53 else _IsLargeInteger), _number(path, value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidFilter(
                f"{value} at {path!r} is never stored as a number: filter for a finite one"
            )
        kind, bound = _IsNumber, bindparam(None, value, Double())
    else:
        raise InvalidFilter(
            f"the value at {path!r} is a {type(value).__name__}: use a string, a number, a boolean or None, "
            "and dots in the path for what lies deeper"
        )
    return kind, (bound, _text(msgspec.json.encode(value).decode()))


def _number(path: str, value: int) -> BindParameter[Any]:
    if -(2**63) <= value < 2**63:
        return bindparam(None, value, BigInteger())
    try:
        return bindparam(None, float(value), Double())  # SQLite converts it to a double as well
    except OverflowError:
        # an estimate, because Python refuses to convert more than 4,300 digits
        digits = int(value.bit_length() * math.log10(2)) + 1
        raise InvalidFilter(
            f"the number at {path!r} has about {digits:,} digits, more than a database keeps"
        ) from None
