"""The records of `logging`: whatever the program does to its handlers, each is recorded once, in
its job (R31).
"""

import asyncio
import contextlib
import io
import json
import logging
import logging.config
import logging.handlers
import queue
import threading

import pytest
import structlog
import uvicorn
from sqlalchemy import create_engine

import structjob


@pytest.fixture(autouse=True)
def _bare_logging():
    """A `logging` as it is in a new program; what pytest put on the root logger comes back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    disabled = {
        logger: logger.disabled
        for logger in logging.root.manager.loggerDict.values()
        if isinstance(logger, logging.Logger)
    }
    names = ("lib", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    root.handlers.clear()
    root.setLevel(logging.WARNING)
    yield
    for logger, before in disabled.items():
        logger.disabled = before
    for logger in map(logging.getLogger, names):
        logger.handlers.clear()
        logger.filters.clear()
        logger.propagate, logger.disabled = True, False
        logger.setLevel(logging.NOTSET)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(params=["configure", "install"])
def recording(request):
    """Return what sets structjob up, in either way; called in the test itself, since pytest adds
    its handlers just before it.
    """

    def set_up():
        logging.getLogger().handlers[:] = [
            each for each in logging.getLogger().handlers if type(each) is logging.NullHandler
        ]
        if request.param == "configure":
            structjob.configure(console=False, strict=True)
        else:
            structjob.install(stdlib=True)

    return set_up


@pytest.fixture
def tracker_of(tmp_path):
    return lambda **options: structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db", **options)


lib = logging.getLogger("lib")


async def test_basic_config_works_after_us(tracker_of, recording):
    """faults A9: `basicConfig` does nothing where the root logger has a handler; now it prints what
    it would without us.
    """
    stream = io.StringIO()
    recording()
    assert logging.getLogger().handlers == []
    logging.basicConfig(stream=stream, format="%(levelname)s %(message)s")
    async with tracker_of() as tracker:
        lib.info("not printed without us")
        lib.warning("printed")
        # the same level that configure() had given it: now it is the program's
        logging.getLogger().setLevel(logging.INFO)
        lib.info("printed now")
        messages = [event.message for event in await tracker.logs.list(logger="lib")]
    assert stream.getvalue() == "WARNING printed\nINFO printed now\n"
    assert messages[-2:] == ["printed", "printed now"]


@pytest.mark.parametrize("first", ["basicConfig", "configure"])
async def test_a_record_is_shown_once_in_a_place(tracker_of, tmp_path, first):
    """faults A9: where `basicConfig` prints on the terminal that our console is on, each record is
    there once, whichever came first.
    """
    logging.getLogger().handlers.clear()
    with (
        open(tmp_path / "terminal", "a") as screen,
        open(tmp_path / "terminal", "a") as same,
        open(tmp_path / "other", "w") as other,
    ):
        steps = [
            lambda: logging.basicConfig(
                stream=same, level=logging.INFO, format="theirs %(message)s"
            ),
            lambda: structjob.configure(
                console=structjob.ConsoleSink(screen, format="pretty"),
                file=tmp_path / "app.jsonl",
                strict=True,
            ),
        ]
        for step in steps if first == "basicConfig" else reversed(steps):
            step()
        structlog.get_logger().info("ours")
        lib.warning("once")
        logging.getLogger().handlers[0].addFilter(lambda record: False)
        lib.warning("not by a handler that may have filtered it")
        logging.getLogger().handlers[:] = [logging.StreamHandler(other)]
        lib.warning("in both places")
        logging.getLogger().handlers[0].setLevel(logging.CRITICAL)
        lib.error("not for the handler")
    shown = (tmp_path / "terminal").read_text()
    assert '{"timestamp"' not in shown
    for text in (
        "once",
        "not by a handler that may have filtered it",
        "in both places",
        "not for the handler",
        "ours",
    ):
        assert shown.count(text) == 1, shown
        assert (tmp_path / "app.jsonl").read_text().count(text) == 1
    assert "theirs once" in shown
    assert (tmp_path / "other").read_text() == "in both places\n"


def test_a_console_of_json_lines_shows_every_record(tmp_path):
    """faults A9: programs read it, so no record is missing there, although a handler prints it in
    the same place.
    """
    logging.getLogger().handlers.clear()
    with open(tmp_path / "out", "a") as out:
        logging.basicConfig(stream=out, format="theirs %(message)s")
        structjob.configure(console=structjob.ConsoleSink(out, format="json"), strict=True)
        lib.warning("for programs")
    theirs, line = (tmp_path / "out").read_text().splitlines()
    assert theirs == "theirs for programs"
    assert json.loads(line)["event"] == "for programs"


async def test_the_level_of_basic_config_counts(tracker_of, recording):
    """faults A9: `basicConfig(level=…)` says what the root logger passes, for the database, too."""
    recording()
    stream = io.StringIO()
    logging.basicConfig(stream=stream, level=logging.ERROR, format="%(message)s")
    async with tracker_of() as tracker:
        lib.warning("no")
        lib.error("yes")
        assert [event.message for event in await tracker.logs.list(logger="lib")] == ["yes"]
    assert stream.getvalue() == "yes\n"


@pytest.mark.parametrize("hands_back", [False, True])
async def test_handlers_behind_a_queue_listener(tracker_of, recording, hands_back):
    """faults A9: each record is recorded once, in its job, where the handlers run in a thread of
    their own; also where the listener hands it to its logger again, as programs of several
    processes do.
    """
    recording()
    stream = io.StringIO()
    root, waiting = logging.getLogger(), queue.SimpleQueue()
    root.handlers[:] = [logging.StreamHandler(stream)]

    class ToLogger(logging.Handler):
        def handle(self, record):
            logging.getLogger(f"{record.name}").handle(record)

    behind = list(root.handlers)
    if hands_back:
        handed, logger = [], logging.getLogger("lib")
        logger.addHandler(logging.handlers.QueueHandler(waiting))
        # handed back, it would be put into the queue for ever
        logger.addFilter(lambda record: handed.append(record) or len(handed) <= 3)
        behind = [ToLogger()]
    else:
        root.handlers[:] = [logging.handlers.QueueHandler(waiting)]
    listener = logging.handlers.QueueListener(waiting, *behind)
    listener.start()
    async with tracker_of() as tracker:
        async with tracker.job("a") as job:
            lib.warning("of the job %d", 1)
        listener.stop()
        assert [event.message for event in await tracker.logs.list(logger="lib")] == [
            "of the job 1"
        ]
        (event,) = await tracker.logs.list(text="of the job 1")
    assert event.job_id == job.id
    assert "of the job 1" in stream.getvalue()


async def test_a_record_that_is_made_in_one_thread_and_handled_in_another(tracker_of, recording):
    """faults A9: what comes to a logger for the first time is recorded, wherever it was made."""
    recording()
    made = []
    thread = threading.Thread(
        target=lambda: made.append(
            lib.makeRecord("lib", logging.ERROR, "f.py", 1, "made there", (), None)
        )
    )
    thread.start()
    thread.join()
    async with tracker_of() as tracker:
        lib.handle(made[0])
        assert [event.message for event in await tracker.logs.list(logger="lib")] == ["made there"]


FILE_CONFIG = """
[loggers]
keys=root
[handlers]
keys=one
[formatters]
keys=
[logger_root]
level=WARNING
handlers=one
[handler_one]
class=NullHandler
args=()
"""


@pytest.mark.parametrize(
    "change",
    [
        lambda: logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "root": {"level": "WARNING", "handlers": []},
            }
        ),
        lambda: logging.config.fileConfig(io.StringIO(FILE_CONFIG), disable_existing_loggers=False),
        lambda: logging.basicConfig(force=True),
        lambda: logging.getLogger().handlers.clear(),
        logging.shutdown,
    ],
    ids=["dictConfig", "fileConfig", "force", "cleared", "shutdown"],
)
async def test_handlers_come_and_go(tracker_of, recording, change):
    """faults A9: a library, or a server, that sets `logging` up anew does not end the recording."""
    recording()
    change()
    async with tracker_of() as tracker:
        lib.warning("still recorded")
        assert [event.message for event in await tracker.logs.list(logger="lib")] == [
            "still recorded"
        ]


async def test_a_disabled_logger_is_silent(tracker_of, recording):
    """faults A9: what `dictConfig` disables, as it does by default, is neither printed nor
    recorded.
    """
    recording()
    logging.config.dictConfig({"version": 1})
    async with tracker_of() as tracker:
        assert lib.disabled
        lib.error("no")
        assert len(await tracker.logs.list(logger="lib")) == 0


async def test_what_a_handlers_filter_takes_out_is_not_recorded(tracker_of, recording):
    """R33: a filter of the program's own that removes secrets stands on its handlers, and the
    database gets no more than they do.
    """

    def censor(record):
        record.msg, record.args = record.getMessage().replace("DE89", "…"), ()
        return True

    handler = logging.NullHandler()
    handler.handle = handler.filter
    handler.addFilter(censor)
    logging.getLogger().addHandler(handler)
    recording()
    async with tracker_of() as tracker:
        lib.warning("iban %s", "DE89")
        (event,) = await tracker.logs.list(logger="lib")
    assert event.message == "iban …"


async def test_a_logger_that_does_not_propagate(tracker_of, recording):
    """faults 48: it is recorded where a handler of its own shows the record; a NullHandler means
    silence.
    """
    recording()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.ERROR)
    async with tracker_of() as tracker:
        lib.propagate = False
        lib.addHandler(handler)
        lib.warning("not shown")
        lib.error("shown")
        lib.handlers[:] = [logging.NullHandler()]
        lib.error("silenced")
        assert [event.message for event in await tracker.logs.list(logger="lib")] == ["shown"]
    assert stream.getvalue() == "shown\n"


async def failing(scope, receive, send):
    raise RuntimeError("the application failed")


async def test_the_errors_of_uvicorn_are_recorded(tracker_of, capsys):
    """faults 48: its loggers do not propagate; `install()` in a setup that only prints records its
    errors with their traceback, and no access lines, whose logger's level is info.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    structjob.install()
    server = uvicorn.Server(uvicorn.Config(failing, port=0, lifespan="off"))
    async with tracker_of() as tracker:
        serving = asyncio.create_task(server.serve())
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 500 " in await reader.readline()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        server.should_exit = True
        await serving
        (event,) = await tracker.logs.list()
    assert (event.logger, event.level) == ("uvicorn.error", "error")
    assert event.attrs["exception"]["message"] == "the application failed"
    assert "Exception in ASGI application" in capsys.readouterr().err


