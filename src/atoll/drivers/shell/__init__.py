"""Short commands at a site, as the account that a job belongs to: on this machine, or over SSH.

Shared by the drivers whose engine is spoken to by commands, or whose sockets and files are behind a login node.
"""

from atoll.drivers.shell.base import NoAccount, Ran, Shell, Unfinished
from atoll.drivers.shell.config import SshConfig, SshFields
from atoll.drivers.shell.local import LocalShell
from atoll.drivers.shell.ssh import SshShell

__all__ = ["LocalShell", "NoAccount", "Ran", "Shell", "SshConfig", "SshFields", "SshShell", "Unfinished"]
