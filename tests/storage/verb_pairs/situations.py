"""Starting states, and what can happen in each: a verb, who does it, and to which instances.

A state is made on the model by verbs of the port. Every ordered pair of the acts of a situation is a case, an act with
itself included. Ids are chosen so that the order of locking (by id) is not the order in which things happen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edda.core.commit import Batch, Commit, End, EventWait, Park, Post, Stay, Undo
from edda.core.event import TARGET, CloudEvent, Receipt
from edda.core.history import Kind, WorkerId
from edda.core.lifecycle import Status
from edda.core.routing import Criteria, EventKey, Fields, event_key
from edda.storage.inbox import Look, Routed
from edda.storage.memory import MemoryStore
from edda.storage.port import LeaseLine
from tests.storage.support import FAR, LEASE_US, LONG_AGO, W1, W2, World, commit, event, iid, message, new

MAILBOX: Final = "the inbox"
"""Stands for all rows of events and waits."""
EVER_US: Final = 10**17
"""A lease that no clock of a test outlives."""
PARK: Final = Park(status=Status.WAITING_FOR_EVENT, reason="event", due_us=None, seen_wakes=0)
DUE: Final = Park(status=Status.RUNNING, reason="retry", due_us=LONG_AGO, seen_wakes=0)
LATER: Final = Park(status=Status.WAITING_FOR_TIMER, reason="timer", due_us=FAR, seen_wakes=0)
COMPLETED: Final = End(status=Status.COMPLETED, output="42", unless_cancelled=True)
CANCELLED: Final = End(status=Status.CANCELLED)
FAILED: Final = End(status=Status.COMPENSATION_FAILED, error="e")
QUARANTINED: Final = End(status=Status.QUARANTINED, error="e")
NONDETERMINISTIC: Final = End(status=Status.NONDETERMINISTIC, error="e")


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Through what an act is done: the model or a database."""

    store: Any
    line: LeaseLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    verb: str
    title: str
    do: Callable[[Actor], Awaitable[Any]]
    touches: Callable[[MemoryStore], frozenset[str]]
    """The instances whose rows it may lock, in this state: a claim meanwhile may pass over them."""
    worker: WorkerId | None = None
    """The worker whose row it may lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    name: str
    about: str
    arrange: Callable[[World], Awaitable[None]]
    acts: tuple[Act, ...]
    mail: bool = False
    """There are events: what counts is who was woken when all of them were led to their end, not how often."""
    only: frozenset[str] = frozenset()
    """Only pairs with one of these verbs are played in it, if there are any; others have situations of their own."""


# -- acts -----------------------------------------------------------------------------------------------------------


def _these(*names: str) -> Callable[[MemoryStore], frozenset[str]]:
    return lambda model: frozenset(names)


def _held_by(worker: WorkerId) -> Callable[[MemoryStore], frozenset[str]]:
    return lambda model: frozenset(row.id for row in model.rows.values() if row.owner == worker)


def _unowned(model: MemoryStore) -> frozenset[str]:
    return frozenset(row.id for row in model.rows.values() if row.owner is None)


def create(name: str) -> Act:
    return Act(
        verb="create",
        title=f"create({name})",
        do=lambda actor: actor.store.create(new(name, workflow="other")),
        touches=_these(name),
    )


def start(worker: WorkerId, *names: str, commits: tuple[Commit, ...] = ()) -> Act:
    """A worker's start; `commits`: of others in the same batch."""
    batch = Batch(commits=commits, starts=tuple(new(name, owner=worker) for name in names))
    return Act(
        verb="start",
        title=f"{worker} starts {', '.join(names)}",
        do=lambda actor: actor.store.write(worker, batch),
        touches=_these(*names, *(each.instance_id for each in commits)),
        worker=worker,
    )


def claim(worker: WorkerId, *, limit: int = 10, suspects: bool = True, ids: Sequence[str] | None = None) -> Act:
    chosen = None if ids is None else tuple(iid(name) for name in ids)
    return Act(
        verb="claim",
        title=f"{worker} claims {limit if ids is None else ', '.join(ids)}{'' if suspects else ' harmless'}",
        do=lambda actor: actor.store.claim(
            worker, workflows=("order", "other"), limit=limit, suspects=suspects, ids=chosen
        ),
        touches=_unowned,
        worker=worker,
    )


def write(verb: str, worker: WorkerId, *commits: Commit) -> Act:
    names = {name for each in commits for name in (each.instance_id, *each.wakes, *each.cancels)}
    children = {child.id for each in commits for child in each.children}
    mail = {MAILBOX for each in commits if each.posts or each.waits or each.waits_over or each.no_waits_left}
    return Act(
        verb=verb,
        title=f"{worker} writes {', '.join(_words(each) for each in commits)}",
        do=lambda actor: actor.store.write(worker, Batch(commits=commits)),
        touches=_these(*names, *children, *mail),
        worker=worker,
    )


def _words(each: Commit) -> str:
    """Whose, under which claim, which places of history; then what becomes of the row, and of others."""
    match each.row:
        case Stay():
            change = ""
        case Park(due_us=due, seen_wakes=seen):
            change = f" park {due} {seen}"
        case Undo(for_cancel=for_cancel):
            change = " undo for a cancel" if for_cancel else " undo"
        case End(status=status):
            change = f" {status.value}"
    more = [
        f"{verb} {', '.join(names)}"
        for verb, names in (
            ("wake", each.wakes),
            ("cancel", each.cancels),
            ("start", [child.id for child in each.children]),
        )
        if names
    ]
    mail = [
        f"{verb} {', '.join(names)}"
        for verb, names in (
            ("wait", [f"{wait.call_id} {wait.route[:4]}" for wait in each.waits]),
            ("got", each.waits_over),
            ("forget", ["all waits"] if each.no_waits_left else []),
            ("post", [post.event.id for post in each.posts]),
        )
        if names
    ]
    more += mail
    seqs = "+".join(str(record.seq) for record in each.records)
    return " ".join([f"{each.instance_id}/{each.claim}:{seqs}{change}", *more])


def step(worker: WorkerId, *commits: Commit) -> Act:
    return write("step", worker, *commits)


def park(worker: WorkerId, *commits: Commit) -> Act:
    return write("park", worker, *commits)


def undo(worker: WorkerId, *commits: Commit) -> Act:
    return write("undo", worker, *commits)


def finish(worker: WorkerId, *commits: Commit) -> Act:
    return write("finish", worker, *commits)


def deliver(worker: WorkerId, *commits: Commit) -> Act:
    return write("deliver", worker, *commits)


def cancel(name: str) -> Act:
    return Act(
        verb="cancel",
        title=f"cancel({name})",
        do=lambda actor: actor.store.cancel(iid(name), by="alice"),
        touches=_these(name),
    )


def retry(name: str) -> Act:
    return Act(
        verb="retry", title=f"retry({name})", do=lambda actor: actor.store.retry(iid(name)), touches=_these(name)
    )


def renew(worker: WorkerId) -> Act:
    return Act(
        verb="renew",
        title=f"{worker} renews",
        do=lambda actor: actor.line.renew(worker, lease_us=LEASE_US),
        touches=_these(),
        worker=worker,
    )


def reap(worker: WorkerId) -> Act:
    return Act(
        verb="reap",
        title=f"reap({worker})",
        do=lambda actor: actor.store.reap(worker),
        touches=_held_by(worker),
        worker=worker,
    )


def release(worker: WorkerId) -> Act:
    return Act(
        verb="release",
        title=f"{worker} retires",
        do=lambda actor: actor.store.retire(worker),
        touches=_held_by(worker),
        worker=worker,
    )


def settle(worker: WorkerId, *commits: Commit) -> Act:
    return Act(
        verb="settle",
        title=f"{worker} settles {', '.join(_words(each) for each in commits)}",
        do=lambda actor: actor.store.settle(worker, Batch(commits=commits)),
        touches=_these(),
        worker=worker,
    )


def accept(*events: CloudEvent) -> Act:
    """Who hears that an event was there already is chance where two bring it at once."""

    async def do(actor: Actor) -> list[str]:
        receipts = await actor.store.accept(events)
        return ["there" if one in (Receipt.STORED, Receipt.DUPLICATE) else one.value for one in receipts]

    targets = [event.target for event in events if event.target is not None]
    return Act(
        verb="accept",
        title=f"accept {', '.join(f'{event.id} {event.json}' for event in events)}",
        do=do,
        touches=_these(*targets, MAILBOX),
    )


