"""The demonstration's platform and its people: starts `atoll up`, sets everything up, submits until it is stopped."""

import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from atoll.cli.demo import department
from atoll.cli.demo.department import HOUR
from atoll.cli.demo.work import Day, Order
from atoll.client.place import CLIENT_FILE
from atoll.client.synchronous import Client
from atoll.core.config import CONFIG_FILE
from atoll.core.errors import AtollError, Conflict, Unavailable
from atoll.core.site_file import read_site
from atoll.faces.terminal.output import say

_MARK = "# Written by `atoll demo`, whose folder this is; written anew at each start.\n"
_START_SECONDS, _END_SECONDS = 60, 30
_TICK = 1.0
_COUNT_EVERY = 5.0
"""Seconds; where the queue is long this is work for the platform."""
_MORNING = 9.0
"""The hour at which the day begins."""
_BEFORE = 3.0
"""Hours of work that are there from the beginning."""
_CANCELLED, _RELEASED = 0.7, 0.5
"""How often an hour somebody cancels a job, and lets one go on that was held."""


class Stage:
    """A platform of its own, as a context; `play` goes on until Ctrl-C or SIGTERM.

    Raises Conflict where the folder is another platform's.
    """

    def __init__(self, data: Path, speed: float, flags: Sequence[str]) -> None:
        self._data, self._speed, self._flags = data, speed, flags
        self._platform: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, Client] = {}
        self._recent: deque[tuple[str, int]] = deque(maxlen=300)
        self._held: deque[tuple[str, int]] = deque()

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        self._take_folder()
        # a session of its own: Ctrl-C comes to this process, which then ends the platform
        self._platform = subprocess.Popen(
            [sys.executable, "-m", "atoll", "up", "--data", str(self._data), *self._flags], start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            client.close()
        if self._platform is None or self._platform.poll() is not None:
            return
        self._platform.send_signal(signal.SIGINT)
        try:
            self._platform.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._platform.kill()
            self._platform.wait()

    def _take_folder(self) -> None:
        """Write the configuration. Raises Conflict where the folder is not the demonstration's."""
        file = self._data / CONFIG_FILE
        ours = file.is_file() and file.read_text(encoding="utf-8").startswith(_MARK)
        if self._data.exists() and not ours and any(self._data.iterdir()):
            raise Conflict(
                "not_a_demo",
                f"{self._data} is not a demonstration's folder; choose an empty one with --data.", field="data",
            )  # fmt: skip
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(_MARK + department.configuration(self._speed), encoding="utf-8")
        # of another run: the platform writes it once it listens
        (self._data / CLIENT_FILE).unlink(missing_ok=True)

    # ---- the play

    def play(self, seed: int, jobs: int) -> None:
        """Set the scene, fill the queue with `jobs`, and submit until told to stop. Raises AtollError."""
        try:
            client = self._connect()
            owner = client.me().person
            # the same day again, but other jobs where it goes on in a folder that was used before
            day = Day(seed, self._speed, [(owner, project) for project in department.OWN_PROJECTS])
            self._set_up(client, day, owner)
            self._announce(client, day)
            self._fill(day, jobs)
            self._submit(day.draw(_MORNING, _BEFORE, 0))
            self._go_on(client, day)
        except KeyboardInterrupt:
            say("The demonstration stops.")

    def _connect(self) -> Client:
        """A client of the platform, once it is ready. Raises Unavailable where it does not become so."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self._check_alive()
            if (self._data / CLIENT_FILE).exists():
                client = Client(data=self._data, patience=_START_SECONDS)
                self._clients[client.me().person] = client
                return client
            if time.monotonic() > deadline:
                raise Unavailable("not_started", f"The platform did not start within {_START_SECONDS} seconds.")
            time.sleep(0.05)

    def _check_alive(self) -> None:
        assert self._platform is not None
        if self._platform.poll() is not None:
            raise Unavailable("platform_ended", "The demonstration's platform has ended; see above for why.")

    def _set_up(self, client: Client, day: Day, owner: str) -> None:
        for site in department.sites(self._speed):
            client.put_site(read_site(site))
        client.put_projects(department.tree(owner))
        for person in day.people:
            if person not in self._clients:
                token = client.create_token("demo", expires_in=30 * 24 * HOUR, person=person)
                self._clients[person] = Client(client.platform.url, token.token)

    def _announce(self, client: Client, day: Day) -> None:
        say(f"A department's busy day, {self._speed:g} times as fast as life: an hour takes {HOUR / self._speed:g} s.")
        say(f"  five sites that are only played, nine projects, {len(day.people)} people, you among them")
        say(f"  look at it: {client.platform.url}")
        say(f"  or ask it:  export ATOLL_DATA={self._data}; atoll ps; atoll queue; atoll site ls")
        say("  Ctrl-C stops it")
        sys.stdout.flush()

    def _fill(self, day: Day, jobs: int) -> None:
        began = time.monotonic()
        for order in day.fill(jobs):
            self._submit([order])
        if jobs:
            say(f"  {jobs} jobs submitted in {time.monotonic() - began:.0f} s")
            sys.stdout.flush()

    def _go_on(self, client: Client, day: Day) -> None:
        began = now = counted = time.monotonic()
        waiting = client.queue().waiting
        while True:
            time.sleep(_TICK)
            self._check_alive()
            before, now = now, time.monotonic()
            hours = (now - before) * self._speed / HOUR
            hour = (_MORNING + (now - began) * self._speed / HOUR) % 24
            try:
                if now - counted > _COUNT_EVERY:
                    waiting, counted = client.queue().waiting, now
                self._submit(day.draw(hour, hours, waiting))
                self._change_minds(day, hours)
                if now == counted and not client.reservations():
                    self._reserve(client)
            except AtollError as error:
                # such as a site that was taken out, or a queue that was changed by hand: the day goes on
                say(f"  not done: {error.sentence}")

    def _submit(self, orders: Sequence[Order]) -> None:
        for order in orders:
            ids = self._clients[order.person].submit_many(order.specs, hold=order.hold)
            (self._held if order.hold else self._recent).extend((order.person, number) for number in ids[-50:])

    def _change_minds(self, day: Day, hours: float) -> None:
        if self._recent and day.happens(_CANCELLED, hours):
            person, number = day.choose(self._recent)
            self._clients[person].cancel(number)
        if self._held and day.happens(_RELEASED, hours):
            person, number = self._held.popleft()
            self._clients[person].release(number)

    def _reserve(self, client: Client) -> None:
        """Keep room for a course, and for a repair."""
        hour = timedelta(seconds=HOUR / self._speed)
        begin = datetime.now(UTC) + 2 * hour
        kept: list[dict[str, Any]] = [
            {"name": "summer-school", "flavor": "gpu-l40s", "nodes": 1, "project": "teaching", "ends_at": 3 * hour},
            {"name": "new-cables", "purpose": "maintenance", "flavor": "cpu", "site": "hopper", "nodes": 4,
             "ends_at": 2 * hour},
        ]  # fmt: skip
        for fields in kept:
            client.add_reservation(**fields | {
                "starts_at": begin.isoformat(), "ends_at": (begin + fields["ends_at"]).isoformat()
            })  # fmt: skip


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt
