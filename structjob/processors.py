"""Processors for your own structlog chain. `structjob.configure` and `structjob.install` add theirs
automatically.
"""

from __future__ import annotations

from structjob.capture.fanout import FanOut
from structjob.capture.noise import RateLimit, Sampler
from structjob.capture.processors import RequireCorrelation, add_context, record_event

__all__ = ["FanOut", "RateLimit", "RequireCorrelation", "Sampler", "add_context", "record_event"]
