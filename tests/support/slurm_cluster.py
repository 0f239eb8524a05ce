"""A Slurm cluster of one node on the loopback interface, with daemons of its own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ETC = Path("/etc/slurm")
"""Where Slurm's commands look inside of jobs, from whose environment `SLURM_CONF` is removed."""

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MinJobAge=600
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: of its configuration, state and logs.
        environment: for processes that talk to it.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str) -> str:
        """What a command of Slurm says."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def jobs(self, state: str = "all") -> dict[str, str]:
        """Jobs, ended ones included: number → name or comment, and state."""
        said = self.run("squeue", "--noheader", "--states", state, "--format", "%A|%j|%k|%T")
        return {line.split("|")[0]: line for line in said.splitlines()}

    def logs(self) -> str:
        """The ends of the daemons' logs, for the message of a failed test."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in self.folder.glob("*.log")
        )


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start munged, slurmctld and slurmd in the foreground; stop them by their process ids.

    Raises:
        FileExistsError: this machine has a configuration of Slurm, which is left alone.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    controller, node = free_ports(2)
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    text = CONFIG.format(
        host=socket.gethostname().partition(".")[0],
        controller=controller,
        node=node,
        folder=folder,
        memory=int(0.8 * pages * size / 2**20),
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    cluster = Cluster(folder, environment)
    links = [ETC / name for name in ("slurm.conf", "gres.conf")]
    started: list[subprocess.Popen[bytes]] = []
    try:
        ETC.mkdir(exist_ok=True)
        for link in links:
            link.symlink_to(folder / link.name)
        for words, ready in _daemons(cluster):
            started.append(_start(cluster, words))
            _wait(ready, cluster, started)
        yield cluster
    finally:
        for process in reversed(started):
            _stop(process)
        for link in links:
            if link.is_symlink() and link.readlink() == folder / link.name:
                link.unlink()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _daemons(cluster: Cluster) -> Iterator[tuple[list[str], Callable[[], bool]]]:
    folder = cluster.folder
    munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
    munge |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    words = [f"--{option}={folder / name}" for option, name in munge.items()]
    munged = ["munged", "--force", "--foreground", *words]
    yield munged, lambda: (folder / "munge.socket").exists()
    yield ["slurmctld", "-D"], lambda: "UP" in _said(cluster, "scontrol", "ping")
    yield ["slurmd", "-D"], lambda: "idle" in _said(cluster, "sinfo", "--noheader")


def _said(cluster: Cluster, *words: str) -> str:
    try:
        return cluster.run(*words)
    except subprocess.CalledProcessError:
        return ""


def _start(cluster: Cluster, words: list[str]) -> "subprocess.Popen[bytes]":
    program = shutil.which(words[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program, f"{words[0]} is not installed"
    with (cluster.folder / f"{words[0]}.out.log").open("wb") as log:
        return subprocess.Popen(
            [program, *words[1:]],
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(
    ready: Callable[[], bool], cluster: Cluster, started: list["subprocess.Popen[bytes]"]
) -> None:
    until = time.monotonic() + 60
    while not ready():
        ended = [process.args for process in started if process.poll() is not None]
        assert not ended, f"{ended} ended\n{cluster.logs()}"
        assert time.monotonic() < until, f"not ready after a minute\n{cluster.logs()}"
        time.sleep(0.2)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
