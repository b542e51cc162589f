"""Fingerprints: the same for the same fault wherever it happens, another one for another fault."""

import pickle
import subprocess
import sys

import pytest
from cli_support import environment
from each import each

from structjob.values.fingerprint import fingerprint, normalized, of_words

FAULTS = """
def deep(n):
    if n:
        return deep(n - 1)
    raise ValueError("row 17 of '/data/in.csv' is bad")

def shallow(text="x"):
    raise ValueError(text)

def through_a_library(text):
    import json
    return json.loads(text)

class Loader:
    def load(self, rows):
        return [self.one(row) for row in rows]

    def one(self, row):
        raise KeyError(row)
"""


def program(path, prelude=""):
    source = prelude + FAULTS
    names = {}
    exec(compile(source, path, "exec"), names)
    return names


def raised(call, *args):
    with pytest.raises(Exception) as caught:
        call(*args)
    return caught.value


HERE = program("/home/ada/app/loader.py")
THERE = program("/srv/release-7/app/loader.py", prelude="import os\n\n# moved down\n\n")


@pytest.mark.parametrize(
    ("function", "args"), [("deep", (0,)), ("shallow", ("x",)), ("through_a_library", ("{",))]
)
def test_the_same_fault_elsewhere_has_the_same_fingerprint(function, args):
    """Directory and line number have no part in it: another host, another release, the same error
    (R39).
    """
    assert fingerprint(raised(HERE[function], *args)) == fingerprint(raised(THERE[function], *args))


def test_how_deep_it_was_does_not_matter():
    """A recursion that went deeper is the same error (R39)."""
    assert len({fingerprint(raised(HERE["deep"], n)) for n in (0, 1, 2, 90)}) == 1


def test_it_is_made_of_type_message_and_functions():
    """Every process, host, release and Python must agree on it for ever; a comprehension is no
    function, as since Python 3.12 (R39).
    """
    error = raised(HERE["Loader"]().load, ["k"])
    functions = ("loader:Loader.one", "loader:Loader.load", "test_fingerprint:raised")
    assert fingerprint(error) == of_words("KeyError", "<text>", *functions)
    assert of_words("KeyError", "<text>", *functions) == "50882b0d2450846c"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: raised(HERE["shallow"], "full"), lambda: raised(HERE["shallow"], "empty")),
        (
            lambda: raised(HERE["deep"], 0),
            lambda: raised(HERE["shallow"], "row 17 of '/data/in.csv' is bad"),
        ),
        (lambda: ValueError("x"), lambda: TypeError("x")),
        (
            lambda: ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
            lambda: ExceptionGroup("two", [ValueError("a"), OSError("b")]),
        ),
    ],
)
def test_another_fault_has_another_fingerprint(one, other):
    """Type, words of the message, the function it came from, the parts of a group: each counts
    (R39).
    """
    assert fingerprint(one()) != fingerprint(other())


def test_the_parts_of_a_group_count_once():
    """Seven tasks that failed alike, or three, in whatever order, are the same error (R39)."""
    parts = [ValueError("row 1"), OSError("gone"), ValueError("row 2")]
    assert fingerprint(ExceptionGroup("3 failed", parts)) == fingerprint(
        ExceptionGroup("2 failed", parts[1::-1])
    )


def test_the_operation_tells_errors_apart_that_came_through_no_code():
    """A command's exit code, say: two commands that fail alike are two errors (R39)."""
    assert fingerprint(ValueError("exit code 1"), "backup") != fingerprint(
        ValueError("exit code 1"), "restore"
    )
    assert fingerprint(ValueError("exit code 1"), "backup") == fingerprint(
        ValueError("exit code 2"), "backup"
    )


@each(
    ("message", "found"),
    [
        ("row 17 of 200", "row <n> of <n>"),
        ("took 12.5s at 10:30:01.123", "took <n>s at <n>"),
        ("vm-17 on pg01 is gone", "vm-<n> on pg<n> is gone"),
        ("no job 019a3f7c-8c1e-7d2a-b1c0-0123456789ab", "no job <uuid>"),
        ("<Worker object at 0x7f3a2c>", "<Worker object at <hex>>"),
        ("commit 9fceb02d0ae is missing", "commit <hex> is missing"),
        ("the face of a decade", "the face of a decade"),
        ("key 'a b' and \"c\" and `d`", "key <text> and <text> and <text>"),
        ("can't open it, don't ask", "can't open it, don't ask"),
        ("cannot open /var/lib/app/7.log: busy", "cannot open <path>: busy"),
        ("cannot open C:\\data\\in.csv", "cannot open <path>"),
        ("GET https://example.org/a?b=1 failed", "GET <url> failed"),
        ("sftp-3.example.org:22 refused", "sftp-<n>.example.org:<n> refused"),
        ("no route to fe80::1%eth0", "no route to <n>%eth<n>"),
        ("2001:db8:0:0:0:0:0:17 is down", "<n> is down"),
        ("web-7d9f8b6c5-x2x4z is not ready", "web<pod> is not ready"),
        ("std::vector and abc::def and a::b", "std::vector and abc::def and a::b"),
        ("at 10:30:01 of web-server-restart", "at <n> of web-server-restart"),
        ("either/or, and 3/4", "either/or, and <n>/<n>"),
        ("several\n  lines\tof it ", "several lines of it"),
    ],
)
def test_what_varies_does_not_count(message, found):
    """Numbers, ids, addresses, paths, URLs and quoted text vary from one occurrence to the next;
    words do not (R39).
    """
    assert normalized(message) == found


def test_where_a_long_message_is_cut_does_not_count():
    """A number that has more digits than the last time moves the end of the message, and not the
    fingerprint (R39).
    """
    one, other = (f"row {number}: {'the quick brown fox ' * 100}" for number in (5, 12_345_678))
    assert fingerprint(ValueError(one)) == fingerprint(ValueError(other))


def test_a_long_or_hostile_message_is_no_trouble():
    """A message without end costs no more than its beginning; one that raises, or is no text, has a
    fingerprint still (R39).
    """

    class Hostile(Exception):
        def __str__(self):
            raise RuntimeError("no")

    assert fingerprint(Hostile()) == fingerprint(Hostile())
    assert fingerprint(ValueError("'" * 10**6)) == fingerprint(ValueError("'" * 10**7))
    assert len(fingerprint(ValueError("\ud800\0"))) == 16


def test_it_is_the_same_in_another_process():
    """Neither the hash seed nor the process has a part in it (R39)."""
    code = "import pickle, sys; from structjob.values.fingerprint import fingerprint; print(fingerprint(pickle.load(sys.stdin.buffer), 'copy'))"
    error = ExceptionGroup("both", [ValueError("a"), OSError("b")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(error),
        capture_output=True,
        check=True,
        env=environment(PYTHONHASHSEED="7"),
    )
    assert done.stdout.decode().strip() == fingerprint(error, "copy")
