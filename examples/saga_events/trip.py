"""A trip: flight and hotel are asked for, and answer by events, hours later. If one says no, both are called off."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel

from edda import EddaApp, Event, TerminalError, WorkflowContext, activity, compensation, on_failure, workflow

ANSWER_WITHIN_SECONDS = float(os.environ.get("ANSWER_WITHIN_SECONDS", "86400"))

Part = Literal["flight", "hotel"]


class Answer(BaseModel):
    trip_id: str
    part: Part
    reference: str | None  # none: they have nothing for us


answered = Event[Answer]("partner.answered", key="trip_id")

app = EddaApp(db_url="sqlite:///trips.db")


@workflow(name="trip.requested", event_handler=True)
async def trip(ctx: WorkflowContext, trip_id: str) -> list[str]:
    return [await booked(ctx, trip_id, "flight"), await booked(ctx, trip_id, "hotel")]


async def booked(ctx: WorkflowContext, trip_id: str, part: Part) -> str:
    """A step of the saga: ask, and wait for the answer. Once asked, it has to be called off if the trip fails."""
    await ask(ctx, trip_id, part)
    answer = await answered.wait(ctx, key=trip_id, match={"part": part}, timeout_seconds=ANSWER_WITHIN_SECONDS)
    if answer.reference is None:
        raise TerminalError(f"there is no {part} for {trip_id}")
    return answer.reference


@compensation
async def call_off(ctx: WorkflowContext, trip_id: str, part: Part) -> None:
    print(f"{trip_id}: {part} called off", flush=True)


@activity
@on_failure(call_off)
async def ask(ctx: WorkflowContext, trip_id: str, part: Part) -> None:
    print(f"{trip_id}: {part} asked for", flush=True)
