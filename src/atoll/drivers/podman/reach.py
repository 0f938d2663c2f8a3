"""The way to a port inside a container."""

from atoll.drivers.base import Channel, DriverError
from atoll.drivers.podman.config import PodmanConfig
from atoll.drivers.podman.states import Inspected
from atoll.drivers.shell import Shell

LOOPBACK = "127.0.0.1"


async def reach(shell: Shell, inspected: Inspected, config: PodmanConfig, port: int) -> Channel:
    """A stream to the port, as the host reaches it: published there, or at the container's own address.

    Raises DriverError where there is no way, or nobody listens.
    """
    if config.network == "host":
        return await shell.connect(None, LOOPBACK, port)
    networking = inspected.networking
    published = (networking.ports or {}).get(f"{port}/tcp") or []
    for place in published:
        if place.host_port.isdecimal() and int(place.host_port):
            return await shell.connect(None, LOOPBACK, int(place.host_port))
    addresses = [joined.address for joined in (networking.networks or {}).values()] + [networking.address]
    for address in addresses:
        if address:
            return await shell.connect(None, address, port)
    if config.network == "none":
        raise DriverError("Attempts have no network at this site, so that none of their ports can be reached.")
    raise DriverError(f"Port {port} of the attempt is not to be reached from its host; name it in the job's ports.")
