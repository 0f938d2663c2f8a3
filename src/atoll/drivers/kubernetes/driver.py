"""The Kubernetes driver: attempts as Jobs of a cluster."""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from atoll.core.clock import system_clock
from atoll.core.ids import is_attempt_id
from atoll.core.site import Ability, Node, SiteReport
from atoll.drivers.base import (
    Answer,
    DriverError,
    DriverSetup,
    Execution,
    Held,
    Launch,
    LogChunk,
    Observation,
    Phase,
    StopReason,
    StopRequest,
)
from atoll.drivers.kubernetes import collect
from atoll.drivers.kubernetes.api import ApiError
from atoll.drivers.kubernetes.cluster import Cluster, kept, runs
from atoll.drivers.kubernetes.config import read_config
from atoll.drivers.kubernetes.names import job_name, split_native
from atoll.drivers.kubernetes.nodes import Stock, Stocktaking, flavors_of
from atoll.drivers.kubernetes.objects import MAIN, RECALL, Job, Meta, Pod
from atoll.drivers.kubernetes.payload import IN, MOST_FILES
from atoll.drivers.kubernetes.reasons import Reader
from atoll.drivers.kubernetes.streams import PortChannel
from atoll.drivers.kubernetes.submit import Submitter

log = logging.getLogger(__name__)
_AT_ONCE = 16
"""Calls at the same time."""
_SWEEP_EVERY = 600.0
_ORPHANED = timedelta(hours=1)
"""What belongs to no Job is removed when it is so old: its submission broke off."""
_WATCH_AGAIN = 5.0
Item = TypeVar("Item")
Result = TypeVar("Result")
_SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 9: "KILL", 10: "USR1", 12: "USR2", 14: "ALRM", 15: "TERM", 18: "CONT",
            19: "STOP", 28: "WINCH"}  # fmt: skip


