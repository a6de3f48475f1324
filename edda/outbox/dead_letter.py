"""A dead letter as people see it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from edda.storage import outbox

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that the receiver refused for good. `app.requeue(letter.id)` has it delivered after all."""

    id: str
    """What `send_event_transactional` returned."""
    type: str
    source: str
    data: Any
    """What the JSON says, or bytes as they were sent."""
    content_type: str
    instance_id: str
    """The workflow instance that sent it."""
    attempts: int
    reason: str
    """What the receiver said."""
    died_at: datetime


def dead_letter_of(stored: outbox.DeadLetter) -> DeadLetter:
    message = stored.message
    return DeadLetter(
        id=message.id,
        type=message.type,
        source=message.source,
        data=message.blob if message.data is None else json.loads(message.data),
        content_type=message.content_type,
        instance_id=message.instance_id,
        attempts=stored.attempts,
        reason=stored.reason,
        died_at=_EPOCH + timedelta(microseconds=stored.died_at_us),
    )
