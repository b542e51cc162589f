"""Processors for a chain of structlog's own; `structjob.configure` and `structjob.install` put
theirs in place.
"""

from __future__ import annotations

from structjob.capture.fanout import FanOut
from structjob.capture.noise import RateLimit
from structjob.capture.processors import RequireCorrelation, Sampler, add_context, record_event

__all__ = ["FanOut", "RateLimit", "RequireCorrelation", "Sampler", "add_context", "record_event"]
