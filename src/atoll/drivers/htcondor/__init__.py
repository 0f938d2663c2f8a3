"""An HTCondor pool as a site, through its own bindings."""

from atoll.drivers.htcondor.driver import HtcondorDriver

__all__ = ["HtcondorDriver"]
