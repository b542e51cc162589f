"""Progress bars: one for each running step, and one for each job that reported a percentage.

A task on the tracker's loop draws them, and it runs even if the loop is busy; in code without a
loop a thread does. Text that is logged
or printed in the meantime appears above the bars; see `structjob.sinks.terminal`. Without a
terminal, a line at intervals reports the progress of each bar, and a last line its outcome.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Self

from rich.cells import cell_len, set_cell_size

from structjob.diagnostics import diagnostics
from structjob.sinks.terminal import Terminal, is_terminal, share
from structjob.text.amounts import percent_of, units, whole_percent
from structjob.text.escaping import escape

if TYPE_CHECKING:
    from structjob.lifecycle.job_core import JobCore
    from structjob.lifecycle.shared import OpenStep

DRAW_EVERY = 0.1
"""Minimum seconds between two updates of the bars. An update takes at most 1/`_SHARE` of the
time.
"""

SAY_INTERVAL = 10.0
"""Seconds between two lines about a step, without a terminal."""

_SHARE = 50
_LABEL_LIMIT = 200
"""Maximum characters of a name and a description that are used."""

_BAR_WIDTH, _LEAST_BAR = 24, 14
_LEAST_LABEL = 16
_WINDOW = 30.0
"""The time window for the estimate of the time left, in seconds."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The progress of one job or step, or of several with the same name.

    Args:
        path: The labels of its parents, and its own label.
        depth: Level of indentation: below its job, or below another step.
        done: Number of units done, or the percentage.
        total: Number of units to process; None if it is not known.
        units: Whether *done* and *total* are units, not a percentage.
        began: Start time, on the monotonic clock.
        cores: The job or step, or all of those that the bar adds up.
    """

    path: tuple[str, ...]
    depth: int
    done: float
    total: float | None
    units: bool
    began: float
    cores: tuple[JobCore | OpenStep, ...]

    @property
    def name(self) -> str:
        """The displayed name."""
        return self.path[-1] if len(self.cores) == 1 else f"{self.path[-1]} ×{len(self.cores)}"


def bars_of(jobs: set[JobCore]) -> Iterator[Bar]:
    """Yield the bars of the running *jobs*, the oldest first, each above the bars of its steps."""
    for job in sorted(jobs.copy(), key=lambda job: job.shared.created):
        shown = job.percent is not None
        above = (label(job.operation, job.description),)
        if shown:
            yield Bar(
                above, 0, job.percent or 0.0, 100.0, units=False, began=job.began, cores=(job,)
            )
        places: dict[str | None, tuple[tuple[str, ...], int]] = {None: (above, int(shown) - 1)}
        for step in list(job.shared.open.values()):
            path, depth = places.get(step.parent_step_id, places[None])
            path, depth = places[step.id] = (*path, label(step.name, step.description)), depth + 1
            done, total, counted = step.completed, step.total or None, True
            if total is None and step.percent is not None:
                done, total, counted = step.percent, 100.0, False
            yield Bar(path, depth, done, total, counted, step.began, (step,))


def label(name: str, description: str | None) -> str:
    """Return the label of a job or step: its name and description.

    The name is left out if the description starts with it.
    """
    if not description:
        return name[:_LABEL_LIMIT]
    first = description.lstrip().split("\n", 1)[0]
    return (first if first.startswith(name) else f"{name} {first}")[:_LABEL_LIMIT]


def folded(bars: Iterable[Bar]) -> list[Bar]:
    """Return *bars*, with bars of the same name and the same parents added up to one."""
    groups: dict[tuple[tuple[str, ...], int, bool], list[Bar]] = {}
    for bar in bars:
        groups.setdefault((bar.path, bar.depth, bar.units), []).append(bar)
    return [group[0] if len(group) == 1 else _sum(group) for group in groups.values()]


def _sum(group: list[Bar]) -> Bar:
    first = group[0]
    done = sum(bar.done for bar in group)
    total = (
        None if any(bar.total is None for bar in group) else sum(bar.total or 0.0 for bar in group)
    )
    if not first.units:
        done, total = done / len(group), 100.0
    cores = tuple(core for bar in group for core in bar.cores)
    return Bar(
        first.path, first.depth, done, total, first.units, min(bar.began for bar in group), cores
    )


class Bars:
    """The return value of `Tracker.progress_bars`. It shows the running work during its ``async
    with`` or ``with`` block.
    """

    def __init__(self, jobs: set[JobCore], stream: IO[str] | None) -> None:
        self._jobs = jobs
        self._stream = stream
        self._view: _Rows | _Lines | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    async def __aenter__(self) -> Self:
        if self._opened():
            # The task has a context of its own, because its events belong to no job.
            self._task = asyncio.create_task(
                self._keep_drawing(), name="structjob-bars", context=contextvars.Context()
            )
        return self

    def __enter__(self) -> Self:
        if self._opened():
            self._thread = threading.Thread(
                target=self._draw_in_thread, name="structjob-bars", daemon=True
            )
            self._thread.start()
        return self

    def _opened(self) -> bool:
        stream = self._stream if self._stream is not None else sys.stderr
        if stream is None:  # a process without a console
            return False
        self._view = _Rows(stream, self._jobs) if is_terminal(stream) else _Lines(stream)
        return True

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if self._task is not None:
            self._task.cancel()
        self._close()

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._close()

    def _close(self) -> None:
        if self._view is not None:
            with suppress(OSError, ValueError):
                self._draw()
            self._view.close()

    def _draw(self) -> None:
        """Show the current progress."""
        if self._view is not None:
            self._view.draw(folded(bars_of(self._jobs)))

    async def _keep_drawing(self) -> None:
        with self._last_drawing():
            while True:  # noqa: ASYNC110 -- it draws, and waits for no event
                await asyncio.sleep(self._drawn())

    def _draw_in_thread(self) -> None:
        with self._last_drawing():
            while not self._over.wait(self._drawn()):
                pass

    def _drawn(self) -> float:
        """Show the current progress, and return the seconds until the next time."""
        began = time.perf_counter()
        self._draw()
        return max(DRAW_EVERY, _SHARE * (time.perf_counter() - began))

    @contextmanager
    def _last_drawing(self) -> Iterator[None]:
        """Show no more bars after an error."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 -- the display must not end the work
            diagnostics.warning("progress bars are switched off after an error: %r", exc)
            if self._view is not None:
                self._view.close()


