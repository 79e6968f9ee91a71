"""A real Slurm of one node, of Debian's packages, for the tests of jobs; all its files are in one folder."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
DEADLINE = 600
ENDING_SECONDS = 20

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={here}/munge/socket,cred_expire=10
CryptoType=crypto/munge
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool
SlurmctldLogFile={here}/slurmctld.log
SlurmdLogFile={here}/slurmd.log
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why there is no Slurm here; None: there is. Its packages are installed where that is possible."""
    if os.geteuid() != 0:
        return "starting Slurm's daemons needs root"
    if all(map(shutil.which, DAEMONS)):
        return None
    if shutil.which("apt-get") is None:
        return "Slurm's daemons are not here, and there is no apt-get to install them with"
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True, "check": False}
    subprocess.run(["apt-get", "-q", "update"], **quiet)
    subprocess.run(["apt-get", "-qy", "install", "--no-install-recommends", *PACKAGES], **quiet)
    return None if all(map(shutil.which, DAEMONS)) else f"apt-get could not install {' '.join(PACKAGES)}"


class OneNodeSlurm:
    """The cluster in the folder `here`, from `with` on. `environment` has Slurm's commands find it."""

    def __init__(self, here: Path):
        self.here = here
        self.environment = {"SLURM_CONF": str(here / "slurm.conf")}

    def __enter__(self) -> "OneNodeSlurm":
        host = socket.gethostname().partition(".")[0]
        for name in ("munge", "state", "spool"):
            (self.here / name).mkdir(parents=True, mode=0o755)
        key = self.here / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        text = CONF.format(host=host, here=self.here, ports=free_ports(2), cores=os.cpu_count())
        (self.here / "slurm.conf").write_text(text)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{option}={self.here / 'munge' / name}" for option, name in names.items()]
        self._daemon("munged", "--force", *munge)
        self.start_controller()
        self._daemon("slurmd")
        self.wait_until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T", check=False))
        return self

    def __exit__(self, *_: object) -> None:
        self.run("scancel", f"--user={os.getuid()}", "--signal=KILL", "--full", check=False)
        self.run("scancel", f"--user={os.getuid()}", check=False)
        for name in ("slurmctld.pid", "slurmd.pid", "munge/pid"):
            self._end(self.here / name)

    def start_controller(self) -> None:
        """Starts slurmctld, which goes on with the jobs that it knew."""
        self._daemon("slurmctld")

    def stop_controller(self) -> None:
        """Ends slurmctld alone: jobs go on."""
        self._end(self.here / "slurmctld.pid")

    def run(self, *words: str, check: bool = True) -> str:
        """What one of Slurm's commands prints."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=check, timeout=60).stdout

    def states(self) -> dict[str, str]:
        """The state of every job that is in the queue or running, by its id."""
        found: list[str] = []

        def ask() -> bool:
            # A controller that was just started does not answer yet.
            with contextlib.suppress(subprocess.SubprocessError):
                found[:] = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
                return True
            return False

        self.wait_until(ask)
        return dict(line.split() for line in found)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits, but not for good."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, (self.here / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)

    def _daemon(self, name: str, *options: str) -> None:
        path = shutil.which(name)
        assert path is not None
        subprocess.run([path, *options], env={**os.environ, **self.environment}, check=True, timeout=60)

    def _end(self, pid_file: Path) -> None:
        if not pid_file.exists() or not (text := pid_file.read_text().strip()):
            return
        proc, end = Path(f"/proc/{text}"), time.monotonic() + ENDING_SECONDS
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(text), number)
            while proc.exists() and time.monotonic() < end:
                time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    found = [socket.socket() for _ in range(count)]
    for one in found:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in found]
    for one in found:
        one.close()
    return ports
