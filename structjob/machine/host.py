"""Facts about this host: the boot id, whether a process exists, and whether a path is on a
network.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

MOUNTS = "/proc/self/mountinfo"
"""The file in which Linux lists mounted file systems."""

_NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "ncpfs", "beegfs", "gpfs",
    "fuse.sshfs", "fuse.glusterfs", "virtiofs",
})  # fmt: skip
"""File systems on which another host's lock may be invisible."""

_STEP = 2.0
"""Tolerance in seconds: a process may seem younger than its session, because clocks are rounded
and adjusted.
"""


@functools.cache
def boot_id() -> str | None:
    """Return the id of this boot of the machine and of this PID namespace.

    Process numbers have the same meaning only within one boot and one namespace (one container).
    Return ``None`` if the system has no such id.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def process_exists(host: str, boot: str | None, pid: int, started_at: datetime) -> bool | None:
    """Return whether the process that began a session still exists on this host.

    A stopped process (SIGSTOP) exists. A process that was killed but not yet reaped by its parent
    does not.

    Args:
        host: The session's host name.
        boot: The session's `boot_id`.
        pid: The session's process number.
        started_at: When the session began.

    Returns:
        ``None`` if this cannot be known. Reasons are: another host, another boot, another
            container, details that the system hides, or a process of this number that is younger
            than the session. In the last case the number was reused, or the clock was set.
    """
    if boot is None or (host, boot) != (socket.gethostname(), boot_id()) or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return None
    except OSError:
        pass  # it belongs to another user
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        state, began = status[0], int(status[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    except (OSError, IndexError, ValueError, AttributeError):
        return None
    if state in ("Z", "X"):
        return False
    session_age = (datetime.now(UTC) - started_at).total_seconds()
    # If a session seems older than its process, or in the future, the number belongs to another
    # process, or the clock was set.
    return True if -_STEP <= session_age <= age + _STEP else None


@functools.lru_cache(maxsize=64)
def is_network(path: Path, mounts: str = MOUNTS) -> bool:
    """Return whether *path* is on a network file system, where another host's lock may be
    invisible.

    Args:
        path: A file or directory; it does not need to exist.
        mounts: The list of mounted file systems, in the form of Linux's ``mountinfo``.
    """
    if sys.platform != "linux":
        return False
    best, kind = b"", b""
    try:
        where = os.fsencode(os.path.realpath(path))
        with open(mounts, "rb") as lines:
            for line in lines:
                left, _, right = line.partition(b" - ")
                fields, about = left.split(b" "), right.split()
                if len(fields) < 5 or not about:
                    continue
                mount = re.sub(
                    rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4]
                )
                # If several file systems are mounted at one place, the last one is visible.
                if len(mount) >= len(best) and (
                    where == mount or where.startswith(mount.rstrip(b"/") + b"/")
                ):
                    best, kind = mount, about[0]
    except OSError:
        return False
    return kind.decode("ascii", "replace") in _NETWORK
