"""Who has to leave so that a claim has room on single nodes: one node is freed, and not pieces of several.

Of nodes where as many opportunistic attempts would have to leave, a claim goes to the one where it would rather go if
there were none of them: what large jobs find should not hang on what is idle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.evict import Evictions
from atoll.scheduler.freeing import Leaving, first_enough
from atoll.scheduler.model import OPPORTUNISTIC
from atoll.scheduler.noderoom import NodeHold, NodeRoom, Plan
from atoll.scheduler.nodes import WHOLE, Column, Nodes, devices_of
from atoll.scheduler.packing import Packer
from atoll.scheduler.victims import IDLE, Claim, Evictable, Victim

Harm = tuple[int, int, int, int]
"""The gravest kind of the victims (-1: there are none), their number, where only those leave who are opportunistic how
little the claim suits the nodes (see `Packer.losses`), the work that is lost: the smaller is better."""
Spares = Callable[[Claim, Sequence[Victim]], bool]
"""Whether what is kept for others stays theirs if a claim starts after victims."""
Rows = NDArray[np.intp]
_TRIED = 6
"""On how many nodes, the most promising, the victims are chosen exactly."""
_MOST_LOST = 2**40
"""More work than that counts as much, so that sums stay within 64 bits."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What a victim holds of one of the nodes, by its place among them."""

    place: int
    cpu: int
    memory: int
    gpus: Column


class NodeSpace:
    """What is free on some nodes, each of which has to have room for a request; see `evict.Space`."""

    def __init__(
        self, request: Resources, cpu: Column, memory: Column, gpus: Column, pieces: dict[int, list[_Piece]]
    ) -> None:
        """A row for each node, of `gpus` a column for each device; `pieces` are what victims hold, by their row."""
        self.request = request
        self.cpu, self.memory, self.gpus = cpu, memory, gpus
        self.pieces = pieces

    @classmethod
    def of(cls, plan: Plan, chosen: Sequence[int], request: Resources, victims: Sequence[Victim]) -> "NodeSpace":
        """Of these nodes as they are in a plan."""
        nodes, places = plan.nodes, {node: place for place, node in enumerate(chosen)}
        pieces: dict[int, list[_Piece]] = {}
        rows = {victim.row for victim in victims}
        for claim in plan.claims_on(chosen):
            if int(claim["row"]) in rows and (place := places.get(int(claim["node"]))) is not None:
                gpus = claim["gpus"][: nodes.gpu.shape[1]].astype(np.int64)
                piece = _Piece(place, int(claim["cpu"]), int(claim["memory"]), gpus)
                pieces.setdefault(int(claim["row"]), []).append(piece)
        at = np.array(chosen, np.intp)
        return cls(request, nodes.cpu[at], nodes.memory[at], nodes.gpu[at], pieces)

    def change(self, victim: Victim, sign: int) -> None:
        """Count one as gone, or with sign -1 as there again."""
        for piece in self.pieces.get(victim.row, ()):
            self.cpu[piece.place] += sign * piece.cpu
            self.memory[piece.place] += sign * piece.memory
            self.gpus[piece.place] += sign * piece.gpus

    def enough(self) -> bool:
        """Whether there is room on all of the nodes."""
        return not (self._lacks_cpu() | self._lacks_memory() | self._lacks_gpu()).any()

    def useful(self, victim: Victim) -> list[str]:
        """The resources that one of the nodes lacks and that a victim has there."""
        pieces = self.pieces.get(victim.row)
        if not pieces:
            return []
        cpu, memory, gpu = self._lacks_cpu(), self._lacks_memory(), self._lacks_gpu()
        helps = {
            "cpu": any(cpu[piece.place] and piece.cpu for piece in pieces),
            "memory": any(memory[piece.place] and piece.memory for piece in pieces),
            "gpu": any(gpu[piece.place] and piece.gpus.any() for piece in pieces),
        }
        return [name for name, does in helps.items() if does]

    def _lacks_cpu(self) -> NDArray[np.bool_]:
        return np.asarray(self.cpu < self.request.cpu)

    def _lacks_memory(self) -> NDArray[np.bool_]:
        return np.asarray(self.memory < self.request.memory)

    def _lacks_gpu(self) -> NDArray[np.bool_]:
        whole, share = devices_of(self.request)
        if whole:
            return np.asarray((self.gpus == WHOLE).sum(axis=1) < whole)
        return np.asarray(self.gpus.max(axis=1, initial=0) < share)


