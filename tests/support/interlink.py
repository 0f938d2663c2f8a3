"""An interLink plugin for tests, which really runs pods: as processes of this machine, with namespaces of their own.

Its wire is that of interLink's Go structs. It runs as a process of its own (`InterlinkPlugin` starts it), and can be
told to have the bad habits that plugins have: see `MODES`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

MODES = frozenset(
    {
        "wants-list",  # POST /create takes a list of pods, as old plugins do
        "garbage",  # answers everything with 200 and what is no JSON
        "hang",  # takes a question and never answers
        "drip",  # sends a byte now and then, for ever
        "flood",  # answers /status with more than anybody wants to read
        "broken",  # answers everything with 500
        "refuses",  # answers /create with 504 and its engine's words, as the Slurm plugin does
        "slow-create",  # creates the pod, and answers much later
        "lost-answer",  # creates the pod, and breaks the connection
        "remembers",  # answers /status from memory for ten seconds, whatever pods it is asked for
        "all-or-nothing",  # answers /status with 404 where it does not know one of the pods
        "no-change",  # tells an empty state of every pod
        "no-containers",  # tells an empty list of containers of every pod
        "noisy",  # puts words of its own before the output of a pod
    }
)
LIFETIME = 300
"""Seconds after which a pod is ended, whatever becomes of the tests."""
CGROUPS = Path("/sys/fs/cgroup/memory")

# $1 the pod's folder, $2 its cgroup or nothing; then the words of its command
_RUN = r"""
folder=$1 cgroup=$2
shift 2
[ -z "$cgroup" ] || echo $$ >"$cgroup/cgroup.procs"
date +%s.%N >"$folder/started"
unshare --mount --pid --fork --kill-child --mount-proc sh -c '
    mount -t tmpfs none /mnt || exit 99
    folder=$1
    shift
    while read -r name path; do
        mkdir -p "$path" && mount --bind "$folder/mounts/$name" "$path" || exit 99
    done <"$folder/mounts/list"
    cd / && exec env -i PATH="$PATH" HOME=/root HOSTNAME="${folder##*/}" "$@"
