"""Breaks things on purpose and counts what is lost.

A program (``programs/producer.py``) logs while something is done to its database, or to itself;
then an oracle compares what it was promised with what is stored. The scenarios are in modules of
their own; tests run them once. As a command, this runs all of them, on each database, with as many
kills as it is told, prints what it found, and puts the tables into ``docs/reliability.md``::

    python tests/reliability.py --kills 200 --write
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(1, str(Path(__file__).parent.parent))

import clusters
import endurance
import environments
import losses
import replacements
from breakable_servers import SERVERS, Server, ServerMissing
from trials import TESTS, Outcome, Scenario, Section

SECTIONS = (
    endurance.SECTION,
    losses.SECTION,
    replacements.SECTION,
    clusters.SECTION,
    environments.SECTION,
)
_LONGEST = 300
DOCUMENT = TESTS.parent / "docs" / "reliability.md"


def scenarios(kills: int, events: int, rounds: int) -> list[Scenario]:
    """Return everything that is tried.

    Args:
        kills: Programs to kill on each database.
        events: Events of each of the programs that log at once.
        rounds: Databases that programs open at once on a cluster.
    """
    return [
        *endurance.scenarios(kills, events),
        *losses.scenarios(),
        *replacements.scenarios(),
        *clusters.scenarios(rounds),
        *environments.scenarios(),
    ]


def table(
    section: Section, outcomes: Iterable[tuple[Scenario, Outcome]], order: Sequence[str]
) -> str:
    """Return the outcomes of a section as a table of Markdown."""
    rows = [section.head]
    for _, outcome in sorted(
        outcomes, key=lambda pair: (pair[1].scenario, order.index(pair[0].lane))
    ):
        cells = outcome.cells()
        rows.append((*cells, *["–"] * (len(section.head) - len(cells))))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(
        [
            lines[0],
            "|" + "---|" * section.left + "---:|" * (len(section.head) - section.left),
            *lines[1:],
        ]
    )


def report(
    section: Section, outcomes: Sequence[tuple[Scenario, Outcome]], order: Sequence[str]
) -> str:
    """Return what was found in a section, as Markdown."""
    # A scenario that broke off has no figures.
    summary = section.summary([outcome for _, outcome in outcomes if type(outcome) is not Outcome])
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}."
    problems = [
        f"- {outcome.scenario}, {outcome.backend}: {problem}"
        for _, outcome in outcomes
        for problem in outcome.problems
    ]
    said = ["Not as promised:", "\n".join(problems)] if problems else []
    return "\n\n".join([f"{summary} {where}", table(section, outcomes, order), *said])


def write(path: Path, texts: dict[str, str]) -> None:
    """Put each text between the marks of its section in the document at *path*; nothing if one has
    no place.
    """
    document = path.read_text()
    for name, text in texts.items():
        begin, end = f"<!-- figures: {name}: begin -->", f"<!-- figures: {name}: end -->"
        before, found, rest = document.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(
                f"{path} has no place for the figures: it needs the lines {begin} and {end}"
            )
        document = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    path.write_text(document)


def whole(every: Iterable[Scenario], wanted: Collection[Scenario]) -> set[str]:
    """Return the sections of which every scenario is among the *wanted*: only their tables may be
    written anew.
    """
    return {section.name for section in SECTIONS} - {
        scenario.section.name for scenario in every if scenario not in wanted
    }


async def _try_all(
    lane: str, wanted: Sequence[Scenario], home: Path, outcomes: list[tuple[Scenario, Outcome]]
) -> None:
    home.mkdir(mode=0o711)
    with contextlib.ExitStack() as stack:
        server: Server | None = None
        for number, scenario in enumerate(wanted):
            directory = home / f"{number}"
            directory.mkdir(mode=0o711)
            try:
                if lane in SERVERS and server is None:
                    server = stack.enter_context(SERVERS[lane](home / "server"))
                outcome = await scenario.run(directory, server)
            except (ServerMissing, PermissionError) as exc:
                print(f"{scenario.title}, {lane}: left out: {exc}", file=sys.stderr, flush=True)
                continue
            except Exception as exc:
                print(f"{scenario.title}, {lane}: {exc}", file=sys.stderr)
                # One line of a list: the end of a program's console says most.
                outcome = Outcome(
                    scenario.name,
                    lane,
                    problems=[f"{type(exc).__name__}: {' '.join(str(exc).split())[-_LONGEST:]}"],
                )
            outcomes.append((scenario, outcome))
            print(
                f"{scenario.title}, {lane}: {'; '.join(outcome.problems) or 'as promised'}",
                file=sys.stderr,
                flush=True,
            )
            for message in outcome.said:
                print(f"    {message}", file=sys.stderr)
            if server is not None and not server.running():
                server.kill()
                server.start()


async def main(arguments: Sequence[str] | None = None) -> int:
    lanes = list(dict.fromkeys(scenario.lane for scenario in scenarios(1, 1, 1)))
    parser = argparse.ArgumentParser(description="Break things on purpose and count what is lost.")
    parser.add_argument(
        "--kills", type=int, default=20, help="programs to kill on each database (default: 20)"
    )
    parser.add_argument(
        "--events",
        type=int,
        default=20_000,
        help="events of each of the programs that log at once (default: 20,000)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        help="databases that six programs open at once on a cluster (default: 20)",
    )
    parser.add_argument(
        "--backend", choices=lanes, action="append", help="this one only; may be repeated"
    )
    parser.add_argument(
        "--only",
        default="",
        help="scenarios with this text in their name only, or in 'SECTION: name'",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"put the tables into {DOCUMENT.relative_to(TESTS.parent)}",
    )
    options = parser.parse_args(arguments)
    every = scenarios(options.kills, options.events, options.rounds)
    wanted = [
        one for one in every if options.only in one.title and one.lane in (options.backend or lanes)
    ]
    names = {one.section.name for one in wanted}
    if not wanted:
        parser.error(
            f"no scenario has {options.only!r} in its name; sections: {', '.join(section.name for section in SECTIONS)}"
        )
    if options.write and (parts := names - whole(every, wanted)):
        parser.error(
            f"--write replaces whole tables, and this is only a part of: {', '.join(sorted(parts))}; "
            "leave out --backend, and give --only nothing or a section's name"
        )
    outcomes: list[tuple[Scenario, Outcome]] = []
    with tempfile.TemporaryDirectory(prefix="structjob-") as home:
        os.chmod(home, 0o711)  # the servers run as users of their own
        # A database waits most of the time for its fault to be felt, so each lane has its turn at
        # the same time.
        try:
            of_lanes = {lane: [one for one in wanted if one.lane == lane] for lane in lanes}
            await asyncio.gather(
                *(
                    _try_all(lane, some, Path(home, lane), outcomes)
                    for lane, some in of_lanes.items()
                )
            )
        except (
            asyncio.CancelledError
        ):  # Ctrl-C: what was found so far is printed, and nothing is written
            options.write = False
    found = [
        (section, [pair for pair in outcomes if pair[0].section is section])
        for section in SECTIONS
        if section.name in names
    ]
    # A section all of which was left out, since its servers are not installed, keeps the figures
    # that it has.
    texts = {section.name: report(section, some, lanes) for section, some in found if some}
    print("\n\n".join(texts.values()))
    if options.write:
        write(DOCUMENT, texts)
    left_out = Counter(one.lane for one in wanted) - Counter(
        scenario.lane for scenario, _ in outcomes
    )
    for lane, number in left_out.items():
        print(f"{lane}: {number} scenarios were left out", file=sys.stderr)
    return int(any(outcome.problems for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
