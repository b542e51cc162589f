"""A Galera cluster: programs that open an empty database at once on all nodes, and a node that is
killed under load.

Every node takes writes, and locks are local to a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import galera
from breakable_servers import Server
from trials import PATIENT, TESTS, Outcome, Scenario, Section

_RATE = 100
_PROGRAMS = 6
_EVENTS = 200


@dataclass
class Clustered(Outcome):
    """What came of programs on several nodes.

    Attributes:
        tried: How often.
        offered: Events that the programs logged.
        stored: Different events of theirs that the cluster holds.
        duplicated: Rows beyond the first of an event.
        opening: Seconds of the tracker that took longest to open.
        late: Seconds by which the events of programs on nodes that lived were late at worst.
    """

    tried: int
    offered: int
    stored: int
    duplicated: int
    opening: float
    late: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stored != self.offered:
            self.problems.append(f"{self.offered - self.stored} events are lost")
        if self.duplicated:
            self.problems.append(f"{self.duplicated} events are duplicated")

    def cells(self) -> tuple[str, ...]:
        numbers = (
            self.tried,
            self.offered,
            self.stored,
            self.offered - self.stored,
            self.duplicated,
        )
        late = f"{self.late:.1f} s" if self.late is not None else "–"
        return self.scenario, *(f"{number:,}" for number in numbers), f"{self.opening:.1f} s", late


def _summary(outcomes: Sequence[Clustered]) -> str:
    return (
        f"{sum(outcome.offered for outcome in outcomes):,} events offered, {sum(outcome.stored for outcome in outcomes):,} stored, "
        f"{sum(outcome.duplicated for outcome in outcomes):,} stored twice. Three nodes on one machine."
    )


SECTION = Section(
    "clusters",
    (
        "What happens",
        "Tried",
        "Offered",
        "Stored",
        "Lost",
        "Duplicated",
        "Latest opening",
        "Delivery late by",
    ),
    1,
    _summary,
)


class Program:
    """A program that opens a tracker when it is told to."""

    def __init__(self, spool: Path) -> None:
        self._console = spool.with_suffix(".console")
        with self._console.open("w") as console:
            self._process = subprocess.Popen(
                [sys.executable, TESTS / "programs" / "rounds.py", spool],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console, text=True,
            )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self._process.kill()
            raise RuntimeError(
                f"a program ended too early: {line}{self._console.read_text()[-3000:]}"
            ) from None
        return answer

    def begin(self, url: str, events: int, rate: int = 0) -> None:
        """Let it log so many events on the database at *url*, *rate* a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"url": url, "events": events, "rate": rate}) + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.read()
        self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def programs(directory: Path, number: int) -> Iterator[list[Program]]:
    """Give so many programs, each with a spool of its own."""
    started = [Program(directory / f"spool{index}") for index in range(number)]
    try:
        for program in started:
            program.answer()  # it is ready
        yield started
    finally:
        for program in started:
            program.end()


def open_at_once(cluster: galera.Cluster, directory: Path, rounds: int) -> Clustered:
    """Let two programs on each node begin at the same moment, on an empty database; so
    many times.
    """
    stored = duplicated = 0
    opening = 0.0
    said: list[str] = []
    problems: list[str] = []
    with programs(directory, _PROGRAMS) as begun:
        for number in range(rounds):
            urls = cluster.create(f"round{number}")
            for index, program in enumerate(begun):
                program.begin(urls[index % len(urls)], _EVENTS)
            answers = [program.answer() for program in begun]
            problems += [problem for answer in answers for problem in _problems(answer, _EVENTS)]
            said += [message for answer in answers for message in answer["said"]]
            opening = max([opening, *(answer.get("opened", 0.0) for answer in answers)])
            found = _stored(cluster.nodes[2], f"round{number}")
            stored, duplicated = stored + found[0], duplicated + found[1]
    # A program that waits for the others, which create the tables, may say that it waits.
    problems += [f"a program heard: {message}" for message in said if not PATIENT.search(message)]
    name = f"{_PROGRAMS} programs open an empty database at once"
    return Clustered(
        name,
        "galera",
        rounds,
        rounds * _PROGRAMS * _EVENTS,
        stored,
        duplicated,
        opening,
        said=said,
        problems=problems,
    )


def kill_a_node(cluster: galera.Cluster, directory: Path) -> Clustered:
    """Kill one of the nodes while a program logs to each of them, and start it again."""
    urls, each = cluster.create("killed"), 600
    with programs(directory, len(urls)) as begun:
        for url, program in zip(urls, begun, strict=True):
            program.begin(url, each, rate=_RATE)
        opened = [program.answer()["open"] for program in begun]
        time.sleep(1)
        cluster.nodes[2].kill()
        cluster.wait_for(2)
        cluster.nodes[2].start()  # the cluster goes on meanwhile; so does the program on this node
        answers = [program.answer() for program in begun]
    cluster.wait_for(3)
    problems = [problem for answer in answers for problem in _problems(answer, each)]
    found = {_stored(node, "killed") for node in cluster.nodes}
    if len(found) > 1:
        problems.append(f"the nodes hold different events: {found}")
    ((stored, duplicated), *_) = found
    late = max(answer.get("lateness", 0.0) for answer in answers[:2])
    said = [message for answer in answers for message in answer["said"]]
    name = "a node is killed under load (kill -9), and started"
    return Clustered(
        name,
        "galera",
        1,
        len(urls) * each,
        stored,
        duplicated,
        max(opened),
        late,
        said=said,
        problems=problems,
    )


def _problems(answer: dict[str, Any], events: int) -> list[str]:
    if "fault" in answer:
        return [f"a program failed: {answer['fault']}"]
    expected = {"stored": events, "status": "completed", "complete": True}
    return [
        f"{name} is {answer[name]!r} in place of {value!r}"
        for name, value in expected.items()
        if answer[name] != value
    ]


def _stored(node: galera.Node, database: str) -> tuple[int, int]:
    """Return how many different events of the programs a node holds, and how many rows there are
    beyond them.
    """
    count = "SELECT count(*), count(DISTINCT job_id, JSON_VALUE(attrs, '$.number')) FROM structjob_logs WHERE kind = 'log'"
    rows, different = map(
        int, node.sql(f"SET wsrep_sync_wait = 1; {count}", database=database).split()
    )
    return different, rows - different


def scenarios(rounds: int) -> list[Scenario]:
    """Return everything that is tried, each on a cluster of its own."""

    def on_cluster(name: str, run: Callable[[galera.Cluster, Path], Clustered]) -> Scenario:
        def clustered(directory: Path) -> Clustered:
            with galera.running() as cluster:
                return run(cluster, directory)

        async def placed(directory: Path, server: Server | None) -> Outcome:
            return await asyncio.to_thread(clustered, directory)

        return Scenario(SECTION, name, "galera", placed)

    return [
        on_cluster(
            "programs open at once",
            lambda cluster, directory: open_at_once(cluster, directory, rounds),
        ),
        on_cluster("a node is killed", kill_a_node),
    ]
