"""The process-wide state: what happens at a fork, and how to reset it to the state after import.

A module with process-wide state registers here how that state survives a fork and how it is reset.
The order of the hooks does not depend on the order of the imports.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

Hook = Callable[[], object]

FORK_ORDER = ("output", "terminals", "spools", "kept", "recorders", "routing", "sqlite", "signals")
"""The order of the hooks after a fork: a hook may write to anything that an earlier hook has made
usable. Before a fork the order is reversed, so that signals are blocked before any hook waits.
"""

_before: dict[str, Hook] = {}
_in_parent: dict[str, Hook] = {}
_in_child: dict[str, Hook] = {}
_resets: list[Hook] = []
_isolations: list[Callable[[], Hook]] = []


def at_fork(
    place: str,
    *,
    before: Hook | None = None,
    in_parent: Hook | None = None,
    in_child: Hook | None = None,
) -> None:
    """Register functions to call at each fork.

    Args:
        place: One of `FORK_ORDER`. Each place can be used only once.
        before: Called in the parent, before the fork.
        in_parent: Called in the parent, after the fork.
        in_child: Called in the child.
    """
    if place not in FORK_ORDER or any(place in hooks for hooks in (_before, _in_parent, _in_child)):
        raise ValueError(f"{place!r} is not in FORK_ORDER, or taken")
    for hooks, hook in ((_before, before), (_in_parent, in_parent), (_in_child, in_child)):
        if hook is not None:
            hooks[place] = hook


def on_reset(hook: Hook, isolate: Callable[[], Hook] | None = None) -> None:
    """Call *hook* when `reset` is called. It must reset its module to the state after import.

    Args:
        hook: See above.
        isolate: Called where `isolated` begins; returns what to call where it ends. Default: *hook*
            is called at both ends.
    """
    _resets.append(hook)

    def reset_twice() -> Hook:
        hook()
        return hook

    _isolations.append(isolate or reset_twice)


def reset() -> None:
    """Reset all process-wide state of structjob to the state after import.

    It is meant for tests, and for programs that set up logging again. It undoes `configure` and
    `install` and closes the sinks. It discards the events that wait for a tracker, the fault counts
    and the registered secrets. Warnings that are logged only once can be logged again.

    Close trackers first. A tracker that is still open is forgotten. It continues to record its own
    jobs, but gets no events without a job. It is not closed at the exit of the process, so events
    that it has not delivered stay in the spool.
    """
    # The state of higher modules depends on lower modules, which were imported earlier. So reset in
    # reverse order.
    _run(reversed(_resets))


@contextmanager
def isolated() -> Iterator[None]:
    """A block for a test: it begins without open trackers, and at its end everything is as before.

    The setup of the program stays in effect: `configure`, `install`, secrets, hooks.
    """
    with ExitStack() as stack:
        for isolate in reversed(_isolations):
            stack.callback(isolate())
        yield


def _run(hooks: Iterable[Hook]) -> None:
    # An exception in one hook must not prevent the others from running.
    with ExitStack() as stack:
        for hook in reversed(list(hooks)):
            stack.callback(hook)


def _in_order(hooks: dict[str, Hook]) -> list[Hook]:
    return [hooks[place] for place in FORK_ORDER if place in hooks]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _run(reversed(_in_order(_before))),
        after_in_parent=lambda: _run(_in_order(_in_parent)),
        after_in_child=lambda: _run(_in_order(_in_child)),
    )
