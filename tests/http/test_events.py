"""Events over the application: every mode, what is stored and what is refused, batches judged one by one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edda.core.event import CloudEvent
from edda.exceptions import DatabaseUnavailableError
from edda.http import BearerToken, Grant, HttpApp, HttpOptions
from edda.http.asgi import Message
from tests.http.support import BATCH, GONE, STRUCTURED, FakeDoor, call, chunk, event, exchange, post, scope_of

BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "order.paid"}


@pytest.fixture
def door() -> FakeDoor:
    door = FakeDoor()
    door.running, door.ended = {"order-1"}, {"order-0"}
    return door


@pytest.fixture
def app(door: FakeDoor) -> HttpApp:
    return HttpApp(door)


# -- one event -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/events", "/any/path?x=1", "/cancelled"])
async def test_an_event_on_any_path_is_stored_and_accepted(app: HttpApp, door: FakeDoor, path: str) -> None:
    response = await post(app, event(data={"amount": 10}), path=path)
    assert (response.status, response.body) == (202, b'{"status": "accepted"}')
    assert door.stored["/shop", "1"] == CloudEvent(
        id="1", source="/shop", type="order.paid", datacontenttype="application/json", json='{"amount":10}'
    )


async def test_binary_structured_and_batch_are_the_same_event(door: FakeDoor) -> None:
    stored: list[CloudEvent] = []
    for headers, body in (
        ({**BINARY, "content-type": "application/json"}, b'{"amount":10}'),
        (STRUCTURED, json.dumps(event(data={"amount": 10})).encode()),
        (BATCH, json.dumps([event(data={"amount": 10})]).encode()),
    ):
        door.stored.clear()
        assert (await call(HttpApp(door), "POST", "/", body, headers)).status == 202
        stored += door.stored.values()
    assert stored[0] == stored[1] == stored[2]


async def test_a_body_in_pieces_is_one_body(app: HttpApp, door: FakeDoor) -> None:
    pieces = [chunk(bytes([byte]), more=True) for byte in json.dumps(event()).encode()]
    response = await exchange(app, scope_of("POST", "/", STRUCTURED), [*pieces, chunk(b"")])
    assert response is not None
    assert response.status == 202
    assert list(door.stored) == [("/shop", "1")]


async def test_a_duplicate_is_accepted_and_changes_nothing(app: HttpApp, door: FakeDoor) -> None:
    first, second = await post(app, event(data=1)), await post(app, event(data=2))
    assert first == second
    assert door.stored["/shop", "1"].json == "1"


async def test_nothing_is_answered_before_it_is_stored(app: HttpApp, door: FakeDoor) -> None:
    sent: list[Message] = []

    async def before() -> None:
        assert sent == []

    async def receive() -> Message:
        return chunk(json.dumps(event()).encode())

    async def send(message: Message) -> None:
        assert door.stored
        sent.append(message)

    door.before = before
    await app(scope_of("POST", "/", STRUCTURED), receive, send)
    assert sent[0]["status"] == 202


@pytest.mark.parametrize(
    ("headers", "body", "status", "error_type"),
    [
        (STRUCTURED, b"", 400, "invalid_json"),
        (STRUCTURED, b"{", 400, "invalid_json"),
        (STRUCTURED, b"[]", 400, "invalid_event"),
        (STRUCTURED, b"[" * 100_000, 400, None),
        (STRUCTURED, json.dumps(event(source="")).encode(), 400, None),
        (STRUCTURED, json.dumps(event(time="yesterday")).encode(), 400, None),
        ({}, b"{}", 400, "missing_attribute"),
        ({**BINARY, "ce-id": "%C0%A0"}, b"", 400, "invalid_attribute"),
        ({"content-type": "application/cloudevents+avro"}, b"", 415, "unsupported_format"),
        ({"content-type": "application/cloudevents-batch+avro"}, b"", 415, "unsupported_format"),
        ({**BINARY, "content-encoding": "gzip"}, b"", 415, "unsupported_encoding"),
        (BATCH, json.dumps([event()] * 101).encode(), 413, "batch_too_large"),
        (STRUCTURED, json.dumps(event(subject="x" * 1025)).encode(), 413, "attribute_too_large"),
    ],
)
async def test_what_is_no_event_is_the_senders_error_for_good(
    app: HttpApp, door: FakeDoor, headers: dict[str, str], body: bytes, status: int, error_type: str | None
) -> None:
    response = await call(app, "POST", "/", body, headers)
    assert response.status == status
    assert set(response.json) == {"error", "error_type", "retryable"}
    assert response.json["retryable"] is False
    assert error_type in (None, response.json["error_type"])
    assert door.stored == {}


async def test_an_event_for_an_instance_needs_one_that_lives(app: HttpApp, door: FakeDoor) -> None:
    assert (await post(app, event("1", eddainstanceid="order-1"))).status == 202
    unknown = await post(app, event("2", eddainstanceid="nobody"))
    ended = await post(app, event("3", eddainstanceid="order-0"))
    assert (unknown.status, unknown.json["error_type"]) == (404, "instance_not_found")
    assert (ended.status, ended.json["error_type"]) == (410, "instance_ended")
    assert list(door.stored) == [("/shop", "1")]


async def test_while_the_database_is_away_the_sender_is_told_to_come_again(app: HttpApp, door: FakeDoor) -> None:
    assert (await post(app, event("0"))).status == 202
    door.failure = DatabaseUnavailableError("10.0.0.1")
    for content, headers in ((event(), STRUCTURED), ([event(), {}], BATCH)):
        response = await post(app, content, headers)
        assert (response.status, response.json["retryable"]) == (503, True)
        assert "retry-after" in response.headers


async def test_while_a_large_body_is_read_the_loop_answers_others(app: HttpApp, door: FakeDoor) -> None:
    batch = [event(str(n), data=[{"sku": "x", "n": m} for m in range(400)]) for n in range(100)]
    answers: list[str] = []

    async def large() -> None:
        answers.append(f"large {(await post(app, batch, BATCH)).status}")

    async def small() -> None:
        answers.append(f"small {(await call(app, 'GET', '/healthz')).status}")

    await asyncio.gather(large(), small())
    assert answers == ["small 200", "large 202"]
    assert len(door.stored) == 100


# -- batches ---------------------------------------------------------------------------------------------------------


async def test_a_batch_that_is_stored_is_accepted_and_names_each(app: HttpApp) -> None:
    await post(app, event("2"))
    response = await post(app, [event("1"), event("2")], BATCH)
    assert response.status == 202
    assert response.json == {
        "status": "accepted",
        "events": [
            {"index": 0, "id": "1", "status": 202, "outcome": "stored"},
            {"index": 1, "id": "2", "status": 202, "outcome": "duplicate"},
        ],
    }


async def test_an_empty_batch_is_accepted(app: HttpApp) -> None:
    assert (await post(app, [], BATCH)).status == 202


async def test_each_event_of_a_batch_is_judged_alone_and_named_by_index_and_id(app: HttpApp, door: FakeDoor) -> None:
    batch: list[object] = [event("1"), {"id": "x"}, 7, event("4", eddainstanceid="nobody"), event("5")]
    response = await post(app, batch, BATCH)
    assert response.status == 207
    assert [(entry["index"], entry["id"], entry["status"]) for entry in response.json["events"]] == [
        (0, "1", 202),
        (1, "x", 400),
        (2, None, 400),
        (3, "4", 404),
        (4, "5", 202),
    ]
    assert all(
        {"error", "error_type", "retryable"} <= entry.keys()
        for entry in response.json["events"]
        if entry["status"] != 202
    )
    assert (response.json["error_type"], response.json["retryable"]) == ("batch_refused_in_part", False)
    assert list(door.stored) == [("/shop", "1"), ("/shop", "5")]


async def test_a_batch_that_has_one_fate_has_its_status(app: HttpApp, door: FakeDoor) -> None:
    response = await post(app, [{}, {"id": "2"}], BATCH)
    assert response.status == 400
    assert [entry["status"] for entry in response.json["events"]] == [400, 400]
    assert response.json["retryable"] is False
    assert door.stored == {}


async def test_the_authority_of_each_event_of_a_batch_is_checked_alone(door: FakeDoor) -> None:
    app = HttpApp(door, authorizer=BearerToken(Grant(token="t", name="shop", types=("order.*",))))
    token = {"authorization": "Bearer t"}
    response = await post(app, [event("1"), event("2", type="payment.done")], {**BATCH, **token})
    assert [entry["status"] for entry in response.json["events"]] == [202, 403]
    assert (await post(app, [event("3", type="payment.done")], {**BATCH, **token})).status == 403
    assert (await post(app, event("4", type="payment.done"), {**STRUCTURED, **token})).status == 403
    assert (await post(app, [event("5")], BATCH)).status == 401
    assert list(door.stored) == [("/shop", "1")]


async def test_what_is_authorized_is_the_very_value_that_is_stored(door: FakeDoor) -> None:
    asked: list[object] = []

    class Notes(BearerToken):
        async def authorize(self, request: Any, action: Any, resource: Any) -> Any:
            asked.append(resource)
            return await super().authorize(request, action, resource)

    app = HttpApp(door, authorizer=Notes("t"))
    await post(app, [event("1"), event("2")], {**BATCH, "authorization": "Bearer t"})
    assert all(one is other for one, other in zip(asked, door.stored.values(), strict=True))


# -- laws ------------------------------------------------------------------------------------------------------------

NAMES = (
    b"content-type content-length content-encoding ce-id ce-source ce-type ce-specversion ce-time ce- authorization "
    b"webhook-request-origin expect \xff"
).split()
VALUES = (b"1.0", b"application/cloudevents+json", b"application/cloudevents-batch+json", b"gzip", b"1")
headers_strategy = st.lists(
    st.tuples(
        st.sampled_from(NAMES) | st.binary(max_size=20),
        st.sampled_from(VALUES) | st.binary(max_size=40),
    ),
    max_size=12,
)
json_strategy = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
body_strategy = (
    st.binary(max_size=200)
    | json_strategy.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {name: st.just(value) for name, value in event().items()},
        optional={"data": json_strategy, "subject": st.text(max_size=5)},
    ).map(lambda value: json.dumps(value).encode())
)
EXPECTED = {202, 207, 400, 401, 403, 404, 405, 410, 413, 415, 431}


@settings(max_examples=500)
@given(
    headers=headers_strategy,
    pieces=st.lists(body_strategy, max_size=4),
    method=st.sampled_from(["POST", "POST", "POST", "GET", "OPTIONS", "HEAD", "PUT", ""]),
    path=st.sampled_from(["/", "/cancel/x", "/cancel/order-1", "/healthz", "/readyz"]) | st.text(max_size=20),
    root_path=st.sampled_from(["", "/", "/cancel", "/x/y/"]) | st.text(max_size=5),
)
async def test_whatever_comes_is_answered_and_never_by_an_internal_error(
    headers: list[tuple[bytes, bytes]], pieces: list[bytes], method: str, path: str, root_path: str
) -> None:
    door = FakeDoor()
    door.running = {"order-1"}
    app = HttpApp(door, options=HttpOptions(max_body_bytes=400, webhook_origins=("*",)))
    scope = scope_of(method, path, root_path=root_path)
    scope["headers"] = headers
    response = await exchange(app, scope, [chunk(piece, more=True) for piece in pieces] + [chunk(b"")])
    assert response is not None
    assert response.status in EXPECTED | {200}
    if response.status >= 300 and method != "HEAD":
        assert {"error", "error_type", "retryable"} <= response.json.keys()
    assert response.status in (202, 207) or not (door.stored or door.cancelled)


@given(content=st.lists(st.sampled_from([event("1"), event("2"), {}, event("3", type="")]), max_size=4), data=st.data())
async def test_wherever_the_client_goes_there_is_no_half_request(
    content: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Gone before the end of the body: nothing is stored, sent, or lost. After it: all is stored."""
    door = FakeDoor()
    app = HttpApp(door, options=HttpOptions(max_in_flight=1))
    body = json.dumps(content).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    messages = [chunk(piece, more=True) for piece in pieces[:-1]] + [chunk(pieces[-1])]
    stays = data.draw(st.integers(0, len(messages)))
    response = await exchange(app, scope_of("POST", "/", BATCH), [*messages[:stays], GONE])
    if stays < len(messages):
        assert response is None
        assert door.stored == {}
    else:
        assert response is not None
        assert len(door.stored) == len({one["id"] for one in content if one.get("type")})
    assert (await post(app, event("9"))).status == 202
