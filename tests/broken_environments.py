"""Environments in which something is broken, and programs to run in them: beside ``structjob run``,
and below it.

Each environment is a few words of shell around ``"$@"``, variables, and what has to be there first.
`compare` runs a program in it twice, without us and below ``structjob run``, and says what differs:
nothing may.

``python tests/broken_environments.py --write FILE`` runs all of them, and writes what came out as a
table in Markdown; its summary is in ``docs/reliability.md`` (see `environments`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from cli_support import COMMAND, REPOSITORY, environment

PYTHON = sys.executable
IS_ROOT = os.geteuid() == 0
NOBODY = 65534

UNPRIVILEGED = (
    f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search"
    if IS_ROOT
    else "env"
)
"""For whom permissions matter; it may read everything, since the interpreter need not be where
others may.
"""

READ_AND_WRITE = """
import os, sys
def attempt(call, *args):
    try:
        return call(*args)
    except OSError as exc:
        return exc.strerror.encode()
data = b""
while chunk := attempt(os.read, 0, 65536):
    data += chunk
    if len(chunk) < 40 and not os.isatty(0) and chunk in (b"Bad file descriptor", b"Is a directory"):
        break
attempt(os.write, 3, b"%d bytes: " % len(data) + data[:20].upper())
attempt(os.write, 1, b"read %d\\n" % len(data))
attempt(os.write, 2, b"complained\\n")
os._exit(4)
"""

PROGRAMS = {
    "does well": ("sh", "-c", "exit 0"),
    "fails": ("sh", "-c", "echo out; echo err >&2; exit 3"),
    "is killed": ("sh", "-c", "echo before; kill -KILL $$"),
    "reads and writes": (PYTHON, "-I", "-S", "-c", READ_AND_WRITE),
}
"""What is run: one that exits with 0; with 3, after writing to both streams; that dies by a signal;
and a Python program that reads its stdin and writes to descriptor 3, which it inherits.
"""


@dataclass(frozen=True)
class Broken:
    """An environment with something broken in it.

    Attributes:
        name: What is broken.
        shell: How a command is started in it: shell, with ``"$@"`` for the command.
        variables: Environment variables to set; ``None`` to unset.
        database: Its URL, ``{directory}`` being the test's own; in the environment, as it is for a
            job of cron.
        prepare: What has to be done in the test's directory before.
        stdin: What the program can read.
        recorded: Whether the job is to be in the usual database file afterwards.
        root: Whether it can be made by root only.
    """

    name: str
    shell: str = 'exec "$@"'
    variables: dict[str, str | None] = field(default_factory=dict)
    database: str = "sqlite:///{directory}/jobs.db"
    prepare: Callable[[Path], object] = lambda directory: None
    stdin: bytes = b"one\ntwo\n"
    recorded: bool = True
    root: bool = False


def _python(statement: str) -> str:
    """Return a start by Python, which can do to itself what a shell cannot."""
    program = "import os, resource, signal, sys; signal.signal(13, signal.SIG_DFL); signal.signal(25, signal.SIG_DFL); "
    return f"exec '{PYTHON}' -I -S -c '{program}{statement}; os.execvp(sys.argv[1], sys.argv[1:])' \"$@\""


def _module(name: str, text: str = "raise ImportError('it is broken')\n") -> Callable[[Path], None]:
    """Return what puts a module of this *name* before the real one."""

    def prepare(directory: Path) -> None:
        (directory / "broken").mkdir(exist_ok=True)
        (directory / "broken" / f"{name}.py").write_text(text)

    return prepare


def _theirs(directory: Path) -> None:
    """Make a directory in which others may write, and a file that they may read."""
    if IS_ROOT:
        os.chown(directory, NOBODY, NOBODY)
    directory.chmod(0o755)
    (directory / "locked").mkdir(exist_ok=True)
    if IS_ROOT:
        os.chown(directory / "locked", 0, 0)
    (directory / "locked").chmod(0o555)


def _read_only_file(directory: Path) -> None:
    _theirs(directory)
    path = directory / "locked" / "jobs.db"
    if not path.exists():
        (directory / "locked").chmod(0o755)
        sqlite3.connect(path).close()
        path.touch()
        path.chmod(0o444)
        (directory / "locked").chmod(0o555)


def _no_database(directory: Path) -> None:
    (directory / "jobs.db").write_bytes(b"This is a text, and no database at all.\n" * 100)


def _full(directory: Path) -> None:
    disk = directory / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=True)
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


_FAKE = {"PYTHONPATH": f"{{directory}}/broken:{REPOSITORY}"}
_NOWHERE = {"HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent", "TMPDIR": "/nonexistent"}

ENVIRONMENTS = (
    Broken("nothing"),
    # -- descriptors
    # --------------------------------------------------------------------------
    *(Broken(f"closed: {' '.join(numbers)}", f'exec "$@" {" ".join(f"{n}>&-" for n in numbers)}') for numbers in ("0", "1", "2", "01", "02", "12", "012")),
    Broken("stdin is at its end", 'exec "$@" </dev/null'),
    Broken("stdin is huge", stdin=b"0123456789abcde\n" * 131_072),
    Broken("many descriptors are open", "for n in $(seq 10 60); do eval \"exec $n</dev/null\"; done; exec \"$@\""),
    # -- databases
    # --------------------------------------------------------------------------
    Broken("the directory of the database is missing", database="sqlite:///{directory}/no/such/jobs.db", recorded=False),
    Broken("the directory of the database is read-only", f'exec {UNPRIVILEGED} "$@"', prepare=_theirs, database="sqlite:///{directory}/locked/new.db", recorded=False),
    Broken("the database file is read-only", f'exec {UNPRIVILEGED} "$@"', prepare=_read_only_file, database="sqlite:///{directory}/locked/jobs.db", recorded=False),
    Broken("the working directory is /", f'cd /; exec {UNPRIVILEGED} "$@"', prepare=_theirs, database="", recorded=False),
    Broken("/, and no place for a spool", f'cd /; exec {UNPRIVILEGED} "$@"', _NOWHERE, prepare=_theirs, database="", recorded=False),
    Broken("the file is no database", prepare=_no_database, recorded=False),
    Broken("the database is a directory", database="sqlite:///{directory}", recorded=False),
    Broken("the database is a device", database="sqlite:////dev/null", recorded=False),
    Broken("the disk of the database is full", prepare=_full, database="sqlite:///{directory}/disk/jobs.db", recorded=False, root=True),
    Broken("PostgreSQL is down", database="postgresql://postgres@127.0.0.1:1/test", recorded=False),
    Broken("MariaDB is down", database="mariadb://root@127.0.0.1:1/test", recorded=False),
    Broken("the host is unknown", database="postgresql://postgres@no-such-host.invalid/test", recorded=False),
    Broken("the password is wrong", database="mariadb://structjob_nobody:wrong@127.0.0.1/test", recorded=False),
    Broken("the database does not exist", database="postgresql://postgres@127.0.0.1/structjob_no_such_database", recorded=False),
    Broken("a server's database, and the working directory is read-only", f'cd locked; exec {UNPRIVILEGED} "$@"', prepare=_theirs, database="postgresql://postgres@127.0.0.1:1/test", recorded=False),
    Broken("the working directory was deleted", "mkdir -p gone; cd gone; rmdir ../gone; exec \"$@\"", database="", recorded=False),
    Broken("the same, with a server's database", "mkdir -p gone; cd gone; rmdir ../gone; exec \"$@\"", database="postgresql://postgres@127.0.0.1:1/test", recorded=False),
    Broken("the URL is none", database="nonsense://x", recorded=False),
    Broken("the URL names an unknown kind of database", database="mssql://sa@host/test", recorded=False),
    Broken("the database is in memory", database="sqlite://", recorded=False),
    Broken("the URL has options that nobody knows", database="postgresql://postgres@127.0.0.1/test?bogus=1", recorded=False),
    Broken("the driver is missing", variables=_FAKE, prepare=_module("asyncpg"), database="postgresql://postgres@127.0.0.1/test", recorded=False),
    Broken("SQLAlchemy is broken", variables=_FAKE, prepare=_module("sqlalchemy"), recorded=False),
    Broken("msgspec is broken", variables=_FAKE, prepare=_module("msgspec"), recorded=False),
    Broken("click is broken", variables=_FAKE, prepare=_module("click"), recorded=False),
    # -- limits
    # --------------------------------------------------------------------------
    Broken("20 descriptors at first", 'ulimit -Sn 20; exec "$@"'),
    Broken("9 descriptors at most", 'ulimit -n 9; exec "$@"', recorded=False),
    Broken("no further process", f'ulimit -u 1; exec {UNPRIVILEGED.replace(str(NOBODY), "61234")} "$@"', recorded=False, root=True),
    Broken("no further thread", f'ulimit -u 2; exec {UNPRIVILEGED.replace(str(NOBODY), "61235")} "$@"', recorded=False, root=True),
    Broken("2 GB of memory", 'ulimit -v 2000000; exec "$@"'),
    Broken("200 MB of memory", 'ulimit -v 200000; exec "$@"'),
    Broken("120 MB of memory", 'ulimit -v 120000; exec "$@"', recorded=False),
    Broken("40 MB of data", 'ulimit -d 40000; exec "$@"', recorded=False),
    Broken("70 MB of memory", 'ulimit -v 70000; exec "$@"', recorded=False),
    Broken("files of 0 bytes at first", 'ulimit -Sf 0; exec "$@"'),
    Broken("files of 0 bytes at most", 'ulimit -f 0; exec "$@"', recorded=False),
    Broken("a small stack", 'ulimit -s 512; exec "$@"'),
    Broken("5 seconds of CPU at first", 'ulimit -St 5; exec "$@"'),
    Broken("a low priority", 'exec nice -n 5 "$@"'),
    Broken("a umask of 777", f'umask 777; exec {UNPRIVILEGED} "$@"', prepare=_theirs, recorded=False),
    Broken("a umask of 0", 'umask 0; exec "$@"'),
    # -- signals
    # --------------------------------------------------------------------------
    *(Broken(f"ignored: {name}", _python(f"signal.signal(signal.{name}, signal.SIG_IGN)")) for name in ("SIGCHLD", "SIGHUP", "SIGINT", "SIGTERM", "SIGALRM")),
    Broken("ignored: SIGPIPE", 'trap "" PIPE; "$@"; exit $?'),
    Broken("blocked: SIGCHLD", _python("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])")),
    Broken("blocked: every signal", _python("signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())")),
    Broken("an alarm is set", _python("signal.alarm(100)")),
    # -- locale and environment
    # --------------------------------------------------------------------------
    *(Broken(f"LC_ALL={value}", variables={"LC_ALL": value}) for value in ("C", "POSIX", "xx_YY.bogus", "de_DE.ISO-8859-1")),
    Broken("no locale at all", variables={"LC_ALL": None, "LANG": None, "LC_CTYPE": None}),
    Broken("an empty environment", 'exec env -i "PYTHONPATH=$PYTHONPATH" "STRUCTJOB_DATABASE_URL=$STRUCTJOB_DATABASE_URL" "$@"'),
    Broken("no PATH", variables={"PATH": None}),
    Broken("no HOME", variables={"HOME": None}),
    Broken("no temporary directory", variables={"TMPDIR": "/nonexistent", "TMP": "/nonexistent", "TEMP": "/nonexistent"}),
    Broken("no place for a spool, and a server that is down", f'cd locked; exec {UNPRIVILEGED} "$@"', _NOWHERE, prepare=_theirs, database="postgresql://postgres@127.0.0.1:1/test", recorded=False),
    Broken("STRUCTJOB_SPOOL cannot be made", variables={"STRUCTJOB_SPOOL": "/proc/nonexistent/spool"}),
    Broken("TZ is nonsense", variables={"TZ": "Nowhere/At_All+99"}),
    Broken("a variable that is no UTF-8", "export ODD=$'\\xff\\xfe'; exec \"$@\""),
    Broken("a huge variable", "export HUGE=$(head -c 100000 /dev/zero | tr '\\0' x); exec \"$@\""),
    Broken("TERM is nonsense", variables={"TERM": "nonsense", "COLUMNS": "-1", "LINES": "x"}),
    Broken("colours are forced", variables={"FORCE_COLOR": "1"}),
    Broken("garbage in STRUCTJOB_*", variables={f"STRUCTJOB_{name}": "\x01 %%% \udcff" for name in ("JOB_ID", "STEP_ID", "ATTEMPT", "OPERATION", "CORRELATION_ID", "ROOT_JOB_ID", "PROVISIONAL")}),
    # -- Python
    # --------------------------------------------------------------------------
    *(
        Broken(f"{name}={value}", variables={name: value})
        for name, value in (
            ("PYTHONWARNINGS", "error"), ("PYTHONDEVMODE", "1"), ("PYTHONOPTIMIZE", "2"), ("PYTHONUNBUFFERED", "1"), ("PYTHONASYNCIODEBUG", "1"),
            ("PYTHONIOENCODING", "ascii:strict"), ("PYTHONUTF8", "0"), ("PYTHONINSPECT", "1"), ("PYTHONTRACEMALLOC", "5"),
            ("PYTHONFAULTHANDLER", "1"), ("PYTHONHASHSEED", "1"), ("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONCOERCECLOCALE", "0"),
            ("PYTHONBREAKPOINT", "nonsense.x"), ("PYTHONUSERBASE", "/nonexistent"), ("PYTHONPLATLIBDIR", "lib"),
        )
    ),
)  # fmt: skip


TOGETHER = (
    ("closed: 0", "LC_ALL=C", "PYTHONUNBUFFERED=1"),
    ("closed: 1", "LC_ALL=POSIX", "PYTHONASYNCIODEBUG=1"),
    ("closed: 2", "PYTHONHASHSEED=1"),
    ("closed: 0 1", "a umask of 0"),
    ("closed: 0 2", "PYTHONDONTWRITEBYTECODE=1"),
    ("closed: 1 2", "PYTHONBREAKPOINT=nonsense.x"),
    ("closed: 0 1 2", "PYTHONUSERBASE=/nonexistent"),
    ("stdin is at its end", "LC_ALL=xx_YY.bogus", "PYTHONPLATLIBDIR=lib"),
    ("stdin is huge", "a small stack", "PYTHONTRACEMALLOC=5"),
    ("many descriptors are open", "LC_ALL=de_DE.ISO-8859-1", "TERM is nonsense", "PYTHONFAULTHANDLER=1"),
    ("a variable that is no UTF-8", "no locale at all", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0"),
    ("ignored: SIGHUP", "ignored: SIGINT", "ignored: SIGTERM", "ignored: SIGALRM", "no HOME", "TZ is nonsense"),
    ("ignored: SIGPIPE", "colours are forced"),
    ("5 seconds of CPU at first", "no temporary directory", "garbage in STRUCTJOB_*"),
    ("a low priority", "no PATH", "STRUCTJOB_SPOOL cannot be made", "PYTHONIOENCODING=ascii:strict"),
    ("20 descriptors at first", "2 GB of memory", "a huge variable"),
    ("files of 0 bytes at first", "blocked: SIGCHLD", "an alarm is set", "PYTHONOPTIMIZE=2"),
)  # fmt: skip
"""What can be broken at the same time: by each of these alone the program is recorded, no two of a
line concern the same part of a process, and none keeps another from being noticed.
"""


def together(*parts: Broken) -> Broken:
    """Return the environment in which all of *parts* is broken at once; of each, only the shell,
    the variables and stdin may be unusual.
    """
    shell, variables = '"$@"', {}
    stdin = {part.stdin for part in parts} - {Broken.stdin}
    for part in reversed(parts):
        unusual = replace(part, name="", shell=Broken.shell, variables={}, stdin=Broken.stdin)
        assert unusual == Broken(""), part
        assert not variables.keys() & part.variables.keys(), part
        variables |= part.variables
        if part.shell != Broken.shell:
            inner = f'/bin/bash -c {shlex.quote(shell)} - "$@"' if shell != '"$@"' else shell
            shell = part.shell.replace('"$@"', inner)
    return Broken(
        " + ".join(part.name for part in parts),
        shell if shell != '"$@"' else Broken.shell,
        variables,
        stdin=stdin.pop() if stdin else Broken.stdin,
    )


@dataclass(frozen=True)
class Outcome:
    """What a program did in an environment."""

    code: int
    stdout: bytes
    stderr: bytes
    side: bytes


@dataclass(frozen=True)
class Compared:
    """The same program without us and below ``structjob run``."""

    alone: Outcome
    watched: Outcome
    warnings: tuple[str, ...]
    recorded: bool

    def differences(self, broken: Broken) -> list[str]:
        """Return what is not as it should be."""
        found = [
            f"{name}: {getattr(self.alone, name)!r} without us, {getattr(self.watched, name)!r} below structjob run"
            for name in ("code", "stdout", "stderr", "side")
            if getattr(self.alone, name) != getattr(self.watched, name)
        ]
        if len(self.warnings) > 1:
            found.append(f"{len(self.warnings)} warnings: {self.warnings}")
        if broken.recorded and not self.recorded:
            found.append(f"it was not recorded: {self.warnings}")
        if not broken.recorded and not self.warnings and "2>&-" not in broken.shell:
            found.append("no warning says that it is not in the database")
        return found


def compare(broken: Broken, command: tuple[str, ...], directory: Path) -> Compared:
    """Run *command* twice in an environment that is *broken*, and return what it did each time."""
    with _prepared(broken, directory):
        alone = _run(broken, command, directory)
        watched = _run(broken, (*COMMAND, "run", "--", *command), directory)
        recorded = _is_recorded(directory / "jobs.db")
    lines = watched.stderr.splitlines(keepends=True)
    ours = tuple(
        line.decode().strip() for line in lines if line.startswith(b"structjob: warning: ")
    )
    rest = b"".join(line for line in lines if not line.startswith(b"structjob: warning: "))
    return Compared(
        alone, Outcome(watched.code, watched.stdout, rest, watched.side), ours, recorded
    )


@contextlib.contextmanager
def _prepared(broken: Broken, directory: Path) -> Iterator[None]:
    broken.prepare(directory)
    try:
        yield
    finally:
        if os.path.ismount(directory / "disk"):
            subprocess.run(["umount", str(directory / "disk")], check=False)


def _run(broken: Broken, command: tuple[str, ...], directory: Path) -> Outcome:
    variables: dict[str, str] = environment(XDG_STATE_HOME=str(directory / "state"))
    for name, value in {"STRUCTJOB_DATABASE_URL": broken.database, **broken.variables}.items():
        variables.pop(name, None)
        if value:
            variables[name] = value.format(directory=directory)
    side = directory / "side"
    with tempfile.TemporaryFile() as given, side.open("wb") as three:
        given.write(broken.stdin)
        given.seek(0)
        done = subprocess.run(
            ["/bin/bash", "-c", broken.shell.replace('"$@"', f'"$@" 3>&{three.fileno()}', 1), "-", *command],
            cwd=directory, env=variables, stdin=given, capture_output=True, timeout=100, check=False, pass_fds=[three.fileno()],
        )  # fmt: skip
    # bash tells of a killed program with its number.
    stderr = re.sub(rb"(line \d+: +)\d+ (?=Killed)", rb"\1N ", done.stderr)
    return Outcome(done.returncode, done.stdout, stderr, side.read_bytes())


def _is_recorded(path: Path) -> bool:
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        ) as connection:
            return (
                connection.execute(
                    "SELECT count(*) FROM structjob_jobs WHERE status IN ('completed', 'failed')"
                ).fetchone()[0]
                > 0
            )
    except sqlite3.Error:
        return False


def try_in(broken: Broken, command: tuple[str, ...]) -> Compared | None:
    """Compare in a directory of its own; ``None`` if only root can make this environment."""
    if broken.root and not IS_ROOT:
        return None
    directory = Path(tempfile.mkdtemp(prefix="broken-"))
    try:
        return compare(broken, command, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def table() -> tuple[str, int]:
    """Run every program in every environment; return what came out as a table in Markdown, and how
    many runs differed.
    """
    lines = ["| Broken | " + " | ".join(PROGRAMS) + " |", "|---|" + "---|" * len(PROGRAMS)]
    differing = 0
    for broken in ENVIRONMENTS:
        cells = []
        for command in PROGRAMS.values():
            compared = try_in(broken, command)
            if compared is None:
                cells.append("not run")
                continue
            differences = compared.differences(broken)
            differing += bool(differences)
            cells.append(
                "; ".join(differences)
                if differences
                else "as alone, recorded"
                if compared.recorded
                else "as alone, one warning"
            )
        lines.append(f"| {broken.name} | {' | '.join(cells)} |")
    runs = len(ENVIRONMENTS) * len(PROGRAMS)
    return "\n".join(
        [f"{len(ENVIRONMENTS)} environments, {runs} runs, {differing} differ.", "", *lines, ""]
    ), differing


if __name__ == "__main__":
    text, wrong = table()
    if len(sys.argv) == 3 and sys.argv[1] == "--write":
        Path(sys.argv[2]).write_text(text)
    else:
        sys.stdout.write(text)
    sys.exit(bool(wrong))
