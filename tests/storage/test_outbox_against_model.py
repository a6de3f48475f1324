"""Random histories of the outbox verbs, done to a store and to the model: the same messages are due, dead, delivered.

Pages are made so small that messages are deferred all the time, which the model knows nothing of.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from edda.core.history import WorkerId
from edda.storage.memory import MemoryStore
from edda.storage.outbox import Again, Dead, Delivered, GivenBack, LeasedMessage, Settlement
from edda.storage.sql import outbox
from tests.storage.conftest import KINDS, opened, url_of
from tests.storage.support import W1, iid, wipe
from tests.storage.test_outbox import LATER, LEASE, OVER, Relays

EXAMPLES = {"sqlite": 5, "sqlite_memory": 30, "postgresql": 8, "mysql": 5}
PAGE = 4
outcomes = st.sampled_from([Delivered(), Delivered(), Delivered(), Again(0, "503"), LATER, Dead("400"), GivenBack()])


class Both(RuleBasedStateMachine):
    """`real` and `runner` are set by the test."""

    real: Any
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.ticks = 1_000_000
        self.model = Relays(MemoryStore(now_us=self.tick))
        self.store = Relays(self.real)
        self.leases: list[dict[str, tuple[LeasedMessage, LeasedMessage]]] = []
        """Of each round of claims: by id, what the model and the store gave."""
        self.seqs = dict.fromkeys("abc", 0)
        self.workers = 0

    def tick(self) -> int:
        self.ticks += 10
        return self.ticks

    def run(self, work: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await work

        return self.runner.run(run())

    @initialize()
    def begin(self) -> None:
        self.run(wipe(self.real))
        for world in (self.model, self.store):
            self.run(world.worker(W1))

    @rule(name=st.sampled_from("abc"), rows=st.integers(1, 4), ordinals=st.integers(1, 3))
    def send(self, name: str, rows: int, ordinals: int) -> None:
        for _ in range(rows):
            self.seqs[name] += 1
            for world in (self.model, self.store):
                self.run(world.send(name, self.seqs[name], ordinals))

    @rule(lease_us=st.sampled_from([LEASE, LEASE, OVER]))
    def claim(self, lease_us: int, relayer: str = "r1") -> None:
        """Until there is no more; a lease that is over at once would be claimed again, so that is asked for once."""
        found: list[dict[str, LeasedMessage]] = []
        for world in (self.model, self.store):
            leased: dict[str, LeasedMessage] = {}
            more = True
            while more:
                claims = self.run(world.claims(relayer, lease_us=LEASE))
                leased |= {each.message.id: each for each in claims.leased}
                more = claims.more
            found.append(leased)
        model, store = found
        assert store.keys() == model.keys()
        assert {name: each[:2] for name, each in store.items()} == {name: each[:2] for name, each in model.items()}
        self.leases.append({name: (model[name], store[name]) for name in model})
        if lease_us == OVER:
            self.let_time_pass()

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 3), outcome=outcomes, some=st.integers(1, 3))
    def settle(self, which: int, outcome: Any, some: int) -> None:
        """Also what was settled before, and what somebody else has by now."""
        chosen = list(self.leases[-1 - which % len(self.leases)].values())[:some]
        if not chosen:
            return
        answers = [
            self.run(world.store.settle_outbox([Settlement(pair[place], outcome) for pair in chosen]))
            for place, world in enumerate((self.model, self.store))
        ]
        assert answers[0] == answers[1]

    @rule()
    def let_time_pass(self) -> None:
        for world in (self.model, self.store):
            self.run(world.let_time_pass())

    @rule(lease_us=st.just(LEASE))
    def die(self, lease_us: int) -> None:
        """The worker of a relayer that has just claimed."""
        self.workers += 1
        name = WorkerId(f"w-{self.workers}")
        for world in (self.model, self.store):
            self.run(world.worker(name))
        self.claim(lease_us, name)
        for world in (self.model, self.store):
            self.run(world.leave(name))
            assert self.run(world.store.reap(name)) is not None

    @rule()
    def requeue(self) -> None:
        dead = sorted(letter.message.id for letter in self.run(self.model.store.dead_letters()))
        assert sorted(letter.message.id for letter in self.run(self.store.store.dead_letters())) == dead
        for world in (self.model, self.store):
            assert self.run(world.store.requeue(dead[0] if dead else "nobody")) == bool(dead)

    @rule()
    def purge(self) -> None:
        answers = [self.run(world.store.purge_outbox(age_us=-LEASE)) for world in (self.model, self.store)]
        assert answers[0] == answers[1]

    def teardown(self) -> None:
        """In the end everything is delivered, in order."""
        try:
            for world in (self.model, self.store):
                self.run(world.let_time_pass())
            orders = [self.drain(world) for world in (self.model, self.store)]
            assert orders[0] == orders[1]
            left = self.run(self.store.claims())
            assert (left.leased, left.next_due_us) == ((), None)
        finally:
            for world in (self.model, self.store):
                self.run(world.close())

    def drain(self, world: Relays) -> dict[str, list[str]]:
        order: dict[str, list[str]] = {iid(name): [] for name in "abc"}
        idle = 0
        while idle < 3:
            claims = self.run(world.claims())
            idle = 0 if claims.leased or claims.more else idle + 1
            for each in claims.leased:
                order[each.message.instance_id].append(each.message.id)
                assert self.run(world.settle([each], Delivered())) == [True]
        return order


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_outbox_answers_like_the_model(kind: str, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAGE_MAX", PAGE)
    examples = EXAMPLES[kind] * int(os.environ.get("EDDA_EXAMPLES", "1"))
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        store = runner.run(stack.enter_async_context(opened(url_of(urls, kind))))

        class Machine(Both):
            pass

        Machine.real, Machine.runner = store, runner
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    print_blob=True,
                ),
            )
        finally:
            runner.run(stack.aclose())
