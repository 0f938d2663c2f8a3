"""Images that Slurm itself runs, by `srun --container`: OCI bundles, with a description of our own for each attempt.

A bundle is a folder with a root file system and a `config.json` that names it. Slurm puts the command and its variables
into a copy of that file and hands it to the runtime that oci.conf names. What else an attempt needs, such as its
folder mounted and its account mapped, has to stand in the file: so each attempt gets a bundle of its own, whose root is
that of the image. Keeper and wrapper stay outside.
"""

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import Invalid
from atoll.drivers.base import DriverError, Launch
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.config import SlurmConfig
from atoll.drivers.slurm.images import SEEN, Mount, mounts_of, own_variables, seen_workdir
from atoll.drivers.slurm.layout import STEP, Entrance, Home
from atoll.drivers.slurm.options import cpus_of
from atoll.drivers.slurm.said import plain
from atoll.drivers.slurm.site import SlurmSite

BUNDLE = "bundle"
"""The folder with the attempt's bundle, in the attempt's own."""
_CONFIG, _ROOT = f"{BUNDLE}/config.json", f"{BUNDLE}/rootfs/"
_HONOURS_ROOT = (23, 2)
"""The Slurm that takes a bundle's root from where its config.json says; older ones take `rootfs` in the bundle."""
_FIELD = "environment.image"
_SRUN = r"""
atoll_path=$1
shift
atoll_srun=$(command -v srun) || { echo "srun is not on the PATH of ${SLURMD_NODENAME:-this node}" >&2; exit 127; }
[ -z "$atoll_path" ] || PATH=$atoll_path
[ ! -t 0 ] || set -- --pty "$@"
trap : HUP INT QUIT USR1 USR2 ALRM TERM
"$atoll_srun" "--nodelist=$SLURMD_NODENAME" "$@"
atoll_code=$?
if [ "$atoll_code" -gt 128 ] && [ "$atoll_code" -le 192 ]; then
    ulimit -c 0
    trap - HUP INT QUIT USR1 USR2 ALRM TERM
    kill -s "$((atoll_code - 128))" "$$"
fi
exit "$atoll_code"
"""
"""Arguments PATH WORD...: runs a step on this node; where PATH is given, it is the one that the step finds.

Ends by the signal that ended the step: srun tells of it as a shell does, and so nobody could tell it from an exit code.
"""


_MOST_TEXT = 64 << 10
"""Bytes of what is taken out of a bundle's description: each attempt gets a copy."""
_ASK_WITHIN = 15.0
"""Seconds for the site to read a bundle's description."""


@dataclass(frozen=True)
class Bundle:
    """What is known of an image's own bundle."""

    root: str
    """Its root file system, an absolute path."""
    environment: tuple[str, ...] = ()
    """Its variables, as NAME=VALUE."""
    network_files: tuple[str, ...] = ()
    """Files of the image that name resolution reads: the node's take their place."""


class Bundles:
    """Bundles at the site, each read once for a submission, with the account's rights."""

    def __init__(self, site: SlurmSite, account: str | None) -> None:
        self._site = site
        self._account = account
        self._known: dict[str, Bundle] = {}
        self._silent = False

    async def read(self, image: str) -> Bundle:
        """The bundle at `image`. Raises Invalid where there is none, and DriverError."""
        if not image.startswith("/"):
            sentence = f"{_FIELD}: An image at this site is the absolute path of an OCI bundle, not {image[:80]!r}."
            raise Invalid("bad_image", sentence, field=_FIELD)
        if image not in self._known:
            text = await self._ask(scripts.BUNDLE, image)
            bundle = read_bundle(image, text)
            files = await self._ask(scripts.BUNDLE_ROOT, bundle.root)
            self._known[image] = Bundle(bundle.root, bundle.environment, tuple(files.decode().split()))
        return self._known[image]

    async def _ask(self, script: str, path: str) -> bytes:
        if self._silent:
            raise DriverError("The file system with the account's images does not answer.")
        try:
            ran = await self._site.script(self._account, script, path, allowed=(1,), seconds=_ASK_WITHIN)
        except DriverError:
            self._silent = True  # once is enough for a submission: others wait for it
            raise
        if ran.code != 0:
            said = plain(ran.error.decode("utf-8", "replace"))
            raise Invalid("no_image", f"{_FIELD}: {said}.", field=_FIELD)
        return ran.out


