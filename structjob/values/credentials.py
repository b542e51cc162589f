"""The rules that find credentials in a text, one function for each rule.

The time grows only with the length of the text. Prefixes, lengths and alphabets of tokens are those
documented by their issuers, and were compared with the public rules of gitleaks. No rule measures
entropy: most false positives reported for such rules are hashes and ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from structjob.values.words import any_word

MARK = "[redacted]"
"""Replaces a secret."""

IsSecret = Callable[[str], bool]
"""Return whether a key names a secret."""

# -- pairs: ``key=value``, ``"key": "value"``
# --------------------------------------------------------------------------

_SEPARATOR = re.compile(r"(?:=>?|:=?|%3[DdAa])(?![=/])|(?<=[\"'])(?=,\s{0,4}[bBrRuU]?[\"'])")
"""The text between a key and its value. The last alternative is for a tuple of two texts."""
_LOOK_BACK = 96
"""Number of characters before a separator that are searched for the key."""
_KEY = re.compile(
    r"([\w$][\w.$\-]*+(?:\[[\w\-]*\])*+)(?:\\{0,3}[\"'`]|&quot;|%22|\\u0022)?\]?[ \t]{0,4}\Z"
)
_OPENED = re.compile(
    r",?[ \t\r\n]{0,8}(?:[bBrRuUfF]{1,2}(?=[\"']))?(?P<quote>(?:\\{0,3}\"){3}|\'\'\'|\\{0,3}[\"'`]|&quot;|%22|\\u0022)?"
)
_GROUP = re.compile(
    r"[ \t]{0,4}(?:\w{0,40}(?:Secret|Str|Pass)\w{0,40}\(|[(\[])(?P<value>[bBrRuU]?[\"'](?!\[redacted)[^()\[\]\r\n]{1,400}+)(?=[)\]])"
)
"""A value in parentheses: of a class that hides it, or a user with a password."""
_BARE = re.compile(r"[^\s\"'`,;&<>]+")
_BARE_ENCODED = re.compile(r"(?:(?!%26|%22)[^\s\"'`,;&<>])+")
_LINE = re.compile(r"[^\r\n]+")
_IN_QUOTES = {quote: re.compile(rf"(?:[^{quote}\\]|\\.)*+", re.DOTALL) for quote in "\"'`"}
_SCHEME = re.compile(
    r"[ \t]*(?:bearer|basic|token|digest|negotiate|ntlm|apikey|api-key|hmac|hawk|oauth|aws4-hmac-sha256|key)\s{1,8}",
    re.IGNORECASE,
)

_NO_SECRETS = frozenset(
    {
        "none", "null", "nil", "true", "false", "yes", "no", "on", "off", "undefined", "nan", "empty", "unset", "set", "missing",
        "required", "invalid", "expired", "expires", "wrong", "incorrect", "denied", "refused", "rejected", "failed", "ok",
        "valid", "unknown", "not", "must", "is", "was", "has", "had", "may", "can", "cannot", "should", "will", "changed",
        "updated", "created", "deleted", "reset", "optional", "str", "string", "bytes", "int", "integer", "bool", "boolean",
        "float", "any", "dict", "list", "tuple", "object", "text", "type", "secretstr", "secretbytes", "optional[str]", "password",
        "token", "secret", "key", "passwd", "username", "user", "value", "name", "the", "a", "an", "this", "that", "for", "from",
        "in", "of", "to", "and", "or", "with", "if", "use", "using", "see", "error", "unexpected", "expected", "return", "pass", "raise",
        "continue", "break", "print", "yield", "await", "authentication",
        "authorization", "bearer", "basic", "digest",
    }
)  # fmt: skip
"""Values that are words of a sentence, of a type annotation, or of a configuration's state."""
_CODE = re.compile(
    r"(?:self|cls|os|settings|config|conf|cfg|args|opts|options|environ|request|req|kwargs|getpass|secrets|credentials|app|ctx|params)"
    r"(?:\.[a-zA-Z_]+)*(?=[\[(),\].\s:}]|$)|[a-z_]+(?:\.[a-z_]+)*\((?:\)|[a-z_.]+[,)])|[A-Z][A-Za-z]*\[",
)
"""An expression in source code, as shown in tracebacks."""
_ASSIGNMENT = re.compile(
    r"[A-Za-z_]+(?:\.[A-Za-z_]+)*[(\[]|[A-Za-z_]+(?:\.[A-Za-z_]+)+(?=[\s,)\]:]|$)"
)
"""The same after ``=`` with spaces around it, as in source code."""
_PLACEHOLDER = re.compile(
    r"!vault|\$[({\w]|\{[\w.{ %!]*\}|%\(\w+\)s|%s|\*{3}|<\w|\.\.\.|…|x{6,}|(?:\w{0,80}[(\[])?\[redacted[\]:]|\[REDACTED\]|\[Filtered\]"
)
_PATH = re.compile(r"[\"']?(?:[/~]|[A-Za-z]:\\)")

