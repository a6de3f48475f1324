"""The verbs of the outbox relayer, on the model and on every database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import pytest

from edda.core.history import InstanceId
from edda.storage.memory import MemoryStore
from edda.storage.outbox import (
    OUTBOX_BYTES_MAX,
    OUTBOX_LIMIT_MAX,
    Again,
    Dead,
    Delivered,
    GivenBack,
    LeasedMessage,
    OutboxClaims,
    Outcome,
    Settlement,
)
from edda.storage.port import UnknownOutcome
from edda.storage.sql import outbox
from edda.storage.sql.store import SqlStore
from tests.storage.conftest import SERVERS, opened, url_of
from tests.storage.support import LONG_AGO, W1, W2, World, commit, do, iid, message, select

LEASE = 3_600_000_000
OVER = 0
"""A lease that has ended when it begins."""
LATER = Again(LEASE, "503")


class Relays(World):
    """A world with short ways to say what relayers do."""

    async def send(self, name: str, seq: int = 1, count: int = 1, **more: Any) -> None:
        """Messages of one history row of an instance."""
        await self.write(
            commit(name, seq, outbox=tuple(message(name, seq, ordinal, **more) for ordinal in range(count)))
        )

    async def claims(
        self, relayer: str = "r1", *, limit: int = 100, lease_us: int = LEASE, bytes_max: int = OUTBOX_BYTES_MAX
    ) -> OutboxClaims:
        claims: OutboxClaims = await self.store.claim_outbox(
            relayer, limit=limit, lease_us=lease_us, bytes_max=bytes_max
        )
        return claims

    async def lease(self, relayer: str = "r1", **more: Any) -> list[LeasedMessage]:
        return sorted((await self.claims(relayer, **more)).leased, key=lambda leased: leased.message.id)

    async def settle(self, leased: Sequence[LeasedMessage], outcome: Outcome) -> list[bool]:
        return list(await self.store.settle_outbox([Settlement(each, outcome) for each in leased]))

    async def let_time_pass(self) -> None:
        """All leases and back-offs are over."""
        if isinstance(self.store, MemoryStore):
            for relay in self.store.relays.values():
                relay.due_at_us = LONG_AGO
        else:
            await do(self.store, "update edda_outbox set due_at_us = ? where status = 'pending'", LONG_AGO)

    async def relay(self, outcome: Outcome, **more: Any) -> list[str]:
        """Claim, and settle at once; the ids in the order of their delivery."""
        leased = await self.lease(**more)
        if leased:
            assert all(await self.settle(leased, outcome))
        return ids(leased)


def ids(leased: Sequence[LeasedMessage]) -> list[str]:
    return [each.message.id for each in leased]


@pytest.fixture
async def relays(store: Any) -> AsyncIterator[Relays]:
    relays = Relays(store)
    await relays.worker(W1)
    yield relays
    await relays.close()


async def test_nothing_is_due_in_an_empty_outbox(relays: Relays) -> None:
    claims = await relays.claims()
    assert (claims.leased, claims.more, claims.next_due_us) == ((), False, None)


async def test_a_claim_gives_the_whole_message(relays: Relays) -> None:
    sent = message("a", 1, data=None, blob=b"\x00\xff", content_type="application/x-protobuf", type="t", source="s")
    await relays.write(commit("a", 1, outbox=(sent,)))
    (leased,) = await relays.lease()
    assert (leased.message, leased.attempts) == (sent, 0)


async def test_only_the_earliest_message_of_each_instance_is_leased(relays: Relays) -> None:
    await relays.send("a", 1, count=2)
    await relays.send("a", 2)
    await relays.send("b", 1)
    assert ids(await relays.lease()) == ["a/1/0", "b/1/0"]
    assert ids(await relays.lease("r2")) == []


async def test_the_order_is_that_of_numbers_and_not_of_digits_or_of_time(relays: Relays) -> None:
    await relays.write(
        commit("a", 10, outbox=(message("a", 10, 0, at_us=1),)),
        commit("a", 9, outbox=(message("a", 9, 11, at_us=2), message("a", 9, 2, at_us=3))),
    )
    assert [await relays.relay(Delivered()) for _ in range(4)] == [["a/9/2"], ["a/9/11"], ["a/10/0"], []]


async def test_the_next_message_waits_until_the_one_before_is_delivered(relays: Relays) -> None:
    await relays.send("a", 1, count=2)
    leased = await relays.lease()
    assert await relays.lease() == []
    await relays.settle(leased, Delivered())
    assert await relays.relay(Delivered()) == ["a/1/1"]
    assert await relays.lease() == []


async def test_a_message_in_back_off_holds_up_its_instance_and_no_other(relays: Relays) -> None:
    await relays.send("a", 1, count=2)
    await relays.send("b", 1, count=2)
    (first, second) = await relays.lease()
    assert await relays.settle([first], LATER) == [True]
    assert await relays.settle([second], Delivered()) == [True]
    claims = await relays.claims()
    assert ids(claims.leased) == ["b/1/1"]
    assert claims.next_due_us is not None
    assert claims.next_due_us >= claims.now_us


async def test_a_back_off_ends_by_itself_and_attempts_are_counted(relays: Relays) -> None:
    await relays.send("a", 1)
    for attempts in range(3):
        (leased,) = await relays.lease()
        assert leased.attempts == attempts
        assert await relays.settle([leased], Again(0, "503")) == [True]


async def test_what_a_relayer_gives_back_is_due_at_once_and_counts_as_no_attempt(relays: Relays) -> None:
    await relays.send("a", 1)
    leased = await relays.lease()
    assert await relays.settle(leased, GivenBack()) == [True]
    (again,) = await relays.lease("r2")
    assert again.attempts == 0


async def test_a_lease_that_is_over_can_be_taken_by_another_and_the_late_settlement_is_refused(relays: Relays) -> None:
    await relays.send("a", 1)
    old = await relays.lease(lease_us=OVER)
    new = await relays.lease("r2")
    assert ids(old) == ids(new) == ["a/1/0"]
    assert await relays.settle(old, Delivered()) == [False]
    assert await relays.settle(old, Dead("410")) == [False]
    assert await relays.settle(new, Delivered()) == [True]
    assert await relays.settle(old, LATER) == [False]
    assert await relays.lease() == []
    assert await relays.store.dead_letters() == ()


async def test_a_lease_that_is_over_still_counts_while_nobody_has_taken_it(relays: Relays) -> None:
    await relays.send("a", 1)
    leased = await relays.lease(lease_us=OVER)
    assert await relays.settle(leased, Delivered()) == [True]
    assert await relays.lease() == []


@pytest.mark.parametrize("outcome", [Delivered(), LATER, Dead("410"), GivenBack()])
async def test_a_settlement_may_be_repeated(relays: Relays, outcome: Outcome) -> None:
    await relays.send("a", 1)
    leased = await relays.lease()
    assert await relays.settle(leased, outcome) == [True]
    assert await relays.settle(leased, outcome) == [True]
    (again,) = await relays.lease() or [leased[0]._replace(attempts=0)]
    assert again.attempts == 0


async def test_a_dead_message_makes_room_for_the_next_and_is_visible(relays: Relays) -> None:
    await relays.send("a", 1, count=2)
    assert await relays.relay(Dead("400 Bad Request")) == ["a/1/0"]
    (letter,) = await relays.store.dead_letters()
    assert (letter.message, letter.attempts, letter.reason) == (message("a", 1), 1, "400 Bad Request")
    assert letter.died_at_us > 5
    assert await relays.relay(Delivered()) == ["a/1/1"]
    assert await relays.lease() == []


async def test_dead_letters_come_latest_first_and_no_more_than_asked_for(relays: Relays) -> None:
    for number in range(3):
        await relays.send(f"i{number}", 1)
        await relays.relay(Dead("400"))
    assert [letter.message.instance_id for letter in await relays.store.dead_letters(limit=2)] == ["i2", "i1"]


async def test_a_requeued_message_begins_anew(relays: Relays) -> None:
    await relays.send("a", 1)
    await relays.relay(Again(0, "503"))
    await relays.relay(Dead("400"))
    assert await relays.store.requeue("a/1/0") is True
    assert await relays.store.dead_letters() == ()
    (leased,) = await relays.lease()
    assert (leased.message.id, leased.attempts) == ("a/1/0", 0)


async def test_only_dead_letters_can_be_requeued(relays: Relays) -> None:
    await relays.send("a", 1)
    assert await relays.store.requeue("a/1/0") is False
    await relays.relay(Delivered())
    assert await relays.store.requeue("a/1/0") is False
    assert await relays.store.requeue("nobody") is False
    assert await relays.lease() == []


async def test_a_settlement_from_before_the_requeue_changes_nothing(relays: Relays) -> None:
    await relays.send("a", 1)
    leased = await relays.lease()
    await relays.settle(leased, Dead("400"))
    await relays.store.requeue("a/1/0")
    assert await relays.settle(leased, Dead("400")) == [False]
    assert ids(await relays.lease()) == ["a/1/0"]


async def test_one_claim_settles_what_it_holds_and_is_refused_the_rest(relays: Relays) -> None:
    await relays.send("a", 1)
    lost = await relays.lease(lease_us=OVER)
    await relays.lease("r2")
    await relays.send("b", 1)
    held = await relays.lease()
    assert await relays.settle([*lost, *held], Delivered()) == [False, True]


async def test_a_claim_takes_no_more_than_its_limit_and_says_that_there_is_more(relays: Relays) -> None:
    for number in range(5):
        await relays.send(f"i{number}", 1)
    first = await relays.claims(limit=3)
    assert (len(first.leased), first.more) == (3, True)
    rest = await relays.claims(limit=3)
    assert (len(rest.leased), rest.more) == (2, False)


async def test_delivered_messages_are_purged_when_they_are_old_enough_and_no_others(relays: Relays) -> None:
    for name in ("delivered", "dead", "pending"):
        await relays.send(name, 1)
    leased = await relays.lease()
    for each in leased:
        outcome = {"delivered": Delivered(), "dead": Dead("400"), "pending": LATER}[each.message.instance_id]
        await relays.settle([each], outcome)
    assert await relays.store.purge_outbox(age_us=LEASE) == 0
    await asyncio.sleep(0.002)  # the clock has to go on
    assert await relays.store.purge_outbox(age_us=0) == 1
    assert await relays.store.purge_outbox(age_us=0) == 0
    assert len(await relays.store.dead_letters()) == 1
    assert await relays.settle([each for each in leased if each.message.instance_id == "delivered"], LATER) == [False]


async def test_a_purge_goes_in_steps(relays: Relays) -> None:
    for number in range(5):
        await relays.send(f"i{number}", 1)
    await relays.relay(Delivered())
    await asyncio.sleep(0.002)
    assert [await relays.store.purge_outbox(age_us=0, limit=2) for _ in range(4)] == [2, 2, 1, 0]


# -- relayers whose worker is dead -------------------------------------------------------------------------------------


async def _leased_by_a_worker(relays: Relays, *names: str) -> list[LeasedMessage]:
    """Two messages of each; the first of each is leased by the second worker."""
    await relays.worker(W2)
    for name in names:
        await relays.send(name, 1, count=2)
    return await relays.lease(W2)


async def test_what_the_relayer_of_a_dead_worker_leased_is_due_at_once_and_in_order(relays: Relays) -> None:
    await _leased_by_a_worker(relays, "a", "b")
    assert await relays.lease() == []
    await relays.leave(W2)
    assert await relays.store.reap(W2) is not None
    assert [await relays.relay(Delivered()) for _ in range(3)] == [["a/1/0", "b/1/0"], ["a/1/1", "b/1/1"], []]


async def test_a_worker_that_retires_gives_back_what_its_relayer_could_not(relays: Relays) -> None:
    await _leased_by_a_worker(relays, "a")
    await relays.store.retire(W2)
    assert await relays.relay(Delivered()) == ["a/1/0"]


async def test_leases_of_others_and_back_offs_outlive_a_dead_worker(relays: Relays) -> None:
    (late, *_) = await _leased_by_a_worker(relays, "a")
    await relays.settle([late], LATER)
    await relays.send("b", 1)
    assert ids(await relays.lease("nobody's")) == ["b/1/0"]
    await relays.leave(W2)
    assert await relays.store.reap(W2) is not None
    assert await relays.lease() == []


async def test_a_worker_that_is_alive_keeps_its_leases(relays: Relays) -> None:
    await _leased_by_a_worker(relays, "a")
    assert await relays.store.reap(W2) is None
    assert await relays.lease() == []


@pytest.mark.parametrize("outcome", [Delivered(), Dead("410"), LATER, GivenBack()])
async def test_a_relayer_that_goes_on_after_its_worker_died_settles_nothing_that_others_have(
    relays: Relays, outcome: Outcome
) -> None:
    leased = await _leased_by_a_worker(relays, "a")
    await relays.leave(W2)
    await relays.store.reap(W2)
    taken = await relays.lease()
    assert ids(taken) == ["a/1/0"]
    assert await relays.settle(leased, outcome) == [False]
    assert await relays.lease() == [], "it is leased still, and what is behind it waits"
    assert await relays.settle(taken, Delivered()) == [True]
    assert await relays.relay(Delivered()) == ["a/1/1"]


async def test_what_nobody_took_over_from_a_dead_worker_may_still_be_settled_by_it(relays: Relays) -> None:
    leased = await _leased_by_a_worker(relays, "a")
    await relays.leave(W2)
    await relays.store.reap(W2)
    assert await relays.settle(leased, Delivered()) == [True]
    assert await relays.relay(Delivered()) == ["a/1/1"]


@pytest.mark.parametrize("kind", SERVERS)
async def test_what_is_locked_when_a_worker_is_declared_dead_does_not_hold_that_up(
    kind: str, urls: dict[str, str]
) -> None:
    """The relayer was stopped in the middle of a settlement: its instances go on all the same."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stop(verb: str, statement: object) -> None:
        if verb == "settle_outbox" and statement == "COMMIT":
            reached.set()
            await go_on.wait()

    url = url_of(urls, kind)
    async with opened(url) as one, opened(url) as two:
        slow, quick = Relays(one), Relays(two)
        await slow.worker(W1)
        leased = await _leased_by_a_worker(slow, "a", "b")
        one.on_statement = stop
        settling = asyncio.create_task(slow.settle(leased[:1], Delivered()))
        await reached.wait()
        await slow.leave(W2)
        assert await asyncio.wait_for(quick.store.reap(W2), 30) is not None
        assert await quick.relay(Delivered()) == ["b/1/0"]
        go_on.set()
        assert await settling == [True]
        assert await quick.relay(Delivered()) == ["a/1/1", "b/1/1"]
        await slow.close()