' sh "$folder" "$@" >"$folder/log" 2>&1 </dev/null
echo "$? $(date +%s.%N)" >"$folder/ended.new"
mv "$folder/ended.new" "$folder/ended"
"""


# -- the plugin itself ---------------------------------------------------------------------------------------------


class Plugin:
    """Pods by uid, as folders of `root`: what runs is found again after a restart."""

    def __init__(self, root: Path, token: str | None) -> None:
        self.root = root
        self.token = token
        self.modes: set[str] = set()
        self.calls: list[tuple[str, Any]] = []
        self.remembered: tuple[float, list[Any]] = (0.0, [])
        self.killed: set[str] = set()

    def folder(self, pod: dict[str, Any]) -> Path:
        metadata = pod["metadata"]
        return self.root / f"{metadata['namespace']}-{metadata['uid']}"

    def create(self, data: dict[str, Any]) -> dict[str, str]:
        pod = data["pod"]
        (container,) = pod["spec"]["containers"]
        folder = self.folder(pod)
        job = str(1000 + len(list(self.root.iterdir())))
        (folder / "mounts").mkdir(parents=True)
        (folder / "request.json").write_text(json.dumps(data))
        beside = next(each for each in data["container"] if each["name"] == container["name"])
        self.lay(folder, pod, container, beside)
        cgroup = self.cgroup(folder, container["resources"]["limits"]["memory"])
        (folder / "job").write_text(job)
        words = [*container["command"], *container.get("args", [])]
        with subprocess.Popen(
            ["/usr/bin/timeout", "-k", "1", str(LIFETIME), "/bin/sh", "-c", _RUN, "sh", str(folder), cgroup, *words],
            start_new_session=True, stdin=subprocess.DEVNULL, env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin"},
        ) as process:  # fmt: skip
            process.returncode = 0  # not waited for here: it is collected as any child is
        (folder / "pid").write_text(str(process.pid))
        return {"PodUID": pod["metadata"]["uid"], "PodJID": job}

    @staticmethod
    def lay(folder: Path, pod: dict[str, Any], container: dict[str, Any], beside: dict[str, Any]) -> None:
        """Volumes from config maps and secrets that came beside the pod, as the Slurm plugin reads them."""
        lines = []
        volumes = {each["name"]: each for each in pod["spec"].get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            volume = volumes[mount["name"]]
            target = folder / "mounts" / mount["name"]
            target.mkdir()
            if "configMap" in volume:
                named, mode = volume["configMap"]["name"], volume["configMap"]["defaultMode"]
                source = next(each for each in beside["configMaps"] if each["metadata"]["name"] == named)
                files = {key: text.encode() for key, text in source["data"].items()}
            else:
                named, mode = volume["secret"]["secretName"], volume["secret"]["defaultMode"]
                source = next(each for each in beside["secrets"] if each["metadata"]["name"] == named)
                files = {key: base64.b64decode(text, validate=True) for key, text in source["data"].items()}
            for name, content in files.items():
                (target / name).write_bytes(content)
                (target / name).chmod(mode)
            lines.append(f"{mount['name']} {mount['mountPath']}\n")
        (folder / "mounts" / "list").write_text("".join(lines))

    @staticmethod
    def cgroup(folder: Path, memory: str) -> str:
        """A memory cgroup for the pod; empty where none can be made here."""
        path = CGROUPS / f"atoll-test-{os.getpid()}-{folder.name}"
        units = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
        size = int(memory[:-2]) * units[memory[-2:]] if memory[-2:] in units else int(memory)
        try:
            path.mkdir()
            (path / "memory.limit_in_bytes").write_text(str(size))
        except OSError:
            return ""
        (folder / "cgroup").write_text(str(path))
        return str(path)

    def state(self, folder: Path) -> dict[str, Any]:
        """The Kubernetes container state of a pod."""
        started, ended = _read(folder / "started"), _read(folder / "ended")
        if not started:
            return {"waiting": {"reason": "ContainerCreating"}}
        if not ended:
            return {"running": {"startedAt": _moment(started)}}
        code, at = ended.split()
        reason = "Completed" if code == "0" else "Error"
        cgroup = _read(folder / "cgroup").strip()
        if cgroup and _oom_kills(Path(cgroup)):
            reason = "OOMKilled"
        return {
            "terminated": {
                "exitCode": int(code), "reason": reason, "startedAt": _moment(started), "finishedAt": _moment(at),
            }
        }  # fmt: skip

    def status(self, pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The pods that are known; others are left out, as the HTCondor plugin does."""
        told = []
        for pod in pods:
            folder = self.folder(pod)
            if not folder.is_dir():
                continue
            state: dict[str, Any] = {} if "no-change" in self.modes else self.state(folder)
            containers = [{"name": each["name"], "state": state, "ready": False} for each in pod["spec"]["containers"]]
            metadata = pod["metadata"]
            told.append(
                {
                    "name": metadata["name"], "UID": metadata["uid"], "namespace": metadata["namespace"],
                    "JID": _read(folder / "job"), "initContainers": [],
                    "containers": [] if "no-containers" in self.modes else containers,
                }
            )  # fmt: skip
        return told

    def kill(self, folder: Path) -> None:
        pid = _read(folder / "pid")
        if pid and not (folder / "ended").exists():
            try:
                os.killpg(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has just ended

    def remove(self, folder: Path) -> None:
        """End a pod and forget it."""
        self.kill(folder)
        cgroup = _read(folder / "cgroup").strip()
        shutil.rmtree(folder, ignore_errors=True)
        if cgroup:
            _remove_cgroup(Path(cgroup))


def _remove_cgroup(path: Path) -> None:
    for _ in range(100):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)  # the kernel is still taking its processes out
        else:
            return


def _oom_kills(cgroup: Path) -> int:
    for line in _read(cgroup / "memory.oom_control").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _moment(seconds: str) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat().replace("+00:00", "Z")


