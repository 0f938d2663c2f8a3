"""What a policy is, and what most of them do alike."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.nodes import Mask, Nodes, Spot

Score = NDArray[np.float64]


class Policy(Protocol):
    """Chooses among nodes. What it chose is taken at once, and nothing is given back."""

    def best(self, request: Resources, pools: Mask) -> Spot | None:
        """Where the request goes, in pools of a mask over their numbers; None where it fits nowhere."""
        ...


class Scoring:
    """A policy that gives every node with room a score, and takes the highest. A share gets the fullest device."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def best(self, request: Resources, pools: Mask) -> Spot | None:
        """See `Policy`."""
        able = np.flatnonzero(self.nodes.fits(request, pools))
        if not len(able):
            return None
        node = int(able[self.score(request, able).argmax()])
        return self.nodes.spot(node, request)

    def score(self, request: Resources, able: NDArray[np.intp]) -> Score:
        """The score of each of these nodes, which all have room."""
        raise NotImplementedError
