"""The verb that forgets instances, a situation for it, and with it all verbs and all situations.

What two who forget at once take from each other is chance, so how much it was is not compared.
"""

from __future__ import annotations

from typing import Final

from edda.core.commit import Undo
from edda.core.lifecycle import Status
from edda.storage.memory import MemoryStore
from edda.storage.memory_outbox import Relay
from edda.storage.outbox import DEAD, DELIVERED, Dead, Delivered, GivenBack
from edda.storage.retention import OVER
from tests.storage.support import LONG_AGO, W1, W2, World, commit, iid, message
from tests.storage.verb_pairs.outbox import (
    D_CLAIM,
    LATER,
    OUTBOX_SITUATIONS,
    OUTBOX_VERBS,
    YEAR_US,
    enqueue,
    lease,
    purge,
    requeue,
    settled,
)
from tests.storage.verb_pairs.situations import (
    ANY_ORDER,
    COMPLETED,
    MAILBOX,
    OLD_US,
    ORDER_X,
    PARK,
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

OLD_AGE_US: Final = 10 * YEAR_US
"""Between what ended long ago and what ends in the situation, on the clock of the model and on that of a database."""


def prune() -> Act:
    async def do(actor: Actor) -> None:
        await actor.store.prune(age_us=OLD_AGE_US)

    return Act(verb="prune", title="prune", do=do, touches=_over)


def _over(model: MemoryStore) -> frozenset[str]:
    """It locks these, with all that belongs to them; messages and events are rows of their own."""
    over = {name for name, row in model.rows.items() if row.status in OVER}
    return frozenset({*over, *(f"outbox of {name}" for name in over), MAILBOX})


A0, M0, D0 = message("a", 1), message("m", 1), message("d", 1)
FOR_A: Final = paid("for a", "x", target="a")


async def _ended(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "p", "a", "m", "d", "f")
    await _start(world, W2, "w", parent_id=iid("p"))
    await _start(world, W1, "b", parent_id=iid("a"))
    await _start(world, W1, "k", parent_id=iid("p"))
    await world.store.accept([FOR_A])
    await world.write(
        commit("p", 1, waits=(waiting_for("x", ORDER_X),)),
        *(commit(name, 1, row=COMPLETED, outbox=(each,)) for name, each in (("a", A0), ("m", M0), ("d", D0))),
        *(commit(name, 1, row=COMPLETED) for name in ("b", "k")),
        commit("f", 1, row=COMPLETED),
    )
    _lapse(world, W1)
    relays = {
        A0: Relay(LONG_AGO, status=DELIVERED, claim_key=D_CLAIM, attempts=1),
        M0: Relay(LONG_AGO, claim_key=D_CLAIM, leased=True),
        D0: Relay(LONG_AGO, status=DEAD, claim_key=D_CLAIM, attempts=2, reason="400"),
    }
    for each, relay in relays.items():
        world.store.relays[each.instance_id, each.seq, each.ordinal] = relay
    for name, row in list(world.store.rows.items()):
        if row.status is Status.COMPLETED:
            world.store.rows[name] = row._replace(created_at_us=LONG_AGO, ended_at_us=LONG_AGO, updated_at_us=LONG_AGO)


LONG_OVER: Final = Situation(
    name="long over",
    about="of what ended long ago, `a`, its child `b` and `f` may go; `k` may once its parent `p`, which W1 runs, has "
    "ended, `m` once its message is delivered, and `d` not while its message is dead; an event was addressed to `a`",
    mail=True,
    arrange=_ended,
    only=frozenset({"prune"}),
    acts=(
        create("a"),
        create("f"),
        start(W2, "a", "n"),
        claim(W2),
        step(W1, commit("p", 2, outbox=(message("p", 2, at_us=21),))),
        park(W1, commit("p", 2, row=PARK)),
        undo(W1, commit("p", 2, row=Undo(for_cancel=False), no_waits_left=True)),
        finish(W1, commit("p", 2, row=COMPLETED, no_waits_left=True)),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("p"), iid("a")))),
        cancel("a"),
        cancel("p"),
        retry("a"),
        renew(W1),
        reap(W1),
        release(W1),
        settle(W1, commit("p", 1), commit("a", 1)),
        accept(paid("also for a", "z", target="a"), paid("new", "x")),
        route(FOR_A),
        look("p", ANY_ORDER),
        learn(ORDER_X.fields, since_us=OLD_US),
        expire(),
        lease("r1"),
        settled("delivered", Delivered(), (M0, D_CLAIM)),
        settled("later", LATER, (M0, D_CLAIM)),
        settled("dead", Dead("410"), (M0, D_CLAIM)),
        settled("give back", GivenBack(), (M0, D_CLAIM)),
        enqueue(message("e", 1, at_us=22)),
        requeue(D0),
        purge(),
        prune(),
    ),
)

SITUATIONS: Final = (*OUTBOX_SITUATIONS, LONG_OVER)
VERBS: Final = (*OUTBOX_VERBS, "prune")
