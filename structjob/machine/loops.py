"""The event loop of running code."""

from __future__ import annotations

import asyncio

running_loop = asyncio._get_running_loop  # noqa: SLF001 -- the public function raises an exception without a loop, which takes ten times as long
"""Return the loop that runs in this thread, or ``None``."""
