"""`install()`: one line in an existing setup. What was printed stays, plus the ids; the database
gets everything once (R27).
"""

import io
import json
import logging
import re

import pytest
import structlog
from cli_support import python

import structjob

IDS = re.compile(
    r'(?:, )?"(?:job_id|step_id|correlation_id)": "[^"]*"| (?:job_id|step_id|correlation_id)=\S+'
)


class Native:
    """A setup of structlog alone, as its documentation recommends for production: JSON lines,
    cached loggers.
    """

    def __init__(self, *before_renderer, renderer=None, as_tuple=False, cache=True):
        self.stream = io.StringIO()
        processors = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            *before_renderer,
            renderer or structlog.processors.JSONRenderer(),
        ]
        structlog.configure(
            processors=tuple(processors) if as_tuple else processors,
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.PrintLoggerFactory(self.stream),
            cache_logger_on_first_use=cache,
        )
        self.logger = structlog.get_logger()


class Stdlib:
    """A setup on top of `logging`: `final` is structlog's last processor, `formatter` what the
    handler formats with.
    """

    def __init__(self, *before_final, final, formatter=None, level=logging.INFO):
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter or logging.Formatter("%(levelname)s %(name)s %(message)s"))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(level)
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.stdlib.PositionalArgumentsFormatter(),
                *before_final,
                final,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=True,
        )
        self.logger = structlog.stdlib.get_logger("app.module")


def defaults():
    """structlog as it comes, printing to a stream of ours."""
    setup = Native.__new__(Native)
    setup.stream = io.StringIO()
    plain = [
        *structlog.get_config()["processors"][:-2],
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
    structlog.configure(
        processors=plain,
        logger_factory=structlog.PrintLoggerFactory(setup.stream),
        cache_logger_on_first_use=False,
    )
    setup.logger = structlog.get_logger()
    return setup


SETUPS = {
    "defaults": defaults,
    "json": Native,
    "json, as a tuple": lambda: Native(as_tuple=True, cache=False),
    "format_exc_info": lambda: Native(structlog.processors.format_exc_info),
    "format_exc_info, earlier": lambda: Native(
        structlog.processors.format_exc_info, structlog.processors.UnicodeDecoder()
    ),
    "dict_tracebacks": lambda: Native(structlog.processors.dict_tracebacks),
    "EventRenamer": lambda: Native(structlog.processors.EventRenamer("msg")),
    "EventRenamer, format_exc_info": lambda: Native(
        structlog.processors.EventRenamer("msg"), structlog.processors.format_exc_info
    ),
    "EventRenamer, earlier": lambda: Native(
        structlog.processors.EventRenamer("msg", "_event"),
        structlog.processors.UnicodeDecoder(),
        structlog.processors.format_exc_info,
    ),
    "logfmt": lambda: Native(
        structlog.processors.format_exc_info, renderer=structlog.processors.LogfmtRenderer()
    ),
    "key values": lambda: Native(
        structlog.processors.format_exc_info, renderer=structlog.processors.KeyValueRenderer()
    ),
    "stdlib, rendered": lambda: Stdlib(
        structlog.processors.format_exc_info, final=structlog.processors.JSONRenderer()
    ),
    "stdlib, console": lambda: Stdlib(
        final=structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    ),
    "stdlib, ProcessorFormatter": lambda: Stdlib(
        final=structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        formatter=structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        ),
    ),
    "stdlib, render_to_log_kwargs": lambda: Stdlib(final=structlog.stdlib.render_to_log_kwargs),
    "stdlib, render_to_log_args_and_kwargs": lambda: Stdlib(
        final=structlog.stdlib.render_to_log_args_and_kwargs
    ),
}


def program(setup):
    """Log in every way there is."""
    log = setup.logger
    log.debug("not shown")
    log.info("hello", n=1)
    log.warning("careful", nested={"a": [1]})
    log.bind(bound=1).error("wrong")
    log.info("filled %s %d", "in", 2)
    log.info("100%")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed", n=2)
    if isinstance(setup, Stdlib):
        logging.getLogger("other.library").warning("from %s", "logging", extra={"host": "h"})
        logging.getLogger("other.library").debug("not shown")


