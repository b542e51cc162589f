"""Whatever is done to the database or the way to it: log calls stay fast, nothing is lost, nothing
is stored twice, and delivery resumes.

The server databases here are a test's own, since they are stopped, frozen and filled up.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import losses
import pytest
import replacements
from breakable_servers import SERVERS, Server, ServerMissing
from endurance import close_frozen, crowd, endure, kill, start_without
from faults import FAULTS
from servers import absent, remove, start_private
from trials import BACKENDS, place


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the servers' own users can reach, as they cannot reach pytest's."""
    directory = Path(tempfile.mkdtemp(prefix="structjob-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    """The servers that run; one is started when it is asked for first."""
    running: dict[str, Server] = {}
    yield running
    for server in running.values():
        remove(server)


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server | None:
    """The server of the test's parameter ``backend``, ``None`` for SQLite."""
    backend = request.getfixturevalue("backend")
    if backend not in SERVERS:
        return None
    if backend not in servers:
        try:
            servers[backend] = start_private(backend)
        except ServerMissing as exc:
            absent(backend, str(exc))
    elif not servers[backend].running():  # the test before left it so
        servers[backend].kill()
        servers[backend].start()
    return servers[backend]


pytestmark = pytest.mark.timeout(300)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        pytest.param(backend, fault, id=f"{backend}: {fault}")
        for backend in BACKENDS
        for fault in FAULTS
        if backend in fault.backends
    ],
)
async def test_a_fault_costs_nothing(backend, fault, server, home):
    """A program continues to log during a fault and gets no exception; after the fault everything
    is stored, once, unchanged and in order, without any help (R29, guarantees 1, 2 and 3).
    """
    try:
        async with place(backend, home / "site", server, fault.disk) as site:
            outcome = await endure(site, fault)
    except PermissionError as exc:  # whatever the machine has to offer: that takes root
        pytest.skip(str(exc))
    assert not outcome.problems, outcome


@pytest.mark.slow
@every_backend
async def test_closing_does_not_wait_for_a_frozen_database(backend, server, home):
    """``aclose(timeout)`` ends within its time though the database is frozen, the program ends, and
    its successor delivers what was left (guarantee 6).
    """
    async with place(backend, home / "site", server) as site:
        outcome = await close_frozen(site)
    assert not outcome.problems, outcome


@pytest.mark.slow
@pytest.mark.parametrize("backend", list(SERVERS))
async def test_a_program_starts_before_its_database(backend, server, home):
    """A program whose server is down when it starts logs as ever; when the server is there
    everything is stored (R29).
    """
    async with place(backend, home / "site", server) as site:
        outcome = await start_without(site)
    assert not outcome.problems, outcome


@pytest.mark.slow
@every_backend
async def test_twenty_kills_lose_nothing(backend, server, home):
    """Programs killed at random moments have stored every event whose log call returned, once and
    unchanged, with its jobs and steps; what they left running is crashed, and says so once
    (guarantees 1 and 5, R11).
    """
    async with place(backend, home / "site", server) as site:
        outcome = await kill(site, 20, seed=20)
    assert not outcome.problems, outcome
    assert outcome.verdict.returned > 400
    assert outcome.verdict.crashes


@pytest.mark.slow
@every_backend
async def test_eight_programs_log_into_one_database(backend, server, home):
    """Eight programs that open one new database at once and log 1,000 events each store all of
    them once, and none of them hears of the others (R28); 20,000 in ``tests/reliability.py``.
    """
    async with place(backend, home / "site", server) as site:
        outcome = await crowd(site, 8, 1_000)
    assert not outcome.problems, outcome


DOUBLES = {
    ("sqlite", "restored from a backup, the program is dead"), ("sqlite", "the disk is full, and the program is killed"),
    ("sqlite", "control: killed while 8 threads log"),
}  # fmt: skip
"""What `test_losses` does with real programs."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "scenario"),
    [
        pytest.param(each.lane, each, id=f"{each.lane}: {each.name}")
        for each in losses.scenarios()
        if (each.lane, each.name) not in DOUBLES
    ],
)
async def test_verify_finds_what_was_lost(backend, scenario, server, home):
    """faults 0.1: of events that the database or the spool really lost, ``structjob verify`` finds
    each, and no other.
    """
    try:
        outcome = await scenario.run(home / "site", server)
    except PermissionError as exc:
        pytest.skip(str(exc))
    assert not outcome.problems, outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "scenario"),
    [
        pytest.param(each.lane, each, id=f"{each.lane}: {each.name}")
        for each in replacements.scenarios()
        if each.name
        in ("the file is deleted, with its log", "the database is dropped and made again")
    ],
)
async def test_a_database_is_replaced_under_load(backend, scenario, server, home):
    """faults 13: with a program that logs all the time; the other ways are in
    `test_replaced_database`.
    """
    outcome = await scenario.run(home / "site", server)
    assert not outcome.problems, outcome
