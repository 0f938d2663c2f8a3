"""sbatch's options become the fields that ask for the same."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.core.slurm.fields import Surroundings, translate
from atoll.core.slurm.options import COMMAND_LINE, OPTIONS, Given, Option, Treatment, parse_directive, parse_words
from atoll.core.spec import read_spec
from tests.support.tried import tried

HERE = Surroundings(datetime(2026, 5, 1, 12, tzinfo=UTC), UTC, "/home/ada", {"EDITOR": "vi"})
G = 2**30
SILENT = {"parsable", "quiet", "test-only", "verbose", "wait", "wrap"}
"""Options that are no field; the script deals with --wrap."""


def given_by(script: str, command_line: str = "") -> list[Given]:
    options = [option for line in script.splitlines() for option in parse_directive(line, "#SBATCH line 2")]
    return options + parse_words(command_line.split(), COMMAND_LINE)[0]


def fields(script: str, command_line: str = "") -> dict[str, Any]:
    return translate(given_by(script, command_line), HERE).fields


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-J train", {"name": "train"}),
        ("-A physics", {"project": "physics"}),
        ("-q interactive", {"class": "interactive"}),
        ("--array=0-9%2", {"array": "0-9%2"}),
        ("--comment=hi", {"labels": {"comment": "hi"}}),
        ("--tmp=500", {"scratch": 500 * 2**20}),
        ("-t 30", {"walltime": 1800}),
        ("-t 0", {"walltime": None}),
        ("-b 16:00", {"begin": "2026-05-01T16:00:00+00:00"}),
        ("-d afterok:12", {"dependencies": [{"job": "12", "on": "ok"}]}),
        ("-C region=eu", {"constraints": ["region=eu"]}),
        ("-M island,reef", {"constraints": ["site=island,reef"]}),
        ("-M all", {}),
        ("-p gpu,long", {"constraints": ["partition=gpu,long"]}),
        ("-C fast -p gpu", {"constraints": ["fast", "partition=gpu"]}),
        ("--signal=B:USR1@60", {"signal": {"name": "USR1", "before": 60}}),
        ("--nice", {"priority": -100}),
        ("--nice=-5", {"priority": 5}),
        ("--priority=7", {"priority": 7}),
        ("--requeue", {"rerun": True}),
        ("--no-requeue", {"rerun": False, "retries": 0}),
        ("-o out-%j", {"stdout": "out-%j", "stderr": "out-%j"}),
        ("-o out -e err", {"stdout": "out", "stderr": "err"}),
        ("-o out -e /dev/null", {"stdout": "out", "stderr": None}),
        ("-i in-%a.txt", {"stdin": "in-%a.txt"}),
        ("-D /data", {"workdir": "/data"}),
        ("-D run1", {"workdir": "/home/ada/run1"}),
        ("--export=A=1,EDITOR", {"env": {"A": "1", "EDITOR": "vi"}}),
        ("--export=NONE", {}),
        ("--mem=4G", {"memory": 4 * G}),
        ("-N 2", {"nodes": 2, "cpu": 1}),
        ("-c 4", {"cpu": 4}),
        ("-c 4 --mem-per-cpu=2G", {"cpu": 4, "memory": 8 * G}),
        ("--mem-per-cpu=2G", {"memory": 2 * G}),
        ("--mincpus=8", {"cpu": 8}),
        ("--gres=gpu:2 --mem-per-gpu=8G", {"gpu": 2, "memory": 16 * G}),
        ("--gres=gpu:A100:2", {"gpu": 2, "flavor": ["gpu-a100"]}),
        ("-G 4 -N 2", {"gpu": 2, "nodes": 2, "cpu": 1}),
        ("--gpus-per-node=v100:1", {"gpu": 1, "flavor": ["gpu-v100"]}),
        ("--gpus-per-node=2 --cpus-per-gpu=6", {"gpu": 2, "cpu": 12}),
        ("--overcommit --ntasks-per-node=4 -c 2", {"nodes": 1, "cpu": 2}),
        ("--mail-type=NONE --open-mode=truncate --no-kill=off", {}),
        ("--hold --parsable -Q --wait --test-only -v", {}),
    ],
)
def test_an_option_becomes_the_field_that_says_the_same(text: str, expected: dict[str, Any]) -> None:
    found = fields(text)
    found.pop("env", None) if "env" not in expected else None
    assert found == expected


@pytest.mark.parametrize(
    ("text", "nodes", "cpu", "tasks", "on_node"),
    [
        ("-n 8", 1, 8, "8", "8"),
        ("-n 8 -c 2", 1, 16, "8", "8"),
        ("-n 8 -N 2", 2, 4, "8", "4"),
        ("-n 7 -N 2 -c 3", 2, 12, "7", "4"),
        ("-n 8 --ntasks-per-node=4", 2, 4, "8", "4"),
        ("-n 9 --ntasks-per-node=4", 3, 3, "9", "3"),
        ("-N 3 --ntasks-per-node=4 -c 2", 3, 8, "12", "4"),
        ("-n 8 -N 2-4", 2, 4, "8", "4"),
        ("-n 1 -N 4", 1, 1, "1", "1"),
        ("--gpus-per-node=2 --ntasks-per-gpu=3 -c 2", None, 12, "6", "6"),
    ],
)
def test_tasks_become_nodes_and_cpus_and_are_told_to_the_processes(
    text: str, nodes: int | None, cpu: int, tasks: str, on_node: str
) -> None:
    found = fields(text)
    assert (found.get("nodes"), found["cpu"]) == (nodes, cpu)
    assert found["env"] == {"SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": on_node}


def test_gpus_of_tasks_are_counted_on_each_node() -> None:
    found = fields("-n 4 -N 2 --gpus-per-task=a100:1")
    assert (found["gpu"], found["nodes"], found["flavor"]) == (2, 2, ["gpu-a100"])
    found = fields("-n 4 --tres-per-task=cpu=3,gres/gpu:h100=2")
    assert (found["gpu"], found["cpu"], found["flavor"]) == (8, 12, ["gpu-h100"])


def test_the_command_line_works_together_with_the_script_and_wins() -> None:
    assert fields("-n 4 -c 1", "-c 8")["cpu"] == 32
    assert fields("--mem-per-cpu=1G", "--mem=3G")["memory"] == 3 * G
    assert fields("--gres=gpu:4", "-G 1")["gpu"] == 1
    assert fields("--requeue", "--no-requeue")["rerun"] is False
    assert fields("-J a\n-J b")["name"] == "b"


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.treatment is Treatment.REFUSED])
def test_a_refused_option_is_refused_by_name_with_what_to_do(option: Option) -> None:
    with pytest.raises(Invalid) as caught:
        translate([Given(option, "7", "#SBATCH line 7")], HERE)
    assert caught.value.field == f"#SBATCH line 7: --{option.name}"
    assert caught.value.sentence == f"#SBATCH line 7: --{option.name}: Not supported: {option.note}."


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.harmless])
def test_a_refused_option_that_asks_for_nothing_is_accepted(option: Option) -> None:
    for value in option.harmless:
        assert translate([Given(option, value, "#SBATCH line 7")], HERE).fields == {}


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.treatment is Treatment.ALREADY])
def test_an_option_that_changes_nothing_says_so(option: Option) -> None:
    (warning,) = translate([Given(option, "7", "#SBATCH line 7")], HERE).warnings
    assert warning.startswith(f"#SBATCH line 7: --{option.name}: It changes nothing")


SAMPLES = {
    "account": "p", "array": "0-3", "begin": "now+1hour", "chdir": "/x", "clusters": "c", "comment": "c",
    "constraint": "c", "cpus-per-task": "3", "cpus-per-gpu": "3", "dependency": "afterok:1", "error": "e",
    "export": "A=1", "gpus": "3", "gpus-per-node": "3", "gpus-per-task": "3", "gres": "gpu:3", "hold": None,
    "input": "i", "job-name": "j", "mem": "5G", "mem-per-cpu": "5G", "mem-per-gpu": "5G", "mincpus": "5",
    "nice": "5", "no-requeue": None, "nodes": "2", "ntasks": "2", "ntasks-per-gpu": "2", "ntasks-per-node": "2",
    "output": "o", "overcommit": None, "partition": "p", "priority": "5", "qos": "service", "requeue": None,
    "signal": "USR1", "time": "5", "tmp": "5", "tres-per-task": "cpu=2", "wrap": "true",
}  # fmt: skip
NEEDS = {"cpus-per-gpu": "-G 1", "mem-per-gpu": "-G 1", "ntasks-per-gpu": "-G 1", "overcommit": "-n 4"}


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.treatment is Treatment.TRANSLATED])
def test_no_translated_option_is_dropped_in_silence(option: Option) -> None:
    base = given_by(NEEDS.get(option.name, ""))
    before = translate(base, HERE)
    after = translate([*base, Given(option, SAMPLES[option.name], "#SBATCH line 7")], HERE)
    if option.name != "wrap":
        assert after.fields != before.fields or after.hold
    read_spec({"command": "true", **after.fields})


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("--mem=0", "--mem", "All the memory of a node"),
        ("--mem=1G --mem-per-cpu=1G", "--mem-per-cpu", "cannot be used together with --mem"),
        ("-G 2 --gres=gpu:2", "--gres", "cannot be used together with --gpus"),
        ("-G 3 -N 2", "--gpus", "use --gpus-per-node"),
        ("-n 9 -N 2 --ntasks-per-node=4", "--ntasks", "9 tasks are more than 4 on each of 2 nodes"),
        ("--cpus-per-gpu=2", "--cpus-per-gpu", "asks for no GPUs"),
        ("--mem-per-gpu=2", "--mem-per-gpu", "asks for no GPUs"),
        ("-c 2 --cpus-per-gpu=2 -G 1", "--cpus-per-gpu", "cannot be used together"),
        ("-n x", "--ntasks", "whole number from 1 up"),
        ("--nice=x", "--nice", "no whole number"),
        ("--nice --priority=4", "--priority", "cannot be used together"),
        ("--priority=TOP", "--priority", "jump the queue"),
        ("-o %N.out", "--output", "'%N' in a file name is not supported"),
        ("-a 9-1", "--array", "write 1-9"),
        ("-J ''", "--job-name", "needs a value"),
        ("--qos=premium", "--qos", "none of Atoll's classes"),
        ("--export=NOPE", "--export", "NOPE is not set"),
    ],
)
def test_what_does_not_go_together_is_named(text: str, field: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        fields(text)
    assert caught.value.field == f"#SBATCH line 2: {field}"
    assert said in caught.value.sentence


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(Invalid, match="And 2 more") as caught:
        fields("--mem=0 --exclusive\n--nodelist=n1")
    assert {field.split("--")[1] for field, _ in caught.value.errors} == {"mem", "exclusive", "nodelist"}


def test_a_relative_folder_needs_to_be_relative_to_one() -> None:
    with pytest.raises(Invalid, match="write the whole path"):
        translate(given_by("-D run"), Surroundings(HERE.now))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-p gpu", "no partitions: the job runs only at sites with the label partition=gpu"),
        ("--export=ALL", "not carried to the job"),
        ("--no-requeue", "runs again even so"),
        ("-n 2 -N 4", "2 tasks need no more than 2 nodes"),
    ],
)
def test_what_is_not_quite_the_same_is_told(text: str, said: str) -> None:
    (warning,) = translate(given_by(text), HERE).warnings
    assert said in warning
    assert warning.startswith("#SBATCH line 2: --")


def test_options_for_the_command_are_handed_on() -> None:
    found = translate(given_by("--parsable -W", "--quiet --hold"), HERE)
    assert found.client == frozenset({"parsable", "wait", "quiet"})
    assert found.hold


def test_each_field_knows_the_options_that_it_came_from() -> None:
    origins = translate(given_by("--mem-per-cpu=1G", "-c 4"), HERE).origins
    assert [option.label for option in origins["memory"]] == [
        "#SBATCH line 2: --mem-per-cpu",
        "command line: --cpus-per-task",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([option for option in OPTIONS if option.treatment is not Treatment.REFUSED]),
            st.none() | st.text(max_size=6) | st.sampled_from(["1", "2", "4", "gpu:2", "a100:1", "1G", "12:00"]),
            st.sampled_from(["#SBATCH line 7", COMMAND_LINE]),
        ).map(lambda parts: Given(*parts)),
        max_size=6,
    )
)  # fmt: skip
def test_any_options_are_fields_or_invalid_with_a_line(given: list[Given]) -> None:
    found = tried(lambda: translate(given, HERE), Invalid)
    if isinstance(found, Invalid):
        assert found.errors
        assert all(field.startswith(("#SBATCH line 7: --", f"{COMMAND_LINE}: --")) for field, _ in found.errors)
    else:
        assert set(found.origins) == set(found.fields)
