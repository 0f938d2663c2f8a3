"""More than one: tasks of arrays, several nodes, GPUs, and crowds."""

from collections.abc import Mapping

import pytest

from atoll.core.environ import attempt_environment
from atoll.core.resources import Resources
from atoll.core.site import Ability
from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Launch, Phase, Refused, StopReason, StopRequest
from atoll.drivers.contract.harness import Harness, only

_TASK = 'echo "task $ATOLL_TASK_ID of $ATOLL_TASK_COUNT"; exit $((ATOLL_TASK_ID % 3))'
_SHOW_GPUS = 'echo "[${CUDA_VISIBLE_DEVICES-}]"'
_FOREVER = "while :; do sleep 0.1; done"


class Arrays:
    """Tasks of an array are attempts like others, however the engine takes them."""

    async def test_tasks_of_an_array_have_their_own_numbers_and_ends(self, harness: Harness) -> None:
        """Tasks that are handed over together, with gaps between their numbers, each know their own."""
        numbers = [0, 1, 2, 7, 9]
        tasks = _array(harness, "0-2,7-9:2", numbers, _TASK)
        await harness.submit(*tasks)
        statuses = await harness.wait(tasks, patience=2 * harness.patience)
        assert [status.exit_code for status in statuses] == [number % 3 for number in numbers]
        for number, task in zip(numbers, tasks, strict=True):
            assert await harness.read(task) == f"task {number} of 5\n".encode()

    async def test_array_beyond_the_engines_limit_runs_whole(self, harness: Harness) -> None:
        """More tasks than the engine takes in one piece, with higher numbers than it knows: all run, each once."""
        if harness.engine_limit is None:
            pytest.skip("the engine has no limit for arrays")
        count = harness.engine_limit + 3
        step = 1000
        numbers = [number * step for number in range(count)]
        text = f'echo "$ATOLL_TASK_ID" >>"$ATOLL_CHECKPOINT_DIR/ran"; {_TASK}'
        tasks = _array(harness, f"0-{numbers[-1]}:{step}", numbers, text, checkpoint_key="limit")
        await harness.submit(*tasks)
        statuses = await harness.wait(tasks, patience=60 + 2 * harness.patience)
        assert [status.exit_code for status in statuses] == [number % 3 for number in numbers]
        ran = await harness.output(harness.script('sort -n "$ATOLL_CHECKPOINT_DIR/ran"', checkpoint_key="limit"))
        assert [int(line) for line in ran.split()] == numbers

    async def test_single_task_of_an_array_is_stopped_alone(self, harness: Harness) -> None:
        """One task is stopped; its neighbours, handed over with it, go on to their own ends."""
        tasks = _array(harness, "0-2", [0, 1, 2], 'echo up; test "$ATOLL_TASK_ID" != 1 || sleep 300; sleep 2; exit 4')
        await harness.submit(*tasks)
        await harness.wait_for_output(tasks[1], b"up")
        await harness.stop(tasks[1], StopReason.CANCELLED, grace=5)
        statuses = await harness.wait(tasks, patience=2 * harness.patience)
        told = [(status.outcome, status.exit_code) for status in statuses]
        assert told[0] == told[2] == (Outcome.FAILED, 4)
        assert told[1][0] is Outcome.CANCELLED

    async def test_thousand_attempts_are_observed_with_one_question(self, harness: Harness) -> None:
        """What the engine is asked does not grow with the number of attempts."""
        await harness.questions()
        spec = {"command": ["sleep", "300"]}
        crowd = [harness.launch(spec) for _ in range(harness.crowd)]
        await harness.submit(*crowd)
        before = await harness.questions()
        observation = await harness.driver.observe(harness.held())
        after = await harness.questions()
        assert observation.complete
        assert {launch.attempt_id for launch in crowd} <= observation.states.keys()
        assert after - before == 1
        await harness.driver.stop([StopRequest(harness.held_as(launch), StopReason.CANCELLED, 0) for launch in crowd])
        statuses = await harness.wait(crowd, patience=120 + harness.patience)
        assert {status.outcome for status in statuses} == {Outcome.CANCELLED}


