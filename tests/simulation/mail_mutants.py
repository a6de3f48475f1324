"""Planted bugs of events: in what the inbox stores, in how waits and events find each other, in who gets what.

Those at the end are bugs that the simulation found in edda itself. See `mutants`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from edda.core.commit import Commit
from edda.core.event import CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.routing import EventKey, Fields, event_key
from edda.engine import event_waits
from edda.engine import inbox as engine_inbox
from edda.engine.body_phase import BodyPhase
from edda.engine.event_waits import EventWaits, Question
from edda.engine.inbox import Inbox
from edda.engine.instance import Instance, NoEventInTime
from edda.engine.worker import Worker
from edda.storage import memory_inbox
from edda.storage.inbox import InboxEvent, Look, Routed
from edda.storage.memory import MemoryStore
from edda.storage.memory_inbox import InboxModel
from edda.storage.port import UnknownOutcome
from tests.simulation.faulty_store import FaultyStore
from tests.simulation.planting import MUTANTS, mutant, swapped

_BEFORE: Final = frozenset(MUTANTS)


# -- what is stored ----------------------------------------------------------------------------------------------------


@mutant("events: deduplicated by id alone")
@contextmanager
def by_id_alone() -> Iterator[None]:
    def make(original: Callable[[CloudEvent], EventKey]) -> Callable[[CloudEvent], EventKey]:
        return lambda event: original(event._replace(source=""))

    with swapped(memory_inbox, "event_key", make), swapped(engine_inbox, "event_key", make):
        yield


@mutant("events: a copy takes the place of the first")
def copy_replaces() -> Any:
    def make(original: Any) -> Any:
        def accept(self: InboxModel, event: CloudEvent, now_us: int) -> Receipt:
            if (stored := self.inbox.get(event_key(event))) is not None:
                stored.event = event
            return original(self, event, now_us)  # type: ignore[no-any-return]

        return accept

    return swapped(InboxModel, "_accept", make)


@mutant("events: a receipt before they are durable")
def receipt_too_early() -> Any:
    def make(original: Any) -> Any:
        async def stored(self: Inbox, events: Sequence[CloudEvent]) -> Sequence[Receipt]:
            try:
                return await self._store.accept(events)
            except UnknownOutcome:
                return [Receipt.STORED for _ in events]

        return stored

    return swapped(Inbox, "_stored", make)


@mutant("events: what a commit sends comes after it, not with it")
def posts_apart() -> Any:
    def make(original: Any) -> Any:
        def write(self: FaultyStore, worker: Any, batch: Any) -> Any:
            bare = replace(batch, commits=tuple(commit._replace(posts=()) for commit in batch.commits))
            answer = original(self, worker, bare)
            loop, world = self.world.loop, self.world

            def post() -> None:
                for commit in batch.commits:
                    world.store.post(commit, world.store.now_us())

            answer.add_done_callback(lambda _: loop.after(self.node.process, 500, post))
            return answer

        return write

    return swapped(FaultyStore, "write", make)


# -- from the event to the wait ----------------------------------------------------------------------------------------


@mutant("events: called routed before anybody is woken")
def routed_before_the_wake() -> Any:
    def make(original: Any) -> Any:
        def route(self: FaultyStore, keys: Sequence[EventKey]) -> Any:
            model, world = self.model, self.world

            def do() -> Routed:
                routed: Routed = world.mail_verb(self.node, "route", _asleep(model, keys))
                loop = world.loop
                loop.after(
                    self.node.process, 1_500, lambda: [model.wake(name, model.now_us()) for name in routed.woken]
                )
                return routed

            return self.call("route", do)

        return route

    return swapped(FaultyStore, "route", make)


async def _asleep(model: MemoryStore, keys: Sequence[EventKey]) -> Routed:
    with swapped(MemoryStore, "wake", lambda _: lambda self, instance_id, now_us: None):
        return await model.route(keys)


@mutant("events: what a dead receiver left behind is left there")
def left_behind() -> Any:
    async def unrouted(self: InboxModel, *, older_than_us: int, limit: int) -> tuple[EventKey, ...]:
        return ()

    return swapped(InboxModel, "unrouted", lambda _: unrouted)


@mutant("events: a chunk counts as everybody")
def chunk_is_all() -> Any:
    def make(original: Any) -> Any:
        def route_first(self: InboxModel, key: EventKey, waiting: list[InstanceId], *, left: Any) -> Routed:
            routed: Routed = original(self, key, waiting, left=left)
            self.inbox[key].routed = True
            return replace(routed, left=left)

        return route_first

    return swapped(InboxModel, "_route_first", make)


@mutant("events: the cursor of a broadcast begins behind the next one")
def cursor_too_far() -> Any:
    def make(original: Any) -> Any:
        def route_first(self: InboxModel, key: EventKey, waiting: list[InstanceId], *, left: Any) -> Routed:
            routed: Routed = original(self, key, waiting, left=left)
            if not self.inbox[key].routed:
                self.inbox[key].woken_to = waiting[len(routed.woken)]
            return routed

        return route_first

    return swapped(InboxModel, "_route_first", make)


@mutant("events: a wake says nothing to a body that runs")
def wake_unheard() -> Any:
    def woken(self: BodyPhase) -> None:
        self._looked = False

    return swapped(BodyPhase, "woken", lambda _: woken)


@mutant("events: one that somebody has received is gone for the others")
def first_takes_all() -> Any:
    def make(original: Any) -> Any:
        def look(self: InboxModel, look: Look, *, unrouted: bool) -> list[InboxEvent]:
            taken = self.__dict__.setdefault("_taken", set())
            taken |= look.had
            return [one for one in original(self, look, unrouted=unrouted) if one.key not in taken]

        return look

    return swapped(InboxModel, "_look", make)


# -- from the wait to the event ----------------------------------------------------------------------------------------


@mutant("events: looked for before the wait is stored, and not after")
@contextmanager
def look_before_stored() -> Iterator[None]:
    def store(original: Any) -> Any:
        def store(self: EventWaits) -> bool:
            unseen, wakes = self._unseen, self._wakes
            stored: bool = original(self)
            if stored and unseen is False:
                self._unseen, self._wakes = unseen, wakes
            return stored

        return store

    def init(original: Any) -> Any:
        def init(self: EventWaits, instance: Instance) -> None:
            original(self, instance)
            self.recalled = True

        return init

    def ask(original: Any) -> Any:
        def ask(self: EventWaits, call: Any) -> None:
            original(self, call)
            self.recalled = self.recalled or not self._stored

        return ask

    with swapped(EventWaits, "store", store), swapped(EventWaits, "__init__", init), swapped(EventWaits, "ask", ask):
        yield


@mutant("events: parked before the look is answered")
def park_before_look() -> Any:
    return swapped(BodyPhase, "looking", lambda _: property(lambda self: self._looking))


@mutant("events: after a replay the wait is neither stored nor looked up again")
def recalled_is_enough() -> Any:
    def make(original: Any) -> Any:
        def ask(self: EventWaits, call: Any) -> None:
            original(self, call)
            if self.recalled:
                self._unseen = False

        return ask

    return swapped(EventWaits, "ask", make)


def _had_by(cursor: Callable[[InboxModel, frozenset[EventKey]], Any], place: Callable[[InboxEvent], Any]) -> Any:
    """What an instance had is known by how far it has come, not by what it was."""

    def make(original: Any) -> Any:
        def look(self: InboxModel, look: Look, *, unrouted: bool) -> list[InboxEvent]:
            known = frozenset(key for key in look.had if key in self.inbox)
            found: list[InboxEvent] = original(self, look, unrouted=unrouted)
            if not known:
                return found
            reached = cursor(self, known)
            return [one for one in found if place(one) > reached]

        return look

    return swapped(InboxModel, "_look", make)


@mutant("events: what came is remembered by a cursor on its key")
def cursor_by_key() -> Any:
    return _had_by(lambda model, had: max(had), lambda one: one.key)


@mutant("events: what came is remembered by a cursor on its time")
def cursor_by_time() -> Any:
    return _had_by(
        lambda model, had: max(model.inbox[key].accepted_at_us for key in had), lambda one: one.accepted_at_us
    )


@mutant("events: received again after a replay")
def received_again() -> Any:
    def make(original: Any) -> Any:
        def init(self: EventWaits, instance: Instance) -> None:
            original(self, instance)
            self._had = set()

        return init

    return swapped(EventWaits, "__init__", make)


@mutant("events: newest first")
def newest_first() -> Any:
    def make(original: Any) -> Any:
        def look(self: InboxModel, look: Look, *, unrouted: bool) -> list[InboxEvent]:
            return original(self, look, unrouted=unrouted)[::-1]  # type: ignore[no-any-return]

        return look

    return swapped(InboxModel, "_look", make)


@mutant("events: new fields are learned for new events only")
def learned_for_new_ones() -> Any:
    def make(original: Any) -> Any:
        async def learn(self: InboxModel, event_type: str, fields: Fields, *, since_us: int) -> None:
            self.fields.setdefault(event_type, {}).setdefault(fields, since_us)

        return learn

    return swapped(InboxModel, "learn", make)


@mutant("events: those from shortly before the start are passed over")
def not_before_the_start() -> Any:
    return swapped(event_waits, "SINCE_START_US", lambda _: 0)


@mutant("events: addressed ones are for everybody")
def addressed_to_all() -> Any:
    def make(original: Any) -> Any:
        def fits(self: InboxModel, stored: Any, wanted: Any, look: Look) -> bool:
            return original(self, stored, wanted, look) or wanted.fits(stored.event)

        return fits

    return swapped(InboxModel, "_fits", make)


# -- deadlines ---------------------------------------------------------------------------------------------------------


@mutant("events: a timeout beats an earlier event")
def timeout_first() -> Any:
    def make(original: Any) -> Any:
        def collect_due(self: EventWaits, now_us: int) -> None:
            known = set(self._overdue)
            original(self, now_us)
            over = [self._waits[call_id] for call_id in self._overdue - known]
            self._instance.arrived.extend(map(NoEventInTime, over))

        return collect_due

    return swapped(EventWaits, "collect_due", make)


@mutant("events: the last look passes over those on their way")
def last_look_too_early() -> Any:
    def make(original: Any) -> Any:
        async def look(self: InboxModel, looks: Sequence[Look], *, unrouted: bool = False) -> Mapping[Any, Any]:
            return await original(self, looks)  # type: ignore[no-any-return]

        return look

    return swapped(InboxModel, "look", make)


@mutant("events: one that came too late still counts")
def too_late_counts() -> Any:
    def make(original: Any) -> Any:
        def next_match(self: EventWaits) -> Any:
            for call in self._waits.values():
                for found in self._mail.values():
                    if call.wish is not None and call.wish.criteria.fits(found.event):
                        return call, found
            return None

        return next_match

    return swapped(EventWaits, "next_match", make)


# -- the end of waits --------------------------------------------------------------------------------------------------


@mutant("events: waits are not forgotten at the end")
def waits_for_ever() -> Any:
    def make(original: Any) -> Any:
        def change_waits(self: InboxModel, commit: Commit) -> None:
            original(self, commit._replace(no_waits_left=False))

        return change_waits

    return swapped(InboxModel, "change_waits", make)


@mutant("events: an answered wait is still seen by others")
def answered_waits_stay() -> Any:
    def make(original: Any) -> Any:
        def change_waits(self: InboxModel, commit: Commit) -> None:
            original(self, commit._replace(waits_over=()))

        return change_waits

    return swapped(InboxModel, "change_waits", make)


# -- bugs that were ours -----------------------------------------------------------------------------------------------


@mutant("ours: an answer of the inbox during a write is not read before the park")
def ours_unread() -> Any:
    return swapped(
        BodyPhase,
        "has_news",
        lambda _: property(
            lambda self: bool(self._instance.arrived or self._instance.cancel_requested or self._journal.replaying)
        ),
    )


@mutant("ours: the receiver breaks down where the database does not answer")
def ours_receiver_breaks_down() -> Any:
    async def stored(self: Inbox, events: Sequence[CloudEvent]) -> Sequence[Receipt]:
        return await self._store.accept(events)

    return swapped(Inbox, "_stored", lambda _: stored)


@mutant("ours: nobody looks for what is behind the first few events found")
def ours_first_few() -> Any:
    def make(original: Any) -> Any:
        def answered(self: EventWaits, found: list[InboxEvent], *, question: Question) -> None:
            original(self, found, question=question)
            self._more = False

        return answered

    return swapped(EventWaits, "answered", make)


@mutant("ours: a deadline that passes during a look is over with it")
def ours_deadline_during_look() -> Any:
    def make(original: Any) -> Any:
        def answered(self: EventWaits, found: list[InboxEvent], *, question: Question) -> None:
            overdue = frozenset(self._overdue) if question.unrouted else question.overdue
            original(self, found, question=question._replace(overdue=overdue))

        return answered

    return swapped(EventWaits, "answered", make)


@mutant("ours: an instance whose creation was answered late counts from the answer")
def ours_counts_from_the_answer() -> Any:
    def make(original: Any) -> Any:
        def adopt_new(self: Worker, new: Any, *, created_at_us: int) -> None:
            original(self, new, created_at_us=self.clock.at_least_us())

        return adopt_new

    return swapped(Worker, "_adopt_new", make)


@mutant("ours: the waits of a body that is cancelled before it asks again stay")
def ours_waits_of_the_cancelled() -> Any:
    def make(original: Any) -> Any:
        def init(self: Instance, *arguments: Any) -> None:
            original(self, *arguments)
            self.draft.may_wait = False

        return init

    return swapped(Instance, "__init__", make)


MAIL_MUTANTS: Final = tuple(title for title in MUTANTS if title not in _BEFORE)
