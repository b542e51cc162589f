"""Live jobs and steps: how they start and end, and what is recorded of them.

Each change of state is written to the spool as a whole row before anything is awaited. Leaving
``async with`` therefore needs no ``await`` to succeed, so no cancellation can be lost there. Only
the start of a job waits, until it is committed, so that other processes can find its id.
"""

from structjob.lifecycle.contexts import job, step
from structjob.lifecycle.jobs import Job, Step
from structjob.lifecycle.retries import Try
from structjob.lifecycle.retrying import retrying

__all__ = ["Job", "Step", "Try", "job", "retrying", "step"]
