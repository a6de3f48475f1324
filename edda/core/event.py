"""An event as it is everywhere inside: sent or received, in the inbox, in the outbox, on the wire.

The attributes are those of CloudEvents 1.0. However an event came (structured, binary, in a batch), the same event is
the same value here. This module knows neither JSON nor HTTP nor databases.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

TARGET: Final = "eddainstanceid"
"""The extension attribute that addresses an event to one workflow instance."""

JSON_TYPE: Final = "application/json"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class CloudEvent(NamedTuple):
    """`source` and `id` together name the event: the same two are the same event, however often it comes.

    Its data is in one of two fields: `json` holds JSON text, `blob` any other bytes, exactly as sent. With neither it
    has no data, which is not the same as the data `null`.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    """RFC 3339, as it was sent."""
    datacontenttype: str | None = None
    dataschema: str | None = None
    json: str | None = None
    blob: bytes | None = None
    extensions: Mapping[str, str] = _NONE
    """Values in their canonical text form (`true`, `42`): the binary mode knows no other."""

    @property
    def target(self) -> str | None:
        """The instance it is addressed to."""
        return self.extensions.get(TARGET)


def addressed_to(instance_id: str | None) -> dict[str, str]:
    """The extension attributes that address an event to an instance; none for None."""
    return {} if instance_id is None else {TARGET: instance_id}


def rfc3339(at_us: int) -> str:
    """The time in the form that the attribute `time` has."""
    moment = _EPOCH + timedelta(microseconds=at_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Receipt(Enum):
    """What became of an event that was handed in."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """The same `source` and `id` are here already: nothing changed."""
    NO_SUCH_INSTANCE = "no such instance"
    """It is addressed to an instance that does not exist: not stored."""
    INSTANCE_ENDED = "instance ended"
    """It is addressed to an instance that has ended: not stored."""
