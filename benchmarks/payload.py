"""What every case logs: one realistic event with five attributes, in a job and a step.

The job has a correlation id.
"""

from __future__ import annotations

MESSAGE = "chunk copied"
VM = "5f0c6a5e-7b1d-4a53-9c1e-2f7f3a0f9d11"
TRANSFERRED = 482_913_077_215
RATIO = 0.7316
PATH = "/srv/images/pg-01/disk-0.qcow2"

JOB_ID = "018f6a2e-54d1-7c3a-9b44-0c2f5d7e1a90"
STEP_ID = "018f6a2e-5e07-7f11-8d02-6b9c1e4a7f35"
CORRELATION_ID = "req-7c1e2f9b40d84c6f"
JOB, STEP = "vm-migrate", "copy"

CONTEXT = {
    "job_id": JOB_ID,
    "step_id": STEP_ID,
    "operation": JOB,
    "step": STEP,
    "correlation_id": CORRELATION_ID,
}
"""The ids that a peer binds, so that its events can be found by the same ids as structjob's."""


def context(number: int) -> dict[str, str]:
    """Return the context of step *number*, one of many in the same job."""
    return {**CONTEXT, "step_id": f"{STEP_ID[:-4]}{number:04x}"}


def attributes(transferred: int = TRANSFERRED) -> dict[str, object]:
    """Return the five attributes: a UUID string, a 12-digit integer, a float, a bool, a path."""
    return {"vm": VM, "transferred": transferred, "ratio": RATIO, "verified": True, "path": PATH}
