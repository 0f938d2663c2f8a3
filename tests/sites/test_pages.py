"""The pages of sites: what they show, to whom, and what administrators change there."""

from __future__ import annotations

import re
from typing import Any

from atoll.core.resources import Resources
from atoll.core.site import Flavor, Health, Node, NodeSpot, Site, SiteReport
from atoll.sites.picture import CLOSED, FREE, Bar, Cell, pictures
from atoll.store import sites
from atoll.store.holdings import Held, Spots
from tests.support.http import GIB, Served
from tests.support.rows import run

FORM = {"content-type": "application/x-www-form-urlencoded"}
FILE = "name: there\ndriver: fake\nlabels:\n  region: eu\nconfig:\n  cpus: 4\n"


async def get(served: Served, path: str, person: str = "anna", **headers: str) -> tuple[int, str]:
    async with served.client(person, **headers) as client:
        answer = await client.get(path)
    return answer.status_code, answer.text


async def post(served: Served, path: str, person: str = "root", **fields: str) -> Any:
    async with served.client(person) as client:
        return await client.post(path, data=fields)


def node(name: str, gpus: int, *, takes: bool = True) -> Node:
    return Node(name, "gpu", Resources(8000, 32 * GIB, gpus * 1000), takes)


def test_each_gpu_of_a_node_that_atoll_chose_shows_who_has_most_of_it() -> None:
    flavor = Flavor("gpu", Resources(16000, 64 * GIB, 4000), Resources(8000, 32 * GIB, 2000), 2)
    site = Site(
        "gpus", "fake", report=SiteReport((flavor,), nodes=(node("a", 2), node("b", 2), node("c", 2, takes=False)))
    )
    half = Resources(1000, GIB, 500)
    spots = [
        Spots("gpus", "interactive", Resources(2000, GIB, 1000), (NodeSpot("a", ((0, 1000),)),)),
        Spots("gpus", "opportunistic", half, (NodeSpot("b", ((1, 500),)),)),
    ]
    held = [Held("gpus", "gpu", "interactive", True, 1, Resources(2000, GIB, 1000)),
            Held("gpus", "gpu", "opportunistic", False, 1, half)]  # fmt: skip
    (shown,) = pictures([site], [], held, spots)
    assert [each.cells for each in shown.nodes] == [
        (Cell("interactive", 100), Cell(FREE, 0)), (Cell(FREE, 0), Cell("opportunistic", 50)),
        (Cell(CLOSED, 0), Cell(CLOSED, 0)),
    ]  # fmt: skip
    assert shown.counts == {"interactive": 1, "opportunistic": 1, FREE: 2, CLOSED: 2}
    assert shown.gpu == Bar(4000, {"interactive": 1000, "opportunistic": 500})
    assert (shown.running, shown.waiting) == (1, 1)


def test_where_an_engine_chooses_only_what_has_begun_holds_gpus() -> None:
    flavor = Flavor("gpu", Resources(16000, 64 * GIB, 4000), Resources(8000, 32 * GIB, 2000), 2,
                    others=Resources(0, 0, 1000))  # fmt: skip
    site = Site("slurm", "fake", report=SiteReport((flavor,), queues=True))
    held = [Held("slurm", "gpu", "batch", begun, 1, Resources(0, 0, 2000)) for begun in (True, False)]
    (shown,) = pictures([site], ["slurm"], held, [])
    assert shown.counts == {"batch": 2, "others": 1, FREE: 1}
    assert (shown.running, shown.waiting) == (1, 1)


async def test_everybody_sees_the_sites_and_only_administrators_what_changes_them(served: Served) -> None:
    await served.add_site("here", region="eu")
    job = await served.submit("anna", **{"class": "interactive"})
    await served.do(lambda connection: run(connection, job, site="here"))
    status, page = await get(served, "/sites")
    assert status == 200
    assert '<h2 id="name-here">' in page
    assert "region=eu" in page
    assert "Add a site" not in page
    status, page = await get(served, "/sites/here")
    assert status == 200
    assert "Drain" not in page
    assert "Configure" not in page
    assert re.search(r"<dt>Sessions</dt><dd>1</dd>", page)
    for path in ("/sites/here/drain", "/sites/here/check", "/sites/-/add", "/sites/here/edit"):
        assert (await post(served, path, "anna", file=FILE)).status_code == 403
    assert (await get(served, "/sites/here/edit"))[0] == 403


async def test_a_piece_of_the_page_is_the_same_as_in_the_page(served: Served) -> None:
    await served.add_site("here")
    _, piece = await get(served, "/sites", **{"hx-request": "true"})
    _, page = await get(served, "/sites")
    assert piece.strip().startswith('<div id="sites"')
    assert piece.strip() in page


async def test_a_site_that_is_not_there_is_said_on_a_page(served: Served) -> None:
    status, page = await get(served, "/sites/nope")
    assert status == 404
    assert page.startswith("<!doctype html>")
    assert "There is no site" in page


async def test_draining_and_working_again_are_buttons(served: Served) -> None:
    await served.add_site("here")
    answer = await post(served, "/sites/here/drain")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sites/here")
    assert "This site is drained" in (await get(served, "/sites/here"))[1]
    await post(served, "/sites/here/resume")
    assert "This site is drained" not in (await get(served, "/sites/here"))[1]


async def test_a_site_is_added_and_changed_by_its_file(served: Served) -> None:
    answer = await post(served, "/sites/-/add", file=FILE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sites/there")
    status, page = await get(served, "/sites/there/edit", "root")
    assert status == 200
    assert "region: eu" in page
    assert (await post(served, "/sites/there/edit", file=FILE.replace("eu", "us"))).status_code == 303
    assert "region=us" in (await get(served, "/sites/there"))[1]


async def test_what_is_wrong_with_a_file_is_said_with_its_line_and_nothing_typed_is_lost(served: Served) -> None:
    wrong = FILE.replace("labels:", "lables:")
    answer = await post(served, "/sites/-/add", file=wrong)
    assert answer.status_code == 422
    assert (
        "<strong>Line 3:</strong> lables: There is no field &#39;lables&#39; here. Did you mean &#39;labels&#39;?"
        in answer.text
    )
    assert "<code>lables:</code>" in answer.text
    assert wrong in answer.text
    assert 'aria-invalid="true"' in answer.text
    answer = await post(served, "/sites/-/add", file="name: there\ndriver: [")
    assert answer.status_code == 422
    assert "line 2" in answer.text
    answer = await post(served, "/sites/there/edit", file=FILE.replace("there", "other"))
    assert "<strong>Line 1:</strong>" in answer.text


async def test_a_site_that_cannot_be_reached_says_so_with_its_words(served: Served) -> None:
    await served.add_site("here")
    await served.do(lambda connection: sites.set_health(connection, "here", Health.UNREACHABLE, "no <route>"))
    _, page = await get(served, "/sites")
    assert "unreachable" in page
    assert "no &lt;route&gt;" in page
    assert "1 not to be reached" in page
