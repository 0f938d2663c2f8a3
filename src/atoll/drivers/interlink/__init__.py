"""Any interLink plugin as a site: each attempt becomes a pod, which the plugin runs as its engine does."""

from atoll.drivers.interlink.driver import InterlinkDriver

__all__ = ["InterlinkDriver"]
