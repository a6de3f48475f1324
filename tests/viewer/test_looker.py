"""A role that may SELECT can look: on every page, and by the commands that look. What writes is refused in words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest

from edda.cli import main
from edda.viewer import create_app
from tests import databases
from tests.viewer import shop
from tests.viewer.looker import execute, looker
from tests.viewer.screenshots import PAGES

TOKEN = "the-token-of-these-tests"
OWN = "http://127.0.0.1:8787"
A_DEAD_LETTER = (
    "INSERT INTO edda_outbox (instance_id, seq, ordinal, id, type, source, data, content_type, at_us, status, "
    "attempts, due_at_us, reason) VALUES ('order-0001', 900, 0, 'dead-1', 'order.invoiced', '/shop', '{}', "
    "'application/json', 1, 'dead', 7, 1, '410 Gone')"
)
ACTS = (
    ("/act/cancel", {"instance": "approval-1"}),
    ("/act/retry", {"instance": "trip-1"}),
    ("/act/requeue", {"message": "dead-1"}),
    ("/act/send", {"type": "expense.decided", "instance": "approval-1"}),
    ("/start?workflow=shop.trip", {"arguments": '{"number": 1}'}),
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("postgresql", "mysql")],
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a shop with one instance of each fate, as a role that may only look."""
    if databases.available()[request.param] is None:
        pytest.skip(f"!!! NOT TESTED !!! there is no {request.param} server")
    with databases.fresh_database(request.param) as owner:
        asyncio.run(_fill(owner))
        execute(owner, [A_DEAD_LETTER])
        with looker(owner) as url:
            yield url


async def _fill(url: str) -> None:
    shop.FLAKY.clear()
    async with shop.app_on(url) as app:
        await shop.fill(app)


@pytest.fixture
async def visitor(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    viewer = create_app(url, token=TOKEN, allow_actions=True)
    async with (
        viewer.router.lifespan_context(viewer),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=viewer), base_url=OWN) as client,
    ):
        await client.get("/instances", params={"token": TOKEN})
        yield client


async def test_every_page_is_shown(visitor: httpx2.AsyncClient) -> None:
    for name, path in PAGES.items():
        if name not in ("missing", "long"):
            answer = await visitor.get(path)
            assert answer.status_code == 200, (name, answer.text)
    assert (await visitor.get("/value?id=order-0001&part=input")).status_code == 200


@pytest.mark.parametrize(("path", "form"), ACTS)
async def test_what_writes_is_refused_in_words(visitor: httpx2.AsyncClient, path: str, form: dict[str, str]) -> None:
    secret = re.search(r'name="secret" value="(\w+)"', (await visitor.get("/events")).text)
    assert secret is not None
    answer = await visitor.post(path, data={**form, "secret": secret[1]}, headers={"origin": OWN})
    assert answer.status_code == 503
    assert "That did not work" in answer.text
    assert "denied" in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "command",
    [["ls"], ["ls", "--counts"], ["show", "order-0004"], ["why", "approval-1"], ["show", "order-0001", "--json"]],
)
def test_commands_that_look_do(url: str, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--db", url]) == 0
    assert capsys.readouterr().out


def test_a_command_that_acts_is_refused_in_words(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", "approval-1", "--db", url]) == 4
    said = capsys.readouterr().err
    assert "denied" in said
    assert said.count("\n") == 1