class _Rows:
    """Rows at the bottom of a terminal."""

    def __init__(self, stream: IO[str], jobs: set[JobCore]) -> None:
        self._terminal: Terminal | None = share(stream)
        self._owner = ("bars", id(jobs))  # a second display of the same jobs draws the same rows
        self._colour = not os.environ.get("NO_COLOR")
        self._paces: dict[tuple[str, ...], _Pace] = {}

    def draw(self, bars: list[Bar]) -> None:
        if self._terminal is None:
            return
        size, room = self._terminal.size, self._terminal.room
        more = len(bars) - room + 1 if len(bars) > room else 0
        shown = bars[: room - 1] if more else bars
        now = time.monotonic()
        self._paces = {bar.path: self._paces.get(bar.path) or _Pace() for bar in shown}
        cells = [self._cells(bar, now) for bar in shown]
        unicode = self._terminal.unicode
        names = [
            escape(bar.name) if unicode else escape(bar.name).replace(" ×", " x") for bar in shown
        ]
        labels = [
            self._terminal.encodable(f"{'  ' * bar.depth}{name}")
            for bar, name in zip(shown, names, strict=True)
        ]
        rows = lay_out(
            shown, labels, cells, size.columns - 1, now, colour=self._colour, unicode=unicode
        )
        if more:
            rows.append(f"{'…' if unicode else '...'} and {more:,} more"[: size.columns - 1])
        self._terminal.show(self._owner, rows)

    def _cells(self, bar: Bar, now: float) -> tuple[str, str, str]:
        left = self._paces[bar.path].left(bar, now)
        return (
            amount(bar),
            _clock(now - bar.began),
            f"{_clock(left)} left" if left is not None else "",
        )

    def close(self) -> None:
        if self._terminal is not None:
            terminal, self._terminal = self._terminal, None
            terminal.close(self._owner)


@dataclass(slots=True)
class _Pace:
    """The speed of a bar within the last 30 seconds."""

    seen: deque[tuple[float, float]] = field(default_factory=deque)

    def left(self, bar: Bar, now: float) -> float | None:
        """Return the estimated seconds until *bar* is complete; None if they are not known."""
        seen = self.seen
        if seen and seen[-1][1] > bar.done:  # another job or step with the same name
            seen.clear()
        if not seen or now - seen[-1][0] >= 1.0:
            seen.append((now, bar.done))
            while len(seen) > 2 and now - seen[0][0] > _WINDOW:
                seen.popleft()
        then, done = seen[0]
        if bar.total is None or bar.done <= done or bar.done >= bar.total or now - then < 0.5:
            return None
        return min((bar.total - bar.done) * (now - then) / (bar.done - done), 359_999.0)


