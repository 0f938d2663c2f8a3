"""The site file of a Kubernetes site, and the names that are made of other names."""

import re
from pathlib import Path
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.core.site_file import read_site_file
from atoll.drivers.base import DriverSetup
from atoll.drivers.kubernetes import KubernetesDriver
from atoll.drivers.kubernetes.config import KubernetesConfig, read_config
from atoll.drivers.kubernetes.names import dns_label, filled, namespace_of, split_native

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"kubeconfg": "/x"}, "config.kubeconfg", "Did you mean 'kubeconfig'?"),
    ({"kubeconfig": "here"}, "config.kubeconfig", "must be an absolute path"),
    ({"context": "c"}, "config", "no kubeconfig"),
    ({"namespace": "{person}"}, "config.namespace", "{person} means nothing here"),
    ({"run_as": {"user": 0}}, "config.run_as.user", "greater than or equal to 1"),
    ({"accounts": {"a": {"uid": 5}}}, "config.accounts.a.uid", "There is no field 'uid' here"),
    ({"tolerations": [{"key": "k", "effect": "Never"}]}, "config.tolerations.0.effect", "NoSchedule"),
    ({"priority_classes": {"urgent": "x"}}, "config.priority_classes.urgent", "batch"),
    ({"volumes": {"data": {"path": "/x"}}}, "config.volumes.data.claim", "required"),
    ({"nodes": "mine"}, "config.nodes", "owned"),
    ({"nodes": "owned", "queue": {"name": "users"}}, "config", "with queue it is not Atoll that decides"),
    ({"nodes": "owned", "autoscaling": True}, "config", "with autoscaling it is not Atoll that decides"),
    ({"queue": {"name": ""}}, "config.queue.name", "at least 1"),
    ({"node_selector": {"a b": "c"}}, "config.node_selector.a b", "cannot stand here"),
]


@pytest.mark.parametrize(("config", "field", "words"), WRONG, ids=[each[1] for each in WRONG])
def test_wrong_configuration_names_its_field(config: dict[str, Any], field: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        KubernetesDriver(DriverSetup("k8s", "abcde", tmp_path, config, "ada"))
    found = dict(caught.value.errors)
    assert any(place.startswith(field) and words in sentence for place, sentence in found.items()), found


PAGE = (Path(__file__).parents[3] / "docs" / "sites" / "kubernetes.md").read_text()


def test_example_of_the_documentation_is_a_site_file() -> None:
    example = next(
        block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "driver: kubernetes" in block
    )
    site = read_site_file(example.encode(), "example")
    assert site.driver == "kubernetes"
    assert read_config(site.config).accounts["ada"].user == 4001


def test_documentation_has_every_field() -> None:
    table = PAGE.partition("| field of `config` |")[2].partition("\n\n")[0]
    told = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert told == set(KubernetesConfig.model_fields)


def test_everything_has_a_default() -> None:
    config = read_config({})
    assert config.namespace == "atoll-{project}"
    assert config.run_as.user == 1000
    assert config.many_namespaces


@pytest.mark.parametrize("text", ["Physik", "a_b", "a.b", "x" * 80, "-a-", "ü", "a" * 63 + "b"])
def test_names_that_had_to_be_changed_stay_different_labels(text: str) -> None:
    label = dns_label(text)
    assert len(label) <= 63
    assert label == label.strip("-").lower()
    assert label != dns_label(text + "x")
    assert dns_label("plain-name-1") == "plain-name-1"


def test_namespace_without_a_placeholder_is_everybodys() -> None:
    assert namespace_of("lab", "physics") == namespace_of("lab", "chemistry") == "lab"
    assert namespace_of("lab-{project}", "physics") == "lab-physics"


def test_placeholders_are_filled_once() -> None:
    """What a person is called cannot bring in another placeholder."""
    assert filled("{person}/{account}", account="{project}", person="{account}", project="p") == "{account}/{project}"


@pytest.mark.parametrize("native", [None, "", "ns", "ns/other", "a/b/c", "../x/atoll-ID", "NS/atoll-ID", "/atoll-ID"])
def test_native_id_of_another_kind_is_not_trusted(native: str | None) -> None:
    attempt = "abcde-0000000000000000"
    assert split_native(native and native.replace("ID", attempt), attempt) is None
    assert split_native(f"lab/atoll-{attempt}", attempt) == "lab"
