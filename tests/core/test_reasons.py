"""Every reason has a code and a sentence."""

import pytest

from atoll.core.reasons import Reason, ReasonCode, general_sentence


@pytest.mark.parametrize("code", ReasonCode)
def test_every_code_has_one_sentence(code: ReasonCode) -> None:
    sentence = general_sentence(code)
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert Reason.of(code) == Reason(code, sentence)


def test_a_more_exact_sentence_wins() -> None:
    assert Reason.of(ReasonCode.RESOURCES, "Waits for 2 GPUs.").sentence == "Waits for 2 GPUs."