def lay_out(
    bars: Sequence[Bar],
    labels: Sequence[str],
    cells: Sequence[tuple[str, str, str]],
    width: int,
    now: float,
    *,
    colour: bool,
    unicode: bool,
) -> list[str]:
    """Return one row for each of *bars*, *width* cells at most.

    A row consists of the label, the bar, and the *cells*: the amount, the time taken, and the time
    left.
    """
    columns = [max((len(cell[index]) for cell in cells), default=0) for index in range(3)]
    wanted = max((cell_len(each) for each in labels), default=0)
    least = min(wanted, _LEAST_LABEL)
    long = _BAR_WIDTH

    def rest() -> int:
        return width - sum(each + 2 for each in (long, *columns) if each)

    if rest() < wanted:
        long = max(_LEAST_BAR, long - (wanted - rest()))
    for index in (2, 1):
        if rest() < least:
            columns[index] = 0
    if rest() < least:
        long = 0
    if rest() < min(least, 4):
        columns[0] = 0
    room = max(min(wanted, rest()), 1)
    rows = []
    for bar, name, texts in zip(bars, labels, cells, strict=True):
        parts = [set_cell_size(name, room) if cell_len(name) <= room else _cut(name, room, unicode)]
        if long:
            parts.append(drawn(bar, long, now, colour=colour, unicode=unicode))
        plain = [f"{text:>{column}}" for text, column in zip(texts, columns, strict=True) if column]
        if colour and len(plain) > 1:
            plain[1:] = [f"\x1b[90m{text}\x1b[0m" for text in plain[1:]]
        rows.append("  ".join((*parts, *plain)).rstrip())
    return rows


def drawn(bar: Bar, width: int, now: float, *, colour: bool, unicode: bool) -> str:
    """Return the bar as text. If the end is not known, a part of the bar moves back and forth."""
    full, empty = ("━", "─") if unicode else ("#", "-")
    percent = None if bar.total is None else percent_of(bar.done, bar.total)
    if percent is None:
        piece = max(width // 4, 1)
        way = width - piece
        at = int((now - bar.began) * 8) % (2 * way) if way else 0
        before, filled = min(at, 2 * way - at), piece
    else:
        before, filled = 0, int(width * max(percent, 0.0) / 100)
    after = width - before - filled
    if not colour:
        return empty * before + full * filled + empty * after
    done = "32" if percent == 100 else "34"
    pieces = ((empty * before, "90"), (full * filled, done), (empty * after, "90"))
    return "".join(f"\x1b[{code}m{text}\x1b[0m" for text, code in pieces if text)


class _Lines:
    """A line at intervals and one at the end, for an output that is not a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._said: dict[tuple[str, ...], tuple[float, float, bool]] = {}
        self._last: dict[tuple[str, ...], Bar] = {}

    def draw(self, bars: list[Bar]) -> None:
        now = time.monotonic()
        current = {bar.path: bar for bar in bars}
        for path in self._last.keys() - current.keys():
            _, _, said = self._said.pop(path)
            bar = self._last.pop(path)
            if said or now - bar.began >= SAY_INTERVAL:
                self._say(f"{bar.name}: {_ended(bar, now)}")
        for path, bar in current.items():
            when, done, said = self._said.setdefault(path, (now, 0.0, False))
            self._last[path] = bar
            if now - when >= SAY_INTERVAL and bar.done != done:
                self._said[path] = (now, bar.done, True)
                self._say(f"{bar.name}: {amount(bar)}")

    def _say(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(
            escape(text).encode(encoding, "backslashreplace").decode(encoding) + "\n"
        )
        self._stream.flush()

    def close(self) -> None:
        """Stop writing lines. The last line of each job or step has already been written."""
        self._said.clear()
        self._last.clear()


def _ended(bar: Bar, now: float) -> str:
    """Return the outcome of the jobs or steps of *bar*, which is their last seen state."""
    if len(bar.cores) > 1:
        counts: dict[str, int] = {}
        for core in bar.cores:
            status = str(core.status) if core.status is not None else "running"
            counts[status] = counts.get(status, 0) + 1
        return ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    core = bar.cores[0]
    if bar.units:
        bar = replace(
            bar,
            done=getattr(core, "completed", bar.done),
            total=getattr(core, "total", None) or None,
        )
    elif core.percent is not None:
        bar = replace(bar, done=core.percent)
    seconds = core.duration_ms / 1000 if core.duration_ms is not None else now - bar.began
    return f"{amount(bar)}, {core.status} after {_clock(seconds)}".removeprefix(", ")


def amount(bar: Bar) -> str:
    """Return the amount done as text. It is 100 % only if everything is done."""
    if not bar.units:
        return f"{whole_percent(bar.done)}%"
    if bar.total is None:
        return units(bar.done) if bar.done else ""
    return f"{units(bar.done)}/{units(bar.total)} {whole_percent(percent_of(bar.done, bar.total))}%"


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _cut(text: str, room: int, unicode: bool) -> str:
    return set_cell_size(text, room - 1) + ("…" if unicode else ".")
