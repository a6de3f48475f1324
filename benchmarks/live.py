"""How long after the commit of a change a page of the viewer shows it, in a browser; the bar is one second.

    python -m benchmarks.live --databases sqlite,postgresql,mysql --changes 25

Each change is a row written by another connection at a moment of chance. Its commit and the moment at which the page's
document holds it are read from one clock, that of this machine; nobody reloads.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence

from playwright.sync_api import Page, sync_playwright
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.figures import table
from tests.databases import available
from tests.viewer.browser import ARGUMENTS, executable
from tests.viewer.scene import Scene
from tests.viewer.statements import DRIVERS

WAIT_MS_MAX = 30_000
PAUSE_SECONDS = (0.7, 1.9)
"""Between two changes, so that they meet the viewer's looks at every phase."""

NOTE_WHEN = """
window.seen = {};
new MutationObserver(() => {
  for (const [word] of document.body.textContent.matchAll(/change-\\d+/g)) window.seen[word] ??= Date.now();
}).observe(document.documentElement, { subtree: true, childList: true, characterData: true });
"""

PAGES: dict[str, tuple[str, str]] = {
    "list": ("/instances", "update edda_instance set reason = :word where id = 'approval-1'"),
    "instance": (
        "/instances/approval-1",
        "insert into edda_history (instance_id, seq, claim, at_us, kind, call_id, name) "
        "values ('approval-1', 1000 + :number, 1, :now_us, 'ActivityCompleted', :word, :word)",
    ),
    "outbox": ("/outbox", "update edda_outbox set reason = :word where id = '0190-dead-0'"),
}
"""The path, and what changes on it."""


def delays(scene: Scene, page: Page, engine: AsyncEngine, path: str, statement: str, count: int) -> list[float]:
    """Milliseconds from each commit to its sight."""
    page.goto(scene.address + path)
    page.wait_for_selector("#liveness.on")
    page.evaluate(NOTE_WHEN)
    chance = random.Random(7)
    found: list[float] = []
    for number in range(count):
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        word = f"change-{number:03}"
        committed = scene.run(commit(engine, statement, word, number))
        page.wait_for_function("(word) => window.seen[word]", arg=word, timeout=WAIT_MS_MAX)
        found.append(page.evaluate("(word) => window.seen[word]", word) - committed)
    return found


async def commit(engine: AsyncEngine, statement: str, word: str, number: int) -> float:
    """When it was durable, in milliseconds since 1970."""
    values = {"word": word, "number": number, "now_us": time.time_ns() // 1000}
    wanted = {name: value for name, value in values.items() if f":{name}" in statement}
    async with engine.begin() as connection:
        await connection.execute(text(statement), wanted)
    return time.time_ns() / 1e6


def measure(kind: str, count: int, open_page: Callable[[], Page]) -> list[list[str]]:
    with Scene.begun(kind=kind) as scene:
        parsed = make_url(scene.url)
        engine = create_async_engine(parsed.set(drivername=DRIVERS[kind]))
        page = open_page()
        page.goto(scene.address_with_token)
        rows = [
            [kind, name, *figures(delays(scene, page, engine, path, statement, count))]
            for name, (path, statement) in PAGES.items()
        ]
        page.context.close()
        scene.run(engine.dispose())
    return rows


def figures(found: Sequence[float]) -> list[str]:
    ordered = sorted(found)
    return [str(len(found)), *(f"{value:.0f} ms" for value in (ordered[len(ordered) // 2], ordered[-1]))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", default="sqlite,postgresql,mysql")
    parser.add_argument("--changes", type=int, default=25)
    options = parser.parse_args(arguments)
    kinds = [kind for kind in options.databases.split(",") if available()[kind] is not None]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(ARGUMENTS))
        rows = [
            row for kind in kinds for row in measure(kind, options.changes, lambda: browser.new_context().new_page())
        ]
        browser.close()
    print(table("From a commit to its sight in the browser", ["database", "page", "changes", "p50", "max"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
