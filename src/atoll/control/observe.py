"""Asks a site how our attempts are, and brings the store up to date with the answer.

`compare` is the decision, pure: from what the store has and what the site says, what is to be written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from atoll.control import describe
from atoll.control.work import SiteWork, held
from atoll.core.clock import to_micros
from atoll.core.ids import is_attempt_id
from atoll.core.site import Health
from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, DriverError, Held, Observation, Phase, StopReason, StopRequest
from atoll.store import attempts, sites
from atoll.store.attempts import AttemptRow, AttemptState, End, Start
from atoll.store.leases import Lease

_LIVE = (AttemptState.PLACED, AttemptState.SUBMITTING, AttemptState.STARTING, AttemptState.RUNNING)
_LITTLE, _LITTLE_PART = 30_000_000, 0.1
"""An expected start is written anew where it has moved by more than these microseconds and this part of the rest."""
_BEFORE_RUNNING = frozenset(_LIVE) - {AttemptState.RUNNING}


@dataclass
class News:
    """What an observation changes."""

    taken: dict[str, str] = field(default_factory=dict)
    """Attempts that the engine turned out to have, with their native ids."""
    started: list[Start] = field(default_factory=list)
    ended: list[End] = field(default_factory=list)
    not_landed: list[str] = field(default_factory=list)
    """Attempts whose hand-over never reached the engine."""
    missing: list[str] = field(default_factory=list)
    """Attempts that the engine has lost sight of, for the first time."""
    back: list[str] = field(default_factory=list)
    """Attempts that were missing and are not."""
    waits: dict[str, str] = field(default_factory=dict)
    """Attempts that wait in the engine's own queue, with its sentence, where that is news."""
    expected: dict[str, int | None] = field(default_factory=dict)
    """When the engine expects to start those (microseconds; None: it does not say), where that is news."""

    def __bool__(self) -> bool:
        told = (self.taken, self.started, self.ended, self.not_landed, self.missing, self.back)
        return any((*told, self.waits, self.expected))


def compare(rows: Sequence[AttemptRow], observation: Observation) -> News:
    """What `observation` says that the store's live attempts `rows` do not.

    Absence counts only in a complete observation that began after the engine had acknowledged the attempt; it takes
    two of them to call an attempt lost.
    """
    news = News()
    as_of = to_micros(observation.as_of)
    for row in rows:
        status = observation.states.get(row.id)
        if status is not None:
            _compare_present(row, status, news, as_of)
        elif observation.complete:
            _compare_absent(row, as_of, news)
    return news


def _compare_present(row: AttemptRow, status: AttemptStatus, news: News, as_of: int) -> None:
    if row.missing_since is not None:
        news.back.append(row.id)
    if status.phase is Phase.ENDED:
        news.ended.append(_believed(row, end_of(status)))
    elif status.phase is Phase.RUNNING and row.state in _BEFORE_RUNNING:
        began = to_micros(status.started_at) if status.started_at is not None else row.placed_at
        news.started.append(Start(row.id, began, status.native_id, status.native_state))
    else:
        if row.state in (AttemptState.PLACED, AttemptState.SUBMITTING):
            news.taken[row.id] = status.native_id
        if status.phase is Phase.STARTING and status.message and status.message != row.message:
            news.waits[row.id] = status.message
        expected = to_micros(status.expected_at) if status.expected_at is not None else None
        if status.phase is Phase.STARTING and _is_another(row.expected_at, expected, as_of):
            news.expected[row.id] = expected


def _is_another(known: int | None, told: int | None, now: int) -> bool:
    """Whether an expected start differs by more than a little: an engine moves those of its queue all the time."""
    if known is None or told is None:
        return known is not told
    return abs(told - known) > max(_LITTLE, _LITTLE_PART * (known - now))


def _compare_absent(row: AttemptRow, as_of: int, news: News) -> None:
    if row.state == AttemptState.SUBMITTING:
        if as_of > row.submit_deadline:
            news.not_landed.append(row.id)
    elif row.state in (AttemptState.STARTING, AttemptState.RUNNING) and as_of > (row.submitted_at or row.started_at):
        if row.missing_since is None:
            news.missing.append(row.id)
        elif as_of > row.missing_since:
            words = "Two complete answers of the site did not name it."
            news.ended.append(End(row.id, Outcome.LOST, message=words, started_at=row.started_at))


