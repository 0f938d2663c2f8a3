"""Which exit code a command has that waited for a job."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.client.models import Job
from atoll.core.states import ENDED, Outcome
from atoll.faces.terminal.exits import CANCELLED, NO_EXIT_CODE, OUT_OF_MEMORY, TIMED_OUT, job_exit_code


def job(state: str, outcome: str | None = None, exit_code: int | None = None, signal: int | None = None) -> Job:
    attempt = {"id": "a", "number": 1, "state": "ended", "outcome": outcome, "exit_code": exit_code, "signal": signal}
    document: dict[str, Any] = {"id": "1", "job": 1, "state": state, "outcome": outcome, "exit_code": exit_code}
    return Job.model_validate({**document, "attempt_list": [attempt] if outcome else []})


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (job("succeeded", "succeeded", 0), 0),
        (job("failed", "failed", 3), 3),
        (job("failed", "failed", None, 9), 137),
        (job("failed", "failed", None, 15), 143),
        (job("failed", "failed", 256), 1),
        (job("failed", "timed_out", None, 15), TIMED_OUT),
        (job("failed", "out_of_memory", None, 9), OUT_OF_MEMORY),
        (job("failed", "lost"), NO_EXIT_CODE),
        (job("failed", "refused"), NO_EXIT_CODE),
        (job("failed", "node_failed"), NO_EXIT_CODE),
        (job("failed"), NO_EXIT_CODE),
        (job("cancelled"), CANCELLED),
        (job("cancelled", "cancelled", None, 15), CANCELLED),
        (job("vanished"), NO_EXIT_CODE),
    ],
)
def test_the_code_tells_how_the_job_ended(ended: Job, code: int) -> None:
    assert job_exit_code(ended) == code


@given(
    st.sampled_from(sorted(ENDED)), st.none() | st.sampled_from(list(Outcome)), st.none() | st.integers(0, 1000),
    st.none() | st.integers(1, 64),
)  # fmt: skip
def test_it_is_zero_for_success_and_for_nothing_else(
    state: str, outcome: str | None, exit_code: int | None, signal: int | None
) -> None:
    code = job_exit_code(job(state, outcome, exit_code, signal))
    assert 0 <= code <= 255
    assert (code == 0) == (state == "succeeded")
