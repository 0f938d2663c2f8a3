"""What a driver must do, as cases that run against the real engine.

A third party's driver is right when these pass. In a test module:

    from atoll.drivers.contract import DriverContract, Harness

    class MyHarness(Harness): ...            # makes the driver, see `Harness`

    class TestMyDriver(DriverContract):
        @pytest.fixture
        async def harness(self, tmp_path): ...   # a started MyHarness, torn down after the case

Cases that need an ability or a protocol which the driver lacks are skipped, and say which; so are those that need a
hook (see `Hooks`) which the harness does not override. `CASES` names them all. The tests are coroutines: run them with
pytest-asyncio in its auto mode.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"atoll.drivers.contract.{name}"
        for name in ("harness", "exits", "output", "ends", "life", "sizes", "inside", "recalls", "trouble")
    )
)

from atoll.drivers.contract.ends import Ends  # noqa: E402
from atoll.drivers.contract.exits import Exits, Texts  # noqa: E402
from atoll.drivers.contract.harness import Harness  # noqa: E402
from atoll.drivers.contract.hooks import Hooks  # noqa: E402
from atoll.drivers.contract.inside import Commands, Ports, Secrets, Volumes  # noqa: E402
from atoll.drivers.contract.life import Files, Life, Refusals  # noqa: E402
from atoll.drivers.contract.output import Output  # noqa: E402
from atoll.drivers.contract.recalls import Recalls  # noqa: E402
from atoll.drivers.contract.sizes import Arrays, Gpus, Nodes  # noqa: E402
from atoll.drivers.contract.trouble import Trouble  # noqa: E402


class DriverContract(
    Exits,
    Texts,
    Output,
    Ends,
    Recalls,
    Life,
    Files,
    Refusals,
    Arrays,
    Nodes,
    Gpus,
    Volumes,
    Secrets,
    Ports,
    Commands,
    Trouble,
):
    """All cases; give it a fixture `harness`."""


def _cases() -> dict[str, str]:
    cases = {}
    for name in dir(DriverContract):
        if name.startswith("test_"):
            cases[name.removeprefix("test_")] = (getattr(DriverContract, name).__doc__ or "").strip()
    return cases


CASES: dict[str, str] = _cases()
"""Every case by name, with what it proves."""

__all__ = ["CASES", "DriverContract", "Harness", "Hooks"]
