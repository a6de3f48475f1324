"""The verbs of the outbox, and a situation for them.

What a claim and a purge leave out because the other one has it locked is allowed, as for `claim` (see `orders`). The
answer of a requeue is not compared: of two who requeue the same dead letter at once both may hear that it was there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from edda.core.commit import OutboxMessage, Undo
from edda.storage.memory import MemoryStore
from edda.storage.memory_outbox import Relay
from edda.storage.outbox import (
    DEAD,
    DELIVERED,
    Again,
    Dead,
    Delivered,
    GivenBack,
    LeasedMessage,
    Outcome,
    Settlement,
)
from tests.storage.support import FAR, LEASE_US, LONG_AGO, W1, W2, World, commit, iid, message
from tests.storage.verb_pairs.situations import (
    ANY_ORDER,
    COMPLETED,
    MAIL_SITUATIONS,
    MAIL_VERBS,
    OLD_US,
    ORDER_X,
    PARK,
    STORED,
    Act,
    Actor,
    Situation,
    _lapse,
    _start,
    _two_workers,
    accept,
    cancel,
    claim,
    create,
    deliver,
    expire,
    finish,
    learn,
    look,
    paid,
    park,
    reap,
    release,
    renew,
    retry,
    route,
    settle,
    start,
    step,
    undo,
    waiting_for,
)

YEAR_US: Final = 365 * 86_400_000_000
B_CLAIM, C_CLAIM, D_CLAIM, OLD_CLAIM = 101, 102, 103, 99
LATER: Final = Again(LEASE_US, "503")


def _row(name: str) -> str:
    """Stands for the rows of the outbox that belong to an instance."""
    return f"outbox of {name}"


def _rows(model: MemoryStore) -> frozenset[str]:
    return frozenset(_row(each.instance_id) for each in model.outbox)


def lease(relayer: str, *, limit: int = 10) -> Act:
    async def do(actor: Actor) -> list[Any]:
        claims = await actor.store.claim_outbox(relayer, limit=limit, lease_us=LEASE_US)
        return sorted((each.message.id, each.attempts) for each in claims.leased)

    return Act(verb="lease", title=f"{relayer} leases {limit}", do=do, touches=_rows)


def settled(verb: str, outcome: Outcome, *some: tuple[OutboxMessage, int]) -> Act:
    """Messages, each with the claim under which it is settled."""
    settlements = [Settlement(LeasedMessage(each, 0, claim_key), outcome) for each, claim_key in some]

    async def do(actor: Actor) -> list[bool]:
        return list(await actor.store.settle_outbox(settlements))

    return Act(
        verb=verb,
        title=f"{verb} {', '.join(f'{each.id} of {claim_key}' for each, claim_key in some)}",
        do=do,
        touches=lambda model: frozenset(_row(each.instance_id) for each, _ in some),
    )


def enqueue(*messages: OutboxMessage) -> Act:
    return Act(
        verb="enqueue",
        title=f"enqueue {', '.join(each.id for each in messages)}",
        do=lambda actor: actor.store.enqueue(messages),
        touches=lambda model: frozenset(_row(each.instance_id) for each in messages),
    )


def requeue(name: OutboxMessage) -> Act:
    async def do(actor: Actor) -> None:
        await actor.store.requeue(name.id)

    return Act(
        verb="requeue", title=f"requeue {name.id}", do=do, touches=lambda model: frozenset({_row(name.instance_id)})
    )


def purge() -> Act:
    """What was delivered more than a year ago. Two who do so at once share it, so how much it was is not compared."""

    async def do(actor: Actor) -> None:
        await actor.store.purge_outbox(age_us=YEAR_US)

    return Act(verb="purge", title="purge", do=do, touches=_rows)


def ending(act: Act) -> Act:
    """The death of a worker, and with it that of its leases."""
    return replace(act, touches=lambda model: act.touches(model) | {_row("b")})


A0, A1 = message("a", 1, 0, at_us=11), message("a", 1, 1, at_us=12)
B0, B1 = message("b", 1, 0, at_us=13), message("b", 1, 1, at_us=14)
C0, C1 = message("c", 1, 0, at_us=15), message("c", 1, 1, at_us=16)
D0, D1, D2 = (message("d", 1, ordinal, at_us=17 + ordinal) for ordinal in range(3))


async def _posted(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "a", "b", "c", "d")
    await _start(world, W2, "w", parent_id=iid("a"))
    await world.write(
        commit("a", 1, outbox=(A0, A1), waits=(waiting_for("any", ANY_ORDER),)),
        commit("b", 1, outbox=(B0, B1)),
        commit("c", 1, outbox=(C0, C1)),
        commit("d", 1, outbox=(D0, D1, D2)),
    )
    await world.store.accept([STORED])
    _lapse(world, W1)
    relays = {
        B0: Relay(FAR, claim_key=B_CLAIM, leased=True, relayer=W1, attempts=1),
        C0: Relay(LONG_AGO, claim_key=C_CLAIM, leased=True),
        D0: Relay(2, status=DEAD, claim_key=D_CLAIM, attempts=2, reason="400"),
        D1: Relay(LONG_AGO, status=DELIVERED, claim_key=D_CLAIM, attempts=1),
    }
    for each, relay in relays.items():
        world.store.relays[each.instance_id, each.seq, each.ordinal] = relay


POSTED_OUT: Final = Situation(
    name="outbox",
    about="W1, whose lease is over, runs `a`, `b`, `c`, `d`, each with messages: of `a` none is leased, of `b` one is, "
    "for W1, of `c` one was and its lease is over; of `d` one is dead, one was delivered long ago, one is due",
    mail=True,
    arrange=_posted,
    only=frozenset({"lease", "enqueue", "delivered", "later", "dead", "give back", "requeue", "purge"}),
    acts=(
        create("n"),
        start(W2, "n"),
        claim(W2),
        step(W1, commit("a", 2, outbox=(message("a", 2, at_us=21),))),
        park(W1, commit("b", 2, row=PARK, outbox=(message("b", 2, at_us=21),))),
        undo(W1, commit("a", 2, row=Undo(for_cancel=False), no_waits_left=True)),
        finish(W1, commit("c", 2, row=COMPLETED, outbox=(message("c", 2, at_us=21),), no_waits_left=True)),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("a"),), outbox=(message("w", 1, at_us=21),))),
        cancel("a"),
        retry("a"),
        renew(W1),
        ending(reap(W1)),
        ending(release(W1)),
        settle(W1, commit("a", 2)),
        accept(paid("new", "y")),
        route(STORED),
        look("a", ANY_ORDER),
        learn(ORDER_X.fields, since_us=OLD_US),
        expire(),
        lease("r1"),
        lease(W1, limit=1),
        settled("delivered", Delivered(), (B0, B_CLAIM)),
        settled("delivered", Delivered(), (C0, C_CLAIM), (B0, OLD_CLAIM)),
        settled("delivered", Delivered(), (C0, C_CLAIM), (B0, B_CLAIM)),
        settled("later", LATER, (B0, B_CLAIM), (C0, C_CLAIM)),
        settled("later", LATER, (D0, D_CLAIM), (C0, OLD_CLAIM)),
        settled("dead", Dead("410"), (C0, C_CLAIM)),
        settled("dead", Dead("410"), (B0, B_CLAIM), (D1, D_CLAIM)),
        settled("give back", GivenBack(), (C0, C_CLAIM)),
        settled("give back", GivenBack(), (B0, B_CLAIM)),
        enqueue(message("e", 1, at_us=22), message("f", 1, at_us=23)),
        enqueue(message("f", 1, at_us=23), A0, message("e", 1, at_us=22)),
        requeue(D0),
        requeue(A0),
        purge(),
    ),
)

OUTBOX_SITUATIONS: Final = (*MAIL_SITUATIONS, POSTED_OUT)
OUTBOX_VERBS: Final = (*MAIL_VERBS, "lease", "delivered", "later", "dead", "give back", "enqueue", "requeue", "purge")
