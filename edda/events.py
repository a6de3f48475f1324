"""Waiting and events, as workflow code says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, get_args

from edda.context import NewEvent, WorkflowContext, current_run, described, run_of, utc_us
from edda.core.routing import Criteria
from edda.exceptions import EventTimeoutError, InvalidEventError
from edda.workflow import find_app

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = [
    "Event",
    "EventTimeoutError",
    "ReceivedEvent",
    "send_event",
    "send_event_transactional",
    "sleep",
    "sleep_until",
    "wait_event",
    "wait_timer",
    "wait_until",
]


T = TypeVar("T")

NAME_MAX: Final = 255
"""Characters of the type, and of the source, of an event."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event that a workflow received. `data` is a dict (or the model asked for), or bytes exactly as sent."""

    data: Any
    type: str
    source: str
    id: str
    time: str | None = None
    datacontenttype: str | None = None
    subject: str | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict[str, Any])


async def wait_timer(ctx: WorkflowContext, duration_seconds: float, timer_id: str | None = None) -> None:
    """Wait, holding no worker. Never ends early; the due time is fixed by the first run. `timer_id` names it."""
    if not 0 <= duration_seconds < inf:
        raise ValueError(f"a duration cannot be negative, nor without end: {duration_seconds}")
    run = run_of(ctx)
    await run.timer("wait_timer", due_us=run.now_us() + round(duration_seconds * 1_000_000), timer_id=timer_id)


async def wait_until(ctx: WorkflowContext, until_time: datetime, timer_id: str | None = None) -> None:
    """Wait until a moment (naive means UTC), holding no worker. A moment in the past is over at once."""
    run = run_of(ctx)
    await run.timer("wait_until", due_us=utc_us(until_time), timer_id=timer_id)


async def sleep(ctx: WorkflowContext, seconds: float, timer_id: str | None = None) -> None:
    """The same as `wait_timer`; in a workflow function `asyncio.sleep` is durable, too."""
    await wait_timer(ctx, seconds, timer_id)


async def sleep_until(ctx: WorkflowContext, target_time: datetime, timer_id: str | None = None) -> None:
    """The same as `wait_until`."""
    await wait_until(ctx, target_time, timer_id)


async def send_event_transactional(
    ctx: WorkflowContext,
    event_type: str,
    event_source: str,
    event_data: dict[str, Any] | BaseModel | bytes,
    content_type: str | None = None,
) -> str:
    """Put an event into the outbox, in the same transaction as the activity's record. Returns its id.

    If the attempt fails there is no event. In a workflow function it is a recorded step of its own.
    """
    event = NewEvent(
        type=event_name("event_type", event_type),
        source=event_name("event_source", event_source),
        data=event_data,
        datacontenttype=_optional("content_type", content_type),
        to_outbox=True,
    )
    return await run_of(ctx).send(event)


async def send_event(
    event_type: str,
    source: str,
    data: dict[str, Any] | BaseModel | bytes,
    broker_url: str | None = None,
    datacontenttype: str | None = None,
    *,
    subject: str | None = None,
    to: str | None = None,
) -> str:
    """Send an event; returns its id. Data are what JSON can say, or bytes, which arrive bit for bit.

    With a broker (`EddaApp(outbox_enabled=True, broker_url=...)`) it goes there through the outbox; without one it
    comes to this app's own inbox. In a workflow function it is a recorded step, in an activity it is sent if the
    attempt succeeds, and anywhere else it is durable when this returns. `to` addresses it to one workflow instance.
    """
    if broker_url is not None:
        raise ValueError(
            "the broker belongs to the app, not to one event: EddaApp(outbox_enabled=True, broker_url=...)"
        )
    event = NewEvent(
        type=event_name("event_type", event_type),
        source=event_name("source", source),
        data=data,
        datacontenttype=_optional("datacontenttype", datacontenttype),
        subject=_optional("subject", subject),
        target=_target(to),
    )
    run = current_run.get()
    return await (find_app().send(event) if run is None else run.send(event))


