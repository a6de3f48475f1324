"""Events to Kafka: `kafka://host1:9092,host2:9092/orders`; in the topic's name `{type}` stands for the event's type.

The key is the workflow instance, so the events of one stay in one partition and in order. The producer is idempotent:
what it sends again by itself is there once; what the relayer sends again has the same `ce_id`. `?tls=1` encrypts; a
name and password in the URL are for SASL/PLAIN.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from edda.outbox.sink import Answer, Outgoing, Retry, Sink
from edda.outbox.sinks.common import (
    SECONDS_MAX,
    BrokerUrl,
    Content,
    RefusedForEver,
    broker_url,
    each,
    filled,
    library,
)

MILLISECONDS_MAX = round(SECONDS_MAX * 1000)
STOP_SECONDS_MAX = 5.0


def make(url: str) -> Sink:
    library("aiokafka", package="aiokafka", extra="kafka")
    parsed = broker_url(url, "tls")
    if not parsed.path:
        raise ValueError("broker_url='kafka://host:9092/topic' names no topic")
    return KafkaSink(parsed)


class KafkaSink:
    batch_max = 100
    calls_max = 1
    """A producer that failed is replaced: nobody else may be using it."""

    def __init__(self, url: BrokerUrl) -> None:
        self._topic = url.path
        self._options = _options(url)
        self._producer: Any = None

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        kafka = library("aiokafka", package="aiokafka", extra="kafka")
        producer = await self._started(kafka)
        failed = True  # also when this call is cancelled: what it left in the producer must not go out later

        async def send(outgoing: Outgoing, content: Content) -> None:
            try:
                await producer.send_and_wait(
                    filled(self._topic, outgoing.event),
                    content.body,
                    key=outgoing.key.encode(),
                    headers=_headers(outgoing, content),
                )
            except (kafka.errors.MessageSizeTooLargeError, kafka.errors.InvalidTopicError) as error:
                raise RefusedForEver(f"{type(error).__name__}: {error}") from error

        try:
            answers = await each(events, send)
            failed = any(isinstance(answer, Retry) for answer in answers)
            return answers
        finally:
            if failed:
                await self.close()

    async def _started(self, kafka: Any) -> Any:
        if self._producer is None:
            producer = kafka.AIOKafkaProducer(
                acks="all",
                enable_idempotence=True,
                client_id="edda",
                request_timeout_ms=MILLISECONDS_MAX,
                **self._options,
            )
            try:
                await producer.start()
            except BaseException:
                await _end(producer)
                raise
            self._producer = producer
        return self._producer

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _end(producer)


async def _end(producer: Any) -> None:
    """It would wait for brokers that are away."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await producer.stop()


def _headers(outgoing: Outgoing, content: Content) -> list[tuple[str, bytes]]:
    """The attributes of binary mode; the id always, so that a reader knows a duplicate without reading the value."""
    attributes = {"id": outgoing.event.id, **content.attributes}
    return [
        ("content-type", content.type.encode()),
        *((f"ce_{name}", attributes[name].encode()) for name in attributes),
        *((name, value.encode()) for name, value in outgoing.headers.items()),
    ]


def _options(url: BrokerUrl) -> dict[str, Any]:
    credentials, _, hosts = url.parts.netloc.rpartition("@")
    tls = url.options.get("tls") == "1"
    options: dict[str, Any] = {"bootstrap_servers": hosts}
    if tls:
        options["ssl_context"] = ssl.create_default_context()
    if credentials:
        name, _, password = credentials.partition(":")
        options |= {
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": unquote(name),
            "sasl_plain_password": unquote(password),
        }
    if tls or credentials:
        options["security_protocol"] = f"{'SASL_' if credentials else ''}{'SSL' if tls else 'PLAINTEXT'}"
    return options
