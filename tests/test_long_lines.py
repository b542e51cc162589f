"""Lines of output that become several events: nothing is lost, and no secret is cut in two (D)."""

import itertools

import pytest

from structjob import Redactor
from structjob.text.lines import AHEAD, PIECE, LineSplitter

SECRETS = {
    "key": ('password="hunter2-and-more"', "hunter2"),
    "header": ("Authorization: Bearer abcdefghijklmnop0123456789", "ijklmnop"),
    "url": ("postgresql://ada:hunter2@db.example.org/orders", "hunter2"),
    "token": ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "klmnopqrst"),
}


ENDS = (b"\n", b"", b"\rnext\n")


def parts_of(text: bytes, size: int = 65_536, redact=None) -> list[str]:
    parts: list[str] = []
    clean = Redactor().text if redact is None else redact
    splitter = LineSplitter(lambda lines, _: parts.extend(lines), clean)
    for at in range(0, len(text), size):
        splitter.feed(text[at : at + size])
    splitter.end()
    return parts


@pytest.mark.parametrize("size", [4_096, 65_536])
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_at_the_cut_is_redacted(name, size):
    """Secrets: wherever it lies, whether the line is read at once or in pieces."""
    secret, value = SECRETS[name]
    redact = Redactor().text
    assert value not in redact(secret)
    # where a line ends has no part in where it is cut, and each end is tried
    for shift, end in zip(range(0, len(secret) + 2, 3), itertools.cycle(ENDS), strict=False):
        line = f"{'x ' * PIECE} {secret} {'y ' * PIECE}"
        at = line.index(secret)
        begin = at - (at // PIECE * PIECE) - len(secret) + shift
        line = line[begin:] if begin > 0 else "z" * -begin + line
        parts = parts_of(line.encode() + end, size)
        assert "".join(parts).startswith(line)  # nothing is lost
        assert not any(value in redact(part) for part in parts)


@pytest.mark.parametrize("letter", ["a", "é", "漢", "😀"])
def test_no_character_is_cut(letter):
    """R31: a line of any characters is divided between them."""
    line = letter * (3 * PIECE)
    parts = parts_of(line.encode() + b"\n")
    assert "".join(parts) == line
    assert all(PIECE - AHEAD < len(part.encode()) <= PIECE for part in parts[:-1])


def test_where_every_place_is_in_a_secret_the_line_is_cut_all_the_same():
    """Bad day: a secret that is longer than what is searched costs a bounded time."""
    searched = []

    def redact(text):
        searched.append(text)
        return "[redacted]" if text else ""

    parts = parts_of(b"k" * (PIECE + AHEAD + 1) + b"\n", redact=redact)
    assert [len(part) for part in parts] == [PIECE, AHEAD + 1]
    assert len(searched) < 100
    assert max(map(len, searched)) <= 2 * AHEAD
