"""Amounts of quotas as tables show them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.client.models import Amount


def bare(resource: str, value: int) -> str:
    """An amount in base units without its resource's name: `4`, `8 GiB`, `-2`."""
    from atoll.core.resources import format_bytes, format_milli

    text = format_bytes(abs(value)) if resource == "memory" else format_milli(abs(value))
    return f"-{text}" if value < 0 else text


def shown(resource: str, value: int) -> str:
    """An amount with its resource's name: `4 CPU`, `8 GiB`."""
    return bare(resource, value) if resource == "memory" else f"{bare(resource, value)} {resource.upper()}"


def of(amount: "Amount") -> str:
    """All resources of an amount."""
    parts = [shown("cpu", amount.cpu), shown("memory", amount.memory)]
    return ", ".join([*parts, shown("gpu", amount.gpu)] if amount.gpu else parts)
