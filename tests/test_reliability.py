"""The command that breaks things finds what is not as promised, and writes its figures where they
belong; see `reliability`.
"""

from __future__ import annotations

import clusters
import losses
import pytest
import reliability
from oracle import Verdict
from reliability import DOCUMENT, SECTIONS, report, scenarios, whole, write

EVERY = scenarios(1, 1, 1)


@pytest.fixture
def document(tmp_path, monkeypatch):
    """A copy of the document, which the command takes for the document."""
    copy = tmp_path / "docs" / "reliability.md"
    copy.parent.mkdir()
    copy.write_text(DOCUMENT.read_text())
    monkeypatch.setattr(reliability, "DOCUMENT", copy)
    monkeypatch.setattr(reliability, "TESTS", tmp_path / "tests")
    return copy


def found(missing, *, lost=3, returned=100, offered=100, code=1, loses=True):
    verdict = Verdict(offered=offered, returned=returned, stored=returned - lost, lost=lost)
    return losses.Found("rows are deleted", "sqlite", 1, verdict, missing, code, loses)


def test_what_verify_finds_is_what_was_lost():
    """faults 0.1: a number too many or too few is not as promised; only a number that a killed
    thread had in its hands may be too many.
    """
    assert not found(3).problems
    assert not found(4, offered=101).problems
    assert not found(0, lost=0, code=0, loses=False).problems
    assert found(0, code=0).problems == ["verify found 0 events missing where 3 were lost"]
    assert found(2).problems == ["verify found 2 events missing where 3 were lost"]
    assert found(4).problems == ["verify found 4 events missing where 3 were lost"]
    assert found(1, lost=0, offered=108, loses=False).problems == [
        "verify found 1 events missing where 0 were lost"
    ]
    assert found(3, code=0).problems == ["verify ended with exit code 0"]
    assert found(0, lost=0, code=0).problems == ["nothing was lost: nothing broke"]
    assert "3 lost" in found(3, loses=False).problems


def test_an_event_that_a_cluster_lost_or_doubled_is_found():
    """faults 0.7: events that are absent, and rows beyond the first of an event, are not as
    promised.
    """
    outcome = clusters.Clustered("six programs", "galera", 1, 100, 98, 1, 0.5)
    assert outcome.problems == ["2 events are lost", "1 events are duplicated"]


def test_the_document_says_what_is_not_as_promised():
    """faults 0.1: the table has the number that was lost beside the number that was found, and a
    line below it names the scenario.
    """
    scenario = next(one for one in EVERY if one.section is losses.SECTION)
    text = report(losses.SECTION, [(scenario, found(0, code=0))], [scenario.lane])
    assert "| rows are deleted | sqlite | 1 | 100 | 3 | 0 | 0 |" in text
    assert (
        "Not as promised:\n\n- rows are deleted, sqlite: verify found 0 events missing where 3 were lost"
        in text
    )


def test_a_table_is_written_alone(document):
    """The figures of one section are replaced; every other line of the document stays."""
    before = document.read_text()
    write(document, {"losses": "NEW"})
    after = document.read_text()
    start, end = "<!-- figures: losses: begin -->", "<!-- figures: losses: end -->"
    assert after.partition(start)[0] == before.partition(start)[0]
    assert after.partition(end)[2] == before.partition(end)[2]
    assert after.partition(start)[2].partition(end)[0] == "\n\nNEW\n\n"


def test_a_document_without_a_place_is_left_alone(document):
    """A section without marks is an error that names them; nothing is written, not even the
    sections that have a place.
    """
    before = document.read_text()
    with pytest.raises(ValueError, match="needs the lines <!-- figures: nonsense: begin -->"):
        write(document, {"losses": "NEW", "nonsense": "NEW"})
    assert document.read_text() == before


def test_every_section_has_its_place_and_its_scenarios():
    """The document has a place for the figures of each section, and each section has scenarios."""
    text = DOCUMENT.read_text()
    for section in SECTIONS:
        assert (
            text.count(f"<!-- figures: {section.name}: begin -->")
            == text.count(f"<!-- figures: {section.name}: end -->")
            == 1
        )
    assert {one.section for one in EVERY} == set(SECTIONS)
    assert len({(one.title, one.lane) for one in EVERY}) == len(EVERY)


@pytest.mark.parametrize(
    "words",
    [["--only", "frozen"], ["--backend", "sqlite"], ["--only", "losses:", "--backend", "sqlite"]],
)
async def test_a_part_of_a_table_is_not_written(words, document, capsys):
    """``--write`` with a part of a table's scenarios would wipe the other rows: it is refused
    before anything is broken.
    """
    before = document.read_text()
    with pytest.raises(SystemExit, match="2"):
        await reliability.main([*words, "--write"])
    assert "--write replaces whole tables, and this is only a part of: " in capsys.readouterr().err
    assert document.read_text() == before


async def test_a_word_that_no_scenario_has_is_an_error(capsys):
    """``--only`` with a mistake in it names the sections, and does not end with "as promised"."""
    with pytest.raises(SystemExit, match="2"):
        await reliability.main(["--only", "loses:"])
    assert (
        "no scenario has 'loses:' in its name; sections: faults, losses, replacements, clusters, environments"
        in capsys.readouterr().err
    )


def test_a_whole_section_may_be_written():
    """With a section's name all of its scenarios are run, and no other section counts as whole."""
    assert whole(EVERY, [one for one in EVERY if "losses:" in one.title]) == {"losses"}
    assert whole(EVERY, EVERY) == {section.name for section in SECTIONS}


async def test_the_others_keep_their_figures(document, monkeypatch, capsys):
    """``--only SECTION: --write`` writes this section's table; a scenario that breaks off is in it,
    and makes the exit code 1.
    """

    async def breaks_off(directory, server):
        raise RuntimeError("the machine is on fire")

    some = [
        losses.Scenario(clusters.SECTION, "a node is killed", "galera", breaks_off),
        *(one for one in EVERY if "losses:" in one.title),
    ]
    monkeypatch.setattr(reliability, "scenarios", lambda *numbers: some)
    before = document.read_text()
    assert await reliability.main(["--only", "clusters:", "--write"]) == 1
    after = document.read_text()
    mark = "<!-- figures: clusters: begin -->"
    assert after.partition(mark)[0] == before.partition(mark)[0]
    assert (
        "- a node is killed, galera: RuntimeError: the machine is on fire"
        in after.partition(mark)[2]
    )
    assert (
        after.rpartition("<!-- figures: clusters: end -->")[2]
        == before.rpartition("<!-- figures: clusters: end -->")[2]
    )
    assert "a node is killed, galera: RuntimeError" in capsys.readouterr().err