@web.middleware
async def _habits(request: web.Request, handler: Any) -> web.StreamResponse:
    plugin = request.app[PLUGIN]
    if request.path.startswith("/test/"):
        return await handler(request)
    if plugin.token is not None and request.headers.get("Authorization") != f"Bearer {plugin.token}":
        return web.Response(status=401, text="Unauthorized")
    body = await request.json()
    plugin.calls.append((request.path, body))
    if "hang" in plugin.modes:
        await asyncio.Event().wait()
    if "garbage" in plugin.modes:
        return web.Response(body=b"<html>\x00\xff It works!</html>")
    if "broken" in plugin.modes:
        return web.Response(status=500, text="panic: runtime error: invalid memory address or nil pointer dereference")
    if "drip" in plugin.modes or ("flood" in plugin.modes and request.path == "/status"):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"[" if "drip" in plugin.modes else b" " * 65536)
            if "drip" in plugin.modes:
                await asyncio.sleep(0.1)
    return await handler(request)


async def _create(request: web.Request) -> web.Response:
    plugin, body = request.app[PLUGIN], await request.json()
    listed = "wants-list" in plugin.modes
    if listed is not isinstance(body, list):
        given, wanted = ("object", "[]interlink") if listed else ("array", "interlink")
        words = f"json: cannot unmarshal {given} into Go value of type {wanted}.RetrievedPodData"
        return web.Response(status=500, text=words)
    if "refuses" in plugin.modes:
        words = "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
        return web.Response(status=504, text=words)
    data = body[0] if listed else body
    if plugin.folder(data["pod"]).exists():
        return web.Response(status=500, text=f"mkdir {plugin.folder(data['pod'])}: file exists")
    answer = plugin.create(data)
    if "slow-create" in plugin.modes:
        await asyncio.sleep(10)
    if "lost-answer" in plugin.modes:
        assert request.transport is not None
        request.transport.abort()
    return web.json_response([answer] if listed else answer)


async def _status(request: web.Request) -> web.Response:
    plugin, pods = request.app[PLUGIN], await request.json()
    if not pods:
        return web.json_response({"status": "ok", "resources": {"cpu": "64", "memory": "65536Mi"}})
    if "all-or-nothing" in plugin.modes and len(plugin.status(pods)) < len(pods):
        return web.Response(status=404, text="Maybe it was deleted or never existed.")
    if "remembers" in plugin.modes:
        at, answer = plugin.remembered
        if time.monotonic() - at < 10:
            return web.json_response(answer)
    answer = plugin.status(pods)
    plugin.remembered = (time.monotonic(), answer)
    return web.json_response(answer or None)


async def _delete(request: web.Request) -> web.Response:
    plugin, pod = request.app[PLUGIN], await request.json()
    folder = plugin.folder(pod)
    if not folder.is_dir():
        return web.Response(status=404, text="Pod not found or already deleted")
    await asyncio.to_thread(plugin.remove, folder)
    return web.Response(text="All containers for submitted Pods have been deleted")


async def _get_logs(request: web.Request) -> web.Response:
    plugin, asked = request.app[PLUGIN], await request.json()
    folder = plugin.root / f"{asked['Namespace']}-{asked['PodUID']}"
    opts = {"Tail", "Bytes", "Timestamps", "Follow", "Previous", "SinceSeconds", "SinceTime"}
    if set(asked["Opts"]) != opts or asked["ContainerName"] != "job":
        return web.Response(status=400, text="bad log request")
    if not folder.is_dir():
        return web.Response(status=404, text="no such pod")
    log = (folder / "log").read_bytes() if (folder / "log").exists() else b""
    if "noisy" in plugin.modes:
        # the Slurm plugin's own words come first, and grow while the job runs
        log = b"This pod has been submitted to SLURM node n1.\n" * (1 + int(time.monotonic()) % 5) + log
    return web.Response(body=log, content_type="text/plain")


async def _test_modes(request: web.Request) -> web.Response:
    modes = set(await request.json())
    assert modes <= MODES, modes - MODES
    request.app[PLUGIN].modes = modes
    request.app[PLUGIN].remembered = (0.0, [])
    return web.json_response(None)


async def _test_forget(request: web.Request) -> web.Response:
    """End every pod, or those with these uids, and forget them, as somebody does who removes jobs by hand."""
    plugin, uids = request.app[PLUGIN], await request.json()
    for folder in list(plugin.root.iterdir()):
        if uids is None or any(folder.name.endswith(uid) for uid in uids):
            await asyncio.to_thread(plugin.remove, folder)
    plugin.remembered = (0.0, [])
    return web.json_response(None)


