"""A container host as a site: attempts are containers of Podman, spoken to over its REST API."""

from atoll.drivers.podman.driver import PodmanDriver

__all__ = ["PodmanDriver"]
