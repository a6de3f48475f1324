"""What a canonical workflow has come to, compared with the one outcome that it may have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from edda.core.event import CloudEvent
from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.lifecycle import ENDED, SET_ASIDE, Status
from edda.engine.codec import Stored
from edda.engine.plans import plan_of
from edda.storage.port import InstanceRow
from tests.simulation.canonical import Canonical

CRASHES_OF_POISON: Final = 3


class Dump(Protocol):
    """All that was stored of one canonical instance and its children."""

    @property
    def rows(self) -> Mapping[InstanceId, InstanceRow]: ...
    @property
    def history(self) -> Mapping[InstanceId, list[HistoryEvent]]: ...
    @property
    def effects(self) -> Sequence[Any]:
        """Rows written through `ctx.session`: (table, instance id, call id)."""
        ...

    @property
    def outbox(self) -> Sequence[Any]: ...
    @property
    def inbox(self) -> Mapping[Any, Any]:
        """Events, each with its `event`."""
        ...


def problems_of(canonical: Canonical, instance_id: str, dump: Dump) -> Iterator[str]:
    """What is not as it must be."""
    row = dump.rows[InstanceId(instance_id)]
    if row.status is not canonical.status:
        yield f"{row.status}, not {canonical.status} ({row.error})"
        return
    if row.status is Status.COMPLETED:
        result = plan_of(canonical.workflow).signature.result.decode(Stored(row.output, row.blob))
        if result != canonical.result:
            yield f"result {result!r}, not {canonical.result!r}"
    elif canonical.error and canonical.error not in (row.error or ""):
        yield f"error {row.error}, not {canonical.error}"
    if row.status is Status.QUARANTINED and row.crashes != CRASHES_OF_POISON:
        yield f"set aside after {row.crashes} crashes, not {CRASHES_OF_POISON}"
    executed = tuple(event.call_id for event in dump.history[row.id] if event.kind == Kind.COMPENSATION_EXECUTED)
    if executed != canonical.undone:
        yield f"undone {executed}, not {canonical.undone}"
    expected = Counter(
        (instance_id + suffix, call_id) for suffix, calls in canonical.effects.items() for call_id in calls
    )
    if Counter(effect[1:3] for effect in dump.effects) != expected:
        yield f"rows {dump.effects}, not {dict(expected)}"
    if len(dump.outbox) != canonical.messages:
        yield f"{len(dump.outbox)} messages, not {canonical.messages}"
    events = [event for history in dump.history.values() for event in history]
    received = Counter(
        (event.instance_id, event.details()["key"]) for event in events if event.kind == Kind.EVENT_RECEIVED
    )
    if any(count > 1 for count in received.values()):
        yield f"received twice: {+received}"
    posts = [
        one.event.id for one in dump.inbox.values() if one.event.source == "canon" and _is_of(one.event, instance_id)
    ]
    if len(posts) != canonical.posts:
        yield f"{len(posts)} events in the inbox, not {canonical.posts}"
    if len(dump.rows) != 1 + canonical.children + canonical.handled:
        yield f"{len(dump.rows) - 1} children and handlers, not {canonical.children + canonical.handled}"
    if any(other.status not in ENDED | SET_ASIDE for other in dump.rows.values()):
        yield "a child goes on for ever"


def _is_of(event: CloudEvent, instance_id: str) -> bool:
    return instance_id in (event.target, json.loads(event.json or "{}").get("to"))
