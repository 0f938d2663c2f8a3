"""What is found out once for all who ask."""

from __future__ import annotations

import asyncio

import pytest

from atoll.faces.web.recent import Recent


async def test_those_who_ask_at_once_share_a_reading_and_later_ones_get_a_new_one() -> None:
    read: list[int] = []

    async def count() -> int:
        read.append(len(read))
        await asyncio.sleep(0.01)
        return read[-1]

    recent = Recent(count, 0.05)
    assert set(await asyncio.gather(recent.get(), recent.get(), recent.get())) == {0}
    assert await recent.get() == 0
    await asyncio.sleep(0.06)
    assert await recent.get() == 1


async def test_a_failure_is_told_to_those_who_waited_and_not_kept() -> None:
    broken = [True]

    async def answer() -> int:
        if broken.pop():
            broken.append(False)
            raise ValueError("no")
        return 7

    recent = Recent(answer, 60)
    with pytest.raises(ValueError, match="no"):
        await recent.get()
    assert await recent.get() == 7
