"""Site files: the fixed shape is read, and every mistake names its field."""

from __future__ import annotations

import pytest

from atoll.core.errors import Invalid
from atoll.core.site_file import Identity, SiteFile, read_site_file
from atoll.core.spec import JobClass

ODD = b"""
name: odd-slurm
driver: slurm
labels: {region: eu}
clearance: [internal]
identity: {map: same-name}
backlog: {batch: 50}
config:
  transport: local
  slurm_conf: /etc/slurm/slurm.conf
  classes: {interactive: {partition: inter}, batch: {partition: long}}
"""


def test_a_whole_site_file_is_read_and_written_back_as_it_was() -> None:
    site = read_site_file(ODD, "site.yaml")
    assert (site.name, site.driver, site.labels, site.clearance) == (
        "odd-slurm",
        "slurm",
        {"region": "eu"},
        ["internal"],
    )
    assert site.backlog == {JobClass.BATCH: 50}
    assert site.config["classes"]["batch"] == {"partition": "long"}
    assert SiteFile.model_validate_json(site.model_dump_json()) == site


@pytest.mark.parametrize(
    ("written", "person", "account"),
    [
        ("same-name", "ada", "ada"),
        ("same-name", "ada@uni.example", "ada@uni.example"),
        ("same-name", "-rf", None),
        ("same-name", "ada lovelace", None),
        ("hpc-{person}", "ada", "hpc-ada"),
        ({"ada": "alovelace"}, "ada", "alovelace"),
        ({"ada": "alovelace"}, "eve", None),
        ("same-name", "root", "root"),
        ("r{person}", "oot", None),
    ],
)
def test_persons_are_mapped_to_accounts(written: object, person: str, account: str | None) -> None:
    identity = Identity.model_validate({"map": written})
    assert identity.account_of(person) == account
    assert identity.serves(person) == (account is not None)


def test_a_shared_identity_serves_everybody_by_the_sites_own_account() -> None:
    site = read_site_file(b"{name: a, driver: podman, identity: shared}", "site.yaml")
    assert site.identity is not None
    assert site.identity.serves("anybody")
    assert site.identity.account_of("anybody") is None
    assert site.model_dump(mode="json")["identity"] == "shared"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        (b"- a", "site", "keys and values"),
        (b"driver: slurm", "name", "required"),
        (b"name: a b\ndriver: slurm", "name", "cannot stand here"),
        (b"name: a\ndriver: /bin/sh", "driver", "cannot stand here"),
        (b"name: a\ndriver: slurm\nlabls: {}", "labls", "Did you mean 'labels'?"),
        (b"name: a\ndriver: slurm\nidentity: sharde", "identity", "shared"),
        (b"name: a\ndriver: slurm\nidentity: {map: root}", "identity.map", "{person}"),
        (b"name: a\ndriver: slurm\nidentity: {map: {ada: -x}}", "identity.map", "-x"),
        (b"name: a\ndriver: slurm\nidentity: {map: {ada: root}}", "identity.map", "'root' of 'ada'"),
        (b"name: a\ndriver: slurm\nbacklog: {batch: -1}", "backlog.batch", "greater than or equal to 0"),
        (b"name: a\nname: b\ndriver: slurm", None, "twice"),
    ],
)
def test_a_mistake_names_its_field_and_what_would_be_right(text: bytes, field: str | None, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_site_file(text, "site.yaml")
    assert words in caught.value.sentence
    if field is not None:
        assert caught.value.field == field
