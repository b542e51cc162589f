"""Opens a tracker, which takes over what lies in the spool, and delivers it; says when it is open,
and when all is stored.

Arguments: URL, directory of the spools.
"""

import asyncio
import sys

import structjob


async def main() -> None:
    async with structjob.Tracker(sys.argv[1], spool=sys.argv[2], batch_size=100) as tracker:
        print("open", flush=True)
        await tracker.flush()
        print("flushed", flush=True)


asyncio.run(main())
