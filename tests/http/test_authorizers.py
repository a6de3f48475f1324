"""Who may do what: bearer tokens, signatures, and the one way in which they are asked."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from edda.core.event import CloudEvent
from edda.exceptions import ForbiddenError
from edda.http import BearerToken, FirstOf, Grant, HttpApp, Principal, StandardWebhooks
from edda.http.authorizer import Action, Resource
from edda.http.bearer import fits
from edda.http.request import Request
from tests.http.support import FakeDoor, call, chunk, exchange, scope_of

PAID = CloudEvent(id="1", source="/shop", type="order.paid")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of 24 byte").decode()
NOW = 1_700_000_000


def request(headers: dict[str, str] | None = None, body: bytes = b"", **more: Any) -> Request:
    pairs = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items())
    return Request(method="POST", path="/", query=b"", headers=pairs, client=None, body=body, **more)


def bearing(token: str) -> Request:
    return request({"authorization": f"Bearer {token}"})


# -- bearer tokens ---------------------------------------------------------------------------------------------------


async def test_whoever_has_one_of_the_tokens_may_do_everything() -> None:
    tokens = BearerToken("old-token", "new-token")
    for token in ("old-token", "new-token"):
        assert await tokens.authorize(bearing(token), "event", PAID) == Principal(name="bearer")
        assert await tokens.authorize(bearing(token), "cancel", "order-1") == Principal(name="bearer")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic token-1", "token-1", "Bearer token-1 x", "Bearer TOKEN-1"],
)
async def test_nobody_else_is_known(header: str) -> None:
    assert await BearerToken("token-1").authorize(request({"authorization": header}), "event", PAID) is None


async def test_the_scheme_is_case_insensitive_and_a_second_header_is_no_header() -> None:
    tokens = BearerToken("token-1")
    assert await tokens.authorize(request({"Authorization": "bEARER token-1"}), "event", PAID) is not None
    two = Request(
        method="POST",
        path="/",
        query=b"",
        client=None,
        headers=((b"authorization", b"Bearer token-1"), (b"authorization", b"Bearer wrong")),
    )
    assert await tokens.authorize(two, "event", PAID) is None


@pytest.mark.parametrize("token", ["", " ", "two words", "Grüße", "a\nb"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        BearerToken(token)


def test_a_token_is_not_shown() -> None:
    assert "token-1" not in repr(BearerToken("token-1", Grant(token="token-12", name="billing")))
    assert "token-1" not in repr(Grant(token="token-1", name="billing"))


def test_a_pattern_that_is_no_tuple_is_refused() -> None:
    with pytest.raises(TypeError, match="tuple of patterns"):
        Grant(token="t", name="billing", types="order.*")  # type: ignore[arg-type]


BILLING = BearerToken(Grant(token="t", name="billing", sources=("/billing*",), types=("payment.done",)))


@pytest.mark.parametrize(
    ("resource", "action", "allowed"),
    [
        (PAID._replace(source="/billing/eu", type="payment.done"), "event", True),
        (PAID._replace(source="/billing/eu", type="payment.done.more"), "event", False),
        (PAID._replace(source="/shop", type="payment.done"), "event", False),
        (PAID._replace(source="/billing", type="payment.done", extensions={"eddainstanceid": "x"}), "event", False),
        ("order-1", "cancel", False),
    ],
)
async def test_a_grant_allows_what_it_names_and_nothing_else(resource: Resource, action: Action, allowed: bool) -> None:
    if allowed:
        assert await BILLING.authorize(bearing("t"), action, resource) == Principal(name="billing")
    else:
        with pytest.raises(ForbiddenError, match="billing may not"):
            await BILLING.authorize(bearing("t"), action, resource)


async def test_instances_are_granted_by_pattern_for_events_and_cancels() -> None:
    tokens = BearerToken(Grant(token="t", name="eu", instances=("eu-*",), cancel=True))
    assert await tokens.authorize(bearing("t"), "cancel", "eu-1/call")
    assert await tokens.authorize(bearing("t"), "event", PAID._replace(extensions={"eddainstanceid": "eu-1"}))
    with pytest.raises(ForbiddenError):
        await tokens.authorize(bearing("t"), "cancel", "us-1")


@given(st.text(), st.text())
def test_a_pattern_fits_itself_and_with_a_star_whatever_begins_with_it(start: str, rest: str) -> None:
    assert fits((start + "*",), start + rest)
    assert fits((start,), start + rest) == (rest == "" or (start.endswith("*") and True))


# -- signatures ------------------------------------------------------------------------------------------------------


def signed(body: bytes, *, secret: str = SECRET, at: int = NOW, id: str = "msg_1", **headers: str) -> Request:
    """As the official library signs it."""
    signature = Webhook(secret).sign(id, datetime.fromtimestamp(at, UTC), body.decode())
    return request(
        {
            "webhook-id": id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature,
            "content-type": "application/cloudevents+json",
            **headers,
        },
        body,
    )


def webhooks(*secrets: str, **options: Any) -> StandardWebhooks:
    return StandardWebhooks(*(secrets or (SECRET,)), clock=lambda: NOW, **options)


async def test_the_vector_of_the_specification_is_accepted() -> None:
    vector = request(
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "content-type": "application/cloudevents+json",
        },
        b'{"test": 2432232314}',
    )
    at_that_time = StandardWebhooks(SECRET, clock=lambda: 1614265330.0)
    assert await at_that_time.authorize(vector, "event", PAID) == Principal(name="webhook")


@given(st.text(max_size=200), st.integers(-400, 400), st.binary(min_size=24, max_size=64), st.booleans())
async def test_it_agrees_with_the_official_library(body: str, offset: int, key: bytes, change: bool) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    encoded = body.encode("utf-8", "replace")
    one = signed(encoded, secret=secret, at=NOW + offset)
    sent = one.with_body(encoded + b"!") if change else one
    known = await webhooks(secret).authorize(sent, "event", PAID)
    assert (known is not None) == (not change and abs(offset) <= 300)


async def test_while_secrets_change_both_are_accepted_and_both_may_have_signed() -> None:
    for secret in (SECRET, OTHER_SECRET):
        assert await webhooks(SECRET, OTHER_SECRET).authorize(signed(b"{}", secret=secret), "event", PAID)
    theirs, ours = signed(b"{}", secret=OTHER_SECRET), signed(b"{}")
    both = f"{theirs.header('webhook-signature')} v1a,xyz {ours.header('webhook-signature')}"
    assert await webhooks().authorize(signed(b"{}", **{"webhook-signature": both}), "event", PAID)
    assert await webhooks().authorize(theirs, "event", PAID) is None


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", ["", "v1,", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "1_700_000_000", "²"])
async def test_what_is_missing_or_changed_makes_it_unknown(name: str, value: str) -> None:
    assert await webhooks().authorize(signed(b"{}", **{name: value}), "event", PAID) is None


async def test_a_signature_does_not_say_which_instance_to_cancel() -> None:
    with pytest.raises(ForbiddenError, match="use a token"):
        await webhooks().authorize(signed(b""), "cancel", "order-1")


async def test_the_attributes_of_a_binary_event_are_not_signed_so_it_is_refused_unless_asked_for() -> None:
    binary = signed(b"{}", **{"content-type": "application/json"})
    with pytest.raises(ForbiddenError, match="structured mode"):
        await webhooks().authorize(binary, "event", PAID)
    assert await webhooks(binary_mode=True).authorize(binary, "event", PAID)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!", "whsec_" + base64.b64encode(b"short").decode()])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="secret of StandardWebhooks"):
        StandardWebhooks(secret)


def test_without_any_secret_nothing_can_be_authorized() -> None:
    for make in (BearerToken, StandardWebhooks, FirstOf):
        with pytest.raises(ValueError, match="at least one"):
            make()


# -- how they are asked ----------------------------------------------------------------------------------------------


class Says:
    """An authorizer with one answer to everything."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[Action, Resource]] = []

    async def authorize(self, request: Request, action: Action, resource: Resource) -> Principal | None:
        self.asked.append((action, resource))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "status", "error_type"),
    [
        (None, 401, "unauthorized"),
        (ForbiddenError("not you"), 403, "forbidden"),
        (RuntimeError("the policy server is down"), 500, "internal_error"),
        (True, 500, "internal_error"),
        ("admin", 500, "internal_error"),
    ],
)
async def test_whatever_is_no_principal_is_a_no(answer: object, status: int, error_type: str) -> None:
    door = FakeDoor()
    door.running = {"order-1"}
    says = Says(answer)
    response = await call(HttpApp(door, authorizer=says), "POST", "/cancel/order-1")
    assert (response.status, response.json["error_type"]) == (status, error_type)
    assert says.asked == [("cancel", "order-1")]
    assert door.cancelled == []
    assert b"policy server" not in response.body
    assert ("www-authenticate" in response.headers) == (status == 401)


