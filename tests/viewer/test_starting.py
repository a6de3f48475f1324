"""Starting an instance from a form, by requests as a browser without script makes them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import pytest

from edda import EddaApp
from edda.viewer import create_app
from tests import databases
from tests.viewer import shop

TOKEN = "the-token-of-these-tests"
OWN = "http://127.0.0.1:8787"
ORDER = {
    "arguments/order/id": "ORD-1",
    "arguments/order/customer": "ada@example.org",
    "arguments/order/city": "Leipzig",
    "arguments/order/items/0/sku": "teapot",
    "arguments/order/items/0/quantity": "2",
    "arguments/order/total": "49.90",
    "arguments/order/placed_at": "2026-11-22T12:00:00Z",
}


class Visitor:
    """Fills in forms: what a page holds, and over it what is typed."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.page = ""

    async def open(self, path: str) -> int:
        answer = await self._client.get(path)
        self.page = answer.text
        return answer.status_code

    async def send(self, typed: Mapping[str, str], *, press: str = "", take_out: str = "") -> httpx2.Response:
        action = re.search(r'<form method="post" action="(/start[^"]*)"', self.page)
        assert action is not None
        data = {name: text for name, text in {**self.fields, **typed}.items() if name != take_out}
        if press:
            data["do"] = press
        answer = await self._client.post(html.unescape(action[1]), data=data, headers={"origin": OWN})
        if answer.status_code != 303:
            self.page = answer.text
        return answer

    @property
    def fields(self) -> dict[str, str]:
        """As a browser would send them."""
        found: dict[str, str] = {}
        for tag in re.findall(r"<input ([^>]*)>", self.page):
            attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
            if attributes.get("type") != "checkbox" or " checked" in tag:
                found[html.unescape(attributes["name"])] = html.unescape(attributes.get("value", ""))
        for name, options in re.findall(r'<select [^>]*name="([^"]*)"[^>]*>(.*?)</select>', self.page, re.DOTALL):
            chosen = re.search(r'value="(\d*)" selected', options)
            found[html.unescape(name)] = chosen[1] if chosen else ""
        for name, text in re.findall(r'<textarea [^>]*name="([^"]*)"[^>]*>\n(.*?)</textarea>', self.page, re.DOTALL):
            found[html.unescape(name)] = html.unescape(text)
        return found

    @property
    def errors(self) -> dict[str, str]:
        found = re.findall(r'<p class="wrong" id="error-([^"]*)"><svg.*?</svg>(.*?)</p>', self.page, re.DOTALL)
        return {html.unescape(path).removeprefix("arguments/"): html.unescape(text) for path, text in found}


@pytest.fixture(
    params=["sqlite", *(pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("postgresql", "mysql"))]
)
def url(request: pytest.FixtureRequest) -> Any:
    if databases.available()[request.param] is None:
        pytest.skip(f"!!! NOT TESTED !!! there is no {request.param} server")
    with databases.fresh_database(request.param) as url:
        yield url


@pytest.fixture
async def app(url: str) -> AsyncIterator[EddaApp]:
    async with shop.app_on(url) as app:
        yield app


async def visitor(app: EddaApp, *, code: EddaApp | None) -> AsyncIterator[Visitor]:
    viewer = create_app(app.db_url, token=TOKEN, allow_actions=True, app=code)
    async with viewer.router.lifespan_context(viewer):
        transport = httpx2.ASGITransport(app=viewer)
        async with httpx2.AsyncClient(transport=transport, base_url=OWN) as client:
            await client.get("/instances", params={"token": TOKEN})
            yield Visitor(client)


@pytest.fixture
async def here(app: EddaApp) -> AsyncIterator[Visitor]:
    async for one in visitor(app, code=app):
        yield one


@pytest.fixture
async def afar(app: EddaApp) -> AsyncIterator[Visitor]:
    """With a viewer that has no code."""
    async for one in visitor(app, code=None):
        yield one


def id_in(answer: httpx2.Response) -> str:
    assert answer.status_code == 303, answer.text
    path, _, notice = answer.headers["location"].partition("?")
    assert notice == "notice=started"
    return str(path.removeprefix("/instances/"))


async def test_an_instance_is_started_and_its_page_is_shown(here: Visitor, app: EddaApp) -> None:
    assert await here.open("/start?workflow=shop.order") == 200
    instance_id = id_in(await here.send(ORDER))
    assert instance_id.startswith("shop.order-")
    result = await app.handle(instance_id).result(timeout=20)
    assert result["order_id"] == "ORD-1"
    assert str(result["total"]) == "49.90"
    assert await here.open(f"/instances/{instance_id}") == 200


async def test_everything_that_a_form_can_ask_for_reaches_the_workflow(here: Visitor, app: EddaApp) -> None:
    await here.open("/start?workflow=shop.delivery")
    for wish in ("tags", "tags", "items", "items", "gift"):
        assert (await here.send({}, press=f"add:arguments/wish/{wish}")).status_code == 200
    typed = {
        "recipient": "grace", "day": "2026-12-24", "urgency": "1", "quantity": "3", "weight": "1.5", "price": "1.10",
        "speed": "1", "gift/text": "for <you>", "tags/0": "red", "tags/1": "", "items/0/sku": "cup",
        "items/0/quantity": "4", "extra": '{"ribbon": 2}', "insured": "1", "friendly": "1",
    }  # fmt: skip
    typed = {f"arguments/wish/{name}": text for name, text in typed.items()} | {"arguments/note": "quick"}
    instance_id = id_in(await here.send(typed, take_out="arguments/wish/gift/wrapped"))
    result = await app.handle(instance_id).result(timeout=20)
    assert shop.Wish.model_validate(result["wish"]).model_dump(mode="json") == {
        "recipient": "grace", "day": "2026-12-24", "urgency": "high", "quantity": 3, "weight": 1.5, "price": "1.10",
        "speed": "fast", "gift": {"text": "for <you>", "wrapped": False}, "tags": ["red", ""],
        "items": [{"sku": "cup", "quantity": 4}], "extra": {"ribbon": 2}, "insured": True, "friendly": False,
    }  # fmt: skip
    assert (result["copies"], result["note"]) == (1, "quick")


