"""Which characters a database can store: all if its encoding is UTF-8, fewer otherwise."""

from __future__ import annotations

import codecs

from sqlalchemy import Connection, text

from structjob.store.migration_sql import VERSION_TABLE

_LATIN = {1: 1, 2: 2, 3: 3, 4: 4, 5: 9, 6: 10, 7: 13, 8: 14, 9: 15, 10: 16}
_CODECS = {
    "EUC_JP": "euc_jp", "EUC_JIS_2004": "euc_jis_2004", "EUC_KR": "euc_kr", "EUC_CN": "gb2312", "KOI8R": "koi8-r", "KOI8U": "koi8-u",
    "WIN866": "cp866", "WIN874": "cp874", **{f"WIN{number}": f"cp{number}" for number in range(1250, 1259)},
    **{f"LATIN{number}": f"iso8859-{part}" for number, part in _LATIN.items()},
    **{f"ISO_8859_{part}": f"iso8859-{part}" for part in range(5, 9)},
}  # fmt: skip
"""Python's names for PostgreSQL's encodings."""

_WITHOUT_CONVERSION = ("UTF8", "SQL_ASCII")
"""The encodings that PostgreSQL stores without conversion; the stored text is UTF-8. With
SQL_ASCII, the lengths of columns are in bytes.
"""


def codec_of(encoding: str) -> str | None:
    """Return Python's codec for a PostgreSQL *encoding*; ``None`` if it can store every
    character.
    """
    return None if encoding in _WITHOUT_CONVERSION else _CODECS.get(encoding, "ascii")


def _doubled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 -- used only for encoding
    escaped = error.object[error.start : error.end].encode("ascii", "backslashreplace").decode()
    return escaped.replace("\\", "\\\\"), error.end


codecs.register_error("structjob.json", _doubled)


def within(codec: str, value: str) -> str:
    r"""Replace each character that *codec* lacks by an escape such as ``\u0416``."""
    return value.encode(codec, "backslashreplace").decode(codec)


def json_within(codec: str, value: bytes) -> bytes:
    """Return JSON whose texts are converted as by `within`."""
    return value.decode().encode(codec, "structjob.json").decode(codec).encode()


def advice(connection: Connection) -> list[tuple[str, str]]:
    """Return the problems with storing characters, each with the statement that fixes it."""
    if connection.dialect.name == "postgresql":
        encoding = str(connection.execute(text("SHOW server_encoding")).scalar_one())
        if encoding == "UTF8":
            return []
        return [
            (f"the database's encoding is {encoding}: {consequence(encoding)}", utf8_database())
        ]
    if connection.dialect.name not in ("mysql", "mariadb"):
        return []
    columns = text(
        "SELECT table_name AS tab, column_name AS col, column_type AS type, is_nullable AS nullable, character_set_name AS charset "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name LIKE 'structjob\\_%' AND table_name <> :version "
        "AND character_set_name <> 'utf8mb4' AND table_name IN (SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE') ORDER BY table_name, ordinal_position"
    )
    return [
        (
            f"{row.tab}.{row.col} has the character set {row.charset}: a question mark is stored for each character that it does not have",
            f"ALTER TABLE {row.tab} MODIFY {row.col} {row.type} CHARACTER SET utf8mb4{'' if row.nullable == 'YES' else ' NOT NULL'}",
        )
        for row in connection.execute(columns, {"version": VERSION_TABLE})
    ]


def consequence(encoding: str) -> str:
    """Return what happens to characters that a PostgreSQL *encoding* lacks."""
    if codec_of(encoding) is None:
        return "the lengths of its columns are in bytes, so that texts with other letters than English ones fill them sooner"
    return "characters that it does not have are stored as escapes such as \\u0416"


def utf8_database() -> str:
    """Return how to create a PostgreSQL database that can store every character."""
    return "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, and name it in the URL"
