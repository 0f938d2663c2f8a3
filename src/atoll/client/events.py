"""Server-sent events, taken apart without I/O, and what a waiter makes of them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from atoll.core.states import ENDED

MAX_EVENT = 16 * 1024 * 1024
"""Bytes of the largest event that is taken in."""


@dataclass(frozen=True)
class Event:
    """One event. Besides the platform's own there are `heartbeat` (a comment) and `connecting` (the client's)."""

    name: str
    data: str = ""
    id: str | None = None

    def json(self) -> dict[str, Any]:
        """The data as an object; empty where it is none."""
        try:
            document = json.loads(self.data)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


class EventParser:
    """Turns the bytes of an event stream, however they are cut, into events."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that are complete now. Raises ValueError where the stream is none of events."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT:
            raise ValueError("an event is larger than is taken in")
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            event = Event(self._name or "message", "\n".join(self._data), self._id)
            complete = bool(self._data or self._name)
            self._name, self._data, self._id = "", [], None
            return event if complete else None
        if line.startswith(":"):
            return Event("heartbeat")
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        return None


class Waiter:
    """Decides when it is worth asking how a job does, from the events about it.

    Events are hints; the answer to the question is the truth. An array with n open tasks is not asked about again
    before n of its tasks are told to have ended, so that a million tasks cost a few questions.
    """

    def __init__(self, task: int | None = None) -> None:
        self._task = task
        self._needed = 1

    def due(self, event: Event) -> bool:
        """Whether to ask now."""
        if event.name in ("connecting", "opened", "heartbeat"):
            return True
        if event.name != "job":
            return False
        told = event.json()
        if told.get("state") not in ENDED:
            return False
        if self._task is not None:
            return told.get("task") in (None, self._task)
        if told.get("task") is None:
            return True
        self._needed -= 1
        return self._needed <= 0

    def asked(self, open_tasks: int) -> None:
        """The platform said that so many tasks are still to end."""
        self._needed = max(1, open_tasks)
