"""What axe-core finds on every page, in light and in dark: nothing that breaks WCAG 2.2 at A or AA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.viewer.conftest import watched_page
from tests.viewer.scene import Scene
from tests.viewer.screenshots import PAGES, WIDTHS

pytestmark = pytest.mark.browser

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}


@pytest.fixture(params=[(theme, label) for theme in ("light", "dark") for label in WIDTHS], ids="-".join)
def page(request: pytest.FixtureRequest, browser: Browser, scene: Scene) -> Iterator[Page]:
    theme, label = request.param
    page, _ = watched_page(browser, scene, color_scheme=theme)
    page.set_viewport_size({"width": WIDTHS[label], "height": 900})
    yield page
    page.context.close()


def violations(page: Page) -> list[str]:
    """Each rule with the first elements that break it."""
    found: Any = Axe().run(page, options=RULES).response
    return [f"{one['id']}: {[node['html'][:160] for node in one['nodes'][:3]]}" for one in found["violations"]]


@pytest.mark.timeout(300)
def test_no_page_shuts_anybody_out(page: Page, scene: Scene) -> None:
    found = {}
    for name, path in PAGES.items():
        page.goto(scene.address + path)
        expect(page.locator("#liveness.on, #page:not([data-live])").first).to_be_visible()
        found[name] = violations(page)
    assert {name: broken for name, broken in found.items() if broken} == {}


def test_nor_does_what_is_unfolded(page: Page, scene: Scene) -> None:
    """Boxes that ask, forms with mistakes, everything folded open, and the page that asks for the token."""
    page.goto(scene.address + "/instances/approval-1")
    page.get_by_role("button", name="Cancel…").click()
    assert violations(page) == []
    page.goto(scene.address + "/start?workflow=shop.delivery")
    for name in ("Give gift", "Add to tags", "Give items", "Add to items"):
        page.get_by_role("button", name=name).click()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".wrong").first).to_be_visible()
    assert violations(page) == []
    page.goto(scene.address + "/instances/order-0004?call=ship:1")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert violations(page) == []
    page.context.clear_cookies()
    page.goto(scene.address + "/instances")
    expect(page.get_by_label("Token")).to_be_visible()
    assert violations(page) == []
