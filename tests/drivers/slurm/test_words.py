"""Slurm's words, to people and to the loops: reasons, refusals, complaints; and the site file's own words."""

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.reasons import PENDING, pending_sentence
from atoll.drivers.slurm.said import may_have_landed, permanent, plain, unreachable
from tests.drivers.slurm.test_ends import job


@pytest.mark.parametrize("reason", sorted(PENDING))
def test_every_known_reason_is_a_sentence_with_slurms_word_behind_it(reason: str) -> None:
    sentence = pending_sentence(job("PENDING", reason=reason))
    assert sentence[0].isupper()
    assert reason == "None" or sentence.endswith(f"({reason})")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("QOSMaxCpuPerUserLimit", "quality of service"),
        ("AssocGrpCpuLimit", "Slurm account"),
        ("SomethingNew", "queue"),
        ("launch_failed_requeued_held", "could not be launched"),
    ],
)
def test_reasons_that_name_one_limit_of_many_are_understood(reason: str, words: str) -> None:
    assert words.lower() in pending_sentence(job("PENDING", reason=reason)).lower()


def test_slurms_own_description_is_told_in_one_line() -> None:
    told = pending_sentence(job("PENDING", reason="ReqNodeNotAvail", description="Nodes required\nare DOWN: n7"))
    assert "Nodes required are DOWN: n7" in told


@pytest.mark.parametrize(
    ("words", "lasting"),
    [
        ("Batch job submission failed: Invalid partition name specified", True),
        ("Batch job submission failed: Invalid account or account/partition combination specified", True),
        ("Batch job submission failed: Requested node configuration is not available", True),
        ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", True),
        ("Batch job submission failed: Unable to open file", True),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", False),
        ("Batch job submission failed: Job submit limit exceeded", False),
        ("Batch job submission failed: Required partition not available (inactive or drain)", False),
        ("Batch job submission failed: Slurm temporarily unable to accept job, sleeping and retrying", False),
    ],
)
def test_refusal_is_for_good_only_where_waiting_does_not_mend_it(words: str, lasting: bool) -> None:
    assert permanent(words) is lasting
    assert not may_have_landed(words)


def test_controller_that_is_away_took_nothing_and_one_that_is_silent_perhaps_did() -> None:
    away = "Batch job submission failed: Unable to contact slurm controller (connect failure)"
    silent = "Batch job submission failed: Socket timed out on send/recv operation"
    assert unreachable(away)
    assert not may_have_landed(away)
    assert may_have_landed(silent)
    assert not unreachable(silent)


def test_complaint_is_one_printable_line_without_the_programs_name() -> None:
    said = "sbatch: error: Batch job submission failed: No\x1b[31m\nsbatch: error: Again.\n\n"
    assert plain(said) == "Batch job submission failed: No [31m; Again"
    assert plain("") == "it said nothing"


@pytest.mark.parametrize(
    ("config", "field", "words"),
    [
        ({"slurm_config": "/x"}, "config.slurm_config", "slurm_conf"),
        ({"slurm_conf": "relative"}, "config.slurm_conf", "absolute"),
        ({"classes": {"interactive": {"partitions": "a"}}}, "config.classes.interactive.partitions", "partition"),
        ({"classes": {"night": {}}}, "config.classes.night.[key]", "interactive"),
        ({"classes": {"batch": {"partition": "a; rm -rf /"}}}, "config.classes.batch.partition", "cannot stand"),
        ({"transport": "ssh"}, "config.host", "required"),
        ({"transport": "rest"}, "config.url", "required"),
        ({"transport": "carrier-pigeon"}, "config.transport", "local"),
    ],
)
def test_wrong_site_file_is_told_by_its_field(config: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_config(config)
    assert caught.value.field == field
    assert words in caught.value.sentence
