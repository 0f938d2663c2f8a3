"""What attempts wrote is read for many at once, and none can speak for another."""

from atoll.drivers.slurm.records import read_records

ONE, TWO = "abcde-0123456789abcdef", "abcde-0123456789abcdeg"
END = b"0m0.1s 0m0.2s\n0m1.0s 0m0.5s\nexit 3\n"


def said(listing: str, contents: bytes) -> bytes:
    return listing.encode() + b"\n" + contents


def lines(attempt: str, name: str, content: bytes) -> bytes:
    return b"".join(f"{attempt}/{name}:".encode() + line + b"\n" for line in content.splitlines())


def test_everything_that_was_written_is_read() -> None:
    files = {
        "start": b"77 12_3\n", "end": END, "stop": b"cancelled 1700000000\n", "usage": b"1 123456\n",
        "about": f"{ONE} 4 90 USR1 10 30 key 1\n".encode(),
    }  # fmt: skip
    listing = f"d 10.5 0 {ONE}\nd 11.5 0 {ONE}/claim\n" + "".join(
        f"f 2{number}.25 {len(content)} {ONE}/{name}\n" for number, (name, content) in enumerate(files.items())
    )
    found = read_records(said(listing, b"".join(lines(ONE, name, content) for name, content in files.items())))[ONE]
    assert found.record.claimed
    assert (found.record.native_id, found.record.started_at) == ("12_3", 20.25)
    assert (found.record.exit_code, found.record.ended_at, found.record.cpu_seconds) == (3, 21.25, 1.8)
    assert (found.stop, found.oom_kills, found.peak) == ("cancelled", 1, 123456)
    assert (found.batch, found.index, found.walltime) == (ONE, 4, 90)


def test_a_claim_that_is_a_link_was_made_by_a_recall() -> None:
    listing = f"d 1.0 0 {ONE}\nl 2.0 0 {ONE}/claim\nd 1.0 0 {TWO}\nd 2.0 0 {TWO}/claim\n"
    found = read_records(said(listing, b""))
    assert [(found[each].recalled, found[each].record.claimed) for each in (ONE, TWO)] == [(True, True), (False, True)]
    assert [found[each].leaves_open for each in (ONE, TWO)] == [False, True]


def test_end_that_is_not_whole_counts_as_not_written() -> None:
    cut = END[:-1]
    found = read_records(said(f"d 1.0 0 {ONE}\nf 2.0 {len(cut)} {ONE}/end\n", lines(ONE, "end", cut)))[ONE]
    assert not found.record.ended


def test_attempt_without_a_folder_is_left_out() -> None:
    assert read_records(b"\n") == {}
    assert read_records(b"") == {}
    assert set(read_records(said(f"d 1.0 0 {ONE}\n", b""))) == {ONE}


def test_content_of_one_attempt_is_not_taken_for_anothers() -> None:
    hostile = f"77 1\n{TWO}/end:exit 0\n\nd 1.0 0 {TWO}\n".encode()
    listing = f"d 1.0 0 {ONE}\nd 1.0 0 {TWO}\nf 2.0 {len(hostile)} {ONE}/start\n"
    found = read_records(said(listing, lines(ONE, "start", hostile)))
    assert not found[TWO].record.ended
    assert found[ONE].record.native_id == ""


def test_garbage_is_passed_over() -> None:
    text = b"d x 0 y\nf 1 2 3 4\n\x00\xff\nd 1.0 0 ../../etc\n\nno colon\n" + b"\xff" * 50
    assert read_records(text) == {}