async def test_the_name_of_the_principal_stands_beside_the_cancel() -> None:
    door = FakeDoor()
    door.running = {"order-1"}
    await call(HttpApp(door, authorizer=Says(Principal(name="ann"))), "POST", "/cancel/order-1")
    assert door.cancelled == [("order-1", "ann")]


async def test_who_has_no_token_is_not_told_which_instances_exist() -> None:
    door = FakeDoor()
    door.running = {"order-1"}
    app = HttpApp(door, authorizer=BearerToken("token-1"))
    assert {(await call(app, "POST", f"/cancel/{id}")).status for id in ("order-1", "nobody")} == {401}


async def test_who_has_no_token_sends_no_body() -> None:
    app = HttpApp(FakeDoor(), authorizer=FirstOf(BearerToken("token-1"), webhooks()))
    taken: list[object] = []

    def messages():  # type: ignore[no-untyped-def]
        taken.append(1)
        yield chunk(b"{}")

    response = await exchange(app, scope_of("POST", "/", {"content-length": "2"}), messages())
    assert response is not None
    assert (response.status, response.headers["connection"], taken) == (401, "close", [])


async def test_of_several_authorizers_the_first_that_knows_the_sender_decides() -> None:
    both = FirstOf(webhooks(), BearerToken("token-1"))
    assert await both.authorize(signed(b"{}"), "event", PAID) == Principal(name="webhook")
    assert await both.authorize(bearing("token-1"), "cancel", "x") == Principal(name="bearer")
    assert await both.authorize(bearing("wrong"), "cancel", "x") is None
    with pytest.raises(ForbiddenError):
        await both.authorize(signed(b"{}", authorization="Bearer token-1"), "cancel", "x")


async def test_probes_need_no_token() -> None:
    app = HttpApp(FakeDoor(), authorizer=BearerToken("token-1"))
    assert (await call(app, "GET", "/healthz")).status == 200
    assert (await call(app, "GET", "/readyz")).status == 200
