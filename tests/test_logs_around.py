"""Context lines around one event, and searches with a stated limit, on each database."""

import pytest
from log_support import LogDatabase

from structjob.exceptions import EventNotFound, InvalidFilter
from structjob.queries import paging


@pytest.fixture
def database(database):
    return LogDatabase(database.engine)


def told(found):
    return (
        [event.message for event in found.before],
        found.event.message,
        [event.message for event in found.after],
    )


async def test_the_events_around_one(database):
    """An event comes with those before and after it, of its job by time, or of its session by
    number (R36).
    """
    for seq in range(1, 10):
        await database.add(1, [seq], job_id="a" if seq % 2 else "b")
    await database.add(2, [1], job_id="a")
    await database.add(
        1, [10], ts=(await database.logs.list(session_id=1, limit=1))[0].ts, job_id="a"
    )
    around = database.logs.around
    assert told(await around((1, 5), before=2, after=9)) == (
        ["1:10", "1:3"],
        "1:5",
        ["1:7", "1:9", "2:1"],
    )
    assert told(await around((1, 5), before=2, after=1, within="session")) == (
        ["1:3", "1:4"],
        "1:5",
        ["1:6"],
    )
    assert told(await around((1, 1), before=0, after=1)) == ([], "1:1", ["1:10"])
    assert told(await around((2, 1))) == (["1:10", "1:3", "1:5", "1:7", "1:9"], "2:1", [])
    await database.add(3, [1, 2])
    assert told(await around((3, 2))) == (["3:1"], "3:2", [])


async def test_an_event_that_is_not_there(database):
    """An event that is not stored is an error that says why, where that is known; wrong arguments
    are refused (R36).
    """
    await database.add(1, [1])
    await database.gap(1, 2, 9, "pruned")
    with pytest.raises(EventNotFound, match=r"1:5.*pruned"):
        await database.logs.around((1, 5))
    for other in ((1, 10), (1, 0), (2, 5)):  # behind the gap, before it, of another session
        with pytest.raises(EventNotFound, match=f"{other[0]}:{other[1]}") as caught:
            await database.logs.around(other)
        assert "pruned" not in str(caught.value)
    for wrong in (
        {"before": -1},
        {"after": 1_001},
        {"before": True},
        {"within": "step"},
        {"within": "job"},
    ):
        with pytest.raises(InvalidFilter):
            await database.logs.around((1, 1), **wrong)
    with pytest.raises(InvalidFilter, match="session_id"):
        await database.logs.around(("1", 1))


@pytest.mark.slow
async def test_a_search_looks_at_a_limited_number_of_rows(database, monkeypatch):
    """A page of a search ends after so many rows, says so, and its cursors go on, both ways, to
    everything that matches (R36).
    """
    monkeypatch.setattr(paging, "SCAN_LIMIT", 10)
    monkeypatch.setattr(paging, "_FIRST_LOOK", 1)
    await database.session(1)
    await database.add(1, range(1, 46))
    for seq, text in ((46, "needle"), (47, "Needle again"), (48, "hay"), (49, "needles")):
        await database.add(
            1,
            [seq],
            message=text,
            attrs={"found": {"it": True}},
            project="moon" if text != "hay" else None,
        )
    searches = (
        {"text": "needle"},
        {"attrs": {"found.it": True}, "text": "NEEDLE"},
        {"level": "info", "text": "needle", "session_id": 1},
        {"project": "moon"},
        {"project": "moon", "category": "system", "level": "info"},
    )
    for filters in searches:
        pages, cursor = [await database.logs.list(limit=2, **filters)], None
        while (cursor := pages[-1].next_cursor) is not None:
            pages.append(await database.logs.list(limit=2, cursor=cursor, **filters))
        assert [event.message for page in pages for event in page] == [
            "needle",
            "Needle again",
            "needles",
        ]
        assert [page.partial for page in pages[:4]] == [True] * 4
        assert not pages[0]
        assert pages[-1].partial is False
        back, cursor = [], pages[-1].previous_cursor
        while cursor is not None:
            page = await database.logs.list(limit=2, cursor=cursor, **filters)
            back[:0] = [event.message for event in page]
            cursor = page.previous_cursor
        assert back == ["needle", "Needle again", "needles"][: 3 - len(pages[-1])]
        assert [event.message async for event in database.logs.iterate(limit=2, **filters)] == [
            "needle",
            "Needle again",
            "needles",
        ]
        newest = await database.logs.list(limit=2, order="desc", **filters)
        assert [event.message for event in newest] == ["needles", "Needle again"]
        assert not newest.partial
        assert await database.logs.count(**filters) == 3
        for last in (2, 3):
            tail = database.logs.tail(last=last, **filters)
            assert [event.message for event in await tail.poll(0)] == [
                "needle",
                "Needle again",
                "needles",
            ][max(0, 3 - last) :]
    assert not (await database.logs.list(level="error", text="x")).partial


async def test_a_full_page_of_a_search_goes_on_behind_its_last_row(database, monkeypatch):
    """faults H: where more rows match than a page holds, the next page begins behind the page, not
    behind what was looked at.
    """
    monkeypatch.setattr(paging, "SCAN_LIMIT", 10)
    await database.session(1)
    await database.add(1, range(1, 36), message="needle")
    for order in ("asc", "desc"):
        pages = [await database.logs.list(text="needle", limit=3, order=order)]
        while (cursor := pages[-1].next_cursor) is not None:
            pages.append(
                await database.logs.list(text="needle", limit=3, order=order, cursor=cursor)
            )
        seen = [event.seq for page in pages for event in page]
        assert seen == list(range(1, 36))[:: 1 if order == "asc" else -1]
        assert not any(page.partial for page in pages if len(page) == 3)
        back, cursor = [], pages[-1].previous_cursor
        while cursor is not None:
            page = await database.logs.list(text="needle", limit=3, order=order, cursor=cursor)
            back[:0] = [event.seq for event in page]
            cursor = page.previous_cursor
        assert back == seen[: len(back)]
        assert len(back) == 35 - len(pages[-1])


@pytest.mark.parametrize(
    "filters",
    [
        {"project": "moon"},
        {"text": "1:", "level": "warning"},
        {"type": "system", "level": "info", "text": "1:"},
    ],
)
async def test_a_search_is_counted_in_stretches(database, monkeypatch, filters):
    """Each event once, however the stretches divide those of the same moment (R36)."""
    await database.add(1, range(1, 16), project="moon", level="warning")
    (first,) = await database.logs.list(limit=1)
    await database.add(1, range(16, 36), project="moon", level="error", ts=first.ts)
    await database.add(2, range(1, 9))
    for limit in (1, 7, 35, 100):
        monkeypatch.setattr(paging, "SCAN_LIMIT", limit)
        assert await database.logs.count(**filters) == 35


async def test_a_regular_expression_is_plain_text(database):
    """A text filter means its characters: patterns of regular expressions and of LIKE find
    themselves (R36).
    """
    await database.add(1, [1], message="n.*dle 100%_")
    await database.add(1, [2], message="needle 100 of")
    for text in (".*", "100%", "%_", "N.*DLE"):
        assert [event.seq for event in await database.logs.list(text=text)] == [1]
