"""Planted bugs of handlers: what events start. `mutants` runs them, in worlds where events start something."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

from edda.core.commit import NewInstance
from edda.core.event import CloudEvent
from edda.core.history import InstanceId
from edda.core.routing import EventKey
from edda.core.subscription import Subscription
from edda.storage import memory_inbox
from edda.storage.inbox import Routed
from edda.storage.memory import MemoryStore
from edda.storage.memory_inbox import InboxModel
from tests.simulation.faulty_store import FaultyStore
from tests.simulation.handling import NAMES
from tests.simulation.planting import MUTANTS, mutant, swapped

_BEFORE: Final = frozenset(MUTANTS)


@mutant("handlers: an event starts an instance whenever it is led on")
def started_again() -> Any:
    """Its id does not say which event it was; a router whose answer is lost starts another one."""

    def make(original: Any) -> Any:
        async def route(self: InboxModel, keys: Sequence[EventKey]) -> Routed:
            for key in keys:
                if key in self.inbox:
                    self.inbox[key].routed = False
            return await original(self, keys)  # type: ignore[no-any-return]

        return route

    def make_creation(original: Any) -> Any:
        def create_now(self: MemoryStore, new: NewInstance, now_us: int) -> Any:
            if new.workflow in NAMES and new.id in self.rows:
                new = new._replace(id=InstanceId(f"{new.id}-{len(self.rows)}"))
            return original(self, new, now_us)

        return create_now

    stack = ExitStack()
    stack.enter_context(swapped(InboxModel, "route", make))
    stack.enter_context(swapped(MemoryStore, "create_now", make_creation))
    return stack


@mutant("handlers: known by the id of the event, and not by its source")
def by_id_only() -> Any:
    def make(original: Any) -> Any:
        def started_by(event: CloudEvent, subscription: Subscription) -> NewInstance:
            return original(event._replace(source="/"), subscription)  # type: ignore[no-any-return]

        return started_by

    return swapped(memory_inbox, "started_by", make)


@mutant("handlers: started after the event is marked, not with it")
def started_apart() -> Any:
    def make(original: Any) -> Any:
        def route(self: FaultyStore, keys: Sequence[EventKey]) -> Any:
            model, world = self.model, self.world
            later: list[Any] = []

            def do() -> Routed:
                with swapped(InboxModel, "_start", lambda start: lambda model, keys, now_us: _noted(later, keys)):
                    routed: Routed = world.mail_verb(self.node, "route", model.route(keys))
                world.loop.after(
                    self.node.process, 1_500, lambda: [model._start(some, model.now_us()) for some in later]
                )
                return routed

            return self.call("route", do)

        return route

    return swapped(FaultyStore, "route", make)


def _noted(later: list[Any], keys: Any) -> tuple[InstanceId, ...]:
    later.append(list(keys))
    return ()


@mutant("handlers: only the first handler of a type hears of it")
def first_handler_only() -> Any:
    def make(original: Any) -> Any:
        def start(self: InboxModel, keys: Any, now_us: int) -> Any:
            everything = self.subscriptions
            first: dict[str, Any] = {}
            for subscription in sorted(everything):
                first.setdefault(subscription.type, subscription)
            self.subscriptions = {each: everything[each] for each in first.values()}
            try:
                return original(self, keys, now_us)
            finally:
                self.subscriptions = everything

        return start

    return swapped(InboxModel, "_start", make)


ORDER_MUTANTS: Final = tuple(title for title in MUTANTS if title not in _BEFORE)

__all__ = ["ORDER_MUTANTS"]
