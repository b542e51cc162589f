"""Secrets never reach the console, a file or the database (R33)."""

import io
import time
from enum import Enum
from typing import NamedTuple

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

import structjob
from structjob import Redactor

log = structlog.get_logger("app")


@pytest.mark.parametrize(
    "key",
    [
        "password", "PASSWORD", "db_password", "dbPassword", "passwd", "secret", "client_secret", "token", "accessToken", "access-token",
        "api_key", "apiKey", "X-API-Key", "Authorization", "proxy-authorization", "cookie", "Set-Cookie", "private_key", "credentials",
        "jwt", "csrf", "session.token", "tokenSecret", "password1", "newPassword2", "csrftoken", "X-CSRFToken", "authtoken", "userOTPCode",
    ],
)  # fmt: skip
def test_a_key_that_names_a_secret_hides_its_value(key):
    """R33: in whatever style it is written."""
    assert Redactor().is_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        "author",
        "max_tokens",
        "total_tokens",
        "token_count",
        "tokens",
        "passenger",
        "secretary",
        "keyboard",
        "session_id",
        "job_id",
        "monkey",
        "tokenizer",
    ],
)
def test_an_innocent_key_is_left_alone(key):
    """R33: what merely looks like a secret's name is shown."""
    assert not Redactor().is_secret(key)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://ada:hunter2@db/x", "postgres://ada:[redacted]@db/x"),
        ("redis://:hunter2@cache:6379", "redis://:[redacted]@cache:6379"),
        ("from mysql://a:p@ss@h/x to postgresql+asyncpg://b:q@h/y", "from mysql://a:[redacted]@h/x to postgresql+asyncpg://b:[redacted]@h/y"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
        ("authorization: bearer abcdefgh1", "authorization: bearer [redacted]"),
        ("Authorization: Bearer\tabc.def-123", "Authorization: Bearer\t[redacted]"),
        ("Authorization: Basic\nYWRhOmh1bnRlcjI=", "Authorization: Basic\n[redacted]"),
        ("curl -u x Basic dXNlcjpwYXNzd29yZA==", "curl -u x Basic [redacted]"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]"),
        ("git clone https://ghp_0123456789abcdefghij@github.com/a/b", "git clone https://[redacted]@github.com/a/b"),
        ("mysql --password hunter2 --host db", "mysql --password [redacted] --host db"),
        ("vault --client-token hvs.x", "vault --client-token [redacted]"),
        ("login password=hunter2 ok", "login password=[redacted] ok"),
        ('connect(password="hunter 2", user="ada")', 'connect(password="[redacted]", user="ada")'),
        ("{'password': 'hunter2', 'a': 1}", "{'password': '[redacted]', 'a': 1}"),
        ('{"api_key": "k-1"}', '{"api_key": "[redacted]"}'),
        ("https://h/x?token=abc&page=2", "https://h/x?token=[redacted]&page=2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----.", "[redacted]."),
    ],
)  # fmt: skip
def test_a_credential_inside_a_text_is_taken_out(text, shown):
    """R33: passwords of URLs, Bearer and Basic tokens, key=value pairs and private keys, wherever they stand; all else stays."""
    assert Redactor().text(text) == shown
    assert Redactor().text(shown) == shown
    assert Redactor().suspects(msgspec.json.encode(text))


