"""Closing a tracker: pending events are stored and all resources are released, within a timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from structjob.diagnostics import diagnostics
from structjob.engine import shutdown
from structjob.exceptions import StoreUnavailable
from structjob.store.worker import in_own_thread
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.engine.hosting import Host

CONNECTIONS_SHARE = 0.1
"""Share of the time for closing that is reserved for the database connections.

It is one second at most.
"""

_CLAIMS_TIMEOUT = 1.0
"""Maximum seconds that closing waits for the answers to starts that were interrupted."""

_LOOK_INTERVAL = 0.005
"""Seconds between two checks of these."""

_CLEANUP_TIMEOUT = 0.1
"""Seconds that an engine may exceed its time for closing."""


async def close(host: Host, seconds: float, readers: Callable[[], None]) -> bool:
    """Close what `structjob.engine.opening` has opened; return whether everything is stored.

    Args:
        host: The tracker, as the lower layers see it.
        seconds: Maximum time in seconds.
        readers: Closes the readers; called last.
    """
    deadline = time.monotonic() + seconds
    for_connections = min(seconds * CONNECTIONS_SHARE, 1.0)
    try:
        try:
            await _answered(host, min(seconds / 4, _CLAIMS_TIMEOUT))
        except BaseException:  # a cancelled close still closes everything, immediately
            deadline = time.monotonic() + for_connections
            raise
        finally:
            if shutdown.under_way():
                shutdown.cancel(host)
            complete = await _close_engine(host, deadline - for_connections)
    # for example a second Ctrl-C: the store's thread must not keep the process alive
    except BaseException:
        deadline = time.monotonic() + for_connections
        raise
    finally:
        try:
            host.engine.end_recording()  # not done yet if the engine's loop does not run
            await _close_store(host, deadline)
        finally:
            shutdown.leave(host)
            readers()
    if not complete:
        _warn_of_rest(host)
    return complete


async def _answered(host: Host, seconds: float) -> None:
    """Wait for the answers to starts that were interrupted, in whichever loop they come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while host.claims:  # noqa: ASYNC110 -- they come from several loops
                await asyncio.sleep(_LOOK_INTERVAL)


async def _close_engine(host: Host, deadline: float) -> bool:
    engine = host.engine
    if engine.without_loop() is not None:
        return await in_own_thread(engine.close_without_loop, deadline - time.monotonic())
    with suppress(TimeoutError):
        # The engine's own loop may no longer run.
        async with asyncio.timeout(max(0.0, deadline - time.monotonic()) + _CLEANUP_TIMEOUT):
            return await host.on_own_loop(engine.close(deadline - time.monotonic()))
    return False


async def _close_store(host: Host, deadline: float) -> None:
    link, orphaned = host.engine.link, host.engine.without_loop() is not None
    closing = asyncio.ensure_future(link.close() if orphaned else host.on_own_loop(link.close()))
    # Not `asyncio.timeout`, because a driver may also be slow to react to a cancellation.
    await asyncio.wait({closing}, timeout=deadline - time.monotonic())
    if not closing.done():
        closing.cancel()
        return
    fault = None if closing.cancelled() else closing.exception()
    # if their loop is closed, drivers complain
    if fault is not None and not orphaned and not isinstance(fault, StoreUnavailable):
        diagnostics.warning(
            "closing the connections to %s failed: %s: %s",
            host.engine.store.masked_url, type(fault).__name__, fault,
        )  # fmt: skip


def _warn_of_rest(host: Host) -> None:
    """Warn with the number of events that are not stored, and their place."""
    engine = host.engine
    left = engine.ledger()
    if left.spilled or left.in_memory:
        diagnostics.warning(
            "closed with %s not stored in %s; %s",
            count_of(left.spilled + left.in_memory, "event"),
            engine.store.masked_url,
            f"the next tracker delivers what waits in {engine.recorder.root}"
            if engine.recorder.root
            else "what was not stored is lost, because there is no spool",
        )