def without_ids(text):
    """Return *text* without what `install` adds, and without what differs from run to run."""
    text = IDS.sub("", text).replace("{, ", "{")
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[:.\d]*Z?", "TIME", text)
    text = re.sub(r" +\n", "\n", text)
    return re.sub(r'"?lineno"?: \d+|line \d+|File "[^"]*"|0x[0-9a-f]+', "", text)


MESSAGES = ["hello", "careful", "wrong", "filled in 2", "100%", "failed"]


@pytest.mark.parametrize("name", SETUPS)
async def test_it_prints_what_it_printed_and_stores_everything_once(name, tmp_path):
    """R27: outside a job not a byte changes; in a job the ids come on top. Each event is stored
    once, with level and exception.
    """
    before = SETUPS[name]()
    program(before)
    structlog.reset_defaults()
    setup = SETUPS[name]()
    structjob.install()
    structjob.install()
    async with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
        program(setup)
        outside = setup.stream.getvalue()
        async with tracker.job("a") as job, job.step("s"):
            program(setup)
        inside = setup.stream.getvalue()[len(outside) :]
        events = list(await tracker.logs.list(type="system"))
        in_job = list(await tracker.logs.list(job_id=job.id, kind="log"))
        ledger = tracker.ledger()
    assert without_ids(outside) == without_ids(before.stream.getvalue())
    if "render_to_log" not in name:  # there the formatter decides what is shown of the attributes
        assert job.id in inside
    assert without_ids(inside) == without_ids(outside)
    expected = [*MESSAGES, *(["from logging"] if isinstance(setup, Stdlib) else [])]
    for stored in (events, in_job):
        assert [event.message for event in stored] == expected
        assert [event.level for event in stored][:6] == [
            "info",
            "warning",
            "error",
            "info",
            "info",
            "error",
        ]
        assert stored[0].attrs == {"n": 1}
        assert stored[1].attrs == {"nested": {"a": [1]}}
        assert stored[2].attrs == {"bound": 1}
        failed = stored[5].attrs
        assert (failed["n"], failed["error_type"], failed["error_message"]) == (
            2,
            "ValueError",
            "bad",
        )
        assert (failed["exception"]["type"], failed["exception"]["message"]) == (
            "ValueError",
            "bad",
        )
        assert failed["exception"]["traceback"].startswith("Traceback (most recent call last)")
    if isinstance(setup, Stdlib):
        assert [event.logger for event in events] == ["app.module"] * 6 + ["other.library"]
        assert events[-1].attrs == {"host": "h"}
    assert ledger.lost == ledger.rejected == 0


async def test_loggers_that_were_cached_before_are_recorded(tracker_of):
    """R27: module-level loggers were used, and so cached, before `install()` is reached."""
    setup = Native()
    setup.logger.info("early")
    bound = setup.logger.bind(a=1)
    structjob.install()
    async with tracker_of() as tracker:
        setup.logger.info("later")
        bound.info("bound")
        assert [event.message for event in await tracker.logs.list()] == ["later", "bound"]


@pytest.fixture
def tracker_of(tmp_path):
    return lambda **options: structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db", **options)


@pytest.mark.parametrize(
    "exceptions",
    [(), (structlog.processors.format_exc_info,), (structlog.processors.dict_tracebacks,)],
)
async def test_exception_groups_keep_their_parts(tracker_of, exceptions):
    """R9: type, message and traceback of the group, and of each of its parts."""
    setup = Native(*exceptions)
    structjob.install()
    async with tracker_of() as tracker:
        try:
            raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
        except ExceptionGroup:
            setup.logger.exception("failed")
        (event,) = await tracker.logs.list()
    parts = event.attrs["exception"]["exceptions"]
    assert [(part["type"], part["message"]) for part in parts] == [
        ("ValueError", "one"),
        ("KeyError", "'two'"),
    ]
    assert "ValueError: one" in event.attrs["exception"]["traceback"]


async def test_an_exception_is_not_carried_over_to_the_next_event(tracker_of):
    """R9: an event without an exception has none, whatever came before it."""
    setup = Native(structlog.processors.format_exc_info)
    structjob.install()
    async with tracker_of() as tracker:
        setup.logger.error("with", exc_info=ValueError("x"))
        setup.logger.error("without")
        setup.logger.error("named", exception="my own")
        first, second, third = await tracker.logs.list()
    assert first.attrs["exception"]["type"] == "ValueError"
    assert second.attrs == {}
    assert third.attrs == {"exception": "my own"}