@pytest.mark.parametrize(
    "text",
    [
        "see http://host:8080/path",
        "a bearer of news",
        "basic information",
        "mail ada@example.org",
        "ratio 3:4@5",
        "ssh://git@github.com/a/b",
        "sftp://a.very.long.user.name@host/x",
        "mysql --password --host db",
        "basic authentication failed",
        "the secret is out",
        "Executing with tokens:",
    ],
)
def test_an_innocent_text_is_left_alone(text):
    """R33: a text without credentials is shown as it is."""
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "y",
        "a.",
        "://",
        "://a:",
        "bearer ",
        "password=",
        'password="',
        "token: ",
        "-----BEGIN PRIVATE KEY-----",
        "secret\\",
        "=",
        "\\",
        "'password': '",
        "--",
        "--password ",
        "://a1",
    ],
)
def test_no_text_makes_redaction_slow(piece):
    """Guarantee 3: the longest text that is logged, of whatever pieces, is looked through in a moment."""
    text = piece * (65_536 // len(piece))
    began = time.process_time()
    Redactor().text(text)
    assert time.process_time() - began < 0.5


def test_a_ruled_line_is_looked_through_as_fast_as_any_other():
    """Guarantee 3: tables and rules of dashes are common in what programs print."""
    redactor, seconds = Redactor(), {}
    for character in "=-":
        began = time.process_time()
        for _ in range(5):
            redactor.text("token " + character * 65_000)
        seconds[character] = time.process_time() - began
    assert seconds["-"] < 10 * seconds["="] + 0.01


@given(st.text())
def test_redaction_survives_any_text(text):
    """R33: it raises nothing, and what was redacted once stays as it is."""
    once = Redactor().text(text)
    assert Redactor().text(once) == once


NESTED = {
    "config": {"host": "h", "db": [{"password": "s3cr3t"}]},
    "headers": {"Authorization": "s3cr3t", "Cookie": "s3cr3t", "X-Api-Key": "s3cr3t", "accept": "*/*"},
    "card": {"cvv": "s3cr3t", "cardNumber": "s3cr3t"},
    "url": "https://u:s3cr3t@h/",
    "list": ["--password=s3cr3t", "token: s3cr3t"],
}


class Word(str):
    """Text by another name, as members of enums are."""


class Header(Enum):
    FIRST = "cookie"


class Login(NamedTuple):
    user: str
    password: str


@pytest.mark.parametrize(
    "attrs",
    [
        {"headers": {b"cookie": b"s3cr3t"}},
        {"headers": [(b"host", b"h"), (b"x-api-key", b"s3cr3t")]},
        {"items": list({"password": "s3cr3t"}.items())},
        {"command": ["mysql", "--user", "joe", "--password", "s3cr3t", "jobs"]},
        {Word("cookie"): "s3cr3t"},
        {"login": Login("joe", "s3cr3t")},
        {"deep": [{"login": [Login("joe", "s3cr3t")]}]},
        {"headers": {Header.FIRST: "s3cr3t"}},
        {"settings": {("db", "password"): "s3cr3t"}},
    ],
    ids=["bytes", "pairs", "items", "options", "names", "named tuple", "deep", "enum", "tuple"],
)
def test_a_secret_is_found_in_whatever_form_its_name_comes(attrs):
    """R33: headers as ASGI has them, options of a command, members of enums, named tuples."""
    stream = io.BytesIO()
    structjob.configure(console=stream, strict=True)
    log.info("x", **attrs)
    assert b"s3cr3t" not in stream.getvalue()
    assert b"[redacted]" in stream.getvalue()


@pytest.mark.parametrize(
    "value",
    [["password", "user"], ["--token", "--verbose"], ["token", 5], [["password", "user", "host"]], [[], ["password"]]],
    ids=["names of fields", "options without a value", "a name and a number", "more than pairs", "less than pairs"],
)
def test_a_list_that_only_names_secrets_is_left_alone(value):
    """R33: which fields are missing, or which options were given, is no secret."""
    assert Redactor().value({"missing": value}) == {"missing": value}


def test_a_credential_in_a_column_of_its_own_is_taken_out():
    """R33: `category`, `project` and the like are redacted as attributes are."""
    stream = io.BytesIO()
    structjob.configure(console=stream, strict=True)
    log.info("x", category="password=s3cr3t", project="https://ada:s3cr3t@host/")
    assert b"s3cr3t" not in stream.getvalue()
    assert stream.getvalue().count(b"[redacted]") == 2


async def test_no_secret_reaches_console_file_sinks_or_database(tracker, tmp_path, capsys):
    """R33: at the first level, further down, in messages, in bound context, in exceptions: nowhere, on no sink."""
    seen = []

    class Own:
        def emit(self, record):
            seen.append((record.message, record.attrs, record.line))

    structjob.configure(console="json", file=tmp_path / "app.jsonl", sinks=[Own(), structjob.ConsoleSink(format="pretty")], strict=True)
    async with tracker.job("a", metadata={**NESTED, "password": "s3cr3t"}, description="to https://u:s3cr3t@h/") as job:
        log.info("one", password="s3cr3t", **NESTED)
        log.bind(api_key="s3cr3t").info("two at https://u:s3cr3t@h/")
        log.info({"password": "s3cr3t"})
        log.info(["https://u:s3cr3t@h/"])
        structlog.contextvars.bind_contextvars(token="s3cr3t")
        log.info("three")
        try:
            raise ValueError("cannot log in with password=s3cr3t")
        except ValueError:
            log.exception("four")
        with pytest.raises(RuntimeError):
            async with job.step("s", metadata=NESTED, description="password=s3cr3t") as step:
                step.update(description="at https://u:s3cr3t@h/")
                raise RuntimeError("token: s3cr3t")
        job.update(current_step="https://u:s3cr3t@h/")
        job.result = NESTED
    await tracker.flush()
    stored = [
        await tracker.jobs.get(job.id),
        await tracker.jobs.steps(job.id),
        await tracker.jobs.history(job.id),
        list(await tracker.logs.list(job_id=job.id)),
    ]
    for what in (capsys.readouterr().out, (tmp_path / "app.jsonl").read_text(), repr(seen), repr(stored)):
        assert "s3cr3t" not in what
        assert "[redacted]" in what
    (one,) = await tracker.logs.list(text="one")
    assert one.attrs["headers"]["accept"] == "*/*"
    assert one.attrs["config"]["host"] == "h"
    assert one.attrs["card"] == {"cvv": "[redacted]", "cardNumber": "[redacted]"}


async def test_further_keys_can_be_secret_and_redaction_switched_off(tracker):
    """R33: `redact=["iban"]` adds words, at any depth and for metadata too; `redact=False` leaves everything as it is."""
    structjob.configure(console=False, redact=["iban"], strict=True)
    async with tracker.job("a", metadata={"customer": {"IBAN": "DE1"}}) as job:
        log.info("with", customer={"IBAN": "DE1", "password": "x"})
    assert (await tracker.jobs.get(job.id)).metadata == {"customer": {"IBAN": "[redacted]"}}
    structjob.configure(console=False, redact=False, strict=True)
    async with tracker.job("b", metadata={"password": "x"}) as job:
        log.info("without", password="x")
    (with_,), (without,) = (
        await tracker.logs.list(text="with", level_exact=False, operation="a", kind="log"),
        await tracker.logs.list(text="without"),
    )
    assert with_.attrs["customer"] == {"IBAN": "[redacted]", "password": "[redacted]"}
    assert without.attrs == {"password": "x"}
    assert (await tracker.jobs.get(job.id)).metadata == {"password": "x"}


@pytest.mark.parametrize("word", ["db.iban", "db-iban", "db_iban", "dbIban", "DB.IBAN"])
@pytest.mark.parametrize("key", ["db.iban", "db-iban", "db_iban", "dbIban", "main.db.iban"])
def test_a_further_key_matches_in_whatever_style_it_is_written(word, key):
    """R33: `redact=["db.iban"]` means `db_iban` and `db-iban` too, and no more than that."""
    redactor = Redactor([word])
    assert redactor.is_secret(key)
    assert not redactor.is_secret("iban_of_db")


@pytest.mark.parametrize("redact", ["password", 5, [1]])
def test_a_wrong_redact_is_refused(redact):
    """A text is no list of keys: taken letter by letter it would hide everything, or nothing."""
    with pytest.raises(structjob.InvalidArgument, match="redact must be"):
        structjob.configure(console=False, redact=redact)
