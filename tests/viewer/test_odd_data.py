"""Pages of what nobody expects in a database: ids like paths, clocks that were far off, sources that are no Python."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator

import httpx2
import pytest

from edda.core.history import InstanceId
from edda.storage.reads import Source
from edda.storage.sql import open_store
from edda.viewer import create_app
from edda.viewer.asked import instance_path
from tests import databases
from tests.storage.support import W1, World, commit, do, new

OWN = "http://127.0.0.1:8787"
ODD_IDS = [
    "a/b", "/", "//", ".", "..", "...", "a/..", "../..", "%2F", "%252F", "%zz", "#", "?x=1", "dots...", "a b", " lead",
    "+", "a;b", "a&b=c", "\\", "a\nb", "\r\n", "\u2028", "\u202e", "one", "e\u0301", "x" * 255, "😀" * 255, "<'\">",
]  # fmt: skip
LAST_US = (1 << 63) - 1


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with databases.fresh_database("sqlite") as url:
        store = open_store(url)
        await store.open()
        world = World(store)
        await world.worker(W1)
        try:
            yield world
        finally:
            await world.close()
            await store.close()


@pytest.fixture
async def visitor(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(str(world.store.database.url.dsn), token="the-token-of-these-tests", allow_actions=True)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url=OWN) as client:
            await client.get("/instances", params={"token": "the-token-of-these-tests"})
            yield client


async def test_every_id_has_a_page_and_its_links_lead_somewhere(world: World, visitor: httpx2.AsyncClient) -> None:
    await world.start(*(new(one, owner=W1) for one in ODD_IDS))
    listed = (await visitor.get("/instances")).text
    for one in ODD_IDS:
        own = html.escape(instance_path(one))
        assert own in listed
        page = await visitor.get(instance_path(one))
        assert page.status_code == 200, one
        links = set(re.findall(r'href="(' + re.escape(own) + r'\?[^"]*)"', page.text))
        assert [(await visitor.get(html.unescape(link))).status_code for link in links] == [200] * len(links)
        value = await visitor.get("/value", params={"id": one, "part": "input"})
        assert (value.status_code, value.text) == (200, "{}")


async def test_a_clock_that_was_far_off_spoils_no_page(world: World, visitor: httpx2.AsyncClient) -> None:
    await world.start(new("i", owner=W1))
    await world.write(commit("i", 1, 2, 3))
    for seq, at_us in ((1, LAST_US), (2, -LAST_US), (3, 0)):
        await do(world.store, "update edda_history set at_us = ? where seq = ?", at_us, seq)
    times = "created_at_us = ?, updated_at_us = ?, ended_at_us = ?, claimable_at_us = ?"
    await do(world.store, f"update edda_instance set {times}, status = 'failed'", -LAST_US, LAST_US, LAST_US, LAST_US)
    for path in ("/instances", "/instances/i", "/instances/i?call=pay%3A2", "/workflows", "/workflows/one?name=order"):
        assert (await visitor.get(path)).status_code == 200, path


@pytest.mark.parametrize("text", ["def (: no python", "x = 1", "", "async def w(ctx):\n    " + "(" * 3000 + ")" * 3000])
async def test_a_source_that_cannot_be_read_spoils_no_page(
    world: World, visitor: httpx2.AsyncClient, text: str
) -> None:
    await world.start(new("i", owner=W1))
    await world.store.keep_sources([Source("order", "h", text)])
    for path in ("/instances/i", "/workflows/one?name=order", "/start?workflow=order"):
        assert (await visitor.get(path)).status_code == 200, path


@pytest.mark.parametrize(
    "text", ['{"args":[' + "[" * 50_000 + "]" * 50_000 + '],"kwargs":{}}', "no json", '"' * 1_000_000]
)
async def test_arguments_that_nobody_can_read_spoil_no_page(
    world: World, visitor: httpx2.AsyncClient, text: str
) -> None:
    await world.start(new("i", owner=W1)._replace(input=text))
    page = await visitor.get("/instances/i")
    assert page.status_code == 200
    assert len(page.text) < 100_000
    assert (await visitor.get("/value", params={"id": "i", "part": "input"})).text == text


async def test_a_parent_of_thousands_has_a_page_of_bounded_size(world: World, visitor: httpx2.AsyncClient) -> None:
    await world.start(new("parent", owner=W1))
    await world.start(*(new(f"child-{number}", parent_id=InstanceId("parent")) for number in range(2_000)))
    await world.write(*(commit("parent", *range(1, 2_001)),))
    page = await visitor.get("/instances/parent")
    assert page.status_code == 200
    assert len(page.text) < 1_000_000
