"""The golden suite of the queue: each file in golden/ is a story, with what the rules say shall happen in it."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.scheduler.play import Play, expected_lines
from tests.scheduler.scenario import GOLDEN, Scenario, Step, read_scenario

STORIES = sorted(GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_queue_decides_as_the_story_says(path: Path) -> None:
    scenario = read_scenario(path)
    play = Play(scenario)
    for number, step in enumerate([Step(expect=scenario.expect), *scenario.then]):
        play.happen(step)
        wanted = expected_lines(step.expect)
        found = play.decide(step.expect)
        if found != wanted:
            where = "at first" if not number else f"in step {number} of `then`"
            shown = "\n".join(difflib.ndiff(wanted, found))
            pytest.fail(f"{path.stem}, {where}: - is expected, + is decided\n{shown}\n\n{scenario.why}", pytrace=False)


def test_there_are_stories_enough() -> None:
    assert len(STORIES) >= 60


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 3},
        {"waits": {"job": {"cpus": 3}}},
        {"expect": {"start": []}},
        {"then": [{"expect": {}, "ended": []}]},
        {"waits": {"job": {}}, "runs": {"job": {}}},
    ],
)
def test_what_a_scenario_cannot_say_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Scenario.model_validate({"why": "", "sites": {}, "expect": {}} | wrong)
