"""The pages of jobs as people use them, in a browser before a running platform."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.portal.conftest import OpenPage
from tests.support.platform import RunningPlatform

_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
_PHONE = {"width": 390, "height": 844}


def _submit(running: RunningPlatform, hold: bool = True, **spec: object) -> int:
    answer = running.request("POST", "/api/v1/jobs", json={"command": ["true"], **spec}, params={"hold": hold})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def _focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id"))


def test_rows_change_while_a_row_keeps_focus_and_ticks_stay(running: RunningPlatform, browser_page: OpenPage) -> None:
    job, other = _submit(running), _submit(running)
    page = browser_page("/jobs")
    page.check(f"#tick-{other}")
    page.focus(f"#open-{job}")
    running.request("POST", f"/api/v1/jobs/{job}/cancel")
    expect(page.locator(f"#job-{job} .state")).to_have_text("cancelled", timeout=3_000)
    new = _submit(running)
    expect(page.locator(f"#job-{new}")).to_be_visible(timeout=5_000)
    assert _focused(page) == f"open-{job}"
    expect(page.locator(f"#tick-{other}")).to_be_checked()
    expect(page.get_by_text("1 ticked:")).to_be_visible()


def test_a_script_that_comes_late_keeps_no_page_from_being_live(
    running: RunningPlatform, browser_page: OpenPage
) -> None:
    def late(route: Route) -> None:
        answer = route.fetch()
        page.wait_for_timeout(300)
        route.fulfill(response=answer)

    job = _submit(running)
    page = browser_page("/queue")
    page.route(re.compile(r"/vendor/hx-sse\.js$"), late)
    page.goto("/jobs")
    running.request("POST", f"/api/v1/jobs/{job}/cancel")
    expect(page.locator(f"#job-{job} .state")).to_have_text("cancelled")


def test_search_filters_as_one_types_and_back_comes_back(running: RunningPlatform, browser_page: OpenPage) -> None:
    job = _submit(running, name="needle-in-hay")
    _submit(running)
    page = browser_page("/jobs")
    page.get_by_label("Name or id").press_sequentially("needle", delay=20)
    expect(page.get_by_role("status").filter(has_text="1 job")).to_be_visible()
    expect(page).to_have_url(re.compile(r"[?&]q=needle"))
    assert _focused(page) == "q"
    page.get_by_role("link", name="Waiting").click()
    expect(page).to_have_url(re.compile(r"state=waiting"))
    expect(page.locator(f"#job-{job}")).to_be_visible()
    page.go_back()
    page.go_back()
    expect(page.locator("#q")).to_have_value("")


def test_back_leaves_a_search_at_once_however_slowly_it_was_typed(
    running: RunningPlatform, browser_page: OpenPage
) -> None:
    _submit(running, name="needle-in-hay")
    page = browser_page("/jobs")
    for typed in ("ne", "need", "needle"):
        page.get_by_label("Name or id").press_sequentially(typed[-2:])
        expect(page).to_have_url(re.compile(rf"[?&]q={typed}$"))
    page.go_back()
    expect(page.locator("#q")).to_have_value("")


def test_what_is_typed_while_an_answer_is_on_its_way_stays(running: RunningPlatform, browser_page: OpenPage) -> None:
    page = browser_page("/jobs")
    held: list[Route] = []
    page.route(re.compile(r"/jobs\?q=ne&"), lambda route: held.append(route))
    search = page.get_by_label("Name or id")
    with page.expect_request(re.compile(r"/jobs\?q=ne&")):
        search.press_sequentially("ne")
    search.press_sequentially("e")
    held[0].continue_()
    expect(page).to_have_url(re.compile(r"[?&]q=nee$"))
    expect(search).to_have_value("nee")
    assert _focused(page) == "q"


def test_the_list_works_without_script(running: RunningPlatform, browser_page: OpenPage) -> None:
    job = _submit(running, name="plain")
    page = browser_page("/jobs?q=plain", java_script_enabled=False)
    page.get_by_role("link", name="Name").click()
    assert page.url.endswith("/jobs?q=plain&sort=name")
    page.check(f"#tick-{job}")
    page.get_by_role("button", name="Cancel").click()
    assert "1 that waits on hold will end at once." in page.inner_text("main")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(f"#job-{job} .state")).to_have_text("cancelled")


def test_output_is_followed_as_it_is_written(running: RunningPlatform, browser_page: OpenPage) -> None:
    script = "for n in $(seq 2000); do echo line $n; done; sleep 1; echo '<b>late</b>'; echo wrong >&2; sleep 60"
    job = _submit(running, hold=False, command=["sh", "-c", script], cpu="100m")
    page = browser_page(f"/jobs/{job}")
    log = page.get_by_role("log")
    expect(log).to_contain_text("<b>late</b>", timeout=20_000)
    assert log.locator("div").count() <= 500
    page.get_by_role("link", name="stderr").click()
    expect(log).to_contain_text("wrong")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#why-title .state")).to_have_text("cancelled", timeout=20_000)


def test_names_that_are_html_run_nothing(running: RunningPlatform, browser_page: OpenPage) -> None:
    job = _submit(running, name="<img src=x onerror=\"document.title='hacked'\">")
    page = browser_page("/jobs")
    running.request("POST", f"/api/v1/jobs/{job}/cancel")
    expect(page.locator(f"#job-{job} .state")).to_have_text("cancelled", timeout=3_000)
    page.goto(f"/jobs/{job}")
    assert "hacked" not in page.title().split(" ")
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_pages_are_within_reach_of_everybody(running: RunningPlatform, browser_page: OpenPage, look: str) -> None:
    job = _submit(running, name="x" * 255, hold=False, command=["sh", "-c", "echo out; exit 3"])
    array = _submit(running, array="0-60")
    running.request("POST", f"/api/v1/jobs/{array}[3]/cancel")
    options = {"viewport": _PHONE} if look == "phone" else {"color_scheme": look}
    page = browser_page(f"/jobs/{job}", **options)
    expect(page.locator("#why-title .state")).to_have_text("failed", timeout=20_000)
    for path in ("/jobs", "/jobs?q=nothing-is-like-that", f"/jobs/{job}", f"/jobs/{array}", f"/jobs/{array}[3]"):
        page.goto(path)
        page.wait_for_selector("h1")
        found = Axe().run(page, options=_RULES).response["violations"]
        assert not found, (path, [(each["id"], [node["html"] for node in each["nodes"][:3]]) for each in found])
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= page.evaluate("window.innerWidth"), path
