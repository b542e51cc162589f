"""Real logs of other systems as records that ``structjob import`` takes in: what one writes to
bring an older tracker's history along.

The data are samples of Loghub (https://github.com/logpai/loghub; Zhu et al., ISSRE 2023), which are
not part of this project.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

PLACES = (os.environ.get("STRUCTJOB_LOGHUB", ""), "../shared/data/loghub", "data/loghub")

Line = dict[str, str]
SinkEvent = dict[str, Any]

_ATTEMPT = re.compile(r"attempt_\d+_\d+_([mr]_\d+_\d+)")
_APPLICATION = re.compile(r"(?:application|appattempt|job)_(\d+_\d+)")
_MOVED = re.compile(r"TaskAttempt Transitioned from \w+ to (\w+)")
_EXITED = re.compile(r"exited : ([\w.]+): (.*)")
_INSTANCE = re.compile(r"\[instance: ([0-9a-f-]{36})\]")
_TOOK = re.compile(r"Took ([\d.]+) seconds to (spawn|build|destroy|deallocate)")


def sample(name: str) -> list[Line] | None:
    """Return the lines of a sample (``Hadoop``, ``OpenStack``), taken apart; None if it is not
    there.
    """
    root = Path(__file__).parent.parent
    file = f"{name}_2k.log_structured.csv"
    for place in filter(None, PLACES):
        for path in (root / place / file, root / place):
            if path.is_file() and path.name == file:
                with path.open(encoding="utf-8", newline="") as lines:
                    return list(csv.DictReader(lines))
    return None


def write(records: Iterable[SinkEvent], path: Path) -> None:
    """Write *records* as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def hadoop(lines: Iterable[Line]) -> Iterator[SinkEvent]:
    """Yield a MapReduce application as a job, each task attempt as a step of it, and every line
    where it belongs.

    A task attempt that exited with an exception failed by it. The log breaks off before the
    application ends: it is written as running, and the import makes a crash of it.
    """
    jobs: dict[str, SinkEvent] = {}
    steps: dict[str, SinkEvent] = {}
    events: list[SinkEvent] = []
    current = None
    for line in lines:
        content, ts = line["Content"], f"{line['Date']}T{line['Time'].replace(',', '.')}Z"
        if found := _APPLICATION.search(content):
            current = f"application_{found[1]}"
            about = {
                "record": "job",
                "id": current,
                "operation": "mapreduce",
                "job_type": "hadoop",
                "status": "running",
                "created_at": ts,
            }
            jobs.setdefault(current, {**about, "started_at": ts})
        step, failure = None, {}
        if current is not None and (found := _ATTEMPT.search(content)):
            id_, name = found[0], found[1]
            step = steps.setdefault(
                id_,
                {
                    "record": "step",
                    "id": id_,
                    "job_id": current,
                    "name": name,
                    "seq": len(steps) + 1,
                    "status": "running",
                    "started_at": ts,
                },
            )
            if exited := _EXITED.search(content):
                kind = exited[1].rpartition(".")[2]
                step |= {
                    "status": "failed",
                    "completed_at": ts,
                    "error": {"type": kind, "message": exited[2]},
                }
                failure = {"error_type": kind, "error_message": exited[2]}
            elif (moved := _MOVED.search(content)) and moved[1] == "SUCCEEDED":
                step |= {"status": "completed", "completed_at": ts}
        events.append({
            "record": "event", "ts": ts, "level": {"FATAL": "critical"}.get(line["Level"], line["Level"].lower()), "message": content,
            "logger": line["Component"], "process": line["Process"], "line": int(line["LineId"]),
            "job_id": current, "operation": "mapreduce" if current else None, "step_id": step and step["id"], "step": step and step["name"],
            **failure,
        })  # fmt: skip
    yield from jobs.values()
    yield from steps.values()
    yield from events


def openstack(lines: Iterable[Line]) -> Iterator[SinkEvent]:
    """Yield each virtual machine as a job, from its first line to its last, with what Nova measured
    as its steps.

    Lines that name no machine are system events.
    """
    jobs: dict[str, SinkEvent] = {}
    steps: list[SinkEvent] = []
    events: list[SinkEvent] = []
    for line in lines:
        content, ts = line["Content"], f"{line['Date']}T{line['Time']}Z"
        found = _INSTANCE.search(content)
        id_ = found[1] if found else None
        if id_ is not None:
            job = jobs.setdefault(id_, {
                "record": "job", "id": id_, "operation": "instance", "job_type": "nova", "status": "completed",
                "created_at": ts, "started_at": ts,
            })  # fmt: skip
            job["completed_at"] = ts
            if took := _TOOK.search(content):
                ms = float(took[1]) * 1000
                began = (datetime.fromisoformat(ts) - timedelta(milliseconds=ms)).isoformat()
                step = {
                    "record": "step",
                    "id": f"{id_}-{took[2]}",
                    "job_id": id_,
                    "name": took[2],
                    "seq": len(steps) + 1,
                }
                steps.append(
                    {
                        **step,
                        "status": "completed",
                        "started_at": began,
                        "completed_at": ts,
                        "duration_ms": ms,
                    }
                )
        events.append({
            "record": "event", "ts": ts, "level": line["Level"].lower(), "message": content, "logger": line["Component"],
            "line": int(line["LineId"]), "job_id": id_, "operation": "instance" if id_ else None,
            "correlation_id": line["ADDR"].split()[0] if line["ADDR"].startswith("req-") else None,
        })  # fmt: skip
    yield from jobs.values()
    yield from steps
    yield from events
