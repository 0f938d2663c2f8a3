"""A real Slurm cluster on this machine, in a temporary folder, for tests and benchmarks.

    with SlurmCluster(nodes=2, cpus=8) as cluster:
        config = {"transport": "local", "slurm_conf": str(cluster.conf)}

Many slurmd run on this one host, each as a node of its own; CPUs and memory are what the caller says, whatever this
machine has. All daemons and jobs live in one PID namespace, so that nothing is left when the tests end or die.
`stop`, `start`, `pause` and `resume` make slurmctld or a node vanish and come back.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.support.engines import skip_without
from tests.support.ports import free_port

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo", "unshare", "nsenter", "setpriv")
_START_SECONDS = 60.0
_INSTALL_SECONDS = 180.0
_PACKAGES = "slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins slurm-wlm-jwt-plugin"
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SlurmUnavailable(Exception):
    """This machine cannot run a Slurm cluster; the message says what is missing."""


def slurm_missing() -> str | None:
    """Why no cluster can be started here; None where one can."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_SEARCH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: {_PACKAGES})"
    if os.geteuid() != 0:
        return "the tests do not run as root"
    tried = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False, capture_output=True, timeout=30
    )
    return None if tried.returncode == 0 else f"no PID namespace: {tried.stderr.decode().strip()}"


def need_slurm(*, accounting: bool = False) -> None:
    """Skip the running test where no cluster, or none with slurmdbd, can be started."""
    reason = slurm_missing()
    if reason is not None:
        skip_without("Slurm", reason)
    programs = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db") if accounting else ()
    missing = [name for name in programs if shutil.which(name, path=_SEARCH) is None]
    if missing:
        skip_without("slurmdbd", f"not installed: {', '.join(missing)} (Debian: slurmdbd mariadb-server)")


