"""One forecast is kept, and one that is newer takes its place."""

from __future__ import annotations

from atoll.store import forecasts
from atoll.store.database import Database
from atoll.store.forecasts import Kept


async def test_a_newer_forecast_takes_the_place_of_the_one_before(database: Database) -> None:
    assert await database.read(forecasts.made_at) is None
    assert await database.read(forecasts.read) is None
    await database.write(lambda connection: forecasts.write(connection, Kept(1, b"\x00one")))
    newer = Kept(2, b"two", '{"a": 1}')
    await database.write(lambda connection: forecasts.write(connection, newer))
    assert await database.read(forecasts.made_at) == 2
    assert await database.read(forecasts.read) == newer
    await database.write(lambda connection: forecasts.write(connection, Kept(3, b"three")))
    assert await database.read(forecasts.read) == Kept(3, b"three", newer.learnt)
