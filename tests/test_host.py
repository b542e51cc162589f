"""What is known on this host of processes and file systems."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from structjob.machine.host import boot_id, is_network, process_exists
from structjob.spool import directory as spool_directory
from structjob.spool.directory import SessionSpool, adopt
from structjob.spool.session import Session


def exists(
    pid: int, *, host: str | None = None, boot: str | None = "this", ago: float = 0.0
) -> bool | None:
    host = socket.gethostname() if host is None else host
    return process_exists(
        host, boot_id() if boot == "this" else boot, pid, datetime.now(UTC) - timedelta(seconds=ago)
    )


def test_a_process_exists_until_it_ends_also_while_it_is_stopped():
    """faults 0.6: a stopped process exists; one that was killed and not waited for is there by its
    number only.
    """
    assert exists(os.getpid()) is True
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert exists(process.pid) is True
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert exists(process.pid) is True
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert exists(process.pid) is False
    process.communicate()
    assert exists(process.pid) is False


def test_what_cannot_be_known_of_a_process_is_not_presumed():
    """faults 0.6: of other hosts, other starts of the machine and reused numbers nothing is known;
    neither life nor death is claimed.
    """
    assert exists(os.getpid(), host="elsewhere") is None
    assert exists(os.getpid(), boot="another") is None
    assert exists(os.getpid(), boot=None) is None
    assert exists(0) is None
    assert exists(2**70) is None
    # This process is younger than a session of a year ago: another process had its number.
    assert exists(os.getpid(), ago=365 * 86_400) is None
    # Or the clock was set back since.
    assert exists(os.getpid(), ago=-3600) is None


MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
23 22 0:20 / /proc rw - proc proc rw
40 22 0:50 / {nfs} rw,relatime shared:5 master:1 - nfs4 server:/export rw
41 40 8:2 / {nfs}/local rw - xfs /dev/sdb1 rw
42 22 0:51 / {nfs}\\040with\\040spaces rw - cifs //server/share rw
43 22 0:52 / {nfs}-autofs rw - autofs systemd-1 rw
44 43 0:53 / {nfs}-autofs rw - nfs server:/home rw
a line that is none
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """A list of mounts as Linux shows it."""
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS.format(nfs=tmp_path / "nfs"))
    return path


@pytest.mark.parametrize(
    ("place", "network"),
    [
        ("nfs", True),
        ("nfs/spool/1", True),
        ("nfs/local", False),
        ("nfs/local/spool", False),
        ("nfs with spaces/spool", True),
        ("nfs-autofs/spool", True),
        ("nfs-other/spool", False),
        ("elsewhere", False),
    ],
)
def test_a_network_file_system_is_known_by_the_innermost_mount(tmp_path, mounts, place, network):
    """faults H: the longest mount point that holds the path decides, the last of several on one
    place, names with spaces too.
    """
    assert is_network(tmp_path / place, str(mounts)) is network


def test_a_link_to_a_network_file_system_is_seen_through(tmp_path, mounts):
    """faults H: where the directory really lies decides."""
    (tmp_path / "nfs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nfs")
    assert is_network(tmp_path / "link" / "spool", str(mounts))


def test_a_free_lock_on_a_network_file_system_is_not_trusted(tmp_path, mounts, monkeypatch):
    """faults H: a dead session's directory below an NFS mount is not taken over, and is on a disk
    of this machine.
    """
    monkeypatch.setattr(spool_directory, "is_network", lambda path: is_network(path, str(mounts)))
    for place, taken in (("nfs", 0), ("local", 1)):
        spool = SessionSpool.create(tmp_path / place, Session())
        spool.close()
        adopted = adopt(tmp_path / place, set())
        assert len(adopted) == taken
        for one in adopted:
            one.close()


def test_without_a_list_of_mounts_every_file_system_is_local(tmp_path):
    """faults H: a system without one is not refused."""
    assert not is_network(tmp_path, str(tmp_path / "absent"))
