"""Real history, brought in and explored on the command line alone: what failed, where, by what, how
often, how slowly.

The data are the Hadoop and OpenStack samples of Loghub (https://github.com/logpai/loghub).
"""

import json
import re

import loghub
import pytest
from cli_support import typed

HADOOP, OPENSTACK = loghub.sample("Hadoop"), loghub.sample("OpenStack")
pytestmark = pytest.mark.skipif(
    HADOOP is None or OPENSTACK is None,
    reason="the samples of Loghub are not there: set STRUCTJOB_LOGHUB to the directory that holds them",
)


@pytest.fixture
def ask(database, tmp_path):
    """Return what a command says, of a database that both histories were imported into."""
    for name, records in (
        ("hadoop", loghub.hadoop(HADOOP)),
        ("openstack", loghub.openstack(OPENSTACK)),
    ):
        path = tmp_path / f"{name}.jsonl"
        loghub.write(records, path)
        told = typed(database.url, "import", str(path))
        assert "and 2,000 lines in" in told
    return lambda *words, **options: typed(database.url, *words, **options)


def next_command(told):
    """Return the words of the first command that an answer ends with."""
    found = re.search(r"^next:  structjob --db \S+ (.*)$", told, re.MULTILINE)
    assert found, told
    return found[1].split()


def test_what_failed_and_why_is_found_by_following_the_commands(ask):
    """R20, R36, R39, R49: from the statistics to the application, its tasks, their error, how often
    it was, and the lines around it.
    """
    # Which application? The statistics lead to it.
    statistics = ask("stats")
    assert re.search(r"^ +1 +0 +0 +1 +0.0% +mapreduce$", statistics, re.MULTILINE)
    jobs = ask(*next_command(statistics))
    (row,) = [line for line in jobs.splitlines() if "mapreduce" in line]
    application = row.split()[0]
    assert application == "application_1445144423722_0020"
    assert "✗ crashed" in row
    assert " 9m 07s " in row  # until its last line, and not until today

    # In which task, with what error?
    shown = ask("show", application)
    failed = re.findall(
        r"^  ✗ (\S+) .* failed\n +NoRouteToHostException: No Route to Host from  MININT-FNANLI5",
        shown,
        re.MULTILINE,
    )
    assert failed == ["m_000001_0", "m_000002_0"]
    assert "✓ m_000003_0" in shown
    assert "ERROR IN CONTACTING RM." in shown.partition("Last lines")[2]

    # How often before, and where?
    errors = {line.split()[0]: line for line in ask("errors").splitlines() if " open " in line}
    counts = {id_: int(line.split()[3]) for id_, line in errors.items()}
    assert sorted(counts.values()) == [1, 1, 1, 2, 147]
    (unreachable,) = [
        id_ for id_, line in errors.items() if "NoRouteToHostException: No Route to Host" in line
    ]
    told = ask("errors", "show", unreachable)
    assert "seen        2 times, in 1 job" in told
    assert [line.split("  ")[-2] for line in told.splitlines() if re.match(r"  2015.*mapreduce › ", line)] == [
        "mapreduce › m_000001_0", "mapreduce › m_000002_0",
    ]  # fmt: skip
    counted = ask("stats", "errors", "--operation", "mapreduce")
    assert re.search(
        r"^ +1 +1 +2015-10-18 \d\d:\d\d +mapreduce +m_000002_0 +NoRouteToHostException$",
        counted,
        re.MULTILINE,
    )

    # What do the lines around it say?
    around = ask(*next_command(told))
    assert (
        "Task: attempt_1445144423722_0020_m_000001_0 - exited : java.net.NoRouteToHostException"
        in around
    )
    assert "line=1050" in around  # the application's own line just before, of another thread
    assert "Retrying connect to server: msra-sa-41:8030" in around
    (often,) = [id_ for id_, count in counts.items() if count == 147]
    every = ask(*next_command(ask("errors", "show", often)), "--json")
    assert [json.loads(line)["message"].strip() for line in every.splitlines()] == [
        "ERROR IN CONTACTING RM."
    ] * 147
    warned = ask("logs", application, "-l", "warning", "--grep", "renew lease", "--last", "1")
    assert "for 356 seconds" in warned


def test_what_was_slower_than_usual_is_told(ask):
    """R38, R49: beside what came before it: how long a machine takes as a rule, and which of its
    steps took longer.
    """
    by_hand = {}
    former = {"deallocate": [], "destroy": [], "spawn": [], "build": []}
    for step in loghub.openstack(OPENSTACK):
        if step["record"] == "step":
            before = sorted(former[step["name"]])
            if len(before) >= 5 and step["duration_ms"] > before[-(-len(before) * 95 // 100) - 1]:
                by_hand.setdefault(step["job_id"], {})[step["name"]] = (
                    f"{before[-(-len(before) // 2) - 1]:.0f}ms"
                )
            former[step["name"]].append(step["duration_ms"])
    assert by_hand["17288ea8-cbf4-4f0e-94fe-853fd2735f29"] == {"deallocate": "470ms"}
    machines = json.loads(ask("jobs", "--operation", "instance", "--json"))
    assert len(machines) == 22
    as_usual = [machine["id"] for machine in machines if machine["id"] not in by_hand]
    for id_ in [*by_hand, as_usual[0]]:
        shown = ask("show", id_)
        assert dict(
            re.findall(r"✓ (\w+) .*  slow: usually (\S+)$", shown, re.MULTILINE)
        ) == by_hand.get(id_, {})
    assert re.search(r"^  usual +43.\ds$", shown, re.MULTILINE)
    statistics = ask("stats", "steps", "--operation", "instance")
    assert re.search(
        r"^ +22 +22 +0 +0 +100.0% +20.5s +20.6s +21.1s +21.3s +instance +build$",
        statistics,
        re.MULTILINE,
    )


def test_lines_are_found_by_what_they_say(ask):
    """R36, R49: by logger, by request, by attribute, by time; those of no machine are system
    events.
    """
    found = json.loads(
        ask("logs", "--since", "2017-01-01", "-l", "warning", "--json=array", "--limit", "3")
    )
    (warning,) = {event["logger"] for event in found}
    assert warning == "nova.virt.libvirt.imagecache"
    machine = json.loads(ask("jobs", "--operation", "instance", "--json", "-n", "1"))[0]["id"]
    lines = json.loads(ask("logs", machine, "--json=array"))
    assert {line["job_id"] for line in lines} == {machine}
    assert (
        ask("logs", "--grep", "HTTP exception thrown", "--utc").count(
            "No instances found for any event"
        )
        == 21
    )
    by_line = json.loads(ask("logs", "-w", "line=1053", "--json=array", "--until", "2016-01-01"))
    assert [line["step"] for line in by_line] == ["m_000001_0"]
