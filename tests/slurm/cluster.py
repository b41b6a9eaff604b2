"""A real SLURM cluster on this machine: every node has its own network, host name and /dev/shm.

Needs root and Debian or Ubuntu. Everything that the cluster creates is in one folder or has a name of its own, and is
recorded before it is used. So `remove_leftovers` finds it even after this process was killed.

    python tests/slurm/cluster.py           starts a cluster, prints how to use it from another shell, waits for Ctrl-C
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

HOME = Path(tempfile.gettempdir()) / "resnext-slurm"
BRIDGE, NETWORK = "rxslurm", "10.213.77"
PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge", "ip": "iproute2"}

SLURM_CONF = """\
ClusterName=resnext
SlurmctldHost=ctl({network}.254)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={home}/munge.sock,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=0,batch_sched_delay=0,preempt_youngest_first
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
SlurmdTimeout=15
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=node[1-{nodes}] NodeAddr={network}.[1-{nodes}] CPUs=16 RealMemory=4000 Gres=gpu:8
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def find_obstacle() -> str | None:
    """The reason why this machine cannot run a cluster; None if it can."""
    if os.geteuid() != 0:
        return "a SLURM cluster in namespaces needs root"
    if shutil.which("apt-get") is None:
        return "SLURM is installed with apt-get, which is not here"
    probe = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True)
    return f"no namespaces here: {probe.stderr.strip()}" if probe.returncode else None


class Cluster:
    """In `with Cluster(4):` node1 to node4 are idle; sbatch and other commands find them through SLURM_CONF."""

    def __init__(self, nodes: int) -> None:
        self.names = [f"node{number}" for number in range(1, nodes + 1)]
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Cluster":
        self._lock = open(f"{HOME}.lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one cluster at a time; held by this process
        except BlockingIOError:
            raise RuntimeError(f"another process has its cluster in {HOME}: end that first") from None
        HOME.mkdir(exist_ok=True)
        remove_leftovers()
        try:
            install_packages()
            os.environ["SLURM_CONF"] = str(HOME / "slurm.conf")
            self._write_files()
            self._start_controller()
            for name in self.names:
                self.start_node(name)
            self._wait_until_idle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        remove_leftovers()
        for daemon in self._daemons:
            daemon.wait()
        purge_packages()
        os.environ.pop("SLURM_CONF", None)
        shutil.rmtree(HOME)
        self._lock.close()

    def start_node(self, name: str) -> None:
        """Starts a node; can also restart it after `crash_node`."""
        number, namespace = name.removeprefix("node"), f"{BRIDGE}-{name}"
        link, peer = f"{BRIDGE}{number}", f"{BRIDGE}{number}n"
        run("ip", "netns", "add", namespace)
        run("ip", "link", "add", link, "type", "veth", "peer", "name", peer, "netns", namespace)
        run("ip", "link", "set", link, "master", BRIDGE, "up")
        inside = ("ip", "-n", namespace)
        run(*inside, "addr", "add", f"{NETWORK}.{number}/24", "dev", peer)
        run(*inside, "link", "set", peer, "up")
        run(*inside, "link", "set", "lo", "up")
        script = (
            f"hostname {name}; mount --bind {HOME}/hosts /etc/hosts; mount -t tmpfs tmpfs /dev/shm; "
            f"exec slurmd -D -N {name} -f {HOME}/slurm.conf"
        )
        # not `ip netns exec`: it hides /sys/fs/cgroup, and slurmd ends without it
        self._spawn("nsenter", f"--net=/run/netns/{namespace}", "unshare", "--uts", "--mount", "bash", "-c", script)

    def crash_node(self, name: str) -> None:
        """Simulates a power failure: removes the node from the network, then kills all its processes."""
        run("ip", "link", "del", f"{BRIDGE}{name.removeprefix('node')}")
        remove_namespace(f"{BRIDGE}-{name}")

    def keep_logs(self, folder: Path) -> None:
        """Copies the logs of the daemons, to investigate a failure."""
        for path in HOME.glob("*.log"):
            shutil.copy(path, folder)

    def _write_files(self) -> None:
        for folder in ("state", "spool", "dev"):
            (HOME / folder).mkdir()
        (HOME / "slurm.conf").write_text(SLURM_CONF.format(home=HOME, network=NETWORK, nodes=len(self.names)))
        (HOME / "gres.conf").write_text(f"Name=gpu File={HOME}/dev/nvidia[0-7]\n")
        for number in range(8):
            os.mknod(HOME / f"dev/nvidia{number}", 0o20666, os.makedev(1, 3))  # a GPU for SLURM: /dev/null
        addresses = [f"{NETWORK}.{name.removeprefix('node')} {name}" for name in self.names]
        (HOME / "hosts").write_text("\n".join(["127.0.0.1 localhost", f"{NETWORK}.254 ctl", *addresses, ""]))
        (HOME / "munge.key").touch(mode=0o600)
        (HOME / "munge.key").write_bytes(secrets.token_bytes(128))

    def _start_controller(self) -> None:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        names = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "seed-file": "munge.seed"}
        paths = [f"--{option}={HOME}/{name}" for option, name in names.items()]
        self._spawn("munged", "--foreground", "--force", *paths, f"--log-file={HOME}/munged.log")
        wait_for(lambda: (HOME / "munge.sock").exists(), 10, "munged's socket")
        script = f"hostname ctl; exec slurmctld -D -i -f {HOME}/slurm.conf"
        self._spawn("unshare", "--uts", "bash", "-c", script)

    def _wait_until_idle(self) -> None:
        states = ("sinfo", "--noheader", "--Node", "--partition=low", "--format=%T")
        wait_for(lambda: output(*states).split() == ["idle"] * len(self.names), 60, "all nodes to be idle")

    def _spawn(self, *command: str) -> None:
        """Starts a daemon in its own session and records its pid."""
        with open(HOME / "daemons.log", "a") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._daemons.append(process)
        with open(HOME / "pids", "a") as file:
            file.write(f"{process.pid}\n")


