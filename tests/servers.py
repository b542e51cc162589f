"""Real database servers for the tests: those that the environment names, a run's own, or those on
127.0.0.1.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from breakable_servers import SERVERS, Server, ServerMissing
from shared_servers import shared_url

ENVIRONMENT = {"mariadb": "STRUCTJOB_TEST_MYSQL", "postgresql": "STRUCTJOB_TEST_POSTGRES"}
USUAL = {
    "mariadb": "mariadb://root@127.0.0.1:3306/test",
    "postgresql": "postgresql://postgres@127.0.0.1:5432/test",
}

_found: dict[str, str] = {}


def start_private(kind: str) -> Server:
    """Start a server of one's own with an empty database ``test``; `remove` it at the end.

    Raises:
        ServerMissing: if its programs are not installed.
    """
    directory = Path(tempfile.mkdtemp(prefix="structjob-"))
    directory.chmod(0o711)  # its own user must get through, who cannot reach pytest's directories
    server = SERVERS[kind](directory / "server")
    try:
        server.start()
        server.sql("CREATE DATABASE test", database="")
    except BaseException:
        remove(server)
        raise
    return server


def remove(server: Server) -> None:
    """End a private server and delete its files."""
    server.kill()
    shutil.rmtree(server.directory.parent)


def _answers(kind: str, port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.settimeout(2)
            if kind == "mariadb":
                return bool(connection.recv(1))  # it greets first
            connection.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # "do you speak TLS?"
            if connection.recv(1) not in (b"S", b"N"):
                return False
    except OSError:
        return False
    return True


def server_url(kind: str) -> str:
    """Return the URL of a server's database to work in. Without such a server the test is skipped,
    or fails in CI.
    """
    if kind not in _found:
        if os.environ.get(ENVIRONMENT[kind]):
            _found[kind] = os.environ[ENVIRONMENT[kind]]
        else:
            try:
                _found[kind] = shared_url(kind)
            except ServerMissing as exc:
                if not _answers(kind, 3306 if kind == "mariadb" else 5432):
                    absent(kind, str(exc))
                _found[kind] = USUAL[kind]
    return _found[kind]


def absent(kind: str, why: str) -> None:
    """Skip the test since there is no server of this *kind*; where no skip is wanted, fail it."""
    reason = f"no {kind} server: {why}; install one, or set {ENVIRONMENT[kind]}"
    if os.environ.get("STRUCTJOB_TEST_NO_SKIP"):
        pytest.fail(reason)
    pytest.skip(reason)
