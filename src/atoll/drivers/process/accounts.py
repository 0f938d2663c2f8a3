"""Whose account an attempt runs as; decided by the driver before anything is written for it."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from atoll.drivers.base import DriverSetup, Launch
from atoll.drivers.process.config import ProcessConfig


@dataclass(frozen=True)
class Account:
    """A Unix account of this machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def own(self) -> bool:
        """Whether it is the one that this process runs as."""
        return self.uid == os.geteuid()


class Unmapped(Exception):
    """The attempt may not run here as anybody. The message is one sentence."""


def own_account() -> Account:
    """The account that this process runs as; it need not be in the account database."""
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        home = os.environ.get("HOME", "/")
        return Account(str(uid), uid, os.getegid(), tuple(os.getgroups()), home, "/bin/sh")
    return Account(entry.pw_name, uid, os.getegid(), tuple(os.getgroups()), entry.pw_dir, entry.pw_shell or "/bin/sh")


def account_named(name: str) -> Account:
    """The account `name` with all its groups. Raises Unmapped where there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Unmapped(f"account: this machine has no account {name!r}") from None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell or "/bin/sh")


def account_for(launch: Launch, setup: DriverSetup, config: ProcessConfig) -> Account:
    """The account that `launch` runs as. Raises Unmapped where its person has none here."""
    if launch.account is None and setup.shared:
        return own_account()
    mapped = launch.account
    if mapped is None and launch.person != setup.owner:
        mapped = config.accounts.get(launch.person)
        if mapped is None:
            raise Unmapped(
                f"person: {launch.person!r} has no account at this site, which runs jobs of {setup.owner!r} only; "
                "map the person to a Unix account in the site's file, or say identity: shared"
            )
    own = own_account()
    if mapped is None or mapped == own.name:
        if launch.person != setup.owner:
            raise Unmapped(
                f"account: {launch.person!r} is mapped to {own.name!r}, the platform's own account, which can read "
                "the platform's data; map the person to another Unix account"
            )
        return own
    if own.uid != 0:
        raise Unmapped(
            f"account: the platform runs as {own.name!r} and not as root, so it cannot run jobs as {mapped!r}"
        )
    account = account_named(mapped)
    if account.uid == 0:
        raise Unmapped(f"account: {mapped!r} is root's account; map the person to another one")
    return account


def closed_folder(folder: Path, account: Account) -> Path | None:
    """The first folder on the way to `folder` that the account cannot pass; None where it can pass all."""
    for place in (*reversed(folder.parents), folder):
        status = place.stat()
        if status.st_uid == account.uid:
            allowed = status.st_mode & stat.S_IXUSR
        elif status.st_gid == account.gid or status.st_gid in account.groups:
            allowed = status.st_mode & stat.S_IXGRP
        else:
            allowed = status.st_mode & stat.S_IXOTH
        if not allowed:
            return place
    return None