def route(*events: CloudEvent, steps: int = 9) -> Act:
    """Lead them to whoever waits: to the end, or so many steps of it. Its answers are hints, and not compared."""

    async def do(actor: Actor) -> None:
        keys: Sequence[EventKey] = [event_key(event) for event in events]
        for _ in range(steps):
            routed: Routed = await actor.store.route(keys)
            if not (keys := routed.left):
                break

    return Act(
        verb="route",
        title=f"route {', '.join(event.id for event in events)}{' once' if steps == 1 else ''}",
        do=do,
        touches=lambda model: frozenset({*model.rows, MAILBOX}),
    )


def look(name: str, *wanted: Criteria, unrouted: bool = False) -> Act:
    """Which events an instance finds, in order."""

    async def do(actor: Actor) -> list[str]:
        one = Look(instance_id=iid(name), since_us=0, wanted=wanted)
        found = await actor.store.look([one], unrouted=unrouted)
        return [stored.event.id for stored in found[iid(name)]]

    words = ", ".join(one.route[:4] for one in wanted)
    return Act(
        verb="look", title=f"{name} looks for {words}{' at last' if unrouted else ''}", do=do, touches=_these(MAILBOX)
    )


def learn(fields: Fields, *, since_us: int) -> Act:
    return Act(
        verb="learn",
        title=f"learn {fields} since {since_us}",
        do=lambda actor: actor.store.learn(PAID, fields, since_us=since_us),
        touches=_these(MAILBOX),
    )


def expire() -> Act:
    """What was accepted long ago. Two who do so at once may both count it."""

    async def do(actor: Actor) -> None:
        await actor.store.expire(before_us=OLD_US + 1, limit=10)

    return Act(
        verb="expire",
        title="expire",
        do=do,
        touches=_these(MAILBOX),
    )


def with_child(name: str, seq: int, child: str, **more: Any) -> Commit:
    """A step that starts a child and sends a message."""
    return commit(name, seq, children=(new(child, parent_id=iid(name)),), outbox=(message(name, seq),), **more)


# -- states ---------------------------------------------------------------------------------------------------------


async def _two_workers(world: World) -> None:
    for worker in (W1, W2):
        await world.worker(worker, lease_us=EVER_US)


def _lapse(world: World, worker: WorkerId) -> None:
    """Its lease is over, and it does not know."""
    world.store.workers[worker].lease_until_us = LONG_AGO


async def _start(world: World, worker: WorkerId, *names: str, **more: Any) -> None:
    await world.start(*(new(name, owner=worker, **more) for name in names), worker=worker)


async def _lend(world: World, worker: WorkerId, *names: str) -> None:
    """Give these instances another claim, with one crash more: their worker died, and this one took them."""
    lost = await world.worker(WorkerId("worker-0"), lease_us=EVER_US)
    await world.claim(lost, ids=[iid(name) for name in names])
    world.store.presence.discard(lost)
    await world.store.reap(lost)
    del world.store.workers[lost]
    await world.claim(worker, ids=[iid(name) for name in names])


async def _one_runs(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "a")
    await world.write(commit("a", 1))
    await _start(world, W2, "w", parent_id=iid("a"))


ONE_RUNS: Final = Situation(
    name="one runs",
    about="W1 runs `a`, W2 its child `w`; both are well",
    arrange=_one_runs,
    acts=(
        create("a"),
        start(W2, "a"),
        claim(W2),
        step(W1, commit("a", 2)),
        step(W1, with_child("a", 2, "n")),
        park(W1, commit("a", 2, row=PARK)),
        park(W1, commit("a", row=DUE)),
        undo(W1, commit("a", 2, row=Undo(for_cancel=False))),
        finish(W1, commit("a", 2, row=COMPLETED)),
        finish(W1, commit("a", row=QUARANTINED)),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("a"),))),
        deliver(W1, commit("a", 2, row=CANCELLED, cancels=(iid("w"),))),
        cancel("a"),
        retry("a"),
        renew(W1),
        reap(W1),
        release(W1),
        settle(W1, commit("a", 2)),
    ),
)


async def _lapsed(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "a", "b")
    await world.write(commit("a", 1, row=DUE), commit("b", 1, row=DUE))
    await _lend(world, W1, "a", "b")
    await world.write(commit("b", 2, claim=3))
    await _start(world, W2, "w", parent_id=iid("a"))
    await world.store.create(new("u"))
    _lapse(world, W1)


