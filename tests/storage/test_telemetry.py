"""What is stored for those who watch: trace contexts, since when something was due, and how the outbox is."""

from __future__ import annotations

from typing import Any

from edda.core.commit import Park
from edda.core.event import CloudEvent
from edda.core.lifecycle import Status
from edda.core.routing import event_key
from edda.core.subscription import ALL, Subscription
from edda.storage.outbox import Again, Dead, Delivered, OutboxState, Settlement
from edda.storage.port import Claims
from tests.storage.support import W1, World, commit, iid, message, new

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 vendor=a,b=c"


async def test_an_instance_keeps_the_trace_context_of_its_start(world: World) -> None:
    await world.start(new("a", owner=W1, trace=TRACE), new("b"))
    await world.store.create(new("c", trace=TRACE))
    assert [(await world.row(name)).trace for name in "abc"] == [TRACE, None, TRACE]
    claims: Claims = await world.store.claim(W1, workflows=["order"], limit=9)
    assert {row.id: row.trace for row in claims.rows} == {"b": None, "c": TRACE}


async def test_a_child_keeps_it_too(world: World) -> None:
    await world.start(new("a", owner=W1))
    await world.write(commit("a", 1, children=(new("a/1", parent_id=iid("a"), trace=TRACE),)))
    assert (await world.row("a/1")).trace == TRACE


async def test_an_event_hands_it_to_the_instance_that_it_starts(world: World) -> None:
    await world.store.subscribe([Subscription("placed", "order", ALL)], lasting_us=10**12)
    event = CloudEvent(
        id="1", source="s", type="placed", json="{}",
        extensions={"traceparent": TRACE.split()[0], "tracestate": TRACE.split(" ", 1)[1]},
    )  # fmt: skip
    await world.store.accept([event])
    started: tuple[str, ...] = ()
    for _ in range(3):
        started = started or (await world.store.route([event_key(event)])).started
    assert [(await world.row(name)).trace for name in started] == [TRACE]


async def test_a_message_keeps_the_trace_context_of_what_sent_it(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1))
    await world.write(commit("a", 1, outbox=(message("a", 1, trace=TRACE),)))
    await world.write(commit("b", 1, outbox=(message("b", 1),)))
    await world.store.enqueue([message("event/1", 1, trace=TRACE)])
    claims = await world.store.claim_outbox("r", limit=9, lease_us=10**9)
    found = {leased.message.instance_id: leased.message.trace for leased in claims.leased}
    assert found == {"a": TRACE, "b": None, "event/1": TRACE}


async def test_a_claim_says_since_when_each_was_due(world: World) -> None:
    await world.start(new("a", owner=W1), new("b"))
    due_us = (await world.row("b")).claimable_at_us
    await world.write(commit("a", 1, row=Park(Status.WAITING_FOR_TIMER, "timer", 7, 0)))
    claims: Claims = await world.store.claim(W1, workflows=["order"], limit=9)
    assert dict(zip([row.id for row in claims.rows], claims.due_us, strict=True)) == {"a": 7, "b": due_us}
    assert (await world.store.claim(W1, workflows=["order"], limit=9)).due_us == ()


async def test_the_outbox_tells_how_much_waits_and_since_when(world: World) -> None:
    async def state(count_max: int = 100) -> OutboxState:
        found: OutboxState = await world.store.outbox_state(count_max=count_max)
        return found

    empty = await state()
    assert (empty.pending, empty.dead, empty.oldest_at_us) == (0, 0, None)
    names = ["a", "b", "c", "d"]
    await world.start(*(new(name, owner=W1) for name in names))
    for number, name in enumerate(names):
        await world.write(commit(name, 1, outbox=(message(name, 1, at_us=1000 + number),)))
    whole = await state()
    assert (whole.pending, whole.dead, whole.oldest_at_us) == (4, 0, 1000)
    assert whole.now_us > 1000
    assert (await state(2)).pending == 2
    await settle(world, {"a": Delivered(), "b": Dead("no"), "c": Again(10**9, "later")})
    rest = await state()
    assert (rest.pending, rest.dead, rest.oldest_at_us) == (2, 1, 1002)


async def settle(world: World, outcomes: dict[str, Any]) -> None:
    claims = await world.store.claim_outbox("r", limit=9, lease_us=10**9)
    by_id = {leased.message.instance_id: leased for leased in claims.leased}
    await world.store.settle_outbox([Settlement(by_id[iid(name)], outcome) for name, outcome in outcomes.items()])
