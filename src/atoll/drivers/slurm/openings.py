"""When a full cluster has room again, in Slurm's own words: `sbatch --test-only` plans a job and takes none.

The plan is Slurm's for a job that comes now, behind all that waits there: by the walltimes of what runs and waits.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from atoll.core.clock import from_micros, system_clock
from atoll.core.resources import Resources
from atoll.core.site import Flavor, Opening
from atoll.core.spec import JobClass
from atoll.drivers.base import DriverError
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.config import SlurmConfig
from atoll.drivers.slurm.facts import Facts, Node
from atoll.drivers.slurm.options import Limits, asking_for
from atoll.drivers.slurm.said import plain
from atoll.drivers.slurm.site import SlurmSite

_EVERY = 60.0
"""Seconds between two rounds of questions."""
_AFTER_TROUBLE = 600.0
"""The same after a round that was not answered in time."""
_WITHIN = 5.0
"""Seconds that a round may take: whoever describes the site waits for it."""
_MOST = 8
"""Questions of a round."""
_SLOW = "Slurm does not answer in time"
_NEVER = timedelta(days=300)
"""Slurm plans with a year for what has no walltime: what it says of a time so far ahead means nothing."""
_CLASSES = (JobClass.BATCH, JobClass.INTERACTIVE, JobClass.SERVICE, JobClass.OPPORTUNISTIC)
_PLAN = re.compile(
    r"sbatch: Job \d+ to start at (\d{9,11}) using \d+ processors on nodes \S+ in partition \S+", re.ASCII
)
_TIMED_OUT = "124"
_LINE = re.compile(r"(\d{1,3}) (.*)")


@dataclass(frozen=True)
class Question:
    """When there will be `room` on one node of a flavor; `options` are those of a job that asks for it."""

    flavor: str
    room: Resources
    options: tuple[str, ...]


class Openings:
    """Asks in rounds, and remembers the last one."""

    def __init__(self, site: SlurmSite) -> None:
        self._site = site
        self._again_at = 0.0
        """When the next round is due, by the monotonic clock."""
        self._openings: dict[Question, Opening] = {}
        self._unsaid: tuple[str, ...] = ()

    async def told(self, flavors: Sequence[Flavor], nodes: Sequence[Node]) -> tuple[tuple[Flavor, ...], Sequence[str]]:
        """The flavors with their openings, and sentences about what Slurm does not say. Raises DriverError."""
        asked = questions(await self._site.facts(), await self._site.limits(), self._site.config, nodes)
        if not asked:
            return tuple(flavors), ()
        if time.monotonic() >= self._again_at:
            await self._ask(asked)
        by_flavor: dict[str, list[Opening]] = {}
        for question, opening in self._openings.items():
            if question in asked:
                by_flavor.setdefault(question.flavor, []).append(opening)
        return tuple(replace(each, openings=tuple(by_flavor.get(each.name, ()))) for each in flavors), self._unsaid

    async def _ask(self, asked: Sequence[Question]) -> None:
        """A round of questions; what goes wrong becomes a sentence, for the site is well without."""
        now, pause = system_clock(), _EVERY
        lines = "".join(" ".join(question.options) + "\n" for question in asked)
        try:
            async with asyncio.timeout(_WITHIN):
                ran = await self._site.script(None, scripts.OPENINGS, stdin=lines.encode(), seconds=_WITHIN)
            times, unsaid = read_plans(ran.out.decode("utf-8", "replace"), asked)
            self._unsaid = tuple(_unknown(f"{', '.join(names)}: {words}") for words, names in unsaid.items())
            pause = _AFTER_TROUBLE if _SLOW in unsaid else _EVERY
        except (DriverError, OSError) as error:
            times, pause = {}, _AFTER_TROUBLE
            self._unsaid = (_unknown(_SLOW if isinstance(error, TimeoutError) else str(error).rstrip(".")),)
        self._openings = {
            question: Opening(question.room, at, now) for question, at in times.items() if now < at < now + _NEVER
        }
        self._again_at = time.monotonic() + pause


def _unknown(words: str) -> str:
    return f"When there will be room is not known: {words}."


def questions(facts: Facts, limits: Limits, config: SlurmConfig, nodes: Iterable[Node]) -> list[Question]:
    """What to ask of a cluster: of each flavor a small room and a whole node, where no node has so much free.

    The node is of the size that most have; the small room is one GPU, else one CPU, with its share of the node. The
    options are those of a batch job without a walltime; where batch jobs do not get to the flavor's nodes, of the next
    class that does. Small rooms come first, for there are at most eight questions. Raises DriverError.
    """
    small: list[Question] = []
    whole: list[Question] = []
    by_flavor: dict[str, list[Node]] = {}
    for node in nodes:
        if node.available:
            by_flavor.setdefault(node.flavor, []).append(node)
    for flavor, available in sorted(by_flavor.items()):
        for job_class in _CLASSES:
            own = config.options(job_class)
            reached = {each.name for each in facts.partitions_of([own.partition]).values() if each.up}
            here = [node for node in available if node.partitions & reached]
            if here:
                break
        else:
            continue
        size = Counter(node.total for node in here).most_common(1)[0][0]
        for room, found in {_share(size): small, size: whole}.items():
            if not any(room.fits(node.free) for node in here):
                found.append(Question(flavor, room, asking_for(room, flavor, own, limits)))
    return [*small, *whole][:_MOST]


def _share(node: Resources) -> Resources:
    """One GPU of a node, else one CPU, with its share of the rest."""
    parts = max(1, node.gpu // 1000 or node.cpu // 1000)
    return Resources(max(1000, node.cpu // parts // 1000 * 1000), node.memory // parts, min(1000, node.gpu))


def read_plans(text: str, asked: Sequence[Question]) -> tuple[dict[Question, datetime], dict[str, list[str]]]:
    """What OPENINGS said: when each job would start; and the flavors of which it does not say it, by its words."""
    times: dict[Question, datetime] = {}
    unsaid: dict[str, list[str]] = {}
    lines = text.split("\n")[:-1]
    for place, question in enumerate(asked):
        match = _LINE.fullmatch(lines[place]) if place < len(lines) else None
        plans = [plan for word in match[2].split("\t") if (plan := _PLAN.fullmatch(word))] if match else []
        if match is not None and match[1] == "0" and len(plans) == 1:
            times[question] = from_micros(int(plans[0][1]) * 1_000_000)
            continue
        words = _SLOW if match is None or match[1] == _TIMED_OUT else plain(match[2])
        names = unsaid.setdefault(words, [])
        if question.flavor not in names:
            names.append(question.flavor)
    return times, unsaid
