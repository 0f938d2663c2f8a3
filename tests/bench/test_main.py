"""`python -m bench` runs what is asked for, and ends with 1 only where something broke."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.figures import Broken, Row, Target


def slow(folder: Path, small: bool) -> Iterator[Row]:
    assert folder.is_dir()
    yield Row("slow", "s", [1 if small else 100], Target("under", 10))


def broken(folder: Path, small: bool) -> Iterator[Row]:
    yield Row("half", "s", [1])
    raise Broken("the platform is on fire")


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "BENCHMARKS", {"slow": slow, "broken": broken})
    monkeypatch.setattr(command, "describe", lambda folder: {"machine": "a small one"})
    monkeypatch.setattr("bench.startup.compile_bytecode", lambda: None)


def test_a_missed_target_is_told_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["slow"]) == 0
    printed = capsys.readouterr().out
    assert "machine:  a small one" in printed
    assert "missed: slow" in printed


def test_what_breaks_ends_with_1_after_the_others_have_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["broken", "slow", "--small"]) == 1
    printed = capsys.readouterr()
    assert "the platform is on fire" in printed.err
    assert "no target missed" in printed.out
    assert "broken: broken" in printed.out
    assert "half  " in printed.out  # what was measured before it broke stays


def test_all_run_where_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 1
    assert "slow" in capsys.readouterr().out


def test_a_name_that_is_not_known_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["fast"])
    assert ended.value.code == 2
    assert "no benchmark 'fast'; there are slow, broken" in capsys.readouterr().err


def test_json_has_head_rows_and_what_broke(tmp_path: Path) -> None:
    command.main(["slow", "broken", "--json", str(tmp_path / "figures.json")])
    document = json.loads((tmp_path / "figures.json").read_text())
    assert document["head"] == {"machine": "a small one"}
    assert [row["name"] for row in document["rows"]] == ["slow", "half"]
    assert document["broken"] == ["broken"]
