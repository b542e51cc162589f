"""Secrets never reach the console, a file or the database (R33)."""

import argparse
import collections
import dataclasses
import io
import json
import time
import types
import urllib.parse
from enum import Enum
from typing import NamedTuple

import pydantic
import pytest
import structlog
from each import each
from hypothesis import given
from hypothesis import strategies as st
from secrets_support import HARMLESS, secrets

import structjob
from structjob import Redactor
from structjob.capture.event import BY_NAME, Encoder
from structjob.context.tracebacks import format_traceback
from structjob.processors import FanOut
from structjob.values import secret_rules
from structjob.values.normalizer import normalize
from structjob.values.secret_rules import SecretRules

log = structlog.get_logger("app")


@each(
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


@each(
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


@pytest.mark.parametrize("key", ["secrets_found", "tokensLeft", "next_token", "passwords-checked"])
def test_a_number_that_counts_secrets_is_shown(key):
    assert Redactor().redact({key: 3, "password": 3}) == {key: 3, "password": "[redacted]"}
    assert Redactor().redact({key: ["a"]}) == Redactor().redact({key: "3"}) == {key: "[redacted]"}
    assert Redactor([key]).redact({key: 3}) == {key: "[redacted]"}


@pytest.mark.parametrize(
    "line",
    [
        "python -u app.py:main",
        "python -u app:main --port 80",
        "/usr/bin/python3.13t -B -X dev -Wdefault -W error -u app:main",
        "env A=1 pypy3 -Esu -u app:main",
        "python -u -m gunicorn app:main -u www-data",
        "gunicorn app:main -w 4",
        "uvicorn --factory app:create",
    ],
)
def test_the_program_of_python_is_no_password(line):
    """``-u`` of Python itself takes no value."""
    assert Redactor().text(line) == line
    assert SecretRules().command(line.split()) == line.split()


@each(
    "line",
    [
        "curl -u ada:main http://h",
        "python fetch.py -u ada:main",
        "python -m fetch -u ada:main",
        "python -mfetch -u ada:main",
        "python -Bmfetch -u ada:main",
        "python -u fetch.py -u ada:main",
        "python -c pass -u ada:main",
        "python -u app.py:main curl -u ada:main",
        "./python-client -u ada:main",
        "ipython -u ada:main",
        "fetch --python -u ada:main",
        "python; fetch -u ada:main",
    ],
)
def test_a_password_after_a_program_of_python_is_one(line):
    """R33: ``-u ada:main`` of every other program has a user and a password."""
    shown = line.replace("ada:main", "ada:[redacted]")
    assert Redactor().text(line) == shown
    assert SecretRules().command(line.split()) == shown.split()


@each(
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
        ("CREATE USER ada IDENTIFIED BY 'hunter2'", "CREATE USER ada IDENTIFIED BY '[redacted]'"),
        ('CREATE USER ada IDENTIFIED BY "hunter2"', 'CREATE USER ada IDENTIFIED BY "[redacted]"'),
        ('connect(password="hunter 2", user="ada")', 'connect(password="[redacted]", user="ada")'),
        ("{'password': 'hunter2', 'a': 1}", "{'password': '[redacted]', 'a': 1}"),
        ('{"api_key": "k-1"}', '{"api_key": "[redacted]"}'),
        ("https://h/x?token=abc&page=2", "https://h/x?token=[redacted]&page=2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----.", "[redacted]."),
    ],
)  # fmt: skip
def test_a_credential_inside_a_text_is_taken_out(text, shown):
    """R33: passwords of URLs, Bearer and Basic tokens, key=value pairs and private keys, wherever
    they stand; all else stays.
    """
    assert Redactor().text(text) == shown
    assert Redactor().text(shown) == shown
    assert SecretRules().suspects(text)


@each(
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
    """Acceptance test 6. R33: a text without credentials is shown as it is."""
    assert Redactor().text(text) == text


@each(("text", "canary"), secrets().items())
def test_each_kind_of_secret_is_taken_out_of_a_text(text, canary):
    """faults 35: alone, within a sentence, in JSON within JSON; and what was redacted once stays as
    it is.
    """
    redactor = Redactor()
    for form in (text, f"it failed: {text}", f"{text}\nnext line", json.dumps({"note": text})):
        shown = redactor.text(form)
        assert canary not in shown
        assert "[redacted]" in shown
        assert redactor.text(shown) == shown


def test_harmless_texts_stay_as_they_are():
    """faults 35: ids, hashes, numbers, dates, Base64, public keys, source code, sentences and
    commands without a secret.
    """
    redactor = Redactor()
    assert [(text, redactor.text(text)) for text in HARMLESS if redactor.text(text) != text] == []


@each(
    "piece",
    [
        "y", "a.", "a-", "a_", "://", "://a:", "://a:b", "://a:b@", "/@", "bearer ", "password=", 'password="', "token: ", "secret\\",
        "=", ":", "\\",
        "'password': '", "--", "--password ", "-p", "mysql -p", "curl -u a:", "sshpass -p ", "-----BEGIN PRIVATE KEY-----", "://a1",
        "eyJ", "eyJaaaaaaaa.",
        "sk-", "sk-a1", "ghp_", "xoxb-", "AKIA", "SG.", "1//0", "4111 ", "4111-", "<password>", "<a ", 'name="password" ',
        'name="a" value="b" ',
        "identified by '", "login a ", "login a password ", "a:b@tcp(", "a:", "('password', ", "cookie: ", "authorization: digest ",
        "%3D", "password%3D",
        "hooks.slack.com/services/", "A3-AAAAAA-", "FlyV1 fm2_", "123456789:AA", "x" * 90 + "=", "dp.pt.", "a.b", "[a]", "\n\n",
        "name: x\n\n",
    ],
)  # fmt: skip
def test_no_text_makes_redaction_slow(piece):
    """Guarantee 3: no rule takes more than proportionally longer for a longer text, of whatever
    pieces it is made.
    """
    redactor, seconds = Redactor(), []
    for size in (8_192, 65_536):
        text = "password=x ghp_0123456789abcdefghij " + piece * (size // len(piece))
        began = time.thread_time()
        redactor.text(text)
        seconds.append(time.thread_time() - began)
    assert seconds[1] < 24 * seconds[0] + 0.025
    assert seconds[1] < 1


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
    "headers": {
        "Authorization": "s3cr3t",
        "Cookie": "s3cr3t",
        "X-Api-Key": "s3cr3t",
        "accept": "*/*",
    },
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


class Model(pydantic.BaseModel):
    user: str
    password: str
    extra: dict[str, str] = {}


class AttrsField(NamedTuple):
    """As `attrs` describes a field."""

    name: str
    repr: bool


class Attrs:
    """What `attrs.define` makes of a class, which is not installed here."""

    __attrs_attrs__ = (
        AttrsField("user", True),
        AttrsField("password", True),
        AttrsField("hidden", False),
    )

    def __init__(self, user: str, password: str) -> None:
        self.user, self.password, self.hidden = user, password, "s3cr3t"

    def __repr__(self) -> str:
        return f"Attrs(user={self.user!r}, password={self.password!r})"


@dataclasses.dataclass
class SinkEvent:
    user: str
    password: str


@each(
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
        {"login": Model(user="joe", password="s3cr3t")},
        {"logins": [Model(user="joe", password="s3cr3t", extra={"token": "s3cr3t"})]},
        {"login": SinkEvent("joe", "s3cr3t")},
        {"login": Attrs("joe", "s3cr3t")},
        {"logins": collections.deque([Attrs("joe", "s3cr3t")])},
        {"login": types.SimpleNamespace(user="joe", password="s3cr3t")},
        {"arguments": argparse.Namespace(password="s3cr3t")},
        {"items": {"password": "s3cr3t"}.items()},
        {"values": {"password": "s3cr3t"}.values()},
        {"values": collections.ChainMap({"password": "s3cr3t"}).values()},
        {"headers": types.MappingProxyType({"password": "s3cr3t"})},
        {"setting": {"name": "password", "value": "s3cr3t"}},
        {"name": "DB_PASSWORD", "value": "s3cr3t"},
        {"command": ["mysql", "-ps3cr3t", "jobs"]},
        {"command": ("curl", "-u", "joe:s3cr3t")},
        {"url": urllib.parse.urlsplit("https://joe:s3cr3t@host/")},
        {"https://joe:s3cr3t@host/": 1},
        {"counts": {"https://joe:s3cr3t@host/": 1}},
        {"auth": ("joe", "s3cr3t")},
    ],
)  # fmt: skip
def test_a_secret_is_found_in_whatever_form_its_name_comes(attrs):
    """faults 34: headers as ASGI has them, options of a command, members of enums, named tuples,
    models, namespaces, views, keys.
    """
    stream = io.BytesIO()
    structjob.configure(console=stream, strict=True)
    log.info("x", **attrs)
    assert b"s3cr3t" not in stream.getvalue()
    assert b"[redacted]" in stream.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        ["password", "user"],
        ["--token", "--verbose"],
        ["token", 5],
        [["password", "user", "host"]],
        [[], ["password"]],
    ],
    ids=[
        "names of fields",
        "options without a value",
        "a name and a number",
        "more than pairs",
        "less than pairs",
    ],
)
def test_a_list_that_only_names_secrets_is_left_alone(value):
    """R33: which fields are missing, or which options were given, is no secret."""
    assert Redactor().redact({"missing": value}) == {"missing": value}


