"""Live jobs and steps: what they are, how they begin and end, and what is recorded of it.

Each change of state is a whole row in the spool, written before anything is awaited: leaving
``async with`` needs no ``await`` to succeed, so no cancellation can get lost in it. Only the start
of a job waits, for its commit, so that everybody can find its id.
"""

from structjob.lifecycle.contexts import job, step
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.retries import Try, retrying
from structjob.lifecycle.steps import Step

__all__ = ["Job", "Step", "Try", "job", "retrying", "step"]