class SlurmCluster:
    """One cluster: `nodes` times `cpus` CPUs and `memory` MiB, the last `gpus[1]` of them with GPUs.

    `partitions` are lines after `PartitionName=`, in which `{0}` stands for the first node's name; `gpus` is (type,
    number of nodes, GPUs on each); `extra` are further lines of slurm.conf, and win over those that stand here;
    `accounting` starts slurmdbd with a MariaDB of its own.
    """

    def __init__(
        self,
        *,
        nodes: int = 2,
        cpus: int = 8,
        memory: int = 16_000,
        partitions: Sequence[str] = ("main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",),
        gpus: tuple[str, int, int] | None = None,
        features: str = "",
        max_array_size: int = 1001,
        min_job_age: int = 300,
        extra: Sequence[str] = (),
        accounting: bool = False,
        name: str | None = None,
    ) -> None:
        self.name = name or f"t{secrets.token_hex(3)}"
        self.nodes = [f"{self.name}n{number}" for number in range(1, nodes + 1)]
        self._cpus, self._memory, self._partitions = cpus, memory, partitions
        self._gpus, self._features = gpus, features
        self.max_array_size, self._min_job_age, self._extra = max_array_size, min_job_age, extra
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        """By daemon: munged, slurmctld, each node, ..."""
        self._init: subprocess.Popen[bytes] | None = None
        self._accounting = accounting
        self._database_port = self._accounting_port = 0
        self._first_job = 1
        self.folder = Path()
        self.port = 0

    # -- paths and commands --------------------------------------------------------------------------------------

    @property
    def conf(self) -> Path:
        """slurm.conf."""
        return self.folder / "slurm.conf"

    @property
    def jwt_key(self) -> Path:
        """The key by which slurmrestd's tokens are made."""
        return self.folder / "state" / "jwt.key"

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need to find this cluster."""
        return {"PATH": _SEARCH, "SLURM_CONF": str(self.conf), "HOME": "/root", "LANG": "C.UTF-8"}

    def run(self, *words: str, check: bool = True, seconds: float = 60.0, user: str | None = None) -> str:
        """The output of one of Slurm's commands. Raises CalledProcessError, which carries what it said."""
        done = subprocess.run(
            words, check=check, capture_output=True, text=True, timeout=seconds, env=self.environment, user=user
        )
        return done.stdout

    def questions(self) -> dict[str, int]:
        """How many questions of each kind slurmctld answered since the last `reset_questions`, by sdiag."""
        return {
            kind: int(count)
            for kind, count in re.findall(
                r"^\s+(REQUEST_\w+)\s+\(\s*\d+\)\s+count:(\d+)", self.run("sdiag"), re.MULTILINE
            )
        }

    def reset_questions(self) -> None:
        """Begin to count anew."""
        self.run("sdiag", "--reset")

    def token(self, user: str, seconds: int = 600) -> str:
        """A token for slurmrestd."""
        return self.run("scontrol", "token", f"username={user}", f"lifespan={seconds}").strip().partition("=")[2]

    # -- its life ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        reason = slurm_missing()
        if reason is not None:
            raise SlurmUnavailable(reason)
        try:
            self._lay_out()
            self._begin()
            self.start("munged")
            if self._accounting:
                self._start_accounting()
            self.start("slurmctld")
            for node in self.nodes:
                self.start(node)
            self.until_idle()
            if self._accounting:
                self._until(self._registered, "the cluster is not known to slurmdbd")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def start(
        self, what: str = "slurmctld", words: Sequence[str] = (), environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:  # fmt: skip
        """Start a daemon: munged, slurmctld, a node by its name, or `words` under a name of the caller's."""
        assert what not in self._processes, f"{what} runs already"
        known = {
            "munged": [
                "munged", "-F", "--force", f"--key-file={self.folder}/munge/key", f"--socket={self._socket}",
                f"--pid-file={self.folder}/munge/pid", f"--seed-file={self.folder}/munge/seed",
                f"--log-file={self.folder}/log/munged",
            ],
            "slurmctld": ["slurmctld", "-D", "-f", str(self.conf)],
        }  # fmt: skip
        command = [*(words or known.get(what) or ["slurmd", "-D", "-N", what, "-f", str(self.conf)])]
        if user is not None:
            command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
        with (self.folder / "log" / f"{what}.out").open("ab") as log:
            self._processes[what] = subprocess.Popen(
                ["nsenter", f"--target={self._inner(self._init)}", "--pid", "--mount", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**self.environment, **(environment or {})},
            )

    def stop(self, what: str = "slurmctld", how: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon; returns when it is gone. By SIGKILL slurmctld loses what it has not written down yet."""
        process = self._processes.pop(what)
        with suppress(ProcessLookupError):
            os.kill(self._inner(process), how)
        try:
            process.wait(_START_SECONDS)
        finally:
            process.kill()
            process.wait()

    def pause(self, what: str = "slurmctld") -> None:
        """Keep a daemon from doing anything, while its connections stay open."""
        os.kill(self._inner(self._processes[what]), signal.SIGSTOP)

    def resume(self, what: str = "slurmctld") -> None:
        """Let it go on."""
        outer = self._processes[what]
        os.kill(self._inner(outer), signal.SIGCONT)
        os.kill(outer.pid, signal.SIGCONT)  # nsenter stops with the process that it waits for

    def until_answers(self) -> None:
        """Wait until slurmctld answers."""
        self._until(lambda: "is UP" in self.run("scontrol", "ping", check=False), "slurmctld does not answer")

    def mend(self) -> None:
        """Wait until slurmctld answers, and give back the nodes that Slurm took out of service."""
        self.until_answers()

        def well() -> bool:
            said = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", check=False)
            states = dict(line.split()[:2] for line in said.splitlines())
            ill = [
                node for node in self.nodes if states.get(node, "").rstrip("*") not in ("idle", "mixed", "allocated")
            ]
            for node in ill:
                # refused where the node is on its way back already
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            return not ill

        self._until(well, "the nodes do not come back")

    def until_idle(self) -> None:
        """Wait until every node is idle."""

        def idle() -> bool:
            said = self.run("sinfo", "--noheader", "--Node", "--format=%N %t", check=False)
            states = dict(line.split()[:2] for line in said.splitlines())
            return all(states.get(node) == "idle" for node in self.nodes)

        self._until(idle, "the nodes do not become idle")

    def forget_jobs(self) -> None:
        """Have slurmctld forget all jobs, as it does MinJobAge after their end; those that run are lost."""
        self.stop()
        for path in (self.folder / "state").glob("job_state*"):
            path.unlink()
        lines = [line for line in self.conf.read_text().splitlines() if not line.startswith("FirstJobId=")]
        self._first_job += 100_000  # no number is given a second time
        self.conf.write_text("\n".join([*lines, f"FirstJobId={self._first_job}"]) + "\n")
        self.start()
        self.until_answers()

    def remove(self) -> None:
        """End everything and remove the folder."""
        if self._init is not None:
            self._init.kill()  # and with it the whole namespace
            self._init.wait()
            self._init = None
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        for node in self.nodes:
            for place in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}"):
                _remove_groups(place)
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- how -----------------------------------------------------------------------------------------------------

    @property
    def _socket(self) -> Path:
        return self.folder / "munge" / "socket"

    @staticmethod
    def _inner(outer: subprocess.Popen[bytes] | None) -> int:
        """The process inside the namespace that `outer` entered it for; its id outside."""
        assert outer is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                return int(psutil.Process(outer.pid).children()[0].pid)
            except IndexError:
                if outer.poll() is not None:
                    break
                time.sleep(0.01)  # it has not forked yet, and nothing tells when it has
        raise ProcessLookupError("the daemon has ended")

    def _until(self, condition: Callable[[], bool], sentence: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise SlurmUnavailable(f"{sentence}: {self._logs()}")
            time.sleep(0.1)  # only asking again tells

    def _logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted((self.folder / "log").iterdir()))

    def _lay_out(self) -> None:
        # not below pytest's own folder, which other accounts cannot pass
        self.folder = Path(tempfile.mkdtemp(prefix="atoll-slurm-"))
        self.folder.chmod(0o755)
        for name in ("munge", "log", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        (self.folder / "munge" / "key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge" / "key").chmod(0o600)
        self.jwt_key.write_bytes(secrets.token_bytes(32))
        self.jwt_key.chmod(0o600)
        self.port = free_port()
        self.conf.write_text("\n".join(self._settings()) + "\n")
        (self.folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n"
            "AllowedSwapSpace=0\n"
        )
        if self._gpus is not None:
            kind, count, each = self._gpus
            for number in range(each):
                os.mknod(self.folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            lines = [
                f"NodeName={node} Name=gpu Type={kind} File={self.folder}/gpu[0-{each - 1}]\n"
                for node in self.nodes[-count:]
            ]
            (self.folder / "gres.conf").write_text("".join(lines))

    def _settings(self) -> list[str]:
        log, state = self.folder / "log", self.folder / "state"
        own = {line.partition("=")[0].strip() for line in self._extra}
        settings = {
            "ClusterName": self.name,
            "SlurmctldHost": f"{socket.gethostname()}(127.0.0.1)",
            "SlurmctldPort": str(self.port),
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._socket}",
            "AuthAltTypes": "auth/jwt",
            "AuthAltParameters": f"jwt_key={self.jwt_key}",
            "StateSaveLocation": str(state),
            "SlurmdSpoolDir": f"{self.folder}/spool/%n",
            "SlurmdPidFile": f"{state}/slurmd-%n.pid",
            "SlurmctldPidFile": f"{state}/slurmctld.pid",
            "SlurmdLogFile": f"{log}/slurmd-%n",
            "SlurmctldLogFile": f"{log}/slurmctld",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/cgroup",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "GresTypes": "gpu",
            # as many CPUs and as much memory as the caller says, whatever the machine has
            "SlurmdParameters": "config_overrides",
            "SchedulerParameters": "sched_min_interval=0,sched_interval=1,bf_interval=1,defer_batch",
            "ReturnToService": "2",
            "MpiDefault": "none",
            "MaxArraySize": str(self.max_array_size),
            "MinJobAge": str(self._min_job_age),
            "KillWait": "5",
            "MessageTimeout": "5",
            "MailProg": "/bin/true",
        }
        lines = [f"{name}={value}" for name, value in settings.items() if name not in own] + list(self._extra)
        for number, node in enumerate(self.nodes):
            line = (
                f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={free_port()} CPUs={self._cpus} "
                f"RealMemory={self._memory}"
            )
            if self._features:
                line += f" Feature={self._features}"
            if self._gpus is not None and number >= len(self.nodes) - self._gpus[1]:
                line += f" Gres=gpu:{self._gpus[0]}:{self._gpus[2]}"
            lines.append(line)
        return lines + [f"PartitionName={partition.format(*self.nodes)}" for partition in self._partitions]

    def _start_accounting(self) -> None:
        """Start MariaDB and slurmdbd."""
        data = self.folder / "database"
        data.mkdir(mode=0o700)
        shutil.chown(data, "mysql", "mysql")
        # its files need not survive a power failure, and some disks take minutes to make them do so
        hasty = ["--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
        words = ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db", *hasty]
        subprocess.run(
            [*words, "--auth-root-authentication-method=normal"], check=True, capture_output=True,
            timeout=_INSTALL_SECONDS, env=self.environment,
        )  # fmt: skip
        self._database_port, self._accounting_port = free_port(), free_port()
        socket_path = data / "socket"
        self.start("mariadbd", [
            "mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={socket_path}",
            f"--port={self._database_port}", "--bind-address=127.0.0.1", *hasty,
        ])  # fmt: skip
        self._until(socket_path.exists, "MariaDB does not start")
        password = secrets.token_hex(8)
        grant = (
            f"CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO slurm@'127.0.0.1'; "
            f"CREATE USER slurm@localhost IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO slurm@localhost;"
        )
        self.run("mariadb", "--no-defaults", "--user=root", f"--socket={socket_path}", "--execute", grant)
        conf = self.folder / "slurmdbd.conf"
        conf.touch(mode=0o600)
        conf.write_text(
            f"DbdHost=localhost\nDbdPort={self._accounting_port}\nSlurmUser=root\nAuthType=auth/munge\n"
            f"AuthInfo=socket={self._socket}\nStorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n"
            f"StoragePort={self._database_port}\nStorageUser=slurm\nStoragePass={password}\nStorageLoc=accounting\n"
            f"LogFile={self.folder}/log/slurmdbd\nPidFile={self.folder}/state/slurmdbd.pid\n"
        )
        self.conf.write_text(
            f"{self.conf.read_text()}AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePort={self._accounting_port}\nAccountingStoragePass={self._socket}\n"
        )
        self.start("slurmdbd", ["slurmdbd", "-D"])
        self._until(
            lambda: "Cluster" in self.run("sacctmgr", "show", "cluster", check=False), "slurmdbd does not answer"
        )

    def _registered(self) -> bool:
        return self.name in self.run("sacctmgr", "--noheader", "--parsable2", "show", "cluster", check=False)

    def _begin(self) -> None:
        """Start the namespace: it ends with the thread that made it, whatever happens to that."""
        self._init = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
             "sh", "-c", "sleep infinity & wait"],
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _remove_groups(place: Path) -> None:
    """Remove a cgroup whose processes are gone, with those below it."""
    for folder in sorted((path for path in place.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            folder.rmdir()
    with suppress(OSError):
        place.rmdir()