class KubernetesDriver:
    """A cluster as a site. Has Logs, Signals, Watch, Stage, Connect and Exec."""

    def __init__(self, setup: DriverSetup) -> None:
        self._setup = setup
        self._config = read_config(setup.config)
        self._cluster = Cluster(self._config, setup.instance)
        self._reader = Reader(self._config.image_patience, self._config.start_within)
        self._stocktaking = Stocktaking(self._config)
        self._submitter = Submitter(setup, self._config, self._cluster)
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._swept = -_SWEEP_EVERY
        self._tending: set[asyncio.Task[None]] = set()
        self._tended: set[str] = set()

    # -- Driver --------------------------------------------------------------------------------------------------

    async def describe(self) -> SiteReport:
        """What the cluster's nodes have. Raises DriverError where it does not answer."""
        owns = self._config.owns_nodes
        stocks, nodes, unknown = await self._stocks()
        if time.monotonic() - self._swept >= _SWEEP_EVERY:
            self._swept = time.monotonic()
            await self._sweep()
        abilities = {Ability.IMAGE, Ability.VENV, Ability.SIGNAL, Ability.FILES, Ability.SECRETS, Ability.SCRATCH}
        abilities.add(Ability.CONNECT)
        if self._config.autoscaling or sum(stock.nodes for stock in stocks.values()) > 1:
            abilities.add(Ability.MULTINODE)
        if self._config.volumes:
            abilities.add(Ability.VOLUMES)
        if self._submitter.serves_others:
            abilities.add(Ability.OTHER_PERSONS)
        owner = self._setup.owner or None
        flavors = flavors_of(stocks, free_known=not unknown)
        notes = (*unknown, *self._notes())
        return SiteReport(
            flavors=flavors, abilities=frozenset(abilities), owner=owner, queues=not owns, recalls=not owns,
            nodes=nodes, volumes=frozenset(self._config.volumes), notes=notes,
        )  # fmt: skip

    async def _stocks(self) -> tuple[Mapping[str, Stock], tuple[Node, ...], list[str]]:
        """The stock of each flavor; the nodes, where Atoll chooses; why it is not known what is free, if it is not.

        Where Atoll chooses, that has to be known: raises DriverError.
        """
        nodes, loads, unknown = await self._cluster.nodes(), None, []
        try:
            loads = await self._cluster.loads()
        except DriverError as error:
            if self._config.owns_nodes:
                raise
            unknown.append(f"What is free is not known: {error}")
        self._submitter.stocks = self._stocktaking.count(nodes, loads)
        owned: tuple[Node, ...] = ()
        if self._config.owns_nodes and loads is not None:
            owned = self._stocktaking.owned(nodes, loads, self._setup.instance)
        return self._submitter.stocks, owned, unknown

    def _notes(self) -> list[str]:
        config = self._config
        keeper = config.keeper
        notes = [
            f"Beside each job a small container keeps its files for {keeper.files_seconds} s after its end; files that "
            "are not collected by then, or were on a node that failed, are lost. Exit codes are not.",
            f"Files go in by way of the cluster's own store, {MOST_FILES >> 20} MiB for each job at most.",
            "Scratch space must be free when a job is placed, and is not held to what was asked.",
        ]
        if config.checkpoints is None:
            notes.append("Checkpoint folders end with their attempt, because the site's file names no claim for them.")
        if config.queue is not None:
            notes.append(f"Jobs go to Kueue's queue {config.queue.name}, whose quotas count as well.")
        return notes

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Make a Job of each attempt; one that is there already is the attempt's."""
        if not attempts:
            return []
        if self._submitter.stocks is None:
            await self._stocks()
        return await self._each(attempts, self._submitter.submit)

    async def observe(self, held: Sequence[Held]) -> Observation:
        """One list of Jobs and one of pods, over all namespaces."""
        as_of = system_clock()
        states = {}
        for job, pods in await self._look():
            status = self._reader.status(job, pods, as_of)
            states[status.attempt_id] = status
            if self._reader.failed_node(job, pods):
                self._tend(status.attempt_id, self._end_peers(pods))
            elif words := self._reader.late_nodes(job, pods) or self._reader.late_to_place(job, pods, as_of):
                self._tend(status.attempt_id, self._give_up(job.metadata, "late", words))
            elif job.metadata.annotation(RECALL) == "asked" and not all(pod.unplaced for pod in pods):
                self._tend(status.attempt_id, self._drop_recall(job.metadata))
            elif status.phase is Phase.ENDED and (words := self._reader.hopeless(pods, as_of)):
                self._tend(status.attempt_id, self._give_up(job.metadata, "failed", words))
        return Observation(complete=True, as_of=as_of, states=states)

    async def _look(self) -> list[tuple[Job, list[Pod]]]:
        """All attempts of this platform with their pods. The Jobs first: a pod's Job is older than the pod."""
        jobs = await self._cluster.jobs()
        pods = defaultdict(list)
        for pod in await self._cluster.pods():
            pods[pod.metadata.namespace, pod.metadata.attempt_id].append(pod)
        return [
            (job, pods[job.metadata.namespace, job.metadata.attempt_id])
            for job in jobs
            if job.metadata.deletion_timestamp is None and is_attempt_id(job.metadata.attempt_id, self._setup.instance)
        ]

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """Note the reason on each Job; then TERM and, after the grace, KILL inside, or no pod at all where none runs.

        Raises DriverError where the cluster does not answer; what was told until then is told.
        """
        if attempts:
            await self._each(attempts, self._stop)

    async def _stop(self, request: StopRequest) -> None:
        found = await self._find(request.attempt)
        if found is None:
            return
        namespace, name = found
        if request.reason is StopReason.RECALLED:
            await self._recall(namespace, name, request.attempt.attempt_id)
            return
        pods = await self._cluster.pods_of(namespace, request.attempt.attempt_id)
        running = [pod for pod in pods if runs(pod)]
        if not running and any(pod.container(MAIN).terminated is not None for pod in pods):
            return  # it ended by itself, and keeps its end
        grace = max(0.0, request.grace)
        if not running:
            await self._cluster.mark_stop(namespace, name, request.reason.value, end=True)
            return
        words = ["stop", request.reason.value, f"{grace:g}"]
        told = await asyncio.gather(*(self._tell(pod, *words) for pod in running))
        if not all(told):
            told = [not runs(pod) for pod in await self._cluster.pods_of(namespace, request.attempt.attempt_id)]
        # where nobody can be told inside, the cluster's own way: the pod goes, and what it wrote with it
        await self._cluster.mark_stop(namespace, name, request.reason.value, end=not all(told))

    async def _recall(self, namespace: str, name: str, attempt_id: str) -> None:
        """Take back an attempt of which no pod has a node, by a change that the server refuses where one got it."""
        job = await self._cluster.job(namespace, name)
        if job is None:
            return
        meta, pods = job.metadata, await self._cluster.pods_of(namespace, attempt_id)
        if not pods:
            if job.spec.suspend:
                await self._cluster.mark_recall(meta, "done", end=True, unchanged=True)
            return  # else its pods are about to come
        if not all(pod.unplaced for pod in pods):
            return
        # said before: then it is known of a Job without a pod why that is gone, even where we are gone too
        if not await self._cluster.mark_recall(meta, "asked"):
            return
        # all nodes begin together: without one of them none does
        taken = await self._cluster.remove_unchanged(pods[0].metadata)
        await self._cluster.mark_recall(meta, "done" if taken else None, end=taken)

    async def _tell(self, pod: Pod, *words: str) -> bool:
        """Run a verb of pod.sh beside the job; whether it was run."""
        try:
            code, _ = await self._cluster.run(pod, MAIN, *words)
        except (ApiError, DriverError) as error:
            log.info("pod %s cannot be told to %s: %s", pod.metadata.name, words[0], error)
            return False
        return code in (0, 137)  # a KILL for all may reach the messenger, as its container ends

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Delete the Jobs of ended attempts with all that belongs to them; those that still run are left alone."""
        ours = [each for each in attempts if is_attempt_id(each.attempt_id, self._setup.instance)]
        if not ours:
            return
        wanted = {each.attempt_id: each for each in ours}
        now, there = system_clock(), {}
        for job, pods in await self._look():
            if job.metadata.attempt_id in wanted:
                there[job.metadata.attempt_id] = (job, self._reader.status(job, pods, now))
        gone: list[tuple[str, str]] = []
        for attempt_id, held in wanted.items():
            if attempt_id in there:
                job, status = there[attempt_id]
                if status.phase is Phase.ENDED:
                    gone.append((job.metadata.namespace, job.metadata.name))
            elif (namespace := split_native(held.native_id, attempt_id)) is not None:
                gone.append((namespace, job_name(attempt_id)))
        await self._each(gone, self._remove)

    async def _remove(self, found: tuple[str, str]) -> None:
        namespace, name = found
        await self._cluster.remove(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", pods_too=True)
        await self._cluster.remove(f"/api/v1/namespaces/{namespace}/configmaps/{name}", pods_too=True)

    async def close(self) -> None:
        """Let go of connections. Attempts go on."""
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)
        await self._cluster.close()

    # -- Logs, Signals, Watch, Stage, Connect, Exec ----------------------------------------------------------------

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of output, by the container beside the job. Raises KeyError for an attempt that is not there."""
        if stream not in ("stdout", "stderr"):
            raise KeyError(stream)
        pods = await self._pods(attempt)
        async with self._free:
            return await collect.read_log(self._cluster, pods, stream, offset, limit)

    async def signal(self, attempt: Held, signal: int) -> None:
        """Send a signal to all processes of a running attempt. Raises KeyError where it does not run."""
        name = _SIGNALS.get(int(signal))
        if name is None:
            raise ValueError(f"{signal} is no signal that can be sent here")
        running = [pod for pod in await self._pods(attempt) if runs(pod)]
        if not running:
            raise KeyError(attempt.attempt_id)
        for pod in running:
            try:
                await self._cluster.run(pod, MAIN, "tell", name)
            except ApiError as error:
                raise self._cluster.api.sentence(error) from error

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yields after something of a pod changed; where the watch breaks it is begun again."""
        while True:
            try:
                async with aclosing(self._cluster.changes()) as changes:
                    async for _ in changes:
                        yield
            except (ApiError, DriverError) as error:
                log.info("the watch of the site %s broke: %s", self._setup.site, error)
            await asyncio.sleep(_WATCH_AGAIN * random.uniform(0.5, 1.5))

    async def take_out(self, attempt: Held, patterns: Sequence[str], into: Path) -> list[str]:
        """Copy files of the working directory. Raises KeyError where there is no such attempt."""
        pods = await self._pods(attempt)
        first = next((pod for pod in pods if kept(pod)), None)
        if first is None:
            raise collect.Gone("The pod of the attempt is gone, and its files with it.")
        async with self._free:
            return await collect.take_out(self._cluster, first, patterns, into)

    async def connect(self, attempt: Held, port: int) -> PortChannel:
        """A stream to a port of the attempt's first node."""
        first = self._first(attempt, await self._pods(attempt))
        try:
            return await self._cluster.port(first, port)
        except ApiError as error:
            raise self._cluster.api.sentence(error) from error

    async def execute(self, attempt: Held, command: Sequence[str], *, terminal: bool = False) -> Execution:
        """A command beside the attempt's own, with its environment and working directory."""
        first = self._first(attempt, await self._pods(attempt))
        words = ["/bin/sh", f"{IN}/pod.sh", "enter", *command]
        try:
            return await self._cluster.execute(first, MAIN, words, terminal=terminal, stdin=True)
        except ApiError as error:
            raise self._cluster.api.sentence(error) from error

    # -- how -----------------------------------------------------------------------------------------------------

    async def _each(self, items: Sequence[Item], work: Callable[[Item], Awaitable[Result]]) -> list[Result]:
        """Do the work for every item, so many at once; raises the first error when all have had their turn."""

        async def one(item: Item) -> Result:
            async with self._free:
                return await work(item)

        done = await asyncio.gather(*(one(item) for item in items), return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each
        return [each for each in done if not isinstance(each, BaseException)]

    async def _find(self, attempt: Held) -> tuple[str, str] | None:
        """Namespace and name of an attempt's Job; None where there is none. Raises KeyError, DriverError."""
        name = job_name(attempt.attempt_id)
        namespace = split_native(attempt.native_id, attempt.attempt_id)
        if namespace is None:
            namespace = await self._cluster.namespace_of(attempt.attempt_id)
        elif not await self._cluster.has_job(namespace, name):
            return None
        return (namespace, name) if namespace is not None else None

    async def _pods(self, attempt: Held) -> list[Pod]:
        """The pods of an attempt. Raises KeyError where the cluster does not know it."""
        found = await self._find(attempt)
        if found is None:
            raise KeyError(attempt.attempt_id)
        return await self._cluster.pods_of(found[0], attempt.attempt_id)

    @staticmethod
    def _first(attempt: Held, pods: Sequence[Pod]) -> Pod:
        for pod in pods:
            if pod.rank == 0 and runs(pod):
                return pod
        raise KeyError(attempt.attempt_id)

    def _tend(self, attempt_id: str, work: Coroutine[None, None, None]) -> None:
        """Do what an observation showed to be needed; once at a time for each attempt."""
        if attempt_id in self._tended:
            work.close()
            return
        self._tended.add(attempt_id)

        async def tend() -> None:
            try:
                async with self._free:
                    await work
            except (ApiError, DriverError) as error:
                log.warning("attempt %s: %s", attempt_id, error)
            finally:
                self._tended.discard(attempt_id)

        task = asyncio.create_task(tend())
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)

    async def _end_peers(self, pods: Sequence[Pod]) -> None:
        """End the command on the other nodes, because it failed on one."""
        await asyncio.gather(*(self._tell(pod, "stop", "peer", "5") for pod in pods if runs(pod)))

    async def _drop_recall(self, meta: Meta) -> None:
        """Say no more that it is recalled: it has a node."""
        await self._cluster.mark_recall(meta, None)

    async def _give_up(self, meta: Meta, why: str, words: str) -> None:
        """Remove pods that can never start, or that wait for others in vain."""
        await self._cluster.mark_stop(meta.namespace, meta.name, why, words, end=True)

    async def _sweep(self) -> None:
        """Remove what a submission left that broke off before its Job was made."""
        try:
            maps = await self._cluster.config_maps()
        except DriverError as error:
            log.warning("site %s: what broken submissions left cannot be looked for: %s", self._setup.site, error)
            return
        old = system_clock() - _ORPHANED
        stale = [
            each.metadata for each in maps
            if each.metadata.creation_timestamp is not None and each.metadata.creation_timestamp < old
            and each.metadata.name == f"atoll-{each.metadata.attempt_id}"
        ]  # fmt: skip
        if not stale:
            return
        there = {job.metadata.attempt_id for job in await self._cluster.jobs()}
        gone = [(each.namespace, each.name) for each in stale if each.attempt_id not in there]
        await self._each(gone, self._remove)