LAPSED: Final = Situation(
    name="lapsed",
    about="W1's lease is over while it runs `a` and `b`; both have crashed once, only `b` made progress since",
    arrange=_lapsed,
    acts=(
        create("n"),
        start(W1, "n"),
        start(W1, "m", "n", commits=(commit("a", 2, claim=3, row=PARK),)),
        claim(W1),
        claim(W2),
        step(W1, commit("a", 2, claim=3)),
        park(W1, commit("a", 2, claim=3, row=PARK), commit("b", 3, claim=3)),
        undo(W1, commit("a", 2, claim=3, row=Undo(for_cancel=False))),
        finish(W1, commit("b", 3, claim=3, row=COMPLETED), commit("a", 2, claim=3)),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("b"), iid("a")))),
        cancel("a"),
        renew(W1),
        reap(W1),
        release(W1),
        settle(W1, commit("a", 2, claim=3)),
    ),
)


async def _moved_on(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "a")
    await world.write(commit("a", 1, row=DUE))
    await world.claim(W2)


MOVED_ON: Final = Situation(
    name="moved on",
    about="`a` was W1's; W2 has it now under claim 2, and W1, which is well, still writes under claim 1",
    arrange=_moved_on,
    acts=(
        claim(W1),
        step(W1, commit("a", 2)),
        step(W2, commit("a", 2, claim=2)),
        step(W2, commit("a", 2, 3, claim=2), commit("b", 1)),
        park(W1, commit("a", 2, row=PARK)),
        park(W2, commit("a", 2, claim=2, row=PARK)),
        undo(W2, commit("a", 2, claim=2, row=Undo(for_cancel=False))),
        finish(W1, commit("a", 2, row=COMPLETED)),
        finish(W2, commit("a", 2, claim=2, row=COMPLETED)),
        cancel("a"),
        settle(W1, commit("a", 2)),
        settle(W2, commit("a", claim=2, row=PARK)),
        release(W2),
    ),
)


async def _parked(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "a", "b", "c")
    await world.write(
        commit("a", 1, row=PARK), commit("b", 1, row=DUE), commit("c", 1, row=LATER), commit("never", wakes=(iid("b"),))
    )
    await _start(world, W2, "w", parent_id=iid("a"))


PARKED: Final = Situation(
    name="parked",
    about="`a` waits for a wake, `b` is due and was woken, `c` waits for a time; W2 runs `w`, a child of `a`",
    arrange=_parked,
    acts=(
        create("b"),
        start(W1, "a", "n"),
        claim(W1),
        claim(W2),
        claim(W2, ids=("c", "b", "a")),
        step(W2, commit("w", 1)),
        park(W2, commit("w", 1, row=LATER)),
        finish(W1, commit("a", 2, row=COMPLETED)),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("a"),))),
        deliver(W2, commit("w", 1, wakes=(iid("c"), iid("b"), iid("a")), cancels=(iid("b"),))),
        cancel("a"),
        cancel("b"),
        retry("b"),
        release(W2),
    ),
)


async def _family(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "m")
    await world.write(with_child("m", 1, "a"), with_child("m", 2, "z"))
    await world.claim(W2, ids=[iid("a")])
    await world.claim(W1, ids=[iid("z")])
    _lapse(world, W2)


FAMILY: Final = Situation(
    name="family",
    about="W1 runs the parent `m` and its child `z`; W2, whose lease is over, runs its child `a`",
    arrange=_family,
    acts=(
        create("a"),
        start(W2, "z"),
        claim(W1),
        step(W1, with_child("m", 3, "n")),
        park(W1, commit("m", 3, row=PARK)),
        park(W1, commit("z", 1, row=DUE), commit("m", 3, row=LATER)),
        undo(W1, commit("m", 3, row=Undo(for_cancel=False), cancels=(iid("z"), iid("a")))),
        finish(W1, commit("m", 3, row=COMPLETED)),
        deliver(W2, commit("a", 1, row=COMPLETED, wakes=(iid("m"),))),
        deliver(W1, commit("z", 1, row=COMPLETED, wakes=(iid("m"),))),
        deliver(W1, commit("m", 3, row=CANCELLED, cancels=(iid("z"), iid("a")))),
        cancel("m"),
        cancel("a"),
        renew(W2),
        reap(W2),
        release(W1),
        settle(W2, commit("a", 1, row=COMPLETED, wakes=(iid("m"),))),
    ),
)


