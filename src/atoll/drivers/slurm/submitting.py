"""Handing attempts to Slurm: what cannot run is refused, the others are laid out and submitted, a batch at a time."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from atoll.core.errors import Invalid
from atoll.core.ids import is_attempt_id
from atoll.core.resources import Resources, format_bytes, format_milli
from atoll.drivers.base import Answer, DriverError, Held, Launch, Refused, Submitted, Unknown, sending_seconds
from atoll.drivers.shell import NoAccount, Unfinished
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.facts import Facts, flavors
from atoll.drivers.slurm.images import entrance, image_at, image_program, wants_image
from atoll.drivers.slurm.layout import STEP, Entrance, Home, Surroundings, launch_text, tar_stream
from atoll.drivers.slurm.observing import Observer
from atoll.drivers.slurm.oci import Bundles, oci_entrance
from atoll.drivers.slurm.options import Batch, Limits, batches, on_each, placing, step_on_each
from atoll.drivers.slurm.said import may_have_landed, permanent, plain, unreachable
from atoll.drivers.slurm.site import SlurmSite
from atoll.drivers.wrapper import LAUNCH

_QUIET = 60.0
"""Seconds without a word after which a submission is given up, and counts as perhaps landed."""
_ACCOUNT_WITHIN = 45.0
_LEFT_ALONE = 120.0
"""Seconds in which nothing is handed over for an account that did not answer."""
_TOGETHER = 1000
"""Attempts that one call lays out."""


class Submitter:
    """Answers for each attempt, whatever happens to others of the same call."""

    def __init__(self, site: SlurmSite, observer: Observer) -> None:
        self._site = site
        self._observer = observer
        self._slow: dict[str | None, float] = {}
        """Until when accounts are left alone, by the monotonic clock."""

    async def submit(self, launches: Sequence[Launch]) -> list[Answer]:
        """One answer for each. Raises DriverError where nothing can have landed."""
        if not launches:
            return []
        facts, limits = await self._site.facts(), await self._site.limits()
        answers: dict[str, Answer] = {}
        by_account: dict[str | None, dict[str, Launch]] = {}
        for launch in launches:
            refusal = self._cannot(launch, facts)
            if refusal is not None:
                answers[launch.attempt_id] = Refused(launch.attempt_id, refusal)
            else:
                by_account.setdefault(launch.account, {})[launch.attempt_id] = launch
        parts = [
            (account, members[start : start + _TOGETHER])
            for account, members in ((account, list(each.values())) for account, each in by_account.items())
            for start in range(0, len(members), _TOGETHER)
        ]
        for said in await asyncio.gather(*(self._in_time(account, part, limits) for account, part in parts)):
            answers |= {answer.attempt_id: answer for answer in said}
        return [answers[launch.attempt_id] for launch in launches]

    async def _in_time(self, account: str | None, launches: Sequence[Launch], limits: Limits) -> list[Answer]:
        """Answers within the time of a call: an account that hangs at the site holds nobody else up for long."""
        pause = self._slow.get(account, 0.0) - time.monotonic()
        if pause > 0:
            # no refusal, which would count against the jobs: it may be Slurm that does not answer
            words = f"The account did not answer at the site, and is left alone for {pause:.0f} s."
            return [Unknown(launch.attempt_id, words) for launch in launches]
        within = _ACCOUNT_WITHIN + sending_seconds(launches)
        try:
            async with asyncio.timeout(within):
                return await self._for_account(account, launches, limits)
        except TimeoutError:
            self._slow[account] = time.monotonic() + _LEFT_ALONE
            words = f"The account did not answer at the site within {within:.0f} s."
            return [Unknown(launch.attempt_id, words) for launch in launches]

    async def _for_account(self, account: str | None, launches: Sequence[Launch], limits: Limits) -> list[Answer]:
        try:
            home = await self._site.home(account)
        except NoAccount as error:
            return [Refused(launch.attempt_id, f"account: {error}") for launch in launches]
        except DriverError as error:
            return [Refused(launch.attempt_id, str(error), permanent=False) for launch in launches]
        answers: list[Answer] = []
        texts: dict[str, Mapping[str, str]] = {}
        bundles = Bundles(self._site, account)
        placed: list[tuple[Launch, Sequence[str]]] = []
        own = account is not None and home.account == (await self._site.home(None)).account
        for launch in launches:
            if own and launch.person != self._site.setup.owner and not self._site.setup.shared:
                words = f"account: {launch.person!r} is mapped to {account!r}, the site's own account"
                answers.append(Refused(launch.attempt_id, f"{words}; map the person to another one."))
                continue
            try:
                texts[launch.attempt_id], options = await self._prepare(launch, home, limits, bundles)
                placed.append((launch, options))
            except Invalid as error:
                answers.append(Refused(launch.attempt_id, error.sentence))
            except DriverError as error:
                answers.append(Refused(launch.attempt_id, str(error), permanent=False))
        if placed:
            answers += await self._hand_over(account, home, list(batches(placed, home.root, limits)), texts)
        return answers

    async def _prepare(
        self, launch: Launch, home: Home, limits: Limits, bundles: Bundles
    ) -> tuple[Mapping[str, str], Sequence[str]]:
        """The attempt's files by name, and its options. Raises Invalid, and DriverError."""
        config, facts = self._site.config, await self._site.facts()
        image = await self._image(launch, home, bundles)
        prefix = step_on_each(launch) if on_each(launch) else []
        surroundings = Surroundings(dict(config.environment), config.path, config.conda or facts.programs.get("conda"))
        files = {LAUNCH: launch_text(launch, home, surroundings, prefix, image)}
        if image is not None:
            files |= image.files
        if prefix:
            files[STEP] = ""
        own = config.options(launch.spec.class_)
        return files, placing(launch, own, replace(limits, max_walltime=facts.longest(own)))

    async def _image(self, launch: Launch, home: Home, bundles: Bundles) -> Entrance | None:
        """How the command gets into its image; None where it wants none. Raises Invalid, and DriverError."""
        if not wants_image(launch):
            return None
        config, facts = self._site.config, await self._site.facts()
        program = image_program(config, facts)
        assert program is not None, "refused before"
        if program.kind != "oci":
            return entrance(launch, program, config, home)
        return oci_entrance(launch, await bundles.read(image_at(launch, config)), config, home, facts.version)

    async def _hand_over(
        self, account: str | None, home: Home, groups: Sequence[Batch], texts: Mapping[str, Mapping[str, str]]
    ) -> list[Answer]:
        """Lay out and submit; attempts that were laid out before are looked up, and the others tried once more."""
        said = _Said(groups)
        try:
            await self._site.script(
                account, scripts.SUBMIT, home.root, secrets.token_hex(8), stdin=_pieces(groups, texts),
                sink=said.take, seconds=_QUIET,
            )  # fmt: skip
        except (Unfinished, OSError) as error:
            message = f"Nobody knows whether Slurm took it: {error}"
            return said.answers(self._observer) + [Unknown(each, message) for each in said.open()]
        except DriverError as error:
            # what was not told of was not submitted, and is tried again
            return said.answers(self._observer) + [Refused(each, str(error), permanent=False) for each in said.open()]
        answers = said.answers(self._observer)
        await self._tidy_up(account, home, answers)
        if said.mixed:
            answers += await self._sort_out(account, home, said, texts)
        return answers + [Unknown(each, "Slurm's answer to the submission was not read.") for each in said.open()]

    async def _tidy_up(self, account: str | None, home: Home, answers: Sequence[Answer]) -> None:
        """Remove what was laid out for attempts that Slurm does not take."""
        refused = [answer.attempt_id for answer in answers if isinstance(answer, Refused)]
        if refused:
            await self._site.script(account, scripts.FORGET, home.root, stdin="\n".join(refused).encode())

    async def _sort_out(
        self, account: str | None, home: Home, said: "_Said", texts: Mapping[str, Mapping[str, str]]
    ) -> list[Answer]:
        """Attempts of batches in which some had been handed over before."""
        answers: list[Answer] = []
        unnamed = [each for each, native in said.known.items() if native is None]
        if unnamed:
            said.known |= await self._look_up(account, unnamed)
        lost = [each for each in unnamed if said.known[each] is None]
        if lost:
            await self._site.script(
                account, scripts.AGAIN, home.root, stdin="".join(f"{each}\n" for each in lost).encode()
            )
        rest: list[Batch] = []
        for batch in said.mixed:
            again = [launch for launch in batch.launches if said.known.get(launch.attempt_id) is None]
            natives = {launch.attempt_id: said.known.get(launch.attempt_id) for launch in batch.launches}
            answers += [Submitted(each, native) for each, native in natives.items() if native is not None]
            if again:
                rest.append(batch.of(again, home.root))
        said.close()
        return answers + (await self._hand_over(account, home, rest, texts) if rest else [])

    async def _look_up(self, account: str | None, attempts: Sequence[str]) -> dict[str, str | None]:
        """What Slurm or the wrapper calls attempts whose native id nobody wrote down; None for those not landed."""
        held = [Held(each, None, account) for each in attempts]
        states = (await self._observer.observe(held)).states
        found = await self._observer.records(account, attempts)
        named: dict[str, str | None] = {}
        for each in attempts:
            native = states[each].native_id if each in states else ""
            named[each] = native or (found[each].record.native_id if each in found else "") or None
        return named

    # -- what cannot run here ------------------------------------------------------------------------------------

    def _cannot(self, launch: Launch, facts: Facts) -> str | None:
        """Why this site can never run the attempt, the field named; None where it can."""
        setup, config, spec = self._site.setup, self._site.config, launch.spec
        if not is_attempt_id(launch.attempt_id, setup.instance):
            return f"attempt: {launch.attempt_id!r} is not an attempt of this platform."
        if launch.account is None and launch.person != setup.owner and not setup.shared:
            return (
                f"person: {launch.person!r} has no account at this site, whose own account is for {setup.owner!r} "
                "only; map the person to an account in the site's file."
            )
        environment = spec.environment
        used = facts.partitions_of([config.options(spec.class_).partition])
        nodes = [node for node in facts.nodes if node.partitions & used.keys()]
        if not nodes:
            return f"partition: the partitions {', '.join(used) or '(none)'} have no nodes."
        kinds = flavors(nodes)
        largest = Resources(*(max(getattr(kind.node, name) for kind in kinds) for name in ("cpu", "memory", "gpu")))
        asked, limit = launch.request, facts.longest(config.options(spec.class_))
        reasons = {
            "environment.image": wants_image(launch)
            and image_program(config, facts) is None and "this site runs no container images",
            "environment.conda": environment is not None and environment.conda is not None
            and config.conda is None and "conda" not in facts.programs and "this site has no conda",
            "volumes": self._wrong_volume(launch),
            "nodes": launch.nodes > (most := max(kind.nodes for kind in kinds))
            and f"{launch.nodes} nodes were asked for and this site has {most} of one kind",
            "cpu": asked.cpu > largest.cpu
            and f"{format_milli(asked.cpu)} CPUs were asked for and the largest node has {format_milli(largest.cpu)}",
            "memory": asked.memory > largest.memory
            and f"{format_bytes(asked.memory)} were asked for and the largest node has {format_bytes(largest.memory)}",
            "gpu": (asked.gpu % 1000 and "Slurm gives whole GPUs only")
            or (asked.gpu > largest.gpu and f"{format_milli(asked.gpu)} GPUs were asked for on each node and the "
            f"largest node has {format_milli(largest.gpu)}"),
            "walltime": launch.walltime is not None and limit is not None and launch.walltime > limit
            and f"{launch.walltime} s were asked for and the partition or its qos allows {limit} s",
        }  # fmt: skip
        return next((f"{field}: {reason}." for field, reason in reasons.items() if reason), None)

    def _wrong_volume(self, launch: Launch) -> str | None:
        known = self._site.config.volumes
        in_image = wants_image(launch)
        for volume in launch.spec.volumes:
            if not known:
                return "this site has no volumes"
            if volume.name not in known:
                return f"this site has no volume {volume.name!r}; it has: {', '.join(sorted(known))}"
            if in_image:
                continue
            if volume.path.rstrip("/") != known[volume.name]:
                return f"without an image the volume {volume.name!r} is found at {known[volume.name]} only"
            if volume.read_only:
                return f"without an image the volume {volume.name!r} cannot be made read-only here"
        return None


