"""What people ask of a database, for every back end: pages, counts, and who does what."""

from __future__ import annotations

from typing import Any

import pytest

from edda.core.commit import End, EventWait, Park
from edda.core.event import CloudEvent
from edda.core.history import WorkerId
from edda.core.lifecycle import SET_ASIDE, Status
from edda.core.routing import Criteria
from edda.core.subscription import ALL, Subscription
from edda.storage import reads
from edda.storage.outbox import Dead, Delivered, Settlement
from edda.storage.reads import EventFilter, InstanceFilter, PageTokenError, Source
from tests.storage.support import FAR, W1, World, commit, iid, message, new

COMPLETED = End(status=Status.COMPLETED, output="1")
FAILED = End(status=Status.FAILED, error='{"type": "ValueError", "message": "No Money"}')
ASIDE = End(status=Status.NONDETERMINISTIC, error='{"message": "differs at seq 7"}')


async def all_pages(read: Any, *args: Any, limit: int = 3, **kwargs: Any) -> list[Any]:
    """Every row, page after page."""
    rows: list[Any] = []
    page: str | None = None
    while True:
        found = await read(*args, limit=limit, page=page, **kwargs)
        assert len(found.rows) <= limit
        rows += found.rows
        page = found.next_page
        if page is None:
            return rows


async def names(world: World, **which: Any) -> list[str]:
    return [row.id for row in await all_pages(world.store.instance_page, InstanceFilter(**which))]


@pytest.fixture
async def shop(world: World) -> World:
    """Ten orders and some refunds, in every state."""
    for number in range(10):
        start = new(f"order-{number}", owner=W1)._replace(
            input=f'{{"args":[{number}],"kwargs":{{"order_id":"ORD-{number}","n":{number},"who":{{"name":"Zoë"}}}}}}'
        )
        await world.start(start)
    for number in range(4):
        await world.start(new(f"refund-{number}", owner=W1, workflow="refund", parent_id=iid("order-1")))
    parked = Park(status=Status.WAITING_FOR_EVENT, reason="event order.PAID", due_us=FAR, seen_wakes=0)
    await world.write(
        commit("order-0", 1, row=COMPLETED),
        commit("order-1", 1, row=COMPLETED),
        commit("order-2", 1, row=FAILED),
        commit("order-3", 1, row=ASIDE),
        commit("order-4", 1, row=parked, waits=(EventWait("paid:1", "order.paid", Criteria.of("order.paid").route),)),
        commit("refund-0", 1, row=FAILED),
    )
    return world


async def test_instances_are_listed_newest_first_page_by_page(shop: World) -> None:
    newest = [f"refund-{n}" for n in reversed(range(4))] + [f"order-{n}" for n in reversed(range(10))]
    assert await names(shop) == newest
    whole = await shop.store.instance_page()
    assert [row.id for row in whole.rows] == newest
    assert whole.next_page is None
    assert whole.scanned_all


async def test_what_starts_between_two_pages_shifts_nothing(shop: World) -> None:
    first = await shop.store.instance_page(limit=2)
    await shop.start(new("later", owner=W1))
    second = await shop.store.instance_page(limit=2, page=first.next_page)
    assert [row.id for row in second.rows] == ["refund-1", "refund-0"]


FOUND_BY: list[tuple[dict[str, Any], list[str]]] = [
    ({"statuses": {Status.FAILED}}, ["refund-0", "order-2"]),
    ({"statuses": {Status.FAILED}, "workflows": {"order"}}, ["order-2"]),
    ({"statuses": SET_ASIDE}, ["order-3"]),
    ({"workflows": {"refund"}}, ["refund-3", "refund-2", "refund-1", "refund-0"]),
    ({"workflows": {"nobody"}}, []),
    ({"id_prefix": "order-3"}, ["order-3"]),
    ({"id_prefix": "refund", "statuses": {Status.FAILED}}, ["refund-0"]),
    ({"id_prefix": "\U0010ffff"}, []),
    ({"parent_id": "order-1"}, ["refund-3", "refund-2", "refund-1", "refund-0"]),
    ({"text": "no money"}, ["refund-0", "order-2"]),
    ({"text": "order.paid"}, ["order-4"]),
    ({"text": "%"}, []),
    ({"argument": ("order_id", "ORD-7")}, ["order-7"]),
    ({"argument": ("n", 7)}, ["order-7"]),
    ({"argument": ("n", 7.0)}, ["order-7"]),
    ({"argument": ("n", "7")}, []),
    ({"argument": ("0", 7)}, ["order-7"]),
    ({"argument": ("who.name", "Zoë"), "statuses": {Status.FAILED}}, ["order-2"]),
    ({"argument": ("who", "Zoë")}, []),
]


