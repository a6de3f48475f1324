"""The relayer on the model: order, leases, back-off, bounds, and what is left when it stops or dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from edda.exceptions import DatabaseUnavailableError
from edda.outbox.relayer import REASON_CHARS_MAX, storable
from edda.outbox.sink import Delivered, Outgoing, Reject, Retry
from edda.storage.memory import MemoryStore
from edda.storage.port import UnknownOutcome
from tests.outbox.support import Bench, FakeSink


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_is_in_the_outbox_is_delivered_and_then_nothing_more(bench: Bench) -> None:
    bench.post("a", 1, 2, 3)
    sink = FakeSink()
    async with bench.relaying(sink):
        await bench.settled(lambda: bench.status("a", 3) == "delivered")
    assert sink.seen == ["a/1/0", "a/2/0", "a/3/0"]
    assert sink.closed


async def test_an_event_is_what_was_stored_and_the_same_each_time(bench: Bench) -> None:
    bench.post("a", 1, data='{"n": 1}', at_us=1_700_000_000_123_456)
    seen: list[Outgoing] = []

    def answer(event: Outgoing) -> Any:
        seen.append(event)
        return Retry("503") if len(seen) == 1 else Delivered()

    async with bench.relaying(FakeSink(answer)):
        await bench.settled(lambda: len(seen) == 1 and not bench.leased)
        bench.clock.go_on(10)
        await bench.settled(lambda: len(seen) == 2)
    first, second = seen
    assert first == second
    assert first.key == "a"
    event = first.event
    assert (event.id, event.source, event.type) == ("a/1/0", "/orders", "order.paid")
    assert (event.time, event.datacontenttype) == ("2023-11-14T22:13:20.123456Z", "application/json")
    assert (event.json, event.blob) == ('{"n": 1}', None)


async def test_a_hint_is_enough_and_the_poll_does_without(bench: Bench) -> None:
    sink = FakeSink()
    async with bench.relaying(sink) as relayer:
        bench.post("a", 1)
        relayer.hint()
        await sink.has_seen(1)
        bench.post("b", 1)
        assert await sink.has_seen(2) == ["a/1/0", "b/1/0"]


async def test_a_failing_instance_holds_up_itself_only_and_is_tried_for_ever(bench: Bench) -> None:
    bench.post("bad", 1, 2)
    sink = FakeSink(lambda each: Retry("503") if each.key == "bad" else Delivered())
    async with bench.relaying(sink):
        for number in range(30):
            bench.post(f"good{number}", 1)
            count = len(sink.seen)
            bench.clock.go_on(301)
            await sink.has_seen(count + 2)
            await bench.settled(lambda: not bench.leased)
    assert sink.seen.count("bad/1/0") == 30
    assert "bad/2/0" not in sink.seen
    assert bench.status("bad") == "pending"


async def test_what_is_refused_for_good_is_a_dead_letter_said_loudly_and_the_next_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.post("a", 1, 2)
    sink = FakeSink(lambda each: Reject("HTTP 400: no such thing") if each.event.id == "a/1/0" else Delivered())
    async with bench.relaying(sink):
        await bench.settled(lambda: bench.status("a", 2) == "delivered")
    (letter,) = await bench.store.dead_letters()
    assert (letter.message.id, letter.reason, letter.attempts) == ("a/1/0", "HTTP 400: no such thing", 1)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "a/1/0" in record.getMessage()


async def test_an_outage_is_one_line_a_minute_and_loses_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(50):
        bench.post(f"i{number}", 1, 2)
    down = True

    def answer(_: Outgoing) -> Any:
        if down:
            raise ConnectionRefusedError("nobody is there")
        return Delivered()

    sink = FakeSink(answer)
    async with bench.relaying(sink):
        await sink.has_seen(50)
        await bench.settled(lambda: not bench.leased)
        assert [record.levelname for record in caplog.records].count("WARNING") == 1
        down = False
        for _ in range(10):
            bench.clock.go_on(301)
            await asyncio.sleep(0.02)
        await bench.settled(lambda: all(bench.status(f"i{number}", 2) == "delivered" for number in range(50)))
    firsts = [each for each in dict.fromkeys(sink.seen[50:])]
    assert all(firsts.index(f"i{number}/1/0") < firsts.index(f"i{number}/2/0") for number in range(50))


async def test_retry_after_is_honoured(bench: Bench) -> None:
    bench.post("a", 1)
    sink = FakeSink(lambda _: Retry("429", after_seconds=100))
    async with bench.relaying(sink):
        await bench.settled(lambda: bool(sink.seen) and not bench.leased)
        bench.clock.go_on(99)
        await asyncio.sleep(0.03)  # several polls
        assert len(sink.seen) == 1
        bench.clock.go_on(12)
        await sink.has_seen(2)


async def test_no_answer_in_time_means_that_it_is_tried_again(bench: Bench) -> None:
    bench.post("a", 1)
    sink = FakeSink(lambda _: asyncio.sleep(60))
    async with bench.relaying(sink, lease_seconds=0.03):
        await bench.settled(lambda: bool(sink.seen) and not bench.leased)
        assert bench.store.relays[("a", 1, 0)].reason == "no answer within 0.02 seconds"  # type: ignore[index]


async def test_a_sink_that_answers_too_little_has_not_delivered_the_rest(bench: Bench) -> None:
    class Short(FakeSink):
        async def publish(self, events: Sequence[Outgoing]) -> Any:
            return (await super().publish(events))[:1]

    for name in "abc":
        bench.post(name, 1)
    sink = Short(batch_max=3)
    async with bench.relaying(sink):
        await bench.settled(lambda: bool(sink.seen) and not bench.leased)
    assert sorted(map(bench.status, "abc")) == ["delivered", "pending", "pending"]


_no_text: Any = None


@pytest.mark.parametrize("answer", [None, 5, [Retry(reason=_no_text)]])
async def test_a_sink_that_answers_nonsense_is_asked_again_and_nothing_is_held_for_ever(
    bench: Bench, answer: Any
) -> None:
    class Forgetful(FakeSink):
        async def publish(self, events: Sequence[Outgoing]) -> Any:
            answers = await super().publish(events)
            return answer if len(self.seen) == 1 else answers

    bench.post("a", 1)
    sink = Forgetful()
    async with bench.relaying(sink):
        await bench.settled(lambda: len(sink.seen) == 1 and not bench.leased)
        bench.clock.go_on(10)
        await bench.settled(lambda: bench.status("a") == "delivered")


async def test_an_answer_that_is_none_is_no_delivery(bench: Bench) -> None:
    bench.post("a", 1)
    sink = FakeSink(lambda _: True)
    async with bench.relaying(sink):
        await bench.settled(lambda: bool(sink.seen) and not bench.leased)
    assert bench.status("a") == "pending"


async def test_calls_and_batches_and_what_is_held_are_bounded(bench: Bench) -> None:
    for number in range(100):
        bench.post(f"i{number}", 1)
    gate = asyncio.Event()

    async def answer(_: Outgoing) -> Any:
        await gate.wait()
        return Delivered()

    sink = FakeSink(answer, batch_max=3, calls_max=2)
    async with bench.relaying(sink):
        await sink.has_seen(2)
        await asyncio.sleep(0.03)  # several polls
        assert len(bench.leased) == 2 * 3 * 2
        gate.set()
        await bench.settled(lambda: all(bench.status(f"i{number}") == "delivered" for number in range(100)))
    assert sink.most_under_way == 2
    assert max(map(len, sink.batches)) == 3


async def test_one_call_never_holds_two_events_of_an_instance(bench: Bench) -> None:
    for number in range(5):
        bench.post(f"i{number}", 1, 2, 3)
    sink = FakeSink(batch_max=10)
    async with bench.relaying(sink):
        await bench.settled(lambda: all(bench.status(f"i{number}", 3) == "delivered" for number in range(5)))
    assert all(len({each.split("/")[0] for each in batch}) == len(batch) for batch in sink.batches)


async def test_stopping_finishes_what_is_under_way_and_gives_back_the_rest(bench: Bench) -> None:
    for number in range(4):
        bench.post(f"i{number}", 1, 2)
    gate = asyncio.Event()

    async def answer(_: Outgoing) -> Any:
        await gate.wait()
        return Delivered()

    sink = FakeSink(answer, calls_max=2)
    relayer = bench.relayer(sink)
    relayer.begin()
    await sink.has_seen(2)
    stopping = asyncio.create_task(relayer.stop(grace_seconds=5))
    await asyncio.sleep(0)
    gate.set()
    await stopping
    assert len(sink.seen) == 2
    assert [bench.status(f"i{number}") for number in range(4)].count("delivered") == 2
    assert bench.leased == []
    assert len((await bench.store.claim_outbox("other", limit=10, lease_us=1)).leased) == 4, "due at once for others"


async def test_stopping_does_not_wait_for_ever_and_what_did_not_end_is_due_at_once(bench: Bench) -> None:
    bench.post("a", 1)
    sink = FakeSink(lambda _: asyncio.sleep(3600))
    relayer = bench.relayer(sink)
    relayer.begin()
    await sink.has_seen(1)
    await relayer.stop(grace_seconds=0.01)
    (again,) = (await bench.store.claim_outbox("other", limit=10, lease_us=1)).leased
    assert again.attempts == 0
    assert sink.closed


async def test_a_relayer_that_stops_while_it_claims_gives_back_what_it_gets(bench: Bench) -> None:
    class Slow:
        def __init__(self, store: MemoryStore) -> None:
            self.store, self.asked, self.go_on = store, asyncio.Event(), asyncio.Event()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def claim_outbox(self, *args: Any, **options: Any) -> Any:
            claims = await self.store.claim_outbox(*args, **options)
            self.asked.set()
            await self.go_on.wait()
            return claims

    bench.post("a", 1)
    slow, sink = Slow(bench.store), FakeSink()
    relayer = bench.relayer(sink, store=slow)
    relayer.begin()
    await slow.asked.wait()
    stopping = asyncio.create_task(relayer.stop(grace_seconds=5))
    await asyncio.sleep(0)
    slow.go_on.set()
    await stopping
    assert (sink.seen, bench.leased) == ([], [])


async def test_when_a_relayer_dies_another_delivers_after_the_lease(bench: Bench) -> None:
    bench.post("a", 1, 2)
    await bench.store.claim_outbox("dead", limit=10, lease_us=60_000_000)
    sink = FakeSink()
    async with bench.relaying(sink):
        await asyncio.sleep(0.03)  # several polls
        assert sink.seen == []
        bench.clock.go_on(61)
        assert await sink.has_seen(2) == ["a/1/0", "a/2/0"]


async def test_what_was_leased_for_a_worker_that_is_dead_since_is_not_published_but_given_back(bench: Bench) -> None:
    for name in "ab":
        bench.post(name, 1)
    gate = asyncio.Event()

    async def answer(_: Outgoing) -> Any:
        await gate.wait()
        return Delivered()

    first, second = FakeSink(answer, calls_max=1), FakeSink()
    async with bench.relaying(first):
        await first.has_seen(1)
        assert len(bench.leased) == 2
        bench.store.end_leases("r")
        bench.name = "successor"
        async with bench.relaying(second):
            await second.has_seen(2)  # what was under way is sent twice, and what was not is sent by one of them
            gate.set()
            await bench.settled(lambda: first.under_way == 0 and bench.status("b") == "delivered")
    assert len(first.seen) == 1
    assert [bench.status(name) for name in "ab"] == ["delivered", "delivered"]


async def test_no_more_is_held_in_memory_than_the_bound_and_one_message(bench: Bench) -> None:
    for name in "abcde":
        bench.post(name, 1, data=None, blob=b"x" * 600)
    most = 0

    async def answer(_: Outgoing) -> Any:
        nonlocal most
        most = max(most, len(bench.leased))
        await asyncio.sleep(0)
        return Delivered()

    sink = FakeSink(answer)
    async with bench.relaying(sink, held_bytes_max=1000):
        await sink.has_seen(5)
        await bench.settled(lambda: all(bench.status(name) == "delivered" for name in "abcde"))
    assert (sorted(sink.seen), most) == ([f"{name}/1/0" for name in "abcde"], 2)


async def test_what_was_leased_long_ago_is_not_published_but_given_back(bench: Bench) -> None:
    for name in "ab":
        bench.post(name, 1)
    gate = asyncio.Event()

    async def answer(_: Outgoing) -> Any:
        await gate.wait()
        return Delivered()

    sink = FakeSink(answer, calls_max=1)
    async with bench.relaying(sink):
        await sink.has_seen(1)
        bench.clock.go_on(3600)  # the machine slept
        taken = (await bench.store.claim_outbox("other", limit=10, lease_us=3_600_000_000)).leased
        assert len(taken) == 2
        gate.set()
        await bench.settled(lambda: sink.under_way == 0)
        await asyncio.sleep(0.03)  # several polls
        assert len(sink.seen) == 1


@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), UnknownOutcome("no answer")])
@pytest.mark.parametrize("verb", ["claim_outbox", "settle_outbox", "purge_outbox"])
async def test_a_database_that_is_away_for_a_while_stops_nothing(bench: Bench, verb: str, error: Exception) -> None:
    class Flaky:
        failures = 2

        def __getattr__(self, name: str) -> Any:
            work = getattr(bench.store, name)

            async def verb_(*args: Any, **options: Any) -> Any:
                if name == verb and self.failures:
                    self.failures -= 1
                    raise error
                return await work(*args, **options)

            return verb_

    bench.post("a", 1, 2)
    sink = FakeSink()
    async with bench.relaying(sink, store=Flaky()):
        await bench.settled(lambda: bench.status("a", 2) == "delivered")
    assert sink.seen == ["a/1/0", "a/2/0"]


async def test_three_relayers_that_die_and_come_back_keep_the_order_of_each_instance(bench: Bench) -> None:
    for number in range(20):
        bench.post(f"i{number}", *range(1, 6))
    seen: list[str] = []
    random = Random(1)

    async def answer(each: Outgoing) -> Any:
        seen.append(each.event.id)
        await asyncio.sleep(0)
        return Retry("503") if random.random() < 0.3 else Delivered()

    for _ in range(300):
        relayers = [bench.relayer(FakeSink(answer)) for _ in range(3)]
        for relayer in relayers:
            relayer.begin()
        await asyncio.sleep(0.01)
        for relayer in relayers:  # a crash: nothing is given back
            for task in [*relayer._loops, *relayer._calls]:
                task.cancel()
            await asyncio.wait([*relayer._loops, *relayer._calls])
        bench.clock.go_on(400)
        if all(relay.status == "delivered" for relay in bench.store.relays.values()) and len(bench.store.relays) == 100:
            break
    firsts = list(dict.fromkeys(seen))
    assert len(firsts) == 100
    for number in range(20):
        assert [each for each in firsts if each.startswith(f"i{number}/")] == [f"i{number}/{n}/0" for n in range(1, 6)]


async def test_old_deliveries_are_purged(bench: Bench) -> None:
    bench.post("a", 1)
    async with bench.relaying(FakeSink(), retention_seconds=5.0):
        await bench.settled(lambda: bench.status("a") == "delivered")
        bench.clock.go_on(6)
        await bench.settled(lambda: not bench.store.outbox)


def test_a_reason_is_short_printable_and_storable() -> None:
    assert storable("a\x00b\r\n\x1b[31m\ud800") == "a b   [31m "
    assert len(storable("x" * 10_000)) == REASON_CHARS_MAX
