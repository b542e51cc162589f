"""What is stored, typed or imported neither steers a terminal nor harms the database."""

import asyncio
import base64
import gzip
import json
import sqlite3
import time
import tracemalloc
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from cli_support import typed
from each import each
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.event import listen, remove

import structjob
from structjob import InvalidFilter, JobFilter, LogFilter
from structjob.capture.event import BY_NAME, Encoder
from structjob.capture.fanout import FanOut
from structjob.capture.setup import SETUP
from structjob.context.errors import describe
from structjob.exceptions import ImportRefused
from structjob.lifecycle.outcome import add_error
from structjob.lifecycle.rows import ErrorColumns
from structjob.statistics import StatsFilter
from structjob.text.escaping import escape, escape_json
from structjob.values import bounds, credentials
from structjob.values.redaction import Redactor, rules_of

ESCAPED = {
    "a\u061cb": r"a\u061cb", "a\u200bb": r"a\u200bb", "\ufeffa": r"\ufeffa", "a\u2060b": r"a\u2060b", "a\u00adb": r"a\xadb",
    "\u3164": r"\u3164",
    "a\U000e0041\U000e007f": r"a\U000e0041\U000e007f", "pass\u200dword": r"pass\u200dword", "\u200c": r"\u200c", "a\ufe0f": r"a\ufe0f",
    "x\n\x1b[2J\x9b": r"x\n\x1b[2J\x9b", "a\u2028b\u202eb": r"a\u2028b\u202eb",
    "❤\ufe0f\ufe0f": "❤\ufe0f\\ufe0f", "❤\u200d\u200d❤": "❤\u200d\\u200d❤",
}  # fmt: skip
KEPT = [
    "naïve",
    "👩\u200d🚀",
    "❤\ufe0f\u200d🔥",
    "می\u200cخواهم",
    "क्\u200dष",
    "1\ufe0f\u20e3",
    "葛\U000e0100",
    "日本語",
    "e\u0301",
    "🇩🇪",
]


@each("text", ESCAPED)
def test_what_a_terminal_obeys_or_does_not_show_is_escaped(text):
    """faults 0.8: U+061C, U+200B, U+FEFF and their family; in JSON it stays equal."""
    assert escape(text) == ESCAPED[text]
    encoded = escape_json(json.dumps(text, ensure_ascii=False).encode())
    assert json.loads(encoded) == text
    assert escape(encoded.decode()) == encoded.decode()


@pytest.mark.parametrize("text", KEPT)
def test_emoji_and_the_scripts_of_the_world_are_shown_as_they_are(text):
    """faults 0.8: joiners and variation selectors shape the character before them."""
    assert escape(text) == text


TYPED = [
    ["jobs", "--status", "\x1b[2J"],
    ["\x1b[2J"],
    ["show", "--\x1b[2J"],
    ["logs", "--attempt", "\x9b\u202e"],
]


@pytest.mark.parametrize("words", TYPED)
def test_a_usage_error_shows_what_was_typed_without_obeying_it(db_url, words):
    """faults 0.8: click writes what it was given as it is."""
    said = typed(db_url, *words, code=2)
    assert "\x1b" not in said
    assert escape(said.replace("\n", "")) == said.replace("\n", "")
    assert "\\x" in said


def test_deep_json_on_the_command_line_is_text(db_url):
    """faults 0.8: it was a RecursionError."""
    typed(db_url, "migrate", "--yes")
    assert "RecursionError" not in typed(db_url, "logs", "--where", f"a={'[' * 5000}", code=0)


async def test_deep_json_in_a_cursor_is_no_cursor(tracker):
    """faults 0.8: it was a RecursionError."""
    cursor = base64.urlsafe_b64encode(b'["f","from",1.0,"k",' + b"[" * 5000).decode()
    with pytest.raises(InvalidFilter, match="cursor"):
        await tracker.jobs.list(cursor=cursor)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (LogFilter, {"children": "no"}),
        (LogFilter, {"correlated": 1}),
        (JobFilter, {"root_only": "yes"}),
        (LogFilter, {"text": "\ud800"}),
        (LogFilter, {"attrs": {"a": ["\udfff"]}}),
        (LogFilter, {"attrs": {"\udfff": 1}}),
        (JobFilter, {"owner": "\udc80"}),
        (StatsFilter, {"operation": "\ud800"}),
        (StatsFilter, {"project": "a\udfff"}),
        (StatsFilter, {"limit": True}),
    ],
)
def test_a_filter_names_the_value_that_it_refuses(kind, given):
    """faults 0.8: "no" was true, and half of a surrogate pair a UnicodeEncodeError from
    the driver.
    """
    with pytest.raises(InvalidFilter, match=f"^{next(iter(given))} "):
        kind(**given)


