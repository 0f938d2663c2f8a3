"""Where the platform listens, and under what address people find it."""

import socket

from atoll.core.config import PlatformConfig
from atoll.core.errors import Conflict


def listen(host: str, port: int) -> socket.socket:
    """A socket that is listened on; port 0 takes a free one. Raises Conflict."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise Conflict(
            "port_in_use",
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another port with --port.",
            field="port",
        ) from None
    return listener


def public_url(config: PlatformConfig, listener: socket.socket) -> str:
    """Where people find the platform: as the configuration says, else where it listens."""
    if config.address is not None:
        return config.address
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
