"""An event that a workflow function or an activity sends, before it is known with which row of history it goes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from edda.context import NewEvent
from edda.core.commit import OutboxMessage
from edda.core.event import JSON_TYPE, TARGET, CloudEvent
from edda.core.history import InstanceId
from edda.engine.codec import Stored

BYTES_TYPE = "application/octet-stream"


class EventDraft(NamedTuple):
    """`id` is stable: however often it is delivered, it is the same event."""

    id: str
    event: NewEvent
    data: Stored

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
            extensions={} if self.event.target is None else {TARGET: self.event.target},
        )


def rfc3339(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