_LINES = frozenset({"cookie", "set_cookie", "set_cookie2"})
_SCHEMED = ("authorization",)
_PHRASES = ("passphrase", "mnemonic", "seed_phrase", "recovery_phrase")


def pairs(text: str, is_secret: IsSecret, is_weak: IsSecret, is_card: IsSecret) -> str:
    """Return *text* with the values of secret keys replaced.

    The notation of key and value does not matter.
    """
    out: list[str] = []
    done = 0
    for separator in _SEPARATOR.finditer(text):
        if separator.start() < done:
            continue
        start = max(separator.start() - _LOOK_BACK, done)
        found = _KEY.search(text, start, separator.start())
        if found is None:
            continue
        key, at = found[1], start
        sign = separator[0]
        if not sign and not _opens_tuple(text, found.start(1)):
            continue
        # a path: "POST /oauth/token: 401"
        if sign.startswith(":") and found.start() and text[found.start(1) - 1] == "/":
            continue
        strong = is_secret(key)
        if (
            not strong
            and not (card := is_card(key))
            and not (is_weak(key) and ("=" in sign or "D" in sign.upper()))
        ):
            continue
        group = _GROUP.match(text, separator.end())
        # ('ada', 'x'), SecretStr('x')
        if group is not None and (strong or key.lower().endswith("auth")):
            at, end = group.span("value")
            out += text[done:at], MARK
            done = end
            continue
        for at, end in _values(text, separator.end(), key, found.start(1), sign):
            value = text[at:end]
            if not strong and not (is_card_number(value) if card else is_likely_secret(value)):
                continue
            if _is_harmless(text, key, value, at, end, sign):
                continue
            out += text[done:at], MARK
            done = end
    return "".join([*out, text[done:]]) if out else text


def _opens_tuple(text: str, key: int) -> bool:
    """Return whether the text at *key* is the first item of a tuple, or an option.

    Examples: ``('password', 'x')`` and ``'--password', 'x'``.
    """
    return text[max(key - 4, 0) : key].rstrip("bBrRuU\"'").endswith(("(", "-"))


