"""An open database of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atoll.store.database import Database
from tests.support.rows import opened


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with opened(database_url) as database:
        yield database