async def test_a_setup_that_only_prints_records_warnings_of_libraries(tracker_of):
    """faults 48: by default `install()` leaves the chatter of other libraries out there, and keeps
    what went wrong in them.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    structjob.install()
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.NullHandler())
    async with tracker_of() as tracker:
        lib.info("chatter")
        lib.warning("gone wrong")
        assert [event.message for event in await tracker.logs.list(logger="lib")] == ["gone wrong"]
        structjob.install(stdlib=False)
        lib.error("refused")
        assert len(await tracker.logs.list(logger="lib")) == 1


async def test_a_formatter_of_the_program_shows_the_ids(tracker_of, recording):
    """A filter sets them for every record, as text in place of those that there are not; they are
    no attributes of the event, and neither are uvicorn's codes of colors.
    """
    shown = io.StringIO()
    recording()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"ids": {"()": "structjob.IdFilter"}},
            "formatters": {"ids": {"format": "%(job_id)s %(step_id)s %(correlation_id)s %(message)s"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": shown,
                    "filters": ["ids"],
                    "formatter": "ids",
                }
            },
            "root": {"handlers": ["out"], "level": "INFO"},
        }
    )  # fmt: skip
    async with tracker_of() as tracker:
        lib.info("outside")
        async with tracker.job("a", correlation_id="web-42") as job:
            lib.info("in the job", extra={"color_message": "\x1b[1m"})
            async with job.step("s") as step:
                lib.info("in the step", extra={"job_id": "mine"})
        events = await tracker.logs.list(kind="log")
    assert shown.getvalue().splitlines() == [
        "- - - outside",
        f"{job.id} - web-42 in the job",
        f"mine {step.id} web-42 in the step",
    ]
    assert [event.attrs for event in events] == [{}, {}, {"job_id": "mine"}]


async def test_formatters_that_the_program_has_show_the_ids_after_one_call(
    tracker_of, recording, monkeypatch
):
    """Section 2 of integrations: the handlers of the root logger, or those that are given."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.warns(RuntimeWarning, match=r"basicConfig\(\)"):
        structjob.add_ids_to_logging()
    recording()
    shown, other = io.StringIO(), io.StringIO()
    logging.basicConfig(stream=shown, format="%(job_id)s %(correlation_id)s %(message)s")
    handler = logging.StreamHandler(other)
    handler.setFormatter(logging.Formatter("%(job_id)s: %(message)s"))
    monkeypatch.setattr(lib, "handlers", [handler])
    for _ in range(2):
        structjob.add_ids_to_logging()
        added = structjob.add_ids_to_logging(handler)
    assert len(handler.filters) == 1
    assert isinstance(added, logging.Filter)
    async with tracker_of() as tracker:
        lib.warning("outside")
        async with tracker.job("a", correlation_id="web-42") as job:
            lib.warning("inside")
    assert shown.getvalue().splitlines() == ["- - outside", f"{job.id} web-42 inside"]
    assert other.getvalue().splitlines() == ["-: outside", f"{job.id}: inside"]