@pytest.mark.parametrize(("which", "expected"), FOUND_BY, ids=range(len(FOUND_BY)))
async def test_instances_are_found_by(shop: World, which: dict[str, Any], expected: list[str]) -> None:
    assert await names(shop, **which) == expected


async def test_nothing_is_found_where_nothing_is(world: World) -> None:
    for which in ({}, {"statuses": {Status.FAILED}}, {"text": "x", "statuses": {Status.FAILED}}, {"id_prefix": "x"}):
        assert await names(world, **which) == []
    assert await world.store.instance_counts() == ()
    assert await world.store.endings("order") == ()
    assert (await world.store.worker_views()).rows[0].held == 0


async def test_instances_are_found_by_time(shop: World) -> None:
    row = await shop.row("order-5")
    created = row.created_at_us
    assert "order-5" in await names(shop, created_from_us=created, created_before_us=created + 1)
    assert "order-5" not in await names(shop, created_before_us=created)
    ended = (await shop.row("order-0")).updated_at_us
    assert "order-0" in await names(shop, updated_from_us=ended)
    assert "order-9" not in await names(shop, updated_from_us=ended, created_before_us=ended - 1) or ended == created


async def test_what_is_not_looked_at_is_said_and_can_be_gone_on_with(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in _modules_with("SCANNED_MAX"):
        monkeypatch.setattr(module, "SCANNED_MAX", 4)
    which = InstanceFilter(argument=("order_id", "ORD-8"))
    first = await shop.store.instance_page(which)
    assert (first.rows, first.scanned_all) == ((), False)
    second = await shop.store.instance_page(which, page=first.next_page)
    assert [row.id for row in second.rows] == ["order-8"]
    assert await names(shop, argument=("order_id", "ORD-0")) == ["order-0"]


async def test_where_looking_ends_with_the_last_candidate_nothing_more_is_promised(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(await names(shop))
    for bound, more in ((count - 1, True), (count, False), (count + 1, False)):
        for module in _modules_with("SCANNED_MAX"):
            monkeypatch.setattr(module, "SCANNED_MAX", bound)
        page = await shop.store.instance_page(InstanceFilter(argument=("order_id", "nobody has it")))
        assert (page.rows, page.scanned_all, page.next_page is not None) == ((), not more, more)


def _modules_with(name: str) -> list[Any]:
    from edda.storage.sql import reads as sql_reads

    return [module for module in (reads, sql_reads) if hasattr(module, name)]


async def test_the_errors_of_some_instances_are_read_without_the_rest_of_their_rows(shop: World) -> None:
    found = await shop.store.errors([iid("order-0"), iid("order-2"), iid("order-3"), iid("nobody")])
    assert found == {"order-2": FAILED.error, "order-3": ASIDE.error}


async def test_a_summary_says_what_the_row_says(shop: World) -> None:
    (summary,) = (await shop.store.instance_page(InstanceFilter(id_prefix="order-4"))).rows
    row = await shop.row("order-4")
    assert summary._asdict() == {name: getattr(row, name) for name in summary._fields}
    assert isinstance(summary.status, Status)


async def test_a_token_of_another_list_is_refused(shop: World) -> None:
    for page in ("nonsense", "", "WzFd", reads.token_of("a", "b"), reads.token_of(1 << 70, "a")):
        with pytest.raises(PageTokenError):
            await shop.store.instance_page(page=page)


async def test_instances_are_counted_by_workflow_and_status(shop: World) -> None:
    counts = {(one.workflow, one.status): (one.count, one.capped) for one in await shop.store.instance_counts()}
    assert counts == {
        ("order", Status.COMPLETED): (2, False),
        ("order", Status.FAILED): (1, False),
        ("order", Status.NONDETERMINISTIC): (1, False),
        ("order", Status.WAITING_FOR_EVENT): (1, False),
        ("order", Status.RUNNING): (5, False),
        ("refund", Status.FAILED): (1, False),
        ("refund", Status.RUNNING): (3, False),
    }


async def test_counting_ends_somewhere_and_says_so(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "COUNT_MAX", 4)
    counts = {(one.workflow, one.status): (one.count, one.capped) for one in await shop.store.instance_counts()}
    assert counts["order", Status.RUNNING] == (4, True)
    assert counts["refund", Status.RUNNING] == (3, False)


async def test_history_comes_in_pages(world: World) -> None:
    await world.start(new("a", owner=W1))
    await world.write(*(commit("a", seq) for seq in range(1, 8)))
    first = await world.store.history_page(iid("a"), limit=3)
    assert ([event.seq for event in first.rows], first.next_seq) == ([1, 2, 3], 4)
    rest = await world.store.history_page(iid("a"), from_seq=4, limit=10)
    assert ([event.seq for event in rest.rows], rest.next_seq) == ([4, 5, 6, 7], None)
    latest = await world.store.history_page(iid("a"), limit=2, latest=True)
    assert [event.seq for event in latest.rows] == [6, 7]
    assert (await world.store.history_page(iid("nobody"))).rows == ()


async def test_the_newest_of_a_workflow_tell_how_long_they_took(shop: World) -> None:
    endings = await shop.store.endings("order", limit=8)
    assert [ending.status for ending in endings[-2:]] == [Status.NONDETERMINISTIC, Status.FAILED]
    row = await shop.row("order-2")
    assert endings[-1] == (Status.FAILED, row.created_at_us, row.ended_at_us)


async def test_waits_are_listed(shop: World) -> None:
    (wait,) = await shop.store.waits_of(iid("order-4"))
    assert (wait.call_id, wait.type) == ("paid:1", "order.paid")
    assert [one.instance_id for one in await all_pages(shop.store.wait_page)] == ["order-4"]
    assert await all_pages(shop.store.wait_page, type="other") == []
    more = [EventWait(f"x:{n}", "x", Criteria.of("x").route) for n in range(5)]
    await shop.write(commit("order-5", 2, waits=tuple(more)))
    assert [one.wait.call_id for one in await all_pages(shop.store.wait_page, limit=2, type="x")] == [
        f"x:{n}" for n in range(5)
    ]
    assert len(await all_pages(shop.store.wait_page, limit=2)) == 6


def _event(number: int, **more: Any) -> CloudEvent:
    values: dict[str, Any] = {"id": f"e{number}", "source": f"/s/{number % 2}", "type": f"t{number % 3}", "json": "{}"}
    return CloudEvent(**values | more)


async def test_events_are_listed_newest_first(shop: World) -> None:
    await shop.store.accept([_event(number) for number in range(7)])
    await shop.store.accept([_event(7, extensions={"eddainstanceid": "order-4"})])
    views = await all_pages(shop.store.event_page)
    assert [view.event.id for view in views] == [f"e{number}" for number in reversed(range(8))]
    assert not any(view.routed for view in views)

    async def found(**which: Any) -> list[str]:
        return [view.event.id for view in await all_pages(shop.store.event_page, EventFilter(**which), limit=2)]

    assert await found(type="t1") == ["e7", "e4", "e1"]
    assert await found(source="/s/1", type="t1") == ["e7", "e1"]
    assert await found(id="e5") == ["e5"]
    assert await found(target="order-4") == ["e7"]
    await shop.store.route([views[-1].key])
    await shop.store.route([views[-1].key])
    assert await found(unrouted=True) == [f"e{number}" for number in reversed(range(1, 8))]


async def test_the_text_of_a_workflow_is_kept_once_and_found_by_hash_or_the_newest(world: World) -> None:
    one, two = Source("w", "1" * 64, "async def w(ctx): ...  # ü 'quoted'"), Source("w", "2" * 64, "second")
    assert await world.store.source("w") is None
    await world.store.keep_sources([one, Source("other", "1" * 64, "of another")])
    await world.store.keep_sources([two, one._replace(text="kept is what was there")])
    await world.store.keep_sources([two])
    assert await world.store.source("w", one.source_hash) == one
    assert await world.store.source("w", "unknown") == two
    assert await world.store.source("w") == two


async def test_handlers_are_listed(world: World) -> None:
    await world.store.subscribe([Subscription("t", "w", ALL)], lasting_us=FAR // 10**6)
    (handler,) = await world.store.handlers()
    assert (handler.type, handler.workflow) == ("t", "w")


async def test_the_outbox_is_listed_by_status_and_by_instance(shop: World) -> None:
    for number in range(5):
        await shop.write(commit(f"order-{number + 5}", 2, outbox=(message(f"order-{number + 5}", 2),)))
    claims = await shop.store.claim_outbox("relayer-1", limit=4, lease_us=10**9)
    a, b, c, d = claims.leased
    await shop.store.settle_outbox([Settlement(a, Delivered()), Settlement(b, Dead("404 Not Found"))])

    async def found(**which: Any) -> list[str]:
        return [view.message.instance_id for view in await all_pages(shop.store.outbox_page, limit=1, **which)]

    free = ({f"order-{number + 5}" for number in range(5)} - {one.message.instance_id for one in claims.leased}).pop()
    assert await found(status="delivered") == [a.message.instance_id]
    assert await found(status="dead") == [b.message.instance_id]
    assert set(await found(status="pending")) == {free, c.message.instance_id, d.message.instance_id}
    assert (await found(status="pending"))[0] == free  # due now; the others have a lease
    assert set(await found(status="leased")) == {c.message.instance_id, d.message.instance_id}
    assert await found(status="pending", type="nothing") == []
    (dead,) = (await shop.store.outbox_page(status="dead")).rows
    assert (dead.reason, dead.attempts, dead.relayer) == ("404 Not Found", 1, None)
    await shop.write(commit("order-5", 3, outbox=tuple(message("order-5", 3, n) for n in range(4))))
    of_one = await all_pages(shop.store.outbox_page, status="", instance_id="order-5", limit=2)
    assert [(view.message.seq, view.message.ordinal) for view in of_one] == [(2, 0), (3, 0), (3, 1), (3, 2), (3, 3)]
    counts = {one.status: one.count for one in await shop.store.outbox_counts()}
    assert counts == {"delivered": 1, "dead": 1, "pending": 7}


async def test_workers_are_listed_with_what_they_hold(shop: World) -> None:
    gone = await shop.worker(WorkerId("gone"))
    await shop.store.announce(W1, ["order", "Zoë's"])
    await shop.store.retire(gone)
    await shop.leave(gone)
    answer = await shop.store.worker_views()
    alive, dead = answer.rows
    assert (alive.id, alive.service, alive.alive, alive.held) == (W1, "tests", True, 8)
    assert alive.present in (True, None)
    assert (alive.workflows, dead.workflows) == (("order", "Zoë's"), None)
    assert alive.started_at_us <= answer.now_us < alive.lease_until_us
    assert (dead.id, dead.alive, dead.held) == (gone, False, 0)
    assert dead.present in (False, None)


async def test_the_backlog_is_what_could_be_claimed(shop: World) -> None:
    assert (await shop.store.backlogs()).rows == ()
    await shop.store.create(new("x"))
    await shop.store.create(new("y"))
    await shop.store.create(new("z", workflow="refund"))
    answer = await shop.store.backlogs()
    assert [(one.workflow, one.claimable, one.capped) for one in answer.rows] == [
        ("order", 2, False),
        ("refund", 1, False),
    ]
    assert answer.rows[0].oldest_us == (await shop.row("x")).created_at_us <= answer.now_us


async def test_the_clock_can_be_read(world: World) -> None:
    assert await world.store.clock() > 1_600_000_000_000_000


async def test_pages_over_many_names_are_still_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from edda.storage.sql import reads as sql_reads

    monkeypatch.setattr(sql_reads, "WALKS_MAX", 3)
    await world.start(*(new(f"i{number}", owner=W1, workflow=f"w{number}") for number in range(6)))
    await world.write(commit("i1", 1, row=FAILED), commit("i4", 1, row=FAILED))
    assert await names(world, statuses={Status.FAILED}) == ["i4", "i1"]