async def _pieces(groups: Sequence[Batch], texts: Mapping[str, Mapping[str, str]]) -> AsyncIterator[bytes]:
    """The tar stream, made beside the event loop."""
    stream = tar_stream(groups, texts)
    while (piece := await asyncio.to_thread(next, stream, None)) is not None:
        yield piece


class _Said:
    """What SUBMIT says, line by line, and which attempts it has not told of."""

    def __init__(self, groups: Sequence[Batch]) -> None:
        self._batches = {batch.name: batch for batch in groups}
        self._rest = b""
        self._jobs: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._closed = False
        self.mixed: list[Batch] = []
        self.known: dict[str, str | None] = {}
        """Attempts that were laid out before, with what Slurm calls them; None where that is not written down."""

    async def take(self, piece: bytes) -> None:
        """A piece of the output."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > 1 << 20:
            raise DriverError("The site answers a submission with something that is no answer.")
        for line in lines:
            self._read(line.decode("utf-8", "replace").split(" "))

    def _read(self, words: list[str]) -> None:
        match words:
            case ["job", batch, job] if batch in self._batches and job.isdecimal():
                self._jobs[batch] = job
            case ["failed", batch, _, *said] if batch in self._batches:
                self._failed[batch] = plain(" ".join(said))
            case ["mixed", batch] if batch in self._batches:
                self.mixed.append(self._batches[batch])
            case ["known", attempt, _, index, job, *form]:
                native = f"{job}_{index}" if form != ["single"] else job
                self.known[attempt] = native if job.isdecimal() and index.isdecimal() else None

    def answers(self, observer: Observer) -> list[Answer]:
        """For all that was submitted, or was not taken."""
        answers: list[Answer] = []
        for name, batch in self._batches.items():
            if name in self._jobs:
                observer.learn_batch(name, [launch.attempt_id for launch in batch.launches])
                answers += [
                    Submitted(launch.attempt_id, batch.native(self._jobs[name], index))
                    for index, launch in enumerate(batch.launches)
                ]
            elif name in self._failed:
                answers += [_not_taken(launch.attempt_id, self._failed[name]) for launch in batch.launches]
        return answers

    def open(self) -> list[str]:
        """Attempts of which nothing was said."""
        told = self._jobs.keys() | self._failed.keys() | {batch.name for batch in self.mixed if self._closed}
        return [
            launch.attempt_id for name, batch in self._batches.items() if name not in told for launch in batch.launches
        ]

    def close(self) -> None:
        """The mixed batches have their answers elsewhere."""
        self._closed = True


def _not_taken(attempt_id: str, said: str) -> Answer:
    if may_have_landed(said):
        return Unknown(attempt_id, f"Nobody knows whether Slurm took it: {said}.")
    if unreachable(said):
        return Refused(attempt_id, f"Slurm's controller does not answer: {said}.", permanent=False)
    return Refused(attempt_id, f"Slurm refused it: {said}.", permanent=permanent(said))