async def test_what_a_record_brings_along_is_kept(tracker_of, recording):
    """faults 18: `stack_info`, the text of an exception from another process, and `extra` under the
    names of the event's own fields.
    """
    recording()
    async with tracker_of() as tracker:
        lib.warning(
            "one",
            stack_info=True,
            extra={"event": "opened", "level": 80, "timestamp": "noon", "host": "h"},
        )
        lib.handle(
            logging.makeLogRecord(
                {
                    "name": "lib",
                    "levelno": 40,
                    "msg": "two",
                    "exc_text": "Traceback …\nValueError: bad",
                }
            )
        )
        first, second = await tracker.logs.list(logger="lib")
    stack = first.attrs.pop("stack")
    assert stack.startswith("Stack (most recent call last)")
    assert "test_what_a_record_brings_along_is_kept" in stack
    assert (first.message, first.level) == ("one", "warning")
    assert first.attrs == {"event": "opened", "level": 80, "timestamp": "noon", "host": "h"}
    assert second.attrs == {"exception": "Traceback …\nValueError: bad"}


async def test_attributes_named_as_the_fields_of_a_line_are_shown_beside_them(tracker_of, tmp_path):
    """faults 18: in a line of JSON each key stands once; the event's own time, level and message
    are not replaced.
    """
    structjob.configure(console=False, file=tmp_path / "app.jsonl", strict=True)
    async with tracker_of() as tracker:
        lib.warning("one", extra={"event": "opened", "level": 80, "timestamp": "noon"})
        structlog.get_logger().info("tank", level=80, password="hunter2")
        first, second = await tracker.logs.list()
    line, tank = (
        json.loads(each, object_pairs_hook=list)
        for each in (tmp_path / "app.jsonl").read_text().splitlines()
    )
    assert first.attrs == {"event": "opened", "level": 80, "timestamp": "noon"}
    assert [(key, value) for key, value in line if key != "timestamp"] == [
        ("level", "warning"),
        ("event", "one"),
        ("logger", "lib"),
        ("attrs.event", "opened"),
        ("attrs.level", 80),
        ("attrs.timestamp", "noon"),
    ]
    assert second.attrs == {"level": 80, "password": "[redacted]"}
    assert tank[1:] == [
        ("level", "info"),
        ("event", "tank"),
        ("attrs.level", 80),
        ("password", "[redacted]"),
    ]


