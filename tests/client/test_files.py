"""Files that go up by their content, and outputs that must stay where they are told to go."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from atoll.client.files import Incoming, local_files, safe_target, take_sources, unique
from atoll.core.errors import Invalid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "a.py").write_text("a")
    (tmp_path / "src" / "deep" / "b.py").write_text("b")
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    return tmp_path


def test_a_folder_stands_for_all_files_below_it(folder: Path) -> None:
    assert [file.path for file in local_files("src", folder)] == ["src/a.py", "src/deep/b.py"]
    assert [file.path for file in local_files("src", folder, "code/")] == ["code/a.py", "code/deep/b.py"]


def test_a_file_keeps_its_name_its_hash_and_whether_it_can_be_run(folder: Path) -> None:
    (file,) = local_files("./run", folder)
    assert file.entry() == {
        "path": "run", "sha256": hashlib.sha256(b"#!/bin/sh\n").hexdigest(), "executable": True,
    }  # fmt: skip


def test_a_name_that_leaves_the_folder_becomes_its_last_part(folder: Path) -> None:
    assert local_files("../run", folder / "src")[0].path == "run"
    assert local_files(str(folder / "run"), folder / "src")[0].path == "run"


@pytest.mark.parametrize("given", ["nothing", "empty", "pipe"])
def test_what_is_no_file_is_named(folder: Path, given: str) -> None:
    import os

    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(Invalid, match=given) as told:
        local_files(given, folder, field="--in")
    assert told.value.field == "--in"


def test_sources_become_hashes_and_are_never_sent_as_names(folder: Path) -> None:
    kept = {"path": "known", "sha256": "0" * 64}
    document = {"command": "x", "files_in": [{"source": "run", "path": "bin/run"}, kept, {"source": "src"}]}
    ready, files = take_sources(document, folder)
    assert [entry["path"] for entry in ready["files_in"]] == ["bin/run", "known", "src/a.py", "src/deep/b.py"]
    assert not any("source" in entry for entry in ready["files_in"])
    assert [file.source.name for file in files] == ["run", "a.py", "b.py"]
    assert document["files_in"] != ready["files_in"]


@pytest.mark.parametrize("entry", [{"source": 5}, {"source": "run", "sha256": "0" * 64}, {"source": "run", "path": []}])
def test_a_source_that_makes_no_sense_is_named(folder: Path, entry: dict[str, object]) -> None:
    with pytest.raises(Invalid, match=r"files_in\.0"):
        take_sources({"files_in": [entry]}, folder)


def test_the_same_content_is_sent_once(folder: Path) -> None:
    (folder / "copy").write_text("a")
    files = [*local_files("src/a.py", folder), *local_files("copy", folder)]
    assert len(unique(files)) == 1


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b"])
def test_an_output_never_leaves_its_folder_by_name(tmp_path: Path, path: str) -> None:
    with pytest.raises(Invalid, match="outside"):
        safe_target(tmp_path, path)


def test_an_output_never_leaves_its_folder_by_a_link(tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (into / "away").symlink_to(tmp_path)
    (into / "file").symlink_to(tmp_path / "target")
    for path in ("away/x", "file"):
        with pytest.raises(Invalid, match="link"):
            safe_target(into, path)


def test_an_output_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    right = Incoming(tmp_path / "a" / "b", hashlib.sha256(b"whole").hexdigest())
    right.write(b"who")
    assert not (tmp_path / "a" / "b").exists()
    right.write(b"le")
    assert right.finish()
    assert (tmp_path / "a" / "b").read_bytes() == b"whole"
    wrong = Incoming(tmp_path / "c", "0" * 64)
    wrong.write(b"x")
    assert not wrong.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
