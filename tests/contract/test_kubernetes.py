"""The Kubernetes driver passes the contract of drivers: at a cluster, or what can be played of it at an emulator.

The emulator is a fake: without a cluster the summary of the run says that Kubernetes is not proven.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import kmock
import pytest

from atoll.drivers.contract import CASES, DriverContract
from tests.contract.kubernetes_harness import EmulatedHarness, KubernetesHarness
from tests.support.engines import skip_without
from tests.support.kubernetes import ENGINE, NOT_PROVEN, cluster_kubeconfig
from tests.support.kubernetes_emulator import Emulator

_NOT_HERE = {
    "port_of_an_attempt_is_reached": "port-forward cannot end one direction of a stream alone",
    "several_nodes_start_together_or_not_at_all": "a cluster without a gang scheduler gives places one by one",
}
"""Cases that ask more than Kubernetes does; `tests/drivers/kubernetes/test_cluster.py` has what it does instead."""


class TestKubernetes(DriverContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[KubernetesHarness]:
        kubeconfig = cluster_kubeconfig()
        if kubeconfig is None:
            skip_without(ENGINE, NOT_PROVEN)
        harness = KubernetesHarness(tmp_path, kubeconfig)
        await harness.start()
        yield harness
        await harness.tear_down()


def _left_out(reason: str) -> Callable[[TestKubernetes], None]:
    def skip(self: TestKubernetes) -> None:
        pytest.skip(reason)

    return skip


for name, reason in _NOT_HERE.items():
    setattr(TestKubernetes, f"test_{name}", _left_out(reason))


PLAYED = frozenset(
    {
        "exit_code_is_told",
        "times_are_told",
        "running_attempt_is_seen",
        "walltime_ends_as_timed_out",
        "recall_leaves_a_running_attempt_alone",
        "recall_takes_a_waiting_attempt_back",
        "stop_right_after_submit_leaves_nothing_running",
        "stop_of_unknown_or_ended_attempts_is_harmless",
        "observation_is_complete_and_dated_before_the_question",
        "observation_holds_only_this_platforms_attempts",
        "nothing_submitted_nothing_observed",
        "running_attempt_is_not_forgotten",
        "attempts_are_found_after_a_restart_of_the_platform",
        "orphan_is_found_and_ended",
        "hint_follows_a_change",
        "what_the_site_cannot_do_is_refused_by_name",
        "more_than_the_site_has_is_refused",
        "other_person_without_an_account_is_refused",
        "secret_without_a_value_is_refused_by_name",
        "script_with_windows_line_ends_says_so",
        "description_tells_what_there_is",
    }
)
"""The cases that need nobody inside a pod."""


class TestEmulated(DriverContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[EmulatedHarness]:
        emulator = Emulator()
        async with emulator, kmock.Server(emulator) as server:
            emulator.add_node("node-0")
            harness = EmulatedHarness(tmp_path, emulator, str(server.url).rstrip("/"))
            await harness.start()
            yield harness
            await harness.tear_down()
            await emulator.stop_playing()


for name in CASES.keys() - PLAYED:
    setattr(TestEmulated, f"test_{name}", None)  # pytest passes over what cannot be called


def test_every_played_case_is_one_of_the_contract() -> None:
    assert CASES.keys() >= PLAYED
    assert CASES.keys() >= _NOT_HERE.keys()