class Nodes:
    """Several nodes are one attempt."""

    async def test_command_of_several_nodes_runs_once_on_the_first(self, harness: Harness) -> None:
        """`launch: once`: one process, of rank 0, that knows how many nodes there are and where the first one is."""
        await harness.need(Ability.MULTINODE)
        text = 'echo "$ATOLL_NODE_RANK/$ATOLL_NODES"; test -n "$ATOLL_MASTER_ADDR"'
        launch = _on_nodes(harness, {"command": ["/bin/sh", "-c", text], "launch": "once"}, 2)
        assert await harness.output(launch) == "0/2\n"

    async def test_command_of_several_nodes_runs_on_each(self, harness: Harness) -> None:
        """`launch: each`: one process on each node with a rank of its own, and the output of all is the attempt's."""
        await harness.need(Ability.MULTINODE)
        text = 'echo "$ATOLL_NODE_RANK/$ATOLL_NODES $ATOLL_MASTER_ADDR"'
        launch = _on_nodes(harness, {"command": ["/bin/sh", "-c", text], "launch": "each"}, 2)
        lines = sorted((await harness.output(launch)).splitlines())
        assert [line.partition(" ")[0] for line in lines] == ["0/2", "1/2"]
        assert len({line.partition(" ")[2] for line in lines}) == 1, "the nodes do not agree on the first one"

    async def test_failure_on_one_node_ends_all(self, harness: Harness) -> None:
        """Where one node's command fails the others are ended, and the attempt failed."""
        await harness.need(Ability.MULTINODE)
        text = f'echo up; test "$ATOLL_NODE_RANK" = 0 || exit 7; {_FOREVER}'
        launch = _on_nodes(harness, {"command": ["/bin/sh", "-c", text], "launch": "each"}, 2)
        status = await harness.run(launch, patience=2 * harness.patience)
        assert status.outcome is Outcome.FAILED
        assert status.exit_code != 0

    async def test_several_nodes_start_together_or_not_at_all(self, harness: Harness) -> None:
        """While one of the nodes is taken nothing runs on the others; more nodes than there are is refused."""
        await harness.need(Ability.MULTINODE)
        flavor = max((await harness.driver.describe()).flavors, key=lambda flavor: flavor.nodes)
        spec = {"command": ["/bin/sh", "-c", f"echo up; {_FOREVER}"], "launch": "each"}
        whole = Resources(cpu=flavor.node.cpu, memory=harness.memory)
        too_many = _on_nodes(harness, spec, flavor.nodes + 1, request=whole)
        answer = only(await harness.driver.submit([too_many]))
        assert isinstance(answer, Refused)
        assert answer.permanent
        assert "nodes" in answer.message
        one = harness.launch({**spec, "launch": "once"}, request=whole)
        await harness.submit(one)
        await harness.wait_for_output(one, b"up")
        every = _on_nodes(harness, spec, flavor.nodes, request=whole)
        await harness.submit(every)
        assert flavor.nodes > 1, "the site has one node only and says that it can give several"
        # meanwhile the engine has looked at its queue
        await harness.run(harness.script(":"), patience=2 * harness.patience)
        status = await harness.status(every)
        assert status is not None
        assert status.phase is Phase.STARTING
        assert await harness.read(every) == b""
        await harness.stop(one, StopReason.CANCELLED, grace=0)
        await harness.wait_for_output(every, b"up\n" * flavor.nodes)
        await harness.stop(every, StopReason.CANCELLED, grace=0)
        (status,) = await harness.wait([every], patience=2 * harness.patience)
        assert status.outcome is Outcome.CANCELLED


class Gpus:
    """GPUs are given to one attempt at a time, and each sees its own only."""

    async def test_gpus_are_granted_and_visible(self, harness: Harness) -> None:
        """CUDA_VISIBLE_DEVICES names as many devices as were asked for, and none to a job that asked for none."""
        _need_gpus(harness)
        none, one = harness.script(_SHOW_GPUS), _with_gpus(harness, _SHOW_GPUS, 1)
        every = _with_gpus(harness, _SHOW_GPUS, harness.gpus)
        await harness.submit(none, one, every)
        await harness.wait([none, one, every], patience=2 * harness.patience)
        seen = [(await harness.read(launch)).decode().strip() for launch in (none, one, every)]
        assert seen[0] in ("[]", "[NoDevFiles]", "[void]")
        assert [len(set(text.strip("[]").split(","))) for text in seen[1:]] == [1, harness.gpus]
        assert "[]" not in seen[1:]

    async def test_gpus_are_counted_right(self, harness: Harness) -> None:
        """The site tells how many it has; one more is refused; who finds none free waits until one is given back."""
        _need_gpus(harness)
        flavors = (await harness.driver.describe()).flavors
        assert sum(flavor.total.gpu for flavor in flavors) == 1000 * harness.gpus
        most = max(flavor.total.gpu for flavor in flavors)
        answer = only(await harness.driver.submit([_with_gpus(harness, "true", most // 1000 + 1)]))
        assert isinstance(answer, Refused)
        assert answer.permanent
        holder = _with_gpus(harness, f"echo up; {_FOREVER}", harness.gpus)
        waits = _with_gpus(harness, _SHOW_GPUS, 1)
        await harness.submit(holder)
        await harness.wait_for_output(holder, b"up")
        await harness.submit(waits)
        await harness.run(harness.script(":"), patience=2 * harness.patience)  # others pass
        status: AttemptStatus | None = await harness.status(waits)
        assert status is not None
        assert status.phase is Phase.STARTING
        await harness.stop(holder, StopReason.CANCELLED, grace=0)
        (status,) = await harness.wait([waits], patience=2 * harness.patience)
        assert status.outcome is Outcome.SUCCEEDED


def _array(harness: Harness, array: str, numbers: list[int], text: str, **values: object) -> list[Launch]:
    """Tasks of one array, as control hands them over."""
    spec = {"command": ["/bin/sh", "-c", text], "array": array}
    first = harness.launch(spec)
    return [
        harness.launch(
            spec,
            job_id=first.job_id,
            task=number,
            task_count=len(numbers),
            environment=attempt_environment(
                first.spec, job_id=first.job_id, task=number, number=1, request=first.request, person=harness.owner
            ),
            **values,
        )
        for number in numbers
    ]


def _on_nodes(harness: Harness, spec: Mapping[str, object], nodes: int, **values: object) -> Launch:
    """An attempt on several nodes, with the variables that control gives it."""
    launch = harness.launch({**spec, "nodes": nodes}, **values)
    variables = attempt_environment(
        launch.spec, job_id=launch.job_id, task=None, number=1, request=launch.request, person=harness.owner
    )
    return harness.launch({**spec, "nodes": nodes}, environment=variables, **values)


def _need_gpus(harness: Harness) -> None:
    if harness.gpus == 0:
        pytest.skip("the site has no GPUs")


def _with_gpus(harness: Harness, text: str, gpus: int) -> Launch:
    return harness.launch({"command": ["/bin/sh", "-c", text], "gpu": gpus})