async def wait_event(
    ctx: WorkflowContext,
    event_type: str,
    timeout_seconds: float | None = None,
    model: Any = None,
    event_id: str | None = None,
    *,
    match: Mapping[str, Any] | None = None,
    subject: str | None = None,
) -> ReceivedEvent:
    """Wait for an event of this type, holding no worker.

    It receives, in order of acceptance, each event of the type that was accepted since this instance started, each at
    most once. `match={"order_id": "7"}` takes only events whose data have these values at their top level, `subject=`
    only those with this subject; without either, every instance that waits for the type gets a copy.

    Args:
        timeout_seconds: Then `EventTimeoutError` is raised here. An event accepted in time beats it.
        model: What `event.data` is to be: a pydantic model or any annotation. An event that does not fit is set aside
            visibly in the history, and the wait goes on. Default: what JSON says, or bytes.
        event_id: Names this call in the history, in place of `type:n`.
    """
    if timeout_seconds is not None and not 0 <= timeout_seconds < inf:
        raise ValueError(f"timeout_seconds is None or a number that is not negative: {timeout_seconds}")
    criteria = Criteria.of(event_name("event_type", event_type), subject=subject, match=match)
    return await run_of(ctx).event(criteria, model=model, timeout_seconds=timeout_seconds, call_id=event_id)


class Event(Generic[T]):
    """A declared event: its type, the model of its data, and the field by which a wait finds its own.

    `paid = Event[Payment]("order.paid", key="order_id")`; then `payment = await paid.wait(ctx, key="7")` in a workflow
    and `await paid.send(Payment(order_id="7", amount=5))` anywhere. Both are typed.
    """

    def __init__(self, type: str, *, key: str | None = None, source: str | None = None) -> None:
        self.type = event_name("type", type)
        self.key = key
        self.source = source or f"/{type}"

    def __repr__(self) -> str:
        return f"Event({self.type!r}, key={self.key!r})"

    @property
    def model(self) -> Any:
        """What stands in the brackets of `Event[...]`; None where nothing does."""
        declared = getattr(self, "__orig_class__", None)
        return None if declared is None else get_args(declared)[0]

    async def wait(
        self,
        ctx: WorkflowContext,
        *,
        key: str | float | bool | None = None,
        timeout_seconds: float | None = None,
        match: Mapping[str, Any] | None = None,
        event_id: str | None = None,
    ) -> T:
        """The data of the next such event whose key field has this value; see `wait_event` for the rest."""
        wanted = dict(match or {})
        if key is not None:
            if self.key is None:
                raise TypeError(f"{self!r} was declared without key=..., so it cannot be waited for by key")
            wanted[self.key] = key
        event = await wait_event(
            ctx, self.type, timeout_seconds=timeout_seconds, model=self.model, event_id=event_id, match=wanted
        )
        data: T = event.data
        return data

    async def send(self, data: T, *, to: str | None = None, subject: str | None = None) -> str:
        """Send it, as `send_event` does; returns its id."""
        payload: Any = data
        return await send_event(self.type, self.source, payload, subject=subject, to=to)


def event_name(what: str, name: object) -> str:
    """A type or a source that every receiver will take."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX:
        raise _refused(f"{what} must be a text of 1 to {NAME_MAX} characters, not {described(name)}")
    if any(letter.isspace() or not letter.isprintable() for letter in name):
        raise _refused(f"{what} must hold neither spaces nor control characters, as {name!r} does")
    return str.__str__(name)  # of a member of an enum, the text itself


def _refused(why: str) -> InvalidEventError:
    run = current_run.get()
    return InvalidEventError(why, instance_id="" if run is None else run.instance_id)


def _storable(what: str, text: str) -> str:
    """Said here, at the call: no database takes it, and no JSON says it."""
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _refused(f"{what} holds a NUL or a lone surrogate, which cannot be stored: {text[:80]!a}")
    return text


def _target(to: str | None) -> str | None:
    if to is not None and not 0 < len(to) <= NAME_MAX:
        raise _refused(f"to= is the id of a workflow instance, which has 1 to {NAME_MAX} characters, not {len(to)}")
    return _optional("to", to)


def _optional(what: str, text: str | None) -> str | None:
    return None if text is None else str.__str__(_storable(what, text))
