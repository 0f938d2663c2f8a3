"""Links in an archive of a working directory lead only to what is in it."""

import io
import tarfile
from pathlib import Path

import pytest

from atoll.drivers.podman.taking import _from_archive


def archive(*members: tuple[str, str, str]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            if kind == "file":
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content.encode()))
                continue
            member.type = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "folder": tarfile.DIRTYPE,
                           "pipe": tarfile.FIFOTYPE}[kind]  # fmt: skip
            member.linkname = content
            tar.addfile(member)
    packed.seek(0)
    return packed


@pytest.mark.parametrize(
    ("target", "content"),
    [("real", "mine"), ("d/../real", "mine"), ("./d/real", "deep"), ("/etc/passwd", None), ("../launch", None),
     ("d/../../launch", None), ("loop", None), ("d", None), ("gone", None), ("dirlink/real", "deep"), ("pipe", None)],
)  # fmt: skip
def test_link_is_followed_within_the_archive_only(tmp_path: Path, target: str, content: str | None) -> None:
    packed = archive(
        ("./", "folder", ""), ("./real", "file", "mine"), ("./d/", "folder", ""), ("./d/real", "file", "deep"),
        ("./loop", "link", "loop"), ("./dirlink", "link", "d"), ("./pipe", "pipe", ""), ("./it", "link", target),
    )  # fmt: skip
    taken = _from_archive(packed, ["it"], tmp_path)
    assert taken == (["it"] if content is not None else [])
    if content is not None:
        assert (tmp_path / "it").read_text() == content


def test_names_that_lead_out_of_the_target_are_not_written(tmp_path: Path) -> None:
    packed = archive(
        ("../evil", "file", "x"), ("/abs", "file", "y"), ("a/../../evil2", "file", "z"), ("ok", "file", "1")
    )
    into = tmp_path / "into"
    _from_archive(packed, ["**", "../*", "*"], into)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {"abs", "ok"}
    assert all(into in path.parents for path in tmp_path.rglob("*") if path.is_file())


def test_hard_link_is_the_file_that_it_is(tmp_path: Path) -> None:
    assert _from_archive(archive(("a", "file", "same"), ("b", "hard", "a")), ["b"], tmp_path) == ["b"]
    assert (tmp_path / "b").read_text() == "same"
