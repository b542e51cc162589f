"""Secrets on command lines: in options, assignments, and the password arguments of some
programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from structjob.values.credentials import MARK
from structjob.values.words import any_word

IsSecret = Callable[[str], bool]

# The option that takes a password, by program: with the value in the same word ("-pX"), or in the
# next word.
_JOINED = {"mysql": "p", "mysqldump": "p", "mysqladmin": "p", "mysqlimport": "p", "mysqlcheck": "p", "mysqlshow": "p", "mysqlbinlog": "p",
           "mysqlpump": "p", "mysqlsh": "p", "mycli": "p", "mariadb": "p", "mariadb-dump": "p", "mariadb-admin": "p", "mariadb-import": "p",
           "mariadb-check": "p", "mariadb-backup": "p", "mariabackup": "p", "xtrabackup": "p", "sshpass": "p", "7z": "p", "7za": "p",
           "zip": "P", "unzip": "P", "rar": "p", "unrar": "p"}  # fmt: skip
_APART = {"sshpass": ("-p",), "redis-cli": ("-a",), "mongo": ("-p",), "mongosh": ("-p",), "mongodump": ("-p",), "mongorestore": ("-p",),
          "mongoexport": ("-p",), "mongoimport": ("-p",), "ldapsearch": ("-w",), "ldapmodify": ("-w",), "ldapadd": ("-w",),
          "ldapdelete": ("-w",), "ldappasswd": ("-w", "-a", "-s"), "ldapwhoami": ("-w",), "zip": ("-P",), "unzip": ("-P",),
          "sqlcmd": ("-P",), "bcp": ("-P",), "tsql": ("-P",), "login": ("-p",), "openssl": ("-k", "-K", "-passin", "-passout", "-pass"),
          "keytool": ("-storepass", "-keypass"), "ipmitool": ("-P",), "vncpasswd": ("-f",), "rdesktop": ("-p",), "snmpwalk": ("-A", "-X"),
          "snmpget": ("-A", "-X"), "mosquitto_pub": ("-P",), "mosquitto_sub": ("-P",)}  # fmt: skip
# Python's own option -u takes no value: in "python -u app:main" the next word is the program.
_PYTHON = r"(?:python|pypy)[\d.]*[a-z]?(?:\.exe)?"
_FLAG = r"-(?:[bBdEhiIOPqRsSuvVx]+|[XW][^\s\"']+)"
_is_python = re.compile(_PYTHON).fullmatch
_is_flag = re.compile(_FLAG).fullmatch
_FLAGS_WITH_VALUE = ("-X", "-W")
_AFTER_PYTHON = re.compile(
    rf"(?<![\w.\-]){_PYTHON}[\"']?(?:[ \t]{{1,4}}(?:-[XW][ \t]{{1,4}}[^\s\"']+|{_FLAG})){{0,8}}[ \t]{{1,4}}\Z"
)
_LONGEST_START = 200
"""Maximum characters of a command line before ``-u`` that are searched for Python."""
# Options whose value is "user:password".
_USER = frozenset({"-u", "-U", "--user", "--proxy-user", "--userpwd", "--auth", "-a"})
_LONG_SECRETS = frozenset({"pass", "pw", "userpass", "auth-token"})
_NO_VALUES = frozenset(
    {"is", "was", "for", "and", "or", "the", "to", "of", "in", "with", "must", "can", "cannot", "as", "not", "has", "if", "option", "flag",
     "options", "given", "required", "missing"}
)  # fmt: skip
"""Words that follow the name of an option in a sentence."""

_ASSIGNED = re.compile(r"(?P<name>[A-Za-z_]\w*)=.+", re.DOTALL)
_HTTP = ("curl", "http", "https")
_NAMES = "|".join(sorted(map(re.escape, {*_JOINED, *_APART, *_HTTP}), key=len, reverse=True))
_PROGRAM = re.compile(rf"(?<![\w.\-])(?P<program>(?:{_NAMES}))(?=[ \t])")
_STEM = any_word(
    (
        " -u", "mysql", "mycli", "maria", "pass", "7z", "zip", "rar ", "redis-cli", "mongo", "ldap", "sqlcmd", "bcp ", "tsql", "login",
        "openssl", "keytool", "ipmi", "rdesk", "snmp", "mosq", "curl", "http ", "xtra",
    )
)  # fmt: skip
"""A part of the name of each program above."""
_LINE = re.compile(r"[^\n|;&]{0,2000}")
_TOKEN = re.compile(
    r"(?:-[A-Za-z]|[\w\-]{1,64}+=)?(?:\"(?:[^\"\\]|\\.)*+\"|'[^']*+')|[^\s\"']+|[\"']"
)
_QUOTES = str.maketrans("", "", "\"'")
_OPTION = re.compile(
    r"(?P<keep>-(?<![\w\-]-)-?(?P<name>[A-Za-z][\w\-]{1,60}+)(?:[ \t]{1,8}|\\?[\"'],[ \t]{0,4}[ub]?\\?(?=[\"'])))(?!-)"
    r"(?P<quote>[\"'])?(?!\[redacted[\]:])"
    r"(?P<value>(?(quote)[^\"'\\]+|[^\s\"',;]+))"
)
_USER_OPTION = re.compile(
    r"(?P<keep>-(?<![\w\-]-)(?:u|-user|-proxy-user|-userpwd)[ \t=]{1,4}[\"']?"
    r"(?P<user>[^\s:\"'/=]{1,128}+):)(?!\[redacted[\]:])(?P<value>[^\s\"']+)"
)


def masked(words: Sequence[Any], is_secret: IsSecret, text: Callable[[str], str]) -> list[Any]:
    """Return the *words* of a command line with secrets replaced.

    Items that are not text stay unchanged.

    Args:
        words: The program and its arguments.
        is_secret: Returns whether an option or a variable names a secret.
        text: Returns a text without its credentials; used for words that do not follow an option.
    """
    shown: list[Any] = []
    program = ""
    pending = ""
    own = False  # whether the word is an option of Python itself, and not of its program
    previous = None
    for word in words:
        if type(word) is not str:
            shown.append(MARK if pending == "secret" and type(word) is int else word)
            pending = ""
            continue
        if pending == "program" or (pending and not word.startswith("-")):
            shown.append(MARK if pending != "user" else _user(word, text))
            pending = ""
            continue
        pending = ""
        name = word.rpartition("/")[2]
        if name in _JOINED or name in _APART or name in _HTTP:
            program = name
        own = _is_python(name) is not None or (
            own
            and (
                word in _FLAGS_WITH_VALUE
                or previous in _FLAGS_WITH_VALUE
                or _is_flag(word) is not None
            )
        )
        previous = word
        if own and word == "-u":
            shown.append(word)
        elif word.startswith("-") and " " not in word:
            hidden, pending = _option(word, program, is_secret)
            shown.append(text(word) if hidden is None else hidden)
        elif (assigned := _ASSIGNED.fullmatch(word)) is not None and (
            is_secret(assigned["name"]) or assigned["name"].upper().endswith("PASS")
        ):
            shown.append(f"{assigned['name']}={MARK}")
        else:
            shown.append(text(word))
    return shown


def _option(word: str, program: str, is_secret: IsSecret) -> tuple[str | None, str]:
    """Return how the option *word* is shown, and the role of the next word.

    ``None`` means: shown in the same way as other text.
    """
    name, equals, value = word.partition("=")
    bare = name.lstrip("-")
    long = len(bare) > 1
    if long and (is_secret(bare) or bare.lower() in _LONG_SECRETS):
        return (f"{name}={MARK}" if value else word, "") if equals else (word, "secret")
    if name in _USER and (name != "-a" or program in _HTTP[1:]):
        return (
            f"{name}={_user(value, str)}" if equals and long else word,
            "" if equals else "user",
        )
    if word in _APART.get(program, ()):
        return word, "program"
    letter = _JOINED.get(program)
    if letter is not None and word.startswith(f"-{letter}") and len(word) > 2:
        return f"-{letter}{MARK}", ""
    if program == "curl" and word.startswith("-u") and ":" in word:
        return f"-u{_user(word[2:], str)}", ""
    return None, ""


def _user(word: str, text: Callable[[str], str]) -> str:
    user, colon, password = word.partition(":")
    if not colon or not password or "/" in user or password.startswith("//"):
        return text(word)
    if _is_harmless(user, password):
        return word
    return f"{user}:{MARK}"


def _is_harmless(user: str, password: str) -> bool:
    """Return whether ``user:password`` is something else."""
    return (
        (user.isdigit() and password.isdigit())  # ids of a user and a group
        or user == password
        # -u app.py:main
        or (user.endswith(".py") and password.replace(".", "_").isidentifier())
    )


def may_be_command(text: str) -> bool:
    """Return whether *text* may contain the command line of a program that takes a password."""
    return _STEM.search(text) is not None


def without_secrets(text: str, is_secret: IsSecret) -> str:
    """Return *text*, which may contain command lines at any place, without their secrets."""

    def option(found: re.Match[str]) -> str:
        name = found["name"]
        if not is_secret(name) and name not in _LONG_SECRETS:
            return found[0]
        if found["value"].lower().rstrip(".:") in _NO_VALUES:
            return found[0]
        at = found.start("value")
        return f"{text_[found.start() : at]}{MARK}"

    def user(found: re.Match[str]) -> str:
        name, value = found["user"], found["value"]
        start = found.string[max(found.start() - _LONGEST_START, 0) : found.start()]
        if _is_harmless(name, value) or (
            found["keep"].startswith("-u ") and _AFTER_PYTHON.search(start) is not None
        ):
            return found[0]
        return f"{found['keep']}{MARK}"

    text_ = text
    text = _OPTION.sub(option, text)
    text = _USER_OPTION.sub(user, text)
    return "".join(_programs(text, is_secret)) if may_be_command(text) else text


def _programs(text: str, is_secret: IsSecret) -> Iterator[str]:
    done = seen = 0
    for found in _PROGRAM.finditer(text):
        if found.start() < seen:
            continue
        line = _LINE.match(text, found.end())
        assert line is not None  # noqa: S101 -- it matches the empty text
        # a further program in this line has no option of its own, or is one of its words
        seen = line.end()
        if "-" not in line[0]:
            continue
        tokens = [
            (token.start(), token.end(), token[0])
            for token in _TOKEN.finditer(text, line.start(), line.end())
        ]
        words = [found["program"], *(token.translate(_QUOTES) for _, _, token in tokens)]
        # A word that contains a space was quoted, and may be a command line of its own: sh -c "…".
        shown = masked(
            words, is_secret, lambda word: without_secrets(word, is_secret) if " " in word else word
        )
        for (start, end, token), before, after in zip(tokens, words[1:], shown[1:], strict=True):
            if before != after:
                yield text[done:start]
                yield token.replace(before, after) if before in token else after
                done = end
    yield text[done:]
