"""Pictures of every page, light and dark, wide and narrow: `python -m tests.viewer.screenshots OUT [PAGE ...]`.

`--readme` as the only argument renews the one in the README instead. They are for people to look at. Everything is
served on loopback from a database of its own that is thrown away.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.viewer.browser import ARGUMENTS, executable
from tests.viewer.scene import Scene

PAGES = {
    "instances": "/instances",
    "instances-filtered": "/instances?status=failed&workflow=shop.order",
    "instances-empty": "/instances?id=nothing-like-it",
    "order-failed": "/instances/order-0004",
    "order-retried": "/instances/order-0007",
    "order-call": "/instances/order-0007?call=pay:1",
    "order-undone-call": "/instances/order-0004?call=undo%2Fpay:1",
    "waiting": "/instances/approval-1",
    "timer": "/instances/reminder-1",
    "running": "/instances/slow-1",
    "backoff": "/instances/stubborn-1",
    "stuck": "/instances/trip-1",
    "parent": "/instances/campaign-1",
    "long": "/instances/weekend-1",
    "workflows": "/workflows",
    "workflow": "/workflows/one?name=shop.order",
    "starts": "/start",
    "start": "/start?workflow=shop.order",
    "start-rich": "/start?workflow=shop.delivery",
    "events": "/events",
    "waits": "/events?tab=waits",
    "outbox": "/outbox",
    "outbox-delivered": "/outbox?status=delivered",
    "workers": "/workers",
    "missing": "/instances/no-such-instance",
}
WIDTHS = {"wide": 1440, "narrow": 390}


README_PICTURE = Path(__file__).parents[2] / "docs" / "assets" / "viewer.png"


def picture_of_the_readme() -> None:
    """An instance, without the footer: that names a database of this machine."""
    from playwright.sync_api import sync_playwright

    with Scene.begun() as scene, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1440, "height": 1600}, color_scheme="light")
        page.goto(scene.address_with_token)
        page.goto(scene.address + PAGES["order-retried"])
        page.wait_for_selector("#liveness.on")
        page.set_viewport_size({"width": 1440, "height": page.evaluate(CONTENT_BOTTOM)})
        page.screenshot(path=str(README_PICTURE))
        browser.close()


CONTENT_BOTTOM = "Math.ceil(document.querySelector('.columns').getBoundingClientRect().bottom) + 24"


def main(arguments: Sequence[str]) -> None:
    from playwright.sync_api import sync_playwright

    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    wanted = {name: PAGES[name] for name in arguments[1:]} or PAGES
    with Scene.begun() as scene, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(ARGUMENTS))
        for theme in ("light", "dark"):
            for label, width in WIDTHS.items():
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
                page = context.new_page()
                page.goto(scene.address_with_token)
                for name, path in wanted.items():
                    page.goto(scene.address + path)
                    page.wait_for_selector("#liveness.on, #page:not([data-live])")
                    page.screenshot(path=str(out / f"{name}-{theme}-{label}.png"), full_page=True)
                context.close()
        token = browser.new_context(viewport={"width": 390, "height": 700}).new_page()
        token.goto(scene.address + "/instances")
        token.screenshot(path=str(out / "token-light-narrow.png"))
        browser.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--readme"]:
        picture_of_the_readme()
    else:
        main(sys.argv[1:])
