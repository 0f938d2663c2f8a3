"""What holds for the whole API: nobody without a token, every error a problem document, a true OpenAPI document."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atoll.core.errors import from_problem
from atoll.faces.http.body import JSON_LIMIT
from tests.support.http import Served

PUBLIC = {"/healthz", "/readyz", "/metrics", "/api/v1/version", "/api/v1/login/device", "/api/v1/login/device/token"}


async def _document(served: Served) -> dict[str, Any]:
    async with served.client(None) as client:
        found: dict[str, Any] = (await client.get("/api/v1/openapi.json")).json()
    return found


async def test_every_operation_but_the_public_ones_refuses_whoever_has_no_token(served: Served) -> None:
    document = await _document(served)
    async with served.client(None) as client:
        for path, methods in document["paths"].items():
            if path in PUBLIC:
                continue
            for method in methods:
                place = path.replace("{id}", "1").replace("{sha256}", "0" * 64).replace("{token_id}", "ab")
                place = place.replace("{person}", "x")
                answer = await client.request(method, place.replace("{name}", "x").replace("{path}", "y"))
                assert answer.status_code == 401, (method, path)
                assert methods[method]["security"] == [{"token": []}]


async def test_the_document_names_every_kind_of_error(served: Served) -> None:
    document = await _document(served)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) > 400:  # 400 is the server's own, where it finds no HTTP
                    assert list(answer["content"]) == ["application/problem+json"], path
    assert {"JobSpec", "JobChanges", "Problem", "Job", "JobSummary"} <= set(document["components"]["schemas"])


async def test_every_reference_in_the_document_leads_somewhere(served: Served) -> None:
    document = await _document(served)

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/jobs/", 404),
        ("PUT", "/api/v1/jobs", 405),
        ("DELETE", "/api/v1/jobs/1", 405),
        ("GET", "/api/v1/jobs/zzz", 422),
        ("GET", "/api/v1/jobs/0", 422),
        ("GET", "/api/v1/jobs/999", 404),
        ("GET", "/api/v1/jobs/999999999999999999999", 422),
        ("GET", "/api/v1/jobs?limit=0", 422),
        ("GET", "/api/v1/jobs?array=99999999999999999999", 422),
        ("GET", "/api/v1/jobs?cursor=xyz", 422),
        ("GET", "/api/v1/jobs?name=%00", 422),
        ("GET", "/api/v1/jobs?since=yesterday", 422),
        ("GET", "/api/v1/jobs?state=sleeping", 422),
        ("GET", "/api/v1/sites/none", 404),
    ],
)
async def test_errors_are_problem_documents(served: Served, method: str, path: str, status: int) -> None:
    async with served.client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["detail"].endswith(".")
    assert from_problem(document).code == document["code"]


async def test_a_body_of_another_type_is_refused_and_says_which_is_wanted(served: Served) -> None:
    async with served.client() as client:
        answer = await client.post("/api/v1/jobs", content=b"x", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"command": ["\\ud800"]}'])
async def test_a_body_that_is_no_job_is_refused(served: Served, content: bytes) -> None:
    async with served.client() as client:
        for path in ("/api/v1/jobs", "/api/v1/jobs?hold=false", "/api/v1/jobs/bulk"):
            answer = await client.post(path, content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 422, (path, answer.text)


async def test_a_body_with_a_hundred_thousand_mistakes_is_refused_quickly_and_briefly(served: Served) -> None:
    body = {f"field{number}": 1 for number in range(100_000)}
    async with served.client() as client:
        for path, content in (("/api/v1/jobs", body), ("/api/v1/jobs/bulk", {"jobs": [body]})):
            async with asyncio.timeout(20):
                answer = await client.post(path, json=content)
            assert answer.status_code == 422
            assert len(answer.content) < 1000


async def test_a_body_that_is_too_large_is_refused_with_and_without_a_length(served: Served) -> None:
    async def pieces() -> Any:
        for _ in range(JSON_LIMIT // (1 << 20) + 1):
            yield b" " * (1 << 20)

    async with served.client() as client:
        for content in (b" " * (JSON_LIMIT + 1), pieces()):
            answer = await client.post("/api/v1/jobs", content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 413
            assert "32 MiB" in answer.json()["detail"]


async def test_a_database_that_does_not_answer_is_a_sentence(served: Served) -> None:
    async with served.client() as client:
        assert (await client.get("/api/v1/me")).status_code == 200
        served.database.close()
        answer = await client.post("/api/v1/jobs", json={"command": ["true"]})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["detail"].endswith(".")


async def test_health_needs_nothing_and_readiness_needs_the_database(served: Served) -> None:
    async with served.client(None) as client:
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).text == "ok\n"
        assert (await client.get("/api/v1/version")).json() == {"version": "1.2.3", "api": "v1"}


async def test_a_visitor_is_shown_the_way_to_the_login_and_told_nothing(served: Served) -> None:
    await served.add_site("cluster")
    async with served.client(None) as client:
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        page = await client.get("/login")
    assert page.status_code == 200
    assert "cluster" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_a_visitor_from_elsewhere_is_not_told_what_runs(served: Served) -> None:
    await served.add_site("cluster")
    async with served.client(None, **{"x-forwarded-for": "192.0.2.7"}) as client:
        page = await client.get("/")
        assert "cluster" not in page.text
        assert (await client.get("/metrics")).status_code == 401
    async with served.client("anna", **{"x-forwarded-for": "192.0.2.7"}) as client:
        assert (await client.get("/metrics")).status_code == 403


async def test_metrics_tell_jobs_and_sites(served: Served) -> None:
    await served.add_site("cluster")
    await served.submit()
    async with served.client(None) as client:
        text = (await client.get("/metrics")).text
    assert 'atoll_jobs{state="queued"} 1.0' in text
    assert 'atoll_site_up{site="cluster"} 1.0' in text
    assert 'atoll_site_total{flavor="cpu",resource="cpu",site="cluster"} 8000.0' in text


async def test_the_reference_page_shows_every_operation(served: Served) -> None:
    document = await _document(served)
    async with served.client(None) as client:
        page = (await client.get("/api/docs")).text
    for path in document["paths"]:
        assert path in page
    assert "<script" not in page


async def test_many_requests_at_once_look_a_token_up_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    read = served.database.read

    async def counted(work: Any) -> Any:
        nonlocal asked
        asked += 1
        return await read(work)

    monkeypatch.setattr(served.database, "read", counted)
    async with served.client() as client:
        answers = await asyncio.gather(*(client.get("/api/v1/me") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert asked == 1


async def test_status_counts_ones_own_jobs_and_an_administrator_sees_all(served: Served) -> None:
    await served.submit("anna")
    await served.submit("bob")
    async with served.client("anna") as anna, served.client("root") as root:
        mine, all_of_them = (await anna.get("/api/v1/status")).json(), (await root.get("/api/v1/status")).json()
    assert mine["jobs"] == {"queued": 1}
    assert all_of_them["jobs"] == {"queued": 2}
    assert mine["instance"] == served.platform.instance