async def test_structlogs_own_level_and_time_are_no_attributes(tracker_of):
    """faults 18: what `add_log_level` and `TimeStamper` put into an event for a renderer is not
    stored twice.
    """
    before = [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso")]
    structjob.configure(console=False, processors=before, strict=True)
    async with tracker_of() as tracker:
        structlog.get_logger().info("x", n=1)
        (event,) = await tracker.logs.list()
    assert event.attrs == {"n": 1}


@pytest.mark.parametrize(
    ("number", "name", "level", "attrs"),
    [
        (5, "TRACE", "debug", {"level_name": "TRACE"}),
        (25, "NOTICE", "info", {"level_name": "NOTICE"}),
        (25, "SUCCESS", "success", {}),
        (35, None, "warning", {"level_name": "Level 35"}),
        (60, "AUDIT", "critical", {"level_name": "AUDIT"}),
        (30, "\x1b[33mWARNING\x1b[0m", "warning", {}),
    ],
)
async def test_levels_of_ones_own_keep_their_name(
    tracker_of, monkeypatch, number, name, level, attrs
):
    """faults 18: a level that is none of ours becomes the next lower one, with its own name in
    `level_name`; only SUCCESS is success.
    """
    monkeypatch.setattr(logging, "_levelToName", dict(logging._levelToName))
    monkeypatch.setattr(logging, "_nameToLevel", dict(logging._nameToLevel))
    if name is not None:
        logging.addLevelName(number, name)
    structjob.configure(console=False, level="debug", strict=True)
    lib.setLevel(1)
    structjob.install(stdlib=True)
    async with tracker_of(level="debug") as tracker:
        lib.log(number, "x")
        (event,) = await tracker.logs.list(logger="lib", level="debug")
    assert (event.level, event.attrs) == (level, attrs)


def warnings_of(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if "configured again" in record.getMessage()
    ]


@pytest.mark.parametrize(
    "replace",
    [
        lambda: structlog.configure(processors=[structlog.processors.JSONRenderer()]),
        structlog.reset_defaults,
    ],
    ids=["configure", "reset_defaults"],
)
async def test_a_later_configure_of_structlog_is_noticed(
    tracker_of, recording, replace, caplog, monkeypatch
):
    """faults 19: a library that configures structlog for itself ends the recording for new loggers:
    one warning says what to type.
    """
    monkeypatch.setattr("structjob.engine.maintenance.LOOK_EVERY", 0.01)
    monkeypatch.setattr("structjob.engine.maintenance.TICK", 0.01)
    recording()
    logging.getLogger().addHandler(caplog.handler)
    async with tracker_of():
        assert warnings_of(caplog) == []
        replace()
        structlog.get_logger("not ours").info("printed")  # by whatever that setup prints with
        async with asyncio.timeout(20):
            while not warnings_of(caplog):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    (said,) = warnings_of(caplog)
    assert "structjob.install()" in said
    caplog.clear()
    async with tracker_of() as tracker:
        structjob.install()
        structlog.get_logger("new").info("recorded again")
        assert len(await tracker.logs.list(text="recorded again")) == 1
    assert warnings_of(caplog) == []


async def test_a_short_program_is_warned_too(tracker_of, recording, caplog):
    """faults 19: also where the program ends before anything looks again."""
    recording()
    logging.getLogger().addHandler(caplog.handler)
    async with tracker_of():
        structlog.configure(processors=[structlog.processors.JSONRenderer()])
    assert len(warnings_of(caplog)) == 1


async def test_what_is_no_replacement_is_not_warned_about(tracker_of, recording, caplog):
    """faults 19: `capture_logs` in a test, loggers with processors of their own, `configure_once`,
    another wrapper class, and programs that never set structjob up.
    """
    async with tracker_of():
        structlog.configure(processors=[structlog.processors.JSONRenderer()])
        assert warnings_of(caplog) == []
    recording()
    logging.getLogger().addHandler(caplog.handler)
    with structlog.testing.capture_logs():
        async with tracker_of():
            structlog.get_logger().info("captured")
    async with tracker_of() as tracker:
        structlog.wrap_logger(io.StringIO(), processors=[structlog.processors.JSONRenderer()])
        with pytest.warns(RuntimeWarning, match="Repeated configuration"):
            structlog.configure_once(processors=[structlog.processors.JSONRenderer()])
        structlog.configure(wrapper_class=structlog.BoundLogger)
        structlog.get_logger().info("still recorded")
        assert len(await tracker.logs.list(text="still recorded")) == 1
    assert warnings_of(caplog) == []


async def test_a_program_that_closed_its_streams_runs(tracker_of, monkeypatch):
    """As a daemon does, and a capture that is over: our own warning about it harms nothing."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stdout", closed)
    monkeypatch.setattr("sys.stderr", closed)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    structjob.configure()
    async with tracker_of() as tracker:
        async with tracker.job("runs") as job:
            structlog.get_logger().info("one")
            logging.getLogger("lib").warning("two")
        found = await tracker.logs.list(job=job, kind="log")
    assert {one.message for one in found} == {"one", "two"}


def test_a_warning_of_ours_that_a_handler_refuses_harms_nothing(monkeypatch):
    """A handler of the program that raises gets its own errors, from its own log calls only."""

    class Refuses(logging.Handler):
        def emit(self, record):
            raise RuntimeError("no")

    def sink(event):
        raise ValueError("broken")

    monkeypatch.setattr(logging.getLogger(), "handlers", [Refuses()])
    structjob.configure(console=False, sinks=[sink])
    structlog.get_logger().info("one")


async def test_a_record_without_a_name_is_recorded(tracker_of, recording):
    """As `makeLogRecord` makes it from what came by a socket."""
    recording()
    async with tracker_of() as tracker:
        record = logging.makeLogRecord({"msg": "from afar", "levelno": 30, "levelname": "WARNING"})
        logging.getLogger("lib").handle(record)
        (found,) = await tracker.logs.list(text="from afar")
    assert found.logger is None


@pytest.mark.parametrize("configured", ["before", "after"])
async def test_our_statements_are_not_in_the_log_of_the_program(
    bare_database, tmp_path, configured
):
    """Guarantee: a program that logs the statements of its own engines did not get 400 lines of
    ours when it adopted the library.
    """
    settings = {
        "version": 1,
        "disable_existing_loggers": False,
        "loggers": {"sqlalchemy": {"level": "DEBUG"}, "alembic": {"level": "DEBUG"}},
    }
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    kept = Kept(level=logging.DEBUG)
    named = [logging.getLogger(name) for name in ("sqlalchemy", "alembic")]
    levels = [logger.level for logger in named]
    for logger in named:
        logger.addHandler(kept)
    try:
        if configured == "before":
            logging.config.dictConfig(settings)
        for number in (1, 2):
            async with structjob.Tracker(bare_database.url, spool=tmp_path / "spool") as tracker:
                if configured == "after":
                    logging.config.dictConfig(settings)
                for logger in named:
                    logger.addHandler(kept)
                async with tracker.job("copy"):
                    pass
                assert await tracker.jobs.count() == number
        assert lines == []
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        engine.dispose()
        assert "SELECT 1" in lines
    finally:
        for logger, level in zip(named, levels, strict=True):
            logger.removeHandler(kept)
            logger.setLevel(level)


@pytest.mark.parametrize("database", ["mariadb", "postgresql"], indirect=True)
async def test_our_statements_are_not_recorded_by_a_name_of_the_programs(database, tmp_path):
    """What stores an event is no event, also if the program names the engine: it would never end
    (R3).
    """
    structjob.configure(console=False)
    named = logging.getLogger("sqlalchemy.engine")
    level = named.level
    named.setLevel(logging.INFO)
    try:
        async with structjob.Tracker(
            database.url, spool=tmp_path / "spool", engine_options={"logging_name": "mine"}
        ) as tracker:
            logging.getLogger("app").warning("an event")
            await tracker.flush()
            await tracker.flush()
            assert await tracker.logs.count() == 1
    finally:
        named.setLevel(level)


async def test_statements_of_the_programs_engines_are_recorded(tracker_of, caplog):
    """R3: as other records of `logging` are; what our engines log never is."""
    structjob.configure(console=False)
    async with tracker_of() as tracker:
        with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
            engine = create_engine("sqlite://")
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
            engine.dispose()
            logging.getLogger("sqlalchemy.engine.Engine.structjob").warning("ours")
            logging.getLogger("sqlalchemy.pool.impl.QueuePool.structjob").critical("ours")
        found = [event.message for event in await tracker.logs.list()]
    assert "SELECT 1" in found
    assert "ours" not in found
