"""How good the estimates of starts are, beside the mean wait of the last jobs. `python -m bench estimates`.

The workload is that of `bench.opportunism`. Each job with a claim that still waits after the cycle that saw it first is
forecast then, and its start is compared. Nothing is known at first: the ranges, and how long jobs take, are learnt on
the way.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from atoll.cli.plots import Dots, Lines, picture
from atoll.scheduler.calibration import Calibration
from atoll.scheduler.forecast import UNKNOWN, forecast
from atoll.scheduler.model import OPPORTUNISTIC
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.simulate.cluster import Cluster
from atoll.scheduler.simulate.engine import Simulation
from atoll.scheduler.simulate.policies import POLICIES
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.traces.model import SECOND, TraceJob
from bench import queue
from bench.figures import Broken, Row, Target, table
from bench.opportunism import WARM_UP, Case

_NOTE = (
    "150 nodes of openb, 60 % of their GPUs asked for by jobs with a claim, beside an endless opportunistic backlog; a "
    "value for each seed. Of all jobs with a claim that waited after their first cycle, but those of the first quarter."
)
_BASELINE = 50
"""So many of the last waits make the baseline."""


@dataclass(frozen=True)
class Estimate:
    """What was said of a job when it came, and what came; times are microseconds."""

    job_id: int
    at: int
    start: int
    earliest: int
    latest: int
    baseline: float
    """The wait, in seconds, that the baseline says."""
    came: int = UNKNOWN
    """When it started."""
    sooner: float | None = None
    """The part of those predicted alike that came sooner, as far as was known then."""

    @property
    def wait(self) -> float:
        """Seconds from the estimate to the start."""
        return (self.came - self.at) / SECOND

    @property
    def predicted(self) -> float:
        """Seconds from the estimate to the start that it says."""
        return (self.start - self.at) / SECOND

    @property
    def holds(self) -> bool:
        """Whether the start was in the range."""
        return self.earliest <= self.came <= self.latest

    @property
    def width(self) -> float:
        """Of the range, in seconds."""
        return (self.latest - self.earliest) / SECOND


class Watched(Simulation):
    """A simulation in which starts are estimated, and ranges are learnt."""

    def __init__(self, jobs: Sequence[TraceJob], cluster: Cluster) -> None:
        super().__init__(jobs, cluster, POLICIES["atoll"], runtimes=Runtimes())
        self.calibration = Calibration()
        self.estimates: list[Estimate] = []
        self.costs: list[float] = []
        """Seconds of CPU time of each forecast."""
        self._open: dict[int, Estimate] = {}
        self._raw: dict[int, tuple[int, int]] = {}  # the kind, and what was predicted before anything was learnt
        self._last: deque[float] = deque(maxlen=_BASELINE)

    def decided(self, now: int) -> None:
        """Compare what has started, and estimate what waits and is new."""
        for job_id in [job_id for job_id in self._open if self.runs[job_id].begun is not None]:
            begun = self.runs[job_id].begun
            assert begun is not None
            told, (kind, predicted) = self._open.pop(job_id), self._raw.pop(job_id)
            sooner = self.calibration.sooner(kind, predicted, begun - told.at)
            self.calibration.started(job_id, begun)
            self._last.append((begun - told.at) / SECOND)
            self.estimates.append(replace(told, came=begun, sooner=sooner))
        self.calibration.overdue(now)
        rows, queue = self.snapshot.rows, self.snapshot.queue()
        claims = rows["job"][queue[rows["rank"][queue] != OPPORTUNISTIC]].tolist()
        new = [job_id for job_id in claims if job_id not in self._open and self.runs[job_id].begun is None]
        if new:
            self._estimate(new, now)

    def waiting(self) -> list[Estimate]:
        """Those of what has not started."""
        return list(self._open.values())

    def _estimate(self, new: list[int], now: int) -> None:
        begun = time.process_time()
        made = forecast(self.snapshot, now, self.calibration, runtimes=self.runtimes)
        self.costs.append(time.process_time() - begun)
        self.calibration.follow(made)
        baseline = statistics.fmean(self._last) if self._last else 0.0
        for job_id in new:
            told = made.of(job_id)
            assert told is not None
            start, earliest, latest = (
                UNKNOWN if each is None else each for each in (told.start, told.earliest, told.latest)
            )
            place = int(np.flatnonzero(made.jobs == job_id)[0])
            self._raw[job_id] = int(made.kinds[place]), int(made.waits[place])
            self._open[job_id] = Estimate(job_id, now, start, earliest, latest, baseline)


@dataclass(frozen=True)
class Judged:
    """What came of the estimates of one seed, after the warm-up."""

    estimates: Sequence[Estimate]
    """Of what has started, or is overdue."""
    costs: Sequence[float]

    @property
    def inside(self) -> float:
        """In percent."""
        return 100 * statistics.fmean(each.holds for each in self.estimates)

    @property
    def said(self) -> Sequence[Estimate]:
        """Those of which a start was said, and which started."""
        return [each for each in self.estimates if each.start != UNKNOWN and each.came != UNKNOWN]


def judge(seed: int, nodes: int, hours: float) -> Judged:
    """Run the workload of a seed."""
    case = Case.of(seed, nodes, hours)
    simulation = Watched(case.jobs, case.cluster)
    simulation.run(case.end)
    overdue = [each for each in simulation.waiting() if each.latest < case.end]
    measured = [each for each in [*simulation.estimates, *overdue] if each.at >= WARM_UP * case.end]
    if not measured:
        raise Broken("no job waited that could have been estimated")
    return Judged(measured, simulation.costs)


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """How many starts come inside their range, how wide that is, and how far off estimates are."""
    del folder
    nodes, hours, seeds = (40, 1, (1,)) if small else (150, 8, (1, 2, 3))
    found = [judge(seed, nodes, hours) for seed in seeds]
    yield from _quality(found)
    yield Row("a forecast, beside the backlog", "ms", [1000 * cost for each in found for cost in each.costs])
    jobs, nodes = (300, 40) if small else (100_000, 10_000)
    snapshot = queue.long_queue(nodes, jobs)
    yield Row(f"a forecast, {jobs:,} wait", "s", _costs(snapshot), Target("under", 1), note="CPU time; 10,000 nodes.")


def _quality(found: Sequence[Judged]) -> Iterator[Row]:
    count = ", ".join(str(len(each.estimates)) for each in found)
    note = f"{_NOTE} Jobs: {count}."
    yield Row("starts inside the range", "%", [each.inside for each in found], Target("at least", 80), note=note)
    waits = [statistics.median(one.wait for one in each.said) for each in found]
    widths = [statistics.median(one.width for one in each.said) for each in found]
    yield Row(
        "median width of a range", "s", widths, Target("at most", 1, ratio=True), peer="of the waits",
        peer_values=waits, note=note,
    )  # fmt: skip
    errors = [statistics.median(abs(one.wait - one.predicted) for one in each.said) for each in found]
    baseline = [statistics.median(abs(one.wait - one.baseline) for one in each.said) for each in found]
    yield Row(
        "median error of an estimate", "s", errors, Target("under", 1, ratio=True),
        peer=f"mean of the last {_BASELINE}", peer_values=baseline, note=note,
    )  # fmt: skip
    unsaid = [100 * statistics.fmean(one.start == UNKNOWN for one in each.estimates) for each in found]
    yield Row("jobs of which nobody could say it", "%", unsaid)


def _costs(snapshot: Snapshot) -> list[float]:
    costs = []
    for _ in range(3):
        begun = time.process_time()
        forecast(snapshot, queue.NOW + SECOND, Calibration(), runtimes=Runtimes())
        costs.append(time.process_time() - begun)
    return costs


def draw(found: Sequence[Judged]) -> str:
    """How predicted shares and waits compare with those that came."""
    said = [one for each in found for one in each.said]
    shares = sorted(one.sooner for one in said if one.sooner is not None)
    observed = [(share, (number + 1) / len(shares)) for number, share in enumerate(shares)]
    curves = {"observed": [(0.0, 0.0), *observed, (1.0, 1.0)], "as predicted": [(0.0, 0.0), (1.0, 1.0)]}
    dots = {"jobs": [(max(1.0, one.predicted), max(1.0, one.wait)) for one in said]}
    return picture(
        [
            Lines("Part of the jobs that started within the predicted share, by that share", curves, _percent, _percent,
                  top=1.0),
            Dots("Waits as they came, by waits as they were predicted", dots),
        ]
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def main() -> None:
    """Draw the picture that the documentation shows."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimates", description="How good estimates are.")
    parser.add_argument("file", type=Path, help="where the picture goes, as docs/estimates.svg")
    parser.add_argument("--hours", type=float, default=8)
    parser.add_argument("--nodes", type=int, default=150)
    given = parser.parse_args()
    found = [judge(seed, given.nodes, given.hours) for seed in (1, 2, 3)]
    given.file.write_text(draw(found))
    print(table(list(_quality(found))))


if __name__ == "__main__":
    main()