async def _crowd(world: World) -> None:
    await _two_workers(world)
    for number, name in enumerate(("d", "c", "b", "a")):
        await world.store.create(new(name, workflow="other" if number == 1 else "order"))
    for _ in range(2):
        await _lend(world, W1, "d", "b")
        await world.store.retire(W1)
        world.store.workers[W1].alive = True
    await _start(world, W2, "w")


CROWD: Final = Situation(
    name="crowd",
    about="`d`, `c`, `b`, `a` are due, in this order, of two workflows; `d` and `b` have crashed twice",
    arrange=_crowd,
    acts=(
        create("n"),
        start(W1, "n"),
        claim(W1, limit=2),
        claim(W2, limit=2),
        claim(W1, limit=3, suspects=False),
        claim(W2),
        claim(W2, ids=("b", "c", "d")),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("d"), iid("b")))),
        deliver(W2, commit("w", 1, row=COMPLETED, cancels=(iid("c"), iid("a")))),
        cancel("d"),
        cancel("c"),
        release(W2),
    ),
)


async def _set_aside(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "f", "n", "q", "r")
    undoing = (event("n", 1, kind=Kind.COMPENSATION_STARTED),)
    await world.write(
        commit("f", 1, row=FAILED),
        Commit(instance_id=iid("n"), claim=1, records=undoing, row=NONDETERMINISTIC),
        commit("q", 1, row=QUARANTINED),
    )
    await _start(world, W2, "w")


SET_ASIDE: Final = Situation(
    name="set aside",
    about="`f` ended with a failed compensation, `n` is nondeterministic and was undoing, `q` is quarantined",
    arrange=_set_aside,
    acts=(
        create("f"),
        start(W2, "q"),
        claim(W2),
        step(W1, commit("f", 2)),
        park(W1, commit("q", 2, row=PARK)),
        undo(W1, commit("r", 1, row=Undo(for_cancel=False))),
        finish(W1, commit("r", 1, row=FAILED)),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("q"), iid("f")))),
        deliver(W2, commit("w", 1, row=COMPLETED, cancels=(iid("q"), iid("n")))),
        cancel("f"),
        cancel("n"),
        cancel("q"),
        retry("f"),
        retry("n"),
        retry("q"),
        retry("r"),
        settle(W1, commit("f", 2)),
        reap(W1),
        renew(W1),
        release(W1),
    ),
)


async def _cancel_asked(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "a", "b")
    await world.write(commit("a", 1), commit("b", 1, row=PARK))
    for name in ("a", "b"):
        await world.store.cancel(iid(name), by="bob")
    await _start(world, W2, "w", parent_id=iid("a"))
    _lapse(world, W1)


CANCEL_ASKED: Final = Situation(
    name="cancel asked",
    about="somebody has cancelled `a`, which W1 runs with its lease over, and `b`, which was parked",
    arrange=_cancel_asked,
    acts=(
        start(W1, "a"),
        claim(W1),
        claim(W2),
        step(W1, commit("a", 2)),
        park(W1, commit("a", 2, row=PARK)),
        park(W1, commit("a", 2, row=Park(status=Status.RUNNING, reason="", due_us=None, seen_wakes=1))),
        undo(W1, commit("a", 2, row=Undo(for_cancel=False))),
        undo(W1, commit("a", 2, row=Undo(for_cancel=True))),
        finish(W1, commit("a", 2, row=COMPLETED)),
        finish(W1, commit("a", 2, row=CANCELLED)),
        finish(W1, commit("a", row=NONDETERMINISTIC)),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("a"),), cancels=(iid("b"),))),
        cancel("a"),
        cancel("b"),
        renew(W1),
        reap(W1),
        release(W1),
        settle(W1, commit("a", 2, row=CANCELLED)),
    ),
)


async def _beginning(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "p")
    await _start(world, W2, "k", parent_id=iid("p"))
    _lapse(world, W1)


