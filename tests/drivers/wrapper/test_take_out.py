"""Files are taken out only where they can be kept and shown, and looking at them does nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.drivers.wrapper.take_out import take_out
from atoll.drivers.wrapper.trees import remove_tree


def taken(root: Path, into: Path) -> list[str]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return take_out(descriptor, ["**"], into, None)
    finally:
        os.close(descriptor)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    (path / "good").write_text("x")
    return path


@pytest.mark.parametrize(
    "name", [b"latin-\xe9", b"line\nbreak", b"escape\x1b[2J", "c1-\x85".encode(), "line-\u2028".encode()]
)
def test_file_whose_name_cannot_be_kept_or_shown_is_left(work: Path, tmp_path: Path, name: bytes) -> None:
    (work / os.fsdecode(name)).write_text("x")
    (work / "d" / os.fsdecode(name)).mkdir(parents=True)
    (work / "d" / os.fsdecode(name) / "file").write_text("x")
    assert taken(work, tmp_path / "out") == ["good"]


def test_path_of_more_than_1024_bytes_is_left(work: Path, tmp_path: Path) -> None:
    """Bytes, not letters: the same path may be short to a person."""
    folder = work / "/".join(["\u00e9" * 100] * 5)
    folder.mkdir(parents=True)
    (folder / ("a" * 19)).write_text("x")
    (folder / ("a" * 20)).write_text("x")
    names = taken(work, tmp_path / "out")
    assert [len(name.encode()) for name in names] == [4, 1024]


def test_names_in_other_scripts_are_taken(work: Path, tmp_path: Path) -> None:
    (work / "\u6d4b\u8bd5 \u00fc").write_text("x")
    assert taken(work, tmp_path / "out") == ["good", "\u6d4b\u8bd5 \u00fc"]


def test_what_is_no_plain_file_is_not_opened(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a device or a pipe for reading can already do something."""
    os.mkfifo(work / "pipe")
    opened: list[int] = []
    really: Callable[..., int] = os.open

    def watched(path: str, flags: int, *words: int, **names: int) -> int:
        if path == "pipe":
            opened.append(flags)
        return really(path, flags, *words, **names)

    monkeypatch.setattr(os, "open", watched)
    assert taken(work, tmp_path / "out") == ["good"]
    assert opened
    assert all(flags & os.O_PATH for flags in opened)


def test_folders_a_thousand_deep_are_removed_and_not_walked(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert take_out(descriptor, ["**"], tmp_path / "into", None) == []
    finally:
        os.close(descriptor)
    remove_tree(str(root))
    assert not root.exists()
