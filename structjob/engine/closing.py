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
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.engine.hosting import Host

CONNECTIONS_SHARE = 0.1
"""Share of the time for closing that is reserved for the database connections.

It is one second at most.
"""

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
            if host.claims:
                await asyncio.wait(set(host.claims), timeout=min(seconds / 4, 1.0))
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
        host.engine.end_recording()  # if the engine's loop does not run, the engine is still open
        try:
            await _close_store(host, deadline)
        finally:
            shutdown.leave(host)
            readers()
    if not complete:
        _warn_of_rest(host)
    return complete


async def _close_engine(host: Host, deadline: float) -> bool:
    engine = host.engine
    if engine.without_loop() is not None:
        return await asyncio.to_thread(engine.close_without_loop, deadline - time.monotonic())
    with suppress(TimeoutError):
        # The engine's own loop may no longer run.
        async with asyncio.timeout(max(0.0, deadline - time.monotonic()) + _CLEANUP_TIMEOUT):
            return await host.on_own_loop(engine.close(max(0.0, deadline - time.monotonic())))
    return False


async def _close_store(host: Host, deadline: float) -> None:
    link = host.engine.link
    if host.engine.without_loop() is not None:
        with suppress(Exception):  # driver errors: its connections belonged to the closed loop
            await asyncio.wait_for(link.close(), max(0.0, deadline - time.monotonic()))
        return
    closing = asyncio.ensure_future(host.on_own_loop(link.close()))
    # Not `asyncio.timeout`, because a driver may also be slow to react to a cancellation.
    await asyncio.wait({closing}, timeout=max(0.0, deadline - time.monotonic()))
    if not closing.done():
        closing.cancel()
    elif (
        not closing.cancelled()
        and (fault := closing.exception()) is not None
        and not isinstance(fault, StoreUnavailable)
    ):
        raise fault


def _warn_of_rest(host: Host) -> None:
    """Warn with the number of events that are not stored, and their place."""
    engine = host.engine
    left = engine.ledger()
    if left.spilled or left.in_memory:
        diagnostics.warning(
            "closed with %s not stored in %s; %s",
            count_of(left.spilled + left.in_memory, "event"),
            engine.store.masked_url,
            f"they wait in {engine.recorder.root}, and the next tracker delivers them"
            if engine.recorder.root
            else "they are lost: there is no spool",
        )
