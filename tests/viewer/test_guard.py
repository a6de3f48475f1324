"""Who is let in, by requests as browsers and others make them. No browser is needed here."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from edda.viewer import create_app
from edda.viewer.guard import Guard, host_of
from edda.viewer.server import is_loopback, serve
from edda.viewer.session import Sessions, new_token
from tests import databases
from tests.viewer import shop

TOKEN = "the-token-of-these-tests"
OWN = "http://127.0.0.1:8787"
PAGES = (
    "/instances",
    "/instances/x",
    "/workflows",
    "/workflows/one?name=x",
    "/events",
    "/outbox",
    "/workers",
    "/live",
    "/value",
    "/start",
    "/start?workflow=x",
)
FORMS = ("/act/cancel", "/act/retry", "/act/requeue", "/act/send", "/start?workflow=x")
"""Where forms that act are sent to."""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    """With tables, and nothing in them."""
    with databases.fresh_database("sqlite") as url:
        asyncio.run(_make_tables(url))
        database_urls.append(url)
        yield
        database_urls.clear()


database_urls: list[str] = []


async def _make_tables(url: str) -> None:
    async with shop.app_on(url):
        pass


async def client(stack: AsyncExitStack, *, allow_actions: bool = True, **options: Any) -> httpx2.AsyncClient:
    """Of a viewer of an empty database."""
    app = create_app(database_urls[0], token=TOKEN, allow_actions=allow_actions, **options)
    await stack.enter_async_context(app.router.lifespan_context(app))
    return await stack.enter_async_context(
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=OWN, follow_redirects=False)
    )


async def visitor(stack: AsyncExitStack, **options: Any) -> httpx2.AsyncClient:
    """One who has shown the token."""
    here = await client(stack, **options)
    answer = await here.get("/instances", params={"token": TOKEN})
    assert answer.status_code == 303
    return here


async def form_secret(here: httpx2.AsyncClient) -> str:
    found = re.search(r'name="secret" value="([0-9a-f]{64})"', (await here.get("/events")).text)
    assert found is not None
    return found[1]


# -- the token ---------------------------------------------------------------------------------------------------------


async def test_without_the_token_there_is_only_the_page_that_asks_for_it(stack: AsyncExitStack) -> None:
    here = await client(stack)
    for path in PAGES:
        answer = await here.get(path)
        assert answer.status_code == 401, path
        assert "Instances, newest" not in answer.text
        assert "sqlite" not in answer.text


@pytest.mark.parametrize("path", [*FORMS, "/act/token"])
async def test_without_the_token_no_form_is_taken(stack: AsyncExitStack, path: str) -> None:
    here = await client(stack)
    answer = await here.post(path, data={"type": "x", "instance": "x"}, headers={"origin": OWN})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_the_token_becomes_a_cookie_and_leaves_the_address(stack: AsyncExitStack) -> None:
    here = await client(stack)
    answer = await here.get("/instances", params={"token": TOKEN, "status": "failed"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/instances?status=failed")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert (await here.get("/instances")).status_code == 200


async def test_a_wrong_token_gets_no_cookie(stack: AsyncExitStack) -> None:
    here = await client(stack)
    for token in ("", "wrong", TOKEN + "x", "\N{SNOWMAN}"):
        answer = await here.get("/instances", params={"token": token})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers


async def test_the_form_takes_the_token(stack: AsyncExitStack) -> None:
    here = await client(stack)
    headers = {"origin": OWN}
    assert (await here.post("/token", data={"token": "wrong"}, headers=headers)).status_code == 401
    assert (await here.post("/token", data={"token": TOKEN}, headers=headers)).status_code == 303
    assert (await here.get("/instances")).status_code == 200


async def test_a_program_shows_the_token_as_a_bearer(stack: AsyncExitStack) -> None:
    here = await client(stack)
    assert (await here.get("/instances", headers={"authorization": f"Bearer {TOKEN}"})).status_code == 200
    assert (await here.get("/instances", headers={"authorization": "Bearer wrong"})).status_code == 401


async def test_a_forged_cookie_is_none(stack: AsyncExitStack) -> None:
    here = await client(stack)
    name = Sessions(TOKEN).cookie_name
    good = Sessions(TOKEN).new_cookie()
    other = Sessions("another-token-than-ours").new_cookie()
    for cookie in (good[:-1] + ("0" if good[-1] != "0" else "1"), good.split(".")[0], other, "", "x" * 5000):
        assert (await here.get("/instances", headers={"cookie": f"{name}={cookie}"})).status_code == 401
    assert (await here.get("/instances", headers={"cookie": f"{name}={good}"})).status_code == 200


async def test_a_redirect_never_leaves_the_host(stack: AsyncExitStack) -> None:
    here = await client(stack)
    for path in ("//evil.example/x", "/%2F/evil.example", "/\\evil.example", "/%0d%0aset-cookie:x=1"):
        answer = await here.get(OWN + path, params={"token": TOKEN})
        assert re.match(r"/[^/\\]", answer.headers["location"]), answer.headers["location"]


# -- hosts and origins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9999", "localhost:8787", "[::1]:8787", "LOCALHOST"])
async def test_the_names_of_this_machine_are_answered(stack: AsyncExitStack, host: str) -> None:
    here = await client(stack)
    assert (await here.get("/instances", headers={"host": host})).status_code == 401


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8787", "127.0.0.1.evil.example", "localhost.evil", "", "127.0.0.1@evil.example"],
)
async def test_a_host_of_strangers_is_refused_even_with_the_token(stack: AsyncExitStack, host: str) -> None:
    """DNS rebinding: their name points at this machine, and their page would be of the same origin."""
    here = await visitor(stack)
    for path in ("/instances", f"/instances?token={TOKEN}", "/static/viewer.js", "/live?page=/instances"):
        answer = await here.get(path, headers={"host": host, "authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 421
        assert "set-cookie" not in answer.headers


async def test_another_name_can_be_allowed(stack: AsyncExitStack) -> None:
    here = await client(stack, allowed_hosts=("ops.example.org",))
    assert (await here.get("/", headers={"host": "ops.example.org"})).status_code == 401
    assert (await here.get("/")).status_code == 421


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "http://localhost:8787", "null", "", "file://"]
)
async def test_a_foreign_origin_is_refused(stack: AsyncExitStack, origin: str) -> None:
    here = await visitor(stack)
    headers = {"origin": origin}
    assert (await here.get("/instances", headers=headers)).status_code == 403
    assert (await here.get("/live", params={"page": "/instances"}, headers=headers)).status_code == 403
    data = {"secret": await form_secret(here), "type": "x"}
    for path in FORMS:
        assert (await here.post(path, data=data, headers=headers)).status_code == 403


async def test_a_post_that_does_not_say_where_it_comes_from_is_refused(stack: AsyncExitStack) -> None:
    here = await visitor(stack)
    data = {"secret": await form_secret(here), "type": "x"}
    assert (await here.post("/act/send", data=data)).status_code == 403
    assert (await here.post("/act/send", data=data, headers={"sec-fetch-site": "cross-site"})).status_code == 403
    assert (await here.post("/act/send", data=data, headers={"sec-fetch-site": "same-site"})).status_code == 403
    assert (await here.post("/act/send", data=data, headers={"sec-fetch-site": "same-origin"})).status_code == 303


async def test_a_link_from_another_site_is_followed_once_more_from_here(stack: AsyncExitStack) -> None:
    """A strict cookie does not come with it."""
    here = await client(stack)
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    answer = await here.get("/instances?id=a;b", headers=headers)
    assert answer.headers["refresh"] == "0; url=/instances?id=a%3Bb"
    assert answer.text == ""
    assert (await here.get("/instances", headers={**headers, "sec-fetch-dest": "iframe"})).status_code == 401


async def test_every_answer_forbids_what_is_foreign(stack: AsyncExitStack) -> None:
    here = await visitor(stack)
    for path in ("/instances", "/nowhere", "/static/viewer.css", "/static/none.js", "/live"):
        for headers in ({}, {"host": "evil.example"}, {"origin": "null"}):
            answer = await here.get(path, headers=headers)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert answer.headers["x-frame-options"] == "DENY"


async def test_pages_are_not_kept_by_caches(stack: AsyncExitStack) -> None:
    here = await visitor(stack)
    assert (await here.get("/instances")).headers["cache-control"] == "no-store"


async def test_the_stream_of_changes_is_for_those_with_the_token(stack: AsyncExitStack) -> None:
    """Neither a page of strangers nor a name of theirs that points here hears when something happens."""
    here = await client(stack)
    watched = {"page": "/instances"}
    assert (await here.get("/live", params=watched)).status_code == 401
    forged = {"cookie": f"{Sessions(TOKEN).cookie_name}={Sessions('another-token-than-ours').new_cookie()}"}
    assert (await here.get("/live", params=watched, headers=forged)).status_code == 401
    bearer = {"authorization": f"Bearer {TOKEN}"}
    foreign = {**bearer, "origin": "https://evil.example"}
    assert (await here.get("/live", params=watched, headers=foreign)).status_code == 403
    rebound = {**bearer, "host": "evil.example", "origin": "http://evil.example"}
    assert (await here.get("/live", params=watched, headers=rebound)).status_code == 421


async def test_web_sockets_are_refused(stack: AsyncExitStack) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    def nobody(*_: Any) -> Any:
        raise AssertionError

    guard = Guard(nobody, sessions=Sessions(TOKEN), allowed_hosts=(), ask_for_token=nobody)
    await guard({"type": "websocket", "path": "/live", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


# -- forms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_without_our_secret_does_nothing(stack: AsyncExitStack, path: str) -> None:
    here = await visitor(stack)
    secret = await form_secret(here)
    for sent in ({}, {"secret": ""}, {"secret": secret[:-1]}, {"secret": "0" * 64}, {"secret": "\N{SNOWMAN}"}):
        answer = await here.post(path, data={"type": "x", **sent}, headers={"origin": OWN})
        assert answer.status_code == 403
        assert "not one of ours" in answer.text


async def test_the_secret_of_another_session_is_not_ours(stack: AsyncExitStack) -> None:
    here = await visitor(stack)
    stranger = Sessions(TOKEN).form_secret(Sessions(TOKEN).new_cookie())
    answer = await here.post("/act/send", data={"secret": stranger, "type": "x"}, headers={"origin": OWN})
    assert answer.status_code == 403


async def test_a_viewer_that_only_looks_does_nothing_and_offers_nothing(stack: AsyncExitStack) -> None:
    here = await visitor(stack, allow_actions=False)
    for path in FORMS:
        answer = await here.post(path, data={"instance": "x"}, headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 403
        assert "only looks" in answer.text
    answer = await here.get("/start")
    assert (answer.status_code, "only looks" in answer.text) == (403, True)
    assert '<form method="post"' not in (await here.get("/events")).text


async def test_looking_by_get_never_acts(stack: AsyncExitStack) -> None:
    here = await visitor(stack)
    assert (await here.get("/act/send?type=x")).status_code in (404, 405)


async def test_a_body_without_end_is_not_read_to_the_end(stack: AsyncExitStack) -> None:
    here = await visitor(stack)
    answer = await here.post("/act/send", content=b"type=" + b"x" * 600_000, headers={"origin": OWN})
    assert answer.status_code == 403


# -- values ------------------------------------------------------------------------------------------------------------


async def test_what_cannot_be_asked_is_said_and_is_no_failure(stack: AsyncExitStack) -> None:
    here = await visitor(stack)
    for path in (
        "/instances?page=nonsense",
        "/instances?input=nothing",
        "/instances?from=yesterday",
        "/instances?id=" + "x" * 600,
        "/instances?id=%00",
        "/start?workflow=%00",
        "/instances/x?from=-1",
        "/outbox?page=bm9uc2Vuc2U",
        "/events?page=W10",
        "/value?id=x&part=input&seq=x",
    ):
        answer = await here.get(path)
        assert answer.status_code in (400, 404), path
        assert "Traceback" not in answer.text


async def test_half_a_character_is_asked_for_and_found_nowhere(stack: AsyncExitStack) -> None:
    here = await visitor(stack)
    assert (await here.get("/instances", params={"input": r'x = "\ud800"'})).status_code == 200


# -- serving -----------------------------------------------------------------------------------------------------------


def test_a_host_that_others_reach_needs_a_token_and_names() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(ValueError, match="others can reach"):
            serve("sqlite:///x.db", host=host)
        with pytest.raises(ValueError, match="others can reach"):
            serve("sqlite:///x.db", host=host, token=TOKEN)
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert is_loopback(host)


def test_a_token_is_long_or_refused() -> None:
    for token in ("", "short", "with a space in the middle", "x" * 15, "\N{SNOWMAN}" * 20):
        with pytest.raises(ValueError, match="visible ASCII"):
            create_app("sqlite:///x.db", token=token)
    assert len({new_token() for _ in range(100)}) == 100
    assert Sessions(new_token()).is_token("x") is False


def test_hosts_are_compared_without_their_ports() -> None:
    assert [host_of(text) for text in ("a:1", "A", "[::1]:80", "[::1]", ":80", "a:b")] == [
        "a", "a", "[::1]", "[::1]", ":80", "a:b",
    ]  # fmt: skip


def test_without_the_extra_the_error_names_it() -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None\n"
        "import edda.viewer\n"
        "try: edda.viewer.create_app\n"
        "except ImportError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "pip install 'edda-framework[viewer]'" in found
    assert "jinja2" in found
