"""An archive that a job made is unpacked without leaving the folder, whatever is in it."""

import io
import tarfile
from pathlib import Path

import pytest

from atoll.drivers.htcondor.fetched import unpack


def archive(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """An archive of (name, kind, content or target)."""
    with tarfile.open(path, "w") as opened:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = content
                opened.addfile(member)
            else:
                member.size = len(content)
                opened.addfile(member, io.BytesIO(content.encode()))
    return path


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    file = archive(
        tmp_path / "a.tar",
        ("../outside", tarfile.REGTYPE, "x"),
        ("/absolute-atoll-test", tarfile.REGTYPE, "x"),
        ("way", tarfile.SYMTYPE, str(tmp_path / "elsewhere")),
        ("way/through", tarfile.REGTYPE, "x"),
        ("a/../../up", tarfile.REGTYPE, "x"),
        ("hard", tarfile.LNKTYPE, "../../etc/passwd"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("./fine/file", tarfile.REGTYPE, "content"),
        ("same", tarfile.LNKTYPE, "./fine/file"),
        ("near", tarfile.SYMTYPE, "fine/file"),
    )
    (tmp_path / "elsewhere").mkdir()
    into = tmp_path / "into"
    into.mkdir()
    unpack(file, into)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "elsewhere", "into"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (into / "way/through").read_text() == "x"  # a folder took the place of the link
    assert (into / "fine/file").read_text() == (into / "near").read_text() == (into / "same").read_text() == "content"
    assert not (into / "hard").exists()
    assert not (into / "pipe").exists()


def test_broken_archive_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(ValueError, match="did not come back whole"):
        unpack(tmp_path / "a.tar", tmp_path)
