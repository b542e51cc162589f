"""SQL expressions that differ between databases, under one name each.

Callers' values are always bound parameters, never part of the SQL text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    ColumnElement,
    Double,
    Integer,
    String,
    bindparam,
    literal,
    literal_column,
    or_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from structjob.exceptions import InvalidFilter
from structjob.store.types import UTCDateTime
from structjob.values.redaction import stored_forms

MAX_TEXT = 4096
"""Maximum length of a text search, in characters; SQLite refuses patterns of more than 50,000
bytes.
"""

_MAX_DEPTH = 24
_SURROGATE = re.compile("[\ud800-\udfff]")
_ODD_KEY = re.compile(r'["\\\x00-\x1f\x7f]')


def ascending(columns: Iterable[ColumnElement[Any]]) -> Iterator[ColumnElement[Any]]:
    """Yield the terms that order rows by *columns*, with NULL first.

    Without them, PostgreSQL puts NULL last and the other databases put it first.
    """
    for column in columns:
        yield column.is_not(None)
        yield column


class utc_now(FunctionElement[datetime]):  # noqa: N801  # reads like the SQL function it stands for
    """The database's own clock, with microseconds if it has them (SQLite: milliseconds)."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(utc_now, "sqlite")
def _sqlite_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(utc_now, "postgresql")
def _postgresql_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "clock_timestamp()"


