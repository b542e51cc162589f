"""Secrets of the environment, and addresses of people (R33)."""

import time

import pytest
import structlog

import structjob
from structjob import Redactor
from structjob.values.secret_rules import SecretRules

log = structlog.get_logger("app")


def test_secrets_of_the_environment_are_registered(tmp_path):
    """R33: by the names of the variables; what would be replaced elsewhere is left out."""
    file = tmp_path / "key.pem"
    file.touch()
    named = structjob.secrets_from_environment(
        {
            "DB_PASSWORD": "hunter2-hunter2",
            "API_KEY": "0123456789abcdefXYZ",
            "PIN_PASSWORD": "12345678",
            "SHORT_SECRET": "abc",
            "TLS_PRIVATE_KEY": str(file),
            "PATH": "/usr/bin:/bin",
            "LANG": "en_US.UTF-8",
        }
    )
    assert named == ["API_KEY", "DB_PASSWORD"]
    found = []
    structjob.configure(console=False, sinks=[found.append])
    log.info("it is hunter2-hunter2", where="/usr/bin:/bin", pin="12345678", file=str(file))
    (event,) = found
    assert event.message == "it is [redacted]"
    assert event.attrs["where"] == "/usr/bin:/bin"
    assert structjob.secrets_from_environment({}) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mail to ada.l+x@mail.example.org, now", "mail to [redacted], now"),
        ("from 10.0.0.1: refused", "from [redacted]: refused"),
        ("ends in 192.168.255.254.", "ends in [redacted]."),
        ("from 2001:db8::7 and ::1", "from [redacted] and [redacted]"),
        ("2001:0db8:0000:0000:0000:ff00:0042:8329", "[redacted]"),
        ("at 12:34:56, version 1.2.3", "at 12:34:56, version 1.2.3"),
        ("std::vector<int> a::b", "std::vector<int> a::b"),
        ("999.1.1.1 and 1.2.3.4.5 and @decorated", "999.1.1.1 and 1.2.3.4.5 and @decorated"),
    ],
)
def test_addresses_are_replaced_if_asked(text, shown):
    """R33: e-mail and IP addresses with `pii=True`; by default they stay."""
    assert Redactor(pii=True).text(text) == shown
    assert Redactor().text(text) == text


@pytest.mark.parametrize("part", ["a", "a.", "1.", "1", ":", "1:", "a@", "a@b.", "ab:"])
def test_addresses_take_no_time(part):
    """R33: a text that is made to be slow is not."""
    text = part * (1_000_000 // len(part))
    began = time.process_time()
    Redactor(pii=True).text(text[: 1 << 16])
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("check", ["concerns", "suspects"])
def test_a_text_that_was_harmless_is_replaced_once_it_is_registered(monkeypatch, check):
    """issue 10: texts are checked once, and `secret` makes the results invalid: also that of a
    check that runs meanwhile, in another thread.
    """
    found = []
    structjob.configure(console=False, sinks=[found.append])
    checked = getattr(SecretRules, check)

    def register_meanwhile(self, what):
        result = checked(self, what)
        structjob.secret("swordfish-1")
        return result

    log.info("before", by="swordfish-1")
    log.info("before", by="swordfish-1")
    with monkeypatch.context() as patch:
        patch.setattr(SecretRules, check, register_meanwhile)
        log.info("swordfish-1", host="at swordfish-1")
    log.info("swordfish-1", by="swordfish-1", host="swordfish-1")
    assert [event.attrs["by"] for event in found[:2]] == ["swordfish-1"] * 2
    assert found[-1].message == "[redacted]"
    assert (found[-1].attrs["by"], found[-1].attrs["host"]) == ("[redacted]", "[redacted]")