def test_keys_that_become_equal_keep_their_items():
    """faults H: two keys that differ in a secret are two keys afterwards, too: none is lost."""
    shown = Redactor().redact({"a token=abc": [1], "a token=def": [2], "a token=ghi": [3]})
    assert list(shown) == ["a token=[redacted]", "a token=[redacted]~", "a token=[redacted]~~"]


def test_what_a_key_says_about_its_value_holds_for_its_kind():
    """R33: a value that looks like a secret is one below a key that allows it; a card number is
    one as text and as a number; the value beside an innocent name stays.
    """
    redact = Redactor().redact
    assert redact({"pin": "q8Zr4pXv7Lm2Kt9Wc3Nb6Yd1"}) == {"pin": "[redacted]"}
    for number in (4111111111111111, "4111111111111111"):
        assert redact({"card": number}) == {"card": "[redacted]"}
    assert redact([["password", 5], ["a", 5]]) == [["password", "[redacted]"], ["a", 5]]
    assert redact({"name": "color", "value": "red"}) == {"name": "color", "value": "red"}
    assert redact({"name": "password", "value": "x"}) == {"name": "password", "value": "[redacted]"}


def test_a_credential_in_a_column_of_its_own_is_taken_out():
    """R33: `category`, `project` and the like are redacted as attributes are."""
    stream = io.BytesIO()
    structjob.configure(console=stream, strict=True)
    log.info("x", category="password=s3cr3t", project="https://ada:s3cr3t@host/")
    assert b"s3cr3t" not in stream.getvalue()
    assert stream.getvalue().count(b"[redacted]") == 2