class apart(FunctionElement[Any]):  # noqa: N801  # reads like the SQL function it stands for
    """A column that SQLite compares row by row, without its index.

    SQLite knows nothing about the rows, so it may choose an index that finds a million of them.
    A server knows how many rows each of its indexes finds.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        self.type = column.type
        super().__init__(column)


@compiles(apart)
def _column(element: apart, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(next(iter(element.clauses)), **kw)


@compiles(apart, "sqlite")
def _sqlite_apart(element: apart, compiler: SQLCompiler, **kw: Any) -> str:
    return f"+{_column(element, compiler, **kw)}"


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
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
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
    return column.in_(
        [form for one in value for form in (stored_forms(one) if isinstance(one, str) else (one,))]
    )


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
    return or_(*(_contains(column, bindparam(None, pattern, String())) for column in columns))


class _contains(FunctionElement[bool]):  # noqa: N801  # reads like the SQL function it stands for
    type = Boolean()
    inherit_cache = True


@compiles(_contains, "sqlite")
def _sqlite_contains(element: _contains, compiler: SQLCompiler, **kw: Any) -> str:
    column, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} LIKE {pattern} ESCAPE '!'"


@compiles(_contains, "mysql")
@compiles(_contains, "mariadb")
def _mysql_contains(element: _contains, compiler: SQLCompiler, **kw: Any) -> str:
    column, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    # With the collation of messages, "resume" would match "résumé". The collation of names would
    # distinguish letter case.
    return f"LOWER({column}) COLLATE utf8mb4_bin LIKE LOWER({pattern}) ESCAPE '!'"


@compiles(_contains, "postgresql")
def _postgresql_contains(element: _contains, compiler: SQLCompiler, **kw: Any) -> str:
    column, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} ILIKE {pattern} ESCAPE '!'"


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
        *(test(column, bindparam(None, p, String()), *bound) for p in sorted(paths)),
        *(
            _Within(test(column, _item(p, rest), *bound), *_parts(column, p, rest))
            for p, rest in sorted(lists)
        ),
    )


def _parts(column: ColumnElement[Any], list_: str, rest: str) -> tuple[Any, ...]:
    return column, bindparam(None, list_, String()), bindparam(None, rest, String())


def _item(list_: str, rest: str) -> ColumnElement[str]:
    """Return the path to test in an item of a list.

    Only SQLite tests the items one by one.
    """
    return (
        literal(list_) + literal("[") + literal_column("item.key", String()) + literal(f"]{rest}")
    )


class _Within(FunctionElement[bool]):
    """Whether any item of a list passes a test.

    The arguments are the test of one item, the column, the list's path, and the path inside an
    item.
    """

    type = Boolean()
    inherit_cache = True


class attribute(FunctionElement[str]):  # noqa: N801  # reads like the SQL function it stands for
    """The text of an attribute with a fixed name, in a column of JSON.

    It is NULL if the attribute is absent or is not a text.
    """

    type = String()
    inherit_cache = True


@compiles(attribute, "sqlite")
def _sqlite_attribute(element: attribute, compiler: SQLCompiler, **kw: Any) -> str:
    column, name = (compiler.process(clause, **kw) for clause in element.clauses)
    where = f"{column}, '$.' || {name}"
    return f"CASE WHEN json_valid({column}) THEN CASE WHEN json_type({where}) = 'text' THEN json_extract({where}) END END"


@compiles(attribute, "mysql")
@compiles(attribute, "mariadb")
def _mysql_attribute(element: attribute, compiler: SQLCompiler, **kw: Any) -> str:
    column, name = (compiler.process(clause, **kw) for clause in element.clauses)
    found = f"JSON_EXTRACT({column}, CONCAT('$.', {name}))"
    return f"CASE WHEN JSON_TYPE({found}) = 'STRING' THEN JSON_UNQUOTE({found}) END"


@compiles(attribute, "postgresql")
def _postgresql_attribute(element: attribute, compiler: SQLCompiler, **kw: Any) -> str:
    column, name = (compiler.process(clause, **kw) for clause in element.clauses)
    kind = f"json_typeof(json_extract_path({column}, {name}))"
    return f"CASE WHEN {kind} = 'string' THEN json_extract_path_text({column}, {name}) END COLLATE \"C\""


class _JSONTest(FunctionElement[bool]):
    """A test of one JSON value: (column, path, the value as text, the value as JSON)."""

    type = Boolean()
    inherit_cache = True
    sqlite = mysql = ""


class _IsNull(_JSONTest):
    name = "is_null"
    inherit_cache = True
    sqlite = "{type} = 'null'"
    mysql = "{type} = 'NULL'"


class _IsTrue(_JSONTest):
    name = "is_true"
    inherit_cache = True
    sqlite = "{type} = 'true'"
    mysql = "{type} = 'BOOLEAN' AND {text} = 'true'"


class _IsFalse(_JSONTest):
    name = "is_false"
    inherit_cache = True
    sqlite = "{type} = 'false'"
    mysql = "{type} = 'BOOLEAN' AND {text} = 'false'"


class _IsText(_JSONTest):
    name = "is_text"
    inherit_cache = True
    sqlite = "{type} = 'text' AND {value} = {bound}"
    mysql = "{type} = 'STRING' AND CAST({text} AS BINARY) = CAST({bound} AS BINARY)"


class _IsNumber(_JSONTest):
    name = "is_number"
    inherit_cache = True
    sqlite = "{type} IN ('integer', 'real') AND {value} = {bound}"
    mysql = (
        "{type} NOT IN ('STRING', 'BOOLEAN', 'NULL', 'OBJECT', 'ARRAY') AND {text} + 0 = {bound}"
    )


class _IsLargeInteger(_JSONTest):
    """An integer of 2**53 or more, which a double cannot distinguish from its neighbors.

    MariaDB and MySQL convert text to a double, and SQLite converts a large integer to a double.
    """

    name = "is_large_integer"
    inherit_cache = True
    # SQLite reads a number beyond 64 bits as a double. Inside an extracted array it stays the
    # original text.
    sqlite = "(({type} = 'integer' AND {pair} = '[' || {exact} || ',' || {exact} || ']') OR ({type} = 'real' AND {value} = {bound}))"
    mysql = _IsNumber.mysql + " AND ({text} = {exact} OR {text} NOT REGEXP '^-?[0-9]+$')"


def _test(path: str, value: Any) -> tuple[type[_JSONTest], tuple[Any, Any]]:
    """Return the test for *value*, and the value as two bound parameters: plain, and as JSON
    text.
    """
    kind: type[_JSONTest]
    bound: BindParameter[Any]
    if value is None:
        kind, bound = _IsNull, bindparam(None, None, String())
    elif isinstance(value, bool):
        kind, bound = (_IsTrue if value else _IsFalse), bindparam(None, None, String())
    elif isinstance(value, str):
        # for a member of a string enum, its plain text
        value = storable(f"the value of {path}", str.__str__(value))
        kind, bound = _IsText, bindparam(None, value, String())
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
    return kind, (bound, bindparam(None, msgspec.json.encode(value).decode(), String()))


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


@compiles(_Within, "sqlite")
def _sqlite_within(element: _Within, compiler: SQLCompiler, **kw: Any) -> str:
    test, column, list_, _ = element.clauses
    where = f"{compiler.process(column, **kw)}, {compiler.process(list_, **kw)}"
    items = (
        f"EXISTS (SELECT 1 FROM json_each({where}) AS item WHERE {compiler.process(test, **kw)})"  # noqa: S608 -- bound values only
    )
    # CASE, not AND: json_each must not read a value that is not a list.
    return f"(CASE WHEN NOT json_valid({compiler.process(column, **kw)}) THEN 0 WHEN json_type({where}) = 'array' THEN {items} ELSE 0 END)"


@compiles(_Within, "mysql")
@compiles(_Within, "mariadb")
def _mysql_within(element: _Within, compiler: SQLCompiler, **kw: Any) -> str:
    test, column, list_, rest = element.clauses
    as_json = compiler.process(list(test.clauses)[3], **kw)
    items = f"CONCAT({compiler.process(list_, **kw)}, '[*]', {compiler.process(rest, **kw)})"
    found = f"JSON_EXTRACT({compiler.process(column, **kw)}, {items})"
    return f"COALESCE(JSON_CONTAINS({found}, {as_json}), 0)"


@compiles(_Within, "postgresql")
def _postgresql_within(element: _Within, compiler: SQLCompiler, **kw: Any) -> str:
    test, column, list_, rest = element.clauses
    value = (
        f"jsonb_build_object('v', CAST({compiler.process(list(test.clauses)[3], **kw)} AS jsonb))"
    )
    # The rest of the path is in the condition. An item without such a key would end the whole path
    # with an error; in the condition it does not match.
    path = f"'strict ' || {compiler.process(list_, **kw)} || '[*] ? (@' || {compiler.process(rest, **kw)} || ' == $v)'"
    return f"COALESCE(jsonb_path_exists(CAST({compiler.process(column, **kw)} AS jsonb), CAST({path} AS jsonpath), {value}, true), false)"


# Each test renders only the values it uses: PostgreSQL cannot determine the type of a bound value
# that is not in the text.


@compiles(_JSONTest, "sqlite")
def _sqlite_json(element: _JSONTest, compiler: SQLCompiler, **kw: Any) -> str:
    column, path, value, as_json = element.clauses
    at = compiler.process(path, **kw)
    where = f"{compiler.process(column, **kw)}, {at}"
    bound = compiler.process(value, **kw) if "{bound}" in element.sqlite else ""
    exact = compiler.process(as_json, **kw) if "{exact}" in element.sqlite else ""
    found, pair = f"json_extract({where})", f"json_extract({where}, {at})"
    test = element.sqlite.format(
        type=f"json_type({where})", value=found, pair=pair, bound=bound, exact=exact
    )
    # Text that is not JSON would end the whole query with an error.
    return f"(CASE WHEN json_valid({compiler.process(column, **kw)}) THEN {test} ELSE 0 END)"


@compiles(_JSONTest, "mysql")
@compiles(_JSONTest, "mariadb")
def _mysql_json(element: _JSONTest, compiler: SQLCompiler, **kw: Any) -> str:
    column, path, value, as_json = element.clauses
    found = f"JSON_EXTRACT({compiler.process(column, **kw)}, {compiler.process(path, **kw)})"
    bound = compiler.process(value, **kw) if "{bound}" in element.mysql else ""
    exact = compiler.process(as_json, **kw) if "{exact}" in element.mysql else ""
    return (
        "("
        + element.mysql.format(
            type=f"JSON_TYPE({found})", text=f"JSON_UNQUOTE({found})", bound=bound, exact=exact
        )
        + ")"
    )


@compiles(_JSONTest, "postgresql")
def _postgresql_json(element: _JSONTest, compiler: SQLCompiler, **kw: Any) -> str:
    column, path, _, value = element.clauses
    found = f"CAST({compiler.process(column, **kw)} AS jsonb), CAST('strict ' || {compiler.process(path, **kw)} AS jsonpath)"
    return f"(jsonb_path_query_first({found}, '{{}}', true) = CAST({compiler.process(value, **kw)} AS jsonb))"
