"""Opens a tracker, which takes over what lies in the spool, and delivers it; says when it is open,
and when all is stored.

Arguments: URL, directory of the spools; and ``alone`` for a deliverer in place of the tracker. That
goes on until it is killed.
"""

import asyncio
import sys

import structjob


async def main() -> None:
    url, spool, *alone = sys.argv[1:]
    opened = (
        structjob.Deliverer(url, spool=spool)
        if alone
        else structjob.Tracker(url, spool=spool, batch_size=100)
    )
    async with opened:
        print("open", flush=True)
        await opened.flush()
        print("flushed", flush=True)
        if alone:
            await asyncio.Event().wait()


asyncio.run(main())
