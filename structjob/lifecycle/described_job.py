"""What a job is: its ids, names and labels, each of which is checked whenever it is set."""

from __future__ import annotations

from functools import partial
from typing import Any

from structjob.context.scope import Scope, new_id
from structjob.diagnostics import diagnostics
from structjob.lifecycle.arguments import (
    check_category,
    check_correlation_id,
    check_description,
    check_job_id,
    check_label,
    check_metadata,
    check_operation,
    check_root_id,
    check_text,
    check_total_steps,
    identifier,
)
from structjob.lifecycle.attributes import Checked
from structjob.lifecycle.claim import decoded
from structjob.lifecycle.core import Core
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.options import JobOptions
from structjob.lifecycle.rows import JobRow
from structjob.lifecycle.shared import Shared
from structjob.models import KEPT
from structjob.statuses import JobStatus

_DESCRIBING = ("operation", "job_type", "owner", "external_job_id", "context_id")
"""What the first event of a job says about it."""


_CHECKED = {
    name: "id" if name == "job_id" else name
    for name in JobOptions.__struct_fields__
    if name not in ("parent", "offline", "wait")
}
"""The attribute of a job that checks an option, by the option's name."""


def _root_of(host: JobHost[Any], parent: Scope | None) -> str | None:
    """Return the root job of a new job below *parent*.

    If the parent is only an id, the root is looked up among this process's live jobs. If it is not
    there, the parent's own id is returned.
    """
    if parent is None or parent.job_id is None:
        return None
    if parent.root_job_id is not None:
        return parent.root_job_id
    return next(
        (job.root_job_id for job in list(host.live) if job.id == parent.job_id), parent.job_id
    )


class DescribedJob(Core):
    """A live job, as far as its description goes.

    Attributes:
        columns: The part of its row that says what it is: its ids, names and labels.
        shared: What it shares with its steps.
    """

    __slots__ = ("_set_metadata", "_set_total_steps", "columns", "shared")
    table = "job"
    shared: Shared
    id = Checked(check_job_id)
    operation = Checked(check_operation)
    parent_job_id = Checked(
        identifier(partial(check_text, "parent_job_id", limit=64)), optional=True
    )
    root_job_id = Checked(check_root_id)
    correlation_id = Checked(check_correlation_id)
    job_type = Checked(partial(check_label, "job_type", limit=128), optional=True)
    description = Checked(check_description, optional=True)
    owner = Checked(partial(check_label, "owner", limit=128), optional=True)
    project = Checked(partial(check_label, "project", limit=128), optional=True)
    category = Checked(check_category)
    external_job_id = Checked(
        identifier(partial(check_text, "external_job_id", limit=255)), optional=True
    )
    context_id = Checked(identifier(partial(check_text, "context_id", limit=64)), optional=True)
    idempotency_key = Checked(
        identifier(partial(check_text, "idempotency_key", limit=255)), optional=True
    )
    metadata = Checked(check_metadata)
    total_steps = Checked(check_total_steps, optional=True)

    def __init__(
        self, host: JobHost[Any], operation: str, *, parent: Scope | None, options: JobOptions
    ) -> None:
        super().__init__(host)
        self.shared = Shared()
        inherited = parent.correlation_id if parent is not None else None
        given = (inherited or None) if options.correlation_id is None else options.correlation_id
        operation = check_operation(operation)
        # ids that are made here need no check
        job_id = new_id() if options.job_id is None else check_job_id(options.job_id)
        root = _root_of(host, parent)
        self.columns = JobRow(
            id=job_id,
            root_job_id=job_id if root is None else check_root_id(root),
            operation=operation,
            status=JobStatus.PENDING,
            category=check_category(options.category),
            correlation_id=new_id() if given is None else check_correlation_id(given),
            attempt=0,
            created_at=self.shared.created,
        )
        project = host.project
        if parent is not None:
            above = parent.labels
            self.parent_job_id, self.owner = parent.job_id, above.get("owner")
            project = above.get("project") or project
        if project is not None:
            self.project = project
        for name in KEPT:
            if (value := getattr(options, name)) is not None:
                setattr(self, name, value)
        self.metadata = options.metadata
        self.total_steps = options.total_steps

    def named(self) -> str:
        return f"job {self.id} ({self.operation})"

    def described(self) -> dict[str, Any]:
        """Return what its first event says about it."""
        columns = self.columns
        return {
            name: value for name in _DESCRIBING if (value := getattr(columns, name)) is not None
        }

    def take_over(self, former: dict[str, Any], options: JobOptions) -> None:
        """Take over what the database knows about the job from its earlier attempts.

        Args:
            former: The database's row of the job.
            options: The options of this attempt.
        """
        if former["operation"] != self.operation:
            diagnostics.warning(
                "%s continues a job_id that belonged to %r: it is one job, and its operation is %r from now on",
                self.named(), former["operation"], self.operation,
            )  # fmt: skip
        for name in KEPT:
            inherited = name in ("owner", "project") and getattr(options, name) is None
            if getattr(self, name) is None or (inherited and former[name] is not None):
                setattr(self, name, former[name])
        if options.category is None:
            self.category = former["category"]
        if options.correlation_id is None and self.parent_job_id is None:
            self.correlation_id = former["correlation_id"] or self.correlation_id
        if self.parent_job_id is None and former["parent_job_id"] is not None:
            self.parent_job_id, self.root_job_id = former["parent_job_id"], former["root_job_id"]
        self.metadata = {**(decoded(former["metadata"]) or {}), **self.metadata}
        self.shared.created = str(former["created_at"])


def check_arguments(operation: str, options: JobOptions) -> None:
    """Check the arguments of a job that is created later.

    Raises:
        InvalidArgument: if an argument is invalid.
    """
    check_operation(operation)
    for option, attribute in _CHECKED.items():
        if (value := getattr(options, option)) is not None:
            DescribedJob.__dict__[attribute].check(value)
