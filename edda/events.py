"""Waiting and events, as workflow code says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from edda.context import WorkflowContext, run_of, utc_us
from edda.exceptions import EddaError, EventTimeoutError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = [
    "EventTimeoutError",
    "NotYetError",
    "ReceivedEvent",
    "send_event",
    "send_event_transactional",
    "sleep",
    "sleep_until",
    "wait_event",
    "wait_timer",
    "wait_until",
]


class NotYetError(EddaError, NotImplementedError):
    """This part of edda is not built yet."""

    retryable = False


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
    if duration_seconds < 0:
        raise ValueError(f"a duration cannot be negative: {duration_seconds}")
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
    return await run_of(ctx).send(event_type, event_source, event_data, content_type=content_type)


async def wait_event(
    ctx: WorkflowContext,
    event_type: str,
    timeout_seconds: float | None = None,
    model: type[BaseModel] | None = None,
    event_id: str | None = None,
) -> ReceivedEvent:
    """Not built yet: raises `NotYetError`."""
    _not_yet("wait_event", ctx, event_type, timeout_seconds, model, event_id)


async def send_event(
    event_type: str,
    source: str,
    data: dict[str, Any] | BaseModel | bytes,
    broker_url: str | None = None,
    datacontenttype: str | None = None,
) -> None:
    """Not built yet: raises `NotYetError`. `send_event_transactional` stores its event durably already."""
    _not_yet("send_event", event_type, source, data, broker_url, datacontenttype)


def _not_yet(name: str, *_: object) -> NoReturn:
    raise NotYetError(f"{name}() is not built yet; it comes with the inbox and the relayer (see ROADMAP.md).")