# -- large messages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [{"data": '"' + "ä" * 499 + '"'}, {"data": None, "blob": b"x" * 1000}], ids=["json", "bytes"]
)
async def test_a_claim_takes_no_more_once_it_has_enough_bytes(relays: Relays, content: dict[str, Any]) -> None:
    for number in range(5):
        await relays.send(f"i{number}", 1, **content)
    for expected in (["i0/1/0", "i1/1/0"], ["i2/1/0", "i3/1/0"]):
        claims = await relays.claims(bytes_max=1001)
        assert (sorted(ids(claims.leased)), claims.more) == (expected, True)
    assert ids((await relays.claims(bytes_max=1)).leased) == ["i4/1/0"], "one is taken however large it is"
    assert not (await relays.claims(bytes_max=1001)).more


# -- many messages -----------------------------------------------------------------------------------------------------


async def _fill(relays: Relays, name: str, count: int) -> None:
    for start in range(1, count + 1, 500):
        seqs = range(start, min(start + 500, count + 1))
        await relays.write(commit(name, *seqs, outbox=tuple(message(name, seq) for seq in seqs)))


async def _until_no_more(relays: Relays) -> list[LeasedMessage]:
    found: list[LeasedMessage] = []
    for _ in range(50):
        claims = await relays.claims()
        found += claims.leased
        if not claims.more:
            return found
    raise AssertionError("a claim says without end that there is more")


