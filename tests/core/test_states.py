"""The life of a job: nothing leaves the table, and an end means what the job asked for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atoll.core.states import (
    ACTIVE,
    ENDED,
    FAULTS,
    HOLDS_ROOM,
    MAX_FAULTS,
    TRANSITIONS,
    WAITING,
    JobState,
    Outcome,
    RetryPolicy,
    after_end,
    backoff,
    may,
    sources,
)

policies = st.builds(RetryPolicy, st.integers(0, 5), st.booleans(), st.integers(0, 8), st.integers(0, 12))


def test_every_state_is_in_the_table_and_in_one_group() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert set(JobState) == WAITING | ACTIVE | ENDED
    assert len(WAITING) + len(ACTIVE) + len(ENDED) == len(JobState)
    assert HOLDS_ROOM < ACTIVE


def test_sources_are_the_table_read_backwards() -> None:
    for before in JobState:
        for after in JobState:
            assert (before in sources(after)) == may(before, after)


def test_a_job_reaches_running_only_through_a_place_and_a_start() -> None:
    assert sources(JobState.RUNNING) == {JobState.STARTING}
    assert sources(JobState.STARTING) == {JobState.PLACED}
    assert sources(JobState.PLACED) == {JobState.QUEUED}


def test_every_state_leads_to_an_end() -> None:
    ending = set(ENDED)
    while more := {state for state in JobState if TRANSITIONS[state] & ending} - ending:
        ending |= more
    assert ending == set(JobState)


def test_room_is_given_back_only_through_finishing() -> None:
    for state in HOLDS_ROOM:
        assert TRANSITIONS[state] - HOLDS_ROOM == {JobState.FINISHING}


@given(st.sampled_from(Outcome), policies, st.booleans(), st.booleans())
def test_every_end_leads_where_finishing_may_go(
    outcome: Outcome, policy: RetryPolicy, cancel_asked: bool, permanent: bool
) -> None:
    after = after_end(outcome, policy, cancel_asked=cancel_asked, permanent=permanent)
    assert may(JobState.FINISHING, after)
    assert (after is JobState.SUCCEEDED) == (outcome is Outcome.SUCCEEDED)
    if cancel_asked:
        assert after in ENDED


@given(policies)
def test_an_evicted_job_always_comes_back(policy: RetryPolicy) -> None:
    assert after_end(Outcome.EVICTED, policy, cancel_asked=False) is JobState.QUEUED
    assert after_end(Outcome.RECALLED, policy, cancel_asked=False) is JobState.QUEUED


@given(policies)
def test_a_lost_job_runs_again_only_where_it_said_so(policy: RetryPolicy) -> None:
    after = after_end(Outcome.LOST, policy, cancel_asked=False)
    assert (after is JobState.QUEUED) == (policy.rerun and policy.faults < MAX_FAULTS)


@given(policies, st.sampled_from([Outcome.NODE_FAILED, Outcome.REFUSED]))
def test_faults_of_a_site_are_repeated_up_to_a_limit(policy: RetryPolicy, outcome: Outcome) -> None:
    assert (after_end(outcome, policy, cancel_asked=False) is JobState.QUEUED) == (policy.faults < MAX_FAULTS)
    assert after_end(outcome, policy, cancel_asked=False, permanent=True) is JobState.FAILED


@given(policies, st.sampled_from([Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY]))
def test_failures_are_forgiven_as_often_as_the_job_said(policy: RetryPolicy, outcome: Outcome) -> None:
    again = after_end(outcome, policy, cancel_asked=False) is JobState.QUEUED
    assert again == (policy.failures < policy.retries)


@given(policies, st.sampled_from(Outcome))
def test_a_cancelled_job_is_cancelled_unless_it_ended_by_itself(policy: RetryPolicy, outcome: Outcome) -> None:
    after = after_end(outcome, policy, cancel_asked=True)
    by_itself = outcome not in FAULTS | {Outcome.EVICTED, Outcome.RECALLED, Outcome.CANCELLED}
    assert (after is JobState.CANCELLED) != by_itself


@pytest.mark.parametrize(
    ("repeats", "seconds"),
    [(-1, 1.0), (0, 0.0), (1, 1.0), (2, 2.0), (5, 16.0), (9, 256.0), (10, 300.0), (10**6, 300.0)],
)
def test_waits_between_attempts_double_up_to_five_minutes(repeats: int, seconds: float) -> None:
    assert backoff(repeats) == seconds


class JobLife(RuleBasedStateMachine):
    """A job to which anything may happen: each event asks for a state, and the table decides."""

    def __init__(self) -> None:
        super().__init__()
        self.state = JobState.QUEUED
        self.policy = RetryPolicy(retries=2, rerun=True)
        self.cancel_asked = False
        self.runs = 0
        self.resets = 0

    def go(self, after: JobState) -> bool:
        if not may(self.state, after):
            return False
        if self.state in ENDED:
            self.resets += 1
            self.cancel_asked = False
            self.policy = RetryPolicy(retries=2, rerun=True)
        self.state = after
        return True

    @rule(wanted=st.sampled_from([JobState.HELD, JobState.QUEUED]))
    def person_holds_or_releases(self, wanted: JobState) -> None:
        if self.state in WAITING | ENDED:
            self.go(wanted)

    @rule()
    def person_cancels(self) -> None:
        if self.state in WAITING:
            assert self.go(JobState.CANCELLED)
        elif self.state in ACTIVE:
            self.cancel_asked = True
            self.go(JobState.STOPPING)

    @rule()
    def scheduler_places(self) -> None:
        self.go(JobState.PLACED)

    @rule()
    def scheduler_evicts(self) -> None:
        self.go(JobState.STOPPING)

    @rule(seen=st.sampled_from([JobState.STARTING, JobState.RUNNING]))
    def site_tells(self, seen: JobState) -> None:
        if self.go(seen) and seen is JobState.RUNNING:
            self.runs += 1

    @precondition(lambda self: self.state in ACTIVE)
    @rule(outcome=st.sampled_from(Outcome), permanent=st.booleans())
    def attempt_ends(self, outcome: Outcome, permanent: bool) -> None:
        if self.state is not JobState.FINISHING:
            assert self.go(JobState.FINISHING)
        after = after_end(outcome, self.policy, cancel_asked=self.cancel_asked, permanent=permanent)
        assert self.go(after)
        failures = self.policy.failures + (
            after is JobState.QUEUED and outcome not in FAULTS | {Outcome.EVICTED, Outcome.RECALLED}
        )
        faults = self.policy.faults + (outcome in FAULTS)
        self.policy = RetryPolicy(self.policy.retries, self.policy.rerun, failures, faults)

    @invariant()
    def never_more_than_was_asked(self) -> None:
        assert self.policy.failures <= self.policy.retries
        assert self.policy.faults <= MAX_FAULTS + 1

    @invariant()
    def never_waits_once_cancelling_was_asked(self) -> None:
        assert not (self.cancel_asked and self.state in WAITING)


JobLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestJobLife = JobLife.TestCase
