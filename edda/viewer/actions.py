"""What may be done from a page: cancel, retry, send an event, requeue a dead letter. Only where that is allowed.

An action is a form; its answer leads back to a page. It must not know pages or databases: it acts through `Hands`,
which do what the app itself does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import uuid4

from edda.core.event import JSON_TYPE, TARGET, CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.lifecycle import CANCELLABLE, REPAIRABLE
from edda.storage.port import InstanceRow
from edda.viewer.asked import Asked, instance_path

BY: Final = "viewer"
"""Who cancelled, as it is recorded."""
DATA_MAX: Final = 256 * 1024
SOURCE: Final = "edda.viewer"
"""Of events that are sent from here."""


class Hands(Protocol):
    """The verbs of people, as `edda.storage.port.Store` has them."""

    async def cancel(self, instance_id: InstanceId, *, by: str) -> InstanceRow | None: ...
    async def retry(self, instance_id: InstanceId) -> InstanceRow | None: ...
    async def requeue(self, event_id: str) -> bool: ...
    async def send(self, event: CloudEvent) -> Receipt: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Where to go now, and what to say there: a word of `NOTICES`."""

    to: str
    notice: str


NOTICES: Final[Mapping[str, tuple[str, str]]] = {
    "cancelled": ("good", "The cancel was accepted. What was done is now being undone."),
    "not-cancellable": ("bad", "It has ended, or is being undone already: there is nothing to cancel."),
    "started": ("good", "It was started. It runs as soon as a worker takes it."),
    "started-before": ("bad", "It was there already, with the same arguments: nothing was started."),
    "retried": ("good", "It will run again."),
    "not-repairable": ("bad", "Only what was set aside, or could not be undone, can be tried again."),
    "requeued": ("good", "The message is pending again, and due at once."),
    "not-dead": ("bad", "There is no dead letter with this id any more."),
    "sent": ("good", "The event was accepted."),
    "sent-before": ("bad", "An event with this source and id is here already: nothing was sent."),
    "not-sent-ended": ("bad", "The instance has ended: it takes no more events."),
    "not-sent-unknown": ("bad", "There is no such instance: the event was not sent."),
    "bad-json": ("bad", "The data is not JSON, so nothing was sent."),
    "no-type": ("bad", "An event needs a type: nothing was sent."),
    "too-large": ("bad", "The data is too large to be sent from here."),
    "unknown": ("bad", "There is no such instance."),
}
"""What can be said after an action: good or bad, and the sentence."""


async def cancel(form: Mapping[str, str], asked: Asked, hands: Hands) -> Done:
    """Field `instance`."""
    instance_id = form.get("instance", "")
    to = asked.to(instance_path(instance_id))
    before = await hands.cancel(InstanceId(instance_id), by=BY)
    if before is None:
        return Done(to=asked.to("/instances"), notice="unknown")
    return Done(to=to, notice="cancelled" if before.status in CANCELLABLE else "not-cancellable")


async def retry(form: Mapping[str, str], asked: Asked, hands: Hands) -> Done:
    """Field `instance`."""
    instance_id = form.get("instance", "")
    before = await hands.retry(InstanceId(instance_id))
    if before is None:
        return Done(to=asked.to("/instances"), notice="unknown")
    return Done(
        to=asked.to(instance_path(instance_id)), notice="retried" if before.status in REPAIRABLE else "not-repairable"
    )


async def requeue(form: Mapping[str, str], asked: Asked, hands: Hands) -> Done:
    """Field `message`."""
    done = await hands.requeue(form.get("message", ""))
    return Done(to=asked.to("/outbox"), notice="requeued" if done else "not-dead")


async def send(form: Mapping[str, str], asked: Asked, hands: Hands) -> Done:
    """Fields `instance` (or none: to whoever waits), `type`, `data` (JSON or nothing)."""
    instance_id = form.get("instance", "")
    to = asked.to(instance_path(instance_id)) if instance_id else asked.to("/events")
    problem = _problem(form)
    if problem:
        return Done(to=to, notice=problem)
    data = form.get("data", "").strip()
    receipt = await hands.send(
        CloudEvent(
            id=str(uuid4()),
            source=SOURCE,
            type=form["type"].strip(),
            datacontenttype=JSON_TYPE if data else None,
            json=json.dumps(json.loads(data), separators=(",", ":")) if data else None,
            extensions={TARGET: instance_id} if instance_id else {},
        )
    )
    return Done(to=to, notice=_RECEIPTS[receipt])


_RECEIPTS: Final = {
    Receipt.STORED: "sent",
    Receipt.DUPLICATE: "sent-before",
    Receipt.INSTANCE_ENDED: "not-sent-ended",
    Receipt.NO_SUCH_INSTANCE: "not-sent-unknown",
}


def _problem(form: Mapping[str, str]) -> str:
    """What is wrong with an event that is to be sent; empty for nothing."""
    if not form.get("type", "").strip():
        return "no-type"
    if len(form.get("data", "")) > DATA_MAX:
        return "too-large"
    try:
        json.loads(form.get("data", "").strip() or "null")
    except (ValueError, RecursionError):
        return "bad-json"
    return ""


ACTIONS: Final[Mapping[str, Callable[[Mapping[str, str], Asked, Hands], Awaitable[Done]]]] = {
    "cancel": cancel,
    "retry": retry,
    "requeue": requeue,
    "send": send,
}
