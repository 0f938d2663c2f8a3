"""GPUs by CDI: found in the host's files, and given to one at a time."""

import json

import pytest

from atoll.drivers.podman.gpus import LABEL, add_devices, choose, devices_in, held_by

KIND = "nvidia.com/gpu"


def described(*names: str, kind: str = KIND) -> bytes:
    return json.dumps({"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": name} for name in names]}).encode()


def test_gpu_with_several_names_is_one_gpu() -> None:
    assert devices_in([described("0", "1", "10", "2", "GPU-aaaa", "GPU-bbbb", "all")], KIND) == ["0", "1", "2", "10"]
    assert devices_in([described("GPU-b", "GPU-a", "all")], KIND) == ["GPU-a", "GPU-b"]
    assert devices_in([described("0:0", "0:1", "all")], KIND) == ["0:0", "0:1"]


def test_files_in_yaml_and_files_of_others_are_read_as_what_they_are() -> None:
    yaml = b'cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: "0"\n- name: all\n'
    assert devices_in([yaml, described("0", "1", kind="amd.com/gpu"), b"\xff", b"[", b"{"], KIND) == ["0"]


@pytest.mark.parametrize(
    ("wanted", "used", "chosen"),
    [
        (1000, {}, {"a": 1000}),
        (2000, {"a": 500}, {"b": 1000, "c": 1000}),
        (3000, {"a": 500}, None),
        (500, {"b": 400, "c": 600}, {"b": 500}),
        (500, {"a": 1000, "b": 600, "c": 600}, None),
    ],
)
def test_whole_gpus_are_free_ones_and_parts_fill_up_what_is_begun(
    wanted: int, used: dict[str, int], chosen: dict[str, int] | None
) -> None:
    assert choose(wanted, ["a", "b", "c"], used) == chosen


def test_what_a_container_holds_is_read_from_its_label() -> None:
    body = add_devices({"labels": {"x": "y"}}, {"0": 1000, "0:1": 500}, KIND)
    assert body["devices"] == [{"path": "nvidia.com/gpu=0"}, {"path": "nvidia.com/gpu=0:1"}]
    assert held_by(body["labels"]) == {"0": 1000, "0:1": 500}
    assert held_by(None) == held_by({LABEL: "nonsense,=3,0=x"}) == {}
