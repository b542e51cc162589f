"""Make text safe for a terminal: control characters and invisible characters are escaped."""

from __future__ import annotations

import re

# Characters that a terminal executes: C0 (including newlines and tabs, because one event is one
# line), DEL, C1, and the Unicode line and paragraph separators.
_OBEYED = "\x00-\x1f\x7f-\x9f\u2028\u2029"
# Characters that change the text direction or are invisible. With them, two different names could
# look the same. These are the characters that Unicode calls default ignorable
# (DerivedCoreProperties.txt), except those below, and the interlinear marks. The tags (U+E0000 …)
# can carry whole hidden texts. The flags of England, Scotland and Wales consist of tags, so they
# are shown escaped.
_UNSEEN = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
# Joiners and variation selectors shape the preceding character in emoji and in Persian, Indic and
# CJK text. They are kept after such a character, one of each kind, and after the digits of keycap
# emoji.
_JOINERS = "\u200c\u200d"
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_UNSAFE = re.compile(
    f"[{_OBEYED}{_UNSEEN}]"
    f"|(?<![^\x00-\x7f{_JOINERS}])[{_JOINERS}]"
    f"|(?!(?<=[0-9#*])\ufe0f\u20e3)(?<![^\x00-\x7f{_JOINERS}{_SELECTORS}])[{_SELECTORS}]"
)


def escape(text: str) -> str:
    """Return *text* with all control characters and invisible characters escaped."""
    return _UNSAFE.sub(lambda match: _spelled(match[0]), text)


def _spelled(char: str) -> str:
    if ord(char) < 0x100:
        return repr(char)[1:-1]  # \n, \x1b
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def escape_json(encoded: bytes) -> bytes:
    r"""Return *encoded* JSON on one line, with the same characters in its texts as ``\uXXXX``.

    The JSON value is equal, and a terminal executes none of it.
    """
    return _UNSAFE.sub(lambda match: _spelled_in_json(match[0]), encoded.decode()).encode()


def _spelled_in_json(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[first : first + 4]}" for first in range(0, len(units), 4))