def lines(*parents):
    """Return jobs, each with its parent."""
    return "".join(
        json.dumps(
            {
                "record": "job",
                "id": id_,
                "operation": "a",
                "created_at": "2020-01-01T00:00:00Z",
                "parent_job_id": parent,
            }
        )
        + "\n"
        for id_, parent in parents
    )


@pytest.mark.parametrize(
    "parents",
    [
        [("a", "a")],
        [("x", None), ("a", "b"), ("b", "c"), ("c", "a")],
        [("d", "a"), ("a", "b"), ("b", "a")],
    ],
)
async def test_an_import_refuses_jobs_that_are_below_themselves(tracker, tmp_path, parents):
    """faults 0.8: such a family was stored, and never deleted again."""
    (tmp_path / "jobs.jsonl").write_text(lines(*parents))
    with pytest.raises(ImportRefused, match="is its own parent"):
        await tracker.import_(tmp_path / "jobs.jsonl")
    assert list(await tracker.jobs.list()) == []


def test_a_file_of_blank_lines_is_refused_early(db_url, tmp_path):
    """faults 0.8: half a megabyte, compressed, kept an import busy for 100 s."""
    (tmp_path / "blank.gz").write_bytes(gzip.compress(b"\n" * 100_000_000, 1))
    began = time.process_time()
    assert "more than 100,000 blank lines" in typed(
        db_url, "import", str(tmp_path / "blank.gz"), code=1
    )
    assert time.process_time() - began < 10


async def test_a_job_that_is_its_own_parent_is_pruned(any_tracker):
    """faults 0.8: older versions imported such jobs, and no retention ever deleted them."""
    from sqlalchemy import update

    from structjob.store.tables import jobs

    async with any_tracker.job("own", job_id="own") as job:
        pass
    async with any_tracker.job("child", job_id="child"):
        pass
    await any_tracker.flush()
    old = datetime(2020, 1, 1, tzinfo=UTC)
    values = {"parent_job_id": job.id, "created_at": old, "started_at": old, "completed_at": old}
    await any_tracker._store.transact(
        lambda connection: connection.execute(update(jobs).values(values))
    )
    pruned = await any_tracker.prune(structjob.Retention(days=1))
    assert pruned.jobs == 2


@pytest.mark.parametrize("members", [2, 7])
@pytest.mark.parametrize("same_time", [True, False])
async def test_a_circle_of_parents_is_pruned_as_a_whole(
    any_tracker, monkeypatch, members, same_time
):
    """faults 0.8: older versions imported such circles, and no retention ever deleted them; nor
    what is below them.
    """
    from sqlalchemy import update

    from structjob.retention import finding, pace
    from structjob.store.tables import jobs

    monkeypatch.setattr(finding, "PAGE", 3)
    monkeypatch.setattr(pace, "LEAST", 2)
    ids = [f"member-{number}" for number in range(members)]
    for id_ in [*ids, "below"]:
        async with any_tracker.job("one", job_id=id_):
            pass
    await any_tracker.flush()
    parents = {**dict(zip(ids, [*ids[1:], ids[0]], strict=True)), "below": ids[-1]}
    moment = datetime(2020, 1, 1, tzinfo=UTC)

    def close_circle(connection):
        for number, (id_, parent) in enumerate(parents.items()):
            created = moment if same_time else moment + timedelta(days=(number * 3) % members)
            times = {
                "created_at": created,
                "started_at": moment,
                "completed_at": moment + timedelta(days=30 * (id_ == ids[1])),
            }
            connection.execute(
                update(jobs).where(jobs.c.id == id_).values(parent_job_id=parent, **times)
            )

    await any_tracker._store.transact(close_circle)
    now = datetime.now(UTC)
    young = structjob.Retention(days=(now - moment).days - 20)
    assert (await any_tracker.prune(young)).jobs == 0  # one of them ended 30 days later
    assert len(await any_tracker.jobs.list()) == members + 1
    foreseen = await any_tracker.prune(structjob.Retention(days=1), dry_run=True)
    assert foreseen.jobs == members + 1
    assert (await any_tracker.prune(structjob.Retention(days=1))).jobs == members + 1
    assert list(await any_tracker.jobs.list()) == []


class _Sink:
    """Keeps nothing."""

    def emit(self, record):
        pass


