"""The display of the running demo: the log, and on a terminal progress bars below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, TextIO

from structjob.cli.demo.workload import FILES, Part
from structjob.cli.lines import width
from structjob.cli.screen import coloured, console, is_terminal
from structjob.text.appearance import symbol
from structjob.text.rendering import Lines

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from structjob.sinks.sink import SinkEvent


class DemoView:
    """A sink of the log and a view of the work in one.

    On a terminal both share the screen, so one object must draw them.

    Args:
        stream: The output stream.
        bars: Whether to show bars.
    """

    level = "info"

    def __init__(self, stream: TextIO, *, bars: bool) -> None:
        self._stream = stream
        self._console = console(stream)
        self._lines = Lines(
            color=coloured(stream),
            clock_only=True,
            places=False,
            width=width if is_terminal(stream) else None,
        )
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._all: TaskID | None = None
        if bars:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._progress = Progress(
                TextColumn("{task.fields[sign]}"),
                TextColumn("{task.description:<12}", markup=False),
                BarColumn(28, style="bright_black", complete_style="blue", finished_style="green"),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
                refresh_per_second=12,
            )

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    # -- a sink
    # --------------------------------------------------------------------------

    def emit(self, record: SinkEvent) -> None:
        """Show *record*, unless it is about a single file or about progress that a bar shows."""
        kind = record.kind
        if (
            record.logger == FILES
            or kind.startswith("step_")
            or (kind.startswith("operation_") and "parent_job_id" in record.ids)
        ):
            return
        text = self._lines.render(record)
        if self._progress is None:
            print(text, file=self._stream, flush=True)
            return
        from rich.text import Text

        self._console.print(Text.from_ansi(text), soft_wrap=True)

    # -- a view
    # --------------------------------------------------------------------------

    def begin(self, parts: Sequence[Part]) -> None:
        if self._progress is None:
            return
        for part in parts:
            self._tasks[part.name] = self._progress.add_task(
                part.name, total=2 * len(part.files), sign=symbol("running"), note="copy"
            )
        self._all = self._progress.add_task(
            "all", total=sum(2 * len(part.files) for part in parts), sign=" ", note=""
        )

    def advance(self, part: str) -> None:
        if self._progress is None:
            return
        task = self._tasks[part]
        self._progress.advance(task)
        shown = self._progress.tasks[task]
        if shown.total is not None and shown.completed >= shown.total / 2:
            self._progress.update(task, note="verify")
        self._sum()

    def again(self, part: str) -> None:
        if self._progress is not None:
            self._progress.update(
                self._tasks[part], completed=0, sign=symbol("retrying"), note="retry"
            )
            self._sum()

    def end(self, part: str, *, ok: bool) -> None:
        if self._progress is not None:
            self._progress.update(
                self._tasks[part],
                sign=symbol("completed" if ok else "failed"),
                note="" if ok else "checksum mismatch",
            )

    def _sum(self) -> None:
        assert self._progress is not None  # noqa: S101 -- the callers check it
        if self._all is not None:
            done = sum(self._progress.tasks[task].completed for task in self._tasks.values())
            self._progress.update(self._all, completed=done)
