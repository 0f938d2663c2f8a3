"""The job specification: one object from YAML, JSON and Python, and a named field for everything that is wrong."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.core.documents import read_yaml
from atoll.core.errors import Invalid
from atoll.core.spec import (
    ConstraintTerm,
    JobSpec,
    parse_begin,
    read_spec,
    read_spec_json,
)
from tests.support.tried import tried

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=20)
# YAML takes these for line ends or drops them; its writer does not quote them.
BREAKS = "\0\x85\u2028\u2029\ufeff"
arguments = st.text(st.characters(exclude_characters=BREAKS, exclude_categories=["Cs"]), max_size=30)
variables = st.from_regex(r"[A-Z_][A-Z0-9_]{0,10}", fullmatch=True)
paths = st.from_regex(r"[a-z][a-z0-9.]{0,8}(/[a-z][a-z0-9]{0,8}){0,2}", fullmatch=True)
seconds = st.integers(0, 10**8)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": texts,
    "project": names,
    "class": st.sampled_from(["interactive", "service", "batch", "opportunistic"]),
    "workdir": st.from_regex(r"/[a-z/]{0,20}", fullmatch=True),
    "env": st.dictionaries(variables, arguments, max_size=4),
    "environment": st.one_of(
        st.fixed_dictionaries({"image": texts}), st.fixed_dictionaries({"conda": texts}), st.just({})
    ),
    "cpu": st.one_of(st.integers(1, 10**4), st.integers(1, 10**6).map(lambda milli: f"{milli}m")),
    "memory": st.one_of(st.integers(0, 2**50), st.integers(1, 900).map(lambda size: f"{size}G")),
    "gpu": st.one_of(st.integers(0, 16), st.sampled_from([0.5, "250m", "0.1"])),
    "flavor": st.one_of(names, st.lists(names, max_size=3)),
    "nodes": st.integers(1, 100),
    "launch": st.sampled_from(["once", "each"]),
    "scratch": st.integers(0, 2**50),
    "walltime": st.one_of(st.none(), seconds, st.sampled_from(["90s", "1h30m", "2-00:00:00"])),
    "begin": st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
        datetime.isoformat
    ),
    "array": st.sampled_from(["0-99%10", "1,3,7", "0-99:2", "5"]),
    "dependencies": st.one_of(
        st.integers(1, 10**9),
        st.sampled_from(["12", "ok:12", "any:13[4]", "not_ok:train"]),
        st.lists(st.fixed_dictionaries({"job": names, "on": st.sampled_from(["ok", "any", "not_ok"])}),
                 max_size=3, unique_by=lambda entry: entry["job"]),
    ),
    "retries": st.integers(0, 100),
    "rerun": st.booleans(),
    "priority": st.integers(-1_000_000, 1_000_000),
    "signal": st.fixed_dictionaries({"name": st.sampled_from(["USR1", "TERM"]), "before": seconds}),
    "grace": st.integers(0, 86_400),
    "checkpoint": st.fixed_dictionaries({"every": seconds}, optional={"folder": names}),
    "ports": st.lists(st.fixed_dictionaries({"name": names, "port": st.integers(1, 65535)}), max_size=2),
    "volumes": st.lists(st.fixed_dictionaries({"name": names, "path": st.just("/data"), "read_only": st.booleans()}),
                        max_size=2),
    "secrets": st.lists(st.fixed_dictionaries({"name": names, "env": variables}), max_size=2),
    "constraints": st.lists(st.sampled_from(["region=eu", "region=eu,us", "engine!=slurm", "fast"]), max_size=3),
    "offload": st.sampled_from(["never", "allowed", "only"]),
    "files_in": st.lists(st.fixed_dictionaries({"path": paths, "sha256": st.just("0" * 64)}), max_size=2),
    "files_out": st.lists(paths, max_size=3),
    "stdin": paths,
    "stdout": st.sampled_from(["out-%j.log", "/tmp/%x-%A_%a.txt"]),
    "stderr": st.sampled_from(["err-%4j.log", "100%%"]),
    "slurm": st.booleans(),
    "labels": st.dictionaries(names, arguments.filter(lambda text: len(text) < 255), max_size=3),
}  # fmt: skip
runnable = st.one_of(
    st.fixed_dictionaries({"command": st.lists(arguments.filter(bool), min_size=1, max_size=4)}),
    st.fixed_dictionaries(
        {"script": arguments.filter(bool).map(lambda body: f"#!/bin/sh\n{body}")},
        optional={"args": st.lists(arguments, max_size=3)},
    ),
)
documents = st.builds(lambda run, rest: {**run, **rest}, runnable, st.fixed_dictionaries({}, optional=FIELDS))


def test_the_strategies_know_every_field() -> None:
    known = {field.alias or name for name, field in JobSpec.model_fields.items()}
    assert known == {*FIELDS, "command", "script", "args"}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(documents)
def test_yaml_json_and_python_give_the_same_object(document: dict[str, Any]) -> None:
    spec = read_spec(document)
    assert read_spec_json(json.dumps(document)) == spec
    assert read_spec(json.loads(json.dumps(document))) == spec
    assert read_spec(read_yaml(yaml.safe_dump(document, allow_unicode=True))) == spec


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(documents)
def test_a_specification_is_the_same_after_the_store(document: dict[str, Any]) -> None:
    spec = read_spec(document)
    assert read_spec_json(spec.to_json()) == spec
    assert read_spec(spec.document()) == spec
    assert json.loads(spec.to_json()) == spec.document()


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.integers(16_000, 17_000).map(lambda bits: 1 << bits),
    st.sampled_from(["0-9", "%q", "1e999999", "12", "a\0b", "\ud800", "9" * 5000]),
)
keys = st.sampled_from(["name", "job", "on", "port", ""])
json_like = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner), max_leaves=8
)
field_names = st.sampled_from([*FIELDS, "command", "script", "args", "class_", "nonsense", "\ud800", ""])


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(json_like, st.dictionaries(field_names, json_like, max_size=5), documents.flatmap(
    lambda document: st.tuples(st.just(document), field_names, json_like).map(lambda t: {**t[0], t[1]: t[2]})
)))  # fmt: skip
def test_any_plain_data_is_a_specification_or_invalid(document: Any) -> None:
    found = tried(lambda: read_spec(document), Invalid)
    if isinstance(found, Invalid):
        assert found.errors
        assert len(found.sentence) < 600
        json.dumps(found.problem(), ensure_ascii=False).encode()  # it is going to be sent to somebody
    else:
        assert read_spec_json(found.to_json()) == found


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40)))
def test_any_text_is_a_specification_or_invalid(text: bytes | str) -> None:
    with pytest.raises(Invalid) as caught:
        read_spec_json(text)
    assert caught.value.sentence.endswith(".")


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"cpus": 2}, "cpus", "Did you mean 'cpu'?"),
        ({"Memory": 2}, "Memory", "Did you mean 'memory'?"),
        ({"ports": [{"prot": 80}]}, "ports.0.port", "required"),
        ({"dependencies": [{"job": "12", "when": "ok"}]}, "dependencies.0.when", "no field 'when'"),
        ({"cpu": 0}, "cpu", "at least 1m"),
        ({"cpu": "0.0001"}, "cpu", "finer than a thousandth"),
        ({"gpu": 1.5}, "gpu", "whole GPUs, or a part of one"),
        ({"memory": "4 gigs"}, "memory", "write for example 512M or 4G"),
        ({"walltime": "soon"}, "walltime", "write for example 90s"),
        ({"array": "9-1"}, "array", "write 1-9"),
        ({"array": "0-9%0"}, "array", "write 0-99%10"),
        ({"name": "a\x07"}, "name", "'\\x07' is not allowed"),
        ({"name": "a\u2028b"}, "name", "is not allowed"),
        ({"project": "a b"}, "project", "letters, digits"),
        ({"env": {"1A": "x"}}, "env.1A.[key]", "does not begin with a digit"),
        ({"env": {"A": 1}}, "env.A", "in quotes"),
        ({"env": {"A": "\0"}}, "env.A", "no process can be given it"),
        ({"begin": "2026-05-01T12:00:00"}, "begin", "timezone"),
        ({"nodes": 0}, "nodes", "greater than or equal to 1"),
        ({"signal": {"name": "KILL"}}, "signal.name", "Write one of HUP"),
        ({"stdout": "out-%N.log"}, "stdout", "'%N' in a file name is not supported"),
        ({"stdin": "/etc/passwd"}, "stdin", "inside the working directory"),
        ({"files_out": ["../x"]}, "files_out.0", "without '..'"),
        ({"files_in": [{"path": "a", "sha256": "xyz"}]}, "files_in.0.sha256", "cannot stand here"),
        ({"constraints": ["a==b"]}, "constraints.0", "Write LABEL"),
        ({"environment": {"image": "a", "venv": "b"}}, "environment", "give one of image"),
        ({"dependencies": ["12", "any:12"]}, "dependencies", "named twice"),
        ({"dependencies": True}, "dependencies", "list"),
        ({"dependencies": "often:12"}, "dependencies.0.on", "'ok', 'any' or 'not_ok'"),
        ({"command": [""]}, "command", "first word is empty"),
        ({"command": "echo 'a"}, "command", "cannot be split"),
        ({"class": "bach"}, "class", "'batch'"),
    ],
)
def test_a_wrong_field_is_named_with_what_would_be_right(change: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_spec({"command": ["true"], **change})
    assert caught.value.field == field
    assert said.lower() in caught.value.sentence.lower()


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        read_spec({"command": ["true"], "cpu": "x", "nodes": 0, "colour": "red"})
    assert {field for field, _ in caught.value.errors} == {"cpu", "nodes", "colour"}


@pytest.mark.parametrize("document", [{}, {"command": ["a"], "script": "#!/bin/sh"}, {"command": ["a"], "args": ["b"]}])
def test_a_job_has_either_a_command_or_a_script(document: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"[Cc]ommand"):
        read_spec(document)


def test_a_command_line_is_split_as_sh_does() -> None:
    assert read_spec({"command": "python 'my train.py' --lr 0.1"}).command == ["python", "my train.py", "--lr", "0.1"]


@pytest.mark.parametrize(
    ("document", "title"),
    [
        ({"name": "train", "command": "x"}, "train"),
        ({"command": "/usr/bin/python train.py"}, "python"),
        ({"script": "#!/bin/sh\n"}, "script"),
        ({"command": ["\n"]}, "job"),
    ],
)
def test_a_job_without_a_name_is_called_after_its_command(document: dict[str, Any], title: str) -> None:
    assert read_spec(document).title == title


@pytest.mark.parametrize(
    ("text", "labels", "allowed"),
    [
        ("region=eu", {"region": "eu"}, True),
        ("region=eu,us", {"region": "us"}, True),
        ("region=eu", {"region": "us"}, False),
        ("region=eu", {}, False),
        ("region!=eu", {"region": "us"}, True),
        ("region!=eu", {}, True),
        ("region!=eu,us", {"region": "us"}, False),
        ("fast", {"fast": ""}, True),
        ("fast", {}, False),
    ],
)
def test_a_constraint_chooses_sites_by_their_labels(text: str, labels: dict[str, str], allowed: bool) -> None:
    assert ConstraintTerm.parse(text).allows(labels) is allowed


NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("now+90", datetime(2026, 5, 1, 12, 1, 30, tzinfo=UTC)),
        ("now+1hour", datetime(2026, 5, 1, 13, tzinfo=UTC)),
        ("now+2days", datetime(2026, 5, 3, 12, tzinfo=UTC)),
        ("2026-06-01T08:00+02:00", datetime(2026, 6, 1, 6, tzinfo=UTC)),
    ],
)
def test_begin_times_are_read(text: str, moment: datetime) -> None:
    assert parse_begin(text, NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "later", "now+", "now-1hour", "now+1fortnight", "2026-13-01", "now+99999999weeks"]
)
def test_a_bad_begin_time_is_invalid(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_begin(text, NOW)
    assert caught.value.field == "begin"
