"""The table of the benchmarks says what was measured, and judges it as the targets say."""

from __future__ import annotations

import json

import pytest

from bench.figures import Broken, Kind, Row, Spread, Target, number, table


def test_a_spread_has_the_median_and_both_ends_in_whatever_order_the_values_come() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert Spread.of([4, 1, 2, 3]) == Spread(2.5, 1, 4)


def test_no_values_are_no_figure() -> None:
    with pytest.raises(Broken, match="no values"):
        Row("nothing", "s", []).spread  # noqa: B018


@pytest.mark.parametrize(
    ("kind", "below", "at", "above"),
    [("at least", False, True, True), ("at most", True, True, False), ("under", True, False, False)],
)
def test_a_target_is_met_on_its_own_side_only(kind: Kind, below: bool, at: bool, above: bool) -> None:
    target = Target(kind, 10)
    assert [target.met(9), target.met(10), target.met(11)] == [below, at, above]


def test_the_median_decides_whether_a_target_is_met() -> None:
    assert Row("rate", "jobs/s", [900, 1000, 5000], Target("at least", 1000)).met is True
    assert Row("rate", "jobs/s", [900, 999, 5000], Target("at least", 1000)).met is False


def test_a_figure_without_a_target_is_neither_met_nor_missed() -> None:
    row = Row("python", "ms", [20])
    assert row.met is None
    assert table([row]).splitlines()[2].split() == ["python", "ms", "1", "20", "20", "20"]


def test_the_ratio_is_taken_pair_by_pair_and_not_of_the_medians() -> None:
    row = Row("jobs", "s", [1, 10, 6], Target("at most", 1.5, ratio=True), "peer", [4, 5, 6])
    assert row.ratio == Spread(1, 0.25, 2)
    assert row.spread.median / Spread.of(row.peer_values).median == 1.2
    assert row.met is True


def test_a_target_on_the_ratio_is_judged_by_the_ratio() -> None:
    target = Target("at most", 1.5, ratio=True)
    assert Row("jobs", "s", [0.4], target, "peer", [0.2]).met is False
    assert Row("jobs", "s", [40], target, "peer", [40]).met is True


def test_a_target_on_the_ratio_without_a_peer_is_refused() -> None:
    with pytest.raises(Broken, match="no peer"):
        Row("jobs", "s", [1], Target("at most", 1.5, ratio=True)).met  # noqa: B018


def test_values_that_have_no_partner_are_refused() -> None:
    with pytest.raises(Broken, match="3 values, but 2 of peer"):
        Row("jobs", "s", [1, 2, 3], peer="peer", peer_values=[1, 2])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.01234, "0.0123"), (0.5, "0.5"), (1.5, "1.50"), (12, "12"), (12.34, "12.3"), (147.2, "147"),
        (1000, "1,000"), (12_345.6, "12,346"), (1_000_000, "1,000,000"), (-3.14159, "-3.14"),
    ],
)  # fmt: skip
def test_numbers_show_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_the_table_is_aligned_and_says_what_was_missed() -> None:
    rows = [
        Row("submissions", "jobs/s", [900, 950, 1100], Target("at least", 1000)),
        Row("memory", "MB", [89.4], Target("under", 150)),
        Row("trivial jobs", "s", [6, 9], Target("at most", 1.5, ratio=True), "PSI/J", [6, 6]),
    ]
    assert table(rows) == (
        "figure        unit    n  median   min    max  peer's median  ratio (min-max)  target              met\n"
        "------------  ------  -  ------  ----  -----  -------------  ---------------  ------------------  ---\n"
        "submissions   jobs/s  3     950   900  1,100                                  at least 1,000      NO\n"
        "memory        MB      1    89.4  89.4   89.4                                  under 150           yes\n"
        "trivial jobs  s       2    7.50     6      9  6 PSI/J        1.25 (1-1.50)    at most 1.50 times  yes"
    )


def test_a_note_that_several_rows_share_is_printed_once() -> None:
    rows = [Row("a", "s", [1], note="first"), Row("b", "s", [1], note="second"), Row("c", "s", [1], note="first")]
    lines = table(rows).splitlines()
    assert [line.split("  ")[0] for line in lines[2:5]] == ["a [1]", "b [2]", "c [1]"]
    assert lines[5:] == ["[1] first", "[2] second"]


def test_a_row_as_data_survives_json_and_has_all_values() -> None:
    row = Row("jobs", "s", [3, 6], Target("at most", 1.5, ratio=True), "peer", [2, 3], "note")
    assert json.loads(json.dumps(row.document())) == {
        "name": "jobs", "unit": "s", "values": [3, 6], "median": 4.5, "min": 3, "max": 6,
        "peer": {"name": "peer", "values": [2, 3], "median": 2.5, "min": 2, "max": 3},
        "ratio": {"median": 1.75, "min": 1.5, "max": 2},
        "target": {"kind": "at most", "value": 1.5, "of": "ratio"}, "met": False, "note": "note",
    }  # fmt: skip
