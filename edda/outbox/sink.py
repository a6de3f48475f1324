"""What a sink is: something that takes events to the outside. Also for those who write one of their own.

A package makes its sinks known under the entry point group `edda.sinks`: the name is the scheme of the URL, the object
is called with the URL and returns a `Sink`. It must raise there what is wrong with the URL, and connect to nothing yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from edda.core.commit import OutboxMessage
from edda.core.event import CloudEvent, addressed_to, rfc3339
from edda.core.history import InstanceId
from edda.core.trace import carrier_of

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Outgoing(NamedTuple):
    """An event on its way."""

    event: CloudEvent
    """Each delivery of it is the same value. `event.id` is what receivers know a duplicate by."""
    key: InstanceId
    """The workflow instance that sent it: events with the same key are in order."""
    headers: Mapping[str, str] = _NO_HEADERS
    """For this delivery only, where the transport has headers: the trace context of the sending (`traceparent`)."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it, durably as far as it says so."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now. `after_seconds`: the receiver asks not to be disturbed earlier."""

    reason: str
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Never: the same event would be refused for ever. It becomes a dead letter."""

    reason: str


Answer = Delivered | Retry | Reject


class Sink(Protocol):
    """Takes events to one place."""

    batch_max: int
    """Events in one call of `publish`."""
    calls_max: int
    """Calls of `publish` under way at a time."""

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        """Send events, each of another instance, so in any order; an answer for each.

        An error means that nothing is known: all of them are sent again later. The call is cancelled when it takes too
        long. It connects by itself, and again after the connection was lost.
        """
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...


def outgoing(message: OutboxMessage) -> Outgoing:
    """A stored message as the event it is. Nothing is added that another delivery would not have, too."""
    event = CloudEvent(
        id=message.id,
        source=message.source,
        type=message.type,
        subject=message.subject,
        time=rfc3339(message.at_us),
        datacontenttype=message.content_type,
        json=message.data,
        blob=message.blob,
        extensions=addressed_to(message.target) | carrier_of(message.trace),
    )
    return Outgoing(event, message.instance_id)
