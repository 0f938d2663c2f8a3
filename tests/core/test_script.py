"""A job script becomes a job: what its lines ask for, in which order they count, and what is wrong with them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.core.script import ScriptRequest, check_script, has_directives, merge, read_options, read_script
from atoll.core.slurm.fields import Surroundings
from atoll.core.spec import read_spec
from tests.support.tried import tried

HERE = Surroundings(datetime(2026, 5, 1, 12, tzinfo=UTC), UTC, "/home/ada/work")


def read(*lines: str, **arguments: Any) -> ScriptRequest:
    return read_script("\n".join(["#!/bin/bash", *lines, "", "echo hi", ""]), HERE, **arguments)


def test_an_old_script_becomes_a_job() -> None:
    request = read(
        "#SBATCH --job-name=train        # a name",
        "#SBATCH -N 2 --ntasks-per-node=4",
        "#SBATCH --mem-per-cpu 2G --time=1-12:00",
        "#SBATCH --gres=gpu:a100:4",
        '#SBATCH -o "out-%j.txt"',
        "",
        "# what follows does the work",
        filename="/home/ada/work/job.sh",
        args=["--fast"],
    )
    spec = read_spec(request.spec)
    assert (spec.name, spec.nodes, spec.cpu, spec.gpu, spec.flavor) == ("train", 2, 4000, 4000, ["gpu-a100"])
    assert (spec.memory, spec.walltime) == (8 * 2**30, 36 * 3600)
    assert (spec.stdout, spec.stderr, spec.args) == ("out-%j.txt", "out-%j.txt", ["--fast"])
    assert spec.script is not None
    assert spec.script.startswith("#!/bin/bash\n#SBATCH --job-name")
    assert (spec.slurm, spec.workdir, spec.launch) == (True, "/home/ada/work", "once")
    assert spec.env["SLURM_SUBMIT_DIR"] == "/home/ada/work"
    assert request.warnings == ()


def test_a_script_of_our_own_has_no_slurm_in_it() -> None:
    spec = read("#ATOLL cpu: 2", "#ATOLL walltime: 1:30:00  # half past one", "#ATOLL flavor: [a, b]").spec
    assert spec == {"cpu": 2, "walltime": "1:30:00", "flavor": ["a", "b"], "script": spec["script"]}


def test_the_command_line_wins_over_our_lines_and_these_over_slurms() -> None:
    lines = ("#SBATCH -c 2 --mem=1G --time=10", "#ATOLL memory: 2G", "#ATOLL walltime: 20m")
    spec = read(*lines, options=["--time=30"]).spec
    assert (spec["cpu"], spec["memory"], spec["walltime"]) == (2, "2G", 1800)


def test_a_command_line_option_wins_where_the_field_comes_of_several() -> None:
    spec = read("#SBATCH --mem-per-cpu=1G", "#ATOLL memory: 7G", options=["-c", "4"]).spec
    assert (spec["cpu"], spec["memory"]) == (4, 4 * 2**30)


def test_variables_and_labels_of_all_sources_are_put_together() -> None:
    spec = read("#SBATCH --export=A=1,B=1 --comment=x", "#ATOLL env: {B: '2', C: '2'}", "#ATOLL env: {D: '4'}",
                "#ATOLL labels: {team: blue}").spec  # fmt: skip
    assert spec["env"] == {"SLURM_SUBMIT_DIR": "/home/ada/work", "A": "1", "B": "2", "C": "2", "D": "4"}
    assert spec["labels"] == {"comment": "x", "team": "blue"}
    assert read("#ATOLL env: {A: '1'}", options=["--export=A=2"]).spec["env"] == {"A": "2"}


def test_begin_is_read_as_people_write_it() -> None:
    assert read("#ATOLL begin: now+1hour").spec["begin"] == "2026-05-01T13:00:00+00:00"
    assert read("#ATOLL begin: 2026-05-02").spec["begin"] == "2026-05-02T00:00:00+00:00"


def test_a_slurm_script_may_say_otherwise_where_it_runs() -> None:
    spec = read_spec(read("#SBATCH -c 1", "#ATOLL workdir: null", "#ATOLL slurm: false").spec)
    assert (spec.workdir, spec.slurm) == (None, False)
    assert "SLURM_SUBMIT_DIR" not in spec.env
    assert read("#SBATCH --chdir=/data").spec["workdir"] == "/data"


def test_lines_after_the_first_command_have_no_effect_and_that_is_said() -> None:
    request = read_script("#!/bin/sh\n#SBATCH -c 2\ntrue\n#SBATCH -c 4\n#ATOLL cpu: 8\n", HERE)
    assert request.spec["cpu"] == 2
    assert [warning.split(":")[0] for warning in request.warnings] == ["#SBATCH line 4", "#ATOLL line 5"]


@pytest.mark.parametrize("line", ["##SBATCH --mem=1G", " #SBATCH --mem=1G", "# SBATCH --mem=1G", "#PBS -l mem=1gb"])
def test_a_comment_is_no_directive(line: str) -> None:
    request = read(line)
    assert "memory" not in request.spec
    assert not has_directives(f"#!/bin/sh\n{line}\n")


def test_a_directive_of_very_old_scripts_is_read_with_a_word() -> None:
    request = read("#SLURM --mem=1G")
    assert request.spec["memory"] == 2**30
    assert request.warnings == ("#SLURM line 2: Write #SBATCH; it is read as that.",)


def test_a_script_is_named_after_its_file_unless_it_says_otherwise() -> None:
    assert read(filename="/x/fit.sh").spec["name"] == "fit.sh"
    assert read("#ATOLL name: other", filename="/x/fit.sh").spec["name"] == "other"


def test_held_and_what_the_command_shall_do_are_handed_on() -> None:
    request = read("#SBATCH --hold --parsable", options=["--wait"])
    assert request.hold
    assert request.client == {"parsable", "wait"}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("echo hi\n", "first line must be #!"),
        ("\n#!/bin/sh\n", "first line must be #!"),
        (
            "#!/bin/sh\r\n#SBATCH -n 1\r\n",
            "DOS line breaks (\\r\\n) instead of UNIX ones (\\n); convert it with: dos2unix",
        ),
        ("#!/bin/sh\necho \0\n", "NUL character"),
        ("\ufeff#!/bin/sh\n", "byte order mark"),
        (b"\x7fELF\xff\xfe", "not UTF-8 text"),
    ],
)
def test_what_cannot_be_a_script_is_told(script: str | bytes, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_script(script)
    assert caught.value.field == "script"
    assert said in caught.value.sentence


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        ("#SBATCH --foo", "#SBATCH line 2: --foo", "no such option"),
        ("#SBATCH --mail-user=me", "#SBATCH line 2: --mail-user", "Atoll sends no mail"),
        ("#SBATCH --wrap=true", "#SBATCH line 2: --wrap", "belongs on the command line"),
        ("#SBATCH --input=/etc/passwd", "#SBATCH line 2: --input", "inside the working directory"),
        ("#SBATCH --priority=99999999", "#SBATCH line 2: --priority", "less than or equal to 1000000"),
        ("#SBATCH -A 'my group'", "#SBATCH line 2: --account", "letters, digits"),
        ("#ATOLL cpus: 2", "#ATOLL line 2: cpus", "Did you mean 'cpu'?"),
        ("#ATOLL cpu: fast", "#ATOLL line 2: cpu", "write for example 2, 0.5 or 500m"),
        ("#ATOLL env: {A: 1}", "#ATOLL line 2: env", "A: Write text here, in quotes"),
        ("#ATOLL cpu", "#ATOLL line 2", "Write one field as FIELD: VALUE"),
        ("#ATOLL --cpu 2", "#ATOLL line 2", "Write one field as FIELD: VALUE"),
        ("#ATOLL {cpu: 2, gpu: 1}", "#ATOLL line 2", "Write one field as FIELD: VALUE"),
        ("#ATOLL cpu: [", "#ATOLL line 2", "no YAML"),
        ("#ATOLL command: true", "#ATOLL line 2: command", "The script itself is what runs"),
        ("#ATOLL cpu: 1\n#ATOLL cpu: 2", "#ATOLL line 3: cpu", "given twice, first at #ATOLL line 2"),
        ("#ATOLL begin: someday", "#ATOLL line 2: begin", "is no time"),
    ],
)
def test_a_wrong_line_is_named(line: str, field: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(line)
    assert caught.value.field == field
    assert said in caught.value.sentence


def test_all_lines_that_cannot_be_read_are_named_at_once() -> None:
    with pytest.raises(Invalid, match="And 1 more") as caught:
        read("#SBATCH --foo", "#ATOLL cpus: 2")
    assert [field for field, _ in caught.value.errors] == ["#SBATCH line 2: --foo", "#ATOLL line 3: cpus"]


def test_wrapping_makes_a_script_for_slurm() -> None:
    request = read_options(["--wrap", "echo $SLURM_JOB_ID", "-c2", "--hold"], HERE)
    spec = read_spec(request.spec)
    assert spec.script == "#!/bin/sh\n# This script was made from --wrap.\n\necho $SLURM_JOB_ID\n"
    assert (spec.name, spec.cpu, spec.slurm, request.hold) == ("wrap", 2000, True, True)


def test_options_beside_a_command_leave_the_command_alone() -> None:
    request = read_options(["-c", "2", "-o", "out"], HERE)
    assert request.spec == {"cpu": 2, "stdout": "out", "stderr": "out"}


@pytest.mark.parametrize("options", [["--wrap=true"], ["--mem"], ["job.sh"], ["--exclusive"]])
def test_wrong_options_of_the_command_line_are_named(options: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        read(options=options)
    assert caught.value.field is not None
    assert caught.value.field.startswith("command line: ")


def test_merging_puts_variables_together_and_replaces_the_rest() -> None:
    merged = merge({"env": {"A": "1", "B": "1"}, "flavor": ["a"]}, {"env": {"B": "2"}, "flavor": ["b"]}, {"cpu": 1})
    assert merged == {"env": {"A": "1", "B": "2"}, "flavor": ["b"], "cpu": 1}


@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.text(alphabet="-=nmec4G: ,{}[]'\"#", max_size=16).map(lambda text: f"#SBATCH {text}"),
            st.text(alphabet="cpuenv4G: ,{}[]'\"#&*", max_size=16).map(lambda text: f"#ATOLL {text}"),
            st.sampled_from(["#SBATCH -c 4", "#ATOLL cpu: 2", "#SBATCH -p a", "true"]),
        ),
        max_size=6,
    )
)
def test_any_text_is_a_job_or_invalid(lines: list[str]) -> None:
    found = tried(lambda: read_script("\n".join(["#!/bin/sh", *lines]), HERE), Invalid)
    if isinstance(found, Invalid):
        assert found.sentence.endswith((".", "?", ".)"))
    else:
        assert read_spec(found.spec).script is not None
