"""Finds drivers by their names in the entry point group `atoll.drivers`, and makes them."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from atoll.core.errors import Invalid
from atoll.core.spec import suggestion
from atoll.drivers.base import Driver, DriverSetup

_OURS = "atoll"
"""The distribution whose drivers need not be enabled by name."""


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="atoll.drivers")}


class Drivers:
    """The drivers that this platform may use: its own, and those of third parties that its operator enabled."""

    def __init__(self, enabled: Iterable[str] = ()) -> None:
        self._enabled = frozenset(enabled)

    def names(self) -> list[str]:
        """What a site file may name."""
        return sorted(name for name, point in _points().items() if self._allowed(point))

    def _allowed(self, point: EntryPoint) -> bool:
        return point.name in self._enabled or (point.dist is not None and point.dist.name == _OURS)

    def make(self, name: str, setup: DriverSetup) -> Driver:
        """A driver for a site. Raises Invalid for a driver that is not there or not enabled, and for a wrong config."""
        point = _points().get(name)
        if point is None:
            hint = suggestion(name, self.names())
            raise Invalid(
                "unknown_driver", f"There is no driver {name!r}; there are {', '.join(self.names())}.{hint}",
                field="driver",
            )  # fmt: skip
        if not self._allowed(point):
            raise Invalid(
                "driver_not_enabled",
                f"The driver {name!r} is not Atoll's own: its operator has to enable it by name "
                f"(drivers: [{name}] in the platform's configuration).",
                field="driver",
            )
        try:
            made = point.load()(setup)
        except ImportError as error:
            raise Invalid(
                "driver_incomplete", f"The driver {name!r} lacks something that it needs: {error}.", field="driver"
            ) from None
        if not isinstance(made, Driver):
            raise Invalid("no_driver", f"What {name!r} names is no driver: it lacks methods of one.", field="driver")
        return made