_LOOKED_THROUGH = bounds.MAX_STRING + 4096 + 1
"""Maximum characters of a long text that are searched: beyond the cut, so that a secret that lies
across it is seen whole.
"""


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "word " * 200_000, "\n" * 1_000_000, ["é" * 1_000_000]]
)
def test_no_rule_reads_a_long_text_in_which_no_credential_can_be(monkeypatch, text):
    """A text that had to be cut went through every rule of the redaction: a call took 100 ms in
    place of 1 ms.
    """
    read = []
    for name in ("pairs", "named", "urls", "schemes", "statements", "private_keys", "cards"):
        rule = getattr(credentials, name)
        monkeypatch.setattr(
            credentials,
            name,
            lambda text, *more, rule=rule: (read.append(len(text)), rule(text, *more))[1],
        )
    fan = FanOut(_Sink())
    fan.take(BY_NAME["info"], "long", {"text": text}, None)
    fan.take(BY_NAME["info"], text, {}, None)
    assert read == []
    fan.take(BY_NAME["info"], "long", {"text": "password=hunter2 " + "x" * 1_000_000}, None)
    assert read
    assert max(read) <= _LOOKED_THROUGH


def test_a_text_of_100_mb_is_cut_before_it_is_encoded():
    """The whole text was encoded first, only to be cut to 64 KiB: 100 MB of memory and 100 ms in a
    log call.
    """
    text = "x" * 100_000_000
    fan = FanOut(_Sink())
    tracemalloc.start()
    try:
        fan.take(BY_NAME["info"], "long", {"text": text}, None)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_show_of_100_000_steps(db_path, db_url, monkeypatch):
    """faults 0.8, 42: it took 44 s of CPU time; now it is a page. All needs the queries of one
    step, and no Rich text for each row.
    """

    async def jobs():
        async with structjob.Tracker(db_url) as tracker:
            for id_ in ("small", "large"):
                async with tracker.job("work", job_id=id_) as job, job.step("step"):
                    pass

    asyncio.run(jobs())
    with closing(sqlite3.connect(db_path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(structjob_steps)")]
        taken = [
            "'s' || n"
            if name == "id"
            else "'step ' || n"
            if name == "name"
            else "n"
            if name == "seq"
            else name
            for name in columns
        ]
        connection.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT 1000000 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1099998)"
            f" INSERT INTO structjob_steps ({', '.join(columns)})"
            f" SELECT {', '.join(taken)} FROM numbers, (SELECT * FROM structjob_steps WHERE job_id = 'large')"
        )
        connection.commit()
    work = Counter()
    began = Text.__init__

    def counted(self, *args, **kwargs):
        work["texts"] += 1
        began(self, *args, **kwargs)

    def executed(*_):
        work["queries"] += 1

    monkeypatch.setattr(Text, "__init__", counted)
    listen(Engine, "before_cursor_execute", executed)
    try:
        typed(db_url, "show", "small")
        small = work.copy()
        spent = time.process_time()
        page = typed(db_url, "show", "large").splitlines()
        spent = time.process_time() - spent
        work.clear()
        lines = typed(db_url, "show", "large", "--all").splitlines()
    finally:
        remove(Engine, "before_cursor_execute", executed)
    assert len(page) <= 60
    assert any("100,000 completed" in line for line in page)
    assert spent < 2
    assert sum(" step" in line for line in lines) == 100_000
    # One more than for one step: the former job's steps, with which these are compared.
    assert work["queries"] - small["queries"] <= small["queries"] + 1
    assert work["texts"] - small["texts"] <= small["texts"] + 10


class _Measuring(Redactor):
    """Keeps the length of the longest text that it looks through."""

    longest = 0

    def text(self, text):
        self.longest = max(self.longest, len(text))
        return super().text(text)

    def is_secret(self, key):
        self.longest = max(self.longest, len(key))
        return super().is_secret(key)


_LONG = "token: b=c x " * 100_000


@pytest.mark.parametrize(
    ("message", "attrs"),
    [
        (_LONG, {}),
        ("key", {_LONG: 1}),
        ("text", {"text": _LONG}),
        ("column", {"category": _LONG}),
        ("error", {"exc_info": ValueError(_LONG)}),
    ],
    ids=["message", "key", "text", "column", "error"],
)
def test_a_long_text_is_cut_before_it_is_looked_through(message, attrs):
    """A message of 10 MB with signs of secrets stopped the program for 24 s."""
    redactor = _Measuring()
    FanOut(_Sink(), redact=redactor).take(BY_NAME["info"], message, attrs, None)
    assert 0 < redactor.longest <= _LOOKED_THROUGH
    assert Encoder(rules_of(redactor)).once(_LONG).endswith(b' of 1,300,000 kept]"')


def test_the_error_of_a_step_is_cut_before_it_is_looked_through(monkeypatch):
    redactor = _Measuring()
    monkeypatch.setattr(type(SETUP), "redactor", rules_of(redactor))
    row = ErrorColumns()
    add_error(row, describe(ValueError(_LONG)))
    assert 0 < redactor.longest <= _LOOKED_THROUGH
    assert row.error_message.endswith(" of 1,300,000 kept]")
