"""The generated service of `benchmarks.history`: its operations, their lines and their errors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Says:
    """A line that programs log repeatedly.

    Args:
        share: Its frequency, relative to other lines of the same operation.
        level: Its level.
        message: The event.
        attrs: The attributes as JSON, with ``%(name)s`` for the values of `benchmarks.history`:
            ``n`` (a counter), ``big`` (12 digits), ``ratio`` (0 to 1), and the job's own ``vm`` (a
            UUID), ``host`` and ``path``.
    """

    share: float
    level: str
    message: str
    attrs: str


@dataclass(frozen=True, slots=True)
class Fails:
    """An error that occurs.

    Args:
        share: Its frequency, relative to the operation's other errors.
        kind: The exception's type.
        message: Its message; ``%d`` is a number that differs each time.
        where: The functions in its traceback, the innermost last.
    """

    share: float
    kind: str
    message: str
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """A kind of job.

    Args:
        name: The operation.
        share: Its frequency, relative to the others.
        job_type: The jobs' type; ``None`` for some operations.
        category: The jobs' category.
        project: The jobs' project; ``None`` for some operations.
        steps: Their names, in order.
        seconds: The median duration of a job.
        spread: The spread of durations and numbers of lines: sigma of a log-normal distribution.
        lines: How many lines it logs, relative to the others.
        failing: The share of its jobs that fail.
        says: Its own lines.
        fails: Its own errors.
        parents: Operations that can be the parent of its jobs; default: no operation.
    """

    name: str
    share: float
    job_type: str | None
    category: str
    project: str | None
    steps: tuple[str, ...]
    seconds: float
    spread: float
    lines: float
    failing: float
    says: tuple[Says, ...]
    fails: tuple[Fails, ...]
    parents: tuple[str, ...] = ()


ANYWHERE_SAYS = (
    Says(
        8,
        "info",
        "request sent",
        '{"url":"https://api.example.com/v2/vms/%(vm)s","n":%(n)d,"elapsed_ms":%(ratio).4f}',
    ),
    Says(3, "debug", "cache looked up", '{"key":"vm:%(vm)s","hit":true,"n":%(n)d}'),
    Says(1, "warning", "slow answer", '{"host":"%(host)s","elapsed_ms":%(n)d.5,"limit_ms":500}'),
    Says(0.5, "warning", "retrying", '{"host":"%(host)s","attempt":%(n)d,"delay":0.25}'),
    Says(0.1, "error", "quota nearly used up", '{"path":"%(path)s","used":%(ratio).4f}'),
    Says(0.004, "critical", "disk almost full", '{"path":"%(path)s","free":%(big)d}'),
)
"""Lines that every operation logs occasionally."""

ANYWHERE_FAILS = (
    Fails(
        4,
        "TimeoutError",
        "no answer from the server within 30.0 seconds (request %d)",
        ("client:Client.call",),
    ),
    Fails(
        2,
        "ConnectionResetError",
        "[Errno 104] Connection reset by peer (%d)",
        ("client:Client.call", "client:Client.read"),
    ),
    Fails(1, "KeyError", "'flavor_%d'", ("config:lookup",)),
    Fails(0.3, "MemoryError", "could not allocate %d bytes", ("buffers:Pool.take",)),
)
"""Errors that occur in every operation."""

SYSTEM_SAYS = (
    Says(60, "info", "GET /healthz", '{"status":200,"elapsed_ms":%(ratio).4f,"n":%(n)d}'),
    Says(25, "info", "GET /api/vms", '{"status":200,"elapsed_ms":%(n)d.25,"client":"%(host)s"}'),
    Says(6, "warning", "GET /api/vms", '{"status":404,"elapsed_ms":%(n)d.25,"client":"%(host)s"}'),
    Says(8, "info", "leader is alive", '{"host":"%(host)s","term":%(n)d}'),
    Says(0.2, "error", "cannot reach the metadata service", '{"host":"%(host)s","n":%(n)d}'),
)
"""Lines outside of any job."""


def _copies(message: str) -> tuple[Says, ...]:
    return (
        Says(
            30,
            "info",
            message,
            '{"vm":"%(vm)s","transferred":%(big)d,"ratio":%(ratio).4f,"verified":true,"path":"%(path)s"}',
        ),
        Says(2, "success", f"{message}, checked", '{"vm":"%(vm)s","sha256_ok":true,"n":%(n)d}'),
    )


def _handles(message: str, key: str) -> tuple[Says, ...]:
    return (
        Says(20, "info", message, f'{{"{key}":%(n)d,"host":"%(host)s","elapsed_ms":%(ratio).4f}}'),
        Says(5, "info", f"{message}, unchanged", f'{{"{key}":%(n)d}}'),
    )


def _fails(name: str, *kinds: tuple[str, str]) -> tuple[Fails, ...]:
    return tuple(
        Fails(2.0 / number, kind, message, (f"{name}:run", f"{name}:part_{number}"))
        for number, (kind, message) in enumerate(kinds, 1)
    )


OPERATIONS = (
    Operation("vm-sync", 38, "sync", "sync", "moon", ("list", "compare", "apply"), 9, 0.9, 0.35, 0.02,
              _handles("vm compared", "vm_number"),
              _fails("sync", ("ValueError", "unknown power state %d"), ("StaleData", "version %d is older than the stored one"))),
    Operation("report-mail", 21, "mail", "mail", "mars", ("render", "send"), 3, 0.8, 0.12, 0.03,
              _handles("part rendered", "part"),
              _fails("mail", ("SMTPServerDisconnected", "Connection unexpectedly closed after %d bytes"),
                     ("UnicodeEncodeError", "'ascii' codec can't encode character in position %d"))),
    Operation("vm-snapshot", 13, "backup", "backup", "moon", ("freeze", "snapshot", "thaw"), 45, 1.0, 0.9, 0.04,
              _copies("block saved"),
              _fails("snapshot", ("SnapshotBusy", "snapshot %d is being deleted"), ("OSError", "[Errno 28] No space left on device (%d)"),
                     ("FreezeTimeout", "guest did not freeze within %d s"))),
    Operation("vm-migrate", 8, "migration", "migration", "moon", ("prepare", "copy", "switch", "verify", "clean-up"), 420, 1.3, 5.5, 0.07,
              _copies("chunk copied"),
              _fails("migrate", ("ChecksumMismatch", "block %d differs after the copy"), ("OSError", "[Errno 5] Input/output error at %d"),
                     ("TargetGone", "host left the cluster during round %d"), ("ValueError", "negative offset %d"))),
    Operation("invoice-run", 6, "billing", "billing", "mars", ("collect", "rate", "render", "post"), 120, 1.0, 2.4, 0.03,
              _handles("invoice rated", "invoice"),
              _fails("invoice", ("LedgerLocked", "period %d is closed"), ("DecimalException", "cannot round line %d"),
                     ("IntegrityError", "duplicate key value violates unique constraint (%d)"))),
    Operation("image-import", 4, "import", "import", None, ("fetch", "unpack", "convert", "register"), 200, 1.2, 2.0, 0.06,
              _copies("segment unpacked"),
              _fails("image", ("BadImage", "header says %d bytes"), ("HTTPError", "502 from the mirror (%d)"),
                     ("EOFError", "archive ends at byte %d"))),
    Operation("nightly-etl", 2.5, "etl", "etl", "venus", ("extract", "clean", "join", "load", "index", "publish"), 1800, 1.1, 14, 0.05,
              _handles("partition loaded", "partition"),
              _fails("etl", ("SchemaDrift", "column %d appeared"), ("DeadlockDetected", "process %d waits for a lock"),
                     ("DataError", "value %d out of range"), ("AnalysisException", "cannot resolve column c%d"))),
    Operation("index-rebuild", 1.5, None, "maintenance", None, ("scan", "sort", "write"), 600, 1.0, 4.0, 0.02,
              _handles("page written", "page"),
              _fails("index", ("CorruptPage", "page %d has a wrong checksum"))),
    Operation("log-rotate", 3, None, "maintenance", None, (), 1, 0.6, 0.06, 0.005,
              _handles("file rotated", "file"),
              _fails("rotate", ("PermissionError", "[Errno 13] Permission denied (%d)"))),
    Operation("user-export", 1, "export", "export", "mars", ("query", "write", "upload"), 75, 1.4, 1.6, 0.05,
              _handles("row exported", "row"),
              _fails("export", ("S3UploadFailed", "part %d was refused"), ("UnicodeDecodeError", "can't decode byte in position %d"))),
    Operation("disaster-drill", 0.05, "drill", "maintenance", "moon", ("stop", "restore", "compare", "resume"), 5400, 0.8, 30, 0.2,
              _handles("service restored", "service"),
              _fails("drill", ("DrillFailed", "%d services did not come back"))),
    Operation("verify-checksums", 5, "check", "migration", "moon", ("read", "compare"), 60, 1.0, 1.2, 0.03,
              _copies("block read"),
              _fails("verify", ("ChecksumMismatch", "block %d differs"), ("OSError", "[Errno 5] Input/output error at %d")),
              parents=("vm-migrate", "image-import", "vm-snapshot")),
    Operation("notify", 4, "mail", "mail", None, (), 0.4, 0.7, 0.05, 0.02,
              _handles("message queued", "message"),
              _fails("notify", ("WebhookRefused", "status %d")),
              parents=("nightly-etl", "invoice-run", "vm-migrate")),
)  # fmt: skip
