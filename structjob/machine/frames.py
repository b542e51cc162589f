"""The frames of running code."""

from __future__ import annotations

import sys

frame_at = sys._getframe  # noqa: SLF001 -- `inspect` offers the same, and takes longer to import
"""Return a frame of the calling thread: the caller's own, or the one *depth* levels above it."""
frames_of_threads = sys._current_frames  # noqa: SLF001 -- there is no public function
"""Return the top frame of each thread by the thread's id."""
