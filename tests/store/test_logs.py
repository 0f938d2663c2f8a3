"""The log store's folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from atoll.store.logs import STREAMS, LogStore, StoredLog


def test_both_streams_of_an_attempt_may_be_written_at_once(tmp_path: Path) -> None:
    store = LogStore(tmp_path / "logs")

    def write(stream: str) -> None:
        for _ in range(200):
            store.write("abcde-1", stream, stream.encode(), b"")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, STREAMS))
    for stream in STREAMS:
        assert store.read(StoredLog("abcde-1", stream, 6, 6, 0), 0, 10) == (0, stream.encode())