def _believed(row: AttemptRow, end: End) -> End:
    """The end, where somebody asked for it: who gives attempts back unasked gets them again after a pause only."""
    if end.outcome is not Outcome.RECALLED or row.stop_reason is not None:
        return end
    return replace(end, outcome=Outcome.NODE_FAILED, message="The site gave it back, and nobody had asked for that.")


def end_of(status: AttemptStatus) -> End:
    """The end that an engine's status tells of."""
    return End(
        attempt_id=status.attempt_id,
        outcome=status.outcome or Outcome.LOST,
        exit_code=status.exit_code,
        signal=status.signal,
        message=status.message,
        native_id=status.native_id,
        native_state=status.native_state,
        started_at=to_micros(status.started_at) if status.started_at is not None else None,
        ended_at=to_micros(status.ended_at) if status.ended_at is not None else None,
        max_memory=status.max_memory,
        cpu_seconds=status.cpu_seconds,
    )


async def step(work: SiteWork, lease: Lease) -> float | None:
    """One question to the site, and what follows from the answer."""
    tools = work.tools
    tools.check(lease)
    expected = await tools.database.read(lambda connection: attempts.held(connection, work.site))
    try:
        observation = await work.driver.observe([held(row) for row in expected])
    except DriverError as error:
        words = str(error)
        await tools.guarded(lease, lambda connection: describe.note(connection, work.site, None, words, tools.now()))
        raise

    named = None if observation.complete else list(observation.states)

    def read(connection: Connection) -> tuple[list[AttemptRow], Health | None]:
        return attempts.at_site(connection, work.site, _LIVE, named=named), sites.get_health(connection, work.site)

    rows, health = await tools.database.read(read)
    if health is Health.UNREACHABLE:
        await tools.guarded(lease, lambda connection: describe.note_answer(connection, work.site, tools.now()))
    news = compare(rows, observation)
    if news:
        await tools.guarded(
            lease, lambda connection: _write(connection, news, to_micros(observation.as_of), tools.now())
        )
    await _reap(work, lease, rows, observation.states)
    return work.observe_every


def _write(connection: Connection, news: News, as_of: int, now: int) -> None:
    if news.taken:
        attempts.submitted(connection, news.taken, now)
    if news.waits:
        attempts.waits(connection, news.waits)
    if news.expected:
        attempts.set_expected(connection, news.expected)
    if news.started:
        attempts.started(connection, news.started, now)
    if news.ended:
        attempts.ended(connection, news.ended, now)
    if news.not_landed:
        attempts.not_landed(connection, news.not_landed, now)
    if news.missing:
        attempts.set_missing(connection, news.missing, as_of)
    if news.back:
        attempts.set_missing(connection, news.back, None)


async def _reap(work: SiteWork, lease: Lease, rows: Sequence[AttemptRow], states: Mapping[str, AttemptStatus]) -> None:
    """Stop and forget what carries this platform's name at the site and is not in its store."""
    ours = {row.id for row in rows}
    strangers = [key for key in states if key not in ours and is_attempt_id(key, work.tools.instance)]
    if not strangers:
        return
    found = await work.tools.database.read(lambda connection: attempts.known(connection, strangers))
    # an attempt that has ended is kept until its output is safe; one that was forgotten is forgotten again
    orphans = [key for key in strangers if key not in found or not found[key].kept]
    running = [key for key in orphans if states[key].phase is not Phase.ENDED]
    work.tools.check(lease)

    def stranger(key: str) -> Held:
        return held(found[key]) if key in found else Held(key, states[key].native_id, states[key].account)

    if running:
        await work.driver.stop([StopRequest(stranger(key), StopReason.ORPHANED, 0.0) for key in running])
    gone = [key for key in orphans if states[key].phase is Phase.ENDED]
    if gone:
        await work.driver.forget([stranger(key) for key in gone])
