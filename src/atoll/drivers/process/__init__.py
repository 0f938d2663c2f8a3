"""This machine as a site: attempts are processes under a small supervisor that outlives the control plane."""

from atoll.drivers.process.driver import ProcessDriver

__all__ = ["ProcessDriver"]
