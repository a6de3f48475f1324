"""Whatever is stored is shown as text: every payload in every field that a page shows, in a headless Chromium."""

# ruff: noqa: E501 - rows of tables are read best in one line

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from edda.viewer.asked import instance_path
from tests.viewer.conftest import Watch, watched_page
from tests.viewer.payloads import PAYLOADS
from tests.viewer.scene import Scene

pytestmark = [pytest.mark.timeout(300), pytest.mark.browser]
"""A browser is slow where others work, too."""

FIELDS = {
    "edda_instance": (
        "id, workflow, status, reason, owner, claim, wakes, cancel_requested_at_us, cancelled_by, crashes, input, args_hash, "
        "output, error, parent_id, detached, source_hash, python, created_at_us, updated_at_us, ended_at_us, seen_wakes, "
        "claim_key"
    ),
    "edda_history": "instance_id, seq, claim, at_us, kind, call_id, name, input, output, meta",
    "edda_outbox": (
        "instance_id, seq, ordinal, id, type, source, data, content_type, at_us, status, attempts, due_at_us, relayer, reason"
    ),
    "edda_inbox": (
        "event_key, source, id, type, subject, time, datacontenttype, dataschema, data, extensions, target, accepted_at_us, "
        "routed, indexed, woken_to"
    ),
    "edda_inbox_handler": "type, workflow, takes, until_us",
    "edda_wait": "instance_id, call_id, type, route",
    "edda_source": "workflow, source_hash, source_text, first_seen_at_us",
    "edda_worker": "id, service, state, presence, lease_until_us, started_at_us, server_ids",
}


def workflow_with(text: str) -> str:
    """Source in which everything that a diagram shows is the payload."""
    return f'''
@workflow(name={text!r})
async def odd(ctx, order):
    """{json.dumps(text)[1:-1]}"""
    if {text!r} in order:
        await wait_event(ctx, {text!r}, timeout_seconds=5)
    match order:
        case {text!r}:
            await ctx.run({text!r}, work)
    await send_event({text!r}, {text!r}, None)
    return {text!r}  # {json.dumps(text)}
'''


def plant(scene: Scene, number: int, text: str) -> str:
    """One payload in every field; returns the id of its instance."""
    name = f"{text} {number}"[:250]
    waiting = f"w {name}"[:250]
    value = json.dumps({text: [text, {"$edda": text, "v": text}], "long": text * 20})
    call = json.dumps({"args": [text], "kwargs": {text: text}})
    error = json.dumps(
        {
            "error_type": text,
            "error_message": text,
            "stack_trace": f"Traceback\n  File {text}\n",
            "cause": {"error_type": text},
        }
    )
    meta = json.dumps({name_: text for name_ in ("id", "source", "subject", "time", "datacontenttype", "unstorable")})
    end = 2_000_000_000_000_000 + number
    rows: list[tuple[str, tuple[object, ...]]] = [
        ("edda_instance", (name, name, "failed", text, name, 1, 0, 1, text, 0, call, "", value, error, name, 0, "", text[:8],
                           end - 9, end, end, 0, 0)),
        ("edda_instance", (waiting, name, "waiting_for_event", text, None, 1, 0, None, text, 0, call, "", None, None, None, 0,
                           "", "3.11", end - 9, end, None, 0, 0)),
        ("edda_source", (name, "", workflow_with(text), end)),
        ("edda_worker", (name, text, "alive", 0, end, end, "")),
        ("edda_wait", (waiting, name, name, "r")),
        ("edda_inbox_handler", (name, name, "event", end)),
        ("edda_inbox", (f"key-{number}", text, text, name, text, text, text, text, value, json.dumps({text: text}), name, end,
                        1, 0, "")),
        ("edda_outbox", (name, 1, 0, f"id {name}", text, text, value, text, end, "dead", 3, end, name, text)),
        ("edda_outbox", (name, 2, 0, f"di {name}", text, text, "no json " + text, text, end, "delivered", 3, end, name, text)),
        ("edda_history", (name, 1, 1, end - 8, "WorkflowStarted", "", name, None, None, None)),
        ("edda_history", (name, 2, 1, end - 7, "ActivityAttemptFailed", text, text, None, error,
                          json.dumps({"duration_us": 1, "delay_us": 1}))),
        ("edda_history", (name, 3, 1, end - 6, "ActivityCompleted", text, text, call, value, meta)),
        ("edda_history", (name, 4, 1, end - 5, "EventReceived", f"e{text}", text, None, value, meta)),
        ("edda_history", (name, 5, 1, end - 4, "ChildStarted", f"c{text}", text, call, None, json.dumps({"instance_id": name}))),
        ("edda_history", (name, 6, 1, end - 3, text, text, text, text, text, text)),
        ("edda_history", (name, 7, 1, end - 2, "CompensationExecuted", f"undo/{text}", text, None, value, None)),
    ]  # fmt: skip
    for table, values in rows:
        marks = ", ".join(f":v{place}" for place in range(len(values)))
        scene.execute(
            f"insert into {table} ({FIELDS[table]}) values ({marks})",
            **{f"v{place}": value for place, value in enumerate(values)},
        )
    return name


