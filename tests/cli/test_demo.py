"""`atoll demo`: a department's day that is right by itself, and a platform that fills up with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import httpx2
import pytest

from atoll.cli.demo import department
from atoll.cli.demo.work import Day
from atoll.core.project_file import read_projects
from atoll.core.site_file import read_site
from atoll.core.spec import read_spec
from atoll.drivers.base import DriverSetup
from atoll.drivers.fake import FakeDriver
from tests.cli.conftest import Atoll
from tests.support.demo import RunningDemo

CLASSES = {"interactive", "batch", "opportunistic"}


def day(seed: int = 1) -> Day:
    return Day(seed, 60, [("ada", project) for project in department.OWN_PROJECTS])


def test_quotas_give_out_just_what_the_sites_have(tmp_path: Path) -> None:
    files = [read_site(site) for site in department.sites(60)]
    drivers = [FakeDriver(DriverSetup(file.name, "abcde", tmp_path, file.config)) for file in files]
    there: Counter[tuple[str | None, str]] = Counter()
    for driver in drivers:
        there[driver.config.flavor, "cpu"] += driver.engine.total.cpu
        there[driver.config.flavor, "gpu"] += driver.engine.total.gpu
    given: Counter[tuple[str, str]] = Counter()
    for node in read_projects({"projects": department.tree("ada")}):
        given.update({key: limit.nominal for key, limit in node.quotas.items()})
    assert len(files) == 5
    assert dict(given) == {key: there[key] for key in given}


def test_thirty_people_submit_what_the_platform_understands() -> None:
    orders = day().draw(9, 24, 0)
    assert len(day().people) == 30
    kinds = Counter(read_spec(spec).class_.value for order in orders for spec in order.specs)
    assert set(kinds) == CLASSES
    assert any("array" in spec for order in orders for spec in order.specs)
    assert any(order.hold for order in orders)
    assert any("dependencies" in spec for order in orders for spec in order.specs)


def test_a_seed_is_a_day_and_a_long_queue_keeps_people_from_sending_more() -> None:
    assert day(1).draw(9, 5, 0) == day(1).draw(9, 5, 0) != day(2).draw(9, 5, 0)
    sent = {spec["class"] for order in day().draw(12, 8, 10_000) for spec in order.specs}
    assert sent == {"interactive"}
    assert sum(len(order.specs) for order in day().fill(12_345)) == 12_345


def test_it_never_touches_the_folder_of_another_platform(atoll: Atoll, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "atoll.yaml").write_text("port: 1\n")
    done = atoll("demo", "--data", str(other))
    assert done.code != 0
    assert "is not a demonstration's folder" in done.err
    assert (other / "atoll.yaml").read_text() == "port: 1\n"


@pytest.mark.e2e
def test_the_day_fills_the_platform_and_ctrl_c_ends_it_all(tmp_path: Path) -> None:
    with RunningDemo(tmp_path, "--speed", "600", "--jobs", "50") as demo:
        client = demo.client
        demo.wait_for(lambda: sum(site.health == "ok" for site in client.sites()) == 5)
        demo.wait_for(lambda: {item.class_ for item in client.queue().items} >= CLASSES)
        demo.wait_for(lambda: any(site.health == "unreachable" for site in client.sites()))
        assert "Connection timed out" in (client.site("mistral").message or "")
        demo.wait_for(lambda: all(site.health == "ok" for site in client.sites()))
        assert demo.interrupt() == 0
    assert "The demonstration stops." in demo.log.read_text()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(demo.url, timeout=5)
