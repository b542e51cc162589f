"""What exists once per process: what happens at a fork, and the way back to the state of import.

A module with process-wide state registers here, beside that state, how it survives a fork and how
it is put back. The order does not depend on which module was imported first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack

Hook = Callable[[], object]

FORK_ORDER = ("output", "terminals", "spools", "recorders", "routing", "sqlite", "signals")
"""After a fork the hooks run in this order: what later ones write to must be usable first. Before
a fork they run backwards: signals are blocked before anything waits.
"""

_before: dict[str, Hook] = {}
_in_parent: dict[str, Hook] = {}
_in_child: dict[str, Hook] = {}
_resets: list[Hook] = []


def at_fork(
    place: str,
    *,
    before: Hook | None = None,
    in_parent: Hook | None = None,
    in_child: Hook | None = None,
) -> None:
    """Call these functions at each fork.

    Args:
        place: One of `FORK_ORDER`; each is taken once.
        before: In the parent, before the fork.
        in_parent: In the parent, after it.
        in_child: In the child.
    """
    if place not in FORK_ORDER or any(place in hooks for hooks in (_before, _in_parent, _in_child)):
        raise ValueError(f"{place!r} is not in FORK_ORDER, or taken")
    for hooks, hook in ((_before, before), (_in_parent, in_parent), (_in_child, in_child)):
        if hook is not None:
            hooks[place] = hook


def on_reset(hook: Hook) -> None:
    """Call *hook* when `reset` is called. It puts its module's state back to that of the import."""
    _resets.append(hook)


def reset() -> None:
    """Put everything that structjob keeps for the whole process back to the state of import.

    For tests, and for programs that set logging up a second time from nothing. It undoes
    `configure` and `install`, closes the sinks, forgets events that wait for a tracker, counted
    faults and registered secrets, and lets the next warnings that are given once be given again.

    Close trackers first. One that is still open is forgotten: it goes on recording its own jobs,
    and takes no event that belongs to no job; at the exit of the process it is not closed, so what
    it has not delivered stays in the spool.
    """
    # The modules above use those below, which were imported earlier.
    _run(reversed(_resets))


def _run(hooks: Iterable[Hook]) -> None:
    # One that raises does not keep the others from running.
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
