"""Handlers of events: which workflow an event starts, and with what. The same event always starts the same instance.

Pure: text in, text out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final, NamedTuple

from edda.core.commit import NewInstance
from edda.core.event import CloudEvent
from edda.core.history import InstanceId
from edda.core.routing import event_key, members_of
from edda.core.trace import trace_of

WHOLE: Final = "event"
"""It gets the event as its one argument."""
ALL: Final = "*"
"""It gets every member of the data by name."""


class Subscription(NamedTuple):
    """Every event of this type starts an instance of this workflow."""

    type: str
    workflow: str
    takes: str
    """`WHOLE`, `ALL`, or the names of the members of the data that it gets, with a comma after each.

    Members that nobody takes are passed over: whoever sends events adds to them over the years.
    """


def started_by(event: CloudEvent, subscription: Subscription) -> NewInstance:
    """The instance that an event starts. Its id says which event it was, so that a copy starts nothing."""
    text = _whole(event) if subscription.takes == WHOLE else _by_name(event, subscription.takes)
    return NewInstance(
        id=InstanceId(f"{subscription.workflow[:180]}-{event_key(event)[:40]}"),
        workflow=subscription.workflow,
        input=text,
        args_hash=hashlib.sha256(text.encode()).hexdigest(),
        trace=trace_of(event.extensions),
    )


def _by_name(event: CloudEvent, takes: str) -> str:
    """Members of the data as arguments; data that are no object have no names, and give no arguments."""
    names = None if takes == ALL else frozenset(takes.split(","))
    taken = {name: value for name, value in members_of(event).items() if names is None or name in names}
    # They come from outside, and must not be read as what we wrote ourselves: see `SignatureCodec.decode`.
    return json.dumps({"args": [], "kwargs": taken, "foreign": True}, separators=(",", ":"), ensure_ascii=False)


def _whole(event: CloudEvent) -> str:
    carried = {name: value for name, value in event._asdict().items() if value is not None and name != "blob"}
    carried["extensions"] = dict(event.extensions)
    if event.blob is not None:
        carried["base64"] = base64.b64encode(event.blob).decode()
    return json.dumps({"args": [], "kwargs": {"event": carried}}, separators=(",", ":"), ensure_ascii=False)
