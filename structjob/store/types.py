"""Column types that mean the same on SQLite, MariaDB, MySQL and PostgreSQL.

Ids and names are compared byte by byte, including letter case and trailing blanks. Times are aware
UTC with microseconds. JSON is encoded and decoded by msgspec. The migrations define their own types
and do not import this module.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

MYSQL_BINARY = "utf8mb4_0900_bin"
"""MySQL's binary collation that does not ignore trailing blanks (8.0.17 and later)."""

MARIADB_BINARY = "utf8mb4_nopad_bin"
"""MariaDB's binary collation that does not ignore trailing blanks."""


class Exact(TypeDecorator[str]):
    """A text of at most *length* characters; two texts are equal only if every byte is.

    On MySQL and MariaDB, the servers' default collations would treat ``Job-1`` and ``job-1``, or
    ``a`` and ``a ``, as the same id.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            # Imported only where it is used: importing the other dialects would slow down a command
            # that reads SQLite.
            from sqlalchemy.dialects import mysql

            collation = MYSQL_BINARY if dialect.name == "mysql" else MARIADB_BINARY
            return dialect.type_descriptor(
                mysql.VARCHAR(self.length, charset="utf8mb4", collation=collation)
            )
        return dialect.type_descriptor(
            String(self.length, collation="C" if dialect.name == "postgresql" else None)
        )


class LongText(TypeDecorator[str]):
    """A text without a practical limit; MySQL's own ``TEXT`` ends at 65,535 bytes."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            return mysql.LONGTEXT()
        return Text()  # unchanged, because the driver's own variant is VARCHAR


def row_id() -> BigInteger:
    """Return the 64-bit integer type of an ascending primary key.

    On SQLite the type must be called ``INTEGER``.
    """
    return BigInteger().with_variant(Integer(), "sqlite")


class UTCDateTime(TypeDecorator[datetime]):
    """A moment: aware UTC in Python, with microseconds.

    SQLite stores text ``YYYY-MM-DD HH:MM:SS.ffffff``, which sorts by time. MySQL stores
    ``DATETIME(6)``, PostgreSQL ``TIMESTAMP WITH TIME ZONE``. A naive value is treated as UTC.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class JSONValue(TypeDecorator[Any]):
    """Any JSON value; ``None`` is stored as SQL NULL.

    SQLite stores text; MySQL, MariaDB and PostgreSQL store ``JSON``. PostgreSQL's ``JSONB`` stores
    numbers as decimals, so 1e20 would come back as an integer and -0.0 without its sign. Text that
    is not JSON (it can only come from another program) is returned unchanged, so that one bad row
    never hides the other rows.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql

            return dialect.type_descriptor(postgresql.JSON())
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.JSON())
        return dialect.type_descriptor(Text())

    # The two processors are replaced, not wrapped: those of postgresql.JSON and mysql.JSON would
    # encode a second time.

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str | None]:
        return _encode

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        # asyncpg has decoded the value already. Decoding it again would turn the text "12" into a
        # number.
        return None if dialect.supports_native_json_deserialization else _decode


def _encode(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _decode(value: Any) -> Any:
    if not isinstance(value, str | bytes):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value if isinstance(value, str) else value.decode(errors="replace")


def moment(value: datetime | str) -> datetime:
    """Return a driver's time, which is text on SQLite, as an aware UTC datetime."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
