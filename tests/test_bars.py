"""Bars for long work, below what is logged meanwhile; lines where there is no terminal
(R15, R17).
"""

import asyncio
import contextlib
import io
import logging
import os
import re
import signal
import sys
import threading
import time

import pytest
import structlog
from screen import OnTerminal, Screen

import structjob
from structjob.lifecycle import bars
from structjob.sinks import terminal

log = structlog.get_logger()


class Terminal(io.StringIO):
    """What a terminal gets."""

    writes = 0

    def isatty(self):
        return True

    def write(self, text):
        self.writes += 1
        return super().write(text)

    def screen(self, columns=100, lines=24):
        """Return what a person sees; a terminal adds the carriage returns."""
        return Screen(columns, lines).feed(self.getvalue().replace("\n", "\r\n"))

    def row(self, name):
        """Return the bar of this name."""
        return next(row.strip() for row in self.screen().shown if row.strip().startswith(name))


@pytest.fixture
def connected(monkeypatch):
    """Return what makes a terminal of the program's stdout and stderr; called in the test itself,
    since pytest gives it others.
    """
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")

    def connect():
        one = Terminal()
        monkeypatch.setattr(sys, "stdout", one)
        monkeypatch.setattr(sys, "stderr", one)
        return one

    return connect


async def test_each_step_that_runs_has_a_bar(any_tracker, connected):
    """R17: with its units, below a job that reported a percentage; a step that has ended
    has none.
    """
    screen = connected()
    async with any_tracker.progress_bars() as shown, any_tracker.job("backup") as job:
        async with job.step("discover"):
            shown._draw()
            assert re.match(r"discover +[━─]+ +0:0\d$", screen.row("discover"))
        job.update(percent=25)
        async with (
            job.step("copy", total=200) as step,
            job.child("verify") as child,
            child.step("read") as inner,
        ):
            async for n in step.track(range(50)):
                if n == 40:
                    inner.advance(3.5)
            shown._draw()
        assert re.match(r"backup +━{6}─{18} +25% +0:0\d$", screen.row("backup"))
        assert re.match(r"copy +━{6}─{18} +50/200 25% +0:0\d$", screen.row("copy"))
        assert re.match(r"read +[━─]{24} +3\.5 +0:0\d$", screen.row("read"))
        shown._draw()
        assert not [row for row in screen.screen().shown if "copy" in row]
    assert sys.stderr is sys.stdout is screen
    assert screen.screen().shown == []


async def test_figures_are_rounded_down(tracker, connected):
    """faults A8: 100 % is shown where all is done, and nowhere else; parts of a unit are shown."""
    screen = connected()
    async with (
        tracker.progress_bars() as shown,
        tracker.job("a") as job,
        job.step("most", total=5080) as most,
        job.step("half", total=0.5) as half,
    ):
        most.advance(5068)
        half.advance(0.25)
        shown._draw()
        assert "5,068/5,080 99%" in screen.row("most")
        assert "0.25/0.5 50%" in screen.row("half")


async def test_bars_say_what_is_done(tracker, connected):
    """faults A8: a bar carries the description of its job or step, with the name before it unless
    the description has it.
    """
    screen = connected()
    async with (
        tracker.progress_bars() as shown,
        tracker.job("import", description="customers of monday") as job,
    ):
        job.update(percent=1)
        async with (
            job.step("parse", description="parse file-0417.csv"),
            job.step("load", description="into\nthe \x1b[31mtable"),
        ):
            shown._draw()
            assert screen.row("import customers of monday ")
            assert screen.row("parse file-0417.csv ")
            assert screen.row("load into ")


async def test_the_same_names_are_one_bar(tracker, connected):
    """faults A8: twenty steps of one name are added up; where the end of one is not known, that of
    all is not.
    """
    screen = connected()
    async with tracker.progress_bars() as shown, tracker.job("a") as job:
        steps = [await job.step("parse", total=100).start() for _ in range(20)]
        for number, step in enumerate(steps):
            step.advance(number)
        jobs = [await tracker.job("copy").__aenter__() for _ in range(2)]
        jobs[0].update(percent=10)
        jobs[1].update(percent=50)
        shown._draw()
        assert "190/2,000 9%" in screen.row("parse ×20")
        assert re.search(r" 30% ", screen.row("copy ×2"))
        open_end = await job.step("parse").start()
        shown._draw()
        assert re.match(r"parse ×21 +[━─]+ +190 +0:", screen.row("parse ×21"))
        for step in [*steps, open_end]:
            await step.end()
        for each in jobs:
            await each.end()