def read_bundle(image: str, text: bytes) -> Bundle:
    """What the config.json of the bundle at `image` says. Raises Invalid."""
    try:
        said = json.loads(text)
        root, environment = said["root"]["path"], said.get("process", {}).get("env", [])
        if not isinstance(root, str) or not all(isinstance(each, str) for each in environment):
            raise TypeError("root.path or process.env is no text")
        if len("\n".join([root, *environment]).encode()) > _MOST_TEXT:
            raise ValueError(f"root.path and process.env have more than {_MOST_TEXT >> 10} KiB")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        sentence = f"{_FIELD}: {image}/config.json describes no bundle: {plain(str(error))}."
        raise Invalid("bad_image", sentence, field=_FIELD) from None
    return Bundle(posixpath.normpath(f"{image}/{root}" if not root.startswith("/") else root), tuple(environment))


def oci_entrance(launch: Launch, bundle: Bundle, config: SlurmConfig, home: Home, version: tuple[int, int]) -> Entrance:
    """What Slurm wants before the command, and the attempt's own bundle. Raises Invalid."""
    mounts = mounts_of(launch, config, home, SEEN)
    files = {}
    root = bundle.root
    if version < _HONOURS_ROOT:
        files[_ROOT] = ""
        root = f"{home.root}/attempts/{launch.attempt_id}/{_ROOT}".rstrip("/")
        mounts.insert(0, Mount(bundle.root, "/"))
    files[_CONFIG] = json.dumps(description(launch, bundle, root, mounts, home))
    path = next((each[5:] for each in bundle.environment if each.startswith("PATH=")), "")
    words = [
        "/bin/sh", "-c", _SRUN, "atoll", "" if "PATH" in own_variables(launch) else path, "--overlap", "--nodes=1",
        "--ntasks=1", f"--cpus-per-task={cpus_of(launch)}", "--mem=0", "--quiet", "--export=ALL",
        f"--container={home.root}/attempts/{launch.attempt_id}/{BUNDLE}", "--",
    ]  # fmt: skip
    return Entrance(tuple(words), seen=SEEN, files=files | {STEP: ""})


def description(launch: Launch, bundle: Bundle, root: str, mounts: Sequence[Mount], home: Home) -> Mapping[str, Any]:
    """The config.json of the attempt's bundle: a container of the account's own, on the node's network and devices.

    Its processes stay in the node's process namespace: a signal finds them as it finds those of any job, and the first
    of them is no init.
    """
    own = own_variables(launch)
    whole = [mount for mount in mounts if mount.target == "/"]
    network = [Mount(f"/etc/{name}", f"/etc/{name}", read_only=True) for name in bundle.network_files]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            # the account itself is root in there, and nobody else is: more needs rights that it does not have
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/false"],  # Slurm puts the command here, and its variables behind the image's
            "env": [each for each in bundle.environment if each.partition("=")[0] not in own],
            "cwd": seen_workdir(launch),
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": True},
        "mounts": [
            *map(_bound, whole),
            *({"destination": path, "type": "none", "source": path, "options": ["rbind"]} for path in _OF_THE_NODE),
            {"destination": posixpath.dirname(SEEN), "type": "tmpfs", "source": "tmpfs", "options": _OWN_TMP},
            *map(_bound, network),
            *(_bound(mount) for mount in mounts if mount not in whole),
        ],
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": home.uid, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": home.gid, "size": 1}],
            "namespaces": [{"type": "user"}, {"type": "mount"}],
        },
    }  # fmt: skip


_OF_THE_NODE = ("/proc", "/sys", "/dev")
_OWN_TMP = ("nosuid", "nodev", "mode=1777")


def _bound(mount: Mount) -> Mapping[str, Any]:
    options = ["rbind", "ro"] if mount.read_only else ["rbind"]
    return {"destination": mount.target, "type": "none", "source": mount.source, "options": options}
