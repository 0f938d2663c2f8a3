"""Whatever happens in whatever order: no job is lost or runs twice, no room is given twice, no state is forbidden."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, func, select

from atoll.core.states import ENDED, JobState
from atoll.drivers.fake.behaviour import HONEST, glancing, refusing, unanswering, vanished
from atoll.store import attempts, jobs
from atoll.store.attempts import AttemptState
from atoll.store.database import Database
from atoll.store.tables import attempts as attempt_table
from tests.control.harness import SlowMotion

_JOBS = st.fixed_dictionaries(
    {
        "cpu": st.sampled_from(["100m", 1, 2, 4]),
        "env": st.fixed_dictionaries(
            {"FAKE_RUNTIME": st.sampled_from(["0", "1", "7"]), "FAKE_EXIT": st.sampled_from(["0", "0", "3"])}
        ),
    },
    optional={
        "retries": st.integers(0, 2),
        "rerun": st.booleans(),
        "array": st.sampled_from(["0-4%2", "1,3,9", "0-9:3"]),
        "priority": st.integers(-2, 2),
    },
)
_HABITS = st.sampled_from(
    [HONEST, HONEST, vanished(), glancing(), unanswering(), unanswering(3), unanswering(None),
     refusing("No.", for_good=False)]
)  # fmt: skip
_LOOPS = st.sampled_from(["describe", "submit", "observe", "stop", "finish", "forget"])


class Platform(RuleBasedStateMachine):
    """A played site and a real store, prodded in any order."""

    queues = False
    """Whether the site has a queue of its own, so that it is given more than it has room for."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.database = Database.open(f"sqlite:///{self.folder / 'atoll.db'}")
        self.motion = SlowMotion(self.database, self.folder, queues=self.queues)
        self.ids: list[int] = []

    @initialize()
    def begin(self) -> None:
        self.runner.run(self.motion.begin())
        self.runner.run(self.motion.step("describe"))

    @rule(documents=st.lists(_JOBS, min_size=1, max_size=4))
    def submit(self, documents: list[dict[str, Any]]) -> None:
        self.ids += self.runner.run(self.motion.insert(*documents))

    @rule()
    def dispatch(self) -> None:
        self.runner.run(self.motion.dispatch())

    @rule(loop=_LOOPS)
    def work(self, loop: str) -> None:
        self.runner.run(self.motion.step(loop))

    @rule()
    def everything(self) -> None:
        self.runner.run(self.motion.round())

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.motion.clock.advance(seconds)

    @rule(habit=_HABITS)
    def behave(self, habit: Any) -> None:
        self.motion.engine.behave(habit)

    @rule()
    def crash(self) -> None:
        self.runner.run(self.motion.crash())

    @rule(pick=st.randoms(use_true_random=False), reason=st.sampled_from(["cancelled", "evicted"]))
    def stop(self, pick: Any, reason: str) -> None:
        rows = self._rows()
        if rows:
            chosen = pick.choice(rows).id
            now = self.motion.tools.now()
            self.runner.run(self.database.write(lambda c: attempts.ask_to_stop(c, [chosen], reason, {chosen: 1}, now)))

    @rule(pick=st.randoms(use_true_random=False))
    def pull_back(self, pick: Any) -> None:
        rows = [row for row in self._rows() if row.attempt_id is not None]
        if rows:
            chosen, now = pick.choice(rows).attempt_id, self.motion.tools.now()
            self.runner.run(self.database.write(lambda c: attempts.pull_back(c, [chosen], now)))

    @rule(pick=st.randoms(use_true_random=False))
    def lose(self, pick: Any) -> None:
        known = sorted(self.motion.engine.statuses(self.motion.tools.instance))
        if known:
            self.motion.engine.lose(pick.choice(known))

    def _rows(self) -> list[Any]:
        return self.database.read_now(lambda connection: jobs.load_unended(connection, 0, 1000))

    @invariant()
    def nothing_starts_twice(self) -> None:
        assert not [key for key, times in self.motion.engine.starts.items() if times > 1]

    @invariant()
    def no_room_is_given_twice(self) -> None:
        def taken(connection: Connection) -> int:
            live = attempt_table.c.state != AttemptState.ENDED
            return connection.execute(select(func.sum(attempt_table.c.cpu)).where(live)).scalar() or 0

        assert self.motion.engine.free.cpu >= 0
        assert self.queues or self.database.read_now(taken) <= 4000

    @invariant()
    def every_job_is_there_and_its_tasks_add_up(self) -> None:
        found = self.database.read_now(lambda connection: jobs.get_many(connection, self.ids))
        assert len(found) == len(self.ids)
        for row in found.values():
            if row.task_count > 1:
                ended = row.succeeded_count + row.failed_count + row.cancelled_count
                assert row.waiting_count + row.active_count + ended == row.task_count

    def teardown(self) -> None:
        try:
            if self.ids:
                self.motion.engine.behave()
                self.runner.run(self.motion.settle(rounds=400, seconds=20.0))
                found = self.database.read_now(lambda connection: jobs.get_many(connection, self.ids))
                left = {row.id: (row.state, row.sentence) for row in found.values() if JobState(row.state) not in ENDED}
                assert not left
                self.nothing_starts_twice()
        finally:
            self.database.close()
            self.runner.close()
            shutil.rmtree(self.folder)


class QueueingPlatform(Platform):
    """The same with a site out of whose queue attempts are pulled back."""

    queues = True


_SETTINGS = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
TestAnyOrder = Platform.TestCase
TestAnyOrder.settings = _SETTINGS
TestAnyOrderWithAQueue = QueueingPlatform.TestCase
TestAnyOrderWithAQueue.settings = _SETTINGS
