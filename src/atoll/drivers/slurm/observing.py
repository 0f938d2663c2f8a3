"""How the attempts are: one question to Slurm about all jobs, and one to each account for what its attempts wrote."""

import asyncio
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from atoll.core.clock import system_clock
from atoll.core.ids import is_attempt_id
from atoll.drivers.base import AttemptStatus, DriverError, Held, Observation, Phase
from atoll.drivers.shell import NoAccount
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.ends import begun_anew_status, ended_status, moment, taken_out_status
from atoll.drivers.slurm.jobs import PENDING, SlurmJob
from atoll.drivers.slurm.options import NAME
from atoll.drivers.slurm.reasons import pending_sentence
from atoll.drivers.slurm.records import SiteRecord, read_records
from atoll.drivers.slurm.site import SlurmSite

_TOGETHER = 2000
"""Attempts that one script is asked about."""
_FOLLOW_UP_WITHIN = 10.0
_LIST_EVERY = 4.5
"""Seconds after a listing for which hints are followed up without another one."""
_COMMAND = re.compile(r"(/\S*)/([0-9a-z]{5})/keeper-[0-9a-f]{12}\.sh (\S+) ([0-9a-z]{5}-[0-9a-z]{16}) ")


_Question = tuple[AttemptStatus, SlurmJob | None]
"""An attempt whose end is to be found out, with Slurm's job of it where Slurm knows one."""