async def test_more_than_the_screen_holds(tracker, connected, monkeypatch):
    """faults A8: the last row says how many bars there is no room for."""
    screen = connected()
    monkeypatch.setenv("LINES", "12")
    async with tracker.progress_bars() as shown, tracker.job("backup") as job:
        steps = [await job.step(f"part-{n}", total=2).start() for n in range(59)]
        shown._draw()
        rows = screen.screen(lines=12).shown
        assert [row.split()[0] for row in rows[1:-1]] == [f"part-{n}" for n in range(8)]
        assert rows[-1] == "… and 51 more"
        for step in steps:
            await step.end()


@pytest.mark.parametrize("columns", [1, 10, 25, 40, 60, 80, 120])
async def test_no_bar_is_wider_than_the_screen(tracker, connected, monkeypatch, columns):
    """faults A8: a row that is broken into two would leave pieces behind. Letters of two cells
    count twice.
    """
    screen = connected()
    monkeypatch.setenv("COLUMNS", str(columns))
    async with tracker.progress_bars() as shown, tracker.job("a") as job:
        async with (
            job.step("名前" * 40, total=1_000_000) as step,
            job.step("short", description="x" * 300, total=7),
        ):
            step.advance(999_999)
            shown._draw()
            rows = screen.screen(columns=columns).shown
            assert len(rows) == 3
            assert columns < 60 or "99%" in rows[1]


