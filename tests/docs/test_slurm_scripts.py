"""The page on Slurm scripts says of every option of sbatch, file name symbol and variable what becomes of it."""

import re
from datetime import UTC, datetime

import pytest

from atoll.core.environ import attempt_environment
from atoll.core.patterns import expand_pattern
from atoll.core.resources import Resources
from atoll.core.script import read_script
from atoll.core.slurm.fields import Surroundings
from atoll.core.slurm.options import OPTIONS, Option, Takes, Treatment
from atoll.core.spec import read_spec
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "slurm-scripts.md"
TEXT = PAGE.read_text()
HEADINGS = {
    Treatment.TRANSLATED: "## Options that are translated",
    Treatment.CLIENT: "## Options for the command itself",
    Treatment.ALREADY: "## Options that ask for what is so anyway",
    Treatment.REFUSED: "## Options that are refused",
}


def section(heading: str) -> str:
    return TEXT.split(heading, 1)[1].split("\n## ", 1)[0]


def row(option: Option) -> str:
    """The line of the page's table that says what the code's table says."""
    short = f"`-{option.short}`, " if option.short else ""
    value = {Takes.NOTHING: "", Takes.VALUE: "=...", Takes.MAYBE: "[=...]"}[option.takes]
    harmless = " or ".join(f"`{value}`" for value in sorted(option.harmless))
    note = option.note + (f"; accepted as {harmless}" if harmless else "")
    return f"| {short}`--{option.name}{value}` | {note.replace('|', chr(92) + '|')} |"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_stands_in_the_table_of_its_treatment(option: Option) -> None:
    assert row(option) in section(HEADINGS[option.treatment]).splitlines()


def test_the_tables_have_no_other_option() -> None:
    for treatment, heading in HEADINGS.items():
        rows = {line for line in section(heading).splitlines() if re.match(r"\| .*`--", line)}
        assert rows == {row(option) for option in OPTIONS if option.treatment is treatment}


def test_the_example_script_is_a_job() -> None:
    script = next(block.body for block in blocks(PAGE) if block.language == "sh")
    request = read_script(script, Surroundings(datetime(2026, 1, 1, tzinfo=UTC), UTC, "/home/ada"))
    spec = read_spec(request.spec)
    assert (spec.name, spec.cpu, spec.memory, spec.flavor) == ("train", 8000, 16 * 2**30, ["gpu-a100"])
    assert spec.checkpoint is not None


def test_every_variable_is_named() -> None:
    spec = read_spec({"command": "true", "slurm": True, "array": "1-3", "project": "p", "workdir": "/x"})
    found = attempt_environment(
        spec, job_id=1, task=1, number=2, request=Resources(1000, 2**30, 1000), person="ada", site="here"
    )
    named = set(re.findall(r"`((?:ATOLL|SLURM)_[A-Z_]+)`", section("## Variables")))
    assert named == {*found, "ATOLL_SCRATCH", "ATOLL_CHECKPOINT_DIR"}


def test_every_symbol_of_file_names_is_known() -> None:
    symbols = re.findall(r"^\| `(%.)` \|", section("## File names"), re.MULTILINE)
    assert set(symbols) == {"%j", "%A", "%a", "%b", "%x", "%u", "%r", "%%"}
    for symbol in symbols:
        assert expand_pattern(symbol, job_id=1, task=2, name="n", person="p") != symbol