class NodeVictims:
    """Chooses victims on nodes in one cycle."""

    def __init__(self, evictions: Evictions, room: NodeRoom) -> None:
        self._evictions = evictions
        self._room = room
        self._most: dict[int, Nodes] = {}
        self._without_idle: Packer | None = None

    def best(self, claims: Sequence[Claim], end: int, spares: Spares) -> tuple[Harm, Claim] | None:
        """The claim of several, of one job that stays until `end`, that does least harm, and that; None for none."""
        tries = []
        for order, claim in enumerate(claims):
            for seems, nodes in self._tries(claim, Plan(self._room, claim.pool, end, with_surplus=True)):
                tries.append((seems, order, nodes))
        found: list[tuple[Harm, int]] = []
        for seems, order, nodes in sorted(tries, key=lambda each: each[:2])[:_TRIED]:
            if found and found[0][0][:3] <= (seems[0], 1, seems[2]):
                break  # no node can do less harm than one attempt of the mildest kind
            plan = Plan(self._room, claims[order].pool, end, with_surplus=True)
            if (victims := self._on(nodes, claims[order], plan, spares)) is not None:
                found.append((harm(victims, self._loss(claims[order], nodes)), order))
        if not found:
            return None
        least, order = min(found)
        return least, claims[order]

    def find(self, claim: Claim, plan: Plan, spares: Spares) -> list[Victim] | None:
        """The victims for which a claim could start on its number of nodes as they are in `plan`; None for none.

        The nodes are those where the harm is least, see `Harm`. A claim on several nodes takes the best of them.
        """
        found: list[tuple[Harm, list[Victim]]] = []
        for seems, nodes in self._tries(claim, plan):
            if found and found[0][0][:3] <= (seems[0], 1, seems[2]):
                break
            if (victims := self._on(nodes, claim, plan, spares)) is not None:
                found.append((harm(victims, self._loss(claim, nodes)), victims))
        return min(found, key=lambda each: each[0])[1] if found else None

    def idle_for(self, claim: Claim, held: NodeHold, idle: Rows) -> list[Victim] | None:
        """Those of some opportunistic attempts without whom a job has its nodes when its hold begins."""
        evictions, nodes = self._evictions, held.nodes.tolist()
        everyone = evictions.evictable(claim)
        evictable = evictions.still_there(claim, everyone.only(np.isin(everyone.rows, idle)))
        plan = self._room.plan_at(claim.pool, held, idle)
        near = evictions.victims(claim, evictable)
        return evictions.idle_near(claim, NodeSpace.of(plan, nodes, claim.demand.request, near), near)

    def idle_on(self, number: int, held: NodeHold) -> Rows:
        """The opportunistic attempts on held nodes of a pool that were not asked to leave."""
        claims, holding = self._room.claims(number), self._evictions.snapshot.holding
        rows = np.unique(claims["row"][np.isin(claims["node"], held.nodes)]).astype(np.intp)
        found: Rows = rows[(holding["rank"][rows] == OPPORTUNISTIC) & ~holding["leaving"][rows]]
        return found

    def _tries(self, claim: Claim, plan: Plan) -> list[tuple[Harm, list[int]]]:
        """The sets of nodes that are looked at exactly, each with the harm as it seems, the least first."""
        everyone = self._evictions.evictable(claim)
        if not self._could_be_enough(claim, everyone):
            return []
        evictable, count = self._evictions.still_there(claim, everyone), claim.demand.nodes
        ranked = _promising(claim, plan, evictable, self._losses(claim))
        if count == 1:
            return [(seems, [node]) for seems, node in ranked[:_TRIED]]
        if len(ranked) < count:
            return []
        harms, nodes = zip(*ranked[:count], strict=True)
        number, loss, lost = (sum(each[column] for each in harms) for column in (1, 2, 3))
        return [((harms[-1][0], number, loss, lost), list(nodes))]

    def _losses(self, claim: Claim) -> Column:
        """By node, how little a claim would suit it if nothing opportunistic were there; all alike where nothing is."""
        if self._without_idle is None:
            holding = self._evictions.snapshot.holding
            stays = ~holding["leaving"] & (holding["leaves_for"] < 0) & (holding["nodes"] > 0)
            idle = np.flatnonzero(stays & (holding["rank"] == OPPORTUNISTIC))
            if not len(idle):
                return np.zeros(len(self._room.nodes), np.int64)
            self._without_idle = self._room.packer_without(idle)
        return self._without_idle.losses(claim.demand.request)

    def _loss(self, claim: Claim, nodes: Sequence[int]) -> int:
        """The same of some nodes together."""
        return sum(self._losses(claim)[list(nodes)].tolist())

    def _could_be_enough(self, claim: Claim, evictable: Evictable) -> bool:
        """Whether enough nodes would have room if all went, of whom none had to leave yet.

        That only becomes less, but for what others leave beyond what they leave for.
        """
        known = self._most.get(id(evictable))  # the cycle's choice of evictions keeps it
        if known is None:
            plan = Plan(self._room, claim.pool, 0)
            plan.leave(evictable.rows)
            known = self._most[id(evictable)] = plan.nodes
        stretch = self._room.owned.stretches[claim.pool]
        most = int(known.holds(claim.demand.request, stretch).sum()) + self._room.with_surplus(stretch)
        return most >= claim.demand.nodes

    def _on(self, nodes: Sequence[int], claim: Claim, plan: Plan, spares: Spares) -> list[Victim] | None:
        """The victims on these nodes that are enough for a claim."""
        evictions = self._evictions
        evictable = evictions.still_there(claim, evictions.evictable(claim))
        near = evictions.victims(claim, evictable.only(np.isin(evictable.rows, plan.claims_on(nodes)["row"])))
        space = NodeSpace.of(plan, nodes, claim.demand.request, near)
        victims = evictions.free_near(claim, space, near)
        if victims is None or not plan.may_wait(nodes, lateness(victims)) or not spares(claim, victims):
            return None
        return victims


