"""A browser, a shop, and a page that notices whatever a page should not do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from edda.viewer.session import Sessions
from tests.viewer import browser as chromium
from tests.viewer.scene import TOKEN, Scene

expect.set_options(timeout=20_000)
"""Milliseconds: a machine that runs other tests, too, may be slow."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the whole session: while it lives, a loop counts as running here, and no test with its own could run."""
    executable = chromium.executable()
    if executable is None:
        pytest.skip("!!! NOT TESTED IN A BROWSER !!! there is no chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=list(chromium.ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def scene(browser: Browser) -> Iterator[Scene]:
    """One of each fate. Tests that change it add instances of their own."""
    with Scene.begun() as scene:
        yield scene


@dataclass
class Watch:
    """What a page did that it should not."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    navigations: int = 0
    may_miss: bool = False
    """Pages that do not exist are asked for."""
    may_refuse: bool = False
    """A form is sent that is not right."""

    def nothing_bad(self) -> None:
        expected = [
            text for text, may in (("404 (Not Found)", self.may_miss), ("422 (Unprocessable", self.may_refuse)) if may
        ]
        errors = [error for error in self.errors if not any(text in error for text in expected)]
        assert (errors, self.foreign, self.dialogs) == ([], [], [])


NOTICE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(event.violatedDirective + " " + event.blockedURI + " " + event.sample));
"""


def watched_page(browser: Browser, scene: Scene, **options: Any) -> tuple[Page, Watch]:
    """A page of a visitor who has shown the token."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    context.set_default_timeout(15_000)
    context.add_init_script(NOTICE_VIOLATIONS)
    page = context.new_page()
    watch = Watch()
    page.on("console", lambda said: watch.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    page.on("dialog", lambda dialog: (watch.dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda asked: watch.foreign.append(asked.url) if not is_own(asked.url, scene) else None)
    page.on("framenavigated", lambda _: setattr(watch, "navigations", watch.navigations + 1))
    cookies = Sessions(TOKEN)
    context.add_cookies([{"name": cookies.cookie_name, "value": cookies.new_cookie(), "url": scene.address}])
    return page, watch


def is_own(url: str, scene: Scene) -> bool:
    return url.startswith((scene.address + "/", "data:"))


@pytest.fixture
def visit(browser: Browser, scene: Scene) -> Iterator[tuple[Page, Watch]]:
    page, watch = watched_page(browser, scene)
    yield page, watch
    violations = page.evaluate("window.violations")
    page.context.close()
    watch.nothing_bad()
    assert violations == []
