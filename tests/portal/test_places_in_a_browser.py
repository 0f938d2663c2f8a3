"""Home, Sites and Queue as people use them, in a browser before the demonstration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.portal.conftest import OpenPage
from tests.support.demo import RunningDemo

_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
_PHONE = {"width": 390, "height": 844}
_PAGES = ["/", "/sites", "/sites/kestrel", "/sites/-/add", "/queue", "/queue?flavor=cpu&resource=cpu"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    with RunningDemo(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


def _update(page: Page, id: str) -> None:
    """Have a live page fetch itself anew, and wait until it has."""
    with page.expect_response(lambda answer: answer.request.headers.get("hx-request") == "true"):
        page.evaluate(f"htmx.trigger('#{id}', 'every')")
    page.wait_for_timeout(200)


@pytest.mark.parametrize("path", _PAGES)
def test_pages_are_accessible_light_and_dark_and_fit_a_phone(browser_page: OpenPage, path: str) -> None:
    for options in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": _PHONE}):
        page = browser_page(path, **options)
        found = Axe().run(page, options=_RULES)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_folded_branches_and_focus_stay_while_the_queue_lives_on(browser_page: OpenPage) -> None:
    page = browser_page("/queue")
    page.locator("#fold-physics").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#branch-physics")).not_to_have_attribute("open", "")
    page.get_by_text("The same as a table").click()
    page.locator("#fold-physics").focus()
    _update(page, "queue")
    expect(page.locator("#branch-physics")).not_to_have_attribute("open", "")
    expect(page.locator("#quota-stars")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "fold-physics"


def test_another_flavor_is_an_address_with_and_without_script(browser_page: OpenPage) -> None:
    for script in (True, False):
        page = browser_page("/queue", java_script_enabled=script)
        page.get_by_role("link", name="gpu-l40s").click()
        expect(page.locator("#show-gpu-l40s-gpu")).to_have_attribute("aria-current", "true")
        assert page.url.endswith("/queue?flavor=gpu-l40s&resource=gpu")


def test_a_site_is_drained_and_works_again(running: RunningDemo, browser_page: OpenPage) -> None:
    page = browser_page("/sites")
    page.get_by_role("link", name="wren").click()
    page.get_by_role("button", name="Drain").click()
    expect(page.get_by_text("This site is drained")).to_be_visible()
    assert running.client.site("wren").drained
    page.get_by_role("link", name="Home").click()
    expect(page.get_by_label("Messages")).to_contain_text("wren is drained")
    page.go_back()
    page.get_by_role("button", name="Let it work again").click()
    expect(page.get_by_role("button", name="Drain")).to_be_visible()
    page.get_by_role("button", name="Ask it now").click()
    expect(page.get_by_text("It answered in")).to_be_visible()


def test_a_mistake_in_a_site_file_is_said_at_its_line_and_corrected(running: RunningDemo, chromium: Browser) -> None:
    # a page of its own: browsers write onto the console that the answer was 422
    headers = {"Authorization": f"Bearer {running.token}"}
    page = chromium.new_context(base_url=running.url, extra_http_headers=headers).new_page()
    page.goto("/sites/-/add")
    field = page.get_by_label("Site file (YAML)")
    # a flavor of which no project has any: the demonstration places nothing there
    field.fill("name: heron\ndriver: fake\nconfig:\n  nods: 3\n  flavor: nobodys\n")
    with page.expect_response("**/sites/-/add") as answer:
        page.get_by_role("button", name="Add it").click()
    assert answer.value.status == 422
    expect(page.locator("#file-wrong-1")).to_contain_text("Line 4")
    expect(field).to_be_focused()
    field.fill(field.input_value().replace("nods", "nodes"))
    page.get_by_role("button", name="Add it").click()
    expect(page.get_by_role("heading", name="heron", level=1)).to_be_visible()
    running.client.remove_site("heron")
    page.context.close()


def test_the_first_page_shows_my_jobs_and_keeps_focus(running: RunningDemo, browser_page: OpenPage) -> None:
    job = running.client.submit(command=["sleep", "600"], name="mine-alone", project="vision", hold=True)
    page = browser_page("/")
    link = page.get_by_role("link", name="mine-alone")
    expect(link).to_be_visible()
    link.focus()
    _update(page, "home")
    expect(link).to_be_focused()
    page.get_by_text("From a terminal").click()
    expect(page.get_by_role("button", name="Copy").first).to_be_visible()
    _update(page, "home")
    expect(page.get_by_role("button", name="Copy").first).to_be_visible()
    running.client.cancel(job.id)
    _update(page, "home")
    expect(page.get_by_role("region", name="Ended since yesterday")).to_contain_text("mine-alone")