def _values(text: str, at: int, key: str, key_at: int, sign: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of the value that begins at *at*; for a header, without its
    scheme.
    """
    opened = _OPENED.match(text, at)
    assert opened is not None  # noqa: S101 -- it matches the empty text
    at, quote = opened.end(), opened["quote"]
    name = key.lower().replace("-", "_")
    schemed = name.endswith(_SCHEMED)
    if schemed and (scheme := _SCHEME.match(text, at)) is not None:
        at = scheme.end()
    if quote is not None:
        end = _end_of_quoted(text, at, quote)
    elif (
        name in _LINES
        or name.endswith(_PHRASES)
        or (schemed and (sign == ":" or name != "authorization"))
    ):
        end = _end_of_line(text, at, key_at)
    elif sign.startswith("%"):
        end = found.end() if (found := _BARE_ENCODED.match(text, at)) else at
    else:
        end = found.end() if (found := _BARE.match(text, at)) else at
    if end > at:
        yield at, end


def _end_of_quoted(text: str, at: int, quote: str) -> int:
    if (plain := _IN_QUOTES.get(quote)) is not None:
        found = plain.match(text, at)
        return found.end() if found is not None else at
    # An escaped quote, in JSON within JSON: find the next one that has the same number of
    # backslashes.
    end = text.find(quote, at)
    while end > at and text[end - 1] == "\\" and (end := text.find(quote, end + 1)) > 0:
        pass
    return end if end >= 0 else len(text)


def _end_of_line(text: str, at: int, key_at: int) -> int:
    before = text[key_at - 1 : key_at]
    # -H 'Cookie: a=b; c=d'
    found = (_IN_QUOTES[before] if before in ("'", '"') else _LINE).match(text, at)
    return found.end() if found is not None else at


def _is_harmless(text: str, key: str, value: str, at: int, end: int, sign: str) -> bool:
    bare = value.strip(" \t).]}:!?")
    if bare.lower() in _NO_SECRETS or bare == key or not bare:
        return True
    if _PLACEHOLDER.match(value):
        return True
    if key.lower() in ("pwd", "oldpwd") and _PATH.match(value):  # a shell's working directory
        return True
    quoted = text[at - 1 : at] in ("'", '"')
    if quoted:
        return False
    if len(bare) <= 2 and bare.isalpha():
        return True
    spaced = sign == "=" and text[at - 3 : at] == " = "
    return _CODE.match(text, at, min(end + 1, len(text))) is not None or (
        spaced and _ASSIGNMENT.match(text, at, min(end + 1, len(text))) is not None
    )


def is_likely_secret(value: str) -> bool:
    """Return whether *value* may be a secret if its key alone does not prove it.

    It needs at least eight characters, with a digit among them.
    """
    return (
        len(value) >= 8
        and any(map(str.isdigit, value))
        and not value.isdigit()
        and "(" not in value
    )


# -- separate names and values: <password>x</password>, name="password" value="x"
# --------------------------------------------

_ELEMENT = re.compile(
    r"<(?P<key>[\w:.\-]{1,60}+)(?:\s[^<>]{0,200}+)?>(?!\[redacted[\]:])(?P<value>[^<>]+)(?=</)"
)
_NAMED = re.compile(
    r"(?<![\w\-])\\{0,3}[\"']?(?:name|key|header|variable|env|field|parameter|option)\\{0,3}[\"']?\s{0,4}[:=]\s{0,4}"
    r"\\{0,3}[\"']?(?P<key>[\w.:\-]{1,80}+)\\{0,3}[\"']?"
    r"(?:(?:\s|\\[nrt]){0,4},?(?:\s|\\[nrt]){0,8}\\{0,3}[\"']?(?:value|val|content|data)\\{0,3}[\"']?\s{0,4}[:=]\s{0,4}\\{0,3}+(?P<quote>[\"'])?+"
    r"|(?:\r?\n|\\r\\n|\\n){2})"
    r"(?!\[redacted[\]:])(?P<value>(?(quote)[^\"'\\]+|[^\s\"',;}\\]+))",
    re.IGNORECASE,
)


def named(text: str, is_secret: IsSecret) -> str:
    """Return *text* without secret values whose names are separate from them.

    This occurs in XML, HTML, forms and lists of settings.
    """

    def replaced(found: re.Match[str]) -> str:
        if not is_secret(found["key"]):
            return found[0]
        at, end = found.span("value")
        return f"{text[found.start() : at]}{MARK}{text[end : found.end()]}"

    if "</" in text:
        text = _ELEMENT.sub(replaced, text)
    return _NAMED.sub(replaced, text)


# -- URLs
# --------------------------------------------------------------------------

_USERINFO = re.compile(r":/{1,2}(?P<user>[^\s/:@?#\"'<>\[]*+):")
_REST = re.compile(r"(?:(?!://)[^\s\"'<>`])+")
_PORT = re.compile(r"\d{0,5}(?:[/?#]|$)")
_USER_TOKEN = re.compile(r"(?<=://)(?=[^\s/:@?#]{0,80}\d)[^\s/:@?#]{20,}+(?=@)")
_GO_DSN = re.compile(
    r"(?P<keep>(?<![\w/.:\-])[\w.\-]{1,64}+:)(?!\[redacted[\]:])[^\s\"'/]{1,200}?(?=@(?:tcp|tcp6|unix|udp)\()"
)


def urls(text: str) -> str:
    """Return *text* without passwords in URLs, and without tokens in the place of a user.

    The passwords may contain ``/`` and ``@``.
    """
    out: list[str] = []
    done = 0
    for found in _USERINFO.finditer(text):
        at = found.end()
        if at < done or (rest := _REST.match(text, at)) is None or _PORT.match(rest[0]):
            continue
        word = rest[0]
        cut = min((at_ for at_ in (word.find("?"), word.find("#")) if at_ >= 0), default=len(word))
        # The last @ that may end a password: "/@" begins the scope of a package.
        end = word.rfind("@", 0, cut)
        while end > 0 and word[end - 1] == "/":
            end = word.rfind("@", 0, end)
        if end < 0:
            end = word.find("@")
        if end > 0:
            out += text[done:at], MARK
            done = at + end
    text = "".join([*out, text[done:]]) if out else text
    text = _USER_TOKEN.sub(MARK, text)
    return _GO_DSN.sub(rf"\g<keep>{MARK}", text) if "(" in text else text


# -- tokens with a known prefix
# --------------------------------------------------------------------------

_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    # AWS
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7][A-Z0-9]{15}(?![A-Za-z0-9])|ABSK[A-Za-z0-9+/]{80,}={0,2}"
    r"|LTAI[A-Za-z0-9]{20}(?![A-Za-z0-9])"  # Alibaba Cloud
    r"|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{22,}"  # GitHub
    # GitLab
    r"|gl(?:pat|ptt|dt|rt|cbt|imt|ft|soat|agent|oas|ffct|rtr)-[\w-]{20,}(?:\.\w+)*|GR1348941[\w-]{20,}"
    r"|xox[abeoprs]-(?=[\w.-]{0,60}?\d)[\w.-]{11,}|xapp-\d-[\w-]{20,}"  # Slack
    # JSON web tokens, signed or encrypted
    r"|(?<![_-])eyJ[\w-]{8,}+={0,2}\.[\w-]{8,}={0,2}(?:\.[\w-]*={0,2}){1,3}"
    r"|(?:sk|rk)_(?:live|test|prod)_\w{10,}|whsec_[A-Za-z0-9+/]{20,}={0,2}"  # Stripe
    r"|AIza[\w-]{35}|ya29\.[\w.-]{20,}|GOCSPX-[\w-]{20,}|1//0[\w-]{30,}"  # Google
    r"|pypi-AgE[\w-]{20,}|npm_[A-Za-z0-9]{36}|rubygems_[0-9a-f]{48}"
    # SendGrid, Mailgun, Twilio
    r"|SG\.[\w-]{16,32}\.[\w-]{16,64}|key-[0-9a-f]{32}(?![0-9a-f])|SK[0-9a-f]{32}(?![0-9a-f])"
    r"|(?:hf|api_org)_[A-Za-z0-9]{30,}|r8_\w{30,}|gsk_\w{30,}|(?:xai|pplx)-\w{30,}"
    r"|do[oprt]_v1_[0-9a-f]{32,}|dapi[0-9a-f]{32}(?:-\d)?|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"
    r"|sq0(?:atp|csp|idp)-[\w-]{22,}|hv[bsr]\.[\w-]{20,}|gl(?:c|sa)_[\w+/=]{30,}|lin_api_\w{30,}|(?:secret|ntn)_[A-Za-z0-9]{40,}"
    r"|fig[dor]_[\w-]{36,}|dckr_(?:pat|oat)_[\w-]{20,}|sntry[su]_[\w+/=-]{30,}|sbp_[0-9a-f]{40}|pscale_(?:tkn|pw|oauth)_[\w.=-]{30,}"
    r"|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|NRAK-[A-Z0-9]{27}|ATATT3[\w=-]{50,}|dp\.(?:pt|st|ct|sa|scim|audit)\.\w{30,}|tskey-\w+-\w{10,}(?:-\w+)*"
    r"|bkua_\w{40}|CCIPAT_\w{9,}|pul-[0-9a-f]{40}|AGE-SECRET-KEY-1[A-Z0-9]{50,}|EAA[A-Za-z0-9]{80,}|\d{8,10}:AA[\w-]{33}(?![\w-])"
    r"|fo1_[\w-]{43}|ops_eyJ[\w+/-]{80,}={0,2}|xkeysib-[0-9a-f]{64}-\w{16}|sgp_(?:(?:[0-9a-f]{16}|local)_)?[0-9a-fA-F]{40}|shippo_(?:live|test)_[0-9a-fA-F]{40}"
    r"|pnu_[A-Za-z0-9]{36}|rdme_\w{70}|tfp_[\w-]{40,}|duffel_(?:live|test)_[\w=-]{43}|FLWSECK(?:_TEST)?-\w{12,}(?:-X)?|(?:EZAK|EZTK)\w{54}"
    r"|HRKU-[\w-]{40,}|NRII-[\w-]{32}|dt0c01\.\w{24}\.\w{64}|\w{14}\.atlasv1\.[\w=-]{60,70}|pat\w{14}\.[0-9a-f]{64}|AKCp\w{69}|cmVmd\w{59}"
    r"|A3-[A-Z0-9]{6}(?:-[A-Z0-9]{5,11}){4,5}|sha256~[\w-]{43}|CLOJARS_\w{60}|p8e-[A-Za-z0-9]{32}|fio-u-[\w=-]{64}|tk-us-[\w-]{48}"
    r"|sl\.(?:u\.)?[\w-]{60,}|[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,}|FlyV1 fm\d_[\w+/=,-]{30,}"
    r"|sk-(?P<sk>[\w-]{20,})"  # OpenAI, Anthropic and others
    r")"
)
_HOOKS = re.compile(
    r"(?P<keep>hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/\d{1,24}/|\.webhook\.office\.com/webhookb2/"
    r"|api\.telegram\.org/bot)[\w/@:.\-]{12,}"
)
_LETTERS_AND_DIGITS = re.compile(r"[A-Za-z0-9]{12,}")


def tokens(text: str) -> str:
    """Return *text* without tokens with a known prefix, and without the secret part of web
    hooks.
    """
    text = _TOKENS.sub(_token, text)
    return _HOOKS.sub(rf"\g<keep>{MARK}", text)


def _token(found: re.Match[str]) -> str:
    rest = found["sk"]
    # Names of CSS classes also begin with this prefix: "sk-toggleable__content".
    if rest is not None and not any(
        any(map(str.isdigit, run)) for run in _LETTERS_AND_DIGITS.findall(rest)
    ):
        return found[0]
    return MARK


# -- payment cards
# --------------------------------------------------------------------------

_CARD = re.compile(
    r"(?<![\w.\-+])(?:(?=[2-6])\d{4}(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?P=gap)\d{4}(?:(?P=gap)\d{1,3})?"
    r"|3[47]\d\d(?P<narrow>[ -])\d{6}(?P=narrow)\d{5})(?![\w\-]|\.\d| \d{3})"
)
_ISSUED = re.compile(
    r"4|5[1-5]|2(?:2[2-9]|[3-6]|7[01]|720)|3[47]|3(?:0[0-5]|[689])|6(?:011|4[4-9]|5|2|0|3|7)|35"
)


def cards(text: str) -> str:
    """Return *text* without payment card numbers that are written in groups, as on the card."""
    return _CARD.sub(lambda found: MARK if is_card_number(found[0]) else found[0], text)


def is_card_number(value: Any) -> bool:
    """Return whether *value* is the number of a payment card.

    It needs an issuer's prefix, 13 to 19 digits, and a correct Luhn check digit.
    """
    digits = str(value).translate({32: None, 45: None})
    if (
        not 13 <= len(digits) <= 19
        or not (digits.isascii() and digits.isdigit())
        or _ISSUED.match(digits) is None
    ):
        return False
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        total += digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4)
    return total % 10 == 0


# -- headers without a name, keys, statements
# --------------------------------------------------------------------------

_SCHEMES = re.compile(
    r"(?P<keep>\b(?:bearer|basic)\s{1,8})(?=[A-Za-z0-9._~+/-]{0,64}(?:[0-9=._-]|(?-i:[a-z][A-Z])))[A-Za-z0-9._~+/-]{8,}+=*",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_STATEMENT = re.compile(
    r"(?P<keep>\b(?:identified\s{1,4}(?:with\s{1,4}\S{1,64}\s{1,4})?by|password)\s{1,4}(?:password\s{1,4})?\(?)(?P<quote>['\"])(?!\[redacted[\]:])"
    r"(?:[^'\"\\]|\\.)++(?P=quote)",
    re.IGNORECASE,
)
_NETRC = re.compile(
    r"(?P<netrc>\blogin\s{1,8}\S{1,128}\s{1,8}password\s{1,8})\S+|(?P<mail>\bAUTH (?:PLAIN|LOGIN|XOAUTH2) )[A-Za-z0-9+/=]{8,}"
    r"|(?P<http>[Bb]asic_?[Aa]uth\([\"'][^\"']{0,128}[\"'],[ \t]?[\"'])(?!\[redacted)[^\"']+"
)


def schemes(text: str) -> str:
    """Return *text* without what follows ``Bearer`` and ``Basic``."""
    return _SCHEMES.sub(rf"\g<keep>{MARK}", text)


def private_keys(text: str) -> str:
    """Return *text* without private keys in PEM or OpenPGP form."""
    return _PRIVATE_KEY.sub(MARK, text)


def statements(text: str) -> str:
    """Return *text* without the passwords of SQL statements, ``.netrc`` files and mail sessions."""
    text = _STATEMENT.sub(
        lambda found: f"{found['keep']}{found['quote']}{MARK}{found['quote']}", text
    )
    return _NETRC.sub(lambda found: f"{found[found.lastgroup or 0]}{MARK}", text)


# -- fast checks
# --------------------------------------------------------------------------

_LOWER, _DIGITS = b"abcdefghijklmnopqrstuvwxyz", b"0123456789"


def _folded(classes: dict[bytes, bytes], rest: bytes) -> bytes:
    table = bytearray(rest * 256)
    for characters, sign in classes.items():
        for character in characters:
            table[character] = sign[0]
    return bytes(table)


PLAIN = _folded(
    {_DIGITS + b"abcdef": b"h", b"ghijklmnopqrstuvwxyz": b"a", b"-": b"-", b'"/,.[]{}': b'"'}, b"!"
)
"""Maps the characters that a credential needs, and colons, to ``!``, in JSON.

Two kinds of credentials need no such character, and are found by the following constants.
"""
HEX = b"h" * 32
"""A token of hexadecimal digits; a UUID contains hyphens."""
GROUPS = b'"hhhh-hhhh'
"""A payment card number."""
_RUN = b"a" * 16
"""Occurs in the result of `_SIGNED` for a token, and in that of `_WORDS` for most tokens. The runs
of `_WORDS` in UUIDs are shorter.
"""

_PREFIXES = (
    "ABSK", "gldt-", "glrt-", "glft-", "glpat-", "glptt-", "glcbt-", "glimt-", "gloas-", "glrtr-", "glsoat-", "glffct-", "glagent-",
    "GR1348941", "xox", "xapp-", "eyJ", "whsec_", "AIza", "ya29.", "GOCSPX-", "pypi-AgE", "SG.", "sq0", "hvb.", "hvs.", "hvr.",
    "glc_", "glsa_", "figd_", "figo_", "figr_", "dckr_", "sntrys_", "sntryu_", "pscale_", "ATATT3", "tskey-", ":AA", "tfp_",
    "duffel_", "FLWSECK", "HRKU-", "NRII-", ".atlasv1.", "A3-", "sha256~", "fio-u-", "tk-us-", "FlyV1 fm", "sk-", "hooks.slack",
    "/webhooks/", "/webhookb2/", ".org/bot",
)  # fmt: skip
_PREFIXED = re.compile(
    any_word(_PREFIXES).pattern + r"|\.[\w-]{6}\.[\w-]{27}|_(?<=fo1_)|//(?<=1//)0"
)
"""A part of a token that may not contain such a run of `_WORDS`, because another sign is one of its
characters.
"""

_WORDS = _folded({_LOWER + _LOWER.upper() + _DIGITS + b"_": b"a"}, b".")
_SIGNED = _folded({_LOWER + _LOWER.upper() + _DIGITS + b"_-.+/=": b"a"}, b":")
_NUMBERS = _folded({_DIGITS: b"0", b" -": b"-"}, b".")


def is_plain(encoded: bytes, keys: int) -> bool:
    """Return whether *encoded*, a JSON object of *keys* keys, certainly contains no credential.

    Ids, paths, host names and words are plain. Texts in capital letters, or with a space, are not,
    and neither are keys with an underscore.
    """
    folded = encoded.translate(PLAIN)
    # each key is followed by a colon; `find` is faster than `in`
    return folded.count(b"!") <= keys and folded.find(HEX) < 0 and folded.find(GROUPS) < 0


def may_hold_token(text: str) -> bool:
    """Return whether *text* may contain a token.

    This is fast; it may be wrongly true, but never wrongly false.
    """
    if len(text) < 16:
        return False
    encoded = text.encode("utf-8", "replace")
    return _RUN in encoded.translate(_WORDS) or (
        _RUN in encoded.translate(_SIGNED) and _PREFIXED.search(text) is not None
    )


def may_hold_card(text: str) -> bool:
    """Return whether *text* may contain a card number in groups.

    This is fast; it may be wrongly true, but never wrongly false.
    """
    if len(text) < 15:
        return False
    folded = text.encode("utf-8", "replace").translate(_NUMBERS)
    return b"0000-0000-0000" in folded or b"0000-000000-0000" in folded
