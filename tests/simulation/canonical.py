"""Canonical workflows: small, each with one idea, and each with the one outcome it must have whatever happens.

The crash matrix stops a worker at every commit of them. They run on any store: user code reaches its surroundings
through the `bench` of the app it runs on (`app.bench = ...`), which notes entries, writes a row through `ctx.session`,
and can kill the process. Everything is deterministic, so that the outcome does not depend on where a crash came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast
from unittest.mock import ANY

import edda
from edda.core.event import CloudEvent
from edda.core.history import InstanceId
from edda.core.lifecycle import Status
from edda.core.subscription import Subscription, started_by
from edda.retry import RetryPolicy
from edda.workflow import Workflow, current_app

QUICK: Final = RetryPolicy(initial_interval=0.02, backoff_coefficient=1.0, max_attempts=4)
PARKING: Final = RetryPolicy(initial_interval=1.1, backoff_coefficient=1.0, max_attempts=4)
ONCE: Final = RetryPolicy(max_attempts=1)


class Bench(Protocol):
    """What the surroundings do for these workflows."""

    def entered(self, ctx: edda.WorkflowContext) -> None:
        """The code of an activity or compensation was entered."""
        ...

    async def write_effect(self, ctx: edda.WorkflowContext) -> None:
        """Write one row (instance id, call id) through `ctx.session`; the table has no unique key."""
        ...

    async def die(self, ctx: edda.WorkflowContext) -> None:
        """Kill this process, as a segmentation fault would."""
        ...


def _bench() -> Bench:
    return cast("Any", current_app.get()).bench  # type: ignore[no-any-return]


# -- activities ------------------------------------------------------------------------------------------------------


@edda.activity(retry_policy=ONCE)
async def canon_add(ctx: edda.WorkflowContext, one: int, other: int) -> int:
    _bench().entered(ctx)
    await asyncio.sleep(0.001)
    return one + other


@edda.activity(retry_policy=ONCE)
async def canon_effect(ctx: edda.WorkflowContext, number: int) -> int:
    _bench().entered(ctx)
    await _bench().write_effect(ctx)
    return number


@edda.activity(retry_policy=ONCE)
async def canon_refuse(ctx: edda.WorkflowContext, reason: str) -> None:
    _bench().entered(ctx)
    raise edda.TerminalError(reason)


@edda.activity(retry_policy=ONCE)
async def canon_slow(ctx: edda.WorkflowContext) -> str:
    _bench().entered(ctx)
    await asyncio.sleep(3600)
    return "never"


@edda.activity(retry_policy=QUICK)
async def canon_third_time(ctx: edda.WorkflowContext) -> str:
    """Fails until two failures are behind it; a crash counts as an attempt, too."""
    _bench().entered(ctx)
    if ctx.activity.attempt < 3:
        raise ValueError(f"attempt {ctx.activity.attempt}")
    return "at last"


@edda.activity(retry_policy=PARKING)
async def canon_later(ctx: edda.WorkflowContext) -> str:
    _bench().entered(ctx)
    if ctx.activity.attempt < 2:
        raise ValueError("not yet")
    return "later"


@edda.activity(retry_policy=ONCE)
async def canon_kill(ctx: edda.WorkflowContext) -> None:
    _bench().entered(ctx)
    await _bench().die(ctx)


@edda.activity(retry_policy=ONCE)
async def canon_send(ctx: edda.WorkflowContext, number: int) -> int:
    _bench().entered(ctx)
    await edda.send_event_transactional(ctx, "canon.sent", "canon", {"number": number})
    return number


@edda.compensation
async def canon_unbook(ctx: edda.WorkflowContext, what: str) -> None:
    _bench().entered(ctx)
    await asyncio.sleep(0.001)


@edda.compensation(retry_policy=ONCE)
async def canon_unbook_never(ctx: edda.WorkflowContext, what: str) -> None:
    _bench().entered(ctx)
    raise ValueError("cannot be undone")


@edda.activity(retry_policy=ONCE)
@edda.on_failure(canon_unbook)
async def canon_book(ctx: edda.WorkflowContext, what: str) -> str:
    _bench().entered(ctx)
    await asyncio.sleep(0.001)
    return f"{what} booked"


@edda.activity(retry_policy=ONCE)
@edda.on_failure(canon_unbook)
async def canon_book_row(ctx: edda.WorkflowContext, what: str) -> str:
    _bench().entered(ctx)
    await _bench().write_effect(ctx)
    return f"{what} booked"


@edda.activity(retry_policy=ONCE)
@edda.on_failure(canon_unbook_never)
async def canon_book_forever(ctx: edda.WorkflowContext, what: str) -> str:
    _bench().entered(ctx)
    return f"{what} booked"


@edda.activity(retry_policy=ONCE)
@edda.on_failure(canon_unbook)
async def canon_unstorable(ctx: edda.WorkflowContext, what: str) -> object:
    _bench().entered(ctx)
    return object()


# -- workflows -------------------------------------------------------------------------------------------------------


@edda.workflow
async def canon_sequence(ctx: edda.WorkflowContext) -> int:
    total = 0
    for number in (1, 2, 3):
        total = await canon_add(ctx, total, number)
    return total


@edda.workflow
async def canon_gather(ctx: edda.WorkflowContext) -> list[int]:
    async def branch(start: int) -> int:
        return await canon_add(ctx, await canon_add(ctx, start, 1), 1)

    return await asyncio.gather(branch(10), branch(20))


@edda.workflow
async def canon_group(ctx: edda.WorkflowContext) -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(canon_slow(ctx))
            group.create_task(canon_refuse(ctx, "no"))
    except* edda.TerminalError as errors:
        caught = str(errors.exceptions[0])
    return f"{caught} {await canon_add(ctx, 1, 1)}"


@edda.workflow
async def canon_saga(ctx: edda.WorkflowContext) -> None:
    await canon_book(ctx, "flight")
    await canon_book_row(ctx, "hotel")
    await edda.register_compensation(ctx, canon_unbook, "car")
    await canon_refuse(ctx, "no money")


@edda.workflow
async def canon_retries(ctx: edda.WorkflowContext) -> str:
    async def inner() -> str:
        return await canon_third_time(ctx)

    return f"{await inner()}, {await canon_later(ctx)}"


@edda.workflow
async def canon_timer(ctx: edda.WorkflowContext) -> int:
    one = await canon_add(ctx, 1, 1)
    await edda.wait_timer(ctx, 1.2)
    await asyncio.sleep(0.05)
    return await canon_add(ctx, one, 1)


@edda.workflow
async def canon_timeout(ctx: edda.WorkflowContext) -> str:
    try:
        async with asyncio.timeout(0.05):
            return await canon_slow(ctx)
    except TimeoutError:
        return f"timed out {await canon_add(ctx, 1, 1)}"


@edda.workflow
async def canon_cancel(ctx: edda.WorkflowContext) -> None:
    await canon_book(ctx, "flight")
    await canon_book_row(ctx, "hotel")
    await edda.wait_timer(ctx, 36_000)


@edda.workflow
async def canon_session(ctx: edda.WorkflowContext) -> list[int]:
    first = await canon_effect(ctx, 1)
    return [first, *await asyncio.gather(canon_effect(ctx, 2), canon_effect(ctx, 3))]


@edda.workflow
async def canon_order(ctx: edda.WorkflowContext) -> list[str]:
    """Tells in which order things happened: any order will do, if every replay tells the same."""
    order: list[str] = []

    async def branch(number: int) -> None:
        await canon_effect(ctx, number)
        order.append(f"effect {number}")
        await edda.send_event_transactional(ctx, "canon.order", "canon", {"number": number})
        order.append(f"sent {number}")

    await asyncio.gather(*map(branch, range(3)))
    return order


@edda.workflow
async def canon_child(ctx: edda.WorkflowContext, number: int) -> int:
    return await canon_add(ctx, await canon_effect(ctx, number), 1)


@edda.workflow
async def canon_parent(ctx: edda.WorkflowContext) -> int:
    one = await canon_child.run(10)
    return await canon_add(ctx, one, 1)


@edda.workflow
async def canon_family(ctx: edda.WorkflowContext) -> list[int]:
    handles = [await canon_child.start(number) for number in (1, 2)]
    await canon_add(ctx, 1, 1)
    return await asyncio.gather(*(handle.result() for handle in handles))


@edda.workflow
async def canon_bad_child(ctx: edda.WorkflowContext) -> None:
    await canon_book(ctx, "flight")
    await canon_saga.run()


@edda.workflow
async def canon_poison(ctx: edda.WorkflowContext) -> None:
    await canon_add(ctx, 1, 1)
    await canon_kill(ctx)


@edda.workflow
async def canon_unstored(ctx: edda.WorkflowContext) -> None:
    try:
        await canon_unstorable(ctx, "ghost")
    except edda.SerializationError:
        await canon_book(ctx, "flight")
        raise


@edda.workflow
async def canon_undo_fails(ctx: edda.WorkflowContext) -> None:
    await canon_book(ctx, "flight")
    await canon_book_forever(ctx, "hotel")
    await canon_book(ctx, "car")
    raise ValueError("over")


@edda.workflow
async def canon_effects_of_the_body(ctx: edda.WorkflowContext) -> str:
    await edda.send_event_transactional(ctx, "canon.body", "canon", {"at": str(ctx.now())})
    word = "new" if ctx.patched("canon") else "old"
    number = await canon_send(ctx, ctx.random().randrange(10) // 10)
    return f"{word} {number} {ctx.uuid() == ctx.uuid()}"


@edda.activity(retry_policy=ONCE)
async def canon_tell(ctx: edda.WorkflowContext, number: int) -> int:
    _bench().entered(ctx)
    await edda.send_event("canon.told", "canon", {"to": str(ctx.instance_id), "n": number})
    return number


async def _told(ctx: edda.WorkflowContext, number: int) -> int:
    match = {"to": str(ctx.instance_id), "n": number}
    return (await edda.wait_event(ctx, "canon.told", event_id=f"told-{number}", match=match)).data["n"]  # type: ignore[no-any-return]


@edda.workflow
async def canon_note_to_self(ctx: edda.WorkflowContext) -> list[int]:
    """What it sends is there before it waits, and comes in order."""
    for number in (1, 2):
        await edda.send_event("canon.note", "canon", {"n": number}, to=ctx.instance_id)
    first = await edda.wait_event(ctx, "canon.note")
    one = await canon_add(ctx, 1, 1)
    return [first.data["n"], one, (await edda.wait_event(ctx, "canon.note")).data["n"]]


@edda.workflow
async def canon_talk(ctx: edda.WorkflowContext) -> list[int]:
    """Waits while its own activities send what it waits for, in another order."""
    found = await asyncio.gather(_told(ctx, 1), _told(ctx, 2), canon_tell(ctx, 2), canon_tell(ctx, 1))
    return [*found, await canon_add(ctx, 1, 1)]


@edda.workflow
async def canon_deadline(ctx: edda.WorkflowContext) -> str:
    try:
        await edda.wait_event(ctx, "canon.told", 0.05, match={"to": str(ctx.instance_id), "n": 0})
    except edda.EventTimeoutError:
        await canon_tell(ctx, 7)
    try:
        async with asyncio.timeout(0.05):
            await edda.wait_event(ctx, "canon.never")
    except TimeoutError:
        pass
    return f"nothing came, then {await _told(ctx, 7)}"


@edda.workflow
async def canon_hears(ctx: edda.WorkflowContext) -> list[Any]:
    """Two events from outside: one while it runs, or waits for a timer, or is parked; one with a deadline far away."""
    here = str(ctx.instance_id)
    await canon_add(ctx, 1, 1)
    first = await edda.wait_event(ctx, "canon.news", match={"to": here, "n": 1})
    await edda.wait_timer(ctx, 1.2)
    second = await edda.wait_event(ctx, "canon.news", 60.0, subject=here)
    return [first.data["n"], second.data["n"], await canon_add(ctx, 1, 1)]


@edda.workflow
async def canon_hears_both(ctx: edda.WorkflowContext) -> list[Any]:
    """Both at once, in order of acceptance, whatever their names."""

    async def news() -> Any:
        return (await edda.wait_event(ctx, "canon.news")).data["n"]

    return [sorted(await asyncio.gather(news(), news())), await canon_add(ctx, 1, 1)]


@edda.workflow(event_handler=True)
async def canon_asked(ctx: edda.WorkflowContext, to: str, n: int) -> None:
    """Started by an event; it answers whoever sent that."""
    await edda.send_event("canon.answer", "canon", {"to": to, "n": await canon_add(ctx, n, 1)}, to=to)


@edda.workflow
async def canon_asks(ctx: edda.WorkflowContext) -> str:
    """What an event of its own starts answers it, once."""
    await edda.send_event("canon_asked", "canon", {"to": str(ctx.instance_id), "n": 1})
    answer = await edda.wait_event(ctx, "canon.answer")
    try:
        await edda.wait_event(ctx, "canon.answer", 0.3)
    except edda.EventTimeoutError:
        return f"answered {answer.data['n']}"
    return "answered twice"


ASKED: Final = Subscription(type=canon_asked.name, workflow=canon_asked.name, takes="to,n,")


def answering(event: CloudEvent) -> InstanceId | None:
    """The instance that an event of a canonical workflow starts."""
    return started_by(event, ASKED).id if event.type == ASKED.type else None


# -- what must become of them ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Canonical:
    """A workflow and its one possible outcome."""

    workflow: Workflow[..., Any]
    status: Status
    result: object = None
    error: str = ""
    """Name of the type of the stored error."""
    undone: tuple[str, ...] = ()
    """Ids of the compensations that are executed, in order."""
    effects: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Suffix of an instance id (empty for the instance itself) -> calls that leave exactly one row, as a multiset."""
    messages: int = 0
    """Rows in the outbox."""
    children: int = 0
    handled: int = 0
    """Instances that its events start."""
    posts: int = 0
    """Events that it sends to our own inbox."""
    cancel_after: str = ""
    """Somebody cancels it as soon as this call's completion is recorded."""


