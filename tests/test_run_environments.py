"""``structjob run`` runs the program, whatever is broken around it (faults A1, A2, 52, 53); see
`broken_environments`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from broken_environments import (
    ENVIRONMENTS,
    IS_ROOT,
    PROGRAMS,
    PYTHON,
    READ_AND_WRITE,
    TOGETHER,
    Broken,
    compare,
    together,
)

FAST = {"closed: 0 1 2", "PostgreSQL is down", "SQLAlchemy is broken", "an empty environment"}
"""Those that the fast tests try."""

OFTEN = FAST | {
    "the working directory is /", "the file is no database", "the working directory was deleted", "ignored: SIGCHLD", "PYTHONWARNINGS=error",
}  # fmt: skip

BY_NAME = {broken.name: broken for broken in ENVIRONMENTS}
GROUPED = {name for names in TOGETHER for name in names}
EVERY = [
    *(together(*(BY_NAME[name] for name in names)) for names in TOGETHER),
    *(broken for broken in ENVIRONMENTS if broken.name not in GROUPED),
]
"""All of them, in as few runs as tell whether each is survived."""

KILLED = (
    PYTHON, "-I", "-S", "-c", READ_AND_WRITE.replace("os._exit(4)", "os.kill(os.getpid(), 9)"),
)  # fmt: skip
"""A program that uses all that can differ: both streams, stdin, a further descriptor, and a signal.
The others write less, and end with a code.
"""


def check(broken: Broken, program: tuple[str, ...], directory: Path) -> None:
    if broken.root and not IS_ROOT:
        pytest.skip("only root can make this environment")
    assert compare(broken, program, directory).differences(broken) == []


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(broken, marks=() if broken.name in FAST else pytest.mark.slow)
        for broken in ENVIRONMENTS
        if broken.name in OFTEN
    ],
    ids=lambda broken: broken.name,
)
def test_a_program_in_an_environment_that_is_often_broken(broken: Broken, tmp_path: Path) -> None:
    """The same exit code, output and effects as without us, but for one warning of ours where the
    database does not have it (faults A1).
    """
    check(broken, PROGRAMS["fails"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("broken", EVERY, ids=lambda broken: broken.name)
def test_a_program_in_every_broken_environment(broken: Broken, tmp_path: Path) -> None:
    """The same in each of the environments (faults A1, A2, 52, 53), for a program that uses all
    that the others use. Those that do not concern each other are broken in one run.

    ``python tests/reliability.py --only environments`` runs each of four programs in each of them.
    """
    check(broken, KILLED, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [broken for broken in ENVIRONMENTS if broken.name in OFTEN],
    ids=lambda broken: broken.name,
)
def test_a_silent_program_in_an_environment_that_is_often_broken(
    broken: Broken, tmp_path: Path
) -> None:
    """The same for a program that says nothing and ends well (faults A1)."""
    check(broken, PROGRAMS["does well"], tmp_path)


def test_the_environments() -> None:
    """There are enough of them, each once, and those that are tried often are among them (faults
    A1).
    """
    names = [broken.name for broken in ENVIRONMENTS]
    assert len(names) == len(set(names)) >= 40
    assert set(names) > OFTEN
    assert sorted(name for broken in EVERY for name in broken.name.split(" + ")) == sorted(names)
    assert len(PROGRAMS) == 4
    assert PROGRAMS["reads and writes"] != KILLED


@pytest.mark.slow
def test_a_difference_is_found(tmp_path: Path) -> None:
    """A program that does not do the same twice is one that differs: the comparison can fail
    (faults A1).
    """
    broken = ENVIRONMENTS[0]
    assert compare(broken, ("sh", "-c", "echo $STRUCTJOB_OPERATION"), tmp_path).differences(
        broken
    ) == ["stdout: b'\\n' without us, b'sh\\n' below structjob run"]