async def test_no_secret_reaches_console_file_sinks_or_database(tracker, tmp_path, capsys):
    """R33: at the first level, further down, in messages, in bound context, in exceptions: nowhere,
    on no sink.
    """
    seen = []

    class Own:
        def emit(self, record):
            seen.append((record.message, record.attrs, record.line))

    structjob.configure(
        console="json",
        file=tmp_path / "app.jsonl",
        sinks=[Own(), structjob.ConsoleSink(format="pretty")],
        strict=True,
    )
    async with tracker.job(
        "a", metadata={**NESTED, "password": "s3cr3t"}, description="to https://u:s3cr3t@h/"
    ) as job:
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
    for what in (
        capsys.readouterr().out,
        (tmp_path / "app.jsonl").read_text(),
        repr(seen),
        repr(stored),
    ):
        assert "s3cr3t" not in what
        assert "[redacted]" in what
    (one,) = await tracker.logs.list(text="one")
    assert one.attrs["headers"]["accept"] == "*/*"
    assert one.attrs["config"]["host"] == "h"
    assert one.attrs["card"] == {"cvv": "[redacted]", "cardNumber": "[redacted]"}


async def test_further_keys_can_be_secret_and_redaction_switched_off(tracker):
    """R33: `redact=["iban"]` adds words, at any depth and for metadata too; `redact=False` leaves
    everything as it is.
    """
    structjob.configure(console=False, redact=["iban"], strict=True)
    async with tracker.job("a", metadata={"customer": {"IBAN": "DE1"}}) as job:
        log.info("with", customer={"IBAN": "DE1", "password": "x"})
    assert (await tracker.jobs.get(job.id)).metadata == {"customer": {"IBAN": "[redacted]"}}
    structjob.configure(console=False, redact=False, strict=True)
    async with tracker.job("b", metadata={"password": "x"}) as job:
        log.info("without", password="x")
        with pytest.raises(ValueError, match="y"), structjob.step("s" * 200):
            raise ValueError("y" * 3000)
    (with_,), (without,) = (
        await tracker.logs.list(text="with", operation="a", kind="log"),
        await tracker.logs.list(text="without"),
    )
    assert with_.attrs["customer"] == {"IBAN": "[redacted]", "password": "[redacted]"}
    assert without.attrs == {"password": "x"}
    (failed,) = await tracker.logs.list(operation="b", kind="step_error")
    assert 200 < len(failed.message) <= 2000
    assert (await tracker.jobs.get(job.id)).metadata == {"password": "x"}


