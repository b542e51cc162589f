"""Bars for long work, below what is logged meanwhile; lines where there is no terminal (R15, R17)."""

import asyncio
import io
import re
import sys

import pytest
import structlog

import structjob
from structjob import bars

log = structlog.get_logger()


class Terminal(io.StringIO):
    """What a terminal gets."""

    def isatty(self):
        return True

    def screen(self):
        """Return what was written, without the escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())


@pytest.fixture
def connected(monkeypatch):
    """Return what makes a terminal of the program's stdout and stderr; called in the test itself, since pytest gives it others."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def connect():
        one = Terminal()
        monkeypatch.setattr(sys, "stdout", one)
        monkeypatch.setattr(sys, "stderr", one)
        return one

    return connect


def line(terminal, name):
    """Return the last bar of this name."""
    return [row.strip() for row in re.split(r"[\r\n]", terminal.screen()) if row.strip().startswith(name)][-1]


async def test_each_step_that_runs_has_a_bar(any_tracker, connected):
    """R17: with its units, below a job that told a percentage; what has ended has none any more."""
    terminal = connected()
    async with any_tracker.bars() as shown, any_tracker.job("backup") as job:
        async with job.step("discover"):
            shown.draw()
            assert re.match(r"discover .* 0:00:0\d", line(terminal, "discover"))
        job.update(percent=25)
        async with job.step("copy", total=200) as step, job.child("verify") as child, child.step("read") as inner:
            async for n in step.track(range(50)):
                if n == 40:
                    inner.advance(3.5)
            shown.draw()
        assert re.match(r"backup +━+ +25% ", line(terminal, "backup"))
        assert re.match(r"copy +━+ +50/200 25% +0:00:0\d", line(terminal, "copy"))
        assert re.match(r"read [ ━]+ 3\.5 ", line(terminal, "read"))
        before = terminal.screen().count("copy")
        shown.draw()
        assert terminal.screen().count("copy") == before
    assert sys.stderr is sys.stdout is terminal


async def test_what_is_logged_and_printed_stands_above_the_bars(tracker, connected):
    """R17, R27: no line is torn: where one begins, the bars are taken away first, and drawn anew below it."""
    terminal = connected()
    structjob.configure(console="pretty")
    async with tracker.bars() as shown, tracker.job("backup") as job, job.step("copy", total=2):
        shown.draw()
        print("printed", end=" ")
        log.info("logged", n=1)
        print("in one line")
        shown.draw()
        print("without an end", end="")
    for text in ("printed ", "logged", "in one line", "without an end"):
        assert re.search(rf"^[^━]*{text}[^━]*$", terminal.screen().replace("\r", "\n"), re.MULTILINE), text
    _, _, after = terminal.getvalue().rpartition("--:--")
    assert after.startswith("\r\x1b[2K")  # in the end the bars are wiped out, and nothing is drawn in their place
    assert not re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", after).strip()


async def test_they_are_drawn_by_themselves(tracker, connected, monkeypatch):
    """R17: whoever shows them does nothing else about it."""
    terminal = connected()
    monkeypatch.setattr(bars, "DRAW_EVERY", 0.001)
    async with tracker.bars(), tracker.job("backup") as job, job.step("copy", total=3) as step:
        async with asyncio.timeout(10):
            while "2/3 67%" not in terminal.screen():
                step.update(completed=2)
                await asyncio.sleep(0.001)


async def test_without_a_terminal_a_line_now_and_then(tracker, monkeypatch):
    """R17: a line for each step that has come further, in a pipe or a log file."""
    monkeypatch.setattr(bars, "TELL_EVERY", 0.0)
    pipe = io.StringIO()
    async with tracker.bars(pipe) as shown, tracker.job("backup") as job, job.step("copy", total=4) as step:
        for done in (0, 1, 1, 4):
            step.update(completed=done)
            shown.draw()
            shown.draw()
        job.update(percent=12.4)
        shown.draw()
    assert pipe.getvalue().splitlines() == ["copy: 1/4 25%", "copy: 4/4 100%", "backup: 12%"]


async def test_a_terminal_that_is_gone_does_not_end_the_work(tracker, monkeypatch, caplog):
    """Guarantee 3: bars are a view; a fault of theirs is told once, and nobody feels it."""
    monkeypatch.setattr(bars, "DRAW_EVERY", 0.001)

    class Gone(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    async with tracker.bars(io.StringIO()) as shown, tracker.job("backup") as job, job.step("copy", total=4) as step:
        monkeypatch.setattr(shown._screen, "draw", lambda bars: Gone().write(""))
        async with asyncio.timeout(10):
            while not shown._task.done():
                await asyncio.sleep(0.001)
        step.advance(4)
    assert (await tracker.jobs.get(job.id)).status == "completed"
    assert "bars are shown no more" in caplog.text


async def test_more_than_the_screen_holds(tracker, connected, monkeypatch):
    """R17: what does not fit is left out, and the program is not slowed by it."""
    connected()
    monkeypatch.setenv("LINES", "10")
    async with tracker.bars() as shown, tracker.job("backup") as job:
        steps = [await job.step(f"part-{n}", total=2).start() for n in range(50)]
        shown.draw()
        assert len(shown._screen._tasks) == 7
        for step in steps:
            await step.end()