def remove_leftovers() -> None:
    """Removes everything that a cluster created, by this process or by a killed one; keeps the packages."""
    pids = (HOME / "pids").read_text().split() if (HOME / "pids").exists() else []
    for pid in pids:
        with contextlib.suppress(OSError):
            if str(HOME) in Path(f"/proc/{pid}/cmdline").read_text():  # not another process that has this pid now
                os.kill(int(pid), signal.SIGKILL)
    for name in [line.split()[0] for line in output("ip", "netns").splitlines()]:
        if name.startswith(BRIDGE):
            remove_namespace(name)
    for link in re.findall(rf"\b{BRIDGE}\d*\b", output("ip", "-brief", "link")):  # others go with their namespace
        subprocess.run(["ip", "link", "del", link], capture_output=True)
    for path in HOME.glob("*"):
        if path.name != "installed":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_namespace(name: str) -> None:
    for pid in output("ip", "netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "del", name)


def install_packages() -> None:
    """Installs the missing packages, and records their names for `purge_packages`."""
    missing = [package for command, package in PACKAGES.items() if shutil.which(command) is None]
    if not missing:
        return
    before = installed_packages()
    run("apt-get", "update", "-qq")
    options = ("-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0")
    planned = output("apt-get", "install", "--simulate", *options[2:], *missing)
    new = [line.split()[1] for line in planned.splitlines() if line.startswith("Inst ")]
    (HOME / "installed").write_text("\n".join(name for name in new if name not in before) + "\n")
    run("apt-get", "install", *options, *missing, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def purge_packages() -> None:
    """Removes only the packages that `install_packages` installed; does not use autoremove."""
    if (HOME / "installed").exists():
        run("dpkg", "--purge", *(HOME / "installed").read_text().split())


def installed_packages() -> set[str]:
    return set(output("dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${Package}\n").split())


def run(*command: str, **options: object) -> None:
    result = subprocess.run(command, capture_output=True, text=True, **options)  # pyright: ignore
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def wait_for(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} in {seconds:g} s")
        time.sleep(0.2)


if __name__ == "__main__":
    if obstacle := find_obstacle():
        raise SystemExit(obstacle)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), Cluster(4):
        print(f"export SLURM_CONF={HOME}/slurm.conf   # then sinfo, sbatch, squeue; Ctrl-C here removes it")
        signal.pause()