BEGINNING: Final = Situation(
    name="beginning",
    about="nothing is called `m` or `n` yet; W1, whose lease is over, runs `p`, and W2 its child `k`",
    arrange=_beginning,
    acts=(
        create("n"),
        create("m"),
        start(W1, "n", "m"),
        start(W2, "m", "n"),
        start(W1, "n", "m", "n", commits=(with_child("p", 1, "m"),)),
        claim(W2),
        step(W1, with_child("p", 1, "n")),
        step(W2, with_child("o", 1, "n"), with_child("o", 2, "m")),
        park(W1, with_child("p", 1, "n", row=PARK)),
        deliver(W1, with_child("p", 1, "m", row=CANCELLED, cancels=(iid("k"),))),
        deliver(W2, with_child("k", 1, "n", row=COMPLETED, wakes=(iid("p"),))),
        cancel("n"),
        retry("n"),
        renew(W1),
        reap(W1),
        release(W1),
    ),
)


async def _gone(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "s")
    for latest in (1, 3):
        await world.write(commit("s", claim=latest, row=DUE))
        await _lend(world, W1, "s")
    await _start(world, W1, "c", "b", "a")
    # The rows of `c` and `b` change places, on databases where a row that changes moves.
    await world.write(commit("c", 1, row=DUE), commit("b", 1, row=DUE), commit("a", 1, row=DUE))
    await _lend(world, W1, "c", "b", "a")
    await world.write(commit("b", 2, claim=3), commit("a", 2, claim=3), commit("c", 2, claim=3))
    await world.write(commit("c", 3, claim=3, row=Undo(for_cancel=False)))
    await _start(world, W2, "w")
    world.store.presence.discard(W1)


GONE: Final = Situation(
    name="gone",
    about="W1's process is gone; `a`, `b` and `c` (undoing) made progress, `s` killed two workers before",
    arrange=_gone,
    acts=(
        create("a"),
        start(W1, "n"),
        claim(W1),
        claim(W2),
        step(W1, commit("b", 3, claim=3), commit("s", 1, claim=5)),
        park(W1, commit("b", 3, claim=3, row=PARK), commit("a", 3, claim=3, row=DUE)),
        undo(W1, commit("b", 3, claim=3, row=Undo(for_cancel=False))),
        finish(W1, commit("c", 4, claim=3, row=FAILED)),
        deliver(W2, commit("w", 1, row=COMPLETED, wakes=(iid("a"), iid("b"), iid("c"), iid("s")))),
        deliver(W2, commit("w", 1, row=COMPLETED, cancels=(iid("s"), iid("c"), iid("b")))),
        cancel("b"),
        cancel("s"),
        retry("s"),
        renew(W1),
        reap(W1),
        release(W1),
        settle(W1, commit("b", 3, claim=3, row=PARK)),
    ),
)

PAID: Final = "order.paid"
OLD_US: Final = LONG_AGO
ANY_ORDER: Final = Criteria.of(PAID)
ORDER_X: Final = Criteria.of(PAID, match={"order": "x"})
ORDER_Y: Final = Criteria.of(PAID, match={"order": "y"})
SUBJECT_S: Final = Criteria.of(PAID, subject="s")


def paid(id: str, order: str, *, target: str | None = None) -> CloudEvent:
    extensions = {} if target is None else {TARGET: target}
    return CloudEvent(
        id=id, source="/shop", type=PAID, subject="s", json=f'{{"order": "{order}"}}', extensions=extensions
    )


def waiting_for(call_id: str, wanted: Criteria) -> EventWait:
    return EventWait(call_id, wanted.type, wanted.route)


OLD, STORED, POSTED, FOR_B = paid("old", "x"), paid("stored", "x"), paid("posted", "y"), paid("for b", "z", target="b")


async def _mail(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "a", "b", "c")
    await world.write(
        commit("a", 1, waits=(waiting_for("any", ANY_ORDER),)),
        commit("b", 1, row=PARK, waits=(waiting_for("x", ORDER_X),)),
        commit("c", 1, row=PARK, waits=(waiting_for("y", ORDER_Y), waiting_for("s", SUBJECT_S))),
    )
    await _start(world, W2, "w", parent_id=iid("a"))
    await world.store.learn(PAID, ORDER_X.fields, since_us=OLD_US)
    await world.store.accept([OLD])
    await world.store.route([event_key(OLD)])
    for row in list(world.store.rows.values()):
        world.store.rows[row.id] = row._replace(wakes=0)
    await world.store.accept([STORED, FOR_B])
    await world.write(commit("w", 1, posts=(Post(1, POSTED),)), worker=W2)
    world.store.inbox[event_key(OLD)].accepted_at_us = OLD_US
    _lapse(world, W1)


