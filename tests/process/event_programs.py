"""What the processes of the event test run, and which events they are sent: made of a number alone.

Every instance waits until it has all events that were meant for it, however they come, and then ends. So one that does
not end has lost an event, or was not told of it. It must not know who kills whom.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from random import Random
from typing import Any, Final

from edda import EventTimeoutError, WorkflowContext, wait_event, wait_timer, workflow

EVENTS_EACH: Final = 4
"""For each instance that has events of its own."""
LISTENERS: Final = 6
"""The first instances hear broadcasts, and have no events of their own."""
TIMEOUT_SECONDS: Final = 0.4


@workflow
async def hearing_ticks(ctx: WorkflowContext, number: int, ticks: int) -> list[object]:
    """Every broadcast, of a type that all listeners wait for."""
    return [(await wait_event(ctx, "tick")).data["k"] for _ in range(ticks)]


@workflow
async def hearing_matches(ctx: WorkflowContext, number: int, ticks: int) -> list[object]:
    await _pause(ctx, number)
    return [(await wait_event(ctx, "matched", match={"n": number})).data["k"] for _ in range(EVENTS_EACH)]


@workflow
async def hearing_by_subject(ctx: WorkflowContext, number: int, ticks: int) -> list[object]:
    await _pause(ctx, number)
    return [(await wait_event(ctx, "by-subject", subject=f"s{number}")).data["k"] for _ in range(EVENTS_EACH)]


@workflow
async def hearing_at_once(ctx: WorkflowContext, number: int, ticks: int) -> list[object]:
    """Waits beside each other: two that compete, and one of another type."""
    await _pause(ctx, number)
    waits = [wait_event(ctx, "gathered", match={"n": number}) for _ in range(2)]
    events = await asyncio.gather(*waits, wait_event(ctx, "other", match={"n": number}))
    last = await wait_event(ctx, "gathered", match={"n": number})
    return [event.data["k"] for event in (*events, last)]


@workflow
async def hearing_in_time(ctx: WorkflowContext, number: int, ticks: int) -> list[object]:
    """Deadlines that pass again and again, until all events are there."""
    got: list[object] = []
    while len(got) < EVENTS_EACH:
        try:
            event = await wait_event(ctx, "timed", timeout_seconds=TIMEOUT_SECONDS, match={"n": number})
        except EventTimeoutError:
            continue
        got.append(event.data["k"])
    return got


@workflow
async def hearing_letters(ctx: WorkflowContext, number: int, ticks: int) -> list[object]:
    """Bytes for this very instance."""
    await _pause(ctx, number)
    return [int((await wait_event(ctx, "addressed")).data) for _ in range(EVENTS_EACH)]


async def _pause(ctx: WorkflowContext, number: int) -> None:
    """Some begin to wait when their first events are there already."""
    if number % 2:
        await wait_timer(ctx, 0.2 + number % 7 / 10)


WITH_EVENTS: Final = (hearing_matches, hearing_by_subject, hearing_at_once, hearing_in_time, hearing_letters)


def workflow_of(number: int) -> Any:
    return hearing_ticks if number < LISTENERS else WITH_EVENTS[number // 2 % len(WITH_EVENTS)]


def instance_id(number: int) -> str:
    return f"e-{number:06d}"


def events_for(number: int) -> list[dict[str, Any]]:
    """The events that an instance with events of its own gets, as JSON format."""
    kind = workflow_of(number)
    return [_event(kind, number, place) for place in range(EVENTS_EACH)]


def _event(kind: Any, number: int, place: int) -> dict[str, Any]:
    data: dict[str, Any] = {"data": {"n": number, "k": place}}
    if kind is hearing_matches:
        return _named("matched", number, place) | data
    if kind is hearing_by_subject:
        return _named("by-subject", number, place) | data | {"subject": f"s{number}"}
    if kind is hearing_at_once:
        return _named("other" if place == 1 else "gathered", number, place) | data
    if kind is hearing_in_time:
        return _named("timed", number, place) | data
    blob = {"data_base64": b64encode(str(place).encode()).decode(), "datacontenttype": "application/octet-stream"}
    return _named("addressed", number, place) | blob | {"eddainstanceid": instance_id(number)}


def _named(event_type: str, number: int, place: int) -> dict[str, Any]:
    return {"specversion": "1.0", "source": "/event-test", "type": event_type, "id": f"{event_type}:{number}:{place}"}


def tick(place: int) -> dict[str, Any]:
    return _named("tick", 0, place) | {"data": {"k": place}}


def for_nobody(place: int) -> dict[str, Any]:
    return _named("unwanted", 0, place) | {"data": {"k": place}}


def delay_of(number: int, place: int, seed: int) -> float:
    """Seconds from the start of an instance to the first sending of an event for it."""
    random = Random(f"{seed}/{number}/{place}")
    return random.choice((0.0, 0.0, random.uniform(0, 0.6), random.uniform(0.6, 2.5)))
