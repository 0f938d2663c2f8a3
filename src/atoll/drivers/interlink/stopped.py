"""Remembers, in the platform's folder for the site, which pods we deleted and why: a plugin forgets them at once."""

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Phase


@dataclass(frozen=True)
class Stopped:
    """A pod that was to be deleted, written before the plugin is asked and again after it did."""

    outcome: str
    native_id: str
    at: float
    """Seconds since 1970 UTC."""
    deleted: bool = False

    def status(self, attempt_id: str) -> AttemptStatus:
        """The end that it stands for."""
        return AttemptStatus(
            attempt_id,
            Phase.ENDED,
            native_id=self.native_id,
            native_state="deleted",
            ended_at=datetime.fromtimestamp(self.at, UTC),
            outcome=Outcome(self.outcome),
        )


class StoppedPods:
    """One small file for each deleted pod, and one with the output that it had; the caller checks attempt ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "stopped"
        self._known: dict[str, Stopped] | None = None

    def all(self) -> dict[str, Stopped]:
        """Every deleted pod that is not forgotten yet, by attempt."""
        if self._known is None:
            self._known = {}
            for path in self._folder.glob("*.json") if self._folder.is_dir() else ():
                try:
                    self._known[path.stem] = Stopped(**json.loads(path.read_bytes()))
                    Outcome(self._known[path.stem].outcome)
                except (OSError, ValueError, TypeError):
                    self._known.pop(path.stem, None)  # cut short by a crash: as if it had not been written
        return self._known

    def put(self, attempt_id: str, stopped: Stopped) -> None:
        """Write it down for good."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._folder / f"{attempt_id}.new"
        with fresh.open("w") as file:
            json.dump(asdict(stopped), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._folder / f"{attempt_id}.json")
        self.all()[attempt_id] = stopped

    def put_output(self, attempt_id: str, output: bytes) -> None:
        """Keep the output that the pod had."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / f"{attempt_id}.log").write_bytes(output)

    def output(self, attempt_id: str) -> bytes:
        """The output that the pod had; empty where it had none."""
        try:
            return (self._folder / f"{attempt_id}.log").read_bytes()
        except FileNotFoundError:
            return b""

    def remove(self, attempt_ids: Collection[str]) -> None:
        """Forget pods."""
        for attempt_id in attempt_ids:
            if self.all().pop(attempt_id, None) is not None:
                for suffix in ("json", "log"):
                    (self._folder / f"{attempt_id}.{suffix}").unlink(missing_ok=True)
