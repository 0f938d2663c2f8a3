"""The HTCondor driver: attempts become jobs of a schedd, spooled there and brought back, found by an attribute.

Each account has a worker process with that account's token (see `worker.py`); reading the queue is the site's own.
"""

import asyncio
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atoll.core.clock import system_clock
from atoll.core.errors import Invalid
from atoll.core.ids import is_attempt_id
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
    sending_seconds,
)
from atoll.drivers.htcondor import ads, jobs, machines
from atoll.drivers.htcondor.config import read_config
from atoll.drivers.htcondor.fetched import Fetched
from atoll.drivers.htcondor.link import Failed, Link

_STOPS = {
    StopReason.CANCELLED: Outcome.CANCELLED,
    StopReason.EVICTED: Outcome.EVICTED,
    StopReason.ORPHANED: Outcome.CANCELLED,
}
_MUCH = 5.0
"""Seconds of sending that no other question waits for."""
# Words of a schedd that has looked at a submission and does not want it; all else may have landed.
_REFUSAL = re.compile(
    r"SUBMIT_REQUIREMENT|submit requirement|rejected|MAX_JOBS|maximum number|permission|not author", re.I
)
_LARGEST_LIST = 500
"""Attempts that one constraint names."""
_NOTES = (
    "Output and files come back when a job has ended: nothing can be read while it runs, and nothing of a job that was "
    "removed or put on hold.",
    "Checkpoint folders do not outlive their job.",
    "A job that the pool puts back into its queue after it has started is over; the platform makes a new attempt.",
)


