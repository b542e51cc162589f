"""What is stored, typed or imported neither steers a terminal nor harms the database."""

import gzip
import json
import time

import pytest
from cli_support import typed

import structjob
from structjob import InvalidFilter, JobFilter, LogFilter
from structjob.exceptions import ImportRefused
from structjob.sinks import escape, escape_json

ESCAPED = {
    "a\u061cb": r"a\u061cb", "a\u200bb": r"a\u200bb", "\ufeffa": r"\ufeffa", "a\u2060b": r"a\u2060b", "a\u00adb": r"a\xadb",
    "\u3164": r"\u3164",
    "a\U000e0041\U000e007f": r"a\U000e0041\U000e007f", "pass\u200dword": r"pass\u200dword", "\u200c": r"\u200c", "a\ufe0f": r"a\ufe0f",
    "x\n\x1b[2J\x9b": r"x\n\x1b[2J\x9b", "a\u2028b\u202eb": r"a\u2028b\u202eb",
    "❤\ufe0f\ufe0f": "❤\ufe0f\\ufe0f", "❤\u200d\u200d❤": "❤\u200d\\u200d❤",
}  # fmt: skip
KEPT = ["naïve", "👩\u200d🚀", "❤\ufe0f\u200d🔥", "می\u200cخواهم", "क्\u200dष", "1\ufe0f\u20e3", "葛\U000e0100", "日本語", "e\u0301", "🇩🇪"]


@pytest.mark.parametrize("text", ESCAPED)
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


TYPED = [["jobs", "--status", "\x1b[2J"], ["\x1b[2J"], ["show", "--\x1b[2J"], ["logs", "--attempt", "\x9b\u202e"]]


@pytest.mark.parametrize("words", TYPED)
def test_a_usage_error_shows_what_was_typed_without_obeying_it(db_url, words):
    """faults 0.8: click writes what it was given as it is."""
    said = typed(db_url, *words, code=2)
    assert "\x1b" not in said
    assert escape(said.replace("\n", "")) == said.replace("\n", "")
    assert "\\x" in said


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (LogFilter, {"include_children": "no"}),
        (LogFilter, {"level_exact": 1}),
        (JobFilter, {"root_only": "yes"}),
        (LogFilter, {"text": "\ud800"}),
        (LogFilter, {"attrs": {"a": ["\udfff"]}}),
        (LogFilter, {"attrs": {"\udfff": 1}}),
        (JobFilter, {"owner": "\udc80"}),
    ],
)
def test_a_filter_names_the_value_that_it_refuses(kind, given):
    """faults 0.8: "no" was true, and half of a surrogate pair a UnicodeEncodeError from the driver."""
    with pytest.raises(InvalidFilter, match=f"^{next(iter(given))} "):
        kind(**given)


def lines(*parents):
    """Return jobs, each with its parent."""
    return "".join(
        json.dumps({"record": "job", "id": id_, "operation": "a", "created_at": "2020-01-01T00:00:00Z", "parent_job_id": parent}) + "\n"
        for id_, parent in parents
    )


@pytest.mark.parametrize("parents", [[("a", "a")], [("x", None), ("a", "b"), ("b", "c"), ("c", "a")], [("d", "a"), ("a", "b"), ("b", "a")]])
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
    assert "more than 100,000 blank lines" in typed(db_url, "import", str(tmp_path / "blank.gz"), code=1)
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
    await any_tracker._store.transact(lambda connection: connection.execute(update(jobs).values(parent_job_id=job.id)))
    pruned = await any_tracker.prune(structjob.Retention(days=0.0000001))
    assert pruned.jobs == 2
