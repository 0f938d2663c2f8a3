"""Either side of a property: what a call gives, or the error that it raises."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def tried(call: Callable[[], T], error: type[E]) -> T | E:
    """The value of `call()`, or the error of the kind `error` that it raised; any other goes on."""
    try:
        return call()
    except error as raised:
        return raised
