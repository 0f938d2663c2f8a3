"""The Unix accounts of this machine, as a shell acts for them."""

import os
import pwd
from dataclasses import dataclass

from atoll.drivers.shell.base import NoAccount

OWN_PATH = "/usr/local/bin:/usr/bin:/bin"
"""PATH of an account other than our own, and ours where we have none."""


@dataclass(frozen=True)
class Identity:
    """An account, and whether to become it first."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str
    own: bool

    def environment(self) -> dict[str, str]:
        """What the account's commands find: nothing of the platform's own environment but its PATH."""
        path = os.environ.get("PATH", OWN_PATH) if self.own else OWN_PATH
        return {
            "HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell, "PATH": path,
            "LANG": "C.UTF-8",
        }  # fmt: skip


def own_identity() -> Identity:
    """The account of this process; it need not be in the account database."""
    uid, gid, groups = os.geteuid(), os.getegid(), tuple(os.getgroups())
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Identity(str(uid), uid, gid, groups, os.environ.get("HOME", "/"), "/bin/sh", own=True)
    return Identity(entry.pw_name, uid, gid, groups, entry.pw_dir, entry.pw_shell or "/bin/sh", own=True)


def identity_of(account: str | None) -> Identity:
    """The account to act as; None for our own. Raises NoAccount. May ask the machine's directory service."""
    own = own_identity()
    if account is None or account == own.name:
        return own
    try:
        entry = pwd.getpwnam(account)
    except (KeyError, ValueError, UnicodeError):
        raise NoAccount(
            f"This machine has no account {account!r}; create it, or map the person to another one."
        ) from None
    if entry.pw_uid == 0:
        raise NoAccount(f"The account {account!r} is root's, and nobody is given it; map the person to another one.")
    if own.uid != 0:
        raise NoAccount(f"The platform runs as {own.name!r} and not as root, so it cannot act as {account!r} here.")
    groups = tuple(os.getgrouplist(account, entry.pw_gid))
    home, shell = entry.pw_dir, entry.pw_shell or "/bin/sh"
    return Identity(account, entry.pw_uid, entry.pw_gid, groups, home, shell, own=False)