MAIL: Final = Situation(
    name="mail",
    about="W1, whose lease is over, runs `a`; `a` waits for any order, `b` for order x and `c` for y, both parked; "
    "of four events one is old and done, the others are on their way",
    mail=True,
    arrange=_mail,
    acts=(
        create("n"),
        start(W2, "n"),
        claim(W2),
        step(W1, commit("a", 2, waits=(waiting_for("y", ORDER_Y),), waits_over=("any",))),
        step(W1, commit("a", 2, posts=(Post(2, paid("new", "y")), Post(2, STORED)))),
        park(W1, commit("a", 2, row=PARK, waits=(waiting_for("s", SUBJECT_S),))),
        undo(W1, commit("a", 2, row=Undo(for_cancel=False), no_waits_left=True)),
        finish(W1, commit("a", 2, row=COMPLETED, no_waits_left=True)),
        deliver(W2, commit("w", 2, row=COMPLETED, wakes=(iid("a"), iid("b")))),
        cancel("a"),
        cancel("b"),
        retry("a"),
        renew(W1),
        reap(W1),
        release(W1),
        settle(W1, commit("a", 2)),
        accept(paid("new", "y")),
        accept(STORED, paid("later", "x"), paid("new", "y")),
        accept(paid("for a", "z", target="a")),
        route(STORED, POSTED, FOR_B),
        route(POSTED),
        route(OLD, POSTED, steps=1),
        look("a", ANY_ORDER),
        look("b", ORDER_X),
        look("c", ORDER_Y, unrouted=True),
        learn(ORDER_X.fields, since_us=OLD_US - 1),
        learn(SUBJECT_S.fields, since_us=OLD_US),
        expire(),
    ),
)

NEWS: Final = paid("news", "q")
ORDER_Q: Final = Criteria.of(PAID, match={"order": "q"})


async def _meeting(world: World) -> None:
    await _two_workers(world)
    await _start(world, W1, "a")
    await _start(world, W2, "w")
    await world.store.learn(PAID, ORDER_Q.fields, since_us=OLD_US)


def post_and_route() -> Act:
    """A sender, and what comes after it, to the end."""
    post, lead = step(W2, commit("w", 1, posts=(Post(1, NEWS),))), route(NEWS)

    async def do(actor: Actor) -> None:
        await post.do(actor)
        await lead.do(actor)

    return Act(verb="meet", title="post and route", do=do, touches=lead.touches, worker=W2)


def accept_and_route() -> Act:
    bring, lead = accept(NEWS), route(NEWS)

    async def do(actor: Actor) -> None:
        await bring.do(actor)
        await lead.do(actor)

    return Act(verb="meet", title="accept and route", do=do, touches=lead.touches)


def wait_and_look() -> Act:
    """Somebody who waits: what it finds."""
    wait = step(W1, commit("a", 1, waits=(waiting_for("q", ORDER_Q),)))
    find = look("a", ORDER_Q)

    async def do(actor: Actor) -> Any:
        await wait.do(actor)
        return await find.do(actor)

    return Act(verb="meet", title="wait and look", do=do, touches=wait.touches, worker=W1)


MEETING: Final = Situation(
    name="meeting",
    about="W1 runs `a`, which will wait for what W2's `w`, or somebody outside, will send",
    arrange=_meeting,
    acts=(post_and_route(), accept_and_route(), wait_and_look()),
)
"""Not part of the matrix: that event and wait do not miss each other is no question of serial orders."""

MAIL_SITUATIONS: Final = (
    ONE_RUNS,
    LAPSED,
    MOVED_ON,
    PARKED,
    FAMILY,
    CROWD,
    SET_ASIDE,
    CANCEL_ASKED,
    BEGINNING,
    GONE,
    MAIL,
)
MAIL_VERBS: Final = (
    "create",
    "start",
    "claim",
    "step",
    "park",
    "undo",
    "finish",
    "deliver",
    "cancel",
    "retry",
    "renew",
    "reap",
    "release",
    "settle",
    "accept",
    "route",
    "look",
    "learn",
    "expire",
)
