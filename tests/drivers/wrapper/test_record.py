"""What the wrapper wrote is read exactly, and what is not whole or not plain counts as not written."""

import os
from pathlib import Path

import pytest

from atoll.drivers.wrapper import Record, parse_end, parse_start, read_record

TIMES = b"0m0.010000s 0m0.020000s\n1m2.500000s 0m0.470000s\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TIMES + b"exit 0\n", (0, None, 63.0)),
        (TIMES + b"exit 255\n", (255, None, 63.0)),
        (TIMES + b"signal 9\n", (137, 9, 63.0)),
        (b"0m0,010s 0m0,020s\n0m0,1s 0m0,2s\nexit 3\n", (3, None, 0.33)),
        (b"exit 3\n", (3, None, None)),
        (b"", None),
        (TIMES, None),
        (TIMES + b"exit 0", None),
        (TIMES + b"exit \n", None),
        (TIMES + b"exit 0\nmore\n", None),
        (TIMES + b"exit 256\n", None),
        (TIMES + b"signal 200\n", None),
        (TIMES + b"exit 0\0\n", None),
    ],
)
def test_end_counts_only_when_its_last_line_is_whole(text: bytes, expected: tuple | None) -> None:
    found = parse_end(text)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found[:2] == expected[:2]
        assert found[2] == (None if expected[2] is None else pytest.approx(expected[2]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"123 abc-9.cluster\n", (123, "abc-9.cluster")),
        (b"123 abc", None),
        (b"abc 123\n", None),
        (b"123\n", None),
        (b"123 a b\n", None),
        (b"", None),
    ],
)
def test_start_counts_only_when_it_is_whole(text: bytes, expected: tuple | None) -> None:
    assert parse_start(text) == expected


def test_record_grows_with_what_is_written(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert read_record(folder) == Record()
    (tmp_path / "claim").mkdir()
    assert read_record(folder) == Record(claimed=True)
    (tmp_path / "start").write_text("77 native-1\n")
    os.utime(tmp_path / "start", (100.5, 100.5))
    assert read_record(folder) == Record(claimed=True, started_at=100.5, pid=77, native_id="native-1")
    (tmp_path / "end").write_bytes(TIMES + b"exit 4\n")
    os.utime(tmp_path / "end", (200, 200))
    record = read_record(folder)
    assert (record.ended_at, record.exit_code, record.signal, record.cpu_seconds) == (200, 4, None, 63.0)
    assert record.ended


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_read(tmp_path: Path, kind: str) -> None:
    """A hostile job may put anything in its folder; the reader neither follows, nor blocks, nor fails."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"exit 0\n")
    folder = tmp_path / "attempt"
    folder.mkdir()
    end = folder / "end"
    if kind == "link":
        end.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(end)
    else:
        end.mkdir()
    assert not read_record(str(folder)).ended