@each("word", ["db.iban", "db-iban", "db_iban", "dbIban", "DB.IBAN"])
@each("key", ["db.iban", "db-iban", "db_iban", "dbIban", "main.db.iban"])
def test_a_further_key_matches_in_whatever_style_it_is_written(word, key):
    """R33: `redact=["db.iban"]` means `db_iban` and `db-iban` too, and no more than that."""
    redactor = Redactor([word])
    assert redactor.is_secret(key)
    assert not redactor.is_secret("iban_of_db")


def test_what_is_no_secret_of_a_model_is_recorded_by_its_name():
    """faults 34: a model, a namespace and a mapping's values are structures in the log, as a
    dataclass is.
    """
    given = [
        Model(user="joe", password="s3cr3t"),
        types.SimpleNamespace(a=[1]),
        {"a": 1}.values(),
        Attrs("joe", "x"),
    ]
    assert normalize(given) == [
        {"user": "joe", "password": "s3cr3t", "extra": {}},
        {"a": [1]},
        {"a": 1},
        {"user": "joe", "password": "x"},
    ]


def test_keys_of_the_users_count_in_texts_too():
    """faults 34: `redact=["iban"]` hides `iban=…` in a message, in a traceback and in an object's
    ``repr``, not only in structures.
    """
    redactor = Redactor(["iban", "db.pin"])
    assert redactor.text("customer iban=DE1, IBAN: DE2, customerIban='DE3' (db_pin=12)") == (
        "customer iban=[redacted], IBAN: [redacted], customerIban='[redacted]' (db_pin=[redacted]"
    )
    assert redactor.text("the iban is wrong") == "the iban is wrong"
    assert Redactor().text("customer iban=DE1") == "customer iban=DE1"


def test_what_stands_beside_a_secret_is_shown():
    """R33: of a host name, of what follows a header, of a command line that is not searched."""
    redactor = Redactor()
    assert redactor.redact({"netloc": "ada:swordfish@db"}) == {"netloc": "ada:[redacted]@db"}
    curl = redactor.text("curl -H 'Cookie: a=swordfish' https://host")
    assert curl == "curl -H 'Cookie: [redacted]' https://host"
    command = ["run", "--fast", {"password": "swordfish", "a": 1}]
    assert redactor.redact(command) == ["run", "--fast", {"password": "[redacted]", "a": 1}]
    line = "mysql -pswordfish jobs"
    assert redactor.text(line) == "mysql -p[redacted] jobs"
    assert Redactor(disable=["commands"]).text(line) == line
    moment = object()
    assert redactor.redact(moment) is moment


def test_keys_can_be_allowed_and_rules_disabled():
    """faults 35: a key that only looks secret, or a rule with false hits, is switched off by name;
    all others stay on.
    """
    redactor = Redactor(allow=["sessionToken"], disable=["cards", "tokens"])
    assert redactor.redact({"session_token": "a1", "token": "b2"}) == {
        "session_token": "a1",
        "token": "[redacted]",
    }
    assert redactor.text("session_token=a1 token=b2") == "session_token=a1 token=[redacted]"
    for text in ("4111 1111 1111 1111", "ghp_0123456789abcdefghij0123456789abcdef"):
        assert redactor.text(text) == text
    with pytest.raises(
        structjob.InvalidArgument, match="unknown rule 'card' to disable: use some of keys, "
    ):
        Redactor(disable=["card"])


def test_rules_and_values_of_the_users_are_replaced():
    """faults 35: a pattern, or its group `secret`, and values that are known, also quoted for URLs
    and in Base64.
    """
    redactor = Redactor(rules=[r"CUST-\d+", r"badge (?P<secret>\w+)"], values=["pa ss/word"])
    assert redactor.text("CUST-123 badge xyz") == "[redacted] badge [redacted]"
    assert (
        redactor.text("a pa ss/word b pa%20ss%2Fword c pa+ss%2Fword d cGEgc3Mvd29yZA== e")
        == "a [redacted] b [redacted] c [redacted] d [redacted]== e"
    )
    with pytest.raises(structjob.InvalidArgument, match="at least 6 characters"):
        Redactor(values=["short"])


