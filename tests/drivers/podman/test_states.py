"""From Podman's list and the folders to states, on answers in Podman's own shape."""

import json
import time

import msgspec
import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import Phase, StopReason
from atoll.drivers.podman.folders import Told
from atoll.drivers.podman.states import LISTING, Inspected, Listed, State, alive, ended, read_stop, read_time, stop_text
from atoll.drivers.wrapper import Record

ID = "abcde-0123456789abcdef"
STARTED, RECORDED = 1_795_401_927, Record(claimed=True, started_at=1_795_401_927.25, pid=7, native_id="n")


def listed(state: str = "exited", code: int = 0, **labels: str) -> Listed:
    return Listed(
        id="f" * 64, names=[f"atoll-{ID}"], labels=labels, state=state, exit_code=code, started_at=STARTED,
        exited_at=STARTED + 100,
    )  # fmt: skip


def finished(code: int, signal: int | None = None, seconds: float = 10.0) -> Record:
    return RECORDED._replace(ended_at=STARTED + 0.25 + seconds, exit_code=code, signal=signal)


STOPPED = stop_text(StopReason.EVICTED, 5, 1_795_401_930.0)
LIMIT = {"atoll.walltime": "100"}


@pytest.mark.parametrize(
    ("container", "told", "oom", "outcome"),
    [
        (listed(), Told(finished(0)), False, Outcome.SUCCEEDED),
        (listed(code=3), Told(finished(3)), False, Outcome.FAILED),
        (listed(), Told(RECORDED), False, Outcome.NODE_FAILED),  # started again by the engine: claimed, and no end
        (listed(code=137), Told(RECORDED), False, Outcome.NODE_FAILED),
        (listed(code=137), Told(RECORDED, stop=STOPPED), False, Outcome.EVICTED),
        (listed(code=3), Told(finished(3), "stopped evicted\n", STOPPED), False, Outcome.EVICTED),
        (listed(code=3), Told(finished(3), "", STOPPED), False, Outcome.FAILED),  # it had ended by itself before
        (listed(code=3), Told(finished(3), "stopped evicted\n"), False, Outcome.FAILED),  # only the job says so
        (listed(code=137), Told(RECORDED), True, Outcome.OUT_OF_MEMORY),
        (listed(code=137), Told(finished(137, 9), "out_of_memory\npeak 999\n"), False, Outcome.OUT_OF_MEMORY),
        (listed(code=0), Told(finished(0), "out_of_memory\n"), True, Outcome.SUCCEEDED),  # it got over a lost child
        (listed(code=137, **LIMIT), Told(RECORDED, "timed_out\n"), False, Outcome.TIMED_OUT),
        (listed(code=1, **LIMIT), Told(finished(1, seconds=50), "timed_out\n"), False, Outcome.FAILED),  # forged
        (listed(code=137, **LIMIT), Told(RECORDED, "timed_out\nstopped evicted\n", STOPPED), False, Outcome.TIMED_OUT),
    ],
)
def test_end_is_told_by_who_brought_it_about(container: Listed, told: Told, oom: bool, outcome: Outcome) -> None:
    state = ended(ID, container, Inspected(state=State(oom=oom)), told)
    assert state is not None
    assert (state.phase, state.outcome) == (Phase.ENDED, outcome)
    assert state.started_at is not None
    assert state.ended_at is not None


def test_container_that_is_gone_counts_by_what_was_written_only() -> None:
    assert ended(ID, None, None, Told(RECORDED)) is None
    state = ended(ID, None, None, Told(finished(25)))
    assert state is not None
    assert (state.outcome, state.exit_code) == (Outcome.FAILED, 25)


@pytest.mark.parametrize(
    ("state", "phase"),
    [("created", Phase.STARTING), ("configured", Phase.STARTING), ("running", Phase.RUNNING),
     ("paused", Phase.RUNNING)],
)  # fmt: skip
def test_living_container_is_not_ended(state: str, phase: Phase) -> None:
    assert alive(ID, listed(state), None).phase is phase
    assert not listed(state).ended


def test_thousand_containers_are_read_from_one_answer_quickly() -> None:
    one = {
        "AutoRemove": False, "Command": ["/atoll/tools/keeper.sh", f"atoll-{ID}", "0", "30", "", "0"],
        "Created": "2026-11-23T02:45:27.396140541Z", "CreatedAt": "", "Exited": False, "ExitedAt": -62135596800,
        "ExitCode": 0, "Image": "localhost/atoll-test:1", "ImageID": "e" * 64, "IsInfra": False,
        "Mounts": ["/atoll/attempt", "/atoll/orders", "/atoll/tools", "/atoll/checkpoint"], "Namespaces": {},
        "Networks": ["podman"], "Pid": 26394, "Pod": "", "PodName": "", "Size": None, "StartedAt": STARTED,
        "State": "running", "Status": "", "Labels": {"atoll.instance": "abcde", "atoll.person": "ann"},
        "Ports": [{"host_ip": "127.0.0.1", "container_port": 8888, "host_port": 37987, "range": 1, "protocol": "tcp"}],
    }  # fmt: skip
    answer = json.dumps([{**one, "Id": f"{n:064x}", "Names": [f"atoll-abcde-{n:016x}"]} for n in range(1000)]).encode()
    begun = time.process_time()
    found = LISTING.decode(answer)
    assert time.process_time() - begun < 0.25
    assert len({container.names[0] for container in found}) == 1000
    assert {container.state for container in found} == {"running"}


@pytest.mark.parametrize("answer", [b"", b"{}", b"null", b'[{"Id": 3}]', b'[{"Id": "a", "Labels": []}]', b"<html>"])
def test_answer_of_another_shape_is_an_error(answer: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        LISTING.decode(answer)


@pytest.mark.parametrize("answer", [b'[{"Id": "a"}]', b'[{"Id": "a", "Labels": null, "New": {"in": "Podman 6"}}]'])
def test_what_is_missing_or_new_does_no_harm(answer: bytes) -> None:
    (found,) = LISTING.decode(answer)
    assert (found.labels or {}) == {}
    assert not any(read for read in (found.names, found.exit_code))


def test_times_of_inspect_are_read_with_their_zone() -> None:
    moment = read_time("2026-11-23T04:45:28.736050662+02:00")
    assert moment is not None
    assert moment.isoformat() == "2026-11-23T02:45:28.736050+00:00"
    assert read_time("0001-01-01T00:00:00Z") is None
    assert read_time("yesterday") is None


def test_order_to_stop_is_read_as_it_was_written() -> None:
    assert read_stop(stop_text(StopReason.CANCELLED, 30, 1000.0)) == (StopReason.CANCELLED, 1030.0)
    for text in ("", "cancelled", "nonsense 1 1\n", "cancelled 1 1 1\n"):
        assert read_stop(text) is None