@pytest.fixture(scope="module")
def planted(browser: Browser) -> Iterator[tuple[Scene, list[str]]]:
    with Scene.begun(filled=False) as scene:
        with scene.in_one_transaction():
            names = [plant(scene, number, text) for number, text in enumerate(PAYLOADS)]
        yield scene, names


@pytest.fixture
def visit(browser: Browser, planted: tuple[Scene, list[str]]) -> Iterator[tuple[Page, Watch]]:
    page, watch = watched_page(browser, planted[0])
    page.context.add_init_script("window.hits = 0; window.hit = () => { window.hits += 1 };")
    yield page, watch
    page.context.close()
    watch.nothing_bad()


PARTS = 4
"""Of the payloads: a slow machine has two minutes for each test."""

OURS = """
[...document.querySelectorAll("script, img, iframe, object, embed, base, video, audio, marquee, template, math, style, " +
  "link, form, [onload], [onerror], [onfocus], [onmouseover], [style], [hx-get], [srcset]")]
  .filter(one => !one.matches("head > script[src^='/static/'], head > link[href^='/static/'], form[action^='/']"))
  .map(one => one.outerHTML.slice(0, 200))
"""


def nothing_runs(page: Page) -> None:
    assert page.evaluate("window.hits") == 0
    assert page.evaluate("window.violations") == []
    assert page.evaluate(OURS) == []


def test_there_are_sixty_payloads() -> None:
    assert len(set(PAYLOADS)) >= 60


def test_nothing_runs_on_the_pages_that_list(visit: tuple[Page, Watch], planted: tuple[Scene, list[str]]) -> None:
    page, _ = visit
    scene, _ = planted
    for path in ("/instances", "/workflows", "/events", "/events?tab=waits", "/events?tab=handlers", "/outbox",
                 "/outbox?status=delivered", "/workers", "/start"):  # fmt: skip
        page.goto(scene.address + path)
        while True:
            page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
            nothing_runs(page)
            assert "hit()" in page.inner_text("#page")
            older = page.get_by_role("link", name="Older", exact=True)
            if not older.count():
                break
            older.click()
            page.wait_for_load_state()


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_runs_on_the_pages_of_one(
    visit: tuple[Page, Watch], planted: tuple[Scene, list[str]], part: int
) -> None:
    """Also where a part of the page is swapped for another one."""
    page, _ = visit
    scene, names = planted
    for text, name in list(zip(PAYLOADS, names, strict=True))[part::PARTS]:
        page.goto(f"{scene.address}{instance_path(name)}?call={quote(text, safe='')}")
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        nothing_runs(page)
        assert text.strip()[-6:] in page.inner_text("#page"), text
        before = page.locator("#h-call").inner_text()
        page.locator(".lane a:not([aria-current])").first.click()
        expect(page.locator("#h-call")).not_to_have_text(before)
        nothing_runs(page)


def test_nothing_runs_on_the_pages_of_a_workflow_or_of_what_was_typed(
    visit: tuple[Page, Watch], planted: tuple[Scene, list[str]]
) -> None:
    page, watch = visit
    watch.may_miss = True
    scene, names = planted
    for text, name in list(zip(PAYLOADS, names, strict=True))[::4]:
        for path in (
            f"/workflows/one?name={quote(name, safe='')}",
            f"/start?workflow={quote(name, safe='')}",
            f"/instances?id={quote(text, safe='')}&text={quote(text, safe='')}&notice={quote(text, safe='')}",
            f"/instances/{quote(text, safe='')}/none",
        ):
            page.goto(scene.address + path)
            nothing_runs(page)


def test_nothing_runs_in_a_form_that_comes_back(visit: tuple[Page, Watch], planted: tuple[Scene, list[str]]) -> None:
    """What was typed is drawn again, by the server and by the script that puts a new row into the page."""
    page, watch = visit
    watch.may_refuse = True
    for text in PAYLOADS[::4]:
        page.goto(planted[0].address + "/start?workflow=shop.delivery")
        for name in ("recipient", "note", "Instance id"):
            page.get_by_label(name).fill(text)
        page.get_by_label("extra").fill(text)
        page.get_by_role("button", name="Add to tags").click()
        expect(page.locator('[id="arguments/wish/tags/0"]')).to_be_focused()
        nothing_runs(page)
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.get_by_label("extra")).to_have_value(text)
        nothing_runs(page)
