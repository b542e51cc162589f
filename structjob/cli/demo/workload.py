"""The demo's work: move the parts of a directory tree concurrently, and verify every byte.

All of it is real: files are read, copied and hashed. Two faults occur in each run to show how they
are recorded: one part's volume does not answer at first, and one copy is damaged.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from structjob.lifecycle import Job, Step

if TYPE_CHECKING:
    from structjob.tracker import Tracker

PARTS = {"accounts": 18, "documents": 24, "invoices": 20, "mail": 28, "photos": 14, "scans": 16}
"""The parts of the generated tree, and the number of files in each."""

MAX_PARTS = 8
MAX_FILES = 2_000
MAX_BYTES = 256 * 1024 * 1024
RETRIES = 3

FILES = "demo.files"
"""The logger for single files; the screen shows only the parts."""


class VolumeTimeout(TimeoutError):
    """The transient fault: a second attempt succeeds."""


class ChecksumMismatch(Exception):
    """The permanent fault: the bytes written differ from the bytes read."""


@dataclass(frozen=True, slots=True)
class Part:
    """Files that are moved together, by their paths relative to the source."""

    name: str
    files: tuple[Path, ...]


class View(Protocol):
    """Shows the progress of the work."""

    def begin(self, parts: Sequence[Part]) -> None:
        """Start the display; the parts are known now. Each file is copied, then verified."""

    def advance(self, part: str) -> None:
        """Count one more file as copied or verified."""

    def again(self, part: str) -> None:
        """Reset a part that starts again."""

    def end(self, part: str, *, ok: bool) -> None:
        """Mark a part as done or failed."""


@dataclass(slots=True)
class Outcome:
    """The result of the work."""

    job_id: str = ""
    failed_job_id: str = ""
    files: int = 0
    moved: int = 0
    size: int = 0
    seconds: float = 0.0
    parts: int = 0
    failed: list[str] = field(default_factory=list)


def make_tree(root: Path) -> None:
    """Create a small tree of files in *root*; it is the same in each run."""
    draw = random.Random(20)
    for part, count in PARTS.items():
        directory = root / part
        directory.mkdir()
        for number in range(1, count + 1):
            (directory / f"{part}-{number:03}.dat").write_bytes(
                draw.randbytes(draw.randint(2_000, 96_000))
            )


class Migration:
    """Moves the files below *source* to *target*.

    Args:
        tracker: Records the work.
        source: The source directory; only read.
        target: The target directory; must be empty.
        view: Shows the progress.
        pace: Seconds to wait at each file, so that a person can follow; 0 for full speed.
    """

    def __init__(
        self, tracker: Tracker, source: Path, target: Path, view: View, *, pace: float
    ) -> None:
        self._tracker = tracker
        self._source = source
        self._target = target
        self._view = view
        self._pace = pace
        self._files = structlog.get_logger(FILES)
        self._log = structlog.get_logger("demo")
        self.outcome = Outcome()

    async def run(self, owner: str | None) -> Outcome:
        """Do all the work as one job."""
        began = time.monotonic()
        # Secrets as they get into real logs; they are stored and shown as a mark only.
        access = {
            "catalog": "postgresql://mover:hunter2@catalog.internal/files",
            "api_key": "sk-demo-4f9a1c",
        }
        about = {"source": str(self._source), "target": str(self._target), **access}
        async with self._tracker.job(
            "migrate-tree", job_type="migration", owner=owner, metadata=about
        ) as job:
            self.outcome.job_id = job.id
            self._log.info("catalog opened", url=access["catalog"], api_key=access["api_key"])
            parts = await self._discover(job)
            async with job.step("copy", total=self.outcome.files * 2) as step:
                await asyncio.gather(
                    *(self._guarded(job, step, part, number) for number, part in enumerate(parts))
                )
            out = self.outcome
            out.seconds = time.monotonic() - began
            job.result = {
                "files": out.files,
                "moved": out.moved,
                "bytes": out.size,
                "failed_parts": out.failed,
            }
        return self.outcome

    async def _discover(self, job: Job) -> list[Part]:
        async with job.step("discover") as step:
            parts = await asyncio.to_thread(_parts, self._source)
            self.outcome.files = sum(len(part.files) for part in parts)
            self.outcome.parts = len(parts)
            step.update(completed=self.outcome.files)
            for part in parts:
                self._files.info("part found", part=part.name, files=len(part.files))
            self._log.info("tree discovered", parts=len(parts), files=self.outcome.files)
        self._view.begin(parts)
        return parts

    async def _guarded(self, job: Job, step: Step, part: Part, number: int) -> None:
        """Move one part; a damaged copy fails this part and no other."""
        try:
            async with job.child(
                "copy-part",
                description=f"copy {part.name}",
                metadata={"part": part.name, "files": len(part.files)},
            ) as child:
                await self._move(child, job, step, part, number)
                child.result = {"files": len(part.files)}
        except ChecksumMismatch:
            self.outcome.failed.append(part.name)
            self.outcome.failed_job_id = child.id
            self._view.end(part.name, ok=False)
            self._log.error("part failed, the others go on", part=part.name)
        else:
            self.outcome.moved += len(part.files)
            self._view.end(part.name, ok=True)
            self._log.success("part moved", part=part.name, files=len(part.files))

    async def _move(self, child: Job, job: Job, whole: Step, part: Part, number: int) -> None:
        hashes: dict[Path, str] = {}
        async for attempt in child.retrying(
            "copy",
            max_attempts=RETRIES,
            delay=round(5 * self._pace, 2),
            backoff=1,
            on=VolumeTimeout,
        ):
            async with attempt as step:
                if attempt.number > 1:
                    self._view.again(part.name)
                step.update(total=len(part.files))
                await self._copy(step, part, hashes, faulty=number == 1 and attempt.number == 1)
        whole.advance(len(part.files))
        if number == self.outcome.parts - 1:
            _damage(self._target / part.files[-1])
        async with child.step("verify", total=len(part.files)) as step:
            async for path in step.track(part.files):
                found = await asyncio.to_thread(_sha256, self._target / path)
                await asyncio.sleep(self._pace / 2)
                if found != hashes[path]:
                    raise ChecksumMismatch(
                        f"{path}: read sha256 {hashes[path][:12]}…, wrote {found[:12]}…"
                    )
                self._files.info("file verified", path=str(path), sha256=found)
                self._view.advance(part.name)
                whole.advance()
        job.update(percent=min(99.0, 100 * whole.completed / (2 * self.outcome.files)))

    async def _copy(self, step: Step, part: Part, hashes: dict[Path, str], *, faulty: bool) -> None:
        count = 0
        async for path in step.track(part.files):
            if faulty and count >= len(part.files) // 3:
                raise VolumeTimeout(f"the volume of {part.name} did not answer within 2 s")
            hashes[path], size = await asyncio.to_thread(
                _copied, self._source / path, self._target / path
            )
            await asyncio.sleep(self._pace)
            self.outcome.size += size
            count += 1
            self._files.info("file copied", path=str(path), bytes=size)
            self._view.advance(part.name)


def _parts(source: Path) -> list[Part]:
    """Return the files below *source*, grouped by its immediate subdirectories."""
    groups: dict[str, list[Path]] = {}
    count = size = 0
    for path in sorted(source.rglob("*")):
        if count >= MAX_FILES or size >= MAX_BYTES:
            break
        if path.is_symlink() or not path.is_file():
            continue
        below = path.relative_to(source)
        groups.setdefault(below.parts[0] if len(below.parts) > 1 else "top", []).append(below)
        count += 1
        size += path.stat().st_size
    names = sorted(groups)
    for index, name in enumerate(names[MAX_PARTS:]):
        groups[names[index % MAX_PARTS]] += groups.pop(name)
    return [Part(name, tuple(files)) for name, files in sorted(groups.items())]


def _copied(source: Path, target: Path) -> tuple[str, int]:
    """Copy one file; return the checksum of the source, and the size of the copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return _sha256(source), target.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(path: Path) -> None:
    """Damage the copy as a bad disk would."""
    with path.open("r+b") as file:
        first = file.read(1) or b"\0"
        file.seek(0)
        file.write(bytes([first[0] ^ 0xFF]))
