"""Events to a stream of Redis or Valkey: `redis://host:6379/0?stream=orders`; `{type}` in it stands for the type.

An entry has the fields `id`, `content-type` and `data`, and in binary mode the attributes as `ce-...`. A stream knows
no duplicates: who reads it compares `id`. Durable is what the server's own settings make durable.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from edda.cloudevents import CloudEventError
from edda.outbox.sink import Answer, Delivered, Outgoing, Reject, Retry, Sink
from edda.outbox.sinks.common import (
    CONNECT_SECONDS_MAX,
    SECONDS_MAX,
    broker_url,
    content_of,
    filled,
    library,
)


def make(url: str) -> Sink:
    library("redis.asyncio", package="redis", extra="redis")
    parsed = broker_url(url, "stream")
    stream = parsed.options.get("stream", "")
    if not stream:
        raise ValueError(f"broker_url='{parsed.parts.scheme}://...' names no stream: add ?stream=name")
    return RedisSink(parsed.bare, stream)


class RedisSink:
    batch_max = 100
    calls_max = 2

    def __init__(self, url: str, stream: str) -> None:
        self._url = url
        self._stream = stream
        self._client: Any = None

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        if self._client is None:
            redis = library("redis.asyncio", package="redis", extra="redis")
            self._client = redis.Redis.from_url(
                self._url,
                socket_connect_timeout=CONNECT_SECONDS_MAX,
                socket_timeout=SECONDS_MAX,
                max_connections=self.calls_max,
            )
        answers: list[Answer | None] = []
        async with self._client.pipeline(transaction=False) as pipeline:
            for outgoing in events:
                try:
                    fields = _fields(outgoing)
                except CloudEventError as error:
                    answers.append(Reject(f"this is no event of CloudEvents: {error}"))
                else:
                    answers.append(None)
                    queued = pipeline.xadd(filled(self._stream, outgoing.event), fields)
                    if inspect.isawaitable(queued):
                        await queued
            told = iter(await pipeline.execute(raise_on_error=False))
        return [answer if answer is not None else _answer(next(told)) for answer in answers]

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _fields(outgoing: Outgoing) -> dict[str, str | bytes]:
    content = content_of(outgoing.event)
    attributes = {f"ce-{name}": value for name, value in content.attributes.items()}
    return {"id": outgoing.event.id, "content-type": content.type, **attributes, "data": content.body}


def _answer(told: object) -> Answer:
    """The id of the entry, or what the server has against it: being full, being read-only, another type of key."""
    return Retry(f"{type(told).__name__}: {told}") if isinstance(told, Exception) else Delivered()
