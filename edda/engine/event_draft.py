"""An event that a workflow function or an activity sends, before it is known with which row of history it goes."""

from __future__ import annotations

from typing import NamedTuple

from edda.context import NewEvent
from edda.core.commit import OutboxMessage
from edda.core.event import JSON_TYPE, CloudEvent, addressed_to, rfc3339
from edda.core.history import InstanceId
from edda.core.trace import carrier_of
from edda.engine.codec import Stored, encode_event_data
from edda.exceptions import InvalidEventError

BYTES_TYPE = "application/octet-stream"


def checked(event: NewEvent, *, instance_id: str = "") -> Stored:
    """The event's data, encoded. Whatever is wrong with it is said where it is sent, not when it is delivered.

    All of it is checked wherever it goes: a replay must hear the same, also when the app has a broker by then.
    """
    from edda.cloudevents import CloudEventError, check_own  # who sends no events need not load it

    data = encode_event_data(event.data)
    try:
        check_own(EventDraft("id", event, data).for_inbox(at_us=0))
    except CloudEventError as error:
        raise InvalidEventError(f"event '{event.type}' cannot be sent: {error}", instance_id=instance_id) from error
    return data


class EventDraft(NamedTuple):
    """`id` is stable: however often it is delivered, it is the same event."""

    id: str
    event: NewEvent
    data: Stored
    trace: str | None = None
    """The trace context of what sends it."""

    @property
    def content_type(self) -> str:
        return self.event.datacontenttype or (JSON_TYPE if self.data.blob is None else BYTES_TYPE)

    def message(self, *, instance_id: InstanceId, seq: int, ordinal: int, at_us: int) -> OutboxMessage:
        """For the outside."""
        return OutboxMessage(
            id=self.id,
            instance_id=instance_id,
            seq=seq,
            ordinal=ordinal,
            type=self.event.type,
            source=self.event.source,
            data=self.data.text,
            blob=self.data.blob,
            content_type=self.content_type,
            at_us=at_us,
            trace=self.trace,
            subject=self.event.subject,
            target=self.event.target,
        )

    def for_inbox(self, *, at_us: int) -> CloudEvent:
        """For our own inbox."""
        return CloudEvent(
            id=self.id,
            source=self.event.source,
            type=self.event.type,
            subject=self.event.subject,
            time=rfc3339(at_us),
            datacontenttype=self.content_type,
            json=self.data.text,
            blob=self.data.blob,
            extensions=addressed_to(self.event.target) | carrier_of(self.trace),
        )