async def test_colours(tracker, connected, monkeypatch):
    """R17: coloured unless NO_COLOR is set, and then what is done differs from what is not by its
    form.
    """
    screen = connected()
    async with (
        tracker.progress_bars() as shown,
        tracker.job("a") as job,
        job.step("copy", total=2) as step,
    ):
        step.advance()
        shown._draw()
    assert screen.screen().colours == set()
    monkeypatch.delenv("NO_COLOR")
    screen = connected()
    async with (
        tracker.progress_bars() as shown,
        tracker.job("a") as job,
        job.step("copy", total=2) as step,
    ):
        step.advance()
        shown._draw()
        assert "copy  ━━━━━━━━━━━━────────────  1/2 50%  0:00" in screen.screen().shown
    assert screen.screen().colours == {"0", "34", "90"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
async def test_a_terminal_that_knows_few_letters(tracker, monkeypatch, encoding):
    """faults A8: where the stream cannot encode the bars, they are drawn with others; nothing
    raises, and the streams come back.
    """
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    stream.isatty = lambda: True
    structjob.configure(console="pretty")
    monkeypatch.setattr(sys, "stdout", stream)
    async with tracker.progress_bars(sys.stdout) as shown, tracker.job("a") as job:
        async with job.step("prüfen", description="→ 日本", total=4) as step:
            same = [await job.step("x").start() for _ in range(2)]
            step.advance()
            print("gedruckt → 日本")
            log.info("geloggt → 日本")
            shown._draw()
            for each in same:
                await each.end()
    assert sys.stdout is stream
    text = raw.getvalue().decode(encoding)
    assert r"gedruckt \u2192 \u65e5\u672c" in text
    assert r"geloggt \u2192 \u65e5\u672c" in text
    assert re.search(r"######-{18}  1/4 25%", text)
    assert "x x2 " in text


# -- what is written meanwhile
# --------------------------------------------------------------------------


async def test_lines_are_written_once_a_frame(tracker, connected, monkeypatch):
    """faults A8: what is logged and printed within a frame reaches the terminal in one piece, in
    its order, none of it torn or lost.
    """
    screen = connected()
    structjob.configure(console="json")
    monkeypatch.setattr(terminal, "FRAME", 3600.0)
    monkeypatch.setattr(bars, "DRAW_EVERY", 3600.0)
    async with (
        tracker.progress_bars() as shown,
        tracker.job("backup") as job,
        job.step("copy", total=2),
    ):
        shown._draw()
        before = screen.writes
        for number in range(500):
            log.info("logged", n=4 * number)
            print(f'"n":{4 * number + 1}', "printed")
            print(f'"n":{4 * number + 2}', "to stderr", file=sys.stderr)
            print(f'"n":{4 * number + 3}', end="\n", flush=True)
        assert screen.writes == before
        shown._draw()
        assert screen.writes == before + 1
    written = "\n".join(screen.screen().everything)
    assert [int(number) for number in re.findall(r'"n":(\d+)', written)] == list(range(2000))


async def test_what_is_logged_and_printed_stands_above_the_bars(tracker, connected):
    """R17, R27: no line is torn, and nothing is left of the bars in the end."""
    screen = connected()
    structjob.configure(console="pretty")
    async with (
        tracker.progress_bars() as shown,
        tracker.job("backup") as job,
        job.step("copy", total=2),
    ):
        shown._draw()
        print("printed", end=" ")
        log.info("logged", n=1)
        print("in one line")
        shown._draw()
        print("without an end", end="")
        shown._draw()
        rows = screen.screen().shown
        assert rows[-1].startswith("copy ")
        assert rows[-2] == ""
    everything = screen.screen().everything
    assert [row for row in everything if row.startswith("without an end")]
    assert not [row for row in everything if "━" in row]
    for text in ("printed ", "logged", "in one line"):
        assert [row for row in everything if text in row], text


async def test_text_that_is_flushed_is_shown_at_once(tracker, connected, monkeypatch):
    """faults A8: a prompt, or a row of dots, has no newline; it stands above the bars, and text
    goes on behind it.
    """
    screen = connected()
    monkeypatch.setattr(terminal, "FRAME", 3600.0)
    monkeypatch.setattr(bars, "DRAW_EVERY", 3600.0)
    async with (
        tracker.progress_bars() as shown,
        tracker.job("backup") as job,
        job.step("copy", total=2),
    ):
        shown._draw()
        print("before")
        print("Go on? ", end="", flush=True)
        seen = screen.screen()
        assert seen.shown[:2] == ["before", "Go on?"]
        assert (seen.x, seen.y) == (7, 1)  # where the answer is typed
        assert seen.shown[2].startswith("copy ")
        for _ in range(95):
            print(".", end="", flush=True)
        shown._draw()
        rows = screen.screen().shown
        assert rows[1] == "Go on? " + 93 * "."
        assert rows[2] == ".."
        assert rows[3].startswith("copy ")


async def test_everything_that_knows_the_terminal_is_held(tracker, connected):
    """faults A8: a handler of `logging`, a console on a stream of its own, and structlog's loggers,
    made before: no line is torn.
    """
    screen = connected()
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("lib")
    logger.addHandler(handler)
    try:
        structjob.configure(console=sys.stderr, stdlib=False)
        chain = [structjob.processors.record_event, structlog.processors.KeyValueRenderer()]
        printing = structlog.wrap_logger(
            structlog.PrintLogger(), processors=chain, wrapper_class=structlog.BoundLogger
        )
        async with (
            tracker.progress_bars() as shown,
            tracker.job("backup") as job,
            job.step("copy", total=2),
        ):
            for number in range(3):
                shown._draw()
                logger.warning("by logging %d", number)
                log.info("by structjob", n=number)
                printing.info("by structlog", n=number)
                printing.info("once more", n=number)
            assert handler.stream is not screen
        assert handler.stream is screen
    finally:
        logger.removeHandler(handler)
    rows = [row for row in screen.screen().everything if "by " in row or "once more" in row]
    assert not [row for row in screen.screen().everything if "━" in row or "─" in row]
    for number in range(3):
        assert f"by logging {number}" in rows
    order = [
        (
            "by logging" in row,
            "by structjob" in row,
            "by structlog" in row,
            "once more" in row,
        ).index(True)
        for row in rows
    ]
    assert order == [0, 1, 2, 3] * 3


async def test_streams_have_their_descriptors(tracker, tmp_path, monkeypatch):
    """faults A8: code that asks for a descriptor gets the terminal's, after what was written
    before.
    """
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as stream, os.fdopen(master, "rb", buffering=0) as reader:
        monkeypatch.setattr(terminal, "FRAME", 3600.0)
        async with tracker.progress_bars(stream):
            monkeypatch.setattr(sys, "stdout", stream)
        async with tracker.progress_bars(stream) as shown:
            shown._draw()
            print("first")
            assert sys.stdout.fileno() == stream.fileno()
            os.write(sys.stdout.fileno(), b"second\n")
            print("third")
            sys.stdout.buffer.write(b"fourth\n")
            sys.stdout.buffer.flush()
        seen = ""
        while "fourth" not in seen:
            seen += reader.read(4096).decode()
    assert re.findall("first|second|third|fourth", seen) == ["first", "second", "third", "fourth"]


async def test_threads_lose_nothing(tracker, connected):
    """faults A8: lines of many threads are all there, each whole."""
    screen = connected()
    async with (
        tracker.progress_bars() as shown,
        tracker.job("backup") as job,
        job.step("copy", total=2),
    ):

        def write(name):
            for n in range(500):
                sys.stdout.write(f"<{name}-{n}>\n")

        threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            shown._draw()
            await asyncio.sleep(0)
    assert sorted(
        re.findall(r"^<(\d-\d+)>$", "\n".join(screen.screen().everything), re.MULTILINE)
    ) == sorted(f"{name}-{n}" for name in range(8) for n in range(500))


# -- and gone
# --------------------------------------------------------------------------


async def test_they_are_drawn_by_themselves(tracker, connected, monkeypatch):
    """R17: the bars are drawn without any further call."""
    screen = connected()
    monkeypatch.setattr(bars, "DRAW_EVERY", 0.001)
    async with (
        tracker.progress_bars(),
        tracker.job("backup") as job,
        job.step("copy", total=3) as step,
    ):
        async with asyncio.timeout(60):
            while "2/3 66%" not in screen.getvalue():
                step.update(completed=2)
                await asyncio.sleep(0.001)


async def test_streams_come_back_however_it_ends(tracker, connected):
    """faults A8: after an exception, after a cancellation, and where one view ends within another,
    or before it.
    """
    screen = connected()
    with pytest.raises(ZeroDivisionError):
        async with tracker.progress_bars():
            raise ZeroDivisionError
    assert sys.stdout is sys.stderr is screen

    async def shows():
        async with tracker.progress_bars():
            await asyncio.Event().wait()

    task = asyncio.create_task(shows())
    await asyncio.sleep(0)
    assert sys.stdout is not screen
    task.cancel()
    await asyncio.wait([task])
    assert sys.stdout is sys.stderr is screen

    one, other = tracker.progress_bars(), tracker.progress_bars()
    await one.__aenter__()
    await other.__aenter__()
    async with tracker.job("backup") as job, job.step("copy", total=2):
        one._draw()
        other._draw()
        assert len([row for row in screen.screen().shown if row.startswith("copy ")]) == 1
        await one.__aexit__(None, None, None)
        print("still above")
        other._draw()
    await other.__aexit__(None, None, None)
    assert sys.stdout is sys.stderr is screen
    assert [row for row in screen.screen().everything if row] == ["still above"]


async def test_who_kept_a_stream_can_go_on_with_it(tracker, connected):
    """faults A8: what others put in the place of stdout stays there, and what they keep of ours
    passes on to the terminal.
    """
    screen = connected()
    async with tracker.progress_bars():
        kept = sys.stdout
        handler = logging.StreamHandler()
        other = sys.stdout = io.StringIO()
    assert sys.stdout is other
    kept.write("through\n")
    kept.flush()
    handler.handle(logging.makeLogRecord({"msg": "by a handler"}))
    assert [row for row in screen.screen().everything if row] == ["through", "by a handler"]


async def test_a_terminal_that_is_gone_does_not_end_the_work(tracker, monkeypatch, caplog):
    """Guarantee 3, faults A8: one warning; the streams come back, and no print raises in place of
    it.
    """
    monkeypatch.setenv("TERM", "xterm")

    class Gone(Terminal):
        gone = False

        def write(self, text):
            if self.gone:
                raise OSError(5, "Input/output error")
            return super().write(text)

    monkeypatch.setattr(bars, "DRAW_EVERY", 0.001)
    monkeypatch.setattr(terminal, "FRAME", 0.0)
    stream = Gone()
    monkeypatch.setattr(sys, "stdout", stream)
    async with (
        tracker.progress_bars(stream),
        tracker.job("backup") as job,
        job.step("copy", total=4) as step,
    ):
        stream.gone = True
        print("unseen")
        async with asyncio.timeout(60):
            while sys.stdout is not stream:
                await asyncio.sleep(0.001)
        step.advance(4)
    assert (await tracker.jobs.get(job.id)).status == "completed"
    assert [
        record.getMessage() for record in caplog.records if "switched off" in record.getMessage()
    ] == ["progress bars are switched off after an error: OSError(5, 'Input/output error')"]


# -- no terminal
# --------------------------------------------------------------------------


async def test_without_a_terminal_a_line_now_and_then(tracker, monkeypatch):
    """R17: a line for each step that has come further, in a pipe or a log file; faults A8: and one
    that says how it ended.
    """
    monkeypatch.setattr(bars, "SAY_INTERVAL", 0.0)
    pipe = io.StringIO()
    async with tracker.progress_bars(pipe) as shown:
        with contextlib.suppress(ZeroDivisionError):
            async with tracker.job("backup") as job:
                async with job.step("copy", total=4) as step:
                    for done in (0, 1, 1, 3):
                        step.update(completed=done)
                        shown._draw()
                        shown._draw()
                    step.advance()
                job.update(percent=12.4)
                both = [await job.step("verify", total=2).start() for _ in range(2)]
                both[0].advance()
                shown._draw()
                await both[0].end("failed")
                await both[1].end()
                shown._draw()
                raise ZeroDivisionError
    assert pipe.getvalue().splitlines() == [
        "copy: 1/4 25%",
        "copy: 3/4 75%",
        "copy: 4/4 100%, completed after 0:00",
        "backup: 12%",
        "verify ×2: 1/4 25%",
        "verify ×2: 1 completed, 1 failed",
        "backup: 12%, failed after 0:00",
    ]


async def test_short_work_is_not_told_without_a_terminal(tracker):
    """faults A8: the log says of each step that it ended; only what took long enough for a line has
    a last one.
    """
    pipe = io.StringIO()
    async with tracker.progress_bars(pipe) as shown, tracker.job("backup") as job:
        async with job.step("copy", total=4):
            shown._draw()
    assert pipe.getvalue() == ""


async def test_a_dumb_terminal_gets_lines(tracker, monkeypatch):
    """R17: one that cannot move its cursor."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(bars, "SAY_INTERVAL", 0.0)
    stream = Terminal()
    async with (
        tracker.progress_bars(stream) as shown,
        tracker.job("backup") as job,
        job.step("copy", total=4) as step,
    ):
        step.advance()
        shown._draw()
        assert stream.getvalue() == "copy: 1/4 25%\n"


# -- programs on a terminal
# --------------------------------------------------------------------------

PROGRAM = """
import asyncio, logging, os, signal, sys, time
import structjob, structlog
structjob.configure(console="json")
log = structlog.get_logger()
async def main():
    async with structjob.Tracker("sqlite:///{path}/jobs.db") as tracker, tracker.progress_bars():
        async with tracker.job("backup") as job, job.step("copy", total=10) as step:
            {body}
asyncio.run(main())
"""


@pytest.fixture
def on_terminal(tmp_path):
    """Return what starts a program with bars, whose body is given, on a terminal."""
    started = []

    def start(*body, **how):
        program = PROGRAM.format(path=tmp_path, body="\n            ".join(body))
        started.append(OnTerminal([sys.executable, "-c", program], **how))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_a_prompt_is_answered_below_the_log_and_above_the_bars(on_terminal):
    """faults A8: `input()` in a thread while lines are logged, and in the loop itself."""
    program = on_terminal(
        "answer = asyncio.create_task(asyncio.to_thread(input, 'In a thread? '))",
        "while not answer.done():",
        "    await asyncio.sleep(0.05)",
        "log.info('answered', to=answer.result())",
        "log.info('and', to=input('In the loop? '))",
    )
    program.until("In a thread?")
    program.until("0/10 0%")
    program.type("yes\n")
    program.until("In the loop?")
    program.type("no\n")
    assert program.wait() == 0
    rows = program.screen.everything
    assert "In a thread? yes" in rows
    assert "In the loop? no" in rows
    text = "\n".join(rows)
    assert re.findall(r'"event":"(answered|and)"', text) == ["answered", "and"]
    assert "━" not in text
    assert "─" not in text


def test_lines_are_shown_while_the_loop_is_blocked(on_terminal):
    """faults A8: what was logged right before the loop is blocked does not wait until it turns
    again.
    """
    program = on_terminal(
        "for n in range(100):",
        "    log.info('before', n=n)",
        "time.sleep(600)",
    )
    program.until('"n":99')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError('the end')", 1),
        ("os.kill(os.getpid(), signal.SIGTERM); await asyncio.sleep(60)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGINT); await asyncio.sleep(60)", -signal.SIGINT),
    ],
    ids=["exit", "exception", "SIGTERM", "SIGINT"],
)
def test_nothing_is_lost_when_the_program_ends(on_terminal, ending, code):
    """faults A8: what was collected is shown, whichever way the program ends, and the bars are
    gone.
    """
    program = on_terminal("for n in range(200):", "    log.info('line', n=n)", ending, lines=50)
    assert program.wait() == code
    text = "\n".join(program.screen.everything)
    assert [int(number) for number in re.findall(r'"n":(\d+)', text.replace("\n", ""))] == list(
        range(200)
    )
    assert "━" not in text
    assert "─" not in text


@pytest.mark.slow
def test_a_view_that_is_never_closed_is_closed_at_the_end(tmp_path):
    """faults A8: where the loop is given up in the middle of it, the interpreter's end shows the
    rest, and takes the bars away.
    """
    program = f"""
import asyncio, structjob
async def main():
    global bars
    tracker = await structjob.Tracker("sqlite:///{tmp_path}/jobs.db", handle_signals=False).open()
    bars = await tracker.progress_bars().__aenter__()
    job = await (await tracker.create_job("backup")).start()
    step = await job.step("copy", total=10).start()
    bars._draw()
    for n in range(100):
        print("line", n)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""
    on = OnTerminal([sys.executable, "-W", "ignore", "-c", program])
    try:
        on.wait()
        text = "\n".join(on.screen.everything)
    finally:
        on.close()
    assert re.findall(r"^line (\d+)$", text, re.MULTILINE) == [str(n) for n in range(100)]
    assert "─" not in text


def test_a_forked_child_writes_for_itself(on_terminal):
    """faults A8: what the parent had collected is shown once; what the child prints, too."""
    program = on_terminal(
        "print('of the parent')",
        "print('and more')",
        "if (pid := os.fork()) == 0:",
        "    print('of the child')",
        "    sys.stdout.flush()",
        "    os._exit(0)",
        "os.waitpid(pid, 0)",
    )
    assert program.wait() == 0
    text = "\n".join(program.screen.everything)
    assert [text.count(each) for each in ("of the parent", "and more", "of the child")] == [1, 1, 1]


@pytest.mark.slow
def test_a_terminal_is_closed_while_the_program_works(on_terminal, tmp_path):
    """faults A8: the window is closed; the program, which ignores that, goes on to its end."""
    program = on_terminal(
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
        f"while not os.path.exists({str(tmp_path / 'gone')!r}):",
        "    await asyncio.sleep(0.01)",
        "for n in range(20):",
        "    log.info('unseen')",
        "    await asyncio.sleep(0.02)",
        "step.advance(10)",
        f"open({str(tmp_path / 'done')!r}, 'w').close()",
    )
    program.until("0/10 0%")
    program.hang_up()
    (tmp_path / "gone").touch()
    program.process.wait(60)
    assert (tmp_path / "done").exists()


def test_bars_in_code_without_a_loop(db_url, connected, monkeypatch):
    """R15: the same names with `with`; a thread draws them."""
    monkeypatch.setattr(bars, "DRAW_EVERY", 0.001)
    structjob.configure(console=False)
    with structjob.Tracker(db_url) as tracker:
        shown = connected()
        with tracker.progress_bars(), tracker.job("a") as job, job.step("load", total=4) as step:
            step.advance(3)
            until = time.monotonic() + 10
            while "75%" not in shown.getvalue() and time.monotonic() < until:
                time.sleep(0.001)
        assert "75%" in shown.getvalue()
        assert shown.screen().shown == []
    assert not [one for one in threading.enumerate() if one.name == "structjob-bars"]