@each(
    ("options", "message"),
    [
        ({"keys": "iban"}, r"keys must be a list, not str: keys=\[…\]"),
        ({"keys": ["iban", 1]}, "keys must list texts only, not int"),
        ({"keys": None}, "keys must be a list, not NoneType"),
        ({"allow": "token"}, "allow must be a list, not str"),
        ({"allow": [b"token"]}, "allow must list texts only, not bytes"),
        ({"disable": "cards"}, "disable must be a list, not str"),
        ({"values": "a-secret-value"}, r"^values must be a list, not str: values=\[…\]$"),
        ({"rules": r"CUST-\d+"}, "rules must be a list, not str"),
        ({"rules": ["CUST-("]}, r"rules must be regular expressions, and 'CUST-\(' is not one"),
        ({"rules": [7]}, "rules must be regular expressions, and 7 is not one"),
    ],
)
def test_a_text_in_place_of_a_list_is_refused(options, message):
    """faults 35: the letters of ``keys="iban"`` would be the keys, and what has the key ``iban`` be
    stored as it is.
    """
    with pytest.raises(structjob.InvalidArgument, match=message):
        Redactor(**options)


@pytest.mark.parametrize(
    "value",
    [
        "pässword-1",
        'pass"word',
        "pass'word",
        "p'a\"s\\s\tw\x7förd",
        "пароль-😀",
        "pass\u200bword",
        "p\\'ss\\\\'word",
    ],
)
def test_a_registered_value_is_found_in_json_and_in_a_repr(value):
    """faults 35: whatever characters it has, and whichever quotation marks are around it."""
    redactor = Redactor(values=[value])
    for text in (value, f"it is {value}", f"it's {value}", f'"it" is {value}', f"it's \"{value}"):
        for shown in (
            repr({"a": text}),
            ascii({"a": text}),
            json.dumps({"a": text}),
            json.dumps({"a": text}, ensure_ascii=False),
        ):
            assert redactor.text(shown).count("[redacted]") == 1, shown
            assert "word" not in redactor.text(shown)


@pytest.mark.parametrize("redact", ["password", 5, [1]])
def test_a_wrong_redact_is_refused(redact):
    """A text is no list of keys: taken letter by letter it would hide everything, or nothing."""
    with pytest.raises(structjob.InvalidArgument, match="redact must be"):
        structjob.configure(console=False, redact=redact)


def test_new_keys_are_remembered_however_many_came_before(monkeypatch):
    """An event with 10,000 different keys would slow down all that come later."""
    redactor = SecretRules()
    for number in range(12_000):
        redactor.concerns(f"host{number}")
    seen = []
    monkeypatch.setattr(secret_rules, "snake", lambda key: seen.append(key) or key)
    for _ in range(3):
        assert not redactor.concerns("late")
        assert not redactor.is_secret("later")
    assert seen == ["late", "later"]


def test_new_messages_and_keys_of_events_are_remembered_too():
    shown = []
    fan_out = FanOut(shown.append)
    for number in range(5_000):
        fan_out.take(BY_NAME["info"], f"message {number}", {f"key{number}": 1}, None)
    fan_out.take(BY_NAME["info"], "late", {"late_key": 1}, None)
    assert "late" in fan_out.encoder.messages
    assert "late_key" in fan_out.encoder.plain


GITHUB = "ghp_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
BEYOND_CUTS = {
    "a token": (GITHUB, "A1b2"),
    "a password in a URL": ("https://ada:hunter2-hunter2@example.org/", "hunt"),
    "a card": ("4111 1111 1111 1111", "4111"),
    "a signed token": (f"eyJ{'hb0ci1' * 20}.eyJ{'zd2Ii3' * 30}.{'Sf4Kx5' * 10}", "hb0c"),
    "a registered value": ("correct-horse-battery-staple", "corr"),
}
LONG = {
    "text": (65_456, lambda text: {"given": text}),
    "text of a large event": (4_016, lambda text: {"given": [text, *["y" * 6_000] * 54]}),
    "text of a very large event": (176, lambda text: {f"k{n}": [text, *["y" * 3_900] * 70] for n in range(5)}),
    "bytes": (65_456, lambda text: {"given": text.encode()}),
    "name": (176, lambda text: {text: 1}),
    "name of a member": (176, lambda text: {"given": {text: 1}}),
    "object": (65_456, lambda text: {"given": types.SimpleNamespace(inner=text)}),
    "message": (65_456, lambda text: text),
    "message of bytes": (65_456 - 2, lambda text: text.encode()),
    "words": (2_000, lambda text: text),
}  # fmt: skip


