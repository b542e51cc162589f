"""A store without a tracker: lines as a spool holds them, to write; and what came of
them, to read.
"""

from __future__ import annotations

import contextlib

import msgspec

from structjob.queries.logs import Logs
from structjob.spool.line import seal
from structjob.store.factory import make_store
from structjob.store.ingest import COLUMNS, JOB_COLUMNS

T0 = "2026-01-01 00:00:00.000000"


@contextlib.asynccontextmanager
async def opened(database, url=None, **options):
    store = make_store(url or database.url, options)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def event(seq, message="m", **fields):
    """A line of the spool."""
    body = {"ts": T0, "level": "info", "message": message, "attrs": {}} | fields
    return seal(msgspec.json.encode(body)[:-1], b',"seq":%d' % seq)


def events(*numbers, **fields):
    return b"".join(event(number, **fields) for number in numbers)


def state(kind, number, **row):
    return seal(msgspec.json.encode({"kind": kind, "row": row})[:-1], b',"state_seq":%d' % number)


def job_row(id_="j", **values):
    common = {
        "id": id_,
        "operation": "o",
        "status": "running",
        "category": "system",
        "attempt": 1,
        "created_at": T0,
        "started_at": T0,
    }
    return (
        dict.fromkeys(name for name in JOB_COLUMNS if name not in ("session_id", "state_seq"))
        | common
        | values
    )


def job(number, id_="j", **values):
    return state("job", number, **job_row(id_, **values))


def step(number, id_="s", **values):
    names = (name for name in COLUMNS["structjob_steps"] if name not in ("session_id", "state_seq"))
    common = {"id": id_, "job_id": "j", "attempt": 1, "seq": 1, "name": "copy", "status": "running"}
    return state("step", number, **(dict.fromkeys(names) | common | values))


def claim_row(id_, session=1, **values):
    return job_row(id_, **values) | {"session_id": session, "state_seq": 0}


async def no_flush():
    pass


async def read(store):
    return list(await Logs(store.fetch, no_flush).list(limit=1000))
