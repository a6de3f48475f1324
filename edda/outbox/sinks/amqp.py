"""Events to RabbitMQ: `amqp://host/vhost?exchange=events&routing_key={type}`; `{type}` stands for the event's type.

Without `exchange` the routing key names a queue. Messages are persistent and have to be confirmed; one that no queue
takes comes back (mandatory) and is tried again. `message_id` is the event's id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from edda.outbox.sink import Answer, Outgoing, Sink
from edda.outbox.sinks.common import (
    CONNECT_SECONDS_MAX,
    SECONDS_MAX,
    BrokerUrl,
    Content,
    RefusedForEver,
    broker_url,
    each,
    filled,
    library,
)

ROUTING_KEY_BYTES_MAX: Final = 255
CLOSE_SECONDS_MAX: Final = 2.0
PREFIX: Final = "cloudEvents:"


def make(url: str) -> Sink:
    library("aio_pika", package="aio-pika", extra="amqp")
    parsed = broker_url(url, "exchange", "routing_key")
    if not parsed.options.get("routing_key") and not parsed.options.get("exchange"):
        raise ValueError(
            f"broker_url='{parsed.parts.scheme}://...' says not where to: add ?exchange=name, or ?routing_key=queue"
        )
    return AmqpSink(parsed)


class AmqpSink:
    batch_max = 100
    calls_max = 1
    """A connection that failed is replaced: nobody else may be using it."""

    def __init__(self, url: BrokerUrl) -> None:
        self._url = url.bare
        self._exchange_name = url.options.get("exchange", "")
        self._routing_key = url.options.get("routing_key", "{type}")
        self._connection: Any = None
        self._exchange: Any = None

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        pika = library("aio_pika", package="aio-pika", extra="amqp")
        exchange = await self._connected(pika)
        broken = False

        async def send(outgoing: Outgoing, content: Content) -> None:
            nonlocal broken
            try:
                await exchange.publish(
                    _message(pika, outgoing, content), self._key(outgoing), mandatory=True, timeout=SECONDS_MAX
                )
            except (pika.exceptions.DeliveryError, RefusedForEver):
                raise
            except BaseException:  # a channel does not always know that it is closed
                broken = True
                raise

        try:
            return await each(events, send)
        finally:
            if broken:
                await self.close()

    def _key(self, outgoing: Outgoing) -> str:
        routing_key = filled(self._routing_key, outgoing.event)
        if len(routing_key.encode()) > ROUTING_KEY_BYTES_MAX:
            raise RefusedForEver(f"a routing key has at most {ROUTING_KEY_BYTES_MAX} bytes")
        return routing_key

    async def _connected(self, pika: Any) -> Any:
        """The exchange. Whoever named it says that it is there; a publish tells when it is not."""
        if self._exchange is None:
            await self.close()
            self._connection = await pika.connect(self._url, timeout=CONNECT_SECONDS_MAX)
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            self._exchange = (
                await channel.get_exchange(self._exchange_name, ensure=False)
                if self._exchange_name
                else channel.default_exchange
            )
        return self._exchange

    async def close(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is broken: that is why
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await connection.close()


def _message(pika: Any, outgoing: Outgoing, content: Content) -> Any:
    return pika.Message(
        content.body,
        headers={PREFIX + name: value for name, value in content.attributes.items()} | dict(outgoing.headers),
        content_type=content.type,
        message_id=outgoing.event.id,
        delivery_mode=pika.DeliveryMode.PERSISTENT,
    )