def harm(victims: Sequence[Victim], loss: int = 0) -> Harm:
    """What it means if these leave for a claim; `loss` is how little it suits their nodes."""
    kind = max((victim.kind for victim in victims), default=-1)
    return kind, len(victims), loss if kind <= IDLE else 0, sum(victim.lost for victim in victims)


def lateness(victims: Sequence[Victim]) -> int:
    """After how many microseconds all of them are gone."""
    return max((victim.late for victim in victims), default=0)


def _promising(claim: Claim, plan: Plan, evictable: Evictable, losses: Column) -> list[tuple[Harm, int]]:
    """The nodes that have room if attempts leave one after the other, with the harm by then; the least first.

    Some of them may leave in vain, so that the harm may prove less. `losses` are as in `NodeVictims`.
    """
    nodes, request, most = plan.nodes, claim.demand.request, _TRIED + claim.demand.nodes
    free = np.flatnonzero(nodes.holds(request, plan.stretch)) + plan.stretch.start
    free = free[plan.may_use(free)]
    free = free[np.argsort(losses[free], kind="stable")]
    found: list[tuple[Harm, int]] = [((-1, 0, int(losses[node]), 0), node) for node in free[:most].tolist()]
    if not len(evictable):
        return found
    claims = plan.claims_of(evictable.rows)
    by = np.lexsort((evictable.lost, evictable.kinds, evictable.begun))
    places = np.zeros(int(evictable.rows.max()) + 1, np.int64)
    places[evictable.rows[by]] = np.arange(len(by))
    leaving = Leaving.of(claims, places[claims["row"]], nodes.gpu.shape[1])
    last = first_enough(nodes, request, leaving)
    last = last[plan.may_use(leaving.node[last])]
    kinds, lost = evictable.kinds[by][leaving.order], np.minimum(evictable.lost[by][leaving.order], _MOST_LOST)
    numbers, losts = leaving.along(np.ones(len(leaving), np.int64)), leaving.along(lost)
    # within a node the kinds rise, but for those that have not begun, who go first
    suits = np.where(kinds[last] <= IDLE, losses[leaving.node[last]], 0)
    by = np.lexsort((leaving.node[last], losts[last], suits, numbers[last], kinds[last]))
    by = by[~np.isin(leaving.node[last[by]], free)][:most]
    last, suits = last[by], suits[by]
    columns = (kinds[last], numbers[last], suits, losts[last], leaving.node[last])
    for kind, number, loss, lost, node in zip(*(column.tolist() for column in columns), strict=True):
        found.append(((kind, number, loss, lost), node))
    return found
