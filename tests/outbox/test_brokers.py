"""The sinks for brokers, each against the real one; for Kafka that is librdkafka's own mock cluster."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import confluent_kafka
import nats
import pytest
import redis.asyncio

from edda.exceptions import MissingExtraError
from edda.outbox.sink import Answer, Delivered, Outgoing, Reject, Retry, Sink, outgoing
from edda.outbox.sinks import sink_for
from tests.brokers import broker
from tests.outbox.proxy import proxied
from tests.storage.support import message

numbers = itertools.count(1)
BYTES = bytes(range(256))


@dataclass
class Received:
    """A message as a consumer sees it."""

    id: str
    type: str
    """Content type."""
    attributes: dict[str, str]
    body: bytes
    key: str | None = None
    traceparent: str | None = None


@dataclass
class Place:
    """Somewhere at a broker: the URL of it, one where nothing is, and what arrived."""

    url: str
    nowhere: str | None
    read: Callable[[int], Awaitable[list[Received]]]
    dedups: bool = False
    unreachable: str = ""


def fresh(kind: str) -> str:
    return f"edda-test-{kind}-{os.getpid()}-{next(numbers)}"


@contextlib.asynccontextmanager
async def nats_place() -> AsyncGenerator[Place]:
    url = broker("nats")
    client = await nats.connect(url)
    stream = client.jetstream()
    name = fresh("nats")
    await stream.add_stream(name=name, subjects=[f"{name}.>"])

    async def read(count: int) -> list[Received]:
        subscription = await stream.subscribe(f"{name}.>", ordered_consumer=True)
        found: list[Received] = []
        with contextlib.suppress(nats.errors.TimeoutError):
            while True:
                got = await subscription.next_msg(timeout=10 if len(found) < count else 0.2)
                headers = dict(got.headers or {})
                attributes = {key[3:]: value for key, value in headers.items() if key.startswith("ce-")}
                found.append(
                    Received(
                        headers["Nats-Msg-Id"],
                        headers["content-type"],
                        attributes,
                        got.data,
                        traceparent=headers.get("traceparent"),
                    )
                )
        await subscription.unsubscribe()
        return found

    try:
        yield Place(f"{url}/{name}.{{type}}", f"{url}/nobody-{name}", read, True, "nats://127.0.0.1:1/x")
    finally:
        await stream.delete_stream(name)
        await client.close()


@contextlib.asynccontextmanager
async def redis_place() -> AsyncGenerator[Place]:
    url = broker("redis")
    client = redis.asyncio.Redis.from_url(url)
    name = fresh("redis")
    await client.set(f"{name}-wrong", "not a stream")

    async def read(count: int) -> list[Received]:
        found = []
        for _, entry in await client.xrange(f"{name}-order.paid"):
            fields = {key.decode(): value for key, value in entry.items()}
            attributes = {key[3:]: value.decode() for key, value in fields.items() if key.startswith("ce-")}
            found.append(Received(fields["id"].decode(), fields["content-type"].decode(), attributes, fields["data"]))
        return found

    try:
        yield Place(
            f"{url}/0?stream={name}-{{type}}",
            f"{url}/0?stream={name}-wrong",
            read,
            unreachable="redis://127.0.0.1:1/0?stream=x",
        )
    finally:
        await client.delete(f"{name}-order.paid", f"{name}-wrong")
        await client.aclose()


@contextlib.asynccontextmanager
async def amqp_place() -> AsyncGenerator[Place]:
    url = broker("amqp")
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    name = fresh("amqp")
    exchange = await channel.declare_exchange(name, aio_pika.ExchangeType.TOPIC)
    queue = await channel.declare_queue(name)
    await queue.bind(exchange, "order.*")

    async def read(count: int) -> list[Received]:
        found: list[Received] = []
        while (got := await queue.get(fail=False)) is not None:
            await got.ack()
            assert got.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
            headers = {key: str(value) for key, value in got.headers.items()}
            traceparent = headers.pop("traceparent", None)
            attributes = {key.removeprefix("cloudEvents:"): value for key, value in headers.items()}
            found.append(
                Received(got.message_id or "", got.content_type or "", attributes, got.body, traceparent=traceparent)
            )
        return found

    bare = url.rstrip("/")
    try:
        yield Place(
            f"{bare}/?exchange={name}",
            f"{bare}/?exchange={name}&routing_key=nobody",
            read,
            unreachable="amqp://127.0.0.1:1/?exchange=x",
        )
    finally:
        await queue.delete(if_unused=False, if_empty=False)
        await exchange.delete()
        await connection.close()


@contextlib.asynccontextmanager
async def kafka_place() -> AsyncGenerator[Place]:
    # Keeps the cluster alive, and makes its topics by asking for them.
    cluster = confluent_kafka.Producer({"test.mock.num.brokers": 3, "log_level": 0})
    hosts = ",".join(f"{each.host}:{each.port}" for each in cluster.list_topics(timeout=10).brokers.values())
    name = fresh("kafka")

    def read_now(count: int) -> list[Received]:
        options = {"bootstrap.servers": hosts, "group.id": fresh("group"), "auto.offset.reset": "earliest"}
        consumer = confluent_kafka.Consumer(options)
        consumer.subscribe([name])
        found: list[Received] = []
        while (got := consumer.poll(10 if len(found) < count else 0.3)) is not None:
            assert got.error() is None, got.error()
            headers = {key: value.decode() for key, value in got.headers() or ()}
            kind = headers.pop("content-type")
            traceparent = headers.pop("traceparent", None)
            attributes = {key.removeprefix("ce_"): value for key, value in headers.items()}
            if kind == "application/cloudevents+json":
                assert attributes.keys() == {"id"}
            key = (got.key() or b"").decode()
            found.append(Received(headers["ce_id"], kind, attributes, got.value() or b"", key, traceparent))
        consumer.close()
        return found

    try:
        yield Place(
            f"kafka://{hosts}/{name}", None, lambda count: asyncio.to_thread(read_now, count),
            unreachable="kafka://127.0.0.1:1/x",
        )  # fmt: skip
    finally:
        del cluster


PLACES = {"nats": nats_place, "redis": redis_place, "amqp": amqp_place, "kafka": kafka_place}


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with PLACES[request.param]() as place:
        yield place


@pytest.fixture
async def sink(place: Place) -> AsyncIterator[Sink]:
    sink = sink_for(place.url)
    yield sink
    await sink.close()


def event(number: int = 1, **more: Any) -> Outgoing:
    return outgoing(message(f"i{number}", 1, **({"id": f"event-{number}", "data": f'{{"n":{number}}}'} | more)))


def scan(number: int) -> Outgoing:
    return event(number, data=None, blob=BYTES, content_type="image/png")


async def publish(sink: Sink, *events: Outgoing) -> list[Answer]:
    async with asyncio.timeout(60):
        return list(await sink.publish(events))


async def test_json_arrives_in_structured_mode_and_bytes_as_they_are(sink: Sink, place: Place) -> None:
    assert await publish(sink, event(1), scan(2)) == [Delivered()] * 2
    one, two = sorted(await place.read(2), key=lambda received: received.id)
    assert (one.id, one.type) == ("event-1", "application/cloudevents+json")
    body = json.loads(one.body)
    assert (body["id"], body["type"], body["data"]) == ("event-1", "order.paid", {"n": 1})
    assert (two.id, two.type, two.body) == ("event-2", "image/png", BYTES)
    assert (two.attributes["id"], two.attributes["type"], two.attributes["specversion"]) == (
        "event-2",
        "order.paid",
        "1.0",
    )
    assert two.attributes["source"] == "/orders"


async def test_headers_of_one_delivery_arrive_where_the_broker_has_headers(sink: Sink, place: Place) -> None:
    span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced = [one._replace(headers={"traceparent": span}) for one in (event(1), scan(2))]
    assert await publish(sink, *traced) == [Delivered()] * 2
    has_headers = not place.url.startswith("redis")
    assert [received.traceparent for received in await place.read(2)] == [span if has_headers else None] * 2


async def test_what_is_delivered_one_after_the_other_arrives_in_that_order(sink: Sink, place: Place) -> None:
    for number in range(20):
        assert await publish(sink, event(1, id=f"event-{number}")) == [Delivered()]
    assert [received.id for received in await place.read(20)] == [f"event-{number}" for number in range(20)]


async def test_a_whole_batch_arrives_each_once(sink: Sink, place: Place) -> None:
    assert await publish(sink, *(event(number) for number in range(sink.batch_max))) == [Delivered()] * sink.batch_max
    found = await place.read(sink.batch_max)
    assert sorted(received.id for received in found) == sorted(f"event-{number}" for number in range(sink.batch_max))
    assert all(received.key in (None, f"i{received.id.removeprefix('event-')}") for received in found)


async def test_an_event_that_is_none_is_refused_and_its_neighbours_arrive(sink: Sink, place: Place) -> None:
    one, two, three = await publish(sink, event(1), event(2, source=""), event(3))
    assert (one, three) == (Delivered(), Delivered())
    assert isinstance(two, Reject)
    assert {received.id for received in await place.read(2)} == {"event-1", "event-3"}


async def test_a_duplicate_has_the_same_id_and_is_dropped_where_the_broker_can(sink: Sink, place: Place) -> None:
    assert await publish(sink, event(1)) == [Delivered()]
    assert await publish(sink, event(1)) == [Delivered()]
    assert [received.id for received in await place.read(1)] == ["event-1"] * (1 if place.dedups else 2)


async def test_where_nobody_takes_it_it_is_not_delivered_and_later_ones_are(place: Place, sink: Sink) -> None:
    if place.nowhere is None:
        pytest.skip("a topic is made by asking for it")
    lost = sink_for(place.nowhere)
    try:
        (answer,) = await publish(lost, event(1))
        assert isinstance(answer, Retry), answer
    finally:
        await lost.close()
    assert await publish(sink, event(1)) == [Delivered()]


async def test_a_broker_that_is_away_is_an_error_and_closing_does_not_hang(place: Place) -> None:
    sink = sink_for(place.unreachable)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        await publish(sink, event(1))
    assert not isinstance(caught.value, AssertionError)
    async with asyncio.timeout(10):
        await sink.close()
        await sink.close()


async def test_after_closing_it_connects_anew(sink: Sink, place: Place) -> None:
    await publish(sink, event(1))
    await sink.close()
    assert await publish(sink, event(2)) == [Delivered()]
    assert len(await place.read(2)) == 2


@pytest.mark.parametrize("place", ["nats", "redis", "amqp"], indirect=True)
async def test_a_connection_that_was_cut_is_made_anew(place: Place) -> None:
    parts = urlsplit(place.url)
    async with proxied(parts.hostname or "", parts.port or 0) as proxy:
        sink = sink_for(place.url.replace(f":{parts.port}", f":{proxy.at}", 1))
        assert await publish(sink, event(1)) == [Delivered()]
        proxy.open = False
        proxy.cut()
        assert await attempt(sink, event(2)) is None
        proxy.open = True
        async with asyncio.timeout(30):
            while await attempt(sink, event(2)) is None:
                pass
        await sink.close()
    assert {received.id for received in await place.read(2)} == {"event-1", "event-2"}


async def attempt(sink: Sink, sent: Outgoing) -> Answer | None:
    """None: not delivered, as an answer or as an error."""
    try:
        (answer,) = await publish(sink, sent)
    except Exception:
        return None
    return answer if answer == Delivered() else None


async def test_amqp_an_exchange_that_comes_later_is_found() -> None:
    url, name = broker("amqp"), fresh("late")
    sink = sink_for(f"{url.rstrip('/')}/?exchange={name}&routing_key={name}")
    (answer,) = await publish(sink, event(1))
    assert isinstance(answer, Retry)
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(name, aio_pika.ExchangeType.DIRECT)
        queue = await channel.declare_queue(name)
        await queue.bind(exchange, name)
        assert await publish(sink, event(1)) == [Delivered()]
        await queue.delete(if_unused=False, if_empty=False)
        await exchange.delete()
    await sink.close()


async def test_nats_a_subject_that_is_none_is_refused() -> None:
    sink = sink_for(f"{broker('nats')}/{{type}}")
    (answer,) = await publish(sink, event(1, type="order paid *"))
    assert answer == Reject("'order paid *' is no subject of NATS")
    await sink.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://h/0", "names no stream"),
        ("redis://h/0?stream=a&db=1", "unknown option 'db'"),
        ("redis:///0?stream=a", "names no host"),
        ("kafka://h:9092", "names no topic"),
        ("amqp://h/", "says not where to"),
        ("nats://h/a%20b", "is no subject"),
        ("nats://h/a?b=1", "unknown option 'b'"),
    ],
)
def test_a_url_that_cannot_work_is_refused_at_once_and_no_password_is_told(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        sink_for(url.replace("://h", "://me:secret@h"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("kafka://h/t", "aiokafka", "kafka"),
        ("nats://h/s", "nats", "nats"),
        ("amqp://h/?exchange=e", "aio_pika", "amqp"),
        ("redis://h/0?stream=s", "redis.asyncio", "redis"),
    ],
)
def test_a_missing_library_says_which_extra_to_install(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'edda-framework\[{extra}\]'"):
        sink_for(url)


def test_a_package_can_bring_a_sink_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "pigeon"

        def load(self) -> Callable[[str], str]:
            return lambda url: f"a sink for {url}"

    def entry_points(*, group: str, name: str | None = None) -> list[Entry]:
        assert group == "edda.sinks"
        return [Entry()] if name in (None, "pigeon") else []

    monkeypatch.setattr("edda.outbox.sinks.entry_points", entry_points)
    found: Any = sink_for("pigeon://loft/7")
    assert found == "a sink for pigeon://loft/7"
    with pytest.raises(ValueError, match="pigeon"):
        sink_for("crow://x")
