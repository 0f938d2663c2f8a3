"""The pages of jobs as they are sent: what is on them, for whom, and what their forms do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from atoll.core.states import JobState, Outcome
from tests.support.http import Served
from tests.support.rows import end, run, state

FRAGMENT = {"HX-Request": "true"}


async def _get(served: Served, path: str, person: str = "anna", **headers: str) -> str:
    async with served.client(person, **headers) as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


async def _post(served: Served, path: str, fields: dict[str, Any], person: str = "anna") -> Any:
    async with served.client(person) as client:
        return await client.post(path, data=fields)


def _ids(page: str) -> list[str]:
    return re.findall(r'<tr id="job-([^"]+)"', page)


async def _state(served: Served, job: int) -> JobState:
    found: JobState = await served.database.read(lambda connection: state(connection, job))
    return found


# ---- the list


async def test_members_see_their_own_jobs_and_administrators_everybodys(served: Served) -> None:
    hers, his = await served.submit("anna"), await served.submit("bob")
    assert _ids(await _get(served, "/jobs")) == [str(hers)]
    assert _ids(await _get(served, "/jobs?owner=bob")) == [str(hers)]
    assert _ids(await _get(served, "/jobs", "root")) == [str(his), str(hers)]
    assert _ids(await _get(served, "/jobs?owner=bob", "root")) == [str(his)]
    assert _ids(await _get(served, "/jobs?owner=me", "root")) == []


async def test_the_list_alone_is_sent_where_htmx_asks(served: Served) -> None:
    await served.submit()
    fragment = await _get(served, "/jobs", **FRAGMENT)
    assert fragment.lstrip().startswith('<div id="jobs"')
    assert "<html" not in fragment
    again = await _get(served, "/jobs", **FRAGMENT, **{"HX-History-Restore-Request": "true"})
    assert "<html" in again


@pytest.mark.parametrize(
    ("shown", "asked", "name", "address"),
    [
        ("/jobs", "/jobs?q=n&site=&class=", "push", "/jobs?q=n"),
        ("/jobs?q=ne", "/jobs?q=needle&site=", "replace", "/jobs?q=needle"),
        ("/jobs?q=ne&page=2&state=waiting", "/jobs?q=nee&state=waiting", "replace", "/jobs?q=nee&state=waiting"),
        ("/jobs?q=n", "/jobs?q=", "push", "/jobs"),
        ("/jobs?q=n", "/jobs?q=n&class=batch", "push", "/jobs?q=n&class=batch"),
    ],
)
async def test_a_search_is_one_step_back(served: Served, shown: str, asked: str, name: str, address: str) -> None:
    headers = {**FRAGMENT, "HX-Current-URL": f"http://127.0.0.1{shown}"}
    async with served.client("anna") as client:
        answer = await client.get(asked, headers={**headers, "HX-Source": "form#filters"})
        refresh = await client.get(asked, headers={**headers, "HX-Source": "div#jobs"})
    assert {key: answer.headers.get(f"hx-{key}-url") for key in ("push", "replace")} == {
        "push": None, "replace": None, name: address,
    }  # fmt: skip
    assert not [key for key in refresh.headers if key.endswith("-url")]


async def test_search_filters_and_sorting_are_in_the_address(served: Served) -> None:
    first = await served.submit(name="Train 100%")
    second = await served.submit(name="evaluate", **{"class": "interactive"})
    third = await served.submit(name="archive")
    await served.do(lambda connection: run(connection, second, site="here"))
    expected = {
        "q=train": [first], "q=N 100%25": [first], "q=%25": [first], f"q={second}": [second], "q=nothing": [],
        "state=waiting": [third, first], "state=running": [second], "state=queued": [third, first],
        "class=interactive": [second], "site=here": [second], "project=none": [],
        "sort=id": [first, second, third], "sort=-started": [second, third, first],
        "sort=state": [third, first, second],
        "state=nonsense&class=nonsense&sort=nonsense&page=nonsense": [third, second, first],
    }  # fmt: skip
    for query, jobs in expected.items():
        assert _ids(await _get(served, f"/jobs?{query}")) == [str(job) for job in jobs], query
    # databases have other ideas of the order of letters
    assert set(_ids(await _get(served, "/jobs?sort=name"))) == {str(job) for job in (first, second, third)}


async def test_pages_of_the_list(served: Served) -> None:
    async with served.client() as client:
        body = {"jobs": [{"command": ["true"], "name": f"job-{n:03}"} for n in range(120)]}
        assert (await client.post("/api/v1/jobs/bulk", json=body)).status_code == 201
    page = await _get(served, "/jobs?sort=name&page=3")
    assert 'role="status" id="count">120 jobs, page 3 of 3<' in page
    assert len(_ids(page)) == 20
    assert 'href="/jobs?sort=name&amp;page=2"' in page
    assert "past the end" in await _get(served, "/jobs?page=9")


async def test_the_sorted_column_says_so_and_its_header_turns_the_order(served: Served) -> None:
    await served.submit()
    page = await _get(served, "/jobs?sort=name")
    assert re.search(r'aria-sort="ascending">\s*<a href="/jobs\?sort=-name"', page)
    assert page.count("aria-sort") == 1


async def test_an_empty_list_says_what_to_do(served: Served) -> None:
    assert "No jobs yet" in await _get(served, "/jobs")
    assert "No job is like that" in await _get(served, "/jobs?q=x")


async def test_names_of_html_are_text(served: Served) -> None:
    name = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    job = await served.submit(name=name)
    for path in ("/jobs", f"/jobs/{job}", "/jobs?q=<script>alert(1)</script>"):
        page = await _get(served, path)
        assert "<script>alert" not in page
        assert "<img" not in page


async def test_an_array_is_one_entry(served: Served) -> None:
    array = await served.submit(array="0-9")
    await served.do(lambda connection: end(connection, run(connection, array, "0-2")))
    page = await _get(served, "/jobs")
    assert _ids(page) == [str(array)]
    assert "3 of 10 tasks ended" in page


# ---- views that are kept


async def test_views_are_kept_for_their_person_alone(served: Served) -> None:
    await served.submit()
    answer = await _post(served, "/jobs/views", {"name": "My <GPU> jobs", "query": "q=gpu&sort=name&page=7&x=evil"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?q=gpu&sort=name")
    page = await _get(served, "/jobs")
    assert "My &lt;GPU&gt; jobs" in page
    assert 'href="/jobs?q=gpu&amp;sort=name"' in page
    assert "GPU" not in await _get(served, "/jobs", "bob")
    await _post(served, "/jobs/views/remove", {"name": "My <GPU> jobs"})
    assert "GPU" not in await _get(served, "/jobs")


async def test_views_have_names_and_are_not_too_many(served: Served) -> None:
    for name in ("", " ", "x" * 41, "a\nb"):
        assert (await _post(served, "/jobs/views", {"name": name, "query": "q=x"})).status_code == 422
    for number in range(20):
        assert (await _post(served, "/jobs/views", {"name": f"v{number}", "query": "q=x"})).status_code == 303
    assert (await _post(served, "/jobs/views", {"name": "one more", "query": "q=x"})).status_code == 429
    assert (await _post(served, "/jobs/views", {"name": "v3", "query": "q=other"})).status_code == 303


# ---- acting


async def test_what_an_action_will_do_is_shown_before_it_does_it(served: Served) -> None:
    waits, runs, ended = [await served.submit() for _ in range(3)]
    await served.do(lambda connection: run(connection, runs))
    await served.do(lambda connection: end(connection, run(connection, ended)))
    fields = {"job": [str(waits), str(runs), str(ended)], "action": "cancel", "back": "/jobs?q=x"}
    shown = await _post(served, "/jobs/act", fields)
    assert shown.status_code == 200
    for sentence in ("1 that waits will end at once", "1 at a site will be asked to stop", "1 ended already"):
        assert sentence in shown.text
    assert await _state(served, waits) is JobState.QUEUED
    done = await _post(served, "/jobs/act", {**fields, "confirmed": "yes"})
    assert (done.status_code, done.headers["location"]) == (303, "/jobs?q=x&did=cancel-2")
    assert await _state(served, waits) is JobState.CANCELLED
    assert await _state(served, runs) is JobState.STOPPING
    assert "Cancelled 2 jobs and tasks." in await _get(served, "/jobs?q=x&did=cancel-2")


async def test_jobs_that_cannot_be_acted_on_are_told_one_by_one(served: Served) -> None:
    waits, ended = await served.submit(), await served.submit()
    await served.do(lambda connection: end(connection, run(connection, ended)))
    fields = {"job": [str(waits), str(ended)], "action": "hold", "confirmed": "yes"}
    answer = await _post(served, "/jobs/act", fields)
    assert answer.status_code == 409
    assert f"Job {ended} has ended" in answer.text
    assert "Held 1 job or task." in answer.text
    assert await _state(served, waits) is JobState.HELD


async def test_nobody_acts_on_another_persons_jobs(served: Served) -> None:
    his = await served.submit("bob")
    fields = {"job": str(his), "action": "cancel"}
    assert (await _post(served, "/jobs/act", fields)).status_code == 404
    assert (await _post(served, "/jobs/act", {**fields, "confirmed": "yes"})).status_code == 409
    assert await _state(served, his) is JobState.QUEUED


async def test_a_form_leads_back_into_the_list_and_nowhere_else(served: Served) -> None:
    job = await served.submit()
    for back in ("https://evil.example/", "//evil.example", "/jobs/../x", "/jobs\\evil", "/jobsx"):
        answer = await _post(served, "/jobs/act", {"job": str(job), "action": "hold", "confirmed": "y", "back": back})
        assert answer.headers["location"] == "/jobs"


@pytest.mark.parametrize(
    "fields",
    [{}, {"action": "cancel"}, {"action": "explode", "job": "1"}, {"action": "cancel", "job": "x"},
     {"action": "cancel", "job": [str(n) for n in range(1, 300)]}],
)  # fmt: skip
async def test_forms_that_mean_nothing_are_told_on_a_page(served: Served, fields: dict[str, Any]) -> None:
    answer = await _post(served, "/jobs/act", fields)
    assert answer.status_code in (415, 422)
    assert '<p class="message bad">' in answer.text


# ---- one job


async def test_the_page_of_a_job_that_waits(served: Served) -> None:
    job = await served.submit(name="train", cpu="2", walltime="1h")
    page = await _get(served, f"/jobs/{job}")
    assert "2 CPU" in page
    assert "1h 0m" in page
    assert "name: train" in page
    assert 'id="do-cancel"' in page
    assert 'id="do-hold"' in page
    assert 'id="do-release"' not in page
    assert f"/live?job={job}&amp;log={job}" in page


async def test_the_page_of_a_job_that_failed_has_its_attempts(served: Served) -> None:
    job = await served.submit(retries=1)
    [first] = await served.do(lambda connection: run(connection, job, site="mountain"))
    await served.do(lambda connection: end(connection, [first], Outcome.FAILED))
    page = await _get(served, f"/jobs/{job}")
    assert 'id="attempt-1"' in page
    assert "mountain" in page
    assert 'id="do-requeue"' in page
    assert 'id="do-cancel"' not in page


async def test_other_peoples_jobs_are_not_there(served: Served) -> None:
    his = await served.submit("bob")
    async with served.client() as client:
        for path in (f"/jobs/{his}", f"/jobs/{his}/log", "/jobs/999", "/jobs/999[3]"):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert "There is no job" in answer.text
            assert "<h1>Not found</h1>" in answer.text


async def test_an_array_has_its_tasks_and_each_task_a_page(served: Served) -> None:
    array = await served.submit(array="0-119")
    await served.do(lambda connection: run(connection, array, "0"))
    page = await _get(served, f"/jobs/{array}")
    assert page.count('<tr id="task-') == 50
    assert 'href="/jobs/1?after=49"' in page
    assert "119</b> waiting" in page
    assert 'id="log"' not in page
    task = await _get(served, f"/jobs/{array}[0]")
    assert 'id="log"' in task
    assert f'<a href="/jobs/{array}">' in task


# ---- its output


async def _with_output(served: Served, text: bytes, *, head: int | None = None) -> int:
    from atoll.store import logs
    from atoll.store.logs import StoredLog

    job = await served.submit()
    [attempt] = await served.do(lambda connection: run(connection, job))
    await served.do(lambda connection: end(connection, [attempt]))
    first, last = (text, b"") if head is None else (text[:head], text[head:])
    served.platform.logs.write(attempt, "stdout", first, last)
    stored = StoredLog(attempt, "stdout", len(text), len(first), len(last))
    await served.do(lambda connection: logs.put(connection, [stored]))
    return job


def _lines(page: str) -> list[str]:
    return re.findall(r"<div>(?:<a [^>]*>[^<]*</a> )?(.*?)</div>", page.partition('role="log"')[2])


async def test_the_end_of_a_long_log_is_shown_and_what_was_before_by_link(served: Served) -> None:
    text = "".join(f"line {number}\n" for number in range(100_000)).encode()
    job = await _with_output(served, text)
    page = await _get(served, f"/jobs/{job}")
    assert _lines(page) == [f"line {number}" for number in range(99_500, 100_000)]
    link = re.search(r'id="earlier" href="([^"]+)"', page)
    assert link is not None
    earlier = await _get(served, link[1].replace("&amp;", "&"), **FRAGMENT)
    assert _lines(earlier) == [f"line {number}" for number in range(99_000, 99_500)]
    assert earlier.lstrip().startswith("<section")


async def test_a_log_is_searched_from_its_end(served: Served) -> None:
    text = "".join(f"{'Error' if number % 1000 == 0 else 'line'} {number}\n" for number in range(300_000)).encode()
    job = await _with_output(served, text)
    found = await _get(served, f"/jobs/{job}/log?find=error", **FRAGMENT)
    assert _lines(found) == [f"Error {number}" for number in range(100_000, 300_000, 1000)]
    link = re.search(r'id="earlier" href="([^"]+)"', found)
    assert link is not None
    further = await _get(served, link[1].replace("&amp;", "&"), **FRAGMENT)
    assert _lines(further) == [f"Error {number}" for number in range(0, 100_000, 1000)]
    assert "No lines with" in await _get(served, f"/jobs/{job}/log?find=nowhere", **FRAGMENT)


async def test_output_can_neither_act_nor_pretend(served: Served) -> None:
    text = b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m\n10%\r50%\r100%\n\x00\x08<script>\xff\xe2\x80\xaeevil\nlast"
    page = await _get(served, f"/jobs/{await _with_output(served, text)}")
    assert _lines(page) == ["red", "100%", "\u2400\u2408&lt;script&gt;\ufffd\ufffdevil", "last"]


async def test_one_line_without_end_is_cut(served: Served) -> None:
    page = await _get(served, f"/jobs/{await _with_output(served, b'x' * 1_000_000)}")
    [line] = _lines(page)
    assert len(line) < 5_000


async def test_the_other_stream_is_said_to_be_empty(served: Served) -> None:
    job = await _with_output(served, b"out\n")
    assert "Nothing was written to stderr." in await _get(served, f"/jobs/{job}/log?stream=stderr", **FRAGMENT)
