"""The event loop of running code."""

from __future__ import annotations

import asyncio
import sys
import threading


def _of_this_greenlet() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this greenlet, or ``None``.

    After gevent's or eventlet's patches, threads are greenlets. asyncio then finds the loop of one
    of them, the tracker's own, in all of them.
    """
    loop = asyncio._get_running_loop()  # noqa: SLF001 -- see `running_loop`
    return loop if getattr(loop, "_thread_id", None) == threading.get_ident() else None


def _threads_are_greenlets() -> bool:
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )


running_loop = _of_this_greenlet if _threads_are_greenlets() else asyncio._get_running_loop  # noqa: SLF001 -- the public function raises an exception without a loop, which takes ten times as long
"""Return the loop that runs in this thread, or ``None``."""
