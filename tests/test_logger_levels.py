"""`configure(levels=…)`: a noisy logger is silenced, a quiet one is heard, by its name."""

import io
import logging

import pytest
import structlog

import structjob
from structjob import InvalidArgument


async def test_each_logger_has_its_level(db_url):
    """Ruling 12: it holds for structlog's loggers and those of `logging`, and for loggers below; on
    screen and in the database. What jobs say of themselves is no logger's.
    """
    logging.getLogger().handlers.clear()  # pytest's; else the root logger keeps its own level
    out = io.StringIO()
    structjob.configure(
        console=structjob.ConsoleSink(out, format="json"),
        level="warning",
        levels={"httpx": "error", "app.db": "debug"},
        strict=True,
    )
    async with structjob.Tracker(db_url, level="debug") as tracker:
        async with tracker.job("work"):
            for name in ("httpx", "httpx._client", "httpxx", "app", "app.db", "app.db.pool"):
                for method in ("debug", "warning", "error"):
                    getattr(structlog.get_logger(name), method)("structlog")
                    getattr(logging.getLogger(name), method)("logging")
            structlog.get_logger().info("unnamed")
            structlog.get_logger().warning("unnamed")
        events = [event async for event in tracker.logs.iterate(kind="log")]
        assert {event.kind for event in await tracker.logs.list()} >= {"operation_start"}
    for way in ("structlog", "logging"):
        heard = {}
        for event in events:
            if event.message == way:
                heard.setdefault(event.logger, []).append(event.level)
        assert heard == {
            "httpx": ["error"], "httpx._client": ["error"], "httpxx": ["warning", "error"], "app": ["warning", "error"],
            "app.db": ["debug", "warning", "error"], "app.db.pool": ["debug", "warning", "error"],
        }  # fmt: skip
    assert [event.level for event in events if event.message == "unnamed"] == ["warning"]
    assert out.getvalue().count('"structlog"') == 12


@pytest.mark.parametrize("levels", [{"httpx": "verbose"}, {7: "error"}, {"": "error"}, ["httpx"]])
def test_wrong_levels_are_refused(levels):
    """Ruling 12: before anything is set up."""
    with pytest.raises(InvalidArgument, match="level"):
        structjob.configure(console=False, levels=levels)
