"""The inbox, for every back end: events come in, wake those who wait, and are found by them; whichever came first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edda.core.commit import Commit, End, EventWait, Park, Post
from edda.core.event import TARGET, CloudEvent, Receipt
from edda.core.lifecycle import Status
from edda.core.routing import Criteria, EventKey, event_key
from edda.storage.inbox import FOUND_MAX, WOKEN_MAX, Look, Routed
from tests.storage.support import NEVER, W1, World, commit, iid, new

STORED, DUPLICATE, NO_SUCH_INSTANCE, INSTANCE_ENDED = Receipt
PARKED = Park(status=Status.WAITING_FOR_EVENT, reason="event order.paid", due_us=NEVER, seen_wakes=0)
PAID = Criteria.of("order.paid")
ALWAYS = 0


def paid(id: str = "1", *, data: object = None, target: str | None = None, **more: Any) -> CloudEvent:
    extensions = {} if target is None else {TARGET: target}
    text = None if data is None else json.dumps(data)
    return CloudEvent(id=id, source="/shop", type="order.paid", json=text, extensions=extensions, **more)


def by_order(order: object) -> Criteria:
    return Criteria.of("order.paid", match={"order_id": order})


async def wait(world: World, name: str, *wanted: Criteria, row: Any = PARKED) -> None:
    """An instance that stores these waits, and parks."""
    waits = tuple(EventWait(f"wait:{n}", one.type, one.route) for n, one in enumerate(wanted, start=1))
    await world.start(new(name, owner=W1))
    await world.write(commit(name, 1, waits=waits))
    if row is not None:
        await world.write(commit(name, 2, row=row))


async def route(world: World, *events: CloudEvent) -> set[str]:
    """Route to the end, as a router does; returns who was woken."""
    keys: Sequence[EventKey] = [event_key(event) for event in events]
    woken: set[str] = set()
    while keys:
        routed: Routed = await world.store.route(keys)
        woken.update(routed.woken)
        keys = routed.left
    return woken


async def found(world: World, name: str, *wanted: Criteria, had: Sequence[CloudEvent] = (), **more: Any) -> list[str]:
    """Ids of the events that an instance finds."""
    keys = frozenset(event_key(event) for event in had)
    look = Look(instance_id=iid(name), since_us=more.pop("since_us", ALWAYS), wanted=wanted, had=keys)
    looked = await world.store.look([look], **more)
    return [stored.event.id for stored in looked[iid(name)]]


# -- accepting ------------------------------------------------------------------------------------------------------


async def test_an_event_comes_back_as_it_went_in(world: World) -> None:
    events = [
        paid("1", data={"order_id": "ä😀", "n": 1}, subject="s", time="2026-01-01T00:00:00Z", dataschema="urn:x"),
        CloudEvent(
            "2", "/shop", "order.paid", blob=b"\x00\xff\n", datacontenttype="application/x", extensions={"a": "1"}
        ),
        CloudEvent("3", "/shop", "order.paid"),
    ]
    assert await world.store.accept(events) == (STORED, STORED, STORED)
    looked = await world.store.look([Look(instance_id=iid("a"), since_us=ALWAYS, wanted=(PAID,))])
    came = {stored.event.id: stored.event for stored in looked[iid("a")]}
    assert [came[event.id] for event in events] == events


async def test_a_second_copy_changes_nothing(world: World) -> None:
    assert await world.store.accept([paid("1", data=1)]) == (STORED,)
    assert await world.store.accept([paid("2"), paid("1", data=2), paid("2")]) == (STORED, DUPLICATE, DUPLICATE)
    looked = await world.store.look([Look(instance_id=iid("a"), since_us=ALWAYS, wanted=(PAID,))])
    assert sorted((one.event.id, one.event.json) for one in looked[iid("a")]) == [("1", "1"), ("2", None)]


async def test_the_same_id_of_another_source_is_another_event(world: World) -> None:
    other = paid("1")._replace(source="/elsewhere")
    assert await world.store.accept([paid("1"), other]) == (STORED, STORED)


async def test_what_is_addressed_to_nobody_there_is_refused_alone(world: World) -> None:
    await world.start(new("over", owner=W1), new("lives", owner=W1))
    await world.write(commit("over", 1, row=End(status=Status.COMPLETED)))
    events = [paid("1", target="nobody"), paid("2", target="over"), paid("3", target="lives")]
    assert await world.store.accept(events) == (NO_SUCH_INSTANCE, INSTANCE_ENDED, STORED)
    assert await world.store.accept(events[2:]) == (DUPLICATE,)


# -- the event comes second -----------------------------------------------------------------------------------------


async def test_an_event_wakes_those_who_wait_for_its_type(world: World) -> None:
    await wait(world, "a", PAID)
    await wait(world, "b", Criteria.of("order.shipped"))
    await world.store.accept([paid()])
    assert await route(world, paid()) == {"a"}
    assert await world.claim() == ["a"]
    assert (await world.row("a")).wakes == 1


async def test_an_event_wakes_only_whom_its_data_concern(world: World) -> None:
    await world.store.learn("order.paid", by_order("x").fields, since_us=ALWAYS)
    for name, order in (("a", "x"), ("b", "y"), ("c", 1)):
        await wait(world, name, by_order(order))
    events = [paid("1", data={"order_id": "y"}), paid("2", data={"order_id": 1.0, "more": []}), paid("3", data=[1])]
    await world.store.accept(events)
    assert await route(world, *events) == {"b", "c"}


async def test_a_subject_can_be_waited_for(world: World) -> None:
    seven = Criteria.of("order.paid", subject="7")
    await world.store.learn("order.paid", seven.fields, since_us=ALWAYS)
    await wait(world, "a", seven)
    for event, woken in (
        (paid("1"), set[str]()),
        (paid("2", subject="8"), set[str]()),
        (paid("3", subject="7"), {"a"}),
    ):
        await world.store.accept([event])
        assert await route(world, event) == woken


async def test_an_addressed_event_wakes_its_instance_alone_and_only_if_that_waits_for_such(world: World) -> None:
    await wait(world, "a", PAID)
    await wait(world, "b", PAID)
    await wait(world, "c", Criteria.of("order.shipped"))
    events = [paid("1", target="b"), paid("2", target="c")]
    await world.store.accept(events)
    assert await route(world, *events) == {"b"}
    assert await found(world, "a", PAID) == []
    assert await found(world, "b", PAID) == ["1"]


async def test_routing_again_wakes_nobody(world: World) -> None:
    await wait(world, "a", PAID)
    await world.store.accept([paid()])
    assert await route(world, paid()) == {"a"}
    assert await route(world, paid()) == set()


async def test_a_wait_that_is_over_wakes_nobody(world: World) -> None:
    await wait(world, "a", PAID, row=None)
    await wait(world, "b", PAID, Criteria.of("order.shipped"), row=None)
    await world.write(commit("a", 2, waits_over=("wait:1",)), commit("b", 2, row=PARKED, no_waits_left=True))
    await world.store.accept([paid()])
    assert await route(world, paid()) == set()


async def test_a_wait_of_the_same_call_is_replaced(world: World) -> None:
    await wait(world, "a", PAID, row=None)
    shipped = Criteria.of("order.shipped")
    await world.write(commit("a", 2, waits=(EventWait("wait:1", shipped.type, shipped.route),)))
    await world.store.accept([paid()])
    assert await route(world, paid()) == set()


async def test_waits_of_a_refused_commit_do_not_count(world: World) -> None:
    await world.start(new("a", owner=W1))
    waits = (EventWait("wait:1", PAID.type, PAID.route),)
    stale = commit("a", 1, claim=7, row=PARKED, waits=waits, posts=(Post(1, paid("posted")),))
    assert [verdict.value for verdict in await world.write(stale)] == ["claim lost"]
    await world.store.accept([paid()])
    assert await route(world, paid()) == set()
    assert await found(world, "a", PAID) == ["1"]


async def test_a_broadcast_to_many_goes_in_chunks_and_misses_nobody(world: World) -> None:
    names = [f"i{n:04d}" for n in range(WOKEN_MAX + 10)]
    await world.start(*(new(name, owner=W1) for name in names))
    waits = (EventWait("wait:1", PAID.type, PAID.route),)
    await world.write(*(commit(name, 1, row=PARKED, waits=waits) for name in names))
    await world.store.accept([paid("1"), paid("2")])
    first: Routed = await world.store.route([event_key(paid("1")), event_key(paid("2"))])
    assert len(first.woken) == WOKEN_MAX
    assert first.left == (event_key(paid("1")), event_key(paid("2")))
    assert first.broadcasts == ("order.paid",)
    assert {*first.woken, *await route(world, paid("1"))} == set(names)
    assert await route(world, paid("2")) == set(names)


async def test_an_event_for_one_is_led_on_beside_one_for_very_many(world: World) -> None:
    """The many have lower ids, so that they fill a page alone."""
    names, last, shipped = [f"i{n:04d}" for n in range(WOKEN_MAX + 10)], "z", Criteria.of("order.shipped")
    await world.start(*(new(name, owner=W1) for name in (*names, last)))
    waits = (EventWait("wait:1", PAID.type, PAID.route),)
    await world.write(*(commit(name, 1, row=PARKED, waits=waits) for name in names))
    await world.write(commit(last, 1, row=PARKED, waits=(EventWait("wait:1", shipped.type, shipped.route),)))
    events = [paid("1")._replace(type="order.shipped"), paid("2")]
    await world.store.accept(events)
    assert await route(world, *events) == {*names, last}


async def test_who_waits_for_two_things_at_once_hides_nobody_from_a_broadcast(world: World) -> None:
    names = [f"i{n:04d}" for n in range(WOKEN_MAX)]
    twice = tuple(EventWait(f"wait:{n}", PAID.type, PAID.route) for n in (1, 2))
    await world.start(*(new(name, owner=W1) for name in names))
    await world.write(*(commit(name, 1, row=PARKED, waits=twice) for name in names))
    await world.store.accept([paid("1")])
    assert await route(world, paid("1")) == set(names)


async def test_an_event_posted_with_a_commit_is_there_with_it_and_needs_routing(world: World) -> None:
    await wait(world, "a", PAID)
    await world.start(new("b", owner=W1))
    await world.write(commit("b", 1, posts=(Post(1, paid("1")), Post(1, paid("1")))))
    assert await world.store.unrouted(older_than_us=0, limit=10) == (event_key(paid("1")),)
    assert await route(world, paid("1")) == {"a"}
    assert await found(world, "a", PAID) == ["1"]


async def test_what_a_dead_receiver_left_behind_is_found_until_it_is_routed(world: World) -> None:
    await world.store.accept([paid("1"), paid("2")])
    keys = await world.store.unrouted(older_than_us=0, limit=10)
    assert set(keys) == {event_key(paid("1")), event_key(paid("2"))}
    assert len(await world.store.unrouted(older_than_us=0, limit=1)) == 1
    assert await world.store.unrouted(older_than_us=3_600_000_000, limit=10) == ()
    await route(world, paid("1"), paid("2"))
    assert await world.store.unrouted(older_than_us=0, limit=10) == ()


# -- the wait comes second ------------------------------------------------------------------------------------------


async def test_an_event_that_came_before_the_wait_is_found(world: World) -> None:
    await world.store.accept([paid()])
    await route(world, paid())
    assert await found(world, "a", PAID) == ["1"]
    assert await found(world, "a", PAID, had=[paid()]) == []
    assert await found(world, "a", Criteria.of("order.shipped")) == []


async def test_events_come_in_the_order_of_acceptance(world: World) -> None:
    for n in range(5):
        await world.store.accept([paid(str(9 - n))])
    assert await found(world, "a", PAID) == ["9", "8", "7", "6", "5"]


async def test_events_that_come_together_stay_in_their_order(world: World) -> None:
    together = [paid(str(n)) for n in range(6)]
    await world.store.accept(together)
    await world.start(new("b", owner=W1))
    posts = tuple(Post(1, paid(f"posted {n}")) for n in range(6))
    await world.write(commit("b", 1, posts=posts))
    assert await found(world, "a", PAID, unrouted=True) == [
        *(event.id for event in together),
        *(post.event.id for post in posts),
    ]


async def test_events_from_before_the_start_are_not_found(world: World) -> None:
    await world.store.accept([paid()])
    assert await found(world, "a", PAID, since_us=10**18) == []


async def test_events_are_found_by_fields_that_nobody_had_asked_for_when_they_came(world: World) -> None:
    events = [paid("1", data={"order_id": "x"}), paid("2", data={"order_id": "y"}), paid("3")]
    await world.store.accept(events)
    await route(world, *events)
    assert await found(world, "a", by_order("y")) == []
    await world.store.learn("order.paid", by_order("y").fields, since_us=ALWAYS)
    assert await found(world, "a", by_order("y")) == ["2"]
    await world.store.accept([paid("4", data={"order_id": "y"})])
    assert await found(world, "a", by_order("y")) == ["2", "4"]


async def test_fields_are_learned_for_older_events_when_an_older_instance_asks(world: World) -> None:
    await world.store.accept([paid("1", data={"order_id": "x"})])
    fields = by_order("x").fields
    await world.store.learn("order.paid", fields, since_us=10**18)
    assert await found(world, "a", by_order("x")) == []
    await world.store.learn("order.paid", fields, since_us=ALWAYS)
    assert await found(world, "a", by_order("x")) == ["1"]


async def test_an_event_stored_before_its_fields_were_known_gets_its_route_when_it_is_routed(world: World) -> None:
    await world.start(new("b", owner=W1))
    await world.write(commit("b", 1, posts=(Post(1, paid("1", data={"order_id": "x"})),)))
    await world.store.learn("order.paid", by_order("x").fields, since_us=10**18)
    await wait(world, "a", by_order("x"))
    assert await route(world, paid("1")) == {"a"}
    assert await found(world, "a", by_order("x")) == ["1"]


async def test_an_event_without_its_routes_is_found_by_who_asks_for_such_too(world: World) -> None:
    await world.start(new("b", owner=W1))
    await world.write(commit("b", 1, posts=(Post(1, paid("1", data={"order_id": "x"})),)))
    assert await found(world, "a", by_order("x")) == []
    assert await found(world, "a", by_order("x"), unrouted=True) == ["1"]
    assert await found(world, "a", by_order("y"), unrouted=True) == []


async def test_of_many_events_the_first_few_are_found_and_the_rest_after_those(world: World) -> None:
    events = [paid(f"{n:04d}") for n in range(1200)]
    for start in range(0, 1200, 400):
        await world.store.accept(events[start : start + 400])
    order: list[str] = []
    while some := await found(world, "a", PAID, had=[paid(id) for id in order]):
        assert len(some) == FOUND_MAX
        order += some
        if len(order) == 5 * FOUND_MAX:
            break
    late = await found(world, "a", PAID, had=events[:1190])
    assert len(set(order)) == 5 * FOUND_MAX
    assert len(late) == 10


async def test_many_instances_look_at_once_each_for_its_own(world: World) -> None:
    await world.store.learn("order.paid", by_order("x").fields, since_us=ALWAYS)
    await world.store.accept([paid(str(n), data={"order_id": n}) for n in range(20)])
    looks = [Look(instance_id=iid(f"i{n}"), since_us=ALWAYS, wanted=(by_order(n),)) for n in range(20)]
    looked = await world.store.look(looks)
    assert {name: [one.event.id for one in events] for name, events in looked.items()} == {
        f"i{n}": [str(n)] for n in range(20)
    }


# -- forgetting -----------------------------------------------------------------------------------------------------


async def test_old_events_go_but_for_those_of_instances_that_go_on(world: World) -> None:
    await world.start(new("lives", owner=W1), new("over", owner=W1))
    await world.store.accept([paid("1"), paid("2", target="lives"), paid("3", target="over"), paid("4")])
    await world.write(Commit(instance_id=iid("over"), claim=1, row=End(status=Status.COMPLETED)))
    assert await world.store.expire(before_us=1, limit=10) == 0
    assert await world.store.expire(before_us=10**18, limit=1) == 1
    assert await world.store.expire(before_us=10**18, limit=10) == 2
    assert await found(world, "a", PAID) == []
    assert await found(world, "lives", PAID) == ["2"]
    assert await world.store.accept([paid("1")]) == (STORED,)