async def test_what_is_wrong_is_said_at_its_field_and_what_was_typed_is_kept(here: Visitor, app: EddaApp) -> None:
    await here.open("/start?workflow=shop.order")
    typed = {**ORDER, "arguments/order/items/0/quantity": "two", "arguments/order/placed_at": "", "id": "<mine>"}
    answer = await here.send(typed)
    assert answer.status_code == 422
    assert here.errors.keys() == {"order/items/0/quantity", "order/placed_at"}
    assert "valid integer" in here.errors["order/items/0/quantity"]
    assert here.errors["order/placed_at"] == "Field required"
    assert {name: here.fields[name] for name in typed} == typed
    assert [one async for one in app.instances()] == []


async def test_bounds_of_the_model_hold_in_the_form(here: Visitor) -> None:
    await here.open("/start?workflow=shop.delivery")
    typed = {"recipient": "x", "day": "2026-12-24", "urgency": "9", "quantity": "11", "extra": "{"}
    typed = {f"arguments/wish/{name}": text for name, text in typed.items()}
    assert (await here.send(typed)).status_code == 422
    assert here.errors == {"wish/extra": "This is no JSON"}
    assert (await here.send({**typed, "arguments/wish/extra": '{"cups": "some"}'})).status_code == 422
    assert here.errors.keys() == {"wish/urgency", "wish/quantity", "wish/extra"}


async def test_a_form_that_is_sent_twice_starts_one_instance(here: Visitor, app: EddaApp) -> None:
    await here.open("/start?workflow=shop.trip")
    first, second = [await here.send({"arguments/number": "7"}) for _ in range(2)]
    path = first.headers["location"].partition("?")[0]
    assert second.headers["location"] == f"{path}?notice=started-before"
    third = await here.send({"arguments/number": "8"})
    assert id_in(third) not in path
    assert len([one async for one in app.instances()]) == 2


async def test_in_the_process_of_a_running_app_its_store_acts_and_no_second_writer_is_opened(
    here: Visitor, app: EddaApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edda.viewer.house.open_store", lambda *_: pytest.fail("a second store was opened"))
    assert await here.open("/start?workflow=shop.reminder") == 200
    answer = await here.send({"id": "by-its-app", "arguments/who": "ada", "arguments/seconds": "3600"})
    assert answer.status_code == 303
    assert await app.handle("by-its-app").status() in ("running", "waiting_for_timer")


async def test_an_id_of_ones_own_is_taken_once(here: Visitor, app: EddaApp) -> None:
    await here.open("/start?workflow=shop.trip")
    assert id_in(await here.send({"arguments/number": "7", "id": "trip-7"})) == "trip-7"
    assert (await here.send({"arguments/number": "8", "id": "trip-7"})).status_code == 409
    assert "with other arguments" in here.errors["id"]
    await here.open("/start?workflow=shop.slow")
    assert (await here.send({"arguments/gate": "x", "id": "trip-7"})).status_code == 409
    assert "of the workflow shop.trip" in here.errors["id"]
    assert (await here.send({"arguments/gate": "x", "id": "x" * 256})).status_code == 422
    assert "1 to 255 characters" in here.errors["id"]
    assert len([one async for one in app.instances()]) == 1


async def test_without_code_arguments_are_json_and_a_worker_reads_them(afar: Visitor, app: EddaApp) -> None:
    """As the sender of an event: tags of ours mean nothing in it."""
    await app.start(shop.approval.options(id="there"), "EXP-0", 1)
    assert await afar.open("/start?workflow=shop.approval") == 200
    assert "does not have the code" in afar.page
    assert json.loads(afar.fields["arguments"]) == {"expense_id": None, "cents": None}
    instance_id = id_in(await afar.send({"arguments": '{"expense_id": "EXP-9", "cents": 5}'}))
    await shop.until(lambda: shop.is_at(app, instance_id, "waiting_for_event"))
    other = id_in(await afar.send({"arguments": '{"expense_id": {"$edda": "decimal", "v": "1"}, "cents": "x"}'}))
    await shop.until(lambda: shop.is_at(app, other, "quarantined"))


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "{"])
async def test_without_code_only_an_object_is_taken(afar: Visitor, app: EddaApp, text: str) -> None:
    await app.start(shop.approval.options(id="there"), "EXP-0", 1)
    await afar.open("/start?workflow=shop.approval")
    assert (await afar.send({"arguments": text})).status_code == 422
    assert afar.errors.keys() == {"arguments"}


async def test_the_list_names_what_can_be_started(here: Visitor, afar: Visitor, app: EddaApp) -> None:
    await here.open("/start")
    assert {name for name in app.workflow_names if f">{name}</a>" in here.page} == app.workflow_names
    await app.start(shop.trip.options(id="there"), 1)
    await afar.open("/start")
    assert ">shop.trip</a>" in afar.page
    assert ">shop.order</a>" not in afar.page
    assert await here.open("/start?workflow=nobody") == 404


async def test_pages_of_workflows_lead_to_the_form(here: Visitor, app: EddaApp) -> None:
    await app.start(shop.trip.options(id="there"), 1)
    await here.open("/workflows")
    assert 'href="/start"' in here.page
    await here.open("/workflows/one?name=shop.trip")
    assert 'href="/start?workflow=shop.trip"' in here.page
