"""The viewer as a visitor sees it: every page and every action, in a headless Chromium."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.viewer import shop
from tests.viewer.conftest import Watch, is_own, watched_page
from tests.viewer.scene import TOKEN, Scene
from tests.viewer.screenshots import PAGES

pytestmark = pytest.mark.browser

Visit = tuple[Page, Watch]
WEIGHT_MAX = 220_000
"""Bytes of a first visit, everything together, as it is sent (nothing is compressed)."""


def test_every_page_is_whole(visit: Visit, scene: Scene) -> None:
    """Nothing foreign, no error, one headline, a name for each control, nothing wider than a narrow screen."""
    page, _ = visit
    page.set_viewport_size({"width": 390, "height": 800})
    for name, path in PAGES.items():
        if name == "missing":
            continue
        page.goto(scene.address + path)
        expect(page.locator("#liveness.on, #page:not([data-live])").first).to_be_visible()
        assert page.locator("h1").count() == 1, name
        assert page.evaluate(NAMELESS_CONTROLS) == [], name
        assert page.evaluate(REPEATED_IDS) == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


NAMELESS_CONTROLS = """
[...document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea")].filter(one =>
  !(one.textContent.trim() || one.getAttribute("aria-label") || one.title || one.labels?.length)
).map(one => one.outerHTML)
"""
REPEATED_IDS = """
[...document.querySelectorAll("[id]")].map(one => one.id).filter((id, place, all) => all.indexOf(id) !== place)
"""


def test_a_first_visit_is_light_and_asks_nobody_else(browser: Browser, scene: Scene) -> None:
    page, watch = watched_page(browser, scene)
    answers: dict[str, int] = {}
    page.on("response", lambda got: answers.update({got.url: int(got.headers.get("content-length", "0"))}))
    page.goto(scene.address + "/instances/order-0004?call=pay:1", wait_until="load")
    expect(page.locator("#liveness.on")).to_be_visible()
    page.context.close()
    watch.nothing_bad()
    assert all(is_own(url, scene) for url in answers)
    assert len(answers) <= 9
    assert 0 < sum(answers.values()) < WEIGHT_MAX


def test_the_token_is_asked_for_and_taken(browser: Browser, scene: Scene) -> None:
    page = browser.new_context().new_page()
    page.goto(scene.address + "/workers")
    page.get_by_label("Token").fill("not the token")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("alert")).to_contain_text("not the token")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Look").click()
    expect(page.locator("h1")).to_have_text("Instances")
    assert "token" not in page.url
    assert page.evaluate("document.cookie") == ""
    page.context.close()


# -- live --------------------------------------------------------------------------------------------------------------


def test_an_instance_that_ends_is_seen_to_end_without_reload(visit: Visit, scene: Scene) -> None:
    page, watch = visit
    gate = f"live-gate of {scene.address}"
    scene.run(scene.app.start(shop.slow.options(id="live-1"), gate))
    page.goto(scene.address + "/instances/live-1")
    expect(page.locator(".state .badge")).to_have_text("Running")
    expect(page.locator("#liveness.on")).to_be_visible()
    page.evaluate("window.same = true")
    before = watch.navigations
    shop.OPEN_GATES.add(gate)
    expect(page.locator(".state .badge")).to_have_text("Completed")
    expect(page.locator(".lane.activity")).to_have_count(2)
    assert page.evaluate("window.same")
    assert watch.navigations == before


def test_a_change_takes_no_click_away_and_a_click_no_change(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    scene.run(scene.app.start(shop.approval.options(id="live-4"), "EXP-4", 4))
    page.goto(scene.address + "/instances/live-4")
    expect(page.locator("#liveness.on")).to_be_visible()

    def late(route: Route) -> None:
        answer = route.fetch()
        scene.run(scene.app.handle("live-4").cancel())  # seen while the answer to the click is under way
        time.sleep(2)
        route.fulfill(response=answer)

    expect(page.locator(".lane a", has_text="expense.decided:1")).to_be_visible()  # from now on nothing moves by itself
    page.route("**/instances/live-4?call=*", late, times=1)
    page.locator(".lane a", has_text="write_to_the_boss:1").click()
    expect(page.locator("#h-call")).to_have_text("write_to_the_boss:1")
    expect(page.locator(".state .badge")).to_have_text("Cancelled")


def test_a_new_instance_appears_in_the_list_without_reload(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances?workflow=shop.reminder")
    expect(page.locator("#liveness.on")).to_be_visible()
    page.evaluate("window.same = true")
    scene.run(scene.app.start(shop.reminder.options(id="live-2"), "ada", 3600.0))
    expect(page.locator("a.row-link", has_text="live-2")).to_be_visible()
    assert page.evaluate("window.same")


def test_what_is_unfolded_and_focused_stays_so_when_the_page_changes(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    scene.run(scene.app.start(shop.slow.options(id="live-3"), "live-gate-3"))
    page.goto(scene.address + "/instances/live-3?call=send_mail:1")
    page.get_by_text("As Mermaid text").click()
    page.locator(".lane a").first.focus()
    shop.OPEN_GATES.add("live-gate-3")
    expect(page.locator(".state .badge")).to_have_text("Completed")
    expect(page.locator(".diagram pre.source")).to_be_visible()
    assert page.evaluate("document.activeElement.closest('.lane') !== null")


def test_a_viewer_that_comes_back_is_found_again(visit: Visit, scene: Scene) -> None:
    """The stream broke: the page says so, and goes on by itself."""
    page, watch = visit
    page.goto(scene.address + "/instances")
    expect(page.locator("#liveness.on")).to_be_visible()
    page.context.set_offline(True)
    page.context.set_offline(False)
    expect(page.locator("#liveness.on")).to_be_visible()
    watch.errors.clear()  # a browser reports the connection that broke


# -- finding -----------------------------------------------------------------------------------------------------------


def test_typing_an_id_finds_it(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances")
    page.keyboard.press("/")
    page.keyboard.type("order-0004")
    expect(page.locator("a.row-link")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"\?id=order-0004$"))
    expect(page.get_by_label("Id begins with")).to_be_focused()


def test_statuses_workflows_and_input_fields_narrow_the_list(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances")
    page.get_by_role("link", name=re.compile("^Failed")).click()
    expect(page.locator(".chip[aria-current]")).to_contain_text("Failed")
    expect(page.locator("tbody .badge.completed")).to_have_count(0)
    page.locator("select[name=workflow]").select_option("shop.order")
    expect(page.locator("a.row-link", has_text="order-0004")).to_be_visible()
    expect(page.locator("a.row-link", has_text="trip-1")).to_have_count(0)
    page.get_by_label("Input field = value").fill("0.id = ORD-9")
    expect(page.locator("a.row-link")).to_have_count(1)
    expect(page.locator("a.row-link")).to_have_text("order-0009")
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("a.row-link", has_text="trip-1")).to_be_visible()


def test_what_is_nowhere_is_said_to_be_nowhere(visit: Visit, scene: Scene) -> None:
    page, watch = visit
    watch.may_miss = True
    page.goto(scene.address + "/instances?id=nobody")
    expect(page.get_by_text("No instance matches")).to_be_visible()
    page.goto(scene.address + "/instances/nobody")
    expect(page.get_by_text("There is no such instance")).to_be_visible()


def test_pages_of_the_list_go_on_without_gap_or_repetition(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    scene.plant_instances(count=120, workflow="many.pages")
    page.goto(scene.address + "/instances?workflow=many.pages")
    seen: list[str] = page.locator("a.row-link").all_inner_texts()
    while page.get_by_role("link", name="Older").count():
        page.get_by_role("link", name="Older").click()
        page.wait_for_load_state()
        seen += page.locator("a.row-link").all_inner_texts()
    assert len(seen) == len(set(seen)) == 120
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("a.row-link")).to_have_count(50)


def test_a_row_that_failed_says_why(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances?id=order-0004")
    expect(page.locator(".reason.error")).to_have_text("TerminalError: no carrier goes to Longyearbyen")
    page.goto(scene.address + "/workflows/one?name=shop.order")
    expect(page.locator("section", has=page.locator("#h-failing")).locator(".reason.error").first).to_contain_text(
        "no carrier goes to Longyearbyen"
    )


def test_an_id_that_is_not_there_can_be_searched_for(visit: Visit, scene: Scene) -> None:
    page, watch = visit
    watch.may_miss = True
    page.goto(scene.address + "/instances/order-00")
    expect(page.locator("main code").first).to_have_text("order-00")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("a.row-link", has_text="order-0004")).to_be_visible()


def test_what_an_event_holds_and_what_is_waited_for_is_seen_without_a_click(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/events?type=order.shipped")
    expect(page.locator(".entries .brief").first).to_contain_text("order_id: ORD-")
    page.goto(scene.address + "/events?tab=waits")
    row = page.locator("tr", has_text="approval-1")
    expect(row).to_contain_text('expense_id="EXP-1"')
    expect(row).to_contain_text("no time limit")
    expect(row).to_contain_text("shop.approval")


# -- one instance ------------------------------------------------------------------------------------------------------


def test_a_click_on_an_activity_shows_its_input_output_and_attempts(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/order-0007")
    page.evaluate("window.same = true")
    page.locator(".lane a", has_text="pay:1").click()
    panel = page.locator("#call")
    expect(panel).to_contain_text("completed after 2 failed attempts")
    expect(panel).to_contain_text("ORD-7")
    expect(panel).to_contain_text("bank-ORD-7")
    expect(panel.locator(".attempts li")).to_have_count(3)
    panel.get_by_text("Stack trace").first.click()
    expect(panel.locator("pre.stack").first).to_contain_text("ConnectionError")
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    page.go_back()
    expect(page.locator("#call")).to_be_visible()
    assert page.evaluate("window.same")


def test_each_execution_of_an_activity_can_be_chosen(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/order-0001?call=reserve:1")
    expect(page.locator(".executions a")).to_have_count(3)
    page.locator(".executions a", has_text="reserve:3").click()
    expect(page.locator("#h-call")).to_have_text("reserve:3")
    expect(page.locator("#call .value").first).to_contain_text("spoon")


def test_the_diagram_shows_what_ran_and_leads_to_it(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/order-0004")
    expect(page.locator(".edda-diagram .is-failed").first).to_be_visible()
    page.locator(".edda-diagram [data-calls='ship:1']").click()
    expect(page.locator("#h-call")).to_have_text("ship:1")
    expect(page.locator("#call .failure")).to_contain_text("no carrier goes to Longyearbyen")


def test_why_an_instance_waits_is_told_in_words(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/approval-1")
    expect(page.locator(".why")).to_contain_text("expense.decided")
    page.goto(scene.address + "/instances/stubborn-1")
    expect(page.locator(".why")).to_contain_text("TimeoutError")


def test_an_error_is_shown_with_its_cause_and_stack(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/trip-1")
    expect(page.locator(".card.bad")).to_contain_text("CompensationFailedError")
    expect(page.locator(".card.bad .cause")).to_contain_text("ValueError: there is no hotel for 7")


def test_why_it_failed_leads_to_the_call_and_says_what_was_undone(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/order-0004")
    card = page.locator(".card.bad")
    expect(card).to_contain_text("4 of 4 undone")
    expect(card).to_contain_text(re.compile(r"shop\.py:\d+, in ship"))
    card.get_by_role("link", name="ship:1").click()
    expect(page.locator("#h-call")).to_have_text("ship:1")
    page.goto(scene.address + "/instances/trip-1")
    expect(page.locator(".card.bad")).to_contain_text("1 of 1 could not be undone")
    expect(page.locator(".card.bad").get_by_role("link", name="undo/book_trip:1")).to_be_visible()


def test_an_opened_call_is_marked_everywhere_and_leads_to_its_neighbours(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/order-0007?call=pay:1")
    expect(page.locator(".drawing .is-chosen")).to_have_attribute("data-calls", "pay:1")
    expect(page.locator(".history tr[aria-current]")).to_have_count(3)
    page.get_by_role("link", name="Next call").click()
    expect(page.locator("#h-call")).to_have_text("ship:1")
    expect(page.locator(".drawing .is-chosen")).to_have_attribute("data-calls", "ship:1")
    page.get_by_role("link", name="Previous call").click()
    expect(page.locator("#h-call")).to_have_text("pay:1")


def test_a_history_of_days_tells_its_dates(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/weekend-1")
    expect(page.locator(".history .date")).to_have_count(1)
    expect(page.locator(".history tr", has=page.locator(".date"))).to_contain_text("Event received")


def test_history_and_diagram_are_whole_on_a_narrow_screen(visit: Visit, scene: Scene) -> None:
    """Every cell of every row, and every node of a small diagram, without scrolling sideways."""
    page, _ = visit
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(scene.address + "/instances/order-0004")
    expect(page.locator(".history tbody tr")).to_have_count(12)
    assert page.evaluate(BEYOND_THE_EDGE, ".history td, .drawing .node") == []


BEYOND_THE_EDGE = """
selector => [...document.querySelectorAll(selector)].filter(one => {
  const box = one.getBoundingClientRect();
  return box.left < 0 || box.right > innerWidth;
}).map(one => one.outerHTML)
"""


def test_keys_lead_through_the_timeline_and_open_a_call(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/order-0001")
    for key in ("j", "j", "j", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#call")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("k")
    expect(page.locator("h1")).to_have_text("Workers")


def test_a_whole_value_is_saved_never_shown(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances/order-0001")
    with page.expect_download() as download:
        page.locator("section", has=page.locator("#h-input")).get_by_role("link", name="Save").click()
    assert download.value.suggested_filename == "input.json"


def test_the_theme_can_be_chosen_and_is_kept(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/instances")
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert dark != paper
    page.reload()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == dark


def test_pages_work_without_script(browser: Browser, scene: Scene) -> None:
    page, watch = watched_page(browser, scene, java_script_enabled=False)
    page.goto(scene.address + "/instances")
    page.get_by_label("Id begins with").fill("order-0004")
    page.get_by_role("button", name="Search").click()
    page.locator("a.row-link").first.click()
    page.locator(".lane a", has_text="ship:1").click()
    expect(page.locator("#h-call")).to_have_text("ship:1")
    page.context.close()
    watch.nothing_bad()


# -- actions -----------------------------------------------------------------------------------------------------------


def test_an_instance_can_be_cancelled(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    scene.run(scene.app.start(shop.approval.options(id="act-1"), "EXP-act-1", 1))
    page.goto(scene.address + "/instances/act-1")
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Leave it").click()
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel it").click()
    expect(page.locator(".notice.good")).to_contain_text("cancel was accepted")
    expect(page.locator(".state .badge")).to_have_text("Cancelled")


def test_an_event_can_be_sent_to_an_instance(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    scene.run(scene.app.start(shop.approval.options(id="act-2"), "EXP-act-2", 1))
    page.goto(scene.address + "/instances/act-2")
    expect(page.locator(".state .badge")).to_have_text("Waiting for event")
    page.get_by_role("button", name="Send event…").click()
    expect(page.get_by_label("Type", exact=True)).to_have_value("expense.decided")
    page.get_by_label("Data (JSON)").fill('{"expense_id": "EXP-act-2", "granted": true}')
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".notice.good")).to_contain_text("accepted")
    expect(page.locator(".state .badge")).to_have_text("Completed")
    page.goto(scene.address + "/events?target=act-2")
    expect(page.locator(".entries > li")).to_have_count(1)


def test_data_that_is_no_json_is_not_sent(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/events")
    page.get_by_role("button", name="Send event…").click()
    page.locator("#send-type").fill("odd")
    page.get_by_label("Data (JSON)").fill("{not json")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".notice.bad")).to_contain_text("not JSON")


def test_a_dead_letter_can_be_requeued(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/outbox")
    dead = page.locator(".entries > li.dead")
    before = dead.count()
    page.get_by_role("button", name="Requeue").first.click()
    expect(page.locator(".notice.good")).to_contain_text("pending again")
    expect(dead).to_have_count(before - 1)
    page.goto(scene.address + "/outbox?status=pending")
    expect(page.locator(".entries > li", has_text="order.invoiced")).to_be_visible()


def test_what_could_not_be_undone_can_be_tried_again(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    scene.run(scene.app.start(shop.trip.options(id="act-3"), 3))
    scene.run(shop.until(lambda: shop.has_ended(scene.app, "act-3")))
    page.goto(scene.address + "/instances/act-3")
    page.get_by_role("button", name="Retry…").click()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".notice.good")).to_contain_text("run again")
    expect(page.locator(".history .kind", has_text="Retry requested")).to_be_visible()


def test_an_instance_is_started_from_a_form_with_rows_and_extras(visit: Visit, scene: Scene) -> None:
    """Rows come and go where one is, and what was typed stays."""
    page, watch = visit
    page.goto(scene.address + "/workflows")
    page.get_by_role("link", name="Start…").click()
    page.get_by_role("link", name="shop.delivery").click()
    page.wait_for_load_state()  # with its script: without it, a form is sent and loaded anew
    page.evaluate("window.same = true")
    before = watch.navigations
    page.get_by_label("recipient").fill("grace")
    for place, tag in enumerate(("red", "green", "blue")):
        page.get_by_role("button", name="Add to tags").click()
        field = page.locator(f'[id="arguments/wish/tags/{place}"]')
        expect(field).to_be_focused()
        field.fill(tag)
    page.get_by_role("button", name="Remove 2 of tags").click()
    tags = page.get_by_role("group", name="tags").get_by_role("textbox")
    expect(tags).to_have_count(2)
    assert [one.input_value() for one in tags.all()] == ["red", "blue"]
    page.get_by_role("button", name="Give gift").click()
    page.get_by_label("text").fill("for you")
    expect(page.get_by_label("recipient")).to_have_value("grace")
    assert page.evaluate("window.same")
    assert watch.navigations == before
    page.get_by_label("urgency").select_option("high")
    page.get_by_label("Instance id").fill("started-1")
    watch.may_refuse = True
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("1 field is not right")
    expect(page.locator(".wrong")).to_have_text("Field required")
    expect(page.get_by_label("day")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("day").fill("2026-12-24")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".notice.good")).to_contain_text("It was started")
    expect(page.locator("h1")).to_have_text("started-1")
    expect(page.locator(".state .badge")).to_have_text("Completed")
    expect(page.locator("section", has=page.locator("#h-input"))).to_contain_text("blue")


def test_enter_starts_and_adds_no_row(visit: Visit, scene: Scene) -> None:
    page, _ = visit
    page.goto(scene.address + "/workflows/one?name=shop.campaign")
    page.get_by_role("link", name="Start…").click()
    page.locator('[id="arguments/people/0"]').fill("lovelace")
    page.keyboard.press("Enter")
    expect(page.locator(".notice.good")).to_contain_text("It was started")


def test_a_form_works_without_script(browser: Browser, scene: Scene) -> None:
    page, watch = watched_page(browser, scene, java_script_enabled=False)
    page.goto(scene.address + "/start?workflow=shop.campaign")
    page.locator('[id="arguments/people/0"]').fill("ada")
    page.get_by_role("button", name="Add to people").click()
    page.locator('[id="arguments/people/1"]').fill("grace")
    page.get_by_role("button", name="Remove 1 of people").click()
    expect(page.locator('[id="arguments/people/0"]')).to_have_value("grace")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".notice.good")).to_contain_text("It was started")
    page.context.close()
    watch.nothing_bad()


def test_without_code_the_form_says_so_and_takes_json(browser: Browser, scene: Scene) -> None:
    address = scene.serve_without_code()
    page = browser.new_context().new_page()
    page.goto(f"{address}/?token={TOKEN}")
    page.goto(address + "/start?workflow=shop.approval")
    expect(page.locator(".notice.mild")).to_contain_text("does not have the code")
    page.get_by_label("Arguments (JSON)").fill('{"expense_id": "EXP-started", "cents": 1}')
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".state .badge")).to_have_text("Waiting for event")
    page.context.close()


def test_a_viewer_that_only_looks_has_no_buttons_to_act(browser: Browser, scene: Scene) -> None:
    address = scene.serve_read_only()
    page = browser.new_context().new_page()
    page.goto(f"{address}/?token={TOKEN}")
    for path in ("/instances/approval-1", "/instances/trip-1", "/outbox", "/events", "/workflows", "/start"):
        page.goto(address + path)
        assert page.locator("form[method=post], a[href*='/start']").count() == 0
    expect(page.locator("footer")).to_contain_text("Read-only")
    page.context.close()


def test_a_page_of_another_origin_can_neither_read_nor_act(browser: Browser, scene: Scene) -> None:
    """A stranger's page in the same browser, with the visitor's cookie at hand."""
    page, _ = watched_page(browser, scene)
    foreign = scene.serve_read_only()  # another port is another origin
    page.goto(foreign + "/nowhere")
    for path, options in (
        ("/instances", "{credentials: 'include'}"),
        ("/live?page=/instances", "{credentials: 'include'}"),
    ):
        outcome = page.evaluate(f"fetch('{scene.address}{path}', {options}).then(() => 'read', () => 'refused')")
        assert outcome == "refused"
    page.context.close()