class HtcondorDriver:
    """A schedd as a site. Has Logs and Stage."""

    def __init__(self, setup: DriverSetup) -> None:
        self._setup = setup
        self._config = read_config(setup.config)
        self._folder = Path(os.path.realpath(setup.folder))
        self._links: dict[tuple[str | None, bool], Link] = {}
        self._ended: dict[str, AttemptStatus] = {}
        """Ends that were seen: they do not change any more."""
        self._fetched = Fetched(self._folder / "attempts")

    # -- Driver --------------------------------------------------------------------------------------------------

    async def describe(self) -> SiteReport:
        """The pool's machines, by kind."""
        try:
            slots = await self._link(None).ask("machines", projection=list(machines.PROJECTION))
        except Failed as error:
            raise DriverError(f"The collector does not answer: {error}.") from None
        flavors = machines.flavors_of(slots)
        if not flavors:
            raise DriverError("The collector knows no machine of the pool.")
        abilities = {Ability.SIGNAL, Ability.FILES, Ability.SECRETS, Ability.SCRATCH}
        if self._config.images:
            abilities.add(Ability.IMAGE)
        if self._config.universe == "vanilla":
            abilities.add(Ability.VENV)
        if self._setup.shared or self._accounts is not None:
            abilities.add(Ability.OTHER_PERSONS)
        return SiteReport(
            flavors=flavors,
            abilities=frozenset(abilities),
            max_walltime=self._config.max_walltime,
            max_jobs=self._config.max_jobs,
            owner=self._setup.owner or None,
            queues=True,
            recalls=True,
            notes=_NOTES,
        )

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Queue the attempts: those of one account and kind in one transaction, as one cluster."""
        answers: dict[str, Answer] = {}
        groups: dict[tuple[str | None, jobs.Kind], list[Launch]] = defaultdict(list)
        for launch in {launch.attempt_id: launch for launch in attempts}.values():
            refusal = self._refusal(launch)
            if refusal is not None:
                answers[launch.attempt_id] = Refused(launch.attempt_id, refusal)
            else:
                groups[launch.account, jobs.kind_of(launch, self._config)].append(launch)
        for (account, kind), group in groups.items():
            for answer in await self._submit_group(account, kind, group):
                answers[answer.attempt_id] = answer
        return [answers[launch.attempt_id] for launch in attempts]

    async def observe(self, held: Sequence[Held]) -> Observation:
        """One question to the queue for all that is ours; what it lacks is looked for in the history."""
        as_of = system_clock()
        found = await self._ask_queue(f'AtollInstance == "{self._setup.instance}"')
        natives = {each.attempt_id: each.native_id for each in held}
        states = self._read(found, natives)
        known = {each.attempt_id: self._ended[each.attempt_id] for each in held if each.attempt_id in self._ended}
        missing = [each.attempt_id for each in held if each.attempt_id not in states and each.attempt_id not in known]
        if missing:
            states = self._read(await self._ask_history(missing), natives) | states
        states = known | states
        await self._look_for_walltimes(states, {each.attempt_id: each for each in held})
        self._ended = {each: status for each, status in states.items() if status.phase is Phase.ENDED}
        return Observation(len(missing) <= _LARGEST_LIST, as_of, states)

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """Write the reason into the jobs' ads, then remove them: what they were removed for is read from there."""
        ours = [each for each in attempts if self._ours(each.attempt)]
        await self._recall([each.attempt for each in ours if each.reason is StopReason.RECALLED])
        wanted = {each.attempt.attempt_id: each for each in ours if each.reason is not StopReason.RECALLED}
        if not wanted:
            return
        found = [ad for ad in await self._ask_attempts(wanted) if not self._is_over(ad)]
        groups: dict[tuple[str | None, Outcome, int], list[str]] = defaultdict(list)
        for ad in found:
            if ad.get("AtollStop"):
                continue  # it is being stopped: neither reason nor grace change any more
            request = wanted[ad["AtollAttempt"]]
            key = (request.attempt.account, _STOPS[request.reason], max(0, int(request.grace)))
            groups[key].append(ads.native_id(ad))
        for (account, outcome, grace), natives in groups.items():
            await self._act(account, "edit", jobs=natives, attribute="JobMaxVacateTime", value=str(grace))
            await self._act(account, "edit", jobs=natives, attribute="AtollStop", value=f'"{outcome.value}"')
        again: dict[str | None, list[str]] = defaultdict(list)
        for ad in found:
            again[wanted[ad["AtollAttempt"]].attempt.account].append(ads.native_id(ad))
        for account, natives in again.items():
            await self._act(account, "remove", jobs=natives, reason="Atoll: stopped")

    async def _recall(self, attempts: Sequence[Held]) -> None:
        """Remove those that have not begun: the schedd, which starts jobs, decides which these are as it removes."""
        by_account: dict[str | None, list[str]] = defaultdict(list)
        for each in attempts:
            by_account[each.account].append(each.attempt_id)
        for account, names in by_account.items():
            for start in range(0, len(names), _LARGEST_LIST):
                constraint = f"{_one_of(names[start : start + _LARGEST_LIST])} && {ads.NOT_BEGUN}"
                await self._act(account, "remove", jobs=constraint, reason=ads.RECALLED)

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Let ended jobs leave the queue, and remove what was brought back of them."""
        wanted = {each.attempt_id: each for each in attempts if self._ours(each)}
        if not wanted:
            return
        found = await self._ask_attempts(wanted)
        runs = {ad["AtollAttempt"] for ad in found if not self._is_over(ad)}
        by_account: dict[str | None, list[str]] = defaultdict(list)
        for ad in found:
            if ad["AtollAttempt"] not in runs:
                by_account[wanted[ad["AtollAttempt"]].account].append(ads.native_id(ad))
        for account, natives in by_account.items():
            # the history keeps it, and is not to tell of it again
            await self._act(account, "edit", jobs=natives, attribute="AtollForgotten", value="true")
            await self._act(account, "edit", jobs=natives, attribute="LeaveJobInQueue", value="false")
            await self._act(account, "remove", jobs=natives, reason="Atoll: forgotten")
        gone = wanted.keys() - runs
        for attempt_id in gone:
            self._ended.pop(attempt_id, None)
        await asyncio.to_thread(self._fetched.remove, gone)

    async def close(self) -> None:
        """End the workers. Jobs go on."""
        links, self._links = list(self._links.values()), {}
        for link in links:
            await link.close()

    # -- Logs, Stage ---------------------------------------------------------------------------------------------

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of the output of an ended job; empty before. Raises KeyError for what is not known."""
        if stream not in ("stdout", "stderr") or not self._ours(attempt):
            raise KeyError(attempt.attempt_id)
        await self._bring(attempt)
        return await asyncio.to_thread(self._fetched.read, attempt.attempt_id, stream, offset, limit)

    async def take_out(self, attempt: Held, patterns: Sequence[str], into: Path) -> list[str]:
        """Copy files of the working directory that came back. Raises KeyError where there is no such attempt."""
        if not self._ours(attempt):
            raise KeyError(attempt.attempt_id)
        await self._bring(attempt)
        return await asyncio.to_thread(self._fetched.take_out, attempt.attempt_id, patterns, into)

    async def _look_for_walltimes(self, states: dict[str, AttemptStatus], held: Mapping[str, Held]) -> None:
        """Tell walltimes that were over from jobs that ended with the same exit code by themselves."""
        for attempt_id, status in states.items():
            if status.exit_code != jobs.WALLTIME_CODE or status.outcome is not Outcome.FAILED:
                continue
            if attempt_id in self._ended:
                states[attempt_id] = self._ended[attempt_id]
                continue
            try:
                await self._bring(held.get(attempt_id, Held(attempt_id, status.native_id)))
            except KeyError:
                continue
            if await asyncio.to_thread(self._fetched.walltime_was_over, attempt_id):
                words = "It was ended because its walltime was over."
                states[attempt_id] = replace(status, outcome=Outcome.TIMED_OUT, message=words)

    async def _bring(self, attempt: Held) -> None:
        """Have the output of an ended job here. Raises KeyError for a job that is not known."""
        if await asyncio.to_thread(self._fetched.is_here, attempt.attempt_id):
            return
        found = [
            ad for ad in await self._ask_attempts([attempt.attempt_id]) if ad["AtollAttempt"] == attempt.attempt_id
        ]
        if not found:
            raise KeyError(attempt.attempt_id)  # it has left the queue, and its output with it
        if found[0].get("JobStatus") != ads.COMPLETED:
            return
        await asyncio.to_thread(self._fetched.prepare, attempt.attempt_id)
        await self._act(attempt.account, "retrieve", jobs=[ads.native_id(found[0])])
        await asyncio.to_thread(self._fetched.done, attempt.attempt_id)

    # -- submitting ----------------------------------------------------------------------------------------------

    @property
    def _accounts(self) -> str | None:
        return self._config.token.accounts if self._config.token is not None else None

    def _refusal(self, launch: Launch) -> str | None:
        """Why the attempt can never run here; None where it can."""
        if not is_attempt_id(launch.attempt_id, self._setup.instance):
            return f"attempt: {launch.attempt_id!r} is not an attempt of this platform."
        if launch.account is None and launch.person != self._setup.owner and not self._setup.shared:
            return (
                f"person: {launch.person!r} has no account at this site; map the person to one in the site's file, or "
                "say there that the site's identity is shared."
            )
        if launch.account is not None and self._accounts is None:
            return (
                f"account: jobs here run as the site's own account, so {launch.person!r} cannot run as "
                f"{launch.account!r}; name the accounts' tokens in the site's config (token: accounts)."
            )
        if launch.account is not None and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*", launch.account) is None:
            return f"account: {launch.account!r} is no name of an account."
        try:
            jobs.check(launch, self._config)
        except jobs.CannotRun as error:
            return str(error)
        return None

    async def _submit_group(self, account: str | None, kind: jobs.Kind, group: Sequence[Launch]) -> list[Answer]:
        answers: list[Answer] = []
        taken = await self._taken([launch.attempt_id for launch in group], account)
        lines: list[dict[str, str]] = []
        for launch in group:
            attempt_id = launch.attempt_id
            if attempt_id in taken:
                answers.append(Submitted(attempt_id, taken[attempt_id]))
                continue
            folder = self._fetched.of(attempt_id)
            try:
                lines.append(jobs.item(launch, self._config, folder))
                await asyncio.to_thread(jobs.lay_out, launch, folder)
            except (Invalid, ValueError) as error:
                lines = [line for line in lines if line["attempt"] != attempt_id]
                answers.append(Refused(attempt_id, f"{str(error).rstrip('.')}."))
            except OSError as error:
                lines = [line for line in lines if line["attempt"] != attempt_id]
                words = f"Its files cannot be laid out in {folder}: {error.strerror}."
                answers.append(Refused(attempt_id, words, permanent=False))
        if lines:
            answers += await self._queue_lines(account, kind, lines, sending_seconds(group))
        return answers

    async def _queue_lines(
        self, account: str | None, kind: jobs.Kind, lines: list[dict[str, str]], longer: float
    ) -> list[Answer]:
        text = jobs.description(kind, self._setup.instance, self._config)
        names = [line["attempt"] for line in lines]
        try:
            result = await self._link(account, large=longer > _MUCH).ask(
                "submit", longer=longer, description=text, lines=lines
            )
        except Failed as error:
            words = f"The schedd did not take it: {error}."
            if _REFUSAL.search(str(error)):
                return [Refused(name, words, permanent=False) for name in names]
            return [Unknown(name, words) for name in names]
        except DriverError as error:
            return [Unknown(name, str(error)) for name in names]
        finally:
            await asyncio.to_thread(self._fetched.clear, names)
        if result["count"] != len(names):
            return [Unknown(name, "The schedd took another number of jobs than it was given.") for name in names]
        first = result["first"]
        return [Submitted(name, f"{result['cluster']}.{first + number}") for number, name in enumerate(names)]

    async def _taken(self, names: Sequence[str], account: str | None) -> dict[str, str]:
        """The attempts that the queue has already; those whose files never came are removed, to be sent again."""
        found = await self._ask_attempts(names)
        broken = [ads.native_id(ad) for ad in found if self._never_spooled(ad)]
        if broken:
            await self._act(account, "edit", jobs=broken, attribute="LeaveJobInQueue", value="false")
            await self._act(account, "remove", jobs=broken, reason="Atoll: its files never came")
        return {ad["AtollAttempt"]: ads.native_id(ad) for ad in found if not self._never_spooled(ad)}

    @staticmethod
    def _never_spooled(ad: Mapping[str, Any]) -> bool:
        return ad.get("JobStatus") == ads.HELD and ad.get("HoldReasonCode") == ads.SPOOLING

    # -- asking --------------------------------------------------------------------------------------------------

    def _link(self, account: str | None, *, large: bool = False) -> Link:
        """The worker for an account; for what takes long to send another one, so that no question waits for that."""
        if (account, large) not in self._links:
            token = self._config.token
            path = None
            if account is not None and token is not None and token.accounts is not None:
                path = token.accounts.replace("{account}", account)
            elif token is not None:
                path = token.file or token.directory
            self._links[account, large] = Link(self._config, path, self._folder)
        return self._links[account, large]

    async def _ask_queue(self, constraint: str) -> list[dict[str, Any]]:
        try:
            found = await self._link(None).ask("queue", constraint=constraint, projection=list(ads.PROJECTION))
        except Failed as error:
            raise DriverError(f"The schedd does not answer: {error}.") from None
        return [
            ad for ad in found if isinstance(ad, dict) and is_attempt_id(str(ad.get("AtollAttempt")), self._instance)
        ]

    async def _ask_attempts(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """The queue's ads of these attempts."""
        listed = sorted(names)
        found: list[dict[str, Any]] = []
        for start in range(0, len(listed), _LARGEST_LIST):
            found += await self._ask_queue(_one_of(listed[start : start + _LARGEST_LIST]))
        return found

    async def _ask_history(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What the history says of attempts that have left the queue."""
        constraint = f"{_one_of(names[:_LARGEST_LIST])} && AtollForgotten =!= true"
        most = min(len(names), _LARGEST_LIST)
        try:
            found = await self._link(None).ask(
                "history", constraint=constraint, projection=list(ads.PROJECTION), most=most
            )
        except Failed as error:
            raise DriverError(f"The schedd does not tell its history: {error}.") from None
        return [
            ad for ad in found if isinstance(ad, dict) and is_attempt_id(str(ad.get("AtollAttempt")), self._instance)
        ]

    async def _act(self, account: str | None, action: str, **values: Any) -> None:
        try:
            await self._link(account).ask(action, **values)
        except Failed as error:
            raise DriverError(f"The schedd refused to {action} jobs: {error}.") from None

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def _instance(self) -> str:
        return self._setup.instance

    def _ours(self, attempt: Held) -> bool:
        return is_attempt_id(attempt.attempt_id, self._instance)

    def _read(self, found: Iterable[Mapping[str, Any]], natives: Mapping[str, str | None]) -> dict[str, AttemptStatus]:
        """The states by attempt; of two ads with one attempt's name the job counts that control knows."""
        now = time.time()
        states: dict[str, AttemptStatus] = {}
        for ad in found:
            status = ads.status_of(ad, now)
            if status is not None and (
                status.attempt_id not in states or natives.get(status.attempt_id) == status.native_id
            ):
                states[status.attempt_id] = status
        return states

    def _is_over(self, ad: Mapping[str, Any]) -> bool:
        status = ads.status_of(ad, time.time())
        return status is not None and status.phase is Phase.ENDED


def _one_of(names: Iterable[str]) -> str:
    """A constraint that the ads of these attempts meet; their names are plain letters and digits."""
    return f'stringListMember(AtollAttempt, "{",".join(names)}")'
