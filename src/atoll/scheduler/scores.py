"""Which of the places that could run a job are better: each is scored in seconds that one would rather wait.

The job's own order of flavors comes first; then what a place costs, the least first. Used by `demands`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from atoll.core.site import Site
from atoll.scheduler.fit import Pool
from atoll.scheduler.model import Demand, SiteState, Weights


class Score(NamedTuple):
    """What is to be said against a place, in seconds."""

    place: float
    """Of the site."""
    waste: float
    """Of the nodes; where Atoll chooses these, packing looks to it."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.place + self.waste


def wish(demand: Demand, pool: Pool) -> int:
    """How well a demand likes a pool's flavor, by its own order of flavors; 0 is best."""
    return demand.flavors.index(pool.flavor.name) if demand.ordered and demand.flavors else 0


def score(demand: Demand, pool: Pool, site: Site, weights: Weights) -> Score:
    """What is to be said against a pool for a demand."""
    kept_at = demand.placement.kept_at
    place = (
        weights.wait * site.wait
        + weights.remote * pool.remote
        + weights.data * bool(kept_at and kept_at != site.name)
        + weights.price * _cost(demand, site)
        + weights.energy * (site.energy or 0)
    )
    return Score(place, weights.waste * (demand.request.gpu == 0 and pool.flavor.node.gpu > 0))


def _cost(demand: Demand, site: Site) -> float:
    """What the demand costs at a site, in money per hour."""
    if site.price is None:
        return 0
    total = demand.total
    return (total.cpu * site.price.cpu + total.gpu * site.price.gpu) / 1000


def preference(
    demand: Demand, pools: Sequence[Pool], possible: Iterable[bool], states: Mapping[str, SiteState], weights: Weights
) -> tuple[int, ...]:
    """Numbers of the possible pools, the preferred first: by the job's own order of flavors, score, and names."""

    def key(number: int) -> tuple[int, float, str, int]:
        pool = pools[number]
        against = score(demand, pool, states[pool.site].site, weights)
        return wish(demand, pool), against.total, pool.site, pool.rank

    return tuple(sorted((number for number, can in enumerate(possible) if can), key=key))
