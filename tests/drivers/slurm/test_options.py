"""What sbatch is told, and which attempts go together."""

from typing import Any

import pytest

from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.drivers.base import Launch
from atoll.drivers.slurm.config import ClassOptions
from atoll.drivers.slurm.options import Limits, batches, placing, words_for_srun

MIB = 1 << 20


def launch(number: int = 0, spec: dict[str, Any] | None = None, **values: Any) -> Launch:
    job = JobSpec.model_validate({"command": ["true"], **(spec or {})})
    usual: dict[str, Any] = {
        "attempt_id": f"abcde-{number:016d}", "job_id": 1, "task": None, "task_count": 1, "number": 1,
        "checkpoint_key": "k", "person": "ann", "project": "p", "account": None, "spec": job,
        "request": Resources(1500, 300 * MIB + 1), "nodes": job.nodes, "walltime": job.walltime,
    }  # fmt: skip
    return Launch(**{**usual, **values})


def told(one: Launch, own: ClassOptions | None = None, **limits: Any) -> list[str]:
    return list(placing(one, own or ClassOptions(), Limits(**limits)))


def test_colon_alone_is_a_word_of_the_command_and_no_separator_of_sruns() -> None:
    assert words_for_srun(["echo", "a:b"]) == ["echo", "a:b"]
    assert words_for_srun(["echo", ":", "it's"]) == ["/bin/sh", "-c", "exec 'echo' ':' 'it'\\''s'"]


def test_parts_of_cpus_and_of_mebibytes_are_rounded_up() -> None:
    options = told(launch())
    assert {"--cpus-per-task=2", "--mem=301M", "--nodes=1", "--ntasks-per-node=1"} <= set(options)
    assert not any(option.startswith(("--time", "--gres", "--partition")) for option in options)


@pytest.mark.parametrize(
    ("walltime", "most", "minutes"),
    [(1, None, 2), (3600, None, 61), (3600, 3600, 60), (90, 120, 2), (59, 60, 1)],
)
def test_slurms_own_clock_leaves_room_for_the_grace_within_the_partitions_limit(
    walltime: int, most: int | None, minutes: int
) -> None:
    assert f"--time={minutes}" in told(launch(walltime=walltime), max_walltime=most)


def test_class_decides_partition_qos_account_and_reservation() -> None:
    own = ClassOptions(partition="long", qos="high", account="lab", reservation="course", constraint="a|b")
    options = told(launch(spec={"constraints": ["fast", "region=eu"]}), own, features=frozenset({"fast"}))
    assert {"--partition=long", "--qos=high", "--account=lab", "--reservation=course"} <= set(options)
    assert "--constraint=(a|b)&fast" in options


def test_gpus_are_asked_for_by_type_where_the_job_named_a_flavor() -> None:
    gpus = Resources(1000, MIB, 2000)
    assert "--gres=gpu:2" in told(launch(request=gpus))
    named = launch(spec={"flavor": ["gpu-h100", "gpu-a100"]}, request=gpus)
    assert "--gres=gpu:A100:2" in told(named, gpu_types={"gpu-a100": "A100", "gpu-l40": "l40"})


def test_gpus_are_of_the_type_on_which_room_was_given() -> None:
    gpus = Resources(100, 1 << 30, 1000)
    types = {"gpu-a100": "a100", "gpu-tesla-v100": "tesla_v100"}
    placed = launch(request=gpus, flavor="gpu-tesla-v100")
    assert "--gres=gpu:tesla_v100:1" in told(placed, gpu_types=types)
    assert "--gres=gpu:1" in told(launch(request=gpus, flavor="gpu-unknown"), gpu_types=types)


def test_jobs_placed_on_plain_nodes_are_kept_from_those_with_gpus() -> None:
    assert "--exclude=g1,g2" in told(launch(flavor="cpu"), gpu_nodes=("g1", "g2"))
    assert "--exclude" not in " ".join(told(launch(flavor="cpu")))
    # on the idle CPUs of a GPU node, where it was placed there or anywhere
    for elsewhere in (launch(flavor="gpu-a100"), launch()):
        assert "--exclude" not in " ".join(told(elsewhere, gpu_nodes=("g1", "g2")))


def test_attempts_with_the_same_options_are_one_array_and_no_larger_than_slurm_takes() -> None:
    small, large = ("--mem=1M",), ("--mem=2M",)
    every = [(launch(number), large if number == 3 else small) for number in range(8)]
    made = list(batches(every, "/r", Limits(max_array_size=5)))
    assert [len(batch.launches) for batch in made] == [5, 2, 1]
    assert [batch.is_array for batch in made] == [True, True, False]
    assert "--array=0-4" in made[0].options
    assert (made[0].native("9", 2), made[2].native("9", 0)) == ("9_2", "9")
    assert all("--no-requeue" in batch.options for batch in made)
    assert f"--job-name=atoll-{made[0].launches[0].attempt_id}" in made[0].options


def test_comment_is_the_persons_own_name_in_plain_characters() -> None:
    (batch,) = batches([(launch(spec={"name": "grüße --wrap=x"}), ())], "/r", Limits())
    assert "--comment=gr??e --wrap=x" in batch.options


def test_percent_in_a_path_is_no_symbol_to_sbatch() -> None:
    (batch,) = batches([(launch(), ())], "/r/50%j", Limits())
    assert f"--output=/r/50%%j/batches/{batch.name}/log" in batch.options