@each("what", LONG)
@each("kind", BEYOND_CUTS)
def test_no_beginning_of_a_secret_stays_where_a_text_is_cut(kind, what):
    """R33: a text is searched a little further than it is kept, because the rest of a secret shows
    that it is one.
    """
    secret, beginning = BEYOND_CUTS[kind]
    size, made = LONG[what]
    encoder = Encoder(SecretRules(values=[secret] if kind == "a registered value" else []))
    for at in {5, len(secret) // 2, len(secret) - 1}:
        before = "x" * (size - at - 1)
        value = made(f"{before} {secret} {'z' * 5_000}")
        if what == "words":
            out = encoder.words(value)
        elif what.startswith("message"):
            out, _ = encoder.encode(value, {})
        else:
            _, out = encoder.encode("m", encoder.attrs(value, {}))
        assert beginning not in out.decode(), at
        assert "cut: " in out.decode() or what == "words"


def test_no_half_of_a_secret_stays_where_a_traceback_is_cut():
    """R33: the middle of a long traceback is cut between lines or words."""
    redactor = Redactor()
    for at in (*range(8_050, 8_200, 5), *range(60_000 - 24_576 - 60, 60_000 - 24_576 + 60, 5)):
        text = f"{'x ' * (at // 2)}password={GITHUB} {'y ' * ((60_000 - at) // 2)}"
        shown = redactor.text(format_traceback(ValueError(text)))
        assert "A1b2" not in shown, at
        assert "Q7r8" not in shown, at
        assert "cut: " in shown


def _raise(self, value, key=None):
    raise KeyError(value)


@pytest.mark.parametrize(
    ("method", "mistake"),
    [
        *((method, _raise) for method in ("is_secret", "text", "redact")),
        *((method, lambda self, value, key=None: None) for method in ("text", "redact")),
    ],
)
async def test_a_mistake_in_a_redactor_of_ones_own_loses_no_job(tracker, caplog, method, mistake):
    """R33: an `AttributeError` or a forgotten `return` in a user's redactor once left every job and
    event unrecorded. Now they are recorded, without what it could not check.
    """
    structjob.configure(console=False, redact=type("Mine", (Redactor,), {method: mistake})())
    async with (
        tracker.job("parent", metadata={"who": "Ada"}) as parent,
        parent.child("copy") as job,
        job.step("read") as step,
    ):
        step.update(description="half way", percent=50)
        structlog.get_logger().error("it failed", secret="hunter2", exc_info=ValueError("x"))
        job.result = {"who": "Ada"}
    assert str((await tracker.jobs.get(job.id)).status) == "completed"
    assert str((await tracker.jobs.get(parent.id)).status) == "completed"
    (event,) = await tracker.logs.list(job=job, kind="log")
    assert "hunter2" not in repr(event)
    ledger = tracker.ledger()
    assert (ledger.dead_lettered, ledger.rejected) == (0, 0)
    told = [one for one in caplog.messages if f"Mine.{method}() failed" in one]
    assert len(told) == (mistake is _raise or method == "text")


class _OfOneCompany(Redactor):
    """A subclass that decides in each of the three ways, and does not call `Redactor.__init__`."""

    def __init__(self):
        self.asked = 0

    def is_secret(self, key):
        return key == "badge" or super().is_secret(key)

    def text(self, text):
        return super().text(text.replace("Ada", "[name]"))

    def redact(self, value, key=None):
        self.asked += 1
        return "[plan]" if key == "plan" else super().redact(value, key)


def test_a_redactor_of_ones_own_decides_at_any_depth():
    """R33: what a subclass of `Redactor` overrides is used for what lies inside, too, by logging
    and by the redactor itself; the other rules apply as ever.
    """
    redactor = _OfOneCompany()
    given = {"a": [{"badge": 7, "plan": 1, "who": "Ada", "url": "redis://:hunter2@h"}]}
    shown = {
        "a": [
            {
                "badge": "[redacted]",
                "plan": "[plan]",
                "who": "[name]",
                "url": "redis://:[redacted]@h",
            }
        ]
    }
    assert redactor.redact(given) == shown
    assert redactor.asked > 4
    seen = []
    FanOut(seen.append, redact=redactor).take(BY_NAME["info"], "Ada", given, None)
    assert (seen[0].message, seen[0].attrs) == ("[name]", shown)
