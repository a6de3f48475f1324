"""Events to a stream of NATS JetStream: `nats://host:4222/orders` names the subject; the default is `{type}`.

The stream has to exist; an event counts as delivered when the stream has acknowledged it. `Nats-Msg-Id` is the event's
id, so within the stream's window for duplicates it is there once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Any, Final

from edda.cloudevents import to_binary
from edda.outbox.sink import Answer, Outgoing, Sink
from edda.outbox.sinks.common import (
    CONNECT_SECONDS_MAX,
    BrokerUrl,
    Content,
    RefusedForEver,
    broker_url,
    each,
    filled,
    library,
)

ACKNOWLEDGED_SECONDS_MAX: Final = 5.0
"""A connection that was lost does not tell those who wait."""
SUBJECT: Final = re.compile(r"[^\s.*>\x00-\x20]+(\.[^\s.*>\x00-\x20]+)*")


def make(url: str) -> Sink:
    library("nats", package="nats-py", extra="nats")
    parsed = broker_url(url)
    subject = parsed.path or "{type}"
    if SUBJECT.fullmatch(subject) is None:
        raise ValueError(f"broker_url='nats://host/subject': {subject!r} is no subject that can be published to")
    return NatsSink(parsed, subject)


class NatsSink:
    batch_max = 100
    calls_max = 4

    def __init__(self, url: BrokerUrl, subject: str) -> None:
        self._servers = [f"{url.parts.scheme}://{netloc}" for netloc in _netlocs(url)]
        self._subject = subject
        self._client: Any = None
        self._connecting = asyncio.Lock()

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        stream = (await self._connected()).jetstream()

        async def send(outgoing: Outgoing, content: Content) -> None:
            subject = filled(self._subject, outgoing.event)
            if SUBJECT.fullmatch(subject) is None:
                raise RefusedForEver(f"{subject!r} is no subject of NATS")
            headers = {"Nats-Msg-Id": outgoing.event.id, "content-type": content.type, **outgoing.headers}
            if content.attributes:
                # Percent-encoded as in HTTP: headers of NATS hold no more than ASCII, either.
                headers |= {name.decode(): value.decode() for name, value in to_binary(outgoing.event).headers}
            await stream.publish(subject, content.body, timeout=ACKNOWLEDGED_SECONDS_MAX, headers=headers)

        return await each(events, send)

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                nats = library("nats", package="nats-py", extra="nats")
                async with asyncio.timeout(CONNECT_SECONDS_MAX):  # the library itself would go on trying
                    self._client = await nats.connect(
                        servers=self._servers,
                        name="edda",
                        allow_reconnect=False,  # the next call connects anew, and until then nothing is kept back
                        error_cb=_silent,  # whoever publishes gets the error, too
                    )
            return self._client

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # it is lost
                await client.close()


async def _silent(_: Exception) -> None: ...


def _netlocs(url: BrokerUrl) -> list[str]:
    """Several servers may be named, with commas; name and password go for all of them."""
    credentials, at, hosts = url.parts.netloc.rpartition("@")
    return [f"{credentials}{at}{host}" for host in hosts.split(",") if host]
