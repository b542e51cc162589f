"""Bars on the terminal for the work of this program: one for each job that told its percentage, and for each step that runs.

They are drawn by a task on the tracker's loop, which gets its turn however busy the loop is. What is logged or printed meanwhile appears
above them. Where there is no terminal, a line now and then says how far everything is.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from structjob.diagnostics import diagnostics
from structjob.sinks import escape

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from structjob.lifecycle import Job

DRAW_EVERY = 0.1
"""Seconds between two looks at what runs."""

TELL_EVERY = 10.0
"""Seconds between two lines about a step, where there is no terminal."""

_WIDTH = 24
_AROUND = 3
"""Lines of the screen that are left to what is logged."""


@dataclass(frozen=True, slots=True)
class Bar:
    """How far one job or step is.

    Args:
        id: The job's or step's id.
        name: What to call it.
        depth: How far to the right it stands: below its job, or below another step.
        done: Units done; of a percentage, the percentage.
        total: Units to do; None if that is not known.
        units: Whether these are units, and not a percentage.
    """

    id: str
    name: str
    depth: int
    done: float
    total: float | None
    units: bool


def bars_of(jobs: Iterable[Job]) -> Iterator[Bar]:
    """Yield the bars of *jobs* that run, the oldest first, each above those of its steps."""
    for job in sorted(jobs, key=lambda job: job._created_ns):
        told = job._percent is not None
        if told:
            yield Bar(job.id, job.operation, 0, job._percent or 0.0, 100.0, units=False)
        depths: dict[str | None, int] = {None: int(told) - 1}
        for step in list(job._open_steps.values()):
            depth = depths[step.id] = depths.get(step.parent_step_id, depths[None]) + 1
            if step._percent is not None and not step.total:
                yield Bar(step.id, step.name, depth, step._percent, 100.0, units=False)
            else:
                yield Bar(step.id, step.name, depth, step.done, step.total or None, units=True)


class Bars:
    """What `Tracker.bars` returns: shows what runs while its ``async with`` block does."""

    def __init__(self, jobs: set[Job], stream: IO[str] | None) -> None:
        self._jobs = jobs
        self._stream = stream
        self._screen: _Screen | _Lines | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        stream = self._stream if self._stream is not None else sys.stderr
        self._screen = _Screen(stream) if stream.isatty() else _Lines(stream)
        # In a context of its own: what it does belongs to no job.
        self._task = asyncio.create_task(self._keep_drawing(), name="structjob-bars", context=contextvars.Context())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._screen is not None:
            with suppress(OSError):
                self.draw()
            self._screen.close()

    def draw(self) -> None:
        """Show what runs now."""
        if self._screen is not None:
            self._screen.draw(list(bars_of(self._jobs)))

    async def _keep_drawing(self) -> None:
        try:
            while True:
                self.draw()
                await asyncio.sleep(DRAW_EVERY)
        except Exception as exc:  # noqa: BLE001 -- a terminal that is gone must not end the work
            diagnostics.warning("bars are shown no more: %r", exc)
            if self._screen is not None:
                self._screen.close()


class _Screen:
    """Bars at the bottom of a terminal, with whatever is printed above them."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(file=stream, force_terminal=True, markup=False, highlight=False, emoji=False, legacy_windows=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(_WIDTH, style="bright_black", complete_style="blue", finished_style="green", pulse_style="blue"),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._room = max(console.size.height - _AROUND, 1)
        self._tasks: dict[str, TaskID] = {}
        self._redirected = {name: getattr(sys, name) for name in ("stdout", "stderr") if _same_terminal(getattr(sys, name), stream)}
        self._progress.start()
        for name in self._redirected:
            setattr(sys, name, _Above(console, self._redirected[name]))

    def draw(self, bars: list[Bar]) -> None:
        progress, shown = self._progress, bars[: self._room]
        for gone in self._tasks.keys() - {bar.id for bar in shown}:
            progress.remove_task(self._tasks.pop(gone))
        for bar in shown:
            fields: dict[str, Any] = {
                "description": f"{'  ' * bar.depth}{escape(bar.name)}", "completed": bar.done, "total": bar.total, "amount": _amount(bar)
            }  # fmt: skip
            if bar.id in self._tasks:
                progress.update(self._tasks[bar.id], **fields)
            else:
                self._tasks[bar.id] = progress.add_task(**fields)
        progress.refresh()

    def close(self) -> None:
        for name, stream in self._redirected.items():
            if isinstance(above := getattr(sys, name), _Above):
                above.finish()
                setattr(sys, name, stream)
        with suppress(OSError):
            self._progress.stop()


class _Above(io.TextIOBase):
    """Stands for a stream of the terminal while bars are shown: whole lines go above them. It has no descriptor to write past it."""

    def __init__(self, console: Console, stream: IO[str]) -> None:
        self._console = console
        self._rest = ""
        self.buffer = getattr(stream, "buffer", None)
        """Who writes bytes knows what they do to the screen."""

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self._put("\n".join(lines))
        return len(text)

    def finish(self) -> None:
        """Show what no newline came after."""
        if self._rest:
            self._put(self._rest)
            self._rest = ""

    def _put(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(text), soft_wrap=True)


class _Lines:
    """A line now and then, for what is no terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._told: dict[str, tuple[float, float]] = {}

    def draw(self, bars: list[Bar]) -> None:
        now = time.monotonic()
        self._told = {bar.id: self._told.get(bar.id, (now, 0.0)) for bar in bars}
        for bar in bars:
            when, done = self._told[bar.id]
            if now - when >= TELL_EVERY and bar.done != done:
                self._told[bar.id] = (now, bar.done)
                self._stream.write(f"{escape(bar.name)}: {_amount(bar)}\n")
                self._stream.flush()

    def close(self) -> None:
        pass


def _amount(bar: Bar) -> str:
    if not bar.units:
        return f"{bar.done:.0f}%"
    done = f"{bar.done:,.0f}" if float(bar.done).is_integer() else f"{bar.done:,.1f}"
    if bar.total is None:
        return done if bar.done else ""
    return f"{done}/{bar.total:,.0f} {min(100.0, 100 * bar.done / bar.total):.0f}%"


def _same_terminal(one: Any, other: Any) -> bool:
    """Return whether both are streams of terminals, so that one would tear what the other shows."""
    try:
        return one is other or (one.isatty() and other.isatty())
    except (AttributeError, ValueError):
        return False
