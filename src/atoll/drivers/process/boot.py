"""Starts the supervisor without the rest of Atoll: python -I -S boot.py FOLDER SETTINGS.

The supervisor must stay small. Importing its package the usual way would run the `__init__` of every package above it,
and with them the models, drivers and numbers of the whole platform; so empty packages stand in for those here.
"""

import sys
from types import ModuleType

_BELOW = "/drivers/process/boot.py"


def _stand_in(name: str, path: str) -> None:
    package = ModuleType(name)
    package.__path__ = [path]
    sys.modules[name] = package


def run() -> None:
    """Give control to the supervisor."""
    root = __file__.removesuffix(_BELOW)
    _stand_in("atoll", root)
    for name in ("drivers", "drivers/wrapper", "drivers/process"):
        _stand_in("atoll." + name.replace("/", "."), f"{root}/{name}")
    from atoll.drivers.process.supervisor.main import main

    main(sys.argv[1:])


if __name__ == "__main__":
    run()
