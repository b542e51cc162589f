"""``structjob serve`` and ``structjob token``, as programs; and what ends them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from asgi_support import NO_TLS


def address_of(program: subprocess.Popen[bytes]) -> str:
    line = program.stderr.readline().decode()
    found = re.search(r"http://[^ ]+/", line)
    assert found, line
    address = found[0]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{address}api/v1/health", verify=NO_TLS)
            return address
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server does not answer")


@pytest.fixture
def served(live):
    """A server of a database with one job; its program and its address."""
    live.ok("run", "--", "echo", "hello")
    program = live.start("serve", "--port", "0")
    yield program, address_of(program)
    program.kill()
    program.wait()


def test_it_serves_until_it_is_told_to_end(served):
    """(R46, R49)"""
    program, address = served
    assert (
        httpx.get(f"{address}api/v1/jobs", verify=NO_TLS).json()["items"][0]["status"]
        == "completed"
    )
    with httpx.stream("GET", f"{address}api/v1/stream?last=5", verify=NO_TLS) as stream:
        lines = stream.iter_lines()
        while "hello" not in next(lines):
            pass
        program.send_signal(signal.SIGTERM)
        assert any("bye" in line for line in lines)
        program.wait(60)
    # uvicorn reports an error if it has to cut a stream off
    assert b"ERROR" not in program.stderr.read()


def test_another_address_needs_tokens(live):
    """(R49)"""
    live.ok("run", "--", "echo", "hello")
    found = live.run("serve", "--host", "0.0.0.0", "--port", "0")
    assert found.returncode == 2
    assert b"structjob token create" in found.stderr


@pytest.mark.slow
def test_a_token_that_was_made_opens_what_is_served(live):
    """(R46, R49)"""
    live.ok("run", "--", "echo", "hello")
    text = live.ok("token", "create", "--scope", "read", "--expires", "1d").strip()
    listed = live.ok("token", "list")
    (one,) = json.loads(live.ok("token", "list", "--json"))
    assert one.keys() == {"id", "scope", "created_at", "expires_at"}
    assert listed.startswith(one["id"])
    assert "read" in listed
    assert text not in listed
    program = live.start("serve", "--host", "0.0.0.0", "--port", "0")
    try:
        address = address_of(program).replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{address}api/v1/jobs", verify=NO_TLS).status_code == 401
        headers = {"Authorization": f"Bearer {text}"}
        assert httpx.get(f"{address}api/v1/jobs", headers=headers, verify=NO_TLS).status_code == 200
        live.ok("token", "revoke", one["id"])
        assert httpx.get(f"{address}api/v1/jobs", headers=headers, verify=NO_TLS).status_code == 401
    finally:
        program.kill()
        program.wait()


def test_a_database_that_is_not_there_is_not_made(live):
    """(R49)"""
    found = live.run("serve", "--port", "0", "--db", "absent.db")
    assert found.returncode == 1
    assert b"absent.db" in found.stderr
    assert b"structjob --db absent.db run -- echo hello" in found.stderr
    assert not (live.directory / "absent.db").exists()


def test_a_database_server_that_starts_later(live):
    """After a reboot the pages may start before the database: requests get 503 until it answers
    (R46).
    """
    program = live.start("serve", "--port", "0", "--db", "postgresql://nobody@127.0.0.1:1/jobs")
    try:
        warning = program.stderr.readline()
        assert b"warning: cannot connect to postgresql://nobody@127.0.0.1:1/jobs" in warning
        address = address_of(program)
        assert httpx.get(f"{address}api/v1/health", verify=NO_TLS).status_code == 200
        answer = httpx.get(f"{address}api/v1/ready", verify=NO_TLS)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    finally:
        program.kill()
        program.wait()


HOST = """
import asyncio, sys, structjob, uvicorn
from contextlib import asynccontextmanager
from fastapi import FastAPI
from structjob.web import app

tracker = structjob.Tracker("sqlite:///jobs.db")

@asynccontextmanager
async def lifespan(host):
    async with tracker:
        yield

host = FastAPI(lifespan=lifespan)
host.mount("/jobs", app(tracker))
log = {"version": 1, "handlers": {"file": {"class": "logging.FileHandler", "filename": "uvicorn.log"}},
       "loggers": {"uvicorn.error": {"level": "WARNING", "handlers": ["file"]}}}
uvicorn.run(host, port=int(sys.argv[1]), log_config=log)
"""


@pytest.mark.slow
def test_a_host_application_ends_though_streams_are_open(live, tmp_path):
    """Under plain uvicorn, which waits for them and tells them nothing. (R44)"""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = live.start_python(HOST, str(port))
    address = f"http://127.0.0.1:{port}/jobs/api/v1"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert httpx.get(f"{address}/health", verify=NO_TLS).status_code == 200
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with httpx.stream("GET", f"{address}/stream?last=5", verify=NO_TLS) as stream:
            lines = stream.iter_lines()
            while "hello" not in next(lines):
                pass
            program.send_signal(signal.SIGTERM)
            assert any("bye" in line for line in lines)
            program.wait(60)
        assert program.returncode in (0, -signal.SIGTERM)
        assert (live.directory / "uvicorn.log").read_text() == ""
    finally:
        program.kill()
        program.wait()


def test_nothing_of_it_is_imported_by_the_library():
    """(R46)"""
    code = (
        "import sys, structjob, structjob.tracker, structjob.reader\n"
        "print([name for name in ('fastapi', 'starlette', 'uvicorn', 'structjob.web') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert found.stdout.strip() == b"[]"