async def test_an_instance_with_many_messages_does_not_hide_the_others(relays: Relays) -> None:
    await _fill(relays, "a", 700)
    for number in range(3):
        await relays.send(f"z{number}", 1)
    assert sorted(ids(await _until_no_more(relays))) == ["a/1/0", "z0/1/0", "z1/1/0", "z2/1/0"]


async def test_many_messages_behind_one_in_back_off_do_not_hide_the_others_and_come_in_order(relays: Relays) -> None:
    await _fill(relays, "a", 700)
    first = await relays.lease()
    await relays.settle(first, LATER)
    await relays.send("z", 1)
    others = await _until_no_more(relays)
    assert ids(others) == ["z/1/0"]
    await relays.settle(others, Delivered())
    claims = await relays.claims()
    assert (claims.leased, claims.more) == ((), False), "what is behind the head is not looked at again and again"
    await relays.let_time_pass()
    assert await relays.relay(Delivered()) == ["a/1/0"]
    delivered = [(await relays.relay(Delivered()))[0] for _ in range(250)]
    assert delivered == [f"a/{seq}/0" for seq in range(2, 252)]


async def test_the_next_message_is_due_although_it_was_deferred_to_the_end_of_a_lease(relays: Relays) -> None:
    await _fill(relays, "a", OUTBOX_LIMIT_MAX * 3)
    head = await relays.lease()
    assert await _until_no_more(relays) == []
    await relays.settle(head, Dead("400"))
    assert ids(await relays.lease("r2")) == ["a/2/0"]


