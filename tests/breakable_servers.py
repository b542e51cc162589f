"""Database servers of a test's own, to be stopped, frozen, killed and filled up at will."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_READY = 60.0

CONNECTIONS = 64
"""What a server takes: less than by default, so that a test can take them all; more than the eight
programs of a test need.
"""


class ServerMissing(Exception):
    """The server's programs are not installed."""


def _program(name: str, *places: str) -> str:
    found = shutil.which(name) or next(
        (path for place in places for path in sorted(glob.glob(f"{place}/{name}"), reverse=True)),
        None,
    )
    if found is None:
        raise ServerMissing(f"{name} is not installed")
    return found


class ClientFailed(subprocess.CalledProcessError):
    """The server's own client has ended with an error."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.stderr}"


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClientFailed(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


class _Questions:
    """A server's own client that stays connected, and answers one question after another.

    Args:
        command: Starts it; it reads statements, and ends at the first that fails.
    """

    _LAST = "that was all"

    def __init__(self, command: list[str]) -> None:
        self._command = command
        pipe = subprocess.PIPE
        self._client = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def ask(self, query: str) -> str:
        """Return what the server answers to *query*, as text.

        Raises:
            ClientFailed: if the client has ended; it answers nothing from then on.
        """
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._client.stdin.write(f"{query};\nSELECT '{self._LAST}';\n")
            self._client.stdin.flush()
        answer = ""
        while line := self._client.stdout.readline():
            if line.rstrip("\n") == self._LAST:
                return answer
            answer += line
        raise ClientFailed(self._client.wait(), self._command, answer, self._end())

    def close(self) -> None:
        """End the client."""
        self._client.kill()
        self._end()

    def _end(self) -> str:
        with contextlib.suppress(BrokenPipeError):
            return self._client.communicate()[1]
        return ""


def free_port() -> int:
    """Return a port on 127.0.0.1 on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def descendants(pid: int) -> list[int]:
    """Return *pid* and the processes below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found


# It reads until this process ends, however that is.
_GUARD = 'read _; kill -9 $(cat "/proc/$0/task/$0/children") "$0"'


class Server:
    """A server in a directory of its own. It ends with this process at the latest.

    Args:
        directory: Where it may write; made if it is not there.
        lasting: Whether what it has stored survives a power cut. Where it need not, the server
            never waits for a disk.

    Attributes:
        port: Where it listens, on 127.0.0.1; the same after each start.
    """

    backend: str
    user: str
    account: str
    """The user of the operating system that it runs as where the tests are run by root: some refuse
    to be root.
    """

    def __init__(self, directory: Path, *, lasting: bool = True) -> None:
        self.directory = directory
        self.lasting = lasting
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._questions: _Questions | None = None
        self._asking = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def url(
        self,
        database: str = "test",
        *,
        port: int | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> str:
        """Return the URL of *database*; through a proxy at *port*."""
        secret = f":{password}" if password is not None else ""
        return (
            f"{self.backend}://{user or self.user}{secret}@127.0.0.1:{port or self.port}/{database}"
        )

    # -- life
    # --------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if not (self.directory / "data").exists():
            for directory in (self.directory, self.directory / "tmp"):
                directory.mkdir(parents=True, exist_ok=True)
                if os.geteuid() == 0:
                    shutil.chown(directory, self.account, self.account)
            self._run(self._initialize())
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._serve(), stdout=log, stderr=log, start_new_session=True, **self._as_account()
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _READY
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self.backend} did not start:\n{(self.directory / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.05)

    def _as_account(self) -> dict[str, object]:
        return (
            {"user": self.account, "group": self.account, "extra_groups": []}
            if os.geteuid() == 0
            else {}
        )

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, **self._as_account()
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr or done.stdout}")

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.sql("SELECT 1", database="")
            return True
        return False

    def stop(self) -> None:
        """Ask it to end, as an operator does who restarts it."""
        if self._process is not None:
            self._process.send_signal(self._farewell)
            self._has_ended()

    _farewell = signal.SIGTERM

    def kill(self) -> None:
        """End it and all that belongs to it by SIGKILL."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._has_ended()

    def _has_ended(self) -> None:
        assert self._process is not None
        self._hang_up()
        self._process.wait()
        self._process = None
        if self._guard is not None:
            self._guard.kill()  # its number may soon belong to another process
            self._guard.communicate()
            self._guard = None

    def running(self) -> bool:
        """Return whether it still runs, and answers."""
        return self._process is not None and self._process.poll() is None and self._answers()

    def freeze(self) -> None:
        """Stop it in the middle of its work: connections stay open and get no answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # -- for each of them
    # --------------------------------------------------------------------------

    def _initialize(self) -> list[str]:
        raise NotImplementedError

    def _serve(self) -> list[str]:
        raise NotImplementedError

    def sql(self, statements: str, *, database: str = "test") -> str:
        """Run *statements* as the administrator, by the server's own client, and return the answer
        as text.
        """
        raise NotImplementedError

    def ask(self, query: str) -> str:
        """Return the answer to *query* as `sql` does, by a client that stays connected to the
        database ``test``. For what is asked over and over: to start a client takes longer than to
        answer.
        """
        with self._asking:
            known, self._questions = self._questions, None
            if known is not None:
                # It may have lost its connection or its database since.
                with contextlib.suppress(ClientFailed):
                    answer = known.ask(query)
                    self._questions = known
                    return answer
            new = _Questions(self._questioner())
            answer = new.ask(query)
            self._questions = new
            return answer

    def _questioner(self) -> list[str]:
        raise NotImplementedError

    def _hang_up(self) -> None:
        if self._questions is not None:
            self._questions.close()
            self._questions = None

    def dump(self) -> str:
        """Return a backup of the database ``test`` as SQL, made by the server's own tool while
        others write.
        """
        return _said(self._dump())

    def _dump(self) -> list[str]:
        raise NotImplementedError

    def restore(self, dump: str) -> None:
        """Put a backup into the database ``test``, which is empty."""
        path = self.directory / "tmp" / "dump.sql"
        path.write_text(dump)
        self._load(path)

    def _load(self, path: Path) -> None:
        raise NotImplementedError

    def copy(self) -> Path:
        """Return a copy of all that it holds now, such as a replica has that gets no further; it is
        stopped for this, and started.
        """
        self.stop()
        copy = self.directory / "copy"
        subprocess.run(["cp", "-a", self.directory / "data", copy], check=True)
        self.start()
        return copy

    def fail_over(self, copy: Path) -> None:
        """Kill it, and go on at the same address with what a copy holds."""
        self.kill()
        shutil.rmtree(self.directory / "data")
        copy.rename(self.directory / "data")
        self.start()

    def clear(self, user: str, password: str) -> None:
        """Make the database ``test`` anew, and *user*, who may do what he likes in it, and nothing
        to the server.
        """
        raise NotImplementedError

    def set_password(self, name: str, password: str) -> None:
        raise NotImplementedError

    def connections(self, name: str) -> set[int]:
        """Return the numbers of the connections of user *name*."""
        return {int(number) for number in self.sql(self._connections.format(name)).split()}

    _connections: str

    def end(self, connection: int) -> None:
        """End the connection of that number, if it is still there."""
        raise NotImplementedError

    def disconnect(self, name: str) -> None:
        """End the connections of user *name*."""
        raise NotImplementedError

    def read_only(self, yes: bool) -> None:
        """Refuse to write, as a replica does, or after an emergency."""
        raise NotImplementedError

    def deadlocks(self) -> int:
        """Return how many there were so far."""
        raise NotImplementedError


class MariaDB(Server):
    backend = "mariadb"
    user = "root"
    account = "mysql"

    def _initialize(self) -> list[str]:
        return [
            _program("mariadb-install-db", "/usr/bin"), "--no-defaults", f"--datadir={self.directory}/data",
            "--auth-root-authentication-method=normal", "--skip-test-db", *self._common(),
        ]  # fmt: skip

    def _common(self) -> list[str]:
        # A directory of its own: a server that starts deletes the temporary tables of whatever
        # server has the same one.
        return [f"--tmpdir={self.directory}/tmp", *self._sizes]

    _sizes = (
        "--innodb-log-file-size=8M",
        "--innodb-buffer-pool-size=64M",
        "--innodb-undo-tablespaces=0",
    )
    _careless = (
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-flush-method=nosync",
        "--skip-innodb-doublewrite",
    )

    def _serve(self) -> list[str]:
        return [
            _program("mariadbd", "/usr/sbin", "/usr/local/sbin"), "--no-defaults", f"--datadir={self.directory}/data",
            f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.directory}/socket", "--skip-name-resolve",
            f"--max-connections={CONNECTIONS}", "--innodb-temp-data-file-path=ibtmp1:4M:autoextend", *self._common(),
            *([] if self.lasting else self._careless),
        ]  # fmt: skip

    def sql(self, statements: str, *, database: str = "test") -> str:
        command = [*self._client("mariadb"), "-N", "-B", "-e", statements]
        return _said([*command, database] if database else command)

    def _questioner(self) -> list[str]:
        return [*self._client("mariadb"), "-N", "-B", "--unbuffered", "--skip-reconnect", "test"]

    def _client(self, program: str) -> list[str]:
        return [
            _program(program, "/usr/bin"),
            "--no-defaults",
            "-h127.0.0.1",
            f"-P{self.port}",
            "-uroot",
        ]

    def _dump(self) -> list[str]:
        return [*self._client("mariadb-dump"), "--single-transaction", "test"]

    def _load(self, path: Path) -> None:
        _said([*self._client("mariadb"), "-e", f"source {path}", "test"])

    def clear(self, user: str, password: str) -> None:
        self.sql("DROP DATABASE IF EXISTS test; CREATE DATABASE test", database="")
        self.sql(
            f"CREATE OR REPLACE USER {user}@'%' IDENTIFIED BY '{password}'; GRANT ALL ON test.* TO {user}@'%'"
        )

    def set_password(self, name: str, password: str) -> None:
        self.sql(f"ALTER USER {name}@'%' IDENTIFIED BY '{password}'")

    _connections = "SELECT id FROM information_schema.processlist WHERE user = '{}'"

    def end(self, connection: int) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.sql(f"KILL {connection}")

    def disconnect(self, name: str) -> None:
        self.sql(f"KILL USER {name}")

    def read_only(self, yes: bool) -> None:
        self.sql(f"SET GLOBAL read_only = {int(yes)}")

    def deadlocks(self) -> int:
        return int(self.ask("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'").split()[1])


class PostgreSQL(Server):
    backend = "postgresql"
    user = "postgres"
    account = "postgres"
    # Immediate enough for a test, and in order: "fast" ends the connections and says why.
    _farewell = signal.SIGINT
    _places = "/usr/lib/postgresql/*/bin", "/usr/local/bin", "/opt/homebrew/bin"

    def _initialize(self) -> list[str]:
        return [
            _program("initdb", *self._places), "-D", f"{self.directory}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync", "--wal-segsize=1",
        ]  # fmt: skip

    def _serve(self) -> list[str]:
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.directory, "max_connections": CONNECTIONS,
            "superuser_reserved_connections": 3, "shared_buffers": "32MB", "min_wal_size": "2MB", "max_wal_size": "16MB",
            "password_encryption": "scram-sha-256",
            **({} if self.lasting else {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}),
        }  # fmt: skip
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [_program("postgres", *self._places), "-D", f"{self.directory}/data", *options]

    def start(self) -> None:
        fresh = not (self.directory / "data").exists()
        super().start()
        if fresh:
            # Only the administrator is trusted: a password is to be worth something.
            access = (
                "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            )
            (self.directory / "data" / "pg_hba.conf").write_text(access)
            self.sql("SELECT pg_reload_conf()", database="")

    def sql(self, statements: str, *, database: str = "test") -> str:
        command = [*self._client("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        for statement in filter(None, map(str.strip, statements.split(";"))):
            command += ["-c", statement]
        return _said([*command, database or "postgres"])

    def _questioner(self) -> list[str]:
        return [*self._client("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "test"]

    def _client(self, program: str) -> list[str]:
        return [_program(program, *self._places), "-h127.0.0.1", f"-p{self.port}", "-Upostgres"]

    def _dump(self) -> list[str]:
        return [*self._client("pg_dump"), "test"]

    def _load(self, path: Path) -> None:
        _said([*self._client("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-f", str(path), "test"])

    def clear(self, user: str, password: str) -> None:
        self.sql(
            f"DROP DATABASE IF EXISTS test WITH (FORCE); DROP ROLE IF EXISTS {user}", database=""
        )
        self.sql(
            f"CREATE ROLE {user} LOGIN PASSWORD '{password}'; CREATE DATABASE test OWNER {user}",
            database="",
        )

    def set_password(self, name: str, password: str) -> None:
        self.sql(f"ALTER ROLE {name} PASSWORD '{password}'")

    _connections = "SELECT pid FROM pg_stat_activity WHERE usename = '{}'"

    def end(self, connection: int) -> None:
        self.sql(f"SELECT pg_terminate_backend({connection})")

    def disconnect(self, name: str) -> None:
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'")

    def read_only(self, yes: bool) -> None:
        self.sql(
            f"ALTER SYSTEM SET default_transaction_read_only = {'on' if yes else 'off'}; SELECT pg_reload_conf()"
        )

    def deadlocks(self) -> int:
        return int(self.ask("SELECT deadlocks FROM pg_stat_database WHERE datname = 'test'"))


SERVERS: dict[str, type[Server]] = {"mariadb": MariaDB, "postgresql": PostgreSQL}


@contextlib.contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of so many megabytes at *directory*.

    Raises:
        PermissionError: where mounting is not allowed.
    """
    directory.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", directory],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PermissionError(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@contextlib.contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Leave no byte free on the file system of *directory*."""
    ballast = directory / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        size = 1 << 20
        while size:
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                pass
            size //= 2
    try:
        yield
    finally:
        ballast.unlink()
