"""What operators do with the stored data of a tracker: export, import, prune and verify it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from structjob.engine.opening import Options
from structjob.exceptions import InvalidArgument
from structjob.models import AnyJob, PruneResult
from structjob.numeric import is_number
from structjob.retention.policy import Retention, retention_of

if TYPE_CHECKING:
    from structjob.engine.engine import Engine
    from structjob.engine.hosting import Host
    from structjob.queries.jobs import Jobs
    from structjob.queries.logs import Logs
    from structjob.queries.verify import VerifyResult
    from structjob.store.contract import Store
    from structjob.transfer.export import ExportFormat
    from structjob.transfer.imports import ImportResult

_PRUNE_TIMEOUT = 30.0
"""Default maximum of seconds to wait while another process prunes."""


class Upkeep:
    """The calls of a tracker that concern stored data. A subclass opens host and readers."""

    _host: Host
    _options: Options
    _engine: Engine
    _store: Store
    jobs: Jobs
    logs: Logs

    async def export(
        self,
        any_id: AnyJob,
        path: str | os.PathLike[str],
        *,
        format: ExportFormat | None = None,
        children: bool = True,
    ) -> int:
        """Write a job with its attempts, steps and events to a JSON Lines file for `import_`; or
        only its events, as CSV or as text.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`; see
                `Jobs.find`.
            path: The file. It is compressed if its name ends in ``.gz``. An existing file is
                replaced. Only its owner can read it.
            format: ``jsonl``, ``csv`` or ``text``. By default the extension decides: ``.csv``:
                ``csv``; ``.txt``, ``.log``: ``text``; anything else: ``jsonl``.
            children: Whether to include the job's descendants, True by default.

        Returns:
            The number of lines. For CSV it includes the headings; for text it is the number of
            events.

        Raises:
            JobNotFound: if there is no such job.
            OSError: if the file cannot be written.
            InvalidArgument: if there is no such format, or the file name has the extension of
                another one.
        """
        from structjob.transfer.event_lines import event_lines
        from structjob.transfer.export import format_of, job_lines, write_lines

        form = format_of(path, format)
        job = await self.jobs.find(any_id)
        if form == "jsonl":
            lines = job_lines(self.jobs, self.logs, job.id, children=children)
        else:
            lines = event_lines(self.logs, form, {"job_id": job.id, "children": children})
        return await write_lines(lines, path)

    async def import_(
        self,
        path: str | os.PathLike[str],
        *,
        ids: Literal["keep", "new"] = "keep",
        dry_run: bool = False,
    ) -> ImportResult:
        """Import the jobs of a file that `export` wrote, or of an older tracker's file in that
        format.

        For the format see `structjob.transfer.export`. The whole file is checked before anything is
        stored. The same file is stored only once, however often it is imported. Jobs that were
        running are recorded as crashed.

        Args:
            path: The file; it may be compressed with gzip.
            ids: ``keep`` the job ids (the default), or assign ``new`` ones. The result maps the old
                ids to the new ones.
            dry_run: Check the file and store nothing.

        Raises:
            ImportRefused: if a line is invalid, or a job with that id exists already.
            StoreUnavailable: if the database is unavailable. Import the same file again to
                continue.
        """
        from structjob.transfer.imports import import_file

        self._host.require_open()
        if ids not in ("keep", "new"):
            raise InvalidArgument(f"ids must be 'keep' or 'new', not {ids!r}")
        return await self._host.on_own_loop(
            import_file(self._store, Path(path), ids=ids, dry_run=dry_run)
        )

    async def prune(
        self,
        retention: Retention | timedelta | None = None,
        *,
        dry_run: bool = False,
        patience: float = _PRUNE_TIMEOUT,
        progress: Callable[[PruneResult], object] | None = None,
    ) -> PruneResult:
        """Permanently delete jobs and events that are past their retention.

        A job is deleted with everything that belongs to it. The deletion uses transactions of a few
        milliseconds with pauses in between, so that concurrent writers keep more than nine tenths
        of their speed. The numbers of deleted events are recorded in ``structjob_gaps``, and the
        counts of errors in ``structjob_errors``. If it is interrupted, everything deleted so far
        stays deleted, and the next call continues.

        Args:
            retention: What is kept, and for how long: a `Retention`, or one age for everything as a
                `timedelta`. Default: the tracker's own retention.
            dry_run: Count what would be deleted, and delete nothing.
            patience: Seconds to wait while another process prunes, 30 by default.
            progress: Called in the tracker's event loop before each transaction, with what was
                deleted so far. An exception that it raises ends the prune.

        Returns:
            How much was deleted, and the archive files that contain it.

        Raises:
            InvalidArgument: if there is no retention, an age is invalid, or the archive cannot be
                used. Nothing was deleted.
            PruneInProgress: if another process is still pruning after *patience* seconds.
            OSError: if the archive cannot be written. Only archived rows are deleted.
            StoreUnavailable: if the database is unavailable.
        """
        from structjob.retention.prune import preview

        kept = retention_of(retention) or self._options.retention
        if kept is None:
            raise InvalidArgument(
                "no retention is set: give a Retention to prune() or to the tracker"
            )
        if not is_number(patience) or not patience >= 0:
            raise InvalidArgument(f"patience must be a number of seconds, not {patience!r}")
        await self._host.flush()
        if dry_run:
            return await preview(self._host.fetch, kept)
        pruner = self._engine.pruner
        return await self._host.on_own_loop(
            pruner.prune(kept, patience=patience, progress=progress)
        )

    async def _delete(self, job_id: str) -> PruneResult:
        pruner = self._engine.pruner
        return await self._host.on_own_loop(pruner.delete(job_id, patience=_PRUNE_TIMEOUT))

    async def verify(self) -> VerifyResult:
        """Prove that no event is lost: each assigned number is stored or explained."""
        from structjob.queries.verify import verify

        await self._host.flush()
        return await verify(self._host.fetch)