async def _test_calls(request: web.Request) -> web.Response:
    plugin = request.app[PLUGIN]
    calls, plugin.calls = plugin.calls, []
    return web.json_response(calls)


PLUGIN: web.AppKey[Plugin] = web.AppKey("plugin", Plugin)


def _serve() -> None:
    parser = argparse.ArgumentParser()
    for name in ("folder", "socket", "port", "token", "certificate", "key", "ca"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # pods are nobody's business once they have ended
    app = web.Application(middlewares=[_habits], client_max_size=64 << 20)
    app[PLUGIN] = Plugin(Path(options.folder), options.token)
    app.add_routes(
        [
            web.post("/create", _create), web.get("/status", _status), web.post("/delete", _delete),
            web.get("/getLogs", _get_logs), web.post("/test/modes", _test_modes),
            web.post("/test/forget", _test_forget), web.post("/test/calls", _test_calls),
        ]
    )  # fmt: skip
    context = None
    if options.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=options.ca)
        context.load_cert_chain(options.certificate, options.key)
        context.verify_mode = ssl.CERT_REQUIRED if options.ca else ssl.CERT_NONE
    web.run_app(
        app, host=None if options.socket else "127.0.0.1", port=int(options.port) if options.port else None,
        path=options.socket, ssl_context=context, print=lambda *_: print("ready", flush=True), access_log=None,
        handler_cancellation=True, shutdown_timeout=0.1,
    )  # fmt: skip


# -- for the tests -------------------------------------------------------------------------------------------------


class InterlinkPlugin:
    """The plugin as a process; its pods outlive it, as real ones do, until `stop`."""

    def __init__(self, **options: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="atoll-interlink-"))
        (self.root / "pods").mkdir()
        self.options = options or {"socket": str(self.root / "plugin.sock")}
        self._control = f"http://127.0.0.1:{options['port']}" if "port" in options else ""
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """For a site's config."""
        if "port" in self.options:
            return f"{'https' if 'certificate' in self.options else 'http'}://127.0.0.1:{self.options['port']}"
        return f"unix://{self.options['socket']}"

    def start(self) -> None:
        """Start the process, and return when it answers."""
        Path(self.options.get("socket", "/nowhere")).unlink(missing_ok=True)
        words = [f"--{name}={value}" for name, value in self.options.items()]
        self._process = subprocess.Popen(
            [
                "/usr/bin/setpriv", "--pdeathsig", "KILL", sys.executable, "-P", __file__,
                f"--folder={self.root / 'pods'}", *words,
            ],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the test plugin did not start"

    def kill(self) -> None:
        """End the process; its pods go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stop(self) -> None:
        """End the process and all pods."""
        plugin = Plugin(self.root / "pods", None)
        self.kill()
        for folder in plugin.root.iterdir():
            plugin.remove(folder)
        shutil.rmtree(self.root, ignore_errors=True)

    def tell(self, what: str, value: Any) -> Any:
        """Use the plugin's entrance for tests: `modes`, `forget` or `calls`."""
        body = json.dumps(value).encode()
        if "socket" in self.options:
            return _over_unix(self.options["socket"], f"/test/{what}", body)
        with urllib.request.urlopen(f"{self.url}/test/{what}", body, timeout=10) as answer:
            return json.loads(answer.read())

    def modes(self, *modes: str) -> None:
        """Have these habits from now on."""
        self.tell("modes", list(modes))

    def forget(self, *uids: str) -> None:
        """Remove pods behind the platform's back; all where none is named."""
        self.tell("forget", list(uids) or None)

    def calls(self) -> list[tuple[str, Any]]:
        """The calls since the last time, as (path, body)."""
        return [(path, body) for path, body in self.tell("calls", None)]


def _over_unix(path: str, where: str, body: bytes) -> Any:
    import http.client
    import socket

    connection = http.client.HTTPConnection("plugin", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(path)
    try:
        connection.request("POST", where, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())
    finally:
        connection.close()


if __name__ == "__main__":
    _serve()
