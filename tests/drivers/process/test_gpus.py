"""GPUs: counted right, shared by parts, never given twice, also after a restart. Counted devices, no real ones."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.resources import Resources
from atoll.core.states import Outcome
from atoll.drivers.base import Phase, Refused, StopReason, Submitted
from atoll.drivers.process.machine import model_word
from atoll.drivers.process.supervisor.devices import WHOLE, Devices
from tests.contract.process_harness import ProcessHarness
from tests.drivers.process.test_supervisor import kill_supervisor

SHOW = 'echo "[$CUDA_VISIBLE_DEVICES]"'


@pytest.fixture
async def gpus(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    harness = ProcessHarness(tmp_path, {"gpus": 2, "gpu_model": "a100"})
    await harness.start()
    yield harness
    await harness.tear_down()


def asks(harness: ProcessHarness, milli: int) -> Resources:
    return Resources(cpu=100, memory=harness.memory, gpu=milli)


async def test_machine_with_gpus_is_one_flavor(gpus: ProcessHarness) -> None:
    (flavor,) = (await gpus.driver.describe()).flavors
    assert flavor.name == "gpu-a100"
    assert flavor.total.gpu == 2000
    assert flavor.total.cpu > 0


async def test_job_without_gpus_sees_none(gpus: ProcessHarness) -> None:
    """Not even when it asks for them by a variable."""
    assert await gpus.output(gpus.script(SHOW)) == "[]\n"
    greedy = gpus.launch({"command": ["sh", "-c", SHOW], "env": {"CUDA_VISIBLE_DEVICES": "0,1"}})
    assert await gpus.output(greedy) == "[]\n"


async def test_jobs_get_devices_of_their_own_and_return_them(gpus: ProcessHarness) -> None:
    one, two = (gpus.script(f"{SHOW}; sleep 60", request=asks(gpus, 1000)) for _ in range(2))
    await gpus.submit(one, two)
    await gpus.wait_for_output(one, b"]")
    await gpus.wait_for_output(two, b"]")
    assert {await gpus.read(one), await gpus.read(two)} == {b"[0]\n", b"[1]\n"}
    third = gpus.script(SHOW, request=asks(gpus, 1000))
    (answer,) = await gpus.driver.submit([third])
    assert isinstance(answer, Refused)
    assert not answer.permanent
    await gpus.stop(one, StopReason.CANCELLED, 0)
    await gpus.wait([one])
    assert await gpus.output(third) == (await gpus.read(one)).decode()


async def test_parts_share_a_device_and_keep_the_other_whole(gpus: ProcessHarness) -> None:
    parts = [gpus.script(f"{SHOW}; sleep 60", request=asks(gpus, 500)) for _ in range(2)]
    whole = gpus.script(f"{SHOW}; sleep 60", request=asks(gpus, 1000))
    await gpus.submit(*parts, whole)
    for launch in (*parts, whole):
        await gpus.wait_for_output(launch, b"]")
    assert [await gpus.read(launch) for launch in (*parts, whole)] == [b"[0]\n", b"[0]\n", b"[1]\n"]


async def test_devices_stay_given_after_the_supervisor_was_killed(gpus: ProcessHarness) -> None:
    one = gpus.script("sleep 60", request=asks(gpus, 1000))
    await gpus.submit(one)
    await gpus.wait([one], Phase.RUNNING)
    await kill_supervisor(gpus)
    two, three = (gpus.script(SHOW + "; sleep 60", request=asks(gpus, 1000)) for _ in range(2))
    taken, refused = await gpus.driver.submit([two, three])
    assert isinstance(taken, Submitted)
    assert isinstance(refused, Refused)
    await gpus.wait_for_output(two, b"[1]")


async def test_more_gpus_than_there_are_is_refused_for_good(gpus: ProcessHarness) -> None:
    (answer,) = await gpus.driver.submit([gpus.script(SHOW, request=asks(gpus, 3000))])
    assert isinstance(answer, Refused)
    assert answer.permanent
    assert answer.message.startswith("gpu:")
    launch = gpus.script(SHOW, request=asks(gpus, 2000))
    assert await gpus.output(launch) == "[0,1]\n"
    (status,) = await gpus.wait([launch])
    assert status.outcome is Outcome.SUCCEEDED


@given(st.lists(st.tuples(st.sampled_from([0, 100, 250, 500, 1000, 2000, 3000]), st.booleans()), max_size=60))
def test_no_sequence_of_requests_gives_a_device_twice(steps: list[tuple[int, bool]]) -> None:
    devices = Devices(range(3))
    held: list[list[tuple[int, int]]] = []
    for milli, release in steps:
        if release and held:
            devices.give_back(held.pop(0))
        chosen = devices.choose(milli)
        if chosen is not None:
            assert sum(part for _, part in chosen) == milli
            assert len({index for index, _ in chosen}) == len(chosen)
            devices.take(chosen)
            held.append(chosen)
        elif milli <= WHOLE:
            assert all(free < milli for free in devices.free.values())
        used = [sum(part for each in held for index, part in each if index == device) for device in range(3)]
        assert [WHOLE - free for free in devices.free.values()] == used
        assert all(0 <= free <= WHOLE for free in devices.free.values())


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("Tesla V100-PCIE-16GB", "v100"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("", "unknown"),
    ],
)
def test_model_is_written_as_flavors_write_it(name: str, word: str) -> None:
    assert model_word(name) == word
