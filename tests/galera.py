"""A Galera cluster of three MariaDB nodes on this machine, for the tests."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from breakable_servers import MariaDB, ServerMissing, free_port

_PROVIDERS = (
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
    "/usr/lib64/galera/libgalera_smm.so",
)
_JOINED = 60.0


class Node(MariaDB):
    """One node; the others are known before the first one starts.

    Args:
        directory: Where it may write.
        number: Its number in the cluster, from 1.
    """

    def __init__(self, directory: Path, number: int) -> None:
        super().__init__(directory)
        self.number = number
        self.group, self.increments, self.snapshot = (free_port() for _ in range(3))
        self.others: list[Node] = []
        self.first = False
        """Whether it is to begin a cluster, rather than to join one."""

    def _initialize(self) -> list[str]:
        # Who joins is given all that the others have.
        return super()._initialize() if self.first else ["mkdir", f"{self.directory}/data"]

    def _serve(self) -> list[str]:
        provider = next((path for path in _PROVIDERS if Path(path).exists()), None)
        if provider is None:
            raise ServerMissing("galera-4 is not installed")
        if shutil.which("rsync") is None:
            raise ServerMissing("rsync is not installed, with which a node gets its first copy")
        group = ",".join(f"127.0.0.1:{node.group}" for node in (self, *self.others))
        return [
            *super()._serve(), "--wsrep-on=ON", f"--wsrep-provider={provider}", "--wsrep-cluster-name=structjob-tests",
            f"--wsrep-cluster-address=gcomm://{group}", f"--wsrep-node-name=n{self.number}",
            f"--wsrep-node-address=127.0.0.1:{self.group}", "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address=127.0.0.1:{self.snapshot}", "--wsrep-slave-threads=2", "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2", f"--server-id={self.number}", "--innodb-flush-log-at-trx-commit=0",
            f"--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{self.group};ist.recv_addr=127.0.0.1:{self.increments};gcache.size=32M",
            *(["--wsrep-new-cluster"] if self.first else []),
        ]  # fmt: skip

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return "ON" in self.sql("SHOW STATUS LIKE 'wsrep_ready'", database="")
        return False

    def members(self) -> int:
        """Return how many nodes it knows of, itself included."""
        return int(self.sql("SHOW STATUS LIKE 'wsrep_cluster_size'", database="").split()[1])


class Cluster:
    """Three nodes that hold the same.

    Attributes:
        nodes: The nodes.
    """

    def __init__(self, directory: Path) -> None:
        self.nodes = [Node(directory / f"node{number}", number) for number in (1, 2, 3)]
        for node in self.nodes:
            node.others = [other for other in self.nodes if other is not node]

    def start(self) -> None:
        """Start the nodes, one after the other: each gets its copy from one that is there."""
        first, *rest = self.nodes
        first.first = True
        first.start()
        first.first = False
        for node in rest:
            node.start()
        self.wait_for(len(self.nodes))

    def wait_for(self, members: int) -> None:
        """Wait until the running nodes know of so many *members*."""
        running = [node for node in self.nodes if node._process is not None]
        deadline = time.monotonic() + _JOINED
        while any(node.members() != members for node in running):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the cluster has not {members} members: {[node.members() for node in running]}"
                )
            time.sleep(0.1)

    def create(self, name: str) -> list[str]:
        """Create an empty database; return its URL on each node, once each node has it."""
        self.nodes[0].sql(f"CREATE DATABASE {name}", database="")
        for node in self.nodes:  # which otherwise answers before it has applied what others did
            node.sql("SET SESSION wsrep_sync_wait = 1; SELECT 1", database="")
        return [node.url(name) for node in self.nodes]

    def kill(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Give a cluster, and remove it at the end.

    Raises:
        ServerMissing: if its programs are not installed.
    """
    directory = Path(tempfile.mkdtemp(prefix="structjob-galera-"))
    directory.chmod(0o711)  # its own user must get through, who cannot reach pytest's directories
    cluster = Cluster(directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(directory)