# -- two relayers at a time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("page", [outbox.PAGE_MAX, 4], ids=["large pages", "small pages"])
async def test_relayers_that_claim_at_once_never_get_the_same_instance_and_forget_nothing(
    kind: str, page: int, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small pages nearly all is deferred to the ends of leases, an hour away, and has to be made due again."""
    monkeypatch.setattr(outbox, "PAGE_MAX", page)
    url = url_of(urls, kind)
    async with opened(url) as one, opened(url) as two, opened(url) as three:
        relays = [Relays(store) for store in (one, two, three)]
        await relays[0].worker(W1)
        names = [iid(f"i{number:02}") for number in range(30)]
        for name in names:
            await relays[0].send(name, 1, count=5)
        order: dict[InstanceId, list[str]] = {name: [] for name in names}
        random = Random(page)

        async def work(mine: Relays) -> None:
            while sum(map(len, order.values())) < 150:
                leased = await mine.lease(limit=7)
                random.shuffle(leased)
                for each in leased:
                    await asyncio.sleep(random.choice([0, 0, 0.001]))
                    outcome = random.choice([Delivered(), Delivered(), Again(0, "503")])
                    if isinstance(outcome, Delivered):
                        order[each.message.instance_id].append(each.message.id)
                    assert await mine.settle([each], outcome) == [True]

        async with asyncio.timeout(60):
            await asyncio.gather(*(work(each) for each in relays))
        assert order == {name: [f"{name}/1/{ordinal}" for ordinal in range(5)] for name in names}
        await relays[0].close()


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("place", range(8))
async def test_a_claim_that_stalls_anywhere_neither_stops_others_nor_takes_what_they_took(
    kind: str, place: int, urls: dict[str, str]
) -> None:
    url = url_of(urls, kind)
    reached, go_on, passed = asyncio.Event(), asyncio.Event(), 0

    async def stop(verb: str, _: object) -> None:
        nonlocal passed
        if verb == "claim_outbox":
            if passed == place:
                reached.set()
                await go_on.wait()
            passed += 1

    async with opened(url) as one, opened(url) as two:
        slow, quick = Relays(one), Relays(two)
        await slow.worker(W1)
        for name in "abc":
            await slow.send(name, 1, count=3)
        one.on_statement = stop
        stalled = asyncio.create_task(slow.lease(limit=2))
        done, _ = await asyncio.wait({stalled, asyncio.create_task(reached.wait())}, return_when="FIRST_COMPLETED")
        taken = await quick.lease("r2")
        mine = await quick.settle(taken, Delivered()) if taken else []
        go_on.set()
        held = await stalled
        assert all(mine)
        assert not {*ids(held)} & {*ids(taken)}
        assert all(each.message.ordinal == 0 for each in taken)
        assert stalled not in done or place == 7
        await slow.close()


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_claim_whose_answer_was_lost_is_found_again(kind: str, urls: dict[str, str]) -> None:
    async with opened(url_of(urls, kind)) as store:
        relays = Relays(store)
        await relays.worker(W1)
        await relays.send("a", 1)
        run, lost = store.database.run, 0

        async def lossy(name: str, *args: Any, **options: Any) -> Any:
            nonlocal lost
            answer = await run(name, *args, **options)
            if name == "claim_outbox":
                lost += 1
                raise UnknownOutcome("the answer was lost")
            return answer

        store.database.run = lossy  # type: ignore[method-assign]
        leased = await relays.lease()
        store.database.run = run  # type: ignore[method-assign]
        assert (ids(leased), lost) == (["a/1/0"], 1)
        assert await relays.settle(leased, Delivered()) == [True]
        await relays.close()


async def test_the_relayer_that_has_a_lease_stands_in_its_row(sql_store: SqlStore) -> None:
    relays = Relays(sql_store)
    await relays.worker(W1)
    await relays.send("a", 1)
    leased = await relays.lease("here-1")
    assert await select(sql_store, "select relayer, status from edda_outbox") == [("here-1", "pending")]
    await relays.settle(leased, Again(LEASE, "503 Service Unavailable"))
    assert await select(sql_store, "select relayer, reason from edda_outbox") == [(None, "503 Service Unavailable")]
    await relays.close()


def test_the_model_needs_no_worker_to_relay() -> None:
    assert asyncio.run(MemoryStore().claim_outbox("r1", limit=1, lease_us=1)).leased == ()
