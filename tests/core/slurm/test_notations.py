"""Slurm's notations mean here what they mean there."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.slurm import notations
from tests.support.tried import tried

ZONE = timezone(timedelta(hours=2))
NOW = datetime(2026, 5, 1, 12, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 120),  # a minute and a half is rounded up to two
        ("5:00", 300),
        ("1:30:00", 5400),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("2-00:00:01", 172_860),
        ("0", None),
        ("UNLIMITED", None),
        ("infinite", None),
        ("-1", None),
    ],
)
def test_time_limits(text: str, seconds: int | None) -> None:
    assert notations.parse_time_limit(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("4000", 4000 << 20), ("4G", 4 << 30), ("512M", 512 << 20), ("1t", 1 << 40), ("64K", 64 << 10), ("4GB", 4 << 30)],
)
def test_sizes_without_a_unit_are_megabytes(text: str, size: int) -> None:
    assert notations.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", (1, 12, 0)),
        ("now+60", (1, 12, 1)),
        ("now+1hour", (1, 13, 0)),
        ("now + 2 days", (3, 12, 0)),
        ("16:00", (1, 16, 0)),
        ("11:59", (2, 11, 59)),
        ("8:30pm", (1, 20, 30)),
        ("12:15 AM", (2, 0, 15)),
        ("noon", (1, 12, 0)),
        ("midnight", (2, 0, 0)),
        ("teatime", (1, 16, 0)),
        ("fika", (1, 15, 0)),
        ("tomorrow", (2, 0, 0)),
        ("2026-05-03", (3, 0, 0)),
        ("2026-05-03T08:30:00", (3, 8, 30)),
        ("05/03", (3, 0, 0)),
        ("05/03/26-08:30", (3, 8, 30)),
        ("050326", (3, 0, 0)),
        ("05.03.26", (3, 0, 0)),
        ("2026-05-03T06:30+00:00", (3, 8, 30)),
    ],
)
def test_begin_times(text: str, moment: tuple[int, int, int]) -> None:
    day, hour, minute = moment
    found = notations.parse_begin_time(text, NOW, ZONE)
    assert found == datetime(2026, 5, day, hour, minute, tzinfo=ZONE)
    assert found.tzinfo is UTC


def test_a_day_without_a_year_that_is_over_is_next_years() -> None:
    assert notations.parse_begin_time("04/01", NOW, ZONE) == datetime(2027, 4, 1, tzinfo=ZONE)


def test_a_time_without_a_zone_is_the_machines_own() -> None:
    found = notations.parse_begin_time("2026-07-01T10:00", NOW)
    assert found == datetime(2026, 7, 1, 10).astimezone()


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (notations.parse_nodes, "2", 2),
        (notations.parse_nodes, "2-4", 2),
        (notations.parse_nodes, "1k", 1024),
        (notations.parse_gpus, "2", (None, 2)),
        (notations.parse_gpus, "a100:2", ("a100", 2)),
        (notations.parse_gpus, "a100_1g.10gb:1", ("a100_1g.10gb", 1)),
        (notations.parse_gres, "gpu", (None, 1)),
        (notations.parse_gres, "gpu:2", (None, 2)),
        (notations.parse_gres, "gpu:a100", ("a100", 1)),
        (notations.parse_gres, "gpu:a100:4", ("a100", 4)),
        (notations.parse_gres, "gres/gpu:4", (None, 4)),
        (notations.parse_gres, "none", (None, 0)),
        (notations.parse_tres, "cpu=4", (4, None)),
        (notations.parse_tres, "cpu:4,gres/gpu:a100=1", (4, ("a100", 1))),
        (notations.parse_tres, "gres/gpu=2", (None, (None, 2))),
        (notations.parse_signal, "USR1", {"name": "USR1", "before": 60}),
        (notations.parse_signal, "B:USR1@120", {"name": "USR1", "before": 120}),
        (notations.parse_signal, "SIGTERM@0", {"name": "TERM", "before": 0}),
        (notations.parse_signal, "10@5", {"name": "USR1", "before": 5}),
        (notations.parse_dependencies, "afterok:12", [{"job": "12", "on": "ok"}]),
        (notations.parse_dependencies, "afterok:12:13,afterany:14",
         [{"job": "12", "on": "ok"}, {"job": "13", "on": "ok"}, {"job": "14", "on": "any"}]),
        (notations.parse_dependencies, "afternotok:12_3", [{"job": "12[3]", "on": "not_ok"}]),
        (notations.parse_dependencies, "12", [{"job": "12", "on": "any"}]),
        (notations.parse_constraint, "intel", ["intel"]),
        (notations.parse_constraint, "intel&fast", ["intel", "fast"]),
        (notations.parse_constraint, "intel,fast", ["intel", "fast"]),
        (notations.parse_constraint, "region=eu|region=us", ["region=eu,us"]),
        (notations.parse_constraint, "region=eu,us&fast", ["region=eu,us", "fast"]),
        (notations.parse_constraint, "engine!=slurm", ["engine!=slurm"]),
        (notations.parse_class, "opportunistic", "opportunistic"),
        (notations.parse_class, "Normal", "batch"),
    ],
)  # fmt: skip
def test_notations(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (notations.parse_time_limit, "1h", "days-hours:minutes:seconds"),
        (notations.parse_time_limit, "1:2:3:4", "is no time"),
        (notations.parse_time_limit, "", "is no time"),
        (notations.parse_size, "1.5G", "write 1536M"),
        (notations.parse_size, "lots", "write 4G or 4000M"),
        (notations.parse_size, "99999999999999T", "more than any machine"),
        (notations.parse_count, "0", "from 1 up"),
        (notations.parse_count, "-1", "from 1 up"),
        (notations.parse_nodes, "4-2", "smaller number first"),
        (notations.parse_nodes, "0", "at least one node"),
        (notations.parse_nodes, "1,3", "is no number of nodes"),
        (notations.parse_gpus, "a100:2,v100:1", "several types"),
        (notations.parse_gpus, "two", "write 2 or a100:2"),
        (notations.parse_gres, "nvme:1", "'nvme'"),
        (notations.parse_gres, "gpu:a100:1,gpu:v100:1", "several types"),
        (notations.parse_tres, "license/x=1", "'license/x'"),
        (notations.parse_signal, "KILL", "write one of HUP"),
        (notations.parse_signal, "R:USR1", "reservations"),
        (notations.parse_signal, "X:USR1", "neither B nor R"),
        (notations.parse_signal, "USR1@99999", "is no signal"),
        (notations.parse_dependencies, "after:12", "another's start"),
        (notations.parse_dependencies, "singleton", "'singleton' is not supported"),
        (notations.parse_dependencies, "aftercorr:12", "'aftercorr' is not supported"),
        (notations.parse_dependencies, "afterburstbuffer:12", "not supported"),
        (notations.parse_dependencies, "afterok:12?afterok:13", "any one of several"),
        (notations.parse_dependencies, "aftrok:12", "Did you mean 'afterok'?"),
        (notations.parse_dependencies, "afterok", "names no job"),
        (notations.parse_dependencies, "afterok:x", "'x' is no job"),
        (notations.parse_constraint, "[a|b]", "Groups and counts"),
        (notations.parse_constraint, "a*2", "Groups and counts"),
        (notations.parse_constraint, "a|b", "values of one label"),
        (notations.parse_constraint, "a&&b", "is no constraint"),
        (notations.parse_class, "bach", "Did you mean 'batch'?"),
        (notations.parse_class, "premium", "interactive, service, batch, opportunistic"),
        (lambda text: notations.parse_begin_time(text, NOW), "whenever", "is no time"),
        (lambda text: notations.parse_begin_time(text, NOW), "25:00", "is no time"),
        (lambda text: notations.parse_begin_time(text, NOW), "13/01", "is no time"),
        (lambda text: notations.parse_begin_time(text, NOW), "now+99999999weeks", "is no time"),
    ],
)
def test_what_cannot_be_said_here_is_told(parse: Callable[[str], Any], text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert said in str(caught.value)


def test_exported_variables_come_from_the_text_or_from_the_submitter() -> None:
    found = notations.parse_export("ALL,A=1,B,C='x,y',D=", {"B": "2", "SECRET": "s"})
    assert found == ({"A": "1", "B": "2", "C": "x,y", "D": ""}, True)
    assert notations.parse_export("NONE", {"B": "2"}) == ({}, False)
    with pytest.raises(ValueError, match="The variable E is not set where you submit"):
        notations.parse_export("E", {})
    with pytest.raises(ValueError, match="no name of a variable"):
        notations.parse_export("1A=2", {})


PARSERS: list[Callable[[str], Any]] = [
    notations.parse_time_limit, notations.parse_size, notations.parse_count, notations.parse_nodes,
    notations.parse_gpus, notations.parse_gres, notations.parse_tres, notations.parse_signal,
    notations.parse_dependencies, notations.parse_constraint, notations.parse_class,
    lambda text: notations.parse_export(text, {}), lambda text: notations.parse_begin_time(text, NOW, ZONE),
]  # fmt: skip


@given(
    st.sampled_from(PARSERS),
    st.one_of(
        st.text(max_size=12),
        st.text(alphabet="0123456789:-=,&|@_/.TGk now+afterokgpuUSR1B", max_size=20),
        st.sampled_from(["9" * 5000, "99999999-99", "0001-01-01", "9999-12-31T23:59:59", "now+99999999", "\0"]),
    ),
)
def test_any_text_is_a_value_or_a_value_error(parse: Callable[[str], Any], text: str) -> None:
    found = tried(lambda: parse(text), ValueError)
    assert not isinstance(found, ValueError) or str(found).endswith((".", "?"))