CANONICAL: Final = (
    Canonical(workflow=canon_sequence, status=Status.COMPLETED, result=6),
    Canonical(workflow=canon_gather, status=Status.COMPLETED, result=[12, 22]),
    Canonical(workflow=canon_group, status=Status.COMPLETED, result="no 2"),
    Canonical(
        workflow=canon_saga,
        status=Status.FAILED,
        error="TerminalError",
        undone=("undo/canon_unbook:1", "undo/canon_book_row:1", "undo/canon_book:1"),
        effects={"": ("canon_book_row:1",)},
    ),
    Canonical(workflow=canon_retries, status=Status.COMPLETED, result="at last, later"),
    Canonical(workflow=canon_timer, status=Status.COMPLETED, result=3),
    Canonical(workflow=canon_timeout, status=Status.COMPLETED, result="timed out 2"),
    Canonical(
        workflow=canon_cancel,
        status=Status.CANCELLED,
        error="WorkflowCancelledException",
        undone=("undo/canon_book_row:1", "undo/canon_book:1"),
        effects={"": ("canon_book_row:1",)},
        cancel_after="canon_book_row:1",
    ),
    Canonical(
        workflow=canon_session,
        status=Status.COMPLETED,
        result=[1, 2, 3],
        effects={"": ("canon_effect:1", "canon_effect:2", "canon_effect:3")},
    ),
    Canonical(
        workflow=canon_order,
        status=Status.COMPLETED,
        result=ANY,
        effects={"": ("canon_effect:1", "canon_effect:2", "canon_effect:3")},
        messages=3,
    ),
    Canonical(
        workflow=canon_parent,
        status=Status.COMPLETED,
        result=12,
        effects={"/canon_child:1": ("canon_effect:1",)},
        children=1,
    ),
    Canonical(
        workflow=canon_family,
        status=Status.COMPLETED,
        result=[2, 3],
        effects={"/canon_child:1": ("canon_effect:1",), "/canon_child:2": ("canon_effect:1",)},
        children=2,
    ),
    Canonical(
        workflow=canon_bad_child,
        status=Status.FAILED,
        error="TerminalError",
        undone=("undo/canon_book:1",),
        effects={"/canon_saga:1": ("canon_book_row:1",)},
        children=1,
    ),
    Canonical(workflow=canon_poison, status=Status.QUARANTINED),
    Canonical(
        workflow=canon_unstored,
        status=Status.FAILED,
        error="SerializationError",
        undone=("undo/canon_book:1", "undo/canon_unstorable:1"),
    ),
    Canonical(
        workflow=canon_undo_fails,
        status=Status.COMPENSATION_FAILED,
        error="CompensationFailedError",
        undone=("undo/canon_book:2", "undo/canon_book:1"),
    ),
    Canonical(workflow=canon_effects_of_the_body, status=Status.COMPLETED, result="new 0 False", messages=2),
    Canonical(workflow=canon_note_to_self, status=Status.COMPLETED, result=[1, 2, 2], posts=2),
    Canonical(workflow=canon_talk, status=Status.COMPLETED, result=[1, 2, 2, 1, 2], posts=2),
    Canonical(workflow=canon_deadline, status=Status.COMPLETED, result="nothing came, then 7", posts=1),
    Canonical(workflow=canon_asks, status=Status.COMPLETED, result="answered 2", posts=2, handled=1),
)

HEARING: Final = (
    Canonical(workflow=canon_hears, status=Status.COMPLETED, result=[1, 2, 2]),
    Canonical(workflow=canon_hears_both, status=Status.COMPLETED, result=[[1, 2], 2]),
)
"""Those that hear from outside: of two events `canon.news`, whose data name the instance and number them."""
