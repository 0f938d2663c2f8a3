"""The page of the queue: the sharing tree with its table, who waits, who borrows, evictions, reservations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import from_micros
from atoll.core.resources import Resources
from atoll.core.states import Outcome
from atoll.queue import picture
from atoll.queue.picture import Counts
from atoll.store import spent
from atoll.store.evictions import Eviction, evict
from atoll.store.spent import Use
from tests.support.http import GIB, Served
from tests.support.rows import NOW, add, end, new_job, run

TREE: dict[str, Any] = {
    "institute": {"quotas": {"cpu": {"cpu": 2}}},
    "astro": {"parent": "institute", "weight": 2, "people": ["anna"], "quotas": {"cpu": {"cpu": 2}}},
    "bio": {"parent": "institute", "people": ["bob"], "quotas": {"cpu": {"cpu": 4}}},
}


async def page(served: Served, person: str = "anna", query: str = "", **headers: str) -> str:
    async with served.client(person, **headers) as client:
        answer = await client.get(f"/queue{query}")
    assert answer.status_code == 200, answer.text
    return answer.text


async def apply(served: Served, tree: dict[str, Any] = TREE) -> None:
    async with served.client("root") as client:
        assert (await client.put("/api/v1/projects", json={"projects": tree})).status_code == 200


def quota(**amounts: int) -> dict[str, Any]:
    none = dict.fromkeys(("quota", "usage", "borrowed", "lent", "available"), 0)
    return {"flavor": "cpu", "resource": "cpu", "borrowing": None, "lending": None, **none, **amounts}


def node(name: str, parent: str | None, weight: float = 1, **amounts: int) -> dict[str, Any]:
    return {"name": name, "parent": parent, "weight": weight, "description": "", "quotas": [quota(**amounts)]}


def test_the_tree_adds_up_hours_and_counts_and_tells_what_is_borrowed() -> None:
    items = [node("all", None, quota=8000, usage=7000), node("a", "all", 2, quota=2000, usage=5000, borrowed=3000),
             node("b", "all", quota=6000, usage=2000, lent=3000)]  # fmt: skip
    used = {("a", "cpu"): Resources(3_600_000 * 4), ("b", "cpu"): Resources(3_600_000), ("b", "gpu"): Resources(9)}
    lines = picture.lines([{"project": "a", "class": "batch", "waiting": 3, "running": 1, "held": 0},
                           {"project": "b", "class": "service", "waiting": 4, "running": 0, "held": 1}])  # fmt: skip
    root = picture.tree(items, "cpu", "cpu", used, lines)
    assert root is not None
    a, b = root.below
    assert (root.hours, root.counts) == (5.0, Counts(7, 1, 1))
    assert (a.own, a.borrowed, a.kept, a.standing) == (2000, 3000, 0, 2.0)
    assert (b.own, b.lent, b.kept) == (2000, 3000, 1000)
    assert [(depth, branch.name) for depth, branch in picture.flat(root)] == [(0, "all"), (1, "a"), (1, "b")]
    assert [line.project for line in lines] == ["b", "a"]


async def test_the_page_says_in_words_what_its_picture_shows(served: Served) -> None:
    await served.add_site()
    await apply(served)

    def work(connection: Connection) -> None:
        ids = add(connection, *(new_job(project="astro") for _ in range(3)), new_job(project="bio", class_="service"))
        for job in ids[:3]:
            run(connection, job)
        spent.add(connection, [Use("astro", "anna", "cpu", False, NOW, Resources(1000, GIB), 7200)])

    await served.do(work)
    served.clock.now = from_micros(NOW)
    text = await page(served)
    assert "1 waiting, 3 running" in text
    assert 'aria-label="astro uses 3, its quota is 2, 1 borrowed"' in text
    assert "2.0 h in 7 days" in text
    assert 'aria-label="institute uses 3, its quota is 8"' in text
    assert '<tr id="quota-astro">' in text
    assert "<strong>astro</strong> 1" in text
    assert '<a href="/jobs?project=bio">bio</a>' in text


async def test_the_address_chooses_flavor_and_resource_and_a_piece_is_as_in_the_page(served: Served) -> None:
    await served.add_site()
    tree = {**TREE, "bio": {"parent": "institute", "quotas": {"cpu": {"memory": "8Gi"}}}}
    await apply(served, tree)
    text = await page(served, query="?flavor=cpu&resource=memory")
    assert 'aria-label="bio uses 0 B, its quota is 8 GiB"' in text
    piece = await page(served, query="?flavor=cpu&resource=memory", **{"hx-request": "true"})
    assert piece.strip().startswith('<div id="queue"')
    assert piece.strip() in text
    assert "its quota is" in await page(served, query="?flavor=nope&resource=gpu"), "what is not there is passed over"


async def test_evictions_name_the_job_to_its_person_and_administrators_only(served: Served) -> None:
    await served.add_site()
    await apply(served)

    def work(connection: Connection) -> None:
        victim, claim = add(
            connection, new_job(project="astro", class_="opportunistic", name="sweep-of-anna"),
            new_job(project="bio", owner="bob", class_="interactive"),
        )  # fmt: skip
        (attempt,) = run(connection, victim)
        evict(connection, [Eviction(attempt, claim)], NOW)
        end(connection, [attempt], Outcome.EVICTED)

    await served.do(work)
    for person, sees in (("anna", True), ("root", True), ("bob", False)):
        text = await page(served, person)
        assert ("sweep-of-anna" in text) is sees
        assert ("another person&#39;s" in text or "another person's" in text) is not sees
        assert "bio <span" in text


async def test_reservations_and_empty_states_are_told(served: Served) -> None:
    await served.add_site()
    text = await page(served)
    assert "No project tree" in text
    assert "Nothing waits, nothing runs" in text
    begin = served.clock() + timedelta(hours=1)
    body = {"name": "school", "flavor": "cpu", "cpu": "2", "people": ["anna"], "starts_at": begin.isoformat(),
            "ends_at": (begin + timedelta(hours=2)).isoformat()}  # fmt: skip
    async with served.client("root") as client:
        assert (await client.post("/api/v1/reservations", json=body)).status_code == 201
    assert "for anna" in await page(served)
    assert "for anna" not in await page(served, "bob")