class Observer:
    """Puts together what Slurm and the attempts' folders say. What it remembers it could find again."""

    def __init__(self, site: SlurmSite) -> None:
        self._site = site
        self._prefix = f"{site.setup.instance}-"
        self._lists: dict[str, list[str]] = {}
        """The attempts of each batch, in the order of their indexes."""
        self._ended: dict[str, AttemptStatus] = {}
        """Ends that were told, until they are forgotten."""
        self._gone: set[str] = set()
        """Ended jobs of Slurm's whose attempts are forgotten."""
        self._own_name = ""
        self._arrays: frozenset[str] = frozenset()
        """Arrays of ours of which Slurm knows some task."""
        self._holding: frozenset[str] = frozenset()
        """Native ids that control holds."""
        self._submissions: dict[str, dict[str, SlurmJob]] = {}
        """Slurm's jobs of each attempt by native id, of the last listing."""
        self._listed_at: float | None = None
        """When the last listing that was read was begun, by the monotonic clock."""
        self.live: dict[str, AttemptStatus] = {}
        """What the last observation told as not ended."""
        self.jobs: dict[str, SlurmJob] = {}
        """Slurm's jobs of those."""

    def learn_batch(self, name: str, attempts: Sequence[str]) -> None:
        """Remember the attempts of a batch."""
        self._lists[name] = list(attempts)

    def forget(self, attempts: Iterable[str]) -> None:
        """Drop what is remembered of attempts that are gone."""
        gone = set(attempts)
        for attempt_id in gone:
            status = self._ended.pop(attempt_id, None)
            if status is not None and status.native_id:
                self._gone.add(status.native_id)
        for name in [name for name, members in self._lists.items() if gone.issuperset(members)]:
            del self._lists[name]

    def ended(self, attempt_id: str) -> AttemptStatus | None:
        """The end that was told of an attempt."""
        return self._ended.get(attempt_id)

    async def observe(
        self, held: Sequence[Held], told: Mapping[str | None, Collection[str]] | None = None
    ) -> Observation:
        """All attempts of this platform, those that ended included. Raises DriverError.

        `told` are attempts by account that were hinted at: what they wrote may be newer than Slurm's answer.
        """
        observation = await self._list(held)
        if not told:
            return observation
        newer = await self.follow_up(held, told)
        return replace(observation, states={**observation.states, **newer.states})

    async def _list(self, held: Sequence[Held]) -> Observation:
        as_of, began = system_clock(), time.monotonic()
        self._listed_at = None
        own = await self._site.home(None)
        self._own_name = own.account
        seen = await self._seen(await self._site.jobs(), held)
        states: dict[str, AttemptStatus] = {}
        open_questions: dict[str | None, list[_Question]] = {}
        for status, job in seen.values():
            if (known := self._ended.get(status.attempt_id)) is not None:
                states[status.attempt_id] = known
            elif job is not None and not job.over and not job.begun_anew:
                states[status.attempt_id] = _live(status, job)
            else:
                open_questions.setdefault(status.account, []).append((status, job))
        records = await self._records_of(open_questions)
        # where slurmdbd does not answer nothing is called lost
        complete = await self._ask_accounting(open_questions, records) and len(records) == len(open_questions)
        for account, asked in open_questions.items():
            found = records.get(account)
            if found is None:
                continue
            for status, job in asked:
                one = found.get(status.attempt_id)
                if (other := self._other_that_runs(status, job, one)) is not None:
                    status, job = other
                    if not job.over and not job.begun_anew:
                        states[status.attempt_id] = _live(status, job)
                        continue
                end = self._end(status, job, one)
                if end is not None:
                    states[status.attempt_id] = self._ended[status.attempt_id] = end
                elif job is not None and not job.over:
                    states[status.attempt_id] = _live(status, job)
        self.jobs = {key: job for key, (_, job) in seen.items() if job is not None and not job.over}
        self.live = {key: status for key, status in states.items() if status.phase is not Phase.ENDED}
        self._listed_at = began
        return Observation(complete=complete, as_of=as_of, states=states)

    def may_follow_up(self) -> bool:
        """Whether Slurm answered so lately that hints can be followed up without asking it again."""
        return self._listed_at is not None and time.monotonic() - self._listed_at < _LIST_EVERY

    async def follow_up(self, held: Sequence[Held], told: Mapping[str | None, Collection[str]]) -> Observation:
        """What the folders of attempts that were hinted at say for certain and is new, and nothing else.

        `told` are attempts by account. It is never complete: Slurm is not asked, and ends that it had a part in are
        left for the next listing.
        """
        as_of = system_clock()
        hinted: dict[str | None, list[_Question]] = {}
        for each in held:
            if each.attempt_id in told.get(each.account, ()) and each.attempt_id not in self._ended:
                status = AttemptStatus(each.attempt_id, Phase.STARTING, each.native_id or "", account=each.account)
                hinted.setdefault(each.account, []).append((self.live.get(each.attempt_id, status), None))
        try:
            async with asyncio.timeout(_FOLLOW_UP_WITHIN):
                records = await self._records_of(hinted)
        except (DriverError, TimeoutError):
            records = {}  # whether the site answers only a listing says; accounts decide when they hint
        states: dict[str, AttemptStatus] = {}
        for account, asked in hinted.items():
            for status, _ in asked:
                key, found = status.attempt_id, records.get(account, {}).get(status.attempt_id)
                news = None if found is None else _hinted(status, found)
                if news is None:
                    continue
                states[key] = news
                if news.phase is Phase.ENDED:
                    self._ended[key] = news
                    self.live.pop(key, None)
                else:
                    self.live[key] = news
        return Observation(complete=False, as_of=as_of, states=states)

    def _end(self, status: AttemptStatus, job: SlurmJob | None, found: SiteRecord | None) -> AttemptStatus | None:
        if job is not None and not job.over:
            # a second start finds the claim taken and does nothing; one that never began goes on to wait
            began = found is not None and found.record.started_at is not None
            return begun_anew_status(job, found, status) if began and found is not None else None
        if found is None and job is not None and job.native not in self._holding:
            # nobody holds it and its folder is gone: it was forgotten, and Slurm remembers it for a while
            self._gone.add(job.native)
            return None
        if found is not None and job is None and found.record.native_id and not status.native_id:
            status = replace(status, native_id=found.record.native_id)
        if found is not None and job is None and self._was_taken_out(status.native_id, found):
            return taken_out_status(status)
        return ended_status(status.attempt_id, job, found, status)

    def _other_that_runs(
        self, status: AttemptStatus, job: SlurmJob | None, found: SiteRecord | None
    ) -> tuple[AttemptStatus, SlurmJob] | None:
        """Another job of an attempt than the one that ended: the one that began it, or that may still do so.

        There are two where an sbatch outlived a platform, and the next one submitted the attempt again meanwhile.
        """
        others = self._submissions.get(status.attempt_id, {})
        if job is None or found is None or len(others) < 2:
            return None
        native = found.record.native_id
        if found.record.started_at is None and not found.recalled and found.stop is None:
            native = next((name for name, each in others.items() if not each.over), "")
        if native not in others or native == status.native_id:
            return None
        return replace(status, native_id=native), others[native]

    def _was_taken_out(self, native: str, found: SiteRecord) -> bool:
        """Whether somebody cancelled a task that waited: Slurm keeps no record of it, only of its neighbours."""
        array, _, task = native.partition("_")
        return bool(task) and array in self._arrays and not found.record.claimed and found.stop is None

    # -- which job is which attempt ------------------------------------------------------------------------------

    async def _seen(
        self, jobs: Sequence[SlurmJob], held: Sequence[Held]
    ) -> dict[str, tuple[AttemptStatus, SlurmJob | None]]:
        """Each attempt that is held, or that Slurm has a job for, with that job."""
        by_native = {each.native_id: each for each in held if each.native_id}
        self._holding = frozenset(by_native)
        by_id = {each.attempt_id: each for each in held if each.attempt_id.startswith(self._prefix)}
        ours = [job for job in jobs if self._is_ours(job, by_native)]
        self._arrays = frozenset(str(job.array_id) for job in ours if job.array_id)
        self._gone.intersection_update({native for job in ours for _, native in job.natives()})
        await self._learn_lists(ours, by_native)
        seen: dict[str, tuple[AttemptStatus, SlurmJob | None]] = {}
        self._submissions = {}
        for job in ours:
            batch = self._batch_of(job)
            for index, native in job.natives():
                attempt_id = self._attempt(batch, index, native, job, by_native)
                if attempt_id is None or native in self._gone:
                    continue
                who = by_id.get(attempt_id)
                account = who.account if who is not None else self._account_of(job)
                self._submissions.setdefault(attempt_id, {})[native] = job
                if attempt_id in seen and not self._is_better(job, native, who, seen[attempt_id][1]):
                    continue
                seen[attempt_id] = AttemptStatus(attempt_id, Phase.STARTING, native, account=account), job
            if job.tasks_cut:
                self._add_unnamed(seen, job, by_native)
        for each in by_id.values():
            if each.attempt_id not in seen:
                status = AttemptStatus(each.attempt_id, Phase.STARTING, each.native_id or "", account=each.account)
                seen[each.attempt_id] = status, None
        return seen

    def _is_ours(self, job: SlurmJob, by_native: Mapping[str, Held]) -> bool:
        if job.name.startswith(NAME + self._prefix):
            return is_attempt_id(job.name.removeprefix(NAME), self._site.setup.instance)
        # somebody gave it another name; what it runs nobody can change
        match = _COMMAND.search(f"{job.command} ")
        if match is not None:
            return match[2] == self._site.setup.instance
        return any(native in by_native for _, native in job.natives()) and not job.name.startswith(NAME)

    def _batch_of(self, job: SlurmJob) -> str | None:
        match = _COMMAND.search(f"{job.command} ")
        if match is not None:
            return match[4]
        return job.name.removeprefix(NAME) if job.name.startswith(NAME) else None

    def _attempt(
        self, batch: str | None, index: int, native: str, job: SlurmJob, by_native: Mapping[str, Held]
    ) -> str | None:
        if batch is not None:
            if not job.array_id:
                return batch
            members = self._lists.get(batch)
            if members is not None:
                return members[index] if index < len(members) else None
        held = by_native.get(native)
        return held.attempt_id if held is not None else None

    def _is_better(self, job: SlurmJob, native: str, who: Held | None, other: SlurmJob | None) -> bool:
        """Whether `job` rather than `other` is the one that runs an attempt: it was submitted twice."""
        if other is None or (who is not None and who.native_id == native):
            return True
        if who is not None and who.native_id is not None:
            return False
        return other.over and not job.over

    def _add_unnamed(
        self, seen: dict[str, tuple[AttemptStatus, SlurmJob | None]], job: SlurmJob,
        by_native: Mapping[str, Held],
    ) -> None:  # fmt: skip
        """Those tasks that wait and that Slurm names only by `...`."""
        last = max(job.tasks, default=-1) if job.tasks is not None else -1
        for native, held in by_native.items():
            array, _, task = (native or "").partition("_")
            if array == str(job.array_id) and task.isdecimal() and int(task) > last and held.attempt_id not in seen:
                status = AttemptStatus(held.attempt_id, Phase.STARTING, native or "", account=held.account)
                seen[held.attempt_id] = status, job

    def _account_of(self, job: SlurmJob) -> str | None:
        """Whose job it is; None for the site's own account."""
        return None if not job.user or job.user == self._own_name else job.user

    async def _learn_lists(self, jobs: Iterable[SlurmJob], by_native: Mapping[str, Held]) -> None:
        """Read which attempts are in the batches that nobody remembers. Raises DriverError."""
        wanted: dict[str | None, set[str]] = {}
        for job in jobs:
            batch = self._batch_of(job)
            if not job.array_id or batch is None or batch in self._lists:
                continue
            if all(native in by_native or native in self._gone for _, native in job.natives()) and not job.tasks_cut:
                continue
            wanted.setdefault(self._account_of(job), set()).add(batch)
        for account, names in wanted.items():
            try:
                root = (await self._site.home(account)).root
                ran = await self._site.script(account, scripts.LISTS, root, stdin="\n".join(sorted(names)).encode())
            except NoAccount:
                continue  # somebody else's job under a name like ours
            self._lists |= {name: [] for name in names}  # what is not there any more is not asked for again
            self._lists |= read_lists(ran.out.decode("ascii", "replace"), self._site.setup.instance)

    # -- what the attempts wrote ---------------------------------------------------------------------------------

    async def _records_of(
        self, asked: Mapping[str | None, Sequence[_Question]]
    ) -> dict[str | None, dict[str, SiteRecord]]:
        """By account; one that cannot be asked is left out, so that it hides nobody else's. Raises DriverError."""
        accounts = list(asked)
        answers = await asyncio.gather(
            *(self.records(account, [status.attempt_id for status, _ in asked[account]]) for account in accounts),
            return_exceptions=True,
        )
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if not isinstance(failure, DriverError) or len(failures) == len(accounts):
                raise failure
        return {
            account: answer
            for account, answer in zip(accounts, answers, strict=True)
            if not isinstance(answer, BaseException)
        }

    async def _ask_accounting(
        self, asked: Mapping[str | None, list[_Question]], records: Mapping[str | None, Mapping[str, SiteRecord]]
    ) -> bool:
        """Have slurmdbd tell of those that slurmctld has forgotten and that ended otherwise than by themselves."""
        silent = set()
        for account, questions in asked.items():
            found = records.get(account, {})
            for status, job in questions:
                one = found.get(status.attempt_id)
                if job is None and status.native_id and one is not None and one.leaves_open:
                    silent.add(status.native_id)
        # slurmrestd alone has no sacct
        if not silent or self._site.config.transport == "rest":
            return True
        try:
            if not (await self._site.facts()).accounting:
                return True
            told = await self._site.accounting(sorted(silent))
        except DriverError:
            return False
        for questions in asked.values():
            questions[:] = [(status, job or told.get(status.native_id)) for status, job in questions]
        return True

    async def records(self, account: str | None, attempts: Sequence[str]) -> dict[str, SiteRecord]:
        """What stands in the folders of attempts; one that has no folder is left out. Raises DriverError."""
        found: dict[str, SiteRecord] = {}
        root = (await self._site.home(account)).root
        for start in range(0, len(attempts), _TOGETHER):
            names = "\n".join(attempts[start : start + _TOGETHER])
            ran = await self._site.script(account, scripts.RECORDS, root, stdin=f"{names}\n".encode(), allowed=(123,))
            found |= read_records(ran.out)
        return found


