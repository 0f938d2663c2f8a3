"""What attempts hold of the nodes that Atoll chose, as a column has it: JSON, for each rank a node and its GPUs."""

import json
from collections.abc import Sequence

from atoll.core.site import NodeSpot


def write_spots(spots: Sequence[NodeSpot]) -> str | None:
    """`[[node, [[device, milli-GPU], ...]], ...]` by rank; None where an engine chooses."""
    return json.dumps([[spot.node, spot.gpus] for spot in spots], separators=(",", ":")) if spots else None


def read_spots(text: str | None) -> tuple[NodeSpot, ...]:
    """The inverse."""
    return tuple(
        NodeSpot(node, tuple((device, milli) for device, milli in gpus)) for node, gpus in json.loads(text or "[]")
    )
