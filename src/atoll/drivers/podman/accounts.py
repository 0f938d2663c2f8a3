"""Whose account an attempt runs as; decided before anything is written for it."""

from atoll.drivers.base import DriverSetup, Launch
from atoll.drivers.podman.config import PodmanConfig
from atoll.drivers.podman.container import HostFacts
from atoll.drivers.podman.folders import Folders, NoOwner
from atoll.drivers.podman.layout import Owner


class Unmapped(Exception):
    """The attempt may not run here as anybody. The message is one sentence."""


async def account_for(
    launch: Launch, setup: DriverSetup, config: PodmanConfig, facts: HostFacts, folders: Folders
) -> Owner:
    """The account that `launch` runs as. Raises Unmapped where its person has none here, DriverError."""
    mine = launch.person == setup.owner or setup.shared
    if launch.account is None and not mine:
        raise Unmapped(
            f"person: {launch.person!r} has no account at this site; map the person to an account of the host, or "
            "say identity: shared in the site's file"
        )
    try:
        platform = await folders.owner(None)
        owner = platform
        if (named := launch.account or config.account) is not None:
            owner = await folders.owner(named)
    except NoOwner as error:
        raise Unmapped(str(error)) from None
    if launch.account is not None:
        if owner.uid == 0:
            raise Unmapped(f"account: {owner.name!r} is root's account; map the person to another one")
        if owner.own and not mine:
            raise Unmapped(
                f"account: {launch.person!r} is mapped to {owner.name!r}, the platform's own account; map the person "
                "to another one"
            )
    if not owner.own:
        if facts.rootless:
            raise Unmapped(
                f"account: Podman runs here as {platform.name!r} and not as root, so it cannot run jobs as "
                f"{owner.name!r}"
            )
        if platform.uid != 0:
            raise Unmapped(
                f"account: the platform is {platform.name!r} and not root at the host, so it cannot give "
                f"{owner.name!r} its files"
            )
    return owner
