"""Who has to leave so that a claim has room on single nodes: one node is freed, and not pieces of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.evict import Claim, Evictions, Victim
from atoll.scheduler.freeing import Leaving, first_enough
from atoll.scheduler.nodes import WHOLE, Column, Nodes, devices_of
from atoll.scheduler.noderoom import Plan

_TRIED = 8
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


@dataclass(frozen=True)
class NodeSpace:
    """What is free on some nodes, each of which has to have room for a request; see `evict.Space`."""

    request: Resources
    cpu: Column
    memory: Column
    gpus: Column
    """A row for each node, a column for each device."""
    pieces: dict[int, list[_Piece]]
    """What victims hold there, by their row."""

    @classmethod
    def of(cls, plan: Plan, chosen: Sequence[int], request: Resources, victims: Sequence[Victim]) -> "NodeSpace":
        """Of these nodes as they are in a plan."""
        nodes, places = plan.nodes, {node: place for place, node in enumerate(chosen)}
        pieces: dict[int, list[_Piece]] = {}
        for claim in plan.claims_of([victim.row for victim in victims]):
            if (place := places.get(int(claim["node"]))) is not None:
                gpus = claim["gpus"][: nodes.gpu.shape[1]].astype(np.int64)
                piece = _Piece(place, int(claim["cpu"]), int(claim["memory"]), gpus)
                pieces.setdefault(int(claim["row"]), []).append(piece)
        at = np.array(chosen, np.intp)
        return cls(request, nodes.cpu[at], nodes.memory[at], nodes.gpu[at], pieces)

    def after(self, victim: Victim) -> "NodeSpace":
        """The same when one more has left."""
        cpu, memory, gpus = self.cpu.copy(), self.memory.copy(), self.gpus.copy()
        for piece in self.pieces.get(victim.row, ()):
            cpu[piece.place] += piece.cpu
            memory[piece.place] += piece.memory
            gpus[piece.place] += piece.gpus
        return NodeSpace(self.request, cpu, memory, gpus, self.pieces)

    def enough(self) -> bool:
        """Whether there is room on all of the nodes."""
        return not (self._lacks_cpu() | self._lacks_memory() | self._lacks_gpu()).any()

    def helps(self, victim: Victim) -> bool:
        """Whether a victim has what one of the nodes lacks."""
        pieces = self.pieces.get(victim.row)
        if not pieces:
            return False
        cpu, memory, gpu = self._lacks_cpu(), self._lacks_memory(), self._lacks_gpu()
        return any(
            (cpu[piece.place] and piece.cpu)
            or (memory[piece.place] and piece.memory)
            or (gpu[piece.place] and piece.gpus.any())
            for piece in pieces
        )

    def _lacks_cpu(self) -> NDArray[np.bool_]:
        return np.asarray(self.cpu < self.request.cpu)

    def _lacks_memory(self) -> NDArray[np.bool_]:
        return np.asarray(self.memory < self.request.memory)

    def _lacks_gpu(self) -> NDArray[np.bool_]:
        whole, share = devices_of(self.request)
        if whole:
            return np.asarray((self.gpus == WHOLE).sum(axis=1) < whole)
        return np.asarray(self.gpus.max(axis=1, initial=0) < share)


def victims_on_nodes(evictions: Evictions, claim: Claim, plan: Plan) -> list[Victim] | None:
    """The victims for which a claim could start on its number of nodes as they are in `plan`; None for none.

    The nodes are those where the harm is least: first by the kind of the victims, then by their number, then by the
    work that is lost. A claim on several nodes takes the best of them.
    """
    candidates = evictions.candidates(claim)
    if not candidates:
        return None
    ranked = _promising(claim, plan, candidates)
    count = claim.demand.nodes
    if len(ranked) < count:
        return None
    groups = [ranked[:count]] if count > 1 else [[node] for node in ranked[:_TRIED]]
    found = []
    for nodes in groups:
        space = NodeSpace.of(plan, nodes, claim.demand.request, candidates)
        # those of the nodes first; of others only the quota helps
        near = sorted(candidates, key=lambda victim: (victim.begun, victim.kind, victim.row not in space.pieces))
        victims = evictions.choose(claim, space, near)
        if victims is not None:
            found.append((_harm(victims), victims))
    return min(found, key=lambda each: each[0])[1] if found else None


def _harm(victims: Sequence[Victim]) -> tuple[int, int, int]:
    kinds = [victim.kind for victim in victims]
    return max(kinds, default=0), len(victims), sum(victim.lost for victim in victims)


def _promising(claim: Claim, plan: Plan, candidates: Sequence[Victim]) -> list[int]:
    """The nodes that have room if candidates leave one after the other, those with the least harm by then first."""
    nodes: Nodes = plan.nodes
    claims = plan.claims_of([victim.row for victim in candidates])
    places = {victim.row: place for place, victim in enumerate(candidates)}
    order = np.array([places[row] for row in claims["row"].tolist()], np.int64)
    leaving = Leaving.of(claims, order, nodes.gpu.shape[1])
    last = first_enough(nodes, claim.demand.request, leaving)
    kinds = np.array([victim.kind for victim in candidates], np.int64)[leaving.order]
    lost = np.minimum(np.array([victim.lost for victim in candidates], np.int64)[leaving.order], _MOST_LOST)
    number = leaving.along(np.ones(len(leaving), np.int64))
    # within a node the kinds rise, but for those that have not begun, who go first
    harm = np.lexsort((leaving.node[last], leaving.along(lost)[last], number[last], kinds[last]))
    found = leaving.node[last][harm]
    free = np.flatnonzero(nodes.holds(claim.demand.request, slice(None)))
    stretch = plan.stretch
    free = free[(free >= stretch.start) & (free < stretch.stop)]
    ranked = np.concatenate([free, found[~np.isin(found, free)]])
    if plan.among is not None:
        ranked = ranked[plan.among[ranked]]
    chosen: list[int] = ranked[nodes.cpu[ranked] >= 0].tolist()
    return chosen
