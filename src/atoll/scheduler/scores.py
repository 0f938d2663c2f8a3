"""Which of the places that could run a job are better: what speaks against each is added up, as time.

The job's own order of flavors comes first; then what speaks least against a place, in seconds that one would rather
wait than have it. Used by `demands`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from atoll.scheduler.fit import Pool
from atoll.scheduler.model import Demand, SiteState, Weights


def wish(demand: Demand, pool: Pool) -> int:
    """How well a demand likes a pool's flavor, by its own order of flavors; 0 is best."""
    return demand.flavors.index(pool.flavor.name) if demand.ordered and demand.flavors else 0


class Scores:
    """What speaks against pools, by their number, as their sites are now."""

    def __init__(self, pools: Sequence[Pool], states: Mapping[str, SiteState], weights: Weights) -> None:
        self._pools, self._weights = pools, weights
        sites = [states[pool.site].site for pool in pools]
        self._of_site = [
            weights.remote * pool.remote + weights.energy * (site.energy or 0)
            for pool, site in zip(pools, sites, strict=True)
        ]
        self._waits = [site.wait for site in sites]
        self._prices = [site.price for site in sites]
        self._has_gpus = [pool.flavor.node.gpu > 0 for pool in pools]

    def place(self, demand: Demand, number: int) -> float:
        """What speaks against a pool's site."""
        usual = self._waits[number].of(demand.placement.class_)
        found, kept_at = self._of_site[number] + self._weights.wait * usual, demand.placement.kept_at
        if kept_at and kept_at != self._pools[number].site:
            found += self._weights.data
        if (price := self._prices[number]) is not None:
            total = demand.total
            found += self._weights.price * (total.cpu * price.cpu + total.gpu * price.gpu) / 1000
        return found

    def preference(self, demand: Demand, possible: Iterable[bool]) -> tuple[int, ...]:
        """Numbers of the possible pools, the preferred first: by the job's own order, what speaks least, and names."""
        return tuple(sorted((number for number, can in enumerate(possible) if can), key=partial(self.order, demand)))

    def order(self, demand: Demand, number: int) -> tuple[int, float, str, int]:
        """By what a demand prefers pools, the least first: its own wish, what speaks against the pool, and names."""
        pool, is_waste = self._pools[number], self._has_gpus[number] and not demand.request.gpu
        against = self.place(demand, number) + (self._weights.waste if is_waste else 0)
        return wish(demand, pool), against, pool.site, pool.rank
