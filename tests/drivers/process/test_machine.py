"""What the machine has: found, corrected by the configuration, and said where it is wrong."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from atoll.core.errors import Invalid
from atoll.drivers.process.config import read_config
from atoll.drivers.process.machine import discover
from atoll.drivers.process.supervisor.cgroups import Groups


class NvmlError(Exception):
    pass


def nvml(*names: str) -> ModuleType:
    """A library that answers as NVML's does on a machine with GPUs of these names; with none, as without a driver."""
    module: Any = ModuleType("pynvml")

    def begin() -> None:
        if not names:
            raise NvmlError("driver not loaded")

    module.NVMLError = NvmlError
    module.nvmlInit = begin
    module.nvmlShutdown = lambda: None
    module.nvmlDeviceGetCount = lambda: len(names)
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetName = lambda index: names[index]
    return module


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_machine_is_counted() -> None:
    machine = discover(read_config({}))
    assert machine.flavor == "cpu"
    assert 0 < machine.total.cpu <= 1000 * len(os.sched_getaffinity(0))
    assert 0 < machine.total.memory <= psutil.virtual_memory().total
    assert machine.total.gpu == 0


def test_gpus_are_found_by_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml("NVIDIA H200", "NVIDIA H200"))
    machine = discover(read_config({}))
    assert (machine.flavor, machine.total.gpu) == ("gpu-h200", 2000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in discover(read_config({})).gpus] == [1]


def test_gpus_that_differ_are_one_flavor_and_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml("Tesla T4", "NVIDIA L4", "NVIDIA L4"))
    machine = discover(read_config({}))
    assert machine.flavor == "gpu-l4"
    assert "t4" in machine.notes[0]


def test_missing_library_is_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert discover(read_config({})).gpus == ()


def test_configuration_corrects_what_is_found() -> None:
    machine = discover(read_config({"cpus": 0.5, "memory": "1G", "gpus": 3, "gpu_model": "a100"}))
    assert (machine.total.cpu, machine.total.memory, machine.total.gpu) == (500, 1 << 30, 3000)
    assert machine.flavor == "gpu-a100"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"cpu": 2}, "cpu"),
        ({"gpus": -1}, "gpus"),
        ({"folder": "relative"}, "folder"),
        ({"accounts": {"ann": "not an account"}}, "accounts"),
        ({"memory_by": "magic"}, "memory_by"),
    ],
)
def test_wrong_configuration_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_config(config)
    assert field in str(caught.value)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_groups_write_what_the_kernel_documents(tmp_path: Path, kind: str) -> None:
    """On plain files: version 2's memory controller is not to be had on every machine that runs the tests."""
    groups = Groups(str(tmp_path), kind)
    os_mkdir = os.mkdir
    path = tmp_path / f"{groups._mark}-1"
    files = {
        "v1": (
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.oom_control",
            "memory.max_usage_in_bytes",
        ),
        "v2": ("memory.max", "memory.swap.max", "memory.events", "memory.peak"),
    }[kind]

    def mkdir(name: str) -> None:
        os_mkdir(name)
        for file in files:
            Path(name, file).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        assert groups.make(12345) == str(path)
    assert (path / files[0]).read_text() == "12345"
    assert (path / files[1]).read_text() == ("12345" if kind == "v1" else "0")
    (path / files[2]).write_text(
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n" if kind == "v1" else "oom 2\noom_kill 2\n"
    )
    (path / files[3]).write_text("777\n")
    assert groups.kills(str(path)) == 2
    assert groups.peak(str(path)) == 777
