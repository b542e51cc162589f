"""``structjob run`` in environments in which something is broken (`broken_environments`), as
figures: each program in all of them.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import broken_environments
from breakable_servers import Server
from broken_environments import ENVIRONMENTS, PROGRAMS
from trials import Outcome, Scenario, Section

_LANE = "run"


@dataclass
class Compared(Outcome):
    """What came of one program in every environment.

    Attributes:
        tried: In how many environments it was run, without structjob and by ``structjob run``.
        same: In how many it did the same both times.
        recorded: In how many of these its job was in the usual database.
        warned: In how many of these it was not, and one warning said so.
    """

    tried: int
    same: int
    recorded: int
    warned: int

    def cells(self) -> tuple[str, ...]:
        return self.scenario, *(
            str(number) for number in (self.tried, self.same, self.recorded, self.warned)
        )


def _summary(outcomes: Sequence[Compared]) -> str:
    tried, same = (
        sum(outcome.tried for outcome in outcomes),
        sum(outcome.same for outcome in outcomes),
    )
    most = max((outcome.tried for outcome in outcomes), default=0)
    return f"{most} environments, {len(outcomes)} programs, {tried} runs; {tried - same} differ from a run without structjob."


SECTION = Section(
    "environments",
    ("The program", "Environments", "Same as alone", "Recorded", "Not recorded"),
    1,
    _summary,
)


def compare(program: str) -> Compared:
    """Run a program in every environment, without structjob and by ``structjob run``."""
    tried = same = recorded = 0
    problems: list[str] = []
    for broken in ENVIRONMENTS:
        try:
            compared = broken_environments.try_in(broken, PROGRAMS[program])
        except subprocess.TimeoutExpired as exc:
            tried += 1
            how = "by structjob run" if "run" in exc.cmd else "alone"
            problems.append(f"{broken.name}: {how}, it had not ended after {exc.timeout:.0f} s")
            continue
        if compared is None:
            continue
        tried += 1
        differences = compared.differences(broken)
        problems += [f"{broken.name}: {difference}" for difference in differences]
        same += not differences
        recorded += not differences and compared.recorded
    return Compared(program, _LANE, tried, same, recorded, same - recorded, problems=problems)


def scenarios() -> list[Scenario]:
    """Return each of the programs, to be run in every environment."""

    def of(program: str) -> Scenario:
        async def placed(directory: Path, server: Server | None) -> Outcome:
            return await asyncio.to_thread(compare, program)

        return Scenario(SECTION, program, _LANE, placed)

    return [of(program) for program in PROGRAMS]
