"""What no database can hold is refused at the call that says it, and never becomes anybody else's trouble."""

from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from edda import InvalidEventError, WorkflowContext, send_event, wait_event, wait_timer, workflow
from edda.core.subscription import Subscription
from edda.exceptions import StorageError
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, on_every_database, reaches

LONG = 300
FOR_EVER_SECONDS = 1e14


@workflow
async def unstorable_wait(ctx: WorkflowContext, what: str) -> str:
    half = "\ud800"
    try:
        match what:
            case "long id":
                await wait_event(ctx, "unstorable.never", event_id="x" * LONG)
            case "half an id":
                await wait_event(ctx, "unstorable.never", event_id=half)
            case "id with NUL":
                await wait_event(ctx, "unstorable.never", event_id="\0")
            case "long type":
                await wait_event(ctx, "t" * 255)
            case "long names":
                await wait_event(ctx, "unstorable.never", match={"n" * LONG: 1})
            case "half a value":
                await wait_event(ctx, "unstorable.never", match={"n": half}, timeout_seconds=0)
            case "long target":
                await send_event("unstorable.never", "/here", {}, to="x" * LONG)
            case _:
                await wait_timer(ctx, float("inf"))
    except Exception as error:
        return type(error).__name__
    return "nothing was refused"


@on_every_database
async def test_a_wait_that_cannot_be_stored_is_refused_where_it_is_asked(apps: Apps) -> None:
    await apps.open()
    refused = {
        "long id": "ValueError",
        "half an id": "ValueError",
        "id with NUL": "ValueError",
        "long type": "ValueError",
        "long names": "ValueError",
        "half a value": "EventTimeoutError",
        "long target": InvalidEventError.__name__,
        "for ever": "ValueError",
    }
    handles = {what: await unstorable_wait.start(what) for what in refused}
    assert {what: await handle.result(timeout=SOON) for what, handle in handles.items()} == refused


@workflow
async def unstorable_far_off(ctx: WorkflowContext, event: bool) -> None:
    if event:
        await wait_event(ctx, "unstorable.never", timeout_seconds=FOR_EVER_SECONDS)
    else:
        await wait_timer(ctx, FOR_EVER_SECONDS)


@on_every_database
async def test_a_wait_of_a_million_years_is_a_wait(apps: Apps) -> None:
    await apps.open()
    assert await reaches(await unstorable_far_off.start(event=False), "waiting_for_timer")
    assert await reaches(await unstorable_far_off.start(event=True), "waiting_for_event")


@on_every_database
async def test_a_database_says_what_it_cannot_hold_as_any_other_refusal(apps: Apps) -> None:
    app = await apps.open()
    engine: Any = await app._ready()  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(StorageError):
        await engine.store.learn("half\ud800", (".n",), since_us=0)
    with pytest.raises(StorageError):
        await engine.store.subscribe([Subscription("unstorable", "unstorable", "")], lasting_us=1 << 65)


class Picky(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def not_thirteen(cls, number: int) -> int:
        return {12: 12, 14: 14}[number]


@workflow
async def picky_wait(ctx: WorkflowContext) -> int:
    event = await wait_event(ctx, "unstorable.picky", model=Picky)
    return int(event.data.number)


async def test_a_validator_that_breaks_down_sets_the_event_aside_and_not_the_instance(apps: Apps) -> None:
    await apps.open()
    handle = await picky_wait.start()
    for number in (13, 14):
        await send_event("unstorable.picky", "/here", {"number": number})
    assert await handle.result(timeout=SOON) == 14
