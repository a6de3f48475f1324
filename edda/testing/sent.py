"""The sink of an app under test: the outside, which takes every event and knows one that comes twice."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edda.core.event import CloudEvent
from edda.events import ReceivedEvent
from edda.outbox.sink import Answer, Delivered, Outgoing


class SentEvents:
    """A `Sink` that remembers."""

    batch_max = 100
    calls_max = 1

    def __init__(self) -> None:
        self._by_id: dict[str, ReceivedEvent] = {}

    @property
    def events(self) -> list[ReceivedEvent]:
        return list(self._by_id.values())

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        for outgoing in events:
            self._by_id.setdefault(outgoing.event.id, _received(outgoing.event))
        return [Delivered()] * len(events)

    async def close(self) -> None:
        """Nothing is open."""


def _received(event: CloudEvent) -> ReceivedEvent:
    return ReceivedEvent(
        data=event.blob if event.json is None else json.loads(event.json),
        type=event.type,
        source=event.source,
        id=event.id,
        time=event.time,
        datacontenttype=event.datacontenttype,
        subject=event.subject,
        extensions=event.extensions,
    )