def read_lists(text: str, instance: str) -> dict[str, list[str]]:
    """The batches that LISTS told of; what does not look like one of ours is left out."""
    lists: dict[str, list[str]] = {}
    members: list[str] = []
    for line in text.splitlines():
        if line.startswith("batch "):
            members = lists.setdefault(line.removeprefix("batch "), [])
        elif is_attempt_id(line, instance):
            members.append(line)
    return lists


def _hinted(status: AttemptStatus, found: SiteRecord) -> AttemptStatus | None:
    """What a folder alone tells of an attempt for certain: that it runs, or how it ended by itself."""
    record = found.record
    if record.native_id and not status.native_id:
        status = replace(status, native_id=record.native_id)
    if record.ended:
        by_itself = record.exit_code is not None and found.stop is None
        return ended_status(status.attempt_id, None, found, status) if by_itself else None
    if record.started_at is None or status.phase is Phase.RUNNING:
        return None
    began = moment(record.started_at)
    return replace(status, phase=Phase.RUNNING, native_state="RUNNING", message="", started_at=began)


def _live(status: AttemptStatus, job: SlurmJob) -> AttemptStatus:
    if job.state == PENDING:
        return replace(
            status, native_state=" ".join(filter(None, (PENDING, job.reason))), message=pending_sentence(job),
            expected_at=_still_ahead(job.expected),
        )  # fmt: skip
    # COMPLETING: its command has ended, and its nodes are not free yet
    state = "COMPLETING" if "COMPLETING" in job.flags else job.state
    if "CONFIGURING" in job.flags:
        return replace(status, native_state="CONFIGURING", message="Its nodes are being made ready.")
    return replace(status, phase=Phase.RUNNING, native_state=state, started_at=moment(job.started))


def _still_ahead(seconds: float | None) -> datetime | None:
    """The time of so many seconds since 1970, None once it is over: then Slurm has not looked at the job again."""
    if seconds is None or seconds <= system_clock().timestamp():
        return None
    return moment(seconds)
