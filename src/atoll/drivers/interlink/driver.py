"""The interLink driver: attempts become pods, and a plugin runs them on whatever it stands for.

The plugin is asked for the pods that control believes to be there: it lists no others. What it knows of a pod dies with
the pod's deletion, so the reason of a stop and the output until then are kept in the platform's folder for the site.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from atoll.core.clock import system_clock
from atoll.core.errors import Invalid
from atoll.core.site import Ability, SiteReport
from atoll.core.states import Outcome
from atoll.drivers.base import (
    Answer,
    AttemptStatus,
    DriverError,
    DriverSetup,
    Held,
    Launch,
    LogChunk,
    Observation,
    Phase,
    Refused,
    StopReason,
    StopRequest,
    Submitted,
    Unknown,
)
from atoll.drivers.interlink.capacity import flavor_of, told_resources, told_taints
from atoll.drivers.interlink.config import read_config
from atoll.drivers.interlink.output import OutputCache, cut, own_output
from atoll.drivers.interlink.pods import CONTAINER, CannotRun, PodName, make_pod, named, pod_name, uid_of
from atoll.drivers.interlink.questions import Answers, Questions
from atoll.drivers.interlink.script import WALLTIME_CODE, walltime_mark
from atoll.drivers.interlink.states import read_pod
from atoll.drivers.interlink.stopped import Stopped, StoppedPods
from atoll.drivers.interlink.wire import Answered, NotReached, Wire, parsed

_OUTCOMES = {
    StopReason.CANCELLED: Outcome.CANCELLED,
    StopReason.EVICTED: Outcome.EVICTED,
    StopReason.ORPHANED: Outcome.CANCELLED,
}
_OTHER_SHAPE = re.compile(r"unmarshal|\blist\b|\barray\b|\bslice\b|type \[\]|\bobject\b|\bindices\b", re.IGNORECASE)
"""Words of a plugin that was sent an object where it wants a list, or the other way round."""
_WRONG_REQUEST = frozenset({400, 413, 422})
_NEWS_LIMIT = 4 << 20
"""Most output of a pod that is kept when it is deleted."""
_MOST_FORGOTTEN = 10_000
_NOTES = (
    "Each attempt is a pod, sent to the plugin with all that it needs: no files go in or come out, and no port is "
    "reached.",
    "Standard output and error output are one stream here, told as standard output.",
    "To stop an attempt is to delete its pod: the plugin decides how long the job may take to end.",
    "What waits in the plugin's queue stays there when the order changes: a plugin cannot give back only what waits.",
    "The plugin tells only of pods that it is asked for: what it runs without the platform's knowledge is not found.",
)


class InterlinkDriver:
    """A plugin as a site. Has Logs."""

    def __init__(self, setup: DriverSetup) -> None:
        self._setup = setup
        self._config = read_config(setup.config)
        self._wire = Wire(self._config)
        self._questions = Questions(self._wire, self._config)
        self._stopped = StoppedPods(setup.folder)
        self._outputs = OutputCache(self._config.log_limit)
        self._shape: str | None = None if self._config.create == "auto" else self._config.create
        self._last: dict[str, AttemptStatus] = {}
        """What was last said of each attempt."""
        self._taken: dict[str, str] = {}
        """Native ids of what was taken."""
        self._unsure: set[str] = set()
        """Attempts whose creation may or may not have landed."""
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        """Attempts that were forgotten lately: an old answer must not bring them back."""
        self._missing: dict[str, float] = {}
        """Since when an attempt is absent from the plugin's answers, by the monotonic clock."""

    # -- Driver --------------------------------------------------------------------------------------------------

    async def describe(self) -> SiteReport:
        """What the plugin says of itself, and what the site file says of it."""
        try:
            body = await self._questions.ping()
        except Answered as error:
            raise DriverError(str(error)) from None
        try:
            ping = parsed(body, "GET /status")
        except DriverError:
            ping = None  # a plain word will do: the code says that it is well
        flavor = flavor_of(self._config, told_resources(ping, self._config.gpu_resource))
        abilities = {Ability.IMAGE, Ability.SIGNAL}
        if self._config.pod_data:
            abilities.add(Ability.SECRETS)
        if self._setup.shared or self._config.run_as_user:
            abilities.add(Ability.OTHER_PERSONS)
        notes = list(_NOTES)
        if self._config.checkpoints is None:
            notes.append("Checkpoint folders do not outlive their pod: name a folder that all pods see, `checkpoints`.")
        notes += [f"The plugin keeps work away: {taint}." for taint in told_taints(ping)]
        return SiteReport(
            flavors=(flavor,),
            abilities=frozenset(abilities),
            max_walltime=self._config.max_walltime,
            max_jobs=self._config.max_jobs,
            owner=self._setup.owner or None,
            queues=True,
            notes=tuple(notes),
        )

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Create a pod for each attempt, one after the other unless the site file allows more at once."""
        answers: dict[str, Answer] = {}
        batch = _Batch(time.monotonic() + self._config.submit_seconds)
        unique = list({launch.attempt_id: launch for launch in attempts}.values())
        batch.unsure = await self._look_for([launch.held for launch in unique if launch.attempt_id in self._unsure])
        waiting = iter(unique)

        async def work() -> None:
            for launch in waiting:
                answers[launch.attempt_id] = await self._submit_one(launch, batch)

        # the first alone: from it the shape of the others is learnt
        if unique:
            first = next(waiting)
            answers[first.attempt_id] = await self._submit_one(first, batch)
        await asyncio.gather(*(work() for _ in range(min(self._config.at_once, len(unique)))))
        return [answers[launch.attempt_id] for launch in attempts]

    async def observe(self, held: Sequence[Held]) -> Observation:
        """What the plugin says of the pods that are held, and what we know of those that we deleted."""
        as_of = system_clock()
        stopped = await asyncio.to_thread(self._stopped.all)
        states: dict[str, AttemptStatus] = {}
        asked: list[tuple[Held, PodName]] = []
        for each in self._all_held(held):
            pod = pod_name(each, self._config, self._setup.instance)
            known = self._last.get(each.attempt_id)
            if pod is None or each.attempt_id in self._forgotten:
                continue
            if (tomb := stopped.get(each.attempt_id)) is not None and tomb.deleted:
                states[each.attempt_id] = tomb.status(each.attempt_id)
            elif known is not None and known.phase is Phase.ENDED:
                states[each.attempt_id] = known
            else:
                asked.append((each, pod))
        answers = await self._questions.ask([pod for _, pod in asked]) if asked else Answers()
        complete = True
        for each, pod in asked:
            status = await self._judge(each, pod, answers)
            if status is not None:
                states[each.attempt_id] = self._last[each.attempt_id] = status
            elif self._may_be_there(each, pod, answers):
                if each.native_id is None:
                    complete = False
                else:
                    states[each.attempt_id] = self._unchanged(each, pod)
            else:
                self._unsure.discard(each.attempt_id)
                self._taken.pop(each.attempt_id, None)
                if (tomb := stopped.get(each.attempt_id)) is not None:
                    states[each.attempt_id] = tomb.status(each.attempt_id)
        self._tidy({each.attempt_id for each in held} | self._taken.keys())
        return Observation(complete, as_of, states)

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """Delete the pods of attempts that have not ended; their output until now is kept.

        None is recalled: a plugin cannot delete a pod only if it has not begun, and the report says so.
        """
        stopped = await asyncio.to_thread(self._stopped.all)
        asked = []
        for each in attempts:
            if each.reason is StopReason.RECALLED:
                continue
            pod = pod_name(each.attempt, self._config, self._setup.instance)
            known, tomb = self._last.get(each.attempt.attempt_id), stopped.get(each.attempt.attempt_id)
            ended = known is not None and known.phase is Phase.ENDED
            if pod is not None and not ended and (tomb is None or not tomb.deleted):
                asked.append((each, pod))
        if not asked:
            return
        # one that has ended by itself keeps its own end, which would be gone with its pod
        answers = await self._questions.ask([pod for _, pod in asked])
        troubles = await asyncio.gather(*(self._stop_one(each, pod, answers) for each, pod in asked))
        trouble = next(filter(None, troubles), None)
        if trouble is not None:
            raise DriverError(trouble)

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Delete the pods of ended attempts, and what was kept of those that were deleted before."""
        stopped = await asyncio.to_thread(self._stopped.all)
        pods: list[tuple[str, PodName]] = []
        unsure: list[tuple[str, PodName]] = []
        for each in attempts:
            pod = pod_name(each, self._config, self._setup.instance)
            if pod is None or ((tomb := stopped.get(each.attempt_id)) is not None and tomb.deleted):
                continue
            known = self._last.get(each.attempt_id)
            ended = known is not None and known.phase is Phase.ENDED
            (pods if ended else unsure).append((each.attempt_id, pod))
        runs: set[str] = set()
        if unsure:
            answers = await self._questions.ask([pod for _, pod in unsure])
            for attempt_id, pod in unsure:
                told = answers.pods.get(pod.uid)
                status = read_pod(told, attempt_id).status if told is not None else None
                if status is not None and status.phase is not Phase.ENDED:
                    runs.add(attempt_id)
                elif told is not None:
                    pods.append((attempt_id, pod))
        for _, pod in pods:
            try:
                await self._wire.delete(pod.pod())
            except Answered:
                continue  # it has no such pod any more, which is what we want
        gone = [each.attempt_id for each in attempts if each.attempt_id not in runs]
        await asyncio.to_thread(self._stopped.remove, gone)
        for attempt_id in gone:
            self._drop(attempt_id)

    def _drop(self, attempt_id: str) -> None:
        """Remember nothing of an attempt but that it was forgotten."""
        for memory in (self._last, self._taken, self._missing):
            memory.pop(attempt_id, None)
        self._unsure.discard(attempt_id)
        self._outputs.drop(attempt_id)
        self._forgotten[attempt_id] = None
        while len(self._forgotten) > _MOST_FORGOTTEN:
            self._forgotten.popitem(last=False)

    async def close(self) -> None:
        """Let go of the connections to the plugin."""
        await self._wire.close()

    # -- Logs ----------------------------------------------------------------------------------------------------

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of the pod's output; the error output is part of it. Raises KeyError for what is not known."""
        pod = pod_name(attempt, self._config, self._setup.instance)
        known = attempt.native_id is not None or attempt.attempt_id in self._taken
        known = known and attempt.attempt_id not in self._forgotten
        if pod is None or not known or stream not in ("stdout", "stderr"):
            raise KeyError(attempt.attempt_id)
        output = await self._output(attempt.attempt_id, pod)
        return LogChunk(0, b"", 0) if stream == "stderr" else cut(output, offset, limit)

    async def _output(self, attempt_id: str, pod: PodName) -> bytes:
        stopped = await asyncio.to_thread(self._stopped.all)
        if (tomb := stopped.get(attempt_id)) is not None and tomb.deleted:
            return await asyncio.to_thread(self._stopped.output, attempt_id)
        if (kept := self._outputs.get(attempt_id)) is not None:
            return kept
        status = self._last.get(attempt_id)
        ended = status is not None and status.phase is Phase.ENDED
        output = own_output(await self._log(attempt_id, pod), attempt_id, ended=ended)
        if ended:
            self._outputs.put(attempt_id, output)
        return output

    async def _log(self, attempt_id: str, pod: PodName) -> bytes:
        """All that the plugin has of the pod's log. Raises KeyError where it does not know the pod."""
        body = {
            "Namespace": pod.namespace, "PodUID": pod.uid, "PodName": pod.name, "ContainerName": CONTAINER,
            "Opts": {
                "Tail": 0, "Bytes": 0, "Timestamps": False, "Follow": False, "Previous": False, "SinceSeconds": 0,
                "SinceTime": "0001-01-01T00:00:00Z",
            },
        }  # fmt: skip
        try:
            return await self._wire.logs(body, self._config.log_limit)
        except Answered as error:
            if error.code == 404:
                raise KeyError(attempt_id) from None
            raise DriverError(str(error)) from None

    # -- creating ------------------------------------------------------------------------------------------------

    async def _submit_one(self, launch: Launch, batch: "_Batch") -> Answer:
        attempt_id = launch.attempt_id
        if (native_id := self._taken.get(attempt_id)) is not None:
            return Submitted(attempt_id, native_id)
        if attempt_id in batch.unsure:
            return Unknown(attempt_id, "The plugin may have it since the last time, and does not tell of it yet.")
        held = pod_name(Held(attempt_id), self._config, self._setup.instance)
        if held is None:
            return Refused(attempt_id, f"attempt: {attempt_id!r} is not an attempt of this platform.")
        try:
            body = make_pod(launch, self._config, self._setup)
        except (CannotRun, ValueError, Invalid) as error:
            return Refused(attempt_id, f"{str(error).rstrip('.')}.")
        if batch.trouble is None and time.monotonic() > batch.deadline:
            batch.trouble = "The plugin took too long for those before it."
        if batch.trouble is not None:
            return Unknown(attempt_id, batch.trouble)
        try:
            answer = await self._create(body)
        except Answered as error:
            return Refused(attempt_id, str(error), permanent=error.code in _WRONG_REQUEST)
        except DriverError as error:
            # the others of this call would only wait as long
            batch.trouble = str(error)
            if not isinstance(error, NotReached):
                self._unsure.add(attempt_id)
            return Unknown(attempt_id, str(error))
        pod = _created(answer, held)
        if pod is None:
            self._unsure.add(attempt_id)
            return Unknown(attempt_id, "The plugin took it, or not: its answer to POST /create names another pod.")
        self._taken[attempt_id] = pod.native_id
        self._unsure.discard(attempt_id)
        self._forgotten.pop(attempt_id, None)
        return Submitted(attempt_id, pod.native_id)

    async def _look_for(self, unsure: Sequence[Held]) -> set[str]:
        """Learn whether what may have landed did, as a plugin runs a pod again that it is sent again.

        Returns the attempts of which still nobody knows.
        """
        pods = [(each, pod) for each in unsure if (pod := pod_name(each, self._config, self._setup.instance))]
        answers = await self._questions.ask([pod for _, pod in pods]) if pods else Answers()
        still: set[str] = set()
        for each, pod in pods:
            if await self._judge(each, pod, answers) is None and self._may_be_there(each, pod, answers):
                still.add(each.attempt_id)
        return still

    async def _create(self, body: dict[str, Any]) -> Any:
        """The plugin's answer. Raises Answered and DriverError."""
        shape = self._shape or "object"
        try:
            answer = await self._wire.create(body if shape == "object" else [body])
        except Answered as first:
            if self._config.create != "auto" or (self._shape is not None and not _OTHER_SHAPE.search(first.words)):
                raise
            shape = "list" if shape == "object" else "object"
            try:
                answer = await self._wire.create(body if shape == "object" else [body])
            except Answered as second:
                raise (first if _OTHER_SHAPE.search(second.words) or not second.words else second) from None
        self._shape = shape
        return parsed(answer, "POST /create")

    # -- judging -------------------------------------------------------------------------------------------------

    async def _judge(self, each: Held, pod: PodName, answers: Answers) -> AttemptStatus | None:
        """What the answer says of a pod; None where it says nothing of it."""
        raw = answers.pods.get(pod.uid)
        if raw is None:
            return None
        told = read_pod(raw, each.attempt_id)
        if told.status is None:
            # no change, where there was something to change
            return self._unchanged(each, pod) if each.native_id is not None or each.attempt_id in self._last else None
        self._missing.pop(each.attempt_id, None)
        native = named(pod, told.job_id) if told.job_id and not pod.job_id else pod
        status = replace(told.status, native_id=each.native_id or native.native_id)
        self._taken.setdefault(each.attempt_id, status.native_id)
        self._unsure.discard(each.attempt_id)
        if status.phase is Phase.ENDED and (tomb := self._stopped.all().get(each.attempt_id)) is not None:
            return replace(status, outcome=Outcome(tomb.outcome))
        if status.exit_code == WALLTIME_CODE and status.outcome is Outcome.FAILED:
            return await self._walltime(status, each, pod)
        return status

    async def _walltime(self, status: AttemptStatus, each: Held, pod: PodName) -> AttemptStatus:
        """The end of a pod with the exit code for a walltime that was over: its output tells whether it was."""
        try:
            log = await self._log(each.attempt_id, pod)
        except KeyError:
            return status
        except DriverError:
            return self._unchanged(each, pod)  # asked again next time
        if walltime_mark(each.attempt_id) not in log[-500:]:
            return status
        message = log[log.rindex(walltime_mark(each.attempt_id)) :].decode(errors="replace").strip()
        return replace(status, outcome=Outcome.TIMED_OUT, message=f"{message.removeprefix('atoll: ')}.")

    def _unchanged(self, each: Held, pod: PodName) -> AttemptStatus:
        last = self._last.get(each.attempt_id)
        return last or AttemptStatus(each.attempt_id, Phase.STARTING, native_id=each.native_id or pod.native_id)

    def _may_be_there(self, each: Held, pod: PodName, answers: Answers) -> bool:
        """Whether a pod that the answer lacks may be there all the same, because the answer may be an old one."""
        if pod.uid in answers.unknown:
            return False
        now = time.monotonic()
        since = self._missing.setdefault(each.attempt_id, now)
        if pod.uid in answers.silent:
            self._missing[each.attempt_id] = now
            return True
        return now - since < self._config.answer_age

    def _all_held(self, held: Sequence[Held]) -> list[Held]:
        """What control holds, and what we have just handed over or may have."""
        names = {each.attempt_id for each in held}
        ours = [Held(each, native_id) for each, native_id in self._taken.items() if each not in names]
        return [*held, *ours, *(Held(each) for each in self._unsure - self._taken.keys() - names)]

    def _tidy(self, held: set[str]) -> None:
        """Drop what is remembered of attempts that control no longer holds."""
        for memory in (self._last, self._missing):
            for attempt_id in memory.keys() - held:
                del memory[attempt_id]

    # -- stopping ------------------------------------------------------------------------------------------------

    async def _stop_one(self, request: StopRequest, pod: PodName, answers: Answers) -> str | None:
        """Delete one pod; why it could not be, if so."""
        attempt_id = request.attempt.attempt_id
        raw = answers.pods.get(pod.uid)
        status = read_pod(raw, attempt_id).status if raw is not None else None
        if status is not None and status.phase is Phase.ENDED:
            return None
        ours = request.attempt.native_id is not None or status is not None
        try:
            if ours:
                await self._keep(request, pod)
            await self._wire.delete(pod.pod(grace=max(0.0, request.grace)))
        except Answered as error:
            if ours and error.code != 404:
                return str(error)
        except NotReached as error:
            return str(error)
        except DriverError as error:
            # a plugin that breaks off where it knows no such pod: nothing of ours is there to be stopped
            return str(error) if ours else None
        if ours:
            tomb = self._stopped.all()[attempt_id]
            await asyncio.to_thread(self._stopped.put, attempt_id, replace(tomb, deleted=True))
            self._last.pop(attempt_id, None)
        return None

    async def _keep(self, request: StopRequest, pod: PodName) -> None:
        """Write down why the pod is deleted, and the output that it has."""
        attempt_id = request.attempt.attempt_id
        try:
            output = own_output(await self._log(attempt_id, pod), attempt_id, ended=False)
        except (KeyError, DriverError):
            output = b""  # a plugin that cannot show it now must not keep the job from being stopped
        if len(output) > _NEWS_LIMIT:
            half = _NEWS_LIMIT // 2
            output = output[:half] + b"\n[...]\n" + output[-half:]
        native_id = request.attempt.native_id or pod.native_id
        if attempt_id not in self._stopped.all():
            stopped = Stopped(_OUTCOMES[request.reason].value, native_id, system_clock().timestamp())
            await asyncio.to_thread(self._stopped.put, attempt_id, stopped)
        await asyncio.to_thread(self._stopped.put_output, attempt_id, output)


class _Batch:
    """What the creations of one call share."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.trouble: str | None = None
        self.unsure: set[str] = set()


def _created(answer: Any, pod: PodName) -> PodName | None:
    """The pod as POST /create answered; None for an answer that is about no pod, or about another."""
    answer = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(answer, dict) or answer.get("PodUID", pod.uid) != uid_of(pod.name.removeprefix("atoll-")):
        return None
    return named(pod, answer.get("PodJID"))