async def test_what_logging_drops_is_not_recorded(tracker_of):
    """Traps: without `filter_by_level` structlog's processors see DEBUG events that the logger's
    level then drops.
    """
    setup = Stdlib(final=structlog.stdlib.render_to_log_kwargs, level=logging.WARNING)
    structjob.install()
    async with tracker_of(level="debug") as tracker:
        setup.logger.debug("no")
        setup.logger.info("no")
        setup.logger.warning("yes")
        logging.getLogger("app.module").info("no")
        assert [event.message for event in await tracker.logs.list(level="debug")] == ["yes"]
    assert setup.stream.getvalue() == "WARNING app.module yes\n"


async def test_an_event_and_a_record_of_the_same_text_are_two(tracker_of):
    """R31: a library that logs the very text that the program has just logged is recorded, too."""
    setup = Stdlib(final=structlog.stdlib.render_to_log_kwargs)
    structjob.install()
    async with tracker_of() as tracker:
        setup.logger.info("same")
        logging.getLogger("lib").info("same")
        assert [event.logger for event in await tracker.logs.list(text="same")] == [
            "app.module",
            "lib",
        ]


async def test_records_with_no_handler_still_reach_stderr(tracker_of, capfd):
    """R27: where nothing is set up, `logging` prints warnings to the standard error; our handler
    there changes nothing.
    """
    logging.getLogger().handlers[:] = []
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    structjob.install()
    logging.getLogger("lib").warning("seen")
    logging.getLogger("lib").info("not seen")
    assert capfd.readouterr().err == "seen\n"


async def test_a_captured_setup_keeps_its_redactors(tracker_of):
    """R33: what the setup's own processors take out never reaches the database; what they leave in
    is redacted for it.
    """

    def own(logger, method, event):
        event.pop("iban", None)
        return event

    setup = Native(own)
    structjob.install()
    async with tracker_of() as tracker:
        setup.logger.info("x", iban="DE1", password="hunter2")
        (event,) = await tracker.logs.list()
    assert event.attrs == {"password": "[redacted]"}
    assert json.loads(setup.stream.getvalue())["password"] == "hunter2"


async def test_a_fault_of_ours_is_not_felt(tracker_of, monkeypatch):
    """Guarantee 3: whatever goes wrong in recording, the program's own output comes out."""
    setup = Native()
    structjob.install()
    monkeypatch.setattr("structjob.capture.processors.pass_on", lambda *args, **how: 1 / 0)
    setup.logger.info("still printed")
    assert json.loads(setup.stream.getvalue())["event"] == "still printed"


async def test_install_after_an_earlier_configure_prints_as_the_new_setup_does(tracker_of):
    """R27: a setup that replaced ours prints alone; nothing goes to the console or files
    of before.
    """
    before = io.StringIO()
    structjob.configure(console=before, strict=True)
    setup = Native()
    structjob.install()
    async with tracker_of() as tracker:
        async with tracker.job("a") as job:
            setup.logger.info("x")
        assert len(await tracker.logs.list(job_id=job.id)) == 3
    assert before.getvalue() == ""
    assert len(setup.stream.getvalue().splitlines()) == 1


async def test_async_methods_are_recorded_in_their_job(tracker_of):
    """Traps: `ainfo()` runs the processors in another thread, on a copy of the context."""
    setup = Native()
    structjob.install()
    async with tracker_of() as tracker, tracker.job("a") as job:
        await setup.logger.ainfo("from there")
        (event,) = await tracker.logs.list(text="from there")
    assert event.job_id == job.id


def test_the_tables_are_created_without_a_word_on_the_programs_console(tmp_path):
    """Alembic tells `logging` of each of its steps: nothing of it stands among what a program with
    a root handler prints (R51).
    """
    program = """
import asyncio, logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s")
for name in ("asyncio", "aiosqlite"):
    logging.getLogger(name).setLevel(logging.WARNING)
import structjob
structjob.install()
async def main():
    async with structjob.Tracker("sqlite:///jobs.db"):
        logging.getLogger("alembic.runtime.migration").info("the program's own")
asyncio.run(main())
"""
    done = python("-c", program, cwd=tmp_path, check=True)
    assert [line for line in done.stdout.splitlines() if not line.startswith("structjob")] == [
        "alembic.runtime.migration"
    ]
