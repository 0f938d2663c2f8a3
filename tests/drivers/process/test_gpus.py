"""GPUs: counted right, shared by parts, never given twice, also after a restart. Counted devices, no real ones."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.resources import Resources
from atoll.core.states import Outcome
from atoll.drivers.base import Launch, Phase, Refused, StopReason
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


async def phase_of(harness: ProcessHarness, launch: Launch) -> Phase:
    status = await harness.status(launch)
    assert status is not None
    return status.phase


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
    await gpus.submit(third)
    assert await phase_of(gpus, third) is Phase.STARTING
    await gpus.stop(one, StopReason.CANCELLED, 0)
    await gpus.wait([one, third])
    assert await gpus.read(third) == await gpus.read(one)


async def in_parts(gpus: ProcessHarness) -> list[Launch]:
    """Two jobs that leave half of each of the two devices free."""
    parts = [gpus.script(f"{SHOW}; sleep 60", request=asks(gpus, 500)) for _ in range(3)]
    await gpus.submit(*parts)
    for part in parts:
        await gpus.wait_for_output(part, b"]")
    await gpus.stop(parts[0], StopReason.CANCELLED, 0)
    await gpus.wait([parts[0]])
    assert [await gpus.read(part) for part in parts[1:]] == [b"[0]\n", b"[1]\n"]
    return parts[1:]


async def test_job_waits_where_free_gpus_are_in_parts_and_lets_others_pass(gpus: ProcessHarness) -> None:
    """It is taken, holds up nobody, and starts when a whole device is free; its walltime counts from there."""
    _, part = await in_parts(gpus)
    whole = gpus.script(f"sleep 1; {SHOW}", request=asks(gpus, 1000), walltime=2)
    small, plain = gpus.script(SHOW, request=asks(gpus, 500)), gpus.script(SHOW)
    await gpus.submit(whole, small, plain)
    await gpus.wait([small, plain])
    await asyncio.sleep(2.0)  # its walltime, had it begun
    assert await phase_of(gpus, whole) is Phase.STARTING
    await gpus.stop(part, StopReason.CANCELLED, 0)
    (status,) = await gpus.wait([whole])
    assert status.outcome is Outcome.SUCCEEDED, status
    assert await gpus.read(whole) == b"[1]\n"


async def test_job_that_waits_for_gpus_can_be_stopped_and_forgotten(gpus: ProcessHarness) -> None:
    _, part = await in_parts(gpus)
    first, second = (gpus.script(SHOW, request=asks(gpus, 1000)) for _ in range(2))
    await gpus.submit(first, second)
    await gpus.forget(first)
    assert await phase_of(gpus, first) is Phase.STARTING
    await gpus.stop(first, StopReason.CANCELLED, 30)
    (status,) = await gpus.wait([first])
    assert (status.outcome, status.started_at) == (Outcome.CANCELLED, None)
    await gpus.forget(first)
    assert await gpus.status(first) is None
    assert not gpus.folder_of(first.attempt_id).exists()
    await gpus.stop(part, StopReason.CANCELLED, 0)
    assert (await gpus.wait([second]))[0].outcome is Outcome.SUCCEEDED


async def test_job_waits_for_gpus_although_the_supervisor_was_killed(gpus: ProcessHarness) -> None:
    _, part = await in_parts(gpus)
    whole = gpus.script(SHOW, request=asks(gpus, 1000))
    await gpus.submit(whole)
    await kill_supervisor(gpus)
    assert await phase_of(gpus, whole) is Phase.STARTING
    await gpus.stop(part, StopReason.CANCELLED, 0)
    await gpus.wait([whole])
    assert await gpus.read(whole) == b"[1]\n"


async def test_job_that_waited_for_gpus_the_machine_lost_is_tried_elsewhere(gpus: ProcessHarness) -> None:
    holder, waits = (gpus.script("sleep 60", request=asks(gpus, 2000)) for _ in range(2))
    await gpus.submit(holder, waits)
    gpus.config["gpus"] = 1
    await gpus.restart()
    (status,) = await gpus.wait([waits])
    assert status.outcome is Outcome.NODE_FAILED
    assert "fewer GPUs" in status.message


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
    await gpus.submit(two, three)
    await gpus.wait_for_output(two, b"[1]")
    await kill_supervisor(gpus)
    assert await phase_of(gpus, two) is Phase.RUNNING
    assert await phase_of(gpus, three) is Phase.STARTING


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
